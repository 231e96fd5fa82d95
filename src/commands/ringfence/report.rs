//! `ringfence report`: what was blocked, as a page for the customer or the boss.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::complain;
use super::offenders::{a_time, each_failure};
use crate::commands::lists::all_lists;
use crate::commands::screen::counted;
use crate::commands::{causes, say};
use crate::config::Config;
use crate::config::lists::{List, ListName, Source};
use crate::deadline::Deadline;
use crate::drops;
use crate::evidence::{past, visible};
use crate::exemption::{self, Exemption};
use crate::exit::Exit;
use crate::fail2ban;
use crate::feeds::copy::Copy;
use crate::feeds::store::Store;
use crate::registrations;
use crate::report::axis::Axis;
use crate::report::dropped::Adding;
use crate::report::{Gathering, Report, Standing};
use crate::state_file;

mod chart;
mod country;
mod html;
mod page;
mod table;
mod words;

use page::Page;
use words::Clock;

/// Settings of other tools.
pub(super) const UNNEEDED: [&str; 3] = ["block", "ledger", "events"];

/// fail2ban's database is read in this time.
const READING: Duration = Duration::from_secs(20);

/// Whether one address is exempt is found out in this time, and whether all are, in that.
const PATIENCE: Duration = Duration::from_secs(1);
const PATIENCE_IN_ALL: Duration = Duration::from_secs(10);

const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// The command line of `report`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Write the page to this file; -: print it
    ///
    /// It is needed unless --json is there. The file is replaced in one rename, and may be read by its owner and group (0640).
    #[arg(long, value_name = "FILE", required_unless_present = "json")]
    html: Option<PathBuf>,

    /// What happened in this time up to now
    ///
    /// Write it like 30m or 7d.
    #[arg(long, value_name = "T", default_value = "7d", value_parser = a_time)]
    since: Duration,

    /// Only what concerns this domain: for the customer's copy
    ///
    /// It has only that tenant's accounts, and only addresses from which they were tried: no other tenant is named, no list and
    /// no file; of an address only that it is left alone. What could not be read is said there in general words.
    #[arg(long, short, value_name = "DOMAIN")]
    domain: Option<String>,

    /// Read this log of FreeSWITCH, and its rotated files, instead of that of ringfence-events
    #[arg(long, value_name = "FILE")]
    freeswitch_log: Option<PathBuf>,

    /// Print the figures as JSON, with times as of RFC 3339
    ///
    /// It is in place of the page, or besides it.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(config: &Config, args: &Args) -> anyhow::Result<Exit> {
    let is_printed = args.html.as_deref() == Some(Path::new("-"));
    if is_printed && args.json {
        bail!("--html - and --json would both be printed; give --html a file");
    }
    if let Some(path) = args.html.as_deref().filter(|_| !is_printed) {
        check_target(path)?;
    }
    let now = Timestamp::now();
    let zone = TimeZone::try_system().unwrap_or(TimeZone::UTC);
    let since = now.checked_sub(SignedDuration::try_from(args.since)?).context("--since")?;
    let axis = Axis::new(since, now, &zone).context("--since")?;
    let domain = args.domain.as_deref().map(visible);
    let clock = Clock(zone);
    let mut reading = Reading::new(config, &clock, since, now);
    let is_for_tenant = domain.is_some();
    let gathering = reading.gather(axis, domain.as_deref(), args.freeswitch_log.as_deref());
    let report = reading.finish(gathering);

    let host = std::fs::read_to_string(HOSTNAME).unwrap_or_default();
    let host = match host.trim() {
        "" => "this host".to_owned(),
        host => visible(host),
    };
    // To a customer, two may be the same.
    let faults: BTreeSet<String> = reading.faults.iter().map(|fault| fault.said(is_for_tenant)).collect();
    let faults = Vec::from_iter(faults);
    let page = Page {
        host: &host,
        report: &report,
        clock: &clock,
        faults: &faults,
        // They name files of the host.
        sources: if is_for_tenant { &[] } else { &reading.sources },
        knows_failures: reading.knows_failures,
        knows_decisions: reading.knows_decisions,
    };
    match &args.html {
        Some(_) if is_printed => io::stdout().lock().write_all(page.render().as_bytes())?,
        Some(path) => {
            state_file::hand_out(path, page.render().as_bytes())
                .with_context(|| format!("cannot write {}", path.display()))?;
            if !args.json {
                say(&format!("The page is in {}.", path.display()));
            }
        }
        None => {}
    }
    if args.json {
        print_json(&report, &faults)?;
    }
    reading.faults.iter().for_each(|fault| complain(&fault.what));
    Ok(if reading.faults.is_empty() { Exit::Yes } else { Exit::No })
}

/// A file may be replaced; a device, a pipe or a link may not.
fn check_target(path: &Path) -> anyhow::Result<()> {
    match path.symlink_metadata() {
        Ok(about) if !about.is_file() => {
            bail!("{} is there and no regular file; --html - prints the page", path.display())
        }
        _ => Ok(()),
    }
}

fn print_json(report: &Report, faults: &[String]) -> anyhow::Result<()> {
    let mut value = serde_json::to_value(report)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("unread".to_owned(), faults.into());
    }
    let text = serde_json::to_string_pretty(&value)? + "\n";
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}

/// What could not be read.
struct Fault {
    /// What, and what to do about it: for who keeps the host.
    what: String,
    /// The same for a customer, who is told of no file, list or tool.
    for_tenant: &'static str,
}

impl Fault {
    fn said(&self, is_for_tenant: bool) -> String {
        if is_for_tenant { self.for_tenant.to_owned() } else { self.what.clone() }
    }
}

/// Reads everything, and remembers what could not be read.
struct Reading<'a> {
    config: &'a Config,
    clock: &'a Clock,
    since: Timestamp,
    now: Timestamp,
    faults: Vec<Fault>,
    /// What was read.
    sources: Vec<String>,
    knows_failures: bool,
    knows_decisions: bool,
}

impl<'a> Reading<'a> {
    fn new(config: &'a Config, clock: &'a Clock, since: Timestamp, now: Timestamp) -> Self {
        Self {
            config,
            clock,
            since,
            now,
            faults: vec![],
            sources: vec![],
            knows_failures: false,
            knows_decisions: false,
        }
    }

    fn fault(&mut self, what: String, for_tenant: &'static str) {
        self.faults.push(Fault { what, for_tenant });
    }

    fn gather(&mut self, axis: Axis, domain: Option<&str>, freeswitch_log: Option<&Path>) -> Gathering {
        let mut gathering = Gathering::new(self.since, self.now, axis, domain);
        self.failures(&mut gathering, freeswitch_log);
        self.decisions(&mut gathering);
        self.bans(&mut gathering);
        self.lists(&mut gathering);
        if domain.is_none() {
            self.dropped(&mut gathering);
        }
        if let Some(domain) = domain.filter(|_| !self.knows_failures) {
            self.knows_decisions = false;
            self.fault(
                format!(
                    "Which addresses concern {domain}, only failed logins say: of what was blocked, at most its accounts are here."
                ),
                "Of what was blocked, at most accounts are here.",
            );
        }
        gathering
    }

    fn failures(&mut self, gathering: &mut Gathering, freeswitch_log: Option<&Path>) {
        match each_failure(self.config, freeswitch_log, self.since, |failure| gathering.failure(failure)) {
            Ok(log) => {
                self.knows_failures = true;
                self.sources.push(format!("Failed logins are from {}.", log.path.display()));
                if let Some(odd) = log.odd() {
                    self.fault(odd, "Not all failed logins could be read.");
                }
            }
            Err(error) => {
                self.fault(format!("Failed logins: {}.", causes(&error)), "Failed logins could not be read.");
            }
        }
    }

    fn decisions(&mut self, gathering: &mut Gathering) {
        let journal = self.config.log_dir.join("decisions.jsonl");
        let journal = journal.display();
        let log_dir = &self.config.log_dir;
        let read = past::since(log_dir, self.since, |past| gathering.decision(&past))
            .and_then(|odd| Ok((odd, past::begins(log_dir)?)));
        match read {
            Ok((odd, begins)) => {
                self.knows_decisions = true;
                self.sources.push(match begins {
                    None => format!("The journal {journal} has no decisions."),
                    Some(begins) if begins > self.since => format!(
                        "Decisions are from the journal {journal}, which begins at {}.",
                        self.clock.minute(begins)
                    ),
                    Some(_) => format!("Decisions are from the journal {journal}."),
                });
                if odd > 0 {
                    let lines = counted(odd, "line is", "lines are");
                    let what = format!("{lines} none of the format of {journal}, and passed over");
                    self.fault(what, "Not all decisions could be read.");
                }
            }
            Err(error) => {
                let hint = match error.kind() {
                    io::ErrorKind::PermissionDenied => "; run as root",
                    _ => "",
                };
                let what = format!("Decisions: cannot read {journal}: {error}{hint}.");
                self.fault(what, "Decisions could not be read.");
            }
        }
    }

    fn bans(&mut self, gathering: &mut Gathering) {
        let database = &self.config.fail2ban.database;
        let deadline = Deadline::after(Instant::now(), READING);
        let since = self.since.as_second();
        match fail2ban::past::since(database, since, deadline, |ban| gathering.ban(&ban)) {
            Ok(true) => self.sources.push(
                "Bans that fail2ban made with another action are from its own database, which keeps them for its dbpurgeage, a \
                 day unless it is set, and none that were lifted by hand."
                    .to_owned(),
            ),
            // What is not there says nothing, and only of a host without fail2ban is that all.
            Ok(false) => self.sources.push(format!("There is no database of fail2ban at {}.", database.display())),
            Err(error) => {
                self.fault(format!("Bans: {}.", causes(&error)), "Not all bans could be read.");
            }
        }
    }

    fn dropped(&mut self, gathering: &mut Gathering) {
        // Whoever got so far knows that this time has columns.
        let Ok(mut adding) = Adding::new(self.since, self.now, &self.clock.0) else { return };
        let mut read = || drops::since(&self.config.state_dir, self.since, |hour| adding.hour(&hour));
        match read() {
            Ok(record) => {
                if record.odd > 0 {
                    let lines = counted(record.odd, "line is", "lines are");
                    let what =
                        format!("Dropped packets: {lines} none of the record's format, and passed over.");
                    self.fault(what, "");
                }
                gathering.dropped(adding.finish(record.begun));
            }
            Err(error) => {
                let hint = match error.kind() {
                    io::ErrorKind::PermissionDenied => "; run as root",
                    io::ErrorKind::InvalidData => "; the next ringfence-firewall restore begins it anew",
                    _ => "",
                };
                let dir = self.config.state_dir.join("drops");
                self.fault(format!("Dropped packets: cannot read {}: {error}{hint}.", dir.display()), "");
            }
        }
    }

    fn lists(&mut self, gathering: &mut Gathering) {
        const FOR_TENANT: &str = "Not all lists could be read.";
        let store = match Store::peek(&self.config.state_dir) {
            Ok(store) => store,
            Err(error) => {
                self.fault(format!("Lists: {}.", causes(&error)), FOR_TENANT);
                return;
            }
        };
        for (name, list) in all_lists(self.config, &store) {
            let copy = Copy::read(&store, &name, &list).unwrap_or_else(|error| {
                self.fault(format!("List {name}: {}.", causes(&error)), FOR_TENANT);
                None
            });
            gathering.list(&name, list.kind, country(self.config, &name, &list).as_deref(), copy.as_ref());
        }
    }

    fn finish(&mut self, gathering: Gathering) -> Report {
        let end = Deadline::after(Instant::now(), PATIENCE_IN_ALL);
        let mut unknown = 0;
        let report = gathering.finish(|address| {
            let deadline = Deadline::after(Instant::now(), PATIENCE.min(end.remaining()));
            let (exemption, _) = exemption::find(self.config, address, self.now, deadline);
            unknown += u64::from(exemption.holds().is_none());
            standing(exemption)
        });
        if unknown > 0 {
            let addresses = counted(unknown, "address that fails", "addresses that fail");
            self.fault(
                format!(
                    "Nobody knows whether {addresses} may be left alone; ringfence-ignore --explain says why."
                ),
                "Of some addresses nobody knows whether they may be left alone.",
            );
        }
        report
    }
}

fn standing(exemption: Exemption) -> Option<Standing> {
    Some(match exemption {
        Exemption::Allowed { list } => Standing::Allowed { list },
        Exemption::Standing(registrations::Standing::Registered { .. }) => Standing::Registered,
        Exemption::Standing(registrations::Standing::SeenLately { .. }) => Standing::RegisteredLately,
        _ => return None,
    })
}

/// Of which country a list is: of its `country`, of its name where that is a code and the list is not written by hand, or, if others
/// keep it and a port is restricted to it, of its name as well.
fn country(config: &Config, name: &ListName, list: &List) -> Option<String> {
    let text = name.as_str();
    let is_code = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_restriction =
        || config.firewall.restrict.iter().any(|restrict| restrict.to.iter().any(|to| to == text));
    let is_countrys = match list.source {
        Source::Web { .. } => is_code || is_restriction(),
        Source::File(_) => is_code,
        Source::Apiban { .. } | Source::Entries(_) | Source::Carriers => false,
    };
    list.country.clone().or_else(|| is_countrys.then(|| text.to_owned()))
}
