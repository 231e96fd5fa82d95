//! Sources that fail on many accounts that exist: they guess passwords.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;

use super::{Recent, recent};
use crate::account::SipAccount;

/// So many different accounts that exist are tried by no phone within [`WINDOW`].
const LEAST: usize = 5;

/// So many accounts of a source are counted at most.
pub const MOST: usize = 20;

const WINDOW: Duration = Duration::from_mins(10);

/// A source is told of again after this time.
const AGAIN: Duration = Duration::from_mins(1);

/// So many sources are remembered.
const MAX_SOURCES: usize = 4_000;

/// The accounts that each source failed on within [`WINDOW`].
#[derive(Debug)]
pub struct Sprays {
    sources: Recent<IpNetwork, Source>,
    /// Of accounts no more than a hash is kept: their names may be long.
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Source {
    /// Hashes of accounts, and when each failed last; at most [`MOST`].
    accounts: Vec<(u64, Instant)>,
    told: Option<Instant>,
}

impl Default for Sprays {
    fn default() -> Self {
        Self { sources: recent(MAX_SOURCES), hasher: RandomState::new() }
    }
}

impl Sprays {
    /// An account that exists has failed. On how many its source fails, if they are too many, and nobody was told of it for a minute.
    pub fn failed(&mut self, source: IpNetwork, account: &SipAccount, now: Instant) -> Option<usize> {
        let hash = self.hasher.hash_one(account);
        let mut seen = self.sources.remove(&source).unwrap_or_default();
        seen.accounts.retain(|(other, at)| *other != hash && now.saturating_duration_since(*at) < WINDOW);
        if seen.accounts.len() >= MOST {
            seen.accounts.remove(0);
        }
        seen.accounts.push((hash, now));
        let count = seen.accounts.len();
        let is_news = seen.told.is_none_or(|told| now.saturating_duration_since(told) >= AGAIN);
        let is_told = count >= LEAST && is_news;
        if is_told {
            seen.told = Some(now);
        }
        self.sources.insert(source, seen);
        is_told.then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(number: u32) -> SipAccount {
        SipAccount::new(&number.to_string(), "a.example.com").unwrap()
    }

    fn source(number: u32) -> IpNetwork {
        std::net::IpAddr::V4(number.into()).into()
    }

    #[test]
    fn a_spray_is_of_different_accounts_within_the_window() {
        let (mut sprays, start) = (Sprays::default(), Instant::now());
        let mut failed = |from, user, minute| {
            sprays.failed(source(from), &account(user), start + Duration::from_mins(minute))
        };
        let told = [1, 1, 2, 3, 4, 5, 6, 5].map(|user| failed(1, user, 0));
        assert_eq!(told, [None, None, None, None, None, Some(5), None, None]);
        assert_eq!(failed(2, 1, 0), None, "another source");
        assert_eq!(failed(1, 7, 1), Some(7), "again after a minute");
        assert_eq!(failed(1, 8, 11), None, "the others are long ago");
        let few: Vec<_> = (0..20).map(|n| failed(3, n % 4, n.into())).collect();
        assert!(few.iter().all(Option::is_none), "four are none, however often");
        let most: Vec<_> = (0..100).filter_map(|n| failed(4, n, 0)).collect();
        assert_eq!((most, failed(4, 100, 1)), (vec![5], Some(MOST)));
    }

    #[test]
    fn memory_is_bounded() {
        let (mut sprays, now) = (Sprays::default(), Instant::now());
        for number in 0..20_000 {
            sprays.failed(source(number), &account(number), now);
            sprays.failed(source(0), &account(number), now);
        }
        assert_eq!(sprays.sources.len(), MAX_SOURCES);
        assert!(sprays.sources.iter().all(|(_, seen)| seen.accounts.len() <= MOST));
    }
}
