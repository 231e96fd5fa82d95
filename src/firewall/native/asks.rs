//! What a rule of nftables asks of a packet, as `nft -j` prints it, and what it does with it.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::text::{expression, limit};
use super::{About, Effect, Refusal, Sets};
use crate::firewall::path::{Holds, Packet, Protocol, State};

/// Whether a rule matches, and what it then does; `None` if it does not.
///
/// A condition that is not understood is taken as one of iptables is: it may hold, and most often does not. What hangs on a set whose
/// keys are not understood, nobody here knows.
pub(super) fn rule<'a>(rule: &'a [Value], packet: &Packet, sets: &Sets<'_>) -> (Option<Holds>, Effect<'a>) {
    let (mut unclear, mut chances) = (vec![], vec![]);
    let mut effect = Effect::GoesOn;
    for (name, value) in rule.iter().filter_map(Value::as_object).flatten() {
        match name.as_str() {
            "match" => match condition(value, packet, sets) {
                Some(true) => {}
                Some(false) => return (None, Effect::GoesOn),
                None if named(&value["right"]).is_some() => {
                    unclear.push(why(&value["right"], name, value, sets));
                }
                None => chances.push(Chance::of_match(value)),
            },
            // What it does for each key, the rule then hangs on.
            "set" | "map" | "meter" => {
                let each = each(&value["stmt"]).filter_map(Value::as_object).flatten();
                chances.extend(each.filter_map(|(name, value)| Chance::of_statement(name, value)));
            }
            "vmap" => {
                let found = entry(value, packet, sets);
                if found.is_none() {
                    unclear.push(why(&value["data"], name, value, sets));
                }
                effect = found.unwrap_or(Effect::Other(name));
            }
            // They count, or say or mark something.
            "counter" | "log" | "comment" | "mangle" | "notrack" | "last" => {}
            _ => match (verdict(name, value), Chance::of_statement(name, value)) {
                (Some(verdict), _) => effect = verdict,
                (None, Some(chance)) => chances.push(chance),
                (None, None) => unclear.push(why(&Value::Null, name, value, sets)),
            },
        }
    }
    let holds = if !unclear.is_empty() {
        Holds::Unclear { why: unclear.join(", and ") }
    } else if chances.is_empty() {
        Holds::Yes
    } else {
        let usually = chances.iter().all(|chance| chance.usually);
        let all: Vec<_> = chances.into_iter().map(|chance| chance.why).collect();
        Holds::Perhaps { why: all.join(", and "), usually }
    };
    (Some(holds), effect)
}

/// A condition that may hold.
struct Chance {
    /// On what it depends, in words.
    why: String,
    /// Whether it holds for one packet of a phone that behaves.
    usually: bool,
}

impl Chance {
    /// Of a condition that cannot be decided here.
    fn of_match(matched: &Value) -> Self {
        let negated = matched["op"] == "!=";
        let (left, right) = (&matched["left"], &matched["right"]);
        // Whether there is a way back to it, by the interface that it came by.
        if left["fib"]["result"] == "oif"
            && let Some(exists) = right.as_bool()
        {
            let usually = exists != negated;
            let why =
                if usually { "when there is a route back to it" } else { "when no route leads back to it" };
            return Self { why: why.to_owned(), usually };
        }
        // The port of a phone is any of those that nobody needs a privilege for.
        let is_wide = |(first, last): (u16, u16)| first <= 1024 && last == u16::MAX;
        let compared = compared(matched);
        let ports = compared.as_ref().unwrap_or(right);
        let wide = left["payload"]["field"] == "sport" && each(ports).filter_map(port_range).any(is_wide);
        Self { why: format!("depends on `{}`", expression("match", matched)), usually: wide != negated }
    }

    /// Of a statement that lets only so many by, which is what they are for; `None` if it is another.
    fn of_statement(name: &str, value: &Value) -> Option<Self> {
        let (most, over, come) = match name {
            "limit" => {
                let (rate, over) = limit(value);
                (rate, over, "come")
            }
            "ct count" => (format!("{} connections", value["val"]), value["inv"] == true, "are open"),
            "quota" => {
                let unit = value["val_unit"].as_str().unwrap_or("bytes");
                (format!("{} {unit}", value["val"]), value["inv"] == true, "have come")
            }
            _ => return None,
        };
        let more = if over { "when more" } else { "while no more" };
        Some(Self { why: format!("{more} than {most} {come}"), usually: !over })
    }
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
    let op = matched["op"].as_str()?;
    if let Some((mask, field)) = header_bits(left, packet) {
        return has_bits(op, field & mask?, right);
    }
    if let Some(range) = compared(matched) {
        return is(left, &range, packet, sets);
    }
    let is = is(left, right, packet, sets);
    match op {
        "==" | "in" => is,
        "!=" => is.map(|is| !is),
        _ => None,
    }
}

/// `>= 1024` as the range of ports that it is.
fn compared(matched: &Value) -> Option<Value> {
    let number = matched["right"].as_u64()?;
    let last = u64::from(u16::MAX);
    let (first, last) = match matched["op"].as_str()? {
        "<" => (0, number.checked_sub(1)?),
        "<=" => (0, number),
        ">" => (number.checked_add(1)?, last),
        ">=" => (number, last),
        _ => return None,
    };
    Some(serde_json::json!({ "range": [first, last] }))
}

/// Which bits of a header are asked about, `None` if that is not understood, and what the packet has there; of other fields nothing.
fn header_bits(left: &Value, packet: &Packet) -> Option<(Option<u64>, u64)> {
    let (field, mask) = match left["&"].as_array().map(Vec::as_slice) {
        Some([field, mask]) => (field, Some(mask)),
        _ => (left, None),
    };
    let payload = &field["payload"];
    match (payload["protocol"].as_str()?, payload["field"].as_str()?) {
        ("tcp", "flags") => Some((mask.map_or(Some(u64::MAX), bits), u64::from(packet.flags))),
        // Fragments are put together before. Whether it may be cut, nobody knows.
        ("ip", "frag-off") => Some((mask.and_then(bits).filter(|mask| mask & DONT_FRAGMENT == 0), 0)),
        _ => None,
    }
}

/// In the field of IPv4 that has the place of a fragment.
const DONT_FRAGMENT: u64 = 0x4000;

fn has_bits(op: &str, there: u64, right: &Value) -> Option<bool> {
    let is_one = || {
        if right["set"].is_array() {
            any(right, |one| Some(bits(one)? == there))
        } else {
            bits(right).map(|bits| bits == there)
        }
    };
    match op {
        "==" => is_one(),
        "!=" => is_one().map(|is| !is),
        // One of them is there; none is.
        "in" => bits(right).map(|bits| there & bits != 0),
        "!" => bits(right).map(|bits| there & bits == 0),
        ">" => right.as_u64().map(|number| there > number),
        _ => None,
    }
}

/// A number, a flag of TCP, or several of them in one.
fn bits(value: &Value) -> Option<u64> {
    const FLAGS: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"];
    if let Some(several) = value.as_array().or_else(|| value["|"].as_array()) {
        return several.iter().try_fold(0, |all, one| Some(all | bits(one)?));
    }
    match value.as_str() {
        Some(name) => FLAGS.iter().position(|flag| *flag == name).map(|at| 1 << at),
        None => value.as_u64(),
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
    // A field of a header of IPv6 that the packet does not have.
    if left["exthdr"]["field"].is_string() {
        return false;
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
    if let Some(parts) = left["concat"].as_array() {
        return any(right, |one| {
            let values = one["concat"].as_array().filter(|values| values.len() == parts.len())?;
            let parts = parts.iter().zip(values);
            let answers: Vec<_> = parts.map(|(part, value)| is(part, value, packet, sets)).collect();
            let is_known = answers.iter().all(Option::is_some) || answers.contains(&Some(false));
            is_known.then(|| !answers.contains(&Some(false)))
        });
    }
    if left["exthdr"]["name"].is_string() {
        return right.as_bool().map(|there| !there);
    }
    if left["ct"]["key"] == "state" {
        let state = match packet.state {
            State::New => "new",
            State::Established => "established",
            State::Untracked => "untracked",
        };
        return any(right, |one| Some(one.as_str()? == state));
    }
    if left["fib"]["result"] == "type" {
        let of = |side| each(&left["fib"]["flags"]).any(|flag| flag == side);
        let from_here = of("saddr") && packet.source.is_loopback();
        let is = if of("daddr") || from_here { "local" } else { "unicast" };
        // Its kind may also be that of a route which somebody made.
        let made = ["blackhole", "unreachable", "prohibit"];
        return any(right, |one| {
            let one = one.as_str()?;
            (is == "local" || !made.contains(&one)).then_some(one == is)
        });
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
