//! The kernel program and its maps, as they are laid out in `bpf/ringfence.c`.

use std::net::IpAddr;

use aya::maps::{Array, HashMap, MapData};
use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader};

use super::hash::{self, Secret};
use crate::account::Offender;
use crate::config::Ports;

/// The program for the kernel.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ringfence.o"));

/// In the object: the program, and its maps.
pub(super) const PROGRAM: &str = "ringfence";
pub(super) const BLOCKED: &str = "blocked";
pub(super) const SETTINGS: &str = "settings";

/// `struct key`: the hash of an account, and a source.
pub(super) type Key = [u8; 32];

/// The byte with the bit that says whether it is from the source alone, and the bit.
const FROM_SOURCE: (usize, u8) = (8, 1);

/// `struct entry`: the deadline on the boot clock in nanoseconds, and the packets dropped.
pub(super) type Value = [u8; 16];

/// Who is blocked.
pub(super) type Blocked = HashMap<MapData, Key, Value>;

/// `struct settings`, the only one.
pub(super) type SettingsMap = Array<MapData, [u8; SETTINGS_LENGTH]>;

const PORTS: usize = 65_536 / 8;
const SETTINGS_LENGTH: usize = 16 + 8 + 8 + PORTS;

/// What the program goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) secret: Secret,
    /// Which program is attached, as [`fingerprint`] says.
    pub(super) program: u64,
    /// Nobody is blocked before that, in nanoseconds on the boot clock.
    pub(super) paused: u64,
    ports: Vec<u8>,
}

impl Settings {
    pub(super) fn new(secret: Secret, ports: &Ports) -> Self {
        let mut bits = vec![0; PORTS];
        for port in ports.ranges().flat_map(|range| range.first()..=range.last()) {
            bits[usize::from(port / 8)] |= 1 << (port % 8);
        }
        Self { secret, program: fingerprint(), paused: 0, ports: bits }
    }

    pub(super) fn from_bytes(bytes: &[u8; SETTINGS_LENGTH]) -> Self {
        let (secret, rest) = bytes.split_first_chunk().expect("it is longer");
        let (program, rest) = rest.split_first_chunk().expect("it is longer");
        let (paused, ports) = rest.split_first_chunk().expect("it is longer");
        let word = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes);
        Self { secret: *secret, program: word(program), paused: word(paused), ports: ports.to_vec() }
    }

    pub(super) fn to_bytes(&self) -> [u8; SETTINGS_LENGTH] {
        let mut bytes = [0; SETTINGS_LENGTH];
        bytes[..16].copy_from_slice(&self.secret);
        bytes[16..24].copy_from_slice(&self.program.to_ne_bytes());
        bytes[24..32].copy_from_slice(&self.paused.to_ne_bytes());
        bytes[32..].copy_from_slice(&self.ports);
        bytes
    }
}

/// Where an offender is in the map.
pub(super) fn key(secret: &Secret, offender: &Offender) -> Key {
    let mut key = [0; 32];
    key[..16].copy_from_slice(&hash::account(secret, &offender.account));
    let (byte, bit) = FROM_SOURCE;
    key[byte] &= !bit;
    if let Some(source) = offender.source {
        key[byte] |= bit;
        let source = match source {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        key[16..].copy_from_slice(&source.octets());
    }
    key
}

/// A deadline, and how many packets were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Nanoseconds on the boot clock.
    pub(super) until: u64,
    pub(super) hits: u64,
}

impl From<Value> for Entry {
    fn from(value: Value) -> Self {
        let (until, hits) = value.split_first_chunk().expect("two words");
        let hits = hits.first_chunk().expect("two words");
        Self { until: u64::from_ne_bytes(*until), hits: u64::from_ne_bytes(*hits) }
    }
}

impl From<Entry> for Value {
    fn from(entry: Entry) -> Self {
        let mut value = [0; 16];
        value[..8].copy_from_slice(&entry.until.to_ne_bytes());
        value[8..].copy_from_slice(&entry.hits.to_ne_bytes());
        value
    }
}

/// Tells one build of the program from another.
pub(super) fn fingerprint() -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    hasher.write(OBJECT);
    hasher.finish()
}

/// The program in the kernel, attached to nothing.
pub(super) struct Program {
    pub(super) ebpf: Ebpf,
    pub(super) settings: SettingsMap,
}

impl Program {
    /// Loads it; `loader` says which of its maps are there already.
    pub(super) fn load(loader: &mut EbpfLoader<'_>) -> anyhow::Result<Self> {
        // The kernel's own types are not needed: it would take longer to read them than to do all the rest.
        let mut ebpf = loader.btf(None).load(OBJECT)?;
        let settings = ebpf.take_map(SETTINGS).expect("the object has it").try_into()?;
        let mut program = Self { ebpf, settings };
        program.classifier().load()?;
        Ok(program)
    }

    pub(super) fn classifier(&mut self) -> &mut SchedClassifier {
        let program = self.ebpf.program_mut(PROGRAM).expect("the object has it");
        program.try_into().expect("it is a classifier")
    }
}
