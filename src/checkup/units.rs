//! What runs by itself, every minute or all the time: systemd's units, or the lines of cron in their place.

use std::io;
use std::time::Duration;

use super::Subject::Timers;
use super::{Finding, Root};
use crate::config::Config;
use crate::config::lists::ListName;
use crate::fail2ban::jails::Jail;
use crate::services::{self, ALLOW, BAN, BLOCK, EVENTS, FIREWALL, LISTS, SETS, Shown, State, Unit};

/// No question to systemd takes longer.
const TIME: Duration = Duration::from_secs(5);

/// Where cron has its lines.
const CRON: [&str; 1] = ["/etc/cron.d"];
const CRONTAB: &str = "/etc/crontab";

/// Where units are enabled.
const WANTS: [&str; 3] = ["timers.target.wants", "sysinit.target.wants", "multi-user.target.wants"];

/// What must run on this host: by its settings, its jails, and whether rules were confirmed.
#[must_use]
pub fn needed(config: &Config, jails: &[Jail]) -> Vec<&'static Unit> {
    let acts = |program: &str| jails.iter().any(|jail| jail.acts_with(program));
    let rules = config.firewall_dir().join("confirmed.toml").exists();
    let lists = config.lists.keys().any(|list| *list != ListName::carriers());
    let reads_events = jails.iter().any(|jail| jail.logs.contains(&config.events_path()));
    [
        (lists || rules || acts("ringfence-allow"), &ALLOW),
        (acts("ringfence-ban"), &BAN),
        (acts("ringfence-block") || config.ledger_path().exists(), &BLOCK),
        (rules, &FIREWALL),
        (lists, &LISTS),
        (lists || rules || acts("ringfence-ban"), &SETS),
        (reads_events, &EVENTS),
    ]
    .into_iter()
    .filter_map(|(needed, unit)| needed.then_some(unit))
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
        !command.is_empty() && self.cron.lines().any(|line| services::calls(line, command))
    }

    /// Whether systemd runs here.
    #[must_use]
    pub fn is_systemd(&self) -> bool {
        self.systemd
    }
}

/// What systemd says of our units.
pub fn ask() -> anyhow::Result<Shown> {
    Shown::ask(TIME)
}

/// Whether what must run does. `states` are those of systemd, if it runs here and answers.
#[must_use]
pub fn running(
    units: &[&Unit],
    scheduler: &Scheduler,
    states: Option<&anyhow::Result<Shown>>,
) -> Vec<Finding> {
    let mut findings = vec![];
    for unit in units {
        findings.extend(one(unit, scheduler, states.and_then(|states| states.as_ref().ok())));
    }
    if let Some(Err(error)) = states {
        let what = format!("Whether timers and services run is not known: {error:#}.");
        findings.push(Finding::unknown(Timers, "running", what, "See: systemctl list-timers 'ringfence-*'"));
    }
    if findings.is_empty() {
        let names: Vec<_> = units.iter().map(|unit| unit.name.trim_start_matches("ringfence-")).collect();
        let what = match names[..] {
            [] => "nothing is in use that needs one".to_owned(),
            _ => format!("all that is needed runs: {}", names.join(", ")),
        };
        findings.push(Finding::fine(Timers, "running", what));
    }
    findings
}

fn one(unit: &Unit, scheduler: &Scheduler, states: Option<&Shown>) -> Option<Finding> {
    let Unit { name, call, without } = unit;
    if scheduler.cron_has(call) {
        return None;
    }
    let needs =
        |check: &'static str, what: String, remedy: String| Some(Finding::needs(Timers, check, what, remedy));
    if !scheduler.has(name) {
        let remedy = match (scheduler.systemd, *call) {
            (true, _) | (_, "") => format!("systemctl enable --now {name}"),
            _ => format!(
                "Take the line of `{call}` from packaging/cron.d/ringfence into /etc/cron.d/ringfence."
            ),
        };
        return needs(
            "enabled",
            format!("{name} is not enabled, nor is there a line of cron in its place: {without}."),
            remedy,
        );
    }
    match states?.state(unit) {
        State::Systemd | State::Cron => None,
        // What runs once at boot is done by now.
        State::Stopped | State::Missing if *unit == services::SETS => None,
        State::Stopped | State::Missing => needs(
            "running",
            format!("{name} is enabled, but does not run: {without}."),
            format!("systemctl start {name}"),
        ),
        State::Failed(_) => {
            let service = services::service(unit).unwrap_or_else(|| (*name).to_owned());
            needs(
                "failed",
                format!("The last run of {service} failed: {without}."),
                format!("See why: journalctl -u {service} -n 20; then: systemctl start {service}"),
            )
        }
    }
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
        assert!(needed(&config, &[]).is_empty());
        assert_eq!(needed(&config, &[jail("exec /usr/bin/ringfence-ban ban")]), [&BAN, &SETS]);
        assert_eq!(needed(&config, &[jail("exec /usr/bin/ringfence-block ban")]), [&BLOCK]);
        assert_eq!(needed(&config, &[jail("exec /usr/bin/ringfence-allow add")]), [&ALLOW]);
        assert_eq!(
            needed(&config, &[Jail { logs: vec![config.events_path()], ..Jail::default() }]),
            [&EVENTS]
        );
        let list =
            toml::from_str::<Config>("[lists.office]\nkind = \"allow\"\nentries = [\"192.0.2.1\"]").unwrap();
        let config = Config { lists: list.lists, ..config };
        std::fs::create_dir(config.firewall_dir()).unwrap();
        std::fs::write(config.firewall_dir().join("confirmed.toml"), "").unwrap();
        assert_eq!(needed(&config, &[]), [&ALLOW, &FIREWALL, &LISTS, &SETS]);
    }

    const STATES: &str = "Id=ringfence-allow.timer\nActiveState=active\nResult=success\n\nId=ringfence-ban.timer\nActiveState=inactive\n\
                          Result=success\n\nResult=exit-code\nActiveState=failed\nId=ringfence-allow.service\n";

    #[test]
    fn what_must_run_is_enabled_and_runs() {
        let checks = |files: &[(&str, &str)], units: &[&Unit], states: &str| -> Vec<(&str, String)> {
            let (_dir, root) = host::with(files);
            let states = Ok(Shown::parse(states));
            let found = running(units, &Scheduler::read(&root).unwrap(), Some(&states));
            found.into_iter().map(|finding| (finding.check, finding.remedy)).collect()
        };
        let wants = |unit: &'static str| (unit, "");
        let allow = wants("/etc/systemd/system/timers.target.wants/ringfence-allow.timer");
        let ban = wants("/etc/systemd/system/timers.target.wants/ringfence-ban.timer");
        let systemd = wants("/run/systemd/system/x");
        let enable = "systemctl enable --now ringfence-allow.timer".to_owned();
        assert_eq!(checks(&[systemd], &[&ALLOW], ""), [("enabled", enable)]);
        assert_eq!(checks(&[systemd], &[], ""), [("running", String::new())]);
        let fine = ("running", String::new());
        let cron = (
            "/etc/cron.d/ringfence",
            "# * * * * * root x\n* * * * * root exec ringfence-allow sync 2>/dev/null\n",
        );
        assert_eq!(checks(&[cron], &[&ALLOW], "")[0], fine);
        let other = ("/etc/cron.d/ringfence", "# * * * * * root exec ringfence-allow sync\n");
        assert!(checks(&[other], &[&ALLOW], "")[0].1.starts_with("Take the line of"));
        let start = "systemctl start ringfence-ban.timer".to_owned();
        assert_eq!(checks(&[ban, systemd], &[&BAN], STATES), [("running", start)]);
        assert_eq!(checks(&[allow, systemd], &[&ALLOW], STATES)[0].0, "failed");
        let better = STATES.replace("failed", "inactive");
        assert_eq!(checks(&[allow, systemd], &[&ALLOW], &better), [fine]);
    }
}
