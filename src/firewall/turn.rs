//! One tool at a time changes the rules.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::state_file;

/// So long a process waits for its turn: less than fail2ban waits for us. Each takes milliseconds, if no other program holds the lock
/// of iptables.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for the turn to change rules of ours; it ends with the file.
pub fn take_turn(run_dir: &Path) -> anyhow::Result<File> {
    let path = run_dir.join("firewall.lock");
    let open = || {
        state_file::make_dir(run_dir, 0o755)?;
        state_file::open_own_for_update(&path, state_file::effective_user())
    };
    let file = open().with_context(|| format!("cannot open {} (this needs root)", path.display()))?;
    // The programs of iptables inherit it: if we are killed, the next of us waits until they are done.
    fcntl_setfd(&file, FdFlags::empty()).context("cannot hand down the lock")?;
    if !state_file::lock_within(&file, PATIENCE)? {
        bail!("another tool of Ringfence has been changing the rules for {} s", PATIENCE.as_secs());
    }
    Ok(file)
}
