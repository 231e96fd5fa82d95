//! `ringfence-block restore`: all that is still due is brought into the kernel.

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::ban::LONGEST as LONGEST_BLOCK;
use super::settle::{plan, settle};
use super::{Call, jail};
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

pub(super) fn run(call: &Call, args: &Args) -> anyhow::Result<Exit> {
    let mut ledger = call.ledger()?;
    if args.dry_run {
        let active = ledger.active(call.now())?;
        io::stdout().lock().write_all(plan(call, &active)?.as_bytes())?;
        return Ok(Exit::Yes);
    }
    let mut added = None;
    if let Some(file) = &args.file {
        let blocks = read(file, call.now()).with_context(|| format!("cannot read {}", file.display()))?;
        let put = ledger.put(&blocks, call.config.block.max.get(), call.now())?;
        added = Some((blocks.len(), put.evicted.len()));
    }
    let active = settle(call, &mut ledger)?;
    if let Some((added, evicted)) = added {
        // In one line: there may be a hundred thousand.
        let max = call.config.block.max.get();
        let detail = format!("{added} blocks; {evicted}, the oldest, had to make way (max is {max})");
        call.record("ledger", "restore", "by-hand", "file", &detail);
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
    for block in &mut blocks {
        strings::check(&block.offender.account).with_context(|| block.offender.to_string())?;
        if !block.jail.is_empty() {
            jail::checked(Some(&block.jail))?;
        }
        block.until = block.until.min(now.saturating_add(LONGEST_BLOCK));
    }
    blocks.retain(|block| block.until > now);
    Ok(blocks)
}
