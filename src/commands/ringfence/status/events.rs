//! The service that listens to FreeSWITCH's events.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::attention::{About, Concerns};
use crate::commands::events::metrics::Counted;
use crate::commands::screen::span;
use crate::config::Config;
use crate::registrations::{LiveFeed, Registry};
use crate::state_file;

/// The service writes its counts every 15 seconds; older ones are of one that ended.
const FRESH: Duration = Duration::from_mins(1);

/// What there is of it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Events {
    /// Who is registered counts as it says.
    pub(super) live: bool,
    /// Seconds since it said so; absent where it did not since the boot.
    pub(super) age: Option<u64>,
    /// Addresses with live registrations.
    pub(super) addresses: Option<usize>,
    /// Absent where the settings name no file for it, or it is not written.
    pub(super) counted: Option<Counted>,
}

pub(super) fn look(config: &Config, now: Timestamp, concerns: &mut Concerns) -> Events {
    const MORE: &str = "systemctl status ringfence-events";
    let feed = Registry::new(config).feed(now.as_millisecond());
    if let Some(LiveFeed { age, is_live: false, .. }) = feed {
        let age = span(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
        let what =
            format!("ringfence-events has not said for {age} who is registered; all tools ask by themselves");
        concerns.add(About::Events, what, MORE);
    }
    let file = config.events.metrics.as_ref();
    let counted = file.and_then(|file| counted(file.path(), now));
    if counted.as_ref().is_some_and(|counted| !counted.connected) {
        concerns.add(About::Events, "ringfence-events is not connected to FreeSWITCH", MORE);
    }
    Events {
        live: feed.is_some_and(|feed| feed.is_live),
        age: feed.map(|feed| feed.age.as_secs()),
        addresses: feed.map(|feed| feed.addresses),
        counted,
    }
}

/// The text is what it is by: one that is not written any more says nothing.
fn counted(path: &Path, now: Timestamp) -> Option<Counted> {
    const LONGEST: u64 = 1 << 20;
    let written = Timestamp::try_from(std::fs::metadata(path).ok()?.modified().ok()?).ok()?;
    // In the future, too: the clock was set.
    let age = now.duration_since(written).unsigned_abs();
    let text = state_file::read_regular(path, LONGEST).ok().filter(|_| age < FRESH)?;
    Counted::parse(&String::from_utf8_lossy(&text))
}
