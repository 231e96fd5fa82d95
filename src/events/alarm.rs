//! Known sources that begin to fail all at once: then it is the PBX that is in trouble, not they.

use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;

use super::{Recent, forget, recent};

/// So many known sources do not begin to fail within [`WINDOW`] by chance ...
const LEAST: usize = 6;

/// ... and on a large host, nor does one of so many.
const SHARE: usize = 50;

/// Within this time.
pub const WINDOW: Duration = Duration::from_mins(1);

/// An alarm lasts so long after its cause was last there. That is as long as an alarm of `ringfence-block`.
const LASTS: Duration = Duration::from_mins(10);

/// No alarm lasts longer: by then an administrator has heard of it, and who has six addresses shall not keep it up for ever.
const LONGEST: Duration = Duration::from_hours(2);

/// Who failed within this time does not begin to: on every large host, some phones fail for ever.
const HABIT: Duration = Duration::from_hours(1);

/// So many sources are remembered.
const MAX_SOURCES: usize = 10_000;

/// Whether there is an alarm.
#[derive(Debug)]
pub struct Alarm {
    /// Who failed within [`HABIT`]; who did so last stands last.
    failed: Recent<IpNetwork, Source>,
    /// Those of them who began to within [`WINDOW`]; while there is an alarm, those who failed within it, and began to when it
    /// did or since. And when that was.
    failing: Recent<IpNetwork, Instant>,
    lasts: Option<Lasts>,
    told: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Source {
    began: Instant,
    last: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Lasts {
    since: Instant,
    until: Instant,
}

impl Default for Alarm {
    fn default() -> Self {
        Self { failed: recent(MAX_SOURCES), failing: recent(MAX_SOURCES), lasts: None, told: None }
    }
}

impl Alarm {
    /// One of so many known sources has failed. How many fail, if that is an alarm that nobody was told of for ten minutes.
    pub fn failed(&mut self, source: IpNetwork, of: usize, now: Instant) -> Option<usize> {
        let is_old = |at: Instant, after| now.saturating_duration_since(at) >= after;
        self.end(now);
        forget(&mut self.failed, |seen| is_old(seen.last, HABIT));
        forget(&mut self.failing, |at| is_old(*at, WINDOW));
        let began = self.failed.peek(&source).map(|seen| seen.began);
        self.failed.insert(source, Source { began: began.unwrap_or(now), last: now });
        if began.is_none_or(|began| self.lasts.is_some_and(|lasts| lasts.has(began))) {
            self.failing.insert(source, now);
        }
        let count = self.failing.len();
        if count < LEAST.max(of / SHARE) {
            return None;
        }
        let since = self.lasts.map_or(now, |lasts| lasts.since);
        self.lasts = Some(Lasts { since, until: (now + LASTS).min(since + LONGEST) });
        let is_news = self.told.is_none_or(|told| is_old(told, LASTS));
        if is_news {
            self.told = Some(now);
        }
        is_news.then_some(count)
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_on(&self, now: Instant) -> bool {
        self.lasts.is_some_and(|lasts| now < lasts.until)
    }

    /// Ends the alarm, if it is time. Where its cause has gone, those who failed for it made no habit of it, and it may come again.
    fn end(&mut self, now: Instant) {
        let Some(over) = self.lasts.take_if(|lasts| now >= lasts.until) else { return };
        self.failing.clear();
        if over.until < over.since + LONGEST {
            let others: Vec<_> = self.failed.drain().filter(|(_, seen)| !over.has(seen.began)).collect();
            self.failed.extend(others);
        }
    }
}

impl Lasts {
    /// Whether who began to fail then is part of it.
    fn has(self, began: Instant) -> bool {
        began + WINDOW > self.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);
    const MS: Duration = Duration::from_millis(1);

    fn source(number: u32) -> IpNetwork {
        std::net::IpAddr::V4(number.into()).into()
    }

    #[test]
    fn it_is_of_many_who_begin_to_fail() {
        let (mut alarm, start) = (Alarm::default(), Instant::now());
        assert!(
            (0..100).all(|n| alarm.failed(source(n % 5), 10, start + MS * n).is_none()),
            "five, however often"
        );
        assert_eq!(alarm.failed(source(5), 10, start + MS * 59_999), Some(6));
        assert!(alarm.is_on(start + MS * 659_998) && !alarm.is_on(start + MS * 659_999));

        let mut alarm = Alarm::default();
        let told = (0..400).filter_map(|n| alarm.failed(source(n), 1_000, start + MS * n * 3_200));
        assert_eq!(told.collect::<Vec<_>>(), [0; 0], "nineteen a minute, of a thousand");
        let told = (400..420).filter_map(|n| alarm.failed(source(n), 1_000, start + MS * 400 * 3_200));
        assert_eq!(told.collect::<Vec<_>>(), [20]);
    }

    #[test]
    fn who_always_fails_is_no_alarm() {
        let (mut alarm, start) = (Alarm::default(), Instant::now());
        // Each of a hundred offices has a phone that fails every ten minutes: one more every three minutes.
        for minute in 0..1_000_u32 {
            for n in (0..100).filter(|n| minute >= n * 3 && (minute - n * 3).is_multiple_of(10)) {
                assert_eq!(alarm.failed(source(n), 100, start + MINUTE * minute), None, "{minute}");
            }
        }
    }

    #[test]
    fn it_lasts_as_long_as_they_fail_but_not_for_ever() {
        let (mut alarm, start) = (Alarm::default(), Instant::now());
        let mut told = vec![];
        for minute in 0..300 {
            for n in 0..10 {
                let at = start + MINUTE * minute + MS * n;
                told.extend(alarm.failed(source(n), 10, at).map(|count| (minute, count)));
                let lasts = at >= start + MS * 5 && at < start + MS * 5 + LONGEST;
                assert_eq!(alarm.is_on(at), lasts, "{minute}");
            }
        }
        let again: Vec<_> = (1..12).map(|ten| (ten * 10, 10)).collect();
        assert_eq!(told, [vec![(0, 6)], again].concat());
    }

    #[test]
    fn it_ends_ten_minutes_after_its_cause_and_may_come_again() {
        let (mut alarm, start) = (Alarm::default(), Instant::now());
        let mut fail = |minute, sources| {
            let told =
                (0..sources).filter_map(|n| alarm.failed(source(n), 100, start + MINUTE * minute)).count();
            (told, alarm.is_on(start + MINUTE * minute))
        };
        assert_eq!(fail(0, 100), (1, true));
        for minute in 1..=10 {
            assert_eq!(fail(minute, 5), (0, minute < 10), "five go on");
        }
        assert_eq!(fail(11, 5), (0, false));
        assert_eq!(fail(40, 100), (1, true), "a second time");
    }

    #[test]
    fn memory_is_bounded() {
        let (mut alarm, now) = (Alarm::default(), Instant::now());
        for n in 0..100_000 {
            alarm.failed(source(n), 0, now);
        }
        assert!(alarm.failed.len() <= MAX_SOURCES && alarm.failing.len() <= MAX_SOURCES);
    }
}
