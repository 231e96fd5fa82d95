//! `ringfence-firewall` beside other programs' rules: FusionPBX's and `event_guard`'s, and those of ufw, firewalld and Docker.

use std::io::ErrorKind;
use std::net::UdpSocket;

use crate::firewall_change::{does, for_both, jumps, rules, verifies};
use crate::support::pbx::{PBX, PHONES, UNVERIFIED};
use crate::support::sip::{Wire, register};
use crate::support::{Pbx, data};

/// A program's rules for IPv4, and what becomes of whom.
struct Other {
    /// In `tests/data/firewall`.
    file: &'static str,
    /// How many bans are at the head of INPUT.
    bans: usize,
    /// UDP to this port is not let in, where some is not.
    closed: Option<u16>,
    /// What `plan` says, in order.
    concerns: &'static [&'static str],
}

const OTHERS: [Other; 5] = [
    Other { file: "fusionpbx-iptables.rules", bans: 0, closed: Some(5059), concerns: &["ipv6-open"] },
    Other {
        file: "fusionpbx-event-guard-doubled.rules",
        bans: 6,
        closed: Some(5059),
        concerns: &["doubled-ban", "ipv6-open"],
    },
    Other { file: "ufw-iptables.rules", bans: 0, closed: Some(5061), concerns: &["ipv6-open", "ufw"] },
    Other {
        file: "firewalld-iptables.rules",
        bans: 0,
        closed: Some(5059),
        concerns: &["ipv6-open", "firewalld"],
    },
    Other { file: "docker-iptables.rules", bans: 0, closed: None, concerns: &["open", "docker"] },
];

/// What a reload of nftables loads on this host. Nothing may be known of this machine's.
#[track_caller]
fn nftables_conf(pbx: &Pbx, path: &str) {
    pbx.host.shell(&format!("[ ! -e /etc/nftables.conf ] || mount --bind {path} /etc/nftables.conf"));
}

/// The kinds of what `plan` warns of, in order.
#[track_caller]
fn concerns(pbx: &Pbx) -> Vec<String> {
    let call = pbx.firewall(&["plan", "--json"]);
    assert_eq!((call.code, call.stderr.as_str()), (0, ""));
    let plan: serde_json::Value = serde_json::from_str(&call.stdout).unwrap();
    assert_eq!(plan["variant"], pbx.variant);
    let warnings = plan["warnings"].as_array().unwrap();
    warnings.iter().map(|warning| warning["kind"].as_str().unwrap().to_owned()).collect()
}

/// Strangers are treated as the other program says: one port is open to them, the other is not.
#[track_caller]
fn treats_strangers_as_before(pbx: &Pbx, closed: Option<u16>) {
    // A port of its own each time: nothing is established.
    let open = pbx.wire(PHONES[0][0]);
    if let Some(closed) = closed {
        let closed = pbx.wire_to(PHONES[0][0], closed);
        closed.from.send(b"x").unwrap();
        assert!(open.passes(&register("")));
        closed.to.set_nonblocking(true).unwrap();
        assert_eq!(closed.to.recv(&mut [0; 10]).unwrap_err().kind(), ErrorKind::WouldBlock);
    } else {
        assert!(open.passes(&register("")));
    }
}

/// Who is on a block list is let in nowhere, others are, also with an established connection.
#[track_caller]
fn blocks_the_other_phone(pbx: &Pbx) {
    let good = pbx.wire(PHONES[0][0]);
    let from = pbx.outside.inside(|| UdpSocket::bind((PHONES[1][0], 0)).unwrap());
    from.connect((PBX[0], 5060)).unwrap();
    let bad = Wire { from, to: good.to.try_clone().unwrap() };
    assert!(bad.passes(&register("")) && good.passes(&register("")));
    pbx.host.shell(&format!("ipset add rf-block-ip4 {}", PHONES[1][0]));
    bad.from.send(b"x").unwrap();
    // It would have arrived before.
    assert!(good.passes(&register("")));
    pbx.host.shell(&format!("ipset del rf-block-ip4 {}", PHONES[1][0]));
}

/// The rules for IPv4 that are not ours, without counters.
#[track_caller]
fn foreign(pbx: &Pbx) -> Vec<String> {
    let text = pbx.host.shell(&format!("iptables-{}-save", pbx.variant));
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.contains("RINGFENCE"));
    lines.map(|line| line.split(" [").next().unwrap().to_owned()).collect()
}

fn they_work_side_by_side(variant: &'static str) {
    for Other { file, bans, closed, concerns: expected } in OTHERS {
        println!("{file}");
        let pbx = Pbx::bare(variant, UNVERIFIED);
        nftables_conf(&pbx, "/dev/null");
        let load = || {
            pbx.host
                .shell(&format!("iptables-{variant}-restore < {}", data("firewall").join(file).display()));
        };
        load();
        let (before, theirs) = (rules(&pbx), foreign(&pbx));
        treats_strangers_as_before(&pbx, closed);
        assert_eq!(concerns(&pbx), expected, "{file}");

        does(&pbx, &["apply", "--yes"]);
        verifies(&pbx);
        assert_eq!(jumps(&pbx), [[bans + 1], [1]], "{file}");
        treats_strangers_as_before(&pbx, closed);
        blocks_the_other_phone(&pbx);
        assert_eq!(concerns(&pbx), expected, "{file}");
        let there = rules(&pbx);
        assert_eq!(foreign(&pbx), theirs, "{file}");

        // A reload of theirs, and what the timer does then.
        load();
        assert_eq!(pbx.firewall(&["verify"]).code, 1, "{file}");
        does(&pbx, &["restore"]);
        verifies(&pbx);
        assert_eq!(rules(&pbx), there, "{file}");
        treats_strangers_as_before(&pbx, closed);
        blocks_the_other_phone(&pbx);

        does(&pbx, &["remove"]);
        assert_eq!(rules(&pbx), before, "{file}");
        treats_strangers_as_before(&pbx, closed);
    }
}

mod nft {
    #[test]
    fn they_work_side_by_side() {
        super::they_work_side_by_side("nft");
    }
}

mod legacy {
    #[test]
    fn they_work_side_by_side() {
        super::they_work_side_by_side("legacy");
    }
}

#[test]
fn nftables_that_flush_the_ruleset_are_lived_with() {
    let pbx = Pbx::bare("nft", UNVERIFIED);
    nftables_conf(&pbx, data("firewall/flush-ruleset.nft").to_str().unwrap());
    assert_eq!(concerns(&pbx), ["open", "flush-ruleset"], "it is not loaded");
    let native = || pbx.host.shell("nft list table inet filter");
    let reload = || pbx.host.shell("nft -f /etc/nftables.conf");
    reload();
    // From now on connections are known to be tracked.
    treats_strangers_as_before(&pbx, Some(5059));
    let before = native();
    assert_eq!(concerns(&pbx), ["flush-ruleset", "open", "nftables"]);
    let plan = pbx.firewall(&["plan"]);
    assert!(plan.stdout.contains("warning: /etc/nftables.conf has `flush ruleset`"), "{}", plan.stdout);

    does(&pbx, &["apply", "--yes"]);
    verifies(&pbx);
    let there = rules(&pbx);
    treats_strangers_as_before(&pbx, Some(5059));
    blocks_the_other_phone(&pbx);
    assert_eq!(concerns(&pbx), ["flush-ruleset", "open", "nftables"]);
    reload();
    assert_eq!(rules(&pbx), "");
    assert_eq!(pbx.firewall(&["verify"]).code, 1);
    does(&pbx, &["restore"]);
    verifies(&pbx);
    assert_eq!(rules(&pbx), there);
    treats_strangers_as_before(&pbx, Some(5059));
    blocks_the_other_phone(&pbx);
    reload();
    does(&pbx, &["remove"]);
    assert_eq!(rules(&pbx), "");
    assert_eq!(native(), before);
    treats_strangers_as_before(&pbx, Some(5059));
}

#[test]
fn plan_says_what_works_against_bans_and_against_us() {
    let pbx = Pbx::bare("nft", UNVERIFIED);
    nftables_conf(&pbx, "/dev/null");
    for_both(&pbx, "$T -P INPUT DROP; $T -A INPUT -i lo -j ACCEPT; $T -A INPUT -p udp -j ACCEPT");
    assert_eq!(concerns(&pbx), Vec::<String>::new());
    let cases = [
        (
            "$T -N f2b-sip; $T -A INPUT -j f2b-sip",
            "ban-below-accept",
            "$T -D INPUT -j f2b-sip; $T -X f2b-sip",
        ),
        (
            "$T -N f2b-sip; $T -I INPUT -j f2b-sip; $T -I INPUT -j f2b-sip",
            "doubled-ban",
            "$T -D INPUT -j f2b-sip; $T -D INPUT -j f2b-sip; $T -X f2b-sip",
        ),
        (
            "$T -N RINGFENCE-X; $T -A RINGFENCE-X -j DROP",
            "handwritten",
            "$T -F RINGFENCE-X; $T -X RINGFENCE-X",
        ),
    ];
    for (script, kind, reverse) in cases {
        for_both(&pbx, script);
        assert_eq!(concerns(&pbx), [kind, kind]);
        for_both(&pbx, reverse);
    }
    pbx.host.shell("ip6tables-nft -P INPUT ACCEPT");
    assert_eq!(concerns(&pbx), ["ipv6-open"]);
    pbx.host.shell("ip6tables-nft -P INPUT DROP; iptables-legacy -A INPUT -i lo -j ACCEPT");
    assert_eq!(concerns(&pbx), ["two-variants"]);
    pbx.host.shell("iptables-legacy -F; nft add table ip f2b-table; nft add table inet mine");
    assert_eq!(concerns(&pbx), ["nftables", "fail2ban-nftables"]);
}
