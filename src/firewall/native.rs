//! What tables of nftables' own, which iptables knows nothing of, do with a packet: fail2ban's bans through nftables, for one.
//!
//! The chains that packets for this host come by are walked rule by rule, as those of iptables are. Of what a rule may ask, the usual
//! is understood; what becomes of a packet is unknown where it hangs on the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context;
use ipnetwork::IpNetwork;
use serde::Serialize;
use serde_json::Value;

use super::nft::{self, NftTable, is_of_iptables};
use super::path::{self, End, Look, NFT, Packet, Path, Point, Protocol, Start, Step, Verdict, unknown};

use super::saved::{holds_bans, is_event_guards};
use crate::programs::{output, run};

mod asks;
mod text;

const PACKAGE: &str = "nftables";

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
    /// The protocol, and the first of the ports, that it closes; nothing: any.
    #[must_use]
    pub fn closes(&self) -> (Option<Protocol>, Option<u16>) {
        (self.protocol, self.ports.first().map(|(first, _)| *first))
    }

    /// Whether it is of FusionPBX's `event_guard`.
    #[must_use]
    pub fn is_event_guards(&self) -> bool {
        is_event_guards(&self.chain)
    }

    /// What takes the rule away; `None` where there is none.
    #[must_use]
    pub fn delete(&self) -> Option<Vec<String>> {
        Some(at_rule("delete", &self.table, &self.chain, self.handle?))
    }
}

/// A command about a rule that is there.
pub(super) fn at_rule(does: &str, table: &str, chain: &str, handle: u64) -> Vec<String> {
    let handle = handle.to_string();
    let words = [NFT, does, "rule"].into_iter().chain(table.split_whitespace());
    words.chain([chain, "handle", &handle]).map(str::to_owned).collect()
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

/// The tables, as read for one address.
#[derive(Debug, Default)]
pub struct Native {
    chains: Vec<Chain>,
    /// Whether the address is in a set of a table; without those that could not be asked.
    sets: BTreeMap<(String, String), bool>,
    /// Of what the keys of the sets of a table are.
    keys: BTreeMap<(String, String), String>,
}

/// A chain of a table.
#[derive(Debug)]
pub(super) struct Chain {
    family: String,
    table: String,
    name: String,
    /// Where packets for this host come by it, and its priority there; `None`: only from other chains.
    hook: Option<(Point, i64)>,
    /// Whose packets it sees before all others do, in words; empty: of all interfaces.
    devices: String,
    /// By its policy.
    drops: bool,
    rules: Vec<Rule>,
}

#[derive(Debug)]
pub(super) struct Rule {
    expressions: Vec<Value>,
    /// What the kernel calls it by in its table, for good.
    handle: Option<u64>,
    /// Whether it stands where fail2ban or `event_guard` bans.
    pub(super) bans: bool,
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

/// What is known of the sets of a chain's table.
struct Sets<'a> {
    native: &'a Native,
    chain: &'a Chain,
}

impl Sets<'_> {
    fn key(&self, set: &str) -> (String, String) {
        (self.chain.full_table(), set.to_owned())
    }

    /// Whether the source is in a set; `None` if that is not known.
    fn has(&self, set: &str) -> Option<bool> {
        self.native.sets.get(&self.key(set)).copied()
    }

    /// Of what its keys are.
    fn keys(&self, set: &str) -> &str {
        self.native.keys.get(&self.key(set)).map_or("it is not there", String::as_str)
    }
}

/// Whether tables of this family may see packets of IP for this host.
fn sees_packets(family: &str) -> bool {
    ["inet", "ip", "ip6", "netdev"].contains(&family)
}

/// Takes away the rule that refuses an address. That it is gone already is no error.
pub fn delete(refusal: &Refusal, address: IpAddr, time: Duration) -> anyhow::Result<()> {
    // A table that was made anew begins to count its rules again.
    let Some(command) = refusal.delete() else { return Ok(()) };
    let is_there = || -> anyhow::Result<bool> {
        let native = Native::read(address, &|table| table.to_string() != refusal.table, time)?;
        Ok(native.refusals(address).contains(refusal))
    };
    if !is_there()? {
        return Ok(());
    }
    let args: Vec<&str> = command.iter().skip(1).map(String::as_str).collect();
    let Err(error) = run(PACKAGE, NFT, &args, "", time) else { return Ok(()) };
    if is_there()? { Err(error) } else { Ok(()) }
}

/// Takes an address out of a set of a table. That it is gone already is no error.
pub fn delete_element(table: &str, set: &str, address: IpAddr, time: Duration) -> anyhow::Result<()> {
    let element = format!("{{ {address} }}");
    let of = |does: &'static str| -> Vec<&str> {
        [does, "element"].into_iter().chain(table.split_whitespace()).chain([set, &element]).collect()
    };
    let Err(error) = run(PACKAGE, NFT, &of("delete"), "", time) else { return Ok(()) };
    let said = output(PACKAGE, NFT, &of("get"), "", time)?;
    if !said.status.success() && said.stderr.contains("No such file or directory") {
        Ok(())
    } else {
        Err(error)
    }
}

impl Native {
    /// The tables as they are, but for those that `is_known` from elsewhere; there may be none. No program runs longer than `time`.
    pub(super) fn read(
        address: IpAddr,
        is_known: &dyn Fn(&NftTable) -> bool,
        time: Duration,
    ) -> anyhow::Result<Self> {
        let address = address.to_canonical();
        let mut tables = nft::tables().context("the tables of nftables cannot be listed")?;
        tables.retain(|table| sees_packets(&table.family.to_string()) && !is_known(table));
        if tables.is_empty() {
            return Ok(Self::default());
        }
        // Without the elements: sets may have a million.
        let text = run(PACKAGE, "nft", &["-j", "-t", "list", "ruleset"], "", time)?;
        let ruleset: Value = serde_json::from_str(&text).context("nft -j list ruleset prints no JSON")?;
        let counts = |family: &str, name: &str| {
            tables.iter().any(|table| table.family.to_string() == family && table.name == name)
        };
        let (chains, keys) = (chains(&ruleset, &counts), keys(&ruleset));
        let mut native = Self { chains, sets: BTreeMap::new(), keys };
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

    /// Where a packet comes by, and in which order.
    pub(super) fn hooked<'a>(&'a self, packet: &Packet) -> impl Iterator<Item = (Point, i64, &'a Chain)> {
        let hooked = self.chains.iter().filter(|chain| chain.sees(packet));
        hooked.filter_map(|chain| chain.hook.map(|(point, priority)| (point, priority, chain)))
    }

    /// A packet's way through a chain, and those of its table that it leads to. Rules for which `counts` is false are passed over.
    pub(super) fn through(&self, chain: &Chain, packet: &Packet, counts: &dyn Fn(&Rule) -> bool) -> Path {
        let table = chain.full_table();
        let start = Start { program: NFT, table: &table, chain: &chain.name, drops: chain.drops };
        let mut path = path::through(start, &mut |name, at| {
            let Some(chain) = self.called(chain, name) else { return Look::End };
            let Some(rule) = chain.rules.get(at) else { return Look::End };
            if !counts(rule) {
                return Look::Passed;
            }
            let (holds, effect) = asks::rule(&rule.expressions, packet, &Sets { native: self, chain });
            let Some(holds) = holds else { return Look::Passed };
            let step = chain.step(at, rule, holds, effect);
            let effect = self.effect(chain, effect, &step);
            Look::Met(Box::new(step), effect)
        });
        if chain.hook.is_some_and(|(point, _)| point == Point::Ingress)
            && path.verdict.is_blocked()
            && let Some(end) = path.verdict.end()
        {
            // Of which interface a packet is, is not always known.
            let why = format!("{} refuses it before all other rules{}", end.place(), chain.devices);
            path.verdict = unknown(why);
        }
        path
    }

    /// What a packet meets of them alone.
    fn path(&self, packet: &Packet, counts: &dyn Fn(&Rule) -> bool) -> Option<Path> {
        let mut hooked: Vec<_> = self.hooked(packet).collect();
        hooked.sort_by_key(|(point, priority, _)| (*point, *priority));
        let paths = hooked.into_iter().map(|(_, _, chain)| self.through(chain, packet, counts));
        paths.reduce(|before, behind| before.then(behind, true))
    }

    fn effect<'a>(&'a self, chain: &Chain, effect: Effect<'a>, step: &Step) -> path::Effect<'a> {
        let by = || End::Rule(Box::new(step.clone()));
        match effect {
            Effect::GoesOn => path::Effect::GoesOn,
            Effect::Returns => path::Effect::Returns,
            Effect::Accepts => path::Effect::Ends(Verdict::Accepted { by: by() }),
            Effect::Refuses { rejects: false } => path::Effect::Ends(Verdict::Dropped { by: by() }),
            Effect::Refuses { rejects: true } => {
                path::Effect::Ends(Verdict::Rejected { by: by(), with: None })
            }
            Effect::Jumps(name) | Effect::Goes(name) if self.called(chain, name).is_none() => {
                let why = format!("{} leads to the chain {name}, which is not there", step.place());
                path::Effect::Ends(unknown(why))
            }
            Effect::Jumps(name) => path::Effect::Jumps(name),
            Effect::Goes(name) => path::Effect::Goes(name),
            Effect::Other(what) => {
                let why = format!("{} has `{what}`, which is not understood here", step.place());
                path::Effect::Ends(unknown(why))
            }
        }
    }

    fn called(&self, from: &Chain, name: &str) -> Option<&Chain> {
        let called = (&from.family, &from.table, name);
        self.chains.iter().find(|chain| (&chain.family, &chain.table, &*chain.name) == called)
    }

    /// The rules that refuse the address by its source, on some port at least: those that something else becomes of a packet by.
    pub(super) fn refusals(&self, address: IpAddr) -> Vec<Refusal> {
        let mut all: Vec<(&Rule, Refusal)> = vec![];
        for chain in &self.chains {
            let sets = Sets { native: self, chain };
            all.extend(chain.rules.iter().filter_map(|rule| {
                let rejects = asks::refuses_source(&rule.expressions, address, &sets)?;
                Some((rule, rule.refusal(chain, rejects)))
            }));
        }
        let is_one = |rule: &Rule| all.iter().any(|(other, _)| std::ptr::eq(*other, rule));
        let found = all.iter().filter_map(|(rule, refusal)| {
            let port = refusal.ports.first().map_or(ANY_PORT, |(first, _)| *first);
            let mut packets = vec![Packet::udp(address, port, []), Packet::syn(address, port)];
            packets.retain(|packet| refusal.protocol.is_none_or(|protocol| protocol == packet.protocol));
            let fates = packets.iter().filter_map(|packet| {
                let with = self.path(packet, &|other| std::ptr::eq(*rule, other) || !is_one(other))?;
                let without = self.path(packet, &|other| !is_one(other))?;
                // What a rule only may refuse it, too.
                let may_differ = with
                    .otherwise
                    .iter()
                    .map(|other| &other.verdict)
                    .ne(without.otherwise.iter().map(|other| &other.verdict));
                (with.verdict != without.verdict || may_differ).then_some(with.verdict)
            });
            let fates: Vec<Verdict> = fates.collect();
            let asks_more = !fates.iter().any(Verdict::is_blocked);
            (!fates.is_empty()).then(|| Refusal { asks_more, ..refusal.clone() })
        });
        found.collect()
    }

    /// Every rule that packets of a version may come to, in the order of the chains; each with the rule of a hooked chain that leads there.
    pub(super) fn rules_from<'a>(&'a self, chain: &'a Chain) -> Vec<(Step, usize)> {
        let mut places = vec![];
        let mut seen = BTreeSet::from([chain.name.as_str()]);
        self.list(chain, None, &mut seen, &mut places);
        places
    }

    fn list<'a>(
        &'a self,
        chain: &'a Chain,
        from: Option<usize>,
        seen: &mut BTreeSet<&'a str>,
        places: &mut Vec<(Step, usize)>,
    ) {
        for (at, rule) in chain.rules.iter().enumerate() {
            let from = from.unwrap_or(at + 1);
            places.push((chain.step(at, rule, path::Holds::Yes, Effect::GoesOn), from));
            for name in asks::targets(&rule.expressions) {
                if let Some(called) = self.called(chain, name).filter(|_| seen.insert(name)) {
                    self.list(called, Some(from), seen, places);
                }
            }
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

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn step(&self, at: usize, rule: &Rule, holds: path::Holds, effect: Effect<'_>) -> Step {
        let target = match effect {
            Effect::GoesOn => None,
            Effect::Accepts => Some("ACCEPT"),
            Effect::Refuses { rejects: false } => Some("DROP"),
            Effect::Refuses { rejects: true } => Some("REJECT"),
            Effect::Returns => Some("RETURN"),
            Effect::Jumps(to) | Effect::Goes(to) | Effect::Other(to) => Some(to),
        };
        Step {
            program: NFT.to_owned(),
            table: self.full_table(),
            chain: self.name.clone(),
            number: at + 1,
            rule: text::rule(&rule.expressions),
            handle: rule.handle,
            comment: None,
            tag: None,
            holds,
            target: target.map(str::to_owned),
        }
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

/// Of what the keys of sets are, as nft names it: `ipv4_addr`, `ipv4_addr . inet_service`.
fn keys(ruleset: &Value) -> BTreeMap<(String, String), String> {
    let sets = items(ruleset).iter().filter_map(|item| item.get("set").or_else(|| item.get("map")));
    let text = |item: &Value| item.as_str().unwrap_or_default().to_owned();
    let kind = |set: &Value| match set["type"].as_array() {
        Some(several) => several.iter().map(text).collect::<Vec<_>>().join(" . "),
        None => text(&set["type"]),
    };
    let of = |set: &Value| {
        let table = format!("{} {}", text(&set["family"]), text(&set["table"]));
        ((table, text(&set["name"])), kind(set))
    };
    sets.map(of).collect()
}

fn items(ruleset: &Value) -> &[Value] {
    ruleset["nftables"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Those of the tables that count.
fn chains(ruleset: &Value, counts: &dyn Fn(&str, &str) -> bool) -> Vec<Chain> {
    let items = items(ruleset);
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
        if !counts(&family, &table) || sleeps(&family, &table) {
            return None;
        }
        let hook = match item["hook"].as_str() {
            Some("ingress") => Some(Point::Ingress),
            Some("prerouting") => Some(Point::Prerouting),
            Some("input") => Some(Point::Input),
            _ => None,
        };
        // Those that have their names in tables of iptables, it prints.
        let is_printed = is_of_iptables(&family, &table)
            && ["INPUT", "PREROUTING"].iter().any(|name| item["name"] == *name);
        let hook = hook.filter(|_| !is_printed);
        let hook = hook.map(|hook| (hook, item["prio"].as_i64().unwrap_or(0)));
        let devices: Vec<&str> = asks::each(&item["dev"]).filter_map(Value::as_str).collect();
        let devices = if devices.is_empty() {
            ", on interfaces that are not told".to_owned()
        } else {
            format!(", on {}", devices.join(", "))
        };
        Some(Chain {
            family,
            table,
            name: text(item, "name"),
            hook,
            devices,
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
            let bans = holds_bans(&chain.table) || is_event_guards(&chain.name);
            chain.rules.push(Rule { expressions, handle: rule["handle"].as_u64(), bans });
        }
    }
    chains
}

#[cfg(test)]
mod tests;
