//! What our chains should be.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};

use super::pause::is_pause;
use super::saved::{Saved, SavedRule, Verdict};
use crate::drops::Reason;

/// Stands for the content of a rule: a rule with the same tag is the same rule, as long as one build of ours wrote both. Another
/// build may fill all chains anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(u64);

impl Tag {
    /// Reads what [`Rule`] writes.
    pub(super) fn parse(hex: &str) -> Option<Self> {
        (hex.len() == 16).then(|| u64::from_str_radix(hex, 16).ok().map(Self)).flatten()
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A rule of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Rule {
    body: Body,
    about: String,
    drops: Option<Reason>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Body {
    /// What it should be.
    Made { matches: String, jump: &'static str, target: String, counts_for: String },
    /// As it was printed behind the name of its chain, whoever wrote it.
    Saved(SavedRule),
}

impl Rule {
    /// From options of iptables, which may be none. Foreign text in them must be in hexadecimal.
    #[must_use]
    pub fn new(matches: impl Into<String>, target: impl Into<String>) -> Self {
        Self::made(matches.into(), "-j", target.into())
    }

    /// A rule that hands packets over to a chain for good: from its end they go on where this one was jumped to from.
    #[must_use]
    pub fn goto(matches: impl Into<String>, chain: impl Into<String>) -> Self {
        Self::made(matches.into(), "-g", chain.into())
    }

    fn made(matches: String, jump: &'static str, target: String) -> Self {
        let body = Body::Made { matches, jump, target, counts_for: String::new() };
        Self { body, about: String::new(), drops: None }
    }

    /// Tells it from a rule that is alike, but in another chain, and so counts for somebody else.
    #[must_use]
    pub fn counting_for(mut self, whom: impl Into<String>) -> Self {
        if let Body::Made { counts_for, .. } = &mut self.body {
            *counts_for = whom.into();
        }
        self
    }

    /// With words for people, which are no part of it.
    #[must_use]
    pub fn about(self, words: impl Into<String>) -> Self {
        Self { about: words.into(), ..self }
    }

    /// All that it matches is dropped, for this reason, which is no part of it either.
    #[must_use]
    pub fn dropping(self, reason: Reason) -> Self {
        Self { drops: Some(reason), ..self }
    }

    /// What it is for, in words; empty if nobody said.
    #[must_use]
    pub fn words(&self) -> &str {
        &self.about
    }

    /// What it does with a packet, in words.
    #[must_use]
    pub fn does(&self) -> String {
        let target = match &self.body {
            Body::Made { target, .. } => target.clone(),
            Body::Saved(rule) => rule.target().unwrap_or_default(),
        };
        match target.split(' ').next().unwrap_or_default() {
            "RETURN" => "go on".to_owned(),
            "ACCEPT" => "let in".to_owned(),
            "DROP" => "drop".to_owned(),
            "LOG" => "log".to_owned(),
            "SET" => "remember".to_owned(),
            chain => format!("to {chain}"),
        }
    }

    /// The set whose sources it lets in for good.
    pub(super) fn lets_in(&self) -> Option<String> {
        let rule = match &self.body {
            Body::Made { .. } => SavedRule::new(&self.to_string()),
            Body::Saved(rule) => rule.clone(),
        };
        (rule.verdict() == Some(Verdict::Accept)).then(|| rule.value("--match-set")).flatten()
    }

    /// Whether it is there for a pause that was when it was read.
    pub(super) fn pauses(&self) -> bool {
        matches!(&self.body, Body::Saved(rule) if is_pause(rule))
    }

    /// What it is known by.
    #[must_use]
    pub fn tag(&self) -> Tag {
        match &self.body {
            Body::Made { matches, jump, target, counts_for } => {
                let mut hasher = DefaultHasher::new();
                (matches, jump, target, counts_for).hash(&mut hasher);
                Tag(hasher.finish())
            }
            Body::Saved(rule) => rule.id(),
        }
    }
}

impl Tag {
    /// Of a rule that is nobody's: what it says.
    pub(super) fn of_text(text: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Self(hasher.finish())
    }
}

impl From<SavedRule> for Rule {
    fn from(rule: SavedRule) -> Self {
        Self { body: Body::Saved(rule), about: String::new(), drops: None }
    }
}

impl From<String> for Rule {
    fn from(spec: String) -> Self {
        SavedRule::new(&spec).into()
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> Self {
        rule.to_string()
    }
}

impl fmt::Display for Rule {
    /// As iptables-restore reads it, behind the name of the chain.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.body {
            Body::Made { matches, jump, target, .. } => {
                let space = if matches.is_empty() { "" } else { " " };
                write!(f, "{matches}{space}-m comment --comment \"ringfence {}\" {jump} {target}", self.tag())
            }
            Body::Saved(rule) => f.write_str(&rule.spec),
        }
    }
}

/// A chain of ours. Its name has at most 28 characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// In the kernel.
    pub name: String,
    /// In order.
    pub rules: Vec<Rule>,
}

impl Chain {
    /// A chain with these rules.
    #[must_use]
    pub fn new(name: impl Into<String>, rules: Vec<Rule>) -> Self {
        Self { name: name.into(), rules }
    }
}

/// A rule in a chain that is not of this layout, by which packets come to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// In the first of these chains that is there.
    pub chains: Vec<String>,
    /// What it is.
    pub rule: Rule,
}

impl Hook {
    /// Where packets for this host come by.
    #[must_use]
    pub fn in_input(rule: Rule) -> Self {
        Self { chains: vec![INPUT.to_owned()], rule }
    }
}

/// Where packets for this host come by.
pub(super) const INPUT: &str = "INPUT";

/// The chain of fail2ban's bans, where Ringfence holds them: who is banned comes before everything else of ours.
pub const BANS: &str = "RF-BAN";

/// Chains with one owner: what else has a name like theirs is taken away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The name of the first chain; those of the others go on behind it with `-`.
    pub prefix: String,
    /// In the order in which they are shown.
    pub chains: Vec<Chain>,
    /// What jumps to them from outside.
    pub hooks: Vec<Hook>,
}

impl Layout {
    /// Nothing of this owner.
    #[must_use]
    pub fn nothing(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), chains: vec![], hooks: vec![] }
    }

    /// The rules that drop all that they match, and why.
    #[must_use]
    pub fn drops(&self) -> HashMap<Tag, Reason> {
        let rules = self.chains.iter().flat_map(|chain| &chain.rules);
        rules.filter_map(|rule| Some((rule.tag(), rule.drops.clone()?))).collect()
    }

    /// What is there of this owner.
    pub(super) fn of(saved: &Saved, prefix: &str) -> Self {
        let owner = Self::nothing(prefix);
        let (mut chains, mut hooks) = (vec![], vec![]);
        for (name, rules) in &saved.chains {
            if owner.owns(name) {
                let own = rules.iter().filter(|rule| !owner.is_guest(rule));
                chains.push(Chain::new(name, own.cloned().map(Rule::from).collect()));
            } else {
                let jumps =
                    rules.iter().filter(|rule| rule.target().is_some_and(|target| owner.owns(&target)));
                hooks
                    .extend(jumps.map(|rule| Hook { chains: vec![name.clone()], rule: rule.clone().into() }));
            }
        }
        Self { chains, hooks, ..owner }
    }

    /// Whether a rule of another owner among us is behind ours, in INPUT.
    pub(super) fn precedes(&self, rule: &SavedRule) -> bool {
        self.prefix == BANS && rule.tag.is_some() && !rule.target().is_some_and(|target| self.owns(&target))
    }

    /// Whether a chain of this name is ours: `RF-X` and `RF-X-...`, but not `RF-XYZ`.
    pub(super) fn owns(&self, chain: &str) -> bool {
        chain.strip_prefix(self.prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }

    /// Whether a rule in a chain of this layout is another tool's of ours: a jump to its own chains.
    pub(super) fn is_guest(&self, rule: &SavedRule) -> bool {
        let ours = |target: &str| ["RF-", "RINGFENCE"].iter().any(|start| target.starts_with(start));
        rule.tag.is_some() && rule.target().is_some_and(|target| ours(&target) && !self.owns(&target))
    }
}
