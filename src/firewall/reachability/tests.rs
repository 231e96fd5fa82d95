use std::process::Command;

use super::*;
use crate::firewall::path::{Holds, Protocol};
use crate::netlink;

const PHONE: &str = "203.0.113.66";

fn phone() -> IpAddr {
    PHONE.parse().unwrap()
}

fn register() -> Packet {
    Packet::register(phone(), Protocol::Udp, 5060, None)
}

/// Tables of iptables alone, without sets.
fn of(variant: Variant, tables: Vec<Table>) -> Reachability {
    let firewall = Firewall { variant, tables };
    Reachability {
        address: phone(),
        without_bans: firewall.without_bans(),
        firewall,
        others: vec![],
        others_without_bans: vec![],
        native: Ok(Native::default()),
        sets: None,
        destination: None,
        interface: None,
        now: Timestamp::UNIX_EPOCH,
        problems: vec![],
    }
}

fn table(variant: Variant, version: Version, rules: &[&str]) -> Table {
    let rules: Vec<String> = rules.iter().map(|rule| format!("[0:0] -A {rule}\n")).collect();
    let saved = Saved::parse(&format!(":INPUT ACCEPT [0:0]\n{}", rules.concat()));
    Table { program: Program { version, variant }, saved }
}

/// All of it in a line.
fn told(path: &Path) -> String {
    let steps = path.steps.iter().map(|step| match &step.holds {
        Holds::Yes => step.place(),
        Holds::Perhaps { why, .. } => format!("{} ({why})", step.place()),
        Holds::Unclear { why } => format!("{} (unclear: {why})", step.place()),
    });
    let verdict = |verdict: &Verdict| match verdict {
        Verdict::Accepted { by } => format!("let in by {}", by.place()),
        Verdict::Dropped { by } => format!("dropped by {}", by.place()),
        Verdict::Rejected { by, .. } => format!("rejected by {}", by.place()),
        Verdict::Unknown { why } => format!("unknown: {why}"),
    };
    let mut words: Vec<String> = steps.collect();
    words.push(verdict(&path.verdict));
    words.extend(path.otherwise.iter().map(|other| format!("else {}", verdict(&other.verdict))));
    words.join("; ")
}

#[test]
fn both_variants_and_only_its_own_version() {
    let (nft, legacy) = (Variant::Nft, Variant::Legacy);
    for (first, second, expected) in [
        ("-j ACCEPT", "-j DROP", "rule 1 of INPUT; rule 1 of INPUT; dropped by rule 1 of INPUT"),
        (
            "-m mark --mark 0x1 -j DROP",
            "-j DROP",
            "rule 1 of INPUT (depends on `-m mark --mark 0x1`); rule 1 of INPUT; dropped by rule 1 of INPUT",
        ),
        (
            "-m limit --limit 1/sec -j DROP",
            "-j ACCEPT",
            "rule 1 of INPUT (while no more than 1/sec come (burst 5)); dropped by rule 1 of INPUT; \
             else let in by rule 1 of INPUT",
        ),
        (
            "-m limit --limit 1/sec -j DROP",
            "-j DROP",
            "rule 1 of INPUT (while no more than 1/sec come (burst 5)); dropped by rule 1 of INPUT",
        ),
        ("-j DROP", "-m mark --mark 0x1 -j ACCEPT", "rule 1 of INPUT; dropped by rule 1 of INPUT"),
        // What one of them leaves open, the other decides.
        ("-j NFQUEUE", "-j DROP", "rule 1 of INPUT; rule 1 of INPUT; dropped by rule 1 of INPUT"),
        (
            "-j NFQUEUE",
            "-j ACCEPT",
            "rule 1 of INPUT; rule 1 of INPUT; unknown: rule 1 of INPUT hands it to a program (NFQUEUE) that decides",
        ),
    ] {
        let rule = |rule| format!("INPUT {rule}");
        let tables = vec![
            table(legacy, Version::V4, &[&rule(second)]),
            table(nft, Version::V4, &[&rule(first)]),
            table(nft, Version::V6, &["INPUT -j REJECT"]),
        ];
        let mut both = of(nft, tables);
        assert_eq!(told(&both.path(&register())), expected);
        let v6 = Packet::syn("2001:db8::1".parse().unwrap(), 5061);
        assert_eq!(told(&both.path(&v6)), "rule 1 of INPUT; rejected by rule 1 of INPUT");
    }
    assert_eq!(told(&of(nft, vec![]).path(&register())), "let in by the policy of INPUT");
}

fn shell(script: &str) {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What becomes of a REGISTER where these were run, on a host that has nothing else.
fn after(script: &'static str) -> String {
    let (sender, told) = std::sync::mpsc::channel();
    netlink::apart(move || {
        shell(script);
        let time = Duration::from_secs(30);
        let mut rules = Reachability::read(phone(), Timestamp::now(), time).unwrap();
        assert_eq!(rules.problems(), [""; 0]);
        sender.send(self::told(&rules.path(&register()))).unwrap();
    });
    told.recv().unwrap()
}

#[test]
fn tables_before_and_behind_filter_count() {
    for (script, expected) in [
        (
            "iptables-nft -t raw -A PREROUTING -s 203.0.113.66 -j DROP; iptables-nft -A INPUT -j ACCEPT",
            "rule 1 of PREROUTING (table raw); dropped by rule 1 of PREROUTING (table raw)",
        ),
        (
            "iptables-legacy -t mangle -A INPUT -p udp --dport 5060 -j DROP",
            "rule 1 of INPUT (table mangle); dropped by rule 1 of INPUT (table mangle)",
        ),
        (
            "iptables-nft -t mangle -A PREROUTING -j MARK --set-mark 1; iptables-nft -t raw -A PREROUTING -j ACCEPT",
            "rule 1 of PREROUTING (table raw); rule 1 of PREROUTING (table mangle); let in by the policy of INPUT",
        ),
        (
            "iptables-nft -t security -A INPUT -j DROP; iptables-nft -A INPUT -j ACCEPT",
            "rule 1 of INPUT; rule 1 of INPUT (table security); dropped by rule 1 of INPUT (table security)",
        ),
        // What is not tracked is of no connection.
        (
            "iptables-nft -t raw -A PREROUTING -p udp -j CT --notrack; iptables-nft -A INPUT -m conntrack --ctstate NEW -j DROP",
            "rule 1 of PREROUTING (table raw); let in by the policy of INPUT",
        ),
        (
            "iptables-nft -t nat -A PREROUTING -p udp --dport 5060 -j REDIRECT --to-ports 5080; iptables-nft -A INPUT -j ACCEPT",
            "rule 1 of PREROUTING (table nat); rule 1 of INPUT; unknown: rule 1 of PREROUTING (table nat) sends it elsewhere (REDIRECT)",
        ),
        ("iptables-nft -t nat -A PREROUTING -p tcp -j REDIRECT", "let in by the policy of INPUT"),
    ] {
        assert_eq!(after(script), expected, "{script}");
    }
}

const NATIVE: &str = "nft -f - <<'END'
table inet first {
    set banned { type ipv4_addr; elements = { 203.0.113.66 }; }
    chain in { type filter hook input priority -5; udp dport 5060 jump some; }
    chain some { ip saddr @banned reject; }
}
END
iptables-nft -A INPUT -j DROP";

#[test]
fn tables_of_nftables_own_count_where_they_stand() {
    for (script, expected) in [
        (
            NATIVE,
            "rule 1 of in (nftables, table inet first); rule 1 of some (nftables, table inet first); \
             rejected by rule 1 of some (nftables, table inet first)",
        ),
        (
            "nft 'add table inet t; add chain inet t in { type filter hook input priority 5; }; add rule inet t in drop'; \
             iptables-nft -A INPUT -p udp -j ACCEPT",
            "rule 1 of INPUT; rule 1 of in (nftables, table inet t); dropped by rule 1 of in (nftables, table inet t)",
        ),
        // A table that has the name of one of iptables', and what iptables cannot print.
        (
            "nft 'add table ip filter; add chain ip filter input { type filter hook input priority 0; policy drop; }; \
             add rule ip filter input udp dport { 5060, 5080-5081 } ct state { new, established } accept'",
            "rule 1 of input (nftables, table ip filter); let in by rule 1 of input (nftables, table ip filter)",
        ),
        (
            "nft 'add table inet t; add set inet t odd { type ipv4_addr . inet_service; }; \
             add chain inet t in { type filter hook input priority 0; }; add rule inet t in ip saddr . udp dport @odd drop'",
            "rule 1 of in (nftables, table inet t) (unclear: the set odd, whose keys are not understood here (ipv4_addr . inet_service)); \
             unknown: rule 1 of in (nftables, table inet t) depends on the set odd, whose keys are not understood here (ipv4_addr . inet_service)",
        ),
        (
            "nft 'add table netdev t; \
             add chain netdev t in { type filter hook ingress device lo priority 0; }; add rule netdev t in ip saddr 203.0.113.66 drop'",
            "rule 1 of in (nftables, table netdev t); \
             unknown: rule 1 of in (nftables, table netdev t) refuses it before all other rules",
        ),
        // But what is dropped later anyway is dropped.
        (
            "nft 'add table inet t; add set inet t odd { type inet_service; }; \
             add chain inet t in { type filter hook input priority -1; }; add rule inet t in udp dport @odd drop'; \
             iptables-nft -A INPUT -j DROP",
            "rule 1 of in (nftables, table inet t) (unclear: the set odd, whose keys are not understood here (inet_service)); \
             rule 1 of INPUT; dropped by rule 1 of INPUT",
        ),
    ] {
        let told = after(script);
        // Not every version of nft says of which interfaces a chain is.
        let told = told.strip_suffix(", on interfaces that are not told").unwrap_or(&told);
        assert_eq!(told.strip_suffix(", on lo").unwrap_or(told), expected, "{script}");
    }
}

#[test]
fn places_are_in_the_order_in_which_packets_meet_them() {
    netlink::apart(|| {
        shell(
            "iptables-nft -N f2b-ssh; iptables-nft -N A; iptables-nft -A INPUT -p tcp --dport 22 -j f2b-ssh
             iptables-nft -A INPUT -j A; iptables-nft -A INPUT -j A; iptables-nft -A f2b-ssh -s 198.51.100.7 -j REJECT
             iptables-nft -A A -p udp -g f2b-ssh; iptables-nft -A A -j LOG
             iptables-nft -t raw -A PREROUTING -p udp -j ACCEPT
             nft 'add table inet t; add chain inet t in { type filter hook input priority -1; }; add chain inet t sub
                  add rule inet t in udp dport vmap { 5060 : jump sub }; add rule inet t sub drop'",
        );
        let rules = Reachability::read(phone(), Timestamp::now(), Duration::from_secs(30)).unwrap();
        let place = |place: &Place| {
            format!("{} {} > {} {}", place.from, place.number, place.step.chain, place.step.number)
        };
        assert_eq!(
            rules.places().iter().map(place).collect::<Vec<_>>(),
            [
                "PREROUTING 1 > PREROUTING 1",
                "in 1 > in 1",
                "in 1 > sub 1",
                "INPUT 1 > INPUT 1",
                "INPUT 1 > f2b-ssh 1",
                "INPUT 2 > INPUT 2",
                "INPUT 2 > A 1",
                "INPUT 2 > A 2",
                "INPUT 3 > INPUT 3",
            ]
        );
    });
}
