//! Values that cannot be wrong once they are read.

use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use bytesize::ByteSize;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use super::Bounds;
use crate::state_file;

/// A time span within the bounds of `B`, written like `800ms`, `2s`, `1h 30m`.
pub struct Span<B> {
    span: Duration,
    bounds: PhantomData<B>,
}

/// Declares the bounds of one setting.
macro_rules! span {
    ($(#[$doc:meta])* $name:ident: $min:literal ms ..= $max:literal ms, default $default:literal ms) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub enum $name {}

        impl Bounds for $name {
            const MIN: Duration = Duration::from_millis($min);
            const MAX: Duration = Duration::from_millis($max);
            const DEFAULT: Duration = Duration::from_millis($default);
        }
    };
}
pub(super) use span;

impl<B> Span<B> {
    /// The span itself.
    #[must_use]
    pub const fn get(&self) -> Duration {
        self.span
    }
}

impl<B> Clone for Span<B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for Span<B> {}

impl<B: Bounds> Default for Span<B> {
    fn default() -> Self {
        Self { span: B::DEFAULT, bounds: PhantomData }
    }
}

impl<B> fmt::Debug for Span<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.span.fmt(f)
    }
}

impl<B> fmt::Display for Span<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&spelled(self.span))
    }
}

/// As people write it: `800ms`, `2s`, `1h`.
#[must_use]
pub fn spelled(span: Duration) -> String {
    let seconds = span.as_secs();
    if span.subsec_nanos() == 0 && seconds > 0 && seconds.is_multiple_of(86_400) {
        return format!("{}d", seconds / 86_400);
    }
    jiff::SignedDuration::try_from(span).map_or_else(|_| format!("{span:?}"), |span| format!("{span:#}"))
}

/// Reads what people write: `800ms`, `2s`, `1h 30m`.
#[must_use]
pub fn span_of(text: &str) -> Option<Duration> {
    let span = text.parse::<jiff::Span>().ok()?;
    Duration::try_from(span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?).ok()
}

impl<'de, B: Bounds> Deserialize<'de> for Span<B> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let span = span_of(&text).ok_or_else(|| {
            de::Error::custom(format!(
                "{text:?} is not a time span; write it like \"800ms\", \"2s\" or \"1h\""
            ))
        })?;
        if span < B::MIN || span > B::MAX {
            let (min, max) = (spelled(B::MIN), spelled(B::MAX));
            return Err(de::Error::custom(format!("{text:?} is out of range; {min} to {max} are possible")));
        }
        Ok(Self { span, bounds: PhantomData })
    }
}

/// A share of a whole, written like `50%`; it may be more than the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(u16);

impl Percent {
    pub(super) const fn new(percent: u16) -> Self {
        Self(percent)
    }

    /// So much of `whole`, rounded down.
    #[must_use]
    pub fn of(self, whole: u128) -> u128 {
        whole.saturating_mul(self.0.into()) / 100
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let percent = text.strip_suffix('%').and_then(|number| number.parse().ok());
        percent.filter(|percent| *percent <= 10_000).map(Self).ok_or_else(|| {
            de::Error::custom(format!("{text:?} is not a share; write it like \"50%\", at most \"10000%\""))
        })
    }
}

/// A number of bytes, 1 KiB to 1 GiB, written like `64MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) ByteSize);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let size: ByteSize = text
            .parse()
            .map_err(|_| de::Error::custom(format!("{text:?} is not a size; write it like \"64MiB\"")))?;
        if (ByteSize::kib(1)..=ByteSize::gib(1)).contains(&size) {
            Ok(Self(size))
        } else {
            Err(de::Error::custom(format!("{text:?} is out of range; 1KiB to 1GiB are possible")))
        }
    }
}

/// How many bits of an IPv6 address tell phones apart: 48 (a site) to 128 (each address).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Prefix(u8);

impl Ipv6Prefix {
    /// The number of bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }
}

impl Default for Ipv6Prefix {
    fn default() -> Self {
        Self(128)
    }
}

impl<'de> Deserialize<'de> for Ipv6Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match i64::deserialize(deserializer)? {
            bits @ 48..=128 => Ok(Self(u8::try_from(bits).expect("48 to 128"))),
            bits => Err(de::Error::custom(format!(
                "{bits} is out of range; 48 (a site) to 128 (each address by itself) are possible"
            ))),
        }
    }
}

/// Text that must not be shown, or the file it is in. Printed and debugged without it.
#[derive(Clone, Hash)]
pub enum Secret {
    /// In the settings themselves.
    Inline(String),
    /// `{ file = "/path" }`: the file's content, without the line break at its end.
    File(PathBuf),
}

impl Secret {
    /// The secret text. Errors name the file, never the content.
    pub fn reveal(&self) -> anyhow::Result<String> {
        match self {
            Self::Inline(text) => Ok(text.clone()),
            Self::File(path) => {
                read_secret(path).with_context(|| format!("cannot read the secret in {}", path.display()))
            }
        }
    }
}

fn read_secret(path: &Path) -> anyhow::Result<String> {
    let content = state_file::read_regular(path, 65_536)?;
    let text = String::from_utf8(content).ok().context("it is not UTF-8")?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        bail!("it is empty; write the secret into it, or remove the setting");
    }
    Ok(text.to_owned())
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("(secret)"),
            Self::File(path) => write!(f, "(secret in {})", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, or { file = \"/path/to/the/secret\" }")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
        Ok(Secret::Inline(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
        let mut file = None;
        while let Some(key) = map.next_key::<String>()? {
            if key != "file" {
                return Err(de::Error::unknown_field(&key, &["file"]));
            }
            file = Some(map.next_value()?);
        }
        file.map(Secret::File).ok_or_else(|| de::Error::missing_field("file"))
    }
}
