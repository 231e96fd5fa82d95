//! FreeSWITCH's SQLite files.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ringfence::deadline::Deadline;
use ringfence::registrations::Source;

use crate::support::{World, now, sqlite, wanted};

/// Holds a database file as FreeSWITCH does while it writes.
struct Exclusive(Child);

impl Exclusive {
    fn hold(database: &Path) -> Self {
        Self::wait_and_hold(database, Duration::ZERO)
    }

    fn wait_and_hold(database: &Path, wait: Duration) -> Self {
        let mut sqlite3 = Command::new("sqlite3")
            .arg(database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = sqlite3.stdin.as_ref().unwrap();
        writeln!(stdin, ".timeout {}\nBEGIN EXCLUSIVE;\nSELECT 'held';", wait.as_millis()).unwrap();
        let mut held = [0; 5];
        std::io::Read::read_exact(sqlite3.stdout.as_mut().unwrap(), &mut held).unwrap();
        assert_eq!(&held, b"held\n");
        Self(sqlite3)
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_file_counts_and_only_what_has_not_expired() {
    let world = World::with_databases();
    world.register("core.db", "198.51.100.1", 3600);
    world.register("sofia_reg_internal.db", "198.51.100.2", 3600);
    world.register("sofia_reg_external.db", "198.51.100.3", 3600);
    world.register("sofia_reg_internal-ipv6.db", "2001:db8:66::11", 3600);
    world.register("sofia_reg_internal.db", "203.0.113.66", -1);
    world.register("core.db", "203.0.113.67", -3600);
    for (address, kept) in [
        ("198.51.100.1", true),
        ("198.51.100.2", true),
        ("198.51.100.3", true),
        ("2001:db8:66::11", true),
        ("203.0.113.66", false),
        ("203.0.113.67", false),
        ("203.0.113.68", false),
    ] {
        assert_eq!(world.keeps(address), kept, "{address}");
    }
    let reasons: BTreeMap<_, _> = world
        .journal()
        .iter()
        .map(|line| (line["subject"].to_string(), line["reason"].to_string()))
        .collect();
    assert_eq!(reasons["\"198.51.100.1\""], "\"registered\"");
    assert_eq!(reasons["\"203.0.113.66\""], "\"not-registered\"");
}

#[test]
fn a_profile_in_core_db_counts() {
    // odbc-dsn = sqlite:///dev/shm/core.db, as FusionPBX's switch/dsn.sh has it.
    let world = World::empty();
    let core = world.database("core.db");
    sqlite(
        &core,
        &std::fs::read_to_string(crate::support::data("db/sofia_reg_internal.schema.sql")).unwrap(),
    );
    sqlite(
        &core,
        &format!(
            "INSERT INTO sip_registrations (expires, network_ip) VALUES ({}, '203.0.113.20')",
            now() + 60
        ),
    );
    world.configure("source = \"sqlite\"");
    assert!(world.keeps("203.0.113.20"));
    assert!(!world.keeps("203.0.113.21"));
}

#[test]
fn one_look_serves_all_calls_while_it_is_fresh() {
    let world = World::with_databases();
    world.configure("source = \"sqlite\"\ncache = \"60s\"");
    world.register("sofia_reg_internal.db", "203.0.113.20", 3600);
    assert!(world.keeps("203.0.113.20"));
    world.register("sofia_reg_internal.db", "203.0.113.21", 3600);
    assert!(!world.keeps("203.0.113.21"), "the snapshot is not 60 s old");
    world.configure("source = \"sqlite\"\ncache = \"0s\"");
    assert!(world.keeps("203.0.113.21"));
}

#[test]
fn a_broken_or_foreign_snapshot_is_replaced() {
    let world = World::with_databases();
    world.configure("source = \"sqlite\"\ncache = \"60s\"");
    world.register("sofia_reg_internal.db", "203.0.113.20", 3600);
    assert!(!world.keeps("203.0.113.66"));
    let snapshot = world.path("run/registrations.snapshot");
    let good = std::fs::read(&snapshot).unwrap();
    let mut flipped = good.clone();
    flipped[100] ^= 1;
    for bad in [vec![], b"garbage".to_vec(), good[..1000].to_vec(), flipped] {
        std::fs::write(&snapshot, bad).unwrap();
        assert!(world.keeps("203.0.113.20"));
        assert_eq!(std::fs::read(&snapshot).unwrap().len(), good.len());
    }
    // Another user's, or one that others may write to.
    std::os::unix::fs::chown(&snapshot, Some(65_534), None).unwrap();
    world.register("sofia_reg_internal.db", "203.0.113.21", 3600);
    assert!(world.keeps("203.0.113.21"), "a foreign snapshot was believed");
    std::fs::remove_file(&snapshot).unwrap();
    let fifo = Command::new("mkfifo").arg(&snapshot).status().unwrap();
    assert!(fifo.success() && world.keeps("203.0.113.20"));
}

#[test]
fn a_changed_source_is_asked_at_once() {
    let world = World::with_databases();
    world.configure("source = \"sqlite\"\ncache = \"60s\"");
    assert!(!world.keeps("203.0.113.20"));
    let other = World::with_databases();
    other.register("core.db", "203.0.113.20", 3600);
    world.configure(&format!("source = \"sqlite\"\ncache = \"60s\"\nsqlite-dir = {:?}", other.path("db")));
    assert!(world.keeps("203.0.113.20"));
}

#[test]
fn neighbours_in_the_prefix_count_as_the_phone() {
    let world = World::with_databases();
    world.register("sofia_reg_internal-ipv6.db", "2001:db8:66:7:8::11", 3600);
    assert!(!world.keeps("2001:db8:66:7::99"));
    for cache in ["2s", "0s"] {
        world.configure(&format!("source = \"sqlite\"\nipv6-prefix = 64\ncache = \"{cache}\""));
        assert!(world.keeps("2001:db8:66:7::99"));
        assert!(!world.keeps("2001:db8:66:8::99"));
    }
}

/// Names, contents and times of a directory.
fn fingerprint(dir: &Path) -> BTreeMap<String, (SystemTime, Vec<u8>)> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let modified = path.metadata().unwrap().modified().unwrap();
            (path.display().to_string(), (modified, std::fs::read(&path).unwrap_or_default()))
        })
        .collect()
}

#[test]
fn freeswitchs_files_are_only_read() {
    let world = World::with_databases();
    world.register("sofia_reg_internal.db", "203.0.113.20", 3600);
    let before = fingerprint(&world.path("db"));
    for _ in 0..3 {
        world.reboot();
        assert!(world.keeps("203.0.113.20"));
    }
    let held = Exclusive::hold(&world.path("db/core.db"));
    world.reboot();
    world.keeps("203.0.113.66");
    drop(held);
    assert!(before == fingerprint(&world.path("db")), "something was changed or made");
}

#[test]
fn a_locked_file_costs_at_most_the_deadline() {
    let world = World::with_databases();
    world.register("sofia_reg_internal.db", "203.0.113.20", 3600);
    let held = Exclusive::hold(&world.path("db/sofia_reg_external.db"));
    let call = world.call(&["203.0.113.66"]);
    assert_eq!(call.code, 1);
    assert!(call.took < Duration::from_secs(3), "{:?}", call.took);
    assert_eq!(world.last_reason(), "source-unreadable");
    let detail = world.journal().last().unwrap()["detail"].to_string();
    assert!(detail.contains("sofia_reg_external.db: locked by another process"), "{detail}");
    // What could be read counts.
    assert!(world.keeps("203.0.113.20"));

    // After the failure is forgotten, and the lock is gone.
    drop(held);
    world.reboot();
    assert!(!world.keeps("203.0.113.66"));
    assert_eq!(world.last_reason(), "not-registered");
}

#[test]
fn a_short_lock_is_waited_for() {
    let world = World::with_databases();
    world.register("sofia_reg_internal.db", "203.0.113.20", 3600);
    let held = Exclusive::hold(&world.path("db/sofia_reg_internal.db"));
    let ignore = world.command(&["203.0.113.20"]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(150));
    drop(held);
    assert!(ignore.wait_with_output().unwrap().status.success());
    assert_eq!(world.last_reason(), "registered");
}

#[test]
fn broken_files_are_named_and_the_others_count() {
    type Break = fn(&Path);
    let world = World::with_databases();
    world.register("sofia_reg_internal.db", "203.0.113.20", 3600);
    let broken = world.path("db/sofia_reg_broken.db");
    let ways: [(Break, &str); 4] = [
        (|path| std::fs::write(path, "").unwrap(), "it is empty"),
        (|path| std::fs::write(path, "no database ".repeat(1000)).unwrap(), "not a database"),
        (|path| std::fs::create_dir(path).unwrap(), "it is a directory"),
        (
            |path| drop(sqlite(path, "CREATE TABLE other (x)")),
            "it has neither sip_registrations nor registrations",
        ),
    ];
    for (break_it, says) in ways {
        break_it(&broken);
        world.reboot();
        let explained = world.explain("203.0.113.66");
        assert!(
            explained.contains("sofia_reg_broken.db: ") && explained.contains(says),
            "{says}:\n{explained}"
        );
        world.reboot();
        let _ = std::fs::remove_dir_all(world.path("state"));
        assert!(world.keeps("203.0.113.20"), "{says}");
        assert!(!world.keeps("203.0.113.66"), "{says}");
        world.configure("source = \"sqlite\"\non-error = \"keep\"");
        assert!(world.keeps("203.0.113.66"), "{says}: absence is not proven");
        world.configure("source = \"sqlite\"");
        let _ = std::fs::remove_file(&broken);
        let _ = std::fs::remove_dir(&broken);
    }
}

#[test]
fn a_huge_table_is_never_read_whole() {
    let world = World::with_databases();
    let internal = world.path("db/sofia_reg_internal.db");
    // Without the indexes that do not matter here it is filled in a moment.
    let drop: String = sqlite(
        &internal,
        "SELECT 'DROP INDEX ' || name || ';' FROM sqlite_master WHERE type = 'index' AND name <> 'sr_network_ip'",
    );
    sqlite(&internal, &drop);
    sqlite(
        &internal,
        &format!(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 499999) \
             INSERT INTO sip_registrations (expires, network_ip, contact) \
             SELECT {}, '10.' || (i >> 16) || '.' || ((i >> 8) & 255) || '.' || (i & 255), 'sip:101@192.168.1.50' FROM n",
            now() + 3600
        ),
    );
    for cache in ["0s", "60s"] {
        world.reboot();
        world.configure(&format!("source = \"sqlite\"\ncache = \"{cache}\""));
        assert!(world.keeps("10.3.2.1"));
        assert!(!world.keeps("10.99.2.1"));
        let explained = world.explain("10.4.4.4");
        assert!(explained.contains("sofia_reg_internal.db: 1 live registration"), "{explained}");
    }
    // Both answers are shared all the same.
    assert!(world.explain("10.99.2.1").contains("for all calls of 1m"));
    assert!(world.explain("10.3.2.1").contains("for all calls of 1m"));
}

fn soon() -> Deadline {
    Deadline::after(Instant::now(), Duration::from_secs(30))
}

/// FreeSWITCH's files of this host.
fn source(world: &World) -> Source {
    let files = std::fs::read_dir(world.path("db")).unwrap().map(|entry| entry.unwrap().path());
    Source::Sqlite(files.collect())
}

/// Registers 120,000 phones from 10.0.0.0 on, one of them expired.
fn register_many(world: &World) {
    let internal = world.path("db/sofia_reg_internal.db");
    let drop = sqlite(
        &internal,
        "SELECT 'DROP INDEX ' || name || ';' FROM sqlite_master WHERE type = 'index' AND name <> 'sr_network_ip'",
    );
    sqlite(&internal, &drop);
    sqlite(
        &internal,
        &format!(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 119999) \
             INSERT INTO sip_registrations (sip_user, sip_host, expires, network_ip, contact) \
             SELECT i, 'a.example.com', {} + CASE i WHEN 7 THEN -7200 ELSE 0 END, \
             '10.' || (i >> 16) || '.' || ((i >> 8) & 255) || '.' || (i & 255), printf('sip:101@192.168.1.50%.300c', 'x') FROM n",
            now() + 3600
        ),
    );
}

#[test]
fn everyone_of_a_huge_table_beside_a_writer() {
    let world = World::with_databases();
    register_many(&world);
    world.register("core.db", "2001:db8:66::11", 3600);
    world.register("sofia_reg_external.db", "203.0.113.20", 3600);
    let internal = world.path("db/sofia_reg_internal.db");
    let source = source(&world);
    let done = AtomicBool::new(false);
    let (everyone, mut waits) = std::thread::scope(|scope| {
        // As FreeSWITCH does: it waits for its turn, and then holds the file for moments.
        let writer = scope.spawn(|| {
            let mut waits = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let start = Instant::now();
                let held = Exclusive::wait_and_hold(&internal, Duration::from_secs(5));
                waits.push(start.elapsed());
                std::thread::sleep(Duration::from_millis(3));
                drop(held);
            }
            waits
        });
        let everyone = source.everyone(now(), soon()).unwrap();
        done.store(true, Ordering::Relaxed);
        (everyone, writer.join().unwrap())
    });
    assert_eq!(everyone.failures, [""; 0]);
    assert!(everyone.complete);
    assert_eq!(everyone.registered.len(), 119_999 + 2);
    for address in ["10.0.0.0", "10.1.212.191", "2001:db8:66::11", "203.0.113.20"] {
        assert!(everyone.registered.contains_key(&address.parse::<IpAddr>().unwrap()), "{address}");
    }
    assert!(
        everyone.notes.iter().any(|note| note.ends_with("sofia_reg_internal.db: 119999 live registrations")),
        "{:?}",
        everyone.notes
    );
    waits.sort();
    let median = waits[waits.len() / 2];
    assert!(waits.len() > 5, "{} transactions had their turn", waits.len());
    assert!(median < Duration::from_millis(40), "the start of sqlite3 and at most 20 ms: {median:?}");
}

#[test]
fn everyone_names_what_could_not_be_read() {
    let world = World::with_databases();
    register_many(&world);
    let source = source(&world);
    let held = Exclusive::hold(&world.path("db/sofia_reg_external.db"));
    let deadline = Deadline::after(Instant::now(), Duration::from_secs(2));
    let everyone = source.everyone(now(), deadline).unwrap();
    assert_eq!(everyone.registered.len(), 119_999);
    assert_eq!(everyone.failures.len(), 1);
    assert!(
        everyone.failures[0].ends_with("sofia_reg_external.db: locked by another process all the time"),
        "{:?}",
        everyone.failures
    );
    drop(held);

    let hurry = Deadline::after(Instant::now(), Duration::from_millis(60));
    let everyone = source.everyone(now(), hurry).unwrap();
    assert!(everyone.failures[0].contains("not all of it could be read in time"), "{:?}", everyone.failures);

    // What is read before the damage counts.
    let internal = std::fs::File::options().write(true).open(world.path("db/sofia_reg_internal.db")).unwrap();
    internal.write_all_at(&vec![0xff; 1 << 18], internal.metadata().unwrap().len() / 4 * 3).unwrap();
    let everyone = source.everyone(now(), soon()).unwrap();
    assert!(everyone.failures[0].contains("malformed"), "{:?}", everyone.failures);
    assert!((1000..119_999).contains(&everyone.registered.len()), "{}", everyone.registered.len());

    std::fs::remove_dir_all(world.path("db")).unwrap();
    assert!(source.everyone(now(), soon()).is_err());
}

#[test]
fn accounts_of_an_address() {
    let world = World::with_databases();
    let source = source(&world);
    let accounts = |address: &str| source.accounts(address.parse().unwrap(), now(), soon()).unwrap();
    world.register("sofia_reg_internal.db", "203.0.113.20", 3600);
    world.register("core.db", "203.0.113.20", 3600);
    world.register("core.db", "203.0.113.21", 3600);
    world.register("sofia_reg_internal-ipv6.db", "[2001:db8:66::11]", 3600);
    world.register("sofia_reg_internal.db", "203.0.113.22", -1);
    sqlite(
        &world.path("db/sofia_reg_external.db"),
        &format!(
            "INSERT INTO sip_registrations (sip_user, sip_host, expires, network_ip) VALUES \
             ('102', 'b.example.com', {0}, '203.0.113.20'), ('102', 'b.example.com', {0}, '::ffff:203.0.113.20'), \
             ('1' || char(27, 10) || '3', 'b.example.com', {0}, '203.0.113.20'), (NULL, 'b.example.com', {0}, '203.0.113.20')",
            now() + 60
        ),
    );
    let expected = ["1\u{fffd} 3@b.example.com", "101@a.example.com", "102@b.example.com"];
    assert_eq!(accounts("203.0.113.20"), expected);
    assert_eq!(accounts("::ffff:203.0.113.20"), expected);
    assert_eq!(accounts("203.0.113.21"), ["101@a.example.com"], "the core alone has it");
    assert_eq!(accounts("2001:db8:66::11"), ["101@a.example.com"]);
    assert_eq!(accounts("203.0.113.22"), [""; 0]);

    sqlite(
        &world.path("db/sofia_reg_internal.db"),
        "UPDATE sip_registrations SET expires = expires + 7200; \
         WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 5999) \
         INSERT INTO sip_registrations (sip_user, sip_host, expires, network_ip) SELECT i, 'a', 4000000000, '203.0.113.30' FROM n",
    );
    assert_eq!(accounts("203.0.113.30").len(), 20);
    assert_eq!(accounts("203.0.113.30")[0], "1000@a");

    let held = Exclusive::hold(&world.path("db/sofia_reg_external.db"));
    let ask = |address: &str| {
        let deadline = Deadline::after(Instant::now(), Duration::from_millis(300));
        source.accounts(address.parse().unwrap(), now(), deadline)
    };
    assert!(ask("203.0.113.66").unwrap_err().to_string().contains("sofia_reg_external.db: locked"));
    drop(held);
}

#[test]
fn only_the_very_device_is_registered() {
    let world = World::with_databases();
    let source = source(&world);
    let ask = |devices: &[(&str, &str, bool)]| {
        let (asked, expected) = wanted(devices);
        assert_eq!(source.registered(&asked, now(), soon()).unwrap(), expected);
    };
    world.register("core.db", "203.0.113.21", 3600);
    world.register("sofia_reg_internal-ipv6.db", "[2001:db8:66::11]", 3600);
    world.register("sofia_reg_internal.db", "203.0.113.22", -1);
    sqlite(
        &world.path("db/sofia_reg_external.db"),
        &format!(
            "INSERT INTO sip_registrations (sip_user, sip_host, sip_username, sip_realm, expires, network_ip) VALUES \
             ('201', 'B.Example.com', 'alice', 'auth.Example.com', {0}, '::ffff:203.0.113.30'), \
             ('202', 'b.example.com', NULL, NULL, {1}, '203.0.113.30'), \
             (NULL, NULL, NULL, NULL, {0}, '203.0.113.30')",
            now() + 60,
            now() - 1
        ),
    );
    let devices = [
        ("201@b.example.com", "203.0.113.30", true),
        ("alice@AUTH.example.com", "::ffff:203.0.113.30", true),
        ("101@A.example.com", "203.0.113.21", true),
        ("101@a.example.com", "2001:db8:66::11", true),
        ("101@a.example.com", "203.0.113.22", false),
        ("101@a.example.com", "203.0.113.30", false),
        ("101@a.example.com", "2001:db8:66::12", false),
        ("alice@b.example.com", "203.0.113.30", false),
        ("201@auth.example.com", "203.0.113.30", false),
        ("Alice@auth.example.com", "203.0.113.30", false),
        ("202@b.example.com", "203.0.113.30", false),
        ("201@b.example.com", "203.0.113.31", false),
        ("%@b.example.com", "203.0.113.30", false),
        ("' OR 1=1 --@b.example.com", "203.0.113.30", false),
        ("201@b.example.com", "", true),
        ("alice@AUTH.example.com", "", true),
        ("alice@b.example.com", "", false),
        ("201@auth.example.com", "", false),
        ("Alice@auth.example.com", "", false),
        ("202@b.example.com", "", false),
        ("%@b.example.com", "", false),
        ("' OR 1=1 --@b.example.com", "", false),
        ("101@a.example.com", "", true),
    ];
    ask(&devices);
    ask(&[]);

    // What is not found is not absent while a file cannot be read.
    let hurry = |devices: &[(&str, &str, bool)]| {
        let deadline = Deadline::after(Instant::now(), Duration::from_millis(300));
        let start = Instant::now();
        let answer = source.registered(&wanted(devices).0, now(), deadline);
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        answer.map_err(|error| format!("{error:#}"))
    };
    let broken = world.path("db/sofia_reg_internal.db");
    let held = Exclusive::hold(&broken);
    assert_eq!(hurry(&devices[..4]), Ok(vec![true; 4]));
    let error = hurry(&devices).unwrap_err();
    assert!(error.ends_with("sofia_reg_internal.db: locked by another process all the time"), "{error}");
    drop(held);
    std::fs::write(&broken, "no database ".repeat(1000)).unwrap();
    assert_eq!(hurry(&devices[..4]), Ok(vec![true; 4]));
    let error = hurry(&devices).unwrap_err();
    assert!(error.contains("sofia_reg_internal.db: ") && error.contains("not a database"), "{error}");
}

#[test]
fn many_are_found_in_a_huge_table() {
    let world = World::with_databases();
    register_many(&world);
    let nowhere = wanted(&[("7@a.example.com", "", false)]);
    let error = source(&world).registered(&nowhere.0, now(), soon()).unwrap_err();
    assert!(error.to_string().contains("is an index on the user missing?"), "{error:#}");
    sqlite(
        &world.path("db/sofia_reg_internal.db"),
        "CREATE INDEX sr_sip_user ON sip_registrations (sip_user); \
         CREATE INDEX sr_sip_username ON sip_registrations (sip_username)",
    );
    let number = |i: usize| (format!("{i}@a.example.com"), format!("10.0.{}.{}", i >> 8, i & 255), i != 7);
    let many: Vec<_> = (0..1000).map(number).collect();
    let devices = many.iter().map(|(user, address, found)| (user.as_str(), address.as_str(), *found));
    let anywhere = devices.clone().map(|(user, _, found)| (user, "", found));
    let (asked, expected) = wanted(&devices.chain(anywhere).collect::<Vec<_>>());
    let start = Instant::now();
    assert_eq!(source(&world).registered(&asked, now(), soon()).unwrap(), expected);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let hurry = Deadline::after(Instant::now(), Duration::from_millis(40));
    let error = source(&world).registered(&asked, now(), hurry).unwrap_err();
    assert!(error.to_string().contains("not all of it could be read in time"), "{error:#}");
}

#[test]
fn observe_decides_and_records_only() {
    let world = World::with_databases();
    world.register("sofia_reg_internal.db", "203.0.113.20", 3600);
    world.configure("source = \"sqlite\"\nmode = \"observe\"");
    assert!(!world.keeps("203.0.113.20"));
    let line = world.journal().pop().unwrap();
    assert_eq!((line["decision"].as_str(), line["mode"].as_str()), (Some("keep"), Some("observe")));
    assert!(world.explain("203.0.113.20").contains("keep, but mode is \"observe\""));
}
