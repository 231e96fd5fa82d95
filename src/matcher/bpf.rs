//! By a program in the kernel: it reads each SIP request once, and looks its account up in a map.
//!
//! ```text
//! packet -> tc ingress of each interface that faces the network -> ringfence (bpf/ringfence.c)
//!           UDP to a SIP port?    settings: the ports
//!           account blocked?      blocked: account, and account with source -> deadline, packets dropped
//! ```
//!
//! Program, maps and attachments are pinned below `/sys/fs/bpf/ringfence`: they stay when no process of ours runs, and a block ends in
//! the kernel by itself. What is there is named after its layout: other maps are in another directory. No rule of iptables is needed, and
//! none that anybody flushes matters.
//!
//! It is brought in so that what works goes on working whatever fails: first the map that is there is set right, by which people are let
//! go. Then the program is loaded, unless it is there, with that map if it fits; pinned beside what is there, and put in its place at
//! once; attached to each interface by itself; and at last it is written down which program that is.
//!
//! The account is that of `Authorization` or `Proxy-Authorization`, in every form of known phones and in most that FreeSWITCH understands
//! (not with a backslash in a name, and not without the commas); of a `REGISTER`, `SUBSCRIBE` or `PUBLISH` without them, that of `From`:
//! a server challenges whoever sends these, and the `From` of others may be a caller's number.
//!
//! What it misses: what is behind the first 2048 bytes of a message, or not in the first of its fragments; several datagrams in one
//! packet (GRO); a message with more than 256 lines, parameters and quotes before that; lines that
//! end with CR alone; TCP and TLS. That passes.

use std::collections::{BTreeSet, HashMap};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use anyhow::{Context, anyhow, bail, ensure};
use aya::EbpfLoader;
use aya::maps::{Map, MapData, MapError};
use aya::programs::{ProgramError, SchedClassifier};
use jiff::Timestamp;
use rustix::io::Errno;

use crate::account::Offender;
use crate::config::block::MaxBlocks;
use crate::config::{Config, Ports};
use crate::drops::Met;
use crate::evidence::visible_within;
use crate::host::{self, Interface};
use hash::Secret;
use program::{BLOCKED, Blocked, Entry, Key, PROGRAM, Program, SETTINGS, SettingsMap, Value, key};

mod attach;
mod hash;
#[cfg(test)]
mod model;
mod program;
#[cfg(test)]
mod scratch;
#[cfg(test)]
mod tests;
mod trial;

pub use trial::forget;

/// The file system of pins.
const BPFFS: &str = "/sys/fs/bpf";

/// Which maps there are, and what is in them; increased with each change of that.
const LAYOUT: &str = "1";

/// In the directory of pins: a mark of the network namespace whose interfaces the others mean; its number follows.
const NETWORK: &str = "netns_";

/// Linux has what the program needs since then, `bpf_loop`; older ones of distributions may have it too.
const OLDEST: &str = "5.17";

/// A deadline that differs by less is the same: the clocks of wall and boot are not read at once. In nanoseconds.
const SAME: u64 = 1_000_000_000;

/// What the program goes by.
#[derive(Clone, Debug)]
pub struct Settings {
    ports: Ports,
    /// By name; without any, those with a default route or an address that others can reach.
    interfaces: Vec<String>,
    /// Nobody is blocked before that, in seconds since 1970.
    paused: Option<i64>,
}

impl Settings {
    /// As the settings say.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            ports: config.firewall.sip_ports.clone(),
            interfaces: config.block.interfaces.names().to_vec(),
            paused: None,
        }
    }

    /// The same in a pause that lasts until then, in seconds since 1970.
    #[must_use]
    pub fn paused(self, until: Option<i64>) -> Self {
        Self { paused: until, ..self }
    }

    /// Those of `all` to which it is to be attached.
    fn wanted(&self, all: &[Interface]) -> anyhow::Result<Vec<Interface>> {
        if self.interfaces.is_empty() {
            let mut all: BTreeSet<_> = host::uplinks()?.into_iter().collect();
            all.extend(host::with_addresses()?);
            return Ok(all.into_iter().collect());
        }
        let named = |interface: &&Interface| self.interfaces.contains(&interface.name);
        Ok(all.iter().filter(named).cloned().collect())
    }
}

/// Where the program looks at packets, and the names of interfaces that are not there.
pub fn places(settings: &Settings) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let wanted = settings.wanted(&host::interfaces()?)?;
    let attached = |interface: &Interface| attach::is_attached(interface, &pins());
    let there = wanted.iter().filter(|interface| attached(interface)).map(|interface| interface.name.clone());
    let missing = settings.interfaces.iter();
    let missing = missing.filter(|name| wanted.iter().all(|interface| interface.name != **name));
    Ok((there.collect(), missing.cloned().collect()))
}

/// The names of interfaces with an address at which it does not look.
pub fn unwatched(settings: &Settings) -> anyhow::Result<Vec<String>> {
    let wanted = settings.wanted(&host::interfaces()?)?;
    let others = host::with_addresses()?.into_iter().filter(|interface| !wanted.contains(interface));
    Ok(others.map(|interface| interface.name).collect())
}

/// Why it would look at no interface at all, if that is so.
pub fn no_place(settings: &Settings) -> anyhow::Result<Option<String>> {
    let none = settings.wanted(&host::interfaces()?)?.is_empty();
    Ok(none.then(|| match settings.interfaces.as_slice() {
        [] => "no interface has an address or a default route; name those that face the network (interfaces in [block])"
            .to_owned(),
        names => format!("there is no interface {} (interfaces in [block])", names.join(", ")),
    }))
}

/// Who is blocked until when, in seconds since 1970.
pub type Blocks<'a> = HashMap<&'a Offender, i64>;

/// The maps in the kernel, which stay when this value goes.
#[derive(Debug)]
pub struct InKernel {
    blocked: Blocked,
    /// The number of that map.
    id: u32,
    /// As they are written down.
    settings: program::Settings,
    met: Met,
}

/// Why the program does not match.
#[derive(Debug)]
pub enum Fault {
    /// This host cannot have it.
    Impossible(String),
    /// Who calls may not bring it in.
    Denied(String),
    /// It may go better next time.
    Failed(anyhow::Error),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Impossible(why) | Self::Denied(why) => f.write_str(why),
            Self::Failed(error) => write!(f, "{error:#}"),
        }
    }
}

impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// What came of it.
#[derive(Debug)]
pub struct BroughtIn {
    /// Something was not as it should be.
    pub changed: bool,
    /// Where it does not look at packets, though it should, and why.
    pub faults: Vec<String>,
}

/// Where it is pinned.
fn root() -> PathBuf {
    Path::new(BPFFS).join("ringfence")
}

fn pins() -> PathBuf {
    root().join(LAYOUT)
}

/// What is in a directory of pins; nothing where it is not there.
fn files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let read = || fs::read_dir(dir)?.map(|file| Ok(file?.path())).collect::<std::io::Result<Vec<_>>>();
    match read() {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(vec![]),
        files => files.with_context(|| format!("cannot read {}", dir.display())),
    }
}

/// The mark of the network namespace of this thread.
fn network() -> anyhow::Result<String> {
    const FILE: &str = "/proc/thread-self/ns/net";
    let number = fs::metadata(FILE).with_context(|| format!("cannot read {FILE}"))?.ino();
    Ok(format!("{NETWORK}{number}"))
}

/// Whether pins are about the interfaces of another network namespace.
fn is_anothers(pins: &Path) -> anyhow::Result<bool> {
    if !pins.exists() || pins.join(network()?).exists() {
        return Ok(false);
    }
    let is_mark = |file: &PathBuf| {
        file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(NETWORK.as_bytes()))
    };
    Ok(files(pins)?.iter().any(is_mark))
}

/// Nanoseconds since boot, with those asleep.
fn boot_clock() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap_or_default() * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or_default()
}

/// Why this host cannot have it, as far as that can be known without trying.
#[must_use]
pub fn obstacle() -> Option<String> {
    const MAGIC: u32 = 0xcafe_4a11;
    if cfg!(target_endian = "big") {
        return Some("it is built for little-endian machines only".to_owned());
    }
    match rustix::fs::statfs(BPFFS) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "32 bits are used")]
        Ok(found) if found.f_type as u32 == MAGIC => {}
        _ => return Some(format!("no bpffs is mounted; run: mount -t bpf bpf {BPFFS}")),
    }
    let anothers = is_anothers(&pins()).unwrap_or_default();
    anothers.then(|| {
        let pins = pins();
        format!("{0} is of another network namespace; if that is gone, run: rm -r {0}", pins.display())
    })
}

/// Why this host cannot have it: what is known, and what the kernel said to the program since it was booted. What is there works,
/// of whatever build.
#[must_use]
pub fn impossible(run_dir: &Path) -> Option<String> {
    obstacle().or_else(|| if is_at_work() { None } else { trial::refusal(run_dir) })
}

/// The same without trying.
#[must_use]
pub fn known_impossible(run_dir: &Path) -> Option<String> {
    obstacle().or_else(|| if is_at_work() { None } else { trial::remembered(run_dir) })
}

/// Whether it looks at packets somewhere, as far as pins tell.
fn is_at_work() -> bool {
    let attached = || attach::is_somewhere(&pins()).unwrap_or_default();
    pins().join(PROGRAM).exists() && InKernel::open().is_ok_and(|there| there.is_some()) && attached()
}

/// Whether something of it is there, of whatever version.
#[must_use]
pub fn is_there() -> bool {
    root().exists()
}

impl InKernel {
    /// What is there, of whatever build of this layout.
    pub fn open() -> anyhow::Result<Option<Self>> {
        let pins = pins();
        let there = [BLOCKED, SETTINGS].iter().all(|name| pins.join(name).exists());
        if !there || is_anothers(&pins)? {
            return Ok(None);
        }
        let blocked = open_map(&pins.join(BLOCKED))?;
        let about = blocked.info()?;
        let (id, room) = (about.id(), about.max_entries());
        if room < MaxBlocks::BPF.get() {
            bail!("{} has room for {room} only", pins.join(BLOCKED).display());
        }
        let blocked = Blocked::try_from(Map::from_map_data(blocked)?)?;
        let settings = program::Settings::from_bytes(&settings_map(&pins)?.get(&0, 0)?);
        Ok(Some(Self { blocked, id, settings, met: Met::default() }))
    }

    /// Whether the program is there too, of this very build.
    fn is_current(&self) -> bool {
        self.settings.program == program::fingerprint() && pins().join(PROGRAM).exists()
    }

    /// The program that is pinned, if it uses these maps.
    fn program(&self) -> Option<SchedClassifier> {
        let program = SchedClassifier::from_pin(pins().join(PROGRAM)).ok()?;
        let maps = program.info().ok()?.map_ids().ok().flatten();
        // Who may not ask goes by the names.
        maps.is_none_or(|maps| maps.contains(&self.id)).then_some(program)
    }

    /// What is there, if it is as it should be, as far as pins tell: that costs no look at the program.
    pub fn ready(settings: &Settings, now: Timestamp) -> anyhow::Result<Option<Self>> {
        let Some(there) = Self::open()? else { return Ok(None) };
        let wanted = settings.wanted(&host::interfaces()?)?;
        let attached = |interface| attach::is_attached(interface, &pins());
        let as_it_should_be = there.is_current()
            && there.settings == there.settings_for(settings, now)
            && !wanted.is_empty()
            && wanted.iter().all(attached);
        Ok(as_it_should_be.then_some(there))
    }

    /// What should be written down.
    fn settings_for(&self, settings: &Settings, now: Timestamp) -> program::Settings {
        let mut wanted = program::Settings::new(self.settings.secret, &settings.ports);
        let there = self.settings.paused;
        wanted.paused = match settings.paused.map(|until| deadline(until, now)) {
            Some(until) if until.abs_diff(there) < SAME => there,
            Some(until) => until,
            // What is over does nothing.
            None if there <= boot_clock() => there,
            None => 0,
        };
        wanted
    }

    /// Writes the settings, if they are others; whether they were.
    fn write(&mut self, wanted: program::Settings) -> anyhow::Result<bool> {
        if self.settings == wanted {
            return Ok(false);
        }
        settings_map(&pins())?.set(0, wanted.to_bytes(), 0).context("its settings cannot be written")?;
        self.settings = wanted;
        Ok(true)
    }

    /// Makes the map hold these, and nobody else; whether it held others that were not over, or not all. Another deadline is no such thing:
    /// whenever the clock on the wall is set, all of them change.
    pub fn hold(&mut self, blocks: &Blocks<'_>, now: Timestamp) -> anyhow::Result<bool> {
        let mut wanted: HashMap<Key, u64> = blocks
            .iter()
            .map(|(offender, until)| (key(&self.settings.secret, offender), deadline(*until, now)))
            .collect();
        let mut changed = false;
        let mut surplus = vec![];
        let (clock, mut looked) = (boot_clock(), 0_u64);
        for entry in &self.blocked {
            let (key, value): (Key, Value) = entry.context("its map cannot be read")?;
            let there = Entry::from(value);
            looked = looked.saturating_add(there.hits);
            match wanted.remove(&key) {
                Some(until) if until.abs_diff(there.until) < SAME => {}
                Some(until) => surplus.push((key, Some(until))),
                None => {
                    changed |= there.until > clock;
                    surplus.push((key, None));
                }
            }
        }
        self.met.looked = Some(looked);
        // First what goes: there must be room for what comes.
        for (key, until) in surplus {
            match until {
                None => self.remove_key(&key)?,
                Some(until) => self.put_until(&key, until)?,
            }
        }
        changed |= !wanted.is_empty();
        for (key, until) in wanted {
            self.put_key(&key, Entry { until, hits: 0 })?;
        }
        Ok(changed)
    }

    /// Blocks one until then, in seconds since 1970.
    pub fn block(&mut self, offender: &Offender, until: i64, now: Timestamp) -> anyhow::Result<()> {
        self.put_until(&key(&self.settings.secret, offender), deadline(until, now))
    }

    /// Lets one go.
    pub fn release(&mut self, offender: &Offender) -> anyhow::Result<()> {
        self.remove_key(&key(&self.settings.secret, offender))
    }

    /// How many packets of a blocked one were dropped; `None` if he is not blocked.
    pub fn hits(&self, offender: &Offender) -> anyhow::Result<Option<u64>> {
        let entry = self.entry(&key(&self.settings.secret, offender))?;
        Ok(entry.filter(|entry| entry.until > boot_clock()).map(|entry| entry.hits))
    }

    /// How many packets were dropped of all that were in the map when it was held last by this value, and of those whom it let go.
    #[must_use]
    pub const fn met(&self) -> Met {
        self.met
    }

    fn entry(&self, key: &Key) -> anyhow::Result<Option<Entry>> {
        match self.blocked.get(key, 0) {
            Ok(value) => Ok(Some(value.into())),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error).context("its map cannot be read"),
        }
    }

    /// The packets dropped up to now are read again: in between, few are lost.
    fn put_until(&mut self, key: &Key, until: u64) -> anyhow::Result<()> {
        let hits = self.entry(key)?.map_or(0, |entry| entry.hits);
        self.put_key(key, Entry { until, hits })
    }

    fn put_key(&mut self, key: &Key, entry: Entry) -> anyhow::Result<()> {
        self.blocked.insert(key, Value::from(entry), 0).context("its map takes no entry")
    }

    fn remove_key(&mut self, key: &Key) -> anyhow::Result<()> {
        let hits = self.entry(key)?.map_or(0, |entry| entry.hits);
        match self.blocked.remove(key) {
            Ok(()) => {
                self.met.gone = self.met.gone.saturating_add(hits);
                Ok(())
            }
            Err(MapError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).context("its map lets go of no entry"),
        }
    }
}

fn open_map(path: &Path) -> anyhow::Result<MapData> {
    MapData::from_pin(path).with_context(|| format!("{} cannot be opened", path.display()))
}

fn settings_map(pins: &Path) -> anyhow::Result<SettingsMap> {
    Ok(SettingsMap::try_from(Map::from_map_data(open_map(&pins.join(SETTINGS))?)?)?)
}

/// Blocks these and nobody else, in the map that is there, if one is. What it dropped comes to `met`, whatever fails.
pub fn hold(blocks: &Blocks<'_>, now: Timestamp, met: &mut Met) -> anyhow::Result<()> {
    let Some(mut there) = InKernel::open()? else { return Ok(()) };
    let held = there.hold(blocks, now);
    *met = met.then(there.met);
    held.map(drop)
}

/// Lets everybody pass until then (in seconds since 1970), in the program that is there, if one is; with `None`, nobody who is blocked. Only
/// who has the turn may.
pub fn pause(until: Option<i64>, now: Timestamp) -> anyhow::Result<()> {
    if let Some(mut there) = InKernel::open()? {
        let mut wanted = there.settings.clone();
        wanted.paused = until.map_or(0, |until| deadline(until, now));
        there.write(wanted)?;
    }
    Ok(())
}

/// Blocks these and nobody else, by a program that is loaded and attached where it is not there; what is too much is taken away. Only who
/// has the turn may do it. What the map dropped comes to `met`, whatever fails.
pub fn bring_in(
    settings: &Settings,
    run_dir: &Path,
    blocks: &Blocks<'_>,
    now: Timestamp,
    met: &mut Met,
) -> Result<BroughtIn, Fault> {
    // What cannot be read is made anew.
    let mut there = InKernel::open().unwrap_or_default();
    let mut changed = false;
    if let Some(there) = &mut there {
        let held = there.hold(blocks, now);
        *met = met.then(there.met);
        changed = held?;
    }
    if let Some(obstacle) = obstacle() {
        return Err(Fault::Impossible(obstacle));
    }
    let pins = pins();
    let current = there.as_ref().filter(|there| there.is_current()).and_then(InKernel::program);
    let mut program = if let Some(program) = current {
        program
    } else {
        let loaded = match trial::remembered(run_dir) {
            Some(refusal) => Err(Fault::Impossible(refusal)),
            None => load(&pins, &settings.ports).inspect_err(|fault| trial::remember(run_dir, fault)),
        };
        match loaded {
            // What works goes on.
            Err(fault) if is_at_work() => {
                let fault =
                    format!("an earlier build of it goes on, because this one cannot be loaded: {fault}");
                return Ok(BroughtIn { changed, faults: vec![fault] });
            }
            loaded => {
                changed = true;
                loaded?
            }
        }
    };
    let mut there = if let Some(there) = there {
        there
    } else {
        let mut there = InKernel::open()?.context("it was loaded, and is not there")?;
        let held = there.hold(blocks, now);
        *met = met.then(there.met);
        held?;
        there
    };
    let wanted = there.settings_for(settings, now);
    // Which program it is comes last.
    let mut ports = wanted.clone();
    ports.program = there.settings.program;
    changed |= there.write(ports)?;
    let (attached, faults) = attach_all(&mut program, settings, &pins)?;
    changed |= attached | take_over_other_layouts(&pins)?;
    there.write(wanted)?;
    Ok(BroughtIn { changed, faults })
}

/// Attaches it where it is to be, and nowhere else; whether something was otherwise, and where it cannot be attached. A kernel that lets it
/// be attached nowhere cannot have it.
fn attach_all(
    program: &mut SchedClassifier,
    settings: &Settings,
    pins: &Path,
) -> Result<(bool, Vec<String>), Fault> {
    let wanted = settings.wanted(&host::interfaces()?)?;
    let (mut changed, mut failed) = (false, vec![]);
    for interface in &wanted {
        match attach::attach(program, interface, pins) {
            Ok(new) => changed |= new,
            Err(error) => failed.push((interface, error)),
        }
    }
    changed |= attach::detach_others(pins, &wanted)?;
    // Those that went meanwhile are only not there.
    let all = if failed.is_empty() { vec![] } else { host::interfaces()? };
    failed.retain(|(interface, _)| all.contains(interface));
    let words = |(interface, error): &(&Interface, anyhow::Error)| {
        format!("it cannot be attached to {}: {error:#}", interface.name)
    };
    let mut faults: Vec<_> = failed.iter().map(words).collect();
    if !failed.is_empty() && failed.len() == wanted.len() {
        return Err(Fault::Impossible(faults.join("; ")));
    }
    faults.extend(no_place(settings)?.map(|why| format!("it looks at no packets: {why}")));
    Ok((changed, faults))
}

/// Takes away all that is there, of whatever version; whether there was something. What is not ours stays.
pub fn remove() -> anyhow::Result<bool> {
    let mut changed = false;
    if !is_anothers(&pins())? {
        // Filters live without pins.
        changed |= attach::detach_others(&pins(), &[])?;
    }
    for layout in layouts()? {
        changed |= remove_layout(&layout)?;
    }
    let _ = fs::remove_dir(root());
    Ok(changed)
}

/// Takes away what other versions left: with filters at the interfaces, ours were exchanged for theirs already.
fn take_over_other_layouts(pins: &Path) -> anyhow::Result<bool> {
    let mut changed = false;
    for layout in layouts()?.iter().filter(|layout| *layout != pins) {
        changed |= attach::take_over(layout, pins)?;
        changed |= remove_pins(layout)?;
    }
    Ok(changed)
}

/// The directories of pins, of whatever version, that are about this network.
fn layouts() -> anyhow::Result<Vec<PathBuf>> {
    let is_link = |path: &Path| path.symlink_metadata().is_ok_and(|about| about.is_symlink());
    if is_link(&root()) {
        return Ok(vec![]);
    }
    let mut layouts = vec![];
    for path in files(&root())? {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if name.iter().all(u8::is_ascii_digit) && path.is_dir() && !is_link(&path) && !is_anothers(&path)? {
            layouts.push(path);
        }
    }
    Ok(layouts)
}

/// What is attached first: that ends what the rest is for. Without that, the map stays in reach.
fn remove_layout(pins: &Path) -> anyhow::Result<bool> {
    let changed = attach::detach_others(pins, &[])?;
    Ok(changed | remove_pins(pins)?)
}

fn remove_pins(pins: &Path) -> anyhow::Result<bool> {
    let mut changed = false;
    for path in files(pins)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let removed = if [BLOCKED, SETTINGS, PROGRAM].contains(&name.strip_suffix(BESIDE).unwrap_or(name)) {
            fs::remove_file(&path)
        } else if name.starts_with(NETWORK) {
            fs::remove_dir(&path)
        } else {
            continue;
        };
        changed |= removed.is_ok();
    }
    changed |= fs::remove_dir(pins).is_ok();
    Ok(changed)
}

/// What follows the name of what is not in its place yet.
const BESIDE: &str = "_new";

/// Loads the program and pins it. The maps of another build are taken over, and with them who is blocked. Where that fails, all is as it
/// was.
fn load(pins: &Path, ports: &Ports) -> Result<SchedClassifier, Fault> {
    let there = InKernel::open().unwrap_or_default();
    let mut loader = EbpfLoader::new();
    if there.is_some() {
        loader.map_pin_path(BLOCKED, pins.join(BLOCKED)).map_pin_path(SETTINGS, pins.join(SETTINGS));
    }
    let mut program = Program::load(&mut loader).map_err(in_words)?;
    let mut written =
        program::Settings::from_bytes(&program.settings.get(&0, 0).map_err(anyhow::Error::from)?);
    if written.secret == [0; 16] {
        written = program::Settings::new(new_secret()?, ports);
        written.program = 0;
        program.settings.set(0, written.to_bytes(), 0).context("its settings cannot be written")?;
    }
    make_dir(pins)?;
    let new: &[&str] = if there.is_some() { &[PROGRAM] } else { &[BLOCKED, SETTINGS, PROGRAM] };
    let pinned = pin_beside(program, pins, there.is_none())
        .and_then(|()| new.iter().try_for_each(|name| put_in_place(&beside(pins, name), &pins.join(name))));
    if let Err(error) = pinned {
        for name in new {
            let _ = fs::remove_file(beside(pins, name));
        }
        return Err(error.into());
    }
    let program = SchedClassifier::from_pin(pins.join(PROGRAM)).context("its program cannot be opened")?;
    Ok(program)
}

fn beside(pins: &Path, name: &str) -> PathBuf {
    pins.join(format!("{name}{BESIDE}"))
}

/// A name that is taken cannot be pinned to.
fn pin_beside(mut program: Program, pins: &Path, with_maps: bool) -> anyhow::Result<()> {
    let free = |name: &str| {
        let path = beside(pins, name);
        let _ = fs::remove_file(&path);
        path
    };
    let cannot = || format!("it cannot be pinned below {}", pins.display());
    program.classifier().pin(free(PROGRAM)).with_context(cannot)?;
    if with_maps {
        let blocked = program.ebpf.take_map(BLOCKED).expect("the object has it");
        blocked.pin(free(BLOCKED)).with_context(cannot)?;
        program.settings.pin(free(SETTINGS)).with_context(cannot)?;
    }
    Ok(())
}

fn put_in_place(from: &Path, to: &Path) -> anyhow::Result<()> {
    if to.symlink_metadata().is_ok_and(|about| about.is_dir()) {
        fs::remove_dir(to).with_context(|| format!("{} is in the way", to.display()))?;
    }
    fs::rename(from, to).with_context(|| format!("cannot make {}", to.display()))
}

/// The key of the hash is for nobody else.
fn make_dir(pins: &Path) -> anyhow::Result<()> {
    for dir in [&root(), pins] {
        if dir.symlink_metadata().is_ok_and(|about| !about.is_dir()) {
            return Err(anyhow!("{} is no directory; remove it", dir.display()));
        }
    }
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(pins.join(network()?));
    made.with_context(|| format!("cannot make {}", pins.display()))
}

/// What the kernel says, in words. Where it only has no room at the moment, it has not refused.
fn in_words(error: anyhow::Error) -> Fault {
    const PASSING: [Errno; 6] =
        [Errno::NOMEM, Errno::AGAIN, Errno::INTR, Errno::NFILE, Errno::MFILE, Errno::BUSY];
    if let Some(ProgramError::LoadError { verifier_log, .. }) = error.downcast_ref()
        && let Some(reason) = reason(&verifier_log.to_string())
    {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        return Fault::Impossible(format!(
            "the verifier of Linux {} does not take it ({OLDEST} or newer is needed): {}",
            release.trim(),
            visible_within(reason, 200)
        ));
    }
    let causes: Vec<Errno> = error
        .chain()
        .filter_map(|cause| Errno::from_io_error(cause.downcast_ref::<std::io::Error>()?))
        .collect();
    if causes.iter().any(|cause| PASSING.contains(cause)) {
        return Fault::Failed(error.context("the kernel does not take it at the moment"));
    }
    let words = |start| visible_within(&format!("{:#}", error.context(start)), 300);
    if causes.iter().any(|cause| matches!(*cause, Errno::PERM | Errno::ACCESS)) {
        return Fault::Denied(words(
            "the kernel does not permit it (no CAP_BPF or CAP_NET_ADMIN, or lockdown)",
        ));
    }
    Fault::Impossible(words("the kernel does not take it"))
}

/// What the verifier says last, before it counts what it did.
fn reason(log: &str) -> Option<&str> {
    let counts = |line: &&str| {
        ["processed ", "verification time ", "stack depth "].iter().any(|start| line.starts_with(start))
    };
    log.lines().rev().map(str::trim).find(|line| !line.is_empty() && !counts(line))
}

fn new_secret() -> anyhow::Result<Secret> {
    let mut secret = [0; 16];
    let got = rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty());
    ensure!(got.context("no random numbers")? == secret.len(), "too few random numbers");
    Ok(secret)
}

/// On the boot clock.
fn deadline(until: i64, now: Timestamp) -> u64 {
    let left = i128::from(until) * 1_000_000_000 - now.as_nanosecond();
    u64::try_from(i128::from(boot_clock()) + left).unwrap_or_default()
}
