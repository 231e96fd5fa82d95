//! The settings as they were confirmed: what `restore` brings back, whatever was written into the file since.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use super::Call;
use super::undo::Undo;
use crate::config::Config;
use crate::state_file::{self, Durability};

/// No settings file is longer, in bytes, with a line of ours.
const LONGEST: u64 = 1 << 20;

fn path(config: &Config) -> PathBuf {
    config.firewall_dir().join("confirmed.toml")
}

/// The settings that were confirmed, with the directories of today; `None` if none were.
pub(super) fn read(call: &Call) -> anyhow::Result<Option<Config>> {
    of(&call.config)
}

/// [`read`], for other tools.
pub(in crate::commands) fn of(config: &Config) -> anyhow::Result<Option<Config>> {
    let path = path(config);
    let content = match state_file::read_regular(&path, LONGEST) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    parse(config, &path, &content).map(Some)
}

/// Settings as they were applied, with the directories of today.
pub(super) fn parse(config: &Config, path: &Path, content: &[u8]) -> anyhow::Result<Config> {
    let applied = Config::parse(path, content)
        .map_err(|error| anyhow!("{error}; apply and confirm the settings once more"))?;
    let Config { state_dir, run_dir, log_dir, .. } = config.clone();
    Ok(Config { state_dir, run_dir, log_dir, ..applied })
}

/// Keeps those of an `apply`. This is the moment from which on it stays.
pub(super) fn write(call: &Call, undo: &Undo) -> anyhow::Result<()> {
    make_dir(call)?;
    let path = path(&call.config);
    let content = format!("{}{}", undo.settings, last_line(undo.id));
    state_file::replace(&path, content.as_bytes(), Durability::Durable)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Whether that `apply` was confirmed last, also if whoever did it was killed before he could say so elsewhere.
pub(super) fn is_of(call: &Call, id: u64) -> bool {
    let content = state_file::read_regular(&path(&call.config), LONGEST);
    content.is_ok_and(|content| content.ends_with(last_line(id).as_bytes()))
}

/// A comment, behind all that is counted in lines.
fn last_line(id: u64) -> String {
    format!("\n# confirmed: {id}\n")
}

/// From now on the sets of our rules are made at every boot: somebody may save the rules.
pub(super) fn make_dir(call: &Call) -> anyhow::Result<()> {
    let dir = call.config.firewall_dir();
    state_file::make_dir(&call.config.state_dir, 0o750)
        .and_then(|()| state_file::make_dir(&dir, 0o750))
        .with_context(|| format!("cannot make {}", dir.display()))
}

/// Forgets them.
pub(super) fn forget(call: &Call) -> anyhow::Result<()> {
    let path = path(&call.config);
    absent(std::fs::remove_file(&path)).with_context(|| format!("cannot remove {}", path.display()))
}

/// Nothing of ours is in the kernel any more.
pub(super) fn remove_dir(call: &Call) -> anyhow::Result<()> {
    let dir = call.config.firewall_dir();
    absent(std::fs::remove_dir_all(&dir)).with_context(|| format!("cannot remove {}", dir.display()))
}

/// What is not there need not be removed.
fn absent(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// What stands in the settings file now; nothing where there is none.
pub(super) fn settings(path: Option<&Path>) -> anyhow::Result<String> {
    let file = path.unwrap_or(Path::new(crate::config::DEFAULT_PATH));
    match state_file::read_regular(file, LONGEST - 64) {
        Ok(content) => Ok(String::from_utf8_lossy(&content).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_none() => Ok(String::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}
