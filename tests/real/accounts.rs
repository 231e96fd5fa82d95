//! Which accounts there are, from FusionPBX's tables in PostgreSQL.

use std::time::{Duration, Instant};

use ringfence::account::SipAccount;
use ringfence::deadline::Deadline;
use ringfence::fusionpbx::accounts::Existence::{
    self, DomainDisabled, Exists, ExtensionDisabled, NoDomain, NoExtension,
};
use ringfence::fusionpbx::accounts::{Directory, look_up};
use ringfence::postgres::Target;

use crate::support::Postgres;

/// The same domain may be there twice, in other letters.
const ROWS: &str = "
    INSERT INTO v_domains (domain_uuid, domain_name, domain_enabled) VALUES
        ('11111111-1111-1111-1111-111111111111', 'A.Example.com', 'true'),
        ('12222222-2222-2222-2222-222222222222', 'off.example.com', 'false'),
        ('13333333-3333-3333-3333-333333333333', 'unset.example.com', NULL),
        ('14444444-4444-4444-4444-444444444444', 'twice.example.com', 'false'),
        ('15555555-5555-5555-5555-555555555555', 'TWICE.example.com', 'true'),
        ('16666666-6666-6666-6666-666666666666', NULL, 'true');
    INSERT INTO v_extensions (extension_uuid, domain_uuid, extension, number_alias, enabled) VALUES
        (gen_random_uuid(), '11111111-1111-1111-1111-111111111111', '101', NULL, 'true'),
        (gen_random_uuid(), '11111111-1111-1111-1111-111111111111', 'Alice', '102', 'true'),
        (gen_random_uuid(), '11111111-1111-1111-1111-111111111111', '103', '', 'false'),
        (gen_random_uuid(), '11111111-1111-1111-1111-111111111111', '104', NULL, NULL),
        (gen_random_uuid(), '11111111-1111-1111-1111-111111111111', '105', NULL, 'false'),
        (gen_random_uuid(), '11111111-1111-1111-1111-111111111111', '105', NULL, 'true'),
        (gen_random_uuid(), '11111111-1111-1111-1111-111111111111', 'o''neil', 'Иван', 'true'),
        (gen_random_uuid(), '12222222-2222-2222-2222-222222222222', '101', NULL, 'true'),
        (gen_random_uuid(), '13333333-3333-3333-3333-333333333333', '101', NULL, 'true'),
        (gen_random_uuid(), '14444444-4444-4444-4444-444444444444', '201', NULL, 'true'),
        (gen_random_uuid(), '15555555-5555-5555-5555-555555555555', '202', NULL, 'true'),
        (gen_random_uuid(), '16666666-6666-6666-6666-666666666666', '101', NULL, 'true');";

const ANSWERS: [(&str, Existence); 23] = [
    ("101@a.example.com", Exists),
    ("101@A.EXAMPLE.COM", Exists),
    ("Alice@a.example.com", Exists),
    ("alice@a.example.com", NoExtension),
    ("102@a.example.com", Exists),
    ("103@a.example.com", ExtensionDisabled),
    ("104@a.example.com", ExtensionDisabled),
    ("105@a.example.com", Exists),
    ("o'neil@a.example.com", Exists),
    ("Иван@a.example.com", Exists),
    ("201@a.example.com", NoExtension),
    ("101@b.example.com", NoDomain),
    ("101@example.com", NoDomain),
    ("101@off.example.com", DomainDisabled),
    ("999@off.example.com", DomainDisabled),
    ("101@unset.example.com", DomainDisabled),
    ("201@twice.example.com", NoExtension),
    ("202@twice.example.com", Exists),
    ("' OR 1=1 --@a.example.com", NoExtension),
    ("101' --@a.example.com", NoExtension),
    ("%@a.example.com", NoExtension),
    ("10_@a.example.com", NoExtension),
    ("{101,102}@a.example.com", NoExtension),
];

fn target(server: &Postgres, database: &str) -> Target {
    let dir = server.socket_dir().display();
    Target::parse(&format!("host={dir} port={} dbname={database} user=ringfence", server.port)).unwrap()
}

fn ask(server: &Postgres, database: &str, accounts: &[&str], ms: u64) -> anyhow::Result<Vec<Existence>> {
    let target = target(server, database);
    let accounts: Vec<SipAccount> = accounts.iter().map(|account| account.parse().unwrap()).collect();
    look_up(&target, &accounts, Deadline::after(Instant::now(), Duration::from_millis(ms)))
}

#[track_caller]
fn fails(server: &Postgres, database: &str, says: &[&str]) {
    let error = format!("{:#}", ask(server, database, &["101@a.example.com"], 20_000).unwrap_err());
    assert!(says.iter().all(|part| error.contains(part)), "{error}");
}

#[test]
fn both_forms_of_enabled_are_read() {
    let server = Postgres::with_fusionpbx(ROWS);
    let (accounts, expected): (Vec<_>, Vec<_>) = ANSWERS.into_iter().unzip();
    for form in ["boolean", "text"] {
        let change = format!(
            "ALTER TABLE v_domains ALTER domain_enabled TYPE {form} USING domain_enabled::{form}; \
             ALTER TABLE v_extensions ALTER enabled TYPE {form} USING enabled::{form}"
        );
        server.psql_in("fusionpbx", &change);
        let answers = ask(&server, "fusionpbx", &accounts, 20_000).unwrap();
        for (account, (answer, expected)) in accounts.iter().zip(answers.iter().zip(&expected)) {
            assert_eq!(answer, expected, "{account}, enabled is {form}");
        }
        assert_eq!(answers.len(), expected.len());
    }
    assert_eq!(ask(&server, "fusionpbx", &[], 20_000).unwrap(), []);
}

#[test]
fn ten_thousand_accounts_are_one_question() {
    let server = Postgres::with_fusionpbx(ROWS);
    server.psql_in(
        "fusionpbx",
        "INSERT INTO v_extensions (extension_uuid, domain_uuid, extension, enabled) \
         SELECT gen_random_uuid(), '11111111-1111-1111-1111-111111111111', 'x' || i, i % 3 <> 0 \
         FROM generate_series(0, 9999) AS i",
    );
    let accounts: Vec<_> = (0..10_000).map(|i| format!("x{}@a.example.com", i * 2)).collect();
    let start = Instant::now();
    let accounts: Vec<_> = accounts.iter().map(String::as_str).collect();
    let answers = ask(&server, "fusionpbx", &accounts, 20_000).unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let expected = (0..10_000).map(|i| match i * 2 {
        number if number > 9999 => NoExtension,
        number if number % 3 == 0 => ExtensionDisabled,
        _ => Exists,
    });
    assert!(answers.into_iter().eq(expected));
}

#[test]
fn what_cannot_be_read_is_named() {
    let server = Postgres::with_fusionpbx("");
    fails(&server, "fusionpbx", &["postgres fusionpbx as ringfence on", "it has no domains"]);
    server.psql_in("fusionpbx", ROWS);
    fails(&server, "elsewhere", &["cannot connect to postgres elsewhere as ringfence on"]);
    fails(
        &server,
        "freeswitch",
        &["postgres freeswitch as ringfence on", "it has no v_domains", "config.conf names it as database.0"],
    );
    let grant = "must be granted SELECT on v_domains and v_extensions";
    for table in ["v_domains", "v_extensions"] {
        server.psql_in("fusionpbx", &format!("REVOKE SELECT ON {table} FROM ringfence"));
        fails(&server, "fusionpbx", &[grant, &format!("permission denied for table {table}")]);
        server.psql_in("fusionpbx", &format!("GRANT SELECT ON {table} TO ringfence"));
    }
    server.psql_in("fusionpbx", "DROP TABLE v_extensions");
    fails(&server, "fusionpbx", &["or no v_extensions, so it is not FusionPBX's database"]);
}

#[test]
fn an_open_connection_that_ended_is_made_anew() {
    let server = Postgres::with_fusionpbx(ROWS);
    let mut directory = Directory::new(target(&server, "fusionpbx")).unwrap();
    let accounts = ["101@a.example.com", "999@a.example.com"].map(|account| account.parse().unwrap());
    let mut ask =
        |ms| directory.look_up(&accounts, Deadline::after(Instant::now(), Duration::from_millis(ms)));
    let ours = "FROM pg_stat_activity WHERE usename = 'ringfence'";
    for _ in 0..3 {
        assert_eq!(ask(20_000).unwrap(), [Exists, NoExtension]);
        assert_eq!(ask(20_000).unwrap(), [Exists, NoExtension]);
        assert_eq!(server.psql_in("postgres", &format!("SELECT count(*) {ours}")).trim(), "1");
        server.psql_in("postgres", &format!("SELECT pg_terminate_backend(pid, 20000) {ours}"));
    }
    server.freeze();
    let error = ask(300).unwrap_err();
    assert!(format!("{error:#}").contains("no answer in time"), "{error:#}");
}

#[test]
fn nobody_waits_past_the_deadline() {
    let server = Postgres::with_fusionpbx(ROWS);
    server.freeze();
    let start = Instant::now();
    let error = ask(&server, "fusionpbx", &["101@a.example.com"], 400).unwrap_err();
    assert!(format!("{error:#}").contains("no answer in time"), "{error:#}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());

    let gone = Target::parse("host=127.0.0.1 port=1 dbname=fusionpbx user=ringfence").unwrap();
    let deadline = Deadline::after(Instant::now(), Duration::from_secs(1));
    let error = look_up(&gone, &["101@a".parse().unwrap()], deadline).unwrap_err();
    assert!(format!("{error:#}").starts_with("cannot connect to postgres fusionpbx as ringfence on"));
}

#[test]
fn the_role_reads_what_is_asked_for_and_no_password() {
    let server = Postgres::with_fusionpbx("SELECT 1");
    server.load_recorded();
    // Again, as after an update; and where somebody gave the role more than it needs.
    server.psql_in(
        "fusionpbx",
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO ringfence; GRANT SELECT (password) ON v_gateways TO ringfence",
    );
    assert_eq!(server.permit("fusionpbx"), "");
    for (database, sql, permitted) in [
        ("fusionpbx", "SELECT extension, enabled FROM v_extensions", true),
        ("fusionpbx", "SELECT password FROM v_extensions", false),
        ("fusionpbx", "SELECT proxy FROM v_gateways", true),
        ("fusionpbx", "SELECT password FROM v_gateways", false),
        ("fusionpbx", "SELECT * FROM v_domains", false),
        ("fusionpbx", "SET transaction_read_only = off; DELETE FROM v_domains", false),
        ("fusionpbx", "SET transaction_read_only = off; UPDATE v_domains SET domain_enabled = true", false),
        ("freeswitch", "SELECT network_ip FROM sip_registrations", true),
        ("freeswitch", "SELECT contact FROM sip_registrations", false),
        ("freeswitch", "SELECT nonce FROM sip_authentication", false),
    ] {
        let output = server.psql_command(database, sql).args(["-U", "ringfence"]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), permitted, "{sql}: {stderr}");
        assert!(permitted || stderr.contains("permission denied"), "{sql}: {stderr}");
    }
    // What it does not take away, it names.
    server
        .psql_in("fusionpbx", "GRANT pg_read_all_data TO ringfence; GRANT CREATE ON SCHEMA public TO PUBLIC");
    let warned = server.permit("fusionpbx");
    for remedy in ["REVOKE pg_read_all_data FROM ringfence", "REVOKE CREATE ON SCHEMA public FROM PUBLIC"] {
        assert!(warned.contains(remedy), "{warned}");
    }
}
