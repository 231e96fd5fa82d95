//! `ringfence status`: all is well, or what is not, on real parts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::Value;

use crate::support::packets::STRANGERS;
use crate::support::pbx::{PHONES, UNVERIFIED};
use crate::support::{Banner, Call, EventSource, Events, Fail2ban, Host, Pbx, World, call, wait_for};

with_both_variants! {
    a_host_where_all_is_well_fits_on_one_screen
    each_thing_that_is_not_well_is_one_line_with_a_command
    what_cannot_be_read_is_said_and_the_rest_is_shown
}

const JAIL: (&str, &str) = ("sip", "port = 5060\nprotocol = udp");
const BLOCKED: &str = "999@a.example.com";
const UNITS: [&str; 7] = [
    "ringfence-firewall.timer",
    "ringfence-ban.timer",
    "ringfence-block.timer",
    "ringfence-allow.timer",
    "ringfence-lists.timer",
    "ringfence-sets.service",
    "ringfence-events.service",
];

/// A systemd that knows our units.
struct Systemd<'a>(&'a Pbx);

impl<'a> Systemd<'a> {
    /// All of them are active.
    fn start(pbx: &'a Pbx) -> Self {
        let systemd = Self(pbx);
        systemd.says(&BTreeMap::new());
        let program = pbx.world.has_program(
            "systemctl",
            &format!("[ \"$1\" = show ] && exec cat '{}'", pbx.world.path("units").display()),
        );
        pbx.host.shell(&format!(
            "mkdir -p /run/systemd/system; mount --bind {} /usr/bin/systemctl",
            program.display()
        ));
        systemd
    }

    /// All but these are active: load and active state, and the result.
    fn says(&self, others: &BTreeMap<&str, [&str; 3]>) {
        let services =
            UNITS.iter().filter_map(|unit| Some(unit.strip_suffix(".timer")?.to_owned() + ".service"));
        let units = UNITS.iter().map(ToString::to_string).chain(services);
        let block = |unit: String| {
            let idle =
                ["loaded", if UNITS.contains(&unit.as_str()) { "active" } else { "inactive" }, "success"];
            let [load, active, result] = others.get(unit.as_str()).copied().unwrap_or(idle);
            format!("Result={result}\nId={unit}\nLoadState={load}\nActiveState={active}\nSubState=x\n")
        };
        std::fs::write(self.0.world.path("units"), units.map(block).collect::<Vec<_>>().join("\n")).unwrap();
    }
}

/// Where every tool has something to do.
fn host(variant: &'static str) -> Banner {
    let banner = Banner::new(variant);
    let [v4, v6] = STRANGERS[0];
    banner.configure(
        "",
        &format!("[lists.bad]\nkind = \"block\"\nentries = [\"{v4}\", \"{v6}\"]\n{UNVERIFIED}"),
    );
    banner
}

/// The same with a fail2ban that bans, rules in their order, and blocks.
fn busy(banner: &Banner) -> Fail2ban<'_> {
    let pbx = &banner.pbx;
    let fail2ban = banner.fail2ban(&[JAIL]);
    banner.refused("sip", &PHONES[1]);
    wait_for("the bans", || banner.banned("sip").len() == 2);
    assert_eq!(pbx.lists(&["refresh"]).code, 0);
    let applied = pbx.firewall(&["apply", "--yes"]);
    assert_eq!((applied.code, applied.stderr.as_str()), (0, ""));
    pbx.ban(BLOCKED);
    let allowed = call(&mut pbx.there(&pbx.world.allow_command(&["add", "--for=1h", PHONES[0][0]])));
    assert_eq!((allowed.code, allowed.stderr.as_str()), (0, ""));
    fail2ban
}

#[track_caller]
fn status(pbx: &Pbx, code: i32, args: &[&str]) -> String {
    let call = pbx.admin(&[&["status"], args].concat());
    assert_eq!((call.code, call.stderr.as_str()), (code, ""), "{}", call.stdout);
    call.stdout
}

#[track_caller]
fn json(pbx: &Pbx, code: i32) -> Value {
    serde_json::from_str(&status(pbx, code, &["--json"])).unwrap()
}

fn a_host_where_all_is_well_fits_on_one_screen(variant: &'static str) {
    let banner = host(variant);
    let pbx = &banner.pbx;
    let _systemd = Systemd::start(pbx);
    let _fail2ban = busy(&banner);

    let text = status(pbx, 0, &[]);
    assert!(
        text.starts_with("All is well.\n\nmode       enforce\norder      verified, IPv4 and IPv6\n"),
        "{text}"
    );
    assert!(text.lines().count() <= 40 && text.lines().all(|line| line.chars().count() <= 80), "{text}");
    for part in [
        "services   systemd runs firewall, ban, block, allow, lists, sets, events\n",
        "blocks     1 account, the next ends in ",
        "addresses  1 allowed for a time, 0 seen registered within a day; 1 IPv4 and 0\n           IPv6 in the kernel\n",
        "events     not in use\n",
        "lists      1 IPv4 and 1 IPv6 networks blocked, 0 and 0 allowed; loaded ",
        "LIST  KIND   NETWORKS  AGE  LAST RESULT\nbad   block         2  ",
        "JAIL  BANNED  IN KERNEL  HITS\nsip        2          2     0\n",
        "\nban                 jail ",
    ] {
        assert!(text.contains(part), "{part:?}: {text}");
    }

    let json = json(pbx, 0);
    assert_eq!((&json["attention"], &json["mode"]["observe"]), (&Value::Array(vec![]), &false.into()));
    assert_eq!((&json["jails"][0]["jail"], &json["jails"][0]["banned"]), (&"sip".into(), &2.into()));
    assert_eq!((&json["blocks"]["count"], &json["blocks"]["matcher"]), (&1.into(), &"strings".into()));
    assert_eq!(json["lists"]["lists"][0]["name"], "bad");
    assert_eq!(json["addresses"]["allowed"], 1);
    assert_eq!(json["decisions"][0]["count"].as_u64().map(|count| count > 0), Some(true));

    let metrics = exposition(&status(pbx, 0, &["--prometheus", "-"]));
    for (name, value) in [
        ("ringfence_attention{about=\"lists\"}", "0"),
        ("ringfence_observe{section=\"global\"}", "0"),
        ("ringfence_paused", "0"),
        ("ringfence_order_verified", "1"),
        ("ringfence_unit_running{unit=\"ringfence-ban.timer\"}", "1"),
        ("ringfence_jail_banned{jail=\"sip\"}", "2"),
        ("ringfence_jail_kernel_entries{jail=\"sip\",family=\"ipv6\"}", "1"),
        ("ringfence_blocks", "1"),
        ("ringfence_blocks_in_kernel", "1"),
        ("ringfence_matcher{matcher=\"strings\"}", "1"),
        ("ringfence_list_networks{list=\"bad\",kind=\"block\",family=\"ipv4\"}", "1"),
        ("ringfence_list_refused{list=\"bad\"}", "0"),
        ("ringfence_allowed_addresses", "1"),
        (
            "ringfence_decisions_last_day{tool=\"ringfence-ban\",decision=\"ban\",reason=\"jail\",mode=\"enforce\"}",
            "2",
        ),
    ] {
        assert_eq!(metrics.get(name).map(String::as_str), Some(value), "{name}: {metrics:#?}");
    }
    assert!(!metrics.contains_key("ringfence_live_registered_addresses"), "what is not known is not there");

    // A file is replaced whole, and everybody may read it.
    let file = pbx.world.path("metrics/ringfence.prom");
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "old").unwrap();
    assert_eq!(status(pbx, 0, &["--prometheus", file.to_str().unwrap()]), "");
    exposition(&std::fs::read_to_string(&file).unwrap());
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "nothing is beside it");
    let nowhere = pbx.admin(&["status", "--prometheus", "/nonexistent/x.prom"]);
    assert_eq!((nowhere.code, nowhere.stdout.as_str()), (2, ""));
    assert!(nowhere.stderr.contains("cannot write /nonexistent/x.prom"), "{}", nowhere.stderr);
    let unread = pbx.admin(&["status", "--prometheus", "/tmp/x.txt"]);
    assert_eq!((unread.code, unread.stdout.as_str()), (2, ""));
    assert!(unread.stderr.contains("end in .prom"), "{}", unread.stderr);

    // What matches nobody is not told.
    pbx.unban(BLOCKED);
    let text = status(pbx, 0, &[]);
    assert!(text.contains("\nblocks     nobody is blocked\n"), "{text}");
}

/// What needs attention, each in one line.
fn unwrapped(text: &str) -> String {
    text.replace("\n  ", " ")
}

/// Exactly this is said; `...` stands for any text.
#[track_caller]
fn says(pbx: &Pbx, what: &str, lines: &[&str]) {
    let text = unwrapped(&status(pbx, 1, &[]));
    let dir = pbx.world.dir().display().to_string();
    let found = text.lines().filter_map(|line| line.strip_prefix("- "));
    let found: Vec<_> = found.map(|line| line.replace(&dir, "DIR")).collect();
    let is = |found: &String, line: &str| match line.split_once("...") {
        Some((start, end)) => found.starts_with(start) && found.ends_with(end),
        None => found == line,
    };
    let right = found.len() == lines.len() && found.iter().zip(lines).all(|(found, line)| is(found, line));
    assert!(right, "{what}: {found:#?}");
    let things = match lines.len() {
        1 => "1 thing needs attention:\n".to_owned(),
        count => format!("{count} things need attention:\n"),
    };
    assert!(text.contains(&things), "{text}");
}

#[track_caller]
fn is_well(pbx: &Pbx, what: &str) {
    let text = status(pbx, 0, &[]);
    assert!(text.starts_with("All is well.\n"), "{what}: {text}");
}

fn each_thing_that_is_not_well_is_one_line_with_a_command(variant: &'static str) {
    let banner = host(variant);
    let pbx = &banner.pbx;
    let systemd = Systemd::start(pbx);
    let _fail2ban = busy(&banner);
    let program = format!("iptables-{variant}");
    is_well(pbx, "first of all");

    let settings = pbx.world.config();
    std::fs::set_permissions(&settings, Permissions::from_mode(0o666)).unwrap();
    says(
        pbx,
        "settings",
        &[
            "DIR/ringfence.toml, the settings of programs that root runs, has the mode 0666 (ringfence doctor)",
        ],
    );
    std::fs::set_permissions(&settings, Permissions::from_mode(0o640)).unwrap();
    is_well(pbx, "settings");

    pbx.host.shell(&format!("{program} -F RF-BAN"));
    says(pbx, "bans", &["the rules of the jail sip are not in the kernel (ringfence-ban list)"]);
    banner.does(&["sync"]);
    is_well(pbx, "bans");

    pbx.host.shell(&format!("{program} -F RINGFENCE"));
    says(
        pbx,
        "order",
        &["the rules of IPv4, and their jump directly behind the bans: they are not as they were applied \
             (ringfence-firewall restore)"],
    );
    assert_eq!(json(pbx, 1)["attention"][0]["about"], "order");
    assert_eq!(exposition(&status(pbx, 0, &["--prometheus", "-"]))["ringfence_order_verified"], "0");
    assert_eq!(pbx.firewall(&["restore"]).code, 0);
    is_well(pbx, "order");

    let applied = pbx.firewall(&["apply", "--confirm-within", "1h"]);
    assert_eq!(applied.code, 0, "{}", applied.stderr);
    says(
        pbx,
        "apply",
        &["the rules wait for their confirmation, and are taken back in ... (ringfence-firewall confirm)"],
    );
    assert_eq!(pbx.firewall(&["confirm"]).code, 0);
    is_well(pbx, "apply");

    for family in ["iptables", "ip6tables"].map(|family| format!("{family}-{variant}")) {
        pbx.host.shell(&format!(
            "for chain in $({family} -S | grep -oE 'RF-BLOCK-[0-9a-f]{{16}}' | sort -u); do {family} -F $chain; done"
        ));
    }
    let blocks = unwrapped(&status(pbx, 1, &[]));
    assert!(
        blocks.contains("- 1 of 1 blocked accounts are not in the kernel (ringfence-block list)\n"),
        "{blocks}"
    );
    pbx.does(&["expire"]);
    is_well(pbx, "blocks");

    systemd.says(&BTreeMap::from([
        ("ringfence-block.timer", ["loaded", "inactive", "success"]),
        ("ringfence-ban.service", ["loaded", "failed", "exit-code"]),
        ("ringfence-lists.timer", ["not-found", "inactive", "success"]),
        // Nobody uses it.
        ("ringfence-events.service", ["not-found", "inactive", "success"]),
    ]));
    says(
        pbx,
        "services",
        &[
            "ringfence-ban.service failed (exit-code) (systemctl status ringfence-ban.service)",
            "ringfence-block.timer does not run (systemctl enable --now ringfence-block.timer)",
            "ringfence-lists.timer is not installed (man ringfence-lists)",
        ],
    );
    systemd.says(&BTreeMap::new());

    assert_eq!(pbx.admin(&["pause", "10m"]).code, 0);
    says(pbx, "pause", &["all blocking is lifted for another ... (ringfence pause --end)"]);
    assert!(status(pbx, 1, &[]).starts_with("Paused until "));
    assert_eq!(pbx.admin(&["pause", "--end"]).code, 0);
    is_well(pbx, "pause");
}

fn what_cannot_be_read_is_said_and_the_rest_is_shown(variant: &'static str) {
    let banner = host(variant);
    let pbx = &banner.pbx;
    let _systemd = Systemd::start(pbx);
    let mut fail2ban = busy(&banner);
    // One line each, and nothing is mended.
    let damage = |name: &str, restore: bool| {
        let (path, aside) = (pbx.world.path(name), pbx.world.path("aside"));
        if restore {
            let _ = std::fs::remove_dir_all(&path);
            std::fs::rename(aside, path).unwrap();
        } else {
            std::fs::rename(&path, aside).unwrap();
            std::fs::write(&path, "damaged").unwrap();
        }
    };
    for (name, line) in [
        ("state/ledger.db", "who is blocked: not known: ...(ringfence-block list)"),
        (
            "run/bans.json",
            "the jails that have started: not known: DIR/run/bans.json is damaged...(ringfence-ban list)",
        ),
        (
            "state/allowed",
            "who is allowed: not known: cannot read DIR/state/allowed...(ringfence-allow list)",
        ),
        (
            "log/decisions.jsonl",
            "1 line is none of the format of DIR/log/decisions.jsonl (ls -l DIR/log/decisions.jsonl)",
        ),
        ("state/lists/status.json", "what became of the lists is forgotten: ... (ringfence-lists show)"),
    ] {
        damage(name, false);
        if name == "log/decisions.jsonl" {
            std::fs::write(pbx.world.path(name), "damaged\n").unwrap();
        }
        says(pbx, name, &[line]);
        assert!(std::fs::read_to_string(pbx.world.path(name)).unwrap().starts_with("damaged"), "{name}");
        damage(name, true);
    }
    is_well(pbx, "damage");

    // A list that was refused, and one that nobody fetched yet.
    let settings = std::fs::read_to_string(pbx.world.config()).unwrap();
    std::fs::write(
        pbx.world.config(),
        format!("{settings}[lists.new]\nkind = \"block\"\nurl = \"http://127.0.0.1:1/\"\n"),
    )
    .unwrap();
    says(pbx, "a new list", &["new was not fetched yet (ringfence-lists show)"]);
    assert_eq!(pbx.lists(&["refresh"]).code, 1);
    says(pbx, "a list", &["new was refused, and has no copy: ... (ringfence-lists show)"]);
    std::fs::write(pbx.world.config(), settings.clone() + "[nonsense]\n").unwrap();
    let broken = pbx.admin(&["status"]);
    assert_eq!(broken.code, 2);
    assert!(
        unwrapped(&broken.stdout).contains("- the settings cannot be used: ")
            && broken.stdout.contains("(ringfence validate)"),
        "{}",
        broken.stdout
    );
    std::fs::write(pbx.world.config(), settings).unwrap();
    assert_eq!(pbx.lists(&["refresh"]).code, 0);
    is_well(pbx, "lists");

    fail2ban.kill();
    let dead = ["fail2ban does not run, and its jails see nobody (systemctl status fail2ban)"];
    says(pbx, "fail2ban", &dead);
    // After a boot, nothing of it is in the run directory.
    for program in ["iptables", "ip6tables"].map(|program| format!("{program}-{variant}")) {
        pbx.host.shell(&format!("{program} -F RF-BAN"));
    }
    std::fs::remove_file(pbx.world.path("run/bans.json")).unwrap();
    let text = unwrapped(&status(pbx, 1, &[]));
    assert!(text.contains(&format!("- {}\n", dead[0])), "{text}");
}

#[test]
fn nothing_is_in_use_and_nothing_is_made() {
    let pbx = Pbx::new("nft", "");
    pbx.host.shell("mount --bind /dev/null /usr/bin/fail2ban-client");
    let text = status(&pbx, 0, &[]);
    assert!(text.starts_with("All is well.\n"), "{text}");
    assert!(text.contains("services   none, and none is needed\n"), "{text}");
    for dir in ["state", "run", "log"] {
        assert!(!pbx.world.path(dir).exists(), "{dir}");
    }
    pbx.world.configure("");
    let settings = std::fs::read_to_string(pbx.world.config()).unwrap();
    std::fs::write(pbx.world.config(), format!("mode = \"observe\"\n{settings}")).unwrap();
    let text = status(&pbx, 0, &[]);
    assert!(text.starts_with("All is well, and mode is observe: nothing is blocked.\n"), "{text}");
}

#[test]
fn what_matches_accounts_is_named() {
    let pbx = Pbx::new("bpf", UNVERIFIED);
    pbx.ban(BLOCKED);
    let blocks = &json(&pbx, 1)["blocks"];
    assert_eq!(
        (&blocks["matcher"], &blocks["count"], &blocks["in-kernel"]),
        (&"bpf".into(), &1.into(), &1.into())
    );
    assert_eq!(blocks["matched"], "Matched by the program in the kernel, at eth0.");
    let text = unwrapped(&status(&pbx, 1, &[]));
    // Nothing runs what lets go.
    let line = "- nothing runs ringfence-block expire: there is no systemd, and no crontab names it (man ringfence-block)\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn nobody_is_waited_for_long() {
    let banner = host("nft");
    let pbx = &banner.pbx;
    let hangs = pbx.world.has_program("systemctl", "exec sleep 100");
    pbx.host
        .shell(&format!("mkdir -p /run/systemd/system; mount --bind {} /usr/bin/systemctl", hangs.display()));
    std::fs::create_dir_all(pbx.world.path("fail2ban")).unwrap();
    // It takes calls, and never answers.
    let _socket = std::os::unix::net::UnixListener::bind(pbx.world.path("fail2ban/socket")).unwrap();
    let call: Call = pbx.admin(&["status"]);
    assert!(call.took < Duration::from_secs(40), "{:?}", call.took);
    assert_eq!((call.code, call.stderr.as_str()), (1, ""));
    for line in [
        "- what runs our tools: not known: systemctl did not get done within 3 s",
        "- whom fail2ban bans: not known: ",
    ] {
        assert!(unwrapped(&call.stdout).contains(line), "{line}: {}", call.stdout);
    }
}

#[test]
fn the_service_of_events_says_who_is_registered() {
    let (world, host) = (World::with_databases(), Host::new());
    let source = EventSource::on(host.inside(|| TcpListener::bind("127.0.0.1:0").unwrap()));
    let metrics = world.path("events.prom");
    world.configure(&format!(
        "source = \"sqlite\"\nevent-socket = {{ address = \"127.0.0.1:{}\", password = \"ClueCon\" }}\n\
         [events]\nmetrics = \"{}\"\n",
        source.port,
        metrics.display()
    ));
    world.register("sofia_reg_internal.db", "203.0.113.20", 3_600);
    let mut events = Events::spawn(&world, &mut host.call(&world.events_command(&["run"])));
    let stream = source.listener();
    let status = || {
        let mut command = host.command("env");
        command.arg(format!("RINGFENCE_CONFIG={}", world.config().display()));
        let admin = world.admin_command(&["status", "--json"]);
        let call = call(command.arg(admin.get_program()).args(admin.get_args()));
        (call.code, serde_json::from_str::<Value>(&call.stdout).unwrap())
    };
    wait_for("who is registered", || {
        let (_, status) = status();
        status["events"]["live"] == true && status["events"]["addresses"] == 1
    });
    wait_for("the counts", || status().1["events"]["counted"]["connected"] == true);
    let (_, found) = status();
    assert!(!found["attention"].to_string().contains("\"events\""), "{found}");
    assert_eq!(found["events"]["counted"]["lines"]["failure"], 0);
    drop(stream);
    events.end();
    wait_for("silence", || status().1["events"]["live"] == false);
    let (code, found) = status();
    assert_eq!(code, 1);
    let what = found["attention"].as_array().unwrap().iter().map(|one| one["what"].as_str().unwrap());
    assert!(
        what.into_iter().any(|what| what.contains("who is registered; all tools ask by themselves")),
        "{found}"
    );
}

/// Reads the text format of Prometheus, version 0.0.4, and nothing else: each metric with its labels as they stand there.
#[track_caller]
fn exposition(text: &str) -> BTreeMap<String, String> {
    let is_name = |name: &str| {
        let start = |c: char| c.is_ascii_alphabetic() || c == '_';
        name.starts_with(start) && name.chars().all(|c| start(c) || c.is_ascii_digit() || c == ':')
    };
    assert!(text.ends_with('\n'));
    let (mut samples, mut families) = (BTreeMap::new(), BTreeSet::new());
    let (mut family, mut helped) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(is_name(name) && !words.is_empty() && !words.contains('\\'), "{line}");
            name.clone_into(&mut helped);
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, helped, "HELP and TYPE come together");
            assert!(["gauge", "counter"].contains(&kind), "{line}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            assert!(name.starts_with("ringfence_"), "{line}");
            assert!(families.insert(name.to_owned()), "a family is in one place: {line}");
            name.clone_into(&mut family);
            continue;
        }
        let end = line.find(['{', ' ']).unwrap();
        assert_eq!(&line[..end], family, "{line}");
        let mut rest = &line[end..];
        let mut names = BTreeSet::new();
        if let Some(labels) = rest.strip_prefix('{') {
            rest = labels;
            loop {
                let (name, value) = rest.split_once("=\"").unwrap();
                assert!(is_name(name) && !name.contains(':') && names.insert(name.to_owned()), "{line}");
                let mut end = 0;
                while value.as_bytes()[end] != b'"' {
                    if value.as_bytes()[end] == b'\\' {
                        end += 1;
                        assert!(b"\\\"n".contains(&value.as_bytes()[end]), "{line}");
                    }
                    end += 1;
                }
                rest = &value[end + 1..];
                match rest.strip_prefix(',') {
                    Some(more) => rest = more,
                    None => break,
                }
            }
            rest = rest.strip_prefix('}').unwrap();
        }
        let value = rest.strip_prefix(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "a number, and no time: {line}");
        let name = line[..line.len() - value.len() - 1].to_owned();
        assert!(samples.insert(name, value.to_owned()).is_none(), "twice: {line}");
    }
    samples
}
