//! `ringfence pause`: real packets pass while it lasts, and the kernel alone ends it.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::packets::{Gate, Packet, STRANGERS, udp};
use crate::support::pbx::{PHONES, UNVERIFIED};
use crate::support::sip::{credentials, register};
use crate::support::{Banner, Pbx, now, wait_for};

with_both_variants! {
    a_pause_lifts_all_and_what_runs_every_minute_leaves_it_alone
    the_kernel_alone_ends_a_pause
    who_is_let_in_stays_let_in
    what_a_pause_hides_is_released
    what_comes_meanwhile_counts_from_the_end_on
    rules_that_are_taken_back_bring_no_pause_back
    without_the_match_nothing_is_changed
    a_kernel_without_the_match_is_left_as_it_is
    rules_of_the_hosts_own_by_our_sets_are_named
    a_boot_without_the_file_ends_a_pause
    a_boot_with_the_file_goes_on_with_it_until_its_end
}

const BANNED: [&str; 2] = PHONES[1];
const LISTED: [&str; 2] = STRANGERS[0];
const BLOCKED: &str = "999@a.example.com";

/// Somebody is banned, somebody else is on a block list, and an account is blocked; the rules are in their order if `ordered`.
fn host(variant: &'static str, ordered: bool) -> Banner {
    let banner = Banner::new(variant);
    let [v4, v6] = LISTED;
    banner.configure(
        "",
        &format!("[lists.bad]\nkind = \"block\"\nentries = [\"{v4}\", \"{v6}\"]\n{UNVERIFIED}"),
    );
    banner.has_database(&["sip"]);
    banner.does(&["start", "--jail=sip", "--port=5060", "--protocol=udp"]);
    banner.remember("sip", &BANNED.map(|address| (address, 0, 3_600)));
    for address in BANNED {
        banner.does(&["ban", "--jail=sip", "--port=5060", "--protocol=udp", "--for=3600", "--", address]);
    }
    let pbx = &banner.pbx;
    assert_eq!(pbx.lists(&["refresh"]).code, 0);
    if ordered {
        let applied = pbx.firewall(&["apply", "--yes"]);
        assert_eq!((applied.code, applied.stderr.as_str()), (0, ""));
    }
    pbx.ban(BLOCKED);
    banner
}

/// What is blocked on such a host: bans, the list, the account.
fn unwanted(ordered: bool) -> Vec<Packet> {
    let mut packets = vec![];
    for family in [0, 1] {
        packets.push(udp(BANNED[family], 5060, "x"));
        packets.push(udp(PHONES[0][family], 5060, register(&credentials(BLOCKED))));
        if ordered {
            packets.push(udp(LISTED[family], 80, "x"));
        }
    }
    packets
}

/// Of each kind, whether it passes.
#[track_caller]
fn pass(gate: &Gate<'_>, ordered: bool) -> bool {
    let arrived = gate.let_in(&unwanted(ordered));
    assert!(arrived.iter().all(|one| *one == arrived[0]), "{arrived:?}");
    arrived[0]
}

/// What a timer runs each minute; nobody has anything to say.
#[track_caller]
fn a_minute_goes_by(pbx: &Pbx) {
    pbx.does(&["expire"]);
    let restored = pbx.firewall(&["restore"]);
    assert_eq!((restored.code, restored.stderr.as_str()), (0, ""));
    let synced = crate::support::call(&mut pbx.ban_command(&["sync"]));
    // No fail2ban answers.
    assert!(synced.code < 2, "{}", synced.stderr);
}

/// What was decided by whom, about pauses and repairs.
fn decisions(pbx: &Pbx) -> Vec<String> {
    let journal = pbx.world.journal();
    let word = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    let of_interest = |line: &&Value| {
        ["paused", "resumed", "repair", "restore"].contains(&line["decision"].as_str().unwrap())
    };
    journal
        .iter()
        .filter(of_interest)
        .map(|line| format!("{} {} {}", word(line, "tool"), word(line, "decision"), word(line, "reason")))
        .collect()
}

#[track_caller]
fn says(pbx: &Pbx, code: i32, args: &[&str]) -> String {
    let call = pbx.admin(args);
    assert_eq!((call.code, call.stderr.as_str()), (code, ""), "{args:?}: {}", call.stdout);
    call.stdout
}

fn a_pause_lifts_all_and_what_runs_every_minute_leaves_it_alone(variant: &'static str) {
    for ordered in [true, false] {
        let banner = host(variant, ordered);
        let pbx = &banner.pbx;
        let gate = Gate::new(pbx);
        let before = pbx.saved();
        assert!(!pass(&gate, ordered));
        assert_eq!(says(pbx, 1, &["pause"]), "There is no pause.\n");

        let said = says(pbx, 0, &["pause", "10m"]);
        assert!(
            said.starts_with("Paused until ") && said.contains("(10m): nothing of Ringfence blocks"),
            "{said}"
        );
        assert!(pass(&gate, ordered));
        a_minute_goes_by(pbx);
        assert!(pass(&gate, ordered));
        // What is as it should be is not called an error.
        if ordered {
            let verified = pbx.firewall(&["verify"]);
            assert_eq!(verified.code, 0, "{}", verified.stdout);
            assert!(verified.stdout.contains("ok      Paused until "), "{}", verified.stdout);
        }
        for list in [banner.ban(&["list"]), pbx.block(&["list"])] {
            assert!(
                list.stdout.contains("Paused until ") && !list.stdout.contains("missing"),
                "{}",
                list.stdout
            );
        }
        let state: Value = serde_json::from_str(&says(pbx, 0, &["pause", "--json"])).unwrap();
        assert_eq!(state["paused"], true);
        let until: jiff::Timestamp = state["until"].as_str().unwrap().parse().unwrap();
        assert!((540..=600).contains(&(until.as_second() - now())), "{state}");

        // Another one takes its place.
        says(pbx, 0, &["pause", "1h"]);
        assert!(pass(&gate, ordered));
        assert_eq!(pbx.saved().matches("--datestop").count(), if ordered { 6 } else { 4 });

        assert_eq!(says(pbx, 0, &["pause", "--end"]), "The pause is over: what it lifted blocks again.\n");
        assert!(!pass(&gate, ordered));
        assert_eq!(pbx.saved(), before);
        assert_eq!(says(pbx, 0, &["pause", "--end"]), "There is no pause.\n");
        a_minute_goes_by(pbx);
        assert_eq!(pbx.saved(), before);
        assert_eq!(decisions(pbx), ["ringfence paused by-hand", "ringfence resumed by-hand"]);
    }
}

/// A pause of seconds, as no command line can have it.
fn pause_for(pbx: &Pbx, seconds: i64) -> Instant {
    let until = now() + seconds;
    std::fs::write(pbx.world.path("run/pause.json"), format!("{{\"until\":{until}}}")).unwrap();
    a_minute_goes_by(pbx);
    Instant::now() + Duration::from_secs(u64::try_from(until - now()).unwrap())
}

fn the_kernel_alone_ends_a_pause(variant: &'static str) {
    for ordered in [true, false] {
        let banner = host(variant, ordered);
        let pbx = &banner.pbx;
        let gate = Gate::new(pbx);
        let before = pbx.saved();
        // A machine may be too slow for a short one.
        let end = [6, 12, 24, 48].into_iter().find_map(|seconds| {
            let end = pause_for(pbx, seconds);
            let passes = gate.let_in(&unwanted(ordered)).iter().all(|arrived| *arrived);
            // The kernel counts whole seconds.
            let early = Instant::now() + Duration::from_secs(2) < end;
            assert!(passes || !early);
            early.then_some(end)
        });
        let end = end.expect("a pause that is seen");
        // Nothing of ours runs.
        while gate.passes(udp(BANNED[0], 5060, "x")) {
            assert!(Instant::now() < end + Duration::from_secs(30), "it does not end");
            // Each packet is a connection that the kernel tracks.
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(Instant::now() + Duration::from_secs(1) > end, "too early");
        assert!(!pass(&gate, ordered));
        // What it left does nothing, and is no fault.
        assert!(pbx.saved().contains("--datestop"));
        if ordered {
            let verified = pbx.firewall(&["verify"]);
            assert_eq!(verified.code, 0, "{}", verified.stdout);
        }
        assert_eq!(says(pbx, 1, &["pause"]), "There is no pause.\n");
        let journal = decisions(pbx).len();
        a_minute_goes_by(pbx);
        assert_eq!(pbx.saved(), before);
        assert_eq!(decisions(pbx)[journal..], ["ringfence resumed time-over"]);
        assert!(!pass(&gate, ordered));
    }
}

fn what_a_pause_hides_is_released(variant: &'static str) {
    let banner = host(variant, true);
    let pbx = &banner.pbx;
    let subjects = [
        (BANNED[0], 1, "out of the set rf-ban-sip-4"),
        (LISTED[1], 0, "allowed for 1d, and not banned either meanwhile"),
        (BLOCKED, 0, "ringfence-block lets 999@a.example.com go"),
    ];
    for (subject, ..) in subjects {
        let shown = says(pbx, 1, &["why", subject]);
        assert!(shown.starts_with(&format!("{subject} is blocked by ")), "{shown}");
    }
    says(pbx, 0, &["pause", "10m"]);
    for (subject, code, step) in subjects {
        assert!(says(pbx, 0, &["why", subject]).contains(&format!("\n{subject} is not blocked.\n")));
        // That fail2ban does not run, and remembers the ban, is left.
        let done = says(pbx, code, &["release", subject]);
        let in_part = if code == 1 { " in part" } else { "" };
        assert!(done.starts_with(&format!("{subject} is released{in_part}:\n")), "{done}");
        assert!(done.contains(&format!("\n  {step}\n")), "{done}");
        assert!(done.contains("\nNote: Paused until ") && done.contains(" blocks afterwards.\n"), "{done}");
    }
    says(pbx, 0, &["pause", "--end"]);
    for (subject, ..) in subjects {
        let shown = says(pbx, 0, &["why", subject]);
        assert!(shown.starts_with(&format!("{subject} is not blocked.\n")), "{shown}");
    }
}

fn who_is_let_in_stays_let_in(variant: &'static str) {
    let pbx = Pbx::new(variant, "");
    let ([office, stranger], tool) =
        ([PHONES[0], STRANGERS[0]], |family: &str| format!("{family}-{variant}"));
    pbx.configure(&format!(
        "[firewall]\nallow-means = \"accept\"\n[lists.office]\nkind = \"allow\"\nentries = [\"{}\", \"{}\"]\n{UNVERIFIED}",
        office[0], office[1]
    ));
    for family in ["iptables", "ip6tables"].map(tool) {
        pbx.host.shell(&format!("{family} -A INPUT -i lo -j ACCEPT; {family} -A INPUT -j ACCEPT -p udp --dport 20000; \
                                 {family} -A INPUT -j ACCEPT -p tcp --dport 20000; {family} -A INPUT -p ipv6-icmp -j ACCEPT; \
                                 {family} -P INPUT DROP"));
    }
    assert_eq!(pbx.lists(&["refresh"]).code, 0);
    let applied = pbx.firewall(&["apply", "--yes"]);
    assert_eq!((applied.code, applied.stderr.as_str()), (0, ""));
    let gate = Gate::new(&pbx);
    let let_in = || {
        gate.let_in(&[office, stranger].concat().iter().map(|from| udp(from, 5060, "x")).collect::<Vec<_>>())
    };
    let before = pbx.saved();
    let only_office = [true, true, false, false];
    assert_eq!(let_in(), only_office);
    says(&pbx, 0, &["pause", "10m"]);
    assert_eq!(let_in(), only_office);
    a_minute_goes_by(&pbx);
    assert_eq!(let_in(), only_office);
    assert_eq!(pbx.firewall(&["verify"]).code, 0);
    says(&pbx, 0, &["pause", "1h"]);
    assert_eq!(pbx.saved().matches("--datestop").count(), 4);
    says(&pbx, 0, &["pause", "--end"]);
    assert_eq!(let_in(), only_office);
    assert_eq!(pbx.saved(), before);
}

fn what_comes_meanwhile_counts_from_the_end_on(variant: &'static str) {
    let banner = Banner::new(variant);
    banner.configure("", UNVERIFIED);
    let pbx = &banner.pbx;
    let gate = Gate::new(pbx);
    // Nothing of ours is there yet.
    says(pbx, 0, &["pause", "10m"]);
    banner.does(&["start", "--jail=sip", "--port=5060", "--protocol=udp"]);
    for address in BANNED {
        banner.does(&["ban", "--jail=sip", "--port=5060", "--protocol=udp", "--for=3600", "--", address]);
    }
    pbx.ban(BLOCKED);
    assert!(pass(&gate, false));
    let applied = pbx.firewall(&["apply", "--yes"]);
    assert_eq!((applied.code, applied.stderr.as_str()), (0, ""));
    assert!(pass(&gate, false));
    pbx.host.shell(&format!("iptables-{variant} -F RF-BAN"));
    a_minute_goes_by(pbx);
    assert!(pass(&gate, false));
    says(pbx, 0, &["pause", "--end"]);
    assert!(!pass(&gate, false));

    // A file that is damaged is no pause, and a boot ends one.
    says(pbx, 0, &["pause", "10m"]);
    assert!(pass(&gate, false));
    std::fs::write(pbx.world.path("run/pause.json"), "{").unwrap();
    let call = pbx.admin(&["pause"]);
    assert_eq!(call.code, 2);
    assert!(call.stderr.contains("pause.json is damaged, and means no pause"), "{}", call.stderr);
    a_minute_goes_by(pbx);
    assert!(!pass(&gate, false));

    // An observer blocks nobody anyway; fail2ban's own bans are not ours.
    banner.configure("mode = \"observe\"", UNVERIFIED);
    pbx.host.shell(&format!(
        "iptables-{variant} -N f2b-sshd; iptables-{variant} -I INPUT -p tcp --dport 22 -j f2b-sshd"
    ));
    let said = says(pbx, 0, &["pause", "10m"]);
    assert!(said.contains("Mode is observe: nothing is blocked anyway.\n"), "{said}");
    assert!(said.contains("Not ours, and still banning: f2b-sshd. "), "{said}");
}

fn rules_that_are_taken_back_bring_no_pause_back(variant: &'static str) {
    let banner = host(variant, true);
    let pbx = &banner.pbx;
    let gate = Gate::new(pbx);
    let before = pbx.saved();
    says(pbx, 0, &["pause", "10m"]);
    let applied = pbx.firewall(&["apply", "--confirm-within", "5s"]);
    assert_eq!((applied.code, applied.stderr.as_str()), (0, ""));
    assert!(pass(&gate, true));
    says(pbx, 0, &["pause", "--end"]);
    wait_for("that they are taken back", || {
        pbx.world.journal().iter().any(|line| line["decision"] == "take back")
    });
    assert!(!pass(&gate, true));
    assert_eq!(pbx.saved(), before);
}

fn without_the_match_nothing_is_changed(variant: &'static str) {
    let hide = "for file in /usr/lib/*/xtables/libxt_time.so; do mount --bind /dev/null $file; done";
    let banner = host(variant, true);
    let pbx = &banner.pbx;
    pbx.host.shell(hide);
    let before = pbx.saved();
    let refuses = |pbx: &Pbx| {
        let call = pbx.admin(&["pause", "10m"]);
        assert_eq!((call.code, call.stdout.as_str()), (2, ""));
        assert!(
            call.stderr.contains("the match `time`, by which the kernel ends a pause, is not there"),
            "{}",
            call.stderr
        );
        assert!(call.stderr.contains("nothing was changed"), "{}", call.stderr);
        assert!(!pbx.world.path("run/pause.json").exists());
    };
    refuses(pbx);
    assert_eq!(pbx.saved(), before);
    assert!(!pass(&Gate::new(pbx), true));
    // Also where nothing of ours is there yet, and a jail that starts would fail.
    let pbx = Pbx::new(variant, "");
    pbx.host.shell(hide);
    refuses(&pbx);
}

/// As a kernel without `xt_time` refuses it.
fn a_kernel_without_the_match_is_left_as_it_is(variant: &'static str) {
    let says = if variant == "nft" {
        "line 3: RULE_APPEND failed (No such file or directory): rule in chain RF-BAN"
    } else {
        "iptables-restore: line 3 failed"
    };
    let banner = host(variant, true);
    let pbx = &banner.pbx;
    let gate = Gate::new(pbx);
    let before = pbx.saved();
    pbx.host.shell(&format!(
        "mkdir /run/upper /run/work
         mount -t overlay overlay -o lowerdir=/usr/sbin,upperdir=/run/upper,workdir=/run/work /usr/sbin
         for name in iptables-{variant} ip6tables-{variant}; do
             rm /usr/sbin/$name-restore
             printf '#!/bin/bash\\nrules=$(cat); case \"$rules\" in *\"-m time\"*) echo \"{says}\" >&2; exit 4;; esac\\n\
             exec -a %s-restore /usr/sbin/xtables-{variant}-multi \"$@\" <<< \"$rules\"\\n' $name > /usr/sbin/$name-restore
             chmod 755 /usr/sbin/$name-restore
         done"
    ));
    let call = pbx.admin(&["pause", "10m"]);
    assert_eq!((call.code, call.stdout.as_str()), (2, ""));
    let expected = "the match `time`, by which the kernel ends a pause, is not there (module xt_time;";
    assert!(call.stderr.contains(expected) && call.stderr.contains("nothing was changed"), "{}", call.stderr);
    assert_eq!(pbx.saved(), before);
    assert!(!pass(&gate, true) && !pbx.world.path("run/pause.json").exists());
    assert_eq!(self::says(pbx, 1, &["pause"]), "There is no pause.\n");
    assert_eq!(self::says(pbx, 0, &["pause", "--end"]), "There is no pause.\n");
    // All else goes on.
    a_minute_goes_by(pbx);
    pbx.host.shell(&format!("iptables-{variant} -F RINGFENCE"));
    a_minute_goes_by(pbx);
    assert_eq!(pbx.saved(), before);
}

fn rules_of_the_hosts_own_by_our_sets_are_named(variant: &'static str) {
    let banner = host(variant, true);
    let pbx = &banner.pbx;
    let gate = Gate::new(pbx);
    let [v4, v6] = ["iptables", "ip6tables"].map(|family| format!("{family}-{variant}"));
    pbx.host.shell(&format!(
        "{v4} -t raw -A PREROUTING -m set --match-set rf-block-ip4 src -j DROP
         {v4} -N mine; {v4} -A mine -p udp -j DROP; {v4} -A INPUT -m set --match-set rf-block-ip4 src -j mine
         {v4} -A INPUT -m set --match-set rf-allow-ip4 src -j ACCEPT
         {v6} -A INPUT -m set --match-set rf-block-ip6 src -m comment --comment 'my own' -j DROP"
    ));
    let rules_before = pbx.saved();
    let said = says(pbx, 0, &["pause", "10m"]);
    let (_, named) = said.split_once("still block by our sets; what takes each away:\n").expect(&said);
    let named: Vec<_> = named.lines().map(str::trim).collect();
    let number = pbx.input("ip6tables").iter().position(|rule| rule.contains("my own")).unwrap() + 1;
    let by_number = format!(
        "{v6} -D INPUT {number}  # -m set --match-set rf-block-ip6 src -m comment --comment \"my own\" -j DROP"
    );
    assert_eq!(
        named,
        [
            &format!("{v4} -t raw -D PREROUTING -m set --match-set rf-block-ip4 src -j DROP"),
            &format!("{v4} -D INPUT -m set --match-set rf-block-ip4 src -j mine"),
            &by_number,
        ]
    );
    // It is so: who is on a list is still blocked, who is banned is not.
    let state = |address: &str| gate.passes(udp(address, 5060, "x"));
    assert!(LISTED.into_iter().all(|address| !state(address)) && BANNED.into_iter().all(state));
    let json: Value = serde_json::from_str(&says(pbx, 0, &["pause", "--json"])).unwrap();
    let rules = json["still-blocking"].as_array().unwrap();
    assert_eq!(rules.len(), 3);
    assert_eq!((&rules[0]["table"], &rules[0]["chain"]), (&"raw".into(), &"PREROUTING".into()));
    pbx.host.shell(&named.join("\n"));
    assert!(LISTED.into_iter().all(state));
    assert!(!says(pbx, 0, &["pause"]).contains("still block"));
    says(pbx, 0, &["pause", "--end"]);
    assert_ne!(pbx.saved(), rules_before);
    assert!(!pass(&gate, true));
}

/// What systemd starts at a boot, in its order; then fail2ban. `saved` are the rules that netfilter-persistent has, of IPv4 and IPv6.
fn units_start(banner: &Banner, saved: Option<&[String; 2]>) {
    let pbx = &banner.pbx;
    let shipped =
        std::fs::read_to_string(crate::support::project("packaging/systemd/ringfence-sets.service")).unwrap();
    let calls: Vec<_> = shipped.lines().filter_map(|line| line.strip_prefix("ExecStart=")).collect();
    let expected = [
        "-/usr/bin/ringfence-ban prepare",
        "-/usr/bin/ringfence-allow sync",
        "/usr/bin/ringfence-lists load",
    ];
    assert_eq!(calls, expected);
    // The host's own, where netfilter-persistent has them.
    let families = ["iptables", "ip6tables"];
    let own = "*filter\n-A INPUT -i lo -j ACCEPT\nCOMMIT\n";
    let rules = families.map(|family| pbx.world.path(family).display().to_string());
    for (at, rules) in rules.iter().enumerate() {
        std::fs::write(rules, saved.map_or(own, |saved| &saved[at])).unwrap();
    }
    banner.does(&["prepare", &rules[0], &rules[1]]);
    crate::support::call(&mut pbx.there(&pbx.world.allow_command(&["sync"])));
    let loaded = pbx.lists(&["load"]);
    assert_eq!((loaded.code, loaded.stderr.as_str()), (0, ""));
    for (family, rules) in families.iter().zip(&rules) {
        pbx.host.shell(&format!("{family}-{}-restore < {rules}", pbx.variant));
    }
    if saved.is_some() {
        // They have the pause in them, which holds until who knows better comes.
        assert!(pass(&Gate::new(pbx), true));
    }
    let restored = pbx.firewall(&["restore"]);
    assert_eq!((restored.code, restored.stderr.as_str()), (0, ""));
    pbx.does(&["expire"]);
    banner.does(&["start", "--jail=sip", "--port=5060", "--protocol=udp"]);
}

/// `/run` is empty after a boot, and with it the run directory.
fn a_boot_without_the_file_ends_a_pause(variant: &'static str) {
    for with_saved in [false, true] {
        let mut banner = host(variant, true);
        says(&banner.pbx, 0, &["pause", "10m"]);
        assert!(pass(&Gate::new(&banner.pbx), true));
        let save = |family: &str| banner.pbx.host.shell(&format!("{family}-{variant}-save -t filter"));
        let saved = with_saved.then(|| ["iptables", "ip6tables"].map(save));
        std::fs::remove_dir_all(banner.pbx.world.path("run")).unwrap();
        banner.pbx.boot();
        units_start(&banner, saved.as_ref());
        let pbx = &banner.pbx;
        assert!(!pass(&Gate::new(pbx), true));
        assert!(!pbx.saved().contains("--datestop"));
        assert_eq!(says(pbx, 1, &["pause"]), "There is no pause.\n");
        assert_eq!(pbx.firewall(&["verify"]).code, 0);
    }
}

/// On a host with its run directory elsewhere.
fn a_boot_with_the_file_goes_on_with_it_until_its_end(variant: &'static str) {
    let mut banner = host(variant, true);
    // A machine may be too slow for a short one.
    let end = [15, 30, 60, 120].into_iter().find_map(|seconds| {
        let end = pause_for(&banner.pbx, seconds);
        banner.pbx.boot();
        units_start(&banner, None);
        let passes = Gate::new(&banner.pbx).let_in(&unwanted(true)).iter().all(|arrived| *arrived);
        let early = Instant::now() + Duration::from_secs(2) < end;
        assert!(passes || !early, "the pause does not hold");
        early.then_some(end)
    });
    let end = end.expect("a pause that is seen");
    let pbx = &banner.pbx;
    let gate = Gate::new(pbx);
    assert!(says(pbx, 0, &["pause"]).starts_with("Paused until "));
    a_minute_goes_by(pbx);
    // Nothing of ours runs.
    while gate.passes(udp(BANNED[0], 5060, "x")) {
        assert!(Instant::now() < end + Duration::from_secs(30), "it does not end");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(Instant::now() + Duration::from_secs(1) > end, "too early");
    assert!(!pass(&gate, true));
    a_minute_goes_by(pbx);
    assert!(!pbx.saved().contains("--datestop") && !pass(&gate, true));
    assert_eq!(pbx.firewall(&["verify"]).code, 0);
}

#[test]
fn a_pause_has_bounds() {
    let pbx = Pbx::new("nft", "");
    for args in [&["pause", "10s"][..], &["pause", "25h"], &["pause", "10m", "--end"], &["pause", "soon"]] {
        let call = pbx.admin(args);
        assert_eq!((call.code, call.stdout.as_str()), (2, ""), "{args:?}");
        assert!(call.stderr.starts_with("error: "), "{}", call.stderr);
    }
}
