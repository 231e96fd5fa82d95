//! What FreeSWITCH tells of registrations and logins, and the log that is made of it.
//!
//! [`event`] reads what comes from the event socket, [`refusals`] makes one failure of the events that tell of it,
//! [`registrations`] is about all that went well, and [`line`](mod@line) is the log's format. [`watch`] does all that, and
//! counts who does too much of it ([`flood`], [`crowd`]). [`log`](mod@log) writes the lines, and [`known`] finds out which
//! accounts exist; only they have threads of their own. Nothing here knows the time of day, or waits.

use std::collections::HashMap;
use std::hash::Hash;

pub mod crowd;
pub mod event;
pub mod flood;
pub mod known;
pub mod line;
pub mod log;
pub mod refusals;
pub mod registrations;
pub mod watch;

/// Makes room for a key where the map has `max` others: what does not `count` any more is forgotten, and everything if that is not enough.
fn make_room<K: Eq + Hash, V>(map: &mut HashMap<K, V>, key: &K, max: usize, counts: impl Fn(&V) -> bool) {
    if map.len() < max || map.contains_key(key) {
        return;
    }
    map.retain(|_, value| counts(value));
    if map.len() >= max {
        map.clear();
    }
}

#[cfg(test)]
mod tests;
