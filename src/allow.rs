//! The allow lists as `ringfence-ignore` reads them: one compact table in the state directory.
//!
//! Whoever fills the lists writes the table with [`write()`]; it holds the entries that exempt from
//! fail2ban, and no others. Addresses that are allowed for a time ([`timed`]) are in a table of their own.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use jiff::Timestamp;

use crate::address_table::{self, About, AddressTable, Entry, FOREVER, Kind};
use crate::state_file::{self, Durability};

pub mod timed;

/// A network that fail2ban must leave alone, and the list that says so.
#[derive(Clone, Debug)]
pub struct Allowed<'a> {
    /// The network.
    pub network: IpNetwork,
    /// The name of its list, at most 16 bytes.
    pub list: &'a str,
    /// Until when; `None` is without end.
    pub until: Option<Timestamp>,
}

/// Where the table is.
#[must_use]
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("allow.table")
}

/// Replaces the table in one rename, unless it says the same already. Where entries overlap, the one that lasts longest counts; of those
/// that last equally long, the list that comes first is named in answers.
///
/// Only one process at a time may write: hold the lists' lock.
pub fn write(state_dir: &Path, allowed: &[Allowed<'_>], now: Timestamp) -> io::Result<()> {
    write_table(&path(state_dir), allowed, now)
}

fn write_table(path: &Path, allowed: &[Allowed<'_>], now: Timestamp) -> io::Result<()> {
    let mut labels: Vec<String> = Vec::new();
    let entries: Vec<Entry> = allowed
        .iter()
        .map(|allowed| {
            let label = labels.iter().position(|label| label == allowed.list).unwrap_or_else(|| {
                labels.push(allowed.list.to_owned());
                labels.len() - 1
            });
            let until = allowed
                .until
                .map_or(FOREVER, |until| u32::try_from(until.as_second().max(0)).unwrap_or(FOREVER));
            Entry::network(allowed.network, until, u16::try_from(label).unwrap_or(u16::MAX))
        })
        .collect();
    let created = u64::try_from(now.as_millisecond()).unwrap_or(0);
    let mut about = About { kind: Kind::Allow, created, fingerprint: 0, complete: true, extra: 0, labels };
    // A disk that takes nothing does no harm where nothing is to be written.
    if let Ok(there) = AddressTable::open(path, Kind::Allow, state_file::effective_user()) {
        about.created = there.about().created;
        let same = address_table::encode(&about, entries.iter().copied());
        if state_file::read_regular(path, same.len() as u64).is_ok_and(|there| there == same) {
            return Ok(());
        }
        about.created = created;
    }
    state_file::replace(path, &address_table::encode(&about, entries), Durability::Durable)
}

/// A table that is there and cannot be read.
#[derive(Debug)]
pub struct Unreadable {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub error: io::Error,
}

/// Whether `address` is allowed at `now`, and by which list; `ringfence-allow` is one. No table is no list.
///
/// An error means that no table that could be read has it, and that one could not.
pub fn find(state_dir: &Path, address: IpAddr, now: Timestamp) -> Result<Option<String>, Unreadable> {
    let mut unreadable = None;
    for path in [path(state_dir), timed::table(state_dir)] {
        match look_up(&path, address, now) {
            Ok(None) => {}
            Ok(found) => return Ok(found),
            Err(error) => {
                unreadable.get_or_insert(Unreadable { path, error });
            }
        }
    }
    unreadable.map_or(Ok(None), Err)
}

fn look_up(path: &Path, address: IpAddr, now: Timestamp) -> io::Result<Option<String>> {
    let table = match AddressTable::open(path, Kind::Allow, state_file::effective_user()) {
        Ok(table) => table,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let found = table.find(IpNetwork::from(address))?;
    Ok(found.filter(|entry| entry.stamp == FOREVER || i64::from(entry.stamp) > now.as_second()).map(
        |entry| table.about().labels.get(usize::from(entry.label)).map_or("?", String::as_str).to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(dir: &Path, address: &str, now: i64) -> Option<String> {
        find(dir, address.parse().unwrap(), Timestamp::from_second(now).unwrap()).unwrap()
    }

    #[test]
    fn says_which_list_until_its_time_is_over() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ask(dir.path(), "203.0.113.20", 1_000), None);
        let allowed = [
            Allowed { network: "203.0.113.0/24".parse().unwrap(), list: "office", until: None },
            Allowed {
                network: "2001:db8:66::/48".parse().unwrap(),
                list: "carriers",
                until: Some(Timestamp::from_second(2_000).unwrap()),
            },
        ];
        write(dir.path(), &allowed, Timestamp::from_second(1_000).unwrap()).unwrap();
        assert_eq!(ask(dir.path(), "203.0.113.20", 1_000).as_deref(), Some("office"));
        assert_eq!(ask(dir.path(), "203.0.114.20", 1_000), None);
        assert_eq!(ask(dir.path(), "2001:db8:66::bad", 1_999).as_deref(), Some("carriers"));
        assert_eq!(ask(dir.path(), "2001:db8:66::bad", 2_000), None);
    }

    #[test]
    fn a_damaged_table_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(path(dir.path()), "203.0.113.0/24\n").unwrap();
        let address = "203.0.113.20".parse().unwrap();
        let unreadable = find(dir.path(), address, Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(unreadable.path, path(dir.path()));
        // Another that has it is enough, and one that has it not is not.
        let mut allowed = [Allowed { network: address.into(), list: "ringfence-allow", until: None }];
        write_table(&timed::table(dir.path()), &allowed, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(ask(dir.path(), "203.0.113.20", 0).as_deref(), Some("ringfence-allow"));
        assert!(find(dir.path(), "203.0.113.21".parse().unwrap(), Timestamp::UNIX_EPOCH).is_err());
        std::fs::write(timed::table(dir.path()), "203.0.113.0/24\n").unwrap();
        allowed[0].list = "office";
        write(dir.path(), &allowed, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(ask(dir.path(), "203.0.113.20", 0).as_deref(), Some("office"));
        let unreadable =
            find(dir.path(), "203.0.113.21".parse().unwrap(), Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(unreadable.path, timed::table(dir.path()));
    }
}
