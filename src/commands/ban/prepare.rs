//! `ringfence-ban prepare`: a rule that names a set cannot be restored without it.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use anyhow::Context;

use super::{complain, kernel};
use crate::exit::Exit;
use crate::firewall::SAVED;
use crate::kernel_sets::{self, Banned};
use crate::state_file;

/// What the names of all our sets begin with.
const OURS: &str = "rf-";

/// The command line of `prepare`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Saved rules [default: those of netfilter-persistent and of Red Hat's services]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Whoever saved the host's rules saved ours, too. The sets of jails stay empty until fail2ban starts these: nobody is banned by what was
/// saved. The settings are not asked: with a mistake in them, the rules of the host are restored all the same.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    const LONGEST: u64 = 64 << 20;
    let usual = args.files.is_empty();
    let files = if usual { SAVED.map(PathBuf::from).to_vec() } else { args.files.clone() };
    let mut named = BTreeSet::new();
    for file in &files {
        match state_file::read_regular(file, LONGEST) {
            Ok(content) => {
                let text = String::from_utf8_lossy(&content);
                named
                    .extend(text.split_whitespace().filter(|word| word.starts_with(OURS)).map(str::to_owned));
            }
            Err(error) if usual && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => complain(&format!("cannot read {}: {error}", file.display())),
        }
    }
    if named.is_empty() {
        return Ok(Exit::Yes);
    }
    let mut kernel = kernel()?;
    // One that cannot be made does not keep the others from it.
    let mut made = kernel_sets::make_named(&mut kernel, named.iter().map(String::as_str));
    let jails: BTreeSet<_> = named.iter().filter_map(|name| Banned::with_set(name)).collect();
    for sets in jails {
        made = made.and(sets.make(&mut kernel).map(drop));
    }
    made.context("saved rules name sets that cannot be made")?;
    Ok(Exit::Yes)
}
