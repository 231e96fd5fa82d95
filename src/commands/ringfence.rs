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
    ///
    /// The answer comes first: by what, on which ports, since when, until when. Then what each check says, in the order in which a
    /// packet meets them on this host, each with its rule; what else is known; the lines of logs that made fail2ban ban it; the last decisions about it; and the commands that undo it, each a line to be pasted. Two blocks are
    /// both named. A block is what drops packets in the kernel: a ban that fail2ban holds and no rule does, a ban below a rule
    /// that lets its packets in, a block list where an allow list comes first, and whatever is only observed are none, and that
    /// is said. While Ringfence is paused, that is said first, and nothing of it counts.
    ///
    /// Looked at are all tables of iptables that packets for this host go through (raw, mangle, nat, filter, security), and those
    /// of nftables' own; what is not understood there is named, and the exit status is 2 if the answer hangs on it. Of an account:
    /// where it is blocked, whether FusionPBX knows it, where it is registered, its failures of the last hour, and
    /// whether one of the addresses is blocked that it is registered from or fails from. For a host's rule about more than the
    /// one address, an accept for that address above it is printed.
    ///
    /// Nothing is changed. Each part is asked for at most a few seconds; what could not be asked is listed, and the rest shown.
    /// Where nothing was found and not everything could be asked, it is not known whether it is blocked, and that is said.
    Why(why::Args),
    /// Who fails: by address, the accounts that are refused, how often and why
    ///
    /// Those that fail most come first; each account with when it failed last, and what the phone calls itself. Reads the log of
    /// ringfence-events(1) and its rotated and compressed files; where there is none, FreeSWITCH's own log, in which wrong
    /// passwords are only with `log-auth-failures` in the SIP profile, and phones have no names.
    Offenders(offenders::Args),
    /// Is all well? Services, jails, lists, blocks, order and decisions on one screen
    ///
    /// Each thing that is not well is one line with the command that tells more; then the host is shown. What
    /// needs attention is named in ringfence(1). Nothing is changed.
    Status(status::Args),
    /// Whether this host is as it should be, and what to do where it is not
    ///
    /// Nothing is changed, but that the kernel may load modules of iptables: what it has is tried in a network of its own, which is gone
    /// thereafter. Each finding has a verdict (needs doing, not checked, or fine), a subject, what is so, and the command
    /// or setting that mends it. All checks are named in ringfence(1). It needs root.
    Doctor(doctor::Args),
    /// Undo all that blocks an address or account alone, and say what is left
    ///
    /// It says what it undid: fail2ban lets its ids go, those of devices (USER@DOMAIN,ADDRESS) too; it leaves the sets of
    /// ringfence-ban(1) and of those that exceeded a limit; ringfence-block(1) lets its accounts go; the rule of event_guard is
    /// taken away. Who is on a block list, or on none of the lists of a restriction, is allowed for a time, as by
    /// `ringfence-allow add`; jails that ask ringfence-ignore do not ban it meanwhile either, and a longer allowance by hand
    /// keeps its end and reason.
    ///
    /// What would free others too (a network, an account everywhere), what blocks the addresses of an account, and the host's own
    /// rules are left, and said with the command. Two releases at once take turns. What is blocked again while it is let go, by a
    /// phone that goes on failing, is said, with what is left then. FusionPBX's database is only read, so that its page still shows what
    /// event_guard blocked. During a pause, what would block afterwards is undone. May be repeated.
    Release(release::Args),
    /// What would become of an address, rule by rule; --walk goes through a real failure
    ///
    /// What would become of its packets, by what the kernel has now: a REGISTER, of the account with its credentials if one is
    /// named, over UDP and TCP to SIP's ports; and connections to other open ports, where that differs. The host's real rules are
    /// walked in their order, through chains and back; sets are asked, and text is looked for in the message. What cannot be
    /// known of one packet - a limit, an interface, a match that is not known here - is said, with what else would become of it,
    /// and never guessed.
    ///
    /// All tables of iptables are walked as the kernel does, and those of nftables' own, by their priority, with policies and
    /// jumps; where it hangs on what is not understood (a mark, a rewritten destination, a named set of ports), the outcome is not
    /// known. The program that ringfence-block(1) may have in the kernel is asked, too. Rules by date are judged by the clock, in UTC; during a pause the first line says until when.
    ///
    /// Then what would follow if a login failed: which of fail2ban's jails would count it, whether ringfence-ignore(1) keeps the
    /// address, and what ringfence-block(1) would decide of the account, also while blocks are suspended, in a flood, and who
    /// makes way where `max` is reached; and event_guard, where its chains are: it may block at
    /// the first failure, whoever allows the address. Without --walk nothing is sent and nothing changed. It needs root.
    Test(test::Args),
    /// Lift all blocking of ours for a while, after which the kernel blocks again by itself
    ///
    /// Lifted are bans by ringfence-ban(1), blocked accounts, block lists, limits and restrictions, of IPv4 and IPv6, at once.
    /// Without TIME it says whether there is a pause, and until when. What a pause is, and what it leaves alone, is under A PAUSE
    /// in ringfence(1).
    Pause(pause::Args),
    /// What was blocked and why, as one page for the customer or the boss
    ///
    /// It shows what was blocked over time, by jail or reason, by country where a list of a country knows the address, and by
    /// list; who fails behind addresses that are left alone; what was taken back. A list is a country's if it has `country`, or
    /// if it is a file or from the web and its name is a country's code, or a port is restricted to it. The page needs no
    /// network, has no script, and may load nothing; it is read on a phone, in the dark and on paper.
    ///
    /// The figures are from the journal of decisions, the log of failures as `offenders` reads it, fail2ban's database for bans
    /// that the journal does not have, and the last good copies of the lists. What could not be read is said on the page and on
    /// standard error. Packets that the kernel drops are counted by reason each minute, for 90 days; those of all block lists
    /// together.
    Report(report::Args),
    /// Whether the settings and the installed filters and jails are right
    ///
    /// The settings are named with file, line, and the nearest key. Of what is installed of Ringfence's files for fail2ban: each
    /// is there, and that of this version, or was changed; no section sets an option twice; each filter, with each of its modes,
    /// finds in its samples whom it should, by fail2ban-regex(1); and fail2ban understands its whole configuration. What is
    /// "wrong" must be mended before fail2ban is reloaded; "changed" and "missing" may be your wish, and are no failure, unless
    /// none of Ringfence's files is there. The samples are built in.
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
  /var/lib/ringfence/drops              how many packets were dropped, by reason and hour, for 90 days
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
