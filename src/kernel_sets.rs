//! Our sets in the kernel: what they should hold, and the one place that brings it in.
//!
//! New content goes into sets beside the live ones, is counted there, and then swapped in: a packet meets the old
//! set or the new one, whole. What a crash leaves beside is cleared away by the next run.

use anyhow::{Context, bail};

use crate::address_set::AddressSet;

mod ipset;

pub use ipset::{Family, Header, Ipset, Refusal, Type};

/// What our sets should hold, and that no address of `block` is in `allow`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Content {
    /// Who is exempt from blocks and limits.
    pub allow: AddressSet,
    /// Who is blocked.
    pub block: AddressSet,
}

/// One of our sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// In the kernel; at most 31 characters.
    pub name: &'static str,
    side: Side,
    kind: Type,
    family: Family,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Allow,
    Block,
}

/// All our sets in the order in which they are swapped in: who is allowed first.
pub const SETS: [Set; 8] = [
    Set { name: "rf-allow-ip4", side: Side::Allow, kind: Type::Addresses, family: Family::V4 },
    Set { name: "rf-allow-net4", side: Side::Allow, kind: Type::Networks, family: Family::V4 },
    Set { name: "rf-allow-ip6", side: Side::Allow, kind: Type::Addresses, family: Family::V6 },
    Set { name: "rf-allow-net6", side: Side::Allow, kind: Type::Networks, family: Family::V6 },
    Set { name: "rf-block-ip4", side: Side::Block, kind: Type::Addresses, family: Family::V4 },
    Set { name: "rf-block-net4", side: Side::Block, kind: Type::Networks, family: Family::V4 },
    Set { name: "rf-block-ip6", side: Side::Block, kind: Type::Addresses, family: Family::V6 },
    Set { name: "rf-block-net6", side: Side::Block, kind: Type::Networks, family: Family::V6 },
];

impl Set {
    /// The set beside it that is filled.
    fn beside(&self) -> String {
        format!("{}.new", self.name)
    }

    fn addresses<'a>(&self, content: &'a Content) -> &'a AddressSet {
        match self.side {
            Side::Allow => &content.allow,
            Side::Block => &content.block,
        }
    }

    /// How many entries it should have.
    #[must_use]
    pub fn entries(&self, content: &Content) -> u32 {
        let AddressSet { v4, v6 } = self.addresses(content);
        let count = match self.family {
            Family::V4 => ipset::members(v4, self.kind).count(),
            Family::V6 => ipset::members(v6, self.kind).count(),
        };
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    fn fill(&self, name: &str, content: &Content, kernel: &mut Ipset) -> anyhow::Result<()> {
        let entries = self.entries(content);
        kernel
            .create(name, self.kind, self.family, entries)
            .with_context(|| format!("cannot make the set {name}"))?;
        let AddressSet { v4, v6 } = self.addresses(content);
        match self.family {
            Family::V4 => kernel.add(name, ipset::members(v4, self.kind)),
            Family::V6 => kernel.add(name, ipset::members(v6, self.kind)),
        }
        .with_context(|| format!("cannot fill the set {name} with {entries} entries"))?;
        match kernel.header(name)? {
            Some(header) if header.entries == entries => Ok(()),
            Some(header) => {
                bail!("the set {name} has {} entries after {entries} were put in", header.entries)
            }
            None => {
                bail!("the set {name} is gone while it was filled; does another program clear sets away?")
            }
        }
    }

    /// Exchanges what is live and what is beside it.
    fn swap(&self, kernel: &mut Ipset) -> Result<(), Refusal> {
        kernel.swap(&self.beside(), self.name)
    }

    /// What is there under its name, if it is a set that ours can be swapped with.
    fn live(&self, kernel: &mut Ipset) -> anyhow::Result<Option<Header>> {
        let header =
            kernel.header(self.name).with_context(|| format!("cannot look at the set {}", self.name))?;
        if let Some(header) = &header
            && !header.is(self.kind, self.family)
        {
            let other = Family::of(header.family);
            bail!(
                "the set {name} is there as {}{}, and not as {} family {}, so it is not ours; remove it (ipset destroy {name})",
                header.type_name,
                other.map_or_else(String::new, |family| format!(" family {}", family.name())),
                self.kind.name(),
                self.family.name(),
                name = self.name,
            );
        }
        Ok(header)
    }
}

/// Whether the live sets are all there with as many entries as `content` has.
pub fn hold(kernel: &mut Ipset, content: &Content) -> anyhow::Result<bool> {
    for set in &SETS {
        let entries = set.live(kernel)?.map(|header| header.entries);
        if entries != Some(set.entries(content)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Brings `content` into the live sets. They are as before after an error, but that missing ones may be there, empty, and those
/// which cannot be swapped back are named in it.
///
/// All sets are filled and counted before the first is swapped in; then those that allow come before those that block. Only one
/// process at a time may do it: hold the lists' lock.
pub fn load(kernel: &mut Ipset, content: &Content) -> anyhow::Result<()> {
    for set in &SETS {
        set.live(kernel)?;
    }
    clear_away(kernel)?;
    let loaded = fill_and_swap(kernel, content);
    // The live sets are what they should be, or what they were: what stays beside does no harm, and the next run names it.
    let _ = clear_away(kernel);
    loaded
}

/// Makes those of our sets that are missing, empty: a rule that names a set cannot be loaded without it.
pub fn make_missing(kernel: &mut Ipset) -> anyhow::Result<()> {
    for set in &SETS {
        if set.live(kernel)?.is_none() {
            set.fill(set.name, &Content::default(), kernel)?;
        }
    }
    Ok(())
}

/// Removes what is beside the live sets, where a crash left it.
pub fn clear_away(kernel: &mut Ipset) -> anyhow::Result<()> {
    for set in &SETS {
        let name = set.beside();
        kernel.destroy(&name).with_context(|| format!("cannot remove the set {name}"))?;
    }
    Ok(())
}

fn fill_and_swap(kernel: &mut Ipset, content: &Content) -> anyhow::Result<()> {
    for set in &SETS {
        set.fill(&set.beside(), content, kernel)?;
    }
    // A set that took the place of none could not be swapped back.
    make_missing(kernel)?;
    for (done, set) in SETS.iter().enumerate() {
        if let Err(refusal) = set.swap(kernel) {
            let error = anyhow::Error::new(refusal).context(format!("cannot swap the set {}", set.name));
            let swapped = SETS[..done].iter().rev();
            let stuck: Vec<_> = swapped.filter(|set| set.swap(kernel).is_err()).map(|set| set.name).collect();
            return Err(if stuck.is_empty() {
                error
            } else {
                error.context(format!("the new content stays in {}", stuck.join(", ")))
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
