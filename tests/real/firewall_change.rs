//! `ringfence-firewall`: what goes in comes out again, whatever happens meanwhile.

use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::support::pbx::{PHONES, UNVERIFIED};
use crate::support::sip::register;
use crate::support::{Call, Pbx, call, copy_program, data, now, run, wait_for, write_program};

with_both_variants! {
    what_goes_in_comes_out
    what_nobody_confirms_is_taken_back
    what_is_confirmed_stays
    a_killed_apply_leaves_the_old_rules_or_the_new
    a_killed_confirm_or_remove_is_done_or_is_not
    between_the_families_nothing_is_left_half_done
    the_end_of_the_session_is_not_the_end_of_the_watch
    without_its_watch_it_is_taken_back_all_the_same
    a_wiped_run_directory_confirms_nothing
    only_what_is_whole_and_there_is_confirmed
    what_somebody_wrote_by_hand_is_his
    one_family_that_refuses_keeps_the_old_rules_of_both
    a_disk_that_takes_nothing_changes_nothing
    an_unknown_name_is_an_error_before_anything_is_touched
    broken_settings_hinder_neither_restore_nor_remove
    restore_sets_right_whatever_was_done
    after_a_reboot_all_is_there_again
    a_download_keeps_no_rule_away
    many_at_once_agree
}

/// What was confirmed before: other ports.
const EARLIER: &str = "[block]\nverify = \"none\"\n[firewall]\nsip-ports = [\"5070\"]\n";

pub const FAMILIES: [&str; 2] = ["iptables", "ip6tables"];

/// Lines of a shell, for both families: `$T` is the program.
pub fn for_both(pbx: &Pbx, script: &str) {
    for family in FAMILIES {
        pbx.host.shell(&script.replace("$T", &format!("{family}-{}", pbx.variant)));
    }
}

/// All rules of all kinds, without counters and without tables in which there is nothing.
#[track_caller]
pub fn rules(pbx: &Pbx) -> String {
    let text = pbx.host.shell(
        "for variant in nft legacy; do for family in ip ip6; do $family\"tables-$variant-save\"; done; done",
    );
    let mut tables = String::new();
    for table in text.split_inclusive("COMMIT\n") {
        let lines = table.lines().filter(|line| !line.starts_with('#'));
        let lines: Vec<_> = lines.map(|line| line.split(" [").next().unwrap()).collect();
        let says =
            |line: &&str| line.starts_with("-A ") || line.starts_with(':') && !line.ends_with(" ACCEPT");
        if lines.iter().any(says) {
            tables += &lines.join("\n");
            tables += "\n";
        }
    }
    tables
}

/// Without what was banned meanwhile.
const BANS: &str = "$T -N f2b-new; $T -A f2b-new -m mark --mark 7 -j DROP; $T -I INPUT 1 -p udp -j f2b-new";
const NO_BANS: &str = "$T -D INPUT -p udp -j f2b-new; $T -F f2b-new; $T -X f2b-new";

/// The bans are there; then they are gone.
#[track_caller]
fn end_bans(pbx: &Pbx) {
    let there = rules(pbx);
    assert_eq!(there.matches("-A f2b-new -m mark --mark 0x7 -j DROP").count(), 2, "{there}");
    assert_eq!(there.matches("-A INPUT -p udp -j f2b-new").count(), 2, "{there}");
    for_both(pbx, NO_BANS);
}

#[track_caller]
pub fn sets(pbx: &Pbx) -> String {
    pbx.host.shell("ipset list -name")
}

/// The ports of SIP, as the kernel has them.
fn ports(pbx: &Pbx) -> Vec<String> {
    let text = pbx.host.shell("ipset save rf-ports");
    let mut ports: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("add rf-ports ")).collect();
    // IAX2's is always among them.
    ports.retain(|port| *port != "4569");
    ports.sort_unstable();
    ports.into_iter().map(str::to_owned).collect()
}

/// A call that is done, and has nothing to say.
#[track_caller]
pub fn does(pbx: &Pbx, args: &[&str]) {
    let call = pbx.firewall(args);
    assert_eq!((call.code, call.stderr.as_str()), (0, ""), "{args:?}");
    // Whoever brings rules in or confirms them hears of it; timers hear nothing.
    assert_eq!(call.stdout.is_empty(), !matches!(args[0], "apply" | "confirm"), "{args:?}: {}", call.stdout);
}

/// A call that ends so, with one line on standard error: that line.
#[track_caller]
fn says(pbx: &Pbx, code: i32, args: &[&str]) -> String {
    tells(pbx, code, &pbx.firewall(args))
}

#[track_caller]
fn tells(pbx: &Pbx, code: i32, call: &Call) -> String {
    assert_eq!((call.code, call.stdout.as_str()), (code, ""), "{}", call.stderr);
    let line = call.stderr.strip_prefix("ringfence-firewall: ").and_then(|line| line.strip_suffix('\n'));
    let line = line.unwrap_or_else(|| panic!("{:?}", call.stderr));
    assert!(!line.contains(char::is_control) && line.len() < 800, "{line:?}");
    line.replace(&pbx.world.dir().display().to_string(), "DIR")
}

/// All is as it should be.
#[track_caller]
pub fn verifies(pbx: &Pbx) {
    let call = pbx.firewall(&["verify"]);
    assert_eq!((call.code, call.stderr.as_str()), (0, ""), "{}\n{}", call.stdout, rules(pbx));
    assert_eq!(call.stdout.matches("ok ").count(), 4, "{}", call.stdout);
}

/// Where the jumps to our chains are among the rules of INPUT, in each family, counted from 1.
pub fn jumps(pbx: &Pbx) -> [Vec<usize>; 2] {
    FAMILIES.map(|family| {
        let rules = pbx.input(family);
        let ours = rules.iter().enumerate().filter(|(_, rule)| rule.ends_with("-j RINGFENCE"));
        ours.map(|(at, _)| at + 1).collect()
    })
}

/// Whether such a decision was made for such a reason.
fn has_evidence(pbx: &Pbx, decision: &str, reason: &str) -> bool {
    pbx.world.journal().iter().any(|line| {
        line["tool"] == "ringfence-firewall" && line["decision"] == decision && line["reason"] == reason
    })
}

/// The processes that take back what this host applied.
fn watches(pbx: &Pbx) -> Vec<Pid> {
    let config = pbx.world.config().display().to_string();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let like_it = all.filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let words: Vec<_> = line.split(|byte| *byte == 0).collect();
        let is_it = words.contains(&config.as_bytes()) && words.contains(&&b"watch"[..]);
        is_it.then(|| {
            Some((Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?, parent(&entry.path())?))
        })?
    });
    let like_it: Vec<_> = like_it.collect();
    // A child of it looks like it until it is another program.
    let is_child = |parent: Pid| like_it.iter().any(|(pid, _)| *pid == parent);
    like_it.iter().filter(|(_, parent)| !is_child(*parent)).map(|(pid, _)| *pid).collect()
}

fn parent(process: &std::path::Path) -> Option<Pid> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
    // 0 where it is of another namespace.
    Pid::from_raw(parent).or(Pid::from_raw(1))
}

/// Kills the one process that would take back.
#[track_caller]
fn kill_watch(pbx: &Pbx) {
    let [watch] = watches(pbx)[..] else { panic!("one process should watch") };
    kill_process(watch, Signal::KILL).unwrap();
    wait_for("the end of the watch", || watches(pbx).is_empty());
}

/// The same rules again, and nobody who would change them.
#[track_caller]
fn are_back(pbx: &Pbx, before: &str) {
    wait_for("the old rules", || watches(pbx).is_empty() && rules(pbx) == before);
}

fn what_goes_in_comes_out(variant: &'static str) {
    for file in ["", "fusionpbx-iptables.rules", "fusionpbx-event-guard-doubled.rules"] {
        let pbx = Pbx::bare(variant, UNVERIFIED);
        if !file.is_empty() {
            let path = data("firewall").join(file);
            pbx.host.shell(&format!("iptables-{variant}-restore < {}", path.display()));
        }
        let before = rules(&pbx);
        does(&pbx, &["apply", "--yes"]);
        verifies(&pbx);
        let wires = pbx.wires();
        for wire in &wires {
            assert!(wire.passes(&register("")), "{file}");
        }
        let hits = || {
            let text =
                FAMILIES.map(|family| pbx.host.shell(&format!("{family}-{variant}-save -c -t filter")));
            let ours = text.concat();
            let ours = ours.lines().filter(|line| line.contains("-A RINGFENCE")).map(|line| {
                let (counters, rule) = line.strip_prefix('[').unwrap().split_once("] ").unwrap();
                let packets = counters.split(':').next().unwrap();
                (rule.to_owned(), packets.parse::<u64>().unwrap())
            });
            ours.collect::<Vec<_>>()
        };
        let counted = hits();
        assert!(counted.iter().filter(|(_, packets)| *packets > 0).count() >= 2, "{counted:?}");
        let (there, in_sets) = (rules(&pbx), sets(&pbx));
        for args in [&["apply", "--yes"][..], &["restore"]] {
            does(&pbx, args);
            assert_eq!((rules(&pbx), sets(&pbx)), (there.clone(), in_sets.clone()), "{file}: {args:?}");
            let again = hits();
            assert_eq!(again.len(), counted.len());
            for ((rule, before), (same, packets)) in counted.iter().zip(again) {
                assert!(*rule == same && packets >= *before, "{file}: {rule}");
            }
        }
        for_both(&pbx, BANS);
        if file.contains("event-guard") {
            pbx.host.shell(&format!("iptables-{variant} -I sip-auth-ip 1 -s 198.51.100.9 -j DROP"));
        }
        does(&pbx, &["remove"]);
        end_bans(&pbx);
        if file.contains("event-guard") {
            pbx.host.shell(&format!("iptables-{variant} -D sip-auth-ip -s 198.51.100.9 -j DROP"));
        }
        assert_eq!(rules(&pbx), before, "{file}");
        assert!(!sets(&pbx).lines().any(|set| ["rf-ports", "rf-known4", "rf-slam-ip6"].contains(&set)));
        assert!(!pbx.world.path("state/firewall").exists());
        does(&pbx, &["remove"]);
        assert_eq!(rules(&pbx), before, "{file}");
        assert_eq!(says(&pbx, 1, &["verify"]), "nothing was confirmed; see ringfence-firewall plan");
    }
}

fn what_nobody_confirms_is_taken_back(variant: &'static str) {
    let pbx = Pbx::new(variant, UNVERIFIED);
    let nothing = rules(&pbx);
    let within = ["apply", "--confirm-within", "10s"];
    does(&pbx, &within);
    verifies(&pbx);
    let there = rules(&pbx);
    assert_ne!(there, nothing);
    let line = says(&pbx, 1, &within);
    assert!(line.starts_with("what was applied before waits for its confirmation, for "), "{line}");
    assert!(pbx.firewall(&["plan"]).stdout.contains("waits for its confirmation, for "));
    // Nor does the timer touch it.
    does(&pbx, &["restore"]);
    for_both(&pbx, BANS);
    wait_for("the old rules", || watches(&pbx).is_empty() && !rules(&pbx).contains("RINGFENCE"));
    end_bans(&pbx);
    assert_eq!(rules(&pbx), nothing);
    assert!(has_evidence(&pbx, "take back", "not-confirmed"));
    assert!(!sets(&pbx).contains("rf-known"));
    assert!(says(&pbx, 1, &["confirm"]).starts_with("nothing waits for a confirmation"));

    pbx.configure(EARLIER);
    does(&pbx, &["apply", "--yes"]);
    let earlier = rules(&pbx);
    assert_eq!(ports(&pbx), ["5070"]);
    pbx.configure(UNVERIFIED);
    does(&pbx, &within);
    assert_eq!(rules(&pbx), there);
    assert_eq!(ports(&pbx), ["5060", "5061", "5080", "5081"]);
    for_both(&pbx, BANS);
    wait_for("the earlier rules", || watches(&pbx).is_empty() && rules(&pbx).contains("5070"));
    end_bans(&pbx);
    assert_eq!(rules(&pbx), earlier);
    assert_eq!(ports(&pbx), ["5070"]);
    verifies(&pbx);
    does(&pbx, &["restore"]);
    assert_eq!(rules(&pbx), earlier);
    // One that waits goes, too.
    does(&pbx, &within);
    does(&pbx, &["remove"]);
    are_back(&pbx, &nothing);
}

fn what_is_confirmed_stays(variant: &'static str) {
    let pbx = Pbx::new(variant, UNVERIFIED);
    let before = rules(&pbx);
    let over_ssh = |variable: &str, args: &[&str]| {
        call(pbx.firewall_command(args).env(variable, "203.0.113.9 50022 192.0.2.1 22"))
    };
    for variable in ["SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY"] {
        let line = tells(&pbx, 1, &over_ssh(variable, &["apply"]));
        assert!(
            line.contains("logged in over the network")
                && line.contains("add --confirm-within 60s, or --yes"),
            "{line}"
        );
        assert_eq!((rules(&pbx), sets(&pbx)), (before.clone(), String::new()));
        assert!(!pbx.world.path("state/firewall").exists());
    }
    for wrong in [&["apply", "--confirm-within", "4s"][..], &["apply", "--confirm-within", "5s", "--yes"]] {
        assert_eq!(pbx.firewall(wrong).code, 2);
    }
    let call = over_ssh("SSH_CONNECTION", &["apply", "--confirm-within", "30s"]);
    assert_eq!((call.code, call.stderr.as_str()), (0, ""));
    let there = rules(&pbx);
    assert_eq!(over_ssh("SSH_CONNECTION", &["confirm"]).code, 0);
    wait_for("the end of the watch", || watches(&pbx).is_empty());
    assert_eq!(rules(&pbx), there);
    verifies(&pbx);
    assert!(has_evidence(&pbx, "confirm", "by-hand"));
    assert!(says(&pbx, 1, &["confirm"]).starts_with("nothing waits for a confirmation"));
    assert_eq!(rules(&pbx), there);
    does(&pbx, &["restore"]);
    // Without a session nobody is locked out.
    pbx.configure(EARLIER);
    does(&pbx, &["apply"]);
    assert!(rules(&pbx).contains("--dports 5070 "));
    verifies(&pbx);
}

/// A call that goes on by itself.
fn start(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Kills a call that [`Pbx::firewall_command`] made ready: the child of what enters the host. False if it was done already.
fn kill(child: &mut Child) -> bool {
    // Stopped, it starts nobody behind our back.
    let pid = Pid::from_child(child);
    let _ = kill_process(pid, Signal::STOP);
    let stopped_or_done = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(pid), stopped_or_done).unwrap();
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let inner = std::fs::read_to_string(children).unwrap_or_default();
    for pid in inner.split_whitespace() {
        let _ = kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), Signal::KILL);
    }
    if inner.trim().is_empty() {
        child.kill().unwrap();
    }
    let _ = kill_process(pid, Signal::CONT);
    !child.wait().unwrap().success()
}

fn a_killed_apply_leaves_the_old_rules_or_the_new(variant: &'static str) {
    const ROUNDS: u32 = 24;
    let pbx = Pbx::new(variant, EARLIER);
    does(&pbx, &["apply", "--yes"]);
    let earlier = rules(&pbx);
    pbx.configure(UNVERIFIED);
    let took = call(&mut pbx.firewall_command(&["apply", "--yes"])).took;
    let later = rules(&pbx);
    let (mut killed, mut taken_back) = (0, 0);
    for round in 0..ROUNDS {
        pbx.configure(EARLIER);
        does(&pbx, &["apply", "--yes"]);
        assert_eq!(rules(&pbx), earlier);
        pbx.configure(UNVERIFIED);
        let mut child = start(&mut pbx.firewall_command(&["apply", "--yes"]));
        std::thread::sleep(took * round / ROUNDS);
        killed += u32::from(kill(&mut child));
        wait_for("the end of the watch", || watches(&pbx).is_empty());
        let there = rules(&pbx);
        assert!(there == earlier || there == later, "round {round}: half of it: {there}");
        taken_back += u32::from(there == earlier);
        // What is there is what was confirmed, too.
        does(&pbx, &["restore"]);
        assert_eq!(rules(&pbx), there, "round {round}");
        assert_eq!(ports(&pbx).len(), if there == earlier { 1 } else { 4 }, "round {round}");
        // It may have been killed before anything watched: that waits for its time.
        does(&pbx, &["remove"]);
    }
    println!("{killed} of {ROUNDS} killed, {taken_back} taken back, a call takes {took:?}");
    assert!(killed > 0 && taken_back > 0);
}

fn a_killed_confirm_or_remove_is_done_or_is_not(variant: &'static str) {
    const ROUNDS: u32 = 12;
    let pbx = Pbx::new(variant, EARLIER);
    let nothing = rules(&pbx);
    for verb in ["confirm", "remove"] {
        let mut took = Duration::ZERO;
        for round in 0..=ROUNDS {
            pbx.configure(EARLIER);
            does(&pbx, &["apply", "--yes"]);
            let earlier = rules(&pbx);
            pbx.configure(UNVERIFIED);
            does(&pbx, &["apply", "--confirm-within", "1h"]);
            let later = rules(&pbx);
            if round == 0 {
                took = call(&mut pbx.firewall_command(&[verb])).took;
                does(&pbx, &["remove"]);
                continue;
            }
            let mut child = start(&mut pbx.firewall_command(&[verb]));
            std::thread::sleep(took * round / ROUNDS);
            kill(&mut child);
            // What its programs were at is done before the next call has its turn.
            does(&pbx, &["restore"]);
            let waits = pbx.firewall(&["plan"]).stdout.contains("waits for its confirmation");
            let there = rules(&pbx);
            if waits {
                assert_eq!(watches(&pbx).len(), 1, "{verb}, round {round}");
            } else {
                wait_for("the end of the watch", || watches(&pbx).is_empty());
                // What was confirmed before is there until it is forgotten.
                let outcomes = if verb == "confirm" { [&later, &later] } else { [&nothing, &earlier] };
                assert!(outcomes.contains(&&there), "{verb}, round {round}: {there}");
                does(&pbx, &["restore"]);
                assert_eq!(rules(&pbx), there, "{verb}, round {round}");
            }
            does(&pbx, &["remove"]);
            are_back(&pbx, &nothing);
        }
    }
}

/// Other programs in the place of `/usr/sbin`, until they are taken away. Those of iptables are in `/usr/sbin/real` too.
struct Programs<'a>(&'a Pbx);

impl<'a> Programs<'a> {
    /// Those of iptables without `missing`, and these scripts.
    fn new(pbx: &'a Pbx, missing: &[&str], scripts: &[(&str, &str)]) -> Self {
        let dir = pbx.world.path("sbin");
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("real")).unwrap();
        for variant in ["nft", "legacy"] {
            let multi = format!("xtables-{variant}-multi");
            copy_program(std::path::Path::new("/usr/sbin").join(&multi), dir.join(&multi));
            for name in FAMILIES
                .iter()
                .flat_map(|family| ["", "-save", "-restore"].map(|what| format!("{family}-{variant}{what}")))
            {
                symlink(format!("../{multi}"), dir.join("real").join(&name)).unwrap();
                if !missing.contains(&name.as_str()) && scripts.iter().all(|(script, _)| *script != name) {
                    symlink(&multi, dir.join(&name)).unwrap();
                }
            }
        }
        for (name, script) in scripts {
            write_program(dir.join(name), &format!("#!/bin/sh\n{script}\n"));
        }
        run(pbx.host.command("mount").arg("--bind").arg(&dir).arg("/usr/sbin"));
        Self(pbx)
    }
}

impl Drop for Programs<'_> {
    fn drop(&mut self) {
        // Somebody may be at work in there still.
        run(self.0.host.command("umount").args(["--lazy", "/usr/sbin"]));
    }
}

fn between_the_families_nothing_is_left_half_done(variant: &'static str) {
    for (at, slow) in FAMILIES.into_iter().enumerate() {
        for end in ["exec /usr/sbin/real/${0##*/} \"$@\"", "exit 1"] {
            let pbx = Pbx::new(variant, UNVERIFIED);
            let before = rules(&pbx);
            let name = format!("{slow}-{variant}-restore");
            let [held, go] = ["held", "go"].map(|name| pbx.world.path(name));
            // Only the first of its calls.
            let script = format!(
                "if mkdir {} 2>/dev/null; then while [ ! -e {} ]; do sleep 0.05; done; {end}; fi\nexec /usr/sbin/real/${{0##*/}} \"$@\"",
                held.display(),
                go.display()
            );
            let programs = Programs::new(&pbx, &[], &[(&name, &script)]);
            let mut child = start(&mut pbx.firewall_command(&["apply", "--yes"]));
            let quick = format!("{}-{variant}-save", FAMILIES[1 - at]);
            wait_for("one family with new rules", || {
                held.exists() && pbx.host.shell(&quick).contains("RINGFENCE")
            });
            assert!(kill(&mut child));
            std::fs::write(&go, "").unwrap();
            are_back(&pbx, &before);
            drop(programs);
            assert!(has_evidence(&pbx, "take back", "apply-died"));
            does(&pbx, &["apply", "--yes"]);
            verifies(&pbx);
        }
    }
}

/// Keeps all processors of this machine busy.
struct Load(Vec<Child>);

impl Load {
    fn new(pbx: &Pbx) -> Self {
        let loops = 2 * std::thread::available_parallelism().unwrap().get();
        let mut endless = Command::new("sh");
        endless.args(["-c", "while :; do :; done"]);
        // Killed, each is dead.
        Self((0..loops).map(|_| start(&mut pbx.host.call(&endless))).collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn the_end_of_the_session_is_not_the_end_of_the_watch(variant: &'static str) {
    let pbx = Pbx::new(variant, UNVERIFIED);
    let before = rules(&pbx);
    for (signal, busy) in [("HUP", false), ("KILL", true)] {
        let [leader, done] =
            ["leader", "done"].map(|name| pbx.world.path(format!("{name}-{signal}").as_str()));
        let script = format!(
            "echo $$ > {}; \"$@\" apply --confirm-within 8s && echo > {}; exec sleep 600",
            leader.display(),
            done.display()
        );
        // Whoever runs the tests by nohup has them ignore it.
        let mut session = pbx.host.command("env");
        session.env("RINGFENCE_CONFIG", pbx.world.config());
        session.args(["--default-signal=HUP", "setsid", "sh", "-c", &script, "session"]);
        let mut session = start(session.arg(cargo_bin("ringfence-firewall")));
        wait_for("the rules", || done.exists());
        assert_ne!(rules(&pbx), before);
        let load = busy.then(|| Load::new(&pbx));
        let leader = std::fs::read_to_string(&leader).unwrap();
        pbx.host.shell(&format!("kill -s {signal} -- -{}", leader.trim()));
        assert!(!session.wait().unwrap().success());
        assert_eq!(watches(&pbx).len(), 1);
        are_back(&pbx, &before);
        drop(load);
        assert!(has_evidence(&pbx, "take back", "not-confirmed"));
        std::fs::remove_dir_all(pbx.world.path("log")).unwrap();
        pbx.world.reboot();
    }
}

fn without_its_watch_it_is_taken_back_all_the_same(variant: &'static str) {
    let pbx = Pbx::new(variant, EARLIER);
    does(&pbx, &["apply", "--yes"]);
    let before = rules(&pbx);
    pbx.configure(UNVERIFIED);
    let overdue = |start: i64| wait_for("the end of its time", || now() > start + 11);
    does(&pbx, &["apply", "--confirm-within", "5s"]);
    kill_watch(&pbx);
    let there = rules(&pbx);
    assert_ne!(there, before);
    does(&pbx, &["restore"]);
    assert_eq!(rules(&pbx), there, "it is not over yet");
    wait_for("the old rules", || {
        does(&pbx, &["restore"]);
        rules(&pbx) == before
    });
    assert!(has_evidence(&pbx, "take back", "not-confirmed"));
    verifies(&pbx);
    for (late, code) in [("confirm", 1), ("apply", 0)] {
        does(&pbx, &["apply", "--confirm-within", "5s"]);
        kill_watch(&pbx);
        overdue(now());
        if code == 1 {
            assert_eq!(says(&pbx, 1, &[late]), "too late: what was applied has been taken back");
            assert_eq!(rules(&pbx), before);
        } else {
            does(&pbx, &[late]);
            assert_eq!(rules(&pbx), there);
        }
        verifies(&pbx);
    }
}

fn a_wiped_run_directory_confirms_nothing(variant: &'static str) {
    let pbx = Pbx::new(variant, EARLIER);
    let nothing = rules(&pbx);
    does(&pbx, &["apply", "--confirm-within", "5s"]);
    pbx.world.reboot();
    does(&pbx, &["restore"]);
    are_back(&pbx, &nothing);
    assert!(has_evidence(&pbx, "take back", "not-confirmed"));
    does(&pbx, &["apply", "--yes"]);
    let earlier = rules(&pbx);
    pbx.configure(UNVERIFIED);
    does(&pbx, &["apply", "--confirm-within", "5s"]);
    assert_ne!(rules(&pbx), earlier);
    pbx.world.reboot();
    are_back(&pbx, &earlier);
    verifies(&pbx);
}

/// Holds the lock of iptables for so many seconds.
fn hold_lock(pbx: &Pbx, seconds: u32) -> Child {
    let mut flock = Command::new("flock");
    // Killed, it lets go.
    flock.args(["--no-fork", "/run/xtables.lock", "sleep", &seconds.to_string()]);
    let child = start(&mut pbx.host.call(&flock));
    wait_for("the lock", || {
        let free = pbx.host.command("flock").args(["-n", "/run/xtables.lock", "true"]).status().unwrap();
        !free.success()
    });
    child
}

#[test]
fn the_lock_of_iptables_is_waited_for_and_not_for_ever() {
    let pbx = Pbx::new("legacy", UNVERIFIED);
    let before = rules(&pbx);
    let mut holder = hold_lock(&pbx, 600);
    let line = says(&pbx, 2, &["apply", "--yes"]);
    assert!(line.starts_with("nothing was changed: cannot change the rules of this host: "), "{line}");
    assert!(line.contains("another program may have held the lock of iptables for 5 s"), "{line}");
    assert_eq!(rules(&pbx), before);
    assert!(!sets(&pbx).contains("rf-known") && !pbx.world.path("state/firewall").exists());
    wait_for("the end of the watch", || watches(&pbx).is_empty());
    holder.kill().unwrap();
    holder.wait().unwrap();
    let mut holder = hold_lock(&pbx, 2);
    does(&pbx, &["apply", "--yes"]);
    holder.wait().unwrap();
    verifies(&pbx);
    // What takes back waits for it as well, longer than any lock is held.
    pbx.configure(EARLIER);
    let confirmed = rules(&pbx);
    does(&pbx, &["apply", "--confirm-within", "5s"]);
    let mut holder = hold_lock(&pbx, 12);
    holder.wait().unwrap();
    are_back(&pbx, &confirmed);
}

fn only_what_is_whole_and_there_is_confirmed(variant: &'static str) {
    let pbx = Pbx::new(variant, UNVERIFIED);
    let before = rules(&pbx);
    let refused = |because: &str| {
        let line = says(&pbx, 1, &["confirm"]);
        assert!(line.contains(because), "{line}");
    };
    // Who gets in since another program flushed the rules proves nothing.
    does(&pbx, &["apply", "--confirm-within", "1h"]);
    for_both(&pbx, "$T -F; $T -X");
    refused("the rules are not there as they were applied");
    does(&pbx, &["remove"]);
    for_both(&pbx, "$T -A INPUT -i lo -j ACCEPT");

    // Killed before the rules were there.
    does(&pbx, &["apply", "--confirm-within", "1h"]);
    let undo = pbx.world.path("run/firewall.undo");
    let written = std::fs::read_to_string(&undo).unwrap();
    std::fs::write(&undo, written.replace("\"complete\":true", "\"complete\":false")).unwrap();
    refused("what is being applied is not complete");

    // A damaged file hinders nobody.
    std::fs::write(&undo, &written[..written.len() / 2]).unwrap();
    let line = tells(&pbx, 0, &pbx.firewall(&["restore"]));
    assert!(line.contains("firewall.undo is damaged"), "{line}");
    wait_for("what nobody confirmed to be gone", || rules(&pbx) == before);
    does(&pbx, &["remove"]);
    assert_eq!(rules(&pbx), before);
}

fn what_somebody_wrote_by_hand_is_his(variant: &'static str) {
    let pbx = Pbx::new(variant, UNVERIFIED);
    for_both(&pbx, "$T -N RINGFENCE; $T -A RINGFENCE -p udp --dport 9 -j DROP; $T -I INPUT -j RINGFENCE");
    let before = rules(&pbx);
    for verb in ["remove", "restore"] {
        does(&pbx, &[verb]);
        assert_eq!(rules(&pbx), before, "{verb}");
    }
    // It makes way for ours, and comes back if these are not confirmed.
    does(&pbx, &["apply", "--confirm-within", "5s"]);
    assert!(!rules(&pbx).contains("--dport 9 "));
    are_back(&pbx, &before);
}

fn one_family_that_refuses_keeps_the_old_rules_of_both(variant: &'static str) {
    let pbx = Pbx::new(variant, EARLIER);
    let nothing = rules(&pbx);
    let refuse = "echo \"$0: line 7: RULE_APPEND failed (No such file or directory): rule in chain RINGFENCE\" >&2; exit 1";
    for round in 0..2 {
        let (before, in_ports) = (rules(&pbx), (round > 0).then(|| ports(&pbx)));
        for family in FAMILIES {
            let name = format!("{family}-{variant}-restore");
            for (missing, scripts, because) in [
                (&[][..], &[(name.as_str(), refuse)][..], format!("{name} failed (exit status: 1): ")),
                (&[&*name], &[], format!("{name} is not there; install the package iptables")),
            ] {
                let programs = Programs::new(&pbx, missing, scripts);
                let line = says(&pbx, 2, &["apply", "--yes"]);
                wait_for("the end of the watch", || watches(&pbx).is_empty());
                drop(programs);
                assert!(line.starts_with("nothing was changed: ") && line.contains(&because), "{line}");
                assert_eq!(rules(&pbx), before, "{because}");
                assert_eq!(round > 0, pbx.world.path("state/firewall/confirmed.toml").exists());
                match &in_ports {
                    // Rules of before go with the ports of before.
                    Some(in_ports) => assert_eq!(ports(&pbx), *in_ports),
                    None => assert!(!sets(&pbx).contains("rf-known")),
                }
                assert!(says(&pbx, 1, &["confirm"]).starts_with("nothing waits for a confirmation"));
            }
        }
        let programs = ["", "-save", "-restore"].map(|what| {
            ["nft", "legacy"].map(|variant| FAMILIES.map(|name| format!("{name}-{variant}{what}")))
        });
        let programs: Vec<&str> = programs.as_flattened().as_flattened().iter().map(String::as_str).collect();
        let gone = Programs::new(&pbx, &programs, &[]);
        for args in [&["apply", "--yes"][..], &["remove"], &["plan"]] {
            let line = says(&pbx, 2, args);
            assert!(line.contains("install the package iptables"), "{line}");
        }
        drop(gone);
        assert_eq!(rules(&pbx), before);
        // Now something was confirmed, and something else is refused.
        does(&pbx, &["apply", "--yes"]);
        verifies(&pbx);
        pbx.configure(UNVERIFIED);
    }
    does(&pbx, &["remove"]);
    // A set that is somebody else's.
    pbx.host.shell("ipset create rf-known6 hash:ip");
    // The first that needs the set is the sync.
    let call = pbx.firewall(&["apply", "--yes"]);
    let line = "\nringfence-firewall: nothing was changed: the set rf-known6 is there as hash:ip";
    assert!(call.code == 2 && call.stderr.contains(line), "{}", call.stderr);
    pbx.host.shell("ipset list -t rf-known6");
    assert_eq!(rules(&pbx), nothing);
}

/// What went wrong with one family and cannot be read either is taken back as soon as it can be.
#[test]
fn what_cannot_be_taken_back_at_once_is_taken_back_later() {
    let pbx = Pbx::new("nft", UNVERIFIED);
    let before = rules(&pbx);
    let broken = pbx.world.path("broken");
    let save =
        format!("[ ! -e {} ] || exit 1; exec /usr/sbin/real/ip6tables-nft-save \"$@\"", broken.display());
    let restore = format!(": > {}; exit 1", broken.display());
    let scripts = [("ip6tables-nft-save", save.as_str()), ("ip6tables-nft-restore", restore.as_str())];
    let programs = Programs::new(&pbx, &[], &scripts);
    let line = says(&pbx, 2, &["apply", "--yes"]);
    assert!(line.contains("this is tried again until it is done"), "{line}");
    assert!(pbx.host.shell("iptables-nft-save").contains("RINGFENCE"));
    assert_eq!(watches(&pbx).len(), 1);
    drop(programs);
    are_back(&pbx, &before);
}

fn a_disk_that_takes_nothing_changes_nothing(variant: &'static str) {
    for dir in ["state", "run"] {
        let pbx = Pbx::new(variant, UNVERIFIED);
        let before = rules(&pbx);
        let at = pbx.world.path(dir);
        std::fs::create_dir_all(&at).unwrap();
        let at = at.display();
        pbx.host.shell(&format!(
            "mount -t tmpfs -o size=64k tmpfs {at}; dd if=/dev/zero of={at}/full bs=4096 status=none || true"
        ));
        let line = says(&pbx, 2, &["apply", "--yes"]);
        assert!(line.contains("cannot write DIR/") && line.contains("No space left"), "{line}");
        are_back(&pbx, &before);
        if dir == "state" {
            does(&pbx, &["apply", "--confirm-within", "5s"]);
            let line = says(&pbx, 2, &["confirm"]);
            assert!(line.contains("cannot write DIR/state/firewall/confirmed.toml"), "{line}");
            are_back(&pbx, &before);
        }
        pbx.host.shell(&format!("rm {at}/full"));
        does(&pbx, &["apply", "--yes"]);
        verifies(&pbx);
        // What is there can be taken away all the same.
        pbx.host.shell(&format!("dd if=/dev/zero of={at}/full bs=4096 status=none || true"));
        does(&pbx, &["remove"]);
        assert_eq!(rules(&pbx), before);
    }
}

fn an_unknown_name_is_an_error_before_anything_is_touched(variant: &'static str) {
    let pbx = Pbx::new(variant, EARLIER);
    let first = (rules(&pbx), sets(&pbx));
    let fails = |expected: &(String, String)| {
        for (settings, because) in [
            ("[firewall]\nrestrict = [{ ports = [\"5060\"], to = [\"nowhere\"] }]\n", "nowhere"),
            ("[firewall]\nregster-limit = \"20/minute burst 40\"\n", "register-limit"),
            ("[firewall]\nsip-ports = [\"5060 -j ACCEPT\"]\n", "sip-ports"),
        ] {
            pbx.configure(&format!("{UNVERIFIED}{settings}"));
            for args in [&["apply", "--yes"][..], &["apply", "--confirm-within", "5s"], &["plan"]] {
                let call = pbx.firewall(args);
                assert_eq!((call.code, call.stdout.as_str()), (2, ""), "{settings}");
                assert!(call.stderr.contains(because), "{}", call.stderr);
                assert_eq!((rules(&pbx), sets(&pbx)), *expected, "{settings}");
                assert!(!pbx.world.path("run/firewall.undo.new").exists());
            }
        }
    };
    fails(&first);
    assert!(!pbx.world.path("state/firewall").exists() && !pbx.world.path("run/firewall.undo").exists());
    pbx.configure(EARLIER);
    does(&pbx, &["apply", "--yes"]);
    fails(&(rules(&pbx), sets(&pbx)));
    verified_by_what_was_confirmed(&pbx);
}

/// Whatever stands in the settings now.
#[track_caller]
fn verified_by_what_was_confirmed(pbx: &Pbx) {
    let call = pbx.firewall(&["verify"]);
    assert_eq!(call.code, 0, "{}{}", call.stdout, call.stderr);
}

fn broken_settings_hinder_neither_restore_nor_remove(variant: &'static str) {
    let pbx = Pbx::new(variant, EARLIER);
    let before = rules(&pbx);
    for broken in [
        "[firewall]\nsip-ports = [\"none\"]\n",
        "[firewall]\nunknown = 1\n",
        "[lists.x]\nkind = \"blokc\"\n[firewall]\nrestrict = [{ ports = [\"5060\"], to = [\"x\"] }]\n",
    ] {
        pbx.configure(EARLIER);
        does(&pbx, &["apply", "--yes"]);
        let confirmed = rules(&pbx);
        pbx.configure(&format!("{UNVERIFIED}{broken}"));
        verified_by_what_was_confirmed(&pbx);
        for_both(&pbx, "$T -D INPUT 1; $T -F RINGFENCE");
        assert_eq!(pbx.firewall(&["verify"]).code, 1);
        let line = says(&pbx, 0, &["restore"]);
        assert!(line.contains("going on without the rest of it"), "{line}");
        assert_eq!(rules(&pbx), confirmed);
        verified_by_what_was_confirmed(&pbx);
        says(&pbx, 0, &["remove"]);
        assert_eq!(rules(&pbx), before);
        // What waits is taken back, too.
        pbx.configure(UNVERIFIED);
        does(&pbx, &["apply", "--confirm-within", "5s"]);
        pbx.configure(&format!("{UNVERIFIED}{broken}"));
        are_back(&pbx, &before);
    }
}

fn restore_sets_right_whatever_was_done(variant: &'static str) {
    let pbx = Pbx::new(variant, EARLIER);
    let before = rules(&pbx);
    does(&pbx, &["restore"]);
    assert_eq!((rules(&pbx), sets(&pbx)), (before.clone(), String::new()), "nothing was ever confirmed");
    for_both(&pbx, &format!("$T-save > {}/$T.saved", pbx.world.dir().display()));
    does(&pbx, &["apply", "--yes"]);
    let confirmed = rules(&pbx);
    // Edited, and not applied.
    pbx.configure(UNVERIFIED);
    let saved = format!("$T-restore < {}/$T.saved", pbx.world.dir().display());
    let mut harms = vec![
        ("all is flushed and deleted", "$T -F; $T -X"),
        ("saved rules are loaded", &*saved),
        (
            "it stands below an ACCEPT",
            "$T -I INPUT 1 -i lo -j ACCEPT; $T -D INPUT -i lo -j ACCEPT; $T -D INPUT 2; $T -A INPUT -j RINGFENCE",
        ),
        ("the jump is there twice", "$T -I INPUT 1 -j RINGFENCE"),
        ("the jump is gone", "$T -D INPUT 1"),
        ("somebody's rule is in a chain", "$T -I RINGFENCE-KNOWN 1 -j ACCEPT"),
        ("a rule is gone", "$T -D RINGFENCE 1"),
        ("a chain is empty", "$T -F RINGFENCE-UDP"),
        ("a chain of our name is somebody's", "$T -N RINGFENCE-MINE; $T -A RINGFENCE-MINE -j ACCEPT"),
        ("the rules of IPv6 alone are gone", "[ $T = ${T6} ] && { $T -F; $T -X; } || true"),
        ("the ports are gone", "ipset flush rf-ports"),
        ("a set of sets is empty", "ipset flush rf-known4"),
    ];
    if variant == "nft" {
        harms.push(("the ruleset is flushed", "nft flush ruleset"));
    }
    for (what, script) in harms {
        std::fs::remove_dir_all(pbx.world.path("log")).unwrap_or_default();
        pbx.world.reboot();
        for_both(&pbx, &script.replace("${T6}", &format!("ip6tables-{variant}")));
        let in_rules = !script.starts_with("ipset");
        if in_rules {
            assert_eq!(pbx.firewall(&["verify"]).code, 1, "{what}");
        }
        does(&pbx, &["restore"]);
        assert_eq!(has_evidence(&pbx, "restore", "rules-repaired"), in_rules, "{what}");
        verifies(&pbx);
        for family in FAMILIES {
            pbx.host.shell(&format!(
                "{family}-{variant} -C INPUT -i lo -j ACCEPT 2>/dev/null || {family}-{variant} -A INPUT -i lo -j ACCEPT"
            ));
        }
        does(&pbx, &["restore"]);
        assert_eq!(rules(&pbx), confirmed, "{what}");
        assert_eq!(ports(&pbx), ["5070"], "{what}");
        assert_eq!(pbx.host.shell("ipset save rf-known4").matches("\nadd ").count(), 6, "{what}");
    }
}

/// Rules, sets and what is in the run directory are gone.
fn reboot(pbx: &Pbx) {
    pbx.world.reboot();
    if pbx.variant == "nft" {
        pbx.host.shell("nft flush ruleset");
    } else {
        for_both(pbx, "$T -F; $T -X; for chain in INPUT FORWARD OUTPUT; do $T -P $chain ACCEPT; done");
    }
    // The kernel lets go of them a moment later.
    wait_for("a host without sets", || {
        pbx.host.command("sh").args(["-ec", "ipset -q flush; ipset -q destroy"]).status().unwrap().success()
    });
}

fn after_a_reboot_all_is_there_again(variant: &'static str) {
    const LISTS: &str =
        "[lists.office]\nkind = \"allow\"\nentries = [\"203.0.113.0/24\", \"2001:db8:20::/48\"]\n";
    let settings = format!(
        "{UNVERIFIED}{LISTS}[firewall]\nrestrict = [{{ ports = [\"5060\", \"443\"], to = [\"office\"] }}]\n"
    );
    let pbx = Pbx::new(variant, &settings);
    let before = rules(&pbx);
    let lists = |args: &[&str]| {
        let mut command = pbx.host.command("env");
        command.arg(format!("RINGFENCE_CONFIG={}", pbx.world.config().display()));
        call(command.arg(cargo_bin("ringfence-lists")).args(args))
    };
    let load = || {
        let call = lists(&["load"]);
        assert_eq!((call.code, call.stderr.as_str()), (0, ""));
    };
    let save = || for_both(&pbx, &format!("$T-save > {}/$T.saved", pbx.world.dir().display()));
    let bring_back = || for_both(&pbx, &format!("$T-restore < {}/$T.saved", pbx.world.dir().display()));
    // An apply that nobody confirmed, with its rules saved by somebody, and without.
    assert_eq!(lists(&["refresh"]).code, 0);
    for saved in [true, false] {
        does(&pbx, &["apply", "--confirm-within", "1h"]);
        save();
        kill_watch(&pbx);
        reboot(&pbx);
        load();
        if saved {
            bring_back();
            assert_ne!(rules(&pbx), before);
        } else {
            for_both(&pbx, "$T -A INPUT -i lo -j ACCEPT");
        }
        does(&pbx, &["restore"]);
        assert_eq!(rules(&pbx), before);
    }

    does(&pbx, &["apply", "--yes"]);
    verifies(&pbx);
    let confirmed = rules(&pbx);
    assert!(confirmed.contains("rf-"), "{confirmed}");
    let names = |text: &str| {
        let set = |rule: &str| Some(rule.split_once("-set ")?.1.split(' ').next()?.to_owned());
        text.lines().filter_map(set).collect::<std::collections::BTreeSet<_>>()
    };
    save();
    for (with_saved, edited) in [(true, false), (false, false), (true, true)] {
        if edited {
            // Not applied: the rules name what was confirmed.
            pbx.configure(UNVERIFIED);
        }
        reboot(&pbx);
        assert_eq!((rules(&pbx), sets(&pbx)), (String::new(), String::new()));
        load();
        let there = sets(&pbx);
        assert!(names(&confirmed).iter().all(|set| there.lines().any(|name| name == set)), "{there}");
        // Nobody is locked out meanwhile.
        let phone =
            pbx.host.command("ipset").args(["-q", "test", "rf-to-office-net4", PHONES[0][0]]).status();
        assert!(phone.unwrap().success());
        if with_saved {
            bring_back();
            assert_eq!(rules(&pbx), confirmed);
        } else {
            for_both(&pbx, "$T -A INPUT -i lo -j ACCEPT");
        }
        does(&pbx, &["restore"]);
        assert_eq!(rules(&pbx), confirmed);
        verifies(&pbx);
    }
    // Without the lists, too.
    reboot(&pbx);
    for_both(&pbx, "$T -A INPUT -i lo -j ACCEPT");
    does(&pbx, &["restore"]);
    assert_eq!(rules(&pbx), confirmed);
    verifies(&pbx);
}

fn a_download_keeps_no_rule_away(variant: &'static str) {
    let settings = format!(
        "{UNVERIFIED}[lists.office]\nkind = \"allow\"\nentries = [\"203.0.113.0/24\", \"2001:db8:20::/48\"]\n\
         [firewall]\nrestrict = [{{ ports = [\"5060\"], to = [\"office\"] }}]\n"
    );
    let pbx = Pbx::new(variant, &settings);
    let config = format!("RINGFENCE_CONFIG={}", pbx.world.config().display());
    run(pbx.host.command("env").arg(&config).arg(cargo_bin("ringfence-lists")).arg("refresh"));
    does(&pbx, &["apply", "--yes"]);
    let confirmed = rules(&pbx);
    let flush = || {
        pbx.host.shell("ipset flush rf-to-office-net4; ipset flush rf-to-office-net6");
        for_both(&pbx, "$T -F RINGFENCE");
    };
    let is_filled = || {
        let test = ["-q", "test", "rf-to-office-net4", PHONES[0][0]];
        pbx.host.command("ipset").args(test).status().unwrap().success()
    };
    // Another user downloads, and the unit may write to none of his files.
    let lists = pbx.world.path("state/lists");
    run(Command::new("chown").args(["-R", "65534"]).arg(&lists));
    flush();
    let confined = ["--bounding-set=-dac_override,-chown,-fowner", "env", &config];
    let mut restore = pbx.host.command("setpriv");
    let restored = call(restore.args(confined).arg(cargo_bin("ringfence-firewall")).arg("restore"));
    assert_eq!((restored.code, restored.stderr.as_str()), (0, ""));
    assert_eq!((rules(&pbx), is_filled()), (confirmed.clone(), true));
    // While he does, nobody is locked out, and all other rules are there.
    let lock = std::fs::File::open(lists.join("lock")).unwrap();
    lock.lock().unwrap();
    flush();
    let restored = pbx.firewall(&["restore"]);
    let says = "lists that ports are restricted to are not in the kernel: ";
    assert!(restored.code == 0 && restored.stderr.contains(says), "{}", restored.stderr);
    assert!(has_evidence(&pbx, "keep", "ports-open"));
    let open = rules(&pbx);
    assert!(open.contains("-j RINGFENCE") && !open.contains("rf-to-office-net4") && !is_filled(), "{open}");
    drop(lock);
    does(&pbx, &["restore"]);
    assert_eq!((rules(&pbx), is_filled()), (confirmed, true));
}

fn many_at_once_agree(variant: &'static str) {
    const PROCESSES: usize = 8;
    const CALLS: usize = 13;
    let pbx = Pbx::new(variant, UNVERIFIED);
    pbx.ban("1@a.example.com");
    does(&pbx, &["apply", "--yes"]);
    does(&pbx, &["restore"]);
    let confirmed = rules(&pbx);
    for_both(&pbx, "$T -F; $T -X; $T -A INPUT -i lo -j ACCEPT");
    let start = Instant::now();
    let children: Vec<_> = (0..PROCESSES)
        .map(|n| {
            let (tool, verb) =
                if n % 2 == 0 { ("ringfence-firewall", "restore") } else { ("ringfence-block", "expire") };
            let script = format!("for n in $(seq {CALLS}); do \"$@\" {verb} || exit; done");
            let mut command = pbx.host.command("env");
            command.arg(format!("RINGFENCE_CONFIG={}", pbx.world.config().display()));
            command.args(["sh", "-c", &script, "many"]).arg(cargo_bin(tool));
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{said}");
    }
    println!("{} calls in {:?}", PROCESSES * CALLS, start.elapsed());
    assert!(start.elapsed() < Duration::from_mins(4));
    verifies(&pbx);
    assert_eq!(jumps(&pbx).map(|places| places.len()), [1, 1]);
    assert_eq!(rules(&pbx), confirmed);
    pbx.unban("1@a.example.com");
}
