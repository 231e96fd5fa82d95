use std::process::Command;

use super::super::iptables::Program;
use super::super::nft::Family;
use super::super::{Rule, Saved};
use super::*;

const FUSIONPBX: &str = include_str!("../../../tests/data/firewall/fusionpbx-iptables.rules");
const DOUBLED: &str = include_str!("../../../tests/data/firewall/fusionpbx-event-guard-doubled.rules");
const UFW: &str = include_str!("../../../tests/data/firewall/ufw-iptables.rules");
const FIREWALLD: &str = include_str!("../../../tests/data/firewall/firewalld-iptables.rules");
const DOCKER: &str = include_str!("../../../tests/data/firewall/docker-iptables.rules");
const FLUSHING: &str = include_str!("../../../tests/data/firewall/flush-ruleset.nft");

const ESTABLISHED: &str = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";
const F2B: &str = "-p tcp -m multiport --dports 22 -j f2b-sshd";

/// The table `filter` of what iptables-save printed without `-c`.
fn saved(text: &str) -> Saved {
    let filter = text.split("*filter\n").nth(1).unwrap().split("COMMIT\n").next().unwrap();
    let line =
        |line: &str| if line.starts_with("-A") { format!("[0:0] {line}\n") } else { format!("{line}\n") };
    Saved::parse(&filter.lines().map(line).collect::<String>())
}

/// With these rules in INPUT.
fn input(policy: &str, rules: &[&str]) -> String {
    let rules: Vec<String> = rules.iter().map(|rule| format!("-A INPUT {rule}\n")).collect();
    let rules = rules.concat();
    format!("*filter\n:INPUT {policy} [0:0]\n:f2b-sshd - [0:0]\n{rules}COMMIT\n")
}

fn table(variant: Variant, version: Version, text: &str) -> Table {
    Table { program: Program { version, variant }, saved: saved(text) }
}

/// IPv4 of iptables-nft as in `text`, IPv6 closed and otherwise empty.
fn nft(text: &str) -> Vec<Table> {
    vec![
        table(Variant::Nft, Version::V4, text),
        table(Variant::Nft, Version::V6, &input("DROP", &["-i lo -j ACCEPT"])),
    ]
}

fn look(tables: &[Table], nft: &[NftTable], conf: &str) -> Vec<Concern> {
    find(Variant::Nft, tables, nft, &NftablesConf { path: Path::new("/etc/nftables.conf"), text: conf })
}

fn kinds(concerns: &[Concern]) -> Vec<Kind> {
    concerns.iter().map(|concern| concern.kind).collect()
}

/// The text of the one concern of this kind.
fn text(concerns: &[Concern], kind: Kind) -> &str {
    let mut found = concerns.iter().filter(|concern| concern.kind == kind);
    let text = &found.next().unwrap_or_else(|| panic!("no {kind:?} in {concerns:?}")).text;
    assert_eq!(found.next(), None);
    text
}

fn tables_of(names: &[(Family, &str)]) -> Vec<NftTable> {
    names.iter().map(|(family, name)| NftTable { family: *family, name: (*name).to_owned() }).collect()
}

#[test]
fn a_clean_host_has_no_concerns_but_notes() {
    let own = tables_of(&[(Family::Ip, "filter"), (Family::Ip, "mangle"), (Family::Ip6, "filter")]);
    assert_eq!(look(&nft(FUSIONPBX), &own, ""), []);
    let bare = [
        table(Variant::Nft, Version::V4, &input("ACCEPT", &[])),
        Table { program: Program { version: Version::V6, variant: Variant::Nft }, saved: Saved::default() },
    ];
    let concerns = look(&bare, &[], "");
    assert_eq!(kinds(&concerns), [Kind::Open]);
    assert_eq!(concerns[0].severity, Severity::Note);
    assert!(concerns[0].text.contains("over IPv4 and IPv6:"), "{concerns:?}");
}

#[test]
fn bans_below_what_accepts_running_connections() {
    let late = FUSIONPBX.replace("COMMIT\n", "-A INPUT -j sip-auth-ip\nCOMMIT\n");
    let concerns = look(&nft(&late), &[], "");
    assert_eq!(kinds(&concerns), [Kind::BanBelowAccept]);
    assert_eq!(
        concerns[0],
        Concern {
            severity: Severity::Warning,
            kind: Kind::BanBelowAccept,
            text: "In INPUT of iptables-nft the bans of sip-auth-ip stand below rule 2, which has `-m state --state \
                   RELATED,ESTABLISHED -j ACCEPT`: what that accepts, as running connections, no ban cuts off."
                .into(),
            remedy: "iptables-nft -D INPUT -j sip-auth-ip; iptables-nft -I INPUT 1 -j sip-auth-ip".into()
        }
    );

    let set = "-p udp -m set --match-set f2b-sip src -j DROP";
    let accept = "-p udp -m udp --dport 5060 -j ACCEPT";
    for (rules, named) in [
        (&[F2B, ESTABLISHED][..], None),
        (&["-i lo -j ACCEPT", F2B, ESTABLISHED], None),
        (&["! -i lo -j ACCEPT", F2B], Some("the bans of f2b-sshd stand below rule 1")),
        (&[ESTABLISHED, F2B, set], Some("the bans of f2b-sshd, f2b-sip stand below rule 1")),
        (&[F2B, accept, set, ESTABLISHED], Some("the bans of f2b-sip stand below rule 2")),
        (&["-s 203.0.113.0/24 -j ACCEPT", F2B], None),
        (&["! -s 203.0.113.0/24 -j ACCEPT", F2B], Some("rule 1, which has `! -s")),
        (&["-p icmp -j ACCEPT", F2B], None),
        (&["-m set --match-set office src -j ACCEPT", F2B], None),
        (&[ESTABLISHED, "-m comment --comment \"no f2b-sshd here\" -j RETURN"], None),
        (&[ESTABLISHED, "-m set --match-set f2b-white src -j ACCEPT"], None),
        (&["-j nowhere", F2B], None),
    ] {
        let concerns = look(&nft(&input("DROP", rules)), &[], "");
        match named {
            None => assert_eq!(concerns, [], "{rules:?}"),
            Some(named) => assert!(text(&concerns, Kind::BanBelowAccept).contains(named), "{concerns:?}"),
        }
    }

    // There once above, it bans.
    let concerns = look(&nft(&input("DROP", &[F2B, ESTABLISHED, F2B])), &[], "");
    assert_eq!(kinds(&concerns), [Kind::DoubledBan]);
    // What a shell could take for something else is named by its number.
    let odd = "-m comment --comment \"$(reboot)\" -j f2b-sshd";
    let concerns = look(&nft(&input("DROP", &[ESTABLISHED, odd])), &[], "");
    assert_eq!(concerns[0].remedy, "iptables-nft -D INPUT 2; the same rule anew as number 1");
}

#[test]
fn bans_below_a_chain_that_accepts() {
    let with_ban_above = |rule: &str| UFW.replace(rule, &format!("-A INPUT -j f2b-sip\n{rule}"));
    let behind = with_ban_above("-A INPUT -j ufw-after-input\n");
    let concerns = look(&nft(&behind), &[], "");
    let text = text(&concerns, Kind::BanBelowAccept);
    let expected = "below rule 2, which, in its chain ufw-before-input, has `-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`";
    assert!(text.contains(expected), "{text}");

    let before = with_ban_above("-A INPUT -j ufw-before-logging-input\n");
    assert_eq!(kinds(&look(&nft(&before), &[], "")), [Kind::Ufw]);

    let circle =
        "*filter\n:INPUT DROP [0:0]\n-A INPUT -j a\n-A INPUT -j f2b-sip\n-A a -j b\n-A b -j a\nCOMMIT\n";
    assert_eq!(look(&nft(circle), &[], ""), []);
}

#[test]
fn jumps_that_event_guard_doubled() {
    let concerns = look(&nft(DOUBLED), &[], "");
    assert_eq!(kinds(&concerns), [Kind::DoubledBan]);
    assert_eq!(concerns[0].severity, Severity::Warning);
    let text = &concerns[0].text;
    assert!(
        text.contains("the same jump to sip-auth-fail 2 times, sip-auth-ip 2 times, f2b-freeswitch 2 times"),
        "{text}"
    );
    assert_eq!(concerns[0].remedy, "iptables-nft -D INPUT -j sip-auth-ip");

    let two = ["-p tcp -j f2b-sip", "-p udp -j f2b-sip", "-i lo -j ACCEPT", "-i lo -j ACCEPT"];
    assert_eq!(look(&nft(&input("DROP", &two)), &[], ""), [], "tcp and udp are not the same");
}

#[test]
fn ipv6_open_beside_ipv4_closed() {
    let v4 = |text| table(Variant::Nft, Version::V4, text);
    let v6 = |text: &str| table(Variant::Nft, Version::V6, text);
    let (closed, open) = (input("DROP", &[ESTABLISHED]), input("ACCEPT", &[ESTABLISHED]));
    let refused = input(
        "ACCEPT",
        &[ESTABLISHED, "-m comment --comment \"the rest\" -j REJECT --reject-with icmp-port-unreachable"],
    );
    let conditional = input("ACCEPT", &["-p udp -j DROP"]);
    let accepted = input("DROP", &["-j ACCEPT"]);
    let ufw_open = UFW.replace(":INPUT DROP", ":INPUT ACCEPT");
    let none = || Table {
        program: Program { version: Version::V6, variant: Variant::Nft },
        saved: Saved::default(),
    };
    for (tables, kind) in [
        (vec![v4(&closed), v6(&open)], Some(Kind::Ipv6Open)),
        (vec![v4(FUSIONPBX), v6(&conditional)], Some(Kind::Ipv6Open)),
        (vec![v4(&refused), v6(&accepted)], Some(Kind::Ipv6Open)),
        (vec![v4(&closed), none()], Some(Kind::Ipv6Open)),
        (vec![v4(&closed), v6(&refused)], None),
        // IPv6 is switched off.
        (vec![v4(&closed)], None),
        (vec![v4(&open), v6(&closed)], Some(Kind::Open)),
        (vec![v4(&open), none()], Some(Kind::Open)),
        (vec![v4(FIREWALLD), v6(&open)], Some(Kind::Ipv6Open)),
        (vec![v4(UFW), v6(UFW)], None),
        // Through the DROP at the end of ufw-not-local only some packets get.
        (vec![v4(&ufw_open), v6(&closed)], Some(Kind::Open)),
    ] {
        let concerns = look(&tables, &[], "");
        let found = concerns.iter().find(|concern| matches!(concern.kind, Kind::Ipv6Open | Kind::Open));
        assert_eq!(found.map(|concern| concern.kind), kind, "{tables:?}");
        let severity = kind.map(|kind| if kind == Kind::Open { Severity::Note } else { Severity::Warning });
        assert_eq!(found.map(|concern| concern.severity), severity);
    }
    // Closed in the other variant is closed.
    let tables = [v4(&closed), v6(&open), table(Variant::Legacy, Version::V6, &closed)];
    assert_eq!(kinds(&look(&tables, &[], "")), [Kind::TwoVariants]);
    let concerns = look(&[v4(&closed), v6(&open)], &tables_of(&[(Family::Inet, "filter")]), "");
    assert!(text(&concerns, Kind::Ipv6Open).ends_with("may still drop them.)"), "{concerns:?}");
    let open = concerns.iter().find(|concern| concern.kind == Kind::Ipv6Open).unwrap();
    assert!(
        open.remedy
            .starts_with("Give ip6tables-nft the rules that IPv4 has (see them with iptables-nft -S INPUT)")
    );
}

#[test]
fn the_end_of_a_chain() {
    for (rules, fate) in [
        ("-A INPUT -j rest\n-A rest -j LOG --log-prefix \"x \"\n-A rest -j DROP\n", Fate::Refused),
        ("-A INPUT -j rest\n-A rest -p tcp -j RETURN\n-A rest -j DROP\n", Fate::Accepted),
        ("-A INPUT -p tcp -j RETURN\n-A INPUT -j DROP\n", Fate::Refused),
        ("-A INPUT -j RETURN\n-A INPUT -j DROP\n", Fate::Accepted),
        ("-A INPUT -g rest\n-A INPUT -j DROP\n-A rest -p tcp -j DROP\n", Fate::Accepted),
        ("-A INPUT -i eth0 -g rest\n-A INPUT -g rest\n-A rest -j DROP\n", Fate::Refused),
        ("-A INPUT -j a\n-A a -j b\n-A b -j a\n-A INPUT -j DROP\n", Fate::Refused),
    ] {
        let text = format!("*filter\n:INPUT ACCEPT [0:0]\n{rules}COMMIT\n");
        assert_eq!(saved(&text).fate(INPUT), fate, "{rules}");
    }
    assert_eq!(saved(FIREWALLD).fate(INPUT), Fate::Refused);
    assert_eq!(saved(FUSIONPBX).fate(INPUT), Fate::Refused);
    assert_eq!(saved(DOCKER).fate(INPUT), Fate::Accepted);
}

#[test]
fn both_variants_in_use() {
    let mut tables = nft(FUSIONPBX);
    tables.push(table(Variant::Legacy, Version::V4, &input("ACCEPT", &[])));
    assert_eq!(look(&tables, &[], ""), [], "an empty table is not in use");
    let ours = Rule::new("-p udp", "RINGFENCE").to_string();
    tables.push(table(Variant::Legacy, Version::V6, &input("ACCEPT", &[&ours])));
    assert_eq!(look(&tables, &[], ""), [], "what we left there is taken away");
    tables.push(table(Variant::Legacy, Version::V6, &input("DROP", &[ESTABLISHED])));
    let concerns = look(&tables, &[], "");
    let text = text(&concerns, Kind::TwoVariants);
    assert!(
        text.contains("iptables-nft with 28 rules and closed policies, iptables-legacy with 2,"),
        "{text}"
    );
}

#[test]
fn tables_of_nftables() {
    let tables = tables_of(&[
        (Family::Inet, "filter"),
        (Family::Inet, "f2b-table"),
        (Family::Inet, "firewalld"),
        (Family::Ip, "crowd\u{1b}sec"),
        (Family::Ip6, "filter"),
    ]);
    let concerns = look(&nft(FUSIONPBX), &tables, "");
    assert_eq!(kinds(&concerns), [Kind::Nftables, Kind::Fail2banNftables, Kind::Firewalld]);
    assert!(concerns.iter().all(|concern| concern.severity == Severity::Note));
    let others = text(&concerns, Kind::Nftables);
    assert!(others.contains("nftables: inet filter, ip crowd\u{fffd}sec. What they drop"), "{others}");
    assert!(text(&concerns, Kind::Fail2banNftables).contains("(table inet f2b-table)"));
    let docker = look(&nft(FUSIONPBX), &tables_of(&[(Family::Ip, "docker-bridges")]), "");
    assert_eq!(kinds(&docker), [Kind::Nftables, Kind::Docker]);
}

#[test]
fn who_else_manages_rules() {
    for (rules, kinds_there) in [
        (UFW, &[Kind::Ufw][..]),
        (FIREWALLD, &[Kind::Firewalld]),
        (DOCKER, &[Kind::Open, Kind::Docker]),
        (FUSIONPBX, &[]),
        ("*filter\n:INPUT DROP [0:0]\n:DOCKERS - [0:0]\n:my-ufw-x - [0:0]\nCOMMIT\n", &[]),
    ] {
        let concerns = look(&nft(rules), &[], "");
        assert_eq!(kinds(&concerns), kinds_there);
        assert!(concerns.iter().all(|concern| concern.severity == Severity::Note));
    }
}

#[test]
fn a_file_that_flushes_the_ruleset() {
    let inet_filter = tables_of(&[(Family::Inet, "filter")]);
    for (conf, severity) in [
        (FLUSHING, Some(Severity::Warning)),
        ("flush ruleset\n", Some(Severity::Note)),
        ("table inet filter { }; flush  ruleset ip # all\n", Some(Severity::Warning)),
        ("table filter { }\nflush ruleset\n", Some(Severity::Note)),
        ("# flush ruleset\ntable inet filter { }\n", None),
        ("flush ruleset inet\n", None),
        ("flush table inet filter\n", None),
        ("", None),
    ] {
        let concerns = look(&nft(FUSIONPBX), &inet_filter, conf);
        let found = concerns.iter().find(|concern| concern.kind == Kind::FlushRuleset);
        assert_eq!(found.map(|concern| concern.severity), severity, "{conf:?}");
    }
    let two = "flush ruleset\ntable inet filter {\n}\ntable nat {\n}\ntable inet filter {\n}\n";
    let concerns = look(&nft(FUSIONPBX), &inet_filter, two);
    let found = concerns.iter().find(|concern| concern.kind == Kind::FlushRuleset).unwrap();
    assert_eq!(
        found.remedy,
        "In its place write what empties the tables of that file alone, each on a line of its own: `table inet filter` and `delete \
         table inet filter`, `table ip nat` and `delete table ip nat`; or after each reload: ringfence-firewall restore; systemctl \
         restart fail2ban"
    );
    let conf = NftablesConf { path: Path::new("/etc/nftables.conf"), text: FLUSHING };
    let legacy = [table(Variant::Legacy, Version::V4, FUSIONPBX)];
    assert_eq!(find(Variant::Legacy, &legacy, &[], &conf), [], "it does not concern iptables-legacy");
}

#[test]
fn chains_of_our_name_that_somebody_wrote() {
    let stopgap = "-A RINGFENCE -m set --match-set rf-block-ip4 src -j DROP\n";
    let ours =
        format!("-A RINGFENCE {}\n-A RINGFENCE-1 {}\n", Rule::new("", "DROP"), Rule::new("", "RETURN"));
    for (rules, count) in [
        (stopgap.repeat(4), Some("has 4 rules that")),
        (ours.clone() + stopgap, Some("has 1 rule that")),
        (ours, None),
        (":RINGFENCE - [0:0]\n".into(), None),
        ("-A RINGFENCED -j DROP\n".into(), None),
    ] {
        let text = format!("*filter\n:INPUT DROP [0:0]\n-A INPUT -j RINGFENCE\n{rules}COMMIT\n");
        let concerns = look(&nft(&text), &[], "");
        let found = concerns.iter().find(|concern| concern.kind == Kind::Handwritten);
        assert_eq!(found.is_some(), count.is_some(), "{rules}");
        assert!(found.is_none_or(|concern| concern.text.contains(count.unwrap_or_default())), "{concerns:?}");
        assert!(found.is_none_or(|concern| concern.severity == Severity::Warning));
    }
}

#[test]
fn whom_others_ban() {
    let more = "-A f2b-x -s 2001:db8::/32 -j REJECT --reject-with icmp6-port-unreachable\n-A f2b-x ! -s 192.0.2.9/32 -j DROP\n\
                -A f2b-x -s 192.0.2.10/32 -j RETURN\n-A f2b-x -s nonsense -j DROP\n-A mine -s 192.0.2.11/32 -j DROP\nCOMMIT\n";
    let mut tables = nft(DOUBLED);
    tables.push(table(Variant::Legacy, Version::V6, &format!("*filter\n{more}")));
    let banned = Firewall { variant: Variant::Nft, tables }.banned();
    let banned: Vec<_> = banned.iter().map(|(who, chain)| format!("{who} {chain}")).collect();
    assert_eq!(
        banned,
        [
            "203.0.113.66/32 sip-auth-fail",
            "203.0.113.67/32 sip-auth-ip",
            "203.0.113.68/32 f2b-freeswitch",
            "2001:db8::/32 f2b-x"
        ]
    );
    assert_eq!(Firewall { variant: Variant::Nft, tables: nft(FUSIONPBX) }.banned(), []);
}

#[test]
fn what_cannot_be_read_is_said_and_warnings_come_first() {
    crate::netlink::apart(|| {
        let late = FUSIONPBX
            .replace("COMMIT\n", "-A INPUT -j sip-auth-ip\n-A INPUT -j ufw-x\n:ufw-x - [0:0]\nCOMMIT\n");
        let firewall = Firewall { variant: Variant::Nft, tables: nft(&late) };
        assert_eq!(kinds(&firewall.concerns(Path::new("/nonexistent"))), [Kind::BanBelowAccept, Kind::Ufw]);
        let concerns = firewall.concerns(Path::new("/"));
        assert_eq!(kinds(&concerns), [Kind::BanBelowAccept, Kind::Ufw, Kind::Unknown]);
        assert!(concerns[2].text.starts_with("/ cannot be read"), "{concerns:?}");
    });
}

/// Done by the real programs.
fn shell(commands: &str) {
    let output = Command::new("sh").args(["-ec", commands]).output().unwrap();
    assert!(output.status.success(), "{commands}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What a remedy tells to type.
fn commands(remedy: &str) -> &str {
    &remedy[remedy.find("ip6tables-").into_iter().chain(remedy.find("iptables-")).min().unwrap()..]
}

#[test]
fn what_the_remedies_tell_to_type_helps() {
    crate::netlink::apart(|| {
        shell(
            "for T in iptables-nft ip6tables-nft; do $T -A INPUT -i lo -j ACCEPT
             $T -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; done
             iptables-nft -P INPUT DROP; iptables-nft -N f2b-sip; iptables-nft -N sip-auth-ip
             iptables-nft -A INPUT -p udp -m multiport --dports 5060,5080 -j f2b-sip
             iptables-nft -I INPUT -j sip-auth-ip; iptables-nft -I INPUT -j sip-auth-ip
             iptables-nft -A f2b-sip -s 203.0.113.5 -j REJECT; nft add table inet f2b-table",
        );
        let look = || {
            let firewall = Firewall::read().unwrap();
            assert_eq!(firewall.banned(), [("203.0.113.5/32".parse().unwrap(), "f2b-sip".to_owned())]);
            firewall.concerns(Path::new("/nonexistent"))
        };
        let concerns = look();
        assert_eq!(
            kinds(&concerns),
            [Kind::BanBelowAccept, Kind::DoubledBan, Kind::Ipv6Open, Kind::Fail2banNftables]
        );
        for concern in &concerns {
            match concern.kind {
                // Told in prose: who pasted it could shut himself out.
                Kind::Ipv6Open => {
                    shell("ip6tables-nft -A INPUT -p ipv6-icmp -j ACCEPT; ip6tables-nft -P INPUT DROP");
                }
                _ if concern.severity == Severity::Warning => shell(commands(&concern.remedy)),
                _ => {}
            }
        }
        assert_eq!(kinds(&look()), [Kind::Fail2banNftables]);
    });
}

#[test]
fn in_json() {
    let concern = Concern::note(Kind::Fail2banNftables, "text", "remedy");
    let json = serde_json::to_string(&concern).unwrap();
    assert_eq!(json, r#"{"severity":"note","kind":"fail2ban-nftables","text":"text","remedy":"remedy"}"#);
}

#[test]
fn our_jump_below_what_accepts() {
    let ours = "! -i lo -m comment --comment \"ringfence 0123456789abcdef\" -j RINGFENCE";
    let concerns = look(&nft(&input("DROP", &["-i lo -j ACCEPT", ESTABLISHED, ours])), &[], "");
    assert_eq!(kinds(&concerns), [Kind::OursBelowAccept]);
    assert!(concerns[0].text.contains("our jump to RINGFENCE stands below rule 2, `"), "{concerns:?}");
    for above in [&["-i lo -j ACCEPT", ours, ESTABLISHED][..], &[F2B, ours, ESTABLISHED], &[ESTABLISHED]] {
        assert_eq!(kinds(&look(&nft(&input("DROP", above)), &[], "")), [], "{above:?}");
    }
}
