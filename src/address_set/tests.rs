use std::collections::BTreeSet;

use proptest::prelude::*;

use super::text::{Line, lines};
use super::*;

fn set(text: &str) -> AddressSet {
    text.split_whitespace().map(|range| range.parse::<AddressRange>().unwrap()).collect()
}

fn written(set: &AddressSet) -> String {
    let mut out = Vec::new();
    text::write(set, &mut out).unwrap();
    String::from_utf8(out).unwrap().trim_end().replace('\n', " ")
}

#[test]
fn merges_into_the_smallest_list() {
    for (ranges, merged) in [
        ("", ""),
        ("203.0.113.1 203.0.113.1/32 203.0.113.0", "203.0.113.0/31"),
        ("203.0.113.77/24", "203.0.113.0/24"),
        ("10.0.0.1-10.0.0.6", "10.0.0.1 10.0.0.2/31 10.0.0.4/31 10.0.0.6"),
        ("0.0.0.0-255.255.255.255", "0.0.0.0/0"),
        ("0.0.0.0/1 128.0.0.0/1 ::/1 8000::/1", "0.0.0.0/0 ::/0"),
        ("255.255.255.255 255.255.255.254", "255.255.255.254/31"),
        ("2001:db8::/33 2001:db8:8000::/33 2001:db8::1", "2001:db8::/32"),
        ("::ffff:203.0.113.7 203.0.113.6", "203.0.113.6/31"),
        ("::ffff:203.0.113.0/120", "203.0.113.0/24"),
        ("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 8000::-8000::1", "::/0"),
        ("::-0:0:0:0:0:fffe:ffff:ffff ::fffe:0:0/95", "::/80"),
        ("ffff::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff::/16"),
    ] {
        assert_eq!(written(&set(ranges)), merged, "{ranges}");
    }
}

#[test]
fn a_network_minus_an_address_is_exact() {
    let rest = set("10.0.0.0/8").minus(&set("10.1.2.3"));
    assert_eq!(rest.addresses(), (1 << 24) - 1);
    assert_eq!(rest.networks().count(), 24);
    assert!(!rest.contains("10.1.2.3".parse().unwrap()) && rest.contains("10.1.2.4".parse().unwrap()));
    assert_eq!(written(&set("::/0").minus(&set("::/1"))), "8000::/1");
    assert_eq!(written(&set("0.0.0.0/0").minus(&set("0.0.0.1-255.255.255.255"))), "0.0.0.0");
}

#[test]
fn ranges_read_as_they_are_shown() {
    for text in ["203.0.113.7", "203.0.113.0/24", "10.0.0.1-10.0.0.6", "2001:db8::/32", "::-::2"] {
        assert_eq!(text.parse::<AddressRange>().unwrap().to_string(), text);
    }
}

#[test]
fn refuses_what_is_no_address() {
    for text in [
        "10.1",
        "10.1/16",
        "010.1.2.3",
        "1.2.3.04",
        "1.2.3.4/",
        "1.2.3.4/33",
        "1.2.3.4/08",
        "1.2.3.4/+8",
        "1.2.3.4/255.255.255.0",
        "1.2.3.4 /24",
        "1.2.3.256",
        "1.2.3.1234",
        "1.2.3.4.5",
        "1.2.3",
        "1.2.3.",
        "0x7f.0.0.1",
        "2130706433",
        "1.2.3.4:5060",
        "1.2.3.9-1.2.3.4",
        "1.2.3.4-",
        "-1.2.3.4",
        "1.2.3.4-2001:db8::1",
        // Around all that is IPv4-mapped: one of its networks would read as all of IPv4.
        "::fffe:ffff:ffff-::1:0:0:0",
        "::-2001:db8::1",
        "1.2.3.4-1.2.3.5-1.2.3.6",
        "1.2.3.4,1.2.3.5",
        "1.2.3.4 1.2.3.5",
        "[2001:db8::1]",
        "fe80::1%eth0",
        "2001:db8::/129",
        "12345::1",
        "localhost",
        "example.com",
        "$(touch x)",
        "-exist",
        "\u{661}.2.3.4",
        "1.2.3.4\0",
    ] {
        let read: Vec<_> = lines(text.as_bytes()).collect();
        assert_eq!(read, [(1, Line::Other(text.as_bytes()))], "{text:?}");
    }
}

#[test]
fn reads_lines_as_people_write_them() {
    let list = "\u{feff}# a list\r\n203.0.113.1\r\n\r\n  203.0.113.2 ; inline\n203.0.113.4 - 203.0.113.5#x\n\
                \t2001:DB8::/48\t\n;\n10.1\n203.0.113.9/24";
    let read: Vec<(usize, String)> = lines(list.as_bytes())
        .map(|(number, line)| match line {
            Line::Range(range) => (number, range.to_string()),
            Line::Other(text) => (number, format!("? {}", String::from_utf8_lossy(text))),
        })
        .collect();
    let wanted = [
        (2, "203.0.113.1"),
        (4, "203.0.113.2"),
        (5, "203.0.113.4/31"),
        (6, "2001:db8::/48"),
        (8, "? 10.1"),
        (9, "203.0.113.0/24"),
    ];
    assert_eq!(read, wanted.map(|(number, text)| (number, text.to_owned())));
}

#[test]
fn stored_ranges_must_be_in_order() {
    let stored = |ranges: Vec<(u32, u32)>| postcard::to_stdvec(&ranges).unwrap();
    let read = |bytes: &[u8]| postcard::from_bytes::<Ranges<u32>>(bytes);
    assert!(read(&stored(vec![(1, 2), (4, 9)])).is_ok());
    for wrong in [vec![(2, 1)], vec![(1, 2), (3, 4)], vec![(4, 9), (1, 2)], vec![(1, u32::MAX), (5, 6)]] {
        assert!(read(&stored(wrong)).is_err());
    }
}

/// A naive model: every address by itself, in a small world.
fn model(set: &AddressSet) -> BTreeSet<u128> {
    let v4 = set.v4.iter().flat_map(|range| range.start..=range.end).map(u128::from);
    // The two families must not meet in the model.
    v4.chain(set.v6.iter().flat_map(|range| range.start..=range.end).map(|bits| !bits)).collect()
}

prop_compose! {
    fn small_set()(
        v4 in prop::collection::vec((0u32..300, 0u32..20), 0..20),
        v6 in prop::collection::vec((0u128..300, 0u128..20), 0..20),
        high: bool,
    ) -> AddressSet {
        // Also at the upper end, where numbers run out.
        let v4 = v4.into_iter().map(|(start, more)| {
            let (start, end) = (start, start + more);
            AddressRange::V4(if high { Range { start: !end, end: !start } } else { Range { start, end } })
        });
        let v6 = v6.into_iter().map(|(start, more)| AddressRange::V6(Range { start, end: start + more }));
        v4.chain(v6).collect()
    }
}

proptest! {
    #[test]
    fn the_algebra_is_that_of_sets(a in small_set(), b in small_set()) {
        let (x, y) = (model(&a), model(&b));
        prop_assert_eq!(model(&a.union(&b)), x.union(&y).copied().collect());
        prop_assert_eq!(model(&a.minus(&b)), x.difference(&y).copied().collect());
        prop_assert_eq!(model(&a.intersection(&b)), x.intersection(&y).copied().collect());
        for address in x.iter().chain(&y) {
            let ip = u32::try_from(*address).map_or(IpAddr::from(Ipv6Addr::from(!address)), |v4| Ipv4Addr::from(v4).into());
            prop_assert_eq!(a.contains(ip), x.contains(address));
        }
        prop_assert_eq!(a.addresses(), x.len() as u128);
    }

    #[test]
    fn what_was_cut_out_and_the_rest_give_back_the_whole(
        a: Vec<(u32, u8)>, b: Vec<(u32, u8)>, c: Vec<(u128, u8)>, d: Vec<(u128, u8)>,
    ) {
        let v4 = |list: Vec<(u32, u8)>| list.into_iter().map(|(bits, prefix)| AddressRange::V4(Range::network(bits, prefix % 33).unwrap()));
        let v6 = |list: Vec<(u128, u8)>| list.into_iter().map(|(bits, prefix)| AddressRange::V6(Range::network(bits, prefix % 129).unwrap()));
        let a: AddressSet = v4(a).chain(v6(c)).collect();
        let b: AddressSet = v4(b).chain(v6(d)).collect();
        let (rest, cut) = (a.minus(&b), a.intersection(&b));
        prop_assert!(rest.intersection(&b).is_empty());
        prop_assert_eq!(rest.union(&cut), a.clone());
        prop_assert_eq!(a.union(&b).minus(&b), rest);
    }

    #[test]
    fn what_is_written_reads_back_and_is_smallest(set in small_set()) {
        let text = written(&set);
        prop_assert_eq!(&self::set(&text), &set);
        let networks: Vec<IpNetwork> = set.networks().collect();
        prop_assert_eq!(networks.iter().copied().collect::<AddressSet>(), set);
        // No two neighbours are the halves of one network.
        for pair in networks.windows(2) {
            let half = pair[0].prefix().checked_sub(1).filter(|_| pair[0].prefix() == pair[1].prefix());
            let whole = |network: &IpNetwork| half.and_then(|prefix| AddressRange::network(network.ip(), prefix));
            prop_assert!(half.is_none() || whole(&pair[0]) != whole(&pair[1]), "{:?}", pair);
        }
    }

    #[test]
    fn reads_what_the_standard_library_reads(bits: u32, prefix in 0u8..=32, v6: u128) {
        let v4 = Ipv4Addr::from(bits);
        prop_assert_eq!(v4.to_string().parse(), Ok(AddressRange::from(IpAddr::V4(v4))));
        prop_assert_eq!(format!("{v4}/{prefix}").parse().ok(), AddressRange::network(v4.into(), prefix));
        let v6 = Ipv6Addr::from(v6);
        prop_assert_eq!(v6.to_string().parse(), Ok(AddressRange::from(IpAddr::V6(v6))));
    }

    #[test]
    fn nothing_panics_and_every_line_is_counted(text in prop::collection::vec(prop::sample::select(b"0123456789./-:# ;\r\nf".to_vec()), 0..60)) {
        let numbers: Vec<usize> = lines(&text).map(|(number, _)| number).collect();
        prop_assert!(numbers.is_sorted());
        prop_assert!(numbers.last().is_none_or(|last| *last <= text.split(|byte| *byte == b'\n').count()));
    }
}
