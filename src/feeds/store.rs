//! What is kept of the lists between runs: a directory of small files, each replaced whole.
//!
//! The directory may belong to an unprivileged user who downloads, while root brings the result into the kernel: files
//! are trusted if they belong to root or to the directory's owner, and what root writes is given to that owner.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::state_file::{self, Durability};

const MAGIC: &[u8; 8] = b"RFLISTS\x01";
const HEADER: usize = MAGIC.len() + 4;

/// No file of ours is larger.
const MAX_LENGTH: u64 = 1 << 30;

/// The directory.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
    owner: u32,
}

/// An error, with the way out where it is about permissions.
fn advised(error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            anyhow!("{error}; run as root, or as the user whom the directory belongs to")
        }
        _ => error.into(),
    }
}

/// Held while a run is at work; ends with the value or the process.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock lives as long as the file is open")] File);

/// Another run has the lock.
#[derive(Clone, Copy, Debug)]
pub struct Busy;

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("another run of ringfence-lists is at work; let it finish")
    }
}

impl std::error::Error for Busy {}

impl Store {
    /// The directory `lists` in `state_dir`, made if it is missing.
    pub fn open(state_dir: &Path) -> anyhow::Result<Self> {
        let dir = state_dir.join("lists");
        state_file::make_dir(state_dir, 0o750)
            .and_then(|()| state_file::make_dir(&dir, 0o750))
            .map_err(advised)
            .with_context(|| format!("cannot keep lists in {}", dir.display()))?;
        Self::existing(dir)
    }

    /// The directory as it is, for reading; one that is missing is empty.
    pub fn peek(state_dir: &Path) -> anyhow::Result<Self> {
        let dir = state_dir.join("lists");
        let there = dir
            .try_exists()
            .map_err(advised)
            .with_context(|| format!("cannot look into {}", dir.display()))?;
        if there { Self::existing(dir) } else { Ok(Self { dir, owner: state_file::effective_user() }) }
    }

    fn existing(dir: PathBuf) -> anyhow::Result<Self> {
        let about = std::fs::metadata(&dir).with_context(|| format!("cannot look into {}", dir.display()))?;
        if about.mode() & 0o022 != 0 {
            bail!("{} may be written by others; take that away (chmod go-w)", dir.display());
        }
        Ok(Self { dir, owner: about.uid() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Takes the lock, or says who has it.
    pub fn lock(&self) -> anyhow::Result<Lock> {
        let path = self.path("lock");
        let lock = || -> io::Result<Option<File>> {
            let file = match state_file::open_own_for_update(&path, self.owner) {
                Ok(file) => {
                    self.give(&file)?;
                    file
                }
                // A unit of ours may read all files, and write to none of another user's: that is enough for a lock.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    state_file::open_own(&path, self.owner)?.0
                }
                Err(error) => return Err(error),
            };
            Ok(state_file::try_lock(&file)?.then_some(file))
        };
        match lock().with_context(|| format!("cannot lock {}", path.display()))? {
            Some(file) => Ok(Lock(file)),
            None => Err(Busy.into()),
        }
    }

    /// The names of the files with this ending, without it.
    pub fn names(&self, ending: &str) -> io::Result<Vec<String>> {
        let mut names = vec![];
        for entry in std::fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            names.extend(name.to_str().and_then(|name| name.strip_suffix(ending)).map(str::to_owned));
        }
        Ok(names)
    }

    /// Removes a file, if it is there.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads what [`Store::write`] wrote; `None` if it is not there. What was damaged is an error.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> anyhow::Result<Option<T>> {
        let Some(content) = self.content(name)? else { return Ok(None) };
        let read = || -> anyhow::Result<T> {
            let (header, payload) = content.split_at_checked(HEADER).context("it is too short")?;
            if !header.starts_with(MAGIC) {
                bail!("it is not ours, or of another version");
            }
            if header[MAGIC.len()..] != crc32fast::hash(payload).to_be_bytes() {
                bail!("it is damaged");
            }
            Ok(postcard::from_bytes(payload)?)
        };
        read().with_context(|| format!("cannot use {}", self.path(name).display())).map(Some)
    }

    /// Replaces a file, in one rename.
    pub fn write<T: Serialize>(&self, name: &str, value: &T) -> anyhow::Result<()> {
        let mut content = postcard::to_extend(value, [MAGIC.as_slice(), &[0; 4]].concat())?;
        let checksum = crc32fast::hash(&content[HEADER..]);
        content[MAGIC.len()..HEADER].copy_from_slice(&checksum.to_be_bytes());
        self.replace(name, &content)
    }

    /// Whether an error of the store is that we may not read it.
    #[must_use]
    pub fn is_forbidden(error: &anyhow::Error) -> bool {
        error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    }

    /// Reads what [`Store::write_json`] wrote; `None` if it is not there.
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> anyhow::Result<Option<T>> {
        let Some(content) = self.content(name)? else { return Ok(None) };
        let read = serde_json::from_slice(&content);
        read.with_context(|| format!("cannot use {}", self.path(name).display())).map(Some)
    }

    /// Replaces a file that people may like to look at.
    pub fn write_json<T: Serialize>(&self, name: &str, value: &T) -> anyhow::Result<()> {
        let mut content = serde_json::to_vec_pretty(value)?;
        content.push(b'\n');
        self.replace(name, &content)
    }

    fn content(&self, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let path = self.path(name);
        let read = || -> io::Result<Option<Vec<u8>>> {
            let (file, length) = match state_file::open_own(&path, self.owner) {
                Ok(opened) => opened,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            let mut content = Vec::with_capacity(usize::try_from(length.min(MAX_LENGTH)).unwrap_or(0));
            file.take(MAX_LENGTH).read_to_end(&mut content)?;
            Ok(Some(content))
        };
        read().with_context(|| format!("cannot read {}", path.display()))
    }

    fn replace(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let path = self.path(name);
        let owner = (self.owner != state_file::effective_user()).then_some(self.owner);
        state_file::replace_for(&path, content, Durability::Durable, owner)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Gives a file to the owner of the directory, where that is somebody else.
    fn give(&self, file: &File) -> io::Result<()> {
        if self.owner == state_file::effective_user() { Ok(()) } else { state_file::give(file, self.owner) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    #[test]
    fn keeps_values() {
        let (_dir, store) = store();
        assert_eq!(store.read::<Vec<u32>>("x.copy").unwrap(), None);
        store.write("x.copy", &vec![1_u32, 2]).unwrap();
        store.write_json("status.json", &"on").unwrap();
        assert_eq!(store.read::<Vec<u32>>("x.copy").unwrap(), Some(vec![1, 2]));
        assert_eq!(store.read_json::<String>("status.json").unwrap().as_deref(), Some("on"));
        assert_eq!(store.names(".copy").unwrap(), ["x"]);
        store.remove("x.copy").unwrap();
        store.remove("x.copy").unwrap();
        assert_eq!(store.names(".copy").unwrap(), [""; 0]);
    }

    #[test]
    fn damage_is_an_error_that_names_the_file() {
        let (dir, store) = store();
        store.write("x.copy", &vec![1_u32, 2]).unwrap();
        let path = dir.path().join("lists/x.copy");
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            std::fs::write(&path, &damaged).unwrap();
            let error = format!("{:#}", store.read::<Vec<u32>>("x.copy").unwrap_err());
            assert!(error.contains("x.copy: it is"), "{error}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(store.read::<Vec<u32>>("x.copy").is_err());
        }
    }

    #[test]
    fn one_run_at_a_time() {
        let (_dir, store) = store();
        let lock = store.lock().unwrap();
        assert_eq!(
            store.lock().unwrap_err().to_string(),
            "another run of ringfence-lists is at work; let it finish"
        );
        drop(lock);
        store.lock().unwrap();
    }

    #[test]
    fn a_directory_for_everybody_is_not_trusted() {
        let (dir, _) = store();
        std::fs::set_permissions(dir.path().join("lists"), PermissionsExt::from_mode(0o777)).unwrap();
        assert!(Store::open(dir.path()).unwrap_err().to_string().contains("chmod go-w"));
    }

    #[test]
    fn what_root_writes_belongs_to_the_directorys_owner() {
        let (dir, _) = store();
        let lists = dir.path().join("lists");
        std::os::unix::fs::chown(&lists, Some(65_534), None).expect("run the tests as root");
        let store = Store::open(dir.path()).unwrap();
        let lock = store.lock().unwrap();
        store.write("x.copy", &1_u32).unwrap();
        for name in ["lock", "x.copy"] {
            assert_eq!(std::fs::metadata(lists.join(name)).unwrap().uid(), 65_534, "{name}");
        }
        assert_eq!(store.read::<u32>("x.copy").unwrap(), Some(1));

        drop(lock);
        std::fs::remove_file(lists.join("lock")).unwrap();
        let other = dir.path().join("shadow");
        std::fs::write(&other, "of root").unwrap();
        std::fs::hard_link(&other, lists.join("lock")).unwrap();
        assert!(format!("{:#}", store.lock().unwrap_err()).ends_with("it has a second name (hard link)"));
        assert_eq!(std::fs::metadata(other).unwrap().uid(), 0);
    }
}
