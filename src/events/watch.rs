//! What the events say about sources: lines at once, refusals to ask about, and who does too much of it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use jiff::Timestamp;

use super::alarm::{self, Alarm};
use super::event::{Event, Subclass};
use super::flood::Floods;
use super::line::{Account, Address, Client, Entry, Known, Line, Text, Time};
use super::refusals::{Refusal, Refusals, is_address};
use super::spray::Sprays;
use super::{Recent, forget, recent, registrations};
use crate::account::SipAccount;
use crate::address;
use crate::registrations::live::Live;

/// So long a source is known by a success.
const DAY: Duration = Duration::from_hours(24);

/// So many sources are remembered for their successes.
const MAX_GOOD: usize = 28_000;

/// So many lines are held back.
const MAX_HELD: usize = 1_000;

/// An IPv6 customer has a network of this length at least, all of which is one source.
const IPV6_PREFIX: u8 = 64;

/// All that is remembered between events. Bounded, whatever comes.
#[derive(Debug)]
pub struct Watch {
    refusals: Refusals,
    floods: Floods,
    /// As a flood of more than none: one line a second for each source.
    ip_domains: Floods,
    sprays: Sprays,
    alarm: Alarm,
    /// The last success from each source.
    good: Recent<IpNetwork, Instant>,
    /// About known sources, and until when: perhaps others are about to begin, too, and it is an alarm. The oldest first.
    held: VecDeque<(Instant, Line)>,
    ipv6_prefix: u8,
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
    /// More than `flood` requests without credentials in a second are a flood. IPv6 addresses with the same first `ipv6_prefix`
    /// bits are one source, and so are those with the same first 64.
    #[must_use]
    pub fn new(flood: u32, ipv6_prefix: u8) -> Self {
        Self {
            refusals: Refusals::default(),
            floods: Floods::new(flood),
            ip_domains: Floods::new(0),
            sprays: Sprays::default(),
            alarm: Alarm::default(),
            good: recent(MAX_GOOD),
            held: VecDeque::new(),
            ipv6_prefix: ipv6_prefix.min(IPV6_PREFIX),
        }
    }

    /// Takes the next event. `live` has who is registered.
    #[must_use]
    pub fn push(&mut self, event: Event, live: &Live, now: Instant) -> Seen {
        let mut lines = match event.subclass {
            Subclass::PreRegister => self.challenged(&event, live, now),
            _ => vec![],
        };
        if let Some(line) = registrations::line(&event) {
            if let Entry::Success { address, .. } = &line.entry {
                self.good.insert(self.source(address.get()), now);
            }
            lines.push(line);
        }
        Seen { lines, refusals: self.refusals.push(event, now) }
    }

    /// A refusal that waited long enough for the event that belongs to it; ask until there is none.
    pub fn overdue(&mut self, now: Instant) -> Option<Refusal> {
        self.refusals.overdue(now)
    }

    /// A line that was held back long enough; ask until there is none.
    pub fn held(&mut self, now: Instant) -> Option<Line> {
        let is_due = self.held.front().is_some_and(|(until, _)| *until <= now);
        if is_due { self.held.pop_front().map(|(_, line)| line) } else { None }
    }

    /// When to ask for what is [`overdue`](Self::overdue) or [`held`](Self::held).
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let held = self.held.front().map(|(until, _)| *until);
        self.refusals.due().into_iter().chain(held).min()
    }

    /// The lines about a refusal, now that it is found out whether its account is known. `live` has who is registered.
    pub fn refused(&mut self, refusal: &Refusal, known: Known, live: &Live, now: Instant) -> Vec<Line> {
        let at_that_time = |entry| Line { time: Time::from(refusal.time), entry };
        let mut lines = vec![];
        if self.is_good(refusal.address, live, refusal.time, now) {
            forget(&mut self.good, |last| now.saturating_duration_since(*last) >= DAY);
            let of = self.good.len().max(live.len());
            if let Some(sources) = self.alarm.failed(self.source(refusal.address), of, now) {
                lines.push(at_that_time(Entry::Alarm { sources: sources as u64 }));
            }
            if self.alarm.is_on(now) {
                self.held.clear();
                lines.push(at_that_time(Entry::Excused(refusal.failure(known))));
                return lines;
            }
        }
        lines.extend(refusal.lines(known));
        if known == Known::Yes
            && let Some(account) = refusal.sip_account()
        {
            lines.extend(self.exists(&account, refusal.address, refusal.time, live, now));
        }
        lines
    }

    /// A refused account exists, as is found out now, perhaps too late to be in the refusal's line. The line about its source, if it
    /// fails on many of them.
    pub fn exists(
        &mut self,
        account: &SipAccount,
        address: IpAddr,
        time: Timestamp,
        live: &Live,
        now: Instant,
    ) -> Option<Line> {
        let is_good = self.is_good(address, live, time, now);
        if is_good && self.alarm.is_on(now) {
            return None;
        }
        let accounts = self.sprays.failed(self.source(address), account, now)? as u64;
        let spray =
            Line { time: Time::from(time), entry: Entry::Spray { address: address.into(), accounts } };
        if !is_good {
            return Some(spray);
        }
        if self.held.len() < MAX_HELD {
            self.held.push_back((now + alarm::WINDOW, spray));
        }
        None
    }

    /// Whether a source is registered, or was seen to succeed within a day.
    fn is_good(&self, address: IpAddr, live: &Live, time: Timestamp, now: Instant) -> bool {
        let last = self.good.peek(&self.source(address));
        live.is_registered(address, time.as_second())
            || last.is_some_and(|last| now.saturating_duration_since(*last) < DAY)
    }

    fn source(&self, address: IpAddr) -> IpNetwork {
        address::neighbourhood(address.to_canonical(), self.ipv6_prefix)
    }

    fn challenged(&mut self, event: &Event, live: &Live, now: Instant) -> Vec<Line> {
        let Some(from) = event.address else { return vec![] };
        // Phones that are refused ask again and again.
        if self.alarm.is_on(now) && self.is_good(from, live, event.time, now) {
            return vec![];
        }
        let (at, address, source) = (event.time.as_millisecond(), Address::from(from), self.source(from));
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
    use super::*;
    use crate::events::event::{Method, Party, Verdict};

    const FLOOD: u32 = 3;
    const MINUTE: Duration = Duration::from_mins(1);

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

    /// A watch, and who is registered: these, as everything here happens within the first seconds of 1970.
    struct World {
        watch: Watch,
        live: Live,
        start: Instant,
    }

    impl World {
        fn new(registered: &[&str]) -> Self {
            let (mut live, start) = (Live::default(), Instant::now());
            for address in registered {
                live.registered(address.parse().unwrap(), 0, 300, start);
            }
            Self { watch: Watch::new(FLOOD, 128), live, start }
        }

        fn succeed(&mut self, address: &str) {
            let event = event(Subclass::Register, address, "101", "a.example.com", 0);
            assert_eq!(kinds(&self.watch.push(event, &self.live, self.start).lines), ["success"]);
        }

        fn challenge(&mut self, address: &str, host: &str, ms: i64, after: Duration) -> String {
            let event = event(Subclass::PreRegister, address, "101", host, ms);
            kinds(&self.watch.push(event, &self.live, self.start + after).lines).join(" ")
        }

        fn fail(&mut self, address: &str, user: &str, known: Known, after: Duration) -> Vec<Line> {
            let now = self.start + after;
            let event = event(Subclass::Failure, address, user, "a.example.com", 0);
            let refusal = self.watch.push(event, &self.live, now).refusals.remove(0);
            self.watch.refused(&refusal, known, &self.live, now)
        }

        /// What this many of a network's sources cause, each with `tries` accounts that exist: how often each kind, as they come.
        fn fail_all(&mut self, net: u8, sources: u8, tries: u8, after: Duration) -> Vec<String> {
            let mut counted: Vec<(&str, usize)> = vec![];
            for source in 0..sources {
                for user in 0..tries {
                    let address = format!("203.0.{net}.{source}");
                    for kind in kinds(&self.fail(&address, &format!("10{user}"), Known::Yes, after)) {
                        match counted.last_mut() {
                            Some((last, count)) if *last == kind => *count += 1,
                            _ => counted.push((kind, 1)),
                        }
                    }
                }
            }
            counted.into_iter().map(|(kind, count)| format!("{count} {kind}")).collect()
        }

        fn held(&mut self, after: Duration) -> Vec<&'static str> {
            let now = self.start + after;
            let lines: Vec<_> = std::iter::from_fn(|| self.watch.held(now)).collect();
            kinds(&lines)
        }
    }

    #[test]
    fn challenges_are_told_of_once_a_second_where_they_are_many_or_odd() {
        let mut world = World::new(&[]);
        let mut told = |host: &str, ms| world.challenge("203.0.113.66", host, ms, Duration::ZERO);
        let second: Vec<_> = (0..6).map(|n| told("a.example.com", n)).collect();
        assert_eq!(second, ["", "", "", "flood", "", ""]);
        let second: Vec<_> = (1_000..1_006).map(|n| told("198.51.100.1", n)).collect();
        assert_eq!(second, ["ip-domain", "", "", "flood", "", ""]);
        let neighbours = (0..6).map(|n| world.challenge(&format!("2001:db8::{n}"), "a", 0, Duration::ZERO));
        assert_eq!(neighbours.collect::<Vec<_>>(), ["", "", "", "flood", "", ""], "one customer's");
    }

    #[test]
    fn a_spray_is_of_accounts_that_exist() {
        let mut world = World::new(&[]);
        for (known, expected) in [(Known::No, 0), (Known::Unknown, 0), (Known::Yes, 1)] {
            let lines: Vec<_> = (0..9)
                .flat_map(|n| world.fail("203.0.113.66", &format!("10{n}"), known, Duration::ZERO))
                .filter(|line| line.entry.kind() != "failure")
                .collect();
            assert_eq!(kinds(&lines), vec!["spray"; expected], "{known:?}");
            let address = IpAddr::from([203, 0, 113, 66]).into();
            assert!(lines.iter().all(|line| line.entry == Entry::Spray { address, accounts: 5 }));
        }
        // A late answer counts, too.
        let address = "203.0.113.67".parse().unwrap();
        let late: Vec<_> = (0..9)
            .filter_map(|n| {
                let account = SipAccount::new(&n.to_string(), "a.example.com").unwrap();
                world.watch.exists(&account, address, Timestamp::UNIX_EPOCH, &world.live, world.start)
            })
            .collect();
        assert_eq!(kinds(&late), ["spray"]);
    }

    #[test]
    fn known_sources_that_fail_at_once_are_excused() {
        let mut world = World::new(&[]);
        for n in 0..100 {
            world.succeed(&format!("203.0.114.{n}"));
        }
        assert_eq!(world.fail_all(113, 9, 1, Duration::ZERO), ["9 failure"], "strangers");
        // Offices of ten phones: those of five count, and none is a spray.
        let second = Duration::from_secs(1);
        assert_eq!(world.fail_all(114, 100, 10, second), ["50 failure", "1 alarm", "950 excused"]);
        assert_eq!(world.held(MINUTE * 9), [""; 0]);
        assert_eq!(world.fail_all(113, 1, 5, second * 2), ["5 failure", "1 spray"], "strangers");
        assert_eq!(world.fail_all(114, 100, 1, MINUTE * 5), ["100 excused"]);
        let asks: String =
            (0..9).map(|_| world.challenge("203.0.114.1", "192.0.2.1", 0, MINUTE * 5)).collect();
        assert_eq!(asks, "", "who is refused asks again");
        assert_ne!(world.challenge("203.0.113.1", "192.0.2.1", 0, MINUTE * 5), "", "strangers");
        assert_eq!(world.fail_all(114, 3, 1, MINUTE * 20), ["3 failure"], "it is over");
        assert_eq!(world.fail_all(114, 9, 1, DAY * 2), ["9 failure"], "nobody is known any more");
    }

    #[test]
    fn who_is_registered_is_known() {
        let phones: Vec<_> = (0..9).map(|n| format!("203.0.113.{n}")).collect();
        let mut world = World::new(&phones.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(world.fail_all(113, 9, 1, Duration::ZERO), ["5 failure", "1 alarm", "4 excused"]);
    }

    #[test]
    fn one_customers_addresses_are_one_source() {
        let mut world = World::new(&[]);
        world.succeed("2001:db8::1");
        for n in 0..100 {
            let told = world.fail(&format!("2001:db8::{n}"), "101", Known::Yes, Duration::ZERO);
            assert_eq!(kinds(&told), ["failure"]);
        }
    }

    #[test]
    fn who_was_good_long_ago_does_not_count_among_all() {
        let mut world = World::new(&[]);
        for n in 0..2_000_u32 {
            world.succeed(&IpAddr::V4(n.into()).to_string());
        }
        world.start += DAY;
        for n in 0..100 {
            world.succeed(&format!("203.0.114.{n}"));
        }
        assert_eq!(world.fail_all(114, 10, 1, MINUTE), ["5 failure", "1 alarm", "5 excused"]);
    }

    #[test]
    fn a_known_source_that_sprays_is_told_of_after_a_minute() {
        let mut world = World::new(&["203.0.113.0"]);
        assert_eq!(world.fail_all(113, 1, 9, Duration::ZERO), ["9 failure"]);
        assert_eq!(world.watch.due(), Some(world.start + alarm::WINDOW));
        assert_eq!(world.held(Duration::from_millis(59_999)), [""; 0]);
        assert_eq!(world.held(alarm::WINDOW), ["spray"]);
        assert_eq!((world.held(MINUTE * 5), world.watch.due()), (vec![], None));
    }

    #[test]
    fn memory_is_bounded() {
        let mut world = World::new(&["203.0.113.0"]);
        for n in 0..u32::try_from(MAX_GOOD).unwrap() + 10 {
            world.succeed(&IpAddr::V4(n.into()).to_string());
        }
        assert_eq!(world.watch.good.len(), MAX_GOOD);
    }
}
