//! FusionPBX's `event_guard`: its chains, and its log.

use super::super::places::is_event_guards;
use super::super::rules::program_and_table;
use super::super::{At, By, Check, Closed, Said, Verdict};
use super::{Case, closed, delete, note, reach, verdict};
use crate::diagnosis::facts::InBan;
use crate::diagnosis::undo::{Act, Undo};
use crate::firewall;
use crate::firewall::native::Refusal;
use crate::firewall::path::NFT;
use crate::fusionpbx::event_guard;

/// Its page in FusionPBX goes by its log alone.
const PAGE: &str =
    "FusionPBX's page Status > Event Guard Logs still shows it: tick it there, and press Unblock";

impl Case<'_> {
    pub(super) fn event_guard(&self) -> (Vec<Check>, Vec<Closed>) {
        const CHECK: &str = "event_guard";
        let of = self.of;
        let rows = match &of.event_guard {
            Ok(rows) => rows.as_deref().unwrap_or_default(),
            Err(_) => &[],
        };
        let (mut said, mut all, mut at) = (vec![], vec![], None);
        let mut tell =
            |state, chain: &str, place: String, in_chain: Option<At>, reach, undo: Option<Undo>| {
                let row = rows.iter().find(|row| row.filter == chain);
                let text =
                    format!("{place}{}", row.map(|row| format!("; {}", words(row))).unwrap_or_default());
                let since = row.map(|row| row.since);
                at = at.take().or_else(|| in_chain.clone());
                let hint = row.filter(|row| row.status != "unblocked").map(|_| PAGE.to_owned());
                let block = Closed {
                    at: in_chain,
                    reach,
                    ends: Some("for good"),
                    undo: undo.into_iter().collect(),
                    hint: hint.unwrap_or_default(),
                    ..closed(By::EventGuard, Said::new(format!("event_guard ({chain})")).since(since))
                };
                // The same rule twice is one block, which takes two commands.
                match all.iter_mut().find(|other: &&mut Closed| other.said.text == block.said.text) {
                    Some(other) => other.undo.extend(block.undo),
                    None => note(state, Said::new(text).since(since), block, &mut said, &mut all),
                }
            };
        for ban in of.in_bans.iter().flatten().filter(|ban| ban.is_event_guards()) {
            let chain = &ban.rule.chain;
            let state = match &ban.rule.reach {
                None => Err(format!("no rule that packets meet leads to {chain}")),
                Some(_) => self.is_closed(ban.probe),
            };
            let program = program_and_table(&ban.rule.program, ban.rule.table);
            let place = format!("in the chain {chain} ({program})");
            let reach = ban.rule.reach.clone().filter(|reach| reach != "all ports");
            let at = of.place(|step| ban.is_by(step));
            tell(state, chain, place, at, reach, Some(delete(&ban.rule, "event_guard")));
        }
        for refusal in of.refusals.iter().flatten().filter(|refusal| refusal.is_event_guards()) {
            let Refusal { chain, table, .. } = refusal;
            let place = format!("in the chain {chain} (nftables, table {table})");
            let at = of.place(|step| step.program == NFT && step.table == *table && step.chain == *chain);
            tell(Ok(None), chain, place, at, reach(refusal), self.delete_rule(refusal));
        }
        let judged = verdict(&said, &all);
        let at = at.or_else(|| of.place(is_event_guards));
        let unread = of.event_guard.is_err() || of.in_bans.is_err() || of.refusals.is_err();
        let nothing = said.is_empty();
        let mut checks = vec![Check::new(CHECK, judged, said).at(at).in_part(unread)];
        if nothing && let Some(row) = rows.first() {
            let text = match row.status.as_str() {
                "blocked" => {
                    format!("its log says blocked, but no rule on this host does: {}", words(row))
                }
                status => format!("its log says {status}: {}", words(row)),
            };
            checks.push(Check::new("event_guard's log", Verdict::Known, [Said::new(text).since(row.since)]));
        }
        (checks, all)
    }

    /// A rule of its own in a table of nftables is taken away.
    fn delete_rule(&self, refusal: &Refusal) -> Option<Undo> {
        let argv = refusal.delete()?;
        let what = format!("the rule of event_guard in {} of nftables is taken away", refusal.chain);
        let act = Act::DeleteRule { refusal: refusal.clone(), address: self.of.address };
        let undo = Undo::new(what, argv, act);
        Some(match refusal.network {
            Some(network) => undo.of_network(network),
            None => Undo { also: Some("whoever else it names".to_owned()), ..undo },
        })
    }
}

impl InBan {
    pub(super) fn is_event_guards(&self) -> bool {
        firewall::is_event_guards(&self.rule.chain)
    }
}

fn words(row: &event_guard::Entry) -> String {
    let event_guard::Entry { filter, extension, user_agent, status, host, .. } = row;
    let of =
        |name: &str, text: &str| if text.is_empty() { String::new() } else { format!(", {name} {text}") };
    format!(
        "v_event_guard_logs: {status} by {filter}{}{}{}",
        of("extension", extension),
        of("agent", user_agent),
        of("host", host)
    )
}
