//! `ringfence-ban start`, `stop` and `flush`: what fail2ban says of a whole jail.

use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use jiff::Timestamp;

use super::address::{network, seconds};
use super::{Call, Whose, a_jail, bans, complain, kernel};
use crate::bans::{Jail, Reach};
use crate::commands::{causes, say};
use crate::deadline::Deadline;
use crate::exit::Exit;
use crate::feeds::guard;
use crate::firewall::take_turn;
use crate::kernel_sets::Banned;
use crate::{bans as book, fail2ban, host};

/// So long fail2ban's database may take: it may be writing to it.
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

/// What fail2ban remembers of the jail is banned at once; then the rule comes.
pub(super) fn start(call: &Call, StartArgs { whose }: &StartArgs) -> anyhow::Result<Exit> {
    let mut jail = Jail::new(&whose.jail, whose.reach()?);
    let _turn = take_turn(&call.config.run_dir)?;
    let mut jails = call.jails();
    let mut kernel = kernel()?;
    match remembered(call, &jail.name) {
        Ok(entries) => {
            let entries = entries.unwrap_or_default();
            jail.banned().replace(&mut kernel, &entries)?;
            jail.remembered = entries.iter().map(|(network, _)| *network).collect();
        }
        Err(error) => {
            complain(&format!("{}; whom the kernel still bans stays banned", causes(&error)));
            jail.banned().make(&mut kernel)?;
            let before = jails.iter().find(|other| other.name == jail.name);
            jail.remembered = before.map(|before| before.remembered.clone()).unwrap_or_default();
        }
    }
    let count = jail.remembered.len();
    match jails.iter_mut().find(|other| other.name == jail.name) {
        Some(other) => *other = jail,
        None => jails.push(jail),
    }
    book::write(&call.config.run_dir, &jails)?;
    call.settle(&jails, &mut kernel)?;
    if count > 0 {
        call.record(&format!("jail {}", whose.jail), "start", "jail", &whose.jail, &bans(count));
    }
    say(&format!("{} of the jail {} in force again.", bans(count), whose.jail));
    Ok(Exit::Yes)
}

/// First the rules, then the sets that they name.
pub(super) fn stop(call: &Call, args: &StopArgs) -> anyhow::Result<Exit> {
    let _turn = take_turn(&call.config.run_dir)?;
    let mut jails = call.jails();
    let stops = |jail: &Jail| args.jail.as_ref().is_none_or(|name| jail.name == *name);
    let mut stopped: Vec<Jail> = jails.extract_if(.., |jail| stops(jail)).collect();
    // Also where the file was lost.
    if let Some(name) = &args.jail
        && stopped.is_empty()
    {
        stopped.push(Jail::new(name, Reach::everything()));
    }
    book::write(&call.config.run_dir, &jails)?;
    let mut kernel = kernel()?;
    call.settle(&jails, &mut kernel)?;
    for jail in &stopped {
        jail.banned().remove(&mut kernel)?;
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

/// Whom fail2ban remembers to be banned by a jail, and for how many seconds still, with none for ever: without those that are never
/// banned. `None` where fail2ban has no database, or does not know the jail.
pub(super) fn remembered(call: &Call, jail: &str) -> anyhow::Result<Option<Vec<(IpNetwork, u32)>>> {
    let (database, deadline) = (&call.config.fail2ban.database, Deadline::after(Instant::now(), PATIENCE));
    let Some(bans) = fail2ban::bans(database, jail, deadline)? else {
        return Ok(None);
    };
    let now = Timestamp::now().as_second();
    let protected = guard::of_host(&host::protected(&host::Paths::default()));
    let entry = |ban: &fail2ban::Ban| {
        let (network, left) = (network(ban.id.as_ref())?, ban.left(now));
        let harmless = guard::cut(&std::iter::once(network).collect(), &protected).1.is_empty();
        (left > 0 && harmless).then(|| (network, seconds(left)))
    };
    Ok(Some(bans.iter().filter_map(entry).collect()))
}
