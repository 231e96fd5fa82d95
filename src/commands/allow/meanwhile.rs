//! An address that is allowed while something else of ours goes on with it.

use std::net::IpAddr;

use anyhow::bail;

use super::{Call, addresses, kernel};
use crate::allow::timed::{Entry, MAX};
use crate::config::Config;

/// An address that is allowed until this is undone, or its time is over.
pub(in crate::commands) struct Meanwhile {
    call: Call,
    /// As it was written; `None` where the address was allowed for as long anyway.
    added: Option<Entry>,
    /// What stood there before.
    before: Option<Entry>,
}

impl Meanwhile {
    /// Allows it for so many seconds, as [`Command::Add`](super::Command::Add) does, unless it is allowed as long already.
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
        if book.of(address, since).any(|entry| entry.end() >= since + seconds) {
            return Ok(Self { call, added: None, before: None });
        }
        let before = book.of(address, since).find(|entry| entry.jail.is_none()).cloned();
        let added = book.add(Entry::new(address, None, since, since + seconds, because), true);
        let made_way = book.tidy(since, MAX).made_way;
        if made_way.contains(&added) {
            bail!("{} are allowed already, and all of them for longer", addresses(MAX));
        }
        book.write(now)?;
        call.record(&address.to_string(), "allow", "by-hand", "by hand", because);
        call.record_ends(&made_way, "made-way", &format!("there may be {}", addresses(MAX)));
        let changed = std::iter::once(address).chain(made_way.iter().map(|entry| entry.address));
        let settled = kernel::settle(&call, &book, changed, since);
        // The lock of the book is needed to undo it.
        drop(book);
        let meanwhile = Self { call, added: Some(added), before };
        match settled {
            Ok(_) => Ok(meanwhile),
            Err(error) => {
                // The kernel may not have it out of the sets either, but the file no longer says so.
                let _ = meanwhile.undo();
                Err(error)
            }
        }
    }

    /// Whether it was allowed before.
    pub(in crate::commands) fn was_allowed(&self) -> bool {
        self.added.is_none()
    }

    /// As it was before; what somebody else said of it meanwhile stays.
    pub(in crate::commands) fn undo(self) -> anyhow::Result<()> {
        let Some(added) = &self.added else { return Ok(()) };
        let (mut book, now) = self.call.book()?;
        let removed = book.remove(added.address, None);
        let (ours, mut others): (Vec<_>, Vec<_>) = removed.into_iter().partition(|entry| entry == added);
        if !ours.is_empty() {
            others.extend(self.before.filter(|before| before.end() > now.as_second()));
        }
        book.put_back(others);
        book.write(now)?;
        kernel::settle(&self.call, &book, [added.address], now.as_second())?;
        self.call.record_ends(&ours, "by-hand", "what it was allowed for is over");
        Ok(())
    }
}
