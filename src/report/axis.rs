//! The columns of a chart over time: whole units of the calendar, at most about a hundred.

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp, ToSpan, Unit, Zoned, ZonedRound};
use serde::Serialize;

/// How long a column is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Ten minutes.
    TenMinutes,
    /// An hour.
    Hour,
    /// A day, from midnight to midnight.
    Day,
    /// A week, from Monday on.
    Week,
}

/// Columns side by side, the first with the begin of a time in it, the last with its end.
#[derive(Clone, Debug)]
pub struct Axis {
    step: Step,
    /// In order, and the end of the last.
    bounds: Vec<Timestamp>,
}

impl Step {
    /// The one for a time of this length.
    fn of(length: SignedDuration) -> Self {
        match length.as_hours() {
            ..6 => Self::TenMinutes,
            6..72 => Self::Hour,
            72..2_232 => Self::Day,
            _ => Self::Week,
        }
    }

    fn span(self) -> Span {
        match self {
            Self::TenMinutes => 10.minutes(),
            Self::Hour => 1.hour(),
            Self::Day => 1.day(),
            Self::Week => 1.week(),
        }
    }

    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::TenMinutes => "ten minutes",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
        }
    }

    /// Where the column with this time in it begins.
    fn start(self, time: &Zoned) -> Result<Zoned, jiff::Error> {
        let floor = |unit, increment| {
            time.round(ZonedRound::new().smallest(unit).increment(increment).mode(jiff::RoundMode::Trunc))
        };
        match self {
            Self::TenMinutes => floor(Unit::Minute, 10),
            Self::Hour => floor(Unit::Hour, 1),
            Self::Day => time.start_of_day(),
            Self::Week => {
                let since_monday = i64::from(time.weekday().since(Weekday::Monday));
                time.checked_sub(since_monday.days())?.start_of_day()
            }
        }
    }
}

impl Axis {
    /// From `since` to `until`, by the calendar of a zone.
    pub fn new(since: Timestamp, until: Timestamp, zone: &TimeZone) -> Result<Self, jiff::Error> {
        Self::in_steps(Step::of(until.duration_since(since)), since, until, zone)
    }

    /// The same, in no parts of an hour.
    pub fn of_hours(since: Timestamp, until: Timestamp, zone: &TimeZone) -> Result<Self, jiff::Error> {
        Self::in_steps(Step::of(until.duration_since(since)).max(Step::Hour), since, until, zone)
    }

    fn in_steps(
        step: Step,
        since: Timestamp,
        until: Timestamp,
        zone: &TimeZone,
    ) -> Result<Self, jiff::Error> {
        let mut next = step.start(&since.to_zoned(zone.clone()))?;
        let mut bounds = vec![next.timestamp()];
        while bounds.last().is_some_and(|bound| *bound <= until) {
            // What a change of the clocks moves is moved back by it.
            next = step.start(&next.checked_add(step.span())?)?;
            if bounds.last().is_some_and(|bound| *bound >= next.timestamp()) {
                next = next.checked_add(step.span())?;
            }
            bounds.push(next.timestamp());
        }
        Ok(Self { step, bounds })
    }

    /// How long a column is.
    #[must_use]
    pub fn step(&self) -> Step {
        self.step
    }

    /// How many columns there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.bounds.len() - 1
    }

    /// Where they begin, in order.
    #[must_use]
    pub fn starts(&self) -> &[Timestamp] {
        &self.bounds[..self.count()]
    }

    /// The column with this time in it; `None` for a time before or behind all of them.
    #[must_use]
    pub fn column(&self, time: Timestamp) -> Option<usize> {
        let behind = self.bounds.partition_point(|bound| *bound <= time);
        behind.checked_sub(1).filter(|at| *at < self.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_of_the_calendar() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        for (since, until, zone, step, count, first, last) in [
            (
                "2026-11-21T12:34:00Z",
                "2026-11-21T13:34:00Z",
                TimeZone::UTC,
                Step::TenMinutes,
                7,
                "2026-11-21T12:30:00Z",
                "2026-11-21T13:30:00Z",
            ),
            (
                "2026-11-20T13:34:00Z",
                "2026-11-21T13:34:00Z",
                TimeZone::UTC,
                Step::Hour,
                25,
                "2026-11-20T13:00:00Z",
                "2026-11-21T13:00:00Z",
            ),
            (
                "2026-11-14T13:34:00Z",
                "2026-11-21T13:34:00Z",
                TimeZone::UTC,
                Step::Day,
                8,
                "2026-11-14T00:00:00Z",
                "2026-11-21T00:00:00Z",
            ),
            (
                "2025-11-20T13:34:00Z",
                "2026-11-21T13:34:00Z",
                TimeZone::UTC,
                Step::Week,
                53,
                "2025-11-17T00:00:00Z",
                "2026-11-16T00:00:00Z",
            ),
            // A day of 25 hours.
            (
                "2026-10-22T12:00:00Z",
                "2026-10-27T12:00:00Z",
                berlin.clone(),
                Step::Day,
                6,
                "2026-10-21T22:00:00Z",
                "2026-10-26T23:00:00Z",
            ),
            (
                "2026-10-24T23:30:00Z",
                "2026-10-25T23:30:00Z",
                berlin,
                Step::Hour,
                25,
                "2026-10-24T23:00:00Z",
                "2026-10-25T23:00:00Z",
            ),
        ] {
            let axis = Axis::new(time(since), time(until), &zone).unwrap();
            assert_eq!((axis.step(), axis.count()), (step, count), "{since}");
            assert_eq!((axis.starts()[0], axis.starts()[count - 1]), (time(first), time(last)), "{since}");
            assert_eq!((axis.column(time(since)), axis.column(time(until))), (Some(0), Some(count - 1)));
            assert_eq!(axis.column(time("2020-01-01T00:00:00Z")), None);
            assert_eq!(axis.column(time("2030-01-01T00:00:00Z")), None);
        }
    }
}
