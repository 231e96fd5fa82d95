//! What an `apply` would take back: written down before anything is changed.

use std::io;
use std::path::PathBuf;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::wanted::Wanted;
use super::{Call, complain, confirmed};
use crate::commands::pause;
use crate::config::Config;
use crate::firewall::{Firewall, Kept, SAVED, order};
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
    /// The rules are there; before, nobody can have tried them.
    pub(super) complete: bool,
    /// It was confirmed, taken back or removed.
    pub(super) over: bool,
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
        let waits = |undo: &Self| !undo.over && !confirmed::is_of(call, undo.id);
        Ok(Self::last(call)?.filter(waits))
    }

    /// The last one, whatever became of it.
    pub(super) fn last(call: &Call) -> anyhow::Result<Option<Self>> {
        let path = Self::path(call);
        match state_file::read_regular(&path, LONGEST) {
            Ok(content) => match serde_json::from_slice(&content) {
                Ok(undo) => Ok(Some(undo)),
                Err(error) => {
                    // The watch knows it by heart, and nothing else may hang on it.
                    let aside = path.with_extension("undo.damaged");
                    complain(&format!(
                        "{} is damaged ({error}), and is now {}",
                        path.display(),
                        aside.display()
                    ));
                    std::fs::rename(&path, &aside).context("it cannot be moved aside")?;
                    Ok(None)
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Whether it was confirmed, or ended otherwise. What was wiped away was not.
    pub(super) fn is_over(call: &Call, id: u64) -> bool {
        let there = state_file::read_regular(&Self::path(call), LONGEST).ok();
        let there = there.and_then(|content| serde_json::from_slice::<Self>(&content).ok());
        there.is_some_and(|there| there.id != id || there.over) || confirmed::is_of(call, id)
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
        self.over = true;
        self.write(call)
    }

    /// Brings back what was there. Only who has the turn may.
    pub(super) fn take_back(self, call: &Call, reason: &str) -> anyhow::Result<()> {
        let pause = pause::now(&call.config);
        Firewall::read()?
            .bring_in_together(pause, |version| self.kept.layout(version))
            .context("cannot take the rules back")?;
        call.record("rules", "take back", reason, "");
        self.end(call)?;
        // Sets that nothing names do no harm.
        match sets_of_before(call) {
            Ok(None) => {}
            Ok(Some(note)) => complain(&note),
            Err(error) => complain(&format!("the sets are not as before: {error:#}")),
        }
        Ok(())
    }
}

/// Rules of before go with the ports of before, and with none of our sets if there were none.
pub(super) fn sets_of_before(call: &Call) -> anyhow::Result<Option<String>> {
    match confirmed::read(call)? {
        Some(config) => Wanted::new(&config, &Firewall::read()?, call.now)?.prepare_sets(call).map(|()| None),
        None => release_sets(call),
    }
}

/// Removes the sets that nothing of ours needs any more; what stays, and why, for people.
pub(super) fn release_sets(call: &Call) -> anyhow::Result<Option<String>> {
    // Saved rules that name a set cannot be loaded without it, and none of the others with them.
    let names_ours = |path: &&&str| {
        let text = std::fs::read_to_string(path);
        text.is_ok_and(|text| text.contains("--match-set rf-"))
    };
    if let Some(path) = SAVED.iter().find(names_ours) {
        return Ok(Some(format!(
            "{path} has saved rules that name our sets, so the sets stay; save the rules once more, and then remove again"
        )));
    }
    let left = match Ipset::open() {
        Ok(mut kernel) => kernel_sets::remove_standing(&mut kernel),
        // Without ipset there are none.
        Err(_) => vec![],
    };
    confirmed::remove_dir(call)?;
    Ok((!left.is_empty()).then(|| format!("left, since another rule names them: {}", left.join(", "))))
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
