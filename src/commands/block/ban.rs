//! `ringfence-block ban`: block an account, if nothing speaks against it.

use super::policy::{self, Request, Verdict};
use super::settle::settle;
use super::{Call, Whom, complain};
use crate::address;
use crate::config::Mode;
use crate::exit::Exit;
use crate::ledger::{Block, Ledger};

/// No block is longer, in seconds: a year.
pub(super) const LONGEST: i64 = 365 * 86_400;

/// The command line of `ban`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    whom: Whom,

    /// Where the failures came from: the account is blocked only if that address is exempt from fail2ban
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true)]
    seen_from: Option<String>,

    /// When it began, in seconds since 1970 [default: now]
    #[arg(long, value_name = "TIME", value_parser = a_time, allow_negative_numbers = true)]
    at: Option<i64>,

    /// How long, in seconds or like 30m; negative: a year [default: 1h, or `for` in the settings]
    #[arg(long = "for", value_name = "SPAN", value_parser = a_span, allow_hyphen_values = true)]
    span: Option<i64>,
}

pub(super) fn run(call: &Call, args: &Args) -> anyhow::Result<Exit> {
    let jail = args.whom.jail()?;
    let refused = |subject: &str, reason: &str, detail: &str| {
        call.record(subject, "refuse", reason, jail.unwrap_or("by hand"), detail);
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
    let span =
        args.span.unwrap_or_else(|| i64::try_from(call.config.block.span.get().as_secs()).unwrap_or(LONGEST));
    // Who fails at one address fails from there.
    let seen_from = seen_from.or(offender.source.filter(|_| jail.is_some()));
    let request =
        Request { offender, jail: jail.unwrap_or_default(), seen_from, until: since.saturating_add(span) };

    let mut ledger = call.ledger()?;
    match policy::judge(call, &mut ledger, &request)? {
        Verdict::Refuse { reason, detail } => refused(&subject, reason, &detail),
        Verdict::Alarm { detail, lifted } => {
            settle(call, &mut ledger)?;
            call.record_ends(&lifted, "suspended", "part of an alarm");
            refused(&subject, "alarm", &detail)
        }
        Verdict::Block { reason, why, evidence } => {
            let Request { offender, jail, seen_from, until } = request;
            let block = Block { offender, jail: jail.to_owned(), seen_from, since, until, why, evidence };
            let enforced = match call.config.block_mode() {
                Mode::Enforce => enforce(call, &mut ledger, &block),
                Mode::Observe => Ok(true),
            };
            if matches!(enforced, Ok(false)) {
                return refused(&subject, "made-way", "there are max blocks already, and all began later");
            }
            let source = if block.jail.is_empty() { "by hand" } else { &block.jail };
            let detail = match block.evidence.as_str() {
                "" => block.why,
                evidence => format!("{}; {evidence}", block.why),
            };
            call.record(&subject, "block", reason, source, &detail);
            enforced.map(|_| Exit::Yes)
        }
    }
}

/// First the ledger, then the kernel: what is interrupted in between is done by the next call. Whether it is blocked: where there
/// are too many blocks, the oldest makes way, and that may be this one.
fn enforce(call: &Call, ledger: &mut Ledger, block: &Block) -> anyhow::Result<bool> {
    let max = call.config.block.max.get();
    let mut evicted = ledger.put(std::slice::from_ref(block), max, call.now())?.evicted;
    settle(call, ledger)?;
    let others = evicted.len();
    evicted.retain(|other| other.offender != block.offender);
    call.record_ends(&evicted, "made-way", &format!("max is {max}"));
    Ok(evicted.len() == others)
}

/// Seconds since 1970, perhaps with a fraction.
fn a_time(text: &str) -> Result<i64, String> {
    whole_seconds(text).filter(|at| *at >= 0).ok_or_else(|| "not seconds since 1970".to_owned())
}

/// Seconds, perhaps with a fraction; or a span as in the settings.
fn a_span(text: &str) -> Result<i64, String> {
    let spelled = || {
        let span: jiff::Span = text.parse().ok()?;
        let span = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
        Some(span.as_secs())
    };
    match whole_seconds(text).or_else(spelled) {
        // fail2ban's way to say "for ever".
        Some(..0) => Ok(LONGEST),
        Some(span @ 1..) => Ok(span.min(LONGEST)),
        Some(0) => Err("no time at all".to_owned()),
        None => Err("not a time span; write seconds, or it like 30m or 1h".to_owned()),
    }
}

fn whole_seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(whole.strip_prefix('-').unwrap_or(whole)) && digits(fraction)).then(|| whole.parse().ok())?
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
            ["3600", "3600.0", "1h", "90m", "-1", "-1.0"].map(a_span),
            [3_600, 3_600, 3_600, 5_400, LONGEST, LONGEST].map(Ok)
        );
        assert_eq!(a_span("9999d"), Ok(LONGEST));
        assert!(["0", "0.4", "", "soon", "-"].iter().all(|text| a_span(text).is_err()));
    }
}
