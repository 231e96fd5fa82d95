//! What fail2ban remembers, in its SQLite database, read and never written; and what it bans now.

use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

use crate::deadline::Deadline;

mod held;
pub mod jails;
pub mod past;
mod python;
pub mod regex;
mod remembered;
mod running;
pub mod shipped;

pub use held::held;
pub use remembered::{Remembered, remembered};
pub use running::{Jails, Running, running};

/// Where it has its configuration.
pub const CONFIG: &str = "/etc/fail2ban";

/// Whether fail2ban may have a jail of this name.
#[must_use]
pub fn is_jail(name: &str) -> bool {
    const LONGEST: usize = 100;
    !name.is_empty() && name.len() <= LONGEST && !name.chars().any(char::is_control)
}

/// A ban of a jail, as fail2ban writes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Ban {
    /// Whom: an address, a network, or what else the jail's filter takes for an id.
    pub id: String,
    since: i64,
    /// Seconds; -1: for ever. Other negative ones are of fail2ban before 0.10, which did not write it down.
    length: i64,
}

impl Ban {
    /// Whether it began at `time` (seconds since 1970) or later.
    #[must_use]
    pub fn is_since(&self, time: i64) -> bool {
        self.since >= time
    }

    /// When it ends, in seconds since 1970; `None`: never.
    fn until(&self) -> Option<i64> {
        (self.length != -1).then(|| self.since.saturating_add(self.length.max(0)))
    }

    /// How many seconds of it are left at `now`, none for one that is over, `i64::MAX` for one without end.
    #[must_use]
    pub fn left(&self, now: i64) -> i64 {
        match self.length {
            -1 => i64::MAX,
            ..0 => 0,
            length => self.since.saturating_add(length).saturating_sub(now).max(0),
        }
    }
}

/// What a jail bans now, and what it banned and has not forgotten yet; `None` where there is no database, or it does not know the
/// jail.
///
/// fail2ban remembers a ban a moment before or after it has called the actions for it.
pub fn bans(database: &Path, jail: &str, deadline: Deadline) -> anyhow::Result<Option<Vec<Ban>>> {
    open(database, deadline, async |connection| Ok(ask(connection, jail).await?)).map(Option::flatten)
}

/// Reads in the database; `None` where there is none.
fn open<T>(
    database: &Path,
    deadline: Deadline,
    read: impl AsyncFnOnce(&mut SqliteConnection) -> anyhow::Result<T>,
) -> anyhow::Result<Option<T>> {
    let there = database.try_exists().with_context(|| format!("cannot look for {}", database.display()))?;
    if !there {
        return Ok(None);
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().context("no runtime")?;
    runtime
        .block_on(async {
            let mut connection = SqliteConnectOptions::new()
                .filename(database)
                .read_only(true)
                .busy_timeout(deadline.remaining())
                .connect()
                .await?;
            let found = tokio::time::timeout(deadline.remaining(), read(&mut connection)).await;
            let _ = connection.close().await;
            found.context("it takes too long")?.map(Some)
        })
        .with_context(|| format!("cannot read fail2ban's database {}", database.display()))
}

async fn ask(connection: &mut SqliteConnection, jail: &str) -> Result<Option<Vec<Ban>>, sqlx::Error> {
    let known: Option<i64> = sqlx::query_scalar("SELECT 1 FROM jails WHERE name = ?1")
        .bind(jail)
        .fetch_optional(&mut *connection)
        .await?;
    if known.is_none() {
        return Ok(None);
    }
    // One text for all: row by row, each would cost a change of threads.
    let bans: String = sqlx::query_scalar(
        "SELECT json_group_array(json_object('id', CAST(ip AS TEXT), 'since', CAST(timeofban AS INTEGER), \
         'length', CAST(bantime AS INTEGER))) FROM bips WHERE jail = ?1",
    )
    .bind(jail)
    .fetch_one(connection)
    .await?;
    Ok(Some(serde_json::from_str(&bans).map_err(|error| sqlx::Error::Decode(error.into()))?))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;

    /// As fail2ban 1.0.2 makes them.
    const TABLES: &str = "\
        CREATE TABLE jails (name TEXT NOT NULL UNIQUE, enabled INTEGER NOT NULL DEFAULT 1);
        CREATE TABLE bips (ip TEXT NOT NULL, jail TEXT NOT NULL, timeofban INTEGER NOT NULL, bantime INTEGER NOT NULL, \
        bancount INTEGER NOT NULL default 1, data JSON, PRIMARY KEY (ip, jail));
        INSERT INTO jails (name) VALUES ('sip'), ('sshd');
        INSERT INTO bips (ip, jail, timeofban, bantime) VALUES ('999@d', 'sip', 1, 2), ('O''Neil \"x\"@d', 'sip', 1, 2), \
        ('192.0.2.1', 'sshd', 1, 2);";

    fn ask(database: &Path, jail: &str) -> anyhow::Result<Option<Vec<String>>> {
        let deadline = Deadline::after(Instant::now(), Duration::from_secs(5));
        let mut ids = bans(database, jail, deadline)?
            .map(|bans| bans.into_iter().map(|ban| ban.id).collect::<Vec<_>>());
        if let Some(ids) = &mut ids {
            ids.sort();
        }
        Ok(ids)
    }

    #[test]
    fn knows_what_a_jail_bans() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fail2ban.sqlite3");
        assert_eq!(ask(&path, "sip").unwrap(), None, "no fail2ban");
        let made = Command::new("sqlite3").arg("-bail").arg(&path).arg(TABLES).status();
        assert!(made.unwrap().success());
        assert_eq!(ask(&path, "sip").unwrap().unwrap(), ["999@d", "O'Neil \"x\"@d"]);
        assert_eq!(ask(&path, "sshd").unwrap().unwrap(), ["192.0.2.1"]);
        let deadline = Deadline::after(Instant::now(), Duration::from_secs(5));
        let ban = bans(&path, "sshd", deadline).unwrap().unwrap().remove(0);
        assert_eq!([0, 1, 2, 3, 4].map(|now| ban.left(now)), [3, 2, 1, 0, 0]);
        assert_eq!(Ban { length: -1, ..ban.clone() }.left(4), i64::MAX);
        assert_eq!(Ban { length: -2, ..ban }.left(2), 0);
        assert_eq!(ask(&path, "other").unwrap(), None);
        std::fs::write(&path, "no database").unwrap();
        let error = format!("{:#}", ask(&path, "sip").unwrap_err());
        assert!(error.starts_with("cannot read fail2ban's database"), "{error}");
    }
}
