//! `ringfence-firewall remove`: as if we had never been here.

use super::undo::{self, Undo};
use super::wanted::Wanted;
use super::{Call, complain, confirmed};
use crate::commands::say;
use crate::exit::Exit;
use crate::firewall::{Firewall, Layout, order, take_turn};
use crate::pause::Pause;

pub(super) fn run(call: &Call) -> anyhow::Result<Exit> {
    let turn = take_turn(call.run_dir())?;
    // Also one that waits no more only because its settings are the confirmed ones: these are forgotten now.
    if let Some(undo) = Undo::last(call)?.filter(|undo| !undo.over) {
        undo.end(call)?;
    }
    let (changed, note) = take_away(call)?;
    call.record("rules", "remove", "by-hand", "");
    drop(turn);
    call.settle_blocks();
    if let Some(note) = note {
        complain(&note);
    }
    say(if changed { "Removed." } else { "There was nothing to remove." });
    Ok(Exit::Yes)
}

/// Takes away all that is ours; whether there were rules, and what stays, for people. The directory goes last: while it is there and
/// nothing is confirmed, this is not done. Only who has the turn may.
pub(super) fn take_away(call: &Call) -> anyhow::Result<(bool, Option<String>)> {
    let there = Firewall::read();
    if let Ok(there) = &there {
        Wanted::count_confirmed(call, there);
    }
    confirmed::forget(call)?;
    let mut there = there?;
    // A chain that somebody wrote by hand under our name is his.
    let ours = there.has_rules_of(order::PREFIX);
    if ours {
        there.bring_in_together(Pause::Not, |_| Layout::nothing(order::PREFIX))?;
    }
    Ok((ours, undo::release_sets(call)?))
}
