//! The host's packet filter: iptables, as `nft` or `legacy`, whichever holds the host's rules.
//!
//! What our chains should be is a [`Layout`], made by pure functions. It is compared with what is there, and what
//! differs is brought in by one `iptables-restore --noflush` for each of IPv4 and IPv6: a packet meets the old
//! rules or the new ones. Every rule of ours carries the comment `ringfence` and a tag that stands for its content, by which it
//! is known again however iptables prints it.

use std::collections::HashMap;
use std::fmt;

use anyhow::bail;

use crate::evidence::visible_within;

mod change;
mod layout;
mod nft;
mod programs;
mod saved;

pub use layout::{Chain, Layout, Rule, Tag};
pub use saved::Saved;

use programs::{All, Program};

/// Another program may come in between.
const TRIES: usize = 3;

/// IPv4 or IPv6: each has tables of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// `iptables`.
    V4,
    /// `ip6tables`.
    V6,
}

/// The two implementations of iptables, each with rules of its own in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variant {
    /// `iptables-nft`.
    Nft,
    /// `iptables-legacy`.
    Legacy,
}

impl Variant {
    /// As in the names of its programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The table `filter` as it was when it was read.
#[derive(Debug)]
struct Table {
    program: Program,
    saved: Saved,
}

/// What the host's packet filter holds.
#[derive(Debug)]
pub struct Firewall {
    variant: Variant,
    tables: Vec<Table>,
}

/// How often a rule matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Firewall {
    /// Reads what is there, in this network namespace.
    pub fn read() -> anyhow::Result<Self> {
        let All { mut tables, failures, unused } = programs::read_all()?;
        let weight = |variant| -> usize {
            tables
                .iter()
                .filter(|table| table.program.variant == variant)
                .map(|table| table.saved.foreign())
                .sum()
        };
        let variant = match (weight(Variant::Nft), weight(Variant::Legacy)) {
            (0, 1..) => Variant::Legacy,
            (1.., 0) => Variant::Nft,
            _ => programs::usual(),
        };
        if let Some((_, error)) = failures.into_iter().find(|(program, _)| program.variant == variant) {
            return Err(error.context("cannot read the rules of this host"));
        }
        // IPv6 goes with IPv4, though it has no rules yet, and the other way round.
        let unused = unused.into_iter().filter(|program| program.variant == variant);
        tables.extend(unused.map(|program| Table { program, saved: Saved::default() }));
        Ok(Self { variant, tables })
    }

    /// The packets that each of our rules matched since it is there, those of IPv4 and IPv6 together; a rule that is not in here is
    /// not in the kernel.
    #[must_use]
    pub fn counters(&self) -> HashMap<Tag, Counters> {
        let mut sums: HashMap<Tag, Counters> = HashMap::new();
        for (tag, counters) in self.tables.iter().flat_map(|table| table.saved.ours()) {
            let sum = sums.entry(tag).or_default();
            sum.packets += counters.packets;
            sum.bytes += counters.bytes;
        }
        sums
    }

    /// What would be brought in: the text for each program, where something differs.
    #[must_use]
    pub fn plan(&self, layout: impl Fn(Version) -> Layout) -> Vec<(String, String)> {
        self.pending(&layout).into_iter().map(|(program, text)| (program.restore_name(), text)).collect()
    }

    /// Makes our chains as `layout` says, and reads them back; whether something had to be changed.
    ///
    /// After an error each of IPv4 and IPv6 has the old rules or the new ones. Only one process at a time may do it.
    pub fn bring_in(&mut self, layout: impl Fn(Version) -> Layout) -> anyhow::Result<bool> {
        let mut pending = self.pending(&layout);
        let changed = !pending.is_empty();
        for _ in 0..TRIES {
            if pending.is_empty() {
                return Ok(changed);
            }
            let done = programs::restore_all(&pending);
            *self = match Self::read() {
                Ok(read) => read,
                Err(error) => {
                    done?;
                    return Err(error.context("the rules were brought in, but cannot be read back"));
                }
            };
            let left = self.pending(&layout);
            // What is to be done is another thing only if somebody came in between our look and our change.
            if left == pending {
                done?;
                break;
            }
            pending = left;
        }
        let Some((program, text)) = pending.first() else { return Ok(changed) };
        bail!(
            "the rules are not there after {} brought them in, so another program may be changing them; still to be done: {}",
            program.restore_name(),
            visible_within(text, 200)
        )
    }

    /// The text for each program where something differs.
    fn pending(&self, layout: &impl Fn(Version) -> Layout) -> Vec<(Program, String)> {
        let pending = |Table { program, saved }: &Table| {
            let wanted = layout(program.version);
            // What we left where the host's rules were before is taken away.
            let wanted = if program.variant == self.variant { wanted } else { wanted.nothing() };
            Some((program.clone(), change::text(saved, &wanted)?))
        };
        self.tables.iter().filter_map(pending).collect()
    }
}

#[cfg(test)]
mod tests;
