//! Numbers and times as the page has them.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::report::Kind;
use crate::report::axis::Step;

/// `1,204`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 address`, `1,204 addresses`.
pub(super) fn many(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { many })
}

/// `7 days`, `1 hour`, `90 minutes`, in the largest unit that there is a whole number of.
pub(super) fn length(length: Duration) -> String {
    let seconds = length.as_secs();
    let units = [(86_400, "day", "days"), (3_600, "hour", "hours"), (60, "minute", "minutes")];
    let (unit, one, more) = units
        .into_iter()
        .find(|(unit, ..)| seconds.is_multiple_of(*unit))
        .unwrap_or((1, "second", "seconds"));
    many(seconds / unit, one, more)
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn listed(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// Of blocks, in a legend.
pub(super) fn kind_words(kind: Kind) -> &'static str {
    match kind {
        Kind::Address => "Addresses",
        Kind::Account => "Accounts that do not exist",
        Kind::Device => "Failing devices",
    }
}

/// Of blocks, in a title.
pub(super) fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Address => "Addresses",
        Kind::Account => "Accounts",
        Kind::Device => "Devices",
    }
}

/// Times by the clock of a zone.
pub(super) struct Clock(pub(super) TimeZone);

impl Clock {
    /// `21 Nov 2026, 13:00`.
    pub(super) fn minute(&self, time: Timestamp) -> String {
        self.format(time, "%-d %b %Y, %H:%M")
    }

    /// `21 Nov 2026`.
    pub(super) fn day(&self, time: Timestamp) -> String {
        self.format(time, "%-d %b %Y")
    }

    /// `CET`, at that time.
    pub(super) fn zone(&self, time: Timestamp) -> String {
        self.format(time, "%Z")
    }

    /// Where a column begins: below it, and in full. Below the first of a day stands its date.
    pub(super) fn column(&self, start: Timestamp, step: Step) -> (String, String) {
        match step {
            Step::TenMinutes | Step::Hour if self.is_midnight(start) => {
                (self.format(start, "%-d %b"), self.format(start, "%a %-d %b, %H:%M"))
            }
            Step::TenMinutes | Step::Hour => {
                (self.format(start, "%H:%M"), self.format(start, "%a %-d %b, %H:%M"))
            }
            Step::Day => (self.format(start, "%-d %b"), self.format(start, "%a %-d %b %Y")),
            Step::Week => (self.format(start, "%-d %b"), self.format(start, "week of %-d %b %Y")),
        }
    }

    /// Whether a day begins then.
    pub(super) fn is_midnight(&self, time: Timestamp) -> bool {
        self.format(time, "%H:%M") == "00:00"
    }

    /// Whether an hour begins then.
    pub(super) fn is_full(&self, time: Timestamp) -> bool {
        self.format(time, "%M") == "00"
    }

    fn format(&self, time: Timestamp, format: &str) -> String {
        time.to_zoned(self.0.clone()).strftime(format).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_as_people_write_them() {
        let numbers = [0, 999, 1_000, 12_345, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "12,345", "1,234,567"]);
        let lengths = [604_800, 86_400, 7_200, 5_400, 90].map(|seconds| length(Duration::from_secs(seconds)));
        assert_eq!(lengths, ["7 days", "1 day", "2 hours", "90 minutes", "90 seconds"]);
        let parts = ["a", "b", "c"].map(str::to_owned);
        assert_eq!([0, 1, 2, 3].map(|count| listed(&parts[..count])), ["", "a", "a and b", "a, b and c"]);
        let clock = Clock(TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap());
        let time = "2026-11-01T12:05:09Z".parse().unwrap();
        assert_eq!(
            (clock.minute(time), clock.zone(time)),
            ("1 Nov 2026, 13:05".to_owned(), "CET".to_owned())
        );
        let labels = [Step::Hour, Step::Day, Step::Week].map(|step| clock.column(time, step));
        let expected =
            [("13:05", "Sun 1 Nov, 13:05"), ("1 Nov", "Sun 1 Nov 2026"), ("1 Nov", "week of 1 Nov 2026")];
        assert_eq!(labels, expected.map(|(short, long)| (short.to_owned(), long.to_owned())));
    }
}
