//! Our sets in the kernel: what they should hold, and the one place that brings it in.
//!
//! New content goes into sets beside the live ones, is counted there, and then swapped in: a packet meets the old
//! set or the new one, whole. What a crash leaves beside is cleared away by the next run.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail};

use crate::address_set::AddressSet;
use crate::config::ListName;

mod banned;
mod ipset;
mod seen;
mod standing;
mod timed;

pub use banned::Banned;
pub use ipset::{Element, Entry, Family, Header, Ipset, Make, Refusal, Type};
pub use seen::{let_go_of_seen, put_seen};
pub use standing::{Names, PORTS, Role, fill_ports, make_standing, names, remove_standing};

/// What our sets should hold, and that no address of `block` is in `allow`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Content {
    /// Who is exempt from blocks and limits.
    pub allow: AddressSet,
    /// Who is blocked.
    pub block: AddressSet,
    /// The lists that ports are restricted to. An empty one is left as it is: a rule that names its set would drop everybody.
    pub lists: BTreeMap<ListName, AddressSet>,
}

/// One of our sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// In the kernel; at most 27 characters, and with `.new` behind it 31.
    pub name: Cow<'static, str>,
    side: Side,
    /// `None`: addresses and networks in one.
    kind: Option<Type>,
    family: Family,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Side {
    Allow,
    Block,
    /// What ports are restricted to.
    List(ListName),
}

/// What the names of the sets of lists begin with that ports are restricted to.
const LIST: &str = "rf-to-";

/// The sets of all lists together, in the order in which they are swapped in: who is allowed first.
pub const SETS: [Set; 8] = [
    Set::whole("rf-allow-ip4", Side::Allow, Type::Addresses, Family::V4),
    Set::whole("rf-allow-net4", Side::Allow, Type::Networks, Family::V4),
    Set::whole("rf-allow-ip6", Side::Allow, Type::Addresses, Family::V6),
    Set::whole("rf-allow-net6", Side::Allow, Type::Networks, Family::V6),
    Set::whole("rf-block-ip4", Side::Block, Type::Addresses, Family::V4),
    Set::whole("rf-block-net4", Side::Block, Type::Networks, Family::V4),
    Set::whole("rf-block-ip6", Side::Block, Type::Addresses, Family::V6),
    Set::whole("rf-block-net6", Side::Block, Type::Networks, Family::V6),
];

/// The name of the set of a list that ports are restricted to.
#[must_use]
pub fn of_list(list: &ListName, family: Family) -> String {
    match family {
        Family::V4 => format!("{LIST}{list}-net4"),
        Family::V6 => format!("{LIST}{list}-net6"),
    }
}

/// The sets of `content`, in the order in which they are swapped in.
fn sets(content: &Content) -> Vec<Set> {
    let lists = content.lists.keys().flat_map(|list| {
        [Family::V4, Family::V6].map(|family| Set {
            name: of_list(list, family).into(),
            side: Side::List(list.clone()),
            kind: None,
            family,
        })
    });
    SETS.into_iter().chain(lists).collect()
}

impl Set {
    const fn whole(name: &'static str, side: Side, kind: Type, family: Family) -> Self {
        Self { name: Cow::Borrowed(name), side, kind: Some(kind), family }
    }

    /// The set beside it that is filled.
    fn beside(&self) -> String {
        format!("{}.new", self.name)
    }

    fn kind(&self) -> Type {
        self.kind.unwrap_or(Type::Networks)
    }

    fn addresses<'a>(&self, content: &'a Content) -> Cow<'a, AddressSet> {
        match &self.side {
            Side::Allow => Cow::Borrowed(&content.allow),
            Side::Block => Cow::Borrowed(&content.block),
            Side::List(list) => content.lists.get(list).map_or_else(Cow::default, Cow::Borrowed),
        }
    }

    /// How many entries it should have.
    #[must_use]
    pub fn entries(&self, content: &Content) -> u32 {
        let addresses = self.addresses(content);
        let count = match self.family {
            Family::V4 => ipset::members(&addresses.v4, self.kind).count(),
            Family::V6 => ipset::members(&addresses.v6, self.kind).count(),
        };
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Whether what is there stays: a rule that drops whoever is not in it would drop everybody.
    fn stays(&self, content: &Content) -> bool {
        matches!(self.side, Side::List(_)) && self.entries(content) == 0
    }

    fn fill(&self, name: &str, content: &Content, kernel: &mut Ipset) -> anyhow::Result<()> {
        let entries = self.entries(content);
        kernel
            .create(name, &Make::plain(self.kind(), Some(self.family), entries))
            .with_context(|| format!("cannot make the set {name}"))?;
        let addresses = self.addresses(content);
        match self.family {
            Family::V4 => kernel.add(name, ipset::members(&addresses.v4, self.kind)),
            Family::V6 => kernel.add(name, ipset::members(&addresses.v6, self.kind)),
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
        kernel.swap(&self.beside(), &self.name)
    }

    /// What is there under its name, if it is a set that ours can be swapped with.
    fn live(&self, kernel: &mut Ipset) -> anyhow::Result<Option<Header>> {
        live(kernel, &self.name, self.kind(), Some(self.family))
    }
}

/// What is there under a name of ours; an error if it cannot be ours.
fn live(
    kernel: &mut Ipset,
    name: &str,
    kind: Type,
    family: Option<Family>,
) -> anyhow::Result<Option<Header>> {
    let header = kernel.header(name).with_context(|| format!("cannot look at the set {name}"))?;
    if let Some(header) = &header
        && !header.is(kind, family)
    {
        let spelled = |kind: &str, family: Option<Family>| {
            let family = family.map_or_else(String::new, |family| format!(" family {}", family.name()));
            format!("{kind}{family}")
        };
        bail!(
            "the set {name} is there as {}, and not as {}, so it is not ours; remove it (ipset destroy {name})",
            spelled(&header.type_name, Family::of(header.family)),
            spelled(kind.name(), family),
        );
    }
    Ok(header)
}

/// Makes a set, unless it is there; whether it was made.
fn make(kernel: &mut Ipset, name: &str, make: Make) -> anyhow::Result<bool> {
    let missing = live(kernel, name, make.kind, make.family)?.is_none();
    if missing {
        kernel.create(name, &make).with_context(|| format!("cannot make the set {name}"))?;
    }
    Ok(missing)
}

/// Whether the live sets are all there with as many entries as `content` has.
pub fn hold(kernel: &mut Ipset, content: &Content) -> anyhow::Result<bool> {
    for set in sets(content) {
        let entries = set.live(kernel)?.map(|header| header.entries);
        if entries != Some(set.entries(content)) && !(set.stays(content) && entries.is_some()) {
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
    for set in sets(content) {
        set.live(kernel)?;
    }
    clear_away(kernel)?;
    let loaded = fill_and_swap(kernel, content);
    // The live sets are what they should be, or what they were: what stays beside does no harm, and the next run names it.
    let _ = clear_away(kernel);
    loaded
}

/// Makes those of our sets that are missing, empty: a rule that names a set cannot be loaded without it. `lists` are those that
/// ports are restricted to.
pub fn make_missing<'a>(
    kernel: &mut Ipset,
    lists: impl IntoIterator<Item = &'a ListName>,
) -> anyhow::Result<()> {
    let empty = Content {
        lists: lists.into_iter().map(|list| (list.clone(), AddressSet::default())).collect(),
        ..Content::default()
    };
    for set in sets(&empty) {
        if set.live(kernel)?.is_none() {
            set.fill(&set.name, &empty, kernel)?;
        }
    }
    Ok(())
}

/// Makes those of our sets that are missing and that somebody names, empty, whatever the settings say; with one of those that belong
/// together, all of them. Other names, and those of jails ([`Banned::with_set`]), are passed over.
pub fn make_named<'a>(kernel: &mut Ipset, names: impl IntoIterator<Item = &'a str>) -> anyhow::Result<()> {
    let together = all_names([]);
    let (mut ours, mut lists) = (false, BTreeSet::new());
    for name in names {
        lists.extend(list_of(name));
        ours |= together.iter().any(|set| set == name);
    }
    if ours || !lists.is_empty() {
        make_missing(kernel, &lists)?;
    }
    if ours { make_standing(kernel) } else { Ok(()) }
}

/// The list that ports are restricted to and of which a set has this name.
#[must_use]
pub fn list_of(name: &str) -> Option<ListName> {
    let list = name.strip_prefix(LIST)?;
    let list = list.strip_suffix("-net4").or_else(|| list.strip_suffix("-net6"))?;
    ListName::try_from(list.to_owned()).ok()
}

/// How many entries the kernel has of a list that ports are restricted to, of IPv4 and IPv6.
pub fn count_of_list(kernel: &mut Ipset, list: &ListName) -> [usize; 2] {
    [Family::V4, Family::V6].map(|family| {
        let header = kernel.header(&of_list(list, family)).ok().flatten();
        header.map_or(0, |header| usize::try_from(header.entries).unwrap_or(usize::MAX))
    })
}

/// Whether [`fill_empty_lists`] has something to do.
pub fn has_empty_list(kernel: &mut Ipset, lists: &BTreeMap<ListName, AddressSet>) -> anyhow::Result<bool> {
    let content = Content { lists: lists.clone(), ..Content::default() };
    empty_lists(kernel, &content).map(|sets| !sets.is_empty())
}

/// Fills the sets of lists that are empty; no rule drops by an empty one. Those that hold something are the business of [`load`]. Hold
/// the lists' lock.
pub fn fill_empty_lists(kernel: &mut Ipset, lists: &BTreeMap<ListName, AddressSet>) -> anyhow::Result<()> {
    let content = Content { lists: lists.clone(), ..Content::default() };
    for set in empty_lists(kernel, &content)? {
        let (name, beside) = (&set.name, set.beside());
        kernel.destroy(&beside).with_context(|| format!("cannot remove the set {beside}"))?;
        set.fill(&beside, &content, kernel)?;
        set.swap(kernel).with_context(|| format!("cannot swap the set {name}"))?;
        kernel.destroy(&beside).with_context(|| format!("cannot remove the set {beside}"))?;
    }
    Ok(())
}

/// The sets of lists that are there and empty, though their lists are not.
fn empty_lists(kernel: &mut Ipset, content: &Content) -> anyhow::Result<Vec<Set>> {
    let mut empty = vec![];
    for set in sets(content) {
        let filled = matches!(set.side, Side::List(_)) && !set.stays(content);
        if filled && set.live(kernel)?.is_some_and(|header| header.entries == 0) {
            empty.push(set);
        }
    }
    Ok(empty)
}

/// The names of those sets that rules of the firewall may name, and that are missing or lack something that the firewall itself puts
/// in.
pub fn missing<'a>(
    kernel: &mut Ipset,
    lists: impl IntoIterator<Item = &'a ListName>,
) -> anyhow::Result<Vec<String>> {
    let there = kernel.names().context("cannot list the sets")?;
    let mut missing: Vec<String> = standing::incomplete(kernel)?.into_iter().map(str::to_owned).collect();
    let gone = all_names(lists).into_iter().filter(|name| !there.contains(name));
    missing.extend(gone);
    missing.sort();
    missing.dedup();
    Ok(missing)
}

fn all_names<'a>(lists: impl IntoIterator<Item = &'a ListName>) -> Vec<String> {
    let content = Content {
        lists: lists.into_iter().map(|list| (list.clone(), AddressSet::default())).collect(),
        ..Content::default()
    };
    let of_lists = sets(&content).into_iter().map(|set| set.name.into_owned());
    of_lists.chain(standing::all_names().map(str::to_owned)).collect()
}

/// Removes what is beside the live sets, where a crash left it.
pub fn clear_away(kernel: &mut Ipset) -> anyhow::Result<()> {
    let beside = |name: &String| {
        let live = name.strip_suffix(".new");
        live.is_some_and(|live| live.starts_with(LIST) || SETS.iter().any(|set| set.name == live))
    };
    for name in kernel.names().context("cannot list the sets")?.iter().filter(|name| beside(name)) {
        kernel.destroy(name).with_context(|| format!("cannot remove the set {name}"))?;
    }
    Ok(())
}

fn fill_and_swap(kernel: &mut Ipset, content: &Content) -> anyhow::Result<()> {
    let mut sets = sets(content);
    sets.retain(|set| !set.stays(content));
    for set in &sets {
        set.fill(&set.beside(), content, kernel)?;
    }
    // A set that took the place of none could not be swapped back.
    make_missing(kernel, content.lists.keys())?;
    for (done, set) in sets.iter().enumerate() {
        if let Err(refusal) = set.swap(kernel) {
            let error = anyhow::Error::new(refusal).context(format!("cannot swap the set {}", set.name));
            let swapped = sets[..done].iter().rev();
            let stuck: Vec<_> =
                swapped.filter(|set| set.swap(kernel).is_err()).map(|set| set.name.as_ref()).collect();
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
