//! What is not well: one line each, and the command that tells more.

use serde::Serialize;

use crate::commands::causes;
use crate::evidence::visible_within;

/// No more of what is wrong is said here, in bytes.
const LONGEST: usize = 300;

/// What a concern is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum About {
    Pause,
    Settings,
    Order,
    Services,
    Jails,
    Blocks,
    Lists,
    Addresses,
    Events,
    Journal,
}

impl About {
    pub(super) const ALL: [Self; 10] = [
        Self::Pause,
        Self::Settings,
        Self::Order,
        Self::Services,
        Self::Jails,
        Self::Blocks,
        Self::Lists,
        Self::Addresses,
        Self::Events,
        Self::Journal,
    ];

    /// As in JSON.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Settings => "settings",
            Self::Order => "order",
            Self::Services => "services",
            Self::Jails => "jails",
            Self::Blocks => "blocks",
            Self::Lists => "lists",
            Self::Addresses => "addresses",
            Self::Events => "events",
            Self::Journal => "journal",
        }
    }
}

/// Something that is not well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Attention {
    pub(super) about: About,
    /// Safe to print.
    pub(super) what: String,
    /// The command that tells more, or ends it.
    pub(super) more: String,
}

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Concerns(Vec<Attention>);

impl Concerns {
    pub(super) fn add(&mut self, about: About, what: impl AsRef<str>, more: impl Into<String>) {
        let what = visible_within(what.as_ref(), LONGEST);
        self.0.push(Attention { about, what, more: more.into() });
    }

    /// What could be found out; else, that it could not.
    pub(super) fn part<T>(
        &mut self,
        about: About,
        more: &str,
        what: &str,
        found: anyhow::Result<T>,
    ) -> Option<T> {
        found.inspect_err(|error| self.add(about, format!("{what}: not known: {}", causes(error)), more)).ok()
    }

    /// In the order of what they are about.
    pub(super) fn finish(mut self) -> Vec<Attention> {
        self.0.sort_by_key(|attention| attention.about);
        self.0.dedup();
        self.0
    }
}
