//! A rule as iptables-save prints it, taken apart: its conditions, and where it sends packets.

use crate::firewall::saved::{SavedRule, words};

/// What a rule asks of a packet, and what it does with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// `-m`; those without are of the module with no name.
    pub(super) modules: Vec<Module>,
    pub(super) target: Target,
    /// Behind the name of the target.
    pub(super) target_options: Vec<Condition>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// It counts.
    None,
    /// `-j`.
    Jump(String),
    /// `-g`.
    Goto(String),
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Module {
    pub(super) name: String,
    pub(super) conditions: Vec<Condition>,
}

/// An option with what it is given.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) negated: bool,
    /// With its dashes.
    pub(super) option: String,
    pub(super) values: Vec<String>,
}

/// Options whose one value may look like anything.
const TEXTS: [&str; 6] = ["--comment", "--string", "--hex-string", "--log-prefix", "--nflog-prefix", "--u32"];

impl Parts {
    pub(super) fn of(rule: &SavedRule) -> Self {
        let mut words = words(&rule.spec).into_iter().peekable();
        let mut modules = vec![Module::default()];
        let (mut target, mut target_options) = (Target::None, vec![]);
        let mut negated = false;
        while let Some(word) = words.next() {
            match word.as_str() {
                "!" => {
                    negated = true;
                    continue;
                }
                "-m" => modules.push(Module { name: value(words.next()), conditions: vec![] }),
                "-j" => target = Target::Jump(value(words.next())),
                "-g" => target = Target::Goto(value(words.next())),
                option => {
                    let mut values = vec![];
                    if TEXTS.contains(&option) {
                        values.extend(words.next().map(|word| value(Some(word))));
                    } else {
                        while let Some(word) = words.next_if(|word| !word.starts_with('-') && word != "!") {
                            values.push(value(Some(word)));
                        }
                    }
                    let condition = Condition { negated, option: word, values };
                    match target {
                        Target::None => modules.last_mut().expect("one").conditions.push(condition),
                        _ => target_options.push(condition),
                    }
                }
            }
            negated = false;
        }
        Self { modules, target, target_options }
    }

    /// What somebody wrote of the rule.
    pub(super) fn comment(&self) -> Option<&str> {
        let mut conditions = self.modules.iter().flat_map(|module| &module.conditions);
        conditions.find(|condition| condition.option == "--comment").map(Condition::value)
    }
}

/// What is quoted has a mark before it.
fn value(word: Option<String>) -> String {
    let word = word.unwrap_or_default();
    word.strip_prefix('"').map_or_else(|| word.clone(), str::to_owned)
}

impl Module {
    /// The first value of an option, if it is there.
    pub(super) fn value(&self, option: &str) -> Option<&str> {
        self.conditions.iter().find(|condition| condition.option == option).map(Condition::value)
    }

    pub(super) fn has(&self, option: &str) -> bool {
        self.conditions.iter().any(|condition| condition.option == option)
    }

    /// Whether all that it says is negated.
    pub(super) fn is_negated(&self) -> bool {
        !self.conditions.is_empty() && self.conditions.iter().all(|condition| condition.negated)
    }
}

impl std::fmt::Display for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut space = "";
        if !self.name.is_empty() {
            write!(f, "-m {}", self.name)?;
            space = " ";
        }
        for condition in &self.conditions {
            write!(f, "{space}{condition}")?;
            space = " ";
        }
        Ok(())
    }
}

impl Condition {
    /// The first value; empty if there is none.
    pub(super) fn value(&self) -> &str {
        self.values.first().map_or("", String::as_str)
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let not = if self.negated { "! " } else { "" };
        write!(f, "{not}{}", self.option)?;
        self.values.iter().try_for_each(|value| write!(f, " {value}"))
    }
}
