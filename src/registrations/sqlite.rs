//! FreeSWITCH's SQLite files: `sip_registrations` in `sofia_reg_*.db`, `registrations` in `core.db`.
//!
//! Opened read-only and never made. A reader's shared lock makes FreeSWITCH wait, so no statement may
//! hold one longer than [`LOCK_TIME`]: a read of everything that would is broken off, and only the asked
//! address is looked up, by its index; who must have everything reads it in [`pages`]. One statement returns one row: no lock is held while rows travel
//! between threads.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sqlx::error::DatabaseError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Row};

use super::{CORE_TABLE, Found, PROFILE_TABLE, Question, Spelling, live};
use crate::deadline::Deadline;

mod accounts;
mod pages;
mod registered;

pub(super) use accounts::{accounts, devices};
pub(super) use pages::everyone;
pub(super) use registered::registered;

/// A statement is broken off after this time. SQLite asks us every [`STEPS`] steps of its machine, so that
/// even a slow disk stays below the 20 ms that FreeSWITCH may be made to wait.
const LOCK_TIME: Duration = Duration::from_millis(15);
const STEPS: i32 = 500;

/// Files of this size in all are read in a few milliseconds, even from a disk: nothing needs to be broken off.
const READ_IN_NO_TIME: u64 = 1 << 20;

/// A larger file is not even tried to be read whole.
const MAX_FULL_READ: u64 = 64 << 20;

/// SQLite attaches at most ten more to a connection.
const MAX_TOGETHER: usize = 10;

/// Files that are read together are locked one after the other: while we wait for one, FreeSWITCH waits for the
/// others. So the wait is short, and then each is read by itself.
const WAIT_TOGETHER: Duration = Duration::from_millis(4);

/// FreeSWITCH's transactions take milliseconds. Who makes us wait longer has his turn after the others.
const SHORT_WAIT: Duration = Duration::from_millis(60);

/// So long before the deadline we want to know what went wrong, to say it.
const MARGIN: Duration = Duration::from_millis(25);

const BUSY: &str = "5";
const INTERRUPT: &str = "9";

const LOCKED: &str = "locked by another process all the time";
const LOOKUP_TOO_LONG: &str = "looking up one address takes longer than FreeSWITCH can be made to wait; is the index sr_network_ip missing?";

pub(super) fn look(files: &[PathBuf], question: &Question, deadline: Deadline) -> anyhow::Result<Found> {
    let deadline = deadline.earlier_by(MARGIN);
    // sqlx runs SQLite on a thread of its own: nothing here needs a reactor or a timer.
    let runtime = tokio::runtime::Builder::new_current_thread().build().context("no asynchronous runtime")?;
    runtime.block_on(async {
        let (usable, mut found) = sort_out(files)?;
        let small = usable.iter().all(|file| file.size <= MAX_FULL_READ);
        let question = Question { all: question.all && small, ..*question };
        if usable.len() <= MAX_TOGETHER
            && found.failures.is_empty()
            && let Ok(together) = read(&usable, &question, deadline.within(WAIT_TOGETHER)).await
        {
            return Ok(together);
        }
        apart(&usable, &question, deadline, &mut found).await;
        if found.failures.len() == files.len() {
            bail!("{}", found.failures.join("; "));
        }
        Ok(found)
    })
}

/// The files that can be opened, and what is wrong with others.
fn sort_out(files: &[PathBuf]) -> anyhow::Result<(Vec<DatabaseFile<'_>>, Found)> {
    let mut found = Found { complete: true, ..Found::default() };
    let mut usable = Vec::new();
    for file in files {
        match size(file) {
            Ok(None) => {}
            Ok(Some(size)) => usable.push(DatabaseFile { path: file, size }),
            Err(error) => found.failures.push(format!("{}: {error:#}", file.display())),
        }
    }
    if usable.is_empty() && found.failures.is_empty() {
        bail!("none of the database files is there any more");
    }
    Ok((usable, found))
}

/// A file with something in it.
struct DatabaseFile<'a> {
    path: &'a Path,
    /// Bytes.
    size: u64,
}

/// The size of a database file; `None` if it is not there (any more).
fn size(file: &Path) -> anyhow::Result<Option<u64>> {
    match std::fs::metadata(file) {
        Ok(about) if about.is_dir() => bail!(
            "it is a directory; registrations.sqlite-dir must name the directory of FreeSWITCH's database files"
        ),
        Ok(about) if !about.is_file() => bail!("it is not a regular file"),
        Ok(about) if about.len() == 0 => {
            bail!("it is empty: FreeSWITCH has not made its tables; remove it if no profile uses it")
        }
        Ok(about) => Ok(Some(about.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Each file by itself, so that what cannot be read is told from what can: first with a short wait for locks,
/// then with all the time there is.
async fn apart(files: &[DatabaseFile<'_>], question: &Question, deadline: Deadline, found: &mut Found) {
    let mut locked = Vec::new();
    for file in files {
        match read(slice::from_ref(file), question, deadline.within(SHORT_WAIT)).await {
            Err(error) if is(&error, BUSY) => locked.push(file),
            read => found.take(file.path, read),
        }
    }
    for file in locked {
        found.take(file.path, read(slice::from_ref(file), question, deadline).await);
    }
}

impl Found {
    fn take(&mut self, file: &Path, part: anyhow::Result<Self>) {
        match part {
            Ok(part) => {
                self.complete &= part.complete;
                self.notes.extend(part.notes);
                for (address, expires) in part.registered {
                    self.add_address(address, expires);
                }
            }
            Err(error) if is(&error, BUSY) => {
                self.failures.push(format!("{}: {LOCKED}", file.display()));
            }
            Err(error) => self.failures.push(format!("{}: {error:#}", file.display())),
        }
    }
}

/// Whether SQLite answered with this code.
fn is(error: &anyhow::Error, code: &str) -> bool {
    let error = error.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
    error.and_then(DatabaseError::code).as_deref() == Some(code)
}

/// A table in one of the attached files.
struct Table {
    schema: String,
    name: &'static str,
}

/// Reads these files through one connection.
async fn read(files: &[DatabaseFile<'_>], question: &Question, deadline: Deadline) -> anyhow::Result<Found> {
    let (main, others) = files.split_first().context("no file")?;
    let size: u64 = files.iter().map(|file| file.size).sum();
    let (mut connection, tables) = open(main, others, deadline.remaining()).await?;
    let guard = if size <= READ_IN_NO_TIME { None } else { Some(LockGuard::install(&mut connection).await?) };
    let mut question = *question;
    let texts = loop {
        if let Some(guard) = &guard {
            guard.start();
        }
        match fetch(&mut connection, &tables, &question).await {
            Err(error) if question.all && is(&error, INTERRUPT) => question.all = false,
            Err(error) if is(&error, INTERRUPT) => bail!(LOOKUP_TOO_LONG),
            other => break other?,
        }
    };
    let mut found = Found { complete: question.all, ..Found::default() };
    for (file, texts) in files.iter().zip(&texts) {
        let count = texts.iter().flatten().map(|text| found.add_lines(text)).sum();
        found.notes.push(format!("{}: {}", file.path.display(), live(count)));
    }
    // Closing waits for the other thread; the end of the process closes as well.
    std::mem::forget(connection);
    Ok(found)
}

/// Tries until nobody else has the lock, or `patience` ends.
async fn unlocked<T>(
    patience: Deadline,
    mut work: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    loop {
        match work().await {
            Err(error) if is(&error, BUSY) && !patience.has_passed() => {}
            outcome => return outcome,
        }
    }
}

/// Opens a connection to these files that waits so long for a lock; and the tables of each.
async fn open(
    main: &DatabaseFile<'_>,
    others: &[DatabaseFile<'_>],
    wait: Duration,
) -> anyhow::Result<(SqliteConnection, Vec<Vec<Table>>)> {
    let mut connection = SqliteConnectOptions::new()
        .filename(main.path)
        .read_only(true)
        .create_if_missing(false)
        .busy_timeout(wait)
        .connect()
        .await?;
    let tables = attach(others, &mut connection).await?;
    if tables.iter().any(Vec::is_empty) {
        // Each file is then read by itself, and this said of the right one.
        bail!("it has neither sip_registrations nor registrations; is it FreeSWITCH's?");
    }
    Ok((connection, tables))
}

/// Attaches more files to the one that is open, and finds the tables with registrations, those of each
/// file together: with `odbc-dsn` set to core.db, the profiles have their table there too.
///
/// All in one script: each statement by itself would cost two switches between threads.
async fn attach(
    others: &[DatabaseFile<'_>],
    connection: &mut SqliteConnection,
) -> anyhow::Result<Vec<Vec<Table>>> {
    let mut script = String::new();
    for (number, file) in others.iter().enumerate() {
        let file = file.path.to_str().context("its name is not UTF-8")?.replace('\'', "''");
        write!(script, "ATTACH '{file}' AS {}; ", schema(number + 1))?;
    }
    let tables = (0..=others.len()).map(|number| {
        let schema = schema(number);
        format!(
            "(SELECT group_concat(name) FROM {schema}.sqlite_master \
             WHERE type = 'table' AND name IN ('{PROFILE_TABLE}', '{CORE_TABLE}'))"
        )
    });
    write!(script, "SELECT {}", tables.collect::<Vec<_>>().join(", "))?;
    let row = sqlx::raw_sql(&script).fetch_one(connection).await?;
    (0..=others.len())
        .map(|number| {
            let present: Option<String> = row.try_get(number)?;
            let present = present.unwrap_or_default();
            let names = [PROFILE_TABLE, CORE_TABLE]
                .into_iter()
                .filter(|name| present.split(',').any(|known| known == *name));
            Ok(names.map(|name| Table { schema: schema(number), name }).collect())
        })
        .collect()
}

fn schema(number: usize) -> String {
    if number == 0 { "main".to_owned() } else { format!("db{number}") }
}

/// One text of "ADDRESS EXPIRES" lines per table, in one row.
async fn fetch(
    connection: &mut SqliteConnection,
    tables: &[Vec<Table>],
    question: &Question,
) -> anyhow::Result<Vec<Vec<Option<String>>>> {
    let profiles = tables.iter().flatten().any(|table| table.name == PROFILE_TABLE);
    let (condition, spellings) = match question.spelling() {
        _ if question.all => ("", vec![]),
        Spelling::OneOf(spellings) => ("AND network_ip IN (?2, ?3)", Vec::from(spellings)),
        Spelling::Between(start, end) => ("AND network_ip >= ?2 AND network_ip < ?3", vec![start, end]),
    };
    let mut columns = Vec::new();
    for table in tables.iter().flatten() {
        let Table { schema, name } = table;
        columns.push(if !question.all && profiles && *name == CORE_TABLE {
            // The core's table has no index on the address, and nothing that the profiles' has not.
            "NULL".to_owned()
        } else {
            // "+" keeps SQLite from choosing the index on expires, which nearly every row satisfies.
            format!(
                "(SELECT group_concat(network_ip || ' ' || expires, char(10)) FROM {schema}.{name} \
                 WHERE +expires > ?1 {condition})"
            )
        });
    }
    let sql = format!("SELECT {}", columns.join(", "));
    let mut query = sqlx::query(&sql).bind(question.now).persistent(false);
    for spelling in spellings {
        query = query.bind(spelling);
    }
    let row = query.fetch_one(connection).await?;
    let mut column = 0..;
    tables
        .iter()
        .map(|tables| tables.iter().zip(&mut column).map(|(_, column)| Ok(row.try_get(column)?)).collect())
        .collect()
}

/// Breaks a statement off that holds its lock for too long.
struct LockGuard(Arc<Mutex<Option<Instant>>>);

impl LockGuard {
    async fn install(connection: &mut SqliteConnection) -> anyhow::Result<Self> {
        // The time counts from the first steps on: before them a statement may have waited for its lock.
        let started = Arc::new(Mutex::new(None));
        let shared = Arc::clone(&started);
        connection.lock_handle().await?.set_progress_handler(STEPS, move || {
            let Ok(mut started) = shared.lock() else { return false };
            started.get_or_insert_with(Instant::now).elapsed() < LOCK_TIME
        });
        Ok(Self(started))
    }

    fn start(&self) {
        if let Ok(mut started) = self.0.lock() {
            *started = None;
        }
    }

    /// For how long the statement has been at work: next to nothing where it came to less than [`STEPS`].
    fn held(&self) -> Duration {
        let started = self.0.lock().ok().and_then(|started| *started);
        started.map_or(Duration::ZERO, |started| started.elapsed())
    }
}
