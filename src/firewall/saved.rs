//! What iptables-save prints of the table `filter`.

use std::collections::BTreeMap;

use super::{Counters, Tag};

/// A rule that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SavedRule {
    /// As iptables-restore reads it, behind the name of the chain.
    pub(super) spec: String,
    pub(super) counters: Counters,
    /// If it is ours.
    pub(super) tag: Option<Tag>,
}

/// The table as it was saved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    pub(super) chains: BTreeMap<String, Vec<SavedRule>>,
    /// A chain whose packets do not pass unless a rule says so.
    closed: bool,
}

impl Saved {
    /// Reads the output of `iptables-save -c -t filter`. What it does not know, it passes over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut saved = Self::default();
        for line in text.lines() {
            if let Some(chain) = line.strip_prefix(':') {
                let mut words = chain.split(' ');
                saved.chains.entry(words.next().unwrap_or_default().to_owned()).or_default();
                saved.closed |= words.next() == Some("DROP");
            } else if let Some((chain, rule)) = rule(line) {
                saved.chains.entry(chain.to_owned()).or_default().push(rule);
            }
        }
        saved
    }

    /// How many rules and policies are not ours.
    pub(super) fn foreign(&self) -> usize {
        let rules = self.chains.values().flatten().filter(|rule| rule.tag.is_none()).count();
        rules + usize::from(self.closed)
    }

    /// Our rules, wherever they are.
    pub(super) fn ours(&self) -> impl Iterator<Item = (Tag, Counters)> {
        self.chains.values().flatten().filter_map(|rule| Some((rule.tag?, rule.counters)))
    }

    /// The rules of a chain; none if it is not there.
    pub(super) fn rules(&self, chain: &str) -> &[SavedRule] {
        self.chains.get(chain).map_or(&[], Vec::as_slice)
    }
}

impl SavedRule {
    /// Where it sends packets.
    pub(super) fn target(&self) -> Option<String> {
        let words = words(&self.spec);
        let at = words.iter().position(|word| matches!(word.as_str(), "-j" | "-g"))?;
        words.into_iter().nth(at + 1)
    }

    /// Whether it is one of fail2ban's or `event_guard`'s, which come first: a jump to a chain of theirs, or a match of a set.
    pub(super) fn is_ban(&self) -> bool {
        const THEIRS: [&str; 3] = ["f2b-", "fail2ban-", "sip-auth-"];
        words(&self.spec).iter().any(|word| THEIRS.iter().any(|start| word.starts_with(start)))
    }
}

/// `[packets:bytes] -A CHAIN rule`.
fn rule(line: &str) -> Option<(&str, SavedRule)> {
    let (counters, rest) = line.strip_prefix('[')?.split_once("] -A ")?;
    let (packets, bytes) = counters.split_once(':')?;
    let counters = Counters { packets: packets.parse().ok()?, bytes: bytes.parse().ok()? };
    let (chain, spec) = rest.split_once(' ').unwrap_or((rest, ""));
    Some((chain, SavedRule { spec: spec.to_owned(), counters, tag: tag(spec) }))
}

fn tag(spec: &str) -> Option<Tag> {
    const COMMENT: &str = "--comment \"ringfence ";
    let at = spec.find(COMMENT)? + COMMENT.len();
    Tag::parse(spec[at..].split('"').next()?)
}

/// The words of a rule; quoted ones without their quotes.
fn words(spec: &str) -> Vec<String> {
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
