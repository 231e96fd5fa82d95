//! Sets of IP addresses and their algebra: union, difference, intersection, and the smallest equal list of
//! networks. Exact, for IPv4 and IPv6.
//!
//! IPv4-mapped IPv6 addresses (`::ffff:203.0.113.7`) are the IPv4 addresses they stand for.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

mod ranges;
pub mod text;

pub use ranges::{Bits, Block, Range, Ranges};

/// A set of IPv4 and IPv6 addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AddressSet {
    /// The IPv4 addresses, as numbers.
    pub v4: Ranges<u32>,
    /// The IPv6 addresses, as numbers.
    pub v6: Ranges<u128>,
}

/// Addresses of one family from a first to a last: what one line of a list can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressRange {
    /// IPv4 addresses, as numbers.
    V4(Range<u32>),
    /// IPv6 addresses, as numbers.
    V6(Range<u128>),
}

impl AddressSet {
    /// The addresses that are in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self { v4: self.v4.union(&other.v4), v6: self.v6.union(&other.v6) }
    }

    /// The addresses that are in `self` and not in `other`.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self { v4: self.v4.minus(&other.v4), v6: self.v6.minus(&other.v6) }
    }

    /// The addresses that are in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self { v4: self.v4.intersection(&other.v4), v6: self.v6.intersection(&other.v6) }
    }

    /// Whether `address` is in the set.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.v4.around(v4.into()).is_some(),
            IpAddr::V6(v6) => self.v6.around(v6.into()).is_some(),
        }
    }

    /// Whether no address is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// How many addresses are in it; the number stays at its largest value for the whole of IPv6.
    #[must_use]
    pub fn addresses(&self) -> u128 {
        self.v4.addresses().saturating_add(self.v6.addresses())
    }

    /// How many IPv4 and IPv6 networks the smallest equal list has.
    #[must_use]
    pub fn count_networks(&self) -> [usize; 2] {
        [self.v4.blocks().count(), self.v6.blocks().count()]
    }

    /// Its first address, IPv4 before IPv6.
    #[must_use]
    pub fn first(&self) -> Option<IpAddr> {
        self.ranges().next().map(|range| range.first())
    }

    /// Its ranges in order, IPv4 first; no two of them touch.
    pub fn ranges(&self) -> impl Iterator<Item = AddressRange> + '_ {
        let v4 = self.v4.iter().map(|range| AddressRange::V4(*range));
        v4.chain(self.v6.iter().map(|range| AddressRange::V6(*range)))
    }

    /// The smallest list of networks that is equal to the set, in order, IPv4 first.
    pub fn networks(&self) -> impl Iterator<Item = IpNetwork> + '_ {
        // Every block's prefix fits its family.
        let network =
            |address: IpAddr, prefix| IpNetwork::new(address, prefix).unwrap_or_else(|_| address.into());
        let v4 = self.v4.blocks().map(move |block| network(Ipv4Addr::from(block.start).into(), block.prefix));
        let v6 = self.v6.blocks().map(move |block| network(Ipv6Addr::from(block.start).into(), block.prefix));
        v4.chain(v6)
    }
}

impl FromIterator<AddressRange> for AddressSet {
    fn from_iter<I: IntoIterator<Item = AddressRange>>(ranges: I) -> Self {
        let mut builder = Builder::default();
        ranges.into_iter().for_each(|range| builder.add(range));
        builder.build()
    }
}

impl FromIterator<IpNetwork> for AddressSet {
    fn from_iter<I: IntoIterator<Item = IpNetwork>>(networks: I) -> Self {
        networks.into_iter().map(AddressRange::from).collect()
    }
}

impl FromIterator<IpAddr> for AddressSet {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        addresses.into_iter().map(AddressRange::from).collect()
    }
}

/// Gathers ranges in any order, overlapping or not. What is taken in again and again needs no more memory than once.
#[derive(Debug, Default)]
pub struct Builder {
    v4: Pile<u32>,
    v6: Pile<u128>,
}

impl Builder {
    /// Takes in a range.
    pub fn add(&mut self, range: AddressRange) {
        match range {
            AddressRange::V4(range) => self.v4.push(range),
            AddressRange::V6(range) => self.v6.push(range),
        }
    }

    /// The set of all that was taken in.
    #[must_use]
    pub fn build(self) -> AddressSet {
        AddressSet { v4: Ranges::merge(self.v4.ranges), v6: Ranges::merge(self.v6.ranges) }
    }
}

/// So many ranges of a family are gathered before any are merged: lists of a usual size are merged once.
const MERGE_FROM: usize = 4 << 20;

/// Ranges of one family.
#[derive(Debug)]
struct Pile<T> {
    ranges: Vec<Range<T>>,
    /// How many there are when they are merged next.
    merge_at: usize,
}

impl<T> Default for Pile<T> {
    fn default() -> Self {
        Self { ranges: Vec::new(), merge_at: MERGE_FROM }
    }
}

impl<T: Bits> Pile<T> {
    fn push(&mut self, range: Range<T>) {
        if self.ranges.len() >= self.merge_at {
            let merged = Ranges::merge(std::mem::take(&mut self.ranges));
            self.ranges = merged.iter().copied().collect();
            // Where all are distinct, merging must not come so often that it takes most of the time.
            self.merge_at = MERGE_FROM.max(2 * self.ranges.len());
        }
        self.ranges.push(range);
    }
}

/// The IPv6 form of the IPv4 addresses, RFC 4291, section 2.5.5.2.
const MAPPED: Range<u128> = Range { start: 0xffff_0000_0000, end: 0xffff_ffff_ffff };

impl AddressRange {
    /// All addresses from `first` to `last`; `None` if they are of two families, or the wrong way round.
    ///
    /// Also `None` if the IPv4-mapped addresses lie between, and it is not all one network: written as networks, one of them
    /// might be `::ffff:0:0/96`, which reads as all of IPv4.
    #[must_use]
    pub fn between(first: IpAddr, last: IpAddr) -> Option<Self> {
        match (first.to_canonical(), last.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(last)) => Range::new(first.into(), last.into()).map(Self::V4),
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                let range = Range::new(u128::from(first), u128::from(last))?;
                let around = range.start < MAPPED.start && MAPPED.end < range.end;
                (!around || range.as_block().is_some()).then_some(Self::V6(range))
            }
            _ => None,
        }
    }

    /// The network of `prefix` bits that `address` is in; `None` if its family has not so many bits.
    #[must_use]
    pub fn network(address: IpAddr, prefix: u8) -> Option<Self> {
        match address {
            IpAddr::V4(v4) => Range::network(v4.into(), prefix).map(Self::V4),
            IpAddr::V6(v6) => {
                let range = Range::network(u128::from(v6), prefix)?;
                let mapped = MAPPED.start <= range.start && range.end <= MAPPED.end;
                #[expect(clippy::cast_possible_truncation, reason = "the IPv4 address is in the low 32 bits")]
                let low = |bits: u128| bits as u32;
                Some(if mapped {
                    Self::V4(Range { start: low(range.start), end: low(range.end) })
                } else {
                    Self::V6(range)
                })
            }
        }
    }

    /// The first address.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        match self {
            Self::V4(range) => Ipv4Addr::from(range.start).into(),
            Self::V6(range) => Ipv6Addr::from(range.start).into(),
        }
    }

    /// The last address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        match self {
            Self::V4(range) => Ipv4Addr::from(range.end).into(),
            Self::V6(range) => Ipv6Addr::from(range.end).into(),
        }
    }
}

impl From<IpNetwork> for AddressRange {
    fn from(network: IpNetwork) -> Self {
        Self::network(network.ip(), network.prefix()).expect("a network's prefix fits its family")
    }
}

impl From<IpAddr> for AddressRange {
    fn from(address: IpAddr) -> Self {
        Self::between(address, address).expect("an address is a range of one")
    }
}

/// The text is no address, network or range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRange;

impl fmt::Display for NoRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an address, a network (address/prefix) or a range (first-last)")
    }
}

impl std::error::Error for NoRange {}

impl FromStr for AddressRange {
    type Err = NoRange;

    fn from_str(text: &str) -> Result<Self, NoRange> {
        text::range(text.as_bytes()).ok_or(NoRange)
    }
}

/// As people write it: one address, a network, or `first-last`.
impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = match self {
            Self::V4(range) => range.as_block().map(|block| (block.prefix, 32)),
            Self::V6(range) => range.as_block().map(|block| (block.prefix, 128)),
        };
        match prefix {
            Some((prefix, bits)) if prefix == bits => write!(f, "{}", self.first()),
            Some((prefix, _)) => write!(f, "{}/{prefix}", self.first()),
            None => write!(f, "{}-{}", self.first(), self.last()),
        }
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod pile_tests {
    use super::*;

    #[test]
    fn what_comes_again_and_again_is_kept_once() {
        let mut builder = Builder::default();
        let addresses = ["203.0.113.9", "2001:db8::9"].map(|text| text.parse::<AddressRange>().unwrap());
        for _ in 0..=MERGE_FROM {
            for range in addresses {
                builder.add(range);
            }
        }
        assert_eq!((builder.v4.ranges.len(), builder.v6.ranges.len()), (2, 2));
        assert_eq!((builder.v4.merge_at, builder.v6.merge_at), (MERGE_FROM, MERGE_FROM));
        assert_eq!(builder.build(), addresses.into_iter().collect());
    }

    #[test]
    fn what_is_distinct_is_merged_when_it_has_doubled() {
        let mut pile = Pile::default();
        // From the last to the first, and none touches another.
        let numbers = || (0..=u32::try_from(MERGE_FROM).unwrap()).rev().map(|number| 2 * number);
        for number in numbers() {
            pile.push(Range { start: number, end: number });
        }
        assert_eq!((pile.ranges.len(), pile.merge_at), (MERGE_FROM + 1, 2 * MERGE_FROM));
        assert!(Ranges::merge(pile.ranges).iter().map(|range| range.start).eq(numbers().rev()));
    }
}
