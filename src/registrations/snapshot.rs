//! What the last look at the source found, for all processes, in the run directory.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnetwork::IpNetwork;

use super::{AHEAD_MS, Found, Question};
use crate::address_table::{self, About, AddressTable, Entry, Kind};
use crate::config;
use crate::state_file::{self, Durability};

/// A source with too many registrations to read whole is tried again after this time.
const RETRY_ALL: Duration = Duration::from_mins(1);

/// The stamp of a network that was looked up; every live registration has a later one.
const LOOKED_UP: u32 = 0;

/// A snapshot that was made from the same settings.
#[derive(Debug)]
pub(super) struct Snapshot {
    table: AddressTable,
}

/// What it says about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// Registered; in seconds since 1970, the last registration ends then.
    Registered { until: u32 },
    /// Not registered.
    NotRegistered,
}

const NAME: &str = "registrations.snapshot";

/// In the run directory, where [`write_live`] writes.
const LIVE_DIR: &str = "events";

pub(super) fn path(run_dir: &Path) -> PathBuf {
    run_dir.join(NAME)
}

/// It is written by somebody without privileges: more than a million phones are not read.
const LONGEST_LIVE: u64 = 32 << 20;

/// Which settings a snapshot must come from to be ours.
pub(super) fn fingerprint(settings: &config::Registrations) -> u64 {
    let mut hasher = DefaultHasher::new();
    let config::Registrations {
        source,
        sqlite_dir,
        postgres,
        event_socket,
        fusionpbx_config,
        freeswitch_config,
        ..
    } = settings;
    (source, sqlite_dir, postgres, event_socket, fusionpbx_config, freeswitch_config).hash(&mut hasher);
    hasher.finish()
}

impl Snapshot {
    /// The snapshot, if there is one of ours.
    pub(super) fn open(run_dir: &Path, fingerprint: u64) -> Option<Self> {
        let table = AddressTable::open(&path(run_dir), Kind::Snapshot, state_file::effective_user()).ok()?;
        (table.about().fingerprint == fingerprint).then_some(Self { table })
    }

    /// The one that `ringfence-events` keeps fresh, if it does.
    pub(super) fn open_live(run_dir: &Path, fingerprint: u64) -> Option<Self> {
        let user = state_file::effective_user();
        let (file, length) = state_file::open_entrusted(run_dir, LIVE_DIR, NAME, user).ok()?;
        if length > LONGEST_LIVE {
            return None;
        }
        let table = AddressTable::read(file, length, Kind::Snapshot).ok()?;
        (table.about().fingerprint == fingerprint).then_some(Self { table })
    }

    /// Its age at `now` (milliseconds since 1970), zero if it is of a call that came after us; `None` if the clock
    /// was set back since.
    pub(super) fn age(&self, now: i64) -> Option<Duration> {
        let age = now - i64::try_from(self.table.about().created).ok()?;
        (age > -AHEAD_MS).then(|| Duration::from_millis(u64::try_from(age).unwrap_or(0)))
    }

    /// The number of registered addresses in it.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether it holds every registered address.
    pub(super) fn is_complete(&self) -> bool {
        self.table.about().complete
    }

    /// What it says; `None` where nobody looked.
    pub(super) fn says(&self, network: IpNetwork, now: i64) -> Option<Says> {
        match self.table.find(network).ok()? {
            Some(entry) if i64::from(entry.stamp) > now / 1000 => {
                Some(Says::Registered { until: entry.stamp })
            }
            Some(_) => Some(Says::NotRegistered),
            None => self.is_complete().then_some(Says::NotRegistered),
        }
    }

    /// Whether the source may be read whole: it was small enough last time, or that is a while ago.
    pub(super) fn may_read_all(&self, now: i64) -> bool {
        self.is_complete() || u64::try_from(now).is_ok_and(|now| now >= self.table.about().extra)
    }

    /// The entries that a look at one more address adds to.
    fn looked_up(&self, now: i64, cache: Duration) -> Option<Vec<Entry>> {
        let current = !self.is_complete() && self.age(now).is_some_and(|age| age < cache);
        if current { self.table.entries().ok() } else { None }
    }
}

/// Replaces the snapshot by what was found. Only the process that holds the lock may.
pub(super) fn write(
    run_dir: &Path,
    fingerprint: u64,
    question: &Question,
    found: &Found,
    now: i64,
    cache: Duration,
) -> io::Result<()> {
    let old = Snapshot::open(run_dir, fingerprint);
    let mut created = u64::try_from(now).unwrap_or(0);
    let mut retry_all = 0;
    let mut entries = Vec::new();
    if !found.complete {
        let soon = created + u64::try_from(RETRY_ALL.as_millis()).expect("a minute");
        retry_all =
            if question.all { soon } else { old.as_ref().map_or(soon, |old| old.table.about().extra) };
        if let Some((old, looked_up)) =
            old.and_then(|old| Some((old.table.about().created, old.looked_up(now, cache)?)))
        {
            // As old as its oldest answer.
            created = old;
            entries = looked_up;
        }
        if found.failures.is_empty() {
            entries.push(Entry::network(question.network, LOOKED_UP, 0));
        }
    }
    entries.extend(found.registered.iter().map(|(address, expires)| Entry::address(*address, *expires)));
    let about = About {
        kind: Kind::Snapshot,
        created,
        fingerprint,
        complete: found.complete && found.failures.is_empty(),
        extra: retry_all,
        labels: vec![],
    };
    state_file::replace(&path(run_dir), &address_table::encode(&about, entries), Durability::Volatile)
}

/// Replaces the live snapshot: all registered addresses at `now` (milliseconds since 1970), and when the last registration
/// from each ends. Only one process may.
pub(super) fn write_live(
    run_dir: &Path,
    fingerprint: u64,
    registered: impl IntoIterator<Item = (IpAddr, u32)>,
    complete: bool,
    now: i64,
) -> io::Result<()> {
    let about = About {
        kind: Kind::Snapshot,
        created: u64::try_from(now).unwrap_or(0),
        fingerprint,
        complete,
        extra: 0,
        labels: vec![],
    };
    let entries = registered.into_iter().map(|(address, expires)| Entry::address(address, expires));
    let dir = run_dir.join(LIVE_DIR);
    state_file::make_dir(&dir, 0o755)?;
    state_file::replace(&dir.join(NAME), &address_table::encode(&about, entries), Durability::Volatile)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CACHE: Duration = Duration::from_secs(2);

    fn network(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    fn found(complete: bool, addresses: &[(&str, u32)]) -> Found {
        let registered =
            addresses.iter().map(|(address, expires)| (address.parse().unwrap(), *expires)).collect();
        Found { registered, complete, ..Found::default() }
    }

    fn write_and_open(dir: &Path, asked: &str, found: &Found, now: i64) -> Snapshot {
        let question = Question { network: network(asked), now: now / 1000, all: true };
        write(dir, 7, &question, found, now, CACHE).unwrap();
        Snapshot::open(dir, 7).unwrap()
    }

    #[test]
    fn a_complete_one_answers_for_every_address() {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = write_and_open(
            dir.path(),
            "192.0.2.1",
            &found(true, &[("203.0.113.20", 20), ("2001:db8::1", 30)]),
            10_000,
        );
        assert_eq!(snapshot.says(network("203.0.113.20"), 10_000), Some(Says::Registered { until: 20 }));
        assert_eq!(snapshot.says(network("203.0.113.20"), 20_000), Some(Says::NotRegistered));
        assert_eq!(snapshot.says(network("203.0.113.21"), 10_000), Some(Says::NotRegistered));
        assert_eq!(snapshot.says(network("2001:db8::/64"), 10_000), Some(Says::Registered { until: 30 }));
        assert_eq!(snapshot.age(11_500), Some(Duration::from_millis(1500)));
        assert_eq!(snapshot.age(9_999), Some(Duration::ZERO), "of a call that came later");
        assert_eq!(snapshot.age(-20_000), None);
    }

    #[test]
    fn an_incomplete_one_answers_for_what_was_looked_up() {
        let dir = tempfile::tempdir().unwrap();
        write_and_open(dir.path(), "203.0.113.20", &found(false, &[("203.0.113.20", 90)]), 10_000);
        let snapshot = write_and_open(dir.path(), "203.0.113.21", &found(false, &[]), 11_000);
        assert_eq!(snapshot.says(network("203.0.113.20"), 11_000), Some(Says::Registered { until: 90 }));
        assert_eq!(snapshot.says(network("203.0.113.21"), 11_000), Some(Says::NotRegistered));
        assert_eq!(snapshot.says(network("203.0.113.22"), 11_000), None);
        assert_eq!(snapshot.age(11_000), Some(Duration::from_secs(1)), "as old as its first answer");
        assert!(!snapshot.may_read_all(11_000) && snapshot.may_read_all(80_000));

        let later = write_and_open(dir.path(), "203.0.113.22", &found(false, &[]), 13_000);
        assert_eq!(later.says(network("203.0.113.20"), 13_000), None, "too old to be kept");
    }

    #[test]
    fn a_look_that_failed_in_part_proves_no_absence() {
        let dir = tempfile::tempdir().unwrap();
        let mut part = found(true, &[("203.0.113.20", 90)]);
        part.failures.push("core.db: locked".into());
        let snapshot = write_and_open(dir.path(), "203.0.113.21", &part, 10_000);
        assert_eq!(snapshot.says(network("203.0.113.20"), 10_000), Some(Says::Registered { until: 90 }));
        assert_eq!(snapshot.says(network("203.0.113.21"), 10_000), None);
    }

    #[test]
    fn a_foreign_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        write_and_open(dir.path(), "192.0.2.1", &found(true, &[]), 10_000);
        assert!(Snapshot::open(dir.path(), 8).is_none());
        std::fs::write(path(dir.path()), "garbage").unwrap();
        assert!(Snapshot::open(dir.path(), 7).is_none());
    }
}
