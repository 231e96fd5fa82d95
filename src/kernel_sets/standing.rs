//! Sets that are not filled from lists, and sets of sets, so that one rule asks all of them.

use anyhow::Context;

use super::ipset::{Family, Ipset, Make, Type};
use super::make;
use crate::config::firewall::PortRange;

/// Ports on which every packet is looked at, whether a connection is established or not.
pub const PORTS: &str = "rf-ports";

const PORTS_BESIDE: &str = "rf-ports.new";

/// Seconds for which an address that was seen registered stays.
const SEEN_FOR: u32 = 24 * 60 * 60;

/// Room in the sets of addresses seen: for all that are remembered as seen registered, and all that `ringfence-allow` keeps.
const SEEN: u32 = 400_000;

/// Seconds for which who exceeded a limit stays blocked, unless he goes on, where a rule does not say.
const SLAMMING_FOR: u32 = 60;

/// Room in a set of sets.
const MEMBERS: u32 = 8;

/// The names of sets of one family in the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// `hash:ip` with timeouts: addresses with live registrations, and whom `ringfence-allow` named.
    pub seen: &'static str,
    /// `hash:ip` with timeouts: who exceeded a limit.
    pub slamming: &'static str,
    /// `list:set`: who is allowed, and who was seen.
    pub allowed: &'static str,
    /// `list:set`: who is on a block list.
    pub blocked: &'static str,
    /// `list:set`: who is allowed, was seen, or is on a block list.
    pub listed: &'static str,
    /// `list:set`: these, and who exceeded a limit.
    pub known: &'static str,
    /// `hash:ip` and `hash:net`: who is on an allow list.
    pub allow_lists: [&'static str; 2],
    /// `hash:ip` and `hash:net`: who is on a block list.
    pub block_lists: [&'static str; 2],
}

/// The names for a family.
#[must_use]
pub const fn names(family: Family) -> Names {
    match family {
        Family::V4 => Names {
            seen: "rf-seen-ip4",
            slamming: "rf-slam-ip4",
            allowed: "rf-allow4",
            blocked: "rf-block4",
            listed: "rf-listed4",
            known: "rf-known4",
            allow_lists: ["rf-allow-ip4", "rf-allow-net4"],
            block_lists: ["rf-block-ip4", "rf-block-net4"],
        },
        Family::V6 => Names {
            seen: "rf-seen-ip6",
            slamming: "rf-slam-ip6",
            allowed: "rf-allow6",
            blocked: "rf-block6",
            listed: "rf-listed6",
            known: "rf-known6",
            allow_lists: ["rf-allow-ip6", "rf-allow-net6"],
            block_lists: ["rf-block-ip6", "rf-block-net6"],
        },
    }
}

impl Names {
    /// The sets of sets and what is in them, in an order in which they can be made.
    fn groups(&self) -> [(&'static str, Vec<&'static str>); 4] {
        let allowed = [&self.allow_lists[..], &[self.seen]].concat();
        let listed = [&allowed[..], &self.block_lists].concat();
        [
            (self.allowed, allowed),
            (self.blocked, self.block_lists.to_vec()),
            (self.known, [&listed[..], &[self.slamming]].concat()),
            (self.listed, listed),
        ]
    }
}

/// Whom a set of ours holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Who is on an allow list, or was seen.
    Allowed,
    /// Who is on a block list.
    Blocked,
    /// Who exceeded a limit.
    Slamming,
    /// These, more than one of them.
    Known,
    /// Whom a port is restricted to.
    Restricted,
}

impl Role {
    /// By the name of the set; none of one that is not ours, or holds none of these.
    #[must_use]
    pub fn of(set: &str) -> Option<Self> {
        let by_family = |family| {
            let names = names(family);
            match () {
                () if set == names.allowed || set == names.seen || names.allow_lists.contains(&set) => {
                    Some(Self::Allowed)
                }
                () if set == names.blocked || names.block_lists.contains(&set) => Some(Self::Blocked),
                () if set == names.slamming => Some(Self::Slamming),
                () if set == names.listed || set == names.known => Some(Self::Known),
                () => None,
            }
        };
        let restricted = || super::list_of(set).map(|_| Self::Restricted);
        [Family::V4, Family::V6].into_iter().find_map(by_family).or_else(restricted)
    }
}

/// Makes those that are missing; those of lists are there ([`make_missing`](super::make_missing)).
pub fn make_standing(kernel: &mut Ipset) -> anyhow::Result<()> {
    for family in [Family::V4, Family::V6] {
        let names = names(family);
        let plain = Make::plain(Type::Addresses, Some(family), 0);
        make(kernel, names.seen, Make { timeout: Some(SEEN_FOR), room: SEEN, ..plain })?;
        // Whoever has an IPv6 address has a /64 of them.
        let netmask = (family == Family::V6).then_some(64);
        make(kernel, names.slamming, Make { timeout: Some(SLAMMING_FOR), netmask, ..plain })?;
        for (group, members) in names.groups() {
            make(kernel, group, Make::plain(Type::Sets, None, MEMBERS))?;
            // A crash, or somebody else, may have left some of them out.
            for member in members {
                kernel
                    .add_set(group, member)
                    .with_context(|| format!("cannot put the set {member} into {group}"))?;
            }
        }
    }
    make(kernel, PORTS, Make::plain(Type::Ports, None, 0)).map(drop)
}

/// Those of them that do not hold what they should.
pub(super) fn incomplete(kernel: &mut Ipset) -> anyhow::Result<Vec<&'static str>> {
    let mut incomplete = vec![];
    let groups = [Family::V4, Family::V6].into_iter().flat_map(|family| names(family).groups());
    let wanted = groups.map(|(name, members)| (name, members.len())).chain([(PORTS, 1)]);
    for (name, least) in wanted {
        let entries = kernel.header(name)?.map_or(0, |header| header.entries);
        if usize::try_from(entries).is_ok_and(|entries| entries < least) {
            incomplete.push(name);
        }
    }
    Ok(incomplete)
}

/// Replaces the ports in [`PORTS`].
pub fn fill_ports(kernel: &mut Ipset, ports: impl IntoIterator<Item = PortRange>) -> anyhow::Result<()> {
    let fill = |kernel: &mut Ipset| {
        kernel.destroy(PORTS_BESIDE)?;
        kernel.create(PORTS_BESIDE, &Make::plain(Type::Ports, None, 0))?;
        for range in ports {
            kernel.add_ports(PORTS_BESIDE, range.first(), range.last())?;
        }
        kernel.swap(PORTS_BESIDE, PORTS)?;
        kernel.destroy(PORTS_BESIDE)
    };
    fill(kernel).with_context(|| format!("cannot fill the set {PORTS}"))
}

/// The names of all of them.
pub(super) fn all_names() -> impl Iterator<Item = &'static str> {
    let of = |family| {
        let Names { seen, slamming, allowed, blocked, listed, known, .. } = names(family);
        [seen, slamming, allowed, blocked, listed, known]
    };
    [of(Family::V4), of(Family::V6)].into_iter().flatten().chain([PORTS])
}

/// Removes the sets that nothing but the firewall's rules needs; what another rule names is left, and said by its name. A set that only
/// has a name of ours is somebody else's.
pub fn remove_standing(kernel: &mut Ipset) -> Vec<String> {
    let of = |family| {
        let Names { slamming, allowed, blocked, listed, known, .. } = names(family);
        let groups = [known, listed, allowed, blocked].map(|name| (name.to_owned(), Type::Sets, None));
        groups.into_iter().chain([(slamming.to_owned(), Type::Addresses, Some(family))])
    };
    let ports = [PORTS, PORTS_BESIDE].map(|name| (name.to_owned(), Type::Ports, None));
    let lists = kernel.names().unwrap_or_default().into_iter().filter(|name| name.starts_with(super::LIST));
    let lists = lists.map(|name| {
        let family = if name.contains("-net6") { Family::V6 } else { Family::V4 };
        (name, Type::Networks, Some(family))
    });
    let all: Vec<_> = of(Family::V4).chain(of(Family::V6)).chain(ports).chain(lists).collect();
    let mut left = vec![];
    for (name, kind, family) in all {
        let ours =
            kernel.header(&name).is_ok_and(|header| header.is_some_and(|header| header.is(kind, family)));
        if ours && kernel.destroy(&name).is_err() {
            left.push(name);
        }
    }
    left
}
