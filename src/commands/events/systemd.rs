//! What the service manager is told, if there is one.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// The way to the service manager.
#[derive(Debug)]
pub(super) struct Systemd {
    ready: bool,
    /// How often it wants to hear of us, and when next.
    watchdog: Option<(Duration, Instant)>,
}

impl Systemd {
    pub(super) fn new(now: Instant) -> Self {
        let watchdog = sd_notify::watchdog_enabled().map(|limit| (limit / 2, now));
        Self { ready: false, watchdog }
    }

    /// How things are; the first time it is told, the service is ready.
    pub(super) fn status(&mut self, text: &str) {
        let status = NotifyState::Status(text);
        if self.ready {
            tell(&[status]);
        } else {
            self.ready = true;
            tell(&[NotifyState::Ready, status]);
        }
    }

    /// Says that we live, if it is time.
    pub(super) fn tick(&mut self, now: Instant) {
        if let Some((every, due)) = &mut self.watchdog
            && *due <= now
        {
            *due = now + *every;
            tell(&[NotifyState::Watchdog]);
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.watchdog.map(|(_, due)| due)
    }
}

/// The end has begun.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// That nobody listens is no error of ours.
fn tell(state: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(state);
}
