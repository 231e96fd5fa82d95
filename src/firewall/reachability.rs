//! What the host's real rules do with packets of one address: all tables that packets for this host go through, in the order of the
//! kernel, whoever made them.
//!
//! Looked at are the tables of iptables, nft and legacy, and those of nftables' own. Programs on an interface, which come before all of
//! them, are not.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;

use super::banned::{bans_in, without_bans};
use super::iptables::{Other, Program, read_others};
use super::native::{self, Native, Refusal};
use super::nft::NftTable;
use super::path::{
    End, FILTER, Member, Packet, Path, Point, Sets, Side, Step, Verdict, through_saved, unknown,
};
use super::saved::{Saved, SavedRule};
use super::{Banned, Firewall, Table, Variant, Version};
use crate::host;
use crate::kernel_sets::{Role, names};

/// The built-in chains that packets for this host go through, and their priorities (`linux/netfilter_ipv4.h`).
const BUILT_IN: [(&str, &str, Point, i64); 6] = [
    ("raw", "PREROUTING", Point::Prerouting, -300),
    ("mangle", "PREROUTING", Point::Prerouting, -150),
    ("nat", "PREROUTING", Point::Prerouting, -100),
    ("mangle", "INPUT", Point::Input, -150),
    (FILTER, "INPUT", Point::Input, 0),
    ("security", "INPUT", Point::Input, 50),
];

/// The tables beside `filter`.
const OTHERS: [&str; 4] = ["raw", "mangle", "nat", "security"];

/// From here on the first packet of a connection is known to be one.
const TRACKING: i64 = -200;

/// From what the address is taken to be spared, to see what is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spared {
    /// Nothing: all is as it is.
    Nothing,
    /// Bans, blocked accounts and limits: what lists make of it.
    BansAndLimits,
    /// Bans, blocked accounts and lists: what limits make of it.
    BansAndLists,
    /// All these: restrictions, and the host's own rules.
    AllOfThese,
}

/// Where a rule stands on the way of packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The rule; whether it matches is not asked.
    pub step: Step,
    /// The chain where packets come by.
    pub from: String,
    /// The number of the rule in that chain that leads here, from 1.
    pub number: usize,
}

/// All rules that packets of one address to this host meet, as they were read.
#[derive(Debug)]
pub struct Reachability {
    address: IpAddr,
    firewall: Firewall,
    /// What would be there if nobody were banned.
    without_bans: Firewall,
    others: Vec<Other>,
    /// The same of these.
    others_without_bans: Vec<Other>,
    native: Result<Native, String>,
    sets: Option<Sets>,
    destination: Option<IpAddr>,
    interface: Option<String>,
    now: Timestamp,
    problems: Vec<String>,
}

/// A chain where packets come by.
enum Chain<'a> {
    Saved {
        program: &'a Program,
        table: &'static str,
        name: &'static str,
        saved: &'a Saved,
    },
    Native(&'a native::Chain),
    /// It could not be read; what that is, and why.
    Unread(String),
}

impl Reachability {
    /// Reads them. An error means that not even the table `filter` can be read; what else cannot be, the packets that it may concern
    /// know of, and [`Reachability::problems`]. No program runs longer than `time`.
    pub fn read(address: IpAddr, now: Timestamp, time: Duration) -> anyhow::Result<Self> {
        let address = address.to_canonical();
        let firewall = Firewall::read()?;
        let version = Version::of(address);
        let mut problems = vec![];
        let mut note = |what: &str, error: &anyhow::Error| {
            problems.push(format!("{what}: {error:#}"));
        };
        let others = read_others(version, &OTHERS).unwrap_or_else(|error| {
            note("tables beside `filter` are not looked at", &error);
            vec![]
        });
        for Other { program, name, saved } in &others {
            if let Err(error) = saved {
                note(&format!("the table {name} of {} is not looked at", program.name()), error);
            }
        }
        let filters = firewall.tables.iter().map(|Table { program, saved }| (program, FILTER, saved));
        let read = others
            .iter()
            .filter_map(|Other { program, name, saved }| Some((program, *name, saved.as_ref().ok()?)));
        // What iptables cannot print is nftables' own, whatever it is called.
        let printed: Vec<(Version, &str)> = filters
            .chain(read)
            .filter(|(program, _, saved)| program.variant == Variant::Nft && !saved.is_part)
            .map(|(program, name, _)| (program.version, name))
            .collect();
        let other_version = if version == Version::V4 { Version::V6 } else { Version::V4 };
        let is_known = |table: &NftTable| {
            printed.iter().any(|(version, name)| table.is_of(*version, name))
                || table.is_of(other_version, &table.name)
        };
        let native = Native::read(address, &is_known, time).map_err(|error| {
            note("tables of nftables' own are not looked at", &error);
            format!("{error:#}")
        });
        let sets = Sets::open().map_err(|error| note("sets are not looked at", &error)).ok();
        let own = host::addresses().unwrap_or_else(|error| {
            note("the host's addresses are not known", &error);
            vec![]
        });
        let same = |other: &&IpAddr| {
            let link = matches!(other, IpAddr::V6(other) if other.is_unicast_link_local());
            other.is_ipv4() == address.is_ipv4() && !other.is_loopback() && !link
        };
        let interface = if own.contains(&address) {
            Some("lo".to_owned())
        } else {
            only(host::with_addresses().unwrap_or_default().into_iter().map(|interface| interface.name))
        };
        Ok(Self {
            address,
            without_bans: firewall.without_bans(),
            firewall,
            others_without_bans: others.iter().map(|other| other.map(without_bans)).collect(),
            others,
            native,
            sets,
            destination: only(own.iter().filter(same).copied()),
            interface,
            now,
            problems,
        })
    }

    /// The same as it will be when a pause of Ringfence's is over.
    #[must_use]
    pub fn without_pause(self) -> Self {
        let firewall = self.firewall.without_pause();
        Self { without_bans: firewall.without_bans(), firewall, ..self }
    }

    /// What could not be looked at, and why.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// The table `filter`, as it was read.
    #[must_use]
    pub const fn firewall(&self) -> &Firewall {
        &self.firewall
    }

    /// The rules of iptables as of [`Firewall::bans_of`], of all tables.
    #[must_use]
    pub fn bans(&self) -> Vec<Banned> {
        let beside = self.others.iter().filter_map(|Other { program, name, saved }| {
            Some(bans_in(program, name, saved.as_ref().ok()?, self.address))
        });
        beside.flatten().chain(self.firewall.bans_of(self.address)).collect()
    }

    /// The rules of nftables' own tables that refuse the address by its source, on some port at least.
    pub fn refusals(&self) -> Result<Vec<Refusal>, &str> {
        self.native.as_ref().map(|native| native.refusals(self.address)).map_err(String::as_str)
    }

    /// What becomes of a packet of the address: through every chain in turn.
    pub fn path(&mut self, packet: &Packet) -> Path {
        self.path_sparing(packet, Spared::Nothing)
    }

    /// What would become of it.
    pub fn path_sparing(&mut self, packet: &Packet, spared: Spared) -> Path {
        let packet = packet.clone().arriving(self.destination, self.interface.clone()).at(self.now);
        let mut sets = self.sets.take();
        let path = self.walk(packet, spared, &mut sets);
        self.sets = sets;
        path
    }

    fn walk(&self, mut packet: Packet, spared: Spared, sets: &mut Option<Sets>) -> Path {
        let state = packet.state;
        let mut whole: Option<(Path, Point)> = None;
        for (point, priority, chain) in self.chains(packet.version(), spared) {
            // What is not tracked is of no connection.
            let untracked = whole.as_ref().is_some_and(|(path, _)| path.untracks());
            packet.state = if untracked && (point, priority) > (Point::Prerouting, TRACKING) {
                super::path::State::Untracked
            } else {
                state
            };
            let path = self.through(&chain, &packet, spared, sets);
            // What lets it in stands where packets for this host alone come by.
            whole = Some(match whole {
                None => (path, point),
                Some((before, at)) => (before.then(path, point > at), point),
            });
        }
        whole.map_or_else(|| nowhere(&packet), |(path, _)| path)
    }

    fn through(&self, chain: &Chain<'_>, packet: &Packet, spared: Spared, sets: &mut Option<Sets>) -> Path {
        match chain {
            Chain::Unread(why) => Path::ends(unknown(why)),
            Chain::Native(chain) => match &self.native {
                Ok(native) => native.through(chain, packet, &|rule| spared == Spared::Nothing || !rule.bans),
                Err(_) => Path::ends(unknown("tables of nftables' own, which could not be read")),
            },
            Chain::Saved { program, table, name, saved } => {
                let mut members = |set: &str, sides: &[Side]| match sets {
                    Some(sets) => hold(sets, set, sides, packet, spared),
                    None => Ok(Member::NotKnown("cannot be asked".to_owned())),
                };
                through_saved(saved, (&program.name(), table, name), packet, &mut members)
            }
        }
    }

    /// Where packets come by, in order.
    fn chains(&self, version: Version, spared: Spared) -> Vec<(Point, i64, Chain<'_>)> {
        let (firewall, others) = match spared {
            Spared::Nothing => (&self.firewall, &self.others),
            _ => (&self.without_bans, &self.others_without_bans),
        };
        let mut filters: Vec<&Table> =
            firewall.tables.iter().filter(|table| table.program.version == version).collect();
        filters.sort_by_key(|table| table.program.variant != self.firewall.variant);
        let mut all = vec![];
        for (table, name, point, priority) in BUILT_IN {
            if table == FILTER {
                all.extend(filters.iter().map(|Table { program, saved }| {
                    (point, priority, Chain::Saved { program, table, name, saved })
                }));
            }
            for other in others.iter().filter(|other| other.name == table) {
                let program = &other.program;
                let chain = match &other.saved {
                    Ok(saved) if saved.chains.contains_key(name) => {
                        Chain::Saved { program, table, name, saved }
                    }
                    Ok(_) => continue,
                    Err(_) => {
                        Chain::Unread(format!("the table {table} of {} could not be read", program.name()))
                    }
                };
                all.push((point, priority, chain));
            }
        }
        match &self.native {
            Ok(native) => {
                let packet = Packet::udp(self.address, 0, []);
                let hooked = native.hooked(&packet);
                all.extend(hooked.map(|(point, priority, chain)| (point, priority, Chain::Native(chain))));
            }
            Err(_) => all.push((
                Point::Input,
                0,
                Chain::Unread("tables of nftables' own could not be read".to_owned()),
            )),
        }
        all.sort_by_key(|(point, priority, _)| (*point, *priority));
        all
    }

    /// Every rule that packets of the address may come to, in the order in which they would.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        let mut places = vec![];
        let version = Version::of(self.address);
        for (_, _, chain) in self.chains(version, Spared::Nothing) {
            match chain {
                Chain::Saved { program, table, name, saved } => {
                    let mut list = List {
                        saved,
                        program: program.name(),
                        table,
                        from: name,
                        seen: BTreeSet::from([name]),
                    };
                    list.add(name, None, &mut places);
                }
                Chain::Native(chain) => {
                    let rules =
                        self.native.as_ref().map(|native| native.rules_from(chain)).unwrap_or_default();
                    let place = |(step, number)| Place { step, from: chain.name().to_owned(), number };
                    places.extend(rules.into_iter().map(place));
                }
                Chain::Unread(_) => {}
            }
        }
        places
    }
}

/// The rules of a table, chain after chain, each chain where it is first led to.
struct List<'a> {
    saved: &'a Saved,
    program: String,
    table: &'a str,
    from: &'a str,
    seen: BTreeSet<&'a str>,
}

impl<'a> List<'a> {
    fn add(&mut self, chain: &'a str, from: Option<usize>, places: &mut Vec<Place>) {
        for (at, rule) in self.saved.rules(chain).iter().enumerate() {
            let number = from.unwrap_or(at + 1);
            let target = rule.target();
            let step = self.step(chain, at + 1, rule, target.clone());
            places.push(Place { step, from: self.from.to_owned(), number });
            let called = target.and_then(|target| self.saved.chains.get_key_value(&target));
            if let Some((called, _)) = called
                && self.seen.insert(called)
            {
                self.add(called, Some(number), places);
            }
        }
    }

    fn step(&self, chain: &str, number: usize, rule: &SavedRule, target: Option<String>) -> Step {
        Step {
            program: self.program.clone(),
            table: self.table.to_owned(),
            chain: chain.to_owned(),
            number,
            rule: rule.spec.clone(),
            handle: None,
            comment: None,
            tag: rule.tag,
            holds: super::path::Holds::Yes,
            target,
        }
    }
}

/// What a set says of a packet that is spared something.
fn hold(
    sets: &mut Sets,
    set: &str,
    sides: &[Side],
    packet: &Packet,
    spared: Spared,
) -> anyhow::Result<Member> {
    let role = Role::of(set);
    let [listed, limited, known] = [Role::Blocked, Role::Slamming, Role::Known].map(|of| role == Some(of));
    match spared {
        Spared::BansAndLimits if limited => Ok(Member::Is(false)),
        Spared::BansAndLists if listed => Ok(Member::Is(false)),
        Spared::AllOfThese if listed || limited => Ok(Member::Is(false)),
        // Who is neither listed nor over a limit is known only if he is allowed.
        Spared::AllOfThese if known => sets.hold(names(packet.version().family()).allowed, sides, packet),
        _ => sets.hold(set, sides, packet),
    }
}

/// Where there are no rules.
fn nowhere(packet: &Packet) -> Path {
    let program = packet.version().program().to_owned();
    let by = End::Policy { program, table: FILTER.to_owned(), chain: "INPUT".to_owned() };
    Path::ends(Verdict::Accepted { by })
}

/// The one there is, if there is one.
fn only<T>(mut all: impl Iterator<Item = T>) -> Option<T> {
    all.next().filter(|_| all.next().is_none())
}

#[cfg(test)]
mod tests;
