//! `ringfence-lists show`: all lists, or those that an address is on.

use std::net::IpAddr;

use jiff::Timestamp;

use super::session;
use crate::commands::{an_address, screen};
use crate::config::Config;
use crate::config::lists::{List, ListName};
use crate::exit::Exit;
use crate::feeds::copy::Copy;
use crate::feeds::store::Store;

mod of_address;
pub(in crate::commands) mod overview;
mod place;

pub(in crate::commands) use of_address::{OnLists, of_address};

/// The command line of `show`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The lists that have this address, since when, and what follows
    #[arg(value_parser = an_address)]
    address: Option<IpAddr>,
    /// Print JSON, with times as of RFC 3339
    #[arg(long)]
    json: bool,
}

pub(super) fn run(config: &Config, args: &Args, now: Timestamp) -> anyhow::Result<Exit> {
    let store = Store::peek(&config.state_dir)?;
    let rows = rows(config, &store)?;
    let Some(address) = args.address else {
        let overview = overview::Overview::new(config, &store, &rows);
        screen::print(args.json, &overview, || overview.render(now))?;
        return Ok(Exit::Yes);
    };
    let places = place::Places::new(config, &store, &rows, address, now)?;
    screen::print(args.json, &places, || places.render(now))?;
    Ok(if places.is_empty() { Exit::No } else { Exit::Yes })
}

/// All lists, for `ringfence status`.
pub(in crate::commands) fn overview(config: &Config) -> anyhow::Result<overview::Overview> {
    let store = Store::peek(&config.state_dir)?;
    Ok(overview::Overview::new(config, &store, &rows(config, &store)?))
}

fn rows(config: &Config, store: &Store) -> anyhow::Result<Vec<Row>> {
    let lists = session::all_lists(config, store).into_iter();
    lists.map(|(name, list)| Row::read(name, list, store)).collect()
}

/// A list and its last good copy.
struct Row {
    name: ListName,
    list: List,
    copy: Option<Copy>,
    damaged: Option<String>,
}

impl Row {
    fn read(name: ListName, list: List, store: &Store) -> anyhow::Result<Self> {
        Ok(match Copy::read(store, &name, &list) {
            Ok(copy) => Self { name, list, copy, damaged: None },
            Err(error) if Store::is_forbidden(&error) => return Err(error),
            Err(error) => Self { name, list, copy: None, damaged: Some(format!("{error:#}")) },
        })
    }
}
