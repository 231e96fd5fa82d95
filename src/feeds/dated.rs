//! Addresses, and since when each is on its list.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::address_set::{AddressRange, AddressSet, Bits, Range, Ranges};

/// A set of addresses in which every address has a date.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dated {
    v4: Pieces<u32>,
    v6: Pieces<u128>,
}

/// Ranges in order that do not overlap, each with its date.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(Range<T>, u32)>", into = "Vec<(Range<T>, u32)>")]
#[serde(bound(deserialize = "T: Bits + Deserialize<'de>", serialize = "T: Bits + Serialize"))]
struct Pieces<T>(Vec<(Range<T>, u32)>);

impl<T> Default for Pieces<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Bits> TryFrom<Vec<(Range<T>, u32)>> for Pieces<T> {
    type Error = &'static str;

    fn try_from(pieces: Vec<(Range<T>, u32)>) -> Result<Self, Self::Error> {
        let right = pieces.iter().all(|(range, _)| range.start() <= range.end())
            && pieces.windows(2).all(|pair| pair[0].0.end() < pair[1].0.start());
        if right { Ok(Self(pieces)) } else { Err("dated address ranges are not in order") }
    }
}

impl<T> From<Pieces<T>> for Vec<(Range<T>, u32)> {
    fn from(pieces: Pieces<T>) -> Self {
        pieces.0
    }
}

impl Dated {
    /// The addresses of `set`. Those that `self` has keep their date; the others get `now`, in seconds since 1970.
    #[must_use]
    pub fn becomes(&self, set: &AddressSet, now: u32) -> Self {
        Self { v4: self.v4.becomes(&set.v4, now), v6: self.v6.becomes(&set.v6, now) }
    }

    /// What `self` has from `oldest` on, and `set` with the date `now`, for lists that report each address anew.
    #[must_use]
    pub fn reported(&self, set: &AddressSet, now: u32, oldest: u32) -> Self {
        let kept = AddressSet { v4: self.v4.since(oldest), v6: self.v6.since(oldest) };
        let old = self.becomes(&kept.minus(set), now);
        old.becomes(&kept.union(set), now)
    }

    /// The addresses without their dates.
    #[must_use]
    pub fn set(&self) -> AddressSet {
        AddressSet { v4: self.v4.set(), v6: self.v6.set() }
    }

    /// Since when `address` is in it, in seconds since 1970, and the range it is in.
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Option<(AddressRange, u32)> {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.v4.find(v4.into()).map(|(range, since)| (AddressRange::V4(range), since)),
            IpAddr::V6(v6) => self.v6.find(v6.into()).map(|(range, since)| (AddressRange::V6(range), since)),
        }
    }
}

impl<T: Bits> Pieces<T> {
    fn becomes(&self, set: &Ranges<T>, now: u32) -> Self {
        let mut pieces: Vec<(Range<T>, u32)> = Vec::new();
        // A piece that goes on where the last one ended is the same piece.
        let mut push = |start: T, end: T, since: u32| {
            let Some(range) = Range::new(start, end) else { return };
            if let Some((last, date)) = pieces.last_mut()
                && *date == since
                && last.end().next() == Some(start)
                && let Some(joined) = Range::new(last.start(), end)
            {
                *last = joined;
            } else {
                pieces.push((range, since));
            }
        };
        let mut old = self.0.as_slice();
        for range in set.iter() {
            let mut start = Some(range.start());
            while let Some(from) = start {
                while old.first().is_some_and(|(piece, _)| piece.end() < from) {
                    old = &old[1..];
                }
                match old.first().filter(|(piece, _)| piece.start() <= range.end()) {
                    None => {
                        push(from, range.end(), now);
                        start = None;
                    }
                    Some((piece, since)) => {
                        if let Some(before) = piece.start().previous()
                            && from <= before
                        {
                            push(from, before, now);
                        }
                        let end = piece.end().min(range.end());
                        push(piece.start().max(from), end, *since);
                        start = end.next().filter(|next| *next <= range.end());
                    }
                }
            }
        }
        Self(pieces)
    }

    fn set(&self) -> Ranges<T> {
        self.since(0)
    }

    /// What has this date or a later one.
    fn since(&self, oldest: u32) -> Ranges<T> {
        Ranges::merge(self.0.iter().filter(|(_, since)| *since >= oldest).map(|(range, _)| *range).collect())
    }

    fn find(&self, number: T) -> Option<(Range<T>, u32)> {
        let at = self.0.partition_point(|(range, _)| range.end() < number);
        self.0.get(at).filter(|(range, _)| range.start() <= number).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(text: &str) -> AddressSet {
        text.split_whitespace().map(|range| range.parse::<AddressRange>().unwrap()).collect()
    }

    fn since(dated: &Dated, address: &str) -> Option<u32> {
        dated.find(address.parse().unwrap()).map(|(_, since)| since)
    }

    #[test]
    fn what_stays_keeps_its_date() {
        let first = Dated::default().becomes(&set("10.0.0.0/30 2001:db8::/48"), 1);
        let second = first.becomes(&set("10.0.0.2-10.0.0.9 2001:db8::/32"), 2);
        let dates = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.9", "10.0.0.10"];
        assert_eq!(
            dates.map(|address| since(&second, address)),
            [None, Some(1), Some(1), Some(2), Some(2), None]
        );
        assert_eq!((since(&second, "2001:db8::1"), since(&second, "2001:db8:1::1")), (Some(1), Some(2)));
        assert_eq!(second.set(), set("10.0.0.2-10.0.0.9 2001:db8::/32"));
        assert_eq!(second.becomes(&second.set(), 3), second);
    }

    #[test]
    fn what_is_reported_again_lives_on_and_the_rest_ends() {
        let first = Dated::default().reported(&set("10.0.0.1 10.0.0.2"), 100, 0);
        let second = first.reported(&set("10.0.0.2 10.0.0.3"), 200, 0);
        let third = second.reported(&set("10.0.0.4"), 300, 150);
        assert_eq!(third.set(), set("10.0.0.2 10.0.0.3 10.0.0.4"));
        assert_eq!((since(&third, "10.0.0.2"), since(&third, "10.0.0.4")), (Some(200), Some(300)));
    }

    proptest! {
        #[test]
        fn every_address_has_the_date_of_its_coming(
            sets in prop::collection::vec(prop::collection::vec((0u32..60, 0u32..9), 0..8), 1..6),
        ) {
            let mut dated = Dated::default();
            let mut model: std::collections::BTreeMap<u32, u32> = std::collections::BTreeMap::new();
            for (now, ranges) in (1..).zip(&sets) {
                let wanted: std::collections::BTreeSet<u32> = ranges.iter().flat_map(|(start, more)| *start..=start + more).collect();
                model.retain(|address, _| wanted.contains(address));
                for address in &wanted {
                    model.entry(*address).or_insert(now);
                }
                let set = wanted.iter().map(|bits| IpAddr::from(bits.to_be_bytes())).collect();
                dated = dated.becomes(&set, now);
                let stored = postcard::to_stdvec(&dated).unwrap();
                prop_assert_eq!(&postcard::from_bytes::<Dated>(&stored).unwrap(), &dated);
            }
            for address in 0..80_u32 {
                let found = dated.find(IpAddr::from(address.to_be_bytes())).map(|(_, since)| since);
                prop_assert_eq!(found, model.get(&address).copied());
            }
        }
    }
}
