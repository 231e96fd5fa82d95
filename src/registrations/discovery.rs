//! Which source to ask, found from FreeSWITCH's and FusionPBX's own files.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::config::{self, SourceKind};
use crate::event_socket::{DEFAULT_ADDRESS, DEFAULT_PASSWORD};
use crate::freeswitch::{self, FreeSwitch};
use crate::fusionpbx::{self, Database, FusionPbx};
use crate::postgres::Target;

/// Where FreeSWITCH's database files usually are; all that are there are read. `/dev/shm`, where everybody may
/// write, is read only if a configuration names it.
const USUAL_SQLITE_DIRS: [&str; 3] =
    ["/var/lib/freeswitch/db", "/usr/local/freeswitch/db", "/var/db/freeswitch"];

/// What `registrations.postgres` is unless set.
const DEFAULT_POSTGRES: &str = "postgres://ringfence@%2Fvar%2Frun%2Fpostgresql/freeswitch";

/// Who knows the registrations.
#[derive(Clone)]
pub enum Source {
    /// These files of FreeSWITCH's.
    Sqlite(Vec<PathBuf>),
    /// This database of FreeSWITCH's.
    Postgres(Target),
    /// FreeSWITCH itself.
    EventSocket {
        /// `HOST:PORT`.
        address: String,
        /// Never shown.
        password: String,
    },
}

/// The source and why it is the one.
#[derive(Clone, Debug)]
pub struct Discovery {
    /// The source to ask.
    pub source: Source,
    /// What was found on the way, in order.
    pub clues: Vec<String>,
}

/// Finds the source that the settings and the host's own files name.
///
/// Errors name what was looked for, and the setting that helps.
pub fn discover(settings: &config::Registrations) -> anyhow::Result<Discovery> {
    let mut clues = Vec::new();
    let source = match settings.source {
        SourceKind::Auto => auto(settings, &mut clues)?,
        kind => {
            clues.push(format!("registrations.source = \"{kind}\""));
            match kind {
                SourceKind::Postgres => postgres(settings, || Target::parse(DEFAULT_POSTGRES))?,
                SourceKind::EventSocket => event_socket(
                    settings,
                    &read_freeswitch(settings, &mut clues)?.1,
                    read_fusionpbx(settings, &mut clues)?.as_ref(),
                )?,
                _ => sqlite(settings, &sqlite_dirs(settings, &mut clues)?, &mut clues)?,
            }
        }
    };
    Ok(Discovery { source, clues })
}

/// In the order in which the host's own files prove it: what FreeSWITCH's core is told, what FusionPBX says of
/// FreeSWITCH's database, the files that exist, the event socket, a cluster's database.
fn auto(settings: &config::Registrations, clues: &mut Vec<String>) -> anyhow::Result<Source> {
    let (switch_conf, freeswitch) = read_freeswitch(settings, clues)?;
    let fusionpbx = read_fusionpbx(settings, clues)?;
    if let Some(dsn) = &freeswitch.core_db_dsn {
        match dsn.split([':', ';']).next().unwrap_or_default() {
            "pgsql" | "postgres" | "postgresql" => {
                clues.push(format!("{}: core-db-dsn is PostgreSQL", switch_conf.display()));
                return postgres(settings, || {
                    Target::parse(dsn).with_context(|| format!("core-db-dsn of {}", switch_conf.display()))
                });
            }
            "sqlite" => clues.push(format!("{}: core-db-dsn is SQLite", switch_conf.display())),
            other => clues.push(format!(
                "{}: core-db-dsn is {other}, which cannot be read; FreeSWITCH itself is asked",
                switch_conf.display()
            )),
        }
        if !dsn.starts_with("sqlite") {
            return event_socket(settings, &freeswitch, fusionpbx.as_ref());
        }
    }
    if let Some(Database::Postgres(conninfo)) = fusionpbx.as_ref().and_then(FusionPbx::switch_database) {
        clues.push("FusionPBX: database.1 is PostgreSQL".into());
        return postgres(settings, || {
            Target::from_conninfo(&conninfo).context("database.1 of FusionPBX's configuration")
        });
    }
    let dirs = dirs(settings, &freeswitch, fusionpbx.as_ref());
    if !files(&dirs).is_empty() {
        return sqlite(settings, &dirs, clues);
    }
    clues.push(format!("no sofia_reg_*.db or core.db in {}", list(&dirs)));
    let told = freeswitch.event_socket_password.is_some()
        || settings.event_socket.password.is_some()
        || fusionpbx.as_ref().is_some_and(|fusionpbx| fusionpbx.event_socket().is_some());
    if told {
        clues.push("the event socket is configured".into());
        return event_socket(settings, &freeswitch, fusionpbx.as_ref());
    }
    if let Some(target) = own_postgres(settings)? {
        clues.push("registrations.postgres is set".into());
        return Ok(Source::Postgres(target));
    }
    if let Some(conninfo) = fusionpbx.as_ref().and_then(FusionPbx::cluster_database) {
        clues.push("FusionPBX: its PostgreSQL server may have the database freeswitch".into());
        let target = Target::from_conninfo(&conninfo).context("database.0 of FusionPBX's configuration")?;
        return Ok(Source::Postgres(target));
    }
    bail!(
        "no registrations found: {}. Is FreeSWITCH on this host? If so, set registrations.source and sqlite-dir, postgres or event-socket",
        clues.join("; ")
    )
}

fn read_freeswitch(
    settings: &config::Registrations,
    clues: &mut Vec<String>,
) -> anyhow::Result<(PathBuf, FreeSwitch)> {
    let usual = freeswitch::USUAL_DIRS.map(PathBuf::from);
    let dir = match &settings.freeswitch_config {
        Some(dir) => Some(dir),
        None => usual.iter().find(|dir| dir.is_dir()),
    };
    let Some(dir) = dir else {
        clues.push(format!("no FreeSWITCH configuration in {}", list(&usual)));
        return Ok((PathBuf::new(), FreeSwitch::default()));
    };
    let read =
        freeswitch::read(dir).context("FreeSWITCH's configuration (registrations.freeswitch-config)")?;
    if read.core_db_dsn.is_none() {
        clues.push(format!("{}: no core-db-dsn", freeswitch::switch_conf(dir).display()));
    }
    Ok((freeswitch::switch_conf(dir), read))
}

fn read_fusionpbx(
    settings: &config::Registrations,
    clues: &mut Vec<String>,
) -> anyhow::Result<Option<FusionPbx>> {
    let files: Vec<&Path> = match &settings.fusionpbx_config {
        Some(file) => vec![file],
        None => fusionpbx::USUAL_FILES.map(Path::new).to_vec(),
    };
    let found =
        fusionpbx::read_first(files).context("FusionPBX's configuration (registrations.fusionpbx-config)")?;
    clues.push(match &found {
        Some((path, _)) => format!("FusionPBX's configuration is {}", path.display()),
        None => "no FusionPBX configuration".into(),
    });
    Ok(found.map(|(_, fusionpbx)| fusionpbx))
}

/// The settings' own target first: the administrator may have made a role that can only read.
fn postgres(
    settings: &config::Registrations,
    otherwise: impl FnOnce() -> anyhow::Result<Target>,
) -> anyhow::Result<Source> {
    own_postgres(settings)?.map_or_else(otherwise, Ok).map(Source::Postgres)
}

fn own_postgres(settings: &config::Registrations) -> anyhow::Result<Option<Target>> {
    let Some(secret) = &settings.postgres else { return Ok(None) };
    Target::parse(&secret.reveal()?).context("registrations.postgres").map(Some)
}

fn event_socket(
    settings: &config::Registrations,
    freeswitch: &FreeSwitch,
    fusionpbx: Option<&FusionPbx>,
) -> anyhow::Result<Source> {
    let config::EventSocket { address, password } = &settings.event_socket;
    let (fusionpbx_address, fusionpbx_password) = fusionpbx.and_then(FusionPbx::event_socket).unzip();
    let address = address.clone().or_else(|| freeswitch.event_socket_address.clone()).or(fusionpbx_address);
    let password = match password {
        Some(secret) => Some(secret.reveal().context("registrations.event-socket")?),
        None => freeswitch.event_socket_password.clone().or_else(|| fusionpbx_password.map(str::to_owned)),
    };
    Ok(Source::EventSocket {
        address: address.unwrap_or_else(|| DEFAULT_ADDRESS.to_owned()),
        password: password.unwrap_or_else(|| DEFAULT_PASSWORD.to_owned()),
    })
}

fn sqlite(
    settings: &config::Registrations,
    dirs: &[PathBuf],
    clues: &mut Vec<String>,
) -> anyhow::Result<Source> {
    let files = files(dirs);
    if files.is_empty() {
        let way_out = if settings.sqlite_dir.is_some() {
            "is registrations.sqlite-dir right?"
        } else {
            "set registrations.sqlite-dir"
        };
        bail!("no sofia_reg_*.db or core.db in {}; {way_out}", list(dirs));
    }
    let count = files.len();
    clues.push(format!(
        "{count} database file{} in {}",
        if count == 1 { "" } else { "s" },
        list(
            &dirs
                .iter()
                .filter(|dir| files.iter().any(|file| file.starts_with(dir)))
                .cloned()
                .collect::<Vec<_>>()
        )
    ));
    Ok(Source::Sqlite(files))
}

fn sqlite_dirs(settings: &config::Registrations, clues: &mut Vec<String>) -> anyhow::Result<Vec<PathBuf>> {
    if settings.sqlite_dir.is_some() {
        return Ok(dirs(settings, &FreeSwitch::default(), None));
    }
    let (_, freeswitch) = read_freeswitch(settings, clues)?;
    let fusionpbx = read_fusionpbx(settings, clues)?;
    Ok(dirs(settings, &freeswitch, fusionpbx.as_ref()))
}

/// The directories in which database files may be: the one that is set, or all that somebody names.
///
/// FusionPBX's switch/dsn.sh moves some of the files to `/dev/shm` and leaves others: rows that nobody keeps
/// up expire, so that an abandoned file does no harm.
fn dirs(
    settings: &config::Registrations,
    freeswitch: &FreeSwitch,
    fusionpbx: Option<&FusionPbx>,
) -> Vec<PathBuf> {
    if let Some(dir) = &settings.sqlite_dir {
        return vec![dir.clone()];
    }
    let dsn = freeswitch.core_db_dsn.as_deref().and_then(|dsn| dsn.strip_prefix("sqlite://"));
    let parent = |file: &str| Path::new(file).parent().map(Path::to_owned);
    let mut dirs: Vec<PathBuf> = dsn.and_then(parent).into_iter().collect();
    dirs.extend(freeswitch.core_db_name.as_deref().and_then(parent));
    if let Some(fusionpbx) = fusionpbx {
        if let Some(Database::Sqlite(dir)) = fusionpbx.switch_database() {
            dirs.push(dir);
        }
        dirs.extend(fusionpbx.switch_database_dir());
    }
    dirs.extend(USUAL_SQLITE_DIRS.map(PathBuf::from));
    dirs.retain(|dir| dir.is_absolute());
    let mut once: Vec<PathBuf> = Vec::new();
    for dir in dirs {
        if !once.contains(&dir) {
            once.push(dir);
        }
    }
    once
}

/// FreeSWITCH's database files in these directories, in order of their names.
fn files(dirs: &[PathBuf]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for dir in dirs {
        let mut here: Vec<PathBuf> = std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| {
                let name = entry.file_name();
                let name = name.as_encoded_bytes();
                name == b"core.db" || name.starts_with(b"sofia_reg_") && name.ends_with(b".db")
            })
            .map(|entry| entry.path())
            .collect();
        here.sort();
        if std::fs::metadata(dir).is_ok_and(|dir| dir.mode() & 0o002 != 0) {
            here = of_freeswitch(dir, here);
        }
        files.append(&mut here);
    }
    files
}

/// In a directory where everybody may write, the files that root or the owner of its `core.db` made: others
/// could forge registrations.
fn of_freeswitch(dir: &Path, mut files: Vec<PathBuf>) -> Vec<PathBuf> {
    let owner = |file: &Path| std::fs::symlink_metadata(file).ok().map(|about| about.uid());
    let core = owner(&dir.join("core.db"));
    files.retain(|file| matches!(owner(file), Some(uid) if uid == 0 || Some(uid) == core));
    files
}

fn list(dirs: &[PathBuf]) -> String {
    dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ")
}

impl Source {
    /// One word for it, as in the settings.
    #[must_use]
    pub fn kind(&self) -> SourceKind {
        match self {
            Self::Sqlite(_) => SourceKind::Sqlite,
            Self::Postgres(_) => SourceKind::Postgres,
            Self::EventSocket { .. } => SourceKind::EventSocket,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(files) => {
                let mut dirs: Vec<_> = files.iter().filter_map(|file| file.parent()).collect();
                dirs.dedup();
                let dirs: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
                write!(f, "sqlite in {}", dirs.join(", "))
            }
            Self::Postgres(target) => target.fmt(f),
            Self::EventSocket { address, .. } => write!(f, "event-socket {address}"),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({self})")
    }
}

#[cfg(test)]
mod tests;
