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
use super::format::{Gathering, Parsed, Wide};
use super::secrets::Secrets;
use super::web::{self, Client, Fault, Limits, Progress, Response};
use crate::evidence::visible_within;

/// The id of the first page.
pub const START: &str = "100";

/// Addresses are banned for so long.
pub const LIFETIME: Duration = Duration::from_hours(7 * 24);

/// More pages are not read in one run, whatever the server says.
const PAGES: usize = 2_000;

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
struct Page {
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

#[derive(Default, Deserialize)]
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
    let mut received = 0;
    for page in 0..PAGES {
        let url = page_url(base, key, &id)?;
        let before = received;
        let told = |length: u64, _| progress(before + length, None);
        let answer = client.get(&url, None, limits, &told).await.and_then(|response| {
            received += response.body.len() as u64;
            read(&response, &web::origin(base), &secrets(base, key)?, limits.size)
        });
        let (addresses, next) = match answer {
            Ok(answer) => answer,
            // What came so far is good. The next run begins with what went wrong, and says so if it still does.
            Err(fault) if page > 0 => {
                return Ok(Pages { parsed: gathering.finish(), id, more: Some(fault.retry_after) });
            }
            Err(fault) => return Err(fault),
        };
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
    }
    Ok(Pages { parsed: gathering.finish(), id, more: Some(None) })
}

/// The addresses of one page, and the id of the next.
fn read(
    response: &Response,
    origin: &str,
    secrets: &Secrets,
    limit: ByteSize,
) -> Result<(Vec<String>, Id), Fault> {
    let message = match (response.status, page_of(&response.body, limit)) {
        (StatusCode::OK, Ok(Page { ipaddress: Content::Addresses(addresses), id })) => {
            return Ok((addresses, id));
        }
        (StatusCode::BAD_REQUEST, Ok(Page { ipaddress: Content::Addresses(text), .. }))
            if text.iter().any(|text| text == "no new bans") =>
        {
            return Ok((vec![], Id::None));
        }
        (StatusCode::TOO_MANY_REQUESTS, _) => {
            let message = format!("{origin} answers 429: too many requests (it allows 11 in two minutes)");
            let retry_after = response.retry_after.or(Some(Duration::from_mins(2)));
            return Err(Fault::lasting(message).after(retry_after));
        }
        (StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED, _) => {
            format!("{origin} refuses the key; see its setting `key`")
        }
        (status, Ok(Page { ipaddress: Content::Text(text), .. })) => {
            // It is the server's text, and it may quote the key.
            let text = visible_within(&secrets.hide(&text), SHOWN);
            format!("{origin} answers {status}: {text}")
        }
        (StatusCode::OK, Err(_)) => format!("{origin} answers what is no page of APIBAN's"),
        (status, _) => format!("{origin} answers {status}"),
    };
    Err(Fault::lasting(message))
}

/// A page as it came; servers may pack what they send.
fn page_of(body: &[u8], limit: ByteSize) -> anyhow::Result<Page> {
    Ok(serde_json::from_slice(&body::unpack(body, limit)?)?)
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
    use super::*;

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
    fn an_id_is_a_short_word() {
        let usable = |json: &str| serde_json::from_str::<Page>(json).unwrap().id.usable();
        assert_eq!(usable(r#"{"ipaddress":[],"ID":"1700000000"}"#).as_deref(), Some("1700000000"));
        assert_eq!(usable(r#"{"ipaddress":[],"ID":1700000000}"#).as_deref(), Some("1700000000"));
        assert_eq!(usable(r#"{"ipaddress":[],"ID":"../x"}"#), None);
        assert_eq!(usable(r#"{"ipaddress":[],"ID":""}"#), None);
        assert_eq!(usable(r#"{"ipaddress":"rate limit"}"#), None);
    }
}
