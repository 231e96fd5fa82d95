//! An address that is allowed while something else of ours goes on with it.

use std::net::IpAddr;

use super::{Call, kernel};
use crate::allow::timed::Entry;
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
    /// After an error it may be allowed, until that time.
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
        book.write(now)?;
        call.record(&address.to_string(), "allow", "by-hand", "by hand", because);
        kernel::settle(&call, &book, [address], since)?;
        Ok(Self { call, added: Some(added), before })
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
