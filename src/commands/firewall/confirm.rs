//! `ringfence-firewall confirm`: what was applied stays.

use jiff::Timestamp;

use super::undo::{self, Undo};
use super::wanted::Wanted;
use super::{Call, complain, confirmed};
use crate::commands::{pause, tell};
use crate::exit::Exit;
use crate::firewall::{Firewall, take_turn};

pub(super) fn run(call: &Call) -> anyhow::Result<Exit> {
    let turn = take_turn(call.run_dir())?;
    let undo = match confirmable(call)? {
        Ok(undo) => undo,
        Err(why) => {
            drop(turn);
            // The rules may have been taken back just now.
            call.settle_blocks();
            complain(why);
            return Ok(Exit::No);
        }
    };
    confirmed::write(call, &undo)?;
    // What stands in the settings counts.
    let _ = undo.end(call);
    call.record("rules", "confirm", "by-hand", "");
    tell("Confirmed: the rules stay, and come back after a boot.")?;
    Ok(Exit::Yes)
}

/// What can be confirmed, or why nothing can.
fn confirmable(call: &Call) -> anyhow::Result<Result<Undo, &'static str>> {
    if undo::sweep(call)? {
        return Ok(Err("too late: what was applied has been taken back"));
    }
    let Some(undo) = Undo::read(call)? else {
        return Ok(Err(
            "nothing waits for a confirmation; what was applied is confirmed already, or was taken back",
        ));
    };
    if !undo.complete {
        return Ok(Err(
            "what is being applied is not complete; it is taken back if whoever applied it is gone",
        ));
    }
    if undo.until < Timestamp::now().as_second() {
        return Ok(Err("too late: what was applied is being taken back"));
    }
    // Who gets in after another program flushed the rules proves nothing.
    let there = Firewall::read()?;
    let wanted = Wanted::new(&undo.config(call)?, &there, call.now)?;
    if !there.plan(pause::look(&call.config), |version| wanted.layout(version)).is_empty() {
        return Ok(Err(
            "the rules are not there as they were applied, so another program changed them; apply them once more",
        ));
    }
    Ok(Ok(undo))
}
