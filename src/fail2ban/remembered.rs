//! What fail2ban's database has about somebody: his bans in all jails, with the lines of the logs that caused them.

use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::sqlite::SqliteConnection;

use super::{Ban, open};
use crate::deadline::Deadline;
use crate::evidence::visible_within;
use crate::times::{rfc3339, rfc3339_if};

/// So many lines of a ban are handed out, the last ones, and of each so many bytes.
const LINES: usize = 10;
const LONGEST: usize = 400;

/// A ban that is not over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Remembered {
    /// In fail2ban.
    pub jail: String,
    /// Whom: an address, a network, or what else the jail's filter takes for an id.
    pub id: String,
    /// Seconds since 1970.
    #[serde(serialize_with = "rfc3339")]
    pub since: i64,
    /// Seconds since 1970; `None`: without end.
    #[serde(serialize_with = "rfc3339_if")]
    pub until: Option<i64>,
    /// How often the jail has banned it, this time included.
    pub times: i64,
    /// Of the log, those that made it ban, in order; safe to print.
    pub lines: Vec<String>,
}

#[derive(Deserialize)]
struct Row {
    jail: String,
    #[serde(flatten)]
    ban: Ban,
    times: i64,
    /// JSON, as fail2ban wrote it.
    data: Option<String>,
}

/// The bans that are not over at `now` (seconds since 1970), of all ids that `is_meant`, the newest first; `None` where there is no
/// database.
pub fn remembered(
    database: &Path,
    is_meant: impl Fn(&str) -> bool,
    now: i64,
    deadline: Deadline,
) -> anyhow::Result<Option<Vec<Remembered>>> {
    open(database, deadline, async |connection| {
        let mut rows = vec![];
        for (jail, id) in ids(connection).await?.iter().filter(|(_, id)| is_meant(id)) {
            rows.extend(row(connection, jail, id).await?);
        }
        let mut remembered: Vec<_> =
            rows.into_iter().filter(|row| row.ban.left(now) > 0).map(of_row).collect();
        remembered.sort_by(|one: &Remembered, other| {
            other
                .since
                .cmp(&one.since)
                .then_with(|| one.jail.cmp(&other.jail))
                .then_with(|| one.id.cmp(&other.id))
        });
        Ok(remembered)
    })
}

async fn ids(connection: &mut SqliteConnection) -> anyhow::Result<Vec<(String, String)>> {
    let text: String =
        sqlx::query_scalar("SELECT json_group_array(json_array(jail, CAST(ip AS TEXT))) FROM bips")
            .fetch_one(connection)
            .await?;
    serde_json::from_str(&text).context("its ids are not as fail2ban writes them")
}

async fn row(connection: &mut SqliteConnection, jail: &str, id: &str) -> anyhow::Result<Option<Row>> {
    // A text of JSON and not the JSON itself: fail2ban has been seen to write what SQLite does not take for JSON.
    const SQL: &str = "SELECT json_object('jail', jail, 'id', CAST(ip AS TEXT), 'since', CAST(timeofban AS INTEGER), \
         'length', CAST(bantime AS INTEGER), 'times', CAST(bancount AS INTEGER), 'data', CAST(data AS TEXT)) \
         FROM bips WHERE jail = ?1 AND CAST(ip AS TEXT) = ?2";
    let query = sqlx::query_scalar(SQL).bind(jail).bind(id);
    let text: Option<String> = query.fetch_optional(connection).await?;
    text.map(|text| serde_json::from_str(&text).context("a ban is not as fail2ban writes it")).transpose()
}

fn of_row(Row { jail, ban, times, data }: Row) -> Remembered {
    let until = ban.until();
    let lines = data.as_deref().map(lines).unwrap_or_default();
    Remembered { jail, since: ban.since, until, id: ban.id, times: times.max(1), lines }
}

/// The `matches` of the data: each a text, or what is before the time, the time, and what is behind it.
fn lines(data: &str) -> Vec<String> {
    let data: Value = serde_json::from_str(data).unwrap_or_default();
    let matches = data.get("matches").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let text = |line: &Value| match line {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => Some(parts.iter().filter_map(Value::as_str).collect()),
        _ => None,
    };
    let last = &matches[matches.len().saturating_sub(LINES)..];
    last.iter().filter_map(text).map(|line| visible_within(line.trim(), LONGEST)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_in_both_forms() {
        for (data, expected) in [
            (r#"{"matches": ["one ", ["a ", "12:00", " b"]], "failures": 2}"#, &["one", "a 12:00 b"][..]),
            (r#"{"matches": [["", "12:00:01", "\u001b[31mred"]]}"#, &["12:00:01\u{fffd}[31mred"]),
            (r#"{"matches": [1, null, {"a": 1}, ["x", null]]}"#, &["x"]),
            (r#"{"matches": "x"}"#, &[]),
            ("{}", &[]),
            ("nonsense", &[]),
        ] {
            assert_eq!(lines(data), expected, "{data}");
        }
        let many: Vec<_> = (0..30).map(|line| line.to_string()).collect();
        let data = serde_json::json!({ "matches": many }).to_string();
        assert_eq!(lines(&data), &many[20..]);
    }
}
