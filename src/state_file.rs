//! Small files that several processes share: opened only where they can be trusted, replaced whole.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

/// A FIFO must not make us wait, a symbolic link must not lead us elsewhere.
const NEVER_WAIT: i32 = OFlags::NONBLOCK.bits().cast_signed();
const OWN: i32 = OFlags::NONBLOCK.union(OFlags::NOFOLLOW).bits().cast_signed();

/// Our effective user id: who else but root may own our files.
#[must_use]
pub fn effective_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Opens a regular file for reading without ever waiting for its other end; follows symbolic links.
///
/// For files that belong to the administrator or to other programs.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(NEVER_WAIT).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    if !kind.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

/// Reads a whole regular file of at most `limit` bytes; a larger one is an error.
pub fn read_regular(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    open_regular(path)?.take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
    }
    Ok(content)
}

/// Opens one of our own files for reading, and its length. It must be a regular file, no symbolic link, owned by
/// root or by `owner` (our effective user id), and writable by nobody else; anything else is
/// `PermissionDenied`.
pub fn open_own(path: &Path, owner: u32) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().read(true).custom_flags(OWN).open(path)?;
    let length = trusted_length(&file, owner)?;
    Ok((file, length))
}

/// Opens one of our own files for reading and writing, made if missing (mode 0600), trusted as in
/// [`open_own`].
pub fn open_own_for_update(path: &Path, owner: u32) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OWN)
        .open(path)?;
    trusted_length(&file, owner)?;
    Ok(file)
}

/// Opens a regular file for appending whole lines, made with `mode` if missing; follows symbolic links.
pub fn open_for_append(path: &Path, mode: u32) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).mode(mode).custom_flags(NEVER_WAIT).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

/// Checks that a directory belongs to root or to `owner`, and that nobody else may write to it; anything else is
/// `PermissionDenied`.
pub fn check_own_dir(path: &Path, owner: u32) -> io::Result<()> {
    let about = std::fs::metadata(path)?;
    if about.is_dir() && is_only_for(&about, owner) {
        return Ok(());
    }
    let message = "not a directory of ours that nobody else may write to";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

/// Opens `name` in the subdirectory `dir` of `parent`, a file that somebody without privileges writes for us, and its length.
///
/// `parent` must belong to root or to `owner` (our effective user id), and be writable by nobody else: so it was one of
/// them who gave the subdirectory to whom it belongs now. He or root must own the file. The subdirectory must be a real
/// one, the file a regular one, and both be writable by nobody else; anything else is `PermissionDenied`.
pub fn open_entrusted(parent: &Path, dir: &str, name: &str, owner: u32) -> io::Result<(File, u64)> {
    let open = |at: &File, name: &str, more: OFlags| -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | more;
        Ok(rustix::fs::openat(at, name, flags, rustix::fs::Mode::empty())?.into())
    };
    let denied = || io::Error::new(io::ErrorKind::PermissionDenied, "others could have written it");
    let parent =
        OpenOptions::new().read(true).custom_flags(OFlags::DIRECTORY.bits().cast_signed()).open(parent)?;
    if !is_only_for(&parent.metadata()?, owner) {
        return Err(denied());
    }
    let dir = open(&parent, dir, OFlags::DIRECTORY)?;
    let about = dir.metadata()?;
    if !is_only_for(&about, about.uid()) {
        return Err(denied());
    }
    let file = open(&dir, name, OFlags::empty())?;
    let length = trusted_length(&file, about.uid())?;
    Ok((file, length))
}

fn is_only_for(about: &std::fs::Metadata, owner: u32) -> bool {
    (about.uid() == 0 || about.uid() == owner) && about.mode() & 0o022 == 0
}

fn trusted_length(file: &File, owner: u32) -> io::Result<u64> {
    let about = file.metadata()?;
    if about.is_file() && is_only_for(&about, owner) {
        Ok(about.len())
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "not a private file of ours"))
    }
}

/// Whether a replaced file must be on the disk before it counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// In a run directory: gone with the next boot anyway.
    Volatile,
    /// In the state directory: flushed before the rename, so that a power cut leaves the old or the new.
    Durable,
}

/// Replaces `path` by `content` in one rename: readers see the old file or the new one, never half.
///
/// Only one process may replace a given file at a time (hold a lock): the new content is gathered
/// beside it, in `NAME.new`, where a crash leaves at most that one file for the next call to overwrite.
pub fn replace(path: &Path, content: &[u8], durability: Durability) -> io::Result<()> {
    replace_for(path, content, durability, None)
}

/// [`replace`] in a run directory, by a file that everybody may read.
pub fn publish(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_as(path, content, Durability::Volatile, None, 0o644)
}

/// [`replace`] by a file that its group may read, too.
pub fn hand_out(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_as(path, content, Durability::Durable, None, 0o640)
}

/// [`replace`], and the new file belongs to `owner`.
pub fn replace_for(
    path: &Path,
    content: &[u8],
    durability: Durability,
    owner: Option<u32>,
) -> io::Result<()> {
    replace_as(path, content, durability, owner, 0o600)
}

fn replace_as(
    path: &Path,
    content: &[u8],
    durability: Durability,
    owner: Option<u32>,
    mode: u32,
) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    let write = || -> io::Result<()> {
        // Never into something that was left or planted there: unlink, then make it ourselves.
        match std::fs::remove_file(beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(beside)?;
        file.write_all(content)?;
        if mode & !0o700 != 0 {
            // Whatever the umask says.
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        if let Some(owner) = owner {
            give(&file, owner)?;
        }
        if durability == Durability::Durable {
            file.sync_all()?;
        }
        std::fs::rename(beside, path)
    };
    write().inspect_err(|_| drop(std::fs::remove_file(beside)))
}

/// Makes `owner` (a user id) the owner of an open file, unless it has a second name: it may be somebody else's, put where
/// ours belongs for us to give it away.
pub fn give(file: &File, owner: u32) -> io::Result<()> {
    if file.metadata()?.nlink() > 1 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it has a second name (hard link)"));
    }
    std::os::unix::fs::fchown(file, Some(owner), None)
}

/// Makes a directory of ours (and its parents) with `mode` where it is missing.
pub fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() { Ok(()) } else { DirBuilder::new().recursive(true).mode(mode).create(path) }
}

/// Takes the exclusive lock of `file` if it is free; never waits. The lock ends with the file or the
/// process.
pub fn try_lock(file: &File) -> io::Result<bool> {
    locked(file.try_lock())
}

fn locked(tried: Result<(), TryLockError>) -> io::Result<bool> {
    match tried {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// [`try_lock`] again and again until the lock is ours; false if it is not within `patience`.
pub fn lock_within(file: &File, patience: Duration) -> io::Result<bool> {
    within(patience, || try_lock(file))
}

/// Takes a lock that others may have too, but nobody who has it for himself; false if that is not possible within `patience`.
pub fn lock_shared_within(file: &File, patience: Duration) -> io::Result<bool> {
    within(patience, || locked(file.try_lock_shared()))
}

fn within(patience: Duration, lock: impl Fn() -> io::Result<bool>) -> io::Result<bool> {
    let end = Instant::now() + patience;
    loop {
        if lock()? {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        std::fs::write(dir.path().join("state.new"), "left by a crash").unwrap();
        replace(&path, b"one", Durability::Volatile).unwrap();
        replace(&path, b"two", Durability::Durable).unwrap();
        assert_eq!(read_regular(&path, 3).unwrap(), b"two");
        assert!(read_regular(&path, 2).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_replacement_keeps_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        std::fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"x", Durability::Volatile).is_err());
        assert!(path.is_dir() && !dir.path().join("state.new").exists());
    }

    #[test]
    fn trusts_only_private_regular_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        std::fs::write(&path, "x").unwrap();
        assert_eq!(open_own(&path, effective_user()).unwrap().1, 1);

        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        assert_eq!(open_own(&path, effective_user()).unwrap_err().kind(), io::ErrorKind::PermissionDenied);

        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert!(open_own(&link, effective_user()).is_err());
        assert!(open_own(dir.path(), effective_user()).is_err());
    }

    #[test]
    fn what_is_entrusted_is_somebodys_alone() {
        use std::os::unix::fs::{chown, symlink};
        const SOMEBODY: u32 = 65_534;
        let dir = tempfile::tempdir().unwrap();
        let parent = dir.path().join("parent");
        let (sub, file) = (parent.join("sub"), parent.join("sub/file"));
        let mode =
            |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        let prepare = || {
            let _ = std::fs::remove_dir_all(&parent);
            std::fs::create_dir_all(&sub).unwrap();
            std::fs::write(&file, "x").unwrap();
            for (path, bits) in [(&parent, 0o755), (&sub, 0o750), (&file, 0o600)] {
                mode(path, bits);
            }
            if effective_user() == 0 {
                for path in [&sub, &file] {
                    chown(path, Some(SOMEBODY), None).unwrap();
                }
            }
        };
        let open = || open_entrusted(&parent, "sub", "file", effective_user());
        prepare();
        assert_eq!(open().unwrap().1, 1);
        let changes: [(&str, &dyn Fn()); 8] = [
            ("others may write to the parent", &|| mode(&parent, 0o777)),
            ("others may write to the directory", &|| mode(&sub, 0o770)),
            ("others may write to the file", &|| mode(&file, 0o606)),
            ("the directory is a link", &|| {
                std::fs::rename(&sub, dir.path().join("real")).unwrap();
                symlink(dir.path().join("real"), &sub).unwrap();
            }),
            ("the file is a link", &|| {
                std::fs::rename(&file, parent.join("real")).unwrap();
                symlink(parent.join("real"), &file).unwrap();
            }),
            ("the file is a directory", &|| {
                std::fs::remove_file(&file).unwrap();
                std::fs::create_dir(&file).unwrap();
            }),
            ("the parent is a stranger's", &|| {
                if effective_user() == 0 {
                    chown(&parent, Some(SOMEBODY), None).unwrap();
                } else {
                    mode(&parent, 0o777);
                }
            }),
            ("the file is another's", &|| {
                if effective_user() == 0 { chown(&file, Some(1), None).unwrap() } else { mode(&file, 0o666) }
            }),
        ];
        for (what, change) in changes {
            prepare();
            change();
            assert!(open().is_err(), "{what}");
        }
    }

    #[test]
    fn one_lock_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let (first, second) = (
            open_own_for_update(&path, effective_user()).unwrap(),
            open_own_for_update(&path, effective_user()).unwrap(),
        );
        assert!(try_lock(&first).unwrap());
        assert!(!try_lock(&second).unwrap());
        drop(first);
        assert!(try_lock(&second).unwrap());
    }
}
