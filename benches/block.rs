//! What blocked accounts cost: each packet that arrives, each call of `ringfence-block`, and a restart of fail2ban; beside the
//! goals, and beside what others need for the same. All in one run.
//!
//! `make bench`. Being slow is no failure here: the table says "missed". Not having done the same is one.

#![expect(unreachable_pub, dead_code, unused_imports, reason = "shares the tests' support")]

mod support;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use ringfence::firewall::Variant;
use support::packets::{Line, Packet, costs, on_one_cpu};
use support::{Fail2ban, Host, Runs, Table, World, call, now, only_built, run, sqlite, time_after, wait_for};

const JAIL: &str = "ringfence-account";

/// What our rule in INPUT matches.
const HOOK: &str = "-A INPUT ! -i lo -p udp -m multiport --dports 5060:5061,5080:5081";

/// A rule for the other direction: where the host's rules are, there ours go.
const FOREIGN: &str = "-A OUTPUT -p udp --dport 9 -j DROP\n";

fn main() {
    if only_built() {
        return;
    }
    let mut table = Table::default();
    packets(&mut table, Variant::Nft, &[10, 100, 200]);
    packets(&mut table, Variant::Legacy, &[200]);
    program(&mut table);
    for variant in [Variant::Nft, Variant::Legacy] {
        commands(&mut table, variant);
    }
    restart(&mut table);
    table.print();
}

/// Puts rules in, for both versions of IP.
fn put_in(variant: Variant, host: &Host, rules: &str) {
    for version in ["iptables", "ip6tables"] {
        host.shell(&format!("{version}-{variant}-restore <<'END'\n*filter\n{rules}COMMIT\nEND"));
    }
}

/// The rules of IPv4, with their counters.
fn saved(variant: Variant, host: &Host) -> String {
    run(host.command(&format!("iptables-{variant}-save")).args(["-c", "-t", "filter"]))
}

/// Where blocked accounts are: each domain has as many.
#[derive(Clone, Copy, PartialEq)]
struct Blocks {
    count: usize,
    domains: usize,
    /// The first number of each domain.
    first: usize,
}

impl Blocks {
    const fn of(count: usize) -> Self {
        Self { count, domains: 10, first: 1_000 }
    }

    /// `1000@a.example.com`, `1000@b.example.com` and so on.
    fn accounts(self) -> impl Iterator<Item = String> {
        (0..self.count).map(move |n| {
            let domain = char::from(b'a' + u8::try_from(n % self.domains).unwrap());
            format!("{}@{domain}.example.com", self.first + n / self.domains)
        })
    }

    /// As `ringfence-block list --json` prints them, each a second older than the next.
    fn write(self, path: &Path) {
        let mut since = now() - 1800;
        let entries: Vec<_> = self
            .accounts()
            .map(|account| {
                since += i64::from(since < now() - 1);
                serde_json::json!({
                    "account": account, "jail": JAIL, "since": since, "until": now() + 36_000,
                    "why": "FusionPBX has no such account", "evidence": "203.0.113.20 has a live registration"
                })
            })
            .collect();
        std::fs::write(path, serde_json::to_string(&entries).unwrap()).unwrap();
    }
}

/// A host with `ringfence-block`: one phone is registered, at 10.0.0.1.
struct Site {
    world: World,
    run_dir: PathBuf,
}

impl Site {
    fn new() -> Self {
        let world = World::empty();
        world.database("sofia_reg_internal.db");
        world.register("sofia_reg_internal.db", "10.0.0.1", 36_000);
        // In memory, as /run is.
        let run_dir = Path::new("/dev/shm").join(world.dir().file_name().unwrap());
        std::fs::create_dir_all(&run_dir).unwrap();
        std::os::unix::fs::symlink(&run_dir, world.path("run")).unwrap();
        let site = Self { world, run_dir };
        site.configure(20_000);
        site
    }

    fn configure(&self, max: usize) {
        self.world.configure(&format!("source = \"sqlite\"\ncache = \"60s\"\n[block]\nmax = {max}"));
    }

    fn program(&self) -> String {
        format!("{} --config {}", env!("CARGO_BIN_EXE_ringfence-block"), self.world.config().display())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence-block"));
        command.arg("--config").arg(self.world.config()).args(args).env_remove("RUST_BACKTRACE");
        command
    }

    /// `ringfence-block` on a host, with nothing to complain about.
    #[track_caller]
    fn call(&self, host: &Host, args: &[&str]) -> String {
        let call = host.inside(|| call(&mut self.command(args)));
        assert_eq!((call.code, call.stderr.as_str()), (0, ""), "{args:?}");
        call.stdout
    }

    /// A file with blocks, all of the jail.
    fn file(&self, blocks: Blocks) -> String {
        let path = self.world.path(&format!("{}-of-{}.json", blocks.count, blocks.domains));
        blocks.write(&path);
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.run_dir);
    }
}

/// How many accounts the kernel blocks.
fn in_kernel(variant: Variant, host: &Host) -> usize {
    saved(variant, host).matches("-j RF-BLOCK-DENY").count()
}

/// What a host has in INPUT.
#[derive(Clone, Copy, PartialEq)]
enum Rules {
    Nothing,
    /// One that takes none of the packets: as ours, but where ours jumps, this goes on.
    One,
    Ringfence(Blocks),
    /// The recipe that everybody has: one after another, each looks through the whole packet.
    Flat(Blocks),
}

const NO_BLOCKS: Rules = Rules::Ringfence(Blocks::of(0));

impl Rules {
    /// A host that has them.
    fn line(self, variant: Variant) -> Line {
        let line = Line::new();
        match self {
            Self::Nothing => {}
            Self::One => put_in(variant, &line.host, &format!("{HOOK}\n")),
            Self::Ringfence(blocks) => {
                let site = Site::new();
                if self == NO_BLOCKS {
                    site.call(&line.host, &["restore"]);
                    assert!(!saved(Variant::Nft, &line.host).contains("-A "));
                    // A look with the other program would make its tables.
                    let names = "/proc/thread-self/net/ip_tables_names";
                    assert_eq!(line.host.inside(|| std::fs::read_to_string(names).unwrap_or_default()), "");
                    return line;
                }
                if variant == Variant::Legacy {
                    put_in(variant, &line.host, FOREIGN);
                }
                site.call(&line.host, &["restore", &site.file(blocks)]);
                assert_eq!(in_kernel(variant, &line.host), blocks.count);
            }
            Self::Flat(blocks) => {
                let rules = blocks.accounts().fold(String::new(), |mut rules, account| {
                    let options = format!("-p udp --dport 5060 -m string --algo bm --string \"{account}\"");
                    writeln!(rules, "-A INPUT {options} -j DROP").unwrap();
                    rules
                });
                put_in(variant, &line.host, &rules);
            }
        }
        line
    }
}

/// What phones of people who are not blocked send, all of them in a domain that has blocks.
fn kinds() -> [(&'static str, Packet); 4] {
    [
        ("REGISTER with credentials", Packet::register("4711", true)),
        ("REGISTER without", Packet::register("4711", false)),
        ("OPTIONS", Packet::options()),
        ("RTP", Packet::rtp()),
    ]
}

/// Nanoseconds of a packet above what it costs a host without rules.
fn packets(table: &mut Table, variant: Variant, counts: &[usize]) {
    let single = Rules::Ringfence(Blocks { domains: 1, ..Blocks::of(200) });
    let ours = |count| Rules::Ringfence(Blocks::of(count));
    let flat = |count| Rules::Flat(Blocks::of(count));
    let mut rules = vec![Rules::Nothing, Rules::One, NO_BLOCKS, single];
    rules.extend(counts.iter().flat_map(|count| [ours(*count), flat(*count)]));
    let lines: Vec<_> = rules.iter().map(|rules| rules.line(variant)).collect();
    for (rules, line) in rules.iter().zip(&lines) {
        if matches!(rules, Rules::Ringfence(_)) && *rules != NO_BLOCKS {
            on_their_way(variant, line);
        }
    }

    let kinds = kinds();
    let packets = kinds.each_ref().map(|(_, packet)| packet.clone());
    let costs = costs(&lines.iter().collect::<Vec<_>>(), &packets);
    for (kind, (name, packet)) in kinds.iter().enumerate() {
        let cost = |wanted: Rules| {
            let at = rules.iter().position(|rules| *rules == wanted).expect("it was measured");
            costs[at][kind]
        };
        let bare = cost(Rules::Nothing);
        let above = |rules| cost(rules) - bare;
        let what = format!("{variant}, {name}, {} bytes: no rules", packet.content.len());
        table.row(&what, &format!("{bare:.0} ns"), "", None);
        let mut row = |what: &str, ns: f64, goal: &str, met| {
            table.row(&format!("  {what}"), &format!("{ns:+.0} ns"), goal, met);
        };
        let one = above(Rules::One);
        if *name == "RTP" {
            row("no blocks", above(NO_BLOCKS), "", None);
            row("one rule for the ports of SIP", one, "", None);
        }
        for count in counts {
            let (ours, flat) = (above(ours(*count)), above(flat(*count)));
            // A host that has such a rule anyway says how exactly that can be measured.
            let judged = *name == "RTP";
            let goal = if judged { "one rule, +- 20 %" } else { "" };
            row(&format!("{count} blocks in 10 domains"), ours, goal, judged.then_some(ours <= 1.2 * one));
            row(&format!("  {count} flat rules: {:.1} x ours", flat / ours), flat, "", None);
        }
        if kind == 0 {
            let (ours, flat) = (above(single), above(flat(200)));
            let what = format!("200 blocks in one domain (flat rules: {:.1} x that)", flat / ours);
            row(&what, ours, "", None);
        }
    }
}

/// The packets take the way that is to be measured: counted by the rules themselves.
fn on_their_way(variant: Variant, line: &Line) {
    let rules = saved(variant, &line.host);
    let input: Vec<_> = rules.lines().filter(|line| line.contains("-A INPUT ")).collect();
    assert!(input.len() == 1 && input[0].contains(HOOK) && input[0].ends_with("-j RF-BLOCK"), "{input:?}");
    let rule = rules.lines().find(|line| line.contains("realm=\\\"a.example.com\\\""));
    let domain = rule.expect("the rule of the domain").split(" -j ").nth(1).unwrap();
    // Of ten packets, how many jumped to our chains, to that of their domain, and were dropped.
    let met = |packet: &Packet| {
        let counts = || {
            let rules = saved(variant, &line.host);
            ["RF-BLOCK", domain, "RF-BLOCK-DENY"].map(|target| {
                let jump = format!(" -j {target}");
                let jumps = rules.lines().filter(|line| line.ends_with(&jump));
                let counters = jumps.map(|line| line[1..].split(':').next().unwrap().parse::<u64>().unwrap());
                counters.sum::<u64>()
            })
        };
        let before = counts();
        line.send(packet, 10);
        let after = counts();
        [0, 1, 2].map(|at| after[at] - before[at])
    };
    let [with, without, options, rtp] = kinds().map(|(_, packet)| packet);
    assert_eq!(met(&with), [10, 10, 0]);
    assert_eq!(met(&without), [10, 0, 0]);
    assert_eq!(met(&options), [10, 0, 0]);
    // One rule, and that is no match.
    assert_eq!(met(&rtp), [0, 0, 0]);
    assert_eq!(met(&Packet::register("1000", true)), [10, 10, 10]);
}

/// The packets' sender is not among them, however many they are.
const FIRST: usize = 10_000;

/// A host where the program in the kernel has so many blocks.
struct Programmed {
    site: Site,
    line: Line,
}

impl Programmed {
    fn new(count: usize) -> Self {
        let (site, line) = (Site::new(), Line::new());
        site.world.configure("source = \"sqlite\"\ncache = \"60s\"\n[block]\nmatcher = \"bpf\"");
        line.host.shell("mount -t bpf bpf /sys/fs/bpf");
        let programmed = Self { site, line };
        programmed.call(&["restore", &programmed.site.file(Blocks { first: FIRST, ..Blocks::of(count) })]);
        let text = programmed.call(&["list"]);
        assert!(text.ends_with("Matched by the program in the kernel, at eth0.\n"), "{text}");
        programmed
    }

    #[track_caller]
    fn call(&self, args: &[&str]) -> String {
        let call = self.line.host.within(|| call(&mut self.site.command(args)));
        assert_eq!((call.code, call.stderr.as_str()), (0, ""), "{args:?}");
        call.stdout
    }

    fn time(&self, prepare: Option<&Command>, args: &[&str], runs: Runs) -> f64 {
        self.line.host.within(|| time_after(prepare, &self.site.command(args), runs))
    }

    /// Nanoseconds of the program alone, for each packet.
    fn alone(&self, packet: &Packet) -> u128 {
        let pin = "/sys/fs/bpf/ringfence/1/ringfence";
        let program = self.line.host.within(|| SchedClassifier::from_pin(pin)).unwrap();
        let frame = packet.frame();
        let options = TestRunOptions { data_in: Some(&frame), repeat: 200_000, ..TestRunOptions::new() };
        on_one_cpu(|| program.test_run(options).unwrap().duration.as_nanos())
    }
}

/// The same by the program in the kernel.
fn program(table: &mut Table) {
    const COUNTS: [usize; 3] = [10, 1_000, 99_999];
    let hosts = COUNTS.map(Programmed::new);
    let (bare, flat) = (Line::new(), Rules::Flat(Blocks::of(1_000)).line(Variant::Nft));
    let lines: Vec<_> = [&bare, &flat].into_iter().chain(hosts.iter().map(|host| &host.line)).collect();
    let kinds = kinds();
    let costs = costs(&lines, &kinds.each_ref().map(|(_, packet)| packet.clone()));
    for (kind, (name, packet)) in kinds.iter().enumerate() {
        let above = |line: usize| costs[line][kind] - costs[0][kind];
        let what = format!("program, {name}, {} bytes: nothing attached", packet.content.len());
        table.row(&what, &format!("{:.0} ns", costs[0][kind]), "", None);
        let limit = if *name == "RTP" { 200.0 } else { 1000.0 };
        for (at, count) in COUNTS.iter().enumerate() {
            let ns = above(2 + at);
            let goal = format!("<= {limit} ns");
            table.row(&format!("  {count} blocks"), &format!("{ns:+.0} ns"), &goal, Some(ns <= limit));
            table.row(
                "    the program alone (test run)",
                &format!("{} ns", hosts[at].alone(packet)),
                "",
                None,
            );
        }
        if *name != "RTP" {
            let times = above(1) / above(3);
            table.row("  1000 flat rules", &format!("{:+.0} ns", above(1)), "", None);
            let judged = (kind == 0).then_some(times >= 250.0);
            let goal = if kind == 0 { ">= 250 x" } else { "" };
            table.row("  1000 flat rules, of the program's", &format!("{times:.0} x"), goal, judged);
        }
    }
    // It is on their way.
    let [_, _, most] = &hosts;
    most.line.put(&Packet::register("10000", true), 10);
    let mut first = serde_json::Value::Null;
    wait_for("packets to be dropped", || {
        let list: Vec<serde_json::Value> = serde_json::from_str(&most.call(&["list", "--json"])).unwrap();
        first = list[0].clone();
        first["hits"] == 10
    });
    assert_eq!(first["account"], "10000@a.example.com");

    let jail = format!("--jail={JAIL}");
    let at = format!("--at={}", now());
    let account = "9999999@a.example.com";
    let ban = ["ban", &jail, "--seen-from=10.0.0.1", &at, "--for=36000", "--", account];
    let unban = ["unban", &jail, "--", account];
    let runs = Runs { warmup: 3, timed: 60 };
    let mut row = |what: &str, ms: f64, goal: Option<f64>| {
        let text = goal.map_or_else(String::new, |goal| format!("<= {goal} ms"));
        table.row(&format!("program, {what}"), &format!("{ms:.1} ms"), &text, goal.map(|goal| ms <= goal));
    };
    for (host, count) in hosts.iter().zip(COUNTS) {
        let at = now() + 4;
        let sql = format!(
            "INSERT OR REPLACE INTO verdicts VALUES ('a.example.com', '9999999', 'no-extension', {at})"
        );
        let ledger = host.site.world.path("state/ledger.db");
        sqlite(&ledger, &sql);
        let (ban_command, unban_command) = (host.site.command(&ban), host.site.command(&unban));
        row(&format!("ban, {count} blocked"), host.time(Some(&unban_command), &ban, runs), Some(5.0));
        row(&format!("unban, {count} blocked"), host.time(Some(&ban_command), &unban, runs), None);
    }
    let mut gone = Command::new("rm");
    gone.args(["-rf", "/sys/fs/bpf/ringfence"]);
    let few = Runs { warmup: 1, timed: 9 };
    let [ten, _, all] = &hosts;
    let there = ten.time(None, &["restore"], few);
    let loaded = ten.time(Some(&gone), &["restore"], few);
    row("load and attach", loaded - there, Some(150.0));
    row("restore of 99999 blocks after a boot", all.time(Some(&gone), &["restore"], few), Some(1000.0));
    row("expire, 99999 blocked, nothing to do", all.time(None, &["expire"], few), None);
}

fn commands(table: &mut Table, variant: Variant) {
    let blocks = Blocks::of(200);
    let (site, host) = (Site::new(), Host::new());
    if variant == Variant::Legacy {
        put_in(variant, &host, FOREIGN);
    }
    let file = site.file(blocks);
    site.call(&host, &["restore", &file]);
    let time = |prepare: Option<&Command>, command: &Command, runs| {
        host.inside(|| time_after(prepare, command, runs))
    };
    let jail = format!("--jail={JAIL}");
    let at = format!("--at={}", now());
    let account = "9999@a.example.com";
    let ban_args = ["ban", &jail, "--seen-from=10.0.0.1", &at, "--for=36000", "--", account];
    let unban_args = ["unban", &jail, "--", account];
    let (ban, unban) = (site.command(&ban_args), site.command(&unban_args));
    let runs = Runs { warmup: 3, timed: 60 };
    let mut row = |what: &str, ms: f64, goal: Option<f64>| {
        let text = goal.map_or_else(String::new, |goal| format!("<= {goal} ms"));
        table.row(&format!("{variant}, {what}"), &format!("{ms:.1} ms"), &text, goal.map(|goal| ms <= goal));
    };

    row("floor: ringfence-block --version", time(None, &site.command(&["--version"]), runs), None);
    // What FusionPBX said of it a moment ago.
    let verdict = || {
        let at = now() + 4;
        let sql =
            format!("INSERT OR REPLACE INTO verdicts VALUES ('a.example.com', '9999', 'no-extension', {at})");
        sqlite(&site.world.path("state/ledger.db"), &sql);
    };
    verdict();
    site.configure(1000);
    site.call(&host, &ban_args);
    assert_eq!(in_kernel(variant, &host), 201);
    row("ban, 200 blocked, and room for more", time(Some(&unban), &ban, runs), Some(15.0));
    assert_eq!(in_kernel(variant, &host), 201);
    row("ban again, what is blocked already", time(None, &ban, runs), None);
    row("unban, 200 more blocked", time(Some(&ban), &unban, runs), None);
    assert_eq!(in_kernel(variant, &host), 200);
    row("expire, 200 blocked, nothing to do", time(None, &site.command(&["expire"]), runs), None);
    row("list, 200 blocked", time(None, &site.command(&["list"]), runs), None);

    // Whoever is banned, the oldest makes way: it comes back before the next.
    let blocks: Vec<serde_json::Value> = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let oldest = site.world.path("oldest.json");
    std::fs::write(&oldest, serde_json::to_string(&blocks[..1]).unwrap()).unwrap();
    site.configure(200);
    let both = format!("{0} unban {jail} -- {account} && {0} restore {1}", site.program(), oldest.display());
    let mut back = Command::new("sh");
    back.args(["-c", &both]);
    verdict();
    site.call(&host, &ban_args);
    row("ban, 200 blocked, of which the oldest makes way", time(Some(&back), &ban, runs), None);
    let list = site.call(&host, &["list", "--json"]);
    assert!(
        in_kernel(variant, &host) == 200
            && list.contains(account)
            && !list.contains("\"1000@a.example.com\"")
    );

    site.configure(20_000);
    let many = Blocks::of(10_000);
    let file = site.file(many);
    let state = site.world.path("state");
    let mut nothing = Command::new("sh");
    let flush =
        ["iptables", "ip6tables"].map(|version| format!("{version}-{variant} -F; {version}-{variant} -X"));
    let foreign = format!("iptables-{variant} {}", FOREIGN.trim_end());
    nothing.args(["-c", &format!("set -e; rm -rf {}; {}; {foreign}", state.display(), flush.join("; "))]);
    let restore = site.command(&["restore", &file]);
    let ms = time(Some(&nothing), &restore, Runs { warmup: 1, timed: 5 });
    assert_eq!(in_kernel(variant, &host), many.count);
    row("restore 10,000 blocks, into ledger and kernel", ms, Some(1000.0));
    row(
        "restore, 10,000 blocked, nothing to do",
        time(None, &site.command(&["restore"]), Runs { warmup: 1, timed: 5 }),
        None,
    );
}

/// fail2ban is started anew, and remembers bans.
fn restart(table: &mut Table) {
    let (many, few) = (Blocks::of(10_000), Blocks::of(300));
    let ours = || {
        restarted(
            many,
            "ringfence-block[ringfence-block=\"PROGRAM\"]",
            "",
            |site, host| {
                site.call(host, &["restore", &site.file(many)]);
                site.call(host, &["stop", &format!("--jail={JAIL}")]);
                assert_eq!(in_kernel(Variant::Nft, host), 0);
            },
            |host| in_kernel(Variant::Nft, host) == many.count,
        )
    };
    let alone = |bans| restarted(bans, "", "", |_, _| {}, |_| true);
    let [alone_many, ours] = beside([&|| alone(many), &ours]);
    let what = "fail2ban, 10,000 bans, no action: until it has them";
    table.row(what, &format!("{alone_many:.2} s"), "", None);
    let what = "  ringfence-block: until it and the kernel have them";
    table.row(what, &format!("{ours:.2} s"), "<= 3 s", Some(ours <= 3.0));

    // One after another, and each has a shell and iptables: ten thousand would take minutes.
    let rule = "INPUT -p udp --dport 5060 -m string --algo bm --string \"<fid>\" -j DROP";
    let flat =
        format!("[Definition]\nactionban = iptables -w -A {rule}\nactionunban = iptables -w -D {rule}\n");
    let in_kernel = |host: &Host| saved(Variant::Nft, host).matches("-j DROP").count() == few.count;
    let theirs = || restarted(few, "flat", &flat, |_, _| {}, in_kernel);
    let [alone_few, theirs] = beside([&|| alone(few), &theirs]);
    let what = "  300 bans, no action";
    table.row(what, &format!("{alone_few:.2} s"), "", None);
    let each = (theirs - alone_few) * 1000.0 / 300.0;
    let what = format!("  an action that adds a rule: {each:.1} ms more for each ban");
    table.row(&what, &format!("{theirs:.2} s"), "", None);
}

/// Medians of two, in turns.
fn beside(measures: [&dyn Fn() -> f64; 2]) -> [f64; 2] {
    let mut seconds = [(); 3].map(|()| measures.map(|measure| measure()));
    [0, 1].map(|at| {
        seconds.sort_by(|one, other| one[at].total_cmp(&other[at]));
        seconds[1][at]
    })
}

/// Seconds from the start of a fail2ban that remembers bans until it has them and `done` is true.
fn restarted(
    bans: Blocks,
    action: &str,
    flat: &str,
    before: impl FnOnce(&Site, &Host),
    done: impl Fn(&Host) -> bool,
) -> f64 {
    let (site, host) = (Site::new(), Host::new());
    let log = site.world.path("freeswitch.log");
    std::fs::write(&log, "").unwrap();
    let actions = site.world.path("fail2ban/action.d");
    std::fs::create_dir_all(&actions).unwrap();
    std::fs::write(actions.join("flat.conf"), flat).unwrap();
    let jail = format!(
        "[{JAIL}]\nenabled = true\nlogpath = {}\naction = {}\n",
        log.display(),
        action.replace("PROGRAM", &site.program())
    );
    let mut fail2ban = Fail2ban::start(&host, &site.world, &jail, &std::env::var("PATH").unwrap());
    fail2ban.stop();
    remember(&site.world.path("fail2ban/fail2ban.sqlite3"), bans);
    assert_eq!(fail2ban.remembered(JAIL), bans.count);
    before(&site, &host);
    let start = Instant::now();
    fail2ban.start_again();
    wait_for("the bans", || fail2ban.log().matches("] Restore Ban ").count() == bans.count);
    wait_for("the kernel", || done(&host));
    let took = start.elapsed().as_secs_f64();
    let log = fail2ban.log();
    let errors: Vec<_> =
        log.lines().filter(|line| line.contains("ERROR") && !line.ends_with("already running")).collect();
    assert!(errors.is_empty(), "{errors:?}");
    // A stop would let all go, one by one where the action knows no other way.
    fail2ban.kill();
    took
}

/// Bans as fail2ban 1.0.2 writes them down, each with the lines of its ten failures.
fn remember(database: &Path, bans: Blocks) {
    let line = "2026-11-20 14:26:23.251840 0.00% [WARNING] sofia_reg.c:3210 Can't find user [1000@a.example.com] from 203.0.113.20";
    let data =
        serde_json::json!({ "matches": vec![line; 10], "failures": 10 }).to_string().replace('\'', "''");
    for table in ["bips", "bans"] {
        let sql = format!(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {} - 1) \
             INSERT INTO {table} (ip, jail, timeofban, bantime, bancount, data) \
             SELECT (1000 + i / {domains}) || '@' || char(97 + i % {domains}) || '.example.com', '{JAIL}', {}, 3600, 1, '{data}' FROM n",
            bans.count,
            now() - 60,
            domains = bans.domains
        );
        sqlite(database, &sql);
    }
}
