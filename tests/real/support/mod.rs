//! What the tests need of the world around the tools.

mod allower;
mod banner;
mod blocker;
mod browser;
mod container;
pub mod event_source;
mod fail2ban;
mod host;
mod http;
pub mod name_server;
pub mod packets;
pub mod pbx;
mod postgres;
pub mod samples;
pub mod sip;
mod world;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ringfence::account::Offender;

pub use allower::Allower;
pub use banner::Banner;
pub use blocker::Blocker;
pub use browser::Browser;
pub use container::Container;
pub use event_source::{EventSource, Events};
pub use fail2ban::{Fail2ban, failures, found_in};
pub use host::Host;
pub use http::{Certificate, Http, Reply, gzip, gzip_bomb, xz};
pub use pbx::Pbx;
pub use postgres::Postgres;
pub use world::{Call, World, call};

/// A recorded file of `tests/data`.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A file of the project.
pub fn project(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Seconds since 1970.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// A point in time as a tool's JSON has it, in seconds since 1970.
#[track_caller]
pub fn second(time: &serde_json::Value) -> i64 {
    let time = time.as_str().unwrap_or_else(|| panic!("no time: {time}"));
    time.parse::<jiff::Timestamp>().unwrap_or_else(|error| panic!("{error}")).as_second()
}

/// Runs a command that must succeed; its output.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; `make setup` installs what is missing"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{stderr}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whom to ask about, from anywhere where the address is empty, and the answers that are expected.
pub fn wanted(offenders: &[(&str, &str, bool)]) -> (Vec<Offender>, Vec<bool>) {
    let offender = |(account, address, expected): &(&str, &str, bool)| {
        let source = (!address.is_empty()).then(|| address.parse().unwrap());
        (Offender { account: account.parse().unwrap(), source }, *expected)
    };
    offenders.iter().map(offender).unzip()
}

/// Waits until `done` says so; fails after half a minute.
#[track_caller]
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Copies a program that is to be run. Another process does it: what this one writes, children of other tests have open until they are
/// another program, and meanwhile it could not be run ("Text file busy").
#[track_caller]
pub fn copy_program(from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) {
    run(Command::new("cp").arg(from.as_ref()).arg(to.as_ref()));
}

/// Writes a program that is to be run, as of [`copy_program`].
#[track_caller]
pub fn write_program(path: impl AsRef<OsStr>, script: &str) {
    let write = "printf %s \"$2\" > \"$1\"; chmod 755 \"$1\"";
    run(Command::new("sh").args(["-ec", write, "sh"]).arg(path.as_ref()).arg(script));
}

/// Runs SQL through sqlite3.
#[track_caller]
pub fn sqlite(database: &Path, sql: &str) -> String {
    // fail2ban may be writing to it.
    run(Command::new("sqlite3").args(["-bail", "-cmd", ".timeout 10000"]).arg(database).arg(sql))
}

/// The lines of the shipped settings file without their comment signs, and the key or section of each.
pub fn shipped_settings() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(project("packaging/ringfence.toml")).unwrap();
    let is_key = |key: &str| key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    text.lines()
        .map(|line| line.strip_prefix("# ").unwrap_or(line))
        .filter_map(|line| {
            let key = line.split_once(" = ").map(|(key, _)| key).filter(|key| is_key(key));
            Some((line.to_owned(), key.or_else(|| line.starts_with('[').then_some(line))?.to_owned()))
        })
        .collect()
}
