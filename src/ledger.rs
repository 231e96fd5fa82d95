//! The ledger: who is blocked until when, and why. One SQLite file that several processes write at once.
//!
//! What it says is what the kernel should hold. A block ends with its time whether or not anybody sweeps: what is over
//! is not handed out. A file that is damaged is moved aside, and a new one begun.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, QueryBuilder, Sqlite, Transaction};
use tokio::runtime::Runtime;

use crate::account::{Offender, SipAccount};
use crate::address;
use crate::state_file;

mod schema;

/// Who writes waits so long for who else does.
const PATIENCE: Duration = Duration::from_secs(5);

/// fail2ban flushes a jail and then stops it, within milliseconds: what a stop finds flushed so many seconds before was
/// not let go, but is to come back with the jail.
const STOP_FOLLOWS: i64 = 5;

/// A clock may be so many seconds behind the one that wrote.
const AHEAD: i64 = 5;

/// What FusionPBX said of an account counts for so many seconds.
const VERDICT_COUNTS: i64 = 60;

/// Known-good sources are counted over so many seconds.
pub const ALARM_WINDOW: i64 = 60;

/// A block: who, on whose word, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Block {
    /// Whose packets are dropped.
    #[serde(flatten)]
    pub offender: Offender,
    /// fail2ban's jail; empty: blocked by hand.
    #[serde(default)]
    pub jail: String,
    /// The address that the failures came from, where it is known.
    #[serde(default)]
    pub seen_from: Option<IpAddr>,
    /// Seconds since 1970.
    pub since: i64,
    /// Seconds since 1970: it ends then.
    pub until: i64,
    /// Why, for people.
    #[serde(default)]
    pub why: String,
    /// What spoke for it, for people.
    #[serde(default)]
    pub evidence: String,
}

/// The blocks of this host.
#[derive(Debug)]
pub struct Ledger {
    runtime: Runtime,
    /// There until the end.
    connection: Option<SqliteConnection>,
    /// Why it can only be read.
    unwritable: Option<anyhow::Error>,
}

/// An open ledger.
#[derive(Debug)]
pub struct Opened {
    /// The ledger.
    pub ledger: Ledger,
    /// Where a damaged one was moved, and what was wrong with it: what it said is lost.
    pub lost: Option<Lost>,
}

/// A damaged ledger that was moved aside.
#[derive(Debug)]
pub struct Lost {
    /// Where it is now.
    pub file: PathBuf,
    /// What was wrong.
    pub fault: String,
}

/// What came of new blocks.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Put {
    /// The oldest blocks, which had to make way.
    pub evicted: Vec<Block>,
}

/// Which blocks are meant: those of one jail, or all.
pub type OfJail<'a> = Option<&'a str>;

impl Ledger {
    /// Opens the ledger, made if it is missing. `now` names what is moved aside.
    pub fn open(path: &Path, now: Timestamp) -> anyhow::Result<Opened> {
        if let Some(dir) = path.parent() {
            state_file::make_dir(dir, 0o750).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().context("no runtime")?;
        let opened = runtime.block_on(async {
            match open_or_begin(path, now).await {
                Ok((connection, lost)) => Ok((connection, lost, None)),
                // On a disk that takes nothing, what was written can still be read, and what is over ends.
                Err(error) if !hint(&error).is_empty() => match open_unchanged(path).await {
                    Ok(connection) => Ok((connection, None, Some(error))),
                    Err(_) => Err(error),
                },
                Err(error) => Err(error),
            }
        });
        let (connection, lost, unwritable) =
            opened.with_context(|| format!("the ledger {}", path.display()))?;
        Ok(Opened { ledger: Self { runtime, connection: Some(connection), unwritable }, lost })
    }

    /// What is blocked at `now`, the oldest first.
    pub fn active(&mut self, now: i64) -> anyhow::Result<Vec<Block>> {
        self.active_of(None, false, now)
    }

    /// What of a jail is blocked at `now`.
    fn active_of(&mut self, jail: OfJail<'_>, confirmed: bool, now: i64) -> anyhow::Result<Vec<Block>> {
        // One text for all: row by row, each would cost a change of threads. (PostgreSQL calls it json_agg.)
        let sql = format!(
            "SELECT json_group_array(json_array({FIELDS})) FROM (SELECT * FROM blocks WHERE state = 'active' \
             AND until > $1 AND ($2 IS NULL OR jail = $2) AND confirmed >= $3 \
             ORDER BY since, domain, account, source, jail)"
        );
        let query = sqlx::query_scalar(&sql).bind(now).bind(jail).bind(i64::from(confirmed));
        let text: String = self.read(async |connection| Ok(query.fetch_one(connection).await?))?;
        let rows: Vec<Fields> = serde_json::from_str(&text).context("the ledger is not as we wrote it")?;
        Ok(blocks(rows))
    }

    /// Removes what a jail bans no more: blocks that were among its bans at an earlier call, and are not now. `bans` is what
    /// fail2ban remembers, which it does a moment after it has called for a block, or not at all; so what it never had proves
    /// nothing.
    pub fn follow(&mut self, jail: &str, bans: &BTreeSet<Offender>, now: i64) -> anyhow::Result<Vec<Block>> {
        // JSON again: json_each makes rows of it, as PostgreSQL's json_array_elements does.
        const CONFIRM: &str = "UPDATE blocks SET confirmed = 1 WHERE jail = $1 AND confirmed = 0 \
             AND (domain, account, source) IN (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each($2))";
        let mut ended = vec![];
        for block in self.active_of(Some(jail), true, now)? {
            if !bans.contains(&block.offender) {
                ended.extend(self.remove(&block.offender, Some(jail))?);
            }
        }
        let keys: Vec<_> = bans
            .iter()
            .map(|offender| (offender.account.domain(), offender.account.user(), source(offender)))
            .collect();
        let keys = serde_json::to_string(&keys)?;
        self.write(async |transaction| {
            sqlx::query(CONFIRM).bind(jail).bind(keys).execute(&mut **transaction).await?;
            Ok(())
        })?;
        Ok(ended)
    }

    /// Removes what is over at `now`, and sets right what a clock that was set back made too long; the blocks that ended.
    pub fn tidy(&mut self, now: i64) -> anyhow::Result<Vec<Block>> {
        self.write(async |transaction| {
            let (minute_ago, moment_ago, ahead) = (now - 60, now - STOP_FOLLOWS, now + AHEAD);
            // One call for all, which cost more to be made than to be done. What began in the future lasts as long from now on,
            // and no longer.
            let sql = format!(
                "UPDATE blocks SET until = {now} + (until - since), since = {now} WHERE since > {ahead};
                 DELETE FROM verdicts WHERE at < {minute_ago} OR at > {ahead};
                 DELETE FROM alarms WHERE at < {minute_ago} OR at > {ahead};
                 DELETE FROM suspensions WHERE until < {now} OR until > {now} + 3600;
                 DELETE FROM blocks WHERE state = 'flushed' AND (changed < {moment_ago} OR changed > {ahead})"
            );
            sqlx::raw_sql(&sql).execute(&mut **transaction).await?;
            let over = format!("DELETE FROM blocks WHERE until <= $1 RETURNING {FIELDS}");
            Ok(blocks(sqlx::query_as(&over).bind(now).fetch_all(&mut **transaction).await?))
        })
    }

    /// Writes blocks down, or what changed in those that are there; where there are more than `max` then, the oldest make way.
    pub fn put(&mut self, new: &[Block], max: u32, now: i64) -> anyhow::Result<Put> {
        self.write(async |transaction| {
            upsert(transaction, new, now).await?;
            Ok(Put { evicted: evict(transaction, max, now).await? })
        })
    }

    /// Removes blocks of an offender; those that were there.
    pub fn remove(&mut self, offender: &Offender, jail: OfJail<'_>) -> anyhow::Result<Vec<Block>> {
        let sql = format!(
            "DELETE FROM blocks WHERE domain = $1 AND account = $2 AND source = $3 \
             AND ($4 IS NULL OR jail = $4) RETURNING {FIELDS}"
        );
        self.write(async |transaction| {
            let rows = sqlx::query_as(&sql)
                .bind(offender.account.domain())
                .bind(offender.account.user())
                .bind(source(offender))
                .bind(jail)
                .fetch_all(&mut **transaction)
                .await?;
            Ok(blocks(rows))
        })
    }

    /// Lets go of all blocks at once; how many. Until [`Ledger::tidy`] forgets them, a stop that follows takes them for its own.
    pub fn flush(&mut self, jail: OfJail<'_>, now: i64) -> anyhow::Result<u64> {
        self.write(async |transaction| {
            sqlx::query("DELETE FROM blocks WHERE state = 'flushed' AND ($1 IS NULL OR jail = $1)")
                .bind(jail)
                .execute(&mut **transaction)
                .await?;
            let sql = "UPDATE blocks SET state = 'flushed', changed = $2 WHERE state = 'active' AND ($1 IS NULL OR jail = $1)";
            Ok(sqlx::query(sql).bind(jail).bind(now).execute(&mut **transaction).await?.rows_affected())
        })
    }

    /// The flush is over only now, because it had to wait for the kernel: the stop that may follow is counted from here.
    pub fn flushed(&mut self, jail: OfJail<'_>, now: i64) -> anyhow::Result<u64> {
        const SQL: &str =
            "UPDATE blocks SET changed = $2 WHERE state = 'flushed' AND ($1 IS NULL OR jail = $1)";
        self.write(async |transaction| {
            Ok(sqlx::query(SQL).bind(jail).bind(now).execute(&mut **transaction).await?.rows_affected())
        })
    }

    /// Sets blocks aside until they are started again: those that are active, and those that were flushed for this stop.
    pub fn stop(&mut self, jail: OfJail<'_>, now: i64) -> anyhow::Result<u64> {
        self.change(
            "UPDATE blocks SET state = 'stopped', changed = $2 WHERE ($1 IS NULL OR jail = $1) \
             AND (state = 'active' OR (state = 'flushed' AND changed BETWEEN $2 - $3 AND $2 + $3))",
            jail,
            now,
        )
    }

    /// Takes up again what was stopped, and what was flushed a moment ago by a stop that was cut short.
    pub fn start(&mut self, jail: OfJail<'_>, now: i64) -> anyhow::Result<u64> {
        self.change(
            "UPDATE blocks SET state = 'active', changed = $2 WHERE ($1 IS NULL OR jail = $1) \
             AND (state = 'stopped' OR (state = 'flushed' AND changed BETWEEN $2 - $3 AND $2 + $3))",
            jail,
            now,
        )
    }

    fn change(&mut self, sql: &'static str, jail: OfJail<'_>, now: i64) -> anyhow::Result<u64> {
        self.write(async |transaction| {
            let query = sqlx::query(sql).bind(jail).bind(now).bind(STOP_FOLLOWS);
            Ok(query.execute(&mut **transaction).await?.rows_affected())
        })
    }

    /// What FusionPBX said of an account within the last minute.
    pub fn verdict(&mut self, account: &SipAccount, now: i64) -> anyhow::Result<Option<String>> {
        const SQL: &str =
            "SELECT verdict FROM verdicts WHERE domain = $1 AND account = $2 AND at BETWEEN $3 AND $4";
        let query = sqlx::query_scalar(SQL)
            .bind(account.domain())
            .bind(account.user())
            .bind(now - VERDICT_COUNTS)
            .bind(now + AHEAD);
        self.read(async |connection| Ok(query.fetch_optional(connection).await?))
    }

    /// Remembers what FusionPBX says of an account at `now`.
    pub fn remember(&mut self, account: &SipAccount, verdict: &str, now: i64) -> anyhow::Result<()> {
        const SQL: &str = "INSERT INTO verdicts (domain, account, verdict, at) VALUES ($1, $2, $3, $4) \
                           ON CONFLICT (domain, account) DO UPDATE SET verdict = excluded.verdict, at = excluded.at";
        self.write(async |transaction| {
            let query = sqlx::query(SQL).bind(account.domain()).bind(account.user()).bind(verdict).bind(now);
            query.execute(&mut **transaction).await?;
            Ok(())
        })
    }

    /// Notes that an account is to be blocked because of a known-good source; how many such sources there were within the last
    /// minute.
    pub fn note_alarm(&mut self, source: IpAddr, now: i64) -> anyhow::Result<u32> {
        const SQL: &str = "INSERT INTO alarms (source, at) VALUES ($1, $2) \
                           ON CONFLICT (source) DO UPDATE SET at = excluded.at";
        self.write(async |transaction| {
            sqlx::query(SQL).bind(source.to_string()).bind(now).execute(&mut **transaction).await?;
            let count =
                sqlx::query_scalar("SELECT count(*) FROM alarms WHERE at > $1 - $2 AND at <= $1 + $3");
            let count: i64 =
                count.bind(now).bind(ALARM_WINDOW).bind(AHEAD).fetch_one(&mut **transaction).await?;
            Ok(u32::try_from(count).unwrap_or(u32::MAX))
        })
    }

    /// Until when new blocks are suspended, if they are at `now`.
    pub fn suspended_until(&mut self, now: i64) -> anyhow::Result<Option<i64>> {
        const SQL: &str = "SELECT max(until) FROM suspensions WHERE until > $1 AND until < $1 + 3600";
        self.read(async |connection| Ok(sqlx::query_scalar(SQL).bind(now).fetch_one(connection).await?))
    }

    /// Suspends new blocks until then, and removes those that jails asked for within the last minute: they are part of the same
    /// alarm.
    pub fn suspend(&mut self, until: i64, now: i64) -> anyhow::Result<Vec<Block>> {
        self.write(async |transaction| {
            sqlx::query("INSERT INTO suspensions (until) VALUES ($1)")
                .bind(until)
                .execute(&mut **transaction)
                .await?;
            let sql = format!(
                "DELETE FROM blocks WHERE jail <> '' AND changed > $1 - $2 AND state = 'active' RETURNING {FIELDS}"
            );
            let rows = sqlx::query_as(&sql).bind(now).bind(ALARM_WINDOW).fetch_all(&mut **transaction).await?;
            Ok(blocks(rows))
        })
    }

    fn read<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let Self { runtime, connection, .. } = self;
        let connection = connection.as_mut().expect("there until the end");
        runtime.block_on(work(connection)).context("cannot read the ledger")
    }

    /// Does all of `work`, or nothing of it.
    fn write<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Transaction<'_, Sqlite>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let Self { runtime, connection, unwritable } = self;
        if let Some(error) = unwritable {
            bail!("cannot write the ledger: {error:#}");
        }
        let connection = connection.as_mut().expect("there until the end");
        runtime
            .block_on(async {
                // A transaction that begins by reading could not wait for another that writes.
                let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
                let done = work(&mut transaction).await?;
                transaction.commit().await?;
                anyhow::Ok(done)
            })
            .map_err(|error| {
                let hint = hint(&error);
                error.context(format!("cannot write the ledger{hint}"))
            })
    }
}

impl Drop for Ledger {
    /// Waits until the file is closed: who comes next finds it whole, without its log.
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            let _ = self.runtime.block_on(connection.close());
        }
    }
}

/// Many at once: each statement costs a change of threads.
async fn upsert(transaction: &mut Transaction<'_, Sqlite>, blocks: &[Block], now: i64) -> anyhow::Result<()> {
    const AT_ONCE: usize = 500;
    for some in blocks.chunks(AT_ONCE) {
        let mut insert = QueryBuilder::new(format!("INSERT INTO blocks ({FIELDS}, state, changed) "));
        insert.push_values(some, |mut row, block| {
            let Block { offender, jail, seen_from, since, until, why, evidence } = block;
            row.push_bind(offender.account.user())
                .push_bind(offender.account.domain())
                .push_bind(source(offender))
                .push_bind(jail)
                .push_bind(seen_from.map_or_else(String::new, |address| address.to_string()))
                .push_bind(since)
                .push_bind(until)
                .push_bind(why)
                .push_bind(evidence)
                .push_bind("active")
                .push_bind(now);
        });
        // A block that is there goes on: it began when it began.
        insert.push(
            " ON CONFLICT (domain, account, source, jail) DO UPDATE SET \
             since = CASE WHEN blocks.state = 'active' AND blocks.until > excluded.changed \
             THEN blocks.since ELSE excluded.since END, \
             seen_from = excluded.seen_from, until = excluded.until, why = excluded.why, evidence = excluded.evidence, \
             state = excluded.state, changed = excluded.changed, confirmed = 0",
        );
        insert.build().execute(&mut **transaction).await?;
    }
    Ok(())
}

/// Removes the oldest offenders until there are no more than `max`.
async fn evict(transaction: &mut Transaction<'_, Sqlite>, max: u32, now: i64) -> anyhow::Result<Vec<Block>> {
    const DUE: &str = "FROM blocks WHERE state = 'active' AND until > $1 GROUP BY domain, account, source";
    let count: i64 = sqlx::query_scalar(&format!("SELECT count(*) FROM (SELECT 1 {DUE})"))
        .bind(now)
        .fetch_one(&mut **transaction)
        .await?;
    if count <= i64::from(max) {
        return Ok(vec![]);
    }
    let sql = format!(
        "DELETE FROM blocks WHERE (domain, account, source) IN (SELECT domain, account, source {DUE} \
         ORDER BY max(since), max(changed), max(rowid) LIMIT $2) RETURNING {FIELDS}"
    );
    let rows =
        sqlx::query_as(&sql).bind(now).bind(count - i64::from(max)).fetch_all(&mut **transaction).await?;
    Ok(blocks(rows))
}

fn source(offender: &Offender) -> String {
    offender.source.map_or_else(String::new, |address| address.to_string())
}

/// A row, its columns in the order of the table.
type Fields = (String, String, String, String, String, i64, i64, String, String);

/// What changed rows are asked for.
const FIELDS: &str = "account, domain, source, jail, seen_from, since, until, why, evidence";

fn blocks(rows: Vec<Fields>) -> Vec<Block> {
    rows.into_iter().filter_map(block).collect()
}

/// The block in a row. A row that names no account is none of ours: nothing can be blocked by it, and it ends with its time.
fn block((user, domain, source, jail, seen_from, since, until, why, evidence): Fields) -> Option<Block> {
    let address = |text: String| match text.as_str() {
        "" => Some(None),
        text => address::parse_text(text).map(Some),
    };
    let account = SipAccount::new(&user, &domain).ok()?;
    let offender = Offender { account, source: address(source)? };
    Some(Block { offender, jail, seen_from: address(seen_from)?, since, until, why, evidence })
}

/// Opens the file; a damaged one is moved aside first.
async fn open_or_begin(path: &Path, now: Timestamp) -> anyhow::Result<(SqliteConnection, Option<Lost>)> {
    let fault = match open(path).await {
        Ok(connection) => return Ok((connection, None)),
        Err(error) if is_damage(&error) => error,
        Err(error) => return Err(error),
    };
    // One process moves it aside; who waited finds the new one.
    let lock = state_file::open_own_for_update(&beside(path, ".lock"), state_file::effective_user())
        .context("cannot lock it")?;
    let patience = Instant::now() + PATIENCE;
    while !state_file::try_lock(&lock)? {
        if Instant::now() > patience {
            bail!("it is damaged ({fault:#}), and another process does not get done with moving it aside");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    match open(path).await {
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
            Ok((open(path).await?, Some(Lost { file, fault: format!("{error:#}") })))
        }
        Err(error) => Err(error),
    }
}

async fn open(path: &Path) -> anyhow::Result<SqliteConnection> {
    if path.is_dir() {
        bail!(Damage("it is a directory".to_owned()));
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
    let patience = Instant::now() + PATIENCE;
    let mut connection = loop {
        match options.connect().await {
            Ok(connection) => break connection,
            // Of several that switch a new file to its log, all but one are turned away at once.
            Err(error) if is_busy(&error) && Instant::now() < patience => {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Err(error) => {
                let error = anyhow::Error::new(error);
                let hint = hint(&error);
                return Err(error.context(format!("cannot open it{hint}")));
            }
        }
    };
    check(&mut connection).await?;
    Ok(connection)
}

/// For reading what is there, without a log or a lock beside it.
async fn open_unchanged(path: &Path) -> anyhow::Result<SqliteConnection> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true).immutable(true);
    let mut connection = options.statement_cache_capacity(0).disable_statement_logging().connect().await?;
    check(&mut connection).await?;
    Ok(connection)
}

async fn check(connection: &mut SqliteConnection) -> anyhow::Result<()> {
    let faults: Vec<String> = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_all(&mut *connection).await?;
    if faults.iter().any(|fault| fault != "ok") {
        bail!(Damage(faults.join("; ").replace('\n', " ")));
    }
    schema::bring_up(connection).await
}

/// What SQLite's own check found.
#[derive(Debug)]
struct Damage(String);

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Damage {}

/// `SQLITE_CORRUPT` or `SQLITE_NOTADB`, or a table that should be there.
fn is_damage(error: &anyhow::Error) -> bool {
    error.is::<Damage>()
        || error.downcast_ref::<sqlx::Error>().and_then(code).is_some_and(|code| matches!(code, 11 | 26))
}

/// `SQLITE_BUSY` or `SQLITE_LOCKED`, or a protocol that others are in the middle of; or its log is gone, because another moves
/// it aside (`SQLITE_IOERR_DELETE_NOENT`).
fn is_busy(error: &sqlx::Error) -> bool {
    const LOG_IS_GONE: u32 = 5898;
    extended_code(error).is_some_and(|code| matches!(code & 0xff, 5 | 6 | 15) || code == LOG_IS_GONE)
}

/// What an error means where the disk takes nothing: `SQLITE_IOERR` or `SQLITE_FULL`, `SQLITE_READONLY` or
/// `SQLITE_CANTOPEN`; empty otherwise.
fn hint(error: &anyhow::Error) -> &'static str {
    match error.downcast_ref::<sqlx::Error>().and_then(code) {
        Some(10 | 13) => " (is the disk full?)",
        Some(8 | 14) => " (is the disk read-only, or the directory not ours?)",
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

#[cfg(test)]
mod tests;
