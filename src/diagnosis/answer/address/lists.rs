//! What comes behind the bans: lists, limits, restrictions, and the host's own rules.

use super::super::places::{asks, is_ordered};
use super::super::rules::{About, Culprit, culprit, in_full, ports, program_and_table};
use super::super::{By, Check, Closed, Said, Verdict};
use super::{Case, Found, but, closed, forget, placed, verdict};
use crate::address;
use crate::diagnosis::facts::{Listed, Walk};
use crate::diagnosis::undo::{Act, Undo};
use crate::firewall::path::{End, Path, Step};
use crate::kernel_sets::Role;
use crate::times::span;

/// What undoes a rule of the host's own that is about the address alone.
const TAKEN_AWAY: &str = "the host's own rule is taken away";

/// What is said of them.
const OWN: &str = "the host's own rules are not Ringfence's to change";

impl<'a> Case<'a> {
    pub(super) fn block_lists(&self) -> Found {
        placed(self.of.place(|step| asks(step, Role::Blocked)), self.of_block_lists())
    }

    fn of_block_lists(&self) -> Found {
        const CHECK: &str = "block lists";
        let (listed, because) = match &self.of.listed {
            Ok((listed, because)) => (listed.as_slice(), because.as_deref()),
            Err(_) => return (Check::unknown(CHECK), vec![]),
        };
        let mut said: Vec<_> = listed
            .iter()
            .map(|Listed { list, range, since, confirmed, observed }| {
                let age = confirmed
                    .map_or_else(String::new, |at| format!(", a list of {} ago", span(self.facts.now - at)));
                let observed = if *observed { ", only observed" } else { "" };
                Said::new(format!("{list} as {range}{age}{observed}")).since(*since)
            })
            .collect();
        let in_kernel = self.sets.block;
        if listed.is_empty() && in_kernel.is_some() {
            said.push(Said::new(
                "in the kernel's set, but on no list any more; ringfence-lists load takes it out",
            ));
        }
        if !self.closes(By::BlockList, |walk| &walk.listed) {
            let unknown = self.of.walks.is_err() && in_kernel.is_some();
            let judged = match in_kernel {
                Some(_) if self.passes() => Verdict::PassedOver,
                Some(_) => Verdict::WouldBlock,
                None if said.is_empty() => Verdict::Nothing,
                None => Verdict::PassedOver,
            };
            let why = match in_kernel {
                Some(_) if self.passes() => None,
                Some(_) if unknown => None,
                Some(_) => Some(format!("not in force: {}", self.why_not(|walk| &walk.listed))),
                None if said.is_empty() => None,
                None => Some(because.map_or_else(
                    || "not in the kernel; ringfence-lists load brings it in".to_owned(),
                    |because| format!("cut out of it: {because}"),
                )),
            };
            said.extend(why.map(Said::new));
            return (Check::new(CHECK, judged, said).in_part(self.of.in_sets.is_err() || unknown), vec![]);
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
            reach: but(None, self.open(|walk| &walk.listed)),
            ends: Some("as long as it is listed"),
            undo: vec![self.allow()],
            ..closed(By::BlockList, Said::new(text).since(since))
        };
        (Check::new(CHECK, Verdict::Blocks, said), vec![block])
    }

    pub(super) fn limits(&self) -> Found {
        let at = self.of.place(|step| asks(step, Role::Slamming));
        let limited = || self.of.place(|step| is_ordered(step) && step.rule.contains("-m hashlimit"));
        placed(at.or_else(limited), self.of_limits())
    }

    fn of_limits(&self) -> Found {
        const CHECK: &str = "rate limits";
        if self.of.in_sets.is_err() {
            return (Check::unknown(CHECK), vec![]);
        }
        let Some((set, entry)) = &self.sets.slamming else {
            return (Check::new(CHECK, Verdict::Nothing, []), vec![]);
        };
        let until = entry.left.map(|left| self.facts.now + i64::from(left));
        let mut said = Said::new(format!("exceeded a limit, in the set {set}")).until(until);
        if self.passes() {
            return (Check::new(CHECK, Verdict::PassedOver, [said]), vec![]);
        }
        if self.of.walks.is_err() {
            return (Check::new(CHECK, Verdict::NotKnown, [said]).in_part(true), vec![]);
        }
        if !self.closes(By::RateLimit, |walk| &walk.limited) {
            let why = self.why_not(|walk| &walk.limited);
            said.text = format!("{}; not in force: {why}", said.text);
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

    /// Who drops packets by these paths, and on which ports.
    fn culprits(
        &self,
        path: impl Fn(&Walk) -> &Path,
        meant: impl Fn(&Walk, &Culprit) -> bool,
    ) -> Vec<(Culprit, Vec<&'a Walk>)> {
        let mut all: Vec<(Culprit, Vec<&Walk>)> = vec![];
        for walk in self.walks() {
            let Some(found) = culprit(path(walk)).filter(|culprit| meant(walk, culprit)) else { continue };
            match all.iter_mut().find(|(other, _)| *other == found) {
                Some((_, walks)) => walks.push(walk),
                None => all.push((found, vec![walk])),
            }
        }
        all
    }

    pub(super) fn restrictions(&self) -> Found {
        const CHECK: &str = "restrictions";
        if self.of.walks.is_err() {
            return (Check::unknown(CHECK), vec![]);
        }
        // The same restriction has a rule for each protocol.
        let mut restricted: Vec<(String, Vec<&Walk>)> = vec![];
        for (culprit, walks) in self.culprits(|walk| &walk.rest, |_, culprit| culprit.by == By::Restriction) {
            let lists = culprit.lists.join(" or ");
            match restricted.iter_mut().find(|(other, _)| *other == lists) {
                Some((_, all)) => all.extend(walks),
                None => restricted.push((lists, walks)),
            }
        }
        let (mut said, mut all): (Vec<Said>, Vec<Closed>) = (vec![], vec![]);
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
        let at = self.of.place(|step| asks(step, Role::Restricted));
        placed(at, (Check::new(CHECK, verdict(&said, &all), said), all))
    }

    /// The host's own rules, and whatever else drops its packets that nothing of `others` accounts for; and what lets them in.
    pub(super) fn rules(&self, others: &[Closed]) -> (Vec<Check>, Vec<Closed>) {
        const CHECK: &str = "other rules";
        if self.of.walks.is_err() {
            return (vec![Check::unknown(CHECK)], vec![]);
        }
        let (mut checks, mut all) = (vec![], vec![]);
        // A port of other services that is closed to everybody is no block.
        let is_block = |walk: &Walk, culprit: &Culprit| walk.sip || culprit.about != About::Everybody;
        let own = self
            .culprits(|walk| &walk.rest, |walk, culprit| culprit.by == By::Rules && is_block(walk, culprit));
        let is_known = |culprit: &Culprit| {
            let whole = others.iter().filter(|closed| closed.account.is_none());
            whole.map(|closed| closed.by).any(|by| by == culprit.by)
                || own.iter().any(|(own, _)| own == culprit)
        };
        let more = self.culprits(
            |walk| &walk.path,
            |walk, culprit| !is_known(culprit) && (culprit.by != By::Rules || is_block(walk, culprit)),
        );
        for (culprit, walks) in own.iter().chain(&more).cloned() {
            let at = self.of.end(walks[0].end_of(&culprit));
            let reach = if self.is_all(&culprit, &walks) { None } else { Some(ports(walks.into_iter())) };
            let ports = reach.as_deref().unwrap_or("all ports");
            let said = Said::new(format!("{}: closes {ports}", culprit.rule));
            checks.push(Check::new(CHECK, Verdict::Blocks, [said]).at(at.clone()));
            all.push(Closed {
                at,
                reach,
                ends: Some("until somebody changes it"),
                undo: self.by_hand(&culprit).into_iter().collect(),
                hint: if culprit.is_ours() { String::new() } else { OWN.to_owned() },
                ..closed(culprit.by, Said::new(culprit.rule))
            });
        }
        checks.extend(self.opened().into_iter().map(|(end, walks)| {
            let rule = match end {
                End::Rule(step) => in_full(step),
                End::Policy { program, table, chain } => {
                    format!("the policy of {chain} ({})", program_and_table(program, table))
                }
            };
            let said = Said::new(format!("{rule}, for {}", ports(walks.into_iter())));
            Check::new(CHECK, Verdict::LetsIn, [said]).at(self.of.end(end))
        }));
        for doubt in self.in_doubt() {
            let said = Said::new(doubt.to_string());
            checks.push(Check::new(CHECK, Verdict::NotKnown, [said]).at(self.of.named_in(doubt.why)));
        }
        if checks.is_empty() {
            checks.push(Check::new(CHECK, Verdict::Nothing, []));
        }
        (checks, all)
    }

    /// Whether a rule about the address closes all ports, as far as was tried: what is open to everybody tells no more of a rule that
    /// closes what no other lets in.
    fn is_all(&self, Culprit { about, step, .. }: &Culprit, closed: &[&Walk]) -> bool {
        const PORTS: [&str; 5] = ["dport", "dports", "sport", "sports", "ports"];
        let is_port = |word: &str| PORTS.contains(&word.trim_start_matches('-'));
        let names_ports = |step: &Step| step.rule.split_whitespace().any(is_port);
        *about != About::Everybody
            && step.as_ref().is_some_and(|step| !names_ports(step))
            && closed.len() == self.walks().count()
    }

    /// What lets SIP in where nothing of ours, and no ban, is in the way; ours is told elsewhere.
    fn opened(&self) -> Vec<(&'a End, Vec<&'a Walk>)> {
        let mut all: Vec<(&End, Vec<&Walk>)> = vec![];
        for walk in self.walks().filter(|walk| walk.sip && walk.rest.verdict.is_accepted()) {
            let Some(end) = walk.rest.verdict.end() else { continue };
            let ours = matches!(end, End::Rule(step) if step.tag.is_some());
            match all.iter_mut().find(|(other, _)| *other == end) {
                _ if ours => {}
                Some((_, walks)) => walks.push(walk),
                None => all.push((end, vec![walk])),
            }
        }
        all
    }
}

impl Walk {
    /// Where it ends by this culprit: by all rules, or by those that are left.
    fn end_of(&self, culprit: &Culprit) -> &End {
        let ends = |path: &Path| super::super::rules::culprit(path).as_ref() == Some(culprit);
        let path = if ends(&self.rest) { &self.rest } else { &self.path };
        path.verdict.end().expect("a culprit ends it")
    }
}

impl Case<'_> {
    /// What lets the address in where a rule of the host's own drops it, and changes nothing for anybody else.
    fn by_hand(&self, Culprit { about, step, .. }: &Culprit) -> Option<Undo> {
        let step = step.as_ref().filter(|step| step.tag.is_none())?;
        match about {
            About::Everybody => None,
            About::Address => Some(Undo::new(TAKEN_AWAY, step.delete()?, Act::ByHand)),
            About::Others(others) => {
                let argv = step.let_in_before(self.of.address)?;
                let what = format!("it alone is let in above the host's own rule, which is about {others}");
                Some(Undo::new(what, argv, Act::ByHand))
            }
        }
    }

    /// A rule about the address alone may be what an action made for fail2ban in a chain of its own choice, as `ufw` does: who is let
    /// go there is rid of it.
    pub(super) fn left_to_fail2ban(&self, rules: &mut [Closed], loose: &mut Vec<Undo>) {
        let own =
            rules.iter_mut().filter(|closed| matches!(&*closed.undo, [undo] if undo.what == TAKEN_AWAY));
        let own: Vec<_> = own.collect();
        let is_it = |undo: &Undo| match &undo.act {
            Act::Unban { id, .. } => address::parse_text(id) == Some(self.of.address),
            _ => false,
        };
        if own.is_empty() {
            return;
        }
        let bans: Vec<Undo> = loose.extract_if(.., |undo| is_it(undo)).collect();
        for closed in own.into_iter().filter(|_| !bans.is_empty()) {
            let by_hand = std::mem::replace(&mut closed.undo, bans.clone());
            let lines: Vec<String> = by_hand.iter().map(Undo::line).collect();
            closed.hint = format!(
                "fail2ban bans it as well, and may have made the rule; if it stays behind that, it is the host's own: {}",
                lines.join("; ")
            );
        }
    }
}
