//! The lists that an address is on, for `ringfence why`.

use std::net::IpAddr;

use jiff::Timestamp;

use super::Row;
use super::place::{Place, Places};
use crate::commands::lists::session;
use crate::config::Config;
use crate::config::lists::Kind;
use crate::diagnosis::{Allowed, Listed};
use crate::feeds::status::Status;
use crate::feeds::store::Store;

/// The lists that an address is on.
pub(in crate::commands) struct OnLists {
    pub(in crate::commands) block: Vec<Listed>,
    pub(in crate::commands) allow: Vec<Allowed>,
    /// Why it is not blocked though it is on a block list.
    pub(in crate::commands) because: Option<String>,
    /// Lists that cannot be read, and why.
    pub(in crate::commands) damaged: Vec<String>,
}

/// As their last good copies say.
pub(in crate::commands) fn of_address(
    config: &Config,
    address: IpAddr,
    now: Timestamp,
) -> anyhow::Result<OnLists> {
    let store = Store::peek(&config.state_dir)?;
    let rows = session::all_lists(config, &store)
        .into_iter()
        .map(|(name, list)| Row::read(name, list, &store))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let damaged =
        rows.iter().filter_map(|row| Some(format!("the list {}: {}", row.name, row.damaged.as_ref()?)));
    let damaged = damaged.collect();
    if rows.is_empty() {
        return Ok(OnLists { block: vec![], allow: vec![], because: None, damaged });
    }
    let Places { because, lists, .. } = Places::new(config, &store, &rows, address, now)?;
    let (status, _) = Status::read(&store);
    let (block, allow): (Vec<Place>, Vec<Place>) =
        lists.into_iter().partition(|place| place.kind == Kind::Block);
    let listed = |Place { name, range, since, observed, .. }: Place| Listed {
        confirmed: status.lists.get(&name).map(|list| list.confirmed).filter(|at| *at > 0),
        list: name.to_string(),
        range,
        since,
        observed,
    };
    let allowed = |Place { name, range, .. }: Place| Allowed {
        by: name.to_string(),
        range,
        until: None,
        because: String::new(),
    };
    Ok(OnLists {
        block: block.into_iter().map(listed).collect(),
        allow: allow.into_iter().map(allowed).collect(),
        because,
        damaged,
    })
}
