//! Whom fail2ban's database says that a jail bans.

use ipnetwork::IpNetwork;
use jiff::Timestamp;

use super::Call;
use super::address::{OfHost, network, seconds};
use crate::bans::Jail;
use crate::deadline::Deadline;
use crate::fail2ban::{self, Ban};

/// Those that `counts`, each with how many seconds are left, none for ever: without those that are never banned. `None` where fail2ban
/// has no database, or does not know the jail.
pub(super) fn remembered(
    call: &Call,
    jail: &Jail,
    of_host: &OfHost,
    deadline: Deadline,
    counts: impl Fn(&Ban, IpNetwork) -> bool,
) -> anyhow::Result<Option<Vec<(IpNetwork, u32)>>> {
    let mut bans = None;
    for name in jail.names() {
        bans = fail2ban::bans(&call.config.fail2ban.database, name, deadline)?;
        if bans.is_some() {
            break;
        }
    }
    let Some(bans) = bans else { return Ok(None) };
    let now = Timestamp::now().as_second();
    let entry = |ban: &Ban| {
        let (network, left) = (network(ban.id.as_ref())?, ban.left(now));
        (left > 0 && of_host.hit(network).is_none() && counts(ban, network)).then(|| (network, seconds(left)))
    };
    Ok(Some(bans.iter().filter_map(entry).collect()))
}
