//! Networks as access control nodes have them, and which of them a carrier may have.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::address::{WIDEST_V4, WIDEST_V6, is_special};

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
    let widest = match network {
        IpNetwork::V4(_) => WIDEST_V4,
        IpNetwork::V6(_) => WIDEST_V6,
    };
    match (is_special(network), network.prefix() < widest) {
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

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
            ("192.0.0.8", Reach::Special),
            ("192.0.2.0/24", Reach::Public),
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
