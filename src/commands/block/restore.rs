//! `ringfence-block restore`: all that is still due is brought into the kernel.

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::Host;
use super::settle::{plan, settle};
use crate::exit::Exit;
use crate::ledger::Block;
use crate::matcher::strings;
use crate::state_file;

/// No file with blocks is longer, in bytes.
const LONGEST: u64 = 256 << 20;

/// The command line of `restore`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print what the kernel would be told; nothing is changed
    #[arg(long, conflicts_with = "file")]
    dry_run: bool,

    /// Blocks as `list --json` prints them, to be added to the ledger; `-`: standard input
    file: Option<PathBuf>,
}

pub(super) fn run(host: &Host, args: &Args) -> anyhow::Result<Exit> {
    let mut ledger = host.ledger()?;
    if args.dry_run {
        let active = ledger.active(host.now())?;
        io::stdout().lock().write_all(plan(host, &active)?.as_bytes())?;
        return Ok(Exit::Yes);
    }
    let mut added = None;
    if let Some(file) = &args.file {
        let blocks = read(file, host.now()).with_context(|| format!("cannot read {}", file.display()))?;
        let put = ledger.put(&blocks, host.config.block.max.get(), host.now())?;
        host.record_ends(&put.evicted, "made-way", &format!("max is {}", host.config.block.max.get()));
        added = Some(blocks.len());
    }
    let active = settle(host, &mut ledger)?;
    if let Some(added) = added {
        let detail = format!("{added} blocks");
        host.record("ledger", "restore", "by-hand", "file", &detail);
    }
    if io::stdout().is_terminal() {
        // A closed pipe is no error of ours.
        let _ = writeln!(io::stdout(), "{} blocks are in the kernel.", active.len());
    }
    Ok(Exit::Yes)
}

/// The blocks in a file that are not over yet. One that cannot be blocked is an error: nothing of the file is taken then.
fn read(file: &Path, now: i64) -> anyhow::Result<Vec<Block>> {
    let content = if file == Path::new("-") {
        let mut content = vec![];
        io::stdin().lock().take(LONGEST).read_to_end(&mut content)?;
        content
    } else {
        state_file::read_regular(file, LONGEST)?
    };
    let mut blocks: Vec<Block> = serde_json::from_slice(&content)?;
    for block in &blocks {
        strings::check(&block.offender.account).with_context(|| block.offender.to_string())?;
    }
    blocks.retain(|block| block.until > now);
    Ok(blocks)
}
