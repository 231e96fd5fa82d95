//! Known sources that begin to fail all at once: then it is the PBX that is in trouble, not they.

use std::net::IpAddr;

use super::{Recent, recent};

/// So many known sources do not begin to fail within [`WINDOW`] by chance ...
const LEAST: usize = 6;

/// ... and on a large host, nor does one of so many.
const SHARE: usize = 50;

/// Milliseconds.
pub const WINDOW: i64 = 60_000;

/// An alarm lasts so long, in milliseconds, after its cause was last there. That is as long as an alarm of `ringfence-block`.
const LASTS: i64 = 600_000;

/// Who failed within so many milliseconds does not begin to: on every large host, some phones fail for ever.
const HABIT: i64 = 3_600_000;

/// So many sources are remembered.
const MAX_SOURCES: usize = 10_000;

/// Whether there is an alarm.
#[derive(Debug)]
pub struct Alarm {
    /// Who failed within [`HABIT`]; who did so last stands last.
    failed: Recent<IpAddr, Source>,
    /// Those of them who began to within [`WINDOW`]; while there is an alarm, those who failed within it, and began to when it
    /// did or since. And when that was.
    failing: Recent<IpAddr, i64>,
    /// Since when there is one, and until when.
    lasts: Option<(i64, i64)>,
    told: Option<i64>,
}

/// Milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
struct Source {
    began: i64,
    last: i64,
}

impl Default for Alarm {
    fn default() -> Self {
        Self { failed: recent(MAX_SOURCES), failing: recent(MAX_SOURCES), lasts: None, told: None }
    }
}

impl Alarm {
    /// One of so many known sources has failed at `now` (milliseconds since 1970). How many fail, if that is an alarm that
    /// nobody was told of for ten minutes.
    pub fn failed(&mut self, source: IpAddr, of: usize, now: i64) -> Option<usize> {
        forget(&mut self.failed, |seen| seen.last <= now - HABIT);
        forget(&mut self.failing, |at| *at <= now - WINDOW);
        let began = self.failed.peek(&source).map(|seen| seen.began);
        self.failed.insert(source, Source { began: began.unwrap_or(now), last: now });
        let lasts = self.lasts.filter(|(_, until)| now < *until);
        if began.is_none_or(|began| lasts.is_some_and(|(since, _)| began > since - WINDOW)) {
            self.failing.insert(source, now);
        }
        let count = self.failing.len();
        if count < LEAST.max(of / SHARE) {
            return None;
        }
        self.lasts = Some((lasts.map_or(now, |(since, _)| since), now + LASTS));
        let is_news = self.told.is_none_or(|told| now - told >= LASTS);
        if is_news {
            self.told = Some(now);
        }
        is_news.then_some(count)
    }

    /// Whether there is one at `now` (milliseconds since 1970).
    #[must_use]
    pub fn is_on(&self, now: i64) -> bool {
        self.lasts.is_some_and(|(_, until)| now < until)
    }
}

/// Forgets those who were last seen long ago.
fn forget<V>(sources: &mut Recent<IpAddr, V>, is_old: impl Fn(&V) -> bool) {
    while sources.iter().next().is_some_and(|(_, seen)| is_old(seen)) {
        sources.remove_lru();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn source(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn it_is_of_many_who_begin_to_fail() {
        let mut alarm = Alarm::default();
        assert!((0..100).all(|n| alarm.failed(source(n % 5), 10, n.into()).is_none()), "five, however often");
        assert_eq!(alarm.failed(source(5), 10, MINUTE - 1), Some(6));
        assert!(alarm.is_on(MINUTE) && alarm.is_on(11 * MINUTE - 2) && !alarm.is_on(11 * MINUTE - 1));

        let mut alarm = Alarm::default();
        let told = (0..400).filter_map(|n| alarm.failed(source(n), 1_000, i64::from(n) * 3_200));
        assert_eq!(told.collect::<Vec<_>>(), [0; 0], "nineteen a minute, of a thousand");
        let told = (400..420).filter_map(|n| alarm.failed(source(n), 1_000, 400 * 3_200));
        assert_eq!(told.collect::<Vec<_>>(), [20]);
    }

    #[test]
    fn who_always_fails_is_no_alarm() {
        let mut alarm = Alarm::default();
        // Each of a hundred offices has a phone that fails every ten minutes: one more every three minutes.
        for minute in 0..1_000_u32 {
            for n in (0..100).filter(|n| minute >= n * 3 && (minute - n * 3).is_multiple_of(10)) {
                assert_eq!(alarm.failed(source(n), 100, i64::from(minute) * MINUTE), None, "{minute}");
            }
        }
    }

    #[test]
    fn it_lasts_as_long_as_they_fail() {
        let mut alarm = Alarm::default();
        let mut told = vec![];
        for minute in 0..60 {
            for n in 0..10 {
                let at = minute * MINUTE + i64::from(n);
                told.extend(alarm.failed(source(n), 10, at).map(|count| (minute, count)));
                assert_eq!(alarm.is_on(at), minute > 0 || n >= 5, "{minute}");
            }
        }
        assert_eq!(told, [(0, 6), (10, 10), (20, 10), (30, 10), (40, 10), (50, 10)]);
        // One of them goes on.
        assert!((60..80).all(|minute| alarm.failed(source(0), 10, minute * MINUTE).is_none()));
        assert!(alarm.is_on(69 * MINUTE) && !alarm.is_on(70 * MINUTE));
    }

    #[test]
    fn memory_is_bounded() {
        let mut alarm = Alarm::default();
        for n in 0..100_000 {
            alarm.failed(source(n), 0, 0);
        }
        assert!(alarm.failed.len() <= MAX_SOURCES && alarm.failing.len() <= MAX_SOURCES);
    }
}
