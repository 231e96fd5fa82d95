//! What belongs to this host and must never be blocked: its own addresses, its routers, its resolvers, and who is
//! logged in. Read from the kernel and from local files; nothing is sent to the network.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::state_file;

mod names;
mod network;
mod ports;
mod resolvers;
mod sessions;

pub use names::named_addresses;
pub use network::{Interface, addresses, gateways, interfaces, tracked_connections, uplinks, with_addresses};
pub use ports::listening;

/// Where to look.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Files in the form of resolv.conf(5); each that is there is read.
    pub resolv_conf: Vec<PathBuf>,
    /// Who is logged in, utmp(5).
    pub utmp: PathBuf,
    /// The session files of systemd-logind.
    pub sessions: PathBuf,
}

impl Default for Paths {
    /// The usual places. The second resolv.conf is where systemd-resolved names the servers behind its stub.
    fn default() -> Self {
        Self {
            resolv_conf: vec!["/etc/resolv.conf".into(), "/run/systemd/resolve/resolv.conf".into()],
            utmp: "/run/utmp".into(),
            sessions: "/run/systemd/sessions".into(),
        }
    }
}

/// What must never be blocked. Each list is in order and has no address twice; loopback and link-local addresses are
/// in it where the host uses them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protected {
    /// The addresses of all interfaces.
    pub own: Vec<IpAddr>,
    /// The next hops of all routes.
    pub gateways: Vec<IpAddr>,
    /// The name servers.
    pub resolvers: Vec<IpAddr>,
    /// Where authenticated login sessions come from.
    pub login_peers: Vec<IpAddr>,
    /// What could not be read, and why: something may be missing above.
    pub problems: Vec<String>,
}

/// Gathers all of it, in the network namespace of this thread. What cannot be read does not hide the rest; what is not
/// there at all (many hosts have no utmp) is no problem.
#[must_use]
pub fn protected(paths: &Paths) -> Protected {
    let mut problems = Vec::new();
    let mut kernel = |read: anyhow::Result<Vec<IpAddr>>| {
        read.unwrap_or_else(|error| {
            problems.push(format!("{error:#}"));
            vec![]
        })
    };
    let (own, gateways) = (kernel(addresses()), kernel(gateways()));
    let mut resolvers = Gathered::default();
    for file in &paths.resolv_conf {
        resolvers::read(file, &mut resolvers);
    }
    let mut peers = Gathered::default();
    sessions::read_utmp(&paths.utmp, &mut peers);
    sessions::read_logind(&paths.sessions, &mut peers);
    problems.extend(resolvers.problems);
    problems.extend(peers.problems);
    Protected {
        own,
        gateways,
        resolvers: resolvers.addresses.into_iter().collect(),
        login_peers: peers.addresses.into_iter().collect(),
        problems,
    }
}

/// What files say.
#[derive(Debug, Default)]
struct Gathered {
    addresses: BTreeSet<IpAddr>,
    problems: Vec<String>,
}

impl Gathered {
    /// The content of a file of at most `limit` bytes; one that is not there says nothing. `what` it has is for people.
    fn read(&mut self, file: &Path, limit: u64, what: &str) -> Option<Vec<u8>> {
        match state_file::read_regular(file, limit) {
            Ok(content) => Some(content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.problems.push(format!("cannot read the {what} {}: {error}", file.display()));
                None
            }
        }
    }
}

/// The address in `text`; a zone id (`%eth0`) is cut off.
fn address(text: &str) -> Option<IpAddr> {
    crate::address::parse_text(text.split('%').next()?)
}

/// Foreign text for a line of a report.
fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    format!("{:?}", &text[..text.floor_char_boundary(LONGEST)])
}

#[cfg(test)]
mod tests;
