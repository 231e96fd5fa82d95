//! FreeSWITCH's event socket: authenticate, ask one `api` command after the other.
//!
//! Frames are header lines up to an empty line, then `Content-Length` bytes. Everything is bounded:
//! lengths, and the whole conversation by one deadline.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};

use anyhow::{Context, anyhow, bail};

use crate::deadline::Deadline;

/// What FreeSWITCH listens on unless told otherwise.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:8021";
/// FreeSWITCH's password unless changed.
pub const DEFAULT_PASSWORD: &str = "ClueCon";

const MAX_HEADER: usize = 16 << 10;
/// The answer about ten thousand registrations is some 7 MB.
const MAX_BODY: usize = 64 << 20;

/// An authenticated conversation.
#[derive(Debug)]
pub struct EventSocket {
    stream: TcpStream,
    deadline: Deadline,
    /// Received and not yet used.
    pending: Vec<u8>,
}

struct Frame {
    content_type: String,
    reply: String,
    body: Vec<u8>,
}

impl EventSocket {
    /// Connects to `address` (`HOST:PORT`) and authenticates.
    ///
    /// Errors say which of the two failed; the password is in none of them.
    pub fn connect(address: &str, password: &str, deadline: Deadline) -> anyhow::Result<Self> {
        let stream = connect(address, deadline).context("cannot connect")?;
        stream.set_nodelay(true)?;
        let mut socket = Self { stream, deadline, pending: Vec::new() };
        let greeting = socket.receive().context("no greeting")?;
        match greeting.content_type.as_str() {
            "auth/request" => {}
            "text/rude-rejection" => bail!(
                "FreeSWITCH's access list refuses this host (apply-inbound-acl of event_socket.conf.xml)"
            ),
            other => bail!("not an event socket: it greets with {other:?}"),
        }
        if password.contains(['\r', '\n']) {
            bail!("the password has a line break in it");
        }
        socket.send(&format!("auth {password}"))?;
        let reply = socket.receive().context("no answer to the password")?;
        if !reply.reply.starts_with("+OK") {
            bail!("FreeSWITCH refuses the password (event_socket.conf.xml has it)");
        }
        Ok(socket)
    }

    /// Asks one `api` command and returns the whole answer.
    pub fn api(&mut self, command: &str) -> anyhow::Result<Vec<u8>> {
        debug_assert!(!command.contains('\n'), "commands are ours");
        self.send(&format!("api {command}"))?;
        let frame = self.receive().with_context(|| format!("no answer to \"api {command}\""))?;
        if frame.content_type != "api/response" {
            bail!("\"api {command}\" is answered by {:?} {:?}", frame.content_type, frame.reply);
        }
        if frame.body.starts_with(b"-ERR") {
            bail!("\"api {command}\" is answered by {:?}", String::from_utf8_lossy(&frame.body).trim());
        }
        Ok(frame.body)
    }

    fn send(&mut self, command: &str) -> anyhow::Result<()> {
        self.stream.set_write_timeout(Some(some(self.deadline)?))?;
        self.stream.write_all(format!("{command}\n\n").as_bytes()).context("cannot send")
    }

    fn receive(&mut self) -> anyhow::Result<Frame> {
        let header = loop {
            if let Some(end) = self.pending.windows(2).position(|pair| pair == b"\n\n") {
                break self.pending.drain(..end + 2).collect::<Vec<u8>>();
            }
            if self.pending.len() > MAX_HEADER {
                bail!("not an event socket: no end of its header in {MAX_HEADER} bytes");
            }
            self.fill()?;
        };
        let header = String::from_utf8_lossy(&header);
        let field = |name: &str| {
            header.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let content_type = field("Content-Type")
            .with_context(|| {
                format!("not an event socket: it says {:?}", header.chars().take(40).collect::<String>())
            })?
            .to_owned();
        let reply = field("Reply-Text").unwrap_or_default().to_owned();
        let length = field("Content-Length")
            .map_or(Ok(0), str::parse::<usize>)
            .context("its Content-Length is no number")?;
        if length > MAX_BODY {
            bail!("it announces {length} bytes; at most {MAX_BODY} are read");
        }
        self.pending.reserve_exact(length.saturating_sub(self.pending.len()));
        while self.pending.len() < length {
            self.fill()?;
        }
        let rest = self.pending.split_off(length);
        let body = std::mem::replace(&mut self.pending, rest);
        Ok(Frame { content_type, reply, body })
    }

    fn fill(&mut self) -> anyhow::Result<()> {
        self.stream.set_read_timeout(Some(some(self.deadline)?))?;
        let mut chunk = [0; 16 << 10];
        match self.stream.read(&mut chunk) {
            Ok(0) => bail!("the connection was closed"),
            Ok(length) => self.pending.extend_from_slice(&chunk[..length]),
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                bail!("no answer in time")
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// Connects to the first address of `HOST:PORT` that takes us.
fn connect(address: &str, deadline: Deadline) -> anyhow::Result<TcpStream> {
    let mut failure = anyhow!("no address");
    for address in address.to_socket_addrs().context("not a HOST:PORT that can be resolved")? {
        match TcpStream::connect_timeout(&address, some(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error.into(),
        }
    }
    Err(failure)
}

/// The time left, which the operating system wants to be some.
fn some(deadline: Deadline) -> anyhow::Result<std::time::Duration> {
    let left = deadline.remaining();
    if left.is_zero() { Err(anyhow!("no answer in time")) } else { Ok(left) }
}
