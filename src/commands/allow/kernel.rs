//! The sets of addresses seen, as the book and the memory of registrations say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::Context;

use super::Call;
use crate::allow::timed::Book;
use crate::kernel_sets::{self, Family, Ipset};
use crate::registrations::{self, DAY};

/// The kernel's sets.
pub(super) struct Seen {
    kernel: Ipset,
    /// They were not there: the host was booted, or somebody destroyed them.
    pub(super) made: bool,
}

impl Seen {
    /// Makes those that are missing.
    pub(super) fn open() -> anyhow::Result<Self> {
        let mut kernel = Ipset::open().context("cannot talk to the kernel's ipset")?;
        let there = kernel.header(kernel_sets::names(Family::V4).seen);
        let made = there.context("cannot ask for the kernel's sets")?.is_none();
        let mut complete = || {
            kernel_sets::make_missing(&mut kernel, [])?;
            kernel_sets::make_standing(&mut kernel)
        };
        // Another tool may have made one at the same moment.
        complete().or_else(|_| complete())?;
        Ok(Self { kernel, made })
    }

    /// Puts addresses in, each until then.
    pub(super) fn put(&mut self, ends: &BTreeMap<IpAddr, i64>, now: i64) -> anyhow::Result<()> {
        let left = |end: i64| u32::try_from(end.saturating_sub(now).max(1)).unwrap_or(u32::MAX);
        kernel_sets::put_seen(&mut self.kernel, ends.iter().map(|(address, end)| (*address, left(*end))))
    }

    fn let_go(&mut self, addresses: impl IntoIterator<Item = IpAddr>) -> anyhow::Result<()> {
        kernel_sets::let_go_of_seen(&mut self.kernel, addresses)
    }
}

/// Brings into the kernel what the book says of these addresses at `now`; where mode is observe, only that they are gone. The result
/// is who stays there though the book does not have them: phones, each with when it was last seen registered.
pub(super) fn settle(
    call: &Call,
    book: &Book,
    addresses: impl IntoIterator<Item = IpAddr>,
    now: i64,
) -> anyhow::Result<BTreeMap<IpAddr, i64>> {
    let addresses = addresses.into_iter().collect::<BTreeSet<_>>();
    let mut kernel = Seen::open()?;
    if call.observes() {
        kernel.let_go(addresses)?;
        return Ok(BTreeMap::new());
    }
    let ends = book.ends(now);
    // What cannot be read protects nobody here; sync says so.
    let seen = registrations::last_seen(&call.config.state_dir, now).unwrap_or_default();
    let (mut stay, mut go, mut phones) = (BTreeMap::new(), vec![], BTreeMap::new());
    for address in addresses {
        let phone = seen.get(&address);
        if let Some(at) = phone
            && !ends.contains_key(&address)
        {
            phones.insert(address, *at);
        }
        match ends.get(&address).copied().max(phone.map(|at| at + DAY)) {
            Some(end) => drop(stay.insert(address, end)),
            None => go.push(address),
        }
    }
    kernel.put(&stay, now)?;
    kernel.let_go(go)?;
    Ok(phones)
}
