//! Decisions of the past, as the journal has them.

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;

use jiff::Timestamp;
use serde::Deserialize;

use super::Decision;
use crate::{log_files, state_file};

/// No line of ours is longer: a subject and a detail, and what JSON makes of their characters.
const LONGEST: usize = 8 << 10;

/// A decision that was made.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Past {
    /// When, or when the last of them was.
    pub when: Timestamp,
    /// What.
    #[serde(flatten)]
    pub decision: Decision,
    /// So many of it since the last such line.
    pub count: u32,
}

/// Hands over each decision since then, in no strict order; how many lines were none of the journal's. No journal has none.
pub fn since(log_dir: &Path, since: Timestamp, mut each: impl FnMut(Past)) -> io::Result<u64> {
    let path = log_dir.join("decisions.jsonl");
    let names = match log_files::since(&path, since) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        names => names?,
    };
    let mut odd = 0;
    // Most are older, and times in this form are in the order of their texts.
    let start = format!("{{\"when\":\"{}", since.strftime("%Y-%m-%dT%H:%M:%S"));
    for name in names {
        let file = match state_file::open_regular(&path.with_file_name(&name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        log_files::each_line(file, &name, LONGEST, |line| {
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
    }
    Ok(odd)
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
}
