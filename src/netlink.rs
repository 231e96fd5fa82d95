//! Netlink: the messages in which Linux is asked about its network and its sets, and the socket they travel on.
//!
//! netlink(7); numbers are in the byte order of the host unless said otherwise.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, netlink, recv, send,
    socket_with,
};

/// The kernel answers within a system call; where it does not, something is very wrong.
const PATIENCE: Duration = Duration::from_secs(10);

/// No answer of the kernel is longer: a refusal carries the message refused.
const ANSWER: usize = 1 << 18;

/// A list that changes while it is read is read anew so many times.
const TRIES: usize = 10;

/// No attribute is longer than its 16-bit length says.
pub const MAX_ATTRIBUTE: usize = 0xffff;

const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_MULTI: u16 = 2;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
/// In an answer: what is dumped was changed meanwhile.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// Flags of the kind of an attribute: it holds others; its number is in network byte order.
const NLA_F_NESTED: u16 = 1 << 15;
const NLA_F_NET_BYTEORDER: u16 = 1 << 14;
const NLA_TYPE_MASK: u16 = !(NLA_F_NESTED | NLA_F_NET_BYTEORDER);

/// Whom to talk to.
#[derive(Clone, Copy, Debug)]
pub enum Subsystem {
    /// Addresses and routes, rtnetlink(7).
    Route,
    /// Sets, chains and connections.
    Netfilter,
}

/// What kind of answer a request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Done, or refused.
    Do,
    /// The request is new: what it makes must not be there yet.
    Create,
    /// One message.
    Get,
    /// A message for each of many things.
    Dump,
}

/// Why a request failed.
#[derive(Debug)]
pub enum Error {
    /// It did not come to an answer.
    Socket(io::Error),
    /// The kernel refused: an errno, or a number of the subsystem's own.
    Refused(i32),
}

impl From<Error> for io::Error {
    /// What is refused has a number of the system here.
    fn from(error: Error) -> Self {
        match error {
            Error::Socket(error) => error,
            Error::Refused(code) => Self::from_raw_os_error(code),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Socket(error.into())
    }
}

/// A request that is being put together.
#[derive(Debug)]
pub struct Message {
    bytes: Vec<u8>,
}

/// Where an attribute that holds others began.
#[derive(Debug)]
pub struct Nest(usize);

impl Message {
    /// A request of this kind; `header` is the fixed part of its family.
    #[must_use]
    pub fn new(kind: u16, ask: Ask, header: &[u8]) -> Self {
        let flags = NLM_F_REQUEST
            | match ask {
                Ask::Do => NLM_F_ACK,
                // NLM_F_EXCL and NLM_F_CREATE.
                Ask::Create => NLM_F_ACK | 0x200 | 0x400,
                Ask::Get => 0,
                Ask::Dump => NLM_F_ACK | NLM_F_DUMP,
            };
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend_from_slice(header);
        let mut message = Self { bytes };
        message.align();
        message
    }

    /// Adds an attribute.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        let nest = self.begin(kind);
        self.bytes.extend_from_slice(value);
        self.finish(nest);
    }

    /// Adds text with the zero byte that ends it.
    pub fn put_text(&mut self, kind: u16, text: &str) {
        let nest = self.begin(kind);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        self.finish(nest);
    }

    /// Adds a number, or an address, in network byte order.
    pub fn put_big_endian(&mut self, kind: u16, value: &[u8]) {
        self.put(kind | NLA_F_NET_BYTEORDER, value);
    }

    /// Begins an attribute that holds others.
    pub fn begin_nest(&mut self, kind: u16) -> Nest {
        self.begin(kind | NLA_F_NESTED)
    }

    /// Ends it.
    pub fn end_nest(&mut self, nest: Nest) {
        self.finish(nest);
    }

    /// Bytes in the attribute so far, with its header.
    #[must_use]
    pub fn length_of(&self, nest: &Nest) -> usize {
        self.bytes.len() - nest.0
    }

    fn begin(&mut self, kind: u16) -> Nest {
        let at = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        Nest(at)
    }

    #[expect(clippy::needless_pass_by_value, reason = "an attribute ends once")]
    fn finish(&mut self, nest: Nest) {
        let length = u16::try_from(self.length_of(&nest)).expect("an attribute below 64 KiB");
        self.bytes[nest.0..nest.0 + 2].copy_from_slice(&length.to_ne_bytes());
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// A connection to one of the kernel's subsystems, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens the connection.
    pub fn open(subsystem: Subsystem) -> io::Result<Self> {
        let protocol = match subsystem {
            Subsystem::Route => None,
            Subsystem::Netfilter => Some(netlink::NETFILTER),
        };
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        set_socket_timeout(&fd, Timeout::Recv, Some(PATIENCE))?;
        bind(&fd, &netlink::SocketAddrNetlink::new(0, 0))?;
        // Connected to the kernel, it takes no message of another process.
        connect(&fd, &netlink::SocketAddrNetlink::new(0, 0))?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; ANSWER] })
    }

    /// Sends a request and hands the answers to `each`: the fixed part of the family and the attributes, as bytes.
    ///
    /// A dump of what changed meanwhile, which may lack something, ends with [`io::ErrorKind::Interrupted`].
    pub fn ask(&mut self, mut request: Message, mut each: impl FnMut(&[u8])) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(request.bytes.len()).unwrap_or(u32::MAX);
        request.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        request.bytes[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        send(&self.fd, &request.bytes, SendFlags::empty())?;
        let flags = u16::from_ne_bytes([request.bytes[6], request.bytes[7]]);
        let mut interrupted = false;
        loop {
            let (_, length) = recv(&self.fd, self.buffer.as_mut_slice(), RecvFlags::empty())?;
            let mut rest = self.buffer.get(..length).ok_or(cut_short())?;
            while !rest.is_empty() {
                let (answer, next) = Answer::first(rest).ok_or(cut_short())?;
                rest = next;
                if answer.sequence != self.sequence {
                    // Of an earlier request that was given up.
                    continue;
                }
                interrupted |= answer.flags & NLM_F_DUMP_INTR != 0;
                match answer.kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        // Every such message begins with 0, or a negative error number.
                        return match answer.body.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
                            Some(0) | None if interrupted => {
                                Err(Error::Socket(io::ErrorKind::Interrupted.into()))
                            }
                            Some(0) | None => Ok(()),
                            Some(code) => Err(Error::Refused(code.saturating_neg())),
                        };
                    }
                    _ => each(answer.body),
                }
                if flags & NLM_F_ACK == 0 && answer.flags & NLM_F_MULTI == 0 {
                    return Ok(());
                }
            }
        }
    }

    /// Asks for everything of a kind; `each` gets the answers, of a list that changes meanwhile some twice.
    pub fn dump(&mut self, kind: u16, header: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), Error> {
        for _ in 0..TRIES {
            match self.ask(Message::new(kind, Ask::Dump, header), &mut each) {
                Err(Error::Socket(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
        let text = format!("they changed each of the {TRIES} times that they were read");
        Err(Error::Socket(io::Error::new(io::ErrorKind::Interrupted, text)))
    }
}

fn cut_short() -> Error {
    Error::Socket(io::Error::new(io::ErrorKind::InvalidData, "an answer of the kernel was cut short"))
}

struct Answer<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

impl<'a> Answer<'a> {
    /// The first message of `bytes`, and what is behind it.
    fn first(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (header, _) = bytes.split_first_chunk::<HEADER>()?;
        let length = u32::from_ne_bytes(*header.first_chunk()?) as usize;
        let answer = Self {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            body: bytes.get(HEADER..length)?,
        };
        Some((answer, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
    }
}

/// The attributes in `bytes`: kind and value.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (header, _) = rest.split_first_chunk::<ATTRIBUTE>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = rest.get(ATTRIBUTE..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([header[2], header[3]]) & NLA_TYPE_MASK, value))
    })
}

/// The value of the first attribute of this kind.
#[must_use]
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// The number that `bytes` begin with, in the byte order of the host.
#[must_use]
pub fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// Runs a test in a thread with a network namespace of its own, which needs root.
#[cfg(test)]
pub(crate) fn apart(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .expect("a network namespace; run the tests as root");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}
