//! FreeSWITCH's event socket: authenticate, ask one `api` command after the other; or [listen](listener) for ever.
//!
//! [`frames`] are header lines up to an empty line, then `Content-Length` bytes. Everything is bounded:
//! lengths, and the whole conversation by one deadline.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};

use anyhow::{Context, anyhow, bail};

use crate::deadline::Deadline;

pub mod frames;
mod handshake;
pub mod listener;
#[cfg(test)]
pub(crate) mod recorded;

use frames::{Frame, Frames};

/// What FreeSWITCH listens on unless told otherwise.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:8021";
/// FreeSWITCH's password unless changed.
pub const DEFAULT_PASSWORD: &str = "ClueCon";

/// The answer about ten thousand registrations is some 7 MB.
const MAX_BODY: usize = 64 << 20;

/// An authenticated conversation.
#[derive(Debug)]
pub struct EventSocket {
    stream: TcpStream,
    deadline: Deadline,
    frames: Frames,
}

impl EventSocket {
    /// Connects to `address` (`HOST:PORT`) and authenticates.
    ///
    /// Errors say which of the two failed; the password is in none of them.
    pub fn connect(address: &str, password: &str, deadline: Deadline) -> anyhow::Result<Self> {
        let stream = connect(address, deadline).context("cannot connect")?;
        stream.set_nodelay(true)?;
        let mut socket = Self { stream, deadline, frames: Frames::new(MAX_BODY) };
        let greeting = socket.receive().context("no greeting")?;
        handshake::greeted(&greeting)?;
        socket.send(&handshake::auth(password)?)?;
        let reply = socket.receive().context("no answer to the password")?;
        handshake::accepted(&reply.reply)?;
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
        loop {
            if let Some(frame) = self.frames.next()? {
                return Ok(frame);
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> anyhow::Result<()> {
        self.stream.set_read_timeout(Some(some(self.deadline)?))?;
        let mut chunk = [0; 16 << 10];
        match self.stream.read(&mut chunk) {
            Ok(0) => bail!("the connection was closed"),
            Ok(length) => self.frames.push(&chunk[..length]),
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
    for address in address.to_socket_addrs().context(handshake::NO_ADDRESS)? {
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
