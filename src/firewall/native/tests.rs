use std::process::Command;

use super::*;
use crate::netlink;

/// As fail2ban's action `nftables` makes it, and what administrators write.
const RULESET: &str = "\
    table inet f2b-table {
        set addr-set-sip { type ipv4_addr; elements = { 203.0.113.66 }; }
        set addr6-set-sip { type ipv6_addr; elements = { 2001:db8::66 }; }
        chain f2b-chain {
            type filter hook input priority -1; policy accept;
            udp dport { 5060, 5080-5081 } ip saddr @addr-set-sip reject
            udp dport { 5060, 5080-5081 } ip6 saddr @addr6-set-sip reject
        }
    }
    table ip own {
        set nets { type ipv4_addr; flags interval; elements = { 198.51.100.0/24 }; }
        set friends { type ipv4_addr; elements = { 203.0.113.66 }; }
        chain in {
            type filter hook input priority 0; policy accept;
            ip saddr @nets counter drop
            ip saddr 203.0.113.64/30 tcp dport 22 meta mark 7 drop
            ip saddr { 192.0.2.7, 192.0.2.9-192.0.2.11 } meta l4proto tcp drop
            ip saddr != @friends tcp dport 8080 drop
            ip saddr 203.0.113.66 accept
            ip saddr 203.0.113.66 drop
        }
        chain nowhere { ip saddr 203.0.113.66 drop; }
        chain out { type filter hook forward priority 0; policy drop; ip saddr 203.0.113.66 drop; }
    }";

#[test]
fn whom_rules_of_nftables_refuse_is_found() {
    netlink::apart(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rules");
        std::fs::write(&path, RULESET).unwrap();
        let time = Duration::from_secs(10);
        let of = |address: &str| {
            let refusals = refusals(address.parse().unwrap(), time).unwrap();
            refusals.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(of("203.0.113.66"), [""; 0]);
        assert!(Command::new("nft").arg("-f").arg(&path).status().unwrap().success());
        let f2b = "nftables, table inet f2b-table: the chain f2b-chain rejects it, as the set";
        let own = "nftables, table ip own: the chain in drops it";
        let stranger = format!("{own}, as the set friends does not have it (TCP, port 8080)");
        assert_eq!(
            of("203.0.113.66"),
            [
                format!("{f2b} addr-set-sip has it (UDP, port 5060, 5080-5081)"),
                format!("{own}, by name (TCP, port 22, and more that is not understood here)"),
            ]
        );
        assert_eq!(of("2001:db8::66"), [format!("{f2b} addr6-set-sip has it (UDP, port 5060, 5080-5081)")]);
        assert_eq!(of("198.51.100.7"), [format!("{own}, as the set nets has it"), stranger.clone()]);
        assert_eq!(of("192.0.2.10"), [format!("{own}, by name (TCP)"), stranger.clone()]);
        assert_eq!(of("192.0.2.8"), [stranger]);
        assert_eq!(of("2001:db8::67"), [""; 0]);
        let refusal = refusals("203.0.113.66".parse().unwrap(), time).unwrap();
        assert_eq!(refusal[0].meets(Protocol::Udp, 5081), Some(true));
        assert_eq!(refusal[0].meets(Protocol::Tcp, 5081), Some(false));
        assert_eq!(refusal[0].meets(Protocol::Udp, 5082), Some(false));
        assert_eq!(refusal[1].meets(Protocol::Tcp, 22), None);
    });
}

/// What becomes of packets of an address by these rules, in words.
fn fates(rules: &str, cases: &[(Packet, &str)]) {
    let rules = rules.to_owned();
    let cases: Vec<_> = cases.iter().map(|(packet, told)| (packet.clone(), (*told).to_owned())).collect();
    netlink::apart(move || {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rules");
        std::fs::write(&path, &rules).unwrap();
        assert!(Command::new("nft").arg("-f").arg(&path).status().unwrap().success(), "{rules}");
        for (packet, expected) in cases {
            let native = Native::read(packet.source, Duration::from_secs(30)).unwrap();
            let told = match native.fate(&packet) {
                Fate::Passes(limits) => {
                    ["passes".to_owned()].into_iter().chain(limits).collect::<Vec<_>>().join("; ")
                }
                Fate::Refused(refusal) => refusal.to_string(),
                Fate::Unclear(why) => format!("unclear: {why}"),
            };
            assert_eq!(told, expected, "{rules} {packet:?}");
        }
    });
}

fn udp(port: u16) -> Packet {
    Packet::udp("203.0.113.66".parse().unwrap(), port, [])
}

fn syn(port: u16) -> Packet {
    Packet::syn("203.0.113.66".parse().unwrap(), port)
}

/// A table with these rules in a chain of packets for this host.
fn input(policy: &str, rules: &str) -> String {
    format!(
        "table inet t {{\n set some {{ type inet_service; }}\n chain sub {{\n udp dport 5061 drop\n return\n }}\n \
         chain in {{\n type filter hook input priority 0; policy {policy};\n {rules}\n }}\n}}\n"
    )
}

const DROPS: &str = "nftables, table inet t: the chain in drops it";
const DOUBT: &str = "unclear: rule 1 of the chain in of nftables' table inet t asks what is not understood";

#[test]
fn the_way_of_a_packet_is_that_of_the_kernel() {
    let usual = "ct state vmap { established : accept, related : accept, invalid : drop }
        iifname \"lo\" accept
        meta l4proto { icmp, ipv6-icmp } accept
        tcp dport { 22, 443, 5060-5090 } accept";
    let (policy, anybody) = (&*format!("{DROPS} by its policy"), &*format!("{DROPS}, whoever sends it"));
    let limit = "otherwise when more come than rule 1 of the chain in of nftables' table inet t allows";
    let limited = &*format!("passes; {limit}");
    for (policy, rules, cases) in [
        ("accept", "", &[(udp(5060), "passes")][..]),
        ("drop", usual, &[(udp(5060), policy), (syn(5060), "passes"), (udp(5060).established(), "passes")]),
        ("accept", "drop", &[(udp(5060), anybody)]),
        (
            "drop",
            "ip6 saddr 2001:db8::/32 accept\n udp dport != 53 accept",
            &[(udp(5060), "passes"), (syn(5060), policy)],
        ),
        ("accept", "ip saddr 203.0.113.66 accept\n drop", &[(udp(5060), "passes")]),
        // Through another chain, and back.
        (
            "drop",
            "jump sub\n accept",
            &[
                (udp(5060), "passes"),
                (
                    udp(5061),
                    "nftables, table inet t: the chain sub drops it, whoever sends it (UDP, port 5061)",
                ),
            ],
        ),
        ("drop", "goto sub\n accept", &[(udp(5060), policy)]),
        (
            "accept",
            "udp dport vmap { 5060 : jump sub, 5061 : drop, 5062 : accept }\n drop",
            &[(udp(5062), "passes"), (udp(5061), anybody), (udp(5060), anybody)],
        ),
        // What hangs on what is not understood, and what does not.
        ("accept", "meta mark 7 drop", &[(udp(5060), DOUBT)]),
        ("drop", "meta mark 7 accept", &[(udp(5060), DOUBT)]),
        ("drop", "meta mark 7 drop", &[(udp(5060), policy)]),
        ("accept", "meta mark 7 accept", &[(udp(5060), "passes")]),
        ("accept", "meta mark 7 jump sub", &[(udp(5060), "passes"), (udp(5061), DOUBT)]),
        ("drop", "udp dport @some accept", &[(udp(5060), DOUBT), (syn(5060), policy)]),
        ("accept", "limit rate over 5/second drop", &[(udp(5060), limited)]),
        ("drop", "limit rate 5/second accept", &[(udp(5060), limited)]),
    ] {
        fates(&input(policy, rules), cases);
    }
}

#[test]
fn only_chains_that_packets_for_this_host_come_by_count() {
    let hooked = |hook: &str, rule: &str| {
        format!(
            "table ip t {{\n chain in {{\n type filter hook {hook};\n {rule}\n }}\n chain nowhere {{\n drop\n }}\n}}\n"
        )
    };
    let drops = "nftables, table ip t: the chain in drops it, by name";
    let rule = "ip saddr 203.0.113.66 drop";
    let v6 = Packet::udp("2001:db8::66".parse().unwrap(), 5060, []);
    for (hook, expected) in [
        ("input priority 0", drops),
        ("prerouting priority -300", drops),
        ("forward priority 0", "passes"),
        ("output priority 0", "passes"),
    ] {
        fates(&hooked(hook, rule), &[(udp(5060), expected), (v6.clone(), "passes")]);
    }
    // An accept ends only its own chain; the first refusal is told.
    let two = "table ip u {\n chain first {\n type filter hook input priority -5;\n accept\n }\n chain last {\n type filter hook input priority 5;\n drop\n }\n}\n";
    fates(two, &[(udp(5060), "nftables, table ip u: the chain last drops it, whoever sends it")]);
    fates(&(two.to_owned() + &hooked("input priority 0", rule)), &[(udp(5060), drops)]);
    let ours = "table ip filter {\n chain INPUT {\n type filter hook input priority 0;\n drop\n }\n}\n";
    fates(ours, &[(udp(5060), "passes")]);
}
