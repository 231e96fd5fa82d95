//! Whether an account may be blocked. In doubt it may not: the address-based jails still work.

use std::net::IpAddr;
use std::time::Instant;

use anyhow::Context;
use ipnetwork::IpNetwork;
use jiff::Timestamp;

use super::Call;
use crate::account::{Offender, SipAccount};
use crate::address;
use crate::allow;
use crate::commands::causes;
use crate::config::block::Verify;
use crate::config::{Config, Mode};
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

/// Judges it. An error means that the ledger cannot be used.
pub(super) fn judge(call: &Call, ledger: &mut Ledger, request: &Request<'_>) -> anyhow::Result<Verdict> {
    let refuse = |(reason, detail): No| Ok(Verdict::Refuse { reason, detail });
    if let Err(error) = strings::check(&request.offender.account)
        && *call.chosen() != Chosen::Bpf
    {
        return refuse(("too-long", error.to_string()));
    }
    if request.until <= call.now() {
        return refuse(("over", "its time is over already".to_owned()));
    }
    let by_jail = !request.jail.is_empty();
    if by_jail && let Some(until) = ledger.suspended_until(call.now())? {
        let seconds = until - call.now();
        return refuse((
            "suspended",
            format!("blocks are suspended for another {seconds} s, after an alarm"),
        ));
    }
    let mut known_good = None;
    if let Some(source) = request.seen_from {
        if let Some(no) = floods(call, ledger, &request.offender, source)? {
            return refuse(no);
        }
        match exempt(call, source) {
            Ok(exempt) => known_good = Some(exempt),
            Err(no) if call.config.block.only_exempt => return refuse(no),
            Err(_) => {}
        }
    }
    let (reason, why) = match request.offender.source {
        None => match unknown(call, ledger, &request.offender.account)? {
            Ok(why) => ("unknown-account", why),
            Err(no) => return refuse(no),
        },
        Some(source) => match failing_device(call, &request.offender.account, source) {
            Ok(why) => ("failing-device", why),
            Err(no) => return refuse(no),
        },
    };
    // Only what would be blocked is cause for alarm, and only where a known-good address is behind it.
    if by_jail && let Some(Exempt { network, .. }) = &known_good {
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

/// What a jail's block of an account that fails at an address would come to, as far as it depends on these two alone; nothing is
/// written down.
#[derive(Debug)]
pub(in crate::commands) struct Foresight {
    /// Whether the account exists; `None` where nobody says so.
    pub(in crate::commands) exists: Option<bool>,
    /// What is known of it, for people.
    pub(in crate::commands) words: String,
    /// Why it would not be blocked, for people; `None`: it would.
    pub(in crate::commands) refused: Option<String>,
}

/// Foresees it. Whether too many are blocked already is not looked at.
pub(in crate::commands) fn foresee(
    config: &Config,
    account: &SipAccount,
    source: IpAddr,
    now: Timestamp,
) -> Foresight {
    let call = &Call::new(config.clone(), now);
    let found = if config.block.verify == Verify::None {
        Ok(None)
    } else {
        look_up(call, std::slice::from_ref(account)).map(|answers| Some(answers[0]))
    };
    let (exists, words) = match &found {
        Ok(Some(existence)) => (Some(existence.is_known()), existence.words().to_owned()),
        Ok(None) => (None, "nobody is asked whether it exists (verify is none)".to_owned()),
        Err(error) => (None, format!("nobody can say whether it exists: {}", causes(error))),
    };
    let judged = || -> Result<(), No> {
        if config.block.only_exempt {
            exempt(call, source)?;
        }
        match &found {
            Ok(Some(existence)) if existence.is_known() => failing_device(call, account, source).map(drop),
            Ok(Some(_)) => Ok(()),
            Ok(None) => not_registered(call, account).map(drop),
            Err(_) => Err(("account-unverified", words.clone())),
        }
    };
    let refused = match config.block_mode() {
        Mode::Observe => Some("mode is observe: it is only written down".to_owned()),
        Mode::Enforce => judged().err().map(|(_, detail)| detail),
    };
    Foresight { exists, words, refused }
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

/// Why the account may be blocked everywhere: nobody can have it.
fn unknown(call: &Call, ledger: &mut Ledger, account: &SipAccount) -> anyhow::Result<Result<String, No>> {
    if call.config.block.verify == Verify::None {
        return Ok(not_registered(call, account));
    }
    let known = ledger.verdict(account, call.now())?.and_then(|name| Existence::from_name(&name));
    let existence = match known {
        Some(existence) => existence,
        None => match look_up(call, std::slice::from_ref(account)) {
            Ok(answers) => {
                ledger.remember(account, answers[0].name(), call.now())?;
                answers[0]
            }
            Err(error) => {
                let detail = format!("nobody can say that the account does not exist: {}", causes(&error));
                return Ok(Err(("account-unverified", detail)));
            }
        },
    };
    Ok(if existence.is_known() {
        Err((
            "account-exists",
            "the account exists in FusionPBX; block its device at one address instead".to_owned(),
        ))
    } else {
        Ok(existence.words().to_owned())
    })
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
