//! `ringfence release`: every block is undone, and what cannot be is said.

use serde_json::Value;

use crate::admin_why::{ACCOUNT, BAD, OFFICE, ask, bans, blocked_by, fusionpbx, goes_live, jails, site};
use crate::support::{Banner, Call, Postgres, call};

#[track_caller]
fn release(banner: &Banner, args: &[&str]) -> Call {
    call(&mut banner.pbx.admin_command(&[&["release"], args].concat()))
}

#[track_caller]
fn releases(banner: &Banner, subject: &str) -> Vec<String> {
    let done = release(banner, &["--json", "--", subject]);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{}", done.stdout);
    assert_eq!(blocked_by(banner, subject), [""; 0], "{}", done.stdout);
    let outcome: Value = serde_json::from_str(&done.stdout).unwrap();
    let steps = outcome["done"].as_array().unwrap().iter();
    steps.map(|step| step["what"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_address_is_released_everywhere_at_once() {
    let postgres = Postgres::with_fusionpbx(&format!(
        "INSERT INTO v_domains (domain_uuid, domain_name, domain_enabled) VALUES (gen_random_uuid(), 'a.example.com', true);
         INSERT INTO v_event_guard_logs (event_guard_log_uuid, hostname, log_date, filter, ip_address, log_status)
         VALUES (gen_random_uuid(), 'pbx1', now(), 'sip-auth-ip', '{BAD}', 'blocked')"
    ));
    let banner =
        site(&format!("{}[lists.bad]\nkind = \"block\"\nentries = [\"{BAD}\"]\n", fusionpbx(&postgres)));
    goes_live(&banner);
    let nothing = release(&banner, &[OFFICE]);
    assert_eq!(
        (nothing.code, nothing.stdout.as_str()),
        (0, "203.0.113.20 is not blocked; there is nothing to undo.\n")
    );
    let fail2ban = jails(&banner);
    bans(&banner, &fail2ban, "sip", BAD);
    bans(&banner, &fail2ban, "ssh", BAD);
    banner.pbx.ban(&format!("101@b.example.com,{BAD}"));
    banner.pbx.host.shell(&format!(
        "iptables-nft -N sip-auth-ip; iptables-nft -I INPUT -j sip-auth-ip; iptables-nft -I sip-auth-ip -s {BAD} -j DROP
         ipset add rf-slam-ip4 {BAD} timeout 50"
    ));
    let all = ["event-guard", "fail2ban", "fail2ban", "block-list", "rate-limit", "account"];
    let mut found = blocked_by(&banner, BAD);
    found.sort();
    let mut wanted = all.map(str::to_owned);
    wanted.sort();
    assert_eq!(found, wanted);

    let before = banner.pbx.saved();
    let dry = release(&banner, &["--dry-run", BAD]);
    assert_eq!(dry.code, 0, "{}", dry.stdout);
    assert!(dry.stdout.starts_with("To release 203.0.113.21, this would be done:\n"), "{}", dry.stdout);
    assert_eq!(banner.pbx.saved(), before);
    assert_eq!(blocked_by(&banner, BAD).len(), 6);

    let done = release(&banner, &["--for", "2h", BAD]);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{}", done.stdout);
    let mut lines: Vec<_> = done.stdout.lines().collect();
    assert_eq!(lines.remove(0), "203.0.113.21 is released:");
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "  allowed for 2h, and not banned either meanwhile",
            "  fail2ban's jail sip lets 203.0.113.21 go",
            "  fail2ban's jail ssh lets 203.0.113.21 go",
            "  out of the set rf-ban-sip-4",
            "  out of the set rf-slam-ip4",
            "  ringfence-block lets 101@b.example.com,203.0.113.21 go",
            "  the rule of event_guard in sip-auth-ip is taken away",
            "Note: FusionPBX's page Status > Event Guard Logs still shows it: tick it there, and press Unblock.",
        ]
    );
    assert_eq!(blocked_by(&banner, BAD), [""; 0]);
    assert_eq!((fail2ban.banned("sip"), fail2ban.banned("ssh")), (vec![], vec![]));
    let journal = banner.pbx.world.journal();
    let last = journal.iter().rfind(|line| line["tool"] == "ringfence").unwrap();
    assert_eq!((&last["decision"], &last["subject"]), (&"release".into(), &BAD.into()));
    // Once more, there is nothing to do.
    let again = release(&banner, &[BAD]);
    assert_eq!(
        (again.code, again.stdout.as_str()),
        (0, "203.0.113.21 is not blocked; there is nothing to undo.\n")
    );
}

#[test]
fn an_account_is_released() {
    let banner = site("");
    banner.pbx.ban(ACCOUNT);
    banner.pbx.ban(&format!("{ACCOUNT},{OFFICE}"));
    assert_eq!(
        releases(&banner, ACCOUNT),
        [format!("ringfence-block lets {ACCOUNT} go"), format!("ringfence-block lets {ACCOUNT},{OFFICE} go")]
    );
    assert_eq!(releases(&banner, ACCOUNT), [""; 0]);
}

#[test]
fn what_is_left_is_said() {
    let banner = site("");
    goes_live(&banner);
    banner.pbx.host.shell(&format!("iptables-nft -A INPUT -s {BAD} -j DROP"));
    let before = banner.pbx.saved();
    let done = release(&banner, &[BAD]);
    assert_eq!(done.code, 1, "{}", done.stdout);
    assert!(done.stdout.starts_with("203.0.113.21 is released in part:\n  left: rule "), "{}", done.stdout);
    assert_eq!(banner.pbx.saved(), before);

    let banner = site("");
    let mut fail2ban = jails(&banner);
    bans(&banner, &fail2ban, "sip", BAD);
    fail2ban.kill();
    let done = release(&banner, &[BAD]);
    assert_eq!(done.code, 1, "{}", done.stdout);
    assert!(
        done.stdout.contains("\n  not done: fail2ban's jail sip lets 203.0.113.21 go: "),
        "{}",
        done.stdout
    );
    assert!(done.stdout.contains("\n  out of the set rf-ban-sip-4\n"), "{}", done.stdout);
    assert!(
        done.stdout.contains("\n  left: fail2ban does not run, and bans 203.0.113.21 again when it starts"),
        "{}",
        done.stdout
    );
    assert_eq!(ask(&banner, &[BAD]).code, 0);
}

#[test]
fn what_frees_others_is_left_to_the_administrator() {
    let banner = site("");
    banner.pbx.host.shell(
        "iptables-nft -N f2b-x; iptables-nft -I INPUT -p tcp --dport 22 -j f2b-x; iptables-nft -A f2b-x -s 203.0.113.0/24 -j DROP",
    );
    banner.pbx.ban(&format!("101@b.example.com,{BAD}"));
    let before = banner.pbx.saved_in("nft");
    let done = release(&banner, &[BAD]);
    assert_eq!(done.code, 1, "{}", done.stdout);
    let left = "; by hand, which frees 203.0.113.0/24, 256 addresses: iptables-nft -D f2b-x -s 203.0.113.0/24 -j DROP\n";
    assert!(done.stdout.contains(left), "{}", done.stdout);
    let let_go = format!("\n  ringfence-block lets 101@b.example.com,{BAD} go\n");
    assert!(done.stdout.contains(&let_go), "{}", done.stdout);
    let rule = "-A f2b-x -s 203.0.113.0/24 -j DROP";
    assert!(before.contains(rule) && banner.pbx.saved_in("nft").contains(rule));
}

#[test]
fn a_longer_allowance_keeps_its_end_and_its_reason() {
    let banner = site(&format!("[lists.bad]\nkind = \"block\"\nentries = [\"{BAD}\"]\n"));
    goes_live(&banner);
    let allow = |args: &[&str]| call(&mut banner.pbx.host.call(&banner.pbx.world.allow_command(args)));
    assert_eq!(allow(&["add", "--for", "20d", "--because", "the boss", "--", BAD]).code, 0);
    banner.pbx.host.shell(&format!("ipset del rf-seen-ip4 {BAD}"));
    assert_eq!(blocked_by(&banner, BAD), ["block-list"]);
    assert_eq!(releases(&banner, BAD), ["allowed for 1d, and not banned either meanwhile"]);
    let shown = allow(&["list"]).stdout;
    assert!(shown.contains("the boss") && (shown.contains("19d") || shown.contains("20d")), "{shown}");
}

#[test]
fn a_pause_is_said_and_what_it_hides_is_undone() {
    let banner = site(&format!("[lists.bad]\nkind = \"block\"\nentries = [\"{BAD}\"]\n"));
    goes_live(&banner);
    assert_eq!(blocked_by(&banner, BAD), ["block-list"]);
    assert_eq!(call(&mut banner.pbx.admin_command(&["pause", "10m"])).code, 0);
    let asked = ask(&banner, &[BAD]);
    assert_eq!(asked.code, 0, "{}", asked.stdout);
    assert!(asked.stdout.starts_with("Paused until "), "{}", asked.stdout);
    assert!(asked.stdout.contains(&format!("\n{BAD} is not blocked.\n")), "{}", asked.stdout);
    assert!(asked.stdout.contains("not in force: Ringfence is paused"), "{}", asked.stdout);
    let done = release(&banner, &[BAD]);
    assert_eq!(done.code, 0, "{}", done.stdout);
    assert!(done.stdout.contains("\nNote: Paused until "), "{}", done.stdout);
    assert_eq!(call(&mut banner.pbx.admin_command(&["pause", "--end"])).code, 0);
    assert_eq!(blocked_by(&banner, BAD), [""; 0]);
}
