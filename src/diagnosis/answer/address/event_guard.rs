//! FusionPBX's `event_guard`: its chains, and its log.

use super::super::{By, Check, Closed, Said, Verdict};
use super::{Case, Found, closed, delete, note, verdict};
use crate::diagnosis::facts::InBan;
use crate::fusionpbx::event_guard;

impl Case<'_> {
    pub(super) fn event_guard(&self) -> Found {
        const CHECK: &str = "event_guard";
        let of = self.of;
        let rows = match &of.event_guard {
            Ok(rows) => rows.as_deref().unwrap_or_default(),
            Err(_) => &[],
        };
        let (mut said, mut all) = (vec![], vec![]);
        for ban in of.in_bans.iter().flatten().filter(|ban| ban.is_event_guards()) {
            let row = rows.iter().find(|row| row.filter == ban.rule.chain);
            let text = format!(
                "in the chain {} ({}){}",
                ban.rule.chain,
                ban.rule.program,
                row.map(|row| format!("; {}", words(row))).unwrap_or_default()
            );
            let state = match &ban.rule.reach {
                None => Err(format!("no rule of INPUT leads to {}", ban.rule.chain)),
                Some(_) => self.is_closed(ban.probe),
            };
            let since = row.map(|row| row.since);
            let hint = row.filter(|row| row.status != "unblocked").map(|_| {
                "FusionPBX's page Status > Event Guard Logs still shows it: tick it there, and press Unblock".to_owned()
            });
            let block = Closed {
                reach: ban.rule.reach.clone().filter(|reach| reach != "all ports"),
                ends: Some("for good"),
                undo: vec![delete(&ban.rule, "event_guard")],
                hint: hint.unwrap_or_default(),
                ..closed(By::EventGuard, Said::new(format!("event_guard ({})", ban.rule.chain)).since(since))
            };
            // The same rule twice is one block, which takes two commands.
            match all.iter_mut().find(|other: &&mut Closed| other.said.text == block.said.text) {
                Some(other) => other.undo.extend(block.undo),
                None => note(state, Said::new(text).since(since), block, &mut said, &mut all),
            }
        }
        let nothing = said.is_empty();
        if nothing && let Some(row) = rows.first() {
            let text = match row.status.as_str() {
                "blocked" => {
                    format!("its log says blocked, but no rule of iptables on this host does: {}", words(row))
                }
                status => format!("its log says {status}: {}", words(row)),
            };
            said.push(Said::new(text).since(row.since));
        }
        let judged = if nothing && !said.is_empty() { Verdict::Known } else { verdict(&said, &all) };
        (Check::new(CHECK, judged, said).in_part(of.event_guard.is_err() || of.in_bans.is_err()), all)
    }
}

impl InBan {
    pub(super) fn is_event_guards(&self) -> bool {
        self.rule.chain.starts_with("sip-auth-")
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
