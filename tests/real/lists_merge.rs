//! `ringfence-lists merge`, beside `iprange`, and its command line.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use fastrand::Rng;

use crate::support::{Call, World, call, run};

/// A call with this on standard input.
fn merge(world: &World, input: &[u8], args: &[&str]) -> Call {
    let path = world.path("stdin");
    std::fs::write(&path, input).unwrap();
    let mut command = world.lists_command(&[&["merge"], args].concat());
    call(command.stdin(File::open(path).unwrap()))
}

/// What it prints for this on standard input, without complaint.
#[track_caller]
fn merged(input: &[u8]) -> String {
    let call = merge(&World::empty(), input, &[]);
    assert_eq!((call.code, call.stderr.as_str()), (0, ""));
    call.stdout
}

/// Addresses, networks, ranges, blank lines and comments, where `address` draws from.
fn list(random: &mut Rng, lines: usize, address: impl Fn(&mut Rng) -> u32) -> String {
    (0..lines).fold(String::new(), |mut list, _| {
        let first = address(random);
        let at = Ipv4Addr::from(first);
        match random.u8(..10) {
            0..5 => writeln!(list, "{at}"),
            5 | 6 => writeln!(list, "{at}/{}", 32 - random.u8(..12)),
            7 => writeln!(list, "{at}-{}", Ipv4Addr::from(first.saturating_add(random.u32(..5_000)))),
            8 => writeln!(list, "{at} # seen twice"),
            _ => writeln!(list, "\n# {at}\n{at}"),
        }
        .unwrap();
        list
    })
}

#[test]
fn random_lists_merge_as_with_iprange() {
    let world = World::empty();
    let mut random = Rng::with_seed(20);
    for (number, lines) in [1, 2, 3, 10, 100, 1_000, 30_000].into_iter().cycle().take(56).enumerate() {
        let list = match number / 7 % 4 {
            0 => list(&mut random, lines, |random| random.u32(..)),
            // Much overlaps and touches.
            1 => list(&mut random, lines, |random| 0xcb00_7100 + random.u32(..2_000)),
            2 => list(&mut random, lines, |random| random.u32(..300)),
            _ => list(&mut random, lines, |random| u32::MAX - random.u32(..300)),
        };
        let path = world.path("list");
        std::fs::write(&path, &list).unwrap();
        let ours = world.lists(&["merge", path.to_str().unwrap()]);
        assert_eq!((ours.code, ours.stderr.as_str()), (0, ""));
        let theirs = run(Command::new("iprange").arg(&path));
        assert!(ours.stdout == theirs, "list {number}:\n{list}\nours:\n{}\niprange:\n{theirs}", ours.stdout);
    }
}

#[test]
fn several_files_and_standard_input_are_one_list() {
    let world = World::empty();
    let file = |name: &str, text: &str| {
        let path = world.path(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (one, two) = (file("one", "203.0.113.0/25\n2001:db8::1\n"), file("two", "192.0.2.1\n"));
    let call = merge(&world, b"203.0.113.128/25\n", &[&one, "-", &two]);
    assert_eq!(
        (call.code, call.stdout.as_str(), call.stderr.as_str()),
        (0, "192.0.2.1\n203.0.113.0/24\n2001:db8::1\n", "")
    );
    let call = merge(&world, b"203.0.113.128/25\n", &[&one, &two]);
    assert_eq!((call.code, call.stdout.as_str()), (0, "192.0.2.1\n203.0.113.0/25\n2001:db8::1\n"));
}

#[test]
fn every_form_and_both_families() {
    for (input, output) in [
        ("", ""),
        ("\n# nothing\n; at all", ""),
        ("203.0.113.7", "203.0.113.7\n"),
        ("\u{feff}203.0.113.7\r\n\r\n203.0.113.6 ; the neighbour\r\n", "203.0.113.6/31\n"),
        ("203.0.113.77/24\n", "203.0.113.0/24\n"),
        ("10.0.0.1-10.0.0.4\n10.0.0.9 - 10.0.0.9\n", "10.0.0.1\n10.0.0.2/31\n10.0.0.4\n10.0.0.9\n"),
        ("0.0.0.0/1\n128.0.0.0/1\n::/1\n8000::/1\n", "0.0.0.0/0\n::/0\n"),
        ("2001:DB8:0:0::0-2001:db8::ff\n2001:db8::100/120\n", "2001:db8::/119\n"),
        ("::ffff:203.0.113.7\n::ffff:203.0.113.6/128\n", "203.0.113.6/31\n"),
        ("2001:db8::1\n203.0.113.7\n", "203.0.113.7\n2001:db8::1\n"),
    ] {
        assert_eq!(merged(input.as_bytes()), output, "{input:?}");
    }
}

#[test]
fn lines_that_cannot_be_read_are_named_and_the_others_printed() {
    let world = World::empty();
    let input =
        b"\xef\xbb\xbf203.0.113.7\n10.1\n\n# 10.2\n010.0.0.1 # octal\nlocalhost\n\x1b[31m\xff\n203.0.113.6\n";
    let call = merge(&world, input, &[]);
    assert_eq!((call.code, call.stdout.as_str()), (1, "203.0.113.6/31\n"));
    let wanted = [
        "ringfence-lists: (standard input):2: \"10.1\" is no address, network or range",
        "ringfence-lists: (standard input):5: \"010.0.0.1\" is no address, network or range",
        "ringfence-lists: (standard input):6: \"localhost\" is no address, network or range",
        "ringfence-lists: (standard input):7: ",
        "ringfence-lists: 4 lines left out",
    ];
    let lines: Vec<&str> = call.stderr.lines().collect();
    assert_eq!(lines.len(), wanted.len(), "{}", call.stderr);
    for (line, wanted) in lines.into_iter().zip(wanted) {
        assert!(line.starts_with(wanted), "{line}");
    }
    assert!(!call.stderr.contains('\x1b'), "what a list says must not reach the terminal as it is");

    let call = merge(&world, "x\n".repeat(1_000_000).as_bytes(), &[]);
    assert_eq!((call.code, call.stdout.as_str(), call.stderr.lines().count()), (1, "", 11));
    assert!(call.stderr.ends_with("ringfence-lists: 1000000 lines left out\n"), "{}", call.stderr);
    let call = merge(&world, "7".repeat(1_000_000).as_bytes(), &[]);
    assert!(call.code == 1 && call.stderr.len() < 300, "{}", call.stderr);
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_and_nothing_is_printed() {
    let world = World::empty();
    let missing = world.path("missing").display().to_string();
    for (path, why) in [
        (missing.as_str(), "No such file or directory (os error 2)"),
        (world.dir().to_str().unwrap(), "Is a directory (os error 21)"),
    ] {
        let call = merge(&world, b"203.0.113.7\n", &["-", path]);
        let wanted = format!("ringfence-lists: cannot read {path}: {why}\n");
        assert_eq!((call.code, call.stdout.as_str(), call.stderr), (2, "", wanted));
    }
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let world = World::empty();
    let path = world.path("list");
    let list =
        (0..200_000_u32).fold(String::new(), |list, n| list + &format!("{}\n", Ipv4Addr::from(n << 8)));
    std::fs::write(&path, list).unwrap();
    let mut child = world
        .lists_command(&["merge", path.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((first.as_str(), stderr.as_str()), ("0.0.0.0\n", ""));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_full_disk_is_an_error() {
    let world = World::empty();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let path = world.path("list");
    std::fs::write(&path, "203.0.113.7\n").unwrap();
    let mut command = world.lists_command(&["merge", path.to_str().unwrap()]);
    let output = command.stdout(full).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr.starts_with("ringfence-lists: ") && stderr.contains("No space left"), "{stderr}");
}
