//! Whether what a rule asks holds for a packet.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use memchr::memmem;
use serde::Serialize;

use super::packet::{Packet, Protocol, State};
use super::rule::{Condition, Module, Parts};
use super::{Member, Members, Side};

/// Whether a rule matches a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holds {
    /// It does.
    Yes,
    /// It depends.
    Perhaps {
        /// On what, in words: "when more than 20/min come".
        why: String,
        /// Whether it matches one packet of a phone that behaves.
        usually: bool,
    },
    /// Nobody here knows.
    Unclear {
        /// On what it depends, in words.
        why: String,
    },
}

/// The same, for a condition, which may also not hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    No,
    Perhaps { why: String, usually: bool },
    Unclear { why: String },
}

impl From<bool> for Answer {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

impl Answer {
    fn seldom(why: impl Into<String>) -> Self {
        Self::Perhaps { why: why.into(), usually: false }
    }

    fn usually(why: impl Into<String>) -> Self {
        Self::Perhaps { why: why.into(), usually: true }
    }

    fn negated(self, negated: bool) -> Self {
        match self {
            same if !negated => same,
            Self::Unclear { why } => Self::Unclear { why },
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Perhaps { why, usually } => {
                let why = why.strip_prefix("not ").map_or_else(|| format!("not {why}"), str::to_owned);
                Self::Perhaps { why, usually: !usually }
            }
        }
    }

    /// One of two.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Yes, _) | (_, Self::Yes) => Self::Yes,
            (Self::No, other) | (other, Self::No) => other,
            (unclear @ Self::Unclear { .. }, _) | (_, unclear @ Self::Unclear { .. }) => unclear,
            (Self::Perhaps { why, usually }, Self::Perhaps { why: more, usually: too }) => {
                Self::Perhaps { why: format!("{why}, or {more}"), usually: usually || too }
            }
        }
    }
}

/// `None` if the rule does not match.
pub(super) fn rule(parts: &Parts, packet: &Packet, members: &mut Members<'_>) -> Option<Holds> {
    let (mut reasons, mut unclear): (Vec<String>, Vec<String>) = (vec![], vec![]);
    let mut all_usually = true;
    for one in &parts.modules {
        for answer in module(one, packet, members) {
            match answer {
                Answer::Yes => {}
                Answer::No => return None,
                Answer::Perhaps { why, usually } => {
                    reasons.push(why);
                    all_usually &= usually;
                }
                Answer::Unclear { why } => unclear.push(why),
            }
        }
    }
    Some(if !unclear.is_empty() {
        Holds::Unclear { why: unclear.join(", and ") }
    } else if reasons.is_empty() {
        Holds::Yes
    } else {
        Holds::Perhaps { why: reasons.join(", and "), usually: all_usually }
    })
}

/// The answers to what it asks, all of which must be yes.
fn module(module: &Module, packet: &Packet, members: &mut Members<'_>) -> Vec<Answer> {
    let each = |answer: &mut dyn FnMut(&Condition) -> Answer| {
        let answer = |condition| answer(condition).negated(condition.negated);
        module.conditions.iter().map(answer).collect()
    };
    match module.name.as_str() {
        "" => each(&mut |condition| general(condition, packet)),
        // They only count, or say something.
        "comment" | "nfacct" => vec![],
        "tcp" | "udp" => each(&mut |condition| header(condition, packet)),
        "multiport" => each(&mut |condition| multiport(condition, packet)),
        "set" => set(module, members),
        "conntrack" | "state" => each(&mut |condition| state(condition, packet)),
        "string" => vec![string(module, packet)],
        "addrtype" => each(&mut address_type),
        "iprange" => each(&mut |condition| range(condition, packet)),
        "pkttype" => each(&mut |condition| (condition.value() == "unicast").into()),
        "time" => vec![time(module, packet)],
        "limit" => vec![limit(module)],
        "hashlimit" => vec![hashlimit(module)],
        "connlimit" => vec![connlimit(module)],
        "recent" => vec![recent(module)],
        _ => vec![unknown(module)],
    }
}

/// Nobody here knows what it asks.
fn unknown(module: &Module) -> Answer {
    let words = format!("depends on `{module}`");
    if module.is_negated() { Answer::usually(words) } else { Answer::seldom(words) }
}

/// The same of a condition, before it is negated.
fn unknown_condition(condition: &Condition) -> Answer {
    let plain =
        Condition { negated: false, option: condition.option.clone(), values: condition.values.clone() };
    Answer::seldom(format!("depends on `{plain}`"))
}

/// What stands before the modules.
fn general(condition: &Condition, packet: &Packet) -> Answer {
    let value = condition.value();
    match condition.option.as_str() {
        "-s" => network(value, Some(packet.source), condition),
        "-d" => destination(value, packet, condition),
        "-p" => {
            let (name, number) = (packet.protocol.name(), packet.protocol.number().to_string());
            (["all", "0", name].contains(&value) || value == number).into()
        }
        "-i" => interface(value, packet),
        // Of packets for this host only those of IPv4 in pieces come with it, and they are put together before.
        "-f" => Answer::No,
        // Packets for this host leave by none.
        "-o" => (value == "+").into(),
        _ => unknown_condition(condition),
    }
}

fn network(text: &str, address: Option<IpAddr>, condition: &Condition) -> Answer {
    match (text.parse::<IpNetwork>(), address) {
        (Ok(network), Some(address)) => network.contains(address).into(),
        (Ok(network), None) if network.prefix() == 0 => Answer::Yes,
        _ => unknown_condition(condition),
    }
}

fn destination(text: &str, packet: &Packet, condition: &Condition) -> Answer {
    if packet.destination.is_some() {
        return network(text, packet.destination, condition);
    }
    match text.parse::<IpNetwork>() {
        // No phone sends to everybody.
        Ok(network) if network.ip().is_multicast() || text.starts_with("255.255.255.255") => Answer::No,
        Ok(network) if network.prefix() == 0 => Answer::Yes,
        _ => Answer::seldom(format!("to {text}")),
    }
}

fn interface(name: &str, packet: &Packet) -> Answer {
    let is = |real: &str| name.strip_suffix('+').map_or(real == name, |start| real.starts_with(start));
    match &packet.interface {
        Some(real) => is(real).into(),
        None if name == "+" => Answer::Yes,
        None if packet.source.is_loopback() => is("lo").into(),
        None if name == "lo" => Answer::No,
        None => Answer::seldom(format!("over the interface {name}")),
    }
}

/// TCP's and UDP's own.
fn header(condition: &Condition, packet: &Packet) -> Answer {
    match condition.option.as_str() {
        "--dport" => ports(condition.value(), Some(packet.port), condition),
        "--sport" => ports(condition.value(), packet.source_port, condition),
        "--syn" => tcp_flags("FIN,SYN,RST,ACK", "SYN", packet, condition),
        "--tcp-flags" => match &condition.values[..] {
            [mask, set] => tcp_flags(mask, set, packet, condition),
            _ => unknown_condition(condition),
        },
        _ => unknown_condition(condition),
    }
}

fn multiport(condition: &Condition, packet: &Packet) -> Answer {
    let value = condition.value();
    match condition.option.as_str() {
        "--dports" => ports(value, Some(packet.port), condition),
        "--sports" => ports(value, packet.source_port, condition),
        "--ports" => {
            ports(value, Some(packet.port), condition).or(ports(value, packet.source_port, condition))
        }
        _ => unknown_condition(condition),
    }
}

/// `5060,5080:5090`, for a port that may be unknown.
fn ports(text: &str, port: Option<u16>, condition: &Condition) -> Answer {
    let ranges: Option<Vec<(u16, u16)>> = text.split(',').map(port_range).collect();
    match (ranges, port) {
        (Some(ranges), Some(port)) => {
            ranges.iter().any(|(first, last)| (*first..=*last).contains(&port)).into()
        }
        // The port of a phone is any of those that nobody needs a privilege for.
        (Some(ranges), None) if ranges.iter().any(|(first, last)| *first <= 1024 && *last == u16::MAX) => {
            Answer::usually(format!("from port {text}"))
        }
        (Some(_), None) => Answer::seldom(format!("from port {text}")),
        (None, _) => unknown_condition(condition),
    }
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once(':').unwrap_or((text, text));
    Some((first.parse().ok()?, last.parse().ok()?))
}

fn tcp_flags(mask: &str, set: &str, packet: &Packet, condition: &Condition) -> Answer {
    if packet.protocol != Protocol::Tcp {
        return Answer::No;
    }
    match (flags(mask), flags(set)) {
        (Some(mask), Some(set)) => (packet.flags & mask == set).into(),
        _ => unknown_condition(condition),
    }
}

fn flags(names: &str) -> Option<u8> {
    names.split(',').try_fold(0, |flags, name| {
        let at = ["FIN", "SYN", "RST", "PSH", "ACK", "URG"].iter().position(|known| *known == name);
        Some(match (name, at) {
            ("ALL", _) => 0x3f,
            ("NONE", _) => flags,
            (_, Some(at)) => flags | 1 << at,
            (_, None) => return None,
        })
    })
}

fn set(module: &Module, members: &mut Members<'_>) -> Vec<Answer> {
    let of = |condition: &Condition| {
        let ("--match-set", [name, sides]) = (condition.option.as_str(), &condition.values[..]) else {
            return unknown_condition(condition).negated(condition.negated);
        };
        let sides: Option<Vec<Side>> = sides.split(',').map(Side::parse).collect();
        let Some(sides) = sides else { return unknown_condition(condition).negated(condition.negated) };
        let why = match members(name, &sides) {
            Ok(Member::Is(member)) => return Answer::from(member).negated(condition.negated),
            Ok(Member::Depends(why)) => {
                return Answer::seldom(format!("depends {why}")).negated(condition.negated);
            }
            Ok(Member::NotKnown(why)) => format!("the set {name}, which {why}"),
            Err(error) => format!("the set {name}, which cannot be asked: {error:#}"),
        };
        Answer::Unclear { why }
    };
    // It asks more of the set: its counters, or the kind of entry.
    let more = |condition: &&Condition| condition.option != "--match-set";
    let more = module
        .conditions
        .iter()
        .filter(more)
        .map(|condition| Answer::seldom(format!("depends on `{condition}`")));
    let mut answers: Vec<Answer> =
        module.conditions.iter().filter(|condition| condition.option == "--match-set").map(of).collect();
    answers.extend(more);
    answers
}

fn state(condition: &Condition, packet: &Packet) -> Answer {
    if !matches!(condition.option.as_str(), "--ctstate" | "--state") {
        return unknown_condition(condition);
    }
    let states: Vec<&str> = condition.value().split(',').collect();
    let its = match packet.state {
        State::New => "NEW",
        State::Established => "ESTABLISHED",
        State::Untracked => "UNTRACKED",
    };
    let rare: Vec<&str> =
        states.iter().filter(|state| ["UNTRACKED", "SNAT", "DNAT"].contains(state)).copied().collect();
    match (states.contains(&its), rare.is_empty()) {
        (true, _) => Answer::Yes,
        (false, true) => Answer::No,
        (false, false) => Answer::seldom(format!("when it is {}", rare.join(" or "))),
    }
}

/// Packets for this host are for one of its addresses.
fn address_type(condition: &Condition) -> Answer {
    match condition.option.as_str() {
        "--dst-type" => condition.value().split(',').any(|kind| kind == "LOCAL").into(),
        _ => unknown_condition(condition),
    }
}

fn range(condition: &Condition, packet: &Packet) -> Answer {
    let address = match condition.option.as_str() {
        "--src-range" => Some(packet.source),
        "--dst-range" => packet.destination,
        _ => None,
    };
    let ends = || {
        let (first, last) = condition.value().split_once('-')?;
        Some((first.parse::<IpAddr>().ok()?, last.parse::<IpAddr>().ok()?))
    };
    match (ends(), address) {
        (Some((first, last)), Some(address)) => (first <= address && address <= last).into(),
        _ => unknown_condition(condition),
    }
}

/// Dates, in UTC; the last second still counts. What asks for more than dates, or for the kernel's own zone, is not known.
fn time(module: &Module, packet: &Packet) -> Answer {
    let second = |text: &str| {
        Some(text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
    };
    let end = |option, none| module.value(option).map_or(Some(none), second);
    let (Some(first), Some(last)) = (end("--datestart", i64::MIN), end("--datestop", i64::MAX)) else {
        return unknown(module);
    };
    let Some(now) = packet.time.filter(|_| !module.has("--kerneltz")) else { return unknown(module) };
    let only_dates =
        module.conditions.iter().all(|asked| ["--datestart", "--datestop"].contains(&&*asked.option));
    match (first..=last).contains(&now.as_second()) {
        false => Answer::No,
        true if only_dates => Answer::Yes,
        true => unknown(module),
    }
}

/// Text in the packet, `xt_string`.
fn string(module: &Module, packet: &Packet) -> Answer {
    let condition = |option: &&Condition| matches!(option.option.as_str(), "--string" | "--hex-string");
    let Some(text) = module.conditions.iter().find(condition) else { return unknown(module) };
    let pattern =
        if text.option == "--string" { Some(text.value().as_bytes().to_vec()) } else { hex(text.value()) };
    let offset =
        |option| module.value(option).map_or(Some(None), |text| text.parse::<usize>().ok().map(Some));
    let (Some(pattern), Some(from), Some(to)) = (pattern, offset("--from"), offset("--to")) else {
        return unknown(module);
    };
    let (from, to) = (from.unwrap_or(0), to.unwrap_or(usize::from(u16::MAX)));
    let pattern = Text { pattern, ignores_case: module.has("--icase"), from, to };
    let answers = packet.content_at().iter().map(|at| pattern.is_in(&packet.content, *at));
    // All ways to lay it out must agree.
    let answer = answers.reduce(|one, other| {
        if one == other { one } else { Answer::usually("depending on the options of TCP before the text") }
    });
    answer.unwrap_or(Answer::No).negated(text.negated)
}

struct Text {
    pattern: Vec<u8>,
    ignores_case: bool,
    /// Bytes from the header of IP.
    from: usize,
    to: usize,
}

impl Text {
    /// In content that begins so many bytes behind the beginning of the header of IP.
    fn is_in(&self, content: &[u8], at: usize) -> Answer {
        let searched = content.get(self.from.saturating_sub(at)..).unwrap_or_default();
        let found = if self.ignores_case {
            memmem::find(&searched.to_ascii_lowercase(), &self.pattern.to_ascii_lowercase())
        } else {
            memmem::find(searched, &self.pattern)
        };
        let Some(found) = found else { return Answer::No };
        let begins = self.from.max(at) + found;
        if begins + self.pattern.len() <= self.to {
            Answer::Yes
        } else if begins <= self.to {
            // Since Linux 6.3 the end counts too.
            Answer::seldom(format!("depends on the kernel, as the text goes beyond byte {}", self.to))
        } else {
            Answer::No
        }
    }
}

/// `sip|3a 20|x`: bytes in hexadecimal between bars.
fn hex(text: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![];
    for (at, part) in text.split('|').enumerate() {
        if at % 2 == 0 {
            bytes.extend(part.bytes());
            continue;
        }
        let digits: Vec<u8> = part.bytes().filter(|byte| *byte != b' ').collect();
        for pair in digits.chunks(2) {
            bytes.push(u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?);
        }
    }
    Some(bytes)
}

fn limit(module: &Module) -> Answer {
    let rate = module.value("--limit").unwrap_or("3/hour");
    let burst = module.value("--limit-burst").unwrap_or("5");
    Answer::usually(format!("while no more than {rate} come (burst {burst})"))
}

fn hashlimit(module: &Module) -> Answer {
    let mode = module.value("--hashlimit-mode").unwrap_or_default();
    let of = if mode.split(',').any(|part| part == "srcip") { " from the address" } else { "" };
    let burst = module.value("--hashlimit-burst").unwrap_or("5");
    let words = |rate: &str, more: &str| format!("{more} than {rate} come{of} (burst {burst})");
    let by = |option: &str| module.conditions.iter().find(|condition| condition.option == option);
    if let Some(above) = by("--hashlimit-above") {
        Answer::seldom(words(above.value(), "when more")).negated(above.negated)
    } else if let Some(upto) = by("--hashlimit-upto").or_else(|| by("--hashlimit")) {
        Answer::usually(words(upto.value(), "while no more")).negated(upto.negated)
    } else {
        unknown(module)
    }
}

fn connlimit(module: &Module) -> Answer {
    let by = |option: &str| module.conditions.iter().find(|condition| condition.option == option);
    if let Some(above) = by("--connlimit-above") {
        let words = format!("when more than {} connections are open", above.value());
        Answer::seldom(words).negated(above.negated)
    } else if let Some(upto) = by("--connlimit-upto") {
        let words = format!("while no more than {} connections are open", upto.value());
        Answer::usually(words).negated(upto.negated)
    } else {
        unknown(module)
    }
}

fn recent(module: &Module) -> Answer {
    let name = module.value("--name").unwrap_or("DEFAULT");
    let asks = ["--rcheck", "--update", "--remove"];
    let by = |condition: &&Condition| asks.contains(&condition.option.as_str());
    if let Some(asked) = module.conditions.iter().find(by) {
        let mut words = format!("when it is in the list {name} of `recent`");
        for (option, unit) in [("--hitcount", "times"), ("--seconds", "seconds")] {
            if let Some(value) = module.value(option) {
                let joined = if option == "--seconds" { "within " } else { "" };
                words = format!("{words} {joined}{value} {unit}");
            }
        }
        Answer::seldom(words).negated(asked.negated)
    } else if let Some(set) = module.conditions.iter().find(|condition| condition.option == "--set") {
        Answer::Yes.negated(set.negated)
    } else {
        unknown(module)
    }
}
