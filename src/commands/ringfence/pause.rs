//! `ringfence pause`: for a while nothing of ours blocks anybody.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use serde::Serialize;

use crate::commands::{duration, pause, screen};
use crate::config::{Config, Mode};
use crate::exit::Exit;
use crate::firewall::{self, ByOurSets, Firewall, take_turn};
use crate::matcher::bpf;
use crate::pause::{LONGEST, Pause};
use crate::state_file;

/// Settings of other tools.
pub(super) const UNNEEDED: [&str; 6] =
    ["lists", "registrations", "fusionpbx", "ledger", "fail2ban", "events"];

/// The command line of `pause`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// So long, from now on (1m to 24h); without it, say whether there is a pause
    ///
    /// Write it like 10m or 2h 30m.
    #[arg(value_name = "TIME", value_parser = a_time)]
    time: Option<Duration>,

    /// End it now
    #[arg(long, conflicts_with = "time")]
    end: bool,

    /// Print JSON, with times as of RFC 3339
    #[arg(long)]
    json: bool,
}

fn a_time(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_mins(1)..=LONGEST)
}

/// How things are now.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct State {
    paused: bool,
    until: Option<Timestamp>,
    /// This call ended one.
    ended: bool,
    /// Nothing is blocked, pause or not.
    observed: bool,
    /// Chains, sets and tables of fail2ban and `event_guard`, which no pause of ours concerns; absent where nobody knows.
    still_banning: Option<Vec<String>>,
    /// Rules of the host's own that refuse by our sets; absent where nobody knows.
    still_blocking: Option<Vec<ByOurSets>>,
}

pub(super) fn run(config: &Config, args: &Args) -> anyhow::Result<Exit> {
    let done = match (args.time, args.end) {
        (Some(time), _) => begin(config, time).map(|until| (Exit::Yes, Some(until), false)),
        (None, true) => end(config).map(|ended| (Exit::Yes, None, ended)),
        (None, false) => {
            let until = Pause::read(&config.run_dir, Timestamp::now())?.until();
            Ok((if until.is_some() { Exit::Yes } else { Exit::No }, until, false))
        }
    };
    let (exit, until, ended) = done.map_err(|error| {
        if state_file::effective_user() == 0 { error } else { error.context("this needs root") }
    })?;
    // Of a pause that has just begun, all is left, however long it took to bring it in.
    let began =
        args.time.zip(until).and_then(|(time, until)| Some(until - i64::try_from(time.as_secs()).ok()?));
    let now = began.map_or_else(Timestamp::now, at);
    let state = State::new(config, until, ended);
    screen::print(args.json, &state, || state.render(now))?;
    Ok(exit)
}

/// When it will end, in seconds since 1970.
fn begin(config: &Config, time: Duration) -> anyhow::Result<i64> {
    let _turn = take_turn(&config.run_dir)?;
    let before = pause::now(config);
    // Who waited for his turn gets all of it.
    let now = Timestamp::now();
    let until = now.as_second() + i64::try_from(time.as_secs()).context("its time")?;
    let pause = Pause::Until(until);
    change(before, pause)?;
    Pause::write(&config.run_dir, until).inspect_err(|_| {
        // The next tool that makes rules would take it away; better now than in the midst of something.
        let _ = change(pause, before);
    })?;
    let detail = format!("until {}; the kernel ends it by itself", at(until));
    pause::journal(config, "paused", "by-hand", &detail, now);
    Ok(until)
}

/// Whether there was one.
fn end(config: &Config) -> anyhow::Result<bool> {
    let _turn = take_turn(&config.run_dir)?;
    let before = pause::now(config);
    change(before, Pause::Not)?;
    Pause::forget(&config.run_dir)?;
    let ended = before.until().is_some();
    if ended {
        pause::journal(config, "resumed", "by-hand", "", Timestamp::now());
    }
    Ok(ended)
}

/// Brings it into the kernel, or changes nothing.
fn change(before: Pause, pause: Pause) -> anyhow::Result<()> {
    let tell = |pause: Pause| bpf::pause(pause.until(), Timestamp::now());
    tell(pause).context("the program that matches accounts")?;
    change_rules(before, pause).inspect_err(|_| drop(tell(before)))
}

/// In one transaction for each of IPv4 and IPv6, or nothing.
fn change_rules(before: Pause, pause: Pause) -> anyhow::Result<()> {
    if !firewall::is_installed() {
        // There can be no rules.
        return Ok(());
    }
    let mut there = Firewall::read()?;
    if !pause::OWNERS.iter().any(|owner| there.has_rules_of(owner)) {
        // A jail that starts meanwhile must not fail for it.
        return there.try_pause(pause);
    }
    there.pause(&pause::OWNERS, before, pause).map(drop)
}

impl State {
    fn new(config: &Config, until: Option<i64>, ended: bool) -> Self {
        let (still_banning, still_blocking) = match until {
            // Without any iptables there can be no rules.
            Some(_) if firewall::is_installed() => {
                let there = Firewall::read().ok();
                let there = there.as_ref();
                (
                    there.and_then(|there| there.bans_of_others().ok()),
                    there.and_then(|there| there.by_our_sets(&pause::OWNERS).ok()),
                )
            }
            _ => (Some(vec![]), Some(vec![])),
        };
        Self {
            paused: until.is_some(),
            until: until.map(at),
            ended,
            observed: config.mode == Mode::Observe,
            still_banning,
            still_blocking,
        }
    }

    fn render(&self, now: Timestamp) -> String {
        let mut text = match self.until {
            None if self.ended => "The pause is over: what it lifted blocks again.\n".to_owned(),
            None => "There is no pause.\n".to_owned(),
            Some(until) => {
                let paused = pause::sentence(until.as_second(), now);
                format!("{paused} It ends by itself, or by ringfence pause --end.\n")
            }
        };
        if self.observed {
            text += "Mode is observe: nothing is blocked anyway.\n";
        }
        if let Some(names @ [_, ..]) = self.still_banning.as_deref() {
            let _ = writeln!(
                text,
                "Not ours, and still banning: {}. To let somebody go there: fail2ban-client unban ADDRESS",
                names.join(", ")
            );
        }
        if let Some(rules @ [_, ..]) = self.still_blocking.as_deref() {
            text += "Rules of this host's own that still block by our sets; what takes each away:\n";
            for ByOurSets { rule, delete, .. } in rules {
                let named =
                    if delete.ends_with(rule.as_str()) { String::new() } else { format!("  # {rule}") };
                let _ = writeln!(text, "  {delete}{named}");
            }
        }
        if self.still_banning.is_none() || self.still_blocking.is_none() {
            text += "Whether others ban is not known: not all rules of this host can be read. See: ringfence doctor\n";
        }
        text
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_calm() {
        let state = |until: Option<i64>, observed, still: &[&str]| State {
            paused: until.is_some(),
            until: until.map(at),
            ended: false,
            observed,
            still_banning: Some(still.iter().map(ToString::to_string).collect()),
            still_blocking: Some(vec![]),
        };
        let now = at(1_795_183_743);
        assert_eq!(state(None, false, &[]).render(now), "There is no pause.\n");
        let over = State { ended: true, ..state(None, false, &[]) };
        assert_eq!(over.render(now), "The pause is over: what it lifted blocks again.\n");
        assert_eq!(
            state(Some(1_795_184_343), true, &["f2b-sshd", "sip-auth-fail"]).render(now),
            "Paused until 2026-11-20 14:19:03 UTC (10m): nothing of Ringfence blocks anybody. It ends by itself, or by ringfence \
             pause --end.\n\
             Mode is observe: nothing is blocked anyway.\n\
             Not ours, and still banning: f2b-sshd, sip-auth-fail. To let somebody go there: fail2ban-client unban ADDRESS\n"
        );
    }

    #[test]
    fn what_still_blocks_is_named() {
        let rule = |rule: &str, delete: &str| ByOurSets {
            program: "iptables-nft".into(),
            table: "filter",
            chain: "INPUT".into(),
            rule: rule.into(),
            delete: format!("iptables-nft -D INPUT {delete}"),
        };
        let [plain, quoted] = ["-m set --match-set rf-x src -j DROP", "-m comment --comment \"a\" -j DROP"];
        let state = State {
            paused: true,
            until: Some(at(1_795_184_343)),
            ended: false,
            observed: false,
            still_banning: None,
            still_blocking: Some(vec![rule(plain, plain), rule(quoted, "2")]),
        };
        let text = state.render(at(1_795_183_743));
        let (_, rest) = text.split_once('\n').unwrap();
        assert_eq!(
            rest,
            "Rules of this host's own that still block by our sets; what takes each away:\n  \
             iptables-nft -D INPUT -m set --match-set rf-x src -j DROP\n  \
             iptables-nft -D INPUT 2  # -m comment --comment \"a\" -j DROP\n\
             Whether others ban is not known: not all rules of this host can be read. See: ringfence doctor\n"
        );
    }

    #[test]
    fn a_pause_takes_a_minute_to_a_day() {
        for (text, good) in
            [("1m", true), ("24h", true), ("90s", true), ("59s", false), ("25h", false), ("x", false)]
        {
            assert_eq!(a_time(text).is_ok(), good, "{text}");
        }
    }
}
