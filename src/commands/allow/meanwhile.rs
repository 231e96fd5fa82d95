//! An address that is allowed while something else of ours goes on with it.

use std::net::IpAddr;

use anyhow::bail;

use super::{Call, addresses, kernel};
use crate::allow::timed::{Entry, MAX};
use crate::config::Config;

/// An address that is allowed until this is undone, or its time is over.
///
/// It is allowed on a word of its own: what others say of it stays as it is, also if this process is killed.
pub(in crate::commands) struct Meanwhile {
    call: Call,
    /// As it was written.
    added: Entry,
    was_allowed: bool,
}

impl Meanwhile {
    /// Allows it for so many seconds.
    ///
    /// After an error it is as it was before, as far as that could be done.
    pub(in crate::commands) fn allow(
        config: &Config,
        address: IpAddr,
        seconds: i64,
        because: &str,
    ) -> anyhow::Result<Self> {
        let call = Call { config: config.clone() };
        let (mut book, now) = call.book()?;
        let since = now.as_second();
        let was_allowed = book.of(address, since).any(|entry| entry.end() >= since + seconds);
        let added = book.add(Entry::of_walk(address, since, since + seconds, because), true);
        let made_way = book.tidy(since, MAX).made_way;
        if made_way.contains(&added) {
            bail!("{} are allowed already, and all of them for longer", addresses(MAX));
        }
        let done = book.write(now).and_then(|()| {
            call.record(&address.to_string(), "allow", "by-hand", added.word(), because);
            call.record_ends(&made_way, "made-way", &format!("there may be {}", addresses(MAX)));
            let changed = std::iter::once(address).chain(made_way.iter().map(|entry| entry.address));
            kernel::settle(&call, &book, changed, since)
        });
        // The lock of the book is needed to undo it.
        drop(book);
        let meanwhile = Self { call, added, was_allowed };
        if let Err(error) = done {
            // The kernel may not have it out of the sets either, but the file no longer says so.
            let _ = meanwhile.undo();
            return Err(error);
        }
        Ok(meanwhile)
    }

    /// Whether others allowed it for as long.
    pub(in crate::commands) fn was_allowed(&self) -> bool {
        self.was_allowed
    }

    /// What others say of it is all that counts again.
    pub(in crate::commands) fn undo(self) -> anyhow::Result<()> {
        let (mut book, now) = self.call.book()?;
        let withdrawn = book.withdraw(&self.added);
        book.write(now)?;
        kernel::settle(&self.call, &book, [self.added.address], now.as_second())?;
        self.call.record_ends(&withdrawn, "by-hand", "what it was allowed for is over");
        Ok(())
    }
}
