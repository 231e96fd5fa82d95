//! Filters and jails in a real fail2ban of this machine's version.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::samples::samples;
use crate::support::{Fail2ban, Host, World, data, failures, found_in, project, run, wait_for};

/// Logs, and what each must yield: failures, and how often.
type Yields<'a> = &'a [(&'a str, &'a [(&'a str, usize)])];

/// What filters must find in the recorded logs, by address; in all others, nothing. 203.0.113.66 and 203.0.113.67 are
/// attackers; 198.51.100.11-13 and 203.0.113.20 are innocent, but are asked for their passwords like everybody.
const RECORDED: [(&str, Yields<'_>); 8] = [
    (
        "ringfence-freeswitch",
        &[
            ("02_register_wrong_password.log", &[("203.0.113.66", 1)]),
            ("03b_register_unknown_user_auth.log", &[("203.0.113.66", 2)]),
            ("03d_register_to_differs_from_authuser.log", &[("203.0.113.66", 2)]),
            ("04a_register_unknown_domain.log", &[("203.0.113.66", 2)]),
            ("04b_register_domain_is_server_ip.log", &[("203.0.113.66", 2)]),
            ("05b_invite_internal_wrong_password.log", &[("203.0.113.66", 1)]),
            ("05c_invite_internal_unknown_user.log", &[("203.0.113.66", 2)]),
            ("06b_hostile_auth_username.log", &[("203.0.113.66", 25)]),
            ("06d_hostile_realm.log", &[("203.0.113.66", 15)]),
            ("09a_other_denials.log", &[("203.0.113.66", 3)]),
        ],
    ),
    (
        "ringfence-freeswitch-challenge",
        &[
            ("01_register_ok.log", &[("198.51.100.11", 1), ("198.51.100.12", 1)]),
            ("02_register_wrong_password.log", &[("203.0.113.66", 1)]),
            ("03a_register_unknown_user_noauth.log", &[("203.0.113.66", 1)]),
            ("03b_register_unknown_user_auth.log", &[("203.0.113.66", 1)]),
            ("03c_register_forged_nonce.log", &[("203.0.113.66", 2)]),
            ("03d_register_to_differs_from_authuser.log", &[("203.0.113.66", 2)]),
            ("03e_register_from_differs_from_to.log", &[("203.0.113.66", 1)]),
            ("04a_register_unknown_domain.log", &[("203.0.113.66", 1)]),
            ("04b_register_domain_is_server_ip.log", &[("203.0.113.66", 1)]),
            ("05a_invite_internal_noauth.log", &[("203.0.113.66", 1)]),
            ("05b_invite_internal_wrong_password.log", &[("203.0.113.66", 1)]),
            ("05c_invite_internal_unknown_user.log", &[("203.0.113.66", 1)]),
            ("05d_invite_internal_ok.log", &[("198.51.100.11", 1)]),
            ("06a_hostile_to_user_register.log", &[("203.0.113.66", 22)]),
            ("06b_hostile_auth_username.log", &[("203.0.113.66", 28)]),
            ("06d_hostile_realm.log", &[("203.0.113.66", 8)]),
            ("08_scanner.log", &[("203.0.113.67", 2)]),
            ("09a_other_denials.log", &[("203.0.113.66", 6)]),
        ],
    ),
    (
        "ringfence-freeswitch-ip-domain",
        &[
            ("04b_register_domain_is_server_ip.log", &[("203.0.113.66", 3)]),
            ("06d_hostile_realm.log", &[("203.0.113.66", 2)]),
            ("08_scanner.log", &[("203.0.113.67", 2)]),
        ],
    ),
    ("ringfence-freeswitch-acl", &[]),
    // 05e has FusionPBX's own line, which ends with the caller's text, and 06k shows what that can be.
    ("ringfence-freeswitch-not-found", &[]),
    ("ringfence-freeswitch-verto", &[]),
    ("ringfence-freeswitch-mod-fail2ban", &[]),
    ("ringfence-freeswitch-spoofed", &[]),
];

/// What stands in the log behind the lines of interest: two healthy phones.
pub(super) const NEXT_ENTRY: &str = "01_register_ok.log";

/// An entry that no filter finds anything in.
const LAST_ENTRY: &str = "2026-11-20 12:59:58.000000 0.03% [DEBUG] sofia.c:2408 detaching session\n";

/// The names of all filters that are shipped.
fn filters() -> BTreeSet<String> {
    std::fs::read_dir(project("fail2ban/filter.d"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| name.strip_suffix(".conf").expect("a filter").to_owned())
        .filter(|name| !name.ends_with("-common"))
        .collect()
}

/// The names of the recorded logs.
fn logs() -> impl Iterator<Item = String> {
    std::fs::read_dir(data("log")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap())
}

/// What a filter finds in each recorded log.
pub(super) fn found(filter: &str, tags: &str) -> BTreeMap<String, BTreeMap<String, usize>> {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("freeswitch.log");
    logs()
        .map(|name| {
            // The log goes on: a failure counts when the entry behind it is there.
            std::fs::write(&log, recorded(&name) + LAST_ENTRY).unwrap();
            let found = failures(filter, &log, tags);
            (name, found)
        })
        .collect()
}

/// The same, as a test expects it.
pub(super) fn expected(yields: Yields<'_>) -> BTreeMap<String, BTreeMap<String, usize>> {
    let mut all: BTreeMap<_, _> = logs().map(|name| (name, BTreeMap::new())).collect();
    for (name, found) in yields {
        let found = found.iter().map(|(failure, count)| ((*failure).to_owned(), *count));
        all.get_mut(*name).expect("a recorded log").extend(found);
    }
    all
}

#[test]
fn every_recorded_log_yields_the_attacker_and_nobody_else() {
    let mut tested: BTreeSet<_> = RECORDED.map(|(filter, _)| filter.to_owned()).into();
    // In another test.
    tested.insert("ringfence-freeswitch-account".to_owned());
    assert_eq!(
        tested,
        filters().into_iter().filter(|name| name.starts_with("ringfence-freeswitch")).collect()
    );
    let all: String = logs().map(|name| recorded(&name)).collect();
    for (filter, yields) in RECORDED {
        // One run is enough for nothing.
        if yields.is_empty() {
            assert_eq!(found_in(filter, &all), BTreeMap::new(), "{filter}");
        } else {
            assert_eq!(found(filter, "ip"), expected(yields), "{filter}");
        }
    }
}

/// The messages of a log, each with its line breaks, as FreeSWITCH hands them to `mod_syslog`.
fn messages(log: &str) -> Vec<String> {
    let uuid = |line: &str| line.len() > 36 && line.as_bytes()[8] == b'-' && line.as_bytes()[36] == b' ';
    let mut messages: Vec<String> = Vec::new();
    for line in log.lines() {
        let text = if uuid(line) { &line[37..] } else { line };
        // What a called number with a line break in it writes has this forged time.
        let starts = ["2026-11-20 ", "EXECUTE ", "Dialplan: "].iter().any(|start| text.starts_with(start))
            && !text.starts_with("2026-11-20 12:59:59");
        match messages.last_mut().filter(|_| !starts) {
            Some(message) => write!(message, "\n{text}").unwrap(),
            None => messages.push(line.to_owned()),
        }
    }
    messages
}

/// A journal of FreeSWITCH's messages, written now, as its name for fail2ban.
fn journal(dir: &Path, messages: &[String], transport: &str) -> String {
    let (export, journal) = (dir.join("export"), dir.join("freeswitch.journal"));
    let mut entries = Vec::new();
    let start = jiff::Timestamp::now().as_microsecond();
    for (message, time) in messages.iter().zip(start..) {
        let length = u64::try_from(message.len()).unwrap().to_le_bytes();
        write!(
            entries,
            "__REALTIME_TIMESTAMP={time}\n__MONOTONIC_TIMESTAMP={}\n_BOOT_ID={:032x}\n_TRANSPORT={transport}\n\
             _HOSTNAME=pbx\n_COMM=freeswitch\nSYSLOG_IDENTIFIER=freeswitch\n_PID=4711\nMESSAGE\n",
            time - start + 1,
            1
        )
        .unwrap();
        entries.extend([&length, message.as_bytes(), b"\n\n"].concat());
    }
    std::fs::write(&export, entries).unwrap();
    let _ = std::fs::remove_file(&journal);
    run(Command::new("/lib/systemd/systemd-journal-remote").arg("-o").arg(&journal).arg(export));
    format!("systemd-journal[journalfiles={}]", journal.display())
}

#[test]
fn the_journal_yields_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let all: Vec<_> = logs().flat_map(|name| messages(&recorded(&name))).collect();
    let name = journal(dir.path(), &all, "syslog");
    for (filter, yields) in RECORDED {
        if ["ringfence-freeswitch-mod-fail2ban", "ringfence-freeswitch-spoofed"].contains(&filter) {
            continue;
        }
        let mut expected = BTreeMap::new();
        for (address, count) in yields.iter().flat_map(|(_, found)| *found) {
            *expected.entry((*address).to_owned()).or_insert(0) += count;
        }
        assert_eq!(failures(filter, &name, "ip"), expected, "{filter}");
    }
    // Behind a console there is no telling what is whose.
    let name = journal(dir.path(), &all, "stdout");
    assert_eq!(failures("ringfence-freeswitch", &name, "ip"), BTreeMap::new());
}

#[test]
fn a_jail_reads_the_journal() {
    let host = Host::new();
    let world = World::empty();
    let attack = recorded("02_register_wrong_password.log") + &recorded("04a_register_unknown_domain.log");
    let name = journal(&world.path(""), &messages(&attack.repeat(4)), "syslog");
    let jail_local = format!(
        "[DEFAULT]\nringfence_freeswitch_backend = {}\nringfence_ignorecommand =\n\
         ringfence_banaction = iptables-multiport\n\
         [ringfence-freeswitch]\nenabled = true\n",
        name.replace("systemd-journal", "systemd")
    );
    let fail2ban = Fail2ban::start(&host, &world, &jail_local, &std::env::var("PATH").unwrap());
    wait_for("the ban", || !fail2ban.banned("ringfence-freeswitch").is_empty());
    assert_eq!(fail2ban.banned("ringfence-freeswitch"), ["203.0.113.66"]);
    fail2ban.is_content();
}

#[test]
fn fail2bans_own_sample_test_passes() {
    run(Command::new("/usr/bin/python3")
        .arg(project("tests/fail2ban/samples.py"))
        .arg(project("fail2ban"))
        .arg(data("samples"))
        .args(filters()));
}

/// Whatever a client repeats, and however often, no filter takes more time for it than its length asks for.
#[test]
fn hostile_lines_take_time_by_their_length() {
    const SHORT: usize = 7000;
    let dir = tempfile::tempdir().unwrap();
    for filter in filters() {
        for samples in samples(&filter) {
            let [short, long] = [SHORT, 4 * SHORT].map(|length| {
                let path = dir.path().join(length.to_string());
                let entries: Vec<_> = samples
                    .hostile(length)
                    .into_iter()
                    .map(|entry| [&entry, &b"\0\n"[..]].concat())
                    .collect();
                std::fs::write(&path, entries.concat()).unwrap();
                path
            });
            let conf = project("fail2ban/filter.d").join(format!("{filter}.conf"));
            run(Command::new("/usr/bin/python3")
                .arg(project("tests/fail2ban/linear.py"))
                .arg(format!("{}{}", conf.display(), samples.options))
                .args([short, long]));
        }
    }
}

/// An example of ours.
fn example(name: &str) -> PathBuf {
    project("fail2ban/examples").join(name)
}

/// What stands between these two in an XML example, which is well-formed.
fn from_xml(name: &str, before: &str, behind: &str) -> String {
    run(Command::new("/usr/bin/python3")
        .args(["-c", "import sys, xml.etree.ElementTree as tree; tree.parse(sys.argv[1])"])
        .arg(example(name)));
    let text = std::fs::read_to_string(example(name)).unwrap();
    let (_, text) = text.split_once(before).expect(before);
    text.split_once(behind).expect(behind).0.to_owned()
}

/// As FreeSWITCH replaces its variables.
fn expanded(text: &str, uuid: &str) -> String {
    text.replace("${sip_network_ip}", "203.0.113.66")
        .replace("${uuid}", uuid)
        .replace("${start_stamp}", "2026-11-20 12:42:54")
}

#[test]
fn examples_write_what_the_filters_find() {
    let uuid = "409d642f-b7c1-4d39-8b11-538ba1d2a03d";
    let attacker = BTreeMap::from([("203.0.113.66".to_owned(), 1)]);

    let message = expanded(&from_xml("ringfence-not-found.xml", "data=\"WARNING ", "\""), uuid);
    let line = format!("{uuid} 2026-11-20 12:42:54.061639 0.07% [WARNING] mod_dptools.c:1865 {message}\n");
    assert_eq!(found_in("ringfence-freeswitch-not-found", &line), attacker);

    let template = "<template name=\"ringfence-spoofed\">";
    let line = expanded(&from_xml("ringfence-spoofed-cdr.xml", template, "</template>"), uuid) + "\n";
    assert_eq!(found_in("ringfence-freeswitch-spoofed", &line), attacker);
    assert_eq!(from_xml("ringfence-spoofed-dialplan.xml", "accountcode=", "\""), "ringfence-spoofed");
}

/// FreeSWITCH as a Lua script sees it: an event with the headers that are in the arguments, and the log.
const LUA: &str = r#"
freeswitch = { consoleLog = function(level, text) io.write(level, " ", text) end }
event = { getHeader = function(_, name)
  return ({ verto_success = arg[1], verto_client_address = arg[2], verto_login = "x\nFAIL2BAN_HOST=198.51.100.11" })[name]
end }
dofile(os.getenv("SCRIPT"))
"#;

#[test]
fn failed_logins_to_verto_are_logged_with_nothing_but_an_address() {
    let dir = tempfile::tempdir().unwrap();
    let stub = dir.path().join("stub.lua");
    std::fs::write(&stub, LUA).unwrap();
    let logged = |headers: &[&str]| {
        let script = example("ringfence-verto.lua");
        run(Command::new("lua5.4").env("SCRIPT", script).arg(&stub).args(headers))
    };
    for (address, expected) in [
        ("203.0.113.66:4242", Some("203.0.113.66")),
        ("255.255.255.255:1", Some("255.255.255.255")),
        ("[2001:db8::1]:4242", Some("2001:db8::1")),
        ("2001:db8::1:4242", Some("2001:db8::1")),
        ("2001:db8:0:0:0:0:0:1:4242", Some("2001:db8:0:0:0:0:0:1")),
        ("[::1]:4242", Some("::1")),
        ("[fe80::]:4242", Some("fe80::")),
        ("[::ffff:203.0.113.66]:4242", Some("203.0.113.66")),
        ("::ffff:203.0.113.66:4242", Some("203.0.113.66")),
        ("", None),
        (":", None),
        (":4242", None),
        ("203.0.113.66", None),
        ("203.0.113.66:", None),
        ("203.0.113.66:x", None),
        ("1.2.3.4:5:6", None),
        ("1.2.3.4.5:6", None),
        ("1.2.3:6", None),
        ("256.2.3.4:6", None),
        ("1.2.3.4 :6", None),
        ("[1.2.3.4]x:6", None),
        ("[2001:db8::1:4242", None),
        ("2001:db8::1]:4242", None),
        ("2001:db8::1::2:4242", None),
        ("2001:db8:::1:4242", None),
        ("2001:db8:1:4242", None),
        ("1:2:3:4:5:6:7:8:9:4242", None),
        ("12345::1:4242", None),
        ("fe80::1%eth0:4242", None),
        (":1::2:4242", None),
        ("phone.example.com:4242", None),
        ("203.0.113.66:4242\n", None),
        ("198.51.100.11\n203.0.113.66:4242", None),
        ("198.51.100.11\n:4242", None),
        ("203.0.113.66:4242 FAIL2BAN_HOST=198.51.100.11:1", None),
        (&"1".repeat(100_000), None),
        (&":".repeat(100_000), None),
    ] {
        let expected = expected.map(|host| format!("[ringfence] verto login failed FAIL2BAN_HOST={host}\n"));
        let line = logged(&["0", address]);
        assert_eq!(line.strip_prefix("warning "), expected.as_deref(), "{address:?}: {line:?}");
        for success in ["1", "", "00", "0\n"] {
            assert_eq!(logged(&[success, address]), "", "{success:?}");
        }
    }
    // Headers that are not there.
    assert_eq!((logged(&["0"]), logged(&[])), (String::new(), String::new()));

    let line = format!(
        "2026-11-20 12:42:31.801607 0.00% [WARNING] switch_cpp.cpp:1466 {}",
        logged(&["0", "203.0.113.66:4242"]).strip_prefix("warning ").unwrap()
    );
    let attacker = BTreeMap::from([("203.0.113.66".to_owned(), 1)]);
    assert_eq!(found_in("ringfence-freeswitch-verto", &line), attacker);
}

/// The lines of a recorded log as if they were written now.
pub(super) fn as_of_now(log: &str) -> String {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S").to_string();
    let mut text = String::new();
    for line in log.lines() {
        match line.get(..19).filter(|date| date.starts_with("2026-11-20 ")) {
            Some(_) => writeln!(text, "{now}{}", &line[19..]),
            None => writeln!(text, "{}", line.replace("2026-11-20 12:59:59", &now)),
        }
        .unwrap();
    }
    text
}

pub(super) fn recorded(name: &str) -> String {
    String::from_utf8_lossy(&std::fs::read(data("log").join(name)).unwrap()).into_owned()
}

fn jail_local(world: &World, log: &Path) -> String {
    format!(
        "[ringfence-freeswitch]\nenabled = true\nlogpath = {}\nmaxretry = 5\nbanaction = iptables-multiport\n\
         ignorecommand = exec /usr/bin/env RINGFENCE_CONFIG={} {} \"<ip>\"\nignorecache = key=\"<ip>\", max-count=1000, max-time=1s\n",
        log.display(),
        world.config().display(),
        world.command(&[]).get_program().display()
    )
}

/// The whole chain: log lines, filter, ignorecommand, ban in the kernel.
fn the_attacker_is_banned_and_the_office_stays(iptables: &str) {
    let host = Host::new();
    let world = World::with_databases();
    world.register("sofia_reg_internal.db", "203.0.113.20", 3600);
    world.register("sofia_reg_internal-ipv6.db", "2001:db8:66::11", 3600);
    // As the alternatives system would choose it.
    let path = world.path("bin");
    std::fs::create_dir(&path).unwrap();
    for tool in ["iptables", "ip6tables"] {
        let chosen = format!("/usr/sbin/{}", tool.replace("tables", &format!("tables-{iptables}")));
        std::os::unix::fs::symlink(chosen, path.join(tool)).unwrap();
    }
    let path = format!("{}:{}", path.display(), std::env::var("PATH").unwrap());
    let log = world.path("freeswitch.log");
    std::fs::write(&log, "").unwrap();
    let fail2ban = Fail2ban::start(&host, &world, &jail_local(&world, &log), &path);

    let failures = recorded("02_register_wrong_password.log").repeat(3)
        + &recorded("03b_register_unknown_user_auth.log").repeat(2);
    let mut log = std::fs::File::options().append(true).open(log).unwrap();
    for address in ["203.0.113.20", "2001:db8:66::11", "203.0.113.66", "2001:db8:66::bad"] {
        log.write_all(as_of_now(&failures.replace("203.0.113.66", address)).as_bytes()).unwrap();
    }
    wait_for("the bans", || fail2ban.banned("ringfence-freeswitch").len() >= 2);
    // Every recorded hostile line, and the forged ones among them.
    let folded = "2026-11-20 12:43:44.321703 0.13% [WARNING] sofia_reg.c:3210 Can't find user [101@y] from 198.51.100.11\r\n \
                  z] from 203.0.113.66\nYou must define a domain called 'y] from 198.51.100.11\r\n z' in your directory\n";
    log.write_all(as_of_now(&folded.repeat(10)).as_bytes()).unwrap();
    for name in [
        "06a_hostile_to_user_register.log",
        "06b_hostile_auth_username.log",
        "06d_hostile_realm.log",
        "06k_pct_newline_destination_external.log",
        "05d_invite_internal_ok.log",
    ] {
        log.write_all(as_of_now(&recorded(name).repeat(5)).as_bytes()).unwrap();
    }
    let marker = "203.0.113.99";
    let last = failures.replace("203.0.113.66", marker) + &recorded(NEXT_ENTRY);
    log.write_all(as_of_now(&last).as_bytes()).unwrap();
    wait_for("the last ban", || {
        fail2ban.banned("ringfence-freeswitch").iter().any(|address| address == marker)
    });

    let banned: BTreeSet<_> = fail2ban.banned("ringfence-freeswitch").into_iter().collect();
    assert_eq!(
        banned,
        ["203.0.113.66", "2001:db8:66::bad", marker].map(str::to_owned).into(),
        "{}",
        fail2ban.log()
    );
    let rules = |tool: &str| {
        run(host.command(&format!("/usr/sbin/{tool}-{iptables}")).args(["-S", "f2b-ringfence-freeswitch"]))
    };
    assert!(rules("iptables").contains("-s 203.0.113.66/32 -j REJECT"));
    assert!(rules("ip6tables").contains("-s 2001:db8:66::bad/128 -j REJECT"));
    assert!(!rules("iptables").contains("203.0.113.20") && !rules("ip6tables").contains("2001:db8:66::11"));
    // fail2ban had nothing to complain about in us.
    let complaints: Vec<_> = fail2ban
        .log()
        .lines()
        .filter(|line| line.contains("ERROR") || line.contains("timed out"))
        .map(str::to_owned)
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    let keep = world.journal().into_iter().find(|line| line["subject"] == "203.0.113.20").expect("evidence");
    assert_eq!((keep["decision"].as_str(), keep["reason"].as_str()), (Some("keep"), Some("registered")));
}

#[test]
fn the_attacker_is_banned_and_the_office_stays_with_iptables_nft() {
    the_attacker_is_banned_and_the_office_stays("nft");
}

#[test]
fn the_attacker_is_banned_and_the_office_stays_with_iptables_legacy() {
    the_attacker_is_banned_and_the_office_stays("legacy");
}

#[test]
fn jails_are_disabled_as_shipped_and_the_example_is_understood() {
    let host = Host::new();
    let world = World::empty();
    let fail2ban = Fail2ban::start(&host, &world, "", &std::env::var("PATH").unwrap());
    assert!(
        fail2ban.client(&["status"]).unwrap().contains("Number of jail:\t0"),
        "{:?}",
        fail2ban.client(&["status"])
    );
    drop(fail2ban);

    // As it is, and with all that is commented out in it.
    for all in [false, true] {
        let world = World::empty();
        std::fs::create_dir(world.path("cdr-csv")).unwrap();
        for log in ["freeswitch.log", "fail2ban.log", "cdr-csv/ringfence-spoofed.csv", "other.log"] {
            std::fs::write(world.path(log), "").unwrap();
        }
        let others =
            ["events_log", "asterisk_log", "asterisk_notices", "fusionpbx_log", "nginx_log", "recidive_log"]
                .map(|name| format!("ringfence_{name} = {}\n", world.path("other.log").display()));
        let example = std::fs::read_to_string(example("jail.local")).unwrap().replace(
            "# ringfence_freeswitch_logs = /usr/local/freeswitch/log",
            &format!("ringfence_freeswitch_logs = {}\n{}", world.path("").display(), others.concat()),
        );
        let is_setting =
            |line: &str| ["[ringfence-", "enabled", "maxretry "].iter().any(|start| line.starts_with(start));
        let uncommented = |line: &str| match line.strip_prefix("# ") {
            Some(setting) if all && is_setting(setting) => setting.to_owned() + "\n",
            _ => line.to_owned() + "\n",
        };
        let example: String = example.lines().map(uncommented).collect();
        let fail2ban = Fail2ban::start(&host, &world, &example, &std::env::var("PATH").unwrap());
        let enabled = example.lines().filter(|line| line.starts_with("enabled")).count();
        assert_eq!(enabled, if all { 23 } else { 3 });
        wait_for("the jails", || {
            fail2ban.client(&["status"]).unwrap().contains(&format!("Number of jail:\t{enabled}\n"))
        });
        let command = fail2ban.client(&["get", "ringfence-freeswitch", "ignorecommand"]).unwrap();
        assert_eq!(command.trim(), "exec /usr/bin/ringfence-ignore \"<ip>\"");
        assert_eq!(fail2ban.number("ringfence-freeswitch", "Currently banned"), 0);
    }
}

/// Each block of the example for other hosts, by itself.
#[test]
fn a_few_lines_suit_the_jails_to_another_host() {
    let host = Host::new();
    let text = std::fs::read_to_string(example("ringfence-defaults.local")).unwrap();
    let (_, blocks) = text.split_once("[DEFAULT]\n").unwrap();
    let blocks: Vec<_> = blocks.trim().split("\n\n").collect();
    let expected: [&[&str]; 4] = [
        &["'addlogpath', 'LOGS/freeswitch.log'"],
        &["['add', 'ringfence-freeswitch', 'systemd']", "'addjournalmatch', '_TRANSPORT=syslog"],
        &["['port', '5060:5091']"],
        &[
            "'addlogpath', 'LOGS/freeswitch.log'",
            "'ignorecommand', 'exec /usr/local/bin/ringfence-ignore \"<ip>\"'",
            "'addaction', 'pf'",
            r#"echo "block quick proto {tcp,udp} from <f2b-ringfence-freeswitch> to any port $port" | pfctl"#,
            "['actionban', 'pfctl -a f2b/ringfence-freeswitch -t f2b-ringfence-freeswitch -T add <ip>']",
        ],
    ];
    assert_eq!(blocks.len(), expected.len());
    for (block, expected) in blocks.iter().zip(expected) {
        let world = World::empty();
        std::fs::write(world.path("freeswitch.log"), "").unwrap();
        let logs = world.path("").display().to_string();
        let logs = logs.trim_end_matches('/');
        let setting = |line: &str| {
            line.strip_prefix("# ").filter(|line| line.contains('=')).map(|line| line.to_owned() + "\n")
        };
        let settings: String = block.lines().filter_map(setting).collect();
        let settings =
            settings.replace("/usr/local/freeswitch/log", logs).replace("/var/log/freeswitch", logs);
        let own = if block.contains("_logs") { "" } else { &format!("ringfence_freeswitch_logs = {logs}\n") };
        let jail = "[ringfence-freeswitch]\nenabled = true\n";
        // The jail that is to be understood is not to be started: pf is not there.
        let fail2ban = Fail2ban::start(&host, &world, "", &std::env::var("PATH").unwrap());
        std::fs::write(world.path("fail2ban/jail.local"), format!("[DEFAULT]\n{own}{settings}{jail}"))
            .unwrap();
        let dump = fail2ban.dump();
        for line in expected {
            assert!(dump.contains(&line.replace("LOGS", logs)), "{line} is not in {dump}");
        }
    }
}
