//! What FreeSWITCH tells of registrations and logins, and the log that is made of it.
//!
//! [`event`] reads what comes from the event socket, [`line`](mod@line) is the log's format. Nothing here knows the time of
//! day, or waits.

pub mod event;
pub mod line;
