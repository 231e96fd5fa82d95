//! `ringfence-lists fetch` and `refresh`.

use jiff::Timestamp;

use super::session::Session;
use super::{list_name, load, report};
use crate::config::{Config, ListName};
use crate::exit::Exit;
use crate::feeds::store::Store;

/// The command line of `refresh` and `fetch`.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Args {
    /// Ask for this list only (may be repeated); the others are used as they are
    ///
    /// It is asked for, due or not.
    #[arg(long, value_name = "NAME", value_parser = list_name)]
    pub(super) only: Vec<ListName>,
    /// Print what would change, and whom it would have blocked; change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Ask also for what is not due, and take lists that shrank or grew a lot
    ///
    /// What is asked for comes in full; a lot is more than the settings allow. `refresh` also fills the sets even if they hold
    /// the same already.
    #[arg(long)]
    pub(super) force: bool,
}

/// What follows a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Nothing: `fetch`.
    Stop,
    /// A load: `refresh`.
    Load,
}

pub(super) fn run(config: &Config, args: &Args, then: Then, now: Timestamp) -> anyhow::Result<Exit> {
    if args.dry_run {
        let store = Store::peek(&config.state_dir)?;
        let mut session = Session::ask(config, &store, args, now)?;
        session.compile();
        report::results(&session, true);
        report::refusals(&session);
        return Ok(session.exit());
    }
    let store = Store::open(&config.state_dir)?;
    let _lock = store.lock()?;
    let mut session = Session::ask(config, &store, args, now)?;
    session.compile();
    report::results(&session, false);
    report::refusals(&session);
    let kept = session.keep();
    if then == Then::Load {
        // Also where nothing new could be kept: what was there before comes back, if somebody took it away.
        let loaded = load::load(config, &store, args.force, now);
        kept.and(loaded.map(|_| ()))?;
    } else {
        kept?;
    }
    Ok(session.exit())
}
