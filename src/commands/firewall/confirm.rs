//! `ringfence-firewall confirm`: what was applied stays.

use super::undo::{self, Undo};
use super::{Call, complain, confirmed};
use crate::commands::say;
use crate::exit::Exit;
use crate::firewall::take_turn;

pub(super) fn run(call: &Call) -> anyhow::Result<Exit> {
    let _turn = take_turn(call.run_dir())?;
    if undo::sweep(call)? {
        complain("too late: what was applied has been taken back");
        return Ok(Exit::No);
    }
    let Some(undo) = Undo::read(call)? else {
        complain(
            "nothing waits for a confirmation; what was applied is confirmed already, or was taken back",
        );
        return Ok(Exit::No);
    };
    confirmed::write(call, &undo)?;
    undo.end(call)?;
    call.record("rules", "confirm", "by-hand", "");
    say("Confirmed: the rules stay, and come back after a boot.");
    Ok(Exit::Yes)
}
