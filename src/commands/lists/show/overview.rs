//! All lists, and what is in the kernel.

use jiff::Timestamp;
use serde::Serialize;

use super::Row;
use crate::commands::lists::load::Loaded;
use crate::commands::lists::report::remarks;
use crate::commands::screen::{Columns, span};
use crate::config::lists::{Kind, ListName};
use crate::config::{Config, Mode};
use crate::feeds::due::next_due;
use crate::feeds::status::{ListStatus, Status};
use crate::feeds::store::Store;
use crate::times::{rfc3339, rfc3339_if};

/// All lists.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::commands) struct Overview {
    pub(in crate::commands) lists: Vec<Summary>,
    /// Why nobody was blocked anew in the last run.
    pub(in crate::commands) refused: String,
    /// Which phones could not be found out in the last run.
    pub(in crate::commands) unknown: String,
    notes: Vec<String>,
    pub(in crate::commands) loaded: Option<InKernel>,
    #[serde(skip)]
    remarks: String,
    /// What is no longer known of the last runs, and why.
    #[serde(skip)]
    pub(in crate::commands) lost: Option<String>,
}

/// One list; times are seconds since 1970, in JSON as of RFC 3339.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::commands) struct Summary {
    pub(in crate::commands) name: ListName,
    pub(in crate::commands) kind: Kind,
    pub(in crate::commands) observed: bool,
    /// Networks; none where there is no copy.
    pub(in crate::commands) ipv4: Option<usize>,
    pub(in crate::commands) ipv6: Option<usize>,
    /// When its source last had a good copy, new or the same.
    #[serde(serialize_with = "rfc3339_if")]
    pub(in crate::commands) confirmed: Option<i64>,
    /// When its source is asked again; none for what is on this host.
    #[serde(serialize_with = "rfc3339_if")]
    pub(in crate::commands) next: Option<i64>,
    pub(in crate::commands) refused: String,
    notes: Vec<String>,
    cut_out: Vec<String>,
}

/// What was last loaded.
#[derive(Serialize)]
pub(in crate::commands) struct InKernel {
    /// Seconds since 1970.
    #[serde(serialize_with = "rfc3339")]
    pub(in crate::commands) when: i64,
    pub(in crate::commands) block: Networks,
    pub(in crate::commands) allow: Networks,
}

#[derive(Serialize)]
pub(in crate::commands) struct Networks {
    pub(in crate::commands) ipv4: usize,
    pub(in crate::commands) ipv6: usize,
}

impl From<[usize; 2]> for Networks {
    fn from([ipv4, ipv6]: [usize; 2]) -> Self {
        Self { ipv4, ipv6 }
    }
}

impl Summary {
    fn new(row: &Row, status: &Status) -> Self {
        let of_list = status.lists.get(&row.name).cloned().unwrap_or_default();
        let ListStatus { confirmed, refused, not_before, notes, cut_out, .. } = of_list;
        // Without a copy of this very list it does not count what was confirmed.
        let confirmed = if row.copy.is_some() { confirmed } else { 0 };
        let counts = row.copy.as_ref().map(|copy| copy.set().count_networks());
        let next = next_due(&row.list, confirmed)
            .map(|next| if confirmed > 0 { next.max(not_before) } else { not_before });
        Self {
            name: row.name.clone(),
            kind: row.list.kind,
            observed: row.list.mode == Some(Mode::Observe),
            ipv4: counts.map(|[ipv4, _]| ipv4),
            ipv6: counts.map(|[_, ipv6]| ipv6),
            confirmed: (confirmed > 0).then_some(confirmed),
            next,
            refused: row.damaged.clone().unwrap_or(refused),
            notes,
            cut_out,
        }
    }

    pub(in crate::commands) fn result(&self) -> &'static str {
        match self.ipv4 {
            _ if !self.refused.is_empty() => "refused",
            None => "not fetched yet",
            Some(_) if self.observed => "good, observed only",
            Some(_) => "good",
        }
    }
}

impl Overview {
    pub(super) fn new(config: &Config, store: &Store, rows: &[Row]) -> Self {
        let (mut status, damaged) = Status::read(store);
        status.notes.extend(damaged.clone());
        let loaded = Loaded::read(config).map(|Loaded { when, block, allow, .. }| InKernel {
            when,
            block: block.into(),
            allow: allow.into(),
        });
        Self {
            lists: rows.iter().map(|row| Summary::new(row, &status)).collect(),
            remarks: remarks(&status),
            refused: status.refused,
            unknown: status.unknown,
            notes: status.notes,
            loaded,
            lost: damaged,
        }
    }

    pub(super) fn render(&self, now: Timestamp) -> String {
        if self.lists.is_empty() {
            return "There are no lists in the settings.\n".to_owned();
        }
        let mut text = self.table(now.as_second()) + "\n";
        for list in self.lists.iter().filter(|list| !list.refused.is_empty()) {
            text += &[list.name.as_str(), ": refused: ", &list.refused, "\n"].concat();
        }
        text += &self.remarks;
        for odd in [&self.unknown, &self.refused].into_iter().filter(|odd| !odd.is_empty()) {
            text += &[odd, "\n"].concat();
        }
        text + &match &self.loaded {
            None => "Nothing was loaded into the kernel since the last boot.\n".to_owned(),
            Some(InKernel { when, block, allow }) => format!(
                "Loaded {} ago: {} IPv4 and {} IPv6 networks blocked, {} and {} allowed.\n",
                span(now.as_second() - when),
                block.ipv4,
                block.ipv6,
                allow.ipv4,
                allow.ipv6
            ),
        }
    }

    fn table(&self, now: i64) -> String {
        let mut columns =
            Columns::new(&["LIST", "KIND", "IPV4", "IPV6", "AGE", "NEXT", "LAST RESULT"], &[2, 3]);
        let dash = || "-".to_owned();
        for list in &self.lists {
            let count = |count: Option<usize>| count.map_or_else(dash, |count| count.to_string());
            columns.row([
                list.name.to_string(),
                list.kind.name().to_owned(),
                count(list.ipv4),
                count(list.ipv6),
                list.confirmed.map_or_else(dash, |confirmed| span(now - confirmed)),
                match list.next {
                    None => dash(),
                    Some(next) if next <= now => "due".to_owned(),
                    Some(next) => format!("in {}", span(next - now)),
                },
                list.result().to_owned(),
            ]);
        }
        columns.render()
    }
}
