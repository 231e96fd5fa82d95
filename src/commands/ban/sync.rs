//! `ringfence-ban sync`: the kernel holds what fail2ban remembers, whatever happened to either.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::address::OfHost;
use super::remembered::remembered;
use super::{Call, complain, kernel};
use crate::bans as book;
use crate::commands::causes;
use crate::deadline::Deadline;
use crate::exit::Exit;
use crate::fail2ban::{self, Ban};
use crate::firewall::take_turn;

/// So long fail2ban may take to say whom it bans, and so long its database, for all jails together: a ban waits for us.
const PATIENCE: Duration = Duration::from_secs(10);
const READING: Duration = Duration::from_secs(2);

/// Seconds after a jail's start, within which fail2ban may still be taking up those whom it restores.
const RESTORING: i64 = 60;

/// Whom fail2ban remembers and bans is banned again, for what is left. Who was remembered and is so no longer was let go, perhaps
/// without a word: for those whom it restored, fail2ban calls no action until the jail bans somebody anew. And its database has
/// those too whom it did not restore, as they are exempt or a ban of its jail is shorter by now; so it is asked as well.
///
/// Without a list of the jails nothing is changed: the rules would go.
pub(super) fn run(call: &Call) -> anyhow::Result<Exit> {
    if !book::path(&call.config.run_dir).exists() {
        return Ok(Exit::Yes);
    }
    // Before it is our turn: fail2ban answers nobody while it waits for an action of its own that waits for its turn.
    let asked = Timestamp::now().as_second();
    let held = if book::read(&call.config.run_dir)?.is_empty() {
        Ok(None)
    } else {
        fail2ban::held(&call.config.fail2ban.socket, PATIENCE)
    };
    let _turn = take_turn(&call.config.run_dir)?;
    let (mut jails, mut kernel) = (book::read(&call.config.run_dir)?, kernel()?);
    let repaired = call.settle(&jails, &mut kernel)?;
    let (mut changed, mut unknown) = (false, held.as_ref().err().map(causes));
    let (of_host, deadline) = (OfHost::look(), Deadline::after(Instant::now(), READING));
    for jail in &mut jails {
        let banned = jail.banned();
        if banned.count(&mut kernel).is_err() {
            // Settling said so.
            continue;
        }
        let held = held.as_ref().ok().and_then(Option::as_ref);
        let held = held.and_then(|held| jail.names().find_map(|name| held.get(name)));
        let held = held.filter(|_| asked - jail.started > RESTORING);
        let counts = |ban: &Ban, network| match held {
            // What it bans since is not in its answer.
            Some(held) => held.contains(&ban.id) || ban.is_since(asked - 1),
            // Whom the start left out, fail2ban may not restore either.
            None => jail.remembered.contains(&network) || ban.is_since(jail.started),
        };
        match remembered(call, jail, &of_host, deadline, counts) {
            // fail2ban may have none, and still ban.
            Ok(None) => {}
            Ok(Some(entries)) => {
                let there: BTreeSet<_> = entries.iter().map(|(network, _)| *network).collect();
                banned.put(&mut kernel, entries)?;
                banned.take_out(&mut kernel, jail.remembered.difference(&there).copied())?;
                changed |= jail.remembered != there;
                jail.remembered = there;
            }
            Err(error) => {
                unknown = Some(causes(&error));
                break;
            }
        }
    }
    if changed {
        book::write(&call.config.run_dir, &jails)?;
    }
    if !repaired.is_empty() {
        call.record("bans", "repair", "missing", "kernel", &repaired.join(", "));
    }
    let Some(why) = unknown else { return Ok(Exit::Yes) };
    complain(&format!("{why}; whom fail2ban let go meanwhile stays banned for his time"));
    Ok(Exit::No)
}
