//! The rule by which a chain of ours lets everything pass for a while.

use jiff::Timestamp;

use super::saved::{Saved, SavedRule, Verdict};
use super::{Layout, Rule};
use crate::pause::Pause;

/// The first rule of the first chain of an owner. The kernel compares with its clock, in UTC; the last second still counts.
fn rule(until: i64, prefix: &str) -> Rule {
    let last = Timestamp::from_second(until - 1).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%S");
    Rule::new(format!("-m time --datestop {last}"), "RETURN")
        .counting_for(prefix)
        .about("a pause: nothing is blocked until then")
}

/// Whether it is such a rule, of any pause.
pub(super) fn is_pause(rule: &SavedRule) -> bool {
    rule.tag.is_some() && rule.value("--datestop").is_some() && rule.verdict() == Some(Verdict::Return)
}

/// What is tried: the same rule in a chain of its own.
pub(super) fn trial(until: i64) -> String {
    const CHAIN: &str = "RF-TRIAL";
    format!("*filter\n:{CHAIN} - [0:0]\n-A {CHAIN} {}\nCOMMIT\n", rule(until, CHAIN))
}

/// Whether the kernel, or iptables, lacks what ends a pause.
pub(super) fn is_impossible(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}");
    ["Extension time", "match `time'"].iter().any(|sign| text.contains(sign))
}

/// Says what is missing, where that is why there can be no pause.
pub(super) fn explained(error: anyhow::Error) -> anyhow::Error {
    if is_impossible(&error) {
        return error.context(
            "the match `time`, by which the kernel ends a pause, is not there (module xt_time; some systems have it in the package \
             linux-modules-extra); nothing was changed",
        );
    }
    error
}

impl Layout {
    /// This layout during a pause, or without one.
    #[must_use]
    pub(super) fn paused(mut self, pause: Pause) -> Self {
        let Some(first) = self.chains.iter_mut().find(|chain| chain.name == self.prefix) else { return self };
        first.rules.retain(|rule| !rule.pauses());
        if let Some(until) = pause.until() {
            first.rules.insert(0, rule(until, &self.prefix));
        }
        self
    }

    /// The same for who only looks: what a pause that is over has left there does nothing, and is as it should be.
    #[must_use]
    pub(super) fn paused_as(self, pause: Pause, saved: &Saved) -> Self {
        match pause {
            Pause::Over(until) => {
                let left = rule(until, &self.prefix).tag();
                let there = saved.rules(&self.prefix).iter().any(|rule| rule.tag == Some(left));
                self.paused(if there { Pause::Until(until) } else { Pause::Not })
            }
            pause => self.paused(pause),
        }
    }
}
