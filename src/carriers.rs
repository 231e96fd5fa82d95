//! Who the carriers (SIP providers) of this FusionPBX are, as networks, each with a name for people.
//!
//! FusionPBX knows them twice: as networks that an access control list lets in, and as gateways, whose hosts are
//! looked up as SIP does it (RFC 3263) and remembered, so that a failing name server makes no carrier a stranger.
//! Where in doubt, more is a carrier's: the addresses of all ways to a gateway count.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::deadline::Deadline;
use crate::evidence::visible_within;
use crate::postgres::Target;

mod database;
mod host;
mod known;
mod network;
mod resolver;

pub use known::{Known, KnownHost};
pub use resolver::Resolver;

use known::After;

use database::{Gateway, MAX_CIDR, MAX_ROWS, Node, Rows};
use host::Host;
use network::Reach;

/// Names are cut to this many bytes; a tenant may have chosen them.
const MAX_NAME: usize = 64;

/// More notes than this are only counted, and more names that did not resolve.
const MAX_NOTES: usize = 50;

/// A SIP provider, or one host of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carrier {
    /// For people, safe to print: `gateway acme (sip.acme.example)`, `access control providers (Acme SBC)`.
    pub name: String,
    /// Its networks: at least one, sorted, without host bits, all on the Internet, none wider than /8 (IPv4) or /19
    /// (IPv6). IPv4-mapped IPv6 is the IPv4 that it stands for.
    pub networks: Vec<IpNetwork>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Sorted by name; no name is there twice.
    pub carriers: Vec<Carrier>,
    /// What to hand to the next [`find`].
    pub known: Known,
    /// What was skipped, and which names did not resolve but have the addresses that they had; for people, safe to
    /// print.
    pub notes: Vec<String>,
    /// Gateways' host names without any address, now or remembered: these carriers are strangers, and cannot be
    /// protected. For people, safe to print; not among the notes.
    pub unresolved: Vec<String>,
}

/// Reads the access control lists and gateways of FusionPBX's own database (`target`, see
/// [`own_database`](crate::fusionpbx::FusionPbx::own_database)) and looks the gateways' hosts up.
///
/// `known` is what the last call made known, `now` is in seconds since 1970. Names that are not answered by
/// `deadline` have the addresses that are known of them.
///
/// An error says that the database could not be read, or is not FusionPBX's.
pub async fn find(
    target: &Target,
    names: &Resolver,
    known: &Known,
    now: i64,
    deadline: Deadline,
) -> anyhow::Result<Found> {
    let rows = database::read(target, deadline).await?;
    Ok(gather(&rows, names, known, now, deadline).await)
}

async fn gather(rows: &Rows, names: &Resolver, known: &Known, now: i64, deadline: Deadline) -> Found {
    let mut draft = Draft::default();
    draft.add_nodes(&rows.nodes);
    draft.add_gateways(&rows.gateways);
    let answers = names.look_up(&draft.wanted, deadline).await;
    let After { known, notes, unresolved } = known.after(&answers, now);
    for note in notes {
        draft.notes.add(note);
    }
    for name in unresolved {
        draft.unresolved.add(name);
    }
    for (carrier, name) in std::mem::take(&mut draft.hosts) {
        for address in known.hosts.get(&name).into_iter().flat_map(|host| host.addresses.keys()) {
            draft.add_address(&carrier, *address);
        }
    }
    draft.finish(known)
}

/// What is gathered before it is put in order.
#[derive(Debug, Default)]
struct Draft {
    networks: BTreeMap<String, BTreeSet<IpNetwork>>,
    /// Carriers' names with the host names that they have addresses of.
    hosts: BTreeSet<(String, String)>,
    /// Host names to look up, and whether by their services too.
    wanted: BTreeMap<String, bool>,
    notes: Notes,
    unresolved: Notes,
}

/// Texts for people, the first few of which are kept.
#[derive(Debug, Default)]
struct Notes {
    first: Vec<String>,
    /// So many are not in `first`.
    more: usize,
}

impl Notes {
    fn add(&mut self, note: String) {
        if self.first.len() < MAX_NOTES {
            self.first.push(note);
        } else {
            self.more += 1;
        }
    }

    fn finish(mut self) -> Vec<String> {
        if self.more > 0 {
            self.first.push(format!("and {} more like these", self.more));
        }
        self.first
    }
}

impl Draft {
    fn add_nodes(&mut self, nodes: &[Node]) {
        let mut without_network = BTreeMap::<String, usize>::new();
        for node in nodes.iter().take(MAX_ROWS) {
            let carrier = match shown(&node.description) {
                description if description.is_empty() => format!("access control {}", shown(&node.list)),
                description => format!("access control {} ({description})", shown(&node.list)),
            };
            if node.cidr.chars().count() > MAX_CIDR {
                self.notes.add(format!("{carrier}: more than {MAX_CIDR} characters of networks; skipped"));
            } else if node.cidr.trim().is_empty() {
                *without_network.entry(carrier).or_default() += 1;
            } else {
                // FreeSWITCH takes several with commas: switch_network_list_add_cidr_token.
                for cidr in node.cidr.split(',').filter(|cidr| !cidr.trim().is_empty()) {
                    self.add_cidr(&carrier, cidr);
                }
            }
        }
        for (carrier, count) in without_network {
            self.notes.add(format!("{carrier}: {count} without a network; skipped"));
        }
        self.note_more("access control nodes", nodes.len());
    }

    fn add_cidr(&mut self, carrier: &str, cidr: &str) {
        let Some(network) = network::parse(cidr) else {
            self.notes.add(format!("{carrier}: {:?} is no network; skipped", shown(cidr)));
            return;
        };
        match network::reach(network) {
            Reach::Public => {
                self.networks.entry(carrier.to_owned()).or_default().insert(network);
            }
            Reach::TooWide => {
                self.notes.add(format!("{carrier}: {network} is wider than any carrier's; skipped"));
            }
            // The administrator's own network is let in, too; it is no carrier's.
            Reach::Special => {}
        }
    }

    fn add_gateways(&mut self, gateways: &[Gateway]) {
        for gateway in gateways.iter().take(MAX_ROWS) {
            let name = shown(&gateway.name);
            for proxy in gateway.proxies.iter().filter(|proxy| !proxy.trim().is_empty()) {
                match host::parse(proxy) {
                    Some(Host::Address(address)) => {
                        self.add_address(&format!("gateway {name} ({address})"), address);
                    }
                    Some(Host::Name { name: host, services }) => {
                        *self.wanted.entry(host.clone()).or_default() |= services;
                        self.hosts.insert((format!("gateway {name} ({})", shown(&host)), host));
                    }
                    None => self.notes.add(format!(
                        "gateway {name}: {:?} is neither a host name nor an address; skipped",
                        shown(proxy)
                    )),
                }
            }
        }
        self.note_more("gateways", gateways.len());
    }

    fn add_address(&mut self, carrier: &str, address: IpAddr) {
        if let Some(network) = network::public_host(address) {
            self.networks.entry(carrier.to_owned()).or_default().insert(network);
        }
    }

    fn note_more(&mut self, what: &str, rows: usize) {
        if rows > MAX_ROWS {
            self.notes.add(format!("more than {MAX_ROWS} {what}; the others are skipped"));
        }
    }

    fn finish(self, known: Known) -> Found {
        let carriers = self
            .networks
            .into_iter()
            .map(|(name, networks)| Carrier { name, networks: networks.into_iter().collect() });
        Found {
            carriers: carriers.collect(),
            known,
            notes: self.notes.finish(),
            unresolved: self.unresolved.finish(),
        }
    }
}

/// Foreign text, safe to print.
fn shown(text: &str) -> String {
    visible_within(text.trim(), MAX_NAME)
}

#[cfg(test)]
mod tests;
