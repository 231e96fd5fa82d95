//! Packets as they arrive, from Ethernet on.

use crate::firewall::Version;

pub(super) const SOURCE_V4: &str = "203.0.113.66";
pub(super) const SOURCE_V6: &str = "2001:db8:66::1";

const UDP: u8 = 17;

/// That of the device with which the kernel tests programs.
const OURS: [u8; 6] = [0; 6];

/// What is around a message.
#[derive(Clone)]
pub(super) struct Frame {
    /// The hardware's address to which it goes.
    to: [u8; 6],
    version: Version,
    /// Kinds of VLAN tags in the packet.
    tags: Vec<u16>,
    /// Of IPv4: options, and the field with the flags; of IPv6: kinds of extension headers, and their content.
    options: Vec<u8>,
    flags: u16,
    extensions: Vec<(u8, Vec<u8>)>,
    protocol: u8,
    port: u16,
    /// Added to the length that UDP says.
    longer: i32,
    /// Bytes behind what IP says.
    padding: usize,
    /// Instead of the version in the header.
    says: Option<u8>,
}

impl Frame {
    pub(super) fn new(version: Version) -> Self {
        Self {
            to: OURS,
            version,
            tags: vec![],
            options: vec![],
            flags: 0,
            extensions: vec![],
            protocol: UDP,
            port: 5060,
            longer: 0,
            padding: 0,
            says: None,
        }
    }

    pub(super) fn v4() -> Self {
        Self::new(Version::V4)
    }

    pub(super) fn v6() -> Self {
        Self::new(Version::V6)
    }

    /// More of the datagram follows in others.
    pub(super) fn first_fragment(version: Version) -> Self {
        let frame = Self { longer: 4000, ..Self::new(version) };
        match version {
            Version::V4 => Self { flags: 0x2000, ..frame },
            Version::V6 => Self { extensions: vec![(44, fragment(0, true))], ..frame },
        }
    }

    pub(super) fn with(&self, message: &[u8]) -> Vec<u8> {
        let mut udp = vec![];
        let length = i32::try_from(8 + message.len()).unwrap() + self.longer;
        for field in [5070, self.port, u16::try_from(length.max(0)).unwrap(), 0] {
            udp.extend(field.to_be_bytes());
        }
        udp.extend_from_slice(message);
        let (kind, mut packet) = match self.version {
            Version::V4 => (0x0800, self.v4_header(udp.len())),
            Version::V6 => (0x86dd, self.v6_headers(udp.len())),
        };
        if let Some(says) = self.says {
            packet[0] = says << 4 | packet[0] & 0xf;
        }
        packet.extend(udp);
        let mut frame = [self.to, [2; 6]].concat();
        for tag in &self.tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0, 42]);
        }
        frame.extend(u16::to_be_bytes(kind));
        frame.extend(packet);
        frame.resize(frame.len() + self.padding, b'"');
        frame
    }

    fn v4_header(&self, content: usize) -> Vec<u8> {
        let length = 20 + self.options.len();
        let mut header = vec![0x40 | u8::try_from(length / 4).unwrap(), 0];
        header.extend(u16::try_from(length + content).unwrap().to_be_bytes());
        header.extend([0, 1]);
        header.extend(self.flags.to_be_bytes());
        header.extend([64, self.protocol, 0, 0]);
        header.extend([203, 0, 113, 66, 198, 51, 100, 1]);
        header.extend(&self.options);
        header
    }

    fn v6_headers(&self, content: usize) -> Vec<u8> {
        let extensions: usize = self.extensions.iter().map(|(_, content)| content.len()).sum();
        let kinds: Vec<u8> = self.extensions.iter().map(|(kind, _)| *kind).chain([self.protocol]).collect();
        let mut headers = vec![0x60, 0, 0, 0];
        headers.extend(u16::try_from(extensions + content).unwrap().to_be_bytes());
        headers.extend([kinds[0], 64]);
        for address in [SOURCE_V6, "2001:db8::1"] {
            headers.extend(address.parse::<std::net::Ipv6Addr>().unwrap().octets());
        }
        for ((_, content), next) in self.extensions.iter().zip(&kinds[1..]) {
            headers.push(*next);
            headers.extend(&content[1..]);
        }
        headers
    }
}

/// The header of a fragment at so many bytes; its first byte is another's.
fn fragment(at: u16, more: bool) -> Vec<u8> {
    let field = at | u16::from(more);
    [&[0, 0][..], &field.to_be_bytes(), &[0, 0, 0, 1]].concat()
}

/// A header of options, so many times eight bytes long.
fn options(length: u8) -> Vec<u8> {
    let mut header = vec![0; usize::from(length) * 8];
    header[1] = length - 1;
    header
}

/// Ways to wrap a message of a blocked account, and whether it is dropped.
pub(super) fn cases() -> Vec<(&'static str, Frame, bool)> {
    let (v4, v6) = (Frame::v4, Frame::v6);
    let with = |extensions: Vec<(u8, Vec<u8>)>| Frame { extensions, ..v6() };
    let authentication = || [&[0, 4][..], &[0; 22]].concat();
    vec![
        ("IPv4", v4(), true),
        ("IPv6", v6(), true),
        ("for everybody", Frame { to: [0xff; 6], ..v4() }, true),
        ("for several", Frame { to: [1, 0, 0x5e, 0, 1, 75], ..v4() }, true),
        ("for another host", Frame { to: [2, 0, 0, 0, 0, 3], ..v4() }, false),
        ("for another host, IPv6", Frame { to: [2, 0, 0, 0, 0, 3], ..v6() }, false),
        ("a VLAN", Frame { tags: vec![0x8100], ..v4() }, true),
        ("a VLAN, IPv6", Frame { tags: vec![0x8100], ..v6() }, true),
        ("a VLAN of a provider", Frame { tags: vec![0x88a8, 0x8100], ..v4() }, true),
        ("too many VLANs", Frame { tags: vec![0x8100; 3], ..v4() }, false),
        ("options of IPv4", Frame { options: vec![1; 4], ..v4() }, true),
        ("as many as there can be", Frame { options: vec![1; 40], ..v4() }, true),
        ("no fragments wanted", Frame { flags: 0x4000, ..v4() }, true),
        ("the first fragment", Frame::first_fragment(Version::V4), true),
        ("the second", Frame { flags: 0x2001, ..v4() }, false),
        ("the last", Frame { flags: 1, ..v4() }, false),
        ("the first fragment, IPv6", Frame::first_fragment(Version::V6), true),
        ("the second, IPv6", with(vec![(44, fragment(8, true))]), false),
        ("the last, IPv6", with(vec![(44, fragment(8, false))]), false),
        ("a fragment that is all", with(vec![(44, fragment(0, false))]), true),
        ("options hop by hop", with(vec![(0, options(1))]), true),
        ("long options", with(vec![(60, options(30))]), true),
        ("a routing header", with(vec![(43, options(3))]), true),
        ("an authentication header", with(vec![(51, authentication())]), true),
        (
            "several",
            with(vec![
                (0, options(1)),
                (60, options(2)),
                (43, options(1)),
                (44, fragment(0, true)),
                (51, authentication()),
            ]),
            true,
        ),
        ("as many as are looked through", with(vec![(60, options(1)); 8]), true),
        ("more", with(vec![(60, options(1)); 9]), false),
        ("no next header", with(vec![(59, options(1))]), false),
        ("encrypted", with(vec![(50, options(1))]), false),
        ("TCP", Frame { protocol: 6, ..v4() }, false),
        ("TCP, IPv6", Frame { protocol: 6, ..v6() }, false),
        ("another port of SIP", Frame { port: 5081, ..v4() }, true),
        ("the port behind them", Frame { port: 5082, ..v4() }, false),
        ("no port of SIP", Frame { port: 20_000, ..v6() }, false),
        ("padding", Frame { padding: 20, ..v4() }, true),
        ("UDP is shorter than its header", Frame { longer: -60_000, ..v4() }, false),
        ("UDP says less", Frame { longer: -120, ..v4() }, false),
        ("another version", Frame { says: Some(6), ..v4() }, false),
        ("another version, IPv6", Frame { says: Some(4), ..v6() }, false),
    ]
}
