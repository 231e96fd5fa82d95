//! `[lists.NAME]`: a black- or whitelist, and where it comes from.

use std::borrow::Borrow;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::values::{self, Percent, Size};
use super::{Bounds, Mode, Secret, Span};
use crate::address_set::AddressRange;

/// The list that is made from FusionPBX's access controls and gateways.
pub const CARRIERS: &str = "carriers";

/// Where whole countries come from: the networks that the regional registries gave to each, daily.
pub const COUNTRIES: [&str; 2] = [
    "https://www.ipdeny.com/ipblocks/data/aggregated/{country}-aggregated.zone",
    "https://www.ipdeny.com/ipv6/ipaddresses/aggregated/{country}-aggregated.zone",
];

/// Where APIBAN answers.
pub const APIBAN: &str = "https://apiban.org/api/";

/// The name of a list: up to 16 of `a-z 0-9 -`, and no `-` in front.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ListName(String);

impl ListName {
    /// The name of the list that is made from FusionPBX's database.
    #[must_use]
    pub fn carriers() -> Self {
        Self(CARRIERS.to_owned())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ListName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if (1..=16).contains(&name.len()) && name.chars().all(plain) && !name.starts_with('-') {
            Ok(Self(name))
        } else {
            Err(format!("{name:?} cannot be the name of a list; take 1 to 16 of a-z 0-9 -"))
        }
    }
}

impl From<ListName> for String {
    fn from(name: ListName) -> Self {
        name.0
    }
}

impl Borrow<str> for ListName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ListName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a list is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Its addresses are blocked.
    Block,
    /// Its addresses are exempt.
    Allow,
}

impl Kind {
    /// As in the settings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Allow => "allow",
        }
    }
}

/// How a downloaded list is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// An address, network or range a line.
    #[default]
    Plain,
    /// Spamhaus' JSON lines.
    Spamhaus,
    /// `DShield`'s columns: start, end, prefix.
    Dshield,
    /// APIBAN's pages.
    Apiban,
}

/// What an allow list exempts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Exempts {
    /// Block lists.
    pub blocklists: bool,
    /// fail2ban, by `ringfence-ignore`.
    pub fail2ban: bool,
    /// Rate limits and restrictions.
    pub limits: bool,
}

impl Exempts {
    /// What the administrator's own entries, and the carriers, exempt from.
    pub const ALL: Self = Self { blocklists: true, fail2ban: true, limits: true };
    /// What others' lists exempt from.
    pub const BLOCKLISTS: Self = Self { blocklists: true, fail2ban: false, limits: false };
}

/// Where a list comes from.
#[derive(Clone, Debug, Hash)]
pub enum Source {
    /// Downloaded from these addresses, in one format.
    Web {
        /// With `{country}` filled in. The first must be there; others may be missing.
        urls: Vec<Secret>,
        /// How they are written.
        format: Format,
    },
    /// APIBAN's pages.
    Apiban {
        /// Where it answers.
        url: Secret,
        /// The key, which becomes part of the address.
        key: Secret,
    },
    /// A file of the administrator's, in the format `plain`.
    File(PathBuf),
    /// In the settings themselves.
    Entries(Vec<AddressRange>),
    /// FusionPBX's access controls and gateways.
    Carriers,
}

/// A black- or whitelist.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Written")]
pub struct List {
    /// What it is for.
    pub kind: Kind,
    /// For this list alone.
    pub mode: Option<Mode>,
    /// Where it comes from.
    pub source: Source,
    /// It is not downloaded more often.
    pub every: Span<Every>,
    /// One download, with all its tries, takes no longer.
    pub timeout: Span<Timeout>,
    /// A body is no larger, as it comes and unpacked.
    pub max_size: ByteSize,
    /// Lines that cannot be read, of all.
    pub max_bad: Percent,
    /// Entries fewer than in the last good copy.
    pub max_shrink: Percent,
    /// Entries, or IPv4 addresses, more than in the last good copy.
    pub max_growth: Percent,
    /// What an allow list exempts from.
    pub exempts: Exempts,
    /// The code of its country, in small letters, where it is a country's.
    pub country: Option<String>,
}

values::span!(
    /// From a minute to a month.
    Every: 60_000 ms ..= 2_592_000_000 ms, default 14_400_000 ms
);
values::span!(
    /// From a second to ten minutes.
    Timeout: 1_000 ms ..= 600_000 ms, default 60_000 ms
);

/// Spamhaus asks for no more than one download an hour.
pub const SPAMHAUS_EVERY: Duration = Duration::from_hours(1);

/// The keys of a list as the file has them.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, expecting = "a section of keys, like [lists.voipbl]")]
struct Written {
    kind: Kind,
    mode: Option<Mode>,
    url: Option<Secret>,
    format: Option<Format>,
    key: Option<Secret>,
    country: Option<String>,
    file: Option<PathBuf>,
    entries: Option<Vec<String>>,
    #[serde(default)]
    every: Span<Every>,
    #[serde(default)]
    timeout: Span<Timeout>,
    max_size: Option<Size>,
    max_bad: Option<Percent>,
    max_shrink: Option<Percent>,
    max_growth: Option<Percent>,
    exempts: Option<Vec<Exempt>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Exempt {
    Blocklists,
    Fail2ban,
    Limits,
}

impl TryFrom<Written> for List {
    type Error = String;

    fn try_from(mut written: Written) -> Result<Self, String> {
        let country = written.country.as_ref().map(|country| country.to_ascii_lowercase());
        let source = written.source()?;
        if written.kind == Kind::Allow && written.mode.is_some() {
            return Err("mode belongs to block lists; an allow list blocks nothing".into());
        }
        if matches!(source, Source::Web { format: Format::Spamhaus, .. })
            && written.every.get() < SPAMHAUS_EVERY
        {
            return Err(format!(
                "every = {} is too often for Spamhaus; it asks for at most once an hour (1h)",
                written.every
            ));
        }
        Ok(Self {
            kind: written.kind,
            mode: written.mode,
            every: written.every,
            timeout: written.timeout,
            max_size: written.max_size.map_or(ByteSize::mib(64), |size| size.0),
            max_bad: written.max_bad.unwrap_or(Percent::new(5)),
            max_shrink: written.max_shrink.unwrap_or(Percent::new(50)),
            max_growth: written.max_growth.unwrap_or(Percent::new(300)),
            exempts: written.exempts(&source)?,
            country,
            source,
        })
    }
}

impl Written {
    fn source(&mut self) -> Result<Source, String> {
        if let Some(Secret::Inline(url)) = &self.url
            && !["https://", "http://"].iter().any(|scheme| url.starts_with(scheme))
        {
            return Err("url must begin with https:// or http://".into());
        }
        if self.format == Some(Format::Apiban) {
            self.only("format = \"apiban\"", &["url", "key"])?;
            let key = self.key.take().ok_or("format = \"apiban\" needs a key")?;
            let url = self.url.take().unwrap_or_else(|| Secret::Inline(APIBAN.into()));
            return Ok(Source::Apiban { url, key });
        }
        if self.key.is_some() {
            return Err("key belongs to format = \"apiban\" only".into());
        }
        let format = self.format.unwrap_or_default();
        if let Some(country) = self.country.take() {
            self.only("country", &["url"])?;
            return Ok(Source::Web { urls: country_urls(&country, self.url.take())?, format });
        }
        if let Some(url) = self.url.take() {
            self.only("url", &[])?;
            return Ok(Source::Web { urls: vec![url], format });
        }
        if self.format.is_some() {
            return Err("format belongs to lists with a url; a file or entries are always plain".into());
        }
        if let Some(file) = self.file.take() {
            self.only("file", &[])?;
            if !file.is_absolute() {
                return Err(format!("file = {:?} must be an absolute path", file.display().to_string()));
            }
            return Ok(Source::File(file));
        }
        let entries =
            self.entries.take().ok_or("it comes from nowhere; give it a url, country, file or entries")?;
        let entries: Vec<AddressRange> = entries
            .iter()
            .map(|entry| entry.trim().parse().map_err(|error| format!("entries: {entry:?} is {error}")))
            .collect::<Result<_, String>>()?;
        Ok(Source::Entries(entries))
    }

    /// A list has one source, beside `also`.
    fn only(&self, this: &str, also: &[&str]) -> Result<(), String> {
        let given = [
            ("url", self.url.is_some()),
            ("country", self.country.is_some()),
            ("file", self.file.is_some()),
            ("entries", self.entries.is_some()),
        ];
        match given.into_iter().find(|(key, given)| *given && !also.contains(key)) {
            Some((other, _)) => Err(format!("{this} and {other} are two sources; make two lists of them")),
            None => Ok(()),
        }
    }

    fn exempts(&self, source: &Source) -> Result<Exempts, String> {
        if self.kind == Kind::Block {
            return match self.exempts {
                Some(_) => Err("exempts belongs to allow lists".into()),
                None => Ok(Exempts::default()),
            };
        }
        let Some(exempts) = &self.exempts else {
            return Ok(match source {
                Source::File(_) | Source::Entries(_) | Source::Carriers => Exempts::ALL,
                // Whoever writes such a list must not switch fail2ban off for the whole world.
                Source::Web { .. } | Source::Apiban { .. } => Exempts::BLOCKLISTS,
            });
        };
        let has = |exempt| exempts.contains(&exempt);
        let exempts = Exempts {
            blocklists: has(Exempt::Blocklists),
            fail2ban: has(Exempt::Fail2ban),
            limits: has(Exempt::Limits),
        };
        if exempts.limits && !exempts.blocklists {
            return Err(
                "exempts: who is exempt from \"limits\" never reaches the block lists; add \"blocklists\""
                    .into(),
            );
        }
        Ok(exempts)
    }
}

/// The addresses of a country's list: the documented source, or `url` with `{country}` in it.
fn country_urls(country: &str, url: Option<Secret>) -> Result<Vec<Secret>, String> {
    let code = country.to_ascii_lowercase();
    if code.len() != 2 || !code.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return Err(format!(
            "country = {country:?} is no country code; take two letters of ISO 3166, like \"au\""
        ));
    }
    let fill = |template: &str| Secret::Inline(template.replace("{country}", &code));
    match url {
        None => Ok(COUNTRIES.map(fill).into()),
        Some(Secret::Inline(template)) if template.contains("{country}") => Ok(vec![fill(&template)]),
        Some(_) => Err("beside country, url must have {country} in it, where the code belongs".into()),
    }
}

impl List {
    /// The list that is made from FusionPBX's database.
    #[must_use]
    pub fn carriers() -> Self {
        Self {
            kind: Kind::Allow,
            mode: None,
            source: Source::Carriers,
            every: Span::default(),
            timeout: Span::default(),
            max_size: ByteSize::mib(64),
            max_bad: Percent::new(100),
            max_shrink: Percent::new(100),
            max_growth: Percent::new(10_000),
            exempts: Exempts::ALL,
            country: None,
        }
    }

    /// Whether it comes from outside, and so may shrink, grow or be nonsense against our will.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        matches!(self.source, Source::Web { .. } | Source::Apiban { .. })
    }
}
