//! A web server on loopback that can fail in every way.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use tempfile::TempDir;

use super::run;

/// What endless bodies and bombs are made of.
const LINE: &[u8] = b"203.0.113.1\n";

/// About as many bytes are sent at a time.
const BLOCK: usize = 1 << 16;

/// Even an endless body ends here, so that a client without a limit of its own fails its test instead of the machine.
const ENDLESS: usize = 2 << 30;

/// A server with a thread for each connection; it ends with this value, and so do its connections.
pub struct Http {
    port: u16,
    state: Arc<State>,
    certificates: Option<TempDir>,
    listener: Option<JoinHandle<()>>,
}

/// What the server shows who it is.
#[derive(Clone, Copy, Debug)]
pub enum Certificate {
    Good,
    Expired,
    WrongName,
    SelfSigned,
}

/// What a path answers. Every answer is the last on its connection.
#[derive(Clone)]
pub enum Reply {
    Ok(Vec<u8>),
    /// 304 for who has this version by its tag or, without any tag in the request, by exactly this date.
    Tagged {
        body: Vec<u8>,
        etag: String,
        last_modified: Option<String>,
    },
    /// 304 even for who has no version at all.
    Always304,
    Status(u16, Vec<(String, String)>, Vec<u8>),
    /// One after another, the last for ever.
    Sequence(Vec<Reply>),
    /// No answer, and the connection stays.
    Hang,
    /// One byte a second.
    Dribble(Vec<u8>),
    /// The end comes after so many bytes of a body with the right length.
    Cut {
        body: Vec<u8>,
        at: usize,
    },
    /// The end comes after so many bytes of a chunked body, between two chunks.
    CutChunked {
        body: Vec<u8>,
        at: usize,
    },
    /// The whole body and then the end, under a length that is too small or too large.
    WrongLength {
        body: Vec<u8>,
        says: usize,
    },
    /// This line for ever, chunked.
    Endless(Vec<u8>),
    /// Says that so many bytes come, and sends lines until the client goes.
    Huge(u64),
    Redirect(String),
    /// A broken connection.
    Reset,
    /// No HTTP at all.
    Garbage,
    /// An orderly end instead of an answer.
    Gone,
}

/// What a client asked; the names of its headers are in lower case.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
}

struct State {
    tls: Option<Arc<ServerConfig>>,
    replies: Mutex<HashMap<String, Reply>>,
    requests: Mutex<Vec<Request>>,
    stopped: AtomicBool,
}

impl Http {
    pub fn start() -> Self {
        Self::launch(None, None)
    }

    pub fn start_tls(certificate: Certificate) -> Self {
        let dir = TempDir::with_prefix("rf-http-").unwrap();
        let tls = tls(dir.path(), certificate);
        Self::launch(Some(dir), Some(Arc::new(tls)))
    }

    fn launch(certificates: Option<TempDir>, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (replies, requests, stopped) = Default::default();
        let state = Arc::new(State { tls, replies, requests, stopped });
        let listen = {
            let state = Arc::clone(&state);
            move || state.listen(&listener)
        };
        Self { port, state, certificates, listener: Some(std::thread::spawn(listen)) }
    }

    /// The certificate of the authority that vouches for the server, unless it is self-signed.
    pub fn authority(&self) -> PathBuf {
        self.certificates.as_ref().expect("a server with TLS").path().join("ca.crt")
    }

    pub fn url(&self, path: &str) -> String {
        let scheme = if self.certificates.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}{path}", self.port)
    }

    /// From now on the path, with its query if there is one, answers this; all others answer 404.
    pub fn serve(&self, path: &str, reply: Reply) {
        self.state.replies.lock().unwrap().insert(path.to_owned(), reply);
    }

    /// All requests until now.
    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        // It waits for one more client.
        let woken = TcpStream::connect(("127.0.0.1", self.port)).is_ok();
        if let Some(listener) = self.listener.take().filter(|_| woken) {
            let _ = listener.join();
        }
    }
}

impl State {
    fn listen(self: &Arc<Self>, listener: &TcpListener) {
        // Only the connection's thread keeps its socket open.
        let mut connections: Vec<(Weak<TcpStream>, JoinHandle<()>)> = Vec::new();
        for socket in listener.incoming() {
            if self.stopped.load(Ordering::SeqCst) {
                break;
            }
            let socket = Arc::new(socket.unwrap());
            let state = Arc::clone(self);
            connections.retain(|(_, thread)| !thread.is_finished());
            connections.push((
                Arc::downgrade(&socket),
                std::thread::spawn(move || {
                    // The client may go at any time.
                    let _ = state.talk(&socket);
                }),
            ));
        }
        for (socket, thread) in connections {
            if let Some(socket) = socket.upgrade() {
                let _ = socket.shutdown(Shutdown::Both);
            }
            thread.thread().unpark();
            let _ = thread.join();
        }
    }

    fn talk(&self, socket: &TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let mut plain = socket;
        let Some(config) = &self.tls else {
            return self.answer(&mut plain, socket).map(drop);
        };
        let mut session = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        let mut stream = rustls::Stream::new(&mut session, &mut plain);
        if self.answer(&mut stream, socket)? {
            stream.conn.send_close_notify();
            stream.flush()?;
        }
        Ok(())
    }

    /// Answers one request; whether the end is in order.
    fn answer<S: Read + Write>(&self, stream: &mut S, socket: &TcpStream) -> io::Result<bool> {
        let request = read_request(stream)?;
        let reply = self.replies.lock().unwrap().get_mut(&request.path).map(Reply::next);
        self.requests.lock().unwrap().push(request.clone());
        match reply.unwrap_or_else(|| Reply::Status(404, Vec::new(), b"not here\n".to_vec())) {
            Reply::Ok(body) => whole(stream, 200, &[], &body)?,
            Reply::Tagged { body, etag, last_modified } => {
                let known = request.has(&etag, last_modified.as_deref());
                let mut headers = vec![("etag".to_owned(), etag)];
                headers.extend(last_modified.map(|date| ("last-modified".to_owned(), date)));
                let (status, body) = if known { (304, &[][..]) } else { (200, &body[..]) };
                whole(stream, status, &headers, body)?;
            }
            Reply::Always304 => whole(stream, 304, &[], b"")?,
            Reply::Status(status, headers, body) => whole(stream, status, &headers, &body)?,
            Reply::Redirect(to) => whole(stream, 302, &[("location".to_owned(), to)], b"")?,
            Reply::Sequence(_) => unreachable!("it is never next"),
            Reply::Dribble(body) => {
                head(stream, 200, &[length(&body.len())])?;
                self.dribble(stream, &body)?;
            }
            Reply::WrongLength { body, says } => {
                head(stream, 200, &[length(&says)])?;
                stream.write_all(&body)?;
            }
            Reply::Endless(line) => {
                head(stream, 200, &[chunked()])?;
                let block = line.repeat(BLOCK / line.len() + 1);
                for _ in 0..ENDLESS / block.len() {
                    chunk(stream, &block)?;
                }
                chunk(stream, b"")?;
            }
            Reply::Huge(says) => {
                head(stream, 200, &[length(&says)])?;
                let block = LINE.repeat(BLOCK / LINE.len());
                let mut left = says;
                while left > 0 {
                    let part = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    stream.write_all(&block[..part])?;
                    left -= part as u64;
                }
            }
            Reply::Garbage => stream.write_all(b"\0\xff SSH-2.0-OpenSSH_9.2\r\n\r\n\x16\x03\x01")?,
            Reply::Cut { body, at } => {
                head(stream, 200, &[length(&body.len())])?;
                stream.write_all(&body[..at])?;
                return Ok(false);
            }
            Reply::CutChunked { body, at } => {
                head(stream, 200, &[chunked()])?;
                for part in body[..at].chunks(BLOCK) {
                    chunk(stream, part)?;
                }
                return Ok(false);
            }
            Reply::Hang => {
                io::copy(stream, &mut io::sink())?;
                return Ok(false);
            }
            Reply::Reset => {
                rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO))?;
                return Ok(false);
            }
            Reply::Gone => return Ok(false),
        }
        Ok(true)
    }

    fn dribble(&self, stream: &mut impl Write, body: &[u8]) -> io::Result<()> {
        let start = Instant::now();
        for (second, byte) in (0..).zip(body) {
            let due = Duration::from_secs(second);
            while let Some(early) = due.checked_sub(start.elapsed()).filter(|early| !early.is_zero()) {
                if self.stopped.load(Ordering::SeqCst) {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                std::thread::park_timeout(early);
            }
            stream.write_all(&[*byte])?;
            stream.flush()?;
        }
        Ok(())
    }
}

impl Reply {
    /// What the next request gets.
    fn next(&mut self) -> Self {
        match self {
            Self::Sequence(replies) if replies.len() > 1 => replies.remove(0).next(),
            Self::Sequence(replies) => replies.first_mut().expect("a reply").next(),
            reply => reply.clone(),
        }
    }
}

impl Request {
    /// Whether the client has this version.
    fn has(&self, etag: &str, last_modified: Option<&str>) -> bool {
        let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        match self.headers.get("if-none-match") {
            Some(tags) => tags.split(',').any(|tag| strong(tag) == strong(etag)),
            None => self.headers.get("if-modified-since").is_some_and(|date| Some(&**date) == last_modified),
        }
    }
}

fn read_request(stream: &mut impl Read) -> io::Result<Request> {
    let mut lines = BufReader::new(stream).lines();
    let mut line = || lines.next().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()));
    let first = line()?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    while let Some((name, value)) = line()?.split_once(':') {
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Ok(Request { method, path, headers })
}

fn length(says: &impl ToString) -> (String, String) {
    ("content-length".to_owned(), says.to_string())
}

fn chunked() -> (String, String) {
    ("transfer-encoding".to_owned(), "chunked".to_owned())
}

fn head(stream: &mut impl Write, status: u16, headers: &[(String, String)]) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} \r\nconnection: close\r\n");
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    stream.write_all((head + "\r\n").as_bytes())
}

fn whole(stream: &mut impl Write, status: u16, headers: &[(String, String)], body: &[u8]) -> io::Result<()> {
    let length = (status != 304).then(|| length(&body.len()));
    head(stream, status, &headers.iter().cloned().chain(length).collect::<Vec<_>>())?;
    stream.write_all(body)
}

/// An empty one is the last.
fn chunk(stream: &mut impl Write, part: &[u8]) -> io::Result<()> {
    stream.write_all(format!("{:x}\r\n", part.len()).as_bytes())?;
    stream.write_all(part)?;
    stream.write_all(b"\r\n")
}

/// A new authority in the directory, and a server with such a certificate.
fn tls(dir: &Path, certificate: Certificate) -> ServerConfig {
    let at = |name: &str| dir.join(name);
    let name = match certificate {
        Certificate::WrongName => "DNS:elsewhere.example",
        _ => "IP:127.0.0.1, DNS:localhost",
    };
    // Of the commands that sign, only "ca" can set a day in the past in every version of OpenSSL.
    let settings = format!(
        "[req]\ndistinguished_name = subject\n[ca]\ndefault_ca = lab\n[subject]\n\
         [lab]\ndatabase = {dir}/index\nnew_certs_dir = {dir}\nrand_serial = yes\ndefault_md = sha256\npolicy = any\n\
         [any]\ncommonName = supplied\n[authority]\nbasicConstraints = critical, CA:TRUE\n\
         [server]\nbasicConstraints = critical, CA:FALSE\nsubjectAltName = {name}\n",
        dir = dir.display(),
    );
    std::fs::write(at("settings"), settings).unwrap();
    std::fs::write(at("index"), "").unwrap();
    let openssl = |command: &str, args: &[&str]| {
        run(Command::new("openssl").current_dir(dir).args([command, "-config", "settings"]).args(args));
    };
    let request = |subject: &str, key: &str, out: &str, args: &[&str]| {
        let new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        openssl("req", &[&new[..], &["-subj", subject, "-keyout", key, "-out", out], args].concat());
    };
    let own = |extensions| ["-x509", "-days", "2", "-extensions", extensions];
    request("/CN=lab authority", "ca.key", "ca.crt", &own("authority"));
    if let Certificate::SelfSigned = certificate {
        request("/CN=localhost", "server.key", "server.crt", &own("server"));
    } else {
        request("/CN=localhost", "server.key", "server.csr", &[]);
        let days: &[&str] = match certificate {
            Certificate::Expired => &["-startdate", "20200101000000Z", "-enddate", "20200102000000Z"],
            _ => &["-days", "2"],
        };
        let sign = ["-batch", "-notext", "-cert", "ca.crt", "-keyfile", "ca.key", "-extensions", "server"];
        openssl("ca", &[&sign[..], &["-in", "server.csr", "-out", "server.crt"], days].concat());
    }
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(at("server.crt")).unwrap()],
            PrivateKeyDer::from_pem_file(at("server.key")).unwrap(),
        )
        .unwrap()
}

pub fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

pub fn xz(body: &[u8]) -> Vec<u8> {
    let mut file: File = tempfile::tempfile().unwrap();
    file.write_all(body).unwrap();
    file.rewind().unwrap();
    let xz = Command::new("xz").arg("--stdout").stdin(file).output();
    let xz = xz.expect("xz of xz-utils; `make setup` installs it");
    assert!(xz.status.success(), "{xz:?}");
    xz.stdout
}

/// One gzip member, small, with so many bytes of lines with an address in it.
pub fn gzip_bomb(size: u64) -> Vec<u8> {
    let block = LINE.repeat(BLOCK);
    let blocks = size / block.len() as u64;
    let rest = &block[..usize::try_from(size % block.len() as u64).unwrap()];
    // A flush ends at a whole byte, and nothing in a first block points before it: it can be repeated.
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&block).unwrap();
    encoder.flush().unwrap();
    let deflated = encoder.get_ref().repeat(usize::try_from(blocks).unwrap());
    let mut last = DeflateEncoder::new(Vec::new(), Compression::best());
    last.write_all(rest).unwrap();
    let (mut sum, mut block_sum) = (crc32fast::Hasher::new(), crc32fast::Hasher::new());
    block_sum.update(&block);
    (0..blocks).for_each(|_| sum.combine(&block_sum));
    sum.update(rest);
    // RFC 1952: deflate, without flags, name and date, of an unknown system; the size counts modulo 2^32.
    let header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let [checksum, size] = [sum.finalize().to_le_bytes(), size.to_le_bytes()[..4].try_into().unwrap()];
    [&header[..], &deflated, &last.finish().unwrap(), &checksum, &size].concat()
}
