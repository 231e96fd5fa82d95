//! The lists that ports are restricted to, for `ringfence-lists load` and for the firewall.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::session;
use crate::address_set::AddressSet;
use crate::commands::firewall::confirmed;
use crate::config::{Config, ListName};
use crate::feeds::store::Store;

/// What the last good copies of these lists hold; nothing for a list that has none.
///
/// An error says which list of `firewall.restrict` there is not.
pub(in crate::commands) fn read(
    config: &Config,
    store: &Store,
    now: Timestamp,
) -> Result<BTreeMap<ListName, AddressSet>, String> {
    let named = config.firewall.restricted_to(&config.lists)?;
    let lists = session::with_carriers(config, true);
    let named = named.into_iter().flatten();
    let lists =
        named.filter_map(|name| lists.get_key_value(&name).map(|(name, list)| (name.clone(), list.clone())));
    let lists: BTreeMap<_, _> = lists.collect();
    let now = u32::try_from(now.as_second()).unwrap_or(u32::MAX);
    let (copies, _) = session::read_copies(store, &lists, now);
    let set = |name| copies.get(name).map_or_else(AddressSet::default, |copy| copy.set());
    Ok(lists.keys().map(|name| (name.clone(), set(name))).collect())
}

/// [`read`], and those of the rules that were confirmed, though the settings name others by now: somebody may have saved these rules.
/// What is wrong with one of the two is in the second result.
pub(super) fn read_all(
    config: &Config,
    store: &Store,
    now: Timestamp,
) -> (BTreeMap<ListName, AddressSet>, Vec<String>) {
    let confirmed = confirmed::of(config).map_err(|error| error.to_string());
    let (mut lists, mut problems) = (BTreeMap::new(), vec![]);
    for config in [confirmed, Ok(Some(config.clone()))] {
        let read = config.and_then(|config| {
            config.map_or_else(|| Ok(BTreeMap::new()), |config| read(&config, store, now))
        });
        match read {
            Ok(more) => lists.extend(more),
            Err(problem) => problems.push(problem),
        }
    }
    (lists, problems)
}
