//! What is known of an address.

use super::super::facts::{Facts, InBan, InJail, InSets, Ledgered, Listed, OfAddress, Walk};
use super::super::undo::{Act, Undo};
use super::account::{agent, registrations};
use super::bans::{Held, accounts, held, ours, take_out, unban};
use super::rules::{Culprit, culprit, ports};
use super::{By, Check, Closed, Diagnosis, Said, Verdict};
use crate::bans::Jail;
use crate::firewall::path::{End, Protocol};
use crate::fusionpbx::event_guard;

pub(super) fn diagnose(facts: &Facts, of: &OfAddress) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    let case = Case { facts, of, sets: of.in_sets.as_ref().ok().cloned().unwrap_or_default() };
    let (check, mut closed, loose) = case.fail2ban();
    diagnosis.loose = loose;
    diagnosis.checks.push(check);
    for part in [Case::event_guard, Case::accounts] {
        let (check, more) = part(&case);
        closed.extend(more);
        diagnosis.checks.push(check);
    }
    diagnosis.checks.push(case.allow_lists());
    diagnosis.checks.push(case.seen());
    diagnosis.checks.push(registrations(facts, |device| format!("{}{}", device.account, agent(device))));
    for part in [Case::block_lists, Case::limits, Case::restrictions, Case::rules] {
        let (check, more) = part(&case);
        closed.extend(more);
        diagnosis.checks.push(check);
    }
    // What a packet meets first is what ends its way; of accounts, only some packets meet anything.
    let first = case.walks().find_map(|walk| culprit(&walk.path)).map(|culprit| culprit.by);
    closed.sort_by_key(|closed| (closed.by == By::Account, Some(closed.by) != first));
    let blocked = closed.iter().any(|closed| closed.account.is_none());
    diagnosis.closed = closed;
    if !blocked {
        diagnosis.despite = case.despite();
    }
    diagnosis
}

struct Case<'a> {
    facts: &'a Facts,
    of: &'a OfAddress,
    sets: InSets,
}

type Found = (Check, Vec<Closed>);

fn closed(by: By, said: Said) -> Closed {
    Closed {
        by,
        said,
        account: None,
        reach: None,
        ends: None,
        why: String::new(),
        lines: vec![],
        undo: vec![],
        hint: String::new(),
    }
}

fn verdict(said: &[Said], closed: &[Closed]) -> Verdict {
    match (said.is_empty(), closed.is_empty()) {
        (_, false) => Verdict::Blocks,
        (false, true) => Verdict::WouldBlock,
        (true, true) => Verdict::Nothing,
    }
}

impl<'a> Case<'a> {
    fn walks(&self) -> impl Iterator<Item = &'a Walk> {
        self.of.walks.as_deref().unwrap_or_default().iter()
    }

    /// Whether packets to this port are dropped, and if not, what lets them in; where nobody could ask, they are.
    fn is_closed(&self, (protocol, port): (Protocol, u16)) -> Result<(), String> {
        let Some(walk) = self.walks().find(|walk| (walk.protocol, walk.port) == (protocol, port)) else {
            return Ok(());
        };
        match walk.path.verdict.end() {
            _ if walk.path.verdict.is_blocked() => Ok(()),
            Some(End::Rule(step)) => Err(format!(
                "rule {} of {} ({}) lets its packets in before",
                step.number, step.chain, step.program
            )),
            Some(End::Policy { .. }) | None => Err("no rule drops its packets".to_owned()),
        }
    }

    /// fail2ban's jails, in the kernel and in its own words.
    fn fail2ban(&self) -> (Check, Vec<Closed>, Vec<Undo>) {
        const CHECK: &str = "fail2ban";
        let (facts, of) = (self.facts, self.of);
        let (mut said, mut all, mut loose) = (vec![], vec![], vec![]);
        let mut bans = held(facts);
        // A device's id closes nothing but the account: that is told of the accounts.
        for device in bans.extract_if(.., |held| held.id.contains('@')) {
            let blocked = |of: &Ledgered| device.id.parse() == Ok(of.block.offender.clone());
            if device.lasts() && !facts.ledgered.iter().flatten().any(blocked) {
                loose.push(unban(&facts.host, &device.jail, &device.id));
            }
        }
        for jail in of.in_jails.iter().flatten() {
            let bans: Vec<_> = bans.extract_if(.., |held| is_of(&jail.jail, &held.jail)).collect();
            let state = match &jail.reach {
                _ if !facts.host.enforces.bans => Err("mode is observe".to_owned()),
                None => Err("the jail has not started".to_owned()),
                Some(_) => self.is_closed(jail.probe),
            };
            self.in_jail(jail, &bans, state, &mut said, &mut all);
        }
        for ban in of.in_bans.iter().flatten().filter(|ban| !ban.is_event_guards()) {
            let name = ban.jail();
            let bans: Vec<_> = bans.extract_if(.., |held| held.jail.starts_with(name)).collect();
            let state = match &ban.rule.reach {
                None => Err(format!("no rule of INPUT leads to {}", ban.rule.chain)),
                Some(_) => self.is_closed(ban.probe),
            };
            self.in_chain(ban, &bans, state, &mut said, &mut all);
        }
        for ban in bans {
            self.elsewhere(&ban, &mut said, &mut all, &mut loose);
        }
        let unread =
            facts.held.is_err() || facts.remembered.is_err() || of.in_jails.is_err() || of.in_bans.is_err();
        let check = Check::new(CHECK, verdict(&said, &all), said).in_part(unread);
        (check, all, loose)
    }

    fn in_jail(
        &self,
        jail: &InJail,
        bans: &[Held<'_>],
        state: Result<(), String>,
        said: &mut Vec<Said>,
        all: &mut Vec<Closed>,
    ) {
        let now = self.facts.now;
        let record = bans.iter().find_map(|held| held.record);
        let since = record.map(|record| record.since);
        let until = jail.entry.left.map(|left| now + i64::from(left));
        let times = bans.first().map(Held::times).unwrap_or_default();
        let unknown = match &self.facts.held {
            Ok(Some(_)) if !bans.iter().any(|held| held.now == Some(true)) => {
                "; fail2ban does not have it any more: ringfence-ban sync takes it out"
            }
            _ => "",
        };
        let text = format!("jail {}{times}, in the set {}{unknown}", jail.jail, jail.set);
        let mut undo: Vec<Undo> = bans
            .iter()
            .filter(|held| held.lasts())
            .map(|held| unban(&self.facts.host, &held.jail, &held.id))
            .collect();
        undo.push(take_out(&self.facts.host, jail));
        let ban = Closed {
            reach: jail.reach.clone().filter(|reach| reach != "everything"),
            ends: until.is_none().then_some("for good"),
            lines: record.map(|record| record.lines.clone()).unwrap_or_default(),
            undo,
            ..closed(
                By::Fail2ban,
                Said::new(format!("fail2ban's jail {}", jail.jail)).since(since).until(until),
            )
        };
        note(state, Said::new(text).since(since).until(until), ban, said, all);
    }

    fn in_chain(
        &self,
        ban: &InBan,
        bans: &[Held<'_>],
        state: Result<(), String>,
        said: &mut Vec<Said>,
        all: &mut Vec<Closed>,
    ) {
        let host = &self.facts.host;
        let record = bans.iter().find_map(|held| held.record);
        let since = record.map(|record| record.since);
        let left = ban.entry.and_then(|entry| entry.left);
        let until =
            left.map(|left| self.facts.now + i64::from(left)).or(record.and_then(|record| record.until));
        let times = bans.first().map(Held::times).unwrap_or_default();
        let place = match &ban.rule.set {
            Some(set) => format!("in the set {set}"),
            None => format!("in the chain {} ({})", ban.rule.chain, ban.rule.program),
        };
        let lasting: Vec<_> = bans.iter().filter(|held| held.lasts()).collect();
        let left_over =
            if lasting.is_empty() { "; fail2ban does not know of it: it was left there" } else { "" };
        let undo = match (&ban.rule.set, ban.entry) {
            _ if !lasting.is_empty() => {
                lasting.iter().map(|held| unban(host, &held.jail, &held.id)).collect()
            }
            (Some(set), Some(entry)) => vec![forget(set, entry.network)],
            _ => vec![delete(&ban.rule, "fail2ban")],
        };
        let name = bans.first().map_or_else(|| ban.jail().to_owned(), |held| held.jail.clone());
        let text = format!("jail {name}{times}, {place}{left_over}");
        let block = Closed {
            reach: ban.rule.reach.clone().filter(|reach| reach != "all ports"),
            ends: until.is_none().then_some("for good"),
            lines: record.map(|record| record.lines.clone()).unwrap_or_default(),
            undo,
            ..closed(By::Fail2ban, Said::new(format!("fail2ban's jail {name}")).since(since).until(until))
        };
        note(state, Said::new(text).since(since).until(until), block, said, all);
    }

    /// What fail2ban bans and neither sets nor chains of iptables have.
    fn elsewhere(&self, ban: &Held<'_>, said: &mut Vec<Said>, all: &mut Vec<Closed>, loose: &mut Vec<Undo>) {
        let since = ban.record.map(|record| record.since);
        let until = ban.record.and_then(|record| record.until);
        let say = |what: &str| {
            Said::new(format!("jail {}{}, {what}", ban.jail, ban.times())).since(since).until(until)
        };
        let ours = self.of.jails.iter().any(|jail| is_of(jail, &ban.jail));
        match ban.now {
            // What was let go stands in the database until the next ban.
            Some(false) => {}
            Some(true) if ours => {
                said.push(say("not in its set; ringfence-ban sync puts it there"));
                loose.push(unban(&self.facts.host, &ban.jail, &ban.id));
            }
            Some(true) if self.of.in_bans.is_ok() => {
                let text = say("by an action that is neither of iptables nor of Ringfence");
                let block = Closed {
                    ends: until.is_none().then_some("for good"),
                    lines: ban.record.map(|record| record.lines.clone()).unwrap_or_default(),
                    undo: vec![unban(&self.facts.host, &ban.jail, &ban.id)],
                    ..closed(
                        By::Fail2ban,
                        Said::new(format!("fail2ban's jail {}", ban.jail)).since(since).until(until),
                    )
                };
                note(Ok(()), text, block, said, all);
            }
            Some(true) => said.push(say("the kernel could not be asked")),
            None if self.facts.held.is_ok() => {
                said.push(say("fail2ban does not run, and bans it again when it starts"));
            }
            None => said.push(say("by its database")),
        }
    }

    fn event_guard(&self) -> Found {
        const CHECK: &str = "event_guard";
        let of = self.of;
        let rows = match &of.event_guard {
            Ok(rows) => rows.as_deref().unwrap_or_default(),
            Err(_) => &[],
        };
        let (mut said, mut all) = (vec![], vec![]);
        for ban in of.in_bans.iter().flatten().filter(|ban| ban.is_event_guards()) {
            let row = rows.iter().find(|row| row.filter == ban.rule.chain);
            let text = format!(
                "in the chain {} ({}){}",
                ban.rule.chain,
                ban.rule.program,
                row.map(|row| format!("; {}", words(row))).unwrap_or_default()
            );
            let state = match &ban.rule.reach {
                None => Err(format!("no rule of INPUT leads to {}", ban.rule.chain)),
                Some(_) => self.is_closed(ban.probe),
            };
            let since = row.map(|row| row.since);
            let hint = row.filter(|row| row.status != "unblocked").map(|_| {
                "FusionPBX's page Status > Event Guard Logs still shows it: tick it there, and press Unblock".to_owned()
            });
            let block = Closed {
                reach: ban.rule.reach.clone().filter(|reach| reach != "all ports"),
                ends: Some("for good"),
                undo: vec![delete(&ban.rule, "event_guard")],
                hint: hint.unwrap_or_default(),
                ..closed(By::EventGuard, Said::new(format!("event_guard ({})", ban.rule.chain)).since(since))
            };
            // The same rule twice is one block, which takes two commands.
            match all.iter_mut().find(|other: &&mut Closed| other.said.text == block.said.text) {
                Some(other) => other.undo.extend(block.undo),
                None => note(state, Said::new(text).since(since), block, &mut said, &mut all),
            }
        }
        let nothing = said.is_empty();
        if nothing && let Some(row) = rows.first() {
            let text = match row.status.as_str() {
                "blocked" => format!("its log says blocked, but no rule of this host does: {}", words(row)),
                status => format!("its log says {status}: {}", words(row)),
            };
            said.push(Said::new(text).since(row.since));
        }
        let judged = if nothing && !said.is_empty() { Verdict::Known } else { verdict(&said, &all) };
        (Check::new(CHECK, judged, said).in_part(of.event_guard.is_err() || of.in_bans.is_err()), all)
    }

    fn accounts(&self) -> Found {
        accounts(self.facts)
    }

    /// Whether Ringfence's rules let it pass before they ask for lists, limits and restrictions.
    fn passes(&self) -> bool {
        self.of.ordered && (self.sets.allow.is_some() || self.sets.seen.is_some())
    }

    fn allow_lists(&self) -> Check {
        const CHECK: &str = "allow lists";
        let Ok(allowed) = &self.of.allowed else { return Check::unknown(CHECK) };
        let said: Vec<_> = allowed
            .iter()
            .map(|allowed| {
                let because =
                    if allowed.because.is_empty() { String::new() } else { format!(": {}", allowed.because) };
                Said::new(format!("{} as {}{because}", allowed.by, allowed.range)).until(allowed.until)
            })
            .collect();
        let judged = match (said.is_empty(), self.sets.allow.is_some() && self.of.ordered) {
            (_, true) => Verdict::LetsPass,
            (false, false) => Verdict::Known,
            (true, false) => Verdict::Nothing,
        };
        Check::new(CHECK, judged, said)
    }

    fn seen(&self) -> Check {
        const CHECK: &str = "seen";
        match self.sets.seen {
            None => Check::new(CHECK, Verdict::Nothing, []),
            Some(entry) => {
                let until = entry.left.map(|left| self.facts.now + i64::from(left));
                let judged = if self.of.ordered { Verdict::LetsPass } else { Verdict::Known };
                Check::new(CHECK, judged, [Said::new("in the set of addresses seen").until(until)])
            }
        }
    }

    /// The address is allowed for a time.
    fn allow(&self) -> Undo {
        let address = self.of.address.to_string();
        let argv = ours(&self.facts.host, "ringfence-allow", ["add", "--for", "1d", "--", &address]);
        Undo::new("allowed for a day", argv, Act::Allow)
    }

    fn block_lists(&self) -> Found {
        const CHECK: &str = "block lists";
        let (listed, because) = match &self.of.listed {
            Ok((listed, because)) => (listed.as_slice(), because.as_deref()),
            Err(_) => return (Check::unknown(CHECK), vec![]),
        };
        let mut said: Vec<_> = listed
            .iter()
            .map(|Listed { list, range, since, confirmed, observed }| {
                let age = confirmed
                    .map_or_else(String::new, |at| format!(", a list of {} ago", age(self.facts.now - at)));
                let observed = if *observed { ", only observed" } else { "" };
                Said::new(format!("{list} as {range}{age}{observed}")).since(*since)
            })
            .collect();
        let in_kernel = self.sets.block;
        let by_path =
            self.walks().any(|walk| culprit(&walk.path).is_some_and(|culprit| culprit.by == By::BlockList));
        let in_force = by_path
            || in_kernel.is_some() && self.of.ordered && self.facts.host.enforces.rules && !self.passes();
        if listed.is_empty() && in_kernel.is_some() {
            said.push(Said::new(
                "in the kernel's set, but on no list any more; ringfence-lists load takes it out",
            ));
        }
        if !in_force {
            let judged = match in_kernel {
                Some(_) if self.passes() => Verdict::PassedOver,
                Some(_) => Verdict::WouldBlock,
                None if said.is_empty() => Verdict::Nothing,
                None => Verdict::PassedOver,
            };
            let why = match in_kernel {
                Some(_) if self.passes() => None,
                Some(_) if !self.facts.host.enforces.rules => Some("mode is observe".to_owned()),
                Some(_) => {
                    Some("no rule asks for the lists; ringfence-firewall apply brings them in".to_owned())
                }
                None if said.is_empty() => None,
                None => Some(because.map_or_else(
                    || "not in the kernel; ringfence-lists load brings it in".to_owned(),
                    |because| format!("cut out of it: {because}"),
                )),
            };
            said.extend(why.map(Said::new));
            return (Check::new(CHECK, judged, said), vec![]);
        }
        let names: Vec<_> = listed.iter().filter(|listed| !listed.observed).collect();
        let text = match names.as_slice() {
            [] => "a block list".to_owned(),
            [one] => format!("the block list {} as {}", one.list, one.range),
            many => format!(
                "the block lists {}",
                many.iter().map(|listed| listed.list.as_str()).collect::<Vec<_>>().join(" and ")
            ),
        };
        let since = names.iter().map(|listed| listed.since).min();
        let block = Closed {
            ends: Some("as long as it is listed"),
            undo: vec![self.allow()],
            ..closed(By::BlockList, Said::new(text).since(since))
        };
        (Check::new(CHECK, Verdict::Blocks, said), vec![block])
    }

    fn limits(&self) -> Found {
        const CHECK: &str = "rate limits";
        let Some((set, entry)) = &self.sets.slamming else {
            return (Check::new(CHECK, Verdict::Nothing, []), vec![]);
        };
        let until = entry.left.map(|left| self.facts.now + i64::from(left));
        let mut said = Said::new(format!("exceeded a limit, in the set {set}")).until(until);
        if self.passes() {
            return (Check::new(CHECK, Verdict::PassedOver, [said]), vec![]);
        }
        if !(self.of.ordered && self.facts.host.enforces.rules) {
            said.text += if self.of.ordered { " (mode is observe)" } else { " (no rule asks for it)" };
            return (Check::new(CHECK, Verdict::WouldBlock, [said]), vec![]);
        }
        let block = Closed {
            reach: Some("SIP".to_owned()),
            ends: Some("as long as it goes on"),
            // The set has a netmask, and takes addresses alone.
            undo: vec![forget(set, entry.network.ip().into())],
            ..closed(By::RateLimit, Said::new("a rate limit").until(until))
        };
        (Check::new(CHECK, Verdict::Blocks, [said]), vec![block])
    }

    /// Who drops what is left, and on which ports.
    fn rest(&self, meant: impl Fn(&Walk, &Culprit) -> bool) -> Vec<(Culprit, Vec<&'a Walk>)> {
        let mut all: Vec<(Culprit, Vec<&Walk>)> = vec![];
        for walk in self.walks() {
            let Some(found) = culprit(&walk.rest).filter(|culprit| meant(walk, culprit)) else { continue };
            match all.iter_mut().find(|(other, _)| *other == found) {
                Some((_, walks)) => walks.push(walk),
                None => all.push((found, vec![walk])),
            }
        }
        all
    }

    fn restrictions(&self) -> Found {
        const CHECK: &str = "restrictions";
        // The same restriction has a rule for each protocol.
        let mut restricted: Vec<(String, Vec<&Walk>)> = vec![];
        for (culprit, walks) in self.rest(|_, culprit| culprit.by == By::Restriction) {
            let lists = culprit.lists.join(" or ");
            match restricted.iter_mut().find(|(other, _)| *other == lists) {
                Some((_, all)) => all.extend(walks),
                None => restricted.push((lists, walks)),
            }
        }
        let (mut said, mut all) = (vec![], vec![]);
        for (lists, walks) in restricted {
            let ports = ports(walks.into_iter());
            said.push(Said::new(format!("on none of {lists}, for whom alone {ports} is open")));
            all.push(Closed {
                reach: Some(ports),
                ends: Some("as long as it is on none of these lists"),
                undo: vec![self.allow()],
                ..closed(By::Restriction, Said::new(format!("a restriction to {lists}")))
            });
        }
        (Check::new(CHECK, verdict(&said, &all), said), all)
    }

    fn rules(&self) -> Found {
        const CHECK: &str = "other rules";
        if self.of.walks.is_err() {
            return (Check::unknown(CHECK), vec![]);
        }
        let (mut said, mut all) = (vec![], vec![]);
        // A port of other services that is closed to everybody is no block.
        for (culprit, walks) in
            self.rest(|walk, culprit| culprit.by == By::Rules && (walk.sip || culprit.names_source))
        {
            let ports = ports(walks.into_iter());
            said.push(Said::new(format!("{}: closes {ports}", culprit.rule)));
            let by_hand = Undo::new("the host's own rule is taken away", culprit.delete.clone(), Act::ByHand);
            all.push(Closed {
                reach: Some(ports),
                ends: Some("until somebody changes it"),
                undo: if culprit.names_source { vec![by_hand] } else { vec![] },
                hint: "the host's own rules are not Ringfence's to change".to_owned(),
                ..closed(By::Rules, Said::new(culprit.rule))
            });
        }
        (Check::new(CHECK, verdict(&said, &all), said), all)
    }

    /// Why it is not blocked, where one may think that it is.
    fn despite(&self) -> Vec<Said> {
        let mut said = vec![];
        if let Ok((listed, because)) = &self.of.listed
            && let Some(one) = listed.first()
        {
            let why = match because {
                Some(because) => format!("was cut out of it: {because}"),
                None if self.sets.allow.is_some() => "an allow list comes first".to_owned(),
                None if self.sets.seen.is_some() => {
                    "it is allowed, or was seen registered, and that comes first".to_owned()
                }
                None => "that is not in force".to_owned(),
            };
            said.push(Said::new(format!("It is on the block list {}, but {why}", one.list)));
        }
        if self.passes() && self.sets.slamming.is_some() {
            said.push(Said::new(
                "It exceeded a limit, but is allowed, or was seen registered, and that comes first",
            ));
        }
        said
    }
}

impl InBan {
    fn is_event_guards(&self) -> bool {
        self.rule.chain.starts_with("sip-auth-")
    }

    /// The jail's name, perhaps cut, by its chain or set.
    fn jail(&self) -> &str {
        let name = self.rule.set.as_deref().unwrap_or(&self.rule.chain);
        let name = name.strip_prefix("f2b-").or_else(|| name.strip_prefix("fail2ban-")).unwrap_or(name);
        if self.rule.set.is_some() { name.strip_suffix('6').unwrap_or(name) } else { name }
    }
}

/// Notes a ban: in force, or why not.
fn note(
    state: Result<(), String>,
    mut text: Said,
    block: Closed,
    said: &mut Vec<Said>,
    all: &mut Vec<Closed>,
) {
    match state {
        Ok(()) => all.push(block),
        Err(why) => text.text = format!("{}; not in force: {why}", text.text),
    }
    said.push(text);
}

/// Whether a jail of `ringfence-ban` is one of fail2ban's of this name.
fn is_of(ours: &str, name: &str) -> bool {
    Jail::names_of(ours).any(|known| known == name)
}

/// The rule is taken away.
fn delete(rule: &crate::firewall::Banned, whose: &str) -> Undo {
    let what = format!("the rule of {whose} in {} is taken away", rule.chain);
    Undo::new(what, rule.delete(), Act::Delete(rule.clone()))
}

/// The address is taken out of a set.
fn forget(set: &str, network: ipnetwork::IpNetwork) -> Undo {
    let whom =
        crate::address::single(network).map_or_else(|| network.to_string(), |address| address.to_string());
    let act = Act::Forget { set: set.to_owned(), network };
    Undo::new(format!("out of the set {set}"), ["ipset", "-exist", "del", set, &whom], act)
}

fn words(row: &event_guard::Entry) -> String {
    let event_guard::Entry { filter, extension, user_agent, status, host, .. } = row;
    let of =
        |name: &str, text: &str| if text.is_empty() { String::new() } else { format!(", {name} {text}") };
    format!(
        "v_event_guard_logs: {status} by {filter}{}{}{}",
        of("extension", extension),
        of("agent", user_agent),
        of("host", host)
    )
}

/// Seconds in the largest unit.
fn age(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m", seconds / 60),
        seconds @ 3_600..86_400 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}
