//! What fail2ban's jails ban in the kernel: a chain with a rule for each jail, which drops whoever is in the jail's sets.
//!
//! Which jails there are stands in a file of the run directory, so that the chain can be made again, whole, after whatever happened to
//! it. Whom they ban is fail2ban's to remember.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::drops::{Kind, Reason};
use crate::firewall::{BANS, Chain, Firewall, Hook, Layout, Rule, Version};
use crate::kernel_sets::Banned;
use crate::state_file::{self, Durability};

mod reach;

pub use reach::Reach;

/// A jail whose bans are in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jail {
    /// In fail2ban.
    pub name: String,
    /// What is dropped.
    pub reach: Reach,
    /// Whom fail2ban's database had when we looked last, but for those that it banned since: who is gone from there was let go, though
    /// fail2ban may not have said so.
    pub remembered: BTreeSet<IpNetwork>,
    /// When it started, in seconds since 1970.
    pub started: i64,
}

impl Jail {
    /// A jail that bans nobody yet, and started at `started` (seconds since 1970).
    #[must_use]
    pub fn new(name: &str, reach: Reach, started: i64) -> Self {
        Self { name: name.to_owned(), reach, remembered: BTreeSet::new(), started }
    }

    /// The names under which fail2ban may know it: actions that come once for each protocol are told which one, as in Debian's own
    /// jails (`name=%(__name__)s-tcp`).
    pub fn names(&self) -> impl Iterator<Item = &str> {
        Self::names_of(&self.name)
    }

    /// The same of a jail with this name.
    pub fn names_of(name: &str) -> impl Iterator<Item = &str> {
        let cut = ["-tcp", "-udp"].into_iter().filter_map(|protocol| name.strip_suffix(protocol));
        std::iter::once(name).chain(cut)
    }

    /// Whom it bans, in the kernel.
    #[must_use]
    pub fn banned(&self) -> Banned {
        Banned::of(&self.name)
    }

    /// The rules that drop them.
    pub fn rules(&self, version: Version) -> impl Iterator<Item = Rule> {
        let set = format!("-m set --match-set {} src", self.banned().name(version.family()));
        self.reach.matches().into_iter().map(move |matches| {
            let space = if matches.is_empty() { "" } else { " " };
            Rule::new(format!("{matches}{space}{set}"), "DROP")
                .about(format!("banned by {}", self.name))
                .dropping(Reason::of(Kind::Ban, &self.name))
        })
    }
}

/// The chain of these jails, and the jump to it.
#[must_use]
pub fn layout(jails: &[&Jail], version: Version) -> Layout {
    if jails.is_empty() {
        return Layout::nothing(BANS);
    }
    let rules = jails.iter().flat_map(|jail| jail.rules(version)).collect();
    Layout {
        chains: vec![Chain::new(BANS, rules)],
        hooks: vec![Hook::in_input(Rule::new("", BANS))],
        ..Layout::nothing(BANS)
    }
}

/// How many packets the rules of each of these jails dropped since they are there; `None` where one of them is missing.
#[must_use]
pub fn hits(jails: &[Jail], there: &Firewall) -> Vec<Option<u64>> {
    let counters = there.counters();
    let hits = |jail: &Jail| {
        let versions = [Version::V4, Version::V6].into_iter().filter(|version| there.has(*version));
        let mut rules = versions.flat_map(|version| jail.rules(version));
        rules.try_fold(0, |sum, rule| Some(sum + counters.get(&rule.tag())?.packets))
    };
    jails.iter().map(hits).collect()
}

/// Where the jails stand.
#[must_use]
pub fn path(run_dir: &Path) -> PathBuf {
    run_dir.join("bans.json")
}

/// The jails that have started and not stopped, in the order in which they started; none if no jail ever did.
pub fn read(run_dir: &Path) -> anyhow::Result<Vec<Jail>> {
    const LONGEST: u64 = 256 << 20;
    let path = path(run_dir);
    let content = match state_file::read_regular(&path, LONGEST) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        content => content.with_context(|| format!("cannot read {}", path.display()))?,
    };
    serde_json::from_slice(&content)
        .with_context(|| format!("{} is damaged; each jail comes back with its next ban", path.display()))
}

/// Only who has the turn to change rules may.
pub fn write(run_dir: &Path, jails: &[Jail]) -> anyhow::Result<()> {
    let path = path(run_dir);
    state_file::make_dir(run_dir, 0o755)
        .and_then(|()| state_file::replace(&path, &serde_json::to_vec(jails)?, Durability::Volatile))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jail(name: &str, ports: &str, protocols: &str) -> Jail {
        Jail::new(name, Reach::parse(ports, protocols, Path::new("/nowhere")).unwrap(), 0)
    }

    #[test]
    fn there_is_a_rule_for_each_jail_and_nothing_without_one() {
        let jails = [jail("sip", "5060,5080:5081", "tcp,udp"), jail("all", "0:65535", "all")];
        let layout = super::layout(&jails.each_ref(), Version::V6);
        let rules: Vec<_> = layout.chains[0].rules.iter().map(ToString::to_string).collect();
        let rules: Vec<_> = rules.iter().map(|rule| rule.split(" -m comment").next().unwrap()).collect();
        assert_eq!(
            rules,
            [
                "-p tcp -m multiport --dports 5060,5080:5081 -m set --match-set rf-ban-sip-6 src",
                "-p udp -m multiport --dports 5060,5080:5081 -m set --match-set rf-ban-sip-6 src",
                "-m set --match-set rf-ban-all-6 src",
            ]
        );
        assert_eq!(layout.hooks.len(), 1);
        assert_eq!(super::layout(&[], Version::V4), Layout::nothing(BANS));
    }

    #[test]
    fn a_protocol_behind_a_name_is_none_of_fail2bans() {
        let names = |name| jail(name, "5060", "udp").names().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(names("asterisk-udp"), ["asterisk-udp", "asterisk"]);
        assert_eq!(names("sip"), ["sip"]);
    }

    #[test]
    fn what_is_written_can_be_read_and_damage_is_said() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), []);
        let mut jails = vec![jail("sip", "5060", "udp"), jail("all", "0:65535", "all")];
        jails[0].remembered.insert("203.0.113.66".parse().unwrap());
        write(dir.path(), &jails).unwrap();
        assert_eq!(read(dir.path()).unwrap(), jails);
        std::fs::write(path(dir.path()), "[{").unwrap();
        let error = format!("{:#}", read(dir.path()).unwrap_err());
        assert!(error.contains("is damaged"), "{error}");
    }
}
