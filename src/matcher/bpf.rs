//! By a program in the kernel: it reads each SIP request once, and looks its account up in a map.
//!
//! ```text
//! packet -> tc ingress of each interface that faces the network -> ringfence (bpf/ringfence.c)
//!           UDP to a SIP port?    settings: the ports
//!           account blocked?      blocked: account, and account with source -> deadline, packets dropped
//! ```
//!
//! Program, maps and attachments are pinned below `/sys/fs/bpf/ringfence`: they stay when no process of ours runs, and a block ends in
//! the kernel by itself. What is there is named after its layout: another layout of the maps is another directory.

#![allow(dead_code, reason = "nothing loads it yet")]

mod hash;
#[cfg(test)]
mod model;
mod program;

/// Nanoseconds since boot, with those asleep.
fn boot_clock() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap_or_default() * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or_default()
}

#[cfg(test)]
mod tests;
