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
            let address = address.parse().unwrap();
            let native = Native::read(address, &|_| false, time).unwrap();
            native.refusals(address).iter().map(ToString::to_string).collect::<Vec<_>>()
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
        let address = "203.0.113.66".parse().unwrap();
        let refusals = Native::read(address, &|_| false, time).unwrap().refusals(address);
        let closes: Vec<_> = refusals.iter().map(Refusal::closes).collect();
        assert_eq!(closes, [(Some(Protocol::Udp), Some(5060)), (Some(Protocol::Tcp), Some(22))]);
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
            let of_iptables = NftTable::is_of_iptables;
            let native = Native::read(packet.source, &of_iptables, Duration::from_secs(30)).unwrap();
            let path = native.path(&packet, &|_| true).unwrap_or_else(|| Path::ends(unknown("nothing")));
            let verdict = |verdict: &Verdict| match (verdict, verdict.end()) {
                (Verdict::Unknown { why }, _) => format!("unclear: {why}"),
                (verdict, _) if verdict.is_accepted() => "passes".to_owned(),
                (_, end) => end.unwrap().place(),
            };
            let otherwise = path.otherwise.iter().map(|other| format!("else {}", verdict(&other.verdict)));
            let told = [verdict(&path.verdict)].into_iter().chain(otherwise).collect::<Vec<_>>().join("; ");
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

const FIRST: &str = "rule 1 of in (nftables, table inet t)";
const POLICY: &str = "the policy of in (nftables, table inet t)";

#[test]
fn the_way_of_a_packet_is_that_of_the_kernel() {
    let usual = "ct state vmap { established : accept, related : accept, invalid : drop }
        iifname \"lo\" accept
        meta l4proto { icmp, ipv6-icmp } accept
        tcp dport { 22, 443, 5060-5090 } accept";
    let sub = "rule 1 of sub (nftables, table inet t)";
    let doubt = |what: &str| format!("unclear: {FIRST} depends on {what}");
    let set = &*doubt("the set some, whose keys are not understood here (inet_service)");
    let (over, under) = (&*format!("passes; else {FIRST}"), &*format!("passes; else {POLICY}"));
    let second = "rule 2 of in (nftables, table inet t)";
    for (policy, rules, cases) in [
        ("accept", "", &[(udp(5060), "passes")][..]),
        ("drop", usual, &[(udp(5060), POLICY), (syn(5060), "passes"), (udp(5060).established(), "passes")]),
        ("accept", "drop", &[(udp(5060), FIRST)]),
        (
            "drop",
            "ip6 saddr 2001:db8::/32 accept\n udp dport != 53 accept",
            &[(udp(5060), "passes"), (syn(5060), POLICY)],
        ),
        ("accept", "ip saddr 203.0.113.66 accept\n drop", &[(udp(5060), "passes")]),
        // Through another chain, and back.
        ("drop", "jump sub\n accept", &[(udp(5060), "passes"), (udp(5061), sub)]),
        ("drop", "goto sub\n accept", &[(udp(5060), POLICY)]),
        (
            "accept",
            "udp dport vmap { 5060 : jump sub, 5061 : drop, 5062 : accept }\n drop",
            &[(udp(5062), "passes"), (udp(5061), FIRST), (udp(5060), second)],
        ),
        // What is not understood most often does not hold, as with iptables.
        ("accept", "meta mark 7 drop", &[(udp(5060), over)]),
        ("accept", "meta mark != 7 drop", &[(udp(5060), &*format!("{FIRST}; else passes"))]),
        ("drop", "meta mark 7 accept", &[(udp(5060), &*format!("{POLICY}; else passes"))]),
        ("drop", "meta mark 7 drop", &[(udp(5060), POLICY)]),
        ("accept", "meta mark 7 accept", &[(udp(5060), "passes")]),
        (
            "accept",
            "meta mark 7 jump sub",
            &[(udp(5060), "passes"), (udp(5061), &*format!("passes; else {sub}"))],
        ),
        ("drop", "udp dport @some accept", &[(udp(5060), set), (syn(5060), POLICY)]),
        ("accept", "limit rate over 5/second drop", &[(udp(5060), over)]),
        ("drop", "limit rate 5/second accept", &[(udp(5060), under)]),
    ] {
        fates(&input(policy, rules), cases);
    }
}

/// What firewalld and administrators write beside ports and addresses.
#[test]
fn what_rules_usually_ask_leaves_nothing_unknown() {
    let segment = || Packet::segment(udp(1).source, 5060, []);
    let v6 = Packet::udp("2001:db8::66".parse().unwrap(), 5060, []);
    let may_drop = &*format!("passes; else {FIRST}");
    for (rule, cases) in [
        (
            "meta nfproto ipv6 fib saddr . mark . iif oif missing drop",
            &[(udp(5060), "passes"), (v6, may_drop)][..],
        ),
        (
            "fib saddr . iif oif exists accept\n drop",
            &[(udp(5060), "passes; else rule 2 of in (nftables, table inet t)")],
        ),
        ("fib saddr type { broadcast, multicast } drop", &[(udp(5060), "passes")]),
        ("fib saddr type != unicast drop", &[(udp(5060), "passes")]),
        ("fib saddr type blackhole drop", &[(udp(5060), may_drop)]),
        ("fib daddr . iif type != local drop", &[(udp(5060), "passes")]),
        (
            "tcp flags & (fin|syn|rst|ack) != syn ct state established drop",
            &[(syn(5060), "passes"), (segment(), FIRST), (udp(5060), "passes")],
        ),
        ("tcp flags & (fin|syn) == (fin|syn) drop", &[(syn(5060), "passes")]),
        ("tcp flags & (fin|syn|rst|psh|ack|urg) == 0 drop", &[(syn(5060), "passes")]),
        ("tcp flags syn drop", &[(syn(5060), FIRST), (segment(), "passes")]),
        ("tcp flags ! syn drop", &[(syn(5060), "passes"), (segment(), FIRST)]),
        ("tcp flags { syn, ack } drop", &[(syn(5060), FIRST), (segment(), "passes")]),
        ("ip frag-off & 0x1fff != 0 drop", &[(udp(5060), "passes")]),
        ("ip frag-off & 0x4000 != 0 drop", &[(udp(5060), &*format!("{FIRST}; else passes"))]),
        ("exthdr frag exists drop", &[(udp(5060), "passes")]),
        ("rt type 0 drop", &[(udp(5060), "passes")]),
        ("update @seen { ip saddr limit rate over 20/minute } drop", &[(udp(5060), may_drop)]),
        ("update @seen { ip saddr } counter drop", &[(udp(5060), FIRST)]),
        ("add @open { ip saddr ct count over 20 } drop", &[(udp(5060), may_drop)]),
        ("ct count over 20 drop", &[(udp(5060), may_drop)]),
        ("quota over 10 mbytes drop", &[(udp(5060), may_drop)]),
        ("ct mark & 0xff == 7 drop", &[(udp(5060), may_drop)]),
        ("udp dport >= 5060 drop", &[(udp(5060), FIRST), (udp(5059), "passes")]),
        ("udp sport < 1024 drop", &[(udp(5060), may_drop)]),
        (
            "udp sport >= 1024 accept\n drop",
            &[(udp(5060), "passes; else rule 2 of in (nftables, table inet t)")],
        ),
        (
            "ip saddr . udp dport { 203.0.113.66 . 5060, 192.0.2.1 . 5061 } drop",
            &[(udp(5060), FIRST), (udp(5061), "passes")],
        ),
    ] {
        let sets = "set seen { type ipv4_addr; flags dynamic; timeout 1m; }\n set open { type ipv4_addr; flags dynamic; }\n chain sub";
        fates(&input("accept", rule).replace("chain sub", sets), cases);
    }
}

#[test]
fn only_chains_that_packets_for_this_host_come_by_count() {
    let hooked = |hook: &str, rule: &str| {
        format!(
            "table ip t {{\n chain in {{\n type filter hook {hook};\n {rule}\n }}\n chain nowhere {{\n drop\n }}\n}}\n"
        )
    };
    let drops = "rule 1 of in (nftables, table ip t)";
    let rule = "ip saddr 203.0.113.66 drop";
    let v6 = Packet::udp("2001:db8::66".parse().unwrap(), 5060, []);
    for (hook, expected) in [
        ("input priority 0", drops),
        ("prerouting priority -300", drops),
        ("forward priority 0", "unclear: nothing"),
        ("output priority 0", "unclear: nothing"),
    ] {
        fates(&hooked(hook, rule), &[(udp(5060), expected), (v6.clone(), "unclear: nothing")]);
    }
    // An accept ends only its own chain; the first refusal is told.
    let two = "table ip u {\n chain first {\n type filter hook input priority -5;\n accept\n }\n chain last {\n type filter hook input priority 5;\n drop\n }\n}\n";
    fates(two, &[(udp(5060), "rule 1 of last (nftables, table ip u)")]);
    fates(&(two.to_owned() + &hooked("input priority 0", rule)), &[(udp(5060), drops)]);
    let ours = "table ip filter {\n chain INPUT {\n type filter hook input priority 0;\n drop\n }\n}\n";
    fates(ours, &[(udp(5060), "unclear: nothing")]);
}

#[test]
fn rules_read_as_nft_writes_them() {
    let rules = "udp dport { 5060, 5080-5081 } ip saddr 203.0.113.0/24 counter drop
        ip saddr != { 192.0.2.1, 192.0.2.9-192.0.2.11 } tcp dport 22 limit rate over 5/minute reject
        ct state vmap { established : accept, new : jump sub }
        meta mark & 0xff == 7 iifname \"eth0\" udp dport @some log accept
        ip saddr . udp dport { 192.0.2.1 . 5060 } goto sub
        update @seen { ip saddr limit rate over 20/minute } ct count over 20 quota over 10 mbytes drop
        exthdr frag exists drop";
    let set = "set seen { type ipv4_addr; flags dynamic; timeout 1m; }\n chain sub";
    let text = input("accept", rules).replace("chain sub", set);
    netlink::apart(move || {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rules");
        std::fs::write(&path, &text).unwrap();
        assert!(Command::new("nft").arg("-f").arg(&path).status().unwrap().success());
        let native = Native::read(udp(1).source, &|_| false, Duration::from_secs(30)).unwrap();
        let chain = native.chains.iter().find(|chain| chain.name == "in").unwrap();
        assert_eq!(
            chain.rules.iter().map(|rule| text::rule(&rule.expressions)).collect::<Vec<_>>(),
            [
                "udp dport { 5060, 5080-5081 } ip saddr 203.0.113.0/24 counter drop",
                "ip saddr != { 192.0.2.1, 192.0.2.9-192.0.2.11 } tcp dport 22 limit rate over 5/minute reject",
                "ct state vmap { established : accept, new : jump sub }",
                "meta mark & 255 7 iifname eth0 udp dport @some log accept",
                "ip saddr . udp dport { 192.0.2.1 . 5060 } goto sub",
                "update @seen { ip saddr limit rate over 20/minute } ct count over 20 quota over 10 mbytes drop",
                "exthdr frag true drop",
            ]
        );
    });
}
