//! `ringfence-ban ban` and `unban`: one address or network.

use std::ffi::{OsStr, OsString};

use ipnetwork::IpNetwork;
use jiff::Timestamp;

use super::jail::enter;
use super::{Call, Whose, complain, kernel};
use crate::address::{self, WIDEST_V4, WIDEST_V6};
use crate::bans;
use crate::commands::{a_jail, a_span, say, screen::span};
use crate::config::Config;
use crate::evidence::visible_within;
use crate::exit::Exit;
use crate::feeds::guard::{self, Protected, Why};
use crate::firewall::take_turn;
use crate::host;
use crate::kernel_sets::Banned;

/// The command line of `ban`.
#[derive(Debug, clap::Args)]
pub(super) struct BanArgs {
    #[command(flatten)]
    whose: Whose,

    /// How long, in seconds or like 30m; negative: for ever
    ///
    /// Also like 1d or 2h 30m.
    #[arg(long = "for", value_name = "SPAN", value_parser = a_span, allow_hyphen_values = true)]
    span: i64,

    /// An IPv4 or IPv6 address, or a network
    #[arg(value_name = "ADDRESS")]
    address: OsString,
}

/// The command line of `unban`.
#[derive(Debug, clap::Args)]
pub(super) struct UnbanArgs {
    /// fail2ban's jail
    #[arg(long, value_name = "NAME", value_parser = a_jail)]
    jail: String,

    /// An IPv4 or IPv6 address, or a network
    #[arg(value_name = "ADDRESS")]
    address: OsString,
}

pub(super) fn ban(call: &Call, args: &BanArgs) -> anyhow::Result<Exit> {
    let (name, reach) = (&args.whose.jail, args.whose.reach()?);
    let network = match bannable(&args.address) {
        Ok(network) => network,
        Err((reason, why)) => {
            let text = visible_within(&args.address.to_string_lossy(), 100);
            call.record(&text, "refuse", reason, name, &why);
            complain(&format!("{text:?} is not banned: {why}"));
            // fail2ban would only try it again.
            return Ok(Exit::Yes);
        }
    };
    let _turn = take_turn(&call.config.run_dir)?;
    let (mut jails, mut kernel) = (call.jails(), kernel()?);
    let known = jails.iter().position(|jail| jail.name == *name && jail.reach == reach);
    // A jail that we do not know has started all the same: somebody took away our file.
    let at = known.unwrap_or_else(|| enter(&mut jails, name, reach, Timestamp::now()));
    // fail2ban remembers him a moment after this call: until then sync must not take him for one that was let go.
    let was_remembered = jails[at].remembered.remove(&network);
    if known.is_none() || was_remembered {
        bans::write(&call.config.run_dir, &jails)?;
    }
    let banned = Banned::of(name);
    banned.make(&mut kernel)?;
    banned.put(&mut kernel, [(network, seconds(args.span))])?;
    call.settle(&jails, &mut kernel)?;
    let long = if args.span == i64::MAX { "for ever".to_owned() } else { format!("for {}", span(args.span)) };
    let subject = subject(network);
    call.record(&subject, "ban", "jail", name, &long);
    say(&format!("{subject} is banned {long}."));
    Ok(Exit::Yes)
}

pub(super) fn unban(call: &Call, args: &UnbanArgs) -> anyhow::Result<Exit> {
    // What cannot be banned was not.
    let Some(network) = network(&args.address) else { return Ok(Exit::Yes) };
    let _turn = take_turn(&call.config.run_dir)?;
    let (mut jails, mut kernel) = (call.jails(), kernel()?);
    let banned = Banned::of(&args.jail);
    if banned.count(&mut kernel)?.is_some() {
        banned.take_out(&mut kernel, [network])?;
    }
    if jails.iter_mut().any(|jail| jail.name == args.jail && jail.remembered.remove(&network)) {
        bans::write(&call.config.run_dir, &jails)?;
    }
    call.record(&subject(network), "unban", "jail", &args.jail, "");
    say(&format!("Let go of {}.", subject(network)));
    Ok(Exit::Yes)
}

/// A network is taken out of a jail's sets by the administrator, whatever fail2ban says.
pub(in crate::commands) fn let_go(config: &Config, jail: &str, network: IpNetwork) -> anyhow::Result<()> {
    let call = Call { config: config.clone(), file: None };
    let _turn = take_turn(&call.config.run_dir)?;
    let (mut jails, mut kernel) = (call.jails(), kernel()?);
    let banned = Banned::of(jail);
    if banned.count(&mut kernel)?.is_some() {
        banned.take_out(&mut kernel, [network])?;
    }
    if jails.iter_mut().any(|other| other.name == jail && other.remembered.remove(&network)) {
        bans::write(&call.config.run_dir, &jails)?;
    }
    call.record(&subject(network), "unban", "by-hand", jail, "released");
    Ok(())
}

/// The network, or why it must not be banned, in a word and in a sentence.
fn bannable(text: &OsStr) -> Result<IpNetwork, (&'static str, String)> {
    let Some(network) = network(text) else {
        return Err((
            "not-an-address",
            "it is no IPv4 or IPv6 address, and no network that somebody may have".to_owned(),
        ));
    };
    match OfHost::look().hit(network) {
        Some(why) => {
            let (what, _) = why.names();
            Err((why.word(), format!("it is, or has in it, {} {what}", article(what))))
        }
        None => Ok(network),
    }
}

/// What belongs to this host and is never banned.
pub(super) struct OfHost(Vec<Protected>);

impl OfHost {
    pub(super) fn look() -> Self {
        Self(guard::of_host(&host::protected(&host::Paths::default())))
    }

    /// Why a network must not be banned, if that is so.
    pub(super) fn hit(&self, network: IpNetwork) -> Option<Why> {
        let (_, hits) = guard::cut(&std::iter::once(network).collect(), &self.0);
        hits.first().map(|hit| hit.why)
    }
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with('a') { "an" } else { "a" }
}

/// An address, or a network no wider than anybody has one, as fail2ban writes it.
pub(super) fn network(text: &OsStr) -> Option<IpNetwork> {
    let text = text.to_str()?;
    if let Some(address) = address::parse_text(text) {
        return (!address.is_unspecified()).then(|| address.into());
    }
    let network: IpNetwork = text.split_once('/')?.1.parse::<u8>().ok().and_then(|_| text.parse().ok())?;
    let widest = if network.is_ipv4() { WIDEST_V4 } else { WIDEST_V6 };
    (network.prefix() >= widest).then_some(network)
}

/// As the kernel takes it, which knows no more than 24 days but for ever.
pub(super) fn seconds(left: i64) -> u32 {
    if left == i64::MAX { 0 } else { u32::try_from(left.max(1)).unwrap_or(u32::MAX) }
}

/// For people, who write no `/32`.
fn subject(network: IpNetwork) -> String {
    address::single(network).map_or_else(|| network.to_string(), |address| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_an_address_or_a_network_that_somebody_may_have() {
        let networks =
            ["203.0.113.66", "::ffff:203.0.113.66", "203.0.113.0/24", "2001:DB8::1", "2001:db8::/32"];
        assert_eq!(
            networks.map(|text| network(text.as_ref()).map(subject).unwrap()),
            ["203.0.113.66", "203.0.113.66", "203.0.113.0/24", "2001:db8::1", "2001:db8::/32"]
        );
        for wrong in [
            "",
            "0.0.0.0",
            "0.0.0.0/0",
            "1.0.0.0/7",
            "::/0",
            "203.0.113.0/255.255.255.0",
            "1.2.3",
            "999@d",
            "1.2.3.4/33",
        ] {
            assert_eq!(network(wrong.as_ref()), None, "{wrong}");
        }
        assert_eq!([1, 0, i64::MAX, i64::MAX - 1].map(seconds), [1, 1, 0, u32::MAX]);
    }
}
