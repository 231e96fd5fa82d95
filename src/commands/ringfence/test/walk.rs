//! `ringfence test --walk`: a real failure, watched from the log to the jails, by an address that cannot be banned for it.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failing::{Counting, Counts, Failing};
use super::packets::{Kernel, Outcome, Sender};
use super::{Args, let_in};
use crate::account::SipAccount;
use crate::commands::allow::Meanwhile;
use crate::commands::causes;
use crate::commands::events::tail;
use crate::commands::ringfence::complain;
use crate::config::{Config, Mode, spelled};
use crate::events::line::{Entry, Line};
use crate::evidence::visible;
use crate::exit::Exit;
use crate::failures::{Account, Failure, Why, event_log, freeswitch_log};
use crate::state_file;

/// The log is looked at so often.
const LOOK: Duration = Duration::from_millis(250);

/// So long it goes on behind the first failure: other lines about it come a moment later.
const GRACE: Duration = Duration::from_secs(2);

/// The allow list has the address so much longer: fail2ban may be late.
const LONGER: Duration = Duration::from_mins(1);

/// What came of it, as JSON has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Walked {
    address: IpAddr,
    account: Option<SipAccount>,
    /// Which log was watched.
    log: PathBuf,
    /// Whether it was allowed before.
    was_allowed: bool,
    /// Whether all is again as it was before.
    undone: bool,
    seen: Vec<Seen>,
    /// What would follow without the walk.
    otherwise: Failing,
}

/// Something that happened to the address.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Seen {
    time: Timestamp,
    kind: Kind,
    account: String,
    /// What is wrong.
    why: Option<&'static str>,
    user_agent: Option<String>,
    /// What jails make of it.
    jails: Vec<Counting>,
}

/// What a log may say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Failure,
    /// A failure that no jail counts.
    Excused,
    Success,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Excused => "excused",
            Self::Success => "success",
        }
    }

    const fn is_failure(self) -> bool {
        matches!(self, Self::Failure | Self::Excused)
    }
}

pub(super) fn run(config: &Config, args: &Args) -> anyhow::Result<Exit> {
    if state_file::effective_user() != 0 {
        bail!("this needs root: it allows the address for a while");
    }
    let now = Timestamp::now();
    let address = args.address.to_canonical();
    let account = args.account.as_ref();
    let mut log = Log::open(config)?;
    // Whoever interrupts us is heard from here on.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let mut problems = vec![];
    let otherwise = Failing::foresee(config, address, account, now, &mut problems);
    for problem in &problems {
        complain(problem);
    }
    // FreeSWITCH writes its own log too, whichever is watched.
    let logs: Vec<&Path> = freeswitch_log::USUAL.into_iter().map(Path::new).chain([&*log.path]).collect();
    if let Some(risk) = otherwise.risk(config, address, &logs) {
        bail!("a failure could cost {address} a ban: {risk}");
    }
    let telling = Telling { json: args.json, zone: TimeZone::system() };
    let seconds = i64::try_from((args.time + LONGER).as_secs()).unwrap_or(0);
    let meanwhile = allow(config, address, seconds)?;
    let walked = (|| {
        let during = Failing::foresee(config, address, account, Timestamp::now(), &mut vec![]);
        telling.begin(args, &log, meanwhile.as_ref());
        if let Some(why) = unreachable(config, address, account) {
            telling.say(&format!("But a REGISTER of {address} does not get through: it is {why}."))?;
        }
        let mut watch = Watch { address, account, during: &during, telling: &telling, seen: vec![] };
        watch.until(&mut log, args.time, &runtime, &mut signals)?;
        Ok(watch.seen)
    })();
    // Whatever happened: the address is not allowed for longer than it should be.
    let was_allowed = meanwhile.as_ref().is_none_or(Meanwhile::was_allowed);
    let undone = meanwhile.map_or(Ok(()), Meanwhile::undo);
    if let Err(error) = &undone {
        let longest = spelled(args.time + LONGER);
        complain(&format!("{address} stays allowed for up to {longest}: {}", causes(error)));
    }
    let seen: Vec<Seen> =
        walked.map_err(|error: io::Error| anyhow::Error::new(error).context("the walk broke off"))?;
    let walked = Walked {
        address,
        account: account.cloned(),
        log: log.path.clone(),
        was_allowed,
        undone: undone.is_ok(),
        seen,
        otherwise,
    };
    telling.end(&walked, args.time)?;
    Ok(if walked.failed() { Exit::Yes } else { Exit::No })
}

/// What allows the address; nothing where nobody is banned.
fn allow(config: &Config, address: IpAddr, seconds: i64) -> anyhow::Result<Option<Meanwhile>> {
    if config.mode == Mode::Observe {
        return Ok(None);
    }
    Meanwhile::allow(config, address, seconds, "ringfence test --walk")
        .map(Some)
        .with_context(|| format!("{address} cannot be allowed for the walk"))
}

/// Why nothing can come of it, if that is known.
fn unreachable(config: &Config, address: IpAddr, account: Option<&SipAccount>) -> Option<String> {
    let sender = Sender { address, account };
    let trials = Kernel::read(config, &sender, Timestamp::now()).ok()?.try_all(config, &sender);
    let refused = trials.iter().find(|trial| trial.sip && trial.outcome != Outcome::LetIn)?;
    (let_in(&trials) == Some(false)).then(|| format!("{} by {}", refused.outcome.words(), refused.by))
}

impl Walked {
    /// Whether a failure was seen.
    fn failed(&self) -> bool {
        self.seen.iter().any(|seen| seen.kind.is_failure())
    }
}

/// How it is told.
struct Telling {
    json: bool,
    zone: TimeZone,
}

impl Telling {
    fn say(&self, text: &str) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        writeln!(out, "{}", visible(text))?;
        out.flush()
    }

    fn begin(&self, args: &Args, log: &Log, meanwhile: Option<&Meanwhile>) {
        let address = args.address.to_canonical();
        let time = spelled(args.time);
        let allowed = match meanwhile {
            None => format!("{address} needs no allow list: mode is observe, and nobody is banned."),
            Some(meanwhile) if meanwhile.was_allowed() => {
                format!("{address} is allowed already, and stays so.")
            }
            Some(_) => format!("{address} is on the allow list for the walk, and then as it was."),
        };
        let who = args.account.as_ref().map_or_else(String::new, |account| format!(" as {account}"));
        for text in [
            allowed,
            format!("Watching {} for {time}; Ctrl-C ends it.", log.path.display()),
            format!("Now let a phone at {address} register{who} with a wrong password."),
        ] {
            // Nobody needs to listen.
            let _ = self.say(&text);
        }
    }

    fn tell(&self, seen: &Seen, fail2ban: Option<bool>) -> io::Result<()> {
        let time = seen.time.to_zoned(self.zone.clone()).strftime("%T").to_string();
        let why = seen.why.map_or_else(String::new, |why| format!(", {why}"));
        let agent = seen.user_agent.as_ref().map_or_else(String::new, |agent| format!(" ({agent})"));
        self.say(&format!("{time}  {}: {}{why}{agent}", seen.kind.word(), seen.account))?;
        for jail in &seen.jails {
            self.say(&format!(
                "          {} counts it for {}; {}",
                jail.jail,
                jail.counts.words(),
                jail.then()
            ))?;
        }
        match seen.kind {
            Kind::Excused => {
                self.say("          An alarm is on, so that no jail counts it: very many fail at once.")
            }
            Kind::Failure if fail2ban == Some(false) => self.say("          fail2ban does not run."),
            Kind::Failure if seen.jails.is_empty() => self.say("          No jail of fail2ban counts it."),
            Kind::Failure | Kind::Success => Ok(()),
        }
    }

    fn end(&self, walked: &Walked, time: Duration) -> anyhow::Result<()> {
        if self.json {
            return Ok(writeln!(io::stdout(), "{}", serde_json::to_string_pretty(walked)?)?);
        }
        let address = walked.address;
        self.say("")?;
        if !walked.failed() {
            let registered = walked.seen.iter().any(|seen| seen.kind == Kind::Success);
            let hint = if registered {
                "It registered: its password was right.".to_owned()
            } else {
                format!(
                    "Is the phone behind that address, does FreeSWITCH get its packets (ringfence test {address}), and is \
                     {} written to?",
                    walked.log.display()
                )
            };
            return Ok(
                self.say(&format!("No failure of {address} was seen within {}. {hint}", spelled(time)))?
            );
        }
        let at_risk = walked.seen.iter().flat_map(|seen| &seen.jails).find(|jail| jail.bans_address());
        self.say(&match at_risk {
            None => format!("The failure of {address} was seen, and no jail bans {address} for it."),
            Some(jail) => {
                format!("The failure of {address} was seen; {} counted it: {}.", jail.jail, jail.then())
            }
        })?;
        let jails = walked.otherwise.jails.iter();
        let bans: Vec<String> = jails
            .filter(|jail| jail.bans_address())
            .map(|jail| format!("{} {}", jail.jail, jail.then()))
            .collect();
        let standing = &walked.otherwise.standing;
        let text = if bans.is_empty() {
            format!("Nor would it without the walk: {standing}.")
        } else {
            format!("Without the walk ({standing}), if it went on: {}.", bans.join("; "))
        };
        Ok(self.say(&text)?)
    }
}

/// What happens to an address.
struct Watch<'a> {
    address: IpAddr,
    account: Option<&'a SipAccount>,
    /// What follows a failure while it is allowed.
    during: &'a Failing,
    telling: &'a Telling,
    seen: Vec<Seen>,
}

impl Watch<'_> {
    /// Until its time is over, a failure was seen, or somebody does not want to wait.
    fn until(
        &mut self,
        log: &mut Log,
        time: Duration,
        runtime: &tokio::runtime::Runtime,
        signals: &mut Signals,
    ) -> io::Result<()> {
        let mut end = Instant::now() + time;
        let mut failed = false;
        while Instant::now() < end {
            log.read(|event| self.take(&event))?;
            if !failed && self.seen.iter().any(|seen| seen.kind.is_failure()) {
                failed = true;
                end = end.min(Instant::now() + GRACE);
            }
            if runtime.block_on(signals.within(LOOK)) {
                break;
            }
        }
        Ok(())
    }

    fn take(&mut self, event: &Event) -> io::Result<()> {
        let (time, address, account, failure) = match event {
            Event::Failure(failure) => (failure.time, failure.address, &failure.account, Some(failure)),
            Event::Success { time, address, account } => (*time, *address, account, None),
        };
        if address != self.address || self.account.is_some_and(|wanted| !account.is(wanted)) {
            return Ok(());
        }
        let kind = failure.map_or(
            Kind::Success,
            |failure| {
                if failure.excused { Kind::Excused } else { Kind::Failure }
            },
        );
        let why = failure.map(|failure| failure.why);
        let seen = Seen {
            time,
            kind,
            account: account.to_string(),
            why: why.map(Why::words),
            user_agent: failure.map(|failure| failure.agent.clone()).filter(|agent| !agent.is_empty()),
            jails: if kind == Kind::Failure { self.jails(why) } else { vec![] },
        };
        self.telling.tell(&seen, self.during.fail2ban)?;
        self.seen.push(seen);
        Ok(())
    }

    /// Those that count such a failure.
    fn jails(&self, why: Option<Why>) -> Vec<Counting> {
        let counts = |jail: &&Counting| match jail.counts {
            Counts::Address => true,
            Counts::Account => why == Some(Why::NoSuchAccount),
            Counts::Device => why == Some(Why::WrongPassword),
        };
        self.during.jails.iter().filter(counts).cloned().collect()
    }
}

/// What a log says.
enum Event {
    Failure(Failure),
    Success { time: Timestamp, address: IpAddr, account: Account },
}

/// The log that is watched, from its end on.
struct Log {
    path: PathBuf,
    source: Source,
}

enum Source {
    Events(tail::Reader),
    FreeSwitch { lines: tail::Reader, reader: freeswitch_log::Reader },
}

impl Log {
    fn open(config: &Config) -> anyhow::Result<Self> {
        let path = config.events_path();
        let cannot_read = |path: &Path| format!("cannot read {}", path.display());
        if path.try_exists().with_context(|| cannot_read(&path))? {
            let reader = tail::Reader::open(&path, 0).with_context(|| cannot_read(&path))?;
            return Ok(Self { path, source: Source::Events(reader) });
        }
        let Some(own) = freeswitch_log::USUAL.map(Path::new).into_iter().find(|path| path.exists()) else {
            bail!(
                "there is no log to watch: neither {} (ringfence-events run writes it) nor FreeSWITCH's own in {}",
                path.display(),
                freeswitch_log::USUAL.join(" or ")
            )
        };
        let lines = tail::Reader::open_by(state_file::open_regular, freeswitch_log::LONGEST, own, 0);
        let lines = lines.with_context(|| cannot_read(own))?;
        let reader = freeswitch_log::Reader::new(&TimeZone::system());
        let source = Source::FreeSwitch { lines, reader };
        Ok(Self { path: own.to_owned(), source })
    }

    /// What has come.
    fn read(&mut self, mut each: impl FnMut(Event) -> io::Result<()>) -> io::Result<()> {
        match &mut self.source {
            Source::Events(reader) => {
                reader.read(|lines| lines.iter().filter_map(|line| of_line(line)).try_for_each(&mut each))
            }
            Source::FreeSwitch { lines, reader } => {
                let mut idle = true;
                lines.read(|lines| {
                    idle = false;
                    lines.into_iter().try_for_each(|mut line| {
                        // One that was cut short has no end.
                        if line.len() <= freeswitch_log::LONGEST {
                            line.push(b'\n');
                        }
                        reader.push(&line).map(Event::Failure).map_or(Ok(()), &mut each)
                    })
                })?;
                // Nothing follows that would end the last entry.
                if idle { reader.rest().map(Event::Failure).map_or(Ok(()), &mut each) } else { Ok(()) }
            }
        }
    }
}

fn of_line(line: &[u8]) -> Option<Event> {
    let line = Line::parse(line).ok()?;
    if let Entry::Success { address, account, .. } = &line.entry {
        let account = Account {
            user: String::from_utf8_lossy(account.user.bytes()).into_owned(),
            domain: String::from_utf8_lossy(account.domain.bytes()).into_owned(),
        };
        return Some(Event::Success { time: line.time.get(), address: address.get(), account });
    }
    event_log::failure(&line).map(Event::Failure)
}

/// What tells us to end.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> io::Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    /// Whether one came within this time.
    async fn within(&mut self, time: Duration) -> bool {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
            _ = hangup.recv() => true,
            () = tokio::time::sleep(time) => false,
        }
    }
}
