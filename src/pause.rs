//! A pause: for a while nothing of ours blocks anybody, and then it does again, whatever has become of us.
//!
//! The kernel ends it: each of our chains begins with a rule that lets all packets out of it again, and matches until then alone.
//! When that is stands in a file of the run directory, so that whoever makes the rules anew makes them the same. A boot ends it too.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::state_file::{self, Durability};

/// No pause is longer.
pub const LONGEST: Duration = Duration::from_hours(24);

/// Whether nothing of ours blocks anybody. Times are seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// There is none.
    Not,
    /// It lasts until then.
    Until(i64),
    /// It lasted until then. The kernel may still have its rules, which do nothing any more.
    Over(i64),
}

/// What stands in the file.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    until: i64,
    /// Its end is in the journal.
    #[serde(default)]
    told: bool,
}

impl Pause {
    /// What the file says at `now`. One that cannot be read is an error, and means no pause to whoever goes on.
    pub fn read(run_dir: &Path, now: Timestamp) -> anyhow::Result<Self> {
        Ok(Written::read(run_dir)?.map_or(Self::Not, |Written { until, .. }| Self::at(until, now)))
    }

    fn at(until: i64, now: Timestamp) -> Self {
        match until.saturating_sub(now.as_second()) {
            ..=0 => Self::Over(until),
            // The clock was set back, and a pause must not last until it is there again.
            left if left.unsigned_abs() > LONGEST.as_secs() => Self::Not,
            _ => Self::Until(until),
        }
    }

    /// When it ends, in seconds since 1970; `None` where there is none, or none any more.
    #[must_use]
    pub const fn until(self) -> Option<i64> {
        match self {
            Self::Until(until) => Some(until),
            Self::Not | Self::Over(_) => None,
        }
    }

    /// Only who has the turn to change rules may.
    pub fn write(run_dir: &Path, until: i64) -> anyhow::Result<()> {
        Written { until, told: false }.write(run_dir)
    }

    /// There is none any more. Only who has the turn to change rules may.
    pub fn forget(run_dir: &Path) -> anyhow::Result<()> {
        let path = path(run_dir);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Whether it is over and nobody was told.
    #[must_use]
    pub fn is_news(run_dir: &Path, now: Timestamp) -> bool {
        let written = Written::read(run_dir).ok().flatten();
        written.is_some_and(|written| !written.told && matches!(Self::at(written.until, now), Self::Over(_)))
    }

    /// Its end is no news any more. Only who has the turn to change rules may.
    pub fn tell(run_dir: &Path) -> anyhow::Result<()> {
        Written::read(run_dir)?.map_or(Ok(()), |written| Written { told: true, ..written }.write(run_dir))
    }
}

impl Written {
    fn read(run_dir: &Path) -> anyhow::Result<Option<Self>> {
        const LONGEST: u64 = 1 << 10;
        let path = path(run_dir);
        let content = match state_file::read_regular(&path, LONGEST) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            content => content.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let read = serde_json::from_slice(&content);
        read.with_context(|| format!("{} is damaged, and means no pause", path.display())).map(Some)
    }

    fn write(&self, run_dir: &Path) -> anyhow::Result<()> {
        let path = path(run_dir);
        state_file::make_dir(run_dir, 0o755)
            .and_then(|()| state_file::replace(&path, &serde_json::to_vec(self)?, Durability::Volatile))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Where it stands.
#[must_use]
pub fn path(run_dir: &Path) -> PathBuf {
    run_dir.join("pause.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_pause_ends_by_itself_and_its_end_is_news_once() {
        let dir = tempfile::tempdir().unwrap();
        let dir = &dir.path().join("run");
        assert_eq!(Pause::read(dir, at(0)).unwrap(), Pause::Not);
        assert!(!Pause::is_news(dir, at(0)));
        Pause::write(dir, 1_000).unwrap();
        for (now, pause, news) in [
            (400, Pause::Until(1_000), false),
            (999, Pause::Until(1_000), false),
            (1_000, Pause::Over(1_000), true),
            (5_000, Pause::Over(1_000), false),
            (1_000 - 86_400, Pause::Until(1_000), false),
            (1_000 - 86_401, Pause::Not, false),
        ] {
            assert_eq!(Pause::read(dir, at(now)).unwrap(), pause, "{now}");
            assert_eq!(Pause::is_news(dir, at(now)), news, "{now}");
            if news {
                assert!(Pause::is_news(dir, at(now)), "until it is told");
                Pause::tell(dir).unwrap();
            }
        }
        Pause::forget(dir).unwrap();
        Pause::forget(dir).unwrap();
        assert_eq!(Pause::read(dir, at(400)).unwrap(), Pause::Not);
    }

    #[test]
    fn what_is_damaged_is_said_and_is_no_pause() {
        let dir = tempfile::tempdir().unwrap();
        for damaged in ["", "{", "{\"until\":\"soon\"}", &"9".repeat(2_000)] {
            std::fs::write(path(dir.path()), damaged).unwrap();
            let error = format!("{:#}", Pause::read(dir.path(), at(0)).unwrap_err());
            assert!(error.contains("pause.json"), "{error}");
            assert!(!Pause::is_news(dir.path(), at(0)));
        }
    }
}
