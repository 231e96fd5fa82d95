//! How many lines a second each filter reads, beside fail2ban's own filter for the same log; and what a long line costs that
//! somebody wrote to cost much. All in one run.
//!
//! `make bench`. Being slow is no failure here: the table says "missed".

#![expect(unreachable_pub, dead_code, unused_imports, reason = "shares the tests' support")]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use support::samples::samples;
use support::{Table, data, only_built, project};

/// Lines that are read for a rate.
const LINES: usize = 40_000;

/// Bytes of a hostile line, short and long.
const SHORT: usize = 16_000;
const LONG: usize = 64_000;

fn main() {
    if only_built() {
        return;
    }
    let mut table = Table::default();
    let nothing = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(nothing.path(), "\n").unwrap();
    for filter in filters() {
        for samples in samples(&filter) {
            let name = format!("{filter}{}", samples.options);
            let conf = project(&format!("fail2ban/filter.d/{filter}.conf"));
            let ours = format!("{}{}", conf.display(), samples.options);
            let start = seconds(nothing.path(), &ours);
            let log = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(log.path(), repeated(&samples.lines)).unwrap();
            let rate = |filter: &str| as_f64(LINES) / (seconds(log.path(), filter) - start).max(0.001);
            let rates = (rate(&ours), stock(&name).map(|stock| (stock, rate(stock))));
            let goal = rates.1.map_or_else(String::new, |(stock, rate)| format!("{stock}: {rate:.0}/s"));
            table.row(&format!("{name}: lines"), &format!("{:.0}/s", rates.0), &goal, None);

            let cost = |length: usize| {
                let entries = samples.hostile(length);
                std::fs::write(log.path(), entries.concat()).unwrap();
                ((seconds(log.path(), &ours) - start).max(0.001), as_f64(entries.len()))
            };
            let ((small, _), (large, entries)) = (cost(SHORT), cost(LONG));
            table.row(
                "  a hostile failure of 64 kB",
                &format!("{:.1} ms", large / entries * 1000.0),
                "<= 6 x one of 16 kB",
                Some(large / small <= 6.0),
            );
        }
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

/// fail2ban's own filter for the same log, where there is one.
fn stock(filter: &str) -> Option<&'static str> {
    match filter {
        "ringfence-freeswitch"
        | "ringfence-freeswitch-account"
        | "ringfence-freeswitch-acl"
        | "ringfence-freeswitch-challenge"
        | "ringfence-freeswitch-ip-domain" => Some("freeswitch"),
        "ringfence-asterisk" | "ringfence-asterisk-probe" | "ringfence-asterisk-success" => Some("asterisk"),
        "ringfence-recidive" => Some("recidive"),
        _ => None,
    }
}

/// So many lines.
fn repeated(lines: &[Vec<u8>]) -> Vec<u8> {
    lines.iter().cycle().take(LINES).flatten().copied().collect()
}

/// How long fail2ban takes to read the log with the filter.
fn seconds(log: &Path, filter: &str) -> f64 {
    let start = Instant::now();
    let output = Command::new("fail2ban-regex").args(["-o", "ip"]).arg(log).arg(filter).output();
    assert!(output.expect("fail2ban").status.code().is_some(), "{filter}");
    start.elapsed().as_secs_f64()
}
