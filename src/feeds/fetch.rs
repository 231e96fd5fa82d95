//! A new copy of one list, if its source has one that can be trusted.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use bytesize::ByteSize;
use reqwest::StatusCode;

use super::copy::{Copy, Part, digest, fingerprint};
use super::format::{self, Parsed, Wide};
use super::secrets::Secrets;
use super::size::has_kept_its_size;
use super::web::{self, Client, Fault, Limits, Progress, Validators};
use super::{apiban, body};
use crate::address_set::AddressSet;
use crate::config::Secret;
use crate::config::lists::{Format, Kind, List, Source};
use crate::deadline::Deadline;
use crate::state_file;

/// What a source had.
#[derive(Debug)]
pub struct Fetched {
    /// The new copy; equal to the old one where nothing changed.
    pub copy: Copy,
    /// Whether it has the addresses of the old one.
    pub unchanged: bool,
    /// What is odd about it and no reason to refuse it, for people.
    pub notes: Vec<String>,
    /// How long the source wants to be left alone.
    pub retry_after: Option<Duration>,
}

/// Circumstances of one run.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// Makes requests; lists that come from no web need none.
    pub client: Option<&'a Client>,
    /// Seconds since 1970.
    pub now: u32,
    /// The body is asked for though it may be the same, and may have shrunk or grown.
    pub force: bool,
    /// Is told how much has come.
    pub progress: Progress<'a>,
}

impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Self {
        Self::lasting(format!("{error:#}"))
    }
}

/// Asks the source of `list`. `old` is its last good copy. An error says why the source's answer is not taken: the old
/// copy stays.
pub async fn fetch(list: &List, old: Option<&Copy>, run: Run<'_>) -> Result<Fetched, Fault> {
    let old = old.filter(|old| old.source == fingerprint(list));
    let limits =
        Limits { size: list.max_size, deadline: Deadline::after(Instant::now(), list.timeout.get()) };
    let feed = || -> Result<_, Fault> {
        let client = run.client.ok_or_else(|| Fault::lasting("nothing to download with"))?;
        Ok(Feed { list, old, run, client, limits })
    };
    let fetched = match &list.source {
        Source::Web { urls, format } => feed()?.web(urls, *format).await?,
        Source::Apiban { url, key } => feed()?.apiban(url, key).await?,
        Source::File(path) => local(read_file(path, list.max_size)?, list, old, run.now)?,
        Source::Entries(entries) => {
            let set = entries.iter().copied().collect();
            Fetched::of(vec![part(old, 0, Validators::default(), 0, &set, run.now)])
        }
        Source::Carriers => return Err(Fault::lasting("its source is FusionPBX's database")),
    };
    Ok(fetched.settled(list, old, run.now, run.force)?)
}

impl Fetched {
    /// What one source has, found out elsewhere: see [`fetch`].
    pub fn found(
        list: &List,
        old: Option<&Copy>,
        set: &AddressSet,
        notes: Vec<String>,
        now: u32,
        force: bool,
    ) -> anyhow::Result<Self> {
        let part = part(old, 0, Validators::default(), 0, set, now);
        Self { notes, ..Self::of(vec![part]) }.settled(list, old, now, force)
    }

    fn of(parts: Vec<Part>) -> Self {
        Self { copy: Copy { parts, ..Copy::default() }, unchanged: false, notes: vec![], retry_after: None }
    }

    /// The copy as one of this list, if it has a size that can be believed or is taken by `force`.
    fn settled(mut self, list: &List, old: Option<&Copy>, now: u32, force: bool) -> anyhow::Result<Self> {
        let (before, after) = (old.map(Copy::set), self.copy.set());
        self.unchanged = before.as_ref() == Some(&after);
        self.copy.source = fingerprint(list);
        self.copy.changed = old.filter(|_| self.unchanged).map_or(now, |old| old.changed);
        if !self.unchanged && !force {
            has_kept_its_size(list, before.as_ref(), &after)?;
        }
        Ok(self)
    }
}

/// A list that comes from outside.
struct Feed<'a> {
    list: &'a List,
    old: Option<&'a Copy>,
    run: Run<'a>,
    client: &'a Client,
    limits: Limits,
}

impl Feed<'_> {
    async fn web(&self, urls: &[Secret], format: Format) -> Result<Fetched, Fault> {
        let mut fetched = Fetched::of(vec![]);
        let urls = urls.iter().map(|url| web::url(&url.reveal()?)).collect::<anyhow::Result<Vec<_>>>()?;
        let secrets = Secrets::of(&urls);
        for (at, url) in urls.iter().enumerate() {
            let old = self.old.and_then(|old| old.parts.get(at));
            let validators = old.map(|old| &old.validators);
            let validators = validators.filter(|validators| !self.run.force && !validators.is_empty());
            let response = self.client.get(url, validators, self.limits, self.run.progress).await?;
            let origin = web::origin(url);
            match (response.status, old) {
                (StatusCode::NOT_MODIFIED, Some(old)) if validators.is_some() => {
                    fetched.copy.parts.push(old.clone());
                }
                (StatusCode::NOT_MODIFIED, _) => {
                    let message = format!("{origin} answers 304 (not modified), and was not asked for that");
                    return Err(Fault::lasting(message));
                }
                (StatusCode::OK, _) => {
                    let part = self.part(at, &response.body, response.validators, format, &secrets)?;
                    fetched.copy.parts.push(part);
                }
                // A country without IPv6 networks, say.
                (StatusCode::NOT_FOUND, old)
                    if at > 0 && old.is_none_or(|old| old.content.set().is_empty()) =>
                {
                    let notes = vec![format!("{origin} has no part {} of it (404)", at + 1)];
                    fetched.copy.parts.push(Part { notes, ..Part::default() });
                }
                (status, _) => {
                    let message = format!("{origin} answers {status}");
                    return Err(Fault::lasting(message).after(response.retry_after));
                }
            }
        }
        fetched.notes = fetched.copy.parts.iter().flat_map(|part| part.notes.clone()).collect();
        Ok(fetched)
    }

    /// What one place sent, read and found good.
    fn part(
        &self,
        at: usize,
        body: &[u8],
        validators: Validators,
        format: Format,
        secrets: &Secrets,
    ) -> anyhow::Result<Part> {
        let digest = digest(body);
        if let Some(old) = self.old.and_then(|old| old.parts.get(at)).filter(|old| old.digest == digest) {
            return Ok(Part { validators, ..old.clone() });
        }
        let content = body::unpack(body, self.limits.size)?;
        let parsed = format::parse(format, &content, Wide::LeftOut)?;
        let notes = good_with(&parsed, self.list, secrets)?;
        if parsed.set.is_empty() {
            anyhow::bail!("it has no entries");
        }
        Ok(Part { notes, ..part(self.old, at, validators, digest, &parsed.set, self.run.now) })
    }

    async fn apiban(&self, url: &Secret, key: &Secret) -> Result<Fetched, Fault> {
        let base = web::url(&url.reveal()?)?;
        let key = key.reveal()?;
        let start = self.old.and_then(|old| old.position.as_deref()).unwrap_or(apiban::START);
        let pages = apiban::pages(self.client, &base, &key, start, self.limits, self.run.progress).await?;
        let mut notes = good_with(&pages.parsed, self.list, &apiban::secrets(&base, &key)?)?;
        let old =
            self.old.and_then(|old| old.parts.first()).map(|part| part.content.clone()).unwrap_or_default();
        let content = apiban::let_go(&old.reported(&pages.parsed.set, self.run.now, 0), self.run.now);
        let mut fetched = Fetched::of(vec![Part { content, ..Part::default() }]);
        fetched.copy.position = Some(pages.id);
        if let Some(retry_after) = pages.more {
            notes.push("pages are left for the next run".into());
            fetched.retry_after = retry_after;
        }
        fetched.notes = notes;
        Ok(fetched)
    }
}

fn part(
    old: Option<&Copy>,
    at: usize,
    validators: Validators,
    digest: u64,
    set: &AddressSet,
    now: u32,
) -> Part {
    let old = old.and_then(|old| old.parts.get(at)).map(|part| &part.content);
    let content = old.cloned().unwrap_or_default().becomes(set, now);
    Part { validators, digest, content, notes: vec![] }
}

fn read_file(path: &Path, limit: ByteSize) -> anyhow::Result<Vec<u8>> {
    state_file::read_regular(path, limit.as_u64()).map_err(|error| {
        let what_to_do = match error.kind() {
            io::ErrorKind::NotFound => "it does not exist; make it, or remove the list".to_owned(),
            _ => error.to_string(),
        };
        anyhow!("cannot read {}: {what_to_do}", path.display())
    })
}

fn local(content: Vec<u8>, list: &List, old: Option<&Copy>, now: u32) -> anyhow::Result<Fetched> {
    let content = if content.trim_ascii().is_empty() { b"#".to_vec() } else { content };
    let wide = if list.kind == Kind::Allow { Wide::Taken } else { Wide::LeftOut };
    let content = body::unpack(&content, list.max_size)?;
    let parsed = format::parse(Format::Plain, &content, wide)?;
    let notes = good_with(&parsed, list, &Secrets::default())?;
    let part = part(old, 0, Validators::default(), 0, &parsed.set, now);
    Ok(Fetched { notes, ..Fetched::of(vec![part]) })
}

/// What is odd about it, if so little of it is nonsense that the rest can be trusted.
fn good_with(parsed: &Parsed, list: &List, secrets: &Secrets) -> anyhow::Result<Vec<String>> {
    let Parsed { lines, bad, wide, .. } = parsed;
    let mut notes = vec![];
    if bad.count as u128 > list.max_bad.of(*lines as u128) {
        anyhow::bail!(
            "{} of its {lines} lines cannot be read, more than max-bad ({}) allows: {}",
            bad.count,
            list.max_bad,
            bad.shown(secrets)
        );
    }
    if bad.count > 0 {
        notes.push(format!("{} of its {lines} lines cannot be read: {}", bad.count, bad.shown(secrets)));
    }
    if wide.count > 0 {
        notes.push(format!(
            "{} too wide (more than an IPv4 /8 or IPv6 /19), left out: {}",
            wide.count,
            wide.shown(secrets)
        ));
    }
    Ok(notes)
}
