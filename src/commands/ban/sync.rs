//! `ringfence-ban sync`: the kernel holds what fail2ban remembers, whatever happened to either.

use std::collections::BTreeSet;

use super::jail::remembered;
use super::{Call, complain, kernel};
use crate::bans as book;
use crate::commands::causes;
use crate::exit::Exit;
use crate::firewall::take_turn;

/// Whom fail2ban remembers is banned again, for what is left. Who was remembered and is no longer was let go, perhaps without a word:
/// for those whom it restored, fail2ban calls no action until the jail bans somebody anew.
///
/// Without a list of the jails nothing is changed: the rules would go.
pub(super) fn run(call: &Call) -> anyhow::Result<Exit> {
    if !book::path(&call.config.run_dir).exists() {
        return Ok(Exit::Yes);
    }
    let _turn = take_turn(&call.config.run_dir)?;
    let (mut jails, mut kernel) = (book::read(&call.config.run_dir)?, kernel()?);
    let repaired = call.settle(&jails, &mut kernel)?;
    let (mut changed, mut unknown) = (false, None);
    for jail in &mut jails {
        let banned = jail.banned();
        if banned.count(&mut kernel).is_err() {
            // Settling said so.
            continue;
        }
        match remembered(call, &jail.name) {
            // fail2ban may have none, and still ban.
            Ok(None) => {}
            Ok(Some(entries)) => {
                let there: BTreeSet<_> = entries.iter().map(|(network, _)| *network).collect();
                banned.put(&mut kernel, entries)?;
                banned.take_out(&mut kernel, jail.remembered.difference(&there).copied())?;
                changed |= jail.remembered != there;
                jail.remembered = there;
            }
            Err(error) => unknown = Some(causes(&error)),
        }
    }
    if changed {
        book::write(&call.config.run_dir, &jails)?;
    }
    if !repaired.is_empty() {
        call.record("bans", "repair", "missing", "kernel", &repaired.join(", "));
    }
    let Some(why) = unknown else { return Ok(Exit::Yes) };
    complain(&format!("{why}; whom it let go meanwhile stays banned for his time"));
    Ok(Exit::No)
}
