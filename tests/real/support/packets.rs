//! Packets of any kind from outside, and which of them the host's rules let in.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, ipproto, netlink, recv, send,
    socket_with, sockopt,
};

use super::pbx::{PBX, once_free};
use super::sip::Wire;
use super::{Host, Pbx};

/// More addresses outside, each of them in both families.
pub const STRANGERS: [[&str; 2]; 6] = [
    ["198.51.100.1", "2001:db8:1001::1"],
    ["198.51.100.2", "2001:db8:1002::1"],
    ["198.51.100.3", "2001:db8:1003::1"],
    ["198.51.100.4", "2001:db8:1004::1"],
    // One site: addresses beside each other.
    ["198.51.100.5", "2001:db8:1005::1"],
    ["198.51.100.6", "2001:db8:1005::2"],
];

/// Packets from here to this port arrive always, behind all others.
const WITNESSES: [&str; 2] = ["198.51.100.99", "2001:db8:1099::1"];
const OPEN_PORT: u16 = 20_000;

/// Flags of TCP.
pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const URG: u8 = 0x20;

/// What can be heard: each with whether it is over IPv6.
const KINDS: [(Protocol, bool); 4] =
    [(Protocol::Udp, false), (Protocol::Udp, true), (Protocol::Tcp(0), false), (Protocol::Tcp(0), true)];

/// Tells packets of ours from others, together with the number behind it.
const MARK: u32 = 0x5246_0000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Protocol {
    Udp,
    /// With these flags.
    Tcp(u8),
}

/// One from an address outside to a port of the host, out of a port of its own: the first of its flow.
#[derive(Clone, Debug)]
pub struct Packet {
    from: IpAddr,
    port: u16,
    protocol: Protocol,
    payload: Vec<u8>,
}

/// A packet of UDP.
pub fn udp(from: &str, port: u16, payload: impl AsRef<[u8]>) -> Packet {
    Packet { from: from.parse().unwrap(), port, protocol: Protocol::Udp, payload: payload.as_ref().to_vec() }
}

/// A segment of TCP that belongs to no connection.
pub fn tcp(from: &str, port: u16, flags: u8, payload: impl AsRef<[u8]>) -> Packet {
    Packet { protocol: Protocol::Tcp(flags), ..udp(from, port, payload) }
}

impl Packet {
    /// What is behind the header of IP; `number` is told from it again.
    fn segment(&self, to: IpAddr, number: u32) -> Vec<u8> {
        let from_port = 1024 + u16::try_from(number % 60_000).unwrap();
        let mut segment = [from_port.to_be_bytes(), self.port.to_be_bytes()].concat();
        let at = match self.protocol {
            Protocol::Udp => {
                let length = u16::try_from(8 + self.payload.len() + 4).unwrap();
                segment.extend(length.to_be_bytes());
                segment.extend([0; 2]);
                segment.extend(&self.payload);
                segment.extend((MARK + number).to_be_bytes());
                6
            }
            Protocol::Tcp(flags) => {
                segment.extend((MARK + number).to_be_bytes());
                segment.extend(1_u32.to_be_bytes());
                segment.extend([5 << 4, flags, 0x20, 0, 0, 0, 0, 0]);
                segment.extend(&self.payload);
                16
            }
        };
        let sum = checksum(self.from, to, self.protocol.number(), &segment);
        segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        segment
    }
}

impl Protocol {
    const fn number(self) -> u8 {
        match self {
            Self::Udp => 17,
            Self::Tcp(_) => 6,
        }
    }

    /// A socket that has all packets of it that the rules let in, and sends any.
    fn socket(self, ipv6: bool) -> UdpSocket {
        let family = if ipv6 { AddressFamily::INET6 } else { AddressFamily::INET };
        let protocol = if self == Self::Udp { ipproto::UDP } else { ipproto::TCP };
        socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol)).unwrap().into()
    }
}

/// Of the packet and what IP adds to it: RFC 9293, section 3.1.
fn checksum(from: IpAddr, to: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let length = u32::try_from(segment.len()).unwrap();
    let mut bytes = [octets(from), octets(to), length.to_be_bytes().to_vec(), vec![0, protocol]].concat();
    bytes.extend(segment);
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// What became of packets that were sent one after another.
#[derive(Debug)]
pub struct Sent {
    /// Of each, in order.
    pub arrived: Vec<bool>,
    /// The longest time between two of them.
    pub pause: Duration,
    /// From the first to the last.
    pub took: Duration,
}

/// The host's way in.
pub struct Gate<'a> {
    pbx: &'a Pbx,
    /// What gets in, of each of [`KINDS`].
    ears: [UdpSocket; 4],
    next: AtomicU32,
}

impl<'a> Gate<'a> {
    pub fn new(pbx: &'a Pbx) -> Self {
        let ears = pbx.host.inside(|| KINDS.map(|(protocol, ipv6)| protocol.socket(ipv6)));
        for ear in &ears {
            sockopt::set_socket_recv_buffer_size_force(ear, 16 << 20).unwrap();
            ear.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        }
        let gate = Self { pbx, ears, next: AtomicU32::new(0) };
        gate.host(STRANGERS.as_flattened().iter().chain(&WITNESSES).copied());
        gate
    }

    /// From these addresses packets may come too.
    pub fn host<'b>(&self, addresses: impl IntoIterator<Item = &'b str>) {
        let nodad = |address: &str| if address.contains(':') { "nodad" } else { "" };
        let add = |address: &&str| format!("ip addr replace {address} dev eth0 {}\n", nodad(address));
        let meet = |address: &&str| format!("ip neigh replace {address} lladdr 02:00:00:00:00:02 dev eth0\n");
        let addresses: Vec<&str> = addresses.into_iter().collect();
        self.pbx.outside.shell(&addresses.iter().map(add).collect::<String>());
        self.pbx.host.shell(&addresses.iter().map(meet).collect::<String>());
    }

    /// Sends them, one each `pace` if the machine can.
    #[track_caller]
    pub fn send(&self, packets: &[Packet], pace: Duration) -> Sent {
        let witnesses = WITNESSES.map(|from| udp(from, OPEN_PORT, "witness"));
        let count = u32::try_from(packets.len()).unwrap();
        let first = self.next.fetch_add(count + 2, Ordering::Relaxed);
        let (pause, took) = self.pbx.outside.inside(|| {
            stay_on_one_processor();
            let mut sockets = BTreeMap::new();
            let mut transmit = |packet: &Packet, number: u32| {
                let ipv6 = packet.from.is_ipv6();
                let socket = sockets.entry((packet.from, packet.protocol.number())).or_insert_with(|| {
                    let socket = packet.protocol.socket(ipv6);
                    bind(&socket, &SocketAddr::new(packet.from, 0)).unwrap();
                    socket
                });
                let to: IpAddr = PBX[usize::from(ipv6)].parse().unwrap();
                socket.send_to(&packet.segment(to, number), (to, 0)).unwrap();
            };
            let start = Instant::now();
            let (mut last, mut pause) = (start, Duration::ZERO);
            for (packet, number) in packets.iter().zip(first..) {
                let due = start + pace * (number - first);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                transmit(packet, number);
                pause = pause.max(last.elapsed());
                last = Instant::now();
            }
            let took = start.elapsed();
            for (witness, number) in witnesses.iter().zip(first + count..) {
                transmit(witness, number);
            }
            (pause, took)
        });
        let heard = self.heard([first + count, first + count + 1]);
        let arrived = (first..first + count).map(|number| heard.contains(&number)).collect();
        Sent { arrived, pause, took }
    }

    /// The numbers of all that arrived, up to the witnesses.
    #[track_caller]
    fn heard(&self, witnesses: [u32; 2]) -> BTreeSet<u32> {
        let mut heard = BTreeSet::new();
        let witnesses = witnesses.map(Some).into_iter().chain([None, None]);
        for ((ear, (protocol, ipv6)), witness) in self.ears.iter().zip(KINDS).zip(witnesses) {
            let mut buffer = [0; 3000];
            ear.set_nonblocking(witness.is_none()).unwrap();
            while witness.is_none_or(|witness| !heard.contains(&witness)) {
                match ear.recv(&mut buffer) {
                    Ok(length) => heard.extend(number(&buffer[..length], protocol, ipv6)),
                    Err(error) if witness.is_some() => panic!("the witness: {error}"),
                    Err(_) => break,
                }
            }
        }
        heard
    }

    /// Which of them arrive.
    #[track_caller]
    pub fn let_in(&self, packets: &[Packet]) -> Vec<bool> {
        self.send(packets, Duration::ZERO).arrived
    }

    /// How many of them arrive.
    #[track_caller]
    pub fn count(&self, packets: &[Packet]) -> usize {
        self.let_in(packets).into_iter().filter(|arrived| *arrived).count()
    }

    #[track_caller]
    pub fn passes(&self, packet: Packet) -> bool {
        self.let_in(&[packet])[0]
    }

    /// What was sent before has arrived by now, or never will.
    #[track_caller]
    pub fn settle(&self) {
        self.send(&[], Duration::ZERO);
    }

    /// A connection of TCP that is open.
    #[track_caller]
    pub fn connect(&self, from: &str, port: u16) -> Connection {
        let from: IpAddr = from.parse().unwrap();
        let at = PBX[usize::from(from.is_ipv6())];
        let listener = self.pbx.host.inside(|| once_free(|| TcpListener::bind((at, port))));
        let client = self.pbx.outside.inside(|| {
            let family = if from.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
            let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
            bind(&socket, &SocketAddr::new(from, 0)).unwrap();
            rustix::net::connect(&socket, &SocketAddr::new(at.parse().unwrap(), port)).unwrap();
            TcpStream::from(socket)
        });
        let (server, _) = listener.accept().unwrap();
        for end in [&client, &server] {
            end.set_nodelay(true).unwrap();
            end.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            // What was not heard is not said again when it ends.
            sockopt::set_socket_linger(end, Some(Duration::ZERO)).unwrap();
        }
        Connection { client, server }
    }

    /// Whether a message arrives over a wire that may be cut; it is not answered.
    #[track_caller]
    pub fn carries(&self, wire: &Wire, message: &[u8]) -> bool {
        wire.from.send(message).unwrap();
        self.settle();
        wire.to.set_nonblocking(true).unwrap();
        let mut buffer = [0; 3000];
        let mut next = || wire.to.recv(&mut buffer).ok().map(|length| buffer[..length] == *message);
        // Other packets may have come to this port.
        let heard = std::iter::from_fn(&mut next).any(|same| same);
        wire.to.set_nonblocking(false).unwrap();
        heard
    }
}

/// The kernel forgets all connections that it tracks, as `conntrack -F` has it.
#[track_caller]
pub fn forget_connections(host: &Host) {
    // A message to nfnetlink's conntrack, to delete: all of them, since none is named.
    const DELETE: u16 = 1 << 8 | 2;
    const REQUEST_AND_ACKNOWLEDGE: u16 = 1 | 4;
    let mut message = 20_u32.to_ne_bytes().to_vec();
    message.extend([DELETE, REQUEST_AND_ACKNOWLEDGE].map(u16::to_ne_bytes).concat());
    message.extend([0; 12]);
    let answer = host.inside(|| {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::NETFILTER),
        )
        .unwrap();
        send(&socket, &message, SendFlags::empty()).unwrap();
        let mut answer = [0; 100];
        recv(&socket, &mut answer, RecvFlags::empty()).unwrap();
        answer
    });
    let error = i32::from_ne_bytes(*answer[16..].first_chunk().unwrap());
    assert_eq!(error, 0, "nf_conntrack_netlink: errno {}", -error);
}

/// A connection of TCP, both ends of it.
pub struct Connection {
    pub client: TcpStream,
    pub server: TcpStream,
}

impl Connection {
    /// Both ends hear each other; whoever is first says something first.
    #[track_caller]
    pub fn talks(&mut self, server_first: bool) {
        let Self { client, server } = self;
        let (one, other) = if server_first { (server, client) } else { (client, server) };
        says(one, other);
        says(other, one);
    }

    /// Whether what the client says is heard, though it is said once.
    #[track_caller]
    pub fn carries(&mut self, gate: &Gate<'_>, message: &[u8]) -> bool {
        self.client.write_all(message).unwrap();
        gate.settle();
        self.server.set_nonblocking(true).unwrap();
        let heard = self.server.read(&mut [0; 3000]).is_ok();
        self.server.set_nonblocking(false).unwrap();
        heard
    }
}

/// Waits until it is heard.
#[track_caller]
fn says(one: &mut TcpStream, other: &mut TcpStream) {
    let mut heard = [0; 5];
    one.write_all(b"hello").unwrap();
    other.read_exact(&mut heard).expect("what was said");
    assert_eq!(heard, *b"hello");
}

/// The number of a packet of ours, as a raw socket has it: with the header of IP where it is IPv4.
fn number(packet: &[u8], protocol: Protocol, ipv6: bool) -> Option<u32> {
    let header = if ipv6 { 0 } else { usize::from(packet.first()? & 0xF) * 4 };
    let segment = packet.get(header..)?;
    let word = match protocol {
        Protocol::Udp => segment.last_chunk()?,
        Protocol::Tcp(_) => segment.get(4..)?.first_chunk()?,
    };
    u32::from_be_bytes(*word).checked_sub(MARK).filter(|number| *number < 0x1_0000)
}

/// Packets that are sent from two processors may overtake each other.
fn stay_on_one_processor() {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).unwrap();
    let first = (0..CpuSet::count()).find(|processor| allowed.is_set(*processor).unwrap()).unwrap();
    let mut one = CpuSet::new();
    one.set(first).unwrap();
    sched_setaffinity(this, &one).unwrap();
}
