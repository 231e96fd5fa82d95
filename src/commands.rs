//! What each tool does: its command line and its `run`.

use std::io::{self, Write};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use jiff::Timestamp;

use crate::address;
use crate::config::Config;
use crate::evidence::{Decision, Journal, visible};
use crate::exit::Exit;

pub mod allow;
pub mod block;
pub mod firewall;
pub mod ignore;
pub mod lists;
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

/// An address of a command line.
fn an_address(text: &str) -> Result<IpAddr, String> {
    address::parse_text(text).ok_or_else(|| "not an IPv4 or IPv6 address".into())
}

/// A time span of a command line, like `60s` or `2h 30m`.
fn duration(text: &str, allowed: RangeInclusive<Duration>) -> Result<Duration, String> {
    let span = crate::config::span_of(text).ok_or("not a time span; write it like 60s or 2h 30m")?;
    if allowed.contains(&span) { Ok(span) } else { Err("out of range".into()) }
}

/// Leaves evidence of a decision. A journal that cannot be written to says so in syslog; the decision stands.
fn record(config: &Config, decision: &Decision, now: Timestamp) {
    let _ = Journal::new(&config.log_dir, &config.run_dir, Path::new(SYSLOG)).record(decision, now);
}
