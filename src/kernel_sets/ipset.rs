//! The kernel's ipset over netlink: what `ipset` does, without a process and a line of text for each entry.
//!
//! Commands and attributes are those of `linux/netfilter/ipset/ip_set.h`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;

use crate::address;
use crate::address_set::{Block, Ranges};
use crate::netlink::{self, Ask, MAX_ATTRIBUTE, Message, Socket, Subsystem, attribute, attributes};

/// Every kernel since 3.14 speaks it.
const PROTOCOL: u8 = 6;

const SUBSYSTEM: u16 = 6 << 8;
const CREATE: u16 = 2;
const DESTROY: u16 = 3;
const FLUSH: u16 = 4;
const SWAP: u16 = 6;
const LIST: u16 = 7;
const ADD: u16 = 9;
const DEL: u16 = 10;
const TEST: u16 = 11;
const TYPE: u16 = 13;

const ATTR_PROTOCOL: u16 = 1;
const ATTR_SETNAME: u16 = 2;
/// Also the second name where there are two.
const ATTR_TYPENAME: u16 = 3;
const ATTR_REVISION: u16 = 4;
const ATTR_FAMILY: u16 = 5;
const ATTR_FLAGS: u16 = 6;
const ATTR_DATA: u16 = 7;
const ATTR_ADT: u16 = 8;
const ATTR_LINENO: u16 = 9;

const ATTR_IP: u16 = 1;
const ATTR_CIDR: u16 = 3;
const ATTR_PORT: u16 = 4;
const ATTR_PORT_TO: u16 = 5;
const ATTR_TIMEOUT: u16 = 6;
const ATTR_PROTO: u16 = 7;
const ATTR_HASHSIZE: u16 = 18;
const ATTR_MAXELEM: u16 = 19;
const ATTR_NETMASK: u16 = 20;
const ATTR_ELEMENTS: u16 = 24;
const ATTR_NAME: u16 = 18;
const ATTR_SIZE: u16 = 23;
const ATTR_IPADDR_IPV4: u16 = 1;
const ATTR_IPADDR_IPV6: u16 = 2;

const FLAG_LIST_SETNAME: u32 = 2;
const FLAG_LIST_HEADER: u32 = 4;

/// Bytes an entry needs at most: two nests, an IPv6 address, a prefix or a timeout.
const LARGEST_ENTRY: usize = 40;

/// The smallest table the kernel makes unless told otherwise, and the most entries it lets into one.
const HASHSIZE: u32 = 1024;
const MAXELEM: u32 = 65_536;

/// How long to wait for sets that are busy, and between two tries. Who lists sets in a loop leaves them alone only while its next
/// process starts: a millisecond or two.
const BUSY: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(1);

/// An address family, as netlink and ipset number it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    V4 = 2,
    /// IPv6.
    V6 = 10,
}

impl Family {
    /// The family with this number; `None` is any other, also that of sets that hold no addresses.
    #[must_use]
    pub const fn of(number: u8) -> Option<Self> {
        match number {
            2 => Some(Self::V4),
            10 => Some(Self::V6),
            _ => None,
        }
    }

    /// As netlink has it where there may be none.
    const fn number(family: Option<Self>) -> u8 {
        match family {
            Some(family) => family as u8,
            None => 0,
        }
    }

    /// As `ipset` calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "inet",
            Self::V6 => "inet6",
        }
    }
}

/// What a set holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `hash:ip`: single addresses.
    Addresses,
    /// `hash:net`: networks.
    Networks,
    /// `bitmap:port`: ports, of whatever protocol.
    Ports,
    /// `list:set`: other sets; what is in one of them is in it.
    Sets,
}

impl Type {
    /// As `ipset` calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Addresses => "hash:ip",
            Self::Networks => "hash:net",
            Self::Ports => "bitmap:port",
            Self::Sets => "list:set",
        }
    }
}

/// What the kernel says of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// As `ipset` calls it.
    pub type_name: String,
    /// As netlink numbers it.
    pub family: u8,
    /// How many entries are in it.
    pub entries: u32,
}

impl Header {
    /// Whether it is of this type and family.
    #[must_use]
    pub fn is(&self, kind: Type, family: Option<Family>) -> bool {
        self.type_name == kind.name() && self.family == Family::number(family)
    }
}

/// How a set is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Make {
    /// What it holds.
    pub kind: Type,
    /// Of which family; `None` for ports and sets.
    pub family: Option<Family>,
    /// Laid out for so many.
    pub entries: u32,
    /// With room for so many, and at least for 65,536 and for `entries`.
    pub room: u32,
    /// Seconds after which an entry goes; `None` if none ever does.
    pub timeout: Option<u32>,
    /// Addresses with so many bits in common are one entry.
    pub netmask: Option<u8>,
}

impl Make {
    /// Without timeout and netmask.
    #[must_use]
    pub const fn plain(kind: Type, family: Option<Family>, entries: u32) -> Self {
        Self { kind, family, entries, room: entries, timeout: None, netmask: None }
    }
}

/// What may be in a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Element {
    /// Of sets of addresses and networks.
    pub address: Option<IpAddr>,
    /// Of sets of ports.
    pub port: Option<u16>,
    /// As IP numbers it, where a set has both.
    pub protocol: Option<u8>,
}

/// What of a set an address is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The address, or the network that it is in.
    pub network: IpNetwork,
    /// Seconds for which it stays; `None`: for good.
    pub left: Option<u32>,
}

/// Why the kernel refused, in words.
#[derive(Debug)]
pub struct Refusal(netlink::Error);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = match &self.0 {
            netlink::Error::Socket(error) => return error.fmt(f),
            netlink::Error::Refused(code) => *code,
        };
        f.write_str(match code {
            1 => "not permitted; run as root, or with CAP_NET_ADMIN",
            2 => "there is no such set",
            12 => "the kernel is out of memory",
            16 => "another program lists it (ipset list) and does not end",
            4100 => "it is in use; remove the rule or set that names it",
            // What the kernel says where nobody answers for ipset.
            22 | 95 => "the kernel does not know it; is the module ip_set there (modprobe ip_set)?",
            4098 => "the kernel has no such type of set; are the modules ip_set_hash_ip and ip_set_hash_net there?",
            4099 => "the kernel holds as many sets as it can",
            17 => "it is there already",
            4101 => "the set to swap it with is gone",
            4102 => "the two sets are of different types",
            4103 => "it is in the set already",
            4352 => "the set is full (maxelem)",
            4353 => "the kernel does not take this address",
            _ => return write!(f, "refused with code {code}"),
        })
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    fn is_not_there(&self) -> bool {
        matches!(self.0, netlink::Error::Refused(2))
    }

    /// `IPSET_ERR_HASH_ELEM`: 0.0.0.0 and :: are in no set.
    fn is_no_member(&self) -> bool {
        matches!(self.0, netlink::Error::Refused(4353))
    }

    /// What is tested and not there is refused by the same number.
    fn is_there_already(&self) -> bool {
        matches!(self.0, netlink::Error::Refused(4103))
    }

    /// While somebody lists a set, the kernel answers `EBUSY` to a swap, and `IPSET_ERR_BUSY` to a removal, as it does for a set
    /// that a rule names, and for a moment after that rule is gone.
    fn is_busy(&self) -> bool {
        matches!(self.0, netlink::Error::Refused(16 | 4100))
    }
}

type Result<T> = std::result::Result<T, Refusal>;

/// A connection to the kernel's ipset.
#[derive(Debug)]
pub struct Ipset {
    socket: Socket,
}

/// Addresses that ipset can hold.
pub trait Member: crate::address_set::Bits {
    /// Their family.
    const FAMILY: Family;
    /// The address in network byte order, as an attribute.
    fn put(self, message: &mut Message);
}

impl Member for u32 {
    const FAMILY: Family = Family::V4;

    fn put(self, message: &mut Message) {
        message.put_big_endian(ATTR_IPADDR_IPV4, &self.to_be_bytes());
    }
}

impl Member for u128 {
    const FAMILY: Family = Family::V6;

    fn put(self, message: &mut Message) {
        message.put_big_endian(ATTR_IPADDR_IPV6, &self.to_be_bytes());
    }
}

/// The entries of `ranges` for a set of this type: single addresses, or the networks that are larger; without a type, both.
pub(super) fn members<T: Member>(ranges: &Ranges<T>, kind: Option<Type>) -> impl Iterator<Item = Block<T>> {
    let single = kind.map(|kind| kind == Type::Addresses);
    ranges.blocks().flat_map(halves).filter(move |block| {
        single.is_none_or(|single| (block.prefix == T::WIDTH) == single)
            && !(single == Some(true) && is_unspecified(block.start))
    })
}

/// 0.0.0.0 and :: are no members of `hash:ip`: the kernel refuses them there (4353), and one of them in a list would make
/// every load fail. No packet that a rule could want to match comes from there. Networks with them in it are taken.
fn is_unspecified<T: Member>(address: T) -> bool {
    address.low_zeros() == T::WIDTH
}

/// ipset holds no network of 0 bits, but the two halves of it.
fn halves<T: Member>(block: Block<T>) -> impl Iterator<Item = Block<T>> {
    let upper = (block.prefix == 0)
        .then(|| Block { start: block.start.filled(T::WIDTH).cleared(T::WIDTH - 1), prefix: 1 });
    std::iter::once(Block { prefix: block.prefix.max(1), ..block }).chain(upper)
}

impl Ipset {
    /// Opens the connection, in the network namespace of this thread.
    pub fn open() -> Result<Self> {
        match Socket::open(Subsystem::Netfilter) {
            Ok(socket) => Ok(Self { socket }),
            Err(error) => Err(Refusal(error.into())),
        }
    }

    /// Makes an empty set.
    pub fn create(&mut self, name: &str, make: &Make) -> Result<()> {
        let Make { kind, family, entries, room, timeout, netmask } = *make;
        let revision = self.revision(kind, family)?;
        let mut message = request(CREATE, Ask::Create);
        message.put_text(ATTR_SETNAME, name);
        message.put_text(ATTR_TYPENAME, kind.name());
        message.put(ATTR_REVISION, &[revision]);
        message.put(ATTR_FAMILY, &[Family::number(family)]);
        let data = message.begin_nest(ATTR_DATA);
        match kind {
            Type::Addresses | Type::Networks => {
                // A bucket that would get more than 12 entries makes the kernel build a table of twice the size, with all that is
                // in it. Among many buckets of nearly four entries that is certain to happen to one; of two, it nearly never does.
                let hashsize = (entries / 2).next_power_of_two().max(HASHSIZE);
                message.put_big_endian(ATTR_HASHSIZE, &hashsize.to_be_bytes());
                message.put_big_endian(ATTR_MAXELEM, &entries.max(room).max(MAXELEM).to_be_bytes());
            }
            Type::Ports => {
                message.put_big_endian(ATTR_PORT, &0_u16.to_be_bytes());
                message.put_big_endian(ATTR_PORT_TO, &u16::MAX.to_be_bytes());
            }
            Type::Sets => message.put_big_endian(ATTR_SIZE, &entries.to_be_bytes()),
        }
        if let Some(seconds) = timeout {
            message.put_big_endian(ATTR_TIMEOUT, &seconds.to_be_bytes());
        }
        if let Some(bits) = netmask {
            message.put(ATTR_NETMASK, &[bits]);
        }
        message.end_nest(data);
        self.ask(message)
    }

    /// The newest revision of the type that the kernel has, as `ipset` takes it.
    fn revision(&mut self, kind: Type, family: Option<Family>) -> Result<u8> {
        let mut message = request(TYPE, Ask::Get);
        message.put_text(ATTR_TYPENAME, kind.name());
        message.put(ATTR_FAMILY, &[Family::number(family)]);
        let mut revision = 0;
        self.socket
            .ask(message, |body| {
                if let Some([newest]) = body.get(4..).and_then(|body| attribute(body, ATTR_REVISION)) {
                    revision = *newest;
                }
            })
            .map_err(Refusal)?;
        Ok(revision)
    }

    /// Adds entries that are not in the set yet.
    pub fn add<T: Member>(&mut self, name: &str, entries: impl Iterator<Item = Block<T>>) -> Result<()> {
        self.each(ADD, Ask::Create, name, entries, put_block)
    }

    /// Adds entries to a set with timeouts, each for so many seconds, with none for ever; for one that is there already they begin
    /// anew.
    pub fn refresh<T: Member>(
        &mut self,
        name: &str,
        entries: impl Iterator<Item = (Block<T>, u32)>,
    ) -> Result<()> {
        self.each(ADD, Ask::Do, name, entries, |(block, seconds), message| {
            put_block(block, message);
            message.put_big_endian(ATTR_TIMEOUT, &seconds.to_be_bytes());
        })
    }

    /// Removes entries, where they are there.
    pub fn remove<T: Member>(&mut self, name: &str, entries: impl Iterator<Item = Block<T>>) -> Result<()> {
        self.each(DEL, Ask::Do, name, entries, put_block)
    }

    /// Removes one network, where it is there.
    pub fn take_out(&mut self, name: &str, network: IpNetwork) -> Result<()> {
        match network {
            IpNetwork::V4(network) => self.remove(name, std::iter::once(Block::from(network))),
            IpNetwork::V6(network) => self.remove(name, std::iter::once(Block::from(network))),
        }
    }

    /// Removes all entries, and leaves the set.
    pub fn flush(&mut self, name: &str) -> Result<()> {
        let mut message = request(FLUSH, Ask::Do);
        message.put_text(ATTR_SETNAME, name);
        self.ask(message)
    }

    /// Does the same with many entries, in few messages.
    fn each<E>(
        &mut self,
        command: u16,
        ask: Ask,
        name: &str,
        entries: impl Iterator<Item = E>,
        put: impl Fn(E, &mut Message),
    ) -> Result<()> {
        let mut entries = entries.peekable();
        while entries.peek().is_some() {
            let mut message = request(command, ask);
            message.put_text(ATTR_SETNAME, name);
            // Many entries in one message need it, though nobody reads it.
            message.put(ATTR_LINENO, &0_u32.to_ne_bytes());
            let many = message.begin_nest(ATTR_ADT);
            while message.length_of(&many) + LARGEST_ENTRY <= MAX_ATTRIBUTE
                && let Some(entry) = entries.next()
            {
                let one = message.begin_nest(ATTR_DATA);
                put(entry, &mut message);
                message.end_nest(one);
            }
            message.end_nest(many);
            self.ask(message)?;
        }
        Ok(())
    }

    /// Adds ports from the first to the last.
    pub fn add_ports(&mut self, name: &str, first: u16, last: u16) -> Result<()> {
        self.add_one(name, |message| {
            message.put_big_endian(ATTR_PORT, &first.to_be_bytes());
            message.put_big_endian(ATTR_PORT_TO, &last.to_be_bytes());
        })
    }

    /// Adds another set, unless it is in it.
    pub fn add_set(&mut self, name: &str, member: &str) -> Result<()> {
        match self.add_one(name, |message| message.put_text(ATTR_NAME, member)) {
            Err(refusal) if refusal.is_there_already() => Ok(()),
            done => done,
        }
    }

    fn add_one(&mut self, name: &str, put: impl FnOnce(&mut Message)) -> Result<()> {
        let mut message = request(ADD, Ask::Do);
        message.put_text(ATTR_SETNAME, name);
        let data = message.begin_nest(ATTR_DATA);
        put(&mut message);
        message.end_nest(data);
        self.ask(message)
    }

    /// The names of all sets that there are, whoever made them.
    pub fn names(&mut self) -> Result<Vec<String>> {
        let mut message = request(LIST, Ask::Dump);
        message.put_big_endian(ATTR_FLAGS, &FLAG_LIST_SETNAME.to_be_bytes());
        let mut names = vec![];
        self.socket
            .ask(message, |body| {
                if let Some(name) = body.get(4..).and_then(|body| attribute(body, ATTR_SETNAME)) {
                    names.push(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned());
                }
            })
            .map_err(Refusal)?;
        Ok(names)
    }

    /// What the kernel says of the set; `None` if it is not there.
    pub fn header(&mut self, name: &str) -> Result<Option<Header>> {
        let mut message = request(LIST, Ask::Dump);
        message.put_text(ATTR_SETNAME, name);
        message.put_big_endian(ATTR_FLAGS, &FLAG_LIST_HEADER.to_be_bytes());
        let mut header = None;
        let asked = self.socket.ask(message, |body| {
            let body = body.get(4..).unwrap_or_default();
            let data = attribute(body, ATTR_DATA).unwrap_or_default();
            let (type_name, family) = (attribute(body, ATTR_TYPENAME), attribute(body, ATTR_FAMILY));
            if let (Some(type_name), Some([family])) = (type_name, family) {
                let type_name = String::from_utf8_lossy(type_name).trim_end_matches('\0').to_owned();
                let entries = attribute(data, ATTR_ELEMENTS).and_then(|value| value.first_chunk());
                let entries = entries.map_or(0, |bytes| u32::from_be_bytes(*bytes));
                header = Some(Header { type_name, family: *family, entries });
            }
        });
        match asked.map_err(Refusal) {
            Ok(()) => Ok(header),
            Err(refusal) if refusal.is_not_there() => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// Whether something is in a set, which is of a type that holds such things: of any other nothing is in it. An address is in a set
    /// of networks if it is in one of them.
    pub fn has(&mut self, name: &str, element: &Element) -> Result<bool> {
        let mut message = request(TEST, Ask::Do);
        message.put_text(ATTR_SETNAME, name);
        let data = message.begin_nest(ATTR_DATA);
        if let Some(address) = element.address {
            let ip = message.begin_nest(ATTR_IP);
            match address {
                IpAddr::V4(address) => address.to_bits().put(&mut message),
                IpAddr::V6(address) => address.to_bits().put(&mut message),
            }
            message.end_nest(ip);
        }
        if let Some(port) = element.port {
            message.put_big_endian(ATTR_PORT, &port.to_be_bytes());
        }
        if let Some(protocol) = element.protocol {
            message.put(ATTR_PROTO, &[protocol]);
        }
        message.end_nest(data);
        match self.ask(message) {
            Ok(()) => Ok(true),
            Err(refusal) if refusal.is_there_already() => Ok(false),
            Err(refusal) => Err(refusal),
        }
    }

    /// What of a set an address is in, the smallest; `None` if it is in nothing of it, or the set is not there. Reads the whole set
    /// where it is in: milliseconds for ten thousand.
    pub fn find(&mut self, name: &str, address: IpAddr) -> Result<Option<Entry>> {
        match self.has(name, &Element { address: Some(address), ..Element::default() }) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(refusal) if refusal.is_not_there() || refusal.is_no_member() => return Ok(None),
            Err(refusal) => return Err(refusal),
        }
        let mut message = request(LIST, Ask::Dump);
        message.put_text(ATTR_SETNAME, name);
        // Of a set with a netmask, the kernel shows the first address of each network, and no prefix.
        let near = address::neighbourhood(address, 64);
        let (mut found, mut masked): (Option<Entry>, Option<Entry>) = (None, None);
        let mut consider = |entry: Entry| {
            if entry.network.contains(address) {
                found = found.filter(|found| found.network.prefix() > entry.network.prefix()).or(Some(entry));
            } else if entry.network == IpNetwork::from(near.ip()) {
                masked = Some(Entry { network: near, ..entry });
            }
        };
        let asked = self.socket.ask(message, |body| {
            let entries = attribute(body.get(4..).unwrap_or_default(), ATTR_ADT).unwrap_or_default();
            attributes(entries).filter_map(|(_, data)| entry(data)).for_each(&mut consider);
        });
        match asked.map_err(Refusal) {
            // It may have gone meanwhile.
            Ok(()) => Ok(found.or(masked)),
            Err(refusal) if refusal.is_not_there() => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// The names of the sets in a set of sets, in order.
    pub fn members(&mut self, name: &str) -> Result<Vec<String>> {
        let mut message = request(LIST, Ask::Dump);
        message.put_text(ATTR_SETNAME, name);
        let mut names = vec![];
        let each = |body: &[u8]| {
            let entries = body.get(4..).and_then(|body| attribute(body, ATTR_ADT)).unwrap_or_default();
            let datas = attributes(entries).filter(|(kind, _)| *kind == ATTR_DATA);
            let member = datas.filter_map(|(_, data)| attribute(data, ATTR_NAME));
            names.extend(member.map(|name| String::from_utf8_lossy(name).trim_end_matches('\0').to_owned()));
        };
        self.socket.ask(message, each).map_err(Refusal)?;
        Ok(names)
    }

    /// Exchanges the content of two sets, in one step. Waits a while for those that are busy.
    pub fn swap(&mut self, one: &str, other: &str) -> Result<()> {
        self.ask_while_busy(|| {
            let mut message = request(SWAP, Ask::Do);
            message.put_text(ATTR_SETNAME, one);
            message.put_text(ATTR_TYPENAME, other);
            message
        })
    }

    /// Removes a set, if it is there. Waits a while for one that is busy.
    pub fn destroy(&mut self, name: &str) -> Result<()> {
        let done = self.ask_while_busy(|| {
            let mut message = request(DESTROY, Ask::Do);
            message.put_text(ATTR_SETNAME, name);
            message
        });
        match done {
            Err(refusal) if refusal.is_not_there() => Ok(()),
            done => done,
        }
    }

    fn ask_while_busy(&mut self, message: impl Fn() -> Message) -> Result<()> {
        let deadline = Instant::now() + BUSY;
        loop {
            match self.ask(message()) {
                Err(refusal) if refusal.is_busy() && Instant::now() < deadline => std::thread::sleep(PAUSE),
                done => return done,
            }
        }
    }

    fn ask(&mut self, message: Message) -> Result<()> {
        self.socket.ask(message, |_| {}).map_err(Refusal)
    }
}

fn put_block<T: Member>(block: Block<T>, message: &mut Message) {
    let ip = message.begin_nest(ATTR_IP);
    block.start.put(message);
    message.end_nest(ip);
    if block.prefix < T::WIDTH {
        message.put(ATTR_CIDR, &[block.prefix]);
    }
}

/// An entry as the kernel lists it.
fn entry(data: &[u8]) -> Option<Entry> {
    let ip = attribute(data, ATTR_IP)?;
    let v4 = || Some(Ipv4Addr::from(*attribute(ip, ATTR_IPADDR_IPV4)?.first_chunk::<4>()?).into());
    let v6 = || Some(Ipv6Addr::from(*attribute(ip, ATTR_IPADDR_IPV6)?.first_chunk::<16>()?).into());
    let address: IpAddr = v4().or_else(v6)?;
    let network = match attribute(data, ATTR_CIDR) {
        Some([prefix]) => IpNetwork::new(address, *prefix).ok()?,
        _ => address.into(),
    };
    let left = attribute(data, ATTR_TIMEOUT).and_then(|bytes| bytes.first_chunk());
    // For ever is 0.
    let left = left.map(|bytes| u32::from_be_bytes(*bytes)).filter(|left| *left > 0);
    Some(Entry { network, left })
}

/// Begins a request with nfgenmsg, which ipset leaves unset, and the protocol.
fn request(command: u16, ask: Ask) -> Message {
    let mut message = Message::new(SUBSYSTEM | command, ask, &[Family::V4 as u8, 0, 0, 0]);
    message.put(ATTR_PROTOCOL, &[PROTOCOL]);
    message
}
