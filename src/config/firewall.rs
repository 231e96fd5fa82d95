//! `[firewall]`: what the kernel's rules are about.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer};

/// `[firewall]`: what the kernel's rules are about.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Firewall {
    /// Where SIP is spoken.
    pub sip_ports: SipPorts,
}

/// The ports of SIP, in the order of the settings; one rule of iptables can name them all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SipPorts(Vec<PortRange>);

/// Ports from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PortRange(u16, u16);

/// One rule names so many, and a range counts twice.
const MAX_PORTS: usize = 15;

impl Default for SipPorts {
    /// Those of FreeSWITCH's profiles `internal` and `external`, with TLS.
    fn default() -> Self {
        Self(vec![PortRange(5060, 5061), PortRange(5080, 5081)])
    }
}

impl fmt::Display for SipPorts {
    /// As `iptables -m multiport` has them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, PortRange(first, last)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}:{last}")?;
            }
        }
        Ok(())
    }
}

impl PortRange {
    fn parse(text: &str) -> Option<Self> {
        let port = |text: &str| {
            let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>().ok().filter(|port| plain && *port > 0)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some(Self(port(first)?, port(last)?)).filter(|Self(first, last)| first <= last)
    }
}

impl<'de> Deserialize<'de> for SipPorts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let parse = |text: &String| {
            PortRange::parse(text).ok_or_else(|| {
                de::Error::custom(format!(
                    "{text:?} is no port, and no range of ports; write them like [\"5060\", \"5080-5081\"]"
                ))
            })
        };
        let ports = texts.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let slots: usize = ports.iter().map(|PortRange(first, last)| if first == last { 1 } else { 2 }).sum();
        match slots {
            0 => Err(de::Error::custom("no ports are named; leave the key out for the usual ones")),
            1..=MAX_PORTS => Ok(Self(ports)),
            _ => Err(de::Error::custom(format!(
                "too many ports for one rule: {MAX_PORTS} are possible, and a range counts as two"
            ))),
        }
    }
}
