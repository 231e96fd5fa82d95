//! What is known of an address.

use super::super::facts::{Facts, InSets, OfAddress, Walk};
use super::super::undo::{Act, Undo};
use super::account::{agent, registrations};
use super::bans::{accounts, ours};
use super::rules::culprit;
use super::{By, Check, Closed, Diagnosis, Said, Verdict};
use crate::firewall::path::{End, Protocol};

mod event_guard;
mod jails;
mod lists;

pub(super) fn diagnose(facts: &Facts, of: &OfAddress) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    let case = Case { facts, of, sets: of.in_sets.as_ref().ok().cloned().unwrap_or_default() };
    let (check, mut closed, loose) = case.fail2ban();
    diagnosis.loose = loose;
    diagnosis.checks.push(check);
    for part in [Case::event_guard, Case::accounts] {
        let (check, more) = part(&case);
        closed.extend(more);
        diagnosis.checks.push(check);
    }
    diagnosis.checks.push(case.allow_lists());
    diagnosis.checks.push(case.seen());
    diagnosis.checks.push(registrations(facts, |device| format!("{}{}", device.account, agent(device))));
    for part in [Case::block_lists, Case::limits, Case::restrictions, Case::rules] {
        let (check, more) = part(&case);
        closed.extend(more);
        diagnosis.checks.push(check);
    }
    // What a packet meets first is what ends its way; of accounts, only some packets meet anything.
    let first = case.walks().find_map(|walk| culprit(&walk.path)).map(|culprit| culprit.by);
    closed.sort_by_key(|closed| (closed.by == By::Account, Some(closed.by) != first));
    let blocked = closed.iter().any(|closed| closed.account.is_none());
    diagnosis.closed = closed;
    if !blocked {
        diagnosis.despite = case.despite();
    }
    diagnosis
}

struct Case<'a> {
    facts: &'a Facts,
    of: &'a OfAddress,
    sets: InSets,
}

type Found = (Check, Vec<Closed>);

fn closed(by: By, said: Said) -> Closed {
    Closed {
        by,
        said,
        account: None,
        reach: None,
        ends: None,
        why: String::new(),
        lines: vec![],
        undo: vec![],
        hint: String::new(),
    }
}

fn verdict(said: &[Said], closed: &[Closed]) -> Verdict {
    match (said.is_empty(), closed.is_empty()) {
        (_, false) => Verdict::Blocks,
        (false, true) => Verdict::WouldBlock,
        (true, true) => Verdict::Nothing,
    }
}

impl<'a> Case<'a> {
    fn walks(&self) -> impl Iterator<Item = &'a Walk> {
        self.of.walks.as_deref().unwrap_or_default().iter()
    }

    /// Whether packets to this port are dropped, and if not, what lets them in; where nobody could ask, they are.
    fn is_closed(&self, (protocol, port): (Protocol, u16)) -> Result<(), String> {
        let Some(walk) = self.walks().find(|walk| (walk.protocol, walk.port) == (protocol, port)) else {
            return Ok(());
        };
        match walk.path.verdict.end() {
            // Where it cannot be told, the set or chain that it is in counts.
            _ if !walk.path.verdict.is_accepted() => Ok(()),
            Some(End::Rule(step)) => Err(format!(
                "rule {} of {} ({}) lets its packets in before",
                step.number, step.chain, step.program
            )),
            Some(End::Policy { .. }) | None => Err("no rule drops its packets".to_owned()),
        }
    }

    fn accounts(&self) -> Found {
        accounts(self.facts)
    }

    /// Whether Ringfence's rules let it pass before they ask for lists, limits and restrictions.
    fn passes(&self) -> bool {
        self.of.ordered && (self.sets.allow.is_some() || self.sets.seen.is_some())
    }

    fn allow_lists(&self) -> Check {
        const CHECK: &str = "allow lists";
        let Ok(allowed) = &self.of.allowed else { return Check::unknown(CHECK) };
        let said: Vec<_> = allowed
            .iter()
            .map(|allowed| {
                let because =
                    if allowed.because.is_empty() { String::new() } else { format!(": {}", allowed.because) };
                Said::new(format!("{} as {}{because}", allowed.by, allowed.range)).until(allowed.until)
            })
            .collect();
        let judged = match (said.is_empty(), self.sets.allow.is_some() && self.of.ordered) {
            (_, true) => Verdict::LetsPass,
            (false, false) => Verdict::Known,
            (true, false) => Verdict::Nothing,
        };
        Check::new(CHECK, judged, said)
    }

    fn seen(&self) -> Check {
        const CHECK: &str = "seen";
        match self.sets.seen {
            _ if self.of.in_sets.is_err() => Check::unknown(CHECK),
            None => Check::new(CHECK, Verdict::Nothing, []),
            Some(entry) => {
                let until = entry.left.map(|left| self.facts.now + i64::from(left));
                let judged = if self.of.ordered { Verdict::LetsPass } else { Verdict::Known };
                Check::new(CHECK, judged, [Said::new("in the set of addresses seen").until(until)])
            }
        }
    }

    /// The address is allowed for a time.
    fn allow(&self) -> Undo {
        let address = self.of.address.to_string();
        let argv = ours(&self.facts.host, "ringfence-allow", ["add", "--for", "1d", "--", &address]);
        Undo::new("allowed for a day", argv, Act::Allow)
    }

    /// Why it is not blocked, where one may think that it is.
    fn despite(&self) -> Vec<Said> {
        let mut said = vec![];
        if let Ok((listed, because)) = &self.of.listed
            && let Some(one) = listed.first()
        {
            let why = match because {
                Some(because) => format!("was cut out of it: {because}"),
                None if self.sets.allow.is_some() => "an allow list comes first".to_owned(),
                None if self.sets.seen.is_some() => {
                    "it is allowed, or was seen registered, and that comes first".to_owned()
                }
                None => "that is not in force".to_owned(),
            };
            said.push(Said::new(format!("It is on the block list {}, but {why}", one.list)));
        }
        if self.passes() && self.sets.slamming.is_some() {
            said.push(Said::new(
                "It exceeded a limit, but is allowed, or was seen registered, and that comes first",
            ));
        }
        said
    }
}

/// Notes a ban: in force, or why not.
fn note(
    state: Result<(), String>,
    mut text: Said,
    block: Closed,
    said: &mut Vec<Said>,
    all: &mut Vec<Closed>,
) {
    match state {
        Ok(()) => all.push(block),
        Err(why) => text.text = format!("{}; not in force: {why}", text.text),
    }
    said.push(text);
}

/// The rule is taken away.
fn delete(rule: &crate::firewall::Banned, whose: &str) -> Undo {
    let what = format!("the rule of {whose} in {} is taken away", rule.chain);
    Undo::new(what, rule.delete(), Act::Delete(rule.clone()))
}

/// The address is taken out of a set.
fn forget(set: &str, network: ipnetwork::IpNetwork) -> Undo {
    let whom =
        crate::address::single(network).map_or_else(|| network.to_string(), |address| address.to_string());
    let act = Act::Forget { set: set.to_owned(), network };
    Undo::new(format!("out of the set {set}"), ["ipset", "-exist", "del", set, &whom], act)
}
