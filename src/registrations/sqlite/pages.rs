//! Every registration of large files, in pages: no statement holds its lock long, and between two of them FreeSWITCH
//! has its turn.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Row};

use super::{
    BUSY, DatabaseFile, Found, INTERRUPT, LockGuard, MARGIN, SHORT_WAIT, Table, is, live, open, sort_out,
    unlocked,
};
use crate::deadline::Deadline;

/// Rows of the first page; the next are larger or smaller, so that each takes some [`PAGE_TIME`].
const FIRST_PAGE: i64 = 500;
const FEWEST: i64 = 50;
const MOST: i64 = 20_000;

/// A third of what a statement may take.
const PAGE_TIME: Duration = Duration::from_millis(5);

/// The smallest page is broken off so often by a slow disk; what was read then is in memory the next time.
const TRIES: u32 = 20;

/// What a page reads: how far it came, and one text of "ADDRESS EXPIRES" lines.
struct Page {
    /// `None` where there was no row.
    last: Option<i64>,
    text: Option<String>,
}

/// All live registrations, however many.
pub(in super::super) fn everyone(files: &[PathBuf], now: i64, deadline: Deadline) -> anyhow::Result<Found> {
    let deadline = deadline.earlier_by(MARGIN);
    let runtime = tokio::runtime::Builder::new_current_thread().build().context("no asynchronous runtime")?;
    runtime.block_on(async {
        let (usable, mut found) = sort_out(files)?;
        let mut locked = Vec::new();
        // Who makes us wait has his turn after the others.
        for file in &usable {
            match read(file, now, deadline, deadline.within(Duration::ZERO), &mut found).await {
                Err(error) if is(&error, BUSY) => locked.push(file),
                read => found.note(file, read),
            }
        }
        for file in locked {
            let read = read(file, now, deadline, deadline, &mut found).await;
            found.note(file, read);
        }
        if found.failures.len() == files.len() && found.registered.is_empty() {
            bail!("{}", found.failures.join("; "));
        }
        Ok(found)
    })
}

impl Found {
    fn note(&mut self, file: &DatabaseFile<'_>, count: anyhow::Result<usize>) {
        let note = |count| format!("{}: {}", file.path.display(), live(count));
        let part = count.map(|count| Self { complete: true, notes: vec![note(count)], ..Self::default() });
        self.take(file.path, part);
    }
}

/// Reads a file, and counts; waits for its locks until `patience` ends. What was read before an error counts.
async fn read(
    file: &DatabaseFile<'_>,
    now: i64,
    deadline: Deadline,
    patience: Deadline,
    found: &mut Found,
) -> anyhow::Result<usize> {
    let wait = deadline.within(SHORT_WAIT).remaining();
    let (mut connection, tables) = unlocked(patience, async || open(file, &[], wait).await).await?;
    let guard = LockGuard::install(&mut connection).await?;
    let mut count = 0;
    for table in tables.iter().flatten() {
        let mut last = i64::MIN;
        let mut rows = FIRST_PAGE;
        let mut broken_off = 0;
        loop {
            if deadline.has_passed() {
                bail!("not all of it could be read in time: {} until then", live(count));
            }
            let page = unlocked(patience, async || {
                guard.start();
                page(&mut connection, table, last, rows, now).await
            });
            match page.await {
                Ok(Page { last: Some(end), text }) => {
                    last = end;
                    broken_off = 0;
                    count += found.add_lines(text.as_deref().unwrap_or_default());
                }
                Ok(Page { last: None, .. }) => break,
                Err(error) if is(&error, INTERRUPT) => {
                    broken_off += 1;
                    if rows == FEWEST && broken_off > TRIES {
                        bail!(
                            "reading {rows} rows takes longer than FreeSWITCH can be made to wait; is the disk overloaded?"
                        );
                    }
                }
                Err(error) => return Err(error),
            }
            let took = guard.held();
            rows = if took > PAGE_TIME { rows / 2 } else { rows * 2 }.clamp(FEWEST, MOST);
            // A writer that came meanwhile looks again within moments.
            std::thread::sleep(took.min(PAGE_TIME));
        }
    }
    connection.close().await?;
    Ok(count)
}

/// Reads so many rows behind `last`. In order of their numbers: a row that FreeSWITCH writes anew gets a higher one.
async fn page(
    connection: &mut SqliteConnection,
    table: &Table,
    last: i64,
    rows: i64,
    now: i64,
) -> anyhow::Result<Page> {
    let Table { schema, name } = table;
    let sql = format!(
        "SELECT max(number), group_concat(CASE WHEN expires > ?1 THEN network_ip || ' ' || expires END, char(10)) \
         FROM (SELECT rowid AS number, network_ip, expires FROM {schema}.{name} WHERE rowid > ?2 ORDER BY rowid LIMIT ?3)"
    );
    let query = sqlx::query(&sql).bind(now).bind(last).bind(rows).persistent(false);
    let row = query.fetch_one(connection).await?;
    Ok(Page { last: row.try_get(0)?, text: row.try_get(1)? })
}
