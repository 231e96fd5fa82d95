//! The kernel holds what the ledger says: looked at and set right by every command.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use anyhow::{Context, anyhow};
use jiff::Timestamp;

use super::Call;
use crate::account::Offender;
use crate::commands::causes;
use crate::config::Mode;
use crate::firewall::{self, Firewall, Layout, Version, take_turn};
use crate::ledger::{Block, Ended, Ledger};
use crate::matcher::bpf::{self, InKernel};
use crate::matcher::{Kind, strings};

/// What came of it.
pub(super) struct Settled {
    /// What is blocked now.
    pub(super) active: Vec<Block>,
    /// The kernel held something else, though nothing had ended.
    pub(super) changed: bool,
    /// Why it is matched by patterns, where the settings left it open.
    pub(super) fallback: Option<String>,
}

/// Ends what is over or too much, and brings the rest into the kernel where it is not there as it should be.
pub(super) fn settle(call: &Call, ledger: &mut Ledger) -> anyhow::Result<Settled> {
    let _turn = take_turn(&call.config.run_dir)
        .context("what is to be done is in the ledger, and the next call does it")?;
    // Who waited for his turn does not undo what another wrote meanwhile: neither what he knew nor when he came counts any more.
    let clock = Timestamp::now();
    let now = clock.as_second();
    let ready = Ready::new(call, !ledger.blocks_somebody(now)?)?;
    let max = call.max(ready.kind());
    let ended = tidy(call, ledger, max, now);
    let active = ledger.active(now)?;
    let (changed, fallback) = ready.hold(call, &active, clock).map_err(|error| {
        anyhow!(
            "{}; what is blocked is in the ledger, and the next call brings it into the kernel",
            causes(&error)
        )
    })?;
    // Where it cannot be written down that a block is over, it has ended in the kernel all the same.
    let ended = ended?;
    Ok(Settled { active, changed: changed && ended == Ended::default(), fallback })
}

/// Ends what is over or too much in the ledger.
fn tidy(call: &Call, ledger: &mut Ledger, max: u32, now: i64) -> anyhow::Result<Ended> {
    let ended = ledger.tidy(now, max)?;
    call.record_ends(&ended.over, "time-over", "");
    call.record_ends(&ended.made_way, "made-way", &format!("max is {max}"));
    Ok(ended)
}

/// The same after a change of one offender's blocks alone; whether he is blocked now. A map takes one entry, whatever it holds; what
/// else may have to be done is left to [`settle`], by the timer.
pub(super) fn settle_one(call: &Call, ledger: &mut Ledger, offender: &Offender) -> anyhow::Result<bool> {
    if let Some(blocked) = settle_in_map(call, ledger, offender)? {
        return Ok(blocked);
    }
    let active = settle(call, ledger)?.active;
    Ok(active.iter().any(|block| block.offender == *offender))
}

/// `None` if more is to be done than that.
fn settle_in_map(call: &Call, ledger: &mut Ledger, offender: &Offender) -> anyhow::Result<Option<bool>> {
    let possible = call.config.block_mode() == Mode::Enforce && Kind::wanted(&call.config).0 == Kind::Bpf;
    if !possible || !bpf::is_there() {
        return Ok(None);
    }
    let _turn = take_turn(&call.config.run_dir)
        .context("what is to be done is in the ledger, and the next call does it")?;
    let Ok(Some(mut there)) = InKernel::ready(&bpf::Settings::new(&call.config)) else {
        return Ok(None);
    };
    let (clock, max) = (Timestamp::now(), call.max(Kind::Bpf));
    if !ledger.blocks_somebody(clock.as_second())? {
        return Ok(None);
    }
    // First what goes: there must be room for what comes.
    if !ledger.has_room(max)? {
        for Block { offender, .. } in tidy(call, ledger, max, clock.as_second())?.made_way {
            there.release(&offender)?;
        }
    }
    let until = ledger.until(offender, clock.as_second())?;
    match until {
        Some(until) => there.block(offender, until, clock)?,
        None => there.release(offender)?,
    }
    Ok(Some(until.is_some()))
}

/// What matches packets, and is there.
enum Ready {
    /// The program, and whether it was not there as it should be.
    Bpf(Box<InKernel>, bool),
    /// Patterns, and why.
    Strings(Option<String>),
    /// Nobody is blocked, and nothing needs to be there.
    Nothing,
}

impl Ready {
    fn new(call: &Call, nobody: bool) -> anyhow::Result<Self> {
        if nobody || call.config.block_mode() == Mode::Observe {
            return Ok(Self::Nothing);
        }
        if let (Kind::Strings, why) = Kind::wanted(&call.config) {
            return Ok(Self::Strings(why));
        }
        match InKernel::bring_up(&bpf::Settings::new(&call.config)) {
            Ok((there, changed)) => Ok(Self::Bpf(Box::new(there), changed)),
            Err(error) if Kind::is_open(&call.config) => {
                let why = causes(&error);
                call.record("blocks", "match by strings", "no-bpf", "matcher", &why);
                Ok(Self::Strings(Some(why)))
            }
            Err(error) => Err(error.context("the program that matches accounts (matcher is bpf)")),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Bpf(..) | Self::Nothing => Kind::Bpf,
            Self::Strings(_) => Kind::Strings,
        }
    }

    /// Makes the kernel hold these, and by the other matcher nothing; whether it held something else.
    fn hold(self, call: &Call, active: &[Block], now: Timestamp) -> anyhow::Result<(bool, Option<String>)> {
        match self {
            Self::Bpf(mut there, changed) => {
                let changed = there.hold(&until(active), now)? || changed;
                Ok((without_rules(call)? || changed, None))
            }
            Self::Strings(why) => {
                let wanted = offenders(call, active);
                let changed = Firewall::read()?.bring_in(|version| layout(call, &wanted, version))?;
                Ok((bpf::remove()? || changed, why))
            }
            Self::Nothing => {
                let removed = bpf::remove()?;
                Ok((without_rules(call)? || removed, None))
            }
        }
    }
}

/// Takes away our rules; whether there were some. Who is to have none needs no iptables.
fn without_rules(call: &Call) -> anyhow::Result<bool> {
    if Kind::wanted(&call.config).0 == Kind::Bpf && !firewall::is_installed() {
        return Ok(false);
    }
    Firewall::read()?.bring_in(|_| Layout::nothing(strings::PREFIX))
}

/// Until when each is blocked, of several blocks the longest.
fn until(active: &[Block]) -> bpf::Blocks<'_> {
    let mut all = HashMap::with_capacity(active.len());
    for Block { offender, until, .. } in active {
        let longest = all.entry(offender).or_insert(*until);
        *longest = (*longest).max(*until);
    }
    all
}

/// What would be brought in, as text for people.
pub(super) fn plan(call: &Call, active: &[Block]) -> anyhow::Result<String> {
    const ALL: &str = "The kernel holds all of it already.\n";
    let wanted = offenders(call, active);
    if Kind::wanted(&call.config).0 == Kind::Bpf {
        let there = InKernel::open()?;
        let mut text = String::new();
        for offender in wanted {
            if there.as_ref().map(|there| there.hits(&offender)).transpose()?.flatten().is_none() {
                let _ = writeln!(text, "block {offender}");
            }
        }
        return Ok(if text.is_empty() {
            ALL.to_owned()
        } else {
            format!("# the program in the kernel\n{text}")
        });
    }
    let changes = Firewall::read()?.plan(|version| layout(call, &wanted, version));
    if changes.is_empty() {
        return Ok(ALL.to_owned());
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
