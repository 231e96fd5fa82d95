//! Plug-ins for fail2ban on VoIP PBX hosts: the library behind the `ringfence-*` tools.
//!
//! Each module is named after what it knows. Dependencies point one way:
//! `bin` -> [`commands`] -> the other modules -> the standard library and crates.
//! No module below [`commands`] reads the environment or the time of day: `now`, paths and
//! deadlines are parameters. (How far off the date in a server's `Retry-After` is counts from when
//! it comes. sqlx itself looks at libpq's `PG*` variables for what a PostgreSQL target leaves open,
//! and reqwest at the variables that name proxies.)

pub mod account;
pub mod address;
pub mod address_set;
pub mod address_table;
pub mod allow;
pub mod bans;
pub mod carriers;
pub mod checkup;
pub mod commands;
pub mod config;
pub mod deadline;
pub mod diagnosis;
pub mod drops;
pub mod event_socket;
pub mod events;
pub mod evidence;
pub mod exemption;
pub mod exit;
pub mod fail2ban;
pub mod failures;
pub mod feeds;
pub mod firewall;
pub mod freeswitch;
pub mod fusionpbx;
pub mod host;
pub mod kernel_sets;
pub mod ledger;
pub mod log_files;
pub mod matcher;
pub mod netlink;
pub mod pause;
pub mod postgres;
mod programs;
pub mod registrations;
pub mod report;
pub mod services;
pub mod state_file;
pub mod times;
