//! The text format of Prometheus, version 0.0.4, as `node_exporter`'s textfile collector reads it.

use std::fmt::{Display, Write as _};

/// What a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// Metrics with the same beginning of their names.
#[derive(Debug)]
pub(super) struct Exposition {
    prefix: &'static str,
    text: String,
}

impl Exposition {
    pub(super) const fn new(prefix: &'static str) -> Self {
        Self { prefix, text: String::new() }
    }

    /// One number without labels; nothing where it is not known.
    pub(super) fn one(&mut self, name: &str, kind: Kind, help: &str, value: Option<impl Display>) {
        self.each(name, kind, help, value.map(|value| ([], value)));
    }

    /// A number for each set of labels, which must all differ. Without any, the metric is not there.
    pub(super) fn each<const N: usize, V: Display>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'static str, String); N], V)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        let (name, kind) = (format!("{}_{name}", self.prefix), kind.name());
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (labels, value) in samples {
            let labels: Vec<_> =
                labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(self.text, "{name}{labels} {value}");
        }
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

/// The value of a label.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// What a file of ours says: each metric with its labels as they were written, and its number.
pub(super) fn samples(text: &str) -> impl Iterator<Item = (&str, f64)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_what_is_not_known_is_not_there() {
        let mut metrics = Exposition::new("ringfence_x");
        metrics.one("seconds", Kind::Gauge, "Time.", Some(1.5));
        metrics.one("unknown", Kind::Gauge, "Nobody knows.", None::<u64>);
        let named = |name: &str| [("name", name.to_owned()), ("n", "1".to_owned())];
        metrics.each("bans_total", Kind::Counter, "Bans.", [(named("a\"\\\n{}"), 3), (named("b c"), 4)]);
        let text = metrics.finish();
        assert_eq!(
            text,
            "# HELP ringfence_x_seconds Time.\n# TYPE ringfence_x_seconds gauge\nringfence_x_seconds 1.5\n\
             # HELP ringfence_x_bans_total Bans.\n# TYPE ringfence_x_bans_total counter\n\
             ringfence_x_bans_total{name=\"a\\\"\\\\\\n{}\",n=\"1\"} 3\nringfence_x_bans_total{name=\"b c\",n=\"1\"} 4\n"
        );
        let read: Vec<_> = samples(&text).map(|(_, value)| value).collect();
        assert_eq!(read, [1.5, 3.0, 4.0]);
    }
}
