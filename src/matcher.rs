//! How the kernel tells packets of a blocked account from others.

use crate::config::Config;
use crate::config::block::{Matcher, Tcp};

pub mod bpf;
pub mod strings;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A program, and a map of accounts.
    Bpf,
    /// A rule for each account.
    Strings,
}

impl Kind {
    /// What the settings ask for, and why, if that is in other settings. Whether this kernel takes the program is another question.
    #[must_use]
    pub fn wanted(config: &Config) -> (Self, Option<String>) {
        match config.block.matcher {
            Matcher::Strings => (Self::Strings, None),
            Matcher::Auto if config.block.tcp == Tcp::Reset => {
                (Self::Strings, Some("tcp is reset, which only rules of iptables can do".to_owned()))
            }
            Matcher::Auto if config.block.log_prefix.get().is_some() => {
                (Self::Strings, Some("log-prefix is set, and only rules of iptables can log".to_owned()))
            }
            Matcher::Auto | Matcher::Bpf => (Self::Bpf, None),
        }
    }

    /// Whether the other one will do where the program cannot be had.
    #[must_use]
    pub fn is_open(config: &Config) -> bool {
        config.block.matcher == Matcher::Auto
    }
}
