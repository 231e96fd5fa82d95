//! Addresses that are allowed for a time, and those seen registered.

use anyhow::Context;
use serde::Serialize;

use super::attention::{About, Concerns};
use crate::allow::timed;
use crate::config::Config;
use crate::kernel_sets::{self, Family, Ipset};
use crate::registrations;

/// How many there are; absent where nobody knows.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Addresses {
    /// By `ringfence-allow`.
    pub(super) allowed: Option<usize>,
    /// Seen registered within a day.
    pub(super) seen: Option<usize>,
    /// In the kernel's sets of both, of IPv4 and IPv6; absent also where the sets are not there.
    pub(super) kernel: Option<[u32; 2]>,
}

pub(super) fn look(config: &Config, now: i64, concerns: &mut Concerns) -> Addresses {
    const MORE: &str = "ringfence-allow list";
    let (state_dir, about) = (&config.state_dir, About::Addresses);
    let allowed = concerns.part(about, MORE, "who is allowed", timed::read(state_dir, now));
    let seen = registrations::seen_within_a_day(state_dir, now)
        .with_context(|| format!("cannot read it in {}", state_dir.display()));
    let seen = concerns.part(about, "ringfence-allow sync", "who was seen registered", seen);
    let kernel = concerns.part(about, "ipset list -name", "the kernel's sets", in_kernel()).flatten();
    Addresses { allowed: allowed.map(|all| all.len()), seen: seen.map(|all| all.len()), kernel }
}

fn in_kernel() -> anyhow::Result<Option<[u32; 2]>> {
    let mut kernel = Ipset::open().context("cannot talk to the kernel's ipset")?;
    let mut counts = [0; 2];
    for (count, family) in counts.iter_mut().zip([Family::V4, Family::V6]) {
        let Some(header) = kernel.header(kernel_sets::names(family).seen)? else { return Ok(None) };
        *count = header.entries;
    }
    Ok(Some(counts))
}
