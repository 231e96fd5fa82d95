//! Entries that end by themselves, in two sets: one of IPv4, one of IPv6.

use anyhow::Context;
use ipnetwork::IpNetwork;

use super::ipset::{Family, Ipset};
use crate::address_set::Block;

/// ipset counts no more seconds.
const LONGEST: u32 = 2_147_483;

/// The names of two sets that belong together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair<'a> {
    pub(super) v4: &'a str,
    pub(super) v6: &'a str,
}

impl<'a> Pair<'a> {
    pub(super) fn each(self) -> [(&'a str, Family); 2] {
        [(self.v4, Family::V4), (self.v6, Family::V6)]
    }
}

/// Puts networks in, each for so many seconds, with none for ever; for those that are there they begin anew.
pub(super) fn put(
    kernel: &mut Ipset,
    sets: Pair<'_>,
    entries: impl IntoIterator<Item = (IpNetwork, u32)>,
) -> anyhow::Result<()> {
    let (mut v4, mut v6) = (vec![], vec![]);
    for (network, seconds) in entries {
        let seconds = seconds.min(LONGEST);
        match network {
            IpNetwork::V4(network) => v4.push((Block::from(network), seconds)),
            IpNetwork::V6(network) => v6.push((Block::from(network), seconds)),
        }
    }
    let failed = |name: &str| format!("cannot fill the set {name}");
    kernel.refresh(sets.v4, v4.into_iter()).with_context(|| failed(sets.v4))?;
    kernel.refresh(sets.v6, v6.into_iter()).with_context(|| failed(sets.v6))
}

/// Takes networks out, where they are in.
pub(super) fn take_out(
    kernel: &mut Ipset,
    sets: Pair<'_>,
    networks: impl IntoIterator<Item = IpNetwork>,
) -> anyhow::Result<()> {
    let (mut v4, mut v6) = (vec![], vec![]);
    for network in networks {
        match network {
            IpNetwork::V4(network) => v4.push(Block::from(network)),
            IpNetwork::V6(network) => v6.push(Block::from(network)),
        }
    }
    let failed = |name: &str| format!("cannot take addresses out of the set {name}");
    kernel.remove(sets.v4, v4.into_iter()).with_context(|| failed(sets.v4))?;
    kernel.remove(sets.v6, v6.into_iter()).with_context(|| failed(sets.v6))
}
