//! `ringfence-firewall restore`: what was confirmed is there again.

use super::undo::{self, Undo};
use super::wanted::Wanted;
use super::{Call, complain, confirmed, remove};
use crate::commands::{pause, say};
use crate::exit::Exit;
use crate::firewall::{Firewall, take_turn};

pub(super) fn run(call: &Call) -> anyhow::Result<Exit> {
    let turn = take_turn(call.run_dir())?;
    let swept = undo::sweep(call)?;
    if Undo::read(call)?.is_some() {
        say("What was applied waits for its confirmation.");
        return Ok(Exit::Yes);
    }
    let Some(config) = confirmed::read(call)? else {
        // A remove that was killed half-way; or rules that nobody confirmed were saved by another program, and came back at a boot.
        if call.config.firewall_dir().exists()
            && let (true, note) = remove::take_away(call)?
        {
            call.record("rules", "remove", "never-confirmed", "");
            drop(turn);
            call.settle_blocks();
            if let Some(note) = note {
                complain(&note);
            }
        }
        say("Nothing is confirmed, so there is nothing to restore.");
        return Ok(Exit::Yes);
    };
    let pause = pause::now(&call.config);
    let mut there = Firewall::read()?;
    let mut wanted = Wanted::new(&config, &there, call.now)?;
    if let Some(fault) = wanted.count_drops(call, &there, config.firewall_mode()) {
        complain(&fault);
    }
    wanted.make_sets()?;
    if let Err(error) = wanted.fill_lists(call) {
        // The rest of the rules is not to wait for it.
        complain(&format!("lists that ports are restricted to are not in the kernel: {error:#}"));
        wanted = Wanted::as_filled(&config, &there, call.now)?;
    }
    let changed = there.bring_in_together(pause, |version| wanted.layout(version))?;
    if changed {
        call.record("rules", "restore", "rules-repaired", "they were not as they had been confirmed");
    }
    drop(turn);
    if changed || swept {
        call.settle_blocks();
    }
    for problem in wanted.unrestricted() {
        call.record("rules", "keep", "ports-open", &problem);
        complain(&problem);
    }
    say(if changed { "The rules are there again." } else { "The rules are there." });
    Ok(Exit::Yes)
}
