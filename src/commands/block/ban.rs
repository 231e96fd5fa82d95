//! `ringfence-block ban`: block an account, if nothing speaks against it.

use super::policy::{self, Request, Verdict};
use super::settle::{settle, settle_one};
use super::{Call, Whom, complain};
use crate::address;
use crate::commands::{a_span, say, screen::span, whole_seconds};
use crate::config::Mode;
use crate::exit::Exit;
use crate::ledger::{BY_HAND, Block, LONGEST_BLOCK};

/// The command line of `ban`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    whom: Whom,

    /// Where the failures came from: the account is blocked only if that address is exempt from fail2ban
    ///
    /// So it is with `only-exempt`: all others are banned by address anyway. Empty or not given, as with fail2ban's banip, it is
    /// not asked.
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true)]
    seen_from: Option<String>,

    /// When it began, in seconds since 1970 [default: now]
    #[arg(long, value_name = "TIME", value_parser = a_time, allow_negative_numbers = true)]
    at: Option<i64>,

    /// How long, in seconds or like 30m; negative: a year [default: 1h, or `for` in the settings]
    ///
    /// A year is also the longest.
    #[arg(long = "for", value_name = "SPAN", value_parser = block_span, allow_hyphen_values = true)]
    span: Option<i64>,
}

pub(super) fn run(call: &Call, args: &Args) -> anyhow::Result<Exit> {
    let jail = args.whom.jail()?;
    let refused = |subject: &str, reason: &str, detail: &str| {
        call.record(subject, "refuse", reason, jail.unwrap_or(BY_HAND), detail);
        complain(&format!("{subject:?} is not blocked: {detail}"));
        // fail2ban would only try it again.
        Ok(if jail.is_some() { Exit::Yes } else { Exit::No })
    };
    let offender = match args.whom.offender()? {
        Ok(offender) => offender,
        Err(error) => return refused(&args.whom.text(), "no-account", &error.to_string()),
    };
    let subject = offender.to_string();
    // Without a line of a log, as for fail2ban's banip, there is no such address.
    let seen_from = match args.seen_from.as_deref() {
        None | Some("") => None,
        Some(text) => match address::parse_text(text) {
            Some(address) => Some(address),
            None => {
                return refused(&subject, "no-address", &format!("{text:?} is no address to be seen from"));
            }
        },
    };
    // A clock that was set back in between is no reason for a longer block.
    let since = args.at.map_or(call.now(), |at| at.min(call.now()));
    let length = args
        .span
        .unwrap_or_else(|| i64::try_from(call.config.block.span.get().as_secs()).unwrap_or(LONGEST_BLOCK));
    // Who fails at one address fails from there.
    let seen_from = seen_from.or(offender.source.filter(|_| jail.is_some()));
    let request = Request {
        offender,
        jail: jail.unwrap_or_default(),
        seen_from,
        since,
        until: since.saturating_add(length),
    };

    let mut ledger = call.ledger()?;
    match policy::judge(call, &mut ledger, &request)? {
        Verdict::Refuse { reason, detail } => refused(&subject, reason, &detail),
        Verdict::Alarm { detail, lifted } => {
            call.record_ends(&lifted, "suspended", "part of an alarm");
            let exit = refused(&subject, "alarm", &detail);
            settle(call, &mut ledger)?;
            exit
        }
        Verdict::Block { reason, why, evidence } => {
            let Request { offender, jail, seen_from, since, until } = request;
            let block = Block { offender, jail: jail.to_owned(), seen_from, since, until, why, evidence };
            let detail = match block.evidence.as_str() {
                "" => block.why.clone(),
                evidence => format!("{}; {evidence}", block.why),
            };
            let observed = call.config.block_mode() == Mode::Observe;
            if !observed {
                // First the ledger, then the kernel: what is interrupted in between is done by the next call.
                ledger.put(std::slice::from_ref(&block), call.now())?;
            }
            call.record(&subject, "block", reason, block.word(), &detail);
            if observed {
                say(&format!("{subject} would be blocked, but mode is observe: {}.", block.why));
                return Ok(Exit::Yes);
            }
            if settle_one(call, &mut ledger, &block.offender)? {
                say(&format!("{subject} is blocked for {}: {}.", span(block.until - call.now()), block.why));
                Ok(Exit::Yes)
            } else {
                // Where rules alone bear fewer than the ledger, it is there yet.
                ledger.remove(std::slice::from_ref(&block.offender), Some(&block.jail))?;
                refused(&subject, "made-way", "there are as many blocks as there may be, and all began later")
            }
        }
    }
}

/// How long a block may last.
fn block_span(text: &str) -> Result<i64, String> {
    a_span(text).map(|span| span.min(LONGEST_BLOCK))
}

/// Seconds since 1970, perhaps with a fraction.
fn a_time(text: &str) -> Result<i64, String> {
    whole_seconds(text).filter(|at| *at >= 0).ok_or_else(|| "not seconds since 1970".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_fail2ban_and_people_write_them() {
        assert_eq!(a_time("1795183743.2518"), Ok(1_795_183_743));
        assert!(
            ["-1", "1h", "", ".5", "1.", "1e9", "0x1", "9999999999999999999"]
                .iter()
                .all(|text| a_time(text).is_err())
        );
        assert_eq!(
            ["3600", "3600.0", "1h", "90m", "-1", "-1.0"].map(block_span),
            [3_600, 3_600, 3_600, 5_400, LONGEST_BLOCK, LONGEST_BLOCK].map(Ok)
        );
        assert_eq!(block_span("9999d"), Ok(LONGEST_BLOCK));
        assert!(["0", "0.4", "", "soon", "-"].iter().all(|text| block_span(text).is_err()));
    }
}
