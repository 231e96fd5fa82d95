//! What a rule of nftables asks of a packet, as `nft -j` prints it, and what it does with it.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::text::{expression, limit};
use super::{About, Effect, Refusal, Sets};
use crate::firewall::path::{Holds, Packet, Protocol, State};

/// Whether a rule matches, and what it then does; `None` if it does not.
pub(super) fn rule<'a>(rule: &'a [Value], packet: &Packet, sets: &Sets<'_>) -> (Option<Holds>, Effect<'a>) {
    let (mut unclear, mut limited) = (vec![], None);
    let mut effect = Effect::GoesOn;
    for (name, value) in rule.iter().filter_map(Value::as_object).flatten() {
        match name.as_str() {
            "match" => match condition(value, packet, sets) {
                Some(true) => {}
                Some(false) => return (None, Effect::GoesOn),
                None => unclear.push(why(&value["right"], name, value, sets)),
            },
            "limit" => limited = Some(limit(value)),
            "vmap" => {
                let found = entry(value, packet, sets);
                if found.is_none() {
                    unclear.push(why(&value["data"], name, value, sets));
                }
                effect = found.unwrap_or(Effect::Other(name));
            }
            // They count, or say or mark something.
            "counter" | "log" | "comment" | "mangle" | "notrack" => {}
            _ => match verdict(name, value) {
                Some(verdict) => effect = verdict,
                None => unclear.push(why(&Value::Null, name, value, sets)),
            },
        }
    }
    let holds = match (unclear.is_empty(), limited) {
        (false, _) => Holds::Unclear { why: unclear.join(", and ") },
        (true, Some((rate, true))) => {
            Holds::Perhaps { why: format!("when more than {rate} come"), usually: false }
        }
        (true, Some((rate, false))) => {
            Holds::Perhaps { why: format!("while no more than {rate} come"), usually: true }
        }
        (true, None) => Holds::Yes,
    };
    (Some(holds), effect)
}

/// On what a rule depends that is not understood.
fn why(asked: &Value, name: &str, whole: &Value, sets: &Sets<'_>) -> String {
    match named(asked) {
        Some(set) => format!("the set {set}, whose keys are not understood here ({})", sets.keys(set)),
        None => format!("`{}`, which is not understood here", expression(name, whole)),
    }
}

fn verdict<'a>(name: &'a str, value: &'a Value) -> Option<Effect<'a>> {
    let target = || value["target"].as_str().unwrap_or_default();
    Some(match name {
        "accept" => Effect::Accepts,
        "drop" => Effect::Refuses { rejects: false },
        "reject" => Effect::Refuses { rejects: true },
        "return" => Effect::Returns,
        "continue" => Effect::GoesOn,
        "jump" => Effect::Jumps(target()),
        "goto" => Effect::Goes(target()),
        "queue" | "dnat" | "redirect" | "tproxy" | "fwd" | "synproxy" => Effect::Other(name),
        _ => return None,
    })
}

/// What a map of verdicts has for the packet, if it is known; of what it does not have, the rule does nothing.
fn entry<'a>(map: &'a Value, packet: &Packet, sets: &Sets<'_>) -> Option<Effect<'a>> {
    for entry in map["data"]["set"].as_array()? {
        let [value, verdicts] = entry.as_array()?.as_slice() else { return None };
        if !applies(&map["key"], packet) {
            return Some(Effect::GoesOn);
        }
        if is(&map["key"], value, packet, sets)? {
            let (name, value) = verdicts.as_object()?.iter().next()?;
            return verdict(name, value);
        }
    }
    Some(Effect::GoesOn)
}

/// `None` if it is not understood.
fn condition(matched: &Value, packet: &Packet, sets: &Sets<'_>) -> Option<bool> {
    let (left, right) = (&matched["left"], &matched["right"]);
    if !applies(left, packet) {
        return Some(false);
    }
    let is = is(left, right, packet, sets);
    match matched["op"].as_str()? {
        "==" | "in" => is,
        "!=" => is.map(|is| !is),
        _ => None,
    }
}

/// Whether the packet has what is asked about: a condition on another protocol is never met, negated or not.
fn applies(left: &Value, packet: &Packet) -> bool {
    if let Some([inner, ..]) = left["&"].as_array().map(Vec::as_slice) {
        return applies(inner, packet);
    }
    if let Some(parts) = left["concat"].as_array() {
        return parts.iter().all(|part| applies(part, packet));
    }
    match left["payload"]["protocol"].as_str() {
        Some("ip") => packet.source.is_ipv4(),
        Some("ip6") => packet.source.is_ipv6(),
        Some("tcp") => packet.protocol == Protocol::Tcp,
        Some("udp") => packet.protocol == Protocol::Udp,
        Some(
            "icmp" | "icmpv6" | "igmp" | "sctp" | "dccp" | "udplite" | "esp" | "ah" | "comp" | "gre" | "arp",
        ) => false,
        _ => true,
    }
}

fn is(left: &Value, right: &Value, packet: &Packet, sets: &Sets<'_>) -> Option<bool> {
    let payload = &left["payload"];
    if let (Some(protocol), Some(field)) = (payload["protocol"].as_str(), payload["field"].as_str()) {
        return match (protocol, field) {
            ("ip" | "ip6", "saddr") => match named(right) {
                Some(set) => sets.has(set),
                None => any(right, |one| has_address(one, packet.source)),
            },
            ("ip" | "ip6", "daddr") => any(right, |one| has_address(one, packet.destination?)),
            ("ip", "protocol") | ("ip6", "nexthdr") => any(right, |one| is_protocol(one, packet.protocol)),
            ("tcp" | "udp" | "th", "dport") => any(right, |one| has_port(one, packet.port)),
            ("tcp" | "udp" | "th", "sport") => any(right, |one| has_port(one, packet.source_port?)),
            _ => None,
        };
    }
    if left["ct"]["key"] == "state" {
        let state = match packet.state {
            State::New => "new",
            State::Established => "established",
            State::Untracked => "untracked",
        };
        return any(right, |one| Some(one.as_str()? == state));
    }
    if left["fib"]["result"] == "type" && each(&left["fib"]["flags"]).any(|flag| flag == "daddr") {
        return any(right, |one| Some(one.as_str()? == "local"));
    }
    let (family, version) = if packet.source.is_ipv4() { ("ipv4", "ip") } else { ("ipv6", "ip6") };
    match left["meta"]["key"].as_str()? {
        "l4proto" => any(right, |one| is_protocol(one, packet.protocol)),
        "nfproto" => any(right, |one| Some(one.as_str()? == family)),
        "protocol" => any(right, |one| Some(one.as_str()? == version)),
        "pkttype" => any(right, |one| Some(["host", "unicast"].contains(&one.as_str()?))),
        "iif" | "iifname" => any(right, |one| is_interface(one.as_str()?, packet)),
        _ => None,
    }
}

/// Whether it is so for one of them; not known unless it is known for all.
fn any(right: &Value, holds: impl Fn(&Value) -> Option<bool>) -> Option<bool> {
    let mut all_known = true;
    for one in each(right) {
        match holds(one) {
            Some(true) => return Some(true),
            Some(false) => {}
            None => all_known = false,
        }
    }
    all_known.then_some(false)
}

/// What stands in `{ }` or in a list, or the one that stands there alone; without timeouts and counters.
pub(super) fn each(value: &Value) -> impl Iterator<Item = &Value> {
    let several = value["set"].as_array().or_else(|| value.as_array());
    let all = several.map_or_else(|| std::slice::from_ref(value), Vec::as_slice).iter();
    all.map(|one| one.get("elem").and_then(|elem| elem.get("val")).unwrap_or(one))
}

/// A set that has a name.
fn named(right: &Value) -> Option<&str> {
    right.as_str()?.strip_prefix('@')
}

fn has_address(value: &Value, address: IpAddr) -> Option<bool> {
    let parse = |value: &Value| value.as_str()?.parse::<IpAddr>().ok();
    if let Some([first, last]) = value["range"].as_array().map(Vec::as_slice) {
        return Some((parse(first)?..=parse(last)?).contains(&address));
    }
    network(value).map(|network| network.contains(address))
}

fn has_port(value: &Value, port: u16) -> Option<bool> {
    port_range(value).map(|(first, last)| (first..=last).contains(&port))
}

fn port_range(value: &Value) -> Option<(u16, u16)> {
    let number = |value: &Value| u16::try_from(value.as_u64()?).ok();
    match value["range"].as_array().map(Vec::as_slice) {
        Some([first, last]) => Some((number(first)?, number(last)?)),
        _ => number(value).map(|port| (port, port)),
    }
}

fn is_protocol(value: &Value, protocol: Protocol) -> Option<bool> {
    match value.as_u64() {
        Some(number) => Some(number == u64::from(protocol.number())),
        None => Some(value.as_str()? == protocol.name()),
    }
}

fn is_interface(name: &str, packet: &Packet) -> Option<bool> {
    let Some(real) = &packet.interface else {
        return if name == "lo" { Some(packet.source.is_loopback()) } else { None };
    };
    Some(name.strip_suffix('*').map_or(real == name, |start| real.starts_with(start)))
}

/// The condition on the source, if it is of the address's version.
fn of_source(expression: &Value, address: IpAddr) -> Option<&Value> {
    let matched = expression.get("match")?;
    let payload = &matched["left"]["payload"];
    let version = if address.is_ipv4() { "ip" } else { "ip6" };
    (payload["protocol"] == version && payload["field"] == "saddr").then_some(matched)
}

/// The chains that a rule leads to.
pub(super) fn targets(rule: &[Value]) -> Vec<&str> {
    let mut found = vec![];
    for (name, value) in rule.iter().filter_map(Value::as_object).flatten() {
        let maps = value["data"]["set"].as_array().filter(|_| name == "vmap").into_iter().flatten();
        let verdicts = maps.filter_map(|entry| entry.get(1)?.as_object()).flatten();
        for (name, value) in verdicts.chain([(name, value)]) {
            if ["jump", "goto"].contains(&name.as_str()) {
                found.extend(value["target"].as_str());
            }
        }
    }
    found
}

/// The named set that an expression looks for the source in.
pub(super) fn source_set(expression: &Value, address: IpAddr) -> Option<&str> {
    named(&of_source(expression, address)?["right"])
}

/// Whether a rule that names the source of an address rejects; `None` if it does not refuse it.
pub(super) fn refuses_source(rule: &[Value], address: IpAddr, sets: &Sets<'_>) -> Option<bool> {
    let packet = Packet::udp(address, 0, []);
    let mut sources = rule.iter().filter_map(|expression| of_source(expression, address)).peekable();
    sources.peek()?;
    if !sources.all(|matched| condition(matched, &packet, sets) == Some(true)) {
        return None;
    }
    let verdicts = rule.iter().filter_map(Value::as_object).flatten();
    verdicts.filter_map(|(name, value)| verdict(name, value)).find_map(|verdict| match verdict {
        Effect::Refuses { rejects } => Some(rejects),
        _ => None,
    })
}

/// With what a rule asks of the packets that it refuses.
pub(super) fn described(rule: &[Value], mut refusal: Refusal) -> Refusal {
    for matched in rule.iter().filter_map(|expression| expression.get("match")) {
        let (left, right, negated) = (&matched["left"], &matched["right"], matched["op"] == "!=");
        let payload = &left["payload"];
        match (payload["protocol"].as_str(), payload["field"].as_str()) {
            (Some("ip" | "ip6"), Some("saddr")) => {
                refusal.about = About::Source;
                refusal.set = named(right).map(str::to_owned);
                refusal.network = if negated { None } else { network(right) };
                refusal.unless = negated;
            }
            (Some(protocol), Some("dport")) => {
                refusal.protocol = of_name(protocol).or(refusal.protocol);
                if let Some(ports) = each(right).map(port_range).collect()
                    && !negated
                {
                    refusal.ports = ports;
                }
            }
            _ if left["meta"]["key"] == "l4proto" && !negated => {
                let mut known = each(right).filter_map(|one| of_name(one.as_str()?));
                refusal.protocol = known.next().filter(|_| known.next().is_none());
            }
            _ => {}
        }
    }
    refusal
}

/// The one address or network that is named.
fn network(value: &Value) -> Option<IpNetwork> {
    match value.get("prefix") {
        None => value.as_str()?.parse::<IpAddr>().ok().map(IpNetwork::from),
        Some(prefix) => {
            let length = u8::try_from(prefix["len"].as_u64()?).ok()?;
            IpNetwork::new(prefix["addr"].as_str()?.parse().ok()?, length).ok()
        }
    }
}

fn of_name(name: &str) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp].into_iter().find(|protocol| protocol.name() == name)
}
