//! `[block]`, `[ledger]` and `[fail2ban]`: which accounts are blocked, how, and where that is written down.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::values::{self, Span};
use super::{Bounds, Mode};

/// `[block]`: one account is blocked, not its address.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Block {
    /// For this section alone.
    pub mode: Option<Mode>,
    /// How packets are matched.
    pub matcher: Matcher,
    /// Where the program in the kernel looks at packets; none: the interfaces with a default route or an address.
    pub interfaces: Interfaces,
    /// How long a block lasts where nobody says.
    #[serde(rename = "for")]
    pub span: Span<BlockFor>,
    /// What happens to blocked accounts over TCP.
    pub tcp: Tcp,
    /// Where it is set, matches are logged.
    pub log_prefix: LogPrefix,
    /// Whether an account must be known not to exist.
    pub verify: Verify,
    /// Whether only accounts seen from addresses that `ringfence-ignore` keeps are blocked.
    pub only_exempt: bool,
    /// No more blocks than this; the oldest makes way. Unset: what the matcher can bear.
    pub max: Option<MaxBlocks>,
}

impl Default for Block {
    fn default() -> Self {
        Self {
            mode: None,
            matcher: Matcher::default(),
            interfaces: Interfaces::default(),
            span: Span::default(),
            tcp: Tcp::default(),
            log_prefix: LogPrefix::default(),
            verify: Verify::default(),
            only_exempt: true,
            max: None,
        }
    }
}

impl Block {
    /// What contradicts itself.
    pub(super) fn check(&self) -> Result<(), String> {
        let only_rules = [("tcp", self.tcp == Tcp::Reset), ("log-prefix", self.log_prefix.get().is_some())];
        match only_rules.iter().find(|(_, set)| *set && self.matcher == Matcher::Bpf) {
            Some((key, _)) => Err(format!(
                "[block] has {key}, which only rules of iptables can do; set matcher = \"strings\", or leave out {key}"
            )),
            None => Ok(()),
        }
    }
}

values::span!(
    /// From a second to a year.
    BlockFor: 1_000 ms ..= 31_536_000_000 ms, default 3_600_000 ms
);

/// How packets of a blocked account are told from others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Matcher {
    /// The best that this host can do.
    #[default]
    Auto,
    /// A program in the kernel.
    Bpf,
    /// Patterns in iptables.
    Strings,
}

/// Names of network interfaces: up to 15 characters of ASCII each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces(Vec<String>);

impl Interfaces {
    /// None: nobody has named any.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Interfaces {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        let is_name = |name: &str| {
            (1..=15).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
                && !matches!(name, "." | "..")
        };
        match names.iter().find(|name| !is_name(name)) {
            Some(name) => Err(de::Error::custom(format!("{name:?} is no name of a network interface"))),
            None => Ok(Self(names)),
        }
    }
}

/// What happens to a blocked account over TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tcp {
    /// It is let through.
    #[default]
    Off,
    /// The connection is reset, and with it every account on it.
    Reset,
}

/// Who must know that an account does not exist before it is blocked everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// FusionPBX's database.
    #[default]
    Fusionpbx,
    /// Nobody.
    None,
}

/// What the kernel's log lines begin with: up to 29 printable characters of ASCII, without `"` and `\`; empty: no log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LogPrefix(String);

impl LogPrefix {
    /// The text; `None` if nothing is to be logged.
    #[must_use]
    pub fn get(&self) -> Option<&str> {
        (!self.0.is_empty()).then_some(&self.0)
    }
}

impl<'de> Deserialize<'de> for LogPrefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let plain = |byte: u8| (b' '..=b'~').contains(&byte) && !matches!(byte, b'"' | b'\\');
        if text.len() <= 29 && text.bytes().all(plain) {
            Ok(Self(text))
        } else {
            Err(de::Error::custom(format!(
                "{text:?} cannot begin a line of the kernel's log; take up to 29 characters of ASCII, no quotes"
            )))
        }
    }
}

/// How many blocks there may be: 1 to 100,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxBlocks(u32);

impl MaxBlocks {
    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl MaxBlocks {
    /// What patterns in the kernel can bear.
    pub const STRINGS: Self = Self(200);

    /// What the map of the kernel's program has room for, with some to spare.
    pub const BPF: Self = Self(100_000);
}

impl<'de> Deserialize<'de> for MaxBlocks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match i64::deserialize(deserializer)? {
            max @ 1..=100_000 => Ok(Self(u32::try_from(max).expect("1 to 100,000"))),
            max => Err(de::Error::custom(format!("{max} is out of range; 1 to 100000 are possible"))),
        }
    }
}

/// `[ledger]`: where the blocks are written down.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Ledger {
    /// Unset: `ledger.db` in the state directory.
    pub url: Option<LedgerUrl>,
}

/// A database file, written `sqlite:///path/to/ledger.db`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerUrl(PathBuf);

impl LedgerUrl {
    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl<'de> Deserialize<'de> for LedgerUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text
            .strip_prefix("sqlite://")
            .filter(|path| path.starts_with('/') && !path.contains(['?', '#']))
        {
            Some(path) => Ok(Self(path.into())),
            // It is not shown: another kind of URL may have a password in it.
            None => Err(de::Error::custom(
                "not a ledger; write it like \"sqlite:///var/lib/ringfence/ledger.db\"",
            )),
        }
    }
}

/// `[fail2ban]`: where it is.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Fail2ban {
    /// Its `dbfile`; where it is not there, nothing is asked.
    pub database: PathBuf,
    /// Where it listens to `fail2ban-client`.
    pub socket: PathBuf,
}

impl Default for Fail2ban {
    fn default() -> Self {
        Self {
            database: "/var/lib/fail2ban/fail2ban.sqlite3".into(),
            socket: "/var/run/fail2ban/fail2ban.sock".into(),
        }
    }
}
