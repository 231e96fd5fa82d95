//! The outside: sends to the host what it is told.

use std::fmt::Write as _;
use std::io::{self, BufRead, Write};
use std::net::IpAddr;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::TIME;
use super::packet::{self, CABLE, MARK, Packet};
use crate::exit::Exit;
use crate::firewall::Version;
use crate::programs;

/// The link addresses of both ends.
const HOST: &str = "02:00:00:00:00:01";
pub(super) const OUTSIDE: &str = "02:00:00:00:00:02";

/// It says that there is a cable.
pub(super) const READY: u8 = b'r';

/// What is to be sent.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) packet: Packet,
    pub(super) times: u32,
    /// Follows it, and always arrives.
    pub(super) mark: u32,
}

pub(super) fn run() -> anyhow::Result<Exit> {
    let host = std::os::unix::process::parent_id();
    let cable = format!(
        "link add {CABLE} address {OUTSIDE} type veth peer name {CABLE} address {HOST} netns {host}\n"
    );
    connect(&cable, packet::gateway, (packet::inside, HOST), |_, network| format!("local {network} dev lo"))?;
    let mut stdout = io::stdout();
    stdout.write_all(&[READY]).and_then(|()| stdout.flush()).context("nobody waits for us")?;
    for line in io::stdin().lock().lines() {
        let Order { packet, times, mark } = serde_json::from_str(&line?)?;
        packet.send(times).context("cannot send from outside")?;
        let version = Version::of(packet.from);
        let mark = Packet {
            from: packet::gateway(version),
            to: packet.to,
            protocol: MARK,
            bytes: mark.to_be_bytes().to_vec(),
        };
        mark.send(1).context("cannot send from outside")?;
    }
    Ok(Exit::Yes)
}

/// Those that this kernel has.
pub(super) fn versions() -> impl Iterator<Item = Version> {
    let v6 = Path::new("/proc/thread-self/net/if_inet6").exists();
    [Version::V4, Version::V6].into_iter().filter(move |version| *version == Version::V4 || v6)
}

/// Makes our end of the cable what it should be, behind `script`: our addresses, the other's with its link address, and by what way
/// the networks of the sources are reached.
pub(super) fn connect(
    script: &str,
    own: impl Fn(Version) -> IpAddr,
    (other, link): (impl Fn(Version) -> IpAddr, &str),
    way: impl Fn(Version, &str) -> String,
) -> anyhow::Result<()> {
    let mut script = format!("{script}link set lo up\nlink set {CABLE} up\n");
    for version in versions() {
        let (own, other) = (own(version), other(version));
        // Nobody else has the address: it is ours at once.
        let prefix = if version == Version::V4 { "24" } else { "64 nodad" };
        let _ = writeln!(script, "addr add dev {CABLE} {own}/{prefix}");
        let _ = writeln!(script, "neigh add {other} lladdr {link} dev {CABLE}");
        for network in packet::networks(version) {
            let _ = writeln!(script, "route add {}", way(version, network));
        }
    }
    programs::run("iproute2", "ip", &["-batch", "-"], &script, TIME).map(drop)
}
