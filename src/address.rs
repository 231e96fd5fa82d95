//! Addresses as fail2ban hands them over, and the neighbourhood that counts as the same phone.

use std::ffi::OsStr;
use std::net::IpAddr;

use ipnetwork::{IpNetwork, Ipv6Network};

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

/// The addresses that count as the phone at `address`: an IPv4 address stands for itself, an IPv6
/// address for its network of `ipv6_prefix` bits (at most 128).
#[must_use]
pub fn neighbourhood(address: IpAddr, ipv6_prefix: u8) -> IpNetwork {
    match address {
        IpAddr::V6(v6) if ipv6_prefix < 128 => {
            Ipv6Network::new(v6, ipv6_prefix).map_or_else(|_| IpNetwork::from(address), IpNetwork::V6)
        }
        _ => IpNetwork::from(address),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
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
            prop_assert_eq!(neighbourhood(address, prefix).contains(IpAddr::V6(Ipv6Addr::from(other))), same);
        }

        #[test]
        fn nothing_panics(bytes: Vec<u8>) {
            let _ = parse(OsStr::from_bytes(&bytes));
        }
    }
}
