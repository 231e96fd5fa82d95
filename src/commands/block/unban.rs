//! `ringfence-block unban`: let an account go.

use std::collections::BTreeSet;

use super::settle::settle;
use super::{Call, Whom, complain};
use crate::exit::Exit;

/// The command line of `unban`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    whom: Whom,
}

pub(super) fn run(call: &Call, args: &Args) -> anyhow::Result<Exit> {
    let jail = args.whom.jail()?;
    // fail2ban need not hear that there was nothing to do: a refused block is let go too, some time.
    let nobody = if jail.is_some() { Exit::Yes } else { Exit::No };
    let offender = match args.whom.offender()? {
        Ok(offender) => offender,
        Err(error) => {
            complain(&format!("{:?}: {error}", args.whom.text()));
            return Ok(nobody);
        }
    };
    let mut ledger = call.ledger()?;
    let ended = ledger.remove(&offender, jail);
    // Also where nothing was there: the kernel may hold what the ledger does not know.
    let active = settle(call, &mut ledger)?;
    let ended = ended?;
    call.record_ends(&ended, if jail.is_some() { "unbanned" } else { "by-hand" }, "");
    if ended.is_empty() {
        if jail.is_none() {
            let others = active.iter().filter(|block| block.offender.account == offender.account);
            let others: BTreeSet<_> = others.map(|block| block.offender.to_string()).collect();
            let hint =
                others.into_iter().next().map_or_else(String::new, |other| format!("; but {other} is"));
            complain(&format!("{offender} is not blocked{hint}"));
        }
        return Ok(nobody);
    }
    Ok(Exit::Yes)
}
