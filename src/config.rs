//! The settings, `/etc/ringfence/ringfence.toml`: kebab-case keys, unknown keys are errors.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::state_file;

pub mod block;
mod error;
pub mod events;
pub mod firewall;
pub mod lists;
mod values;

pub use block::{Block, Fail2ban, Ledger};
pub use error::ConfigError;
pub use events::Events;
pub use firewall::{Firewall, Ports};
pub use lists::{List, ListName};
pub use values::{Ipv6Prefix, Percent, Secret, Span, span_of, spelled};

/// Where the settings are unless `--config` or `RINGFENCE_CONFIG` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/ringfence/ringfence.toml";

/// No settings file is longer.
const MAX_LENGTH: u64 = 1 << 20;

/// All settings, each at its default where the file does not name it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Whether decisions take effect.
    pub mode: Mode,
    /// What must outlive a reboot.
    pub state_dir: PathBuf,
    /// Caches and locks.
    pub run_dir: PathBuf,
    /// The journal of decisions.
    pub log_dir: PathBuf,
    /// Who is connected now.
    pub registrations: Registrations,
    /// What FusionPBX knows.
    pub fusionpbx: FusionPbx,
    /// Black- and whitelists.
    pub lists: BTreeMap<ListName, List>,
    /// Blocked accounts.
    pub block: Block,
    /// Where they are written down.
    pub ledger: Ledger,
    /// What the kernel's rules are about.
    pub firewall: Firewall,
    /// What fail2ban remembers.
    pub fail2ban: Fail2ban,
    /// What FreeSWITCH tells.
    pub events: Events,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            state_dir: "/var/lib/ringfence".into(),
            run_dir: "/run/ringfence".into(),
            log_dir: "/var/log/ringfence".into(),
            registrations: Registrations::default(),
            fusionpbx: FusionPbx::default(),
            lists: BTreeMap::new(),
            block: Block::default(),
            ledger: Ledger::default(),
            firewall: Firewall::default(),
            fail2ban: Fail2ban::default(),
            events: Events::default(),
        }
    }
}

/// Whether decisions take effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// They do.
    #[default]
    Enforce,
    /// Everything is decided and recorded, and the host behaves as without Ringfence.
    Observe,
}

/// `[registrations]`: who is connected now, and how to ask.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Registrations {
    /// For this section alone.
    pub mode: Option<Mode>,
    /// Which source to ask.
    pub source: SourceKind,
    /// FreeSWITCH's database directory; unset: found.
    pub sqlite_dir: Option<PathBuf>,
    /// A URL or a libpq connection string; unset: found.
    pub postgres: Option<Secret>,
    /// FreeSWITCH's event socket; what is unset is found.
    pub event_socket: EventSocket,
    /// An answer comes within this time, whatever the source does.
    pub deadline: Span<Deadline>,
    /// How long one look at the source serves all calls.
    pub cache: Span<Cache>,
    /// The answer while the source cannot be read and the address was not seen lately.
    pub on_error: OnError,
    /// How long the last answers count while the source cannot be read.
    pub stale_ok: Span<StaleOk>,
    /// IPv6 addresses that share this many bits count as one phone.
    pub ipv6_prefix: Ipv6Prefix,
    /// FusionPBX's `config.conf` or `config.php`; unset: the usual places.
    pub fusionpbx_config: Option<PathBuf>,
    /// FreeSWITCH's configuration directory; unset: the usual places.
    pub freeswitch_config: Option<PathBuf>,
}

values::span!(
    /// From one twentieth of a second, to half of what fail2ban grants a command.
    Deadline: 50 ms ..= 30_000 ms, default 800 ms
);
values::span!(
    /// `0s`: each call asks the source, for its own address only.
    Cache: 0 ms ..= 60_000 ms, default 2_000 ms
);
values::span!(
    /// At most the day for which seen addresses are remembered.
    StaleOk: 0 ms ..= 86_400_000 ms, default 3_600_000 ms
);

/// Which source says who is registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// Found from FreeSWITCH's and FusionPBX's own files.
    #[default]
    Auto,
    /// FreeSWITCH's database files.
    Sqlite,
    /// FreeSWITCH's tables in PostgreSQL.
    Postgres,
    /// FreeSWITCH itself.
    EventSocket,
}

/// `event-socket = { address = "127.0.0.1:8021", password = ... }`
#[derive(Clone, Debug, Default, Hash, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct EventSocket {
    /// `HOST:PORT`.
    pub address: Option<String>,
    /// As in FreeSWITCH's `event_socket.conf.xml`.
    pub password: Option<Secret>,
}

/// `[fusionpbx]`: its own database, where it is not as its configuration says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct FusionPbx {
    /// A URL or a libpq connection string; unset: as in its configuration.
    pub postgres: Option<Secret>,
    /// Whether its carriers are an allow list.
    pub carriers: Carriers,
}

/// Whether FusionPBX's access controls and gateways make the allow list `carriers`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carriers {
    /// Where there is a FusionPBX.
    #[default]
    Auto,
    /// They do not.
    Off,
}

/// What to answer when nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    /// The address may be banned, as without Ringfence.
    #[default]
    Ban,
    /// The address is left alone.
    Keep,
}

impl Config {
    /// Reads the settings from `path`. Without `path` they are at [`DEFAULT_PATH`], where a missing file
    /// means the defaults.
    ///
    /// Every error names the file, the key where there is one, and the way out.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let file = path.unwrap_or(Path::new(DEFAULT_PATH));
        match state_file::read_regular(file, MAX_LENGTH) {
            Ok(content) => Self::parse(file, &content),
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_none() => Ok(Self::default()),
            Err(error) => Err(ConfigError::unreadable(file, &error)),
        }
    }

    /// Reads the settings from the content of `file`, which is named in errors only.
    pub fn parse(file: &Path, content: &[u8]) -> Result<Self, ConfigError> {
        let text =
            std::str::from_utf8(content).map_err(|error| ConfigError::encoding(file, content, error))?;
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::content(file, text, &error))?;
        config.firewall.check().map_err(|message| ConfigError::about(file, &message))?;
        config.block.check().map_err(|message| ConfigError::about(file, &message))?;
        if config.lists.contains_key(lists::CARRIERS) {
            let message = "the list `carriers` is made from FusionPBX's database; take another name, or see [fusionpbx]";
            return Err(ConfigError::about(file, message));
        }
        Ok(config)
    }

    /// [`Config::load`] for a tool that needs none of the sections in `without`: a mistake in them must not get customers
    /// banned. Black- and whitelists are left out if they are among them.
    pub fn load_without(path: Option<&Path>, without: &[&str]) -> Result<Self, ConfigError> {
        let mut config = Self::load(path).or_else(|error| {
            let mut table = table(path);
            let removed = without.iter().filter(|section| table.remove(**section).is_some()).count();
            match table.try_into() {
                Ok(config) if removed > 0 => Ok(config),
                _ => Err(error),
            }
        })?;
        if without.contains(&"lists") {
            config.lists.clear();
        }
        Ok(config)
    }

    /// What a file that [`Config::load`] refuses still says about the mode, `on-error`, the directories and fail2ban: the
    /// wish of the administrator holds although another line is wrong. The rest is at its default, and all of it
    /// where the file is not even TOML.
    #[must_use]
    pub fn salvage(path: Option<&Path>) -> Self {
        let table = table(path);
        let mut config = Self::default();
        take(&table, "mode", &mut config.mode);
        take(&table, "state-dir", &mut config.state_dir);
        take(&table, "run-dir", &mut config.run_dir);
        take(&table, "log-dir", &mut config.log_dir);
        if let Some(toml::Value::Table(section)) = table.get("registrations") {
            take(section, "mode", &mut config.registrations.mode);
            take(section, "on-error", &mut config.registrations.on_error);
        }
        if let Some(toml::Value::Table(section)) = table.get("fail2ban") {
            take(section, "database", &mut config.fail2ban.database);
            take(section, "socket", &mut config.fail2ban.socket);
        }
        config
    }

    /// The mode of `[registrations]`.
    #[must_use]
    pub fn registrations_mode(&self) -> Mode {
        self.registrations.mode.unwrap_or(self.mode)
    }

    /// The mode of `[block]`.
    #[must_use]
    pub fn block_mode(&self) -> Mode {
        self.block.mode.unwrap_or(self.mode)
    }

    /// The mode of `[firewall]`.
    #[must_use]
    pub fn firewall_mode(&self) -> Mode {
        self.firewall.mode.unwrap_or(self.mode)
    }

    /// What `ringfence-firewall` remembers; there from its first `apply` to its `remove`.
    #[must_use]
    pub fn firewall_dir(&self) -> PathBuf {
        self.state_dir.join("firewall")
    }

    /// The log of FreeSWITCH's events.
    #[must_use]
    pub fn events_path(&self) -> PathBuf {
        self.log_dir.join("events/events.log")
    }

    /// The ledger's file.
    #[must_use]
    pub fn ledger_path(&self) -> PathBuf {
        let named = self.ledger.url.as_ref().map(|url| url.path().to_owned());
        named.unwrap_or_else(|| self.state_dir.join("ledger.db"))
    }
}

/// The settings as they stand there; empty if the file cannot be read, or is not TOML.
fn table(path: Option<&Path>) -> toml::Table {
    let file = path.unwrap_or(Path::new(DEFAULT_PATH));
    let content = state_file::read_regular(file, MAX_LENGTH).unwrap_or_default();
    String::from_utf8_lossy(&content).parse().unwrap_or_default()
}

/// Takes a value over if it is there and right.
fn take<'de, T: Deserialize<'de>>(table: &toml::Table, key: &str, place: &mut T) {
    if let Some(value) = table.get(key).and_then(|value| value.clone().try_into().ok()) {
        *place = value;
    }
}

impl SourceKind {
    /// As in the settings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
            Self::EventSocket => "event-socket",
        }
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The allowed values of a time span.
pub trait Bounds {
    /// Shortest.
    const MIN: Duration;
    /// Longest.
    const MAX: Duration;
    /// Unless set.
    const DEFAULT: Duration;
}

#[cfg(test)]
mod tests;
