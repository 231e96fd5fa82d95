//! The rules by which a chain of ours lets everything pass for a while.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use super::concerns::is_plain;
use super::saved::{Saved, SavedRule, Verdict};
use super::{Firewall, Layout, Rule};
use crate::evidence::visible_within;
use crate::pause::Pause;

/// What the names of all our sets begin with.
const SETS: &str = "rf-";

/// How much of a rule is shown, in bytes.
const SHOWN: usize = 300;

/// A rule of the host's own that refuses packets by a set of ours. No pause of ours concerns it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ByOurSets {
    /// `iptables-nft`, `ip6tables-legacy`, ...
    pub program: String,
    /// `filter`, `raw` or `mangle`.
    pub table: &'static str,
    /// In which it stands.
    pub chain: String,
    /// As iptables prints it, behind the name of the chain.
    pub rule: String,
    /// What takes it away.
    pub delete: String,
}

impl Firewall {
    /// The host's own rules that refuse by sets of ours, those of a chain from its end; not what stands in chains of `owners`,
    /// which nobody comes to during a pause.
    pub fn by_our_sets(&self, owners: &[&str]) -> anyhow::Result<Vec<ByOurSets>> {
        let owners: Vec<_> = owners.iter().copied().map(Layout::nothing).collect();
        let mut found = vec![];
        for table in &self.tables {
            let program = table.program.name();
            for (name, saved) in table.program.read_beside()? {
                found.extend(of_table(&program, name, &saved, &owners));
            }
            found.extend(of_table(&program, "filter", &table.saved, &owners));
        }
        Ok(found)
    }
}

fn of_table(program: &str, table: &'static str, saved: &Saved, owners: &[Layout]) -> Vec<ByOurSets> {
    let others = saved.chains.iter().filter(|(name, _)| !owners.iter().any(|owner| owner.owns(name)));
    let mut found = vec![];
    for (chain, rules) in others {
        // From the end: the numbers of the others stay what they are.
        for (at, rule) in rules.iter().enumerate().rev() {
            if rule.tag.is_some() || !rule.asks_set(SETS) || !refuses(saved, rule, &mut BTreeSet::new()) {
                continue;
            }
            let option = if table == "filter" { String::new() } else { format!(" -t {table}") };
            let which = if is_plain(&rule.spec) { rule.spec.clone() } else { (at + 1).to_string() };
            found.push(ByOurSets {
                program: program.to_owned(),
                table,
                chain: chain.clone(),
                rule: visible_within(&rule.spec, SHOWN),
                delete: visible_within(&format!("{program}{option} -D {chain} {which}"), SHOWN),
            });
        }
    }
    found
}

/// Whether it may refuse a packet, itself or in a chain that it leads to.
fn refuses(saved: &Saved, rule: &SavedRule, seen: &mut BTreeSet<String>) -> bool {
    match rule.verdict() {
        Some(Verdict::Refuse) => true,
        Some(Verdict::Jump(chain) | Verdict::Goto(chain)) => {
            let rules = saved.rules(&chain);
            // Each chain once: it may lead in a circle.
            seen.insert(chain.clone()) && rules.iter().any(|rule| refuses(saved, rule, seen))
        }
        Some(Verdict::Accept | Verdict::Return) | None => false,
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rules: &str) -> Vec<String> {
        let lines: Vec<_> = rules.lines().map(|rule| format!("[0:0] -A {rule}")).collect();
        let saved = Saved::parse(&lines.join("\n"));
        let found = of_table("iptables-nft", "raw", &saved, &[Layout::nothing("RINGFENCE")]);
        found.into_iter().map(|rule| rule.delete).collect()
    }

    #[test]
    fn rules_of_others_that_refuse_by_our_sets() {
        for (rules, deletes) in [
            (
                "INPUT -m set --match-set rf-x src -j DROP",
                &["-D INPUT -m set --match-set rf-x src -j DROP"][..],
            ),
            ("INPUT -p udp -m set ! --match-set rf-to-au-net4 src -j REJECT", &["-D INPUT 1"]),
            ("INPUT -m set --match-set rf-x src -m comment --comment \"a b\" -j DROP", &["-D INPUT 1"]),
            (
                "INPUT -j LOG\nINPUT -m set --match-set rf-x src -j mine\nmine -p udp -j DROP",
                &["-D INPUT -m set --match-set rf-x src -j mine"],
            ),
            ("INPUT -m set --match-set rf-x src -j a\na -j b\nb -j a", &[]),
            ("INPUT -m set --match-set rf-x src -j ACCEPT", &[]),
            ("INPUT -m set --match-set f2b-sip src -j DROP", &[]),
            ("INPUT -m comment --comment \"rf-x\" -j DROP", &[]),
            ("RINGFENCE -m set --match-set rf-x src -j DROP", &[]),
            (
                "INPUT -m set --match-set rf-x src -m comment --comment \"ringfence 0123456789abcdef\" -j DROP",
                &[],
            ),
        ] {
            let expected: Vec<_> =
                deletes.iter().map(|delete| format!("iptables-nft -t raw {delete}")).collect();
            assert_eq!(found(rules), expected, "{rules}");
        }
    }
}
