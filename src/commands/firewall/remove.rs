//! `ringfence-firewall remove`: as if we had never been here.

use super::undo::{self, Undo};
use super::{Call, confirmed};
use crate::commands::{block, say};
use crate::exit::Exit;
use crate::firewall::{Firewall, Layout, order, take_turn};

pub(super) fn run(call: &Call) -> anyhow::Result<Exit> {
    let turn = take_turn(call.run_dir())?;
    // Also one that waits no more only because its settings are the confirmed ones: these are forgotten now.
    if let Some(undo) = Undo::last(call)?.filter(|undo| !undo.confirmed) {
        undo.end(call)?;
    }
    let changed = take_away(call)?;
    call.record("rules", "remove", "by-hand", "");
    drop(turn);
    block::settle_after_firewall(&call.config, call.now);
    say(if changed { "Removed." } else { "There was nothing to remove." });
    Ok(Exit::Yes)
}

/// Takes away all that is ours; whether there were rules. The directory goes last: while it is there and nothing is confirmed, this
/// is not done. Only who has the turn may.
pub(super) fn take_away(call: &Call) -> anyhow::Result<bool> {
    confirmed::forget(call)?;
    let changed = Firewall::read()?.bring_in_together(|_| Layout::nothing(order::PREFIX))?;
    undo::release_sets(call)?;
    Ok(changed)
}
