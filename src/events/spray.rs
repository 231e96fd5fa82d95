//! Sources that fail on many accounts that exist: they guess passwords.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use super::{Recent, recent};
use crate::account::SipAccount;

/// So many different accounts that exist are tried by no phone within [`WINDOW`].
const LEAST: usize = 5;

/// So many accounts of a source are counted at most.
pub const MOST: usize = 20;

/// Milliseconds.
const WINDOW: i64 = 600_000;

/// A source is told of again after this time, in milliseconds.
const AGAIN: i64 = 60_000;

/// So many sources are remembered.
const MAX_SOURCES: usize = 4_000;

/// The accounts that each source failed on within [`WINDOW`].
#[derive(Debug)]
pub struct Sprays {
    sources: Recent<IpAddr, Source>,
    /// Of accounts no more than a hash is kept: their names may be long.
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Source {
    /// Hashes of accounts, and when each failed last, in milliseconds since 1970; at most [`MOST`].
    accounts: Vec<(u64, i64)>,
    /// Since when they have been [`LEAST`] at any time.
    since: Option<i64>,
    told: Option<i64>,
}

impl Default for Sprays {
    fn default() -> Self {
        Self { sources: recent(MAX_SOURCES), hasher: RandomState::new() }
    }
}

impl Sprays {
    /// An account that exists has failed at `now` (milliseconds since 1970). On how many its source fails, if they are too many
    /// for at least `patience` milliseconds, and nobody was told of it for a minute.
    pub fn failed(&mut self, source: IpAddr, account: &SipAccount, now: i64, patience: i64) -> Option<usize> {
        let hash = self.hasher.hash_one(account);
        let mut seen = self.sources.remove(&source).unwrap_or_default();
        let count = seen.add(hash, now);
        let lasts = seen.since.is_some_and(|since| now - since >= patience);
        let is_news = seen.told.is_none_or(|told| now - told >= AGAIN);
        let told = (lasts && is_news).then_some(count);
        seen.told = told.map(|_| now).or(seen.told);
        self.sources.insert(source, seen);
        told
    }
}

impl Source {
    /// How many accounts there are.
    fn add(&mut self, account: u64, now: i64) -> usize {
        self.accounts.retain(|(other, at)| *other != account && *at > now - WINDOW);
        if self.accounts.len() + 1 < LEAST {
            self.since = None;
        }
        if self.accounts.len() >= MOST {
            self.accounts.remove(0);
        }
        self.accounts.push((account, now));
        let count = self.accounts.len();
        if count >= LEAST {
            self.since.get_or_insert(now);
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn account(number: u32) -> SipAccount {
        SipAccount::new(&number.to_string(), "a.example.com").unwrap()
    }

    fn source(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn a_spray_is_of_different_accounts_within_the_window() {
        let mut sprays = Sprays::default();
        let mut failed = |from, user, minute| sprays.failed(source(from), &account(user), minute * MINUTE, 0);
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
    fn a_source_that_is_given_time_is_told_of_if_it_goes_on() {
        let mut sprays = Sprays::default();
        let mut failed = |user, ms| sprays.failed(source(1), &account(user), ms, MINUTE);
        assert!((0..20).all(|user| failed(user, 0).is_none()));
        assert_eq!(failed(1, MINUTE - 1), None);
        assert_eq!(failed(2, MINUTE), Some(20));
        assert!((0..4).all(|user| failed(user, 12 * MINUTE).is_none()), "the others are long ago");
        assert_eq!(failed(4, 12 * MINUTE), None, "it begins anew");
        assert_eq!(failed(5, 13 * MINUTE), Some(6));
    }

    #[test]
    fn memory_is_bounded() {
        let mut sprays = Sprays::default();
        for number in 0..20_000 {
            sprays.failed(source(number), &account(number), 0, 0);
            sprays.failed(source(0), &account(number), 0, 0);
        }
        assert_eq!(sprays.sources.len(), MAX_SOURCES);
        assert!(sprays.sources.iter().all(|(_, seen)| seen.accounts.len() <= MOST));
    }
}
