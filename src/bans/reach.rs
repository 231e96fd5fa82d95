//! What a ban cuts off: protocols and ports, as fail2ban's jails name them.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::firewall::{MAX_PORTS, PortRange};
use crate::state_file;

/// Protocols and ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Spelled", into = "Spelled")]
pub struct Reach {
    protocols: Protocols,
    /// `None`: all of them.
    ports: Option<Vec<PortRange>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocols {
    All,
    Tcp,
    Udp,
    TcpAndUdp,
}

/// As it stands in a file.
#[derive(Serialize, Deserialize)]
struct Spelled {
    protocols: String,
    ports: String,
}

/// What fail2ban has where a jail names no ports.
const ALL_PORTS: &str = "0:65535";

impl Reach {
    /// Reads a jail's `port` (`5060,5080:5081`, `http,https`) and `protocol` (`tcp`, `tcp,udp`, `all`). Names of ports are looked up
    /// in `services`, which is /etc/services.
    pub fn parse(ports: &str, protocols: &str, services: &Path) -> Result<Self, String> {
        let protocols = Protocols::parse(protocols)?;
        if ["all", ALL_PORTS, "1:65535", ""].contains(&ports.trim()) {
            return Ok(Self { protocols, ports: None });
        }
        let mut known = Services { file: services, text: None };
        let mut ranges = vec![];
        for name in ports.split([',', ' ']).filter(|name| !name.is_empty()) {
            match PortRange::parse(&name.replace(':', "-")) {
                Some(range) => ranges.push(range),
                None => ranges.extend(known.ports(name)?),
            }
        }
        if ranges.is_empty() {
            return Err(format!("{ports:?} names no port"));
        }
        ranges.sort_by_key(|range| (range.first(), range.last()));
        ranges.dedup();
        Ok(Self { protocols, ports: Some(ranges) })
    }

    /// A protocol and a port of it; nothing where it is all of them.
    #[must_use]
    pub fn example(&self) -> (Option<&'static str>, Option<u16>) {
        let protocol = match self.protocols {
            Protocols::All => None,
            chosen => chosen.names().first().copied(),
        };
        (protocol, self.ports.as_ref().and_then(|ports| ports.first()).map(|range| range.first()))
    }

    /// The options of iptables that match it; each but one that matches everything needs a rule of its own.
    #[must_use]
    pub fn matches(&self) -> Vec<String> {
        let Some(ports) = &self.ports else {
            return match self.protocols {
                Protocols::All => vec![String::new()],
                chosen => chosen.names().iter().map(|name| format!("-p {name}")).collect(),
            };
        };
        let rule = |protocol: &&str, ports: &Vec<PortRange>| {
            format!("-p {protocol} -m multiport --dports {}", joined(ports))
        };
        let chunks = chunks(ports);
        self.protocols
            .names()
            .iter()
            .flat_map(|name| chunks.iter().map(move |ports| rule(name, ports)))
            .collect()
    }
}

impl fmt::Display for Reach {
    /// For people: `5060,5080:5081 tcp,udp`, `all ports`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.ports, self.protocols) {
            (None, Protocols::All) => f.write_str("everything"),
            (None, some) => write!(f, "all ports {some}"),
            (Some(ports), Protocols::All) => write!(f, "{} {}", joined(ports), Protocols::TcpAndUdp),
            (Some(ports), some) => write!(f, "{} {some}", joined(ports)),
        }
    }
}

impl Protocols {
    fn parse(text: &str) -> Result<Self, String> {
        let mut chosen = None;
        for name in text.split([',', ' ']).filter(|name| !name.is_empty()) {
            let one = match name {
                "tcp" => Self::Tcp,
                "udp" => Self::Udp,
                "all" | "any" => Self::All,
                _ => return Err(format!("{name:?} is no protocol; tcp, udp, tcp,udp and all are possible")),
            };
            chosen = Some(match chosen {
                None => one,
                Some(other) if other == one => one,
                Some(Self::All) => Self::All,
                Some(_) if one == Self::All => Self::All,
                Some(_) => Self::TcpAndUdp,
            });
        }
        chosen.ok_or_else(|| "no protocol is named; tcp, udp, tcp,udp and all are possible".to_owned())
    }

    /// Those that have ports.
    const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Tcp => &["tcp"],
            Self::Udp => &["udp"],
            Self::All | Self::TcpAndUdp => &["tcp", "udp"],
        }
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::TcpAndUdp => "tcp,udp",
        })
    }
}

impl From<Reach> for Spelled {
    fn from(reach: Reach) -> Self {
        let ports = reach.ports.map_or_else(|| ALL_PORTS.to_owned(), |ports| joined(&ports));
        Self { protocols: reach.protocols.to_string(), ports }
    }
}

impl TryFrom<Spelled> for Reach {
    type Error = String;

    fn try_from(spelled: Spelled) -> Result<Self, String> {
        Self::parse(&spelled.ports, &spelled.protocols, Path::new(""))
    }
}

fn joined(ports: &[PortRange]) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// As many as a rule takes, together.
fn chunks(ports: &[PortRange]) -> Vec<Vec<PortRange>> {
    let mut chunks: Vec<Vec<PortRange>> = vec![];
    let mut room = 0;
    for range in ports {
        if room < range.slots() {
            chunks.push(vec![]);
            room = MAX_PORTS;
        }
        room -= range.slots();
        chunks.last_mut().expect("one was pushed").push(*range);
    }
    chunks
}

/// The names of ports, services(5), read when the first is asked for.
struct Services<'a> {
    file: &'a Path,
    text: Option<String>,
}

impl Services<'_> {
    fn ports(&mut self, name: &str) -> Result<Vec<PortRange>, String> {
        const LONGEST: u64 = 4 << 20;
        let file = self.file.display();
        let text = match &mut self.text {
            Some(text) => text,
            text @ None => {
                let read = state_file::read_regular(self.file, LONGEST)
                    .map_err(|error| format!("the port {name:?} cannot be looked up in {file}: {error}"))?;
                text.insert(String::from_utf8_lossy(&read).into_owned())
            }
        };
        let mut found = BTreeSet::new();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let (Some(first), Some(port)) = (words.next(), words.next()) else { continue };
            if first == name || words.any(|alias| alias == name) {
                found.extend(
                    port.split('/').next().and_then(|port| port.parse::<u16>().ok()).filter(|port| *port > 0),
                );
            }
        }
        if found.is_empty() {
            return Err(format!("{name:?} is no port, and no name of one in {file}"));
        }
        Ok(found.into_iter().map(PortRange::one).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICES: &str =
        "ssh 22/tcp # SSH\nhttp\t80/tcp www\nhttps 443/tcp\nhttps 443/udp\n# sip 1/tcp\nsip 5060/udp\n";

    fn parse(ports: &str, protocols: &str) -> Result<Reach, String> {
        let services = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(services.path(), SERVICES).unwrap();
        Reach::parse(ports, protocols, services.path())
    }

    #[test]
    fn ports_are_as_jails_have_them() {
        for (ports, protocols, matches, words) in [
            ("0:65535", "tcp", &["-p tcp"][..], "all ports tcp"),
            ("0:65535", "all", &[""], "everything"),
            ("all", "tcp,udp", &["-p tcp", "-p udp"], "all ports tcp,udp"),
            ("5060", "udp", &["-p udp -m multiport --dports 5060"], "5060 udp"),
            (
                "5080:5081, 5060",
                "udp",
                &["-p udp -m multiport --dports 5060,5080:5081"],
                "5060,5080:5081 udp",
            ),
            ("http,https,www", "tcp", &["-p tcp -m multiport --dports 80,443"], "80,443 tcp"),
            (
                "5060:5091",
                "all",
                &["-p tcp -m multiport --dports 5060:5091", "-p udp -m multiport --dports 5060:5091"],
                "5060:5091 tcp,udp",
            ),
        ] {
            let reach = parse(ports, protocols).unwrap();
            assert_eq!(
                (reach.matches(), reach.to_string()),
                (matches.iter().map(ToString::to_string).collect(), words.to_owned())
            );
            let json = serde_json::to_string(&reach).unwrap();
            assert_eq!(serde_json::from_str::<Reach>(&json).unwrap(), reach);
        }
    }

    #[test]
    fn a_rule_takes_fifteen_ports_and_a_range_is_two() {
        let fourteen = (1..=14).map(|port| (port * 2).to_string()).collect::<Vec<_>>().join(",");
        assert_eq!(parse(&format!("{fourteen},40"), "tcp").unwrap().matches().len(), 1);
        assert_eq!(parse(&format!("{fourteen},40:41"), "tcp").unwrap().matches().len(), 2);
        assert_eq!(parse(&format!("{fourteen},40,50"), "tcp,udp").unwrap().matches().len(), 4);
    }

    #[test]
    fn nonsense_is_refused_and_the_reason_said() {
        for (ports, protocols, expected) in [
            ("5060", "ssh", "\"ssh\" is no protocol"),
            ("5060", "", "no protocol is named"),
            ("nosuch", "tcp", "\"nosuch\" is no port, and no name of one in "),
            ("70000", "tcp", "\"70000\" is no port"),
            ("20:10", "tcp", "\"20:10\" is no port"),
            ("-j ACCEPT", "tcp", "\"-j\" is no port"),
            (",", "tcp", "\",\" names no port"),
        ] {
            let error = parse(ports, protocols).unwrap_err();
            assert!(error.starts_with(expected), "{ports} {protocols}: {error}");
        }
        let error = Reach::parse("http", "tcp", Path::new("/nowhere")).unwrap_err();
        assert!(error.starts_with("the port \"http\" cannot be looked up in /nowhere:"), "{error}");
    }
}
