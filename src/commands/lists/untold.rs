//! Evidence that a download without privileges cannot write down: it leaves it in the store, and the load writes it.

use jiff::Timestamp;

use super::TOOL;
use crate::commands::{record, write_down};
use crate::config::Config;
use crate::evidence::Decision;
use crate::feeds::store::Store;

/// The file in the store: decisions, and when they were taken, in seconds since 1970.
const FILE: &str = "untold.json";

/// More are not left to a load.
const MAX: usize = 200;

type Untold = Vec<(i64, Decision)>;

/// Leaves evidence, here or in the store.
pub(super) fn record_or_leave(config: &Config, store: &Store, decisions: Vec<Decision>, now: Timestamp) {
    let untold: Untold = decisions
        .into_iter()
        .filter(|decision| write_down(config, decision, now).is_err())
        .map(|decision| (now.as_second(), decision))
        .collect();
    if untold.is_empty() {
        return;
    }
    let mut all: Untold = store.read_json(FILE).unwrap_or_default().unwrap_or_default();
    all.extend(untold);
    let surplus = all.len().saturating_sub(MAX);
    all.drain(..surplus);
    // The decisions stand all the same, and were said.
    let _ = store.write_json(FILE, &all);
}

/// Writes down what was left. Who downloads may say what he likes, but not in another's name.
pub(super) fn tell(config: &Config, store: &Store) {
    let Ok(Some(untold)) = store.read_json::<Untold>(FILE) else { return };
    for (when, decision) in untold.into_iter().take(MAX) {
        let decision = Decision { tool: TOOL.to_owned(), source: "lists".to_owned(), ..decision };
        record(config, &decision, Timestamp::from_second(when).unwrap_or_default());
    }
    // Where it stays, it is told again.
    let _ = store.remove(FILE);
}
