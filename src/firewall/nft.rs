//! Which tables of nftables there are, asked of the kernel: a program would take milliseconds.

use std::fmt;
use std::io;

use rustix::io::Errno;

use super::Version;
use crate::netlink::{Ask, Error, Message, Socket, Subsystem, attribute};

/// `NFNL_SUBSYS_NFTABLES` and `NFT_MSG_GETTABLE`, in `linux/netfilter/nf_tables.h`.
const GET_TABLE: u16 = 10 << 8 | 1;
const NFTA_TABLE_NAME: u16 = 1;

/// `NFT_MSG_GETCHAIN`.
const GET_CHAIN: u16 = 10 << 8 | 4;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;

/// Bytes of `struct nfgenmsg`, of which the first is the family.
const HEADER: usize = 4;

/// Another program may change the tables while they are listed.
const TRIES: usize = 5;

/// Which packets a table sees: `NFPROTO_*` in `linux/netfilter.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    /// IPv4 and IPv6.
    Inet,
    Ip,
    Ip6,
    Arp,
    Netdev,
    Bridge,
    /// One that this build does not know.
    Other(u8),
}

impl Family {
    /// Whether iptables of this version has its tables in it.
    pub(super) fn is_of(self, version: Version) -> bool {
        match version {
            Version::V4 => self == Self::Ip,
            Version::V6 => self == Self::Ip6,
        }
    }
}

impl From<u8> for Family {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Inet,
            2 => Self::Ip,
            3 => Self::Arp,
            5 => Self::Netdev,
            7 => Self::Bridge,
            10 => Self::Ip6,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Family {
    /// As nft(8) names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Arp => "arp",
            Self::Netdev => "netdev",
            Self::Bridge => "bridge",
            Self::Other(number) => return write!(f, "family-{number}"),
        })
    }
}

/// A table of nftables, whoever made it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NftTable {
    pub(super) family: Family,
    pub(super) name: String,
}

impl NftTable {
    /// Whether it has the name of one that iptables-nft and its kin make.
    pub(super) fn is_of_iptables(&self) -> bool {
        is_of_iptables(&self.family.to_string(), &self.name)
    }

    /// Whether it is the one that iptables-nft calls so.
    pub(super) fn is_of(&self, version: Version, name: &str) -> bool {
        let family = match version {
            Version::V4 => Family::Ip,
            Version::V6 => Family::Ip6,
        };
        self.family == family && self.name == name
    }
}

/// The same, of a family as nft(8) names it.
pub(super) fn is_of_iptables(family: &str, name: &str) -> bool {
    match family {
        "ip" | "ip6" => matches!(name, "filter" | "nat" | "mangle" | "raw" | "security"),
        // arptables-nft and ebtables-nft.
        "arp" => name == "filter",
        "bridge" => matches!(name, "filter" | "nat" | "broute"),
        _ => false,
    }
}

impl fmt::Display for NftTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}

/// A chain of nftables, whoever made it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NftChain {
    pub(super) table: NftTable,
    pub(super) name: String,
}

impl fmt::Display for NftChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.table, self.name)
    }
}

/// All tables of this network namespace, in order; none where the kernel has no nftables.
pub(super) fn tables() -> io::Result<Vec<NftTable>> {
    dump(GET_TABLE, table)
}

/// All chains, the same way.
pub(super) fn chains() -> io::Result<Vec<NftChain>> {
    dump(GET_CHAIN, |body| {
        let table = NftTable { family: (*body.first()?).into(), name: text(body, NFTA_CHAIN_TABLE)? };
        Some(NftChain { table, name: text(body, NFTA_CHAIN_NAME)? })
    })
}

fn dump<T: Ord>(kind: u16, read: impl Fn(&[u8]) -> Option<T>) -> io::Result<Vec<T>> {
    let mut socket = Socket::open(Subsystem::Netfilter)?;
    let mut tries = 1;
    loop {
        let mut all = vec![];
        // NFPROTO_UNSPEC: of every family.
        let done = socket.ask(Message::new(kind, Ask::Dump, &[0; HEADER]), |body| all.extend(read(body)));
        match done {
            Ok(()) => {
                all.sort();
                return Ok(all);
            }
            Err(Error::Socket(error)) if error.kind() == io::ErrorKind::Interrupted && tries < TRIES => {
                tries += 1;
            }
            Err(Error::Socket(error)) => return Err(error),
            Err(Error::Refused(errno)) if errno == Errno::INVAL.raw_os_error() => return Ok(vec![]),
            Err(Error::Refused(errno)) => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

fn table(body: &[u8]) -> Option<NftTable> {
    Some(NftTable { family: (*body.first()?).into(), name: text(body, NFTA_TABLE_NAME)? })
}

fn text(body: &[u8], kind: u16) -> Option<String> {
    let text = attribute(body.get(HEADER..)?, kind)?;
    Some(String::from_utf8_lossy(text.strip_suffix(b"\0").unwrap_or(text)).into_owned())
}

/// Whether the table `filter` is there; `None` where the kernel does not say.
pub(super) fn has_filter(version: Version) -> Option<bool> {
    // NFPROTO_IPV4 and NFPROTO_IPV6.
    let family = match version {
        Version::V4 => 2,
        Version::V6 => 10,
    };
    let mut request = Message::new(GET_TABLE, Ask::Get, &[family, 0, 0, 0]);
    request.put_text(NFTA_TABLE_NAME, "filter");
    match Socket::open(Subsystem::Netfilter).ok()?.ask(request, |_| {}) {
        Ok(()) => Some(true),
        Err(Error::Refused(errno)) if errno == Errno::NOENT.raw_os_error() => Some(false),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests;
