//! Where the program is attached: tc ingress, by tcx where the kernel has it (Linux 6.6), else by a filter at clsact.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;
use aya::programs::links::{FdLink, LinkOrder, PinnedLink};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact};
use aya::programs::{SchedClassifier, TcAttachType};

use super::program::PROGRAM;
use crate::host::Interface;
use crate::netlink::{Ask, Error, Message, Socket, Subsystem, attribute};

const INGRESS: TcAttachType = TcAttachType::Ingress;

/// In the directory of pins: what the names of links begin with, of marks that we have a filter at an interface, and of marks that we
/// made its clsact; the number of the interface follows. (No name in bpffs may have a dot, and those of VLANs do.)
const LINK: &str = "tcx_";
const FILTER: &str = "tc_";
const CLSACT: &str = "clsact_";

/// Attaches the program to an interface, if it is not attached yet; whether it was not.
pub(super) fn attach(
    program: &mut SchedClassifier,
    interface: &Interface,
    pins: &Path,
) -> anyhow::Result<bool> {
    let ours = program.info()?.id();
    if let Some(changed) = by_link(program, ours, interface, pins) {
        return Ok(changed);
    }
    let filters = filters(interface.index)?;
    if filters.iter().any(|filter| filter.program == ours) {
        return Ok(false);
    }
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    if let Ok(link) = program.attach_with_options(&interface.name, INGRESS, order) {
        let link: FdLink = program.take_link(link)?.try_into()?;
        link.pin(pins.join(format!("{LINK}{}", interface.index))).context("the attachment cannot be kept")?;
    } else {
        attach_filter(program, interface, pins)?;
    }
    // What an earlier build of ours left there.
    for filter in filters {
        filter.remove(&interface.name);
    }
    Ok(true)
}

/// Whether something of ours is there, as it is written down.
pub(super) fn is_attached(interface: &Interface, pins: &Path) -> bool {
    [LINK, FILTER].iter().any(|kind| pins.join(format!("{kind}{}", interface.index)).exists())
}

/// Sees that a link that is pinned has this program; whether it had another one, and nothing without a link. The kernel refuses that
/// for the link of an interface that is gone. (To ask for what is attached needs more privileges.)
fn by_link(program: &mut SchedClassifier, ours: u32, interface: &Interface, pins: &Path) -> Option<bool> {
    let path = pins.join(format!("{LINK}{}", interface.index));
    let link = FdLink::from(PinnedLink::from_pin(&path).ok()?);
    let changed = link.info().is_ok_and(|info| info.program_id() != ours);
    let updated = SchedClassifierLink::try_from(link).ok().and_then(|link| program.attach_to_link(link).ok());
    if updated.is_none() {
        let _ = fs::remove_file(path);
    }
    updated.map(|_| changed)
}

pub(super) fn attach_filter(
    program: &mut SchedClassifier,
    interface: &Interface,
    pins: &Path,
) -> anyhow::Result<()> {
    let Interface { name, index } = interface;
    let mark = |kind: &str| make_mark(&pins.join(format!("{kind}{index}")));
    if has_clsact(*index)? {
        mark(FILTER)?;
    } else {
        qdisc_add_clsact(name).context("it takes no clsact")?;
        mark(CLSACT)?;
        mark(FILTER)?;
    }
    let link = program
        .attach_with_options(name, INGRESS, TcAttachOptions::Netlink(NlOptions::default()))
        .context("it takes no filter")?;
    // It would be detached with the link.
    std::mem::forget(program.take_link(link)?);
    Ok(())
}

fn make_mark(path: &Path) -> std::io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Takes away what is attached to other interfaces than these; whether there was something.
pub(super) fn detach_others(pins: &Path, wanted: &[Interface], all: &[Interface]) -> anyhow::Result<bool> {
    let mut changed = false;
    for (kind, index, path) in marks(pins)? {
        if wanted.iter().any(|interface| interface.index == index) {
            continue;
        }
        changed = true;
        let interface = all.iter().find(|interface| interface.index == index);
        match (kind, interface) {
            (FILTER, Some(interface)) => {
                for filter in filters(index)? {
                    filter.remove(&interface.name);
                }
                let ours = pins.join(format!("{CLSACT}{index}"));
                if ours.exists() && is_unused(index)? {
                    remove_clsact(index)?;
                }
                let _ = fs::remove_dir(ours);
                fs::remove_dir(path)?;
            }
            (FILTER, None) => fs::remove_dir(path)?,
            (CLSACT, _) => {
                let _ = fs::remove_dir(path);
            }
            // The link ends with its last file.
            _ => fs::remove_file(path)?,
        }
    }
    Ok(changed)
}

/// What is attached by us, as it is written down: the kind, the interface, and the file. Filters come before their clsact.
fn marks(pins: &Path) -> anyhow::Result<Vec<(&'static str, u32, PathBuf)>> {
    let mut marks = vec![];
    for entry in fs::read_dir(pins)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let mark = |kind: &'static str| Some((kind, name.strip_prefix(kind)?.parse().ok()?, path.clone()));
        marks.extend([LINK, FILTER, CLSACT].into_iter().find_map(mark));
    }
    marks.sort_by_key(|(kind, ..)| *kind == CLSACT);
    Ok(marks)
}

const RTM_GETTFILTER: u16 = 46;
const RTM_GETQDISC: u16 = 38;
const RTM_DELQDISC: u16 = 37;
/// `struct tcmsg`.
const TCMSG: usize = 20;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_ID: u16 = 11;
/// Where clsact is, and what of it looks at packets that come in, and that go out.
const CLSACT_PARENT: u32 = 0xffff_fff1;
const CLSACT_INGRESS: u32 = 0xffff_fff2;
const CLSACT_EGRESS: u32 = 0xffff_fff3;

/// A filter of ours.
struct Filter {
    priority: u16,
    handle: u32,
    program: u32,
}

impl Filter {
    /// Somebody else may have done it.
    fn remove(&self, interface: &str) {
        let handle = TcHandle::from(self.handle);
        // Dropped, it is detached.
        drop(SchedClassifierLink::attached(interface, INGRESS, self.priority, handle, None));
    }
}

/// The header of a request about traffic control at an interface.
fn tcmsg(index: u32, parent: u32) -> [u8; TCMSG] {
    let mut header = [0; TCMSG];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[12..16].copy_from_slice(&parent.to_ne_bytes());
    header
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_ne_bytes(*word))
}

fn dump(kind: u16, header: &[u8], mut each: impl FnMut(&[u8])) -> anyhow::Result<()> {
    let mut socket = Socket::open(Subsystem::Route)?;
    match socket.ask(Message::new(kind, Ask::Dump, header), &mut each) {
        // Where it has no clsact, it is refused.
        Ok(()) | Err(Error::Refused(_)) => Ok(()),
        Err(Error::Socket(error)) => Err(error).context("cannot read what is attached to an interface"),
    }
}

/// Those of ours, in order of priority.
fn filters(index: u32) -> anyhow::Result<Vec<Filter>> {
    let mut filters = vec![];
    dump(RTM_GETTFILTER, &tcmsg(index, CLSACT_INGRESS), |body| {
        let attributes = body.get(TCMSG..).unwrap_or_default();
        let options = attribute(attributes, TCA_OPTIONS).unwrap_or_default();
        let name = attribute(options, TCA_BPF_NAME).and_then(|name| name.strip_suffix(b"\0"));
        if name == Some(PROGRAM.as_bytes()) {
            let priority = u16::try_from(word(body, 16) >> 16).unwrap_or_default();
            let program = word(attribute(options, TCA_BPF_ID).unwrap_or_default(), 0);
            filters.push(Filter { priority, handle: word(body, 8), program });
        }
    })?;
    Ok(filters)
}

fn has_clsact(index: u32) -> anyhow::Result<bool> {
    let mut found = false;
    dump(RTM_GETQDISC, &tcmsg(0, 0), |body| {
        let kind = attribute(body.get(TCMSG..).unwrap_or_default(), TCA_KIND);
        found |= word(body, 4) == index && kind == Some(b"clsact\0");
    })?;
    Ok(found)
}

/// Whether clsact has no filter at all.
fn is_unused(index: u32) -> anyhow::Result<bool> {
    let mut filters = 0;
    for parent in [CLSACT_INGRESS, CLSACT_EGRESS] {
        dump(RTM_GETTFILTER, &tcmsg(index, parent), |_| filters += 1)?;
    }
    Ok(filters == 0)
}

fn remove_clsact(index: u32) -> anyhow::Result<()> {
    let mut message = Message::new(RTM_DELQDISC, Ask::Do, &tcmsg(index, CLSACT_PARENT));
    message.put_text(TCA_KIND, "clsact");
    match Socket::open(Subsystem::Route)?.ask(message, |_| {}) {
        Ok(()) | Err(Error::Refused(_)) => Ok(()),
        Err(Error::Socket(error)) => Err(error).context("cannot remove clsact"),
    }
}
