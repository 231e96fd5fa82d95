//! One run: ask the sources that are due, guard what they send, and put the lists together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use jiff::Timestamp;

use super::fetch::Args;
use super::{TOOL, protection, untold};
use crate::config::Config;
use crate::config::lists::{Kind, List, ListName, Source};
use crate::evidence::Decision;
use crate::exit::Exit;
use crate::feeds::apiban;
use crate::feeds::compile::{self, Compiled, Outcome};
use crate::feeds::copy::{Copy, ENDING};
use crate::feeds::due::{is_due, least_pause};
use crate::feeds::fetch::Fetched;
use crate::feeds::guard::{self, Hit, Protected};
use crate::feeds::status::Status;
use crate::feeds::store::Store;
use crate::feeds::web::Fault;
use crate::registrations::{self, Registry};

mod carriers;
mod download;

/// The lists put together, in the store.
pub(super) const COMPILED: &str = "compiled";

/// A crash may leave one such file of a list.
const UNFINISHED: &str = ".copy.new";

/// The last good copies.
pub(super) type Copies = BTreeMap<ListName, Arc<Copy>>;

/// What one run did with a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was not its turn.
    NotAsked,
    /// Its source has the same.
    Unchanged,
    /// Its source has something new.
    Updated,
    /// What its source has is not taken.
    Refused(String),
}

/// One run, before anything of it is kept.
pub(super) struct Session<'a> {
    config: &'a Config,
    store: &'a Store,
    pub(super) now: Timestamp,
    /// As in the settings, and the carriers.
    pub(super) lists: BTreeMap<ListName, List>,
    /// The last good copies, before and after this run.
    pub(super) before: Copies,
    pub(super) after: Copies,
    /// What was damaged, and is as good as none.
    pub(super) lost: Vec<String>,
    pub(super) fates: BTreeMap<ListName, Fate>,
    pub(super) status: Status,
    remembered: carriers::Remembered,
    pub(super) compiled: Compiled,
    /// The lists from which others are cut out than in the last run.
    cut_anew: Vec<(ListName, Vec<Hit>)>,
    registered: registrations::Found,
}

impl<'a> Session<'a> {
    /// Asks the sources whose turn it is.
    pub(super) fn ask(
        config: &'a Config,
        store: &'a Store,
        args: &Args,
        now: Timestamp,
    ) -> anyhow::Result<Self> {
        let carriers = carriers::database(config, store);
        let lists = with_carriers(config, carriers.is_some());
        if let Some(unknown) = args.only.iter().find(|name| !lists.contains_key(*name)) {
            let names: Vec<&str> = lists.keys().map(ListName::as_str).collect();
            bail!("there is no list {unknown}; the settings have: {}", names.join(", "));
        }
        let (status, damaged) = Status::read(store);
        let mut status = Status { lists: status.lists, ..Status::default() };
        status.lists.retain(|name, _| lists.contains_key(name));
        let (before, mut lost) = read_copies(store, &lists, u32::try_from(now.as_second()).unwrap_or(0));
        lost.extend(damaged);
        status.notes.clone_from(&lost);
        let mut session = Self {
            config,
            store,
            now,
            after: before.clone(),
            before,
            lost,
            fates: lists.keys().map(|name| (name.clone(), Fate::NotAsked)).collect(),
            lists,
            status,
            remembered: carriers::Remembered::default(),
            compiled: Compiled::default(),
            cut_anew: vec![],
            registered: registrations::Found::default(),
        };
        session.ask_sources(args, carriers)?;
        Ok(session)
    }

    fn ask_sources(
        &mut self,
        args: &Args,
        carriers: Option<anyhow::Result<crate::postgres::Target>>,
    ) -> anyhow::Result<()> {
        let turn = self.lists.iter().filter(|(name, list)| self.has_its_turn(name, list, args));
        let orders = turn
            .map(|(name, list)| download::Order {
                name: name.clone(),
                list: list.clone(),
                old: self.before.get(name).cloned(),
            })
            .collect();
        // Carriers that are no longer wanted are forgotten.
        if carriers.is_some() {
            self.remembered = carriers::Remembered::read(self.store);
        }
        let round = download::Round { now: self.now.as_second(), force: args.force };
        let answers = download::ask(orders, carriers, &self.remembered, round)?;
        if let Some(anew) = answers.remembered {
            self.remembered = anew;
        }
        for (name, answer) in answers.lists {
            self.take(name, answer);
        }
        Ok(())
    }

    fn has_its_turn(&self, name: &ListName, list: &List, args: &Args) -> bool {
        if !args.only.is_empty() {
            return args.only.contains(name);
        }
        let fresh = !self.before.contains_key(name);
        let status = self.status.lists.get(name).cloned().unwrap_or_default();
        let now = self.now.as_second();
        // A clock that was set back is no reason to wait for days.
        let left_alone = status.tried <= now && now < status.not_before;
        let confirmed = if fresh { 0 } else { status.confirmed };
        args.force || (!left_alone && is_due(list, confirmed, now))
    }

    fn take(&mut self, name: ListName, answer: Result<Fetched, Fault>) {
        let now = self.now.as_second();
        let patience = self.lists.get(&name).map_or(Duration::ZERO, least_pause);
        let status = self.status.lists.entry(name.clone()).or_default();
        status.tried = now;
        let (fate, retry_after) = match answer {
            Ok(Fetched { copy, unchanged, notes, retry_after }) => {
                status.confirmed = now;
                status.refused.clear();
                status.notes = notes;
                if self.before.get(&name).is_none_or(|old| **old != copy) {
                    self.after.insert(name.clone(), Arc::new(copy));
                }
                (if unchanged { Fate::Unchanged } else { Fate::Updated }, retry_after)
            }
            Err(fault) => {
                status.refused.clone_from(&fault.message);
                (Fate::Refused(fault.message), Some(fault.retry_after.unwrap_or_default().max(patience)))
            }
        };
        let wait = retry_after.and_then(|wait| i64::try_from(wait.as_secs()).ok()).unwrap_or(0);
        status.not_before = if wait > 0 { now + wait } else { 0 };
        self.fates.insert(name, fate);
    }

    /// Puts the lists together without those who must not be blocked. Where too little is known of them, nobody is blocked whom
    /// the last run did not block.
    pub(super) fn compile(&mut self) {
        let blocks = self.lists.values().any(|list| list.kind == Kind::Block);
        let found = protection::everybody(self.config, blocks, self.now);
        self.status.notes.extend(found.notes);
        let strangers = self.remembered.unresolved.iter();
        let strangers = strangers.map(|stranger| format!("a carrier cannot be protected: {stranger}"));
        self.status.unknown = found.unknown.into_iter().chain(strangers).collect::<Vec<_>>().join("; ");
        let carriers = self.remembered.protected();
        let Outcome { compiled, hits, missing } =
            compile::compile(&self.lists, &self.after, &carriers, &found.protected);
        self.compiled = compiled;
        let missing: Vec<&str> = missing.iter().map(ListName::as_str).collect();
        let why = match missing.as_slice() {
            [] => found.blind,
            [name] => Some(format!("there is no copy yet of the allow list {name}")),
            names => Some(format!("there are no copies yet of the allow lists {}", names.join(", "))),
        };
        if let Some(why) = why {
            // A damaged file is as good as none.
            let last = self.store.read(COMPILED).unwrap_or_default().unwrap_or_default();
            self.compiled.hold_back(&last);
            self.status.refused = format!("nobody is blocked anew: {why}");
        }
        for (name, hits) in hits {
            let hits = protection::named(self.config, hits, &found.registered, self.now);
            let cut_out = guard::sentences(&hits);
            let status = self.status.lists.entry(name.clone()).or_default();
            if status.cut_out != cut_out {
                status.cut_out = cut_out;
                self.cut_anew.push((name, hits));
            }
        }
        self.registered = found.registered;
    }

    /// Keeps what came of it.
    pub(super) fn keep(&self) -> anyhow::Result<()> {
        for (name, copy) in &self.after {
            if self.before.get(name).is_none_or(|before| !Arc::ptr_eq(before, copy)) {
                self.store.write(&format!("{name}{ENDING}"), &**copy)?;
            }
        }
        self.remembered.write(self.store)?;
        // A damaged file is as good as none.
        let last: Option<Compiled> = self.store.read(COMPILED).unwrap_or_default();
        if last.as_ref() != Some(&self.compiled) {
            self.store.write(COMPILED, &self.compiled)?;
        }
        // Nobody found is nothing to remember. Who may not write there, or finds it busy, goes on with what others wrote.
        if !self.registered.registered.is_empty() {
            let _ = Registry::new(self.config).remember(&self.registered, self.now.as_millisecond());
        }
        self.status.write(self.store)?;
        for ending in [ENDING, UNFINISHED] {
            for name in self.store.names(ending)? {
                if !self.lists.contains_key(name.as_str()) {
                    self.store.remove(&format!("{name}{ending}"))?;
                }
            }
        }
        self.record();
        Ok(())
    }

    /// Leaves evidence of what was refused and cut out.
    fn record(&self) {
        let decision = |subject: &str, decision: &str, reason: &str, detail: &str| {
            Decision::new(TOOL, subject, decision, reason, "lists").with_detail(detail)
        };
        let mut decisions = vec![];
        for (name, fate) in &self.fates {
            if let Fate::Refused(why) = fate {
                decisions.push(decision(name.as_str(), "refuse", "list-refused", why));
            }
        }
        for (name, hits) in &self.cut_anew {
            for hits in hits.chunk_by(|one, other| one.why == other.why) {
                let reason = format!("protected-{}", hits[0].why.word());
                decisions.push(decision(name.as_str(), "cut-out", &reason, &guard::sentences(hits).concat()));
            }
        }
        if !self.status.refused.is_empty() {
            decisions.push(decision("lists", "refuse", "lists-refused", &self.status.refused));
        }
        if !self.status.unknown.is_empty() {
            decisions.push(decision("lists", "note", "phones-unknown", &self.status.unknown));
        }
        if !self.status.notes.is_empty() {
            decisions.push(decision("lists", "note", "lists-noted", &self.status.notes.join("; ")));
        }
        untold::record_or_leave(self.config, self.store, decisions, self.now);
    }

    /// Whether all was taken.
    pub(super) fn exit(&self) -> Exit {
        let refused = self.fates.values().any(|fate| matches!(fate, Fate::Refused(_)));
        if refused || !self.status.refused.is_empty() { Exit::No } else { Exit::Yes }
    }
}

/// The lists of the settings, and the carriers where there is a FusionPBX.
pub(in crate::commands) fn all_lists(config: &Config, store: &Store) -> BTreeMap<ListName, List> {
    with_carriers(config, carriers::database(config, store).is_some())
}

/// The carriers of the last run, with their names.
pub(super) fn remembered_carriers(config: &Config, store: &Store) -> Vec<Protected> {
    let wanted = carriers::database(config, store).is_some();
    if wanted { carriers::Remembered::read(store).protected() } else { vec![] }
}

pub(super) fn with_carriers(config: &Config, carriers: bool) -> BTreeMap<ListName, List> {
    let carriers = carriers.then(|| (ListName::carriers(), List::carriers()));
    config.lists.clone().into_iter().chain(carriers).collect()
}

/// The last good copies, and in words which of them are damaged and as good as none. A copy of what the list was before its
/// settings changed is none of it, and what APIBAN reported too long ago is in none.
pub(super) fn read_copies(
    store: &Store,
    lists: &BTreeMap<ListName, List>,
    now: u32,
) -> (Copies, Vec<String>) {
    let mut copies = BTreeMap::new();
    let mut lost = vec![];
    for (name, list) in lists {
        match Copy::read(store, name, list) {
            Ok(Some(mut copy)) => {
                if matches!(list.source, Source::Apiban { .. }) {
                    for part in &mut copy.parts {
                        part.content = apiban::let_go(&part.content, now);
                    }
                }
                copies.insert(name.clone(), Arc::new(copy));
            }
            Ok(None) => {}
            Err(error) => lost.push(format!("{name}: its last good copy is lost: {error:#}")),
        }
    }
    (copies, lost)
}
