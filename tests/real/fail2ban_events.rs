//! The filters and jails for the log of ringfence-events, in a real fail2ban.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use ringfence::account::SipAccount;
use ringfence::events::line::{Entry, Known, Line};

use crate::support::{Fail2ban, Host, World, data, project, wait_for};

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
                ("101@8.8.8.8 203.0.113.66", 1),
                ("999@8.8.8.8 203.0.113.66", 1),
                ("999@a.example.com 203.0.113.66", 2),
                ("999@b.example.com 203.0.113.66", 1),
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

/// What all filters together do with lines of the log, as its own reader has them. What is none of them is in the samples.
#[test]
fn each_line_is_found_by_the_filter_of_its_kind_and_by_no_other() {
    let lines = samples() + &recorded("");
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
        ("-account", &["101@8.8.8.8", "999@8.8.8.8", "999@b.example.com"]),
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
