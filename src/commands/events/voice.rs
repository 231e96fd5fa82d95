//! What an administrator is told on standard error, which the service manager keeps: each thing once.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use super::complain;
use super::worker::{Desk, Worker};

/// Things that go on are told of so often at most.
const AGAIN: Duration = Duration::from_mins(1);

/// So many lines may wait for who reads them.
const MAX_WAITING: usize = 64;

/// A thread that says things: who reads them may be slow, or hang.
pub(super) fn start() -> io::Result<Worker<String>> {
    Worker::start("voice", MAX_WAITING, |text: String| complain(&text))
}

/// Somebody who has something to say.
#[derive(Debug)]
pub(super) struct Voice {
    desk: Desk<String>,
    said: HashMap<&'static str, String>,
    counted: HashMap<&'static str, (Instant, u64)>,
}

impl Voice {
    pub(super) fn new(speaker: &Worker<String>) -> Self {
        Self { desk: speaker.desk(), said: HashMap::new(), counted: HashMap::new() }
    }

    /// Says something.
    pub(super) fn say(&self, text: String) -> bool {
        self.desk.offer(text)
    }

    /// Says what is wrong, unless it was the last thing said about the topic; whether all is well again.
    pub(super) fn about(&mut self, topic: &'static str, wrong: Option<String>) -> bool {
        let Some(wrong) = wrong else { return self.said.remove(topic).is_some() };
        if self.said.get(topic) != Some(&wrong) && self.say(wrong.clone()) {
            self.said.insert(topic, wrong);
        }
        false
    }

    /// Says something, unless something was said about the topic within the last minute.
    pub(super) fn now_and_then(&mut self, topic: &'static str, now: Instant, text: impl FnOnce() -> String) {
        let count = self.counted.get(topic).map_or(0, |(_, count)| *count);
        self.increase(topic, count + 1, now, |_| text());
    }

    /// Says by how much a count has increased, at most once a minute.
    pub(super) fn increase(
        &mut self,
        topic: &'static str,
        count: u64,
        now: Instant,
        text: impl FnOnce(u64) -> String,
    ) {
        let (last, told) = self.counted.get(topic).copied().unzip();
        let more = count - told.unwrap_or(0);
        let is_time = last.is_none_or(|last| now.saturating_duration_since(last) >= AGAIN);
        if more > 0 && is_time && self.say(text(more)) {
            self.counted.insert(topic, (now, count));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn each_thing_is_said_once() {
        let (heard, said) = mpsc::channel();
        let speaker =
            Worker::start("test", MAX_WAITING, move |text: String| heard.send(text).unwrap()).unwrap();
        let (mut voice, now) = (Voice::new(&speaker), Instant::now());
        for wrong in ["a", "a", "b", "a"] {
            assert!(!voice.about("disk", Some(wrong.to_owned())));
        }
        assert!(voice.about("disk", None) && !voice.about("disk", None));
        voice.about("disk", Some("a".to_owned()));
        for (count, second) in [(0, 0), (1, 0), (5, 59), (5, 60), (5, 120), (9, 121)] {
            voice.increase("lost", count, now + Duration::from_secs(second), |more| more.to_string());
        }
        for second in [0, 1, 60, 61] {
            voice.now_and_then("clock", now + Duration::from_secs(second), || format!("clock {second}"));
        }
        drop(voice);
        drop(speaker);
        assert_eq!(
            said.iter().collect::<Vec<_>>(),
            ["a", "b", "a", "a", "1", "4", "4", "clock 0", "clock 60"]
        );
    }

    #[test]
    fn what_nobody_takes_is_said_later() {
        let (heard, said) = mpsc::sync_channel(0);
        let speaker = Worker::start("test", 1, move |text: String| heard.send(text).unwrap()).unwrap();
        let mut voice = Voice::new(&speaker);
        // The first is taken sooner or later, and then there is room for one more.
        for _ in 0..2 {
            while !voice.say("x".to_owned()) {
                std::thread::yield_now();
            }
        }
        voice.about("disk", Some("full".to_owned()));
        assert_eq!((said.recv().as_deref(), said.recv().as_deref()), (Ok("x"), Ok("x")));
        voice.about("disk", Some("full".to_owned()));
        drop(voice);
        drop(speaker);
        assert_eq!(said.iter().collect::<Vec<_>>(), ["full"]);
    }
}
