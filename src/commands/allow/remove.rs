//! `ringfence-allow remove`, `flush` and `stop`: allow an address, or all of a jail, no more.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;

use anyhow::bail;
use jiff::Timestamp;

use super::{Call, addresses, complain, kernel};
use crate::address;
use crate::allow::timed::{BY_HAND, Book, Entry, OfJail};
use crate::commands::screen::span;
use crate::commands::{a_jail, a_span, causes, say};
use crate::evidence::visible_within;
use crate::exit::Exit;

/// The command line of `remove`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only what fail2ban's jail added; without it, on whoever's word the address is allowed
    ///
    /// Who is not there then is no failure: fail2ban would only try it again.
    #[arg(long, value_name = "NAME", value_parser = a_jail)]
    jail: Option<String>,

    /// One IPv4 or IPv6 address
    #[arg(value_name = "ADDRESS")]
    address: OsString,
}

/// The command line of `flush`.
#[derive(Debug, clap::Args)]
pub(super) struct FlushArgs {
    /// Only what fail2ban's jail added
    #[arg(long, value_name = "NAME", value_parser = a_jail)]
    jail: Option<String>,

    /// Not at once but after this time, unless stop comes before
    #[arg(long, value_name = "SPAN", value_parser = a_span, requires = "jail")]
    after: Option<i64>,
}

/// The command line of `stop`.
#[derive(Debug, clap::Args)]
pub(super) struct StopArgs {
    /// fail2ban's jail
    #[arg(long, value_name = "NAME", value_parser = a_jail)]
    jail: String,
}

pub(super) fn run(call: &Call, args: &Args) -> anyhow::Result<Exit> {
    let jail = args.jail.as_deref();
    // fail2ban need not hear that there was nothing to do: what was refused is let go too, some time.
    let nobody = if jail.is_some() { Exit::Yes } else { Exit::No };
    let Some(address) = address::parse(&args.address) else {
        let text = visible_within(&args.address.to_string_lossy(), 100);
        if jail.is_none() {
            bail!("{text:?} is not one IPv4 or IPv6 address");
        }
        complain(&format!("{text:?} is not allowed: it is not one IPv4 or IPv6 address"));
        return Ok(nobody);
    };
    let (mut book, now) = call.book()?;
    let seconds = now.as_second();
    let removed = book.remove(address, jail);
    // Also where nothing was there: the kernel may hold what the file does not know.
    let settled = let_go(call, &mut book, [address], |book| book.put_back(removed.clone()), now)?;
    call.record_ends(&removed, if jail.is_some() { "unbanned" } else { "by-hand" }, "");
    let phones = settled.map_err(|error| failed(&error))?;
    if let Some(at) = phones.get(&address)
        && jail.is_none()
    {
        complain(&format!(
            "{address} stays in the kernel's set until a day after it was last seen registered, which was {} ago",
            span(seconds - at)
        ));
    }
    if removed.is_empty() {
        if jail.is_none() {
            complain(&format!("{address} is not allowed by ringfence-allow"));
        }
        return Ok(nobody);
    }
    match book.of(address, seconds).next() {
        Some(other) => {
            say(&format!("{address} is still allowed: by {}.", super::add::on_the_word(other)));
        }
        None => say(&format!("{address} is no longer allowed.")),
    }
    if jail.is_none() {
        // It would not ask us again before its time.
        for jail in removed.iter().filter_map(Entry::jail) {
            complain(&format!(
                "fail2ban still has it in the jail {jail}, which adds it again only after: fail2ban-client set {jail} unbanip \
                 {address}"
            ));
        }
    }
    Ok(Exit::Yes)
}

/// Lets go of all, or of all that a jail added, now or in a while.
pub(super) fn flush(call: &Call, args: &FlushArgs) -> anyhow::Result<Exit> {
    let jail = args.jail.as_deref();
    let (mut book, now) = call.book()?;
    let seconds = now.as_second();
    let flushed = match args.after {
        None => book.flush(jail),
        Some(after) => book.flush_at(jail, seconds.saturating_add(after)),
    };
    let undo = |book: &mut Book| match args.after {
        None => book.put_back(flushed.clone()),
        Some(_) => drop(book.take_back(jail)),
    };
    let settled = let_go(call, &mut book, all(&flushed), undo, now)?;
    match args.after {
        None => call.record_ends(&flushed, "flushed", ""),
        // Who goes is said when he goes.
        Some(after) => record(call, jail, "flush", &flushed, &format!(" in {}", span(after))),
    }
    let phones = settled.map_err(|error| failed(&error))?;
    let when =
        args.after.map_or_else(String::new, |after| format!(" in {}, unless stop comes before", span(after)));
    say(&format!("{} no longer allowed{when}.", are(flushed.len())));
    if !phones.is_empty() {
        say(&format!("{} in the kernel's sets: seen registered within a day.", stay(phones.len())));
    }
    Ok(Exit::Yes)
}

/// Takes a flush back that came just before: the jail only stops.
pub(super) fn stop(call: &Call, args: &StopArgs) -> anyhow::Result<Exit> {
    let jail = Some(args.jail.as_str());
    let (mut book, now) = call.book()?;
    let kept = book.take_back(jail);
    book.write(now)?;
    record(call, jail, "stop", &kept, " kept until their time is over");
    kernel::settle(call, &book, all(&kept), now.as_second()).map_err(|error| failed(&error))?;
    say(&format!("{} for their time.", stay(kept.len())));
    Ok(Exit::Yes)
}

/// First the kernel, then the file: what is interrupted in between was not done, and the next sync brings it back; so does `undo`,
/// with what follows, where the file cannot be written. What came of the kernel is not what came of the file.
fn let_go(
    call: &Call,
    book: &mut Book,
    addresses: impl IntoIterator<Item = IpAddr>,
    undo: impl FnOnce(&mut Book),
    now: Timestamp,
) -> anyhow::Result<anyhow::Result<BTreeMap<IpAddr, i64>>> {
    let addresses: Vec<_> = addresses.into_iter().collect();
    let seconds = now.as_second();
    let settled = kernel::settle(call, book, addresses.iter().copied(), seconds);
    book.write(now).inspect_err(|_| {
        undo(book);
        if settled.is_ok() {
            // What fails here, the next sync does.
            let _ = kernel::settle(call, book, addresses, seconds);
        }
    })?;
    Ok(settled)
}

fn record(call: &Call, jail: OfJail<'_>, decision: &str, concerned: &[Entry], what: &str) {
    if !concerned.is_empty() {
        let subject = jail.map_or_else(|| "all".to_owned(), |jail| format!("jail {jail}"));
        let detail = format!("{}{what}", addresses(concerned.len()));
        call.record(&subject, decision, "jail", jail.unwrap_or(BY_HAND), &detail);
    }
}

fn all(entries: &[Entry]) -> impl Iterator<Item = IpAddr> {
    entries.iter().map(|entry| entry.address)
}

fn are(count: usize) -> String {
    format!("{} {}", addresses(count), if count == 1 { "is" } else { "are" })
}

fn stay(count: usize) -> String {
    format!("{} {}", addresses(count), if count == 1 { "stays" } else { "stay" })
}

fn failed(error: &anyhow::Error) -> anyhow::Error {
    anyhow::anyhow!(
        "{}; for ringfence-ignore it is done, and in the kernel the time that was given runs out",
        causes(error)
    )
}
