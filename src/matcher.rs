//! How the kernel tells packets of a blocked account from others.

use crate::config::Config;
use crate::config::block::{Matcher, MaxBlocks, Tcp};

pub mod bpf;
pub mod strings;

/// What the settings ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A rule for each account; why, where other settings say so.
    Strings(Option<&'static str>),
    /// A program, and a map of accounts.
    Bpf {
        /// Where it cannot be had, rules will do.
        or_strings: bool,
    },
}

impl Wanted {
    /// As the settings say.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let block = &config.block;
        match block.matcher {
            Matcher::Strings => Self::Strings(None),
            Matcher::Auto if block.tcp == Tcp::Reset => {
                Self::Strings(Some("tcp is reset, which only rules of iptables can do"))
            }
            Matcher::Auto if block.log_prefix.get().is_some() => {
                Self::Strings(Some("log-prefix is set, and only rules of iptables can log"))
            }
            matcher => Self::Bpf { or_strings: matcher == Matcher::Auto },
        }
    }

    /// What it can bear where the settings name no number.
    #[must_use]
    pub fn max(self) -> MaxBlocks {
        match self {
            Self::Strings(_) => MaxBlocks::STRINGS,
            Self::Bpf { .. } => MaxBlocks::BPF,
        }
    }
}

/// What matches on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// The program.
    Bpf,
    /// Rules, as the settings say.
    Strings,
    /// Rules for the newest blocks, because the program cannot be had; why.
    InsteadOfBpf(String),
}
