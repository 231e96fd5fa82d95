//! What happened in a time, in figures: what was blocked and why, where it came from, who fails behind addresses that are left
//! alone, and what was taken back.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;

use crate::config::ListName;
use crate::config::lists::Kind as ListKind;
use crate::failures::tally::{self, Offender};

pub mod axis;
pub mod dropped;
mod gathering;
mod reversal;

use axis::Step;
use dropped::Dropped;
pub use gathering::Gathering;
pub use reversal::Reversal;

/// What is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An address or network, by a jail of fail2ban's.
    Address,
    /// An account that does not exist, wherever it is tried from.
    Account,
    /// A device that keeps failing, at its address.
    Device,
}

/// Blocks of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    /// Of addresses.
    pub addresses: u64,
    /// Of accounts.
    pub accounts: u64,
    /// Of devices.
    pub devices: u64,
}

/// What happened.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// From then on.
    pub since: Timestamp,
    /// Until then.
    pub until: Timestamp,
    /// What concerns this tenant alone; all of it if there is none.
    pub domain: Option<String>,
    /// What was blocked, as often as it was.
    pub blocks: Counts,
    /// How many different addresses, accounts and devices that were.
    pub different: Counts,
    /// Blocks that took no effect, since the mode is observe.
    pub observed: u64,
    /// How long a column is.
    pub step: Step,
    /// Blocks over time.
    pub columns: Vec<Column>,
    /// Why it was blocked, the most frequent first.
    pub reasons: Vec<Reason>,
    /// Packets that the kernel dropped; none in what is for a tenant, and where the record of them could not be read.
    pub dropped: Option<Dropped>,
    /// Different addresses that were blocked, by country. Empty where no list of a country is there.
    pub countries: Vec<Country>,
    /// The lists.
    pub lists: Vec<List>,
    /// Registrations and logins that failed.
    pub failures: u64,
    /// From so many addresses.
    pub failing_addresses: u64,
    /// So many of them are of more addresses, too many to be told apart.
    pub failures_elsewhere: u64,
    /// Who fails behind addresses that fail2ban must leave alone, who fails most first.
    pub exempt: Vec<Exempt>,
    /// What was not held against addresses that fail2ban must leave alone.
    pub kept: Kept,
    /// Decisions taken back.
    pub reversals: Vec<Reversed>,
    /// The latest of them, the last first.
    pub latest: Vec<Event>,
}

/// Blocks that began in one column of a chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Column {
    /// Where it begins.
    pub start: Timestamp,
    /// How many.
    pub blocks: Counts,
}

/// Blocks for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Reason {
    /// What was blocked.
    pub kind: Kind,
    /// The jail of an address; else a word of `ringfence-block`'s.
    pub name: String,
    /// How often.
    pub blocks: u64,
}

/// Addresses of one country.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Country {
    /// Its code in capital letters, or the name of its list; none for what is on no country's list.
    pub country: Option<String>,
    /// Different addresses that were blocked.
    pub addresses: u64,
}

/// A list, as it is now, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct List {
    /// Its name.
    pub name: ListName,
    /// What it is for.
    pub kind: ListKind,
    /// Its country, if it is a country's.
    pub country: Option<String>,
    /// Networks on it; none where there is no good copy.
    pub networks: Option<u64>,
    /// When they last changed.
    pub changed: Option<Timestamp>,
    /// How many of the different addresses that were blocked are on it.
    pub blocked: u64,
    /// How many failures were not held against addresses because they are on it.
    pub kept: u64,
    /// How often a download was refused.
    pub refused: u64,
}

/// What was not held against addresses that fail2ban must leave alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Kept {
    /// How many different addresses.
    pub addresses: u64,
    /// How often.
    pub times: u64,
    /// As often for each reason, by the words of `ringfence-ignore`.
    pub reasons: BTreeMap<String, u64>,
}

/// An address that fail2ban must leave alone, and who fails there.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Exempt {
    /// The address.
    pub address: IpAddr,
    /// Why it is left alone.
    pub standing: Standing,
    /// How often it failed.
    pub failures: u64,
    /// With which accounts, the most frequent first.
    pub accounts: Vec<Failing>,
}

/// Why an address is left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// A phone is registered from there.
    Registered,
    /// One was, within a day.
    RegisteredLately,
    /// It is on an allow list; its name is the administrator's business alone.
    Allowed {
        /// Which.
        list: String,
    },
    /// For one of these reasons, which are not a tenant's business: the phone may be another's.
    LeftAlone,
}

/// How one account failed from there. All those that are too many to be told apart have no names.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failing {
    /// Which.
    pub account: Option<String>,
    /// Why.
    pub why: Option<&'static str>,
    /// How often.
    pub failures: u64,
    /// When last.
    pub last: Timestamp,
    /// What the client calls itself.
    pub user_agent: Option<String>,
}

/// Decisions that were taken back in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Reversed {
    /// How.
    pub how: Reversal,
    /// How often.
    pub times: u64,
}

/// A decision that was taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Event {
    /// When.
    pub when: Timestamp,
    /// Whom it was about.
    pub subject: String,
    /// How.
    pub how: Reversal,
}
impl Counts {
    /// All of them.
    #[must_use]
    pub fn sum(self) -> u64 {
        self.addresses + self.accounts + self.devices
    }

    /// Of this kind.
    #[must_use]
    pub fn of(self, kind: Kind) -> u64 {
        match kind {
            Kind::Address => self.addresses,
            Kind::Account => self.accounts,
            Kind::Device => self.devices,
        }
    }

    fn add(&mut self, kind: Kind, count: u64) {
        *match kind {
            Kind::Address => &mut self.addresses,
            Kind::Account => &mut self.accounts,
            Kind::Device => &mut self.devices,
        } += count;
    }
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Address, Self::Account, Self::Device];
}
impl Standing {
    /// What somebody may know of it.
    fn told_to(self, is_tenant: bool) -> Self {
        if is_tenant { Self::LeftAlone } else { self }
    }
}

impl Exempt {
    fn of(offender: Offender, standing: Standing) -> Self {
        let accounts = offender.offenses.into_iter().map(Failing::from).collect();
        Self { address: offender.address, standing, failures: offender.count, accounts }
    }
}

impl From<tally::Offense> for Failing {
    fn from(offense: tally::Offense) -> Self {
        let tally::Offense { what, count, last, agent, .. } = offense;
        let (account, why) = what.map(|(account, why)| (account.to_string(), why.words())).unzip();
        Self { account, why, failures: count, last, user_agent: (!agent.is_empty()).then_some(agent) }
    }
}
