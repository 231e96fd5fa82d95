//! A SIP account, and who is to blame for its failures: parsed once, valid ever after.

use std::ffi::OsStr;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::address;

/// No user part is longer, in bytes.
const MAX_USER: usize = 128;

/// No domain is longer, in bytes (RFC 1035).
const MAX_DOMAIN: usize = 253;

/// A user at a domain, as a phone names them in its credentials (`username` and `realm`).
///
/// The user is compared byte by byte, the domain without regard to case, as FusionPBX does. A user has no control
/// characters, no white space but inner blanks, and none of `"` `\` `@`: there is more than one way to write these in a
/// header, so that no match could be exact. A domain is a host name, or an IP address; IPv6 stands in brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SipAccount {
    domain: String,
    user: String,
}

/// Who fails: an account wherever it is tried from, or one account's device at an address. As an id of fail2ban's it
/// is written `USER@DOMAIN`, or `USER@DOMAIN,ADDRESS`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Offender {
    /// The account.
    pub account: SipAccount,
    /// Only from there; everywhere if there is none.
    #[serde(default)]
    pub source: Option<IpAddr>,
}

/// Why a text names no account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAnAccount {
    /// Its bytes are no text.
    Encoding,
    /// There is no `@`, or nothing on one side of it.
    Incomplete,
    /// The user part is too long.
    UserTooLong,
    /// The user part has a character that cannot be matched exactly.
    UserCharacter(char),
    /// The domain is neither a host name nor an IP address.
    Domain,
    /// What follows the comma is no address.
    Source,
    /// It is the unspecified address.
    NobodysSource,
}

impl SipAccount {
    /// Checks both parts.
    pub fn new(user: &str, domain: &str) -> Result<Self, NotAnAccount> {
        if user.is_empty() || domain.is_empty() {
            return Err(NotAnAccount::Incomplete);
        }
        if user.len() > MAX_USER {
            return Err(NotAnAccount::UserTooLong);
        }
        let edge = |c: Option<char>| c.filter(|c| *c == ' ');
        let ambiguous =
            |c: &char| c.is_control() || (c.is_whitespace() && *c != ' ') || matches!(c, '"' | '\\' | '@');
        let wrong =
            user.chars().find(ambiguous).or(edge(user.chars().next())).or(edge(user.chars().next_back()));
        if let Some(wrong) = wrong {
            return Err(NotAnAccount::UserCharacter(wrong));
        }
        if !is_domain(domain) {
            return Err(NotAnAccount::Domain);
        }
        Ok(Self { domain: domain.to_ascii_lowercase(), user: user.to_owned() })
    }

    /// The part before the `@`, 1 to 128 bytes.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The part behind it, in lower case, 1 to 253 bytes of ASCII.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }
}

fn is_domain(text: &str) -> bool {
    if let Some(inner) = text.strip_prefix('[') {
        return inner.strip_suffix(']').is_some_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok());
    }
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.len() <= MAX_DOMAIN && text.split('.').all(label)
}

impl FromStr for SipAccount {
    type Err = NotAnAccount;

    fn from_str(text: &str) -> Result<Self, NotAnAccount> {
        let (user, domain) = text.rsplit_once('@').ok_or(NotAnAccount::Incomplete)?;
        Self::new(user, domain)
    }
}

impl TryFrom<String> for SipAccount {
    type Error = NotAnAccount;

    fn try_from(text: String) -> Result<Self, NotAnAccount> {
        text.parse()
    }
}

impl From<SipAccount> for String {
    fn from(account: SipAccount) -> Self {
        account.to_string()
    }
}

impl fmt::Display for SipAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.domain)
    }
}

impl Offender {
    /// Reads what stands on a command line.
    pub fn parse(text: &OsStr) -> Result<Self, NotAnAccount> {
        text.to_str().ok_or(NotAnAccount::Encoding)?.parse()
    }
}

impl FromStr for Offender {
    type Err = NotAnAccount;

    fn from_str(text: &str) -> Result<Self, NotAnAccount> {
        let (user, domain) = text.rsplit_once('@').ok_or(NotAnAccount::Incomplete)?;
        let (domain, source) = match domain.split_once(',') {
            Some((domain, source)) => {
                let source = address::parse_text(source).ok_or(NotAnAccount::Source)?;
                if source.is_unspecified() {
                    return Err(NotAnAccount::NobodysSource);
                }
                (domain, Some(source))
            }
            None => (domain, None),
        };
        Ok(Self { account: SipAccount::new(user, domain)?, source })
    }
}

impl fmt::Display for Offender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.account.fmt(f)?;
        match self.source {
            Some(source) => write!(f, ",{source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for NotAnAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoding => f.write_str("it is not UTF-8, and no account that could be matched exactly"),
            Self::Incomplete => f.write_str("it is not an account; write USER@DOMAIN"),
            Self::UserTooLong => write!(f, "its user part is longer than {MAX_USER} bytes"),
            Self::UserCharacter(c) => {
                write!(f, "its user part has {c:?}, which cannot be matched exactly")
            }
            Self::Domain => f.write_str("its domain is neither a host name nor an IP address"),
            Self::Source => f.write_str("what follows the comma is no IPv4 or IPv6 address"),
            Self::NobodysSource => f.write_str("what follows the comma is nobody's address"),
        }
    }
}

impl std::error::Error for NotAnAccount {}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use proptest::prelude::*;

    use super::*;

    fn account(text: &str) -> Result<String, NotAnAccount> {
        text.parse::<SipAccount>().map(|account| account.to_string())
    }

    #[test]
    fn reads_what_phones_are_called() {
        for text in [
            "101@a.example.com",
            "o'neil@b_1.example",
            "-rf@x",
            "$(touch x)@d",
            "50%|x@d",
            "Иван@d",
            "a b,c@d",
        ] {
            assert_eq!(account(text).as_deref(), Ok(text));
        }
        assert_eq!(account("101@A.Example.COM").as_deref(), Ok("101@a.example.com"));
        assert_ne!(account("Alice@d"), account("alice@d"));
        assert_eq!(account("101@198.51.100.1").as_deref(), Ok("101@198.51.100.1"));
        assert_eq!(account("101@[2001:DB8::1]").as_deref(), Ok("101@[2001:db8::1]"));
    }

    #[test]
    fn refuses_what_cannot_be_matched_exactly() {
        use NotAnAccount::{Domain, Incomplete, NobodysSource, Source, UserCharacter, UserTooLong};
        for (text, why) in [
            ("", Incomplete),
            ("101", Incomplete),
            ("@d", Incomplete),
            ("101@", Incomplete),
            ("e\"vil@d", UserCharacter('"')),
            ("e\\vil@d", UserCharacter('\\')),
            ("e\nvil@d", UserCharacter('\n')),
            ("e\0vil@d", UserCharacter('\0')),
            ("e\u{2028}vil@d", UserCharacter('\u{2028}')),
            (" 101@d", UserCharacter(' ')),
            ("101 @d", UserCharacter(' ')),
            ("x@y@d", UserCharacter('@')),
            ("x@y] from 198.51.100.11", Domain),
            ("101@a b", Domain),
            ("101@a..b", Domain),
            ("101@-a", Domain),
            ("101@a.", Domain),
            ("101@[1.2.3.4]", Domain),
            ("101@пример", Domain),
            ("101@d,1.2.3", Source),
            ("101@d,", Source),
            ("101@d,1.2.3.4,5.6.7.8", Source),
            ("101@d,::", NobodysSource),
            ("101@d,::ffff:0.0.0.0", NobodysSource),
            ("101@d,0.0.0.0", NobodysSource),
        ] {
            assert_eq!(text.parse::<Offender>(), Err(why), "{text:?}");
        }
        assert_eq!(account(&format!("{}@d", "a".repeat(10_000))), Err(UserTooLong));
        assert_eq!(account(&format!("a@{}", "d".repeat(10_000))), Err(Domain));
        assert_eq!(Offender::parse(OsStr::from_bytes(b"ivan\xfc@d")), Err(NotAnAccount::Encoding));
    }

    #[test]
    fn an_offender_may_have_a_source() {
        let offender: Offender = "a,1.2.3.4@d,::ffff:203.0.113.20".parse().unwrap();
        assert_eq!(offender.to_string(), "a,1.2.3.4@d,203.0.113.20");
        assert_eq!("101@d,2001:DB8::1".parse::<Offender>().unwrap().to_string(), "101@d,2001:db8::1");
        assert_eq!("101@d".parse::<Offender>().unwrap().source, None);
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_and_read_again(text in "\\PC{0,40}@[a-zA-Z0-9.,:\\[\\]-]{0,40}") {
            if let Ok(offender) = text.parse::<Offender>() {
                prop_assert_eq!(offender.to_string().parse::<Offender>().unwrap(), offender);
            }
        }
    }
}
