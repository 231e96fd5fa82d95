//! Whom fail2ban banned, as far as its database remembers.

use std::path::Path;

use serde::Deserialize;
use sqlx::sqlite::SqliteConnection;

use super::open;
use crate::deadline::Deadline;

/// So many bans are read at once.
const PIECE: i64 = 5_000;

/// A ban that was.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Former {
    row: i64,
    /// The name of its jail.
    pub jail: String,
    /// Whom: an address, a network, or what else the jail's filter takes for an id.
    pub id: String,
    /// When it began, in seconds since 1970.
    pub since: i64,
}

impl Former {
    /// A ban of a jail.
    #[must_use]
    pub fn new(jail: &str, id: &str, since: i64) -> Self {
        Self { row: 0, jail: jail.to_owned(), id: id.to_owned(), since }
    }
}

/// Hands over each ban since then (seconds since 1970) that fail2ban has not forgotten; false where there is no database.
///
/// It forgets a ban when that is `dbpurgeage` old, a day unless it is told otherwise, and one that was lifted by hand at once.
pub fn since(
    database: &Path,
    since: i64,
    deadline: Deadline,
    mut each: impl FnMut(Former),
) -> anyhow::Result<bool> {
    let read = open(database, deadline, async |connection| {
        let mut last = 0;
        loop {
            let bans = piece(connection, since, last).await?;
            let Some(end) = bans.last().map(|ban| ban.row) else { break };
            last = end;
            bans.into_iter().for_each(&mut each);
        }
        Ok(())
    });
    Ok(read?.is_some())
}

/// The next bans behind a row.
async fn piece(connection: &mut SqliteConnection, since: i64, last: i64) -> Result<Vec<Former>, sqlx::Error> {
    // One text for all: row by row, each would cost a change of threads.
    let bans: String = sqlx::query_scalar(
        "SELECT json_group_array(json_object('row', row, 'jail', jail, 'id', id, 'since', since)) FROM \
         (SELECT rowid AS row, CAST(jail AS TEXT) AS jail, CAST(ip AS TEXT) AS id, CAST(timeofban AS INTEGER) AS since \
         FROM bans WHERE rowid > ?1 AND timeofban >= ?2 AND ip IS NOT NULL ORDER BY rowid LIMIT ?3)",
    )
    .bind(last)
    .bind(since)
    .bind(PIECE)
    .fetch_one(connection)
    .await?;
    serde_json::from_str(&bans).map_err(|error| sqlx::Error::Decode(error.into()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn every_ban_since_then_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fail2ban.sqlite3");
        let ask = |at: i64| {
            let mut found = vec![];
            let deadline = Deadline::after(Instant::now(), Duration::from_secs(20));
            since(&path, at, deadline, |ban| found.push((ban.jail, ban.id, ban.since)))
                .map(|there| (there, found))
        };
        assert_eq!(ask(0).unwrap(), (false, vec![]));
        // As fail2ban 1.0.2 makes it.
        let sql = "CREATE TABLE bans (jail TEXT NOT NULL, ip TEXT, timeofban INTEGER NOT NULL, bantime INTEGER NOT NULL, \
                   bancount INTEGER NOT NULL default 1, data JSON);
                   WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 10001)
                   INSERT INTO bans (jail, ip, timeofban, bantime) SELECT 'sip', '192.0.2.' || n, n, 60 FROM n;";
        assert!(Command::new("sqlite3").arg("-bail").arg(&path).arg(sql).status().unwrap().success());
        let (there, found) = ask(2).unwrap();
        assert!(there && found.len() == 10_000, "{}", found.len());
        assert_eq!(found[0], ("sip".to_owned(), "192.0.2.2".to_owned(), 2));
        assert!(found.windows(2).all(|pair| pair[0].2 < pair[1].2));
        std::fs::write(&path, "no database").unwrap();
        let error = format!("{:#}", ask(0).unwrap_err());
        assert!(error.starts_with("cannot read fail2ban's database"), "{error}");
    }
}
