//! `ringfence-block expire`: who need not be blocked any more is let go. Once a minute, by a timer.

use std::collections::BTreeSet;

use anyhow::Context;

use super::jail::bans;
use super::policy::{look_up, registered};
use super::settle::{Settled, settle};
use super::{Call, complain};
use crate::account::Offender;
use crate::commands::causes;
use crate::config::block::Verify;
use crate::exit::Exit;
use crate::fusionpbx::accounts::Existence;
use crate::ledger::Block;
use crate::ledger::Ledger;
use crate::registrations::discovery::Nothing;

pub(super) fn run(call: &Call) -> anyhow::Result<Exit> {
    let mut ledger = call.ledger()?;
    // What is over first: it must not wait for a database.
    let Settled { active, changed, .. } = settle(call, &mut ledger)?;
    if changed {
        call.record(
            "blocks",
            "restore",
            "rules-repaired",
            "kernel",
            "the kernel did not hold what the ledger says",
        );
    }
    let mut exit = Exit::Yes;
    let mut ended = false;
    for (reason, found) in
        [("account-exists", now_known(call, &active)), ("registered", now_registered(call, &active))]
    {
        match found {
            Ok(offenders) => {
                let blocks = ledger.remove(&offenders, None)?;
                for offender in offenders.iter().filter(|offender| offender.source.is_none()) {
                    // What FusionPBX said a moment ago is no longer true.
                    ledger.remember(&offender.account, Existence::Exists.name(), call.now())?;
                }
                call.record_ends(&blocks, reason, "");
                ended |= !blocks.is_empty();
            }
            Err(error) => {
                exit = cannot(call, &error);
            }
        }
    }
    match let_go_by_fail2ban(call, &mut ledger) {
        Ok(blocks) => {
            ended |= !blocks.is_empty();
            call.record_ends(&blocks, "unbanned", "fail2ban no longer bans it");
        }
        Err(error) => {
            exit = cannot(call, &error);
        }
    }
    if ended {
        settle(call, &mut ledger)?;
    }
    Ok(exit)
}

/// Says what could not be found out: nobody is let go for it, and nobody stays blocked for longer.
fn cannot(call: &Call, error: &anyhow::Error) -> Exit {
    let detail = format!("{}; blocks end by their time meanwhile", causes(error));
    complain(&detail);
    call.record("blocks", "keep", "blocks-unchecked", "expire", &detail);
    Exit::No
}

/// Blocks whose jail no longer bans them. fail2ban does not call our action when a ban is lifted that it has restored at its
/// start, until it has made a new one (1.0.2; its issue 3990 for later ones).
fn let_go_by_fail2ban(call: &Call, ledger: &mut Ledger) -> anyhow::Result<Vec<Block>> {
    let blocks = ledger.active(call.now())?;
    let jails: BTreeSet<_> = blocks.iter().map(|block| &block.jail).filter(|jail| !jail.is_empty()).collect();
    let mut ended = vec![];
    for jail in jails {
        if let Some(bans) = bans(call, jail)? {
            ended.extend(ledger.follow(jail, &bans, call.now())?);
        }
    }
    Ok(ended)
}

/// Accounts blocked everywhere that FusionPBX knows by now.
fn now_known(call: &Call, active: &[Block]) -> anyhow::Result<Vec<Offender>> {
    let unknown: Vec<_> = offenders(active).filter(|offender| offender.source.is_none()).collect();
    if unknown.is_empty() || call.config.block.verify == Verify::None {
        return Ok(vec![]);
    }
    let accounts: Vec<_> = unknown.iter().map(|offender| offender.account.clone()).collect();
    let answers = look_up(call, &accounts).context("cannot ask whether blocked accounts exist by now")?;
    Ok(unknown
        .into_iter()
        .zip(answers)
        .filter(|(_, answer)| answer.is_known())
        .map(|(offender, _)| offender.clone())
        .collect())
}

/// Devices that are registered from where they are blocked by now, and accounts that are registered anywhere.
fn now_registered(call: &Call, active: &[Block]) -> anyhow::Result<Vec<Offender>> {
    let blocked: Vec<Offender> = offenders(active).cloned().collect();
    if blocked.is_empty() {
        return Ok(vec![]);
    }
    let answers = match registered(call, &blocked) {
        // No FreeSWITCH is on this host: nobody is registered, and there is nobody to ask.
        Err(error) if error.is::<Nothing>() && blocked.iter().all(|offender| offender.source.is_none()) => {
            return Ok(vec![]);
        }
        answers => answers.context("cannot ask who of the blocked is registered by now")?,
    };
    Ok(blocked
        .into_iter()
        .zip(answers)
        .filter(|(_, registered)| *registered)
        .map(|(offender, _)| offender)
        .collect())
}

/// Each once, though two jails may block it.
fn offenders(active: &[Block]) -> impl Iterator<Item = &Offender> {
    let all: BTreeSet<_> = active.iter().map(|block| &block.offender).collect();
    all.into_iter()
}
