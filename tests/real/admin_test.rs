//! `ringfence test`: what would become of an address, by real rules, sets, blocks and jails; and the walk through a real failure.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;

use crate::support::pbx::UNVERIFIED;
use crate::support::{Call, Fail2ban, Pbx, call, data, wait_for};

pub const OFFICE: &str = "203.0.113.20";
pub const ACCOUNT: &str = "101@a.example.com";

fn command(pbx: &Pbx, args: &[&str]) -> Command {
    let mut command = pbx.host.command("env");
    command.arg(format!("RINGFENCE_CONFIG={}", pbx.world.config().display()));
    command.args(["TZ=UTC", "NO_COLOR=1"]).arg(cargo_bin("ringfence")).arg("test").args(args);
    command
}

#[track_caller]
pub fn test(pbx: &Pbx, args: &[&str]) -> Call {
    call(&mut command(pbx, args))
}

#[track_caller]
pub fn json(pbx: &Pbx, args: &[&str]) -> Value {
    let call = test(pbx, &[args, &["--json"]].concat());
    serde_json::from_str(&call.stdout).unwrap_or_else(|error| panic!("{error}: {call:?}"))
}

/// Where nobody is asked whether an account exists, and fail2ban is in the world's directory.
pub fn settings(pbx: &Pbx) -> String {
    format!("[fail2ban]\nsocket = \"{}\"\n{UNVERIFIED}", pbx.world.path("fail2ban/socket").display())
}

fn pbx(variant: &'static str) -> Pbx {
    let pbx = Pbx::bare(variant, "");
    pbx.configure(&settings(&pbx));
    pbx
}

/// FusionPBX's own rules.
fn fusionpbx(pbx: &Pbx) {
    let rules = data("firewall/fusionpbx-iptables.rules");
    pbx.host.shell(&format!("iptables-{}-restore -T filter <{}", pbx.variant, rules.display()));
}

with_both_variants! {
    who_is_let_in_and_by_which_rule
    whoever_blocks_is_named
}

fn who_is_let_in_and_by_which_rule(variant: &'static str) {
    let pbx = pbx(variant);
    fusionpbx(&pbx);
    let shown = test(&pbx, &[OFFICE, ACCOUNT]);
    assert_eq!((shown.code, shown.stderr.as_str()), (0, ""), "{}", shown.stdout);
    let expected = "\
203.0.113.20 is let in: a REGISTER of 101@a.example.com gets through over UDP and TCP.
fail2ban does not run: nothing would follow if it failed.

PACKET               PORTS       IS      BY                BUT
REGISTER over UDP    5060, 5080  let in  rule 22 of INPUT
connection over TCP  5060, 5080  let in  rule 21 of INPUT

The rules that a REGISTER over UDP to port 5060 meets:
CHAIN  NO  RULE                             MATCHES  THEN
INPUT  22  -p udp -m udp --dport 5060:5091  yes      let in
21 other rules do not match it.

The rules that a connection over TCP to port 5060 meets:
CHAIN  NO  RULE                             MATCHES  THEN
INPUT  21  -p tcp -m tcp --dport 5060:5091  yes      let in
20 other rules do not match it.

If a login from there failed:
ringfence-ignore does not keep it: it is not registered, and on no allow list.
101@a.example.com: nobody is asked whether it exists (verify is none); ringfence-block would not block it: \
203.0.113.20 is not exempt from fail2ban, which can ban the address (only-exempt is set).
fail2ban does not run.
";
    assert_eq!(shown.stdout, expected);
    let answer = json(&pbx, &[OFFICE]);
    assert_eq!((&answer["let-in"], &answer["account"]), (&true.into(), &Value::Null));
    assert_eq!(
        answer["packets"][0]["rules"]["steps"][0]["rule"],
        "-p udp -m udp --dport 5060:5091 -j ACCEPT"
    );
    assert_eq!(answer["packets"][0]["rules"]["passed"][0]["rules"], 21);

    // Ringfence's own rules say what they are for, and on what they depend.
    assert_eq!(pbx.firewall(&["apply"]).code, 0);
    let shown = test(&pbx, &[OFFICE]).stdout;
    for line in [
        "REGISTER over UDP    5060, 5080  let in  rule 23 of INPUT  dropped when more than 20/min come from the address (burst 40)",
        "RINGFENCE-UDP   2  REGISTER above 20/minute burst 40  when more than 20/min come from the address (burst 40)  to RINGFENCE-EXCEEDED",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    // Over IPv6 there are no rules but ours.
    let v6 = json(&pbx, &["2001:db8:20::1"]);
    assert_eq!(v6["let-in"], true, "{v6:#}");
}

/// The outcome, and what decided, of the first row.
fn first(answer: &Value) -> (String, String) {
    let of = |key: &str| answer["packets"][0][key].as_str().unwrap().to_owned();
    (of("outcome"), of("by"))
}

fn whoever_blocks_is_named(variant: &'static str) {
    let pbx = pbx(variant);
    fusionpbx(&pbx);
    let shell = |script: &str| pbx.host.shell(&script.replace("iptables", &format!("iptables-{variant}")));
    assert_eq!(pbx.firewall(&["apply"]).code, 0);
    for (blocks, undoes, outcome, by) in [
        (
            "iptables -N sip-auth-ip; iptables -I INPUT -j sip-auth-ip; iptables -A sip-auth-ip -s 203.0.113.20 -j DROP",
            "iptables -F sip-auth-ip",
            "dropped",
            "rule 1 of sip-auth-ip",
        ),
        (
            "ipset create f2b-sip hash:ip; ipset add f2b-sip 203.0.113.20
             iptables -I INPUT -p udp -m multiport --dports 5060:5061,5080 -m set --match-set f2b-sip src -j REJECT",
            "iptables -D INPUT 1",
            "rejected",
            "rule 1 of INPUT",
        ),
        (
            "ipset add rf-block-net4 203.0.113.0/24",
            "ipset flush rf-block-net4",
            "dropped",
            "rule 2 of RINGFENCE-KNOWN (blocked)",
        ),
        (
            "nft add table inet f2b-table
             nft add chain inet f2b-table f2b-chain '{ type filter hook input priority -1; }'
             nft add set inet f2b-table addr-set-sip '{ type ipv4_addr; }'
             nft add element inet f2b-table addr-set-sip '{ 203.0.113.20 }'
             nft add rule inet f2b-table f2b-chain udp dport '{ 5060, 5080 }' ip saddr @addr-set-sip reject",
            "nft delete table inet f2b-table",
            "rejected",
            "rule 1 of f2b-chain (nftables, table inet f2b-table): `udp dport { 5060, 5080 } ip saddr @addr-set-sip reject`",
        ),
    ] {
        shell(blocks);
        let answer = json(&pbx, &[OFFICE]);
        let (found, decided) = first(&answer);
        assert_eq!(found, outcome, "{answer:#}");
        assert!(decided == by || (by.contains('(') && decided.starts_with(by.split('(').next().unwrap())), "{decided}");
        // Only its TCP may be open.
        let open = matches!(by, "rule 1 of INPUT") || by.contains("nftables");
        assert_eq!(test(&pbx, &[OFFICE]).code, i32::from(!open), "{by}");
        assert_eq!(test(&pbx, &["198.51.100.7"]).code, 0, "a neighbour");
        shell(undoes);
        let (found, decided) = first(&json(&pbx, &[OFFICE]));
        assert_eq!(found, "let-in", "{decided}");
    }
    // One account of it.
    assert_eq!(pbx.block(&["ban", "--", ACCOUNT]).code, 0);
    let shown = test(&pbx, &[OFFICE, ACCOUNT]);
    assert_eq!(shown.code, 0, "TCP can be opened\n{}", shown.stdout);
    let blocked = json(&pbx, &[OFFICE, ACCOUNT]);
    assert!(first(&blocked).1.contains("of RF-BLOCK-DENY"), "{blocked:#}");
    assert_eq!(first(&json(&pbx, &[OFFICE, "102@a.example.com"])).0, "let-in");
    assert_eq!(first(&json(&pbx, &[OFFICE])).0, "let-in");
}

#[test]
fn an_account_blocked_by_the_program_in_the_kernel_is_seen() {
    let pbx = Pbx::new("bpf", UNVERIFIED);
    pbx.ban(ACCOUNT);
    let answer = json(&pbx, &[OFFICE, ACCOUNT]);
    let by = "the program in the kernel, before all rules: 101@a.example.com is blocked by ringfence-block";
    assert_eq!(first(&answer), ("dropped".to_owned(), by.to_owned()));
    assert_eq!(first(&json(&pbx, &[OFFICE, "102@a.example.com"])).0, "let-in");
    let elsewhere = format!("{ACCOUNT},203.0.113.99");
    pbx.unban(ACCOUNT);
    pbx.ban(&elsewhere);
    assert_eq!(first(&json(&pbx, &[OFFICE, ACCOUNT])).0, "let-in");
    assert_eq!(first(&json(&pbx, &["203.0.113.99", ACCOUNT])).0, "dropped");
}

#[test]
fn what_cannot_be_told_is_not_guessed() {
    let pbx = pbx("nft");
    pbx.host.shell("iptables-nft -A INPUT -j NFQUEUE --queue-num 0");
    let shown = test(&pbx, &[OFFICE]);
    assert_eq!(shown.code, 2, "{}", shown.stdout);
    assert!(
        shown.stdout.starts_with("It cannot be told whether 203.0.113.20 is let in.\n"),
        "{}",
        shown.stdout
    );
    assert!(
        shown.stdout.contains("rule 1 of INPUT hands it to a program (NFQUEUE) that decides"),
        "{}",
        shown.stdout
    );
    for args in [&["no-address"][..], &[], &[OFFICE, "no account"], &[OFFICE, "--for", "1m"]] {
        let refused = test(&pbx, args);
        assert_eq!((refused.code, refused.stdout.as_str()), (2, ""), "{args:?}");
    }
}

/// The log of ringfence-events.
pub fn log(pbx: &Pbx) -> PathBuf {
    pbx.world.path("log/events/events.log")
}

pub fn write(pbx: &Pbx, line: &str) {
    let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ");
    let mut log = OpenOptions::new().append(true).open(log(pbx)).unwrap();
    writeln!(log, "{time} v1 {line}").unwrap();
}

/// A fail2ban with our jails for the log of ringfence-events, of which that by address asks the real ringfence-ignore. It asks nobody
/// for the host's own name: there are no name servers.
pub fn jails<'a>(pbx: &'a Pbx, address_jail: &str) -> Fail2ban<'a> {
    std::fs::create_dir_all(pbx.world.path("log/events")).unwrap();
    std::fs::write(log(pbx), "").unwrap();
    let program = pbx.world.has_program(
        "ringfence-ignore",
        &format!(
            "RINGFENCE_CONFIG='{}' exec '{}' \"$@\"",
            pbx.world.config().display(),
            cargo_bin("ringfence-ignore").display()
        ),
    );
    let text = format!(
        "[DEFAULT]\nringfence_ignorecommand = exec {} \"<ip>\"\nringfence_events_log = {}\nringfence_banaction =\n\
         ignorecache =\nignoreself = false\n\
         [ringfence-events]\nenabled = true\nbackend = polling\naction =\n{address_jail}\n\
         [ringfence-events-account]\nenabled = true\nbackend = polling\naction =\n\
         [ringfence-events-device]\nenabled = true\nbackend = polling\naction =\n\
         [ringfence-events-flood]\nenabled = true\nbackend = polling\naction =\n",
        program.display(),
        log(pbx).display(),
    );
    let path = format!("{}:{}", pbx.world.path("bin").display(), std::env::var("PATH").unwrap());
    let fail2ban = Fail2ban::start(&pbx.host, &pbx.world, &text, &path);
    for jail in
        ["ringfence-events", "ringfence-events-account", "ringfence-events-device", "ringfence-events-flood"]
    {
        wait_for(jail, || fail2ban.number_if_any(jail, "Currently banned").is_some());
    }
    fail2ban
}

#[test]
fn jails_say_what_would_follow() {
    let pbx = pbx("nft");
    let _fail2ban = jails(&pbx, "");
    let shown = test(&pbx, &[OFFICE]).stdout;
    let end = "\
ringfence-ignore does not keep it: it is not registered, and on no allow list.

JAIL                      COUNTS                       WHICH IS
ringfence-events          the address                  banned for 1h after 10 failures within 10m
ringfence-events-account  the account                  perhaps blocked for 1h after 10 failures within 2h
ringfence-events-device   the account at this address  perhaps blocked for 30m after 20 failures within 4h
";
    assert!(shown.ends_with(end), "{shown}");
    assert!(
        shown.contains("If it went on failing, fail2ban would ban it, in ringfence-events: it is not registered, and on no allow list.\n"),
        "{shown}"
    );
    pbx.world.database("sofia_reg_internal.db");
    pbx.world.register("sofia_reg_internal.db", OFFICE, 3600);
    // What was asked a moment ago counts for a while.
    pbx.world.reboot();
    let shown = test(&pbx, &[OFFICE]).stdout;
    assert!(
        shown.contains("ringfence-events          the address                  not banned: ringfence-ignore keeps it, as it has a live registration\n"),
        "{shown}"
    );
    assert!(
        shown
            .contains("If it failed, no jail that is known here would ban it: it has a live registration.\n"),
        "{shown}"
    );
}

/// A walk that goes on.
pub struct Walk {
    child: Child,
    pub pid: PathBuf,
}

impl Walk {
    pub fn start(pbx: &Pbx, args: &[&str]) -> Self {
        let tool = command(pbx, &[&["--walk"], args].concat());
        let pid = pbx.world.path("pid");
        let mut shell = pbx.host.command("sh");
        shell.args(["-c", "echo $$ >\"$0\"; exec \"$@\""]).arg(&pid);
        // Behind nsenter and its options.
        let words: Vec<_> = tool.get_args().skip_while(|word| *word != "env").collect();
        shell.args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
        let walk = Self { child: shell.spawn().unwrap(), pid };
        wait_for("the walk", || pbx.world.path("state/allowed.table").exists());
        walk
    }

    /// How it ended, where nobody wants to know what it said.
    pub fn status(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    #[track_caller]
    pub fn end(self) -> (i32, String, String) {
        let output = self.child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

fn is_allowed(pbx: &Pbx) -> bool {
    call(&mut pbx.host.call(&pbx.world.allow_command(&["list", "--json"]))).stdout.contains(OFFICE)
}

pub const WRONG: &str = "failure address=203.0.113.20 method=REGISTER account=101@a.example.com known=yes id=101@a.example.com,203.0.113.20 profile=internal agent=Yealink%1B";

#[test]
fn a_walk_sees_the_failure_and_costs_nothing() {
    let pbx = pbx("nft");
    let fail2ban = jails(&pbx, "maxretry = 1");
    let walk = Walk::start(&pbx, &[OFFICE, "--for", "30s"]);
    wait_for("the allow list", || is_allowed(&pbx));
    write(&pbx, &WRONG.replace("203.0.113.20", "198.51.100.9"));
    write(&pbx, WRONG);
    let (code, told, complaints) = walk.end();
    assert_eq!((code, complaints.as_str()), (0, ""), "{told}");
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines[0], "203.0.113.20 is on the allow list for the walk, and then as it was.");
    assert!(lines[1].starts_with("Watching ") && lines[1].ends_with("/events.log for 30s; Ctrl-C ends it."));
    assert_eq!(lines[2], "Now let a phone at 203.0.113.20 register with a wrong password.");
    assert!(lines[3].ends_with("  failure: 101@a.example.com, wrong password (Yealink\u{fffd})"), "{told}");
    assert_eq!(
        lines[4..],
        [
            "          ringfence-events counts it for the address; not banned: ringfence-ignore keeps it, as it is on the allow list ringfence-allow",
            "          ringfence-events-device counts it for the account at this address; perhaps blocked for 30m after 20 failures within 4h",
            "",
            "The failure of 203.0.113.20 was seen, and no jail bans 203.0.113.20 for it.",
            "Without the walk (it is not registered, and on no allow list), if it went on: ringfence-events banned for 1h after 1 failure within 10m.",
        ]
    );
    assert!(!is_allowed(&pbx));
    wait_for("the stranger's ban", || fail2ban.banned("ringfence-events") == ["198.51.100.9"]);
    let allowed: Vec<_> = pbx
        .world
        .journal()
        .iter()
        .filter(|line| line["subject"] == OFFICE && line["tool"] == "ringfence-allow")
        .map(|line| line["decision"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(allowed, ["allow", "remove"]);
}

#[test]
fn a_walk_leaves_what_was_there_and_can_be_broken_off() {
    let pbx = pbx("nft");
    let _fail2ban = jails(&pbx, "");
    // By hand for a minute, and by a jail for less than the walk.
    for args in [&["add", "--for", "60", OFFICE][..], &["add", "--jail=sip", "--for=90", "--", OFFICE]] {
        assert_eq!(call(&mut pbx.host.call(&pbx.world.allow_command(args))).code, 0);
    }
    let list = || call(&mut pbx.host.call(&pbx.world.allow_command(&["list", "--json"]))).stdout;
    let before = list();
    for signal in ["INT", "HUP"] {
        let walk = Walk::start(&pbx, &[OFFICE, ACCOUNT, "--json"]);
        wait_for("the longer allow", || list() != before);
        write(&pbx, &WRONG.replace("101@a", "102@a"));
        pbx.host.shell(&format!("kill -{signal} $(cat {})", walk.pid.display()));
        let (code, told, complaints) = walk.end();
        assert_eq!((code, complaints.as_str()), (1, ""), "{told}");
        let walked: Value = serde_json::from_str(&told).unwrap();
        assert_eq!((&walked["was-allowed"], &walked["undone"]), (&false.into(), &true.into()));
        assert_eq!(walked["seen"], Value::Array(vec![]), "another account");
        assert_eq!(list(), before, "{signal}");
    }
    // Allowed for long enough: nothing is to be undone.
    assert_eq!(call(&mut pbx.host.call(&pbx.world.allow_command(&["add", OFFICE]))).code, 0);
    let walk = Walk::start(&pbx, &[OFFICE, "--for", "1s"]);
    let (code, told, _) = walk.end();
    assert_eq!(code, 1);
    assert!(told.starts_with("203.0.113.20 is allowed already, and stays so.\n"), "{told}");
    assert!(
        told.contains("\nNo failure of 203.0.113.20 was seen within 1s. Is the phone behind that address"),
        "{told}"
    );
    assert!(is_allowed(&pbx));
}

#[test]
fn who_does_not_come_into_the_kernel_is_not_left_in_the_file() {
    let pbx = pbx("nft");
    std::fs::create_dir_all(pbx.world.path("log/events")).unwrap();
    std::fs::write(log(&pbx), "").unwrap();
    pbx.host.shell("ipset create rf-seen-ip4 hash:ip,port");
    let refused = test(&pbx, &[OFFICE, "--walk", "--for", "1s"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (2, ""), "{}", refused.stderr);
    assert!(refused.stderr.contains("203.0.113.20 cannot be allowed for the walk"), "{}", refused.stderr);
    assert!(!is_allowed(&pbx));
}

#[test]
fn a_walk_reads_freeswitchs_own_log_where_there_is_no_other() {
    let pbx = pbx("nft");
    pbx.host.shell("mount -t tmpfs tmpfs /var/log");
    let refused = test(&pbx, &[OFFICE, "--walk"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (2, ""));
    assert!(refused.stderr.contains("there is no log to watch: neither "), "{}", refused.stderr);
    let line = |text: &str| {
        let time = jiff::Timestamp::now().strftime("%F %T%.6f");
        let line = format!("{time} 0.00% [WARNING] sofia_reg.c:1787 {text}");
        pbx.host.shell(&format!(
            "mkdir -p /var/log/freeswitch; cat >>/var/log/freeswitch/freeswitch.log <<'END'\n{line}\nEND"
        ));
    };
    let failure = |address: &str| {
        format!("SIP auth failure (REGISTER) on sofia profile 'internal' for [{ACCOUNT}] from ip {address}")
    };
    line(&failure(OFFICE));
    let walk = Walk::start(&pbx, &[OFFICE, ACCOUNT, "--for", "30s"]);
    wait_for("the allow list", || is_allowed(&pbx));
    line(&failure("198.51.100.9"));
    // Also after a rotation.
    pbx.host.shell("mv /var/log/freeswitch/freeswitch.log /var/log/freeswitch/freeswitch.log.1");
    line(&failure(OFFICE));
    let (code, told, complaints) = walk.end();
    assert_eq!((code, complaints.as_str()), (0, ""), "{told}");
    assert!(told.starts_with("203.0.113.20 is on the allow list for the walk, and then as it was.\nWatching /var/log/freeswitch/"), "{told}");
    assert_eq!(told.matches("  failure: 101@a.example.com, wrong password\n").count(), 1, "{told}");
    assert!(told.contains("\n          fail2ban does not run.\n"), "{told}");
    assert!(!is_allowed(&pbx));
}

#[test]
fn a_walk_is_not_begun_where_it_could_cost_a_ban() {
    let pbx = pbx("nft");
    let _fail2ban = jails(&pbx, "maxretry = 1\nignorecommand =");
    let refused = test(&pbx, &[OFFICE, "--walk"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (2, ""));
    assert!(
        refused
            .stderr
            .contains("a failure could cost 203.0.113.20 a ban: the jail ringfence-events may ban it"),
        "{}",
        refused.stderr
    );
    assert!(!is_allowed(&pbx));
}

#[test]
fn a_walk_is_not_begun_where_event_guard_is() {
    let pbx = pbx("nft");
    std::fs::create_dir_all(pbx.world.path("log/events")).unwrap();
    std::fs::write(log(&pbx), "").unwrap();
    pbx.host.shell("iptables-nft -N sip-auth-fail; iptables-nft -I INPUT -j sip-auth-fail");
    let refused = test(&pbx, &[OFFICE, "--walk", "--for", "1s"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (2, ""));
    assert!(refused.stderr.contains("FusionPBX's event_guard is there"), "{}", refused.stderr);
    assert!(!is_allowed(&pbx));
    let shown = test(&pbx, &[OFFICE]).stdout;
    for said in [
        "FusionPBX's event_guard (its chains sip-auth-* are there) may block it at the first failure, whoever allows it.\n",
        "fail2ban does not run: no ban of its would follow if it failed.\n",
    ] {
        assert!(shown.contains(said), "{shown}");
    }
    assert_eq!(json(&pbx, &[OFFICE])["if-it-fails"]["event-guard"], true);
}

#[test]
fn a_pause_is_said_on_top_and_lets_in() {
    let pbx = pbx("nft");
    assert_eq!(pbx.firewall(&["apply"]).code, 0);
    pbx.host.shell("ipset add rf-block-net4 203.0.113.0/24");
    assert_eq!(test(&pbx, &[OFFICE]).code, 1);
    assert_eq!(pbx.admin(&["pause", "10m"]).code, 0);
    let shown = test(&pbx, &[OFFICE]);
    assert_eq!(shown.code, 0, "{}", shown.stdout);
    let (first, rest) = shown.stdout.split_once('\n').unwrap();
    assert!(
        first.starts_with("Paused until ") && first.ends_with("nothing of Ringfence blocks anybody."),
        "{first}"
    );
    assert!(rest.starts_with("203.0.113.20 is let in: "), "{rest}");
    assert!(json(&pbx, &[OFFICE])["paused-until"].is_string());
    assert_eq!(pbx.admin(&["pause", "--end"]).code, 0);
    let shown = test(&pbx, &[OFFICE]);
    assert!(shown.code == 1 && shown.stdout.starts_with("203.0.113.20 is blocked: "), "{}", shown.stdout);
}

#[test]
fn tables_of_nftables_that_are_not_understood_are_not_guessed_at() {
    let pbx = pbx("nft");
    for (policy, rule, code, by) in [
        ("drop", "tcp dport 22 accept", 1, "the policy of in (nftables, table inet own)"),
        ("drop", "udp dport 5060 accept", 0, "rule 1 of in (nftables, table inet own)"),
        ("drop", "meta mark 7 accept", 1, "the policy of in (nftables, table inet own)"),
        (
            "drop",
            "meta mark vmap { 7 : accept }",
            2,
            "`meta mark vmap { 7 : accept }`, which is not understood here",
        ),
        (
            "accept",
            "ip saddr 203.0.113.20 drop",
            1,
            "rule 1 of in (nftables, table inet own): `ip saddr 203.0.113.20 drop`",
        ),
    ] {
        pbx.host.shell(&format!(
            "nft add table inet own; nft add chain inet own in '{{ type filter hook input priority 0; policy {policy}; }}'; nft add rule inet own in {rule}"
        ));
        let shown = test(&pbx, &[OFFICE]);
        assert_eq!(shown.code, code, "{rule}: {}", shown.stdout);
        assert!(shown.stdout.contains(by), "{rule}: {}", shown.stdout);
        pbx.host.shell("nft delete table inet own");
    }
}

#[test]
fn tables_before_filter_are_walked() {
    let pbx = pbx("nft");
    pbx.host.shell("iptables-nft -A INPUT -p udp --dport 5060 -j ACCEPT; iptables-nft -t raw -A PREROUTING -s 203.0.113.20 -p udp -j DROP");
    let shown = test(&pbx, &[OFFICE]).stdout;
    for line in [
        "REGISTER over UDP    5060, 5080  dropped  rule 1 of PREROUTING (table raw)",
        "raw PREROUTING   1  -s 203.0.113.20/32 -p udp  yes      drop",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    assert_eq!(json(&pbx, &["198.51.100.7"])["packets"][0]["outcome"], "let-in");
}
