//! `ringfence-ban prepare`: a rule that names a set cannot be restored without it.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use anyhow::Context;

use super::{complain, kernel};
use crate::exit::Exit;
use crate::firewall::SAVED;
use crate::kernel_sets::Banned;
use crate::state_file;

/// The command line of `prepare`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Saved rules [default: those of netfilter-persistent and of Red Hat's services]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Whoever saved the host's rules saved ours, too. Their sets stay empty until fail2ban starts the jails: nobody is banned by what was
/// saved.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    const LONGEST: u64 = 64 << 20;
    let usual = args.files.is_empty();
    let files = if usual { SAVED.map(PathBuf::from).to_vec() } else { args.files.clone() };
    let mut named = BTreeSet::new();
    for file in &files {
        match state_file::read_regular(file, LONGEST) {
            Ok(content) => {
                let text = String::from_utf8_lossy(&content);
                named.extend(text.split_whitespace().filter_map(Banned::with_set));
            }
            Err(error) if usual && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => complain(&format!("cannot read {}: {error}", file.display())),
        }
    }
    if named.is_empty() {
        return Ok(Exit::Yes);
    }
    let mut kernel = kernel()?;
    for sets in named {
        sets.make(&mut kernel).context("saved rules name sets that cannot be made")?;
    }
    Ok(Exit::Yes)
}
