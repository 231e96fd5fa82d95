//! What an `apply` would take back: written down before anything is changed.

use std::io;
use std::path::PathBuf;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::wanted::Wanted;
use super::{Call, confirmed};
use crate::config::Config;
use crate::firewall::{Firewall, Kept, order};
use crate::kernel_sets::{self, Ipset};
use crate::state_file::{self, Durability};

/// No such file is longer, in bytes.
const LONGEST: u64 = 16 << 20;

/// An `apply`, and the way back from it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Undo {
    /// Tells it from others.
    pub(super) id: u64,
    /// Seconds since 1970: after that it is taken back.
    pub(super) until: i64,
    /// It stays.
    pub(super) confirmed: bool,
    /// The settings by which it was made.
    pub(super) settings: String,
    /// What was there.
    pub(super) kept: Kept,
}

impl Undo {
    fn path(call: &Call) -> PathBuf {
        call.run_dir().join("firewall.undo")
    }

    /// The last one; `None` where nothing waits for its confirmation.
    pub(super) fn read(call: &Call) -> anyhow::Result<Option<Self>> {
        let waits = |undo: &Self| !undo.confirmed && !confirmed::is_of(call, undo.id);
        Ok(Self::last(call)?.filter(waits))
    }

    /// The last one, whatever became of it.
    pub(super) fn last(call: &Call) -> anyhow::Result<Option<Self>> {
        let path = Self::path(call);
        match state_file::read_regular(&path, LONGEST) {
            Ok(content) => serde_json::from_slice(&content)
                .map(Some)
                .with_context(|| format!("{} is damaged; remove it", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Whether it was confirmed, or ended otherwise. What was wiped away was not.
    pub(super) fn is_over(call: &Call, id: u64) -> bool {
        let there = state_file::read_regular(&Self::path(call), LONGEST).ok();
        let there = there.and_then(|content| serde_json::from_slice::<Self>(&content).ok());
        there.is_some_and(|there| there.id != id || there.confirmed) || confirmed::is_of(call, id)
    }

    pub(super) fn write(&self, call: &Call) -> anyhow::Result<()> {
        let path = Self::path(call);
        state_file::make_dir(call.run_dir(), 0o755)
            .and_then(|()| state_file::replace(&path, &serde_json::to_vec(self)?, Durability::Volatile))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// The settings by which it was made.
    pub(super) fn config(&self, call: &Call) -> anyhow::Result<Config> {
        confirmed::parse(&call.config, &Self::path(call), self.settings.as_bytes())
    }

    /// Its file says that it is over.
    pub(super) fn end(mut self, call: &Call) -> anyhow::Result<()> {
        self.confirmed = true;
        self.write(call)
    }

    /// Brings back what was there. Only who has the turn may.
    pub(super) fn take_back(self, call: &Call, reason: &str) -> anyhow::Result<()> {
        Firewall::read()?
            .bring_in_together(|version| self.kept.layout(version))
            .context("cannot take the rules back")?;
        sets_of_before(call)?;
        call.record("rules", "take back", reason, "");
        self.end(call)
    }
}

/// Rules of before go with the ports of before, and with none of our sets if there were none.
pub(super) fn sets_of_before(call: &Call) -> anyhow::Result<()> {
    match confirmed::read(call)? {
        Some(config) => Wanted::new(&config, &Firewall::read()?, call.now)?.prepare_sets(),
        None => release_sets(call),
    }
}

/// Removes the sets that nothing of ours needs any more.
pub(super) fn release_sets(call: &Call) -> anyhow::Result<()> {
    let left = match Ipset::open() {
        Ok(mut kernel) => kernel_sets::remove_standing(&mut kernel),
        // Without ipset there are none.
        Err(_) => vec![],
    };
    if !left.is_empty() {
        super::complain(&format!("left, since another rule names them: {}", left.join(", ")));
    }
    confirmed::remove_dir(call)
}

/// Takes back what nobody confirmed in time and nobody took back: its watch was killed, or the clock was set. Only who has the turn
/// may.
pub(super) fn sweep(call: &Call) -> anyhow::Result<bool> {
    // The watch comes first, if there is one.
    const GRACE: i64 = 5;
    let Some(undo) = Undo::read(call)? else { return Ok(false) };
    if undo.until + GRACE > call.now.as_second() {
        return Ok(false);
    }
    undo.take_back(call, "not-confirmed")?;
    Ok(true)
}

/// What the owner of our chains has in the kernel.
pub(super) fn keep(there: &Firewall) -> Kept {
    there.keep(order::PREFIX)
}
