use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::firewall::layout::INPUT;
use crate::firewall::{Layout, Version};
use crate::netlink;

const FUSIONPBX: &str = include_str!("../../../tests/data/firewall/fusionpbx-iptables.rules");
const DOUBLED: &str = include_str!("../../../tests/data/firewall/fusionpbx-event-guard-doubled.rules");

const PHONE: &str = "203.0.113.66";

/// The table `filter` of what iptables-save printed without `-c`.
fn saved(text: &str) -> Saved {
    let filter = text.split("*filter\n").nth(1).unwrap().split("COMMIT\n").next().unwrap();
    let line =
        |line: &str| if line.starts_with("-A") { format!("[0:0] {line}\n") } else { format!("{line}\n") };
    Saved::parse(&filter.lines().map(line).collect::<String>())
}

/// With these rules, each with its chain before it.
fn table(policy: &str, rules: &[impl AsRef<str>]) -> Saved {
    let rules = || rules.iter().map(AsRef::as_ref);
    let chains: BTreeSet<&str> = rules().filter_map(|rule| rule.split(' ').next()).collect();
    let chains = chains.into_iter().filter(|chain| *chain != INPUT);
    let chains: Vec<String> = chains.map(|chain| format!(":{chain} - [0:0]\n")).collect();
    let rules: Vec<String> = rules().map(|rule| format!("-A {rule}\n")).collect();
    let (chains, rules) = (chains.concat(), rules.concat());
    saved(&format!("*filter\n:INPUT {policy} [0:0]\n{chains}{rules}COMMIT\n"))
}

/// Sets of which those that begin with `in` have everybody, those that begin with `out` nobody; of others nothing is known.
fn by_name(set: &str, _: &[Side]) -> anyhow::Result<Member> {
    match set {
        "broken" => anyhow::bail!("no such luck"),
        _ if set.starts_with("in") => Ok(Member::Is(true)),
        _ if set.starts_with("out") => Ok(Member::Is(false)),
        "two" => Ok(Member::Depends("on the port that it comes from".to_owned())),
        _ => Ok(Member::NotKnown("is of the kind hash:mac".to_owned())),
    }
}

fn walk(saved: &Saved, packet: &Packet) -> Path {
    through_saved(saved, ("iptables-nft", FILTER, INPUT), packet, &mut by_name)
}

fn phone() -> IpAddr {
    PHONE.parse().unwrap()
}

fn register(protocol: Protocol) -> Packet {
    Packet::register(phone(), protocol, 5060, Some(&"101@a.example.com".parse().unwrap()))
}

fn end(end: &End) -> String {
    match end {
        End::Rule(step) => format!("{} {}", step.chain, step.number),
        End::Policy { chain, .. } => format!("policy of {chain}"),
    }
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accepted { by } => format!("accepted by {}", end(by)),
        Verdict::Dropped { by } => format!("dropped by {}", end(by)),
        Verdict::Rejected { by, with } => {
            format!("rejected by {} with {}", end(by), with.as_deref().unwrap_or("-"))
        }
        Verdict::Unknown { why } => format!("unknown: {why}"),
    }
}

/// All of it in a line: the steps, what became of it, and what else may.
fn told(path: &Path) -> String {
    let step = |step: &Step| match &step.holds {
        Holds::Yes => format!("{} {}", step.chain, step.number),
        Holds::Perhaps { why, usually } => {
            format!("{} {} ({}{why})", step.chain, step.number, if *usually { "usually " } else { "" })
        }
        Holds::Unclear { why } => format!("{} {} (unclear: {why})", step.chain, step.number),
    };
    let mut words: Vec<String> = path.steps.iter().map(step).collect();
    words.push(verdict(&path.verdict));
    for other in &path.otherwise {
        let on: Vec<String> = other.on.iter().map(|step| format!("{} {}", step.chain, step.number)).collect();
        words.push(format!("else, on {}: {}", on.join(" + "), verdict(&other.verdict)));
    }
    words.join("; ")
}

/// What a rule with this condition is answered.
#[track_caller]
fn answers(cases: &[(Packet, &str, &str)]) {
    for (packet, condition, expected) in cases {
        let rule = SavedRule::new(&format!("{condition} -j DROP"));
        let answer = match holds::rule(&Parts::of(&rule), packet, &mut by_name) {
            None => "no".to_owned(),
            Some(Holds::Yes) => "yes".to_owned(),
            Some(Holds::Perhaps { why, usually }) => {
                format!("{}{why}", if usually { "usually " } else { "" })
            }
            Some(Holds::Unclear { why }) => format!("unclear: {why}"),
        };
        assert_eq!(answer, *expected, "{condition}");
    }
}

fn udp() -> Packet {
    register(Protocol::Udp)
}

fn segment() -> Packet {
    register(Protocol::Tcp)
}

fn syn() -> Packet {
    Packet::syn(phone(), 5060)
}

#[test]
fn what_headers_are_asked_for() {
    let known = || Packet {
        source_port: Some(5062),
        destination: Some("192.0.2.1".parse().unwrap()),
        interface: Some("eth0".to_owned()),
        ..udp()
    };
    answers(&[
        (udp(), "-s 203.0.113.66/32", "yes"),
        (udp(), "-s 203.0.113.0/24", "yes"),
        (udp(), "-s 203.0.113.67/32", "no"),
        (udp(), "! -s 203.0.113.67/32", "yes"),
        (udp(), "-s 203.0.113.0/255.0.255.0", "depends on `-s 203.0.113.0/255.0.255.0`"),
        (udp(), "-d 192.0.2.1/32", "to 192.0.2.1/32"),
        (udp(), "-d 224.0.0.0/4", "no"),
        (known(), "-d 192.0.2.1/32", "yes"),
        (known(), "-d 192.0.2.2/32", "no"),
        (udp(), "-p udp", "yes"),
        (udp(), "-p tcp", "no"),
        (udp(), "! -p tcp", "yes"),
        (udp(), "-p 17", "yes"),
        (udp(), "-p icmp -m icmp --icmp-type 8", "no"),
        (udp(), "-i lo", "no"),
        (udp(), "! -i lo", "yes"),
        (udp(), "-i eth0", "over the interface eth0"),
        (udp(), "! -i eth0", "usually not over the interface eth0"),
        (known(), "-i eth0", "yes"),
        (known(), "-i eth+", "yes"),
        (known(), "-i eth", "no"),
        (udp(), "-f", "no"),
        (udp(), "-p udp -m udp --dport 5060:5091", "yes"),
        (udp(), "-p udp -m udp --dport 5080", "no"),
        (udp(), "-p udp -m udp ! --dport 5080", "yes"),
        (udp(), "-p udp -m udp --sport 53", "from port 53"),
        (udp(), "-p udp -m udp --sport 1024:65535", "usually from port 1024:65535"),
        (known(), "-p udp -m udp --sport 5062", "yes"),
        (udp(), "-p udp -m multiport --dports 53,5060,5080:5090", "yes"),
        (udp(), "-p udp -m multiport ! --dports 53,5060,5080:5090", "no"),
        (udp(), "-p udp -m multiport --ports 5060", "yes"),
        (syn(), "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", "yes"),
        (syn(), "-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN", "no"),
        (syn(), "-p tcp -m tcp --tcp-flags FIN,SYN,RST,PSH,ACK,URG NONE", "no"),
        (segment(), "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", "no"),
        (segment(), "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK ACK", "yes"),
    ]);
}

#[test]
fn what_sets_states_and_texts_are_asked_for() {
    answers(&[
        (udp(), "-m set --match-set in src", "yes"),
        (udp(), "-m set --match-set out src", "no"),
        (udp(), "-m set ! --match-set out src", "yes"),
        (udp(), "-m set --match-set other src,dst", "unclear: the set other, which is of the kind hash:mac"),
        (
            udp(),
            "-m set --match-set broken src",
            "unclear: the set broken, which cannot be asked: no such luck",
        ),
        (udp(), "-m set --match-set in src --packets-gt 5", "depends on `--packets-gt 5`"),
        (udp(), "-m conntrack --ctstate RELATED,ESTABLISHED", "no"),
        (udp(), "-m conntrack ! --ctstate RELATED,ESTABLISHED", "yes"),
        (udp(), "-m state --state NEW", "yes"),
        (udp(), "-m conntrack --ctstate INVALID", "no"),
        (udp(), "-m conntrack --ctstate ESTABLISHED,DNAT", "when it is DNAT"),
        (segment(), "-m state --state ESTABLISHED", "yes"),
        (udp().established(), "-m state --state ESTABLISHED", "yes"),
        (udp(), "-m comment --comment -j", "yes"),
        (udp(), "-m string --string \"username=\\\"101\\\"\" --algo bm", "yes"),
        (udp(), "-m string --string \"username=\\\"102\\\"\" --algo bm", "no"),
        (udp(), "-m string ! --string \"username=\\\"102\\\"\" --algo bm", "yes"),
        (udp(), "-m string --string USERNAME --algo kmp --icase", "yes"),
        (udp(), "-m string --string USERNAME --algo bm --to 65535", "no"),
        (udp(), "-m string --hex-string \"|52454749 53544552|\" --algo bm", "yes"),
        (udp(), "-m string --hex-string \"REG|49|STER\" --algo bm --from 28 --to 540", "yes"),
        (udp(), "-m string --hex-string \"REG|49|STER \" --algo bm --from 29 --to 100", "no"),
        (udp(), "-m string --string REGISTER --algo bm --to 27", "no"),
        (udp(), "-m string --string REGISTER --algo bm --to 36", "yes"),
        (
            udp(),
            "-m string --string REGISTER --algo bm --to 35",
            "depends on the kernel, as the text goes beyond byte 35",
        ),
        (segment(), "-m string --string REGISTER --algo bm --to 60", "yes"),
        (
            segment(),
            "-m string --string REGISTER --algo bm --to 48",
            "usually depending on the options of TCP before the text",
        ),
        (syn(), "-m string --string REGISTER --algo bm", "no"),
        (
            udp(),
            "-m string --hex-string \"|zz|\" --algo bm",
            "depends on `-m string --hex-string |zz| --algo bm`",
        ),
    ]);
}

#[test]
fn what_depends_is_said() {
    answers(&[
        (udp(), "-m limit --limit 10/min", "usually while no more than 10/min come (burst 5)"),
        (
            udp(),
            "-m hashlimit --hashlimit-above 20/min --hashlimit-burst 40 --hashlimit-mode srcip --hashlimit-name a",
            "when more than 20/min come from the address (burst 40)",
        ),
        (
            udp(),
            "-m hashlimit --hashlimit-upto 1/sec --hashlimit-name a",
            "usually while no more than 1/sec come (burst 5)",
        ),
        (
            syn(),
            "-p tcp -m connlimit --connlimit-above 10 --connlimit-mask 32",
            "when more than 10 connections are open",
        ),
        (udp(), "-m recent --set --name a --mask 255.255.255.255 --rsource", "yes"),
        (
            udp(),
            "-m recent --update --seconds 60 --hitcount 10 --name a --rsource",
            "when it is in the list a of `recent` 10 times within 60 seconds",
        ),
        (udp(), "-m addrtype --dst-type LOCAL", "yes"),
        (udp(), "-m addrtype --dst-type BROADCAST", "no"),
        (udp(), "-m addrtype ! --src-type LOCAL", "usually not depends on `--src-type LOCAL`"),
        (udp(), "-m iprange --src-range 203.0.113.60-203.0.113.70", "yes"),
        (udp(), "-m iprange --src-range 203.0.113.67-203.0.113.70", "no"),
        (udp(), "-m mark --mark 0x1", "depends on `-m mark --mark 0x1`"),
        (udp(), "-m mark ! --mark 0x1", "usually depends on `-m mark ! --mark 0x1`"),
        (udp(), "-m socket", "depends on `-m socket`"),
        (udp(), "-m geoip --source-country AU", "depends on `-m geoip --source-country AU`"),
        (
            udp(),
            "-i eth0 -m limit --limit 1/sec",
            "over the interface eth0, and while no more than 1/sec come (burst 5)",
        ),
        (udp(), "-i eth0 -p tcp -m limit --limit 1/sec", "no"),
        (udp(), "--unheard-of 7", "depends on `--unheard-of 7`"),
    ]);
}

#[test]
fn dates_are_asked_of_the_clock_that_is_handed_in() {
    let at = |time: &str| udp().at(time.parse().unwrap());
    let pause = "-m time --datestop 2026-11-21T21:59:59";
    let hours = "-m time --timestart 08:00:00 --timestop 18:00:00 --datestart 2026-11-01T00:00:00";
    let local = "-m time --datestop 2026-11-21T21:59:59 --kerneltz";
    answers(&[
        (at("2026-11-21T21:59:59.9Z"), pause, "yes"),
        (at("2026-11-21T22:00:00Z"), pause, "no"),
        (udp(), pause, &format!("depends on `{pause}`")),
        (at("2026-11-01T00:00:00Z"), "-m time --datestart 2026-11-01T00:00:00", "yes"),
        (at("2026-10-31T23:59:59Z"), "-m time --datestart 2026-11-01T00:00:00", "no"),
        (at("2026-10-31T23:59:59Z"), hours, "no"),
        (at("2026-11-21T12:00:00Z"), hours, &format!("depends on `{hours}`")),
        (at("2030-01-01T00:00:00Z"), local, &format!("depends on `{local}`")),
        (at("2026-11-21T12:00:00Z"), "-m time --weekdays Sat", "depends on `-m time --weekdays Sat`"),
        (at("2026-11-21T12:00:00Z"), "-m time --datestop soon", "depends on `-m time --datestop soon`"),
    ]);
}

#[test]
fn a_packet_goes_the_way_of_the_rules() {
    for (policy, rules, expected) in [
        ("ACCEPT", &[][..], "accepted by policy of INPUT"),
        ("DROP", &[], "dropped by policy of INPUT"),
        ("DROP", &["INPUT -p tcp -j DROP", "INPUT -j ACCEPT"], "INPUT 2; accepted by INPUT 2"),
        (
            "ACCEPT",
            &["INPUT -p udp -j REJECT --reject-with icmp-admin-prohibited"],
            "INPUT 1; rejected by INPUT 1 with icmp-admin-prohibited",
        ),
        // Back from a chain, at its end and before.
        (
            "DROP",
            &["INPUT -j A", "INPUT -j ACCEPT", "A -j LOG"],
            "INPUT 1; A 1; INPUT 2; accepted by INPUT 2",
        ),
        (
            "ACCEPT",
            &["INPUT -j A", "INPUT", "A -p udp -j RETURN", "A -j DROP"],
            "INPUT 1; A 1; INPUT 2; accepted by policy of INPUT",
        ),
        ("DROP", &["INPUT -j RETURN", "INPUT -j ACCEPT"], "INPUT 1; dropped by policy of INPUT"),
        // Who goes does not come back, but to where the chain that he was in was jumped to from.
        (
            "DROP",
            &["INPUT -j A", "INPUT -j ACCEPT", "A -g B", "A -j DROP", "B -j LOG"],
            "INPUT 1; A 1; B 1; INPUT 2; accepted by INPUT 2",
        ),
        ("DROP", &["INPUT -g A", "INPUT -j ACCEPT", "A -j LOG"], "INPUT 1; A 1; dropped by policy of INPUT"),
        // What may be.
        (
            "ACCEPT",
            &["INPUT -m limit --limit 5/sec -j RETURN", "INPUT -j DROP"],
            "INPUT 1 (usually while no more than 5/sec come (burst 5)); accepted by policy of INPUT; \
             else, on INPUT 1: dropped by INPUT 2",
        ),
        (
            "ACCEPT",
            &["INPUT -m mark --mark 0x1 -j DROP", "INPUT -m mark --mark 0x2 -j REJECT"],
            "INPUT 1 (depends on `-m mark --mark 0x1`); INPUT 2 (depends on `-m mark --mark 0x2`); accepted by policy of INPUT; \
             else, on INPUT 1: dropped by INPUT 1; else, on INPUT 2: rejected by INPUT 2 with -",
        ),
        (
            "DROP",
            &["INPUT -m mark --mark 0x1 -j DROP", "INPUT -m mark --mark 0x2 -j LOG"],
            "INPUT 1 (depends on `-m mark --mark 0x1`); INPUT 2 (depends on `-m mark --mark 0x2`); dropped by policy of INPUT",
        ),
        (
            "ACCEPT",
            &["INPUT -i ppp0 -j A", "INPUT -j ACCEPT", "A -m mark --mark 0x1 -j B", "B -j DROP"],
            "INPUT 1 (over the interface ppp0); INPUT 2; accepted by INPUT 2; else, on INPUT 1 + A 1: dropped by B 1",
        ),
        // Who goes perhaps comes by the rest perhaps.
        (
            "ACCEPT",
            &["INPUT -j A", "A -m mark --mark 0x1 -g B", "A -j DROP", "B -j LOG"],
            "INPUT 1; A 1 (depends on `-m mark --mark 0x1`); A 2; dropped by A 2; else, on A 1: accepted by policy of INPUT",
        ),
        // Each cause is told, also where their ways join.
        (
            "ACCEPT",
            &[
                "INPUT -m mark --mark 0x1 -g A",
                "INPUT -m mark --mark 0x2 -g A",
                "INPUT -m mark --mark 0x3 -j B",
                "A -j DROP",
                "B -j A",
            ],
            "INPUT 1 (depends on `-m mark --mark 0x1`); INPUT 2 (depends on `-m mark --mark 0x2`); \
             INPUT 3 (depends on `-m mark --mark 0x3`); accepted by policy of INPUT; \
             else, on INPUT 1: dropped by A 1; else, on INPUT 2: dropped by A 1; else, on INPUT 3: dropped by A 1",
        ),
        (
            "DROP",
            &["INPUT -j TARPIT"],
            "INPUT 1; unknown: rule 1 of INPUT has the target TARPIT, which is not known here",
        ),
        (
            "DROP",
            &["INPUT -j NFQUEUE --queue-num 0"],
            "INPUT 1; unknown: rule 1 of INPUT hands it to a program (NFQUEUE) that decides",
        ),
        (
            "DROP",
            &["INPUT -g A", "A -g B", "B -g A"],
            "INPUT 1; A 1; B 1; unknown: the chains lead in a circle",
        ),
    ] {
        assert_eq!(told(&walk(&table(policy, rules), &register(Protocol::Udp))), expected, "{rules:?}");
    }
    let circle = told(&walk(&table("DROP", &["INPUT -j A", "A -j A"]), &register(Protocol::Udp)));
    assert!(circle.ends_with("unknown: more than 64 chains lead into each other"), "{circle}");
}

#[test]
fn what_hangs_on_what_is_not_understood_is_unknown() {
    for (policy, rules, expected) in [
        (
            "ACCEPT",
            &["INPUT -m set --match-set macs src -j DROP"][..],
            "INPUT 1 (unclear: the set macs, which is of the kind hash:mac); \
             unknown: rule 1 of INPUT depends on the set macs, which is of the kind hash:mac",
        ),
        (
            "ACCEPT",
            &["INPUT -m set ! --match-set macs src -j ACCEPT", "INPUT -m set --match-set two src -j DROP"],
            "INPUT 1 (unclear: the set macs, which is of the kind hash:mac); \
             INPUT 2 (depends on the port that it comes from); accepted by policy of INPUT; else, on INPUT 2: dropped by INPUT 2",
        ),
        (
            "DROP",
            &["INPUT -j DNAT --to-destination 192.0.2.9"],
            "INPUT 1; unknown: rule 1 of INPUT sends it elsewhere (DNAT)",
        ),
    ] {
        assert_eq!(told(&walk(&table(policy, rules), &register(Protocol::Udp))), expected, "{rules:?}");
    }
}

#[test]
fn what_fusionpbx_installs_lets_phones_in_and_scanners_not() {
    let rules = saved(FUSIONPBX);
    assert_eq!(told(&walk(&rules, &register(Protocol::Udp))), "INPUT 22; accepted by INPUT 22");
    assert_eq!(told(&walk(&rules, &Packet::syn(phone(), 5060))), "INPUT 21; accepted by INPUT 21");
    assert_eq!(told(&walk(&rules, &register(Protocol::Tcp))), "INPUT 2; accepted by INPUT 2");
    let scanner = Packet::udp(phone(), 5060, "OPTIONS sip:a SIP/2.0\r\nUser-Agent: Friendly-Scanner\r\n\r\n");
    assert_eq!(told(&walk(&rules, &scanner)), "INPUT 3; dropped by INPUT 3");
    assert_eq!(
        told(&walk(&rules, &scanner.established())),
        "INPUT 2; accepted by INPUT 2",
        "once answered, nothing stops it"
    );
    assert_eq!(told(&walk(&rules, &Packet::syn(phone(), 3306))), "dropped by policy of INPUT");
    let path = walk(&rules, &register(Protocol::Udp));
    assert_eq!(
        path.passed,
        [Passed { program: "iptables-nft".into(), table: "filter".into(), chain: "INPUT".into(), rules: 21 }]
    );
}

#[test]
fn whom_event_guard_or_fail2ban_ban_is_dropped_by_that_rule() {
    let rules = saved(DOUBLED);
    for (address, packet, expected) in [
        ("203.0.113.66", "udp", "INPUT 3; sip-auth-fail 1; dropped by sip-auth-fail 1"),
        ("203.0.113.67", "udp", "INPUT 3; INPUT 4; sip-auth-ip 1; dropped by sip-auth-ip 1"),
        ("203.0.113.68", "udp", "INPUT 3; INPUT 4; INPUT 5; INPUT 6; INPUT 28; accepted by INPUT 28"),
        (
            "203.0.113.68",
            "tcp",
            "INPUT 1; f2b-freeswitch 1; rejected by f2b-freeswitch 1 with icmp-port-unreachable",
        ),
    ] {
        let address: IpAddr = address.parse().unwrap();
        let packet = if packet == "udp" {
            Packet::register(address, Protocol::Udp, 5060, None)
        } else {
            Packet::syn(address, 5060)
        };
        assert_eq!(told(&walk(&rules, &packet)), expected, "{address}");
    }
}

#[test]
fn words_of_people_are_handed_on_and_ours_are_not() {
    let ours = crate::firewall::Rule::new("-p udp", "DROP").about("of ours");
    let rules = table(
        "ACCEPT",
        &["INPUT -m comment --comment \"the \\\"boss\\\" -j DROP\"".to_owned(), format!("INPUT {ours}")],
    );
    let path = walk(&rules, &register(Protocol::Udp));
    assert_eq!(path.steps[0].comment.as_deref(), Some("the \"boss\" -j DROP"));
    assert_eq!((path.steps[0].tag, path.steps[0].target.as_deref()), (None, None));
    assert_eq!((path.steps[1].comment.as_deref(), path.steps[1].tag), (None, Some(ours.tag())));
    let json = serde_json::to_value(&path).unwrap();
    assert_eq!(json["verdict"], "dropped");
    assert_eq!(json["by"]["rule"]["number"], 2);
    assert_eq!(json["steps"][0]["holds"], "yes");
}

#[test]
fn a_rule_for_each_of_ten_thousand_addresses() {
    let rules: Vec<String> = (0..10_000_u32)
        .map(|n| format!("sip-auth-ip -s 198.51.{}.{}/32 -j DROP", n / 256, n % 256))
        .chain(["INPUT -j sip-auth-ip".to_owned()])
        .collect();
    let rules = table("ACCEPT", &rules);
    let path = walk(&rules, &register(Protocol::Udp));
    assert_eq!(told(&path), "INPUT 1; accepted by policy of INPUT");
    assert_eq!(path.passed[0].rules, 10_000);
    let perhaps: Vec<String> = (0..10_000).map(|n| format!("INPUT -m mark --mark {n} -j DROP")).collect();
    let path = walk(&table("ACCEPT", &perhaps), &register(Protocol::Udp));
    assert_eq!((path.steps.len(), path.otherwise.len()), (10_000, MOST_OTHERWISE));
}

#[test]
fn our_own_order_is_understood_whole() {
    let config = crate::config::Config::default();
    let settings = crate::firewall::order::Settings::new(&config, true, &BTreeMap::new()).unwrap();
    for (version, source) in [(Version::V4, PHONE), (Version::V6, "2001:db8::66")] {
        let layout: Layout = settings.layout(version);
        let mut rules: Vec<String> = layout.hooks.iter().map(|hook| format!("INPUT {}", hook.rule)).collect();
        for chain in &layout.chains {
            rules.extend(chain.rules.iter().map(|rule| format!("{} {rule}", chain.name)));
        }
        let rules = table("ACCEPT", &rules);
        let source: IpAddr = source.parse().unwrap();
        for (listed, packet, expected) in [
            ("none", Packet::register(source, Protocol::Udp, 5060, None), "accepted by policy of INPUT"),
            ("none", Packet::syn(source, 5060), "accepted by policy of INPUT"),
            ("none", Packet::register(source, Protocol::Tcp, 5060, None), "accepted by policy of INPUT"),
            ("none", Packet::syn(source, 22), "accepted by policy of INPUT"),
            ("allow", Packet::register(source, Protocol::Udp, 5060, None), "accepted by policy of INPUT"),
            ("block", Packet::register(source, Protocol::Udp, 5060, None), "dropped by RINGFENCE-KNOWN"),
            ("block", Packet::syn(source, 22), "dropped by RINGFENCE-KNOWN"),
            ("block", Packet::segment(source, 22, []), "accepted by policy of INPUT"),
            ("block", Packet::segment(source, 5060, []), "dropped by RINGFENCE-KNOWN"),
        ] {
            let mut members = |set: &str, sides: &[Side]| {
                assert_eq!(sides.len(), 1, "{set}");
                let wide = ["rf-listed", "rf-known"].iter().any(|name| set.starts_with(name));
                let sip = set == "rf-ports" && packet.port == 5060;
                Ok(Member::Is(sip || (wide && listed != "none") || set.starts_with(&format!("rf-{listed}"))))
            };
            let path = through_saved(&rules, ("iptables-nft", FILTER, INPUT), &packet, &mut members);
            let told = told(&path);
            assert!(verdict(&path.verdict).starts_with(expected), "{listed} {packet:?}: {told}");
            assert!(!told.contains("depends on"), "{told}");
            let limited = listed == "none" && !packet.content.is_empty();
            assert_eq!(path.otherwise.iter().any(|other| other.verdict.is_blocked()), limited, "{told}");
        }
    }
}

fn shell(script: &str) {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_kernel_says_who_is_in_a_set() {
    use Side::{Destination as D, Source as S};
    netlink::apart(|| {
        shell(
            "ipset create ip hash:ip; ipset add ip 203.0.113.66
             ipset create masked hash:ip netmask 24; ipset add masked 203.0.113.0
             ipset create net hash:net; ipset add net 203.0.113.0/24; ipset add net 203.0.113.128/25 nomatch
             ipset create net6 hash:net family inet6; ipset add net6 2001:db8::/32
             ipset create map bitmap:ip range 203.0.113.0/24; ipset add map 203.0.113.66
             ipset create ports bitmap:port range 0-65535; ipset add ports 5060
             ipset create both hash:ip,port; ipset add both 203.0.113.66,udp:5060
             ipset create netport hash:net,port; ipset add netport 203.0.113.0/24,tcp:5060
             ipset create pair hash:net,iface; ipset add pair 203.0.113.0/24,eth0
             ipset create list list:set; ipset add list net6; ipset add list ip
             ipset create empty list:set
             ipset create odd list:set; ipset add odd pair",
        );
        let mut sets = Sets::open().unwrap();
        let at = |address: &str| Packet::udp(address.parse().unwrap(), 5060, []);
        for (set, sides, packet, expected) in [
            ("ip", &[S][..], at(PHONE), Some(true)),
            ("ip", &[S], at("203.0.113.67"), Some(false)),
            ("ip", &[D], at(PHONE), None),
            ("ip", &[S, D], at(PHONE), Some(true)),
            ("ip", &[S], at("2001:db8::1"), Some(false)),
            ("masked", &[S], at("203.0.113.67"), Some(true)),
            ("net", &[S], at(PHONE), Some(true)),
            ("net", &[S], at("203.0.113.200"), Some(false)),
            ("net6", &[S], at("2001:db8::1"), Some(true)),
            ("map", &[S], at(PHONE), Some(true)),
            ("map", &[S], at("198.51.100.1"), Some(false)),
            ("ports", &[D], at(PHONE), Some(true)),
            ("ports", &[S], at(PHONE), None),
            ("both", &[S, D], at(PHONE), Some(true)),
            ("both", &[S, D], Packet::syn(phone(), 5060), Some(false)),
            ("both", &[S], at(PHONE), Some(false)),
            ("netport", &[S, D], at(PHONE), Some(false)),
            ("netport", &[S, D], Packet::syn(phone(), 5060), Some(true)),
            ("pair", &[S, D], at(PHONE), None),
            ("list", &[S], at(PHONE), Some(true)),
            ("list", &[S], at("2001:db8::1"), Some(true)),
            ("list", &[S], at("198.51.100.1"), Some(false)),
            ("empty", &[S], at(PHONE), Some(false)),
            ("odd", &[S, D], at(PHONE), None),
            ("odd", &[S], at(PHONE), Some(false)),
            ("nowhere", &[S], at(PHONE), None),
        ] {
            let is = match sets.hold(set, sides, &packet).unwrap() {
                Member::Is(is) => Some(is),
                Member::Depends(_) | Member::NotKnown(_) => None,
            };
            assert_eq!(is, expected, "{set} {sides:?} {packet:?}");
        }
        for (set, sides, expected) in [
            (
                "pair",
                &[S, D][..],
                Member::NotKnown("is of the kind hash:net,iface, which is not understood".into()),
            ),
            (
                "odd",
                &[S, D],
                Member::NotKnown("is of the kind hash:net,iface, which is not understood".into()),
            ),
            ("nowhere", &[S], Member::NotKnown("is not there".into())),
            ("ports", &[S], Member::Depends("on the port that it comes from, for the set ports".into())),
        ] {
            assert_eq!(sets.hold(set, sides, &at(PHONE)).unwrap(), expected);
        }
        assert_eq!(sets.contain("net", phone()).unwrap(), Some(true));
        shell("ipset del ip 203.0.113.66");
        assert_eq!(sets.contain("ip", phone()).unwrap(), Some(true), "asked once");
    });
}

fn any_rule() -> impl Strategy<Value = String> {
    let condition = prop_oneof![
        Just(""),
        Just("-p udp"),
        Just("-p tcp"),
        Just("! -p tcp"),
        Just("-m set --match-set in src"),
        Just("-m set ! --match-set in src"),
        Just("-m mark --mark 0x1"),
        Just("-m limit --limit 1/sec"),
        Just("-m set --match-set macs src"),
    ];
    let target = prop_oneof![
        Just(""),
        Just("-j ACCEPT"),
        Just("-j DROP"),
        Just("-j RETURN"),
        Just("-j LOG"),
        Just("-j B"),
        Just("-g B"),
        Just("-j C"),
        Just("-g C"),
        Just("-j A"),
    ];
    let chain = prop_oneof![Just("INPUT"), Just("A"), Just("B"), Just("C")];
    (chain, condition, target).prop_map(|(chain, condition, target)| format!("{chain} {condition} {target}"))
}

proptest! {
    /// Whatever the rules are, it ends; the end is a rule that it met, or the policy; and what is certain is not doubted.
    #[test]
    fn every_way_ends_with_its_last_step(rules in prop::collection::vec(any_rule(), 0..24)) {
        let rules = table("ACCEPT", &rules);
        let path = walk(&rules, &register(Protocol::Udp));
        match path.verdict.end() {
            Some(End::Rule(step)) => prop_assert_eq!(Some(&**step), path.steps.last()),
            Some(End::Policy { .. }) => prop_assert!(path.verdict.is_accepted()),
            None => {}
        }
        let certain = path.steps.iter().all(|step| step.holds == Holds::Yes);
        prop_assert!(!certain || path.otherwise.is_empty());
        for other in &path.otherwise {
            prop_assert!(other.on.iter().all(|step| step.holds != Holds::Yes));
            prop_assert!(!(other.verdict.is_accepted() && path.verdict.is_accepted()));
            prop_assert!(!(other.verdict.is_blocked() && path.verdict.is_blocked()));
        }
    }
}
