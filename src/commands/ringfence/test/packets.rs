//! What becomes of packets of an address, by what the kernel has now.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::super::look::{reaches, sip_ports};
use crate::account::{Offender, SipAccount};
use crate::commands::{causes, firewall, pause};
use crate::config::Config;
use crate::firewall::path::{End, Holds, Packet, Path, Protocol, Step, Verdict};
use crate::firewall::{Reachability, Tag};
use crate::host;
use crate::matcher::bpf::InKernel;

/// No program is waited for longer.
const PATIENCE: Duration = Duration::from_secs(15);

/// So many ports are named in one row.
const MOST_PORTS: usize = 16;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum What {
    /// A REGISTER, the first packet over UDP.
    Register,
    /// The same of a flow that the host has answered already.
    RegisterAgain,
    /// What opens a connection of TCP.
    Connection,
    /// A REGISTER over a connection that is open.
    RegisterOverTcp,
}

impl What {
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Register => "REGISTER over UDP",
            Self::RegisterAgain => "REGISTER over UDP, once answered",
            Self::Connection => "connection over TCP",
            Self::RegisterOverTcp => "REGISTER over TCP",
        }
    }
}

/// What becomes of it in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in super::super) enum Outcome {
    LetIn,
    Dropped,
    Rejected,
    Unknown,
}

impl Outcome {
    pub(in super::super) const fn words(self) -> &'static str {
        match self {
            Self::LetIn => "let in",
            Self::Dropped => "dropped",
            Self::Rejected => "rejected",
            Self::Unknown => "not known",
        }
    }

    pub(in super::super) const fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Accepted { .. } => Self::LetIn,
            Verdict::Dropped { .. } => Self::Dropped,
            Verdict::Rejected { .. } => Self::Rejected,
            Verdict::Unknown { .. } => Self::Unknown,
        }
    }
}

/// A packet, and what becomes of it, at ports where it is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Trial {
    pub(super) packet: What,
    pub(super) ports: Vec<u16>,
    /// Whether these are SIP's.
    pub(super) sip: bool,
    pub(super) outcome: Outcome,
    /// What decides, for people.
    pub(super) by: String,
    /// What else may become of it, for people.
    pub(super) unless: Vec<String>,
    /// The host's rules alone, whatever comes before them.
    pub(super) rules: Path,
}

/// Where it comes from and who it says it is.
pub(super) struct Sender<'a> {
    pub(super) address: IpAddr,
    pub(super) account: Option<&'a SipAccount>,
}

/// What the kernel has, as far as it can be read.
pub(super) struct Kernel {
    rules: Reachability,
    pub(super) words: HashMap<Tag, String>,
    listening: Vec<std::net::SocketAddr>,
    /// An account that is blocked by the program in the kernel, before all rules.
    blocked: Option<Offender>,
    pub(super) problems: Vec<String>,
}

impl Kernel {
    /// An error means that not even the rules can be read.
    pub(super) fn read(config: &Config, sender: &Sender<'_>, now: Timestamp) -> anyhow::Result<Self> {
        let rules = Reachability::read(sender.address, now, PATIENCE)?;
        let mut problems = rules.problems().to_vec();
        let mut note =
            |what: &str, error: &anyhow::Error| problems.push(format!("{what}: {}", causes(error)));
        let listening = host::listening().unwrap_or_else(|error| {
            note("where the host listens is not known", &error);
            vec![]
        });
        let paused = pause::look(config).until().is_some();
        let blocked = if paused { Ok(None) } else { blocked(sender) };
        let blocked = blocked.unwrap_or_else(|error| {
            note("accounts blocked by the program in the kernel are not looked at", &error);
            None
        });
        Ok(Self {
            words: firewall::words(config, rules.firewall(), now),
            rules,
            listening,
            blocked,
            problems,
        })
    }

    /// All that is tried: SIP's ports, and others that are open where it goes another way there.
    pub(super) fn try_all(&mut self, config: &Config, sender: &Sender<'_>) -> Vec<Trial> {
        let reached = self.listening.iter().filter(|at| reaches(at, sender.address));
        let listening: BTreeSet<u16> = reached.map(std::net::SocketAddr::port).collect();
        let sip = sip_ports(config, listening.iter().copied());
        let mut trials = vec![];
        for what in [What::Register, What::RegisterAgain, What::Connection, What::RegisterOverTcp] {
            for port in &sip {
                self.add(&mut trials, what, *port, true, sender);
            }
        }
        for port in listening.into_iter().filter(|port| !config.firewall.sip_ports.has(*port)) {
            self.add(&mut trials, What::Connection, port, false, sender);
        }
        tidy(trials)
    }

    /// Beside the ports where the same becomes of it.
    fn add(&mut self, trials: &mut Vec<Trial>, what: What, port: u16, sip: bool, sender: &Sender<'_>) {
        let trial = self.try_one(what, port, sip, sender);
        let same = |other: &&mut Trial| {
            (other.packet, other.sip, other.outcome, &other.by, &other.unless)
                == (what, sip, trial.outcome, &trial.by, &trial.unless)
                && other.rules.steps == trial.rules.steps
        };
        match trials.iter_mut().find(same) {
            Some(other) => other.ports.push(port),
            None => trials.push(trial),
        }
    }

    fn try_one(&mut self, what: What, port: u16, sip: bool, sender: &Sender<'_>) -> Trial {
        let packet = packet(what, port, sender);
        let rules = self.rules.path(&packet);
        let (mut outcome, mut by) = (Outcome::of(&rules.verdict), by(&rules.verdict, &self.words));
        let mut unless: Vec<String> = unless(&rules);
        let credentials = !packet.content.is_empty() && sender.account.is_some();
        if let Some(blocked) = self.blocked.as_ref().filter(|_| sip && credentials) {
            outcome = Outcome::Dropped;
            by = format!(
                "the program in the kernel, before all rules: {blocked} is blocked by ringfence-block"
            );
            unless.clear();
        }
        Trial { packet: what, ports: vec![port], sip, outcome, by, unless, rules }
    }
}

fn packet(what: What, port: u16, Sender { address, account }: &Sender<'_>) -> Packet {
    match what {
        What::Register => Packet::register(*address, Protocol::Udp, port, *account),
        What::RegisterAgain => Packet::register(*address, Protocol::Udp, port, *account).established(),
        What::Connection => Packet::syn(*address, port),
        What::RegisterOverTcp => Packet::register(*address, Protocol::Tcp, port, *account),
    }
}

/// Which block of the program in the kernel meets the account.
fn blocked(Sender { address, account }: &Sender<'_>) -> anyhow::Result<Option<Offender>> {
    let Some(account) = account else { return Ok(None) };
    let Some(there) = InKernel::open()? else { return Ok(None) };
    for source in [None, Some(*address)] {
        let offender = Offender { account: (*account).clone(), source };
        if there.hits(&offender)?.is_some() {
            return Ok(Some(offender));
        }
    }
    Ok(None)
}

/// Rows that say the same as one before them are left out: a flow that is answered, and a REGISTER over a connection, where they fare
/// as the first packet; and other ports, where the connection fares as on those of SIP.
fn tidy(mut trials: Vec<Trial>) -> Vec<Trial> {
    let mut known: BTreeMap<(What, u16), Outcome> = BTreeMap::new();
    for trial in &trials {
        known.extend(trial.ports.iter().map(|port| ((trial.packet, *port), trial.outcome)));
    }
    let usual: Vec<Outcome> = trials
        .iter()
        .filter(|trial| trial.sip && trial.packet == What::Connection)
        .map(|trial| trial.outcome)
        .collect();
    for trial in &mut trials {
        let outcome = trial.outcome;
        let first = match trial.packet {
            What::RegisterAgain => What::Register,
            What::RegisterOverTcp => What::Connection,
            What::Connection if !trial.sip && usual.iter().all(|other| *other == outcome) => {
                trial.ports.clear();
                continue;
            }
            What::Connection | What::Register => continue,
        };
        // Over a connection that cannot be opened nothing comes.
        let moot =
            |port: &u16| first == What::Connection && known.get(&(first, *port)) != Some(&Outcome::LetIn);
        trial.ports.retain(|port| !moot(port) && known.get(&(first, *port)) != Some(&outcome));
    }
    trials.retain(|trial| !trial.ports.is_empty());
    trials
}

/// What decided, for people.
fn by(verdict: &Verdict, words: &HashMap<Tag, String>) -> String {
    match (verdict, verdict.end()) {
        (Verdict::Unknown { why }, _) => why.clone(),
        (_, Some(end @ End::Policy { .. })) => end.place(),
        (_, Some(End::Rule(step))) => {
            let said = step.tag.and_then(|tag| words.get(&tag)).or(step.comment.as_ref());
            let said = match (said, step.program.as_str()) {
                (Some(said), _) => format!(" ({said})"),
                (None, "nft") => format!(": `{}`", step.rule),
                (None, _) => String::new(),
            };
            step.place() + &said
        }
        (_, None) => String::new(),
    }
}

fn unless(path: &Path) -> Vec<String> {
    let said = path.otherwise.iter().map(|other| {
        let why = |step: &Step| match &step.holds {
            Holds::Perhaps { why, usually: false } => why.clone(),
            Holds::Perhaps { why, usually: true } => negated(why),
            Holds::Unclear { why } => format!("depends on {why}"),
            Holds::Yes => String::new(),
        };
        let why: Vec<String> = other.on.iter().map(why).collect();
        format!("{} {}", Outcome::of(&other.verdict).words(), why.join(", "))
    });
    let mut all: Vec<String> = said.collect();
    all.dedup();
    all
}

/// The opposite, in words.
fn negated(why: &str) -> String {
    why.strip_prefix("not ").map_or_else(|| format!("not {why}"), str::to_owned)
}

/// Ports with commas between them.
pub(super) fn listed(ports: &[u16]) -> String {
    let shown: Vec<String> = ports.iter().take(MOST_PORTS).map(u16::to_string).collect();
    let more = if ports.len() > MOST_PORTS { ", ..." } else { "" };
    shown.join(", ") + more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_usually_match_is_negated_once() {
        for (why, opposite) in [
            ("over the interface docker0", "not over the interface docker0"),
            ("not over the interface docker0", "over the interface docker0"),
        ] {
            assert_eq!(negated(why), opposite);
        }
    }
}
