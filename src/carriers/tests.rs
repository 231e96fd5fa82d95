use std::time::{Duration, Instant};

use super::*;

#[path = "../../tests/real/support/name_server.rs"]
#[expect(unreachable_pub, reason = "shared with the tests against real parts")]
pub(super) mod name_server;

use name_server::{Says, at, name_server};

const NOW: i64 = 1_800_000_000;

pub(super) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}

fn node(list: &str, description: &str, cidr: &str) -> Node {
    Node { list: list.into(), description: description.into(), cidr: cidr.into() }
}

fn gateway(name: &str, proxies: [&str; 3]) -> Gateway {
    Gateway { name: name.into(), proxies: proxies.map(str::to_owned) }
}

fn gathered(rows: &Rows, server: std::net::SocketAddr, known: &Known, now: i64) -> Found {
    let resolver = Resolver::asking(server).unwrap();
    let deadline = Deadline::after(Instant::now(), Duration::from_secs(20));
    block_on(gather(rows, &resolver, known, now, deadline))
}

fn lines(found: &Found) -> Vec<String> {
    let networks = |carrier: &Carrier| carrier.networks.iter().map(ToString::to_string).collect::<Vec<_>>();
    found
        .carriers
        .iter()
        .map(|carrier| format!("{}: {}", carrier.name, networks(carrier).join(" ")))
        .collect()
}

#[test]
fn networks_and_gateways_have_names_for_people() {
    let server = name_server(|name, _| match name {
        "sip.acme.example" => Says::Have(vec![at("203.0.113.2"), at("203.0.113.1"), at("10.0.0.1")]),
        "lan.example" => Says::Have(vec![at("192.168.0.1")]),
        _ => Says::NoSuchName,
    });
    let rows = Rows {
        nodes: vec![
            node("providers", "Acme SBC", "198.51.100.7/24"),
            node("providers", "Acme SBC", "198.51.100.0/24, 2001:db8:1::/48,"),
            node("providers", "", "192.0.2.1"),
            node("lan", "office", "192.168.0.0/16"),
            node("all", "everybody", "0.0.0.0/0"),
            node("domains", "", ""),
            node("domains", "", " "),
            node("odd", "a\nb\u{1b}[31m", "203.0.113.0/33"),
        ],
        gateways: vec![
            gateway("acme", ["sip.acme.example:5080", "sip:SIP.acme.example", "203.0.113.9"]),
            gateway("pbx", ["10.1.1.1", "lan.example", ""]),
            gateway("broken", ["${host}", "", " "]),
        ],
    };
    let found = gathered(&rows, server, &Known::default(), NOW);
    assert_eq!(
        lines(&found),
        [
            "access control providers: 192.0.2.1/32",
            "access control providers (Acme SBC): 198.51.100.0/24 2001:db8:1::/48",
            "gateway acme (203.0.113.9): 203.0.113.9/32",
            "gateway acme (sip.acme.example): 203.0.113.1/32 203.0.113.2/32",
        ]
    );
    assert_eq!(
        found.notes,
        [
            "access control all (everybody): 0.0.0.0/0 is wider than any carrier's; skipped",
            "access control odd (a\u{fffd}b\u{fffd}[31m): \"203.0.113.0/33\" is no network; skipped",
            "access control domains: 2 without a network; skipped",
            "gateway broken: \"${host}\" is neither a host name nor an address; skipped",
        ]
    );
}

#[test]
fn a_failing_name_server_makes_no_carrier_a_stranger() {
    let mut calls = 0;
    let server = name_server(move |_, _| {
        calls += 1;
        // A and AAAA the first time, A and AAAA the second time.
        match calls {
            1..=2 => Says::Have(vec![at("203.0.113.1")]),
            3..=4 => Says::Have(vec![at("203.0.113.2")]),
            _ => Says::NoSuchName,
        }
    });
    let rows = Rows { nodes: vec![], gateways: vec![gateway("acme", ["sip.acme.example:5060", "", ""])] };
    let first = gathered(&rows, server, &Known::default(), NOW);
    assert_eq!(lines(&first), ["gateway acme (sip.acme.example): 203.0.113.1/32"]);
    let rotated = gathered(&rows, server, &first.known, NOW + 60);
    assert_eq!(lines(&rotated), ["gateway acme (sip.acme.example): 203.0.113.1/32 203.0.113.2/32"]);
    let gone = gathered(&rows, server, &rotated.known, NOW + 90 * 24 * 3600);
    assert_eq!(lines(&gone), lines(&rotated));
    assert_eq!(
        gone.notes,
        ["sip.acme.example does not resolve: it has no address; its addresses of 2027-01-15T08:01:00Z kept"]
    );
    assert_eq!(gone.known, rotated.known);
    assert!(gone.unresolved.is_empty());
    let removed = gathered(&Rows::default(), server, &gone.known, NOW);
    assert_eq!(removed, Found::default());
}

#[test]
fn a_name_without_any_address_is_told_apart() {
    let server = name_server(|name, _| match name {
        "lan.example" => Says::Have(vec![at("192.168.0.1")]),
        "kept.example" => Says::Refused,
        _ => Says::NoSuchName,
    });
    let rows = Rows {
        nodes: vec![],
        gateways: vec![
            gateway("acme", ["gone.example:5060", "kept.example:5060", "lan.example:5060"]),
            gateway("beta", ["gone.example:5060", "${host}", ""]),
        ],
    };
    let host = KnownHost { resolved: NOW, addresses: [(IpAddr::from([203, 0, 113, 1]), NOW)].into() };
    let known = Known { hosts: [("kept.example".to_owned(), host)].into() };
    let found = gathered(&rows, server, &known, NOW);
    assert_eq!(lines(&found), ["gateway acme (kept.example): 203.0.113.1/32"]);
    assert_eq!(
        found.unresolved,
        ["gone.example does not resolve: it has no address; no address of it is known"]
    );
    assert_eq!(found.notes.len(), 2, "{:?}", found.notes);
    assert!(found.notes[1].starts_with("kept.example does not resolve: "), "{:?}", found.notes);
}

#[test]
fn many_names_without_any_address_are_counted() {
    let names: Vec<String> = (0..=MAX_NOTES).map(|n| format!("{n}.example:5060")).collect();
    let gateways = names.iter().map(|name| gateway("acme", [name, "", ""])).collect();
    let rows = Rows { nodes: vec![], gateways };
    let found = gathered(&rows, name_server(|_, _| Says::NoSuchName), &Known::default(), NOW);
    assert_eq!((found.unresolved.len(), found.notes.len()), (MAX_NOTES + 1, 0));
    assert_eq!(found.unresolved.last().unwrap(), "and 1 more like these");
}

#[test]
fn hostile_rows_are_bounded() {
    let long = "x".repeat(200);
    let nodes = (0..=MAX_ROWS).map(|_| node(&long, &long, "nonsense,nonsense")).collect();
    let cut = node("long", "", &"203.0.113.0/24,".repeat(300));
    let rows = Rows { nodes, gateways: vec![] };
    let found = gathered(&rows, name_server(|_, _| Says::Silence), &Known::default(), NOW);
    assert_eq!(found.notes.len(), MAX_NOTES + 1);
    assert!(found.notes[0].len() < 250, "{}", found.notes[0]);
    assert_eq!(found.notes.last().unwrap(), &format!("and {} more like these", 2 * MAX_ROWS + 1 - MAX_NOTES));
    // A network that is cut in two would be another network.
    let rows = Rows { nodes: vec![cut], gateways: vec![] };
    let found = gathered(&rows, name_server(|_, _| Says::Silence), &Known::default(), NOW);
    assert!(found.carriers.is_empty());
    assert_eq!(found.notes, ["access control long: more than 4000 characters of networks; skipped"]);
}
