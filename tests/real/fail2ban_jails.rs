//! Every jail that bans addresses, as it is shipped: lines of its log, a real fail2ban, the kernel's sets, packets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use assert_cmd::cargo::cargo_bin;

use crate::support::packets::{Gate, Packet, SYN, tcp, udp};
use crate::support::{Fail2ban, Pbx, World, data, project, run, wait_for};

/// A jail of ours that bans addresses.
#[derive(Debug)]
struct Jail {
    name: String,
    /// Its samples.
    lines: Vec<u8>,
    /// Who is to be banned: the hosts of its samples.
    guilty: BTreeSet<String>,
}

/// All of them. Jails with actions of their own have tests of their own.
fn jails() -> Vec<Jail> {
    let mut jails = vec![];
    for entry in std::fs::read_dir(project("fail2ban/jail.d")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for section in text.split("\n[").skip(1) {
            let (name, settings) = section.split_once(']').unwrap();
            let setting = |key: &str| {
                let lines = settings.lines().filter_map(|line| line.split_once('='));
                let found =
                    lines.map(|(key, value)| (key.trim(), value.trim())).find(|(other, _)| *other == key);
                found.map(|(_, value)| value.to_owned())
            };
            if name == "DEFAULT" || setting("action").is_some() {
                continue;
            }
            let filter = setting("filter").unwrap_or_else(|| name.to_owned());
            let (filter, options) = filter.split_once('[').unwrap_or((&filter, ""));
            let samples =
                samples(filter, options.strip_prefix("mode=").map(|mode| mode.trim_end_matches(']')));
            let lines = samples.split_inclusive(|byte| *byte == b'\n');
            let lines = lines.filter(|line| !line.starts_with(b"#") && line.len() > 1).flatten().copied();
            jails.push(Jail { name: name.to_owned(), guilty: hosts(&samples), lines: lines.collect() });
        }
    }
    assert!(!jails.is_empty());
    jails
}

/// A filter's samples of this mode, or of its default one. Those of other options are for the journal.
fn samples(filter: &str, mode: Option<&str>) -> Vec<u8> {
    let samples =
        std::fs::read(data("samples").join(filter)).unwrap_or_else(|error| panic!("{filter}: {error}"));
    let wanted = mode.map(|mode| format!("# filterOptions: {{ \"mode\": \"{mode}\" }}\n").into_bytes());
    let mut is_wanted = mode.is_none();
    let mut found = vec![];
    for line in samples.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b"# filterOptions:") {
            is_wanted = wanted.as_deref() == Some(line);
        }
        if is_wanted {
            found.extend_from_slice(line);
        }
    }
    assert!(!found.is_empty(), "{filter} has no samples of mode {mode:?}");
    found
}

/// The hosts of samples that match.
fn hosts(samples: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(samples);
    let comments = text.lines().filter_map(|line| line.strip_prefix("# failJSON: "));
    let comments = comments.map(|json| serde_json::from_str::<serde_json::Value>(json).unwrap());
    let matching = comments.filter(|comment| comment["match"] == true);
    matching.map(|comment| comment["host"].as_str().unwrap().to_owned()).collect()
}

/// Our tools under the names that the jails have for them, with these settings.
fn wrap(world: &World, tool: &str) -> PathBuf {
    let program = world.path(tool);
    let script = format!(
        "#!/bin/sh\nRINGFENCE_CONFIG='{}' exec '{}' \"$@\"\n",
        world.config().display(),
        cargo_bin(tool).display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    program
}

fn log_of(world: &World, jail: &Jail) -> PathBuf {
    world.path(&format!("{}.log", jail.name))
}

/// All of them enabled, each with a log of its own. Its samples are of days that are over.
fn jail_local(world: &World, jails: &[Jail]) -> String {
    let [ban, ignore] =
        ["ringfence-ban", "ringfence-ignore"].map(|tool| wrap(world, tool).display().to_string());
    let mut text = format!(
        "[DEFAULT]\nbackend = polling\n\
         ringfence_banaction = ringfence-ban[ringfence-ban={ban}]\n\
         ringfence_banaction_allports = ringfence-ban-allports[ringfence-ban={ban}]\n\
         ringfence_ignorecommand = exec {ignore} \"<ip>\"\n"
    );
    for jail in jails {
        let log = log_of(world, jail);
        std::fs::write(&log, "").unwrap();
        writeln!(
            text,
            "[{}]\nenabled = true\nbackend = polling\nlogpath = {}\nfindtime = 9000d\nbantime = 10000d",
            jail.name,
            log.display()
        )
        .unwrap();
    }
    text
}

/// Packets from there that any of our jails would drop.
fn knocks(from: &str) -> [Packet; 2] {
    [udp(from, 5060, "REGISTER"), tcp(from, 443, SYN, "")]
}

#[test]
fn every_jail_bans_whom_its_samples_name_and_nobody_else() {
    let pbx = Pbx::new("nft", "");
    let database = pbx.world.path("fail2ban/fail2ban.sqlite3");
    pbx.configure(&format!("[fail2ban]\ndatabase = \"{}\"\n", database.display()));
    let jails = jails();
    let path = std::env::var("PATH").unwrap();
    let mut fail2ban = Fail2ban::start(&pbx.host, &pbx.world, &jail_local(&pbx.world, &jails), &path);
    let gate = Gate::new(&pbx);
    let guilty: BTreeSet<&String> = jails.iter().flat_map(|jail| &jail.guilty).collect();
    gate.host(guilty.iter().map(|host| host.as_str()));

    // The rules are there before anybody is banned.
    let chain = |version: &str| run(pbx.host.command(&format!("{version}-nft")).args(["-S", "RF-BAN"]));
    wait_for("the rules", || {
        let rules = [chain("iptables"), chain("ip6tables")].concat();
        jails.iter().all(|jail| rules.matches(&format!("rf-ban-{}", &jail.name[..9])).count() >= 2)
    });
    for host in &guilty {
        assert_eq!(gate.let_in(&knocks(host)), [true; 2], "{host}");
    }

    let mut expected = BTreeMap::new();
    for jail in &jails {
        let maxretry = fail2ban.client(&["get", &jail.name, "maxretry"]).unwrap();
        let lines = jail.lines.repeat(maxretry.trim().parse().unwrap());
        std::fs::write(log_of(&pbx.world, jail), lines).unwrap();
        expected.insert(&jail.name, jail.guilty.clone());
    }
    let banned = || -> BTreeMap<_, BTreeSet<_>> {
        jails.iter().map(|jail| (&jail.name, fail2ban.banned(&jail.name).into_iter().collect())).collect()
    };
    wait_for("the bans", || {
        let banned = banned();
        expected.iter().all(|(jail, guilty)| guilty.is_subset(&banned[jail]))
    });
    assert_eq!(banned(), expected, "{}", fail2ban.log());
    fail2ban.is_content();

    // Each is in the sets of his jails, and cut off.
    for host in &guilty {
        let [sip, web] = <[bool; 2]>::try_from(gate.let_in(&knocks(host))).unwrap();
        assert!(!(sip && web), "{host} is banned");
    }
    for jail in &jails {
        let [v4, v6] = in_kernel(&pbx, &jail.name);
        let expected = |ipv6: bool| jail.guilty.iter().filter(|host| host.contains(':') == ipv6).count();
        assert_eq!([v4, v6], [expected(false), expected(true)], "{}", jail.name);
    }

    // One is let go, in every jail; the others outlast a restart.
    let host = jails[0].guilty.first().unwrap();
    for jail in &jails {
        fail2ban.client(&["set", &jail.name, "unbanip", host]);
    }
    assert_eq!(gate.let_in(&knocks(host)), [true; 2]);
    fail2ban.stop();
    for jail in &jails {
        std::fs::write(log_of(&pbx.world, jail), "").unwrap();
    }
    assert!(!pbx.saved().contains("RF-BAN"));
    fail2ban.start_again();
    wait_for("the restored bans", || {
        jails.iter().all(|jail| {
            let guilty = jail.guilty.iter().filter(|other| *other != host).count();
            in_kernel(&pbx, &jail.name).iter().sum::<usize>() == guilty
        })
    });
    for other in guilty.iter().filter(|other| **other != host) {
        assert_ne!(gate.let_in(&knocks(other)), [true; 2], "{other}");
    }
    assert_eq!(gate.let_in(&knocks(host)), [true; 2]);
    fail2ban.is_content();
}

/// How many addresses of IPv4 and of IPv6 a jail's sets hold.
fn in_kernel(pbx: &Pbx, jail: &str) -> [usize; 2] {
    let call = run(pbx.host.command("env").args([
        &format!("RINGFENCE_CONFIG={}", pbx.world.config().display()),
        &cargo_bin("ringfence-ban").display().to_string(),
        "list",
        "--json",
    ]));
    let jails: Vec<serde_json::Value> = serde_json::from_str(&call).unwrap();
    let entry = jails.iter().find(|entry| entry["jail"] == jail);
    ["ipv4", "ipv6"].map(|family| {
        entry
            .and_then(|entry| entry[family].as_u64())
            .map_or(usize::MAX >> 8, |count| count.try_into().unwrap())
    })
}

/// A filter that is not installed has no jail, and one that is has samples.
#[test]
fn every_filter_has_samples() {
    for entry in std::fs::read_dir(project("fail2ban/filter.d")).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        let name = Path::new(path.file_stem().unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        let is_a_part = !text.contains("\nfailregex");
        assert!(is_a_part || data("samples").join(name).exists(), "{}", path.display());
    }
}
