//! `ringfence-events`: a log of FreeSWITCH's registrations and logins that no client can forge.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{Settings, give_up, parse};
use crate::config::Config;
use crate::exit::Exit;

pub(super) mod metrics;
mod run;
mod systemd;
pub(in crate::commands) mod tail;
mod voice;
mod worker;

const TOOL: &str = "ringfence-events";

/// Settings of other tools.
const UNNEEDED: [&str; 5] = ["lists", "block", "ledger", "fail2ban", "firewall"];

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
    #[command(flatten)]
    settings: Settings,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Listen to FreeSWITCH and write the log, until SIGTERM; SIGHUP opens the log anew
    ///
    /// SIGINT ends it, too. A file that was renamed is noticed without SIGHUP, within half a second. To be started by the service
    /// manager, which is told when it is ready, and that it lives. Needs no privileges.
    Run,
    /// Show the end of the log
    ///
    /// It is shown for people: local time, kind, address, account, and what happened. Lines that are none of the log's format are
    /// passed over, and counted.
    Tail(tail::Args),
}

const ABOUT: &str = "A log of FreeSWITCH's registrations and logins, for fail2ban";

const LONG_ABOUT: &str = "\
A log of FreeSWITCH's registrations and logins, for fail2ban

FreeSWITCH tells of them over its event socket: who registered, who failed, with which account,
from where. Each becomes one line that no client can forge, within milliseconds, whatever FreeSWITCH
itself logs. And ringfence-ignore knows who is registered without asking anybody.";

const AFTER_HELP: &str = "\
Exit status: 0 ended by a signal, or shown; 2 broken or wrong usage.";

const AFTER_LONG_HELP: &str = "\
Exit status:
  0  run: ended by SIGTERM or SIGINT; tail: shown
  2  broken, or wrong usage

Which way it fails:
  While FreeSWITCH is not there, run tries again for ever, after half a second at first and every
  half minute at last; what happens meanwhile is in no log. If it refuses the password or this host,
  that is said once on standard error.
  If the disk takes nothing, up to 4 MiB of lines wait in memory; what comes then is dropped,
  counted, and that is said once a minute. FreeSWITCH is never kept waiting.
  If FusionPBX's database does not answer within 8 ms, a failure says known=unknown.
  If many known addresses begin to fail at once, the PBX is in trouble, not they: that is one alarm
  in the log, and what they do until it is over is excused there, where no jail counts it.
  If the registrations cannot be read, or events are missed, ringfence-ignore asks by itself.

Files:
  /etc/ringfence/ringfence.toml                   settings; RINGFENCE_CONFIG or --config names
                                                  another file
  /var/log/ringfence/events/events.log            the log
  /run/ringfence/events/registrations.snapshot    who is registered, for ringfence-ignore";

/// The whole tool.
#[must_use]
pub fn main() -> ExitCode {
    let args = match parse::<Args>() {
        Ok(args) => args,
        Err(exit) => return exit.into(),
    };
    let exit = run(&args).unwrap_or_else(|error| give_up(TOOL, &error));
    // Threads that still wait for a database or a disk must not keep the service manager waiting.
    std::process::exit(exit.code().into())
}

fn run(args: &Args) -> anyhow::Result<Exit> {
    let config = Config::load_without(args.settings.config.as_deref(), &UNNEEDED)?;
    match &args.command {
        Command::Run => run::run(&config),
        Command::Tail(args) => tail::run(&config, args),
    }
}

/// One line on standard error.
fn complain(text: &str) {
    super::complain(TOOL, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
