//! What FreeSWITCH says before it lets anybody in. Errors are for its administrator, and have no password in them.

use anyhow::bail;

use super::frames::Frame;

/// Why there may be no connection to an address.
pub(super) const NO_ADDRESS: &str = "not a HOST:PORT that can be resolved";

/// Whether it greets as an event socket does that takes us.
pub(super) fn greeted(greeting: &Frame) -> anyhow::Result<()> {
    match greeting.content_type.as_str() {
        "auth/request" => Ok(()),
        "text/rude-rejection" => {
            bail!("FreeSWITCH's access list refuses this host (apply-inbound-acl of event_socket.conf.xml)")
        }
        other => bail!("not an event socket: it greets with {other:?}"),
    }
}

/// The command that tells it the password.
pub(super) fn auth(password: &str) -> anyhow::Result<String> {
    if password.contains(['\r', '\n']) {
        bail!("the password has a line break in it");
    }
    Ok(format!("auth {password}"))
}

/// Whether it took the password.
pub(super) fn accepted(reply: &str) -> anyhow::Result<()> {
    if !reply.starts_with("+OK") {
        bail!("FreeSWITCH refuses the password (event_socket.conf.xml has it)");
    }
    Ok(())
}
