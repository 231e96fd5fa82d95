//! The two ends of the cable, and what is sent over it: by raw sockets, as the kernel would never send it, and received behind the
//! rules whether somebody listens or not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, Protocol, SendFlags, SocketFlags, SocketType, bind, ipproto, sendto, socket_with, sockopt,
};
use serde::{Deserialize, Serialize};

use crate::firewall::Version;

/// What both ends of the cable are called.
pub(super) const CABLE: &str = "rf0";

/// The port that everything is sent from.
const FROM: u16 = 30_000;

/// So many sources there are.
pub(super) const SOURCES: u16 = 508;

/// For experiments, RFC 3692: no rule concerns it.
pub(super) const MARK: u8 = 253;

/// The host.
pub(super) fn inside(version: Version) -> IpAddr {
    match version {
        Version::V4 => Ipv4Addr::new(192, 0, 2, 1).into(),
        Version::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    }
}

/// What all sources are behind.
pub(super) fn gateway(version: Version) -> IpAddr {
    match version {
        Version::V4 => Ipv4Addr::new(192, 0, 2, 2).into(),
        Version::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2).into(),
    }
}

/// The networks of all sources.
pub(super) const fn networks(version: Version) -> &'static [&'static str] {
    match version {
        Version::V4 => &["198.51.100.0/24", "203.0.113.0/24"],
        Version::V6 => &["2001:db8:f000::/48"],
    }
}

/// A source, from 1 on; of IPv6, each has a /64 of its own.
pub(super) fn outside(version: Version, number: u16) -> IpAddr {
    let host = |number: u16| u8::try_from(number).unwrap_or(u8::MAX);
    match version {
        Version::V4 if number <= SOURCES / 2 => Ipv4Addr::new(198, 51, 100, host(number)).into(),
        Version::V4 => Ipv4Addr::new(203, 0, 113, host(number - SOURCES / 2)).into(),
        Version::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xf000, number, 0, 0, 0, 1).into(),
    }
}

/// What is in a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Message {
    Udp(Vec<u8>),
    /// A segment with these flags, and no content.
    Tcp(u8),
}

impl Message {
    pub(super) const SYN: Self = Self::Tcp(0x02);
    pub(super) const SYN_FIN: Self = Self::Tcp(0x03);
    pub(super) const ACK: Self = Self::Tcp(0x10);

    pub(super) const fn protocol_name(&self) -> &'static str {
        match self {
            Self::Udp(_) => "UDP",
            Self::Tcp(_) => "TCP",
        }
    }

    /// From a source to a port of the host.
    pub(super) fn inwards(&self, from: IpAddr, to: IpAddr, port: u16) -> Packet {
        self.packet((from, FROM), (to, port))
    }

    /// The other way.
    pub(super) fn outwards(&self, from: IpAddr, to: IpAddr, port: u16) -> Packet {
        self.packet((from, port), (to, FROM))
    }

    fn packet(&self, from: (IpAddr, u16), to: (IpAddr, u16)) -> Packet {
        let mut bytes = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
        let (protocol, checksum) = match self {
            Self::Udp(content) => {
                let length = u16::try_from(8 + content.len()).unwrap_or(u16::MAX);
                bytes.extend(length.to_be_bytes());
                bytes.extend([0, 0]);
                bytes.extend(content);
                (ipproto::UDP, 6)
            }
            Self::Tcp(flags) => {
                // Numbers of sequence, a header of five words, the flags, a window.
                bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, *flags, 0xff, 0xff, 0, 0, 0, 0]);
                (ipproto::TCP, 16)
            }
        };
        let mut packet = Packet { from: from.0, to: to.0, protocol: number(protocol), bytes };
        let sum = packet.checksum().to_be_bytes();
        packet.bytes[checksum..checksum + 2].copy_from_slice(&sum);
        packet
    }
}

fn number(protocol: Protocol) -> u8 {
    u8::try_from(protocol.as_raw().get()).unwrap_or_default()
}

/// What the kernel puts its IP header in front of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Packet {
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    pub(super) protocol: u8,
    pub(super) bytes: Vec<u8>,
}

impl Packet {
    /// The Internet's, with the header that UDP and TCP have in mind; connections are not tracked without it.
    fn checksum(&self) -> u16 {
        let octets = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let length = u16::try_from(self.bytes.len()).unwrap_or(u16::MAX).to_be_bytes();
        let [mut header, to] = [self.from, self.to].map(octets);
        header.extend(to);
        header.extend([0, self.protocol, length[0], length[1]]);
        let words = header.chunks(2).chain(self.bytes.chunks(2));
        let word =
            |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or_default());
        let mut sum: u32 = words.map(word).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        // In IPv6 zero says that there is none.
        if sum == 0xffff { 0xffff } else { u16::try_from(!sum & 0xffff).unwrap_or_default() }
    }

    /// So many times, from its source, whoever has that address.
    pub(super) fn send(&self, times: u32) -> rustix::io::Result<()> {
        let socket = raw(self.from.is_ipv4(), self.protocol)?;
        if self.from.is_ipv4() {
            sockopt::set_ip_freebind(&socket, true)?;
        } else {
            sockopt::set_ipv6_freebind(&socket, true)?;
        }
        bind(&socket, &SocketAddr::new(self.from, 0))?;
        for _ in 0..times {
            sendto(&socket, &self.bytes, SendFlags::empty(), &SocketAddr::new(self.to, 0))?;
        }
        Ok(())
    }
}

/// Gets every packet of a protocol that arrives, IPv4's with its header.
pub(super) fn raw(v4: bool, protocol: u8) -> rustix::io::Result<OwnedFd> {
    let family = if v4 { AddressFamily::INET } else { AddressFamily::INET6 };
    let protocol = NonZeroU32::new(protocol.into()).map(Protocol::from_raw);
    socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
}
