//! What FreeSWITCH tells of registrations and logins, and the log that is made of it.
//!
//! [`event`] reads what comes from the event socket, [`refusals`] makes one failure of the events that tell of it,
//! [`registrations`] is about all that went well, and [`line`](mod@line) is the log's format. [`watch`] does all that, and
//! counts who does too much of it ([`flood`], [`crowd`]). [`log`](mod@log) writes the lines, and [`known`] finds out which
//! accounts exist; only they have threads of their own. Nothing here knows the time of day, or waits.

pub mod crowd;
pub mod event;
pub mod flood;
pub mod known;
pub mod line;
pub mod log;
pub mod refusals;
pub mod registrations;
pub mod watch;

#[cfg(test)]
mod tests;
