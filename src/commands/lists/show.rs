//! `ringfence-lists show`: all lists, or those that an address is on.

use std::io::{self, Write};
use std::net::IpAddr;

use anyhow::Context;
use jiff::Timestamp;
use serde::Serialize;

use super::an_address;
use super::load::Loaded;
use super::report::remarks;
use super::session::{self, COMPILED, COPY};
use crate::commands::screen::{Columns, span};
use crate::config::lists::{Kind, List, ListName};
use crate::config::{Config, Mode};
use crate::exit::Exit;
use crate::feeds::compile::Compiled;
use crate::feeds::copy::Copy;
use crate::feeds::fetch::next_due;
use crate::feeds::status::{ListStatus, Status};
use crate::feeds::store::Store;

/// The command line of `show`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The lists that have this address, since when, and what follows
    #[arg(value_parser = an_address)]
    address: Option<IpAddr>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(config: &Config, args: &Args, now: Timestamp) -> anyhow::Result<Exit> {
    let lists = session::all_lists(config);
    // Nothing was ever fetched where the directory is not there.
    let dir = config.state_dir.join("lists");
    let there = dir.try_exists().with_context(|| format!("cannot look into {}", dir.display()))?;
    let store = there.then(|| Store::existing(&config.state_dir)).transpose()?;
    let rows = lists
        .into_iter()
        .map(|(name, list)| Row::read(name, list, store.as_ref()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let Some(address) = args.address else {
        let (mut status, damaged) = store.as_ref().map(Status::read).unwrap_or_default();
        status.notes.extend(damaged);
        let overview = Overview::new(&rows, status, Loaded::read(config));
        print(args.json, &overview, || overview.render(now))?;
        return Ok(Exit::Yes);
    };
    let compiled = match &store {
        Some(store) => store.read(COMPILED)?.unwrap_or_default(),
        None => Compiled::default(),
    };
    let found = Found::new(config, &rows, &compiled, address);
    print(args.json, &found, || found.render(now))?;
    Ok(if found.lists.is_empty() { Exit::No } else { Exit::Yes })
}

fn print(json: bool, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    let text = if json { serde_json::to_string_pretty(value)? + "\n" } else { text() };
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}

/// A list and its last good copy.
struct Row {
    name: ListName,
    list: List,
    copy: Option<Copy>,
    damaged: Option<String>,
}

impl Row {
    fn read(name: ListName, list: List, store: Option<&Store>) -> anyhow::Result<Self> {
        let copy = store.map(|store| store.read(&format!("{name}{COPY}")));
        Ok(match copy.transpose() {
            Ok(copy) => Self { name, list, copy: copy.flatten(), damaged: None },
            Err(error) if Store::is_forbidden(&error) => return Err(error),
            Err(error) => Self { name, list, copy: None, damaged: Some(format!("{error:#}")) },
        })
    }
}

/// All lists.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Overview {
    lists: Vec<Summary>,
    #[serde(flatten)]
    status: Global,
    loaded: Option<Loaded>,
    #[serde(skip)]
    remarks: String,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Global {
    refused: String,
    notes: Vec<String>,
}

/// One list; times are seconds since 1970.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Summary {
    name: ListName,
    kind: Kind,
    observed: bool,
    /// Networks; none where there is no copy.
    ipv4: Option<usize>,
    ipv6: Option<usize>,
    /// When its source last had a good copy, new or the same.
    confirmed: Option<i64>,
    /// When its source is asked again; none for what is on this host.
    next: Option<i64>,
    refused: String,
    notes: Vec<String>,
    cut_out: Vec<String>,
}

impl Overview {
    fn new(rows: &[Row], status: Status, loaded: Option<Loaded>) -> Self {
        let lists = rows
            .iter()
            .map(|Row { name, list, copy, damaged }| {
                let of_list = status.lists.get(name).cloned().unwrap_or_default();
                let ListStatus { confirmed, refused, not_before, notes, cut_out, .. } = of_list;
                let confirmed = if copy.is_some() { confirmed } else { 0 };
                let counts = copy.as_ref().map(|copy| copy.set().count_networks());
                Summary {
                    name: name.clone(),
                    kind: list.kind,
                    observed: list.mode == Some(Mode::Observe),
                    ipv4: counts.map(|[ipv4, _]| ipv4),
                    ipv6: counts.map(|[_, ipv6]| ipv6),
                    confirmed: (confirmed > 0).then_some(confirmed),
                    next: next_due(list, confirmed)
                        .map(|next| if confirmed > 0 { next.max(not_before) } else { not_before }),
                    refused: damaged.clone().unwrap_or(refused),
                    notes,
                    cut_out,
                }
            })
            .collect();
        let remarks = remarks(&status);
        Self { lists, status: Global { refused: status.refused, notes: status.notes }, loaded, remarks }
    }

    fn render(&self, now: Timestamp) -> String {
        if self.lists.is_empty() {
            return "There are no lists in the settings.\n".to_owned();
        }
        let now = now.as_second();
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
                match (&list.refused, list.ipv4) {
                    (why, _) if !why.is_empty() => format!("refused: {why}"),
                    (_, None) => "not fetched yet".to_owned(),
                    _ if list.observed => "good, observed only".to_owned(),
                    _ => "good".to_owned(),
                },
            ]);
        }
        let mut text = columns.render() + "\n" + &self.remarks;
        if !self.status.refused.is_empty() {
            text.push_str(&self.status.refused);
            text.push('\n');
        }
        text + &match &self.loaded {
            None => "Nothing was loaded into the kernel since the last boot.\n".to_owned(),
            Some(Loaded { when, block: [block4, block6], allow: [allow4, allow6], .. }) => format!(
                "In the kernel since {}: blocked {block4} IPv4 and {block6} IPv6 networks, allowed {allow4} and {allow6}.\n",
                span(now - when)
            ),
        }
    }
}

/// The lists that an address is on.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Found {
    address: IpAddr,
    /// Whether the lists, put together, block it.
    blocked: bool,
    /// Whether it is exempt from block lists and limits, and whether fail2ban must leave it alone.
    allowed: bool,
    kept_from_fail2ban: bool,
    lists: Vec<Place>,
    #[serde(skip)]
    mode: Mode,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Place {
    name: ListName,
    kind: Kind,
    range: String,
    /// Seconds since 1970.
    since: u32,
}

impl Found {
    fn new(config: &Config, rows: &[Row], compiled: &Compiled, address: IpAddr) -> Self {
        let place = |row: &Row| {
            let (range, since) = row.copy.as_ref()?.find(address)?;
            Some(Place { name: row.name.clone(), kind: row.list.kind, range: range.to_string(), since })
        };
        Self {
            address,
            blocked: compiled.block.contains(address),
            allowed: compiled.allow.contains(address),
            kept_from_fail2ban: compiled.fail2ban.iter().any(|(_, set)| set.contains(address)),
            lists: rows.iter().filter_map(place).collect(),
            mode: config.mode,
        }
    }

    fn render(&self, now: Timestamp) -> String {
        if self.lists.is_empty() {
            return format!("{} is on no list.\n", self.address);
        }
        let mut columns = Columns::new(&["LIST", "KIND", "AS", "SINCE"], &[]);
        for place in &self.lists {
            let since = Timestamp::from_second(place.since.into()).unwrap_or_default();
            columns.row([
                place.name.to_string(),
                place.kind.name().to_owned(),
                place.range.clone(),
                format!(
                    "{} ({} ago)",
                    since.strftime("%F %H:%M UTC"),
                    span(now.as_second() - i64::from(place.since))
                ),
            ]);
        }
        let on_block_list = self.lists.iter().any(|place| place.kind == Kind::Block);
        let allows: Vec<&str> = self
            .lists
            .iter()
            .filter(|place| place.kind == Kind::Allow)
            .map(|place| place.name.as_str())
            .collect();
        let verdict = match (self.blocked, on_block_list) {
            (true, _) if self.mode == Mode::Observe => "would be blocked, but mode is \"observe\"".to_owned(),
            (true, _) => "is blocked".to_owned(),
            (false, true) if !allows.is_empty() => {
                format!("is not blocked, because of {}", allows.join(", "))
            }
            (false, true) => "is not blocked: it is protected, or its list is only observed".to_owned(),
            (false, false) => "is not blocked".to_owned(),
        };
        let exempt = match (self.allowed, self.kept_from_fail2ban) {
            (true, true) => "; exempt from limits, and from fail2ban",
            (true, false) => "; exempt from limits",
            (false, true) => "; exempt from fail2ban",
            (false, false) => "",
        };
        columns.render() + &format!("\n{} {verdict}{exempt}.\n", self.address)
    }
}
