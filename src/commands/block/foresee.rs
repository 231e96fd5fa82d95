//! What a jail's block of an account that fails at an address would come to; nothing is written down, and nothing tried in the kernel.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;

use super::policy::{self, Request};
use super::{Call, list};
use crate::account::{Offender, SipAccount};
use crate::commands::causes;
use crate::config::block::Verify;
use crate::config::{Config, Mode};
use crate::fusionpbx::accounts::Existence;
use crate::ledger::{LONGEST_BLOCK, Ledger};

/// Whichever jail it is.
const A_JAIL: &str = "a jail";

/// What would come of it.
#[derive(Debug)]
pub(in crate::commands) struct Foresight {
    /// Whether the account exists; `None` where nobody says so.
    pub(in crate::commands) exists: Option<bool>,
    /// What is known of it, for people.
    pub(in crate::commands) words: String,
    /// Of its block everywhere.
    pub(in crate::commands) everywhere: Outcome,
    /// Of the block of its device at that address.
    pub(in crate::commands) device: Outcome,
    /// Why the ledger could not be looked at: it is as if nobody were blocked.
    pub(in crate::commands) unread: Option<String>,
}

/// What would come of a block.
#[derive(Clone, Debug, Default)]
pub(in crate::commands) struct Outcome {
    /// Why it would be refused, for people; `None`: it would not.
    pub(in crate::commands) refused: Option<String>,
    /// Who makes way for it, in words, where there are as many as there may be.
    pub(in crate::commands) makes_way: Option<String>,
}

/// Foresees it.
pub(in crate::commands) fn foresee(
    config: &Config,
    account: &SipAccount,
    source: IpAddr,
    now: Timestamp,
) -> Foresight {
    let call = &Call::new(config.clone(), now);
    let _ = call.chosen.set(call.expected());
    let found = if config.block.verify == Verify::None {
        Ok(None)
    } else {
        policy::look_up(call, std::slice::from_ref(account)).map(|answers| Some(answers[0]))
    };
    let (existence, words) = match &found {
        Ok(Some(existence)) => (Some(*existence), existence.words().to_owned()),
        Ok(None) => (None, "nobody is asked whether it exists (verify is none)".to_owned()),
        Err(error) => (None, format!("nobody can say whether it exists: {}", causes(error))),
    };
    let (mut ledger, mut unread) = match list::peek(config) {
        Ok(ledger) => (ledger, None),
        Err(error) => (None, Some(causes(&error))),
    };
    let mut of = |at: Option<IpAddr>| {
        let offender = Offender { account: account.clone(), source: at };
        let length = i64::try_from(config.block.span.get().as_secs()).unwrap_or(LONGEST_BLOCK);
        let (since, until) = (call.now(), call.now().saturating_add(length));
        let request = Request { offender, jail: A_JAIL, seen_from: Some(source), since, until };
        outcome(call, ledger.as_mut(), &request, existence).unwrap_or_else(|error| {
            unread.get_or_insert(causes(&error));
            Outcome::default()
        })
    };
    let (everywhere, device) = (of(None), of(Some(source)));
    Foresight { exists: existence.map(Existence::is_known), words, everywhere, device, unread }
}

fn outcome(
    call: &Call,
    mut ledger: Option<&mut Ledger>,
    request: &Request<'_>,
    existence: Option<Existence>,
) -> anyhow::Result<Outcome> {
    if call.config.block_mode() == Mode::Observe {
        let refused = Some("mode is observe: it is only written down".to_owned());
        return Ok(Outcome { refused, makes_way: None });
    }
    let refused = policy::foresee(call, ledger.as_deref_mut(), request, existence)?;
    let makes_way = match ledger {
        Some(ledger) if refused.is_none() => makes_way(call, ledger, &request.offender)?,
        _ => None,
    };
    Ok(Outcome { refused, makes_way })
}

/// A new block never makes way itself: the oldest does.
fn makes_way(call: &Call, ledger: &mut Ledger, offender: &Offender) -> anyhow::Result<Option<String>> {
    let most = call.most_in_kernel();
    if ledger.has_room(most.saturating_sub(1))? {
        return Ok(None);
    }
    let active = ledger.active(call.now())?;
    let blocked: BTreeSet<&Offender> = active.iter().map(|block| &block.offender).collect();
    let is_full = blocked.len() >= most as usize && !blocked.contains(offender);
    Ok(is_full.then(|| format!("the oldest of {} makes way for it", super::blocks(blocked.len() as u64))))
}
