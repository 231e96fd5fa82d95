//! What the host's rules do with a packet, as `firewall::path` says it, and as the kernel does it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use ringfence::firewall::Reachability;
use ringfence::firewall::path::{self, Path, State};
use serde_json::Value;

use crate::support::packets::{Gate, Packet, STRANGERS, SYN, tcp, udp};
use crate::support::pbx::PBX;
use crate::support::sip::login;
use crate::support::{Pbx, call};

with_both_variants! {
    the_kernel_does_what_is_foreseen
    why_and_test_agree
}

const SETS: &str = "\
    ipset create t-ip hash:ip; ipset add t-ip 198.51.100.1; ipset add t-ip 198.51.100.3
    ipset create t-net hash:net; ipset add t-net 198.51.100.0/30; ipset add t-net 198.51.100.2 nomatch
    ipset create t-port hash:ip,port; ipset add t-port 198.51.100.1,udp:5060; ipset add t-port 198.51.100.2,tcp:22
    ipset create t-ports bitmap:port range 0-65535; ipset add t-ports 5061
    ipset create t-list list:set; ipset add t-list t-net; ipset add t-list t-ip";

const CONDITIONS: [&str; 40] = [
    "",
    "-s 198.51.100.1",
    "! -s 198.51.100.0/30",
    "-d 192.0.2.1",
    "! -d 192.0.2.0/24",
    "-i eth0",
    "-i eth+",
    "! -i eth0",
    "-i lo",
    "-p udp",
    "! -p udp",
    "-p tcp -m tcp --syn",
    "-p tcp -m tcp ! --syn",
    "-p tcp -m tcp --tcp-flags SYN,ACK SYN",
    "-p tcp -m tcp --tcp-flags ALL SYN,FIN",
    "-p udp -m udp --dport 5061",
    "-p udp -m udp ! --dport 5061",
    "-p udp -m multiport --dports 5060,5070:5080",
    "-p tcp -m multiport ! --dports 22,80",
    "-m set --match-set t-ip src",
    "-m set ! --match-set t-ip src",
    "-m set --match-set t-net src",
    "-m set ! --match-set t-net src",
    "-m set --match-set t-port src,dst",
    "-m set --match-set t-ports dst",
    "-m set --match-set t-list src",
    "-m set --match-set t-ip dst",
    "-m conntrack --ctstate NEW",
    "-m conntrack --ctstate ESTABLISHED,RELATED",
    "-m string --algo bm --string username",
    "-m string --algo bm ! --string realm",
    "-m string --algo kmp --icase --string register",
    "-p udp -m string --algo bm --hex-string \"|52454749|STER \" --from 28 --to 64",
    "-p udp -m string --algo bm --string SIP/2.0 --from 28 --to 40",
    "-m comment --comment \"-j DROP, says \\\"nobody\\\"\"",
    "-m addrtype --dst-type LOCAL",
    "-m addrtype ! --dst-type LOCAL",
    "-m multiport -p udp --ports 5070:5080",
    "-p udp -m udp --sport 1024:65535",
    "-p tcp -m multiport --sports 1:1023",
];

const TARGETS: [&str; 6] = ["-j ACCEPT", "-j DROP", "-j RETURN", "-j REJECT", "", "-j LOG"];

/// Rules in four chains, each of which leads to later ones only. The same number makes the same ones.
fn rules(seed: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut random = |below| random.usize(..below);
    let chains = ["INPUT", "A", "B", "C"];
    let mut text = String::from("*filter\n:INPUT ");
    text += ["ACCEPT", "DROP"][random(2)];
    text += " [0:0]\n:A -\n:B -\n:C -\n-A INPUT -p udp --dport 20000 -j ACCEPT\n";
    for (at, chain) in chains.iter().enumerate() {
        let later = &chains[at + 1..];
        for _ in 0..3 + random(6) {
            let condition = CONDITIONS[random(CONDITIONS.len())];
            let target = match random(2) {
                0 if !later.is_empty() => {
                    format!("{} {}", ["-j", "-j", "-g"][random(3)], later[random(later.len())])
                }
                _ => TARGETS[random(TARGETS.len())].to_owned(),
            };
            text += &[format!("-A {chain} {condition} {target}").trim_end(), "\n"].concat();
        }
    }
    text + "COMMIT\n"
}

/// The same packet twice: for the kernel, and for us.
fn packets() -> Vec<(Packet, path::Packet)> {
    let mut all = vec![];
    for [from, _] in &STRANGERS[..4] {
        let address = from.parse().unwrap();
        let login = login("101@a.example.com");
        for (port, text) in [(5060, login.as_str()), (5061, "\r\n"), (5075, login.as_str())] {
            all.push((udp(from, port, text), path::Packet::udp(address, port, text)));
        }
        for port in [22, 5060] {
            all.push((tcp(from, port, SYN, ""), path::Packet::syn(address, port)));
        }
    }
    all
}

#[track_caller]
fn look(pbx: &Pbx, packets: Vec<path::Packet>) -> Vec<Path> {
    pbx.host.inside(move || {
        let now = Timestamp::now();
        let of = |packet: path::Packet| {
            // Each is of an address of its own.
            Reachability::read(packet.source, now, Duration::from_secs(30)).unwrap().path(&packet)
        };
        packets.into_iter().map(of).collect()
    })
}

fn the_kernel_does_what_is_foreseen(variant: &'static str) {
    let pbx = Pbx::bare(variant, "");
    let gate = Gate::new(&pbx);
    pbx.host.shell(SETS);
    let (sent, foreseen): (Vec<_>, Vec<_>) = packets().into_iter().unzip();
    let arriving = |packet: &path::Packet| {
        assert_eq!(packet.state, State::New);
        // They come from others, of which no rule tells them apart.
        let mut packet = packet.clone();
        packet.source_port = Some(40_000);
        packet.arriving(Some(PBX[0].parse().unwrap()), Some("eth0".to_owned()))
    };
    let foreseen: Vec<_> = foreseen.iter().map(arriving).collect();
    let mut met = BTreeSet::new();
    for seed in 0..40 {
        let rules = rules(seed);
        std::fs::write(pbx.world.path("rules"), &rules).unwrap();
        pbx.host.shell(&format!("iptables-{variant}-restore <{}", pbx.world.path("rules").display()));
        let paths = look(&pbx, foreseen.clone());
        let arrived = gate.let_in(&sent);
        for ((path, arrived), packet) in paths.iter().zip(arrived).zip(&foreseen) {
            assert!(path.otherwise.is_empty(), "{path:#?}");
            assert_eq!(path.verdict.is_accepted(), arrived, "seed {seed}\n{rules}\n{packet:?}\n{path:#?}");
            met.insert(arrived);
        }
    }
    assert_eq!(met.len(), 2);
}

/// As `ringfence` says it, asked for JSON.
#[track_caller]
fn said(pbx: &Pbx, args: &[&str]) -> Value {
    let call = call(&mut pbx.admin_command(args));
    serde_json::from_str(&call.stdout).unwrap_or_else(|error| panic!("{error}: {call:?}"))
}

/// Of each port of SIP: what becomes of the first packet over UDP, and of what opens a connection, and by what.
fn tried(answer: &Value) -> BTreeMap<(String, u64), (String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut tried = BTreeMap::new();
    for packet in answer["packets"].as_array().unwrap().iter().filter(|packet| packet["sip"] == true) {
        let protocol = match packet["packet"].as_str() {
            None => text(&packet["protocol"]),
            Some("register") => "udp".to_owned(),
            Some("connection") => "tcp".to_owned(),
            Some(_) => continue,
        };
        let ports = packet["ports"].as_array().cloned().unwrap_or_else(|| vec![packet["port"].clone()]);
        for port in ports {
            let by = text(&packet["by"]);
            // What somebody wrote of the rule is said by one of them alone.
            let by = by.split(" (-j DROP, says").next().unwrap_or_default().to_owned();
            tried.insert((protocol.clone(), port.as_u64().unwrap()), (text(&packet["outcome"]), by));
        }
    }
    tried
}

fn why_and_test_agree(variant: &'static str) {
    let pbx = Pbx::bare(variant, "");
    let gate = Gate::new(&pbx);
    pbx.host.shell(SETS);
    let mut met = BTreeSet::new();
    for seed in 0..16 {
        let rules = rules(seed);
        std::fs::write(pbx.world.path("rules"), &rules).unwrap();
        pbx.host.shell(&format!("iptables-{variant}-restore <{}", pbx.world.path("rules").display()));
        let from = STRANGERS[usize::try_from(seed).unwrap() % 4][0];
        let (why, test) = (said(&pbx, &["why", "--json", from]), said(&pbx, &["test", "--json", from]));
        let context = format!("seed {seed} {from}\n{rules}\n{why:#}\n{test:#}");
        let (one, other) = (tried(&why), tried(&test));
        assert_eq!(one, other, "{context}");
        // What blocks is what decides there, and the other way round.
        let closed: Vec<String> =
            why["closed"].as_array().unwrap().iter().map(|closed| closed["text"].to_string()).collect();
        let blocks = one.values().filter(|(outcome, _)| outcome != "let-in").map(|(_, by)| by);
        for by in blocks.clone() {
            assert!(closed.iter().any(|text| text.contains(by.as_str())), "{by}: {context}");
        }
        assert!(why["blocked"] == true || blocks.count() == 0, "{context}");
        assert!(why["blocked"] == true || test["let-in"] == true, "{context}");
        // And the kernel does so.
        let sent: Vec<_> = one
            .keys()
            .map(|(protocol, port)| {
                let port = u16::try_from(*port).unwrap();
                if protocol == "udp" { udp(from, port, nobodys(from)) } else { tcp(from, port, SYN, "") }
            })
            .collect();
        for (((_, (outcome, _)), arrived), packet) in one.iter().zip(gate.let_in(&sent)).zip(&sent) {
            assert_eq!(outcome == "let-in", arrived, "{packet:?} {context}");
            met.insert(arrived);
        }
    }
    assert_eq!(met.len(), 2);
}

/// A REGISTER of nobody in particular, as it is tried.
fn nobodys(from: &str) -> Vec<u8> {
    path::Packet::register(from.parse().unwrap(), path::Protocol::Udp, 5060, None).content
}
