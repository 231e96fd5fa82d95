//! The devices that are registered: each with its account, where it is, and what it calls itself.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::Context;
use serde::Serialize;

use super::{CORE_TABLE, Source, event_socket, network_ip, postgres, sqlite};
use crate::account::SipAccount;
use crate::deadline::Deadline;
use crate::evidence::visible_within;
use crate::times::rfc3339;

/// More devices are not named.
pub(super) const MAX_DEVICES: usize = 50;

/// No text of a client is handed out that is longer, in bytes.
const LONGEST: usize = 200;

/// Whose devices.
#[derive(Clone, Copy, Debug)]
pub enum Whose<'a> {
    /// Of everybody at this address.
    Address(IpAddr),
    /// Of this account, by its address of record or the name and realm of its credentials, wherever they are.
    Account(&'a SipAccount),
}

/// A device with a live registration. Texts are safe to print.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Device {
    /// `user@domain`.
    pub account: String,
    /// Where its packets come from.
    pub address: IpAddr,
    /// What it calls itself; empty if that is not known.
    pub user_agent: String,
    /// When its registration expires, in seconds since 1970.
    #[serde(serialize_with = "rfc3339")]
    pub until: i64,
}

impl Device {
    pub(super) fn new(account: &str, address: &str, user_agent: &str, until: i64) -> Option<Self> {
        let address = network_ip(address)?;
        let [account, user_agent] = [account, user_agent].map(|text| visible_within(text, LONGEST));
        Some(Self { account, address, user_agent, until })
    }

    /// Reads what a database puts together: arrays of account, address, user agent and end.
    pub(super) fn read(json: &str) -> anyhow::Result<Vec<Self>> {
        type Row = (Option<String>, Option<String>, Option<String>, i64);
        let rows: Vec<Row> = serde_json::from_str(json).context("the registrations cannot be understood")?;
        let device = |(account, address, agent, until): Row| {
            Self::new(&account.unwrap_or_default(), &address?, &agent.unwrap_or_default(), until)
        };
        Ok(rows.into_iter().filter_map(device).collect())
    }
}

/// What a table knows of the user agent.
pub(super) fn agent_column(table: &str) -> &'static str {
    if table == CORE_TABLE { "''" } else { "user_agent" }
}

impl Source {
    /// The devices with a live registration at `now` (seconds since 1970), at most 50 of each table, in order.
    ///
    /// An error means that none was found and something could not be read.
    pub fn devices(
        &self,
        whose: Whose<'_>,
        now: i64,
        deadline: Deadline,
    ) -> anyhow::Result<BTreeSet<Device>> {
        let whose = match whose {
            Whose::Address(address) => Whose::Address(address.to_canonical()),
            account @ Whose::Account(_) => account,
        };
        match self {
            Self::Sqlite(files) => sqlite::devices(files, whose, now, deadline),
            Self::Postgres(target) => postgres::devices(target, whose, now, deadline),
            Self::EventSocket { address, password } => {
                event_socket::devices(address, password, whose, now, deadline)
            }
        }
    }
}
