//! Whom fail2ban's database says that a jail bans.

use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use jiff::Timestamp;

use super::Call;
use super::address::{network, seconds};
use crate::deadline::Deadline;
use crate::fail2ban::{self, Ban};
use crate::feeds::guard;
use crate::host;

/// So long the database may take: fail2ban may be writing to it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Those that `counts`, each with how many seconds are left, none for ever: without those that are never banned. `None` where fail2ban
/// has no database, or does not know the jail.
pub(super) fn remembered(
    call: &Call,
    jail: &str,
    counts: impl Fn(&Ban, IpNetwork) -> bool,
) -> anyhow::Result<Option<Vec<(IpNetwork, u32)>>> {
    let (database, deadline) = (&call.config.fail2ban.database, Deadline::after(Instant::now(), PATIENCE));
    let Some(bans) = fail2ban::bans(database, jail, deadline)? else { return Ok(None) };
    let now = Timestamp::now().as_second();
    let protected = guard::of_host(&host::protected(&host::Paths::default()));
    let harmless =
        |network: IpNetwork| guard::cut(&std::iter::once(network).collect(), &protected).1.is_empty();
    let entry = |ban: &Ban| {
        let (network, left) = (network(ban.id.as_ref())?, ban.left(now));
        (left > 0 && harmless(network) && counts(ban, network)).then(|| (network, seconds(left)))
    };
    Ok(Some(bans.iter().filter_map(entry).collect()))
}
