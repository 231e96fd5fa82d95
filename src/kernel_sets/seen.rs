//! The sets of addresses seen: who is in them, and for how long still.

use std::net::IpAddr;

use super::ipset::{Family, Ipset};
use super::standing::names;
use super::timed::{self, Pair};

/// Puts addresses in, each for so many seconds, at least one; for those that are there they begin anew. What the kernel does not
/// hold (0.0.0.0 and ::) is passed over. The sets are there ([`make_standing`](super::make_standing)).
pub fn put_seen(
    kernel: &mut Ipset,
    addresses: impl IntoIterator<Item = (IpAddr, u32)>,
) -> anyhow::Result<()> {
    // For ever is what ipset would take no seconds for.
    let hosts = addresses.into_iter().filter(|(address, _)| !address.is_unspecified());
    timed::put(kernel, sets(), hosts.map(|(address, seconds)| (address.into(), seconds.max(1))))
}

/// Takes addresses out, where they are in.
pub fn let_go_of_seen(kernel: &mut Ipset, addresses: impl IntoIterator<Item = IpAddr>) -> anyhow::Result<()> {
    let hosts = addresses.into_iter().filter(|address| !address.is_unspecified());
    timed::take_out(kernel, sets(), hosts.map(Into::into))
}

fn sets() -> Pair<'static> {
    Pair { v4: names(Family::V4).seen, v6: names(Family::V6).seen }
}
