//! What the service manager is told, if there is one.

use std::io;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::worker::Worker;

/// So much may wait for it.
const MAX_WAITING: usize = 8;

/// The way to the service manager.
#[derive(Debug)]
pub(super) struct Systemd {
    /// It may be slow to listen, too.
    teller: Worker<Notice>,
    ready: bool,
    /// How often it wants to hear of us, and when next.
    watchdog: Option<(Duration, Instant)>,
}

#[derive(Debug)]
enum Notice {
    Ready(String),
    Status(String),
    Alive,
    Stopping,
}

impl Systemd {
    pub(super) fn start(now: Instant) -> io::Result<Self> {
        let watchdog = sd_notify::watchdog_enabled().map(|limit| (limit / 2, now));
        let teller = Worker::start("systemd", MAX_WAITING, |notice: Notice| {
            // That nobody listens is no error of ours.
            let _ = match &notice {
                Notice::Ready(status) => {
                    sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)])
                }
                Notice::Status(status) => sd_notify::notify(&[NotifyState::Status(status)]),
                Notice::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
                Notice::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
            };
        })?;
        Ok(Self { teller, ready: false, watchdog })
    }

    /// How things are; the first time it is told, the service is ready.
    pub(super) fn status(&mut self, text: String) {
        let notice = if self.ready { Notice::Status(text) } else { Notice::Ready(text) };
        self.ready |= self.teller.offer(notice);
    }

    /// Says that we live, if it is time.
    pub(super) fn tick(&mut self, now: Instant) {
        if let Some((every, due)) = &mut self.watchdog
            && *due <= now
        {
            *due = now + *every;
            self.teller.offer(Notice::Alive);
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.watchdog.map(|(_, due)| due)
    }

    /// The end has begun.
    pub(super) fn stopping(&self) {
        self.teller.offer(Notice::Stopping);
    }

    /// Waits until all is told, but no longer than `patience`.
    pub(super) fn finish(self, patience: Duration) {
        self.teller.finish(patience);
    }
}
