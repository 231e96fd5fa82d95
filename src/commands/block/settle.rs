//! The kernel holds what the ledger says: looked at and set right by every command.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, anyhow, bail};
use jiff::Timestamp;

use super::{Call, complain};
use crate::account::Offender;
use crate::commands::{causes, dropped, pause};
use crate::config::Mode;
use crate::config::block::MaxBlocks;
use crate::drops::Met;
use crate::firewall::{self, Firewall, Layout, Version, take_turn};
use crate::ledger::{Block, Ended, Ledger, Look};
use crate::matcher::bpf::{self, BroughtIn, Fault, InKernel};
use crate::matcher::{Chosen, Wanted, strings};
use crate::pause::Pause;
use crate::state_file::{self, Durability};

const THE_PROGRAM: &str = "the program that matches accounts";

/// What came of it.
pub(super) struct Settled {
    /// What is blocked now.
    pub(super) active: Vec<Block>,
    /// The kernel held something else, though nothing had ended.
    pub(super) changed: bool,
    pub(super) held: Held,
}

/// How the kernel holds it.
#[derive(Default)]
pub(super) struct Held {
    /// It held something else.
    changed: bool,
    /// By what it is matched; nothing where nobody is blocked.
    pub(super) by: Option<Chosen>,
    /// What is not as it should be, though everybody who is to be blocked somewhere is.
    faults: Vec<String>,
    /// Patterns cannot bear them; the ledger keeps them.
    left_out: BTreeSet<Offender>,
}

impl Held {
    /// Says why it is not the best that could be.
    pub(super) fn complain(&self, call: &Call) {
        let by_settings = match wanted(call) {
            Wanted::Strings(why) => why,
            Wanted::Bpf { .. } => None,
        };
        if let Some(why) = self.fallback().or(by_settings) {
            complain(&format!("accounts are matched by patterns in iptables: {why}"));
        }
        self.complain_of_faults();
    }

    fn complain_of_faults(&self) {
        for fault in &self.faults {
            complain(fault);
        }
    }

    /// Why it is matched by patterns, where the settings left it open.
    fn fallback(&self) -> Option<&str> {
        match &self.by {
            Some(Chosen::InsteadOfBpf(why)) => Some(why),
            _ => None,
        }
    }

    /// What is left of the other matcher does no harm: people are let go there too, where that is possible.
    fn without_the_other(&mut self, removed: anyhow::Result<bool>, cannot: &str) {
        match removed {
            Ok(removed) => self.changed |= removed,
            Err(error) => self.faults.push(format!("{cannot}: {}", causes(&error))),
        }
    }

    /// Leaves evidence of the same, when it is another than at the last call where somebody was blocked.
    fn record(&self, call: &Call) {
        let path = call.config.run_dir.join("matcher");
        let faults = self.faults.iter().map(String::as_str);
        let said = self.fallback().into_iter().chain(faults).collect::<Vec<_>>().join("; ");
        let before = state_file::read_regular(&path, 1 << 16).unwrap_or_default();
        if before == said.as_bytes() {
            return;
        }
        let written = match said.as_str() {
            "" => fs::remove_file(&path),
            said => state_file::replace(&path, said.as_bytes(), Durability::Volatile),
        };
        // What cannot be written down is said again.
        let _ = written;
        if self.fallback().is_some() {
            call.record("blocks", "match by strings", "no-bpf", "matcher", &said);
        } else if !said.is_empty() {
            call.record("blocks", "match", "matcher-fault", "matcher", &said);
        }
    }
}

/// Ends what is over or too much, and brings the rest into the kernel where it is not there as it should be.
pub(super) fn settle(call: &Call, ledger: &mut Ledger) -> anyhow::Result<Settled> {
    let _turn = take_turn(&call.config.run_dir)
        .context("what is to be done is in the ledger, and the next call does it")?;
    // Who waited for his turn does not undo what another wrote meanwhile: neither what he knew nor when he came counts any more.
    let clock = Timestamp::now();
    let now = clock.as_second();
    let ended = tidy(call, ledger, call.max(), now);
    let active = ledger.active(now)?;
    let mut met = Met::default();
    let held = hold(call, &active, clock, &mut met);
    // What was met of those who are gone is nowhere else, whatever failed then.
    say_of_count(call, dropped::by_map(&call.config, met));
    let held = held.map_err(|error| {
        anyhow!(
            "{}; what is blocked is in the ledger, and the next call brings it into the kernel",
            causes(&error)
        )
    })?;
    if !active.is_empty() {
        held.record(call);
    }
    // Where it cannot be written down that a block is over, it has ended in the kernel all the same.
    let ended = ended?;
    Ok(Settled { active, changed: held.changed && ended == Ended::default(), held })
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
    let Settled { active, held, .. } = settle(call, ledger)?;
    held.complain_of_faults();
    Ok(active.iter().any(|block| block.offender == *offender) && !held.left_out.contains(offender))
}

/// `None` if more is to be done than that.
fn settle_in_map(call: &Call, ledger: &mut Ledger, offender: &Offender) -> anyhow::Result<Option<bool>> {
    let possible = call.config.block_mode() == Mode::Enforce && !matches!(wanted(call), Wanted::Strings(_));
    if !possible || call.begun_anew.get() || !bpf::is_there() {
        return Ok(None);
    }
    let _turn = take_turn(&call.config.run_dir)
        .context("what is to be done is in the ledger, and the next call does it")?;
    let Ok(Some(mut there)) = InKernel::ready(&program(call), Timestamp::now()) else {
        return Ok(None);
    };
    if !ledger.blocks_somebody(Timestamp::now().as_second())? {
        return Ok(None);
    }
    let settled = settle_there(call, ledger, offender, &mut there);
    say_of_count(call, dropped::by_map(&call.config, there.met()));
    settled.map(Some)
}

/// In this map; whether he is blocked now.
fn settle_there(
    call: &Call,
    ledger: &mut Ledger,
    offender: &Offender,
    there: &mut InKernel,
) -> anyhow::Result<bool> {
    let (clock, max) = (Timestamp::now(), call.max());
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
    Ok(until.is_some())
}

/// What the program goes by. Only who has the turn may ask.
fn program(call: &Call) -> bpf::Settings {
    bpf::Settings::new(&call.config).paused(pause::now(&call.config).until())
}

fn wanted(call: &Call) -> Wanted {
    Wanted::new(&call.config)
}

/// Makes the kernel hold these, and by the other matcher nothing. What the map of the program dropped comes to `met`.
fn hold(call: &Call, active: &[Block], now: Timestamp, met: &mut Met) -> anyhow::Result<Held> {
    let until = until(active);
    if active.is_empty() || call.config.block_mode() == Mode::Observe {
        // Each by itself; and who can still be let go is, before a program that cannot be removed.
        let let_go = bpf::hold(&HashMap::new(), now, met);
        let (removed, rules) = (bpf::remove(), without_rules(call));
        let changed = removed? | rules?;
        let_go?;
        return Ok(Held { changed, ..Held::default() });
    }
    match call.expected() {
        by @ (Chosen::Strings | Chosen::InsteadOfBpf(_)) => by_strings(call, active, by, met),
        Chosen::Bpf => match bpf::bring_in(&program(call), &call.config.run_dir, &until, now, met) {
            Ok(BroughtIn { changed, faults }) => {
                let mut held = Held { changed, by: Some(Chosen::Bpf), ..Held::default() };
                held.faults.extend(faults.iter().map(|fault| format!("{THE_PROGRAM}: {fault}")));
                held.without_the_other(without_rules(call), "rules for accounts cannot be taken away");
                Ok(held)
            }
            Err(Fault::Impossible(why) | Fault::Denied(why)) => {
                if wanted(call) != (Wanted::Bpf { or_strings: true }) {
                    bail!("{THE_PROGRAM} (matcher is bpf): {why}");
                }
                by_strings(call, active, Chosen::InsteadOfBpf(why), met)
            }
            Err(Fault::Failed(error)) => Err(error.context(THE_PROGRAM)),
        },
    }
}

/// By rules. Where the program cannot be had, they are for the newest blocks that rules can bear, and why is said.
fn by_strings(call: &Call, active: &[Block], by: Chosen, met: &mut Met) -> anyhow::Result<Held> {
    // Who is let go does not wait for iptables; what fails there goes with the program.
    let _ = bpf::hold(&until(active), Timestamp::now(), met);
    let mut wanted = offenders(call, active);
    let mut left_out = BTreeSet::new();
    if let Chosen::InsteadOfBpf(_) = by {
        let newest = newest(active, call.max().min(MaxBlocks::STRINGS.get()));
        (wanted, left_out) = wanted.into_iter().partition(|offender| newest.contains(offender));
    }
    let pause = pause::now(&call.config);
    let changed = read_rules(call)?.bring_in(pause, |version| layout(call, &wanted, version))?;
    let mut held = Held { changed, by: Some(by), left_out, faults: vec![] };
    held.without_the_other(bpf::remove(), &format!("{THE_PROGRAM} cannot be taken away"));
    Ok(held)
}

/// Who was blocked last of those whom rules can match, of blocks in order.
fn newest(active: &[Block], most: u32) -> BTreeSet<&Offender> {
    let mut newest = BTreeSet::new();
    let matched = |block: &&Block| strings::check(&block.offender.account).is_ok();
    for block in active.iter().rev().filter(matched) {
        if newest.len() == most as usize {
            break;
        }
        newest.insert(&block.offender);
    }
    newest
}

/// Takes away our rules; whether there were some. Who is to have none needs no iptables.
fn without_rules(call: &Call) -> anyhow::Result<bool> {
    if !matches!(wanted(call), Wanted::Strings(_)) && !firewall::is_installed() {
        return Ok(false);
    }
    read_rules(call)?.bring_in(Pause::Not, |_| Layout::nothing(strings::PREFIX))
}

/// What is there; what ours have dropped is written down. Only who has the turn may.
fn read_rules(call: &Call) -> anyhow::Result<Firewall> {
    let there = Firewall::read()?;
    let why = strings::drops(&strings::Settings::new(&call.config));
    say_of_count(call, dropped::by_rules(&call.config, &there, &why, Mode::Enforce));
    Ok(there)
}

/// Who blocks or lets go has other things to say.
fn say_of_count(call: &Call, fault: Option<String>) {
    if let Some(fault) = fault.filter(|_| call.look == Look::Whole) {
        complain(&fault);
    }
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
    let mut wanted = offenders(call, active);
    if *call.chosen() == Chosen::Bpf {
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
    if matches!(call.chosen(), Chosen::InsteadOfBpf(_)) {
        let newest = newest(active, call.most_in_kernel());
        wanted.retain(|offender| newest.contains(offender));
    }
    let changes = Firewall::read()?.plan(pause::look(&call.config), |version| layout(call, &wanted, version));
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
