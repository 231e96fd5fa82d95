//! The kernel holds what the ledger says: looked at and set right by every command.

use std::collections::BTreeSet;

use anyhow::{Context, anyhow};
use jiff::Timestamp;

use super::Call;
use crate::account::Offender;
use crate::commands::causes;
use crate::config::Mode;
use crate::firewall::{Firewall, Layout, Version, take_turn};
use crate::ledger::{Block, Ended, Ledger};
use crate::matcher::strings;

/// What came of it.
pub(super) struct Settled {
    /// What is blocked now.
    pub(super) active: Vec<Block>,
    /// The kernel held something else, though nothing had ended.
    pub(super) changed: bool,
}

/// Ends what is over or too much, and brings the rest into the kernel where it is not there as it should be.
pub(super) fn settle(call: &Call, ledger: &mut Ledger) -> anyhow::Result<Settled> {
    let _turn = take_turn(&call.config.run_dir)
        .context("what is to be done is in the ledger, and the next call does it")?;
    // Who waited for his turn does not undo what another wrote meanwhile: neither what he knew nor when he came counts any more.
    let now = Timestamp::now().as_second();
    let max = call.config.block.max.get();
    let ended = ledger.tidy(now, max);
    let active = ledger.active(now)?;
    if let Ok(ended) = &ended {
        call.record_ends(&ended.over, "time-over", "");
        call.record_ends(&ended.made_way, "made-way", &format!("max is {max}"));
    }
    let wanted = offenders(call, &active);
    let bring_in = || Firewall::read()?.bring_in(|version| layout(call, &wanted, version));
    let changed = bring_in().map_err(|error| {
        anyhow!(
            "{}; what is blocked is in the ledger, and the next call brings it into the kernel",
            causes(&error)
        )
    })?;
    // Where it cannot be written down that a block is over, it has ended in the kernel all the same.
    let ended = ended?;
    Ok(Settled { active, changed: changed && ended == Ended::default() })
}

/// What would be brought in, as text for people.
pub(super) fn plan(call: &Call, active: &[Block]) -> anyhow::Result<String> {
    let wanted = offenders(call, active);
    let changes = Firewall::read()?.plan(|version| layout(call, &wanted, version));
    if changes.is_empty() {
        return Ok("The kernel holds all of it already.\n".to_owned());
    }
    let texts = changes.iter().map(|(program, text)| format!("# {program} --noflush --counters\n{text}"));
    Ok(texts.collect::<Vec<_>>().concat())
}

fn layout(call: &Call, wanted: &BTreeSet<Offender>, version: Version) -> Layout {
    strings::layout(wanted, version, &strings::Settings::new(&call.config))
}

fn offenders(call: &Call, blocks: &[Block]) -> BTreeSet<Offender> {
    match call.config.block_mode() {
        Mode::Enforce => blocks.iter().map(|block| block.offender.clone()).collect(),
        Mode::Observe => BTreeSet::new(),
    }
}
