//! The rules by which a chain of ours lets everything pass for a while.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::saved::{Saved, SavedRule, Verdict};
use super::{Layout, Rule};
use crate::pause::Pause;

/// What matches until then. The kernel compares with its clock, in UTC; the last second still counts.
fn time(until: i64) -> String {
    let last = Timestamp::from_second(until - 1).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%S");
    format!("-m time --datestop {last}")
}

/// In the first chain of an owner, ahead of all that may block.
fn rule(until: i64, prefix: &str) -> Rule {
    Rule::new(time(until), "RETURN").counting_for(prefix).about("a pause: nothing is blocked until then")
}

/// Ahead of that, who is let in without a pause is let in: rules of others that come later may block him.
fn let_in(until: i64, set: &str) -> Rule {
    Rule::new(format!("{} -m set --match-set {set} src", time(until)), "ACCEPT")
        .about("a pause: who is let in stays let in")
}

/// Whether it is such a rule, of any pause.
pub(super) fn is_pause(rule: &SavedRule) -> bool {
    rule.tag.is_some()
        && rule.value("--datestop").is_some()
        && matches!(rule.verdict(), Some(Verdict::Return | Verdict::Accept))
}

/// What is tried: the same rule in a chain of its own; `None`: only the chain.
pub(super) fn trial(until: Option<i64>) -> String {
    const CHAIN: &str = "RF-TRIAL";
    let rule = until.map(|until| format!("-A {CHAIN} {}\n", rule(until, CHAIN))).unwrap_or_default();
    format!("*filter\n:{CHAIN} - [0:0]\n{rule}COMMIT\n")
}

/// Says that the kernel, or iptables, lacks what ends a pause.
pub(super) fn impossible(error: anyhow::Error) -> anyhow::Error {
    error.context(
        "the match `time`, by which the kernel ends a pause, is not there (module xt_time; some systems have it in the package \
         linux-modules-extra); nothing was changed",
    )
}

impl Layout {
    /// This layout during a pause, or without one.
    #[must_use]
    pub(super) fn paused(mut self, pause: Pause) -> Self {
        for chain in &mut self.chains {
            chain.rules.retain(|rule| !rule.pauses());
        }
        let sets: BTreeSet<String> =
            self.chains.iter().flat_map(|chain| &chain.rules).filter_map(Rule::lets_in).collect();
        let first = self.chains.iter_mut().find(|chain| chain.name == self.prefix);
        if let (Some(first), Some(until)) = (first, pause.until()) {
            let rules = sets.iter().map(|set| let_in(until, set)).chain([rule(until, &self.prefix)]);
            first.rules.splice(..0, rules);
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
