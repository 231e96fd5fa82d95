//! The kernel program and its model, on the same messages.

use aya::EbpfLoader;
use aya::maps::{PerCpuArray, PerCpuValues};
use aya::programs::{TestRun, TestRunOptions, TestRunResult};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config as Runs, TestRunner};

use super::model;
use super::program::{BLOCKED as BLOCKED_MAP, Blocked, Entry, Program, Settings, key};
use crate::account::Offender;
use crate::config::Config;
use crate::firewall::Version;

mod attached;
mod frames;
mod messages;

use frames::{Frame, SOURCE_V4, SOURCE_V6};
use messages::{CASES, filled, register};

const SECRET: [u8; 16] = *b"not known to all";

/// The verdicts of the program.
const PASS: u32 = u32::MAX;
const DROP: u32 = 2;

/// More instructions than these are not followed by the verifier. It takes a million; what is more than this was not meant.
const VERIFIED: u32 = 60_000;

/// The program in the kernel, which reads no packets but ours.
struct Kernel {
    program: Program,
    blocked: Blocked,
}

impl Kernel {
    fn new() -> Self {
        let mut program =
            Program::load(&mut EbpfLoader::new()).expect("a program in the kernel; run the tests as root");
        let settings = Settings::new(SECRET, &Config::default().firewall.sip_ports);
        program.settings.set(0, settings.to_bytes(), 0).unwrap();
        let blocked = program.ebpf.take_map(BLOCKED_MAP).unwrap().try_into().unwrap();
        Self { program, blocked }
    }

    /// Blocks an offender until then, in nanoseconds since boot.
    fn block_until(&mut self, offender: &str, until: u64) {
        let key = key(&SECRET, &offender.parse().unwrap());
        self.blocked.insert(key, <[u8; 16]>::from(Entry { until, hits: 0 }), 0).unwrap();
    }

    fn block(&mut self, offender: &str) {
        self.block_until(offender, u64::MAX);
    }

    fn hits(&self, offender: &str) -> u64 {
        let value = self.blocked.get(&key(&SECRET, &offender.parse().unwrap()), 0).unwrap();
        Entry::from(value).hits
    }

    fn run(&mut self, frame: &[u8], repeat: u32) -> TestRunResult {
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
        self.program.classifier().test_run(options).unwrap()
    }

    #[track_caller]
    fn drops(&mut self, frame: &[u8]) -> bool {
        match self.run(frame, 1).return_value {
            DROP => true,
            PASS => false,
            other => panic!("{other}"),
        }
    }
}

const BLOCKED: &str = "999@a.example.com";

/// What a rule of the strings matcher finds.
fn strings_drop(message: &[u8]) -> bool {
    let holds = |message: &[u8], pattern: &str| {
        message.windows(pattern.len()).any(|window| window == pattern.as_bytes())
    };
    let (user, domain) = BLOCKED.split_once('@').unwrap();
    holds(message, &format!("username=\"{user}\""))
        && holds(&message.to_ascii_lowercase(), &format!("realm=\"{domain}\""))
}

fn model_drops(message: &[u8], cut: bool, blocked: impl Fn(&[u8], &[u8]) -> bool) -> bool {
    model::accounts(message, cut).iter().any(|(user, domain)| blocked(user, domain))
}

fn is_blocked(user: &[u8], domain: &[u8]) -> bool {
    (user, domain) == (b"999", b"a.example.com")
}

#[test]
fn each_message_is_read_as_the_table_says_by_both() {
    let mut kernel = Kernel::new();
    kernel.block(BLOCKED);
    let mut dropped = 0;
    for case in CASES {
        let message = filled(case.message);
        for frame in [Frame::v4(), Frame::v6()] {
            assert_eq!(kernel.drops(&frame.with(&message)), case.bpf, "in the kernel: {}", case.what);
            dropped += u64::from(case.bpf);
        }
        assert_eq!(model_drops(&message, false, is_blocked), case.bpf, "in the model: {}", case.what);
        assert_eq!(strings_drop(&message), case.strings, "strings: {}", case.what);
    }
    assert_eq!(kernel.hits(BLOCKED), dropped);
}

#[test]
fn every_known_layout_is_read() {
    let mut kernel = Kernel::new();
    kernel.block(BLOCKED);
    let text = include_str!("../../../tests/data/sip/authorization.txt");
    let (_, layouts) = text.split_once("\n\n").unwrap();
    for layout in layouts.split("\n\n") {
        for (account, expected) in
            [(BLOCKED, true), ("998@a.example.com", false), ("999@b.example.com", false)]
        {
            let (user, realm) = account.split_once('@').unwrap();
            let header = layout.split_once('\n').unwrap().1.trim_end().replace('\n', "\r\n");
            let header = header.replace("{user}", user).replace("{realm}", realm);
            for header in [format!("Proxy-{header}"), header] {
                let message = register(&header);
                assert_eq!(kernel.drops(&Frame::v4().with(message.as_bytes())), expected, "{header}");
                assert_eq!(model_drops(message.as_bytes(), false, is_blocked), expected, "{header}");
            }
        }
    }
}

#[test]
fn every_way_to_wrap_a_packet_is_as_the_table_says() {
    let mut kernel = Kernel::new();
    kernel.block(BLOCKED);
    let message = register("Authorization: Digest username=\"999\", realm=\"a.example.com\", nonce=\"5f0c\"");
    for (what, frame, expected) in frames::cases() {
        assert_eq!(kernel.drops(&frame.with(message.as_bytes())), expected, "{what}");
    }
    // Several datagrams in one packet, of so many bytes each.
    let mut context = [0; 192];
    for (bytes, expected) in [(0_u32, true), (1000, false)] {
        context[176..180].copy_from_slice(&bytes.to_ne_bytes());
        let frame = Frame::v4().with(message.as_bytes());
        let options =
            TestRunOptions { data_in: Some(&frame), ctx_in: Some(&context), ..TestRunOptions::new() };
        let result = kernel.program.classifier().test_run(options).unwrap();
        assert_eq!(result.return_value == DROP, expected, "{bytes}");
    }
    // What is cut off within its headers.
    for frame in [Frame::v4(), Frame::v6()] {
        let bytes = frame.with(message.as_bytes());
        // The kernel runs it with nothing shorter.
        for length in 55..62 {
            assert!(!kernel.drops(&bytes[..length]), "{length}");
        }
    }
}

#[test]
fn nobody_is_blocked_in_a_pause_and_the_kernel_ends_it() {
    let mut kernel = Kernel::new();
    kernel.block(BLOCKED);
    let message = register("Authorization: Digest username=\"999\", realm=\"a.example.com\"").into_bytes();
    let frame = Frame::v4().with(&message);
    for (paused, dropped) in [(0, true), (u64::MAX, false), (1, true)] {
        let mut settings = Settings::new(SECRET, &Config::default().firewall.sip_ports);
        settings.paused = paused;
        kernel.program.settings.set(0, settings.to_bytes(), 0).unwrap();
        assert_eq!(kernel.drops(&frame), dropped, "{paused}");
    }
    assert_eq!(kernel.hits(BLOCKED), 2);
}

#[test]
fn a_block_is_for_its_source_and_until_its_deadline() {
    let mut kernel = Kernel::new();
    let message = register("Authorization: Digest username=\"999\", realm=\"a.example.com\"").into_bytes();
    let (v4, v6) = (Frame::v4().with(&message), Frame::v6().with(&message));
    let now = super::boot_clock();
    for (offender, until, expected) in [
        (format!("{BLOCKED},{SOURCE_V4}"), u64::MAX, [true, false]),
        (format!("{BLOCKED},{SOURCE_V6}"), u64::MAX, [false, true]),
        (format!("{BLOCKED},203.0.113.65"), u64::MAX, [false, false]),
        (BLOCKED.to_owned(), now + 3_600_000_000_000, [true, true]),
        (BLOCKED.to_owned(), now, [false, false]),
        (BLOCKED.to_owned(), 0, [false, false]),
    ] {
        kernel.block_until(&offender, until);
        assert_eq!([kernel.drops(&v4), kernel.drops(&v6)], expected, "{offender} {until}");
        assert_eq!(kernel.hits(&offender), expected.iter().map(|dropped| u64::from(*dropped)).sum::<u64>());
        kernel.block_until(&offender, 0);
    }
    // In a tenth of a second, with nobody to end it.
    let until = super::boot_clock() + 100_000_000;
    kernel.block_until(BLOCKED, until);
    loop {
        let before = super::boot_clock();
        if !kernel.drops(&v4) {
            break;
        }
        assert!(before < until);
    }
    assert!(super::boot_clock() >= until);
}

/// `struct reading`, in bytes.
const READING: usize = 2224;

#[test]
fn where_another_packet_is_being_read_it_passes() {
    let mut kernel = Kernel::new();
    kernel.block(BLOCKED);
    let message = register("Authorization: Digest username=\"999\", realm=\"a.example.com\"");
    let frame = Frame::v4().with(message.as_bytes());
    let scratch = kernel.program.ebpf.take_map("scratch").unwrap();
    let mut scratch: PerCpuArray<_, [u8; READING]> = scratch.try_into().unwrap();
    for (busy, expected) in [(1, false), (0, true)] {
        let mut readings = scratch.get(&0, 0).unwrap().to_vec();
        for reading in &mut readings {
            reading[0] = busy;
        }
        scratch.set(0, PerCpuValues::try_from(readings).unwrap(), 0).unwrap();
        assert_eq!(kernel.drops(&frame), expected);
    }
    assert!(scratch.get(&0, 0).unwrap().iter().all(|reading| reading[0] == 0));
}

#[test]
fn no_source_stands_for_everywhere() {
    let mut kernel = Kernel::new();
    let message = register("Authorization: Digest username=\"999\", realm=\"a.example.com\"");
    for source in ["::", "0.0.0.0"] {
        let offender = Offender { account: BLOCKED.parse().unwrap(), source: Some(source.parse().unwrap()) };
        let entry = Entry { until: u64::MAX, hits: 0 };
        kernel.blocked.insert(key(&SECRET, &offender), <[u8; 16]>::from(entry), 0).unwrap();
        for frame in [Frame::v4(), Frame::v6()] {
            assert!(!kernel.drops(&frame.with(message.as_bytes())), "{source}");
        }
    }
}

#[test]
fn the_longest_account_is_found_and_what_is_longer_passes() {
    let mut kernel = Kernel::new();
    let domain = |length: usize| "d.".repeat(length / 2) + &"x".repeat(length % 2 + 2);
    let (user, realm) = ("u".repeat(128), domain(251));
    assert_eq!(realm.len(), 253);
    kernel.block(&format!("{user}@{realm}"));
    let mut drops = |user: &str, realm: &str| {
        let message = register(&format!("Authorization: Digest username=\"{user}\", realm=\"{realm}\""));
        kernel.drops(&Frame::v4().with(message.as_bytes()))
    };
    assert!(drops(&user, &realm));
    assert!(drops(&user, &realm.to_uppercase()));
    for user in [&format!("{user}u"), &user[1..], &"u".repeat(129), &"u".repeat(1000)] {
        assert!(!drops(user, &realm), "{user}");
    }
    for realm in [&format!("{realm}x"), &realm[1..], "", &"d".repeat(500)] {
        assert!(!drops(&user, realm), "{realm}");
    }
}

/// A message can take no more than this, in nanoseconds: ten times what it takes here, and a string rule more at a hundred blocks.
const HARDEST: u128 = 100_000;

const RUNS: usize = 20;

#[test]
fn hostile_messages_pass_in_bounded_time() {
    let mut kernel = Kernel::new();
    kernel.block(BLOCKED);
    let credentials = "Authorization: Digest username=\"999\", realm=\"a.example.com\"";
    for (what, start, fill) in [
        ("commas", "REGISTER x\nAuthorization: Digest ", ","),
        ("quotes", "REGISTER x\nAuthorization: Digest ", "\""),
        ("escapes", "REGISTER x\nAuthorization: Digest x=\"", "\\a"),
        ("backslashes", "REGISTER x\nAuthorization: Digest x=\"", "\\"),
        ("blanks", "REGISTER x\nAuthorization: Digest ", " "),
        ("folded lines", "REGISTER x\nAuthorization: Digest ", "\n "),
        ("a long value", "REGISTER x\nAuthorization: Digest realm=", "a"),
        ("a long value in quotes", "REGISTER x\nAuthorization: Digest realm=\"", "a"),
        ("parameters", "REGISTER x\nAuthorization: Digest ", "a=\"b\","),
        ("usernames", "REGISTER x\nAuthorization: Digest ", "username=\"b\","),
        ("headers without end", "REGISTER x\n", "a:b\n"),
        ("headers of interest", "REGISTER x\n", "f:\n"),
        ("almost headers of interest", "REGISTER x\n", "f\n"),
        ("blanks before a colon", "REGISTER x\nf", " "),
        ("empty lines", "", "\r\n"),
        ("no lines", "R", "R"),
        ("zeros", "", "\0"),
        ("escapes in a user", "REGISTER x\nf:sip:", "%41"),
        ("quotes in From", "REGISTER x\nf:", "\""),
        ("folded lines in From", "REGISTER x\nf:", "\n\t"),
    ] {
        for end in ["", "@a\r\n\r\n", &format!("\r\n{credentials}\r\n\r\n")] {
            for size in [1000, 2048, 3000] {
                let message =
                    format!("{start}{}{end}", fill.repeat((size - start.len() - end.len()) / fill.len()));
                let frame = Frame::v4().with(message.as_bytes());
                let expected = model_drops(message.as_bytes(), false, is_blocked);
                assert_eq!(kernel.drops(&frame), expected, "{what}, {size}");
                // Of several, one is not disturbed by others on this CPU.
                let quick = (0..RUNS).any(|_| kernel.run(&frame, 50).duration.as_nanos() < HARDEST);
                assert!(quick, "{what}, {size}");
            }
        }
    }
}

#[test]
fn the_verifier_has_little_to_do() {
    let mut kernel = Kernel::new();
    let info = kernel.program.classifier().info().unwrap();
    let verified = info.verified_instruction_count().expect("the kernel says it since 5.16");
    println!("{verified} instructions verified, {:?} bytes translated", info.size_translated());
    assert!(verified <= VERIFIED, "{verified}");
}

/// Some are blocked, some are not.
const USERS: [(&str, bool); 6] =
    [("999", true), ("101", false), ("a b", true), ("o'neil", false), ("50%", true), ("Alice", true)];
const DOMAINS: [(&str, bool); 4] =
    [("a.example.com", true), ("b.example", false), ("[2001:db8::1]", true), ("198.51.100.1", true)];

fn of_the_blocked(user: &[u8], domain: &[u8]) -> bool {
    let is = |all: &[(&str, bool)], name: &[u8]| {
        all.iter().any(|(other, blocked)| *blocked && other.as_bytes() == name)
    };
    is(&USERS, user) && is(&DOMAINS, domain)
}

/// What messages are made of.
fn pieces() -> impl Strategy<Value = String> {
    const PIECES: [&str; 54] = [
        "REGISTER sip:a.example.com SIP/2.0\r\n",
        "SUBSCRIBE",
        "INVITE sip:a.example.com SIP/2.0\r\n",
        "SIP/2.0 200 OK\r\n",
        "\r\n",
        "\n",
        "\r",
        "\r\n ",
        "\n\t",
        "\r\n\r\n",
        " ",
        "\t",
        "  ",
        "\r\nAuthorization:",
        "\nauthorization :",
        "\r\nProxy-Authorization: ",
        "\nPROXY-AUTHORIZATION\t:",
        "\r\nWWW-Authenticate: ",
        "\r\nFrom: ",
        "\nf:",
        "\r\nF : ",
        "\nfrom",
        "\r\nTo: ",
        "Digest ",
        "digest\r\n ",
        "DIGEST",
        "Basic ",
        "username=\"",
        "username=",
        "USERNAME = \"",
        "Username =",
        "realm=\"",
        "Realm=",
        "realm = \"",
        "nonce=\"x, username=\\\"y\\\"\"",
        "qop=auth",
        ",",
        ", ",
        "=",
        "\"",
        "\\",
        "\\\"",
        ":",
        ";tag=1",
        "<",
        ">",
        "sip:",
        "SIPS:",
        "@",
        ":secret@",
        "%39%39%39",
        "%3",
        "%",
        "x",
    ];
    prop_oneof![
        6 => select(&PIECES[..]).prop_map(str::to_owned),
        2 => select(&USERS[..]).prop_map(|(user, _)| user.to_owned()),
        2 => select(&DOMAINS[..]).prop_map(|(domain, _)| domain.to_owned()),
        1 => select(&DOMAINS[..]).prop_map(|(domain, _)| domain.to_ascii_uppercase()),
    ]
}

/// Nearly what a phone sends: parts of a header in any order, with anything between them.
fn header() -> impl Strategy<Value = String> {
    let name = select(
        &["Authorization", "authorization ", "Proxy-Authorization\t", "From", "f", "X-From", "Authorizatio"]
            [..],
    );
    let blank = || select(&["", " ", "\t", "  ", "\r\n ", "\n\t", " \r\n  "][..]);
    let value = |all: &'static [(&'static str, bool)]| {
        (select(all), select(&["\"", "\"", "\"", ""][..]))
            .prop_map(|((name, _), quote)| format!("{quote}{name}{quote}"))
    };
    let equals = || (blank(), blank()).prop_map(|(before, behind)| format!("{before}={behind}"));
    let parameter = prop_oneof![
        3 => (select(&["username", "Username", "USERNAME", "usernames"][..]), equals(), value(&USERS)).prop_map(|(name, equals, value)| name.to_owned() + &equals + &value),
        3 => (select(&["realm", "Realm", "realms"][..]), equals(), value(&DOMAINS)).prop_map(|(name, equals, value)| name.to_owned() + &equals + &value),
        2 => select(&["nonce=\"5f, realm=\\\"b\"", "qop=auth", "uri=\"sip:a;x=y\"", "opaque=\"\"", "nc=00000001", "x", "\"", "\\"][..]).prop_map(str::to_owned),
    ];
    let parameters = (
        prop::collection::vec((blank(), parameter, blank()), 0..6),
        select(&["Digest ", "digest\t", "Digest\r\n ", "Basic ", "Digest"][..]),
    )
        .prop_map(|(parameters, scheme)| {
            let list: Vec<_> = parameters
                .into_iter()
                .map(|(before, parameter, behind)| before.to_owned() + &parameter + behind)
                .collect();
            scheme.to_owned() + &list.join(",")
        });
    let user = prop_oneof![
        4 => select(&USERS[..]).prop_map(|(user, _)| user.replace('%', "%25").replace(' ', "%20")),
        1 => select(&["%39%39%39", "9%399", "999:x", "9%9", "", "99%"][..]).prop_map(str::to_owned),
    ];
    let address = (
        select(&["sip:", "sips:", "SIP:", "tel:", ""][..]),
        user,
        select(&DOMAINS[..]),
        select(&["", ":5060", ";x=y", "?a=b"][..]),
    )
        .prop_map(|(scheme, user, (domain, _), behind)| format!("{scheme}{user}@{domain}{behind}"));
    let from = (
        select(&["", "Front desk ", "\"<sip:999@a.example.com>\" ", "\"a\\\"<\" ", "\""][..]),
        address,
        select(&["", ";tag=1", "\r\n ;tag=\"<sip:x@y>\""][..]),
        any::<bool>(),
    )
        .prop_map(|(display, address, behind, brackets)| {
            if brackets { format!("{display}<{address}>{behind}") } else { format!("{address}{behind}") }
        });
    (name, blank(), prop_oneof![2 => parameters, 1 => from], select(&["\r\n", "\r\n", "\r\n", "\n"][..]))
        .prop_map(|(name, blank, value, end)| format!("{name}:{blank}{value}{end}"))
}

/// What a phone sends, its parameters in any order.
fn login() -> impl Strategy<Value = String> {
    let names = select(
        &["Authorization: Digest ", "proxy-authorization : digest\r\n ", "AUTHORIZATION:Digest\t"][..],
    );
    let parameters = (select(&USERS[..]), select(&DOMAINS[..]), select(&["\"", "\"", ""][..])).prop_map(
        |((user, _), (domain, _), quote)| {
            let user = format!("username={quote}{user}{quote}");
            vec![
                user,
                format!("realm={quote}{domain}{quote}"),
                "nonce=\"a\\\"b,\"".to_owned(),
                "qop=auth".to_owned(),
            ]
        },
    );
    let separator = select(&[",", ", ", "\r\n , ", ",\n\t"][..]);
    (names, parameters.prop_shuffle(), separator)
        .prop_map(|(name, parameters, separator)| format!("{name}{}\r\n", parameters.join(separator)))
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let soup = prop::collection::vec(pieces(), 0..40)
        .prop_map(|pieces| "REGISTER x\r\n".to_owned() + &pieces.concat());
    let bare_soup = prop::collection::vec(pieces(), 0..40).prop_map(|pieces| pieces.concat());
    let headers = (
        prop::collection::vec(prop_oneof![1 => header(), 1 => login()], 0..4),
        select(&["\r\n", "", "\r", "\r\nFrom: sip:999@a.example.com\r\n\r\n"][..]),
        0..2200_usize,
        prop::bool::weighted(0.2),
        select(&["REGISTER", "REGISTER", "SUBSCRIBE", "PUBLISH", "INVITE", "PUBLISHED"][..]),
    )
        .prop_map(|(headers, end, fill, long, method)| {
            let fill = if long { format!("X: {}\r\n", "x".repeat(fill)) } else { String::new() };
            format!("{method} sip:a.example.com SIP/2.0\r\n{fill}{}{end}", headers.concat())
        });
    let text = prop_oneof![2 => soup, 1 => bare_soup, 6 => headers];
    let change = prop::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>()));
    (text, change).prop_map(|(text, change)| {
        let mut bytes = text.into_bytes();
        if let Some((at, byte)) = change
            && !bytes.is_empty()
        {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

/// `PROPTEST_CASES=1000000` for a million, in about two minutes.
#[test]
fn model_and_kernel_agree_on_generated_messages() {
    let mut kernel = Kernel::new();
    for (user, _) in USERS.iter().filter(|(_, blocked)| *blocked) {
        for (domain, _) in DOMAINS.iter().filter(|(_, blocked)| *blocked) {
            kernel.block(&format!("{user}@{domain}"));
        }
    }
    let kernel = std::cell::RefCell::new(kernel);
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(20_000);
    let counts = std::cell::Cell::new([0_u32; 2]);
    let mut runner = TestRunner::new(Runs { cases, failure_persistence: None, ..Runs::default() });
    let outcome = runner.run(&(message(), any::<bool>(), any::<bool>()), |(message, v6, cut)| {
        let version = if v6 { Version::V6 } else { Version::V4 };
        let frame = if cut { Frame::first_fragment(version) } else { Frame::new(version) };
        let expected = model_drops(&message, cut, of_the_blocked);
        let mut all = counts.get();
        all[usize::from(expected)] += 1;
        counts.set(all);
        prop_assert_eq!(
            kernel.borrow_mut().drops(&frame.with(&message)),
            expected,
            "{}",
            String::from_utf8_lossy(&message)
        );
        Ok(())
    });
    outcome.unwrap();
    let [passed, dropped] = counts.get();
    println!("{passed} passed, {dropped} were dropped");
    // Neither is an exception.
    assert!(passed > cases / 10 && dropped > cases / 10, "{passed} passed, {dropped} dropped");
}

/// The object that is taken where there is no clang is what the sources give.
#[test]
fn the_object_is_built_from_the_sources() {
    /// That of Debian 12, which built it.
    const CLANG: &str = "14.0.6";
    let here = env!("RINGFENCE_CLANG");
    if here != CLANG {
        let not_tested = format!(
            "NOT TESTED: whether bpf/ringfence.o is built from the sources: it was by clang {CLANG}, and here is {here:?}"
        );
        assert!(std::env::var_os("CI").is_none(), "{not_tested}");
        println!("{not_tested}");
        return;
    }
    let built = include_bytes!(concat!(env!("OUT_DIR"), "/ringfence.o"));
    assert!(
        built[..] == include_bytes!("../../../bpf/ringfence.o")[..],
        "run: cp {}/ringfence.o bpf/",
        env!("OUT_DIR")
    );
}
