//! What our chains should be.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    matches: String,
    target: String,
    counts_for: String,
}

impl Rule {
    /// From options of iptables, which may be none. Foreign text in them must be in hexadecimal.
    #[must_use]
    pub fn new(matches: impl Into<String>, target: impl Into<String>) -> Self {
        Self { matches: matches.into(), target: target.into(), counts_for: String::new() }
    }

    /// Tells it from a rule that is alike, but in another chain, and so counts for somebody else.
    #[must_use]
    pub fn counting_for(self, whom: impl Into<String>) -> Self {
        Self { counts_for: whom.into(), ..self }
    }

    /// What it is known by.
    #[must_use]
    pub fn tag(&self) -> Tag {
        let mut hasher = DefaultHasher::new();
        (&self.matches, &self.target, &self.counts_for).hash(&mut hasher);
        Tag(hasher.finish())
    }
}

impl fmt::Display for Rule {
    /// As iptables-restore reads it, behind the name of the chain.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { matches, target, .. } = self;
        let space = if matches.is_empty() { "" } else { " " };
        write!(f, "{matches}{space}-m comment --comment \"ringfence {}\" -j {target}", self.tag())
    }
}

/// A chain of ours. Its name has at most 28 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// In the kernel.
    pub name: String,
    /// In order.
    pub rules: Vec<Rule>,
}

/// Our chains of one table: what else has a name like theirs is taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The name of the first chain; those of the others go on behind it with `-`.
    pub prefix: &'static str,
    /// In the order in which they are shown.
    pub chains: Vec<Chain>,
    /// Rules in INPUT that jump to the first of the chains.
    pub hooks: Vec<Rule>,
}

impl Layout {
    /// Whether a chain of this name is ours: `RF-X` and `RF-X-...`, but not `RF-XYZ`.
    pub(super) fn owns(&self, chain: &str) -> bool {
        chain.strip_prefix(self.prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }

    /// As if we were not there.
    #[must_use]
    pub fn nothing(self) -> Self {
        Self { chains: vec![], hooks: vec![], ..self }
    }
}
