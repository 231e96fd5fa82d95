//! Who is logged in from elsewhere: utmp(5), and the session files of systemd-logind.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use utmp_rs::{UtmpEntry, UtmpParser};

use super::{Gathered, address, quoted};

/// No file of thousands of sessions is longer.
const MAX_UTMP: u64 = 16 << 20;

/// Bytes of a record, and where `ut_addr_v6` is in it, which `utmp_rs` leaves out: glibc's `struct utmp` has a long
/// `ut_session` and `ut_tv` only where there never was a 32-bit one.
const RECORD: usize = if cfg!(any(target_arch = "aarch64", target_arch = "s390x")) { 400 } else { 384 };
const ADDRESS: usize = if RECORD == 400 { 360 } else { 348 };

/// Takes in the peers of the sessions in utmp whose process is there; no such file has none.
pub(super) fn read_utmp(file: &Path, found: &mut Gathered) {
    let Some(content) = found.read(file, MAX_UTMP, "login sessions in") else { return };
    let mut damaged = 0;
    // One by one, so that a damaged record hides no other.
    for record in content.chunks(RECORD) {
        match UtmpParser::from_reader(record).next() {
            Some(Ok(UtmpEntry::UserProcess { pid, host, .. })) if may_live(pid) => {
                // mosh writes "203.0.113.7 via mosh [1234]".
                let host = host.split_whitespace().next().unwrap_or_default();
                match address_field(record).or_else(|| address(host)) {
                    Some(address) => drop(found.addresses.insert(address)),
                    None if is_host_name(host) => found.problems.push(unknown(file, host)),
                    None => {}
                }
            }
            Some(Ok(_)) | None => {}
            Some(Err(_)) => damaged += 1,
        }
    }
    if damaged > 0 {
        let all = content.len().div_ceil(RECORD);
        found.problems.push(format!(
            "{}: {damaged} of {all} records are damaged; sessions in them are not known",
            file.display()
        ));
    }
}

/// The first 4 bytes are an IPv4 address where the others are zero.
fn address_field(record: &[u8]) -> Option<IpAddr> {
    let bytes: &[u8; 16] = record.get(ADDRESS..)?.first_chunk()?;
    match bytes {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => None,
        [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => Some(IpAddr::from([*a, *b, *c, *d])),
        v6 => Some(IpAddr::from(*v6).to_canonical()),
    }
}

/// Whether the process is there, or that cannot be told.
fn may_live(pid: i32) -> bool {
    (pid > 0)
        .then(|| Pid::from_raw(pid))
        .flatten()
        .is_none_or(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}

/// Not the `:0` and `tmux(1234).%0` of local sessions.
fn is_host_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

fn unknown(file: &Path, host: &str) -> String {
    format!(
        "{}: somebody is logged in from {}, whose address is not there; with `UseDNS no`, sshd writes it",
        file.display(),
        quoted(host)
    )
}

/// No session file is longer.
const MAX_SESSION: u64 = 64 << 10;

/// Takes in the peers of the sessions in systemd-logind's directory; no such directory has none.
pub(super) fn read_logind(dir: &Path, found: &mut Gathered) {
    let problem = |error: io::Error| format!("cannot read the login sessions in {}: {error}", dir.display());
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => {
            found.problems.push(problem(error));
            return;
        }
    };
    for entry in entries {
        match entry {
            // Beside each session there is the FIFO `ID.ref`, and while one is written, `.#IDxyz`.
            Ok(entry) if entry.file_name().as_encoded_bytes().contains(&b'.') => {}
            Ok(entry) => read_session(&entry.path(), found),
            Err(error) => {
                found.problems.push(problem(error));
                return;
            }
        }
    }
}

/// Lines of `KEY=value`, as `sd_session_get_remote_host(3)` reads them.
fn read_session(file: &Path, found: &mut Gathered) {
    // One that is not there ended just now.
    let Some(content) = found.read(file, MAX_SESSION, "login session") else { return };
    let content = String::from_utf8_lossy(&content);
    let value = |key: &str| {
        let line = content.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"')
    };
    if value("REMOTE") != "1" || value("STATE") == "closing" {
        return;
    }
    let host = value("REMOTE_HOST");
    match address(host) {
        Some(address) => drop(found.addresses.insert(address)),
        None if host.is_empty() => {}
        None => found.problems.push(unknown(file, host)),
    }
}
