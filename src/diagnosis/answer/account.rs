//! What is known of an account.

use super::super::facts::{Facts, OfAccount};
use super::super::undo::{Act, Undo};
use super::address::closed;
use super::bans::{Held, accounts, held, not_running, ours, unban};
use super::{Check, Closed, Diagnosis, Said, Verdict};
use crate::registrations::devices::Device;

pub(super) fn diagnose(facts: &Facts, of: &OfAccount) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    let (blocks, closed) = accounts(facts);
    let blocked = !closed.is_empty();
    diagnosis.closed = closed;
    diagnosis.checks.push(Check { check: "blocks", ..blocks });
    diagnosis.checks.push(fail2ban(facts));
    if !blocked {
        let loose = held(facts).into_iter().filter(Held::lasts);
        diagnosis.loose = loose.map(|held| unban(facts, &held.jail, &held.id)).collect();
    }
    diagnosis.checks.push(match &of.existence {
        Err(_) => Check::unknown("FusionPBX"),
        Ok(None) => Check::new("FusionPBX", Verdict::Nothing, [Said::new("not on this host")]),
        Ok(Some(existence)) => Check::new("FusionPBX", Verdict::Known, [Said::new(existence.words())]),
    });
    diagnosis.checks.push(registrations(facts, |device| format!("from {}{}", device.address, agent(device))));
    diagnosis.checks.push(failures(of));
    let Addresses { check, closed, doubts } = addresses(of);
    diagnosis.closed.extend(closed);
    diagnosis.doubts = doubts;
    diagnosis.checks.push(check);
    diagnosis
}

fn fail2ban(facts: &Facts) -> Check {
    const CHECK: &str = "fail2ban";
    let bans = held(facts).into_iter().filter(Held::lasts);
    let said = bans.map(|held| {
        let record = held.record;
        Said::new(format!("jail {} has {} among its bans{}", held.jail, held.id, held.times()))
            .since(record.map(|record| record.since))
            .until(record.and_then(|record| record.until))
    });
    let said: Vec<_> = said.collect();
    let judged = if said.is_empty() { Verdict::Nothing } else { Verdict::Known };
    let said = if said.is_empty() { not_running(facts) } else { said };
    Check::new(CHECK, judged, said).in_part(facts.held.is_err() || facts.remembered.is_err())
}

/// Who is registered, each in these words.
pub(super) fn registrations(facts: &Facts, words: impl Fn(&Device) -> String) -> Check {
    const CHECK: &str = "registrations";
    match &facts.devices {
        Err(_) => Check::unknown(CHECK),
        Ok(devices) if devices.is_empty() => Check::new(CHECK, Verdict::Nothing, []),
        Ok(devices) => {
            let said = devices.iter().map(|device| Said::new(words(device)).until(device.until));
            Check::new(CHECK, Verdict::Known, said)
        }
    }
}

/// What a device calls itself, in brackets.
pub(super) fn agent(device: &Device) -> String {
    if device.user_agent.is_empty() { String::new() } else { format!(" ({})", device.user_agent) }
}

/// What is known of whole addresses that it is registered from, or fails from.
struct Addresses {
    check: Check,
    closed: Vec<Closed>,
    /// Why it is not known what becomes of their packets.
    doubts: Vec<String>,
}

fn addresses(of: &OfAccount) -> Addresses {
    const CHECK: &str = "its addresses";
    let (mut said, mut all, mut unknown, mut doubts) = (vec![], vec![], false, vec![]);
    for facts in &of.addresses {
        let diagnosis = Diagnosis::of(facts);
        unknown |= !diagnosis.unread.is_empty() || !diagnosis.doubts.is_empty();
        doubts.extend(diagnosis.doubts.iter().map(|doubt| format!("{}: {doubt}", facts.subject)));
        let whole: Vec<_> = diagnosis.closed.iter().filter(|closed| closed.account.is_none()).collect();
        let (Some(first), Some(of)) = (whole.first(), &facts.of_address) else { continue };
        let address = facts.subject.to_string();
        let argv = ours(&facts.host, "ringfence", ["release", "--", &address]);
        said.push(Said::new(format!("{address} is blocked by {}", first.said.text)));
        all.push(Closed {
            address: Some(of.address),
            reach: first.reach.clone(),
            undo: vec![Undo::new(format!("the address {address} is released"), argv, Act::ByHand)],
            hint: format!("ringfence why {address} says more"),
            ends: first.ends,
            ..closed(first.by, first.said.clone())
        });
    }
    let judged = if all.is_empty() { Verdict::Nothing } else { Verdict::Blocks };
    Addresses { check: Check::new(CHECK, judged, said).in_part(unknown), closed: all, doubts }
}

fn failures(of: &OfAccount) -> Check {
    const CHECK: &str = "failures";
    let failures = match &of.failures {
        Err(_) => return Check::unknown(CHECK),
        Ok(None) => {
            return Check::new(CHECK, Verdict::Nothing, [Said::new("there is no log of ringfence-events")]);
        }
        Ok(Some(failures)) => failures,
    };
    let said = failures.iter().map(|(address, offense)| {
        let why = offense.what.as_ref().map_or("refused", |(_, why)| why.words());
        let agent = if offense.agent.is_empty() { String::new() } else { format!(" ({})", offense.agent) };
        let times = if offense.count == 1 { "once".to_owned() } else { format!("{} times", offense.count) };
        Said::new(format!("{why}, {times} within the last hour, from {address}{agent}"))
    });
    let said: Vec<_> = said.collect();
    Check::new(CHECK, if said.is_empty() { Verdict::Nothing } else { Verdict::Known }, said)
}
