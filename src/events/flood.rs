//! Sources that ask more than a phone would: requests without credentials, counted by the second.

use std::collections::HashMap;
use std::net::IpAddr;

/// So many sources are counted in one second; those beyond, in a flood of forged ones, are not.
const MAX_SOURCES: usize = 14_000;

/// Counts requests of each source within the second.
#[derive(Debug)]
pub struct Floods {
    /// Requests in one second that are no flood yet.
    limit: u32,
    second: i64,
    counts: HashMap<IpAddr, u32>,
}

impl Floods {
    /// More than `limit` requests within a second are a flood.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self { limit, second: 0, counts: HashMap::new() }
    }

    /// Counts a request at `now` (milliseconds since 1970). How many there were, if it is the first beyond the limit of its
    /// source in this second.
    pub fn count(&mut self, source: IpAddr, now: i64) -> Option<u32> {
        /// Events may come out of order; a clock may be set back.
        const LATE: i64 = 5;
        let second = now.div_euclid(1000);
        if second > self.second || second < self.second - LATE {
            self.second = second;
            self.counts.clear();
            // After a flood of forged sources, not for ever.
            self.counts.shrink_to(1024);
        }
        if self.counts.len() >= MAX_SOURCES && !self.counts.contains_key(&source) {
            return None;
        }
        let count = self.counts.entry(source).or_default();
        *count = count.saturating_add(1);
        (*count == self.limit.saturating_add(1)).then_some(*count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_a_second_for_each_source() {
        let mut floods = Floods::new(3);
        let [one, other] = ["203.0.113.66", "2001:db8::1"].map(|source| source.parse().unwrap());
        let told =
            |floods: &mut Floods, source, now| (0..10).filter_map(|_| floods.count(source, now)).count();
        assert_eq!(told(&mut floods, one, 5_000), 1);
        assert_eq!(told(&mut floods, one, 5_999), 0);
        assert_eq!(told(&mut floods, other, 5_999), 1);
        assert_eq!(told(&mut floods, one, 6_000), 1);
        let crossing = (0..100).filter(|n| floods.count(one, 8_000 - n % 2).is_some()).count();
        assert!(crossing <= 2, "events out of order");
        assert!((0..3).all(|n| floods.count(one, 7_000 + n).is_none()), "as often as is allowed");
    }

    #[test]
    fn forged_sources_take_no_more_memory_than_there_is() {
        let mut floods = Floods::new(0);
        let sources = (0..u32::try_from(MAX_SOURCES).unwrap() + 10).map(|n| IpAddr::V4(n.into()));
        assert_eq!(sources.filter_map(|source| floods.count(source, 1)).count(), MAX_SOURCES);
        assert_eq!(floods.count("::1".parse().unwrap(), 1_001), Some(1));
    }
}
