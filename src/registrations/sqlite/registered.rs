//! Which devices are registered.

use std::net::IpAddr;
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
use crate::account::SipAccount;
use crate::deadline::Deadline;

/// A device, and whether it was found.
struct Wanted<'a> {
    account: &'a SipAccount,
    spellings: [String; 2],
    found: bool,
}

/// Which of these devices are registered.
pub(in super::super) fn registered(
    files: &[PathBuf],
    devices: &[(&SipAccount, IpAddr)],
    now: i64,
    deadline: Deadline,
) -> anyhow::Result<Vec<bool>> {
    let deadline = deadline.earlier_by(MARGIN);
    let runtime = tokio::runtime::Builder::new_current_thread().build().context("no asynchronous runtime")?;
    runtime.block_on(async {
        let (usable, found) = sort_out(files)?;
        let mut failures = found.failures;
        let wanted = devices.iter().map(|(account, address)| Wanted {
            account,
            spellings: spellings(*address),
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
        if !failures.is_empty() && wanted.iter().any(|device| !device.found) {
            bail!("{}", failures.join("; "));
        }
        Ok(wanted.iter().map(|device| device.found).collect())
    })
}

fn failure(file: &DatabaseFile<'_>, read: anyhow::Result<()>) -> Option<String> {
    let error = read.err()?;
    let path = file.path.display();
    Some(match error {
        error if is(&error, BUSY) => format!("{path}: {LOCKED}"),
        error if is(&error, INTERRUPT) => format!("{path}: {LOOKUP_TOO_LONG}"),
        error => format!("{path}: {error:#}"),
    })
}

/// Looks in a file for the devices that are still wanted; waits for its locks until `patience` ends.
async fn read(
    file: &DatabaseFile<'_>,
    wanted: &mut [Wanted<'_>],
    now: i64,
    deadline: Deadline,
    patience: Deadline,
) -> anyhow::Result<()> {
    if wanted.iter().all(|device| device.found) {
        return Ok(());
    }
    // Short, so that the last of many waits ends with the deadline, too.
    let wait = deadline.within(WAIT_TOGETHER).remaining();
    let (mut connection, tables) = unlocked(patience, async || open(file, &[], wait).await).await?;
    let guard = LockGuard::install(&mut connection).await?;
    for table in tables.iter().flatten() {
        for device in wanted.iter_mut().filter(|device| !device.found) {
            if deadline.has_passed() {
                bail!("not all of it could be read in time");
            }
            let lookup = unlocked(patience, async || {
                guard.start();
                has(&mut connection, table, device, now).await
            });
            device.found = lookup.await?;
        }
    }
    connection.close().await?;
    Ok(())
}

/// Whether a table has a live registration of the device. A question for each: none holds its lock long.
async fn has(
    connection: &mut SqliteConnection,
    table: &Table,
    device: &Wanted<'_>,
    now: i64,
) -> anyhow::Result<bool> {
    let Table { schema, name } = table;
    // "+" keeps SQLite from choosing an index that is not the best: the profiles' table has one on the address, the
    // core's on the user.
    let (user_index, address_index) = if *name == CORE_TABLE { ("", "+") } else { ("+", "") };
    let is = |(user, domain): &(_, _)| format!("{user_index}{user} = ?4 AND lower({domain}) = ?5");
    let accounts: Vec<_> = account_pairs(name).iter().map(is).collect();
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM {schema}.{name} WHERE +expires > ?1 AND {address_index}network_ip IN (?2, ?3) \
         AND ({}))",
        accounts.join(" OR ")
    );
    let [one, other] = &device.spellings;
    let query = sqlx::query(&sql).bind(now).bind(one).bind(other);
    let query = query.bind(device.account.user()).bind(device.account.domain()).persistent(false);
    Ok(query.fetch_one(connection).await?.try_get(0)?)
}
