//! The process that takes back what was applied, unless it is confirmed in time.

use std::io::{self, Read, Write};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jiff::Timestamp;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

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

/// Between two tries to take back, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

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
    let applier = rustix::process::getppid().and_then(|parent| pidfd_open(parent, PidfdFlags::empty()).ok());
    let _ = rustix::process::nice(-10);
    let Some(undo) = Undo::read(call)?.filter(|undo| undo.id == args.id) else {
        bail!("there is nothing to be taken back");
    };
    let mut stdout = io::stdout();
    stdout.write_all(&[READY]).and_then(|()| stdout.flush()).context("nobody waits for us")?;

    let reason = match heard() {
        Heard::Done => {
            let deadline = Instant::now() + Duration::from_millis(args.within);
            loop {
                if Undo::is_over(call, args.id) {
                    return Ok(Exit::Yes);
                }
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                std::thread::sleep(PAUSE.min(left));
            }
            "not-confirmed"
        }
        Heard::End => "apply-died",
        Heard::Nothing => {
            // It hangs or was stopped, and would hold the turn for ever.
            if let Some(applier) = applier {
                let _ = pidfd_send_signal(applier, Signal::KILL);
            }
            "apply-hung"
        }
    };
    take_back(call, &undo, reason);
    Ok(Exit::No)
}

/// What whoever applies says.
enum Heard {
    /// The change is complete.
    Done,
    /// He is gone.
    End,
    /// He does not get done.
    Nothing,
}

fn heard() -> Heard {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut word = [0];
        let done = io::stdin().read_exact(&mut word).is_ok() && word == [DONE];
        // Nobody listens if time is over.
        let _ = sender.send(if done { Heard::Done } else { Heard::End });
    });
    receiver.recv_timeout(AT_MOST).unwrap_or(Heard::Nothing)
}

/// Again and again: a lock may be held, and the machine be busy.
fn take_back(call: &Call, undo: &Undo, reason: &str) {
    let mut pause = PAUSE;
    let id = undo.id;
    loop {
        let attempt = || -> anyhow::Result<()> {
            let _turn = take_turn(call.run_dir())?;
            if Undo::is_over(call, id) {
                return Ok(());
            }
            // Evidence of what happens now.
            let call = Call { config: call.config.clone(), now: Timestamp::now(), whole: call.whole };
            undo.clone().take_back(&call, reason)
        };
        if attempt().is_ok() {
            break;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    call.settle_blocks();
}
