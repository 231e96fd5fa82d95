//! The screen: the answer, what is not well, and the host at a glance.

use std::fmt::Write as _;

use super::Status;
use super::attention::Attention;
use super::decisions::Row as Decided;
use super::jails::Row as Jail;
use super::services::Service;
use crate::commands::lists::show::overview::{InKernel, Overview as Lists, Summary};
use crate::commands::pause;
use crate::commands::screen::{Columns, counted, span};
use crate::evidence::visible;
use crate::services::State;

/// So many rows of each table fit on the screen.
const JAILS: usize = 6;
const LISTS: usize = 8;
const DECISIONS: usize = 8;

/// So many things that need attention are said.
const ATTENTION: usize = 10;

pub(super) fn render(status: &Status) -> String {
    let now = jiff::Timestamp::from_second(status.when).unwrap_or_default();
    let mut text = String::new();
    if let Some(until) = status.paused_until {
        text += &[&pause::sentence(until, now), "\n"].concat();
    }
    text += &answer(status);
    text += "\n";
    for (key, value) in [
        ("mode", Some(mode(status))),
        ("order", Some(order(status))),
        ("services", Some(status.services.as_deref().map_or_else(unknown, services))),
        ("blocks", Some(blocks(status))),
        ("addresses", Some(addresses(status))),
        ("events", Some(events(status))),
        ("dropped", status.dropped.as_ref().map(|dropped| dropped.words(status.when))),
        ("lists", status.lists.as_ref().and_then(|lists| loaded(lists, status.when))),
    ] {
        text += &value.map(|value| line(key, &value)).unwrap_or_default();
    }
    text += &table(
        status.lists.as_ref().map(|lists| list_rows(lists, status.when)),
        LISTS,
        &["LIST", "KIND", "NETWORKS", "AGE", "LAST RESULT"],
        &[2],
    );
    text += &table(
        status.jails.as_deref().map(jail_rows),
        JAILS,
        &["JAIL", "BANNED", "IN KERNEL", "HITS"],
        &[1, 2, 3],
    );
    let decided = status.decisions.as_deref().map(|decisions| decision_rows(decisions, status.when));
    text += &table(decided, DECISIONS, &["DECISIONS OF A DAY", "BECAUSE", "BY", "COUNT", "LAST"], &[3]);
    text
}

/// A word, and what there is to say, as often as needed in the next line.
fn line(key: &str, value: &str) -> String {
    wrapped(format!("{key:<10}"), visible(value).split(' '))
}

/// The words behind `text`, and below each other where they are too many for a line.
fn wrapped<'a>(mut text: String, words: impl Iterator<Item = &'a str>) -> String {
    const WIDTH: usize = 80;
    let indent = text.chars().count();
    let mut width = indent;
    for word in words {
        let length = word.chars().count();
        if width + 1 + length > WIDTH && width > indent {
            let _ = write!(text, "\n{:indent$}", "");
            width = indent;
        }
        text += &[" ", word].concat();
        width += 1 + length;
    }
    text + "\n"
}

fn unknown() -> String {
    "not known".to_owned()
}

/// The answer first.
fn answer(status: &Status) -> String {
    let mut text = match status.attention.len() {
        0 if status.mode.observe => "All is well, and mode is observe: nothing is blocked.\n".to_owned(),
        0 => "All is well.\n".to_owned(),
        count => format!("{}:\n", counted(count as u64, "thing needs attention", "things need attention")),
    };
    for Attention { what, more, .. } in status.attention.iter().take(ATTENTION) {
        // A command is copied as a whole.
        let more = format!("({more})");
        text += &wrapped("-".to_owned(), what.split(' ').chain([more.as_str()]));
    }
    if let Some(rest @ 1..) = status.attention.len().checked_sub(ATTENTION) {
        let _ = writeln!(text, "... and {rest} more; --json has all");
    }
    text
}

fn mode(status: &Status) -> String {
    let word = |observe| if observe { "observe" } else { "enforce" };
    let mode = status.mode;
    let mut text = word(mode.observe).to_owned();
    for (section, observe) in [("block", mode.block_observe), ("firewall", mode.firewall_observe)] {
        if observe != mode.observe {
            let _ = write!(text, ", but {} in [{section}]", word(observe));
        }
    }
    text
}

fn order(status: &Status) -> String {
    match &status.order {
        None => "not applied, or not known".to_owned(),
        Some(order) if order.checks.iter().any(|check| check.wrong.is_some()) => {
            "not as it was applied".to_owned()
        }
        Some(_) => "verified, IPv4 and IPv6".to_owned(),
    }
}

fn services(services: &[Service]) -> String {
    let names = |wanted: &dyn Fn(&Service) -> bool| -> String {
        let short = |service: &Service| {
            let name = service.unit.split('.').next().unwrap_or_default();
            name.trim_start_matches("ringfence-").to_owned()
        };
        services.iter().filter(|service| wanted(service)).map(short).collect::<Vec<_>>().join(", ")
    };
    let parts: [(&str, String); 3] = [
        ("systemd runs", names(&|service| service.state == State::Systemd)),
        ("cron runs", names(&|service| service.state == State::Cron)),
        ("not running:", names(&|service| service.needed && !service.state.runs())),
    ];
    let parts = parts.iter().filter(|(_, names)| !names.is_empty());
    let text: Vec<_> = parts.map(|(what, names)| format!("{what} {names}")).collect();
    if text.is_empty() { "none, and none is needed".to_owned() } else { text.join("; ") }
}

fn blocks(status: &Status) -> String {
    let Some(blocks) = &status.blocks else { return "nobody was ever blocked, or not known".to_owned() };
    let mut text = match blocks.count {
        0 => "nobody is blocked".to_owned(),
        count => counted(count as u64, "account", "accounts"),
    };
    if let Some(end) = blocks.next_end {
        let _ = write!(text, ", the next ends in {}", span(end - status.when));
    }
    if let Some(matched) = &blocks.matched {
        let matched = matched.trim_end_matches('.');
        let _ = write!(text, "; {}{}", matched[..1].to_lowercase(), &matched[1..]);
    }
    text
}

fn addresses(status: &Status) -> String {
    let addresses = &status.addresses;
    let count = |count: Option<usize>| count.map_or_else(|| "?".to_owned(), |count| count.to_string());
    let kernel = match addresses.kernel {
        Some([v4, v6]) => format!("{v4} IPv4 and {v6} IPv6 in the kernel"),
        None => "no sets in the kernel".to_owned(),
    };
    format!(
        "{} allowed for a time, {} seen registered within a day; {kernel}",
        count(addresses.allowed),
        count(addresses.seen)
    )
}

fn events(status: &Status) -> String {
    let events = &status.events;
    let Some((age, addresses)) = events.age.zip(events.addresses) else { return "not in use".to_owned() };
    let age = span(i64::try_from(age).unwrap_or(i64::MAX));
    let registered = counted(addresses as u64, "address", "addresses");
    let mut text = if events.live {
        format!("live, {age} ago; {registered} with registrations")
    } else {
        format!("silent for {age}")
    };
    if let Some(counted) = &events.counted {
        let count = |kind: &str| counted.lines.get(kind).copied().unwrap_or(0);
        let _ =
            write!(text, "; {} failures, {} successes since its start", count("failure"), count("success"));
        if counted.dropped > 0 {
            let _ = write!(text, ", {} lines dropped", counted.dropped);
        }
    }
    text
}

fn loaded(lists: &Lists, now: i64) -> Option<String> {
    let InKernel { when, block, allow } = lists.loaded.as_ref()?;
    Some(format!(
        "{} IPv4 and {} IPv6 networks blocked, {} and {} allowed; loaded {} ago",
        block.ipv4,
        block.ipv6,
        allow.ipv4,
        allow.ipv6,
        span(now - when)
    ))
}

fn list_rows(lists: &Lists, now: i64) -> Vec<Vec<String>> {
    let dash = || "-".to_owned();
    let row = |list: &Summary| {
        vec![
            list.name.to_string(),
            list.kind.name().to_owned(),
            list.ipv4.zip(list.ipv6).map_or_else(dash, |(ipv4, ipv6)| (ipv4 + ipv6).to_string()),
            list.confirmed.map_or_else(dash, |confirmed| span(now - confirmed)),
            list.result().to_owned(),
        ]
    };
    lists.lists.iter().map(row).collect()
}

fn jail_rows(jails: &[Jail]) -> Vec<Vec<String>> {
    let dash = || "-".to_owned();
    let row = |jail: &Jail| {
        vec![
            jail.jail.clone(),
            jail.banned.map_or_else(dash, |banned| banned.to_string()),
            jail.kernel.map_or_else(dash, |[ipv4, ipv6]| (u64::from(ipv4) + u64::from(ipv6)).to_string()),
            jail.hits.map_or_else(dash, |hits| hits.to_string()),
        ]
    };
    let mut jails: Vec<&Jail> = jails.iter().collect();
    jails.sort_by_key(|jail| std::cmp::Reverse(jail.banned));
    jails.into_iter().map(row).collect()
}

fn decision_rows(decisions: &[Decided], now: i64) -> Vec<Vec<String>> {
    let row = |row: &Decided| {
        let observed = if row.observed { " (observed)" } else { "" };
        vec![
            format!("{}{observed}", row.decision),
            row.reason.clone(),
            row.tool.clone(),
            row.count.to_string(),
            format!("{} ago", span(now - row.last)),
        ]
    };
    decisions.iter().map(row).collect()
}

/// Nothing without rows; those that are too many are counted.
fn table(rows: Option<Vec<Vec<String>>>, most: usize, titles: &[&str], right: &[usize]) -> String {
    let Some(rows) = rows.filter(|rows| !rows.is_empty()) else { return String::new() };
    let mut columns = Columns::new(titles, right);
    // One more fits in place of the words that it is left out.
    let shown = if rows.len() > most + 1 { most } else { rows.len() };
    rows[..shown].iter().for_each(|row| columns.row(row.iter().cloned()));
    let mut text = ["\n", &columns.render()].concat();
    if rows.len() > shown {
        let _ = writeln!(text, "... and {} more; --json has all", rows.len() - shown);
    }
    text
}
