//! The last good copy of a list.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::dated::Dated;
use super::web::Validators;
use crate::address_set::{AddressRange, AddressSet};
use crate::config::lists::Source;

/// What a list said when it was last good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// Which source it is from: see [`fingerprint`].
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

impl Copy {
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

/// Tells sources apart: a copy of another source proves nothing about this one.
#[must_use]
pub fn fingerprint(source: &Source) -> u64 {
    match source {
        // They may come and go, and those that stay keep their dates.
        Source::Entries(_) => hash("entries"),
        source => hash(source),
    }
}

/// Tells bodies apart.
#[must_use]
pub fn digest(body: &[u8]) -> u64 {
    hash(body)
}

fn hash(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
