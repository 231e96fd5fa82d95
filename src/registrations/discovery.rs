//! Which source to ask, found from FreeSWITCH's and FusionPBX's own files.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::config::{self, EventSocket, SourceKind};
use crate::event_socket::{DEFAULT_ADDRESS, DEFAULT_PASSWORD};
use crate::freeswitch::{self, FreeSwitch};
use crate::fusionpbx::{self, Database, FusionPbx};
use crate::postgres::Target;

/// Where FreeSWITCH's database files usually are; all that are there are read. `/dev/shm`, where everybody may
/// write, is read only if a configuration names it.
const USUAL_SQLITE_DIRS: [&str; 3] =
    ["/var/lib/freeswitch/db", "/usr/local/freeswitch/db", "/var/db/freeswitch"];

/// How FreeSWITCH names them.
const DATABASE_FILES: &str = "sofia_reg_*.db or core.db";

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

/// Nothing on this host says that there is a FreeSWITCH.
#[derive(Clone, Debug)]
pub struct Nothing {
    clues: String,
}

impl fmt::Display for Nothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no registrations found: {}. Is FreeSWITCH on this host? If so, set registrations.source, and sqlite-dir, \
             postgres or event-socket",
            self.clues
        )
    }
}

impl std::error::Error for Nothing {}

/// Finds the source that the settings and the host's own files name.
///
/// Errors name what was looked for, and the setting that helps.
pub fn discover(settings: &config::Registrations) -> anyhow::Result<Discovery> {
    let mut search = Search::new(settings);
    if settings.source != SourceKind::Auto {
        search.clues.push(format!("registrations.source = \"{}\"", settings.source));
    }
    let source = search.source(settings.source)?;
    Ok(Discovery { source, clues: search.clues })
}

/// Address (`HOST:PORT`) and password of FreeSWITCH's event socket, whatever the source of the registrations is.
///
/// Errors name the file or the setting.
pub fn event_socket(settings: &config::Registrations) -> anyhow::Result<(String, String)> {
    match Search::new(settings).source(SourceKind::EventSocket)? {
        Source::EventSocket { address, password } => Ok((address, password)),
        other => bail!("{other} is no event socket"),
    }
}

/// What the settings and the files of this host say.
struct Search<'a> {
    settings: &'a config::Registrations,
    /// FreeSWITCH's configuration, and who owns it, and so FreeSWITCH's other files.
    freeswitch_dir: Option<PathBuf>,
    owner: Option<u32>,
    /// Where FreeSWITCH's core has its settings.
    switch_conf: PathBuf,
    freeswitch: FreeSwitch,
    fusionpbx: Option<FusionPbx>,
    clues: Vec<String>,
}

impl<'a> Search<'a> {
    fn new(settings: &'a config::Registrations) -> Self {
        let usual = || freeswitch::USUAL_DIRS.map(PathBuf::from).into_iter().find(|dir| dir.is_dir());
        let freeswitch_dir = settings.freeswitch_config.clone().or_else(usual);
        Self {
            settings,
            owner: freeswitch_dir.as_deref().and_then(owner),
            freeswitch_dir,
            switch_conf: PathBuf::new(),
            freeswitch: FreeSwitch::default(),
            fusionpbx: None,
            clues: Vec::new(),
        }
    }

    /// Reads FreeSWITCH's and FusionPBX's configuration.
    fn read(&mut self) -> anyhow::Result<()> {
        if let Some(dir) = &self.freeswitch_dir {
            self.freeswitch = freeswitch::read(dir)
                .context("FreeSWITCH's configuration (registrations.freeswitch-config)")?;
            self.switch_conf = freeswitch::switch_conf(dir);
            if self.freeswitch.core_db_dsn.is_none() {
                self.clues.push(format!("{}: no core-db-dsn", self.switch_conf.display()));
            }
        } else {
            let usual = freeswitch::USUAL_DIRS.join(", ");
            self.clues.push(format!("no FreeSWITCH configuration in {usual}"));
        }
        let found = fusionpbx::find(self.settings.fusionpbx_config.as_deref())
            .context("FusionPBX's configuration (registrations.fusionpbx-config)")?;
        self.clues.push(match &found {
            Some((path, _)) => format!("FusionPBX's configuration is {}", path.display()),
            None => "no FusionPBX configuration".into(),
        });
        self.fusionpbx = found.map(|(_, fusionpbx)| fusionpbx);
        Ok(())
    }

    /// The source of this kind; files are read only for what the settings leave open.
    fn source(&mut self, kind: SourceKind) -> anyhow::Result<Source> {
        let EventSocket { address, password } = &self.settings.event_socket;
        let enough = match kind {
            SourceKind::Auto => false,
            SourceKind::Sqlite => self.settings.sqlite_dir.is_some(),
            SourceKind::Postgres => true,
            SourceKind::EventSocket => address.is_some() && password.is_some(),
        };
        if !enough {
            self.read()?;
        }
        match kind {
            SourceKind::Auto => self.auto(),
            SourceKind::Sqlite => {
                let dirs = self.dirs();
                let files = files(&dirs, self.owner)?;
                self.sqlite(&dirs, files)
            }
            SourceKind::Postgres => self.postgres(|| Target::parse(DEFAULT_POSTGRES)),
            SourceKind::EventSocket => self.event_socket(),
        }
    }

    /// In the order in which the host's own files prove it: what FreeSWITCH's core is told, what FusionPBX
    /// says of FreeSWITCH's database, the files that exist, the event socket, a cluster's database.
    fn auto(&mut self) -> anyhow::Result<Source> {
        if let Some(dsn) = self.freeswitch.core_db_dsn.clone() {
            let file = self.switch_conf.display().to_string();
            match dsn.split([':', ';']).next().unwrap_or_default() {
                "sqlite" => self.clues.push(format!("{file}: core-db-dsn is SQLite")),
                "pgsql" | "postgres" | "postgresql" => {
                    self.clues.push(format!("{file}: core-db-dsn is PostgreSQL"));
                    let target = || Target::parse(&dsn).with_context(|| format!("core-db-dsn of {file}"));
                    return self.postgres(target);
                }
                other => {
                    let clue = format!("{file}: core-db-dsn is {other}, which we do not read");
                    self.clues.push(clue + "; FreeSWITCH itself is asked");
                    return self.event_socket();
                }
            }
        }
        if let Some(Database::Postgres(conninfo)) = self.ask_fusionpbx(FusionPbx::switch_database) {
            self.clues.push("FusionPBX: database.1 is PostgreSQL".into());
            let target =
                || Target::from_conninfo(&conninfo).context("database.1 of FusionPBX's configuration");
            return self.postgres(target);
        }
        let dirs = self.dirs();
        match files(&dirs, self.owner) {
            Ok(files) if !files.is_empty() => return self.sqlite(&dirs, files),
            _ => {}
        }
        self.clues.push(format!("no {DATABASE_FILES} in {}", list(&dirs)));
        if self.freeswitch.event_socket_password.is_some()
            || self.settings.event_socket.password.is_some()
            || self.ask_fusionpbx(FusionPbx::event_socket).is_some()
        {
            self.clues.push("the event socket is configured".into());
            return self.event_socket();
        }
        if self.settings.postgres.is_some() {
            self.clues.push("registrations.postgres is set".into());
            return self.postgres(|| Target::parse(DEFAULT_POSTGRES));
        }
        if let Some(conninfo) = self.ask_fusionpbx(FusionPbx::cluster_database) {
            self.clues.push("FusionPBX: its PostgreSQL server may have the database freeswitch".into());
            return self.postgres(|| {
                Target::from_conninfo(&conninfo).context("database.0 of FusionPBX's configuration")
            });
        }
        Err(Nothing { clues: self.clues.join("; ") }.into())
    }

    fn ask_fusionpbx<T>(&self, what: impl FnOnce(&FusionPbx) -> Option<T>) -> Option<T> {
        self.fusionpbx.as_ref().and_then(what)
    }

    /// The settings' own target first: the administrator may have made a role that can only read.
    fn postgres(&self, otherwise: impl FnOnce() -> anyhow::Result<Target>) -> anyhow::Result<Source> {
        let target = match &self.settings.postgres {
            Some(secret) => Target::parse(&secret.reveal()?).context("registrations.postgres")?,
            None => otherwise()?,
        };
        Ok(Source::Postgres(target))
    }

    fn event_socket(&self) -> anyhow::Result<Source> {
        let EventSocket { address, password } = &self.settings.event_socket;
        let (fusionpbx_address, fusionpbx_password) = self.ask_fusionpbx(FusionPbx::event_socket).unzip();
        let found = self.freeswitch.event_socket_address.clone().or(fusionpbx_address);
        let address = address.clone().or(found).unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
        let password = match password {
            Some(secret) => Some(secret.reveal().context("registrations.event-socket")?),
            None => self.freeswitch.event_socket_password.clone().or(fusionpbx_password),
        };
        let password = password.unwrap_or_else(|| DEFAULT_PASSWORD.to_owned());
        Ok(Source::EventSocket { address, password })
    }

    fn sqlite(&mut self, dirs: &[PathBuf], files: Vec<PathBuf>) -> anyhow::Result<Source> {
        if files.is_empty() {
            let set = self.settings.sqlite_dir.is_some();
            let way_out =
                if set { "is registrations.sqlite-dir right?" } else { "set registrations.sqlite-dir" };
            bail!("no {DATABASE_FILES} in {}; {way_out}", list(dirs));
        }
        let with_files: Vec<_> =
            dirs.iter().filter(|dir| files.iter().any(|file| file.starts_with(dir))).cloned().collect();
        let plural = if files.len() == 1 { "" } else { "s" };
        self.clues.push(format!("{} database file{plural} in {}", files.len(), list(&with_files)));
        Ok(Source::Sqlite(files))
    }

    /// The directories in which database files may be: the one that is set, or all that somebody names.
    ///
    /// FusionPBX's switch/dsn.sh moves some of the files to `/dev/shm` and leaves others: rows that nobody
    /// keeps up expire, so that an abandoned file does no harm.
    fn dirs(&self) -> Vec<PathBuf> {
        if let Some(dir) = &self.settings.sqlite_dir {
            return vec![dir.clone()];
        }
        let parent = |file: &str| Path::new(file).parent().map(Path::to_owned);
        let FreeSwitch { core_db_dsn, core_db_name, .. } = &self.freeswitch;
        let dsn = core_db_dsn.as_deref().and_then(|dsn| dsn.strip_prefix("sqlite://"));
        let database = match self.ask_fusionpbx(FusionPbx::switch_database) {
            Some(Database::Sqlite(dir)) => Some(dir),
            _ => None,
        };
        let named = [
            dsn.and_then(parent),
            core_db_name.as_deref().and_then(parent),
            database,
            self.ask_fusionpbx(FusionPbx::switch_database_dir),
        ];
        let mut dirs: Vec<PathBuf> = Vec::new();
        for dir in named.into_iter().flatten().chain(USUAL_SQLITE_DIRS.map(PathBuf::from)) {
            if dir.is_absolute() && !dirs.contains(&dir) {
                dirs.push(dir);
            }
        }
        dirs
    }
}

/// FreeSWITCH's database files in these directories, in order of their names. A directory that is not there
/// has none; one that cannot be read is an error. In a directory where everybody may write, only those of root and
/// of the user `freeswitch` count.
fn files(dirs: &[PathBuf], freeswitch: Option<u32>) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for dir in dirs {
        let mut here = match std::fs::read_dir(dir) {
            Ok(entries) => database_files(entries),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                continue;
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", dir.display())),
        };
        here.sort();
        // Where everybody may write, others could forge registrations.
        if std::fs::metadata(dir).is_ok_and(|dir| dir.mode() & 0o002 != 0) {
            here.retain(|file| owner(file).is_some_and(|uid| uid == 0 || Some(uid) == freeswitch));
        }
        files.append(&mut here);
    }
    Ok(files)
}

fn database_files(entries: std::fs::ReadDir) -> Vec<PathBuf> {
    let is_database =
        |name: &[u8]| name == b"core.db" || name.starts_with(b"sofia_reg_") && name.ends_with(b".db");
    entries
        .flatten()
        .filter(|entry| is_database(entry.file_name().as_encoded_bytes()))
        .map(|entry| entry.path())
        .collect()
}

fn owner(path: &Path) -> Option<u32> {
    std::fs::symlink_metadata(path).ok().map(|about| about.uid())
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
