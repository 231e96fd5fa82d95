//! The command line: arguments, exit status, help.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use crate::support::{World, call, project, shipped_settings};

#[test]
fn what_is_no_address_may_be_banned_silently() {
    let world = World::with_databases();
    let long = "1".repeat(65_536);
    for text in [
        "",
        " ",
        "$(touch x)",
        "`id`",
        ";id",
        "10.1",
        "010.0.0.1",
        "1.2.3.4.5",
        "fe80::1%eth0",
        "1.2.3.4/32",
        "-rf",
        "--",
        "-",
        "localhost",
        "o'neil",
        "101@a.example.com",
        "1.2.3.4\n5.6.7.8",
        "\u{1}\u{7f}",
        &long,
    ] {
        // "--" alone is no argument at all.
        let args: &[&str] = if text == "--" { &["--", "--"] } else { &[text] };
        let call = world.call(args);
        assert_eq!(
            (call.code, call.stdout.as_str(), call.stderr.as_str()),
            (1, "", ""),
            "{:?}",
            &text[..text.len().min(50)]
        );
    }
    let latin1 = OsStr::from_bytes(b"1.2.3.4\xff");
    assert_eq!(world.command(&[]).arg(latin1).output().unwrap().status.code(), Some(1));
    assert!(!world.path("x").exists());
    assert_eq!(world.last_reason(), "not-an-address");
}

#[test]
fn wrong_usage_is_two() {
    let world = World::empty();
    for args in [&[][..], &["1.2.3.4", "5.6.7.8"], &["--explian", "1.2.3.4"], &["--config"]] {
        let call = world.call(args);
        assert_eq!((call.code, call.stdout.as_str()), (2, ""), "{args:?}");
        assert!(call.stderr.starts_with("error: "), "{}", call.stderr);
    }
}

#[test]
fn help_and_version() {
    let world = World::empty();
    let version = world.call(&["--version"]);
    assert_eq!(
        (version.code, version.stdout),
        (0, format!("ringfence-ignore {}\n", env!("CARGO_PKG_VERSION")))
    );
    let (short, long) = (world.call(&["-h"]), world.call(&["--help"]));
    assert_eq!((short.code, long.code), (0, 0));
    assert!(short.stdout.lines().count() < long.stdout.lines().count());
    assert!(long.stdout.contains("Which way it fails:"));
    for line in long.stdout.lines().chain(short.stdout.lines()) {
        assert!(line.len() <= 100, "{line}");
    }
}

/// The words of help that are options.
fn options(help: &str) -> impl Iterator<Item = &str> {
    help.split_whitespace()
        .filter(|word| word.starts_with("--"))
        .map(|word| word.trim_matches(&['`', '.', ',', '\''][..]))
}

/// Its manual page, a call of it, and its commands.
type Tool<'a> = (&'a str, fn(&World, &[&str]) -> Command, &'a [&'a str]);

#[test]
fn the_manual_pages_know_every_option_and_setting() {
    let world = World::empty();
    let page = |tool: &str| std::fs::read_to_string(project(&format!("packaging/man/{tool}.8"))).unwrap();
    let [ignore, lists, block, ban, allow, firewall, events] =
        ["ignore", "lists", "block", "ban", "allow", "firewall", "events"]
            .map(|tool| page(&format!("ringfence-{tool}")));
    let admin = page("ringfence");
    let knows = |page: &str, word: &str| assert!(page.contains(&word.replace('-', "\\-")), "{word}");
    options(&world.call(&["--help"]).stdout).for_each(|option| knows(&ignore, option));
    let tools: [Tool<'_>; 7] = [
        (&lists, World::lists_command, &["refresh", "fetch", "load", "show", "diff", "merge"]),
        (
            &block,
            World::block_command,
            &["ban", "unban", "list", "expire", "restore", "start", "stop", "flush"],
        ),
        (&ban, World::ban_command, &["start", "stop", "flush", "ban", "unban", "list", "sync", "prepare"]),
        (&allow, World::allow_command, &["add", "remove", "list", "flush", "stop", "sync"]),
        (&firewall, World::firewall_command, &["plan", "apply", "confirm", "remove", "restore", "verify"]),
        (&events, World::events_command, &["run", "tail"]),
        (
            &admin,
            World::admin_command,
            &[
                "why",
                "offenders",
                "status",
                "doctor",
                "release",
                "test",
                "pause",
                "report",
                "validate",
                "completions",
            ],
        ),
    ];
    for (page, tool, commands) in tools {
        let help = |args: &[&str]| call(&mut tool(&world, args)).stdout;
        let whole = help(&["--help"]);
        options(&whole).for_each(|option| knows(page, option));
        for command in commands {
            assert!(whole.contains(&format!("\n  {command} ")), "{command}");
            knows(page, command);
            options(&help(&[command, "--help"])).for_each(|option| knows(page, option));
        }
    }
    let mut page = &ignore;
    for (_, key) in shipped_settings() {
        match key.strip_prefix('[') {
            Some(section) if section.starts_with("lists") || section.starts_with("fusionpbx") => {
                page = &lists;
            }
            Some("block]" | "ledger]") => page = &block,
            Some("fail2ban]") => page = &ban,
            Some("firewall]") => page = &firewall,
            Some("events]") => page = &events,
            Some(_) => page = &ignore,
            None => knows(page, &key),
        }
    }
}

#[test]
fn every_spelling_of_an_address() {
    let world = World::with_databases();
    world.register("sofia_reg_internal.db", "203.0.113.20", 3600);
    world.register("sofia_reg_internal-ipv6.db", "2001:db8:66::11", 3600);
    for spelling in [
        "203.0.113.20",
        "::ffff:203.0.113.20",
        "::FFFF:cb00:7114",
        "2001:db8:66::11",
        "2001:0DB8:66:0:0::0011",
    ] {
        assert!(world.keeps(spelling), "{spelling}");
    }
    for spelling in ["203.0.113.21", "::ffff:203.0.113.21", "2001:db8:66::12", "::203.0.113.20"] {
        assert!(!world.keeps(spelling), "{spelling}");
    }
}
