//! Failures, each told by two events that belong together, and the lines about them.
//!
//! `register_attempt` has the credentials, and `register_failure`, right behind it, says whether it was a REGISTER or an
//! INVITE. Between the two there may be events of other clients.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::event::{Event, Method, Party, Subclass, Verdict};
use super::line::{Account, Address, Client, Entry, Failure, Known, Line, Text, Time};
use crate::account::SipAccount;

/// An attempt's failure comes within this time, or not at all.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// So many attempts wait for their failures at most.
pub const MAX_WAITING: usize = 64;

/// Credentials that were refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// When, by FreeSWITCH's clock.
    pub time: Timestamp,
    /// Where they came from.
    pub address: IpAddr,
    /// With what.
    pub method: Method,
    /// The credentials' user name and realm, if there are any.
    pub digest: Party,
    /// The account that To or From names.
    pub claimed: Party,
    /// The profile.
    pub profile: Vec<u8>,
    /// What the client calls itself.
    pub agent: Vec<u8>,
}

/// Attempts that wait for their failures, the oldest first.
#[derive(Debug, Default)]
pub struct Refusals {
    waiting: VecDeque<(Instant, Event)>,
}

impl Refusals {
    /// Takes the next event, and returns what is known to be refused by it, in the order in which it happened. Of events
    /// that tell of no refusal nothing is kept.
    pub fn push(&mut self, event: Event, now: Instant) -> Vec<Refusal> {
        match (event.subclass, event.verdict) {
            (Subclass::Attempt, Verdict::Refused) => {
                self.waiting.push_back((now, event));
                let eldest = if self.waiting.len() > MAX_WAITING { self.waiting.pop_front() } else { None };
                eldest.and_then(|(_, attempt)| Refusal::alone(attempt)).into_iter().collect()
            }
            (Subclass::Failure, _) => {
                let attempt = self.attempt_of(&event);
                Refusal::of(attempt, event).into_iter().collect()
            }
            (Subclass::VertoLogin, Verdict::Refused) => Refusal::alone(event).into_iter().collect(),
            _ => vec![],
        }
    }

    /// An attempt that has waited for [`PATIENCE`]; ask until there is none.
    pub fn overdue(&mut self, now: Instant) -> Option<Refusal> {
        while self.due().is_some_and(|due| due <= now) {
            let (_, attempt) = self.waiting.pop_front()?;
            if let Some(refusal) = Refusal::alone(attempt) {
                return Some(refusal);
            }
        }
        None
    }

    /// When to ask for what is [`overdue`](Self::overdue).
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.waiting.front().map(|(since, _)| *since + PATIENCE)
    }

    /// The attempt that fails so: from the same source, and if there are more, of the same account.
    fn attempt_of(&mut self, failure: &Event) -> Option<Event> {
        let source = |event: &Event| (event.address, event.port);
        let same = |attempt: &Event| source(attempt) == source(failure);
        let account = |attempt: &Event| same(attempt) && attempt.claimed() == failure.claimed();
        let at = self.waiting.iter().position(|(_, attempt)| account(attempt));
        let at = at.or_else(|| self.waiting.iter().position(|(_, attempt)| same(attempt)))?;
        self.waiting.remove(at).map(|(_, attempt)| attempt)
    }
}

impl Refusal {
    /// Of an event that has no other.
    fn alone(event: Event) -> Option<Self> {
        let claimed = event.claimed().clone();
        let Event { time, address, method, digest, profile, agent, .. } = event;
        Some(Self { time, address: address?, method, digest, claimed, profile, agent })
    }

    fn of(attempt: Option<Event>, failure: Event) -> Option<Self> {
        let digest = attempt.map(|attempt| attempt.digest).unwrap_or_default();
        Self::alone(failure).map(|refusal| Self { digest, ..refusal })
    }

    /// The account of the credentials; if they name none, the one that is claimed.
    #[must_use]
    pub fn account(&self) -> &Party {
        if self.digest.user.is_empty() { &self.claimed } else { &self.digest }
    }

    /// The account, if there may be such a one.
    #[must_use]
    pub fn sip_account(&self) -> Option<SipAccount> {
        sip_account(self.account())
    }

    /// The failure; `known` is what was found out about its account. What can be no account is none, and of a user without a
    /// domain nothing is known.
    #[must_use]
    pub fn failure(&self, known: Known) -> Failure {
        let known = match (self.sip_account(), known) {
            // Where the profile has one realm for all its domains (challenge-realm), each account is unknown in it.
            (Some(_), Known::No) if self.has_other_realm() => Known::Unknown,
            (Some(_), known) => known,
            // As Verto's logins may be.
            (None, _) if self.account().host.is_empty() => Known::Unknown,
            (None, _) => Known::No,
        };
        let account = Account::from(self.account());
        Failure::new(self.address.into(), self.method, account, self.claimed_account(), known, self.client())
    }

    /// One to three lines: the failure, and what is odd about it.
    #[must_use]
    pub fn lines(&self, known: Known) -> Vec<Line> {
        let (address, method) = (Address::from(self.address), self.method);
        let mut entries = vec![Entry::Failure(self.failure(known))];
        if is_address(&self.account().host) {
            let (account, client) = (Account::from(self.account()), self.client());
            entries.push(Entry::IpDomain { address, method, account, client });
        }
        if let Some(account) = self.claimed_account().filter(|_| self.has_other_realm()) {
            let (realm, client) = (Text::new(&self.digest.host), self.client());
            entries.push(Entry::RealmMismatch { address, method, account, realm, client });
        }
        let time = Time::from(self.time);
        entries.into_iter().map(|entry| Line { time, entry }).collect()
    }

    fn claimed_account(&self) -> Option<Account> {
        (!self.claimed.is_empty()).then(|| Account::from(&self.claimed))
    }

    fn client(&self) -> Client {
        Client { profile: Text::new(&self.profile), agent: Text::new(&self.agent) }
    }

    fn has_other_realm(&self) -> bool {
        let (realm, domain) = (&self.digest.host, &self.claimed.host);
        !realm.is_empty() && !domain.is_empty() && !realm.eq_ignore_ascii_case(domain)
    }
}

fn sip_account(party: &Party) -> Option<SipAccount> {
    let text = |part| std::str::from_utf8(part).ok();
    SipAccount::new(text(&party.user)?, text(&party.host)?).ok()
}

/// Whether a domain is an IP address.
pub(crate) fn is_address(host: &[u8]) -> bool {
    let host = std::str::from_utf8(host).unwrap_or_default();
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<IpAddr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(user: &str, host: &str) -> Party {
        Party { user: user.into(), host: host.into() }
    }

    fn event(subclass: Subclass, port: u16, claimed: &str) -> Event {
        let claimed = party(claimed, "a.example.com");
        let of_attempt = subclass == Subclass::Attempt;
        Event {
            subclass,
            time: Timestamp::UNIX_EPOCH,
            address: Some("203.0.113.66".parse().unwrap()),
            port: Some(port),
            from: if of_attempt { claimed.clone() } else { Party::default() },
            to: if of_attempt { Party::default() } else { claimed.clone() },
            digest: if of_attempt {
                Party { user: claimed.user, ..party("", "realm") }
            } else {
                Party::default()
            },
            agent: vec![],
            verdict: if of_attempt { Verdict::Refused } else { Verdict::Open },
            method: if of_attempt { Method::Unknown } else { Method::Register },
            call_id: vec![],
            profile: vec![],
            expires: None,
        }
    }

    fn attempt(port: u16, claimed: &str) -> Event {
        event(Subclass::Attempt, port, claimed)
    }

    fn failure(port: u16, claimed: &str) -> Event {
        event(Subclass::Failure, port, claimed)
    }

    /// By what it fails, as whom, and who is claimed.
    fn told(refusal: &Refusal) -> (Method, String, String) {
        let user = |party: &Party| String::from_utf8(party.user.clone()).unwrap();
        (refusal.method, user(&refusal.digest), user(&refusal.claimed))
    }

    #[test]
    fn what_belongs_together_is_one() {
        use Method::{Register, Unknown};
        for (events, expected, overdue) in [
            (vec![attempt(1, "a"), failure(1, "a")], vec![(Register, "a", "a")], vec![]),
            (vec![failure(1, "a"), attempt(1, "a")], vec![(Register, "", "a")], vec![(Unknown, "a", "a")]),
            (vec![attempt(2, "a"), failure(1, "a")], vec![(Register, "", "a")], vec![(Unknown, "a", "a")]),
            (
                vec![attempt(1, "a"), attempt(2, "b"), failure(1, "a"), failure(2, "b")],
                vec![(Register, "a", "a"), (Register, "b", "b")],
                vec![],
            ),
            (
                vec![attempt(1, "a"), attempt(1, "b"), failure(1, "b"), failure(1, "a")],
                vec![(Register, "b", "b"), (Register, "a", "a")],
                vec![],
            ),
            (
                vec![attempt(1, "a"), attempt(1, "b"), failure(1, "c")],
                vec![(Register, "a", "c")],
                vec![(Unknown, "b", "b")],
            ),
            (vec![Event { verdict: Verdict::Open, ..attempt(1, "a") }], vec![], vec![]),
            (vec![Event { verdict: Verdict::Accepted, ..attempt(1, "a") }], vec![], vec![]),
            (vec![event(Subclass::PreRegister, 1, "a"), event(Subclass::Register, 1, "a")], vec![], vec![]),
        ] {
            let (mut refusals, now) = (Refusals::default(), Instant::now());
            let text = |(method, digest, claimed): &(Method, &str, &str)| {
                (*method, (*digest).to_owned(), (*claimed).to_owned())
            };
            let found: Vec<_> = events.into_iter().flat_map(|event| refusals.push(event, now)).collect();
            assert_eq!(
                found.iter().map(told).collect::<Vec<_>>(),
                expected.iter().map(text).collect::<Vec<_>>()
            );
            assert_eq!(refusals.overdue(now + PATIENCE.saturating_sub(Duration::from_nanos(1))), None);
            let late: Vec<_> = std::iter::from_fn(|| refusals.overdue(now + PATIENCE)).collect();
            assert_eq!(
                late.iter().map(told).collect::<Vec<_>>(),
                overdue.iter().map(text).collect::<Vec<_>>()
            );
            assert_eq!(refusals.due(), None);
        }
    }

    #[test]
    fn no_more_than_so_many_wait() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        for number in 0..1_000 {
            let found = refusals.push(attempt(number, &number.to_string()), now);
            let eldest = usize::from(number).checked_sub(MAX_WAITING).map(|eldest| eldest.to_string());
            assert_eq!(found.iter().map(|refusal| told(refusal).1).next(), eldest);
        }
        assert_eq!(refusals.due(), Some(now + PATIENCE));
        assert_eq!(std::iter::from_fn(|| refusals.overdue(now + PATIENCE)).count(), MAX_WAITING);
    }

    fn lines(digest: Party, claimed: Party, known: Known) -> Vec<String> {
        let refusal = Refusal {
            time: Timestamp::UNIX_EPOCH,
            address: "::ffff:203.0.113.66".parse().unwrap(),
            method: Method::Invite,
            digest,
            claimed,
            profile: b"internal".into(),
            agent: vec![],
        };
        let end = " profile=internal agent=-";
        let start = "1970-01-01T00:00:00.000Z v1 ";
        let lines = refusal.lines(known).into_iter().map(|line| line.to_string());
        lines.map(|line| line.strip_prefix(start).unwrap().strip_suffix(end).unwrap().into()).collect()
    }

    #[test]
    fn says_what_is_odd() {
        let none = Party::default;
        for (digest, claimed, known, expected) in [
            (
                party("101", "A.example.com"),
                party("101", "a.Example.com"),
                Known::Yes,
                vec!["failure account=101@A.example.com known=yes id=101@a.example.com,203.0.113.66"],
            ),
            (none(), party("101", "a"), Known::Unknown, vec!["failure account=101@a known=unknown"]),
            (
                party("", "b"),
                party("101", "a"),
                Known::No,
                vec!["failure account=101@a known=unknown", "realm-mismatch account=101@a realm=b"],
            ),
            (
                party("101", "b"),
                party("101", "a"),
                Known::No,
                vec![
                    "failure account=101@b claimed=101@a known=unknown",
                    "realm-mismatch account=101@a realm=b",
                ],
            ),
            (
                party("1", "192.0.2.1"),
                party("1", "a"),
                Known::No,
                vec![
                    "failure account=1@192.0.2.1 claimed=1@a known=unknown",
                    "ip-domain account=1@192.0.2.1",
                    "realm-mismatch account=1@a realm=192.0.2.1",
                ],
            ),
            (
                none(),
                party("1", "[2001:db8::1]"),
                Known::Yes,
                vec![
                    "failure account=1@%5B2001%3Adb8%3A%3A1%5D known=yes",
                    "ip-domain account=1@%5B2001%3Adb8%3A%3A1%5D",
                ],
            ),
            // What can be no account is not asked for.
            (party("a\"b", "d"), none(), Known::Yes, vec!["failure account=a%22b@d known=no"]),
            (party("a b", "d"), none(), Known::Yes, vec!["failure account=a%20b@d known=yes"]),
            (party("a", ""), none(), Known::Yes, vec!["failure account=a@- known=unknown"]),
            (none(), none(), Known::Yes, vec!["failure account=-@- known=unknown"]),
        ] {
            let expected: Vec<_> = expected
                .iter()
                .map(|line| line.replacen(' ', " address=203.0.113.66 method=INVITE ", 1))
                .collect();
            assert_eq!(lines(digest, claimed, known), expected);
        }
    }
}
