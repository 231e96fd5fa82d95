//! The process that takes back what was applied, unless it is confirmed in time.

use std::io::{self, Read, Write};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jiff::Timestamp;

use super::Call;
use super::undo::Undo;
use crate::exit::Exit;
use crate::firewall::take_turn;

/// It says that it is on its way, and hears that the change is complete.
pub(super) const READY: u8 = b'r';
pub(super) const DONE: u8 = b'd';

/// How often it looks whether somebody confirmed.
const PAUSE: Duration = Duration::from_millis(200);

/// Longer than a change takes; one that hangs is taken back.
pub(super) const AT_MOST: Duration = Duration::from_mins(1);

/// So long it tries to take back.
const PERSISTENCE: Duration = Duration::from_mins(10);

/// The command line of `watch`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What was applied
    id: u64,
    /// In milliseconds
    within: u64,
}

pub(super) fn run(call: &Call, args: &Args) -> anyhow::Result<Exit> {
    // Whoever ends the session does not end us, and on a busy host we are not the last.
    rustix::process::setsid().context("cannot leave the session")?;
    let _ = rustix::process::nice(-10);
    let Some(undo) = Undo::read(call)?.filter(|undo| undo.id == args.id) else {
        bail!("there is nothing to be taken back");
    };
    let mut stdout = io::stdout();
    stdout.write_all(&[READY]).and_then(|()| stdout.flush()).context("nobody waits for us")?;

    let reason = if is_complete() {
        let deadline = Instant::now() + Duration::from_millis(args.within);
        while Instant::now() < deadline {
            if Undo::is_over(call, args.id) {
                return Ok(Exit::Yes);
            }
            std::thread::sleep(PAUSE.min(deadline.saturating_duration_since(Instant::now())));
        }
        "not-confirmed"
    } else {
        "apply-died"
    };
    take_back(call, &undo, reason)
}

/// Whether whoever applies says that it is done; false if he is gone, or does not get done.
fn is_complete() -> bool {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut word = [0];
        let done = io::stdin().read_exact(&mut word).is_ok() && word == [DONE];
        // Nobody listens if time is over.
        let _ = sender.send(done);
    });
    receiver.recv_timeout(AT_MOST).unwrap_or(false)
}

/// Again and again: a lock may be held, and the machine be busy.
fn take_back(call: &Call, undo: &Undo, reason: &str) -> anyhow::Result<Exit> {
    let end = Instant::now() + PERSISTENCE;
    let id = undo.id;
    loop {
        let attempt = || -> anyhow::Result<()> {
            let _turn = take_turn(call.run_dir())?;
            if Undo::is_over(call, id) {
                return Ok(());
            }
            // Evidence of what happens now.
            let call = Call { config: call.config.clone(), now: Timestamp::now() };
            undo.clone().take_back(&call, reason)
        };
        match attempt() {
            Ok(()) => break,
            Err(error) if Instant::now() >= end => return Err(error),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
    crate::commands::block::settle_after_firewall(&call.config, call.now);
    Ok(Exit::No)
}
