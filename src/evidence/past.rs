//! Decisions of the past, as the journal has them.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Decision;
use crate::{log_files, state_file};

/// No line of ours is longer: a subject and a detail, and what JSON makes of their characters.
const LONGEST: usize = 8 << 10;

/// A decision that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// When, or when the last of them was.
    pub when: Timestamp,
    /// What.
    #[serde(flatten)]
    pub decision: Decision,
    /// So many of it since the last such line.
    #[serde(default)]
    pub count: u32,
}

/// Hands over each decision since then, in no strict order; how many lines were none of the journal's. No journal has none.
pub fn since(log_dir: &Path, since: Timestamp, mut each: impl FnMut(Past)) -> io::Result<u64> {
    let mut odd = 0;
    // Most are older, and times in this form are in the order of their texts.
    let start = format!("{{\"when\":\"{}", since.strftime("%Y-%m-%dT%H:%M:%S"));
    each_line(log_dir, since, |line| {
        // It is being written.
        let Some(line) = line.strip_suffix(b"\n") else { return };
        if line.starts_with(b"{\"when\":\"2") && line < start.as_bytes() {
            return;
        }
        match serde_json::from_slice::<Past>(line) {
            Ok(past) if past.when >= since => each(past),
            Ok(_) => {}
            Err(_) => odd += 1,
        }
    })?;
    Ok(odd)
}

/// The last decisions, at most so many, in order: those with a `subject` in their line, and that are about it. No journal has none.
pub fn last_about(
    log_dir: &Path,
    subject: &str,
    is_about: impl Fn(&str) -> bool,
    most: usize,
) -> io::Result<Vec<Past>> {
    let finder = memchr::memmem::Finder::new(subject);
    let mut last = VecDeque::new();
    each_line(log_dir, Timestamp::UNIX_EPOCH, |line| {
        if finder.find(line).is_some()
            && let Ok(past) = serde_json::from_slice::<Past>(line)
            && is_about(&past.decision.subject)
        {
            if last.len() == most {
                last.pop_front();
            }
            last.push_back(past);
        }
    })?;
    Ok(last.into())
}

/// Each line of the files that were written to since then, those that the journal was renamed to, too.
fn each_line(log_dir: &Path, since: Timestamp, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let path = log_dir.join("decisions.jsonl");
    let names = match log_files::since(&path, since) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        names => names?,
    };
    for name in names {
        match state_file::open_regular(&path.with_file_name(&name)) {
            // It was renamed just then.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            file => log_files::each_line(file?, &name, LONGEST, &mut each)?,
        }
    }
    Ok(())
}

/// When the first decision was made that the journal still has; `None` if it has none.
pub fn begins(log_dir: &Path) -> io::Result<Option<Timestamp>> {
    let path = log_dir.join("decisions.jsonl");
    for name in [path.with_extension("jsonl.1"), path] {
        let file = match state_file::open_regular(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        let mut first = vec![];
        BufReader::new(file).take(LONGEST as u64).read_until(b'\n', &mut first)?;
        if let Ok(past) = serde_json::from_slice::<Past>(&first) {
            return Ok(Some(past.when));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Journal;

    #[test]
    fn what_was_recorded_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let at = |seconds: i64| Timestamp::from_second(1_795_183_743 + seconds).unwrap();
        let all = |from| {
            let mut all = vec![];
            let odd = since(&dir.path().join("log"), from, |past| {
                all.push((past.when, past.decision.subject, past.count));
            });
            (all, odd.unwrap())
        };
        assert_eq!(all(at(0)), (vec![], 0));
        assert_eq!(begins(&dir.path().join("log")).unwrap(), None);
        let journal =
            Journal::new(&dir.path().join("log"), &dir.path().join("run"), &dir.path().join("none"));
        let decision = |subject: &str| Decision::new("ringfence-ban", subject, "ban", "jail", "jail");
        for (seconds, subject) in [(0, "a"), (10, "a\u{1b}"), (20, "a"), (70, "a")] {
            journal.record(&decision(subject), at(seconds)).unwrap();
        }
        let path = dir.path().join("log/decisions.jsonl");
        std::fs::rename(&path, path.with_extension("jsonl.1")).unwrap();
        journal.record(&decision("b"), at(80)).unwrap();
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + "nonsense\n{\"when\":\"2026")
            .unwrap();
        let [a, steers, b] = ["a", "a\u{fffd}", "b"].map(str::to_owned);
        let (first, later) = ((at(0), a.clone(), 1), [(at(10), steers, 1), (at(70), a, 2), (at(80), b, 1)]);
        assert_eq!(all(at(1)), (later.to_vec(), 1));
        assert_eq!(all(at(0)), ([vec![first], later.to_vec()].concat(), 1));
        assert_eq!(begins(&dir.path().join("log")).unwrap(), Some(at(0)));
    }

    #[test]
    fn the_last_of_a_subject_are_found_in_renamed_files_too() {
        let dir = tempfile::tempdir().unwrap();
        let about = |subject: &str, most| {
            let found = last_about(dir.path(), subject, |other| other == subject, most).unwrap();
            found.into_iter().map(|past| past.decision.reason).collect::<Vec<_>>()
        };
        assert_eq!(about("203.0.113.7", 9), [""; 0]);
        let journal = Journal::new(dir.path(), &dir.path().join("run"), &dir.path().join("none"));
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let record = |subject: &str, reason: &str| {
            journal.record(&Decision::new("ringfence-ban", subject, "ban", reason, "sip"), now).unwrap();
        };
        record("203.0.113.7", "one");
        std::fs::rename(dir.path().join("decisions.jsonl"), dir.path().join("decisions.jsonl.1")).unwrap();
        record("203.0.113.70", "other");
        record("203.0.113.7", "two");
        record("203.0.113.7", "three");
        assert_eq!(about("203.0.113.7", 9), ["one", "two", "three"]);
        assert_eq!(about("203.0.113.7", 2), ["two", "three"]);
        std::fs::write(dir.path().join("decisions.jsonl"), "\"203.0.113.7\" nonsense\n").unwrap();
        assert_eq!(about("203.0.113.7", 9), ["one"]);
    }
}
