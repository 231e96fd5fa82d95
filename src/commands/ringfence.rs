//! `ringfence`: what an administrator asks of his host.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{Settings, give_up, parse};
use crate::config::Config;
use crate::exit::Exit;

mod offenders;
mod pause;
mod status;
mod test;

pub(super) const TOOL: &str = "ringfence";

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
    /// Who fails: by address, the accounts that are refused, how often and why
    Offenders(offenders::Args),
    /// What would become of an address, rule by rule; --walk goes through a real failure
    Test(test::Args),
    /// Lift all blocking of ours for a while, after which the kernel blocks again by itself
    Pause(pause::Args),
    /// Is all well? Services, jails, lists, blocks, order and decisions on one screen
    Status(status::Args),
}

const ABOUT: &str = "The administrator's tool: which phone in that office is failing?";

const LONG_ABOUT: &str = "\
The administrator's tool: which phone in that office is failing?

A whole office sits behind one address. offenders says which of its phones are refused, with which
account and why, and whether fail2ban would leave the address alone.";

const AFTER_HELP: &str = "\
Exit status: 0 done, shown or yes, 1 no, 2 broken or wrong usage.";

const AFTER_LONG_HELP: &str = "\
Exit status:
  0  done, or shown; for pause without a time, that there is one
  1  for pause without a time, that there is none; for status, that something needs attention
  2  broken, or wrong usage

Which way it fails:
  A pause is ended by the kernel, by its clock, also if nothing of ours runs any more; and by a boot.
  If it cannot be brought in, nothing is changed. Bans and blocks that are made meanwhile count from
  its end on.

Files:
  /etc/ringfence/ringfence.toml               settings; RINGFENCE_CONFIG or --config names another
                                              file
  /var/log/ringfence/events/events.log        the log of ringfence-events, and its rotated files;
                                              where it is not, FreeSWITCH's own log
  /run/ringfence/pause.json                   until when there is a pause";

/// The whole tool.
#[must_use]
pub fn main() -> ExitCode {
    let args = match parse::<Args>() {
        Ok(args) => args,
        Err(exit) => return exit.into(),
    };
    let exit = run(&args).unwrap_or_else(|error| give_up(TOOL, &error));
    // Threads that still wait for a database must not keep anybody waiting.
    std::process::exit(exit.code().into())
}

fn run(args: &Args) -> anyhow::Result<Exit> {
    let path = args.settings.config.as_deref();
    let config = |unneeded| Config::load_without(path, unneeded);
    match &args.command {
        Command::Offenders(args) => offenders::run(&config(&offenders::UNNEEDED)?, args),
        Command::Test(args) => test::run(&config(&[])?, args),
        Command::Pause(args) => pause::run(&config(&pause::UNNEEDED)?, args),
        Command::Status(args) => status::run(path, args),
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
