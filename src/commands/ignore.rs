//! `ringfence-ignore`: must fail2ban leave this address alone?

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use jiff::Timestamp;

use crate::commands::{parse, record};
use crate::config::{Config, ConfigError, Mode, OnError};
use crate::deadline::Deadline;
use crate::evidence::Decision;
use crate::exemption::Exemption;
use crate::exit::Exit;
use crate::registrations::{Answer, Standing};
use crate::{address, exemption};

mod explain;

const TOOL: &str = "ringfence-ignore";

/// Settings of other tools.
const UNNEEDED: [&str; 7] = ["lists", "fusionpbx", "block", "ledger", "fail2ban", "firewall", "events"];

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = TOOL,
    version,
    max_term_width = 100,
    about = ABOUT,
    long_about = LONG_ABOUT,
    after_help = AFTER_HELP,
    after_long_help = AFTER_LONG_HELP
)]
pub struct Args {
    /// Print how the answer comes about; the decision is not recorded
    ///
    /// It says which source was chosen and why, what was read, and what failed.
    #[arg(long)]
    explain: bool,

    /// The settings file [default: /etc/ringfence/ringfence.toml]
    #[arg(long, value_name = "FILE", env = "RINGFENCE_CONFIG", hide_env = true)]
    config: Option<PathBuf>,

    /// One IPv4 or IPv6 address
    ///
    /// Any spelling will do. IPv4-mapped IPv6 is the IPv4 address.
    #[arg(allow_hyphen_values = true)]
    address: OsString,
}

const ABOUT: &str = "fail2ban's ignorecommand: exit 0 when ADDRESS must not be banned";

const LONG_ABOUT: &str = "\
fail2ban's ignorecommand: exit 0 when ADDRESS must not be banned

An address must not be banned when it has a live registration in FreeSWITCH, or is on an allow
list that exempts from fail2ban. In a jail:

    ignorecommand = exec /usr/bin/ringfence-ignore \"<ip>\"";

const AFTER_HELP: &str = "\
Exit status: 0 keep, 1 may be banned (also for anything that is no address), 2 wrong usage.";

const AFTER_LONG_HELP: &str = "\
Exit status:
  0  keep: fail2ban must leave the address alone
  1  may be banned; also for anything that is no address
  2  wrong usage

Which way it fails:
  Without --explain nothing is printed, but one line on standard error if the settings cannot be
  used; what they still say of mode and on-error holds.
  While the registrations cannot be read, addresses seen registered within stale-ok (1h) are kept;
  for others on-error decides: ban (exit 1, the default) or keep (exit 0). A failure is remembered
  for 10 s: then one call tries again, and the others answer at once. An answer comes within
  deadline (800ms), whatever the source does.
  With mode = \"observe\" the decision is recorded and the exit status is 1: fail2ban bans as
  without Ringfence.

Files:
  /etc/ringfence/ringfence.toml           settings; RINGFENCE_CONFIG or --config names another file
  /run/ringfence                          what one look at the source found, for all calls
  /var/lib/ringfence                      addresses seen registered, allow lists
  /var/log/ringfence/decisions.jsonl      every decision";

/// The whole tool.
#[must_use]
pub fn main() -> ExitCode {
    let start = Instant::now();
    let args = match parse::<Args>() {
        Ok(args) => args,
        Err(exit) => return exit.into(),
    };
    let exit = run(&args, start, Timestamp::now());
    // Threads that still wait for a database must not keep fail2ban waiting.
    std::process::exit(exit.code().into())
}

fn run(args: &Args, start: Instant, now: Timestamp) -> Exit {
    let settings = Settings::load(args.config.as_deref());
    let verdict = decide(args, &settings, start, now);
    if args.explain {
        let text = explain::render(args, &settings, &verdict, start.elapsed(), now);
        let _ = io::stdout().lock().write_all(text.as_bytes());
    } else {
        if let Some(error) = &settings.broken {
            let _ = writeln!(io::stderr(), "{TOOL}: {error}");
        }
        record(&settings.config, &verdict.decision(), now);
    }
    verdict.exit()
}

/// The settings, or what is left of them.
struct Settings {
    config: Config,
    /// Why only some of them could be heeded.
    broken: Option<ConfigError>,
}

impl Settings {
    fn load(path: Option<&Path>) -> Self {
        match Config::load_without(path, &UNNEEDED) {
            Ok(config) => Self { config, broken: None },
            Err(error) => Self { config: Config::salvage(path), broken: Some(error) },
        }
    }
}

/// The decision about one argument, with all that led to it.
struct Verdict {
    /// As it was given.
    subject: String,
    mode: Mode,
    keep: bool,
    because: Because,
    answer: Option<Answer>,
}

/// Why the address is kept or not.
#[derive(Debug)]
enum Because {
    NoAddress,
    ConfigBroken,
    Found(Exemption),
}

fn decide(args: &Args, settings: &Settings, start: Instant, now: Timestamp) -> Verdict {
    let Some(address) = address::parse(&args.address) else {
        let subject = args.address.to_string_lossy().into_owned();
        return Verdict {
            subject,
            mode: Mode::Enforce,
            keep: false,
            because: Because::NoAddress,
            answer: None,
        };
    };
    let config = &settings.config;
    let (because, holds, answer) = if settings.broken.is_some() {
        (Because::ConfigBroken, None, None)
    } else {
        let deadline = Deadline::after(start, working_time(config.registrations.deadline.get()));
        let (exemption, answer) = exemption::find(config, address, now, deadline);
        let holds = exemption.holds();
        (Because::Found(exemption), holds, answer)
    };
    let keep = holds.unwrap_or(config.registrations.on_error == OnError::Keep);
    Verdict { subject: address.to_string(), mode: config.registrations_mode(), keep, because, answer }
}

/// What of the deadline may be spent on finding out: the rest is for recording and leaving, on a busy host.
fn working_time(deadline: Duration) -> Duration {
    deadline.saturating_sub((deadline / 8).min(Duration::from_millis(100)))
}

impl Verdict {
    fn exit(&self) -> Exit {
        if self.keep && self.mode == Mode::Enforce { Exit::Yes } else { Exit::No }
    }

    fn decision(&self) -> Decision {
        let failure = self.answer.as_ref().and_then(|answer| answer.failure.clone());
        let (reason, source, detail) = match &self.because {
            Because::NoAddress => ("not-an-address", "argument", String::new()),
            Because::ConfigBroken => ("config-broken", "settings", String::new()),
            Because::Found(Exemption::Allowed { list }) => ("allow-list", "allow-list", list.clone()),
            Because::Found(Exemption::AllowListUnreadable(fault)) => {
                ("allow-list-unreadable", "allow-list", fault.error.to_string())
            }
            Because::Found(Exemption::Standing(standing)) => {
                let reason = match standing {
                    Standing::Registered { .. } => "registered",
                    Standing::NotRegistered => "not-registered",
                    Standing::SeenLately { .. } => "seen-lately",
                    Standing::Unknown => "source-unreadable",
                };
                (reason, self.answer.as_ref().map_or("none", Answer::via), failure.unwrap_or_default())
            }
        };
        let decision = if self.keep { "keep" } else { "ban" };
        Decision::new(TOOL, &self.subject, decision, reason, source).in_mode(self.mode).with_detail(detail)
    }
}

#[cfg(test)]
mod tests;
