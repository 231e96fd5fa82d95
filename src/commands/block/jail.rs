//! `ringfence-block start`, `stop` and `flush`: what fail2ban says of a whole jail.

use std::collections::BTreeSet;

use anyhow::bail;
use jiff::Timestamp;

use super::policy::deadline;
use super::settle::settle;
use super::{Call, blocks, complain, list};
use crate::account::Offender;
use crate::commands::{causes, say};
use crate::exit::Exit;
use crate::fail2ban;
use crate::ledger::{BY_HAND, OfJail};
use crate::matcher::bpf;

/// The command line of `start`, `stop` and `flush`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// fail2ban's jail; without it all blocks, those by hand too
    #[arg(long, value_name = "NAME")]
    jail: Option<String>,
}

/// Takes up again what the jail blocks. fail2ban's own memory says what that is, where it has one.
pub(super) fn start(call: &Call, args: &Args) -> anyhow::Result<Exit> {
    let jail = checked(args.jail.as_deref())?;
    let mut ledger = call.ledger()?;
    let bans = if let Some(jail) = jail {
        bans(call, jail).unwrap_or_else(|error| {
            complain(&format!("{}; what was blocked is blocked again", causes(&error)));
            None
        })
    } else {
        // The administrator himself: what made us wait is over.
        ledger.resume()?;
        None
    };
    let count = ledger.start(jail, bans.as_ref(), call.now())?;
    record(call, jail, "start", count);
    // Who asks for it wants it tried again.
    bpf::forget(&call.config.run_dir);
    let held = settle(call, &mut ledger)?.held;
    held.complain(call);
    say(&format!("{} in force again.{}", blocks(count), list::matched_by(call, held.by.as_ref())));
    Ok(Exit::Yes)
}

/// Sets aside what the jail blocks.
pub(super) fn stop(call: &Call, args: &Args) -> anyhow::Result<Exit> {
    let jail = checked(args.jail.as_deref())?;
    let mut ledger = call.ledger()?;
    let count = ledger.stop(jail, call.now())?;
    record(call, jail, "stop", count);
    settle(call, &mut ledger)?;
    say(&format!("{} set aside.", blocks(count)));
    Ok(Exit::Yes)
}

/// Lets go of all that the jail blocks, for good unless a stop follows.
pub(super) fn flush(call: &Call, args: &Args) -> anyhow::Result<Exit> {
    let jail = checked(args.jail.as_deref())?;
    let mut ledger = call.ledger()?;
    let count = ledger.flush(jail, call.now())?;
    record(call, jail, "flush", count);
    settle(call, &mut ledger)?;
    say(&format!("{} let go.", blocks(count)));
    if count > 0 {
        ledger.flushed(jail, Timestamp::now().as_second())?;
    }
    Ok(Exit::Yes)
}

/// What fail2ban remembers of a jail's bans; `None` if it does not know the jail, or remembers nothing at all.
pub(super) fn bans(call: &Call, jail: &str) -> anyhow::Result<Option<BTreeSet<Offender>>> {
    let bans = fail2ban::bans(&call.config.fail2ban.database, jail, deadline(call))?;
    Ok(bans.map(|ids| ids.iter().filter_map(|ban| ban.id.parse().ok()).collect()))
}

fn record(call: &Call, jail: OfJail<'_>, decision: &str, count: u64) {
    if count > 0 {
        let subject = jail.map_or_else(|| "all blocks".to_owned(), |jail| format!("jail {jail}"));
        call.record(&subject, decision, "jail", jail.unwrap_or(BY_HAND), &blocks(count));
    }
}

/// The name of a jail, as fail2ban allows it. The empty one stands for blocks by hand, and is not fail2ban's.
pub(super) fn checked(name: OfJail<'_>) -> anyhow::Result<OfJail<'_>> {
    match name {
        Some("") => bail!("--jail is empty; leave it out for blocks by hand"),
        Some(name) if !fail2ban::is_jail(name) => bail!("--jail is no name of a jail"),
        name => Ok(name),
    }
}
