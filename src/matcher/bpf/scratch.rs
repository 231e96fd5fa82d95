//! For tests: a network, and mounts with a bpffs, of our own.

use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use crate::netlink::apart;

pub(super) fn run(line: &str) -> String {
    let output = Command::new("sh").args(["-ec", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a test there, after these commands.
pub(super) fn with_bpffs(commands: &str, test: impl FnOnce() + Send + 'static) {
    let commands = commands.to_owned();
    apart(move || {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
        run("mount --make-rprivate /; mount -t bpf bpf /sys/fs/bpf");
        run(&commands);
        test();
    });
}
