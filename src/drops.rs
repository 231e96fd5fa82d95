//! What the kernel dropped: packets by reason, in hours.
//!
//! Rules count packets, and forget them whenever they are filled anew, flushed, or lost with a boot. So whoever reads them each minute
//! adds what came since his last look. Where a counter has less than then, it began anew, and all of it is new; what came between the
//! last look and that is lost. A program that brings back counters which it saved within the same boot (`iptables-restore --counters`)
//! cannot be told from that: what they had then counts twice. After a boot, what rules say at the first look is not counted: another program may have brought them
//! back with the counters of before.
//!
//! ```text
//! drops/now.json     what was read last, this hour's totals, and all since the record began; replaced whole
//! drops/hours.jsonl  a line for each hour that is over and had some; no older than 90 days
//! ```
//!
//! A line goes into the second file before the first one forgets the hour: after a crash in between it is there twice, and counts once.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::evidence::visible_within;
use crate::firewall::{Count, Tag};
use crate::state_file::{self, Durability};

/// So long an hour is remembered.
pub const KEPT: SignedDuration = SignedDuration::from_hours(90 * 24);

/// So much longer it stays, that the file is not made anew each hour.
const SLACK: SignedDuration = SignedDuration::from_hours(24);

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// So many reasons are told apart in an hour, and since the record began.
const MAX_REASONS: usize = 100;

/// No name of a reason is longer, in bytes.
const MAX_NAME: usize = 80;

/// What there is of more reasons than can be told apart.
const OTHERS: &str = "(others)";

/// No file of ours is larger, in bytes.
const LARGEST: u64 = 32 << 20;

/// What dropped a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A ban of a jail of fail2ban's, held by `ringfence-ban`.
    Ban,
    /// A blocked account, or a blocked device of one.
    Account,
    /// The block lists.
    BlockList,
    /// A limit, at the moment in which it was exceeded.
    Limit,
    /// That a limit was exceeded before, and the source goes on.
    GoingOn,
    /// The text of a scanner in a message.
    Scanner,
    /// A port that is for others.
    Restriction,
    /// Flags of TCP that no honest packet has.
    Hardening,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Ban,
        Self::Account,
        Self::BlockList,
        Self::Limit,
        Self::GoingOn,
        Self::Scanner,
        Self::Restriction,
        Self::Hardening,
    ];

    /// As in the record.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ban => "ban",
            Self::Account => "account",
            Self::BlockList => "block-list",
            Self::Limit => "limit",
            Self::GoingOn => "going-on",
            Self::Scanner => "scanner",
            Self::Restriction => "restriction",
            Self::Hardening => "hardening",
        }
    }
}

/// Why a packet was dropped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Reason {
    /// What dropped it.
    pub kind: Kind,
    /// Which of its kind: the jail, what is limited, the scanner's text, the ports that are restricted and to which lists; empty where
    /// there is one only. Safe to print.
    pub name: String,
}

impl Reason {
    /// The only one of its kind.
    #[must_use]
    pub const fn only(kind: Kind) -> Self {
        Self { kind, name: String::new() }
    }

    /// One of several.
    #[must_use]
    pub fn of(kind: Kind, name: &str) -> Self {
        Self { kind, name: visible_within(name, MAX_NAME) }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = if self.name.is_empty() { "" } else { " " };
        write!(f, "{}{space}{}", self.kind.name(), self.name)
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> Self {
        reason.to_string()
    }
}

impl FromStr for Reason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once(' ').unwrap_or((text, ""));
        let kind = Kind::ALL.into_iter().find(|known| known.name() == kind);
        Ok(Self::of(kind.ok_or("no reason")?, name))
    }
}

impl TryFrom<String> for Reason {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Packets by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Totals {
    /// What was dropped.
    pub dropped: BTreeMap<Reason, u64>,
    /// What would have been, had the mode not been observe. One packet may be here for several reasons.
    pub observed: BTreeMap<Reason, u64>,
}

impl Totals {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.dropped.is_empty() && self.observed.is_empty()
    }

    /// Adds others.
    pub fn add(&mut self, others: &Self) {
        for (these, others) in [(&mut self.dropped, &others.dropped), (&mut self.observed, &others.observed)]
        {
            for (reason, packets) in others {
                add(these, reason, *packets);
            }
        }
    }

    fn count(&mut self, reason: &Reason, observed: bool, packets: u64) {
        add(if observed { &mut self.observed } else { &mut self.dropped }, reason, packets);
    }
}

fn add(totals: &mut BTreeMap<Reason, u64>, reason: &Reason, packets: u64) {
    if packets == 0 {
        return;
    }
    let is_one_more = totals.len() >= MAX_REASONS && !totals.contains_key(reason);
    let reason = if is_one_more { Reason::of(reason.kind, OTHERS) } else { reason.clone() };
    let total = totals.entry(reason).or_default();
    *total = total.saturating_add(packets);
}

/// An hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Hour {
    /// Its begin.
    pub hour: Timestamp,
    /// When it was first counted for: of lines with the same, one counts.
    first: Timestamp,
    /// What was dropped.
    #[serde(flatten)]
    pub totals: Totals,
}

impl Hour {
    /// The hour with this moment in it.
    #[must_use]
    pub fn new(at: Timestamp, totals: Totals) -> Self {
        Self { hour: hour_of(at), first: at, totals }
    }
}

/// `drops/now.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Now {
    /// When the record began.
    begun: Timestamp,
    /// All since then.
    all: Totals,
    #[serde(flatten)]
    hour: Hour,
    /// What each rule said.
    rules: Option<Look<BTreeMap<String, u64>>>,
    /// What the map of blocked accounts said, without those who were taken out of it since.
    map: Option<Look<i64>>,
}

/// Counters, as they were read last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Look<T> {
    /// Of which boot they are.
    boot: String,
    packets: T,
}

/// What the map of blocked accounts says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Met {
    /// Packets of all that were in it, when it was looked through; `None` if it was not.
    pub looked: Option<u64>,
    /// Packets of those who were taken out then, or since.
    pub gone: u64,
}

impl Met {
    /// This, and what was met behind it, as one.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        let looked = next.looked.map(|looked| looked.saturating_add(self.gone)).or(self.looked);
        Self { looked, gone: self.gone.saturating_add(next.gone) }
    }
}

/// The record, for who adds to it: only who has the turn to change rules may, from before he reads them.
#[derive(Debug)]
pub struct Counting<'a> {
    dir: PathBuf,
    boot: &'a str,
    before: Option<Now>,
    now: Now,
    lost: Option<String>,
}

impl<'a> Counting<'a> {
    /// Opens the record at this moment, or begins one; `boot` stands for the boot.
    pub fn open(state_dir: &Path, boot: &'a str, at: Timestamp) -> io::Result<Self> {
        let dir = dir(state_dir);
        let mut lost = None;
        let before = read_now(&dir).or_else(|error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::FileTooLarge => {
                lost = Some(format!("{} was damaged ({error}), and is begun anew", now_path(&dir).display()));
                Ok(None)
            }
            _ => Err(error),
        })?;
        let hour = Hour::new(at, Totals::default());
        let mut now = before.clone().unwrap_or_else(|| Now {
            begun: at,
            all: Totals::default(),
            hour: hour.clone(),
            rules: None,
            map: None,
        });
        if now.hour.hour != hour.hour {
            now.hour = hour;
        }
        Ok(Self { dir, boot, before, now, lost })
    }

    /// Adds what rules dropped since the last look. `counts` are of all rules of ours; `why` says for what a rule drops, if that is
    /// known and the caller's business.
    pub fn rules<'r>(&mut self, counts: &[Count], why: impl Fn(Tag) -> Option<&'r Reason>, observed: bool) {
        let last = self.now.rules.take().filter(|look| look.boot == self.boot);
        let mut packets = BTreeMap::new();
        for Count { rule, tag, packets: there } in counts {
            let last = last.as_ref().map(|look| look.packets.get(rule).copied());
            let keep = match (last, why(*tag)) {
                (None, _) => Some(*there),
                (Some(last), Some(reason)) => {
                    let last = last.filter(|last| last <= there).unwrap_or(0);
                    self.count(reason, observed, there - last);
                    Some(*there)
                }
                // Another's business.
                (Some(last), None) => last,
            };
            packets.extend(keep.map(|keep| (rule.clone(), keep)));
        }
        self.now.rules = Some(Look { boot: self.boot.to_owned(), packets });
    }

    /// Adds what the map of blocked accounts dropped since the last look.
    pub fn map(&mut self, met: Met) {
        let number = |packets| i64::try_from(packets).unwrap_or(i64::MAX);
        // It does not outlive a boot.
        let last = self.now.map.take();
        let mut last = last.map(|look| if look.boot == self.boot { look.packets } else { 0 });
        if let Some(looked) = met.looked.map(number) {
            // A map that was made anew has less; what it had before, nobody knows.
            let new = last.map_or(0, |last| u64::try_from(looked.saturating_sub(last)).unwrap_or(0));
            self.count(&Reason::only(Kind::Account), false, new);
            last = Some(looked);
        }
        self.now.map = last
            .map(|last| Look { boot: self.boot.to_owned(), packets: last.saturating_sub(number(met.gone)) });
    }

    /// Writes it down, if there is something new; why what was there before is lost, if it is.
    pub fn close(self) -> io::Result<Option<String>> {
        let Self { dir, before, now, mut lost, .. } = self;
        if before.as_ref() == Some(&now) {
            return Ok(lost);
        }
        state_file::make_dir(&dir, 0o750)?;
        if let Some(before) = before.filter(|before| before.hour.first != now.hour.first)
            && !before.hour.totals.is_empty()
        {
            lost = lost.or(append(&dir, &before.hour, now.hour.first)?);
        }
        let content = serde_json::to_vec(&now)?;
        state_file::replace(&now_path(&dir), &content, Durability::Durable)?;
        Ok(lost)
    }

    fn count(&mut self, reason: &Reason, observed: bool, packets: u64) {
        self.now.hour.totals.count(reason, observed, packets);
        self.now.all.count(reason, observed, packets);
    }
}

/// What the record says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// When it began; `None` if there is none.
    pub begun: Option<Timestamp>,
    /// All since it began: never less, as long as the record is not lost.
    pub all: Totals,
    /// Lines that are none of its format.
    pub odd: u64,
}

/// Reads the record, and hands over each hour that is not over at that time; there may be none.
pub fn since(state_dir: &Path, since: Timestamp, mut each: impl FnMut(Hour)) -> io::Result<Record> {
    let dir = dir(state_dir);
    let mut record = Record::default();
    // First this: an hour that comes to its end just now is in the other, too, and known again.
    let now = read_now(&dir)?;
    let mut last = None;
    let mut hand_over = |hour: Hour, begun: &mut Option<Timestamp>| {
        if last != Some(hour.first) {
            last = Some(hour.first);
            *begun = Some(begun.map_or(hour.first, |begun| begun.min(hour.first)));
            if hour.hour + HOUR > since {
                each(hour);
            }
        }
    };
    for line in read_hours(&dir)?.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(hour) => hand_over(hour, &mut record.begun),
            Err(_) => record.odd += 1,
        }
    }
    if let Some(Now { begun, all, hour, .. }) = now {
        hand_over(hour, &mut record.begun);
        record.begun = record.begun.map(|first| first.min(begun));
        record.all = all;
    }
    Ok(record)
}

fn dir(state_dir: &Path) -> PathBuf {
    state_dir.join("drops")
}

fn now_path(dir: &Path) -> PathBuf {
    dir.join("now.json")
}

fn hours_path(dir: &Path) -> PathBuf {
    dir.join("hours.jsonl")
}

/// The begin of the hour.
fn hour_of(at: Timestamp) -> Timestamp {
    let seconds = at.as_second();
    Timestamp::from_second(seconds - seconds.rem_euclid(3_600)).unwrap_or(at)
}

fn read_now(dir: &Path) -> io::Result<Option<Now>> {
    match state_file::read_regular(&now_path(dir), LARGEST) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        content => {
            let now = serde_json::from_slice(&content?);
            now.map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        }
    }
}

fn read_hours(dir: &Path) -> io::Result<Vec<u8>> {
    match state_file::read_regular(&hours_path(dir), LARGEST) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        content => content,
    }
}

/// Adds a line; where the file has hours that are too old, or is too large then, it is made anew without the oldest. One that is too large
/// already is none of ours, and begun anew: why what it said is lost.
fn append(dir: &Path, hour: &Hour, at: Timestamp) -> io::Result<Option<String>> {
    let path = hours_path(dir);
    let (there, lost) = match read_hours(dir) {
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            let lost = format!("{} was damaged ({error}), and is begun anew", path.display());
            (vec![], Some(lost))
        }
        there => (there?, None),
    };
    // What a power cut left of a line is a line of its own.
    let start = if there.last().is_none_or(|end| *end == b'\n') { "" } else { "\n" };
    let line = format!("{start}{}\n", serde_json::to_string(hour)?);
    let all = [&there, line.as_bytes()].concat();
    match shortened(&all, at, LARGEST) {
        None if lost.is_none() => {
            let mut file = File::options().append(true).create(true).open(&path)?;
            file.write_all(line.as_bytes())?;
            file.sync_data()?;
        }
        shortened => state_file::replace(&path, &shortened.unwrap_or(all), Durability::Durable)?,
    }
    Ok(lost)
}

/// Without the hours that are too old; where it is larger than `most` bytes still, without the older half. `None` if all may stay.
fn shortened(content: &[u8], at: Timestamp, most: u64) -> Option<Vec<u8>> {
    let hour = |line: &[u8]| serde_json::from_slice::<Hour>(line).ok().map(|hour| hour.hour);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let lines = content.split_inclusive(|byte| *byte == b'\n');
    let oldest = lines.clone().find_map(hour);
    if content.len() <= most && oldest.is_none_or(|oldest| oldest > at - KEPT - SLACK) {
        return None;
    }
    let kept: Vec<&[u8]> = lines.filter(|line| hour(line).is_some_and(|hour| hour > at - KEPT)).collect();
    let length = |lines: &[&[u8]]| lines.iter().map(|line| line.len()).sum::<usize>();
    let from = if length(&kept) > most { kept.len() / 2 } else { 0 };
    Some(kept[from..].concat())
}

#[cfg(test)]
mod tests;
