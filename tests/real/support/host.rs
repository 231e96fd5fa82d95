//! A host of our own: network, mounts and processes apart from this machine's, all gone with it.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, setns, unshare};

use super::{run, wait_for};

/// Namespaces that live as long as this value; if the test dies, the kernel ends them with the pipe.
pub struct Host {
    unshare: Child,
    pid: String,
}

/// The lock of iptables is a file, and one for all network namespaces: a test that holds it would hold up all others.
const OWN_LOCK: &str = "lock=$(mktemp); touch /run/xtables.lock; mount --bind \"$lock\" /run/xtables.lock; rm \"$lock\"; \
                        exec cat";

impl Host {
    pub fn new() -> Self {
        let mut unshare = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "--"])
            .args(["sh", "-ec", OWN_LOCK])
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

    /// A call, made for this machine, on this host. It is the process itself: killed, it is dead.
    pub fn call(&self, call: &Command) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid, "--net", "--mount", "--root", "--"]);
        command.arg(call.get_program()).args(call.get_args());
        for (name, value) in call.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// Lines of a shell, each of which must succeed; what they print.
    #[track_caller]
    pub fn shell(&self, script: &str) -> String {
        run(self.command("sh").args(["-ec", script]))
    }

    /// Does something in this host's network, with this machine's files. What is opened or started there, stays there.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let network = File::open(format!("/proc/{}/ns/net", self.pid)).unwrap();
        let inside = || {
            setns(network, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// [`Host::inside`] with this host's mounts, too; what is started there is one of its processes.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let [mounts, processes] =
            ["mnt", "pid"].map(|kind| File::open(format!("/proc/{}/ns/{kind}", self.pid)).unwrap());
        self.inside(|| {
            // Threads share their directories, and with them the mounts.
            unshare(CloneFlags::CLONE_FS).unwrap();
            setns(mounts, CloneFlags::CLONE_NEWNS).unwrap();
            setns(processes, CloneFlags::CLONE_NEWPID).unwrap();
            work()
        })
    }

    /// A cable between two hosts, which each know as `eth0`: everybody is behind it.
    pub fn connect(&self, other: &Self) {
        let net = format!("--net=/proc/{}/ns/net", self.pid);
        let mut cable = Command::new("nsenter");
        cable.args([
            &net,
            "ip",
            "link",
            "add",
            "eth0",
            "address",
            "02:00:00:00:00:01",
            "type",
            "veth",
            "peer",
        ]);
        run(cable.args(["name", "eth0", "address", "02:00:00:00:00:02", "netns", &other.pid]));
        for host in [self, other] {
            host.shell(
                "ip link set eth0 up; ip route add default dev eth0; ip -6 route add default dev eth0; ip addr flush dev eth0",
            );
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Its first process dies with it, and all others with that.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}
