//! What the host's real rules do with one packet: chains walked in the order of their rules, through others and back.
//!
//! What cannot be known of one packet - whether others came before it, which interface it comes by - is said, never guessed in
//! silence: the path goes on as it would for one packet of a phone that behaves, and what else may become of it is listed beside.
//! Where all hangs on what is not understood here, what becomes of it is unknown.
//!
//! Which chains there are, and in which order, [`Reachability`](super::Reachability) knows.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Serialize;

use super::Tag;
use super::saved::{Fate, Saved, SavedRule};

mod holds;
mod packet;
mod rule;
mod sets;

pub use holds::Holds;
pub use packet::{Packet, Protocol, State};
pub use sets::Sets;

use rule::{Parts, Target};

/// No packet passes more rules here; the kernel takes some seconds for them.
const MOST_RULES: usize = 1_000_000;

/// Nor chains within each other.
const DEEPEST: usize = 64;

/// So many other ways are followed, and told.
const MOST_BRANCHES: usize = 1_000;
const MOST_OTHERWISE: usize = 50;

/// An end of a packet that a rule asks a set about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Where it comes from: `src`.
    Source,
    /// Where it goes to: `dst`.
    Destination,
}

impl Side {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "src" => Some(Self::Source),
            "dst" => Some(Self::Destination),
            _ => None,
        }
    }
}

/// What a set says of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// Whether it is in it.
    Is(bool),
    /// It depends: "on the port that it comes from".
    Depends(String),
    /// Nobody here knows, and why: "is of the kind hash:mac".
    NotKnown(String),
}

/// Says whether the packet is in the set of this name, by these sides.
pub type Members<'a> = dyn FnMut(&str, &[Side]) -> anyhow::Result<Member> + 'a;

/// A rule that matches the packet, or may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Step {
    /// The program that the rule is of, as `iptables-nft`; `nft` for those of nftables' own tables.
    pub program: String,
    /// `filter`, `raw`, ...; of nftables' own with its family, as `inet f2b-table`.
    pub table: String,
    /// The name of its chain.
    pub chain: String,
    /// Its number there, from 1.
    pub number: usize,
    /// As its program prints it, behind the name of the chain.
    pub rule: String,
    /// What the kernel calls a rule of nftables by in its table, for good.
    #[serde(skip)]
    pub handle: Option<u64>,
    /// What somebody wrote of it; a rule of ours has none.
    pub comment: Option<String>,
    /// By which a rule of ours is known.
    #[serde(serialize_with = "as_text")]
    pub tag: Option<Tag>,
    /// Whether it matches.
    pub holds: Holds,
    /// Where it sends the packet; `None` if it counts.
    pub target: Option<String>,
}

/// Where packets for this host come by, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Point {
    Ingress,
    Prerouting,
    Input,
}

/// The table that most rules are in.
pub(super) const FILTER: &str = "filter";

/// The program of tables that iptables knows nothing of.
pub const NFT: &str = "nft";

/// Which table it is, where that does not go without saying.
pub(super) fn of_table(program: &str, table: &str) -> String {
    match (program, table) {
        (NFT, table) => format!(" (nftables, table {table})"),
        (_, FILTER) => String::new(),
        (_, table) => format!(" (table {table})"),
    }
}

impl Step {
    /// Where the rule stands, in words.
    #[must_use]
    pub fn place(&self) -> String {
        format!("rule {} of {}{}", self.number, self.chain, of_table(&self.program, &self.table))
    }
}

#[expect(clippy::ref_option, reason = "serde hands it so")]
fn as_text<S: serde::Serializer>(tag: &Option<Tag>, serializer: S) -> Result<S::Ok, S::Error> {
    tag.map(|tag| tag.to_string()).serialize(serializer)
}

/// What decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// A rule.
    Rule(Box<Step>),
    /// No rule: the policy of a built-in chain, also where the table is not there.
    Policy {
        /// As in [`Step`].
        program: String,
        /// As in [`Step`].
        table: String,
        /// The chain.
        chain: String,
    },
}

impl End {
    /// Where it stands, in words.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::Rule(step) => step.place(),
            Self::Policy { program, table, chain } => {
                format!("the policy of {chain}{}", of_table(program, table))
            }
        }
    }

    /// Which of two that let a packet in says more of why.
    fn weight(&self) -> (bool, bool) {
        match self {
            Self::Rule(_) => (true, true),
            Self::Policy { table, .. } => (false, table == FILTER),
        }
    }
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub enum Verdict {
    /// It is let in.
    Accepted {
        /// What let it in.
        by: End,
    },
    /// It vanishes.
    Dropped {
        /// What dropped it.
        by: End,
    },
    /// It is answered that it may not.
    Rejected {
        /// What refused it.
        by: End,
        /// As iptables calls the answer.
        with: Option<String>,
    },
    /// It cannot be told.
    Unknown {
        /// Why, for people.
        why: String,
    },
}

impl Verdict {
    /// Whether it is let in.
    #[must_use]
    pub const fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted { .. })
    }

    /// Whether it is dropped or refused.
    #[must_use]
    pub const fn is_blocked(&self) -> bool {
        matches!(self, Self::Dropped { .. } | Self::Rejected { .. })
    }

    fn differs(&self, other: &Self) -> bool {
        (self.is_accepted(), self.is_blocked()) != (other.is_accepted(), other.is_blocked())
    }

    /// What decided, if it is known.
    #[must_use]
    pub const fn end(&self) -> Option<&End> {
        match self {
            Self::Accepted { by } | Self::Dropped { by } | Self::Rejected { by, .. } => Some(by),
            Self::Unknown { .. } => None,
        }
    }
}

/// What else may become of the packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Otherwise {
    /// Rules that may match or not, and here do what they usually do not.
    pub on: Vec<Step>,
    /// What then becomes of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Rules of a chain that do not match the packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Passed {
    /// As in [`Step`].
    pub program: String,
    /// As in [`Step`].
    pub table: String,
    /// The chain.
    pub chain: String,
    /// How many.
    pub rules: usize,
}

/// A packet's way through the rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Path {
    /// What matches it, in order; also what may and usually does not.
    pub steps: Vec<Step>,
    /// What became of it in the end.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// What differs where rules match that usually do not, or the other way round; for each cause the first such way.
    pub otherwise: Vec<Otherwise>,
    /// What does not match it, for each chain that it came through.
    pub passed: Vec<Passed>,
}

impl Path {
    /// Where there is nothing to go through.
    pub(super) fn ends(verdict: Verdict) -> Self {
        Self { steps: vec![], verdict, otherwise: vec![], passed: vec![] }
    }

    /// Where what is let in goes through another chain behind this one. `telling`: that one says better why it is let in.
    pub(super) fn then(mut self, next: Self, telling: bool) -> Self {
        for other in self.otherwise.iter_mut().filter(|other| other.verdict.is_accepted()) {
            other.verdict = next.verdict.clone();
        }
        if !self.verdict.is_blocked() {
            self.verdict = match (self.verdict, next.verdict) {
                (Verdict::Accepted { by }, Verdict::Accepted { by: last }) => {
                    let last_counts = telling || last.weight() >= by.weight();
                    Verdict::Accepted { by: if last_counts { last } else { by } }
                }
                // Whatever became of it before, it does not get by here.
                (doubt @ Verdict::Unknown { .. }, next) if !next.is_blocked() => doubt,
                (_, next) => next,
            };
            self.steps.extend(next.steps);
            self.passed.extend(next.passed);
            self.otherwise.extend(next.otherwise);
        }
        self.otherwise.retain(|other| other.verdict.differs(&self.verdict));
        self
    }
}

/// A chain where packets of the host come by, and those that it leads to.
#[derive(Clone, Copy)]
pub(super) struct Start<'a> {
    pub(super) program: &'a str,
    pub(super) table: &'a str,
    pub(super) chain: &'a str,
    /// By its policy.
    pub(super) drops: bool,
}

impl Start<'_> {
    fn policy(&self) -> Verdict {
        let (program, table, chain) = (self.program.to_owned(), self.table.to_owned(), self.chain.to_owned());
        let by = End::Policy { program, table, chain };
        if self.drops { Verdict::Dropped { by } } else { Verdict::Accepted { by } }
    }
}

/// What is at a place of a chain.
pub(super) enum Look<'a> {
    /// Its end.
    End,
    /// A rule that does not match.
    Passed,
    /// One that does, or may.
    Met(Box<Step>, Effect<'a>),
}

/// A packet's way through a table of iptables, from a built-in chain. `members` is asked about sets; [`Sets`] asks the kernel.
pub(super) fn through_saved(
    saved: &Saved,
    (program, table, chain): (&str, &str, &str),
    packet: &Packet,
    members: &mut Members<'_>,
) -> Path {
    let start = Start { program, table, chain, drops: saved.policy(chain) == Fate::Refused };
    through(start, &mut |chain, at| {
        let Some(rule) = saved.rules(chain).get(at) else { return Look::End };
        let parts = Parts::of(rule);
        let Some(holds) = holds::rule(&parts, packet, members) else { return Look::Passed };
        let step = step(start, chain, at + 1, rule, &parts, holds);
        let effect = effect(saved, &parts, &step);
        Look::Met(Box::new(step), effect)
    })
}

/// A packet's way through the chains of one table.
pub(super) fn through<'a>(start: Start<'a>, look: &mut dyn FnMut(&'a str, usize) -> Look<'a>) -> Path {
    let mut walk = Walk {
        policy: start.policy(),
        look,
        seen: HashMap::new(),
        verdicts: vec![],
        rules: 0,
        passed: BTreeMap::new(),
        branches: VecDeque::new(),
        ends: vec![],
    };
    let (steps, mut verdict) = walk.follow(vec![Frame { chain: start.chain, at: 0 }], &[]);
    let passed = std::mem::take(&mut walk.passed);
    walk.explore();
    let mut otherwise = walk.ends;
    otherwise.retain(|other| other.verdict.differs(&verdict));
    let doubt = |other: &Otherwise| {
        other.on.iter().find_map(|step| match &step.holds {
            Holds::Unclear { why } => Some(unknown(format!("{} depends on {why}", step.place()))),
            Holds::Yes | Holds::Perhaps { .. } => None,
        })
    };
    if let Some(doubt) = otherwise.iter().find_map(doubt) {
        otherwise.retain(doubtless);
        verdict = doubt;
    }
    otherwise.truncate(MOST_OTHERWISE);
    let passed = passed.into_iter().map(|(chain, rules)| Passed {
        program: start.program.to_owned(),
        table: start.table.to_owned(),
        chain: chain.to_owned(),
        rules,
    });
    Path { steps, verdict, otherwise, passed: passed.collect() }
}

/// Whether all that it hangs on is understood.
fn doubtless(other: &Otherwise) -> bool {
    !other.on.iter().any(|step| matches!(step.holds, Holds::Unclear { .. }))
}

pub(super) fn unknown(why: impl Into<String>) -> Verdict {
    Verdict::Unknown { why: why.into() }
}

/// Where a packet is: in a chain, before a rule.
#[derive(Clone, Copy, Debug, Hash)]
struct Frame<'a> {
    chain: &'a str,
    at: usize,
}

/// A way that a packet does not usually take.
struct Branch<'a> {
    frames: Vec<Frame<'a>>,
    on: Vec<Step>,
}

/// What a rule makes of a packet that it matches.
pub(super) enum Effect<'a> {
    GoesOn,
    /// To the end of this chain.
    Returns,
    Jumps(&'a str),
    /// This chain is left for good.
    Goes(&'a str),
    Ends(Verdict),
}

struct Walk<'a, 'l> {
    policy: Verdict,
    look: &'l mut dyn FnMut(&'a str, usize) -> Look<'a>,
    /// Where it was, and on which of its ways: each place leads on to the same end.
    seen: HashMap<u64, usize>,
    /// What became of it on each way that was followed to its end.
    verdicts: Vec<Verdict>,
    /// So many were looked at.
    rules: usize,
    passed: BTreeMap<&'a str, usize>,
    branches: VecDeque<Branch<'a>>,
    ends: Vec<Otherwise>,
}

impl<'a> Walk<'a, '_> {
    /// To the end, or to a place that it was at on another way.
    fn follow(&mut self, mut frames: Vec<Frame<'a>>, on: &[Step]) -> (Vec<Step>, Verdict) {
        let mut steps = vec![];
        let verdict = loop {
            let Some(Frame { chain, at }) = frames.last().copied() else { break self.policy.clone() };
            match self.seen.entry(place(&frames)) {
                Entry::Occupied(way) => {
                    let known = self.verdicts.get(*way.get()).cloned();
                    break known.unwrap_or_else(|| unknown("the chains lead in a circle"));
                }
                Entry::Vacant(place) => drop(place.insert(self.verdicts.len())),
            }
            self.rules += 1;
            if self.rules > MOST_RULES {
                break unknown(format!("there are more than {MOST_RULES} rules on its way"));
            }
            if frames.len() > DEEPEST {
                break unknown(format!("more than {DEEPEST} chains lead into each other"));
            }
            let (step, effect) = match (self.look)(chain, at) {
                Look::End => {
                    frames.pop();
                    continue;
                }
                met => {
                    frames.last_mut().expect("one").at += 1;
                    let Look::Met(step, effect) = met else {
                        *self.passed.entry(chain).or_default() += 1;
                        continue;
                    };
                    (*step, effect)
                }
            };
            steps.push(step.clone());
            let usually = match step.holds {
                Holds::Yes => true,
                Holds::Perhaps { usually, .. } => {
                    self.branch_off(&frames, on, &step, if usually { None } else { Some(&effect) });
                    usually
                }
                Holds::Unclear { .. } => {
                    self.branch_off(&frames, on, &step, Some(&effect));
                    false
                }
            };
            if usually && let Some(verdict) = apply(effect, &mut frames) {
                break verdict;
            }
        };
        self.verdicts.push(verdict.clone());
        (steps, verdict)
    }

    /// Remembers the way that is not taken.
    fn branch_off(&mut self, frames: &[Frame<'a>], on: &[Step], step: &Step, effect: Option<&Effect<'a>>) {
        if self.branches.len() >= MOST_BRANCHES || self.ends.len() >= MOST_BRANCHES {
            return;
        }
        let mut frames = frames.to_vec();
        let on = [on, std::slice::from_ref(step)].concat();
        let ended = match effect {
            Some(Effect::GoesOn) => return,
            Some(Effect::Ends(verdict)) => Some(verdict.clone()),
            Some(Effect::Returns) => apply(Effect::Returns, &mut frames),
            Some(Effect::Jumps(chain)) => apply(Effect::Jumps(chain), &mut frames),
            Some(Effect::Goes(chain)) => apply(Effect::Goes(chain), &mut frames),
            None => None,
        };
        match ended {
            Some(verdict) => self.ends.push(Otherwise { on, verdict }),
            None => self.branches.push_back(Branch { frames, on }),
        }
    }

    /// Follows the ways that were not taken, each until it comes to where another was.
    fn explore(&mut self) {
        while let Some(Branch { frames, on }) = self.branches.pop_front() {
            let (_, verdict) = self.follow(frames, &on);
            if verdict.differs(&self.verdicts[0]) {
                self.ends.push(Otherwise { on, verdict });
            }
        }
    }
}

fn step(
    Start { program, table, .. }: Start<'_>,
    chain: &str,
    number: usize,
    rule: &SavedRule,
    parts: &Parts,
    holds: Holds,
) -> Step {
    let target = match &parts.target {
        Target::None => None,
        Target::Jump(to) | Target::Goto(to) => Some(to.clone()),
    };
    Step {
        program: program.to_owned(),
        table: table.to_owned(),
        chain: chain.to_owned(),
        number,
        rule: rule.spec.clone(),
        handle: None,
        comment: parts.comment().filter(|_| rule.tag.is_none()).map(str::to_owned),
        tag: rule.tag,
        holds,
        target,
    }
}

fn effect<'a>(saved: &'a Saved, parts: &Parts, step: &Step) -> Effect<'a> {
    let (target, goes) = match &parts.target {
        Target::None => return Effect::GoesOn,
        Target::Jump(target) => (target, false),
        Target::Goto(target) => (target, true),
    };
    if let Some((chain, _)) = saved.chains.get_key_value(target) {
        return if goes { Effect::Goes(chain) } else { Effect::Jumps(chain) };
    }
    let by = || End::Rule(Box::new(step.clone()));
    match target.as_str() {
        "ACCEPT" => Effect::Ends(Verdict::Accepted { by: by() }),
        "DROP" => Effect::Ends(Verdict::Dropped { by: by() }),
        "REJECT" => {
            let with = parts.target_options.iter().find(|option| option.option == "--reject-with");
            let with = with.map(|option| option.value().to_owned());
            Effect::Ends(Verdict::Rejected { by: by(), with })
        }
        "RETURN" => Effect::Returns,
        // They do something, and the packet goes on.
        "LOG" | "NFLOG" | "ULOG" | "SET" | "MARK" | "CONNMARK" | "TRACE" | "AUDIT" | "CLASSIFY" | "DSCP"
        | "TOS" | "TTL" | "HL" | "TCPMSS" | "TCPOPTSTRIP" | "ECN" | "SECMARK" | "CONNSECMARK" | "RATEEST"
        | "LED" | "IDLETIMER" | "CHECKSUM" | "TEE" | "CT" | "NOTRACK" => Effect::GoesOn,
        "NFQUEUE" | "QUEUE" => {
            Effect::Ends(unknown(format!("{} hands it to a program ({target}) that decides", step.place())))
        }
        "DNAT" | "REDIRECT" | "NETMAP" | "TPROXY" => {
            Effect::Ends(unknown(format!("{} sends it elsewhere ({target})", step.place())))
        }
        _ => Effect::Ends(unknown(format!(
            "{} has the target {target}, which is not known here",
            step.place()
        ))),
    }
}

impl Path {
    /// Whether a rule of it keeps the connection out of what is tracked: `NOTRACK`.
    pub(super) fn untracks(&self) -> bool {
        let is_met = |step: &&Step| {
            !matches!(step.holds, Holds::Unclear { .. } | Holds::Perhaps { usually: false, .. })
        };
        let untracks = |step: &Step| match step.target.as_deref() {
            Some("NOTRACK") => true,
            Some("CT") => step.rule.contains("--notrack"),
            _ => step.program == NFT && step.rule.split(' ').any(|word| word == "notrack"),
        };
        self.steps.iter().filter(is_met).any(untracks)
    }
}

/// The verdict, if it is the end.
fn apply<'a>(effect: Effect<'a>, frames: &mut Vec<Frame<'a>>) -> Option<Verdict> {
    match effect {
        Effect::GoesOn => {}
        Effect::Returns => drop(frames.pop()),
        Effect::Jumps(chain) => frames.push(Frame { chain, at: 0 }),
        Effect::Goes(chain) => {
            frames.pop();
            frames.push(Frame { chain, at: 0 });
        }
        Effect::Ends(verdict) => return Some(verdict),
    }
    None
}

fn place(frames: &[Frame<'_>]) -> u64 {
    let mut hasher = DefaultHasher::new();
    frames.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
