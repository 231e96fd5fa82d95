//! Whether the kernel takes the program: tried once, and remembered in the run directory until the host is booted, or another build or
//! other privileges try it.

use std::fs;
use std::path::{Path, PathBuf};

use aya::EbpfLoader;
use serde::{Deserialize, Serialize};

use super::program::{self, Program};
use super::{Fault, in_words};
use crate::state_file::{self, Durability};

/// No such file is longer.
const LONGEST: u64 = 1 << 16;

/// What came of it.
#[derive(Serialize, Deserialize)]
pub(super) struct Trial {
    /// Who tried what.
    of: String,
    /// What the kernel said, if it refused.
    pub(super) refusal: Option<String>,
}

fn path(run_dir: &Path) -> PathBuf {
    run_dir.join("bpf-trial.json")
}

/// The boot, the program, and our capabilities.
fn here() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default();
    format!("{} {:016x} {}", boot.trim(), program::fingerprint(), capabilities.trim())
}

/// What an earlier trial here came to.
pub(super) fn remembered(run_dir: &Path) -> Option<Trial> {
    let content = state_file::read_regular(&path(run_dir), LONGEST).ok()?;
    let trial: Trial = serde_json::from_slice(&content).ok()?;
    (trial.of == here()).then_some(trial)
}

/// Where it cannot be written down, it is tried again.
pub(super) fn remember(run_dir: &Path, refusal: Option<&str>) {
    let trial = Trial { of: here(), refusal: refusal.map(str::to_owned) };
    let content = serde_json::to_vec(&trial).expect("it is text");
    let _ = state_file::make_dir(run_dir, 0o755);
    let _ = state_file::replace(&path(run_dir), &content, Durability::Volatile);
}

/// The next who wants to know tries again.
pub fn forget(run_dir: &Path) {
    let _ = fs::remove_file(path(run_dir));
}

/// What the kernel says to the program, if it refuses it: tried, unless that is known. What only does not go at the moment is no refusal.
pub(super) fn refusal(run_dir: &Path) -> Option<String> {
    if let Some(known) = remembered(run_dir) {
        return known.refusal;
    }
    let refusal = match Program::load(&mut EbpfLoader::new()).map_err(in_words) {
        Ok(_) => None,
        Err(Fault::Impossible(why)) => Some(why),
        Err(Fault::Failed(_)) => return None,
    };
    remember(run_dir, refusal.as_deref());
    refusal
}
