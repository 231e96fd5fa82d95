//! Addresses that are allowed for a time, each on the word of a jail or of the administrator.
//!
//! One small file says who, until when and why, and outlives a reboot. Each change replaces it whole, under a lock, and derives
//! from it the table that `ringfence-ignore` reads. What is over is not handed out, whether or not anybody sweeps.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use ipnetwork::IpNetwork;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Allowed;
use crate::evidence::visible_within;
use crate::state_file::{self, Durability};

/// As these addresses are called among the allow lists.
pub const NAME: &str = "ringfence-allow";

/// No address is allowed for longer at once, in seconds: 24 days; ipset counts no more than a day further.
pub const LONGEST: i64 = 24 * 86_400;

/// More are not kept.
pub const MAX: usize = 100_000;

/// No more of a reason is kept, in bytes.
pub const MAX_REASON: usize = 200;

/// On whose word an address is allowed that no jail named.
pub const BY_HAND: &str = "by hand";

/// What a flush let go is kept for so many seconds: a stop that comes late still takes the flush back.
const STOP_FOLLOWS: i64 = 60;

const MAGIC: &[u8; 7] = b"RFTIMED";
const VERSION: u8 = 1;
const HEADER: usize = MAGIC.len() + 1 + 4;

/// No file of ours is larger.
const MAX_LENGTH: u64 = 1 << 28;

/// So long a call waits for others: less than fail2ban waits for us. Each takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// An address that is allowed for a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Who.
    pub address: IpAddr,
    /// On whose word.
    pub word: Word,
    /// Seconds since 1970.
    pub since: i64,
    /// Seconds since 1970: it ends then.
    pub until: i64,
    /// Why, for people; safe to print.
    pub because: String,
    /// It ends then already, unless the flush that said so is taken back; seconds since 1970.
    flushed: Option<i64>,
}

impl Entry {
    /// Of the reason, which may be anybody's text, its beginning is kept, made harmless.
    #[must_use]
    pub fn new(address: IpAddr, jail: Option<&str>, since: i64, until: i64, because: &str) -> Self {
        let word = jail.map_or(Word::ByHand, |jail| Word::Jail(jail.to_owned()));
        Self::on(word, address, since, until, because)
    }

    /// The same on the word of a walk through a failure, which this process takes.
    #[must_use]
    pub fn of_walk(address: IpAddr, since: i64, until: i64, because: &str) -> Self {
        Self::on(Word::Walk(std::process::id()), address, since, until, because)
    }

    fn on(word: Word, address: IpAddr, since: i64, until: i64, because: &str) -> Self {
        let because = visible_within(because.trim(), MAX_REASON);
        Self { address, word, since, until, because, flushed: None }
    }

    /// On whose word, for people: the jail, `by hand`, or `a walk`.
    #[must_use]
    pub fn word(&self) -> &str {
        match &self.word {
            Word::ByHand => BY_HAND,
            Word::Jail(jail) => jail,
            Word::Walk(_) => "a walk",
        }
    }

    /// On whose word, as JSON has it beside the jail: `jail`, `by-hand` or `walk`.
    #[must_use]
    pub const fn kind_of_word(&self) -> &'static str {
        match self.word {
            Word::ByHand => "by-hand",
            Word::Jail(_) => "jail",
            Word::Walk(_) => "walk",
        }
    }

    /// The jail on whose word it is.
    #[must_use]
    pub fn jail(&self) -> Option<&str> {
        match &self.word {
            Word::Jail(jail) => Some(jail),
            Word::ByHand | Word::Walk(_) => None,
        }
    }

    /// When it ends as things stand, in seconds since 1970.
    #[must_use]
    pub fn end(&self) -> i64 {
        self.flushed.map_or(self.until, |flushed| flushed.min(self.until))
    }

    fn is_of(&self, jail: OfJail<'_>) -> bool {
        jail.is_none_or(|jail| self.jail() == Some(jail))
    }
}

/// On whose word an address is allowed. Each stands beside what others say of the same address. In the file the first two are what
/// an `Option` of the jail was before there were walks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Word {
    /// The administrator's.
    ByHand,
    /// That of one of fail2ban's jails.
    Jail(String),
    /// That of a walk through a real failure, by the number of its process: of one that was killed, it ends with its time.
    Walk(u32),
}

/// Which entries are meant: those of one jail, or all.
pub type OfJail<'a> = Option<&'a str>;

/// What the table that `ringfence-ignore` reads is called.
#[must_use]
pub fn table(state_dir: &Path) -> PathBuf {
    state_dir.join("allowed.table")
}

/// The file.
#[must_use]
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("allowed")
}

/// Who is allowed at `now` (seconds since 1970), by address and then by whose word; nothing is made or changed.
pub fn read(state_dir: &Path, now: i64) -> anyhow::Result<Vec<Entry>> {
    let path = path(state_dir);
    let mut entries = content(&path).with_context(|| format!("cannot read {}", path.display()))?;
    entries.retain(|entry| entry.end() > now);
    entries.sort_by(|one, other| (one.address, &one.word).cmp(&(other.address, &other.word)));
    Ok(entries)
}

/// All entries, by whoever holds the lock. It ends with this value or the process.
#[derive(Debug)]
pub struct Book {
    state_dir: PathBuf,
    entries: Vec<Entry>,
    changed: bool,
    #[expect(dead_code, reason = "the lock lives as long as the file is open")]
    lock: File,
}

/// An opened book.
#[derive(Debug)]
pub struct Opened {
    /// The book.
    pub book: Book,
    /// A damaged file that was moved aside: what it said is lost.
    pub lost: Option<Lost>,
}

/// A damaged file that was moved aside.
#[derive(Debug)]
pub struct Lost {
    /// Where it is now.
    pub file: PathBuf,
    /// What was wrong.
    pub fault: String,
}

/// What came to an end by itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Their time is over.
    pub over: Vec<Entry>,
    /// A flush let them go.
    pub flushed: Vec<Entry>,
    /// Those that ended first, where there were too many.
    pub made_way: Vec<Entry>,
}

impl Book {
    /// Takes the lock and reads the file; a damaged one is moved aside, under a name with `now` in it.
    pub fn open(state_dir: &Path, now: Timestamp) -> anyhow::Result<Opened> {
        let path = path(state_dir);
        let lock_path = state_dir.join("allowed.lock");
        let open = || {
            state_file::make_dir(state_dir, 0o750)?;
            state_file::open_own_for_update(&lock_path, state_file::effective_user())
        };
        let lock = open().with_context(|| format!("cannot open {}", lock_path.display()))?;
        if !state_file::lock_within(&lock, PATIENCE)? {
            bail!("another ringfence-allow has been at it for {} s; try again", PATIENCE.as_secs());
        }
        let (entries, lost) = match content(&path) {
            Ok(entries) => (entries, None),
            Err(error) if error.is::<Damage>() => {
                let file = state_dir.join(format!("allowed.damaged-{}", now.as_second()));
                std::fs::rename(&path, &file)
                    .with_context(|| format!("{} is damaged, and cannot be moved aside", path.display()))?;
                (vec![], Some(Lost { file, fault: error.to_string() }))
            }
            Err(error) => return Err(error.context(format!("cannot read {}", path.display()))),
        };
        Ok(Opened { book: Self { state_dir: state_dir.to_owned(), entries, changed: false, lock }, lost })
    }

    /// Adds an entry, or prolongs the one that is there of the same address and word; `exactly`, it ends as said, be it sooner. The
    /// entry as it is now.
    pub fn add(&mut self, entry: Entry, exactly: bool) -> Entry {
        self.changed = true;
        let same = |other: &&mut Entry| (other.address, &other.word) == (entry.address, &entry.word);
        let Some(there) = self.entries.iter_mut().find(same) else {
            self.entries.push(entry.clone());
            return entry;
        };
        // What is over or let go begins anew.
        if there.end() <= entry.since {
            *there = entry;
        } else {
            there.until = if exactly { entry.until } else { entry.until.max(there.until) };
            there.flushed = None;
            if !entry.because.is_empty() {
                there.because = entry.because;
            }
        }
        there.clone()
    }

    /// Removes an address: what the jail says of it, or whoever; what was removed.
    pub fn remove(&mut self, address: IpAddr, jail: OfJail<'_>) -> Vec<Entry> {
        self.take(|entry| entry.address == address && entry.is_of(jail))
    }

    /// Removes what is said of an address on the same word; what was removed.
    pub fn withdraw(&mut self, entry: &Entry) -> Vec<Entry> {
        self.take(|other| (other.address, &other.word) == (entry.address, &entry.word))
    }

    /// Removes all of a jail, or all; what was removed.
    pub fn flush(&mut self, jail: OfJail<'_>) -> Vec<Entry> {
        self.take(|entry| entry.is_of(jail))
    }

    /// Undoes a removal.
    pub fn put_back(&mut self, removed: Vec<Entry>) {
        self.changed |= !removed.is_empty();
        self.entries.extend(removed);
    }

    /// Lets all of a jail, or all, end at `at` unless [`Book::take_back`] comes before; who ends sooner thereby.
    pub fn flush_at(&mut self, jail: OfJail<'_>, at: i64) -> Vec<Entry> {
        let sooner = self.entries.iter_mut().filter(|entry| entry.is_of(jail) && entry.end() > at);
        let flushed = sooner.map(|entry| {
            entry.flushed = Some(at);
            entry.clone()
        });
        let flushed: Vec<_> = flushed.collect();
        self.changed |= !flushed.is_empty();
        flushed
    }

    /// Takes a flush back; whom that concerns.
    pub fn take_back(&mut self, jail: OfJail<'_>) -> Vec<Entry> {
        let flushed = self.entries.iter_mut().filter(|entry| entry.is_of(jail) && entry.flushed.is_some());
        let kept = flushed.map(|entry| {
            entry.flushed = None;
            entry.clone()
        });
        let kept: Vec<_> = kept.collect();
        self.changed |= !kept.is_empty();
        kept
    }

    /// Ends what is over at `now`, and what ends first where there are more than `max`.
    pub fn tidy(&mut self, now: i64, max: usize) -> Ended {
        // What was flushed may still be taken back.
        let over = self.take(|entry| {
            entry.until <= now || entry.flushed.is_some_and(|flushed| flushed + STOP_FOLLOWS <= now)
        });
        let (over, flushed) = over.into_iter().partition(|entry| entry.until <= now);
        let mut made_way = vec![];
        if self.entries.len() > max {
            self.entries.sort_by_key(|entry| std::cmp::Reverse(entry.end()));
            made_way = self.entries.split_off(max);
            self.changed = true;
        }
        Ended { over, flushed, made_way }
    }

    /// Until when each address is allowed at `now`, in seconds since 1970.
    #[must_use]
    pub fn ends(&self, now: i64) -> BTreeMap<IpAddr, i64> {
        let mut ends = BTreeMap::new();
        for entry in self.entries.iter().filter(|entry| entry.end() > now) {
            let end = ends.entry(entry.address).or_insert(entry.end());
            *end = entry.end().max(*end);
        }
        ends
    }

    /// Those of an address at `now`.
    pub fn of(&self, address: IpAddr, now: i64) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.address == address && entry.end() > now)
    }

    /// Writes the file, if something changed, and the table, if it says something else.
    pub fn write(&mut self, now: Timestamp) -> anyhow::Result<()> {
        let path = path(&self.state_dir);
        if self.changed {
            state_file::replace(&path, &encode(&self.entries)?, Durability::Durable)
                .with_context(|| format!("cannot write {}", path.display()))?;
            self.changed = false;
        }
        let table = table(&self.state_dir);
        let ends = self.ends(now.as_second());
        if ends.is_empty() && !table.exists() {
            return Ok(());
        }
        let allowed: Vec<_> = ends
            .into_iter()
            .map(|(address, end)| Allowed {
                network: IpNetwork::from(address),
                list: NAME,
                until: Timestamp::from_second(end).ok(),
            })
            .collect();
        super::write_table(&table, &allowed, now).with_context(|| {
            format!("cannot write {}; the next ringfence-allow sync tries again", table.display())
        })
    }

    fn take(&mut self, which: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let taken: Vec<_> = self.entries.extract_if(.., |entry| which(entry)).collect();
        self.changed |= !taken.is_empty();
        taken
    }
}

/// What is in the file is not what was written.
#[derive(Debug)]
struct Damage(&'static str);

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Damage {}

fn encode(entries: &[Entry]) -> anyhow::Result<Vec<u8>> {
    let mut content = postcard::to_extend(entries, [MAGIC.as_slice(), &[VERSION, 0, 0, 0, 0]].concat())?;
    let checksum = crc32fast::hash(&content[HEADER..]);
    content[MAGIC.len() + 1..HEADER].copy_from_slice(&checksum.to_be_bytes());
    Ok(content)
}

/// What the file says; one that is not there says nothing.
fn content(path: &Path) -> anyhow::Result<Vec<Entry>> {
    let (file, length) = match state_file::open_own(path, state_file::effective_user()) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(error.into()),
    };
    let mut content = Vec::with_capacity(usize::try_from(length.min(MAX_LENGTH)).unwrap_or(0));
    file.take(MAX_LENGTH).read_to_end(&mut content)?;
    let Some((header, payload)) = content.split_at_checked(HEADER) else { bail!(Damage("it is cut short")) };
    if !header.starts_with(MAGIC) {
        bail!(Damage("it is not ours"));
    }
    if header[MAGIC.len() + 1..] != crc32fast::hash(payload).to_be_bytes() {
        bail!(Damage("it is not as it was written"));
    }
    if header[MAGIC.len()] != VERSION {
        bail!("it was written by another version of Ringfence; use that one, or remove the file");
    }
    postcard::from_bytes(payload).map_err(|_| Damage("it cannot be understood").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(address: &str, jail: &str, since: i64, until: i64) -> Entry {
        let jail = (!jail.is_empty()).then_some(jail);
        Entry::new(address.parse().unwrap(), jail, since, until, "a phone of ours")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// The book; it was not damaged.
    fn open(dir: &Path) -> Book {
        let Opened { book, lost } = Book::open(dir, at(1_000)).unwrap();
        assert!(lost.is_none(), "{lost:?}");
        book
    }

    /// Who is allowed, on whose word, until when.
    fn allowed(dir: &Path, now: i64) -> Vec<(String, String, i64)> {
        let entries = read(dir, now).unwrap().into_iter();
        entries.map(|entry| (entry.address.to_string(), entry.word().to_owned(), entry.end())).collect()
    }

    fn row(address: &str, word: &str, end: i64) -> (String, String, i64) {
        (address.to_owned(), word.to_owned(), end)
    }

    fn ignored(dir: &Path, address: &str, now: i64) -> bool {
        let found = super::super::find(dir, address.parse().unwrap(), at(now)).unwrap();
        assert!(found.as_deref().is_none_or(|list| list == NAME));
        found.is_some()
    }

    #[test]
    fn an_address_is_allowed_until_its_time_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert_eq!(read(dir, 0).unwrap(), []);
        let mut book = open(dir);
        book.write(at(1_000)).unwrap();
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1, "only the lock");
        book.add(entry("203.0.113.20", "success", 1_000, 2_000), false);
        book.add(entry("203.0.113.20", "", 1_000, 1_500), false);
        book.add(entry("2001:db8::20", "success", 1_000, 1_200), false);
        book.write(at(1_000)).unwrap();
        drop(book);
        assert_eq!(
            allowed(dir, 1_000),
            [
                row("203.0.113.20", BY_HAND, 1_500),
                row("203.0.113.20", "success", 2_000),
                row("2001:db8::20", "success", 1_200)
            ]
        );
        assert_eq!(allowed(dir, 1_500), [row("203.0.113.20", "success", 2_000)]);
        assert!(ignored(dir, "2001:db8::20", 1_199) && !ignored(dir, "2001:db8::20", 1_200));
        assert!(ignored(dir, "203.0.113.20", 1_999) && !ignored(dir, "203.0.113.20", 2_000));
        assert!(!ignored(dir, "203.0.113.21", 1_000));

        let mut book = open(dir);
        let over = |ended: Ended| ended.over.iter().map(|entry| entry.until).collect::<Vec<_>>();
        assert_eq!(over(book.tidy(1_500, MAX)), [1_500, 1_200]);
        assert_eq!(book.tidy(1_500, MAX), Ended::default());
        // By a jail, only what it added; by hand, whoever.
        assert_eq!(book.remove("203.0.113.20".parse().unwrap(), Some("other")), []);
        assert_eq!(book.remove("203.0.113.20".parse().unwrap(), None).len(), 1);
        book.write(at(1_500)).unwrap();
        assert!(!ignored(dir, "203.0.113.20", 1_500));
    }

    #[test]
    fn adding_again_prolongs_and_never_shortens() {
        let dir = tempfile::tempdir().unwrap();
        let mut book = open(dir.path());
        let mut add = |jail, since, until, exactly| {
            let entry = book.add(entry("203.0.113.20", jail, since, until), exactly);
            (entry.since, entry.until)
        };
        assert_eq!(add("success", 1_000, 2_000, false), (1_000, 2_000));
        assert_eq!(add("success", 1_100, 1_900, false), (1_000, 2_000));
        assert_eq!(add("success", 1_200, 2_200, false), (1_000, 2_200));
        assert_eq!(add("", 1_200, 3_000, false), (1_200, 3_000));
        assert_eq!(add("", 1_300, 1_400, true), (1_200, 1_400));
        // After its end, it begins anew.
        assert_eq!(add("", 1_400, 1_450, false), (1_400, 1_450));
        assert_eq!(add("success", 2_200, 2_300, false), (2_200, 2_300));
    }

    #[test]
    fn a_flush_is_taken_back_by_the_stop_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let mut book = open(dir);
        for (address, jail) in [("203.0.113.20", "success"), ("203.0.113.21", "other"), ("203.0.113.22", "")]
        {
            book.add(entry(address, jail, 1_000, 5_000), false);
        }
        let names =
            |entries: Vec<Entry>| entries.iter().map(|entry| entry.address.to_string()).collect::<Vec<_>>();
        assert_eq!(names(book.flush_at(Some("success"), 1_010)), ["203.0.113.20"]);
        assert_eq!(names(book.flush_at(Some("success"), 1_020)), [""; 0], "not later than said before");
        book.write(at(1_000)).unwrap();
        assert!(ignored(dir, "203.0.113.20", 1_009) && !ignored(dir, "203.0.113.20", 1_010));
        assert_eq!(allowed(dir, 1_010).len(), 2);
        assert_eq!(book.tidy(1_069, MAX), Ended::default());
        assert_eq!(names(book.take_back(Some("success"))), ["203.0.113.20"]);
        assert_eq!(names(book.take_back(Some("success"))), [""; 0]);
        book.write(at(1_069)).unwrap();
        assert!(ignored(dir, "203.0.113.20", 4_999));
        // Who comes again is not let go either.
        book.flush_at(None, 1_100);
        book.add(entry("203.0.113.22", "", 1_095, 1_096), false);
        let flushed = book.tidy(1_160, MAX).flushed;
        assert_eq!(names(flushed), ["203.0.113.20", "203.0.113.21"]);
        assert_eq!(book.ends(1_160).into_values().collect::<Vec<_>>(), [5_000]);
        assert_eq!(names(book.flush(Some("success"))), [""; 0]);
        let all = book.flush(None);
        assert_eq!(names(all.clone()), ["203.0.113.22"]);
        book.put_back(all);
        assert_eq!(book.ends(1_160).len(), 1);
    }

    #[test]
    fn a_walk_stands_beside_what_others_say() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let mut book = open(dir);
        book.add(entry("203.0.113.20", "", 1_000, 1_100), false);
        let walk = Entry::of_walk("203.0.113.20".parse().unwrap(), 1_000, 2_000, "ringfence test --walk");
        book.add(walk.clone(), false);
        book.write(at(1_000)).unwrap();
        drop(book);
        let all = [row("203.0.113.20", BY_HAND, 1_100), row("203.0.113.20", "a walk", 2_000)];
        assert_eq!(allowed(dir, 1_000), all);
        let json = serde_json::to_value(read(dir, 1_000).unwrap()).unwrap();
        assert_eq!(
            (&json[0]["jail"], &json[1]["jail"]),
            (&serde_json::Value::Null, &serde_json::Value::Null)
        );
        let mut book = open(dir);
        assert_eq!(book.withdraw(&walk), std::slice::from_ref(&walk));
        assert_eq!(book.withdraw(&walk), []);
        book.write(at(1_000)).unwrap();
        assert_eq!(allowed(dir, 1_000), all[..1]);
        assert_eq!(read(dir, 1_000).unwrap()[0].because, "a phone of ours");
    }

    #[test]
    fn a_file_from_before_there_were_walks_is_read() {
        #[derive(Serialize)]
        struct Before(IpAddr, Option<String>, i64, i64, String, Option<i64>);
        let before = |jail: Option<&str>| {
            Before(
                "::1".parse().unwrap(),
                jail.map(str::to_owned),
                1_000,
                2_000,
                "why".to_owned(),
                Some(1_500),
            )
        };
        let now = |jail| {
            let mut entry = Entry::new("::1".parse().unwrap(), jail, 1_000, 2_000, "why");
            entry.flushed = Some(1_500);
            entry
        };
        for jail in [None, Some("success")] {
            let bytes = postcard::to_allocvec(&before(jail)).unwrap();
            assert_eq!(postcard::from_bytes::<Entry>(&bytes).unwrap(), now(jail));
            assert_eq!(postcard::to_allocvec(&now(jail)).unwrap(), bytes);
        }
    }

    #[test]
    fn of_too_many_those_make_way_that_end_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut book = open(dir.path());
        for (address, until) in [("203.0.113.20", 3_000), ("203.0.113.21", 2_000), ("203.0.113.22", 4_000)] {
            book.add(entry(address, "", 1_000, until), false);
        }
        let made_way = book.tidy(1_000, 2).made_way;
        assert_eq!(made_way, [entry("203.0.113.21", "", 1_000, 2_000)]);
        assert_eq!(book.ends(1_000).into_values().collect::<Vec<_>>(), [3_000, 4_000]);
    }

    #[test]
    fn reasons_are_short_and_harmless() {
        let reason = |text: &str| Entry::new("::1".parse().unwrap(), None, 0, 1, text).because;
        assert_eq!(reason(" registered\u{1b}[2J\nas 101 "), "registered\u{fffd}[2J\u{fffd}as 101");
        assert_eq!(reason(&"é".repeat(200)), "é".repeat(100) + "…");
    }

    #[test]
    fn damage_is_moved_aside_and_a_new_file_begun() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let mut book = open(dir);
        book.add(entry("203.0.113.20", "success", 1_000, 2_000), false);
        book.write(at(1_000)).unwrap();
        drop(book);
        let whole = std::fs::read(path(dir)).unwrap();
        for position in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[position] ^= 0x10;
            for content in [&damaged[..], &whole[..position]] {
                std::fs::write(path(dir), content).unwrap();
                assert!(read(dir, 1_000).is_err(), "{position}");
                let opened = Book::open(dir, at(1_000));
                if position == MAGIC.len() && content.len() == whole.len() {
                    let error = format!("{:#}", opened.unwrap_err());
                    assert!(error.contains("another version"), "{error}");
                    continue;
                }
                let lost = opened.unwrap().lost.unwrap();
                assert_eq!(std::fs::read(&lost.file).unwrap(), content, "{}", lost.fault);
                assert!(!path(dir).exists());
            }
        }
        std::fs::write(path(dir), &whole).unwrap();
        assert_eq!(allowed(dir, 1_000), [row("203.0.113.20", "success", 2_000)]);
    }
}
