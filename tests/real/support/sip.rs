//! Messages of SIP, and whether they arrive.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::thread::JoinHandle;
use std::time::Duration;

use super::data;

/// A `REGISTER` of 999@a.example.com with these header lines besides, which name whom they will; none if empty.
pub fn register(headers: &str) -> String {
    let headers = if headers.is_empty() { String::new() } else { format!("{headers}\r\n") };
    format!(
        "REGISTER sip:a.example.com SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.20:5060;branch=z9hG4bK-524287;rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:999@a.example.com>;tag=7f3b\r\nTo: <sip:999@a.example.com>\r\n\
         Call-ID: 1-4711@203.0.113.20\r\nCSeq: 2 REGISTER\r\nContact: <sip:999@203.0.113.20:5060>\r\n{headers}\
         Expires: 3600\r\nContent-Length: 0\r\n\r\n"
    )
}

/// The header with an account's credentials as most phones write it.
pub fn credentials(account: &str) -> String {
    let (user, realm) = account.rsplit_once('@').unwrap();
    format!(
        "Authorization: Digest username=\"{user}\", realm=\"{realm}\", nonce=\"5f0c2b7e\", uri=\"sip:a.example.com\", \
         response=\"0123456789abcdef0123456789abcdef\", algorithm=MD5"
    )
}

/// A `REGISTER` with an account's credentials.
pub fn login(account: &str) -> String {
    register(&credentials(account))
}

/// A way to write the header, `{user}` and `{realm}` for the account.
pub struct Layout {
    pub client: String,
    text: String,
}

impl Layout {
    pub fn new(client: &str, text: &str) -> Self {
        assert!(
            text.starts_with("Authorization") && text.contains("{user}") && text.contains("{realm}"),
            "{text}"
        );
        Self { client: client.to_owned(), text: text.to_owned() }
    }

    /// The header for an account.
    pub fn credentials(&self, account: &str) -> String {
        let (user, realm) = account.rsplit_once('@').unwrap();
        self.text.replace("{user}", user).replace("{realm}", realm)
    }
}

/// Those of known clients.
pub fn layouts() -> Vec<Layout> {
    let text = std::fs::read_to_string(data("sip/authorization.txt")).unwrap();
    let (_, paragraphs) = text.split_once("\n\n").unwrap();
    let layout = |paragraph: &str| {
        let (client, header) = paragraph.strip_prefix("# ").unwrap().split_once('\n').unwrap();
        Layout::new(client, &header.trim_end().replace('\n', "\r\n"))
    };
    paragraphs.split("\n\n").map(layout).collect()
}

/// A way from one socket to another, on which nothing overtakes.
pub struct Wire {
    pub from: UdpSocket,
    pub to: UdpSocket,
}

impl Wire {
    /// Whether a message arrives, before another one that always does. It is answered: what follows belongs to an
    /// established connection.
    #[track_caller]
    pub fn passes(&self, message: &str) -> bool {
        const MARKER: &[u8] = b"\r\n\r\n";
        self.to.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        self.from.send(message.as_bytes()).unwrap();
        self.from.send(MARKER).unwrap();
        let mut arrived = false;
        loop {
            let mut buffer = [0; 10_000];
            let (length, sender) = self.to.recv_from(&mut buffer).expect("the marker");
            match self.to.send_to(b"SIP/2.0 100 Trying\r\n\r\n", sender) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                sent => assert!(sent.is_ok(), "{sent:?}"),
            }
            if &buffer[..length] == MARKER {
                return arrived;
            }
            assert!(!arrived && buffer[..length] == *message.as_bytes(), "something else arrived");
            arrived = true;
        }
    }

    /// Whether an account gets through.
    #[track_caller]
    pub fn lets_in(&self, account: &str) -> bool {
        self.passes(&login(account))
    }
}

/// Answers every request with "200 OK" as long as it lives.
pub struct Answerer {
    socket: UdpSocket,
    thread: Option<JoinHandle<()>>,
}

impl Answerer {
    pub fn new(socket: UdpSocket) -> Self {
        let own = socket.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 10_000];
            while let Ok((length, from)) = own.recv_from(&mut buffer) {
                if length == 0 {
                    break;
                }
                let request = String::from_utf8_lossy(&buffer[..length]);
                let kept = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"];
                let headers =
                    request.split("\r\n").filter(|line| kept.iter().any(|name| line.starts_with(name)));
                let headers: Vec<_> = headers.collect();
                let answer =
                    format!("SIP/2.0 200 OK\r\n{}\r\nContent-Length: 0\r\n\r\n", headers.join("\r\n"));
                let _ = own.send_to(answer.as_bytes(), from);
            }
        });
        Self { socket, thread: Some(thread) }
    }
}

impl Drop for Answerer {
    /// A packet without content, to itself, ends it.
    fn drop(&mut self) {
        let own = self.socket.local_addr().unwrap();
        self.socket.send_to(&[], own).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}
