//! What the events say about sources: lines at once, refusals to ask about, and who does too much of it.

use std::net::IpAddr;
use std::time::Instant;

use super::alarm::{self, Alarm};
use super::event::{Event, Subclass};
use super::flood::Floods;
use super::line::{Account, Address, Client, Entry, Known, Line, Text, Time};
use super::refusals::{Refusal, Refusals, is_address};
use super::registrations;
use super::spray::Sprays;
use super::{Recent, recent};
use crate::account::SipAccount;
use crate::registrations::live::Live;

/// So long a source is known by a success, in milliseconds.
const DAY: i64 = 86_400_000;

/// So many sources are remembered for their successes.
const MAX_GOOD: usize = 28_000;

/// All that is remembered between events. Bounded, whatever comes.
#[derive(Debug)]
pub struct Watch {
    refusals: Refusals,
    floods: Floods,
    /// As a flood of more than none: one line a second for each source.
    ip_domains: Floods,
    sprays: Sprays,
    alarm: Alarm,
    /// The last success from each source, in milliseconds since 1970.
    good: Recent<IpAddr, i64>,
}

/// What an event brings.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Lines that need nothing more.
    pub lines: Vec<Line>,
    /// Those of which it is still to be found out whether the account is known.
    pub refusals: Vec<Refusal>,
}

impl Watch {
    /// More than `flood` requests without credentials in a second are a flood.
    #[must_use]
    pub fn new(flood: u32) -> Self {
        Self {
            refusals: Refusals::default(),
            floods: Floods::new(flood),
            ip_domains: Floods::new(0),
            sprays: Sprays::default(),
            alarm: Alarm::default(),
            good: recent(MAX_GOOD),
        }
    }

    /// Takes the next event.
    #[must_use]
    pub fn push(&mut self, event: Event, now: Instant) -> Seen {
        let mut lines = match event.subclass {
            Subclass::PreRegister => self.challenged(&event),
            _ => vec![],
        };
        if let Some(line) = registrations::line(&event) {
            if let Entry::Success { address, .. } = &line.entry {
                self.good.insert(address.get(), event.time.as_millisecond());
            }
            lines.push(line);
        }
        Seen { lines, refusals: self.refusals.push(event, now) }
    }

    /// A refusal that waited long enough for the event that belongs to it; ask until there is none.
    pub fn overdue(&mut self, now: Instant) -> Option<Refusal> {
        self.refusals.overdue(now)
    }

    /// When to ask for what is [`overdue`](Self::overdue).
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.refusals.due()
    }

    /// The lines about a refusal, now that it is found out whether its account is known. `live` has who is registered.
    pub fn refused(&mut self, refusal: &Refusal, known: Known, live: &Live) -> Vec<Line> {
        let (source, at) = (refusal.address.to_canonical(), refusal.time.as_millisecond());
        let at_that_time = |entry| Line { time: Time::from(refusal.time), entry };
        let mut lines = vec![];
        if self.is_good(source, at, live) {
            let of = self.good.len().max(live.len());
            let told = self.alarm.failed(source, of, at);
            lines.extend(told.map(|sources| at_that_time(Entry::Alarm { sources: sources as u64 })));
            if self.alarm.is_on(at) {
                lines.push(at_that_time(Entry::Excused(refusal.failure(known))));
                return lines;
            }
        }
        lines.extend(refusal.lines(known));
        if known == Known::Yes
            && let Some(account) = refusal.sip_account()
        {
            lines.extend(self.exists(refusal, &account, live));
        }
        lines
    }

    /// A refused account exists, as is found out now, perhaps too late to be in the refusal's line. The line about its source, if it
    /// fails on many of them.
    pub fn exists(&mut self, refusal: &Refusal, account: &SipAccount, live: &Live) -> Option<Line> {
        let (source, at) = (refusal.address.to_canonical(), refusal.time.as_millisecond());
        // Perhaps the others are about to begin, too.
        let patience = if self.is_good(source, at, live) { alarm::WINDOW } else { 0 };
        if patience > 0 && self.alarm.is_on(at) {
            return None;
        }
        let accounts = self.sprays.failed(source, account, at, patience)? as u64;
        Some(Line {
            time: Time::from(refusal.time),
            entry: Entry::Spray { address: source.into(), accounts },
        })
    }

    /// Whether a source is registered, or was seen to succeed within a day.
    fn is_good(&self, source: IpAddr, at: i64, live: &Live) -> bool {
        live.is_registered(source, at / 1000) || self.good.peek(&source).is_some_and(|last| at - last < DAY)
    }

    fn challenged(&mut self, event: &Event) -> Vec<Line> {
        let Some(source) = event.address.map(|address| address.to_canonical()) else { return vec![] };
        let (at, address) = (event.time.as_millisecond(), Address::from(source));
        let mut entries = vec![];
        if let Some(rate) = self.floods.count(source, at) {
            entries.push(Entry::Flood { address, rate: rate.into() });
        }
        if is_address(&event.claimed().host) && self.ip_domains.count(source, at).is_some() {
            let account = Account::from(event.claimed());
            let client = Client { profile: Text::new(&event.profile), agent: Text::new(&event.agent) };
            entries.push(Entry::IpDomain { address, method: event.method, account, client });
        }
        let time = Time::from(event.time);
        entries.into_iter().map(|entry| Line { time, entry }).collect()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::events::event::{Method, Party, Verdict};

    const FLOOD: u32 = 3;

    fn event(subclass: Subclass, address: &str, user: &str, host: &str, ms: i64) -> Event {
        let party = Party { user: user.into(), host: host.into() };
        Event {
            subclass,
            time: Timestamp::from_millisecond(ms).unwrap(),
            address: Some(address.parse().unwrap()),
            port: Some(5060),
            from: party.clone(),
            to: party.clone(),
            digest: party,
            agent: vec![],
            verdict: Verdict::Refused,
            method: Method::Register,
            call_id: vec![],
            profile: vec![],
            expires: None,
        }
    }

    fn kinds(lines: &[Line]) -> Vec<&'static str> {
        lines.iter().map(|line| line.entry.kind()).collect()
    }

    fn refusal(watch: &mut Watch, address: &str, user: &str, ms: i64) -> Refusal {
        let event = event(Subclass::Failure, address, user, "a.example.com", ms);
        watch.push(event, Instant::now()).refusals.remove(0)
    }

    #[test]
    fn challenges_are_told_of_once_a_second_where_they_are_many_or_odd() {
        let mut watch = Watch::new(FLOOD);
        let mut told = |host: &str, ms| {
            let event = event(Subclass::PreRegister, "203.0.113.66", "101", host, ms);
            kinds(&watch.push(event, Instant::now()).lines).join(" ")
        };
        let second: Vec<_> = (0..6).map(|n| told("a.example.com", n)).collect();
        assert_eq!(second, ["", "", "", "flood", "", ""]);
        let second: Vec<_> = (1_000..1_006).map(|n| told("198.51.100.1", n)).collect();
        assert_eq!(second, ["ip-domain", "", "", "flood", "", ""]);
    }

    /// Nobody is registered but this one.
    fn live(registered: &[&str], ms: i64) -> Live {
        let mut live = Live::default();
        for address in registered {
            live.registered(address.parse().unwrap(), ms / 1_000, 300, Instant::now());
        }
        live
    }

    #[test]
    fn a_spray_is_of_accounts_that_exist() {
        let mut watch = Watch::new(FLOOD);
        let nobody = live(&[], 0);
        for (known, expected) in [(Known::No, 0), (Known::Unknown, 0), (Known::Yes, 1)] {
            let lines: Vec<_> = (0..9)
                .flat_map(|n| {
                    let refusal = refusal(&mut watch, "203.0.113.66", &format!("10{n}"), n);
                    watch.refused(&refusal, known, &nobody)
                })
                .filter(|line| line.entry.kind() != "failure")
                .collect();
            assert_eq!(kinds(&lines), vec!["spray"; expected], "{known:?}");
            let address = IpAddr::from([203, 0, 113, 66]).into();
            assert!(lines.iter().all(|line| line.entry == Entry::Spray { address, accounts: 5 }));
        }
        // A late answer counts, too.
        let late: Vec<_> = (0..9)
            .filter_map(|n| {
                let refusal = refusal(&mut watch, "203.0.113.67", &format!("10{n}"), n);
                assert_eq!(kinds(&watch.refused(&refusal, Known::Unknown, &nobody)), ["failure"]);
                watch.exists(&refusal, &refusal.sip_account().unwrap(), &nobody)
            })
            .collect();
        assert_eq!(kinds(&late), ["spray"]);
    }

    /// What this many of a network's sources cause, each with `tries` accounts.
    fn fail(watch: &mut Watch, live: &Live, net: u8, sources: u8, tries: u8, ms: i64) -> Vec<String> {
        let mut told = vec![];
        for source in 0..sources {
            for user in 0..tries {
                let address = format!("203.0.{net}.{source}");
                let refusal = refusal(watch, &address, &format!("10{user}"), ms + i64::from(source));
                told.extend(watch.refused(&refusal, Known::Yes, live));
            }
        }
        let mut counted: Vec<(String, usize)> = vec![];
        for kind in kinds(&told) {
            match counted.last_mut() {
                Some((last, count)) if last == kind => *count += 1,
                _ => counted.push((kind.to_owned(), 1)),
            }
        }
        counted.into_iter().map(|(kind, count)| format!("{count} {kind}")).collect()
    }

    #[test]
    fn known_sources_that_fail_at_once_are_excused() {
        let mut watch = Watch::new(FLOOD);
        let nobody = live(&[], 0);
        for n in 0..100 {
            let event = event(Subclass::Register, &format!("203.0.114.{n}"), "101", "a.example.com", 0);
            assert_eq!(kinds(&watch.push(event, Instant::now()).lines), ["success"]);
        }
        assert_eq!(fail(&mut watch, &nobody, 113, 9, 1, 1_000), ["9 failure"], "strangers");
        // Offices of ten phones: those of five count, and none is a spray.
        let expected = ["50 failure", "1 alarm", "950 excused"];
        assert_eq!(fail(&mut watch, &nobody, 114, 100, 10, 2_000), expected);
        assert_eq!(fail(&mut watch, &nobody, 113, 1, 5, 3_000), ["5 failure", "1 spray"], "strangers");
        assert_eq!(fail(&mut watch, &nobody, 114, 100, 1, 300_000), ["100 excused"]);
        assert_eq!(fail(&mut watch, &nobody, 114, 3, 1, 1_000_000), ["3 failure"], "it is over");
        assert_eq!(fail(&mut watch, &nobody, 114, 9, 1, 2 * DAY), ["9 failure"], "nobody is known any more");
    }

    #[test]
    fn who_is_registered_is_known() {
        let mut watch = Watch::new(FLOOD);
        let phones: Vec<_> = (0..9).map(|n| format!("203.0.113.{n}")).collect();
        let phones: Vec<_> = phones.iter().map(String::as_str).collect();
        assert_eq!(fail(&mut watch, &live(&phones, 0), 113, 9, 1, 0), ["5 failure", "1 alarm", "4 excused"]);
    }

    #[test]
    fn a_known_source_that_sprays_is_told_of_if_it_goes_on() {
        let mut watch = Watch::new(FLOOD);
        let office = live(&["203.0.113.0"], 0);
        assert_eq!(fail(&mut watch, &office, 113, 1, 9, 0), ["9 failure"]);
        assert_eq!(fail(&mut watch, &office, 113, 1, 1, alarm::WINDOW), ["1 failure", "1 spray"]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut watch = Watch::new(FLOOD);
        for n in 0..u32::try_from(MAX_GOOD).unwrap() + 10 {
            let address = IpAddr::V4(n.into()).to_string();
            let event = event(Subclass::Register, &address, "101", "a.example.com", 0);
            assert_eq!(watch.push(event, Instant::now()).lines.len(), 1);
        }
        assert_eq!(watch.good.len(), MAX_GOOD);
    }
}
