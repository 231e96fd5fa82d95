//! Whether the kernel takes the program: tried once, and remembered in the run directory, if it refuses, until the host is booted, or
//! another build tries it, or somebody with other privileges.

use std::fs;
use std::path::{Path, PathBuf};

use aya::EbpfLoader;
use serde::{Deserialize, Serialize};

use super::program::{self, Program};
use super::{Fault, in_words};
use crate::state_file::{self, Durability};

/// No such file is longer.
const LONGEST: u64 = 1 << 16;

/// A trial that was refused.
#[derive(Serialize, Deserialize)]
struct Trial {
    /// The boot and the program.
    of: String,
    /// Where it was refused for lack of them: the capabilities of who tried.
    lacking: Option<String>,
    /// What the kernel said.
    refusal: String,
}

fn path(run_dir: &Path) -> PathBuf {
    run_dir.join("bpf-trial.json")
}

fn here() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    format!("{} {:016x}", boot.trim(), program::fingerprint())
}

fn capabilities() -> String {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.unwrap_or_default().trim().to_owned()
}

/// What the kernel said to an earlier trial like ours that it refused.
pub(super) fn remembered(run_dir: &Path) -> Option<String> {
    let content = state_file::read_regular(&path(run_dir), LONGEST).ok()?;
    let trial: Trial = serde_json::from_slice(&content).ok()?;
    let like_ours = trial.of == here() && trial.lacking.is_none_or(|lacking| lacking == capabilities());
    like_ours.then_some(trial.refusal)
}

/// Only who has the turn may. What may go better next time is not remembered; where it cannot be written down, it is tried again.
pub(super) fn remember(run_dir: &Path, fault: &Fault) {
    let (lacking, refusal) = match fault {
        Fault::Impossible(why) => (None, why),
        Fault::Denied(why) => (Some(capabilities()), why),
        Fault::Failed(_) => return,
    };
    let trial = Trial { of: here(), lacking, refusal: refusal.clone() };
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
    remembered(run_dir).or_else(|| match Program::load(&mut EbpfLoader::new()).map_err(in_words) {
        Err(Fault::Impossible(why) | Fault::Denied(why)) => Some(why),
        Ok(_) | Err(Fault::Failed(_)) => None,
    })
}
