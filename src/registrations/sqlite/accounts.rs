//! Who is registered from an address.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Row};

use super::super::{MAX_ACCOUNTS, account_columns, spellings};
use super::{
    BUSY, INTERRUPT, LOCKED, LOOKUP_TOO_LONG, LockGuard, MARGIN, PROFILE_TABLE, Table, is, open, sort_out,
};
use crate::deadline::Deadline;

/// The accounts that are registered from the address of a phone.
pub(in super::super) fn accounts(
    files: &[PathBuf],
    phone: IpAddr,
    now: i64,
    deadline: Deadline,
) -> anyhow::Result<BTreeSet<String>> {
    let deadline = deadline.earlier_by(MARGIN);
    let runtime = tokio::runtime::Builder::new_current_thread().build().context("no asynchronous runtime")?;
    runtime.block_on(async {
        let (usable, found) = sort_out(files)?;
        let mut failures = found.failures;
        let mut accounts = BTreeSet::new();
        let mut in_core = BTreeSet::new();
        for file in &usable {
            let mut read = async || {
                let (mut connection, tables) = open(file, &[], deadline.remaining()).await?;
                let guard = LockGuard::install(&mut connection).await?;
                // The core's table has no index on the address, and nothing that the profiles' has not.
                let mut profiles = false;
                for table in tables.iter().flatten() {
                    let profile = table.name == PROFILE_TABLE;
                    profiles |= profile;
                    if profile || !profiles {
                        guard.start();
                        let here = accounts_in(&mut connection, table, phone, now).await?;
                        if profile { &mut accounts } else { &mut in_core }.extend(here);
                    }
                }
                connection.close().await?;
                anyhow::Ok(())
            };
            match read().await {
                Ok(()) => {}
                Err(error) if is(&error, BUSY) => failures.push(format!("{}: {LOCKED}", file.path.display())),
                Err(error) if is(&error, INTERRUPT) => {
                    failures.push(format!("{}: {LOOKUP_TOO_LONG}", file.path.display()));
                }
                Err(error) => failures.push(format!("{}: {error:#}", file.path.display())),
            }
        }
        if accounts.is_empty() {
            accounts = in_core;
        }
        if accounts.is_empty() && !failures.is_empty() {
            bail!("{}", failures.join("; "));
        }
        Ok(accounts)
    })
}

async fn accounts_in(
    connection: &mut SqliteConnection,
    table: &Table,
    phone: IpAddr,
    now: i64,
) -> anyhow::Result<Vec<String>> {
    let [one, other] = spellings(phone);
    let Table { schema, name } = table;
    let account = account_columns(name);
    let sql = format!(
        "SELECT group_concat(replace(account, char(10), ' '), char(10)) FROM (SELECT DISTINCT {account} AS account \
         FROM {schema}.{name} WHERE +expires > ?1 AND network_ip IN (?2, ?3) ORDER BY 1 LIMIT {MAX_ACCOUNTS})"
    );
    let query = sqlx::query(&sql).bind(now).bind(one).bind(other).persistent(false);
    let text: Option<String> = query.fetch_one(connection).await?.try_get(0)?;
    Ok(text.unwrap_or_default().lines().map(str::to_owned).collect())
}
