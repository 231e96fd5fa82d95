//! What FreeSWITCH tells of registrations and logins, and the log that is made of it.
//!
//! [`event`] reads what comes from the event socket, [`refusals`] makes one failure of the events that tell of it,
//! [`registrations`] is about all that went well, and [`line`](mod@line) is the log's format. [`watch`] does all that, and
//! counts who does too much of it ([`flood`], [`spray`]), and whether it is the PBX that is in trouble ([`alarm`]).
//! [`log`](mod@log) writes the lines, and [`known`] finds out which accounts exist; only they have threads of their own.
//! Nothing here knows the time of day, or waits.

use std::hash::{Hash, RandomState};

use hashlink::LruCache;

pub mod alarm;
pub mod event;
pub mod flood;
pub mod known;
pub mod line;
pub mod log;
pub mod refusals;
pub mod registrations;
pub mod spray;
pub mod watch;

/// The keys that were used last, and what is known of them; hashed so that no stranger can choose keys that collide.
type Recent<K, V> = LruCache<K, V, RandomState>;

/// Remembers so many keys.
fn recent<K: Eq + Hash, V>(most: usize) -> Recent<K, V> {
    LruCache::with_hasher(most, RandomState::new())
}

/// Forgets those that are old; they were all used when they were new.
fn forget<K: Eq + Hash, V>(recent: &mut Recent<K, V>, is_old: impl Fn(&V) -> bool) {
    while recent.iter().next().is_some_and(|(_, value)| is_old(value)) {
        recent.remove_lru();
    }
}

#[cfg(test)]
mod tests;
