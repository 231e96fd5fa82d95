//! The addresses seen registered within a day, in the state directory: who is kept while the source
//! cannot be read, and whom no block list may hit.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnetwork::IpNetwork;

use super::Found;
use crate::address_table::{self, About, AddressTable, Entry, Kind};
use crate::state_file;

/// So long an address is remembered, in seconds.
pub const DAY: i64 = 24 * 3600;

/// At most one write a minute: a look every other second must not wear out a disk.
const EVERY: Duration = Duration::from_mins(1);

/// More addresses are not remembered; those seen last are.
const MAX: usize = 250_000;

pub(super) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("seen.table")
}

fn open(state_dir: &Path) -> io::Result<AddressTable> {
    AddressTable::open(&path(state_dir), Kind::Seen, state_file::effective_user())
}

/// When an address of `network` was last seen registered, in seconds since 1970.
pub(super) fn last(state_dir: &Path, network: IpNetwork) -> io::Result<Option<i64>> {
    match open(state_dir) {
        Ok(table) => Ok(table.find(network)?.map(|entry| i64::from(entry.stamp))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The addresses that were seen registered in the 24 hours before `now` (seconds since 1970), in order. What carries a later
/// time, because the clock was set back, is among them.
///
/// No address where nothing was seen yet; an error if the file in the state directory cannot be read or is damaged.
pub fn seen_within_a_day(state_dir: &Path, now: i64) -> io::Result<Vec<IpAddr>> {
    Ok(last_seen(state_dir, now)?.into_keys().collect())
}

/// When each of [`seen_within_a_day`] was last seen registered, in seconds since 1970; not later than `now`.
pub fn last_seen(state_dir: &Path, now: i64) -> io::Result<BTreeMap<IpAddr, i64>> {
    let entries = match open(state_dir) {
        Ok(table) => table.entries()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let lately = entries.into_iter().filter(|entry| i64::from(entry.stamp) >= now.saturating_sub(DAY));
    Ok(lately.map(|entry| (entry.start(), now.min(entry.stamp.into()))).collect())
}

/// Takes what was found at `now` (milliseconds since 1970) into the file, if it is due. Only the process
/// that holds the lock may.
pub(super) fn update(state_dir: &Path, network: IpNetwork, found: &Found, now: i64) -> io::Result<()> {
    let old = open(state_dir).ok();
    if old.as_ref().is_none_or(|old| is_due(old, network, found, now)) {
        add(state_dir, old, found, now)
    } else {
        Ok(())
    }
}

/// Takes all that was found into the file, due or not. Only the process that holds the lock may.
pub(super) fn remember(state_dir: &Path, found: &Found, now: i64) -> io::Result<()> {
    add(state_dir, open(state_dir).ok(), found, now)
}

fn add(state_dir: &Path, old: Option<AddressTable>, found: &Found, now: i64) -> io::Result<()> {
    let seconds = now / 1000;
    // A damaged file is started anew: it is worth a day at most.
    let entries = old.map(|old| old.entries()).transpose().unwrap_or_default().unwrap_or_default();
    let mut seen: BTreeMap<IpAddr, u32> = entries
        .into_iter()
        .filter(|entry| (seconds - DAY..=seconds).contains(&i64::from(entry.stamp)))
        .map(|entry| (entry.start(), entry.stamp))
        .collect();
    let stamp = u32::try_from(seconds).unwrap_or(u32::MAX);
    seen.extend(found.registered.keys().map(|address| (*address, stamp)));
    let mut entries: Vec<Entry> =
        seen.into_iter().map(|(address, stamp)| Entry::address(address, stamp)).collect();
    if entries.len() > MAX {
        entries.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.stamp));
        entries.truncate(MAX);
    }
    let about = About {
        kind: Kind::Seen,
        created: u64::try_from(now).unwrap_or(0),
        fingerprint: 0,
        complete: false,
        extra: 0,
        labels: vec![],
    };
    state_file::make_dir(state_dir, 0o750)?;
    // The group is that of who downloads lists without privileges: these must not hit whoever is in it.
    state_file::hand_out(&path(state_dir), &address_table::encode(&about, entries))
}

/// A minute is over (or the clock was set back), or a lookup found an address that is not in it yet: unlike
/// a full read, a lookup comes by only once.
fn is_due(old: &AddressTable, network: IpNetwork, found: &Found, now: i64) -> bool {
    let age = u64::try_from(now).ok().and_then(|now| now.checked_sub(old.about().created));
    if age.is_none_or(|age| Duration::from_millis(age) >= EVERY) {
        return true;
    }
    let unknown = || old.find(network).is_ok_and(|entry| entry.is_none());
    !found.complete && found.registered.keys().any(|address| network.contains(*address)) && unknown()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    fn found(complete: bool, addresses: &[&str]) -> Found {
        let registered = addresses.iter().map(|address| (address.parse().unwrap(), u32::MAX)).collect();
        Found { registered, complete, ..Found::default() }
    }

    #[test]
    fn remembers_for_a_day_and_writes_once_a_minute() {
        let dir = tempfile::tempdir().unwrap();
        let last = |address| last(dir.path(), network(address)).unwrap();
        let at = |second: i64, addresses: &[&str]| {
            update(dir.path(), network("192.0.2.1"), &found(true, addresses), second * 1000).unwrap();
        };
        assert_eq!(last("203.0.113.20"), None);
        at(1_000_000, &["203.0.113.20", "2001:db8::1"]);
        assert_eq!(last("203.0.113.20"), Some(1_000_000));
        assert_eq!(last("2001:db8::/64"), Some(1_000_000));
        at(1_000_059, &["203.0.113.21"]);
        assert_eq!(last("203.0.113.21"), None, "not yet a minute");
        at(1_000_060, &["203.0.113.21"]);
        assert_eq!(last("203.0.113.21"), Some(1_000_060));
        assert_eq!(last("203.0.113.20"), Some(1_000_000));
        at(1_000_001 + DAY, &[]);
        assert_eq!(last("203.0.113.20"), None, "a day is over");
        assert_eq!(last("203.0.113.21"), Some(1_000_060));
        at(1_000, &["203.0.113.22"]);
        assert_eq!(last("203.0.113.22"), Some(1_000), "the clock was set back");
    }

    #[test]
    fn all_of_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let within = |now| seen_within_a_day(dir.path(), now).unwrap();
        assert_eq!(within(1_000_000), [] as [IpAddr; 0]);
        let at = |second: i64, addresses: &[&str]| {
            update(dir.path(), network("192.0.2.1"), &found(true, addresses), second * 1000).unwrap();
        };
        at(1_000_000, &["203.0.113.20", "2001:db8::1"]);
        at(1_000_060, &["203.0.113.21"]);
        let addresses =
            |text: &[&str]| text.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        assert_eq!(within(1_000_000 + DAY), addresses(&["203.0.113.20", "203.0.113.21", "2001:db8::1"]));
        assert_eq!(within(1_000_001 + DAY), addresses(&["203.0.113.21"]));
        let last = |now| last_seen(dir.path(), now).unwrap().into_values().collect::<Vec<_>>();
        assert_eq!(last(1_000_030), [1_000_000, 1_000_030, 1_000_000]);
        assert_eq!(within(1_000).len(), 3, "the clock was set back");
        std::fs::write(path(dir.path()), "garbage").unwrap();
        assert!(seen_within_a_day(dir.path(), 1_000_000).is_err());
    }

    #[test]
    fn an_address_that_was_looked_up_is_remembered_at_once() {
        let dir = tempfile::tempdir().unwrap();
        update(dir.path(), network("192.0.2.1"), &found(true, &[]), 1_000_000).unwrap();
        let asked = network("203.0.113.20");
        update(dir.path(), asked, &found(false, &["203.0.113.20"]), 1_000_001).unwrap();
        assert_eq!(last(dir.path(), asked).unwrap(), Some(1_000));
    }

    #[test]
    fn a_damaged_file_is_started_anew() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(path(dir.path()), "garbage").unwrap();
        assert!(last(dir.path(), network("203.0.113.20")).is_err());
        update(dir.path(), network("192.0.2.1"), &found(true, &["203.0.113.20"]), 1_000_000).unwrap();
        assert_eq!(last(dir.path(), network("203.0.113.20")).unwrap(), Some(1_000));
    }
}
