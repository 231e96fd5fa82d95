//! `ringfence why`: every way to be blocked is set up once, on a host with real parts. It is named, and nothing else is; and what is
//! printed to undo it does so.

use assert_cmd::cargo::cargo_bin;
use jiff::Timestamp;
use serde_json::Value;

use crate::support::pbx::PHONES;
use crate::support::{Banner, Call, Fail2ban, Postgres, call, run, wait_for};

pub const BAD: &str = PHONES[1][0];
pub const OFFICE: &str = PHONES[0][0];
pub const ACCOUNT: &str = "999@a.example.com";

/// A jail of `ringfence-ban`'s, and one each with an action of fail2ban's own.
const JAILS: [(&str, &str); 5] = [
    ("sip", "port = 5060,5080:5081\nprotocol = tcp,udp"),
    ("ssh", "port = 22\nprotocol = tcp\nbanaction = iptables-multiport"),
    ("sets", "banaction = iptables-ipset-proto6-allports"),
    ("native", "port = 5060\nprotocol = udp\nbanaction = nftables-multiport"),
    ("accounts", "action = ringfence-block[ringfence-block=ringfence-block]"),
];

/// A host with Ringfence's rules, lists and restrictions, and with fail2ban where a test starts it.
pub fn site(settings: &str) -> Banner {
    site_of("nft", settings)
}

/// The same by this variant of iptables.
pub fn site_of(variant: &'static str, settings: &str) -> Banner {
    let banner = Banner::new(variant);
    configure(&banner, settings);
    banner
}

/// Blocks need no FusionPBX.
pub fn configure(banner: &Banner, settings: &str) {
    banner.configure("", &format!("[block]\nverify = \"none\"\nonly-exempt = false\n{settings}"));
}

/// Ringfence's rules go in, and its lists.
pub fn goes_live(banner: &Banner) {
    for command in [
        banner.pbx.lists(&["refresh"]),
        banner.pbx.firewall(&["apply", "--yes"]),
        call(&mut banner.pbx.host.call(&banner.pbx.world.allow_command(&["sync"]))),
    ] {
        assert_eq!((command.code, command.stderr.as_str()), (0, ""), "{}", command.stdout);
    }
}

#[track_caller]
pub fn jails(banner: &Banner) -> Fail2ban<'_> {
    banner.has_program(
        "ringfence-block",
        &format!(
            "RINGFENCE_CONFIG='{}' exec '{}' \"$@\"",
            banner.pbx.world.config().display(),
            cargo_bin("ringfence-block").display()
        ),
    );
    banner.fail2ban(&JAILS)
}

/// Somebody fails in a jail, and is banned.
#[track_caller]
pub fn bans(banner: &Banner, fail2ban: &Fail2ban<'_>, jail: &str, address: &str) {
    banner.refused(jail, &[address]);
    wait_for(jail, || fail2ban.banned(jail) == [address]);
    wait_for("the database", || fail2ban.remembered(jail) == 1);
}

#[track_caller]
pub fn ask(banner: &Banner, args: &[&str]) -> Call {
    call(&mut banner.pbx.admin_command(&[&["why"], args].concat()))
}

/// As JSON; nothing is said beside it.
#[track_caller]
pub fn why(banner: &Banner, subject: &str) -> Value {
    let asked = ask(banner, &["--json", "--", subject]);
    assert_eq!(asked.stderr, "", "{}", asked.stdout);
    let answer: Value = serde_json::from_str(&asked.stdout).unwrap();
    assert_eq!(asked.code == 1, answer["blocked"] == true, "{answer:#}");
    answer
}

fn texts<'a>(value: &'a Value, key: &str) -> Vec<&'a str> {
    value.as_array().unwrap().iter().map(|entry| entry[key].as_str().unwrap()).collect()
}

/// What blocks, in order.
#[track_caller]
pub fn blocked_by(banner: &Banner, subject: &str) -> Vec<String> {
    let answer = why(banner, subject);
    assert_eq!(answer["unread"].as_array().map(Vec::len), Some(0), "{answer:#}");
    texts(&answer["closed"], "by").into_iter().map(str::to_owned).collect()
}

/// The checks that have this verdict.
#[track_caller]
pub fn checks(banner: &Banner, subject: &str, verdict: &str) -> Vec<String> {
    let answer = why(banner, subject);
    let checks = answer["checks"].as_array().unwrap().iter();
    let checks = checks.filter(|check| check["verdict"] == verdict);
    checks.map(|check| check["check"].as_str().unwrap().to_owned()).collect()
}

/// The commands that the text says undo it, as they stand there.
pub fn printed(text: &str) -> Vec<String> {
    let by_hand = || text.split_once("\nTo undo it by hand:\n");
    let (_, commands) =
        text.split_once("\nOr one by one:\n").or_else(by_hand).unwrap_or_else(|| panic!("{text}"));
    let commands = commands.lines().take_while(|line| line.starts_with("    "));
    commands.filter(|line| !line.starts_with("    # ")).map(|line| line.trim().to_owned()).collect()
}

/// Pastes a line into a shell of that host.
#[track_caller]
pub fn paste(banner: &Banner, line: &str) {
    let ours = cargo_bin("ringfence-ban");
    let path = format!("{}:{}", ours.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut shell = banner.pbx.host.command("env");
    run(shell.arg(format!("PATH={path}")).args(["bash", "-ec", line]));
}

/// It alone blocks, by this check, with these words in its sentence; and the commands that are printed undo it.
#[track_caller]
pub fn is_named_and_undone(banner: &Banner, subject: &str, by: &str, check: &str, sentence: &str) {
    let asked = ask(banner, &[subject]);
    assert_eq!((asked.code, asked.stderr.as_str()), (1, ""), "{}", asked.stdout);
    assert!(asked.stdout.lines().next().unwrap().contains(sentence), "{}", asked.stdout);
    assert_eq!(blocked_by(banner, subject), [by], "{}", asked.stdout);
    let mut blocking = checks(banner, subject, "blocks");
    // A jail may have a chain for each protocol.
    blocking.dedup();
    assert_eq!(blocking, [check], "{}", asked.stdout);
    for other in ["would-block", "not-known", "passed-over"] {
        assert_eq!(checks(banner, subject, other), [""; 0], "{other}: {}", asked.stdout);
    }
    let commands = printed(&asked.stdout);
    assert!(!commands.is_empty(), "{}", asked.stdout);
    for command in commands {
        paste(banner, &command);
    }
    let after = ask(banner, &[subject]);
    assert_eq!(after.code, 0, "{}", after.stdout);
    assert_eq!(blocked_by(banner, subject), [""; 0]);
}

/// Times and counters, which are others in each run, as `…`.
pub fn calm(text: &str) -> String {
    let mut calm = String::new();
    for line in text.lines() {
        let mut rest = line;
        if let Some((before, behind)) = line.split_once(", a list of ") {
            calm += before;
            calm += ", a list of … ago";
            rest = behind.split_once(" ago").unwrap().1;
        }
        while let Some(at) = rest.find(" UTC (") {
            let (before, behind) = rest.split_at(at);
            calm += &before[..before.len() - "2026-11-21 12:00".len()];
            calm += "…";
            rest = behind.split_once(')').unwrap().1;
        }
        // When a decision was made.
        let (first, more) = rest.split_once(' ').unwrap_or((rest, ""));
        let is_ago =
            first.ends_with('s') && first[..first.len() - 1].bytes().all(|byte| byte.is_ascii_digit());
        if is_ago && more.starts_with("ago ") {
            calm += "… ago";
            rest = more.trim_start_matches("ago").trim_start();
            calm += "  ";
        }
        calm += rest;
        calm += "\n";
    }
    calm
}

#[test]
fn fail2bans_bans_are_named_whatever_bans() {
    let banner = site("");
    goes_live(&banner);
    let fail2ban = jails(&banner);
    assert_eq!(blocked_by(&banner, BAD), [""; 0]);
    for (jail, sentence) in [
        ("sip", "is blocked by fail2ban's jail sip on 5060,5080:5081 tcp,udp, since "),
        ("ssh", "is blocked by fail2ban's jail ssh on 22 tcp, since "),
        ("sets", "is blocked by fail2ban's jail sets on all ports tcp, since "),
        ("native", "is blocked by fail2ban's jail native on 5060 udp, since "),
    ] {
        println!("{jail}");
        bans(&banner, &fail2ban, jail, BAD);
        // fail2ban says so before its action has done it.
        wait_for("the block", || blocked_by(&banner, BAD) == ["fail2ban"]);
        let answer = why(&banner, BAD);
        let lines = answer["closed"][0]["lines"].as_array().unwrap();
        assert!(
            lines.len() == 1 && lines[0].as_str().unwrap().ends_with(&format!("refused {BAD} by {jail}"))
        );
        let until: Timestamp = answer["closed"][0]["until"].as_str().unwrap().parse().unwrap();
        let left = until.as_second() - crate::support::now();
        assert!((3_500..=3_600).contains(&left), "{answer:#}");
        is_named_and_undone(&banner, BAD, "fail2ban", "fail2ban", sentence);
        assert_eq!(fail2ban.banned(jail), [""; 0]);
    }
}

#[test]
fn what_was_left_behind_by_a_killed_fail2ban_is_named() {
    let banner = site("");
    let mut fail2ban = jails(&banner);
    bans(&banner, &fail2ban, "ssh", BAD);
    wait_for("the rule", || banner.pbx.saved_in("nft").contains(&format!("-A f2b-ssh -s {BAD}/32 ")));
    fail2ban.kill();
    let shown = ask(&banner, &[BAD]).stdout;
    assert!(shown.contains("is blocked by fail2ban's jail ssh on 22 tcp, since "), "{shown}");
    assert!(shown.contains(" unbanip "), "its database still has it: {shown}");
    crate::support::sqlite(&banner.database(), "DELETE FROM bips");
    let shown = ask(&banner, &[BAD]).stdout;
    assert!(shown.contains("fail2ban does not know of it: it was left there"), "{shown}");
    is_named_and_undone(
        &banner,
        BAD,
        "fail2ban",
        "fail2ban",
        "is blocked by fail2ban's jail ssh on 22 tcp, for good",
    );
}

#[test]
fn event_guards_rules_and_its_log_are_named() {
    let postgres = Postgres::with_fusionpbx(&format!(
        "INSERT INTO v_domains (domain_uuid, domain_name, domain_enabled) VALUES (gen_random_uuid(), 'a.example.com', true);
         INSERT INTO v_event_guard_logs (event_guard_log_uuid, hostname, log_date, filter, ip_address, extension, user_agent, log_status)
         VALUES (gen_random_uuid(), 'pbx1', now() - interval '5 minutes', 'sip-auth-ip', '{BAD}', '999', E'scan\\x1b[31m', 'blocked'),
         (gen_random_uuid(), 'pbx1', now() - interval '2 days', 'sip-auth-ip', '{BAD}', '998', 'old', 'unblocked')"
    ));
    let banner = site(&fusionpbx(&postgres));
    goes_live(&banner);
    let only_logged = ask(&banner, &[BAD]).stdout;
    assert!(only_logged.contains("its log says blocked, but no rule on this host does: "), "{only_logged}");
    assert_eq!(blocked_by(&banner, BAD), [""; 0]);
    // As it does itself; a restart doubles its jumps, and here even the rule.
    for chain in ["sip-auth-ip", "sip-auth-fail"] {
        banner.pbx.host.shell(&format!(
            "iptables-nft -N {chain}; iptables-nft -I INPUT -j {chain}; iptables-nft -I INPUT -j {chain}"
        ));
    }
    let block = format!("iptables-nft -I sip-auth-ip -s {BAD} -j DROP");
    banner.pbx.host.shell(&format!("{block}; {block}"));
    let shown = ask(&banner, &[BAD]).stdout;
    assert!(
        shown.contains("extension 999, agent scan\u{fffd}[31m, host pbx1, since ")
            && !shown.contains('\u{1b}'),
        "{shown}"
    );
    assert!(shown.contains("\nNote: FusionPBX's page Status > Event Guard Logs still shows it: "), "{shown}");
    assert_eq!(printed(&shown), vec![format!("iptables-nft -D sip-auth-ip -s {BAD}/32 -j DROP"); 2]);
    is_named_and_undone(
        &banner,
        BAD,
        "event-guard",
        "event_guard",
        "is blocked by event_guard (sip-auth-ip), since ",
    );
    let rows =
        postgres.psql_in("fusionpbx", "SELECT count(*) FROM v_event_guard_logs WHERE log_status = 'blocked'");
    assert_eq!(rows.trim(), "1", "the database is only read");
}

/// The settings that name its database.
pub fn fusionpbx(postgres: &Postgres) -> String {
    let dsn = format!(
        "host={} port={} dbname=fusionpbx user=ringfence",
        postgres.socket_dir().display(),
        postgres.port
    );
    format!("[fusionpbx]\npostgres = {dsn:?}\ncarriers = \"off\"\n")
}

#[test]
fn blocked_accounts_are_named_for_their_address_and_for_themselves() {
    let banner = site("");
    goes_live(&banner);
    let device = format!("101@b.example.com,{OFFICE}");
    banner.pbx.ban(&device);
    banner.pbx.ban(ACCOUNT);
    let sentence = format!("101@b.example.com is blocked by ringfence-block, from {OFFICE}, since ");
    is_named_and_undone(&banner, "101@b.example.com", "account", "blocks", &sentence);
    banner.pbx.ban(&device);
    let shown = ask(&banner, &[OFFICE]).stdout;
    assert!(
        shown.starts_with(&format!(
            "{OFFICE} is not blocked.\nThe account 101@b.example.com of its phones is blocked by "
        )),
        "{shown}"
    );
    is_named_and_undone(&banner, OFFICE, "account", "accounts", "is not blocked.");
    let sentence = format!("{ACCOUNT} is blocked by ringfence-block, everywhere, since ");
    is_named_and_undone(&banner, ACCOUNT, "account", "blocks", &sentence);
    // Hostile names are arguments, and nothing else.
    let hostile = "$(touch hostile)'\"*;`id`\u{202e}@d".replace('"', "");
    banner.pbx.ban(&hostile);
    is_named_and_undone(
        &banner,
        &hostile,
        "account",
        "blocks",
        " is blocked by ringfence-block, everywhere, ",
    );
}

#[test]
fn lists_limits_restrictions_and_other_rules_are_named() {
    let lists = format!(
        "[lists.bad]\nkind = \"block\"\nentries = [\"{BAD}\", \"198.51.100.0/24\"]\n\
         [lists.home]\nkind = \"allow\"\nentries = [\"{OFFICE}\", \"{}\"]\nexempts = [\"blocklists\"]\n",
        PHONES[0][1]
    );
    let banner = site(&lists);
    goes_live(&banner);
    assert_eq!(blocked_by(&banner, OFFICE), [""; 0]);
    is_named_and_undone(
        &banner,
        BAD,
        "block-list",
        "block lists",
        "is blocked by the block list bad as 203.0.113.21, since ",
    );
    // It was allowed for a day.
    assert_eq!(checks(&banner, BAD, "passed-over"), ["block lists"]);
    assert_eq!(checks(&banner, BAD, "lets-pass"), ["seen"]);
    let shown = ask(&banner, &[BAD]).stdout;
    let says = "is not blocked.\nIt is on the block list bad, but it is allowed, or was seen registered, and that comes first.\n";
    assert!(shown.contains(says), "{shown}");

    let other = "203.0.113.99";
    banner.pbx.host.shell(&format!("ipset add rf-slam-ip4 {other} timeout 50"));
    is_named_and_undone(
        &banner,
        other,
        "rate-limit",
        "rate limits",
        "is blocked by a rate limit on SIP, until ",
    );
    let other = "2001:db8:99::1";
    banner.pbx.host.shell(&format!("ipset add rf-slam-ip6 {other} timeout 50"));
    is_named_and_undone(
        &banner,
        other,
        "rate-limit",
        "rate limits",
        "is blocked by a rate limit on SIP, until ",
    );

    configure(
        &banner,
        &format!("{lists}[firewall]\nrestrict = [{{ ports = [\"5080\"], to = [\"home\"] }}]\n"),
    );
    goes_live(&banner);
    assert_eq!(blocked_by(&banner, OFFICE), [""; 0]);
    let other = "203.0.113.98";
    is_named_and_undone(
        &banner,
        other,
        "restriction",
        "restrictions",
        "is blocked by a restriction to home on 5080 udp,tcp, as long as ",
    );

    banner.pbx.host.shell("iptables-nft -A INPUT -s 203.0.113.96/31 -p udp -j DROP");
    let shown = ask(&banner, &["203.0.113.97"]);
    assert_eq!(shown.code, 1, "{}", shown.stdout);
    let rule = "rule 3 of INPUT (iptables-nft), `-s 203.0.113.96/31 -p udp -j DROP` on 5060 udp, until somebody changes it.\n\
                It is also blocked by a restriction to home on 5080 udp,tcp, as long as it is on none of these lists.\n";
    assert!(shown.stdout.starts_with(&format!("203.0.113.97 is blocked by {rule}")), "{}", shown.stdout);
    assert!(printed(&shown.stdout).contains(&"iptables-nft -I INPUT 3 -s 203.0.113.97 -j ACCEPT".to_owned()));
    for command in printed(&shown.stdout) {
        paste(&banner, &command);
    }
    assert_eq!(blocked_by(&banner, "203.0.113.97"), [""; 0]);
    assert!(
        shown.stdout.contains("\nNote: the host's own rules are not Ringfence's to change.\n"),
        "{}",
        shown.stdout
    );
}

#[test]
fn two_blocks_are_both_named_first_what_a_packet_meets_first() {
    let banner = site(&format!("[lists.bad]\nkind = \"block\"\nentries = [\"{BAD}\"]\n"));
    goes_live(&banner);
    let fail2ban = jails(&banner);
    bans(&banner, &fail2ban, "sip", BAD);
    // fail2ban says so before its action has done it.
    wait_for("the set", || banner.banned("sip").contains_key(BAD));
    // It is recorded behind that.
    wait_for("its record", || ask(&banner, &[BAD]).stdout.contains("\nThe last decisions about it:\n"));
    assert_eq!(blocked_by(&banner, BAD), ["fail2ban", "block-list"]);
    let shown = ask(&banner, &[BAD]).stdout;
    let socket = banner.pbx.world.path("fail2ban/socket").display().to_string();
    let config = banner.pbx.world.config().display().to_string();
    let shown = calm(&shown).replace(&socket, "SOCKET").replace(&config, "CONFIG");
    let log = shown.lines().find(|line| line.ends_with(" refused 203.0.113.21 by sip")).unwrap().to_owned();
    assert_eq!(
        shown.replace(&log, "  LINE"),
        "203.0.113.21 is blocked by fail2ban's jail sip on 5060,5080:5081 tcp,udp, since …, until ….\n\
         It is also blocked by the block list bad as 203.0.113.21, since …, as long as it is listed.\n\
         \n\
         What each check makes of its packets, in the order of the rules:\n\
         AT                         CHECK        VERDICT  WHY\n\
         INPUT 1 > RF-BAN           fail2ban     blocks   jail sip, in the set rf-ban-sip-4, since …, until …\n\
         INPUT 2 > RINGFENCE-KNOWN  allow lists  -\n\
         \x20                          seen         -\n\
         \x20                          block lists  blocks   bad as 203.0.113.21, a list of … ago, since …\n\
         \x20                          rate limits  -\n\
         INPUT, its end             other rules  lets in  the policy of INPUT (iptables-nft), for 5060,5080 udp,tcp\n\
         \n\
         Nothing of it is known by: event_guard, accounts, registrations, restrictions.\n\
         \n\
         What led to it (fail2ban's jail sip):\n\
         \x20 LINE\n\
         \n\
         The last decisions about it:\n\
         WHEN    TOOL           DECISION  REASON      DETAIL\n\
         … ago  ringfence-ban  ban       jail (sip)  for 1h\n\
         \n\
         To undo all of it:\n\
         \x20   ringfence --config CONFIG release -- 203.0.113.21\n\
         \n\
         Or one by one:\n\
         \x20   # fail2ban's jail sip lets 203.0.113.21 go\n\
         \x20   fail2ban-client -s SOCKET set sip unbanip 203.0.113.21\n\
         \x20   # out of the set rf-ban-sip-4\n\
         \x20   ringfence-ban --config CONFIG unban --jail=sip -- 203.0.113.21\n\
         \x20   # allowed for a day, and not banned either meanwhile\n\
         \x20   ringfence-allow --config CONFIG add --for 1d -- 203.0.113.21\n"
    );
}

#[test]
fn what_cannot_be_asked_is_said_and_the_rest_is_shown() {
    let banner = site(
        "[fusionpbx]\npostgres = \"host=/nowhere port=1 dbname=fusionpbx user=ringfence\"\ncarriers = \"off\"\n",
    );
    let asked = ask(&banner, &[BAD]);
    assert_eq!((asked.code, asked.stderr.as_str()), (2, ""), "{}", asked.stdout);
    assert!(
        asked.stdout.starts_with(&format!(
            "It is not known whether {BAD} is blocked.\nNot everything could be asked; what could not is below.\n"
        )),
        "{}",
        asked.stdout
    );
    assert!(
        asked.stdout.contains("\nevent_guard  not known  not all of it could be asked\n"),
        "{}",
        asked.stdout
    );
    assert!(
        asked.stdout.contains("\nCould not be asked:\n  FusionPBX cannot be asked for event_guard's log: "),
        "{}",
        asked.stdout
    );
    std::fs::create_dir_all(banner.database().parent().unwrap()).unwrap();
    std::fs::write(banner.database(), "no database").unwrap();
    let asked = ask(&banner, &[ACCOUNT]);
    assert_eq!(asked.code, 2, "{}", asked.stdout);
    assert!(asked.stdout.contains("cannot read fail2ban's database "), "{}", asked.stdout);
    // What blocks, blocks.
    banner.pbx.ban(ACCOUNT);
    assert_eq!(ask(&banner, &[ACCOUNT]).code, 1);
    for (subject, says) in [
        ("203.0.113.0/24", "a network; ask about one address of it"),
        ("nobody", "write ADDRESS or USER@DOMAIN"),
    ] {
        let refused = ask(&banner, &[subject]);
        assert!(refused.code == 2 && refused.stderr.contains(says), "{}", refused.stderr);
    }
}

/// Lines of the log of ringfence-events.
fn events(banner: &Banner, lines: &[&str]) {
    let dir = banner.pbx.world.path("log/events");
    std::fs::create_dir_all(&dir).unwrap();
    let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ");
    let lines: Vec<_> = lines.iter().map(|line| format!("{time} v1 {line}\n")).collect();
    std::fs::write(dir.join("events.log"), lines.concat()).unwrap();
}

#[test]
fn an_account_has_its_whole_story() {
    let postgres = Postgres::with_fusionpbx(
        "INSERT INTO v_domains (domain_uuid, domain_name, domain_enabled) VALUES ('11111111-1111-1111-1111-111111111111', 'a.example.com', true);
         INSERT INTO v_extensions (extension_uuid, domain_uuid, extension, enabled)
         VALUES (gen_random_uuid(), '11111111-1111-1111-1111-111111111111', '101', 'true')",
    );
    let banner = site(&fusionpbx(&postgres));
    banner.pbx.world.database("sofia_reg_internal.db");
    let register = |user: &str, agent: &str| {
        let expires = crate::support::now() + 3_600;
        crate::support::sqlite(
            &banner.pbx.world.path("db/sofia_reg_internal.db"),
            &format!(
                "INSERT INTO sip_registrations (sip_user, sip_host, sip_username, sip_realm, expires, network_ip, user_agent) \
                 VALUES ('{user}', 'a.example.com', '{user}', 'a.example.com', {expires}, '{OFFICE}', CAST(x'{agent}' AS TEXT))"
            ),
        );
    };
    register("101", "5965616c696e6b20e9");
    let failure = format!(
        "failure address={BAD} method=REGISTER account=101@a.example.com known=yes id=101@a.example.com,{BAD} profile=internal agent=Snom"
    );
    events(&banner, &[&failure, &failure]);
    banner.pbx.ban(&format!("101@a.example.com,{BAD}"));
    let shown = ask(&banner, &["101@A.example.com"]);
    assert_eq!((shown.code, shown.stderr.as_str()), (1, ""));
    let config = banner.pbx.world.config().display().to_string();
    assert_eq!(
        calm(&shown.stdout).replace(&config, "CONFIG"),
        "101@a.example.com is blocked by ringfence-block, from 203.0.113.21, since …, until …: it fails there, and is not registered; by hand.\n\
         \n\
         CHECK          VERDICT  WHY\n\
         blocks         blocks   101@a.example.com from 203.0.113.21: it fails there, and is not registered (by hand), met by 0 packets, since …, until …\n\
         fail2ban       -        does not run\n\
         FusionPBX      known    FusionPBX has the extension\n\
         registrations  known    from 203.0.113.20 (Yealink \u{fffd}), until …\n\
         failures       known    wrong password, 2 times within the last hour, from 203.0.113.21 (Snom)\n\
         its addresses  -\n\
         \n\
         The last decisions about it:\n\
         WHEN    TOOL             DECISION  REASON                    DETAIL\n\
         … ago  ringfence-block  block     failing-device (by hand)  it fails there, and is not registered\n\
         \n\
         To undo all of it:\n\
         \x20   ringfence --config CONFIG release -- 101@a.example.com\n\
         \n\
         Or one by one:\n\
         \x20   # ringfence-block lets 101@a.example.com,203.0.113.21 go\n\
         \x20   ringfence-block --config CONFIG unban -- 101@a.example.com,203.0.113.21\n"
    );
    // In the office, it is known who is there.
    let shown = ask(&banner, &[OFFICE]);
    assert_eq!(shown.code, 0, "{}", shown.stdout);
    assert!(
        shown.stdout.contains("\nregistrations  known    101@a.example.com (Yealink \u{fffd}), until "),
        "{}",
        shown.stdout
    );
}

#[test]
fn an_allow_list_comes_before_a_block_list() {
    let banner = site(&format!(
        "[lists.bad]\nkind = \"block\"\nentries = [\"203.0.113.0/24\"]\n[lists.office]\nkind = \"allow\"\nentries = [\"{OFFICE}\"]\n"
    ));
    goes_live(&banner);
    let shown = ask(&banner, &[OFFICE]);
    assert_eq!(shown.code, 0, "{}", shown.stdout);
    let says = format!(
        "{OFFICE} is not blocked.\nIt is on the block list bad, but was cut out of it: allowed range, office.\n"
    );
    assert!(shown.stdout.starts_with(&says), "{}", shown.stdout);
    assert_eq!(checks(&banner, OFFICE, "lets-pass"), ["allow lists"]);
    assert_eq!(checks(&banner, OFFICE, "passed-over"), ["block lists"]);
    assert_eq!(blocked_by(&banner, BAD), ["block-list"]);
    // A rule of the host's own is not held up by that.
    banner.pbx.host.shell("iptables-nft -I INPUT -m set --match-set rf-block-net4 src -j DROP; ipset add rf-block-net4 203.0.113.20/32");
    assert_eq!(blocked_by(&banner, OFFICE), ["block-list"]);
}

#[test]
fn what_is_only_observed_blocks_nobody() {
    let banner = site("");
    let fail2ban = jails(&banner);
    bans(&banner, &fail2ban, "sip", BAD);
    wait_for("the set", || banner.banned("sip").contains_key(BAD));
    banner.configure("mode = \"observe\"", "");
    let sync = banner.ban(&["sync"]);
    assert_eq!(sync.code, 0, "{}", sync.stderr);
    let shown = ask(&banner, &[BAD]);
    assert_eq!(shown.code, 0, "{}", shown.stdout);
    assert!(
        shown.stdout.contains("in the set rf-ban-sip-4; not in force: mode is observe, since "),
        "{}",
        shown.stdout
    );
    assert_eq!(checks(&banner, BAD, "would-block"), ["fail2ban"]);
}

#[test]
fn a_ban_that_an_accept_above_it_holds_up_is_not_in_force() {
    let banner = site("");
    let fail2ban = jails(&banner);
    bans(&banner, &fail2ban, "ssh", BAD);
    wait_for("the rule", || banner.pbx.saved_in("nft").contains(&format!("-A f2b-ssh -s {BAD}/32 ")));
    banner.pbx.host.shell("iptables-nft -I INPUT -s 203.0.113.0/24 -j ACCEPT");
    let shown = ask(&banner, &[BAD]);
    assert_eq!(shown.code, 0, "{}", shown.stdout);
    let says = "not in force: rule 1 of INPUT (iptables-nft) lets its packets in before, since ";
    assert!(shown.stdout.contains(says), "{}", shown.stdout);
}

#[test]
fn everybody_is_named_who_is_banned_with_his_network_or_over_ipv6() {
    let banner = site("");
    let fail2ban = jails(&banner);
    let whom = ["203.0.113.0/24", PHONES[1][1]];
    for id in whom {
        fail2ban.client(&["set", "sip", "banip", id]).unwrap();
    }
    wait_for("both", || banner.banned("sip").len() == 2);
    for (subject, id) in [(BAD, whom[0]), (PHONES[1][1], whom[1])] {
        let commands = printed(&ask(&banner, &[subject]).stdout);
        assert!(commands[0].ends_with(&format!(" set sip unbanip {id}")), "{commands:?}");
        is_named_and_undone(
            &banner,
            subject,
            "fail2ban",
            "fail2ban",
            "is blocked by fail2ban's jail sip on 5060,",
        );
    }
}

#[test]
fn what_fail2ban_blocks_of_accounts_is_let_go_by_both() {
    let banner = site("");
    let fail2ban = jails(&banner);
    let other = "o'neil@b.example.com";
    let device = format!("{other},{OFFICE}");
    for (id, subject, check, sentence) in [
        (ACCOUNT, ACCOUNT, "blocks", "is blocked by ringfence-block, everywhere"),
        (device.as_str(), OFFICE, "accounts", "is not blocked."),
        (device.as_str(), other, "blocks", "is blocked by ringfence-block, from 203.0.113.20"),
    ] {
        fail2ban.client(&["set", "accounts", "banip", id]).unwrap();
        wait_for(id, || banner.pbx.list().len() == 1);
        wait_for("the database", || fail2ban.remembered("accounts") == 1);
        let commands = printed(&ask(&banner, &[subject]).stdout);
        assert!(commands[0].contains(" set accounts unbanip "), "{commands:?}");
        assert!(commands[1].contains(" unban --jail=accounts -- "), "{commands:?}");
        is_named_and_undone(&banner, subject, "account", check, sentence);
        assert_eq!(fail2ban.banned("accounts"), [""; 0]);
    }
    // What fail2ban has and nothing blocks is said, for it counts no new failures meanwhile.
    fail2ban.client(&["set", "accounts", "banip", ACCOUNT]).unwrap();
    wait_for("the block", || banner.pbx.list().len() == 1);
    assert_eq!(banner.pbx.block(&["unban", "--", ACCOUNT]).code, 0);
    let shown = ask(&banner, &[ACCOUNT]);
    assert_eq!(shown.code, 0, "{}", shown.stdout);
    assert!(shown.stdout.contains("jail accounts has 999@a.example.com among its bans"), "{}", shown.stdout);
    assert!(shown.stdout.contains("\nfail2ban counts new failures only after:\n"), "{}", shown.stdout);
}

#[test]
fn a_jail_with_a_chain_for_each_protocol_is_let_go_once() {
    let banner = site("");
    let of = |protocol: &str| {
        format!("%(banaction)s[name=%(__name__)s-{protocol}, protocol=\"{protocol}\", port=\"5060\"]")
    };
    let action = format!("action = {}\n    {}", of("tcp"), of("udp"));
    let fail2ban = banner.fail2ban(&[("twice", &action)]);
    bans(&banner, &fail2ban, "twice", BAD);
    wait_for("both sets", || ["twice-tcp", "twice-udp"].iter().all(|jail| banner.banned(jail).len() == 1));
    assert_eq!(blocked_by(&banner, BAD), ["fail2ban", "fail2ban"]);
    let shown = ask(&banner, &[BAD]).stdout;
    assert!(!shown.contains("does not have it any more"), "{shown}");
    let commands = printed(&shown);
    let unbans = commands.iter().filter(|command| command.contains(" set twice unbanip "));
    assert_eq!(unbans.count(), 1, "{commands:?}");
    for command in commands {
        paste(&banner, &command);
    }
    assert_eq!(blocked_by(&banner, BAD), [""; 0]);
}

#[test]
fn what_is_not_understood_is_said_and_not_guessed() {
    let banner = site("");
    banner.pbx.host.shell("nft add table inet custom; ipset create odd hash:net,iface");
    assert_eq!(ask(&banner, &[BAD]).code, 0);
    for (rules, undoes, why) in [
        (
            "nft 'add set inet custom odd { type ipv4_addr . inet_service; }; \
             add chain inet custom in { type filter hook input priority 0; }; add rule inet custom in ip saddr . udp dport @odd drop'",
            "nft delete table inet custom",
            "5060,5080 udp cannot be told: rule 1 of in (nftables, table inet custom) depends on the set odd, \
             whose keys are not understood here (ipv4_addr . inet_service).",
        ),
        (
            "nft 'add table netdev t; add chain netdev t in { type filter hook ingress device eth0 priority 0; }; add rule netdev t in ip saddr 203.0.113.21 drop'",
            "nft delete table netdev t",
            "5060,5080 udp,tcp cannot be told: rule 1 of in (nftables, table netdev t) refuses it before all other rules",
        ),
        (
            "iptables-nft -I INPUT -p udp -m set --match-set odd src,src -j DROP",
            "iptables-nft -D INPUT 1",
            "5060,5080 udp cannot be told: rule 1 of INPUT depends on the set odd, which is of the kind hash:net,iface, which is not understood.",
        ),
        (
            "iptables-nft -t raw -A PREROUTING -p udp -j NFQUEUE",
            "iptables-nft -t raw -F",
            "5060,5080 udp cannot be told: rule 1 of PREROUTING (table raw) hands it to a program (NFQUEUE) that decides.",
        ),
    ] {
        banner.pbx.host.shell(rules);
        let shown = ask(&banner, &[BAD]);
        assert_eq!(shown.code, 2, "{}", shown.stdout);
        let says = format!("It is not known whether {BAD} is blocked.\nWhat becomes of its packets to {why}");
        assert!(shown.stdout.starts_with(&says), "{}", shown.stdout);
        // As `test` has it, for each of them.
        let tested = call(&mut banner.pbx.admin_command(&["test", BAD])).stdout;
        let why = why.split_once("told: ").unwrap().1.trim_end_matches('.');
        assert!(tested.contains(why), "{tested}");
        assert_eq!(why_json_doubts(&banner), 1);
        banner.pbx.host.shell(undoes);
        assert_eq!(ask(&banner, &[BAD]).code, 0);
    }
}

fn why_json_doubts(banner: &Banner) -> usize {
    why(banner, BAD)["doubts"].as_array().unwrap().len()
}

#[test]
fn checks_stand_where_this_host_has_them() {
    let banner = site(&format!("[lists.bad]\nkind = \"block\"\nentries = [\"{BAD}\"]\n"));
    goes_live(&banner);
    banner.pbx.ban(&format!("101@a.example.com,{BAD}"));
    let fail2ban = jails(&banner);
    for jail in ["ssh", "native", "sip"] {
        bans(&banner, &fail2ban, jail, BAD);
    }
    wait_for("the rule", || banner.pbx.saved_in("nft").contains(&format!("-A f2b-ssh -s {BAD}/32 ")));
    // event_guard behind everything, and rules of the host's own before and behind.
    banner.pbx.host.shell(&format!(
        "iptables-nft -N sip-auth-ip; iptables-nft -A INPUT -j sip-auth-ip; iptables-nft -A sip-auth-ip -s {BAD} -j DROP
         iptables-nft -t raw -A PREROUTING -s {BAD} -p udp --dport 5080 -j DROP; iptables-nft -A INPUT -p udp --dport 5060 -j ACCEPT"
    ));
    wait_for("all of it", || blocked_by(&banner, BAD).len() == 7);
    let answer = why(&banner, BAD);
    let order: Vec<_> = answer["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|check| {
            let at = check["at"].as_object()?;
            let text = |key: &str| at[key].as_str().unwrap();
            Some(format!(
                "{} {}: {}, {}",
                text("table"),
                text("chain"),
                check["check"].as_str().unwrap(),
                check["verdict"].as_str().unwrap()
            ))
        })
        .collect();
    assert_eq!(
        order,
        [
            "raw PREROUTING: other rules, blocks",
            "inet f2b-table f2b-chain: fail2ban, blocks",
            "filter f2b-ssh: fail2ban, blocks",
            "filter RF-BAN: fail2ban, blocks",
            "filter RF-BLOCK: accounts, blocks",
            "filter RINGFENCE-KNOWN: allow lists, nothing",
            "filter RINGFENCE-KNOWN: seen, nothing",
            "filter RINGFENCE-KNOWN: block lists, blocks",
            "filter RINGFENCE-KNOWN: rate limits, nothing",
            "filter sip-auth-ip: event_guard, blocks",
            "filter INPUT: other rules, lets-in",
            "filter INPUT: other rules, lets-in",
        ],
        "{answer:#}"
    );
    let others: Vec<_> =
        answer["checks"].as_array().unwrap().iter().filter(|check| check["at"].is_null()).collect();
    assert!(
        others
            .iter()
            .all(|check| ["registrations", "restrictions"].contains(&check["check"].as_str().unwrap())),
        "{others:?}"
    );
}

/// Numbers that look like seconds since 1970, and where they stand.
fn seconds(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Number(number) => {
            let is_second = number.as_f64().is_some_and(|number| (1e9..1e14).contains(&number));
            found.extend(is_second.then(|| format!("{path}: {number}")));
        }
        Value::Array(all) => all.iter().for_each(|one| seconds(one, path, found)),
        Value::Object(all) => all.iter().for_each(|(key, one)| seconds(one, &format!("{path}.{key}"), found)),
        _ => {}
    }
}

#[test]
fn json_has_all_times_as_of_rfc_3339() {
    let lists = format!("[lists.bad]\nkind = \"block\"\nentries = [\"{BAD}\"]\n");
    let banner = site(&lists);
    goes_live(&banner);
    let fail2ban = jails(&banner);
    bans(&banner, &fail2ban, "sip", BAD);
    let device = format!("101@a.example.com,{BAD}");
    banner.pbx.ban(&device);
    events(
        &banner,
        &[&format!(
            "failure address={BAD} method=REGISTER account=101@a.example.com known=yes id={device} profile=internal agent=Snom"
        )],
    );
    for command in [
        &["status"][..],
        &["why", BAD],
        &["why", "101@a.example.com"],
        &["release", "--dry-run", BAD],
        &["test", BAD],
        &["offenders"],
        &["pause", "10m"],
        &["pause"],
        &["status"],
        &["why", BAD],
        &["test", BAD],
        &["pause", "--end"],
        &["doctor"],
        &["validate"],
    ] {
        let asked = call(&mut banner.pbx.admin_command(&[command, &["--json"]].concat()));
        let answer: Value = serde_json::from_str(&asked.stdout)
            .unwrap_or_else(|error| panic!("{command:?} {error}: {asked:?}"));
        let mut found = vec![];
        seconds(&answer, "", &mut found);
        assert_eq!(found, [""; 0], "{command:?}");
        let text = asked.stdout.matches("\": \"20").count();
        assert!(
            text > 0
                || ["test", "release", "doctor", "validate"].contains(&command[0])
                || command == ["pause", "--end"],
            "{command:?} {answer:#}"
        );
    }
}

#[test]
fn nothing_hangs_where_nobody_answers() {
    let postgres = Postgres::with_fusionpbx("");
    let banner = site(&fusionpbx(&postgres));
    // It takes the call, and never says a word.
    std::fs::create_dir_all(banner.pbx.world.path("fail2ban")).unwrap();
    let _deaf = std::os::unix::net::UnixListener::bind(banner.pbx.world.path("fail2ban/socket")).unwrap();
    postgres.freeze();
    for subject in [BAD, ACCOUNT] {
        let asked = ask(&banner, &[subject]);
        assert_eq!(asked.code, 2, "{}", asked.stdout);
        assert!(asked.took < std::time::Duration::from_secs(15), "{:?}", asked.took);
        let says = "\n  fail2ban cannot be asked whom it bans: fail2ban-client did not get done within 5 s\n";
        assert!(asked.stdout.contains(says), "{}", asked.stdout);
        assert!(asked.stdout.contains("no answer in time"), "{}", asked.stdout);
    }
    postgres.thaw();
}

/// All files, and the rules and sets of the kernel.
fn everything(banner: &Banner) -> String {
    let files = format!(
        "cd '{}' && find . -type f ! -name '*-shm' ! -name '*-wal' | LC_ALL=C sort | xargs -r -d '\\n' sha256sum",
        banner.pbx.world.path("").display()
    );
    let kernel = "iptables-nft-save -t filter | grep -v '^#'; ipset save | sed 's/ timeout [0-9]*//' | LC_ALL=C sort; nft list tables";
    banner.pbx.host.shell(&format!("{{ {files}; {kernel}; }}"))
}

#[test]
fn to_look_changes_nothing_also_where_the_ledger_is_damaged() {
    let banner = site("");
    goes_live(&banner);
    banner.pbx.ban(ACCOUNT);
    for damage in [false, true] {
        if damage {
            std::fs::write(banner.pbx.world.path("state/ledger.db"), "no database").unwrap();
        }
        let before = everything(&banner);
        for command in [&["why", BAD][..], &["why", ACCOUNT], &["release", "--dry-run", BAD]] {
            let asked = call(&mut banner.pbx.admin_command(command));
            assert_eq!(asked.code == 2, damage, "{}", asked.stdout);
            assert_eq!(asked.stdout.contains("cannot read the ledger "), damage, "{}", asked.stdout);
        }
        assert_eq!(everything(&banner), before);
    }
}

#[test]
fn a_ban_of_a_table_of_nftables_counts_whoever_made_it() {
    let banner = site("");
    let mut fail2ban = jails(&banner);
    bans(&banner, &fail2ban, "native", BAD);
    wait_for("the ban", || blocked_by(&banner, BAD) == ["fail2ban"]);
    fail2ban.kill();
    crate::support::sqlite(&banner.database(), "DELETE FROM bips");
    is_named_and_undone(
        &banner,
        BAD,
        "fail2ban",
        "fail2ban",
        "is blocked by fail2ban's jail native on 5060 udp, for good",
    );
    banner.pbx.host.shell(&format!(
        "nft add table ip own; nft add chain ip own in '{{ type filter hook input priority 0; }}'; nft add rule ip own in ip saddr {BAD} drop"
    ));
    assert_eq!(blocked_by(&banner, BAD), ["rules"]);
}

#[test]
fn a_ban_that_the_rules_lost_is_no_block() {
    let banner = site("");
    let fail2ban = jails(&banner);
    bans(&banner, &fail2ban, "ssh", BAD);
    wait_for("the rule", || banner.pbx.saved_in("nft").contains(&format!("-A f2b-ssh -s {BAD}/32 ")));
    banner.pbx.host.shell("iptables-nft -F; iptables-nft -X f2b-ssh");
    let shown = ask(&banner, &[BAD]);
    assert_eq!(shown.code, 0, "{}", shown.stdout);
    assert!(shown.stdout.contains("jail ssh, fail2ban holds it, but no rule "), "{}", shown.stdout);
    assert!(shown.stdout.contains("\nfail2ban counts new failures only after:\n"), "{}", shown.stdout);
}

#[test]
fn a_ban_in_a_chain_below_another_is_found() {
    let banner = site("");
    banner.pbx.host.shell(&format!(
        "iptables-nft -N f2b-all; iptables-nft -N ufw-before; iptables-nft -A INPUT -j ufw-before; \
         iptables-nft -A ufw-before -j f2b-all; iptables-nft -A f2b-all -s {BAD} -j DROP"
    ));
    let sentence = "is blocked by fail2ban's jail all, for good";
    is_named_and_undone(&banner, BAD, "fail2ban", "fail2ban", sentence);
    // What lets in one port above it leaves the others closed.
    banner.pbx.host.shell(&format!(
        "iptables-nft -A f2b-all -s {BAD} -j DROP; iptables-nft -I INPUT -p udp --dport 5060 -j ACCEPT"
    ));
    let sentence = "is blocked by fail2ban's jail all on all ports but 5060 udp, for good";
    is_named_and_undone(&banner, BAD, "fail2ban", "fail2ban", sentence);
}

#[test]
fn lists_and_limits_that_no_packet_comes_to_are_no_block() {
    let banner = site(&format!("[lists.bad]\nkind = \"block\"\nentries = [\"{BAD}\"]\n"));
    goes_live(&banner);
    banner.pbx.host.shell(&format!("ipset add rf-slam-ip4 {BAD} timeout 50"));
    assert_eq!(blocked_by(&banner, BAD), ["block-list", "rate-limit"]);
    banner.pbx.host.shell(&format!("iptables-nft -I INPUT -s {BAD} -j ACCEPT"));
    let would = ["block lists", "rate limits"];
    assert_eq!(
        (blocked_by(&banner, BAD), checks(&banner, BAD, "would-block")),
        (vec![], would.map(str::to_owned).to_vec())
    );
    assert!(
        ask(&banner, &[BAD])
            .stdout
            .contains("not in force: rule 1 of INPUT (iptables-nft) lets its packets in before")
    );
    banner.pbx.host.shell("iptables-nft -F INPUT");
    assert_eq!(
        (blocked_by(&banner, BAD), checks(&banner, BAD, "would-block")),
        (vec![], would.map(str::to_owned).to_vec())
    );
}

#[test]
fn an_account_whose_address_is_blocked_is_told_so() {
    let banner = site("");
    goes_live(&banner);
    let failure = format!(
        "failure address={BAD} method=REGISTER account=101@a.example.com known=yes id=101@a.example.com,{BAD} profile=internal agent=Snom"
    );
    events(&banner, &[&failure]);
    assert_eq!(blocked_by(&banner, "101@a.example.com"), [""; 0]);
    banner.pbx.host.shell(&format!("ipset add rf-slam-ip4 {BAD} timeout 50"));
    let shown = ask(&banner, &["101@a.example.com"]);
    assert_eq!(shown.code, 1, "{}", shown.stdout);
    let says = format!(
        "101@a.example.com itself is not blocked.\nIts address {BAD} is blocked by a rate limit on SIP, until "
    );
    assert!(shown.stdout.starts_with(&says), "{}", shown.stdout);
}
