//! `ringfence-firewall verify --probe`: the rules tried, in namespaces that leave nothing behind.

use assert_cmd::cargo::cargo_bin;

use crate::support::{Call, Pbx, call, wait_for};

const RICH: &str = r#"
[lists.office]
kind = "allow"
entries = ["203.0.113.0/24", "2001:db8:20::/48"]
exempts = []
[lists.phones]
kind = "allow"
entries = ["198.51.100.0/24", "2001:db8:21::/48"]
exempts = []
[firewall]
connection-tracking = "on"
agents = ["friendly-scanner", "sipvicious"]
log-prefix = "gone: "
register-limit = "5/minute burst 3"
options-limit = "100/second burst 1000"
limits = [{ ports = ["22"], rate = "6/minute" }, { ports = ["20-25"], rate = "60/minute burst 30" }]
restrict = [
    { ports = ["5080", "443"], to = ["office"] },
    { ports = ["443"], to = ["phones"] },
    { ports = ["5060"], to = ["office", "phones"] },
]
"#;

/// Those that run; the host's first process takes no notice of the dead.
// Listed before they are sorted: who sorts may be no more than a shell yet.
const PROCESSES: &str =
    "processes=$(ps -eo stat=,comm=); echo \"$processes\" | sed -n '/^[^Z]/s/.* //p' | sort | uniq -c";

/// A call of a tool, as one of the host's processes.
#[track_caller]
fn tool(pbx: &Pbx, name: &str, args: &[&str]) -> Call {
    let mut command = pbx.host.command("env");
    command.arg(format!("RINGFENCE_CONFIG={}", pbx.world.config().display()));
    call(command.arg(cargo_bin(name)).args(args))
}

/// A host whose rules are there.
#[track_caller]
fn applied(variant: &'static str, settings: &str) -> Pbx {
    let pbx = Pbx::new(variant, settings);
    for (name, args) in [("ringfence-lists", &["refresh"][..]), ("ringfence-firewall", &["apply", "--yes"])] {
        let done = tool(&pbx, name, args);
        assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{name}");
    }
    // What waits for a confirmation sees that there is one.
    wait_for("the end of apply", || !pbx.host.shell(PROCESSES).contains("exe"));
    pbx
}

/// What is in the first and not in the second: of all that a probe could leave behind, or take away.
fn differences(one: &[String], other: &[String]) -> Vec<String> {
    one.iter().filter(|line| !other.contains(line)).cloned().collect()
}

fn traces(pbx: &Pbx) -> Vec<String> {
    let more = "ip -o link; ip -o -4 addr; ip -4 route show table all; ipset list -n; ls /run
        lsns -n -t net -o TYPE\n";
    (pbx.saved() + &pbx.host.shell(&(more.to_owned() + PROCESSES))).lines().map(str::to_owned).collect()
}

/// Nothing is there that was not there before, and all that was.
#[track_caller]
fn as_before(pbx: &Pbx, before: &[String]) {
    let mut now = vec![];
    for _ in 0..100 {
        now = traces(pbx);
        if now == before {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("more: {:#?}, less: {:#?}", differences(&now, before), differences(before, &now));
}

#[test]
fn the_rules_do_what_they_should_and_no_trace_stays() {
    for (variant, settings, some) in [
        (
            "nft",
            "",
            &["a blocked source is dropped (IPv4, UDP 5060)", "after 40 at once (IPv6, UDP 4569)"][..],
        ),
        ("legacy", "", &["a blocked source is dropped (IPv6, TCP 20000)"]),
        ("nft", RICH, &["an established flow of a blocked source arrives (IPv6, UDP 20000)"]),
        ("legacy", RICH, &["a source on phones is dropped (IPv4, TCP 443)", "scanner sipvicious is dropped"]),
    ] {
        let pbx = applied(variant, settings);
        let before = traces(&pbx);
        let verified = tool(&pbx, "ringfence-firewall", &["verify", "--probe"]);
        assert_eq!((verified.code, verified.stderr.as_str()), (0, ""), "{variant} {}", verified.stdout);
        for line in verified.stdout.lines() {
            assert!(line.starts_with("ok      "), "{line}");
        }
        for words in some {
            assert!(verified.stdout.contains(words), "{words}: {}", verified.stdout);
        }
        as_before(&pbx, &before);
    }
}

#[test]
fn an_observer_lets_all_of_it_in_and_counts() {
    for variant in ["nft", "legacy"] {
        let pbx = applied(variant, "[firewall]\nmode = \"observe\"\n");
        let verified = tool(&pbx, "ringfence-firewall", &["verify", "--probe", "--json"]);
        assert_eq!((verified.code, verified.stderr.as_str()), (0, ""), "{variant} {}", verified.stdout);
        let checks: Vec<serde_json::Value> = serde_json::from_str(&verified.stdout).unwrap();
        let what = |check: &serde_json::Value| check["what"].as_str().unwrap().to_owned();
        assert!(checks.iter().all(|check| check["wrong"].is_null() && !what(check).contains("is dropped")));
        let last = what(checks.last().unwrap());
        assert!(last.starts_with("what would be dropped is counted: "), "{last}");
    }
}

#[test]
fn a_rule_that_is_lost_is_found() {
    for (variant, lost, wrong) in [
        (
            "nft",
            "/match-set rf-block6 src/d",
            "wrong   a blocked source is dropped (IPv6, UDP 5060): 1 of 1 arrived",
        ),
        (
            "legacy",
            "/RINGFENCE-UDP.*hashlimit-name rf-reg-/d",
            "wrong   REGISTER of one source is dropped after 40 at once (IPv6, UDP 5060): 1080 of 1080 arrived",
        ),
    ] {
        let pbx = applied(variant, "");
        pbx.host.shell(&format!(
            "mkdir /run/sbin
             cp -a /usr/sbin/*tables* /run/sbin/
             cd /run/sbin
             rm ip6tables-{variant}-restore
             printf '#!/bin/sh\\n/usr/bin/sed \"{lost}\" | exec /usr/sbin/xtables-{variant}-multi ip6tables-restore \"$@\"\\n' >ip6tables-{variant}-restore
             chmod +x ip6tables-{variant}-restore
             mount --bind /run/sbin /usr/sbin"
        ));
        let verified = tool(&pbx, "ringfence-firewall", &["verify", "--probe"]);
        assert_eq!((verified.code, verified.stderr.as_str()), (1, ""), "{variant}");
        assert!(verified.stdout.lines().any(|line| line == wrong), "{}", verified.stdout);
        let about_v4 = |line: &str| line.contains("(IPv4");
        let mut v4 = verified.stdout.lines().filter(|line| about_v4(line));
        assert!(v4.all(|line| line.starts_with("ok ")), "{}", verified.stdout);
    }
}

#[test]
fn who_is_killed_takes_all_with_him() {
    let pbx = applied("nft", "");
    let before = traces(&pbx);
    for after in ["0.01", "0.05", "0.1", "0.2", "0.4"] {
        pbx.host.shell(&format!(
            "RINGFENCE_CONFIG={} {} verify --probe >/dev/null 2>&1 &
             sleep {after}
             kill -9 $!",
            pbx.world.config().display(),
            cargo_bin("ringfence-firewall").display()
        ));
        as_before(&pbx, &before);
    }
}

#[test]
fn without_a_namespace_or_a_program_it_says_what_is_missing() {
    let pbx = applied("nft", "");
    let mut command = pbx.host.command("setpriv");
    command.args(["--bounding-set=-sys_admin", "env"]);
    command.arg(format!("RINGFENCE_CONFIG={}", pbx.world.config().display()));
    let refused = call(command.arg(cargo_bin("ringfence-firewall")).args(["verify", "--probe"]));
    assert_eq!((refused.code, refused.stdout.as_str()), (2, ""));
    assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("it needs CAP_SYS_ADMIN"), "{}", refused.stderr);
    for (program, package) in [("ip", "iproute2"), ("unshare", "util-linux")] {
        pbx.host.shell(&format!("mount --bind /dev/null /usr/bin/{program}"));
        let refused = tool(&pbx, "ringfence-firewall", &["verify", "--probe"]);
        assert_eq!((refused.code, refused.stdout.as_str()), (2, ""));
        let says = format!("{program} is not there; install the package {package}\n");
        assert!(refused.stderr.lines().count() == 1 && refused.stderr.ends_with(&says), "{}", refused.stderr);
    }
}
