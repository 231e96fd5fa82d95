use jiff::tz::TimeZone;

use super::super::axis::Step;
use super::*;
use crate::evidence::Decision;
use crate::failures::{Account, Why};
use crate::feeds::copy::Part;
use crate::feeds::dated::Dated;

const NOW: Timestamp = Timestamp::constant(1_795_183_743, 0);
const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

fn gathering(domain: Option<&str>) -> Gathering {
    let since = NOW - WEEK;
    Gathering::new(since, NOW, Axis::new(since, NOW, &TimeZone::UTC).unwrap(), domain)
}

/// A decision, so many minutes ago: tool, subject, decision, reason, source, detail.
fn past(minutes: i64, [tool, subject, decision, reason, source, detail]: [&str; 6], count: u32) -> Past {
    let decision = Decision::new(tool, subject, decision, reason, source).with_detail(detail);
    Past { when: NOW - SignedDuration::from_mins(minutes), decision, count }
}

fn failure(minutes: i64, address: &str, account: &str) -> Failure {
    let (user, domain) = account.split_once('@').unwrap();
    Failure {
        time: NOW - SignedDuration::from_mins(minutes),
        address: address.parse().unwrap(),
        account: Account { user: user.to_owned(), domain: domain.to_owned() },
        why: Why::WrongPassword,
        agent: "Lab".to_owned(),
        excused: minutes == 1,
    }
}

fn copy(networks: &[&str]) -> Copy {
    let set = networks.iter().map(|network| network.parse::<IpNetwork>().unwrap()).collect();
    Copy {
        parts: vec![Part { content: Dated::default().becomes(&set, 7), ..Part::default() }],
        ..Copy::default()
    }
}

const BAN: [&str; 6] = ["ringfence-ban", "203.0.113.1", "ban", "jail", "sip", "for 1h"];
const UNBAN: [&str; 6] = ["ringfence-ban", "203.0.113.1", "unban", "jail", "sip", ""];

#[test]
fn what_was_blocked_is_counted_by_kind_reason_and_time() {
    let mut gathering = gathering(None);
    for (minutes, line, count) in [
        (10, BAN, 3),
        (2 * 1_440, BAN, 1),
        (20, ["ringfence-ban", "2001:db8::/64", "ban", "jail", "sshd", "for ever"], 1),
        (30, ["ringfence-block", "9@a", "block", "unknown-account", "sip", ""], 2),
        (40, ["ringfence-block", "9@a,203.0.113.9", "block", "failing-device", "sip", ""], 1),
        // None of these blocks anybody, or not in this time.
        (50, ["ringfence-ban", "203.0.113.2", "refuse", "own-address", "sip", ""], 1),
        (50, ["ringfence-ignore", "203.0.113.3", "ban", "not-registered", "sqlite", ""], 1),
        (50, ["ringfence-lists", "x", "load", "lists-changed", "lists", ""], 1),
        (8 * 1_440, BAN, 1),
        (-5, BAN, 1),
    ] {
        gathering.decision(&past(minutes, line, count));
    }
    let mut observed = past(60, BAN, 4);
    observed.decision.mode = "observe".to_owned();
    gathering.decision(&observed);
    let report = gathering.finish(|_| None);
    assert_eq!(report.blocks, Counts { addresses: 5, accounts: 2, devices: 1 });
    assert_eq!(report.different, Counts { addresses: 2, accounts: 1, devices: 1 });
    assert_eq!((report.observed, report.step), (4, Step::Day));
    let columns: Vec<_> = report.columns.iter().map(|column| column.blocks.sum()).collect();
    assert_eq!(columns, [0, 0, 0, 0, 0, 1, 0, 7]);
    let reasons: Vec<_> =
        report.reasons.iter().map(|reason| (reason.kind, reason.name.as_str(), reason.blocks)).collect();
    assert_eq!(
        reasons,
        [
            (Kind::Address, "sip", 4),
            (Kind::Account, "unknown-account", 2),
            (Kind::Address, "sshd", 1),
            (Kind::Device, "failing-device", 1),
        ]
    );
}

#[test]
fn a_ban_counts_once_wherever_it_is_remembered() {
    let at = |minutes: i64| NOW.as_second() - minutes * 60;
    for (ban, expected) in [
        (Former::new("sip", "203.0.113.1", at(12)), 1),
        (Former::new("sip", "203.0.113.1", at(30)), 2),
        (Former::new("sip", "203.0.113.2", at(10)), 2),
        (Former::new("sshd", "203.0.113.1", at(10)), 2),
        // Refused, since it is this host's; a jail that allows; no address; too long ago.
        (Former::new("sip", "203.0.113.7", at(10)), 1),
        (Former::new("success", "203.0.113.8", at(10)), 1),
        (Former::new("block", "9@a.example.com", at(10)), 1),
        (Former::new("sip", "203.0.113.2", at(8 * 1_440)), 1),
    ] {
        let mut gathering = gathering(None);
        gathering.decision(&past(10, BAN, 1));
        gathering.decision(&past(9, ["ringfence-ban", "203.0.113.7", "refuse", "own-address", "sip", ""], 1));
        gathering.decision(&past(8, ["ringfence-allow", "203.0.113.5", "allow", "jail", "success", ""], 1));
        gathering.ban(&ban);
        assert_eq!(gathering.finish(|_| None).blocks.sum(), expected, "{ban:?}");
    }
}

#[test]
fn what_was_taken_back_is_told_once() {
    let block = ["ringfence-block", "9@a", "unblock", "by-hand", "sip", ""];
    let unblock = |reason| ["ringfence-block", "9@a", "unblock", reason, "sip", ""];
    for (lines, expected) in [
        (&[(90, BAN), (60, UNBAN)][..], vec![(Reversal::LetGoEarly, 1)]),
        // When its time is over, a moment before, and without a ban.
        (&[(90, BAN), (30, UNBAN)], vec![]),
        (&[(90, BAN), (31, UNBAN)], vec![]),
        (&[(60, UNBAN)], vec![]),
        (&[(90, BAN), (80, UNBAN), (70, UNBAN)], vec![(Reversal::LetGoEarly, 1)]),
        (&[(9, block), (8, block)], vec![(Reversal::UnblockedByHand, 2)]),
        (&[(9, unblock("time-over")), (8, unblock("unbanned")), (7, unblock("made-way"))], vec![]),
        (
            &[(9, unblock("account-exists")), (8, unblock("registered")), (7, unblock("suspended"))],
            vec![(Reversal::AccountExists, 1), (Reversal::Registered, 1), (Reversal::Suspended, 1)],
        ),
        (
            &[
                (90, BAN),
                (60, UNBAN),
                (60, ["ringfence", "203.0.113.1", "release", "by-hand", "administrator", ""]),
            ],
            vec![(Reversal::Released, 1)],
        ),
        (&[(5, ["ringfence", "203.0.113.1", "release", "release-failed", "administrator", ""])], vec![]),
        (
            &[(5, ["ringfence-lists", "x", "cut-out", "protected-own", "lists", ""])],
            vec![(Reversal::CutOut, 1)],
        ),
    ] {
        let mut gathering = gathering(None);
        for (minutes, line) in lines {
            gathering.decision(&past(*minutes, *line, 1));
        }
        let report = gathering.finish(|_| None);
        let found: Vec<_> = report.reversals.iter().map(|reversed| (reversed.how, reversed.times)).collect();
        assert_eq!(found, expected, "{lines:?}");
        assert_eq!(report.latest.len() as u64, expected.iter().map(|(_, times)| times).sum::<u64>());
    }
}

#[test]
fn lists_and_countries_know_the_addresses() {
    let mut gathering = gathering(None);
    for address in ["203.0.113.1", "203.0.113.2", "203.0.113.200", "198.51.100.1"] {
        gathering.decision(&past(5, ["ringfence-ban", address, "ban", "jail", "sip", ""], 2));
    }
    let keep = ["ringfence-ignore", "192.0.2.1", "keep", "allow-list", "allow-list", "office"];
    gathering.decision(&past(4, keep, 3));
    gathering.decision(&past(3, ["ringfence-lists", "bad", "refuse", "list-refused", "lists", "empty"], 2));
    let name = |name: &str| ListName::try_from(name.to_owned()).unwrap();
    gathering.list(&name("bad"), ListKind::Block, None, Some(&copy(&["203.0.113.0/25", "198.51.100.1/32"])));
    gathering.list(&name("gone"), ListKind::Block, None, None);
    gathering.list(&name("nl"), ListKind::Allow, Some("nl"), Some(&copy(&["203.0.113.0/24"])));
    gathering.list(&name("eu"), ListKind::Allow, Some("eu"), Some(&copy(&["203.0.113.0/24"])));
    gathering.list(&name("office"), ListKind::Allow, None, Some(&copy(&["192.0.2.0/24"])));
    let report = gathering.finish(|_| None);
    let lists: Vec<_> = report
        .lists
        .iter()
        .map(|list| (list.name.as_str(), list.networks, list.blocked, list.kept, list.refused))
        .collect();
    assert_eq!(
        lists,
        [
            ("bad", Some(2), 3, 0, 2),
            ("gone", None, 0, 0, 0),
            ("nl", Some(1), 3, 0, 0),
            ("eu", Some(1), 3, 0, 0),
            ("office", Some(1), 0, 3, 0),
        ]
    );
    let countries: Vec<_> =
        report.countries.iter().map(|country| (country.country.as_deref(), country.addresses)).collect();
    // Each address is in one country.
    assert_eq!(countries, [(Some("NL"), 3), (None, 1)]);
}

#[test]
fn exempt_is_who_was_kept_or_is_known_now() {
    let mut gathering = gathering(None);
    for (address, times) in [("192.0.2.1", 1), ("192.0.2.2", 3), ("192.0.2.3", 2), ("192.0.2.4", 4)] {
        (0..times).for_each(|_| gathering.failure(failure(5, address, "1@a.example.com")));
    }
    gathering.failure(failure(1, "192.0.2.1", "1@a.example.com"));
    gathering.failure(failure(8 * 1_440, "192.0.2.1", "1@a.example.com"));
    for (address, reason) in
        [("192.0.2.1", "registered"), ("192.0.2.4", "source-unreadable"), ("x", "registered")]
    {
        gathering.decision(&past(5, ["ringfence-ignore", address, "keep", reason, "sqlite", ""], 2));
    }
    let mut asked = vec![];
    let report = gathering.finish(|address| {
        asked.push(address.to_string());
        (asked.len() == 2).then_some(Standing::RegisteredLately)
    });
    assert_eq!(asked, ["192.0.2.4", "192.0.2.2", "192.0.2.3"]);
    let exempt: Vec<_> =
        report.exempt.iter().map(|exempt| (exempt.address.to_string(), exempt.failures)).collect();
    assert_eq!(exempt, [("192.0.2.2".to_owned(), 3), ("192.0.2.1".to_owned(), 2)]);
    assert_eq!((report.failures, report.failing_addresses), (11, 4));
    assert_eq!((report.kept.addresses, report.kept.times), (1, 4));
    assert_eq!(report.reversals, [Reversed { how: Reversal::Excused, times: 1 }]);
}

#[test]
fn a_tenants_copy_has_his_accounts_and_their_addresses_alone() {
    let mut gathering = gathering(Some("A.example.com"));
    gathering.failure(failure(9, "192.0.2.1", "1@a.Example.com"));
    gathering.failure(failure(9, "192.0.2.1", "2@b.example.com"));
    gathering.failure(failure(9, "192.0.2.2", "2@b.example.com"));
    for line in [
        ["ringfence-ban", "192.0.2.1", "ban", "jail", "sip", "for 1h"],
        ["ringfence-ban", "192.0.2.2", "ban", "jail", "secret", "for 1h"],
        ["ringfence-ban", "192.0.2.0/24", "ban", "jail", "secret", "for 1h"],
        ["ringfence-block", "3@a.example.com", "block", "unknown-account", "sip", ""],
        ["ringfence-block", "secret@b.example.com", "block", "unknown-account", "sip", ""],
        ["ringfence-block", "secret@b.example.com,192.0.2.1", "unblock", "by-hand", "sip", ""],
        ["ringfence-block", "3@a.example.com", "unblock", "by-hand", "sip", ""],
        ["ringfence-block", "jail secret", "flush", "jail", "secret", ""],
        ["ringfence-ignore", "192.0.2.1", "keep", "allow-list", "allow-list", "secret"],
        ["ringfence-ignore", "192.0.2.2", "keep", "allow-list", "allow-list", "secret"],
    ] {
        gathering.decision(&past(5, line, 1));
    }
    gathering.ban(&Former::new("other", "192.0.2.2", NOW.as_second() - 60));
    let name = |name: &str| ListName::try_from(name.to_owned()).unwrap();
    gathering.list(&name("secret"), ListKind::Allow, None, Some(&copy(&["192.0.2.0/24"])));
    gathering.list(&name("bad"), ListKind::Block, None, Some(&copy(&["192.0.2.0/24"])));
    gathering.list(&name("secret-2"), ListKind::Block, None, Some(&copy(&["198.51.100.0/24"])));
    let report = gathering.finish(|_| None);
    let text = serde_json::to_string(&report).unwrap();
    assert!(
        !text.contains("secret") && !text.contains("b.example.com") && !text.contains("192.0.2.2"),
        "{text}"
    );
    assert_eq!(report.blocks, Counts { addresses: 1, accounts: 1, devices: 0 });
    assert_eq!((report.failures, report.kept.times, report.lists.len()), (1, 1, 1));
    assert_eq!(report.exempt[0].standing, Standing::LeftAlone);
    assert_eq!(report.latest[0].subject, "3@a.example.com");
}

#[test]
fn memory_is_bounded() {
    let mut gathering = gathering(None);
    for number in 0..u32::try_from(MAX_ADDRESSES).unwrap() + 10 {
        let address = IpAddr::V4(number.into()).to_string();
        let jail = number.to_string();
        gathering.ban(&Former::new(&jail, &address, NOW.as_second() - 9));
    }
    assert_eq!((gathering.blocked.len(), gathering.reasons.len()), (MAX_ADDRESSES, MAX_NAMES + 1));
    let report = gathering.finish(|_| None);
    assert_eq!(report.different.addresses, MAX_ADDRESSES as u64 + 10);
    assert_eq!(report.reasons.iter().map(|reason| reason.blocks).sum::<u64>(), report.blocks.addresses);
}
