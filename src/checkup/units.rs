//! What runs by itself, every minute or all the time: systemd's units, or the lines of cron in their place.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use super::Subject::Timers;
use super::{Finding, Root};
use crate::config::Config;
use crate::config::lists::ListName;
use crate::fail2ban::jails::Jail;
use crate::firewall;

/// Makes the sets at boot.
pub const SETS: &str = "ringfence-sets.service";

/// Writes the log of events.
pub const EVENTS: &str = "ringfence-events.service";

/// No question to systemd takes longer.
const TIME: Duration = Duration::from_secs(5);

/// Where cron has its lines.
const CRON: [&str; 1] = ["/etc/cron.d"];
const CRONTAB: &str = "/etc/crontab";

/// Where units are enabled.
const WANTS: [&str; 3] = ["timers.target.wants", "sysinit.target.wants", "multi-user.target.wants"];

/// Something that must run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// What systemd calls it.
    unit: &'static str,
    /// What cron would call in its place; empty where it is no job for cron.
    command: &'static str,
    /// What does not happen without it.
    without: &'static str,
}

const ALLOW: Job = Job {
    unit: "ringfence-allow.timer",
    command: "ringfence-allow sync",
    without: "registered phones do not come into the kernel's sets",
};
const BAN: Job = Job {
    unit: "ringfence-ban.timer",
    command: "ringfence-ban sync",
    without: "bans that fail2ban let go without a word stay in the kernel",
};
const BLOCK: Job = Job {
    unit: "ringfence-block.timer",
    command: "ringfence-block expire",
    without: "blocked accounts are let go late, and flushed rules do not come back",
};
const FIREWALL: Job = Job {
    unit: "ringfence-firewall.timer",
    command: "ringfence-firewall restore",
    without: "the rules do not come back after a boot or a flush",
};
const LISTS: Job = Job {
    unit: "ringfence-lists.timer",
    command: "ringfence-lists refresh",
    without: "black- and whitelists grow old",
};
const SETS_AT_BOOT: Job = Job {
    unit: SETS,
    command: "ringfence-lists load",
    without: "the sets are not there when saved rules are loaded at boot",
};
const LOG: Job = Job { unit: EVENTS, command: "", without: "the log that jails read is not written" };

/// What must run on this host: by its settings, its jails, and whether rules were confirmed.
#[must_use]
pub fn needed(config: &Config, jails: &[Jail]) -> Vec<Job> {
    let acts = |program: &str| jails.iter().any(|jail| jail.acts_with(program));
    let rules = config.firewall_dir().join("confirmed.toml").exists();
    let lists = config.lists.keys().any(|list| *list != ListName::carriers());
    let reads_events = jails.iter().any(|jail| jail.logs.contains(&config.events_path()));
    [
        (lists || rules || acts("ringfence-allow"), ALLOW),
        (acts("ringfence-ban"), BAN),
        (acts("ringfence-block") || config.ledger_path().exists(), BLOCK),
        (rules, FIREWALL),
        (lists, LISTS),
        (lists || rules || acts("ringfence-ban"), SETS_AT_BOOT),
        (reads_events, LOG),
    ]
    .into_iter()
    .filter_map(|(needed, job)| needed.then_some(job))
    .collect()
}

/// What is scheduled on a host, by its files.
#[derive(Clone, Debug, Default)]
pub struct Scheduler {
    /// systemd has booted it.
    systemd: bool,
    enabled: Vec<String>,
    cron: String,
}

impl Scheduler {
    /// Reads it.
    pub fn read(root: &Root) -> io::Result<Self> {
        let dirs: Vec<_> = WANTS
            .iter()
            .flat_map(|target| {
                ["/etc", "/usr/lib", "/lib"].map(|dir| format!("{dir}/systemd/system/{target}"))
            })
            .collect();
        let dirs: Vec<_> = dirs.iter().map(String::as_str).collect();
        let enabled = root.files(&dirs, "")?;
        let enabled =
            enabled.iter().filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect();
        let mut cron = root.text(CRONTAB)?.unwrap_or_default();
        for path in root.files(&CRON, "")? {
            // cron passes over names with a dot in them.
            if path.file_name().is_some_and(|name| !name.as_encoded_bytes().contains(&b'.')) {
                cron.push('\n');
                cron += &super::text(&path)?.unwrap_or_default();
            }
        }
        Ok(Self { systemd: root.at("/run/systemd/system").is_dir(), enabled, cron })
    }

    /// Whether a unit is enabled.
    #[must_use]
    pub fn has(&self, unit: &str) -> bool {
        self.enabled.iter().any(|name| name == unit)
    }

    fn cron_has(&self, command: &str) -> bool {
        let mut lines = self.cron.lines().filter(|line| !line.trim_start().starts_with('#'));
        !command.is_empty() && lines.any(|line| line.contains(command))
    }

    /// Whether systemd runs here.
    #[must_use]
    pub fn is_systemd(&self) -> bool {
        self.systemd
    }
}

/// What systemd says of units: whether they are active, and how they ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct States(BTreeMap<String, (String, String)>);

impl States {
    /// Asks systemd about these jobs, and the services of their timers.
    pub fn ask(jobs: &[Job]) -> anyhow::Result<Self> {
        let services: Vec<_> = jobs.iter().map(|job| job.unit.replace(".timer", ".service")).collect();
        let mut args = vec!["show", "--property=Id,ActiveState,Result"];
        args.extend(jobs.iter().map(|job| job.unit));
        args.extend(services.iter().map(String::as_str));
        firewall::run("systemd", "systemctl", &args, "", TIME).map(|text| Self::parse(&text))
    }

    /// Properties, a line each; an empty line between units.
    fn parse(text: &str) -> Self {
        let unit = |lines: &str| {
            let value = |key: &str| {
                let line = lines.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
                line.unwrap_or_default().to_owned()
            };
            (value("Id"), (value("ActiveState"), value("Result")))
        };
        Self(text.split("\n\n").map(unit).filter(|(id, _)| !id.is_empty()).collect())
    }

    fn is_active(&self, unit: &str) -> bool {
        self.0
            .get(unit)
            .is_some_and(|(state, _)| matches!(state.as_str(), "active" | "activating" | "reloading"))
    }

    fn failed(&self, unit: &str) -> bool {
        self.0
            .get(unit)
            .is_some_and(|(state, result)| state == "failed" || !matches!(result.as_str(), "" | "success"))
    }
}

/// Whether what must run does. `states` are those of systemd, if it runs here and answers.
#[must_use]
pub fn running(jobs: &[Job], scheduler: &Scheduler, states: Option<&anyhow::Result<States>>) -> Vec<Finding> {
    let mut findings = vec![];
    for job in jobs {
        findings.extend(one(*job, scheduler, states.and_then(|states| states.as_ref().ok())));
    }
    if let Some(Err(error)) = states {
        let what = format!("Whether timers and services run is not known: {error:#}.");
        findings.push(Finding::unknown(Timers, "running", what, "See: systemctl list-timers 'ringfence-*'"));
    }
    if findings.is_empty() {
        let names: Vec<_> = jobs.iter().map(|job| job.unit.trim_start_matches("ringfence-")).collect();
        let what = match names[..] {
            [] => "nothing is in use that needs one".to_owned(),
            _ => format!("all that is needed runs: {}", names.join(", ")),
        };
        findings.push(Finding::fine(Timers, "running", what));
    }
    findings
}

fn one(job: Job, scheduler: &Scheduler, states: Option<&States>) -> Option<Finding> {
    let Job { unit, command, without } = job;
    if scheduler.cron_has(command) {
        return None;
    }
    let needs =
        |check: &'static str, what: String, remedy: String| Some(Finding::needs(Timers, check, what, remedy));
    if !scheduler.has(unit) {
        let remedy = match (scheduler.systemd, command) {
            (true, _) | (_, "") => format!("systemctl enable --now {unit}"),
            _ => format!(
                "Take the line of `{command}` from packaging/cron.d/ringfence into /etc/cron.d/ringfence."
            ),
        };
        return needs(
            "enabled",
            format!("{unit} is not enabled, nor is there a line of cron in its place: {without}."),
            remedy,
        );
    }
    let states = states?;
    let service = unit.replace(".timer", ".service");
    // What runs once at boot is done by now.
    if !states.is_active(unit) && unit != SETS {
        return needs(
            "running",
            format!("{unit} is enabled, but does not run: {without}."),
            format!("systemctl start {unit}"),
        );
    }
    states.failed(&service).then(|| {
        let what = format!("The last run of {service} failed: {without}.");
        Finding::needs(
            Timers,
            "failed",
            what,
            format!("See why: journalctl -u {service} -n 20; then: systemctl start {service}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkup::host;
    use crate::fail2ban::jails::Action;

    #[test]
    fn only_what_is_used_must_run() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { state_dir: dir.path().into(), ..Config::default() };
        let jail = |ban: &str| Jail {
            actions: vec![Action { ban: ban.into(), ..Action::default() }],
            ..Jail::default()
        };
        assert_eq!(needed(&config, &[]), []);
        assert_eq!(needed(&config, &[jail("exec /usr/bin/ringfence-ban ban")]), [BAN, SETS_AT_BOOT]);
        assert_eq!(needed(&config, &[jail("exec /usr/bin/ringfence-block ban")]), [BLOCK]);
        assert_eq!(needed(&config, &[jail("exec /usr/bin/ringfence-allow add")]), [ALLOW]);
        assert_eq!(needed(&config, &[Jail { logs: vec![config.events_path()], ..Jail::default() }]), [LOG]);
        let list =
            toml::from_str::<Config>("[lists.office]\nkind = \"allow\"\nentries = [\"192.0.2.1\"]").unwrap();
        let config = Config { lists: list.lists, ..config };
        std::fs::create_dir(config.firewall_dir()).unwrap();
        std::fs::write(config.firewall_dir().join("confirmed.toml"), "").unwrap();
        assert_eq!(needed(&config, &[]), [ALLOW, FIREWALL, LISTS, SETS_AT_BOOT]);
    }

    const STATES: &str = "Id=ringfence-allow.timer\nActiveState=active\nResult=success\n\nId=ringfence-ban.timer\nActiveState=inactive\n\
                          Result=success\n\nResult=exit-code\nActiveState=inactive\nId=ringfence-allow.service\n";

    #[test]
    fn what_must_run_is_enabled_and_runs() {
        let checks = |files: &[(&str, &str)], jobs: &[Job], states: &str| -> Vec<(&str, String)> {
            let (_dir, root) = host::with(files);
            let states = Ok(States::parse(states));
            let found = running(jobs, &Scheduler::read(&root).unwrap(), Some(&states));
            found.into_iter().map(|finding| (finding.check, finding.remedy)).collect()
        };
        let wants = |unit: &'static str| (unit, "");
        let allow = wants("/etc/systemd/system/timers.target.wants/ringfence-allow.timer");
        let ban = wants("/etc/systemd/system/timers.target.wants/ringfence-ban.timer");
        let systemd = wants("/run/systemd/system/x");
        let enable = "systemctl enable --now ringfence-allow.timer".to_owned();
        assert_eq!(checks(&[systemd], &[ALLOW], ""), [("enabled", enable)]);
        assert_eq!(checks(&[systemd], &[], ""), [("running", String::new())]);
        let fine = ("running", String::new());
        let cron = (
            "/etc/cron.d/ringfence",
            "# * * * * * root x\n* * * * * root exec ringfence-allow sync 2>/dev/null\n",
        );
        assert_eq!(checks(&[cron], &[ALLOW], "")[0], fine);
        let other = ("/etc/cron.d/ringfence", "# * * * * * root exec ringfence-allow sync\n");
        assert!(checks(&[other], &[ALLOW], "")[0].1.starts_with("Take the line of"));
        let start = "systemctl start ringfence-ban.timer".to_owned();
        assert_eq!(checks(&[ban, systemd], &[BAN], STATES), [("running", start)]);
        assert_eq!(checks(&[allow, systemd], &[ALLOW], STATES)[0].0, "failed");
        let better = STATES.replace("exit-code", "success");
        assert_eq!(checks(&[allow, systemd], &[ALLOW], &better), [fine]);
    }
}
