//! A host whose files are ours too: all of this machine's, and above them what the test writes, in a file system of its own.

use std::process::{Command, Stdio};

use assert_cmd::cargo::cargo_bin;
use tempfile::TempDir;

use super::{Call, Host, call, project};

/// Where its files are, on its host.
const ROOT: &str = "/mnt/root";

/// A host in which `/` is a directory of its own, with our programs in `/usr/bin`, and our files for fail2ban beside fail2ban's.
pub struct Container {
    host: Host,
    /// What passes between both.
    dir: TempDir,
}

impl Container {
    pub fn new() -> Self {
        let host = Host::new();
        let dir = TempDir::with_prefix("rf-container-").unwrap();
        // Of this machine's mounts, only those that programs cannot do without. What others keep in /etc is not for us.
        host.shell(&format!(
            "mount -t tmpfs none /mnt
             mkdir /mnt/upper /mnt/work {ROOT}
             mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work {ROOT}
             for dir in proc sys dev; do mount --rbind /$dir {ROOT}/$dir; done
             for dir in run tmp var/log var/lib; do mount -t tmpfs -o mode=755 none {ROOT}/$dir; done
             mkdir -p {ROOT}{0} {ROOT}/var/log {ROOT}/var/lib/fail2ban {ROOT}/run/fail2ban
             mount --bind {0} {ROOT}{0}
             mount --bind {1} {ROOT}/srv
             rm -rf {ROOT}/etc/freeswitch {ROOT}/etc/fusionpbx {ROOT}/etc/asterisk {ROOT}/etc/ringfence {ROOT}/etc/cron.d/ringfence \
                 {ROOT}/etc/fail2ban/jail.d/* {ROOT}/etc/fail2ban/jail.local {ROOT}/etc/iptables {ROOT}/etc/rsyslog.d/* \
                 {ROOT}/etc/rsyslog.conf {ROOT}/etc/nftables.conf
             cp -r {2}/* {ROOT}/etc/fail2ban/
             rm -rf {ROOT}/etc/fail2ban/examples",
            dir.path().display(),
            project("fail2ban").display(),
            project("fail2ban").display(),
        ));
        let container = Self { host, dir };
        for program in [
            "ringfence",
            "ringfence-ignore",
            "ringfence-ban",
            "ringfence-block",
            "ringfence-allow",
            "ringfence-firewall",
        ] {
            let from = cargo_bin(program);
            let to = container.dir.path().join(program);
            // A link where it can be one.
            std::fs::hard_link(&from, &to).or_else(|_| std::fs::copy(&from, &to).map(drop)).unwrap();
            container.shell(&format!("cp {} /usr/bin/{program}", to.display()));
        }
        container
    }

    /// A call of a program there.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.host.command("chroot");
        command.args([ROOT, program]).stdin(Stdio::null());
        for name in ["RINGFENCE_CONFIG", "RUST_BACKTRACE", "TMPDIR"] {
            command.env_remove(name);
        }
        command.env("TZ", "UTC");
        command
    }

    /// Lines of a shell, each of which must succeed; what they print.
    #[track_caller]
    pub fn shell(&self, script: &str) -> String {
        super::run(self.command("sh").args(["-ec", script]))
    }

    /// Writes a file there.
    #[track_caller]
    pub fn write(&self, path: &str, content: &str) {
        let beside = self.dir.path().join("content");
        std::fs::write(&beside, content).unwrap();
        self.shell(&format!("mkdir -p \"$(dirname {path})\"; cat {} > {path}", beside.display()));
    }

    /// A program there, lines of a shell, in place of this machine's.
    pub fn has_program(&self, path: &str, script: &str) {
        self.write(&format!("{path}.new"), &format!("#!/bin/sh\n{script}\n"));
        self.shell(&format!("chmod 755 {path}.new; mv {path}.new {path}"));
    }

    /// A call of `ringfence`.
    #[track_caller]
    pub fn admin(&self, args: &[&str]) -> Call {
        call(self.command("/usr/bin/ringfence").args(args))
    }
}
