//! libpq's connection strings: `key = value`, values in `'...'` where they need it, `\` before `'` and `\`.
//!
//! PostgreSQL manual, "Connection Strings", "Keyword/Value Connection Strings".

use std::iter::Peekable;
use std::str::{Chars, FromStr};

use anyhow::{anyhow, bail};

/// Every key libpq knows; only some of them mean something to one short question.
const KEYS: [&str; 40] = [
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "options",
    "passfile",
    "password",
    "port",
    "replication",
    "require_auth",
    "requirepeer",
    "service",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslpassword",
    "sslrootcert",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];

/// Keys and values in the order in which they were written; of two with the same key the last counts.
#[derive(Clone, Default)]
pub struct Conninfo(Vec<(String, String)>);

impl Conninfo {
    /// With one more key, over an earlier one of the same name.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.0.retain(|(known, _)| known != key);
        self.0.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// Every key with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// Shows no values: one of them is the password.
impl std::fmt::Debug for Conninfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(key, _)| key)).finish()
    }
}

impl FromStr for Conninfo {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut conninfo = Self::default();
        let mut chars = text.chars().peekable();
        loop {
            skip_spaces(&mut chars);
            let mut key = String::new();
            while let Some(c) = chars.next_if(|c| *c != '=' && !c.is_whitespace()) {
                key.push(c);
            }
            if key.is_empty() && chars.peek().is_none() {
                return Ok(conninfo);
            }
            skip_spaces(&mut chars);
            if chars.next() != Some('=') {
                bail!("no `key = value`: a word without `=` behind it");
            }
            if !KEYS.contains(&key.as_str()) {
                return Err(unknown(&key));
            }
            skip_spaces(&mut chars);
            let value =
                value(&mut chars).ok_or_else(|| anyhow!("the value of `{key}` has no closing quote"))?;
            conninfo = conninfo.with(&key, &value);
        }
    }
}

fn skip_spaces(chars: &mut Peekable<Chars<'_>>) {
    while chars.next_if(|c| c.is_whitespace()).is_some() {}
}

/// A quoted or bare value; `None` where its closing quote is missing.
fn value(chars: &mut Peekable<Chars<'_>>) -> Option<String> {
    let quoted = chars.next_if_eq(&'\'').is_some();
    let mut value = String::new();
    loop {
        match chars.next() {
            Some('\'') if quoted => return Some(value),
            Some('\\') => value.extend(chars.next()),
            Some(c) if c.is_whitespace() && !quoted => return Some(value),
            Some(c) => value.push(c),
            None => return (!quoted).then_some(value),
        }
    }
}

fn unknown(key: &str) -> anyhow::Error {
    let nearest = KEYS.iter().map(|name| (strsim::damerau_levenshtein(key, name), name)).min();
    match nearest {
        Some((distance, name)) if distance <= 2 => anyhow!("unknown key `{key}`; did you mean `{name}`?"),
        // What is far from every key may be a piece of a password that was not quoted.
        _ => anyhow!("an unknown key; a value with spaces in it needs quotes: password='...'"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_as_libpq_does() {
        let conninfo: Conninfo =
            " user=a user = b password='x\\'\\\\ =y' options= '' host=h\\ i".parse().unwrap();
        let read: Vec<_> = conninfo.iter().collect();
        assert_eq!(read, [("user", "b"), ("password", "x'\\ =y"), ("options", ""), ("host", "h i")]);
        assert!("".parse::<Conninfo>().unwrap().iter().next().is_none());
    }

    #[test]
    fn an_empty_value_at_the_end_is_empty() {
        // As FusionPBX's switch/dsn.sh leaves it.
        let conninfo: Conninfo = "user=fusionpbx password=x options=".parse().unwrap();
        assert_eq!(conninfo.get("options"), Some(""));
    }

    proptest! {
        #[test]
        fn any_quoted_value_comes_back(value: String) {
            let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
            let conninfo: Conninfo = format!("user='u' password='{quoted}' dbname=d").parse().unwrap();
            prop_assert_eq!(conninfo.get("password"), Some(value.as_str()));
            prop_assert_eq!(conninfo.get("dbname"), Some("d"));
        }

        #[test]
        fn nothing_panics(text: String) {
            let _ = text.parse::<Conninfo>();
        }
    }
}
