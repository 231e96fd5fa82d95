//! `ringfence`: what an administrator asks of his host.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{Settings, give_up, parse};
use crate::config::Config;
use crate::exit::Exit;

mod completions;
mod doctor;
mod look;
mod offenders;
mod pause;
mod release;
mod report;
mod status;
mod test;
mod validate;
mod why;

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
    /// Why an address or account is blocked, or is not: by what, since when, until when, and what undoes it
    Why(why::Args),
    /// Who fails: by address, the accounts that are refused, how often and why
    Offenders(offenders::Args),
    /// Is all well? Services, jails, lists, blocks, order and decisions on one screen
    Status(status::Args),
    /// Whether this host is as it should be, and what to do where it is not
    Doctor(doctor::Args),
    /// Undo all that blocks an address or account alone, and say what is left
    Release(release::Args),
    /// What would become of an address, rule by rule; --walk goes through a real failure
    Test(test::Args),
    /// Lift all blocking of ours for a while, after which the kernel blocks again by itself
    Pause(pause::Args),
    /// What was blocked and why, as one page for the customer or the boss
    Report(report::Args),
    /// Whether the settings and the installed filters and jails are right
    Validate(validate::Args),
    /// Print what a shell needs to complete the command lines of our tools
    Completions(completions::Args),
}

const ABOUT: &str = "The administrator's tool: why is it blocked, who fails, and is all well?";

const LONG_ABOUT: &str = "\
The administrator's tool: why is it blocked, who fails, and is all well?

why asks all that may block an address or an account - fail2ban, event_guard, blocked accounts, lists, \
limits, restrictions, the host's own rules - and gives one answer, with the commands that undo it. \
release undoes it; test says beforehand what would become of an address.

A whole office sits behind one address. offenders says which of its phones are refused, with which \
account and why, and whether fail2ban would leave the address alone.

status shows whether all is well, on one screen. doctor looks at the whole host, and says what to do \
where it is not as it should be; validate looks at settings, filters and jails. report is a page about \
what was blocked, for the customer or the boss. pause lifts all our blocking for a while.";

const AFTER_HELP: &str = "\
Exit status: 0 done, shown or yes; 1 no, blocked, or something needs doing; 2 broken or wrong usage.";

const AFTER_LONG_HELP: &str = "\
Exit status:
  0  done, or shown
     why, test: nothing blocks it
     status, doctor, validate: all is well
     pause without a time: there is a pause
  1  why, test: it is blocked, be it on some ports or with some account
     release: something is left
     status, doctor, validate: something needs doing
     pause without a time: there is none
     report: something could not be read, which the page says
  2  broken, or wrong usage
     why, release, test: nothing is known to block it, but not everything could be asked

Which way it fails:
  What cannot be read is one line that says so, and the rest is shown. Nothing waits for longer \
than its deadline.
  A pause is ended by the kernel, by its clock, also if nothing of ours runs any more; and by a \
boot. If it cannot be brought in, nothing is changed. Bans and blocks that are made meanwhile \
count from its end on.

Files:
  /etc/ringfence/ringfence.toml         settings; RINGFENCE_CONFIG or --config names another file
  /var/log/ringfence/events/events.log  the log of ringfence-events, and its rotated files; where it is
                                        not, FreeSWITCH's own log
  /var/log/ringfence/decisions.jsonl    the journal of decisions, and its renamed file
  /var/lib/fail2ban/fail2ban.sqlite3    whom fail2ban remembers, and why; read only
  /run/ringfence/pause.json             until when there is a pause";

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
    let file = args.settings.config.as_deref();
    let config = |unneeded: &[&str]| Config::load_without(file, unneeded);
    match &args.command {
        Command::Why(args) => why::run(&config(&[])?, file, args),
        Command::Offenders(args) => offenders::run(&config(&offenders::UNNEEDED)?, args),
        Command::Status(args) => status::run(file, args),
        Command::Doctor(args) => doctor::run(file, args),
        Command::Release(args) => release::run(&config(&[])?, file, args),
        Command::Test(args) => test::run(&config(&[])?, args),
        Command::Pause(args) => pause::run(&config(&pause::UNNEEDED)?, args),
        Command::Report(args) => report::run(&config(&report::UNNEEDED)?, args),
        Command::Validate(args) => validate::run(file, args),
        Command::Completions(args) => completions::run(args),
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
