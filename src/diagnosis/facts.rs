//! What the parts of a host say of a subject.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Serialize;

use super::Subject;
use crate::account::SipAccount;
use crate::evidence::past::Past;
use crate::fail2ban::Remembered;
use crate::failures::tally::Offense;
use crate::firewall::native::Refusal;
use crate::firewall::path::{Path, Protocol};
use crate::firewall::{Banned, Place};
use crate::fusionpbx::accounts::Existence;
use crate::fusionpbx::event_guard;
use crate::kernel_sets::Entry;
use crate::ledger::Block;
use crate::registrations::devices::Device;

/// What a part says, or what could not be read, where, and what to do.
pub type Found<T> = Result<T, String>;

/// Everything that is known. Times are seconds since 1970.
#[derive(Debug)]
pub struct Facts {
    /// Of whom.
    pub subject: Subject,
    /// When it was asked.
    pub now: i64,
    /// Until when nothing of Ringfence's blocks anybody, where it is paused.
    pub paused: Option<i64>,
    /// How the host is set up.
    pub host: Host,
    /// What fail2ban bans now, of the ids that mean the subject, by jail; `None` where it does not run.
    pub held: Found<Option<BTreeMap<String, Vec<String>>>>,
    /// What its database has of them.
    pub remembered: Found<Option<Vec<Remembered>>>,
    /// Of the ledger, what concerns the subject.
    pub ledgered: Found<Vec<Ledgered>>,
    /// Whether the kernel could be asked for these.
    pub matched: Found<()>,
    /// The devices that are registered.
    pub devices: Found<Vec<Device>>,
    /// What was recorded last, in order.
    pub decisions: Found<Vec<Past>>,
    /// Where the subject is an address.
    pub of_address: Option<OfAddress>,
    /// Where it is an account.
    pub of_account: Option<OfAccount>,
}

impl Facts {
    /// What could not be read, each once; of the addresses of an account with the address in front.
    #[must_use]
    pub fn unread(&self) -> Vec<String> {
        let (address, account) = (self.of_address.as_ref(), self.of_account.as_ref());
        let mut unread: Vec<String> = [
            self.held.as_ref().err(),
            self.remembered.as_ref().err(),
            self.ledgered.as_ref().err(),
            self.matched.as_ref().err(),
            self.devices.as_ref().err(),
            self.decisions.as_ref().err(),
            address.and_then(|of| of.in_jails.as_ref().err()),
            address.and_then(|of| of.in_bans.as_ref().err()),
            address.and_then(|of| of.event_guard.as_ref().err()),
            address.and_then(|of| of.allowed.as_ref().err()),
            address.and_then(|of| of.listed.as_ref().err()),
            address.and_then(|of| of.in_sets.as_ref().err()),
            address.and_then(|of| of.refusals.as_ref().err()),
            address.and_then(|of| of.walks.as_ref().err()),
            account.and_then(|of| of.existence.as_ref().err()),
            account.and_then(|of| of.failures.as_ref().err()),
        ]
        .into_iter()
        .flatten()
        .chain(address.iter().flat_map(|of| of.damaged.iter().chain(&of.unasked)))
        .cloned()
        .collect();
        let mut known = BTreeSet::new();
        unread.retain(|text| known.insert(text.clone()));
        for facts in account.iter().flat_map(|of| &of.addresses) {
            let of_address = facts.unread().into_iter().filter(|text| !known.contains(text));
            unread.extend(of_address.map(|text| format!("{}: {text}", facts.subject)));
        }
        unread
    }
}

/// How the host is set up, as far as it matters here.
#[derive(Debug)]
pub struct Host {
    /// Whether bans, blocks and rules of Ringfence's take effect, or are only observed.
    pub enforces: Enforces,
    /// fail2ban's socket, where it is not the usual one.
    pub socket: Option<PathBuf>,
    /// The settings, where they are not the usual ones.
    pub settings: Option<PathBuf>,
}

/// What takes effect, by its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enforces {
    /// Of `ringfence-ban`.
    pub bans: bool,
    /// Of `ringfence-block`.
    pub blocks: bool,
    /// Of `ringfence-firewall`.
    pub rules: bool,
}

/// What concerns addresses alone.
#[derive(Debug)]
pub struct OfAddress {
    /// The address.
    pub address: IpAddr,
    /// In which jails' sets of `ringfence-ban` it is.
    pub in_jails: Found<Vec<InJail>>,
    /// The jails that ban by `ringfence-ban`, by fail2ban's names for them.
    pub jails: Vec<String>,
    /// The rules of fail2ban and `event_guard` that refuse it.
    pub in_bans: Found<Vec<InBan>>,
    /// What `event_guard` wrote down of it, the newest first; `None` where there is no FusionPBX.
    pub event_guard: Found<Option<Vec<event_guard::Entry>>>,
    /// On which allow lists it is.
    pub allowed: Found<Vec<Allowed>>,
    /// On which lists of Ringfence's it is, and why it is not blocked though it is on one.
    pub listed: Found<(Vec<Listed>, Option<String>)>,
    /// Lists that cannot be read, and why.
    pub damaged: Vec<String>,
    /// In which of Ringfence's own sets it is.
    pub in_sets: Found<InSets>,
    /// The rules of nftables' own tables that refuse it, fail2ban's among them.
    pub refusals: Found<Vec<Refusal>>,
    /// Whether a program of Ringfence's in the kernel drops packets of accounts, before all rules.
    pub program: bool,
    /// What of the rules could not be looked at, and why.
    pub unasked: Vec<String>,
    /// Every rule that its packets may come to, in the order in which they would.
    pub places: Vec<Place>,
    /// What becomes of its packets.
    pub walks: Found<Vec<Walk>>,
}

/// A jail's set that an address is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InJail {
    /// In fail2ban.
    pub jail: String,
    /// The set's name.
    pub set: String,
    /// As what it is in.
    pub entry: Entry,
    /// What the jail closes, in words; nothing if the jail has not started by what is written down.
    pub reach: Option<String>,
    /// What of that can be tried.
    pub probe: Probe,
}

/// A rule of fail2ban's or `event_guard`'s that refuses an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InBan {
    /// The rule.
    pub rule: Banned,
    /// For how long it is in the set that the rule asks.
    pub entry: Option<Entry>,
    /// What it closes, as far as it can be tried.
    pub probe: Probe,
}

/// What a ban closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// By this protocol; `None`: by any.
    pub protocol: Option<Protocol>,
    /// A port of these; `None`: all.
    pub port: Option<u16>,
}

impl From<&Refusal> for Probe {
    fn from(refusal: &Refusal) -> Self {
        let (protocol, port) = refusal.closes();
        Self { protocol, port }
    }
}

impl Probe {
    /// Whether it closes what this walk tried.
    #[must_use]
    pub fn meets(&self, walk: &Walk) -> bool {
        self.protocol.is_none_or(|its| its == walk.protocol) && self.port.is_none_or(|its| its == walk.port)
    }
}

/// A block of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Ledgered {
    /// The block.
    #[serde(flatten)]
    pub block: Block,
    /// What the kernel has of it.
    pub hits: Hits,
}

/// What the kernel has of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hits {
    /// So many packets met it.
    Met(u64),
    /// It does not have it.
    Absent,
    /// It could not be asked.
    NotKnown,
}

/// An entry that allows an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Allowed {
    /// The list, or `ringfence-allow` with on whose word.
    pub by: String,
    /// As what it is on it.
    pub range: String,
    /// Seconds since 1970; `None`: for good.
    pub until: Option<i64>,
    /// Why, for people; may be empty.
    pub because: String,
}

/// A block list that an address is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Listed {
    /// The list.
    pub list: String,
    /// As what it is on it.
    pub range: String,
    /// Since then.
    pub since: i64,
    /// When its source last had a good copy.
    pub confirmed: Option<i64>,
    /// It only says whom it would block.
    pub observed: bool,
}

/// Which of Ringfence's own sets an address is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InSets {
    /// The allow lists.
    pub allow: Option<Entry>,
    /// The addresses seen.
    pub seen: Option<Entry>,
    /// The block lists.
    pub block: Option<Entry>,
    /// Who exceeded a limit; and the name of the set.
    pub slamming: Option<(String, Entry)>,
}

/// What becomes of a packet to a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// By this.
    pub protocol: Protocol,
    /// To this port.
    pub port: u16,
    /// SIP is spoken there.
    pub sip: bool,
    /// By all rules.
    pub path: Path,
    /// By those that are left where it is neither banned nor over a limit.
    pub listed: Path,
    /// By those that are left where it is neither banned nor on a block list.
    pub limited: Path,
    /// By those that are left where it is neither banned nor blocked: restrictions, and the host's own.
    pub rest: Path,
}

/// What concerns accounts alone.
#[derive(Debug)]
pub struct OfAccount {
    /// The account.
    pub account: SipAccount,
    /// Whether FusionPBX knows it; `None` where there is no FusionPBX.
    pub existence: Found<Option<Existence>>,
    /// Its failures of the last hour, by address; `None` where there is no log of them.
    pub failures: Found<Option<Vec<(IpAddr, Offense)>>>,
    /// What is known of the addresses that it is registered from, or fails from.
    pub addresses: Vec<Facts>,
}
