//! Black- and whitelists of others and of our own: downloaded, read, found good, guarded, and put together.
//!
//! [`fetch`](mod@fetch) gets one list, [`store`] keeps its last good copy, [`guard`] says whom no list may block, and
//! [`compile`](mod@compile) makes of all lists what the kernel and fail2ban need.

pub mod apiban;
pub mod body;
pub mod compile;
pub mod copy;
pub mod dated;
pub mod due;
pub mod fetch;
pub mod format;
pub mod guard;
pub mod secrets;
pub mod size;
pub mod status;
pub mod store;
pub mod web;
