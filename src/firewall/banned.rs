//! Whom the chains of fail2ban and `event_guard` ban, rule by rule.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::iptables::{Other, Program, read_others};
use super::layout::{BANS, INPUT};
use super::native::at_rule;
use super::path::{FILTER, NFT, Protocol, Step};
use super::pause::is_pause;
use super::saved::{Saved, SavedRule, Verdict, holds_bans};
use super::{Firewall, Layout, Table, Version};
use crate::matcher::strings;

/// The chain of tables beside `filter` that packets come by first.
const PREROUTING: &str = "PREROUTING";

/// A rule of theirs that refuses an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Banned {
    /// `iptables-nft`, `ip6tables-legacy`, ...
    pub program: String,
    /// `filter`, `raw`, ...
    pub table: &'static str,
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
        let rule = self.rule.iter().cloned();
        command(&self.program, self.table, ["-D".to_owned(), self.chain.clone()].into_iter().chain(rule))
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
        command(&self.program, &self.table, options)
    }
}

fn command(program: &str, table: &str, options: impl IntoIterator<Item = String>) -> Vec<String> {
    let table = (table != FILTER).then(|| ["-t".to_owned(), table.to_owned()]);
    std::iter::once(program.to_owned()).chain(table.into_iter().flatten()).chain(options).collect()
}

impl Firewall {
    /// The rules of the tables `filter` in chains of fail2ban and `event_guard` that refuse an address, in the order in which a packet meets them; and those of
    /// fail2ban that refuse whoever is in a set, which [`Banned::set`] names: whether he is, the set knows.
    #[must_use]
    pub fn bans_of(&self, address: IpAddr) -> Vec<Banned> {
        let version = Version::of(address);
        let tables = self.tables.iter().filter(|table| table.program.version == version);
        tables.flat_map(|Table { program, saved }| bans_in(program, FILTER, saved, address)).collect()
    }

    /// The same without bans and blocked accounts: what would still be there if nobody were banned.
    #[must_use]
    pub fn without_bans(&self) -> Self {
        self.each(without_bans)
    }

    /// The same without the rules of a pause: what is in force behind it.
    #[must_use]
    pub fn without_pause(&self) -> Self {
        self.each(|saved| without(saved, |_| false, is_pause))
    }

    fn each(&self, change: impl Fn(&Saved) -> Saved) -> Self {
        let tables = self.tables.iter();
        let tables =
            tables.map(|Table { program, saved }| Table { program: program.clone(), saved: change(saved) });
        Self { variant: self.variant, tables: tables.collect() }
    }

    /// Takes one of these rules away. That it is gone already is no error.
    pub fn delete_ban(banned: &Banned) -> anyhow::Result<()> {
        let Err(error) = Program::delete(&banned.delete()) else { return Ok(()) };
        if banned.is_there()? { Err(error) } else { Ok(()) }
    }
}

impl Banned {
    fn is_there(&self) -> anyhow::Result<bool> {
        let is_in = |saved: &Saved| saved.rules(&self.chain).iter().any(|rule| rule.arguments() == self.rule);
        if self.table == FILTER {
            let mut tables = Firewall::read()?.tables.into_iter();
            return Ok(tables.any(|table| table.program.name() == self.program && is_in(&table.saved)));
        }
        let version = if self.program.starts_with("ip6") { Version::V6 } else { Version::V4 };
        for Other { program, saved, .. } in read_others(version, &[self.table])? {
            if program.name() == self.program && is_in(&saved?) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A table without bans and blocked accounts.
pub(super) fn without_bans(saved: &Saved) -> Saved {
    let ours = [BANS, strings::PREFIX].map(Layout::nothing);
    let is_ban = |name: &str| holds_bans(name) || ours.iter().any(|ours| ours.owns(name));
    without(saved, is_ban, SavedRule::is_ban)
}

fn without(saved: &Saved, is_empty: impl Fn(&str) -> bool, is_gone: impl Fn(&SavedRule) -> bool) -> Saved {
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
}

/// The same in a table of this name.
pub(super) fn bans_in(program: &Program, table: &'static str, saved: &Saved, address: IpAddr) -> Vec<Banned> {
    let mut search = Search { program, table, saved, address, seen: BTreeSet::new(), found: vec![] };
    for chain in [PREROUTING, INPUT] {
        if search.seen.insert(chain.to_owned()) {
            search.follow(chain, None);
        }
    }
    for chain in saved.chains.keys().filter(|chain| holds_bans(chain) && !search.seen.contains(*chain)) {
        search.found.extend(search.in_chain(chain, None));
    }
    search.found
}

/// A search for bans along the ways of packets, also through chains of others.
struct Search<'a> {
    program: &'a Program,
    table: &'static str,
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
            self.found.extend(self.in_chain(chain, led_by));
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
                    self.found.push(self.banned(chain, rule, None, led_by));
                }
                _ => {}
            }
        }
    }

    fn in_chain(&self, chain: &str, led_by: Option<&SavedRule>) -> Vec<Banned> {
        let refused = self.saved.rules(chain).iter().filter(|rule| rule.verdict() == Some(Verdict::Refuse));
        let of_address = refused.filter_map(|rule| {
            let network: IpNetwork = rule.value("-s")?.parse().ok()?;
            network.contains(self.address).then(|| self.banned(chain, rule, Some(network), led_by))
        });
        of_address.collect()
    }

    fn banned(
        &self,
        chain: &str,
        rule: &SavedRule,
        network: Option<IpNetwork>,
        led_by: Option<&SavedRule>,
    ) -> Banned {
        let set = if network.is_none() { rule.value("--match-set") } else { None };
        let protocol = led_by.and_then(|rule| rule.value("-p"));
        let protocol = [Protocol::Udp, Protocol::Tcp]
            .into_iter()
            .find(|known| protocol.as_deref() == Some(known.name()));
        let port = led_by.and_then(ports);
        let port = port.and_then(|ports| ports.split([',', ':']).next()?.parse().ok());
        Banned {
            program: self.program.name(),
            table: self.table,
            chain: chain.to_owned(),
            rule: rule.arguments(),
            network,
            set,
            reach: led_by.map(reach),
            protocol,
            port,
        }
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
