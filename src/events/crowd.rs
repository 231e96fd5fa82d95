//! Many different things of one kind within a time: accounts that one source tries, customers that fail all at once.

use std::collections::HashMap;
use std::hash::Hash;

use super::make_room;

/// So many keys are remembered; where there are more, all but the latest are forgotten.
const MAX_KEYS: usize = 10_000;

/// Values that differ, for each key, within a sliding window.
#[derive(Debug)]
pub struct Crowds<K, V> {
    /// Milliseconds.
    window: i64,
    /// So many are a crowd.
    least: usize,
    keys: HashMap<K, Seen<V>>,
}

#[derive(Debug)]
struct Seen<V> {
    /// With when each was last seen, in milliseconds since 1970; at most [`Crowds::least`] times four.
    values: Vec<(V, i64)>,
    /// When the crowd was last told of.
    told: Option<i64>,
}

impl<K: Eq + Hash, V: Eq> Crowds<K, V> {
    /// `least` different values within `window` milliseconds are a crowd.
    #[must_use]
    pub fn new(least: usize, window: i64) -> Self {
        Self { window, least, keys: HashMap::new() }
    }

    /// Adds a value at `now` (milliseconds since 1970). How many there are within the window, if they are a crowd that nobody
    /// was told of for a minute; at most four times as many as make one.
    pub fn add(&mut self, key: K, value: V, now: i64) -> Option<usize> {
        const AGAIN: i64 = 60_000;
        let since = now - self.window;
        make_room(&mut self.keys, &key, MAX_KEYS, |seen| seen.values.iter().any(|(_, at)| *at > since));
        let seen = self.keys.entry(key).or_insert_with(|| Seen { values: vec![], told: None });
        seen.values.retain(|(_, at)| *at > since);
        if let Some((_, at)) = seen.values.iter_mut().find(|(other, _)| *other == value) {
            *at = now;
        } else {
            if seen.values.len() >= self.least * 4 {
                seen.values.remove(0);
            }
            seen.values.push((value, now));
        }
        let is_news = seen.told.is_none_or(|told| now - told >= AGAIN);
        if seen.values.len() < self.least || !is_news {
            return None;
        }
        seen.told = Some(now);
        Some(seen.values.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    #[test]
    fn a_crowd_is_of_different_values_within_the_window() {
        let mut crowds = Crowds::new(3, 10 * MINUTE);
        let told: Vec<_> = ["a", "a", "b", "c", "d", "c"].map(|value| crowds.add(1, value, 0)).into();
        assert_eq!(told, [None, None, None, Some(3), None, None]);
        assert_eq!(crowds.add(2, "a", 0), None, "another key");
        assert_eq!(crowds.add(1, "e", MINUTE), Some(5), "again after a minute");
        assert_eq!(crowds.add(1, "f", 11 * MINUTE), None, "only e is left, and that is old");
        let spread: Vec<_> =
            (0..20).map(|n| crowds.add(3, if n % 2 == 0 { "a" } else { "b" }, n * MINUTE)).collect();
        assert!(spread.iter().all(Option::is_none), "two are none, however often");
    }

    #[test]
    fn memory_is_bounded() {
        let mut crowds = Crowds::new(5, MINUTE);
        for n in 0..100_000_u32 {
            crowds.add(n, n, 0);
            crowds.add(0, n, 0);
        }
        assert!(crowds.keys.len() <= MAX_KEYS);
        assert!(crowds.keys.values().all(|seen| seen.values.len() <= 20));
    }
}
