//! What `SELinux` forbids our programs, by the log of audit.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use jiff::Timestamp;

use super::Subject::Selinux;
use super::{Finding, Root, is_absent, unreadable};
use crate::state_file;

const AUDIT: &str = "/var/log/audit/audit.log";
const ENFORCE: &str = "/sys/fs/selinux/enforce";

/// What is older may be mended by now, in seconds.
const DAY: i64 = 86_400;

/// So much of the end of the log is read, in bytes.
const TAIL: u64 = 4 << 20;

/// Denials of our programs within a day; nothing where there is no `SELinux`, and no log of audit.
#[must_use]
pub fn denials(root: &Root, now: Timestamp) -> Vec<Finding> {
    let enforcing = root.text(ENFORCE).ok().flatten();
    let tail = match tail(root) {
        Ok(tail) => tail,
        Err(error) if is_absent(&error) => {
            let what = format!("SELinux is on, and its denials are not known: there is no {AUDIT}.");
            let finding =
                Finding::unknown(Selinux, "denials", what, "See: journalctl -t audit | grep ringfence");
            return enforcing.map(|_| finding).into_iter().collect();
        }
        Err(error) => return vec![unreadable(Selinux, "denials", &root.at(AUDIT), &error)],
    };
    let mut denied: BTreeMap<&str, usize> = BTreeMap::new();
    let since = now.as_second() - DAY;
    let is_one = |line: &&str| {
        line.contains("avc:")
            && line.contains("denied")
            && !line.contains("permissive=1")
            && when(line) >= since
    };
    for line in tail.lines().filter(is_one) {
        if let Some(program) = program(line) {
            *denied.entry(program).or_default() += 1;
        }
    }
    if denied.is_empty() {
        return match enforcing {
            None => vec![],
            Some(_) => vec![Finding::fine(Selinux, "denials", "SELinux forbids Ringfence nothing")],
        };
    }
    let names: Vec<_> = denied.iter().map(|(name, count)| format!("{name} ({count})")).collect();
    let first = denied.keys().next().copied().unwrap_or_default();
    vec![Finding::needs(
        Selinux,
        "denials",
        format!("SELinux denied something to {}, by {AUDIT}.", names.join(", ")),
        format!(
            "See what: ausearch -m avc -c {first}. Where it is right to permit it: ausearch -m avc -c {first} | audit2allow -M ringfence && \
             semodule -i ringfence.pp"
        ),
    )]
}

fn tail(root: &Root) -> io::Result<String> {
    let mut file: File = state_file::open_regular(&root.at(AUDIT))?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = vec![];
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// When a line was written, in seconds since 1970: `msg=audit(1795183743.123:4)`.
fn when(line: &str) -> i64 {
    let time = line.split_once("audit(").and_then(|(_, rest)| rest.split(['.', ':']).next());
    time.and_then(|time| time.parse().ok()).unwrap_or_default()
}

/// The name of our program that was denied something; audit cuts it at 15 characters.
fn program(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("comm=\"")?;
    rest.split('"').next().filter(|name| name.starts_with("ringfence"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkup::{Verdict, host};

    #[test]
    fn only_denials_of_ours_count() {
        let denial = |comm: &str| {
            format!(
                "type=AVC msg=audit(1.1:1): avc:  denied  {{ read }} for pid=1 comm=\"{comm}\" name=\"core.db\" scontext=x\n"
            )
        };
        let check = |log: &str, enforce: bool| {
            let mut files = vec![(AUDIT, log)];
            if enforce {
                files.push((ENFORCE, "1"));
            }
            let (_dir, root) = host::with(&files);
            denials(&root, Timestamp::UNIX_EPOCH)
        };
        assert_eq!(check(&denial("httpd"), false), []);
        assert_eq!(check(&denial("httpd"), true)[0].verdict, Verdict::Fine);
        let found = &check(&(denial("ringfence-ignor").repeat(2) + &denial("httpd")), false)[0];
        assert_eq!(
            found.what,
            "SELinux denied something to ringfence-ignor (2), by /var/log/audit/audit.log."
        );
        let old = denial("ringfence-ignor");
        let (_dir, root) = host::with(&[(AUDIT, &old)]);
        assert_eq!(denials(&root, Timestamp::from_second(DAY + 2).unwrap()), []);
        assert_eq!(check(&(old.trim_end().to_owned() + " permissive=1\n"), false), []);
        let (_dir, root) = host::with(&[(ENFORCE, "1")]);
        assert_eq!(denials(&root, Timestamp::UNIX_EPOCH)[0].verdict, Verdict::NotChecked);
    }
}
