//! The filter for accounts, and what a real fail2ban tells `ringfence-block`, in whose place each call is written down.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;

use crate::fail2ban::{NEXT_ENTRY, as_of_now, expected, found, recorded};
use crate::support::{Fail2ban, Host, World, now, wait_for, write_program};

const JAIL: &str = "ringfence-account";

/// What each recorded log must yield: failures by account and source. In 06b and 06d the attacker's own text is an
/// address, a command, another line of the log; where what is left names an account, it is one that he really tried.
const RECORDED: [(&str, &[(&str, usize)]); 20] = [
    ("01_register_ok.log", &[]),
    ("02_register_wrong_password.log", &[("101@a.example.com 203.0.113.66", 1)]),
    ("03a_register_unknown_user_noauth.log", &[]),
    ("03b_register_unknown_user_auth.log", &[("999@a.example.com 203.0.113.66", 2)]),
    ("03c_register_forged_nonce.log", &[]),
    (
        "03d_register_to_differs_from_authuser.log",
        &[("101@a.example.com 203.0.113.66", 1), ("102@a.example.com 203.0.113.66", 1)],
    ),
    ("03e_register_from_differs_from_to.log", &[]),
    ("04a_register_unknown_domain.log", &[("101@nosuch.example.org 203.0.113.66", 2)]),
    ("04b_register_domain_is_server_ip.log", &[("101@198.51.100.1 203.0.113.66", 2)]),
    ("05a_invite_internal_noauth.log", &[]),
    // 101 is called by 102, who has the wrong password.
    ("05b_invite_internal_wrong_password.log", &[]),
    ("05c_invite_internal_unknown_user.log", &[("999@a.example.com 203.0.113.66", 1)]),
    ("05d_invite_internal_ok.log", &[]),
    ("05e_invite_external_unknown_number.log", &[]),
    ("06a_hostile_to_user_register.log", &[]),
    ("06b_hostile_auth_username.log", &[("101@a.example.com 203.0.113.66", 25)]),
    (
        "06d_hostile_realm.log",
        &[
            ("101@8.8.8.8 203.0.113.66", 1),
            ("101@a.example.com 203.0.113.66", 4),
            ("999@8.8.8.8 203.0.113.66", 1),
            ("999@a.example.com 203.0.113.66", 4),
            ("999@b.example.com 203.0.113.66", 1),
        ],
    ),
    ("06k_pct_newline_destination_external.log", &[]),
    ("08_scanner.log", &[]),
    (
        "09a_other_denials.log",
        &[
            ("103@a.example.com 203.0.113.66", 1),
            ("104@a.example.com 203.0.113.66", 1),
            ("105@a.example.com 203.0.113.66", 1),
        ],
    ),
];

#[test]
fn every_recorded_log_yields_the_accounts_that_were_tried() {
    assert_eq!(found("ringfence-freeswitch-account", "<fid> <F-SRC>"), expected(&RECORDED));
}

/// A program that writes down its arguments.
struct Recorder {
    program: PathBuf,
    calls: PathBuf,
}

impl Recorder {
    fn new(world: &World, name: &str) -> Self {
        std::fs::create_dir_all(world.path("bin")).unwrap();
        let recorder = Self { program: world.path("bin").join(name), calls: world.path(name) };
        let script = format!("#!/bin/sh\nprintf '%s\\0' \"$#\" \"$@\" >> '{}'\n", recorder.calls.display());
        write_program(&recorder.program, &script);
        recorder
    }

    /// Every call so far.
    fn calls(&self) -> Vec<Vec<String>> {
        let text = std::fs::read_to_string(&self.calls).unwrap_or_default();
        let mut words = text.split_terminator('\0').map(str::to_owned);
        let mut calls = Vec::new();
        while let Some(count) = words.next() {
            calls.push(words.by_ref().take(count.parse().unwrap()).collect());
        }
        calls
    }

    /// Waits for that many calls; what they were, and forgets them.
    #[track_caller]
    fn take(&self, count: usize) -> Vec<Vec<String>> {
        wait_for(&format!("{count} calls, {:?}", self.calls()), || self.calls().len() >= count);
        let calls = self.calls();
        assert_eq!(calls.len(), count, "{calls:?}");
        std::fs::remove_file(&self.calls).unwrap();
        calls
    }
}

/// A host where the jail for accounts is on.
struct Site {
    world: World,
    block: Recorder,
    /// What an id of a ban must not run, and no account needs: `canary`.
    canary: Recorder,
}

impl Site {
    fn new() -> Self {
        let world = World::empty();
        std::fs::write(world.path("freeswitch.log"), "").unwrap();
        let (block, canary) = (Recorder::new(&world, "block"), Recorder::new(&world, "canary"));
        Self { world, block, canary }
    }

    /// With these settings of the jail besides.
    fn fail2ban<'a>(&self, host: &'a Host, settings: &str) -> Fail2ban<'a> {
        let jail_local = format!(
            "[DEFAULT]\nignoreip = 203.0.113.66 101@a.example.com\nignorecommand = exec {} \"<ip>\"\n\
             ignorecache = key=\"<ip>\", max-count=1000, max-time=20s\n\
             [{JAIL}]\nenabled = true\nlogpath = {}\naction = ringfence-block[ringfence-block={}]\n{settings}\n",
            self.canary.program.display(),
            self.world.path("freeswitch.log").display(),
            self.block.program.display()
        );
        let path = format!("{}:{}", self.world.path("bin").display(), std::env::var("PATH").unwrap());
        let fail2ban = Fail2ban::start(host, &self.world, &jail_local, &path);
        assert_eq!(self.block.take(1), [plain("start")]);
        fail2ban
    }

    fn log(&self, text: &str) {
        let mut log = std::fs::File::options().append(true).open(self.world.path("freeswitch.log")).unwrap();
        log.write_all(as_of_now(text).as_bytes()).unwrap();
    }

    /// So many wrong passwords of 101, and what stands in the log behind them.
    fn fail(&self, times: usize) {
        self.log(&(recorded("02_register_wrong_password.log").repeat(times) + &recorded(NEXT_ENTRY)));
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// `start`, `stop` or `flush`.
fn plain(command: &str) -> Vec<String> {
    words(&[command, &format!("--jail={JAIL}")])
}

fn unban(id: &str) -> Vec<String> {
    words(&["unban", &format!("--jail={JAIL}"), "--", id])
}

/// Checks the call of a ban that began just now; its duration.
#[track_caller]
fn ban(call: &[String], id: &str, source: &str) -> String {
    let [command, jail, seen_from, at, span, dashes, account] = call else { panic!("{call:?}") };
    assert_eq!((command.as_str(), jail), ("ban", &format!("--jail={JAIL}")), "{call:?}");
    assert_eq!((seen_from, dashes.as_str()), (&format!("--seen-from={source}"), "--"), "{call:?}");
    assert_eq!(account, id);
    let at: f64 = at.strip_prefix("--at=").unwrap().parse().unwrap();
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    let age = now() as f64 - at;
    assert!((-1.0..30.0).contains(&age), "{call:?}: {age} s ago");
    span.strip_prefix("--for=").unwrap().to_owned()
}

#[test]
fn the_files_are_understood() {
    let host = Host::new();
    let site = Site::new();
    let fail2ban = site.fail2ban(&host, "");
    let dump = fail2ban.dump();
    for line in [
        format!("['set', '{JAIL}', 'ignorecommand', '']"),
        format!("['set', '{JAIL}', 'maxretry', 10]"),
        format!("['set', '{JAIL}', 'addaction', 'ringfence-block']"),
    ] {
        assert!(dump.contains(&line), "{line} is not in {dump}");
    }
    // What is for addresses is not inherited.
    for setting in ["ignorecommand", "ignorecache", "ignoreip"] {
        let value = fail2ban.client(&["get", JAIL, setting]).unwrap();
        assert!(
            matches!(value.trim(), "" | "None" | "No IP address/network is ignored"),
            "{setting}: {value}"
        );
    }
    assert_eq!(fail2ban.client(&["get", JAIL, "ignoreself"]).unwrap().trim(), "False");
    fail2ban.is_content();
}

#[test]
fn accounts_in_the_log_arrive_and_nothing_else_does() {
    let host = Host::new();
    let site = Site::new();
    let fail2ban = site.fail2ban(&host, "maxretry = 1\n");
    for (name, _) in RECORDED {
        site.log(&recorded(name));
    }
    let last = recorded("02_register_wrong_password.log")
        .replace("101@a.example.com", "last@a.example.com")
        .replace("203.0.113.66", "2001:db8:66::bad");
    site.log(&(last + &recorded(NEXT_ENTRY)));
    let of = |call: &[String]| (call[6].clone(), call[2].replace("--seen-from=", ""));
    wait_for("the last ban", || {
        site.block
            .calls()
            .iter()
            .any(|call| of(call) == ("last@a.example.com".into(), "2001:db8:66::bad".into()))
    });
    let banned: BTreeSet<_> = site.block.calls().iter().map(|call| of(call)).collect();
    let accounts = RECORDED.iter().flat_map(|(_, found)| found.iter()).map(|(failure, _)| *failure);
    let accounts: BTreeSet<_> = accounts
        .chain(["last@a.example.com 2001:db8:66::bad"])
        .map(|failure| failure.split_once(' ').unwrap())
        .map(|(account, source)| (account.to_owned(), source.to_owned()))
        .collect();
    assert_eq!(banned, accounts);
    assert_eq!(site.canary.calls(), Vec::<Vec<String>>::new());
    fail2ban.is_content();
}

#[test]
fn a_ban_begins_is_prolonged_and_ends() {
    let host = Host::new();
    let site = Site::new();
    let account = "101@a.example.com";
    let fail2ban = site.fail2ban(&host, "maxretry = 3\nbantime = 4\nbantime.increment = true\n");
    site.fail(3);
    let calls = site.block.take(2);
    assert_eq!(ban(&calls[0], account, "203.0.113.66"), "4");
    assert_eq!(calls[1], unban(account));
    // Again, and longer: the ban may or may not know that yet. Its source is that of the first failure.
    site.fail(1);
    let elsewhere = recorded("02_register_wrong_password.log").replace("203.0.113.66", "2001:db8:66::bad");
    site.log(&(elsewhere.repeat(2) + &recorded(NEXT_ENTRY)));
    let calls = site.block.take(3);
    ban(&calls[0], account, "203.0.113.66");
    assert_eq!(ban(&calls[1], account, "203.0.113.66"), "8");
    assert_eq!(calls[2], unban(account));
    fail2ban.is_content();
}

#[test]
fn an_operator_bans_whatever_he_types() {
    let host = Host::new();
    let site = Site::new();
    let mut fail2ban = site.fail2ban(&host, "bantime = 1h\n");
    let ids = [
        "101@a.example.com",
        "101@a.example.com,203.0.113.20",
        "$(canary)@d",
        "`canary`@d",
        "x;canary;@d",
        "x\"; canary; \"@d",
        "o'neil@d",
        "a  b*@d",
        "-rf@x",
        "--flush",
        "<ip>@<fid>",
        "$HOME\\@d",
        "50%|x@d",
        "Иван@d",
        "two\nlines@d",
    ];
    for id in ids {
        assert_eq!(fail2ban.client(&["set", JAIL, "banip", id]).expect(id).trim(), "1");
        assert_eq!(ban(&site.block.take(1)[0], id, ""), "3600");
        assert_eq!(fail2ban.client(&["set", JAIL, "unbanip", id]).expect(id).trim(), "1");
        assert_eq!(site.block.take(1), [unban(id)]);
    }
    // For ever.
    fail2ban.client(&["set", JAIL, "bantime", "-1"]).unwrap();
    fail2ban.client(&["set", JAIL, "banip", ids[0]]).unwrap();
    assert_eq!(ban(&site.block.take(1)[0], ids[0], ""), "-1");
    for id in &ids[1..] {
        fail2ban.client(&["set", JAIL, "banip", id]).expect(id);
    }
    site.block.take(ids.len() - 1);
    // Not while they are restored either.
    wait_for("the bans on disk", || fail2ban.remembered(JAIL) == ids.len());
    fail2ban.stop();
    assert_eq!(site.block.take(2), [plain("flush"), plain("stop")]);
    fail2ban.start_again();
    wait_for("the bans", || fail2ban.number_if_any(JAIL, "Currently banned") == Some(ids.len()));
    assert_eq!(site.block.take(1), [plain("start")]);
    assert_eq!(site.canary.calls(), Vec::<Vec<String>>::new());
    fail2ban.is_content();
}

#[test]
fn restored_bans_are_left_to_the_start() {
    let host = Host::new();
    let site = Site::new();
    let mut fail2ban = site.fail2ban(&host, "maxretry = 3\n");
    let restored = |fail2ban: &Fail2ban<'_>, count| {
        wait_for("the bans", || fail2ban.number_if_any(JAIL, "Currently banned") == Some(count));
    };
    let account = "101@a.example.com";
    site.fail(3);
    assert_eq!(ban(&site.block.take(1)[0], account, "203.0.113.66"), "3600");
    wait_for("the ban on disk", || fail2ban.remembered(JAIL) == 1);

    // A reload tells nothing.
    fail2ban.client(&["reload"]).unwrap();
    restored(&fail2ban, 1);
    // A stop takes all away at once; a start restores without us.
    fail2ban.stop();
    assert_eq!(site.block.take(2), [plain("flush"), plain("stop")]);
    fail2ban.start_again();
    restored(&fail2ban, 1);
    assert_eq!(site.block.take(1), [plain("start")]);
    // With nothing but restored bans there is nothing to flush.
    fail2ban.client(&["restart", JAIL]).unwrap();
    restored(&fail2ban, 1);
    assert_eq!(site.block.take(2), [plain("stop"), plain("start")]);
    // A server that is killed tells nothing.
    fail2ban.kill();
    fail2ban.start_again();
    restored(&fail2ban, 1);
    assert_eq!(site.block.take(1), [plain("start")]);

    // fail2ban 1.0.2 ends no restored ban through an action that has not banned since.
    fail2ban.client(&["set", JAIL, "unbanip", account]).unwrap();
    restored(&fail2ban, 0);
    fail2ban.client(&["set", JAIL, "banip", "102@a.example.com", "103@a.example.com"]).unwrap();
    let calls = site.block.take(2);
    ban(&calls[0], "102@a.example.com", "");
    ban(&calls[1], "103@a.example.com", "");
    wait_for("the bans on disk", || fail2ban.remembered(JAIL) == 2);
    fail2ban.kill();
    fail2ban.start_again();
    restored(&fail2ban, 2);
    assert_eq!(site.block.take(1), [plain("start")]);
    fail2ban.client(&["unban", "--all"]).unwrap();
    restored(&fail2ban, 0);

    // With one that has, all of them.
    fail2ban.client(&["set", JAIL, "banip", "102@a.example.com", "103@a.example.com"]).unwrap();
    site.block.take(2);
    wait_for("the bans on disk", || fail2ban.remembered(JAIL) == 2);
    fail2ban.kill();
    fail2ban.start_again();
    restored(&fail2ban, 2);
    fail2ban.client(&["set", JAIL, "banip", "104@a.example.com"]).unwrap();
    let calls = site.block.take(2);
    assert_eq!(calls[0], plain("start"));
    ban(&calls[1], "104@a.example.com", "");
    fail2ban.client(&["set", JAIL, "unbanip", "102@a.example.com"]).unwrap();
    assert_eq!(site.block.take(1), [unban("102@a.example.com")]);
    fail2ban.client(&["unban", "--all"]).unwrap();
    assert_eq!(site.block.take(1), [plain("flush")]);
    // And the stop has nothing left to flush.
    fail2ban.stop();
    assert_eq!(site.block.take(1), [plain("stop")]);
    fail2ban.is_content();
}
