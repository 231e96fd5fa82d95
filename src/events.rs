//! What FreeSWITCH tells of registrations and logins, and the log that is made of it.
//!
//! [`event`] reads what comes from the event socket. Nothing here knows the time of day, or waits.

pub mod event;
