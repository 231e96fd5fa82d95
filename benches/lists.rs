//! What `ringfence-lists` costs on large lists, beside the goals and beside what others need for the same; all in one run.
//!
//! `make bench`. Being slow is no failure here: the table says "missed". Not having made the same is one.

#![expect(unreachable_pub, dead_code, unused_imports, reason = "shares the tests' support")]

mod support;

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use fastrand::Rng;
use support::{Host, Runs, Table, World, call, only_built, peak, run, time_after};

/// What is on a list, in the words of the table.
#[derive(Clone, Copy, PartialEq)]
enum Content {
    Addresses,
    Mix,
}

impl Content {
    fn name(self) -> &'static str {
        match self {
            Self::Addresses => "addresses",
            Self::Mix => "addresses and networks",
        }
    }

    /// So many lines, one in four of a mix a network; of 20.0.0.0 to 83.255.255.255, where nobody is protected.
    fn lines(self, count: u32) -> String {
        let mut random = Rng::with_seed(count.into());
        (0..count).fold(String::new(), |mut lines, n| {
            let address = Ipv4Addr::from((20 << 24) + random.u32(..1 << 30));
            if self == Self::Mix && n % 4 == 0 {
                writeln!(lines, "{address}/{}", random.u32(22..=30)).unwrap();
            } else {
                writeln!(lines, "{address}").unwrap();
            }
            lines
        })
    }
}

fn main() {
    if only_built() {
        return;
    }
    let mut table = Table::default();
    merge(&mut table);
    for count in [100_000, 1_000_000] {
        load(&mut table, Content::Addresses, count);
        load(&mut table, Content::Mix, count);
    }
    growth(&mut table);
    million(&mut table);
    table.print();
}

/// `1,000,000`
fn number(number: u32) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// Median milliseconds of two commands, in turns, so that what else this machine does meets both.
fn beside(prepare: Option<&Command>, ours: &Command, theirs: &Command, timed: u32) -> [f64; 2] {
    const ROUNDS: usize = 3;
    let mut medians = [[0.0; ROUNDS]; 2];
    for round in 0..ROUNDS {
        for (medians, command) in medians.iter_mut().zip([ours, theirs]) {
            medians[round] = time_after(prepare, command, Runs { warmup: 1, timed });
        }
    }
    medians.map(|mut medians| {
        medians.sort_by(f64::total_cmp);
        medians[ROUNDS / 2]
    })
}

fn theirs(table: &mut Table, what: &str, ours: f64, theirs: f64, goal: f64) {
    table.row(
        &format!("  {what}: {:.1} x ours", theirs / ours),
        &format!("{theirs:.0} ms"),
        &format!(">= {goal} x ours"),
        Some(theirs >= goal * ours),
    );
}

fn merge_command(file: &Path) -> Command {
    World::empty().lists_command(&["merge", file.to_str().unwrap()])
}

fn merge(table: &mut Table) {
    const COUNT: u32 = 1_000_000;
    let dir = tempfile::tempdir().unwrap();
    for content in [Content::Addresses, Content::Mix] {
        let file = dir.path().join("list");
        std::fs::write(&file, content.lines(COUNT)).unwrap();
        let ours = merge_command(&file);
        let mut iprange = Command::new("iprange");
        iprange.arg(&file);
        let output = |command: &Command| {
            run(Command::new(command.get_program()).args(command.get_args()))
                .lines()
                .collect::<Vec<_>>()
                .join("\n")
        };
        assert!(output(&ours) == output(&iprange), "ringfence-lists and iprange merge to different lists");
        let [ms, theirs_ms] = beside(None, &ours, &iprange, 10);
        table.row(&format!("merge {} {}", number(COUNT), content.name()), &format!("{ms:.1} ms"), "", None);
        theirs(table, "iprange", ms, theirs_ms, 5.0);
        table.row("  peak memory", &format!("{:.1} MiB", peak(&ours)), "", None);
        table.row("  peak memory, iprange", &format!("{:.1} MiB", peak(&iprange)), "", None);
    }
}

/// A host with one block list, fetched.
struct Listed {
    world: World,
    host: Host,
    file: PathBuf,
}

impl Listed {
    fn new(content: Content, count: u32) -> Self {
        let world = World::with_databases();
        let file = world.path("list");
        std::fs::write(&file, content.lines(count)).unwrap();
        world.configure_lists(&format!(
            "[lists.bench]\nkind = \"block\"\nmax-size = \"200 MiB\"\nfile = \"{}\"\n",
            file.display()
        ));
        let listed = Self { world, host: Host::new(), file };
        listed.succeeds(&["fetch"]);
        listed
    }

    /// `ringfence-lists` on the host.
    fn command(&self, args: &[&str]) -> Command {
        let ours = self.world.lists_command(args);
        let mut command = self.host.command(ours.get_program().to_str().unwrap());
        command.args(args).envs(ours.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command
    }

    #[track_caller]
    fn succeeds(&self, args: &[&str]) {
        let call = call(&mut self.command(args));
        assert_eq!((call.code, call.stderr.as_str()), (0, ""), "{args:?}");
    }

    fn ipset(&self, args: &[&str]) -> Command {
        let mut command = self.host.command("ipset");
        command.args(args);
        command
    }

    /// The entries that the kernel has in all sets.
    fn entries(&self) -> u64 {
        let list = run(&mut self.ipset(&["list", "-terse"]));
        list.lines().filter_map(|line| line.strip_prefix("Number of entries: ")?.parse::<u64>().ok()).sum()
    }

    /// A file for `ipset restore` that makes the same sets, with their table sizes or with those that ipset takes by itself.
    fn restore(&self, name: &str, sized: bool) -> PathBuf {
        let mut script = String::new();
        for line in run(&mut self.ipset(&["list", "-terse"])).lines() {
            match line.split_once(": ") {
                Some(("Name", name)) => write!(script, "create {name}").unwrap(),
                Some(("Type", kind)) => write!(script, " {kind}").unwrap(),
                Some(("Header", header)) => {
                    let words: Vec<&str> = header.split(' ').collect();
                    let keys: &[_] =
                        if sized { &["family", "maxelem", "hashsize"] } else { &["family", "maxelem"] };
                    for pair in words.chunks(2).filter(|pair| keys.contains(&pair[0])) {
                        write!(script, " {}", pair.join(" ")).unwrap();
                    }
                    script.push('\n');
                }
                _ => {}
            }
        }
        for network in run(&mut merge_command(&self.file)).lines() {
            let set = if network.contains('/') { "rf-block-net4" } else { "rf-block-ip4" };
            writeln!(script, "add {set} {network}").unwrap();
        }
        let path = self.world.path(name);
        std::fs::write(&path, script).unwrap();
        path
    }
}

/// Each into a kernel without sets.
fn load(table: &mut Table, content: Content, count: u32) {
    let listed = Listed::new(content, count);
    let destroy = listed.ipset(&["destroy"]);
    let ours = listed.command(&["load"]);
    listed.succeeds(&["load"]);
    let entries = listed.entries();
    assert!(entries > u64::from(count) * 9 / 10);
    let sizes = run(&mut listed.ipset(&["list", "-terse"]));
    let memory = |sizes: &str| {
        let bytes =
            sizes.lines().filter_map(|line| line.strip_prefix("Size in memory: ")?.parse::<f64>().ok());
        bytes.sum::<f64>() / 1024.0 / 1024.0
    };
    table.row(
        &format!("load {} {}: kernel memory", number(count), content.name()),
        &format!("{:.1} MiB", memory(&sizes)),
        "",
        None,
    );
    for (name, sized) in
        [("ipset restore, same table sizes", true), ("ipset restore, ipset's own table sizes", false)]
    {
        if listed.entries() == 0 {
            listed.succeeds(&["load"]);
        }
        let script = listed.restore("restore", sized);
        let restore = listed.ipset(&["-file", script.to_str().unwrap(), "restore"]);
        run(&mut listed.ipset(&["destroy"]));
        run(&mut listed.ipset(&["-file", script.to_str().unwrap(), "restore"]));
        assert_eq!(
            listed.entries(),
            entries,
            "ipset restore has put in other entries than ringfence-lists load"
        );
        let [ms, theirs_ms] = beside(Some(&destroy), &ours, &restore, if count > 500_000 { 2 } else { 7 });
        table.row("  ringfence-lists load, the whole process", &format!("{ms:.1} ms"), "", None);
        theirs(table, name, ms, theirs_ms, 4.0);
    }
}

/// Nanoseconds an entry for lists of very different sizes.
fn growth(table: &mut Table) {
    let counts = [10_000, 100_000, 1_000_000, 5_000_000];
    let mut costs = [vec![], vec![]];
    for count in counts {
        let listed = Listed::new(Content::Addresses, count);
        let destroy = listed.ipset(&["destroy"]);
        let runs = Runs { warmup: 1, timed: if count > 500_000 { 5 } else { 30 } };
        for (costs, (prepare, command)) in costs
            .iter_mut()
            .zip([(None, merge_command(&listed.file)), (Some(&destroy), listed.command(&["load"]))])
        {
            costs.push(time_after(prepare, &command, runs) * 1e6 / f64::from(count));
        }
    }
    for (what, costs) in ["merge", "load"].into_iter().zip(costs) {
        for (count, cost) in counts.into_iter().zip(&costs) {
            // The smallest list mostly shows what a process costs.
            let judged = count > 100_000;
            table.row(
                &format!("{what} {} addresses, for each", number(count)),
                &format!("{cost:.0} ns"),
                if judged { "<= 2 x with 100,000" } else { "" },
                judged.then_some(*cost <= 2.0 * costs[1]),
            );
        }
    }
}

/// The other commands, with a million entries.
fn million(table: &mut Table) {
    const GOAL: f64 = 100.0;
    const COUNT: u32 = 1_000_000;
    let listed = Listed::new(Content::Mix, COUNT);
    let runs = Runs { warmup: 1, timed: 10 };
    let state = listed.world.path("state");
    for (what, args, fresh) in [
        ("fetch, a new list", &["fetch"][..], true),
        ("fetch, nothing new", &["fetch"], false),
        ("load", &["load", "--force"], false),
        ("refresh, a new list", &["refresh"], true),
        ("refresh, loaded anew", &["refresh", "--force"], false),
        ("refresh, nothing new", &["refresh"], false),
        ("show", &["show"], false),
        ("show an address", &["show", "20.0.0.1"], false),
    ] {
        let mut forget = Command::new("rm");
        forget.arg("-rf").arg(&state);
        let mut command = listed.command(args);
        assert_eq!(call(&mut command).stderr, "", "{args:?}");
        let ms = time_after(fresh.then_some(&forget), &command, runs);
        table.row(&format!("{what}: {} entries", number(COUNT)), &format!("{ms:.0} ms"), "", None);
        if fresh {
            run(&mut forget);
        }
        table.memory("  peak memory", peak(&command), GOAL);
    }
}
