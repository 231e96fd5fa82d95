//! What a run did, for people.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

use super::TOOL;
use super::session::{Copies, Fate, Session};
use crate::address_set::{AddressRange, AddressSet};
use crate::commands::screen::{Columns, span};
use crate::config::ListName;

/// So many networks of a change are shown; `diff` shows all.
const NAMED: usize = 5;

/// The results, on a terminal or if they were asked for; cron hears nothing.
pub(super) fn results(session: &Session<'_>, dry_run: bool) {
    if dry_run || io::stdout().is_terminal() {
        // A closed pipe is no error of ours.
        let _ = write!(io::stdout().lock(), "{}", render(session, dry_run));
    }
}

fn render(session: &Session<'_>, dry_run: bool) -> String {
    let mut columns = Columns::new(&["LIST", "KIND", "RESULT", "NETWORKS", "NEW", "GONE"], &[3, 4, 5]);
    for (name, list) in &session.lists {
        let set =
            |copies: &super::session::Copies| copies.get(name).map(|copy| copy.set()).unwrap_or_default();
        let (before, after) = (set(&session.before), set(&session.after));
        let count = |set: &AddressSet| set.count_networks().iter().sum::<usize>().to_string();
        columns.row([
            name.to_string(),
            list.kind.name().to_owned(),
            match &session.fates[name] {
                Fate::NotAsked => "not due",
                Fate::Unchanged => "unchanged",
                Fate::Updated => "updated",
                Fate::Refused(_) => "refused",
            }
            .to_owned(),
            count(&after),
            count(&after.minus(&before)),
            count(&before.minus(&after)),
        ]);
    }
    let mut text = if session.lists.is_empty() {
        "There are no lists in the settings.\n".to_owned()
    } else {
        columns.render()
    };
    if dry_run {
        text += &changes(session);
    }
    text += &remarks(&session.status);
    if !session.lists.is_empty() {
        let [block4, block6] = session.compiled.block.count_networks();
        let [allow4, allow6] = session.compiled.allow.count_networks();
        let _ = writeln!(
            text,
            "Together they block {block4} IPv4 and {block6} IPv6 networks, and allow {allow4} and {allow6}."
        );
    }
    if dry_run {
        text += "This was a dry run: nothing was changed.\n";
    }
    text
}

/// The first few networks that each list has new, and no longer has.
fn changes(session: &Session<'_>) -> String {
    let mut text = String::new();
    for name in session.lists.keys() {
        let (before, after) = sets(session, name);
        for (what, set) in [("new", after.minus(&before)), ("gone", before.minus(&after))] {
            let first: Vec<String> =
                set.networks().take(NAMED).map(|network| AddressRange::from(network).to_string()).collect();
            let more = match set.count_networks().iter().sum::<usize>() - first.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            if !first.is_empty() {
                let _ = writeln!(text, "{name}: {what} {}{more}", first.join(", "));
            }
        }
    }
    text
}

/// What a list has before and after the run.
fn sets(session: &Session<'_>, name: &ListName) -> (AddressSet, AddressSet) {
    let set = |copies: &Copies| copies.get(name).map(|copy| copy.set()).unwrap_or_default();
    (set(&session.before), set(&session.after))
}

/// What was odd, a line each, list by list.
pub(super) fn remarks(status: &crate::feeds::status::Status) -> String {
    let of_lists = status.lists.iter().flat_map(|(name, list)| {
        list.cut_out.iter().chain(&list.notes).map(move |text| format!("{name}: {text}\n"))
    });
    of_lists.chain(status.notes.iter().map(|text| format!("{text}\n"))).collect()
}

/// One line on standard error for what was damaged, for who could not be found out, for each list that was refused, and for
/// what follows from it.
pub(super) fn refusals(session: &Session<'_>) {
    let mut err = io::stderr().lock();
    for odd in session.lost.iter().chain(Some(&session.status.unknown).filter(|unknown| !unknown.is_empty()))
    {
        let _ = writeln!(err, "{TOOL}: {odd}");
    }
    for (name, fate) in &session.fates {
        if let Fate::Refused(why) = fate {
            let _ = writeln!(err, "{TOOL}: {name}: refused: {why}; {}", what_stays(session, name));
        }
    }
    if !session.status.refused.is_empty() {
        let _ = writeln!(err, "{TOOL}: {}", session.status.refused);
    }
}

fn what_stays(session: &Session<'_>, name: &ListName) -> String {
    if let Some(copy) = session.before.get(name) {
        let confirmed = session.status.lists.get(name).map_or(0, |status| status.confirmed);
        // Nobody remembers where the status was damaged.
        let confirmed = if confirmed > 0 { confirmed } else { copy.changed.into() };
        format!("its copy of {} ago stays in use", span(session.now.as_second() - confirmed))
    } else {
        "there is no copy of it yet".to_owned()
    }
}
