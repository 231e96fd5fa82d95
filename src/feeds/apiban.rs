//! APIBAN: addresses caught by honeypots, in pages of 250, each named by the id of the one before.
//!
//! `GET URL/KEY/banned/ID` answers `{"ipaddress": [...], "ID": "..."}`; at the end 400 and
//! `{"ipaddress": ["no new bans"], "ID": "none"}`; errors have a text for `ipaddress`: 403 for a wrong key, 429 for more than
//! eleven requests in two minutes. The id goes on where the last run ended.

use std::net::IpAddr;
use std::time::Duration;

use bytesize::ByteSize;
use reqwest::{StatusCode, Url};
use serde::Deserialize;

use super::body;
use super::dated::Dated;
use super::format::{Gathering, Parsed, Wide};
use super::secrets::Secrets;
use super::web::{self, Client, Fault, Limits, Progress, Response};
use crate::address_set::AddressSet;
use crate::evidence::visible_within;

/// The id of the first page.
pub const START: &str = "100";

/// Addresses are banned for so long.
pub const LIFETIME: Duration = Duration::from_hours(7 * 24);

/// More pages are not read in one run, whatever the server says.
const PAGES: usize = 2_000;

/// A page is no larger than this once it is unpacked: one of 250 addresses has 10 KiB.
const PAGE: ByteSize = ByteSize::mib(1);

/// So many bytes of the server's text are shown.
const SHOWN: usize = 100;

/// What the pages say.
#[derive(Debug)]
pub struct Pages {
    /// The addresses.
    pub parsed: Parsed,
    /// Where the next run goes on.
    pub id: String,
    /// Where pages are left for the next run: how long the server wants to be left alone.
    pub more: Option<Option<Duration>>,
}

#[derive(Deserialize)]
struct Said {
    ipaddress: Content,
    #[serde(rename = "ID", default)]
    id: Id,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Addresses(Vec<String>),
    Text(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Id {
    Number(u64),
    Text(String),
    #[default]
    None,
}

impl Id {
    /// It becomes part of a URL.
    fn usable(self) -> Option<String> {
        let id = match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
            Self::None => return None,
        };
        ((1..=32).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(id)
    }
}

/// Reads the pages from `id` on.
pub async fn pages(
    client: &Client,
    base: &Url,
    key: &str,
    id: &str,
    limits: Limits,
    progress: Progress<'_>,
) -> Result<Pages, Fault> {
    let mut gathering = Gathering::new(Wide::LeftOut);
    let mut id = id.to_owned();
    // Bytes of the pages, as they came and unpacked.
    let (mut received, mut size) = (0, 0);
    for page in 0..PAGES {
        let url = page_url(base, key, &id)?;
        let before = received;
        let told = |length: u64, _| progress(before + length, None);
        let answer = client.get(&url, None, limits, &told).await.and_then(|response| {
            received += response.body.len() as u64;
            read(&response, &web::origin(base), &secrets(base, key)?, limits.size)
        });
        let Page { addresses, next, size: unpacked } = match answer {
            Ok(answer) => answer,
            // What came so far is good. The next run begins with what went wrong, and says so if it still does.
            Err(fault) if page > 0 => {
                return Ok(Pages { parsed: gathering.finish(), id, more: Some(fault.retry_after) });
            }
            Err(fault) => return Err(fault),
        };
        size += unpacked;
        for (line, address) in (1..).zip(&addresses) {
            match address.parse::<IpAddr>() {
                Ok(address) => gathering.range(line, address.into()),
                Err(_) => gathering.bad(line, address.as_bytes()),
            }
        }
        match next.usable() {
            // An id that does not move would be read for ever.
            Some(next) if next != id && next != "none" => id = next,
            _ => return Ok(Pages { parsed: gathering.finish(), id, more: None }),
        }
        // Whoever sends pages without end must not fill the memory. The next run goes on here.
        if size > limits.size.as_u64() {
            break;
        }
    }
    Ok(Pages { parsed: gathering.finish(), id, more: Some(None) })
}

/// `content` without what was reported longer ago than [`LIFETIME`] at `now`, in seconds since 1970: it ends though
/// APIBAN cannot be asked.
#[must_use]
pub fn let_go(content: &Dated, now: u32) -> Dated {
    let seconds = u32::try_from(LIFETIME.as_secs()).unwrap_or(u32::MAX);
    content.reported(&AddressSet::default(), now, now.saturating_sub(seconds))
}

/// One page, read.
#[derive(Debug)]
struct Page {
    addresses: Vec<String>,
    /// The id of the one behind it.
    next: Id,
    /// Bytes of it, unpacked.
    size: u64,
}

fn read(response: &Response, origin: &str, secrets: &Secrets, limit: ByteSize) -> Result<Page, Fault> {
    let message = match (response.status, said(&response.body, limit.min(PAGE))) {
        (StatusCode::OK, Ok((Said { ipaddress: Content::Addresses(addresses), id }, size))) => {
            return Ok(Page { addresses, next: id, size });
        }
        (StatusCode::BAD_REQUEST, Ok((Said { ipaddress: Content::Addresses(text), .. }, size)))
            if text.iter().any(|text| text == "no new bans") =>
        {
            return Ok(Page { addresses: vec![], next: Id::None, size });
        }
        (StatusCode::TOO_MANY_REQUESTS, _) => {
            let message = format!("{origin} answers 429: too many requests (it allows 11 in two minutes)");
            let retry_after = response.retry_after.or(Some(Duration::from_mins(2)));
            return Err(Fault::lasting(message).after(retry_after));
        }
        (StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED, _) => {
            format!("{origin} refuses the key; see its setting `key`")
        }
        (status, Ok((Said { ipaddress: Content::Text(text), .. }, _))) => {
            // It is the server's text, and it may quote the key.
            let text = visible_within(&secrets.hide(&text), SHOWN);
            format!("{origin} answers {status}: {text}")
        }
        (StatusCode::OK, Err(wrong)) => format!("{origin} answers {wrong}"),
        (status, _) => format!("{origin} answers {status}"),
    };
    Err(Fault::lasting(message))
}

/// What a body says, and its size; servers may pack what they send. An error says what it is instead.
fn said(body: &[u8], limit: ByteSize) -> Result<(Said, u64), String> {
    const NO_PAGE: &str = "what is no page of APIBAN's";
    // A packed one that is too large is not told from one that is broken: neither is APIBAN's.
    let content = body::unpack(body, limit).map_err(|_| NO_PAGE)?;
    if content.len() as u64 > limit.as_u64() {
        return Err(format!("a page of more than {limit}"));
    }
    let said = serde_json::from_slice(&content).map_err(|_| NO_PAGE)?;
    Ok((said, content.len() as u64))
}

/// The key, as it is and as a part of the path, and what else of `base` must not be shown.
pub fn secrets(base: &Url, key: &str) -> Result<Secrets, Fault> {
    let mut secrets = Secrets::of([base]);
    secrets.add(key);
    let url = page_url(base, key, START)?;
    secrets.add(url.path_segments().and_then(|segments| segments.rev().nth(2)).unwrap_or_default());
    Ok(secrets)
}

fn page_url(base: &Url, key: &str, id: &str) -> Result<Url, Fault> {
    let mut url = base.clone();
    match url.path_segments_mut() {
        // Each is one segment, whatever is in it.
        Ok(mut segments) => segments.pop_if_empty().extend([key, "banned", id]),
        Err(()) => return Err(Fault::lasting("its url has no path")),
    };
    Ok(url)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;
    use std::time::Instant;

    use super::*;
    use crate::deadline::Deadline;

    #[test]
    fn a_key_stays_one_part_of_the_path() {
        for (base, wanted) in [
            ("https://apiban.org/api/", "https://apiban.org/api/a%2Fb%3F/banned/100"),
            ("https://apiban.org/api", "https://apiban.org/api/a%2Fb%3F/banned/100"),
        ] {
            assert_eq!(page_url(&base.parse().unwrap(), "a/b?", "100").unwrap().as_str(), wanted);
        }
    }

    #[test]
    fn lets_go_after_a_week_and_not_before() {
        const WEEK: u32 = 7 * 86_400;
        let set = |text: &str| text.split(' ').map(|text| text.parse::<IpAddr>().unwrap()).collect();
        let reported = Dated::default().reported(&set("203.0.113.1 2001:db8::1"), 1_000, 0);
        let reported = reported.reported(&set("203.0.113.2 2001:db8::2"), 2_000, 0);
        assert_eq!(let_go(&reported, 0), reported);
        assert_eq!(let_go(&reported, 1_000 + WEEK), reported);
        let later = let_go(&reported, 1_001 + WEEK);
        assert_eq!(later.set(), set("203.0.113.2 2001:db8::2"));
        let date = later.find("203.0.113.2".parse().unwrap()).map(|(_, since)| since);
        assert_eq!(date, Some(2_000), "its date stays");
        assert_eq!(let_go(&later, 2_001 + WEEK), Dated::default());
    }

    #[test]
    fn a_page_is_small() {
        let page = |size: usize| {
            let mut body = br#"{"ipaddress":["203.0.113.7"],"ID":"200"}"#.to_vec();
            body.resize(size, b' ');
            body
        };
        let packed = |content: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        };
        let wrong = |body: &[u8]| said(body, PAGE).err();
        let (fits, large) = (page(1 << 20), page((1 << 20) + 1));
        assert_eq!([wrong(&fits), wrong(&packed(&fits))], [None, None]);
        assert_eq!(wrong(&large).as_deref(), Some("a page of more than 1.0 MiB"));
        assert_eq!(wrong(&packed(&large)).as_deref(), Some("what is no page of APIBAN's"));
        assert_eq!(said(&packed(&fits), PAGE).unwrap().1, 1 << 20);
    }

    /// A server that has pages without end, the id of each one more than that of the last, each of `size` bytes.
    fn endless(size: usize) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}/api", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for (id, stream) in (101..).zip(listener.incoming()) {
                let mut stream = stream.unwrap();
                let mut asked = BufReader::new(&stream).lines();
                while asked.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let mut body = format!("{{\"ipaddress\":[\"203.0.113.{}\"],\"ID\":{id}}}", id - 100);
                body += &" ".repeat(size - body.len());
                let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length:";
                // Who refuses the page does not read all of it.
                let _ = write!(stream, "{head} {size}\r\n\r\n{body}");
            }
        });
        base.parse().unwrap()
    }

    fn asked(base: &Url, size: ByteSize) -> Result<Pages, Fault> {
        let limits = Limits { size, deadline: Deadline::after(Instant::now(), Duration::from_secs(20)) };
        let client = Client::new().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(pages(&client, base, "key", START, limits, &|_, _| ()))
    }

    #[test]
    fn pages_without_end_are_left_for_the_next_run() {
        let found = asked(&endless(1_000), ByteSize::b(2_500)).unwrap();
        // The one that goes beyond is there already, and taken.
        assert_eq!((found.id.as_str(), found.more), ("103", Some(None)));
        assert_eq!(found.parsed.set.addresses(), 3);
    }

    #[test]
    fn a_page_that_is_too_large_is_refused() {
        let fault = asked(&endless((1 << 20) + 1), ByteSize::mib(9)).unwrap_err();
        assert!(fault.message.ends_with(" answers a page of more than 1.0 MiB"), "{}", fault.message);
    }

    #[test]
    fn an_id_is_a_short_word() {
        let usable = |json: &str| serde_json::from_str::<Said>(json).unwrap().id.usable();
        assert_eq!(usable(r#"{"ipaddress":[],"ID":"1700000000"}"#).as_deref(), Some("1700000000"));
        assert_eq!(usable(r#"{"ipaddress":[],"ID":1700000000}"#).as_deref(), Some("1700000000"));
        assert_eq!(usable(r#"{"ipaddress":[],"ID":"../x"}"#), None);
        assert_eq!(usable(r#"{"ipaddress":[],"ID":""}"#), None);
        assert_eq!(usable(r#"{"ipaddress":"rate limit"}"#), None);
    }
}
