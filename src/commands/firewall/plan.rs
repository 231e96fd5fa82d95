//! `ringfence-firewall plan`: what will be there, what differs, and what is odd.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;

use ipnetwork::IpNetwork;
use serde::Serialize;

use super::undo::Undo;
use super::wanted::Wanted;
use super::{Call, confirmed};
use crate::allow;
use crate::commands::pause;
use crate::commands::screen::{Columns, print, span};
use crate::config::Mode;
use crate::exit::Exit;
use crate::firewall::concerns::{Concern, Kind};
use crate::firewall::{Counters, Firewall, Layout, Tag, Version};

/// The command line of `plan`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print it as JSON
    #[arg(long)]
    json: bool,

    /// Print also what iptables-restore would be told
    #[arg(long)]
    text: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Plan {
    mode: &'static str,
    variant: &'static str,
    tracked: bool,
    state: String,
    rules: Vec<Line>,
    changes: Vec<Change>,
    warnings: Vec<Concern>,
}

/// A rule, as it will be in IPv4, in IPv6, or in both.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Line {
    chain: String,
    ipv4: bool,
    ipv6: bool,
    what: String,
    does: String,
    /// `null`: it is not there yet.
    packets: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Change {
    program: String,
    text: String,
}

pub(super) fn run(call: &Call, args: &Args) -> anyhow::Result<Exit> {
    let there = Firewall::read()?;
    let wanted = Wanted::new(&call.config, &there, call.now)?;
    let changes = there.plan(pause::look(&call.config), |version| wanted.layout(version));
    let plan = Plan {
        mode: match call.config.firewall_mode() {
            Mode::Enforce => "enforce",
            Mode::Observe => "observe",
        },
        variant: there.variant().name(),
        tracked: wanted.tracked(),
        state: state(call)?,
        rules: lines([Version::V4, Version::V6].map(|version| wanted.layout(version)), &there.counters()),
        changes: changes.into_iter().map(|(program, text)| Change { program, text }).collect(),
        warnings: warnings(call, &there, &wanted),
    };
    print(args.json, &plan, || render(&plan, args.text))?;
    Ok(Exit::Yes)
}

/// What is open that should not be, what works against us, and who is banned though he is allowed.
fn warnings(call: &Call, there: &Firewall, wanted: &Wanted) -> Vec<Concern> {
    let open = wanted.unrestricted().into_iter();
    let open = open.map(|text| Concern::warning(Kind::Unrestricted, text, "ringfence-lists refresh"));
    let allowed = |(network, chain): (IpNetwork, String)| {
        let list = allow::find(&call.config.state_dir, network.ip(), call.now).ok()??;
        let network = spelled(network);
        let text = format!(
            "{network} is banned in {chain}, though {list} allows it, and stays so until it is let go."
        );
        Some(Concern::warning(Kind::AllowedBanned, text, format!("ringfence release {network}")))
    };
    let banned = there.banned().into_iter().filter_map(allowed);
    open.chain(banned).chain(there.concerns(Path::new("/etc/nftables.conf"))).collect()
}

/// One address without its prefix.
fn spelled(network: IpNetwork) -> String {
    let whole = if network.is_ipv4() { 32 } else { 128 };
    if network.prefix() == whole { network.ip().to_string() } else { network.to_string() }
}

fn state(call: &Call) -> anyhow::Result<String> {
    let mut state = match Undo::read(call)? {
        Some(undo) => {
            let left = undo.until - call.now.as_second();
            format!("applied, and waits for its confirmation, for {} more", span(left))
        }
        None if confirmed::read(call)?.is_some() => "applied and confirmed".to_owned(),
        None => "not applied".to_owned(),
    };
    if let Some(paused) = pause::words(&call.config) {
        state += &[". ", &paused].concat();
    }
    Ok(state)
}

/// The rules of both families, the same ones once.
fn lines([v4, v6]: [Layout; 2], counters: &HashMap<Tag, Counters>) -> Vec<Line> {
    let mut lines: Vec<Line> = vec![];
    for (layout, version) in [(&v4, Version::V4), (&v6, Version::V6)] {
        let hooks = layout.hooks.iter().map(|hook| ("INPUT", &hook.rule));
        let rules =
            layout.chains.iter().flat_map(|chain| chain.rules.iter().map(|rule| (chain.name.as_str(), rule)));
        // Behind the last line that both have, so that the order holds.
        let mut at = 0;
        for (chain, rule) in hooks.chain(rules) {
            let (ipv4, ipv6) = (version == Version::V4, version == Version::V6);
            let packets = counters.get(&rule.tag()).map(|counters| counters.packets);
            let line = Line {
                chain: chain.to_owned(),
                ipv4,
                ipv6,
                what: rule.words().to_owned(),
                does: rule.does(),
                packets,
            };
            let same =
                |there: &Line| !(there.ipv6 && ipv6) && there.chain == chain && there.what == line.what;
            match lines.iter().skip(at).position(same) {
                Some(ahead) if ipv6 => {
                    at += ahead;
                    lines[at].ipv6 = true;
                    lines[at].packets = total(lines[at].packets, packets, rule.tag(), [&v4, &v6]);
                }
                _ => lines.insert(at, line),
            }
            at += 1;
        }
    }
    lines
}

/// A rule that is the same in both families has one tag, and its counters are those of both.
fn total(one: Option<u64>, other: Option<u64>, tag: Tag, layouts: [&Layout; 2]) -> Option<u64> {
    let has = |layout: &Layout| {
        layout.chains.iter().flat_map(|chain| &chain.rules).any(|rule| rule.tag() == tag)
            || layout.hooks.iter().any(|hook| hook.rule.tag() == tag)
    };
    if layouts.into_iter().all(has) {
        return one;
    }
    one.zip(other).map(|(one, other)| one + other).or(one).or(other)
}

fn render(plan: &Plan, with_text: bool) -> String {
    let mut text = String::new();
    let tracked = if plan.tracked { "connections are tracked" } else { "connections are not tracked" };
    for (key, value) in [
        ("mode", plan.mode),
        ("rules", &format!("iptables-{}, {tracked}", plan.variant)),
        ("state", &plan.state),
    ] {
        let _ = writeln!(text, "{key:<10} {value}");
    }
    let mut columns = Columns::new(&["CHAIN", "WHAT", "DOES", "FAMILY", "PACKETS"], &[4]);
    let mut last = "";
    for line in &plan.rules {
        let chain = if line.chain == last { "" } else { &line.chain };
        last = &line.chain;
        let family = match (line.ipv4, line.ipv6) {
            (true, false) => "IPv4",
            (false, true) => "IPv6",
            _ => "both",
        };
        let packets = line.packets.map_or_else(|| "-".to_owned(), |packets| packets.to_string());
        columns.row([chain.to_owned(), line.what.clone(), line.does.clone(), family.to_owned(), packets]);
    }
    text += "\n";
    text += &columns.render();
    text += "\n";
    if plan.changes.is_empty() {
        text += "The kernel holds all of it already.\n";
    }
    for Change { program, text: change } in &plan.changes {
        if with_text {
            let _ = write!(text, "# {program} --noflush --counters\n{change}");
        } else {
            let begins = |starts: &[&str]| {
                change.lines().filter(|line| starts.iter().any(|start| line.contains(start))).count()
            };
            let (new, gone) = (begins(&["-A ", "-I "]), begins(&["-D ", "-F "]));
            let _ = writeln!(
                text,
                "{program} would bring in {new} rules, and take away {gone}; see them with --text."
            );
        }
    }
    if !plan.warnings.is_empty() {
        text += "\n";
    }
    for Concern { severity, text: words, remedy, .. } in &plan.warnings {
        let _ = writeln!(text, "{}: {words}", severity.name());
        if !remedy.is_empty() {
            let _ = writeln!(text, "  -> {remedy}");
        }
    }
    text
}
