//! A set of addresses in one compact file that answers "is this address in it?" without being parsed.
//!
//! Sorted, disjoint ranges of IPv4 and IPv6 addresses, each with a time stamp and a label, in
//! blocks of 4 KiB that carry their own checksum. A small table (up to about 240 addresses) is one block and
//! one read; a large one is searched block by block, about ten reads for a million entries.
//!
//! Three files have this form: the snapshot of the registrations, the addresses seen registered, and
//! the allow lists as `ringfence-ignore` reads them. What a stamp means is said by the [`Kind`].
//!
//! ```text
//! block 0   "RFADDR" version kind | flags | created ms | fingerprint | extra | counts | labels
//!           and, in a small table, the records
//! block 1.. in a large table: the IPv4 records, then from a new block on the IPv6 records
//! record    start, end (4 or 16 bytes, big endian), stamp (u32), label (u16), 2 spare bytes
//! ```

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::FileExt;
use std::path::Path;

use ipnetwork::IpNetwork;

use crate::state_file;

mod normalize;

const BLOCK: usize = 4096;
const CHECKSUM: usize = 4;
const PAYLOAD: usize = BLOCK - CHECKSUM;
const MAGIC: &[u8; 7] = b"RFADDR\x01";
/// Header: magic, kind, flags, then the fixed fields below.
const FIXED: usize = 48;
const LABEL: usize = 16;
/// No more labels than fit into the first block beside the header.
const MAX_LABELS: usize = 200;

/// What the table is, and so what its stamps (seconds since 1970) mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Registered addresses at one moment; stamp: when the last registration from there expires,
    /// 0 for an address that was looked up and is not registered.
    Snapshot = 1,
    /// Addresses seen registered; stamp: when last.
    Seen = 2,
    /// Addresses that fail2ban must leave alone; stamp: until when, [`FOREVER`] if without end.
    Allow = 3,
}

/// The stamp of an entry without end.
pub const FOREVER: u32 = u32::MAX;

/// A range of addresses of one family with its stamp and label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    start: IpAddr,
    end: IpAddr,
    /// Seconds since 1970; see [`Kind`].
    pub stamp: u32,
    /// Index into the table's labels.
    pub label: u16,
}

impl Entry {
    /// One address. IPv4-mapped IPv6 is the IPv4 address.
    #[must_use]
    pub fn address(address: IpAddr, stamp: u32) -> Self {
        let address = address.to_canonical();
        Self { start: address, end: address, stamp, label: 0 }
    }

    /// A whole network under a label.
    #[must_use]
    pub fn network(network: IpNetwork, stamp: u32, label: u16) -> Self {
        Self { start: network.network(), end: network.broadcast(), stamp, label }
    }

    /// The first address.
    #[must_use]
    pub fn start(&self) -> IpAddr {
        self.start
    }

    /// The last address, of the same family as the first.
    #[must_use]
    pub fn end(&self) -> IpAddr {
        self.end
    }
}

/// What a table says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// What it is.
    pub kind: Kind,
    /// Milliseconds since 1970.
    pub created: u64,
    /// Made from which settings: a table with another fingerprint is not ours.
    pub fingerprint: u64,
    /// Whether every address that belongs into it is in it: then absence is an answer.
    pub complete: bool,
    /// A number of the writer's own.
    pub extra: u64,
    /// Names that entries refer to, each at most 16 bytes.
    pub labels: Vec<String>,
}

/// Renders the file: entries in any order, overlapping or not; where they overlap, the later stamp and
/// then the lower label counts.
///
/// Labels beyond the 200th and bytes of a label beyond the 16th are not kept.
#[must_use]
pub fn encode(about: &About, entries: impl IntoIterator<Item = Entry>) -> Vec<u8> {
    let (v4, v6) = normalize::disjoint(entries);
    let labels = &about.labels[..about.labels.len().min(MAX_LABELS)];
    let mut head = Vec::with_capacity(BLOCK);
    head.extend_from_slice(MAGIC);
    head.push(about.kind as u8);
    head.extend_from_slice(&u32::from(about.complete).to_be_bytes());
    head.extend_from_slice(&about.created.to_be_bytes());
    head.extend_from_slice(&about.fingerprint.to_be_bytes());
    head.extend_from_slice(&about.extra.to_be_bytes());
    head.extend_from_slice(&count(v4.len()).to_be_bytes());
    head.extend_from_slice(&count(v6.len()).to_be_bytes());
    head.extend_from_slice(&count(labels.len()).to_be_bytes());
    debug_assert_eq!(head.len(), FIXED);
    for label in labels {
        let end = label.floor_char_boundary(LABEL);
        let mut field = [0; LABEL];
        field[..end].copy_from_slice(&label.as_bytes()[..end]);
        head.extend_from_slice(&field);
    }
    let mut file = Vec::new();
    if small(labels.len(), v4.len(), v6.len()) {
        V4.write_all(&v4, &mut head);
        V6.write_all(&v6, &mut head);
        seal(head, &mut file);
    } else {
        seal(head, &mut file);
        for (family, records) in [(V4, &v4), (V6, &v6)] {
            for records in records.chunks(family.per_block()) {
                let mut block = Vec::with_capacity(BLOCK);
                family.write_all(records, &mut block);
                seal(block, &mut file);
            }
        }
    }
    file
}

fn count(entries: usize) -> u32 {
    u32::try_from(entries).expect("fewer than 2^32 entries fit into memory")
}

fn seal(mut block: Vec<u8>, file: &mut Vec<u8>) {
    block.resize(PAYLOAD, 0);
    let checksum = crc32fast::hash(&block);
    file.append(&mut block);
    file.extend_from_slice(&checksum.to_be_bytes());
}

fn small(labels: usize, v4: usize, v6: usize) -> bool {
    FIXED + labels * LABEL + v4 * V4.record() + v6 * V6.record() <= PAYLOAD
}

/// One range, as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    start: u128,
    end: u128,
    stamp: u32,
    label: u16,
}

/// How an address family is laid out.
#[derive(Clone, Copy)]
struct Layout {
    width: usize,
}

const V4: Layout = Layout { width: 4 };
const V6: Layout = Layout { width: 16 };

impl Layout {
    const fn record(self) -> usize {
        2 * self.width + 8
    }

    const fn per_block(self) -> usize {
        PAYLOAD / self.record()
    }

    fn write_all(self, records: &[Record], out: &mut Vec<u8>) {
        for record in records {
            self.write(record, out);
        }
    }

    fn write(self, record: &Record, out: &mut Vec<u8>) {
        out.extend_from_slice(&record.start.to_be_bytes()[16 - self.width..]);
        out.extend_from_slice(&record.end.to_be_bytes()[16 - self.width..]);
        out.extend_from_slice(&record.stamp.to_be_bytes());
        out.extend_from_slice(&record.label.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
    }

    fn read(self, block: &[u8], index: usize) -> Record {
        let bytes = &block[index * self.record()..][..self.record()];
        let number =
            |at: usize| bytes[at..at + self.width].iter().fold(0, |n, byte| n << 8 | u128::from(*byte));
        Record {
            start: number(0),
            end: number(self.width),
            stamp: be32(bytes, 2 * self.width),
            label: u16::from_be_bytes([bytes[2 * self.width + 4], bytes[2 * self.width + 5]]),
        }
    }

    fn entry(self, record: Record) -> Entry {
        let address = |number: u128| {
            if self.width == 4 {
                IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)))
            } else {
                IpAddr::V6(Ipv6Addr::from(number))
            }
        };
        Entry {
            start: address(record.start),
            end: address(record.end),
            stamp: record.stamp,
            label: record.label,
        }
    }
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// An open table. The file may be replaced meanwhile: this is still the one that was opened.
#[derive(Debug)]
pub struct AddressTable {
    about: About,
    file: File,
    counts: [usize; 2],
    /// Block 0, where a small table has its records.
    head: Vec<u8>,
    /// Where they begin in it; `None` in a large table.
    inline: Option<usize>,
}

impl AddressTable {
    /// Opens a table of ours of this kind.
    ///
    /// `NotFound` when it is not there; `InvalidData` when it is damaged, cut or of another kind or version;
    /// `PermissionDenied` when others than root and `owner` could have written it.
    pub fn open(path: &Path, kind: Kind, owner: u32) -> io::Result<Self> {
        let (file, length) = state_file::open_own(path, owner)?;
        Self::read(file, length, kind)
    }

    /// The table of this kind in an open file of this length, which can be trusted. Errors are as those of
    /// [`open`](Self::open).
    pub fn read(file: File, length: u64, kind: Kind) -> io::Result<Self> {
        let mut head = vec![0; BLOCK];
        read_block(&file, 0, &mut head)?;
        if &head[..7] != MAGIC || head[7] != kind as u8 {
            return Err(damaged("not a table of this kind and version"));
        }
        let number = |at| be32(&head, at) as usize;
        let (v4, v6, labels) = (number(36), number(40), number(44));
        if labels > MAX_LABELS {
            return Err(damaged("impossible header"));
        }
        let names = FIXED + labels * LABEL;
        let inline = small(labels, v4, v6).then_some(names);
        let blocks = match inline {
            Some(_) => 1,
            None => 1 + v4.div_ceil(V4.per_block()) + v6.div_ceil(V6.per_block()),
        };
        if length != (blocks * BLOCK) as u64 {
            return Err(damaged("not of the length it says"));
        }
        let labels = head[FIXED..names]
            .chunks(LABEL)
            .map(|field| String::from_utf8_lossy(field).trim_end_matches('\0').to_owned())
            .collect();
        let about = About {
            kind,
            complete: number(8) != 0,
            created: be64(&head, 12),
            fingerprint: be64(&head, 20),
            extra: be64(&head, 28),
            labels,
        };
        Ok(Self { about, file, counts: [v4, v6], head, inline })
    }

    /// What the table says about itself.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.about
    }

    /// The number of ranges in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.counts[0] + self.counts[1]
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Of the entries that overlap `network`, the one with the latest stamp.
    pub fn find(&self, network: IpNetwork) -> io::Result<Option<Entry>> {
        let (layout, first, last) = match network {
            IpNetwork::V4(v4) => {
                (V4, u128::from(u32::from(v4.network())), u128::from(u32::from(v4.broadcast())))
            }
            IpNetwork::V6(v6) => (V6, u128::from(v6.network()), u128::from(v6.broadcast())),
        };
        let mut records = Records::new(self, layout);
        // The first record that ends at or behind `first`: all before it lie wholly below.
        let mut below = 0;
        let mut above = records.count;
        while below < above {
            let middle = below.midpoint(above);
            if records.get(middle)?.end < first { below = middle + 1 } else { above = middle }
        }
        let mut latest: Option<Record> = None;
        for index in below..records.count {
            let record = records.get(index)?;
            if record.start > last {
                break;
            }
            if latest.is_none_or(|latest| record.stamp > latest.stamp) {
                latest = Some(record);
            }
        }
        Ok(latest.map(|record| layout.entry(record)))
    }

    /// Every entry, IPv4 first, in order.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::with_capacity(self.len());
        for layout in [V4, V6] {
            let mut records = Records::new(self, layout);
            for index in 0..records.count {
                entries.push(layout.entry(records.get(index)?));
            }
        }
        Ok(entries)
    }
}

/// The records of one family; keeps the block that was read last.
struct Records<'a> {
    table: &'a AddressTable,
    layout: Layout,
    count: usize,
    /// Number of the first block with records of this family, in a large table.
    first_block: usize,
    block: Vec<u8>,
    number: usize,
}

impl<'a> Records<'a> {
    fn new(table: &'a AddressTable, layout: Layout) -> Self {
        let (count, first_block) = if layout.width == 4 {
            (table.counts[0], 1)
        } else {
            (table.counts[1], 1 + table.counts[0].div_ceil(V4.per_block()))
        };
        Self { table, layout, count, first_block, block: Vec::new(), number: 0 }
    }

    fn get(&mut self, index: usize) -> io::Result<Record> {
        if let Some(names) = self.table.inline {
            let v4 = if self.layout.width == 4 { 0 } else { self.table.counts[0] * V4.record() };
            return Ok(self.layout.read(&self.table.head[names + v4..], index));
        }
        let number = self.first_block + index / self.layout.per_block();
        if self.number != number {
            self.block.resize(BLOCK, 0);
            read_block(&self.table.file, number, &mut self.block)?;
            self.number = number;
        }
        Ok(self.layout.read(&self.block, index % self.layout.per_block()))
    }
}

fn read_block(file: &File, number: usize, block: &mut [u8]) -> io::Result<()> {
    file.read_exact_at(block, (number * BLOCK) as u64).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("cut short"),
        _ => error,
    })?;
    if be32(block, PAYLOAD) == crc32fast::hash(&block[..PAYLOAD]) { Ok(()) } else { Err(damaged("damaged")) }
}

fn damaged(how: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, how)
}

#[cfg(test)]
mod tests;
