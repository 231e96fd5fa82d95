//! Every jail that bans addresses, as it is shipped: lines of its log, a real fail2ban, the kernel's sets, packets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use assert_cmd::cargo::cargo_bin;

use ringfence::kernel_sets::{Banned, Family};

use crate::support::packets::{Gate, Packet, SYN, tcp, udp};
use crate::support::samples::{Samples, samples};
use crate::support::{Fail2ban, Pbx, World, data, project, run, wait_for};

/// A jail of ours that bans addresses.
#[derive(Debug)]
struct Jail {
    name: String,
    /// Its samples.
    lines: Vec<u8>,
    /// Who is to be banned: the hosts of its samples.
    guilty: BTreeSet<String>,
    /// Those among them whom no other jail bans.
    own: Vec<String>,
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
            let mode = options.trim_end_matches(']').strip_prefix("mode=");
            let options = mode.map_or_else(String::new, |mode| format!("[mode={mode}]"));
            let samples = samples(filter).into_iter().find(|samples| samples.options == options);
            let samples = samples.unwrap_or_else(|| panic!("{filter} has no samples of {options:?}"));
            jails.push(Jail::of(name, jails.len() + 1, &samples));
        }
    }
    assert!(!jails.is_empty());
    jails
}

impl Jail {
    /// With an attacker of its own, in each family that its samples have.
    fn of(name: &str, number: usize, samples: &Samples) -> Self {
        let mut jail = Self {
            name: name.to_owned(),
            lines: samples.lines.concat(),
            own: vec![],
            guilty: samples.guilty.clone(),
        };
        for (ipv6, own) in
            [(false, format!("10.66.{number}.1")), (true, format!("2001:db8:6600::{number:x}"))]
        {
            if let Some(host) = samples.guilty.iter().find(|host| host.contains(':') == ipv6) {
                jail.lines = replaced(&jail.lines, host, &own);
                jail.guilty.remove(host);
                jail.guilty.insert(own.clone());
                jail.own.push(own);
            }
        }
        assert!(!jail.own.is_empty(), "{name} has nobody to ban");
        jail
    }
}

/// The text with an address replaced, where it is not a part of a longer one.
fn replaced(text: &[u8], address: &str, by: &str) -> Vec<u8> {
    let is_part = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let (mut replaced, mut at) = (vec![], 0);
    while at < text.len() {
        let before = at.checked_sub(1).and_then(|before| text.get(before));
        if text[at..].starts_with(address.as_bytes())
            && !is_part(before)
            && !is_part(text.get(at + address.len()))
        {
            replaced.extend(by.as_bytes());
            at += address.len();
        } else {
            replaced.push(text[at]);
            at += 1;
        }
    }
    replaced
}

/// Our tools under the names that the jails have for them, with these settings.
fn wrap(world: &World, tool: &str) -> PathBuf {
    let script = format!(
        "RINGFENCE_CONFIG='{}' exec '{}' \"$@\"",
        world.config().display(),
        cargo_bin(tool).display()
    );
    world.has_program(tool, &script)
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

/// What a jail closes.
#[derive(Debug)]
struct Reach {
    /// Both ends of each range; all of them, if there is none.
    ports: Vec<(u16, u16)>,
    protocols: Vec<fn(&str, u16) -> Packet>,
}

/// A port that no jail closes, but those that close all.
const OTHER_PORT: u16 = 2222;

fn knock(from: &str, port: u16) -> Packet {
    tcp(from, port, SYN, "")
}

fn say(from: &str, port: u16) -> Packet {
    udp(from, port, "REGISTER")
}

impl Reach {
    /// As it is listed: `5060,5080:5081 tcp,udp`, or `everything`.
    fn parse(closed: &str) -> Self {
        let (ports, protocols) = closed.split_once(' ').unwrap_or(("", "tcp,udp"));
        let range = |ports: &str| {
            let (first, last) = ports.split_once(':').unwrap_or((ports, ports));
            (first.parse().unwrap(), last.parse().unwrap())
        };
        let protocol = |name: &str| match name {
            "tcp" => knock as fn(&str, u16) -> Packet,
            "udp" => say,
            _ => panic!("{closed}"),
        };
        Self {
            ports: ports.split(',').filter(|ports| !ports.is_empty()).map(range).collect(),
            protocols: protocols.split(',').map(protocol).collect(),
        }
    }

    /// Packets from there that the jail stops.
    fn closed(&self, from: &str) -> Vec<Packet> {
        let all = [(OTHER_PORT, OTHER_PORT)];
        let ports = if self.ports.is_empty() { &all[..] } else { &self.ports };
        let ports = ports.iter().flat_map(|(first, last)| [*first, *last]);
        ports.flat_map(|port| self.protocols.iter().map(move |packet| packet(from, port))).collect()
    }

    /// Packets from there that the jail has nothing against.
    fn open(&self, from: &str) -> Vec<Packet> {
        if self.ports.is_empty() { vec![] } else { vec![knock(from, OTHER_PORT), say(from, OTHER_PORT)] }
    }
}

/// The jail closes to its own attackers what is its, and nothing else.
fn closes(gate: &Gate<'_>, jail: &Jail, reach: &Reach, but: &str) {
    for host in jail.own.iter().filter(|host| *host != but) {
        let closed = gate.let_in(&reach.closed(host));
        assert!(!closed.contains(&true), "{}, {host}, {reach:?}: {closed:?}", jail.name);
        assert!(!gate.let_in(&reach.open(host)).contains(&false), "{}, {host}", jail.name);
    }
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
        jails.iter().all(|jail| {
            let [v4, v6] = sets(&jail.name).map(|set| rules.contains(&format!(" --match-set {set} src ")));
            v4 && v6
        })
    });
    let closed: Vec<_> =
        jails.iter().map(|jail| Reach::parse(listed(&pbx, &jail.name)["closed"].as_str().unwrap())).collect();
    for (jail, reach) in jails.iter().zip(&closed) {
        for host in &jail.own {
            assert!(!gate.let_in(&reach.closed(host)).contains(&false), "{host}");
        }
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

    // Each is in the sets of his jails, and each jail cuts off its own.
    for (jail, reach) in jails.iter().zip(&closed) {
        closes(&gate, jail, reach, "");
        let [v4, v6] = in_kernel(&pbx, &jail.name);
        let expected = |ipv6: bool| jail.guilty.iter().filter(|host| host.contains(':') == ipv6).count();
        assert_eq!([v4, v6], [expected(false), expected(true)], "{}", jail.name);
    }

    // One is let go, in every jail; the others outlast a restart.
    let host = &jails[0].own[0];
    for jail in &jails {
        fail2ban.client(&["set", &jail.name, "unbanip", host]);
    }
    let is_free = || !gate.let_in(&closed[0].closed(host)).contains(&false);
    assert!(is_free());
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
    for (jail, reach) in jails.iter().zip(&closed) {
        closes(&gate, jail, reach, host);
    }
    assert!(is_free());
    fail2ban.is_content();
}

/// The names of a jail's sets.
fn sets(jail: &str) -> [String; 2] {
    [Family::V4, Family::V6].map(|family| Banned::of(jail).name(family).to_owned())
}

/// What `ringfence-ban list` says of a jail; null if nothing.
fn listed(pbx: &Pbx, jail: &str) -> serde_json::Value {
    let jails = run(&mut pbx.ban_command(&["list", "--json"]));
    let jails: Vec<serde_json::Value> = serde_json::from_str(&jails).unwrap();
    jails.into_iter().find(|entry| entry["jail"] == jail).unwrap_or_default()
}

/// How many addresses of IPv4 and of IPv6 a jail's sets hold.
fn in_kernel(pbx: &Pbx, jail: &str) -> [usize; 2] {
    let entry = listed(pbx, jail);
    ["ipv4", "ipv6"]
        .map(|family| entry[family].as_u64().map_or(usize::MAX >> 8, |count| count.try_into().unwrap()))
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
