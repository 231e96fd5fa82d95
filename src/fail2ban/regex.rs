//! What a filter finds in a log: `fail2ban-regex`, run on copies in a directory of our own.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

use super::jails::Filter;
use crate::evidence::visible_within;
use crate::programs;
use crate::state_file::effective_user;

/// What the names of such directories begin with; sixteen hexadecimal digits follow.
const PREFIX: &str = "ringfence-";

/// Somebody may take the name, or clear it away.
const TRIES: usize = 8;

/// A directory for nobody but us, gone with this value. It is locked as long as we live, so that what a `kill -9` leaves is known.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes it in `dir`.
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        let make = || -> io::Result<Option<Self>> {
            let path = dir.join(format!("{PREFIX}{:016x}", fastrand::u64(..)));
            // What is there already is somebody else's, and an error.
            DirBuilder::new().mode(0o700).create(&path)?;
            let lock = File::open(&path)?;
            // Who clears away may have taken it for an old one.
            let ours = lock.try_lock().is_ok()
                && path
                    .symlink_metadata()
                    .is_ok_and(|there| Some(there.ino()) == lock.metadata().ok().map(|it| it.ino()));
            Ok(ours.then_some(Self { path, _lock: lock }))
        };
        for _ in 0..TRIES {
            let there = make().with_context(|| format!("cannot make a directory in {}", dir.display()))?;
            if let Some(scratch) = there {
                return Ok(scratch);
            }
        }
        bail!("cannot make a directory in {}: others take it away", dir.display())
    }

    /// The same for the whole of this process, which a signal ends from now on in this way alone: the directory goes first. What
    /// killed ones left in `dir` is cleared away.
    pub fn of_process(dir: &Path) -> anyhow::Result<Self> {
        clear_away(dir);
        let scratch = Self::new(dir)?;
        let path = scratch.path.clone();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().build().context("no runtime")?;
        let caught = |kind| {
            let _inside = runtime.enter();
            signal(kind).context("cannot catch signals")
        };
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let (mut interrupts, mut terminations, mut hangups) =
            (caught(interrupt)?, caught(terminate)?, caught(hangup)?);
        std::thread::spawn(move || {
            let kind = runtime.block_on(async {
                tokio::select! {
                    _ = interrupts.recv() => interrupt,
                    _ = terminations.recv() => terminate,
                    _ = hangups.recv() => hangup,
                }
            });
            // A program that we called may still write there.
            for _ in 0..TRIES {
                if !matches!(std::fs::remove_dir_all(&path), Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty)
                {
                    break;
                }
            }
            std::process::exit(128 + kind.as_raw_value());
        });
        Ok(scratch)
    }

    /// A file in it.
    pub fn put(&self, name: &str, content: &[u8]) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        let write = || -> io::Result<()> {
            // Not the directory itself: once gone, it stays so.
            let mut dir = self.path.clone();
            for part in Path::new(name).parent().into_iter().flat_map(Path::components) {
                dir.push(part);
                match std::fs::create_dir(&dir) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    _ => {}
                }
            }
            std::fs::write(&path, content)
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Its name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Takes away what killed processes of ours left in `dir`: directories with such a name that belong to us, that nobody else may look
/// into, and that nobody holds the lock of. What cannot be taken away stays.
fn clear_away(dir: &Path) {
    let is_ours = |name: &str| {
        let digits = name.strip_prefix(PREFIX);
        digits.is_some_and(|digits| {
            digits.len() == 16 && digits.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
        })
    };
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        // Of a link, this is the link's.
        let Ok(about) = entry.metadata() else { continue };
        let private = about.is_dir() && about.uid() == effective_user() && about.mode() & 0o777 == 0o700;
        if !private || !entry.file_name().to_str().is_some_and(is_ours) {
            continue;
        }
        let Ok(left) = File::open(entry.path()) else { continue };
        // What is locked now is what was looked at: nobody but its owner renames in a directory that all may write to.
        let same = left.metadata().is_ok_and(|it| (it.dev(), it.ino()) == (about.dev(), about.ino()));
        if same && left.try_lock().is_ok() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Whom a filter finds in a log, in order: addresses, or what its ids are. `name` is for files of ours alone.
pub fn found_by(
    filter: &Filter,
    name: &str,
    log: &[u8],
    scratch: &Scratch,
    time: Duration,
) -> anyhow::Result<Vec<String>> {
    // fail2ban-regex takes the directory's name for where else to look.
    let conf = scratch.put(&format!("{name}/filter.d/filter.conf"), filter.to_conf().as_bytes())?;
    let log = scratch.put(&format!("{name}/log"), log)?;
    let conf = conf.to_str().context("the directory's name is not UTF-8")?;
    found(conf, &log, time)
}

/// Whom the filter in a file finds, which may have its options behind it: `/etc/fail2ban/filter.d/x.conf[mode=y]`. An error is what
/// fail2ban-regex says of the filter, or that it was not done within `time`.
pub fn found(filter: &str, log: &Path, time: Duration) -> anyhow::Result<Vec<String>> {
    let log = log.to_str().context("the log's name is not UTF-8")?;
    // Names are not looked up: nobody else is to hear of this.
    let args = ["--usedns=no", "-o", "id", log, filter];
    let output = programs::output("fail2ban", "fail2ban-regex", &args, "", time)?;
    let mut lines: Vec<_> = output.stdout.lines().map(str::to_owned).collect();
    // Nothing found is no success either, and then it says nothing.
    if !output.status.success() && (!lines.is_empty() || !output.stderr.trim().is_empty()) {
        let said = lines.pop().unwrap_or_else(|| output.stderr.trim().to_owned());
        bail!("{}", visible_within(said.trim_start_matches("ERROR:").trim(), 300));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn what_others_left_or_hold_is_told_from_what_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let at = |name: &str| dir.join(name);
        let make = |name: &str, mode: u32| {
            std::fs::create_dir(at(name)).unwrap();
            std::fs::set_permissions(at(name), Permissions::from_mode(mode)).unwrap();
            std::fs::write(at(name).join("log"), "x").unwrap();
        };
        let kept = [
            "ringfence-000000000000000a",
            "ringfence-00",
            "ringfence-000000000000000X",
            "other-0000000000000001",
        ];
        make(kept[0], 0o755);
        kept[1..].iter().for_each(|name| make(name, 0o700));
        let foreign = "ringfence-000000000000000b";
        make(foreign, 0o700);
        std::os::unix::fs::chown(at(foreign), Some(1000), Some(1000)).unwrap();
        make("target", 0o700);
        symlink(at("target"), at("ringfence-000000000000000c")).unwrap();
        make("ringfence-000000000000000d", 0o700);
        let held = Scratch::new(dir).unwrap();
        held.put("a/b/c", b"x").unwrap();
        clear_away(dir);
        assert!(!at("ringfence-000000000000000d").exists());
        assert!(kept.iter().all(|name| at(name).join("log").exists()) && at(foreign).exists());
        assert!(at("target").join("log").exists() && at("ringfence-000000000000000c").exists());
        assert!(held.path().join("a/b/c").exists());
        let path = held.path().to_owned();
        drop(held);
        assert!(!path.exists());
    }

    #[test]
    fn once_gone_it_stays_so() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(dir.path()).unwrap();
        std::fs::remove_dir(scratch.path()).unwrap();
        assert!(scratch.put("a/log", b"x").is_err() && !scratch.path().exists());
    }
}
