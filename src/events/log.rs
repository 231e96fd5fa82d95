//! The log that fail2ban reads: lines are queued in memory and written by a thread of their own, so that a slow disk
//! never keeps anybody waiting. It is opened anew when it was rotated.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::state_file;

/// Bytes that wait for the disk, with those that are being written; what comes then is dropped, and counted.
pub const MAX_WAITING: usize = 4 << 20;

/// A rotation is noticed within this time; and so long a disk that took nothing is left alone.
const LOOK: Duration = Duration::from_millis(500);

/// fail2ban is root.
const MODE: u32 = 0o640;

/// Buffers that were larger, after a jam, are given back.
const USUAL: usize = 64 << 10;

/// Opens the log, or a file that it was rotated to, for reading: through no link, and only if it is the service's or root's.
pub fn open(path: &Path) -> io::Result<File> {
    let dir = path.parent();
    let name = |path: Option<&Path>| path?.file_name()?.to_str().map(str::to_owned);
    let (Some(parent), Some(sub), Some(name)) = (dir.and_then(Path::parent), name(dir), name(Some(path)))
    else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    state_file::open_entrusted(parent, &sub, &name, state_file::effective_user()).map(|(file, _)| file)
}

/// A log that is longer is put aside, whatever logrotate does: attackers write faster than it looks.
const MAX_LENGTH: u64 = 512 << 20;

/// What is put aside is behind this name, in place of what was; logrotate's numbers begin with 1.
const ASIDE: &str = "0";

/// The writing end of the log. What still waits when it is dropped is lost: see [`Log::finish`].
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    /// The directory: one process writes there.
    _lock: File,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Of either side.
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// So many bytes are being written.
    writing: usize,
    dropped: u64,
    reopen: bool,
    end: bool,
    /// Nothing is left to be written, or nothing more will be.
    ended: bool,
    /// Why nothing can be written, as long as that is so.
    failure: Option<String>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nobody panics with it in his hands.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// Opens the log, or makes it, and begins to write. Its directory is made where it is missing, and must belong to root or
    /// to us, and be nobody else's to write to; another process that writes there is `ResourceBusy`.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_within(path, MAX_LENGTH)
    }

    fn open_within(path: &Path, max_length: u64) -> io::Result<Self> {
        let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        state_file::make_dir(dir, 0o750)?;
        state_file::check_own_dir(dir, state_file::effective_user())?;
        let lock = File::open(dir)?;
        if !state_file::try_lock(&lock)? {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another ringfence-events writes it"));
        }
        let file = state_file::open_for_append(path, MODE)?;
        let shared = Arc::new(Shared::default());
        let writer =
            Writer { path: path.to_owned(), file: Some(file), shared: Arc::clone(&shared), max_length };
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.run())?;
        Ok(Self { shared, _lock: lock })
    }

    /// Queues a whole line; whether there was room.
    #[must_use]
    pub fn write(&self, line: &str) -> bool {
        let mut state = self.shared.state();
        if state.waiting.len() + state.writing + line.len() > MAX_WAITING {
            state.dropped += 1;
            return false;
        }
        let was_empty = state.waiting.is_empty();
        state.waiting.extend_from_slice(line.as_bytes());
        drop(state);
        if was_empty {
            self.shared.news.notify_all();
        }
        true
    }

    /// Opens the file anew before the next line, as after a rotation.
    pub fn reopen(&self) {
        self.shared.state().reopen = true;
        self.shared.news.notify_all();
    }

    /// How many lines found no room, since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.state().dropped
    }

    /// Why nothing can be written, if that is so.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.shared.state().failure.clone()
    }

    /// Writes what waits, if the disk takes it within `patience`; whether it did.
    #[must_use]
    pub fn finish(self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut state = self.shared.state();
        state.end = true;
        self.shared.news.notify_all();
        while !state.ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let woken = self.shared.news.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.failure.is_none()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shared.state().end = true;
        self.shared.news.notify_all();
    }
}

struct Writer {
    path: PathBuf,
    file: Option<File>,
    shared: Arc<Shared>,
    max_length: u64,
}

impl Writer {
    fn run(mut self) {
        let mut lines = Vec::new();
        loop {
            let (end, reopen) = self.take(&mut lines);
            if reopen || !self.is_current() {
                self.file = None;
            }
            let written = self.append(&mut lines).and_then(|()| self.put_aside());
            let mut state = self.shared.state();
            state.writing = lines.len();
            let path = self.path.display();
            state.failure = written.as_ref().err().map(|error| format!("cannot write {path}: {error}"));
            if end {
                state.ended = true;
                self.shared.news.notify_all();
                return;
            }
            if written.is_err() && !state.end {
                // Whatever could not be written is tried again; what comes meanwhile waits behind it.
                let idle = self.shared.news.wait_timeout_while(state, LOOK, |state| !state.end);
                drop(idle);
                self.file = None;
            }
        }
    }

    /// Waits for lines, and takes them unless some are left over; whether it is over, and whether to open anew.
    fn take(&self, lines: &mut Vec<u8>) -> (bool, bool) {
        let mut state = self.shared.state();
        if lines.is_empty() {
            if state.waiting.is_empty() && !state.end && !state.reopen {
                let woken = self.shared.news.wait_timeout(state, LOOK);
                state = woken.unwrap_or_else(PoisonError::into_inner).0;
            }
            lines.shrink_to(USUAL);
            std::mem::swap(&mut state.waiting, lines);
        } else if state.end {
            lines.append(&mut state.waiting);
        }
        state.writing = lines.len();
        (state.end, std::mem::take(&mut state.reopen))
    }

    /// Whether the file that is open is still the one under its name.
    fn is_current(&self) -> bool {
        let Some(file) = &self.file else { return false };
        match (file.metadata(), std::fs::metadata(&self.path)) {
            (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
            _ => false,
        }
    }

    /// Makes room where the file has become too long.
    fn put_aside(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        if file.metadata()?.len() >= self.max_length {
            let mut aside = self.path.clone().into_os_string();
            aside.push(".");
            aside.push(ASIDE);
            std::fs::rename(&self.path, aside)?;
            self.file = Some(state_file::open_for_append(&self.path, MODE)?);
        }
        Ok(())
    }

    /// Appends lines, which are gone from `lines` as far as they are written; never a part of one.
    fn append(&mut self, lines: &mut Vec<u8>) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(state_file::open_for_append(&self.path, MODE)?),
        };
        let mut done = 0;
        while done < lines.len() {
            match file.write(&lines[done..]) {
                Ok(0) => return Err(whole_lines(file, lines, done, io::ErrorKind::WriteZero.into())),
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(whole_lines(file, lines, done, error)),
            }
        }
        lines.clear();
        Ok(())
    }
}

/// Takes back the part of a line at the end of what was written, so that it comes again as a whole.
fn whole_lines(file: &File, lines: &mut Vec<u8>, done: usize, error: io::Error) -> io::Error {
    let whole = memchr::memrchr(b'\n', &lines[..done]).map_or(0, |at| at + 1);
    if let Ok(about) = file.metadata()
        && done > whole
    {
        let _ = file.set_len(about.len().saturating_sub((done - whole) as u64));
    }
    lines.drain(..whole);
    error
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn rotation_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events/events.log");
        let log = Log::open(&path).unwrap();
        for number in 0..1_000 {
            assert!(log.write(&format!("{number}\n")));
            if number % 100 == 50 {
                while !path.exists() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                std::fs::rename(&path, dir.path().join(format!("{number}"))).unwrap();
                if number % 200 == 50 {
                    log.reopen();
                }
                std::thread::sleep(Duration::from_millis(3));
            }
        }
        assert!(log.finish(LONG));
        let old = (50..1_000).step_by(100).map(|number| dir.path().join(format!("{number}")));
        let text: String =
            old.chain([path]).map(|path| std::fs::read_to_string(path).unwrap_or_default()).collect();
        assert!(text.lines().eq((0..1_000).map(|number| number.to_string())), "{text}");
    }

    #[test]
    fn the_disk_is_not_filled_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.log");
        let log = Log::open_within(&path, 1_000).unwrap();
        for number in 0..1_000 {
            assert!(log.write(&format!("{number:09}\n")));
            if number % 10 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        assert!(log.finish(LONG));
        let mut names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names.retain(|name| name != "events.log");
        assert_eq!(names, ["events.log.0"]);
        let text = [dir.path().join("events.log.0"), path.clone()]
            .map(|path| std::fs::read_to_string(path).unwrap_or_default())
            .concat();
        assert!(text.len() < 10_000 && text.ends_with("000000999\n"), "{}", text.len());
    }

    #[test]
    fn one_process_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.log");
        let log = Log::open(&path).unwrap();
        assert_eq!(Log::open(&path).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        assert!(log.finish(LONG));
        Log::open(&path).unwrap();
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.log");
        let log = Log::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let line = "x".repeat(999) + "\n";
        let kept = (0..10_000).filter(|_| log.write(&line)).count();
        assert!((2_000..4_500).contains(&kept), "{kept}");
        assert_eq!(log.dropped(), 10_000 - kept as u64);
        while log.failure().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let start = Instant::now();
        assert!(!log.finish(LONG));
        assert!(start.elapsed() < LONG / 2, "what cannot be written is not waited for");
    }

    #[test]
    fn others_may_not_write_to_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.log");
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
        assert_eq!(Log::open(&path).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o750)).unwrap();
        Log::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    }

    #[test]
    fn half_a_line_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for (done, left, kept) in [
            (0, "one\ntwo\n", "old\n"),
            (2, "one\ntwo\n", "old\n"),
            (4, "two\n", "old\none\n"),
            (6, "two\n", "old\none\n"),
        ] {
            let mut lines = b"one\ntwo\n".to_vec();
            std::fs::write(&path, [b"old\n", &lines[..done]].concat()).unwrap();
            let file = state_file::open_for_append(&path, MODE).unwrap();
            whole_lines(&file, &mut lines, done, io::ErrorKind::StorageFull.into());
            assert_eq!((lines, std::fs::read(&path).unwrap()), (left.into(), kept.into()), "{done}");
        }
    }
}
