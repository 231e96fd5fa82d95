//! What the rules of the host make of an address: who drops its packets.

use super::super::facts::Walk;
use super::super::undo::size;
use super::By;
use super::places::{asks, is_ban, is_event_guards, is_of, sets};
use crate::address;
use crate::evidence::visible_within;
use crate::firewall::BANS;
use crate::firewall::order::{DENY, PREFIX};
use crate::firewall::path::{End, Path, Step};
use crate::kernel_sets::{Role, list_of};
use crate::matcher::strings;

/// How much of a rule is shown, in bytes.
const SHOWN: usize = 160;

/// Who drops packets, and by which rule; `None` where they are let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Culprit {
    pub(super) by: By,
    /// The rule, or the policy, in words.
    pub(super) rule: String,
    /// About whom it is.
    pub(super) about: About,
    /// The lists of a restriction.
    pub(super) lists: Vec<String>,
    /// The rule; nothing for a policy.
    pub(super) step: Option<Step>,
}

impl Culprit {
    pub(super) fn is_ours(&self) -> bool {
        self.step.as_ref().is_some_and(|step| step.tag.is_some())
    }
}

/// Whom a rule asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// Not where a packet comes from, or from where it does not.
    Everybody,
    /// The one address.
    Address,
    /// It and others, in words.
    Others(String),
}

impl About {
    fn of(rule: &str) -> Self {
        let words: Vec<&str> = rule.split_whitespace().collect();
        let mut conditions = (0..words.len()).filter(|at| *at == 0 || words[at - 1] != "!");
        conditions.find_map(|at| Self::condition(&words[at..])).unwrap_or(Self::Everybody)
    }

    fn condition(words: &[&str]) -> Option<Self> {
        let others = |words: String| Some(Self::Others(words));
        match words {
            ["-s", network, ..] => match network.parse() {
                Ok(network) if address::single(network).is_some() => Some(Self::Address),
                Ok(network) => others(size(network)),
                Err(_) => others((*network).to_owned()),
            },
            ["--match-set", set, sides, ..] if sides.split(',').next() == Some("src") => {
                others(format!("whoever is in the set {set}"))
            }
            ["ip" | "ip6", "saddr", "!=", ..] => None,
            ["ip" | "ip6", "saddr", set, ..] if set.starts_with('@') => {
                others(format!("whoever is in the set {}", &set[1..]))
            }
            ["ip" | "ip6", "saddr", "{", several @ ..] => {
                let several = several.iter().take_while(|word| **word != "}");
                others(several.copied().collect::<Vec<_>>().join(" "))
            }
            ["ip" | "ip6", "saddr", network, ..] => Self::condition(&["-s", network]),
            ["--src-range", range, ..] => others((*range).to_owned()),
            ["--src-cc" | "--source-country", countries, ..] => others(format!("all of {countries}")),
            _ => None,
        }
    }
}

pub(super) fn culprit(path: &Path) -> Option<Culprit> {
    if !path.verdict.is_blocked() {
        return None;
    }
    let step = match path.verdict.end()? {
        End::Policy { program, table, chain } => {
            let place = format!("the policy of {chain} ({})", program_and_table(program, table));
            let rule = format!("{place}, which drops what no rule lets in");
            return Some(Culprit { by: By::Rules, rule, about: About::Everybody, lists: vec![], step: None });
        }
        End::Rule(step) => step,
    };
    // What is denied may go through a chain of its own.
    let is_deny = |step: &Step| step.tag.is_some() && [DENY, strings::DENY].contains(&step.chain.as_str());
    let decided = if is_deny(step) {
        path.steps.iter().rev().find(|other| !is_deny(other)).unwrap_or(step)
    } else {
        step
    };
    let by = by(decided);
    let (rule, about) = (&decided.rule, About::of(&decided.rule));
    Some(Culprit { by, rule: in_full(decided), about, lists: lists(rule), step: Some(decided.clone()) })
}

/// Where a rule stands, and by which program, in words.
pub(super) fn place(step: &Step) -> String {
    format!("rule {} of {} ({})", step.number, step.chain, program_and_table(&step.program, &step.table))
}

/// The same, with what it says.
pub(super) fn in_full(step: &Step) -> String {
    format!("{}, `{}`", place(step), visible_within(&step.rule, SHOWN))
}

pub(super) fn program_and_table(program: &str, table: &str) -> String {
    match (program, table) {
        ("nft", table) => format!("nftables, table {table}"),
        (program, "filter") => program.to_owned(),
        (program, table) => format!("{program}, table {table}"),
    }
}

fn by(step: &Step) -> By {
    if step.tag.is_some() {
        return match () {
            () if is_of(step, BANS) => By::Fail2ban,
            () if is_of(step, strings::PREFIX) => By::Account,
            () if is_of(step, PREFIX) && asks(step, Role::Blocked) => By::BlockList,
            () if is_of(step, PREFIX) && asks(step, Role::Restricted) => By::Restriction,
            () if is_of(step, PREFIX) => By::RateLimit,
            () => By::Rules,
        };
    }
    match () {
        () if is_ban(step) => By::Fail2ban,
        () if is_event_guards(step) => By::EventGuard,
        () if asks(step, Role::Blocked) => By::BlockList,
        () => By::Rules,
    }
}

/// The names of the lists that a rule restricts ports to.
fn lists(rule: &str) -> Vec<String> {
    sets(rule).filter_map(list_of).map(|list| list.to_string()).collect()
}

/// Ports, each with its protocol, in words: `5060,5080 tcp,udp`.
pub(super) fn ports<'a>(walks: impl Iterator<Item = &'a Walk>) -> String {
    let mut protocols: Vec<(&str, Vec<u16>)> = vec![];
    for walk in walks {
        let name = walk.protocol.name();
        match protocols.iter_mut().find(|(other, _)| *other == name) {
            Some((_, ports)) => ports.push(walk.port),
            None => protocols.push((name, vec![walk.port])),
        }
    }
    let mut all: Vec<(String, Vec<&str>)> = vec![];
    for (protocol, mut ports) in protocols {
        ports.sort_unstable();
        ports.dedup();
        let ports = ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        match all.iter_mut().find(|(other, _)| *other == ports) {
            Some((_, protocols)) => protocols.push(protocol),
            None => all.push((ports, vec![protocol])),
        }
    }
    let words = all.iter().map(|(ports, protocols)| format!("{ports} {}", protocols.join(",")));
    words.collect::<Vec<_>>().join(", ")
}
