//! FreeSWITCH's event socket, played by us, and `ringfence-events` that listens to it.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Postgres, World, data, wait_for};

pub const GREETING: &str = "Content-Type: auth/request\n\n";

/// A server that lets listeners in, and hands them over.
pub struct EventSource {
    pub port: u16,
    listeners: Receiver<TcpStream>,
}

impl EventSource {
    pub fn new() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// On a socket that may be of another host.
    pub fn on(socket: TcpListener) -> Self {
        let port = socket.local_addr().unwrap().port();
        let (sender, listeners) = mpsc::channel();
        std::thread::spawn(move || {
            for mut stream in socket.incoming().flatten() {
                if greet(&mut stream).is_some() && sender.send(stream).is_err() {
                    return;
                }
            }
        });
        Self { port, listeners }
    }

    /// The next one that subscribes.
    #[track_caller]
    pub fn listener(&self) -> TcpStream {
        self.listeners.recv_timeout(Duration::from_mins(1)).expect("somebody subscribes")
    }

    /// Whether somebody subscribes within this time.
    pub fn listener_within(&self, time: Duration) -> Option<TcpStream> {
        self.listeners.recv_timeout(time).ok()
    }
}

/// As FreeSWITCH does it; who asks for more than he needs is not let in.
fn greet(stream: &mut TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    stream.write_all(GREETING.as_bytes()).ok()?;
    assert_eq!(command(stream)?, "auth ClueCon");
    stream.write_all(b"Content-Type: command/reply\nReply-Text: +OK accepted\n\n").ok()?;
    let asked = "event json CUSTOM sofia::register sofia::unregister sofia::expire sofia::register_attempt \
                 sofia::register_failure sofia::pre_register verto::login";
    assert_eq!(command(stream)?, asked);
    stream.write_all(b"Content-Type: command/reply\nReply-Text: +OK event listener enabled json\n\n").ok()
}

/// What a listener sends next; none if it goes.
pub fn command(stream: &mut TcpStream) -> Option<String> {
    let mut text = vec![];
    while !text.ends_with(b"\n\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        text.push(byte[0]);
    }
    Some(String::from_utf8(text).unwrap().trim_end().to_owned())
}

/// An event as FreeSWITCH writes it, with these headers, at `time` (microseconds since 1970).
pub fn event(subclass: &str, time: i64, headers: &[(&str, &str)]) -> String {
    let mut json = format!(
        "{{\"Event-Subclass\":\"{subclass}\",\"Event-Name\":\"CUSTOM\",\"Event-Date-Timestamp\":\"{time}\",\
         \"profile-name\":\"internal\",\"user-agent\":\"LabPhone 1.0\""
    );
    for (name, value) in headers {
        write!(json, ",\"{name}\":{}", serde_json::Value::from(*value)).unwrap();
    }
    json.push('}');
    format!("Content-Length: {}\nContent-Type: text/event-json\n\n{json}", json.len())
}

/// The two events of refused credentials.
pub fn failure(user: &str, address: &str, time: i64) -> String {
    let host = "a.example.com";
    let source = [("network-ip", address), ("network-port", "5060")];
    let attempt = [
        ("from-user", user),
        ("from-host", host),
        ("username", user),
        ("realm", host),
        ("auth-result", "FORBIDDEN"),
    ];
    let failure = [("to-user", user), ("to-host", host), ("registration-type", "REGISTER")];
    event("sofia::register_attempt", time, &[&source[..], &attempt].concat())
        + &event("sofia::register_failure", time, &[&source[..], &failure].concat())
}

/// The events of a recorded session.
pub fn recorded(name: &str) -> String {
    let text = std::fs::read_to_string(data("esl").join(name)).unwrap();
    let chunks = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let server = chunks.filter(|chunk| chunk["from"] == "server");
    server.skip(3).filter_map(|chunk| chunk["data"].as_str().map(str::to_owned)).collect()
}

/// A `FusionPBX` that has the accounts 101 to 110 of a.example.com.
pub fn ten_accounts() -> Postgres {
    Postgres::with_fusionpbx(
        "INSERT INTO v_domains (domain_uuid, domain_name, domain_enabled) VALUES
             ('11111111-1111-1111-1111-111111111111', 'a.example.com', 'true');
         INSERT INTO v_extensions (extension_uuid, domain_uuid, extension, enabled)
             SELECT gen_random_uuid(), '11111111-1111-1111-1111-111111111111', i, 'true' FROM generate_series(101, 110) AS i",
    )
}

/// Microseconds since 1970.
pub fn now_us() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

/// A running `ringfence-events run`; it is killed with this value.
pub struct Events {
    child: Child,
    log: PathBuf,
    stderr: PathBuf,
}

impl Events {
    /// In a world whose settings name the event source.
    pub fn start(world: &World) -> Self {
        Self::spawn(world, &mut world.events_command(&["run"]))
    }

    pub fn spawn(world: &World, command: &mut Command) -> Self {
        let stderr = std::fs::File::create(world.path("events.stderr")).unwrap();
        Self::spawn_with(world, command, stderr.into())
    }

    /// With a standard error of one's own, so that [`stderr`](Self::stderr) is not known.
    pub fn spawn_with(world: &World, command: &mut Command, stderr: Stdio) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let child = command.spawn().unwrap();
        Self { child, log: world.path("log/events/events.log"), stderr: world.path("events.stderr") }
    }

    /// Resident memory in KiB: now, and at most so far.
    pub fn memory(&self) -> [u64; 2] {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        ["VmRSS:", "VmHWM:"].map(|name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        })
    }

    /// Processor time so far.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2);
        let ticks: u64 = fields.map(|field| field.parse::<u64>().unwrap()).sum();
        // Linux has a hundred a second, whatever its own clock does.
        Duration::from_millis(ticks * 10)
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Sends SIGTERM; its exit status, and how long it took.
    pub fn end(&mut self) -> (Option<i32>, Duration) {
        let start = Instant::now();
        self.signal(Signal::TERM);
        let status = self.child.wait().unwrap();
        (status.code(), start.elapsed())
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap()
    }

    /// Waits until the log has so many lines, and returns it.
    #[track_caller]
    pub fn log_of(&self, lines: usize) -> String {
        wait_for("lines in the log", || self.log().lines().count() >= lines);
        self.log()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
