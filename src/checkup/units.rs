//! What runs by itself, every minute or all the time: systemd's units, or the lines of cron in their place.

use std::io;
use std::time::Duration;

use super::Subject::Timers;
use super::{Finding, Root};
use crate::services::{self, Cron, Paths, Shown, State, Unit};

/// No question to systemd takes longer.
const TIME: Duration = Duration::from_secs(5);

/// Where units are enabled.
const WANTS: [&str; 3] = ["timers.target.wants", "sysinit.target.wants", "multi-user.target.wants"];

/// What is scheduled on a host, by its files.
#[derive(Clone, Debug, Default)]
pub struct Scheduler {
    /// systemd has booted it.
    systemd: bool,
    enabled: Vec<String>,
    cron: Cron,
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
        let paths = Paths::below(&root.at("/"));
        Ok(Self { systemd: paths.has_systemd(), enabled, cron: paths.cron() })
    }

    /// Whether systemd will start a unit: links alone, which packages make everywhere, do not.
    #[must_use]
    pub fn has(&self, unit: &Unit) -> bool {
        self.systemd && self.enabled.iter().any(|name| name == unit.name)
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
    // Without systemd a service may run by other means, and what it writes tells.
    if scheduler.cron.runs(unit) || !scheduler.systemd && call.is_empty() {
        return None;
    }
    let needs = |check: &'static str, what: String, remedy: String| {
        Some(Finding::needs(Timers, check, what, remedy).about(name))
    };
    if !scheduler.has(unit) {
        let remedy = if scheduler.systemd {
            format!("systemctl enable --now {name}")
        } else {
            format!(
                "Take the line of `{call}` from /usr/share/doc/ringfence/examples/ringfence.cron into /etc/cron.d/ringfence."
            )
        };
        return needs(
            "enabled",
            format!("{name} is not enabled, nor is there a line of cron in its place: {without}."),
            remedy,
        );
    }
    let states = states?;
    match states.state(unit) {
        State::Systemd | State::Cron => None,
        // What runs once at boot is done by now.
        State::Stopped | State::Missing if *unit == services::SETS => None,
        State::Stopped | State::Missing => needs(
            "running",
            format!("{name} is enabled, but does not run: {without}."),
            format!("systemctl start {name}"),
        ),
        State::Failed(_) => {
            let service = states.failed(unit).unwrap_or_else(|| (*name).to_owned());
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
    use crate::services::{ALLOW, BAN, EVENTS};

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
        let spool = ("/var/spool/cron/crontabs/root", "* * * * * /usr/bin/ringfence-allow sync\n");
        assert_eq!(checks(&[spool], &[&ALLOW], "")[0], fine);
        // Links that nobody heeds.
        assert_eq!(checks(&[allow], &[&ALLOW], "")[0].0, "enabled");
        assert_eq!(checks(&[], &[&EVENTS], "")[0], fine);
        let other = ("/etc/cron.d/ringfence", "# * * * * * root exec ringfence-allow sync\n");
        assert!(checks(&[other], &[&ALLOW], "")[0].1.starts_with("Take the line of"));
        let start = "systemctl start ringfence-ban.timer".to_owned();
        assert_eq!(checks(&[ban, systemd], &[&BAN], STATES), [("running", start)]);
        assert_eq!(checks(&[allow, systemd], &[&ALLOW], STATES)[0].0, "failed");
        let better = STATES.replace("failed", "inactive");
        assert_eq!(checks(&[allow, systemd], &[&ALLOW], &better), [fine]);
    }
}
