//! What each tool does: its command line and its `run`.

use std::io::{self, IsTerminal, Write};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use jiff::Timestamp;

use crate::address;
use crate::config::{Config, span_of, spelled};
use crate::evidence::{Decision, Journal, visible};
use crate::exit::Exit;
use crate::fail2ban;

pub mod allow;
pub mod ban;
pub mod block;
pub mod events;
pub mod firewall;
pub mod ignore;
pub mod lists;
pub mod ringfence;

mod dropped;
mod pause;
mod prometheus;
mod screen;

const SYSLOG: &str = "/dev/log";

/// Which settings file.
#[derive(Debug, clap::Args)]
struct Settings {
    /// The settings file [default: /etc/ringfence/ringfence.toml]
    #[arg(long, value_name = "FILE", env = "RINGFENCE_CONFIG", hide_env = true, global = true)]
    config: Option<PathBuf>,
}

/// The command line, or how to leave after help, version or an error was printed.
fn parse<A: Parser>() -> Result<A, Exit> {
    A::try_parse().map_err(|message| {
        // A closed pipe is no error of ours.
        let _ = message.print();
        if message.use_stderr() { Exit::Broken } else { Exit::Yes }
    })
}

/// An error and what caused it, each once: many say themselves what they were caused by.
fn causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Says why a tool cannot go on, and how it leaves. That nobody listens any more is no error of ours.
fn give_up(tool: &str, error: &anyhow::Error) -> Exit {
    let closed =
        error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
    if closed {
        return Exit::Yes;
    }
    let _ = writeln!(io::stderr(), "{tool}: {}", causes(error));
    Exit::Broken
}

/// One line of a tool on standard error. That nobody listens is no error of ours.
fn complain(tool: &str, text: &str) {
    let _ = writeln!(io::stderr(), "{tool}: {}", visible(text));
}

/// One line about what was done, for who sits at a terminal; fail2ban, timers and cron hear nothing.
fn say(text: &str) {
    if io::stdout().is_terminal() {
        // A closed pipe is no error of ours.
        let _ = writeln!(io::stdout(), "{}", visible(text));
    }
}

/// One line about what was done, whoever listens.
fn tell(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{}", visible(text))
}

/// An address of a command line.
fn an_address(text: &str) -> Result<IpAddr, String> {
    address::parse_text(text).ok_or_else(|| "not an IPv4 or IPv6 address".into())
}

/// The name of one of fail2ban's jails.
fn a_jail(text: &str) -> Result<String, String> {
    if fail2ban::is_jail(text) { Ok(text.to_owned()) } else { Err("no name of a jail".to_owned()) }
}

/// Seconds of a command line, as fail2ban writes them: perhaps with a fraction.
fn whole_seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(whole.strip_prefix('-').unwrap_or(whole)) && digits(fraction)).then(|| whole.parse().ok())?
}

/// So many seconds, or a span as in the settings; a negative number, fail2ban's way to say "for ever", is the longest there is.
fn a_span(text: &str) -> Result<i64, String> {
    let spelled = || i64::try_from(span_of(text)?.as_secs()).ok();
    match whole_seconds(text).or_else(spelled) {
        Some(..0) => Ok(i64::MAX),
        Some(0) => Err("no time at all".to_owned()),
        Some(span) => Ok(span),
        None => Err("not a time span; write seconds, or it like 30m, 1d or 2h 30m".to_owned()),
    }
}

/// A time span of a command line, like `60s` or `2h 30m`.
fn duration(text: &str, allowed: RangeInclusive<Duration>) -> Result<Duration, String> {
    let span = span_of(text).ok_or("not a time span; write it like 60s or 2h 30m")?;
    if allowed.contains(&span) {
        return Ok(span);
    }
    let [least, most] = [allowed.start(), allowed.end()].map(|span| spelled(*span));
    Err(format!("out of range; {least} to {most} are possible"))
}

/// Leaves evidence of a decision. A journal that cannot be written to says so in syslog; the decision stands.
fn record(config: &Config, decision: &Decision, now: Timestamp) {
    let _ = write_down(config, decision, now);
}

/// The same, for who goes on otherwise where the journal cannot be written to.
fn write_down(config: &Config, decision: &Decision, now: Timestamp) -> io::Result<()> {
    Journal::new(&config.log_dir, &config.run_dir, Path::new(SYSLOG)).record(decision, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_as_fail2ban_and_people_write_them() {
        let spans = ["1", "3600.5", "1h", "2h 30m", "1d", "-1", "-1.0", "9999d"].map(a_span);
        let seconds = [1, 3_600, 3_600, 9_000, 86_400, i64::MAX, i64::MAX, 9_999 * 86_400];
        assert_eq!(spans, seconds.map(Ok));
        assert!(["0", "0.4", "", "soon", "-", "1e9"].iter().all(|text| a_span(text).is_err()));
    }
}
