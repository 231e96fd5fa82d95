//! Who the carriers are, from FusionPBX's tables in PostgreSQL.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringfence::carriers::{Found, Known, Resolver, find};
use ringfence::deadline::Deadline;
use ringfence::postgres::Target;

use crate::support::name_server::{Says, at, name_server, service};
use crate::support::{Postgres, now};

const ROWS: &str = "
    INSERT INTO v_access_controls (access_control_uuid, access_control_name, access_control_default) VALUES
        ('31111111-1111-1111-1111-111111111111', 'providers', 'deny'),
        ('32222222-2222-2222-2222-222222222222', 'blocked', 'allow');
    INSERT INTO v_access_control_nodes
        (access_control_node_uuid, access_control_uuid, node_type, node_cidr, node_description) VALUES
        (gen_random_uuid(), '31111111-1111-1111-1111-111111111111', 'allow', '198.51.100.0/24', 'Acme SBC'),
        (gen_random_uuid(), '31111111-1111-1111-1111-111111111111', 'allow', '192.0.2.7', NULL),
        (gen_random_uuid(), '31111111-1111-1111-1111-111111111111', 'allow', '10.0.0.0/8', 'office'),
        (gen_random_uuid(), '31111111-1111-1111-1111-111111111111', 'allow', NULL, 'nothing'),
        (gen_random_uuid(), '31111111-1111-1111-1111-111111111111', 'allow', 'no' || chr(10) || 'network', 'odd'),
        (gen_random_uuid(), '31111111-1111-1111-1111-111111111111', 'deny', '192.0.2.66/32', 'denied'),
        (gen_random_uuid(), '32222222-2222-2222-2222-222222222222', 'allow', '192.0.2.67/32', 'in another');
    INSERT INTO v_gateways (gateway_uuid, gateway, proxy, register_proxy, outbound_proxy, enabled) VALUES
        (gen_random_uuid(), 'acme', 'sip.acme.example', NULL, 'sip:203.0.113.9:5080;transport=tcp', 'true'),
        (gen_random_uuid(), 'beta', 'sip.beta.example:5080', '', NULL, 'true'),
        (gen_random_uuid(), 'off', '203.0.113.66', NULL, NULL, 'false'),
        (gen_random_uuid(), 'never set', '203.0.113.67', NULL, NULL, NULL);";

const CARRIERS: [&str; 5] = [
    "access control providers: 192.0.2.7/32",
    "access control providers (Acme SBC): 198.51.100.0/24",
    "gateway acme (203.0.113.9): 203.0.113.9/32",
    "gateway acme (sip.acme.example): 203.0.113.1/32 2001:db8::a/128",
    "gateway beta (sip.beta.example): 203.0.113.20/32",
];

const NOTES: [&str; 2] = [
    "access control providers (odd): \"no\u{fffd}network\" is no network; skipped",
    "access control providers (nothing): 1 without a network; skipped",
];

fn fusionpbx() -> Postgres {
    Postgres::with_fusionpbx(ROWS)
}

fn ask(server: &Postgres, database: &str, names: SocketAddr, seconds: u64) -> anyhow::Result<Found> {
    let dir = server.socket_dir().display();
    let target =
        Target::parse(&format!("host={dir} port={} dbname={database} user=ringfence", server.port)).unwrap();
    let resolver = Resolver::asking(names).unwrap();
    let deadline = Deadline::after(Instant::now(), Duration::from_secs(seconds));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(find(&target, &resolver, &Known::default(), now(), deadline))
}

fn names() -> SocketAddr {
    name_server(|name, _| match name {
        "sip.acme.example" => Says::Have(vec![at("203.0.113.1")]),
        "_sip._udp.sip.acme.example" => Says::Have(vec![service("a.acme.example.")]),
        "_sip._tcp.sip.acme.example" => Says::Refused,
        "a.acme.example" => Says::Have(vec![at("2001:db8::a")]),
        "sip.beta.example" => Says::Have(vec![at("203.0.113.20")]),
        "slow.example" => Says::Silence,
        _ => Says::NoSuchName,
    })
}

fn lines(found: &Found) -> Vec<String> {
    let line = |carrier: &ringfence::carriers::Carrier| {
        let networks: Vec<_> = carrier.networks.iter().map(ToString::to_string).collect();
        format!("{}: {}", carrier.name, networks.join(" "))
    };
    found.carriers.iter().map(line).collect()
}

#[track_caller]
fn fails(server: &Postgres, database: &str, says: &[&str]) {
    let error = format!("{:#}", ask(server, database, names(), 20).unwrap_err());
    assert!(says.iter().all(|part| error.contains(part)), "{error}");
}

#[test]
fn both_forms_of_enabled_are_read() {
    let server = fusionpbx();
    for type_of_enabled in ["boolean", "text"] {
        server.psql_in(
            "fusionpbx",
            &format!(
                "ALTER TABLE v_gateways ALTER enabled TYPE {type_of_enabled} USING enabled::{type_of_enabled}"
            ),
        );
        let found = ask(&server, "fusionpbx", names(), 20).unwrap();
        assert_eq!(lines(&found), CARRIERS, "{type_of_enabled}");
        assert_eq!(found.notes[..2], NOTES);
        assert!(found.notes[2].starts_with("sip.acme.example resolves only in part:"), "{:?}", found.notes);
        assert!(found.unresolved.is_empty());
        assert_eq!(found.known.hosts.keys().collect::<Vec<_>>(), ["sip.acme.example", "sip.beta.example"]);
    }
}

#[test]
fn an_older_fusionpbx_may_lack_a_table() {
    let server = fusionpbx();
    server.psql_in("fusionpbx", "ALTER TABLE v_access_control_nodes RENAME TO nodes");
    assert_eq!(lines(&ask(&server, "fusionpbx", names(), 20).unwrap()), CARRIERS[2..]);
    server.psql_in("fusionpbx", "ALTER TABLE nodes RENAME TO v_access_control_nodes; DROP TABLE v_gateways");
    assert_eq!(lines(&ask(&server, "fusionpbx", names(), 20).unwrap()), CARRIERS[..2]);
    server.psql_in("fusionpbx", "DROP TABLE v_access_controls");
    fails(&server, "fusionpbx", &["it is not FusionPBX's database"]);
    fails(&server, "freeswitch", &["postgres freeswitch as ringfence on", "it is not FusionPBX's database"]);
}

#[test]
fn what_cannot_be_read_is_named() {
    let server = fusionpbx();
    fails(&server, "elsewhere", &["cannot connect to postgres elsewhere as ringfence on"]);
    server.psql_in("fusionpbx", "REVOKE SELECT ON v_gateways FROM ringfence");
    fails(&server, "fusionpbx", &["permission denied for table v_gateways", "must be granted SELECT on"]);
    server.psql_in("fusionpbx", "ALTER TABLE v_gateways DROP proxy; GRANT SELECT ON v_gateways TO ringfence");
    fails(&server, "fusionpbx", &["v_gateways", "column \"proxy\" does not exist"]);
}

#[test]
fn nobody_waits_past_the_deadline() {
    let server = fusionpbx();
    let start = Instant::now();
    server.psql_in("fusionpbx", "UPDATE v_gateways SET proxy = 'slow.example' WHERE gateway = 'beta'");
    let found = ask(&server, "fusionpbx", names(), 1).unwrap();
    assert_eq!(lines(&found), CARRIERS[..4]);
    assert_eq!(
        found.unresolved,
        ["slow.example does not resolve: no answer in time; no address of it is known"]
    );
    server.freeze();
    let error = format!("{:#}", ask(&server, "fusionpbx", names(), 1).unwrap_err());
    assert!(error.contains("no answer in time"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
}
