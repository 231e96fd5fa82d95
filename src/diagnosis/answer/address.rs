//! What is known of an address.

use std::fmt;

use super::super::facts::{Facts, InSets, OfAddress, Probe, Walk};
use super::super::undo::{Act, Undo};
use super::account::{agent, registrations};
use super::bans::{accounts, ours};
use super::places::{asks, is_account};
use super::rules::{culprit, place, ports};
use super::{At, By, Check, Closed, Diagnosis, Said, Verdict};
use crate::firewall::native::Refusal;
use crate::firewall::order::PREFIX;
use crate::firewall::path::{End, Path, Verdict as Fate};
use crate::kernel_sets::Role;

mod event_guard;
mod jails;
mod lists;

pub(super) fn diagnose(facts: &Facts, of: &OfAddress) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    let comes = |walk: &Walk| walk.limited.steps.iter().any(|step| step.target.as_deref() == Some(PREFIX));
    let case = Case {
        facts,
        of,
        sets: of.in_sets.as_ref().ok().cloned().unwrap_or_default(),
        ordered: of.walks.iter().flatten().any(comes),
    };
    let (checks, mut closed, loose) = case.fail2ban();
    diagnosis.loose = loose;
    diagnosis.checks = checks;
    let (checks, more) = case.event_guard();
    diagnosis.checks.extend(checks);
    closed.extend(more);
    let (check, more) = case.accounts();
    diagnosis.checks.push(check);
    closed.extend(more);
    diagnosis.checks.push(case.allow_lists());
    diagnosis.checks.push(case.seen());
    diagnosis.checks.push(registrations(facts, |device| format!("{}{}", device.account, agent(device))));
    for part in [Case::block_lists, Case::limits, Case::restrictions] {
        let (check, more) = part(&case);
        closed.extend(more);
        diagnosis.checks.push(check);
    }
    let (checks, mut more) = case.rules(&closed);
    case.left_to_fail2ban(&mut more, &mut diagnosis.loose);
    closed.extend(more);
    diagnosis.checks.extend(checks);
    diagnosis.doubts = case.in_doubt().iter().map(Doubt::to_string).collect();
    let rank = |at: &Option<At>| at.as_ref().map_or(usize::MAX, |at| at.rank);
    diagnosis.checks.sort_by_key(|check| (check.at.is_none(), rank(&check.at)));
    // What a packet meets first is what ends its way; of accounts, only some packets meet anything.
    let first = case.walks().find_map(|walk| culprit(&walk.path)).map(|culprit| culprit.by);
    closed.sort_by_key(|closed| (closed.by == By::Account, Some(closed.by) != first, rank(&closed.at)));
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
    /// Packets of it come to Ringfence's own order of checks.
    ordered: bool,
}

/// Why it is not known what becomes of these packets.
struct Doubt<'a> {
    /// It begins with the place of the rule, if that is one.
    why: &'a str,
    walks: Vec<&'a Walk>,
}

impl fmt::Display for Doubt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = ports(self.walks.iter().copied());
        write!(f, "What becomes of its packets to {ports} cannot be told: {}", self.why)
    }
}

type Found = (Check, Vec<Closed>);

/// What was found, where the packets meet it.
fn placed(at: Option<At>, (check, mut closed): Found) -> Found {
    for closed in &mut closed {
        closed.at.clone_from(&at);
    }
    (check.at(at), closed)
}

pub(super) fn closed(by: By, said: Said) -> Closed {
    Closed {
        by,
        at: None,
        said,
        account: None,
        address: None,
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

    /// Whether packets that a ban is about are dropped, and which of them are not, in words; else what lets them in. Where nobody could
    /// ask, they are.
    fn is_closed(&self, probe: Probe) -> Result<Option<String>, String> {
        let tried: Vec<&Walk> = self.walks().filter(|walk| probe.meets(walk)).collect();
        // Where it cannot be told, the set or chain that it is in counts.
        let (open, closed): (Vec<&Walk>, Vec<&Walk>) =
            tried.iter().partition(|walk| walk.path.verdict.is_accepted());
        match (open.first(), closed.is_empty()) {
            (None, _) => Ok(None),
            (Some(_), false) => Ok(Some(ports(open.into_iter()))),
            (Some(walk), true) => Err(let_in_by(&walk.path)),
        }
    }

    /// Whether this closes some of what is tried by these paths.
    fn closes(&self, by: By, path: impl Fn(&Walk) -> &Path) -> bool {
        self.walks().any(|walk| culprit(path(walk)).is_some_and(|culprit| culprit.by == by))
    }

    /// What is let in by these paths, in words; `None`: nothing.
    fn open(&self, path: impl Fn(&Walk) -> &Path) -> Option<String> {
        let open: Vec<&Walk> = self.walks().filter(|walk| path(walk).verdict.is_accepted()).collect();
        (!open.is_empty()).then(|| ports(open.into_iter()))
    }

    /// Why what is in Ringfence's sets is not in force.
    fn why_not(&self, path: impl Fn(&Walk) -> &Path) -> String {
        match (self.walks().next(), self.paused()) {
            (_, Err(why)) => why,
            _ if !self.facts.host.enforces.rules => "mode is observe".to_owned(),
            (Some(walk), Ok(())) if self.ordered || let_in(path(walk)).is_some() => let_in_by(path(walk)),
            _ => "no rule asks for it; ringfence-firewall apply brings them in".to_owned(),
        }
    }

    /// An error while nothing of Ringfence's blocks anybody.
    fn paused(&self) -> Result<(), String> {
        self.facts.paused.map_or(Ok(()), |_| Err("Ringfence is paused".to_owned()))
    }

    fn accounts(&self) -> Found {
        let at = if self.of.program { Some(At::before_all()) } else { self.of.place(is_account) };
        placed(at, accounts(self.facts))
    }

    /// Where the rules ask whether it is allowed, or was seen.
    fn asks_allowed(&self) -> Option<At> {
        self.of.place(|step| asks(step, Role::Allowed))
    }

    /// Why it is not known what becomes of packets to a port of SIP.
    fn in_doubt(&self) -> Vec<Doubt<'a>> {
        let mut doubts: Vec<Doubt<'a>> = vec![];
        for walk in self.walks().filter(|walk| walk.sip) {
            let Fate::Unknown { why } = &walk.path.verdict else { continue };
            match doubts.iter_mut().find(|doubt| doubt.why == why) {
                Some(doubt) => doubt.walks.push(walk),
                None => doubts.push(Doubt { why, walks: vec![walk] }),
            }
        }
        doubts
    }

    /// Whether Ringfence's rules let it pass before they ask for lists, limits and restrictions.
    fn passes(&self) -> bool {
        self.ordered && (self.sets.allow.is_some() || self.sets.seen.is_some())
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
        let judged = match (said.is_empty(), self.sets.allow.is_some() && self.ordered) {
            (_, true) => Verdict::LetsPass,
            (false, false) => Verdict::Known,
            (true, false) => Verdict::Nothing,
        };
        Check::new(CHECK, judged, said).at(self.asks_allowed())
    }

    fn seen(&self) -> Check {
        const CHECK: &str = "seen";
        match self.sets.seen {
            _ if self.of.in_sets.is_err() => Check::unknown(CHECK),
            None => Check::new(CHECK, Verdict::Nothing, []).at(self.asks_allowed()),
            Some(entry) => {
                let until = entry.left.map(|left| self.facts.now + i64::from(left));
                let judged = if self.ordered { Verdict::LetsPass } else { Verdict::Known };
                let said = Said::new("in the set of addresses seen").until(until);
                Check::new(CHECK, judged, [said]).at(self.asks_allowed())
            }
        }
    }

    /// The address is allowed for a time.
    fn allow(&self) -> Undo {
        let address = self.of.address.to_string();
        let argv = ours(&self.facts.host, "ringfence-allow", ["add", "--for", "1d", "--", &address]);
        Undo::new("allowed for a day, and not banned either meanwhile", argv, Act::Allow)
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

/// What lets a packet in, in words.
fn let_in_by(path: &Path) -> String {
    let_in(path).unwrap_or_else(|| "no rule drops its packets".to_owned())
}

fn let_in(path: &Path) -> Option<String> {
    let Some(End::Rule(step)) = path.verdict.end().filter(|_| path.verdict.is_accepted()) else {
        return None;
    };
    Some(format!("{} lets its packets in before", place(step)))
}

/// What is closed, in words; `None`: all.
fn but(reach: Option<String>, open: Option<String>) -> Option<String> {
    match open {
        None => reach,
        Some(open) => Some(format!("{} but {open}", reach.as_deref().unwrap_or("all ports"))),
    }
}

/// The ports that a rule of nftables closes, in words; `None`: all.
fn reach(refusal: &Refusal) -> Option<String> {
    let range = |(first, last): &(u16, u16)| {
        if first == last { first.to_string() } else { format!("{first}:{last}") }
    };
    let ports = refusal.ports.iter().map(range).collect::<Vec<_>>().join(",");
    match (ports.as_str(), refusal.protocol) {
        ("", None) => None,
        ("", Some(protocol)) => Some(format!("all ports {}", protocol.name())),
        (ports, protocol) => {
            let protocol = protocol.map_or_else(String::new, |protocol| format!(" {}", protocol.name()));
            Some(format!("{ports}{protocol}"))
        }
    }
}

/// Notes a ban: in force, with what is let in all the same, or why not. What one jail has for each protocol is one ban.
fn note(
    state: Result<Option<String>, String>,
    mut text: Said,
    mut block: Closed,
    said: &mut Vec<Said>,
    all: &mut Vec<Closed>,
) {
    match state {
        Ok(open) => {
            block.reach = but(block.reach, open);
            let same = |other: &&mut Closed| other.said.text == block.said.text && other.undo == block.undo;
            match all.iter_mut().find(same) {
                Some(other) => {
                    other.reach = other.reach.take().zip(block.reach).map(|(one, more)| both(&one, &more));
                }
                None => all.push(block),
            }
        }
        Err(why) => text.text = format!("{}; not in force: {why}", text.text),
    }
    said.push(text);
}

/// Either reach, in words; the same ports by two protocols are named once.
fn both(one: &str, other: &str) -> String {
    match (one.rsplit_once(' '), other.rsplit_once(' ')) {
        (Some((ports, protocol)), Some((same, another))) if ports == same && protocol != another => {
            let mut protocols = [protocol, another];
            protocols.sort_unstable();
            format!("{ports} {}", protocols.join(","))
        }
        _ => format!("{one}, {other}"),
    }
}

/// The rule is taken away.
fn delete(rule: &crate::firewall::Banned, whose: &str) -> Undo {
    let what = format!("the rule of {whose} in {} is taken away", rule.chain);
    let undo = Undo::new(what, rule.delete(), Act::Delete(rule.clone()));
    rule.network.map_or(undo.clone(), |network| undo.of_network(network))
}

/// The address is taken out of a set.
fn forget(set: &str, network: ipnetwork::IpNetwork) -> Undo {
    let whom =
        crate::address::single(network).map_or_else(|| network.to_string(), |address| address.to_string());
    let act = Act::Forget { set: set.to_owned(), network };
    Undo::new(format!("out of the set {set}"), ["ipset", "-exist", "del", set, &whom], act)
        .of_network(network)
}
