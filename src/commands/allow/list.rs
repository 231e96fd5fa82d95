//! `ringfence-allow list`: who is allowed.

use std::net::IpAddr;

use anyhow::Context;
use jiff::Timestamp;
use serde::Serialize;

use super::Call;
use crate::allow::timed::{self, Entry};
use crate::commands::screen::{self, Columns, span};
use crate::exit::Exit;
use crate::times::rfc3339;

/// The command line of `list`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON, with times as of RFC 3339
    ///
    /// The `word` on which it is allowed is by-hand, jail or walk (of ringfence test); the jail is null but of a jail.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(call: &Call, args: &Args) -> anyhow::Result<Exit> {
    let now = Timestamp::now().as_second();
    let entries = timed::read(&call.config.state_dir, now).context(
        "who is allowed is not known; if it is damaged, the next ringfence-allow sync moves it aside",
    )?;
    let shown: Vec<_> = entries.iter().map(Shown::new).collect();
    screen::print(args.json, &shown, || {
        let note = if call.observes() { "Mode is observe: nobody is added.\n" } else { "" };
        render(&entries, now) + note
    })?;
    Ok(Exit::Yes)
}

/// As JSON has it.
#[derive(Serialize)]
struct Shown<'a> {
    address: IpAddr,
    word: &'static str,
    jail: Option<&'a str>,
    #[serde(serialize_with = "rfc3339")]
    since: i64,
    #[serde(serialize_with = "rfc3339")]
    until: i64,
    because: &'a str,
}

impl<'a> Shown<'a> {
    fn new(entry: &'a Entry) -> Self {
        Self {
            address: entry.address,
            word: entry.kind_of_word(),
            jail: entry.jail(),
            since: entry.since,
            until: entry.end(),
            because: &entry.because,
        }
    }
}

fn render(entries: &[Entry], now: i64) -> String {
    if entries.is_empty() {
        return "Nobody is allowed by ringfence-allow.\n".to_owned();
    }
    let mut columns = Columns::new(&["ADDRESS", "REMAINING", "SINCE", "BY", "WHY"], &[]);
    for entry in entries {
        columns.row([
            entry.address.to_string(),
            span(entry.end() - now),
            format!("{} ago", span(now - entry.since)),
            entry.word().to_owned(),
            entry.because.clone(),
        ]);
    }
    columns.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_whose_word_is_told() {
        let address = "203.0.113.20".parse().unwrap();
        for (entry, word, jail) in [
            (Entry::new(address, None, 1, 2, ""), "by-hand", None),
            (Entry::new(address, Some("sip"), 1, 2, ""), "jail", Some("sip")),
            (Entry::of_walk(address, 1, 2, ""), "walk", None),
        ] {
            let json = serde_json::to_value(Shown::new(&entry)).unwrap();
            assert_eq!((json["word"].as_str(), json["jail"].as_str()), (Some(word), jail), "{json}");
        }
    }

    #[test]
    fn a_list_is_aligned_and_calm() {
        let entry = |address: &str, jail, because| {
            Entry::new(address.parse().unwrap(), jail, 1_795_183_743, 1_795_187_343, because)
        };
        let entries =
            [entry("203.0.113.20", Some("success"), "registered\u{1b}[2J"), entry("2001:db8::20", None, "")];
        assert_eq!(
            render(&entries, 1_795_184_343),
            "ADDRESS       REMAINING  SINCE    BY       WHY\n\
             203.0.113.20  50m        10m ago  success  registered\u{fffd}[2J\n\
             2001:db8::20  50m        10m ago  by hand\n"
        );
        assert_eq!(render(&[], 0), "Nobody is allowed by ringfence-allow.\n");
    }
}
