//! The lines about what went well: who registered, logged in, and left.

use super::event::{Event, Party, Subclass, Verdict};
use super::line::{Account, Address, Client, Entry, Line, Text, Time};

/// What `mod_sofia` calls who registered without credentials.
const NOBODY: &[u8] = b"unknown";

/// The line about an event; none for those that only are about failures.
#[must_use]
pub fn line(event: &Event) -> Option<Line> {
    let address = event.address.map(Address::from);
    let account = Account::from(account(event));
    let client = Client { profile: Text::new(&event.profile), agent: Text::new(&event.agent) };
    let entry = match event.subclass {
        Subclass::Register => Entry::Success { address: address?, account, expires: event.expires, client },
        Subclass::VertoLogin if event.verdict == Verdict::Accepted => {
            Entry::Success { address: address?, account, expires: None, client }
        }
        Subclass::Unregister => Entry::Unregister { address, account, client },
        Subclass::Expire => Entry::Expire { address, account, client },
        Subclass::VertoLogin | Subclass::PreRegister | Subclass::Attempt | Subclass::Failure => return None,
    };
    Some(Line { time: Time::from(event.time), entry })
}

fn account(event: &Event) -> &Party {
    let named = !event.digest.user.is_empty() && event.digest.user != NOBODY;
    if named { &event.digest } else { event.claimed() }
}
