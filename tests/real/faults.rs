//! Many calls at once, and a host that fails in other ways than the source.

use std::io::Read;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Host, World, run};

/// A PostgreSQL that takes connections and never says a word; how many have come.
fn silent_server() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            counter.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || { &stream }.read_to_end(&mut Vec::new()));
        }
    });
    (port, count)
}

/// The calls' exit codes, and how long the last of them took.
fn all(calls: Vec<Child>, start: Instant) -> (Vec<Option<i32>>, Duration) {
    let codes = calls.into_iter().map(|mut call| call.wait().unwrap().code()).collect();
    (codes, start.elapsed())
}

fn spawn(world: &World, count: usize) -> Vec<Child> {
    (0..count)
        .map(|n| world.command(&[&format!("203.0.113.{}", n % 250)]).stdin(Stdio::null()).spawn().unwrap())
        .collect()
}

#[test]
fn a_hundred_calls_against_a_source_that_hangs_ask_it_once() {
    let (port, connections) = silent_server();
    let world = World::empty();
    world.configure(&format!(
        "source = \"postgres\"\npostgres = \"host=127.0.0.1 port={port} user=u dbname=d sslmode=disable\""
    ));
    let start = Instant::now();
    let (codes, took) = all(spawn(&world, 100), start);
    assert_eq!(codes, [Some(1); 100]);
    assert_eq!(connections.load(Ordering::SeqCst), 1, "all but one waited for the one that asks");
    assert!(took < Duration::from_secs(4), "{took:?}");

    // Later ones do not wait at all.
    let start = Instant::now();
    let (codes, took) = all(spawn(&world, 100), start);
    assert_eq!(codes, [Some(1); 100]);
    assert_eq!(connections.load(Ordering::SeqCst), 1, "the failure is remembered");
    assert!(took < Duration::from_secs(2), "{took:?}");

    // When it is forgotten, one of them probes, and the others do not wait for it.
    age_failure(&world, 11_000);
    let start = Instant::now();
    let (codes, _) = all(spawn(&world, 50), start);
    assert_eq!(codes, [Some(1); 50]);
    assert_eq!(connections.load(Ordering::SeqCst), 2, "one call probes");
    assert_eq!(world.journal().iter().filter(|line| line["reason"] != "source-unreadable").count(), 0);
}

/// Makes the remembered failure older.
fn age_failure(world: &World, by_ms: i64) {
    let path = world.path("run/registrations.lock");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = i64::from_be_bytes(bytes[8..16].try_into().unwrap()) - by_ms;
    bytes[8..16].copy_from_slice(&at.to_be_bytes());
    let checksum = crc32fast::hash(&bytes[4..]);
    bytes[..4].copy_from_slice(&checksum.to_be_bytes());
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_hundred_calls_share_one_look() {
    let world = World::with_databases();
    world.register("sofia_reg_internal.db", "203.0.113.20", 3600);
    world.configure("source = \"sqlite\"\ncache = \"60s\"");
    let calls = spawn(&world, 100);
    let (codes, _) = all(calls, Instant::now());
    assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1);
    assert_eq!(codes.iter().filter(|code| **code == Some(1)).count(), 99);
    // Of those who decided, one had asked.
    let asked = world.journal().iter().filter(|line| line["source"] == "sqlite").count();
    assert_eq!(asked, 1, "{:?}", world.journal());
}

#[test]
fn who_asks_may_die() {
    let (port, connections) = silent_server();
    let world = World::empty();
    world.configure(&format!("source = \"postgres\"\npostgres = \"host=127.0.0.1 port={port} user=u dbname=d sslmode=disable\"\ndeadline = \"4s\""));
    let mut asks = world.command(&["203.0.113.20"]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let waits = world.command(&["203.0.113.21"]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    asks.kill().unwrap();
    asks.wait().unwrap();
    // The lock went with it: the other asks itself.
    crate::support::wait_for("the other to ask", || connections.load(Ordering::SeqCst) == 2);
    assert_eq!(waits.wait_with_output().unwrap().status.code(), Some(1));
    assert_eq!(world.last_reason(), "source-unreadable");
}

#[test]
fn a_black_hole_costs_at_most_the_deadline() {
    let host = Host::new();
    run(host.command("iptables").args(["-A", "OUTPUT", "-p", "tcp", "--dport", "5432", "-j", "DROP"]));
    let world = World::empty();
    world.configure("source = \"postgres\"\npostgres = \"host=127.0.0.1 user=u dbname=d\"");
    let start = Instant::now();
    let call = on(&host, &world, "203.0.113.20").status().unwrap();
    assert_eq!(call.code(), Some(1));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert!(world.journal().pop().unwrap()["detail"].to_string().contains("no answer in time"));

    // And a name server that never answers.
    world.reboot();
    world.configure("source = \"postgres\"\npostgres = \"host=db.example.com user=u dbname=d\"");
    run(host.command("iptables").args(["-A", "INPUT", "-p", "udp", "-j", "DROP"]));
    let resolv = world.path("resolv.conf");
    std::fs::write(&resolv, "nameserver 127.0.0.1\n").unwrap();
    run(host.command("mount").arg("--bind").arg(&resolv).arg("/etc/resolv.conf"));
    let start = Instant::now();
    let call = on(&host, &world, "203.0.113.20").status().unwrap();
    assert_eq!(call.code(), Some(1));
    assert!(start.elapsed() > Duration::from_millis(500), "nobody waited: {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

/// A call of the tool on another host.
fn on(host: &Host, world: &World, address: &str) -> Command {
    let mut command = host.command("env");
    command
        .arg(format!("RINGFENCE_CONFIG={}", world.config().display()))
        .arg(world.command(&[]).get_program())
        .arg(address);
    command
}

#[test]
fn full_and_read_only_disks_cost_the_sharing_only() {
    let host = Host::new();
    let world = World::with_databases();
    world.register("sofia_reg_internal.db", "203.0.113.20", 3600);
    for dir in ["state", "run", "log"] {
        std::fs::create_dir_all(world.path(dir)).unwrap();
        run(host.command("mount").args(["-t", "tmpfs", "-o", "size=4k", "tmpfs"]).arg(world.path(dir)));
        run(host
            .command("dd")
            .args(["if=/dev/zero", "bs=4096", "count=1", "status=none"])
            .arg(format!("of={}", world.path(dir).join("full").display())));
    }
    for state in ["full", "read-only"] {
        if state == "read-only" {
            for dir in ["state", "run", "log"] {
                run(host.command("mount").args(["-o", "remount,ro"]).arg(world.path(dir)));
            }
        }
        for _ in 0..2 {
            let keeps = |address| {
                let output = on(&host, &world, address).output().unwrap();
                assert_eq!((output.stdout.len(), output.stderr.len()), (0, 0), "{state}");
                output.status.code()
            };
            assert_eq!(keeps("203.0.113.20"), Some(0), "{state}");
            assert_eq!(keeps("203.0.113.66"), Some(1), "{state}");
        }
    }
}

#[test]
fn missing_directories_are_made_or_done_without() {
    let world = World::with_databases();
    world.register("sofia_reg_internal.db", "203.0.113.20", 3600);
    for dir in ["state", "run", "log"] {
        assert!(!world.path(dir).exists());
    }
    assert!(world.keeps("203.0.113.20"));
    for dir in ["state", "run", "log"] {
        assert!(world.path(dir).is_dir());
        std::fs::remove_dir_all(world.path(dir)).unwrap();
        std::fs::write(world.path(dir), "a file is in the way").unwrap();
    }
    assert!(world.keeps("203.0.113.20"));
    assert!(!world.keeps("203.0.113.66"));
}

#[test]
fn nothing_is_left_behind() {
    let world = World::with_databases();
    world.register("sofia_reg_internal.db", "203.0.113.20", 3600);
    for _ in 0..3 {
        world.keeps("203.0.113.20");
    }
    let mut names: Vec<_> = ["run", "state", "log"]
        .iter()
        .flat_map(|dir| std::fs::read_dir(world.path(dir)).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["decisions.jsonl", "evidence.recent", "registrations.lock", "registrations.snapshot", "seen.table"]
    );
    assert!(world.dir().exists());
}
