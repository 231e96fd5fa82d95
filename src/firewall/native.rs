//! What tables of nftables' own, which iptables knows nothing of, do with an address: fail2ban's bans through nftables, for one.
//!
//! Only rules that name the source and drop or reject in the same rule are understood; jumps to other chains are not followed.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context;
use ipnetwork::IpNetwork;
use serde::Serialize;
use serde_json::Value;

use super::nft::is_of_iptables;
use super::path::Protocol;
use super::run;

const PACKAGE: &str = "nftables";

/// A rule that drops or rejects what comes from an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Refusal {
    /// Family and name of the table, as `inet f2b-table`.
    pub table: String,
    /// The chain of the rule.
    pub chain: String,
    /// The set that it is by, if the rule does not name the address itself.
    pub set: Option<String>,
    /// Whether it is refused because the set does not have it.
    pub unless: bool,
    /// Whether it is answered that it may not.
    pub rejects: bool,
    /// By which protocol; `None`: by any.
    pub protocol: Option<Protocol>,
    /// To which ports, from the first to the last of each range; none: to all.
    pub ports: Vec<(u16, u16)>,
    /// Whether the rule asks more of a packet, which is not understood here.
    pub asks_more: bool,
}

impl Refusal {
    /// Whether a packet meets it; `None` if the rule asks more of it.
    #[must_use]
    pub fn meets(&self, protocol: Protocol, port: u16) -> Option<bool> {
        let by = self.protocol.is_none_or(|its| its == protocol);
        let to =
            self.ports.is_empty() || self.ports.iter().any(|(first, last)| (*first..=*last).contains(&port));
        match by && to {
            true if self.asks_more => None,
            met => Some(met),
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let does = if self.rejects { "rejects" } else { "drops" };
        write!(f, "nftables, table {}: the chain {} {does} it", self.table, self.chain)?;
        match &self.set {
            Some(set) if self.unless => write!(f, ", as the set {set} does not have it")?,
            Some(set) => write!(f, ", as the set {set} has it")?,
            None => f.write_str(", by name")?,
        }
        let mut of = vec![];
        of.extend(self.protocol.map(|protocol| protocol.to_string()));
        if !self.ports.is_empty() {
            let range = |(first, last): &(u16, u16)| {
                if first == last { first.to_string() } else { format!("{first}-{last}") }
            };
            let ports: Vec<String> = self.ports.iter().map(range).collect();
            of.push(format!("port {}", ports.join(", ")));
        }
        if self.asks_more {
            of.push("and more that is not understood here".to_owned());
        }
        if of.is_empty() { Ok(()) } else { write!(f, " ({})", of.join(", ")) }
    }
}

/// The rules that refuse an address; none where nft is not installed.
pub fn refusals(address: IpAddr, time: Duration) -> anyhow::Result<Vec<Refusal>> {
    if super::programs::find("nft").is_none() {
        return Ok(vec![]);
    }
    // Without the elements: sets may have a million.
    let text = run(PACKAGE, "nft", &["-j", "-t", "list", "ruleset"], "", time)?;
    let ruleset: Value = serde_json::from_str(&text).context("nft -j list ruleset prints no JSON")?;
    let mut has = |table: &Table<'_>, set: &str| {
        let element = format!("{{ {address} }}");
        let args = ["get", "element", table.family, table.name, set, &element];
        // That it is not there is an error too.
        run(PACKAGE, "nft", &args, "", time).is_ok()
    };
    Ok(find(&ruleset, address.to_canonical(), &mut has))
}

#[derive(Clone, Copy)]
struct Table<'a> {
    family: &'a str,
    name: &'a str,
}

fn find(ruleset: &Value, address: IpAddr, has: &mut dyn FnMut(&Table<'_>, &str) -> bool) -> Vec<Refusal> {
    let items = ruleset["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut found = vec![];
    for rule in items.iter().filter_map(|item| item.get("rule")) {
        let text = |key: &str| rule[key].as_str().unwrap_or_default();
        let table = Table { family: text("family"), name: text("table") };
        if is_of_iptables(table.family, table.name) {
            continue;
        }
        let expressions = rule["expr"].as_array().map(Vec::as_slice).unwrap_or_default();
        found.extend(refusal(expressions, table, text("chain"), address, has));
    }
    found
}

fn refusal(
    expressions: &[Value],
    table: Table<'_>,
    chain: &str,
    address: IpAddr,
    has: &mut dyn FnMut(&Table<'_>, &str) -> bool,
) -> Option<Refusal> {
    let does = |word: &str| expressions.iter().any(|expression| expression.get(word).is_some());
    let rejects = does("reject");
    if !(rejects || does("drop")) {
        return None;
    }
    let protocol_of_ip = if address.is_ipv4() { "ip" } else { "ip6" };
    let mut refusal = Refusal {
        table: format!("{} {}", table.family, table.name),
        chain: chain.to_owned(),
        set: None,
        unless: false,
        rejects,
        protocol: None,
        ports: vec![],
        asks_more: false,
    };
    let mut by_source = false;
    for expression in expressions {
        let Some(matched) = expression.get("match") else {
            let counts = ["counter", "log", "drop", "reject", "comment"];
            refusal.asks_more |= !counts.iter().any(|word| expression.get(word).is_some());
            continue;
        };
        let (left, right) = (&matched["left"], &matched["right"]);
        let negated = matched["op"] == "!=";
        let payload = &left["payload"];
        match (payload["protocol"].as_str(), payload["field"].as_str()) {
            (Some(protocol @ ("ip" | "ip6")), Some("saddr")) => {
                if protocol != protocol_of_ip {
                    return None;
                }
                let set = right.as_str().and_then(|text| text.strip_prefix('@'));
                let inside = match set {
                    Some(set) => has(&table, set),
                    None => holds(right, address),
                };
                if inside == negated {
                    return None;
                }
                by_source = true;
                refusal.set = set.map(str::to_owned);
                refusal.unless = negated;
            }
            (Some(protocol), Some("dport")) if !negated => {
                refusal.protocol = match protocol {
                    "tcp" => Some(Protocol::Tcp),
                    "udp" => Some(Protocol::Udp),
                    _ => refusal.protocol,
                };
                match ports(right) {
                    Some(ports) => refusal.ports = ports,
                    None => refusal.asks_more = true,
                }
            }
            _ if left["meta"]["key"] == "l4proto" && !negated => {
                let names = each(right).filter_map(Value::as_str);
                let known: Vec<Protocol> = names.filter_map(protocol).collect();
                match known[..] {
                    [] => return None,
                    [one] => refusal.protocol = Some(one),
                    _ => {}
                }
            }
            _ => refusal.asks_more = true,
        }
    }
    by_source.then_some(refusal)
}

fn protocol(name: &str) -> Option<Protocol> {
    match name {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => None,
    }
}

/// What stands in `{ }`, or the one that stands there alone.
fn each(value: &Value) -> impl Iterator<Item = &Value> {
    value["set"].as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice).iter()
}

fn holds(value: &Value, address: IpAddr) -> bool {
    each(value).any(|one| {
        // An element with a timeout or a counter.
        let one = one.get("elem").and_then(|elem| elem.get("val")).unwrap_or(one);
        let parse = |value: &Value| value.as_str()?.parse::<IpAddr>().ok();
        if let Some([first, last]) = one["range"].as_array().map(Vec::as_slice) {
            return parse(first)
                .zip(parse(last))
                .is_some_and(|(first, last)| (first..=last).contains(&address));
        }
        let prefix = &one["prefix"];
        if let (Some(network), Some(length)) = (parse(&prefix["addr"]), prefix["len"].as_u64()) {
            let network = u8::try_from(length).ok().and_then(|length| IpNetwork::new(network, length).ok());
            return network.is_some_and(|network| network.contains(address));
        }
        parse(one) == Some(address)
    })
}

fn ports(value: &Value) -> Option<Vec<(u16, u16)>> {
    let number = |value: &Value| u16::try_from(value.as_u64()?).ok();
    each(value)
        .map(|one| match one["range"].as_array().map(Vec::as_slice) {
            Some([first, last]) => Some((number(first)?, number(last)?)),
            _ => number(one).map(|port| (port, port)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::netlink;

    /// As fail2ban's action `nftables` makes it, and what administrators write.
    const RULESET: &str = "\
        table inet f2b-table {
            set addr-set-sip { type ipv4_addr; elements = { 203.0.113.66 }; }
            set addr6-set-sip { type ipv6_addr; elements = { 2001:db8::66 }; }
            chain f2b-chain {
                type filter hook input priority -1; policy accept;
                udp dport { 5060, 5080-5081 } ip saddr @addr-set-sip reject
                udp dport { 5060, 5080-5081 } ip6 saddr @addr6-set-sip reject
            }
        }
        table ip own {
            set nets { type ipv4_addr; flags interval; elements = { 198.51.100.0/24 }; }
            set friends { type ipv4_addr; elements = { 203.0.113.66 }; }
            chain in {
                type filter hook input priority 0; policy accept;
                ip saddr @nets counter drop
                ip saddr 203.0.113.64/30 tcp dport 22 limit rate 5/second drop
                ip saddr { 192.0.2.7, 192.0.2.9-192.0.2.11 } meta l4proto tcp drop
                ip saddr != @friends tcp dport 8080 drop
                ip saddr 203.0.113.66 accept
            }
        }";

    #[test]
    fn whom_rules_of_nftables_refuse_is_found() {
        netlink::apart(|| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("rules");
            std::fs::write(&path, RULESET).unwrap();
            let time = Duration::from_secs(10);
            let of = |address: &str| {
                let refusals = refusals(address.parse().unwrap(), time).unwrap();
                refusals.iter().map(ToString::to_string).collect::<Vec<_>>()
            };
            assert_eq!(of("203.0.113.66"), [""; 0]);
            assert!(Command::new("nft").arg("-f").arg(&path).status().unwrap().success());
            let f2b = "nftables, table inet f2b-table: the chain f2b-chain rejects it, as the set";
            let own = "nftables, table ip own: the chain in drops it";
            let stranger = format!("{own}, as the set friends does not have it (TCP, port 8080)");
            assert_eq!(
                of("203.0.113.66"),
                [
                    format!("{f2b} addr-set-sip has it (UDP, port 5060, 5080-5081)"),
                    format!("{own}, by name (TCP, port 22, and more that is not understood here)"),
                ]
            );
            assert_eq!(
                of("2001:db8::66"),
                [format!("{f2b} addr6-set-sip has it (UDP, port 5060, 5080-5081)")]
            );
            assert_eq!(of("198.51.100.7"), [format!("{own}, as the set nets has it"), stranger.clone()]);
            assert_eq!(of("192.0.2.10"), [format!("{own}, by name (TCP)"), stranger.clone()]);
            assert_eq!(of("192.0.2.8"), [stranger]);
            assert_eq!(of("2001:db8::67"), [""; 0]);
            let refusal = refusals("203.0.113.66".parse().unwrap(), time).unwrap();
            assert_eq!(refusal[0].meets(Protocol::Udp, 5081), Some(true));
            assert_eq!(refusal[0].meets(Protocol::Tcp, 5081), Some(false));
            assert_eq!(refusal[0].meets(Protocol::Udp, 5082), Some(false));
            assert_eq!(refusal[1].meets(Protocol::Tcp, 22), None);
        });
    }
}
