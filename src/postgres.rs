//! Which PostgreSQL to ask, from what people and FreeSWITCH write, and a connection to it in time.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use sqlx::ConnectOptions;
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};

use crate::deadline::Deadline;

mod conninfo;

pub use conninfo::Conninfo;

/// So long before the deadline we want to know what went wrong, to say it.
const MARGIN: Duration = Duration::from_millis(15);

/// Where to connect and as whom. Shows everything but the password.
#[derive(Clone)]
pub struct Target {
    options: Box<PgConnectOptions>,
}

impl Target {
    /// Reads `postgres://...` URLs, libpq connection strings (`host=... dbname=...`) and FreeSWITCH's DSNs
    /// (`pgsql://hostaddr=... dbname=...`).
    ///
    /// Errors name the key that is wrong, never a value that may be a secret.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let text = text.trim();
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            heeded_in_url(text)?;
            let options = PgConnectOptions::from_str(text)
                .map_err(|error| anyhow!("not a PostgreSQL URL: {}", url_fault(&error)))?;
            return Ok(Self { options: Box::new(ours(options)) });
        }
        // "pgsql;" is how FreeSWITCH 1.6 wrote it.
        let conninfo = text.strip_prefix("pgsql://").or_else(|| text.strip_prefix("pgsql;")).unwrap_or(text);
        Self::from_conninfo(&conninfo.parse()?)
    }

    /// From keys and values as libpq has them.
    pub fn from_conninfo(conninfo: &Conninfo) -> anyhow::Result<Self> {
        let mut options = PgConnectOptions::new_without_pgpass();
        for (key, value) in conninfo.iter() {
            options = apply(options, key, value)?;
        }
        if let Some(address) = conninfo.get("hostaddr") {
            options = options.host(address);
        }
        Ok(Self { options: Box::new(ours(options)) })
    }

    /// Connects, or says by `deadline` why not.
    pub async fn connect(&self, deadline: Deadline) -> anyhow::Result<PgConnection> {
        match tokio::time::timeout(deadline.remaining(), self.options.connect()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(error).with_context(|| format!("cannot connect to {self}")),
            Err(_) => bail!("cannot connect to {self}: no answer in time"),
        }
    }

    /// Has a conversation with the server, by the deadline, from a thread that runs nothing asynchronous.
    pub(crate) fn converse<T>(
        &self,
        deadline: Deadline,
        talk: impl AsyncFnOnce(&mut PgConnection) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let deadline = deadline.earlier_by(MARGIN);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("no asynchronous runtime")?;
        let answer = runtime.block_on(async {
            let mut connection = self.connect(deadline).await?;
            let answer = tokio::time::timeout(deadline.remaining(), talk(&mut connection)).await;
            // No polite good-bye: the server is told by the closed socket, and nobody waits for it.
            std::mem::forget(connection);
            answer.map_err(|_| anyhow!("no answer in time")).flatten().with_context(|| self.to_string())
        });
        // A name that is still being looked up must not be waited for.
        runtime.shutdown_background();
        answer
    }
}

/// Whether it says that a table is not there.
pub(crate) fn is_missing_table(error: &sqlx::Error) -> bool {
    has_code(error, "42P01")
}

/// The same, and what helps where it says that the role may not read one of these tables.
pub(crate) fn with_grant(error: sqlx::Error, tables: &str) -> anyhow::Error {
    let forbidden = has_code(&error, "42501");
    let error = anyhow::Error::new(error);
    if forbidden { error.context(format!("the role must be granted SELECT on {tables}")) } else { error }
}

/// The codes are in the PostgreSQL manual, appendix A.
fn has_code(error: &sqlx::Error, code: &str) -> bool {
    error.as_database_error().and_then(DatabaseError::code).as_deref() == Some(code)
}

/// What holds for every connection of ours.
fn ours(options: PgConnectOptions) -> PgConnectOptions {
    let options = options.application_name("ringfence").statement_cache_capacity(0);
    // As libpq does: there is no TLS on a Unix socket, and asking for it costs a round trip.
    if options.get_socket().is_some() { options.ssl_mode(PgSslMode::Disable) } else { options }
}

/// sqlx passes over what it does not know: `?ssl_mode=require` would be no TLS at all.
fn heeded_in_url(url: &str) -> anyhow::Result<()> {
    const HEEDED: [&str; 12] = [
        "application_name",
        "dbname",
        "host",
        "hostaddr",
        "options",
        "password",
        "port",
        "sslcert",
        "sslkey",
        "sslmode",
        "sslrootcert",
        "user",
    ];
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let keys = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').map_or(pair, |(key, _)| key));
    match keys.into_iter().find(|key| !HEEDED.contains(key)) {
        // It is not shown: a password with `?` in it that is not written as %3F may be there.
        Some(_) => {
            bail!("not a PostgreSQL URL: behind `?` it has a key that is none of {}", HEEDED.join(", "))
        }
        None => Ok(()),
    }
}

/// URL errors may quote the URL; its password must not come along.
fn url_fault(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Configuration(cause) => cause.to_string(),
        _ => "see the PostgreSQL manual, \"Connection URIs\"".to_owned(),
    }
}

/// Keys that say where to connect or whom to trust, and that we would not heed.
const UNSUPPORTED: [&str; 9] = [
    "passfile",
    "require_auth",
    "requirepeer",
    "service",
    "sslcrl",
    "sslcrldir",
    "sslnegotiation",
    "sslpassword",
    "replication",
];

fn apply(options: PgConnectOptions, key: &str, value: &str) -> anyhow::Result<PgConnectOptions> {
    if value.is_empty() {
        // libpq: an empty value is the default.
        return Ok(options);
    }
    Ok(match key {
        "host" | "hostaddr" | "port" if value.contains(',') => {
            bail!("`{key}` names several servers; name one, or set registrations.postgres to the one to ask")
        }
        "host" if value.starts_with('/') => options.socket(value),
        "host" => options.host(value),
        "port" => options.port(value.parse().map_err(|_| anyhow!("`port` is no port number"))?),
        "dbname" => options.database(value),
        "user" => options.username(value),
        "password" => options.password(value),
        "sslmode" => options.ssl_mode(PgSslMode::from_str(value).map_err(|_| {
            anyhow!(
                "`sslmode` is {value:?}; possible are disable, allow, prefer, require, verify-ca, verify-full"
            )
        })?),
        "sslrootcert" => options.ssl_root_cert(value),
        "sslcert" => options.ssl_client_cert(value),
        "sslkey" => options.ssl_client_key(value),
        "options" => server_options(options, value)?,
        "channel_binding" | "gssencmode" if value == "require" => bail!("`{key}` = require is not supported"),
        key if UNSUPPORTED.contains(&key) => {
            bail!("`{key}` is not supported; leave it out, or set registrations.postgres")
        }
        // Without meaning for one short question.
        _ => options,
    })
}

/// `-c name=value` settings for the session, as libpq's `options` has them.
fn server_options(options: PgConnectOptions, text: &str) -> anyhow::Result<PgConnectOptions> {
    let mut settings = Vec::new();
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("-c").or_else(|| word.strip_prefix("--")) {
            Some("") => words.next().unwrap_or_default(),
            Some(setting) => setting,
            None => "",
        };
        let (name, value) =
            setting.split_once('=').context("`options` is understood as \"-c name=value\" only")?;
        settings.push((name, value));
    }
    Ok(if settings.is_empty() { options } else { options.options(settings) })
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let options = &self.options;
        let database = options.get_database().unwrap_or(options.get_username());
        match options.get_socket() {
            Some(socket) => {
                write!(f, "postgres {} as {} on {}", database, options.get_username(), socket.display())
            }
            None => write!(
                f,
                "postgres {} as {} on {}:{}",
                database,
                options.get_username(),
                options.get_host(),
                options.get_port()
            ),
        }
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Target({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Target::parse(text).unwrap().to_string()
    }

    #[test]
    fn reads_what_freeswitch_and_people_write() {
        for (text, says) in [
            (
                "pgsql://hostaddr=10.0.0.5 port=5433 dbname=freeswitch user=fusionpbx password='se cret' options=''",
                "postgres freeswitch as fusionpbx on 10.0.0.5:5433",
            ),
            (
                "pgsql;hostaddr=127.0.0.1 dbname=freeswitch user=fs password='' options='-c client_min_messages=NOTICE' application_name='freeswitch'",
                "postgres freeswitch as fs on 127.0.0.1:5432",
            ),
            ("host=/run/postgresql dbname=fs user=u", "postgres fs as u on /run/postgresql"),
            ("host = db  port = 1  dbname = 'a\\'b' user=u", "postgres a'b as u on db:1"),
            ("host=db hostaddr=192.0.2.1 user=u dbname=fs", "postgres fs as u on 192.0.2.1:5432"),
            (
                "postgres://ringfence@%2Fvar%2Frun%2Fpostgresql/freeswitch",
                "postgres freeswitch as ringfence on /var/run/postgresql",
            ),
            ("postgresql://u:p@db:5433/fs?sslmode=require", "postgres fs as u on db:5433"),
        ] {
            assert_eq!(shown(text), says);
        }
    }

    #[test]
    fn errors_name_the_key_and_no_secret() {
        for (text, says) in [
            ("host=db passwort=hunter2", "unknown key `passwort`; did you mean `password`?"),
            ("host=db port=hunter2", "`port` is no port number"),
            ("host=db password='hunter2", "the value of `password` has no closing quote"),
            ("service=pbx", "`service` is not supported"),
            ("postgres://u@db/fs?ssl_mode=hunter2", "behind `?` it has a key that is none of"),
            ("host=db channel_binding=require", "`channel_binding` = require is not supported"),
            ("hunter2", "no `key = value`: a word without `=`"),
            ("host=a,b", "`host` names several servers"),
            ("host=db options='-q hunter2'", "`options` is understood as"),
            ("postgres://u:hunter2@db:99999/fs", "not a PostgreSQL URL: invalid port number"),
        ] {
            let error = format!("{:#}", Target::parse(text).unwrap_err());
            assert!(error.contains(says) && !error.contains("hunter2"), "{error}");
        }
        assert!(!format!("{:?}", Target::parse("postgres://u:hunter2@db/fs").unwrap()).contains("hunter2"));
    }
}
