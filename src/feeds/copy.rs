//! The last good copy of a list.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::dated::Dated;
use super::store::Store;
use super::web::Validators;
use crate::address_set::{AddressRange, AddressSet};
use crate::config::Secret;
use crate::config::lists::{List, ListName, Source};

/// What a list said when it was last good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// Which list it is of: see [`fingerprint`].
    pub source: u64,
    /// When its addresses last changed, in seconds since 1970.
    pub changed: u32,
    /// Where the next run goes on, for sources that are read on and on.
    pub position: Option<String>,
    /// One for each place it comes from.
    pub parts: Vec<Part>,
}

/// What one place said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// To ask whether it is still the same.
    pub validators: Validators,
    /// Of the body as it came: see [`digest`].
    pub digest: u64,
    /// The addresses, and since when each is listed.
    pub content: Dated,
    /// What was odd about it and no reason to refuse it, for people.
    pub notes: Vec<String>,
}

/// The end of its file's name in the store, behind the list's name.
pub const ENDING: &str = ".copy";

impl Copy {
    /// The last good copy of a list; `None` where there is none, or it is of another source. What was damaged is an error.
    pub fn read(store: &Store, name: &ListName, list: &List) -> anyhow::Result<Option<Self>> {
        let copy: Option<Self> = store.read(&format!("{name}{ENDING}"))?;
        Ok(copy.filter(|copy| copy.source == fingerprint(list)))
    }

    /// The addresses.
    #[must_use]
    pub fn set(&self) -> AddressSet {
        match self.parts.as_slice() {
            [part] => part.content.set(),
            parts => parts.iter().fold(AddressSet::default(), |all, part| all.union(&part.content.set())),
        }
    }

    /// What of it `address` is in, and since when, in seconds since 1970.
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Option<(AddressRange, u32)> {
        self.parts.iter().find_map(|part| part.content.find(address))
    }
}

/// Tells lists apart: a copy of another source, or of what was meant otherwise, says nothing about this list. The same in every
/// build.
#[must_use]
pub fn fingerprint(list: &List) -> u64 {
    let text = |secret: &Secret| match secret {
        Secret::Inline(text) => text.clone(),
        Secret::File(path) => path.display().to_string(),
    };
    let source = match &list.source {
        Source::Web { urls, format } => {
            format!("web {format:?} {}", urls.iter().map(text).collect::<Vec<_>>().join(" "))
        }
        // Another key opens the same pages.
        Source::Apiban { url, .. } => format!("apiban {}", text(url)),
        Source::File(path) => format!("file {}", path.display()),
        // They may come and go, and those that stay keep their dates.
        Source::Entries(_) => "entries".to_owned(),
        Source::Carriers => "carriers".to_owned(),
    };
    digest(format!("{} {source}", list.kind.name()).as_bytes())
}

/// Tells texts apart, by checksum and length.
#[must_use]
pub fn digest(text: &[u8]) -> u64 {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    u64::from(crc32fast::hash(text)) << 32 | u64::from(length)
}
