//! Events for ever: connects, subscribes, notices when FreeSWITCH is gone, and comes again.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rustix::net::sockopt;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep_until, timeout};

use super::frames::{Frame, Frames};
use super::handshake;

/// All from the first packet to the subscription takes no longer, or has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// The first pause before it is tried again is at most so long, each further one twice as long up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Also the pause after what only an administrator can mend.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A connection that lasted so long was a good one: pauses begin with the first again.
const GOOD: Duration = Duration::from_secs(10);

/// Where nothing came for so long, FreeSWITCH is asked something.
const SILENCE: Duration = Duration::from_secs(30);

/// What is asked then: a number is the answer, and refusing it is an answer, too.
const PROBE: &[u8] = b"api uptime\n\n";

/// The answer comes within this time, or never.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// No event is longer.
const MAX_EVENT: usize = 1 << 20;

/// So much is read at once.
const PIECE: usize = 64 << 10;

/// Where the event socket is (`HOST:PORT`), and its password. Asked before each attempt, by one thread at a time: a disk may
/// hang.
type Find = Mutex<dyn Fn() -> anyhow::Result<(String, String)> + Send>;

/// A subscription that is renewed for ever.
pub struct Listener {
    find: Arc<Find>,
    subscription: &'static str,
    state: State,
    /// The next pause.
    pause: Duration,
    buffer: Box<[u8]>,
}

enum State {
    Pausing(Instant),
    Connecting(Pin<Box<dyn Future<Output = Result<Connection, Lost>> + Send>>),
    Listening(Box<Connection>),
}

struct Connection {
    address: String,
    stream: TcpStream,
    frames: Frames,
    since: Instant,
    /// When something came last.
    heard: Instant,
    /// When FreeSWITCH was asked something, if it has said nothing since.
    probed: Option<Instant>,
    /// FreeSWITCH has said good-bye.
    ended: bool,
}

/// What happens to a subscription.
#[derive(Debug)]
pub enum News {
    /// It holds; at this address.
    Subscribed(String),
    /// Events came.
    Events(Vec<Frame>),
    /// It could not be made, or has ended. It is tried again.
    Lost(Lost),
}

/// Why there is no subscription.
#[derive(Debug)]
pub struct Lost {
    why: anyhow::Error,
    /// Only an administrator can mend it.
    hopeless: bool,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.why)
    }
}

impl From<anyhow::Error> for Lost {
    fn from(why: anyhow::Error) -> Self {
        Self { why, hopeless: false }
    }
}

impl Listener {
    /// Of what the command `subscription` asks for; `find` says where.
    pub fn new(
        subscription: &'static str,
        find: impl Fn() -> anyhow::Result<(String, String)> + Send + 'static,
    ) -> Self {
        Self {
            find: Arc::new(Mutex::new(find)),
            subscription,
            state: State::Pausing(Instant::now()),
            pause: FIRST_PAUSE,
            buffer: vec![0; PIECE].into(),
        }
    }

    /// What happens next. May be dropped and called again: nothing is lost by that.
    pub async fn next(&mut self) -> News {
        loop {
            match &mut self.state {
                State::Pausing(until) => {
                    sleep_until(*until).await;
                    let connecting = subscribe(Arc::clone(&self.find), self.subscription);
                    self.state = State::Connecting(Box::pin(connecting));
                }
                State::Connecting(connecting) => match connecting.as_mut().await {
                    Ok(connection) => {
                        let address = connection.address.clone();
                        self.state = State::Listening(Box::new(connection));
                        return News::Subscribed(address);
                    }
                    Err(lost) => return self.lost(lost),
                },
                State::Listening(connection) => match connection.next(&mut self.buffer).await {
                    Ok(events) => return News::Events(events),
                    Err(why) => {
                        if connection.since.elapsed() >= GOOD {
                            self.pause = FIRST_PAUSE;
                        }
                        let why = why.context(format!("event socket {}", connection.address));
                        return self.lost(why.into());
                    }
                },
            }
        }
    }

    fn lost(&mut self, lost: Lost) -> News {
        let most = if lost.hopeless { LONGEST_PAUSE } else { self.pause };
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        // Many hosts that lost one FreeSWITCH do not come back all at once.
        self.state = State::Pausing(Instant::now() + most.mul_f64(0.5 + fastrand::f64() / 2.0));
        News::Lost(lost)
    }
}

async fn subscribe(find: Arc<Find>, subscription: &'static str) -> Result<Connection, Lost> {
    let found = tokio::task::spawn_blocking(move || match find.try_lock() {
        Ok(find) => find(),
        Err(_) => Err(anyhow!("FreeSWITCH's settings are still being read")),
    });
    let found =
        timeout(PATIENCE, found).await.map_err(|_| anyhow!("FreeSWITCH's settings cannot be read in time"));
    let found =
        found.and_then(|found| found.map_err(|_| anyhow!("FreeSWITCH's settings cannot be read"))).flatten();
    let (address, password) = found.map_err(|why| Lost { why, hopeless: true })?;
    let subscribed = timeout(PATIENCE, Connection::open(&address, &password, subscription)).await;
    let subscribed = subscribed.unwrap_or_else(|_| Err(anyhow!("no answer in time").into()));
    subscribed.map_err(|Lost { why, hopeless }| Lost {
        why: why.context(format!("event socket {address}")),
        hopeless,
    })
}

impl Connection {
    async fn open(address: &str, password: &str, subscription: &str) -> Result<Self, Lost> {
        let hopeless = |why| Lost { why, hopeless: true };
        let addresses: Vec<_> = lookup_host(address).await.context(handshake::NO_ADDRESS)?.collect();
        let stream = TcpStream::connect(&addresses[..]).await.context("cannot connect")?;
        keep_alive(&stream).context("cannot set up the connection")?;
        let now = Instant::now();
        let frames = Frames::new(MAX_EVENT);
        let address = address.to_owned();
        let mut connection =
            Self { address, stream, frames, since: now, heard: now, probed: None, ended: false };
        let greeting = connection.receive().await.context("no greeting")?;
        handshake::greeted(&greeting).map_err(hopeless)?;
        let auth = handshake::auth(password).map_err(hopeless)?;
        let reply = connection.ask(&auth).await.context("no answer to the password")?;
        handshake::accepted(&reply).map_err(hopeless)?;
        let reply = connection.ask(subscription).await.context("no answer to the subscription")?;
        if !reply.starts_with("+OK") {
            return Err(hopeless(anyhow!("FreeSWITCH refuses the subscription: {reply:?}")));
        }
        Ok(connection)
    }

    /// The reply to a command.
    async fn ask(&mut self, command: &str) -> anyhow::Result<String> {
        self.stream.write_all(format!("{command}\n\n").as_bytes()).await.context("cannot send")?;
        loop {
            let frame = self.receive().await?;
            match frame.content_type.as_str() {
                "command/reply" => return Ok(frame.reply),
                "text/disconnect-notice" => bail!("FreeSWITCH ends the connection"),
                _ => {}
            }
        }
    }

    async fn receive(&mut self) -> anyhow::Result<Frame> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(frame) = self.frames.next()? {
                return Ok(frame);
            }
            self.stream.readable().await?;
            self.fill(&mut buffer)?;
        }
    }

    /// The next events. May be dropped and called again.
    async fn next(&mut self, buffer: &mut [u8]) -> anyhow::Result<Vec<Frame>> {
        loop {
            let mut events = vec![];
            let wrong = loop {
                let frame = match self.frames.next() {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break None,
                    Err(wrong) => break Some(wrong),
                };
                match frame.content_type.as_str() {
                    "text/event-json" | "text/event-plain" => events.push(frame),
                    "text/disconnect-notice" => self.ended = true,
                    _ => {}
                }
            };
            // What came before the good-bye, or before nonsense, counts.
            if !events.is_empty() {
                return Ok(events);
            }
            if let Some(wrong) = wrong {
                return Err(wrong.into());
            }
            if self.ended {
                bail!("FreeSWITCH ends the connection");
            }
            let until = self.probed.map_or(self.heard + SILENCE, |probed| probed + PROBE_PATIENCE);
            tokio::select! {
                // Where we were kept from reading for long, what has come meanwhile counts.
                biased;
                readable = self.stream.readable() => {
                    readable?;
                    self.fill(buffer)?;
                }
                () = sleep_until(until) => self.probe()?,
            }
        }
    }

    /// Takes in what is there.
    fn fill(&mut self, buffer: &mut [u8]) -> anyhow::Result<()> {
        match self.stream.try_read(buffer) {
            Ok(0) => bail!("the connection was closed"),
            Ok(length) => self.frames.push(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        (self.heard, self.probed) = (Instant::now(), None);
        Ok(())
    }

    fn probe(&mut self) -> anyhow::Result<()> {
        if self.probed.is_some() {
            bail!("nobody answers any more");
        }
        self.probed = Some(Instant::now());
        match self.stream.try_write(PROBE) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// A peer that is gone without a word is noticed within half a minute.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(10))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(5))?;
    sockopt::set_tcp_keepcnt(stream, 3)?;
    Ok(())
}
