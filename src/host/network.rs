//! Addresses and routes as the kernel has them, rtnetlink(7).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::{io, iter};

use anyhow::Context;

use crate::netlink::{Socket, Subsystem, attribute, number};

const RTM_GETLINK: u16 = 18;
const IFINFOMSG: usize = 16;
const IFLA_IFNAME: u16 = 3;

const RTM_GETADDR: u16 = 22;
const IFADDRMSG: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// An address with this scope, or a narrower one, is for its link, or for this host.
const RT_SCOPE_LINK: u8 = 253;

const RTM_GETROUTE: u16 = 26;
const RTMSG: usize = 12;
/// A route that leads somewhere.
const RTN_UNICAST: u8 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_MULTIPATH: u16 = 9;
const RTA_VIA: u16 = 18;
const RTA_NH_ID: u16 = 30;
/// `struct rtnexthop`: its length with the attributes behind it, flags, hops, interface.
const RTNEXTHOP: usize = 8;

const RTM_GETNEXTHOP: u16 = 106;
const NHMSG: usize = 8;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// How many connections the kernel tracks in the network namespace of this process; 0 where it tracks none.
#[must_use]
pub fn tracked_connections() -> u64 {
    let count = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").unwrap_or_default();
    count.trim().parse().unwrap_or(0)
}

/// The addresses of all interfaces, in order; of a point-to-point link the one that is ours.
pub fn addresses() -> anyhow::Result<Vec<IpAddr>> {
    let mut own = BTreeSet::new();
    ask(RTM_GETADDR, IFADDRMSG, &[AF_INET, AF_INET6], |body| {
        // IFA_ADDRESS is the other end of a point-to-point link, if there is IFA_LOCAL.
        let ours = attribute(body, IFA_LOCAL).or_else(|| attribute(body, IFA_ADDRESS));
        own.extend(ours.and_then(address));
    })
    .context("cannot read the addresses of this host's interfaces from the kernel")?;
    Ok(own.into_iter().collect())
}

/// The next hops of all routes of all tables, in order. If a route uses a nexthop object, those of all nexthop objects
/// are among them.
pub fn gateways() -> anyhow::Result<Vec<IpAddr>> {
    let mut gateways = BTreeSet::new();
    let mut objects = false;
    ask(RTM_GETROUTE, RTMSG, &[AF_INET, AF_INET6], |body| {
        gateways.extend(next_hop(body));
        if let Some(hops) = attribute(body, RTA_MULTIPATH) {
            gateways.extend(multipath(hops).filter_map(next_hop));
        }
        objects |= attribute(body, RTA_NH_ID).is_some();
    })
    .context("cannot read this host's routes from the kernel")?;
    if objects {
        // The route itself names their gateways only with nexthop_compat_mode.
        ask(RTM_GETNEXTHOP, NHMSG, &[0], |body| {
            gateways.extend(attribute(body, NHA_GATEWAY).and_then(address));
        })
        .context("cannot read this host's nexthop objects from the kernel")?;
    }
    Ok(gateways.into_iter().collect())
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interface {
    /// Its number; another one that gets its name later has another number.
    pub index: u32,
    /// Up to 15 bytes.
    pub name: String,
}

/// All interfaces, in order.
pub fn interfaces() -> anyhow::Result<Vec<Interface>> {
    let mut all = BTreeSet::new();
    dump(RTM_GETLINK, IFINFOMSG, &[0], |body| {
        let index = number(body.get(4..).unwrap_or_default());
        let name = body.get(IFINFOMSG..).and_then(|attributes| attribute(attributes, IFLA_IFNAME));
        let name = name.and_then(|name| str::from_utf8(name.strip_suffix(b"\0")?).ok());
        all.extend(index.zip(name).map(|(index, name)| Interface { index, name: name.to_owned() }));
    })
    .context("cannot read this host's interfaces from the kernel")?;
    Ok(all.into_iter().collect())
}

/// The interfaces that a default route of any table leads to, over IPv4 or IPv6, in order; one to half of all addresses is one too,
/// which VPNs lay in two over the default route. If such a route uses a nexthop object, those of all nexthop objects are among them.
pub fn uplinks() -> anyhow::Result<Vec<Interface>> {
    let mut indices = BTreeSet::new();
    let mut objects = false;
    dump(RTM_GETROUTE, RTMSG, &[AF_INET, AF_INET6], |body| {
        let Some((header, route)) = body.split_first_chunk::<RTMSG>() else { return };
        let [_, destination_bits, .., kind, _, _, _, _] = *header;
        if destination_bits > 1 || kind != RTN_UNICAST {
            return;
        }
        indices.extend(attribute(route, RTA_OIF).and_then(number));
        let hops = attribute(route, RTA_MULTIPATH).unwrap_or_default();
        indices.extend(paths(hops).filter_map(|path| number(path.get(4..)?)));
        objects |= attribute(route, RTA_NH_ID).is_some();
    })
    .context("cannot read this host's routes from the kernel")?;
    if objects {
        ask(RTM_GETNEXTHOP, NHMSG, &[0], |body| {
            indices.extend(attribute(body, NHA_OIF).and_then(number));
        })
        .context("cannot read this host's nexthop objects from the kernel")?;
    }
    but_loopback(indices)
}

/// The interfaces that have an address which others can reach, in order.
pub fn with_addresses() -> anyhow::Result<Vec<Interface>> {
    let mut indices = BTreeSet::new();
    dump(RTM_GETADDR, IFADDRMSG, &[AF_INET, AF_INET6], |body| {
        let Some((header, _)) = body.split_first_chunk::<IFADDRMSG>() else { return };
        let [_, _, _, scope, index @ ..] = *header;
        if scope < RT_SCOPE_LINK {
            indices.insert(u32::from_ne_bytes(index));
        }
    })
    .context("cannot read the addresses of this host's interfaces from the kernel")?;
    but_loopback(indices)
}

fn but_loopback(mut indices: BTreeSet<u32>) -> anyhow::Result<Vec<Interface>> {
    let loopback = 1;
    indices.remove(&loopback);
    Ok(interfaces()?.into_iter().filter(|interface| indices.contains(&interface.index)).collect())
}

/// Asks for everything of these families; `each` gets the attributes of every answer, of some perhaps twice.
fn ask(kind: u16, header: usize, families: &[u8], mut each: impl FnMut(&[u8])) -> anyhow::Result<()> {
    dump(kind, header, families, |body| each(body.get(header..).unwrap_or_default()))
}

/// The same, with the fixed part before the attributes.
fn dump(kind: u16, header: usize, families: &[u8], mut each: impl FnMut(&[u8])) -> anyhow::Result<()> {
    let mut socket = Socket::open(Subsystem::Route)?;
    for family in families {
        let mut request = vec![0; header];
        request[0] = *family;
        socket.dump(kind, &request, &mut each).map_err(io::Error::from)?;
    }
    Ok(())
}

/// The gateway that the attributes of a route, or of one of its paths, name.
fn next_hop(route: &[u8]) -> Option<IpAddr> {
    // RTA_VIA, a gateway of the other family, begins with the family.
    let via = || attribute(route, RTA_VIA)?.get(2..);
    attribute(route, RTA_GATEWAY).or_else(via).and_then(address)
}

/// The attributes of each path.
fn multipath(hops: &[u8]) -> impl Iterator<Item = &[u8]> {
    paths(hops).filter_map(|path| path.get(RTNEXTHOP..))
}

/// Each path: `struct rtnexthop` and its attributes.
fn paths(hops: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = hops;
    iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let path = rest.get(..length).filter(|_| length >= RTNEXTHOP)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(path)
    })
}

/// An address in network byte order.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?));
    let v6 = || Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?));
    Some(v4().or_else(v6)?.to_canonical())
}
