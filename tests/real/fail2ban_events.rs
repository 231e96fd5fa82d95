//! The filters and jails for the log of ringfence-events, in a real fail2ban.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::process::Command;

use ringfence::account::SipAccount;
use ringfence::events::event::Method;
use ringfence::events::line::{Account, Address, Client, Entry, Failure, Known, Line, Text, Time};

use crate::support::event_source::{self, event, failure, now_us, ten_accounts};
use crate::support::{EventSource, Events, Fail2ban, Host, Postgres, World, data, project, wait_for};

/// The filters by address.
const KINDS: [&str; 5] = ["failure", "ip-domain", "realm-mismatch", "flood", "spray"];

const ATTACKER: &str = "203.0.113.66";

/// What fail2ban finds, and how often.
type Found = BTreeMap<String, usize>;

/// What the filter finds in these lines, as these tags of fail2ban's show it.
fn found(filter: &str, mode: &str, lines: &str, tags: &str) -> Found {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("events.log");
    std::fs::write(&log, lines).unwrap();
    let output = Command::new("fail2ban-regex")
        .args(["-o", tags])
        .arg(&log)
        .arg(project(&format!("fail2ban/filter.d/{filter}.conf[mode={mode}]")))
        .output()
        .expect("fail2ban; `make setup` installs it");
    count(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned))
}

fn count(failures: impl IntoIterator<Item = String>) -> Found {
    let mut found = Found::new();
    for failure in failures {
        *found.entry(failure).or_insert(0) += 1;
    }
    found
}

fn yields(failures: &[(&str, usize)]) -> Found {
    failures.iter().map(|(failure, count)| ((*failure).to_owned(), *count)).collect()
}

fn without_comments(text: &str) -> String {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.to_owned() + "\n")
        .collect()
}

/// What was recorded: all of it, or only from where this names a session.
fn recorded(session: &str) -> String {
    let log = std::fs::read_to_string(data("events.log")).unwrap();
    let sessions = log.split("# ").filter(|part| part.starts_with(session));
    sessions.map(|part| without_comments(part.split_once('\n').map_or("", |(_, lines)| lines))).collect()
}

/// All samples, of whatever mode.
fn samples() -> String {
    let names = ["ringfence-events", "ringfence-events-account"];
    let texts = names.map(|name| std::fs::read_to_string(data("samples").join(name)).unwrap());
    without_comments(&texts.concat())
}

#[test]
fn recorded_lines_yield_the_attacker_and_the_accounts_that_he_tried() {
    for (mode, all, hostile) in
        [("failure", 13, 8), ("ip-domain", 2, 2), ("realm-mismatch", 8, 8), ("flood", 0, 0), ("spray", 0, 0)]
    {
        for (session, count) in [("", all), ("events-json-06d", hostile)] {
            let expected = if count == 0 { Found::new() } else { yields(&[(ATTACKER, count)]) };
            assert_eq!(found("ringfence-events", mode, &recorded(session), "ip"), expected, "{mode}");
        }
    }
    for (mode, expected) in [
        (
            "unknown",
            yields(&[
                // Those whose realm is not the domain may be of a realm for many domains.
                ("999@a.example.com 203.0.113.66", 2),
            ]),
        ),
        (
            "device",
            yields(&[
                ("101@a.example.com,203.0.113.66 203.0.113.66", 2),
                ("101@b.example.com,203.0.113.66 203.0.113.66", 1),
                ("102@a.example.com,203.0.113.66 203.0.113.66", 1),
            ]),
        ),
    ] {
        assert_eq!(found("ringfence-events-account", mode, &recorded(""), "<fid> <F-SRC>"), expected);
    }
}

/// The value of this key.
fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// What all filters together do with lines of the log, as its own reader has them.
#[track_caller]
fn each_is_found_by_its_filter_alone(lines: &str) {
    let read: Vec<_> = lines
        .lines()
        .filter_map(|line| Line::parse(line.as_bytes()).ok().map(|parsed| (line, parsed.entry)))
        .collect();
    let lines: String = read.iter().flat_map(|(line, _)| [*line, "\n"]).collect();
    for kind in KINDS {
        let of_kind = read.iter().filter(|(_, entry)| entry.kind() == kind);
        let expected = count(of_kind.map(|(line, _)| value(line, "address").unwrap().to_owned()));
        assert!(!expected.is_empty());
        assert_eq!(found("ringfence-events", kind, &lines, "ip"), expected, "{kind}");
    }

    let failures = || {
        read.iter().filter_map(|(line, entry)| match entry {
            Entry::Failure(failure) if value(line, "method") != Some("VERTO") => Some((*line, failure)),
            _ => None,
        })
    };
    let unknown = failures().filter(|(_, failure)| failure.known() == Known::No).filter_map(|(line, _)| {
        let account = value(line, "account")?;
        let is_plain = !account.starts_with("-@") && !account.contains(['%', '~']);
        (is_plain && account.parse::<SipAccount>().is_ok())
            .then(|| format!("{account} {}", value(line, "address").unwrap()))
    });
    let device =
        failures().filter_map(|(_, failure)| failure.id().map(|id| format!("{id} {}", failure.address())));
    for (mode, expected) in [("unknown", count(unknown)), ("device", count(device))] {
        assert!(!expected.is_empty());
        assert_eq!(found("ringfence-events-account", mode, &lines, "<fid> <F-SRC>"), expected, "{mode}");
    }
}

/// What is no line of the log is in the samples.
#[test]
fn each_line_is_found_by_the_filter_of_its_kind_and_by_no_other() {
    each_is_found_by_its_filter_alone(&(samples() + &recorded("")));
}

/// Texts of clients who know what the lines look like, and what FreeSWITCH makes of them.
fn hostile(random: &mut fastrand::Rng) -> Vec<u8> {
    const PARTS: [&str; 24] = [
        " ",
        "\n",
        "\r\n",
        "\0",
        "\"",
        "]",
        "%",
        "%20",
        "=",
        "@",
        "~",
        "-",
        ",203.0.113.1",
        "\u{e9}",
        "101",
        "alice",
        "a.example.com",
        "192.0.2.1",
        "2001:db8::1",
        " v1 flood address=198.51.100.1 rate=9",
        "\n2026-11-21T14:12:03.123Z v1 spray address=198.51.100.1 accounts=9\n",
        " known=no profile=x agent=x",
        " id=101@a.example.com,198.51.100.1",
        "method=REGISTER account=",
    ];
    let mut text = vec![];
    for _ in 0..random.usize(..6) {
        match random.usize(..4) {
            0 => text.extend((0..random.usize(..60)).map(|_| random.u8(..))),
            _ => text.extend_from_slice(random.choice(PARTS).unwrap().as_bytes()),
        }
    }
    text
}

/// Any entry, about texts of clients.
fn any_entry(random: &mut fastrand::Rng) -> Entry {
    let v4 = random.bool().then(|| IpAddr::V4(random.u32(..).into()));
    let address = Address::from(v4.unwrap_or_else(|| IpAddr::V6(random.u128(..).into())));
    let mut account = || {
        let [user, domain] = if random.bool() {
            [hostile(random), hostile(random)]
        } else {
            [b"101".into(), b"a.example.com".into()]
        };
        Account { user: Text::new(&user), domain: Text::new(&domain) }
    };
    let (account, claimed) = (account(), account());
    let client = Client { profile: Text::new(&hostile(random)), agent: Text::new(&hostile(random)) };
    let realm = Text::new(&hostile(random));
    let method = random.choice([Method::Register, Method::Invite, Method::Verto, Method::Unknown]).unwrap();
    let known = random.choice([Known::Yes, Known::No, Known::Unknown]).unwrap();
    let claimed = random.bool().then_some(claimed);
    match random.usize(..10) {
        0 => Entry::Success { address, account, expires: random.bool().then(|| random.u64(..)), client },
        1 => Entry::Unregister { address: Some(address), account, client },
        2 => Entry::Expire { address: None, account, client },
        3 => Entry::IpDomain { address, method, account, client },
        4 => Entry::RealmMismatch { address, method, account, realm, client },
        5 => Entry::Flood { address, rate: random.u64(..) },
        6 => Entry::Spray { address, accounts: random.u64(..) },
        7 => Entry::Alarm { sources: random.u64(..) },
        8 => Entry::Excused(Failure::new(address, method, account, claimed, known, client)),
        _ => Entry::Failure(Failure::new(address, method, account, claimed, known, client)),
    }
}

#[test]
fn whatever_clients_write_each_line_is_found_by_its_filter_alone() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let time = Time::from(jiff::Timestamp::now());
    let mut log = String::new();
    for _ in 0..4_000 {
        Line { time, entry: any_entry(&mut random) }.append_to(&mut log);
    }
    assert_eq!(log.lines().count(), 4_000);
    assert!(log.lines().all(|line| Line::parse(line.as_bytes()).is_ok()));
    each_is_found_by_its_filter_alone(&log);
}

/// The lines as if they were written now.
fn as_of_now(lines: &str) -> String {
    let now: &str = &jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string();
    lines.split_inclusive('\n').flat_map(|line| [now, &line[now.len()..]]).collect()
}

/// The hostile session, two healthy phones and one with a wrong password. Bans outlast a restart.
#[test]
fn each_jail_bans_whom_it_should_and_nobody_else() {
    let host = Host::new();
    let world = World::empty();
    let log = world.path("events.log");
    let jails = ["", "-account", "-device", "-domain", "-realm", "-flood", "-spray"]
        .map(|name| format!("ringfence-events{name}"));
    let enable = |jail: &String| {
        let action = match jail.as_str() {
            "ringfence-events-account" | "ringfence-events-device" => {
                "action = ringfence-block[ringfence-block=true]\n"
            }
            _ => "",
        };
        format!("[{jail}]\nenabled = true\nmaxretry = 1\n{action}")
    };
    let jail_local = format!(
        "[DEFAULT]\nringfence_banaction = iptables-multiport\nringfence_ignorecommand = false\n\
         ringfence_events_log = {}\n{}",
        log.display(),
        jails.iter().map(enable).collect::<String>()
    );
    std::fs::write(&log, "").unwrap();
    let mut fail2ban = Fail2ban::start(&host, &world, &jail_local, &std::env::var("PATH").unwrap());
    wait_for("the jails", || jails.iter().all(|jail| fail2ban.client(&["status", jail]).is_some()));

    // Of those who guess many accounts' passwords, nobody is spared.
    for (jail, command) in [("ringfence-events", "false"), ("ringfence-events-spray", "")] {
        assert_eq!(fail2ban.client(&["get", jail, "ignorecommand"]).unwrap().trim(), command);
    }

    let phone = |keys: &str| format!("2026-11-20T13:31:02.144Z v1 {keys} profile=internal agent=-\n");
    let last = "2026-11-20T13:31:02.144Z v1 flood address=2001:db8:66::bad rate=50\n\
                2026-11-20T13:31:02.144Z v1 spray address=2001:db8:66::bad accounts=12\n";
    let lines = recorded("events-json-01")
        + &recorded("events-json-03b")
        + &recorded("events-json-06d")
        + &phone("unregister address=198.51.100.11 account=101@a.example.com")
        + &phone(
            "failure address=203.0.113.20 method=REGISTER account=101@a.example.com known=yes id=101@a.example.com,203.0.113.20",
        )
        + last;
    std::fs::write(&log, as_of_now(&lines)).unwrap();

    let flooder = ["2001:db8:66::bad"];
    let expected: [(&str, &[&str]); 7] = [
        ("", &[ATTACKER, "203.0.113.20"]),
        ("-account", &["999@a.example.com"]),
        ("-device", &["101@a.example.com,203.0.113.20", "101@b.example.com,203.0.113.66"]),
        ("-domain", &[ATTACKER]),
        ("-realm", &[ATTACKER]),
        ("-flood", &flooder),
        ("-spray", &flooder),
    ];
    for restarted in [false, true] {
        for (name, expected) in expected {
            let jail = format!("ringfence-events{name}");
            let expected: BTreeSet<_> = expected.iter().map(|id| (*id).to_owned()).collect();
            wait_for(&jail, || fail2ban.banned(&jail).len() >= expected.len());
            assert_eq!(fail2ban.banned(&jail).into_iter().collect::<BTreeSet<_>>(), expected, "{jail}");
            if !restarted {
                wait_for("the bans on disk", || fail2ban.remembered(&jail) == expected.len());
            }
        }
        fail2ban.is_content();
        if !restarted {
            fail2ban.stop();
            std::fs::write(&log, "").unwrap();
            fail2ban.start_again();
            wait_for("the jails", || jails.iter().all(|jail| fail2ban.client(&["status", jail]).is_some()));
        }
    }
}

/// A host with `ringfence-events`, and fail2ban with some of its jails as they are shipped.
struct Guarded<'a> {
    stream: TcpStream,
    events: Events,
    fail2ban: Fail2ban<'a>,
    _source: EventSource,
    _fusionpbx: Postgres,
}

impl<'a> Guarded<'a> {
    fn new(host: &'a Host, world: &World, jails: &[&str], ignorecommand: &str) -> Self {
        let fusionpbx = ten_accounts();
        let source = EventSource::on(host.inside(|| TcpListener::bind("127.0.0.1:0").unwrap()));
        world.configure(&format!(
            "source = \"sqlite\"\nevent-socket = {{ address = \"127.0.0.1:{}\", password = \"ClueCon\" }}\n\
             [fusionpbx]\npostgres = \"host={} port={} dbname=fusionpbx user=ringfence\"",
            source.port,
            fusionpbx.socket_dir().display(),
            fusionpbx.port
        ));
        let events = Events::spawn(world, &mut host.call(&world.events_command(&["run"])));
        let stream = source.listener();
        let log = world.path("log/events/events.log");
        wait_for("the log", || log.exists());
        let enabled: String = jails.iter().flat_map(|jail| ["[", jail, "]\nenabled = true\n"]).collect();
        let jail_local = format!(
            "[DEFAULT]\nringfence_banaction = iptables-multiport\nringfence_ignorecommand = {ignorecommand}\n\
             ringfence_events_log = {}\n{enabled}",
            log.display(),
        );
        let fail2ban = Fail2ban::start(host, world, &jail_local, &std::env::var("PATH").unwrap());
        wait_for("the jails", || jails.iter().all(|jail| fail2ban.client(&["status", jail]).is_some()));
        Self { stream, events, fail2ban, _source: source, _fusionpbx: fusionpbx }
    }

    fn hear(&mut self, events: &str) {
        self.stream.write_all(events.as_bytes()).unwrap();
    }

    fn register(&mut self, address: &str) {
        let phone = [("network-ip", address), ("from-user", "101"), ("from-host", "a.example.com")];
        self.hear(&event("sofia::register", now_us(), &phone));
    }
}

/// From what FreeSWITCH says to the ban. A registered phone, beside it, fails as often: `ringfence-ignore` keeps it, and asks
/// nobody; but not from the jail of those who guess passwords, as another one does.
#[test]
fn recorded_attacks_ban_the_attacker_and_nobody_else() {
    const JAILS: [&str; 4] =
        ["ringfence-events", "ringfence-events-domain", "ringfence-events-realm", "ringfence-events-spray"];
    const PHONE: &str = "203.0.113.20";
    const GUESSER: &str = "203.0.113.21";
    let (host, world) = (Host::new(), World::with_databases());
    let ignore = world.command(&[]);
    let ignore =
        format!("RINGFENCE_CONFIG={} {} \"<ip>\"", world.config().display(), ignore.get_program().display());
    let mut guarded = Guarded::new(&host, &world, &JAILS, &ignore);
    for phone in [PHONE, GUESSER] {
        guarded.register(phone);
        wait_for("ringfence-ignore knows the phone", || world.keeps(phone));
    }
    for user in 101..=110 {
        guarded.hear(&failure(&user.to_string(), GUESSER, now_us()));
    }
    for _ in 0..4 {
        for session in ["events-json-01.jsonl", "events-json-06d.jsonl"] {
            guarded.hear(&event_source::recorded(session));
        }
        for _ in 0..8 {
            guarded.hear(&failure("101", PHONE, now_us()));
        }
        // Challenges for an address as domain are told of once a second.
        std::thread::sleep(std::time::Duration::from_millis(1_100));
    }
    let fail2ban = &guarded.fail2ban;
    wait_for("the bans", || JAILS[..3].iter().all(|jail| !fail2ban.banned(jail).is_empty()));
    for phone in [PHONE, GUESSER] {
        let ignored = format!("[ringfence-events] Ignore {phone} by command");
        wait_for("what became of the phones", || fail2ban.log().contains(&ignored));
    }
    // A known source is given a minute.
    std::thread::sleep(std::time::Duration::from_secs(50));
    wait_for("the ban of who guesses", || !fail2ban.banned("ringfence-events-spray").is_empty());
    for jail in JAILS {
        let expected = if jail == "ringfence-events-spray" { GUESSER } else { ATTACKER };
        assert_eq!(fail2ban.banned(jail), [expected], "{jail}");
    }
    fail2ban.is_content();
    assert_eq!(guarded.events.end().0, Some(0));
}

/// Something is wrong with the PBX, and a hundred offices fail at once; the attacker goes on. Not even `ringfence-ignore`
/// stands between the offices and their bans.
#[test]
fn a_hundred_offices_that_fail_at_once_are_an_alarm_and_no_bans() {
    const JAILS: [&str; 2] = ["ringfence-events", "ringfence-events-spray"];
    let (host, world) = (Host::new(), World::with_databases());
    let mut guarded = Guarded::new(&host, &world, &JAILS, "");
    let offices: Vec<_> = (1..=100).map(|office| format!("198.51.100.{office}")).collect();
    for office in &offices {
        guarded.register(office);
    }
    guarded.events.log_of(100);
    for round in 0..20 {
        for office in &offices {
            guarded.hear(&failure(&(101 + round % 10).to_string(), office, now_us()));
        }
        guarded.hear(&failure("101", ATTACKER, now_us()));
    }
    let log = guarded.events.log_of(100 + 20 * 101 + 1);
    let count = |kind: &str| log.lines().filter(|line| line.split(' ').nth(2) == Some(kind)).count();
    assert_eq!((count("alarm"), count("failure"), count("excused")), (1, 5 + 20, 100 * 20 - 5));
    let fail2ban = &guarded.fail2ban;
    wait_for("the ban", || !fail2ban.banned("ringfence-events").is_empty());
    guarded.hear(&failure("101", "203.0.113.67", now_us()).repeat(10));
    let fail2ban = &guarded.fail2ban;
    wait_for("all is read", || fail2ban.banned("ringfence-events").len() >= 2);
    assert_eq!(fail2ban.banned("ringfence-events"), [ATTACKER, "203.0.113.67"]);
    assert_eq!(fail2ban.banned("ringfence-events-spray"), [""; 0]);
    assert!(guarded.events.log().contains(" known=yes "), "FusionPBX was asked");
}
