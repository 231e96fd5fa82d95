//! What FusionPBX's database says about carriers: `v_access_controls`, `v_access_control_nodes`, `v_gateways`.

use anyhow::{Context, anyhow, bail};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, FromRow};
use tokio::time::timeout;

use crate::deadline::Deadline;
use crate::fusionpbx::NOT_ITS_DATABASE;
use crate::postgres::{Target, is_missing_table, with_grant};

/// More rows of a table than this are not read.
pub(super) const MAX_ROWS: usize = 10_000;

/// Longer lists of networks than this are not read.
pub(super) const MAX_CIDR: usize = 4000;

/// A network that an access control list lets in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) list: String,
    pub(super) description: String,
    /// What a list has: one network, several with commas, or nothing.
    pub(super) cidr: String,
}

/// An enabled gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Gateway {
    pub(super) name: String,
    /// `proxy`, `register_proxy`, `outbound_proxy`, as they are; empty where there is none.
    pub(super) proxies: [String; 3],
}

/// All of both. A table that an older FusionPBX does not have has no rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) nodes: Vec<Node>,
    pub(super) gateways: Vec<Gateway>,
}

/// Reads it by `deadline`. Errors name the database, and what to do where it is the wrong one or a right is missing.
pub(super) async fn read(target: &Target, deadline: Deadline) -> anyhow::Result<Rows> {
    let mut connection = target.connect(deadline).await?;
    let rows = timeout(deadline.remaining(), ask(&mut connection)).await;
    let rows =
        rows.map_err(|_| anyhow!("no answer in time")).flatten().with_context(|| target.to_string())?;
    // A good-bye keeps the server's log clean; more it is not.
    let _ = timeout(deadline.remaining(), connection.close()).await;
    Ok(rows)
}

async fn ask(connection: &mut PgConnection) -> anyhow::Result<Rows> {
    let nodes = fetch(connection, &nodes_sql()).await.context("v_access_control_nodes")?;
    let gateways = fetch(connection, &gateways_sql()).await.context("v_gateways")?;
    if nodes.is_none() && gateways.is_none() {
        bail!("it has neither v_access_control_nodes nor v_gateways, {NOT_ITS_DATABASE}")
    }
    let node = |(list, description, cidr)| Node { list, description, cidr };
    let gateway = |(name, proxy, register, outbound)| Gateway { name, proxies: [proxy, register, outbound] };
    Ok(Rows {
        nodes: nodes.unwrap_or_default().into_iter().map(node).collect(),
        gateways: gateways.unwrap_or_default().into_iter().map(gateway).collect(),
    })
}

/// What lists that else deny let in. Texts are cut, so that no row is too long to be held; the one more row and
/// character tell that there was more.
fn nodes_sql() -> String {
    format!(
        "SELECT left(coalesce(a.access_control_name, ''), 200), left(coalesce(n.node_description, ''), 200), \
         left(coalesce(cast(n.node_cidr AS text), ''), {}) \
         FROM v_access_control_nodes n \
         JOIN v_access_controls a ON a.access_control_uuid = n.access_control_uuid \
         WHERE n.node_type = 'allow' AND a.access_control_default = 'deny' LIMIT {}",
        MAX_CIDR + 1,
        MAX_ROWS + 1
    )
}

/// `enabled` is a text up to FusionPBX 5.4 and a boolean from 5.5 on. A host of 300 characters is none.
fn gateways_sql() -> String {
    format!(
        "SELECT left(coalesce(gateway, ''), 200), left(coalesce(proxy, ''), 300), \
         left(coalesce(register_proxy, ''), 300), left(coalesce(outbound_proxy, ''), 300) \
         FROM v_gateways WHERE cast(enabled AS text) = 'true' LIMIT {}",
        MAX_ROWS + 1
    )
}

/// The rows; `None` where a table is not there.
async fn fetch<T>(connection: &mut PgConnection, sql: &str) -> anyhow::Result<Option<Vec<T>>>
where
    T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    match sqlx::query_as(sql).persistent(false).fetch_all(connection).await {
        Ok(rows) => Ok(Some(rows)),
        Err(error) if is_missing_table(&error) => Ok(None),
        Err(error) => Err(with_grant(error, "v_access_controls, v_access_control_nodes and v_gateways")),
    }
}
