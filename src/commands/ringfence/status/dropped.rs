//! What the kernel dropped.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::attention::{About, Concerns};
use crate::commands::screen::{counted, span};
use crate::config::Config;
use crate::drops::{self, Kind, Reason, Totals};

/// Packets by reason.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Dropped {
    /// When the record began.
    pub(super) begun: Timestamp,
    /// Within a day, in whole hours.
    pub(super) last_day: Totals,
    /// Since it began.
    pub(super) all: Totals,
}

/// `None` where nothing was counted yet, too.
pub(super) fn look(config: &Config, now: Timestamp, concerns: &mut Concerns) -> Option<Dropped> {
    let path = config.state_dir.join("drops");
    let more = format!("ls -l {}", path.display());
    let mut last_day = Totals::default();
    let add = |hour: drops::Hour| last_day.add(&hour.totals);
    let read = drops::since(&config.state_dir, now - SignedDuration::from_hours(24), add);
    let read = read.with_context(|| format!("cannot read {}", path.display()));
    let record = concerns.part(About::Journal, &more, "the packets that were dropped", read)?;
    if record.odd > 0 {
        let lines = counted(record.odd, "line is", "lines are");
        concerns.add(About::Journal, format!("{lines} none of the format of {}", path.display()), more);
    }
    Some(Dropped { begun: record.begun?, last_day, all: record.all })
}

impl Dropped {
    /// In one line.
    pub(super) fn words(&self, now: i64) -> String {
        const DAY: i64 = 24 * 60 * 60;
        let age = now - self.begun.as_second();
        let time =
            if age < DAY { format!("{}, since the count began", span(age)) } else { "a day".to_owned() };
        let (dropped, observed) = (sum(&self.last_day.dropped), sum(&self.last_day.observed));
        let mut text = match dropped {
            0 => format!("no packet in {time}"),
            _ => format!(
                "{} in {time}: {}",
                counted(dropped, "packet", "packets"),
                parts(&self.last_day.dropped)
            ),
        };
        if observed > 0 {
            let parts = parts(&self.last_day.observed);
            let _ = write!(text, "; {observed} would have been, in mode observe: {parts}");
        }
        text
    }
}

fn sum(totals: &BTreeMap<Reason, u64>) -> u64 {
    totals.values().sum()
}

/// The largest first.
fn parts(totals: &BTreeMap<Reason, u64>) -> String {
    let mut parts: BTreeMap<&str, u64> = BTreeMap::new();
    for (reason, packets) in totals {
        *parts.entry(words(reason.kind)).or_default() += packets;
    }
    let mut parts: Vec<_> = parts.into_iter().collect();
    parts.sort_by_key(|(words, packets)| (std::cmp::Reverse(*packets), *words));
    parts.iter().map(|(words, packets)| format!("{packets} {words}")).collect::<Vec<_>>().join(", ")
}

fn words(kind: Kind) -> &'static str {
    match kind {
        Kind::Ban => "by bans",
        Kind::Account => "of blocked accounts",
        Kind::BlockList => "by block lists",
        Kind::Limit | Kind::GoingOn => "above limits",
        Kind::Scanner => "of scanners",
        Kind::Restriction => "to ports for others",
        Kind::Hardening => "of impossible TCP",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_one_line() {
        let totals = |reasons: &[(&str, u64)]| {
            reasons.iter().map(|(reason, packets)| (reason.parse().unwrap(), *packets)).collect()
        };
        let words = |begun, dropped: &[(&str, u64)], observed: &[(&str, u64)]| {
            let last_day = Totals { dropped: totals(dropped), observed: totals(observed) };
            let begun = Timestamp::from_second(begun).unwrap();
            Dropped { begun, all: last_day.clone(), last_day }.words(100_000)
        };
        assert_eq!(words(0, &[], &[]), "no packet in a day");
        assert_eq!(words(92_800, &[], &[]), "no packet in 2h, since the count began");
        assert_eq!(
            words(0, &[("limit REGISTER", 2), ("block-list", 90), ("going-on", 5), ("ban sip", 1)], &[]),
            "98 packets in a day: 90 by block lists, 7 above limits, 1 by bans"
        );
        assert_eq!(
            words(0, &[("hardening", 1)], &[("scanner x y", 3)]),
            "1 packet in a day: 1 of impossible TCP; 3 would have been, in mode observe: 3 of scanners"
        );
    }
}
