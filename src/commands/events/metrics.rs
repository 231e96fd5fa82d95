//! What is counted, as Prometheus reads it.

use std::collections::BTreeMap;
use std::fmt::Write;

use jiff::Timestamp;

use crate::events::line::KINDS;

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

    /// The text format, version 0.0.4. What is not known is not there.
    pub(super) fn render(&self, present: Present) -> String {
        let mut text = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, values: &[(String, String)]| {
            let name = format!("ringfence_events_{name}");
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
            for (label, value) in values {
                let _ = writeln!(text, "{name}{label} {value}");
            }
        };
        let one = |value: String| [(String::new(), value)];
        let lines: Vec<_> = KINDS
            .iter()
            .map(|kind| {
                let count = self.lines.get(kind).copied().unwrap_or(0);
                (format!("{{kind=\"{kind}\"}}"), count.to_string())
            })
            .collect();
        metric("lines_total", "counter", "Lines of the log.", &lines);
        let dropped = one(present.dropped.to_string());
        metric("dropped_lines_total", "counter", "Lines that the disk did not take in time.", &dropped);
        let unreadable = one(self.unreadable.to_string());
        metric("unreadable_total", "counter", "Events that could not be read.", &unreadable);
        metric("connects_total", "counter", "Subscriptions.", &one(self.connects.to_string()));
        let connected = one(u8::from(present.connected).to_string());
        metric("connected", "gauge", "Whether events come.", &connected);
        if let Some(time) = self.last_event {
            #[expect(clippy::cast_precision_loss, reason = "milliseconds fit for 285,000 years")]
            let seconds = time.as_millisecond() as f64 / 1000.0;
            metric("last_event_timestamp_seconds", "gauge", "The last event.", &one(format!("{seconds:.3}")));
        }
        if let Some(count) = present.registered {
            let help = "Addresses with live registrations.";
            metric("registered_addresses", "gauge", help, &one(count.to_string()));
        }
        text
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
        let text = Counts::default().render(Present { dropped: 0, connected: false, registered: None });
        assert!(!text.contains("last_event") && !text.contains("registered_addresses"));
    }
}
