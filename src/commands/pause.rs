//! A pause of all our blocking, as every tool that changes rules has to know of it.

use jiff::Timestamp;

use super::record;
use super::screen::span;
use crate::config::Config;
use crate::evidence::Decision;
use crate::firewall::{self, BANS, Firewall, order};
use crate::matcher::strings;
use crate::pause::Pause;

/// What the names of all chains of ours begin with.
pub(super) const OWNERS: [&str; 3] = [BANS, order::PREFIX, strings::PREFIX];

/// Whether there is a pause, for who changes rules; ask before they are read. Whoever finds first that it is over says so, and takes
/// away what it left. Only who has the turn may.
pub(super) fn now(config: &Config) -> Pause {
    let now = Timestamp::now();
    // Who makes rules takes away his own, too, but would call it a repair. Without success, the next one tries again.
    if Pause::is_news(&config.run_dir, now) && take_away().and_then(|()| Pause::tell(&config.run_dir)).is_ok()
    {
        journal(config, "resumed", "time-over", "", now);
    }
    look(config)
}

fn take_away() -> anyhow::Result<()> {
    if !firewall::is_installed() {
        // There can be no rules.
        return Ok(());
    }
    Firewall::read()?.pause(&OWNERS, Pause::Not, Pause::Not).map(drop)
}

/// The same for who only looks. A file that cannot be read means no pause; `ringfence status` says so.
pub(super) fn look(config: &Config) -> Pause {
    Pause::read(&config.run_dir, Timestamp::now()).unwrap_or(Pause::Not)
}

/// What there is to say about it; nothing without one.
pub(super) fn words(config: &Config) -> Option<String> {
    Some(sentence(look(config).until()?, Timestamp::now()))
}

/// The same of one that lasts until then, in seconds since 1970.
pub(super) fn sentence(until: i64, now: Timestamp) -> String {
    let end = Timestamp::from_second(until).unwrap_or_default().strftime("%F %T UTC");
    format!("Paused until {end} ({}): nothing of Ringfence blocks anybody.", span(until - now.as_second()))
}

/// Leaves evidence that nothing of ours blocks any more, or that it does again.
pub(super) fn journal(config: &Config, decision: &str, reason: &str, detail: &str, now: Timestamp) {
    let decision = Decision::new(super::ringfence::TOOL, "everything", decision, reason, "pause");
    record(config, &decision.with_detail(detail), now);
}
