//! One datagram to the local syslog, as RFC 3164 lays it out for `/dev/log`: priority, tag, text.

use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Facility "daemon" (3).
const FACILITY: u8 = 3 << 3;

#[derive(Clone, Copy)]
pub(super) enum Severity {
    Warning = 4,
    Info = 6,
}

/// Sends one line if it can be sent at once. A log daemon that is gone or does not read costs us the
/// line, never time: the decision itself is in the journal.
pub(super) fn send(socket: &Path, tool: &str, severity: Severity, text: &str) {
    let Ok(sender) = UnixDatagram::unbound() else { return };
    if sender.set_nonblocking(true).is_err() {
        return;
    }
    let priority = FACILITY | severity as u8;
    let line = format!("<{priority}>{tool}[{}]: {text}", std::process::id());
    let _ = sender.send_to(line.as_bytes(), socket);
}
