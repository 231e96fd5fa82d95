//! The conclusion from the facts: is it blocked, by what, and what undoes it.

use std::net::IpAddr;

use serde::Serialize;

use super::undo::Undo;
use super::{Facts, Subject};
use crate::times::rfc3339_if;

mod account;
mod address;
mod bans;
mod places;
mod rules;

pub use places::At;

/// What blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// A jail of fail2ban's.
    Fail2ban,
    /// FusionPBX's `event_guard`.
    EventGuard,
    /// `ringfence-block`: an account.
    Account,
    /// A list of `ringfence-lists`.
    BlockList,
    /// A limit of `ringfence-firewall`.
    RateLimit,
    /// A restriction of `ringfence-firewall`.
    Restriction,
    /// The host's own rules.
    Rules,
}

/// Something that is said, and its times in seconds since 1970; as JSON as of RFC 3339.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Said {
    /// For people.
    pub text: String,
    /// Since then; `None` where it is not known.
    #[serde(serialize_with = "rfc3339_if")]
    pub since: Option<i64>,
    /// Until then; `None`: see the text.
    #[serde(serialize_with = "rfc3339_if")]
    pub until: Option<i64>,
}

impl Said {
    fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), since: None, until: None }
    }

    fn since(self, since: impl Into<Option<i64>>) -> Self {
        Self { since: since.into(), ..self }
    }

    fn until(self, until: impl Into<Option<i64>>) -> Self {
        Self { until: until.into(), ..self }
    }
}

/// A block that is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Closed {
    /// What blocks.
    pub by: By,
    /// Where packets meet it; nothing where no rule is known.
    pub at: Option<At>,
    /// Which jail, list or rule, in words, and since when until when.
    #[serde(flatten)]
    pub said: Said,
    /// The one account, or device, that it is about; `None`: everybody at the address.
    pub account: Option<String>,
    /// The address that is blocked where somebody asks about an account.
    pub address: Option<IpAddr>,
    /// The ports that are closed, in words; `None`: all.
    pub reach: Option<String>,
    /// How it ends, where no time says.
    pub ends: Option<&'static str>,
    /// Why, for people; may be empty.
    pub why: String,
    /// The lines of logs that caused it.
    pub lines: Vec<String>,
    /// What undoes it, in order.
    pub undo: Vec<Undo>,
    /// What else has to be done, for people; may be empty.
    pub hint: String,
}

/// What a check makes of the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It blocks.
    Blocks,
    /// It would, and does not take effect.
    WouldBlock,
    /// Its packets are let pass what comes behind.
    LetsPass,
    /// Its packets are let in for good.
    LetsIn,
    /// It would block, and does not come to it.
    PassedOver,
    /// Good to know.
    Known,
    /// Nothing.
    Nothing,
    /// It could not be asked.
    NotKnown,
}

impl Verdict {
    /// In a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Blocks => "blocks",
            Self::WouldBlock => "would block",
            Self::LetsPass => "lets pass",
            Self::LetsIn => "lets in",
            Self::PassedOver => "passed over",
            Self::Known => "known",
            Self::Nothing => "-",
            Self::NotKnown => "not known",
        }
    }
}

/// A check on a packet's way, or what else is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Check {
    /// Its name.
    pub check: &'static str,
    /// Where on the way of packets it is; nothing where it is on none, and is good to know all the same.
    pub at: Option<At>,
    /// What it makes of the subject.
    pub verdict: Verdict,
    /// Why.
    pub said: Vec<Said>,
}

impl Check {
    fn new(check: &'static str, verdict: Verdict, said: impl IntoIterator<Item = Said>) -> Self {
        Self { check, at: None, verdict, said: said.into_iter().collect() }
    }

    fn at(self, at: Option<At>) -> Self {
        Self { at, ..self }
    }

    fn unknown(check: &'static str) -> Self {
        Self::new(check, Verdict::NotKnown, [Said::new("could not be asked")])
    }

    /// The same where part of it could not be asked: what was found to block does block.
    fn in_part(mut self, unknown: bool) -> Self {
        if unknown {
            if self.verdict != Verdict::Blocks {
                self.verdict = Verdict::NotKnown;
            }
            self.said.push(Said::new("not all of it could be asked"));
        }
        self
    }
}

/// The conclusion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// What blocks it, or an account of it, first what a packet meets first.
    pub closed: Vec<Closed>,
    /// Why it is not blocked though one may think so; for people.
    pub despite: Vec<Said>,
    /// In the order in which a packet meets them; then those that are on no packet's way.
    pub checks: Vec<Check>,
    /// Why it is not known what becomes of packets to a port of SIP, for people.
    pub doubts: Vec<String>,
    /// What could not be read, where, and what to do.
    pub unread: Vec<String>,
    /// fail2ban's bans that block nothing, and what ends them.
    pub loose: Vec<Undo>,
}

impl Diagnosis {
    /// Draws it.
    #[must_use]
    pub fn of(facts: &Facts) -> Self {
        let mut diagnosis = match &facts.subject {
            Subject::Address(_) => facts.of_address.as_ref().map(|of| address::diagnose(facts, of)),
            Subject::Account(_) => facts.of_account.as_ref().map(|of| account::diagnose(facts, of)),
        }
        .unwrap_or_default();
        diagnosis.unread = facts.unread();
        diagnosis
    }

    /// Whether anything blocks it, or an account of it.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        !self.closed.is_empty()
    }

    /// The same; `None` where nothing was found that does, and not everything could be asked, or told.
    #[must_use]
    pub fn known_blocked(&self) -> Option<bool> {
        let all_known = self.unread.is_empty() && self.doubts.is_empty();
        (self.is_blocked() || all_known).then(|| self.is_blocked())
    }

    /// All that undoes it. What undoes two blocks at once is there once; a rule that is there twice has to be taken away twice.
    #[must_use]
    pub fn undo(&self) -> Vec<&Undo> {
        let mut all: Vec<&Undo> = vec![];
        for closed in &self.closed {
            let new = |undo: &&Undo| !all.iter().any(|other| other.argv == undo.argv);
            let new: Vec<_> = closed.undo.iter().filter(new).collect();
            all.extend(new);
        }
        all
    }
}

#[cfg(test)]
mod tests;
