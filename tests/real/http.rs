//! The web server of the tests: each of its faults is what it says.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::support::{Certificate, Http, Reply, gzip, gzip_bomb, xz};

const BODY: &[u8] = b"198.51.100.7\n203.0.113.9\n";

/// Asks, and leaves the answer to the test.
fn ask(http: &Http, path: &str, headers: &str) -> TcpStream {
    let mut socket = connect(http);
    socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: lab\r\n{headers}\r\n").as_bytes()).unwrap();
    socket
}

fn connect(http: &Http) -> TcpStream {
    let url = http.url("");
    let socket = TcpStream::connect(url.split_once("://").unwrap().1).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

/// The head and the body of an answer, as far as it comes.
fn get(http: &Http, path: &str, headers: &str) -> (String, Vec<u8>) {
    let mut answer = Vec::new();
    ask(http, path, headers).read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    let body = answer.split_off(end);
    (String::from_utf8_lossy(&answer).into_owned(), body)
}

fn status(http: &Http, path: &str, headers: &str) -> String {
    get(http, path, headers).0.split(' ').nth(1).unwrap_or_default().to_owned()
}

fn serving(reply: Reply) -> Http {
    let http = Http::start();
    http.serve("/list", reply);
    http
}

#[test]
fn answers_what_it_was_told_and_remembers_who_asked() {
    let http = serving(Reply::Ok(BODY.to_vec()));
    let (head, body) = get(&http, "/list", "X-Tool: Lab\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("content-length: 25\r\n"), "{head}");
    assert_eq!(body, BODY);
    assert_eq!(status(&http, "/list?page=2", ""), "404");

    http.serve("/list", Reply::Redirect(http.url("/new")));
    let (head, _) = get(&http, "/list", "");
    assert!(
        head.contains(" 302 ") && head.contains(&format!("location: {}\r\n", http.url("/new"))),
        "{head}"
    );

    let busy = Reply::Status(503, vec![("retry-after".to_owned(), "9".to_owned())], b"busy".to_vec());
    http.serve("/list", Reply::Sequence(vec![busy, Reply::Ok(BODY.to_vec())]));
    let (head, body) = get(&http, "/list", "");
    assert!(head.contains(" 503 ") && head.contains("retry-after: 9\r\n") && body == b"busy", "{head}");
    assert_eq!([status(&http, "/list", ""), status(&http, "/list", "")], ["200", "200"]);

    let requests = http.requests();
    assert_eq!((requests.len(), &*requests[0].method, &*requests[0].headers["x-tool"]), (6, "GET", "Lab"));
    assert_eq!(requests[1].path, "/list?page=2");
}

#[test]
fn says_304_for_the_version_that_it_has() {
    let date = "Sat, 01 Feb 2025 00:00:00 GMT";
    let http = serving(Reply::Tagged {
        body: BODY.to_vec(),
        etag: "\"a\"".to_owned(),
        last_modified: Some(date.to_owned()),
    });
    let (head, body) = get(&http, "/list", "");
    assert!(head.contains("etag: \"a\"\r\n") && head.contains(date) && body == BODY, "{head}");
    for (headers, expected) in [
        ("If-None-Match: \"a\"\r\n".to_owned(), "304"),
        ("If-None-Match: \"b\", W/\"a\"\r\n".to_owned(), "304"),
        (format!("If-Modified-Since: {date}\r\n"), "304"),
        (format!("If-None-Match: \"b\"\r\nIf-Modified-Since: {date}\r\n"), "200"),
        ("If-Modified-Since: Sun, 02 Feb 2025 00:00:00 GMT\r\n".to_owned(), "200"),
    ] {
        assert_eq!(status(&http, "/list", &headers), expected, "{headers}");
    }
    http.serve("/list", Reply::Always304);
    let (head, body) = get(&http, "/list", "");
    assert!(head.contains(" 304 ") && body.is_empty(), "{head}");
}

#[test]
fn ends_too_early_or_too_late() {
    let http = serving(Reply::Cut { body: BODY.to_vec(), at: 5 });
    let (head, body) = get(&http, "/list", "");
    assert!(head.contains("content-length: 25\r\n") && body == BODY[..5], "{head}");

    http.serve("/list", Reply::CutChunked { body: BODY.to_vec(), at: 5 });
    let (head, body) = get(&http, "/list", "");
    assert!(head.contains("transfer-encoding: chunked\r\n") && body == b"5\r\n198.5\r\n", "{head}");

    for says in [20, 30] {
        http.serve("/list", Reply::WrongLength { body: BODY.to_vec(), says });
        let (head, body) = get(&http, "/list", "");
        assert!(head.contains(&format!("content-length: {says}\r\n")) && body == BODY, "{head}");
    }
}

#[test]
fn sends_nothing_that_is_an_answer() {
    let http = serving(Reply::Gone);
    assert_eq!(get(&http, "/list", ""), (String::new(), Vec::new()));

    http.serve("/list", Reply::Garbage);
    let (head, _) = get(&http, "/list", "");
    assert!(!head.is_empty() && !head.contains("HTTP"), "{head}");

    http.serve("/list", Reply::Reset);
    let error = ask(&http, "/list", "").read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn sends_more_than_anybody_wants() {
    let http = Http::start();
    for (reply, header, line) in [
        (Reply::Endless(b"192.0.2.1\n".to_vec()), "transfer-encoding: chunked\r\n", "\n192.0.2.1\n"),
        (Reply::Huge(1 << 40), "content-length: 1099511627776\r\n", "\n203.0.113.1\n"),
    ] {
        http.serve("/list", reply);
        let mut answer = vec![0; 8 << 20];
        ask(&http, "/list", "").read_exact(&mut answer).unwrap();
        let text = String::from_utf8(answer).unwrap();
        assert!(text.contains(header) && text[text.len() / 2..].contains(line), "{}", &text[..200]);
    }
    http.serve("/list", Reply::Huge(100_001));
    assert_eq!(get(&http, "/list", "").1.len(), 100_001);
}

#[test]
fn dribbles_a_byte_a_second() {
    let http = serving(Reply::Dribble(BODY.to_vec()));
    let mut socket = ask(&http, "/list", "");
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0].into());
    }
    assert!(head.contains("content-length: 25\r\n"), "{head}");
    let start = Instant::now();
    let mut bytes = [0; 2];
    socket.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, BODY[..2]);
    let took = start.elapsed().as_secs_f64();
    assert!((0.8..5.0).contains(&took), "{took} s");
}

#[test]
fn takes_its_connections_with_it() {
    let http = serving(Reply::Hang);
    http.serve("/slow", Reply::Dribble(vec![b'\n'; 1000]));
    http.serve("/endless", Reply::Endless(b"192.0.2.1\n".to_vec()));
    let mut hanging = ask(&http, "/list", "");
    hanging.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert_eq!(hanging.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    hanging.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let silent = connect(&http);
    let others = ["/slow", "/endless"].map(|path| ask(&http, path, ""));
    crate::support::wait_for("requests", || http.requests().len() == 3);

    let address = hanging.peer_addr().unwrap();
    let start = Instant::now();
    drop(http);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    for mut socket in others.into_iter().chain([hanging, silent]) {
        io::copy(&mut socket, &mut io::sink()).unwrap();
    }
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

/// Asks as one who trusts the server's authority.
fn get_trusting(http: &Http) -> io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(http.authority()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut session =
        ClientConnection::new(Arc::new(config), ServerName::try_from("127.0.0.1").unwrap()).unwrap();
    let mut socket = connect(http);
    let mut stream = rustls::Stream::new(&mut session, &mut socket);
    stream.write_all(b"GET /list HTTP/1.1\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn proves_who_it_is_or_fails_to() {
    let http = Http::start_tls(Certificate::Good);
    http.serve("/list", Reply::Ok(BODY.to_vec()));
    assert!(http.url("/list").starts_with("https://"));
    assert!(get_trusting(&http).unwrap().ends_with("\r\n\r\n198.51.100.7\n203.0.113.9\n"));
    http.serve("/list", Reply::Cut { body: BODY.to_vec(), at: 5 });
    assert_eq!(get_trusting(&http).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    http.serve("/list", Reply::Reset);
    assert_eq!(get_trusting(&http).unwrap_err().kind(), ErrorKind::ConnectionReset);

    for (certificate, reason) in [
        (Certificate::Expired, "certificate expired"),
        (Certificate::WrongName, "not valid for name"),
        (Certificate::SelfSigned, "UnknownIssuer"),
    ] {
        let http = Http::start_tls(certificate);
        let error = get_trusting(&http).unwrap_err().to_string();
        assert!(error.contains(reason), "{certificate:?}: {error}");
        assert!(http.requests().is_empty());
    }
}

#[test]
fn packs_what_unpacks() {
    let mut text = Vec::new();
    GzDecoder::new(&*gzip(BODY)).read_to_end(&mut text).unwrap();
    assert_eq!(text, BODY);
    text.clear();
    lzma_rust2::XzReader::new(&*xz(BODY), true).read_to_end(&mut text).unwrap();
    assert_eq!(text, BODY);

    // With whole blocks and without any.
    for size in [20_000_004, 24] {
        let bomb = gzip_bomb(size);
        assert!(bomb.len() < 100_000, "{}", bomb.len());
        text.clear();
        GzDecoder::new(&*bomb).read_to_end(&mut text).unwrap();
        assert_eq!(text.len() as u64, size);
        assert!(text.chunks(12).all(|line| line == b"203.0.113.1\n"));
    }
}
