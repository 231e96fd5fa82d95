//! The host's packet filter: iptables, as `nft` or `legacy`, whichever holds the host's rules.
//!
//! What our chains should be is a [`Layout`], made by pure functions. It is compared with what is there, and what
//! differs is brought in by one `iptables-restore --noflush` for each of IPv4 and IPv6: a packet meets the old
//! rules or the new ones. Every rule of ours carries the comment `ringfence` and a tag that stands for its content, by which it
//! is known again however iptables prints it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::net::IpAddr;

use anyhow::bail;
use serde::{Deserialize, Serialize};

use crate::evidence::visible_within;
use crate::kernel_sets::Family;
use crate::pause::Pause;

mod banned;
mod change;
pub mod concerns;
mod iptables;
mod layout;
pub mod native;
mod nft;
pub mod order;
pub mod path;
mod pattern;
mod pause;
mod reachability;
mod saved;
mod turn;

pub use banned::Banned;
pub use layout::{BANS, Chain, Hook, Layout, Rule, Tag};
pub use pattern::{Case, Pattern};
pub use pause::ByOurSets;
pub use reachability::{Place, Reachability, Spared};
pub use saved::Saved;
pub(crate) use saved::{is_event_guards, of_fail2ban};
pub use turn::take_turn;

pub(crate) use iptables::is_installed;
use iptables::{All, Program};

/// Where programs save rules, to bring them back at a boot.
pub const SAVED: [&str; 5] = [
    "/etc/iptables/rules.v4",
    "/etc/iptables/rules.v6",
    "/etc/iptables.rules",
    "/etc/sysconfig/iptables",
    "/etc/sysconfig/ip6tables",
];

/// Another program may come in between.
const TRIES: usize = 3;

/// IPv4 or IPv6: each has tables of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Version {
    /// `iptables`.
    V4,
    /// `ip6tables`.
    V6,
}

impl Version {
    /// That of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// As sets have it.
    #[must_use]
    pub const fn family(self) -> Family {
        match self {
            Self::V4 => Family::V4,
            Self::V6 => Family::V6,
        }
    }

    /// What the names of its programs begin with.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        }
    }
}

/// The two implementations of iptables, each with rules of its own in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

/// What is there of one owner, so that it can be brought in again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    v4: Layout,
    v6: Layout,
}

impl Kept {
    /// For [`Firewall::bring_in`].
    #[must_use]
    pub fn layout(&self, version: Version) -> Layout {
        match version {
            Version::V4 => self.v4.clone(),
            Version::V6 => self.v6.clone(),
        }
    }
}

/// How often a rule matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What one rule of ours matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// Tells it from all others: its program, its chain and its tag.
    pub rule: String,
    /// What it is known by.
    pub tag: Tag,
    /// Since it is there. The same rule twice in a chain counts as one.
    pub packets: u64,
}

impl Firewall {
    /// Reads what is there, in this network namespace.
    pub fn read() -> anyhow::Result<Self> {
        let All { mut tables, failures, unused } = iptables::read_all()?;
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
            _ => iptables::usual(),
        };
        // IPv6 goes with IPv4, though it has no rules yet, and the other way round.
        let unused = unused.into_iter().filter(|program| program.variant == variant);
        tables.extend(unused.map(|program| Table { program, saved: Saved::default() }));
        // Where nothing else is left, they are the host's.
        let matters = |program: &Program| program.variant == variant || tables.is_empty();
        if let Some((_, error)) = failures.into_iter().find(|(program, _)| matters(program)) {
            return Err(error.context("cannot read the rules of this host"));
        }
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

    /// The packets that each rule of ours matched, in whatever chain and of whatever program.
    #[must_use]
    pub fn counts(&self) -> Vec<Count> {
        let mut counts: BTreeMap<String, Count> = BTreeMap::new();
        for Table { program, saved } in &self.tables {
            for (chain, tag, packets) in saved.counts() {
                let rule = format!("{} {chain} {tag}", program.name());
                let count = counts.entry(rule.clone()).or_insert(Count { rule, tag, packets: 0 });
                count.packets = count.packets.saturating_add(packets);
            }
        }
        counts.into_values().collect()
    }

    /// Which of the two the host uses.
    #[must_use]
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// Whether the host has it.
    #[must_use]
    pub fn has(&self, version: Version) -> bool {
        self.tables.iter().any(|table| table.program == Program { version, variant: self.variant })
    }

    /// Whether rules ask for the state of connections. Those of ours that do count too: a host that is idle for a moment, and has no
    /// connection to track, must not get other rules.
    #[must_use]
    pub fn tracks_connections(&self) -> bool {
        self.tables.iter().any(|table| table.saved.tracks_connections())
    }

    /// The chains, sets and tables of nftables of fail2ban and `event_guard` that packets for this host meet.
    pub fn bans_of_others(&self) -> io::Result<Vec<String>> {
        let own = self.tables.iter().filter(|table| table.program.variant == self.variant);
        let rules = own.flat_map(|table| table.saved.rules(layout::INPUT));
        let names: BTreeSet<_> = rules.filter_map(saved::SavedRule::ban).collect();
        let tables = nft::tables()?;
        let native = tables.iter().filter(|table| !table.is_of_iptables() && saved::holds_bans(&table.name));
        let chains = native_bans()?;
        let native = native.map(ToString::to_string).chain(chains.iter().map(ToString::to_string));
        Ok(names.into_iter().chain(native).collect())
    }

    /// Whether chains of FusionPBX's `event_guard` are there, of iptables or of nftables.
    pub fn has_event_guard(&self) -> io::Result<bool> {
        let mut chains = self.tables.iter().flat_map(|table| table.saved.chains.keys());
        if chains.any(|chain| saved::is_event_guards(chain)) {
            return Ok(true);
        }
        Ok(native_bans()?.iter().any(|chain| saved::is_event_guards(&chain.name)))
    }

    /// Whether rules that we wrote are in the chains that begin with `prefix`.
    #[must_use]
    pub fn has_rules_of(&self, prefix: &str) -> bool {
        let owner = Layout::nothing(prefix);
        let chains = self.tables.iter().flat_map(|table| &table.saved.chains);
        let mut own = chains.filter(|(name, _)| owner.owns(name)).flat_map(|(_, rules)| rules);
        own.any(|rule| rule.tag.is_some())
    }

    /// What is there of the owner of the chains that begin with `prefix`.
    #[must_use]
    pub fn keep(&self, prefix: &str) -> Kept {
        let of = |version| {
            let mut tables = self.tables.iter().map(|table| (&table.program, &table.saved));
            let found = tables.find(|(program, _)| **program == Program { version, variant: self.variant });
            found.map_or_else(|| Layout::nothing(prefix), |(_, saved)| Layout::of(saved, prefix))
        };
        Kept { v4: of(Version::V4), v6: of(Version::V6) }
    }

    /// What would be brought in: the text for each program, where something differs. What a pause that is over has left there is no
    /// difference.
    #[must_use]
    pub fn plan(&self, pause: Pause, layout: impl Fn(Version) -> Layout) -> Vec<(String, String)> {
        let wanted = |table: &Table| layout(table.program.version).paused_as(pause, &table.saved);
        let pending = self.pending(&|table, variant| table.change(&wanted(table), variant));
        pending.into_iter().map(|(program, text)| (program.restore_name(), text)).collect()
    }

    /// Brings layouts into a network namespace that has no rules yet, by the programs of this variant.
    pub fn fill(variant: Variant, layouts: &[(Version, Layout)]) -> anyhow::Result<()> {
        let text = |(version, layout): &(Version, Layout)| {
            Some((Program { version: *version, variant }, change::text(&Saved::default(), layout)?))
        };
        iptables::restore_all(&layouts.iter().filter_map(text).collect::<Vec<_>>())
    }

    /// Makes our chains as `layout` says, during this pause or without one, and reads them back; whether something had to be changed.
    ///
    /// After an error each of IPv4 and IPv6 has the old rules or the new ones. Only who has the turn ([`take_turn`]) may do it.
    pub fn bring_in(&mut self, pause: Pause, layout: impl Fn(Version) -> Layout) -> anyhow::Result<bool> {
        self.make(&|table, variant| table.change(&layout(table.program.version).paused(pause), variant))
    }

    /// [`Firewall::bring_in`], but after an error IPv4 and IPv6 have both the old rules; if even these cannot be brought in again, the
    /// error says so.
    pub fn bring_in_together(
        &mut self,
        pause: Pause,
        layout: impl Fn(Version) -> Layout,
    ) -> anyhow::Result<bool> {
        let change = |table: &Table, variant| {
            let wanted = layout(table.program.version).paused(pause);
            table.change(&wanted, variant)
        };
        let pending = self.pending(&change);
        let before: Vec<_> = pending.iter().map(|(program, _)| self.before(program, &layout)).collect();
        let Err(error) = self.make(&change) else { return Ok(!pending.is_empty()) };
        match Self::read().and_then(|there| there.take_back(&before)) {
            Ok(()) => Err(error),
            Err(undo) => Err(error.context(format!("the old rules could not be brought in again: {undo:#}"))),
        }
    }

    /// Begins or ends a pause in the first chains of these owners, at once; whether something had to be changed. After an error all is
    /// as it was during `before`, and if even that is not possible, the error says so.
    pub fn pause(&mut self, owners: &[&str], before: Pause, pause: Pause) -> anyhow::Result<bool> {
        let to = |pause| move |table: &Table, _| change::pause_text(&table.saved, owners, pause);
        let error = match self.make(&to(pause)) {
            Ok(changed) => return Ok(changed),
            Err(error) => self.try_pause(pause).err().unwrap_or(error),
        };
        match Self::read().and_then(|mut there| there.make(&to(before))) {
            Ok(_) => Err(error),
            Err(undo) => Err(error.context(format!("the old rules could not be brought in again: {undo:#}"))),
        }
    }

    /// Tries in a network namespace of its own whether the kernel can end a pause, for a host that has no rules of ours yet.
    pub fn try_pause(&self, pause: Pause) -> anyhow::Result<()> {
        let Some(until) = pause.until() else { return Ok(()) };
        let (with, without) = (pause::trial(Some(until)), pause::trial(None));
        for Table { program, .. } in &self.tables {
            // Where there can be no namespace, nobody knows.
            if let Err(error) = program.try_apart(&with)
                && program.try_apart(&without).is_ok()
            {
                return Err(pause::impossible(error));
            }
        }
        Ok(())
    }

    /// What the owner of the layout has in a table.
    fn before(&self, program: &Program, layout: &impl Fn(Version) -> Layout) -> (Program, Layout) {
        let prefix = layout(program.version).prefix;
        let table = self.tables.iter().find(|table| table.program == *program);
        let kept =
            table.map_or_else(|| Layout::nothing(&prefix), |Table { saved, .. }| Layout::of(saved, &prefix));
        (program.clone(), kept)
    }

    /// Where one of IPv4 and IPv6 has something new.
    fn take_back(&self, before: &[(Program, Layout)]) -> anyhow::Result<()> {
        let text = |(program, layout): &(Program, Layout)| {
            let table = self.tables.iter().find(|table| table.program == *program)?;
            Some((program.clone(), change::text(&table.saved, layout)?))
        };
        let pending: Vec<_> = before.iter().filter_map(text).collect();
        iptables::restore_all(&pending)
    }

    /// Makes each table what `change` says of it; whether something had to be changed.
    fn make(&mut self, change: &impl Fn(&Table, Variant) -> Option<String>) -> anyhow::Result<bool> {
        let mut pending = self.pending(change);
        let changed = !pending.is_empty();
        for _ in 0..TRIES {
            if pending.is_empty() {
                return Ok(changed);
            }
            let done = iptables::restore_all(&pending);
            *self = match Self::read() {
                Ok(read) => read,
                Err(error) => {
                    done?;
                    return Err(error.context("the rules were brought in, but cannot be read back"));
                }
            };
            let left = self.pending(change);
            // What is to be done is another thing only if somebody came in between our look and our change, or if one of two was done.
            if left == pending {
                done?;
                break;
            }
            if left.len() < pending.len() {
                done?;
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
    fn pending(&self, change: &impl Fn(&Table, Variant) -> Option<String>) -> Vec<(Program, String)> {
        let pending = |table: &Table| Some((table.program.clone(), change(table, self.variant)?));
        self.tables.iter().filter_map(pending).collect()
    }
}

impl Table {
    /// What makes it hold a layout, on a host that uses this variant.
    fn change(&self, wanted: &Layout, variant: Variant) -> Option<String> {
        if self.program.variant == variant {
            return change::text(&self.saved, wanted);
        }
        // What we left where the host's rules were before is taken away.
        change::text(&self.saved, &Layout::nothing(&wanted.prefix))
    }
}

/// Chains of fail2ban and `event_guard` in other tables of nftables than their own and those of iptables.
fn native_bans() -> io::Result<Vec<nft::NftChain>> {
    let is_other = |table: &nft::NftTable| !table.is_of_iptables() && !saved::holds_bans(&table.name);
    let mut chains = nft::chains()?;
    chains.retain(|chain| is_other(&chain.table) && saved::holds_bans(&chain.name));
    Ok(chains)
}

#[cfg(test)]
mod tests;
