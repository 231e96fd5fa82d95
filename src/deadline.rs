//! A point in time by which an answer is due.

use std::time::{Duration, Instant};

/// A point on the monotonic clock; every outside call gets one.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline that comes `span` after `start`.
    #[must_use]
    pub fn after(start: Instant, span: Duration) -> Self {
        Self(start + span)
    }

    /// This deadline, `span` earlier: for an inner call whose own error should be heard before the
    /// outer one gives up.
    #[must_use]
    pub fn earlier_by(self, span: Duration) -> Self {
        Self(self.0.checked_sub(span).unwrap_or(self.0))
    }

    /// The nearer of this deadline and `span` from now on.
    #[must_use]
    pub fn within(self, span: Duration) -> Self {
        Self(self.0.min(Instant::now() + span))
    }

    /// Time left; zero when it has passed.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether no time is left.
    #[must_use]
    pub fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }
}
