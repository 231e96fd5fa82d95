//! By patterns in iptables: a packet with `realm="DOMAIN"` and `username="USER"` in it is the account's, in whatever
//! order and with whatever blanks around them, in `Authorization` as in `Proxy-Authorization`.
//!
//! ```text
//! INPUT            SIP ports ------------> RF-BLOCK (from RINGFENCE-UDP, where ringfence-firewall is used)
//! RF-BLOCK         no username=" --------> back
//!                  realm="a.example.com" > RF-BLOCK-6f1e5c5e0c6c4d5b, one chain for each domain
//! RF-BLOCK-6f1...  username="999" -------> RF-BLOCK-DENY, one rule for each account
//! RF-BLOCK-DENY    log, reset or drop
//! ```
//!
//! A phone's credentials have the name and realm that it logs in with. FreeSWITCH's "SIP auth failure" names whom it wanted to
//! register instead: where the two differ, a block by that line meets nothing, and does no harm.
//!
//! What it misses: credentials written in a form that no known phone uses, though FreeSWITCH understands them (names in capital
//! letters but for `realm`, no quotes, blanks around `=`); packets in fragments with the pattern across the seam, and over
//! IPv6, where connections are not tracked, with any of it behind the first; over TCP, a message of which the two are not in one
//! segment; TLS. What it takes too much: a packet with credentials for
//! several realms, of which one has the user and another the domain.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use crate::account::{Offender, SipAccount};
use crate::config::block::{LogPrefix, Tcp};
use crate::config::{Config, Ports};
use crate::drops::{Kind, Reason};
use crate::firewall::{Case, Chain, Hook, Layout, Pattern, Rule, Tag, Version, order};

/// What the names of our chains begin with; also the name of the first.
pub const PREFIX: &str = "RF-BLOCK";

/// The name of the chain that drops what is found, or resets its connection.
pub const DENY: &str = "RF-BLOCK-DENY";

/// The longest pattern that iptables takes in hexadecimal, in bytes: one less than the kernel (`XT_STRING_MAX_PATTERN_SIZE`).
const MAX_PATTERN: usize = 127;

/// What the rules depend on, beside who is blocked.
#[derive(Clone, Debug)]
pub struct Settings {
    ports: Ports,
    tcp: Tcp,
    log_prefix: LogPrefix,
}

impl Settings {
    /// As the settings say.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            ports: config.firewall.sip_ports.clone(),
            tcp: config.block.tcp,
            log_prefix: config.block.log_prefix.clone(),
        }
    }
}

/// An account that is too long for a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    part: &'static str,
    limit: usize,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part, limit } = self;
        write!(f, "its {part} is longer than {limit} bytes, and iptables has no longer patterns")
    }
}

impl std::error::Error for TooLong {}

/// Whether an account can be matched.
pub fn check(account: &SipAccount) -> Result<(), TooLong> {
    for (part, text, name) in
        [("user part", account.user(), "username"), ("domain", account.domain(), "realm")]
    {
        let limit = MAX_PATTERN - name.len() - "=\"\"".len();
        if text.len() > limit {
            return Err(TooLong { part, limit });
        }
    }
    Ok(())
}

/// The chains that block these offenders; none where nobody is blocked. Who cannot be matched ([`check`]) is left out.
#[must_use]
pub fn layout<'a>(
    offenders: impl IntoIterator<Item = &'a Offender>,
    version: Version,
    settings: &Settings,
) -> Layout {
    let mut domains: BTreeMap<&str, BTreeSet<&Offender>> = BTreeMap::new();
    for offender in offenders {
        if concerns(offender, version) && check(&offender.account).is_ok() {
            domains.entry(offender.account.domain()).or_default().insert(offender);
        }
    }
    if domains.is_empty() {
        return Layout::nothing(PREFIX);
    }
    let mut first = vec![Rule::new(Pattern::new("username=\"", Case::Heeded).absent().to_string(), "RETURN")];
    let mut leaves: Vec<Chain> = vec![];
    let mut names = HashSet::new();
    for (domain, offenders) in domains {
        let name = chain_name(domain, &mut names);
        // A phone takes the realm as it was told, and that is as it wrote the domain itself.
        first.push(Rule::new(Pattern::new(&format!("realm=\"{domain}\""), Case::Ignored).to_string(), &name));
        leaves.push(Chain { name, rules: offenders.into_iter().map(leaf).collect() });
    }
    let mut chains = vec![Chain::new(PREFIX, first), Chain::new(DENY, deny(settings))];
    chains.extend(leaves);
    Layout { prefix: PREFIX.to_owned(), chains, hooks: hooks(settings) }
}

/// The rule that matches an offender's packets in the chain of the domain: its counters are the offender's.
#[must_use]
pub fn leaf(offender: &Offender) -> Rule {
    let user = format!("username=\"{}\"", offender.account.user());
    let user = Pattern::new(&user, Case::Heeded).to_string();
    let matches = match offender.source {
        Some(source) => format!("-s {source} {user}"),
        None => user,
    };
    Rule::new(matches, DENY).counting_for(offender.account.domain())
}

/// The rules that drop packets, whoever is blocked.
#[must_use]
pub fn drops(settings: &Settings) -> HashMap<Tag, Reason> {
    let chains = vec![Chain::new(DENY, deny(settings))];
    Layout { chains, ..Layout::nothing(PREFIX) }.drops()
}

fn concerns(offender: &Offender, version: Version) -> bool {
    match offender.source {
        Some(IpAddr::V4(_)) => version == Version::V4,
        Some(IpAddr::V6(_)) => version == Version::V6,
        None => true,
    }
}

/// Nothing that this host sends to itself is ever blocked.
fn hooks(settings: &Settings) -> Vec<Hook> {
    let places = [("udp", order::UDP), ("tcp", order::TCP)];
    let places = match settings.tcp {
        Tcp::Off => &places[..1],
        Tcp::Reset => &places[..],
    };
    let ports = &settings.ports;
    let hook = |(protocol, chain): &(&str, &str)| {
        let rule = Rule::new(format!("! -i lo -p {protocol} -m multiport --dports {ports}"), PREFIX);
        // Below what ringfence-firewall does before it comes to accounts, on a host that has it.
        let input = Hook::in_input(rule);
        Hook { chains: [vec![(*chain).to_owned()], input.chains].concat(), rule: input.rule }
    };
    places.iter().map(hook).collect()
}

fn deny(settings: &Settings) -> Vec<Rule> {
    let reason = || Reason::only(Kind::Account);
    let mut rules = vec![];
    if let Some(prefix) = settings.log_prefix.get() {
        rules.push(Rule::new(
            "-m limit --limit 10/min --limit-burst 20",
            format!("LOG --log-prefix \"{prefix}\""),
        ));
    }
    if settings.tcp == Tcp::Reset {
        rules.push(Rule::new("-p tcp", "REJECT --reject-with tcp-reset").dropping(reason()));
    }
    rules.push(Rule::new("", "DROP").dropping(reason()));
    rules
}

/// A name of at most 28 characters that no other domain's chain has.
fn chain_name(domain: &str, taken: &mut HashSet<String>) -> String {
    let mut hasher = DefaultHasher::new();
    domain.hash(&mut hasher);
    let mut name = format!("{PREFIX}-{:016x}", hasher.finish());
    // One more letter for each domain with the same hash; nobody finds four of them.
    while !taken.insert(name.clone()) {
        name.push('x');
    }
    name
}

#[cfg(test)]
mod tests;
