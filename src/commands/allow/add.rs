//! `ringfence-allow add`: allow an address for a time.

use std::ffi::OsString;
use std::net::IpAddr;

use anyhow::bail;
use jiff::Timestamp;

use super::{Call, addresses, complain, kernel};
use crate::address;
use crate::allow::timed::{BY_HAND, Entry, LONGEST, MAX, Word};
use crate::commands::{a_jail, a_span, causes, say, screen::span};
use crate::config::Config;
use crate::evidence::visible_within;
use crate::exit::Exit;

/// For so long, where nobody says: a day, in seconds.
const DEFAULT: i64 = 86_400;

/// The command line of `add`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// fail2ban's jail; without it the address is allowed by hand
    ///
    /// What is refused then exits with 0: fail2ban would only try it again.
    #[arg(long, value_name = "NAME", value_parser = a_jail)]
    jail: Option<String>,

    /// How long, in seconds or like 30m or 2h 30m, at most 24d [default: 1d]
    ///
    /// A negative number, fail2ban's way to say "for ever", is 24d; so is what is longer, with --jail.
    #[arg(long = "for", value_name = "SPAN", value_parser = a_span, allow_hyphen_values = true)]
    span: Option<i64>,

    /// Why, for people; at most 200 bytes of it are kept
    ///
    /// It may be anybody's text: control characters are made visible.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    because: Option<OsString>,

    /// One IPv4 or IPv6 address
    #[arg(value_name = "ADDRESS")]
    address: OsString,
}

pub(super) fn run(call: &Call, args: &Args) -> anyhow::Result<Exit> {
    // By hand, it ends as said, be it sooner than before.
    allow(call, args, args.jail.is_none() && args.span.is_some(), say)
}

fn allow(call: &Call, args: &Args, exactly: bool, say: impl Fn(&str)) -> anyhow::Result<Exit> {
    let jail = args.jail.as_deref();
    let word = jail.unwrap_or(BY_HAND);
    let Some(address) = address::parse(&args.address).filter(is_host) else {
        let text = visible_within(&args.address.to_string_lossy(), 100);
        let why = "it is not one IPv4 or IPv6 address of a host; networks belong into [lists]";
        if jail.is_none() {
            bail!("{text:?} is not allowed: {why}");
        }
        call.record(&text, "refuse", "not-an-address", word, why);
        complain(&format!("{text:?} is not allowed: {why}"));
        // fail2ban would only try it again.
        return Ok(Exit::Yes);
    };
    let length = match args.span {
        Some(span) if span > LONGEST && span < i64::MAX && jail.is_none() => {
            bail!("--for is longer than 24d; what is to be allowed for good belongs into [lists]")
        }
        given => given.unwrap_or(DEFAULT).min(LONGEST),
    };
    let because = args.because.as_deref().unwrap_or_default().to_string_lossy();
    let entry = |now: Timestamp| {
        let since = now.as_second();
        Entry::new(address, jail, since, since + length, &because)
    };
    let reason = if jail.is_some() { "jail" } else { "by-hand" };
    let detail = |entry: &Entry| match entry.because.as_str() {
        "" => format!("for {}", span(length)),
        because => format!("for {}; {because}", span(length)),
    };
    let subject = address.to_string();
    if call.observes() {
        call.record(&subject, "allow", reason, word, &detail(&entry(Timestamp::now())));
        say(&format!("{address} would be allowed for {}, but mode is observe.", span(length)));
        return Ok(Exit::Yes);
    }

    let (mut book, now) = call.book()?;
    let seconds = now.as_second();
    let added = book.add(entry(now), exactly);
    let made_way = book.tidy(seconds, MAX).made_way;
    // First the file, then the kernel: what is interrupted in between is done by the next sync.
    book.write(now)?;
    call.record(&subject, "allow", reason, word, &detail(&added));
    call.record_ends(&made_way, "made-way", &format!("there may be {}", addresses(MAX)));
    let changed = std::iter::once(address).chain(made_way.iter().map(|entry| entry.address));
    if let Err(error) = kernel::settle(call, &book, changed, seconds) {
        bail!(
            "{}; {address} is in the file, so that ringfence-ignore keeps it, and the next ringfence-allow sync brings it \
             into the kernel",
            causes(&error)
        );
    }
    if made_way.contains(&added) {
        complain(&format!(
            "{address} is not allowed: {} are already, and all of them for longer",
            addresses(MAX)
        ));
        return Ok(if jail.is_some() { Exit::Yes } else { Exit::No });
    }
    let others = book.of(address, seconds).filter(|other| other.end() > added.end());
    let others = others
        .max_by_key(|other| other.end())
        .map(|other| format!("; {} allows it for {}", on_the_word(other), span(other.end() - seconds)));
    say(&format!("{address} is allowed for {}{}.", span(added.end() - seconds), others.unwrap_or_default()));
    Ok(Exit::Yes)
}

/// Allows an address by hand for so many seconds, or for as long as it is already, if that is longer; then the reason stays as well.
pub(in crate::commands) fn keep(
    config: &Config,
    address: IpAddr,
    seconds: i64,
    because: &str,
) -> anyhow::Result<()> {
    let call = Call { config: config.clone() };
    let (book, now) = call.book()?;
    let there = book.of(address, now.as_second()).find(|entry| entry.word == Word::ByHand);
    let stays = there.is_some_and(|entry| entry.end() >= now.as_second() + seconds);
    drop(book);
    let args = Args {
        jail: None,
        span: Some(seconds),
        because: (!stays).then(|| because.into()),
        address: address.to_string().into(),
    };
    if allow(&call, &args, false, |_| ())? == Exit::Yes { Ok(()) } else { bail!("it was refused") }
}

/// Who allows it, in a sentence.
pub(super) fn on_the_word(entry: &Entry) -> String {
    match &entry.word {
        Word::ByHand => "what was added by hand".to_owned(),
        Word::Jail(jail) => format!("the jail {jail}"),
        Word::Walk(_) => "a walk of ringfence test".to_owned(),
    }
}

/// Whether packets that matter may come from there.
fn is_host(address: &IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || broadcast)
}
