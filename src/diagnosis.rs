//! Why an address or an account is blocked, or is not: what each part of the host says of it, put together to one answer.
//!
//! What the parts say are [`Facts`], gathered by whoever can ask them; [`Diagnosis::of`] draws the conclusion, and asks nobody.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::Serialize;

use crate::account::{NotAnAccount, Offender, SipAccount};
use crate::address;

mod answer;
mod facts;
mod undo;

pub use answer::{At, By, Check, Closed, Diagnosis, Said, Verdict};
pub use facts::{
    Allowed, Enforces, Facts, Found, Hits, Host, InBan, InJail, InSets, Ledgered, Listed, OfAccount,
    OfAddress, Probe, Walk,
};
pub use undo::{Act, Undo, command_line};

/// Whom somebody asks about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// Everybody at an address.
    Address(IpAddr),
    /// An account, wherever it is tried from.
    Account(SipAccount),
}

/// Why a text is nobody to ask about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotASubject {
    /// It is neither an address nor an account.
    Neither(NotAnAccount),
    /// A network.
    Network,
    /// An account at an address.
    Both,
}

impl FromStr for Subject {
    type Err = NotASubject;

    fn from_str(text: &str) -> Result<Self, NotASubject> {
        if let Some(address) = address::parse_text(text) {
            return Ok(Self::Address(address));
        }
        match text.parse::<Offender>() {
            Ok(Offender { account, source: None }) => Ok(Self::Account(account)),
            Ok(Offender { source: Some(_), .. }) => Err(NotASubject::Both),
            Err(_) if text.parse::<IpNetwork>().is_ok() => Err(NotASubject::Network),
            Err(error) => Err(NotASubject::Neither(error)),
        }
    }
}

impl fmt::Display for NotASubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Neither(NotAnAccount::Incomplete) => {
                f.write_str("neither an IPv4 or IPv6 address nor an account; write ADDRESS or USER@DOMAIN")
            }
            Self::Neither(error) => error.fmt(f),
            Self::Network => f.write_str("a network; ask about one address of it"),
            Self::Both => f.write_str("an account and an address; ask about one of them"),
        }
    }
}

impl std::error::Error for NotASubject {}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Account(account) => account.fmt(f),
        }
    }
}

impl Subject {
    /// Whether an id of fail2ban's, or a subject of the journal's, concerns it: of an address also the networks with it in, and the
    /// devices that fail there; of an account also its devices.
    #[must_use]
    pub fn is_meant_by(&self, id: &str) -> bool {
        let offender = || id.parse::<Offender>().ok();
        match self {
            Self::Address(address) => {
                let network = || id.split_once('/').and_then(|_| id.parse::<IpNetwork>().ok());
                address::parse_text(id) == Some(*address)
                    || network().is_some_and(|network| network.contains(*address))
                    || offender().is_some_and(|offender| offender.source == Some(*address))
            }
            Self::Account(account) => offender().is_some_and(|offender| offender.account == *account),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_an_address_or_an_account() {
        let subject = |text: &str| text.parse::<Subject>().map(|subject| subject.to_string());
        assert_eq!(subject("::ffff:203.0.113.7").as_deref(), Ok("203.0.113.7"));
        assert_eq!(subject("2001:DB8::7").as_deref(), Ok("2001:db8::7"));
        assert_eq!(subject("o'neil@A.example.com").as_deref(), Ok("o'neil@a.example.com"));
        assert_eq!(subject("101@203.0.113.7").as_deref(), Ok("101@203.0.113.7"));
        for (text, says) in [
            ("203.0.113", "neither an IPv4 or IPv6 address nor an account; write ADDRESS or USER@DOMAIN"),
            ("", "neither an IPv4 or IPv6 address nor an account; write ADDRESS or USER@DOMAIN"),
            ("203.0.113.0/24", "a network; ask about one address of it"),
            ("101@d,203.0.113.7", "an account and an address; ask about one of them"),
            ("101@a b", "its domain is neither a host name nor an IP address"),
        ] {
            assert_eq!(text.parse::<Subject>().unwrap_err().to_string(), says, "{text}");
        }
    }

    #[test]
    fn ids_of_fail2bans_concern_whom_they_mean() {
        for (subject, id, meant) in [
            ("203.0.113.7", "203.0.113.7", true),
            ("203.0.113.7", "203.0.113.70", false),
            ("203.0.113.7", "203.0.113.0/24", true),
            ("203.0.113.7", "203.0.112.0/24", false),
            ("203.0.113.7", "101@d,203.0.113.7", true),
            ("203.0.113.7", "101@203.0.113.7", false),
            ("2001:db8::7", "2001:DB8:0::7", true),
            ("2001:db8::7", "::/0", true),
            ("203.0.113.7", "$(id)", false),
            ("101@d", "101@D", true),
            ("101@d", "101@d,203.0.113.7", true),
            ("101@d", "1101@d", false),
            ("101@d", "101", false),
        ] {
            assert_eq!(subject.parse::<Subject>().unwrap().is_meant_by(id), meant, "{subject} {id}");
        }
    }
}
