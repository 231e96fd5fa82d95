//! `ringfence test`: what it foresees for an account that fails is what `ringfence-block` then does; and what a walk leaves behind.

use std::os::unix::process::ExitStatusExt as _;

use serde_json::Value;

use crate::admin_test::{ACCOUNT, OFFICE, WRONG, Walk, jails, json, settings, test, write};
use crate::support::{Pbx, Postgres, call, now, second, sqlite, wait_for};

/// A host with an account in FusionPBX, and lines of `[block]`.
fn site(postgres: &Postgres, block: &str) -> Pbx {
    let pbx = Pbx::bare("nft", "");
    configure(&pbx, postgres, block);
    pbx
}

fn configure(pbx: &Pbx, postgres: &Postgres, block: &str) {
    let dsn = format!(
        "host={} port={} dbname=fusionpbx user=ringfence",
        postgres.socket_dir().display(),
        postgres.port
    );
    let fail2ban = settings(pbx);
    let fail2ban = fail2ban.split_once("[block]").unwrap().0;
    pbx.configure(&format!(
        "{fail2ban}[fusionpbx]\npostgres = {dsn:?}\ncarriers = \"off\"\n[block]\n{block}\n"
    ));
}

fn with_an_account() -> Postgres {
    Postgres::with_fusionpbx(
        "INSERT INTO v_domains (domain_uuid, domain_name, domain_enabled) VALUES ('11111111-1111-1111-1111-111111111111', 'a.example.com', true);
         INSERT INTO v_extensions (extension_uuid, domain_uuid, extension, enabled)
         VALUES (gen_random_uuid(), '11111111-1111-1111-1111-111111111111', '101', 'true')",
    )
}

fn allow(pbx: &Pbx, args: &[&str]) {
    assert_eq!(call(&mut pbx.host.call(&pbx.world.allow_command(args))).code, 0);
}

/// What is foreseen of a block of this account: why not, if so.
#[track_caller]
fn foreseen(pbx: &Pbx, account: &str) -> Value {
    let answer = json(pbx, &[OFFICE, account]);
    answer["if-it-fails"]["account"]["not-blocked"].clone()
}

/// It is foreseen, and then so: by an account's jail, or by a device's.
#[track_caller]
fn comes_true(pbx: &Pbx, account: &str, device: bool, why: &str) {
    let before = pbx.list().len();
    let foreseen = foreseen(pbx, account);
    assert!(foreseen.as_str().is_some_and(|said| said.contains(why)), "{foreseen}, not {why}");
    let id = if device { format!("{account},{OFFICE}") } else { account.to_owned() };
    let done = pbx.block(&["ban", "--jail=sip", &format!("--seen-from={OFFICE}"), "--", &id]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let said = done.stderr.trim_end().rsplit_once(" is not blocked: ").map(|(_, why)| why);
    assert_eq!(said, foreseen.as_str(), "{}", done.stderr);
    assert_eq!(pbx.list().len(), before);
}

#[test]
fn what_is_foreseen_of_an_account_comes_true() {
    let postgres = with_an_account();
    let pbx = site(&postgres, "");
    let unknown = "999@a.example.com";
    let not_exempt =
        "203.0.113.20 is not exempt from fail2ban, which can ban the address (only-exempt is set)";
    comes_true(&pbx, unknown, false, not_exempt);
    comes_true(&pbx, ACCOUNT, true, not_exempt);
    allow(&pbx, &["add", OFFICE]);
    assert_eq!(foreseen(&pbx, unknown), Value::Null);
    assert_eq!(foreseen(&pbx, ACCOUNT), Value::Null);

    // It is registered.
    pbx.world.database("sofia_reg_internal.db");
    let expires = now() + 3_600;
    let row = format!(
        "INSERT INTO sip_registrations (sip_user, sip_host, sip_username, sip_realm, expires, network_ip) \
         VALUES ('101', 'a.example.com', '101', 'a.example.com', {expires}, '{OFFICE}')"
    );
    sqlite(&pbx.world.path("db/sofia_reg_internal.db"), &row);
    pbx.world.reboot();
    comes_true(&pbx, ACCOUNT, true, "the account is registered from 203.0.113.20");

    // One address is behind too many already.
    configure(&pbx, &postgres, "max = 20");
    for number in 0..10 {
        let id = format!("9{number:02}@a.example.com");
        let done = pbx.block(&["ban", "--jail=sip", &format!("--seen-from={OFFICE}"), "--", &id]);
        assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{id}");
    }
    let flood = "10 accounts are blocked already that were seen from 203.0.113.20; no more than 10 may be";
    comes_true(&pbx, unknown, false, flood);

    // Others are behind as many as there may be: the oldest makes way.
    configure(&pbx, &postgres, "max = 10");
    let ledger = pbx.world.path("state/ledger.db");
    sqlite(&ledger, "UPDATE blocks SET seen_from = '198.51.100.7'");
    assert_eq!(foreseen(&pbx, unknown), Value::Null);
    let shown = test(&pbx, &[OFFICE, unknown]).stdout;
    let says = "; ringfence-block would block it, and the oldest of 10 blocks makes way for it.\n";
    assert!(shown.contains(says), "{shown}");
    let known = json(&pbx, &[OFFICE, "900@a.example.com"]);
    assert_eq!(known["if-it-fails"]["account"]["makes-way"], Value::Null, "it is blocked already");
    let oldest = pbx.list()[0]["account"].clone();
    let done = pbx.block(&["ban", "--jail=sip", &format!("--seen-from={OFFICE}"), "--", unknown]);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    let list = pbx.list();
    assert!(list.len() == 10 && list.iter().all(|entry| entry["account"] != oldest), "{list:#?}");
    assert_eq!(pbx.block(&["unban", "--", unknown]).code, 0);

    // With one more known-good network there would be an alarm; and behind it, blocks are suspended.
    let at = now();
    let others = (0..5).map(|number| format!("('list x{number}', {at})")).collect::<Vec<_>>().join(", ");
    sqlite(&ledger, &format!("DELETE FROM alarms; INSERT INTO alarms (source, at) VALUES {others}"));
    let alarm = "accounts of 5 other known-good networks were to be blocked within a minute; with one more, blocks are \
                 suspended for 10 minutes";
    assert_eq!(foreseen(&pbx, unknown), alarm);
    assert_eq!(sqlite(&ledger, "SELECT count(*) FROM alarms").trim(), "5", "nothing was written down");
    let done = pbx.block(&["ban", "--jail=sip", &format!("--seen-from={OFFICE}"), "--", unknown]);
    assert!(done.stderr.contains("accounts of 6 known-good networks were to be blocked"), "{}", done.stderr);
    let suspended = foreseen(&pbx, unknown);
    let suspended = suspended.as_str().unwrap();
    assert!(
        suspended.starts_with("blocks are suspended for another ")
            && suspended.ends_with(" s, after an alarm"),
        "{suspended}"
    );

    // What cannot be read is said.
    std::fs::write(&ledger, "no database").unwrap();
    let shown = test(&pbx, &[OFFICE, unknown]);
    assert!(shown.stderr.contains("cannot read the ledger "), "{}", shown.stderr);
    assert_eq!(std::fs::read(&ledger).unwrap(), b"no database");
}

#[test]
fn a_jail_leaves_the_hosts_own_address_alone() {
    let pbx = Pbx::bare("nft", "");
    pbx.configure(&settings(&pbx));
    pbx.host.shell("cp /etc/hosts /run/hosts; echo \"203.0.113.20 $(uname -n)\" >>/run/hosts; mount --bind /run/hosts /etc/hosts");
    let _fail2ban = jails(&pbx, "ignoreself = true");
    let shown = test(&pbx, &[OFFICE]).stdout;
    let row = "ringfence-events          the address                  not banned: ignoreself has it: it is this host's own address\n";
    assert!(shown.contains(row), "{shown}");
    // Not by name, but on an interface.
    let shown = test(&pbx, &["192.0.2.1"]).stdout;
    assert!(
        shown.contains(
            ", unless ignoreself has it: it is this host's own address, which fail2ban before 1.1 "
        ),
        "{shown}"
    );
    let shown = test(&pbx, &["203.0.113.21"]).stdout;
    assert!(shown.contains("  banned for 1h after 10 failures within 10m\n"), "{shown}");
}

#[test]
fn a_walk_that_is_killed_takes_nothing_from_anybody() {
    let pbx = Pbx::bare("nft", "");
    pbx.configure(&settings(&pbx));
    let _fail2ban = jails(&pbx, "");
    let list = || -> Vec<Value> {
        let listed = call(&mut pbx.host.call(&pbx.world.allow_command(&["list", "--json"])));
        serde_json::from_str(&listed.stdout).unwrap()
    };
    for (span, shorter) in [("8m", true), ("20d", false)] {
        allow(&pbx, &["add", "--for", span, "--because", "the boss", OFFICE]);
        let before = list();
        assert_eq!(before.len(), 1, "{before:#?}");
        let walk = Walk::start(&pbx, &[OFFICE, "--for", "10m"]);
        wait_for("the walk's own", || list().len() == 2);
        // Its shell became the tool.
        pbx.host.shell(&format!("kill -9 $(cat {})", walk.pid.display()));
        assert_eq!(walk.status().signal(), Some(9));
        let after = list();
        assert_eq!(after[0], before[0], "it is as it was");
        assert_eq!(after[1]["because"], "ringfence test --walk");
        let left = second(&after[1]["until"]) - now();
        assert!((500..=660).contains(&left), "it ends by itself: {left}");
        let shown = call(&mut pbx.host.call(&pbx.world.allow_command(&["list"]))).stdout;
        assert!(
            shown.contains("by hand  the boss\n") && shown.contains("a walk   ringfence test --walk\n"),
            "{shown}"
        );
        // Another walk goes its own way, and takes its own back.
        let walk = Walk::start(&pbx, &[OFFICE, "--for", "2m"]);
        wait_for("another", || list().len() == 3);
        write(&pbx, WRONG);
        let (code, told, complaints) = walk.end();
        assert_eq!((code, complaints.as_str()), (0, ""), "{told}");
        assert!(told.contains(" is allowed already, and stays so.\n"), "{shorter}: {told}");
        assert_eq!(list(), after);
        allow(&pbx, &["remove", OFFICE]);
        assert_eq!(list(), [Value::Null; 0]);
    }
}
