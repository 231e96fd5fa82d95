//! fail2ban's jails: those that ban by `ringfence-ban`, and ours.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use super::PATIENCE;
use super::attention::{About, Concerns};
use crate::bans::{self, Jail};
use crate::commands::block::list::Overview as Blocks;
use crate::config::{Config, Mode};
use crate::fail2ban;
use crate::fail2ban::jails::{self, Jail as Enabled};
use crate::firewall::Firewall;
use crate::kernel_sets::Ipset;
use crate::programs;

/// fail2ban has so long to read its settings.
const READING: Duration = Duration::from_secs(10);

/// The names of our own begin so.
const OURS: &str = "ringfence-";

/// A jail.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Row {
    pub(super) jail: String,
    /// Its bans are in our sets.
    pub(super) of_ours: bool,
    /// Whom fail2ban bans now; absent where it was not asked, or has no such jail.
    pub(super) banned: Option<usize>,
    /// Entries of the kernel, IPv4 and IPv6; for a jail that bans accounts, its blocks and none. Absent where that is not ours to
    /// know.
    pub(super) kernel: Option<[u32; 2]>,
    /// Packets that were dropped since its rules are there.
    pub(super) hits: Option<u64>,
}

type Held = BTreeMap<String, BTreeSet<String>>;

pub(super) fn look(config: &Config, concerns: &mut Concerns) -> Option<Vec<Row>> {
    const MORE: &str = "ringfence-ban list";
    let about = About::Jails;
    let jails = concerns.part(about, MORE, "the jails that have started", bans::read(&config.run_dir))?;
    let asked = fail2ban::held(&config.fail2ban.socket, PATIENCE);
    let held = concerns.part(about, "fail2ban-client ping", "whom fail2ban bans", asked);
    if matches!(held, Some(None)) && (is_installed() || !jails.is_empty()) {
        concerns.add(about, "fail2ban does not run, and its jails see nobody", "systemctl status fail2ban");
    }
    let held = held.flatten().unwrap_or_default();
    let mut rows = vec![];
    if !jails.is_empty() {
        let (rules, kernel) = (Firewall::read(), Ipset::open().context("cannot talk to the kernel's ipset"));
        let rules = concerns.part(about, MORE, "the rules of the jails", rules);
        let mut kernel = concerns.part(about, MORE, "the sets of the jails", kernel);
        let hits = rules.map(|rules| bans::hits(&jails, &rules));
        for (at, jail) in jails.iter().enumerate() {
            let count = kernel.as_mut().map(|kernel| jail.banned().count(kernel));
            let count = count.and_then(|count| concerns.part(about, MORE, &jail.name, count));
            let hits = hits.as_ref().map(|hits| hits[at]);
            let missing = match (&count, &hits) {
                (Some(None), _) => Some("sets"),
                (_, Some(None)) if config.mode == Mode::Enforce => Some("rules"),
                _ => None,
            };
            if let Some(what) = missing {
                let what = format!("the {what} of the jail {} are not in the kernel", jail.name);
                concerns.add(about, what, MORE);
            }
            rows.push(Row {
                jail: jail.name.clone(),
                of_ours: true,
                banned: jail.names().find_map(|name| held.get(name)).map(BTreeSet::len),
                kernel: count.flatten(),
                hits: hits.flatten(),
            });
        }
    }
    rows.extend(ours(&held, &jails));
    Some(rows)
}

fn is_installed() -> bool {
    programs::installed("fail2ban", "fail2ban-client").is_ok()
}

/// Those that are enabled, by fail2ban's settings; none where there is no fail2ban.
pub(super) fn enabled(concerns: &mut Concerns) -> Vec<Enabled> {
    if !is_installed() {
        return vec![];
    }
    let read = jails::read(Path::new(fail2ban::CONFIG), READING);
    let read = concerns.part(About::Jails, "fail2ban-client -t", "which jails are enabled", read);
    read.unwrap_or_default()
}

/// Jails of ours that ban otherwise.
fn ours(held: &Held, jails: &[Jail]) -> Vec<Row> {
    let known: BTreeSet<&str> = jails.iter().flat_map(Jail::names).collect();
    let others = held.iter().filter(|(name, _)| name.starts_with(OURS) && !known.contains(name.as_str()));
    let row = |(name, ids): (&String, &BTreeSet<String>)| Row {
        jail: name.clone(),
        of_ours: false,
        banned: Some(ids.len()),
        kernel: None,
        hits: None,
    };
    others.map(row).collect()
}

/// The same with what the kernel has of jails that ban accounts.
pub(super) fn with_blocks(mut rows: Vec<Row>, blocks: Option<&Blocks>) -> Vec<Row> {
    for row in rows.iter_mut().filter(|row| !row.of_ours) {
        let count = blocks.and_then(|blocks| blocks.jails.get(&row.jail));
        row.kernel = count.map(|count| [u32::try_from(*count).unwrap_or(u32::MAX), 0]);
    }
    rows
}
