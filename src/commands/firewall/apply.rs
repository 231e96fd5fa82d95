//! `ringfence-firewall apply`: the rules go in, and the way back is open before.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use jiff::Timestamp;
use rustix::io::{FdFlags, fcntl_setfd};

use super::undo::{self, Undo};
use super::wanted::Wanted;
use super::{Call, complain, confirmed, session, watch};
use crate::commands::screen::span;
use crate::commands::{allow, duration, pause, tell};
use crate::config::DEFAULT_PATH;
use crate::exit::Exit;
use crate::firewall::{Firewall, take_turn};

/// The command line of `apply`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Take it back unless `confirm` comes within this time (5s to 1h)
    ///
    /// The time begins when the rules are there. A process of its own does it, whatever becomes of the session, the terminal or
    /// the caller; it is on its way before anything is changed. (Where systemd ends all processes of a session with it,
    /// `KillUserProcesses`, `restore` does it, a minute later.)
    #[arg(long, value_name = "TIME", value_parser = patience, conflicts_with = "yes")]
    confirm_within: Option<Duration>,

    /// Keep it without confirmation, also over SSH
    #[arg(long)]
    yes: bool,
}

fn patience(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_secs(5)..=Duration::from_hours(1))
}

pub(super) fn run(call: &Call, args: &Args, path: Option<&Path>) -> anyhow::Result<Exit> {
    if args.confirm_within.is_none() && !args.yes && session::is_over_ssh() {
        complain(
            "somebody is logged in over the network, and a mistake would lock him out; add --confirm-within 60s, or --yes",
        );
        return Ok(Exit::No);
    }
    let settings = confirmed::settings(path)?;
    // As restore will read them.
    let config =
        confirmed::parse(&call.config, path.unwrap_or(Path::new(DEFAULT_PATH)), settings.as_bytes())?;
    // An unknown list is an error before anything is touched.
    Wanted::new(&config, &Firewall::read()?, call.now)?;
    // Whoever is registered must be known before the first packet is looked at. A database may take its time, and others wait for the
    // turn.
    allow::sync_before_firewall(&config);
    let turn = take_turn(call.run_dir())?;
    undo::sweep(call)?;
    if let Some(undo) = Undo::read(call)? {
        complain(&format!(
            "what was applied before waits for its confirmation, for {} more; confirm it, or let it be taken back",
            span(undo.until - call.now.as_second())
        ));
        return Ok(Exit::No);
    }
    let pause = pause::now(&call.config);
    let mut there = Firewall::read()?;
    Wanted::count_confirmed(call, &there);
    let wanted = Wanted::new(&config, &there, call.now)?;
    for problem in wanted.unrestricted() {
        complain(&problem);
    }
    let within = args.confirm_within.unwrap_or_default();
    let mut undo = Undo {
        id: id(call.now),
        until: seconds_from_now(watch::AT_MOST + within),
        complete: false,
        over: false,
        settings,
        kept: undo::keep(&there),
    };
    confirmed::make_dir(call)?;
    undo.write(call)?;
    let watch = Watch::start(&undo, within, path, &turn).inspect_err(|_| {
        // Nothing is there that waits for a confirmation.
        let _ = undo.clone().take_back(call, "apply-failed");
    })?;
    let done = wanted
        .prepare_sets(call)
        .and_then(|()| there.bring_in_together(pause, |version| wanted.layout(version)));
    let changed = match done {
        Ok(changed) => changed,
        Err(error) => return Err(failed(call, undo, watch, error)),
    };
    let detail = if changed { "" } else { "they were there already" };
    call.record("rules", "apply", "by-hand", detail);
    if args.confirm_within.is_some() {
        // From now on, however long it took.
        undo.until = seconds_from_now(within);
        undo.complete = true;
        undo.write(call)?;
    } else {
        confirmed::write(call, &undo)?;
        // What stands in the settings counts.
        let _ = undo.end(call);
    }
    watch.done();
    drop(turn);
    call.settle_blocks();
    tell(&match args.confirm_within {
        Some(within) => format!(
            "Applied, for {}. Open a new session, and there: ringfence-firewall confirm",
            span(i64::try_from(within.as_secs()).unwrap_or(i64::MAX))
        ),
        None if changed => "Applied.".to_owned(),
        None => "The rules were there already.".to_owned(),
    })?;
    Ok(Exit::Yes)
}

/// Takes back what was done so far: rules and sets are those of before.
fn failed(call: &Call, undo: Undo, watch: Watch, error: anyhow::Error) -> anyhow::Error {
    match undo.take_back(call, "apply-failed") {
        Ok(()) => {
            watch.done();
            error.context("nothing was changed")
        }
        // The watch goes on with it as soon as we are gone.
        Err(undo) => error.context(format!("{undo:#}; this is tried again until it is done")),
    }
}

/// Since 1970; others may have had the turn for a while since we were called.
fn seconds_from_now(span: Duration) -> i64 {
    Timestamp::now().as_second() + i64::try_from(span.as_secs()).unwrap_or(i64::MAX / 2)
}

/// Tells two calls apart, also those of one moment.
fn id(now: Timestamp) -> u64 {
    let nanoseconds = now.as_nanosecond().unsigned_abs();
    u64::try_from(nanoseconds & u128::from(u64::MAX >> 1)).unwrap_or_default()
        ^ u64::from(std::process::id()) << 40
}

/// The process that takes back, whatever becomes of us and of our session.
struct Watch {
    child: Child,
}

impl Watch {
    /// It is on its way when this returns.
    fn start(undo: &Undo, within: Duration, path: Option<&Path>, turn: &File) -> anyhow::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        if let Some(path) = path {
            command.arg("--config").arg(std::path::absolute(path)?);
        }
        command.arg("watch").arg(undo.id.to_string()).arg(within.as_millis().to_string());
        command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // Who waits for our end must not hold our turn.
        fcntl_setfd(turn, FdFlags::CLOEXEC)?;
        let child = command.spawn();
        fcntl_setfd(turn, FdFlags::empty())?;
        let mut child = child.context("cannot start the process that takes back; nothing was changed")?;
        let mut ready = [0];
        let told = child.stdout.take().map(|mut stdout| stdout.read_exact(&mut ready));
        if !matches!(told, Some(Ok(()))) || ready != [watch::READY] {
            bail!("the process that takes back ended at its start; nothing was changed");
        }
        Ok(Self { child })
    }

    /// The change is complete: from now on only time counts. Without this word it is taken back at once.
    fn done(mut self) {
        if let Some(mut stdin) = self.child.stdin.take() {
            // One that is gone cannot take back; `restore` does it in its place.
            let _ = stdin.write_all(&[watch::DONE]);
        }
    }
}
