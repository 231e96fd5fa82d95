//! What tables of nftables' own, which iptables knows nothing of, do with a packet: fail2ban's bans through nftables, for one.
//!
//! The chains that packets for this host come by are walked in the order of the kernel, rule by rule, through chains and back. Of what
//! a rule may ask, the usual is understood; what becomes of a packet is unclear where it hangs on the rest.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context;
use ipnetwork::IpNetwork;
use serde::Serialize;
use serde_json::Value;

use super::nft::{self, is_of_iptables};
use super::path::{Packet, Protocol};
use super::programs::output;
use super::run;
use super::saved::is_event_guards;

mod asks;

use asks::Asked;

const PACKAGE: &str = "nftables";

/// No packet passes more rules here.
const MOST_RULES: usize = 100_000;

/// A port to try rules at that name none.
const ANY_PORT: u16 = 5060;

/// Whom a refusal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum About {
    /// The rule asks for the source.
    Source,
    /// The rule does not.
    Anybody,
    /// There is no rule: it is the policy of the chain.
    Policy,
}

/// A rule that drops or rejects what comes from an address, or the policy of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Refusal {
    /// Family and name of the table, as `inet f2b-table`.
    pub table: String,
    /// The chain of the rule.
    pub chain: String,
    /// Whom it is about.
    pub about: About,
    /// The set that it is by, if the rule does not name the address itself.
    pub set: Option<String>,
    /// Whether it is refused because the set does not have it.
    pub unless: bool,
    /// The address or network that the rule names, if it names one.
    pub network: Option<IpNetwork>,
    /// What the kernel calls the rule by in its table, for good; `None`: there is no rule.
    pub handle: Option<u64>,
    /// Whether it is answered that it may not.
    pub rejects: bool,
    /// By which protocol; `None`: by any.
    pub protocol: Option<Protocol>,
    /// To which ports, from the first to the last of each range; none: to all.
    pub ports: Vec<(u16, u16)>,
    /// Whether it also hangs on what is not understood, of this rule or of others before it.
    pub asks_more: bool,
}

impl Refusal {
    /// Whether a packet meets it; `None` if the rule asks more of it.
    #[must_use]
    pub fn meets(&self, protocol: Protocol, port: u16) -> Option<bool> {
        let by = self.protocol.is_none_or(|its| its == protocol);
        let to =
            self.ports.is_empty() || self.ports.iter().any(|(first, last)| (*first..=*last).contains(&port));
        match by && to {
            true if self.asks_more => None,
            met => Some(met),
        }
    }
}

impl Refusal {
    /// Whether it is of FusionPBX's `event_guard`.
    #[must_use]
    pub fn is_event_guards(&self) -> bool {
        is_event_guards(&self.chain)
    }

    /// The arguments of `nft` that take the rule away; `None` where there is none.
    #[must_use]
    pub fn delete(&self) -> Option<Vec<String>> {
        self.at_rule("delete")
    }

    /// Those that let an address in just before the rule.
    #[must_use]
    pub fn let_in_before(&self, address: IpAddr) -> Option<Vec<String>> {
        let version = if address.is_ipv4() { "ip" } else { "ip6" };
        let rest = [version, "saddr", &address.to_string(), "accept"].map(str::to_owned);
        let mut argv = self.at_rule("insert")?;
        argv.extend(rest);
        Some(argv)
    }

    fn at_rule(&self, does: &str) -> Option<Vec<String>> {
        let handle = self.handle?.to_string();
        let words = [does, "rule"].into_iter().chain(self.table.split_whitespace());
        Some(words.chain([self.chain.as_str(), "handle", &handle]).map(str::to_owned).collect())
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let does = if self.rejects { "rejects" } else { "drops" };
        write!(f, "nftables, table {}: the chain {} {does} it", self.table, self.chain)?;
        match (self.about, &self.set) {
            (About::Policy, _) => f.write_str(" by its policy")?,
            (About::Anybody, _) => f.write_str(", whoever sends it")?,
            (About::Source, Some(set)) if self.unless => write!(f, ", as the set {set} does not have it")?,
            (About::Source, Some(set)) => write!(f, ", as the set {set} has it")?,
            (About::Source, None) => f.write_str(", by name")?,
        }
        let mut of = vec![];
        of.extend(self.protocol.map(|protocol| protocol.to_string()));
        if !self.ports.is_empty() {
            let range = |(first, last): &(u16, u16)| {
                if first == last { first.to_string() } else { format!("{first}-{last}") }
            };
            let ports: Vec<String> = self.ports.iter().map(range).collect();
            of.push(format!("port {}", ports.join(", ")));
        }
        if self.asks_more {
            of.push("and more that is not understood here".to_owned());
        }
        if of.is_empty() { Ok(()) } else { write!(f, " ({})", of.join(", ")) }
    }
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing refuses it; but it may be otherwise when limits are exceeded, in words.
    Passes(Vec<String>),
    /// It is refused.
    Refused(Refusal),
    /// It hangs on what is not understood, in words.
    Unclear(String),
}

/// The tables, as read for one address.
#[derive(Debug, Default)]
pub struct Native {
    chains: Vec<Chain>,
    /// Whether the address is in a set of a table; without those that could not be asked.
    sets: BTreeMap<(String, String), bool>,
}

/// A chain of a table.
#[derive(Debug)]
struct Chain {
    family: String,
    table: String,
    name: String,
    /// Where packets for this host come by it, and its priority there; `None`: only from other chains.
    hook: Option<(Hook, i64)>,
    /// By its policy.
    drops: bool,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    expressions: Vec<Value>,
    handle: Option<u64>,
}

/// Where packets for this host come by, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Hook {
    Ingress,
    Prerouting,
    Input,
}

/// What a rule does with a packet that it matches.
#[derive(Clone, Copy)]
enum Effect<'a> {
    GoesOn,
    Accepts,
    Refuses {
        rejects: bool,
    },
    Returns,
    Jumps(&'a str),
    /// This chain is left for good.
    Goes(&'a str),
    /// This, which is not understood.
    Other(&'a str),
}

/// How a chain is left.
enum Left {
    /// At its end, or before.
    Back,
    Accepted,
    Refused(Refusal),
    Unclear(String),
}

/// A packet on its way through a hooked chain.
struct Walk<'a> {
    native: &'a Native,
    packet: &'a Packet,
    /// Rules for which it is false are passed over.
    counts: &'a dyn Fn(&Rule) -> bool,
    rules: usize,
    limits: Vec<String>,
    /// What may have let it in already, or brought it elsewhere; in words.
    may_accept: Option<String>,
    /// What may have refused it already.
    may_refuse: Option<String>,
}

/// Takes away the rule that refuses an address. That it is gone already is no error.
pub fn delete(refusal: &Refusal, address: IpAddr, time: Duration) -> anyhow::Result<()> {
    // A table that was made anew begins to count its rules again.
    let Some(command) = refusal.delete() else { return Ok(()) };
    let is_there = || Ok::<_, anyhow::Error>(refusals(address, time)?.contains(refusal));
    if !is_there()? {
        return Ok(());
    }
    let args: Vec<&str> = command.iter().map(String::as_str).collect();
    let Err(error) = run(PACKAGE, "nft", &args, "", time) else { return Ok(()) };
    if is_there()? { Err(error) } else { Ok(()) }
}

/// Takes an address out of a set of a table. That it is gone already is no error.
pub fn delete_element(table: &str, set: &str, address: IpAddr, time: Duration) -> anyhow::Result<()> {
    let element = format!("{{ {address} }}");
    let of = |does: &'static str| -> Vec<&str> {
        [does, "element"].into_iter().chain(table.split_whitespace()).chain([set, &element]).collect()
    };
    let Err(error) = run(PACKAGE, "nft", &of("delete"), "", time) else { return Ok(()) };
    let said = output(PACKAGE, "nft", &of("get"), "", time)?;
    if !said.status.success() && said.stderr.contains("No such file or directory") {
        Ok(())
    } else {
        Err(error)
    }
}

/// The rules that refuse an address by its source, on some port at least; none where there are no such tables.
pub fn refusals(address: IpAddr, time: Duration) -> anyhow::Result<Vec<Refusal>> {
    Ok(Native::read(address, time)?.refusals(address))
}

impl Native {
    /// The tables as they are; there may be none. No program runs longer than `time`.
    pub fn read(address: IpAddr, time: Duration) -> anyhow::Result<Self> {
        let address = address.to_canonical();
        let tables = nft::tables().context("the tables of nftables cannot be listed")?;
        if tables.iter().all(nft::NftTable::is_of_iptables) {
            return Ok(Self::default());
        }
        // Without the elements: sets may have a million.
        let text = run(PACKAGE, "nft", &["-j", "-t", "list", "ruleset"], "", time)?;
        let ruleset: Value = serde_json::from_str(&text).context("nft -j list ruleset prints no JSON")?;
        let mut native = Self { chains: chains(&ruleset), sets: BTreeMap::new() };
        let element = format!("{{ {address} }}");
        for chain in &native.chains {
            for set in chain.expressions().filter_map(|expression| asks::source_set(expression, address)) {
                let key = (chain.full_table(), set.to_owned());
                if native.sets.contains_key(&key) {
                    continue;
                }
                let args = ["get", "element", &chain.family, &chain.table, set, &element];
                let said = output(PACKAGE, "nft", &args, "", time)?;
                // That it is not there is an error too.
                if said.status.success() || said.stderr.contains("No such file or directory") {
                    native.sets.insert(key, said.status.success());
                }
            }
        }
        Ok(native)
    }

    /// What becomes of a packet from the address that the tables were read for.
    #[must_use]
    pub fn fate(&self, packet: &Packet) -> Fate {
        self.fate_by(packet, &|_| true)
    }

    fn fate_by(&self, packet: &Packet, counts: &dyn Fn(&Rule) -> bool) -> Fate {
        let mut hooked: Vec<_> = self.chains.iter().filter_map(|chain| Some((chain, chain.hook?))).collect();
        hooked.retain(|(chain, _)| chain.sees(packet));
        hooked.sort_by_key(|(_, hook)| *hook);
        let mut limits = vec![];
        for (chain, (hook, _)) in hooked {
            let mut walk = Walk {
                native: self,
                packet,
                counts,
                rules: 0,
                limits: vec![],
                may_accept: None,
                may_refuse: None,
            };
            let left = match walk.through(chain) {
                Left::Back if chain.drops => Left::Refused(chain.refusal(About::Policy)),
                left => left,
            };
            let doubt = match left {
                Left::Unclear(why) => Some(why),
                // Of which interface it is, nft does not always say.
                Left::Refused(refusal) if hook == Hook::Ingress => Some(format!("perhaps {refusal}")),
                Left::Refused(refusal) if walk.may_accept.is_none() => return Fate::Refused(refusal),
                Left::Refused(_) => walk.may_accept,
                Left::Back | Left::Accepted => walk.may_refuse,
            };
            if let Some(why) = doubt {
                return Fate::Unclear(why);
            }
            limits.append(&mut walk.limits);
        }
        Fate::Passes(limits)
    }

    fn called(&self, from: &Chain, name: &str) -> Option<&Chain> {
        let called = (&from.family, &from.table, name);
        self.chains.iter().find(|chain| (&chain.family, &chain.table, &*chain.name) == called)
    }

    fn has(&self, chain: &Chain, set: &str) -> Option<bool> {
        self.sets.get(&(chain.full_table(), set.to_owned())).copied()
    }

    /// Those that something else becomes of a packet by.
    fn refusals(&self, address: IpAddr) -> Vec<Refusal> {
        let mut all: Vec<(&Rule, Refusal)> = vec![];
        for chain in &self.chains {
            all.extend(chain.rules.iter().filter_map(|rule| {
                let expressions = &rule.expressions;
                let rejects = asks::refuses_source(expressions, address, &|set| self.has(chain, set))?;
                Some((rule, rule.refusal(chain, rejects)))
            }));
        }
        let is_one = |rule: &Rule| all.iter().any(|(other, _)| std::ptr::eq(*other, rule));
        let found = all.iter().filter_map(|(rule, refusal)| {
            let port = refusal.ports.first().map_or(ANY_PORT, |(first, _)| *first);
            let mut packets = vec![Packet::udp(address, port, []), Packet::syn(address, port)];
            packets.retain(|packet| refusal.protocol.is_none_or(|protocol| protocol == packet.protocol));
            let fates = packets.iter().filter_map(|packet| {
                let with = self.fate_by(packet, &|other| std::ptr::eq(*rule, other) || !is_one(other));
                (with != self.fate_by(packet, &|other| !is_one(other))).then_some(with)
            });
            let fates: Vec<Fate> = fates.collect();
            let asks_more = !fates.iter().any(|fate| matches!(fate, Fate::Refused(_)));
            (!fates.is_empty()).then(|| Refusal { asks_more, ..refusal.clone() })
        });
        found.collect()
    }
}

impl Walk<'_> {
    fn through(&mut self, chain: &Chain) -> Left {
        for (at, rule) in chain.rules.iter().enumerate() {
            self.rules += 1;
            if self.rules > MOST_RULES {
                return Left::Unclear(format!("there are more than {MOST_RULES} rules on its way"));
            }
            if !(self.counts)(rule) {
                continue;
            }
            let place = || {
                format!(
                    "rule {} of the chain {} of nftables' table {}",
                    at + 1,
                    chain.name,
                    chain.full_table()
                )
            };
            let has = |set: &str| self.native.has(chain, set);
            let (asked, effect) = asks::rule(&rule.expressions, self.packet, &has);
            let limited = match asked {
                Asked::No => continue,
                Asked::Unknown => {
                    self.perhaps(effect, chain, &place());
                    continue;
                }
                Asked::Yes { limited } => limited.filter(|_| !matches!(effect, Effect::GoesOn)),
            };
            if let Some(exceeded) = limited {
                self.limits.push(format!("otherwise when more come than {} allows", place()));
                if exceeded {
                    continue;
                }
            }
            match effect {
                Effect::GoesOn => {}
                Effect::Accepts => return Left::Accepted,
                Effect::Refuses { rejects } => return Left::Refused(rule.refusal(chain, rejects)),
                Effect::Returns => return Left::Back,
                Effect::Jumps(name) | Effect::Goes(name) => match self.called(chain, name) {
                    Left::Back if matches!(effect, Effect::Jumps(_)) => {}
                    left => return left,
                },
                Effect::Other(what) => {
                    return Left::Unclear(format!("{} has `{what}`, which is not understood", place()));
                }
            }
        }
        Left::Back
    }

    fn called(&mut self, from: &Chain, name: &str) -> Left {
        match self.native.called(from, name) {
            Some(called) => self.through(called),
            None => Left::Unclear(format!(
                "the chain {name} of nftables' table {} is not there",
                from.full_table()
            )),
        }
    }

    /// Remembers what a rule would do of which it is not known whether it matches.
    fn perhaps(&mut self, effect: Effect<'_>, chain: &Chain, place: &str) {
        let (accepts, refuses) = match effect {
            Effect::GoesOn => (false, false),
            Effect::Accepts | Effect::Returns => (true, false),
            Effect::Refuses { .. } => (false, true),
            Effect::Goes(_) | Effect::Other(_) => (true, true),
            Effect::Jumps(name) => match self.called(chain, name) {
                Left::Back => (false, false),
                Left::Accepted => (true, false),
                Left::Refused(_) => (false, true),
                Left::Unclear(_) => (true, true),
            },
        };
        let why = || format!("{place} asks what is not understood");
        if accepts {
            self.may_accept.get_or_insert_with(why);
        }
        if refuses {
            self.may_refuse.get_or_insert_with(why);
        }
    }
}

impl Rule {
    fn refusal(&self, chain: &Chain, rejects: bool) -> Refusal {
        let refusal = Refusal { rejects, handle: self.handle, ..chain.refusal(About::Anybody) };
        asks::described(&self.expressions, refusal)
    }
}

impl Chain {
    /// Family and name of its table.
    fn full_table(&self) -> String {
        format!("{} {}", self.family, self.table)
    }

    fn expressions(&self) -> impl Iterator<Item = &Value> {
        self.rules.iter().flat_map(|rule| &rule.expressions)
    }

    fn sees(&self, packet: &Packet) -> bool {
        match self.family.as_str() {
            "ip" => packet.source.is_ipv4(),
            "ip6" => packet.source.is_ipv6(),
            _ => true,
        }
    }

    fn refusal(&self, about: About) -> Refusal {
        Refusal {
            table: self.full_table(),
            chain: self.name.clone(),
            about,
            set: None,
            unless: false,
            network: None,
            handle: None,
            rejects: false,
            protocol: None,
            ports: vec![],
            asks_more: false,
        }
    }
}

/// Those of tables that are not of iptables, and that see packets of IP.
fn chains(ruleset: &Value) -> Vec<Chain> {
    let items = ruleset["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of = |kind: &'static str| items.iter().filter_map(move |item| item.get(kind));
    let text = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
    let sleeps = |family: &str, table: &str| {
        of("table").any(|item| {
            let flag = |flag: &Value| flag.as_str().is_some_and(|flag| flag.starts_with("dorm"));
            item["family"] == family && item["name"] == table && asks::each(&item["flags"]).any(flag)
        })
    };
    let chain = |item: &Value| {
        let (family, table) = (text(item, "family"), text(item, "table"));
        let seen = ["inet", "ip", "ip6", "netdev"].contains(&family.as_str());
        if !seen || is_of_iptables(&family, &table) || sleeps(&family, &table) {
            return None;
        }
        let hook = match item["hook"].as_str() {
            Some("ingress") => Some(Hook::Ingress),
            Some("prerouting") => Some(Hook::Prerouting),
            Some("input") => Some(Hook::Input),
            _ => None,
        };
        let hook = hook.map(|hook| (hook, item["prio"].as_i64().unwrap_or(0)));
        Some(Chain {
            family,
            table,
            name: text(item, "name"),
            hook,
            drops: item["policy"] == "drop",
            rules: vec![],
        })
    };
    let mut chains: Vec<Chain> = of("chain").filter_map(chain).collect();
    for rule in of("rule") {
        let place = (text(rule, "family"), text(rule, "table"), text(rule, "chain"));
        let its =
            |chain: &&mut Chain| (&chain.family, &chain.table, &chain.name) == (&place.0, &place.1, &place.2);
        if let Some(chain) = chains.iter_mut().find(its) {
            let expressions = rule["expr"].as_array().cloned().unwrap_or_default();
            chain.rules.push(Rule { expressions, handle: rule["handle"].as_u64() });
        }
    }
    chains
}

#[cfg(test)]
mod tests;
