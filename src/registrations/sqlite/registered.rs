//! Which accounts are registered, from their sources or anywhere.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Row};

use super::super::{account_pairs, spellings};
use super::{
    BUSY, CORE_TABLE, DatabaseFile, INTERRUPT, LOCKED, LOOKUP_TOO_LONG, LockGuard, MARGIN, Table,
    WAIT_TOGETHER, is, open, sort_out, unlocked,
};
use crate::account::{Offender, SipAccount};
use crate::deadline::Deadline;

const ACCOUNT_TOO_LONG: &str = "looking up one account takes longer than FreeSWITCH can be made to wait; is an index on the user missing?";

/// Who is looked for, and whether it was found.
struct Wanted<'a> {
    account: &'a SipAccount,
    /// Of the source; from anywhere if there is none.
    spellings: Option<[String; 2]>,
    found: bool,
}

/// Which of these are registered.
pub(in super::super) fn registered(
    files: &[PathBuf],
    offenders: &[Offender],
    now: i64,
    deadline: Deadline,
) -> anyhow::Result<Vec<bool>> {
    let deadline = deadline.earlier_by(MARGIN);
    let runtime = tokio::runtime::Builder::new_current_thread().build().context("no asynchronous runtime")?;
    runtime.block_on(async {
        let (usable, found) = sort_out(files)?;
        let mut failures = found.failures;
        let wanted = offenders.iter().map(|offender| Wanted {
            account: &offender.account,
            spellings: offender.source.map(spellings),
            found: false,
        });
        let mut wanted: Vec<_> = wanted.collect();
        let mut locked = Vec::new();
        // Who makes us wait has his turn after the others.
        for file in &usable {
            match read(file, &mut wanted, now, deadline, deadline.within(Duration::ZERO)).await {
                Err(error) if is(&error, BUSY) => locked.push(file),
                read => failures.extend(failure(file, read)),
            }
        }
        for file in locked {
            failures.extend(failure(file, read(file, &mut wanted, now, deadline, deadline).await));
        }
        if !failures.is_empty() && wanted.iter().any(|one| !one.found) {
            bail!("{}", failures.join("; "));
        }
        Ok(wanted.iter().map(|one| one.found).collect())
    })
}

fn failure(file: &DatabaseFile<'_>, read: anyhow::Result<()>) -> Option<String> {
    let error = read.err()?;
    let path = file.path.display();
    Some(match error {
        error if is(&error, BUSY) => format!("{path}: {LOCKED}"),
        error => format!("{path}: {error:#}"),
    })
}

/// Looks in a file for those that are still wanted; waits for its locks until `patience` ends.
async fn read(
    file: &DatabaseFile<'_>,
    wanted: &mut [Wanted<'_>],
    now: i64,
    deadline: Deadline,
    patience: Deadline,
) -> anyhow::Result<()> {
    if wanted.iter().all(|one| one.found) {
        return Ok(());
    }
    // Short, so that the last of many waits ends with the deadline, too.
    let wait = deadline.within(WAIT_TOGETHER).remaining();
    let (mut connection, tables) = unlocked(patience, async || open(file, &[], wait).await).await?;
    let guard = LockGuard::install(&mut connection).await?;
    for table in tables.iter().flatten() {
        for one in wanted.iter_mut().filter(|one| !one.found) {
            if deadline.has_passed() {
                bail!("not all of it could be read in time");
            }
            let pairs = account_pairs(table.name);
            // Many tenants may have the user: each of its indexes has a statement to itself.
            let together = if one.spellings.is_some() { pairs.len() } else { 1 };
            for pairs in pairs.chunks(together) {
                let lookup = unlocked(patience, async || {
                    guard.start();
                    has(&mut connection, table, pairs, one, now).await
                });
                one.found |= match lookup.await {
                    Err(error) if is(&error, INTERRUPT) => {
                        bail!(if one.spellings.is_some() { LOOKUP_TOO_LONG } else { ACCOUNT_TOO_LONG })
                    }
                    found => found?,
                };
                if one.found {
                    break;
                }
            }
        }
    }
    connection.close().await?;
    Ok(())
}

/// Whether a table has the live registration, by these pairs of columns. A question for each: none holds its lock long.
async fn has(
    connection: &mut SqliteConnection,
    table: &Table,
    pairs: &[(&str, &str)],
    wanted: &Wanted<'_>,
    now: i64,
) -> anyhow::Result<bool> {
    let Table { schema, name } = table;
    // "+" keeps SQLite from choosing an index that is not the best: the profiles' table has one on the address, and on
    // both users, the core's on the user alone.
    let (user_index, source) = match (&wanted.spellings, *name) {
        (None, _) => ("", ""),
        (Some(_), CORE_TABLE) => ("", "AND +network_ip IN (?4, ?5)"),
        (Some(_), _) => ("+", "AND network_ip IN (?4, ?5)"),
    };
    let is = |(user, domain): &(&str, &str)| format!("{user_index}{user} = ?2 AND lower({domain}) = ?3");
    let accounts: Vec<_> = pairs.iter().map(is).collect();
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM {schema}.{name} WHERE +expires > ?1 AND ({}) {source})",
        accounts.join(" OR ")
    );
    let query = sqlx::query(&sql).bind(now).bind(wanted.account.user()).bind(wanted.account.domain());
    let query = wanted.spellings.iter().flatten().fold(query, sqlx::query::Query::bind);
    Ok(query.persistent(false).fetch_one(connection).await?.try_get(0)?)
}
