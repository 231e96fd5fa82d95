//! What in the host's packet filter its administrator should know of: what works against bans or against us, and what others
//! do that looks like us.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use ipnetwork::IpNetwork;
use serde::Serialize;

use super::layout::INPUT;
use super::nft::{self, NftTable};
use super::order::PREFIX;
use super::saved::{Fate, Saved, SavedRule, Verdict, holds_bans};
use super::{Firewall, Layout, Table, Variant, Version};
use crate::evidence::{visible, visible_within};

/// How much of a rule, or of a list of names, is shown, in bytes.
const SHOWN: usize = 160;

/// Whether something is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Something does not work as it should, or will not: somebody should do something.
    Warning,
    /// Good to know; all may be as it should be.
    Note,
}

impl Severity {
    /// As in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// What a concern is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Bans do not meet what an ACCEPT above them lets pass.
    BanBelowAccept,
    /// A port that should be restricted is open to all.
    Unrestricted,
    /// Somebody is banned though he is allowed.
    AllowedBanned,
    /// Our rules do not meet what an ACCEPT above them lets pass.
    OursBelowAccept,
    /// The same jump to bans is there several times.
    DoubledBan,
    /// IPv4 is closed but for what rules accept, IPv6 is not.
    Ipv6Open,
    /// Both variants of iptables have rules.
    TwoVariants,
    /// Somebody else's rules are in chains that have our names.
    Handwritten,
    /// A reload of nftables takes everybody's rules away.
    FlushRuleset,
    /// Something could not be read, so that nothing is known about it.
    Unknown,
    /// What no rule forbids is let in.
    Open,
    /// There are tables of nftables beside those of iptables.
    Nftables,
    /// fail2ban bans in a table of nftables.
    Fail2banNftables,
    /// Docker forwards packets past INPUT.
    Docker,
    /// ufw is in use.
    Ufw,
    /// firewalld is in use.
    Firewalld,
}

impl Kind {
    /// As in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BanBelowAccept => "ban-below-accept",
            Self::Unrestricted => "unrestricted",
            Self::AllowedBanned => "allowed-banned",
            Self::OursBelowAccept => "ours-below-accept",
            Self::DoubledBan => "doubled-ban",
            Self::Ipv6Open => "ipv6-open",
            Self::TwoVariants => "two-variants",
            Self::Handwritten => "handwritten",
            Self::FlushRuleset => "flush-ruleset",
            Self::Unknown => "unknown",
            Self::Open => "open",
            Self::Nftables => "nftables",
            Self::Fail2banNftables => "fail2ban-nftables",
            Self::Docker => "docker",
            Self::Ufw => "ufw",
            Self::Firewalld => "firewalld",
        }
    }
}

/// Something about the host's packet filter that its administrator should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Concern {
    /// Whether something is to be done.
    pub severity: Severity,
    /// What it is about.
    pub kind: Kind,
    /// What is so, and where, for people.
    pub text: String,
    /// What to do about it: a command, or what to write where. Empty where nothing is to be done.
    pub remedy: String,
}

impl Concern {
    /// Something is to be done.
    #[must_use]
    pub fn warning(kind: Kind, text: impl AsRef<str>, remedy: impl AsRef<str>) -> Self {
        let (text, remedy) = (visible(text.as_ref()), visible(remedy.as_ref()));
        Self { severity: Severity::Warning, kind, text, remedy }
    }

    fn note(kind: Kind, text: impl AsRef<str>, remedy: impl AsRef<str>) -> Self {
        Self { severity: Severity::Note, ..Self::warning(kind, text, remedy) }
    }
}

impl Firewall {
    /// What the administrator should know, warnings first. `nftables_conf` is what a reload of nftables loads.
    ///
    /// The tables of nftables are those of this network namespace, now.
    #[must_use]
    pub fn concerns(&self, nftables_conf: &Path) -> Vec<Concern> {
        let mut unknown = vec![];
        let nft = nft::tables().unwrap_or_else(|error| {
            let text =
                format!("The tables of nftables cannot be listed, so nothing is said of them: {error}.");
            unknown.push(Concern::note(Kind::Unknown, text, "nft list tables"));
            vec![]
        });
        let conf = match std::fs::read(nftables_conf) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    let path = nftables_conf.display();
                    let text = format!("{path} cannot be read, so nothing is said of it: {error}.");
                    unknown.push(Concern::note(Kind::Unknown, text, format!("ls -l {path}")));
                }
                String::new()
            }
        };
        let conf = NftablesConf { path: nftables_conf, text: &conf };
        let mut concerns = find(self.variant, &self.tables, &nft, &conf);
        concerns.extend(unknown);
        concerns.sort_by_key(|concern| concern.severity);
        concerns
    }

    /// Whom fail2ban and `event_guard` ban in chains of iptables, each with the name of the chain, in order.
    #[must_use]
    pub fn banned(&self) -> Vec<(IpNetwork, String)> {
        let mut banned: Vec<_> = self.tables.iter().flat_map(|table| banned(&table.saved)).collect();
        banned.sort();
        banned.dedup();
        banned
    }
}

fn banned(saved: &Saved) -> impl Iterator<Item = (IpNetwork, String)> {
    let chains = saved.chains.iter().filter(|(name, _)| holds_bans(name));
    chains.flat_map(|(name, rules)| {
        let refused = rules.iter().filter(|rule| rule.verdict() == Some(Verdict::Refuse));
        refused.filter_map(move |rule| Some((rule.value("-s")?.parse().ok()?, name.clone())))
    })
}

/// What a reload of nftables loads; no text if it is not there.
struct NftablesConf<'a> {
    path: &'a Path,
    text: &'a str,
}

fn find(variant: Variant, tables: &[Table], nft: &[NftTable], conf: &NftablesConf<'_>) -> Vec<Concern> {
    let native: Vec<&NftTable> = nft.iter().filter(|table| !table.is_of_iptables()).collect();
    let mut concerns = vec![];
    for table in tables {
        concerns.extend(bans_below_accept(table));
        concerns.extend(ours_below_accept(table));
        concerns.extend(doubled_bans(table));
        concerns.extend(handwritten(table));
    }
    concerns.extend(two_variants(variant, tables));
    concerns.extend(open(tables, &native));
    if variant == Variant::Nft {
        concerns.extend(flush_ruleset(conf, &native));
    }
    concerns.extend(nftables(&native));
    concerns.extend(fail2ban_nftables(&native));
    concerns.extend(docker(tables, &native));
    concerns.extend(managers(tables, &native));
    concerns
}

/// Nor is our jump.
fn ours_below_accept(Table { program, saved }: &Table) -> Option<Concern> {
    let input = saved.rules(INPUT);
    let mut above = input.iter().enumerate().take_while(|(_, rule)| rule.tag.is_none());
    let (at, (_, accept)) =
        above.find_map(|(at, rule)| Some((at, accepting(saved, INPUT, rule, &mut BTreeSet::new())?)))?;
    let ours = input.iter().filter(|rule| rule.tag.is_some()).find_map(SavedRule::target)?;
    Some(Concern::warning(
        Kind::OursBelowAccept,
        format!(
            "In INPUT of {} our jump to {ours} stands below rule {}, `{}`: what that accepts never meets our rules.",
            program.name(),
            at + 1,
            visible_within(&accept.spec, SHOWN)
        ),
        "ringfence-firewall restore",
    ))
}

/// A ban is worth nothing to whom an ACCEPT above it lets pass; most often that is the connection which earned it.
fn bans_below_accept(Table { program, saved }: &Table) -> Option<Concern> {
    let input = saved.rules(INPUT);
    let (at, (chain, accept)) = input
        .iter()
        .enumerate()
        .find_map(|(at, rule)| Some((at, accepting(saved, INPUT, rule, &mut BTreeSet::new())?)))?;
    let (above, below) = (&input[..at], input.iter().enumerate().skip(at));
    let bans: Vec<_> = below
        .filter(|(_, rule)| is_active_ban(rule) && !above.iter().any(|other| other.spec == rule.spec))
        .collect();
    let (place, first) = *bans.first()?;
    let names = listed(bans.iter().filter_map(|(_, rule)| rule.ban()));
    let within = if chain == INPUT { String::new() } else { format!(", in its chain {chain},") };
    let program = program.name();
    let delete = command(&program, "-D", first, place + 1);
    let insert = insertion(&program, first);
    Some(Concern::warning(
        Kind::BanBelowAccept,
        format!(
            "In INPUT of {program} the bans of {names} stand below rule {}, which{within} has `{}`: what that accepts, as running \
             connections, no ban cuts off.",
            at + 1,
            visible_within(&accept.spec, SHOWN)
        ),
        format!("{delete}; {insert}"),
    ))
}

fn is_active_ban(rule: &SavedRule) -> bool {
    rule.is_ban() && !matches!(rule.verdict(), None | Some(Verdict::Accept | Verdict::Return))
}

/// The rule that accepts packets, and its chain: this one, or one in a chain that it leads to. One that accepts only what no ban is
/// meant for does not count: this host's own packets, those of chosen sources, and ICMP.
fn accepting<'a>(
    saved: &'a Saved,
    chain: &'a str,
    rule: &'a SavedRule,
    seen: &mut BTreeSet<&'a str>,
) -> Option<(&'a str, &'a SavedRule)> {
    let icmp = ["icmp", "ipv6-icmp", "icmpv6"];
    let harmless = rule.value("-i").is_some_and(|interface| interface == "lo")
        || rule.value("-s").is_some()
        || rule.value("--match-set").is_some()
        || rule.value("-p").is_some_and(|protocol| icmp.contains(&protocol.as_str()));
    if harmless || rule.tag.is_some() || rule.is_ban() {
        return None;
    }
    match rule.verdict()? {
        Verdict::Accept => Some((chain, rule)),
        Verdict::Jump(to) | Verdict::Goto(to) => {
            let (to, rules) = saved.chains.get_key_value(&to)?;
            if !seen.insert(to) {
                return None;
            }
            rules.iter().find_map(|rule| accepting(saved, to, rule, seen))
        }
        Verdict::Refuse | Verdict::Return => None,
    }
}

/// The same jump a second time costs time and bans nobody; `event_guard` adds its own at each start.
fn doubled_bans(Table { program, saved }: &Table) -> Option<Concern> {
    let input = saved.rules(INPUT);
    let mut places: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, rule) in input.iter().enumerate() {
        if rule.target().is_some_and(|target| holds_bans(&target)) {
            places.entry(&rule.spec).or_default().push(at);
        }
    }
    places.retain(|_, places| places.len() > 1);
    let program = program.name();
    let counts = places
        .values()
        .map(|places| format!("{} {} times", input[places[0]].target().unwrap_or_default(), places.len()));
    let counts = listed(counts);
    // From the end: the numbers of the others stay what they are.
    let last = places.values().map(|places| places[places.len() - 1]).max()?;
    let delete = command(&program, "-D", &input[last], last + 1);
    Some(Concern::warning(
        Kind::DoubledBan,
        format!(
            "INPUT of {program} has the same jump to {counts}: event_guard adds its own at each start, and each costs every \
             packet time. One is enough."
        ),
        delete,
    ))
}

fn handwritten(Table { program, saved }: &Table) -> Option<Concern> {
    let layout = Layout::nothing(PREFIX);
    let foreign = |rules: &[SavedRule]| rules.iter().filter(|rule| rule.tag.is_none()).count();
    let ours = saved.chains.iter().filter(|(name, _)| layout.owns(name));
    let found: Vec<_> =
        ours.map(|(name, rules)| (name, foreign(rules))).filter(|(_, count)| *count > 0).collect();
    let count: usize = found.iter().map(|(_, count)| count).sum();
    (count > 0).then(|| {
        let program = program.name();
        let names = listed(found.into_iter().map(|(name, _)| name.clone()));
        Concern::warning(
            Kind::Handwritten,
            format!(
                "The chain {names} of {program} has {} that Ringfence did not write, and will be replaced by Ringfence's own.",
                counted(count, "rule")
            ),
            format!("What is to stay belongs into a chain of another name: {program}-save -t filter | grep -E -e '-A (RINGFENCE|RF-)' shows it."),
        )
    })
}

fn two_variants(variant: Variant, tables: &[Table]) -> Option<Concern> {
    let foreign = |variant: Variant| -> usize {
        let tables = tables.iter().filter(|table| table.program.variant == variant);
        tables.map(|table| table.saved.foreign()).sum()
    };
    let (nft, legacy) = (foreign(Variant::Nft), foreign(Variant::Legacy));
    let other = match variant {
        Variant::Nft => Variant::Legacy,
        Variant::Legacy => Variant::Nft,
    };
    (nft > 0 && legacy > 0).then(|| {
        Concern::warning(
            Kind::TwoVariants,
            format!(
                "Two kinds of iptables are in use at once, and every packet must pass both: iptables-nft with {nft} rules and \
                 closed policies, iptables-legacy with {legacy}, Ringfence's not counted. Ringfence uses iptables-{variant}."
            ),
            format!(
                "Keep them in iptables-{variant} alone: see those of the other with iptables-{other}-save and ip6tables-{other}-save; then, \
                 once what is to stay is there: iptables-{other} -P INPUT ACCEPT; iptables-{other} -F; and the same of ip6tables-{other}"
            ),
        )
    })
}

/// A packet passes the tables of both variants: one that is closed is enough.
fn open(tables: &[Table], native: &[&NftTable]) -> Option<Concern> {
    let of = |version: Version| tables.iter().filter(move |table| table.program.version == version);
    let is_open = |version: Version| of(version).all(|table| table.saved.fate(INPUT) == Fate::Accepted);
    let there = |version: Version| of(version).next().is_some();
    // Only a table that sees them can close it.
    let but = if native.is_empty() {
        ""
    } else {
        " (The tables of nftables that are there too may still drop them.)"
    };
    let open: Vec<_> = [(Version::V4, "IPv4"), (Version::V6, "IPv6")]
        .into_iter()
        .filter(|(version, _)| there(*version) && is_open(*version))
        .collect();
    match open[..] {
        [] => None,
        [(Version::V6, _)] if there(Version::V4) => {
            let name =
                |version: Version| of(version).next().map(|table| table.program.name()).unwrap_or_default();
            let (closed, program) = (name(Version::V4), name(Version::V6));
            Some(Concern::warning(
                Kind::Ipv6Open,
                format!(
                    "IPv4 is closed but for what rules accept, IPv6 is open: INPUT of {program} neither has the policy DROP nor \
                     drops the rest at its end.{but}"
                ),
                format!(
                    "Give {program} the rules that IPv4 has (see them with {closed} -S INPUT): first those that accept ESTABLISHED \
                     connections, lo, all of ipv6-icmp and SSH. Make DROP the policy last, once SSH over IPv6 still gets in."
                ),
            ))
        }
        _ => Some(Concern::note(
            Kind::Open,
            format!(
                "What no rule forbids is let in, over {}: INPUT has the policy ACCEPT, or accepts the rest at its end. Ringfence \
                 drops whom it knows, and does not close what nobody closed.{but}",
                open.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(" and ")
            ),
            "",
        )),
    }
}

/// Debian's package comes with such a file. It does harm where it is loaded, and that is where its tables are there.
fn flush_ruleset(conf: &NftablesConf<'_>, native: &[&NftTable]) -> Option<Concern> {
    let lines = || conf.text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let statements = || lines().flat_map(|line| line.split([';', '{', '}']));
    let words = || statements().map(|statement| statement.split_whitespace().collect::<Vec<_>>());
    // Those of one family alone are not all.
    let flushes =
        |words: Vec<&str>| matches!(words[..], ["flush", "ruleset"] | ["flush", "ruleset", "ip" | "ip6"]);
    if !words().any(flushes) {
        return None;
    }
    let path = conf.path.display();
    let text = format!(
        "{path} has `flush ruleset`: a reload of nftables takes away all rules of iptables-nft, Ringfence's and fail2ban's too."
    );
    let declared = |words: Vec<&str>| match words[..] {
        ["table", family, name] => Some(format!("{family} {name}")),
        ["table", name] => Some(format!("ip {name}")),
        _ => None,
    };
    let tables: Vec<String> = words().filter_map(declared).collect();
    let loaded = tables.iter().any(|name| native.iter().any(|table| table.to_string() == *name));
    // Without anything in its place, each reload would add the same rules once more.
    let instead = if tables.is_empty() {
        "Take that line out of it".to_owned()
    } else {
        let each = tables.iter().map(|name| format!("`table {name}` and `delete table {name}`"));
        format!(
            "In its place write what empties the tables of that file alone, each on a line of its own: {}",
            listed(each)
        )
    };
    let remedy =
        format!("{instead}; or after each reload: ringfence-firewall restore; systemctl restart fail2ban");
    Some(if loaded {
        Concern::warning(Kind::FlushRuleset, text, remedy)
    } else {
        Concern::note(
            Kind::FlushRuleset,
            format!("{text} (None of its tables is there, so it may not be in use.)"),
            remedy,
        )
    })
}

fn nftables(native: &[&NftTable]) -> Option<Concern> {
    let others: Vec<_> = native.iter().filter(|table| !is_firewalld(table) && !is_fail2ban(table)).collect();
    (!others.is_empty()).then(|| {
        let names = listed(others.iter().map(ToString::to_string));
        Concern::note(
            Kind::Nftables,
            format!(
                "Beside iptables there are tables of nftables: {names}. What they drop stays dropped, whomever Ringfence allows, \
                 and what they accept still passes Ringfence's rules; `nft list ruleset` shows them."
            ),
            "",
        )
    })
}

fn fail2ban_nftables(native: &[&NftTable]) -> Option<Concern> {
    let tables: Vec<_> = native.iter().filter(|table| is_fail2ban(table)).collect();
    (!tables.is_empty()).then(|| {
        let names = listed(tables.iter().map(ToString::to_string));
        Concern::note(
            Kind::Fail2banNftables,
            format!(
                "fail2ban bans through nftables (table {names}): unless its action says otherwise, just before INPUT of iptables, \
                 at priority -1. Its bans hold whomever Ringfence allows, and whom they meet is not looked at here."
            ),
            "",
        )
    })
}

/// `f2b-table`, unless its `action.d/nftables.conf` was changed.
fn is_fail2ban(table: &NftTable) -> bool {
    holds_bans(&table.name)
}

fn is_firewalld(table: &NftTable) -> bool {
    table.name == "firewalld"
}

fn docker(tables: &[Table], native: &[&NftTable]) -> Option<Concern> {
    let chain = |name: &str| name == "DOCKER" || name.starts_with("DOCKER-");
    let there = has_chain(tables, chain) || native.iter().any(|table| table.name == "docker-bridges");
    there.then(|| {
        Concern::note(
            Kind::Docker,
            "Docker forwards packets for the published ports of containers, and these never pass INPUT: neither Ringfence's rules \
             nor bans in INPUT concern them. Rules for them belong into the chain DOCKER-USER.",
            "",
        )
    })
}

fn managers(tables: &[Table], native: &[&NftTable]) -> impl Iterator<Item = Concern> {
    let ufw = has_chain(tables, |name| name.starts_with("ufw-") || name.starts_with("ufw6-"));
    let firewalld = has_chain(tables, |name| name == "INPUT_ZONES" || name.starts_with("IN_public"))
        || native.iter().any(|table| is_firewalld(table));
    let found = [(ufw, Kind::Ufw, "ufw"), (firewalld, Kind::Firewalld, "firewalld")];
    found.into_iter().filter(|(there, ..)| *there).map(|(_, kind, name)| {
        Concern::note(
            kind,
            format!(
                "{name} manages the rules of this host, and Ringfence works beside it. A reload of {name} may take Ringfence's \
                 rules away; `ringfence-firewall restore`, which its timer runs every minute, puts them back."
            ),
            "",
        )
    })
}

fn has_chain(tables: &[Table], is_it: impl Fn(&str) -> bool) -> bool {
    tables.iter().any(|table| table.saved.chains.keys().any(|name| is_it(name)))
}

/// `-D INPUT ...` for somebody to type. A rule that a shell might take for something else is named by its number, from 1.
fn command(program: &str, option: &str, rule: &SavedRule, number: usize) -> String {
    if is_plain(&rule.spec) {
        format!("{program} {option} {INPUT} {}", rule.spec)
    } else {
        format!("{program} {option} {INPUT} {number}")
    }
}

fn insertion(program: &str, rule: &SavedRule) -> String {
    if is_plain(&rule.spec) {
        format!("{program} -I {INPUT} 1 {}", rule.spec)
    } else {
        "the same rule anew as number 1".to_owned()
    }
}

/// Whether a shell reads it as it is.
pub(super) fn is_plain(spec: &str) -> bool {
    spec.len() <= SHOWN && spec.chars().all(|c| c.is_ascii_alphanumeric() || " -_./,:=+@".contains(c))
}

/// The names, each once, with commas between them.
fn listed(names: impl Iterator<Item = String>) -> String {
    let mut seen = BTreeSet::new();
    let names: Vec<String> = names.filter(|name| seen.insert(name.clone())).collect();
    visible_within(&names.join(", "), SHOWN)
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
