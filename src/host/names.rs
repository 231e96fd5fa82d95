//! What this host's own name stands for.

use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::Context;

use crate::state_file;

/// The addresses that this host's own name is looked up to, as the C library does it: perhaps by asking a name server. An error also
/// where nobody answers in time; a name that nobody knows stands for none.
pub fn named_addresses(time: Duration) -> anyhow::Result<Vec<IpAddr>> {
    const LONGEST: u64 = 256;
    let path = Path::new("/proc/sys/kernel/hostname");
    let name = state_file::read_regular(path, LONGEST).context("cannot read this host's name")?;
    let name = String::from_utf8(name).context("this host's name is no text")?.trim().to_owned();
    let (sender, answer) = mpsc::channel();
    let asked = name.clone();
    // It cannot be broken off; nobody waits for it either.
    thread::spawn(move || {
        let found = (asked.as_str(), 0).to_socket_addrs();
        let found = found.map(|found| found.map(|address| address.ip().to_canonical()).collect());
        // Whoever asked may have gone.
        let _ = sender.send(found.unwrap_or_default());
    });
    answer.recv_timeout(time).with_context(|| format!("nobody says in time what {name} stands for"))
}
