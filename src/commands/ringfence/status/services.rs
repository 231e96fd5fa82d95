//! What runs our tools: each that is needed on this host should.

use serde::{Serialize, Serializer};

use super::PATIENCE;
use super::attention::{About, Concerns};
use crate::services::{self, Paths, State, Unit};

/// A unit of ours.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Service {
    pub(super) unit: &'static str,
    pub(super) needed: bool,
    #[serde(serialize_with = "name")]
    pub(super) state: State,
}

fn name<S: Serializer>(state: &State, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(state.name())
}

pub(super) fn look(needed: &[&Unit], concerns: &mut Concerns) -> Option<Vec<Service>> {
    let paths = Paths::default();
    let found = services::look(&paths, PATIENCE);
    let found =
        concerns.part(About::Services, "systemctl is-system-running", "what runs our tools", found)?;
    let systemd = paths.has_systemd();
    let service = |(unit, state): (&'static Unit, State)| {
        let needed = needed.contains(&unit);
        if let Some((what, more)) = wrong(unit, &state, needed, systemd) {
            concerns.add(About::Services, what, more);
        }
        Service { unit: unit.name, needed, state }
    };
    Some(found.into_iter().map(service).collect())
}

fn wrong(unit: &Unit, state: &State, needed: bool, systemd: bool) -> Option<(String, String)> {
    let Unit { name, call, .. } = unit;
    let manual = || format!("man {}", name.split('.').next().unwrap_or(name).replace("-sets", "-lists"));
    match state {
        State::Failed(why) => {
            let service = name.replace(".timer", ".service");
            Some((format!("{service} failed ({why})"), format!("systemctl status {service}")))
        }
        State::Stopped if needed => {
            Some((format!("{name} does not run"), format!("systemctl enable --now {name}")))
        }
        State::Missing if needed && systemd => Some((format!("{name} is not installed"), manual())),
        // The service may run by other means, and what it writes tells.
        State::Missing if needed && !call.is_empty() => {
            Some((format!("nothing runs {call}: there is no systemd, and no crontab names it"), manual()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_should_run() {
        let [timer, sets, events] =
            ["ringfence-ban.timer", "ringfence-sets.service", "ringfence-events.service"]
                .map(|name| services::UNITS.iter().find(|unit| unit.name == name).unwrap());
        let failed = State::Failed("timeout".to_owned());
        for (unit, state, needed, systemd, expected) in [
            (timer, &State::Systemd, true, true, None),
            (timer, &State::Cron, true, false, None),
            (timer, &State::Stopped, false, true, None),
            (
                timer,
                &State::Stopped,
                true,
                true,
                Some(("ringfence-ban.timer does not run", "systemctl enable --now ringfence-ban.timer")),
            ),
            (
                timer,
                &failed,
                false,
                true,
                Some(("ringfence-ban.service failed (timeout)", "systemctl status ringfence-ban.service")),
            ),
            (
                sets,
                &State::Missing,
                true,
                true,
                Some(("ringfence-sets.service is not installed", "man ringfence-lists")),
            ),
            (
                timer,
                &State::Missing,
                true,
                false,
                Some((
                    "nothing runs ringfence-ban sync: there is no systemd, and no crontab names it",
                    "man ringfence-ban",
                )),
            ),
            (events, &State::Missing, true, false, None),
        ] {
            let expected = expected.map(|(what, more)| (what.to_owned(), more.to_owned()));
            assert_eq!(wrong(unit, state, needed, systemd), expected);
        }
    }
}
