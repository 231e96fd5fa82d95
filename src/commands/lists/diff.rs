//! `ringfence-lists diff`: what a download would change in a list.

use std::io::{self, Write};

use jiff::Timestamp;

use super::session::{Fate, Session};
use super::{TOOL, fetch, list_name};
use crate::address_set::{AddressRange, AddressSet};
use crate::config::{Config, ListName};
use crate::exit::Exit;
use crate::feeds::store::Store;

/// The command line of `diff`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The list
    #[arg(value_parser = list_name)]
    name: ListName,
}

/// Prints `-` and `+` before each network that the source no longer has, or has new.
pub(super) fn run(config: &Config, args: &Args, now: Timestamp) -> anyhow::Result<Exit> {
    let store = Store::peek(&config.state_dir)?;
    // Asked in full: what may have shrunk is just what one wants to see.
    let fetch = fetch::Args { only: vec![args.name.clone()], dry_run: true, force: true };
    let session = Session::ask(config, &store, &fetch, now)?;
    if let Some(Fate::Refused(why)) = session.fates.get(&args.name) {
        let _ = writeln!(io::stderr(), "{TOOL}: {}: refused: {why}", args.name);
        return Ok(Exit::No);
    }
    let set =
        |copies: &super::session::Copies| copies.get(&args.name).map(|copy| copy.set()).unwrap_or_default();
    let (before, after) = (set(&session.before), set(&session.after));
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut print = |sign: char, set: &AddressSet| {
        set.networks().try_for_each(|network| writeln!(out, "{sign}{}", AddressRange::from(network)))
    };
    print('-', &before.minus(&after))?;
    print('+', &after.minus(&before))?;
    out.flush()?;
    Ok(Exit::Yes)
}
