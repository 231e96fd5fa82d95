//! A private fail2ban-server with our files.

use std::path::PathBuf;
use std::process::{Child, Stdio};

use super::{Host, World, project, wait_for};

/// A private fail2ban-server on a host of its own.
pub struct Fail2ban<'a> {
    host: &'a Host,
    dir: PathBuf,
    server: Child,
}

impl<'a> Fail2ban<'a> {
    /// Our files as they are shipped, fail2ban's own actions, and this jail.local.
    pub fn start(host: &'a Host, world: &World, jail_local: &str, path: &str) -> Self {
        let dir = world.path("fail2ban");
        for sub in ["filter.d", "jail.d", "action.d"] {
            std::fs::create_dir_all(dir.join(sub)).unwrap();
        }
        for sub in ["filter.d", "jail.d"] {
            for entry in std::fs::read_dir(project("fail2ban").join(sub)).unwrap() {
                let entry = entry.unwrap();
                std::fs::copy(entry.path(), dir.join(sub).join(entry.file_name())).unwrap();
            }
        }
        for entry in std::fs::read_dir("/etc/fail2ban/action.d").unwrap() {
            let entry = entry.unwrap();
            if entry.path().is_file() {
                std::fs::copy(entry.path(), dir.join("action.d").join(entry.file_name())).unwrap();
            }
        }
        let at = |name: &str| dir.join(name).display().to_string();
        let conf = format!(
            "[Definition]\nloglevel = INFO\nlogtarget = {}\nsyslogsocket = auto\nsocket = {}\npidfile = {}\ndbfile = {}\ndbpurgeage = 1d\n",
            at("fail2ban.log"),
            at("socket"),
            at("pid"),
            at("fail2ban.sqlite3")
        );
        std::fs::write(dir.join("fail2ban.conf"), conf).unwrap();
        std::fs::copy("/etc/fail2ban/jail.conf", dir.join("jail.conf")).unwrap();
        for entry in std::fs::read_dir("/etc/fail2ban").unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("paths-") {
                std::fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
            }
        }
        std::fs::write(dir.join("jail.local"), jail_local).unwrap();
        let server = host
            .command("env")
            .args(["TZ=UTC", &format!("PATH={path}"), "fail2ban-server", "-f", "-c"])
            .args([at(""), "-s".into(), at("socket"), "-p".into(), at("pid"), "start".into()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let fail2ban = Self { host, dir, server };
        wait_for("fail2ban-server", || fail2ban.client(&["ping"]).is_some());
        fail2ban
    }

    pub fn client(&self, args: &[&str]) -> Option<String> {
        let output = self
            .host
            .command("fail2ban-client")
            .arg("-s")
            .arg(self.dir.join("socket"))
            .args(args)
            .output()
            .unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub fn number(&self, jail: &str, what: &str) -> usize {
        let status = self.client(&["status", jail]).expect("the jail");
        let line = status.lines().find(|line| line.contains(what)).unwrap();
        line.rsplit_once(':').unwrap().1.trim().parse().unwrap()
    }

    pub fn banned(&self, jail: &str) -> Vec<String> {
        let status = self.client(&["status", jail]).expect("the jail");
        let line = status.lines().find(|line| line.contains("Banned IP list:")).unwrap();
        line.rsplit_once("list:").unwrap().1.split_whitespace().map(str::to_owned).collect()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("fail2ban.log")).unwrap()
    }
}

impl Drop for Fail2ban<'_> {
    fn drop(&mut self) {
        let _ = self.client(&["stop"]);
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
