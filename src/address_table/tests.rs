use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::state_file::effective_user;

fn about(kind: Kind) -> About {
    About { kind, created: 1_795_183_743_000, fingerprint: 7, complete: true, extra: 0, labels: vec![] }
}

fn open(bytes: &[u8], kind: Kind) -> io::Result<AddressTable> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("table");
    std::fs::write(&path, bytes)?;
    AddressTable::open(&path, kind, effective_user())
}

fn single(text: &str) -> IpNetwork {
    IpNetwork::from(text.parse::<IpAddr>().unwrap())
}

#[test]
fn a_small_table_is_one_block() {
    let entries = [
        Entry::address("203.0.113.20".parse().unwrap(), 100),
        Entry::address("::ffff:198.51.100.11".parse().unwrap(), 200),
        Entry::address("2001:db8:66::11".parse().unwrap(), 300),
    ];
    let bytes = encode(&about(Kind::Snapshot), entries);
    assert_eq!(bytes.len(), BLOCK);
    let table = open(&bytes, Kind::Snapshot).unwrap();
    assert_eq!(table.about(), &about(Kind::Snapshot));
    assert_eq!(table.len(), 3);
    assert_eq!(table.find(single("203.0.113.20")).unwrap(), Some(entries[0]));
    assert_eq!(table.find(single("198.51.100.11")).unwrap().map(|found| found.stamp), Some(200));
    assert_eq!(table.find(single("2001:db8:66::11")).unwrap(), Some(entries[2]));
    assert_eq!(table.find("2001:db8:66::/64".parse().unwrap()).unwrap(), Some(entries[2]));
    assert_eq!(table.find(single("203.0.113.21")).unwrap(), None);
    assert_eq!(table.find("2001:db8:67::/64".parse().unwrap()).unwrap(), None);
}

#[test]
fn labels_come_back_cut_to_their_field() {
    let mut about = about(Kind::Allow);
    about.labels = vec!["office".into(), "a-name-that-is-too-long".into(), "ümläüt-ümläüt".into()];
    let entry = Entry::network("203.0.113.0/24".parse().unwrap(), FOREVER, 1);
    let table = open(&encode(&about, [entry]), Kind::Allow).unwrap();
    assert_eq!(table.about().labels, ["office", "a-name-that-is-t", "ümläüt-ümlä"]);
    assert_eq!(table.find(single("203.0.113.255")).unwrap(), Some(entry));
}

#[test]
fn the_lower_label_counts_where_networks_overlap() {
    let entries = [
        Entry::network("10.0.0.0/8".parse().unwrap(), FOREVER, 1),
        Entry::network("10.1.0.0/16".parse().unwrap(), FOREVER, 0),
        Entry::network("0.0.0.0/0".parse().unwrap(), FOREVER, 2),
        Entry::network("::/0".parse().unwrap(), FOREVER, 2),
    ];
    let table = open(&encode(&about(Kind::Allow), entries), Kind::Allow).unwrap();
    for (address, label) in
        [("10.1.255.255", 0), ("10.2.0.0", 1), ("9.255.255.255", 2), ("255.255.255.255", 2), ("::", 2)]
    {
        assert_eq!(table.find(single(address)).unwrap().unwrap().label, label, "{address}");
    }
}

#[test]
fn another_kind_a_cut_or_changed_file_is_an_error() {
    let many = |n: u32| (0..n).map(|i| Entry::address(Ipv4Addr::from(i * 7).into(), i));
    for entries in [3, 5000] {
        let good = encode(&about(Kind::Seen), many(entries));
        assert!(open(&good, Kind::Seen).is_ok());
        let invalid =
            |bytes: &[u8], kind| open(bytes, kind).unwrap_err().kind() == io::ErrorKind::InvalidData;
        assert!(invalid(&good, Kind::Allow));
        assert!(invalid(&[], Kind::Seen));
        assert!(invalid(&good[..good.len() - 1], Kind::Seen));
        assert!(invalid(&good[..100], Kind::Seen));
        assert!(invalid(&[good.as_slice(), b"x"].concat(), Kind::Seen));
        assert!(invalid(&vec![0xff; BLOCK], Kind::Seen));
        for at in (0..good.len()).step_by(251) {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            let answer = open(&bad, Kind::Seen).and_then(|table| table.entries());
            assert_eq!(answer.unwrap_err().kind(), io::ErrorKind::InvalidData, "byte {at}");
        }
    }
}

/// Ranges in a corner of the address space, so that they meet: start, length, label, stamp.
fn ranges(max: u32) -> impl Strategy<Value = Vec<(u32, u32, u16, u32)>> {
    proptest::collection::vec((0..max, 0..max / 8, 0..3u16, 0..4u32), 0..40)
}

proptest! {
    #[test]
    fn says_what_a_naive_model_says(v6: bool, ranges in ranges(400), top: bool) {
        // At the very bottom or the very top of the address space, where arithmetic could overflow.
        let base: u128 = match (top, v6) {
            (false, _) => 0,
            (true, true) => u128::MAX - 450,
            (true, false) => u128::from(u32::MAX - 450),
        };
        let address = |n: u128| if v6 {
            IpAddr::V6(Ipv6Addr::from(n))
        } else {
            IpAddr::V4(Ipv4Addr::from(u32::try_from(n).unwrap()))
        };
        let mut model: BTreeMap<u128, (std::cmp::Reverse<u32>, u16)> = BTreeMap::new();
        let mut entries = Vec::new();
        for (start, length, label, stamp) in ranges {
            let (start, end) = (base + u128::from(start), base + u128::from(start + length));
            entries.push(Entry { start: address(start), end: address(end), stamp, label });
            for n in start..=end {
                let better = (std::cmp::Reverse(stamp), label);
                model.entry(n).and_modify(|kept| *kept = better.min(*kept)).or_insert(better);
            }
        }
        let table = open(&encode(&about(Kind::Allow), entries), Kind::Allow).unwrap();
        let disjoint = table.entries().unwrap();
        prop_assert!(disjoint.windows(2).all(|pair| pair[0].end < pair[1].start));
        for n in base..=base + 450 {
            // The mapped range is IPv4's own and cannot be met here.
            let found = table.find(IpNetwork::from(address(n))).unwrap();
            prop_assert_eq!(found.map(|e| (std::cmp::Reverse(e.stamp), e.label)), model.get(&n).copied());
        }
    }

    #[test]
    fn a_large_table_finds_every_address_and_no_other(v4: std::collections::BTreeSet<u32>, count in 300u32..3000) {
        let addresses: Vec<IpAddr> = (0..count)
            .map(|i| Ipv4Addr::from(i.wrapping_mul(2_654_435_761) | 1).into())
            .chain((0..count).map(|i| Ipv6Addr::from(u128::from(i) << 64 | 1 << 120).into()))
            .chain(v4.into_iter().map(|n| Ipv4Addr::from(n | 1).into()))
            .collect();
        let bytes = encode(&about(Kind::Snapshot), addresses.iter().map(|a| Entry::address(*a, 9)));
        let table = open(&bytes, Kind::Snapshot).unwrap();
        prop_assert!(bytes.len() > BLOCK);
        for address in &addresses {
            prop_assert!(table.find(IpNetwork::from(*address)).unwrap().is_some());
            let even = match address {
                IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from(u32::from(*v4) & !1)),
                IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(*v6) | 2)),
            };
            prop_assert!(table.find(IpNetwork::from(even)).unwrap().is_none());
        }
    }
}
