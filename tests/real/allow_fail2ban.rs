//! From a success in the log to the kernel and to `ringfence-ignore`, and back: a real fail2ban and `ringfence-allow`.

use std::io::Write as _;
use std::path::PathBuf;

use assert_cmd::cargo::cargo_bin;

use crate::support::{Allower, Fail2ban, wait_for, write_program};

/// Who registers is allowed.
const JAIL: &str = "registrar-success";

/// Who fails is banned, but for whom `ringfence-ignore` keeps.
const FAILING: &str = "registrar-failure";

const PHONE: &str = "203.0.113.20";
const PHONE6: &str = "2001:db8:20::1";
const ATTACKER: &str = "203.0.113.66";

struct Site {
    allower: Allower,
    allow: PathBuf,
    ignore: PathBuf,
}

impl Site {
    fn new() -> Self {
        let allower = Allower::new();
        let world = &allower.world;
        std::fs::write(world.path("registrar.log"), "").unwrap();
        std::fs::create_dir_all(world.path("fail2ban/filter.d")).unwrap();
        for (name, verb) in [("success", "registered"), ("failure", "refused")] {
            let filter = format!("[Definition]\nfailregex = ^\\s*{verb} <ADDR> as \".*\"$\n");
            std::fs::write(world.path(&format!("fail2ban/filter.d/registrar-{name}.conf")), filter).unwrap();
        }
        // They are the real ones, with our settings; the one writes down what it is called for.
        let wrap = |tool: &str, behind: &str| {
            let program = world.path(tool);
            let script = format!(
                "#!/bin/sh\nRINGFENCE_CONFIG='{}' '{}' \"$@\"\nstatus=$?\n{behind}\nexit $status\n",
                world.config().display(),
                cargo_bin(tool).display(),
            );
            write_program(&program, &script);
            program
        };
        let calls = format!("echo \"$1 $status\" >> '{}'", world.path("calls").display());
        let (allow, ignore) = (wrap("ringfence-allow", &calls), wrap("ringfence-ignore", ":"));
        Self { allower, allow, ignore }
    }

    /// With these settings of the jail besides.
    fn fail2ban(&self, settings: &str) -> Fail2ban<'_> {
        let log = self.allower.world.path("registrar.log").display().to_string();
        let jail_local = format!(
            "[DEFAULT]\nignorecommand = exec {} \"<ip>\"\nbackend = polling\nlogpath = {log}\nmaxretry = 1\n\
             [{JAIL}]\nenabled = true\nfilter = registrar-success\naction = ringfence-allow[ringfence-allow={}]\n\
             ignorecommand =\nignorecache =\nignoreip =\nignoreself = false\n{settings}\n\
             [{FAILING}]\nenabled = true\nfilter = registrar-failure\naction =\n",
            self.ignore.display(),
            self.allow.display()
        );
        let path = std::env::var("PATH").unwrap();
        let fail2ban = Fail2ban::start(&self.allower.host, &self.allower.world, &jail_local, &path);
        self.is_up(&fail2ban);
        fail2ban
    }

    fn is_up(&self, fail2ban: &Fail2ban<'_>) {
        for jail in [JAIL, FAILING] {
            wait_for(jail, || fail2ban.number_if_any(jail, "Currently banned").is_some());
        }
        assert_eq!(self.calls(), [""; 0]);
    }

    /// What was done so far, in order; all of it well.
    #[track_caller]
    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.allower.world.path("calls")).unwrap_or_default();
        text.lines().map(|line| line.strip_suffix(" 0").expect("status 0").to_owned()).collect()
    }

    /// Waits until as many calls are done; they are these, and forgotten.
    #[track_caller]
    fn awaits(&self, calls: &[&str]) {
        wait_for(&format!("{calls:?}, {:?}", self.calls()), || self.calls().len() >= calls.len());
        assert_eq!(self.calls(), calls);
        std::fs::remove_file(self.allower.world.path("calls")).unwrap();
    }

    fn log(&self, verb: &str, address: &str, user: &str) {
        let path = self.allower.world.path("registrar.log");
        let mut log = std::fs::File::options().append(true).open(path).unwrap();
        let now = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S");
        writeln!(log, "{now} {verb} {address} as \"{user}\"").unwrap();
    }

    /// Whether `ringfence-ignore` keeps it, and the kernel knows it: both or none.
    #[track_caller]
    fn allows(&self, address: &str) -> bool {
        let keeps = self.allower.world.keeps(address);
        assert_eq!(self.allower.seen().contains_key(address), keeps, "{address}");
        keeps
    }
}

#[test]
fn who_registers_is_allowed_for_a_time() {
    let site = Site::new();
    let fail2ban = site.fail2ban("bantime = 1h\n");
    let canary = site.allower.world.path("canary");
    let user = format!("$(touch {0})`touch {0}`'\";touch {0};\\ <ip> %s \u{1b}[2J é", canary.display());
    site.log("registered", PHONE, &user);
    wait_for("the call", || site.calls() == ["add"]);
    assert!(site.allows(PHONE));
    site.allower.has_seen(&[(PHONE, 3_600)]);
    let entry = &site.allower.list()[0];
    assert_eq!(entry["jail"], JAIL);
    let why = entry["because"].as_str().unwrap();
    assert!(
        why.contains(&format!("registered {PHONE} as \"$(touch ")) && !why.contains(char::is_control),
        "{why}"
    );
    // He may fail now, as others may not.
    site.log("refused", PHONE, "101");
    site.log("refused", ATTACKER, "101");
    wait_for("the attacker", || fail2ban.banned(FAILING) == [ATTACKER]);
    assert!(fail2ban.log().contains(&format!("Ignore {PHONE} by command")), "{}", fail2ban.log());
    fail2ban.client(&["set", JAIL, "unbanip", PHONE]).unwrap();
    site.awaits(&["add", "remove"]);
    assert!(!site.allows(PHONE));
    assert!(!canary.exists());
    // Time passes for who comes now, and again the next time.
    fail2ban.client(&["set", JAIL, "bantime", "4"]).unwrap();
    for _ in 0..2 {
        site.log("registered", PHONE6, "102");
        site.awaits(&["add", "remove"]);
        assert!(!site.allows(PHONE6));
        assert!(site.allower.listed().is_empty());
    }
    fail2ban.is_content();
    for (decision, subject, reason) in
        [("allow", PHONE, "jail"), ("remove", PHONE, "unbanned"), ("allow", PHONE6, "jail")]
    {
        assert!(site.allower.decided(decision, subject, reason), "{:?}", site.allower.decisions());
    }
}

#[test]
fn who_is_allowed_outlives_fail2ban() {
    let site = Site::new();
    let mut fail2ban = site.fail2ban("bantime = 1h\n");
    for address in [PHONE, PHONE6] {
        site.log("registered", address, "101");
        site.awaits(&["add"]);
    }
    site.allower.does(&["add", "203.0.113.30"]);
    wait_for("the bans on disk", || fail2ban.remembered(JAIL) == 2);
    let all = |site: &Site| [PHONE, PHONE6, "203.0.113.30"].iter().all(|address| site.allows(address));
    let restored = |site: &Site, fail2ban: &Fail2ban<'_>| {
        wait_for("the bans", || fail2ban.number_if_any(JAIL, "Currently banned") == Some(2));
        assert_eq!(site.calls(), [""; 0], "nobody is added again");
        assert!(all(site));
    };
    fail2ban.client(&["reload"]).unwrap();
    restored(&site, &fail2ban);
    // A stop takes back the flush right before it.
    fail2ban.stop();
    site.awaits(&["flush", "stop"]);
    assert!(all(&site));
    let long = |site: &Site| site.allower.seen().values().all(|left| *left > 3_000);
    assert!(long(&site), "{:?}", site.allower.seen());
    fail2ban.start_again();
    restored(&site, &fail2ban);
    fail2ban.client(&["restart", JAIL]).unwrap();
    wait_for("the stop", || site.calls().contains(&"stop".to_owned()));
    std::fs::remove_file(site.allower.world.path("calls")).unwrap();
    restored(&site, &fail2ban);
    assert!(long(&site));
    fail2ban.kill();
    assert!(all(&site));
    fail2ban.start_again();
    restored(&site, &fail2ban);
    // An operator lets go of one, once fail2ban has made a new ban, ...
    site.log("registered", "203.0.113.22", "103");
    site.awaits(&["add"]);
    fail2ban.client(&["set", JAIL, "unbanip", PHONE]).unwrap();
    site.awaits(&["remove"]);
    assert!(!site.allows(PHONE) && site.allows(PHONE6));
    // ... and of all, but for whom he allowed by hand.
    fail2ban.client(&["unban", "--all"]).unwrap();
    site.awaits(&["flush"]);
    wait_for("the end", || {
        let seen = site.allower.seen();
        !seen.contains_key(PHONE6) && !seen.contains_key("203.0.113.22") && !site.allower.world.keeps(PHONE6)
    });
    assert_eq!(site.allower.listed(), ["203.0.113.30 by hand"]);
    assert!(site.allows("203.0.113.30"));
    fail2ban.is_content();
}

#[test]
fn an_operator_allows_whatever_he_types() {
    let site = Site::new();
    let fail2ban = site.fail2ban("bantime = -1\n");
    fail2ban.client(&["set", JAIL, "banip", PHONE]).unwrap();
    site.awaits(&["add"]);
    assert!(site.allows(PHONE));
    assert!(site.allower.seen()[PHONE] > 23 * 86_400, "for ever is as long as can be");
    for text in ["-rf", "--flush", "$(id)", "a b", "o'neil\"x"] {
        fail2ban.client(&["set", JAIL, "banip", text]).expect(text);
        site.awaits(&["add"]);
        fail2ban.client(&["set", JAIL, "unbanip", text]).expect(text);
        site.awaits(&["remove"]);
    }
    assert_eq!(site.allower.listed(), [format!("{PHONE} {JAIL}")]);
    fail2ban.is_content();
}
