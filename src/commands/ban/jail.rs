//! `ringfence-ban start`, `stop` and `flush`: what fail2ban says of a whole jail.

use std::cell::Cell;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use jiff::Timestamp;

use super::remembered::remembered;
use super::{Call, Whose, bans, complain, kernel};
use crate::bans::{Jail, Reach};
use crate::commands::{a_jail, causes, say};
use crate::deadline::Deadline;
use crate::exit::Exit;
use crate::fail2ban::Ban;
use crate::firewall::take_turn;
use crate::kernel_sets::Banned;
use crate::{address, bans as book, exemption};

/// So long it may take to find out who is exempt by now.
const PATIENCE: Duration = Duration::from_secs(2);

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
/// `ignorecommand` about each, and does not restore him; if it does, the next sync bans him.
pub(super) fn start(call: &Call, StartArgs { whose }: &StartArgs) -> anyhow::Result<Exit> {
    let now = Timestamp::now();
    let mut jail = Jail::new(&whose.jail, whose.reach()?, now.as_second());
    let exempt = exempt(call, now);
    let left_out = Cell::new(0);
    let counts = |_: &Ban, network: IpNetwork| {
        let exempt = exempt(network);
        left_out.set(left_out.get() + usize::from(exempt));
        !exempt
    };
    let _turn = take_turn(&call.config.run_dir)?;
    let mut jails = call.jails();
    let mut kernel = kernel()?;
    match remembered(call, &jail.name, counts) {
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
    if count + left_out.get() > 0 {
        let exempt = match left_out.get() {
            0 => String::new(),
            count => format!("; {} not in force, of addresses that are exempt by now", bans(count)),
        };
        let detail = format!("{}{exempt}", bans(count));
        call.record(&format!("jail {}", whose.jail), "start", "jail", &whose.jail, &detail);
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
        stopped.push(Jail::new(name, Reach::everything(), 0));
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

/// Whether an address is exempt from fail2ban now, as `ringfence-ignore` would say. Where nobody knows, it is not.
fn exempt(call: &Call, now: Timestamp) -> impl Fn(IpNetwork) -> bool {
    let config = call.whole_config().inspect_err(|error| {
        complain(&format!("who is exempt by now is not known: {}", causes(error)));
    });
    let deadline = Deadline::after(Instant::now(), PATIENCE);
    move |network| {
        let Ok(config) = &config else { return false };
        let holds = |address| exemption::find(config, address, now, deadline).0.holds();
        address::single(network).and_then(holds) == Some(true)
    }
}
