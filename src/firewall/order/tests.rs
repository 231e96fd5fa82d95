use super::*;

fn config(text: &str) -> Config {
    Config::parse("r.toml".as_ref(), text.as_bytes()).unwrap()
}

fn settings(text: &str, tracked: bool, counts: &[(&str, [usize; 2])]) -> Settings {
    let name = |name: &str| ListName::try_from(name.to_owned()).unwrap();
    let counts = counts.iter().map(|(list, counts)| (name(list), *counts)).collect();
    Settings::new(&config(text), tracked, &counts).unwrap()
}

/// The rules of a chain without their comments.
fn chain(settings: &Settings, version: Version, name: &str) -> Vec<String> {
    let layout = settings.layout(version);
    let chain = layout.chains.iter().find(|chain| chain.name == name).expect(name);
    chain.rules.iter().map(plain).collect()
}

fn plain(rule: &Rule) -> String {
    let text = rule.to_string();
    let (matches, rest) = text.split_once("-m comment").unwrap();
    format!("{matches}{}", rest.split_once("\" ").unwrap().1)
}

const LISTS: &str = "[lists.australia]\nkind = \"allow\"\ncountry = \"AU\"\nexempts = []\n[lists.office]\nkind = \"allow\"\nentries = []\n";

fn restricted(to: &str, counts: &[(&str, [usize; 2])]) -> Settings {
    settings(&format!("{LISTS}[firewall]\nrestrict = [{{ ports = [\"5060\"], to = {to} }}]"), true, counts)
}

#[test]
fn every_chain_that_is_named_is_there_and_names_are_short() {
    let text = format!(
        "{LISTS}[firewall]\nmode = \"observe\"\nagents = [\"sipvicious\"]\nlimits = [{{ ports = [\"22\"], rate = \"6/minute\" }}]\nrestrict = [{{ ports = [\"5060\", \"80\"], to = [\"au\"] }}]"
    );
    for tracked in [true, false] {
        let settings = settings(&text, tracked, &[("australia", [5, 5])]);
        for version in [Version::V4, Version::V6] {
            let layout = settings.layout(version);
            let names: Vec<&str> = layout.chains.iter().map(|chain| chain.name.as_str()).collect();
            assert!(names.iter().all(|name| name.len() <= 28), "{names:?}");
            let mut tags = std::collections::HashSet::new();
            for (rule, chain) in
                layout.chains.iter().flat_map(|chain| chain.rules.iter().map(move |rule| (rule, &chain.name)))
            {
                let text = plain(rule);
                assert!(tags.insert(rule.tag()), "{chain} {text} is counted with another rule");
                assert!(!rule.words().is_empty(), "{text}");
                if let Some((_, target)) = text.rsplit_once("RINGFENCE") {
                    let target = format!("RINGFENCE{target}");
                    assert!(names.contains(&target.as_str()), "{text}");
                }
                // hashlimit's table is a file of the kernel.
                if let Some((_, rest)) = text.split_once("--hashlimit-name ") {
                    assert!(rest.split(' ').next().unwrap().len() <= 15, "{text}");
                }
            }
        }
    }
}

#[test]
fn an_established_flow_to_another_port_meets_one_rule() {
    let first = chain(&settings("", true, &[]), Version::V4, PREFIX);
    assert_eq!(
        first[0],
        "-m conntrack --ctstate RELATED,ESTABLISHED -m set ! --match-set rf-ports dst -j RETURN"
    );
    // Where connections are not tracked, no rule of ours begins it.
    let layout = settings("", false, &[]).layout(Version::V6);
    let rules: Vec<_> = layout.chains.iter().flat_map(|chain| &chain.rules).map(plain).collect();
    assert!(!rules.iter().any(|rule| rule.contains("conntrack") || rule.contains("-m socket")), "{rules:#?}");
    assert_eq!(rules.iter().filter(|rule| rule.contains("--tcp-flags")).count(), 1 + 1 + 6);
}

#[test]
fn nothing_is_dropped_by_an_observer() {
    let layout =
        settings("[firewall]\nmode = \"observe\"\nagents = [\"sipvicious\"]", true, &[]).layout(Version::V4);
    let rules: Vec<_> = layout.chains.iter().flat_map(|chain| &chain.rules).map(plain).collect();
    assert!(!rules.iter().any(|rule| rule.ends_with("DROP")), "{rules:#?}");
    assert_eq!(
        chain(&settings("mode = \"observe\"", true, &[]), Version::V4, DENY),
        ["-m limit --limit 10/min --limit-burst 20 -j LOG --log-prefix \"ringfence would drop: \""]
    );
    let logged = settings("[firewall]\nlog-prefix = \"gone: \"", true, &[]);
    assert_eq!(chain(&logged, Version::V4, DENY).last().unwrap(), "-j DROP");
}

#[test]
fn another_rate_has_another_table_in_the_kernel() {
    let table = |text: &str| {
        let rules = chain(&settings(text, true, &[]), Version::V4, UDP);
        let rule = rules.iter().find(|rule| rule.contains("rf-reg-")).unwrap();
        rule.split_once("--hashlimit-name ").unwrap().1.split(' ').next().unwrap().to_owned()
    };
    let usual = table("");
    assert_eq!(usual, table("[firewall]\nregister-limit = \"20/minute burst 40\""));
    assert_ne!(usual, table("[firewall]\nregister-limit = \"21/minute burst 40\""));
    assert_ne!(usual, table("[firewall]\nregister-limit = \"20/minute burst 41\""));
    let layout = settings("", true, &[]).layout(Version::V4);
    let all: Vec<_> = layout.chains.iter().flat_map(|chain| &chain.rules).map(plain).collect();
    // All that a source sends counts together, wherever it is looked at.
    assert_eq!(all.iter().filter(|rule| rule.contains(&usual)).count(), 3);
}

#[test]
fn limits_may_be_switched_off() {
    let off =
        "[firewall]\nregister-limit = \"off\"\niax-limit = \"off\"\noptions-limit = \"2/second burst 9\"";
    let settings = settings(off, true, &[]);
    let rules = chain(&settings, Version::V6, UDP);
    assert_eq!(rules.len(), 3, "{rules:#?}");
    assert!(rules[2].contains(
        "--hashlimit-mode srcip --hashlimit-srcmask 64 --hashlimit-above 2/second --hashlimit-burst 9"
    ));
    assert!(rules[2].ends_with("--hashlimit-htable-expire 10000 -g RINGFENCE-EXCEEDED"), "{}", rules[2]);
    assert_eq!(chain(&settings, Version::V6, SLAMMING).len(), 3);
    let ports: Vec<_> = settings.ports().map(|range| (range.first(), range.last())).collect();
    assert_eq!(ports, [(5060, 5061), (5080, 5081)]);
    assert_eq!(self::settings("", true, &[]).ports().last().map(PortRange::first), Some(4569));
}

#[test]
fn a_restriction_never_closes_a_port_to_everybody() {
    let drop = |lists: &str| format!("-p udp -m multiport --dports 5060 {lists} -j DROP");
    let rule = |settings: &Settings, version| {
        chain(settings, version, UDP).into_iter().find(|rule| rule.contains("rf-to-"))
    };
    let both = restricted("[\"au\", \"office\"]", &[("australia", [9, 2]), ("office", [1, 0])]);
    assert_eq!(
        rule(&both, Version::V4),
        Some(drop(
            "-m set ! --match-set rf-to-australia-net4 src -m set ! --match-set rf-to-office-net4 src"
        ))
    );
    assert_eq!(rule(&both, Version::V6), Some(drop("-m set ! --match-set rf-to-australia-net6 src")));
    assert_eq!(both.unrestricted(), [""; 0]);

    for (counts, v4, said) in [
        (
            &[("australia", [9, 0])][..],
            true,
            "ports 5060 are open to all over IPv6: nobody on australia has IPv6",
        ),
        (
            &[],
            false,
            "ports 5060 are open to all: not all of australia have addresses; run ringfence-lists refresh",
        ),
        (
            &[("australia", [0, 0])],
            false,
            "ports 5060 are open to all: not all of australia have addresses; run ringfence-lists refresh",
        ),
    ] {
        let settings = restricted("[\"australia\"]", counts);
        assert_eq!((rule(&settings, Version::V4).is_some(), rule(&settings, Version::V6)), (v4, None));
        assert_eq!(settings.unrestricted(), [said]);
    }
    // Whoever is on the list that is lost would be locked out.
    let lost = restricted("[\"au\", \"carriers\"]", &[("australia", [9, 9])]);
    assert_eq!(rule(&lost, Version::V4), None);
    assert_eq!(lost.unrestricted().len(), 1);
}

#[test]
fn a_restriction_stands_where_its_ports_are_looked_at() {
    let of = |ports: &str| {
        let text = format!("{LISTS}[firewall]\nrestrict = [{{ ports = {ports}, to = [\"au\"] }}]");
        let settings = settings(&text, true, &[("australia", [9, 9])]);
        [PREFIX, UDP, TCP].map(|name| {
            chain(&settings, Version::V4, name).iter().filter(|rule| rule.contains("rf-to-")).count()
        })
    };
    assert_eq!(of("[\"5060\"]"), [0, 1, 1]);
    assert_eq!(of("[\"22\", \"443\"]"), [2, 0, 0]);
    assert_eq!(of("[\"5000-6000\"]"), [2, 1, 1]);
}

#[test]
fn what_is_not_in_the_settings_is_an_error() {
    let text = format!("{LISTS}[firewall]\nrestrict = [{{ ports = [\"5060\"], to = [\"nz\"] }}]");
    let error = Settings::new(&config(&text), true, &Counts::new()).unwrap_err();
    assert!(error.starts_with("firewall.restrict: \"nz\" is no list, and no country of a list; there are: carriers, australia, office. A list"), "{error}");
}

/// How many rules a packet meets, INPUT's jump included, and how many sets are asked; `matching` is text of the rules that match it.
fn meets(settings: &Settings, matching: &[&str]) -> (usize, usize) {
    let layout = settings.layout(Version::V4);
    let chain = |name: &str| -> Vec<String> {
        layout.chains.iter().find(|chain| chain.name == name).unwrap().rules.iter().map(plain).collect()
    };
    let (mut rules, mut sets) = (1, 0);
    let mut way = vec![chain(PREFIX).into_iter()];
    while let Some(at) = way.last_mut() {
        let Some(rule) = at.next() else {
            way.pop();
            continue;
        };
        rules += 1;
        sets += rule.matches("--match-set").count();
        if !matching.iter().any(|text| rule.contains(text)) {
            continue;
        }
        let (_, target) = rule.rsplit_once(['j', 'g']).unwrap();
        match target.trim() {
            "ACCEPT" | "DROP" => break,
            // From the last of them it is back in INPUT.
            "RETURN" => drop(way.pop()),
            name => {
                if rule.contains(&format!("-g {name}")) {
                    way.pop();
                }
                way.push(chain(name).into_iter());
            }
        }
    }
    (rules, sets)
}

#[test]
fn few_rules_are_met() {
    let plain = settings("", true, &[]);
    let restricted = restricted("[\"au\"]", &[("australia", [9, 9])]);
    let udp = "-p udp -m multiport --dports 5060:5061";
    let tcp = "-p tcp -m multiport --dports 5060:5061";
    let known = "--match-set rf-known4 src";
    for (what, settings, matching, met) in [
        ("established, and not SIP", &plain, &["ESTABLISHED -m set !"][..], (2, 1)),
        ("SIP over UDP by a stranger", &plain, &[udp], (7, 2)),
        ("the same where its port is restricted", &restricted, &[udp], (8, 3)),
        ("the same from elsewhere", &restricted, &[udp, "-p udp -m multiport --dports 5060 "], (8, 3)),
        ("SIP over UDP from an allowed source", &restricted, &[udp, known, "rf-allow4"], (5, 3)),
        ("SIP over UDP from a block list", &restricted, &[udp, known, "rf-block4"], (6, 4)),
        ("SIP over TCP by a stranger", &plain, &[tcp], (9, 2)),
        ("a new connection to another port", &plain, &[], (8, 3)),
    ] {
        assert_eq!(meets(settings, matching), met, "{what}");
    }
}
