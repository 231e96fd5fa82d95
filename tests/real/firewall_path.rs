//! What the host's rules do with a packet, as `firewall::path` says it, and as the kernel does it.

use std::collections::BTreeSet;

use ringfence::firewall::Firewall;
use ringfence::firewall::path::{self, Path, Sets, State};

use crate::support::Pbx;
use crate::support::packets::{Gate, Packet, STRANGERS, SYN, tcp, udp};
use crate::support::pbx::PBX;
use crate::support::sip::login;

with_both_variants! {
    the_kernel_does_what_is_foreseen
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
        let there = Firewall::read().unwrap();
        let mut sets = Sets::open().unwrap();
        packets
            .into_iter()
            .map(|packet| there.path(&packet, &mut |set, sides| sets.hold(set, sides, &packet)))
            .collect()
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
