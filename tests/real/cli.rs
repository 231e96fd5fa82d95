//! The command line: arguments, exit status, help.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::support::{World, project, shipped_settings};

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

#[test]
fn the_manual_pages_know_every_option_and_setting() {
    let world = World::empty();
    let page = |tool: &str| std::fs::read_to_string(project(&format!("packaging/man/{tool}.8"))).unwrap();
    let [ignore, lists, block, firewall] =
        ["ignore", "lists", "block", "firewall"].map(|tool| page(&format!("ringfence-{tool}")));
    let knows = |page: &str, word: &str| assert!(page.contains(&word.replace('-', "\\-")), "{word}");
    options(&world.call(&["--help"]).stdout).for_each(|option| knows(&ignore, option));
    let help = world.lists(&["--help"]).stdout;
    options(&help).for_each(|option| knows(&lists, option));
    for command in ["refresh", "fetch", "load", "show", "diff", "merge"] {
        assert!(help.contains(&format!("\n  {command} ")), "{command}");
        knows(&lists, command);
        options(&world.lists(&[command, "--help"]).stdout).for_each(|option| knows(&lists, option));
    }
    let help = world.block(&["--help"]).stdout;
    options(&help).for_each(|option| knows(&block, option));
    for command in ["ban", "unban", "list", "expire", "restore", "start", "stop", "flush"] {
        assert!(help.contains(&format!("\n  {command} ")), "{command}");
        knows(&block, command);
        options(&world.block(&[command, "--help"]).stdout).for_each(|option| knows(&block, option));
    }
    let help = world.firewall(&["--help"]).stdout;
    options(&help).for_each(|option| knows(&firewall, option));
    for command in ["plan", "apply", "confirm", "remove", "restore", "verify"] {
        assert!(help.contains(&format!("\n  {command} ")), "{command}");
        knows(&firewall, command);
        options(&world.firewall(&[command, "--help"]).stdout).for_each(|option| knows(&firewall, option));
    }
    let mut page = &ignore;
    for (_, key) in shipped_settings() {
        match key.strip_prefix('[') {
            Some(section) if section.starts_with("lists") || section.starts_with("fusionpbx") => {
                page = &lists;
            }
            Some("block]" | "ledger]" | "fail2ban]") => page = &block,
            Some("firewall]") => page = &firewall,
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
