//! What the parts of this host say of an address or account, asked by `why` and `release`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::{SignedDuration, Timestamp};

use crate::account::SipAccount;
use crate::allow::timed;
use crate::bans;
use crate::commands::block::list as blocks;
use crate::commands::lists::show::{OnLists, of_address};
use crate::commands::{causes, pause};
use crate::config::{Config, Mode};
use crate::deadline::Deadline;
use crate::diagnosis::{
    Allowed, Enforces, Facts, Found, Hits, Host, InBan, InJail, InSets, Ledgered, OfAccount, OfAddress,
    Probe, Subject, Walk,
};
use crate::evidence::past::{Past, last_about};
use crate::fail2ban;
use crate::failures::tally::{Offense, Tally};
use crate::failures::{Failure, event_log};
use crate::firewall::path::{Packet, Protocol};
use crate::firewall::{Reachability, Spared, Version};
use crate::fusionpbx::accounts::{self, Existence};
use crate::fusionpbx::{event_guard, own_database};
use crate::host;
use crate::kernel_sets::{Entry, Ipset, names};
use crate::matcher::bpf::InKernel;
use crate::registrations::devices::{Device, Whose};
use crate::registrations::discovery::{self, Nothing};

/// fail2ban answers nobody while an action of its own runs.
const FAIL2BAN: Duration = Duration::from_secs(5);

/// nft answers within this time, also where it has a million elements.
const NFT: Duration = Duration::from_secs(10);

/// So many addresses of an account are looked at.
const ADDRESSES: usize = 4;

/// A database answers within this time.
const DATABASE: Duration = Duration::from_secs(3);

/// So many decisions are shown.
const DECISIONS: usize = 10;

/// Failures of so long ago count.
const FAILURES: SignedDuration = SignedDuration::from_hours(1);

/// Other services that an administrator may miss.
const USUAL: [u16; 3] = [22, 80, 443];

/// What a pause is to who looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pauses {
    /// Meanwhile nothing of ours blocks anybody.
    Count,
    /// It hides what blocks again afterwards, and is looked behind.
    AreSeenThrough,
}

/// Asks all of them. `settings` is the file that was named.
pub(super) fn look(
    config: &Config,
    settings: Option<&Path>,
    subject: &Subject,
    pauses: Pauses,
    now: Timestamp,
) -> Facts {
    let usual = Config::default();
    let host = Host {
        enforces: Enforces {
            bans: config.mode == Mode::Enforce,
            blocks: config.block_mode() == Mode::Enforce,
            rules: config.firewall_mode() == Mode::Enforce,
        },
        socket: Some(config.fail2ban.socket.clone()).filter(|socket| *socket != usual.fail2ban.socket),
        settings: settings.map(PathBuf::from),
    };
    let second = now.as_second();
    thread::scope(|scope| {
        let held = scope.spawn(|| held(config, subject));
        let remembered = scope.spawn(|| {
            let is_meant = |id: &str| subject.is_meant_by(id);
            fail2ban::remembered(&config.fail2ban.database, is_meant, second, within(DATABASE)).map_err(said)
        });
        let devices = scope.spawn(|| devices(config, subject, now));
        let of_address = match subject {
            Subject::Address(address) => Some(scope.spawn(|| self::address(config, *address, pauses, now))),
            Subject::Account(_) => None,
        };
        let of_account = match subject {
            Subject::Account(account) => Some(scope.spawn(|| self::account(config, account, now))),
            Subject::Address(_) => None,
        };
        let decisions = decisions(config, subject);
        let devices = join(devices);
        let mut of_account = of_account.map(join);
        if let Some(of) = &mut of_account {
            let whence = whence(devices.as_deref().unwrap_or_default(), of);
            let look = |address| {
                scope.spawn(move || look(config, settings, &Subject::Address(address), pauses, now))
            };
            let looks: Vec<_> = whence.into_iter().map(look).collect();
            of.addresses = looks.into_iter().map(join).collect();
        }
        let (ledgered, matched) = ledgered(config, subject, devices.as_deref().unwrap_or_default(), now);
        Facts {
            subject: subject.clone(),
            now: second,
            paused: pause::look(config).until().filter(|_| pauses == Pauses::Count),
            host,
            held: join(held),
            remembered: join(remembered),
            ledgered,
            matched,
            devices,
            decisions,
            of_address: of_address.map(join),
            of_account,
        }
    })
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn within(time: Duration) -> Deadline {
    Deadline::after(Instant::now(), time)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what an error is turned into")]
fn said(error: anyhow::Error) -> String {
    causes(&error)
}

fn held(config: &Config, subject: &Subject) -> Found<Option<BTreeMap<String, Vec<String>>>> {
    let held = fail2ban::held(&config.fail2ban.socket, FAIL2BAN)
        .context("fail2ban cannot be asked whom it bans")
        .map_err(said)?;
    let meant = |(jail, ids): (String, std::collections::BTreeSet<String>)| {
        let ids: Vec<_> = ids.into_iter().filter(|id| subject.is_meant_by(id)).collect();
        (!ids.is_empty()).then_some((jail, ids))
    };
    Ok(held.map(|held| held.into_iter().filter_map(meant).collect()))
}

fn devices(config: &Config, subject: &Subject, now: Timestamp) -> Found<Vec<Device>> {
    let whose = match subject {
        Subject::Address(address) => Whose::Address(*address),
        Subject::Account(account) => Whose::Account(account),
    };
    let found = discovery::discover(&config.registrations)
        .and_then(|found| found.source.devices(whose, now.as_second(), within(DATABASE)));
    match found {
        Ok(devices) => Ok(devices.into_iter().collect()),
        // Nobody is registered where there is no FreeSWITCH.
        Err(error) if error.is::<Nothing>() => Ok(vec![]),
        Err(error) => Err(said(error.context("the registrations cannot be read"))),
    }
}

fn decisions(config: &Config, subject: &Subject) -> Found<Vec<Past>> {
    let is_about = |other: &str| subject.is_meant_by(other);
    last_about(&config.log_dir, &subject.to_string(), is_about, DECISIONS).map_err(|error| {
        format!("{} cannot be read: {error}", config.log_dir.join("decisions.jsonl").display())
    })
}

/// The addresses that an account is registered from, and those that it failed from; not all where they are many.
fn whence(devices: &[Device], of: &OfAccount) -> Vec<IpAddr> {
    let registered = devices.iter().map(|device| device.address);
    let failing = of.failures.iter().flatten().flatten().map(|(address, _)| *address);
    let mut whence = vec![];
    for address in registered.chain(failing) {
        if !whence.contains(&address) && whence.len() < ADDRESSES {
            whence.push(address);
        }
    }
    whence
}

/// The blocks, and whether the kernel could be asked for them.
fn ledgered(
    config: &Config,
    subject: &Subject,
    devices: &[Device],
    now: Timestamp,
) -> (Found<Vec<Ledgered>>, Found<()>) {
    let (all, problem) = match blocks::all(config, now) {
        Ok(found) => found,
        Err(error) => return (Err(said(error)), Ok(())),
    };
    let registered =
        |account: &SipAccount| devices.iter().any(|device| device.account.parse() == Ok(account.clone()));
    let meant = |block: &crate::ledger::Block| match subject {
        Subject::Account(account) => block.offender.account == *account,
        Subject::Address(address) => match block.offender.source {
            Some(source) => source == *address,
            None => block.seen_from == Some(*address) || registered(&block.offender.account),
        },
    };
    let meant: Vec<_> = all.into_iter().filter(|(block, _)| meant(block)).collect();
    let problem = problem.filter(|_| !meant.is_empty());
    let matched = problem.map_or(Ok(()), |problem| {
        Err(format!("whether blocks of accounts are in the kernel is not known: {problem}"))
    });
    let hits = |hits| match hits {
        Some(Some(hits)) => Hits::Met(hits),
        Some(None) => Hits::Absent,
        None => Hits::NotKnown,
    };
    (Ok(meant.into_iter().map(|(block, met)| Ledgered { block, hits: hits(met) }).collect()), matched)
}

fn account(config: &Config, account: &SipAccount, now: Timestamp) -> OfAccount {
    let existence = || -> anyhow::Result<Option<Existence>> {
        let Some(target) = own_database(config)? else { return Ok(None) };
        let accounts = std::slice::from_ref(account);
        Ok(accounts::look_up(&target, accounts, within(DATABASE))?.into_iter().next())
    };
    let existence = existence().context("FusionPBX cannot be asked whether it knows the account");
    OfAccount {
        account: account.clone(),
        existence: existence.map_err(said),
        failures: failures(config, account, now),
        addresses: vec![],
    }
}

fn failures(config: &Config, account: &SipAccount, now: Timestamp) -> Found<Option<Vec<(IpAddr, Offense)>>> {
    let log = config.events_path();
    let read = || -> std::io::Result<Option<Vec<(IpAddr, Offense)>>> {
        if !log.try_exists()? {
            return Ok(None);
        }
        let mut tally = Tally::default();
        event_log::since(&log, now - FAILURES, |failure: Failure| {
            if failure.account.is(account) {
                tally.add(failure);
            }
        })?;
        let (offenders, _) = tally.finish();
        let each = |offender: crate::failures::tally::Offender| {
            offender.offenses.into_iter().map(move |offense| (offender.address, offense))
        };
        Ok(Some(offenders.into_iter().flat_map(each).collect()))
    };
    read().map_err(|error| format!("{} cannot be read: {error}", log.display()))
}

fn address(config: &Config, address: IpAddr, pauses: Pauses, now: Timestamp) -> OfAddress {
    let rules = Reachability::read(address, now, NFT).map_err(|error| causes(&error));
    let mut rules = rules.map(|rules| match pauses {
        Pauses::Count => rules,
        Pauses::AreSeenThrough => rules.without_pause(),
    });
    let (jails, in_jails) = jails(config, address);
    let in_bans = match &rules {
        Ok(rules) => in_bans(rules, address).map_err(said),
        Err(error) => Err(error.clone()),
    };
    let refusals = match &rules {
        Ok(rules) => {
            rules.refusals().map_err(|error| format!("tables of nftables' own are not looked at: {error}"))
        }
        Err(error) => Err(error.clone()),
    };
    let unasked = rules.as_ref().map(|rules| rules.problems().to_vec()).unwrap_or_default();
    let places = rules.as_ref().map(Reachability::places).unwrap_or_default();
    let walks = match &mut rules {
        Ok(rules) => {
            let of_jails = in_jails.iter().flatten().map(|jail| jail.probe);
            let of_bans = in_bans.iter().flatten().map(|ban| ban.probe);
            let of_tables = refusals.iter().flatten().map(Probe::from);
            Ok(walks(config, rules, address, of_jails.chain(of_bans).chain(of_tables)))
        }
        Err(error) => Err(error.clone()),
    };
    let (listed, mut allowed, damaged) = match of_address(config, address, now) {
        Ok(OnLists { block, allow, because, damaged }) => (Ok((block, because)), Ok(allow), damaged),
        Err(error) => (Err(causes(&error)), Err(causes(&error)), vec![]),
    };
    match timed::read(&config.state_dir, now.as_second()) {
        Ok(entries) => {
            let entries = entries.into_iter().filter(|entry| entry.address == address);
            let entries = entries.map(|entry| Allowed {
                by: format!("{}, {}", timed::NAME, entry.word()),
                range: entry.address.to_string(),
                until: Some(entry.end()),
                because: entry.because,
            });
            if let Ok(allowed) = &mut allowed {
                allowed.extend(entries);
            }
        }
        Err(error) => allowed = Err(said(error)),
    }
    let event_guard = || -> anyhow::Result<Option<Vec<event_guard::Entry>>> {
        let Some(target) = own_database(config)? else { return Ok(None) };
        event_guard::look_up(&target, address, within(DATABASE)).map(Some)
    };
    let event_guard = event_guard().context("FusionPBX cannot be asked for event_guard's log");
    OfAddress {
        address,
        in_jails,
        jails,
        in_bans,
        event_guard: event_guard.map_err(said),
        allowed,
        listed,
        damaged,
        in_sets: in_sets(address).map_err(said),
        refusals,
        program: matches!(InKernel::open(), Ok(Some(_))),
        unasked,
        places,
        walks,
    }
}

/// The first port on which SIP is spoken.
fn sip(config: &Config) -> u16 {
    config.firewall.sip_ports.ranges().next().map_or(5060, |range| range.first())
}

/// The jails that ban by `ringfence-ban`, and those that the address is in.
fn jails(config: &Config, address: IpAddr) -> (Vec<String>, Found<Vec<InJail>>) {
    let jails = match bans::read(&config.run_dir) {
        Ok(jails) => jails,
        Err(error) => return (vec![], Err(said(error))),
    };
    let names = jails.iter().flat_map(bans::Jail::names).map(str::to_owned).collect();
    let found = || -> anyhow::Result<Vec<InJail>> {
        let mut kernel = kernel()?;
        let mut found = vec![];
        for jail in &jails {
            let set = jail.banned().name(Version::of(address).family()).to_owned();
            if let Some(entry) = find(&mut kernel, &set, address)? {
                let (protocol, port) = jail.reach.example();
                let protocol = protocol.map(|name| if name == "tcp" { Protocol::Tcp } else { Protocol::Udp });
                found.push(InJail {
                    jail: jail.name.clone(),
                    set,
                    entry,
                    reach: Some(jail.reach.to_string()),
                    probe: Probe { protocol, port },
                });
            }
        }
        Ok(found)
    };
    (names, found().map_err(said))
}

fn in_bans(rules: &Reachability, address: IpAddr) -> anyhow::Result<Vec<InBan>> {
    let mut kernel = kernel()?;
    let mut found = vec![];
    for rule in rules.bans() {
        let entry = match &rule.set {
            Some(set) => match find(&mut kernel, set, address)? {
                None => continue,
                entry => entry,
            },
            None => None,
        };
        let probe = Probe { protocol: rule.protocol, port: rule.port };
        found.push(InBan { rule, entry, probe });
    }
    Ok(found)
}

fn in_sets(address: IpAddr) -> anyhow::Result<InSets> {
    let mut kernel = kernel()?;
    let names = names(Version::of(address).family());
    let mut either = |[addresses, networks]: [&str; 2]| -> anyhow::Result<Option<Entry>> {
        let found = find(&mut kernel, addresses, address)?;
        if found.is_some() { Ok(found) } else { find(&mut kernel, networks, address) }
    };
    let (allow, block) = (either(names.allow_lists)?, either(names.block_lists)?);
    let seen = find(&mut kernel, names.seen, address)?;
    let slamming = find(&mut kernel, names.slamming, address)?;
    Ok(InSets { allow, block, seen, slamming: slamming.map(|entry| (names.slamming.to_owned(), entry)) })
}

/// What becomes of its packets, to ports of SIP, of bans and of other services.
fn walks(
    config: &Config,
    rules: &mut Reachability,
    address: IpAddr,
    closed: impl Iterator<Item = Probe>,
) -> Vec<Walk> {
    let mut probes: Vec<(Protocol, u16, bool)> = vec![];
    let listening = host::listening().unwrap_or_default();
    let ports = sip_ports(config, listening.iter().filter(|at| reaches(at, address)).map(SocketAddr::port));
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        probes.extend(ports.iter().map(|port| (protocol, *port, true)));
    }
    let usual = USUAL.map(|port| (Protocol::Tcp, port));
    let of_either = closed.map(|Probe { protocol, port }| {
        (protocol.unwrap_or(Protocol::Udp), port.unwrap_or_else(|| sip(config)))
    });
    for (protocol, port) in of_either.chain(usual) {
        if !probes.iter().any(|(other, same, _)| (*other, *same) == (protocol, port)) {
            probes.push((protocol, port, false));
        }
    }
    let mut walk = |(protocol, port, sip): (Protocol, u16, bool)| {
        let packet = match protocol {
            Protocol::Udp if sip => Packet::register(address, protocol, port, None),
            Protocol::Udp => Packet::udp(address, port, []),
            Protocol::Tcp => Packet::syn(address, port),
        };
        let mut path = |spared| rules.path_sparing(&packet, spared);
        Walk {
            protocol,
            port,
            sip,
            path: path(Spared::Nothing),
            listed: path(Spared::BansAndLimits),
            limited: path(Spared::BansAndLists),
            rest: path(Spared::AllOfThese),
        }
    };
    probes.into_iter().map(&mut walk).collect()
}

/// Whether packets of an address may come to this end.
pub(super) fn reaches(at: &SocketAddr, address: IpAddr) -> bool {
    !at.ip().is_loopback() && (at.is_ipv4() == address.is_ipv4() || at.ip().is_unspecified())
}

/// The ports on which SIP is spoken: the first of each range, and those of the ranges that something listens on.
pub(super) fn sip_ports(config: &Config, listening: impl Iterator<Item = u16>) -> BTreeSet<u16> {
    let ports = &config.firewall.sip_ports;
    let first = ports.ranges().map(|range| range.first());
    first.chain(listening.filter(|port| ports.has(*port))).collect()
}

fn kernel() -> anyhow::Result<Ipset> {
    Ipset::open().context("cannot talk to the kernel's ipset")
}

fn find(kernel: &mut Ipset, set: &str, address: IpAddr) -> anyhow::Result<Option<Entry>> {
    kernel.find(set, address).with_context(|| format!("cannot look into the set {set}"))
}
