//! `ringfence offenders`: who fails, from where, and why.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::complain;
use crate::commands::screen::{self, Columns, counted, span};
use crate::commands::{an_address, duration};
use crate::config::{Config, spelled};
use crate::deadline::Deadline;
use crate::exemption::{self, Exemption};
use crate::exit::Exit;
use crate::failures::tally::{Offender, Offense, Tally};
use crate::failures::{Failure, event_log, freeswitch_log};
use crate::registrations::Standing;
use crate::state_file;

/// Settings of other tools.
pub(super) const UNNEEDED: [&str; 6] = ["lists", "block", "ledger", "fail2ban", "firewall", "events"];

/// Whether one address is exempt is found out in this time.
const PATIENCE: Duration = Duration::from_secs(1);

/// The command line of `offenders`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Failures of this time up to now
    ///
    /// Write it like 30m or 7d.
    #[arg(long, value_name = "T", default_value = "1h", value_parser = a_time)]
    since: Duration,

    /// Only those from this address
    #[arg(long, short, value_name = "ADDRESS", value_parser = an_address)]
    address: Option<IpAddr>,

    /// Only those of this domain's accounts
    #[arg(long, short, value_name = "DOMAIN")]
    domain: Option<String>,

    /// So many addresses, those that fail most; 0: all
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
    limit: usize,

    /// Read this log of FreeSWITCH, and its rotated files, instead of that of ringfence-events
    #[arg(long, value_name = "FILE")]
    freeswitch_log: Option<PathBuf>,

    /// Print CSV, an account and address a line, by domain: for the customer
    ///
    /// What a spreadsheet would take for a formula begins with '.
    #[arg(long, conflicts_with = "json")]
    csv: bool,

    /// Print JSON, with times as of RFC 3339
    #[arg(long)]
    json: bool,
}

pub(super) fn a_time(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_secs(1)..=Duration::from_hours(24 * 366))
}

pub(super) fn run(config: &Config, args: &Args) -> anyhow::Result<Exit> {
    let now = Timestamp::now();
    let (tally, log) = read(config, args, now)?;
    let (mut offenders, forgotten) = tally.finish();
    let found = (offenders.len(), offenders.iter().map(|offender| offender.count).sum());
    if args.limit > 0 {
        offenders.truncate(args.limit);
    }
    if args.csv {
        print_csv(&offenders)?;
    } else {
        let exempt = |offender: &Offender| Entry::of(offender, config, now);
        let entries: Vec<_> = offenders.iter().map(exempt).collect();
        screen::print(args.json, &entries, || render(&entries, found, args, &log, now))?;
    }
    if forgotten > 0 {
        complain(&format!("{forgotten} more failures are of addresses that are too many to be told apart"));
    }
    Ok(Exit::Yes)
}

/// What failed, and what log says so.
fn read(config: &Config, args: &Args, now: Timestamp) -> anyhow::Result<(Tally, PathBuf)> {
    let since = now - SignedDuration::try_from(args.since).context("--since")?;
    let mut tally = Tally::default();
    let log = each_failure(config, args.freeswitch_log.as_deref(), since, |failure| {
        let of_domain = |domain: &String| failure.account.domain.eq_ignore_ascii_case(domain);
        if args.address.is_none_or(|address| failure.address == address.to_canonical())
            && args.domain.as_ref().is_none_or(of_domain)
        {
            tally.add(failure);
        }
    })?;
    if let Some(odd) = log.odd() {
        complain(&odd);
    }
    Ok((tally, log.path))
}

/// A log that says what failed.
pub(super) struct Log {
    pub(super) path: PathBuf,
    /// So many lines are none of its format.
    odd: u64,
}

impl Log {
    /// What was passed over, if anything.
    pub(super) fn odd(&self) -> Option<String> {
        let lines = counted(self.odd, "line is", "lines are");
        (self.odd > 0)
            .then(|| format!("{lines} none of the format of {}, and passed over", self.path.display()))
    }
}

/// Hands over what failed since then: as the log of `ringfence-events` says, or where there is none, or another is named, FreeSWITCH's.
pub(super) fn each_failure(
    config: &Config,
    freeswitch_log: Option<&Path>,
    since: Timestamp,
    each: impl FnMut(Failure),
) -> anyhow::Result<Log> {
    let log = freeswitch_log.map_or_else(|| config.events_path(), Path::to_owned);
    let cannot_read = |log: &Path| format!("cannot read {}", log.display());
    if freeswitch_log.is_none() && log.try_exists().with_context(|| cannot_read(&log))? {
        let odd = event_log::since(&log, since, each).with_context(|| cannot_read(&log))?;
        return Ok(Log { path: log, odd });
    }
    let usual = || freeswitch_log::USUAL.map(Path::new).into_iter().find(|path| path.exists());
    let Some(log) = freeswitch_log.or_else(usual).map(Path::to_owned) else {
        bail!(
            "there is no log to read: neither {} (ringfence-events run writes it) nor FreeSWITCH's own in {}; \
             --freeswitch-log names another",
            log.display(),
            freeswitch_log::USUAL.join(" or ")
        )
    };
    // A log that is not there would be one that says nothing.
    state_file::open_regular(&log).with_context(|| cannot_read(&log))?;
    freeswitch_log::since(&log, since, &TimeZone::system(), each).with_context(|| cannot_read(&log))?;
    Ok(Log { path: log, odd: 0 })
}

/// An address that failed, as JSON has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    address: IpAddr,
    failures: u64,
    /// Whether fail2ban must leave it alone; null where nobody knows.
    exempt: Option<bool>,
    /// Why, in a few words.
    standing: String,
    accounts: Vec<Failing>,
}

/// How one account failed from there. All those that are too many to be told apart have no names.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Failing {
    account: Option<String>,
    domain: Option<String>,
    why: Option<&'static str>,
    failures: u64,
    first: Timestamp,
    last: Timestamp,
    user_agent: Option<String>,
}

impl Entry {
    fn of(offender: &Offender, config: &Config, now: Timestamp) -> Self {
        let deadline = Deadline::after(Instant::now(), PATIENCE);
        let (exemption, _) = exemption::find(config, offender.address, now, deadline);
        Self {
            address: offender.address,
            failures: offender.count,
            exempt: exemption.holds(),
            standing: standing(&exemption),
            accounts: offender.offenses.iter().map(Failing::from).collect(),
        }
    }
}

impl From<&Offense> for Failing {
    fn from(offense: &Offense) -> Self {
        let what = offense.what.as_ref();
        let domain = what.map(|(account, _)| account.domain.clone());
        Self {
            account: what.map(|(account, _)| account.to_string()),
            domain: domain.filter(|domain| !domain.is_empty()),
            why: what.map(|(_, why)| why.words()),
            failures: offense.count,
            first: offense.first,
            last: offense.last,
            user_agent: (!offense.agent.is_empty()).then(|| offense.agent.clone()),
        }
    }
}

fn standing(exemption: &Exemption) -> String {
    match exemption {
        Exemption::Allowed { list } => format!("on list {list}"),
        Exemption::Standing(Standing::Registered { .. }) => "registered".to_owned(),
        Exemption::Standing(Standing::SeenLately { .. }) => "registered lately".to_owned(),
        Exemption::Standing(Standing::NotRegistered) => "no".to_owned(),
        Exemption::Standing(Standing::Unknown) | Exemption::AllowListUnreadable(_) => "not known".to_owned(),
    }
}

fn render(
    entries: &[Entry],
    (addresses, failures): (usize, u64),
    args: &Args,
    log: &Path,
    now: Timestamp,
) -> String {
    let of = format!("of the last {}, in {}", spelled(args.since), log.display());
    if entries.is_empty() {
        return format!("No failures {of}.\n");
    }
    let titles = ["ADDRESS", "EXEMPT", "ACCOUNT", "FAILURES", "WHY", "LAST", "USER AGENT"];
    let mut columns = Columns::new(&titles, &[3]);
    for entry in entries {
        for (at, account) in entry.accounts.iter().enumerate() {
            let first = |text: &str| if at == 0 { text.to_owned() } else { String::new() };
            let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
            columns.row([
                first(&entry.address.to_string()),
                first(&entry.standing),
                account.account.clone().unwrap_or_else(|| "(others)".to_owned()),
                account.failures.to_string(),
                or_dash(account.why),
                span(now.as_second() - account.last.as_second()) + " ago",
                or_dash(account.user_agent.as_deref()),
            ]);
        }
    }
    let mut text = columns.render();
    let failures = counted(failures, "failure", "failures");
    let sources = counted(addresses, "address", "addresses");
    let _ = write!(text, "\n{failures} from {sources} {of}.");
    let hidden = addresses - entries.len();
    if hidden > 0 {
        let hidden = counted(hidden, "of the addresses is", "of the addresses are");
        let _ = write!(text, " {hidden} not shown; --limit 0 shows all.");
    }
    text.push('\n');
    text
}

/// By domain and account, for people and their spreadsheets.
fn print_csv(offenders: &[Offender]) -> anyhow::Result<()> {
    let mut rows: Vec<_> = offenders
        .iter()
        .flat_map(|offender| {
            offender.offenses.iter().map(move |offense| (offender.address, Failing::from(offense)))
        })
        .collect();
    rows.sort_by(|(_, one), (_, other)| {
        (&one.domain, &one.account)
            .cmp(&(&other.domain, &other.account))
            .then(other.failures.cmp(&one.failures))
    });
    let mut out = csv::Writer::from_writer(vec![]);
    out.write_record(["domain", "account", "address", "why", "failures", "first", "last", "user agent"])?;
    for (address, account) in rows {
        let text = |text: Option<String>| harmless(text.unwrap_or_default());
        out.write_record([
            text(account.domain),
            text(account.account),
            address.to_string(),
            account.why.unwrap_or_default().to_owned(),
            account.failures.to_string(),
            account.first.to_string(),
            account.last.to_string(),
            text(account.user_agent),
        ])?;
    }
    Ok(io::stdout().lock().write_all(&out.into_inner()?)?)
}

/// A client's text that no spreadsheet takes for a formula.
fn harmless(text: String) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text }
}
