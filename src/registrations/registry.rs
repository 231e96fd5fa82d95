//! The answer for one address, shared by many short-lived processes: snapshot, then one of them asks the
//! source, then what was seen before.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;

use super::discovery::{self, Discovery};
use super::failure::{Failure, Memory};
use super::snapshot::{Says, Snapshot};
use super::{AHEAD_MS, Found, Question, seen, snapshot};
use crate::address;
use crate::config;
use crate::deadline::Deadline;

/// Who waits for another process to ask looks again after this time, and then after twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(16);

/// What `ringfence-events` keeps counts for so long.
const LIVE: Duration = Duration::from_secs(3);

/// A call that asks holds the lock for no longer than its deadline.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who is registered, as the processes of this host share it.
#[derive(Clone, Debug)]
pub struct Registry {
    settings: config::Registrations,
    state_dir: PathBuf,
    run_dir: PathBuf,
}

/// What is known about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has a live registration; the last one ends at `until` (seconds since 1970).
    Registered {
        /// Seconds since 1970.
        until: u32,
    },
    /// It has none.
    NotRegistered,
    /// The source cannot be read; lately the address had a registration.
    SeenLately {
        /// Seconds since 1970.
        at: i64,
    },
    /// The source cannot be read, and nothing is known.
    Unknown,
}

/// Where the standing is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// The snapshot of an earlier look.
    Snapshot {
        /// Its age.
        age: Duration,
        /// Addresses in it.
        addresses: usize,
    },
    /// What `ringfence-events` keeps up by FreeSWITCH's events.
    Events {
        /// Its age.
        age: Duration,
        /// Addresses in it.
        addresses: usize,
    },
    /// A look of our own.
    Source,
    /// What is remembered while the source cannot be read.
    Memory,
}

/// What `ringfence-events` keeps up of who is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveFeed {
    /// Since it was written last.
    pub age: Duration,
    /// It counts; else all tools ask by themselves.
    pub is_live: bool,
    /// Addresses in it.
    pub addresses: usize,
}

/// The standing of an address, and how it came about.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What is known.
    pub standing: Standing,
    /// Where it is from.
    pub via: Via,
    /// What is wrong with the source, if something is.
    pub failure: Option<String>,
    /// The source, where it was asked.
    pub discovery: Option<Discovery>,
    /// What was read in it, for people.
    pub notes: Vec<String>,
}

impl Answer {
    /// Where it is from, in one word: `snapshot`, `events`, `memory`, or the kind of the source.
    #[must_use]
    pub fn via(&self) -> &'static str {
        match (&self.via, &self.discovery) {
            (Via::Snapshot { .. }, _) => "snapshot",
            (Via::Events { .. }, _) => "events",
            (Via::Source, Some(discovery)) => discovery.source.kind().name(),
            (Via::Source | Via::Memory, _) => "memory",
        }
    }

    fn new(standing: Standing, via: Via) -> Self {
        Self { standing, via, failure: None, discovery: None, notes: vec![] }
    }
}

/// Everything about one question that does not change while it is answered.
#[derive(Clone)]
struct Case {
    registry: Registry,
    network: IpNetwork,
    /// Milliseconds since 1970.
    now: i64,
    fingerprint: u64,
    /// When `now` was.
    started: Instant,
    deadline: Deadline,
}

impl Registry {
    /// The registry with these settings and directories.
    #[must_use]
    pub fn new(config: &config::Config) -> Self {
        Self {
            settings: config.registrations.clone(),
            state_dir: config.state_dir.clone(),
            run_dir: config.run_dir.clone(),
        }
    }

    /// What `ringfence-events` keeps up of who is registered, at `now` (milliseconds since 1970); `None` where it never did since the
    /// boot, or by other settings.
    #[must_use]
    pub fn feed(&self, now: i64) -> Option<LiveFeed> {
        let snapshot = Snapshot::open_live(&self.run_dir, snapshot::fingerprint(&self.settings))?;
        let age = snapshot.age(now)?;
        Some(LiveFeed { age, is_live: age < LIVE, addresses: snapshot.len() })
    }

    /// Remembers all that [`Source::everyone`](super::Source::everyone) found at `now` (milliseconds since 1970), for the time when
    /// the source cannot be read. Waits a moment for the processes that share the memory.
    pub fn remember(&self, found: &Found, now: i64) -> io::Result<()> {
        let memory = Memory::open(&self.run_dir)?;
        if !memory.lock_within(PATIENCE)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        seen::remember(&self.state_dir, found, now)
    }

    /// How old the last look at the source is that calls share, at `now` (milliseconds since 1970); `None` without one.
    #[must_use]
    pub fn shared_age(&self, now: i64) -> Option<Duration> {
        Snapshot::open(&self.run_dir, snapshot::fingerprint(&self.settings))?.age(now)
    }

    /// The standing of `address` at `now` (milliseconds since 1970), by `deadline` whatever happens.
    #[must_use]
    pub fn standing(&self, address: IpAddr, now: i64, deadline: Deadline) -> Answer {
        let case = Case {
            registry: self.clone(),
            network: address::neighbourhood(address, self.settings.ipv6_prefix.bits()),
            now,
            fingerprint: snapshot::fingerprint(&self.settings),
            started: Instant::now(),
            deadline,
        };
        if let Some(answer) = case.ask_snapshot() {
            return answer;
        }
        let memory = Memory::open(&self.run_dir).ok();
        let failed = memory.as_ref().and_then(|memory| case.ask_failure(memory));
        failed.unwrap_or_else(|| case.by_deadline(memory.as_ref()))
    }
}

impl Case {
    fn cache(&self) -> Duration {
        self.registry.settings.cache.get()
    }

    /// The snapshot that the calls share, and the one that `ringfence-events` keeps (`true`).
    fn snapshots(&self) -> impl Iterator<Item = (Snapshot, bool)> {
        let run_dir = &self.registry.run_dir;
        let shared = Snapshot::open(run_dir, self.fingerprint);
        let live = Snapshot::open_live(run_dir, self.fingerprint);
        [(shared, false), (live, true)].into_iter().filter_map(|(snapshot, live)| Some((snapshot?, live)))
    }

    /// The freshest that says something counts.
    fn ask_snapshot(&self) -> Option<Answer> {
        let fresh = |(snapshot, live): (Snapshot, bool)| {
            // Who keeps it writes it every second, and may have ended since.
            let cache = if live { self.cache().min(LIVE) } else { self.cache() };
            let age = snapshot.age(self.now).filter(|age| *age < cache)?;
            let (says, addresses) = (snapshot.says(self.network, self.now)?, snapshot.len());
            let via = if live { Via::Events { age, addresses } } else { Via::Snapshot { age, addresses } };
            Some((age, says, via))
        };
        let (_, says, via) = self.snapshots().filter_map(fresh).min_by_key(|(age, ..)| *age)?;
        let standing = match says {
            Says::Registered { until } => Standing::Registered { until },
            Says::NotRegistered => Standing::NotRegistered,
        };
        Some(Answer::new(standing, via))
    }

    /// What another process found out, a moment before we got our turn.
    fn known(&self, memory: &Memory) -> Option<Answer> {
        self.ask_snapshot().or_else(|| self.ask_failure(memory))
    }

    /// While a failure is fresh, nobody asks.
    fn ask_failure(&self, memory: &Memory) -> Option<Answer> {
        let failure = memory.failure(self.fingerprint).filter(|failure| failure.is_fresh(self.now))?;
        Some(self.ask_memory(failure.message))
    }

    /// The source cannot be read: addresses seen registered within `stale-ok` keep their standing.
    fn remembered(&self) -> Standing {
        let stale_ok = self.registry.settings.stale_ok.get();
        // A snapshot is judged as of the moment when it was made.
        let snapshots = self.snapshots().filter_map(|(snapshot, _)| {
            let then = self.now - i64::try_from(snapshot.age(self.now)?.as_millis()).ok()?;
            matches!(snapshot.says(self.network, then), Some(Says::Registered { .. })).then_some(then / 1000)
        });
        let seen = seen::last(&self.registry.state_dir, self.network).ok().flatten();
        let lately = snapshots.chain(seen).max().filter(|at| {
            let ago = self.now / 1000 - at;
            ago > -AHEAD_MS / 1000 && Duration::from_secs(u64::try_from(ago).unwrap_or(0)) <= stale_ok
        });
        lately.map_or(Standing::Unknown, |at| Standing::SeenLately { at })
    }

    fn ask_memory(&self, failure: String) -> Answer {
        Answer { failure: Some(failure), ..Answer::new(self.remembered(), Via::Memory) }
    }

    /// Lets a thread of its own ask: whatever hangs there, we answer.
    fn by_deadline(&self, memory: Option<&Memory>) -> Answer {
        let (sender, receiver) = mpsc::channel();
        let theirs = memory.and_then(|memory| memory.try_clone().ok());
        let case = self.clone();
        let spawned =
            std::thread::Builder::new().name("look".into()).spawn(move || case.ask(theirs.as_ref(), &sender));
        let answer = spawned.ok().and_then(|_| receiver.recv_timeout(self.deadline.remaining()).ok());
        if let Some(answer) = answer {
            // Nothing more is sent: this waits, while there is time, for the thread to share what it found.
            let _ = receiver.recv_timeout(self.deadline.remaining());
            return answer;
        }
        let message = "no answer within registrations.deadline".to_owned();
        if let Some(memory) = memory {
            self.remember(memory, message.clone());
        }
        self.ask_memory(message)
    }

    fn ask(&self, memory: Option<&Memory>, sender: &Sender<Answer>) {
        match self.await_turn(memory) {
            Turn::Answered(answer) => drop(sender.send(*answer)),
            Turn::Ours { locked } => {
                let (question, looked, answer) = self.look();
                // The answer first: what comes now is for others.
                let _ = sender.send(answer);
                if let Some(memory) = memory {
                    self.share(memory, locked, &question, looked);
                }
            }
            Turn::Late => {}
        }
    }

    /// Waits until it is our turn to ask, or until somebody else's answer is there.
    fn await_turn(&self, memory: Option<&Memory>) -> Turn {
        let Some(memory) = memory else { return Turn::Ours { locked: false } };
        let mut wait = FIRST_WAIT;
        loop {
            match memory.try_lock() {
                Ok(true) => return self.known(memory).map_or(Turn::Ours { locked: true }, Turn::answered),
                Ok(false) => {}
                Err(_) => return Turn::Ours { locked: false },
            }
            // Somebody tries a source that failed before: how that ends is not waited for.
            if let Some(failure) = memory.failure(self.fingerprint) {
                return Turn::answered(self.ask_memory(failure.message));
            }
            if self.cache().is_zero() {
                return Turn::Ours { locked: false };
            }
            if let Some(answer) = self.ask_snapshot() {
                return Turn::answered(answer);
            }
            if self.deadline.has_passed() {
                return Turn::Late;
            }
            std::thread::sleep(wait.min(self.deadline.remaining()));
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    fn look(&self) -> (Question, Result<Found, String>, Answer) {
        let old = Snapshot::open(&self.registry.run_dir, self.fingerprint);
        let question = Question {
            network: self.network,
            now: self.now / 1000,
            // What nobody may use is not worth reading.
            all: !self.cache().is_zero() && old.is_none_or(|old| old.may_read_all(self.now)),
        };
        let discovery = discovery::discover(&self.registry.settings);
        let looked = match &discovery {
            Ok(discovery) => discovery.source.look(&question, self.deadline),
            Err(error) => Err(anyhow::anyhow!("{error:#}")),
        };
        let looked = looked.map_err(|error| format!("{error:#}"));
        let mut answer = match &looked {
            Ok(found) => self.judge(found),
            Err(message) => self.ask_memory(message.clone()),
        };
        answer.discovery = discovery.ok();
        (question, looked, answer)
    }

    fn judge(&self, found: &Found) -> Answer {
        let live = found.registered.iter().filter(|(address, expires)| {
            self.network.contains(**address) && i64::from(**expires) > self.now / 1000
        });
        let (standing, via) = match live.map(|(_, expires)| *expires).max() {
            Some(until) => (Standing::Registered { until }, Via::Source),
            None if found.failures.is_empty() => (Standing::NotRegistered, Via::Source),
            None => (self.remembered(), Via::Memory),
        };
        Answer { failure: found.failure(), notes: found.notes.clone(), ..Answer::new(standing, via) }
    }

    /// Tells the other processes what was found, or that nothing could be. Our own answer does not depend on it:
    /// a disk that takes nothing costs the sharing only.
    fn share(&self, memory: &Memory, locked: bool, question: &Question, outcome: Result<Found, String>) {
        let failure = match outcome {
            Err(message) => Some(message),
            Ok(found) => {
                if locked {
                    let Registry { run_dir, state_dir, .. } = &self.registry;
                    if !self.cache().is_zero() {
                        let _ = snapshot::write(
                            run_dir,
                            self.fingerprint,
                            question,
                            &found,
                            self.now,
                            self.cache(),
                        );
                    }
                    let _ = seen::update(state_dir, self.network, &found, self.now);
                }
                found.failure()
            }
        };
        match failure {
            Some(message) => self.remember(memory, message),
            None => drop(memory.forget()),
        }
    }

    /// The failure counts from the moment when it is known, not from our start.
    fn remember(&self, memory: &Memory, message: String) {
        let spent = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(0);
        let _ = memory.remember(&Failure { at: self.now + spent, fingerprint: self.fingerprint, message });
    }
}

/// What to do when several processes want to know.
enum Turn {
    /// Nothing: another process found out.
    Answered(Box<Answer>),
    /// Ask, and share the answer if `locked`.
    Ours { locked: bool },
    /// There is no time left.
    Late,
}

impl Turn {
    fn answered(answer: Answer) -> Self {
        Self::Answered(Box::new(answer))
    }
}

#[cfg(test)]
mod tests;
