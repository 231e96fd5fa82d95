//! What is counted, as Prometheus reads it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::commands::prometheus::{Exposition, Kind, samples};
use crate::events::line::KINDS;

/// What the names begin with.
const PREFIX: &str = "ringfence_events";

const LINES: &str = "lines_total";
const DROPPED: &str = "dropped_lines_total";
const CONNECTED: &str = "connected";

/// Counts since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    lines: BTreeMap<&'static str, u64>,
    pub(super) unreadable: u64,
    pub(super) connects: u64,
    pub(super) last_event: Option<Timestamp>,
}

/// How things are now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Present {
    pub(super) dropped: u64,
    pub(super) connected: bool,
    /// None if they are not all known.
    pub(super) registered: Option<usize>,
}

impl Counts {
    pub(super) fn line(&mut self, kind: &'static str) {
        *self.lines.entry(kind).or_default() += 1;
    }

    /// The text of a file for Prometheus. What is not known is not there.
    pub(super) fn render(&self, present: Present) -> String {
        let mut metrics = Exposition::new(PREFIX);
        let count = |kind: &str| self.lines.get(kind).copied().unwrap_or(0);
        let lines = KINDS.iter().map(|kind| ([("kind", (*kind).to_owned())], count(kind)));
        metrics.each(LINES, Kind::Counter, "Lines of the log.", lines);
        let mut counter = |name, help, value| metrics.one(name, Kind::Counter, help, Some(value));
        counter(DROPPED, "Lines that the disk did not take in time.", present.dropped);
        counter("unreadable_total", "Events that could not be read.", self.unreadable);
        counter("connects_total", "Subscriptions.", self.connects);
        let mut gauge = |name, help, value: Option<String>| metrics.one(name, Kind::Gauge, help, value);
        gauge(CONNECTED, "Whether events come.", Some(u8::from(present.connected).to_string()));
        let last = self.last_event.map(|time| {
            #[expect(clippy::cast_precision_loss, reason = "milliseconds fit for 285,000 years")]
            let seconds = time.as_millisecond() as f64 / 1000.0;
            format!("{seconds:.3}")
        });
        gauge("last_event_timestamp_seconds", "The last event.", last);
        let registered = present.registered.map(|count| count.to_string());
        gauge("registered_addresses", "Addresses with live registrations.", registered);
        metrics.finish()
    }
}

/// What the service wrote into its file last, for `ringfence status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::commands) struct Counted {
    pub(in crate::commands) connected: bool,
    /// Since it started, by kind.
    pub(in crate::commands) lines: BTreeMap<String, u64>,
    /// Lines that the disk did not take in time.
    pub(in crate::commands) dropped: u64,
}

impl Counted {
    /// `None` if the text is none of ours.
    pub(in crate::commands) fn parse(text: &str) -> Option<Self> {
        let (mut counted, mut found) = (Self::default(), false);
        for (name, value) in samples(text) {
            let Some(name) = name.strip_prefix(PREFIX).and_then(|name| name.strip_prefix('_')) else {
                continue;
            };
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is a count of ours"
            )]
            let count = value as u64;
            let kind = name.strip_prefix(LINES).and_then(|labels| labels.split('"').nth(1));
            match (name, kind) {
                (_, Some(kind)) => drop(counted.lines.insert(kind.to_owned(), count)),
                (DROPPED, _) => counted.dropped = count,
                (CONNECTED, _) => (counted.connected, found) = (count > 0, true),
                _ => {}
            }
        }
        found.then_some(counted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_what_prometheus_reads() {
        let mut counts = Counts { connects: 2, ..Counts::default() };
        counts.line("failure");
        counts.line("failure");
        counts.last_event = Some("2026-11-21T14:12:03.123456Z".parse().unwrap());
        let text = counts.render(Present { dropped: 7, connected: true, registered: Some(3) });
        for line in [
            "# TYPE ringfence_events_lines_total counter",
            "ringfence_events_lines_total{kind=\"failure\"} 2",
            "ringfence_events_lines_total{kind=\"alarm\"} 0",
            "ringfence_events_dropped_lines_total 7",
            "ringfence_events_connects_total 2",
            "ringfence_events_connected 1",
            "ringfence_events_last_event_timestamp_seconds 1795270323.123",
            "ringfence_events_registered_addresses 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        let counted = Counted::parse(&text).unwrap();
        assert_eq!((counted.connected, counted.dropped, counted.lines["failure"]), (true, 7, 2));
        assert_eq!((counted.lines.len(), Counted::parse("ringfence_x 1\n")), (KINDS.len(), None));
        let text = Counts::default().render(Present { dropped: 0, connected: false, registered: None });
        assert!(!text.contains("last_event") && !text.contains("registered_addresses"));
    }
}
