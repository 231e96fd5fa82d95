//! How many lines a second each filter reads, beside fail2ban's own filter for the same log; and what a line of a megabyte costs that
//! somebody wrote to cost much. All in one run.
//!
//! `make bench`. Being slow is no failure here: the table says "missed".

#![expect(unreachable_pub, dead_code, unused_imports, reason = "shares the tests' support")]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use support::{Table, data, only_built, project, run};

/// Lines that are read for a rate.
const LINES: usize = 40_000;

/// What is repeated in a hostile line: all that our expressions look for.
const JUNK: [&str; 10] = [
    "x",
    " ",
    "[",
    "] from ip 198.51.100.11 ",
    "' for [101@a] from ",
    "\", \"",
    "\\\"",
    "@a.example.com",
    "=198.51.100.11 ",
    "\n [",
];

/// Bytes of a hostile line, short and long.
const SHORT: usize = 250_000;
const LONG: usize = 1_000_000;

fn main() {
    if only_built() {
        return;
    }
    let mut table = Table::default();
    let nothing = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(nothing.path(), "\n").unwrap();
    for filter in filters() {
        let samples = Samples::read(&filter);
        let ours = project(&format!("fail2ban/filter.d/{filter}.conf"));
        let start = seconds(nothing.path(), &ours);
        let log = tempfile::NamedTempFile::new().unwrap();
        let text: String =
            samples.lines.iter().cycle().take(LINES).flat_map(|line| [line.as_str(), "\n"]).collect();
        std::fs::write(log.path(), text).unwrap();
        let rate = |filter: &Path| as_f64(LINES) / (seconds(log.path(), filter) - start).max(0.001);
        let rates = (rate(&ours), stock(&filter).map(|(name, path)| (name, rate(&path))));
        let goal = rates.1.map_or_else(String::new, |(name, rate)| format!("{name}: {rate:.0}/s"));
        table.row(&format!("{filter}: lines"), &format!("{:.0}/s", rates.0), &goal, None);

        let cost = |length: usize| {
            std::fs::write(log.path(), samples.hostile(length)).unwrap();
            (seconds(log.path(), &ours) - start).max(0.001)
        };
        let (small, large) = (cost(SHORT), cost(LONG));
        let lines = as_f64(samples.matching.len() * JUNK.len() * 2);
        table.row(
            "  a hostile line of 1 MB",
            &format!("{:.1} ms", large / lines * 1000.0),
            "<= 6 x one of 1/4 MB",
            Some(large / small <= 6.0),
        );
    }
    table.print();
}

fn as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

/// The names of our filters that can be used as they are.
fn filters() -> BTreeSet<String> {
    let files = std::fs::read_dir(project("fail2ban/filter.d")).unwrap();
    let names = files.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned());
    names.filter(|name| data("samples").join(name).exists()).collect()
}

/// fail2ban's own filter for the same log.
fn stock(filter: &str) -> Option<(&'static str, PathBuf)> {
    let names = [
        ("ringfence-freeswitch", "freeswitch"),
        ("ringfence-asterisk", "asterisk"),
        ("ringfence-recidive", "recidive"),
        ("ringfence-nginx", "nginx-http-auth"),
    ];
    let (_, name) = names.into_iter().find(|(ours, _)| filter.starts_with(ours))?;
    Some((name, format!("/etc/fail2ban/filter.d/{name}.conf").into()))
}

/// A filter's samples.
struct Samples {
    lines: Vec<String>,
    /// Some of those that match.
    matching: Vec<String>,
}

impl Samples {
    fn read(filter: &str) -> Self {
        const ENOUGH: usize = 2;
        let text = std::fs::read(data("samples").join(filter)).unwrap();
        let text = String::from_utf8_lossy(&text).into_owned();
        let (mut lines, mut matching, mut matches) = (vec![], vec![], false);
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix('#') {
                matches = comment.contains("\"match\": true");
            } else if !line.is_empty() {
                lines.push(line.to_owned());
                if matches && matching.len() < ENOUGH {
                    matching.push(line.to_owned());
                }
            }
        }
        Self { lines, matching }
    }

    /// Lines of this length, with each junk at two places.
    fn hostile(&self, length: usize) -> String {
        let mut text = String::new();
        for line in &self.matching {
            for junk in JUNK {
                for third in 1..=2 {
                    let at = line.floor_char_boundary(line.len() * third / 3);
                    text.push_str(&line[..at]);
                    text.push_str(&junk.repeat(length / junk.len()));
                    text.push_str(&line[at..]);
                    text.push('\n');
                }
            }
        }
        text
    }
}

/// How long fail2ban takes to read the log with the filter.
fn seconds(log: &Path, filter: &Path) -> f64 {
    let start = Instant::now();
    let output = Command::new("fail2ban-regex").args(["-o", "ip"]).arg(log).arg(filter).output();
    assert!(output.expect("fail2ban").status.code().is_some(), "{}", filter.display());
    start.elapsed().as_secs_f64()
}
