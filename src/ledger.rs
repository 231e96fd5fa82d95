//! The ledger: who is blocked until when, and why. One SQLite file that several processes write at once.
//!
//! What it says is what the kernel should hold. A block ends with its time whether or not anybody sweeps: what is over
//! is not handed out. A file that is damaged is moved aside, and a new one begun.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Executor, QueryBuilder, Sqlite, Transaction};
use tokio::runtime::Runtime;

use crate::account::{Offender, SipAccount};
use crate::address;
use crate::state_file;
use crate::times::{rfc3339, second};

mod file;
mod schema;

/// fail2ban flushes a jail and then stops it, within milliseconds: what a stop finds flushed so many seconds before was
/// not let go, but is to come back with the jail.
const STOP_FOLLOWS: i64 = 5;

/// A clock may be so many seconds behind the one that wrote.
const AHEAD: i64 = 5;

/// What FusionPBX said of an account counts for so many seconds.
const VERDICT_COUNTS: i64 = 60;

/// Known-good sources are counted over so many seconds.
const ALARM_WINDOW: i64 = 60;

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
    #[serde(serialize_with = "rfc3339", deserialize_with = "second")]
    pub since: i64,
    /// Seconds since 1970: it ends then.
    #[serde(serialize_with = "rfc3339", deserialize_with = "second")]
    pub until: i64,
    /// Why, for people.
    #[serde(default)]
    pub why: String,
    /// What spoke for it, for people.
    #[serde(default)]
    pub evidence: String,
}

impl Block {
    /// On whose word, for people: the jail, or `by hand`.
    #[must_use]
    pub fn word(&self) -> &str {
        if self.jail.is_empty() { BY_HAND } else { &self.jail }
    }
}

/// On whose word a block is that no jail asked for.
pub const BY_HAND: &str = "by hand";

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

/// How closely a ledger is looked at when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// At its tables' names: what else is damaged shows where it is read or written ([`is_damage`]).
    Brief,
    /// At every page. Of a hundred thousand blocks, that takes longer than all the rest of a call.
    Whole,
}

/// Whether an error of a ledger says that its file is damaged: who opens it with [`Look::Whole`] begins anew.
#[must_use]
pub fn is_damage(error: &anyhow::Error) -> bool {
    file::is_damage(error)
}

/// A damaged ledger that was moved aside.
#[derive(Debug)]
pub struct Lost {
    /// Where it is now.
    pub file: PathBuf,
    /// What was wrong.
    pub fault: String,
}

/// What came to an end by itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Blocks whose time is over.
    pub over: Vec<Block>,
    /// The oldest, where there were too many.
    pub made_way: Vec<Block>,
}

/// No block is longer, in seconds: a year.
pub const LONGEST_BLOCK: i64 = 365 * 86_400;

/// Which blocks are meant: those of one jail, or all.
pub type OfJail<'a> = Option<&'a str>;

impl Ledger {
    /// Opens the ledger, made if it is missing. `now` names what is moved aside.
    pub fn open(path: &Path, look: Look, now: Timestamp) -> anyhow::Result<Opened> {
        if let Some(dir) = path.parent() {
            state_file::make_dir(dir, 0o750).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().context("no runtime")?;
        let opened = runtime.block_on(async {
            match file::open_or_begin(path, look, now).await {
                Ok((connection, lost)) => Ok((connection, lost, None)),
                // On a disk that takes nothing, what was written can still be read, and what is over ends.
                Err(error) if !file::hint(&error).is_empty() => match file::open_unchanged(path).await {
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

    /// Opens the ledger for reading alone: nothing is made or moved, and what is damaged is an error.
    pub fn peek(path: &Path) -> anyhow::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().context("no runtime")?;
        let connection = runtime
            .block_on(async {
                match file::open_to_read(path).await {
                    // On a disk that takes nothing, what was written can still be read.
                    Err(error) if !file::hint(&error).is_empty() => {
                        file::open_unchanged(path).await.map_err(|_| error)
                    }
                    opened => opened,
                }
            })
            .with_context(|| format!("cannot read the ledger {}", path.display()))?;
        let unwritable = Some(anyhow!("it was opened for reading"));
        Ok(Self { runtime, connection: Some(connection), unwritable })
    }

    /// What is blocked at `now`, the oldest first.
    pub fn active(&mut self, now: i64) -> anyhow::Result<Vec<Block>> {
        self.read(async |connection| active_of(connection, None, false, now).await)
    }

    /// From which addresses other offenders than this one were seen that are blocked at `now`, and how many from each.
    pub fn others_seen_from(&mut self, offender: &Offender, now: i64) -> anyhow::Result<Vec<(IpAddr, u32)>> {
        const SQL: &str = "SELECT json_group_array(json_array(seen_from, number)) FROM (SELECT seen_from, count(*) AS number \
             FROM (SELECT DISTINCT domain, account, source, seen_from FROM blocks WHERE state = 'active' AND until > $1 \
             AND seen_from <> '' AND NOT (domain = $2 AND account = $3 AND source = $4)) GROUP BY seen_from)";
        let account = &offender.account;
        let query = sqlx::query_scalar(SQL).bind(now).bind(account.domain()).bind(account.user());
        let query = query.bind(source(offender));
        let text: String = self.read(async |connection| Ok(query.fetch_one(connection).await?))?;
        let rows: Vec<(String, u32)> =
            serde_json::from_str(&text).context("the ledger is not as we wrote it")?;
        Ok(rows
            .into_iter()
            .filter_map(|(from, number)| Some((address::parse_text(&from)?, number)))
            .collect())
    }

    /// How many other offenders than this one were seen from an address and are blocked at `now`.
    pub fn others_seen_from_one(
        &mut self,
        offender: &Offender,
        from: IpAddr,
        now: i64,
    ) -> anyhow::Result<u32> {
        const SQL: &str = "SELECT count(*) FROM (SELECT DISTINCT domain, account, source FROM blocks WHERE seen_from = $5 \
             AND state = 'active' AND until > $1 AND NOT (domain = $2 AND account = $3 AND source = $4))";
        let account = &offender.account;
        let query = sqlx::query_scalar(SQL).bind(now).bind(account.domain()).bind(account.user());
        let query = query.bind(source(offender)).bind(from.to_string());
        let count: i64 = self.read(async |connection| Ok(query.fetch_one(connection).await?))?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Until when an offender is blocked, if he is at `now`.
    pub fn until(&mut self, offender: &Offender, now: i64) -> anyhow::Result<Option<i64>> {
        const SQL: &str = "SELECT max(until) FROM blocks WHERE domain = $1 AND account = $2 AND source = $3 \
             AND state = 'active' AND until > $4";
        let account = &offender.account;
        let query = sqlx::query_scalar(SQL).bind(account.domain()).bind(account.user());
        let query = query.bind(source(offender)).bind(now);
        self.read(async |connection| Ok(query.fetch_one(connection).await?))
    }

    /// Whether somebody is blocked at `now`.
    pub fn blocks_somebody(&mut self, now: i64) -> anyhow::Result<bool> {
        const SQL: &str = "SELECT EXISTS (SELECT 1 FROM blocks WHERE state = 'active' AND until > $1)";
        let query = sqlx::query_scalar(SQL).bind(now);
        self.read(async |connection| Ok(query.fetch_one(connection).await?))
    }

    /// Whether there are surely no more than `max` blocks, so that nobody needs to make way.
    pub fn has_room(&mut self, max: u32) -> anyhow::Result<bool> {
        // Rows are numbered from 1; only where many were removed, they have to be counted.
        const SQL: &str = "SELECT coalesce((SELECT max(rowid) FROM blocks), 0) <= $1 OR (SELECT count(*) FROM blocks) <= $1";
        let query = sqlx::query_scalar(SQL).bind(max);
        self.read(async |connection| Ok(query.fetch_one(connection).await?))
    }

    /// Removes what a jail bans no more: blocks that were among its bans at an earlier call or at the start, and are not now.
    /// `bans` is what fail2ban remembers, which it does a moment after it has called for a block, or not at all; so what it never
    /// had proves nothing.
    pub fn follow(&mut self, jail: &str, bans: &BTreeSet<Offender>, now: i64) -> anyhow::Result<Vec<Block>> {
        self.write(async |transaction| compare(transaction, jail, bans, true, now).await)
    }

    /// Removes what is over at `now` and what is more than `max`, the oldest first; and sets right what a clock that was set back
    /// made too long.
    pub fn tidy(&mut self, now: i64, max: u32) -> anyhow::Result<Ended> {
        self.write(async |transaction| {
            let (minute_ago, hour_ago, moment_ago) = (now - 60, now - 3600, now - STOP_FOLLOWS);
            let ahead = now + AHEAD;
            // One call for all, which cost more to be made than to be done. What began in the future lasts as long from now on,
            // and no longer.
            let sql = format!(
                "UPDATE blocks SET until = {now} + (until - since), since = {now} WHERE since > {ahead};
                 DELETE FROM verdicts WHERE at < {minute_ago} OR at > {ahead};
                 DELETE FROM alarms WHERE at < {hour_ago} OR at > {ahead};
                 DELETE FROM suspensions WHERE until < {now} OR until > {now} + 3600;
                 DELETE FROM blocks WHERE state = 'flushed' AND (changed < {moment_ago} OR changed > {ahead})"
            );
            sqlx::raw_sql(&sql).execute(&mut **transaction).await?;
            let over = format!("DELETE FROM blocks WHERE until <= $1 RETURNING {FIELDS}");
            let over = blocks(sqlx::query_as(&over).bind(now).fetch_all(&mut **transaction).await?);
            Ok(Ended { over, made_way: evict(transaction, max, now).await? })
        })
    }

    /// Writes blocks down, or what changed in those that are there.
    pub fn put(&mut self, new: &[Block], now: i64) -> anyhow::Result<()> {
        self.write(async |transaction| upsert(transaction, new, now).await)
    }

    /// Removes blocks of these offenders; those that were there.
    pub fn remove(&mut self, offenders: &[Offender], jail: OfJail<'_>) -> anyhow::Result<Vec<Block>> {
        self.write(async |transaction| delete(transaction, offenders, jail).await)
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
        const SQL: &str = "UPDATE blocks SET state = 'stopped', changed = $2 WHERE ($1 IS NULL OR jail = $1) \
             AND (state = 'active' OR (state = 'flushed' AND changed BETWEEN $2 - $3 AND $2 + $3))";
        self.write(async |transaction| change(transaction, SQL, jail, now).await)
    }

    /// Takes up again what was stopped, and what was flushed a moment ago by a stop that was cut short; how many blocks.
    ///
    /// What a stop flushes cannot be told from what an operator lets go of, but by what fail2ban remembers: where `bans` is known,
    /// it alone says what the jail blocks.
    pub fn start(
        &mut self,
        jail: OfJail<'_>,
        bans: Option<&BTreeSet<Offender>>,
        now: i64,
    ) -> anyhow::Result<u64> {
        const SQL: &str = "UPDATE blocks SET state = 'active', changed = $2 WHERE ($1 IS NULL OR jail = $1) \
             AND (state = 'stopped' OR (state = 'flushed' AND changed BETWEEN $2 - $3 AND $2 + $3))";
        self.write(async |transaction| {
            let count = change(transaction, SQL, jail, now).await?;
            let (Some(jail), Some(bans)) = (jail, bans) else { return Ok(count) };
            let lifted = compare(transaction, jail, bans, false, now).await?;
            Ok(count.saturating_sub(lifted.len() as u64))
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
        self.jot(async |transaction| {
            let query = sqlx::query(SQL).bind(account.domain()).bind(account.user()).bind(verdict).bind(now);
            query.execute(&mut **transaction).await?;
            Ok(())
        })
    }

    /// Notes that an account is to be blocked, which failed at `at`, because of a known-good source; how many such sources there were
    /// within a minute of that.
    pub fn note_alarm(&mut self, source: &str, at: i64) -> anyhow::Result<u32> {
        const SQL: &str = "INSERT INTO alarms (source, at) VALUES ($1, $2) \
                           ON CONFLICT (source) DO UPDATE SET at = excluded.at";
        self.jot(async |transaction| {
            sqlx::query(SQL).bind(source).bind(at).execute(&mut **transaction).await?;
            let count = sqlx::query_scalar("SELECT count(*) FROM alarms WHERE at > $1 - $2 AND at < $1 + $2");
            let count: i64 = count.bind(at).bind(ALARM_WINDOW).fetch_one(&mut **transaction).await?;
            Ok(u32::try_from(count).unwrap_or(u32::MAX))
        })
    }

    /// How many sources but this one there were within a minute of `at` because of which an account was to be blocked.
    pub fn other_alarms(&mut self, source: &str, at: i64) -> anyhow::Result<u32> {
        const SQL: &str = "SELECT count(*) FROM alarms WHERE at > $1 - $2 AND at < $1 + $2 AND source <> $3";
        let query = sqlx::query_scalar(SQL).bind(at).bind(ALARM_WINDOW).bind(source);
        let count: i64 = self.read(async |connection| Ok(query.fetch_one(connection).await?))?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Until when new blocks are suspended, if they are at `now`.
    pub fn suspended_until(&mut self, now: i64) -> anyhow::Result<Option<i64>> {
        const SQL: &str = "SELECT max(until) FROM suspensions WHERE until > $1 AND until < $1 + 3600";
        self.read(async |connection| Ok(sqlx::query_scalar(SQL).bind(now).fetch_one(connection).await?))
    }

    /// Ends the suspension of new blocks.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.write(async |transaction| {
            sqlx::raw_sql("DELETE FROM suspensions; DELETE FROM alarms").execute(&mut **transaction).await?;
            Ok(())
        })
    }

    /// Suspends new blocks until then, and removes those of jails that began less than a minute before `at`: they are part of the
    /// same alarm.
    pub fn suspend(&mut self, until: i64, at: i64) -> anyhow::Result<Vec<Block>> {
        self.write(async |transaction| {
            sqlx::query("INSERT INTO suspensions (until) VALUES ($1)")
                .bind(until)
                .execute(&mut **transaction)
                .await?;
            let sql = format!(
                "DELETE FROM blocks WHERE jail <> '' AND since > $1 - $2 AND state = 'active' RETURNING {FIELDS}"
            );
            let rows = sqlx::query_as(&sql).bind(at).bind(ALARM_WINDOW).fetch_all(&mut **transaction).await?;
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

    /// [`Ledger::write`] for what may be lost with the power: it waits for no disk.
    fn jot<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Transaction<'_, Sqlite>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.read(async |connection| Ok(connection.execute("PRAGMA synchronous = NORMAL").await?))?;
        let done = self.write(work);
        self.read(async |connection| Ok(connection.execute("PRAGMA synchronous = FULL").await?))?;
        done
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
                let hint = file::hint(&error);
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

/// Removes them in one transaction; those that were there.
async fn delete(
    transaction: &mut Transaction<'_, Sqlite>,
    offenders: &[Offender],
    jail: OfJail<'_>,
) -> anyhow::Result<Vec<Block>> {
    if offenders.is_empty() {
        return Ok(vec![]);
    }
    let sql = format!(
        "DELETE FROM blocks WHERE ($1 IS NULL OR jail = $1) AND (domain, account, source) IN ({KEYS}) RETURNING {FIELDS}"
    );
    let rows = sqlx::query_as(&sql).bind(jail).bind(keys(offenders)?).fetch_all(&mut **transaction).await?;
    Ok(blocks(rows))
}

/// What is blocked at `now`, of a jail or of all; only what is confirmed if `confirmed`.
async fn active_of(
    connection: &mut SqliteConnection,
    jail: OfJail<'_>,
    confirmed: bool,
    now: i64,
) -> anyhow::Result<Vec<Block>> {
    // One text for all: row by row, each would cost a change of threads. (PostgreSQL calls it json_agg.)
    let sql = format!(
        "SELECT json_group_array(json_array({FIELDS})) FROM (SELECT * FROM blocks WHERE state = 'active' \
         AND until > $1 AND ($2 IS NULL OR jail = $2) AND confirmed >= $3 \
         ORDER BY since, domain, account, source, jail)"
    );
    let query = sqlx::query_scalar(&sql).bind(now).bind(jail).bind(i64::from(confirmed));
    let text: String = query.fetch_one(connection).await?;
    let rows: Vec<Fields> = serde_json::from_str(&text).context("the ledger is not as we wrote it")?;
    Ok(blocks(rows))
}

/// Changes the state of blocks.
async fn change(
    transaction: &mut Transaction<'_, Sqlite>,
    sql: &'static str,
    jail: OfJail<'_>,
    now: i64,
) -> anyhow::Result<u64> {
    let query = sqlx::query(sql).bind(jail).bind(now).bind(STOP_FOLLOWS);
    Ok(query.execute(&mut **transaction).await?.rows_affected())
}

/// Confirms what of a jail is among `bans`, and removes what is not; of what is not, only what was confirmed before if
/// `confirmed`.
async fn compare(
    transaction: &mut Transaction<'_, Sqlite>,
    jail: &str,
    bans: &BTreeSet<Offender>,
    confirmed: bool,
    now: i64,
) -> anyhow::Result<Vec<Block>> {
    let active = active_of(transaction, Some(jail), confirmed, now).await?;
    let offenders = active.into_iter().map(|block| block.offender);
    let lifted: Vec<Offender> = offenders.filter(|offender| !bans.contains(offender)).collect();
    confirm(transaction, jail, bans).await?;
    delete(transaction, &lifted, Some(jail)).await
}

/// Remembers that fail2ban has these among its bans.
async fn confirm(
    transaction: &mut Transaction<'_, Sqlite>,
    jail: &str,
    bans: &BTreeSet<Offender>,
) -> anyhow::Result<()> {
    let sql = format!(
        "UPDATE blocks SET confirmed = 1 WHERE jail = $1 AND confirmed = 0 AND (domain, account, source) IN ({KEYS})"
    );
    sqlx::query(&sql).bind(jail).bind(keys(bans)?).execute(&mut **transaction).await?;
    Ok(())
}

/// Rows of keys from the JSON of [`keys`]. (In PostgreSQL it is `json_array_elements`.)
const KEYS: &str = "SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each($2)";

fn keys<'a>(offenders: impl IntoIterator<Item = &'a Offender>) -> anyhow::Result<String> {
    let key = |offender: &'a Offender| (offender.account.domain(), offender.account.user(), source(offender));
    Ok(serde_json::to_string(&offenders.into_iter().map(key).collect::<Vec<_>>())?)
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
             seen_from = CASE excluded.seen_from WHEN '' THEN blocks.seen_from ELSE excluded.seen_from END, \
             evidence = CASE excluded.evidence WHEN '' THEN blocks.evidence ELSE excluded.evidence END, \
             until = excluded.until, why = excluded.why, \
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

#[cfg(test)]
mod tests;
