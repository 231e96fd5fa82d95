//! `ringfence-block start`, `stop` and `flush`: what fail2ban says of a whole jail.

use anyhow::bail;
use jiff::Timestamp;

use super::settle::settle;
use super::{Call, Ledger};
use crate::exit::Exit;
use crate::ledger::OfJail;

/// The command line of `start`, `stop` and `flush`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// fail2ban's jail; without it all blocks, those by hand too
    #[arg(long, value_name = "NAME")]
    jail: Option<String>,
}

/// Starts or stops: writes the change down and brings it into the kernel.
pub(super) fn run(
    call: &Call,
    args: &Args,
    change: impl FnOnce(&mut Ledger, OfJail<'_>, i64) -> anyhow::Result<u64>,
) -> anyhow::Result<Exit> {
    let mut ledger = call.ledger()?;
    change(&mut ledger, checked(args.jail.as_deref())?, call.now())?;
    settle(call, &mut ledger)?;
    Ok(Exit::Yes)
}

/// Lets go of all blocks, for good unless a stop follows.
pub(super) fn flush(call: &Call, args: &Args) -> anyhow::Result<Exit> {
    let jail = checked(args.jail.as_deref())?;
    let mut ledger = call.ledger()?;
    let flushed = ledger.flush(jail, call.now())?;
    settle(call, &mut ledger)?;
    if flushed > 0 {
        ledger.flushed(jail, Timestamp::now().as_second())?;
    }
    Ok(Exit::Yes)
}

/// The name of a jail, as fail2ban allows it. The empty one stands for blocks by hand, and is not fail2ban's.
pub(super) fn checked(name: OfJail<'_>) -> anyhow::Result<OfJail<'_>> {
    const LONGEST: usize = 100;
    match name {
        Some("") => bail!("--jail is empty; leave it out for blocks by hand"),
        Some(name) if name.len() > LONGEST || name.chars().any(char::is_control) => {
            bail!("--jail is no name of a jail")
        }
        name => Ok(name),
    }
}
