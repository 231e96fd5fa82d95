//! The tools against real parts: SQLite files, PostgreSQL, fail2ban, the kernel in a network namespace.
//!
//! A part that is missing fails its test; `make test` installs what is missing.

#![expect(unreachable_pub, reason = "a test has no outside")]

/// Each of these functions is a test with `nft`, and one with `legacy`.
macro_rules! with_both_variants {
    ($($test:ident)*) => {
        mod nft {
            $(#[test]
            fn $test() {
                super::$test("nft");
            })*
        }
        mod legacy {
            $(#[test]
            fn $test() {
                super::$test("legacy");
            })*
        }
    };
}

/// Each of these functions is a test by rules of iptables, and one by the program in the kernel.
macro_rules! with_both_matchers {
    ($($test:ident)*) => {
        mod strings {
            $(#[test]
            fn $test() {
                super::$test("strings");
            })*
        }
        mod bpf {
            $(#[test]
            fn $test() {
                super::$test("bpf");
            })*
        }
    };
}

mod accounts;
mod admin_doctor;
mod admin_foresight;
mod admin_pause;
mod admin_release;
mod admin_report;
mod admin_status;
mod admin_test;
mod admin_validate;
mod admin_ways;
mod admin_why;
mod allow;
mod allow_fail2ban;
mod ban;
mod block_bpf;
mod block_fail2ban;
mod block_faults;
mod block_kernel;
mod block_policy;
mod carriers;
mod cli;
mod config;
mod documents;
mod drops;
mod event_socket;
mod events;
mod fail2ban;
mod fail2ban_asterisk;
mod fail2ban_block;
mod fail2ban_events;
mod fail2ban_jails;
mod faults;
mod firewall_beside;
mod firewall_change;
mod firewall_order;
mod firewall_path;
mod firewall_probe;
mod http;
mod lists_faults;
mod lists_kernel;
mod lists_merge;
mod offenders;
mod postgres;
mod sqlite;
mod supply;
mod support;
