//! Filters and jails in a real fail2ban of this machine's version.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use crate::support::{Fail2ban, Host, World, call, data, project, run, wait_for};

/// What each recorded log must yield: failures by address. 203.0.113.66 is the attacker; 198.51.100.11-13 and
/// 203.0.113.20 are innocent.
const RECORDED: [(&str, &[(&str, usize)]); 20] = [
    ("01_register_ok.log", &[]),
    ("02_register_wrong_password.log", &[("203.0.113.66", 1)]),
    ("03a_register_unknown_user_noauth.log", &[]),
    ("03b_register_unknown_user_auth.log", &[("203.0.113.66", 2)]),
    ("03c_register_forged_nonce.log", &[]),
    ("03d_register_to_differs_from_authuser.log", &[("203.0.113.66", 2)]),
    ("03e_register_from_differs_from_to.log", &[]),
    ("04a_register_unknown_domain.log", &[("203.0.113.66", 2)]),
    ("04b_register_domain_is_server_ip.log", &[("203.0.113.66", 2)]),
    ("05a_invite_internal_noauth.log", &[]),
    ("05b_invite_internal_wrong_password.log", &[("203.0.113.66", 1)]),
    ("05c_invite_internal_unknown_user.log", &[("203.0.113.66", 2)]),
    ("05d_invite_internal_ok.log", &[]),
    ("05e_invite_external_unknown_number.log", &[]),
    ("06a_hostile_to_user_register.log", &[]),
    ("06b_hostile_auth_username.log", &[("203.0.113.66", 25)]),
    ("06d_hostile_realm.log", &[("203.0.113.66", 15)]),
    ("06k_pct_newline_destination_external.log", &[]),
    ("08_scanner.log", &[]),
    ("09a_other_denials.log", &[("203.0.113.66", 3)]),
];

/// What stands in the log behind the lines of interest: two healthy phones.
pub(super) const NEXT_ENTRY: &str = "01_register_ok.log";

/// What a filter finds in each recorded log: how often each failure, as these tags of fail2ban's show it.
pub(super) fn found(filter: &str, tags: &str) -> BTreeMap<String, BTreeMap<String, usize>> {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("freeswitch.log");
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(data("log")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // The log goes on: a failure counts when the entry behind it is there.
        std::fs::write(&log, [recorded(&name), recorded(NEXT_ENTRY)].concat()).unwrap();
        let output = Command::new("fail2ban-regex")
            .args(["-o", tags])
            .arg(&log)
            .arg(project("fail2ban/filter.d").join(filter))
            .output()
            .expect("fail2ban; `make setup` installs it");
        let mut found = BTreeMap::new();
        for failure in String::from_utf8(output.stdout).unwrap().lines() {
            *found.entry(failure.to_owned()).or_insert(0) += 1;
        }
        all.insert(name, found);
    }
    all
}

/// The same, as a test expects it.
pub(super) fn expected(logs: &[(&str, &[(&str, usize)])]) -> BTreeMap<String, BTreeMap<String, usize>> {
    let failures = |failures: &[(&str, usize)]| {
        failures.iter().map(|(failure, count)| ((*failure).to_owned(), *count)).collect()
    };
    logs.iter().map(|(name, found)| ((*name).to_owned(), failures(found))).collect()
}

#[test]
fn every_recorded_log_yields_the_attacker_and_nobody_else() {
    assert_eq!(found("ringfence-freeswitch.conf", "ip"), expected(&RECORDED));
}

#[test]
fn fail2bans_own_sample_test_passes() {
    run(Command::new("/usr/bin/python3")
        .arg(project("tests/fail2ban/samples.py"))
        .arg(project("fail2ban"))
        .arg(data("samples"))
        .args(["ringfence-freeswitch", "ringfence-freeswitch-account"]));
}

#[test]
fn validate_finds_what_fail2bans_own_test_passes() {
    let dir = tempfile::tempdir().unwrap();
    let filters = dir.path().join("filter.d");
    std::fs::create_dir(&filters).unwrap();
    for entry in std::fs::read_dir(project("fail2ban/filter.d")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, filters.join(path.file_name().unwrap())).unwrap();
    }
    let validate = || call(Command::new(project("scripts/validate")).arg(dir.path()));
    let good = validate();
    assert_eq!((good.code, good.stdout.contains("wrong")), (0, false), "{}{}", good.stdout, good.stderr);
    let one = filters.join("ringfence-freeswitch.local");
    for (failregex, complaint) in [
        ("^ SIP auth (failure", "wrong   ringfence-freeswitch: missing ), unterminated subpattern"),
        ("^ SIP auth trouble from <ADDR>$", "wrong   ringfence-freeswitch: 0 failures in its samples, not "),
    ] {
        std::fs::write(&one, format!("[Definition]\nfailregex = {failregex}\n")).unwrap();
        let bad = validate();
        assert_eq!(bad.code, 1);
        assert!(bad.stdout.contains(complaint), "{}", bad.stdout);
    }
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

    let world = World::empty();
    let log = world.path("freeswitch.log");
    std::fs::write(&log, "").unwrap();
    let example = std::fs::read_to_string(project("fail2ban/examples/jail.local")).unwrap();
    let example = example.replace(
        "# logpath = /usr/local/freeswitch/log/freeswitch.log",
        &format!("logpath = {}", log.display()),
    );
    let fail2ban = Fail2ban::start(&host, &world, &example, &std::env::var("PATH").unwrap());
    wait_for("the jail", || fail2ban.client(&["status", "ringfence-freeswitch"]).is_some());
    let command = fail2ban.client(&["get", "ringfence-freeswitch", "ignorecommand"]).unwrap();
    assert_eq!(command.trim(), "exec /usr/bin/ringfence-ignore \"<ip>\"");
    assert_eq!(fail2ban.number("ringfence-freeswitch", "Currently banned"), 0);
}
