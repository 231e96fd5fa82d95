//! `verify --probe`: the rules tried on this kernel, in network namespaces of our own that end with it.
//!
//! ```text
//! verify               what is sent, and what should become of it
//!   unshare --net      the host: the same rules, sets with addresses of documentation, and it looks what arrives
//!     unshare --net    outside, at the other end of a cable: sends what it is told
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};

use super::verify::Check;
use super::wanted::Wanted;
use crate::config::firewall::Rate;
use crate::config::{Config, ListName, Mode, Ports};
use crate::evidence::visible;
use crate::exit::Exit;
use crate::firewall::{Firewall, Layout, Variant, Version, order};
use crate::programs;

mod host;
mod outside;
mod packet;

use packet::Message;

/// No probe takes longer.
const TIME: Duration = Duration::from_secs(20);

/// The command line of `probe`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which of the two
    end: End,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum End {
    Host,
    Outside,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    // Whatever ends the one who wants to know ends us.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    match args.end {
        End::Host => host::run(),
        End::Outside => outside::run(),
    }
}

/// What the kernel does by these rules, one thing after another.
pub(super) fn checks(config: &Config, there: &Firewall, wanted: &Wanted) -> anyhow::Result<Vec<Check>> {
    let versions = [Version::V4, Version::V6].into_iter().filter(|version| there.has(*version));
    let mut scene = Scene::new(config, wanted.settings(), wanted.lists(), there.variant());
    versions.for_each(|version| scene.add(config, wanted.settings(), version));
    programs::installed("util-linux", "unshare")?;
    // Not /proc/self: that would be unshare.
    let us = format!("/proc/{}/exe", std::process::id());
    let args = ["--net", "--", &us, "probe", "host"];
    let told = programs::run("util-linux", "unshare", &args, &serde_json::to_string(&scene)?, TIME)
        .context("no probe in a network namespace (it needs CAP_SYS_ADMIN, which a container may lack)")?;
    let report: Result<Report, String> = serde_json::from_str(&told).context("the probe broke off")?;
    let report = report.map_err(|error| anyhow!(error)).context("the probe broke off")?;
    Ok(scene.judge(&report))
}

/// A host to be tried, and what is sent to it.
#[derive(Debug, Serialize, Deserialize)]
struct Scene {
    variant: Variant,
    observe: bool,
    rules: Vec<(Version, Layout)>,
    ports: Vec<u16>,
    allow: Vec<IpAddr>,
    seen: Vec<IpAddr>,
    block: Vec<IpAddr>,
    lists: BTreeMap<ListName, Vec<IpAddr>>,
    probes: Vec<Probe>,
}

/// What a source sends, and what should become of it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Probe {
    /// For people.
    what: String,
    from: IpAddr,
    port: u16,
    message: Message,
    /// The host spoke to it before, so that a connection is established.
    answers: bool,
    expect: Expect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Expect {
    /// So many of them all arrive.
    Arrives(u32),
    Dropped,
    /// So many arrive at least, and then no more.
    Limited(u32),
}

/// How many were sent, and how many of them arrived.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Outcome {
    sent: u32,
    arrived: u32,
}

/// What became of the probes.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    outcomes: Vec<Outcome>,
    /// Packets that an observer would have dropped.
    denied: u64,
}

impl Expect {
    /// How many are sent, unless one of them is lost.
    fn most(self) -> u32 {
        match self {
            Self::Arrives(count) => count,
            Self::Dropped => 1,
            // Also where they trickle in while we send.
            Self::Limited(burst) => 2 * burst + 1_000,
        }
    }

    /// How many arrive at least, of so many.
    fn least(self, observe: bool, sent: u32) -> u32 {
        match self {
            Self::Dropped if !observe => 0,
            Self::Limited(burst) if !observe => sent.min(burst),
            _ => sent,
        }
    }

    fn holds(self, observe: bool, Outcome { sent, arrived }: Outcome) -> bool {
        let lost = !observe && !matches!(self, Self::Arrives(_));
        arrived >= self.least(observe, sent) && lost == (arrived < sent)
    }

    fn words(self, observe: bool) -> String {
        match (self, observe) {
            (Self::Arrives(_), _) => "arrives".to_owned(),
            (Self::Dropped, false) => "is dropped".to_owned(),
            (Self::Dropped, true) => "would be dropped, and arrives".to_owned(),
            (Self::Limited(burst), false) => format!("is dropped after {burst} at once"),
            (Self::Limited(burst), true) => format!("would be dropped after {burst} at once, and arrives"),
        }
    }
}

/// Who a source is.
#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    /// On no list.
    Stranger,
    /// On all lists that ports are restricted to, and otherwise unknown.
    Guest,
    /// On this one of them.
    On(&'a ListName),
    Allowed,
    Seen,
    Blocked,
    AllowedAndBlocked,
}

/// A packet of no method: phones keep their way open by it.
fn keep_alive() -> Message {
    Message::Udp(b"\r\n\r\n".to_vec())
}

fn request(method: &str, header: &str) -> Message {
    Message::Udp(format!("{method} sip:example.com SIP/2.0\r\n{header}\r\n").into_bytes())
}

/// IAX2's NEW: a full frame of type 6, subclass 1.
const IAX_NEW: [u8; 12] = [0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 6, 1];

impl Scene {
    /// Without probes.
    fn new<'a>(
        config: &Config,
        settings: &order::Settings,
        lists: impl Iterator<Item = &'a ListName>,
        variant: Variant,
    ) -> Self {
        Self {
            variant,
            observe: config.firewall_mode() == Mode::Observe,
            rules: vec![],
            ports: settings.ports().flat_map(|range| range.first()..=range.last()).collect(),
            allow: vec![],
            seen: vec![],
            block: vec![],
            lists: lists.map(|list| (list.clone(), vec![])).collect(),
            probes: vec![],
        }
    }

    /// Adds the rules of IPv4 or IPv6, and all that they are tried with.
    fn add(&mut self, config: &Config, settings: &order::Settings, version: Version) {
        use Expect::{Arrives, Dropped, Limited};
        self.rules.push((version, settings.layout(version)));
        let firewall = &config.firewall;
        let sip = first(&firewall.sip_ports);
        let named = || {
            firewall.limits.iter().map(|limit| &limit.ports).chain(firewall.restrict.iter().map(|r| &r.ports))
        };
        let free = |port: &u16| !named().chain([&firewall.sip_ports]).any(|ports| ports.has(*port));
        let other = (20_000..=u16::MAX).find(free).unwrap_or(20_000);
        let mut table = Table { scene: self, version, last: 0 };

        let register = || request("REGISTER", "");
        let restrictions: Vec<_> = settings.restrictions(version).collect();
        // Where ports are restricted, a source on no list would tell nothing of the rest.
        let unknown = if restrictions.is_empty() {
            "an unknown source"
        } else {
            "an unknown source that is on all lists of restrict"
        };
        table.one(&format!("REGISTER of {unknown}"), Source::Guest, sip, register(), Arrives(1));
        table.one(&format!("a connection of {unknown}"), Source::Guest, sip, Message::SYN, Arrives(1));
        table.one(unknown, Source::Guest, other, keep_alive(), Arrives(1));
        table.one("a source that was seen registered", Source::Seen, sip, register(), Arrives(1));
        let both = "a source that is blocked, and allowed";
        for (port, message) in
            [(sip, register()), (sip, Message::SYN), (other, keep_alive()), (other, Message::SYN)]
        {
            table.one("a blocked source", Source::Blocked, port, message.clone(), Dropped);
            table.one(both, Source::AllowedAndBlocked, port, message, Arrives(1));
        }
        table.one("TCP with SYN and FIN", Source::Allowed, other, Message::SYN_FIN, Dropped);
        if settings.tracked() {
            table.one("TCP of no connection", Source::Allowed, other, Message::ACK, Dropped);
            for (port, expect) in [(other, Arrives(1)), (sip, Dropped)] {
                let from = table.source(Source::Blocked);
                table.probe("an established flow of a blocked source", from, port, keep_alive(), expect);
                table.scene.probes.last_mut().expect("one").answers = true;
            }
        }
        for agent in &firewall.agents {
            let message = request("OPTIONS", &format!("User-Agent: {}\r\n", agent.as_str()));
            table.one(&format!("the scanner {}", agent.as_str()), Source::Guest, sip, message, Dropped);
        }

        let methods = [
            ("REGISTER", firewall.register_limit, sip, register()),
            ("INVITE", firewall.invite_limit, sip, request("INVITE", "")),
            ("OPTIONS", firewall.options_limit, sip, request("OPTIONS", "")),
            ("IAX2", firewall.iax_limit, crate::config::firewall::IAX_PORT, Message::Udp(IAX_NEW.to_vec())),
        ];
        for (name, limit, port, message) in methods {
            let Some(burst) = limit.rate().map(Rate::burst) else { continue };
            let from = table.source(Source::Guest);
            table.probe(&format!("{name} of one source"), from, port, message.clone(), Limited(burst));
            table.probe(&format!("who exceeded the limit of {name}"), from, sip, keep_alive(), Dropped);
            table.one(&format!("{name} of another source"), Source::Guest, port, message.clone(), Arrives(1));
            let allowed = format!("{name} of an allowed source, {} at once,", burst + 10);
            table.one(&allowed, Source::Allowed, port, message, Arrives(burst + 10));
        }
        for limit in &firewall.limits {
            let port = first(&limit.ports);
            let limits = firewall.limits.iter().filter(|limit| limit.ports.has(port));
            let burst = limits.map(|limit| limit.rate.burst()).min().unwrap_or_default();
            let udp = settings.tracked().then(keep_alive);
            for message in [Message::SYN].into_iter().chain(udp) {
                table.one(
                    "a source that connects again and again",
                    Source::Guest,
                    port,
                    message,
                    Limited(burst),
                );
            }
        }

        for (ports, lists) in &restrictions {
            let port = first(ports);
            for message in [keep_alive(), Message::SYN] {
                table.one("a source on none of its lists", Source::Stranger, port, message.clone(), Dropped);
                for list in *lists {
                    let mut all = restrictions.iter().filter(|(ports, _)| ports.has(port));
                    let expect =
                        if all.all(|(_, lists)| lists.contains(list)) { Arrives(1) } else { Dropped };
                    let who = format!("a source on {list}");
                    table.one(&who, Source::On(list), port, message.clone(), expect);
                }
            }
        }
    }

    /// Holds what became of the probes against what should.
    fn judge(&self, report: &Report) -> Vec<Check> {
        let judge = |(probe, outcome): (&Probe, &Outcome)| {
            let arrived = format!("{} of {} arrived", outcome.arrived, outcome.sent);
            Check::new(&probe.what, probe.expect.holds(self.observe, *outcome), arrived)
        };
        let mut checks: Vec<Check> = self.probes.iter().zip(&report.outcomes).map(judge).collect();
        if self.observe {
            let expected =
                self.probes.iter().filter(|probe| !matches!(probe.expect, Expect::Arrives(_))).count();
            checks.push(Check::new(
                format!("what would be dropped is counted: {} packets", report.denied),
                usize::try_from(report.denied).is_ok_and(|denied| denied >= expected),
                format!("there were {expected} at least"),
            ));
        }
        checks
    }
}

/// Probes of one family.
struct Table<'a> {
    scene: &'a mut Scene,
    version: Version,
    /// The number of the last source: each sends in one probe, so that none is limited by what it sent before.
    last: u16,
}

impl Table<'_> {
    fn source(&mut self, source: Source<'_>) -> IpAddr {
        self.last += 1;
        let address = packet::outside(self.version, self.last);
        let scene = &mut *self.scene;
        match source {
            Source::Stranger => {}
            Source::Guest => scene.lists.values_mut().for_each(|list| list.push(address)),
            Source::On(list) => scene.lists.entry(list.clone()).or_default().push(address),
            Source::Allowed => scene.allow.push(address),
            Source::Seen => scene.seen.push(address),
            Source::Blocked => scene.block.push(address),
            Source::AllowedAndBlocked => {
                scene.allow.push(address);
                scene.block.push(address);
            }
        }
        address
    }

    fn one(&mut self, who: &str, source: Source<'_>, port: u16, message: Message, expect: Expect) {
        // Thousands of restrictions are tried as far as there are addresses of documentation.
        if self.last < packet::SOURCES {
            let from = self.source(source);
            self.probe(who, from, port, message, expect);
        }
    }

    fn probe(&mut self, who: &str, from: IpAddr, port: u16, message: Message, expect: Expect) {
        let ip = if self.version == Version::V4 { "IPv4" } else { "IPv6" };
        let does = expect.words(self.scene.observe);
        let what = visible(&format!("{who} {does} ({ip}, {} {port})", message.protocol_name()));
        self.scene.probes.push(Probe { what, from, port, message, answers: false, expect });
    }
}

fn first(ports: &Ports) -> u16 {
    ports.ranges().next().map_or(1, |range| range.first())
}

#[cfg(test)]
mod tests;
