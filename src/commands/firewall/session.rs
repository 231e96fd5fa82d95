//! Whether whoever calls sits at the other end of an SSH connection, and would be locked out by a mistake.

use std::path::Path;

use crate::host;

/// sshd hands its clients' processes a variable; sudo takes it away, but no ancestor; and who comes back to a tmux has neither, but is
/// logged in from somewhere.
pub(super) fn is_over_ssh() -> bool {
    ["SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY"].iter().any(|name| std::env::var_os(name).is_some())
        || has_sshd_above(std::process::id(), Path::new("/proc"))
        || !host::protected(&host::Paths::default()).login_peers.is_empty()
}

fn has_sshd_above(mut process: u32, proc: &Path) -> bool {
    // A process may end while we look.
    for _ in 0..64 {
        let Some((name, parent)) = parent(process, proc) else { return false };
        if name.starts_with("sshd") {
            return true;
        }
        process = parent;
    }
    false
}

/// The name of a process, and its parent.
fn parent(process: u32, proc: &Path) -> Option<(String, u32)> {
    let text = std::fs::read_to_string(proc.join(process.to_string()).join("stat")).ok()?;
    // The name may have blanks and brackets in it.
    let (name, rest) = text.split_once('(')?.1.rsplit_once(')')?;
    Some((name.to_owned(), rest.split_whitespace().nth(1)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ancestor_may_be_sshd() {
        let proc = tempfile::tempdir().unwrap();
        for (process, stat) in [
            ("1", "1 (systemd) S 0 1"),
            ("10", "10 (sshd-session) S 1 10"),
            ("20", "20 (sh) (sshd) x) S 10 20"),
            ("30", "30 (cron) S 1 30"),
            ("31", "31 (not sshd) S 30 31"),
        ] {
            std::fs::create_dir(proc.path().join(process)).unwrap();
            std::fs::write(proc.path().join(process).join("stat"), stat).unwrap();
        }
        assert!(has_sshd_above(20, proc.path()));
        assert!(!has_sshd_above(31, proc.path()));
        assert!(!has_sshd_above(99, proc.path()));
    }
}
