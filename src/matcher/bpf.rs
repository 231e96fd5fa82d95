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
//! The account is that of `Authorization` or `Proxy-Authorization`, in every form of known phones and in most that FreeSWITCH understands
//! (not with a backslash in a name, and not without the commas); of a `REGISTER`, `SUBSCRIBE` or `PUBLISH` without them, that of `From`:
//! a server challenges whoever sends these, and the `From` of others may be a caller's number.
//!
//! What it misses: what is behind the first 2048 bytes of a message, or not in the first of its fragments; several datagrams in one
//! packet (GRO); a message with more than 256 lines, parameters and quotes before that; TCP and TLS. That passes.

use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use aya::EbpfLoader;
use aya::maps::{Map, MapData, MapError};
use aya::programs::SchedClassifier;
use jiff::Timestamp;

use crate::account::Offender;
use crate::config::{Config, Ports};
use crate::host::{self, Interface};
use hash::Secret;
use program::{BLOCKED, Blocked, Entry, Key, PROGRAM, Program, SETTINGS, SettingsMap, Value, key};

mod attach;
mod hash;
#[cfg(test)]
mod model;
mod program;
#[cfg(test)]
mod tests;

/// The file system of pins.
const BPFFS: &str = "/sys/fs/bpf";

/// Which maps there are, and what is in them; increased with each change of that.
const LAYOUT: &str = "1";

/// Linux has what the program needs since then: `bpf_loop`.
const OLDEST: (u32, u32) = (5, 17);

/// A deadline that differs by less is the same: the clocks of wall and boot are not read at once. In nanoseconds.
const SAME: u64 = 1_000_000_000;

/// What the program goes by.
#[derive(Clone, Debug)]
pub struct Settings {
    ports: Ports,
    /// By name; without any, those with a default route.
    interfaces: Vec<String>,
}

impl Settings {
    /// As the settings say.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            ports: config.firewall.sip_ports.clone(),
            interfaces: config.block.interfaces.names().to_vec(),
        }
    }

    /// Those of `all` to which it is to be attached.
    fn wanted(&self, all: &[Interface]) -> anyhow::Result<Vec<Interface>> {
        if self.interfaces.is_empty() {
            return host::uplinks();
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

/// Who is blocked until when, in seconds since 1970.
pub type Blocks<'a> = HashMap<&'a Offender, i64>;

/// The program in the kernel, which stays when this value goes.
#[derive(Debug)]
pub struct InKernel {
    secret: Secret,
    blocked: Blocked,
}

/// Where it is pinned.
fn root() -> PathBuf {
    Path::new(BPFFS).join("ringfence")
}

fn pins() -> PathBuf {
    root().join(LAYOUT)
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
    let (major, minor) = OLDEST;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < OLDEST {
        return Some(format!("it needs Linux {major}.{minor}, and this is {}", release.trim()));
    }
    if cfg!(target_endian = "big") {
        return Some("it is built for little-endian machines only".to_owned());
    }
    match rustix::fs::statfs(BPFFS) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "32 bits are used")]
        Ok(found) if found.f_type as u32 == MAGIC => None,
        _ => Some(format!("no bpffs is mounted; run: mount -t bpf bpf {BPFFS}")),
    }
}

/// Whether something of it is there, of whatever version.
#[must_use]
pub fn is_there() -> bool {
    root().exists()
}

impl InKernel {
    /// What is there, of this very build.
    pub fn open() -> anyhow::Result<Option<Self>> {
        let pins = pins();
        if !pins.join(PROGRAM).exists() {
            return Ok(None);
        }
        let settings = program::Settings::from_bytes(&settings_map(&pins)?.get(&0, 0)?);
        let blocked = Blocked::try_from(Map::from_map_data(MapData::from_pin(pins.join(BLOCKED))?)?)?;
        let current = settings.program == program::fingerprint();
        Ok(current.then_some(Self { secret: settings.secret, blocked }))
    }

    /// What is there, if it is as it should be, as far as pins tell: that costs no look at the program.
    pub fn ready(settings: &Settings) -> anyhow::Result<Option<Self>> {
        let Some(there) = Self::open()? else { return Ok(None) };
        let written = program::Settings::from_bytes(&settings_map(&pins())?.get(&0, 0)?);
        let wanted = settings.wanted(&host::interfaces()?)?;
        let attached = wanted.iter().all(|interface| attach::is_attached(interface, &pins()));
        let as_it_should_be = attached && written == program::Settings::new(there.secret, &settings.ports);
        Ok(as_it_should_be.then_some(there))
    }

    /// Loads and attaches what is not there, and takes away what is too much; whether something had to be done. Only who has the turn may do
    /// it.
    pub fn bring_up(settings: &Settings) -> anyhow::Result<(Self, bool)> {
        if let Some(obstacle) = obstacle() {
            bail!("{obstacle}");
        }
        let pins = pins();
        // What cannot be read is made anew.
        let there = Self::open().unwrap_or_default();
        let loaded = there.is_none();
        let mut program = match there {
            Some(_) => {
                SchedClassifier::from_pin(pins.join(PROGRAM)).context("its program cannot be opened")?
            }
            None => load(&pins, &settings.ports)?,
        };
        let ports = write_settings(&pins, &settings.ports)?;
        let attached = attach_all(&mut program, settings, &pins)?;
        let old = remove_other_layouts()?;
        let there = Self::open()?.context("it was loaded, and is not there")?;
        Ok((there, loaded || ports || attached || old))
    }

    /// Makes the map hold these, and nobody else; whether it held something else that was not over.
    pub fn hold(&mut self, blocks: &Blocks<'_>, now: Timestamp) -> anyhow::Result<bool> {
        let mut wanted: HashMap<Key, u64> = blocks
            .iter()
            .map(|(offender, until)| (key(&self.secret, offender), deadline(*until, now)))
            .collect();
        let mut changed = false;
        let mut surplus = vec![];
        let clock = boot_clock();
        for entry in &self.blocked {
            let (key, value): (Key, Value) = entry.context("its map cannot be read")?;
            let there = Entry::from(value);
            match wanted.remove(&key) {
                Some(until) if until.abs_diff(there.until) < SAME => {}
                Some(until) => {
                    changed = true;
                    surplus.push((key, Some(Entry { until, ..there })));
                }
                None => {
                    changed |= there.until > clock;
                    surplus.push((key, None));
                }
            }
        }
        // First what goes: there must be room for what comes.
        for (key, entry) in surplus {
            match entry {
                None => self.remove_key(&key)?,
                Some(entry) => self.put_key(&key, entry)?,
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
        let key = key(&self.secret, offender);
        let hits = self.entry(&key)?.map_or(0, |entry| entry.hits);
        self.put_key(&key, Entry { until: deadline(until, now), hits })
    }

    /// Lets one go.
    pub fn release(&mut self, offender: &Offender) -> anyhow::Result<()> {
        self.remove_key(&key(&self.secret, offender))
    }

    /// How many packets of a blocked one were dropped; `None` if he is not blocked.
    pub fn hits(&self, offender: &Offender) -> anyhow::Result<Option<u64>> {
        let entry = self.entry(&key(&self.secret, offender))?;
        Ok(entry.filter(|entry| entry.until > boot_clock()).map(|entry| entry.hits))
    }

    fn entry(&self, key: &Key) -> anyhow::Result<Option<Entry>> {
        match self.blocked.get(key, 0) {
            Ok(value) => Ok(Some(value.into())),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error).context("its map cannot be read"),
        }
    }

    fn put_key(&mut self, key: &Key, entry: Entry) -> anyhow::Result<()> {
        self.blocked.insert(key, Value::from(entry), 0).context("its map takes no entry")
    }

    fn remove_key(&mut self, key: &Key) -> anyhow::Result<()> {
        match self.blocked.remove(key) {
            Ok(()) => Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).context("its map lets go of no entry"),
        }
    }
}

/// Takes away all that is there, of whatever version; whether there was something.
pub fn remove() -> anyhow::Result<bool> {
    if !is_there() {
        return Ok(false);
    }
    let all = host::interfaces()?;
    for layout in fs::read_dir(root())? {
        remove_layout(&layout?.path(), &all)?;
    }
    fs::remove_dir(root()).with_context(|| format!("cannot remove {}", root().display()))?;
    Ok(true)
}

fn remove_other_layouts() -> anyhow::Result<bool> {
    let mut found = false;
    for layout in fs::read_dir(root())? {
        let path = layout?.path();
        if path != pins() {
            remove_layout(&path, &host::interfaces()?)?;
            found = true;
        }
    }
    Ok(found)
}

/// What is attached first: that ends what the rest is for.
fn remove_layout(pins: &Path, all: &[Interface]) -> anyhow::Result<()> {
    attach::detach_others(pins, &[], all)?;
    for file in fs::read_dir(pins)? {
        let path = file?.path();
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    fs::remove_dir(pins).with_context(|| format!("cannot remove {}", pins.display()))
}

/// Loads the program and pins it. The maps of another build are taken over, and with them who is blocked.
fn load(pins: &Path, ports: &Ports) -> anyhow::Result<SchedClassifier> {
    // The key of the hash is for nobody else.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(pins)
        .with_context(|| format!("cannot make {}", pins.display()))?;
    let pinned = || {
        let mut loader = EbpfLoader::new();
        loader.map_pin_path(BLOCKED, pins.join(BLOCKED)).map_pin_path(SETTINGS, pins.join(SETTINGS));
        Program::load(&mut loader)
    };
    let mut program = match pinned() {
        Ok(program) => program,
        Err(error) => {
            // Half of it may be there, or something else. What is attached goes on until it is replaced.
            let mut found = false;
            for name in [BLOCKED, SETTINGS] {
                found |= fs::remove_file(pins.join(name)).is_ok();
            }
            if !found {
                let _ = fs::remove_dir(pins);
                let _ = fs::remove_dir(root());
                return Err(refusal(error));
            }
            pinned().map_err(refusal)?
        }
    };
    let mut there = program::Settings::from_bytes(&program.settings.get(&0, 0)?);
    if there.secret == [0; 16] {
        there.secret = new_secret()?;
    }
    let settings = program::Settings::new(there.secret, ports);
    program.settings.set(0, settings.to_bytes(), 0).context("its settings cannot be written")?;
    // A name that is taken cannot be pinned to: beside it, and then in its place.
    let path = pins.join(PROGRAM);
    let beside = pins.join(format!("{PROGRAM}_new"));
    let _ = fs::remove_file(&beside);
    program.classifier().pin(&beside).context("it cannot be pinned")?;
    fs::rename(&beside, &path).with_context(|| format!("cannot make {}", path.display()))?;
    SchedClassifier::from_pin(&path).context("its program cannot be opened")
}

/// What the kernel says, in words.
fn refusal(error: anyhow::Error) -> anyhow::Error {
    let denied = error.chain().any(|cause| {
        let error = cause.downcast_ref::<std::io::Error>();
        error.is_some_and(|error| error.kind() == ErrorKind::PermissionDenied)
    });
    if denied {
        return error.context("the kernel does not permit it (no CAP_BPF or CAP_NET_ADMIN, or lockdown)");
    }
    error.context("the kernel does not take it")
}

fn new_secret() -> anyhow::Result<Secret> {
    let mut secret = [0; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut secret))
        .context("cannot read /dev/urandom")?;
    Ok(secret)
}

fn settings_map(pins: &Path) -> anyhow::Result<SettingsMap> {
    Ok(SettingsMap::try_from(Map::from_map_data(MapData::from_pin(pins.join(SETTINGS))?)?)?)
}

/// Writes the ports, where they are others.
fn write_settings(pins: &Path, ports: &Ports) -> anyhow::Result<bool> {
    let mut map = settings_map(pins)?;
    let there = program::Settings::from_bytes(&map.get(&0, 0)?);
    let wanted = program::Settings::new(there.secret, ports);
    if there == wanted {
        return Ok(false);
    }
    map.set(0, wanted.to_bytes(), 0).context("its settings cannot be written")?;
    Ok(true)
}

fn attach_all(program: &mut SchedClassifier, settings: &Settings, pins: &Path) -> anyhow::Result<bool> {
    let all = host::interfaces()?;
    let wanted = settings.wanted(&all)?;
    let mut changed = false;
    for interface in &wanted {
        let attached = attach::attach(program, interface, pins);
        changed |= attached.with_context(|| format!("it cannot be attached to {}", interface.name))?;
    }
    Ok(attach::detach_others(pins, &wanted, &all)? || changed)
}

/// On the boot clock.
fn deadline(until: i64, now: Timestamp) -> u64 {
    let left = i128::from(until) * 1_000_000_000 - now.as_nanosecond();
    u64::try_from(i128::from(boot_clock()) + left).unwrap_or_default()
}
