//! One process asks the source, the others wait for it; and a source that failed is left alone for a while.
//!
//! Both in one file of the run directory: its lock says who is asking, its content what failed and
//! when.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use super::AHEAD_MS;
use crate::state_file;

/// A source that failed is asked again after this time, by one call.
const REMEMBERED_MS: i64 = 10_000;

const LENGTH: usize = 512;
/// Checksum, length of the text, milliseconds since 1970, fingerprint of the settings.
const HEAD: usize = 4 + 4 + 8 + 8;

/// The last failure of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// Milliseconds since 1970.
    pub(super) at: i64,
    /// Of the settings that failed.
    pub(super) fingerprint: u64,
    pub(super) message: String,
}

impl Failure {
    /// Whether the source is still to be left alone. The failure may be of a call that came after us; one from
    /// further in the future is none: the clock was set back.
    pub(super) fn is_fresh(&self, now: i64) -> bool {
        (self.at - AHEAD_MS..self.at + REMEMBERED_MS).contains(&now)
    }
}

/// The file that the processes share. Clones share its lock.
#[derive(Debug)]
pub(super) struct Memory(File);

impl Memory {
    pub(super) fn open(run_dir: &Path) -> io::Result<Self> {
        state_file::make_dir(run_dir, 0o755)?;
        state_file::open_own_for_update(&run_dir.join("registrations.lock"), state_file::effective_user())
            .map(Self)
    }

    /// Whether we are the one who asks.
    pub(super) fn try_lock(&self) -> io::Result<bool> {
        state_file::try_lock(&self.0)
    }

    /// The same, again and again for so long.
    pub(super) fn lock_within(&self, patience: Duration) -> io::Result<bool> {
        state_file::lock_within(&self.0, patience)
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// The last failure with these settings, unless an answer came since.
    pub(super) fn failure(&self, fingerprint: u64) -> Option<Failure> {
        self.read().filter(|failure| failure.fingerprint == fingerprint)
    }

    fn read(&self) -> Option<Failure> {
        let mut bytes = [0; LENGTH];
        self.0.read_exact_at(&mut bytes, 0).ok()?;
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let text = bytes.get(HEAD..HEAD + word(4) as usize)?;
        (word(0) == crc32fast::hash(&bytes[4..])).then(|| Failure {
            at: i64::from_be_bytes(bytes[8..16].try_into().expect("eight bytes")),
            fingerprint: u64::from_be_bytes(bytes[16..24].try_into().expect("eight bytes")),
            message: String::from_utf8_lossy(text).into_owned(),
        })
    }

    /// Remembers a failure. A reader that comes in the middle sees none.
    pub(super) fn remember(&self, failure: &Failure) -> io::Result<()> {
        let text = &failure.message.as_bytes()[..failure.message.floor_char_boundary(LENGTH - HEAD)];
        let mut bytes = [0; LENGTH];
        bytes[4..8].copy_from_slice(&u32::try_from(text.len()).expect("less than a block").to_be_bytes());
        bytes[8..16].copy_from_slice(&failure.at.to_be_bytes());
        bytes[16..24].copy_from_slice(&failure.fingerprint.to_be_bytes());
        bytes[HEAD..HEAD + text.len()].copy_from_slice(text);
        let checksum = crc32fast::hash(&bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_be_bytes());
        self.0.write_all_at(&bytes, 0)
    }

    /// An answer came: nothing is remembered.
    pub(super) fn forget(&self) -> io::Result<()> {
        if self.0.metadata()?.len() == 0 { Ok(()) } else { self.0.set_len(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_for_ten_seconds_until_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::open(dir.path()).unwrap();
        assert_eq!(memory.failure(7), None);
        let failure = Failure { at: 5_000, fingerprint: 7, message: "ü".repeat(500) };
        memory.remember(&failure).unwrap();
        let read = Memory::open(dir.path()).unwrap().failure(7).unwrap();
        assert_eq!(memory.failure(8), None, "with other settings");
        assert!(read.message.starts_with("üü") && failure.message.starts_with(&read.message));
        for (now, fresh) in [(-25_001, false), (4_999, true), (5_000, true), (14_999, true), (15_000, false)]
        {
            assert_eq!(read.is_fresh(now), fresh, "{now}");
        }
        memory.forget().unwrap();
        assert_eq!(memory.failure(7), None);
    }

    #[test]
    fn garbage_is_no_failure() {
        let dir = tempfile::tempdir().unwrap();
        for garbage in [vec![], vec![0; 100], vec![0xff; 4096], b"x".repeat(LENGTH)] {
            std::fs::write(dir.path().join("registrations.lock"), garbage).unwrap();
            assert_eq!(Memory::open(dir.path()).unwrap().failure(0), None);
        }
    }
}
