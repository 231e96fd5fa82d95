//! FreeSWITCH's tables in PostgreSQL.

use std::time::{Duration, Instant};

use ringfence::deadline::Deadline;
use ringfence::postgres::Target;
use ringfence::registrations::Source;
use ringfence::registrations::devices::Whose;

use crate::support::{Postgres, World, now, wanted};

/// libpq's quoting of the roles' password.
const PASSWORD: &str = "password='s3cr=t \\'\\\\'";

fn toml(text: &str) -> String {
    format!("source = \"postgres\"\ncache = \"0s\"\npostgres = {text:?}")
}

/// Settings for the server's Unix socket.
fn over_socket(server: &Postgres) -> String {
    let dir = server.socket_dir().display();
    toml(&format!("host={dir} port={} dbname=freeswitch user=ringfence", server.port))
}

#[test]
fn every_way_in() {
    let server = Postgres::start();
    server.load_recorded();
    let world = World::empty();
    let port = server.port;
    let socket = server.socket_dir().display();
    let authority = server.authority();
    for dsn in [
        format!("host={socket} port={port} dbname=freeswitch user=ringfence"),
        format!("postgres://ringfence@{}:{port}/freeswitch", socket.to_string().replace('/', "%2F")),
        format!("postgres://ringfence:s3cr%3Dt%20'%5C@127.0.0.1:{port}/freeswitch?sslmode=disable"),
        format!(
            "pgsql://hostaddr=127.0.0.1 port={port} dbname=freeswitch user=ringfence {PASSWORD} options=''"
        ),
        format!(
            "pgsql://hostaddr=127.0.0.1 port={port} dbname=freeswitch user=ringfence {PASSWORD} options='-c client_min_messages=NOTICE' application_name='freeswitch'"
        ),
        format!(
            "host=localhost hostaddr=127.0.0.1 port={port} dbname=freeswitch user=tlsonly {PASSWORD} sslmode=require"
        ),
        format!(
            "host=127.0.0.1 port={port} dbname=freeswitch user=tlsonly {PASSWORD} sslmode=verify-full sslrootcert={}",
            authority.display()
        ),
    ] {
        world.configure(&toml(&dsn));
        world.reset();
        for (address, kept) in [
            ("203.0.113.20", true),
            ("::ffff:198.51.100.12", true),
            ("2001:DB8:66:0::11", true),
            ("203.0.113.66", false),
        ] {
            assert_eq!(world.keeps(address), kept, "{dsn} {address} {:?}", world.journal().last());
            assert_eq!(world.journal().last().unwrap()["source"], "postgres", "{:?}", world.journal().last());
        }
    }
}

#[test]
fn what_is_wrong_is_said_without_the_password() {
    let server = Postgres::start();
    let world = World::empty();
    let port = server.port;
    let socket = server.socket_dir().display();
    for (dsn, says) in [
        (
            format!("host={socket} port={port} dbname=freeswitch user=ringfence"),
            "it has neither sip_registrations nor registrations",
        ),
        (
            format!("host={socket} port={port} dbname=fusionpbx user=ringfence"),
            "database \"fusionpbx\" does not exist",
        ),
        (
            format!("host=127.0.0.1 port={port} dbname=freeswitch user=ringfence password=hunter2"),
            "password authentication failed",
        ),
        (
            format!("host=127.0.0.1 port={port} dbname=freeswitch user=tlsonly {PASSWORD} sslmode=disable"),
            "pg_hba.conf rejects",
        ),
        (
            format!(
                "host=127.0.0.1 port={port} dbname=freeswitch user=tlsonly {PASSWORD} sslmode=verify-full"
            ),
            "certificate",
        ),
        ("host=127.0.0.1 port=1 dbname=freeswitch user=ringfence password=hunter2".to_owned(), "refused"),
        (
            "host=db passwort=hunter2".to_owned(),
            "registrations.postgres: unknown key `passwort`; did you mean `password`?",
        ),
    ] {
        world.configure(&toml(&dsn));
        world.reboot();
        let explained = world.explain("203.0.113.20");
        assert!(
            explained.contains(says) && !explained.contains("hunter2") && !explained.contains("s3cr"),
            "{says}:\n{explained}"
        );
        assert!(explained.contains("may be banned (exit 1)"), "{explained}");
    }
}

#[test]
fn one_of_the_two_tables_is_enough() {
    let server = Postgres::start();
    server.load_recorded();
    let world = World::empty();
    world.configure(&over_socket(&server));
    server.psql("ALTER TABLE registrations RENAME TO gone");
    assert!(world.keeps("203.0.113.20"));
    server.psql("ALTER TABLE gone RENAME TO registrations; DELETE FROM sip_registrations");
    world.reset();
    world.configure(&over_socket(&server).replace("\"0s\"", "\"2s\""));
    assert!(world.keeps("203.0.113.20"));
    server.psql("DROP TABLE sip_registrations");
    world.reset();
    assert!(world.keeps("203.0.113.20"));
    assert_eq!(world.last_reason(), "registered");
}

#[test]
fn stale_rows_of_dead_nodes_do_not_count() {
    let server = Postgres::start();
    server.load_recorded();
    server.psql(&format!(
        "UPDATE sip_registrations SET expires = {}; UPDATE registrations SET expires = {0}",
        now() - 1
    ));
    let world = World::empty();
    world.configure(&over_socket(&server));
    assert!(!world.keeps("203.0.113.20"));
    assert_eq!(world.last_reason(), "not-registered");
}

#[test]
fn a_huge_table_is_never_read_whole() {
    let server = Postgres::start();
    server.load_recorded();
    server.psql(&format!(
        "INSERT INTO sip_registrations (expires, network_ip) \
         SELECT {}, '10.' || (i >> 16) || '.' || ((i >> 8) & 255) || '.' || (i & 255) FROM generate_series(0, 99999) AS i",
        now() + 3600
    ));
    let world = World::empty();
    let settings = over_socket(&server);
    for (cache, prefix) in [("0s", 128), ("60s", 128), ("0s", 64)] {
        world.reboot();
        world.configure(
            &settings.replace("cache = \"0s\"", &format!("cache = \"{cache}\"\nipv6-prefix = {prefix}")),
        );
        assert!(world.keeps("10.1.2.3"));
        assert!(world.keeps("203.0.113.20"));
        assert!(world.keeps("2001:db8:66::11"));
        assert!(!world.keeps("10.9.2.3"));
        assert_eq!(world.keeps("2001:db8:66::12"), prefix == 64);
    }
    let explained = world.explain("10.1.1.1");
    assert!(explained.contains("1 live registration"), "{explained}");
}

#[test]
fn a_database_that_hangs_costs_at_most_the_deadline_and_once() {
    let server = Postgres::start();
    server.load_recorded();
    let world = World::empty();
    let settings = over_socket(&server);
    world.configure(&settings);
    assert!(world.keeps("203.0.113.20"));
    server.freeze();
    let first = world.call(&["203.0.113.66"]);
    assert_eq!(first.code, 1);
    assert!(
        first.took > Duration::from_millis(500) && first.took < Duration::from_secs(3),
        "{:?}",
        first.took
    );
    assert_eq!(world.last_reason(), "source-unreadable");
    // Seen registered a moment ago; and nobody asks the database now.
    let second = world.call(&["203.0.113.20"]);
    assert_eq!(second.code, 0);
    assert!(second.took < Duration::from_millis(500), "{:?}", second.took);
    assert_eq!(world.last_reason(), "seen-lately");
    // Also after a reboot, and not for ever.
    world.reboot();
    assert_eq!(world.call(&["203.0.113.20"]).code, 0);
    world.configure(&(settings + "\nstale-ok = \"0s\""));
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(world.call(&["203.0.113.20"]).code, 1);
}

#[test]
fn a_locked_table_costs_at_most_the_deadline() {
    let server = Postgres::start();
    server.load_recorded();
    let mut locker = server
        .psql_command(
            "freeswitch",
            "BEGIN; LOCK TABLE sip_registrations IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(60)",
        )
        .spawn()
        .unwrap();
    crate::support::wait_for("the lock", || {
        server.psql("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock'").trim() == "1"
    });
    let world = World::empty();
    world.configure(&over_socket(&server));
    let call = world.call(&["203.0.113.20"]);
    assert_eq!(call.code, 1);
    assert!(call.took < Duration::from_secs(3), "{:?}", call.took);
    let detail = world.journal().pop().unwrap()["detail"].to_string();
    assert!(detail.contains("no answer in time"), "{detail}");
    locker.kill().unwrap();
    locker.wait().unwrap();
}

#[test]
fn auto_finds_a_clusters_database() {
    let server = Postgres::start();
    server.load_recorded();
    let world = World::empty();
    world.configure("source = \"auto\"");
    let switch = format!(
        "<settings><param name=\"core-db-dsn\" value=\"pgsql://hostaddr=127.0.0.1 port={} dbname=freeswitch user=ringfence {} options=''\"/></settings>",
        server.port, PASSWORD
    );
    let switch_conf = world.path("freeswitch/autoload_configs/switch.conf.xml");
    std::fs::write(&switch_conf, switch).unwrap();
    assert!(world.keeps("203.0.113.20"), "{:?}", world.journal());
    let explained = world.explain("203.0.113.20");
    assert!(explained.contains("core-db-dsn is PostgreSQL") && !explained.contains("s3cr"), "{explained}");

    // Without FreeSWITCH's own word, FusionPBX's server is the guess.
    std::fs::remove_file(switch_conf).unwrap();
    world.reboot();
    world.configure("source = \"auto\"\nsqlite-dir = \"/nonexistent\"");
    let config = format!(
        "database.0.type = pgsql\ndatabase.0.host = 127.0.0.1\ndatabase.0.port = {}\ndatabase.0.name = fusionpbx\n\
         database.0.username = ringfence\ndatabase.0.password = s3cr=t '\\\n",
        server.port
    );
    std::fs::write(world.path("config.conf"), config).unwrap();
    assert!(world.keeps("203.0.113.20"), "{:?}", world.journal());
}

#[test]
fn everyone_and_their_accounts() {
    let server = Postgres::start();
    server.load_recorded();
    let dir = server.socket_dir().display();
    let dsn = format!("host={dir} port={} dbname=freeswitch user=ringfence", server.port);
    let source = Source::Postgres(Target::parse(&dsn).unwrap());
    let soon = || Deadline::after(Instant::now(), Duration::from_secs(30));
    let everyone = || source.everyone(now(), soon()).unwrap();
    let accounts = |address: &str| source.accounts(address.parse().unwrap(), now(), soon()).unwrap();
    server.psql(&format!(
        "INSERT INTO sip_registrations (sip_user, sip_host, expires, network_ip) \
         SELECT i, 'b.example.com', {} - CASE i WHEN 7 THEN 7200 ELSE 0 END, \
         '10.' || (i >> 16) || '.' || ((i >> 8) & 255) || '.' || (i & 255) FROM generate_series(0, 119999) AS i; \
         INSERT INTO sip_registrations (sip_user, sip_host, expires, network_ip) VALUES \
         ('1' || E'\\x1b\\n' || '3', 'b.example.com', {0}, '203.0.113.20'), (NULL, 'b.example.com', {0}, '203.0.113.20')",
        now() + 3600
    ));
    let found = everyone();
    assert!(found.complete && found.failures.is_empty());
    assert_eq!(found.registered.len(), 119_999 + 4);
    for address in ["10.0.0.0", "10.1.212.191", "203.0.113.20", "2001:db8:66::11"] {
        assert!(found.registered.contains_key(&address.parse().unwrap()), "{address}");
    }
    assert_eq!(found.notes, ["sip_registrations: 120006 live registrations"]);
    assert_eq!(accounts("10.1.212.191"), ["119999@b.example.com"]);
    assert_eq!(accounts("::ffff:203.0.113.20"), ["1\u{fffd} 3@b.example.com", "102@a.example.com"]);
    assert_eq!(accounts("2001:db8:66::11"), ["104@a.example.com"]);
    assert_eq!(accounts("10.0.0.7"), [""; 0]);
    let named = |whose: Whose<'_>| {
        let devices = source.devices(whose, now(), soon()).unwrap().into_iter();
        let named =
            devices.map(|device| format!("{} {} {}", device.account, device.address, device.user_agent));
        named.collect::<Vec<_>>()
    };
    let yealink = "104@a.example.com 2001:db8:66::11 Yealink SIP-T46S 66.85.0.5";
    assert_eq!(named(Whose::Account(&"104@A.example.com".parse().unwrap())), [yealink]);
    assert_eq!(named(Whose::Address("2001:db8:66::11".parse().unwrap())), [yealink]);
    assert_eq!(named(Whose::Account(&"nobody@a.example.com".parse().unwrap())), [""; 0]);
    server
        .psql(&format!("UPDATE sip_registrations SET network_ip = '198.51.100.9' WHERE expires > {}", now()));
    assert_eq!(accounts("198.51.100.9").len(), 20);

    // The core's table alone.
    server.psql("TRUNCATE sip_registrations");
    assert_eq!(everyone().registered.len(), 4);
    assert_eq!(accounts("198.51.100.11"), ["101@a.example.com", "105@a.example.com"]);
    server.psql("DROP TABLE sip_registrations");
    assert_eq!(everyone().notes, ["registrations: 5 live registrations"]);
    assert_eq!(accounts("198.51.100.12"), ["102@b.example.com"]);
    assert_eq!(named(Whose::Address("198.51.100.12".parse().unwrap())), ["102@b.example.com 198.51.100.12 "]);
    server.psql("DROP TABLE registrations");
    let error = source.everyone(now(), soon()).unwrap_err();
    assert!(format!("{error:#}").contains("it has neither sip_registrations nor registrations"), "{error:#}");
    assert!(source.accounts("198.51.100.12".parse().unwrap(), now(), soon()).is_err());
}

#[test]
fn only_the_very_device_is_registered() {
    let server = Postgres::start();
    server.load_recorded();
    let dir = server.socket_dir().display();
    let dsn = format!("host={dir} port={} dbname=freeswitch user=ringfence", server.port);
    let source = Source::Postgres(Target::parse(&dsn).unwrap());
    let ask = |devices: &[(&str, &str, bool)]| {
        let (asked, expected) = wanted(devices);
        let soon = Deadline::after(Instant::now(), Duration::from_secs(30));
        assert_eq!(source.registered(&asked, now(), soon).unwrap(), expected);
    };
    server.psql(&format!(
        "INSERT INTO sip_registrations (sip_user, sip_host, sip_username, sip_realm, expires, network_ip) VALUES \
         ('201', 'B.Example.com', 'alice', 'auth.Example.com', {0}, '::ffff:203.0.113.30'), \
         ('202', 'b.example.com', NULL, NULL, {1}, '203.0.113.30'), \
         (NULL, NULL, NULL, NULL, {0}, '203.0.113.30'); \
         INSERT INTO registrations (reg_user, realm, expires, network_ip) VALUES \
         ('301', 'Core.example.com', {0}, '203.0.113.30')",
        now() + 3600,
        now() - 1
    ));
    let devices = [
        ("201@b.example.com", "203.0.113.30", true),
        ("alice@AUTH.example.com", "::ffff:203.0.113.30", true),
        ("alice@b.example.com", "203.0.113.30", false),
        ("201@auth.example.com", "203.0.113.30", false),
        ("Alice@auth.example.com", "203.0.113.30", false),
        ("202@b.example.com", "203.0.113.30", false),
        ("201@b.example.com", "203.0.113.31", false),
        ("%@b.example.com", "203.0.113.30", false),
        ("' OR 1=1 --@b.example.com", "203.0.113.30", false),
        ("104@a.example.com", "2001:db8:66::11", true),
        ("104@a.example.com", "2001:db8:66::12", false),
        ("301@core.example.com", "203.0.113.30", true),
        ("302@core.example.com", "203.0.113.30", false),
        ("201@b.example.com", "", true),
        ("alice@AUTH.example.com", "", true),
        ("alice@b.example.com", "", false),
        ("201@auth.example.com", "", false),
        ("Alice@auth.example.com", "", false),
        ("202@b.example.com", "", false),
        ("%@b.example.com", "", false),
        ("' OR 1=1 --@b.example.com", "", false),
        ("104@a.example.com", "", true),
        ("301@core.example.com", "", true),
        ("302@core.example.com", "", false),
    ];
    ask(&devices);
    ask(&devices[..2]);
    ask(&[]);

    // A thousand of them beside many registrations.
    server.psql(&format!(
        "INSERT INTO sip_registrations (sip_user, sip_host, expires, network_ip) \
         SELECT i, 'many.example.com', {}, '10.0.' || (i >> 8 & 255) || '.' || (i & 255) FROM generate_series(0, 49999) AS i",
        now() + 3600
    ));
    let many: Vec<_> = (0..1000)
        .map(|i| (format!("{i}@many.example.com"), format!("10.0.{}.{}", i >> 8, i & 255)))
        .collect();
    let devices_of_many = many.iter().map(|(account, address)| (account.as_str(), address.as_str(), true));
    let anywhere = many.iter().map(|(account, _)| (account.as_str(), "", true));
    let nowhere: Vec<_> = (0..1000).map(|i| format!("{i}@nowhere.example.com")).collect();
    let nowhere = nowhere.iter().map(|account| (account.as_str(), "", false));
    for many in [devices_of_many.collect::<Vec<_>>(), anywhere.chain(nowhere).collect()] {
        let start = Instant::now();
        ask(&many);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }

    // The core's table alone; and neither.
    server.psql("DROP TABLE sip_registrations");
    ask(&[("301@core.example.com", "203.0.113.30", true), ("alice@auth.example.com", "203.0.113.30", false)]);
    ask(&[("301@core.example.com", "", true), ("alice@auth.example.com", "", false)]);
    server.psql("DROP TABLE registrations");
    let soon = Deadline::after(Instant::now(), Duration::from_secs(30));
    let error = source.registered(&wanted(&devices).0, now(), soon).unwrap_err();
    assert!(format!("{error:#}").contains("it has neither sip_registrations nor registrations"), "{error:#}");
}
