use proptest::prelude::*;

use super::*;
use crate::firewall::Rule;

const HOUR_OF_NOW: i64 = 1_795_183_200;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(HOUR_OF_NOW + seconds).unwrap()
}

fn limit() -> Reason {
    Reason::of(Kind::Limit, "REGISTER")
}

fn rule(name: &str) -> Tag {
    Rule::new(name, "DROP").tag()
}

/// A look at these rules, of which `x` is nobody's business.
fn look(dir: &Path, boot: &str, seconds: i64, counts: &[(&str, &str, u64)]) -> Option<String> {
    look_in(dir, boot, seconds, counts, false)
}

fn look_in(
    dir: &Path,
    boot: &str,
    seconds: i64,
    counts: &[(&str, &str, u64)],
    observed: bool,
) -> Option<String> {
    let (listed, limited) = (Reason::only(Kind::BlockList), limit());
    let why = |tag| match tag {
        tag if tag == rule("list") => Some(&listed),
        tag if tag == rule("limit") => Some(&limited),
        _ => None,
    };
    let count = |(table, name, packets): &(&str, &str, u64)| Count {
        rule: format!("{table} {name}"),
        tag: rule(name),
        packets: *packets,
    };
    let counts: Vec<_> = counts.iter().map(count).collect();
    let mut counting = Counting::open(dir, boot, at(seconds)).unwrap();
    counting.rules(&counts, why, observed);
    counting.close().unwrap()
}

/// Each hour from then on, as seconds and packets of both reasons.
fn hours(dir: &Path, from: i64) -> Vec<(i64, u64, u64)> {
    let mut hours = vec![];
    let record = since(dir, at(from), |hour| {
        let of = |reason: Reason| hour.totals.dropped.get(&reason).copied().unwrap_or(0);
        let numbers = (of(Reason::only(Kind::BlockList)), of(limit()));
        hours.push((hour.hour.as_second() - HOUR_OF_NOW, numbers.0, numbers.1));
    });
    assert_eq!(record.unwrap().odd, 0);
    hours
}

fn all(dir: &Path) -> (u64, u64) {
    let all = since(dir, at(0), |_| ()).unwrap().all.dropped;
    let of = |reason: Reason| all.get(&reason).copied().unwrap_or(0);
    (of(Reason::only(Kind::BlockList)), of(limit()))
}

#[test]
fn what_came_since_the_last_look_is_added_whatever_became_of_the_rules() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    assert_eq!(since(dir, at(0), |_| panic!()).unwrap(), Record::default());
    for (seconds, counts, expected, why) in [
        (0, vec![("4", "list", 100), ("4", "limit", 7)], (0, 0), "what was before the record is not in it"),
        (60, vec![("4", "list", 103), ("4", "limit", 7)], (3, 0), "the difference"),
        (120, vec![("4", "list", 103), ("4", "limit", 7)], (3, 0), "nothing new"),
        (180, vec![("4", "list", 5), ("4", "limit", 8)], (8, 1), "one began anew"),
        (240, vec![("4", "list", 5), ("6", "list", 50), ("4", "limit", 8)], (58, 1), "a table came"),
        (300, vec![("4", "list", 6), ("6", "list", 2), ("4", "limit", 8)], (61, 1), "each table for itself"),
        (360, vec![("4", "limit", 9)], (61, 2), "a rule went"),
        (420, vec![("4", "list", 6), ("4", "limit", 9), ("4", "x", 1_000)], (67, 2), "and came again"),
        (480, vec![], (67, 2), "all went"),
        (540, vec![("4", "list", 1), ("4", "limit", 1)], (68, 3), "and all came"),
    ] {
        assert_eq!(look(dir, "boot", seconds, &counts), None);
        assert_eq!(all(dir), expected, "{why}");
        assert_eq!(hours(dir, 0), [(0, expected.0, expected.1)], "{why}");
    }
    // What another brought back at a boot with its counters is counted from then on.
    look(dir, "another boot", 600, &[("4", "list", 5_000)]);
    assert_eq!(all(dir), (68, 3));
    look(dir, "another boot", 660, &[("4", "list", 5_001), ("4", "limit", 4)]);
    assert_eq!(all(dir), (69, 7));
    assert_eq!(std::fs::read_dir(dir.join("drops")).unwrap().count(), 1, "no line before an hour is over");
}

#[test]
fn what_is_anothers_business_waits_for_him() {
    let dir = tempfile::tempdir().unwrap();
    let (mine, his) = (Reason::only(Kind::Ban), Reason::only(Kind::Account));
    let counts = |packets: [u64; 2]| {
        let both = [("mine", packets[0]), ("his", packets[1])];
        both.map(|(name, packets)| Count { rule: name.to_owned(), tag: rule(name), packets })
    };
    let look = |packets, name: &str, reason: &Reason| {
        let mut counting = Counting::open(dir.path(), "", at(0)).unwrap();
        counting.rules(&counts(packets), |tag| (tag == rule(name)).then_some(reason), false);
        counting.close().unwrap();
    };
    look([1, 1], "mine", &mine);
    look([2, 5], "mine", &mine);
    look([3, 9], "his", &his);
    look([7, 9], "mine", &mine);
    let all = since(dir.path(), at(0), |_| ()).unwrap().all;
    assert_eq!(all.dropped, BTreeMap::from([(mine, 6), (his, 8)]));
}

#[test]
fn an_observers_are_apart() {
    let dir = tempfile::tempdir().unwrap();
    look_in(dir.path(), "", 0, &[], true);
    look_in(dir.path(), "", 60, &[("4", "list", 3)], true);
    look_in(dir.path(), "", 120, &[("4", "list", 4)], false);
    let all = since(dir.path(), at(0), |_| ()).unwrap().all;
    let listed = |packets| BTreeMap::from([(Reason::only(Kind::BlockList), packets)]);
    assert_eq!(all, Totals { dropped: listed(1), observed: listed(3) });
}

#[test]
fn the_map_counts_also_for_those_whom_it_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let met = |boot: &str, looked: Option<u64>, gone: u64| {
        let mut counting = Counting::open(dir, boot, at(0)).unwrap();
        counting.map(Met { looked, gone });
        counting.close().unwrap();
        let all = since(dir, at(0), |_| ()).unwrap().all.dropped;
        all.get(&Reason::only(Kind::Account)).copied().unwrap_or(0)
    };
    for (boot, looked, gone, expected, why) in [
        ("1", None, 3, 0, "nothing is known yet"),
        ("1", Some(10), 0, 0, "what was before the record is not in it"),
        ("1", Some(15), 4, 5, "who was let go has been counted"),
        ("1", Some(13), 0, 7, "the others have 11 of them"),
        ("1", None, 6, 7, "let go between two looks, after 2 more"),
        ("1", Some(9), 0, 9, "which are counted at the next"),
        ("1", Some(2), 0, 9, "a map was made anew"),
        ("1", Some(3), 0, 10, "and goes on"),
        ("2", Some(4), 0, 14, "no map outlives a boot"),
    ] {
        assert_eq!(met(boot, looked, gone), expected, "{why}");
    }
}

#[test]
fn an_hour_that_is_over_is_a_line_and_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    look(dir, "", 0, &[]);
    look(dir, "", 10, &[("4", "list", 1)]);
    look(dir, "", 3_600, &[("4", "list", 3)]);
    assert_eq!(hours(dir, 0), [(0, 1, 0), (3_600, 2, 0)]);
    let before = std::fs::read(dir.join("drops/now.json")).unwrap();
    look(dir, "", 2 * 3_600, &[("4", "list", 6)]);
    let lines = std::fs::read_to_string(dir.join("drops/hours.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 2, "{lines}");
    // Killed after the line: it is written once more.
    std::fs::write(dir.join("drops/now.json"), before).unwrap();
    assert_eq!(hours(dir, 0), [(0, 1, 0), (3_600, 2, 0)]);
    look(dir, "", 2 * 3_600, &[("4", "list", 6)]);
    assert_eq!(hours(dir, 0), [(0, 1, 0), (3_600, 2, 0), (7_200, 3, 0)]);
    assert_eq!(all(dir), (6, 0));
    // A power cut in the middle of a line: the next begins on its own.
    let mut cut = std::fs::read(dir.join("drops/hours.jsonl")).unwrap();
    cut.extend(b"{\"hour\":\"20");
    std::fs::write(dir.join("drops/hours.jsonl"), cut).unwrap();
    look(dir, "", 3 * 3_600, &[("4", "list", 7)]);
    let (mut sum, mut count) = (0, 0);
    let record = since(dir, at(0), |hour| {
        sum += hour.totals.dropped.values().sum::<u64>();
        count += 1;
    });
    assert_eq!((sum, count, record.unwrap().odd), (7, 4, 1));
    // Hours without any have no line; the hours before are left out.
    look(dir, "", 5 * 3_600, &[("4", "list", 7)]);
    look(dir, "", 9 * 3_600, &[("4", "list", 8)]);
    let mut last = vec![];
    since(dir, at(3 * 3_600 + 1), |hour| last.push(hour.hour.as_second() - HOUR_OF_NOW)).unwrap();
    assert_eq!(last, [3 * 3_600, 9 * 3_600]);
}

#[test]
fn ninety_days_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    look(dir, "", 0, &[]);
    let hours_of = |day: i64| day * 86_400;
    for day in 0..200 {
        look(dir, "", hours_of(day), &[("4", "list", u64::try_from(day).unwrap() + 1)]);
    }
    let mut first = None;
    let mut count = 0;
    let record = since(dir, at(0), |hour| {
        first.get_or_insert(hour.hour);
        count += 1;
    });
    let record = record.unwrap();
    assert!((90..=92).contains(&count), "{count}");
    assert!(first.unwrap() >= at(hours_of(199)) - KEPT - SLACK - HOUR);
    assert_eq!((record.begun, record.all.dropped[&Reason::only(Kind::BlockList)]), (Some(at(0)), 200));
}

#[test]
fn a_record_that_is_damaged_is_begun_anew_and_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    look(dir, "", 0, &[]);
    look(dir, "", 10, &[("4", "list", 1)]);
    look(dir, "", 3_600, &[("4", "list", 3)]);
    for damage in ["", "{", "{\"begun\":1}", "[]"] {
        std::fs::write(dir.join("drops/now.json"), damage).unwrap();
        assert!(since(dir, at(0), |_| ()).is_err(), "{damage}");
        let lost = look(dir, "", 3_610, &[("4", "list", 9)]);
        assert!(lost.unwrap().contains("now.json was damaged"), "{damage}");
        assert_eq!((all(dir), hours(dir, 0)[0]), ((0, 0), (0, 1, 0)), "the hours before stay");
    }
    assert_eq!(since(dir, at(0), |_| ()).unwrap().begun, Some(at(0)));
    // Where nothing can be written, nothing is lost but what nobody reads.
    std::fs::remove_dir_all(dir.join("drops")).unwrap();
    std::fs::write(dir.join("drops"), "").unwrap();
    assert!(Counting::open(dir, "", at(0)).is_err());
}

#[test]
fn hours_that_are_too_many_make_way_before_they_are_too_large() {
    let line =
        |hour: i64| serde_json::to_string(&Hour::new(at(hour * 3_600), Totals::default())).unwrap() + "\n";
    let lines = |from: i64, to: i64| (from..to).map(line).collect::<String>();
    let all = lines(0, 10);
    let length = u64::try_from(all.len()).unwrap();
    let now = at(10 * 3_600);
    assert_eq!(shortened(all.as_bytes(), now, length), None);
    assert_eq!(shortened(all.as_bytes(), now, length - 1), Some(lines(5, 10).into_bytes()));
    assert_eq!(shortened(&[b"odd\n", all.as_bytes()].concat(), now, length), Some(all.into_bytes()));

    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    look(dir, "", 0, &[]);
    look(dir, "", 10, &[("4", "list", 1)]);
    File::create(dir.join("drops/hours.jsonl")).unwrap().set_len(LARGEST + 1).unwrap();
    let lost = look(dir, "", 3_600, &[("4", "list", 3)]);
    assert!(lost.unwrap().contains("hours.jsonl was damaged"));
    assert_eq!(look(dir, "", 3_660, &[("4", "list", 3)]), None);
    assert_eq!(hours(dir, 0), [(0, 1, 0), (3_600, 2, 0)]);
}

#[test]
fn two_looks_at_the_map_are_one() {
    for (first, second) in [
        (Met { looked: Some(9), gone: 4 }, Met { looked: Some(7), gone: 1 }),
        (Met { looked: Some(9), gone: 4 }, Met { looked: None, gone: 2 }),
        (Met { looked: Some(9), gone: 4 }, Met::default()),
        (Met::default(), Met { looked: Some(9), gone: 4 }),
    ] {
        let counted = |all: &[Met]| {
            let dir = tempfile::tempdir().unwrap();
            let mut counting = Counting::open(dir.path(), "", at(0)).unwrap();
            counting.map(Met { looked: Some(3), gone: 0 });
            for met in all {
                counting.map(*met);
            }
            (counting.now.all.clone(), counting.now.map.clone())
        };
        assert_eq!(counted(&[first, second]), counted(&[first.then(second)]), "{first:?} {second:?}");
    }
}

#[test]
fn reasons_are_bounded_and_read_as_they_are_written() {
    let mut totals = Totals::default();
    for n in 0..1_000 {
        totals.count(&Reason::of(Kind::Scanner, &format!("agent {n}\u{1b}")), false, 1);
    }
    totals.count(&Reason::of(Kind::Restriction, "5060 to au, nl"), true, 2);
    assert_eq!(totals.dropped.len(), MAX_REASONS + 1);
    assert_eq!(totals.dropped.values().sum::<u64>(), 1_000);
    let text = serde_json::to_string(&totals).unwrap();
    assert_eq!(serde_json::from_str::<Totals>(&text).unwrap(), totals);
    assert!(text.contains("\"restriction 5060 to au, nl\":2"), "{text}");
    for kind in Kind::ALL {
        assert_eq!(kind.name().parse(), Ok(Reason::only(kind)));
    }
    assert!("nonsense".parse::<Reason>().is_err());
}

proptest! {
    // Each writes to the disk a hundred times.
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However often somebody looks, and whatever is flushed in between: no packet is counted twice, and those are lost that came
    /// between the last look and a flush.
    #[test]
    fn no_packet_counts_twice(steps in proptest::collection::vec((0_u64..50, 0_u8..4), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let (mut counter, mut sent, mut unseen, mut lost) = (0, 0, 0, 0);
        look(dir.path(), "", 0, &[("4", "list", 0)]);
        for (at, (packets, what)) in (1..).zip(steps) {
            counter += packets;
            sent += packets;
            unseen += packets;
            match what {
                // As by a reload, which is a flush that no look comes before.
                0 => {
                    lost += unseen;
                    (counter, unseen) = (0, 0);
                    // Else a look could not tell it from a counter that went on.
                    look(dir.path(), "", at * 400, &[]);
                }
                1 => {}
                _ => {
                    look(dir.path(), "", at * 400, &[("4", "list", counter)]);
                    unseen = 0;
                }
            }
        }
        look(dir.path(), "", 90_000, &[("4", "list", counter)]);
        prop_assert_eq!(all(dir.path()).0, sent - lost);
    }
}
