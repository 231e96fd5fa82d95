//! The order of the checks, the due diligence: what each packet for this host goes through behind fail2ban's bans.
//!
//! ```text
//! INPUT               bans, then everything but loopback --> RINGFENCE, once
//! RINGFENCE           established flows, but to ports of SIP -> back
//!                     SIP over UDP ----------> RINGFENCE-UDP
//!                     odd TCP flags ---------> RINGFENCE-FLAGS and on
//!                     SIP over TCP ----------> RINGFENCE-TCP
//!                     listed sources --------> RINGFENCE-KNOWN
//!                     limits and restrictions of other ports
//! RINGFENCE-UDP, -TCP blocked accounts (ringfence-block puts its jump here)
//!                     known sources ---------> RINGFENCE-KNOWN
//!                     scanners, limits, restrictions of SIP's ports
//! RINGFENCE-KNOWN     allowed or seen -> back; on a block list -> drop; else RINGFENCE-SLAMMING
//! ```
//!
//! One rule asks all sets of a family at once, so that a packet from nobody in particular meets few rules.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::{Case, Chain, Hook, Layout, Pattern, Rule, Version};
use crate::config::firewall::{AllowMeans, IAX_PORT, PortRange, Rate};
use crate::config::{Config, Firewall, ListName, Mode, Ports};
use crate::drops::{Kind, Reason};
use crate::kernel_sets::{self, Names, PORTS};

/// What the names of our chains begin with; also the name of the first.
pub const PREFIX: &str = "RINGFENCE";

/// What SIP over UDP goes through.
pub const UDP: &str = "RINGFENCE-UDP";

/// What SIP over TCP goes through.
pub const TCP: &str = "RINGFENCE-TCP";

const FLAGS: &str = "RINGFENCE-FLAGS";
const KNOWN: &str = "RINGFENCE-KNOWN";
const AGENTS: &str = "RINGFENCE-AGENTS";
const EXCEEDED: &str = "RINGFENCE-EXCEEDED";
const SLAMMING: &str = "RINGFENCE-SLAMMING";
/// What is denied goes there, where more is done with it than dropping it.
pub const DENY: &str = "RINGFENCE-DENY";

/// What the rules depend on.
#[derive(Clone, Debug)]
pub struct Settings {
    firewall: Firewall,
    mode: Mode,
    /// Rules may ask for the state of connections.
    tracked: bool,
    restrictions: Vec<Bound>,
}

/// Ports, and the lists that have somebody in them who may reach them.
#[derive(Clone, Debug)]
struct Bound {
    ports: Ports,
    to: Vec<ListName>,
    /// Of IPv4, and of IPv6.
    somebody: [Vec<ListName>; 2],
}

impl Bound {
    /// The lists with somebody who speaks it.
    fn somebody(&self, version: Version) -> &[ListName] {
        match version {
            Version::V4 => &self.somebody[0],
            Version::V6 => &self.somebody[1],
        }
    }
}

/// How many IPv4 and IPv6 networks a list has.
pub type Counts = BTreeMap<ListName, [usize; 2]>;

impl Settings {
    /// As the settings say, on a host where rules may ask for the state of connections or not; `counts` are of the lists that ports
    /// are restricted to.
    ///
    /// An error names the list of a restriction that there is not.
    pub fn new(config: &Config, tracked: bool, counts: &Counts) -> Result<Self, String> {
        let firewall = config.firewall.clone();
        let lists = firewall.restricted_to(&config.lists)?;
        let bound = |(restriction, to): (&crate::config::firewall::Restriction, Vec<ListName>)| {
            let count = |list: &ListName| counts.get(list).copied().unwrap_or_default();
            // Whoever is on a list that we do not have would be locked out.
            let whole = to.iter().all(|list| count(list) != [0, 0]);
            let somebody = [0, 1].map(|family| {
                let has = |list: &&ListName| whole && count(list)[family] > 0;
                to.iter().filter(has).cloned().collect::<Vec<_>>()
            });
            Bound { ports: restriction.ports.clone(), to, somebody }
        };
        let restrictions = firewall.restrict.iter().zip(lists).map(bound).collect();
        Ok(Self { firewall, mode: config.firewall_mode(), tracked, restrictions })
    }

    /// Whether rules ask for the state of connections.
    #[must_use]
    pub const fn tracked(&self) -> bool {
        self.tracked
    }

    /// The ports on which every packet is looked at.
    pub fn ports(&self) -> impl Iterator<Item = PortRange> {
        watched_ports(&self.firewall)
    }

    /// Ports, and the lists whose sources alone reach them; without those that are open to all.
    pub fn restrictions(&self, version: Version) -> impl Iterator<Item = (&Ports, &[ListName])> {
        let bounds = self.restrictions.iter().map(move |bound| (&bound.ports, bound.somebody(version)));
        bounds.filter(|(_, lists)| !lists.is_empty())
    }

    /// What is not restricted though it should be, for people.
    #[must_use]
    pub fn unrestricted(&self) -> Vec<String> {
        let mut problems = vec![];
        for Bound { ports, to, somebody } in &self.restrictions {
            let names: Vec<&str> = to.iter().map(ListName::as_str).collect();
            let names = names.join(", ");
            match somebody.each_ref().map(Vec::is_empty) {
                [true, true] => problems.push(format!(
                    "ports {ports} are open to all: not all of {names} have addresses; run ringfence-lists refresh"
                )),
                [false, true] => problems.push(format!("ports {ports} are open to all over IPv6: nobody on {names} has IPv6")),
                [true, false] => problems.push(format!("ports {ports} are open to all over IPv4: nobody on {names} has IPv4")),
                [false, false] => {}
            }
        }
        problems
    }

    /// The chains and their jump.
    #[must_use]
    pub fn layout(&self, version: Version) -> Layout {
        Order { settings: self, version, names: kernel_sets::names(version.family()) }.layout()
    }
}

/// The ports on which every packet is looked at, by these settings.
pub fn watched_ports(firewall: &Firewall) -> impl Iterator<Item = PortRange> {
    let iax = firewall.iax_limit.rate().map(|_| PortRange::one(IAX_PORT));
    firewall.sip_ports.ranges().copied().chain(iax)
}

/// A request of SIP that is limited.
struct Method {
    name: &'static str,
    /// In the name of the kernel's table of sources.
    table: &'static str,
    limit: fn(&Firewall) -> Option<Rate>,
}

const METHODS: [Method; 3] = [
    Method { name: "REGISTER", table: "reg", limit: |firewall| firewall.register_limit.rate() },
    Method { name: "INVITE", table: "inv", limit: |firewall| firewall.invite_limit.rate() },
    Method { name: "OPTIONS", table: "opt", limit: |firewall| firewall.options_limit.rate() },
];

/// Flags that no segment of TCP has together, as `--tcp-flags` reads them: those looked at, and those of them that are set.
const IMPOSSIBLE: [(&str, &str); 6] = [
    ("FIN,SYN,RST,PSH,ACK,URG NONE", "no TCP flags at all"),
    ("FIN,SYN FIN,SYN", "TCP flags SYN and FIN"),
    ("SYN,RST SYN,RST", "TCP flags SYN and RST"),
    ("FIN,RST FIN,RST", "TCP flags FIN and RST"),
    ("FIN,ACK FIN", "TCP flag FIN without ACK"),
    ("ACK,URG URG", "TCP flag URG without ACK"),
];

struct Order<'a> {
    settings: &'a Settings,
    version: Version,
    names: Names,
}

impl Order<'_> {
    fn layout(&self) -> Layout {
        let mut chains = vec![
            Chain::new(PREFIX, self.first()),
            Chain::new(FLAGS, self.flags()),
            Chain::new(UDP, self.sip("udp")),
            Chain::new(TCP, self.sip("tcp")),
            Chain::new(KNOWN, self.known()),
        ];
        if !self.firewall().agents.is_empty() {
            chains.push(Chain::new(AGENTS, self.agents()));
        }
        chains.push(Chain::new(EXCEEDED, self.exceeded()));
        chains.push(Chain::new(SLAMMING, self.slamming()));
        if self.denies_by_chain() {
            chains.push(Chain::new(DENY, self.deny_chain()));
        }
        let hook = Hook::in_input(Rule::new("! -i lo", PREFIX).about("everything but loopback"));
        Layout { prefix: PREFIX.to_owned(), chains, hooks: vec![hook] }
    }

    fn firewall(&self) -> &Firewall {
        &self.settings.firewall
    }

    /// A rule that drops: the kernel counts it in any case.
    fn deny(&self, matches: impl Into<String>) -> Rule {
        if self.denies_by_chain() { Rule::goto(matches, DENY) } else { Rule::new(matches, "DROP") }
    }

    fn observes(&self) -> bool {
        self.settings.mode == Mode::Observe
    }

    fn denies_by_chain(&self) -> bool {
        self.observes() || self.firewall().log_prefix.get().is_some()
    }

    fn deny_chain(&self) -> Vec<Rule> {
        let prefix = self.firewall().log_prefix.get().unwrap_or("ringfence would drop: ");
        let log =
            Rule::new("-m limit --limit 10/min --limit-burst 20", format!("LOG --log-prefix \"{prefix}\""));
        let log = log.about("at most ten a minute");
        if self.observes() {
            vec![log]
        } else {
            vec![log, Rule::new("", "DROP").counting_for(DENY).about("what is denied")]
        }
    }

    fn first(&self) -> Vec<Rule> {
        let ports = &self.firewall().sip_ports;
        let mut rules = vec![];
        if self.settings.tracked {
            let state = "-m conntrack --ctstate RELATED,ESTABLISHED";
            rules.push(
                Rule::new(format!("{state} -m set ! --match-set {PORTS} dst"), "RETURN")
                    .about("established, and not SIP"),
            );
        }
        rules.push(Rule::goto(format!("-p udp -m multiport --dports {ports}"), UDP).about("SIP over UDP"));
        let state = if self.settings.tracked { " -m conntrack ! --ctstate RELATED,ESTABLISHED" } else { "" };
        rules.push(
            Rule::new(format!("-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK,URG SYN{state}"), FLAGS)
                .about("TCP that is no plain SYN"),
        );
        rules.push(Rule::goto(format!("-p tcp -m multiport --dports {ports}"), TCP).about("SIP over TCP"));
        // Not who exceeded a limit: whoever forges his address must not close all other ports to him.
        rules.push(
            Rule::goto(format!("-m set --match-set {} src", self.names.listed), KNOWN)
                .about("sources that are listed, or seen"),
        );
        if let Some(begins) = self.iax() {
            let goes_on =
                format!("-p udp -m udp --dport {IAX_PORT} -m set --match-set {} src", self.names.slamming);
            rules.push(Rule::goto(goes_on, SLAMMING).about("IAX2 by who exceeded a limit"));
            rules.push(over(begins, "IAX2"));
        }
        for limit in &self.firewall().limits {
            // UDP has connections only where they are tracked.
            let udp = self.settings.tracked.then_some(("udp", " -m conntrack --ctstate NEW"));
            for (protocol, new) in [("tcp", " -m tcp --syn")].into_iter().chain(udp) {
                let matches = format!("-p {protocol} -m multiport --dports {}{new}", limit.ports);
                let above = format!("{matches} {}", self.above("new", &limit.ports, limit.rate));
                let what = format!("new connections to {} ({protocol})", limit.ports);
                let rule = self.deny(above).about(format!("{what} above {}", limit.rate));
                rules.push(rule.dropping(Reason::of(Kind::Limit, &what)));
            }
        }
        rules.extend(["udp", "tcp"].into_iter().flat_map(|protocol| self.restrictions(protocol, false)));
        rules
    }

    fn flags(&self) -> Vec<Rule> {
        let mut rules = vec![];
        if !self.settings.tracked {
            // Else each segment of each connection would see all that follows.
            rules.push(
                Rule::new("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK ACK", "RETURN").about("plain segments"),
            );
        }
        for (flags, words) in IMPOSSIBLE {
            let rule = self.deny(format!("-p tcp -m tcp --tcp-flags {flags}")).about(words);
            rules.push(rule.dropping(Reason::only(Kind::Hardening)));
        }
        if self.settings.tracked {
            // Connections that are older than their tracking have a socket: they must not be cut. So has who listens at one address: what
            // belongs to no connection of his, the kernel resets.
            rules.push(Rule::new("-m socket", "RETURN").about("connections that are open"));
            rules.push(
                self.deny("-p tcp -m tcp ! --syn -m conntrack --ctstate NEW")
                    .about("new connection without SYN")
                    .dropping(Reason::only(Kind::Hardening)),
            );
        }
        rules
    }

    fn sip(&self, protocol: &'static str) -> Vec<Rule> {
        let known = format!("-m set --match-set {} src", self.names.known);
        let mut rules = vec![Rule::goto(known, KNOWN).about("sources that are known")];
        if !self.firewall().agents.is_empty() {
            rules.push(Rule::new("", AGENTS).about("scanners"));
        }
        rules
            .extend(self.methods().map(|(method, rate, matches)| {
                over(matches, method).about(format!("{method} above {rate}"))
            }));
        rules.extend(self.restrictions(protocol, true));
        // The same rule in two chains counts twice.
        rules.into_iter().map(|rule| rule.counting_for(protocol)).collect()
    }

    /// The methods that are limited, and what matches them above their limits.
    fn methods(&self) -> impl Iterator<Item = (&'static str, Rate, String)> {
        METHODS.iter().filter_map(|Method { name, table, limit }| {
            let rate = limit(self.firewall())?;
            let start = match self.version {
                Version::V4 => 20 + 8,
                Version::V6 => 40 + 8,
            };
            // TCP's header is longer, IPv6 may have more of them, and FreeSWITCH passes over empty lines.
            let request = format!("{name} ");
            let pattern = Pattern::new(&request, Case::Heeded).within(start, start + 512);
            Some((*name, rate, format!("{pattern} {}", self.above(table, name, rate))))
        })
    }

    /// What begins a registration or a call by IAX2, above its limit.
    fn iax(&self) -> Option<String> {
        let rate = self.firewall().iax_limit.rate()?;
        // A full frame, of type IAX, that says NEW or REGREQ.
        let frame = match self.version {
            Version::V4 => "0>>22&0x3C@8>>31=1&&0>>22&0x3C@16&0xFFFF=0x0601,0x060D",
            Version::V6 => "48>>31=1&&56&0xFFFF=0x0601,0x060D",
        };
        let above = self.above("iax", &IAX_PORT, rate);
        Some(format!("-p udp -m udp --dport {IAX_PORT} -m u32 --u32 \"{frame}\" {above}"))
    }

    /// Matches a source that does `what` more often than `rate`. `kind` has three letters.
    fn above(&self, kind: &str, what: &impl Hash, rate: Rate) -> String {
        // A table that is there keeps the rate that it was made with, so each rate has a table of its own.
        let name = format!("rf-{kind}-{:08x}", short_hash(&(what, rate)));
        // Whoever has an IPv6 address has a /64 of them.
        let mask = match self.version {
            Version::V4 => "",
            Version::V6 => " --hashlimit-srcmask 64",
        };
        // A full table drops all new sources, so it is large: a quarter of a million sources need 30 MiB.
        format!(
            "-m hashlimit --hashlimit-name {name} --hashlimit-mode srcip{mask} --hashlimit-above {} --hashlimit-burst {} \
             --hashlimit-htable-size 16384 --hashlimit-htable-max 262144 --hashlimit-htable-expire {}",
            rate.pace(),
            rate.burst(),
            rate.memory().as_millis()
        )
    }

    fn restrictions(&self, protocol: &'static str, sip: bool) -> Vec<Rule> {
        let mut rules = vec![];
        for (ports, to) in self.settings.restrictions(self.version) {
            let elsewhere = if sip {
                !ports.meets(&self.firewall().sip_ports)
            } else {
                ports.within(&self.firewall().sip_ports)
            };
            if elsewhere {
                continue;
            }
            let mut matches = format!("-p {protocol} -m multiport --dports {ports}");
            let mut names = vec![];
            for list in to {
                let set = kernel_sets::of_list(list, self.version.family());
                let _ = write!(matches, " -m set ! --match-set {set} src");
                names.push(list.as_str());
            }
            let words = format!("ports {ports} ({protocol}) for nobody but {}", names.join(", "));
            let reason = Reason::of(Kind::Restriction, &format!("{ports} to {}", names.join(", ")));
            rules.push(self.deny(matches).about(words).dropping(reason));
        }
        rules
    }

    fn known(&self) -> Vec<Rule> {
        let (target, words) = match self.firewall().allow_means {
            AllowMeans::Return => ("RETURN", "allowed, or seen registered"),
            AllowMeans::Accept => ("ACCEPT", "allowed, or seen registered: let in"),
        };
        vec![
            Rule::new(format!("-m set --match-set {} src", self.names.allowed), target).about(words),
            self.deny(format!("-m set --match-set {} src", self.names.blocked))
                .about("on a block list")
                .dropping(Reason::only(Kind::BlockList)),
            Rule::goto(format!("-m set --match-set {} src", self.names.slamming), SLAMMING)
                .about("exceeded a limit"),
        ]
    }

    fn agents(&self) -> Vec<Rule> {
        let rule = |agent: &crate::config::firewall::Agent| {
            let pattern = Pattern::new(agent.as_str(), Case::Ignored);
            self.deny(pattern.to_string())
                .about(format!("scanner {}", agent.as_str()))
                .dropping(Reason::of(Kind::Scanner, agent.as_str()))
        };
        self.firewall().agents.iter().map(rule).collect()
    }

    /// Who gets here is remembered, or remembered for longer.
    fn remember(&self) -> String {
        let seconds = self.firewall().slamming_for.get().as_secs();
        format!("SET --add-set {} src --exist --timeout {seconds}", self.names.slamming)
    }

    fn exceeded(&self) -> Vec<Rule> {
        vec![
            Rule::new("", self.remember()).about("remembered"),
            self.deny("").counting_for(EXCEEDED).about("above a limit"),
        ]
    }

    /// Who goes on stays; who keeps the limits is free again after a while. What he sends meanwhile is dropped.
    fn slamming(&self) -> Vec<Rule> {
        let methods = self.methods().map(|(method, _, matches)| (method, matches));
        let goes_on = methods.chain(self.iax().map(|matches| ("IAX2", matches)));
        let mut rules: Vec<Rule> = goes_on
            .map(|(what, matches)| Rule::new(matches, self.remember()).about(format!("goes on with {what}")))
            .collect();
        rules.push(
            self.deny("")
                .counting_for(SLAMMING)
                .about("above a limit a moment ago")
                .dropping(Reason::only(Kind::GoingOn)),
        );
        rules
    }
}

/// All that comes to that chain is dropped.
fn over(matches: String, what: &str) -> Rule {
    Rule::goto(matches, EXCEEDED)
        .about(format!("{what} above its limit"))
        .dropping(Reason::of(Kind::Limit, what))
}

fn short_hash(value: &impl Hash) -> u32 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    u32::try_from(hasher.finish() >> 32).unwrap_or_default()
}

#[cfg(test)]
mod tests;
