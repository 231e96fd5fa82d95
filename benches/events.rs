//! What `ringfence-events` costs: each event, at rest, in memory, and until a failure is in the log; beside the goals.
//!
//! `make bench`. Being slow is no failure here: the table says "missed". Not having done the same is one.

#![expect(unreachable_pub, dead_code, unused_imports, reason = "shares the tests' support")]

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use support::event_source::{event, failure, now_us};
use support::{EventSource, Events, Postgres, Table, World, only_built, wait_for};

/// So many attempts, each of two events that make one line.
const FAILURES: usize = 100_000;

/// So many failures, one after the other.
const LATENCIES: usize = 200;

/// As many accounts as a large host has.
const ACCOUNTS: &str = "
    INSERT INTO v_domains (domain_uuid, domain_name, domain_enabled) VALUES
        ('11111111-1111-1111-1111-111111111111', 'a.example.com', 'true');
    INSERT INTO v_extensions (extension_uuid, domain_uuid, extension, enabled)
        SELECT gen_random_uuid(), '11111111-1111-1111-1111-111111111111', i, 'true' FROM generate_series(1, 5000) AS i";

fn main() {
    if only_built() {
        return;
    }
    let mut table = Table::default();
    idle(&mut table);
    load(&mut table);
    latency(&mut table, "event to log", "");
    let server = Postgres::with_fusionpbx(ACCOUNTS);
    let target = format!(
        "[fusionpbx]\npostgres = \"host={} port={} dbname=fusionpbx user=ringfence\"",
        server.socket_dir().display(),
        server.port
    );
    let log = latency(&mut table, "event to log, FusionPBX asked", &target);
    let known = log.lines().filter(|line| line.contains(" known=yes ")).count();
    assert!(known > LATENCIES / 2, "FusionPBX answers: {known} of {LATENCIES}");
    table.print();
}

fn set_up(more: &str) -> (World, EventSource, Events, TcpStream) {
    let (world, source) = (World::with_databases(), EventSource::new());
    let socket =
        format!("event-socket = {{ address = \"127.0.0.1:{}\", password = \"ClueCon\" }}", source.port);
    world.configure(&format!("source = \"sqlite\"\n{socket}\n{more}"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence-events"));
    let events = Events::spawn(&world, command.arg("--config").arg(world.config()).arg("run"));
    let stream = source.listener();
    (world, source, events, stream)
}

fn idle(table: &mut Table) {
    let (_world, _source, events, _stream) = set_up("");
    std::thread::sleep(Duration::from_secs(1));
    let before = events.cpu();
    std::thread::sleep(Duration::from_secs(10));
    let share = events.cpu().saturating_sub(before).as_secs_f64() / 10.0 * 100.0;
    table.row("at rest, of a core", &format!("{share:.1} %"), "<= 0.5 %", Some(share <= 0.5));
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let mib = events.memory()[1] as f64 / 1024.0;
    table.memory("memory at rest", mib, 16.0);
}

fn load(table: &mut Table) {
    let (_world, _source, events, mut stream) = set_up("");
    let now = now_us();
    let batches: Vec<String> = (0..FAILURES / 100)
        .map(|batch| {
            let one = |n: usize| {
                let n = batch * 100 + n;
                failure(&(n % 3_000).to_string(), &format!("198.18.{}.{}", n / 250 % 250, n % 250), now)
            };
            (0..100).map(one).collect()
        })
        .collect();
    let (start, before) = (Instant::now(), events.cpu());
    for batch in &batches {
        stream.write_all(batch.as_bytes()).unwrap();
    }
    wait_for("the last line", || {
        std::thread::sleep(Duration::from_millis(80));
        events.log().lines().filter(|line| line.contains(" failure ")).count() == FAILURES
    });
    let (took, cpu) = (start.elapsed(), events.cpu().saturating_sub(before).as_secs_f64());
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let (count, mib) = ((FAILURES * 2) as f64, events.memory()[1] as f64 / 1024.0);
    let rate = count / cpu;
    table.row("events a second of one core", &format!("{rate:.0}"), ">= 20000", Some(rate >= 20_000.0));
    table.row("processor time of an event", &format!("{:.1} us", cpu / count * 1e6), "", None);
    table.row("as long as the log took", &format!("{:.2} s", took.as_secs_f64()), "", None);
    table.memory("memory under load, at most", mib, 20.0);
}

/// Each failure is of another account, from another source. The log.
fn latency(table: &mut Table, name: &str, more: &str) -> String {
    let (_world, _source, events, mut stream) = set_up(more);
    let mut took: Vec<_> = (1..=LATENCIES)
        .map(|number| {
            std::thread::sleep(Duration::from_millis(10));
            let failure = failure(&number.to_string(), &format!("198.18.0.{number}"), now_us());
            let start = Instant::now();
            stream.write_all(failure.as_bytes()).unwrap();
            while events.log().lines().count() < number {
                std::thread::yield_now();
            }
            start.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    took.sort_by(f64::total_cmp);
    for (what, at) in [("median", LATENCIES / 2), ("99 of 100", LATENCIES * 99 / 100 - 1)] {
        let ms = took[at];
        table.row(&format!("{name}, {what}"), &format!("{ms:.2} ms"), "<= 10 ms", Some(ms <= 10.0));
    }
    events.log()
}
