//! fail2ban with our files: a private server, and what a filter finds.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{Host, World, project, run, sqlite, wait_for};

/// What a filter finds in a log: how often each failure, as these tags of fail2ban's show it.
pub fn failures(filter: &str, log: impl AsRef<OsStr>, tags: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let mut regex = Command::new("fail2ban-regex");
    regex.args(["-o", tags]).arg(log).arg(project("fail2ban/filter.d").join(format!("{filter}.conf")));
    let output = regex.output().expect("fail2ban; `make setup` installs it");
    for failure in String::from_utf8(output.stdout).unwrap().lines() {
        *found.entry(failure.to_owned()).or_insert(0) += 1;
    }
    found
}

/// What the filter finds in this log.
pub fn found_in(filter: &str, log: &str) -> BTreeMap<String, usize> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("log"), log).unwrap();
    failures(filter, dir.path().join("log"), "ip")
}

/// A private fail2ban-server on a host of its own.
pub struct Fail2ban<'a> {
    host: &'a Host,
    dir: PathBuf,
    path: String,
    server: Child,
}

impl<'a> Fail2ban<'a> {
    /// Our files as they are shipped, fail2ban's own actions, and this jail.local.
    pub fn start(host: &'a Host, world: &World, jail_local: &str, path: &str) -> Self {
        let dir = world.path("fail2ban");
        for sub in ["filter.d", "jail.d", "action.d"] {
            std::fs::create_dir_all(dir.join(sub)).unwrap();
        }
        for from in [PathBuf::from("/etc/fail2ban/action.d"), project("fail2ban/action.d")]
            .into_iter()
            .chain(["filter.d", "jail.d"].map(|sub| project("fail2ban").join(sub)))
        {
            let to = dir.join(from.file_name().unwrap());
            for entry in std::fs::read_dir(from).unwrap() {
                let entry = entry.unwrap();
                if entry.path().is_file() {
                    std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
                }
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
        let server = Self::serve(host, &dir, path);
        let fail2ban = Self { host, dir, path: path.to_owned(), server };
        fail2ban.wait();
        fail2ban
    }

    fn serve(host: &Host, dir: &Path, path: &str) -> Child {
        let at = |name: &str| dir.join(name).display().to_string();
        // "-x" as in Debian's service: a socket that was left behind is no obstacle.
        host.command("env")
            .args(["TZ=UTC", &format!("PATH={path}"), "fail2ban-server", "-xf", "-c"])
            .args([at(""), "-s".into(), at("socket"), "-p".into(), at("pid"), "start".into()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn wait(&self) {
        wait_for("fail2ban-server", || self.client(&["ping"]).is_some());
    }

    /// Ends the server as its service would.
    pub fn stop(&mut self) {
        self.client(&["stop"]).expect("an answer");
        self.server.wait().unwrap();
    }

    /// Kills the server: it does nothing any more.
    pub fn kill(&mut self) {
        let pid = std::fs::read_to_string(self.dir.join("pid")).unwrap();
        run(self.host.command("kill").args(["-9", pid.trim()]));
        self.server.wait().unwrap();
    }

    /// Starts it once more, with what it remembers.
    pub fn start_again(&mut self) {
        self.server = Self::serve(self.host, &self.dir, &self.path);
        self.wait();
    }

    pub fn client(&self, args: &[&str]) -> Option<String> {
        let output = self
            .host
            .command("fail2ban-client")
            .arg("-c")
            .arg(&self.dir)
            .arg("-s")
            .arg(self.dir.join("socket"))
            .args(args)
            .output()
            .unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    #[track_caller]
    pub fn number(&self, jail: &str, what: &str) -> usize {
        self.number_if_any(jail, what).expect("the jail")
    }

    /// Nothing as long as there is no such jail.
    pub fn number_if_any(&self, jail: &str, what: &str) -> Option<usize> {
        let status = self.client(&["status", jail])?;
        let line = status.lines().find(|line| line.contains(what)).unwrap();
        Some(line.rsplit_once(':').unwrap().1.trim().parse().unwrap())
    }

    /// How many bans of a jail a restart would restore.
    pub fn remembered(&self, jail: &str) -> usize {
        let database = self.dir.join("fail2ban.sqlite3");
        let bans = sqlite(&database, &format!("SELECT count(*) FROM bips WHERE jail = '{jail}'"));
        bans.trim().parse().unwrap()
    }

    pub fn banned(&self, jail: &str) -> Vec<String> {
        let status = self.client(&["status", jail]).expect("the jail");
        let line = status.lines().find(|line| line.contains("Banned IP list:")).unwrap();
        line.rsplit_once("list:").unwrap().1.split_whitespace().map(str::to_owned).collect()
    }

    /// Whether its configuration, as `fail2ban-client` reads it, is one; what it would tell the server.
    #[track_caller]
    pub fn dump(&self) -> String {
        let client = |arg: &str| run(self.host.command("fail2ban-client").arg("-c").arg(&self.dir).arg(arg));
        assert!(client("-t").contains("OK: configuration test is successful"));
        client("-d")
    }

    /// It had nothing to complain about, but for a socket that a killed one left behind.
    #[track_caller]
    pub fn is_content(&self) {
        let log = self.log();
        let complaints: Vec<_> = log
            .lines()
            .filter(|line| line.contains("ERROR") && !line.ends_with("Fail2ban seems to be already running"))
            .collect();
        assert!(complaints.is_empty(), "{complaints:#?}");
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
