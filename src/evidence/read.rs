//! What the journal says of a subject.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Decision;
use crate::{log_files, state_file};

/// No line of ours is longer.
const LONGEST: usize = 8 << 10;

/// A decision as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// When.
    pub when: Timestamp,
    /// What.
    #[serde(flatten)]
    pub decision: Decision,
    /// It stands for so many.
    #[serde(default)]
    pub count: u32,
}

/// The last decisions, at most so many, in order: those with a `subject` in their line, and that are about it. The files that the
/// journal was renamed to count too. No journal is one without decisions.
pub fn last_about(
    log_dir: &Path,
    subject: &str,
    is_about: impl Fn(&str) -> bool,
    most: usize,
) -> io::Result<Vec<Recorded>> {
    let path = log_dir.join("decisions.jsonl");
    let names = match log_files::since(&path, Timestamp::UNIX_EPOCH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        names => names?,
    };
    let finder = memchr::memmem::Finder::new(subject);
    let mut last = VecDeque::new();
    for name in names {
        let file = match state_file::open_regular(&path.with_file_name(&name)) {
            // It was renamed just then.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        log_files::each_line(file, &name, LONGEST, |line| {
            if finder.find(line).is_some()
                && let Ok(recorded) = serde_json::from_slice::<Recorded>(line)
                && is_about(&recorded.decision.subject)
            {
                if last.len() == most {
                    last.pop_front();
                }
                last.push_back(recorded);
            }
        })?;
    }
    Ok(last.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Journal;

    #[test]
    fn the_last_of_a_subject_are_found_in_renamed_files_too() {
        let dir = tempfile::tempdir().unwrap();
        let about = |subject: &str, most| {
            let found = last_about(dir.path(), subject, |other| other == subject, most).unwrap();
            found.into_iter().map(|recorded| recorded.decision.reason).collect::<Vec<_>>()
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
