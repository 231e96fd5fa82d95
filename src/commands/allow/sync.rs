//! `ringfence-allow sync`: whom the kernel should know. Once a minute, by a timer.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::kernel::Seen;
use super::{Call, addresses, complain};
use crate::commands::{causes, say};
use crate::deadline::Deadline;
use crate::exit::Exit;
use crate::registrations::discovery::{self, Nothing};
use crate::registrations::{self, DAY, Found, Registry};

/// Reading all registrations takes no longer.
const TIME: Duration = Duration::from_secs(20);

pub(super) fn run(call: &Call) -> anyhow::Result<Exit> {
    let (exit, count) = sync(call)?;
    say(&format!("{} in the kernel's sets.", addresses(count)));
    Ok(exit)
}

/// How it ends, and how many addresses are in the sets.
pub(super) fn sync(call: &Call) -> anyhow::Result<(Exit, usize)> {
    let mut exit = Exit::Yes;
    let mut missing = |subject: &str, reason: &str, detail: &str| {
        complain(detail);
        call.record(subject, "keep", reason, "sync", detail);
        exit = Exit::No;
    };
    // First what is known already: after a boot, nobody waits for a database.
    let known = bring_in(call, &Found::default())?;
    let looked = look(call);
    let failure = match &looked {
        Ok(found) => (!found.failures.is_empty()).then(|| found.failures.join("; ")),
        // A host that has no FreeSWITCH, and had none, need not be told so every minute.
        Err(error) if error.is::<Nothing>() && known.phones == Some(0) => None,
        Err(error) => Some(causes(error)),
    };
    if let Some(failure) = failure {
        let seen = known.phones.map_or_else(|| "those in the kernel".to_owned(), addresses);
        missing(
            "registrations",
            "registrations-unreadable",
            &format!(
                "the registrations cannot be read ({failure}); {seen} seen registered within a day stay"
            ),
        );
    }
    if known.phones.is_none() {
        let detail = "phones seen registered within a day cannot be read: seen.table is damaged, or not ours; the next look at \
                      the registrations begins it anew";
        missing("registrations", "phones-unknown", detail);
    }
    let mut count = known.count;
    if let Ok(found) = looked
        && !found.registered.is_empty()
    {
        // A disk that takes nothing costs the memory only: the kernel hears it all the same.
        let _ = Registry::new(&call.config).remember(&found, Timestamp::now().as_millisecond());
        count = bring_in(call, &found)?.count;
    }
    Ok((exit, count))
}

/// What was brought in.
struct Known {
    /// How many addresses.
    count: usize,
    /// How many of them were seen registered within a day; `None` if that is not known.
    phones: Option<usize>,
}

/// Brings into the kernel who is allowed, who was seen, and who is registered now.
fn bring_in(call: &Call, live: &Found) -> anyhow::Result<Known> {
    let (mut book, now) = call.book()?;
    // Where it cannot be written down that something is over, the kernel has it in order all the same.
    let written = if call.observes() { Ok(()) } else { book.write(now) };
    let now = now.as_second();
    let seen = registrations::last_seen(&call.config.state_dir, now).ok();
    let mut ends: BTreeMap<IpAddr, i64> = book.ends(now);
    let mut until = |address: IpAddr, end: i64| {
        if !address.is_loopback() && !address.is_unspecified() {
            let known = ends.entry(address).or_insert(end);
            *known = end.max(*known);
        }
    };
    for (address, at) in seen.iter().flatten() {
        until(*address, at + DAY);
    }
    for address in live.registered.keys() {
        until(*address, now + DAY);
    }
    // Also where mode is observe: these sets block nobody, and without them the rules that observe would count phones.
    let mut kernel = Seen::open()?;
    kernel.put(&ends, now)?;
    if kernel.made && !ends.is_empty() {
        call.record("sets", "restore", "sets-were-gone", "kernel", &addresses(ends.len()));
    }
    written?;
    Ok(Known { count: ends.len(), phones: seen.map(|seen| seen.len()) })
}

fn look(call: &Call) -> anyhow::Result<Found> {
    let deadline = Deadline::after(Instant::now(), TIME);
    let source = discovery::discover(&call.config.registrations)?.source;
    source.everyone(Timestamp::now().as_second(), deadline)
}
