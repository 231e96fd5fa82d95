//! What a packet costs the host that it arrives at: a cable between two hosts, and packets sent over it as fast as they are taken.

use std::fs::File;
use std::io::IoSlice;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};

use super::Host;

pub const SENDER: &str = "203.0.113.66";
const RECEIVER: &str = "198.51.100.1";

/// Where SIP and RTP are received.
pub const SIP: u16 = 5060;
pub const RTP: u16 = 20_000;

/// A packet over UDP: its port, and what is in it.
#[derive(Clone, Debug)]
pub struct Packet {
    pub port: u16,
    pub content: Vec<u8>,
}

impl Packet {
    /// A request of SIP, its lines without their ends.
    pub fn sip(lines: &[String]) -> Self {
        Self { port: SIP, content: (lines.join("\r\n") + "\r\n\r\n").into_bytes() }
    }

    /// A phone that registers.
    pub fn register(user: &str, credentials: bool) -> Self {
        let domain = "a.example.com";
        let mut lines = vec![
            format!("REGISTER sip:{domain}:5060 SIP/2.0"),
            "Via: SIP/2.0/UDP 192.168.1.50:5060;branch=z9hG4bK1742361097;rport".to_owned(),
            format!("From: \"Front desk\" <sip:{user}@{domain}:5060>;tag=2104921840"),
            format!("To: \"Front desk\" <sip:{user}@{domain}:5060>"),
            "Call-ID: 0_3121786207@192.168.1.50".to_owned(),
            "CSeq: 2 REGISTER".to_owned(),
            format!("Contact: <sip:{user}@192.168.1.50:5060>"),
            "Allow: INVITE, INFO, PRACK, ACK, BYE, CANCEL, OPTIONS, NOTIFY, REGISTER, REFER, UPDATE"
                .to_owned(),
            "Max-Forwards: 70".to_owned(),
            "User-Agent: Yealink SIP-T46S 66.85.0.5".to_owned(),
            "Expires: 3600".to_owned(),
            "Content-Length: 0".to_owned(),
        ];
        if credentials {
            let credentials = format!(
                "Authorization: Digest username=\"{user}\", realm=\"{domain}\", nonce=\"6f0a7d8e-c5f1-11f0-9b1c-7f6a5d1f0a11\", \
             uri=\"sip:{domain}:5060\", response=\"0f4c1c3a8a6f4e5d9b2a7c6d5e4f3a21\", algorithm=MD5, cnonce=\"0a4f113b\", \
             qop=auth, nc=00000001"
            );
            lines.insert(7, credentials);
        }
        Packet::sip(&lines)
    }

    /// A keep-alive.
    pub fn options() -> Self {
        Packet::sip(&[
            "OPTIONS sip:4711@a.example.com:5060 SIP/2.0".to_owned(),
            "Via: SIP/2.0/UDP 192.168.1.50:5060;branch=z9hG4bK1742361098;rport".to_owned(),
            "From: <sip:4711@a.example.com>;tag=2104921841".to_owned(),
            "To: <sip:4711@a.example.com>".to_owned(),
            "Call-ID: 0_3121786208@192.168.1.50".to_owned(),
            "CSeq: 1 OPTIONS".to_owned(),
            "Max-Forwards: 70".to_owned(),
            "Content-Length: 0".to_owned(),
        ])
    }

    /// As it is on the wire, over IPv4, to the device with which the kernel tests programs.
    pub fn frame(&self) -> Vec<u8> {
        let length = |header: usize| u16::try_from(header + self.content.len()).unwrap().to_be_bytes();
        let addresses = [SENDER, RECEIVER].map(|address| address.parse::<Ipv4Addr>().unwrap().octets());
        let header =
            [&[0; 6][..], &[2; 6], &[8, 0, 0x45, 0], &length(28), &[0, 1, 0, 0, 64, 17, 0, 0]].concat();
        let udp = [&[19, 206][..], &self.port.to_be_bytes(), &length(8), &[0, 0]].concat();
        [&header[..], addresses.as_flattened(), &udp, &self.content].concat()
    }

    /// Twenty milliseconds of G.711.
    pub fn rtp() -> Self {
        let header = [0x80, 0, 0x12, 0x34, 0, 0, 0, 0xa0, 0xde, 0xad, 0xbe, 0xef];
        Self { port: RTP, content: header.into_iter().chain([0xd5; 160]).collect() }
    }
}

/// A host, and one that sends packets to it. What arrives is counted by IP, before any rule.
///
/// It is received by sockets that nobody reads and that are full, so that all packets end at the same place.
pub struct Line {
    pub host: Host,
    _sender: Host,
    sockets: Vec<(u16, UdpSocket)>,
    full: Vec<UdpSocket>,
    statistics: File,
}

impl Line {
    pub fn new() -> Self {
        let (sender, host) = (Host::new(), Host::new());
        sender.connect(&host);
        for (end, address) in [(&sender, SENDER), (&host, RECEIVER)] {
            end.shell(&format!("ip address add {address}/32 dev eth0"));
        }
        let full = host.inside(|| {
            [SIP, RTP].map(|port| {
                let socket = UdpSocket::bind((RECEIVER, port)).unwrap();
                set_socket_recv_buffer_size(&socket, 1).unwrap();
                socket
            })
        });
        let statistics = host.inside(|| File::open("/proc/thread-self/net/snmp").unwrap());
        let sockets = sender.inside(|| {
            [SIP, RTP].map(|port| {
                let socket = UdpSocket::bind((SENDER, port)).unwrap();
                socket.connect((RECEIVER, port)).unwrap();
                (port, socket)
            })
        });
        let line = Self { host, _sender: sender, sockets: sockets.into(), full: full.into(), statistics };
        for port in [SIP, RTP] {
            line.fill(port);
        }
        line
    }

    /// Until the neighbour is known and the socket takes nothing more.
    fn fill(&self, port: u16) {
        let packet = Packet { port, content: vec![0; 1000] };
        for _ in 0..2 {
            self.send(&packet, 1);
            std::thread::sleep(Duration::from_millis(10));
        }
        self.send(&packet, 20);
    }

    /// The host answers on a port: a flow that is tracked is established by that.
    pub fn answer(&self, port: u16) {
        let socket = self.full.iter().find(|socket| socket.local_addr().unwrap().port() == port);
        socket.expect("the port").send_to(b"answer", (SENDER, port)).unwrap();
    }

    /// How many packets arrived so far.
    pub fn arrived(&self) -> usize {
        let mut text = [0; 4096];
        let length = self.statistics.read_at(&mut text, 0).unwrap();
        let text = String::from_utf8_lossy(&text[..length]);
        let values = text.lines().nth(1).and_then(|line| line.split(' ').nth(3));
        values.and_then(|received| received.parse().ok()).expect("Ip: InReceives")
    }

    /// Sends some, and waits until they have arrived.
    pub fn send(&self, packet: &Packet, count: usize) {
        let before = self.arrived();
        self.put(packet, count);
        super::wait_for("packets", || self.arrived() >= before + count);
    }

    /// Sends some that need not arrive.
    pub fn put(&self, packet: &Packet, count: usize) {
        let socket = self.socket(packet);
        for _ in 0..count {
            socket.send(&packet.content).unwrap();
        }
    }

    /// Sends for about so long; the nanoseconds that each packet took, on both ends together.
    ///
    /// The receiver's work is done on the sender's CPU, within the call that sends.
    pub fn cost(&self, packet: &Packet, span: Duration) -> f64 {
        const AT_ONCE: usize = 8;
        let socket = self.socket(packet);
        let content = [IoSlice::new(&packet.content)];
        let mut controls: Vec<_> = (0..AT_ONCE).map(|_| SendAncillaryBuffer::default()).collect();
        let mut messages: Vec<_> =
            controls.iter_mut().map(|control| MMsgHdr::new(&content, control)).collect();
        let mut send = || sendmmsg(socket, &mut messages, SendFlags::empty()).unwrap();
        send();
        let before = self.arrived();
        let mut count = 0;
        let start = Instant::now();
        let mut took = Duration::ZERO;
        while took < span {
            count += send();
            took = start.elapsed();
        }
        while self.arrived() < before + count {
            took = start.elapsed();
            assert!(took < Duration::from_secs(1), "packets were lost");
        }
        took.as_secs_f64() * 1e9 / f64::from(u32::try_from(count).unwrap())
    }

    fn socket(&self, packet: &Packet) -> &UdpSocket {
        let (_, socket) = self.sockets.iter().find(|(port, _)| *port == packet.port).expect("the port");
        socket
    }
}

/// Does it on one CPU alone.
pub fn on_one_cpu<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let pinned = || {
        let this = Pid::from_raw(0);
        let allowed = sched_getaffinity(this).unwrap();
        let last = (0..CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu).unwrap()).unwrap();
        let mut one = CpuSet::new();
        one.set(last).unwrap();
        sched_setaffinity(this, &one).unwrap();
        work()
    };
    std::thread::scope(|scope| scope.spawn(pinned).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// For each line the median nanoseconds of each packet, the lines in turns, so that what else this machine does meets all.
pub fn costs<const N: usize>(lines: &[&Line], packets: &[Packet; N]) -> Vec<[f64; N]> {
    const ROUNDS: usize = 101;
    // Short, so that most are not interrupted by anybody else.
    const SPAN: Duration = Duration::from_millis(1);
    on_one_cpu(|| {
        let mut costs = vec![[const { vec![] }; N]; lines.len()];
        for _ in 0..ROUNDS {
            for (costs, line) in costs.iter_mut().zip(lines) {
                for (costs, packet) in costs.iter_mut().zip(packets) {
                    costs.push(line.cost(packet, SPAN));
                }
            }
        }
        let median = |mut costs: Vec<f64>| {
            costs.sort_by(f64::total_cmp);
            costs[ROUNDS / 2]
        };
        costs.into_iter().map(|costs| costs.map(median)).collect()
    })
}
