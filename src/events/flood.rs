//! Sources that ask more than a phone would: requests without credentials, counted by the second.

use ipnetwork::IpNetwork;

use super::{Recent, recent};

/// So many sources are counted in one second: those that asked last.
const MAX_SOURCES: usize = 14_000;

/// Counts requests of each source within the second.
#[derive(Debug)]
pub struct Floods {
    /// Requests in one second that are no flood yet.
    limit: u32,
    second: i64,
    counts: Recent<IpNetwork, u32>,
}

impl Floods {
    /// More than `limit` requests within a second are a flood.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self { limit, second: 0, counts: recent(MAX_SOURCES) }
    }

    /// Counts a request at `now` (milliseconds since 1970). How many there were, if it is the first beyond the limit of its
    /// source in this second.
    pub fn count(&mut self, source: IpNetwork, now: i64) -> Option<u32> {
        /// Events may come out of order; a clock may be set back.
        const LATE: i64 = 5;
        let second = now.div_euclid(1000);
        if second > self.second || second < self.second - LATE {
            self.second = second;
            self.counts.clear();
        }
        let count = self.counts.get(&source).map_or(1, |count| count.saturating_add(1));
        self.counts.insert(source, count);
        (count == self.limit.saturating_add(1)).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_a_second_for_each_source() {
        let mut floods = Floods::new(3);
        let [one, other] = ["203.0.113.66", "2001:db8::/64"].map(|source| source.parse().unwrap());
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
    fn forged_sources_take_no_more_memory_than_there_is_and_hide_nobody() {
        let mut floods = Floods::new(3);
        let attacker = "203.0.113.66".parse().unwrap();
        let mut told = 0;
        for n in 0..100_000_u32 {
            floods.count(std::net::IpAddr::V4(n.into()).into(), 1);
            told += usize::from(n % 1_000 == 0 && floods.count(attacker, 1).is_some());
        }
        assert_eq!((told, floods.counts.len()), (1, MAX_SOURCES));
        assert_eq!(floods.count(attacker, 1_001), None, "another second");
    }
}
