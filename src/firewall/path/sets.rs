//! Whether packets are in sets, asked of the kernel.

use std::collections::HashMap;
use std::net::IpAddr;

use anyhow::Context;

use super::{Member, Packet, Side};
use crate::kernel_sets::{Element, Family, Header, Ipset, Type};

/// The kernel's sets, each asked once about the same thing.
#[derive(Debug)]
pub struct Sets {
    kernel: Ipset,
    headers: HashMap<String, Option<Header>>,
    members: HashMap<String, Vec<String>>,
    answers: HashMap<(String, Element), bool>,
}

impl Sets {
    /// Those of the network namespace of this thread.
    pub fn open() -> anyhow::Result<Self> {
        let kernel = Ipset::open().context("cannot ask the kernel about sets")?;
        Ok(Self { kernel, headers: HashMap::new(), members: HashMap::new(), answers: HashMap::new() })
    }

    /// Whether a packet is in a set, as `-m set --match-set SET SIDES` has it; not known for a set of a kind, or sides of the packet,
    /// that are not known here.
    pub fn hold(&mut self, set: &str, sides: &[Side], packet: &Packet) -> anyhow::Result<Member> {
        let Some(header) = self.header(set)? else { return Ok(Member::NotKnown("is not there".to_owned())) };
        if header.type_name == Type::Sets.name() {
            return self.any(set, sides, packet);
        }
        let (_, dimensions) = header.type_name.split_once(':').unwrap_or_default();
        let dimensions: Vec<&str> = dimensions.split(',').collect();
        // As the kernel has it: more sides are passed over, with fewer nothing is in it.
        if sides.len() < dimensions.len() {
            return Ok(Member::Is(false));
        }
        let version = packet.version().family();
        if Family::of(header.family).is_some_and(|family| family != version) {
            return Ok(Member::Is(false));
        }
        match element(&dimensions, sides, packet) {
            Found::Element(element) => self.ask(set, element).map(Member::Is),
            Found::Side(what) => Ok(Member::Depends(format!("on {what}, for the set {set}"))),
            Found::OtherKind => {
                Ok(Member::NotKnown(format!("is of the kind {}, which is not understood", header.type_name)))
            }
        }
    }

    /// Whether an address is in a set of addresses or networks, or in a set of such sets; `None` for a set that is not there, or of
    /// another kind.
    pub fn contain(&mut self, set: &str, address: IpAddr) -> anyhow::Result<Option<bool>> {
        match self.hold(set, &[Side::Source], &Packet::udp(address, 0, []))? {
            Member::Is(member) => Ok(Some(member)),
            Member::Depends(_) | Member::NotKnown(_) => Ok(None),
        }
    }

    /// Whether it is in one of the sets of a set.
    fn any(&mut self, set: &str, sides: &[Side], packet: &Packet) -> anyhow::Result<Member> {
        if !self.members.contains_key(set) {
            let members = self.kernel.members(set).with_context(|| format!("cannot list the set {set}"))?;
            self.members.insert(set.to_owned(), members);
        }
        let mut answer = Member::Is(false);
        for member in self.members[set].clone() {
            // No set of sets is in another.
            match self.hold(&member, sides, packet)? {
                Member::Is(true) => return Ok(Member::Is(true)),
                Member::Is(false) => {}
                unknown @ (Member::Depends(_) | Member::NotKnown(_)) => answer = unknown,
            }
        }
        Ok(answer)
    }

    fn header(&mut self, set: &str) -> anyhow::Result<Option<Header>> {
        if let Some(header) = self.headers.get(set) {
            return Ok(header.clone());
        }
        let header = self.kernel.header(set).with_context(|| format!("cannot look at the set {set}"))?;
        self.headers.insert(set.to_owned(), header.clone());
        Ok(header)
    }

    fn ask(&mut self, set: &str, element: Element) -> anyhow::Result<bool> {
        let key = (set.to_owned(), element);
        if let Some(answer) = self.answers.get(&key) {
            return Ok(*answer);
        }
        let answer = self.kernel.has(set, &element).with_context(|| format!("cannot ask the set {set}"))?;
        self.answers.insert(key, answer);
        Ok(answer)
    }
}

/// What a packet is in a set.
enum Found {
    Element(Element),
    /// This of it is not known, in words.
    Side(&'static str),
    OtherKind,
}

/// What the packet is in a set of these dimensions: at most one address and one port.
fn element(dimensions: &[&str], sides: &[Side], packet: &Packet) -> Found {
    let mut element = Element::default();
    for (dimension, side) in dimensions.iter().zip(sides) {
        match *dimension {
            "ip" | "net" if element.address.is_none() => {
                let address = match side {
                    Side::Source => Some(packet.source),
                    Side::Destination => packet.destination,
                };
                let Some(address) = address else { return Found::Side("the host's address that it is for") };
                element.address = Some(address);
            }
            "port" if element.port.is_none() => {
                let port = match side {
                    Side::Source => packet.source_port,
                    Side::Destination => Some(packet.port),
                };
                let Some(port) = port else { return Found::Side("the port that it comes from") };
                element.port = Some(port);
                // A set of ports alone knows no protocols.
                element.protocol = element.address.map(|_| packet.protocol.number());
            }
            _ => return Found::OtherKind,
        }
    }
    Found::Element(element)
}
