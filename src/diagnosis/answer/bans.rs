//! What fail2ban and `ringfence-block` have of a subject, and what ends it.

use super::super::Subject;
use super::super::facts::{Facts, Hits, Host, InJail, Ledgered};
use super::super::undo::{Act, Undo, size};
use super::{By, Check, Closed, Said, Verdict};
use ipnetwork::IpNetwork;

use crate::account::Offender;
use crate::address;
use crate::fail2ban::Remembered;
use crate::ledger::Block;

/// A command of ours, with the settings that it must heed.
pub(super) fn ours<'a>(host: &Host, tool: &'a str, args: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let settings = host.settings.iter().flat_map(|file| ["--config".to_owned(), file.display().to_string()]);
    let args = args.into_iter().map(str::to_owned);
    std::iter::once(tool.to_owned()).chain(settings).chain(args).collect()
}

/// fail2ban lets an id go.
pub(super) fn unban(facts: &Facts, jail: &str, id: &str) -> Undo {
    let socket = facts.host.socket.iter().flat_map(|socket| ["-s".to_owned(), socket.display().to_string()]);
    let command = ["set", jail, "unbanip", id].map(str::to_owned);
    let argv = std::iter::once("fail2ban-client".to_owned()).chain(socket).chain(command);
    let act = Act::Unban { jail: jail.to_owned(), id: id.to_owned() };
    let also = also(&facts.subject, id);
    Undo { also, ..Undo::new(format!("fail2ban's jail {jail} lets {id} go"), argv, act) }
}

/// Who else goes free where this id is let go, in words.
fn also(subject: &Subject, id: &str) -> Option<String> {
    let Subject::Address(_) = subject else { return None };
    match (id.parse::<Offender>(), id.parse::<IpNetwork>()) {
        (_, Ok(network)) => address::single(network).is_none().then(|| size(network)),
        (Ok(Offender { account, source: None }), _) => Some(format!("{account} everywhere")),
        _ => None,
    }
}

/// `ringfence-ban` takes it out of the jail's sets: for those whom it restored, fail2ban may not call its action.
pub(super) fn take_out(host: &Host, InJail { jail, set, entry, .. }: &InJail) -> Undo {
    let network = entry.network;
    let whom = address::single(network).map_or_else(|| network.to_string(), |address| address.to_string());
    let argv = ours(host, "ringfence-ban", ["unban", &format!("--jail={jail}"), "--", &whom]);
    Undo::new(format!("out of the set {set}"), argv, Act::TakeOut { jail: jail.clone(), network })
        .of_network(network)
}

/// A ban of fail2ban's, as it says it.
#[derive(Debug)]
pub(super) struct Held<'a> {
    pub(super) jail: String,
    pub(super) id: String,
    /// By its server, where it was asked and answered.
    pub(super) now: Option<bool>,
    pub(super) record: Option<&'a Remembered>,
}

impl Held<'_> {
    /// Whether fail2ban would have to let it go, as far as is known.
    pub(super) fn lasts(&self) -> bool {
        self.now.unwrap_or(self.record.is_some())
    }

    /// How often, and what its database knows.
    pub(super) fn times(&self) -> String {
        match self.record.map_or(0, |record| record.times) {
            0 | 1 => String::new(),
            times => format!(", banned {times} times"),
        }
    }
}

/// What fail2ban bans of a subject, and what its database has that is not over.
pub(super) fn held(facts: &Facts) -> Vec<Held<'_>> {
    let remembered = facts.remembered.as_ref().ok().and_then(Option::as_deref).unwrap_or_default();
    let server = facts.held.as_ref().ok().and_then(Option::as_ref);
    let mut all = vec![];
    for (jail, ids) in server.into_iter().flatten() {
        for id in ids {
            let record = remembered.iter().find(|record| record.jail == *jail && record.id == *id);
            all.push(Held { jail: jail.clone(), id: id.clone(), now: Some(true), record });
        }
    }
    for record in remembered {
        if !all.iter().any(|held| held.jail == record.jail && held.id == record.id) {
            let now = server.map(|_| false);
            all.push(Held { jail: record.jail.clone(), id: record.id.clone(), now, record: Some(record) });
        }
    }
    all
}

/// What is said of fail2ban where nothing else is.
pub(super) fn not_running(facts: &Facts) -> Vec<Said> {
    if facts.held == Ok(None) { vec![Said::new("does not run")] } else { vec![] }
}

/// The blocks of accounts, and those of them that are in force.
pub(super) fn accounts(facts: &Facts) -> (Check, Vec<Closed>) {
    const CHECK: &str = "accounts";
    let Ok(ledgered) = &facts.ledgered else { return (Check::unknown(CHECK), vec![]) };
    let (mut said, mut closed) = (vec![], vec![]);
    for Ledgered { block, hits } in ledgered {
        let Block { offender, since, until, .. } = block;
        let place = place(offender);
        let not_there = match hits {
            _ if facts.paused.is_some() => " (Ringfence is paused)",
            Hits::Absent if !facts.host.enforces.blocks => " (mode is observe: not in the kernel)",
            Hits::Absent => " (not in the kernel; ringfence-block expire brings it in)",
            Hits::Met(_) | Hits::NotKnown => "",
        };
        let met = match hits {
            Hits::Met(1) => ", met by 1 packet".to_owned(),
            Hits::Met(hits) => format!(", met by {hits} packets"),
            Hits::NotKnown => ", whether the kernel has it is not known".to_owned(),
            Hits::Absent => String::new(),
        };
        let reason = if block.why.is_empty() { String::new() } else { format!(": {}", block.why) };
        let text = format!("{} {place}{reason} ({}){met}{not_there}", offender.account, block.word());
        said.push(Said::new(text).since(*since).until(*until));
        if not_there.is_empty() {
            closed.push(Closed {
                by: By::Account,
                at: None,
                said: Said::new(format!("ringfence-block, {place}")).since(*since).until(*until),
                account: Some(offender.to_string()),
                address: None,
                reach: None,
                ends: None,
                why: why(block),
                lines: lines(facts, offender),
                undo: undo(facts, block),
                hint: String::new(),
            });
        }
    }
    let verdict = match (said.is_empty(), closed.is_empty()) {
        (true, _) => Verdict::Nothing,
        (false, true) => Verdict::WouldBlock,
        (false, false) => Verdict::Blocks,
    };
    (Check::new(CHECK, verdict, said), closed)
}

fn place(offender: &Offender) -> String {
    offender.source.map_or_else(|| "everywhere".to_owned(), |source| format!("from {source}"))
}

fn why(block: &Block) -> String {
    let said = if block.jail.is_empty() { "by hand".to_owned() } else { format!("the jail {}", block.jail) };
    let parts = [block.why.as_str(), block.evidence.as_str(), &said];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

/// fail2ban first: it counts new failures only after that.
fn undo(facts: &Facts, block: &Block) -> Vec<Undo> {
    let id = block.offender.to_string();
    let all = held(facts);
    let of_block = all.iter().filter(|held| held.lasts() && held.id.parse() == Ok(block.offender.clone()));
    let mut undo: Vec<_> = of_block.map(|held| unban(facts, &held.jail, &held.id)).collect();
    // On a jail's word, it is no error that fail2ban has seen to it by then.
    let jail = (!block.jail.is_empty()).then(|| format!("--jail={}", block.jail));
    let call = ["unban"].into_iter().chain(jail.as_deref()).chain(["--", &id]);
    let argv = ours(&facts.host, "ringfence-block", call);
    let act = Act::Unblock(block.offender.clone());
    let also = also(&facts.subject, &id);
    undo.push(Undo { also, ..Undo::new(format!("ringfence-block lets {id} go"), argv, act) });
    undo
}

fn lines(facts: &Facts, offender: &Offender) -> Vec<String> {
    let all = held(facts);
    let of_offender = all.iter().filter(|held| held.id.parse() == Ok(offender.clone()));
    of_offender.filter_map(|held| held.record).flat_map(|record| record.lines.clone()).collect()
}
