//! What a call of `ringfence-ignore` costs, beside the goals and beside what others need for the same; all in one run.
//!
//! `make bench`. Nothing here fails for being slow: the table says "missed".

#![expect(unreachable_pub, dead_code, unused_imports, reason = "shares the tests' support")]

mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{Fail2ban, Host, Postgres, Table, World, now, only_built, peak, sqlite, time, wait_for};

const PHONES: usize = 500;

fn main() {
    if only_built() {
        return;
    }
    let mut table = Table::default();
    let floor = floor(&mut table);
    snapshot(&mut table, floor);
    sqlite_files(&mut table, floor);
    postgres(&mut table, floor);
    event_socket(&mut table);
    huge(&mut table, floor);
    hanging(&mut table);
    locks(&mut table);
    fail2ban(&mut table);
    table.print();
}

/// A host with so many phones registered; its run directory in memory, as /run is.
fn world(databases: &[&str]) -> World {
    let world = World::empty();
    for name in databases {
        world.database(name);
    }
    let rows: Vec<_> =
        (0..PHONES).map(|n| format!("('{n}', {}, '10.0.{}.{}')", now() + 36_000, n / 250, n % 250)).collect();
    let database = world.path("db/sofia_reg_internal.db");
    if database.exists() {
        sqlite(
            &database,
            &format!(
                "INSERT INTO sip_registrations (sip_user, expires, network_ip) VALUES {}",
                rows.join(", ")
            ),
        );
    }
    let run_dir = Path::new("/dev/shm").join(world.dir().file_name().unwrap());
    std::fs::create_dir_all(&run_dir).unwrap();
    std::os::unix::fs::symlink(&run_dir, world.path("run")).unwrap();
    world
}

/// Milliseconds, and how far above the floor.
fn above(table: &mut Table, what: &str, ms: f64, floor: f64, goal: f64) {
    table.row(what, &format!("{ms:.2} ms"), &format!("<= floor + {goal} ms"), Some(ms <= floor + goal));
}

fn memory(table: &mut Table, what: &str, command: &Command) {
    table.memory(&format!("  peak memory, {what}"), peak(command), 12.0);
}

fn forget(world: &World) {
    let _ = std::fs::remove_dir_all(Path::new("/dev/shm").join(world.dir().file_name().unwrap()));
}

fn floor(table: &mut Table) -> f64 {
    let world = World::empty();
    let floor = time(&world.command(&["--version"]));
    table.row("floor: ringfence-ignore --version", &format!("{floor:.2} ms"), "", None);
    floor
}

fn snapshot(table: &mut Table, floor: f64) {
    let world = world(&["sofia_reg_internal.db"]);
    world.configure("source = \"sqlite\"\ncache = \"60s\"");
    world.keeps("10.0.0.1");
    let ms = time(&world.command(&["10.0.0.1"]));
    table.row("snapshot hit, 500 phones", &format!("{ms:.2} ms"), "<= 1.3 x floor", Some(ms <= 1.3 * floor));
    memory(table, "snapshot", &world.command(&["10.0.0.1"]));
    forget(&world);
}

fn sqlite_files(table: &mut Table, floor: f64) {
    let all = ["core.db", "sofia_reg_external.db", "sofia_reg_internal.db", "sofia_reg_internal-ipv6.db"];
    for (what, databases) in [
        ("one profile", &["sofia_reg_internal.db"][..]),
        ("one profile and core.db", &["core.db", "sofia_reg_internal.db"]),
        ("three profiles and core.db", &all),
    ] {
        let world = world(databases);
        world.configure("source = \"sqlite\"\ncache = \"0s\"");
        above(
            table,
            &format!("SQLite, no snapshot, {what}"),
            time(&world.command(&["10.0.0.1"])),
            floor,
            1.2,
        );
        // A snapshot that is too old for the next call: each reads all 500 phones and shares them.
        world.configure("source = \"sqlite\"\ncache = \"1ms\"");
        let ms = time(&world.command(&["10.0.0.1"]));
        table.row("  the same, making a snapshot of 500 phones", &format!("{ms:.2} ms"), "", None);
        memory(table, "SQLite", &world.command(&["10.0.0.1"]));
        forget(&world);
    }
}

fn fill(server: &Postgres, rows: usize) {
    server.psql(&format!(
        "INSERT INTO sip_registrations (sip_user, expires, network_ip, contact) SELECT i, {}, \
         '10.' || (i >> 16) || '.' || ((i >> 8) & 255) || '.' || (i & 255), 'sip:101@192.168.1.50:5060' \
         FROM generate_series(0, {rows} - 1) AS i; ANALYZE sip_registrations",
        now() + 36_000
    ));
}

fn dsn(server: &Postgres) -> String {
    let dir = server.socket_dir().display();
    format!(
        "source = \"postgres\"\ncache = \"0s\"\npostgres = \"host={dir} port={} dbname=freeswitch user=ringfence\"",
        server.port
    )
}

fn postgres(table: &mut Table, floor: f64) {
    let server = Postgres::start();
    server.load_recorded();
    fill(&server, PHONES);
    let world = world(&[]);
    world.configure(&dsn(&server));
    let ours = time(&world.command(&["10.0.0.1"]));
    above(table, "PostgreSQL over a Unix socket, no snapshot", ours, floor, 3.5);
    world.configure(&dsn(&server).replace("\"0s\"", "\"1ms\""));
    let ms = time(&world.command(&["10.0.0.1"]));
    table.row("  the same, making a snapshot of 500 phones", &format!("{ms:.2} ms"), "", None);
    memory(table, "PostgreSQL", &world.command(&["10.0.0.1"]));
    let psql = server.psql_command(
        "freeswitch",
        "SELECT count(*), string_agg(concat_ws(' ', network_ip, expires), ' ') FROM sip_registrations \
         WHERE expires > 1 AND network_ip IN ('10.0.0.1', '::ffff:10.0.0.1')",
    );
    let theirs = time(&psql);
    table.row(
        "the real psql, asking the same",
        &format!("{theirs:.2} ms"),
        ">= 2 x ours",
        Some(theirs >= 2.0 * ours),
    );
    for (what, sslmode) in [("TLS", "require"), ("no TLS", "disable")] {
        world.configure(&format!(
            "source = \"postgres\"\ncache = \"0s\"\npostgres = \"host=127.0.0.1 port={} dbname=freeswitch user=ringfence \
             password='s3cr=t \\\\'\\\\\\\\' sslmode={sslmode}\"",
            server.port
        ));
        assert!(world.keeps("10.0.0.1"), "{:?}", world.journal());
        let ms = time(&world.command(&["10.0.0.1"]));
        table.row(
            &format!("PostgreSQL over TCP, {what}, scram"),
            &format!("{ms:.2} ms"),
            "no 40 ms delay",
            Some(ms < 40.0),
        );
    }
    memory(table, "PostgreSQL over TCP", &world.command(&["10.0.0.1"]));
    forget(&world);
}

/// FreeSWITCH with so many registrations on one profile, as `mod_sofia` tells of them.
fn event_socket(table: &mut Table) {
    for phones in [500, 10_000] {
        let registrations: String = (0..phones).fold(String::new(), |all, n| {
            let ip = format!("10.0.{}.{}", n / 250, n % 250);
            all + &format!(
                "    <registration>\n        <call-id>{n}@lab</call-id>\n        <user>{n}@a.example.com</user>\n        \
                 <contact>&quot;&quot; &lt;sip:{n}@{ip}:5060;fs_nat=yes;fs_path=sip%3A{n}%40{ip}%3A5060&gt;</contact>\n        \
                 <agent>Yealink SIP-T46S 66.85.0.5</agent>\n        <status>Registered(UDP)(unknown) exp(2026-11-20 14:26:23) \
                 expsecs(3600)</status>\n        <ping-status>Reachable</ping-status>\n        <ping-time>0.00</ping-time>\n        \
                 <host>pbx</host>\n        <network-ip>{ip}</network-ip>\n        <network-port>5060</network-port>\n        \
                 <sip-auth-user>{n}</sip-auth-user>\n        <sip-auth-realm>a.example.com</sip-auth-realm>\n        \
                 <mwi-account>{n}@a.example.com</mwi-account>\n    </registration>\n"
            )
        });
        let registrations =
            format!("<profile>\n  <registrations>\n{registrations}  </registrations>\n</profile>\n");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let profiles = "<profiles>\n<name>internal</name>\n<type>profile</type>\n</profiles>\n";
            let body =
                |body: &str| format!("Content-Type: api/response\nContent-Length: {}\n\n{body}", body.len());
            for mut stream in listener.incoming().flatten() {
                let replies = [
                    "Content-Type: command/reply\nReply-Text: +OK accepted\n\n",
                    &body(profiles),
                    &body(&registrations),
                ];
                let _ = stream.write_all(b"Content-Type: auth/request\n\n");
                for reply in replies {
                    let _ = std::io::Read::read(&mut stream, &mut [0; 200]);
                    let _ = stream.write_all(reply.as_bytes());
                }
            }
        });
        let world = world(&[]);
        world.configure(&format!(
            "source = \"event-socket\"\ncache = \"0s\"\nevent-socket = {{ address = \"127.0.0.1:{port}\", password = \"ClueCon\" }}"
        ));
        assert!(world.keeps("10.0.0.1"), "{:?}", world.journal());
        let ms = time(&world.command(&["10.0.0.1"]));
        table.row(&format!("event socket, no snapshot, {phones} phones"), &format!("{ms:.2} ms"), "", None);
        memory(table, &format!("event socket, {phones} phones"), &world.command(&["10.0.0.1"]));
        forget(&world);
    }
}

fn huge(table: &mut Table, floor: f64) {
    const ROWS: usize = 1_000_000;
    let server = Postgres::start();
    server.load_recorded();
    fill(&server, ROWS);
    let world = world(&["sofia_reg_internal.db"]);
    world.configure(&dsn(&server));
    assert!(world.keeps("10.9.9.9"));
    above(
        table,
        "PostgreSQL, a million registrations, one address",
        time(&world.command(&["10.9.9.9"])),
        floor,
        3.5,
    );
    world.configure(&dsn(&server).replace("\"0s\"", "\"60s\""));
    world.keeps("10.9.9.9");
    let ms = time(&world.command(&["10.9.9.9"]));
    table.row(
        "  the same from the snapshot",
        &format!("{ms:.2} ms"),
        "<= 1.3 x floor",
        Some(ms <= 1.3 * floor),
    );
    forget(&world);

    let database = world.path("db/sofia_reg_internal.db");
    sqlite(
        &database,
        &format!(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS} - 1) \
             INSERT INTO sip_registrations (expires, network_ip, contact) SELECT {}, \
             '10.' || (i >> 16) || '.' || ((i >> 8) & 255) || '.' || (i & 255), 'sip:101@192.168.1.50:5060' FROM n",
            now() + 36_000
        ),
    );
    world.configure("source = \"sqlite\"\ncache = \"0s\"");
    assert!(world.keeps("10.9.9.9"));
    above(
        table,
        "SQLite, a million registrations, one address",
        time(&world.command(&["10.9.9.9"])),
        floor,
        1.2,
    );
}

/// A hundred at once against a server that takes connections and says nothing.
fn hanging(table: &mut Table) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let world = world(&[]);
    let port = listener.local_addr().unwrap().port();
    world.configure(&format!(
        "source = \"postgres\"\npostgres = \"host=127.0.0.1 port={port} user=u dbname=d\""
    ));
    for (what, goal) in [
        ("a hundred calls at once, the source hangs: the slowest", 800),
        ("  a hundred more, a moment later: the slowest", 200),
    ] {
        let slowest = std::thread::scope(|scope| {
            let world = &world;
            let calls: Vec<_> =
                (0..100).map(|n| scope.spawn(move || world.call(&[&format!("10.0.0.{n}")]).took)).collect();
            calls.into_iter().map(|call| call.join().unwrap()).max().unwrap()
        });
        let ms = slowest.as_millis();
        table.row(what, &format!("{ms} ms"), &format!("<= {goal} ms"), Some(ms <= goal));
    }
    forget(&world);
}

/// How long FreeSWITCH waits for a database that is being read: the longest of many exclusive transactions.
fn locks(table: &mut Table) {
    let world = world(&["sofia_reg_internal.db"]);
    let database = world.path("db/sofia_reg_internal.db");
    sqlite(
        &database,
        &format!(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 19999) \
             INSERT INTO sip_registrations (expires, network_ip) \
             SELECT {}, '10.7.' || (i >> 8) || '.' || (i & 255) FROM n",
            now() + 36_000
        ),
    );
    world.configure("source = \"sqlite\"\ncache = \"0s\"");
    let writer = |rounds: u32| {
        let script = "BEGIN EXCLUSIVE; UPDATE sip_registrations SET ping_time = 1 WHERE rowid = 1; COMMIT;\n";
        let mut sqlite3 = Command::new("sqlite3")
            .arg(&database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = sqlite3.stdin.take().unwrap();
        let mut stdout = std::io::BufReader::new(sqlite3.stdout.take().unwrap());
        writeln!(stdin, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;").unwrap();
        // Polls every millisecond, so that its own wait is not longer than ours.
        writeln!(stdin, ".timeout 1000").unwrap();
        let mut longest = Duration::ZERO;
        for round in 0..=rounds {
            let start = Instant::now();
            writeln!(stdin, "{script}SELECT 'done';").unwrap();
            let mut line = String::new();
            while !line.ends_with("done\n") {
                std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
            }
            if round > 0 {
                longest = longest.max(start.elapsed());
            }
        }
        drop(stdin);
        sqlite3.wait().unwrap();
        longest
    };
    let alone = writer(500);
    let beside = std::thread::scope(|scope| {
        let readers = scope.spawn(|| (0..300).for_each(|_| drop(world.call(&["10.7.3.3"]))));
        let longest = writer(500);
        readers.join().unwrap();
        longest
    });
    let ms = beside.as_secs_f64() * 1000.0;
    table.row(
        &format!(
            "FreeSWITCH's longest write beside 300 reads (alone {:.1} ms)",
            alone.as_secs_f64() * 1000.0
        ),
        &format!("{ms:.1} ms"),
        "<= 20 ms",
        Some(ms <= 20.0),
    );
    forget(&world);
}

/// Lines per second through a real fail2ban, every one of them asking.
fn fail2ban(table: &mut Table) {
    const LINES: usize = 1500;
    let mut speeds = Vec::new();
    for ours in [false, true] {
        let host = Host::new();
        let world = world(&["sofia_reg_internal.db"]);
        world.configure("source = \"sqlite\"");
        let log = world.path("freeswitch.log");
        std::fs::write(&log, "").unwrap();
        let command = if ours {
            format!(
                "exec {} --config {} \"<ip>\"",
                world.command(&[]).get_program().display(),
                world.config().display()
            )
        } else {
            "exec /bin/false \"<ip>\"".to_owned()
        };
        let jail = format!(
            "[ringfence-freeswitch]\nenabled = true\nlogpath = {}\nmaxretry = 1000000\nignorecommand = {command}\nignorecache =\n",
            log.display()
        );
        let fail2ban = Fail2ban::start(&host, &world, &jail, &std::env::var("PATH").unwrap());
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S");
        let lines: String = (0..LINES).fold(String::new(), |lines, n| {
            let address = format!("10.200.{}.{}", n / 250, n % 250);
            lines + &format!("{date}.000000 0.00% [WARNING] sofia_reg.c:3210 Can't find user [999@a.example.com] from {address}\n\
                      You must define a domain called 'a.example.com' in your directory\n")
        });
        let start = Instant::now();
        std::fs::File::options().append(true).open(&log).unwrap().write_all(lines.as_bytes()).unwrap();
        wait_for("all lines", || fail2ban.number("ringfence-freeswitch", "Total failed") >= LINES);
        speeds.push(1500.0 / start.elapsed().as_secs_f64());
        drop(fail2ban);
        forget(&world);
    }
    table.row("fail2ban, exec /bin/false: lines a second", &format!("{:.0}", speeds[0]), "", None);
    table.row(
        "fail2ban, ringfence-ignore: lines a second",
        &format!("{:.0}", speeds[1]),
        ">= 0.8 x that",
        Some(speeds[1] >= 0.8 * speeds[0]),
    );
}
