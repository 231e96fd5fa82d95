//! Who is registered from an address, and where an account is registered.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Row};

use super::super::devices::{Device, MAX_DEVICES, Whose, agent_column};
use super::super::{MAX_ACCOUNTS, account_columns, account_pairs, spellings};
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
    collect(files, deadline, async |connection, table| accounts_in(connection, table, phone, now).await)
}

/// The devices that are registered.
pub(in super::super) fn devices(
    files: &[PathBuf],
    whose: Whose<'_>,
    now: i64,
    deadline: Deadline,
) -> anyhow::Result<BTreeSet<Device>> {
    collect(files, deadline, async |connection, table| devices_in(connection, table, whose, now).await)
}

/// What the tables of the profiles have, and if that is nothing, the core's.
fn collect<T: Ord>(
    files: &[PathBuf],
    deadline: Deadline,
    mut ask: impl AsyncFnMut(&mut SqliteConnection, &Table) -> anyhow::Result<Vec<T>>,
) -> anyhow::Result<BTreeSet<T>> {
    let deadline = deadline.earlier_by(MARGIN);
    let runtime = tokio::runtime::Builder::new_current_thread().build().context("no asynchronous runtime")?;
    runtime.block_on(async {
        let (usable, found) = sort_out(files)?;
        let mut failures = found.failures;
        let (mut in_profiles, mut in_core) = (BTreeSet::new(), BTreeSet::new());
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
                        let here = ask(&mut connection, table).await?;
                        if profile { &mut in_profiles } else { &mut in_core }.extend(here);
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
        if in_profiles.is_empty() {
            in_profiles = in_core;
        }
        if in_profiles.is_empty() && !failures.is_empty() {
            bail!("{}", failures.join("; "));
        }
        Ok(in_profiles)
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

async fn devices_in(
    connection: &mut SqliteConnection,
    table: &Table,
    whose: Whose<'_>,
    now: i64,
) -> anyhow::Result<Vec<Device>> {
    let Table { schema, name } = table;
    let (account, agent) = (account_columns(name), agent_column(name));
    let (condition, one, other) = match whose {
        Whose::Address(address) => {
            let [one, other] = spellings(address);
            ("network_ip IN (?2, ?3)".to_owned(), one, other)
        }
        Whose::Account(account) => {
            let pairs = account_pairs(name).iter();
            let is = |(user, domain): &(&str, &str)| format!("({user} = ?2 AND lower({domain}) = ?3)");
            let condition = pairs.map(is).collect::<Vec<_>>().join(" OR ");
            (condition, account.user().to_owned(), account.domain().to_owned())
        }
    };
    // As bytes: a client's text need not be UTF-8.
    let sql = format!(
        "SELECT CAST(json_group_array(json_array(account, address, agent, expires)) AS BLOB) FROM (\
         SELECT {account} AS account, network_ip AS address, {agent} AS agent, CAST(expires AS INTEGER) AS expires \
         FROM {schema}.{name} WHERE +expires > ?1 AND ({condition}) ORDER BY 1, 2 LIMIT {MAX_DEVICES})"
    );
    let query = sqlx::query(&sql).bind(now).bind(one).bind(other).persistent(false);
    let text: Vec<u8> = query.fetch_one(connection).await?.try_get(0)?;
    Device::read(&String::from_utf8_lossy(&text))
}
