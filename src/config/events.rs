//! `[events]`: the log of what FreeSWITCH tells.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{self, Deserializer};

/// `[events]`: what `ringfence-events` counts, and where it tells of itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Events {
    /// Requests without credentials of one source in a second that are no flood yet.
    pub flood: Flood,
    /// A file in the text format of Prometheus; unset: none.
    pub metrics: Option<Metrics>,
}

/// So many requests in a second: 1 to 100,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flood(u32);

impl Flood {
    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for Flood {
    /// A phone asks once, and an office that comes back a few times in a second.
    fn default() -> Self {
        Self(20)
    }
}

impl<'de> Deserialize<'de> for Flood {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match i64::deserialize(deserializer)? {
            rate @ 1..=100_000 => Ok(Self(u32::try_from(rate).expect("1 to 100,000"))),
            rate => Err(de::Error::custom(format!("{rate} is out of range; 1 to 100000 are possible"))),
        }
    }
}

/// An absolute path that ends in `.prom`, as `node_exporter`'s textfile collector wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics(PathBuf);

impl Metrics {
    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Metrics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let path = PathBuf::deserialize(deserializer)?;
        if path.is_absolute() && path.extension().is_some_and(|extension| extension == "prom") {
            return Ok(Self(path));
        }
        let message = format!(
            "{} must be an absolute path that ends in .prom: others are not collected",
            path.display()
        );
        Err(de::Error::custom(message))
    }
}
