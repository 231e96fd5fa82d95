//! `ringfence-ban`: fail2ban's bans in the kernel, thousands as quickly as one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::{Parser, Subcommand};
use jiff::Timestamp;

use crate::bans::{self, Jail, Reach};
use crate::commands::{Settings, a_jail, causes, dropped, give_up, parse, pause, record, screen};
use crate::config::{Config, Mode};
use crate::evidence::Decision;
use crate::exit::Exit;
use crate::firewall::{Firewall, Version};
use crate::kernel_sets::Ipset;
use crate::state_file;

mod address;
mod jail;
mod list;
mod prepare;
mod remembered;
mod sync;

pub(super) use address::let_go;

const TOOL: &str = "ringfence-ban";

/// The names of ports.
const SERVICES: &str = "/etc/services";

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
    /// Make the jail's rule, and ban again whom fail2ban remembers: its actionstart
    ///
    /// Each is banned for what is left of his time. What the sets held before is replaced. Who has a live registration by now, or
    /// is on an allow list that exempts from fail2ban, is left out, as ringfence-ignore(1) would; where fail2ban restores his ban
    /// all the same, the next sync bans him.
    Start(jail::StartArgs),
    /// Take away the jail's rule, and let everybody go: fail2ban's actionstop
    ///
    /// The rules go first, then the sets; without --jail those of all jails.
    Stop(jail::StopArgs),
    /// Let everybody go whom the jail bans: fail2ban's actionflush
    ///
    /// The rules stay.
    Flush(jail::FlushArgs),
    /// Ban an address or a network for a time: fail2ban's actionban
    ///
    /// A network is no wider than a /8 of IPv4 or a /19 of IPv6. Who is banned already is banned for this time from now on. The
    /// rules are looked at, and put right where something is missing.
    Ban(address::BanArgs),
    /// Let it go: fail2ban's actionunban
    Unban(address::UnbanArgs),
    /// Show the jails, what their bans close, how many they ban, and how many packets were dropped
    ///
    /// These are the jails that have started; packets are counted since the rules are there.
    List(list::Args),
    /// Repair the rules and sets, and let go whom fail2ban has let go meanwhile; every minute
    ///
    /// What fail2ban remembers is renewed. fail2ban 1.0 calls no action for what it restored and lets go, before the jail has banned somebody anew, and its database
    /// has those too whom it did not restore. So it is asked, by `fail2ban-client banned`; within a minute of a jail's start,
    /// when it may still be restoring, and while it does not answer, only those are renewed who were banned already or are banned
    /// since. To be called every minute, by the timer or the cron job.
    Sync,
    /// Make the sets that saved rules name, empty, so that these can be restored: at boot, before they are
    ///
    /// Whoever saves the rules of this host (netfilter-persistent) saves those of RF-BAN too, and without their sets none of them
    /// can be restored. ringfence-sets.service calls it at boot. Nobody is banned by what was saved.
    Prepare(prepare::Args),
}

const ABOUT: &str = "Holds fail2ban's bans in the kernel, ten thousand of them as quickly as one";

const LONG_ABOUT: &str = "\
Holds fail2ban's bans in the kernel, ten thousand of them as quickly as one

fail2ban calls it, by the actions ringfence-ban and ringfence-ban-allports. Each jail has two sets,
in which every ban ends by itself, and a rule in the chain RF-BAN, which comes before all else of
Ringfence. A restart of fail2ban brings back all bans at once, from its database.";

const AFTER_HELP: &str = "Exit status: 0 done, 1 not known in part, 2 broken or wrong usage.";

const AFTER_LONG_HELP: &str = "\
Exit status:
  0  done; for ban, also where the address is never banned: fail2ban would try it again
  1  for sync, that fail2ban or its database could not be asked, and nobody was let go by it
  2  broken, or wrong usage

Which way it fails:
  If fail2ban's database cannot be read, start keeps what the kernel still bans, and says so. If the
  kernel takes no rules or sets, that is an error, and sync tries again within a minute; while
  neither fail2ban nor its database answers, sync bans nobody anew and lets nobody go. Each ban sees
  to it that its rule is there. A mistake in the settings is said; bans go on. Addresses of this
  host, its gateways and name servers, and those of login sessions are never banned, nor at a start
  who is exempt by now. Every ban ends with its own time, even if fail2ban is gone; one of more than
  24 days is renewed by sync as long as fail2ban remembers it.

Files:
  /etc/ringfence/ringfence.toml       settings; RINGFENCE_CONFIG or --config names another file
  /run/ringfence/bans.json            the jails that have started
  /etc/iptables/rules.v4, rules.v6    saved rules, for prepare
  /var/lib/fail2ban/fail2ban.sqlite3  whom fail2ban remembers; read only
  /var/log/ringfence/decisions.jsonl  who was banned, refused and let go";

/// Settings of other tools.
const UNNEEDED: [&str; 7] = ["lists", "registrations", "fusionpbx", "block", "ledger", "firewall", "events"];

/// The whole tool.
#[must_use]
pub fn main() -> ExitCode {
    let args = match parse::<Args>() {
        Ok(args) => args,
        Err(exit) => return exit.into(),
    };
    run(&args)
        .unwrap_or_else(|error| {
            let root = state_file::effective_user() == 0;
            give_up(TOOL, &if root { error } else { error.context("this needs root") })
        })
        .into()
}

fn run(args: &Args) -> anyhow::Result<Exit> {
    let file = args.settings.config.clone();
    let (config, broken) = match Config::load_without(file.as_deref(), &UNNEEDED) {
        Ok(config) => (config, None),
        // A wrong line of somebody else's must not end all bans.
        Err(error) => (Config::salvage(file.as_deref()), Some(causes(&error.into()))),
    };
    let call = Call { config, file };
    if let Some(why) = &broken {
        complain(&format!(
            "{why}; directories, mode and fail2ban's database are taken as far as they can be read"
        ));
        call.record("settings", "fail", "config-broken", "settings", why);
    }
    let (name, done) = match &args.command {
        Command::List(args) => return list::run(&call, args),
        Command::Start(args) => ("start", jail::start(&call, args)),
        Command::Stop(args) => ("stop", jail::stop(&call, args)),
        Command::Flush(args) => ("flush", jail::flush(&call, args)),
        Command::Ban(args) => ("ban", address::ban(&call, args)),
        Command::Unban(args) => ("unban", address::unban(&call, args)),
        Command::Sync => ("sync", sync::run(&call)),
        Command::Prepare(args) => ("prepare", prepare::run(args)),
    };
    // Standard error may be heard by nobody.
    done.inspect_err(|error| call.record(name, "fail", "call-failed", "call", &causes(error)))
}

/// One line on standard error.
fn complain(text: &str) {
    super::complain(TOOL, text);
}

/// So many, as people say it.
fn bans(count: usize) -> String {
    screen::counted(count, "ban", "bans")
}

/// A jail, and what its bans cut off.
#[derive(Debug, clap::Args)]
struct Whose {
    /// fail2ban's jail
    #[arg(long, value_name = "NAME", value_parser = a_jail)]
    jail: String,

    /// The ports that are closed to whom it bans, as in the jail: 5060,5080:5081 or names like https
    ///
    /// Numbers, ranges, and names of /etc/services, with commas between them; `all` or 0:65535 are all ports.
    #[arg(long, value_name = "PORTS", default_value = "0:65535")]
    port: String,

    /// The protocols: tcp, udp, tcp,udp or all
    #[arg(long, value_name = "PROTOCOLS", default_value = "all")]
    protocol: String,
}

impl Whose {
    fn reach(&self) -> anyhow::Result<Reach> {
        let parsed = Reach::parse(&self.port, &self.protocol, Path::new(SERVICES));
        parsed.map_err(|why| anyhow!("the jail {}: {why}; set its port and protocol right", self.jail))
    }
}

/// The settings: what every command needs.
struct Call {
    config: Config,
    file: Option<PathBuf>,
}

impl Call {
    /// With the settings of registrations: a mistake in them keeps nobody from being banned.
    fn whole_config(&self) -> anyhow::Result<Config> {
        let unneeded: Vec<_> = UNNEEDED.into_iter().filter(|section| *section != "registrations").collect();
        Ok(Config::load_without(self.file.as_deref(), &unneeded)?)
    }

    /// The jails that have started. What is damaged is said, and counts for none.
    fn jails(&self) -> Vec<Jail> {
        bans::read(&self.config.run_dir).unwrap_or_else(|error| {
            complain(&causes(&error));
            vec![]
        })
    }

    /// Makes the rules as these jails are, and sets that are missing; what had to be put right. A jail whose sets cannot be made is
    /// said, and has no rule: the others are not to suffer. Only who has the turn may.
    fn settle(&self, jails: &[Jail], kernel: &mut Ipset) -> anyhow::Result<Vec<String>> {
        let (mut repaired, mut enforced, mut left_out) = (vec![], vec![], vec![]);
        for jail in jails {
            match jail.banned().make(kernel) {
                Ok(made) => {
                    repaired.extend(made.then(|| format!("the sets of {}", jail.name)));
                    enforced.push(jail);
                }
                Err(error) => {
                    left_out.push(format!("the jail {} bans nobody: {}", jail.name, causes(&error)));
                }
            }
        }
        if self.config.mode == Mode::Observe {
            enforced.clear();
        }
        let pause = pause::now(&self.config);
        let mut there = Firewall::read()?;
        let why = [Version::V4, Version::V6].map(|version| bans::layout(&enforced, version).drops());
        let why = why.into_iter().flatten().collect();
        if let Some(fault) = dropped::by_rules(&self.config, &there, &why, self.config.mode) {
            complain(&fault);
        }
        if there.bring_in(pause, |version| bans::layout(&enforced, version))? {
            repaired.push("the rules".to_owned());
        }
        for line in &left_out {
            complain(line);
        }
        Ok(repaired)
    }

    /// Leaves evidence.
    fn record(&self, subject: &str, decision: &str, reason: &str, source: &str, detail: &str) {
        let decision = Decision::new(TOOL, subject, decision, reason, source)
            .in_mode(self.config.mode)
            .with_detail(detail);
        record(&self.config, &decision, Timestamp::now());
    }
}

/// The kernel's sets.
fn kernel() -> anyhow::Result<Ipset> {
    Ipset::open().context("cannot talk to the kernel's ipset")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once(TOOL).chain(line.split_whitespace()))
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn options_are_not_taken_from_addresses() {
        assert!(args("ban --jail=x --for=3600.0 -- -rf").is_ok(), "it is refused later");
        assert!(args("ban --jail=x --for=-1 --port=http,https --protocol=tcp -- 192.0.2.1").is_ok());
        for wrong in
            ["ban --jail=x -rf", "ban 192.0.2.1", "ban --jail= 1", "start", "sync 1", "unban --jail=x"]
        {
            assert!(args(wrong).is_err(), "{wrong}");
        }
    }
}
