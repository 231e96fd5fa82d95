//! FreeSWITCH's tables in PostgreSQL: `sip_registrations` of every profile and node, and the core's
//! `registrations`.
//!
//! FreeSWITCH makes the indexes that serve us (`sr_network_ip`, `sr_expires`). A full read stops at
//! [`FULL_READ`] live rows; beyond it, only the asked address is looked up.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use sqlx::postgres::PgConnection;
use sqlx::{PgExecutor, Row};

use super::{Found, Question, Spelling, live};
use crate::deadline::Deadline;
use crate::postgres::Target;

/// More live rows than this are not read at once.
const FULL_READ: i64 = 50_000;

/// So long before the deadline we want to know what went wrong, to say it.
const MARGIN: Duration = Duration::from_millis(15);

/// PostgreSQL's code for a table that is not there.
const UNDEFINED_TABLE: &str = "42P01";

/// The tables to ask, the usual case first: a cluster whose profiles or whose core alone use the
/// database has one of the two.
const TABLES: [&[&str]; 3] =
    [&["sip_registrations", "registrations"], &["sip_registrations"], &["registrations"]];

pub(super) fn look(target: &Target, question: &Question, deadline: Deadline) -> anyhow::Result<Found> {
    let deadline = deadline.earlier_by(MARGIN);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no asynchronous runtime")?;
    let answer = runtime.block_on(async {
        let mut connection = target.connect(deadline).await?;
        let answer = tokio::time::timeout(deadline.remaining(), ask(&mut connection, question)).await;
        // No polite good-bye: the server is told by the closed socket, and nobody waits for it.
        std::mem::forget(connection);
        answer.map_err(|_| anyhow!("no answer in time")).flatten().with_context(|| target.to_string())
    });
    // A name that is still being looked up must not be waited for.
    runtime.shutdown_background();
    answer
}

async fn ask(connection: &mut PgConnection, question: &Question) -> anyhow::Result<Found> {
    for tables in TABLES {
        let all = if question.all { read_all(connection, tables, question).await } else { Ok(None) };
        let found = match all {
            Ok(None) => look_up(connection, tables, question).await,
            Ok(Some(found)) => Ok(found),
            Err(error) => Err(error),
        };
        match found {
            Ok(mut found) => {
                found.notes.push(format!("{}: {}", tables.join(", "), live(found.registered.len())));
                return Ok(found);
            }
            Err(error)
                if error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref()
                    == Some(UNDEFINED_TABLE) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bail!(
        "it has neither sip_registrations nor registrations; registrations.postgres must name FreeSWITCH's database, not FusionPBX's"
    )
}

/// All live registrations, or `None` where they are too many.
async fn read_all(
    connection: &mut PgConnection,
    tables: &[&str],
    question: &Question,
) -> sqlx::Result<Option<Found>> {
    let parts: Vec<_> = tables
        .iter()
        .map(|table| format!("(SELECT network_ip, expires FROM {table} WHERE expires > $1 LIMIT $2)"))
        .collect();
    let rows =
        fetch(connection, &parts.join(" UNION ALL "), |query| query.bind(question.now).bind(FULL_READ + 1))
            .await?;
    let read: i64 = rows.iter().map(|row| row.rows).sum();
    Ok((read <= FULL_READ).then(|| found(&rows, true)))
}

/// The live registrations from the asked network.
async fn look_up(connection: &mut PgConnection, tables: &[&str], question: &Question) -> sqlx::Result<Found> {
    // The core's table has no index on the address, and nothing that the other has not.
    let table = tables[0];
    let rows = match question.spelling() {
        Spelling::OneOf(spellings) => {
            let part = format!(
                "SELECT network_ip, expires FROM {table} WHERE expires > $1 AND network_ip IN ($2, $3)"
            );
            fetch(connection, &part, |query| {
                spellings.iter().fold(query.bind(question.now), |query, text| query.bind(text.clone()))
            })
            .await
        }
        Spelling::Between(start, end) => {
            let part = format!(
                "SELECT network_ip, expires FROM {table} WHERE expires > $1 \
                 AND network_ip COLLATE \"C\" >= $2 AND network_ip COLLATE \"C\" < $3"
            );
            fetch(connection, &part, |query| query.bind(question.now).bind(start).bind(end)).await
        }
    }?;
    Ok(found(&rows, false))
}

struct Live {
    network_ip: String,
    expires: i64,
    rows: i64,
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// One row an address, however many phones are behind it.
async fn fetch<'q>(
    connection: impl PgExecutor<'_>,
    rows: &str,
    bind: impl FnOnce(Query<'_>) -> Query<'_>,
) -> sqlx::Result<Vec<Live>> {
    let sql = format!(
        "SELECT network_ip::text, max(expires)::bigint, count(*) FROM ({rows}) AS live \
         WHERE network_ip IS NOT NULL GROUP BY network_ip"
    );
    let rows = bind(sqlx::query(&sql).persistent(false)).fetch_all(connection).await?;
    rows.iter()
        .map(|row| Ok(Live { network_ip: row.try_get(0)?, expires: row.try_get(1)?, rows: row.try_get(2)? }))
        .collect()
}

fn found(rows: &[Live], complete: bool) -> Found {
    let mut found = Found { complete, ..Found::default() };
    for row in rows {
        found.add(&row.network_ip, row.expires);
    }
    found
}
