//! Who is registered, kept up by FreeSWITCH's events between looks at the source, for the processes that would otherwise
//! ask it.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Found, snapshot};
use crate::config::Config;

/// The source is read so often.
const EVERY: Duration = Duration::from_mins(1);

/// It is read so long after somebody unregistered, or a registration ended.
const AFTER_LEAVING: Duration = Duration::from_secs(15);

/// No look takes longer, or it has failed.
const PATIENCE: Duration = Duration::from_secs(40);

/// After a look that failed, it is read again after this time.
const RETRY: Duration = Duration::from_secs(10);

/// FreeSWITCH keeps a registration for so long after its end, in seconds.
const GRACE: i64 = 60;

/// FreeSWITCH's tables have a registration by so long after its event.
const WRITTEN: Duration = Duration::from_secs(10);

/// A source that takes long to read is left alone so many times as long.
const REST: u32 = 10;

/// Where more addresses registered between two looks, the next look comes at once.
const MAX_HEARD: usize = 14_000;

/// Everybody's addresses, as long as the events come.
#[derive(Debug, Default)]
pub struct Live {
    /// As the last look found them, in the order of their addresses; none before the first that was complete.
    read: Option<Arc<[(IpAddr, u32)]>>,
    /// Whether nobody else's phones are in the source, of whom no event comes here.
    complete: bool,
    /// Of events: until when, in seconds since 1970, and when it came.
    heard: HashMap<IpAddr, (u32, Instant)>,
    look: Look,
    /// The source is left alone until then, whatever happens.
    rest: Option<Instant>,
}

/// All registered addresses at one time.
#[derive(Clone, Debug)]
pub struct Everyone {
    read: Arc<[(IpAddr, u32)]>,
    /// Of addresses that are not in it, or have a later end there; in the order of their addresses, too.
    heard: Vec<(IpAddr, u32)>,
    /// Seconds since 1970.
    now: i64,
}

/// When to look at the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Look {
    /// No event would tell what changes afterwards.
    #[default]
    Never,
    At(Instant),
    /// Somebody has been looking since then; and there is a reason to look again, at that time.
    Since(Instant, Option<Instant>),
    /// Somebody has been looking since then, but events were missed meanwhile.
    InVain(Instant, Option<Instant>),
}

impl Live {
    /// Events come from now on.
    pub fn connected(&mut self, now: Instant) {
        self.look = match self.look {
            Look::Since(began, _) | Look::InVain(began, _) => Look::InVain(began, Some(now)),
            Look::Never | Look::At(_) => Look::At(self.rested(now)),
        };
    }

    /// No events come any more: nothing is known for sure.
    pub fn lost(&mut self) {
        (self.read, self.heard) = (None, HashMap::new());
        self.look = match self.look {
            Look::Since(began, _) | Look::InVain(began, _) => Look::InVain(began, None),
            Look::Never | Look::At(_) => Look::Never,
        };
    }

    /// Somebody registered at `time` (seconds since 1970) for `expires` seconds, as an event says that comes `now`.
    pub fn registered(&mut self, address: IpAddr, time: i64, expires: u64, now: Instant) {
        let until = time.saturating_add_unsigned(expires).saturating_add(GRACE);
        let until = u32::try_from(until.max(0)).unwrap_or(u32::MAX);
        if self.heard.len() >= MAX_HEARD && !self.heard.contains_key(&address.to_canonical()) {
            (self.read, self.heard) = (None, HashMap::new());
            self.look_by(now);
        }
        let heard = self.heard.entry(address.to_canonical()).or_insert((until, now));
        *heard = (until.max(heard.0), now);
    }

    /// Somebody unregistered, or his registration ended. Others may be registered from the same address.
    pub fn left(&mut self, now: Instant) {
        self.look_by(now + AFTER_LEAVING);
    }

    /// When to look at the source next; while somebody [is looking](Self::is_looking), when he has [failed](Self::failed).
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        match self.look {
            Look::At(at) => Some(at),
            Look::Since(began, _) | Look::InVain(began, _) => Some(began + PATIENCE),
            Look::Never => None,
        }
    }

    /// Whether somebody looks at the source.
    #[must_use]
    pub fn is_looking(&self) -> bool {
        matches!(self.look, Look::Since(..) | Look::InVain(..))
    }

    /// A look cannot begin `now`: it is to be tried later.
    pub fn postpone(&mut self, now: Instant) {
        self.look = Look::At(now + RETRY);
    }

    /// A look begins; hand its outcome to [`found`](Self::found) or [`failed`](Self::failed).
    pub fn begin(&mut self, now: Instant) {
        self.look = Look::Since(now, None);
    }

    /// A look has ended, `now`. Why it does not count, if that is so.
    pub fn found(&mut self, found: Found, now: Instant) -> Option<String> {
        if let Some(why) = found.failure() {
            self.failed(now);
            return Some(why);
        }
        match self.look {
            Look::Since(began, again) => {
                (self.read, self.complete) = (Some(found.registered.into_iter().collect()), found.complete);
                // What came while it was read, or shortly before, may not be in it.
                self.heard.retain(|_, (_, at)| *at + WRITTEN > began);
                self.rest_after(began, now);
                let next = again.map_or(now + EVERY, |again| again.min(now + EVERY));
                self.look = Look::At(self.rested(next));
            }
            _ => self.failed(now),
        }
        None
    }

    /// A look has failed, `now`: nothing is known for sure, and those who ask are to ask the source, and to hear of its trouble.
    pub fn failed(&mut self, now: Instant) {
        self.read = None;
        if let Look::Since(began, _) | Look::InVain(began, _) = self.look {
            self.rest_after(began, now);
        }
        self.look = match self.look {
            Look::Since(..) => Look::At(self.rested(now + RETRY)),
            Look::InVain(_, Some(again)) => Look::At(self.rested(again)),
            Look::InVain(_, None) => Look::Never,
            other => other,
        };
    }

    /// All registered addresses at `now` (seconds since 1970); none if they are not all known.
    #[must_use]
    pub fn everyone(&self, now: i64) -> Option<Everyone> {
        let read = self.read.clone()?;
        let heard = self.heard.iter().map(|(address, (until, _))| (*address, *until));
        let heard = heard.filter(|(address, until)| end(&read, *address).is_none_or(|read| read < *until));
        let mut heard: Vec<_> = heard.collect();
        heard.sort_unstable();
        Some(Everyone { read, heard, now })
    }

    /// How many addresses are registered, about: those that were read.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read.as_ref().map_or(0, |read| read.len())
    }

    /// Whether nobody was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether who is not among [`everyone`](Self::everyone) is not registered: so it is unless other nodes share the source.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether an address is known to be registered at `now` (seconds since 1970).
    #[must_use]
    pub fn is_registered(&self, address: IpAddr, now: i64) -> bool {
        let address = address.to_canonical();
        let read = self.read.as_ref().and_then(|read| end(read, address));
        let heard = self.heard.get(&address).map(|(until, _)| *until);
        read.into_iter().chain(heard).any(|until| i64::from(until) > now)
    }

    fn look_by(&mut self, at: Instant) {
        let at = self.rested(at);
        let sooner = |other: Option<Instant>| Some(other.map_or(at, |other| other.min(at)));
        self.look = match self.look {
            Look::Never => Look::Never,
            Look::At(other) => Look::At(other.min(at)),
            Look::Since(began, again) => Look::Since(began, sooner(again)),
            Look::InVain(began, again) => Look::InVain(began, again.and(sooner(again))),
        };
    }

    /// The source rests after a look from then to now.
    fn rest_after(&mut self, began: Instant, now: Instant) {
        self.rest = Some(now + now.saturating_duration_since(began) * REST);
    }

    /// Then, or when the source has rested.
    fn rested(&self, at: Instant) -> Instant {
        self.rest.map_or(at, |rest| at.max(rest))
    }
}

impl Everyone {
    /// Each address, and when its last registration ends, in seconds since 1970.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, u32)> {
        let read = self.read.iter().filter(|(address, _)| end(&self.heard, *address).is_none());
        read.chain(&self.heard).copied().filter(|(_, until)| i64::from(*until) > self.now)
    }
}

/// When the registration of an address ends, by a list in the order of addresses.
fn end(list: &[(IpAddr, u32)], address: IpAddr) -> Option<u32> {
    list.binary_search_by_key(&address, |(address, _)| *address).ok().map(|at| list[at].1)
}

/// Where `ringfence-ignore` finds who is registered without asking anybody.
#[derive(Clone, Debug)]
pub struct Feed {
    run_dir: PathBuf,
    fingerprint: u64,
}

impl Feed {
    /// For those with these settings.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self { run_dir: config.run_dir.clone(), fingerprint: snapshot::fingerprint(&config.registrations) }
    }

    /// Tells them who is [registered](Live::everyone) at `now` (milliseconds since 1970), and whether these are
    /// [all](Live::is_complete). It counts for a few seconds.
    pub fn write(
        &self,
        everyone: impl IntoIterator<Item = (IpAddr, u32)>,
        complete: bool,
        now: i64,
    ) -> io::Result<()> {
        snapshot::write_live(&self.run_dir, self.fingerprint, everyone, complete, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_000_000;
    const A: &str = "203.0.113.1";
    const B: &str = "203.0.113.2";

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn found(addresses: &[&str]) -> Found {
        let registered = addresses.iter().map(|text| (address(text), 1_795_000_300)).collect();
        Found { registered, complete: true, ..Found::default() }
    }

    fn everyone(live: &Live) -> Option<Vec<IpAddr>> {
        let mut all: Vec<_> = live.everyone(NOW)?.iter().map(|(address, _)| address).collect();
        all.sort();
        Some(all)
    }

    fn after(now: Instant, seconds: u64) -> Instant {
        now + Duration::from_secs(seconds)
    }

    #[test]
    fn events_add_to_what_was_read() {
        let (mut live, now) = (Live::default(), Instant::now());
        live.connected(now);
        live.registered(address(B), NOW, 300, now);
        assert_eq!((live.due(), everyone(&live)), (Some(now), None), "not all are known");
        assert!(live.is_registered(address(B), NOW) && !live.is_registered(address(A), NOW));
        live.begin(now);
        assert!(live.is_looking());
        assert_eq!(live.found(found(&[A]), after(now, 1)), None);
        assert!(!live.is_looking());
        assert_eq!(everyone(&live), Some(vec![address(A), address(B)]), "it came shortly before");
        assert!(live.is_registered(address("::ffff:203.0.113.2"), NOW + 359));
        assert!(!live.is_registered(address(B), NOW + 360), "it has ended");
        assert_eq!(live.due(), Some(after(now, 61)));
        live.registered(address(A), NOW, 300, after(now, 60));
        let all: HashMap<_, _> = live.everyone(NOW).unwrap().iter().collect();
        assert_eq!(all[&address(A)], 1_795_000_360, "the later end counts");
        assert_eq!((live.everyone(NOW).unwrap().iter().count(), live.len()), (2, 1));
        live.begin(after(now, 61));
        assert_eq!(live.found(found(&[A]), after(now, 62)), None);
        assert_eq!(everyone(&live), Some(vec![address(A)]));
    }

    #[test]
    fn what_came_while_it_was_read_stays() {
        let (mut live, now) = (Live::default(), Instant::now());
        live.connected(now);
        live.begin(after(now, 60));
        live.registered(address(B), NOW, 300, after(now, 61));
        live.left(after(now, 62));
        assert_eq!(live.found(found(&[]), after(now, 63)), None);
        assert_eq!(everyone(&live), Some(vec![address(B)]));
        assert_eq!(live.due(), Some(after(now, 93)), "somebody left meanwhile, and it took three seconds");
    }

    #[test]
    fn a_slow_source_is_left_alone_for_a_while() {
        let (mut live, now) = (Live::default(), Instant::now());
        live.connected(now);
        live.begin(now);
        assert_eq!(live.found(found(&[A]), after(now, 20)), None);
        assert_eq!(live.due(), Some(after(now, 220)));
        live.left(after(now, 21));
        assert_eq!(live.due(), Some(after(now, 220)));
        live.lost();
        live.connected(after(now, 22));
        assert_eq!(live.due(), Some(after(now, 220)));
        live.postpone(after(now, 220));
        assert_eq!(live.due(), Some(after(now, 230)));
    }

    #[test]
    fn a_look_without_end_has_failed() {
        let (mut live, now) = (Live::default(), Instant::now());
        live.connected(now);
        live.begin(now);
        assert_eq!(live.found(found(&[A]), now), None);
        live.begin(after(now, 60));
        assert_eq!((live.due(), live.is_looking()), (Some(after(now, 100)), true));
        live.failed(after(now, 100));
        assert_eq!((live.due(), live.is_looking(), everyone(&live)), (Some(after(now, 500)), false, None));
        assert_eq!(live.found(found(&[A]), after(now, 101)), None);
        assert_eq!((live.due(), everyone(&live)), (Some(after(now, 500)), None), "it comes too late");
    }

    #[test]
    fn a_look_that_failed_is_repeated() {
        let (mut live, now) = (Live::default(), Instant::now());
        live.connected(now);
        live.begin(now);
        let part = Found { failures: vec!["core.db: locked".into()], ..found(&[A]) };
        assert_eq!(live.found(part, now).as_deref(), Some("core.db: locked"));
        assert_eq!((live.due(), everyone(&live)), (Some(after(now, 10)), None));
        live.begin(now);
        assert_eq!(live.found(found(&[A]), now), None);
        live.begin(now);
        live.failed(now);
        assert_eq!(everyone(&live), None, "who asks is to hear of the trouble");
        live.begin(now);
        assert_eq!(live.found(Found { complete: false, ..found(&[A]) }, now), None);
        assert!(everyone(&live).is_some() && !live.is_complete(), "other nodes' phones may be anywhere");
    }

    #[test]
    fn nothing_is_known_without_events() {
        let (mut live, now) = (Live::default(), Instant::now());
        live.left(now);
        assert_eq!(live.due(), None);
        live.connected(now);
        live.begin(now);
        live.lost();
        live.connected(after(now, 1));
        assert_eq!(live.found(found(&[A]), now), None);
        assert_eq!(everyone(&live), None, "it was begun before events were missed");
        assert_eq!(live.due(), Some(after(now, 1)));
        live.begin(after(now, 2));
        live.lost();
        live.failed(after(now, 3));
        assert_eq!((live.due(), everyone(&live)), (None, None));
    }

    #[test]
    fn too_many_events_are_a_reason_to_look() {
        let (mut live, now) = (Live::default(), Instant::now());
        live.connected(now);
        live.begin(now);
        live.found(found(&[A]), now);
        for number in 0..=u32::try_from(MAX_HEARD).unwrap() {
            live.registered(IpAddr::V4(number.into()), NOW, 300, after(now, 1));
        }
        assert_eq!((live.due(), everyone(&live)), (Some(after(now, 1)), None));
    }
}
