use std::sync::{Arc as Shared, Mutex};
use std::time::Instant;

use super::*;
use crate::carriers::tests::block_on;
use crate::carriers::tests::name_server::{Says, at, name_server, service};

fn soon() -> Deadline {
    Deadline::after(Instant::now(), Duration::from_secs(20))
}

fn look_up(resolver: &Resolver, names: &[(&str, bool)], deadline: Deadline) -> Vec<Answer> {
    let names = names.iter().map(|(name, services)| ((*name).to_owned(), *services)).collect();
    block_on(resolver.look_up(&names, deadline)).into_values().collect()
}

fn shown(answer: &Answer) -> Vec<String> {
    answer.addresses.iter().map(ToString::to_string).collect()
}

fn acme(name: &str, _: RecordType) -> Says {
    match name {
        "sip.acme.example" => Says::Have(vec![at("203.0.113.1"), at("2001:db8::1")]),
        "_sip._udp.sip.acme.example" => {
            Says::Have(vec![service("a.acme.example."), service("b.acme.example.")])
        }
        "_sip._tcp.sip.acme.example" => Says::Have(vec![service("B.ACME.example.")]),
        "_sips._tcp.sip.acme.example" => Says::Have(vec![service(".")]),
        "a.acme.example" => Says::Have(vec![at("203.0.113.10")]),
        "b.acme.example" => Says::Have(vec![at("2001:db8::b"), at("::ffff:203.0.113.11")]),
        _ => Says::NoSuchName,
    }
}

#[test]
fn a_name_stands_for_its_addresses_and_those_of_its_services() {
    let asked = Shared::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    let server = name_server(move |name, kind| {
        log.lock().unwrap().push((name.to_owned(), kind));
        acme(name, kind)
    });
    let resolver = Resolver::asking(server).unwrap();
    let answers = look_up(&resolver, &[("sip.acme.example", true)], soon());
    assert_eq!(
        shown(&answers[0]),
        ["203.0.113.1", "203.0.113.10", "203.0.113.11", "2001:db8::1", "2001:db8::b"]
    );
    assert_eq!(answers[0].fault, None);
    let mut asked = std::mem::take(&mut *asked.lock().unwrap());
    let all = asked.len();
    asked.sort();
    asked.dedup();
    assert_eq!((all, asked.len()), (9, 9), "{asked:?}");

    let answers = look_up(&resolver, &[("sip.acme.example", false)], soon());
    assert_eq!(shown(&answers[0]), ["203.0.113.1", "2001:db8::1"]);
}

#[test]
fn no_such_name_is_no_fault_and_a_refusal_is_one() {
    let server = name_server(|name, kind| match (name, kind) {
        (name, RecordType::SRV) if name.ends_with("shy.example") => Says::Refused,
        ("shy.example", _) => Says::Have(vec![at("203.0.113.1")]),
        _ => Says::NoSuchName,
    });
    let resolver = Resolver::asking(server).unwrap();
    let answers = look_up(&resolver, &[("gone.example", true), ("shy.example", true)], soon());
    assert_eq!(answers[0], Answer::default());
    assert_eq!(shown(&answers[1]), ["203.0.113.1"]);
    assert!(answers[1].fault.as_deref().unwrap().contains("Refused"), "{answers:?}");
}

#[test]
fn silence_costs_no_more_than_the_deadline_and_the_others_nothing() {
    let server = name_server(|name, kind| match name {
        "silent.example" => Says::Silence,
        _ => acme(name, kind),
    });
    let resolver = Resolver::asking(server).unwrap();
    let start = Instant::now();
    let deadline = Deadline::after(start, Duration::from_millis(700));
    let answers = look_up(&resolver, &[("silent.example", false), ("sip.acme.example", true)], deadline);
    assert!(start.elapsed() < Duration::from_millis(1400), "{:?}", start.elapsed());
    assert_eq!(answers[0], Answer { addresses: BTreeSet::new(), fault: Some(LATE.to_owned()) });
    assert_eq!((answers[1].addresses.len(), &answers[1].fault), (5, &None));

    let answers = look_up(&resolver, &[("sip.acme.example", true)], deadline);
    assert_eq!(answers[0], Answer { addresses: BTreeSet::new(), fault: Some(LATE.to_owned()) });

    // With all the time there is, a silent server is given up all the same.
    let start = Instant::now();
    let answers = look_up(&resolver, &[("silent.example", true)], soon());
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    assert_eq!(answers[0].addresses, BTreeSet::new());
    assert!(answers[0].fault.is_some());
}

#[test]
fn many_names_are_asked_at_once() {
    let server = name_server(|name, _| {
        let number: Option<u8> =
            name.strip_prefix('n').and_then(|n| n.strip_suffix(".example")?.parse().ok());
        number.map_or(Says::NoSuchName, |n| Says::Have(vec![at(&format!("203.0.113.{n}"))]))
    });
    let resolver = Resolver::asking(server).unwrap();
    let names: Vec<_> = (1..=200).map(|n| format!("n{n}.example")).collect();
    let names: Vec<_> = names.iter().map(|name| (name.as_str(), true)).collect();
    let answers = look_up(&resolver, &names, soon());
    assert_eq!(answers.len(), 200);
    assert!(
        answers.iter().all(|answer| answer.addresses.len() == 1 && answer.fault.is_none()),
        "{answers:?}"
    );
}

#[test]
fn a_bad_name_is_a_fault_of_its_own() {
    let resolver = Resolver::asking(name_server(acme)).unwrap();
    let long = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
    let answers = look_up(&resolver, &[(&long, true)], soon());
    assert_eq!(answers[0].fault.as_deref(), Some("DNS takes no such name"));
}

#[test]
fn the_hosts_file_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = dir.path().join("hosts");
    // In a file that is not all UTF-8.
    std::fs::write(&hosts, b"# caf\xe9\n198.51.100.1 sip.acme.example sbc # ours\n2001:db8::5\tSBC\n")
        .unwrap();
    let mut resolver = Resolver::asking(name_server(acme)).unwrap();
    let from_files = Resolver::from_files(&dir.path().join("resolv.conf"), &hosts).unwrap();
    resolver.hosts = from_files.hosts;
    let answers = look_up(&resolver, &[("sbc", true), ("sip.acme.example", false)], soon());
    assert_eq!(shown(&answers[0]), ["198.51.100.1", "2001:db8::5"]);
    assert_eq!(shown(&answers[1]), ["198.51.100.1", "2001:db8::1"]);
}

#[test]
fn reads_the_systems_files() {
    let dir = tempfile::tempdir().unwrap();
    let resolv_conf = dir.path().join("resolv.conf");
    let nowhere = dir.path().join("nowhere");
    for text in ["", "search acme.example\n", "nameserver 192.0.2.1\noptions timeout:1 attempts:5 edns0\n"] {
        std::fs::write(&resolv_conf, text).unwrap();
        let resolver = Resolver::from_files(&resolv_conf, &nowhere).unwrap();
        assert!(resolver.dns.options().timeout <= PATIENCE);
        assert_eq!(resolver.dns.options().attempts, RETRIES);
    }
    let error = Resolver::from_files(dir.path(), &nowhere).unwrap_err();
    assert!(format!("{error:#}").contains(&format!("cannot read {}", dir.path().display())), "{error:#}");
}
