use super::*;

fn scene(text: &str, tracked: bool, counts: &[(&str, [usize; 2])]) -> Scene {
    let config = Config::parse("r.toml".as_ref(), text.as_bytes()).unwrap();
    let name = |name: &str| ListName::try_from(name.to_owned()).unwrap();
    let counts = counts.iter().map(|(list, counts)| (name(list), *counts)).collect();
    let settings = order::Settings::new(&config, tracked, &counts).unwrap();
    let mut scene = Scene::new(&config, &settings, counts.keys(), Variant::Nft);
    for version in [Version::V4, Version::V6] {
        scene.add(&config, &settings, version);
    }
    scene
}

/// What is said of the probes whose words have this in them.
fn said<'a>(scene: &'a Scene, part: &str) -> Vec<&'a str> {
    scene.probes.iter().map(|probe| probe.what.as_str()).filter(|what| what.contains(part)).collect()
}

#[test]
fn an_outcome_is_right_or_wrong() {
    use Expect::{Arrives, Dropped, Limited};
    for (expect, sent, arrived, enforced, observed) in [
        (Arrives(1), 1, 1, true, true),
        (Arrives(1), 1, 0, false, false),
        (Arrives(50), 50, 49, false, false),
        (Dropped, 1, 0, true, false),
        (Dropped, 1, 1, false, true),
        (Limited(40), 100, 40, true, false),
        (Limited(40), 100, 41, true, false),
        (Limited(40), 100, 39, false, false),
        (Limited(40), 100, 100, false, true),
        (Limited(40), 1_080, 1_080, false, true),
    ] {
        let outcome = Outcome { sent, arrived };
        assert_eq!(expect.holds(false, outcome), enforced, "{expect:?} {outcome:?}");
        assert_eq!(expect.holds(true, outcome), observed, "{expect:?} {outcome:?}");
    }
}

#[test]
fn every_source_has_one_address_and_every_probe_its_own_words() {
    for tracked in [true, false] {
        let scene = scene("", tracked, &[]);
        assert_eq!(said(&scene, "established flow").len(), if tracked { 4 } else { 0 });
        assert_eq!(said(&scene, "a blocked source is dropped (IPv6, UDP 20000)").len(), 1);
        assert_eq!(said(&scene, "is dropped after 40 at once (IPv4, UDP 4569)").len(), 1);
        let blocked: Vec<_> = scene.block.iter().filter(|address| !scene.allow.contains(address)).collect();
        assert_eq!(blocked.len(), if tracked { 12 } else { 8 });
    }
    let numbers = 1..=packet::SOURCES;
    let addresses: std::collections::BTreeSet<_> =
        numbers.clone().map(|number| packet::outside(Version::V4, number)).collect();
    assert_eq!(addresses.len(), numbers.len());
}

#[test]
fn what_is_off_is_not_tried() {
    let off =
        "register-limit = \"off\"\ninvite-limit = \"off\"\noptions-limit = \"off\"\niax-limit = \"off\"";
    let scene =
        scene(&format!("[firewall]\n{off}\nsip-ports = [\"20000\"]\nagents = [\"a\\u0020b\"]"), true, &[]);
    assert_eq!(said(&scene, "at once"), [""; 0]);
    assert_eq!(said(&scene, "(IPv4, UDP 20001)").len(), 4, "20000 is SIP's");
    assert_eq!(said(&scene, "the scanner a b is dropped").len(), 2);
}

#[test]
fn who_is_on_one_of_two_lists_is_let_in_where_one_is_enough() {
    let lists = "[lists.a]\nkind = \"allow\"\nentries = []\n[lists.b]\nkind = \"allow\"\nentries = []\n";
    let restrict = "restrict = [{ ports = [\"5060\"], to = [\"a\", \"b\"] }, { ports = [\"443\"], to = [\"a\"] }, { ports = [\"440-450\"], to = [\"b\"] }]";
    let scene = scene(&format!("{lists}[firewall]\n{restrict}"), true, &[("a", [1, 1]), ("b", [1, 0])]);
    assert_eq!(
        said(&scene, "a source on ").into_iter().filter(|what| !what.contains("none")).collect::<Vec<_>>(),
        [
            "a source on a arrives (IPv4, UDP 5060)",
            "a source on b arrives (IPv4, UDP 5060)",
            "a source on a arrives (IPv4, TCP 5060)",
            "a source on b arrives (IPv4, TCP 5060)",
            "a source on a is dropped (IPv4, UDP 443)",
            "a source on a is dropped (IPv4, TCP 443)",
            "a source on b arrives (IPv4, UDP 440)",
            "a source on b arrives (IPv4, TCP 440)",
            // Nobody on b has IPv6.
            "a source on a arrives (IPv6, UDP 5060)",
            "a source on a arrives (IPv6, TCP 5060)",
            "a source on a arrives (IPv6, UDP 443)",
            "a source on a arrives (IPv6, TCP 443)",
        ]
    );
    assert_eq!(said(&scene, "on none of its lists is dropped").len(), 6 + 4);
}

#[test]
fn an_observer_counts_what_he_would_drop() {
    let scene = scene("mode = \"observe\"", false, &[]);
    let all = |probe: &Probe| Outcome { sent: probe.expect.most(), arrived: probe.expect.most() };
    let report = |denied| Report { outcomes: scene.probes.iter().map(all).collect(), denied };
    let wrong = |denied| scene.judge(&report(denied)).into_iter().filter(Check::is_wrong).count();
    assert_eq!((wrong(26), wrong(25)), (0, 1));
    assert!(said(&scene, "is dropped").is_empty());
}
