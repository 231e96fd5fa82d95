//! FusionPBX's configuration: `config.conf`, or `config.php` of older versions.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::config::Config;
use crate::postgres::{Conninfo, Target};
use crate::state_file;

pub mod accounts;
pub mod event_guard;
pub mod profiles;

/// Where FusionPBX's configuration usually is, the newest form first.
pub const USUAL_FILES: [&str; 5] = [
    "/etc/fusionpbx/config.conf",
    "/usr/local/etc/fusionpbx/config.conf",
    "/etc/fusionpbx/config.php",
    "/usr/local/etc/fusionpbx/config.php",
    "/var/www/fusionpbx/resources/config.php",
];

/// Said of a database without FusionPBX's tables.
pub(crate) const NOT_ITS_DATABASE: &str =
    "so it is not FusionPBX's database; FusionPBX's config.conf names it as database.0";

/// What to do where its file may not be read.
const UNREADABLE: &str =
    " (let this user be in its group, in a unit by SupplementaryGroups=, or set postgres in [fusionpbx])";

/// What FusionPBX knows about databases and FreeSWITCH.
#[derive(Clone, Debug, Default)]
pub struct FusionPbx {
    settings: HashMap<String, String>,
}

/// A database as FusionPBX's configuration names it.
#[derive(Clone, Debug)]
pub enum Database {
    /// A directory with SQLite files in it.
    Sqlite(PathBuf),
    /// PostgreSQL.
    Postgres(Conninfo),
}

/// FusionPBX's configuration: what `named` says, or the first of the usual files that is there. No file is `None`; one
/// that cannot be read is an error that names it.
pub fn find(named: Option<&Path>) -> anyhow::Result<Option<(PathBuf, FusionPbx)>> {
    for path in named.map_or_else(|| USUAL_FILES.map(Path::new).to_vec(), |named| vec![named]) {
        match state_file::read_regular(path, 1 << 20) {
            Ok(content) => {
                let text = String::from_utf8_lossy(&content);
                let php = path.extension().is_some_and(|extension| extension == "php");
                return Ok(Some((
                    path.to_owned(),
                    if php { FusionPbx::from_php(&text) } else { FusionPbx::from_conf(&text) },
                )));
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => {
                let remedy = if error.kind() == io::ErrorKind::PermissionDenied { UNREADABLE } else { "" };
                return Err(error).with_context(|| format!("cannot read {}{remedy}", path.display()));
            }
        }
    }
    Ok(None)
}

/// FusionPBX's own database: the one that the settings name (`fusionpbx.postgres`), or else FusionPBX's configuration.
/// `None` where there is no FusionPBX. Errors name the setting or the file.
pub fn own_database(config: &Config) -> anyhow::Result<Option<Target>> {
    if let Some(secret) = &config.fusionpbx.postgres {
        let target = secret.reveal().and_then(|text| Target::parse(&text));
        return target.context("fusionpbx.postgres").map(Some);
    }
    let Some((path, fusionpbx)) = find(config.registrations.fusionpbx_config.as_deref())? else {
        return Ok(None);
    };
    let path = path.display();
    let own = fusionpbx.own_database().with_context(|| {
        format!("{path} names no PostgreSQL as FusionPBX's own database; set postgres in [fusionpbx]")
    })?;
    Target::from_conninfo(&own).with_context(|| format!("database.0 of {path}")).map(Some)
}

impl FusionPbx {
    /// `config.conf`: `key = value` lines. A value ends with its line, whatever is in it.
    #[must_use]
    pub fn from_conf(text: &str) -> Self {
        let settings = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with(['#', ';', '[']))
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
            .collect();
        Self { settings }
    }

    /// `config.php`: `$db_host = 'value';` assignments, under the names that `config.conf` has for them.
    #[must_use]
    pub fn from_php(text: &str) -> Self {
        let mut settings = HashMap::new();
        for line in text.lines().map(str::trim) {
            let Some((name, value)) = line.strip_prefix('$').and_then(|line| line.split_once('=')) else {
                continue;
            };
            let key = match name.trim() {
                "db_type" => "database.0.type",
                "db_host" => "database.0.host",
                "db_port" => "database.0.port",
                "db_name" => "database.0.name",
                "db_username" => "database.0.username",
                "db_password" => "database.0.password",
                _ => continue,
            };
            if let Some(value) = php_string(value.trim()) {
                settings.insert(key.to_owned(), value);
            }
        }
        Self { settings }
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.settings.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// FreeSWITCH's own database, `database.1`.
    #[must_use]
    pub fn switch_database(&self) -> Option<Database> {
        match self.get("database.1.type")? {
            "sqlite" => Some(Database::Sqlite(self.get("database.1.path")?.into())),
            "pgsql" => Some(Database::Postgres(self.postgres("database.1"))),
            _ => None,
        }
    }

    /// FreeSWITCH's database directory.
    #[must_use]
    pub fn switch_database_dir(&self) -> Option<PathBuf> {
        self.get("switch.database.dir").map(PathBuf::from)
    }

    /// FusionPBX's own database, `database.0`, where it is PostgreSQL.
    #[must_use]
    pub fn own_database(&self) -> Option<Conninfo> {
        (self.get("database.0.type") == Some("pgsql")).then(|| self.postgres("database.0"))
    }

    /// The server of FusionPBX's own database, and on it the database `freeswitch`, where clusters have
    /// FreeSWITCH's tables.
    #[must_use]
    pub fn cluster_database(&self) -> Option<Conninfo> {
        self.own_database().map(|own| own.with("dbname", "freeswitch"))
    }

    fn postgres(&self, database: &str) -> Conninfo {
        let mut conninfo = Conninfo::default();
        for (key, name) in [
            ("host", "host"),
            ("port", "port"),
            ("sslmode", "sslmode"),
            ("sslrootcert", "cert_authority"),
            ("dbname", "name"),
            ("user", "username"),
            ("password", "password"),
        ] {
            if let Some(value) = self.get(&format!("{database}.{name}")) {
                conninfo = conninfo.with(key, value);
            }
        }
        conninfo
    }

    /// Address and password of the event socket.
    #[must_use]
    pub fn event_socket(&self) -> Option<(String, String)> {
        let host = self.get("switch.event_socket.host")?;
        let port = self.get("switch.event_socket.port")?;
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        Some((format!("{host}:{port}"), self.get("switch.event_socket.password")?.to_owned()))
    }
}

/// A quoted PHP string up to its closing quote; `\` takes the next character as it is.
fn php_string(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let mut out = String::new();
    let mut rest = text.chars().skip(1);
    loop {
        match rest.next()? {
            c if c == quote => return Some(out),
            '\\' => match rest.next()? {
                c if c == quote || c == '\\' => out.push(c),
                c => out.extend(['\\', c]),
            },
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_recorded_config_conf() {
        let config = FusionPbx::from_conf(include_str!("../tests/data/fusionpbx-config.conf"));
        assert!(
            matches!(config.switch_database(), Some(Database::Sqlite(dir)) if dir == Path::new("/var/lib/freeswitch/db"))
        );
        assert_eq!(config.switch_database_dir().as_deref(), Some(Path::new("/var/lib/freeswitch/db")));
        assert_eq!(config.event_socket(), Some(("127.0.0.1:8021".into(), "ClueCon".into())));
        let cluster = config.cluster_database().unwrap();
        assert_eq!(cluster.get("password"), Some("S3cr=et#with=signs"));
        assert_eq!((cluster.get("dbname"), cluster.get("host")), (Some("freeswitch"), Some("127.0.0.1")));
        let own = config.own_database().unwrap();
        assert_eq!((own.get("dbname"), own.get("password")), (Some("fusionpbx"), cluster.get("password")));
    }

    #[test]
    fn the_settings_name_the_database_or_its_file_does() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.conf");
        let ask = |more: &str| {
            let text = format!("[registrations]\nfusionpbx-config = {file:?}\n{more}");
            let target = own_database(&toml::from_str(&text).unwrap());
            target.map(|target| target.map(|target| target.to_string())).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(ask(""), Ok(None));
        let named = "[fusionpbx]\npostgres = \"host=db dbname=pbx user=ringfence\"";
        assert_eq!(ask(named), Ok(Some("postgres pbx as ringfence on db:5432".into())));
        let wrong = ask("[fusionpbx]\npostgres = \"host=db passwort=hunter2\"").unwrap_err();
        assert!(wrong.starts_with("fusionpbx.postgres: unknown key `passwort`"), "{wrong}");
        std::fs::write(&file, include_str!("../tests/data/fusionpbx-config.conf")).unwrap();
        assert_eq!(ask(""), Ok(Some("postgres fusionpbx as fusionpbx on 127.0.0.1:5432".into())));
        assert_eq!(ask(named), Ok(Some("postgres pbx as ringfence on db:5432".into())));
        std::fs::write(&file, "database.0.type = sqlite\n").unwrap();
        assert!(
            ask("").unwrap_err().contains("names no PostgreSQL as FusionPBX's own database; set postgres")
        );
        std::fs::write(&file, "database.0.type = pgsql\ndatabase.0.port = x\n").unwrap();
        assert!(ask("").unwrap_err().starts_with("database.0 of /"));
    }

    #[test]
    fn a_cluster_names_its_server() {
        let config =
            FusionPbx::from_conf("database.1.type = pgsql\ndatabase.1.host = 10.0.0.5\ndatabase.1.name=fs\n");
        let Some(Database::Postgres(conninfo)) = config.switch_database() else { panic!("no PostgreSQL") };
        assert_eq!((conninfo.get("host"), conninfo.get("dbname")), (Some("10.0.0.5"), Some("fs")));
    }

    #[test]
    fn reads_an_old_config_php() {
        let text = "<?php\n\t\t$db_type = 'pgsql'; //sqlite, mysql, pgsql\n$db_host = \"db\";\n$db_port='5433';\n\
                    //$db_name = 'no';\n$db_name = 'fusionpbx';\n$db_username = 'fusionpbx';\n$db_password = 'it\\'s; = \\\\ \"x\"';\n";
        let cluster = FusionPbx::from_php(text).cluster_database().unwrap();
        assert_eq!(cluster.get("password"), Some("it's; = \\ \"x\""));
        assert_eq!((cluster.get("host"), cluster.get("port")), (Some("db"), Some("5433")));
    }

    #[test]
    fn nothing_useful_is_nothing() {
        let config = FusionPbx::from_conf("# nothing\n[section]\nnoise\n= x\n");
        assert!(
            config.switch_database().is_none()
                && config.own_database().is_none()
                && config.cluster_database().is_none()
                && config.event_socket().is_none()
        );
        assert!(FusionPbx::from_php("$db_host = getenv('X');").get("database.0.host").is_none());
    }
}
