//! `ringfence-block` and hostile accounts, rules that others change, programs that fail, disks that are full, and calls that die.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Blocker, Call, call, copy_program, now, run, second, wait_for, write_program};

const UNVERIFIED: &str = "[block]\nverify = \"none\"\n";

with_both_matchers! {
    a_file_with_nonsense_changes_nothing
    on_a_disk_that_takes_nothing_blocks_end_all_the_same
    a_damaged_ledger_is_moved_aside_and_a_new_one_begun
    of_many_that_find_the_ledger_damaged_one_moves_it
    no_block_lasts_longer_because_the_clock_was_set_back
    a_killed_call_is_completed_by_the_next
    twenty_at_once_are_all_done
}

/// A host where nobody asks FusionPBX.
fn site() -> Blocker {
    Blocker::new(UNVERIFIED)
}

fn site_by(matcher: &'static str) -> Blocker {
    Blocker::matching_by(matcher, UNVERIFIED)
}

/// A call with an account in whatever bytes.
fn with(site: &Blocker, args: &[&str], account: &OsStr) -> Call {
    call(site.command(args).arg("--").arg(account))
}

/// What a call says in one line that does no harm to a terminal.
#[track_caller]
fn calm(call: &Call) -> &str {
    let line = call.stderr.strip_suffix('\n').unwrap();
    assert!(!line.contains(char::is_control) && line.len() < 600, "{line:?}");
    assert_eq!(call.stdout, "");
    line.strip_prefix("ringfence-block: ").unwrap()
}

#[test]
fn hostile_accounts_are_blocked_exactly_or_refused() {
    let site = Blocker::new(&format!("{UNVERIFIED}only-exempt = false\n"));
    let canary = site.world.path("canary");
    let canary_text = canary.display().to_string();
    // The longest that fits into a pattern of the kernel's.
    let (user, domain) = ("u".repeat(116), format!("{}.{}", "d".repeat(60), "e".repeat(58)));
    let exact = [
        "o'neil@d".to_owned(),
        "50%|x@d".into(),
        "%s%n@d".into(),
        "|0d0a|@d".into(),
        "a b@d".into(),
        "a  b@d".into(),
        "Иван@d".into(),
        "\u{1f4de}@d".into(),
        "\u{202e}101@d".into(),
        format!("$(touch {canary_text})@d"),
        format!("`touch {canary_text}`@d"),
        format!(";touch {canary_text};#@d"),
        format!("x'|touch {canary_text}|'@d"),
        "-rf@d".into(),
        "--jail=x@d".into(),
        "-j ACCEPT@d".into(),
        "--hex-string |00|@d".into(),
        "a,203.0.113.66@d".into(),
        "realm=d@d".into(),
        "COMMIT@d".into(),
        "*@d".into(),
        format!("{user}@{domain}"),
        "101@[2001:db8::1]".into(),
        "101@d,2001:db8:66::bad".into(),
    ];
    for id in &exact {
        let done = with(&site, &["ban", "--jail=sip", "--seen-from="], OsStr::new(id));
        assert_eq!((done.code, &*done.stderr, &*done.stdout), (0, "", ""), "{id}");
    }
    site.holds(&exact.each_ref().map(String::as_str));
    assert!(!site.block(&["list"]).stdout.replace('\n', "").contains(char::is_control));
    // What the kernel would be told is text of one kind only.
    site.host.shell("iptables-nft -F; ip6tables-nft -F");
    let plan = site.block(&["restore", "--dry-run"]);
    assert_eq!((plan.code, plan.stderr.as_str()), (0, ""));
    for user in exact.iter().map(|id| id.rsplit_once('@').unwrap().0) {
        let hex: Vec<_> = format!("username=\"{user}\"").bytes().map(|byte| format!("{byte:02x}")).collect();
        let hex = hex.concat();
        assert!(plan.stdout.contains(&format!("--hex-string \"|{hex}|\" -m comment")), "{user}");
    }
    assert!(plan.stdout.is_ascii() && !plan.stdout.contains("touch"));
    site.does(&["restore"]);
    site.holds(&exact.each_ref().map(String::as_str));
    for id in &exact {
        let done = with(&site, &["unban", "--jail=sip"], OsStr::new(id));
        assert_eq!((done.code, &*done.stderr), (0, ""), "{id}");
    }
    site.holds(&[]);

    // There is no account with NUL: no program can be called with one.
    let bytes = |text: &str| OsString::from(text);
    let refused: [(OsString, &str, &str); 16] = [
        (bytes("e\"vil@d"), "no-account", "its user part has '\"', which cannot be matched exactly"),
        (bytes("e\\vil@d"), "no-account", "its user part has '\\\\', which cannot be matched exactly"),
        (bytes("e\nvil@d"), "no-account", "its user part has '\\n', which cannot be matched exactly"),
        (bytes("e\rvil@d"), "no-account", "its user part has '\\r', which cannot be matched exactly"),
        (bytes("\x1b[2J@d"), "no-account", "its user part has '\\u{1b}', which cannot be matched exactly"),
        (bytes("\u{9b}2J@d"), "no-account", "its user part has '\\u{9b}', which cannot be matched exactly"),
        (bytes("a\t@d"), "no-account", "its user part has '\\t', which cannot be matched exactly"),
        (bytes(" 101@d"), "no-account", "its user part has ' ', which cannot be matched exactly"),
        (bytes("a@b@d"), "no-account", "its user part has '@', which cannot be matched exactly"),
        (bytes(""), "no-account", "it is not an account; write USER@DOMAIN"),
        (bytes("101@d\x1b[2J"), "no-account", "its domain is neither a host name nor an IP address"),
        (bytes("101@d,\x1b[2J"), "no-account", "what follows the comma is no IPv4 or IPv6 address"),
        (
            OsStr::from_bytes(b"ivan\xfc\x9b@d").to_owned(),
            "no-account",
            "it is not UTF-8, and no account that could be matched exactly",
        ),
        (("x".repeat(10_000) + "@d").into(), "no-account", "its user part is longer than 128 bytes"),
        (
            ("x".repeat(117) + "@d").into(),
            "too-long",
            "its user part is longer than 116 bytes, and iptables has no longer patterns",
        ),
        (
            format!("x@{domain}e").into(),
            "too-long",
            "its domain is longer than 119 bytes, and iptables has no longer patterns",
        ),
    ];
    for (id, reason, why) in &refused {
        let by_hand = with(&site, &["ban"], id);
        assert_eq!(by_hand.code, 1, "{id:?}");
        assert!(calm(&by_hand).ends_with(&format!(" is not blocked: {why}")), "{}", by_hand.stderr);
        assert_eq!(site.world.last_reason(), *reason);
        assert_eq!(with(&site, &["ban", "--jail=sip"], id).code, 0, "{id:?}");
        let unban = with(&site, &["unban"], id);
        assert_eq!(unban.code, 1, "{id:?}");
        calm(&unban);
    }
    site.holds(&[]);
    assert!(!canary.exists());
    // Every line of the journal was read as JSON above; none is long.
    let journal = std::fs::read_to_string(site.world.path("log/decisions.jsonl")).unwrap();
    assert!(journal.lines().all(|line| line.len() < 1500), "{journal}");
    assert!(!journal.replace('\n', "").contains(char::is_control));
}

#[test]
fn a_hundred_thousand_accounts_leave_no_more_than_max() {
    const COUNT: i64 = 100_000;
    let site = site();
    let start = now();
    // The later it began, the earlier it stands.
    let entries: Vec<Value> = (0..COUNT)
        .map(|n| {
            let since = start - n / 100 - 1;
            json!({"account": format!("{n}@d"), "since": since, "until": start + 3600})
        })
        .collect();
    let file = site.world.path("blocks.json");
    std::fs::write(&file, serde_json::to_vec(&entries).unwrap()).unwrap();
    let restore = site.world.block_command(&["restore"]);
    let limited = call(
        site.host
            .command("prlimit")
            .arg("--as=500000000")
            .arg("env")
            .arg(format!("RINGFENCE_CONFIG={}", site.world.config().display()))
            .arg(restore.get_program())
            .arg("restore")
            .arg(&file),
    );
    assert_eq!((limited.code, limited.stderr.as_str()), (0, ""));
    assert!(limited.took < Duration::from_mins(2), "{:?}", limited.took);
    site.agree();
    assert_eq!(site.blocked(), (0..200).map(|n| format!("{n}@d")).collect());
    assert_eq!(site.ledger_sql("SELECT count(*) FROM blocks"), "200\n");
    let length = |name: &str| std::fs::metadata(site.world.path(name)).map_or(0, |about| about.len());
    assert!(length("log/decisions.jsonl") <= 16 << 20 && length("log/decisions.jsonl.1") <= 16 << 20);

    // In descending order, and several in a second: still the last ones stay.
    let ids: Vec<String> = (0..300).rev().map(|n| format!("b{n:03}@d")).collect();
    for id in &ids {
        site.does(&["ban", id]);
    }
    site.agree();
    assert_eq!(site.blocked(), ids[100..].iter().cloned().collect());
}

fn a_file_with_nonsense_changes_nothing(matcher: &'static str) {
    let site = site_by(matcher);
    site.does(&["ban", "1@d"]);
    let file = site.world.path("blocks.json");
    let good = r#"{"account":"2@d","since":1767225600,"until":4070908800}"#;
    for (nonsense, says) in [
        (String::new(), "EOF while parsing"),
        (format!("[{good}"), "EOF while parsing"),
        (format!("[{good}, {{}}]"), "missing field"),
        (
            format!("[{good}, {}]", good.replace("4070908800", r#""soon""#)),
            "a time as of RFC 3339, or seconds",
        ),
        (format!("[{good}, {}]", good.replace("2@d", r"e\u001bvil@d")), "cannot be matched exactly"),
        (format!("[{good}, {}]", good.replace("2@d", &("x".repeat(129) + "@d"))), "longer than"),
        (format!("[{good}, {}]", good.replace("2@d", &("x".repeat(120) + "@d"))), "longer than 116 bytes"),
    ]
    .into_iter()
    // The program can bear the last one.
    .take(if matcher == "bpf" { 6 } else { 7 })
    {
        std::fs::write(&file, &nonsense).unwrap();
        let line = site.says(2, &["restore", file.to_str().unwrap()]);
        assert!(
            line.starts_with("cannot read DIR/blocks.json as list --json prints it: ") && line.contains(says),
            "{line}"
        );
    }
    let line = site.says(2, &["restore", "/nowhere"]);
    assert!(line.contains("No such file"), "{line}");
    site.holds(&["1@d"]);
    std::fs::write(&file, format!("[{good}]")).unwrap();
    site.does(&["restore", file.to_str().unwrap()]);
    site.holds(&["1@d", "2@d"]);
    // What list prints is taken as well.
    let listed = serde_json::to_vec(&site.list()).unwrap();
    site.does(&["unban", "1@d"]);
    std::fs::write(&file, listed).unwrap();
    site.does(&["restore", file.to_str().unwrap()]);
    site.holds(&["1@d", "2@d"]);
    // What is over is not taken.
    std::fs::write(&file, format!("[{}]", good.replace("2@d", "3@d").replace("4070908800", "1767225601")))
        .unwrap();
    site.does(&["restore", file.to_str().unwrap()]);
    site.holds(&["1@d", "2@d"]);
}

#[test]
fn whatever_becomes_of_the_rules_the_next_call_sets_it_right() {
    let site = site();
    let mut held: BTreeSet<String> =
        ["1@a", "2@a", "1@b", "1@b,203.0.113.66", "1@b,2001:db8:66::bad"].map(str::to_owned).into();
    for id in &held {
        site.does(&["ban", id]);
    }
    site.host.shell("iptables-nft -A INPUT -i lo -j ACCEPT; ip6tables-nft -P INPUT DROP");
    let leaf = |line: &str| {
        let saved = run(&mut site.host.command("iptables-nft-save"));
        let found = saved.lines().find(|rule| rule.starts_with("-A RF-BLOCK -m string --string \"realm="));
        line.replace("LEAF", found.unwrap().rsplit_once(' ').unwrap().1)
    };
    let harms = [
        "iptables-nft -F; ip6tables-nft -F",
        "iptables-nft -F; iptables-nft -X; ip6tables-nft -F; ip6tables-nft -X",
        "ip6tables-nft -F; ip6tables-nft -X",
        "ip6tables-nft -F RF-BLOCK-DENY",
        "iptables-nft -D INPUT 1",
        "iptables-nft -I INPUT 1 -p udp -j RF-BLOCK",
        "iptables-nft -I INPUT 1 -j ACCEPT",
        "iptables-nft -F LEAF",
        "iptables-nft -D LEAF 1",
        "iptables-nft -I LEAF 1 -j ACCEPT",
        "iptables-nft -A RF-BLOCK -j DROP",
        "iptables-nft -N RF-BLOCK-OLD; iptables-nft -A RF-BLOCK-OLD -j RF-BLOCK-DENY",
        "nft flush ruleset",
    ];
    for (at, harm) in harms.into_iter().enumerate() {
        let new = format!("{at}@c");
        for next in 0..3 {
            site.host.shell(&leaf(harm));
            match next {
                0 => {
                    site.does(&["ban", &new]);
                    held.insert(new.clone());
                }
                1 => {
                    site.does(&["unban", &new]);
                    held.remove(&new);
                }
                _ => site.does(&["expire"]),
            }
            site.agree();
            assert_eq!(site.blocked(), held, "{harm}");
        }
        let rules = run(&mut site.host.command("iptables-nft-save"));
        let foreign =
            rules.lines().filter(|rule| rule.starts_with("-A INPUT") && !rule.contains("ringfence"));
        assert!(foreign.clone().all(|rule| rule.ends_with("-j ACCEPT")), "{rules}");
    }
}

#[test]
fn a_rule_that_jumps_into_our_chains_hinders_nothing_else() {
    let site = site();
    for id in ["1@a", "1@b"] {
        site.does(&["ban", id]);
    }
    let saved = run(&mut site.host.command("iptables-nft-save"));
    let leaf =
        saved.lines().find(|rule| rule.contains(r#"realm=\"a\""#)).unwrap().rsplit_once(' ').unwrap().1;
    site.host.shell(&format!(
        "iptables-nft -N MINE; iptables-nft -A MINE -j {leaf}; iptables-nft -A FORWARD -p udp -g RF-BLOCK"
    ));
    let foreign = || {
        let rules = run(&mut site.host.command("iptables-nft-save"));
        rules.lines().filter(|rule| rule.contains("MINE") || rule.contains("FORWARD")).count()
    };
    let before = foreign();
    site.does(&["ban", "2@a"]);
    site.does(&["unban", "1@b"]);
    site.holds(&["1@a", "2@a"]);
    // The chain cannot go, and is empty.
    let empty = |chain: &str| {
        let listed = run(site.host.command("iptables-nft").args(["-S", chain]));
        assert_eq!(listed, format!("-N {chain}\n"));
    };
    for id in ["1@a", "2@a"] {
        site.does(&["unban", id]);
    }
    empty(leaf);
    empty("RF-BLOCK");
    site.does(&["ban", "1@c"]);
    site.does(&["expire"]);
    empty(leaf);
    let saved = run(&mut site.host.command("iptables-nft-save"));
    assert!(saved.contains(r#"username=\"1\""#) && saved.contains("-j RF-BLOCK\n"), "{saved}");
    site.does(&["ban", "1@a"]);
    site.holds(&["1@a", "1@c"]);
    assert_eq!(foreign(), before);
    site.host.shell("iptables-nft -F MINE; iptables-nft -F FORWARD");
    for id in ["1@a", "1@c"] {
        site.does(&["unban", id]);
    }
    site.holds(&[]);
}

/// Other programs in the place of `/usr/sbin`, until they are taken away.
struct Programs<'a>(&'a Blocker);

impl<'a> Programs<'a> {
    /// Only those of `names`, as they were, and these scripts.
    fn new(site: &'a Blocker, names: &[&str], scripts: &[(&str, &str)]) -> Self {
        let dir = site.world.path("sbin");
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        for multi in ["xtables-nft-multi", "xtables-legacy-multi"] {
            copy_program(PathBuf::from("/usr/sbin").join(multi), dir.join(multi));
        }
        for name in names {
            let multi = if name.contains("legacy") { "xtables-legacy-multi" } else { "xtables-nft-multi" };
            std::os::unix::fs::symlink(multi, dir.join(name)).unwrap();
        }
        for (name, script) in scripts {
            write_program(dir.join(name), &format!("#!/bin/sh\n{script}\n"));
        }
        run(site.host.command("mount").arg("--bind").arg(&dir).arg("/usr/sbin"));
        Self(site)
    }
}

impl Drop for Programs<'_> {
    fn drop(&mut self) {
        run(self.0.host.command("umount").arg("/usr/sbin"));
    }
}

const SAVES: [&str; 2] = ["iptables-nft-save", "ip6tables-nft-save"];

#[test]
fn without_iptables_the_ledger_keeps_what_is_to_be_done() {
    let site = site();
    site.does(&["ban", "1@d"]);
    let gone = Programs::new(&site, &[], &[]);
    let missing = "iptables is not there; install the package iptables; what is blocked is in the ledger, and the next call brings it into the kernel";
    assert_eq!(site.says(2, &["ban", "2@d"]), missing);
    assert_eq!(site.says(2, &["unban", "1@d"]), missing);
    assert_eq!(site.says(2, &["expire"]), missing);
    let list = site.block(&["list"]);
    assert_eq!(list.code, 0);
    assert!(list.stdout.lines().nth(1).is_some_and(|line| line.starts_with("2@d ") && line.contains(" ? ")));
    assert_eq!(
        list.stderr,
        "ringfence-block: iptables is not there; install the package iptables; how often a block was met is not known\n"
    );
    drop(gone);
    assert_eq!(site.kernel("nft")[0], ["1@d".to_owned()].into());
    site.does(&["expire"]);
    site.holds(&["2@d"]);

    let half = Programs::new(&site, &SAVES, &[]);
    let line = site.says(2, &["ban", "3@d"]);
    assert!(line.contains("iptables-nft-restore is not there; install the package iptables"), "{line}");
    drop(half);
    site.does(&["expire"]);
    site.holds(&["2@d", "3@d"]);
}

#[test]
fn what_the_kernel_refuses_is_done_by_the_next_call() {
    let site = site();
    site.does(&["ban", "1@d"]);
    let saved = || ["iptables-nft-save", "ip6tables-nft-save"].map(|save| run(&mut site.host.command(save)));
    let rules = |saved: [String; 2]| {
        saved.map(|text| {
            text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
        })
    };
    let before = rules(saved());
    // What iptables says where the kernel has no xt_string.
    let refuse = "echo \"$0: line 7: RULE_APPEND failed (No such file or directory): rule in chain RF-BLOCK\" >&2; exit 1";
    for failing in
        [["iptables-nft-restore", "ip6tables-nft-restore"], ["ip6tables-nft-restore", "iptables-nft-restore"]]
    {
        let id = format!("2@{}", &failing[0][..2]);
        let programs = Programs::new(&site, &[SAVES[0], SAVES[1], failing[1]], &[(failing[0], refuse)]);
        let line = site.says(2, &["ban", &id]);
        assert!(line.starts_with("cannot change the rules of this host: "), "{line}");
        assert!(line.contains(&format!("{} failed (exit status: 1): ", failing[0])), "{line}");
        assert!(line.contains("RULE_APPEND failed (No such file or directory)"), "{line}");
        drop(programs);
        let at = usize::from(failing[0].starts_with("ip6"));
        assert_eq!(rules(saved())[at], before[at], "nothing is half done");
        assert!(site.kernel("nft")[1 - at].contains(&id), "the other was done");
        site.does(&["expire"]);
        site.agree();
        assert!(site.blocked().contains(&id));
        site.does(&["unban", &id]);
        site.holds(&["1@d"]);
    }
}

#[test]
fn a_program_that_hangs_is_ended() {
    let site = site();
    site.does(&["ban", "1@d"]);
    // Found again by this.
    let hang = format!("exec sleep 7{}", std::process::id());
    for hanging in ["ip6tables-nft-save", "iptables-nft-restore"] {
        let others: Vec<&str> = ["iptables-nft-restore", "ip6tables-nft-restore", SAVES[0], SAVES[1]]
            .into_iter()
            .filter(|name| *name != hanging)
            .collect();
        let programs = Programs::new(&site, &others, &[(hanging, &hang)]);
        let call = site.block(&["ban", "2@d"]);
        drop(programs);
        assert_eq!(call.code, 2, "{}", call.stderr);
        assert!(calm(&call).contains(&format!("{hanging} did not get done within 15 s")), "{}", call.stderr);
        assert!(call.took < Duration::from_secs(50), "{:?}", call.took);
        let sleeps = || {
            let all = std::fs::read_dir("/proc").unwrap().flatten();
            let line = |entry: std::fs::DirEntry| std::fs::read(entry.path().join("cmdline")).ok();
            let wanted = hang.replace("exec ", "").replace(' ', "\0") + "\0";
            all.filter_map(line).filter(|line| line.as_slice() == wanted.as_bytes()).count()
        };
        wait_for("the end of the program that hung", || sleeps() == 0);
        site.does(&["expire"]);
        site.holds(&["1@d", "2@d"]);
        site.does(&["unban", "2@d"]);
    }
}

/// Holds the lock of iptables for so many seconds.
fn hold_lock(site: &Blocker, seconds: u32) -> Child {
    let mut flock = Command::new("flock");
    // Killed, it lets go.
    flock.args(["--no-fork", "/run/xtables.lock", "sleep", &seconds.to_string()]);
    let child = site.host.call(&flock).spawn().unwrap();
    wait_for("the lock", || {
        let free = site.host.command("flock").args(["-n", "/run/xtables.lock", "true"]).status().unwrap();
        !free.success()
    });
    child
}

#[test]
fn the_lock_of_iptables_is_waited_for_and_not_for_ever() {
    let site = site();
    site.host.shell(
        "mount -t tmpfs tmpfs /run; iptables-legacy -A INPUT -i lo -j ACCEPT; ip6tables-legacy -A INPUT -i lo -j ACCEPT",
    );
    site.does(&["ban", "1@d"]);
    site.agree_as("legacy");
    let mut holder = hold_lock(&site, 2);
    site.does(&["ban", "2@d"]);
    holder.wait().unwrap();
    site.agree_as("legacy");

    let mut holder = hold_lock(&site, 600);
    let call = site.block(&["ban", "3@d"]);
    assert_eq!(call.code, 2, "{}", call.stderr);
    let line = calm(&call);
    assert!(line.contains("tables-legacy-restore failed (exit status: 4)"), "{line}");
    assert!(line.contains("another program may have held the lock of iptables for 5 s"), "{line}");
    assert!(call.took < Duration::from_secs(40), "{:?}", call.took);
    assert_eq!(site.kernel("legacy")[0], ["1@d".to_owned(), "2@d".to_owned()].into());
    holder.kill().unwrap();
    holder.wait().unwrap();
    site.does(&["expire"]);
    site.agree_as("legacy");
    assert_eq!(site.blocked().len(), 3);
    // Nothing of ours is where the host's rules are not.
    assert_eq!(site.kernel("nft"), [BTreeSet::new(), BTreeSet::new()]);
}

fn on_a_disk_that_takes_nothing_blocks_end_all_the_same(matcher: &'static str) {
    let site = site_by(matcher);
    let state = site.world.path("state");
    std::fs::create_dir_all(&state).unwrap();
    let at = state.display();
    site.host.shell(&format!("mount -t tmpfs -o size=1m tmpfs {at}"));
    for id in ["1@d", "2@d", "3@d"] {
        site.does(&["ban", id]);
    }
    let ends = |id: &str| {
        site.ledger_sql(&format!(
            "UPDATE blocks SET since = since - 3600, until = until - 3600 WHERE account = '{id}'"
        ));
    };
    let left = |ids: &[&str]| {
        site.holds(ids);
        assert_eq!(site.in_kernel().len(), ids.len());
    };
    for (way, hint, make, over, lasting, reverse) in [
        (
            "full",
            "(is the disk full?)",
            "dd if=/dev/zero of=AT/full bs=4096 status=none || true",
            "1",
            ["2@d", "3@d"].as_slice(),
            "rm AT/full",
        ),
        (
            "read-only",
            "(is the disk read-only, or are we not root?)",
            "mount -o remount,ro AT",
            "2",
            &["3@d"],
            "mount -o remount,rw AT",
        ),
    ] {
        ends(over);
        site.host.shell(&make.replace("AT", &at.to_string()));
        for args in [["ban", "4@d"].as_slice(), &["expire"], &["unban", "3@d"]] {
            let line = site.says(2, args);
            assert!(line.contains("cannot write the ledger") && line.contains(hint), "{way}: {line}");
            if args[0] != "ban" {
                left(lasting);
            }
        }
        assert!(!site.in_kernel().contains("4@d"));
        site.host.shell(&reverse.replace("AT", &at.to_string()));
        site.does(&["expire"]);
        left(lasting);
    }
    // A new ledger cannot be begun there.
    site.host.shell(&format!("rm -r {at}/*; dd if=/dev/zero of={at}/full bs=4096 status=none || true"));
    let line = site.says(2, &["ban", "5@d"]);
    assert!(
        line.starts_with("the ledger DIR/state/ledger.db: ") && line.contains("(is the disk full?)"),
        "{line}"
    );
    site.host.shell(&format!("rm {at}/*"));
    site.does(&["ban", "5@d"]);
    site.holds(&["5@d"]);
}

/// Overwrites part of a file.
fn overwrite(path: &std::path::Path, from: usize, to: usize) {
    let mut content = std::fs::read(path).unwrap();
    content[from..to].fill(0xa5);
    std::fs::write(path, content).unwrap();
}

fn a_damaged_ledger_is_moved_aside_and_a_new_one_begun(matcher: &'static str) {
    let site = site_by(matcher);
    let ledger = site.ledger();
    let harms: [(&str, &dyn Fn()); 7] = [
        ("garbage", &|| std::fs::write(&ledger, "garbage ".repeat(1000)).unwrap()),
        ("a short line", &|| std::fs::write(&ledger, "hello\n").unwrap()),
        ("cut", &|| {
            let content = std::fs::read(&ledger).unwrap();
            std::fs::write(&ledger, &content[..content.len() / 2]).unwrap();
        }),
        ("pages in the middle", &|| overwrite(&ledger, 4096, 5 * 4096)),
        ("the tables' names", &|| overwrite(&ledger, 100, 2000)),
        ("a directory", &|| {
            std::fs::remove_file(&ledger).unwrap();
            std::fs::create_dir(&ledger).unwrap();
        }),
        ("somebody else's", &|| {
            std::fs::remove_file(&ledger).unwrap();
            crate::support::sqlite(&ledger, "CREATE TABLE mine (x)");
        }),
    ];
    for (at, (harm, do_it)) in harms.into_iter().enumerate() {
        site.does(&["ban", "1@d"]);
        site.does(&["ban", "2@d"]);
        assert_eq!(site.in_kernel().len(), 2);
        do_it();
        let before = std::fs::read(&ledger).ok();
        let call = site.block(if at % 2 == 0 { &["expire"] } else { &["ban", "3@d"] });
        assert_eq!(call.code, 0, "{harm}: {}", call.stderr);
        let line = calm(&call);
        assert!(
            line.starts_with("the ledger is lost, and with it who was blocked: it was damaged ("),
            "{harm}: {line}"
        );
        let moved = PathBuf::from(line.rsplit_once(" and is now ").unwrap().1);
        // SQLite notes in what is a database that it was opened.
        let length = |content: Option<Vec<u8>>| content.map(|content| content.len());
        assert_eq!(length(std::fs::read(&moved).ok()), length(before), "{harm}");
        let lost: Vec<_> =
            site.world.journal().into_iter().filter(|line| line["reason"] == "ledger-lost").collect();
        assert_eq!(lost.len(), 1, "{harm}");
        assert_eq!(lost[0]["decision"], "begin anew");
        // The kernel follows.
        site.holds(if at % 2 == 0 { &[] } else { &["3@d"] });
        site.does(&["unban", "--jail=sip", "3@d"]);
        if moved.is_dir() {
            std::fs::remove_dir(moved).unwrap();
        } else {
            std::fs::remove_file(moved).unwrap();
        }
        // The same within a minute would be counted.
        std::fs::remove_dir_all(site.world.path("log")).unwrap();
        site.world.reboot();
        let _ = site.block(&["unban", "3@d"]);
    }

    // What SQLite does not take for its log is no harm.
    site.does(&["ban", "1@d"]);
    for beside in ["-wal", "-shm"] {
        let mut name = ledger.clone().into_os_string();
        name.push(beside);
        std::fs::write(name, "garbage ".repeat(5000)).unwrap();
    }
    site.does(&["ban", "2@d"]);
    site.holds(&["1@d", "2@d"]);
    // Who only looks moves nothing, and makes nothing.
    let whole = std::fs::read(&ledger).unwrap();
    let files = || run(Command::new("ls").arg("-l").arg(ledger.parent().unwrap()));
    std::fs::write(&ledger, "garbage ".repeat(1000)).unwrap();
    let before = files();
    for args in [["list"].as_slice(), &["restore", "--dry-run"]] {
        let line = site.says(2, args);
        assert!(line.starts_with("cannot read the ledger ") && line.contains("not a database"), "{line}");
    }
    assert_eq!(files(), before);
    std::fs::remove_file(&ledger).unwrap();
    let before = files();
    for args in [["list"].as_slice(), &["restore", "--dry-run"]] {
        assert_eq!(site.block(args).code, 0);
    }
    assert_eq!(files(), before);
    std::fs::write(&ledger, whole).unwrap();
    site.holds(&["1@d", "2@d"]);
    // A newer version's is left alone.
    site.ledger_sql("UPDATE ledger_version SET version = 99");
    let line = site.says(2, &["ban", "3@d"]);
    assert!(line.contains("it was written by a newer version of Ringfence"), "{line}");
    site.ledger_sql("UPDATE ledger_version SET version = 2");
    site.holds(&["1@d", "2@d"]);
}

fn of_many_that_find_the_ledger_damaged_one_moves_it(matcher: &'static str) {
    let site = site_by(matcher);
    for round in 0..3 {
        site.does(&["ban", "0@d"]);
        std::fs::write(site.ledger(), "garbage ".repeat(1000)).unwrap();
        let calls: Vec<Child> = (0..10)
            .map(|n| {
                let mut command = site.command(&["ban", &format!("{n}@d")]);
                command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        let mut loud = 0;
        for call in calls {
            let output = call.wait_with_output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{stderr}");
            assert!(stderr.is_empty() || stderr.contains("the ledger is lost"), "{stderr}");
            loud += usize::from(!stderr.is_empty());
        }
        assert_eq!(loud, 1, "round {round}");
        let moved: Vec<_> = std::fs::read_dir(site.world.path("state"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_string_lossy().contains(".damaged-"))
            .collect();
        assert_eq!(moved.len(), 1, "{moved:?}");
        std::fs::remove_file(&moved[0]).unwrap();
        site.agree();
        assert_eq!(site.blocked().len(), 10);
    }
}

fn no_block_lasts_longer_because_the_clock_was_set_back(matcher: &'static str) {
    let site = site_by(matcher);
    site.does(&["ban", "--for=30m", "1@d"]);
    site.does(&["ban", "--for=1h", "--jail=sip", "2@d"]);
    // As if written tomorrow.
    site.ledger_sql(
        "UPDATE blocks SET since = since + 86400, until = until + 86400, changed = changed + 86400",
    );
    let last_seconds =
        || -> Vec<i64> { site.list().iter().map(|entry| second(&entry["until"]) - now()).collect() };
    site.does(&["expire"]);
    let mut spans = last_seconds();
    spans.sort_unstable();
    assert!(spans[0] <= 1800 && spans[0] > 1700 && spans[1] <= 3600 && spans[1] > 3500, "{spans:?}");
    site.holds(&["1@d", "2@d"]);
    // One that begins in the future begins now.
    let tomorrow = format!("--at={}", now() + 86_400);
    site.does(&["ban", &tomorrow, "--for=10m", "3@d"]);
    assert!(last_seconds().iter().any(|span| (500..=600).contains(span)));
    // A jail that stopped tomorrow starts all the same, and what it flushed tomorrow is forgotten.
    site.does(&["stop", "--jail=sip"]);
    site.ledger_sql("UPDATE blocks SET changed = changed + 86400");
    site.does(&["start", "--jail=sip"]);
    site.holds(&["1@d", "2@d", "3@d"]);
    // Nor is anybody suspended longer than an alarm suspends.
    site.ledger_sql("INSERT INTO suspensions VALUES (unixepoch() + 86400)");
    site.does(&["ban", "--jail=sip", "4@d"]);
    site.holds(&["1@d", "2@d", "3@d", "4@d"]);
}

/// Kills a call at a random moment within so long; whether it was still at work.
fn kill(site: &Blocker, args: &[&str], within: Duration) -> bool {
    let moment = within.mul_f64(fastrand::f64());
    let mut command = site.world.block_command(args);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    // It is the process itself: killed, it is dead.
    let mut child = site.host.within(move || command.spawn().unwrap());
    let start = Instant::now();
    while start.elapsed() < moment {
        std::thread::sleep(moment.saturating_sub(start.elapsed()).min(Duration::from_millis(1)));
    }
    child.kill().unwrap();
    !child.wait().unwrap().success()
}

fn a_killed_call_is_completed_by_the_next(matcher: &'static str) {
    let site = site_by(matcher);
    let ids: Vec<String> = (0..12)
        .map(|n| {
            let source = ["", ",203.0.113.66", ",2001:db8:66::bad"][n % 3];
            format!("{n}@{}{source}", ["a", "b", "c"][n % 4 % 3])
        })
        .collect();
    for id in &ids[..6] {
        site.does(&["ban", id]);
    }
    let took = {
        let mut command = site.world.block_command(&["ban", &ids[0]]);
        site.host.within(move || call(&mut command)).took
    };
    let (mut killed, mut round) = (0, 0);
    while killed < 60 {
        round += 1;
        assert!(round < 1_000, "only {killed} killed, a call takes {took:?}");
        let id = fastrand::choice(&ids).unwrap();
        let blocked = site.blocked();
        let verb = if blocked.contains(id) { "unban" } else { "ban" };
        killed += u32::from(kill(&site, &[verb, id], took.mul_f64(2.0)));
        match round % 3 {
            0 => site.does(&["expire"]),
            1 => site.does(&["ban", id]),
            _ => site.does(&["unban", "--jail=none", id]),
        }
        site.agree();
        let mut others = site.blocked();
        let mut expected = blocked;
        others.remove(id);
        expected.remove(id);
        assert_eq!(others, expected, "all others are as they were");
    }
    println!("{killed} of {round} killed, a call takes {took:?}");
    // Who only reads leaves SQLite's log for who writes.
    site.does(&["expire"]);
    let mut names: Vec<_> = std::fs::read_dir(site.world.path("state"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["drops", "ledger.db", "ledger.db.lock"]);
}

fn twenty_at_once_are_all_done(matcher: &'static str) {
    let site = site_by(matcher);
    for n in 0..10 {
        site.does(&["ban", &format!("{n}@old")]);
    }
    let calls: Vec<(String, Child)> = (0..20)
        .map(|n| {
            let args = if n % 2 == 0 {
                ["ban".to_owned(), format!("{n}@new{}", n % 3)]
            } else {
                ["unban".to_owned(), format!("{}@old", n / 2)]
            };
            let mut command = site.command(&[&args[0], &args[1]]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            (args.join(" "), command.spawn().unwrap())
        })
        .collect();
    for (args, call) in calls {
        let output = call.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{args}: {said}");
    }
    site.agree();
    let expected = (0..20).step_by(2).map(|n| format!("{n}@new{}", n % 3));
    assert_eq!(site.blocked(), expected.collect());
}

#[test]
fn broken_settings_name_file_and_key() {
    let site = site();
    site.does(&["ban", "1@d"]);
    for (wrong, key) in [
        ("[block]\nmax = 0\n", "max"),
        ("[block]\nverfy = \"none\"\n", "verfy"),
        ("[block]\nfor = \"soon\"\n", "for"),
        ("[block]\nlog-prefix = \"a\\nb\"\n", "log-prefix"),
        ("[ledger]\nurl = \"mysql://x:hunter2@y/z\"\n", "url"),
        ("[firewall]\nsip-ports = [\"5060 -j ACCEPT\"]\n", "sip-ports"),
        ("[block\n", "unclosed table"),
    ] {
        site.configure(wrong);
        for args in [["ban", "2@d"].as_slice(), &["unban", "1@d"], &["expire"], &["list"], &["restore"]] {
            let call = site.block(args);
            assert_eq!((call.code, call.stdout.as_str()), (2, ""), "{wrong}");
            let file = site.world.config().display().to_string();
            assert!(call.stderr.contains(&file) && call.stderr.contains(key), "{}", call.stderr);
            assert!(!call.stderr.contains("hunter2"), "{}", call.stderr);
        }
    }
    // What is wrong with other tools' settings is their concern.
    site.configure(&format!("{UNVERIFIED}[lists.x]\nkind = \"blokc\"\n"));
    site.holds(&["1@d"]);
    site.does(&["ban", "2@d"]);
    site.holds(&["1@d", "2@d"]);
}
