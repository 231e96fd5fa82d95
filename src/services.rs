//! What runs our tools on this host: systemd's timers and services, or cron.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use crate::allow::timed;
use crate::config::Config;
use crate::config::lists::ListName;
use crate::fail2ban::jails::Jail;
use crate::registrations::Registry;
use crate::{bans, programs, state_file};

/// A unit of ours.
#[derive(Debug, PartialEq, Eq)]
pub struct Unit {
    /// systemd's name for what must be active.
    pub name: &'static str,
    /// What it calls, as it stands in a crontab; empty where cron cannot do it.
    pub call: &'static str,
    /// What does not happen without it, for people.
    pub without: &'static str,
}

/// Brings the rules back.
pub const FIREWALL: Unit = Unit {
    name: "ringfence-firewall.timer",
    call: "ringfence-firewall restore",
    without: "the rules do not come back after a boot or a flush",
};

/// Follows fail2ban.
pub const BAN: Unit = Unit {
    name: "ringfence-ban.timer",
    call: "ringfence-ban sync",
    without: "bans that fail2ban let go without a word stay in the kernel",
};

/// Lets accounts go.
pub const BLOCK: Unit = Unit {
    name: "ringfence-block.timer",
    call: "ringfence-block expire",
    without: "blocked accounts are let go late, and flushed rules do not come back",
};

/// Brings registered phones into the sets.
pub const ALLOW: Unit = Unit {
    name: "ringfence-allow.timer",
    call: "ringfence-allow sync",
    without: "registered phones do not come into the kernel's sets",
};

/// Downloads lists.
pub const LISTS: Unit = Unit {
    name: "ringfence-lists.timer",
    call: "ringfence-lists refresh",
    without: "black- and whitelists grow old",
};

/// Makes the sets at boot.
pub const SETS: Unit = Unit {
    name: "ringfence-sets.service",
    call: "ringfence-lists load",
    without: "the sets are not there when saved rules are loaded at boot",
};

/// Writes the log of events.
pub const EVENTS: Unit =
    Unit { name: "ringfence-events.service", call: "", without: "the log that jails read is not written" };

/// All of them.
pub const UNITS: [&Unit; 7] = [&FIREWALL, &BAN, &BLOCK, &ALLOW, &LISTS, &SETS, &EVENTS];

/// What must run on a host: by its settings, by what our tools keep there, and by the jails that are enabled.
#[must_use]
pub fn needed(config: &Config, jails: &[Jail], now: Timestamp) -> Vec<&'static Unit> {
    let acts = |program: &str| jails.iter().any(|jail| jail.acts_with(program));
    let rules = config.firewall_dir().join("confirmed.toml").exists();
    let lists = config.lists.keys().any(|list| *list != ListName::carriers());
    let bans = acts("ringfence-ban") || bans::read(&config.run_dir).is_ok_and(|jails| !jails.is_empty());
    let allows = acts("ringfence-allow")
        || timed::read(&config.state_dir, now.as_second()).is_ok_and(|allowed| !allowed.is_empty());
    let reads_events = jails.iter().any(|jail| jail.logs.contains(&config.events_path()));
    let events = reads_events || Registry::new(config).feed(now.as_millisecond()).is_some();
    [
        (rules, &FIREWALL),
        (bans, &BAN),
        (acts("ringfence-block") || config.ledger_path().exists(), &BLOCK),
        (lists || rules || allows, &ALLOW),
        (lists, &LISTS),
        // Saved rules name the sets.
        (lists || rules || bans, &SETS),
        (events, &EVENTS),
    ]
    .into_iter()
    .filter_map(|(needed, unit)| needed.then_some(unit))
    .collect()
}

/// What runs a unit of ours, or why nothing does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// systemd does, and its last run was good.
    Systemd,
    /// A line in a crontab does.
    Cron,
    /// systemd does, but its last run failed: why, in systemd's word.
    Failed(String),
    /// systemd knows it, and it does not run.
    Stopped,
    /// Neither systemd nor cron knows it.
    Missing,
}

impl State {
    /// In one word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::Cron => "cron",
            Self::Failed(_) => "failed",
            Self::Stopped => "stopped",
            Self::Missing => "missing",
        }
    }

    /// Whether all is well with it.
    #[must_use]
    pub const fn runs(&self) -> bool {
        matches!(self, Self::Systemd | Self::Cron)
    }
}

/// Where a host has what is looked at.
#[derive(Clone, Debug)]
pub struct Paths {
    /// There where systemd is the service manager.
    pub systemd: PathBuf,
    /// Crontabs, and directories of them.
    pub crontabs: Vec<PathBuf>,
}

impl Default for Paths {
    fn default() -> Self {
        Self::below(Path::new("/"))
    }
}

impl Paths {
    /// Those of a host whose files begin there.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        let crontabs = ["etc/crontab", "etc/cron.d", "var/spool/cron/crontabs/root", "var/spool/cron/root"];
        Self {
            systemd: root.join("run/systemd/system"),
            crontabs: crontabs.map(|path| root.join(path)).to_vec(),
        }
    }

    /// Whether systemd is the service manager.
    #[must_use]
    pub fn has_systemd(&self) -> bool {
        self.systemd.is_dir()
    }
}

/// The state of each of [`UNITS`], in their order. An error says that systemd does not answer within `time`.
pub fn look(paths: &Paths, time: Duration) -> anyhow::Result<Vec<(&'static Unit, State)>> {
    let shown = if paths.has_systemd() { Shown::ask(time)? } else { Shown::default() };
    let cron = paths.cron();
    let state = |unit: &'static Unit| {
        let own = shown.state(unit);
        // A failure is the one thing that cron does not mend.
        (
            unit,
            if cron.runs(unit) && matches!(own, State::Stopped | State::Missing) { State::Cron } else { own },
        )
    };
    Ok(UNITS.into_iter().map(state).collect())
}

/// What systemd says of all units.
#[derive(Debug, Default)]
pub struct Shown(BTreeMap<String, Properties>);

type Properties = BTreeMap<String, String>;

/// Brings what was downloaded into the kernel, after each download.
const LOAD: &str = "ringfence-lists-load.service";

/// What a timer starts, and what that starts.
fn services(unit: &Unit) -> impl Iterator<Item = String> {
    let started = unit.name.strip_suffix(".timer").map(|name| format!("{name}.service"));
    started.into_iter().chain((*unit == LISTS).then(|| LOAD.to_owned()))
}

impl Shown {
    /// Asks systemd. An error says that it does not answer within `time`.
    pub fn ask(time: Duration) -> anyhow::Result<Self> {
        let mut args = vec!["show", "--no-pager", "--property=Id,LoadState,ActiveState,SubState,Result"];
        let services: Vec<String> = UNITS.into_iter().flat_map(services).collect();
        args.extend(UNITS.iter().map(|unit| unit.name).chain(services.iter().map(String::as_str)));
        programs::run("systemd", "systemctl", &args, "", time).map(|text| Self::parse(&text))
    }

    /// Units are apart by empty lines.
    pub(crate) fn parse(text: &str) -> Self {
        let properties = |block: &str| -> Properties {
            let pairs = block.lines().filter_map(|line| line.split_once('='));
            pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
        };
        let named = |block: Properties| Some((block.get("Id")?.clone(), block));
        Self(text.split("\n\n").map(properties).filter_map(named).collect())
    }

    fn value(&self, unit: &str, key: &str) -> &str {
        self.0.get(unit).and_then(|unit| unit.get(key)).map_or("", String::as_str)
    }

    fn failure(&self, unit: &str) -> Option<String> {
        match (self.value(unit, "ActiveState"), self.value(unit, "SubState")) {
            // It is started again and again.
            ("failed", _) | ("activating", "auto-restart") => Some(self.value(unit, "Result").to_owned()),
            _ => None,
        }
    }

    /// The name of what failed: the unit, or what it starts.
    #[must_use]
    pub fn failed(&self, unit: &Unit) -> Option<String> {
        let mut names = std::iter::once(unit.name.to_owned()).chain(services(unit));
        names.find(|name| self.failure(name).is_some())
    }

    /// Whether a unit runs; never by cron.
    #[must_use]
    pub fn state(&self, unit: &Unit) -> State {
        if !self.0.contains_key(unit.name) || self.value(unit.name, "LoadState") == "not-found" {
            return State::Missing;
        }
        if let Some(why) = self.failed(unit).and_then(|name| self.failure(&name)) {
            return State::Failed(why);
        }
        // A oneshot is activating while it is at work.
        match self.value(unit.name, "ActiveState") {
            "active" | "activating" | "reloading" => State::Systemd,
            _ => State::Stopped,
        }
    }
}

/// What crontabs say.
#[derive(Clone, Debug, Default)]
pub struct Cron(Vec<String>);

impl Paths {
    /// Reads the crontabs; what cannot be read says nothing.
    #[must_use]
    pub fn cron(&self) -> Cron {
        const LONGEST: u64 = 1 << 20;
        let mut lines = vec![];
        let mut read = |path: &Path| {
            let content = state_file::read_regular(path, LONGEST).unwrap_or_default();
            lines.extend(String::from_utf8_lossy(&content).lines().map(str::to_owned));
        };
        // cron passes over all other names, as of what dpkg put aside.
        let is_name =
            |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        for path in &self.crontabs {
            match std::fs::read_dir(path) {
                Ok(entries) => entries
                    .filter_map(Result::ok)
                    .filter(|entry| entry.file_name().to_str().is_some_and(is_name))
                    .for_each(|entry| read(&entry.path())),
                Err(_) => read(path),
            }
        }
        Cron(lines)
    }
}

impl Cron {
    /// Whether a line calls what this unit does.
    #[must_use]
    pub fn runs(&self, unit: &Unit) -> bool {
        !unit.call.is_empty() && self.0.iter().any(|line| calls(line, unit.call))
    }
}

/// Whether a line of a crontab calls it, and does not only speak of it.
fn calls(line: &str, call: &str) -> bool {
    const SPEAK: [&str; 3] = ["echo", "printf", "logger"];
    let calls = |command: &str| {
        let Some((before, after)) = command.split_once(call) else { return false };
        let whole = (before.is_empty() || before.ends_with([' ', '\t', '/']))
            && (after.is_empty() || after.starts_with([' ', '\t', '>']));
        whole && !before.split_whitespace().any(|word| SPEAK.contains(&word) || word.starts_with('#'))
    };
    !line.trim_start().starts_with('#') && line.split([';', '&', '|', '(', ')']).any(calls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fail2ban::jails::Action;

    fn unit(name: &str, load: &str, active: &str, sub: &str, result: &str) -> String {
        format!("Result={result}\nId={name}\nLoadState={load}\nActiveState={active}\nSubState={sub}\n")
    }

    #[test]
    fn systemd_says_what_runs() {
        let (timer, service) = ("ringfence-ban.timer", "ringfence-ban.service");
        for (what, units, expected) in [
            (
                "waits",
                [
                    unit(timer, "loaded", "active", "waiting", "success"),
                    unit(service, "loaded", "inactive", "dead", "success"),
                ],
                State::Systemd,
            ),
            (
                "is at work",
                [
                    unit(timer, "loaded", "active", "running", "success"),
                    unit(service, "loaded", "activating", "start", "success"),
                ],
                State::Systemd,
            ),
            (
                "failed",
                [
                    unit(timer, "loaded", "active", "waiting", "success"),
                    unit(service, "loaded", "failed", "failed", "timeout"),
                ],
                State::Failed("timeout".to_owned()),
            ),
            (
                "stopped",
                [
                    unit(timer, "loaded", "inactive", "dead", "success"),
                    unit(service, "loaded", "inactive", "dead", "success"),
                ],
                State::Stopped,
            ),
            (
                "not there",
                [
                    unit(timer, "not-found", "inactive", "dead", ""),
                    unit(service, "not-found", "inactive", "dead", ""),
                ],
                State::Missing,
            ),
        ] {
            assert_eq!(Shown::parse(&units.join("\n")).state(&BAN), expected, "{what}");
        }
        let again = unit(EVENTS.name, "loaded", "activating", "auto-restart", "exit-code");
        assert_eq!(Shown::parse(&again).state(&EVENTS), State::Failed("exit-code".to_owned()));
        assert_eq!(Shown::parse("").state(&EVENTS), State::Missing);
    }

    #[test]
    fn cron_does_it_too() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("cron.d")).unwrap();
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/cron.d/ringfence");
        std::fs::copy(shipped, dir.path().join("cron.d/ringfence")).unwrap();
        std::fs::write(dir.path().join("crontab"), "# * * * * * ringfence-events run\n").unwrap();
        let paths = Paths {
            systemd: dir.path().join("none"),
            crontabs: ["crontab", "cron.d", "missing"].map(|name| dir.path().join(name)).to_vec(),
        };
        let look = |paths: &Paths| look(paths, Duration::from_secs(1)).unwrap();
        for (unit, state) in look(&paths) {
            let expected = if unit.call.is_empty() { State::Missing } else { State::Cron };
            assert_eq!(state, expected, "{}", unit.name);
        }
        std::fs::rename(dir.path().join("cron.d/ringfence"), dir.path().join("cron.d/ringfence.dpkg-old"))
            .unwrap();
        assert!(look(&paths).iter().all(|(_, state)| *state == State::Missing));
    }

    #[test]
    fn a_crontab_may_only_speak_of_it() {
        for (line, expected) in [
            ("* * * * * root exec ringfence-ban sync 2>/dev/null", true),
            ("* * * * * /usr/bin/ringfence-ban sync", true),
            ("@reboot root ringfence-lists load; exec ringfence-ban sync>/dev/null", true),
            ("* * * * * (sleep 5;ringfence-ban sync)", true),
            ("# * * * * * root ringfence-ban sync", false),
            ("* * * * * root true # ringfence-ban sync", false),
            ("* * * * * root echo ringfence-ban sync", false),
            ("* * * * * root ringfence-ban synchronise", false),
            ("* * * * * root my-ringfence-ban sync", false),
        ] {
            assert_eq!(calls(line, BAN.call), expected, "{line}");
        }
    }

    #[test]
    fn only_what_is_used_must_run() {
        let dir = tempfile::tempdir().unwrap();
        let config =
            Config { state_dir: dir.path().into(), run_dir: dir.path().join("run"), ..Config::default() };
        let needed = |config: &Config, jails: &[Jail]| needed(config, jails, Timestamp::UNIX_EPOCH);
        let jail = |ban: &str| Jail {
            actions: vec![Action { ban: ban.into(), ..Action::default() }],
            ..Jail::default()
        };
        assert!(needed(&config, &[]).is_empty());
        assert_eq!(needed(&config, &[jail("exec /usr/bin/ringfence-ban ban")]), [&BAN, &SETS]);
        assert_eq!(needed(&config, &[jail("exec /usr/bin/ringfence-block ban")]), [&BLOCK]);
        assert_eq!(needed(&config, &[jail("exec /usr/bin/ringfence-allow add")]), [&ALLOW]);
        let reader = Jail { logs: vec![config.events_path()], ..Jail::default() };
        assert_eq!(needed(&config, &[reader]), [&EVENTS]);
        let list =
            toml::from_str::<Config>("[lists.office]\nkind = \"allow\"\nentries = [\"192.0.2.1\"]").unwrap();
        let config = Config { lists: list.lists, ..config };
        std::fs::create_dir(config.firewall_dir()).unwrap();
        std::fs::write(config.firewall_dir().join("confirmed.toml"), "").unwrap();
        assert_eq!(needed(&config, &[]), [&FIREWALL, &ALLOW, &LISTS, &SETS]);
    }

    #[test]
    fn each_unit_is_one_that_is_packaged() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd");
        for unit in UNITS {
            let names: Vec<_> = services(unit).chain([unit.name.to_owned()]).collect();
            let text: String =
                names.iter().map(|name| std::fs::read_to_string(dir.join(name)).unwrap()).collect();
            // In two units, one of them without privileges.
            let calls = if *unit == LISTS {
                &["ringfence-lists fetch", "ringfence-lists load"][..]
            } else {
                &[unit.call]
            };
            for call in calls {
                assert!(
                    call.is_empty() || text.contains(&format!("/usr/bin/{call}")),
                    "{}: {call}",
                    unit.name
                );
            }
            assert!(dir.join(unit.name).exists());
        }
    }
}
