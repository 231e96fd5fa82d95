//! A PBX where fail2ban bans by `ringfence-ban`, and what its kernel has of that.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::{Call, Fail2ban, Pbx, call, now, run, sqlite, wait_for};

/// fail2ban's tables, as fail2ban 1.0.2 makes them.
const TABLES: &str = "CREATE TABLE jails (name TEXT NOT NULL UNIQUE, enabled INTEGER NOT NULL DEFAULT 1); \
    CREATE TABLE bips (ip TEXT NOT NULL, jail TEXT NOT NULL, timeofban INTEGER NOT NULL, bantime INTEGER NOT NULL, \
    bancount INTEGER NOT NULL default 1, data JSON, PRIMARY KEY (ip, jail));";

/// The host, what is outside, and the settings. It has no name servers, no routes but to the outside, and nobody is logged in.
pub struct Banner {
    pub pbx: Pbx,
}

impl Banner {
    /// With a rule of the host's own in both families.
    pub fn new(variant: &'static str) -> Self {
        let pbx = Pbx::new(variant, "");
        pbx.host
            .shell("touch /run/empty; [ ! -e /etc/resolv.conf ] || mount --bind /run/empty /etc/resolv.conf");
        let banner = Self { pbx };
        std::fs::create_dir_all(banner.pbx.world.path("fail2ban/filter.d")).unwrap();
        std::fs::write(banner.log(), "").unwrap();
        let filter = "[Definition]\nfailregex = ^\\s*refused <ADDR> by <whom>$\n";
        std::fs::write(banner.pbx.world.path("fail2ban/filter.d/refused.conf"), filter).unwrap();
        banner.configure("", "");
        banner
    }

    /// These lines go before all others of the settings, and those behind them.
    pub fn configure(&self, top: &str, rest: &str) {
        let world = &self.pbx.world;
        world.configure_lists(&format!(
            "[fail2ban]\ndatabase = \"{}\"\nsocket = \"{}\"\n{rest}",
            self.database().display(),
            world.path("fail2ban/socket").display()
        ));
        let settings = std::fs::read_to_string(world.config()).unwrap();
        std::fs::write(world.config(), format!("{top}\n{settings}")).unwrap();
    }

    pub fn database(&self) -> PathBuf {
        self.pbx.world.path("fail2ban/fail2ban.sqlite3")
    }

    fn log(&self) -> PathBuf {
        self.pbx.world.path("refused.log")
    }

    /// The real tool with our settings, which writes down what it is called for.
    pub fn program(&self) -> PathBuf {
        let (tool, calls) = (self.command(&[]), self.pbx.world.path("calls"));
        self.has_program(
            "ringfence-ban",
            &format!(
                "RINGFENCE_CONFIG='{}' '{}' \"$@\"\nstatus=$?\necho \"$1 $status\" >> '{}'\nexit $status",
                self.pbx.world.config().display(),
                tool.get_args().last().unwrap().display(),
                calls.display(),
            ),
        )
    }

    /// A program that fail2ban finds: lines of a shell.
    pub fn has_program(&self, name: &str, script: &str) -> PathBuf {
        self.pbx.world.has_program(name, script)
    }

    /// A fail2ban with these jails: names, and settings of each. One failure is a ban, and all read one log.
    pub fn fail2ban(&self, jails: &[(&str, &str)]) -> Fail2ban<'_> {
        let fail2ban = self.start(jails);
        for (jail, _) in jails {
            wait_for(jail, || fail2ban.number_if_any(jail, "Currently banned").is_some());
        }
        fail2ban
    }

    /// The same, but nobody waits for the jails.
    pub fn start(&self, jails: &[(&str, &str)]) -> Fail2ban<'_> {
        let path = format!("{}:{}", self.pbx.world.path("bin").display(), std::env::var("PATH").unwrap());
        Fail2ban::start(&self.pbx.host, &self.pbx.world, &self.jail_local(jails), &path)
    }

    /// Replaces fail2ban's jails; they hold from its next reload on.
    pub fn configure_jails(&self, jails: &[(&str, &str)]) {
        std::fs::write(self.pbx.world.path("fail2ban/jail.local"), self.jail_local(jails)).unwrap();
    }

    fn jail_local(&self, jails: &[(&str, &str)]) -> String {
        let program = self.program();
        let action = |name: &str| format!("{name}[ringfence-ban={}]", program.display());
        let mut text = format!(
            "[DEFAULT]\nignorecommand =\nignorecache =\nbackend = polling\nlogpath = {}\nmaxretry = 1\nbantime = 1h\n\
             banaction = {}\nbanaction_allports = {}\n",
            self.log().display(),
            action("ringfence-ban"),
            action("ringfence-ban-allports"),
        );
        let sections = jails.iter().map(|(jail, settings)| {
            let whom: String = jail.chars().filter(char::is_ascii_alphanumeric).collect();
            format!("[{jail}]\nenabled = true\nfilter = refused[whom={whom}]\n{settings}\n")
        });
        text.extend(sections);
        text
    }

    /// Somebody fails, in the log of a jail whose name is letters and digits.
    pub fn refused(&self, jail: &str, addresses: &[&str]) {
        let mut log = std::fs::File::options().append(true).open(self.log()).unwrap();
        let time = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S");
        for address in addresses {
            writeln!(log, "{time} refused {address} by {jail}").unwrap();
        }
    }

    /// Nobody has failed yet.
    pub fn forget_the_log(&self) {
        std::fs::write(self.log(), "").unwrap();
    }

    /// What fail2ban called so far, in order, each with its exit status; forgets it.
    pub fn calls(&self) -> Vec<String> {
        let path = self.pbx.world.path("calls");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let _ = std::fs::remove_file(path);
        text.lines().map(str::to_owned).collect()
    }

    /// A call of `ringfence-ban` that is ready to be run there, from no session.
    pub fn command(&self, args: &[&str]) -> Command {
        self.pbx.ban_command(args)
    }

    #[track_caller]
    pub fn ban(&self, args: &[&str]) -> Call {
        call(&mut self.command(args))
    }

    /// A call that is done, and has nothing to say.
    #[track_caller]
    pub fn does(&self, args: &[&str]) {
        self.ban(args).is_done();
    }

    /// A call that ends so, with one line on standard error: that line.
    #[track_caller]
    pub fn says(&self, code: i32, args: &[&str]) -> String {
        self.pbx.world.masked(self.ban(args).line("ringfence-ban", code))
    }

    /// Whom a jail bans in the kernel, and for how many seconds still; zero: for ever.
    #[track_caller]
    pub fn banned(&self, jail: &str) -> BTreeMap<String, i64> {
        let start = format!("add rf-ban-{jail}-");
        let saved = run(self.pbx.host.command("ipset").arg("save"));
        let entries = saved.lines().filter_map(|line| line.strip_prefix(&start));
        entries
            .map(|entry| {
                let words: Vec<_> = entry.split(' ').collect();
                assert_eq!((words.len(), words[2]), (4, "timeout"), "{entry}");
                (words[1].to_owned(), words[3].parse().unwrap())
            })
            .collect()
    }

    /// Exactly these are banned by a jail, for about so many seconds.
    #[track_caller]
    pub fn bans(&self, jail: &str, wanted: &[(&str, i64)]) {
        let banned = self.banned(jail);
        let mut names: Vec<_> = wanted.iter().map(|(address, _)| *address).collect();
        names.sort_unstable();
        assert_eq!(banned.keys().map(String::as_str).collect::<Vec<_>>(), names, "{banned:?}");
        for (address, seconds) in wanted {
            let left = banned[*address];
            assert!((seconds - 60..=*seconds).contains(&left), "{address}: {left}, not {seconds}");
        }
    }

    /// The names of our sets.
    #[track_caller]
    pub fn sets(&self) -> Vec<String> {
        let names = self.pbx.host.shell("ipset list -name");
        let mut names: Vec<_> =
            names.lines().filter(|name| name.starts_with("rf-ban")).map(str::to_owned).collect();
        names.sort_unstable();
        names
    }

    /// The rules of the jails, of IPv4 and IPv6, without their comments and targets.
    #[track_caller]
    pub fn rules(&self) -> Vec<String> {
        let saved = self.pbx.saved_in(self.pbx.variant);
        let rules = saved.lines().filter_map(|line| line.strip_prefix("-A RF-BAN "));
        rules.map(|rule| rule.split(" -m comment").next().unwrap().to_owned()).collect()
    }

    /// Where packets for this host go first, of one family.
    #[track_caller]
    pub fn jumps(&self, family: &str) -> Vec<String> {
        let rules = self.pbx.input(family);
        rules.iter().map(|rule| rule.rsplit(' ').next().unwrap().to_owned()).collect()
    }

    /// fail2ban remembers nobody yet, and knows these jails.
    #[track_caller]
    pub fn has_database(&self, jails: &[&str]) {
        sqlite(&self.database(), TABLES);
        for jail in jails {
            sqlite(&self.database(), &format!("INSERT INTO jails (name) VALUES ('{jail}')"));
        }
    }

    /// fail2ban remembers them to be banned for so many seconds from `since` seconds ago on.
    #[track_caller]
    pub fn remember(&self, jail: &str, bans: &[(&str, i64, i64)]) {
        let row = |(id, since, length): &(&str, i64, i64)| {
            format!(
                "('{id}', '{jail}', {}, {length}, 1, '{{\"matches\": [], \"failures\": 1}}')",
                now() - since
            )
        };
        // An argument has at most 128 KiB.
        for bans in bans.chunks(500) {
            let rows = bans.iter().map(row).collect::<Vec<_>>().join(", ");
            let columns = "(ip, jail, timeofban, bantime, bancount, data)";
            sqlite(&self.database(), &format!("INSERT INTO bips {columns} VALUES {rows}"));
        }
    }

    /// What is listed.
    #[track_caller]
    pub fn list(&self) -> Vec<Value> {
        serde_json::from_value(self.ban(&["list", "--json"]).json()).unwrap()
    }

    /// The decisions of `ringfence-ban`: what, about whom, why.
    pub fn decisions(&self) -> Vec<[String; 3]> {
        let journal = self.pbx.world.journal();
        let ours = journal.iter().filter(|line| line["tool"] == "ringfence-ban");
        ours.map(|line| ["decision", "subject", "reason"].map(|name| line[name].as_str().unwrap().to_owned()))
            .collect()
    }

    /// How often there was this one.
    pub fn decided(&self, decision: &str, subject: &str, reason: &str) -> usize {
        let wanted = [decision, subject, reason].map(str::to_owned);
        self.decisions().into_iter().filter(|decision| *decision == wanted).count()
    }

    /// Nothing of ours is there, and what is the host's own is.
    #[track_caller]
    pub fn is_open(&self) {
        assert_eq!(self.sets(), [""; 0]);
        let saved = self.pbx.saved();
        assert!(!saved.contains("RF-BAN"), "{saved}");
        assert_eq!([self.jumps("iptables"), self.jumps("ip6tables")], [["ACCEPT"]; 2]);
    }
}
