//! `ringfence-allow`: an address is left alone for a time, in the kernel and by fail2ban.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Parser, Subcommand};
use jiff::Timestamp;

use crate::allow::timed::{self, Book, Entry};
use crate::commands::{Settings, causes, give_up, parse, record, screen};
use crate::config::{Config, Mode};
use crate::evidence::Decision;
use crate::exit::Exit;
use crate::state_file;

mod add;
mod kernel;
mod list;
mod meanwhile;
mod remove;
mod sync;

pub(super) use add::keep;
pub(in crate::commands) use meanwhile::Meanwhile;

const TOOL: &str = timed::NAME;

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
    /// Allow an address for a time, or for longer if it is allowed already
    ///
    /// Where it is allowed on the same word already, it is for longer, and never for less; but by hand, with --for, for what is
    /// said.
    Add(add::Args),
    /// Allow it no more
    ///
    /// With --jail what this jail added, without it on whoever's word it is allowed. It is taken out of the kernel's set too,
    /// unless it was seen registered within a day; then that is said.
    Remove(remove::Args),
    /// Show who is allowed, how long still, since when, on whose word, and why
    ///
    /// On whose word: `by hand`, the jail, or `a walk`, for as long as `ringfence test --walk` runs.
    List(list::Args),
    /// Allow nobody any more whom add allowed, or nobody of a jail; with --after, fail2ban's actionflush
    Flush(remove::FlushArgs),
    /// Take back a flush that came just before: fail2ban's actionstop
    ///
    /// What a `flush --after` of the jail said is taken back up to a minute after it was due: fail2ban flushes a jail when it
    /// only stops.
    Stop(remove::StopArgs),
    /// Bring registered phones, those seen within a day, and who is allowed into the kernel; every minute
    ///
    /// Into the kernel's sets come, for the time that is left to each: addresses with a live registration, 24 hours from now;
    /// those seen registered within a day, until a day after that; who is allowed by this tool.
    ///
    /// Times begin anew in place, so that nobody is ever missing; nobody is removed. To be called every minute, by the timer or
    /// the cron job, also after a boot. A hundred phones of an office that all come back at once, after an outage or a boot, are
    /// known then, and no limit is for them.
    ///
    /// IPv6 addresses are brought in one by one, whatever `ipv6-prefix` is: the sets hold addresses only.
    Sync,
}

const ABOUT: &str = "Keeps an address on the allow list for a time";

const LONG_ABOUT: &str = "\
Keeps an address on the allow list for a time

Block lists and limits in the kernel pass it over, and fail2ban leaves it alone where its jails ask
ringfence-ignore. A jail whose filter matches what only customers do (a successful registration)
adds addresses by itself: its ban is our allow. The sets are rf-seen-ip4 and rf-seen-ip6.";

const AFTER_HELP: &str = "\
Exit status: 0 done, 1 refused, not there, or not known in part, 2 broken or wrong usage.";

const AFTER_LONG_HELP: &str = "\
Exit status:
  0  done; with --jail, also where an address was refused or not there: fail2ban would try it again
  1  refused, or nobody was allowed by that name; for sync, that somebody could not be asked
  2  broken, or wrong usage

Which way it fails:
  Who is allowed is first written to a file, which outlives a reboot, and to the table that
  ringfence-ignore reads; then it goes into the kernel. If the kernel has no sets (ip_set), that is
  said, with exit status 2: fail2ban leaves the address alone all the same, and sync tries again.
  If the registrations cannot be read, sync keeps phones seen registered within a day, and removes
  nobody. A damaged file is moved aside, and a new one begun. Where there are more than 100000, who
  ends first makes way. Every address is let go by its own time, even if fail2ban is gone.

Files:
  /etc/ringfence/ringfence.toml       settings; RINGFENCE_CONFIG or --config names another file
  /var/lib/ringfence/allowed          who is allowed until when, and why
  /var/lib/ringfence/allowed.table    the same, as ringfence-ignore reads it
  /var/log/ringfence/decisions.jsonl  who was allowed, refused and let go";

/// Settings of other tools.
const UNNEEDED: [&str; 7] = ["lists", "fusionpbx", "block", "ledger", "fail2ban", "firewall", "events"];

/// The whole tool.
#[must_use]
pub fn main() -> ExitCode {
    let args = match parse::<Args>() {
        Ok(args) => args,
        Err(exit) => return exit.into(),
    };
    let exit = run(&args).unwrap_or_else(|error| give_up(TOOL, &error));
    // Threads that still wait for a database must not keep fail2ban waiting.
    std::process::exit(exit.code().into())
}

fn run(args: &Args) -> anyhow::Result<Exit> {
    let call = Call { config: Config::load_without(args.settings.config.as_deref(), &UNNEEDED)? };
    if state_file::effective_user() != 0 {
        bail!("this needs root");
    }
    let (name, done) = match &args.command {
        Command::List(args) => return list::run(&call, args),
        Command::Add(args) => ("add", add::run(&call, args)),
        Command::Remove(args) => ("remove", remove::run(&call, args)),
        Command::Flush(args) => ("flush", remove::flush(&call, args)),
        Command::Stop(args) => ("stop", remove::stop(&call, args)),
        Command::Sync => ("sync", sync::run(&call)),
    };
    // Standard error may be heard by nobody.
    done.inspect_err(|error| call.record(name, "fail", "call-failed", "call", &causes(error)))
}

/// [`Command::Sync`], before rules go in that pass known addresses over; what goes wrong is said, and done again by the timer.
pub(super) fn sync_before_firewall(config: &Config) {
    let call = Call { config: config.clone() };
    if let Err(error) = sync::sync(&call) {
        complain(&causes(&error));
    }
}

/// One line on standard error.
fn complain(text: &str) {
    super::complain(TOOL, text);
}

/// So many, as people say it.
fn addresses(count: usize) -> String {
    screen::counted(count, "address", "addresses")
}

/// The settings: what every command needs.
struct Call {
    config: Config,
}

impl Call {
    fn observes(&self) -> bool {
        self.config.mode == Mode::Observe
    }

    /// The book, for us alone, without what is over, and when that was. A damaged one is moved aside, and that is said loudly.
    fn book(&self) -> anyhow::Result<(Book, Timestamp)> {
        let opened = Book::open(&self.config.state_dir, Timestamp::now())?;
        if let Some(lost) = opened.lost {
            let path = timed::path(&self.config.state_dir);
            let detail = format!("it was damaged ({}) and is now {}", lost.fault, lost.file.display());
            complain(&format!("{} is lost, and with it who was allowed: {detail}", path.display()));
            let subject = path.display().to_string();
            self.record(&subject, "begin anew", "allowed-lost", "state-dir", &detail);
        }
        let mut book = opened.book;
        // Who waited for his turn comes later than he was called.
        let now = Timestamp::now();
        let ended = book.tidy(now.as_second(), usize::MAX);
        self.record_ends(&ended.over, "time-over", "");
        self.record_ends(&ended.flushed, "flushed", "");
        Ok((book, now))
    }

    /// Leaves evidence.
    fn record(&self, subject: &str, decision: &str, reason: &str, source: &str, detail: &str) {
        let decision = Decision::new(TOOL, subject, decision, reason, source)
            .in_mode(self.config.mode)
            .with_detail(detail);
        record(&self.config, &decision, Timestamp::now());
    }

    /// Leaves evidence that addresses are no longer allowed; of very many, in one line.
    fn record_ends(&self, ended: &[Entry], reason: &str, detail: &str) {
        const MANY: usize = 100;
        if ended.len() > MANY {
            self.record(&addresses(ended.len()), "remove", reason, "state-dir", detail);
            return;
        }
        for entry in ended {
            self.record(&entry.address.to_string(), "remove", reason, entry.word(), detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once(TOOL).chain(line.split_whitespace()))
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn options_are_not_taken_from_addresses() {
        assert!(args("add -rf").is_err());
        assert!(args("add -- -rf").is_ok(), "it is refused later");
        assert!(args("add --jail=x --for=-1 --because=-rf -- 192.0.2.1").is_ok());
        for wrong in ["add", "add 1 2", "add --for=0 1", "add --for=x 1", "add --jail= 1", "stop", "sync 1"] {
            assert!(args(wrong).is_err(), "{wrong}");
        }
    }
}
