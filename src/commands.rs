//! What each tool does: its command line and its `run`.

use std::path::Path;

use clap::Parser;
use jiff::Timestamp;

use crate::config::Config;
use crate::evidence::{Decision, Journal};
use crate::exit::Exit;

pub mod ignore;
pub mod lists;
mod screen;

const SYSLOG: &str = "/dev/log";

/// The command line, or how to leave after help, version or an error was printed.
fn parse<A: Parser>() -> Result<A, Exit> {
    A::try_parse().map_err(|message| {
        // A closed pipe is no error of ours.
        let _ = message.print();
        if message.use_stderr() { Exit::Broken } else { Exit::Yes }
    })
}

/// Leaves evidence of a decision. A journal that cannot be written to says so in syslog; the decision stands.
fn record(config: &Config, decision: &Decision, now: Timestamp) {
    let _ = Journal::new(&config.log_dir, &config.run_dir, Path::new(SYSLOG)).record(decision, now);
}
