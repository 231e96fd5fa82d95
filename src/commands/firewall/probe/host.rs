//! The host that is tried: its rules, its sets, and what arrives behind them.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, recv};

use super::outside::{self, Order};
use super::packet::{self, CABLE, MARK, Message, Packet};
use super::{Outcome, Probe, Report, Scene};
use crate::config::firewall::PortRange;
use crate::evidence::visible_within;
use crate::exit::Exit;
use crate::firewall::{self, Firewall, Version, order};
use crate::kernel_sets::{self, Content, Family, Ipset};
use crate::programs;

/// More at once may not fit into the buffer of a socket.
const BATCH: u32 = 100;

/// How long we wait for a packet that no rule concerns, and how often: a new cable does not carry at once.
const PATIENCE: Duration = Duration::from_millis(100);
const TRIES: u32 = 50;

/// A packet that another processor handles may be overtaken: so long we wait for one that should not arrive, and so often for one
/// that should.
const LATE: Duration = Duration::from_millis(20);
const LATE_TRIES: u32 = 50;

pub(super) fn run() -> anyhow::Result<Exit> {
    let scene = serde_json::from_reader(io::stdin().lock()).context("this is for verify --probe alone")?;
    let report = play(&scene).map_err(|error| crate::commands::causes(&error));
    serde_json::to_writer(io::stdout().lock(), &report)?;
    Ok(Exit::Yes)
}

fn play(scene: &Scene) -> anyhow::Result<Report> {
    let mut wire = Wire::new(Outside::start()?)?;
    make_sets(scene)?;
    Firewall::fill(scene.variant, &scene.rules)?;
    let outcomes =
        scene.probes.iter().map(|probe| wire.try_out(probe, scene.observe)).collect::<anyhow::Result<_>>()?;
    Ok(Report { outcomes, denied: if scene.observe { denied(scene)? } else { 0 } })
}

/// By the same code as on this host.
fn make_sets(scene: &Scene) -> anyhow::Result<()> {
    let mut kernel = Ipset::open().context("cannot talk to the kernel's ipset")?;
    let content = Content {
        allow: scene.allow.iter().copied().collect(),
        block: scene.block.iter().copied().collect(),
        lists: scene
            .lists
            .iter()
            .map(|(name, addresses)| (name.clone(), addresses.iter().copied().collect()))
            .collect(),
    };
    kernel_sets::load(&mut kernel, &content)?;
    kernel_sets::make_standing(&mut kernel)?;
    let seen: crate::address_set::AddressSet = scene.seen.iter().copied().collect();
    kernel.add(kernel_sets::names(Family::V4).seen, seen.v4.blocks())?;
    kernel.add(kernel_sets::names(Family::V6).seen, seen.v6.blocks())?;
    kernel_sets::fill_ports(&mut kernel, scene.ports.iter().copied().map(PortRange::one))
}

/// How many packets the rules that deny have met.
fn denied(scene: &Scene) -> anyhow::Result<u64> {
    let counters = Firewall::read()?.counters();
    let to = format!("to {}", order::DENY);
    let mut tags: Vec<_> = scene
        .rules
        .iter()
        .flat_map(|(_, layout)| &layout.chains)
        .flat_map(|chain| &chain.rules)
        .filter(|rule| rule.does() == to)
        .map(firewall::Rule::tag)
        .collect();
    // A rule that is the same in both families has one tag, and its counters are those of both.
    tags.sort_unstable();
    tags.dedup();
    Ok(tags.iter().filter_map(|tag| counters.get(tag)).map(|counters| counters.packets).sum())
}

/// The process at the other end of the cable.
struct Outside(Child);

impl Outside {
    /// There is a cable when this returns.
    fn start() -> anyhow::Result<Self> {
        let mut command = Command::new(programs::installed("util-linux", "unshare")?);
        command.args(["--net", "--", &format!("/proc/{}/exe", std::process::id()), "probe", "outside"]);
        command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut outside = Self(command.spawn().context("cannot start unshare")?);
        let mut ready = [0];
        let told = outside.0.stdout.take().map(|mut stdout| stdout.read_exact(&mut ready));
        if !matches!(told, Some(Ok(()))) || ready != [outside::READY] {
            return Err(outside.last_words());
        }
        outside::connect("", packet::inside, (packet::gateway, outside::OUTSIDE), |version, network| {
            format!("{network} via {} dev {CABLE}", packet::gateway(version))
        })?;
        Ok(outside)
    }

    fn send(&mut self, order: &Order) -> anyhow::Result<()> {
        let stdin = self.0.stdin.as_mut().context("the outside has no ear")?;
        let line = serde_json::to_string(order)? + "\n";
        stdin.write_all(line.as_bytes()).map_err(|_| self.last_words())
    }

    /// Why it does not do what it should.
    fn last_words(&mut self) -> anyhow::Error {
        let _ = self.0.kill();
        let mut said = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            let _ = stderr.read_to_string(&mut said);
        }
        anyhow!("the namespace of the outside ended: {}", visible_within(said.trim(), 300))
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The host's end of the cable.
struct Wire {
    outside: Outside,
    /// What arrives: by protocol, of IPv4 and IPv6.
    sockets: Vec<(u8, bool, OwnedFd)>,
    mark: u32,
    buffer: Vec<u8>,
}

impl Wire {
    /// It carries when this returns.
    fn new(outside: Outside) -> anyhow::Result<Self> {
        let mut sockets = vec![];
        for (version, protocol) in outside::versions().flat_map(|version| [6, 17, MARK].map(|p| (version, p)))
        {
            let v4 = version == Version::V4;
            let socket = packet::raw(v4, protocol).context("cannot listen")?;
            set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
            sockets.push((protocol, v4, socket));
        }
        let mut wire = Self { outside, sockets, mark: 0, buffer: vec![0; 1 << 16] };
        for version in outside::versions() {
            let (from, to) = (packet::gateway(version), packet::inside(version));
            let nothing = Packet { from, to, protocol: MARK, bytes: vec![] };
            let mut tries = 0;
            while !wire.carries(&nothing, 0, 1)? {
                tries += 1;
                if tries == TRIES {
                    return Err(wire.outside.last_words().context("the cable does not carry"));
                }
            }
        }
        Ok(wire)
    }

    /// Sends as many as should be sent, or until one is lost.
    fn try_out(&mut self, probe: &Probe, observe: bool) -> anyhow::Result<Outcome> {
        let version = Version::of(probe.from);
        let host = packet::inside(version);
        let packet = probe.message.inwards(probe.from, host, probe.port);
        if probe.answers {
            let first = Message::Udp(vec![]).outwards(host, probe.from, probe.port);
            first.send(1).context("cannot send to the outside")?;
        }
        let most = probe.expect.most();
        let mut outcome = Outcome { sent: 0, arrived: 0 };
        while outcome.sent < most && outcome.arrived == outcome.sent {
            let batch = BATCH.min(most - outcome.sent);
            if !self.carries(&packet, batch, TRIES)? {
                bail!("what no rule concerns does not arrive: {}", self.outside.last_words());
            }
            outcome.sent += batch;
            outcome.arrived += self.count(&packet)?;
            let least = probe.expect.least(observe, outcome.sent);
            for again in 0..LATE_TRIES {
                if outcome.arrived == outcome.sent || again > 0 && outcome.arrived >= least {
                    break;
                }
                std::thread::sleep(LATE);
                outcome.arrived += self.count(&packet)?;
            }
        }
        Ok(outcome)
    }

    /// Has it sent so many times; whether what follows it arrives.
    fn carries(&mut self, packet: &Packet, times: u32, tries: u32) -> anyhow::Result<bool> {
        self.mark += 1;
        self.outside.send(&Order { packet: packet.clone(), times, mark: self.mark })?;
        let mark = self.mark.to_be_bytes();
        for _ in 0..tries {
            match self.receive(MARK, packet.to.is_ipv4(), RecvFlags::empty())? {
                Some(bytes) if bytes.ends_with(&mark) => return Ok(true),
                _ => {}
            }
        }
        Ok(false)
    }

    /// How often it arrived since we looked last.
    fn count(&mut self, packet: &Packet) -> anyhow::Result<u32> {
        let mut count = 0;
        while let Some(bytes) = self.receive(packet.protocol, packet.from.is_ipv4(), RecvFlags::DONTWAIT)? {
            count += u32::from(bytes.ends_with(&packet.bytes));
        }
        Ok(count)
    }

    /// `None` if nothing comes.
    fn receive(&mut self, protocol: u8, v4: bool, flags: RecvFlags) -> anyhow::Result<Option<&[u8]>> {
        let found = self.sockets.iter().find(|(number, family, _)| (*number, *family) == (protocol, v4));
        let (_, _, socket) = found.context("nobody listens")?;
        match recv(socket, self.buffer.as_mut_slice(), flags) {
            Ok((_, length)) => Ok(self.buffer.get(..length)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error).context("cannot receive"),
        }
    }
}
