//! Addresses as fail2ban hands them over, the neighbourhood that counts as the same phone, and what is not of the
//! Internet.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

/// A network of IPv4 with a shorter prefix is nobody's: /8 is the widest block that was ever given to one holder.
pub const WIDEST_V4: u8 = 8;

/// As [`WIDEST_V4`], for IPv6: no registry gave anybody more than a /19.
pub const WIDEST_V6: u8 = 19;

/// The networks that are not of the Internet, each with a name for people: IANA's special-purpose address registries
/// (RFC 6890), multicast (RFC 5771, RFC 4291) and what is reserved, with broadcast at its end. No two of them overlap.
///
/// Those for documentation and benchmarks (192.0.2.0/24, 198.18.0.0/15, `2001:db8::/32`, ...) are not among them: nobody
/// talks to anybody there, so that blocking them harms nobody.
pub const SPECIAL: [(&str, IpNetwork); 15] = [
    ("this network", v4([0, 0, 0, 0], 8)),
    ("private", v4([10, 0, 0, 0], 8)),
    ("shared by carriers", v4([100, 64, 0, 0], 10)),
    ("loopback", v4([127, 0, 0, 0], 8)),
    ("link-local", v4([169, 254, 0, 0], 16)),
    ("private", v4([172, 16, 0, 0], 12)),
    ("protocol assignments", v4([192, 0, 0, 0], 24)),
    ("private", v4([192, 168, 0, 0], 16)),
    ("multicast", v4([224, 0, 0, 0], 4)),
    ("reserved", v4([240, 0, 0, 0], 4)),
    ("unspecified", v6(Ipv6Addr::UNSPECIFIED, 128)),
    ("loopback", v6(Ipv6Addr::LOCALHOST, 128)),
    ("private", v6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7)),
    ("link-local", v6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10)),
    ("multicast", v6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8)),
];

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> IpNetwork {
    IpNetwork::V4(Ipv4Network::new_checked(Ipv4Addr::new(a, b, c, d), prefix).expect("at most 32 bits"))
}

const fn v6(address: Ipv6Addr, prefix: u8) -> IpNetwork {
    IpNetwork::V6(Ipv6Network::new_checked(address, prefix).expect("at most 128 bits"))
}

/// Whether all of `network` is in one of [`SPECIAL`].
#[must_use]
pub fn is_special(network: IpNetwork) -> bool {
    SPECIAL.iter().any(|(_, special)| match (network, special) {
        (IpNetwork::V4(network), IpNetwork::V4(special)) => network.is_subnet_of(*special),
        (IpNetwork::V6(network), IpNetwork::V6(special)) => network.is_subnet_of(*special),
        _ => false,
    })
}

/// Reads exactly one IPv4 or IPv6 address, in any spelling of RFC 4291; IPv4-mapped IPv6
/// (`::ffff:203.0.113.7`) becomes the IPv4 address it stands for.
///
/// Everything else is `None`: shortened (`10.1`) or octal IPv4, networks, zone ids, ports, brackets,
/// white space, text. Never looks anything up.
#[must_use]
pub fn parse(text: &OsStr) -> Option<IpAddr> {
    parse_text(text.to_str()?)
}

/// [`parse`] for text that is known to be UTF-8.
#[must_use]
pub fn parse_text(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// The address, of a network that is no more than one.
#[must_use]
pub fn single(network: IpNetwork) -> Option<IpAddr> {
    let whole = if network.is_ipv4() { 32 } else { 128 };
    (network.prefix() == whole).then(|| network.ip())
}

/// The addresses that count as the phone at `address`: an IPv4 address stands for itself, an IPv6
/// address for its network of `ipv6_prefix` bits (at most 128). Of neighbours, it is the same.
#[must_use]
pub fn neighbourhood(address: IpAddr, ipv6_prefix: u8) -> IpNetwork {
    let network = |address: Ipv6Addr| {
        let first = Ipv6Network::new(address, ipv6_prefix)?.network();
        Ipv6Network::new(first, ipv6_prefix)
    };
    match address {
        IpAddr::V6(v6) if ipv6_prefix < 128 => {
            network(v6).map_or_else(|_| IpNetwork::from(address), IpNetwork::V6)
        }
        _ => IpNetwork::from(address),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_what_is_no_address() {
        for text in [
            "",
            " ",
            "10.1",
            "010.1.2.3",
            "1.2.3.4.5",
            "1.2.3.4 ",
            " 1.2.3.4",
            "1.2.3.4/32",
            "1.2.3.256",
            "0x7f.0.0.1",
            "2130706433",
            "1.2.3.4:5060",
            "[::1]",
            "fe80::1%eth0",
            "::1%lo",
            "localhost",
            "$(touch x)",
            "`id`",
            "-rf",
            "--help",
            "1.2.3.4\n",
            "1.2.3.4;id",
            "12345::1",
            "::ffff:1.2.3",
        ] {
            assert_eq!(parse(OsStr::new(text)), None, "{text:?}");
        }
        assert_eq!(parse(OsStr::from_bytes(b"1.2.3.4\xff")), None);
        assert_eq!(parse(OsStr::new(&"1".repeat(65_536))), None);
    }

    #[test]
    fn any_spelling_of_an_ipv6_address_is_the_same_address() {
        let canonical = parse_text("2001:db8:66::11");
        assert!(canonical.is_some());
        for text in ["2001:DB8:66::11", "2001:0db8:0066:0:0:0:0:0011", "2001:db8:66:0::0.0.0.17"] {
            assert_eq!(parse_text(text), canonical, "{text}");
        }
    }

    #[test]
    fn special_networks_are_whole_and_apart() {
        for (at, (name, network)) in SPECIAL.iter().enumerate() {
            assert_eq!(network.ip(), network.network(), "{name}");
            for (_, other) in &SPECIAL[at + 1..] {
                assert!(!network.contains(other.ip()) && !other.contains(network.ip()), "{network} {other}");
            }
        }
    }

    #[test]
    fn tells_what_is_special_from_what_is_not() {
        for (network, special) in [
            ("10.1.2.0/24", true),
            ("10.0.0.0/7", false),
            ("192.0.0.170/32", true),
            ("192.0.1.0/24", false),
            ("192.0.2.0/24", false),
            ("198.18.0.0/15", false),
            ("255.255.255.255/32", true),
            ("::/127", false),
            ("::1/128", true),
            ("fdff::/16", true),
            ("2001:db8::/32", false),
        ] {
            assert_eq!(is_special(network.parse().unwrap()), special, "{network}");
        }
    }

    proptest! {
        #[test]
        fn mapped_is_the_ipv4_address(bits: u32) {
            let v4 = Ipv4Addr::from(bits);
            prop_assert_eq!(parse_text(&v4.to_ipv6_mapped().to_string()), Some(IpAddr::V4(v4)));
            prop_assert_eq!(parse_text(&v4.to_string()), Some(IpAddr::V4(v4)));
        }

        #[test]
        fn long_spelling_is_the_same(bits: u128) {
            let v6 = Ipv6Addr::from(bits);
            let long = v6.segments().map(|part| format!("{part:04X}")).join(":");
            prop_assert_eq!(parse_text(&long), Some(IpAddr::V6(v6).to_canonical()));
        }

        #[test]
        fn neighbours_share_the_prefix(bits: u128, other: u128, prefix in 1u8..=128) {
            let address = IpAddr::V6(Ipv6Addr::from(bits));
            let shift = 128 - u32::from(prefix);
            let same = bits.checked_shr(shift) == other.checked_shr(shift);
            let other = IpAddr::V6(Ipv6Addr::from(other));
            prop_assert_eq!(neighbourhood(address, prefix).contains(other), same);
            prop_assert_eq!(neighbourhood(address, prefix) == neighbourhood(other, prefix), same);
        }

        #[test]
        fn nothing_panics(bytes: Vec<u8>) {
            let _ = parse(OsStr::from_bytes(&bytes));
        }
    }
}
