//! The failures in FreeSWITCH's own log.
//!
//! Whatever stands in `[...]` is the client's, with line breaks of folded headers, and may look like FreeSWITCH's own text. What
//! is FreeSWITCH's is at the start of a line, where no fold can write, and the last address, ahead of the next entry: as
//! the filters for fail2ban read it (`ringfence-freeswitch-common.conf`).

use std::io;
use std::net::IpAddr;
use std::path::Path;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::{Account, Failure, Why};
use crate::events::refusals::is_address;
use crate::evidence::visible_within;
use crate::{address, log_files, state_file};

/// Where it usually is.
pub const USUAL: [&str; 2] =
    ["/var/log/freeswitch/freeswitch.log", "/usr/local/freeswitch/log/freeswitch.log"];

/// No line is read further, in bytes.
pub const LONGEST: usize = 8 << 10;

/// A folded header has no more lines.
const MAX_FOLDS: usize = 4;

/// Of a client's text, so many bytes are kept.
const MAX_TEXT: usize = 96;

/// An account that cannot be found fails a moment later; that is one failure.
const MOMENT: SignedDuration = SignedDuration::from_millis(20);

const TIME: &str = "2026-11-20 12:42:35.461612 ";
const UUID: &str = "8044bdd2-724c-40c8-b7e4-646dc25e1b00 ";
const HINT: &[u8] = b"You must define a domain called '";

/// Hands over each failure since then, by a log whose times are of this zone.
pub fn since(
    path: &Path,
    since: Timestamp,
    zone: &TimeZone,
    mut each: impl FnMut(Failure),
) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new(""));
    let mut reader = Reader::new(zone);
    for name in log_files::since(path, since)? {
        let file = match state_file::open_regular(&dir.join(&name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        log_files::each_line(file, &name, LONGEST, |line| {
            if let Some(failure) = reader.push(line)
                && failure.time >= since
            {
                each(failure);
            }
        })?;
    }
    Ok(())
}

/// Takes the log line by line.
pub struct Reader {
    zone: TimeZone,
    /// An entry that may be a failure, as soon as what comes behind it says so.
    entry: Option<Entry>,
    /// The last account that was not found.
    unknown: Option<(Timestamp, IpAddr)>,
}

struct Entry {
    text: Vec<u8>,
    folds: usize,
}

impl Reader {
    /// Nothing was read yet; the log's times are of this zone.
    #[must_use]
    pub fn new(zone: &TimeZone) -> Self {
        Self { zone: zone.clone(), entry: None, unknown: None }
    }

    /// What the entry before this line says, if it is a failure and has come to its end.
    pub fn push(&mut self, line: &[u8]) -> Option<Failure> {
        if is_entry(line) {
            let failure = self.entry.take().and_then(|entry| self.failure(&entry.text, false));
            if message(line).is_some() {
                self.entry = Some(Entry { text: line.into(), folds: 0 });
            }
            return failure;
        }
        if line.starts_with(HINT) {
            return self.entry.take().and_then(|entry| self.failure(&entry.text, true));
        }
        let is_fold = line.starts_with(b" ") || line.starts_with(b"\t");
        self.entry = self.entry.take().filter(|entry| is_fold && entry.folds < MAX_FOLDS).map(|mut entry| {
            entry.folds += 1;
            entry.text.extend_from_slice(line);
            entry
        });
        None
    }

    /// The same where no line follows: nothing was written behind the last for a while.
    pub fn rest(&mut self) -> Option<Failure> {
        self.entry.take().and_then(|entry| self.failure(&entry.text, false))
    }

    /// What a whole entry says; whether FreeSWITCH's hint stands behind it.
    fn failure(&mut self, text: &[u8], hinted: bool) -> Option<Failure> {
        let text = std::str::from_utf8(text.strip_suffix(b"\n")?).map_or_else(
            |_| String::from_utf8_lossy(text.strip_suffix(b"\n").unwrap_or(text)).into_owned(),
            str::to_owned,
        );
        let time: DateTime = text.get(..TIME.len() - 1)?.parse().ok()?;
        let time = time.to_zoned(self.zone.clone()).ok()?.timestamp();
        let said = message(text.as_bytes())?;
        let said = &text[text.len() - said.len()..];
        let (client, source, is_unknown) = if let Some(rest) = said.strip_prefix("Can't find user [") {
            let (client, source) = rest.rsplit_once("] from ")?;
            (client, source, true)
        } else {
            let rest = said.strip_prefix("SIP auth failure (")?;
            let (_, rest) = rest.split_once(") on sofia profile '")?;
            let (_, rest) = rest.split_once("' for [")?;
            let (client, source) = rest.rsplit_once("] from ip ")?;
            (client, source, false)
        };
        let address = address::parse_text(source)?.to_canonical();
        if is_unknown != hinted {
            return None;
        }
        if is_unknown {
            self.unknown = Some((time, address));
        } else if let Some((before, same)) = self.unknown.take()
            && same == address
            && time.duration_since(before).abs() < MOMENT
        {
            return None;
        }
        let (user, domain) = client.rsplit_once('@').unwrap_or((client, ""));
        let why = match is_unknown {
            _ if is_address(domain.as_bytes()) => Why::AddressAsDomain,
            true => Why::NoSuchAccount,
            false => Why::WrongPassword,
        };
        let [user, domain] = [user, domain].map(|text| visible_within(text, MAX_TEXT));
        Some(Failure {
            time,
            address,
            account: Account { user, domain },
            why,
            agent: String::new(),
            excused: false,
        })
    }
}

/// Whether a line is the start of an entry: with a time, or with a call's uuid in front of it.
fn is_entry(line: &[u8]) -> bool {
    is_like(line, TIME) || is_like(line, UUID)
}

/// Whether a text begins like a pattern: digits where it has digits, hexadecimal ones where it has letters.
fn is_like(text: &[u8], pattern: &str) -> bool {
    text.len() >= pattern.len()
        && pattern.bytes().zip(text).all(|(like, byte)| match like {
            b'-' | b' ' | b':' | b'.' => *byte == like,
            _ if pattern == UUID => byte.is_ascii_hexdigit(),
            _ => byte.is_ascii_digit(),
        })
}

/// What `sofia_reg.c` warns of, outside of calls.
fn message(line: &[u8]) -> Option<&[u8]> {
    if !is_like(line, TIME) {
        return None;
    }
    let rest = &line[TIME.len()..];
    let rest = match rest.iter().position(|byte| *byte == b'%') {
        Some(at) if at <= 6 => rest.get(at + 2..)?,
        _ => rest,
    };
    let rest = rest.strip_prefix(b"[WARNING] sofia_reg.c:")?;
    let end = rest.iter().position(|byte| *byte == b' ')?;
    rest[..end].iter().all(u8::is_ascii_digit).then(|| rest[end + 1..].trim_ascii_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(log: &str) -> Vec<String> {
        let zone = TimeZone::UTC;
        let mut reader = Reader::new(&zone);
        let lines = log.split_inclusive('\n');
        lines
            .filter_map(|line| reader.push(line.as_bytes()))
            .map(|failure| format!("{} {} {}", failure.address, failure.account, failure.why.words()))
            .collect()
    }

    const NEXT: &str = "2026-11-20 12:42:36.000000 0.00% [DEBUG] sofia.c:1 next\n";

    fn warning(text: &str) -> String {
        format!("2026-11-20 12:42:35.461612 0.00% [WARNING] sofia_reg.c:1787 {text}\n")
    }

    #[test]
    fn what_freeswitch_says_counts_and_what_clients_say_does_not() {
        let failure = |client: &str| {
            warning(&format!(
                "SIP auth failure (REGISTER) on sofia profile 'internal' for [{client}] from ip 203.0.113.66"
            ))
        };
        let unknown = |client: &str| warning(&format!("Can't find user [{client}] from 203.0.113.66"));
        let hint = "You must define a domain called 'x' in your directory\nand you must\n";
        let wrong = "203.0.113.66 101@a.example.com wrong password";
        for (log, expected) in [
            (failure("101@a.example.com") + NEXT, vec![wrong]),
            (failure("101@a.example.com"), vec![]),
            (failure("101@a.example.com").replace("0.00% ", "") + NEXT, vec![wrong]),
            (failure("101@a.example.com") + &failure("101@a.example.com") + NEXT, vec![wrong, wrong]),
            (failure("101@a.example.com").replace("failure", "challenge") + NEXT, vec![]),
            (failure("101@a.example.com").replace("WARNING", "DEBUG") + NEXT, vec![]),
            (format!(" {}", failure("101@a.example.com")) + NEXT, vec![]),
            (failure("101@8.8.8.8") + NEXT, vec!["203.0.113.66 101@8.8.8.8 IP address as domain"]),
            (
                failure("x] from ip 198.51.100.11\n 101@a.example.com") + NEXT,
                vec!["203.0.113.66 x] from ip 198.51.100.11\u{fffd} 101@a.example.com wrong password"],
            ),
            (failure("x\n\n\n 101@a.example.com") + NEXT, vec![]),
            (failure("x] from ip 198.51.100.11\ny@z") + NEXT, vec![]),
            (failure("a\n b\n c\n d\n e\n f@z") + NEXT, vec![]),
            (
                unknown("999@a.example.com") + hint + NEXT,
                vec!["203.0.113.66 999@a.example.com no such account"],
            ),
            (unknown("999@a.example.com") + NEXT, vec![]),
            (
                unknown("999@a.example.com") + hint + &failure("999@a.example.com") + NEXT,
                vec!["203.0.113.66 999@a.example.com no such account"],
            ),
            (failure("101@a.example.com") + hint, vec![]),
        ] {
            assert_eq!(found(&log), expected, "{log}");
        }
    }

    #[test]
    fn recorded_attacks_are_the_attackers() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/log");
        let mut failures = 0;
        for file in std::fs::read_dir(dir).unwrap() {
            let path = file.unwrap().path();
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned() + NEXT;
            for failure in found(&text) {
                assert!(failure.starts_with("203.0.113.66 "), "{}: {failure}", path.display());
                failures += 1;
            }
        }
        assert!(failures > 20, "{failures}");
    }

    #[test]
    fn times_are_of_the_zone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("freeswitch.log");
        let failure = warning("SIP auth failure (INVITE) on sofia profile 'x' for [1@a] from ip 2001:db8::1");
        std::fs::write(&path, failure.replace("12:42", "11:42") + &failure + NEXT).unwrap();
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let mut times = vec![];
        since(&path, "2026-11-20T10:00:00Z".parse().unwrap(), &zone, |failure| {
            times.push(failure.time.to_string());
        })
        .unwrap();
        assert_eq!(times, ["2026-11-20T10:42:35.461612Z"]);
    }
}
