//! Networks as access control nodes have them, and which of them a carrier may have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

/// A network wider than this is no carrier's: /8 is the widest block that was ever given to one holder.
const WIDEST_V4: u8 = 8;

/// As [`WIDEST_V4`]: the largest providers hold a /19.
const WIDEST_V6: u8 = 19;

/// Nobody on the Internet has an address in these: RFC 6890, RFC 1918, RFC 6598, RFC 3927, RFC 5771.
const SPECIAL_V4: [(Ipv4Addr, u8); 9] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// As [`SPECIAL_V4`]: RFC 4291, RFC 4193.
const SPECIAL_V6: [(Ipv6Addr, u8); 5] = [
    (Ipv6Addr::UNSPECIFIED, 128),
    (Ipv6Addr::LOCALHOST, 128),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
];

/// What a network can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// On the Internet, and no wider than a carrier's network can be.
    Public,
    /// Private, loopback, link-local, shared (CGNAT), multicast, reserved.
    Special,
    /// Wider than any carrier's.
    TooWide,
}

/// Reads `address` or `address/prefix`; host bits are cleared, and IPv4-mapped IPv6 is the IPv4 that it stands for.
pub(super) fn parse(text: &str) -> Option<IpNetwork> {
    let network: IpNetwork = text.trim().parse().ok()?;
    let (address, prefix) = match network.ip() {
        IpAddr::V6(v6) if network.prefix() >= 96 => match v6.to_ipv4_mapped() {
            Some(v4) => (IpAddr::V4(v4), network.prefix() - 96),
            None => (IpAddr::V6(v6), network.prefix()),
        },
        address => (address, network.prefix()),
    };
    let clean = IpNetwork::new(address, prefix).ok()?;
    IpNetwork::new(clean.network(), prefix).ok()
}

/// What `network` is.
pub(super) fn reach(network: IpNetwork) -> Reach {
    let (special, widest) = match network {
        IpNetwork::V4(v4) => (SPECIAL_V4.iter().any(|range| covers_v4(*range, v4)), WIDEST_V4),
        IpNetwork::V6(v6) => (SPECIAL_V6.iter().any(|range| covers_v6(*range, v6)), WIDEST_V6),
    };
    match (special, network.prefix() < widest) {
        (true, _) => Reach::Special,
        (false, true) => Reach::TooWide,
        (false, false) => Reach::Public,
    }
}

/// The network of one address, if it is on the Internet.
pub(super) fn public_host(address: IpAddr) -> Option<IpNetwork> {
    let network = IpNetwork::from(address.to_canonical());
    (reach(network) == Reach::Public).then_some(network)
}

fn covers_v4((start, prefix): (Ipv4Addr, u8), network: Ipv4Network) -> bool {
    Ipv4Network::new(start, prefix).is_ok_and(|range| network.is_subnet_of(range))
}

fn covers_v6((start, prefix): (Ipv6Addr, u8), network: Ipv6Network) -> bool {
    Ipv6Network::new(start, prefix).is_ok_and(|range| network.is_subnet_of(range))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_nodes_have() {
        for (text, network) in [
            ("203.0.113.7", "203.0.113.7/32"),
            (" 203.0.113.7/24\n", "203.0.113.0/24"),
            ("203.0.113.0/255.255.255.0", "203.0.113.0/24"),
            ("2001:DB8::1", "2001:db8::1/128"),
            ("2001:db8:1:2::1/48", "2001:db8:1::/48"),
            ("::ffff:203.0.113.7", "203.0.113.7/32"),
            ("::ffff:203.0.113.7/120", "203.0.113.0/24"),
        ] {
            assert_eq!(parse(text).map(|network| network.to_string()).as_deref(), Some(network), "{text}");
        }
        for text in [
            "",
            "/",
            "203.0.113.7/",
            "203.0.113.7/33",
            "203.0.113",
            "sip.acme.example",
            "::/129",
            "1.2.3.4:5060",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn tells_public_from_special_and_too_wide() {
        for (text, is) in [
            ("203.0.113.0/24", Reach::Public),
            ("12.0.0.0/8", Reach::Public),
            ("12.0.0.0/7", Reach::TooWide),
            ("0.0.0.0/0", Reach::TooWide),
            ("::ffff:0.0.0.0/96", Reach::TooWide),
            ("::/0", Reach::TooWide),
            ("2a00::/19", Reach::Public),
            ("2a00::/18", Reach::TooWide),
            ("10.1.2.3", Reach::Special),
            ("172.31.0.0/16", Reach::Special),
            ("172.32.0.0/16", Reach::Public),
            ("192.168.0.0/16", Reach::Special),
            ("192.168.0.0/15", Reach::Public),
            ("100.127.0.1", Reach::Special),
            ("100.128.0.1", Reach::Public),
            ("127.0.0.1", Reach::Special),
            ("169.254.1.1", Reach::Special),
            ("0.0.0.0", Reach::Special),
            ("239.0.0.1", Reach::Special),
            ("255.255.255.255", Reach::Special),
            ("::1", Reach::Special),
            ("::", Reach::Special),
            ("fd00::1", Reach::Special),
            ("fc00::/7", Reach::Special),
            ("fe80::/10", Reach::Special),
            ("::ffff:10.0.0.1", Reach::Special),
        ] {
            assert_eq!(reach(parse(text).unwrap()), is, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_public_is_narrow(bits: u32, prefix in 0u8..=32) {
            let network = parse(&format!("{}/{prefix}", Ipv4Addr::from(bits))).unwrap();
            prop_assert!(reach(network) != Reach::Public || prefix >= WIDEST_V4);
        }

        #[test]
        fn nothing_panics(text: String) {
            let _ = parse(&text).map(reach);
        }
    }
}
