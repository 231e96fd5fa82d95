//! `ringfence-ban`: from a line in the log to packets that are dropped, and back, by a real fail2ban; and what goes wrong.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::Stdio;
use std::time::Instant;

use assert_cmd::cargo::cargo_bin;

use crate::support::packets::{Gate, Packet, STRANGERS, SYN, tcp, udp};
use crate::support::pbx::{PBX, PHONES, UNVERIFIED};
use crate::support::{Banner, Fail2ban, call, sqlite, wait_for};

with_both_variants! {
    who_fails_is_dropped_on_the_ports_of_the_jail_alone
    bans_come_first_whoever_comes_when
    what_took_the_rules_away_is_undone_by_the_next_ban_and_by_sync
    an_observer_fills_the_sets_and_drops_nothing
}

const ATTACKER: [&str; 2] = PHONES[1];
const OTHER: [&str; 2] = PHONES[0];

/// The jail of most tests.
const SIP: (&str, &str) = ("sip", "port = 5060,5080:5081\nprotocol = tcp,udp");
const WEB: (&str, &str) = ("web", "port = http,https\nprotocol = tcp");
const ALL: (&str, &str) = ("all", "port = 22\nbanaction = %(banaction_allports)s");

/// What `start` and `ban` are told of the jails above.
const OF_SIP: [&str; 3] = ["--jail=sip", "--port=5060,5080:5081", "--protocol=tcp,udp"];
const OF_WEB: [&str; 3] = ["--jail=web", "--port=http,https", "--protocol=tcp"];

/// The rules of the first, of one family.
fn rules_of_sip(family: char) -> [String; 2] {
    ["tcp", "udp"].map(|protocol| {
        format!(
            "-p {protocol} -m multiport --dports 5060,5080:5081 -m set --match-set rf-ban-sip-{family} src"
        )
    })
}

/// Those of the second.
fn rule_of_web(family: char) -> String {
    format!("-p tcp -m multiport --dports 80,443 -m set --match-set rf-ban-web-{family} src")
}

/// Those of both, in both families.
fn rules_of_both() -> Vec<String> {
    let of = |family| rules_of_sip(family).into_iter().chain([rule_of_web(family)]);
    of('4').chain(of('6')).collect()
}

/// `start` or `ban`, and what is told of a jail.
fn args<'a>(command: &'a str, whose: &[&'a str], rest: &[&'a str]) -> Vec<&'a str> {
    [&[command], whose, rest].concat()
}

/// One of each kind: SIP over UDP and TCP, the web, SSH.
fn one_of_each(from: &str) -> [Packet; 6] {
    [
        udp(from, 5060, "x"),
        udp(from, 5081, "x"),
        tcp(from, 5080, SYN, ""),
        udp(from, 5082, "x"),
        tcp(from, 443, SYN, ""),
        tcp(from, 22, SYN, ""),
    ]
}

fn who_fails_is_dropped_on_the_ports_of_the_jail_alone(variant: &'static str) {
    let banner = Banner::new(variant);
    let gate = Gate::new(&banner.pbx);
    let fail2ban = banner.fail2ban(&[SIP, WEB, ALL]);
    // Before anybody is banned.
    wait_for("the rules", || banner.rules().len() == 8);
    for family in ['4', '6'] {
        let rules = banner.rules();
        let all = format!("-m set --match-set rf-ban-all-{family} src");
        for rule in rules_of_sip(family).into_iter().chain([rule_of_web(family), all]) {
            assert!(rules.contains(&rule), "{rule} in {rules:#?}");
        }
    }
    let web = STRANGERS[0];
    let everywhere = STRANGERS[1];
    for from in ATTACKER.into_iter().chain(OTHER).chain(web).chain(everywhere) {
        assert_eq!(gate.let_in(&one_of_each(from)), [true; 6], "{from}");
    }
    banner.refused("sip", &ATTACKER);
    banner.refused("web", &web);
    banner.refused("all", &everywhere);
    for (jail, whom) in [("sip", ATTACKER), ("web", web), ("all", everywhere)] {
        wait_for(jail, || banner.banned(jail).len() == 2);
        banner.bans(jail, &whom.map(|address| (address, 3_600)));
    }
    for family in [0, 1] {
        for (from, passes) in [
            (ATTACKER, [false, false, false, true, true, true]),
            (web, [true, true, true, true, false, true]),
            (everywhere, [false; 6]),
            (OTHER, [true; 6]),
        ] {
            assert_eq!(gate.let_in(&one_of_each(from[family])), passes, "{}", from[family]);
        }
    }
    let hits: Vec<_> =
        banner.list().iter().map(|jail| (jail["jail"].clone(), jail["hits"].clone())).collect();
    for (jail, count) in [("sip", 6), ("web", 2), ("all", 12)] {
        assert!(hits.contains(&(jail.into(), count.into())), "{jail}: {hits:?}");
    }
    for address in ATTACKER {
        fail2ban.client(&["set", "sip", "unbanip", address]).unwrap();
        assert_eq!(gate.let_in(&one_of_each(address)), [true; 6], "{address}");
        assert_eq!(banner.decided("ban", address, "jail"), 1);
        assert_eq!(banner.decided("unban", address, "jail"), 1);
    }
    assert_eq!(gate.let_in(&one_of_each(everywhere[0])), [false; 6]);
    fail2ban.is_content();
}

/// Waits until a jail has so many bans: fail2ban writes them down before its action is done, or behind it.
#[track_caller]
fn has_banned(banner: &Banner, fail2ban: &Fail2ban<'_>, jail: &str, count: usize) {
    wait_for(jail, || fail2ban.remembered(jail) == count && banner.banned(jail).len() == count);
}

/// Stops it, lets it remember bans, and starts it again.
fn restarted_with(banner: &Banner, fail2ban: &mut Fail2ban<'_>, bans: &[(&str, i64, i64)]) {
    fail2ban.stop();
    banner.is_open();
    sqlite(&banner.database(), "DELETE FROM bips; DELETE FROM bans");
    banner.remember("sip", bans);
    banner.calls();
    fail2ban.start_again();
    wait_for("the jail", || fail2ban.number_if_any("sip", "Currently banned") == Some(bans.len()));
}

#[test]
fn a_restart_brings_back_all_bans_at_once_and_prolongs_none() {
    let banner = Banner::new("nft");
    let mut fail2ban = banner.fail2ban(&[SIP]);
    fail2ban.stop();
    banner.is_open();
    let ids: Vec<_> =
        (0..2_000)
            .map(|n| {
                if n % 2 == 0 {
                    format!("10.9.{}.{}", n / 200, n % 200)
                } else {
                    format!("2001:db8:9::{n:x}")
                }
            })
            .collect();
    let since = |n: usize| i64::try_from(n).unwrap();
    let bans: Vec<_> = ids.iter().enumerate().map(|(n, id)| (id.as_str(), since(n), 3_600)).collect();
    banner.remember("sip", &bans);
    banner.remember("sip", &[("203.0.113.98", 3_590, 3_600), ("203.0.113.99", 3_600, 3_600)]);
    banner.calls();
    fail2ban.start_again();
    wait_for("the first", || !banner.banned("sip").is_empty());
    // They all came together.
    assert!(banner.banned("sip").len() >= 2_000);
    let are_right = || {
        let there = banner.banned("sip");
        for (id, since, _) in &bans {
            let left = there[*id];
            assert!((3_600 - since - 60..=3_600 - since).contains(&left), "{id}: {left} after {since}");
        }
        assert!(!there.contains_key("203.0.113.99"), "his time was over");
    };
    are_right();
    wait_for("fail2ban", || fail2ban.log().matches("] Restore Ban ").count() >= 2_000);
    wait_for("an end", || !banner.banned("sip").contains_key("203.0.113.98"));
    are_right();
    assert_eq!(banner.calls(), ["start 0"]);
    assert_eq!(banner.decided("start", "jail sip", "jail"), 1);
    assert_eq!(banner.rules().len(), 4);
    banner.does(&["sync"]);
    are_right();
    fail2ban.stop();
    assert_eq!(banner.calls(), ["stop 0"], "all at once");
    banner.is_open();
    fail2ban.is_content();
}

#[test]
fn whom_an_operator_lets_go_is_let_go_though_fail2ban_says_nothing() {
    const RESTORED: [(&str, i64, i64); 3] =
        [("203.0.113.1", 100, 3_600), ("203.0.113.2", 100, 3_600), ("2001:db8::3", 100, 3_600)];
    let [one, two, three] = RESTORED.map(|(id, ..)| (id, 3_500));
    let banner = Banner::new("nft");
    let mut fail2ban = banner.fail2ban(&[SIP]);
    restarted_with(&banner, &mut fail2ban, &RESTORED);
    banner.bans("sip", &[one, two, three]);
    fail2ban.client(&["set", "sip", "unbanip", one.0]).unwrap();
    assert_eq!(banner.calls(), ["start 0"], "fail2ban 1.0.2 says nothing");
    banner.does(&["sync"]);
    banner.bans("sip", &[two, three]);
    // From a new ban on it says so.
    fail2ban.client(&["set", "sip", "banip", "203.0.113.4"]).unwrap();
    has_banned(&banner, &fail2ban, "sip", 3);
    let fresh = ("203.0.113.4", 3_600);
    banner.bans("sip", &[two, three, fresh]);
    fail2ban.client(&["set", "sip", "unbanip", two.0]).unwrap();
    assert_eq!(banner.calls(), ["ban 0", "unban 0"]);
    banner.bans("sip", &[three, fresh]);
    banner.does(&["sync"]);
    banner.bans("sip", &[three, fresh]);
    fail2ban.client(&["unban", "--all"]).unwrap();
    assert_eq!(banner.calls(), ["flush 0"]);
    banner.bans("sip", &[]);
    banner.does(&["sync"]);
    banner.bans("sip", &[]);
    // All of them, before any new ban.
    restarted_with(&banner, &mut fail2ban, &RESTORED);
    fail2ban.client(&["unban", "--all"]).unwrap();
    assert_eq!(banner.calls(), ["start 0"]);
    banner.does(&["sync"]);
    banner.bans("sip", &[]);
    assert_eq!(banner.rules().len(), 4);
    fail2ban.is_content();
}

/// fail2ban keeps in its database whom it does not restore: who is in `ignoreip` by now, or was banned for longer than its jail bans.
#[test]
fn whom_fail2ban_does_not_restore_is_let_go() {
    let banner = Banner::new("nft");
    let mut fail2ban = banner.fail2ban(&[SIP]);
    fail2ban.stop();
    let bans = [(ATTACKER[0], 10, 500), (OTHER[0], 10, 500), (ATTACKER[1], 1_000, 36_000)];
    banner.remember("sip", &bans);
    banner.configure_jails(&[(SIP.0, &format!("{}\nignoreip = {}\nbantime = 600", SIP.1, OTHER[0]))]);
    fail2ban.start_again();
    wait_for("what is restored", || fail2ban.number_if_any("sip", "Currently banned") == Some(1));
    assert_eq!(fail2ban.banned("sip"), [ATTACKER[0]]);
    banner.bans("sip", &[(ATTACKER[0], 490), (OTHER[0], 490), (ATTACKER[1], 35_000)]);
    // It may take its time to restore, so nothing is concluded from its answer at first.
    banner.does(&["sync"]);
    assert_eq!(banner.banned("sip").len(), 3);
    let path = banner.pbx.world.path("run/bans.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut jails: serde_json::Value = serde_json::from_str(&text).unwrap();
    jails[0]["started"] = (jails[0]["started"].as_i64().unwrap() - 1_000).into();
    std::fs::write(&path, jails.to_string()).unwrap();
    banner.does(&["sync"]);
    banner.bans("sip", &[(ATTACKER[0], 490)]);
    // Whom it banned a moment ago it may not have said yet.
    fail2ban.client(&["set", "sip", "banip", OTHER[0]]).unwrap();
    banner.does(&["sync"]);
    assert_eq!(banner.banned("sip").len(), 2);
    fail2ban.is_content();
}

/// fail2ban asks its `ignorecommand` about each whom it restores, which takes its time; nobody who came back is to wait for that.
#[test]
fn who_is_exempt_by_now_is_not_banned_again() {
    let banner = Banner::new("nft");
    banner.pbx.world.register("core.db", OTHER[0], 3600);
    banner.has_database(&["sip"]);
    banner.remember("sip", &[(ATTACKER[0], 10, 3_600), (OTHER[0], 10, 3_600)]);
    banner.does(&args("start", &OF_SIP, &[]));
    banner.bans("sip", &[(ATTACKER[0], 3600)]);
    let journal = banner.pbx.world.journal();
    let last = journal.last().unwrap();
    assert_eq!(last["detail"], "1 ban; 1 ban not in force, of addresses that are exempt by now");
    // Nor does a sync ban him, before fail2ban had the time to restore him or not.
    banner.does(&["sync"]);
    banner.bans("sip", &[(ATTACKER[0], 3_600)]);
    // A mistake in settings that are not its own keeps nobody from being banned.
    let settings = std::fs::read_to_string(banner.pbx.world.config()).unwrap();
    let settings = settings.replace("source = \"sqlite\"", "source = \"nonsense\"");
    std::fs::write(banner.pbx.world.config(), settings).unwrap();
    let said = banner.says(0, &args("start", &OF_SIP, &[]));
    assert!(said.starts_with("who is exempt by now is not known: "), "{said}");
    assert_eq!(banner.banned("sip").len(), 2);
}

/// As Debian's own jails for Asterisk and FreeSWITCH have it: an action for each protocol, told so by the name.
#[test]
fn a_jail_with_an_action_for_each_protocol_is_restored_too() {
    let banner = Banner::new("nft");
    let action = |protocol: &str| {
        format!(
            "%(banaction)s[name=%(__name__)s-{protocol}, actname=ban-{protocol}, port=5060, protocol={protocol}]"
        )
    };
    let settings = format!("action = {}\n         {}", action("tcp"), action("udp"));
    let mut fail2ban = banner.fail2ban(&[("sip", &settings)]);
    restarted_with(&banner, &mut fail2ban, &[(ATTACKER[0], 100, 3_600)]);
    for set in ["sip-tcp", "sip-udp"] {
        banner.bans(set, &[(ATTACKER[0], 3_500)]);
    }
    banner.does(&["sync"]);
    fail2ban.client(&["set", "sip", "unbanip", ATTACKER[0]]).unwrap();
    banner.does(&["sync"]);
    assert_eq!(["sip-tcp", "sip-udp"].map(|set| banner.banned(set).len()), [0, 0]);
    fail2ban.is_content();
}

#[test]
fn a_start_that_failed_is_made_good_by_sync() {
    let banner = Banner::new("nft");
    banner.pbx.host.shell("ipset create rf-ban-sip-4 hash:ip");
    let said = banner.says(2, &args("start", &OF_SIP, &[]));
    assert!(said.contains("rf-ban-sip-4") && said.contains("not ours"), "{said}");
    banner.pbx.host.shell("ipset destroy rf-ban-sip-4");
    banner.does(&["sync"]);
    assert_eq!((banner.rules().len(), banner.sets().len()), (4, 2));
}

#[test]
fn a_mistake_in_the_settings_ends_no_bans() {
    let banner = Banner::new("nft");
    banner.has_database(&["sip"]);
    banner.remember("sip", &[(ATTACKER[0], 100, 3_600)]);
    banner.configure("nonsense = 1", "");
    for call in [args("start", &OF_SIP, &[]), args("ban", &OF_SIP, &["--for=3600", "--", ATTACKER[1]])] {
        let call = banner.ban(&call);
        assert_eq!(call.code, 0);
        assert!(call.stderr.contains("nonsense"), "{}", call.stderr);
    }
    banner.bans("sip", &[(ATTACKER[0], 3_500), (ATTACKER[1], 3_600)]);
    assert_eq!(banner.rules().len(), 4);
    assert!(banner.decided("fail", "settings", "config-broken") > 0);
}

/// Whoever saves the host's rules saves ours, and a boot has no sets.
#[test]
fn saved_rules_can_be_restored_after_a_boot() {
    let banner = Banner::new("nft");
    banner.does(&args("start", &OF_SIP, &[]));
    banner.does(&args("ban", &OF_SIP, &["--for=1h", "--", ATTACKER[0]]));
    for (tool, file) in [("iptables", "rules.v4"), ("ip6tables", "rules.v6")] {
        let saved = banner.pbx.host.shell(&format!("{tool}-nft-save"));
        std::fs::write(banner.pbx.world.path(file), saved).unwrap();
    }
    let files = ["rules.v4", "rules.v6"].map(|file| banner.pbx.world.path(file).display().to_string());
    let boot = "iptables-nft -F; iptables-nft -X; ip6tables-nft -F; ip6tables-nft -X; ipset destroy";
    let restore = format!("iptables-nft-restore {}; ip6tables-nft-restore {}", files[0], files[1]);
    banner.pbx.host.shell(boot);
    banner.does(&["prepare", &files[0], &files[1]]);
    assert_eq!(banner.sets(), ["rf-ban-sip-4", "rf-ban-sip-6"]);
    banner.pbx.host.shell(&restore);
    assert!(banner.pbx.saved().contains("rf-ban-sip-4"));
    // Nobody is banned by what was saved.
    assert_eq!(banner.banned("sip").len(), 0);
    // A host without saved rules needs none, and a file that is named must be there.
    banner.does(&["prepare"]);
    assert!(banner.says(0, &["prepare", "/nowhere"]).starts_with("cannot read /nowhere: "));
}

/// A typo and a boot must not open the host: one missing set, and not a rule of the file is restored.
#[test]
fn saved_rules_find_their_sets_whatever_the_settings_say() {
    let banner = Banner::new("nft");
    banner.configure("nonsense = 1", "");
    let families = [("iptables", "4"), ("ip6tables", "6")].map(|(tool, family)| {
        let rules = format!(
            "*filter\n:INPUT DROP [0:0]\n:RINGFENCE - [0:0]\n:RF-BAN - [0:0]\n\
             -A INPUT -p udp -m set --match-set rf-ports dst -j RINGFENCE\n-A INPUT -i lo -j ACCEPT\n\
             -A RINGFENCE -m set --match-set rf-known{family} src -j RETURN\n\
             -A RINGFENCE -m set --match-set rf-allow{family} src -m set ! --match-set rf-block-net{family} src -j RETURN\n\
             -A RINGFENCE -p udp -m set ! --match-set rf-to-au-net{family} src -j DROP\n\
             -A RINGFENCE -p udp -j SET --add-set rf-slam-ip{family} src --exist\n\
             -A RF-BAN -m set --match-set rf-ban-sip-{family} src -j DROP\nCOMMIT\n"
        );
        let file = banner.pbx.world.path(tool);
        std::fs::write(&file, rules).unwrap();
        (tool, file.display().to_string())
    });
    let [(_, v4), (_, v6)] = &families;
    let said = banner.says(0, &["prepare", v4, v6]);
    assert!(said.contains("nonsense"), "{said}");
    for (tool, file) in &families {
        banner.pbx.host.shell(&format!("{tool}-nft-restore {file}"));
        assert_eq!(
            banner.pbx.host.shell(&format!("{tool}-nft -S INPUT 2")).trim_end(),
            "-A INPUT -i lo -j ACCEPT"
        );
    }
    // Sets that only look like ours are nobody's.
    std::fs::write(v4, "-A INPUT -m set --match-set rf-other src -j DROP").unwrap();
    banner.says(0, &["prepare", v4]);
    assert!(!banner.pbx.host.shell("ipset list -name").contains("rf-other"));
}

#[test]
fn what_comes_between_two_looks_at_the_database_is_kept_in_mind() {
    let banner = Banner::new("nft");
    banner.has_database(&["sip"]);
    let one = ("203.0.113.1", 100, 3_600);
    let forget = || sqlite(&banner.database(), "DELETE FROM bips");
    banner.remember("sip", &[one]);
    banner.does(&args("start", &OF_SIP, &[]));
    // He is let go without a word, and banned anew, which fail2ban remembers a moment later.
    forget();
    banner.does(&args("ban", &OF_SIP, &["--for=7200", "--", one.0]));
    banner.does(&["sync"]);
    banner.bans("sip", &[(one.0, 7_200)]);
    // A new ban that is not remembered yet is nobody's to take away.
    banner.does(&args("ban", &OF_SIP, &["--for=7200", "--", "203.0.113.2"]));
    banner.does(&["sync"]);
    banner.bans("sip", &[(one.0, 7_200), ("203.0.113.2", 7_200)]);
    // fail2ban flushes first, and forgets then.
    banner.remember("sip", &[one]);
    banner.does(&["flush", "--jail=sip"]);
    banner.bans("sip", &[]);
    banner.does(&["sync"]);
    forget();
    banner.does(&["sync"]);
    banner.bans("sip", &[]);
}

#[test]
fn a_crash_of_fail2ban_doubles_nothing() {
    let banner = Banner::new("nft");
    let jails = [SIP, ("short", "port = 22\nprotocol = tcp\nbantime = 600")];
    let mut fail2ban = banner.fail2ban(&jails);
    banner.refused("sip", &ATTACKER);
    has_banned(&banner, &fail2ban, "sip", 2);
    wait_for("the rules", || banner.rules().len() == 6);
    let (mut rules, sets) = (banner.rules(), banner.sets());
    assert_eq!((rules.len(), sets.len()), (6, 4));
    banner.refused("short", &[STRANGERS[0][0]]);
    has_banned(&banner, &fail2ban, "short", 1);
    fail2ban.kill();
    banner.bans("short", &[(STRANGERS[0][0], 600)]);
    // Its time is over soon, and nobody is there to say so.
    banner.pbx.host.shell(&format!("ipset -exist add rf-ban-short-4 {} timeout 1", STRANGERS[0][0]));
    sqlite(&banner.database(), "UPDATE bips SET bantime = 1 WHERE jail = 'short'");
    wait_for("its end", || banner.banned("short").is_empty());
    banner.bans("sip", &ATTACKER.map(|address| (address, 3_600)));
    sqlite(&banner.database(), &format!("DELETE FROM bips WHERE ip = '{}'", ATTACKER[1]));
    banner.forget_the_log();
    fail2ban.start_again();
    wait_for("the jail", || fail2ban.number_if_any("sip", "Currently banned") == Some(1));
    wait_for("the other", || fail2ban.number_if_any("short", "Currently banned") == Some(0));
    banner.bans("sip", &[(ATTACKER[0], 3_600)]);
    rules.sort();
    let mut again = banner.rules();
    again.sort();
    assert_eq!((again, banner.sets()), (rules, sets));
    for family in ["iptables", "ip6tables"] {
        assert_eq!(banner.jumps(family), ["RF-BAN", "ACCEPT"]);
    }
    fail2ban.is_content();
}

/// All orders of some things.
fn orders<T: Copy>(things: &[T]) -> Vec<Vec<T>> {
    if things.is_empty() {
        return vec![vec![]];
    }
    let mut all = vec![];
    for at in 0..things.len() {
        let mut rest = things.to_vec();
        let first = rest.remove(at);
        all.extend(orders(&rest).into_iter().map(|order| [vec![first], order].concat()));
    }
    all
}

fn bans_come_first_whoever_comes_when(variant: &'static str) {
    let banner = Banner::new(variant);
    banner.configure("", UNVERIFIED);
    let pbx = &banner.pbx;
    let for_both = |script: &str| {
        for family in ["iptables", "ip6tables"] {
            pbx.host.shell(&script.replace("$T", &format!("{family}-{variant}")));
        }
    };
    let comes = |who: &str| match who {
        "f2b-sshd" => for_both("$T -N f2b-sshd; $T -I INPUT -p tcp -m multiport --dports 22 -j f2b-sshd"),
        "RF-BAN" => banner.does(&args("start", &OF_SIP, &[])),
        "RF-BLOCK" => pbx.ban("999@a.example.com"),
        _ => assert_eq!(pbx.firewall(&["apply", "--yes"]).code, 0),
    };
    let holds = |expected: &[&str], order: &[&str]| {
        for family in ["iptables", "ip6tables"] {
            assert_eq!(banner.jumps(family), expected, "{order:?}");
        }
    };
    let verified = |order: &[&str]| {
        let call = pbx.firewall(&["verify"]);
        assert_eq!((call.code, call.stderr.as_str()), (0, ""), "{order:?}: {}", call.stdout);
    };
    let forget = || {
        for_both("$T -F; $T -X; $T -A INPUT -i lo -j ACCEPT");
        pbx.host.shell("ipset flush");
        // The kernel is done with a rule a moment after it is gone.
        wait_for("no sets", || call(pbx.host.command("ipset").arg("destroy")).code == 0);
        pbx.world.reset();
    };
    for order in orders(&["f2b-sshd", "RF-BAN", "RF-BLOCK"]) {
        for who in &order {
            comes(who);
        }
        holds(&["f2b-sshd", "RF-BAN", "RF-BLOCK", "ACCEPT"], &order);
        forget();
    }
    for order in orders(&["f2b-sshd", "RF-BAN", "RF-BLOCK", "RINGFENCE"]) {
        for who in &order {
            comes(who);
        }
        holds(&["f2b-sshd", "RF-BAN", "RINGFENCE", "ACCEPT"], &order);
        verified(&order);
        // Nobody has anything to do.
        let before = pbx.saved();
        assert_eq!(pbx.firewall(&["restore"]).code, 0);
        banner.does(&["sync"]);
        pbx.does(&["expire"]);
        assert_eq!(pbx.saved(), before, "{order:?}");
        if order[0] == "RF-BAN" {
            assert_eq!(pbx.firewall(&["remove"]).code, 0);
            holds(&["f2b-sshd", "RF-BAN", "RF-BLOCK", "ACCEPT"], &order);
            pbx.unban("999@a.example.com");
            holds(&["f2b-sshd", "RF-BAN", "ACCEPT"], &order);
        } else {
            banner.does(&["stop", "--jail=sip"]);
            holds(&["f2b-sshd", "RINGFENCE", "ACCEPT"], &order);
            verified(&order);
        }
        forget();
    }
    // The rules that wait for their confirmation are no others.
    banner.does(&args("start", &OF_SIP, &[]));
    assert_eq!(pbx.firewall(&["apply", "--confirm-within", "60s"]).code, 0);
    banner.does(&args("start", &OF_WEB, &[]));
    holds(&["RF-BAN", "RINGFENCE", "ACCEPT"], &["confirm"]);
    assert_eq!(pbx.firewall(&["confirm"]).code, 0);
    holds(&["RF-BAN", "RINGFENCE", "ACCEPT"], &["confirm"]);
    assert_eq!(banner.rules(), rules_of_both());
    verified(&["confirm"]);
    // Somebody puts it last.
    for_both("$T -D INPUT 1; $T -A INPUT -j RF-BAN");
    banner.does(&["sync"]);
    holds(&["RF-BAN", "RINGFENCE", "ACCEPT"], &["moved"]);
}

fn what_took_the_rules_away_is_undone_by_the_next_ban_and_by_sync(variant: &'static str) {
    let banner = Banner::new(variant);
    banner.does(&args("start", &OF_SIP, &[]));
    banner.does(&args("start", &OF_WEB, &[]));
    let holds = || {
        assert_eq!(banner.rules(), rules_of_both());
        for family in ["iptables", "ip6tables"] {
            assert_eq!(banner.jumps(family)[0], "RF-BAN");
        }
    };
    holds();
    let flush = |how: &str| {
        banner.pbx.host.shell(match how {
            "nft" if variant == "nft" => "nft flush ruleset; iptables -A INPUT -i lo -j ACCEPT",
            "-F" => "iptables -F; ip6tables -F; iptables -A INPUT -i lo -j ACCEPT",
            _ => "iptables -F; ip6tables -F; iptables -X; ip6tables -X; iptables -A INPUT -i lo -j ACCEPT",
        });
        assert_eq!(banner.rules(), [""; 0]);
    };
    for how in ["-F", "-X", "nft"] {
        flush(how);
        banner.does(&args("ban", &OF_SIP, &["--for=3600", "--", ATTACKER[0]]));
        holds();
        flush(how);
        banner.does(&["sync"]);
        holds();
        // The same within minutes is written down once.
        assert_eq!(banner.decided("repair", "bans", "missing"), 1);
        banner.does(&["sync"]);
    }
    // One rule of many.
    let is_missing = || {
        let missing = banner.list().iter().any(|jail| jail["hits"].is_null());
        let said = banner.ban(&["list"]).stdout;
        assert_eq!(
            said.ends_with("Something is missing in the kernel; ringfence-ban sync repairs it.\n"),
            missing
        );
        missing
    };
    assert!(!is_missing());
    banner.pbx.host.shell("ip6tables -D RF-BAN 2");
    assert!(is_missing());
    banner.does(&args("ban", &OF_WEB, &["--for=3600", "--", ATTACKER[1]]));
    holds();
}

#[test]
fn the_host_and_who_runs_it_are_never_banned() {
    let banner = Banner::new("nft");
    banner.pbx.host.shell(
        "ip route add 198.18.0.0/15 via 192.0.2.254 dev eth0 onlink; echo nameserver 203.0.113.53 >/run/empty
         mkdir -p /run/systemd/sessions; printf 'REMOTE=1\\nSTATE=active\\nREMOTE_HOST=203.0.113.77\\n' >/run/systemd/sessions/c1",
    );
    let protected = [
        (PBX[0], "own-address", "an address of this host"),
        (PBX[1], "own-address", "an address of this host"),
        ("::ffff:192.0.2.1", "own-address", "an address of this host"),
        ("127.0.0.1", "own-address", "an address of this host"),
        ("::1", "own-address", "an address of this host"),
        ("192.0.2.254", "gateway", "a gateway of this host"),
        ("203.0.113.53", "resolver", "a name server of this host"),
        ("203.0.113.77", "login-peer", "a peer of a login session"),
        ("203.0.113.76/31", "login-peer", "a peer of a login session"),
        ("192.0.0.0/8", "own-address", "an address of this host"),
        ("2001:db8::/32", "own-address", "an address of this host"),
    ];
    for (address, reason, words) in protected {
        let said = banner.says(0, &args("ban", &OF_SIP, &["--for=3600", "--", address]));
        assert!(said.contains("is not banned: it is, or has in it, "), "{said}");
        assert!(said.contains(words), "{said}");
        assert_eq!(banner.decided("refuse", address, reason), 1, "{:?}", banner.decisions());
    }
    banner.is_open();
    // Not though fail2ban remembers them.
    banner.has_database(&["sip"]);
    let mut bans: Vec<_> = protected.iter().map(|(address, ..)| (*address, 100, 3_600)).collect();
    bans.push((ATTACKER[0], 100, 3_600));
    banner.remember("sip", &bans);
    banner.does(&args("start", &OF_SIP, &[]));
    banner.bans("sip", &[(ATTACKER[0], 3_500)]);
    banner.does(&["sync"]);
    banner.bans("sip", &[(ATTACKER[0], 3_500)]);
}

/// What is no address, whoever says so.
const NONSENSE: [&str; 14] = [
    "0.0.0.0/0",
    "::/0",
    "0.0.0.0",
    "::",
    "1.0.0.0/7",
    "text",
    "-rf",
    "--help",
    "$(canary)",
    "`canary`;canary|canary&canary",
    "o'neil\"x\"\\ <ip>",
    "203.0.113.1 203.0.113.2",
    "203.0.113.0/255.255.255.0",
    "\u{1b}[2J",
];

#[test]
fn nonsense_is_refused_and_run_by_nobody() {
    let banner = Banner::new("nft");
    let long = "9".repeat(100_000);
    for text in NONSENSE.into_iter().chain(["", long.as_str()]) {
        let said = banner.says(0, &args("ban", &OF_SIP, &["--for=3600", "--", text]));
        assert!(said.contains("is not banned: it is no IPv4 or IPv6 address"), "{said}");
        let last = banner.decisions().pop().unwrap();
        assert_eq!((last[0].as_str(), last[2].as_str()), ("refuse", "not-an-address"), "{text}");
        assert!(last[1].len() < 500 && !last[1].contains(char::is_control), "{last:?}");
        banner.does(&["unban", "--jail=sip", "--", text]);
    }
    banner.is_open();
    for wrong in [
        &["ban", "--for=1", "--", "203.0.113.1"][..],
        &["ban", "--jail=", "--for=1", "--", "203.0.113.1"],
        &["ban", "--jail=a\nb", "--for=1", "--", "203.0.113.1"],
        &["ban", "--jail=a", "--for=0", "--", "203.0.113.1"],
        &["ban", "--jail=a", "--for=$(id)", "--", "203.0.113.1"],
        &["ban", "--jail=a", "--for=1", "--port=nosuch", "--", "203.0.113.1"],
        &["ban", "--jail=a", "--for=1", "--port=1 -j ACCEPT", "--", "203.0.113.1"],
        &["ban", "--jail=a", "--for=1", "--protocol=icmp", "--", "203.0.113.1"],
        &["ban", "--jail=a", "--for=1"],
        &["start"],
        &["start", "--jail=a", "b"],
    ] {
        let call = banner.ban(wrong);
        assert_eq!((call.code, call.stdout.as_str()), (2, ""), "{wrong:?}");
        assert!(!call.stderr.is_empty(), "{wrong:?}");
    }
    banner.is_open();
}

#[test]
fn nonsense_that_fail2ban_is_told_goes_through_no_shell() {
    let banner = Banner::new("nft");
    let canary = banner.pbx.world.path("ran");
    banner.has_program("canary", &format!("touch '{}'", canary.display()));
    let odd = ("odd+na.me@x", "port = 22\nprotocol = tcp");
    let long = ("a-jail-with-a-name-that-is-longer-than-any-set-may-have", "port = 23\nprotocol = tcp");
    let fail2ban = banner.fail2ban(&[SIP, odd, long]);
    wait_for("the starts", || banner.rules().len() == 8);
    banner.calls();
    // One with a tag is filled in by fail2ban itself.
    for text in NONSENSE.into_iter().filter(|text| !text.contains('<') && !text.contains('\u{1b}')) {
        fail2ban.client(&["set", "sip", "banip", text]).expect(text);
    }
    fail2ban.client(&["set", "sip", "banip", ATTACKER[0]]).unwrap();
    wait_for("the last", || banner.banned("sip").contains_key(ATTACKER[0]));
    assert!(banner.calls().iter().all(|call| call == "ban 0" || call == "start 0"));
    // One of them it makes a network of.
    assert_eq!(banner.banned("sip").into_keys().collect::<Vec<_>>(), ["203.0.113.0/24", ATTACKER[0]]);
    assert!(!canary.exists());
    // Names of jails need not be names of sets.
    let sets: BTreeSet<_> = banner.sets().into_iter().collect();
    assert_eq!(sets.len(), 6, "{sets:?}");
    for (jail, port, start) in [(odd.0, 22, "rf-ban-oddna.mex~"), (long.0, 23, "rf-ban-a-jail-with-a~")] {
        fail2ban.client(&["set", jail, "banip", ATTACKER[0]]).unwrap();
        assert!(sets.iter().any(|name| name.starts_with(start)), "{sets:?}");
        let entry = banner.list().into_iter().find(|entry| entry["jail"] == jail).expect(jail);
        assert_eq!((&entry["ipv4"], &entry["closed"]), (&1.into(), &format!("{port} tcp").into()));
        fail2ban.client(&["set", jail, "unbanip", ATTACKER[0]]).unwrap();
        let entry = banner.list().into_iter().find(|entry| entry["jail"] == jail).expect(jail);
        assert_eq!(entry["ipv4"], 0);
    }
    fail2ban.is_content();
    drop(fail2ban);
    banner.is_open();
}

#[test]
fn a_database_that_cannot_be_read_lets_nobody_go() {
    let banner = Banner::new("nft");
    // None at all: a fail2ban that has just been installed.
    banner.does(&args("start", &OF_SIP, &[]));
    banner.does(&["sync"]);
    banner.has_database(&["sip"]);
    banner.remember("sip", &[(ATTACKER[0], 100, 3_600)]);
    banner.does(&args("start", &OF_SIP, &[]));
    banner.does(&args("ban", &OF_SIP, &["--for=3600", "--", ATTACKER[1]]));
    let holds = || banner.bans("sip", &[(ATTACKER[0], 3_500), (ATTACKER[1], 3_600)]);
    holds();
    // Somebody writes, and does not come to an end.
    let mut writer = std::process::Command::new("sqlite3")
        .arg(banner.database())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    writer.stdin.as_mut().unwrap().write_all(b"BEGIN EXCLUSIVE;\nSELECT 1;\n").unwrap();
    std::io::Read::read_exact(writer.stdout.as_mut().unwrap(), &mut [0; 2]).unwrap();
    for (code, call) in [(0, args("start", &OF_SIP, &[])), (1, vec!["sync"])] {
        let start = Instant::now();
        let said = banner.says(code, &call);
        assert!(said.contains("cannot read fail2ban's database") && said.contains("stays banned"), "{said}");
        assert!(start.elapsed().as_secs() >= 1, "it waits for who writes: {:?}", start.elapsed());
        holds();
    }
    // Many jails wait for it together, and a ban does not wait for long.
    for jail in ["a", "b", "c", "d", "e"] {
        banner.ban(&["start", &format!("--jail={jail}")]);
    }
    let mut sync = banner.command(&["sync"]).stderr(Stdio::null()).spawn().unwrap();
    banner.does(&args("ban", &OF_SIP, &["--for=3600", "--", ATTACKER[1]]));
    assert_eq!(sync.wait().unwrap().code(), Some(1));
    for jail in ["a", "b", "c", "d", "e"] {
        banner.does(&["stop", &format!("--jail={jail}")]);
    }
    writer.kill().unwrap();
    writer.wait().unwrap();
    std::fs::write(banner.database(), "no database\n".repeat(1_000)).unwrap();
    for (code, call) in [(0, args("start", &OF_SIP, &[])), (1, vec!["sync"])] {
        let said = banner.says(code, &call);
        assert!(said.contains("cannot read fail2ban's database") && said.contains("stays banned"), "{said}");
        holds();
    }
    assert_eq!(banner.rules().len(), 4);
}

#[test]
fn a_book_of_jails_that_is_lost_or_damaged_is_written_again() {
    let banner = Banner::new("nft");
    let book = banner.pbx.world.path("run/bans.json");
    for damage in [None, Some("[{"), Some(""), Some("[{\"name\":\"sip\",\"reach\":{\"ports\":\"-j\"}}]")] {
        banner.does(&args("start", &OF_SIP, &[]));
        banner.does(&args("start", &OF_WEB, &[]));
        banner.does(&args("ban", &OF_WEB, &["--for=3600", "--", ATTACKER[1]]));
        assert_eq!(banner.rules(), rules_of_both());
        match damage {
            None => std::fs::remove_file(&book).unwrap(),
            Some(text) => std::fs::write(&book, text).unwrap(),
        }
        // Who only looks after what is there takes nothing away.
        let call = banner.ban(&["sync"]);
        assert_eq!(call.code, if damage.is_none() { 0 } else { 2 }, "{}", call.stderr);
        assert_eq!(banner.rules(), rules_of_both());
        let call = banner.ban(&args("ban", &OF_SIP, &["--for=3600", "--", ATTACKER[0]]));
        assert_eq!(call.code, 0, "{}", call.stderr);
        assert_eq!(call.stderr.contains("bans.json is damaged"), damage.is_some(), "{}", call.stderr);
        assert!(banner.rules().iter().filter(|rule| rule.contains("rf-ban-sip")).count() == 4);
        banner.bans("sip", &[(ATTACKER[0], 3_600)]);
        banner.does(&args("ban", &OF_WEB, &["--for=3600", "--", ATTACKER[0]]));
        let (mut rules, mut expected) = (banner.rules(), rules_of_both());
        rules.sort();
        expected.sort();
        assert_eq!(rules, expected);
        assert_eq!(banner.banned("web").len(), 2);
        banner.does(&["stop"]);
        banner.is_open();
    }
}

#[test]
fn sets_that_somebody_destroyed_come_back_and_those_of_others_are_left() {
    let banner = Banner::new("nft");
    banner.has_database(&["sip", "web"]);
    banner.remember("sip", &[(ATTACKER[0], 100, 3_600)]);
    banner.remember("web", &[(ATTACKER[1], 100, 3_600)]);
    banner.does(&args("start", &OF_SIP, &[]));
    banner.does(&args("start", &OF_WEB, &[]));
    banner.pbx.host.shell("iptables -F; ip6tables -F; ipset destroy; iptables -A INPUT -i lo -j ACCEPT");
    banner.does(&args("ban", &OF_SIP, &["--for=3600", "--", OTHER[0]]));
    assert_eq!(banner.rules(), rules_of_both());
    banner.bans("sip", &[(OTHER[0], 3_600)]);
    banner.does(&["sync"]);
    banner.bans("sip", &[(ATTACKER[0], 3_500), (OTHER[0], 3_600)]);
    banner.bans("web", &[(ATTACKER[1], 3_500)]);
    banner.does(&["stop"]);
    banner.pbx.host.shell("ipset create rf-ban-sip-4 hash:ip; ipset add rf-ban-sip-4 203.0.113.1");
    let ban = args("ban", &OF_SIP, &["--for=3600", "--", OTHER[0]]);
    for call in [args("start", &OF_SIP, &[]), ban] {
        let said = banner.says(2, &call);
        assert!(said.contains("the set rf-ban-sip-4 is there as hash:ip"), "{said}");
        assert!(said.contains("ipset destroy rf-ban-sip-4"), "{said}");
    }
    banner.pbx.host.shell("ipset test rf-ban-sip-4 203.0.113.1; ipset destroy rf-ban-sip-4");
    banner.does(&["sync"]);
    banner.does(&args("start", &OF_SIP, &[]));
    banner.bans("sip", &[(ATTACKER[0], 3_500)]);
}

#[test]
fn without_the_right_to_it_says_what_is_missing() {
    let banner = Banner::new("nft");
    banner.does(&args("start", &OF_SIP, &[]));
    let deprived = |how: &[&str], args: &[&str]| {
        let mut command = banner.pbx.host.command("setpriv");
        command.args(how).arg("env");
        command.arg(format!("RINGFENCE_CONFIG={}", banner.pbx.world.config().display()));
        let call = call(command.arg(cargo_bin("ringfence-ban")).args(args));
        assert_eq!((call.code, call.stdout.as_str()), (2, ""), "{args:?}: {}", call.stderr);
        assert_eq!(call.stderr.lines().count(), 1, "{}", call.stderr);
        call.stderr
    };
    let ban = args("ban", &OF_SIP, &["--for=3600", "--", ATTACKER[0]]);
    for call in [args("start", &OF_SIP, &[]), ban, vec!["flush", "--jail=sip"], vec!["sync"], vec!["stop"]] {
        // The directories of a test are closed to others.
        let said = deprived(&["--bounding-set=-net_admin", "--inh-caps=-net_admin"], &call);
        assert!(said.to_lowercase().contains("permi"), "{said}");
    }
    banner.pbx.host.shell(&format!("chmod 755 {}", banner.pbx.world.dir().display()));
    let said = deprived(&["--reuid=65534", "--regid=65534", "--clear-groups"], &["sync"]);
    assert!(said.contains("root"), "{said}");
    banner.bans("sip", &[]);
    assert_eq!(banner.rules().len(), 4);
    // What a stop could not do, the next sync does.
    banner.does(&["sync"]);
    assert_eq!(banner.rules(), [""; 0]);
}

#[test]
fn many_at_once_wait_for_each_other() {
    let banner = Banner::new("nft");
    banner.does(&args("start", &OF_SIP, &[]));
    let addresses: Vec<_> = (1..=20).map(|n| format!("10.9.0.{n}")).collect();
    let mut calls: Vec<_> = addresses
        .iter()
        .enumerate()
        .map(|(n, address)| {
            let whose = if n % 2 == 0 { OF_SIP } else { OF_WEB };
            banner
                .command(&args("ban", &whose, &["--for=3600", "--", address]))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    assert!(calls.iter_mut().all(|call| call.wait().unwrap().success()));
    assert_eq!((banner.banned("sip").len(), banner.banned("web").len()), (10, 10));
    assert_eq!(banner.rules(), rules_of_both());
    assert_eq!(banner.jumps("iptables"), ["RF-BAN", "ACCEPT"]);
}

#[test]
fn a_start_that_is_killed_leaves_what_the_next_can_use() {
    let banner = Banner::new("nft");
    banner.has_database(&["sip"]);
    let ids: Vec<_> = (0..500).map(|n| format!("10.9.{}.{}", n / 200, n % 200)).collect();
    let bans: Vec<_> = ids.iter().map(|id| (id.as_str(), 100, 3_600)).collect();
    banner.remember("sip", &bans);
    banner.does(&args("start", &OF_WEB, &[]));
    let killed = |delay: u32, args: &[&str]| {
        let delay = format!("0.{delay:04}");
        let mut command = banner.pbx.host.command("timeout");
        command.args(["--signal=KILL", &delay, "env"]);
        command.arg(format!("RINGFENCE_CONFIG={}", banner.pbx.world.config().display()));
        let call = command.arg(cargo_bin("ringfence-ban")).args(args).output().unwrap();
        !call.status.success()
    };
    let mut seed = 1_u32;
    let mut cut = 0;
    for turn in 0..30 {
        seed = seed.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        let delay = 10 + seed / 65_536 % 600;
        cut += usize::from(killed(delay, &args("start", &OF_SIP, &[])));
        // Whatever comes next: all of fail2ban's calls can.
        match turn % 3 {
            0 => banner.does(&args("start", &OF_SIP, &[])),
            1 => {
                banner.does(&args("ban", &OF_SIP, &["--for=3500", "--", &ids[0]]));
                banner.does(&["sync"]);
            }
            _ => {
                banner.does(&["stop", "--jail=sip"]);
                assert_eq!(banner.sets(), ["rf-ban-web-4", "rf-ban-web-6"]);
                banner.does(&args("start", &OF_SIP, &[]));
            }
        }
        assert_eq!(banner.banned("sip").len(), 500, "{delay}");
        let (mut rules, mut expected) = (banner.rules(), rules_of_both());
        rules.sort();
        expected.sort();
        assert_eq!(rules, expected, "{delay}");
        assert_eq!(banner.jumps("ip6tables"), ["RF-BAN", "ACCEPT"]);
    }
    assert!(cut > 0, "none was killed before its end");
    banner.does(&args("start", &OF_SIP, &[]));
    assert_eq!(banner.sets().len(), 4, "{:?}", banner.sets());
    banner.does(&["stop"]);
    banner.is_open();
}

fn an_observer_fills_the_sets_and_drops_nothing(variant: &'static str) {
    let banner = Banner::new(variant);
    let gate = Gate::new(&banner.pbx);
    banner.configure("mode = \"observe\"", "");
    let fail2ban = banner.fail2ban(&[SIP]);
    banner.refused("sip", &ATTACKER);
    wait_for("the bans", || banner.banned("sip").len() == 2);
    for address in ATTACKER {
        assert_eq!(gate.let_in(&one_of_each(address)), [true; 6]);
    }
    assert_eq!(banner.rules(), [""; 0]);
    let call = banner.ban(&["list"]);
    assert_eq!((call.code, call.stderr.as_str()), (0, ""));
    assert!(call.stdout.ends_with("Mode is observe: no packet is dropped.\n"), "{}", call.stdout);
    let journal = banner.pbx.world.journal();
    assert!(journal.iter().all(|line| line["mode"] == "observe"), "{journal:#?}");
    // What is changed holds at once.
    banner.configure("", "");
    banner.does(&["sync"]);
    for address in ATTACKER {
        assert_eq!(gate.let_in(&one_of_each(address)), [false, false, false, true, true, true]);
    }
    banner.configure("mode = \"observe\"", "");
    banner.does(&["sync"]);
    assert_eq!(gate.let_in(&one_of_each(ATTACKER[0])), [true; 6]);
    fail2ban.is_content();
    drop(fail2ban);
    banner.is_open();
}

#[test]
fn long_bans_are_renewed_and_those_for_ever_never_end() {
    const DAY: i64 = 86_400;
    const LONGEST: i64 = 2_147_483;
    let banner = Banner::new("nft");
    let fail2ban = banner.fail2ban(&[("sip", "bantime = 60d"), ("web", "bantime = -1")]);
    for jail in ["sip", "web"] {
        banner.refused(jail, &ATTACKER);
        has_banned(&banner, &fail2ban, jail, 2);
    }
    let hold = || {
        banner.bans("sip", &ATTACKER.map(|address| (address, LONGEST)));
        banner.bans("web", &ATTACKER.map(|address| (address, 0)));
    };
    hold();
    banner.pbx.host.shell(&format!("ipset add -exist rf-ban-sip-4 {} timeout 100", ATTACKER[0]));
    banner.does(&["sync"]);
    hold();
    // What is left is less in the end.
    sqlite(
        &banner.database(),
        &format!("UPDATE bips SET timeofban = timeofban - {} WHERE jail = 'sip'", 59 * DAY),
    );
    banner.does(&["sync"]);
    banner.bans("sip", &ATTACKER.map(|address| (address, DAY)));
    fail2ban.is_content();
}

#[test]
fn a_ban_that_fail2ban_prolongs_is_longer() {
    let banner = Banner::new("nft");
    let more = "bantime = 1m\nbantime.increment = true\nbantime.multipliers = 1 60\nbantime.rndtime = 0\n";
    let fail2ban = banner.fail2ban(&[("sip", more)]);
    // He was banned before.
    banner.remember("sip", &[(ATTACKER[0], 600, 60)]);
    banner.refused("sip", &ATTACKER);
    wait_for("the bans", || banner.banned("sip").len() == 2);
    wait_for("more time", || banner.banned("sip")[ATTACKER[0]] > 60);
    banner.bans("sip", &[(ATTACKER[0], 3_600), (ATTACKER[1], 60)]);
    fail2ban.is_content();
}

#[test]
fn reloads_and_restarts_of_jails_keep_their_bans_and_a_stop_leaves_nothing() {
    let banner = Banner::new("nft");
    let mut fail2ban = banner.fail2ban(&[SIP, WEB]);
    for jail in ["sip", "web"] {
        banner.refused(jail, &ATTACKER);
        has_banned(&banner, &fail2ban, jail, 2);
    }
    let holds = |ports: &str| {
        let right = || {
            let rules = banner.rules();
            let of_sip = rules.iter().filter(|rule| rule.contains("rf-ban-sip") && rule.contains(ports));
            (of_sip.count(), rules.len()) == (4, 6)
        };
        wait_for("the rules", right);
        for jail in ["sip", "web"] {
            wait_for(jail, || banner.banned(jail).len() == 2);
        }
        for family in ["iptables", "ip6tables"] {
            assert_eq!(banner.jumps(family), ["RF-BAN", "ACCEPT"]);
        }
    };
    holds("5060,5080:5081");
    for change in [&["reload"][..], &["restart", "sip"], &["reload", "--restart", "web"], &["reload", "sip"]]
    {
        println!("{change:?}");
        fail2ban.client(change).unwrap();
        for jail in ["sip", "web"] {
            wait_for(jail, || fail2ban.number_if_any(jail, "Currently banned") == Some(2));
        }
        holds("5060,5080:5081");
    }
    // Other ports from now on.
    banner.configure_jails(&[("sip", "port = 5090\nprotocol = tcp,udp"), WEB]);
    fail2ban.client(&["reload"]).unwrap();
    // fail2ban says nothing of it before the next ban.
    fail2ban.client(&["set", "sip", "banip", OTHER[0]]).unwrap();
    fail2ban.client(&["set", "sip", "unbanip", OTHER[0]]).unwrap();
    holds("--dports 5090 ");
    // A jail that is gone, and one that stops.
    banner.configure_jails(&[WEB]);
    fail2ban.client(&["reload"]).unwrap();
    wait_for("the end of a jail", || banner.sets() == ["rf-ban-web-4", "rf-ban-web-6"]);
    assert_eq!(banner.rules(), [rule_of_web('4'), rule_of_web('6')]);
    fail2ban.client(&["stop", "web"]).unwrap();
    wait_for("the end of the last", || banner.sets().is_empty());
    banner.is_open();
    fail2ban.stop();
    fail2ban.is_content();
    let calls = banner.calls();
    assert!(calls.iter().all(|call| call.ends_with(" 0")), "{calls:?}");
}
