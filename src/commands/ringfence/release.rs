//! `ringfence release`: every block of an address or account is undone, everywhere.

use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use ipnetwork::IpNetwork;
use jiff::Timestamp;
use serde::Serialize;

use super::TOOL;
use super::look::{Pauses, look};
use super::why::a_subject;
use crate::commands::screen::{self, span};
use crate::commands::{a_span, allow, ban, block, causes, pause, record};
use crate::config::Config;
use crate::diagnosis::{Act, By, Closed, Diagnosis, Facts, Subject, Undo, command_line};
use crate::evidence::{Decision, visible};
use crate::exit::Exit;
use crate::firewall::{Firewall, native, take_turn};
use crate::kernel_sets::Ipset;
use crate::programs;
use crate::state_file;

/// fail2ban answers nobody while an action of its own runs.
const FAIL2BAN: Duration = Duration::from_secs(15);

/// nft answers within this time, also where it has a million elements.
const NFT: Duration = Duration::from_secs(10);

/// So long a release waits for another that goes on.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is undone may make way for what was hidden behind it; so many looks are enough for all.
const ROUNDS: usize = 3;

/// The command line of `release`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An IPv4 or IPv6 address, or an account
    #[arg(value_name = "ADDRESS|USER@DOMAIN", value_parser = a_subject)]
    subject: Subject,

    /// How long an address on a block list, or on none of the lists of a restriction, is allowed, in seconds or like 30m; at most 24d
    #[arg(long = "for", value_name = "SPAN", value_parser = a_time, default_value = "1d")]
    span: i64,

    /// Print what would be done; nothing is changed
    ///
    /// The commands are printed with it.
    #[arg(long)]
    dry_run: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn a_time(text: &str) -> Result<i64, String> {
    let span = a_span(text)?;
    if span > crate::allow::timed::LONGEST {
        return Err("longer than 24d; what is to be allowed for good belongs into [lists]".to_owned());
    }
    Ok(span)
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Outcome {
    subject: String,
    dry_run: bool,
    /// In the order in which it was done, or would be.
    done: Vec<Step>,
    /// What could not be done.
    failed: Vec<Step>,
    /// What is left, and what to do.
    left: Vec<String>,
    /// What else has to be done elsewhere.
    notes: Vec<String>,
    /// What could not be read.
    unread: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Step {
    what: String,
    /// The command that does the same.
    command: String,
    /// How often: more than once where it was blocked again meanwhile.
    times: u32,
    /// When last.
    #[serde(skip)]
    round: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(super) fn run(config: &Config, settings: Option<&Path>, args: &Args) -> anyhow::Result<Exit> {
    let mut outcome =
        Outcome { subject: args.subject.to_string(), dry_run: args.dry_run, ..Outcome::default() };
    // Two at once would each take the other's work for its own.
    let _turn = if args.dry_run { None } else { Some(one_at_a_time(&config.run_dir)?) };
    let seen = || {
        let facts = look(config, settings, &args.subject, Pauses::AreSeenThrough, Timestamp::now());
        let diagnosis = Diagnosis::of(&facts);
        (facts, diagnosis)
    };
    let (mut facts, mut diagnosis) = seen();
    for round in 0..ROUNDS {
        note_hints(&diagnosis, &mut outcome);
        let failed = |undo: &Undo| outcome.failed.iter().any(|step| step.command == undo.line());
        let all = diagnosis.undo().into_iter().chain(&diagnosis.loose);
        let steps: Vec<Undo> = all.filter(|undo| undo.is_released() && !failed(undo)).cloned().collect();
        for undo in &steps {
            do_one(config, args, undo, round, &mut outcome);
        }
        if steps.is_empty() || args.dry_run {
            break;
        }
        // What is there behind the last step counts.
        (facts, diagnosis) = seen();
    }
    note_comes_back(&mut outcome);
    if let Some(paused) = pause::words(config) {
        outcome.notes.push(format!("{paused} What is said here is what blocks afterwards"));
    }
    finish(args, &facts, &diagnosis, &mut outcome);
    if !args.dry_run {
        evidence(config, &outcome);
    }
    screen::print(args.json, &outcome, || render(&outcome))?;
    Ok(match (outcome.failed.is_empty() && outcome.left.is_empty(), outcome.unread.is_empty()) {
        (false, _) => Exit::No,
        (true, true) => Exit::Yes,
        (true, false) => Exit::Broken,
    })
}

/// A release that goes on is waited for; its turn ends with the file.
fn one_at_a_time(run_dir: &Path) -> anyhow::Result<File> {
    let path = run_dir.join("release.lock");
    let open = || {
        state_file::make_dir(run_dir, 0o755)?;
        state_file::open_own_for_update(&path, state_file::effective_user())
    };
    let file = open().with_context(|| format!("cannot open {} (this needs root)", path.display()))?;
    if !state_file::lock_within(&file, PATIENCE)? {
        bail!("another ringfence release has been at it for {} s; try again", PATIENCE.as_secs());
    }
    Ok(file)
}

/// What was blocked anew while it was let go fails on.
fn note_comes_back(outcome: &mut Outcome) {
    if outcome.done.iter().all(|step| step.times == 1) {
        return;
    }
    let (subject, whom) = match outcome.subject.parse() {
        Ok(Subject::Address(address)) => (format!("{address} was"), format!(" --address {address}")),
        _ => ("it was".to_owned(), String::new()),
    };
    outcome.notes.push(format!(
        "{subject} blocked again while it was let go, and will be as long as something there goes on failing: `ringfence \
         offenders{whom}` shows what"
    ));
}

fn note_hints(diagnosis: &Diagnosis, outcome: &mut Outcome) {
    for Closed { hint, by, .. } in &diagnosis.closed {
        if !hint.is_empty() && *by == By::EventGuard && !outcome.notes.contains(hint) {
            outcome.notes.push(hint.clone());
        }
    }
}

fn do_one(config: &Config, args: &Args, undo: &Undo, round: usize, outcome: &mut Outcome) {
    let mut undo = undo.clone();
    if undo.act == Act::Allow {
        undo.what = format!("allowed for {}, and not banned either meanwhile", span(args.span));
        if let Some(given) = undo.argv.iter_mut().skip_while(|arg| *arg != "--for").nth(1) {
            *given = args.span.to_string();
        }
    }
    let mut step = Step { what: visible(&undo.what), command: undo.line(), times: 1, round, error: None };
    if args.dry_run {
        outcome.done.push(step);
        return;
    }
    match act(config, args, &undo.act) {
        // What is there twice is undone twice in one round.
        Ok(()) => {
            let again = |done: &&mut Step| done.command == step.command && done.round < round;
            match outcome.done.iter_mut().find(again) {
                Some(done) => (done.times, done.round) = (done.times + 1, round),
                None => outcome.done.push(step),
            }
        }
        Err(error) => {
            step.error = Some(causes(&error));
            outcome.failed.push(step);
        }
    }
}

fn act(config: &Config, args: &Args, act: &Act) -> anyhow::Result<()> {
    let now = Timestamp::now();
    match act {
        Act::Unban { jail, id } => {
            let socket =
                config.fail2ban.socket.to_str().context("the path of fail2ban's socket is no text")?;
            let args = ["-s", socket, "set", jail, "unbanip", id];
            programs::run("fail2ban", "fail2ban-client", &args, "", FAIL2BAN).map(drop)
        }
        Act::TakeOut { jail, network } => ban::let_go(config, jail, *network),
        Act::Unblock(offender) => block::let_go(config, offender, now).map(drop),
        Act::Delete(banned) => {
            let _turn = take_turn(&config.run_dir)?;
            Firewall::delete_ban(banned)
        }
        Act::DeleteElement { table, set, address } => {
            let _turn = take_turn(&config.run_dir)?;
            native::delete_element(table, set, *address, NFT)
        }
        Act::DeleteRule { refusal, address } => {
            let _turn = take_turn(&config.run_dir)?;
            native::delete(refusal, *address, NFT)
        }
        Act::Forget { set, network } => {
            let _turn = take_turn(&config.run_dir)?;
            forget(set, *network)
        }
        Act::Allow => match &args.subject {
            Subject::Address(address) => allow::keep(config, *address, args.span, "released"),
            Subject::Account(_) => Ok(()),
        },
        Act::ByHand => Ok(()),
    }
}

fn forget(set: &str, network: IpNetwork) -> anyhow::Result<()> {
    let mut kernel = Ipset::open().context("cannot talk to the kernel's ipset")?;
    kernel.take_out(set, network).with_context(|| format!("cannot take it out of the set {set}"))
}

/// What is still there behind all that.
fn finish(args: &Args, facts: &Facts, diagnosis: &Diagnosis, outcome: &mut Outcome) {
    outcome.unread.clone_from(&diagnosis.unread);
    if args.dry_run {
        let by_hand = |closed: &&Closed| !closed.undo.iter().all(Undo::is_released) || closed.undo.is_empty();
        outcome.left.extend(diagnosis.closed.iter().filter(by_hand).map(left));
        return;
    }
    outcome.left.extend(diagnosis.closed.iter().map(left));
    // Nothing drops it now, but what looks after the rules would bring it in again.
    let told = |undo: &&Undo| !outcome.failed.iter().any(|step| step.command == undo.line());
    let loose = diagnosis.loose.iter().filter(|undo| undo.is_released()).filter(told);
    let loose = loose.map(|undo| {
        format!("fail2ban has it among its bans again, though nothing drops it yet; by hand: {}", undo.line())
    });
    outcome.left.extend(loose);
    if facts.held.as_ref().is_ok_and(Option::is_none)
        && let Ok(Some(remembered)) = &facts.remembered
    {
        for ban in remembered {
            let undo = ["fail2ban-client", "set", &ban.jail, "unbanip", &ban.id].map(str::to_owned);
            outcome.left.push(format!(
                "fail2ban does not run, and bans {} again when it starts; then: {}",
                ban.id,
                command_line(&undo)
            ));
        }
    }
}

fn left(closed: &Closed) -> String {
    let address = closed.address.map(|address| address.to_string());
    let of = closed.account.as_ref().or(address.as_ref()).map_or_else(String::new, |of| format!(" ({of})"));
    let reach = closed.reach.as_ref().map_or_else(String::new, |reach| format!(" on {reach}"));
    let hint = if closed.hint.is_empty() { String::new() } else { format!("; {}", closed.hint) };
    let commands = closed.undo.iter().map(|undo| {
        let also = undo.also.as_ref().map_or_else(String::new, |also| format!(", which frees {also}"));
        format!("; by hand{also}: {}", undo.line())
    });
    format!("{}{of}{reach}{hint}{}", closed.said.text, commands.collect::<String>())
}

fn evidence(config: &Config, outcome: &Outcome) {
    let (reason, steps) =
        match (outcome.done.is_empty(), outcome.failed.is_empty() && outcome.left.is_empty()) {
            (true, true) => return,
            (_, true) => ("by-hand", &outcome.done),
            (true, false) => ("release-failed", &outcome.failed),
            (false, false) => ("released-in-part", &outcome.done),
        };
    let detail: Vec<&str> = steps.iter().map(|step| step.what.as_str()).collect();
    let decision = Decision::new(TOOL, &outcome.subject, "release", reason, "administrator");
    record(config, &decision.with_detail(detail.join("; ")), Timestamp::now());
}

fn render(outcome: &Outcome) -> String {
    let Outcome { subject, dry_run, done, failed, left, notes, unread } = outcome;
    let mut text = String::new();
    let _ = match (done.is_empty() && failed.is_empty() && left.is_empty(), dry_run) {
        (true, _) if unread.is_empty() => {
            writeln!(text, "{subject} is not blocked; there is nothing to undo.")
        }
        (true, _) => writeln!(text, "{subject} is not blocked, as far as could be asked."),
        (false, true) => writeln!(text, "To release {subject}, this would be done:"),
        (false, false) if failed.is_empty() && left.is_empty() => writeln!(text, "{subject} is released:"),
        (false, false) => writeln!(text, "{subject} is released in part:"),
    };
    for step in done {
        let command = if *dry_run { format!("\n      {}", step.command) } else { String::new() };
        let times = match step.times {
            1 => String::new(),
            times => format!(" ({times} times: it was blocked again meanwhile)"),
        };
        let _ = writeln!(text, "  {}{times}{command}", step.what);
    }
    for step in failed {
        let error = step.error.as_deref().unwrap_or_default();
        let _ = writeln!(text, "  not done: {}: {}\n      {}", step.what, visible(error), step.command);
    }
    for left in left {
        let _ = writeln!(text, "  {}: {}", if *dry_run { "not touched" } else { "left" }, visible(left));
    }
    for note in notes {
        let _ = writeln!(text, "Note: {}.", visible(note));
    }
    for unread in unread {
        let _ = writeln!(text, "Could not be asked: {}", visible(unread));
    }
    text
}
