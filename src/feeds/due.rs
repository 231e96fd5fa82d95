//! When a source is asked, and when it is left alone.

use std::time::Duration;

use crate::config::lists::{Format, List, SPAMHAUS_EVERY, Source};

/// A run may come so much early and counts as in time: cron and the timer start within an hour at random.
const EARLY: i64 = 3_600;

/// Whether the source of `list` is due at `now`, when it was last good at `confirmed`, both in seconds since 1970. A run
/// that comes a little early, as cron's may, counts as in time.
#[must_use]
pub fn is_due(list: &List, confirmed: i64, now: i64) -> bool {
    let early = (every(list) / 4).min(EARLY);
    // A clock that was set back is no reason to wait.
    now < confirmed || next_due(list, confirmed).is_none_or(|next| now >= next - early)
}

/// So long the source of `list` is left alone even where its answer was refused.
#[must_use]
pub fn least_pause(list: &List) -> Duration {
    match list.source {
        Source::Web { format: Format::Spamhaus, .. } => SPAMHAUS_EVERY,
        _ => Duration::ZERO,
    }
}

/// When the source of `list` is due again, in seconds since 1970; `None` for what is on this host and read in every run.
#[must_use]
pub fn next_due(list: &List, confirmed: i64) -> Option<i64> {
    list.is_foreign().then(|| confirmed.saturating_add(every(list)))
}

fn every(list: &List) -> i64 {
    i64::try_from(list.every.get().as_secs()).unwrap_or(i64::MAX)
}
