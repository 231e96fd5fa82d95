//! fail2ban's jails: in the kernel, and in its own words.

use super::super::bans::{Held, held, not_running, take_out, unban};
use super::super::places::{is_ban, sets};
use super::super::rules::program_and_table;
use super::super::{At, By, Check, Closed, Said, Verdict};
use super::{Case, closed, delete, forget, note, reach};
use crate::bans::Jail;
use crate::diagnosis::facts::{InBan, InJail, Ledgered};
use crate::diagnosis::undo::{Act, Undo};
use crate::fail2ban::Remembered;
use crate::firewall::native::Refusal;
use crate::firewall::path::Step;
use crate::firewall::{Banned, of_fail2ban};

impl Case<'_> {
    /// fail2ban's jails, in the kernel and in its own words.
    pub(super) fn fail2ban(&self) -> (Vec<Check>, Vec<Closed>, Vec<Undo>) {
        const CHECK: &str = "fail2ban";
        let (facts, of) = (self.facts, self.of);
        let (mut rows, mut all, mut loose) = (Rows::default(), vec![], vec![]);
        let mut bans = held(facts);
        // A device's id closes nothing but the account: that is told of the accounts.
        for device in bans.extract_if(.., |held| held.id.contains('@')) {
            let blocked = |of: &Ledgered| device.id.parse() == Ok(of.block.offender.clone());
            if device.lasts() && !facts.ledgered.iter().flatten().any(blocked) {
                loose.push(unban(facts, &device.jail, &device.id));
            }
        }
        // A jail of fail2ban's may have several sets or chains, one for each protocol.
        let mut elsewhere: Vec<&Held<'_>> = bans.iter().collect();
        for jail in of.in_jails.iter().flatten() {
            let bans: Vec<_> = bans.iter().filter(|held| is_of(&jail.jail, &held.jail)).collect();
            elsewhere.retain(|held| !is_of(&jail.jail, &held.jail));
            let state = match &jail.reach {
                _ if !facts.host.enforces.bans => Err("mode is observe".to_owned()),
                None => Err("the jail has not started".to_owned()),
                Some(_) => self.paused().and_then(|()| self.is_closed(jail.probe)),
            };
            let at = of.place(|step| sets(&step.rule).any(|set| set == jail.set));
            let (blocks, said, ban) = (state.is_ok(), &mut vec![], self.in_jail(jail, &bans));
            note_at(at.as_ref(), state, ban, said, &mut all);
            rows.add(at, blocks, said);
        }
        let in_chains: Vec<_> = of.in_bans.iter().flatten().filter(|ban| !ban.is_event_guards()).collect();
        let in_tables: Vec<_> =
            of.refusals.iter().flatten().filter_map(|refusal| Some((jail_of(refusal)?, refusal))).collect();
        elsewhere.retain(|held| !in_chains.iter().any(|ban| ban.is_of(&held.jail)));
        elsewhere.retain(|held| !in_tables.iter().any(|(jail, _)| is_of(jail, &held.jail)));
        // An action may name its chain as it likes: fail2ban must let go before its rule is gone.
        let is_named = |ban: &InBan| bans.iter().any(|held| ban.is_of(&held.jail));
        let strange = in_chains.iter().filter(|ban| !is_named(ban)).count();
        let may_be_there = |held: &Held<'_>| held.now == Some(true) && !self.is_ours(&held.jail);
        let strangers: Vec<_> = elsewhere.extract_if(.., |held| strange > 0 && may_be_there(held)).collect();
        for ban in in_chains {
            let mut bans: Vec<_> = bans.iter().filter(|held| ban.is_of(&held.jail)).collect();
            let name = bans.first().map_or_else(|| ban.jail().to_owned(), |held| held.jail.clone());
            let mut perhaps: &[&Held<'_>] = &[];
            if bans.is_empty() {
                match strangers.as_slice() {
                    [only] if strange == 1 => bans.push(only),
                    all => perhaps = all,
                }
            }
            let state = match &ban.rule.reach {
                None => Err(format!("no rule that packets meet leads to {}", ban.rule.chain)),
                Some(_) => self.is_closed(ban.probe),
            };
            let at = of.place(|step| ban.is_by(step));
            let (blocks, said, block) =
                (state.is_ok(), &mut vec![], self.in_chain(ban, &name, &bans, perhaps));
            note_at(at.as_ref(), state, block, said, &mut all);
            rows.add(at, blocks, said);
        }
        for (jail, refusal) in in_tables {
            let bans: Vec<_> = bans.iter().filter(|held| is_of(jail, &held.jail)).collect();
            let at = of.place(|step| step.program == "nft" && is_by(refusal, step));
            let (state, said) = (self.is_closed(refusal.into()), &mut vec![]);
            let (blocks, block) = (state.is_ok(), self.in_table(jail, refusal, &bans));
            note_at(at.as_ref(), state, block, said, &mut all);
            rows.add(at, blocks, said);
        }
        for ban in elsewhere {
            let said = &mut vec![];
            self.elsewhere(ban, said, &mut loose);
            rows.add(None, false, said);
        }
        let unread = facts.held.is_err()
            || facts.remembered.is_err()
            || of.in_jails.is_err()
            || of.in_bans.is_err()
            || of.refusals.is_err();
        if rows.0.is_empty() {
            let nothing = Check::new(CHECK, Verdict::Nothing, not_running(facts));
            return (vec![nothing.at(of.place(is_ban)).in_part(unread)], all, loose);
        }
        let mut checks: Vec<Check> = rows.0.into_iter().map(|row| row.check(CHECK)).collect();
        // What could not be asked is of no place.
        match checks.iter().position(|check| check.at.is_none()) {
            Some(at) => checks[at] = checks[at].clone().in_part(unread),
            None if unread => checks.push(Check::new(CHECK, Verdict::Nothing, []).in_part(true)),
            None => {}
        }
        (checks, all, loose)
    }

    fn in_jail(&self, jail: &InJail, bans: &[&Held<'_>]) -> (Said, Closed) {
        let now = self.facts.now;
        let record = bans.iter().find_map(|held| held.record);
        let since = record.map(|record| record.since);
        let until = jail.entry.left.map(|left| now + i64::from(left));
        let times = bans.first().map(|held| held.times()).unwrap_or_default();
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
            .map(|held| unban(self.facts, &held.jail, &held.id))
            .collect();
        undo.push(take_out(&self.facts.host, jail));
        let reach = jail.reach.clone().filter(|reach| reach != "everything");
        (Said::new(text).since(since).until(until), self.ban(&jail.jail, record, until, reach, undo))
    }

    /// A ban in a chain, or by its set. `perhaps`: bans that may be the same by another name.
    fn in_chain(&self, ban: &InBan, name: &str, bans: &[&Held<'_>], perhaps: &[&Held<'_>]) -> (Said, Closed) {
        let record = bans.iter().find_map(|held| held.record);
        let since = record.map(|record| record.since);
        let left = ban.entry.and_then(|entry| entry.left);
        let until =
            left.map(|left| self.facts.now + i64::from(left)).or(record.and_then(|record| record.until));
        let times = bans.first().map(|held| held.times()).unwrap_or_default();
        let Banned { program, table, chain, set, .. } = &ban.rule;
        let place = match set {
            Some(set) => format!("in the set {set}"),
            None => format!("in the chain {chain} ({})", program_and_table(program, table)),
        };
        let lasting = bans.iter().chain(perhaps).filter(|held| held.lasts());
        let mut undo: Vec<Undo> = lasting.map(|held| unban(self.facts, &held.jail, &held.id)).collect();
        let take_away = || match (&ban.rule.set, ban.entry) {
            (Some(set), Some(entry)) => forget(set, entry.network),
            _ => delete(&ban.rule, "fail2ban"),
        };
        let mut left_over = String::new();
        if undo.is_empty() {
            let (why, step) = self.left_over(take_away());
            left_over += why;
            undo.push(step);
        } else if !perhaps.is_empty() {
            let jails: Vec<&str> = perhaps.iter().map(|held| held.jail.as_str()).collect();
            left_over = format!("; perhaps of {}, which has no chain of its name", jails.join(" or "));
            let step = take_away();
            undo.push(Undo { what: format!("{}, if it is still there", step.what), ..step });
        }
        let text = format!("jail {name}{times}, {place}{left_over}");
        let reach = ban.rule.reach.clone().filter(|reach| reach != "all ports");
        (Said::new(text).since(since).until(until), self.ban(name, record, until, reach, undo))
    }

    /// A ban in a table of nftables.
    fn in_table(&self, jail: &str, refusal: &Refusal, bans: &[&Held<'_>]) -> (Said, Closed) {
        let record = bans.iter().find_map(|held| held.record);
        let since = record.map(|record| record.since);
        let until = record.and_then(|record| record.until);
        let name = bans.first().map_or(jail, |held| &held.jail);
        let lasting: Vec<_> = bans.iter().filter(|held| held.lasts()).collect();
        let (left_over, undo) = if lasting.is_empty() {
            let (why, step) = self.left_over(self.delete_element(refusal));
            (why, vec![step])
        } else {
            ("", lasting.iter().map(|held| unban(self.facts, &held.jail, &held.id)).collect())
        };
        let times = bans.first().map(|held| held.times()).unwrap_or_default();
        let text = format!("jail {name}{times}, {refusal}{left_over}");
        (Said::new(text).since(since).until(until), self.ban(name, record, until, reach(refusal), undo))
    }

    /// By a jail, which remembers it so; until then, or for good.
    fn ban(
        &self,
        jail: &str,
        record: Option<&Remembered>,
        until: Option<i64>,
        reach: Option<String>,
        undo: Vec<Undo>,
    ) -> Closed {
        let since = record.map(|record| record.since);
        Closed {
            reach,
            ends: until.is_none().then_some("for good"),
            lines: record.map(|record| record.lines.clone()).unwrap_or_default(),
            undo,
            hint: self.comes_back(record),
            ..closed(By::Fail2ban, Said::new(format!("fail2ban's jail {jail}")).since(since).until(until))
        }
    }

    /// Why something is there that no ban of fail2ban's accounts for, and what takes it away: by hand alone where fail2ban was not
    /// asked, which may still hold it.
    fn left_over(&self, step: Undo) -> (&'static str, Undo) {
        match (&self.facts.held, &self.facts.remembered) {
            (Ok(_), Ok(_)) => ("; fail2ban does not know of it: it was left there", step),
            _ => ("; whether fail2ban holds it is not known", Undo { act: Act::ByHand, ..step }),
        }
    }

    /// Whether a jail bans by `ringfence-ban`.
    fn is_ours(&self, jail: &str) -> bool {
        self.of.jails.iter().any(|ours| is_of(ours, jail))
    }

    fn delete_element(&self, Refusal { table, set, .. }: &Refusal) -> Undo {
        let (address, set) = (self.of.address, set.clone().unwrap_or_default());
        let element = format!("{{ {address} }}");
        let names = table.split_whitespace().chain([set.as_str(), &element]);
        let argv =
            ["nft", "delete", "element"].into_iter().chain(names).map(str::to_owned).collect::<Vec<_>>();
        let what = format!("out of the set {set} of nftables");
        Undo::new(what, argv, Act::DeleteElement { table: table.clone(), set: set.clone(), address })
    }

    /// What fail2ban's database has while it does not run.
    fn comes_back(&self, record: Option<&Remembered>) -> String {
        match (&self.facts.held, record) {
            (Ok(None), Some(record)) => format!(
                "fail2ban does not run, and bans {} again when it starts, unless it is then told to let go",
                record.id
            ),
            _ => String::new(),
        }
    }

    /// What fail2ban bans and no rule of this host does.
    fn elsewhere(&self, ban: &Held<'_>, said: &mut Vec<Said>, loose: &mut Vec<Undo>) {
        let since = ban.record.map(|record| record.since);
        let until = ban.record.and_then(|record| record.until);
        let say = |what: &str| {
            Said::new(format!("jail {}{}, {what}", ban.jail, ban.times())).since(since).until(until)
        };
        match ban.now {
            // What was let go stands in the database until the next ban.
            Some(false) => {}
            Some(true) if self.is_ours(&ban.jail) => {
                said.push(say("not in its set; ringfence-ban sync puts it there"));
                loose.push(unban(self.facts, &ban.jail, &ban.id));
            }
            Some(true) if self.of.in_bans.is_ok() && self.of.refusals.is_ok() => {
                said.push(say("fail2ban holds it, but no rule of its own was found on this host"));
                loose.push(unban(self.facts, &ban.jail, &ban.id));
            }
            Some(true) => said.push(say("the kernel could not be asked")),
            None if self.facts.held.is_ok() => {
                said.push(say("fail2ban does not run, and bans it again when it starts"));
            }
            None => said.push(say("by its database")),
        }
    }
}

/// Notes a ban that packets meet there.
fn note_at(
    at: Option<&At>,
    state: Result<Option<String>, String>,
    (text, block): (Said, Closed),
    said: &mut Vec<Said>,
    all: &mut Vec<Closed>,
) {
    note(state, text, Closed { at: at.cloned(), ..block }, said, all);
}

/// What is said at one place, and whether any of it blocks.
#[derive(Default)]
struct Rows(Vec<Row>);

struct Row {
    at: Option<At>,
    blocks: bool,
    said: Vec<Said>,
}

impl Rows {
    fn add(&mut self, at: Option<At>, blocks: bool, said: &mut Vec<Said>) {
        if said.is_empty() {
            return;
        }
        match self.0.iter_mut().find(|row| row.at == at) {
            Some(row) => {
                row.blocks |= blocks;
                row.said.append(said);
            }
            None => self.0.push(Row { at, blocks, said: std::mem::take(said) }),
        }
    }
}

impl Row {
    fn check(self, name: &'static str) -> Check {
        let judged = if self.blocks { Verdict::Blocks } else { Verdict::WouldBlock };
        Check::new(name, judged, self.said).at(self.at)
    }
}

/// Whether it is the rule that refuses.
fn is_by(refusal: &Refusal, step: &Step) -> bool {
    let asks = refusal.set.as_ref().is_none_or(|set| step.rule.contains(&format!("@{set}")));
    step.table == refusal.table && step.chain == refusal.chain && asks
}

impl InBan {
    /// Whether it is the rule, or is in its chain.
    pub(super) fn is_by(&self, step: &Step) -> bool {
        let asks_set = |set: &String| sets(&step.rule).any(|asked| asked == set);
        (&*step.program, &*step.table, &*step.chain)
            == (&*self.rule.program, self.rule.table, &*self.rule.chain)
            && self.rule.set.as_ref().is_none_or(asks_set)
    }

    /// Whether it is of this jail of fail2ban's. Names of chains have at most 28 characters, those of sets 31.
    fn is_of(&self, jail: &str) -> bool {
        let cut = self.rule.set.as_deref().unwrap_or(&self.rule.chain).len() >= 28;
        is_of(self.jail(), jail) || cut && jail.starts_with(self.jail())
    }

    /// The jail's name, perhaps cut, by its chain or set.
    fn jail(&self) -> &str {
        let name = self.rule.set.as_deref().unwrap_or(&self.rule.chain);
        let name = of_fail2ban(name).unwrap_or(name);
        let of_ipv6 = self.rule.set.is_some() && self.rule.program.starts_with("ip6");
        if of_ipv6 { name.strip_suffix('6').unwrap_or(name) } else { name }
    }
}

/// The jail that a rule of nftables is of, by its set, as fail2ban's own action names it.
pub(super) fn jail_of(refusal: &Refusal) -> Option<&str> {
    let set = refusal.set.as_deref().filter(|_| !refusal.unless)?;
    set.strip_prefix("addr-set-").or_else(|| set.strip_prefix("addr6-set-"))
}

/// Whether a jail of `ringfence-ban`, or the name of an action, is one of fail2ban's of this name.
fn is_of(ours: &str, name: &str) -> bool {
    Jail::names_of(ours).any(|known| known == name)
}
