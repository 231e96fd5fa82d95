//! `ringfence-firewall`: the base rules and their order, and the way back.

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use jiff::Timestamp;
use serde::Serialize;

use crate::commands::{Settings, block, causes, give_up, parse, record};
use crate::config::Config;
use crate::evidence::Decision;
use crate::exit::Exit;
use crate::state_file;
use crate::times::rfc3339_if;

mod apply;
mod confirm;
pub(super) mod confirmed;
mod plan;
mod probe;
mod remove;
mod restore;
mod session;
mod undo;
pub(super) mod verify;
mod wanted;
mod watch;
mod words;

pub(in crate::commands) use words::words;

const TOOL: &str = "ringfence-firewall";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = TOOL,
    version,
    max_term_width = 100,
    about = ABOUT,
    long_about = LONG_ABOUT,
    after_help = AFTER_HELP,
    after_long_help = AFTER_LONG_HELP
)]
pub struct Args {
    #[command(flatten)]
    settings: Settings,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what will be there, what differs from what is there, and what is odd on this host
    ///
    /// It is shown in order, with the packets that each rule met so far. Odd are bans below a rule that accepts, doubled jumps,
    /// IPv6 open while IPv4 is closed, two kinds of iptables in use at once, other programs that flush rules, addresses that are
    /// banned though they are allowed. Nothing is changed.
    Plan(plan::Args),
    /// Bring the rules in; with --confirm-within they take themselves back unless confirmed
    ///
    /// IPv4 and IPv6 get them together, or neither. Over SSH, one of the options is required.
    Apply(apply::Args),
    /// Keep what was applied; from a new session, which shows that the rules let you in
    ///
    /// A session that is open already proves nothing. It is refused if the rules are not there any more as they were applied.
    Confirm,
    /// Take away all rules of ours, and forget what was confirmed
    ///
    /// The sets that nothing else needs go, too. Bans and your rules stay.
    Remove,
    /// Put back what was confirmed last, if another program flushed it; at boot and every minute
    ///
    /// It goes by the settings as they were then, and also puts back what was moved. What was not confirmed in time is taken
    /// back, if the process that should have is gone. To be called every minute and at boot, by the timer or the cron job.
    Restore,
    /// Prove that what was confirmed is there, and in its order; with --probe, that it works
    ///
    /// Its sets are looked at, too. The rule of a pause (see ringfence(1)) is no fault.
    Verify(verify::Args),
    /// Wait for the confirmation, or take back
    #[command(hide = true)]
    Watch(watch::Args),
    /// Be one end of what `verify --probe` tries
    #[command(hide = true)]
    Probe(probe::Args),
}

const ABOUT: &str = "The order of checks in the kernel, with a way back";

const LONG_ABOUT: &str = "\
The order of checks in the kernel, with a way back

Behind fail2ban's bans, in this order: impossible TCP flags; blocked accounts; who is allowed, or
was seen registered, goes on to the host's own rules; who is on a block list is dropped; limits on
REGISTER, INVITE and OPTIONS, where whoever exceeds one stays blocked as long as he goes on;
ports that are for countries, carriers or other lists only. What is established and not SIP passes
first of all. All of it is in chains of its own, with one jump in INPUT; your rules stay as they are.";

const AFTER_HELP: &str = "\
Exit status: 0 done, 1 refused, taken back or not as it should be, 2 broken or wrong usage.";

const AFTER_LONG_HELP: &str = "\
The first time:
  ringfence-firewall plan                        what would be there, and what is odd on this host
  ringfence-firewall apply --confirm-within 60s  it is there, for a minute
  ringfence-firewall confirm                     from a new session: it stays

Exit status:
  0  done
  1  refused (something waits for its confirmation, or nothing does), or not as it should be
  2  broken, or wrong usage

Which way it fails:
  IPv4 and IPv6 get the new rules both, or both keep the old ones. Before anything is changed, a
  process of its own has been started that takes back what is not confirmed in time; it does so
  at once if the change is killed half-way. It takes away only what is ours, so bans that were
  made meanwhile stay. A list of restrict that is empty or missing opens its ports to all, and
  that is said: it never closes them to all. A list or country that is not in the settings is an
  error before anything is touched.

Files:
  /etc/ringfence/ringfence.toml          settings; RINGFENCE_CONFIG or --config names another file
  /var/lib/ringfence/firewall/           the settings as they were confirmed
  /run/ringfence/firewall.undo           what waits for its confirmation
  /var/log/ringfence/decisions.jsonl     what was applied, taken back and repaired";

/// The whole tool.
#[must_use]
pub fn main() -> ExitCode {
    let args = match parse::<Args>() {
        Ok(args) => args,
        Err(exit) => return exit.into(),
    };
    let exit = run(&args, Timestamp::now()).unwrap_or_else(|error| {
        let root = state_file::effective_user() == 0;
        give_up(TOOL, &if root { error } else { error.context("this needs root") })
    });
    exit.into()
}

fn run(args: &Args, now: Timestamp) -> anyhow::Result<Exit> {
    let path = args.settings.config.as_deref();
    let call = match (&args.command, Config::load(path)) {
        (_, Ok(config)) => Call { config, now, whole: true },
        // What was confirmed, and what must be taken back, does not depend on what stands in the settings by now.
        (Command::Plan(_) | Command::Apply(_), Err(error)) => return Err(error.into()),
        (_, Err(error)) if path.is_some_and(|path| !path.exists()) => return Err(error.into()),
        (_, Err(error)) => {
            complain(&format!("{error}; going on without the rest of it"));
            Call { config: Config::salvage(path), now, whole: false }
        }
    };
    let (name, done) = match &args.command {
        Command::Plan(args) => return plan::run(&call, args),
        Command::Verify(args) => return verify::run(&call, args),
        Command::Apply(args) => ("apply", apply::run(&call, args, path)),
        Command::Confirm => ("confirm", confirm::run(&call)),
        Command::Remove => ("remove", remove::run(&call)),
        Command::Restore => ("restore", restore::run(&call)),
        Command::Watch(args) => ("watch", watch::run(&call, args)),
        Command::Probe(args) => return probe::run(args),
    };
    done.inspect_err(|error| call.record(name, "fail", "call-failed", &causes(error)))
}

/// The rules as a whole, for `ringfence status`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Overview {
    /// Seconds since 1970: they are taken back then, unless they are confirmed before.
    #[serde(serialize_with = "rfc3339_if")]
    pub(super) waits_until: Option<i64>,
    /// As `ringfence-firewall verify` has them.
    pub(super) checks: Vec<verify::Check>,
}

/// `None` where nothing was applied.
pub(super) fn overview(config: &Config, now: Timestamp) -> anyhow::Result<Option<Overview>> {
    let call = Call { config: config.clone(), now, whole: false };
    let waits_until = undo::Undo::read(&call)?.map(|undo| undo.until);
    Ok(verify::checks(&call, false)?.map(|checks| Overview { waits_until, checks }))
}

/// One line on standard error.
fn complain(text: &str) {
    super::complain(TOOL, text);
}

/// The settings, and when we were called: what every command needs.
struct Call {
    config: Config,
    now: Timestamp,
    /// The settings could be read; else they are at their defaults, but for directories.
    whole: bool,
}

impl Call {
    fn run_dir(&self) -> &Path {
        &self.config.run_dir
    }

    /// The place of the jump to blocked accounts may have changed. By settings that cannot be read, other accounts might be blocked:
    /// `ringfence-block expire` does it then.
    fn settle_blocks(&self) {
        if self.whole {
            block::settle_after_firewall(&self.config, self.now);
        }
    }

    /// Leaves evidence about the rules as a whole.
    fn record(&self, subject: &str, decision: &str, reason: &str, detail: &str) {
        let decision = Decision::new(TOOL, subject, decision, reason, "firewall")
            .in_mode(self.config.firewall_mode())
            .with_detail(detail);
        record(&self.config, &decision, self.now);
    }
}
