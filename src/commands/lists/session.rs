//! One run: ask the sources that are due, guard what they send, and put the lists together.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::bail;
use jiff::Timestamp;

use super::fetch::Args;
use super::{TOOL, protection, report};
use crate::commands::record;
use crate::config::Config;
use crate::config::lists::{Kind, List, ListName};
use crate::evidence::Decision;
use crate::exit::Exit;
use crate::feeds::compile::{self, Compiled, Outcome};
use crate::feeds::copy::Copy;
use crate::feeds::fetch::{Fetched, is_due};
use crate::feeds::guard;
use crate::feeds::status::Status;
use crate::feeds::store::Store;
use crate::feeds::web::Fault;

mod carriers;
mod download;

/// The lists put together, in the store.
pub(super) const COMPILED: &str = "compiled";

/// The ending of the copies in the store.
pub(super) const COPY: &str = ".copy";

/// A crash may leave one such file of a list.
const UNFINISHED: &str = ".copy.new";

/// The last good copies.
pub(super) type Copies = BTreeMap<ListName, Arc<Copy>>;

/// What one run did with a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Result {
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
    pub(super) results: BTreeMap<ListName, Result>,
    pub(super) status: Status,
    remembered: Option<carriers::Remembered>,
    /// Who could not be found out, and so may be blocked.
    pub(super) unknown: Option<String>,
    /// `None` where the lists must not be put together.
    pub(super) compiled: Option<Compiled>,
    /// The lists from which others are cut out than in the last run.
    cut_anew: Vec<ListName>,
}

impl<'a> Session<'a> {
    /// Asks the sources whose turn it is.
    pub(super) fn ask(
        config: &'a Config,
        store: &'a Store,
        args: &Args,
        now: Timestamp,
    ) -> anyhow::Result<Self> {
        let carriers = carriers::database(config);
        let lists = with_carriers(config, carriers.is_some());
        if let Some(unknown) = args.only.iter().find(|name| !lists.contains_key(*name)) {
            let names: Vec<&str> = lists.keys().map(ListName::as_str).collect();
            bail!("there is no list {unknown}; the settings have: {}", names.join(", "));
        }
        let (status, damaged) = Status::read(store);
        let mut status = Status { lists: status.lists, ..Status::default() };
        status.lists.retain(|name, _| lists.contains_key(name));
        let (before, mut lost) = read_copies(store, &lists);
        lost.extend(damaged);
        status.notes.clone_from(&lost);
        let mut session = Self {
            config,
            store,
            now,
            after: before.clone(),
            before,
            lost,
            results: lists.keys().map(|name| (name.clone(), Result::NotAsked)).collect(),
            lists,
            status,
            remembered: None,
            unknown: None,
            compiled: None,
            cut_anew: vec![],
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
        let remembered = if carriers.is_some() {
            carriers::Remembered::read(self.store)
        } else {
            carriers::Remembered::default()
        };
        let round = download::Round { now: self.now.as_second(), force: args.force };
        let mut answers = download::ask(orders, carriers, &remembered, round)?;
        self.remembered = Some(answers.remembered.take().unwrap_or(remembered));
        for (name, answer) in answers.lists {
            self.take(name, answer);
        }
        Ok(())
    }

    fn has_its_turn(&self, name: &ListName, list: &List, args: &Args) -> bool {
        if !args.only.is_empty() {
            return args.only.contains(name);
        }
        let source = crate::feeds::copy::fingerprint(&list.source);
        let fresh = self.before.get(name).is_none_or(|copy| copy.source != source);
        let status = self.status.lists.get(name).cloned().unwrap_or_default();
        let now = self.now.as_second();
        // A clock that was set back is no reason to wait for days.
        let left_alone = status.tried <= now && now < status.not_before;
        let confirmed = if fresh { 0 } else { status.confirmed };
        args.force || (!left_alone && is_due(list, confirmed, now))
    }

    fn take(&mut self, name: ListName, answer: std::result::Result<Fetched, Fault>) {
        let now = self.now.as_second();
        let status = self.status.lists.entry(name.clone()).or_default();
        status.tried = now;
        let (result, retry_after) = match answer {
            Ok(Fetched { copy, notes, retry_after }) => {
                status.confirmed = now;
                status.refused.clear();
                status.notes = notes;
                let old = self.before.get(&name);
                let same = old.is_some_and(|old| old.source == copy.source && old.set() == copy.set());
                if old.is_none_or(|old| **old != copy) {
                    self.after.insert(name.clone(), Arc::new(copy));
                }
                (if same { Result::Unchanged } else { Result::Updated }, retry_after)
            }
            Err(fault) => {
                status.refused.clone_from(&fault.message);
                (Result::Refused(fault.message), fault.retry_after)
            }
        };
        let wait = retry_after.and_then(|wait| i64::try_from(wait.as_secs()).ok()).unwrap_or(0);
        status.not_before = if wait > 0 { now + wait } else { 0 };
        self.results.insert(name, result);
    }

    /// Puts the lists together without those who must not be blocked.
    pub(super) fn compile(&mut self) {
        let blocks = self.lists.values().any(|list| list.kind == Kind::Block);
        let (protected, registered) = match protection::everybody(self.config, blocks, self.now) {
            Ok(found) => {
                self.status.notes.extend(found.notes.into_iter().chain(found.unknown.clone()));
                self.unknown = found.unknown;
                (found.protected, found.registered)
            }
            Err(error) => {
                self.status.refused = format!("nothing is blocked anew: {error:#}");
                return;
            }
        };
        let carriers = self.remembered.as_ref().map(carriers::Remembered::protected).unwrap_or_default();
        match compile::compile(&self.lists, &self.after, &carriers, &protected) {
            Ok(Outcome { compiled, hits }) => {
                for (name, hits) in hits {
                    let hits = protection::named(self.config, hits, &registered, self.now);
                    let cut_out = guard::sentences(&hits);
                    let status = self.status.lists.entry(name.clone()).or_default();
                    if status.cut_out != cut_out {
                        status.cut_out = cut_out;
                        self.cut_anew.push(name);
                    }
                }
                self.compiled = Some(compiled);
            }
            Err(missing) => {
                let names: Vec<&str> = missing.iter().map(ListName::as_str).collect();
                self.status.refused = format!(
                    "nothing is blocked anew: of the allow list {} there is no copy yet, and nobody is blocked without the whitelist",
                    names.join(", ")
                );
            }
        }
    }

    /// Says what happened, and keeps it unless this is a dry run.
    pub(super) fn finish(&self, args: &Args) -> anyhow::Result<()> {
        report::results(self, args.dry_run);
        report::refusals(self);
        if args.dry_run { Ok(()) } else { self.keep() }
    }

    fn keep(&self) -> anyhow::Result<()> {
        for (name, copy) in &self.after {
            if self.before.get(name).is_none_or(|before| !Arc::ptr_eq(before, copy)) {
                self.store.write(&format!("{name}{COPY}"), &**copy)?;
            }
        }
        if let Some(remembered) = &self.remembered {
            remembered.write(self.store)?;
        }
        if let Some(compiled) = &self.compiled {
            // A damaged file is as good as none.
            let last: Option<Compiled> = self.store.read(COMPILED).unwrap_or_default();
            if last.as_ref() != Some(compiled) {
                self.store.write(COMPILED, compiled)?;
            }
        }
        self.status.write(self.store)?;
        for ending in [COPY, UNFINISHED] {
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
        let decision = |subject: &str, decision: &str, reason: &str, detail: &str| Decision {
            tool: TOOL.to_owned(),
            subject: subject.to_owned(),
            decision: decision.to_owned(),
            reason: reason.to_owned(),
            source: "lists".to_owned(),
            mode: String::new(),
            detail: detail.to_owned(),
        };
        let mut decisions = vec![];
        for (name, result) in &self.results {
            if let Result::Refused(why) = result {
                decisions.push(decision(name.as_str(), "refuse", "list-refused", why));
            }
        }
        for name in &self.cut_anew {
            let cut_out = &self.status.lists[name].cut_out;
            decisions
                .extend(cut_out.iter().map(|text| decision(name.as_str(), "cut-out", "protected", text)));
        }
        if !self.status.refused.is_empty() {
            decisions.push(decision("lists", "refuse", "lists-refused", &self.status.refused));
        }
        if !self.status.notes.is_empty() {
            decisions.push(decision("lists", "note", "lists-noted", &self.status.notes.join("; ")));
        }
        for decision in &decisions {
            record(self.config, decision, self.now);
        }
    }

    /// Whether all was taken.
    pub(super) fn exit(&self) -> Exit {
        let refused = self.results.values().any(|result| matches!(result, Result::Refused(_)));
        if refused || !self.status.refused.is_empty() { Exit::No } else { Exit::Yes }
    }
}

/// The lists of the settings, and the carriers where there is a FusionPBX.
pub(super) fn all_lists(config: &Config) -> BTreeMap<ListName, List> {
    with_carriers(config, carriers::database(config).is_some())
}

fn with_carriers(config: &Config, carriers: bool) -> BTreeMap<ListName, List> {
    let carriers = carriers.then(|| (ListName::carriers(), List::carriers()));
    config.lists.clone().into_iter().chain(carriers).collect()
}

/// The last good copies, and in words which of them are damaged and as good as none.
fn read_copies(store: &Store, lists: &BTreeMap<ListName, List>) -> (Copies, Vec<String>) {
    let mut copies = BTreeMap::new();
    let mut lost = vec![];
    for name in lists.keys() {
        match store.read(&format!("{name}{COPY}")) {
            Ok(Some(copy)) => drop(copies.insert(name.clone(), Arc::new(copy))),
            Ok(None) => {}
            Err(error) => lost.push(format!("{name}: its last good copy is lost: {error:#}")),
        }
    }
    (copies, lost)
}
