//! Who must not be blocked, whatever a list says.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::bail;
use jiff::Timestamp;

use crate::address;
use crate::address_set::AddressSet;
use crate::config::{Config, SourceKind};
use crate::deadline::Deadline;
use crate::feeds::guard::{Hit, Protected, Why};
use crate::host;
use crate::registrations::{self, discovery};

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
    pub(super) registered: Vec<IpAddr>,
    pub(super) notes: Vec<String>,
    /// Which phones could not be found out.
    pub(super) unknown: Option<String>,
}

/// What can be known without network and database: this host, who is logged in, and phones seen within a day.
pub(super) fn local(config: &Config, now: Timestamp) -> (Found, io::Result<usize>) {
    let host::Protected { own, gateways, resolvers, login_peers, problems } =
        host::protected(&host::Paths::default());
    let mut protected = vec![
        Protected::addresses(Why::Own, own),
        Protected::addresses(Why::Gateway, gateways),
        Protected::addresses(Why::Resolver, resolvers),
        Protected::addresses(Why::LoginPeer, login_peers),
    ];
    let seen = registrations::seen_within_a_day(&config.state_dir, now.as_second());
    let seen = seen.map(|seen| {
        let count = seen.len();
        protected.push(phones(config, Why::SeenRegistered, seen));
        count
    });
    (Found { protected, notes: problems, ..Found::default() }, seen)
}

/// Phones, and the neighbours that count as them.
fn phones(config: &Config, why: Why, addresses: impl IntoIterator<Item = IpAddr>) -> Protected {
    let ipv6_prefix = config.registrations.ipv6_prefix.bits();
    let addresses =
        addresses.into_iter().map(|address| address::neighbourhood(address, ipv6_prefix)).collect();
    Protected { why, name: String::new(), addresses }
}

/// All that, and who is registered now if `blocks` something.
///
/// An error means that neither the registrations nor those seen within a day could be read.
pub(super) fn everybody(config: &Config, blocks: bool, now: Timestamp) -> anyhow::Result<Found> {
    let (mut found, seen) = local(config, now);
    if !blocks {
        return Ok(found);
    }
    let deadline = Deadline::after(Instant::now(), TIME);
    let source = match discovery::discover(&config.registrations) {
        Ok(found) => Ok(found.source),
        // A host that has no FreeSWITCH, and had none, need not be told so by every run.
        Err(error)
            if config.registrations.source == SourceKind::Auto
                && seen.as_ref().is_ok_and(|seen| *seen == 0) =>
        {
            found.notes.push(format!("no phones are protected: {error:#}"));
            return Ok(found);
        }
        Err(error) => Err(error),
    };
    let everyone = source.and_then(|source| source.everyone(now.as_second(), deadline));
    let failure = match everyone {
        Ok(registrations::Found { registered, failures, .. }) => {
            found.registered = registered.into_keys().collect();
            found.protected.push(phones(config, Why::Registered, found.registered.iter().copied()));
            if failures.is_empty() { None } else { Some(failures.join("; ")) }
        }
        Err(error) => Some(format!("{error:#}")),
    };
    found.unknown = match (failure, seen) {
        (None, Ok(_)) => None,
        (None, Err(error)) => Some(format!("phones seen within a day cannot be read: {error}")),
        (Some(failure), Ok(seen)) => Some(format!(
            "the registrations cannot be read ({failure}); the addresses seen registered within a day ({seen}) are protected instead"
        )),
        (Some(failure), Err(error)) => bail!(
            "neither the registrations ({failure}) nor the phones seen within a day ({error}) can be read"
        ),
    };
    Ok(found)
}

/// The same hits, with the accounts of the first few of the registered phones.
pub(super) fn named(config: &Config, hits: Vec<Hit>, registered: &[IpAddr], now: Timestamp) -> Vec<Hit> {
    let deadline = Deadline::after(Instant::now(), NAMING);
    let source = if hits.iter().any(|hit| hit.why == Why::Registered) {
        discovery::discover(&config.registrations).ok().map(|found| found.source)
    } else {
        None
    };
    let accounts = |address: IpAddr| {
        let accounts = source.as_ref().map(|source| source.accounts(address, now.as_second(), deadline));
        accounts.and_then(Result::ok).unwrap_or_default()
    };
    let apart = |hit: &Hit| {
        let near = |phone| phones(config, hit.why, [phone]).addresses;
        apart(hit, registered.iter().map(|phone| (*phone, near(*phone))), accounts)
    };
    hits.into_iter()
        .flat_map(|hit| if hit.why == Why::Registered { apart(&hit) } else { vec![hit] })
        .collect()
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
