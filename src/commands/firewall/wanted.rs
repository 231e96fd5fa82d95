//! What the kernel should hold by some settings, on this host as it is.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, anyhow};
use jiff::Timestamp;

use super::{Call, confirmed};
use crate::address_set::AddressSet;
use crate::commands::dropped;
use crate::commands::lists::restricted;
use crate::config::firewall::ConnectionTracking;
use crate::config::{Config, ListName, Mode};
use crate::feeds::store::Store;
use crate::firewall::{Firewall, Layout, Version, order};
use crate::host;
use crate::kernel_sets::{self, Ipset};

/// Rules, and the sets that they name.
pub(super) struct Wanted {
    settings: order::Settings,
    lists: BTreeMap<ListName, AddressSet>,
}

impl Wanted {
    /// An error names the list that there is not.
    pub(super) fn new(config: &Config, there: &Firewall, now: Timestamp) -> anyhow::Result<Self> {
        // A copy that is lost opens nothing while the kernel has its addresses.
        Self::counted(config, there, now, |copy, loaded| if copy > 0 { copy } else { loaded })
    }

    /// The same where lists cannot be filled: those that the kernel has nothing of restrict nothing. A rule for a set that is
    /// empty would lock everybody out.
    pub(super) fn as_filled(config: &Config, there: &Firewall, now: Timestamp) -> anyhow::Result<Self> {
        Self::counted(config, there, now, |_, loaded| loaded)
    }

    /// How many a list has is decided by its last good copy, and what the kernel has of it.
    fn counted(
        config: &Config,
        there: &Firewall,
        now: Timestamp,
        decide: fn(usize, usize) -> usize,
    ) -> anyhow::Result<Self> {
        let lists = restricted::read(config, &Store::peek(&config.state_dir)?, now)
            .map_err(|error| anyhow!(error))?;
        let mut kernel = Ipset::open().ok();
        let mut count = |name: &ListName, set: &AddressSet| {
            let loaded = kernel.as_mut().map_or([0, 0], |kernel| kernel_sets::count_of_list(kernel, name));
            let counts = set.count_networks();
            [0, 1].map(|family| decide(counts[family], loaded[family]))
        };
        let counts = lists.iter().map(|(name, set)| (name.clone(), count(name, set))).collect();
        let tracked = match config.firewall.connection_tracking {
            ConnectionTracking::Auto => there.tracks_connections() || host::tracked_connections() > 0,
            ConnectionTracking::On => true,
            ConnectionTracking::Off => false,
        };
        let settings = order::Settings::new(config, tracked, &counts).map_err(|error| anyhow!(error))?;
        Ok(Self { settings, lists })
    }

    /// Writes down what rules dropped that were confirmed, before they are changed. What there is of them if the settings cannot be read
    /// any more is lost.
    pub(super) fn count_confirmed(call: &Call, there: &Firewall) {
        let confirmed = confirmed::read(call).ok().flatten();
        let mode = confirmed.as_ref().map_or(Mode::Enforce, Config::firewall_mode);
        // The next restore says what is to be said.
        let _ = match confirmed.and_then(|config| Self::new(&config, there, call.now).ok()) {
            Some(wanted) => wanted.count_drops(call, there, mode),
            None => dropped::by_rules(&call.config, there, &HashMap::new(), mode),
        };
    }

    pub(super) fn layout(&self, version: Version) -> Layout {
        self.settings.layout(version)
    }

    /// Writes down what the rules dropped, in this mode; what is to be said about it. Only who has had the turn since before he read them may.
    pub(super) fn count_drops(&self, call: &Call, there: &Firewall, mode: Mode) -> Option<String> {
        let why = [Version::V4, Version::V6].map(|version| self.layout(version).drops());
        dropped::by_rules(&call.config, there, &why.into_iter().flatten().collect(), mode)
    }

    pub(super) fn settings(&self) -> &order::Settings {
        &self.settings
    }

    /// The lists that ports are restricted to.
    pub(super) fn lists(&self) -> impl Iterator<Item = &ListName> {
        self.lists.keys()
    }

    pub(super) fn tracked(&self) -> bool {
        self.settings.tracked()
    }

    /// What is open that should not be, for people.
    pub(super) fn unrestricted(&self) -> Vec<String> {
        self.settings.unrestricted()
    }

    /// The names of sets that rules need and that are not there.
    pub(super) fn missing_sets(&self) -> anyhow::Result<Vec<String>> {
        let mut kernel = Ipset::open().context("cannot talk to the kernel's ipset")?;
        kernel_sets::missing(&mut kernel, self.lists.keys())
    }

    /// Makes the sets that are missing, and fills those that only rules of ours need.
    pub(super) fn prepare_sets(&self, call: &Call) -> anyhow::Result<()> {
        self.make_sets()?;
        self.fill_lists(call)
    }

    /// The same, but for those of lists.
    pub(super) fn make_sets(&self) -> anyhow::Result<()> {
        let mut kernel = Ipset::open().context("cannot talk to the kernel's ipset")?;
        // Another of our tools may be making them at the same moment.
        let mut make = || kernel_sets::make_missing(&mut kernel, self.lists.keys());
        make().or_else(|_| make())?;
        kernel_sets::make_standing(&mut kernel)?;
        kernel_sets::fill_ports(&mut kernel, self.settings.ports())
    }

    /// Fills the sets of lists that are empty. A download keeps others from it for as long as it takes.
    pub(super) fn fill_lists(&self, call: &Call) -> anyhow::Result<()> {
        let mut kernel = Ipset::open().context("cannot talk to the kernel's ipset")?;
        if kernel_sets::has_empty_list(&mut kernel, &self.lists)? {
            let _lock = Store::open(&call.config.state_dir)?.lock()?;
            kernel_sets::fill_empty_lists(&mut kernel, &self.lists)?;
        }
        Ok(())
    }
}
