use std::fs;

use super::*;

fn begin() -> (tempfile::TempDir, Ledger) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open_at(&dir.path().join("ledger.db"));
    (dir, ledger)
}

fn open_at(path: &Path) -> Ledger {
    let opened = Ledger::open(path, Look::Whole, Timestamp::UNIX_EPOCH).unwrap();
    assert!(opened.lost.is_none());
    opened.ledger
}

fn block(id: &str, jail: &str, since: i64, seconds: i64) -> Block {
    Block {
        offender: id.parse().unwrap(),
        jail: jail.to_owned(),
        seen_from: Some("203.0.113.20".parse().unwrap()),
        since,
        until: since + seconds,
        why: "FusionPBX has no such extension".to_owned(),
        evidence: "203.0.113.20 is registered".to_owned(),
    }
}

fn ids(blocks: &[Block]) -> Vec<String> {
    blocks.iter().map(|block| block.offender.to_string()).collect()
}

fn tidy(ledger: &mut Ledger, now: i64) -> Ended {
    ledger.tidy(now, 1_000).unwrap()
}

fn put(ledger: &mut Ledger, block: Block) {
    let now = block.since;
    ledger.put(&[block], now).unwrap();
}

#[test]
fn what_is_put_is_there_until_its_time() {
    let (dir, mut ledger) = begin();
    let first = block("999@a.example.com", "sip", 1_000, 3_600);
    put(&mut ledger, first.clone());
    put(&mut ledger, block("101@a.example.com,2001:db8::1", "", 1_001, 60));
    drop(ledger);
    let mut ledger = open_at(&dir.path().join("ledger.db"));
    assert_eq!(ledger.active(1_060).unwrap()[0], first);
    assert_eq!(ids(&ledger.active(1_060).unwrap()), ["999@a.example.com", "101@a.example.com,2001:db8::1"]);
    assert_eq!(ids(&ledger.active(1_061).unwrap()), ["999@a.example.com"]);
    assert_eq!(ids(&tidy(&mut ledger, 1_061).over), ["101@a.example.com,2001:db8::1"]);
    assert_eq!(tidy(&mut ledger, 1_061), Ended::default());
}

#[test]
fn the_same_block_twice_is_one_that_goes_on() {
    let (_dir, mut ledger) = begin();
    put(&mut ledger, block("999@d", "sip", 1_000, 3_600));
    put(&mut ledger, block("999@d", "sip", 2_000, 3_600));
    let active = ledger.active(2_000).unwrap();
    assert_eq!((active.len(), active[0].since, active[0].until), (1, 1_000, 5_600));
    put(&mut ledger, block("999@d", "sip", 9_000, 10));
    assert_eq!(ledger.active(9_000).unwrap()[0].since, 9_000, "the first was over");
}

#[test]
fn two_jails_let_go_one_by_one() {
    let (_dir, mut ledger) = begin();
    put(&mut ledger, block("999@d", "sip", 1_000, 3_600));
    put(&mut ledger, block("999@d", "events", 1_000, 3_600));
    let offender: Offender = "999@D".parse().unwrap();
    assert_eq!(ledger.remove(std::slice::from_ref(&offender), Some("sip")).unwrap().len(), 1);
    assert_eq!(ledger.remove(std::slice::from_ref(&offender), Some("sip")).unwrap().len(), 0);
    assert_eq!(ids(&ledger.active(1_000).unwrap()), ["999@d"]);
    assert_eq!(ledger.remove(&["999@d,1.2.3.4".parse().unwrap()], None).unwrap().len(), 0);
    assert_eq!(ledger.remove(std::slice::from_ref(&offender), None).unwrap().len(), 1);
    assert_eq!(ledger.active(1_000).unwrap(), []);
}

#[test]
fn the_oldest_makes_way() {
    let (_dir, mut ledger) = begin();
    for (at, id) in [(1, "1@d"), (2, "2@d"), (3, "3@d"), (4, "1@d")] {
        put(&mut ledger, block(id, "sip", 1_000 + at, 3_600));
    }
    put(&mut ledger, block("3@d", "events", 1_010, 3_600));
    let new: Vec<_> = (4..6).map(|id| block(&format!("{id}@d"), "sip", 1_020, 3_600)).collect();
    ledger.put(&new, 1_020).unwrap();
    assert_eq!(ids(&ledger.tidy(1_020, 3).unwrap().made_way), ["1@d", "2@d"]);
    assert_eq!(ids(&ledger.active(1_020).unwrap()), ["3@d", "3@d", "4@d", "5@d"]);
}

#[test]
fn a_stop_brings_back_what_was_flushed_for_it_and_nothing_else() {
    let (_dir, mut ledger) = begin();
    let active = |ledger: &mut Ledger, now| ids(&ledger.active(now).unwrap());
    for jail in ["sip", ""] {
        put(&mut ledger, block(&format!("1@{jail}x"), jail, 1_000, 3_600));
    }
    // The administrator lets all go; a second later comes another, and then fail2ban stops.
    assert_eq!(ledger.flush(Some("sip"), 1_010).unwrap(), 1);
    assert_eq!(active(&mut ledger, 1_010), ["1@x"]);
    put(&mut ledger, block("2@d", "sip", 1_011, 3_600));
    assert_eq!(ledger.flush(Some("sip"), 1_012).unwrap(), 1);
    assert_eq!(ledger.stop(Some("sip"), 1_012).unwrap(), 1);
    assert_eq!(active(&mut ledger, 1_012), ["1@x"], "what was blocked by hand is no jail's");
    tidy(&mut ledger, 1_100);
    assert_eq!(ledger.start(Some("sip"), None, 1_100).unwrap(), 1);
    assert_eq!(active(&mut ledger, 1_100), ["1@x", "2@d"]);
    // Flushed without a stop: gone for good.
    ledger.flush(Some("sip"), 1_190).unwrap();
    assert_eq!(ledger.flushed(Some("sip"), 1_200).unwrap(), 1);
    tidy(&mut ledger, 1_206);
    assert_eq!(ledger.start(Some("sip"), None, 1_206).unwrap(), 0);
    assert_eq!(active(&mut ledger, 1_206), ["1@x"]);
    // Killed between flush and stop.
    put(&mut ledger, block("3@d", "sip", 1_300, 3_600));
    ledger.flush(None, 1_301).unwrap();
    assert_eq!(ledger.start(Some("sip"), None, 1_303).unwrap(), 1);
    assert_eq!(active(&mut ledger, 1_303), ["3@d"]);
}

#[test]
fn a_clock_that_was_set_back_makes_no_block_longer() {
    let (_dir, mut ledger) = begin();
    put(&mut ledger, block("1@d", "sip", 1_000_000, 3_600));
    tidy(&mut ledger, 500_000);
    let active = ledger.active(500_000).unwrap();
    assert_eq!((active[0].since, active[0].until), (500_000, 503_600));
}

#[test]
fn follows_what_a_jail_bans_no_more() {
    let (_dir, mut ledger) = begin();
    for (id, jail) in
        [("1@d", "sip"), ("2@d,192.0.2.1", "sip"), ("3@d", "sip"), ("1@d", "other"), ("1@d", "")]
    {
        put(&mut ledger, block(id, jail, 1_000, 3_600));
    }
    let bans = |ids: &[&str]| ids.iter().map(|id| id.parse().unwrap()).collect::<BTreeSet<Offender>>();
    // Another database, or one that does not have the ban yet, proves nothing.
    assert_eq!(ledger.follow("sip", &bans(&[]), 1_001).unwrap(), []);
    assert_eq!(ledger.follow("sip", &bans(&["1@d", "2@d,192.0.2.1"]), 1_002).unwrap(), []);
    assert_eq!(ids(&ledger.follow("sip", &bans(&["1@d"]), 1_003).unwrap()), ["2@d,192.0.2.1"]);
    // Banned anew, and not yet written down by fail2ban.
    put(&mut ledger, block("1@d", "sip", 1_004, 3_600));
    assert_eq!(ledger.follow("sip", &bans(&[]), 1_004).unwrap(), []);
    assert_eq!(ledger.active(1_004).unwrap().len(), 4);
}

#[test]
fn fail2ban_knows_better_what_a_jail_blocks_when_it_starts() {
    let (_dir, mut ledger) = begin();
    for (id, jail) in [("1@d", "sip"), ("2@d", "sip"), ("3@d", "sip"), ("1@d", "")] {
        put(&mut ledger, block(id, jail, 1_000, 3_600));
    }
    // The administrator lets all go; at once the jail is restarted, which cannot be told from a stop.
    ledger.flush(Some("sip"), 1_001).unwrap();
    ledger.stop(Some("sip"), 1_002).unwrap();
    let bans = BTreeSet::from(["2@d".parse().unwrap(), "9@d".parse().unwrap()]);
    assert_eq!(ledger.start(Some("sip"), Some(&bans), 1_003).unwrap(), 1);
    assert_eq!(ids(&ledger.active(1_003).unwrap()), ["1@d", "2@d"]);
    // What it had then is known to be its own.
    assert_eq!(ids(&ledger.follow("sip", &BTreeSet::new(), 1_004).unwrap()), ["2@d"]);
}

#[test]
fn others_are_counted_by_where_they_were_seen() {
    let (_dir, mut ledger) = begin();
    for (id, jail) in
        [("1@d", "sip"), ("1@d", "other"), ("2@d", "sip"), ("1@d,192.0.2.1", "sip"), ("3@d", "sip")]
    {
        put(&mut ledger, block(id, jail, 1_000, 3_600));
    }
    put(&mut ledger, Block { seen_from: None, ..block("4@d", "", 1_000, 3_600) });
    put(&mut ledger, block("5@d", "sip", 1_000, 1));
    let mut seen = |id: &str| ledger.others_seen_from(&id.parse().unwrap(), 1_001).unwrap();
    let office = "203.0.113.20".parse().unwrap();
    assert_eq!(seen("1@d"), [(office, 3)]);
    assert_eq!(seen("9@d"), [(office, 4)]);
}

#[test]
fn verdicts_count_for_a_minute() {
    let (_dir, mut ledger) = begin();
    let account = "999@d".parse().unwrap();
    assert_eq!(ledger.verdict(&account, 1_000).unwrap(), None);
    ledger.remember(&account, "no-extension", 1_000).unwrap();
    ledger.remember(&account, "exists", 1_001).unwrap();
    assert_eq!(ledger.verdict(&account, 1_061).unwrap().as_deref(), Some("exists"));
    assert_eq!(ledger.verdict(&account, 1_062).unwrap(), None);
    assert_eq!(ledger.verdict(&account, 900).unwrap(), None, "a clock that was set back");
}

#[test]
fn alarms_are_counted_by_source_for_a_minute() {
    let (_dir, mut ledger) = begin();
    let mut alarm = |last: u8, at| ledger.note_alarm(&format!("203.0.113.{last}/32"), at).unwrap();
    assert_eq!([alarm(1, 1_000), alarm(1, 1_001), alarm(2, 1_030), alarm(3, 1_061)], [1, 1, 2, 2]);
    put(&mut ledger, block("1@d", "sip", 1_000, 3_600));
    put(&mut ledger, block("2@d", "sip", 1_050, 3_600));
    put(&mut ledger, block("3@d", "", 1_050, 3_600));
    assert_eq!(ledger.suspended_until(1_061).unwrap(), None);
    assert_eq!(ids(&ledger.suspend(1_661, 1_061).unwrap()), ["2@d"]);
    assert_eq!(ids(&ledger.active(1_061).unwrap()), ["1@d", "3@d"]);
    assert_eq!(ledger.suspended_until(1_660).unwrap(), Some(1_661));
    assert_eq!(ledger.suspended_until(1_661).unwrap(), None);
}

#[test]
fn a_damaged_file_is_moved_aside_and_a_new_one_begun() {
    for damage in [&b"no database at all, but long enough to be taken for one by its length................................"[..], b""] {
        let (dir, mut ledger) = begin();
        let path = dir.path().join("ledger.db");
        let many: Vec<_> = (0..500).map(|id| block(&format!("{id}@d"), "sip", 1_000, 3_600)).collect();
        ledger.put(&many, 1_000).unwrap();
        drop(ledger);
        if damage.is_empty() {
            // The first page is whole, those of the table are not.
            let mut content = fs::read(&path).unwrap();
            assert!(content.len() > 20_000, "the log was not written back: {}", content.len());
            content[8_192..].fill(0xee);
            fs::write(&path, content).unwrap();
        } else {
            fs::write(&path, damage).unwrap();
        }
        let mut opened = Ledger::open(&path, Look::Whole, Timestamp::from_second(77).unwrap()).unwrap();
        let lost = opened.lost.expect("it says so");
        assert_eq!(lost.file, dir.path().join("ledger.db.damaged-77"));
        assert!(lost.file.exists() && !lost.fault.is_empty());
        assert_eq!(opened.ledger.active(1_000).unwrap(), []);
        put(&mut opened.ledger, block("1@d", "sip", 1_000, 3_600));
    }
}

#[test]
fn what_is_no_ledger_or_a_newer_one_is_told_apart() {
    let (dir, ledger) = begin();
    drop(ledger);
    let path = dir.path().join("ledger.db");
    let set = |sql: &str| {
        // The connection is closed by a thread of its own.
        let patience = ["-cmd", ".timeout 10000"];
        let done = std::process::Command::new("sqlite3").args(patience).arg(&path).arg(sql).status().unwrap();
        assert!(done.success());
    };
    set("UPDATE ledger_version SET version = 99");
    let error = format!("{:#}", Ledger::open(&path, Look::Whole, Timestamp::UNIX_EPOCH).unwrap_err());
    assert!(error.contains("newer version of Ringfence") && path.exists(), "{error}");
    set("DROP TABLE ledger_version");
    assert!(Ledger::open(&path, Look::Whole, Timestamp::UNIX_EPOCH).unwrap().lost.is_some());
}

#[test]
fn many_write_at_once_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let path = &path;
            scope.spawn(move || {
                for number in 0..10 {
                    let mut ledger = open_at(path);
                    put(&mut ledger, block(&format!("{writer}-{number}@d"), "sip", 1_000, 3_600));
                }
            });
        }
    });
    assert_eq!(open_at(&path).active(1_000).unwrap().len(), 80);
}

#[test]
fn one_is_asked_about_without_reading_all() {
    let (_dir, mut ledger) = begin();
    let whom = |id: &str| id.parse::<Offender>().unwrap();
    assert!(!ledger.blocks_somebody(1_000).unwrap());
    assert_eq!(ledger.until(&whom("1@d"), 1_000).unwrap(), None);
    assert!(ledger.has_room(0).unwrap());
    put(&mut ledger, block("1@d", "sip", 1_000, 60));
    put(&mut ledger, block("1@d", "", 1_000, 90));
    put(&mut ledger, block("2@d", "sip", 1_000, 60));
    put(&mut ledger, block("1@d,203.0.113.20", "sip", 1_000, 60));
    assert_eq!(ledger.until(&whom("1@d"), 1_000).unwrap(), Some(1_090));
    assert_eq!(ledger.until(&whom("1@d,203.0.113.20"), 1_000).unwrap(), Some(1_060));
    assert_eq!(ledger.until(&whom("1@d,203.0.113.20"), 1_060).unwrap(), None);
    assert!(ledger.blocks_somebody(1_089).unwrap());
    assert!(!ledger.blocks_somebody(1_090).unwrap());
    // Each has as many others as all together say.
    let from: IpAddr = "203.0.113.20".parse().unwrap();
    for id in ["1@d", "2@d", "3@d"] {
        let all: u32 =
            ledger.others_seen_from(&whom(id), 1_000).unwrap().iter().map(|(_, count)| count).sum();
        assert_eq!(ledger.others_seen_from_one(&whom(id), from, 1_000).unwrap(), all, "{id}");
    }
    assert_eq!(ledger.others_seen_from_one(&whom("3@d"), from, 1_000).unwrap(), 3);
    assert_eq!(ledger.others_seen_from_one(&whom("3@d"), "203.0.113.21".parse().unwrap(), 1_000).unwrap(), 0);
    assert_eq!([3, 4].map(|max| ledger.has_room(max).unwrap()), [false, true]);
    // Numbers of rows are no count of them.
    ledger.remove(&[whom("1@d"), whom("2@d")], None).unwrap();
    assert_eq!([0, 1].map(|max| ledger.has_room(max).unwrap()), [false, true]);
    ledger.stop(None, 1_000).unwrap();
    assert!(!ledger.blocks_somebody(1_000).unwrap());
}
