//! `ringfence-lists`: black- and whitelists that never hurt the host.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use jiff::Timestamp;

use crate::commands::{Settings, give_up, parse};
use crate::config::{Config, ListName};
use crate::exit::Exit;
use crate::feeds::store::Busy;

mod diff;
mod fetch;
mod load;
mod merge;
mod protection;
mod report;
pub(super) mod restricted;
mod session;
pub(super) mod show;
mod untold;

use fetch::Then;
pub(super) use session::all_lists;

const TOOL: &str = "ringfence-lists";

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
    /// Fetch, then load: for cron or a timer
    ///
    /// On a terminal it shows what it does; in cron it is silent but for what was refused or damaged, and for whoever cannot be
    /// protected.
    Refresh(fetch::Args),
    /// Download what is due, check it, and put the lists together; needs no privilege
    ///
    /// It must be able to write the directory of the lists, which may belong to an unprivileged user.
    Fetch(fetch::Args),
    /// Bring the lists into the kernel; needs root, but neither network nor database
    ///
    /// So it serves at boot. It needs root for `CAP_NET_ADMIN`. What the sets hold already is not touched.
    Load(load::Args),
    /// All lists, or those that an address is on
    ///
    /// Of all lists: how many networks, how old, when due, the last result, whom a list would have blocked (the first few by
    /// name), and what was loaded. Of an ADDRESS: the lists that have it, since when, and whether it is blocked or why not.
    /// APIBAN's addresses have the time of their last report.
    Show(show::Args),
    /// What a download would change in a list; nothing is kept
    ///
    /// The source is asked; `-` marks what it no longer has, `+` what is new.
    Diff(diff::Args),
    /// Print the smallest list of networks equal to addresses, networks and ranges
    ///
    /// The networks are sorted. Lines that cannot be read are named on standard error and left out.
    Merge(merge::Args),
}

const ABOUT: &str = "Black- and whitelists in the kernel, which never hurt the host";

const LONG_ABOUT: &str = "\
Black- and whitelists in the kernel, which never hurt the host

Downloads the lists named in the settings, checks them, cuts out whoever must not be blocked
(registered phones, carriers, allow lists, this host), and swaps the result into ipsets:

    rf-allow-ip4 rf-allow-net4 rf-allow-ip6 rf-allow-net6
    rf-block-ip4 rf-block-net4 rf-block-ip6 rf-block-net6";

const AFTER_HELP: &str = "\
Exit status: 0 done or found, 1 refused or not found, 2 broken or wrong usage.";

const AFTER_LONG_HELP: &str = "\
Exit status:
  0  done; for show ADDRESS, it is on a list
  1  something was refused, and what was there before stays; for show ADDRESS, it is on no list
  2  broken, or wrong usage; what was there before stays

Which way it fails:
  A list that cannot be had, or is empty, cut short, a web page, full of nonsense, or suddenly much
  smaller or larger, is refused with one line on standard error; its last good copy stays in use.
  If an allow list has no copy at all, or no phone is known, nobody is blocked anew.
  If the registrations cannot be read, phones seen registered within a day are protected instead.
  In the kernel, each set is the old one or the new one, whole, at any moment.

Files:
  /etc/ringfence/ringfence.toml       settings; RINGFENCE_CONFIG or --config names another file
  /var/lib/ringfence/lists            the last good copies, and the lists put together
  /var/lib/ringfence/allow.table      whom ringfence-ignore keeps because of an allow list
  /var/log/ringfence/decisions.jsonl  what was refused, cut out and loaded";

fn list_name(text: &str) -> Result<ListName, String> {
    ListName::try_from(text.to_owned())
}

/// The whole tool.
#[must_use]
pub fn main() -> ExitCode {
    let args = match parse::<Args>() {
        Ok(args) => args,
        Err(exit) => return exit.into(),
    };
    let exit = run(&args, Timestamp::now()).unwrap_or_else(|error| match give_up(TOOL, &error) {
        Exit::Broken if error.is::<Busy>() => Exit::No,
        exit => exit,
    });
    exit.into()
}

fn run(args: &Args, now: Timestamp) -> anyhow::Result<Exit> {
    let settings = || Config::load(args.settings.config.as_deref());
    match &args.command {
        Command::Merge(args) => merge::run(args),
        Command::Refresh(args) => fetch::run(&settings()?, args, Then::Load, now),
        Command::Fetch(args) => fetch::run(&settings()?, args, Then::Stop, now),
        Command::Load(args) => load::run(&settings()?, args, now),
        Command::Show(args) => show::run(&settings()?, args, now),
        Command::Diff(args) => diff::run(&settings()?, args, now),
    }
}
