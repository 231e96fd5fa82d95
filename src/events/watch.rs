//! What the events say about sources: lines at once, refusals to ask about, and who does too much of it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use super::crowd::Crowds;
use super::event::{Event, Subclass};
use super::flood::Floods;
use super::line::{Account, Address, Client, Entry, Known, Line, Text, Time};
use super::make_room;
use super::refusals::{Refusal, Refusals, is_address};
use super::registrations;
use crate::account::SipAccount;

/// So many different accounts that exist are tried by no phone or office within [`SPRAY_WINDOW`].
const SPRAY: usize = 5;

/// Milliseconds.
const SPRAY_WINDOW: i64 = 600_000;

/// So many known sources do not fail within [`ALARM_WINDOW`] by chance.
const ALARM: usize = 6;

/// Milliseconds.
const ALARM_WINDOW: i64 = 60_000;

/// So long a source is known by a success, in milliseconds.
const DAY: i64 = 86_400_000;

/// So many sources are remembered for their successes; where there are more, all but the latest are forgotten.
const MAX_GOOD: usize = 100_000;

/// All that is remembered between events. Bounded, whatever comes.
#[derive(Debug)]
pub struct Watch {
    refusals: Refusals,
    floods: Floods,
    /// As a flood of more than none: one line a second for each source.
    ip_domains: Floods,
    sprays: Crowds<IpAddr, SipAccount>,
    alarms: Crowds<(), IpAddr>,
    /// The last success from each source, in milliseconds since 1970.
    good: HashMap<IpAddr, i64>,
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
            sprays: Crowds::new(SPRAY, SPRAY_WINDOW),
            alarms: Crowds::new(ALARM, ALARM_WINDOW),
            good: HashMap::new(),
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
                self.succeeded(address.get(), event.time.as_millisecond());
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

    /// What else is to be said now that it is found out whether the account of a refusal is known, and whether its source
    /// has a registration.
    pub fn refused(&mut self, refusal: &Refusal, known: Known, is_registered: bool) -> Vec<Line> {
        let (source, at) = (refusal.address.to_canonical(), refusal.time.as_millisecond());
        let mut entries = vec![];
        if let Some(account) = refusal.sip_account().filter(|_| known == Known::Yes)
            && let Some(accounts) = self.sprays.add(source, account, at)
        {
            entries.push(Entry::Spray { address: source.into(), accounts: accounts as u64 });
        }
        let is_good = || self.good.get(&source).is_some_and(|last| at - last < DAY);
        if (is_registered || is_good())
            && let Some(sources) = self.alarms.add((), source, at)
        {
            entries.push(Entry::Alarm { sources: sources as u64 });
        }
        let time = Time::from(refusal.time);
        entries.into_iter().map(|entry| Line { time, entry }).collect()
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

    fn succeeded(&mut self, source: IpAddr, at: i64) {
        make_room(&mut self.good, &source, MAX_GOOD, |last| at - *last < DAY);
        self.good.insert(source, at);
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

    #[test]
    fn a_spray_is_of_accounts_that_exist() {
        let mut watch = Watch::new(FLOOD);
        for (known, expected) in [(Known::No, 0), (Known::Unknown, 0), (Known::Yes, 1)] {
            let lines: Vec<_> = (0..9)
                .flat_map(|n| {
                    let refusal = refusal(&mut watch, "203.0.113.66", &format!("10{n}"), n);
                    watch.refused(&refusal, known, false)
                })
                .collect();
            assert_eq!(kinds(&lines), vec!["spray"; expected], "{known:?}");
            assert!(lines.iter().all(|line| line.entry
                == Entry::Spray {
                    address: refusal(&mut Watch::new(1), "203.0.113.66", "1", 0).address.into(),
                    accounts: 5
                }));
        }
    }

    #[test]
    fn an_alarm_is_of_sources_that_were_good() {
        let mut watch = Watch::new(FLOOD);
        let fail = |watch: &mut Watch, net: u8, ms: i64, is_registered| {
            let lines: Vec<_> = (0..9)
                .flat_map(|n| {
                    let refusal = refusal(watch, &format!("203.0.{net}.{n}"), "101", ms + n);
                    watch.refused(&refusal, Known::Yes, is_registered)
                })
                .collect();
            kinds(&lines)
        };
        assert_eq!(fail(&mut watch, 113, 0, false), [""; 0]);
        assert_eq!(fail(&mut watch, 113, 1_000, true), ["alarm"]);
        assert_eq!(fail(&mut watch, 113, 2_000, true), [""; 0], "once a minute");
        for n in 0..9 {
            let event = event(Subclass::Register, &format!("203.0.114.{n}"), "101", "a.example.com", 100_000);
            assert_eq!(kinds(&watch.push(event, Instant::now()).lines), ["success"]);
        }
        assert_eq!(fail(&mut watch, 114, 200_000, false), ["alarm"]);
        assert_eq!(fail(&mut watch, 114, 100_010 + DAY, false), [""; 0], "a day later");
    }

    #[test]
    fn memory_is_bounded() {
        let mut watch = Watch::new(FLOOD);
        for n in 0..u32::try_from(MAX_GOOD).unwrap() + 10 {
            watch.succeeded(IpAddr::V4(n.into()), 0);
        }
        assert!(watch.good.len() <= MAX_GOOD);
    }
}
