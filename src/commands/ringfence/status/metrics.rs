//! The same as numbers, for Prometheus.

use super::Status;
use super::attention::About;
use crate::commands::prometheus::{Exposition, Kind};
use crate::services::State;

const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];

/// What is not known is not there.
pub(super) fn render(status: &Status) -> String {
    let mut metrics = Exposition::new("ringfence");
    let gauge = Kind::Gauge;
    metrics.one("status_timestamp_seconds", gauge, "When this was found out.", Some(status.when));
    let concerns = About::ALL.map(|about| {
        let count = status.attention.iter().filter(|attention| attention.about == about).count();
        ([("about", about.name().to_owned())], count)
    });
    metrics.each("attention", gauge, "Things that need attention.", concerns);
    let modes = [
        ("global", status.mode.observe),
        ("block", status.mode.block_observe),
        ("firewall", status.mode.firewall_observe),
    ];
    let modes = modes.map(|(section, observe)| ([("section", section.to_owned())], u8::from(observe)));
    metrics.each("observe", gauge, "Whether nothing is blocked but only recorded.", modes);
    let paused = u8::from(status.paused_until.is_some());
    metrics.one("paused", gauge, "Whether all blocking is lifted.", Some(paused));
    metrics.one("pause_end_timestamp_seconds", gauge, "When the pause ends.", status.paused_until);
    let order = status.order.as_ref();
    let verified = order.map(|order| u8::from(order.checks.iter().all(|check| check.wrong.is_none())));
    metrics.one("order_verified", gauge, "Whether the rules are as they were applied.", verified);
    services(&mut metrics, status);
    jails(&mut metrics, status);
    blocks(&mut metrics, status);
    lists(&mut metrics, status);
    let addresses = &status.addresses;
    metrics.one("allowed_addresses", gauge, "Addresses allowed for a time.", addresses.allowed);
    metrics.one("seen_addresses", gauge, "Addresses seen registered within a day.", addresses.seen);
    let kernel = addresses.kernel.iter().flat_map(|counts| by_family(*counts));
    metrics.each("seen_kernel_entries", gauge, "Addresses allowed or seen in the kernel.", kernel);
    let events = &status.events;
    let age = events.age;
    metrics.one(
        "live_registrations_age_seconds",
        gauge,
        "Since ringfence-events said who is registered.",
        age,
    );
    metrics.one("live_registered_addresses", gauge, "Addresses registered as it says.", events.addresses);
    let decided = status.decisions.iter().flatten().map(|row| {
        let mode = if row.observed { "observe" } else { "enforce" };
        let labels = [
            ("tool", row.tool.clone()),
            ("decision", row.decision.clone()),
            ("reason", row.reason.clone()),
            ("mode", mode.to_owned()),
        ];
        (labels, row.count)
    });
    metrics.each("decisions_last_day", gauge, "Decisions of the last 24 hours.", decided);
    dropped(&mut metrics, status);
    metrics.finish()
}

fn dropped(metrics: &mut Exposition, status: &Status) {
    let begun = status.dropped.as_ref().map(|dropped| dropped.begun.as_second());
    let help = "When the count of dropped packets began.";
    metrics.one("dropped_packets_begin_timestamp_seconds", Kind::Gauge, help, begun);
    let modes = status
        .dropped
        .iter()
        .flat_map(|dropped| [("enforce", &dropped.all.dropped), ("observe", &dropped.all.observed)]);
    let packets = modes.flat_map(|(mode, totals)| {
        totals.iter().map(move |(reason, packets)| {
            let labels = [
                ("reason", reason.kind.name().to_owned()),
                ("name", reason.name.clone()),
                ("mode", mode.to_owned()),
            ];
            (labels, *packets)
        })
    });
    let help = "Packets dropped, or in mode observe those that would have been, since the count began.";
    metrics.each("dropped_packets_total", Kind::Counter, help, packets);
}

fn by_family<V: Copy>([ipv4, ipv6]: [V; 2]) -> impl Iterator<Item = ([(&'static str, String); 1], V)> {
    let label = |family: &str| [("family", family.to_owned())];
    FAMILIES.into_iter().map(label).zip([ipv4, ipv6])
}

fn services(metrics: &mut Exposition, status: &Status) {
    let all = || status.services.iter().flatten();
    let label = |unit: &str| [("unit", unit.to_owned())];
    let running = all().map(|service| (label(service.unit), u8::from(service.state.runs())));
    metrics.each("unit_running", Kind::Gauge, "Whether systemd or cron runs a unit.", running);
    let failed =
        all().map(|service| (label(service.unit), u8::from(matches!(service.state, State::Failed(_)))));
    metrics.each("unit_failed", Kind::Gauge, "Whether the last run of a unit failed.", failed);
    let needed = all().map(|service| (label(service.unit), u8::from(service.needed)));
    metrics.each("unit_needed", Kind::Gauge, "Whether a unit is needed on this host.", needed);
}

fn jails(metrics: &mut Exposition, status: &Status) {
    let all = || status.jails.iter().flatten();
    let banned = all().filter_map(|jail| Some(([("jail", jail.jail.clone())], jail.banned?)));
    metrics.each("jail_banned", Kind::Gauge, "Whom fail2ban bans now.", banned);
    let kernel = all().filter_map(|jail| Some((&jail.jail, jail.kernel?)));
    let kernel = kernel.flat_map(|(jail, counts)| {
        let both = FAMILIES.into_iter().zip(counts);
        both.map(move |(family, count)| ([("jail", jail.clone()), ("family", family.to_owned())], count))
    });
    metrics.each("jail_kernel_entries", Kind::Gauge, "Whom the kernel bans for a jail.", kernel);
    let hits = all().filter_map(|jail| Some(([("jail", jail.jail.clone())], jail.hits?)));
    let help = "Packets dropped since the rules of a jail are there.";
    metrics.each("jail_dropped_packets_total", Kind::Counter, help, hits);
}

fn blocks(metrics: &mut Exposition, status: &Status) {
    let blocks = status.blocks.as_ref();
    let gauge = Kind::Gauge;
    metrics.one("blocks", gauge, "Blocked accounts.", blocks.map(|blocks| blocks.count));
    let there = blocks.map(|blocks| blocks.in_kernel);
    metrics.one("blocks_in_kernel", gauge, "Blocked accounts that the kernel knows.", there);
    let end = blocks.and_then(|blocks| blocks.next_end);
    metrics.one("block_next_end_timestamp_seconds", gauge, "When the first block ends.", end);
    let matcher =
        blocks.and_then(|blocks| blocks.matcher).map(|matcher| ([("matcher", matcher.to_owned())], 1));
    metrics.each("matcher", gauge, "What matches blocked accounts.", matcher);
}

fn lists(metrics: &mut Exposition, status: &Status) {
    let all = || status.lists.iter().flat_map(|lists| &lists.lists);
    let gauge = Kind::Gauge;
    let networks = all().filter_map(|list| Some((list, [list.ipv4?, list.ipv6?])));
    let networks = networks.flat_map(|(list, counts)| {
        let both = FAMILIES.into_iter().zip(counts);
        both.map(move |(family, count)| {
            let labels = [
                ("list", list.name.to_string()),
                ("kind", list.kind.name().to_owned()),
                ("family", family.to_owned()),
            ];
            (labels, count)
        })
    });
    metrics.each("list_networks", gauge, "Networks of a list.", networks);
    let confirmed = all().filter_map(|list| Some(([("list", list.name.to_string())], list.confirmed?)));
    let help = "When the source of a list last had a good copy.";
    metrics.each("list_confirmed_timestamp_seconds", gauge, help, confirmed);
    let refused = all().map(|list| ([("list", list.name.to_string())], u8::from(!list.refused.is_empty())));
    metrics.each("list_refused", gauge, "Whether the last answer for a list was refused.", refused);
    let loaded = status.lists.as_ref().and_then(|lists| lists.loaded.as_ref()).map(|loaded| loaded.when);
    metrics.one(
        "lists_loaded_timestamp_seconds",
        gauge,
        "When the lists were brought into the kernel.",
        loaded,
    );
}
