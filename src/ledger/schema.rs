//! The tables of the ledger, brought up step by step from whatever version a file has.

use anyhow::bail;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Executor};

use super::file::Damage;

/// The steps, in order. One that was released is never changed: a new one follows.
const STEPS: [&str; 2] =
    [include_str!("migrations/0001_blocks.sql"), include_str!("migrations/0002_seen_from.sql")];

/// Takes the steps that the file has not taken yet, all or none.
pub(super) async fn bring_up(connection: &mut SqliteConnection) -> anyhow::Result<()> {
    if version(connection).await? == STEPS.len() {
        return Ok(());
    }
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let done = version(&mut transaction).await?;
    if done > STEPS.len() {
        bail!(
            "it was written by a newer version of Ringfence; install that one again, or move the file away"
        );
    }
    if done == 0 {
        transaction.execute("CREATE TABLE ledger_version (version BIGINT NOT NULL)").await?;
        transaction.execute("INSERT INTO ledger_version (version) VALUES (0)").await?;
    }
    for step in &STEPS[done..] {
        transaction.execute(*step).await?;
    }
    let version = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    sqlx::query("UPDATE ledger_version SET version = $1").bind(version).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(())
}

/// How many steps were taken.
async fn version(connection: &mut SqliteConnection) -> anyhow::Result<usize> {
    let tables: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table'")
        .fetch_all(&mut *connection)
        .await?;
    if tables.is_empty() {
        return Ok(0);
    }
    if !tables.iter().any(|table| table == "ledger_version") {
        bail!(Damage("it has tables, and none of them is a ledger's".to_owned()));
    }
    let version: Option<i64> =
        sqlx::query_scalar("SELECT max(version) FROM ledger_version").fetch_one(connection).await?;
    match version.and_then(|version| usize::try_from(version).ok()) {
        Some(version) if version > 0 => Ok(version),
        _ => bail!(Damage("it does not say which version it is".to_owned())),
    }
}
