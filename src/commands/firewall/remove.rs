//! `ringfence-firewall remove`: as if we had never been here.

use super::Call;
use super::undo::{self, Undo};
use crate::commands::{block, say};
use crate::exit::Exit;
use crate::firewall::{Firewall, Layout, order, take_turn};

pub(super) fn run(call: &Call) -> anyhow::Result<Exit> {
    let turn = take_turn(call.run_dir())?;
    let changed = Firewall::read()?.bring_in_together(|_| Layout::nothing(order::PREFIX))?;
    // Also one that waits no more only because its settings are the confirmed ones: these are forgotten now.
    if let Some(undo) = Undo::last(call)?.filter(|undo| !undo.confirmed) {
        undo.end(call)?;
    }
    undo::release_sets(call)?;
    call.record("rules", "remove", "by-hand", "");
    drop(turn);
    block::settle_after_firewall(&call.config, call.now);
    say(if changed { "Removed." } else { "There was nothing to remove." });
    Ok(Exit::Yes)
}
