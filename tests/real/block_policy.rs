//! `ringfence-block`: who is blocked, and who never is. FusionPBX's tables are in a real PostgreSQL, FreeSWITCH's registrations in
//! its SQLite files, and the rules in the kernel of a host of our own.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use serde_json::json;

use crate::support::{Blocker, Postgres, call};

with_both_matchers! {
    only_accounts_that_nobody_can_have_are_blocked_everywhere
    where_nobody_can_say_that_an_account_does_not_exist_it_is_not_blocked
    only_an_address_that_fail2ban_leaves_alone_causes_blocks
    while_registrations_cannot_be_read_the_seen_ones_count
    a_device_is_blocked_at_an_address_only_if_it_is_not_registered_from_there
    who_need_not_be_blocked_any_more_is_let_go
    blocks_end_by_their_time_while_nobody_can_be_asked
    what_fusionpbx_said_counts_for_a_minute
    a_flood_of_known_good_addresses_suspends_blocks
    by_hand_there_is_no_alarm
    one_address_does_not_drive_out_everybody_else
    a_device_is_named_in_two_ways_and_let_go_by_either
    whoever_is_registered_exists_though_nobody_is_asked
    the_oldest_makes_way
}

const ROWS: &str = "
    INSERT INTO v_domains (domain_uuid, domain_name, domain_enabled) VALUES
        ('11111111-1111-1111-1111-111111111111', 'a.example.com', 'true'),
        ('12222222-2222-2222-2222-222222222222', 'off.example.com', 'false');
    INSERT INTO v_extensions (extension_uuid, domain_uuid, extension, number_alias, enabled) VALUES
        (gen_random_uuid(), '11111111-1111-1111-1111-111111111111', '101', NULL, 'true'),
        (gen_random_uuid(), '11111111-1111-1111-1111-111111111111', '102', 'alice', 'true'),
        (gen_random_uuid(), '11111111-1111-1111-1111-111111111111', '103', NULL, 'false'),
        (gen_random_uuid(), '12222222-2222-2222-2222-222222222222', '101', NULL, 'true');";

/// An office with a phone, and one without.
const OFFICE: &str = "203.0.113.20";
const ELSEWHERE: &str = "203.0.113.66";

/// A FreeSWITCH profile's file.
const PROFILE: &str = "sofia_reg_internal.db";

/// The settings that name FusionPBX's database.
fn fusionpbx(server: &Postgres) -> String {
    let dir = server.socket_dir().display();
    format!("[fusionpbx]\npostgres = \"host={dir} port={} dbname=fusionpbx user=ringfence\"\n", server.port)
}

/// A host with FusionPBX, and lines of `[block]`.
fn pbx(matcher: &'static str, block: &str) -> (Blocker, Postgres) {
    let server = Postgres::with_fusionpbx(ROWS);
    let blocker = Blocker::matching_by(matcher, &format!("{}[block]\n{block}\n", fusionpbx(&server)));
    (blocker, server)
}

/// A host where nobody asks FusionPBX, and lines of `[block]`.
fn unverified(matcher: &'static str, block: &str) -> Blocker {
    Blocker::matching_by(matcher, &format!("[block]\nverify = \"none\"\n{block}\n"))
}

fn destroy_registrations(blocker: &Blocker) {
    for file in std::fs::read_dir(blocker.world.path("db")).unwrap() {
        std::fs::write(file.unwrap().path(), "garbage ".repeat(1000)).unwrap();
    }
    blocker.world.reboot();
}

fn only_accounts_that_nobody_can_have_are_blocked_everywhere(matcher: &'static str) {
    let (pbx, _server) = pbx(matcher, "");
    let unknown = [
        ("999@a.example.com", "FusionPBX has no such extension in the domain"),
        ("101@b.example.com", "FusionPBX has no such domain"),
        ("103@a.example.com", "the extension is disabled in FusionPBX"),
        ("101@off.example.com", "the domain is disabled in FusionPBX"),
    ];
    for (id, why) in unknown {
        pbx.does(&["ban", id]);
        let last = pbx.world.journal().pop().unwrap();
        let expected = json!(["block", "unknown-account", "by hand", why]);
        assert_eq!(json!([last["decision"], last["reason"], last["source"], last["detail"]]), expected);
        let listed = pbx.list();
        let entry = listed.iter().find(|entry| entry["account"] == id).unwrap();
        assert_eq!(entry["why"], why);
        assert!(pbx.block(&["list"]).stdout.lines().any(|line| line.starts_with(id) && line.ends_with(why)));
    }
    let exists = "the account exists in FusionPBX; block its device at one address instead";
    for id in ["101@a.example.com", "101@A.Example.COM", "alice@a.example.com"] {
        let line = pbx.refuses(1, "account-exists", &[id]);
        assert!(line.ends_with(&format!("is not blocked: {exists}")), "{line}");
    }
    // fail2ban would only try it again.
    pbx.refuses(0, "account-exists", &["--jail=sip", "102@a.example.com"]);
    pbx.holds(&unknown.map(|(id, _)| id));
}

fn where_nobody_can_say_that_an_account_does_not_exist_it_is_not_blocked(matcher: &'static str) {
    let (pbx, server) = pbx(matcher, "");
    let id = "999@a.example.com";
    pbx.configure("");
    let line = pbx.refuses(1, "account-unverified", &[id]);
    assert!(
        line.contains("there is no FusionPBX on this host") && line.contains("verify = \"none\""),
        "{line}"
    );
    pbx.refuses(0, "account-unverified", &["--jail=sip", id]);

    pbx.configure(&fusionpbx(&server));
    server.psql_in("fusionpbx", "ALTER TABLE v_extensions RENAME TO gone");
    let line = pbx.refuses(1, "account-unverified", &["998@a.example.com"]);
    assert!(line.contains("it has no v_domains or no v_extensions"), "{line}");
    drop(server);
    let line = pbx.refuses(1, "account-unverified", &["997@a.example.com"]);
    assert!(line.contains("cannot connect to postgres fusionpbx as ringfence"), "{line}");
    pbx.holds(&[]);

    pbx.configure("[block]\nverify = \"none\"\n");
    pbx.does(&["ban", id]);
    assert_eq!(pbx.list()[0]["why"], "not checked (verify is none)");
    pbx.holds(&[id]);
}

fn only_an_address_that_fail2ban_leaves_alone_causes_blocks(matcher: &'static str) {
    let site = unverified(matcher, "");
    let list = "[lists.office]\nkind = \"allow\"\nentries = [\"198.51.100.0/24\"]\nexempts = [\"fail2ban\"]\n\
                [lists.other]\nkind = \"allow\"\nentries = [\"192.0.2.0/24\"]\nexempts = [\"blocklists\"]\n";
    site.configure(&format!("[block]\nverify = \"none\"\n{list}"));
    let refresh = call(&mut site.host.call(&site.world.lists_command(&["refresh"])));
    assert_eq!((refresh.code, refresh.stderr.as_str()), (0, ""));
    site.world.register(PROFILE, OFFICE, 3600);
    let seen = |address: &str| format!("--seen-from={address}");

    site.does(&["ban", "--jail=sip", &seen(OFFICE), "--", "1@d"]);
    site.does(&["ban", "--jail=sip", &seen("198.51.100.7"), "--", "2@d"]);
    let of = |id: &str| {
        let entry = site.list().into_iter().find(|entry| entry["account"] == id).unwrap();
        (entry["seen-from"].clone(), entry["evidence"].as_str().unwrap().to_owned())
    };
    assert_eq!(of("1@d"), (json!(OFFICE), format!("{OFFICE} has a live registration")));
    assert_eq!(of("2@d"), (json!("198.51.100.7"), "198.51.100.7 is on the allow list office".to_owned()));
    for (id, address) in [("3@d", ELSEWHERE), ("4@d", "192.0.2.7"), ("5@d", "2001:db8:66::bad")] {
        let line = site.refuses(0, "source-not-exempt", &["--jail=sip", &seen(address), "--", id]);
        assert!(line.contains(&format!("{address} is not exempt from fail2ban")), "{line}");
    }
    site.refuses(1, "source-not-exempt", &[&seen(ELSEWHERE), "6@d"]);
    // fail2ban's banip knows of no address.
    site.does(&["ban", "--jail=sip", "--seen-from=", "--", "7@d"]);
    assert_eq!(of("7@d"), (json!(null), String::new()));
    for nonsense in ["x", "203.0.113.20/32", " ", "203.0.113.20\x1b[2J", "$(reboot)", "-1", "203.0.113.020"] {
        site.refuses(1, "no-address", &["--seen-from", nonsense, "8@d"]);
    }
    site.holds(&["1@d", "2@d", "7@d"]);

    site.configure("[block]\nverify = \"none\"\nonly-exempt = false\n");
    site.does(&["ban", &seen(ELSEWHERE), "9@d"]);
    destroy_registrations(&site);
    site.does(&["ban", &seen("203.0.113.67"), "10@d"]);
    site.holds(&["1@d", "10@d", "2@d", "7@d", "9@d"]);
}

fn while_registrations_cannot_be_read_the_seen_ones_count(matcher: &'static str) {
    let site = unverified(matcher, "");
    site.world.register(PROFILE, OFFICE, 3600);
    assert!(site.world.keeps(OFFICE));
    destroy_registrations(&site);
    site.does(&["ban", "--seen-from", OFFICE, "1@d"]);
    assert_eq!(site.list()[0]["evidence"], format!("{OFFICE} was seen registered lately"));
    let line = site.refuses(1, "exemption-unknown", &["--seen-from", ELSEWHERE, "2@d"]);
    assert!(line.contains(&format!("nobody knows whether {ELSEWHERE} is exempt from fail2ban: ")), "{line}");
    assert!(line.contains("sofia_reg_internal.db"), "{line}");
    site.configure("stale-ok = \"0s\"\n[block]\nverify = \"none\"\n");
    site.world.reboot();
    // Within the second it was seen now.
    std::thread::sleep(Duration::from_millis(1_100));
    site.refuses(1, "exemption-unknown", &["--seen-from", OFFICE, "3@d"]);
    std::fs::write(site.world.path("state/allow.table"), "garbage").unwrap();
    let line = site.refuses(1, "exemption-unknown", &["--seen-from", OFFICE, "4@d"]);
    assert!(line.contains("the allow lists cannot be read"), "{line}");
    site.holds(&["1@d"]);
}

fn a_device_is_blocked_at_an_address_only_if_it_is_not_registered_from_there(matcher: &'static str) {
    let (pbx, server) = pbx(matcher, "");
    // Nobody asks FusionPBX about a device: its account may well exist.
    drop(server);
    pbx.world.register(PROFILE, OFFICE, 3600);
    let at = |user: &str, address: &str| format!("{user}@a.example.com,{address}");
    let line = pbx.refuses(1, "registered", &[&at("101", OFFICE)]);
    assert!(line.ends_with(&format!("the account is registered from {OFFICE}")), "{line}");
    pbx.refuses(0, "registered", &["--jail=sip", &at("101", OFFICE)]);
    let others = [at("101", ELSEWHERE), at("102", OFFICE), at("101", "2001:db8:66::11")];
    for other in &others {
        pbx.does(&["ban", other]);
    }
    assert!(pbx.list().iter().all(|entry| entry["why"] == "it fails there, and is not registered"));
    assert_eq!(pbx.world.last_reason(), "failing-device");
    destroy_registrations(&pbx);
    let line = pbx.refuses(1, "registrations-unreadable", &[&at("103", OFFICE)]);
    assert!(line.contains(&format!("nobody knows whether it is registered from {OFFICE}: ")), "{line}");
    pbx.holds(&others.each_ref().map(String::as_str));
}

fn who_need_not_be_blocked_any_more_is_let_go(matcher: &'static str) {
    let (pbx, server) = pbx(matcher, "");
    let (here, there) = ("101@a.example.com,203.0.113.20", "101@a.example.com,203.0.113.66");
    for id in ["201@a.example.com", "202@a.example.com", here, there] {
        pbx.does(&["ban", id]);
    }
    pbx.does(&["ban", "--jail=sip", "201@a.example.com"]);
    pbx.does(&["ban", "--jail=sip", "202@a.example.com"]);
    pbx.does(&["expire"]);
    pbx.holds(&["201@a.example.com", "202@a.example.com", here, there]);

    server.psql_in(
        "fusionpbx",
        "INSERT INTO v_extensions (extension_uuid, domain_uuid, extension, enabled) VALUES \
         (gen_random_uuid(), '11111111-1111-1111-1111-111111111111', '201', 'true')",
    );
    pbx.world.register(PROFILE, OFFICE, 3600);
    pbx.does(&["expire"]);
    pbx.holds(&["202@a.example.com", there]);
    let ends: Vec<_> = pbx
        .world
        .journal()
        .into_iter()
        .filter(|line| line["decision"] == "unblock")
        .map(|line| json!([line["subject"], line["reason"], line["source"]]))
        .collect();
    let ended = |id: &str, reason: &str| json!([id, reason, "by hand"]);
    assert_eq!(ends, [ended("201@a.example.com", "account-exists"), ended(here, "registered")]);
}

fn blocks_end_by_their_time_while_nobody_can_be_asked(matcher: &'static str) {
    let (pbx, server) = pbx(matcher, "");
    let device = "101@a.example.com,203.0.113.66";
    for id in ["201@a.example.com", "202@a.example.com", device] {
        pbx.does(&["ban", id]);
    }
    drop(server);
    let line = pbx.says(1, &["expire"]);
    assert!(
        line.starts_with("cannot ask whether blocked accounts exist by now: cannot connect to"),
        "{line}"
    );
    assert!(line.ends_with("; blocks end by their time meanwhile"), "{line}");
    pbx.holds(&["201@a.example.com", "202@a.example.com", device]);
    // Devices are let go all the same.
    pbx.world.register(PROFILE, ELSEWHERE, 3600);
    pbx.says(1, &["expire"]);
    pbx.holds(&["201@a.example.com", "202@a.example.com"]);
    pbx.ledger_sql("UPDATE blocks SET since = since - 3600, until = until - 3600 WHERE account = '201'");
    pbx.says(1, &["expire"]);
    pbx.holds(&["202@a.example.com"]);
    let last = pbx.world.journal().pop().unwrap();
    assert_eq!(json!([last["subject"], last["reason"]]), json!(["201@a.example.com", "time-over"]));

    destroy_registrations(&pbx);
    pbx.ledger_sql("UPDATE blocks SET source = '203.0.113.66'");
    let line = pbx.says(1, &["expire"]);
    assert!(line.starts_with("cannot ask who of the blocked is registered by now: "), "{line}");
    pbx.holds(&["202@a.example.com,203.0.113.66"]);
}

fn what_fusionpbx_said_counts_for_a_minute(matcher: &'static str) {
    let (pbx, server) = pbx(matcher, "");
    pbx.does(&["ban", "999@a.example.com"]);
    pbx.refuses(1, "account-exists", &["101@a.example.com"]);
    pbx.does(&["unban", "999@a.example.com"]);
    drop(server);
    pbx.does(&["ban", "999@A.EXAMPLE.com"]);
    pbx.refuses(1, "account-unverified", &["998@a.example.com"]);
    assert!(pbx.says(1, &["ban", "101@a.example.com"]).contains("the account exists in FusionPBX"));
    pbx.does(&["unban", "999@a.example.com"]);
    pbx.ledger_sql("UPDATE verdicts SET at = at - 62");
    pbx.refuses(1, "account-unverified", &["999@a.example.com"]);
    // Nor does one of the future.
    pbx.ledger_sql(
        "INSERT INTO verdicts VALUES ('a.example.com', '997', 'no-extension', unixepoch() + 3600)",
    );
    pbx.refuses(1, "account-unverified", &["997@a.example.com"]);
    pbx.holds(&[]);
}

fn a_flood_of_known_good_addresses_suspends_blocks(matcher: &'static str) {
    let site = unverified(matcher, "");
    // A syslog of our own.
    let socket = site.world.path("syslog");
    let syslog = UnixDatagram::bind(&socket).unwrap();
    syslog.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    site.host.shell(&format!(
        "mount -t tmpfs tmpfs /dev; mknod /dev/null c 1 3; ln -s {} /dev/log",
        socket.display()
    ));
    // Phones, however they are known: not all whom ringfence-allow allows are one list.
    for n in 0..10 {
        let phone = format!("203.0.113.{n}");
        if n < 4 {
            site.world.register(PROFILE, &phone, 3600);
        } else {
            let allow = call(&mut site.host.call(&site.world.allow_command(&["add", &phone])));
            assert_eq!((allow.code, allow.stderr.as_str()), (0, ""));
        }
    }
    let ban = |n: u32, jail: &[&str]| {
        let (seen, id) = (format!("--seen-from=203.0.113.{n}"), format!("{n}@d"));
        site.block(&[&["ban"], jail, &[&seen, "--", &id]].concat())
    };
    let done = |n: u32, jail: &[&str]| {
        let call = ban(n, jail);
        assert_eq!((call.code, call.stderr.as_str()), (0, ""));
    };
    done(0, &["--jail=sip"]);
    site.ledger_sql(
        "UPDATE blocks SET changed = changed - 61, since = since - 61; UPDATE alarms SET at = at - 61",
    );
    site.does(&["ban", "hand@d"]);
    for n in 1..=5 {
        done(n, &["--jail=sip"]);
    }
    // Several accounts of one address are one.
    site.does(&["ban", "--jail=sip", "--seen-from=203.0.113.5", "again@d"]);
    site.holds(&["0@d", "1@d", "2@d", "3@d", "4@d", "5@d", "again@d", "hand@d"]);

    let line = site.refuses(0, "alarm", &["--jail=sip", "--seen-from=203.0.113.6", "6@d"]);
    assert!(line.contains("accounts of 6 known-good networks were to be blocked within a minute"), "{line}");
    assert!(line.contains("suspended for 10 minutes, and the 6 of that minute are lifted"), "{line}");
    site.holds(&["0@d", "hand@d"]);
    let lifted: Vec<_> =
        site.world.journal().into_iter().filter(|line| line["reason"] == "suspended").collect();
    assert_eq!(lifted.len(), 6);
    assert!(lifted.iter().all(|line| line["decision"] == "unblock" && line["source"] == "sip"), "{lifted:?}");
    // 4 is a warning.
    let severity = |reason: &str| {
        let mut line = vec![0; 2000];
        loop {
            let length = syslog.recv(&mut line).unwrap();
            let text = String::from_utf8_lossy(&line[..length]).into_owned();
            if text.contains(reason) {
                let priority = text.strip_prefix('<').unwrap().split_once('>').unwrap().0;
                break priority.parse::<u32>().unwrap() % 8;
            }
        }
    };
    assert_eq!(severity("refuse 6@d, alarm: accounts of 6 known-good"), 4);

    let line = site.refuses(0, "suspended", &["--jail=sip", "--seen-from=203.0.113.1", "1@d"]);
    assert!(line.contains("blocks are suspended for another"), "{line}");
    site.refuses(0, "suspended", &["--jail=other", "7@d"]);
    done(7, &[]);
    site.does(&["expire"]);
    site.holds(&["0@d", "7@d", "hand@d"]);

    // Ten minutes later.
    site.ledger_sql("UPDATE suspensions SET until = until - 601; UPDATE alarms SET at = at - 601");
    done(8, &["--jail=sip"]);
    site.holds(&["0@d", "7@d", "8@d", "hand@d"]);
}

fn by_hand_there_is_no_alarm(matcher: &'static str) {
    let site = unverified(matcher, "");
    let ids: Vec<String> = (0..8).map(|n| format!("{n}@d")).collect();
    for (n, id) in ids.iter().enumerate() {
        let address = format!("203.0.113.{n}");
        site.world.register(PROFILE, &address, 3600);
        site.does(&["ban", "--seen-from", &address, id]);
    }
    site.holds(&ids.iter().map(String::as_str).collect::<Vec<_>>());
}

fn one_address_does_not_drive_out_everybody_else(matcher: &'static str) {
    let site = unverified(matcher, "max = 20\nonly-exempt = false");
    for n in 0..10 {
        site.does(&["ban", "--jail=sip", "--seen-from", ELSEWHERE, &format!("{n}@d")]);
    }
    let line = site.refuses(1, "flood", &["--seen-from", ELSEWHERE, "10@d"]);
    assert!(
        line.contains(&format!("10 accounts are blocked already that were seen from {ELSEWHERE}")),
        "{line}"
    );
    site.refuses(0, "flood", &["--jail=sip", "--seen-from", ELSEWHERE, "11@d"]);
    site.refuses(0, "flood", &["--jail=sip", "--seen-from", "::ffff:203.0.113.66", "12@d"]);
    // Who is blocked already is blocked on, and others are not concerned.
    site.does(&["ban", "--jail=sip", "--seen-from", ELSEWHERE, "3@d"]);
    site.does(&["ban", "--jail=sip", "--seen-from", OFFICE, "13@d"]);
    site.does(&["ban", "14@d"]);
    site.agree();
    assert_eq!(site.blocked().len(), 12);

    // A quarter of max, where that is more.
    site.configure("[block]\nverify = \"none\"\nonly-exempt = false\nmax = 60\n");
    for n in 20..25 {
        site.does(&["ban", "--jail=sip", "--seen-from", ELSEWHERE, &format!("{n}@d")]);
    }
    site.refuses(0, "flood", &["--jail=sip", "--seen-from", ELSEWHERE, "25@d"]);
}

fn a_device_is_named_in_two_ways_and_let_go_by_either(matcher: &'static str) {
    let site = unverified(matcher, "");
    let (v4, v6) = ("101@a.example.com,203.0.113.66", "101@a.example.com,2001:db8:66::bad");
    site.does(&["ban", "--source", ELSEWHERE, "101@a.example.com"]);
    site.does(&["ban", "--source=2001:DB8:66::BAD", v6]);
    site.does(&["ban", v4]);
    site.holds(&[v4, v6]);
    let line = site.says(2, &["ban", "--source", OFFICE, v4]);
    assert_eq!(line, format!("two addresses are named: {ELSEWHERE} and {OFFICE}"));
    site.says(2, &["unban", "--source", OFFICE, v4]);
    // The account everywhere is another block.
    site.says(1, &["unban", "101@a.example.com"]);
    site.does(&["unban", v4]);
    site.holds(&[v6]);
    site.does(&["unban", "--source", "2001:db8:66:0::bad", "101@A.example.com"]);
    site.holds(&[]);

    let line = site.says(1, &["unban", v4]);
    assert_eq!(line, format!("{v4:?} is not blocked"));
    site.does(&["unban", "--jail=sip", "--", v4]);
    site.says(1, &["unban", "nobody"]);
    site.says(0, &["unban", "--jail=sip", "--", "nobody"]);
    // One jail does not let go of another's, nor of one by hand.
    site.does(&["ban", "--jail=one", "1@d"]);
    site.does(&["ban", "1@d"]);
    site.does(&["unban", "--jail=two", "1@d"]);
    site.does(&["unban", "--jail=one", "1@d"]);
    site.holds(&["1@d"]);
    site.does(&["unban", "1@d"]);
    site.holds(&[]);
}

fn whoever_is_registered_exists_though_nobody_is_asked(matcher: &'static str) {
    let site = unverified(matcher, "");
    site.world.register(PROFILE, "203.0.113.99", 3600);
    let line = site.refuses(1, "registered", &["101@a.example.com"]);
    assert!(line.ends_with("is not blocked: the account is registered"), "{line}");
    site.does(&["ban", "102@a.example.com"]);
    site.holds(&["102@a.example.com"]);
    crate::support::sqlite(
        &site.world.path("db").join(PROFILE),
        "UPDATE sip_registrations SET sip_user = '102', network_ip = '203.0.113.98'",
    );
    site.does(&["expire"]);
    site.holds(&[]);
}

fn the_oldest_makes_way(matcher: &'static str) {
    let site = unverified(matcher, "max = 3\nonly-exempt = false");
    let at = |ago: i64| format!("--at={}", crate::support::now() - ago);
    for (ago, id) in [(100, "1@d"), (300, "2@d"), (200, "3@d,203.0.113.66")] {
        site.does(&["ban", "--jail=sip", &at(ago), id]);
    }
    site.does(&["ban", "--jail=sip", &at(300), "2@d"]);
    site.holds(&["1@d", "2@d", "3@d,203.0.113.66"]);
    for (id, gone) in [("4@d", "2@d"), ("5@d", "3@d,203.0.113.66"), ("6@d", "1@d")] {
        site.does(&["ban", id]);
        assert!(!site.blocked().contains(gone) && site.blocked().contains(id));
        let way: Vec<_> =
            site.world.journal().into_iter().filter(|line| line["reason"] == "made-way").collect();
        let last = way.last().unwrap();
        assert_eq!(
            json!([last["subject"], last["decision"], last["source"], last["detail"]]),
            json!([gone, "unblock", "sip", "max is 3"])
        );
        site.agree();
    }
    // The limit of settings that changed holds from the next block on.
    site.configure("[block]\nverify = \"none\"\nmax = 1\n");
    site.does(&["ban", "7@d"]);
    site.agree();
    assert_eq!(site.blocked().len(), 1);
}
