//! Who must not be blocked, whatever a list says.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::address;
use crate::address_set::AddressSet;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::evidence::visible;
use crate::feeds::guard::{self, Hit, Protected, Why};
use crate::host;
use crate::registrations::discovery::{self, Nothing};
use crate::registrations::{self, Question};

/// Reading all registrations takes no longer.
const TIME: Duration = Duration::from_secs(20);

/// So many phones of a list are named with their accounts, and finding those out takes no longer.
const NAMED: usize = 5;
const NAMING: Duration = Duration::from_secs(3);

/// Who is protected, and what could not be found out.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) protected: Vec<Protected>,
    /// The phones among them that are registered now.
    pub(super) registered: registrations::Found,
    pub(super) notes: Vec<String>,
    /// Which phones could not be found out.
    pub(super) unknown: Option<String>,
    /// Why nobody may be blocked anew: no phone is known.
    pub(super) blind: Option<String>,
}

/// What can be known without network and database: this host, who is logged in, and phones seen within a day.
pub(super) fn local(config: &Config, now: Timestamp) -> (Found, io::Result<usize>) {
    let host = host::protected(&host::Paths::default());
    let mut protected = guard::of_host(&host);
    let seen = registrations::seen_within_a_day(&config.state_dir, now.as_second());
    let seen = seen.map(|seen| {
        let count = seen.len();
        protected.push(phones(config, Why::SeenRegistered, seen));
        count
    });
    (Found { protected, notes: host.problems, ..Found::default() }, seen)
}

/// Why `address` is never blocked, in words; `None` if nothing is known that speaks for it. `protected` is what is known beside
/// what belongs to this host and who is registered there.
pub(super) fn reason(
    config: &Config,
    address: IpAddr,
    protected: &[Protected],
    now: Timestamp,
) -> Option<String> {
    let (mut found, _) = local(config, now);
    found.protected.extend_from_slice(protected);
    found.protected.extend(guard::special());
    let deadline = Deadline::after(Instant::now(), config.registrations.deadline.get());
    let network = address::neighbourhood(address, config.registrations.ipv6_prefix.bits());
    let question = Question { network, now: now.as_second(), all: false };
    let look =
        discovery::discover(&config.registrations).and_then(|found| found.source.look(&question, deadline));
    if look.is_ok_and(|found| found.registered.keys().any(|phone| network.contains(*phone))) {
        found.protected.push(phones(config, Why::Registered, [address]));
    }
    let (_, hits) = guard::cut(&std::iter::once(address).collect(), &found.protected);
    let hit = hits.into_iter().next()?;
    let name = match hit.why {
        Why::Registered => accounts(config, now)(address).join(", "),
        _ => hit.name,
    };
    let (what, _) = hit.why.names();
    Some(if name.is_empty() { what.to_owned() } else { format!("{what}, {}", visible(&name)) })
}

/// Phones, and the neighbours that count as them.
fn phones(config: &Config, why: Why, addresses: impl IntoIterator<Item = IpAddr>) -> Protected {
    let ipv6_prefix = config.registrations.ipv6_prefix.bits();
    let addresses =
        addresses.into_iter().map(|address| address::neighbourhood(address, ipv6_prefix)).collect();
    Protected { why, name: String::new(), addresses }
}

/// All that, and who is registered now if `blocks` something.
pub(super) fn everybody(config: &Config, blocks: bool, now: Timestamp) -> Found {
    let (mut found, seen) = local(config, now);
    if !blocks {
        return found;
    }
    let failure = match look(config, now) {
        Ok(everyone) => {
            let addresses = everyone.registered.keys().copied();
            found.protected.push(phones(config, Why::Registered, addresses));
            let failures = everyone.failures.join("; ");
            found.registered = everyone;
            (!failures.is_empty()).then_some(failures)
        }
        // A host that has no FreeSWITCH, and had none, need not be told so by every run.
        Err(error) if error.is::<Nothing>() && seen.as_ref().is_ok_and(|seen| *seen == 0) => {
            found.notes.push(format!("no phones are protected: {error:#}"));
            return found;
        }
        Err(error) => Some(format!("{error:#}")),
    };
    match (failure, seen) {
        (None, Ok(_)) => {}
        // Who downloads may be nobody special. Who loads is, and looks once more.
        (None, Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
            found.notes.push(format!("phones seen within a day are left to the load: {error}"));
        }
        (None, Err(error)) => {
            found.unknown = Some(format!("phones seen within a day cannot be read: {error}"));
        }
        (Some(failure), Ok(seen)) if seen > 0 || !found.registered.registered.is_empty() => {
            found.unknown = Some(format!(
                "the registrations cannot be read ({failure}); the {seen} addresses seen registered within a day are \
                 protected instead"
            ));
        }
        (Some(failure), Ok(_)) => {
            found.blind = Some(format!(
                "the registrations cannot be read ({failure}), and no phone was seen within a day"
            ));
        }
        (Some(failure), Err(error)) => {
            found.blind = Some(format!(
                "neither the registrations ({failure}) nor the phones seen within a day ({error}) can be read"
            ));
        }
    }
    found
}

fn look(config: &Config, now: Timestamp) -> anyhow::Result<registrations::Found> {
    let deadline = Deadline::after(Instant::now(), TIME);
    discovery::discover(&config.registrations)?.source.everyone(now.as_second(), deadline)
}

/// The same hits, with the accounts of the first few of the registered phones.
pub(super) fn named(
    config: &Config,
    hits: Vec<Hit>,
    everyone: &registrations::Found,
    now: Timestamp,
) -> Vec<Hit> {
    if !hits.iter().any(|hit| hit.why == Why::Registered) {
        return hits;
    }
    let accounts = accounts(config, now);
    let apart = |hit: &Hit| {
        let near = |phone| phones(config, hit.why, [phone]).addresses;
        apart(hit, everyone.registered.keys().map(|phone| (*phone, near(*phone))), &accounts)
    };
    hits.into_iter()
        .flat_map(|hit| if hit.why == Why::Registered { apart(&hit) } else { vec![hit] })
        .collect()
}

/// Finds out the accounts that are registered from an address, for a moment; none where that fails.
fn accounts(config: &Config, now: Timestamp) -> impl Fn(IpAddr) -> Vec<String> {
    let deadline = Deadline::after(Instant::now(), NAMING);
    let source = discovery::discover(&config.registrations).ok().map(|found| found.source);
    move |address| {
        let accounts = source.as_ref().map(|source| source.accounts(address, now.as_second(), deadline));
        accounts.and_then(Result::ok).unwrap_or_default()
    }
}

/// A hit for each of the first few phones, and one for the rest.
fn apart(
    hit: &Hit,
    phones: impl Iterator<Item = (IpAddr, AddressSet)>,
    accounts: impl Fn(IpAddr) -> Vec<String>,
) -> Vec<Hit> {
    let mut rest = hit.addresses.clone();
    let mut hits = vec![];
    for (phone, near) in phones {
        let addresses = near.intersection(&rest);
        if addresses.is_empty() {
            continue;
        }
        if hits.len() == NAMED {
            break;
        }
        rest = rest.minus(&addresses);
        hits.push(Hit { why: hit.why, name: accounts(phone).join(", "), addresses });
    }
    if !rest.is_empty() {
        hits.push(Hit { why: hit.why, name: String::new(), addresses: rest });
    }
    hits
}
