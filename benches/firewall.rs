//! What the order of checks costs: each packet that arrives, and each call of `ringfence-firewall`; beside the same host without us, and
//! beside the goals. All in one run.
//!
//! `make bench`. Being slow is no failure here: the table says "missed". Not having done the same is one.

#![expect(unreachable_pub, dead_code, unused_imports, reason = "shares the tests' support")]

mod support;

use std::fmt::Write as _;
use std::process::Command;

use ringfence::firewall::Variant;
use support::packets::{Line, Packet, RTP, SENDER, costs};
use support::{Host, Runs, Table, World, call, only_built, run, time_after};

/// FusionPBX's own, with its scanners.
const HOST_RULES: &str = include_str!("../tests/data/firewall/fusionpbx-iptables.rules");

/// So many addresses and networks are on block lists, and in the country that a port is restricted to.
const BLOCKED: u32 = 100_000;
const COUNTRY: u32 = 8_000;

fn main() {
    if only_built() {
        return;
    }
    let mut table = Table::default();
    for variant in [Variant::Nft, Variant::Legacy] {
        packets(&mut table, variant);
        commands(&mut table, variant);
    }
    table.print();
}

/// Who sends.
#[derive(Clone, Copy, PartialEq)]
enum Sender {
    /// Nobody knows him.
    Stranger,
    Allowed,
    Listed,
}

/// The lists, and settings that use them.
struct Site(World);

impl Site {
    fn new(sender: Sender) -> Self {
        let world = World::empty();
        let of = |kind: &str, name: &str, more: &str, lines: &str| {
            let path = world.path(name);
            std::fs::write(&path, lines).unwrap();
            format!("[lists.{name}]\nkind = \"{kind}\"\nfile = \"{}\"\n{more}", path.display())
        };
        // Single addresses, and networks of seventeen lengths, as in real lists; none of them is the sender's.
        let bad = (0..BLOCKED).fold(String::new(), |mut lines, n| {
            let (a, b) = (16 + n / 16_384, n % 16_384 / 64);
            let length = if n % 2 == 0 { 32 } else { 16 + n / 2 % 17 };
            writeln!(lines, "{a}.{b}.{}.1/{length}", n % 64 * 4).unwrap();
            lines
        });
        let country = (0..COUNTRY).fold("203.0.113.0/24\n".to_owned(), |mut lines, n| {
            writeln!(lines, "{}.{}.0.0/{}", 60 + n / 256, n % 256, 17 + n % 7).unwrap();
            lines
        });
        let lists = [
            of("block", "bad", "", &(bad + if sender == Sender::Listed { SENDER } else { "" })),
            of("allow", "office", "", if sender == Sender::Allowed { SENDER } else { "192.0.2.9" }),
            of("allow", "au", "exempts = []\n", &country),
        ];
        let firewall = "[firewall]\nlimits = [{ ports = [\"22\"], rate = \"6/minute\" }]\n\
                        restrict = [{ ports = [\"5060\"], to = [\"au\"] }]\n";
        world.configure_lists(&(lists.concat() + firewall));
        Self(world)
    }

    fn firewall(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence-firewall"));
        command.arg("--config").arg(self.0.config()).args(args).env_remove("RUST_BACKTRACE");
        command
    }

    /// With the lists in the kernel, and the rules.
    fn bring_in(&self, host: &Host) {
        let refreshed = host.inside(|| self.0.lists(&["refresh"]));
        assert_eq!(refreshed.code, 0, "{}", refreshed.stderr);
        self.call(host, &["apply", "--yes"]);
        self.call(host, &["verify"]);
    }

    #[track_caller]
    fn call(&self, host: &Host, args: &[&str]) {
        let call = host.inside(|| call(&mut self.firewall(args)));
        // A list of IPv4 does not close a port over IPv6, and that is said.
        let open = call.stderr.contains("IPv6") || call.stdout.contains("IPv6: nobody on au");
        assert!(call.code == 0 || args == ["verify"] && open, "{args:?}: {}{}", call.stdout, call.stderr);
    }
}

fn with_host_rules(variant: Variant, host: &Host) {
    host.shell(&format!("iptables-{variant}-restore <<'END'\n{HOST_RULES}END"));
}

/// A host, and whether the sender is known there; `None` is one without us.
fn line(variant: Variant, sender: Option<Sender>) -> Line {
    let line = Line::new();
    with_host_rules(variant, &line.host);
    if let Some(sender) = sender {
        Site::new(sender).bring_in(&line.host);
    }
    // A call, as it is when both have spoken.
    line.send(&Packet::rtp(), 1);
    line.answer(RTP);
    line
}

/// A phone that looks after a lamp: no limit concerns it.
fn subscribe() -> Packet {
    let options = Packet::options();
    let content = String::from_utf8(options.content).unwrap().replace("OPTIONS", "SUBSCRIBE");
    Packet { content: content.into_bytes(), ..options }
}

/// Nanoseconds of a packet, and what of it is ours.
fn packets(table: &mut Table, variant: Variant) {
    let senders = [None, Some(Sender::Stranger), Some(Sender::Allowed), Some(Sender::Listed)];
    let lines = senders.map(|sender| line(variant, sender));
    on_their_way(variant, &lines);
    let unlimited = costs(&lines.each_ref(), &[Packet::rtp(), subscribe()]);
    // From now on the stranger has exceeded a limit.
    let limited = costs(&lines.each_ref(), &[Packet::register("4711", true)]);
    let of = |at: usize| [unlimited[at][0], unlimited[at][1], limited[at][0]];
    for (kind, name, stranger, listed) in [
        (0, "RTP, established", "", ""),
        (1, "SUBSCRIBE", "", ": dropped"),
        (2, "REGISTER", ", above its limit: dropped", ": dropped"),
    ] {
        let without = of(0)[kind];
        table.row(&format!("{variant}, {name}: the host without us"), &format!("{without:.0} ns"), "", None);
        for (at, who) in [
            (1, format!("a stranger{stranger}")),
            (2, "allowed".to_owned()),
            (3, format!("on a block list{listed}")),
        ] {
            table.row(&format!("  from {who}"), &format!("{:+.0} ns", of(at)[kind] - without), "", None);
        }
    }
}

/// The packets meet the rules that are to be measured: counted by the rules themselves.
fn on_their_way(variant: Variant, lines: &[Line; 4]) {
    let met = |line: &Line, packet: &Packet, rule: &str| {
        let count = || -> u64 {
            let rules =
                run(line.host.command(&format!("iptables-{variant}-save")).args(["-c", "-t", "filter"]));
            let rules = rules.lines().filter(|line| line.contains(rule));
            rules.map(|line| line[1..].split(':').next().unwrap().parse::<u64>().unwrap()).sum()
        };
        let before = count();
        line.send(packet, 10);
        count() - before
    };
    let (rtp, subscribe) = (Packet::rtp(), subscribe());
    let established = "-A RINGFENCE -m conntrack --ctstate RELATED,ESTABLISHED";
    for line in &lines[1..] {
        assert_eq!(met(line, &rtp, established), 10);
        assert_eq!(met(line, &rtp, "-A RINGFENCE-"), 0);
    }
    assert_eq!(met(&lines[1], &subscribe, "-A RINGFENCE-"), 0, "a stranger is known to no rule");
    assert_eq!(met(&lines[2], &subscribe, "--match-set rf-allow4 src"), 10);
    assert_eq!(met(&lines[3], &subscribe, "--match-set rf-block4 src"), 10);
}

fn commands(table: &mut Table, variant: Variant) {
    let (site, host) = (Site::new(Sender::Stranger), Host::new());
    with_host_rules(variant, &host);
    site.bring_in(&host);
    let time = |prepare: Option<&Command>, args: &[&str]| {
        host.inside(|| time_after(prepare, &site.firewall(args), Runs { warmup: 2, timed: 30 }))
    };
    let mut row = |what: &str, ms: f64, goal: Option<f64>| {
        let text = goal.map_or_else(String::new, |goal| format!("<= {goal} ms"));
        table.row(&format!("{variant}, {what}"), &format!("{ms:.1} ms"), &text, goal.map(|goal| ms <= goal));
    };
    row("floor: ringfence-firewall --version", time(None, &["--version"]), None);
    row(
        "apply, 100,000 on block lists",
        time(Some(&site.firewall(&["remove"])), &["apply", "--yes"]),
        Some(300.0),
    );
    row("restore, nothing to do", time(None, &["restore"]), None);
    row("plan", time(None, &["plan"]), None);
}
