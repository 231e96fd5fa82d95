//! Room for what is written: state, logs and caches.

use std::path::Path;

use bytesize::ByteSize;
use rustix::fs::{StatVfsMountFlags, statvfs};

use super::Finding;
use super::Subject::Disk;

/// With less, a log of a bad night does not fit.
const LEAST: u64 = 64 << 20;

/// The run directory has no logs, and is in a part of the memory.
const LEAST_OF_RUN: u64 = 4 << 20;

/// Files beside the one that is replaced, and some more.
const LEAST_FILES: u64 = 64;

/// Room in a directory's file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    free: u64,
    /// `None` where files are not counted.
    files: Option<u64>,
    read_only: bool,
}

/// The room in these directories, each with the name of its setting. One that is not there yet is as the directory above.
#[must_use]
pub fn room(dirs: &[(&'static str, &Path)]) -> Vec<Finding> {
    let mut findings = vec![];
    let mut least: Option<u64> = None;
    for (setting, dir) in dirs {
        match look(dir) {
            Ok(room) => {
                least = Some(least.map_or(room.free, |least| least.min(room.free)));
                findings.extend(judge(setting, dir, room));
            }
            Err(error) => findings.push(super::unreadable(Disk, "room", dir, &error)),
        }
    }
    if findings.is_empty() {
        let least = ByteSize::b(least.unwrap_or_default());
        findings.push(Finding::fine(Disk, "room", format!("at least {least} are free for state and logs")));
    }
    findings
}

fn look(dir: &Path) -> std::io::Result<Room> {
    let there = dir.ancestors().find(|dir| dir.exists()).unwrap_or(dir);
    let about = statvfs(there)?;
    Ok(Room {
        free: about.f_bavail.saturating_mul(about.f_frsize),
        files: (about.f_files > 0).then_some(about.f_favail),
        read_only: about.f_flag.contains(StatVfsMountFlags::RDONLY),
    })
}

fn judge(setting: &str, dir: &Path, room: Room) -> Option<Finding> {
    let path = dir.display();
    let least = if setting == "run-dir" { LEAST_OF_RUN } else { LEAST };
    let what = if room.read_only {
        format!(
            "{path} ({setting}) is mounted read-only: nothing is remembered, and no decision leaves evidence."
        )
    } else if room.free < least {
        format!("In {path} ({setting}) only {} are free.", ByteSize::b(room.free))
    } else if room.files.is_some_and(|files| files < LEAST_FILES) {
        format!("In {path} ({setting}) hardly any file can be made: its file system has no inodes left.")
    } else {
        return None;
    };
    let remedy = if room.read_only {
        format!("See why: dmesg | tail; then: mount -o remount,rw $(findmnt -n -o TARGET --target {path})")
    } else {
        format!(
            "See what fills it: du -xsh $(findmnt -n -o TARGET --target {path})/* | sort -h | tail; or name another directory as {setting}"
        )
    };
    Some(Finding::needs(Disk, "room", what, remedy).about(path.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_no_place_for_evidence() {
        let fine = Room { free: 1 << 30, files: Some(1 << 20), read_only: false };
        let judge = |room: Room| super::judge("log-dir", Path::new("/x"), room).map(|found| found.what);
        assert_eq!(judge(fine), None);
        assert_eq!(judge(Room { files: None, ..fine }), None);
        assert_eq!(judge(Room { free: 1 << 20, ..fine }).unwrap(), "In /x (log-dir) only 1.0 MiB are free.");
        let small = Room { free: 50 << 20, ..fine };
        assert!(judge(small).is_some() && super::judge("run-dir", Path::new("/x"), small).is_none());
        assert!(judge(Room { files: Some(3), ..fine }).unwrap().contains("no inodes"));
        assert!(judge(Room { read_only: true, ..fine }).unwrap().contains("read-only"));
        let dir = tempfile::tempdir().unwrap();
        let room = look(&dir.path().join("not/there")).unwrap();
        assert!(room.free > 0);
    }
}
