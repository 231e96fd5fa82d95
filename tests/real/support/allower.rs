//! A host where addresses are allowed for a time, and what its kernel has of that.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use super::{Call, Host, World, call, run};

/// A host of its own, with FreeSWITCH's SQLite files and nobody registered. It has no routes and no name servers, and nobody is
/// logged in.
pub struct Allower {
    pub host: Host,
    pub world: World,
}

impl Allower {
    pub fn new() -> Self {
        let allower = Self { host: bare(), world: World::with_databases() };
        allower.configure("");
        allower
    }

    /// These lines go before all others of the settings.
    pub fn configure(&self, top: &str) {
        // No look at the registrations is shared, and a machine that is busy is no fault.
        self.world.configure("source = \"sqlite\"\ncache = \"0s\"\ndeadline = \"10s\"\n");
        let settings = std::fs::read_to_string(self.world.config()).unwrap();
        std::fs::write(self.world.config(), format!("{top}\n{settings}")).unwrap();
    }

    /// As after a boot: neither sets nor what runs share.
    pub fn boot(&mut self) {
        self.world.reboot();
        self.host = bare();
    }

    /// A call that is ready to be run there. It is the process itself: killed, it is dead.
    pub fn command(&self, args: &[&str]) -> Command {
        self.host.call(&self.world.allow_command(args))
    }

    #[track_caller]
    pub fn allow(&self, args: &[&str]) -> Call {
        call(&mut self.command(args))
    }

    /// A call that is done, and has nothing to say.
    #[track_caller]
    pub fn does(&self, args: &[&str]) {
        self.allow(args).is_done();
    }

    /// A call that ends so, with one line on standard error: that line.
    #[track_caller]
    pub fn says(&self, code: i32, args: &[&str]) -> String {
        self.told(code, &self.allow(args))
    }

    /// The one line that a call said, which ended so.
    #[track_caller]
    pub fn told(&self, code: i32, call: &Call) -> String {
        self.world.masked(call.line("ringfence-allow", code))
    }

    /// What is listed.
    #[track_caller]
    pub fn list(&self) -> Vec<Value> {
        serde_json::from_value(self.allow(&["list", "--json"]).json()).unwrap()
    }

    /// Who is listed, on whose word.
    #[track_caller]
    pub fn listed(&self) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or("by hand").to_owned();
        self.list()
            .iter()
            .map(|entry| format!("{} {}", text(&entry["address"]), text(&entry["jail"])))
            .collect()
    }

    /// Who is in the kernel's sets of addresses seen, and for how many seconds still.
    pub fn seen(&self) -> BTreeMap<String, i64> {
        let saved = run(self.host.command("ipset").arg("save"));
        let entries = saved.lines().filter_map(|line| line.strip_prefix("add rf-seen-ip"));
        entries
            .map(|entry| {
                let words: Vec<_> = entry.split(' ').collect();
                assert_eq!(words[2], "timeout", "{entry}");
                (words[1].to_owned(), words[3].parse().unwrap())
            })
            .collect()
    }

    /// Exactly these are in the kernel's sets, for about so many seconds.
    #[track_caller]
    pub fn has_seen(&self, wanted: &[(&str, i64)]) {
        let seen = self.seen();
        let mut names: Vec<_> = wanted.iter().map(|(address, _)| *address).collect();
        names.sort_unstable();
        assert_eq!(seen.keys().map(String::as_str).collect::<Vec<_>>(), names, "{seen:?}");
        for (address, seconds) in wanted {
            let left = seen[*address];
            assert!((seconds - 120..=*seconds).contains(&left), "{address}: {left}, not {seconds}");
        }
    }

    /// The decisions of `ringfence-allow`: what, about whom, why.
    pub fn decisions(&self) -> Vec<[String; 3]> {
        let journal = self.world.journal();
        let ours = journal.iter().filter(|line| line["tool"] == "ringfence-allow");
        ours.map(|line| ["decision", "subject", "reason"].map(|name| line[name].as_str().unwrap().to_owned()))
            .collect()
    }

    /// Whether there was this one.
    pub fn decided(&self, decision: &str, subject: &str, reason: &str) -> bool {
        self.decisions().contains(&[decision, subject, reason].map(str::to_owned))
    }
}

fn bare() -> Host {
    let host = Host::new();
    host.shell(
        "mount -t tmpfs tmpfs /run; touch /run/empty; [ ! -e /etc/resolv.conf ] || mount --bind /run/empty /etc/resolv.conf",
    );
    host
}
