//! Whether an account may be blocked. In doubt it may not: the address-based jails still work.

use std::net::IpAddr;
use std::time::Instant;

use anyhow::Context;
use ipnetwork::IpNetwork;

use super::Call;
use crate::account::{Offender, SipAccount};
use crate::address;
use crate::allow;
use crate::commands::causes;
use crate::config::block::Verify;
use crate::deadline::Deadline;
use crate::exemption::{self, Exemption};
use crate::fusionpbx::accounts::{self, Existence};
use crate::ledger::{Block, Ledger};
use crate::matcher::{Chosen, strings};
use crate::registrations::{Standing, discovery};

/// Where more known-good sources than this cause a block within a minute, it is the directory that is down, not they.
const HANDFUL: u32 = 5;

/// So long no jail blocks anybody then, in seconds.
const SUSPENSION: i64 = 600;

/// One address does not cause more blocks than this share of all: it would drive out everybody else's.
const SHARE: u32 = 4;

/// But it may always cause so many.
const AT_LEAST: u32 = 10;

/// What is asked for.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) offender: Offender,
    /// Empty: by hand.
    pub(super) jail: &'a str,
    pub(super) seen_from: Option<IpAddr>,
    /// When it failed, in seconds since 1970.
    pub(super) since: i64,
    /// Seconds since 1970.
    pub(super) until: i64,
}

/// The answer.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It may be blocked.
    Block { reason: &'static str, why: String, evidence: String },
    /// It may not.
    Refuse { reason: &'static str, detail: String },
    /// So many are to be blocked that something else is wrong. These were let go.
    Alarm { detail: String, lifted: Vec<Block> },
}

/// Why not: the word for evidence, and the sentence for people.
type No = (&'static str, String);

/// What speaks for a block.
#[derive(Debug)]
struct Grounds {
    reason: &'static str,
    why: String,
    /// What is known of where it was seen from, if that is exempt from fail2ban.
    known_good: Option<Exempt>,
}

/// Judges it. An error means that the ledger cannot be used.
pub(super) fn judge(call: &Call, ledger: &mut Ledger, request: &Request<'_>) -> anyhow::Result<Verdict> {
    let mut case = Case { call, ledger: Some(&mut *ledger), request, said: None };
    let grounds = case.weigh()?;
    if let Some(Said { existence, remembered: false }) = case.said {
        ledger.remember(&request.offender.account, existence.name(), call.now())?;
    }
    let Grounds { reason, why, known_good } = match grounds {
        Ok(grounds) => grounds,
        Err((reason, detail)) => return Ok(Verdict::Refuse { reason, detail }),
    };
    // Only what would be blocked is cause for alarm, and only where a known-good address is behind it.
    if request.is_by_jail()
        && let Some(Exempt { network, .. }) = &known_good
    {
        let sources = ledger.note_alarm(network, request.since)?;
        if sources > HANDFUL {
            let lifted = ledger.suspend(call.now() + SUSPENSION, request.since)?;
            let detail = format!(
                "accounts of {sources} known-good networks were to be blocked within a minute; is the directory of the PBX \
                 down? Blocks are suspended for {} minutes, and the {} of that minute are lifted",
                SUSPENSION / 60,
                lifted.len()
            );
            return Ok(Verdict::Alarm { detail, lifted });
        }
    }
    let evidence = known_good.map_or_else(String::new, |exempt| exempt.words);
    Ok(Verdict::Block { reason, why, evidence })
}

/// Why it would be refused, as [`judge`] would find it, for people; `None`: it would be blocked. Nothing is written down: neither in
/// the ledger, which need not be there, nor what FusionPBX says, nor that it would be one more cause for alarm.
pub(super) fn foresee(
    call: &Call,
    mut ledger: Option<&mut Ledger>,
    request: &Request<'_>,
    existence: Option<Existence>,
) -> anyhow::Result<Option<String>> {
    let said = existence.map(|existence| Said { existence, remembered: false });
    let grounds = match (Case { call, ledger: ledger.as_deref_mut(), request, said }).weigh()? {
        Ok(grounds) => grounds,
        Err((_, detail)) => return Ok(Some(detail)),
    };
    if request.is_by_jail()
        && let (Some(Exempt { network, .. }), Some(ledger)) = (&grounds.known_good, ledger)
    {
        let others = ledger.other_alarms(network, request.since)?;
        if others >= HANDFUL {
            return Ok(Some(format!(
                "accounts of {others} other known-good networks were to be blocked within a minute; with one more, blocks are \
                 suspended for {} minutes",
                SUSPENSION / 60
            )));
        }
    }
    Ok(None)
}

impl Request<'_> {
    fn is_by_jail(&self) -> bool {
        !self.jail.is_empty()
    }
}

/// What FusionPBX said of an account.
#[derive(Clone, Copy, Debug)]
struct Said {
    existence: Existence,
    /// The ledger has it already.
    remembered: bool,
}

/// A request that is weighed; nothing is written down.
struct Case<'a> {
    call: &'a Call,
    /// `None`: nobody was ever blocked.
    ledger: Option<&'a mut Ledger>,
    request: &'a Request<'a>,
    /// What FusionPBX said, where it was asked.
    said: Option<Said>,
}

impl Case<'_> {
    /// What speaks for it, or why not.
    fn weigh(&mut self) -> anyhow::Result<Result<Grounds, No>> {
        let (call, request) = (self.call, self.request);
        if let Err(error) = strings::check(&request.offender.account)
            && *call.chosen() != Chosen::Bpf
        {
            return Ok(Err(("too-long", error.to_string())));
        }
        if request.until <= call.now() {
            return Ok(Err(("over", "its time is over already".to_owned())));
        }
        if request.is_by_jail()
            && let Some(ledger) = &mut self.ledger
            && let Some(until) = ledger.suspended_until(call.now())?
        {
            let seconds = until - call.now();
            let detail = format!("blocks are suspended for another {seconds} s, after an alarm");
            return Ok(Err(("suspended", detail)));
        }
        let mut known_good = None;
        if let Some(source) = request.seen_from {
            if let Some(ledger) = &mut self.ledger
                && let Some(no) = floods(call, ledger, &request.offender, source)?
            {
                return Ok(Err(no));
            }
            match exempt(call, source) {
                Ok(exempt) => known_good = Some(exempt),
                Err(no) if call.config.block.only_exempt => return Ok(Err(no)),
                Err(_) => {}
            }
        }
        let (reason, why) = match request.offender.source {
            None => ("unknown-account", self.unknown()?),
            Some(source) => ("failing-device", failing_device(call, &request.offender.account, source)),
        };
        Ok(why.map(|why| Grounds { reason, why, known_good }))
    }

    /// Why the account may be blocked everywhere: nobody can have it.
    fn unknown(&mut self) -> anyhow::Result<Result<String, No>> {
        let (call, account) = (self.call, &self.request.offender.account);
        if call.config.block.verify == Verify::None {
            return Ok(not_registered(call, account));
        }
        let known = match &mut self.ledger {
            Some(ledger) => ledger.verdict(account, call.now())?.and_then(|name| Existence::from_name(&name)),
            None => None,
        };
        let said = match (known, self.said) {
            (Some(existence), _) => Said { existence, remembered: true },
            (None, Some(said)) => said,
            (None, None) => match look_up(call, std::slice::from_ref(account)) {
                Ok(answers) => Said { existence: answers[0], remembered: false },
                Err(error) => {
                    let detail =
                        format!("nobody can say that the account does not exist: {}", causes(&error));
                    return Ok(Err(("account-unverified", detail)));
                }
            },
        };
        self.said = Some(said);
        Ok(if said.existence.is_known() {
            Err((
                "account-exists",
                "the account exists in FusionPBX; block its device at one address instead".to_owned(),
            ))
        } else {
            Ok(said.existence.words().to_owned())
        })
    }
}

/// Whether one phone's addresses are behind too many blocks already.
fn floods(
    call: &Call,
    ledger: &mut Ledger,
    offender: &Offender,
    source: IpAddr,
) -> anyhow::Result<Option<No>> {
    let near = neighbourhood(call, source);
    let count: u32 = if near == IpNetwork::from(source) {
        ledger.others_seen_from_one(offender, source, call.now())?
    } else {
        let others = ledger.others_seen_from(offender, call.now())?;
        others.iter().filter(|(other, _)| near.contains(*other)).map(|(_, number)| number).sum()
    };
    if count < AT_LEAST {
        return Ok(None);
    }
    let limit = (call.most_in_kernel() / SHARE).max(AT_LEAST);
    Ok((count >= limit).then(|| {
        (
            "flood",
            format!("{count} accounts are blocked already that were seen from {source}; no more than {limit} may be"),
        )
    }))
}

fn neighbourhood(call: &Call, address: IpAddr) -> IpNetwork {
    address::neighbourhood(address, call.config.registrations.ipv6_prefix.bits())
}

/// Why an address is known to be good.
#[derive(Debug)]
struct Exempt {
    /// For people.
    words: String,
    /// What is good as a whole: an allow list, or a phone's address and those that count as it.
    network: String,
}

/// What makes the source exempt from fail2ban.
fn exempt(call: &Call, source: IpAddr) -> Result<Exempt, No> {
    let (exemption, answer) = exemption::find(&call.config, source, call.now, deadline(call));
    let phone = |words: &str| {
        Ok(Exempt { words: format!("{source} {words}"), network: neighbourhood(call, source).to_string() })
    };
    let unknown = |why: &str| {
        Err(("exemption-unknown", format!("nobody knows whether {source} is exempt from fail2ban: {why}")))
    };
    match exemption {
        // Each is a phone by itself, not all of them one list.
        Exemption::Allowed { list } if list == allow::timed::NAME => phone("is allowed by ringfence-allow"),
        Exemption::Allowed { list } => Ok(Exempt {
            words: format!("{source} is on the allow list {list}"),
            network: format!("list {list}"),
        }),
        Exemption::Standing(Standing::Registered { .. }) => phone("has a live registration"),
        Exemption::Standing(Standing::SeenLately { .. }) => phone("was seen registered lately"),
        Exemption::Standing(Standing::NotRegistered) => Err((
            "source-not-exempt",
            format!("{source} is not exempt from fail2ban, which can ban the address (only-exempt is set)"),
        )),
        Exemption::Standing(Standing::Unknown) => {
            unknown(&answer.and_then(|answer| answer.failure).unwrap_or_default())
        }
        Exemption::AllowListUnreadable(fault) => {
            unknown(&format!("the allow lists cannot be read: {}", fault.error))
        }
    }
}

/// For each question by itself: who is slow must not be taken for another.
pub(super) fn deadline(call: &Call) -> Deadline {
    Deadline::after(Instant::now(), call.config.registrations.deadline.get())
}

/// Nobody says that it does not exist; but if it is registered, it does. On a host without FreeSWITCH nobody knows.
fn not_registered(call: &Call, account: &SipAccount) -> Result<String, No> {
    let anywhere = Offender { account: account.clone(), source: None };
    match registered(call, std::slice::from_ref(&anywhere)).as_deref() {
        Ok([true]) => Err(("registered", "the account is registered".to_owned())),
        _ => Ok("not checked (verify is none)".to_owned()),
    }
}

/// What FusionPBX says of accounts, in their order. Very many are asked for in several questions, each of which it can answer in time.
pub(super) fn look_up(call: &Call, accounts: &[SipAccount]) -> anyhow::Result<Vec<Existence>> {
    const AT_ONCE: usize = 10_000;
    let target = crate::fusionpbx::own_database(&call.config)?.context(
        "there is no FusionPBX on this host; name its database in [fusionpbx] postgres, or set verify = \"none\" in [block]",
    )?;
    let mut answers = vec![];
    for accounts in accounts.chunks(AT_ONCE) {
        answers.extend(accounts::look_up(&target, accounts, deadline(call))?);
    }
    Ok(answers)
}

/// Why the device may be blocked: it has no registration that would be lost.
fn failing_device(call: &Call, account: &SipAccount, source: IpAddr) -> Result<String, No> {
    let device = Offender { account: account.clone(), source: Some(source) };
    match registered(call, std::slice::from_ref(&device)).as_deref() {
        Ok([false]) => Ok("it fails there, and is not registered".to_owned()),
        Ok(_) => Err(("registered", format!("the account is registered from {source}"))),
        Err(error) => Err((
            "registrations-unreadable",
            format!("nobody knows whether it is registered from {source}: {}", causes(error)),
        )),
    }
}

/// Which of them are registered, in their order; who is to be blocked everywhere, anywhere.
pub(super) fn registered(call: &Call, offenders: &[Offender]) -> anyhow::Result<Vec<bool>> {
    discovery::discover(&call.config.registrations)?.source.registered(offenders, call.now(), deadline(call))
}
