//! The failures in the log of `ringfence-events`.

use std::io;
use std::path::Path;

use jiff::Timestamp;

use super::{Account, Failure, Why};
use crate::events::line::{self, Entry, Field, Known, Line, MAX_LINE, Time};
use crate::events::log;
use crate::events::refusals::is_address;
use crate::log_files;

/// `2026-11-21T14:12:03.123Z v1 `
const BEFORE_KIND: usize = 28;

/// Hands over each failure since then; how many lines were none of the log's. Those that were excused are failures, too.
pub fn since(path: &Path, since: Timestamp, mut each: impl FnMut(Failure)) -> io::Result<u64> {
    let mut odd = 0;
    // Times in this form are in the order of their texts.
    let start = Time::from(since).to_string();
    for name in log_files::since(path, since)? {
        let file = match log::open(&path.with_file_name(&name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        log_files::each_line(file, &name, MAX_LINE + 1, |text| {
            let Some(text) = text.strip_suffix(b"\n") else { return };
            let kind = text.get(BEFORE_KIND..).unwrap_or_default();
            if text < start.as_bytes() || !(kind.starts_with(b"failure ") || kind.starts_with(b"excused ")) {
                return;
            }
            match Line::parse(text) {
                Ok(line) => failure(&line).into_iter().for_each(&mut each),
                Err(_) => odd += 1,
            }
        })?;
    }
    Ok(odd)
}

/// The failure that a line tells of, also one that was excused.
#[must_use]
pub fn failure(line: &Line) -> Option<Failure> {
    let (Entry::Failure(failure) | Entry::Excused(failure)) = &line.entry else { return None };
    let agent = &failure.client().agent;
    let readable = |text: Field<'_>| match text {
        Field::Text { bytes: [], .. } => String::new(),
        text => text.readable(),
    };
    let line::Account { user, domain } = failure.account();
    Some(Failure {
        time: line.time.get(),
        address: failure.address().get(),
        account: Account { user: readable(user.into()), domain: readable(domain.into()) },
        why: why(failure),
        agent: readable(agent.into()),
        excused: matches!(line.entry, Entry::Excused(_)),
    })
}

fn why(failure: &line::Failure) -> Why {
    let domain = &failure.account().domain;
    let is_other = |claimed: &line::Account| !claimed.domain.bytes().eq_ignore_ascii_case(domain.bytes());
    match failure.known() {
        Known::Yes => Why::WrongPassword,
        _ if is_address(domain.bytes()) => Why::AddressAsDomain,
        _ if failure.claimed().is_some_and(is_other) => Why::OtherRealm,
        Known::No => Why::NoSuchAccount,
        Known::Unknown => Why::NotChecked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_file;

    #[test]
    fn each_failure_since_then_says_why() {
        let dir = tempfile::tempdir().unwrap();
        state_file::make_dir(&dir.path().join("events"), 0o750).unwrap();
        let path = dir.path().join("events/events.log");
        let head = "2026-11-20T13:31:24.944Z v1";
        let lines = [
            "failure address=203.0.113.66 method=INVITE account=102@a.example.com claimed=101@a.example.com known=yes id=102@a.example.com,203.0.113.66 profile=internal agent=Lab%1B%5B",
            "excused address=203.0.113.66 method=INVITE account=102@a.example.com known=no profile=internal agent=-",
            "failure address=203.0.113.66 method=INVITE account=102@8.8.8.8 claimed=102@a.example.com known=unknown profile=internal agent=-",
            "failure address=203.0.113.66 method=INVITE account=102@b.example.com claimed=102@a.example.com known=unknown profile=internal agent=-",
            "failure address=2001:db8::1 method=VERTO account=%2D@- known=unknown profile=- agent=-",
            "success address=203.0.113.66 account=101@a.example.com expires=300 profile=internal agent=-",
            "failure address=203.0.113.66 nonsense",
        ];
        let old = "2026-11-20T13:31:23.000Z v1 failure address=203.0.113.1 method=INVITE account=1@a known=no profile=- agent=-\n";
        let text = lines.map(|line| format!("{head} {line}\n")).concat();
        std::fs::write(&path, old.to_owned() + &text + head).unwrap();
        let mut found = vec![];
        let odd = since(&path, "2026-11-20T13:31:24Z".parse().unwrap(), |failure| {
            found.push(format!(
                "{} {} {} {}",
                failure.address,
                failure.account,
                failure.why.words(),
                failure.agent
            ));
        });
        assert_eq!(odd.unwrap(), 1);
        assert_eq!(
            found,
            [
                "203.0.113.66 102@a.example.com wrong password Lab\u{fffd}[",
                "203.0.113.66 102@a.example.com no such account ",
                "203.0.113.66 102@8.8.8.8 IP address as domain ",
                "203.0.113.66 102@b.example.com realm is not the domain ",
                "2001:db8::1 - refused ",
            ]
        );
    }
}
