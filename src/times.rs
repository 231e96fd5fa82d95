//! Points in time and spans, as every tool writes them. Inside, a point in time is so many seconds since 1970.

use std::fmt;

use jiff::Timestamp;
use serde::de::{Deserializer, Error, Visitor};
use serde::{Serialize, Serializer};

/// Seconds in at most two units: `42s`, `12m`, `4h 12m`, `3d 4h`.
#[must_use]
pub fn span(seconds: i64) -> String {
    const UNITS: [(i64, &str); 3] = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let seconds = seconds.max(0);
    for (at, (unit, name)) in UNITS.iter().enumerate() {
        if seconds >= *unit {
            let whole = format!("{}{name}", seconds / unit);
            return match UNITS.get(at + 1).map(|(smaller, name)| (seconds % unit / smaller, name)) {
                Some((rest, name)) if rest > 0 => format!("{whole} {rest}{name}"),
                _ => whole,
            };
        }
    }
    format!("{seconds}s")
}

/// As JSON has a point in time: as of RFC 3339, in UTC. One that no calendar has is the first or the last that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rfc3339(i64);

impl Serialize for Rfc3339 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let nearest = if self.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Timestamp::from_second(self.0).unwrap_or(nearest).serialize(serializer)
    }
}

/// For `serialize_with`.
pub fn rfc3339<S: Serializer>(second: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    Rfc3339(*second).serialize(serializer)
}

/// The same where there may be none.
pub fn rfc3339_if<S: Serializer>(second: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    second.map(Rfc3339).serialize(serializer)
}

/// For `deserialize_with`: a point in time as JSON has it, or seconds since 1970.
pub fn second<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    struct Second;

    impl Visitor<'_> for Second {
        type Value = i64;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a time as of RFC 3339, or seconds since 1970")
        }

        fn visit_i64<E: Error>(self, second: i64) -> Result<i64, E> {
            Ok(second)
        }

        fn visit_u64<E: Error>(self, second: u64) -> Result<i64, E> {
            second.try_into().map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(second), &self))
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<i64, E> {
            let time = text.parse().map(Timestamp::as_second);
            time.map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
        }
    }

    deserializer.deserialize_any(Second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_at_most_two_units() {
        let spans = [-5, 0, 59, 60, 119, 3_600, 15_120, 86_400, 273_700].map(span);
        assert_eq!(spans, ["0s", "0s", "59s", "1m", "1m", "1h", "4h 12m", "1d", "3d 4h"]);
    }

    #[test]
    fn json_has_dates() {
        for (second, expected) in [
            (0, "\"1970-01-01T00:00:00Z\""),
            (1_795_183_743, "\"2026-11-20T14:09:03Z\""),
            (i64::MIN, "\"-009999-01-02T01:59:59Z\""),
            (i64::MAX, "\"9999-12-30T22:00:00.999999999Z\""),
        ] {
            assert_eq!(serde_json::to_string(&Rfc3339(second)).unwrap(), expected);
        }
    }

    #[test]
    fn dates_and_seconds_are_read() {
        let read = |text: &str| second(&mut serde_json::Deserializer::from_str(text));
        for (text, expected) in [
            ("\"2026-11-20T14:09:03Z\"", 1_795_183_743),
            ("\"2026-11-20T15:09:03.9+01:00\"", 1_795_183_743),
            ("1795183743", 1_795_183_743),
            ("-1", -1),
        ] {
            assert_eq!(read(text).unwrap(), expected, "{text}");
        }
        for text in ["\"\"", "\"1795183743\"", "\"2026-11-20 14:09\"", "18446744073709551615", "1.5", "null"]
        {
            let error = read(text).unwrap_err().to_string();
            assert!(
                error.contains("expected a time as of RFC 3339, or seconds since 1970"),
                "{text}: {error}"
            );
        }
    }
}
