//! What runs our tools on this host: systemd's timers and services, or cron.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{firewall, state_file};

/// A unit of ours.
#[derive(Debug, PartialEq, Eq)]
pub struct Unit {
    /// systemd's name for what must be active.
    pub name: &'static str,
    /// What it calls, as it stands in a crontab; empty where cron cannot do it.
    pub call: &'static str,
}

/// All of them.
pub const UNITS: [Unit; 7] = [
    Unit { name: "ringfence-firewall.timer", call: "ringfence-firewall restore" },
    Unit { name: "ringfence-ban.timer", call: "ringfence-ban sync" },
    Unit { name: "ringfence-block.timer", call: "ringfence-block expire" },
    Unit { name: "ringfence-allow.timer", call: "ringfence-allow sync" },
    Unit { name: "ringfence-lists.timer", call: "ringfence-lists refresh" },
    Unit { name: "ringfence-sets.service", call: "ringfence-lists load" },
    Unit { name: "ringfence-events.service", call: "" },
];

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
        let crontabs =
            ["/etc/crontab", "/etc/cron.d", "/var/spool/cron/crontabs/root", "/var/spool/cron/root"];
        Self { systemd: "/run/systemd/system".into(), crontabs: crontabs.map(PathBuf::from).to_vec() }
    }
}

impl Paths {
    /// Whether systemd is the service manager.
    #[must_use]
    pub fn has_systemd(&self) -> bool {
        self.systemd.is_dir()
    }
}

/// The state of each of [`UNITS`], in their order. An error says that systemd does not answer within `time`.
pub fn look(paths: &Paths, time: Duration) -> anyhow::Result<Vec<(&'static Unit, State)>> {
    let shown = if paths.has_systemd() { show(time)? } else { BTreeMap::new() };
    let cron = crontabs(&paths.crontabs);
    let state = |unit: &'static Unit| {
        let own = systemd(&shown, unit.name);
        let by_cron = !unit.call.is_empty() && cron.iter().any(|line| calls(line, unit.call));
        // A failure is the one thing that cron does not mend.
        (unit, if by_cron && matches!(own, State::Stopped | State::Missing) { State::Cron } else { own })
    };
    Ok(UNITS.iter().map(state).collect())
}

type Properties = BTreeMap<String, String>;

fn show(time: Duration) -> anyhow::Result<BTreeMap<String, Properties>> {
    let mut args = vec!["show", "--no-pager", "--property=Id,LoadState,ActiveState,SubState,Result"];
    let services: Vec<String> = UNITS.iter().filter_map(|unit| service(unit.name)).collect();
    args.extend(UNITS.iter().map(|unit| unit.name).chain(services.iter().map(String::as_str)));
    firewall::run("systemd", "systemctl", &args, "", time).map(|text| parse(&text))
}

/// What a timer starts.
fn service(unit: &str) -> Option<String> {
    unit.strip_suffix(".timer").map(|name| format!("{name}.service"))
}

/// Units are apart by empty lines.
fn parse(text: &str) -> BTreeMap<String, Properties> {
    let properties = |block: &str| -> Properties {
        let pairs = block.lines().filter_map(|line| line.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    };
    let named = |block: Properties| Some((block.get("Id")?.clone(), block));
    text.split("\n\n").map(properties).filter_map(named).collect()
}

fn systemd(shown: &BTreeMap<String, Properties>, unit: &str) -> State {
    let value = |unit: &str, key: &str| -> &str {
        shown.get(unit).and_then(|unit| unit.get(key)).map_or("", String::as_str)
    };
    let failure = |unit: &str| match (value(unit, "ActiveState"), value(unit, "SubState")) {
        // It is started again and again.
        ("failed", _) | ("activating", "auto-restart") => Some(value(unit, "Result").to_owned()),
        _ => None,
    };
    if !shown.contains_key(unit) || value(unit, "LoadState") == "not-found" {
        return State::Missing;
    }
    if let Some(why) = failure(unit).or_else(|| failure(&service(unit)?)) {
        return State::Failed(why);
    }
    // A oneshot is activating while it is at work.
    match value(unit, "ActiveState") {
        "active" | "activating" | "reloading" => State::Systemd,
        _ => State::Stopped,
    }
}

/// The lines of crontabs; what cannot be read has none.
fn crontabs(paths: &[PathBuf]) -> Vec<String> {
    const LONGEST: u64 = 1 << 20;
    let mut lines = vec![];
    let mut read = |path: &Path| {
        let content = state_file::read_regular(path, LONGEST).unwrap_or_default();
        lines.extend(String::from_utf8_lossy(&content).lines().map(str::to_owned));
    };
    for path in paths {
        match std::fs::read_dir(path) {
            Ok(entries) => entries.filter_map(Result::ok).for_each(|entry| read(&entry.path())),
            Err(_) => read(path),
        }
    }
    lines
}

fn calls(line: &str, call: &str) -> bool {
    !line.trim_start().starts_with('#') && line.contains(call)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(systemd(&parse(&units.join("\n")), timer), expected, "{what}");
        }
        let events = "ringfence-events.service";
        let again = unit(events, "loaded", "activating", "auto-restart", "exit-code");
        assert_eq!(systemd(&parse(&again), events), State::Failed("exit-code".to_owned()));
        assert_eq!(systemd(&parse(""), events), State::Missing);
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
        assert!(look(&Paths { crontabs: vec![], ..paths }).iter().all(|(_, state)| *state == State::Missing));
    }

    #[test]
    fn each_unit_is_one_that_is_packaged() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd");
        for unit in &UNITS {
            let name = service(unit.name).unwrap_or_else(|| unit.name.to_owned());
            let text = std::fs::read_to_string(dir.join(name)).unwrap();
            assert!(
                text.contains(&format!("/usr/bin/{}", unit.call)) || unit.call.is_empty(),
                "{}",
                unit.name
            );
            assert!(dir.join(unit.name).exists());
        }
    }
}
