//! From the log to the kernel and back: fail2ban, `ringfence-block`, and packets of SIP.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::UdpSocket;
use std::path::PathBuf;

use assert_cmd::cargo::cargo_bin;

use crate::fail2ban::{NEXT_ENTRY, as_of_now, recorded};
use crate::support::pbx::{PBX, PHONES, UNVERIFIED, once_free};
use crate::support::sip::{Answerer, register};
use crate::support::{Fail2ban, Pbx, Postgres, data, now, wait_for, write_program};

const JAIL: &str = "ringfence-account";

/// The forgotten phone.
const FORGOTTEN: &str = "999@a.example.com";

/// Others of the same office: of the same domain, of the same name, and both.
const OTHERS: [&str; 3] = ["101@a.example.com", "999@b.example.com", "102@a.example.com"];

/// The office, which has a live registration.
const OFFICE: &str = PHONES[0][0];

/// Who has it in recorded logs.
const RECORDED_SOURCE: &str = "203.0.113.66";

/// What FusionPBX knows.
const ROWS: &str = "
    INSERT INTO v_domains (domain_uuid, domain_name, domain_enabled) VALUES
        ('11111111-1111-1111-1111-111111111111', 'a.example.com', 'true');
    INSERT INTO v_extensions (extension_uuid, domain_uuid, extension, enabled) VALUES
        (gen_random_uuid(), '11111111-1111-1111-1111-111111111111', '101', 'true'),
        (gen_random_uuid(), '11111111-1111-1111-1111-111111111111', '102', 'true');";

/// A PBX with fail2ban's jail for accounts, and an office.
struct Site {
    pbx: Pbx,
    before: String,
    program: PathBuf,
}

impl Site {
    fn new(settings: &str) -> Self {
        let pbx = Pbx::new("nft", settings);
        pbx.world.register("core.db", OFFICE, 3600);
        std::fs::write(pbx.world.path("freeswitch.log"), "").unwrap();
        // It is the real one, with our settings, and writes down what it is called for.
        let program = pbx.world.path("ringfence-block");
        let script = format!(
            "#!/bin/sh\nRINGFENCE_CONFIG='{}' '{}' \"$@\"\nstatus=$?\necho \"$1 $status\" >> '{}'\nexit $status\n",
            pbx.world.config().display(),
            cargo_bin("ringfence-block").display(),
            pbx.world.path("calls").display()
        );
        write_program(&program, &script);
        let before = pbx.saved();
        Self { pbx, before, program }
    }

    /// Where FusionPBX says who exists.
    fn with_fusionpbx(server: &Postgres) -> Self {
        let dir = server.socket_dir().display();
        let dsn = format!("host={dir} port={} dbname=fusionpbx user=ringfence", server.port);
        Self::new(&format!("[fusionpbx]\npostgres = {dsn:?}\n"))
    }

    /// With these settings of the jail besides.
    fn fail2ban(&self, settings: &str) -> Fail2ban<'_> {
        let jail_local = format!(
            "[{JAIL}]\nenabled = true\nlogpath = {}\naction = ringfence-block[ringfence-block={}]\n{settings}\n",
            self.pbx.world.path("freeswitch.log").display(),
            self.program.display()
        );
        let path = std::env::var("PATH").unwrap();
        let fail2ban = Fail2ban::start(&self.pbx.host, &self.pbx.world, &jail_local, &path);
        self.awaits(&["start"]);
        fail2ban
    }

    /// What was done so far, in order; all of it well.
    #[track_caller]
    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.pbx.world.path("calls")).unwrap_or_default();
        text.lines().map(|line| line.strip_suffix(" 0").expect("status 0").to_owned()).collect()
    }

    /// Waits until as many calls are done; they are these, and forgotten.
    #[track_caller]
    fn awaits(&self, calls: &[&str]) {
        wait_for(&format!("{calls:?}, {:?}", self.calls()), || self.calls().len() >= calls.len());
        assert_eq!(self.calls(), calls);
        std::fs::remove_file(self.pbx.world.path("calls")).unwrap();
    }

    /// What FreeSWITCH writes now; the log goes on behind it.
    fn log(&self, text: &str) {
        let mut log =
            std::fs::File::options().append(true).open(self.pbx.world.path("freeswitch.log")).unwrap();
        log.write_all(as_of_now(&(text.to_owned() + &recorded(NEXT_ENTRY))).as_bytes()).unwrap();
    }

    /// The forgotten phone tries, from the office: two failures each time.
    fn fail(&self, times: usize) {
        let attempt = recorded("03b_register_unknown_user_auth.log").replace(RECORDED_SOURCE, OFFICE);
        self.log(&attempt.repeat(times));
    }

    /// Whether the office gets through as an account.
    #[track_caller]
    fn lets_in(&self, account: &str) -> bool {
        self.pbx.wire(OFFICE).lets_in(account)
    }

    /// The forgotten phone is blocked, and nobody else of the office.
    #[track_caller]
    fn holds(&self) {
        assert!(!self.lets_in(FORGOTTEN));
        self.lets_in_others();
    }

    #[track_caller]
    fn lets_in_others(&self) {
        for other in OTHERS {
            assert!(self.lets_in(other), "{other}");
        }
        assert!(self.pbx.wire(OFFICE).passes(&register("")));
    }

    /// Nobody is blocked, and nothing of us is there.
    #[track_caller]
    fn is_open(&self) {
        assert!(self.lets_in(FORGOTTEN));
        self.lets_in_others();
        assert_eq!(self.pbx.saved(), self.before);
    }

    /// Reasons for which accounts were refused, as `account: reason`.
    fn refused(&self) -> BTreeSet<String> {
        let journal = self.pbx.world.journal();
        let refused = journal.iter().filter(|line| line["decision"] == "refuse");
        refused
            .map(|line| {
                format!("{}: {}", line["subject"].as_str().unwrap(), line["reason"].as_str().unwrap())
            })
            .collect()
    }
}

#[test]
fn a_forgotten_phone_is_blocked_for_its_time_and_nobody_else_of_the_office() {
    let site = Site::new(UNVERIFIED);
    let fail2ban = site.fail2ban("maxretry = 10\nbantime = 10\n");
    site.fail(4);
    wait_for("eight failures", || fail2ban.number(JAIL, "Total failed") == 8);
    site.is_open();
    assert_eq!(site.calls(), Vec::<String>::new());
    site.fail(1);
    wait_for("the block", || site.calls() == ["ban"]);
    site.holds();
    // Wherever it is tried from, over IPv6 too.
    for from in PHONES.as_flattened() {
        assert!(!site.pbx.wire(from).lets_in(FORGOTTEN), "{from}");
        assert!(site.pbx.wire(from).lets_in(OTHERS[0]), "{from}");
    }
    assert_eq!(site.pbx.hits(), [(FORGOTTEN.to_owned(), 5)]);
    site.awaits(&["ban", "unban"]);
    site.is_open();
    // The next time, too.
    site.fail(5);
    site.awaits(&["ban", "unban"]);
    site.is_open();
    fail2ban.is_content();
    let journal = site.pbx.world.journal();
    let of_ours: Vec<_> = journal
        .iter()
        .filter(|line| line["tool"] == "ringfence-block")
        .map(|line| [&line["decision"], &line["subject"], &line["source"]].map(|text| text.as_str().unwrap()))
        .collect();
    assert!(
        of_ours.iter().all(|[_, subject, source]| (*subject, *source) == (FORGOTTEN, JAIL)),
        "{of_ours:?}"
    );
    assert_eq!(of_ours.first().map(|line| line[0]), Some("block"));
}

#[test]
fn a_block_outlives_fail2ban_and_comes_back_with_it() {
    let site = Site::new(UNVERIFIED);
    let mut fail2ban = site.fail2ban("maxretry = 4\nbantime = 1h\n");
    site.fail(2);
    site.awaits(&["ban"]);
    wait_for("the ban on disk", || fail2ban.remembered(JAIL) == 1);
    site.holds();

    fail2ban.client(&["reload"]).unwrap();
    site.holds();
    assert_eq!(site.calls(), Vec::<String>::new());
    // While a jail is stopped, its blocks are set aside.
    fail2ban.stop();
    site.awaits(&["flush", "stop"]);
    site.is_open();
    fail2ban.start_again();
    site.awaits(&["start"]);
    site.holds();
    fail2ban.client(&["restart", JAIL]).unwrap();
    site.awaits(&["stop", "start"]);
    site.holds();
    // Who is killed sets nothing aside.
    fail2ban.kill();
    site.holds();
    fail2ban.start_again();
    site.awaits(&["start"]);
    site.holds();
    assert_eq!(fail2ban.banned(JAIL), [FORGOTTEN]);
    // Nor is it lost with the rules.
    fail2ban.stop();
    site.awaits(&["stop"]);
    site.pbx.host.shell("iptables-nft -F; ip6tables-nft -F; iptables-nft -A INPUT -i lo -j ACCEPT; ip6tables-nft -A INPUT -i lo -j ACCEPT");
    fail2ban.start_again();
    site.awaits(&["start"]);
    site.holds();
    fail2ban.is_content();
}

#[test]
fn an_operator_lets_go_of_one_and_of_all() {
    let site = Site::new(UNVERIFIED);
    let fail2ban = site.fail2ban("maxretry = 4\nbantime = 1h\n");
    site.fail(2);
    site.awaits(&["ban"]);
    site.holds();
    let others = ["50%|x@a.example.com", "o'neil@a.example.com"];
    for other in others {
        fail2ban.client(&["set", JAIL, "banip", other]).unwrap();
        site.awaits(&["ban"]);
        assert!(!site.lets_in(other), "{other}");
    }
    site.holds();
    fail2ban.client(&["set", JAIL, "unbanip", FORGOTTEN]).unwrap();
    site.awaits(&["unban"]);
    assert!(site.lets_in(FORGOTTEN));
    assert!(others.iter().all(|other| !site.lets_in(other)));
    fail2ban.client(&["unban", "--all"]).unwrap();
    site.awaits(&["flush"]);
    assert!(others.iter().all(|other| site.lets_in(other)));
    site.is_open();
    // What was let go does not come back, if the jail stops some seconds later.
    let begun = now();
    wait_for("seven seconds", || now() >= begun + 7);
    fail2ban.client(&["restart", JAIL]).unwrap();
    site.awaits(&["stop", "start"]);
    site.is_open();
    fail2ban.is_content();
}

/// fail2ban does not call our action for a ban that it has restored, until it has made a new one.
#[test]
fn an_operator_lets_go_of_what_fail2ban_has_restored() {
    let site = Site::new(UNVERIFIED);
    let database = site.pbx.world.path("fail2ban/fail2ban.sqlite3");
    site.pbx.configure(&format!("{UNVERIFIED}[fail2ban]\ndatabase = {database:?}\n"));
    let fail2ban = site.fail2ban("maxretry = 4\nbantime = 1h\n");
    site.fail(2);
    site.awaits(&["ban"]);
    let other = "998@a.example.com";
    fail2ban.client(&["set", JAIL, "banip", other]).unwrap();
    site.awaits(&["ban"]);
    site.pbx.ban("997@a.example.com");
    wait_for("the bans on disk", || fail2ban.remembered(JAIL) == 2);
    site.pbx.does(&["expire"]);
    fail2ban.client(&["restart", JAIL]).unwrap();
    site.awaits(&["flush", "stop", "start"]);
    site.holds();
    site.pbx.does(&["expire"]);
    site.holds();
    fail2ban.client(&["set", JAIL, "unbanip", FORGOTTEN]).unwrap();
    assert_eq!(site.calls(), Vec::<String>::new(), "it is as they say");
    assert!(!site.lets_in(FORGOTTEN));
    site.pbx.does(&["expire"]);
    assert!(site.lets_in(FORGOTTEN));
    assert!(!site.lets_in(other));
    fail2ban.client(&["unban", "--all"]).unwrap();
    site.pbx.does(&["expire"]);
    assert!(site.lets_in(other));
    assert!(!site.lets_in("997@a.example.com"), "a block by hand is not fail2ban's");
    assert_eq!(site.calls(), Vec::<String>::new());
}

#[test]
fn an_account_that_exists_is_never_blocked() {
    let server = Postgres::with_fusionpbx(ROWS);
    let site = Site::with_fusionpbx(&server);
    let fail2ban = site.fail2ban("maxretry = 2\nbantime = 1h\n");
    // By hand.
    fail2ban.client(&["set", JAIL, "banip", FORGOTTEN, "101@a.example.com", "999@b.example.com"]).unwrap();
    site.awaits(&["ban"; 3]);
    assert!(!site.lets_in(FORGOTTEN) && !site.lets_in("999@b.example.com"));
    assert!(site.lets_in("101@a.example.com"));
    assert_eq!(site.refused(), BTreeSet::from(["101@a.example.com: account-exists".to_owned()]));
    // By the log: a wrong password of a phone that is known.
    let wrong = recorded("02_register_wrong_password.log").replace(RECORDED_SOURCE, OFFICE);
    site.log(&wrong.repeat(2).replace("101@a.example.com", "102@a.example.com"));
    site.awaits(&["ban"]);
    assert!(site.lets_in("102@a.example.com"));
    assert!(site.refused().contains("102@a.example.com: account-exists"));
    // One that comes into being is let go within a minute.
    server.psql_in(
        "fusionpbx",
        "INSERT INTO v_extensions (extension_uuid, domain_uuid, extension, enabled) \
         VALUES (gen_random_uuid(), '11111111-1111-1111-1111-111111111111', '999', 'true')",
    );
    site.pbx.does(&["expire"]);
    assert!(site.lets_in(FORGOTTEN));
    assert!(!site.lets_in("999@b.example.com"));
    // fail2ban need not know of any of this.
    for account in [FORGOTTEN, "101@a.example.com", "999@b.example.com"] {
        fail2ban.client(&["set", JAIL, "unbanip", account]).unwrap();
        site.awaits(&["unban"]);
    }
    site.is_open();
    fail2ban.is_content();
}

#[test]
fn an_address_that_fail2ban_may_ban_blocks_no_account() {
    let site = Site::new(UNVERIFIED);
    let fail2ban = site.fail2ban("maxretry = 2\nbantime = 1h\n");
    // Nobody is registered there.
    site.log(&recorded("03b_register_unknown_user_auth.log"));
    site.awaits(&["ban"]);
    assert_eq!(site.refused(), BTreeSet::from([format!("{FORGOTTEN}: source-not-exempt")]));
    site.is_open();
    fail2ban.is_content();
}

#[test]
fn recorded_injections_block_nobody_who_is_innocent() {
    let server = Postgres::with_fusionpbx(ROWS);
    let site = Site::with_fusionpbx(&server);
    // The attacker sits in the office itself.
    site.pbx.world.register("core.db", RECORDED_SOURCE, 3600);
    let fail2ban = site.fail2ban("maxretry = 1\nbantime = 1h\n");
    let mut injections = String::new();
    for entry in std::fs::read_dir(data("log")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with("06") {
            injections += &recorded(&name);
        }
    }
    let last = recorded("03b_register_unknown_user_auth.log").replace("999", "last");
    site.log(&(injections + &last));
    // A block is in the ledger before it is in the kernel, and then has no hits yet.
    let blocked = || -> BTreeSet<String> {
        let entries = site.pbx.list();
        entries.iter().map(|entry| entry["account"].as_str().unwrap().to_owned()).collect()
    };
    wait_for("the last", || blocked().contains("last@a.example.com"));
    // These he tried, and nobody has them.
    let tried =
        ["101@8.8.8.8", "999@8.8.8.8", "999@a.example.com", "999@b.example.com", "last@a.example.com"];
    assert_eq!(blocked(), tried.map(str::to_owned).into());
    for innocent in ["101@a.example.com", "102@a.example.com", "101@b.example.com", "101@1.1.1.1"] {
        assert!(site.lets_in(innocent), "{innocent}");
    }
    for block in site.pbx.list() {
        assert_eq!(block["source"], serde_json::Value::Null, "{block}");
        assert_eq!(block["seen-from"], RECORDED_SOURCE, "{block}");
    }
    // And no rule names an address.
    let saved = site.pbx.saved();
    assert!(!saved.contains(" -s "), "{saved}");
    fail2ban.is_content();
}

#[test]
fn sipp_gets_in_but_as_the_blocked_account() {
    let site = Site::new(UNVERIFIED);
    let pbx = &site.pbx;
    let _answerer = Answerer::new(pbx.host.inside(|| once_free(|| UdpSocket::bind((PBX[0], 5060)))));
    let fail2ban = site.fail2ban("maxretry = 4\nbantime = 1h\n");
    assert!(pbx.sipp_gets_in(OFFICE, FORGOTTEN));
    site.fail(2);
    site.awaits(&["ban"]);
    assert!(!pbx.sipp_gets_in(OFFICE, FORGOTTEN));
    for other in OTHERS {
        assert!(pbx.sipp_gets_in(OFFICE, other), "{other}");
    }
    // It tries as often as phones do.
    assert!(pbx.hits()[0].1 > 1, "{:?}", pbx.hits());
    fail2ban.client(&["set", JAIL, "unbanip", FORGOTTEN]).unwrap();
    site.awaits(&["unban"]);
    assert!(pbx.sipp_gets_in(OFFICE, FORGOTTEN));
    fail2ban.is_content();
}
