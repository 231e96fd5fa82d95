//! `ringfence-block`: one account is blocked, not its customer, and let go again.

use std::cell::{Cell, OnceCell};
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Parser, Subcommand};
use jiff::Timestamp;

use crate::account::{NotAnAccount, Offender};
use crate::commands::{Settings, an_address, causes, give_up, parse, record, screen};
use crate::config::Config;
use crate::config::block::MaxBlocks;
use crate::evidence::{Decision, visible_within};
use crate::exit::Exit;
use crate::ledger::{self, Block, Ledger, Look, OfJail};
use crate::matcher::{Chosen, Wanted, bpf};
use crate::state_file;

mod ban;
mod expire;
mod foresee;
mod jail;
pub(super) mod list;
mod policy;
mod restore;
mod settle;
mod unban;

const TOOL: &str = "ringfence-block";

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
    /// Block an account everywhere, or its device at one address
    ///
    /// It is blocked if nothing speaks against it: see WHEN A BLOCK IS REFUSED in ringfence-block(1). A block that is there
    /// already goes on, and ends when this one does.
    Ban(ban::Args),
    /// Let it go
    ///
    /// With --jail what this jail blocked, without it whoever blocked it. fail2ban then still has it among its bans, and does not
    /// count it again before its time, unless told by `fail2ban-client set JAIL unbanip`.
    Unban(unban::Args),
    /// Show who is blocked, where, how long still, how often the block was met, and why
    ///
    /// Also since when and by which jail, how many packets were dropped since the rule was loaded, what is not in the kernel,
    /// what matches there, and whether an alarm suspends blocks.
    List(list::Args),
    /// Let go of blocks that are over or no longer needed, and repair the kernel's rules; every minute
    ///
    /// Those are blocks whose time is over, of accounts that FusionPBX knows or that are registered by now, and of bans that
    /// fail2ban lifted without telling. Repaired are the rules, with one jump in INPUT for each protocol, in its place. To be
    /// called every minute, by the timer or the cron job; also after a boot.
    Expire,
    /// Bring the blocks of the ledger into the kernel; with a file, add its blocks first
    ///
    /// Those that are still due come in, in one transaction; those of jails that are stopped stay set aside.
    Restore(restore::Args),
    /// Take up again what was blocked when the jail stopped: fail2ban's actionstart
    ///
    /// What a jail blocked when it stopped is blocked again, if fail2ban still has it among its bans. Without --jail, all blocks
    /// are meant, those by hand too, and the suspension after an alarm ends.
    Start(jail::Args),
    /// Set aside what the jail blocked, until it starts again: fail2ban's actionstop
    Stop(jail::Args),
    /// Let go of all that the jail blocked: fail2ban's actionflush
    ///
    /// What was flushed without the jail being stopped is let go for good.
    Flush(jail::Args),
}

const ABOUT: &str = "Blocks one SIP account in the kernel, not the address it shares with others";

const LONG_ABOUT: &str = "\
Blocks one SIP account in the kernel, not the address it shares with others

A phone that was forgotten in a customer's office tries for ever to log in with an account that
does not exist. Its address must not be banned: the office is behind it. This drops its packets
alone, told by the account in their credentials, and lets it go after an hour.

    USER@DOMAIN             an account that does not exist in FusionPBX, wherever it is tried from
    USER@DOMAIN,ADDRESS     a device that fails at this address, and is not registered from there";

const AFTER_HELP: &str = "\
Exit status: 0 done, 1 refused or not found, 2 broken or wrong usage.";

const AFTER_LONG_HELP: &str = "\
Exit status:
  0  done; with --jail, also where a block was refused: fail2ban would try it again
  1  refused, or nobody was blocked by that name; for expire, that somebody could not be asked
  2  broken, or wrong usage

Which way it fails:
  If FusionPBX cannot be asked whether the account exists, it is not blocked; nor is a device
  while nobody knows whether it is registered, nor anybody for an address that is not known to be
  exempt from fail2ban. Where more than 5 such addresses cause a block within a minute, the
  trouble is not theirs: blocks are suspended for 10 minutes, and those of that minute are lifted.
  If the kernel takes no rules, nothing is half done, and the block stays in the ledger: expire
  brings it in within a minute. Where it does not take the program that matches accounts, iptables
  does, for the newest 200. Where there are more than max (100000, with iptables 200), the oldest
  makes way.
  A damaged ledger is moved aside, and a new one begun. Every block ends with its own time, even if
  fail2ban is gone.

Files:
  /etc/ringfence/ringfence.toml       settings; RINGFENCE_CONFIG or --config names another file
  /var/lib/ringfence/ledger.db        who is blocked until when, and why
  /var/log/ringfence/decisions.jsonl  who was blocked, refused and let go";

pub(in crate::commands) use foresee::{Foresight, Outcome, foresee};

/// No more of what names no account is repeated, in bytes.
const MAX_TEXT: usize = 200;

/// Settings of other tools.
const UNNEEDED: [&str; 2] = ["lists", "events"];

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
    // Threads that still wait for a database must not keep fail2ban waiting.
    std::process::exit(exit.code().into())
}

fn run(args: &Args, now: Timestamp) -> anyhow::Result<Exit> {
    let config = Config::load_without(args.settings.config.as_deref(), &UNNEEDED)?;
    let mut call = Call::new(config, now);
    if let Command::Expire | Command::Restore(_) = &args.command {
        call.look = Look::Whole;
    }
    let mut done = attempt(&call, &args.command);
    if call.look == Look::Brief && done.as_ref().is_err_and(ledger::is_damage) {
        call.look = Look::Whole;
        done = attempt(&call, &args.command);
    }
    let (Err(error), Some(name)) = (&done, args.command.called_by_others()) else { return done };
    // Standard error may be heard by nobody.
    call.record(name, "fail", "call-failed", "call", &causes(error));
    done
}

fn attempt(call: &Call, command: &Command) -> anyhow::Result<Exit> {
    match command {
        Command::Ban(args) => ban::run(call, args),
        Command::Unban(args) => unban::run(call, args),
        Command::List(args) => list::run(call, args),
        Command::Expire => expire::run(call),
        Command::Restore(args) => restore::run(call, args),
        Command::Start(args) => jail::start(call, args),
        Command::Stop(args) => jail::stop(call, args),
        Command::Flush(args) => jail::flush(call, args),
    }
}

impl Command {
    /// Its name, unless it answers to who asks.
    fn called_by_others(&self) -> Option<&'static str> {
        match self {
            Self::List(_) | Self::Restore(restore::Args { dry_run: true, .. }) => None,
            Self::Ban(_) => Some("ban"),
            Self::Unban(_) => Some("unban"),
            Self::Expire => Some("expire"),
            Self::Restore(_) => Some("restore"),
            Self::Start(_) => Some("start"),
            Self::Stop(_) => Some("stop"),
            Self::Flush(_) => Some("flush"),
        }
    }
}

/// One line on standard error.
fn complain(text: &str) {
    super::complain(TOOL, text);
}

/// The firewall's rules have changed, and with them the place where ours belong.
pub(super) fn settle_after_firewall(config: &Config, now: Timestamp) {
    let call = Call::new(config.clone(), now);
    // Without a ledger nobody was ever blocked.
    if !call.config.ledger_path().exists() {
        return;
    }
    let settled = call.ledger().and_then(|mut ledger| settle::settle(&call, &mut ledger));
    if let Err(error) = settled {
        complain(&format!("blocked accounts: {}; ringfence-block expire tries again", causes(&error)));
    }
}

/// Lets an offender go, on whoever's word he is blocked; the blocks that were there.
pub(super) fn let_go(config: &Config, offender: &Offender, now: Timestamp) -> anyhow::Result<Vec<Block>> {
    let call = Call::new(config.clone(), now);
    if !call.config.ledger_path().exists() {
        return Ok(vec![]);
    }
    let mut ledger = call.ledger()?;
    let ended = ledger.remove(std::slice::from_ref(offender), None)?;
    call.record_ends(&ended, "by-hand", "released");
    settle::settle_one(&call, &mut ledger, offender)?;
    Ok(ended)
}

/// So many, as people say it.
fn blocks(count: u64) -> String {
    screen::counted(count, "block", "blocks")
}

/// The settings, and when we were called: what every command needs.
struct Call {
    config: Config,
    now: Timestamp,
    /// At the ledger.
    look: Look,
    /// The ledger is new: the kernel may hold what it does not know.
    begun_anew: Cell<bool>,
    /// Found out when it is needed first.
    chosen: OnceCell<Chosen>,
}

impl Call {
    fn new(config: Config, now: Timestamp) -> Self {
        Self { config, now, look: Look::Brief, begun_anew: Cell::new(false), chosen: OnceCell::new() }
    }

    /// Seconds since 1970.
    fn now(&self) -> i64 {
        self.now.as_second()
    }

    /// No more blocks than this are written down.
    fn max(&self) -> u32 {
        self.config.block.max.unwrap_or(Wanted::new(&self.config).max()).get()
    }

    /// No more blocks than this are in the kernel.
    fn most_in_kernel(&self) -> u32 {
        match self.chosen() {
            Chosen::InsteadOfBpf(_) => self.max().min(MaxBlocks::STRINGS.get()),
            Chosen::Bpf | Chosen::Strings => self.max(),
        }
    }

    /// What matches packets. Whether the kernel takes the program is tried, unless it is there, or its refusal is remembered.
    fn chosen(&self) -> &Chosen {
        self.chosen.get_or_init(|| self.choose(bpf::impossible))
    }

    /// The same for who brings it in, and so tries it himself.
    fn expected(&self) -> Chosen {
        self.choose(bpf::known_impossible)
    }

    fn choose(&self, impossible: impl FnOnce(&Path) -> Option<String>) -> Chosen {
        let why = match Wanted::new(&self.config) {
            Wanted::Strings(_) => return Chosen::Strings,
            Wanted::Bpf { or_strings: false } => None,
            Wanted::Bpf { or_strings: true } => impossible(&self.config.run_dir)
                .or_else(|| bpf::no_place(&bpf::Settings::new(&self.config)).ok().flatten()),
        };
        why.map_or(Chosen::Bpf, Chosen::InsteadOfBpf)
    }

    /// The ledger. One that was damaged is moved aside, and that is said loudly.
    fn ledger(&self) -> anyhow::Result<Ledger> {
        let path = self.config.ledger_path();
        let there = path.exists();
        let opened = Ledger::open(&path, self.look, self.now)?;
        if !there || opened.lost.is_some() {
            self.begun_anew.set(true);
        }
        if let Some(lost) = opened.lost {
            let detail = format!("it was damaged ({}) and is now {}", lost.fault, lost.file.display());
            complain(&format!("the ledger is lost, and with it who was blocked: {detail}"));
            let subject = path.display().to_string();
            self.record(&subject, "begin anew", "ledger-lost", "ledger", &detail);
        }
        Ok(opened.ledger)
    }

    /// Leaves evidence.
    fn record(&self, subject: &str, decision: &str, reason: &str, source: &str, detail: &str) {
        let decision = Decision::new(TOOL, subject, decision, reason, source)
            .in_mode(self.config.block_mode())
            .with_detail(detail);
        record(&self.config, &decision, self.now);
    }

    /// Leaves evidence that blocks came to an end; of very many, in one line.
    fn record_ends(&self, ended: &[Block], reason: &str, detail: &str) {
        const MANY: usize = 100;
        if ended.len() > MANY {
            let count = blocks(ended.len() as u64);
            let detail = if detail.is_empty() { count } else { format!("{count}; {detail}") };
            self.record("blocks", "unblock", reason, "ledger", &detail);
            return;
        }
        for block in ended {
            self.record(&block.offender.to_string(), "unblock", reason, block.word(), detail);
        }
    }
}

/// An address that packets come from.
fn a_source(text: &str) -> Result<IpAddr, String> {
    an_address(text).and_then(|address| {
        if address.is_unspecified() { Err("no packet comes from there".to_owned()) } else { Ok(address) }
    })
}

/// Whom a command is about.
#[derive(Debug, clap::Args)]
struct Whom {
    /// fail2ban's jail; without it the block is one by hand
    ///
    /// What is refused, or not there, then exits with 0: fail2ban would only try it again. It counts the account as banned all
    /// the same, and so does not ask again before its time.
    #[arg(long, value_name = "NAME")]
    jail: Option<String>,

    /// The device at this address alone
    ///
    /// The same as ,ADDRESS behind the account.
    #[arg(long, value_name = "ADDRESS", value_parser = a_source)]
    source: Option<IpAddr>,

    /// The account, and with a comma the address
    ///
    /// Behind `--`, it may begin with `-`.
    #[arg(value_name = "USER@DOMAIN[,ADDRESS]")]
    id: OsString,
}

impl Whom {
    /// Who is meant, or why nobody is; an error where two addresses are named.
    fn offender(&self) -> anyhow::Result<Result<Offender, NotAnAccount>> {
        let mut offender = match Offender::parse(&self.id) {
            Ok(offender) => offender,
            Err(error) => return Ok(Err(error)),
        };
        match (offender.source, self.source) {
            (Some(one), Some(other)) if one != other => bail!("two addresses are named: {one} and {other}"),
            (_, None) => {}
            (_, source) => offender.source = source,
        }
        Ok(Ok(offender))
    }

    fn jail(&self) -> anyhow::Result<OfJail<'_>> {
        jail::checked(self.jail.as_deref())
    }

    /// What stands on the command line, for evidence and for people: its beginning, if it is long.
    fn text(&self) -> String {
        visible_within(&self.id.to_string_lossy(), MAX_TEXT)
    }
}

#[cfg(test)]
mod tests;
