//! The command line: arguments, exit status, help.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::support::World;

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
