//! The ledger's file: opened, moved aside where it is damaged, and only read where the disk takes nothing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jiff::Timestamp;
use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};

use super::{Look, Lost, schema};
use crate::state_file;

/// Who writes waits so long for who else does.
const PATIENCE: Duration = Duration::from_secs(5);

/// Opens the file; a damaged one is moved aside first.
pub(super) async fn open_or_begin(
    path: &Path,
    how: Look,
    now: Timestamp,
) -> anyhow::Result<(SqliteConnection, Option<Lost>)> {
    let lock = || state_file::open_own_for_update(&beside(path, ".lock"), state_file::effective_user());
    let fault = {
        // Nobody opens it while another moves it aside: he might write into the log of the one that goes. A disk that takes nothing
        // has no lock, and nobody who could move anything.
        let lock = lock().ok();
        if let Some(lock) = &lock
            && !state_file::lock_shared_within(lock, PATIENCE)?
        {
            bail!("another process does not get done with moving it aside");
        }
        match open(path, how).await {
            Ok(connection) => return Ok((connection, None)),
            Err(error) if is_damage(&error) => error,
            Err(error) => return Err(error),
        }
    };
    // One process moves it aside; who waited finds the new one.
    let lock = lock().context("cannot lock it")?;
    if !state_file::lock_within(&lock, PATIENCE)? {
        bail!("it is damaged ({fault:#}), and another process does not get done with moving it aside");
    }
    match open(path, how).await {
        Ok(connection) => Ok((connection, None)),
        Err(error) if is_damage(&error) => {
            let file = beside(path, &format!(".damaged-{}", now.as_second()));
            // The log first: it must not be taken for the new file's.
            for suffix in ["-wal", "-shm", ""] {
                match std::fs::rename(beside(path, suffix), beside(&file, suffix)) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(error).context("it is damaged, and cannot be moved aside");
                    }
                    _ => {}
                }
            }
            Ok((open(path, how).await?, Some(Lost { file, fault: format!("{error:#}") })))
        }
        Err(error) => Err(error),
    }
}

async fn open(path: &Path, how: Look) -> anyhow::Result<SqliteConnection> {
    if path.is_dir() {
        bail!(Damage("it is a directory".to_owned()));
    }
    if !path.exists() {
        // Who may read it is for us to say, not for SQLite; what goes wrong, SQLite says too.
        let _ = state_file::open_own_for_update(path, state_file::effective_user());
    }
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // A block that was acknowledged outlasts a power cut: fail2ban does not ask again.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(PATIENCE)
        .statement_cache_capacity(0)
        .disable_statement_logging();
    patiently(async || {
        let mut connection = options.connect().await?;
        if how == Look::Whole {
            check(&mut connection).await?;
        }
        schema::bring_up(&mut connection).await?;
        Ok(connection)
    })
    .await
}

/// Opens it, also where another process makes or replaces the file at the moment.
async fn patiently(
    open: impl AsyncFn() -> anyhow::Result<SqliteConnection>,
) -> anyhow::Result<SqliteConnection> {
    let patience = Instant::now() + PATIENCE;
    loop {
        match open().await {
            Ok(connection) => return Ok(connection),
            Err(error) if is_damage(&error) => return Err(error),
            // Of several that make or replace the file, all but one are turned away at once.
            Err(error) if is_passing(&error) && Instant::now() < patience => {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Err(error) => {
                let hint = hint(&error);
                return Err(error.context(format!("cannot open it{hint}")));
            }
        }
    }
}

/// For reading what is there, without a log or a lock beside it.
pub(super) async fn open_unchanged(path: &Path) -> anyhow::Result<SqliteConnection> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true).immutable(true);
    let mut connection = options.statement_cache_capacity(0).disable_statement_logging().connect().await?;
    check(&mut connection).await?;
    schema::bring_up(&mut connection).await?;
    Ok(connection)
}

/// For reading what is there, beside others who write.
pub(super) async fn open_to_read(path: &Path) -> anyhow::Result<SqliteConnection> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(PATIENCE);
    let options = options.statement_cache_capacity(0).disable_statement_logging();
    patiently(async || {
        let mut connection = options.connect().await?;
        check(&mut connection).await?;
        Ok(connection)
    })
    .await
}

async fn check(connection: &mut SqliteConnection) -> anyhow::Result<()> {
    let faults: Vec<String> = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_all(connection).await?;
    if faults.iter().any(|fault| fault != "ok") {
        bail!(Damage(faults.join("; ").replace('\n', " ")));
    }
    Ok(())
}

/// What SQLite's own check found.
#[derive(Debug)]
pub(super) struct Damage(pub(super) String);

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Damage {}

/// `SQLITE_CORRUPT` or `SQLITE_NOTADB`, or a table that should be there.
pub(super) fn is_damage(error: &anyhow::Error) -> bool {
    error.is::<Damage>()
        || error.downcast_ref::<sqlx::Error>().and_then(code).is_some_and(|code| matches!(code, 11 | 26))
}

/// `SQLITE_BUSY` or `SQLITE_LOCKED`, or a protocol that others are in the middle of; or the file or its log is gone or empty for
/// a moment, because another moves it aside (`SQLITE_IOERR_DELETE_NOENT`, `SQLITE_IOERR_SHORT_READ`).
fn is_passing(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref::<sqlx::Error>().and_then(extended_code);
    code.is_some_and(|code| matches!(code & 0xff, 5 | 6 | 15) || matches!(code, 5898 | 522))
}

/// What an error means where the disk takes nothing: `SQLITE_IOERR` or `SQLITE_FULL`, `SQLITE_READONLY` or
/// `SQLITE_CANTOPEN`; empty otherwise.
pub(super) fn hint(error: &anyhow::Error) -> &'static str {
    match error.downcast_ref::<sqlx::Error>().and_then(code) {
        Some(10 | 13) => " (is the disk full?)",
        Some(8 | 14) => " (is the disk read-only, or are we not root?)",
        _ => "",
    }
}

/// SQLite's primary result code.
fn code(error: &sqlx::Error) -> Option<u32> {
    extended_code(error).map(|code| code & 0xff)
}

fn extended_code(error: &sqlx::Error) -> Option<u32> {
    error.as_database_error()?.code()?.parse().ok()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
