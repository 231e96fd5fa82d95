//! `ringfence-block restore`: all that is still due is brought into the kernel.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::settle::{Settled, plan, settle};
use super::{Call, blocks, jail, list};
use crate::commands::say;
use crate::config::Mode;
use crate::exit::Exit;
use crate::ledger::{Block, LONGEST_BLOCK};
use crate::matcher::{Chosen, bpf, strings};
use crate::state_file;

/// No file with blocks is longer, in bytes.
const LONGEST: u64 = 256 << 20;

/// The command line of `restore`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print what the kernel would be told; nothing is changed
    ///
    /// That is what iptables-restore would be told, or whom the program would block in addition.
    #[arg(long)]
    pub(super) dry_run: bool,

    /// Blocks as `list --json` prints them, to be added to the ledger; `-`: standard input
    ///
    /// They are added unchecked.
    file: Option<PathBuf>,
}

pub(super) fn run(call: &Call, args: &Args) -> anyhow::Result<Exit> {
    let new = match &args.file {
        Some(file) => read(call, file).with_context(|| match file.to_str() {
            Some("-") => "cannot read standard input as list --json prints it".to_owned(),
            _ => format!("cannot read {} as list --json prints it", file.display()),
        })?,
        None => vec![],
    };
    if args.dry_run {
        let mut active = list::active(call)?;
        active.extend(new);
        io::stdout().lock().write_all(plan(call, &active)?.as_bytes())?;
        return Ok(Exit::Yes);
    }
    let mut ledger = call.ledger()?;
    if !new.is_empty() {
        ledger.put(&new, call.now())?;
        call.record("blocks", "restore", "by-hand", "file", &blocks(new.len() as u64));
    }
    // Who asks for it wants it tried again.
    bpf::forget(&call.config.run_dir);
    let Settled { active, held, .. } = settle(call, &mut ledger)?;
    held.complain(call);
    let count = blocks(active.len() as u64);
    say(&match call.config.block_mode() {
        Mode::Enforce => format!("{count} in the kernel.{}", list::matched_by(call, held.by.as_ref())),
        Mode::Observe => format!("{count} in the ledger, and none in the kernel: mode is observe."),
    });
    Ok(Exit::Yes)
}

/// The blocks in a file that are not over yet. One that cannot be blocked is an error: nothing of the file is taken then.
fn read(call: &Call, file: &Path) -> anyhow::Result<Vec<Block>> {
    let content = if file == Path::new("-") {
        let mut content = vec![];
        io::stdin().lock().take(LONGEST).read_to_end(&mut content)?;
        content
    } else {
        state_file::read_regular(file, LONGEST)?
    };
    let now = call.now();
    let mut blocks: Vec<Block> = serde_json::from_slice(&content)?;
    for block in &mut blocks {
        if *call.chosen() != Chosen::Bpf {
            strings::check(&block.offender.account).with_context(|| block.offender.to_string())?;
        }
        if !block.jail.is_empty() {
            jail::checked(Some(&block.jail))?;
        }
        block.since = block.since.clamp(0, now);
        block.until = block.until.min(now.saturating_add(LONGEST_BLOCK));
    }
    blocks.retain(|block| block.until > now);
    Ok(blocks)
}
