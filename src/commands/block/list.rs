//! `ringfence-block list`: who is blocked, and what came of it.

use std::collections::HashMap;

use serde::Serialize;

use super::{Call, complain};
use crate::account::Offender;
use crate::commands::screen::{self, Columns, span};
use crate::exit::Exit;
use crate::firewall::{Counters, Firewall, Tag};
use crate::ledger::Block;
use crate::matcher::strings;

/// The command line of `list`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON, with seconds since 1970; restore reads it
    #[arg(long)]
    json: bool,
}

/// A block, and how often it was met.
#[derive(Debug, Serialize)]
struct Entry {
    #[serde(flatten)]
    block: Block,
    /// Packets that were dropped; absent where the kernel cannot be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    hits: Option<u64>,
}

pub(super) fn run(call: &Call, args: &Args) -> anyhow::Result<Exit> {
    let active = call.ledger()?.active(call.now())?;
    let counters = match Firewall::read() {
        Ok(firewall) => Some(firewall.counters()),
        Err(error) => {
            complain(&format!("{error:#}; how often a block was met is not known"));
            None
        }
    };
    let hits = |offender: &Offender| Some(hits(counters.as_ref()?, offender));
    let entries: Vec<_> = active
        .into_iter()
        .map(|block| {
            let hits = hits(&block.offender);
            Entry { block, hits }
        })
        .collect();
    screen::print(args.json, &entries, || render(&entries, call.now()))?;
    Ok(Exit::Yes)
}

fn hits(counters: &HashMap<Tag, Counters>, offender: &Offender) -> u64 {
    counters.get(&strings::leaf(offender).tag()).copied().unwrap_or_default().packets
}

fn render(entries: &[Entry], now: i64) -> String {
    if entries.is_empty() {
        return "Nobody is blocked.\n".to_owned();
    }
    let mut columns = Columns::new(&["ACCOUNT", "SOURCE", "SINCE", "REMAINING", "HITS", "JAIL", "WHY"], &[4]);
    for entry in entries {
        let Entry { block: Block { offender, jail, since, until, why, .. }, hits } = entry;
        columns.row([
            offender.account.to_string(),
            offender.source.map_or_else(|| "everywhere".to_owned(), |source| source.to_string()),
            format!("{} ago", span(now - since)),
            span(until - now),
            hits.map_or_else(|| "?".to_owned(), |hits| hits.to_string()),
            if jail.is_empty() { "by hand".to_owned() } else { jail.clone() },
            why.clone(),
        ]);
    }
    columns.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, jail: &str) -> Entry {
        let block = Block {
            offender: id.parse().unwrap(),
            jail: jail.to_owned(),
            seen_from: Some("203.0.113.20".parse().unwrap()),
            since: 1_795_183_743,
            until: 1_795_187_343,
            why: "FusionPBX has no such domain".to_owned(),
            evidence: "203.0.113.20 has a live registration".to_owned(),
        };
        Entry { block, hits: Some(12) }
    }

    #[test]
    fn a_list_is_aligned_and_calm() {
        let entries = [entry("999@a.example.com", "sip"), entry("101@d,2001:db8::1", "")];
        let now = 1_795_184_343;
        assert_eq!(
            render(&entries, now),
            "ACCOUNT            SOURCE       SINCE    REMAINING  HITS  JAIL     WHY\n\
             999@a.example.com  everywhere   10m ago  50m          12  sip      FusionPBX has no such domain\n\
             101@d              2001:db8::1  10m ago  50m          12  by hand  FusionPBX has no such domain\n"
        );
        assert_eq!(render(&[], now), "Nobody is blocked.\n");
    }

    #[test]
    fn what_is_listed_can_be_read_again() {
        let json = serde_json::to_string(&entry("101@d,2001:db8::1", "sip")).unwrap();
        assert!(json.starts_with(r#"{"account":"101@d","source":"2001:db8::1","jail":"sip","seen-from":"203.0.113.20","since":1795183743,"#), "{json}");
        assert_eq!(serde_json::from_str::<Block>(&json).unwrap(), entry("101@d,2001:db8::1", "sip").block);
    }
}
