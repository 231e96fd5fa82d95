//! `ringfence-ban list`: the jails, and what came of them.

use serde::Serialize;

use super::{Call, complain, kernel};
use crate::bans;
use crate::commands::pause;
use crate::commands::screen::{self, Columns};
use crate::config::Mode;
use crate::exit::Exit;
use crate::firewall::Firewall;

/// The command line of `list`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// A jail, and what the kernel has of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    jail: String,
    /// Ports and protocols, for people.
    closed: String,
    /// How many are banned; absent where the sets are not there, or cannot be read.
    ipv4: Option<u32>,
    ipv6: Option<u32>,
    /// Packets that were dropped since the rules are there; absent where one is missing, or the kernel cannot be asked.
    hits: Option<u64>,
}

pub(super) fn run(call: &Call, args: &Args) -> anyhow::Result<Exit> {
    let jails = bans::read(&call.config.run_dir)?;
    let hits = match Firewall::read() {
        Ok(there) => Some(bans::hits(&jails, &there)),
        Err(error) => {
            complain(&format!("{error:#}; how many packets were dropped is not known"));
            None
        }
    };
    let mut kernel = kernel()?;
    let mut entries = vec![];
    for (at, jail) in jails.iter().enumerate() {
        let counts = jail.banned().count(&mut kernel)?;
        entries.push(Entry {
            jail: jail.name.clone(),
            closed: jail.reach.to_string(),
            ipv4: counts.map(|[v4, _]| v4),
            ipv6: counts.map(|[_, v6]| v6),
            hits: hits.as_ref().and_then(|hits| hits[at]),
        });
    }
    screen::print(args.json, &entries, || {
        let mut text = render(&entries);
        if call.config.mode == Mode::Observe {
            text += "Mode is observe: no packet is dropped.\n";
        } else if entries.iter().any(|entry| entry.ipv4.is_none() || hits.is_some() && entry.hits.is_none()) {
            text += "Something is missing in the kernel; ringfence-ban sync repairs it.\n";
        }
        if let Some(paused) = pause::words(&call.config) {
            text += &[&paused, "\n"].concat();
        }
        text
    })?;
    Ok(Exit::Yes)
}

fn render(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "No jail bans by ringfence-ban.\n".to_owned();
    }
    let mut columns = Columns::new(&["JAIL", "CLOSED", "IPV4", "IPV6", "HITS"], &[2, 3, 4]);
    for entry in entries {
        let count = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
        columns.row([
            entry.jail.clone(),
            entry.closed.clone(),
            count(entry.ipv4.map(Into::into)),
            count(entry.ipv6.map(Into::into)),
            count(entry.hits),
        ]);
    }
    columns.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_aligned_and_calm() {
        let entry = |jail: &str, closed: &str, there: Option<u32>| Entry {
            jail: jail.to_owned(),
            closed: closed.to_owned(),
            ipv4: there,
            ipv6: there.map(|_| 0),
            hits: there.map(u64::from),
        };
        assert_eq!(
            render(&[
                entry("ringfence-freeswitch", "5060,5061 tcp,udp", Some(10_000)),
                entry("sshd", "everything", None)
            ]),
            "JAIL                  CLOSED              IPV4  IPV6   HITS\n\
             ringfence-freeswitch  5060,5061 tcp,udp  10000     0  10000\n\
             sshd                  everything             -     -      -\n"
        );
        assert_eq!(render(&[]), "No jail bans by ringfence-ban.\n");
    }
}
