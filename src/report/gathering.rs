//! What a [`Report`] says is added up.
//!
//! Failures first, then the journal, then fail2ban's database: of one tenant, only those addresses are told from which
//! accounts of his failed. Logs of any length need a bounded memory.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use jiff::{SignedDuration, Timestamp};

use super::axis::Axis;
use super::dropped::Dropped;
use super::{
    Column, Country, Counts, Event, Exempt, Kept, Kind, List, Reason, Report, Reversal, Reversed, Standing,
};
use crate::account;
use crate::config::lists::Kind as ListKind;
use crate::config::{ListName, span_of};
use crate::evidence::past::Past;
use crate::evidence::visible;
use crate::fail2ban::past::Former;
use crate::failures::Failure;
use crate::failures::tally::Tally;
use crate::feeds::copy::Copy;

/// So many addresses of one kind are told apart. The journal, being bounded, has not many more.
const MAX_ADDRESSES: usize = 200_000;

/// So many names of jails and lists are told apart.
const MAX_NAMES: usize = 500;

/// A ban is the same in the journal and in fail2ban's database if their times are no further apart, in seconds: fail2ban's is
/// that of the last failure.
const SAME: i64 = 600;

/// A ban that ends so many seconds before its time ended early.
const EARLY: i64 = 90;

/// A release of everything takes no longer.
const RELEASING: SignedDuration = SignedDuration::from_mins(1);

/// So many of the latest reversals are told one by one.
const LATEST: usize = 12;

/// So many exempt addresses are told, of so many that fail most.
const OFFENDERS: usize = 10;
const LOOKED_AT: usize = 200;
/// Who is blocked.
#[derive(Clone, Copy)]
enum Whom {
    Address(IpNetwork),
    /// An account or a device, by the hash of its name.
    Named(u64),
}

/// What is added up.
#[derive(Debug)]
pub struct Gathering {
    since: Timestamp,
    until: Timestamp,
    domain: Option<String>,
    axis: Axis,
    hasher: RandomState,
    columns: Vec<Counts>,
    blocks: Counts,
    observed: u64,
    reasons: HashMap<(Kind, String), u64>,
    /// The different addresses, and whether a country's list has them.
    blocked: HashMap<IpNetwork, bool>,
    /// The different accounts and devices.
    blocked_names: HashSet<u64>,
    /// How many there are of each kind.
    different: Counts,
    countries: BTreeMap<String, u64>,
    has_countries: bool,
    lists: Vec<List>,
    /// What the journal says of jails' bans: whose, and when.
    journaled: BTreeSet<(u64, i64)>,
    /// When bans end that began.
    ends: HashMap<u64, i64>,
    /// Jails whose bans allow.
    allowing: HashSet<String>,
    tally: Tally,
    failures: u64,
    /// Where accounts of the tenant failed.
    of_tenant: HashSet<IpAddr>,
    kept: Kept,
    kept_addresses: HashMap<IpAddr, Standing>,
    kept_by_list: HashMap<String, u64>,
    refused_lists: HashMap<String, u64>,
    reversals: BTreeMap<Reversal, u64>,
    latest: VecDeque<Event>,
    dropped: Option<Dropped>,
}
impl Gathering {
    /// Of this time, in columns of `axis`; of one tenant's if he is named.
    #[must_use]
    pub fn new(since: Timestamp, until: Timestamp, axis: Axis, domain: Option<&str>) -> Self {
        Self {
            since,
            until,
            domain: domain.map(str::to_ascii_lowercase),
            columns: vec![Counts::default(); axis.count()],
            axis,
            hasher: RandomState::new(),
            blocks: Counts::default(),
            observed: 0,
            reasons: HashMap::new(),
            blocked: HashMap::new(),
            blocked_names: HashSet::new(),
            different: Counts::default(),
            countries: BTreeMap::new(),
            has_countries: false,
            lists: vec![],
            journaled: BTreeSet::new(),
            ends: HashMap::new(),
            allowing: HashSet::new(),
            tally: Tally::default(),
            failures: 0,
            of_tenant: HashSet::new(),
            kept: Kept::default(),
            kept_addresses: HashMap::new(),
            kept_by_list: HashMap::new(),
            refused_lists: HashMap::new(),
            reversals: BTreeMap::new(),
            latest: VecDeque::new(),
            dropped: None,
        }
    }

    /// What the kernel dropped; whose accounts that were, it does not know.
    pub fn dropped(&mut self, dropped: Dropped) {
        self.dropped = self.domain.is_none().then_some(dropped);
    }

    /// Adds what failed.
    pub fn failure(&mut self, failure: Failure) {
        let of_tenant = |domain: &String| failure.account.domain.eq_ignore_ascii_case(domain);
        if !self.has(failure.time) || !self.domain.as_ref().is_none_or(of_tenant) {
            return;
        }
        if self.domain.is_some() && self.of_tenant.len() < MAX_ADDRESSES {
            self.of_tenant.insert(failure.address);
        }
        self.failures += 1;
        if failure.excused {
            *self.reversals.entry(Reversal::Excused).or_default() += 1;
        }
        self.tally.add(failure);
    }

    /// Adds a decision of the journal's, roughly in the order of their times.
    pub fn decision(&mut self, past: &Past) {
        let Past { when, decision, count } = past;
        let count = u64::from(*count);
        if !self.has(*when) {
            return;
        }
        self.note_jail(past);
        if !self.concerns(&decision.subject) {
            return;
        }
        if let Some((kind, name)) = block(past) {
            if decision.mode.is_empty() {
                let address = subject_network(&decision.subject).filter(|_| kind == Kind::Address);
                let named = || Whom::Named(self.hasher.hash_one((kind, &decision.subject)));
                let whom = address.map_or_else(named, Whom::Address);
                self.block(*when, kind, name, whom, count);
            } else {
                self.observed += count;
            }
            return;
        }
        if !decision.mode.is_empty() {
            return;
        }
        match (decision.tool.as_str(), decision.decision.as_str(), decision.reason.as_str()) {
            ("ringfence-ignore", "keep", reason) => {
                self.keep(&decision.subject, reason, &decision.detail, count);
            }
            ("ringfence-lists", "refuse", "list-refused") => {
                add(&mut self.refused_lists, decision.subject.clone(), count);
            }
            _ => {}
        }
        let early = || self.ended_early(past).then_some(Reversal::LetGoEarly);
        if let Some(how) = Reversal::of(decision).or_else(early) {
            self.reverse(Event { when: *when, subject: visible(&decision.subject), how }, count);
        }
        if is_unban(past) {
            self.ends.remove(&self.key(past));
        }
    }

    /// Adds a ban that fail2ban remembers, unless the journal has it. Accounts are not what fail2ban blocks.
    pub fn ban(&mut self, ban: &Former) {
        let Ok(when) = Timestamp::from_second(ban.since) else { return };
        let Some(network) = subject_network(&ban.id) else { return };
        if !self.has(when) || self.allowing.contains(&ban.jail) || !self.concerns(&ban.id) {
            return;
        }
        let key = self.hasher.hash_one((ban.jail.as_str(), ban.id.as_str()));
        let around = (key, ban.since - SAME)..=(key, ban.since + SAME);
        if self.journaled.range(around).next().is_none() {
            self.block(when, Kind::Address, ban.jail.clone(), Whom::Address(network), 1);
        }
    }

    /// Adds a list and its last good copy, after all that was blocked. In what is for a tenant there are no allow lists.
    pub fn list(&mut self, name: &ListName, kind: ListKind, country: Option<&str>, copy: Option<&Copy>) {
        let is_for_all = self.domain.is_none();
        self.has_countries |= country.is_some() && copy.is_some();
        let mut on_it = 0;
        if let Some(copy) = copy {
            for (network, placed) in &mut self.blocked {
                if copy.find(network.ip()).is_some() {
                    on_it += 1;
                    if let Some(country) = country.filter(|_| !*placed) {
                        *placed = true;
                        *self.countries.entry(country.to_ascii_uppercase()).or_default() += 1;
                    }
                }
            }
        }
        if !is_for_all && (kind == ListKind::Allow || on_it == 0) {
            return;
        }
        self.lists.push(List {
            name: name.clone(),
            kind,
            country: country.map(str::to_ascii_uppercase),
            networks: copy.map(|copy| copy.set().count_networks().map(|count| count as u64).iter().sum()),
            changed: copy.and_then(|copy| Timestamp::from_second(copy.changed.into()).ok()),
            blocked: on_it,
            kept: self.kept_by_list.get(name.as_str()).copied().unwrap_or(0),
            refused: self.refused_lists.get(name.as_str()).copied().unwrap_or(0),
        });
    }

    /// All of it. `standing` says of an address whether it is exempt now; it is asked only of those that fail most, and of which the
    /// journal says nothing.
    pub fn finish(self, mut standing: impl FnMut(IpAddr) -> Option<Standing>) -> Report {
        let different = self.different.addresses;
        let mut countries: Vec<_> = self
            .countries
            .iter()
            .map(|(country, addresses)| Country { country: Some(country.clone()), addresses: *addresses })
            .collect();
        countries
            .sort_by(|one, other| other.addresses.cmp(&one.addresses).then(one.country.cmp(&other.country)));
        let placed: u64 = countries.iter().map(|country| country.addresses).sum();
        if self.has_countries && different > placed {
            countries.push(Country { country: None, addresses: different - placed });
        }
        let mut reasons: Vec<_> =
            self.reasons.into_iter().map(|((kind, name), blocks)| Reason { kind, name, blocks }).collect();
        reasons.sort_by(|one, other| {
            other.blocks.cmp(&one.blocks).then_with(|| (one.kind, &one.name).cmp(&(other.kind, &other.name)))
        });
        let (offenders, failures_elsewhere) = self.tally.finish();
        let failing_addresses = offenders.len() as u64;
        let is_for_tenant = self.domain.is_some();
        let exempt = offenders
            .into_iter()
            .take(LOOKED_AT)
            .filter_map(|offender| {
                let kept = self.kept_addresses.get(&offender.address).cloned();
                let standing = kept.or_else(|| standing(offender.address))?;
                Some(Exempt::of(offender, standing.told_to(is_for_tenant)))
            })
            .take(OFFENDERS)
            .collect();
        let starts = self.axis.starts().iter().zip(self.columns);
        Report {
            since: self.since,
            until: self.until,
            domain: self.domain,
            blocks: self.blocks,
            different: self.different,
            observed: self.observed,
            step: self.axis.step(),
            columns: starts.map(|(start, blocks)| Column { start: *start, blocks }).collect(),
            reasons,
            dropped: self.dropped,
            countries,
            lists: self.lists,
            failures: self.failures,
            failing_addresses,
            failures_elsewhere,
            exempt,
            kept: Kept { addresses: self.kept_addresses.len() as u64, ..self.kept },
            reversals: self
                .reversals
                .into_iter()
                .filter(|(_, times)| *times > 0)
                .map(|(how, times)| Reversed { how, times })
                .collect(),
            latest: self.latest.into_iter().rev().collect(),
        }
    }

    fn has(&self, time: Timestamp) -> bool {
        (self.since..=self.until).contains(&time)
    }

    /// Whether a subject of the journal's, or an id of fail2ban's, is one that this is about.
    fn concerns(&self, subject: &str) -> bool {
        let Some(domain) = &self.domain else { return true };
        if let Ok(offender) = subject.parse::<account::Offender>() {
            return offender.account.domain().eq_ignore_ascii_case(domain);
        }
        subject_network(subject)
            .and_then(crate::address::single)
            .is_some_and(|address| self.of_tenant.contains(&address.to_canonical()))
    }

    /// Remembers what the journal says of a jail's bans, for what fail2ban's database says of them, and when they end.
    fn note_jail(&mut self, past: &Past) {
        let decision = &past.decision;
        match (decision.tool.as_str(), decision.decision.as_str()) {
            ("ringfence-ban", "ban" | "refuse") => {
                let key = self.key(past);
                self.journaled.insert((key, past.when.as_second()));
                let length = span_of(decision.detail.strip_prefix("for ").unwrap_or_default());
                let length = length.and_then(|length| i64::try_from(length.as_secs()).ok());
                if self.ends.len() < MAX_ADDRESSES
                    && (length.is_some() || decision.detail == "for ever")
                    && decision.decision == "ban"
                {
                    let end = length.map_or(i64::MAX, |length| past.when.as_second().saturating_add(length));
                    self.ends.insert(key, end);
                }
            }
            ("ringfence-allow", "allow") if self.allowing.len() < MAX_NAMES => {
                self.allowing.insert(decision.source.clone());
            }
            _ => {}
        }
    }

    fn key(&self, past: &Past) -> u64 {
        self.hasher.hash_one((past.decision.source.as_str(), past.decision.subject.as_str()))
    }

    fn ended_early(&self, past: &Past) -> bool {
        let end = || self.ends.get(&self.key(past));
        is_unban(past) && end().is_some_and(|end| past.when.as_second() < end - EARLY)
    }

    fn reverse(&mut self, event: Event, count: u64) {
        *self.reversals.entry(event.how).or_default() += count;
        if event.how == Reversal::Released {
            // What it did to get there is no decision of its own.
            let is_part = |part: &Event| {
                part.subject == event.subject && event.when.duration_since(part.when) < RELEASING
            };
            for part in self.latest.iter().filter(|part| is_part(part)) {
                self.reversals.entry(part.how).and_modify(|times| *times = times.saturating_sub(1));
            }
            self.latest.retain(|part| !is_part(part));
        }
        if self.latest.len() == LATEST {
            self.latest.pop_front();
        }
        self.latest.push_back(event);
    }

    fn block(&mut self, when: Timestamp, kind: Kind, name: String, whom: Whom, count: u64) {
        self.blocks.add(kind, count);
        if let Some(at) = self.axis.column(when) {
            self.columns[at].add(kind, count);
        }
        let names = &mut self.reasons;
        let is_known = names.len() < MAX_NAMES || names.contains_key(&(kind, name.clone()));
        *names.entry((kind, if is_known { name } else { "(others)".to_owned() })).or_default() += count;
        // Of more than can be told apart, each counts.
        let is_new = match whom {
            Whom::Address(network) if self.blocked.len() < MAX_ADDRESSES => {
                self.blocked.insert(network, false).is_none()
            }
            Whom::Address(network) => !self.blocked.contains_key(&network),
            Whom::Named(name) if self.blocked_names.len() < MAX_ADDRESSES => self.blocked_names.insert(name),
            Whom::Named(name) => !self.blocked_names.contains(&name),
        };
        self.different.add(kind, is_new.into());
    }

    fn keep(&mut self, subject: &str, reason: &str, list: &str, count: u64) {
        let Ok(address) = subject.parse::<IpAddr>() else { return };
        self.kept.times += count;
        *self.kept.reasons.entry(visible(reason)).or_default() += count;
        let standing = match reason {
            "registered" => Standing::Registered,
            "seen-lately" => Standing::RegisteredLately,
            "allow-list" => {
                add(&mut self.kept_by_list, list.to_owned(), count);
                Standing::Allowed { list: visible(list) }
            }
            // Nobody knew.
            _ => return,
        };
        if self.kept_addresses.len() < MAX_ADDRESSES || self.kept_addresses.contains_key(&address) {
            self.kept_addresses.insert(address, standing);
        }
    }
}
/// Whether a past is of something that was blocked: what, and why in a word.
fn block(past: &Past) -> Option<(Kind, String)> {
    let decision = &past.decision;
    match (decision.tool.as_str(), decision.decision.as_str()) {
        ("ringfence-ban", "ban") => Some((Kind::Address, decision.source.clone())),
        ("ringfence-block", "block") => {
            let is_device = decision.reason == "failing-device";
            Some((if is_device { Kind::Device } else { Kind::Account }, decision.reason.clone()))
        }
        _ => None,
    }
}

fn is_unban(past: &Past) -> bool {
    past.decision.tool == "ringfence-ban" && past.decision.decision == "unban"
}

/// An address, as a network of one, or a network.
fn subject_network(subject: &str) -> Option<IpNetwork> {
    match subject.parse::<IpAddr>() {
        Ok(address) => Some(address.to_canonical().into()),
        Err(_) => subject.parse().ok(),
    }
}

fn add(sums: &mut HashMap<String, u64>, name: String, count: u64) {
    if sums.len() < MAX_NAMES || sums.contains_key(&name) {
        *sums.entry(name).or_default() += count;
    }
}

#[cfg(test)]
mod tests;
