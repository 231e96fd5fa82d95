//! What `event_guard`, FusionPBX's own watchman, wrote down of those it blocks: `v_event_guard_logs`.

use std::net::IpAddr;

use anyhow::bail;
use serde::{Deserialize, Serialize};

use super::NOT_ITS_DATABASE;
use crate::deadline::Deadline;
use crate::evidence::visible_within;
use crate::postgres::{Target, is_missing_table, with_grant};
use crate::times::rfc3339;

/// No text of a client is handed out that is longer, in bytes.
const LONGEST: usize = 200;

/// So many rows are handed out.
const MAX_ROWS: usize = 20;

/// A line of its log, as its page shows it. Texts are safe to print.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Entry {
    /// On which host.
    pub host: String,
    /// Seconds since 1970.
    #[serde(serialize_with = "rfc3339")]
    pub since: i64,
    /// `sip-auth-ip` or `sip-auth-fail`, as its chain.
    pub filter: String,
    /// Whom that failed with.
    pub extension: String,
    /// As the client calls itself.
    pub user_agent: String,
    /// `blocked`, `unblocked` or `pending`.
    pub status: String,
}

/// One text of all rows, the newest first.
const SQL: &str = "\
    SELECT coalesce(json_agg(row), '[]')::text FROM (\
    SELECT json_build_object('host', coalesce(hostname, ''), 'since', coalesce(extract(epoch FROM log_date), 0)::bigint, \
    'filter', coalesce(filter, ''), 'extension', coalesce(extension, ''), 'user-agent', coalesce(user_agent, ''), \
    'status', coalesce(log_status, '')) AS row \
    FROM v_event_guard_logs WHERE ip_address IN ($1, $2) ORDER BY log_date DESC NULLS LAST LIMIT 20) AS rows";

/// What it wrote down of an address, the newest first; nothing where FusionPBX does not have it.
pub fn look_up(target: &Target, address: IpAddr, deadline: Deadline) -> anyhow::Result<Vec<Entry>> {
    let spelled = address.to_string();
    let bracketed = format!("[{address}]");
    let text: String = target.converse(deadline, async |connection| {
        let query = sqlx::query_scalar(SQL).bind(spelled).bind(bracketed).persistent(false);
        match query.fetch_one(&mut *connection).await {
            Ok(text) => Ok(text),
            // FusionPBX before 2022 has no event_guard. Where it has no domains either, it is another database.
            Err(error) if is_missing_table(&error) => {
                match sqlx::query("SELECT FROM v_domains LIMIT 1").persistent(false).execute(connection).await
                {
                    Err(error) if is_missing_table(&error) => {
                        bail!("it has no v_domains, {NOT_ITS_DATABASE}")
                    }
                    _ => Ok("[]".to_owned()),
                }
            }
            Err(error) => Err(with_grant(error, "v_event_guard_logs")),
        }
    })?;
    let mut entries: Vec<Entry> = serde_json::from_str(&text)?;
    entries.truncate(MAX_ROWS);
    for entry in &mut entries {
        let Entry { host, filter, extension, user_agent, status, .. } = entry;
        for text in [host, filter, extension, user_agent, status] {
            *text = visible_within(text, LONGEST);
        }
    }
    Ok(entries)
}
