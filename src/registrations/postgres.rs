//! FreeSWITCH's tables in PostgreSQL: `sip_registrations` of every profile and node, or the core's
//! `registrations` where only that is there.
//!
//! FreeSWITCH makes the indexes that serve us (`sr_network_ip`, `sr_expires`, `sr_sip_user`, `sr_sip_username`). A full
//! read stops at [`FULL_READ`] live rows; beyond it, only the asked address is looked up.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::bail;
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgConnection};

use super::devices::{Device, MAX_DEVICES, Whose, agent_column};
use super::{
    CORE_TABLE, Found, MAX_ACCOUNTS, PROFILE_TABLE, Question, Spelling, account_columns, account_pairs, live,
    spellings,
};
use crate::account::Offender;
use crate::deadline::Deadline;
use crate::postgres::{Target, is_missing_table};

/// More live rows than this are not read at once.
const FULL_READ: i64 = 50_000;

/// The tables that may have the registrations. The first has those of every profile; where only the core uses
/// the database, there is the second alone, or the first is empty.
const TABLES: [&str; 2] = [PROFILE_TABLE, CORE_TABLE];

pub(super) fn look(target: &Target, question: &Question, deadline: Deadline) -> anyhow::Result<Found> {
    target.converse(deadline, async |connection| {
        // The profiles' table is there, and they may have gone back to their files.
        let nobody = |found: &Found| question.all && found.registered.is_empty();
        ask(connection, nobody, async |connection, table| ask_table(connection, table, question).await).await
    })
}

/// All live registrations, however many.
pub(super) fn everyone(target: &Target, now: i64, deadline: Deadline) -> anyhow::Result<Found> {
    target.converse(deadline, async |connection| {
        let nobody = |found: &Found| found.registered.is_empty();
        ask(connection, nobody, async |connection, table| {
            let rows = format!("SELECT network_ip, expires FROM {table} WHERE expires > $1");
            let (count, mut found) = fetch(connection, &rows, |query| query.bind(now), true).await?;
            found.notes.push(note(table, count));
            Ok(found)
        })
        .await
    })
}

/// The accounts that are registered from the address of a phone.
pub(super) fn accounts(
    target: &Target,
    phone: IpAddr,
    now: i64,
    deadline: Deadline,
) -> anyhow::Result<BTreeSet<String>> {
    target.converse(deadline, async |connection| {
        ask(connection, BTreeSet::is_empty, async |connection, table| {
            accounts_in(connection, table, phone, now).await
        })
        .await
    })
}

/// The devices that are registered.
pub(super) fn devices(
    target: &Target,
    whose: Whose<'_>,
    now: i64,
    deadline: Deadline,
) -> anyhow::Result<BTreeSet<Device>> {
    let texts = target.converse(deadline, async |connection| {
        let nobody = |text: &String| text == "[]";
        ask(connection, nobody, async |connection, table| devices_in(connection, table, whose, now).await)
            .await
    })?;
    Ok(Device::read(&texts)?.into_iter().collect())
}

/// Which of these are registered.
pub(super) fn registered(
    target: &Target,
    offenders: &[Offender],
    now: i64,
    deadline: Deadline,
) -> anyhow::Result<Vec<bool>> {
    target.converse(deadline, async |connection| {
        let mut answers = vec![false; offenders.len()];
        let missing = |missing: &bool| *missing;
        ask(connection, missing, async |connection, table| {
            let here = registered_in(connection, table, offenders, now).await?;
            answers.iter_mut().zip(here).for_each(|(answer, here)| *answer |= here);
            Ok(answers.contains(&false))
        })
        .await?;
        Ok(answers)
    })
}

/// Asks the first table, and the second where the first is not there or has nobody.
async fn ask<T>(
    connection: &mut PgConnection,
    nobody: impl Fn(&T) -> bool,
    mut ask_table: impl AsyncFnMut(&mut PgConnection, &str) -> sqlx::Result<T>,
) -> anyhow::Result<T> {
    let mut empty = None;
    for table in TABLES {
        match ask_table(connection, table).await {
            Ok(answer) if nobody(&answer) => empty = empty.or(Some(answer)),
            Ok(answer) => return Ok(answer),
            Err(error) if is_missing_table(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(empty) = empty {
        return Ok(empty);
    }
    bail!(
        "it has neither {} nor {}; registrations.postgres must name FreeSWITCH's database, not FusionPBX's",
        TABLES[0],
        TABLES[1]
    )
}

async fn ask_table(connection: &mut PgConnection, table: &str, question: &Question) -> sqlx::Result<Found> {
    if question.all {
        let rows = format!("SELECT network_ip, expires FROM {table} WHERE expires > $1 LIMIT $2");
        let (count, mut found) =
            fetch(connection, &rows, |query| query.bind(question.now).bind(FULL_READ + 1), true).await?;
        if count <= FULL_READ {
            found.notes.push(note(table, count));
            return Ok(found);
        }
    }
    let (count, mut found) = match question.spelling() {
        Spelling::OneOf([one, other]) => {
            let rows = format!(
                "SELECT network_ip, expires FROM {table} WHERE expires > $1 AND network_ip IN ($2, $3)"
            );
            fetch(connection, &rows, |query| query.bind(question.now).bind(one).bind(other), false).await
        }
        Spelling::Between(start, end) => {
            let rows = format!(
                "SELECT network_ip, expires FROM {table} WHERE expires > $1 \
                 AND network_ip COLLATE \"C\" >= $2 AND network_ip COLLATE \"C\" < $3"
            );
            fetch(connection, &rows, |query| query.bind(question.now).bind(start).bind(end), false).await
        }
    }?;
    found.notes.push(note(table, count));
    Ok(found)
}

async fn accounts_in(
    connection: &mut PgConnection,
    table: &str,
    phone: IpAddr,
    now: i64,
) -> sqlx::Result<BTreeSet<String>> {
    let [one, other] = spellings(phone);
    let account = account_columns(table);
    let sql = format!(
        "SELECT string_agg(replace(account, E'\\n', ' '), E'\\n') FROM (SELECT DISTINCT ({account}) COLLATE \"C\" AS account FROM {table} \
         WHERE expires > $1 AND network_ip IN ($2, $3) ORDER BY 1 LIMIT {MAX_ACCOUNTS}) AS live"
    );
    let query = sqlx::query(&sql).bind(now).bind(one).bind(other).persistent(false);
    let text: Option<String> = query.fetch_one(connection).await?.try_get(0)?;
    Ok(text.unwrap_or_default().lines().map(str::to_owned).collect())
}

/// As JSON.
async fn devices_in(
    connection: &mut PgConnection,
    table: &str,
    whose: Whose<'_>,
    now: i64,
) -> sqlx::Result<String> {
    let (account, agent) = (account_columns(table), agent_column(table));
    let (condition, one, other) = match whose {
        Whose::Address(address) => {
            let [one, other] = spellings(address);
            ("network_ip IN ($2, $3)".to_owned(), one, other)
        }
        Whose::Account(account) => {
            let pairs = account_pairs(table).iter();
            let is = |(user, domain): &(&str, &str)| {
                format!("({user} = $2 AND lower({domain} COLLATE \"C\") = $3)")
            };
            let condition = pairs.map(is).collect::<Vec<_>>().join(" OR ");
            (condition, account.user().to_owned(), account.domain().to_owned())
        }
    };
    let sql = format!(
        "SELECT coalesce(json_agg(json_build_array(account, network_ip, agent, expires)), '[]')::text FROM (\
         SELECT ({account}) COLLATE \"C\" AS account, network_ip, {agent} AS agent, expires::bigint AS expires \
         FROM {table} WHERE expires > $1 AND ({condition}) ORDER BY 1, 2 LIMIT {MAX_DEVICES}) AS live"
    );
    let query = sqlx::query(&sql).bind(now).bind(one).bind(other).persistent(false);
    query.fetch_one(connection).await?.try_get(0)
}

async fn registered_in(
    connection: &mut PgConnection,
    table: &str,
    offenders: &[Offender],
    now: i64,
) -> sqlx::Result<Vec<bool>> {
    let is =
        |user: &str, domain: &str| format!("{user} = o.name AND lower({domain} COLLATE \"C\") = o.domain");
    let accounts = || account_pairs(table).iter().map(|(user, domain)| is(user, domain));
    let there = accounts().collect::<Vec<_>>().join(" OR ");
    // By the indexes on the users: "+ 0" hides the one on expires, which nearly every row satisfies.
    let anywhere = accounts()
        .map(|account| format!("EXISTS (SELECT FROM {table} WHERE expires + 0 > $1 AND {account})"));
    let sql = format!(
        "SELECT array_agg(CASE WHEN o.one IS NULL THEN {} \
         ELSE EXISTS (SELECT FROM {table} WHERE expires > $1 AND network_ip IN (o.one, o.other) AND ({there})) END \
         ORDER BY o.number) FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) \
         WITH ORDINALITY AS o (name, domain, one, other, number)",
        anywhere.collect::<Vec<_>>().join(" OR ")
    );
    let (users, domains): (Vec<_>, Vec<_>) =
        offenders.iter().map(|Offender { account, .. }| (account.user(), account.domain())).unzip();
    let (one, other): (Vec<_>, Vec<_>) = offenders
        .iter()
        .map(|offender| offender.source.map(|source| <(String, String)>::from(spellings(source))).unzip())
        .unzip();
    let query = sqlx::query(&sql).bind(now).bind(users).bind(domains).bind(one).bind(other);
    query.persistent(false).fetch_one(connection).await?.try_get(0)
}

fn note(table: &str, count: i64) -> String {
    format!("{table}: {}", live(usize::try_from(count).unwrap_or(0)))
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, PgArguments>;

/// The number of rows, and what they say: as one text, which costs less than so many rows.
async fn fetch(
    connection: &mut PgConnection,
    rows: &str,
    bind: impl FnOnce(Query<'_>) -> Query<'_>,
    complete: bool,
) -> sqlx::Result<(i64, Found)> {
    let sql = format!(
        "SELECT count(*), string_agg(concat_ws(' ', network_ip, expires), E'\\n') FROM ({rows}) AS live"
    );
    let row = bind(sqlx::query(&sql).persistent(false)).fetch_one(connection).await?;
    let text: Option<String> = row.try_get(1)?;
    let count = row.try_get(0)?;
    let mut found = Found { complete, ..Found::default() };
    found.add_lines(text.as_deref().unwrap_or_default());
    Ok((count, found))
}
