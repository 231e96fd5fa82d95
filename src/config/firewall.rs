//! `[firewall]`: the order of checks in the kernel, and what they are about.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::block::LogPrefix;
use super::lists::{List, ListName};
use super::values::{self, Span};
use super::{Bounds, Mode};

/// `[firewall]`: the order of checks in the kernel, and what they are about.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Firewall {
    /// For this section alone.
    pub mode: Option<Mode>,
    /// Where SIP is spoken.
    pub sip_ports: Ports,
    /// REGISTER requests of one source.
    pub register_limit: Limit,
    /// INVITE requests of one source.
    pub invite_limit: Limit,
    /// OPTIONS requests of one source.
    pub options_limit: Limit,
    /// Registrations and calls of one source by IAX2.
    pub iax_limit: Limit,
    /// Who exceeded one of these limits stays blocked until he has kept them for so long.
    pub slamming_for: Span<SlammingFor>,
    /// New connections of one source to other ports.
    pub limits: Vec<PortLimit>,
    /// Who may reach a port at all.
    pub restrict: Vec<Restriction>,
    /// Scanners, by what is in their messages.
    pub agents: Vec<Agent>,
    /// Where allowed sources go.
    pub allow_means: AllowMeans,
    /// Whether rules of ours may ask for the state of connections.
    pub connection_tracking: ConnectionTracking,
    /// Set: what is dropped is logged first.
    pub log_prefix: LogPrefix,
}

values::span!(
    /// From a second to a day.
    SlammingFor: 1_000 ms ..= 86_400_000 ms, default 60_000 ms
);

impl Default for Firewall {
    /// The limits are generous, since whoever has a phone that works is exempt. Forty REGISTERs are twenty phones that log in,
    /// before the first of them makes their address known; a phone's keep-alive by OPTIONS comes once or twice a minute.
    fn default() -> Self {
        let usual = |count, burst| Limit(Some(Rate::per_minute(count, burst)));
        Self {
            mode: None,
            sip_ports: Ports::of_sip(),
            register_limit: usual(20, 40),
            invite_limit: usual(30, 60),
            options_limit: usual(60, 120),
            iax_limit: usual(20, 40),
            slamming_for: Span::default(),
            limits: vec![],
            restrict: vec![],
            agents: vec![],
            allow_means: AllowMeans::default(),
            connection_tracking: ConnectionTracking::default(),
            log_prefix: LogPrefix::default(),
        }
    }
}

/// Where IAX2 is spoken.
pub const IAX_PORT: u16 = 4569;

/// The largest number of ports that one rule names; a range counts twice.
pub const MAX_PORTS: usize = 15;

/// More entries of one kind make no sense.
const MAX_RULES: usize = 32;

/// Ports, in the order of the settings; one rule of iptables can name them all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ports(Vec<PortRange>);

/// Ports from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange(u16, u16);

impl Ports {
    /// Those of FreeSWITCH's profiles `internal` and `external`, with TLS.
    fn of_sip() -> Self {
        Self(vec![PortRange(5060, 5061), PortRange(5080, 5081)])
    }

    /// In the order of the settings.
    pub fn ranges(&self) -> impl Iterator<Item = &PortRange> {
        self.0.iter()
    }

    /// Whether this port is among them.
    #[must_use]
    pub fn has(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.0 <= port && port <= range.1)
    }

    /// Whether some port is in both.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        self.0.iter().any(|one| other.0.iter().any(|other| one.0 <= other.1 && other.0 <= one.1))
    }

    /// Whether all of these ports are among `other`.
    #[must_use]
    pub fn within(&self, other: &Self) -> bool {
        self.0.iter().all(|range| (range.0..=range.1).all(|port| other.has(port)))
    }
}

impl PortRange {
    /// One port.
    #[must_use]
    pub const fn one(port: u16) -> Self {
        Self(port, port)
    }

    /// The first port.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.0
    }

    /// The last port, which may be the first.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.1
    }

    /// How many of the [`MAX_PORTS`] of a rule it takes.
    #[must_use]
    pub const fn slots(self) -> usize {
        if self.0 == self.1 { 1 } else { 2 }
    }

    /// Reads `5060`, and `5060-5061`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let port = |text: &str| {
            let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>().ok().filter(|port| plain && *port > 0)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some(Self(port(first)?, port(last)?)).filter(|Self(first, last)| first <= last)
    }
}

impl fmt::Display for Ports {
    /// As `iptables -m multiport` has them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.0.iter().enumerate() {
            write!(f, "{}{range}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Display for PortRange {
    /// As `iptables -m multiport` has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(first, last) = self;
        if first == last { write!(f, "{first}") } else { write!(f, "{first}:{last}") }
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let parse = |text: &String| {
            PortRange::parse(text).ok_or_else(|| {
                de::Error::custom(format!(
                    "{text:?} is no port, and no range of ports; write them like [\"5060\", \"5080-5081\"]"
                ))
            })
        };
        let ranges = texts.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let slots: usize = ranges.iter().map(|range| range.slots()).sum();
        match slots {
            0 => Err(de::Error::custom("no ports are named; leave the key out for the usual ones")),
            1..=MAX_PORTS => Ok(Self(ranges)),
            _ => Err(de::Error::custom(format!(
                "too many ports for one rule: {MAX_PORTS} are possible, and a range counts as two"
            ))),
        }
    }
}

/// So many in a time, and so many at once, written like `20/minute burst 40`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    count: NonZeroU32,
    unit: Unit,
    burst: NonZeroU32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Unit {
    Second,
    Minute,
    Hour,
}

impl Unit {
    const ALL: [Self; 3] = [Self::Second, Self::Minute, Self::Hour];

    /// As iptables has it.
    const fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
        }
    }

    const fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
        }
    }
}

impl Rate {
    /// The most that a count or a burst can be.
    const MAX: u32 = 10_000;

    const fn per_minute(count: u32, burst: u32) -> Self {
        match (NonZeroU32::new(count), NonZeroU32::new(burst)) {
            (Some(count), Some(burst)) => Self { count, unit: Unit::Minute, burst },
            _ => panic!("more than none"),
        }
    }

    /// As iptables has it, without the burst: `20/minute`.
    #[must_use]
    pub fn pace(self) -> String {
        format!("{}/{}", self.count, self.unit.name())
    }

    /// How many may come at once.
    #[must_use]
    pub const fn burst(self) -> u32 {
        self.burst.get()
    }

    /// How long a source that stays silent has to be remembered: until its burst is whole again.
    #[must_use]
    pub fn memory(self) -> Duration {
        let (burst, count) = (u64::from(self.burst.get()), u64::from(self.count.get()));
        Duration::from_secs((burst * self.unit.seconds()).div_ceil(count).max(10))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} burst {}", self.count, self.unit.name(), self.burst)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no rate; write it like \"20/minute burst 40\", per second, minute or hour, with at most {} of each",
                Self::MAX
            )
        };
        let number = |text: &str| {
            let plain = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse()
                .ok()
                .filter(|number: &NonZeroU32| plain && number.get() <= Self::MAX)
                .ok_or_else(wrong)
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let (pace, burst) = match words[..] {
            [pace] => (pace, None),
            [pace, "burst", burst] => (pace, Some(number(burst)?)),
            _ => return Err(wrong()),
        };
        let (count, unit) = pace.split_once('/').ok_or_else(wrong)?;
        let unit = Unit::ALL.into_iter().find(|known| known.name() == unit).ok_or_else(wrong)?;
        let count = number(count)?;
        let rate = Self { count, unit, burst: burst.unwrap_or(count) };
        // The kernel counts the memory of a source in milliseconds.
        if rate.memory() > Duration::from_hours(24) {
            return Err(format!("{text:?} is out of range: a burst takes more than a day to be whole again"));
        }
        Ok(rate)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A rate for each source, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit(Option<Rate>);

impl Limit {
    /// The rate; `None` if it is off.
    #[must_use]
    pub const fn rate(self) -> Option<Rate> {
        self.0
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "off" {
            Ok(Self(None))
        } else {
            text.parse().map(|rate| Self(Some(rate))).map_err(de::Error::custom)
        }
    }
}

/// `{ ports = ["22"], rate = "6/minute" }`: new connections of one source.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PortLimit {
    /// Over TCP and UDP.
    pub ports: Ports,
    /// Of each source.
    pub rate: Rate,
}

/// `{ ports = ["5060"], to = ["au"] }`: nobody else reaches these ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Restriction {
    /// Over TCP and UDP.
    pub ports: Ports,
    /// Lists by their names, or countries by their codes.
    pub to: Vec<String>,
}

/// What a scanner's messages have in them, like `friendly-scanner`: 3 to 60 printable characters of ASCII.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Agent(String);

impl Agent {
    /// The text itself, hostile only to people.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Agent {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if (3..=60).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            Ok(Self(text))
        } else {
            Err(format!("{text:?} cannot be looked for; take 3 to 60 printable characters of ASCII"))
        }
    }
}

/// Where allowed sources go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AllowMeans {
    /// On to the host's own rules.
    #[default]
    Return,
    /// In.
    Accept,
}

/// Whether rules of ours may ask for the state of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectionTracking {
    /// Where the host tracks connections anyway, or rules of ours do already.
    #[default]
    Auto,
    /// Ours are the first, if need be.
    On,
    /// Never.
    Off,
}

impl Firewall {
    /// The lists that ports are restricted to, for each of [`Firewall::restrict`], or what is wrong with the first that is not
    /// there.
    pub fn restricted_to(&self, lists: &BTreeMap<ListName, List>) -> Result<Vec<Vec<ListName>>, String> {
        let find = |text: &String| find_list(text, lists);
        self.restrict.iter().map(|restriction| restriction.to.iter().map(find).collect()).collect()
    }

    /// What cannot be said of one value alone.
    pub(super) fn check(&self) -> Result<(), String> {
        for (key, count) in
            [("limits", self.limits.len()), ("restrict", self.restrict.len()), ("agents", self.agents.len())]
        {
            if count > MAX_RULES {
                return Err(format!(
                    "firewall.{key} has {count} entries, and each costs every packet; {MAX_RULES} are possible"
                ));
            }
        }
        for restriction in &self.restrict {
            if restriction.to.is_empty() {
                return Err(format!(
                    "firewall.restrict: ports {} are restricted to nobody; name lists in `to`, or close the ports",
                    restriction.ports
                ));
            }
        }
        let iax = Ports(vec![PortRange::one(IAX_PORT)]);
        for limit in &self.limits {
            if self.iax_limit.rate().is_some() && limit.ports.meets(&iax) {
                return Err(format!(
                    "firewall.limits: ports {} have that of IAX2 among them; see iax-limit",
                    limit.ports
                ));
            }
            if limit.ports.meets(&self.sip_ports) {
                return Err(format!(
                    "firewall.limits: ports {} are among those of SIP, which have limits of their own",
                    limit.ports
                ));
            }
        }
        Ok(())
    }
}

/// The list of that name, or the one that has that country.
fn find_list(text: &str, lists: &BTreeMap<ListName, List>) -> Result<ListName, String> {
    if text == super::lists::CARRIERS {
        return Ok(ListName::carriers());
    }
    if let Some((name, _)) = lists.get_key_value(text) {
        return Ok(name.clone());
    }
    let country = lists.iter().find(|(_, list)| list.country.as_deref() == Some(text));
    country.map(|(name, _)| name.clone()).ok_or_else(|| {
        let known: Vec<&str> = lists.keys().map(ListName::as_str).collect();
        let known = ["carriers"].into_iter().chain(known).collect::<Vec<_>>().join(", ");
        format!(
            "firewall.restrict: {text:?} is no list, and no country of a list; there are: {known}. A list for this alone has \
             kind = \"allow\" and exempts = []"
        )
    })
}
