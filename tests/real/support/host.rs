//! A host of our own: network, mounts and processes apart from this machine's, all gone with it.

use std::process::{Child, Command, Stdio};

use super::{run, wait_for};

/// Namespaces that live as long as this value; if the test dies, the kernel ends them with the pipe.
pub struct Host {
    unshare: Child,
    pid: String,
}

impl Host {
    pub fn new() -> Self {
        let mut unshare = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "--", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("unshare of util-linux");
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let mut pid = String::new();
        wait_for("namespaces (are we root?)", || {
            assert!(unshare.try_wait().unwrap().is_none(), "unshare failed; run the tests as root");
            std::fs::read_to_string(&children).unwrap_or_default().trim().clone_into(&mut pid);
            // Its own "cat" says that the mounts are done.
            !pid.is_empty()
                && std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "cat\n")
        });
        let host = Self { unshare, pid };
        run(host.command("ip").args(["link", "set", "lo", "up"]));
        host
    }

    /// A command on this host.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid, "--net", "--mount", "--pid", "--root", "--", program]);
        command
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Its first process dies with it, and all others with that.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}
