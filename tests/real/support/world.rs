//! A host's files in a directory of their own, and the tools run among them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;
use tempfile::TempDir;

use super::{data, now, sqlite, write_program};

/// Settings, state, logs and FreeSWITCH's files of one host.
pub struct World {
    dir: TempDir,
}

/// What a call of one of the tools did.
#[derive(Debug)]
pub struct Call {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Call {
    /// It was done, and had nothing to say.
    #[track_caller]
    pub fn is_done(&self) {
        assert_eq!((self.code, self.stderr.as_str(), self.stdout.as_str()), (0, "", ""));
    }

    /// The one line of this tool's on standard error; it ended so.
    #[track_caller]
    pub fn line(&self, tool: &str, code: i32) -> &str {
        assert_eq!((self.code, self.stdout.as_str()), (code, ""), "{}", self.stderr);
        let line =
            self.stderr.strip_prefix(tool).and_then(|line| line.strip_prefix(": ")?.strip_suffix('\n'));
        let line = line.unwrap_or_else(|| panic!("{:?}", self.stderr));
        assert!(!line.contains(char::is_control) && line.len() < 800, "{line:?}");
        line
    }

    /// What it printed, all being well.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""));
        serde_json::from_str(&self.stdout).unwrap()
    }
}

impl World {
    /// A host without any FreeSWITCH.
    pub fn empty() -> Self {
        let world = Self { dir: TempDir::new().unwrap() };
        std::fs::create_dir_all(world.path("db")).unwrap();
        std::fs::create_dir_all(world.path("freeswitch/autoload_configs")).unwrap();
        world.configure("");
        world
    }

    /// A program beside those of the host: lines of a shell.
    pub fn has_program(&self, name: &str, script: &str) -> PathBuf {
        let program = self.path("bin").join(name);
        std::fs::create_dir_all(program.parent().unwrap()).unwrap();
        write_program(&program, &format!("#!/bin/sh\n{script}\n"));
        program
    }

    /// A host with FreeSWITCH's files as recorded: core.db and three profiles, nobody registered.
    pub fn with_databases() -> Self {
        let world = Self::empty();
        for name in
            ["core.db", "sofia_reg_external.db", "sofia_reg_internal.db", "sofia_reg_internal-ipv6.db"]
        {
            world.database(name);
        }
        world.configure("source = \"sqlite\"");
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes one of FreeSWITCH's files from its recorded schema.
    pub fn database(&self, name: &str) -> PathBuf {
        let schema =
            if name == "core.db" { "db/core.schema.sql" } else { "db/sofia_reg_internal.schema.sql" };
        let path = self.path("db").join(name);
        sqlite(&path, &std::fs::read_to_string(data(schema)).unwrap());
        path
    }

    /// Writes the settings: `registrations` are lines of that section.
    pub fn configure(&self, registrations: &str) {
        self.write(self.settings(registrations) + registrations + "\n");
    }

    /// Accounts are matched by patterns, which need nothing of the host, unless the settings say something else.
    fn write(&self, mut settings: String) {
        if !settings.contains("matcher = ") {
            if !settings.contains("[block]\n") {
                settings += "[block]\n";
            }
            settings = settings.replacen("[block]\n", "[block]\nmatcher = \"strings\"\n", 1);
        }
        std::fs::write(self.config(), settings).unwrap();
    }

    /// What stands before the lines of `[registrations]`.
    fn settings(&self, registrations: &str) -> String {
        let path = |name| self.path(name).display().to_string();
        format!(
            "state-dir = {:?}\nrun-dir = {:?}\nlog-dir = {:?}\n[registrations]\nfreeswitch-config = {:?}\n\
             fusionpbx-config = {:?}\n{}",
            path("state"),
            path("run"),
            path("log"),
            path("freeswitch"),
            path("config.conf"),
            if registrations.contains("sqlite-dir") || registrations.contains("auto") {
                String::new()
            } else {
                format!("sqlite-dir = {:?}\n", path("db"))
            },
        )
    }

    /// Writes the settings with these lines behind them; FreeSWITCH's SQLite files are the source, with nobody
    /// registered where there were none, and there is no FusionPBX.
    pub fn configure_lists(&self, lists: &str) {
        if std::fs::read_dir(self.path("db")).unwrap().next().is_none() {
            self.database("core.db");
        }
        let registrations = "source = \"sqlite\"\n";
        self.write(self.settings(registrations) + registrations + lists);
    }

    pub fn config(&self) -> PathBuf {
        self.path("ringfence.toml")
    }

    /// Registers a phone: a row as FreeSWITCH writes it, that expires in so many seconds.
    pub fn register(&self, database: &str, address: &str, seconds: i64) {
        let expires = now() + seconds;
        let sql = if database == "core.db" {
            format!(
                "INSERT INTO registrations (reg_user, realm, expires, network_ip) VALUES ('101', 'a.example.com', {expires}, '{address}')"
            )
        } else {
            format!(
                "INSERT INTO sip_registrations (sip_user, sip_host, expires, network_ip) VALUES ('101', 'a.example.com', {expires}, '{address}')"
            )
        };
        sqlite(&self.path("db").join(database), &sql);
    }

    /// A call of a tool that is ready to be run: of this build, or of that in `RINGFENCE_TOOLS`.
    fn tool(&self, name: &str, args: &[&str]) -> Command {
        let other = std::env::var_os("RINGFENCE_TOOLS").map(|dir| Path::new(&dir).join(name));
        let mut command = Command::new(other.unwrap_or_else(|| cargo_bin(name)));
        command.args(args).env("RINGFENCE_CONFIG", self.config()).env_remove("RUST_BACKTRACE");
        command
    }

    /// A text in which its directory is called `DIR`.
    pub fn masked(&self, text: &str) -> String {
        text.replace(&self.dir().display().to_string(), "DIR")
    }

    /// A call of `ringfence-ignore` that is ready to be run.
    pub fn command(&self, args: &[&str]) -> Command {
        self.tool("ringfence-ignore", args)
    }

    /// A call of `ringfence-lists` that is ready to be run.
    pub fn lists_command(&self, args: &[&str]) -> Command {
        let mut command = self.tool("ringfence-lists", args);
        for name in ["http", "https", "all", "no"] {
            let name = format!("{name}_proxy");
            command.env_remove(&name).env_remove(name.to_uppercase());
        }
        command
    }

    /// A call of `ringfence-lists`.
    #[track_caller]
    pub fn lists(&self, args: &[&str]) -> Call {
        call(&mut self.lists_command(args))
    }

    /// A call of `ringfence-block` that is ready to be run.
    pub fn block_command(&self, args: &[&str]) -> Command {
        self.tool("ringfence-block", args)
    }

    /// A call of `ringfence-firewall` that is ready to be run.
    pub fn firewall_command(&self, args: &[&str]) -> Command {
        self.tool("ringfence-firewall", args)
    }

    /// A call of `ringfence-ban` that is ready to be run.
    pub fn ban_command(&self, args: &[&str]) -> Command {
        self.tool("ringfence-ban", args)
    }

    /// A call of `ringfence` that is ready to be run.
    pub fn admin_command(&self, args: &[&str]) -> Command {
        self.tool("ringfence", args)
    }

    /// A call of `ringfence-events` that is ready to be run; no service manager hears of it.
    pub fn events_command(&self, args: &[&str]) -> Command {
        let mut command = self.tool("ringfence-events", args);
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
            command.env_remove(name);
        }
        command
    }

    /// A call of `ringfence-allow` that is ready to be run.
    pub fn allow_command(&self, args: &[&str]) -> Command {
        self.tool("ringfence-allow", args)
    }

    #[track_caller]
    pub fn call(&self, args: &[&str]) -> Call {
        call(&mut self.command(args))
    }

    /// The answer for an address; nothing may be printed.
    #[track_caller]
    pub fn keeps(&self, address: &str) -> bool {
        let call = self.call(&[address]);
        assert_eq!((call.stdout.as_str(), call.stderr.as_str()), ("", ""), "{call:?}");
        assert!(call.code == 0 || call.code == 1, "{call:?}");
        call.code == 0
    }

    #[track_caller]
    pub fn explain(&self, address: &str) -> String {
        let call = self.call(&["--explain", address]);
        assert_eq!(call.stderr, "", "{call:?}");
        call.stdout
    }

    /// Forgets everything, as if just installed.
    pub fn reset(&self) {
        for dir in ["run", "state", "log"] {
            let _ = std::fs::remove_dir_all(self.path(dir));
        }
    }

    /// Forgets what calls share, as after a reboot; addresses seen stay.
    pub fn reboot(&self) {
        let _ = std::fs::remove_dir_all(self.path("run"));
    }

    /// The journal of decisions.
    pub fn journal(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.path("log/decisions.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The reason of the last decision.
    #[track_caller]
    pub fn last_reason(&self) -> String {
        self.journal().last().expect("a decision")["reason"].as_str().unwrap().to_owned()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

#[track_caller]
pub fn call(command: &mut Command) -> Call {
    let start = Instant::now();
    let Output { status, stdout, stderr } = command.output().unwrap();
    Call {
        code: status.code().unwrap_or_else(|| panic!("{command:?}: {status}")),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
        took: start.elapsed(),
    }
}
