//! Downloads that end: bounded in time, size, tries and redirects, and silent about where keys may be.
//!
//! Proxies are those of the environment (`HTTPS_PROXY`, `NO_PROXY`, ...), as reqwest finds them; certificates are those
//! of the system.

use std::error::Error as _;
use std::time::Duration;

use anyhow::Context;
use bytesize::ByteSize;
use jiff::Timestamp;
use reqwest::header::{
    ACCEPT_ENCODING, ETAG, HeaderMap, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
    RETRY_AFTER,
};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{StatusCode, Url};
use serde::{Deserialize, Serialize};

use crate::deadline::Deadline;

const CONNECT: Duration = Duration::from_secs(10);

/// Nobody needs longer to send the next piece.
const SILENCE: Duration = Duration::from_secs(30);

const TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const REDIRECTS: usize = 5;

/// A server that wants to be left alone for longer is asked once a day all the same.
const LONGEST_PAUSE: Duration = Duration::from_hours(24);

/// What a server said about a body, to be asked whether it is still the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validators {
    etag: Option<String>,
    last_modified: Option<String>,
}

impl Validators {
    fn of(headers: &HeaderMap) -> Self {
        // What is no plain text, or absurdly long, is not remembered.
        let text = |name| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .filter(|text| text.len() < 256)
                .map(str::to_owned)
        };
        Self { etag: text(ETAG), last_modified: text(LAST_MODIFIED) }
    }

    /// Whether there is nothing to ask with.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }

    fn headers(&self) -> HeaderMap {
        let values = [(IF_NONE_MATCH, &self.etag), (IF_MODIFIED_SINCE, &self.last_modified)];
        let value = |text: &Option<String>| text.as_ref().and_then(|text| HeaderValue::from_str(text).ok());
        values.into_iter().filter_map(|(name, text)| Some((name, value(text)?))).collect()
    }
}

/// What a server answered.
#[derive(Debug)]
pub struct Response {
    /// As it is, from 200 to 499.
    pub status: StatusCode,
    /// What it said about the body.
    pub validators: Validators,
    /// How long it wants to be left alone.
    pub retry_after: Option<Duration>,
    /// As it came.
    pub body: Vec<u8>,
}

/// Why there is no answer, or none that helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// In words. Has no part of the URL but scheme, host and port.
    pub message: String,
    /// How long the server wants to be left alone.
    pub retry_after: Option<Duration>,
    /// Whether another try may help.
    passing: bool,
}

impl Fault {
    /// One that another try does not mend.
    #[must_use]
    pub fn lasting(message: impl Into<String>) -> Self {
        Self { message: message.into(), retry_after: None, passing: false }
    }

    /// The same, of a server that wants to be left alone for so long.
    #[must_use]
    pub fn after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }
}

/// Bounds of one download.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of a body.
    pub size: ByteSize,
    /// For all tries together.
    pub deadline: Deadline,
}

/// Is told how much has come, and of how much if that is known.
pub type Progress<'a> = &'a (dyn Fn(u64, Option<u64>) + Sync);

/// Makes requests.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
}

/// Where a URL leads, without what may be secret: its path, query and user.
#[must_use]
pub fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Reads a URL from the settings. Errors do not show it.
pub fn url(text: &str) -> anyhow::Result<Url> {
    let url = Url::parse(text.trim()).context("its url cannot be read")?;
    anyhow::ensure!(matches!(url.scheme(), "http" | "https"), "its url must begin with https:// or http://");
    Ok(url)
}

impl Client {
    /// A client with the system's certificates.
    pub fn new() -> anyhow::Result<Self> {
        let provider = rustls::crypto::ring::default_provider();
        // An error means that it is installed already.
        let _ = provider.install_default();
        let http = reqwest::Client::builder()
            .user_agent(concat!("ringfence-lists/", env!("CARGO_PKG_VERSION")))
            .default_headers(HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("gzip"))]))
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .redirect(Policy::custom(follow))
            // A key in the path must not travel on to where a redirect leads.
            .referer(false)
            .build()
            .context("cannot set up HTTPS; are the system's certificates there (package ca-certificates)?")?;
        Ok(Self { http })
    }

    /// Asks for `url`, if need be up to three times. With `validators`, the answer may be 304: not modified.
    pub async fn get(
        &self,
        url: &Url,
        validators: Option<&Validators>,
        limits: Limits,
        progress: Progress<'_>,
    ) -> Result<Response, Fault> {
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let fault = match self.once(url, validators, limits, progress).await {
                Ok(response) => return Ok(response),
                Err(fault) => fault,
            };
            let wait = fault.retry_after.unwrap_or(pause.mul_f64(1.0 + fastrand::f64() / 2.0));
            if !fault.passing || attempt == TRIES || wait >= limits.deadline.remaining() {
                return Err(fault);
            }
            tokio::time::sleep(wait).await;
            pause *= 2;
        }
        unreachable!("the last attempt returns")
    }

    async fn once(
        &self,
        url: &Url,
        validators: Option<&Validators>,
        limits: Limits,
        progress: Progress<'_>,
    ) -> Result<Response, Fault> {
        let origin = origin(url);
        let answer = tokio::time::timeout(limits.deadline.remaining(), async {
            let request =
                self.http.get(url.clone()).headers(validators.map(Validators::headers).unwrap_or_default());
            let response = request.send().await.map_err(|error| broken(&origin, error))?;
            read(response, &origin, limits.size, progress).await
        });
        match answer.await {
            Ok(answer) => answer,
            Err(_) => Err(Fault::lasting(format!("{origin} does not answer in full within the timeout"))),
        }
    }
}

/// To another place, but never from HTTPS to what anybody on the way can change.
fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let from_https = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if !matches!(attempt.url().scheme(), "https" | "http") {
        attempt.error("it redirects to what is neither http nor https")
    } else if from_https && attempt.url().scheme() != "https" {
        attempt.error("it redirects from https to http")
    } else if attempt.previous().len() > REDIRECTS {
        attempt.error("it redirects in circles")
    } else {
        attempt.follow()
    }
}

async fn read(
    mut response: reqwest::Response,
    origin: &str,
    limit: ByteSize,
    progress: Progress<'_>,
) -> Result<Response, Fault> {
    let status = response.status();
    let retry_after = retry_after(response.headers());
    if status.is_server_error() {
        return Err(Fault { message: format!("{origin} answers {status}"), retry_after, passing: true });
    }
    let validators = Validators::of(response.headers());
    let length = response.content_length();
    let too_large = || Fault::lasting(format!("{origin} sends more than max-size ({limit})"));
    if length.is_some_and(|length| length > limit.as_u64()) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| broken(origin, error))? {
        if body.len() as u64 + piece.len() as u64 > limit.as_u64() {
            return Err(too_large());
        }
        body.extend_from_slice(&piece);
        progress(body.len() as u64, length);
    }
    Ok(Response { status, validators, retry_after, body })
}

/// In seconds or as a date, RFC 9110, section 10.2.3.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let span = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
        Duration::try_from(date.duration_since(Timestamp::now())).ok()?
    };
    Some(span.min(LONGEST_PAUSE))
}

/// What went wrong, from the innermost cause that says something; never with the URL, which may have a key in it.
fn broken(origin: &str, error: reqwest::Error) -> Fault {
    let redirect = error.is_redirect();
    let error = error.without_url();
    let mut causes = vec![];
    let mut cause = error.source();
    while let Some(inner) = cause {
        causes.push(inner.to_string());
        cause = inner.source();
    }
    let what = if redirect {
        "redirects wrongly"
    } else if error.is_connect() {
        "cannot be reached"
    } else if error.is_timeout() {
        "falls silent"
    } else {
        "does not answer in full"
    };
    let why = causes.pop().map(|cause| format!(": {cause}")).unwrap_or_default();
    Fault { message: format!("{origin} {what}{why}"), retry_after: None, passing: !redirect }
}
