//! Any text as a list: nothing panics, what is accepted reads back as itself, and what is merged has the addresses it had.

#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use ringfence::address_set::text::{self, Line};
use ringfence::address_set::{AddressRange, AddressSet};

/// So many addresses are still counted one by one.
const FEW: u128 = 5_000;

fuzz_target!(|data: &[u8]| {
    let mut ranges = vec![];
    let mut last = 0;
    for (number, line) in text::lines(data) {
        assert!(number > last, "line {number} after {last}");
        last = number;
        match line {
            Line::Range(range) => {
                let written = range.to_string();
                assert_eq!(text::range(written.as_bytes()), Some(range), "{written}");
                assert!(range.first() <= range.last(), "{written}");
                ranges.push(range);
            }
            Line::Other(other) => {
                assert_eq!(text::range(other), None);
                assert!(!other.is_empty() && !other.contains(&b'\n'));
            }
        }
    }
    assert!(last <= data.iter().filter(|byte| **byte == b'\n').count() + 1);
    let set: AddressSet = ranges.iter().copied().collect();
    reads_back(&set);
    has_the_addresses_of(&set, &ranges);
});

/// What is written is the same set, in the smallest number of lines.
fn reads_back(set: &AddressSet) {
    let mut written = vec![];
    text::write(set, &mut written).unwrap();
    let networks: Vec<AddressRange> = text::lines(&written)
        .map(|(_, line)| match line {
            Line::Range(range) => range,
            Line::Other(other) => panic!("{:?}", String::from_utf8_lossy(other)),
        })
        .collect();
    assert_eq!(networks.len(), set.count_networks().iter().sum::<usize>());
    assert_eq!(networks, set.networks().map(AddressRange::from).collect::<Vec<_>>());
    assert_eq!(&networks.into_iter().collect::<AddressSet>(), set);
}

fn has_the_addresses_of(set: &AddressSet, ranges: &[AddressRange]) {
    let count = |range: &AddressRange| match range {
        AddressRange::V4(range) => range.count(),
        AddressRange::V6(range) => range.count(),
    };
    if ranges.iter().fold(0, |sum: u128, range| sum.saturating_add(count(range))) > FEW {
        return;
    }
    let (mut v4, mut v6) = (BTreeSet::new(), BTreeSet::new());
    for range in ranges {
        match range {
            AddressRange::V4(range) => v4.extend(range.start()..=range.end()),
            AddressRange::V6(range) => v6.extend(range.start()..=range.end()),
        }
    }
    assert!(set.v4.iter().flat_map(|range| range.start()..=range.end()).eq(v4));
    assert!(set.v6.iter().flat_map(|range| range.start()..=range.end()).eq(v6));
    let mut ranges = set.v4.iter().zip(set.v4.iter().skip(1));
    assert!(ranges.all(|(one, next)| one.end() + 1 < next.start()), "ranges that touch are one");
}
