//! `ringfence-block list`: who is blocked, and what came of it.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;

use super::{Call, complain};
use crate::account::Offender;
use crate::commands::screen::{self, Columns, span};
use crate::commands::{causes, pause};
use crate::config::{Config, Mode};
use crate::exit::Exit;
use crate::firewall::{self, Counters, Firewall, Tag};
use crate::ledger::{Block, Ledger};
use crate::matcher::bpf::{self, InKernel};
use crate::matcher::{Chosen, Wanted, strings};
use crate::times::rfc3339_if;

/// The command line of `list`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON, with times as of RFC 3339; restore reads it
    #[arg(long)]
    json: bool,
}

/// A block, and what the kernel has of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    #[serde(flatten)]
    block: Block,
    /// Packets that were dropped since the rule is there; absent where there is no rule, or the kernel cannot be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    hits: Option<u64>,
}

pub(super) fn run(call: &Call, args: &Args) -> anyhow::Result<Exit> {
    let (active, suspended) = match peek(&call.config)? {
        Some(mut ledger) => (ledger.active(call.now())?, ledger.suspended_until(call.now())?),
        None => (vec![], None),
    };
    let mut entries = vec![];
    let meets = Meets::read(call);
    if let Err(error) = &meets {
        complain(&format!("{error:#}; how often a block was met is not known"));
    }
    for block in active {
        let hits = meets.as_ref().map_or(Ok(None), |meets| meets.of(&block.offender))?;
        entries.push(Entry { block, hits });
    }
    let asked = meets.is_ok();
    screen::print(args.json, &entries, || {
        let mut text = render(&entries, asked, call.now());
        let missing = entries.iter().filter(|entry| entry.hits.is_none()).count();
        if call.config.block_mode() == Mode::Observe {
            text += "Mode is observe: nobody is blocked in the kernel.\n";
        } else if asked && missing > 0 {
            let _ = writeln!(
                text,
                "{missing} of {} are not in the kernel; ringfence-block expire brings them in.",
                entries.len()
            );
        }
        if let Ok(meets) = &meets
            && missing < entries.len()
        {
            text += &meets.words(call);
        }
        if let Some(paused) = pause::words(&call.config) {
            text += &[&paused, "\n"].concat();
        }
        if let Some(until) = suspended {
            let left = span(until - call.now());
            let _ = writeln!(
                text,
                "After an alarm, no jail blocks anybody for another {left}; ringfence-block start ends that."
            );
        }
        text
    })?;
    Ok(Exit::Yes)
}

/// The blocks as a whole, for `ringfence status`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::commands) struct Overview {
    pub(in crate::commands) count: usize,
    /// Of these the kernel holds so many.
    pub(in crate::commands) in_kernel: usize,
    /// The first ends then, in seconds since 1970.
    #[serde(serialize_with = "rfc3339_if")]
    pub(in crate::commands) next_end: Option<i64>,
    /// How many each jail asked for; by hand: an empty name.
    pub(in crate::commands) jails: BTreeMap<String, usize>,
    /// What matches them; `None` where nothing does.
    pub(in crate::commands) matcher: Option<&'static str>,
    /// Why that, and where it looks.
    pub(in crate::commands) matched: Option<String>,
    /// What of it is not as it should be.
    pub(in crate::commands) faults: Vec<String>,
    /// No jail blocks anybody until then, in seconds since 1970.
    #[serde(serialize_with = "rfc3339_if")]
    pub(in crate::commands) suspended_until: Option<i64>,
}

/// Nothing is changed. `None` where nobody was ever blocked.
pub(in crate::commands) fn overview(config: &Config, now: Timestamp) -> anyhow::Result<Option<Overview>> {
    let call = Call::new(config.clone(), now);
    let Some(mut ledger) = peek(config)? else { return Ok(None) };
    let (active, suspended_until) = (ledger.active(call.now())?, ledger.suspended_until(call.now())?);
    let meets = Meets::read(&call)?;
    let mut in_kernel = 0;
    for block in &active {
        in_kernel += usize::from(meets.of(&block.offender)?.is_some());
    }
    let matcher = match meets {
        Meets::Bpf(_) => Some("bpf"),
        Meets::Strings(_) if in_kernel > 0 => Some("strings"),
        Meets::Strings(_) => None,
    };
    let mut jails = BTreeMap::new();
    for block in &active {
        *jails.entry(block.jail.clone()).or_default() += 1;
    }
    let mut faults = vec![];
    if matches!(meets, Meets::Bpf(_)) {
        let (there, missing) = bpf::places(&bpf::Settings::new(config))?;
        if there.is_empty() {
            faults.push("it looks at no interface".to_owned());
        }
        faults.extend(missing.iter().map(|name| format!("there is no interface {name}")));
    }
    Ok(Some(Overview {
        count: active.len(),
        in_kernel,
        next_end: active.iter().map(|block| block.until).min(),
        jails,
        matcher,
        matched: matcher.map(|_| meets.words(&call).trim_end().to_owned()),
        faults,
        suspended_until,
    }))
}

/// The ledger, to be read alone: to look makes and moves nothing. `None` where there is none.
pub(super) fn peek(config: &Config) -> anyhow::Result<Option<Ledger>> {
    let path = config.ledger_path();
    if path.exists() { Ledger::peek(&path).map(Some) } else { Ok(None) }
}

/// Who is blocked, by the ledger as it is.
pub(super) fn active(call: &Call) -> anyhow::Result<Vec<Block>> {
    peek(&call.config)?.map_or(Ok(vec![]), |mut ledger| ledger.active(call.now()))
}

/// The blocks, each with how often it was met, if the kernel could be asked: nothing where it is not in the kernel.
pub(in crate::commands) type Met = Vec<(Block, Option<Option<u64>>)>;

/// All blocks, for other tools; and why the kernel could not be asked, if that is so. To look makes and moves nothing.
pub(in crate::commands) fn all(config: &Config, now: Timestamp) -> anyhow::Result<(Met, Option<String>)> {
    let call = Call::new(config.clone(), now);
    let active = active(&call)?;
    if active.is_empty() {
        return Ok((vec![], None));
    }
    let meets = Meets::read(&call).and_then(|meets| {
        active.iter().map(|block| meets.of(&block.offender)).collect::<anyhow::Result<Vec<_>>>()
    });
    Ok(match meets {
        Ok(hits) => (active.into_iter().zip(hits.into_iter().map(Some)).collect(), None),
        Err(error) => (active.into_iter().map(|block| (block, None)).collect(), Some(causes(&error))),
    })
}

/// How often blocks were met, by what matches them.
enum Meets {
    Bpf(InKernel),
    Strings(HashMap<Tag, Counters>),
}

impl Meets {
    fn read(call: &Call) -> anyhow::Result<Self> {
        match InKernel::open()? {
            Some(there) => Ok(Self::Bpf(there)),
            None if !matches!(Wanted::new(&call.config), Wanted::Strings(_)) && !firewall::is_installed() => {
                Ok(Self::Strings(HashMap::new()))
            }
            None => Ok(Self::Strings(Firewall::read()?.counters())),
        }
    }

    /// `None` if nothing matches it.
    fn of(&self, offender: &Offender) -> anyhow::Result<Option<u64>> {
        match self {
            Self::Bpf(there) => there.hits(offender),
            Self::Strings(counters) => {
                Ok(counters.get(&strings::leaf(offender).tag()).map(|counters| counters.packets))
            }
        }
    }

    /// What matches, and why nothing better does.
    fn words(&self, call: &Call) -> String {
        match (self, Wanted::new(&call.config)) {
            (Self::Bpf(_), _) => format!("Matched by the program in the kernel{}.\n", where_it_looks(call)),
            (Self::Strings(_), Wanted::Bpf { .. }) => {
                let why = bpf::known_impossible(&call.config.run_dir)
                    .or_else(|| bpf::no_place(&bpf::Settings::new(&call.config)).ok().flatten())
                    .unwrap_or_else(|| "ringfence-block restore says why".to_owned());
                format!("Matched by patterns in iptables, not by the program in the kernel: {why}.\n")
            }
            (Self::Strings(_), Wanted::Strings(why)) => {
                let why = why.map_or_else(String::new, |why| format!(": {why}"));
                format!("Matched by patterns in iptables{why}.\n")
            }
        }
    }
}

/// Behind a sentence: what matches blocked accounts, and where.
pub(super) fn matched_by(call: &Call, by: Option<&Chosen>) -> String {
    match by {
        None => String::new(),
        Some(Chosen::Bpf) => format!(" Matched by the program in the kernel{}.", where_it_looks(call)),
        Some(Chosen::Strings | Chosen::InsteadOfBpf(_)) => " Matched by patterns in iptables.".to_owned(),
    }
}

fn where_it_looks(call: &Call) -> String {
    let settings = bpf::Settings::new(&call.config);
    let looked = || -> anyhow::Result<_> { Ok((bpf::places(&settings)?, bpf::unwatched(&settings)?)) };
    let ((there, missing), unwatched) = match looked() {
        Ok(looked) => looked,
        Err(error) => return format!(": {}", causes(&error)),
    };
    let mut text = match there.as_slice() {
        [] => ", at no interface".to_owned(),
        there => format!(", at {}", there.join(", ")),
    };
    for (what, names) in
        [("There is no interface", missing), ("Not looked at, though it has addresses:", unwatched)]
    {
        if !names.is_empty() {
            let _ = write!(text, ". {what} {}", names.join(", "));
        }
    }
    text
}

/// `asked`: whether the kernel could be.
fn render(entries: &[Entry], asked: bool, now: i64) -> String {
    if entries.is_empty() {
        return "Nobody is blocked.\n".to_owned();
    }
    let mut columns = Columns::new(&["ACCOUNT", "SOURCE", "SINCE", "REMAINING", "HITS", "JAIL", "WHY"], &[4]);
    for entry in entries {
        let Entry { block, hits } = entry;
        let Block { offender, since, until, why, .. } = block;
        columns.row([
            offender.account.to_string(),
            offender.source.map_or_else(|| "everywhere".to_owned(), |source| source.to_string()),
            format!("{} ago", span(now.saturating_sub(*since))),
            span(until.saturating_sub(now)),
            hits.map_or_else(|| if asked { "-" } else { "?" }.to_owned(), |hits| hits.to_string()),
            block.word().to_owned(),
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
            render(&entries, true, now),
            "ACCOUNT            SOURCE       SINCE    REMAINING  HITS  JAIL     WHY\n\
             999@a.example.com  everywhere   10m ago  50m          12  sip      FusionPBX has no such domain\n\
             101@d              2001:db8::1  10m ago  50m          12  by hand  FusionPBX has no such domain\n"
        );
        assert_eq!(render(&[], true, now), "Nobody is blocked.\n");
    }

    #[test]
    fn what_is_listed_can_be_read_again() {
        let json = serde_json::to_string(&entry("101@d,2001:db8::1", "sip")).unwrap();
        assert!(json.starts_with(r#"{"account":"101@d","source":"2001:db8::1","jail":"sip","seen-from":"203.0.113.20","since":"2026-11-20T14:09:03Z","#), "{json}");
        assert_eq!(serde_json::from_str::<Block>(&json).unwrap(), entry("101@d,2001:db8::1", "sip").block);
    }
}
