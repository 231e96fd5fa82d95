//! What host names stood for: a name that no longer resolves keeps its last addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::resolver::Answer;

/// So long, in seconds, an address stays that a name had in an earlier answer: carriers rotate their answers.
const ROTATION: i64 = 24 * 3600;

/// The same where not every question was answered: some servers never answer for SRV, and what they had said
/// before must go one day.
const IN_PART: i64 = 7 * ROTATION;

/// A name keeps at most so many addresses, those that were seen last.
const MAX_ADDRESSES: usize = 256;

/// The addresses of the gateways' host names, to be kept from one [`find`](super::find) to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Known {
    /// By host name, lower case and without a final dot.
    pub hosts: BTreeMap<String, KnownHost>,
}

/// What a host name stood for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownHost {
    /// When the name last resolved, in seconds since 1970.
    pub resolved: i64,
    /// Its addresses, and when each was last in an answer, in seconds since 1970.
    pub addresses: BTreeMap<IpAddr, i64>,
}

/// What became of what was known.
#[derive(Debug, Default)]
pub(super) struct After {
    pub(super) known: Known,
    /// Names that did not resolve, or not in full, and have addresses all the same; for people.
    pub(super) notes: Vec<String>,
    /// Names without any address; for people.
    pub(super) unresolved: Vec<String>,
}

impl Known {
    /// What is known after these answers at `now` (seconds since 1970). Names that were not asked for are forgotten.
    pub(super) fn after(&self, answers: &BTreeMap<String, Answer>, now: i64) -> After {
        let (mut notes, mut unresolved) = (Vec::new(), Vec::new());
        let mut hosts = BTreeMap::new();
        for (name, answer) in answers {
            let before = self.hosts.get(name).filter(|host| !host.addresses.is_empty());
            if answer.addresses.is_empty() {
                let fault = answer.fault.as_deref().unwrap_or("it has no address");
                if let Some(host) = before {
                    notes.push(format!(
                        "{name} does not resolve: {fault}; its {} of {} kept",
                        if host.addresses.len() == 1 { "address" } else { "addresses" },
                        said(host.resolved)
                    ));
                    hosts.insert(name.clone(), host.clone());
                } else {
                    unresolved.push(format!("{name} does not resolve: {fault}; no address of it is known"));
                }
            } else {
                if let Some(fault) = &answer.fault {
                    notes.push(format!("{name} resolves only in part: {fault}"));
                }
                let span = if answer.fault.is_some() { IN_PART } else { ROTATION };
                hosts.insert(name.clone(), KnownHost::joined(before, &answer.addresses, span, now));
            }
        }
        After { known: Self { hosts }, notes, unresolved }
    }
}

impl KnownHost {
    /// `fresh` addresses, and those of `before` that were seen in the last `span` seconds.
    fn joined(before: Option<&Self>, fresh: &BTreeSet<IpAddr>, span: i64, now: i64) -> Self {
        let kept = before.into_iter().flat_map(|host| &host.addresses).filter_map(|(address, seen)| {
            // Seen in the future: the clock was put back. It must not stay until then.
            let seen = (*seen).min(now);
            (now.saturating_sub(seen) <= span).then_some((*address, seen))
        });
        let mut addresses: BTreeMap<_, _> = kept.collect();
        addresses.extend(fresh.iter().map(|address| (*address, now)));
        if addresses.len() > MAX_ADDRESSES {
            let mut latest: Vec<_> = addresses.into_iter().collect();
            latest.sort_by_key(|(_, seen)| std::cmp::Reverse(*seen));
            latest.truncate(MAX_ADDRESSES);
            addresses = latest.into_iter().collect();
        }
        Self { resolved: now, addresses }
    }
}

/// A time for people.
fn said(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| format!("second {seconds}"), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;
    const HOUR: i64 = 3600;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn answer(addresses: &[&str], fault: Option<&str>) -> BTreeMap<String, Answer> {
        let addresses = addresses.iter().map(|text| address(text)).collect();
        [("sip.acme.example".to_owned(), Answer { addresses, fault: fault.map(str::to_owned) })].into()
    }

    fn after(
        known: &Known,
        answers: &BTreeMap<String, Answer>,
        now: i64,
    ) -> (Known, Vec<String>, Vec<String>) {
        let After { known, notes, unresolved } = known.after(answers, now);
        (known, notes, unresolved)
    }

    fn addresses(known: &Known) -> Vec<String> {
        known.hosts.values().flat_map(|host| host.addresses.keys()).map(ToString::to_string).collect()
    }

    #[test]
    fn a_rotated_answer_keeps_the_last_day() {
        let (known, notes, _) = after(&Known::default(), &answer(&["203.0.113.1"], None), NOW);
        assert!(notes.is_empty());
        let (known, _, _) = after(&known, &answer(&["203.0.113.2"], None), NOW + HOUR);
        assert_eq!(addresses(&known), ["203.0.113.1", "203.0.113.2"]);
        let (known, _, _) = after(&known, &answer(&["203.0.113.3"], None), NOW + 24 * HOUR);
        assert_eq!(addresses(&known), ["203.0.113.1", "203.0.113.2", "203.0.113.3"]);
        let (known, _, _) = after(&known, &answer(&["203.0.113.3"], None), NOW + 25 * HOUR);
        assert_eq!(addresses(&known), ["203.0.113.2", "203.0.113.3"]);
        assert_eq!(known.hosts["sip.acme.example"].resolved, NOW + 25 * HOUR);
    }

    #[test]
    fn a_name_that_no_longer_resolves_keeps_its_addresses() {
        let (known, _, _) = after(&Known::default(), &answer(&["203.0.113.1"], None), NOW);
        let year = NOW + 365 * 24 * HOUR;
        let (later, notes, _) = after(&known, &answer(&[], Some("no answer in time")), year);
        assert_eq!(later, known);
        assert_eq!(
            notes,
            [
                "sip.acme.example does not resolve: no answer in time; its address of 2027-01-15T08:00:00Z kept"
            ]
        );
        let (known, _, _) = after(&later, &answer(&["203.0.113.9"], None), year + HOUR);
        assert_eq!(addresses(&known), ["203.0.113.9"]);
    }

    #[test]
    fn an_answer_in_part_keeps_for_longer() {
        let (known, _, _) = after(&Known::default(), &answer(&["203.0.113.1"], None), NOW);
        let (known, notes, _) =
            after(&known, &answer(&["203.0.113.2"], Some("refused")), NOW + 6 * 24 * HOUR);
        assert_eq!(addresses(&known), ["203.0.113.1", "203.0.113.2"]);
        assert_eq!(notes, ["sip.acme.example resolves only in part: refused"]);
        let (known, _, _) = after(&known, &answer(&["203.0.113.2"], Some("refused")), NOW + 8 * 24 * HOUR);
        assert_eq!(addresses(&known), ["203.0.113.2"]);
    }

    #[test]
    fn forgets_what_nobody_names_and_remembers_nothing_of_the_unknown() {
        let (known, _, _) = after(&Known::default(), &answer(&["203.0.113.1"], None), NOW);
        assert_eq!(after(&known, &BTreeMap::new(), NOW).0, Known::default());
        let (known, notes, unresolved) = after(&Known::default(), &answer(&[], None), NOW);
        assert_eq!((known, notes), (Known::default(), vec![]));
        assert_eq!(
            unresolved,
            ["sip.acme.example does not resolve: it has no address; no address of it is known"]
        );
    }

    #[test]
    fn a_host_remembered_without_addresses_is_as_unknown() {
        let known = Known { hosts: [("sip.acme.example".to_owned(), KnownHost::default())].into() };
        let (known, notes, unresolved) = after(&known, &answer(&[], Some("refused")), NOW);
        assert_eq!((known, notes), (Known::default(), vec![]));
        assert_eq!(unresolved, ["sip.acme.example does not resolve: refused; no address of it is known"]);
    }

    #[test]
    fn is_bounded_and_heeds_no_future() {
        let host = KnownHost {
            resolved: i64::MAX,
            addresses: (0..1000u32)
                .map(|n| (IpAddr::from((0xcb00_7100 + n).to_be_bytes()), i64::MAX))
                .collect(),
        };
        let known = Known { hosts: [("sip.acme.example".to_owned(), host)].into() };
        let (next, _, _) = after(&known, &answer(&["198.51.100.1"], None), NOW);
        assert_eq!(next.hosts["sip.acme.example"].addresses.len(), MAX_ADDRESSES);
        assert!(next.hosts["sip.acme.example"].addresses.values().all(|seen| *seen == NOW));
        let (_, notes, _) = after(&known, &answer(&[], None), i64::MIN);
        assert_eq!(notes.len(), 1);
    }

    #[test]
    fn survives_being_written_down() {
        let (known, _, _) = after(&Known::default(), &answer(&["203.0.113.1", "2001:db8::1"], None), NOW);
        let json = serde_json::to_string(&known).unwrap();
        assert_eq!(
            json,
            r#"{"sip.acme.example":{"resolved":1800000000,"addresses":{"203.0.113.1":1800000000,"2001:db8::1":1800000000}}}"#
        );
        assert_eq!(serde_json::from_str::<Known>(&json).unwrap(), known);
    }
}
