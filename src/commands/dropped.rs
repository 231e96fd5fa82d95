//! What the kernel dropped, written down by whoever reads its counters anyway. Whatever comes of it, he goes on with his work; what is
//! to be said about it, if anything is, concerns only those who come each minute.

use std::collections::HashMap;
use std::io;

use jiff::Timestamp;

use crate::config::{Config, Mode};
use crate::drops::{Counting, Met, Reason};
use crate::firewall::{Firewall, Tag};

const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Adds what these rules dropped since the last look. Only who has had the turn to change rules since before he read them may.
pub(super) fn by_rules(
    config: &Config,
    there: &Firewall,
    why: &HashMap<Tag, Reason>,
    mode: Mode,
) -> Option<String> {
    count(config, |counting| counting.rules(&there.counts(), |tag| why.get(&tag), mode == Mode::Observe))
}

/// Adds what the map of blocked accounts dropped since the last look. Only who has the turn may.
pub(super) fn by_map(config: &Config, met: Met) -> Option<String> {
    if met == Met::default() { None } else { count(config, |counting| counting.map(met)) }
}

fn count(config: &Config, add: impl FnOnce(&mut Counting<'_>)) -> Option<String> {
    let boot = std::fs::read_to_string(BOOT).unwrap_or_default();
    let write = || -> io::Result<Option<String>> {
        let mut counting = Counting::open(&config.state_dir, boot.trim(), Timestamp::now())?;
        add(&mut counting);
        counting.close()
    };
    match write() {
        Ok(lost) => lost.map(|lost| format!("the record of dropped packets: {lost}")),
        Err(error) => {
            let dir = config.state_dir.join("drops");
            let dir = dir.display();
            Some(format!(
                "dropped packets cannot be counted in {dir}: {error}; they are at the next call, if that is possible then"
            ))
        }
    }
}
