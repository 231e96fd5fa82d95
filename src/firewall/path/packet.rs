//! A packet from outside to this host, as the rules see it.

use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;

use crate::account::SipAccount;
use crate::firewall::Version;

/// What SIP comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

impl Protocol {
    /// As iptables calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }

    /// As IP numbers it.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Udp => 17,
            Self::Tcp => 6,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        })
    }
}

/// What connection tracking says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The first of its flow.
    New,
    /// The host has answered its flow.
    Established,
    /// Nothing: a rule said that it is not tracked.
    Untracked,
}

/// Flags of TCP.
pub(super) const SYN: u8 = 0x02;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// A packet from outside to this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// From there.
    pub source: IpAddr,
    /// By this.
    pub protocol: Protocol,
    /// To this port.
    pub port: u16,
    /// From this port, where it is known.
    pub source_port: Option<u16>,
    /// To this address of the host, where it is known.
    pub destination: Option<IpAddr>,
    /// By this interface, where it is known.
    pub interface: Option<String>,
    /// What connection tracking says of it.
    pub state: State,
    /// When it comes, if that is known.
    pub time: Option<Timestamp>,
    /// Of TCP.
    pub(in crate::firewall) flags: u8,
    /// What is behind the headers, SIP for the most part; may be empty.
    pub content: Vec<u8>,
}

impl Packet {
    /// The first of a flow over UDP.
    #[must_use]
    pub fn udp(source: IpAddr, port: u16, content: impl Into<Vec<u8>>) -> Self {
        Self {
            source: source.to_canonical(),
            protocol: Protocol::Udp,
            port,
            source_port: None,
            destination: None,
            interface: None,
            state: State::New,
            time: None,
            flags: 0,
            content: content.into(),
        }
    }

    /// What begins a connection of TCP.
    #[must_use]
    pub fn syn(source: IpAddr, port: u16) -> Self {
        Self { protocol: Protocol::Tcp, flags: SYN, ..Self::udp(source, port, []) }
    }

    /// What is sent over a connection of TCP that is open.
    #[must_use]
    pub fn segment(source: IpAddr, port: u16, content: impl Into<Vec<u8>>) -> Self {
        let opened = Self { protocol: Protocol::Tcp, flags: PSH | ACK, ..Self::udp(source, port, content) };
        opened.established()
    }

    /// A REGISTER; with an account one that has its credentials with it, as a phone sends it when it was asked for them. Over TCP the
    /// connection is open.
    #[must_use]
    pub fn register(source: IpAddr, protocol: Protocol, port: u16, account: Option<&SipAccount>) -> Self {
        let content = register(source, protocol, account);
        match protocol {
            Protocol::Udp => Self::udp(source, port, content),
            Protocol::Tcp => Self::segment(source, port, content),
        }
    }

    /// The same, of a flow that the host has answered.
    #[must_use]
    pub fn established(self) -> Self {
        Self { state: State::Established, ..self }
    }

    /// The same, with what is known of the host's end.
    #[must_use]
    pub fn arriving(self, destination: Option<IpAddr>, interface: Option<String>) -> Self {
        Self { destination, interface, ..self }
    }

    /// The same, coming then.
    #[must_use]
    pub fn at(self, time: Timestamp) -> Self {
        Self { time: Some(time), ..self }
    }

    /// IPv4 or IPv6.
    #[must_use]
    pub const fn version(&self) -> Version {
        Version::of(self.source)
    }

    /// Where the content may begin, in bytes from the header of IP: TCP has options or not.
    pub(super) fn content_at(&self) -> &'static [usize] {
        match (self.version(), self.protocol) {
            (Version::V4, Protocol::Udp) => &[28],
            (Version::V4, Protocol::Tcp) => &[52, 40],
            (Version::V6, Protocol::Udp) => &[48],
            (Version::V6, Protocol::Tcp) => &[72, 60],
        }
    }
}

/// RFC 3261, section 10; RFC 2617 for the credentials, which are of nobody.
fn register(source: IpAddr, protocol: Protocol, account: Option<&SipAccount>) -> String {
    let nobody = ("nobody", "ringfence.invalid");
    let (user, domain) = account.map_or(nobody, |account| (account.user(), account.domain()));
    let host = match source {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    let credentials = account.map_or_else(String::new, |_| {
        format!(
            "Authorization: Digest username=\"{user}\", realm=\"{domain}\", nonce=\"00000000-0000-0000-0000-000000000000\", \
             uri=\"sip:{domain}\", response=\"00000000000000000000000000000000\", algorithm=MD5\r\n"
        )
    });
    format!(
        "REGISTER sip:{domain} SIP/2.0\r\nVia: SIP/2.0/{protocol} {host}:5060;branch=z9hG4bK0;rport\r\nMax-Forwards: 70\r\n\
         From: <sip:{user}@{domain}>;tag=0\r\nTo: <sip:{user}@{domain}>\r\nCall-ID: 0\r\nCSeq: 2 REGISTER\r\n\
         Contact: <sip:{user}@{host}:5060>\r\n{credentials}Expires: 3600\r\nContent-Length: 0\r\n\r\n"
    )
}
