//! `ringfence-events run`: one thread listens and never waits for anything else; disks and databases have their own.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::{SignedDuration, Timestamp};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::sleep_until;

use super::metrics::{Counts, Present};
use super::systemd::Systemd;
use super::voice::{self, Voice};
use super::worker::Worker;
use crate::account::SipAccount;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::event_socket::frames::Frame;
use crate::event_socket::listener::{Listener, News};
use crate::events::event::{Event, Subclass};
use crate::events::known::{Accounts, Answer, AtOnce};
use crate::events::line::{Known, Line, MAX_LINE};
use crate::events::log::Log;
use crate::events::refusals::{PATIENCE, Refusal};
use crate::events::watch::Watch;
use crate::exit::Exit;
use crate::registrations::live::{Everyone, Feed, Live};
use crate::registrations::{Found, Source, discovery};
use crate::state_file;

/// Registrations and logins, and nothing else.
const SUBSCRIPTION: &str = "event json CUSTOM sofia::register sofia::unregister sofia::expire \
                            sofia::register_attempt sofia::register_failure sofia::pre_register verto::login";

/// A line waits for the answer whether its account is known, but no longer.
const KNOWN_PATIENCE: Duration = Duration::from_millis(8);

/// No more lines wait for it.
const MAX_PENDING: usize = 512;

/// No more accounts, whose lines are written, wait for a late answer.
const MAX_LATE: usize = 4_096;

/// `ringfence-ignore` hears so often who is registered.
const FEED_EVERY: Duration = Duration::from_secs(1);

/// The counts are written so often.
const METRICS_EVERY: Duration = Duration::from_secs(15);

/// A source has so long to say who is registered.
const LOOK_PATIENCE: Duration = Duration::from_secs(30);

/// Events that are further from this host's time are given its own.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_secs(5);

/// At the end the log has so long ...
const END_PATIENCE: Duration = Duration::from_millis(500);

/// ... and each of the others so long.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What FreeSWITCH takes for an hour where a phone does not say it.
const USUAL_EXPIRES: u64 = 3600;

/// Looks at the source, one after the other.
type Looks = UnboundedReceiver<anyhow::Result<Found>>;

pub(super) fn run(config: &Config) -> anyhow::Result<Exit> {
    let path = config.events_path();
    let log = Log::open(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let (accounts, answers) = Accounts::start(config).context("cannot start a thread")?;
    let (looker, looks) = start_looking(config)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let mut service = Service::new(config, log, accounts, looker)?;
    let ended = runtime.block_on(listen(&mut service, config, answers, looks));
    // A name that is still being looked up must not be waited for.
    runtime.shutdown_background();
    ended?;
    service.end();
    Ok(Exit::Yes)
}

/// Until a signal ends it.
async fn listen(
    service: &mut Service,
    config: &Config,
    mut answers: UnboundedReceiver<Answer>,
    mut looks: Looks,
) -> anyhow::Result<()> {
    let caught = |kind| signal(kind).context("cannot catch signals");
    let mut hangup = caught(SignalKind::hangup())?;
    let mut terminate = caught(SignalKind::terminate())?;
    let mut interrupt = caught(SignalKind::interrupt())?;
    let settings = config.registrations.clone();
    let mut listener = Listener::new(SUBSCRIPTION, move || discovery::event_socket(&settings));
    loop {
        let due = service.due().into();
        tokio::select! {
            news = listener.next() => service.take(news),
            Some(answer) = answers.recv() => service.learn(answer),
            Some(look) = looks.recv() => service.looked(look),
            _ = hangup.recv() => service.log.reopen(),
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            () = sleep_until(due) => {}
        }
        service.tick(Instant::now());
    }
}

/// A thread that asks who is registered.
fn start_looking(config: &Config) -> anyhow::Result<(Worker<()>, Looks)> {
    let (found, looks) = mpsc::unbounded_channel();
    let settings = config.registrations.clone();
    let look = move |()| {
        let deadline = Deadline::after(Instant::now(), LOOK_PATIENCE);
        let look = discovery::discover(&settings).and_then(|discovery| {
            let found = discovery.source.everyone(Timestamp::now().as_second(), deadline)?;
            // Nodes of a cluster share it, and the events of the others are not heard here.
            let shared = matches!(discovery.source, Source::Postgres(_));
            Ok(Found { complete: found.complete && !shared, ..found })
        });
        let _ = found.send(look);
    };
    Ok((Worker::start("look", 1, look).context("cannot start a thread")?, looks))
}

/// All that is between the event socket and the files.
struct Service {
    watch: Watch,
    log: Log,
    accounts: Accounts,
    /// Refusals of which it is not known yet whether their accounts exist, the oldest first.
    pending: VecDeque<Pending>,
    /// Those whose lines are written, as nobody knew it in time: a late answer still counts against their sources.
    late: VecDeque<Late>,
    live: Live,
    looker: Worker<()>,
    feed: Worker<(Everyone, bool, Timestamp)>,
    feed_due: Instant,
    metrics: Option<Worker<String>>,
    metrics_due: Instant,
    counts: Counts,
    connected: bool,
    systemd: Systemd,
    speaker: Worker<String>,
    voice: Voice,
    /// For one line after the other.
    line: String,
}

struct Pending {
    refusal: Refusal,
    account: SipAccount,
    until: Instant,
}

struct Late {
    account: SipAccount,
    address: IpAddr,
    time: Timestamp,
}

impl Service {
    fn new(config: &Config, log: Log, accounts: Accounts, looker: Worker<()>) -> anyhow::Result<Self> {
        let now = Instant::now();
        let speaker = voice::start().context("cannot start a thread")?;
        let feed = Feed::new(config);
        let mut feed_voice = Voice::new(&speaker);
        let feed = Worker::start("feed", 1, move |(everyone, complete, now): (Everyone, bool, Timestamp)| {
            let written = feed.write(everyone.iter(), complete, now.as_millisecond());
            feed_voice.about("feed", written.err().map(|error| {
                format!("ringfence-ignore asks by itself who is registered: the snapshot cannot be written: {error}")
            }));
        });
        let metrics = config.events.metrics.clone().map(|metrics| {
            let mut voice = Voice::new(&speaker);
            Worker::start("metrics", 1, move |text: String| {
                let path = metrics.path();
                let written = state_file::publish(path, text.as_bytes());
                voice.about(
                    "metrics",
                    written.err().map(|error| format!("cannot write {}: {error}", path.display())),
                );
            })
        });
        Ok(Self {
            watch: Watch::new(config.events.flood.get(), config.registrations.ipv6_prefix.bits()),
            log,
            accounts,
            pending: VecDeque::new(),
            late: VecDeque::new(),
            live: Live::default(),
            looker,
            feed: feed.context("cannot start a thread")?,
            feed_due: now,
            metrics: metrics.transpose().context("cannot start a thread")?,
            metrics_due: now,
            counts: Counts::default(),
            connected: false,
            systemd: Systemd::start(now).context("cannot start a thread")?,
            voice: Voice::new(&speaker),
            speaker,
            line: String::with_capacity(MAX_LINE),
        })
    }

    fn take(&mut self, news: News) {
        let now = Instant::now();
        match news {
            News::Events(frames) => frames.iter().for_each(|frame| self.event(frame, now)),
            News::Subscribed(address) => {
                self.connected = true;
                self.counts.connects += 1;
                self.live.connected(now);
                self.systemd.status(format!("listening to FreeSWITCH at {address}"));
                if self.voice.about("connection", None) {
                    self.voice.say(format!("listening to FreeSWITCH at {address} again"));
                }
            }
            News::Lost(lost) => {
                self.connected = false;
                self.live.lost();
                let status = format!("not listening to FreeSWITCH: {lost}");
                self.systemd.status(status.clone());
                self.voice.about("connection", Some(status));
            }
        }
    }

    fn event(&mut self, frame: &Frame, now: Instant) {
        let mut event = match Event::parse(frame) {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(error) => {
                self.counts.unreadable += 1;
                return self.voice.now_and_then("events", now, || format!("{error}; it is passed over"));
            }
        };
        self.counts.last_event = Some(event.time);
        // FreeSWITCH's clock may go its own way (fsctl sync_clock), and fail2ban passes over what is long ago.
        let here = Timestamp::now();
        if event.time.duration_since(here).abs() > CLOCKS_DIFFER {
            self.voice.now_and_then("clock", now, || {
                "events are late, or FreeSWITCH's clock is not this host's (fs_cli -x 'fsctl sync_clock'); \
                 their lines have this host's time"
                    .to_owned()
            });
            event.time = here;
        }
        match (event.subclass, event.address) {
            (Subclass::Register, Some(address)) => {
                let expires = event.expires.unwrap_or(USUAL_EXPIRES);
                self.live.registered(address, event.time.as_second(), expires, now);
            }
            (Subclass::Unregister | Subclass::Expire, _) => self.live.left(now),
            _ => {}
        }
        let seen = self.watch.push(event, &self.live, now);
        for line in &seen.lines {
            self.write(line);
        }
        for refusal in seen.refusals {
            self.refused(refusal, now);
        }
    }

    /// Writes the lines about a refusal, or has it wait for the answer whether its account is known.
    fn refused(&mut self, refusal: Refusal, now: Instant) {
        let Some(account) = refusal.sip_account() else { return self.tell(&refusal, Known::Unknown) };
        match self.accounts.ask(&account, now) {
            AtOnce::Answer(known) => self.tell(&refusal, known),
            AtOnce::Asked => {
                let pending = Pending { refusal, account, until: now + KNOWN_PATIENCE };
                if self.pending.len() < MAX_PENDING {
                    self.pending.push_back(pending);
                } else {
                    self.give_up(pending);
                }
            }
        }
    }

    /// Writes the lines about a refusal, although an answer may still come.
    fn give_up(&mut self, Pending { refusal, account, .. }: Pending) {
        self.tell(&refusal, Known::Unknown);
        if self.late.len() >= MAX_LATE {
            self.late.pop_front();
        }
        self.late.push_back(Late { account, address: refusal.address, time: refusal.time });
    }

    fn tell(&mut self, refusal: &Refusal, known: Known) {
        for line in &self.watch.refused(refusal, known, &self.live, Instant::now()) {
            self.write(line);
        }
    }

    fn write(&mut self, line: &Line) {
        self.line.clear();
        line.append_to(&mut self.line);
        if self.log.write(&self.line) {
            self.counts.line(line.entry.kind());
        }
    }

    fn learn(&mut self, answer: Answer) {
        let answered = matches!(answer, Answer::Of(_));
        let why = self.accounts.learn(answer, Instant::now());
        let why = why.map(|why| format!("whether accounts exist is not known: {why}"));
        if answered || why.is_some() {
            self.voice.about("accounts", why);
        }
        for pending in std::mem::take(&mut self.pending) {
            match self.accounts.answer(&pending.account) {
                Some(known) => self.tell(&pending.refusal, known),
                None => self.pending.push_back(pending),
            }
        }
        for late in std::mem::take(&mut self.late) {
            match self.accounts.answer(&late.account) {
                Some(Known::Yes) => {
                    let Late { account, address, time } = &late;
                    let now = Instant::now();
                    if let Some(line) = self.watch.exists(account, *address, *time, &self.live, now) {
                        self.write(&line);
                    }
                }
                Some(Known::No | Known::Unknown) => {}
                None => self.late.push_back(late),
            }
        }
    }

    fn looked(&mut self, look: anyhow::Result<Found>) {
        let now = Instant::now();
        let why = match look {
            Ok(found) => self.live.found(found, now),
            Err(error) => {
                self.live.failed(now);
                Some(format!("{error:#}"))
            }
        };
        self.complain_of_registrations(why);
        // Nobody waits a second for the first snapshot.
        self.feed_due = self.feed_due.min(now);
    }

    fn complain_of_registrations(&mut self, why: Option<String>) {
        self.voice.about("registrations", why.map(|why| {
            format!("ringfence-ignore asks by itself who is registered: the registrations cannot be read: {why}")
        }));
    }

    /// When there is something to do although nothing happens.
    fn due(&self) -> Instant {
        let pending = self.pending.front().map(|pending| pending.until);
        let more = [self.watch.due(), pending, self.live.due(), self.systemd.due()];
        let metrics = self.metrics.as_ref().map(|_| self.metrics_due);
        more.into_iter().flatten().chain(metrics).fold(self.feed_due, Instant::min)
    }

    /// Does what is due.
    fn tick(&mut self, now: Instant) {
        while let Some(refusal) = self.watch.overdue(now) {
            self.refused(refusal, now);
        }
        while self.pending.front().is_some_and(|pending| pending.until <= now) {
            if let Some(pending) = self.pending.pop_front() {
                self.give_up(pending);
            }
        }
        while let Some(line) = self.watch.held(now) {
            self.write(&line);
        }
        if self.live.due().is_some_and(|due| due <= now) {
            if self.live.is_looking() {
                self.live.failed(now);
                self.complain_of_registrations(Some("no answer in time".to_owned()));
            } else if self.looker.offer(()) {
                self.live.begin(now);
            } else {
                self.live.postpone(now);
            }
        }
        if self.feed_due <= now {
            self.feed_due = now + FEED_EVERY;
            let clock = Timestamp::now();
            if let Some(everyone) = self.live.everyone(clock.as_second()) {
                self.feed.offer((everyone, self.live.is_complete(), clock));
            }
            self.look_at_the_log(now);
        }
        if self.metrics_due <= now {
            self.metrics_due = now + METRICS_EVERY;
            self.count();
        }
        self.systemd.tick(now);
    }

    fn look_at_the_log(&mut self, now: Instant) {
        self.voice.about("log", self.log.failure());
        self.voice.increase("dropped", self.log.dropped(), now, |more| {
            format!("{more} lines are lost: the disk did not take them in time")
        });
    }

    fn count(&self) {
        let Some(metrics) = &self.metrics else { return };
        let registered =
            self.live.everyone(Timestamp::now().as_second()).map(|everyone| everyone.iter().count());
        let present = Present { dropped: self.log.dropped(), connected: self.connected, registered };
        metrics.offer(self.counts.render(present));
    }

    /// Nothing more is read; what was read is written.
    fn end(mut self) {
        self.systemd.stopping();
        let now = Instant::now();
        for pending in std::mem::take(&mut self.pending) {
            self.tell(&pending.refusal, Known::Unknown);
        }
        while let Some(refusal) = self.watch.overdue(now + PATIENCE) {
            self.tell(&refusal, Known::Unknown);
        }
        self.connected = false;
        self.count();
        let Self { log, metrics, feed, systemd, voice, speaker, .. } = self;
        if !log.finish(END_PATIENCE) {
            voice.say("the last lines are lost: the disk did not take them in time".to_owned());
        }
        if let Some(metrics) = metrics {
            metrics.finish(LAST_WORDS);
        }
        systemd.finish(LAST_WORDS);
        drop((feed, voice));
        speaker.finish(LAST_WORDS);
    }
}
