//! Whom the chains of fail2ban and `event_guard` ban, rule by rule.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::layout::{BANS, INPUT};
use super::native::at_rule;
use super::path::{FILTER, NFT, Protocol, Step};
use super::pause::is_pause;
use super::programs::Program;
use super::saved::{Saved, SavedRule, Verdict, holds_bans};
use super::{Firewall, Layout, Table, Version};
use crate::matcher::strings;

/// A rule of theirs that refuses an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Banned {
    /// `iptables-nft`, `ip6tables-legacy`, ...
    pub program: String,
    /// In which it stands.
    pub chain: String,
    /// As iptables reads it, behind the name of the chain.
    pub rule: Vec<String>,
    /// Whom it refuses; `None`: whoever is in the set.
    pub network: Option<IpNetwork>,
    /// The set that it asks.
    pub set: Option<String>,
    /// What of all packets comes to it, in words (`all ports`, `22 tcp`); nothing if no rule leads there.
    pub reach: Option<String>,
    /// The protocol of these, where it is one.
    pub protocol: Option<Protocol>,
    /// The first port of these, where they are not all.
    pub port: Option<u16>,
}

impl Banned {
    /// What takes the rule away.
    #[must_use]
    pub fn delete(&self) -> Vec<String> {
        let mut argv = vec![self.program.clone(), "-D".to_owned(), self.chain.clone()];
        argv.extend(self.rule.iter().cloned());
        argv
    }
}

impl Step {
    /// What takes the rule away; `None` if it has no name by which it could be taken alone.
    #[must_use]
    pub fn delete(&self) -> Option<Vec<String>> {
        if self.program == NFT {
            return Some(at_rule("delete", &self.table, &self.chain, self.handle?));
        }
        let rule = SavedRule::new(&self.rule).arguments();
        Some(self.command(["-D".to_owned(), self.chain.clone()].into_iter().chain(rule)))
    }

    /// What lets an address in just before the rule; `None` as of [`Step::delete`].
    #[must_use]
    pub fn let_in_before(&self, address: IpAddr) -> Option<Vec<String>> {
        let text = address.to_string();
        if self.program == NFT {
            let version = if address.is_ipv4() { "ip" } else { "ip6" };
            let mut command = at_rule("insert", &self.table, &self.chain, self.handle?);
            command.extend([version, "saddr", &text, "accept"].map(str::to_owned));
            return Some(command);
        }
        let number = self.number.to_string();
        Some(self.command(["-I", &self.chain, &number, "-s", &text, "-j", "ACCEPT"].map(str::to_owned)))
    }

    fn command(&self, options: impl IntoIterator<Item = String>) -> Vec<String> {
        let table = (self.table != FILTER).then(|| ["-t".to_owned(), self.table.clone()]);
        std::iter::once(self.program.clone()).chain(table.into_iter().flatten()).chain(options).collect()
    }
}

impl Firewall {
    /// The rules in chains of fail2ban and `event_guard` that refuse an address, in the order in which a packet meets them; and those of
    /// fail2ban that refuse whoever is in a set, which [`Banned::set`] names: whether he is, the set knows.
    #[must_use]
    pub fn bans_of(&self, address: IpAddr) -> Vec<Banned> {
        let version = if address.is_ipv4() { Version::V4 } else { Version::V6 };
        let tables = self.tables.iter().filter(|table| table.program.version == version);
        tables.flat_map(|table| bans_in(table, address)).collect()
    }

    /// The same without bans and blocked accounts: what would still be there if nobody were banned.
    #[must_use]
    pub fn without_bans(&self) -> Self {
        let ours = [BANS, strings::PREFIX].map(Layout::nothing);
        let is_ban = |name: &str| holds_bans(name) || ours.iter().any(|ours| ours.owns(name));
        self.without(is_ban, SavedRule::is_ban)
    }

    /// The same without what is in the chains of these owners: what is in force while they pause.
    #[must_use]
    pub fn without_owners(&self, prefixes: &[&str]) -> Self {
        let owners: Vec<_> = prefixes.iter().copied().map(Layout::nothing).collect();
        self.without(|name| owners.iter().any(|owner| owner.owns(name)), |_| false)
    }

    /// The same without the rules of a pause: what is in force behind it.
    #[must_use]
    pub fn without_pause(&self) -> Self {
        self.without(|_| false, is_pause)
    }

    fn without(&self, is_empty: impl Fn(&str) -> bool, is_gone: impl Fn(&SavedRule) -> bool) -> Self {
        let without = |saved: &Saved| {
            let mut saved = saved.clone();
            for (name, rules) in &mut saved.chains {
                if is_empty(name) {
                    rules.clear();
                }
                // The others keep their numbers.
                for rule in rules.iter_mut().filter(|rule| is_gone(rule)) {
                    *rule = SavedRule::new("");
                }
            }
            saved
        };
        let tables = self.tables.iter();
        let tables =
            tables.map(|Table { program, saved }| Table { program: program.clone(), saved: without(saved) });
        Self { variant: self.variant, tables: tables.collect() }
    }

    /// Takes one of these rules away. That it is gone already is no error.
    pub fn delete_ban(banned: &Banned) -> anyhow::Result<()> {
        let Err(error) = Program::delete(&banned.delete()) else { return Ok(()) };
        let there = Self::read()?;
        let of_chain = there.tables.iter().filter(|table| table.program.name() == banned.program);
        let mut rules = of_chain.flat_map(|table| table.saved.rules(&banned.chain));
        if rules.any(|rule| rule.arguments() == banned.rule) { Err(error) } else { Ok(()) }
    }
}

fn bans_in(Table { program, saved }: &Table, address: IpAddr) -> Vec<Banned> {
    let mut search =
        Search { program, saved, address, seen: BTreeSet::from([INPUT.to_owned()]), found: vec![] };
    search.follow(INPUT, None);
    for chain in saved.chains.keys().filter(|chain| holds_bans(chain) && !search.seen.contains(*chain)) {
        search.found.extend(in_chain(program, saved, chain, address, None));
    }
    search.found
}

/// A search for bans along the ways of packets, also through chains of others.
struct Search<'a> {
    program: &'a Program,
    saved: &'a Saved,
    address: IpAddr,
    /// A jump that is there twice leads to the same rules.
    seen: BTreeSet<String>,
    found: Vec<Banned>,
}

impl Search<'_> {
    /// `led_by`: the last rule on the way that asks for protocols or ports, or else the first.
    fn follow(&mut self, chain: &str, led_by: Option<&SavedRule>) {
        if holds_bans(chain) {
            self.found.extend(in_chain(self.program, self.saved, chain, self.address, led_by));
        }
        let saved = self.saved;
        for rule in saved.rules(chain).iter().filter(|rule| rule.tag.is_none()) {
            let chooses = ports(rule).is_some() || rule.value("-p").is_some();
            let led_by = led_by.filter(|_| !chooses).or(Some(rule));
            match rule.verdict() {
                Some(Verdict::Jump(to) | Verdict::Goto(to))
                    if saved.chains.contains_key(&to) && self.seen.insert(to.clone()) =>
                {
                    self.follow(&to, led_by);
                }
                Some(Verdict::Refuse) if rule.is_ban() && rule.value("--match-set").is_some() => {
                    self.found.push(banned(self.program, chain, rule, None, led_by));
                }
                _ => {}
            }
        }
    }
}

fn in_chain(
    program: &Program,
    saved: &Saved,
    chain: &str,
    address: IpAddr,
    led_by: Option<&SavedRule>,
) -> Vec<Banned> {
    let refused = saved.rules(chain).iter().filter(|rule| rule.verdict() == Some(Verdict::Refuse));
    let of_address = refused.filter_map(|rule| {
        let network: IpNetwork = rule.value("-s")?.parse().ok()?;
        network.contains(address).then(|| banned(program, chain, rule, Some(network), led_by))
    });
    of_address.collect()
}

fn banned(
    program: &Program,
    chain: &str,
    rule: &SavedRule,
    network: Option<IpNetwork>,
    led_by: Option<&SavedRule>,
) -> Banned {
    let set = if network.is_none() { rule.value("--match-set") } else { None };
    let protocol = led_by.and_then(|rule| rule.value("-p"));
    let protocol =
        [Protocol::Udp, Protocol::Tcp].into_iter().find(|known| protocol.as_deref() == Some(known.name()));
    let port = led_by.and_then(ports);
    let port = port.and_then(|ports| ports.split([',', ':']).next()?.parse().ok());
    Banned {
        program: program.name(),
        chain: chain.to_owned(),
        rule: rule.arguments(),
        network,
        set,
        reach: led_by.map(reach),
        protocol,
        port,
    }
}

fn ports(rule: &SavedRule) -> Option<String> {
    ["--dports", "--dport"].into_iter().find_map(|option| rule.value(option))
}

/// In words, what a rule matches of ports and protocols.
fn reach(rule: &SavedRule) -> String {
    let protocol = rule.value("-p");
    match (ports(rule), protocol) {
        (None, None) => "all ports".to_owned(),
        (None, Some(protocol)) => format!("all ports {protocol}"),
        (Some(ports), protocol) => format!("{ports} {}", protocol.unwrap_or_default()).trim_end().to_owned(),
    }
}
