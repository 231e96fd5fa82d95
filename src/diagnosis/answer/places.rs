//! Where on the way of packets the checks are: by the rules that the host has.

use serde::Serialize;

use super::super::facts::OfAddress;
use crate::firewall::path::{End, NFT, Step};
use crate::firewall::{self, BANS, Place, of_fail2ban, order};
use crate::kernel_sets::Role;
use crate::matcher::strings;

/// Where a packet meets a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct At {
    /// The program of the rule, as `iptables-nft` or `nft`; nothing before all rules.
    pub program: Option<String>,
    /// Its table.
    pub table: Option<String>,
    /// Its chain.
    pub chain: Option<String>,
    /// Its number there, from 1; nothing for the policy of the chain.
    pub rule: Option<usize>,
    /// In words: `INPUT 2 > RF-BAN`.
    #[serde(skip)]
    pub words: String,
    /// What a packet meets first comes first.
    #[serde(skip)]
    pub(super) rank: usize,
}

impl At {
    fn of(Place { step, from, number }: &Place, rank: usize) -> Self {
        let Step { program, table, chain, .. } = step;
        let first = format!("{}{from} {number}", in_table(table));
        Self {
            program: Some(program.clone()),
            table: Some(table.clone()),
            chain: Some(chain.clone()),
            rule: Some(step.number),
            words: if from == chain { first } else { format!("{first} > {chain}") },
            rank,
        }
    }

    /// A program of Ringfence's in the kernel.
    pub(super) fn before_all() -> Self {
        let words = "before all rules".to_owned();
        Self { program: None, table: None, chain: None, rule: None, words, rank: 0 }
    }
}

/// The table, where it does not go without saying.
fn in_table(table: &str) -> String {
    if table == "filter" { String::new() } else { format!("{table} ") }
}

impl OfAddress {
    /// The first rule that is this one.
    pub(super) fn place(&self, is: impl Fn(&Step) -> bool) -> Option<At> {
        let at = self.places.iter().position(|place| is(&place.step))?;
        Some(At::of(&self.places[at], 2 * at + 1))
    }

    /// The rule whose place these words begin with.
    pub(super) fn named_in(&self, words: &str) -> Option<At> {
        self.place(|step| words.strip_prefix(&step.place()).is_some_and(|rest| rest.starts_with(' ')))
    }

    /// Where a packet comes to its end.
    pub(super) fn end(&self, end: &End) -> Option<At> {
        match end {
            End::Rule(step) => self.place(|other| is_same(other, step)),
            End::Policy { program, table, chain } => {
                let of_chain = |place: &Place| {
                    (&place.step.program, &place.step.table, &place.from) == (program, table, chain)
                };
                let behind = self.places.iter().rposition(of_chain);
                Some(At {
                    program: Some(program.clone()),
                    table: Some(table.clone()),
                    chain: Some(chain.clone()),
                    rule: None,
                    words: format!("{}{chain}, its end", in_table(table)),
                    rank: behind.map_or(usize::MAX, |at| 2 * at + 2),
                })
            }
        }
    }
}

fn is_same(one: &Step, other: &Step) -> bool {
    let key = |step: &Step| (step.program.clone(), step.table.clone(), step.chain.clone(), step.number);
    key(one) == key(other)
}

/// The sets that a rule asks whether a packet is in them.
pub(super) fn sets(rule: &str) -> impl Iterator<Item = &str> {
    let words = rule.split_whitespace();
    words.clone().zip(words.skip(1)).filter(|(option, _)| *option == "--match-set").map(|(_, set)| set)
}

/// Whether the rule asks a set of ours that holds these.
pub(super) fn asks(step: &Step, role: Role) -> bool {
    sets(&step.rule).any(|set| Role::of(set) == Some(role))
}

/// Whether a rule is in a chain with this name, or that begins so and goes on behind a hyphen.
pub(super) fn is_of(step: &Step, prefix: &str) -> bool {
    step.chain.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// A ban of fail2ban's.
pub(super) fn is_ban(step: &Step) -> bool {
    let ours = step.tag.is_some() && is_of(step, BANS);
    let own = of_fail2ban(&step.chain).is_some() || sets(&step.rule).any(|set| of_fail2ban(set).is_some());
    ours || own || of_bans(step)
}

/// Whether it is in a table of nftables that fail2ban made.
pub(super) fn of_bans(step: &Step) -> bool {
    let name = step.table.split_once(' ').map_or("", |(_, name)| name);
    step.program == NFT && of_fail2ban(name).is_some()
}

pub(super) fn is_event_guards(step: &Step) -> bool {
    firewall::is_event_guards(&step.chain)
}

/// A block of an account.
pub(super) fn is_account(step: &Step) -> bool {
    step.tag.is_some() && is_of(step, strings::PREFIX)
}

/// One of Ringfence's own order of checks.
pub(super) fn is_ordered(step: &Step) -> bool {
    step.tag.is_some() && is_of(step, order::PREFIX)
}
