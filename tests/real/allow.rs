//! `ringfence-allow`: files, the kernel's sets, boots, calls that die, disks that are full, and hostile arguments.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use ringfence::allow::timed::Entry;

use crate::support::{Allower, Call, World, call, copy_program, now, second, sqlite, wait_for};

const DAY: i64 = 86_400;

/// Two phones.
const PHONE: &str = "203.0.113.20";
const PHONE6: &str = "2001:db8:20::1";

#[test]
fn an_address_is_allowed_for_its_time_and_not_longer() {
    let site = Allower::new();
    assert_eq!(site.allow(&["list"]).stdout, "Nobody is allowed by ringfence-allow.\n");
    assert_eq!(site.list(), Vec::<serde_json::Value>::new());
    assert!(!site.world.keeps(PHONE));
    site.does(&["add", "--because", "the fair", PHONE]);
    site.does(&["add", "--for", "2h 30m", "2001:0DB8:20:0::1"]);
    site.does(&["add", "::ffff:203.0.113.21", "--for=900"]);
    assert_eq!(site.listed(), [PHONE, "203.0.113.21", PHONE6].map(|address| format!("{address} by hand")));
    site.has_seen(&[(PHONE, DAY), ("203.0.113.21", 900), (PHONE6, 9_000)]);
    assert!(site.world.keeps(PHONE) && site.world.keeps(PHONE6) && site.world.keeps("::ffff:cb00:7115"));
    assert!(!site.world.keeps("203.0.113.22"));
    assert!(site.world.explain(PHONE).contains("because    it is on the allow list ringfence-allow\n"));
    let list = site.allow(&["list"]).stdout;
    let columns = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect::<Vec<_>>();
    assert_eq!(columns[0], ["ADDRESS", "REMAINING", "SINCE", "BY", "WHY"]);
    assert_eq!(columns[1][0], PHONE);
    assert!(columns[1].ends_with(&["ago", "by", "hand", "the", "fair"]), "{list}");
    let entry = &site.list()[0];
    assert_eq!((&entry["because"], &entry["jail"]), (&"the fair".into(), &serde_json::Value::Null));
    assert_eq!(second(&entry["until"]) - second(&entry["since"]), DAY);

    // Again: never sooner, unless by hand and said.
    site.does(&["add", "--jail=success", "--for=5h", PHONE]);
    site.does(&["add", "--jail=success", "--for=1h", PHONE]);
    site.has_seen(&[(PHONE, DAY), ("203.0.113.21", 900), (PHONE6, 9_000)]);
    site.does(&["add", "--for=2h", PHONE]);
    site.has_seen(&[(PHONE, 5 * 3600), ("203.0.113.21", 900), (PHONE6, 9_000)]);
    site.does(&["add", PHONE]);
    site.has_seen(&[(PHONE, DAY), ("203.0.113.21", 900), (PHONE6, 9_000)]);
    // A jail lets go of its own only.
    site.does(&["remove", "--jail=success", PHONE]);
    site.does(&["remove", "--jail=success", PHONE]);
    site.does(&["remove", "--jail=success", PHONE6]);
    site.has_seen(&[(PHONE, DAY), ("203.0.113.21", 900), (PHONE6, 9_000)]);
    assert!(site.world.keeps(PHONE));
    site.does(&["remove", PHONE]);
    assert!(!site.world.keeps(PHONE) && site.world.keeps(PHONE6));
    assert_eq!(site.says(1, &["remove", PHONE]), format!("{PHONE} is not allowed by ringfence-allow"));
    // By hand, it is let go whoever allowed it.
    site.does(&["add", "--jail=success", PHONE]);
    let line = site.says(0, &["remove", PHONE]);
    assert!(line.ends_with(&format!("fail2ban-client set success unbanip {PHONE}")), "{line}");
    site.has_seen(&[("203.0.113.21", 900), (PHONE6, 9_000)]);

    // Time passes: nobody need do anything.
    site.does(&["add", "--for=2s", PHONE]);
    assert!(site.seen().contains_key(PHONE) || !site.world.keeps(PHONE));
    wait_for("the end", || !site.world.keeps(PHONE) && !site.seen().contains_key(PHONE));
    assert_eq!(site.listed().len(), 2);
    site.does(&["sync"]);
    assert!(site.decided("remove", PHONE, "time-over"));

    for (address, jail) in [(PHONE, "success"), ("203.0.113.22", "success"), ("203.0.113.23", "other")] {
        site.does(&["add", &format!("--jail={jail}"), address]);
    }
    site.does(&["flush", "--jail=success"]);
    assert_eq!(site.listed().len(), 3);
    site.has_seen(&[("203.0.113.21", 900), ("203.0.113.23", DAY), (PHONE6, 9_000)]);
    site.does(&["flush"]);
    site.has_seen(&[]);
    assert!(site.listed().is_empty() && !site.world.keeps(PHONE6));
    for (decision, subject, reason) in [
        ("allow", PHONE, "by-hand"),
        ("allow", PHONE, "jail"),
        ("remove", PHONE, "unbanned"),
        ("remove", PHONE, "by-hand"),
        ("remove", PHONE6, "flushed"),
    ] {
        assert!(site.decided(decision, subject, reason), "{decision} {subject} {reason}");
    }
}

/// Of an address with a jail, fail2ban need not hear that it is none: it would try again.
#[test]
fn hostile_arguments_harm_nobody() {
    let site = Allower::new();
    let canary = site.world.path("canary");
    let touch = format!("$(touch {0})`touch {0}`;touch {0}", canary.display());
    let no_address: [&[u8]; 12] = [
        b"",
        b" ",
        touch.as_bytes(),
        b"203.0.113.0/24",
        b"203.0.113.20:5060",
        b"fe80::1%eth0",
        b"0.0.0.0",
        b"::",
        b"-rf",
        b"--flush",
        b"203.0.113.20\n\x1b[2J",
        b"203.0.113.20\xff",
    ];
    for text in no_address.into_iter().chain([&*b"x".repeat(100_000)]) {
        let with = |args: &[&str]| call(site.command(args).arg("--").arg(OsStr::from_bytes(text)));
        let line = site.told(2, &with(&["add"]));
        assert!(
            line.ends_with(
                "is not allowed: it is not one IPv4 or IPv6 address of a host; networks belong into [lists]"
            ),
            "{line}"
        );
        site.told(0, &with(&["add", "--jail=success"]));
        assert_eq!(site.world.last_reason(), "not-an-address");
        if !text.ends_with(b"::") && text != b"0.0.0.0" {
            site.told(2, &with(&["remove"]));
            site.told(0, &with(&["remove", "--jail=success"]));
        }
    }
    for args in [
        &["add", "--for=0", PHONE][..],
        &["add", "--for=soon", PHONE],
        &["add", "--jail=", PHONE],
        &["add", "--jail=a\nb", PHONE],
        &["add", "-rf", PHONE],
        &["add", PHONE, PHONE6],
        &["add"],
        &["stop"],
        &["frobnicate"],
        &[],
    ] {
        let call = site.allow(args);
        assert_eq!((call.code, call.stdout.as_str()), (2, ""), "{args:?}: {}", call.stderr);
    }
    let line = site.says(2, &["add", "--for=25d", PHONE]);
    assert!(line.contains("--for is longer than 24d"), "{line}");
    assert_eq!(site.listed(), [""; 0]);

    // A reason may be anything. For ever is as long as can be.
    let reason = format!("  {touch} \x1b[2J\r\n\u{202e}'\"{}", "é".repeat(10_000));
    site.does(&["add", "--jail=x'\"$(id)", "--for=-1", &format!("--because={reason}"), "--", PHONE]);
    let latin1 = OsStr::from_bytes(b"--because=\xff\x9b2J");
    let done = call(site.command(&["add", "--jail=y", "--for=30d"]).arg(latin1).arg(PHONE6));
    assert_eq!((done.code, &*done.stderr), (0, ""));
    site.has_seen(&[(PHONE, 24 * DAY), (PHONE6, 24 * DAY)]);
    let list = site.allow(&["list"]).stdout;
    assert!(list.lines().count() == 3 && !list.replace('\n', "").contains(char::is_control), "{list:?}");
    let kept = site.list();
    assert_eq!(kept[0]["jail"], "x'\"$(id)");
    assert!(kept[0]["because"].as_str().unwrap().len() < 220, "{kept:?}");
    assert!(!canary.exists());
    let journal = std::fs::read_to_string(site.world.path("log/decisions.jsonl")).unwrap();
    assert!(journal.lines().all(|line| line.len() < 1500), "{journal}");
    assert!(!journal.replace('\n', "").contains(char::is_control));
}

#[test]
fn sync_brings_in_all_whom_the_kernel_should_know() {
    let site = Allower::new();
    site.does(&["sync"]);
    site.has_seen(&[]);
    site.world.register("sofia_reg_internal.db", PHONE, 60);
    site.world.register("sofia_reg_internal-ipv6.db", PHONE6, 60);
    site.world.register("core.db", "203.0.113.21", -5);
    site.does(&["add", "--for=1h", "203.0.113.22"]);
    site.does(&["add", "--for=2d", PHONE]);
    let wanted = [(PHONE, 2 * DAY), (PHONE6, DAY), ("203.0.113.22", 3_600)];
    site.does(&["sync"]);
    site.has_seen(&wanted);
    // In place: nothing is ever missing, and times begin anew.
    for (set, address) in [("rf-seen-ip6", PHONE6), ("rf-seen-ip4", PHONE)] {
        site.host.shell(&format!("ipset -exist add {set} {address} timeout 300"));
    }
    site.does(&["sync"]);
    site.has_seen(&wanted);
    // A phone stays in the kernel, and that is said.
    let line = site.says(0, &["remove", PHONE]);
    assert!(
        line.starts_with(&format!("{PHONE} stays in the kernel's set until a day after it was")),
        "{line}"
    );
    let stays = |after: i64| [(PHONE, after), (PHONE6, DAY), ("203.0.113.22", 3_600)];
    site.has_seen(&stays(DAY));
    // So it does after it has gone, for the rest of the day.
    for database in ["sofia_reg_internal.db", "sofia_reg_internal-ipv6.db"] {
        sqlite(&site.world.path("db").join(database), "DELETE FROM sip_registrations");
    }
    site.does(&["sync"]);
    site.has_seen(&stays(DAY));

    // While nobody can be asked, nobody is removed.
    let databases = site.world.path("db");
    std::fs::rename(&databases, site.world.path("away")).unwrap();
    std::fs::create_dir(&databases).unwrap();
    std::fs::write(databases.join("core.db"), "no database at all, but long enough for one".repeat(100))
        .unwrap();
    site.host.shell("ipset flush rf-seen-ip4");
    let line = site.says(1, &["sync"]);
    assert!(line.starts_with("the registrations cannot be read ("), "{line}");
    assert!(line.ends_with("); 2 addresses seen registered within a day stay"), "{line}");
    site.has_seen(&stays(DAY));
    assert!(site.decided("keep", "registrations", "registrations-unreadable"));
    // Nor if it is not even known who was seen.
    std::fs::write(site.world.path("state/seen.table"), "garbage").unwrap();
    let call = site.allow(&["sync"]);
    assert_eq!((call.code, call.stderr.lines().count()), (1, 2), "{}", call.stderr);
    site.has_seen(&stays(DAY));
}

#[test]
fn after_a_boot_all_are_back_with_the_time_that_is_left() {
    let mut site = Allower::new();
    site.world.register("core.db", PHONE, 3_600);
    site.does(&["add", "--for=1h", PHONE6]);
    site.does(&["add", "--jail=success", "--for=3d", "203.0.113.22"]);
    site.does(&["add", "--for=3s", "203.0.113.23"]);
    site.does(&["sync"]);
    let over = now() + 4;
    wait_for("the end of one", || now() >= over);
    site.boot();
    // FreeSWITCH has not come up yet, and knows nobody.
    sqlite(&site.world.path("db/core.db"), "DELETE FROM registrations");
    assert!(site.world.keeps(PHONE6) && !site.world.keeps("203.0.113.23"));
    site.does(&["sync"]);
    site.has_seen(&[(PHONE, DAY), (PHONE6, 3_600), ("203.0.113.22", 3 * DAY)]);
    assert!(site.decided("restore", "sets", "sets-were-gone"));
    // The sets that rules name are all there.
    for (set, member) in [("rf-allow4", "rf-seen-ip4"), ("rf-known6", "rf-seen-ip6")] {
        site.host.shell(&format!("ipset test {set} {member} 2>&1"));
    }
    // Nor is the table needed, which can be derived.
    std::fs::remove_file(site.world.path("state/allowed.table")).unwrap();
    assert!(!site.world.keeps(PHONE6));
    site.does(&["sync"]);
    assert!(site.world.keeps(PHONE6) && site.world.keeps("203.0.113.22"));
}

#[test]
fn ten_thousand_phones_are_brought_in_at_once() {
    let site = Allower::new();
    let expires = now() + 3_600;
    sqlite(
        &site.world.path("db/sofia_reg_internal.db"),
        &format!(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 9999)
             INSERT INTO sip_registrations (sip_user, sip_host, expires, network_ip)
             SELECT i, 'a.example.com', {expires}, '198.18.' || (i / 250) || '.' || (i % 250) FROM n"
        ),
    );
    for round in 0..2 {
        let call = site.allow(&["sync"]);
        assert_eq!((call.code, &*call.stderr), (0, ""));
        assert_eq!(site.seen().len(), 10_000);
        println!("round {round}: {:?}", call.took);
        assert!(call.took < Duration::from_secs(10), "{:?}", call.took);
    }
    let call = site.allow(&["add", PHONE]);
    println!("add: {:?}", call.took);
    assert_eq!(site.seen().len(), 10_001);
}

#[test]
fn of_a_hundred_thousand_who_ends_first_makes_way() {
    let site = Allower::new();
    site.does(&["add", PHONE6]);
    let since = now();
    let entries: Vec<Entry> = (0..100_000_u32)
        .map(|n| {
            let address = IpAddr::from((n + (10 << 24) + 1).to_be_bytes());
            Entry::new(address, Some("success"), since, since + 4 * 3_600 + i64::from(n), "registered")
        })
        .collect();
    // The file is a magic number, the sum of what follows, and the entries.
    let file = site.world.path("state/allowed");
    let magic = std::fs::read(&file).unwrap()[..8].to_owned();
    let entries = postcard::to_allocvec(&entries).unwrap();
    let sum = crc32fast::hash(&entries).to_be_bytes();
    std::fs::write(&file, [&magic[..], &sum, &entries].concat()).unwrap();
    site.does(&["remove", "--jail=none", PHONE6]);
    let sync = site.allow(&["sync"]);
    assert_eq!((sync.code, &*sync.stderr), (0, ""));
    assert_eq!(site.seen().len(), 100_000);
    let (first, last) = ("10.0.0.1", "10.1.134.160");
    assert!(site.world.keeps(first) && site.world.keeps(last));
    let add = site.allow(&["add", PHONE]);
    assert_eq!((add.code, &*add.stderr), (0, ""));
    println!("with a hundred thousand: sync {:?}, add {:?}", sync.took, add.took);
    assert!(site.world.keeps(PHONE) && site.world.keeps(last) && !site.world.keeps(first));
    assert!(site.seen().contains_key(PHONE) && !site.seen().contains_key(first));
    assert_eq!(site.seen().len(), 100_000);
    assert!(site.decided("remove", first, "made-way"));
    let line = site.says(1, &["add", "--for=1h", PHONE6]);
    assert!(
        line.ends_with("is not allowed: 100000 addresses are already, and all of them for longer"),
        "{line}"
    );
    assert!(!site.world.keeps(PHONE6) && !site.seen().contains_key(PHONE6));
    site.does(&["flush", "--jail=success"]);
    assert_eq!(site.listed(), [format!("{PHONE} by hand")]);
    site.has_seen(&[(PHONE, DAY)]);
}

#[test]
fn observing_allows_nobody() {
    let site = Allower::new();
    site.configure("mode = \"observe\"");
    site.world.register("core.db", PHONE, 3_600);
    site.does(&["add", PHONE6]);
    site.does(&["sync"]);
    assert!(site.listed().is_empty());
    // Rules that only observe must know who has a phone.
    assert_eq!(site.seen().into_keys().collect::<Vec<_>>(), [PHONE]);
    assert!(!site.world.path("state/allowed").exists() && !site.world.path("state/allowed.table").exists());
    let journal = site.world.journal();
    let ours: Vec<_> = journal.iter().filter(|line| line["tool"] == "ringfence-allow").collect();
    assert!(!ours.is_empty() && ours.iter().all(|line| line["mode"] == "observe"), "{ours:?}");
    assert!(site.decided("allow", PHONE6, "by-hand"));
    // Who was allowed before can be let go.
    site.configure("");
    site.does(&["add", PHONE6]);
    site.configure("mode = \"observe\"");
    site.does(&["remove", PHONE6]);
    assert!(!site.seen().contains_key(PHONE6));
    assert!(site.listed().is_empty());
}

#[test]
fn it_needs_root_and_says_so() {
    const NOBODY: u32 = 65_534;
    let world = World::empty();
    // Wherever the tool was built, its directory may be closed to others.
    std::fs::set_permissions(world.dir(), PermissionsExt::from_mode(0o755)).unwrap();
    let tool = world.path("ringfence-allow");
    copy_program(world.allow_command(&[]).get_program(), &tool);
    for args in [&["add", PHONE][..], &["remove", PHONE], &["list"], &["flush"], &["sync"]] {
        let mut command = std::process::Command::new(&tool);
        command.args(args).env("RINGFENCE_CONFIG", world.config()).current_dir("/").uid(NOBODY).gid(NOBODY);
        let Call { code, stderr, .. } = call(&mut command);
        assert_eq!((code, stderr.as_str()), (2, "ringfence-allow: this needs root\n"), "{args:?}");
    }
}

#[test]
fn where_the_kernel_takes_nothing_fail2ban_is_told_all_the_same() {
    let site = Allower::new();
    site.host.shell("ipset create rf-seen-ip6 hash:net family inet6");
    let line = site.says(2, &["add", PHONE]);
    assert!(
        line.starts_with("the set rf-seen-ip6 is there as hash:net family inet6, and not as hash:ip")
            && line.contains(&format!("{PHONE} is in the file, so that ringfence-ignore keeps it")),
        "{line}"
    );
    assert!(site.world.keeps(PHONE));
    assert_eq!(site.listed(), [format!("{PHONE} by hand")]);
    assert!(site.decided("allow", PHONE, "by-hand") && site.decided("fail", "add", "call-failed"));
    site.says(2, &["sync"]);
    // Without any right to speak to it.
    let mut deprived = site.host.command("setpriv");
    deprived.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin", "--", "env"]);
    deprived.arg(format!("RINGFENCE_CONFIG={}", site.world.config().display()));
    let command = site.world.allow_command(&["add", PHONE6]);
    let line = site.told(2, &call(deprived.arg(command.get_program()).args(command.get_args())));
    assert!(line.contains("not permitted; run as root, or with CAP_NET_ADMIN"), "{line}");
    assert!(site.world.keeps(PHONE6));
    let line = site.says(2, &["remove", PHONE6]);
    assert!(line.contains("for ringfence-ignore it is done"), "{line}");
    assert!(!site.world.keeps(PHONE6));
    site.host.shell("ipset destroy rf-seen-ip6");
    site.does(&["sync"]);
    site.has_seen(&[(PHONE, DAY)]);
}

#[test]
fn a_damaged_file_is_moved_aside_and_a_new_one_begun() {
    let site = Allower::new();
    let file = site.world.path("state/allowed");
    for (at, args) in
        [["sync"].as_slice(), &["add", PHONE6], &["remove", "--jail=x", PHONE6]].iter().enumerate()
    {
        site.does(&["add", PHONE]);
        let mut damaged = std::fs::read(&file).unwrap();
        *damaged.last_mut().unwrap() ^= 1;
        std::fs::write(&file, &damaged).unwrap();
        // To look changes nothing, and who is allowed is so until something is changed.
        let line = site.says(2, &["list"]);
        assert!(line.contains("cannot read DIR/state/allowed: it is not as it was written"), "{line}");
        assert!(site.world.keeps(PHONE));
        let line = site.says(0, args);
        let start = "DIR/state/allowed is lost, and with it who was allowed: it was damaged (it is not as it was written) and is now ";
        let moved = line.strip_prefix(start).unwrap_or_else(|| panic!("{line}"));
        let moved = PathBuf::from(moved.replace("DIR", &site.world.dir().display().to_string()));
        assert_eq!(std::fs::read(&moved).unwrap(), damaged);
        std::fs::remove_file(moved).unwrap();
        assert!(!site.world.keeps(PHONE));
        assert_eq!(site.listed().len(), usize::from(at == 1));
        assert!(site.decided("begin anew", &file.display().to_string(), "allowed-lost"));
        site.does(&["flush"]);
    }
    // A newer version's is left alone, and so is what is no file.
    site.does(&["add", PHONE]);
    let whole = std::fs::read(&file).unwrap();
    let mut newer = whole.clone();
    newer[7] = 2;
    std::fs::write(&file, &newer).unwrap();
    let line = site.says(2, &["add", PHONE6]);
    assert!(line.contains("it was written by another version of Ringfence"), "{line}");
    assert_eq!(std::fs::read(&file).unwrap(), newer);
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    let line = site.says(2, &["add", PHONE6]);
    assert!(line.contains("cannot read DIR/state/allowed: not a private file of ours"), "{line}");
    std::fs::remove_dir(&file).unwrap();
    std::fs::write(&file, whole).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    site.does(&["sync"]);
    assert!(site.world.keeps(PHONE));
    // An unreadable table is as an unreadable allow list: registered phones are kept, of others nobody knows.
    site.world.register("sofia_reg_internal.db", "203.0.113.21", 3_600);
    let table = site.world.path("state/allowed.table");
    std::fs::write(&table, "garbage").unwrap();
    assert!(site.world.keeps("203.0.113.21"));
    assert!(!site.world.keeps(PHONE));
    assert_eq!(site.world.last_reason(), "allow-list-unreadable");
    let explained = site.world.explain(PHONE);
    assert!(explained.contains("allowed.table cannot be read"), "{explained}");
    site.does(&["sync"]);
    assert!(site.world.keeps(PHONE));
}

#[test]
fn on_a_full_disk_those_who_are_allowed_stay() {
    let site = Allower::new();
    let state = site.world.path("state");
    std::fs::create_dir_all(&state).unwrap();
    let at = state.display();
    site.host.shell(&format!("mount -t tmpfs -o size=256k tmpfs {at}"));
    let keeps = |address: &str| {
        let code = call(&mut site.host.call(&site.world.command(&[address]))).code;
        assert!(code == 0 || code == 1);
        code == 0
    };
    site.does(&["add", PHONE]);
    site.does(&["add", "--for=1h", "203.0.113.21"]);
    for (fill, hint, empty) in [
        ("dd if=/dev/zero of=AT/full bs=4096 status=none || true", "No space left on device", "rm AT/full"),
        ("mount -o remount,ro AT", "Read-only file system", "mount -o remount,rw AT"),
    ] {
        let at = |script: &str| site.host.shell(&script.replace("AT", &state.display().to_string()));
        at(fill);
        for args in [["add", PHONE6].as_slice(), &["remove", PHONE], &["flush"]] {
            let line = site.says(2, args);
            assert!(line.contains("DIR/state/allowed") && line.contains(hint), "{args:?}: {line}");
        }
        assert!(keeps(PHONE) && keeps("203.0.113.21") && !keeps(PHONE6));
        assert_eq!(site.listed(), [PHONE, "203.0.113.21"].map(|address| format!("{address} by hand")));
        site.has_seen(&[(PHONE, DAY), ("203.0.113.21", 3_600)]);
        at(empty);
        site.does(&["sync"]);
        site.has_seen(&[(PHONE, DAY), ("203.0.113.21", 3_600)]);
    }
    site.does(&["remove", PHONE]);
    assert!(!keeps(PHONE));
    assert_eq!(site.host.shell(&format!("ls {at}")), "allowed\nallowed.lock\nallowed.table\nseen.table\n");
}

#[test]
fn twenty_at_once_are_all_done() {
    let site = Allower::new();
    for n in 0..10 {
        site.does(&["add", &format!("198.51.100.{n}")]);
    }
    let spawn = |args: &[&str]| -> Child {
        let mut command = site.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let calls: Vec<Child> = (0..20)
        .map(|n| match n % 4 {
            0 | 1 => spawn(&["add", "--jail=success", &format!("203.0.113.{n}")]),
            2 => spawn(&["remove", &format!("198.51.100.{}", n / 2)]),
            _ => spawn(&["sync"]),
        })
        .collect();
    for call in calls {
        let output = call.wait_with_output().unwrap();
        assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]), "{output:?}");
    }
    let mut wanted: Vec<String> = (0..20).filter(|n| n % 4 < 2).map(|n| format!("203.0.113.{n}")).collect();
    wanted.extend([0, 2, 4, 6, 8].map(|n| format!("198.51.100.{n}")));
    wanted.sort_unstable();
    let mut listed: Vec<_> =
        site.listed().iter().map(|entry| entry.split(' ').next().unwrap().to_owned()).collect();
    listed.sort_unstable();
    assert_eq!(listed, wanted);
    assert_eq!(site.seen().into_keys().collect::<Vec<_>>(), wanted);
    assert!(wanted.iter().all(|address| site.world.keeps(address)));
}

/// Kills a call at a random moment within so long; whether it was still at work.
fn kill(site: &Allower, args: &[&str], within: Duration) -> bool {
    let moment = within.mul_f64(fastrand::f64());
    let mut command = site.world.allow_command(args);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    // It is the process itself: killed, it is dead.
    let mut child = site.host.inside(move || command.spawn().unwrap());
    let start = Instant::now();
    while start.elapsed() < moment {
        std::thread::sleep(moment.saturating_sub(start.elapsed()).min(Duration::from_millis(1)));
    }
    child.kill().unwrap();
    !child.wait().unwrap().success()
}

#[test]
fn a_killed_call_is_completed_by_the_next_sync() {
    let site = Allower::new();
    let addresses: Vec<String> = (0..8)
        .map(|n| if n % 2 == 0 { format!("203.0.113.{n}") } else { format!("2001:db8::{n}") })
        .collect();
    for address in &addresses[..4] {
        site.does(&["add", address]);
    }
    let took = {
        let mut command = site.world.allow_command(&["add", &addresses[0]]);
        site.host.inside(move || call(&mut command)).took
    };
    let (mut killed, mut round) = (0, 0);
    while killed < 20 {
        round += 1;
        assert!(round < 1_000, "only {killed} killed, a call takes {took:?}");
        let address = fastrand::choice(&addresses).unwrap();
        let before = site.listed();
        let id = format!("{address} by hand");
        let verb = if before.contains(&id) { "remove" } else { "add" };
        killed += u32::from(kill(&site, &[verb, address], took.mul_f64(2.0)));
        let mut after = site.listed();
        site.does(&["sync"]);
        assert_eq!(site.listed(), after);
        for address in &addresses {
            let allowed = after.contains(&format!("{address} by hand"));
            assert_eq!(site.world.keeps(address), allowed, "{address}");
            assert_eq!(site.seen().contains_key(address), allowed, "{address}");
        }
        let mut expected = before;
        after.retain(|other| *other != id);
        expected.retain(|other| *other != id);
        assert_eq!(after, expected, "all others are as they were");
    }
    println!("{killed} of {round} killed, a call takes {took:?}");
    // What the last one left beside is overwritten by the next.
    site.does(&["add", "192.0.2.1"]);
    let mut names: Vec<_> = std::fs::read_dir(site.world.path("state"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["allowed", "allowed.lock", "allowed.table", "seen.table"]);
}
