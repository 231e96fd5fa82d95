//! The carriers of FusionPBX as a list of their own.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::address_set::AddressSet;
use crate::carriers::{Carrier, Found, Known, Resolver, find};
use crate::config::lists::List;
use crate::config::{self, Config};
use crate::deadline::Deadline;
use crate::feeds::copy::Copy;
use crate::feeds::fetch::Fetched;
use crate::feeds::guard::{Protected, Why};
use crate::feeds::store::Store;
use crate::feeds::web::Fault;
use crate::fusionpbx;
use crate::postgres::Target;

/// The file in the store.
const FILE: &str = "carriers.json";

/// Reading the database and looking up all names takes no longer.
const TIME: Duration = Duration::from_secs(20);

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

/// What is remembered of the carriers beside their addresses.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Remembered {
    /// Which addresses their names had.
    known: Known,
    /// Their names for people, with their networks.
    carriers: Vec<(String, Vec<IpNetwork>)>,
    /// Of whom no address is known, in words: they cannot be protected.
    pub(super) unresolved: Vec<String>,
}

/// FusionPBX's own database; `None` where there is no FusionPBX and never was, or its carriers are not wanted.
pub(super) fn database(config: &Config, store: &Store) -> Option<anyhow::Result<Target>> {
    if config.fusionpbx.carriers == config::Carriers::Off {
        return None;
    }
    match fusionpbx::own_database(config) {
        Ok(Some(target)) => Some(Ok(target)),
        Ok(None) if Remembered::read(store).carriers.is_empty() => None,
        Ok(None) => Some(Err(anyhow!(
            "FusionPBX's configuration is gone; bring it back, or set carriers = \"off\" in [fusionpbx]"
        ))),
        Err(error) => Some(Err(error.context(
            "the carriers are read from FusionPBX's own database, unless carriers = \"off\" in [fusionpbx]",
        ))),
    }
}

impl Remembered {
    /// What the last run left; nothing where that is damaged.
    pub(super) fn read(store: &Store) -> Self {
        store.read_json(FILE).ok().flatten().unwrap_or_default()
    }

    pub(super) fn write(&self, store: &Store) -> anyhow::Result<()> {
        if self.carriers.is_empty() { Ok(store.remove(FILE)?) } else { store.write_json(FILE, self) }
    }

    /// The carriers as those who must not be blocked.
    pub(super) fn protected(&self) -> Vec<Protected> {
        let protected = |(name, networks): &(String, Vec<IpNetwork>)| Protected {
            why: Why::Carrier,
            name: name.clone(),
            addresses: networks.iter().copied().collect(),
        };
        self.carriers.iter().map(protected).collect()
    }

    /// Asks the database and the name servers.
    pub(super) async fn ask(
        &self,
        target: anyhow::Result<Target>,
        old: Option<&Copy>,
        now: i64,
        force: bool,
    ) -> Result<(Fetched, Self), Fault> {
        let deadline = Deadline::after(Instant::now(), TIME);
        let names = Resolver::from_files(Path::new(RESOLV_CONF), Path::new(HOSTS))?;
        let Found { carriers, known, notes, unresolved } =
            find(&target?, &names, &self.known, now, deadline).await?;
        let carriers: Vec<_> =
            carriers.into_iter().map(|Carrier { name, networks }| (name, networks)).collect();
        let set: AddressSet = carriers.iter().flat_map(|(_, networks)| networks).copied().collect();
        let stamp = u32::try_from(now).unwrap_or(0);
        let fetched = Fetched::found(&List::carriers(), old, &set, notes, stamp, force)?;
        Ok((fetched, Self { known, carriers, unresolved }))
    }
}
