//! What was recorded in the last minute, shared by all processes: a small table in the run directory.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::Decision;
use crate::state_file;

/// A decision finds its slot by hash; a newcomer displaces whom it finds there. What was written to the journal and
/// what was told to syslog are kept apart.
const JOURNAL_SLOTS: u64 = 512;
const SYSLOG_SLOTS: u64 = 64;
const SLOT: usize = 1024;
/// Checksum, length, start of the minute, count.
const HEAD: usize = 4 + 4 + 8 + 4;
const MINUTE_MS: i64 = 60_000;

/// The lock is held for microseconds. Who does not get it in this many tries of a millisecond goes without.
const TRIES: u32 = 5;

pub(super) struct Recent(File);

/// What is to be done about a decision.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing: it was counted.
    Counted,
    /// Write it, standing for `count` decisions, and before it the one that it displaced, if that has
    /// decisions that no line tells of.
    Due { count: u32, displaced: Option<Box<Displaced>> },
}

/// Decisions that no line tells of: so many, the first of them after `since`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Displaced {
    pub(super) decision: Decision,
    pub(super) since: Timestamp,
    pub(super) count: u32,
}

/// To whom a decision is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ear {
    Journal,
    Syslog,
}

impl Turn {
    pub(super) fn first() -> Self {
        Self::Due { count: 1, displaced: None }
    }
}

struct Slot {
    decision: Decision,
    since: i64,
    /// Decisions since the last line.
    counted: u32,
}

impl Recent {
    pub(super) fn open(run_dir: &Path) -> io::Result<Self> {
        state_file::make_dir(run_dir, 0o755)?;
        state_file::open_own_for_update(&run_dir.join("evidence.recent"), state_file::effective_user())
            .map(Self)
    }

    pub(super) fn take(&self, ear: Ear, decision: &Decision, now: Timestamp) -> Turn {
        // A memory that fails costs the counting, never the line.
        self.try_take(ear, decision, now).unwrap_or_else(|_| Turn::first())
    }

    fn try_take(&self, ear: Ear, decision: &Decision, now: Timestamp) -> io::Result<Turn> {
        let mut tries = 0;
        while !state_file::try_lock(&self.0)? {
            tries += 1;
            if tries == TRIES {
                return Ok(Turn::first());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let turn = self.turn(ear.place(decision), decision, now.as_millisecond());
        self.0.unlock()?;
        turn
    }

    fn turn(&self, place: u64, decision: &Decision, now: i64) -> io::Result<Turn> {
        let old = self.read(place);
        let (turn, slot) = match old {
            Some(slot) if slot.decision.same(decision) => {
                let counted = slot.counted.saturating_add(1);
                // A clock that was set back ends the minute too.
                if (slot.since..slot.since + MINUTE_MS).contains(&now) {
                    (Turn::Counted, Slot { counted, ..slot })
                } else {
                    let slot = Slot { decision: decision.clone(), since: now, counted: 0 };
                    (Turn::Due { count: counted, displaced: None }, slot)
                }
            }
            old => {
                let displaced = old.filter(|old| old.counted > 0).map(|old| {
                    let since = Timestamp::from_millisecond(old.since).unwrap_or_default();
                    Box::new(Displaced { decision: old.decision, since, count: old.counted })
                });
                let slot = Slot { decision: decision.clone(), since: now, counted: 0 };
                (Turn::Due { count: 1, displaced }, slot)
            }
        };
        self.write(place, &slot)?;
        Ok(turn)
    }

    fn read(&self, place: u64) -> Option<Slot> {
        let mut bytes = [0; SLOT];
        self.0.read_exact_at(&mut bytes, place * SLOT as u64).ok()?;
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let length = word(4) as usize;
        let text = bytes.get(HEAD..HEAD + length)?;
        if word(0) != crc32fast::hash(&bytes[4..HEAD + length]) {
            return None;
        }
        let since = i64::from_be_bytes(bytes[8..16].try_into().expect("eight bytes"));
        Some(Slot { decision: serde_json::from_slice(text).ok()?, since, counted: word(16) })
    }

    fn write(&self, place: u64, slot: &Slot) -> io::Result<()> {
        let text = serde_json::to_vec(&slot.decision)?;
        let mut bytes = vec![0; HEAD];
        bytes[4..8].copy_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes[8..16].copy_from_slice(&slot.since.to_be_bytes());
        bytes[16..20].copy_from_slice(&slot.counted.to_be_bytes());
        bytes.extend_from_slice(&text);
        if bytes.len() > SLOT {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        let checksum = crc32fast::hash(&bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_be_bytes());
        // Whole slots, so that the last one can be read as such.
        bytes.resize(SLOT, 0);
        self.0.write_all_at(&bytes, place * SLOT as u64)
    }
}

impl Decision {
    /// The same decision about the same subject, whatever its details.
    fn same(&self, other: &Self) -> bool {
        self.key() == other.key()
    }

    fn key(&self) -> [&str; 5] {
        [&self.tool, &self.subject, &self.decision, &self.reason, &self.mode]
    }
}

impl Ear {
    fn place(self, decision: &Decision) -> u64 {
        let mut hasher = DefaultHasher::new();
        decision.key().hash(&mut hasher);
        match self {
            Self::Journal => hasher.finish() % JOURNAL_SLOTS,
            Self::Syslog => JOURNAL_SLOTS + hasher.finish() % SYSLOG_SLOTS,
        }
    }
}
