//! `ringfence-block expire`: who need not be blocked any more is let go. Once a minute, by a timer.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::Context;

use super::policy::{look_up, registered};
use super::settle::settle;
use super::{Call, complain};
use crate::account::Offender;
use crate::config::block::Verify;
use crate::deadline::Deadline;
use crate::exit::Exit;
use crate::fail2ban;
use crate::ledger::Block;
use crate::ledger::Ledger;

pub(super) fn run(call: &Call) -> anyhow::Result<Exit> {
    let mut ledger = call.ledger()?;
    // What is over first: it must not wait for a database.
    let active = settle(call, &mut ledger)?;
    let mut exit = Exit::Yes;
    let mut ended = false;
    for (reason, found) in
        [("account-exists", now_known(call, &active)), ("registered", now_registered(call, &active))]
    {
        match found {
            Ok(offenders) => {
                for offender in offenders {
                    let blocks = ledger.remove(offender, None)?;
                    call.record_ends(&blocks, reason, "");
                    ended = true;
                }
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
    let detail = format!("{error:#}; blocks end by their time meanwhile");
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
        let bans = fail2ban::bans(&call.config.fail2ban.database, jail, deadline(call))?;
        if let Some(bans) = bans {
            let bans = bans.iter().filter_map(|id| id.parse().ok()).collect();
            ended.extend(ledger.follow(jail, &bans, call.now())?);
        }
    }
    Ok(ended)
}

/// Accounts blocked everywhere that FusionPBX knows by now.
fn now_known<'a>(call: &Call, active: &'a [Block]) -> anyhow::Result<Vec<&'a Offender>> {
    let unknown: Vec<_> = offenders(active).filter(|offender| offender.source.is_none()).collect();
    if unknown.is_empty() || call.config.block.verify == Verify::None {
        return Ok(vec![]);
    }
    let accounts: Vec<_> = unknown.iter().map(|offender| offender.account.clone()).collect();
    let answers = look_up(call, &accounts, deadline(call))
        .context("cannot ask whether blocked accounts exist by now")?;
    Ok(unknown
        .into_iter()
        .zip(answers)
        .filter(|(_, answer)| answer.is_known())
        .map(|(offender, _)| offender)
        .collect())
}

/// Devices blocked at one address that are registered from there.
fn now_registered<'a>(call: &Call, active: &'a [Block]) -> anyhow::Result<Vec<&'a Offender>> {
    let (failing, devices): (Vec<_>, Vec<_>) = offenders(active)
        .filter_map(|offender| Some((offender, (offender.account.clone(), offender.source?))))
        .unzip();
    if devices.is_empty() {
        return Ok(vec![]);
    }
    let answers = registered(call, &devices, deadline(call))
        .context("cannot ask whether blocked devices are registered by now")?;
    Ok(failing.into_iter().zip(answers).filter(|(_, answer)| *answer).map(|(offender, _)| offender).collect())
}

/// Each once, though two jails may block it.
fn offenders(active: &[Block]) -> impl Iterator<Item = &Offender> {
    let all: BTreeSet<_> = active.iter().map(|block| &block.offender).collect();
    all.into_iter()
}

fn deadline(call: &Call) -> Deadline {
    Deadline::after(Instant::now(), call.config.registrations.deadline.get())
}
