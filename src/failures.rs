//! Failed registrations and logins, read from logs, and added up by address and account.

use std::net::IpAddr;

use jiff::Timestamp;

use crate::account::SipAccount;

pub mod event_log;
pub mod freeswitch_log;
pub mod tally;

/// One that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When.
    pub time: Timestamp,
    /// Where it came from.
    pub address: IpAddr,
    /// What the client says, made fit for people to read.
    pub account: Account,
    /// What is wrong with it.
    pub why: Why,
    /// What the client calls itself, as well; empty if that is not known.
    pub agent: String,
    /// Whether it was part of an alarm, so that no jail counts it.
    pub excused: bool,
}

/// A user at a domain, each as people read it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Account {
    /// Before the `@`.
    pub user: String,
    /// Behind it; empty if there is none.
    pub domain: String,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// The account exists: its password is wrong, or it has too many registrations.
    WrongPassword,
    /// There is no such account.
    NoSuchAccount,
    /// The domain is an IP address: so do scanners, who do not know it.
    AddressAsDomain,
    /// The realm of the credentials is not the domain.
    OtherRealm,
    /// Nobody could say whether the account exists.
    NotChecked,
}

impl Why {
    /// In a few words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::WrongPassword => "wrong password",
            Self::NoSuchAccount => "no such account",
            Self::AddressAsDomain => "IP address as domain",
            Self::OtherRealm => "realm is not the domain",
            Self::NotChecked => "refused",
        }
    }
}

impl Account {
    /// Whether it is this one: domains are compared without regard to case.
    #[must_use]
    pub fn is(&self, account: &SipAccount) -> bool {
        self.user == account.user() && self.domain.eq_ignore_ascii_case(account.domain())
    }
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.domain.is_empty() {
            f.write_str(&self.user)
        } else {
            write!(f, "{}@{}", self.user, self.domain)
        }
    }
}
