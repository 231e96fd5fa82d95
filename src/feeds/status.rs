//! What became of each list in its last run, for `show` and for the next run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::store::Store;
use crate::config::ListName;

/// The file in the store.
const FILE: &str = "status.json";

/// What is remembered of the last runs. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Status {
    /// Of each list.
    pub lists: BTreeMap<ListName, ListStatus>,
    /// Why the lists could not be put together in the last run; empty if they were.
    pub refused: String,
    /// Which phones could not be found out in the last run; empty if all were.
    pub unknown: String,
    /// What else was odd.
    pub notes: Vec<String>,
}

/// What is remembered of one list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ListStatus {
    /// When its source was last asked.
    pub tried: i64,
    /// When its source last had a good copy, new or the same.
    pub confirmed: i64,
    /// Why the last answer was refused; empty if it was not.
    pub refused: String,
    /// The source is not asked before.
    pub not_before: i64,
    /// What was odd about the last good copy.
    pub notes: Vec<String>,
    /// Whom it would have blocked, who must not be.
    pub cut_out: Vec<String>,
}

impl Status {
    /// The last status; an empty one where there is none. Also where it is damaged, with a word about that: then every list
    /// is due.
    #[must_use]
    pub fn read(store: &Store) -> (Self, Option<String>) {
        match store.read_json(FILE) {
            Ok(status) => (status.unwrap_or_default(), None),
            Err(error) => {
                (Self::default(), Some(format!("what became of the lists is forgotten: {error:#}")))
            }
        }
    }

    /// Keeps it.
    pub fn write(&self, store: &Store) -> anyhow::Result<()> {
        store.write_json(FILE, self)
    }
}
