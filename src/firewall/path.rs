//! What the host's real rules do with one packet: the table `filter` from INPUT, walked in the order of the rules, through chains and
//! back.
//!
//! What cannot be known of one packet - whether others came before it, which interface it comes by - is said, never guessed in
//! silence: the path goes on as it would for one packet of a phone that behaves, and what else may become of it is listed beside.
//!
//! What comes before INPUT is not looked at here: programs on an interface, other tables, and tables of nftables.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Serialize;

use super::layout::INPUT;
use super::saved::{Fate, Saved, SavedRule};
use super::{Firewall, Table, Tag};

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

/// Says whether the packet is in the set of this name, by these sides; `None` if it cannot be known.
pub type Members<'a> = dyn FnMut(&str, &[Side]) -> anyhow::Result<Option<bool>> + 'a;

/// A rule that matches the packet, or may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Step {
    /// The program that the rule is of, as `iptables-nft`.
    pub program: String,
    /// The name of its chain.
    pub chain: String,
    /// Its number there, from 1.
    pub number: usize,
    /// As iptables prints it, behind the name of the chain.
    pub rule: String,
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
        /// The chain.
        chain: String,
    },
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
    /// Whether it can be otherwise blocked, or otherwise let in.
    #[must_use]
    pub fn depends(&self) -> bool {
        !self.otherwise.is_empty()
    }

    fn nowhere(packet: &Packet) -> Self {
        let by = End::Policy { program: packet.version().program().to_owned(), chain: INPUT.to_owned() };
        Self { steps: vec![], verdict: Verdict::Accepted { by }, otherwise: vec![], passed: vec![] }
    }

    /// Where what is let in goes through another table behind this one.
    fn then(mut self, next: Self) -> Self {
        for other in self.otherwise.iter_mut().filter(|other| other.verdict.is_accepted()) {
            other.verdict = next.verdict.clone();
        }
        if self.verdict.is_accepted() {
            self.verdict = next.verdict;
            self.steps.extend(next.steps);
            self.passed.extend(next.passed);
            self.otherwise.extend(next.otherwise);
        }
        self.otherwise.retain(|other| other.verdict.differs(&self.verdict));
        self
    }
}

impl Firewall {
    /// What becomes of a packet for this host, by the rules as they were read. Where both variants of iptables have rules, it passes
    /// both.
    ///
    /// `members` is asked about sets; [`Sets`] asks the kernel.
    pub fn path(&self, packet: &Packet, members: &mut Members<'_>) -> Path {
        let of = |table: &&Table| table.program.version == packet.version();
        let mut tables: Vec<&Table> = self.tables.iter().filter(of).collect();
        tables.sort_by_key(|table| table.program.variant != self.variant);
        let paths =
            tables.into_iter().map(|table| through(&table.saved, &table.program.name(), packet, members));
        paths.reduce(Path::then).unwrap_or_else(|| Path::nowhere(packet))
    }
}

/// A packet's way through one table.
fn through(saved: &Saved, program: &str, packet: &Packet, members: &mut Members<'_>) -> Path {
    let mut walk = Walk {
        saved,
        program,
        packet,
        members,
        seen: HashMap::new(),
        verdicts: vec![],
        rules: 0,
        passed: BTreeMap::new(),
        branches: VecDeque::new(),
        ends: vec![],
    };
    let start = vec![Frame { chain: INPUT, at: 0 }];
    let (steps, verdict) = walk.follow(start, &[]);
    let passed = std::mem::take(&mut walk.passed);
    walk.explore();
    let mut otherwise = walk.ends;
    otherwise.retain(|other| other.verdict.differs(&verdict));
    otherwise.truncate(MOST_OTHERWISE);
    let passed = passed.into_iter();
    let passed =
        passed.map(|(chain, rules)| Passed { program: program.to_owned(), chain: chain.to_owned(), rules });
    Path { steps, verdict, otherwise, passed: passed.collect() }
}

fn unknown(why: impl Into<String>) -> Verdict {
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
enum Effect<'a> {
    GoesOn,
    /// To the end of this chain.
    Returns,
    Jumps(&'a str),
    /// This chain is left for good.
    Goes(&'a str),
    Ends(Verdict),
}

struct Walk<'a, 'p, 'm> {
    saved: &'a Saved,
    program: &'a str,
    packet: &'p Packet,
    members: &'p mut Members<'m>,
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

impl<'a> Walk<'a, '_, '_> {
    /// To the end, or to a place that it was at on another way.
    fn follow(&mut self, mut frames: Vec<Frame<'a>>, on: &[Step]) -> (Vec<Step>, Verdict) {
        let saved = self.saved;
        let mut steps = vec![];
        let verdict = loop {
            let Some(frame) = frames.last_mut() else { break self.policy() };
            let (chain, number) = (frame.chain, frame.at + 1);
            let Some(rule) = saved.rules(chain).get(frame.at) else {
                frames.pop();
                continue;
            };
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
            frames.last_mut().expect("one").at += 1;
            let parts = Parts::of(rule);
            let Some(holds) = holds::rule(&parts, self.packet, self.members) else {
                *self.passed.entry(chain).or_default() += 1;
                continue;
            };
            let step = self.step(chain, number, rule, &parts, holds);
            steps.push(step.clone());
            let effect = self.effect(&parts, &step);
            let usually = match step.holds {
                Holds::Yes => true,
                Holds::Perhaps { usually, .. } => {
                    self.branch_off(&frames, on, &step, if usually { None } else { Some(&effect) });
                    usually
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

    fn step(&self, chain: &str, number: usize, rule: &SavedRule, parts: &Parts, holds: Holds) -> Step {
        let target = match &parts.target {
            Target::None => None,
            Target::Jump(to) | Target::Goto(to) => Some(to.clone()),
        };
        Step {
            program: self.program.to_owned(),
            chain: chain.to_owned(),
            number,
            rule: rule.spec.clone(),
            comment: parts.comment().filter(|_| rule.tag.is_none()).map(str::to_owned),
            tag: rule.tag,
            holds,
            target,
        }
    }

    fn effect(&self, parts: &Parts, step: &Step) -> Effect<'a> {
        let (target, goes) = match &parts.target {
            Target::None => return Effect::GoesOn,
            Target::Jump(target) => (target, false),
            Target::Goto(target) => (target, true),
        };
        if let Some((chain, _)) = self.saved.chains.get_key_value(target) {
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
            "LOG" | "NFLOG" | "ULOG" | "SET" | "MARK" | "CONNMARK" | "TRACE" | "AUDIT" | "CLASSIFY"
            | "DSCP" | "TOS" | "TTL" | "HL" | "TCPMSS" | "SECMARK" | "CONNSECMARK" | "RATEEST" | "LED"
            | "IDLETIMER" | "CHECKSUM" | "TEE" => Effect::GoesOn,
            "NFQUEUE" | "QUEUE" => Effect::Ends(unknown(format!(
                "rule {} of {} hands it to a program ({target}) that decides",
                step.number, step.chain
            ))),
            _ => Effect::Ends(unknown(format!(
                "rule {} of {} has the target {target}, which is not known here",
                step.number, step.chain
            ))),
        }
    }

    fn policy(&self) -> Verdict {
        let by = End::Policy { program: self.program.to_owned(), chain: INPUT.to_owned() };
        match self.saved.policy(INPUT) {
            Fate::Accepted => Verdict::Accepted { by },
            Fate::Refused => Verdict::Dropped { by },
        }
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
