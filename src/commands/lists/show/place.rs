//! The lists that an address is on, and what follows from it.

use std::net::IpAddr;

use anyhow::Context;
use jiff::Timestamp;
use serde::Serialize;

use super::Row;
use crate::commands::lists::protection;
use crate::commands::lists::session::{COMPILED, remembered_carriers};
use crate::commands::screen::{Columns, span};
use crate::config::lists::{Kind, ListName};
use crate::config::{Config, Mode};
use crate::feeds::compile::Compiled;
use crate::feeds::guard::{Protected, Why};
use crate::feeds::store::Store;
use crate::times::rfc3339;

/// The lists that an address is on.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Places {
    address: IpAddr,
    verdict: Verdict,
    /// Why it is not blocked though it is on a block list.
    pub(super) because: Option<String>,
    /// What it is exempt from beside block lists.
    exempt: Vec<&'static str>,
    pub(super) lists: Vec<Place>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Blocked,
    /// It would be, if the mode were another.
    Observed,
    NotBlocked,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Place {
    pub(super) name: ListName,
    pub(super) kind: Kind,
    pub(super) range: String,
    /// Seconds since 1970.
    #[serde(serialize_with = "rfc3339")]
    pub(super) since: i64,
    pub(super) observed: bool,
}

impl Places {
    pub(super) fn new(
        config: &Config,
        store: &Store,
        rows: &[Row],
        address: IpAddr,
        now: Timestamp,
    ) -> anyhow::Result<Self> {
        let compiled: Compiled = store
            .read(COMPILED)
            .context("the lists put together are lost; run ringfence-lists fetch")?
            .unwrap_or_default();
        let place = |row: &Row| {
            let (range, since) = row.copy.as_ref()?.find(address)?;
            Some(Place {
                name: row.name.clone(),
                kind: row.list.kind,
                range: range.to_string(),
                since: since.into(),
                observed: row.list.mode == Some(Mode::Observe),
            })
        };
        let lists: Vec<Place> = rows.iter().filter_map(place).collect();
        let listed = lists.iter().any(|place| place.kind == Kind::Block);
        let mut because = None;
        if listed {
            let mut protected = remembered_carriers(config, store);
            protected.extend(rows.iter().filter(|row| row.list.exempts.blocklists).filter_map(|row| {
                let addresses = row.copy.as_ref()?.set();
                Some(Protected { why: Why::Allowed, name: row.name.to_string(), addresses })
            }));
            because = protection::reason(config, address, &protected, now);
        }
        let enforced = lists.iter().any(|place| place.kind == Kind::Block && !place.observed);
        let verdict = match (compiled.block.contains(address) && because.is_none(), config.mode) {
            (true, Mode::Enforce) => Verdict::Blocked,
            (true, Mode::Observe) => Verdict::Observed,
            (false, _) => Verdict::NotBlocked,
        };
        if listed && verdict == Verdict::NotBlocked && because.is_none() {
            because = Some(if enforced {
                "the lists were not put together since; see ringfence-lists show".to_owned()
            } else {
                "its list is only observed".to_owned()
            });
        }
        let kept = compiled.fail2ban.iter().any(|(_, set)| set.contains(address));
        let exempt = [(compiled.allow.contains(address), "limits"), (kept, "fail2ban")];
        let exempt = exempt.into_iter().filter_map(|(exempt, from)| exempt.then_some(from)).collect();
        Ok(Self { address, verdict, because, exempt, lists })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    pub(super) fn render(&self, now: Timestamp) -> String {
        if self.lists.is_empty() {
            return format!("{} is on no list.\n", self.address);
        }
        let mut columns = Columns::new(&["LIST", "KIND", "AS", "SINCE"], &[]);
        for place in &self.lists {
            let since = Timestamp::from_second(place.since).unwrap_or_default();
            columns.row([
                place.name.to_string(),
                place.kind.name().to_owned(),
                place.range.clone(),
                format!("{} ({} ago)", since.strftime("%F %H:%M UTC"), span(now.as_second() - place.since)),
            ]);
        }
        let verdict = match self.verdict {
            Verdict::Blocked => "is blocked",
            Verdict::Observed => "would be blocked, but mode is \"observe\"",
            Verdict::NotBlocked => "is not blocked",
        };
        let because = self.because.as_ref().map(|because| format!(": {because}")).unwrap_or_default();
        let exempt = match self.exempt.as_slice() {
            [] => String::new(),
            from => format!(" It is exempt from {}.", from.join(" and ")),
        };
        columns.render() + &format!("\n{} {verdict}{because}.{exempt}\n", self.address)
    }
}
