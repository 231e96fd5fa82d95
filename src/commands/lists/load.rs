//! `ringfence-lists load`: what was put together goes into the kernel, and to `ringfence-ignore`.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::session::COMPILED;
use super::{TOOL, protection, restricted, untold};
use crate::address_set::AddressSet;
use crate::allow::{self, Allowed};
use crate::commands::firewall::confirmed;
use crate::commands::{complain, record};
use crate::config::{Config, ListName, Mode};
use crate::evidence::Decision;
use crate::exit::Exit;
use crate::feeds::compile::Compiled;
use crate::feeds::guard::{self, Protected, Why};
use crate::feeds::store::Store;
use crate::firewall::order;
use crate::kernel_sets::{self, Content, Ipset};
use crate::state_file::{self, Durability};

/// The command line of `load`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Fill the sets even if they hold the same already
    #[arg(long)]
    force: bool,
}

/// What was last loaded, in the run directory: gone with a reboot, as the sets are.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Loaded {
    /// Of the content; none while new content is brought in: a crash may leave some of it.
    digest: Option<u64>,
    /// Seconds since 1970.
    pub(super) when: i64,
    /// IPv4 and IPv6 networks that are blocked.
    pub(super) block: [usize; 2],
    /// And allowed.
    pub(super) allow: [usize; 2],
}

impl Loaded {
    fn path(config: &Config) -> PathBuf {
        config.run_dir.join("lists.loaded")
    }

    /// What was loaded since the last boot; `None` if nothing was, or nobody knows.
    pub(super) fn read(config: &Config) -> Option<Self> {
        let last: Self =
            serde_json::from_slice(&state_file::read_regular(&Self::path(config), 4096).ok()?).ok()?;
        (last.when > 0).then_some(last)
    }

    fn write(&self, config: &Config) -> anyhow::Result<()> {
        let path = Self::path(config);
        state_file::make_dir(&config.run_dir, 0o755)
            .and_then(|()| state_file::replace(&path, &serde_json::to_vec(self)?, Durability::Volatile))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn of(content: &Content, fail2ban: &impl Hash, now: Timestamp) -> Self {
        let mut hasher = DefaultHasher::new();
        (content, fail2ban).hash(&mut hasher);
        Self {
            digest: Some(hasher.finish()),
            when: now.as_second(),
            block: content.block.count_networks(),
            allow: content.allow.count_networks(),
        }
    }
}

/// What a load did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// The sets hold something new.
    Loaded,
    /// They held it already.
    Same,
    /// There is nothing to load yet; sets that were missing are there, and empty.
    Empty,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loaded => "The sets are filled.",
            Self::Same => "The sets hold the lists already.",
            Self::Empty => {
                "There are no lists put together yet; run ringfence-lists fetch. The sets are there."
            }
        })
    }
}

pub(super) fn run(config: &Config, args: &Args, now: Timestamp) -> anyhow::Result<Exit> {
    let store = Store::open(&config.state_dir)?;
    let _lock = store.lock()?;
    let done = load(config, &store, args.force, now)?;
    if io::stdout().is_terminal() {
        // A closed pipe is no error of ours.
        let _ = writeln!(io::stdout(), "{done}");
    }
    Ok(Exit::Yes)
}

/// Brings the lists in the store into the kernel, where it does not hold them already. Only who has the lock may.
pub(super) fn load(config: &Config, store: &Store, force: bool, now: Timestamp) -> anyhow::Result<Done> {
    untold::tell(config, store);
    let mut kernel = Ipset::open().context("cannot talk to the kernel's ipset")?;
    // A rule that names a list that is not there is the firewall's trouble, and no reason to keep old lists.
    let (lists, problems) = restricted::read_all(config, store, now);
    for problem in &problems {
        complain(TOOL, problem);
    }
    let compiled = match store.read::<Compiled>(COMPILED) {
        Ok(Some(compiled)) => compiled,
        // Nothing was put together yet, or the store is gone: whoever is exempt stays so.
        Ok(None) => {
            make_missing(config, &mut kernel, &lists)?;
            return Ok(Done::Empty);
        }
        Err(error) => {
            make_missing(config, &mut kernel, &lists)?;
            return Err(error.context("the lists put together are lost; the sets stay as they are until the next ringfence-lists fetch"));
        }
    };
    let content = content(config, &compiled, lists, now);
    let loaded = Loaded::of(&content, &compiled.fail2ban, now);
    let last = Loaded::read(config);
    let same = last.as_ref().is_some_and(|last| last.digest == loaded.digest);
    let table = allow::path(&config.state_dir);
    if same && !force && table.exists() && kernel_sets::hold(&mut kernel, &content)? {
        make_missing(config, &mut kernel, &content.lists)?;
        kernel_sets::clear_away(&mut kernel)?;
        return Ok(Done::Same);
    }
    // Who is allowed comes first, here too.
    let allowed: Vec<Allowed<'_>> = compiled
        .fail2ban
        .iter()
        .flat_map(|(list, set)| {
            set.networks().map(|network| Allowed { network, list: list.as_str(), until: None })
        })
        .collect();
    allow::write(&config.state_dir, &allowed, now)
        .with_context(|| format!("cannot write {} (load needs root)", table.display()))?;
    // First of all: what cannot be written down must not be begun.
    Loaded { digest: None, ..last.unwrap_or_default() }.write(config)?;
    kernel_sets::load(&mut kernel, &content)?;
    make_standing(config, &mut kernel)?;
    record(config, &decision(config, &loaded), now);
    loaded.write(config)?;
    Ok(Done::Loaded)
}

/// Rules that name our sets must not fail for want of them, whoever fills them, nor drop everybody.
fn make_missing(
    config: &Config,
    kernel: &mut Ipset,
    lists: &BTreeMap<ListName, AddressSet>,
) -> anyhow::Result<()> {
    kernel_sets::make_missing(kernel, lists.keys())?;
    kernel_sets::fill_empty_lists(kernel, lists)?;
    make_standing(config, kernel)
}

/// The sets that `ringfence-firewall`'s rules need beside those of lists, on a host that has it.
fn make_standing(config: &Config, kernel: &mut Ipset) -> anyhow::Result<()> {
    if !config.firewall_dir().exists() {
        return Ok(());
    }
    kernel_sets::make_standing(kernel)?;
    match confirmed::of(config) {
        Ok(Some(confirmed)) => kernel_sets::fill_ports(kernel, order::watched_ports(&confirmed.firewall)),
        // What is wrong with it was said.
        _ => Ok(()),
    }
}

/// What the sets should hold. Who must not be blocked is looked up once more: since the lists were put together, this host may have
/// got another address, and phones may have come.
fn content(
    config: &Config,
    compiled: &Compiled,
    lists: BTreeMap<ListName, AddressSet>,
    now: Timestamp,
) -> Content {
    if config.mode == Mode::Observe {
        return Content { allow: compiled.allow.clone(), lists, ..Content::default() };
    }
    let (mut found, _) = protection::local(config, now);
    found.protected.extend(guard::special());
    let allowed = compiled.allow.union(&compiled.unblocked);
    found.protected.push(Protected { why: Why::Allowed, name: String::new(), addresses: allowed });
    let (block, _) = guard::cut(&compiled.block, &found.protected);
    Content { allow: compiled.allow.clone(), block, lists }
}

fn decision(config: &Config, loaded: &Loaded) -> Decision {
    let Loaded { block: [block4, block6], allow: [allow4, allow6], .. } = loaded;
    let detail =
        format!("blocked {block4} IPv4 and {block6} IPv6, allowed {allow4} IPv4 and {allow6} IPv6 networks");
    Decision::new(TOOL, "lists", "load", "lists-changed", "lists").in_mode(config.mode).with_detail(detail)
}
