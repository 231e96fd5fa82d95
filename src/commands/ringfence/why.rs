//! `ringfence why`: what blocks an address or an account, since when, until when, and what undoes it.

use std::fmt::Write as _;
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use super::look::{Pauses, look};
use super::test::Outcome;
use crate::commands::pause;
use crate::commands::screen::{self, Columns, span};
use crate::config::Config;
use crate::diagnosis::{Check, Closed, Diagnosis, Facts, Found, Said, Subject, Undo, Walk, command_line};
use crate::evidence::past::Past;
use crate::evidence::visible;
use crate::exit::Exit;
use crate::firewall::path::{End, Protocol, Verdict};
use crate::state_file;

/// The command line of `why`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An IPv4 or IPv6 address, or an account
    #[arg(value_name = "ADDRESS|USER@DOMAIN", value_parser = a_subject)]
    subject: Subject,

    /// Print JSON, with times as of RFC 3339
    #[arg(long)]
    json: bool,
}

/// Whom it is about, of a command line.
pub(super) fn a_subject(text: &str) -> Result<Subject, String> {
    text.parse().map_err(|error: crate::diagnosis::NotASubject| error.to_string())
}

pub(super) fn run(config: &Config, settings: Option<&Path>, args: &Args) -> anyhow::Result<Exit> {
    let now = Timestamp::now();
    let facts = look(config, settings, &args.subject, Pauses::Count, now);
    let diagnosis = Diagnosis::of(&facts);
    let printed = Printed::new(&facts, &diagnosis);
    screen::print(args.json, &printed, || render(&facts, &diagnosis, &printed))?;
    Ok(match diagnosis.known_blocked() {
        Some(true) => Exit::No,
        Some(false) => Exit::Yes,
        None => Exit::Broken,
    })
}

/// As JSON has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Printed<'a> {
    subject: String,
    /// Null where that is not known.
    blocked: Option<bool>,
    /// Until when nothing of Ringfence's blocks anybody.
    paused_until: Option<Timestamp>,
    /// In sentences.
    answer: Vec<String>,
    closed: &'a [Closed],
    /// What becomes of packets now; null where that cannot be asked.
    packets: Option<Vec<Packet>>,
    /// In the order in which packets meet them; at the end those that are on no packet's way, without a place.
    checks: &'a [Check],
    /// Why it is not known what becomes of packets to a port of SIP.
    doubts: &'a [String],
    registrations: Option<&'a [crate::registrations::devices::Device]>,
    blocks: Option<&'a [crate::diagnosis::Ledgered]>,
    remembered: Option<&'a [crate::fail2ban::Remembered]>,
    event_guard: Option<&'a [crate::fusionpbx::event_guard::Entry]>,
    decisions: Option<&'a [Past]>,
    undo: Vec<Command>,
    /// What could not be read.
    unread: &'a [String],
}

/// What becomes of a packet, as `ringfence test` says it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Packet {
    protocol: Protocol,
    port: u16,
    /// Whether SIP is spoken there.
    sip: bool,
    outcome: Outcome,
    /// What decides, for people.
    by: String,
}

impl From<&Walk> for Packet {
    fn from(Walk { protocol, port, sip, path, .. }: &Walk) -> Self {
        let by = match (&path.verdict, path.verdict.end()) {
            (Verdict::Unknown { why }, _) => why.clone(),
            (_, end) => end.map(End::place).unwrap_or_default(),
        };
        Self { protocol: *protocol, port: *port, sip: *sip, outcome: Outcome::of(&path.verdict), by }
    }
}

#[derive(Debug, Serialize)]
struct Command {
    what: String,
    argv: Vec<String>,
    line: String,
}

impl From<&Undo> for Command {
    fn from(undo: &Undo) -> Self {
        Self { what: undo.what.clone(), argv: undo.argv.clone(), line: undo.line() }
    }
}

fn known<T>(found: &Found<T>) -> Option<&T> {
    found.as_ref().ok()
}

impl<'a> Printed<'a> {
    fn new(facts: &'a Facts, diagnosis: &'a Diagnosis) -> Self {
        let event_guard = facts.of_address.as_ref().and_then(|of| known(&of.event_guard));
        let walks = facts.of_address.as_ref().and_then(|of| known(&of.walks));
        Self {
            subject: facts.subject.to_string(),
            blocked: diagnosis.known_blocked(),
            paused_until: facts.paused.and_then(|until| Timestamp::from_second(until).ok()),
            answer: sentences(facts, diagnosis),
            closed: &diagnosis.closed,
            packets: walks.map(|walks| walks.iter().map(Packet::from).collect()),
            checks: &diagnosis.checks,
            doubts: &diagnosis.doubts,
            registrations: known(&facts.devices).map(Vec::as_slice),
            blocks: known(&facts.ledgered).map(Vec::as_slice),
            remembered: known(&facts.remembered).and_then(Option::as_deref),
            event_guard: event_guard.and_then(Option::as_deref),
            decisions: known(&facts.decisions).map(Vec::as_slice),
            undo: diagnosis.undo().into_iter().chain(&diagnosis.loose).map(Command::from).collect(),
            unread: &diagnosis.unread,
        }
    }
}

/// The answer, one sentence for each block.
pub(super) fn sentences(facts: &Facts, diagnosis: &Diagnosis) -> Vec<String> {
    let (subject, now) = (&facts.subject, facts.now);
    let (accounts, whole): (Vec<_>, Vec<_>) =
        diagnosis.closed.iter().partition(|closed| closed.account.is_some());
    let mut sentences = vec![];
    let is_not = match diagnosis.known_blocked() {
        None => format!("It is not known whether {subject} is blocked."),
        Some(_) if whole.iter().any(|closed| closed.address.is_some()) => {
            format!("{subject} itself is not blocked.")
        }
        Some(_) => format!("{subject} is not blocked."),
    };
    for closed in whole.iter().filter(|closed| closed.address.is_none()) {
        let who = if sentences.is_empty() { format!("{subject} is") } else { "It is also".to_owned() };
        sentences.push(format!("{who} blocked by {}{}.", on(closed), times(closed, now)));
    }
    match subject {
        Subject::Address(_) => {
            if whole.is_empty() {
                sentences.push(is_not);
                sentences.extend(diagnosis.despite.iter().map(|said| format!("{}.", said.text)));
            }
            for closed in accounts {
                let account = closed.account.as_deref().unwrap_or_default();
                let account = account.rsplit_once(',').map_or(account, |(account, _)| account);
                sentences.push(format!(
                    "The account {account} of its phones is blocked by {}{}: {}.",
                    closed.said.text,
                    times(closed, now),
                    closed.why
                ));
            }
        }
        Subject::Account(_) if accounts.is_empty() => sentences.push(is_not),
        Subject::Account(_) => {
            for closed in accounts {
                let who =
                    if sentences.is_empty() { format!("{subject} is") } else { "It is also".to_owned() };
                sentences.push(format!(
                    "{who} blocked by {}{}: {}.",
                    closed.said.text,
                    times(closed, now),
                    closed.why
                ));
            }
        }
    }
    for closed in whole {
        if let Some(address) = closed.address {
            let times = times(closed, now);
            sentences.push(format!(
                "Its address {address} is blocked by {}{times}: ringfence why {address}.",
                on(closed)
            ));
        }
    }
    sentences.extend(diagnosis.doubts.iter().map(|doubt| format!("{doubt}.")));
    if let Some(until) = facts.paused {
        sentences.insert(0, pause::sentence(until, Timestamp::from_second(now).unwrap_or_default()));
    }
    if !diagnosis.unread.is_empty() {
        let root = if state_file::effective_user() == 0 { "" } else { " Most of it needs root." };
        sentences.push(format!("Not everything could be asked; what could not is below.{root}"));
    }
    sentences.iter().map(|sentence| visible(sentence)).collect()
}

fn on(closed: &Closed) -> String {
    match &closed.reach {
        None => closed.said.text.clone(),
        Some(reach) => format!("{} on {reach}", closed.said.text),
    }
}

/// Since when, and until when.
fn times(closed: &Closed, now: i64) -> String {
    let ends = match (closed.said.until, closed.ends) {
        (None, Some(ends)) => format!(", {ends}"),
        _ => String::new(),
    };
    said_times(&closed.said, now) + &ends
}

fn said_times(Said { since, until, .. }: &Said, now: i64) -> String {
    let date = |second: i64| Timestamp::from_second(second).unwrap_or_default();
    let since = since.map_or_else(String::new, |since| {
        format!(", since {} ({} ago)", date(since).strftime("%F %H:%M UTC"), span(now - since))
    });
    let until = until.map_or_else(String::new, |until| {
        format!(", until {} (for another {})", date(until).strftime("%F %H:%M UTC"), span(until - now))
    });
    since + &until
}

fn render(facts: &Facts, diagnosis: &Diagnosis, printed: &Printed<'_>) -> String {
    let now = facts.now;
    let mut text = printed.answer.join("\n") + "\n\n";
    text += &checked(diagnosis, now);
    for closed in diagnosis.closed.iter().filter(|closed| !closed.lines.is_empty()) {
        let whom = closed.account.as_ref().map_or_else(|| closed.said.text.clone(), Clone::clone);
        let _ = writeln!(text, "\nWhat led to it ({}):", visible(&whom));
        for line in &closed.lines {
            let _ = writeln!(text, "  {}", visible(line));
        }
    }
    if let Some(decisions) = known(&facts.decisions)
        && !decisions.is_empty()
    {
        text += "\nThe last decisions about it:\n";
        text += &decided(decisions, now);
    }
    text += &undoing(facts, diagnosis);
    if !diagnosis.unread.is_empty() {
        text += "\nCould not be asked:\n";
        for unread in &diagnosis.unread {
            let _ = writeln!(text, "  {}", visible(unread));
        }
    }
    text
}

/// The checks on the way of packets, in their order; then what else is known.
fn checked(diagnosis: &Diagnosis, now: i64) -> String {
    // What the answer says already is not said again, but for where it is.
    let is_news = |check: &&Check| {
        check.at.is_some() || !check.said.iter().any(|said| diagnosis.doubts.contains(&said.text))
    };
    let checks = diagnosis.checks.iter().filter(is_news);
    let (met, others): (Vec<&Check>, Vec<&Check>) = checks.partition(|check| check.at.is_some());
    if met.is_empty() {
        return table(&others, false, now);
    }
    let mut text = "What each check makes of its packets, in the order of the rules:\n".to_owned();
    text += &table(&met, true, now);
    // A check that no rule makes and that has nothing to say is only named.
    let silent =
        |check: &&&Check| check.said.is_empty() && check.verdict == crate::diagnosis::Verdict::Nothing;
    let (silent, others): (Vec<&Check>, Vec<&Check>) = others.into_iter().partition(|check| silent(&check));
    if !others.is_empty() {
        text += "\nWhat else is known:\n";
        text += &table(&others, false, now);
    }
    let known_of = |check: &str| met.iter().any(|met| met.check == check);
    let mut names: Vec<&str> =
        silent.iter().map(|check| check.check).filter(|check| !known_of(check)).collect();
    names.dedup();
    if !names.is_empty() {
        let _ = writeln!(text, "\nNothing of it is known by: {}.", names.join(", "));
    }
    text
}

fn table(checks: &[&Check], placed: bool, now: i64) -> String {
    let titles: &[&str] =
        if placed { &["AT", "CHECK", "VERDICT", "WHY"] } else { &["CHECK", "VERDICT", "WHY"] };
    let mut columns = Columns::new(titles, &[]);
    let mut before = None;
    for check in checks {
        let mut said = check.said.iter().map(|said| format!("{}{}", said.text, said_times(said, now)));
        let words = check.at.as_ref().map(|at| at.words.as_str());
        // Several checks may be one rule.
        let at = if words == before { "" } else { words.unwrap_or_default() };
        before = words;
        let row = |at: &str, check: &str, verdict: &str, why: String| {
            let first = placed.then(|| at.to_owned());
            first.into_iter().chain([check.to_owned(), verdict.to_owned(), why]).collect::<Vec<_>>()
        };
        columns.row(row(at, check.check, check.verdict.word(), said.next().unwrap_or_default()));
        for more in said {
            columns.row(row("", "", "", more));
        }
    }
    columns.render()
}

fn decided(decisions: &[Past], now: i64) -> String {
    let mut columns = Columns::new(&["WHEN", "TOOL", "DECISION", "REASON", "DETAIL"], &[]);
    for Past { when, decision, count } in decisions {
        let times = if *count > 1 { format!(" ({count} times)") } else { String::new() };
        let observed = if decision.mode == "observe" { " (observed)" } else { "" };
        let source =
            if decision.source.is_empty() { String::new() } else { format!(" ({})", decision.source) };
        columns.row([
            format!("{} ago", span(now - when.as_second())),
            decision.tool.clone(),
            format!("{}{observed}{times}", decision.decision),
            format!("{}{source}", decision.reason),
            decision.detail.clone(),
        ]);
    }
    columns.render()
}

/// The commands that undo it.
fn undoing(facts: &Facts, diagnosis: &Diagnosis) -> String {
    let undo = diagnosis.undo();
    let mut text = String::new();
    let (released, by_hand): (Vec<&Undo>, Vec<&Undo>) = undo.iter().partition(|undo| undo.is_released());
    if !undo.is_empty() {
        let mut release = vec!["ringfence".to_owned()];
        if let Some(settings) = &facts.host.settings {
            release.extend(["--config".to_owned(), settings.display().to_string()]);
        }
        release.extend(["release".to_owned(), "--".to_owned(), facts.subject.to_string()]);
        let what = if by_hand.is_empty() { "all of it" } else { "all but what is to be done by hand" };
        if released.is_empty() {
            text += "\nTo undo it by hand:\n";
        } else {
            let _ = writeln!(text, "\nTo undo {what}:\n    {}", command_line(&release));
            text += "\nOr one by one:\n";
        }
        text += &commands(&undo);
    }
    if !diagnosis.loose.is_empty() {
        text += "\nfail2ban counts new failures only after:\n";
        text += &commands(&diagnosis.loose.iter().collect::<Vec<_>>());
    }
    let mut hints: Vec<_> =
        diagnosis.closed.iter().map(|closed| &closed.hint).filter(|hint| !hint.is_empty()).collect();
    hints.dedup();
    for hint in hints {
        let _ = writeln!(text, "\nNote: {hint}.");
    }
    text
}

fn commands(undo: &[&Undo]) -> String {
    let mut text = String::new();
    for undo in undo {
        let also = undo.also.as_ref().map_or_else(String::new, |also| format!("; that frees {also}"));
        let hand = if undo.is_released() { "" } else { "by hand: " };
        let _ = writeln!(text, "    # {hand}{}\n    {}", visible(&(undo.what.clone() + &also)), undo.line());
    }
    text
}
