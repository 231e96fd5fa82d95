//! `ringfence status`: whether all is well, and the host on one screen.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use serde::Serialize;

use crate::checkup::Verdict;
use crate::checkup::secrets::{self, Trusted};
use crate::commands::lists::show::{self as lists, overview};
use crate::commands::screen::{self, span};
use crate::commands::{block::list as blocks, causes, firewall};
use crate::config::{self, Config, Mode};
use crate::exit::Exit;
use crate::pause::Pause;
use crate::services::needed;
use crate::state_file;
use crate::times::{rfc3339, rfc3339_if};

mod attention;
mod decisions;
mod dropped;
mod events;
mod jails;
mod known;
mod metrics;
mod render;

mod services;

use attention::{About, Attention, Concerns};

/// fail2ban and systemd have so long to answer, each.
const PATIENCE: Duration = Duration::from_secs(3);

/// The command line of `status`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Write it for Prometheus instead, into this file, whose name ends in .prom; -: standard output
    ///
    /// The file is replaced whole, and everybody may read it.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    prometheus: Option<PathBuf>,

    /// Print JSON, with times as of RFC 3339
    #[arg(long)]
    json: bool,
}

/// All of it; what could not be found out is absent, and one of the concerns. Times are seconds since 1970, in JSON as of RFC 3339.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Status {
    #[serde(serialize_with = "rfc3339")]
    when: i64,
    mode: Modes,
    #[serde(serialize_with = "rfc3339_if")]
    paused_until: Option<i64>,
    attention: Vec<Attention>,
    services: Option<Vec<services::Service>>,
    jails: Option<Vec<jails::Row>>,
    lists: Option<overview::Overview>,
    blocks: Option<blocks::Overview>,
    addresses: known::Addresses,
    /// Absent also where nothing was applied.
    order: Option<firewall::Overview>,
    events: events::Events,
    decisions: Option<Vec<decisions::Row>>,
    /// Absent also where nothing was counted yet.
    dropped: Option<dropped::Dropped>,
}

/// Where nothing is blocked, but only recorded.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Modes {
    observe: bool,
    block_observe: bool,
    firewall_observe: bool,
}

pub(super) fn run(path: Option<&Path>, args: &Args) -> anyhow::Result<Exit> {
    if let Some(file) = &args.prometheus {
        let is_read = file == Path::new("-") || file.extension().is_some_and(|ending| ending == "prom");
        ensure!(is_read, "{}: node_exporter reads only files whose names end in .prom", file.display());
    }
    let (config, broken) = match Config::load(path) {
        Ok(config) => (config, None),
        // A mistake of a minute ago is what somebody wants to hear of; the rest goes on as it was.
        Err(error) => (Config::salvage(path), Some(causes(&error.into()))),
    };
    let file = path.unwrap_or(Path::new(config::DEFAULT_PATH));
    let status = Status::look(&config, file, broken.as_deref(), Timestamp::now());
    if let Some(file) = &args.prometheus {
        let text = metrics::render(&status);
        if file == Path::new("-") {
            io::stdout().lock().write_all(text.as_bytes())?;
        } else {
            state_file::publish(file, text.as_bytes())
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        // The figures say how it is.
        return Ok(Exit::Yes);
    }
    screen::print(args.json, &status, || render::render(&status))?;
    Ok(match (broken, status.attention.is_empty()) {
        (Some(_), _) => Exit::Broken,
        (None, true) => Exit::Yes,
        (None, false) => Exit::No,
    })
}

impl Status {
    /// `config` is what is in force of `file`.
    fn look(config: &Config, file: &Path, broken: Option<&str>, now: Timestamp) -> Self {
        let mut concerns = Concerns::default();
        if let Some(why) = broken {
            concerns.add(
                About::Settings,
                format!("the settings cannot be used: {why}"),
                "ringfence validate",
            );
        }
        if state_file::effective_user() != 0 {
            let what = "only root can see all of it".to_owned();
            concerns.add(About::Settings, what, "sudo ringfence status");
        }
        let seconds = now.as_second();
        permissions(config, file, &mut concerns);
        let pause =
            concerns.part(About::Pause, "ringfence pause", "a pause", Pause::read(&config.run_dir, now));
        let paused_until = pause.and_then(Pause::until);
        if let Some(until) = paused_until {
            let what = format!("all blocking is lifted for another {}", span(until - seconds));
            concerns.add(About::Pause, what, "ringfence pause --end");
        }
        let order = order(config, now, &mut concerns);
        let jails = jails::look(config, &mut concerns);
        let blocks = blocked(config, now, &mut concerns);
        let lists = listed(config, seconds, &mut concerns);
        let addresses = known::look(config, seconds, &mut concerns);
        let events = events::look(config, now, &mut concerns);
        let enabled = jails::enabled(&mut concerns);
        let services = services::look(&needed(config, &enabled, now), &mut concerns);
        let decisions = decisions::look(config, now, &mut concerns);
        let dropped = dropped::look(config, now, &mut concerns);
        let jails = jails.map(|jails| jails::with_blocks(jails, blocks.as_ref()));
        Self {
            when: seconds,
            mode: Modes {
                observe: config.mode == Mode::Observe,
                block_observe: config.block_mode() == Mode::Observe,
                firewall_observe: config.firewall_mode() == Mode::Observe,
            },
            paused_until,
            attention: concerns.finish(),
            services,
            jails,
            lists,
            blocks,
            addresses,
            order,
            events,
            decisions,
            dropped,
        }
    }
}

/// Who may read or change what nobody else should.
fn permissions(config: &Config, file: &Path, concerns: &mut Concerns) {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    for finding in secrets::permissions(config, file, &Trusted::new(&passwd)) {
        if finding.verdict == Verdict::NeedsDoing {
            concerns.add(About::Settings, finding.what.trim_end_matches('.'), "ringfence doctor");
        }
    }
}

/// The firewall's order, as `ringfence-firewall verify` decides.
fn order(config: &Config, now: Timestamp, concerns: &mut Concerns) -> Option<firewall::Overview> {
    const MORE: &str = "ringfence-firewall verify";
    let order =
        concerns.part(About::Order, MORE, "the order of the rules", firewall::overview(config, now))??;
    for check in &order.checks {
        if let Some(wrong) = &check.wrong {
            // What mends it, where that is known.
            let (wrong, more) = wrong.split_once("; run ").unwrap_or((wrong, MORE));
            concerns.add(About::Order, format!("{}: {wrong}", check.what), more);
        }
    }
    if let Some(until) = order.waits_until {
        let left = span(until - now.as_second());
        let what = format!("the rules wait for their confirmation, and are taken back in {left}");
        concerns.add(About::Order, what, "ringfence-firewall confirm");
    }
    Some(order)
}

fn blocked(config: &Config, now: Timestamp, concerns: &mut Concerns) -> Option<blocks::Overview> {
    const MORE: &str = "ringfence-block list";
    let blocks = concerns.part(About::Blocks, MORE, "who is blocked", blocks::overview(config, now))??;
    let missing = blocks.count - blocks.in_kernel;
    if missing > 0 && config.block_mode() == Mode::Enforce {
        let what = format!("{missing} of {} blocked accounts are not in the kernel", blocks.count);
        concerns.add(About::Blocks, what, MORE);
    }
    for fault in &blocks.faults {
        concerns.add(About::Blocks, format!("the program that matches accounts: {fault}"), MORE);
    }
    if let Some(until) = blocks.suspended_until {
        let left = span(until - now.as_second());
        concerns.add(
            About::Blocks,
            format!("after an alarm, no jail blocks accounts for another {left}"),
            MORE,
        );
    }
    Some(blocks)
}

fn listed(config: &Config, now: i64, concerns: &mut Concerns) -> Option<overview::Overview> {
    const MORE: &str = "ringfence-lists show";
    let lists = concerns.part(About::Lists, MORE, "the lists", lists::overview(config))?;
    for list in &lists.lists {
        let name = &list.name;
        let what = match (list.refused.as_str(), list.ipv4, list.confirmed) {
            ("", None, _) => format!("{name} was not fetched yet"),
            ("", ..) if overdue(list, now) => {
                let age = list.confirmed.map_or_else(|| "ever".to_owned(), |at| span(now - at));
                format!("{name} was not refreshed for {age}")
            }
            ("", ..) => continue,
            (why, None, _) => format!("{name} was refused, and has no copy: {why}"),
            (why, _, Some(at)) => {
                format!("{name} was refused, and its copy of {} ago kept: {why}", span(now - at))
            }
            (why, ..) => format!("{name} was refused, and its copy kept: {why}"),
        };
        concerns.add(About::Lists, what, MORE);
    }
    let odd = [&lists.refused, &lists.unknown].into_iter().filter(|odd| !odd.is_empty());
    for odd in odd.chain(&lists.lost) {
        concerns.add(About::Lists, odd.clone(), MORE);
    }
    if lists.loaded.is_none() && !lists.lists.is_empty() {
        let what = "nothing was loaded into the kernel since the last boot".to_owned();
        concerns.add(About::Lists, what, "ringfence-lists load");
    }
    Some(lists)
}

/// Whether a list should have been refreshed a whole turn of the timer ago.
fn overdue(list: &overview::Summary, now: i64) -> bool {
    // The timer runs every four hours, and up to an hour late.
    const TURN: i64 = 10 * 3_600;
    list.next.is_some_and(|next| next.saturating_add(TURN) < now)
}
