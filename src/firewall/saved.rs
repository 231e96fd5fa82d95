//! What iptables-save prints of the table `filter`.

use std::collections::BTreeMap;

use super::{Counters, Tag};

/// Names of chains, sets and tables of fail2ban begin so.
const FAIL2BAN: [&str; 2] = ["f2b-", "fail2ban-"];

/// Names of chains of `event_guard` begin so, in iptables as in nftables.
const EVENT_GUARD: &str = "sip-auth-";

/// A rule that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SavedRule {
    /// As iptables-restore reads it, behind the name of the chain.
    pub(super) spec: String,
    pub(super) counters: Counters,
    /// If it is ours.
    pub(super) tag: Option<Tag>,
}

/// What a rule does with the packets that it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    /// `DROP` or `REJECT`.
    Refuse,
    Return,
    /// `-j`: to a chain, and back from it; or a target that lets the packet go on, as `LOG`.
    Jump(String),
    /// `-g`: to a chain, and back to where this one was jumped to.
    Goto(String),
}

/// What becomes, in the end, of packets that no condition matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Accepted,
    Refused,
}

/// The table as it was saved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    pub(super) chains: BTreeMap<String, Vec<SavedRule>>,
    /// Of the built-in chains.
    policies: BTreeMap<String, Fate>,
    /// iptables says that there is more in the table, which it cannot print.
    pub(super) is_part: bool,
}

impl Saved {
    /// Reads the output of `iptables-save -c -t filter`. What it does not know, it passes over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut saved = Self::default();
        for line in text.lines() {
            saved.is_part |= line.starts_with('#') && line.contains(" incompatible");
            if let Some(chain) = line.strip_prefix(':') {
                let mut words = chain.split(' ');
                let name = words.next().unwrap_or_default();
                saved.chains.entry(name.to_owned()).or_default();
                let policy = match words.next() {
                    Some("ACCEPT") => Fate::Accepted,
                    Some("DROP") => Fate::Refused,
                    _ => continue,
                };
                saved.policies.insert(name.to_owned(), policy);
            } else if let Some((chain, rule)) = rule(line) {
                saved.chains.entry(chain.to_owned()).or_default().push(rule);
            }
        }
        saved
    }

    /// How many rules and policies are not ours.
    pub(super) fn foreign(&self) -> usize {
        let rules = self.chains.values().flatten().filter(|rule| rule.tag.is_none()).count();
        rules + usize::from(self.policies.values().any(|policy| *policy == Fate::Refused))
    }

    /// Whether rules ask for the state of connections.
    pub(super) fn tracks_connections(&self) -> bool {
        let asks = |rule: &SavedRule| {
            words(&rule.spec).iter().any(|word| matches!(word.as_str(), "--ctstate" | "--state"))
        };
        self.chains.values().flatten().any(asks)
    }

    /// Our rules, wherever they are.
    pub(super) fn ours(&self) -> impl Iterator<Item = (Tag, Counters)> {
        self.chains.values().flatten().filter_map(|rule| Some((rule.tag?, rule.counters)))
    }

    /// Packets of our rules, with their chains.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&str, Tag, u64)> {
        let chains = self.chains.iter();
        chains.flat_map(|(chain, rules)| {
            rules.iter().filter_map(|rule| Some((chain.as_str(), rule.tag?, rule.counters.packets)))
        })
    }

    /// The rules of a chain; none if it is not there.
    pub(super) fn rules(&self, chain: &str) -> &[SavedRule] {
        self.chains.get(chain).map_or(&[], Vec::as_slice)
    }

    /// What a built-in chain does with packets that no condition matches. A table that is not there lets them pass.
    pub(super) fn fate(&self, chain: &str) -> Fate {
        self.end_of(chain, &mut BTreeMap::new()).unwrap_or(self.policy(chain))
    }

    /// What a built-in chain does with packets that no rule of it decides about.
    pub(super) fn policy(&self, chain: &str) -> Fate {
        self.policies.get(chain).copied().unwrap_or(Fate::Accepted)
    }

    /// `None` if some come out of the chain again. Each chain is walked once.
    fn end_of(&self, chain: &str, known: &mut BTreeMap<String, Option<Fate>>) -> Option<Fate> {
        if let Some(end) = known.get(chain) {
            return *end;
        }
        // No packet ends in a circle.
        known.insert(chain.to_owned(), None);
        let end = self.walk(chain, known);
        known.insert(chain.to_owned(), end);
        end
    }

    fn walk(&self, chain: &str, known: &mut BTreeMap<String, Option<Fate>>) -> Option<Fate> {
        for rule in self.rules(chain) {
            let always = rule.is_unconditional();
            let end = match rule.verdict() {
                Some(Verdict::Accept) => Some(Fate::Accepted),
                Some(Verdict::Refuse) => Some(Fate::Refused),
                Some(Verdict::Jump(other) | Verdict::Goto(other)) => self.end_of(&other, known),
                Some(Verdict::Return) | None => None,
            };
            let leaves = matches!(rule.verdict(), Some(Verdict::Return | Verdict::Goto(_)));
            // What a condition sends out of a built-in chain is not what this is about.
            let built_in = self.policies.contains_key(chain);
            match end {
                Some(_) if always => return end,
                None if leaves && (always || !built_in) => return None,
                _ => {}
            }
        }
        None
    }
}

impl SavedRule {
    /// A rule that never matched, by what is printed of it.
    pub(super) fn new(spec: &str) -> Self {
        Self { spec: spec.to_owned(), counters: Counters::default(), tag: tag(spec) }
    }

    /// What it is known by, also if it is not ours.
    pub(super) fn id(&self) -> Tag {
        self.tag.unwrap_or_else(|| Tag::of_text(&self.spec))
    }

    /// Where it sends packets.
    pub(super) fn target(&self) -> Option<String> {
        let words = words(&self.spec);
        let at = words.iter().position(|word| matches!(word.as_str(), "-j" | "-g"))?;
        words.into_iter().nth(at + 1)
    }

    /// What it does with packets; `None` if it only counts them.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        let target = self.target()?;
        if words(&self.spec).iter().any(|word| word == "-g") {
            return Some(Verdict::Goto(target));
        }
        Some(match target.as_str() {
            "ACCEPT" => Verdict::Accept,
            "DROP" | "REJECT" => Verdict::Refuse,
            "RETURN" => Verdict::Return,
            _ => Verdict::Jump(target),
        })
    }

    /// Whether it matches every packet.
    pub(super) fn is_unconditional(&self) -> bool {
        let words = words(&self.spec);
        let mut words = words.iter().map(String::as_str).take_while(|word| !matches!(*word, "-j" | "-g"));
        while let Some(word) = words.next() {
            match word {
                "-m" if words.next() == Some("comment") => {}
                "--comment" => drop(words.next()),
                _ => return false,
            }
        }
        true
    }

    /// The value of an option, unless it is negated.
    pub(super) fn value(&self, option: &str) -> Option<String> {
        let words = words(&self.spec);
        let at = words.iter().position(|word| word == option)?;
        let negated = at.checked_sub(1).is_some_and(|before| words[before] == "!");
        if negated { None } else { words.into_iter().nth(at + 1) }
    }

    /// Whether it asks for a set whose name begins so, be it that the set does not have the packet.
    pub(super) fn asks_set(&self, start: &str) -> bool {
        let words = words(&self.spec);
        words.windows(2).any(|pair| pair[0] == "--match-set" && pair[1].starts_with(start))
    }

    /// As arguments of a program.
    pub(super) fn arguments(&self) -> Vec<String> {
        let unquoted = |word: String| word.strip_prefix('"').map_or(word.clone(), str::to_owned);
        words(&self.spec).into_iter().map(unquoted).collect()
    }

    /// Whether it is one of fail2ban's or `event_guard`'s, which come first: a jump to a chain of theirs, or a match of a set.
    pub(super) fn is_ban(&self) -> bool {
        self.ban().is_some()
    }

    /// The name of that chain or set.
    pub(super) fn ban(&self) -> Option<String> {
        words(&self.spec).into_iter().find(|word| holds_bans(word))
    }
}

/// Whether a chain or set of this name is fail2ban's or `event_guard`'s.
pub(super) fn holds_bans(name: &str) -> bool {
    of_fail2ban(name).is_some() || is_event_guards(name)
}

/// What fail2ban named a chain, set or table of this name for, which is a jail by its own actions; `None` if it is not fail2ban's.
pub(crate) fn of_fail2ban(name: &str) -> Option<&str> {
    FAIL2BAN.iter().find_map(|start| name.strip_prefix(start))
}

/// Whether a chain of this name is `event_guard`'s.
pub(crate) fn is_event_guards(name: &str) -> bool {
    name.starts_with(EVENT_GUARD)
}

/// `[packets:bytes] -A CHAIN rule`.
fn rule(line: &str) -> Option<(&str, SavedRule)> {
    let (counters, rest) = line.strip_prefix('[')?.split_once("] -A ")?;
    let (packets, bytes) = counters.split_once(':')?;
    let counters = Counters { packets: packets.parse().ok()?, bytes: bytes.parse().ok()? };
    let (chain, spec) = rest.split_once(' ').unwrap_or((rest, ""));
    Some((chain, SavedRule { counters, ..SavedRule::new(spec) }))
}

fn tag(spec: &str) -> Option<Tag> {
    const COMMENT: &str = "--comment \"ringfence ";
    let at = spec.find(COMMENT)? + COMMENT.len();
    Tag::parse(spec[at..].split('"').next()?)
}

/// The words of a rule; quoted ones with the first of their quotes alone.
pub(super) fn words(spec: &str) -> Vec<String> {
    let mut words = vec![];
    let mut rest = spec.chars().peekable();
    while let Some(first) = rest.next() {
        match first {
            ' ' => {}
            '"' => {
                let mut word = String::new();
                while let Some(c) = rest.next().filter(|c| *c != '"') {
                    word.extend(if c == '\\' { rest.next() } else { Some(c) });
                }
                // What is quoted is a value, never an option.
                words.push(format!("\"{word}"));
            }
            first => {
                let mut word = String::from(first);
                while let Some(c) = rest.next_if(|c| *c != ' ') {
                    word.push(c);
                }
                words.push(word);
            }
        }
    }
    words
}
