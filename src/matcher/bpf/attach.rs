//! Where the program is attached: tc ingress, by tcx where the kernel has it (Linux 6.6), else by a filter at clsact.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use aya::programs::links::{FdLink, LinkOrder, PinnedLink};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, qdisc_add_clsact};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use rustix::io::Errno;

use super::program::PROGRAM;
use crate::host::Interface;
use crate::netlink::{Ask, Error, Message, Socket, Subsystem, attribute, number};

#[cfg(test)]
mod tests;

const INGRESS: TcAttachType = TcAttachType::Ingress;

/// In the directory of pins: what the names of links begin with, of marks that we have a filter at an interface, and of marks that we
/// made its clsact; the number of the interface follows. (No name in bpffs may have a dot, and those of VLANs do.)
const LINK: &str = "tcx_";
const FILTER: &str = "tc_";
const CLSACT: &str = "clsact_";

/// Ahead of filters of others: one that lets a packet in ends the search.
const FIRST: u16 = 1;

/// Attaches the program to an interface, if it is not attached yet; whether it was not. Where that fails, no mark says that it is.
pub(super) fn attach(
    program: &mut SchedClassifier,
    interface: &Interface,
    pins: &Path,
) -> anyhow::Result<bool> {
    let ours = program.info()?.id();
    let (there, others): (Vec<_>, Vec<_>) =
        filters(interface.index)?.into_iter().partition(|filter| filter.program == ours);
    let mut changed = !others.is_empty();
    if let Some(updated) = by_link(program, ours, interface, pins)? {
        changed |= updated;
    } else if there.is_empty() {
        changed = true;
        let attached = attach_anew(program, interface, pins);
        if attached.is_err() {
            let _ = fs::remove_dir(mark(pins, FILTER, interface.index));
        }
        attached?;
    }
    // What an earlier build of ours left there.
    remove_filters(interface.index, &others)?;
    Ok(changed)
}

fn attach_anew(program: &mut SchedClassifier, interface: &Interface, pins: &Path) -> anyhow::Result<()> {
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    let Ok(link) = program.attach_with_options(&interface.name, INGRESS, order) else {
        return attach_filter(program, interface, pins);
    };
    let link: FdLink = program.take_link(link)?.try_into()?;
    let path = mark(pins, LINK, interface.index);
    link.pin(&path).with_context(|| format!("the attachment cannot be kept as {}", path.display()))?;
    Ok(())
}

/// Whether something of ours is there, as it is written down.
pub(super) fn is_attached(interface: &Interface, pins: &Path) -> bool {
    [LINK, FILTER].iter().any(|kind| mark(pins, kind, interface.index).exists())
}

/// Whether something of ours is at any interface, as it is written down.
pub(super) fn is_somewhere(pins: &Path) -> anyhow::Result<bool> {
    Ok(marks(pins)?.iter().any(|(kind, ..)| *kind != CLSACT))
}

fn mark(pins: &Path, kind: &str, index: u32) -> PathBuf {
    pins.join(format!("{kind}{index}"))
}

/// Sees that a link that is pinned has this program; whether it had another one, and nothing without a link. The kernel refuses that
/// for the link of an interface that is gone. (To ask for what is attached needs more privileges.)
fn by_link(
    program: &mut SchedClassifier,
    ours: u32,
    interface: &Interface,
    pins: &Path,
) -> anyhow::Result<Option<bool>> {
    let path = mark(pins, LINK, interface.index);
    if !path.exists() {
        return Ok(None);
    }
    let link = PinnedLink::from_pin(&path).map(FdLink::from);
    let link = link.with_context(|| format!("{} cannot be opened", path.display()))?;
    let changed = link.info().is_ok_and(|info| info.program_id() != ours);
    let link = SchedClassifierLink::try_from(link)?;
    match program.attach_to_link(link) {
        Ok(_) => Ok(Some(changed)),
        Err(ProgramError::SyscallError(error))
            if Errno::from_io_error(&error.io_error) == Some(Errno::NOLINK) =>
        {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            Ok(None)
        }
        Err(error) => Err(error).context("its attachment takes no other program"),
    }
}

pub(super) fn attach_filter(
    program: &mut SchedClassifier,
    interface: &Interface,
    pins: &Path,
) -> anyhow::Result<()> {
    let Interface { name, index } = interface;
    if !with_qdisc()?.contains(index) {
        qdisc_add_clsact(name).context("it takes no clsact")?;
        make_mark(&mark(pins, CLSACT, *index))?;
    }
    make_mark(&mark(pins, FILTER, *index))?;
    let mut attach = |priority: u16| {
        let options = NlOptions { priority, ..NlOptions::default() };
        program.attach_with_options(name, INGRESS, TcAttachOptions::Netlink(options))
    };
    // Another kind of filter may have that place; then the kernel chooses.
    let link = attach(FIRST).or_else(|_| attach(0)).context("it takes no filter")?;
    // It would be detached with the link.
    std::mem::forget(program.take_link(link)?);
    Ok(())
}

fn make_mark(path: &Path) -> anyhow::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made.with_context(|| format!("cannot make {}", path.display())),
    }
}

/// Takes away what is attached to other interfaces than these, written down or not; whether there was something. Tries all of it before
/// it fails.
pub(super) fn detach_others(pins: &Path, wanted: &[Interface]) -> anyhow::Result<bool> {
    let is_wanted = |index: u32| wanted.iter().any(|interface| interface.index == index);
    let mut changed = false;
    let mut failed = None;
    let with_qdisc = with_qdisc()?;
    for index in with_qdisc.iter().copied().filter(|index| !is_wanted(*index)) {
        match filters(index).and_then(|ours| remove_filters(index, &ours).map(|()| !ours.is_empty())) {
            Ok(found) => changed |= found,
            Err(error) => failed = Some(error),
        }
    }
    for (kind, index, path) in marks(pins)? {
        if is_wanted(index) {
            continue;
        }
        let clsact = kind == CLSACT && with_qdisc.contains(&index);
        let removed = if clsact { remove_unused_clsact(index) } else { Ok(()) };
        match removed.and_then(|()| unmark(kind, &path)) {
            Ok(()) => changed = true,
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(changed), Err)
}

/// Takes what is written down in one directory of pins over into another, where the program of that one is attached already; whether
/// there was something.
pub(super) fn take_over(from: &Path, to: &Path) -> anyhow::Result<bool> {
    let marks = marks(from)?;
    for (kind, index, path) in &marks {
        if *kind == CLSACT {
            make_mark(&mark(to, CLSACT, *index))?;
        }
        unmark(kind, path)?;
    }
    Ok(!marks.is_empty())
}

/// A link ends with its last file.
fn unmark(kind: &str, path: &Path) -> anyhow::Result<()> {
    let removed = if kind == LINK { fs::remove_file(path) } else { fs::remove_dir(path) };
    removed.with_context(|| format!("cannot remove {}", path.display()))
}

/// What is attached by us, as it is written down: the kind, the interface, and the file. Nothing of what is not there.
fn marks(pins: &Path) -> anyhow::Result<Vec<(&'static str, u32, PathBuf)>> {
    let mut marks = vec![];
    for path in super::files(pins)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let mark = |kind: &'static str| Some((kind, name.strip_prefix(kind)?.parse().ok()?, path.clone()));
        marks.extend([LINK, FILTER, CLSACT].into_iter().find_map(mark));
    }
    Ok(marks)
}

const RTM_DELTFILTER: u16 = 45;
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
    handle: u32,
    /// Its priority, and the protocol of its packets.
    info: u32,
    program: u32,
}

/// The header of a request about traffic control at an interface.
fn tcmsg(index: u32, handle: u32, parent: u32, info: u32) -> [u8; TCMSG] {
    let mut header = [0; TCMSG];
    for (at, word) in [(4, index), (8, handle), (12, parent), (16, info)] {
        header[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    header
}

fn word(body: &[u8], at: usize) -> u32 {
    body.get(at..).and_then(number).unwrap_or_default()
}

fn dump(kind: u16, header: &[u8], each: impl FnMut(&[u8])) -> anyhow::Result<()> {
    match Socket::open(Subsystem::Route)?.dump(kind, header, each) {
        Ok(()) => Ok(()),
        // The interface is gone, or the kernel is built without any filters.
        Err(Error::Refused(code)) if is(code, &[Errno::NODEV, Errno::NOENT, Errno::OPNOTSUPP]) => Ok(()),
        Err(error) => Err(io::Error::from(error)).context("cannot read what is attached to an interface"),
    }
}

fn is(code: i32, errors: &[Errno]) -> bool {
    errors.iter().any(|error| error.raw_os_error() == code)
}

/// Those of ours, in order of priority.
fn filters(index: u32) -> anyhow::Result<Vec<Filter>> {
    let mut filters = vec![];
    dump(RTM_GETTFILTER, &tcmsg(index, 0, CLSACT_INGRESS, 0), |body| {
        let attributes = body.get(TCMSG..).unwrap_or_default();
        let options = attribute(attributes, TCA_OPTIONS).unwrap_or_default();
        let name = attribute(options, TCA_BPF_NAME).and_then(|name| name.strip_suffix(b"\0"));
        if name == Some(PROGRAM.as_bytes()) {
            let program = word(attribute(options, TCA_BPF_ID).unwrap_or_default(), 0);
            filters.push(Filter { handle: word(body, 8), info: word(body, 16), program });
        }
    })?;
    Ok(filters)
}

/// Removes filters, and looks whether they are gone: somebody else may have done it.
fn remove_filters(index: u32, gone: &[Filter]) -> anyhow::Result<()> {
    let mut refused = None;
    for filter in gone {
        let header = tcmsg(index, filter.handle, CLSACT_INGRESS, filter.info);
        let mut message = Message::new(RTM_DELTFILTER, Ask::Do, &header);
        message.put_text(TCA_KIND, "bpf");
        refused = Socket::open(Subsystem::Route)?.ask(message, |_| {}).err().or(refused);
    }
    let same =
        |one: &Filter| gone.iter().any(|filter| (filter.handle, filter.info) == (one.handle, one.info));
    if gone.is_empty() || !filters(index)?.iter().any(same) {
        return Ok(());
    }
    let what = format!("the filter {PROGRAM} cannot be removed from the interface with the number {index}");
    match refused {
        Some(error) => Err(io::Error::from(error)).context(what),
        None => bail!(what),
    }
}

/// The interfaces that can have a filter for what comes in.
fn with_qdisc() -> anyhow::Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    dump(RTM_GETQDISC, &tcmsg(0, 0, 0, 0), |body| {
        let kind = attribute(body.get(TCMSG..).unwrap_or_default(), TCA_KIND);
        if matches!(kind, Some(b"clsact\0" | b"ingress\0")) {
            found.insert(word(body, 4));
        }
    })?;
    Ok(found)
}

/// Takes clsact away if it has no filter at all.
fn remove_unused_clsact(index: u32) -> anyhow::Result<()> {
    let mut filters = 0;
    for parent in [CLSACT_INGRESS, CLSACT_EGRESS] {
        dump(RTM_GETTFILTER, &tcmsg(index, 0, parent, 0), |_| filters += 1)?;
    }
    if filters > 0 {
        return Ok(());
    }
    let mut message = Message::new(RTM_DELQDISC, Ask::Do, &tcmsg(index, 0, CLSACT_PARENT, 0));
    message.put_text(TCA_KIND, "clsact");
    match Socket::open(Subsystem::Route)?.ask(message, |_| {}) {
        Ok(()) => Ok(()),
        // It is gone, or its interface.
        Err(Error::Refused(code)) if is(code, &[Errno::NODEV, Errno::NOENT, Errno::INVAL]) => Ok(()),
        Err(error) => Err(io::Error::from(error)).context("cannot remove clsact"),
    }
}
