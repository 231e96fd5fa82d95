//! What a restart of fail2ban with many bans costs, its stop, and one ban: by `ringfence-ban`, and by fail2ban's own action with
//! ipset; beside the goals. All in one run.
//!
//! `make bench`. Being slow is no failure here: the table says "missed". Not having done the same is one.

#![expect(unreachable_pub, dead_code, unused_imports, reason = "shares the tests' support")]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use support::{Banner, Fail2ban, Runs, Table, now, only_built, run, sqlite, time_after};

const JAIL: &str = "sip";

/// Seconds that a restart with ours may take: ten thousand bans.
const GOAL: f64 = 5.0;

fn main() {
    if only_built() {
        return;
    }
    let bans = std::env::var("BANS").map_or(10_000, |text| text.parse().expect("BANS is a number"));
    let mut table = Table::default();
    restarts(&mut table, bans);
    single(&mut table, bans);
    table.print();
}

/// Who puts bans into the kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    /// Nobody: what fail2ban itself needs.
    None,
    Ringfence,
    /// fail2ban's own with a set for each jail; one process of a shell and one of ipset for each ban.
    Stock,
}

impl Action {
    const fn setting(self) -> &'static str {
        match self {
            Self::None => "action =",
            Self::Ringfence => "",
            Self::Stock => "banaction = iptables-ipset-proto6",
        }
    }

    /// How many addresses its set has; `None` as long as it is not there.
    fn in_kernel(self, banner: &Banner) -> Option<usize> {
        let set = match self {
            Self::None => return None,
            Self::Ringfence => "rf-ban-sip-4",
            Self::Stock => "f2b-sip",
        };
        let output = banner.pbx.host.command("ipset").args(["list", set, "-terse"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().find_map(|line| line.strip_prefix("Number of entries: "))?.trim().parse().ok()
    }
}

/// Waits until something is done, which may take an hour.
#[track_caller]
fn wait_long(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_hours(1), "in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Seconds.
struct Restart {
    /// Until all bans are in the kernel; none without an action.
    bans: f64,
    /// Until fail2ban has them as well.
    settled: f64,
    /// From "stop" to the end of fail2ban; nothing is left in the kernel then.
    stop: f64,
}

/// fail2ban is started anew, and remembers bans.
fn restarts(table: &mut Table, bans: usize) {
    let rounds = [(); 3].map(|()| [Action::None, Action::Ringfence].map(|action| restart(action, bans)));
    let median = |at: usize, of: fn(&Restart) -> f64| {
        let mut times = rounds.each_ref().map(|round| of(&round[at]));
        times.sort_by(f64::total_cmp);
        times[1]
    };
    let [alone, ours] = [0, 1].map(|at| Restart {
        bans: median(at, |restart| restart.bans),
        settled: median(at, |restart| restart.settled),
        stop: median(at, |restart| restart.stop),
    });
    // It takes minutes: once.
    let stock = restart(Action::Stock, bans);
    let seconds = |seconds: f64| format!("{seconds:.2} s");
    table.row(
        &format!("fail2ban, {bans} bans, no action: until it has them"),
        &seconds(alone.settled),
        "",
        None,
    );
    let goal = format!("<= {GOAL} s");
    let met = Some(ours.bans <= GOAL);
    table.row("  ringfence-ban: until the kernel has them", &seconds(ours.bans), &goal, met);
    table.row("  ringfence-ban: until fail2ban has them, too", &seconds(ours.settled), "", None);
    let what = format!("  iptables-ipset: until the kernel has them; {:.0} x ours", stock.bans / ours.bans);
    table.row(&what, &seconds(stock.bans), "", None);
    table.row("stop, no action", &seconds(alone.stop), "", None);
    let met = Some(ours.stop <= GOAL);
    table.row("  ringfence-ban", &seconds(ours.stop), &goal, met);
    let what = format!("  iptables-ipset; {:.1} x ours", stock.stop / ours.stop);
    table.row(&what, &seconds(stock.stop), "", None);
}

fn restart(action: Action, bans: usize) -> Restart {
    let banner = Banner::new("nft");
    let settings = format!("port = 5060,5061\nprotocol = udp\n{}", action.setting());
    let mut fail2ban = banner.fail2ban(&[(JAIL, &settings)]);
    fail2ban.stop();
    remember(&banner, bans);
    assert_eq!(fail2ban.remembered(JAIL), bans);
    let start = Instant::now();
    fail2ban.start_again();
    let restored = || fail2ban.log().matches("] Restore Ban ").count() == bans;
    wait_long("the kernel", || action == Action::None || action.in_kernel(&banner) == Some(bans));
    let in_kernel = start.elapsed().as_secs_f64();
    wait_long("fail2ban", restored);
    let settled = start.elapsed().as_secs_f64();
    let start = Instant::now();
    fail2ban.stop();
    let stop = start.elapsed().as_secs_f64();
    fail2ban.is_content();
    banner.is_open();
    assert_eq!(action.in_kernel(&banner), None, "the set is gone");
    Restart { bans: in_kernel, settled, stop }
}

/// Bans as fail2ban 1.0.2 writes them down, each with the line of its failure.
fn remember(banner: &Banner, bans: usize) {
    let data = r#"{"matches": ["2026-11-20 14:26:23 refused 203.0.113.20 by sip"], "failures": 1}"#;
    let sql = format!(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {bans} - 1) \
         INSERT INTO bips (ip, jail, timeofban, bantime, bancount, data) \
         SELECT '10.' || (i / 65536) || '.' || (i / 256 % 256) || '.' || (i % 256), '{JAIL}', {}, 3600, 1, '{data}' FROM n",
        now() - 60
    );
    sqlite(&banner.database(), &sql);
}

/// Calls, each as the process that fail2ban starts.
fn single(table: &mut Table, bans: usize) {
    let banner = Banner::new("nft");
    banner.has_database(&[JAIL]);
    remember(&banner, bans);
    let tool = env!("CARGO_BIN_EXE_ringfence-ban");
    let config = banner.pbx.world.config();
    let ours = |args: &str| shell(&format!("exec {tool} --config {} {args}", config.display()));
    let whose = format!("--jail={JAIL} --port=5060,5061 --protocol=udp");
    let start = ours(&format!("start {whose}"));
    let host = &banner.pbx.host;
    let time = |command: &Command, runs| host.inside(|| time_after(None, command, runs));
    let (few, many) = (Runs { warmup: 1, timed: 10 }, Runs { warmup: 3, timed: 60 });
    let mut row = |what: &str, ms: f64| table.row(what, &format!("{ms:.1} ms"), "", None);
    row("floor: ringfence-ban --version", time(&ours("--version"), many));
    row(&format!("ringfence-ban start, {bans} bans remembered"), time(&start, few));
    assert_eq!(Action::Ringfence.in_kernel(&banner), Some(bans));
    row(&format!("ringfence-ban sync, {bans} bans, nothing to do"), time(&ours("sync"), few));
    let ban = time(&ours(&format!("ban {whose} --for=3600 -- 203.0.113.66")), many);
    row("ringfence-ban ban", ban);
    assert_eq!(Action::Ringfence.in_kernel(&banner), Some(bans + 1));
    host.shell("ipset create f2b-sip hash:ip timeout 0");
    row("iptables-ipset's ban", time(&shell("ipset -exist add f2b-sip 203.0.113.66 timeout 0"), many));
    assert_eq!(Action::Stock.in_kernel(&banner), Some(1));
}

/// As fail2ban runs what an action says.
fn shell(line: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", line]);
    command
}
