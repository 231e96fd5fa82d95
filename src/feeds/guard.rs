//! Whom no list may block, and what is left of a list without them: exactly the rest.

use std::fmt;
use std::net::IpAddr;

use crate::address;
use crate::address_set::AddressSet;
use crate::evidence::visible;
use crate::host;

/// Why an address is never blocked. Earlier reasons are named before later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// A SIP provider of this FusionPBX.
    Carrier,
    /// A phone with a live registration.
    Registered,
    /// A phone that was registered within a day.
    SeenRegistered,
    /// On an allow list.
    Allowed,
    /// Of this host.
    Own,
    /// A next hop of this host.
    Gateway,
    /// A name server of this host.
    Resolver,
    /// Somebody is logged in from there.
    LoginPeer,
    /// Not an address of the internet, whatever a list says.
    Special,
}

impl Why {
    /// In one word, as the journal has it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Carrier => "carrier",
            Self::Registered => "registered",
            Self::SeenRegistered => "seen-lately",
            Self::Allowed => "allowed",
            Self::Own => "own-address",
            Self::Gateway => "gateway",
            Self::Resolver => "resolver",
            Self::LoginPeer => "login-peer",
            Self::Special => "special-range",
        }
    }

    /// What is there, one and many of it.
    #[must_use]
    pub const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Carrier => ("carrier", "carriers"),
            Self::Registered => ("registered phone", "registered phones"),
            Self::SeenRegistered => ("phone registered within a day", "phones registered within a day"),
            Self::Allowed => ("allowed range", "allowed ranges"),
            Self::Own => ("address of this host", "addresses of this host"),
            Self::Gateway => ("gateway of this host", "gateways of this host"),
            Self::Resolver => ("name server of this host", "name servers of this host"),
            Self::LoginPeer => ("peer of a login session", "peers of login sessions"),
            Self::Special => ("range that is not of the internet", "ranges that are not of the internet"),
        }
    }
}

/// Addresses that are never blocked, and what they are.
#[derive(Clone, Debug)]
pub struct Protected {
    /// Why.
    pub why: Why,
    /// Whose, for people; empty where the address says enough.
    pub name: String,
    /// Which.
    pub addresses: AddressSet,
}

impl Protected {
    /// Addresses without a name.
    #[must_use]
    pub fn addresses(why: Why, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self { why, name: String::new(), addresses: addresses.into_iter().collect() }
    }
}

/// What belongs to this host, and who is logged in.
#[must_use]
pub fn of_host(host: &host::Protected) -> Vec<Protected> {
    let of = |why, addresses: &Vec<IpAddr>| Protected::addresses(why, addresses.iter().copied());
    vec![
        of(Why::Own, &host.own),
        of(Why::Gateway, &host.gateways),
        of(Why::Resolver, &host.resolvers),
        of(Why::LoginPeer, &host.login_peers),
    ]
}

/// What a list would have blocked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Why it must not.
    pub why: Why,
    /// Whose.
    pub name: String,
    /// Which.
    pub addresses: AddressSet,
}

/// `carrier "gateway acme" 203.0.113.0/24`
impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ranges = self.addresses.ranges();
        let first = ranges.next().map(|range| range.to_string()).unwrap_or_default();
        let more = match ranges.count() {
            0 => String::new(),
            count => format!(" and {count} more"),
        };
        if self.name.is_empty() {
            write!(f, "{first}{more}")
        } else {
            write!(f, "{} {first}{more}", visible(&self.name))
        }
    }
}

/// `block` without what is protected, and what was cut out, in the order of the reasons. An address that is protected for several
/// reasons is named once.
#[must_use]
pub fn cut(block: &AddressSet, protected: &[Protected]) -> (AddressSet, Vec<Hit>) {
    let mut order: Vec<&Protected> = protected.iter().collect();
    order.sort_by_key(|protected| protected.why);
    let mut rest: Option<AddressSet> = None;
    let mut hits = vec![];
    for Protected { why, name, addresses } in order {
        let left = rest.as_ref().unwrap_or(block);
        let addresses = left.intersection(addresses);
        if !addresses.is_empty() {
            rest = Some(left.minus(&addresses));
            hits.push(Hit { why: *why, name: name.clone(), addresses });
        }
    }
    (rest.unwrap_or_else(|| block.clone()), hits)
}

/// [`address::SPECIAL`], as those who must not be blocked.
#[must_use]
pub fn special() -> Vec<Protected> {
    address::SPECIAL
        .iter()
        .map(|(name, network)| Protected {
            why: Why::Special,
            name: (*name).to_owned(),
            addresses: std::iter::once(*network).collect(),
        })
        .collect()
}

/// How many phones there are about in so many addresses: a range of IPv6 that is too wide for that is one phone with
/// its neighbours.
fn phones(addresses: &AddressSet) -> u128 {
    const MOST: u128 = 1 << 16;
    let v6 = addresses.v6.iter().map(|range| if range.count() > MOST { 1 } else { range.count() });
    addresses.v4.addresses() + v6.sum::<u128>()
}

/// What was cut out of a list, a sentence for each reason: `would have blocked 2 registered phones: 203.0.113.20, ...`.
#[must_use]
pub fn sentences(hits: &[Hit]) -> Vec<String> {
    const NAMED: usize = 5;
    hits.chunk_by(|one, other| one.why == other.why)
        .map(|hits| {
            let why = hits[0].why;
            let each = |hit: &Hit| match why {
                Why::Carrier => 1,
                Why::Allowed | Why::Special => hit.addresses.ranges().count() as u128,
                Why::Registered | Why::SeenRegistered => phones(&hit.addresses),
                _ => hit.addresses.addresses(),
            };
            let count = hits.iter().fold(0, |sum: u128, hit| sum.saturating_add(each(hit)));
            let (one, many) = why.names();
            let mut named: Vec<String> = hits.iter().take(NAMED).map(Hit::to_string).collect();
            if hits.len() > NAMED {
                named.push(format!("{} more", hits.len() - NAMED));
            }
            format!(
                "would have blocked {count} {}: {}",
                if count == 1 { one } else { many },
                named.join(", ")
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address_set::AddressRange;

    fn set(text: &str) -> AddressSet {
        text.split_whitespace().map(|range| range.parse::<AddressRange>().unwrap()).collect()
    }

    fn protected(why: Why, name: &str, ranges: &str) -> Protected {
        Protected { why, name: name.into(), addresses: set(ranges) }
    }

    #[test]
    fn cuts_out_exactly_and_names_each_once() {
        let guards = [
            protected(Why::Allowed, "office", "198.51.100.0/25"),
            protected(Why::Carrier, "gateway acme", "198.51.100.7"),
            protected(Why::Registered, "", "203.0.113.20 203.0.113.22 192.0.2.1"),
        ];
        let (rest, hits) = cut(&set("198.51.100.0/24 203.0.113.0/24"), &guards);
        assert_eq!(rest.addresses(), 128 + 254);
        assert!(rest.intersection(&set("198.51.100.0/25 203.0.113.20 203.0.113.22")).is_empty());
        assert_eq!(
            sentences(&hits),
            [
                "would have blocked 1 carrier: gateway acme 198.51.100.7",
                "would have blocked 2 registered phones: 203.0.113.20 and 1 more",
                "would have blocked 2 allowed ranges: office 198.51.100.0-198.51.100.6 and 1 more",
            ]
        );
        let whole = set("9.0.0.0/8");
        assert_eq!(cut(&whole, &guards), (whole, vec![]));
    }

    #[test]
    fn phones_are_counted_and_not_their_neighbours() {
        let guards = [
            protected(Why::Registered, "101@a", "2001:db8:66:7::/64"),
            protected(Why::Registered, "", "2001:db8::7-2001:db8::8 203.0.113.4/31"),
            protected(Why::Resolver, "", "203.0.113.52-203.0.113.53"),
        ];
        let (_, hits) = cut(&set("2001:db8::/32 203.0.113.0/24"), &guards);
        assert_eq!(
            sentences(&hits),
            [
                "would have blocked 5 registered phones: 101@a 2001:db8:66:7::/64, 203.0.113.4/31 and 1 more",
                "would have blocked 2 name servers of this host: 203.0.113.52/31",
            ]
        );
    }

    #[test]
    fn special_ranges_are_never_blocked() {
        let listed = set(
            "0.0.0.0/31 10.0.0.241 127.0.0.1 169.254.1.1 172.16.0.0/13 192.168.0.0/16 224.0.0.1 \
                          240.0.0.1 255.255.255.255 100.64.0.1 192.0.0.1 ::1 :: fe80::1 fc00::/8 ff02::1 1.2.3.4 192.0.2.1 198.18.0.1 2001:db8::1",
        );
        let (rest, hits) = cut(&listed, &special());
        assert_eq!(rest, set("1.2.3.4 192.0.2.1 198.18.0.1 2001:db8::1"));
        assert_eq!(hits.len(), crate::address::SPECIAL.len());
        assert!(sentences(&hits)[0].starts_with(
            "would have blocked 16 ranges that are not of the internet: this network 0.0.0.0/31, "
        ));
    }
}
