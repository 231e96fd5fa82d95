//! `ringfence-ban start`, `stop` and `flush`: what fail2ban says of a whole jail.

use std::cell::Cell;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use jiff::Timestamp;

use super::address::OfHost;
use super::remembered::remembered;
use super::{Call, Whose, bans, complain, kernel};
use crate::bans::{Jail, Reach};
use crate::commands::{a_jail, causes, say};
use crate::config::Config;
use crate::deadline::Deadline;
use crate::exit::Exit;
use crate::fail2ban::Ban;
use crate::firewall::take_turn;
use crate::kernel_sets::Banned;
use crate::{address, bans as book, exemption};

/// So long fail2ban's database may take: fail2ban may be writing to it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The command line of `start`.
#[derive(Debug, clap::Args)]
pub(super) struct StartArgs {
    #[command(flatten)]
    whose: Whose,
}

/// The command line of `stop`.
#[derive(Debug, clap::Args)]
pub(super) struct StopArgs {
    /// fail2ban's jail; without it all jails
    #[arg(long, value_name = "NAME", value_parser = a_jail)]
    jail: Option<String>,
}

/// The command line of `flush`.
#[derive(Debug, clap::Args)]
pub(super) struct FlushArgs {
    /// fail2ban's jail
    #[arg(long, value_name = "NAME", value_parser = a_jail)]
    jail: String,
}

/// What fail2ban remembers of the jail is banned at once; then the rule comes. Who is exempt by now is left out: fail2ban asks its
/// `ignorecommand` about each, and does not restore him; if it does, a later sync bans him.
pub(super) fn start(call: &Call, StartArgs { whose }: &StartArgs) -> anyhow::Result<Exit> {
    let (name, reach) = (&whose.jail, whose.reach()?);
    let _turn = take_turn(&call.config.run_dir)?;
    let now = Timestamp::now();
    let mut jails = call.jails();
    // First into the file: what fails behind it is left to sync.
    let at = enter(&mut jails, name, reach, now);
    book::write(&call.config.run_dir, &jails)?;
    let mut kernel = kernel()?;
    let (banned, exempt) = (jails[at].banned(), Exemptions::new(call, now));
    let deadline = Deadline::after(Instant::now(), PATIENCE);
    let counts = |_: &Ban, network| !exempt.holds(network);
    match remembered(call, &jails[at], &OfHost::look(), deadline, counts) {
        Ok(entries) => {
            if entries.is_none() {
                let database = call.config.fail2ban.database.display();
                let detail = format!("{database} is not there, or does not know the jail");
                call.record(&format!("jail {name}"), "start", "nothing-remembered", name, &detail);
            }
            let entries = entries.unwrap_or_default();
            banned.replace(&mut kernel, &entries)?;
            jails[at].remembered = entries.iter().map(|(network, _)| *network).collect();
            book::write(&call.config.run_dir, &jails)?;
        }
        Err(error) => complain(&format!("{}; whom the kernel still bans stays banned", causes(&error))),
    }
    call.settle(&jails, &mut kernel)?;
    let bans = bans(jails[at].remembered.len());
    if let Some(detail) = exempt.detail(&bans) {
        call.record(&format!("jail {name}"), "start", "jail", name, &detail);
    }
    say(&format!("{bans} of the jail {name} in force again."));
    Ok(Exit::Yes)
}

/// Puts a jail that starts at `now` among the others; its place.
pub(super) fn enter(jails: &mut Vec<Jail>, name: &str, reach: Reach, now: Timestamp) -> usize {
    let mut jail = Jail::new(name, reach, now.as_second());
    let Some(at) = jails.iter().position(|other| other.name == name) else {
        jails.push(jail);
        return jails.len() - 1;
    };
    jail.remembered = std::mem::take(&mut jails[at].remembered);
    jails[at] = jail;
    at
}

/// First the rules, then the sets that they name.
pub(super) fn stop(call: &Call, args: &StopArgs) -> anyhow::Result<Exit> {
    let _turn = take_turn(&call.config.run_dir)?;
    let mut jails = call.jails();
    let stopped: Vec<Banned> = match &args.jail {
        // Also where the file was lost.
        Some(name) => {
            jails.retain(|jail| jail.name != *name);
            vec![Banned::of(name)]
        }
        None => jails.drain(..).map(|jail| jail.banned()).collect(),
    };
    book::write(&call.config.run_dir, &jails)?;
    let mut kernel = kernel()?;
    call.settle(&jails, &mut kernel)?;
    for banned in &stopped {
        banned.remove(&mut kernel)?;
    }
    Ok(Exit::Yes)
}

/// The rule stays.
pub(super) fn flush(call: &Call, args: &FlushArgs) -> anyhow::Result<Exit> {
    let _turn = take_turn(&call.config.run_dir)?;
    let (mut jails, mut kernel) = (call.jails(), kernel()?);
    let banned = Banned::of(&args.jail);
    if banned.count(&mut kernel)?.is_some() {
        banned.clear(&mut kernel)?;
    }
    if let Some(jail) = jails.iter_mut().find(|jail| jail.name == args.jail) {
        jail.remembered.clear();
        book::write(&call.config.run_dir, &jails)?;
    }
    Ok(Exit::Yes)
}

/// Who is exempt from fail2ban now, as `ringfence-ignore` would say; and of how many that was asked.
struct Exemptions {
    /// `None` where it cannot be used.
    config: Option<Config>,
    now: Timestamp,
    deadline: Deadline,
    left_out: Cell<usize>,
    unknown: Cell<usize>,
}

impl Exemptions {
    /// So long it may take in all to find out.
    const TIME: Duration = Duration::from_secs(2);

    fn new(call: &Call, now: Timestamp) -> Self {
        let config = call.whole_config().map_err(|error| {
            complain(&format!("who is exempt by now is not known: {}", causes(&error)));
        });
        let deadline = Deadline::after(Instant::now(), Self::TIME);
        Self { config: config.ok(), now, deadline, left_out: Cell::new(0), unknown: Cell::new(0) }
    }

    /// Where nobody knows, he is not.
    fn holds(&self, network: IpNetwork) -> bool {
        let (Some(config), Some(address)) = (&self.config, address::single(network)) else { return false };
        let holds = exemption::find(config, address, self.now, self.deadline).0.holds();
        let counter = if holds.is_none() { &self.unknown } else { &self.left_out };
        counter.set(counter.get() + usize::from(holds != Some(false)));
        holds == Some(true)
    }

    /// What came of it, beside the bans that are in force again; `None` where there was nothing.
    fn detail(&self, in_force: &str) -> Option<String> {
        let parts = [
            (self.left_out.get(), "not in force, of addresses that are exempt by now"),
            (self.unknown.get(), "of addresses of which nobody knows whether they are exempt"),
        ];
        let parts: Vec<_> = parts
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{} {what}", bans(count)))
            .collect();
        let nothing = parts.is_empty() && in_force == bans(0);
        (!nothing).then(|| [&[in_force.to_owned()], &parts[..]].concat().join("; "))
    }
}
