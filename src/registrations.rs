//! Who is connected now: the addresses with live registrations in FreeSWITCH.
//!
//! One file per source ([`sqlite`], [`postgres`], [`event_socket`]), one that finds the right source ([`discovery`]), one
//! that lets many short-lived processes share a look at it ([`registry`]), and one that keeps up with FreeSWITCH's events
//! ([`live`]).

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::account::Offender;
use crate::address;
use crate::deadline::Deadline;
use crate::evidence::visible;

pub mod devices;
pub mod discovery;
mod event_socket;
mod failure;
pub mod live;
mod postgres;
pub mod registry;
mod seen;
mod snapshot;
mod sqlite;

pub use discovery::Source;
pub use registry::{Answer, LiveFeed, Registry, Standing, Via};
pub use seen::{DAY, last_seen, seen_within_a_day};

/// No call takes longer than this (the longest deadline is no longer), so what another call stamped with its own start
/// is no further ahead of ours; what is further ahead is from a clock that was set back since.
const AHEAD_MS: i64 = 30_000;

/// The registrations of the profiles, and the core's.
const PROFILE_TABLE: &str = "sip_registrations";
const CORE_TABLE: &str = "registrations";

/// More accounts of one address are not named.
const MAX_ACCOUNTS: usize = 20;

/// What is asked of a source.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// The addresses that count as the phone.
    pub network: IpNetwork,
    /// Seconds since 1970: only registrations that expire later are live.
    pub now: i64,
    /// All registrations, if they are few enough; otherwise only those from `network`.
    pub all: bool,
}

/// What one look at a source found.
#[derive(Debug, Default)]
pub struct Found {
    /// When the last registration from each address expires, in seconds since 1970.
    pub registered: BTreeMap<IpAddr, u32>,
    /// Whether these are all registered addresses; otherwise they are those of the question alone.
    pub complete: bool,
    /// Parts of the source that could not be read, and why: absence proves nothing then.
    pub failures: Vec<String>,
    /// What was read, for people.
    pub notes: Vec<String>,
}

impl Found {
    /// What could not be read, in one text; `None` where all of it was.
    fn failure(&self) -> Option<String> {
        (!self.failures.is_empty()).then(|| self.failures.join("; "))
    }

    /// Takes in lines of "ADDRESS EXPIRES", as the databases gather them into one text; how many there are.
    fn add_lines(&mut self, text: &str) -> usize {
        let mut count = 0;
        for (address, expires) in text.lines().filter_map(|line| line.rsplit_once(' ')) {
            self.add(address, expires.parse().unwrap_or(0));
            count += 1;
        }
        count
    }

    /// Takes in a live registration; text that is no address is passed over.
    fn add(&mut self, network_ip: &str, expires: i64) {
        if let Some(address) = self::network_ip(network_ip) {
            self.add_address(address, u32::try_from(expires).unwrap_or(u32::MAX));
        }
    }

    fn add_address(&mut self, address: IpAddr, expires: u32) {
        let known = self.registered.entry(address).or_insert(expires);
        *known = expires.max(*known);
    }
}

/// The address in a `network_ip`.
fn network_ip(text: &str) -> Option<IpAddr> {
    address::parse_text(text.trim_matches(['[', ']']))
}

impl Source {
    /// Asks the source. An error means that nothing could be read.
    pub fn look(&self, question: &Question, deadline: Deadline) -> anyhow::Result<Found> {
        match self {
            Self::Sqlite(files) => sqlite::look(files, question, deadline),
            Self::Postgres(target) => postgres::look(target, question, deadline),
            Self::EventSocket { address, password } => {
                event_socket::look(address, password, question.now, deadline)
            }
        }
    }

    /// All addresses with a live registration at `now` (seconds since 1970), however many; what is found is complete
    /// unless there are failures.
    ///
    /// Takes its time: SQLite's files are read in pages between which FreeSWITCH has its turn, so that an address may
    /// be missing that registered meanwhile. An error means that nothing could be read.
    pub fn everyone(&self, now: i64, deadline: Deadline) -> anyhow::Result<Found> {
        match self {
            Self::Sqlite(files) => sqlite::everyone(files, now, deadline),
            Self::Postgres(target) => postgres::everyone(target, now, deadline),
            Self::EventSocket { address, password } => event_socket::look(address, password, now, deadline),
        }
    }

    /// The accounts (`user@domain`) with a live registration from `address` at `now` (seconds since 1970), in order, at
    /// most 20 of them, safe to print. For a few addresses: each costs a question, over the event socket a look at
    /// everybody.
    ///
    /// An error means that none was found and something could not be read.
    pub fn accounts(&self, address: IpAddr, now: i64, deadline: Deadline) -> anyhow::Result<Vec<String>> {
        let phone = address.to_canonical();
        let accounts = match self {
            Self::Sqlite(files) => sqlite::accounts(files, phone, now, deadline),
            Self::Postgres(target) => postgres::accounts(target, phone, now, deadline),
            Self::EventSocket { address, password } => {
                event_socket::accounts(address, password, phone, deadline)
            }
        }?;
        Ok(accounts.iter().map(|account| visible(account)).take(MAX_ACCOUNTS).collect())
    }

    /// Which of these have a live registration at `now` (seconds since 1970): of the very account, by its address of
    /// record or the name and realm of its credentials, from the very source; from anywhere if there is none. In the
    /// order of the offenders.
    ///
    /// An error means that one was not found and something could not be read: absence proves nothing then.
    pub fn registered(
        &self,
        offenders: &[Offender],
        now: i64,
        deadline: Deadline,
    ) -> anyhow::Result<Vec<bool>> {
        if offenders.is_empty() {
            return Ok(vec![]);
        }
        let canonical = |offender: &Offender| Offender {
            account: offender.account.clone(),
            source: offender.source.map(|source| source.to_canonical()),
        };
        let offenders: Vec<_> = offenders.iter().map(canonical).collect();
        match self {
            Self::Sqlite(files) => sqlite::registered(files, &offenders, now, deadline),
            Self::Postgres(target) => postgres::registered(target, &offenders, now, deadline),
            Self::EventSocket { address, password } => {
                event_socket::registered(address, password, &offenders, deadline)
            }
        }
    }
}

/// What the databases' two tables call an account.
fn account_columns(table: &str) -> &'static str {
    if table == CORE_TABLE { "reg_user || '@' || realm" } else { "sip_user || '@' || sip_host" }
}

/// The columns, user and domain, each pair of which names the account of a registration.
fn account_pairs(table: &str) -> &'static [(&'static str, &'static str)] {
    if table == CORE_TABLE {
        &[("reg_user", "realm")]
    } else {
        &[("sip_user", "sip_host"), ("sip_username", "sip_realm")]
    }
}

/// How a database may spell the addresses of a question in `network_ip`.
///
/// FreeSWITCH writes the source of the packet as `inet_ntop` does: lower case, the longest run of zeros
/// compressed.
#[derive(Debug, PartialEq, Eq)]
enum Spelling {
    /// One of these.
    OneOf([String; 2]),
    /// At or behind the first and before the second in byte order, and more than wanted among them.
    Between(String, String),
}

/// The spellings of one address.
fn spellings(address: IpAddr) -> [String; 2] {
    match address {
        IpAddr::V4(v4) => [v4.to_string(), format!("::ffff:{v4}")],
        IpAddr::V6(v6) => [v6.to_string(), format!("[{v6}]")],
    }
}

impl Question {
    fn spelling(&self) -> Spelling {
        match self.network {
            IpNetwork::V4(v4) => Spelling::OneOf(spellings(v4.network().into())),
            IpNetwork::V6(v6) if v6.prefix() == 128 => Spelling::OneOf(spellings(v6.network().into())),
            IpNetwork::V6(v6) => {
                // Groups before the first zero are spelled out in every spelling.
                let groups = v6.network().segments();
                let sure = groups.iter().take(usize::from(v6.prefix() / 16)).take_while(|group| **group != 0);
                let start = sure.fold(String::new(), |start, group| format!("{start}{group:x}:"));
                if start.is_empty() {
                    return Spelling::Between(String::new(), "g".to_owned());
                }
                let end = format!("{};", &start[..start.len() - 1]);
                Spelling::Between(start, end)
            }
        }
    }
}

/// So many, as people say it.
fn live(count: usize) -> String {
    match count {
        1 => "1 live registration".to_owned(),
        count => format!("{count} live registrations"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn question(network: &str) -> Question {
        Question { network: network.parse().unwrap(), now: 0, all: false }
    }

    #[test]
    fn spells_an_address_as_freeswitch_does() {
        let one_of = |a: &str, b: &str| Spelling::OneOf([a.to_owned(), b.to_owned()]);
        assert_eq!(question("203.0.113.20/32").spelling(), one_of("203.0.113.20", "::ffff:203.0.113.20"));
        assert_eq!(question("2001:DB8:0:0::1/128").spelling(), one_of("2001:db8::1", "[2001:db8::1]"));
        let between = |a: &str, b: &str| Spelling::Between(a.to_owned(), b.to_owned());
        assert_eq!(question("2001:db8:66:7::/64").spelling(), between("2001:db8:66:7:", "2001:db8:66:7;"));
        assert_eq!(question("2001:db8:0:7::/64").spelling(), between("2001:db8:", "2001:db8;"));
    }

    proptest! {
        #[test]
        fn every_neighbour_is_between(bits: u128, low: u64, prefix in 48u8..128) {
            let network = address::neighbourhood(IpAddr::V6(bits.into()), prefix);
            let mask = u128::MAX >> prefix;
            let neighbour = IpAddr::V6(((bits & !mask) | (u128::from(low) & mask)).into());
            let Spelling::Between(start, end) = Question { network, now: 0, all: false }.spelling() else {
                return Err(TestCaseError::fail("a network is not one address"));
            };
            let text = neighbour.to_string();
            prop_assert!(start <= text && text < end, "{} <= {} < {}", start, text, end);
        }
    }

    #[test]
    fn the_longest_registration_of_an_address_counts() {
        let mut found = Found::default();
        for (ip, expires) in
            [("203.0.113.20", 5), ("::ffff:203.0.113.20", 9), ("203.0.113.20", 7), ("nonsense", 9), ("", 9)]
        {
            found.add(ip, expires);
        }
        assert_eq!(found.registered.into_iter().collect::<Vec<_>>(), [("203.0.113.20".parse().unwrap(), 9)]);
    }
}
