//! The sets of addresses seen: who is in them, and for how long still.

use std::net::IpAddr;

use anyhow::Context;

use super::ipset::{Family, Ipset};
use super::standing::names;

/// ipset counts no more seconds.
const LONGEST: u32 = 2_147_483;

/// Puts addresses in, each for so many seconds, at least one; for those that are there they begin anew. What the kernel does not
/// hold (0.0.0.0 and ::) is passed over. The sets are there ([`make_standing`](super::make_standing)).
pub fn put_seen(
    kernel: &mut Ipset,
    addresses: impl IntoIterator<Item = (IpAddr, u32)>,
) -> anyhow::Result<()> {
    let (mut v4, mut v6) = (vec![], vec![]);
    for (address, seconds) in addresses {
        // For ever is what ipset would take no seconds for.
        let seconds = seconds.clamp(1, LONGEST);
        match address {
            _ if address.is_unspecified() => {}
            IpAddr::V4(address) => v4.push((u32::from(address), seconds)),
            IpAddr::V6(address) => v6.push((u128::from(address), seconds)),
        }
    }
    let [name4, name6] = sets();
    kernel.refresh(name4, v4.into_iter()).with_context(|| format!("cannot fill the set {name4}"))?;
    kernel.refresh(name6, v6.into_iter()).with_context(|| format!("cannot fill the set {name6}"))
}

/// Takes addresses out, where they are in.
pub fn let_go_of_seen(kernel: &mut Ipset, addresses: impl IntoIterator<Item = IpAddr>) -> anyhow::Result<()> {
    let (mut v4, mut v6) = (vec![], vec![]);
    for address in addresses {
        match address {
            _ if address.is_unspecified() => {}
            IpAddr::V4(address) => v4.push(u32::from(address)),
            IpAddr::V6(address) => v6.push(u128::from(address)),
        }
    }
    let [name4, name6] = sets();
    let failed = |name: &str| format!("cannot take addresses out of the set {name}");
    kernel.remove(name4, v4.into_iter()).with_context(|| failed(name4))?;
    kernel.remove(name6, v6.into_iter()).with_context(|| failed(name6))
}

fn sets() -> [&'static str; 2] {
    [Family::V4, Family::V6].map(|family| names(family).seen)
}
