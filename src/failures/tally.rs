//! Failures added up by address and account, in bounded memory however many there are.

use std::collections::HashMap;
use std::hash::RandomState;
use std::net::IpAddr;

use hashlink::LruCache;
use jiff::Timestamp;

use super::{Account, Failure, Why};

/// So many addresses are kept; where there are more, those that failed last.
const MAX_ADDRESSES: usize = 50_000;

/// So many accounts of one address are kept apart. No office has more phones that fail.
const MAX_ACCOUNTS: usize = 200;

/// So many accounts are kept apart in all.
const MAX_IN_ALL: usize = 100_000;

/// What failed so far.
#[derive(Debug)]
pub struct Tally {
    sources: LruCache<IpAddr, Source, RandomState>,
    /// Accounts in all of them.
    accounts: usize,
    /// Failures of addresses that are not kept any more.
    forgotten: u64,
}

#[derive(Debug, Default)]
struct Source {
    accounts: HashMap<(Account, Why), Sum>,
    others: Option<Sum>,
}

#[derive(Clone, Debug)]
struct Sum {
    count: u64,
    first: Timestamp,
    last: Timestamp,
    agent: String,
}

/// An address that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offender {
    /// The address.
    pub address: IpAddr,
    /// How often it failed.
    pub count: u64,
    /// With which accounts, the most frequent first.
    pub offenses: Vec<Offense>,
}

/// How one account failed from one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offense {
    /// Which account, and why; none for all those that are too many to be kept apart.
    pub what: Option<(Account, Why)>,
    /// How often.
    pub count: u64,
    /// When first.
    pub first: Timestamp,
    /// When last.
    pub last: Timestamp,
    /// What the client called itself last, if it is known.
    pub agent: String,
}

impl Default for Tally {
    fn default() -> Self {
        let sources = LruCache::with_hasher(MAX_ADDRESSES, RandomState::new());
        Self { sources, accounts: 0, forgotten: 0 }
    }
}

impl Tally {
    /// Adds one.
    pub fn add(&mut self, failure: Failure) {
        let Failure { time, address, account, why, agent, .. } = failure;
        // It is the one that was used last, now.
        if self.sources.get(&address).is_none() {
            if self.sources.len() == MAX_ADDRESSES
                && let Some((_, old)) = self.sources.remove_lru()
            {
                self.accounts -= old.accounts.len();
                self.forgotten += old.count();
            }
            self.sources.insert(address, Source::default());
        }
        let Some(source) = self.sources.peek_mut(&address) else { return };
        let has_room = source.accounts.len() < MAX_ACCOUNTS && self.accounts < MAX_IN_ALL;
        let what = (account, why);
        let sum = match source.accounts.get_mut(&what) {
            Some(sum) => Some(sum),
            None if has_room => {
                self.accounts += 1;
                Some(source.accounts.entry(what).or_insert_with(|| Sum::new(time)))
            }
            None => None,
        };
        sum.unwrap_or_else(|| source.others.get_or_insert_with(|| Sum::new(time))).add(time, agent);
    }

    /// All of it, who failed most first; and how many failures of other addresses there were.
    #[must_use]
    pub fn finish(self) -> (Vec<Offender>, u64) {
        let forgotten = self.forgotten;
        let mut offenders: Vec<_> =
            self.sources.into_iter().map(|(address, source)| source.of(address)).collect();
        offenders.sort_by(|one, other| other.count.cmp(&one.count).then(one.address.cmp(&other.address)));
        (offenders, forgotten)
    }
}

impl Source {
    fn count(&self) -> u64 {
        self.accounts.values().chain(&self.others).map(|sum| sum.count).sum()
    }

    fn of(self, address: IpAddr) -> Offender {
        let count = self.count();
        let offense = |what, Sum { count, first, last, agent }| Offense { what, count, first, last, agent };
        let mut offenses: Vec<_> =
            self.accounts.into_iter().map(|(what, sum)| offense(Some(what), sum)).collect();
        offenses.sort_by(|one, other| other.count.cmp(&one.count).then_with(|| one.what.cmp(&other.what)));
        offenses.extend(self.others.map(|sum| offense(None, sum)));
        Offender { address, count, offenses }
    }
}

impl Sum {
    fn new(time: Timestamp) -> Self {
        Self { count: 0, first: time, last: time, agent: String::new() }
    }

    fn add(&mut self, time: Timestamp, agent: String) {
        self.count += 1;
        self.first = self.first.min(time);
        self.last = self.last.max(time);
        if !agent.is_empty() {
            self.agent = agent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(address: u32, user: &str, why: Why, second: i64) -> Failure {
        Failure {
            time: Timestamp::from_second(second).unwrap(),
            address: IpAddr::V4(address.into()),
            account: Account { user: user.into(), domain: "a.example.com".into() },
            why,
            agent: if second == 0 { String::new() } else { format!("Lab {second}") },
            excused: false,
        }
    }

    #[test]
    fn who_fails_most_comes_first() {
        let mut tally = Tally::default();
        for (address, user, why, second) in [
            (1, "101", Why::WrongPassword, 7),
            (2, "101", Why::WrongPassword, 5),
            (2, "102", Why::NoSuchAccount, 6),
            (2, "102", Why::NoSuchAccount, 3),
            (2, "102", Why::WrongPassword, 9),
            (2, "102", Why::NoSuchAccount, 0),
        ] {
            tally.add(failure(address, user, why, second));
        }
        let (offenders, forgotten) = tally.finish();
        assert_eq!(forgotten, 0);
        let shown: Vec<_> = offenders
            .iter()
            .flat_map(|offender| {
                offender.offenses.iter().map(|offense| {
                    let (account, why) = offense.what.as_ref().unwrap();
                    let times = (offense.first.as_second(), offense.last.as_second());
                    (
                        offender.count,
                        account.user.as_str(),
                        *why,
                        offense.count,
                        times,
                        offense.agent.as_str(),
                    )
                })
            })
            .collect();
        assert_eq!(
            shown,
            [
                (5, "102", Why::NoSuchAccount, 3, (0, 6), "Lab 3"),
                (5, "101", Why::WrongPassword, 1, (5, 5), "Lab 5"),
                (5, "102", Why::WrongPassword, 1, (9, 9), "Lab 9"),
                (1, "101", Why::WrongPassword, 1, (7, 7), "Lab 7"),
            ]
        );
    }

    #[test]
    fn nothing_is_lost_where_there_are_too_many() {
        let mut tally = Tally::default();
        for n in 0..1_000 {
            tally.add(failure(0, &n.to_string(), Why::NoSuchAccount, 1));
        }
        for n in 0..u32::try_from(MAX_ADDRESSES).unwrap() * 2 {
            tally.add(failure(n / 3, &n.to_string(), Why::NoSuchAccount, 2));
            tally.add(failure(n + 1_000_000, "101", Why::NoSuchAccount, 2));
        }
        assert!(tally.accounts <= MAX_IN_ALL && tally.sources.len() <= MAX_ADDRESSES);
        let kept: usize = tally.sources.iter().map(|(_, source)| source.accounts.len()).sum();
        assert_eq!(kept, tally.accounts);
        let (offenders, forgotten) = tally.finish();
        let count: u64 = offenders.iter().map(|offender| offender.count).sum();
        assert_eq!(count + forgotten, 1_000 + 4 * MAX_ADDRESSES as u64);
    }

    #[test]
    fn the_accounts_of_one_address_are_bounded() {
        let mut tally = Tally::default();
        for n in 0..1_000 {
            tally.add(failure(0, &n.to_string(), Why::NoSuchAccount, 1));
        }
        let (offenders, _) = tally.finish();
        let [offender] = &offenders[..] else { panic!("{offenders:?}") };
        assert_eq!((offender.count, offender.offenses.len()), (1_000, MAX_ACCOUNTS + 1));
        let others = offender.offenses.last().unwrap();
        assert_eq!((&others.what, others.count), (&None, 800));
    }
}
