//! `ringfence-block unban`: let an account go.

use std::collections::BTreeSet;

use super::settle::{settle, settle_one};
use super::{Call, Whom, complain};
use crate::account::Offender;
use crate::commands::say;
use crate::exit::Exit;
use crate::ledger::Block;

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
            complain(&format!("{:?} is not blocked: {error}", args.whom.text()));
            return Ok(nobody);
        }
    };
    let mut ledger = call.ledger()?;
    let ended = ledger.remove(std::slice::from_ref(&offender), jail);
    if let Ok(ended) = &ended {
        call.record_ends(ended, if jail.is_some() { "unbanned" } else { "by-hand" }, "");
    }
    let ended = match ended {
        Ok(ended) if !ended.is_empty() => {
            settle_one(call, &mut ledger, &offender)?;
            ended
        }
        // The kernel may hold what the ledger does not know.
        ended => {
            let active = settle(call, &mut ledger)?.active;
            ended?;
            return Ok(unknown(&offender, jail.is_none(), &active, nobody));
        }
    };
    say(&format!("Let go of {offender}."));
    if jail.is_none() {
        // It would not ask us again before its time.
        for block in ended.iter().filter(|block| !block.jail.is_empty()) {
            let Block { offender, jail, .. } = block;
            complain(&format!(
                "fail2ban still has it among its bans; it counts new failures after: fail2ban-client set {jail} unbanip {offender}"
            ));
        }
    }
    Ok(Exit::Yes)
}

/// Says who else is blocked of the same account, where a person asks.
fn unknown(offender: &Offender, asked: bool, active: &[Block], exit: Exit) -> Exit {
    if asked {
        let others = active.iter().filter(|block| block.offender.account == offender.account);
        let others: BTreeSet<_> = others.map(|block| block.offender.to_string()).collect();
        let hint = others.into_iter().next().map_or_else(String::new, |other| format!("; {other:?} is"));
        complain(&format!("{:?} is not blocked{hint}", offender.to_string()));
    }
    exit
}
