//! What was decided within a day.

use std::collections::HashMap;

use anyhow::Context;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::attention::{About, Concerns};
use crate::commands::screen::counted;
use crate::config::Config;
use crate::evidence::past;
use crate::times::rfc3339;

/// So many kinds are told apart; there are fewer, unless the journal is not ours alone.
const MOST: usize = 500;

/// Decisions of a kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Row {
    pub(super) tool: String,
    pub(super) decision: String,
    pub(super) reason: String,
    /// They took no effect.
    pub(super) observed: bool,
    pub(super) count: u64,
    /// Seconds since 1970.
    #[serde(serialize_with = "rfc3339")]
    pub(super) last: i64,
}

/// The most frequent first.
pub(super) fn look(config: &Config, now: Timestamp, concerns: &mut Concerns) -> Option<Vec<Row>> {
    let path = config.log_dir.join("decisions.jsonl");
    let more = format!("ls -l {}", path.display());
    let mut kinds: HashMap<(String, String, String, bool), (u64, i64)> = HashMap::new();
    let read = past::since(&config.log_dir, now - SignedDuration::from_hours(24), |past| {
        let decision = past.decision;
        let kind = (decision.tool, decision.decision, decision.reason, decision.mode == "observe");
        if kinds.len() < MOST || kinds.contains_key(&kind) {
            let (count, last) = kinds.entry(kind).or_insert((0, i64::MIN));
            *count += u64::from(past.count);
            *last = (*last).max(past.when.as_second());
        }
    });
    let read = read.with_context(|| format!("cannot read {}", path.display()));
    let odd = concerns.part(About::Journal, &more, "the decisions of the last day", read)?;
    if odd > 0 {
        let lines = counted(odd, "line is", "lines are");
        concerns.add(About::Journal, format!("{lines} none of the format of {}", path.display()), more);
    }
    let row = |((tool, decision, reason, observed), (count, last))| Row {
        tool,
        decision,
        reason,
        observed,
        count,
        last,
    };
    let mut rows: Vec<Row> = kinds.into_iter().map(row).collect();
    rows.sort_by(|one, other| {
        let names = |row: &Row| (row.tool.clone(), row.decision.clone(), row.reason.clone(), row.observed);
        other.count.cmp(&one.count).then_with(|| names(one).cmp(&names(other)))
    });
    Some(rows)
}
