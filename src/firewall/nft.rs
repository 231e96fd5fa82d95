//! Whether there is a table of iptables-nft, asked of the kernel: a program would take milliseconds.

use rustix::io::Errno;

use super::Version;
use crate::netlink::{Ask, Error, Message, Socket, Subsystem};

/// `NFNL_SUBSYS_NFTABLES` and `NFT_MSG_GETTABLE`, in `linux/netfilter/nf_tables.h`.
const GET_TABLE: u16 = 10 << 8 | 1;
const NFTA_TABLE_NAME: u16 = 1;

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
