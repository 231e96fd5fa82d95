//! What the benches share: the table, and how time and memory are measured.

#[path = "../../tests/real/support/mod.rs"]
mod real;

pub mod packets;

use std::process::Command;

pub use real::*;

/// Whether `cargo test --benches` only wants to know that it builds.
pub fn only_built() -> bool {
    std::env::args().any(|arg| arg == "--test")
}

/// Rows of what, how much, goal and verdict.
#[derive(Default)]
pub struct Table(String);

impl Table {
    pub fn row(&mut self, what: &str, value: &str, goal: &str, met: Option<bool>) {
        let met = met.map_or("", |met| if met { "met" } else { "missed" });
        let row = format!("{what:<58} {value:>12}  {goal:<22} {met}");
        println!("{}", row.trim_end());
        self.0 += row.trim_end();
        self.0.push('\n');
    }

    pub fn memory(&mut self, what: &str, mib: f64, goal: f64) {
        self.row(what, &format!("{mib:.1} MiB"), &format!("<= {goal} MiB"), Some(mib <= goal));
    }

    /// All rows once more, together.
    pub fn print(&self) {
        print!("\n{}", self.0);
    }
}

/// How often a command is run.
#[derive(Clone, Copy, Debug)]
pub struct Runs {
    pub warmup: u32,
    pub timed: u32,
}

/// Median milliseconds of a short command that may end as it likes.
pub fn time(command: &Command) -> f64 {
    time_after(None, command, Runs { warmup: 20, timed: 300 })
}

/// Median milliseconds of a command, with another, that is not timed, before each of its runs.
pub fn time_after(prepare: Option<&Command>, command: &Command, runs: Runs) -> f64 {
    let json = tempfile::NamedTempFile::new().unwrap();
    let mut hyperfine = Command::new("hyperfine");
    hyperfine.args(["--shell=none", "--ignore-failure", "--export-json"]).arg(json.path());
    hyperfine.args([format!("--warmup={}", runs.warmup), format!("--runs={}", runs.timed)]);
    hyperfine.args(prepare.map(|prepare| format!("--prepare={}", line(prepare))));
    hyperfine.arg(line(command)).envs(environment(command));
    run(&mut hyperfine);
    let result: serde_json::Value = serde_json::from_slice(&std::fs::read(json.path()).unwrap()).unwrap();
    result["results"][0]["median"].as_f64().unwrap() * 1000.0
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| format!("'{}'", word.to_str().unwrap())).collect::<Vec<_>>().join(" ")
}

fn environment(command: &Command) -> impl Iterator<Item = (&std::ffi::OsStr, &std::ffi::OsStr)> {
    command.get_envs().filter_map(|(key, value)| Some((key, value?)))
}

/// Largest resident memory of a command, in MiB.
pub fn peak(command: &Command) -> f64 {
    let mut time = Command::new("/usr/bin/time");
    time.args(["-q", "-f", "%M"]).arg(command.get_program()).args(command.get_args());
    let output = time.envs(environment(command)).output().expect("GNU time");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let kib = stderr.lines().last().and_then(|line| line.trim().parse::<f64>().ok());
    kib.unwrap_or_else(|| panic!("{command:?}: {stderr}")) / 1024.0
}
