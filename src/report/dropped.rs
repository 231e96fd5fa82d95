//! What the kernel dropped, in packets.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::axis::{Axis, Step};
use crate::drops::{self, Hour, Kind};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// Packets over a time, in whole hours.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Dropped {
    /// When the record of them began; `None` if there is none yet.
    pub begun: Option<Timestamp>,
    /// How long a column is.
    pub step: Step,
    /// What was dropped.
    pub dropped: Packets,
    /// What would have been, had the mode not been observe.
    pub observed: Packets,
}

/// Packets by reason.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Packets {
    /// All.
    pub packets: u64,
    /// Over time.
    pub columns: Vec<Column>,
    /// Why, the most frequent first.
    pub reasons: Vec<Reason>,
}

/// Packets in one column of a chart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Column {
    /// Where it begins.
    pub start: Timestamp,
    /// How many, by what dropped them.
    pub packets: BTreeMap<Kind, u64>,
}

/// Packets for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Reason {
    /// What dropped them.
    pub kind: Kind,
    /// Which of its kind; empty where there is one only.
    pub name: String,
    /// How many.
    pub packets: u64,
}

/// What is added up.
#[derive(Debug)]
pub struct Adding {
    axis: Axis,
    dropped: Packets,
    observed: Packets,
}

impl Adding {
    /// In columns of a time, of an hour at least, by the calendar of a zone.
    pub fn new(since: Timestamp, until: Timestamp, zone: &TimeZone) -> Result<Self, jiff::Error> {
        let axis = Axis::of_hours(since, until, zone)?;
        let column = |start: &Timestamp| Column { start: *start, packets: BTreeMap::new() };
        let columns: Vec<_> = axis.starts().iter().map(column).collect();
        let none = Packets { packets: 0, columns, reasons: vec![] };
        Ok(Self { axis, dropped: none.clone(), observed: none })
    }

    /// Adds an hour.
    pub fn hour(&mut self, Hour { hour, totals, .. }: &Hour) {
        // In a zone of half hours, the first column may begin amid an hour.
        let first = self.axis.starts().first().filter(|first| **first < *hour + HOUR);
        let begin = first.map_or(*hour, |first| (*hour).max(*first));
        let Some(at) = self.axis.column(begin) else { return };
        for (packets, by_reason) in
            [(&mut self.dropped, &totals.dropped), (&mut self.observed, &totals.observed)]
        {
            for (reason, count) in by_reason {
                packets.add(at, reason, *count);
            }
        }
    }

    /// All of it, of a record that began then.
    #[must_use]
    pub fn finish(mut self, begun: Option<Timestamp>) -> Dropped {
        for packets in [&mut self.dropped, &mut self.observed] {
            packets.reasons.sort_by(|one, other| {
                let names = |reason: &Reason| (reason.kind, reason.name.clone());
                other.packets.cmp(&one.packets).then_with(|| names(one).cmp(&names(other)))
            });
        }
        Dropped { begun, step: self.axis.step(), dropped: self.dropped, observed: self.observed }
    }
}

impl Packets {
    fn add(&mut self, at: usize, reason: &drops::Reason, count: u64) {
        let drops::Reason { kind, name } = reason;
        self.packets = self.packets.saturating_add(count);
        let column = self.columns[at].packets.entry(*kind).or_default();
        *column = column.saturating_add(count);
        match self.reasons.iter_mut().find(|there| there.kind == *kind && there.name == *name) {
            Some(there) => there.packets = there.packets.saturating_add(count),
            None => self.reasons.push(Reason { kind: *kind, name: name.clone(), packets: count }),
        }
    }

    /// How many of each kind, the most frequent first.
    #[must_use]
    pub fn kinds(&self) -> Vec<(Kind, u64)> {
        let sum = |kind: Kind| self.columns.iter().filter_map(|column| column.packets.get(&kind)).sum();
        let mut kinds: Vec<_> = Kind::ALL.map(|kind| (kind, sum(kind))).into_iter().collect();
        kinds.retain(|(_, packets)| *packets > 0);
        kinds.sort_by_key(|(_, packets)| std::cmp::Reverse(*packets));
        kinds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drops::Totals;

    #[test]
    fn an_hour_that_began_before_the_first_column_is_in_it() {
        let india = TimeZone::posix("IST-5:30").unwrap();
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let mut adding =
            Adding::new(time("2026-11-21T10:45:00Z"), time("2026-11-21T16:45:00Z"), &india).unwrap();
        let dropped = BTreeMap::from([(drops::Reason::only(Kind::BlockList), 1)]);
        let totals = Totals { dropped, ..Totals::default() };
        for hour in ["2026-11-21T09:00:00Z", "2026-11-21T10:00:00Z", "2026-11-21T11:00:00Z"] {
            adding.hour(&Hour::new(time(hour), totals.clone()));
        }
        let dropped = adding.finish(None).dropped;
        assert_eq!(dropped.columns[0].start, time("2026-11-21T10:30:00Z"));
        let counts = |column: &Column| column.packets.values().sum::<u64>();
        let counts: Vec<_> = dropped.columns.iter().map(counts).collect();
        assert_eq!((dropped.packets, &counts[..2]), (2, &[2, 0][..]));
    }
}
