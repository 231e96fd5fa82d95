//! The page: one file that needs nothing else, and may do nothing.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::chart::{self, Columns};
use super::country;
use super::html::Html;
use super::table::{Share, number, shares, table};
use super::words::{Clock, grouped, kind_word, kind_words, length, listed, many};
use crate::config::lists::Kind as ListKind;
use crate::drops::{self, Kind as Dropper};
use crate::report::axis::Step;
use crate::report::dropped::{Dropped, Packets};
use crate::report::{Counts, Exempt, Kind, List, Reason, Report, Reversal, Standing};

const STYLE: &str = include_str!("style.css");

/// So many reasons and countries have a row of their own.
const ROWS: usize = 12;

/// So many accounts of one address are named.
const ACCOUNTS: usize = 12;

/// What the page says.
pub(super) struct Page<'a> {
    /// Of which host.
    pub(super) host: &'a str,
    pub(super) report: &'a Report,
    pub(super) clock: &'a Clock,
    /// What could not be read, and what to do about it.
    pub(super) faults: &'a [String],
    /// Where the figures come from.
    pub(super) sources: &'a [String],
    /// Whether what fails could be read.
    pub(super) knows_failures: bool,
    /// Whether what was decided could be read.
    pub(super) knows_decisions: bool,
}

impl Page<'_> {
    /// All of it.
    pub(super) fn render(&self) -> String {
        let mut html = Html::default();
        html.element("html", &[("lang", &"en")], |html| {
            html.element("head", &[], |html| self.head(html));
            html.element("body", &[], |html| {
                html.element("main", &[], |html| {
                    self.header(html);
                    self.faults(html);
                    self.tiles(html);
                    self.over_time(html);
                    self.reasons(html);
                    self.dropped(html);
                    self.countries(html);
                    self.lists(html);
                    self.exempt(html);
                    self.taken_back(html);
                    self.about(html);
                    let made = format!(
                        "Made by Ringfence {} on {}, {}.",
                        env!("CARGO_PKG_VERSION"),
                        self.host,
                        self.moment()
                    );
                    html.leaf("footer", &[], made);
                });
            });
        });
        html.into_page()
    }

    fn head(&self, html: &mut Html) {
        let hash = BASE64_STANDARD.encode(Sha256::digest(STYLE));
        let policy =
            format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'");
        html.void("meta", &[("charset", &"utf-8")]);
        html.void("meta", &[("http-equiv", &"Content-Security-Policy"), ("content", &policy)]);
        for (name, content) in [
            ("referrer", "no-referrer"),
            ("viewport", "width=device-width, initial-scale=1"),
            ("color-scheme", "light dark"),
            ("robots", "noindex"),
        ] {
            html.void("meta", &[("name", &name), ("content", &content)]);
        }
        html.leaf("title", &[], format!("{}, {}", self.title(), self.clock.day(self.report.until)));
        html.style(STYLE);
    }

    fn title(&self) -> String {
        match &self.report.domain {
            Some(domain) => format!("What {} blocked for {domain}", self.host),
            None => format!("What {} blocked", self.host),
        }
    }

    fn header(&self, html: &mut Html) {
        let since = self.report.since;
        html.element("header", &[], |html| {
            html.leaf("h1", &[], self.title());
            let period = format!("{} to {}", self.clock.minute(since), self.moment());
            html.leaf("p", &[("class", &"period")], period);
            html.leaf("p", &[("class", &"answer")], self.answer());
        });
    }

    /// When it was made, with the zone of all times.
    fn moment(&self) -> String {
        let until = self.report.until;
        format!("{} {}", self.clock.minute(until), self.clock.zone(until))
    }

    fn length(&self) -> String {
        length(self.report.until.duration_since(self.report.since).unsigned_abs())
    }

    /// In one sentence.
    fn answer(&self) -> String {
        let Report { different, kept, .. } = self.report;
        if !self.knows_decisions {
            return format!("What was blocked in the last {} cannot be said.", self.length());
        }
        let blocked = listed(
            &[
                (different.addresses, "address", "addresses"),
                (different.accounts, "account that does not exist", "accounts that do not exist"),
                (different.devices, "failing device", "failing devices"),
            ]
            .into_iter()
            .filter(|(count, ..)| *count > 0)
            .map(|(count, one, more)| many(count, one, more))
            .collect::<Vec<_>>(),
        );
        let packets = self.report.dropped.as_ref().map_or(0, |dropped| dropped.dropped.packets);
        let (were, packets_were) =
            (if different.sum() == 1 { "was" } else { "were" }, if packets == 1 { "was" } else { "were" });
        let packets = (packets > 0).then(|| many(packets, "packet", "packets"));
        let done = match (blocked.is_empty(), packets) {
            (true, None) => "nothing had to be blocked".to_owned(),
            (true, Some(packets)) => format!("{packets} {packets_were} dropped"),
            (false, None) => format!("{blocked} {were} blocked"),
            (false, Some(packets)) => format!("{blocked} {were} blocked and {packets} dropped"),
        };
        let mut text = format!("In the last {}, {done}", self.length());
        if kept.addresses > 0 {
            let known = many(kept.addresses, "known address", "known addresses");
            let _ = write!(text, "; {known} kept working although phones there failed");
        }
        let back = self.count_taken_back();
        if back > 0 {
            let (back, were) = (many(back, "decision", "decisions"), if back == 1 { "was" } else { "were" });
            let _ = write!(text, "; {back} {were} taken back");
        }
        text + "."
    }

    fn count_taken_back(&self) -> u64 {
        let counts = |how| !matches!(how, Reversal::Excused);
        self.report
            .reversals
            .iter()
            .filter(|reversed| counts(reversed.how))
            .map(|reversed| reversed.times)
            .sum()
    }

    fn faults(&self, html: &mut Html) {
        if self.faults.is_empty() {
            return;
        }
        let attributes: super::html::Attributes<'_> = &[("class", &"faults"), ("aria-labelledby", &"faults")];
        html.element("div", attributes, |html| {
            html.leaf("h2", &[("id", &"faults")], "Not everything could be read");
            html.element("ul", &[], |html| {
                self.faults.iter().for_each(|fault| html.leaf("li", &[], fault));
            });
        });
    }

    fn tiles(&self, html: &mut Html) {
        let Report { blocks, different, failures, failing_addresses, kept, .. } = self.report;
        let tiles = [
            (
                "Blocked",
                self.knows_decisions,
                blocks.sum(),
                many(different.addresses, "different address", "different addresses"),
            ),
            (
                "Kept working",
                self.knows_decisions,
                kept.addresses,
                format!("{} not held against them", many(kept.times, "failure", "failures")),
            ),
            (
                "Failed logins",
                self.knows_failures,
                *failures,
                format!("from {}", many(*failing_addresses, "address", "addresses")),
            ),
            ("Taken back", self.knows_decisions, self.count_taken_back(), "of all decisions".to_owned()),
        ];
        html.element("dl", &[("class", &"tiles")], |html| {
            for (name, is_known, count, more) in tiles {
                html.element("div", &[], |html| {
                    html.leaf("dt", &[], name);
                    let value = if is_known { grouped(count) } else { "–".to_owned() };
                    html.leaf("dd", &[("class", &"value")], value);
                    match (is_known, count) {
                        (false, _) => html.leaf("dd", &[], "could not be read"),
                        (true, 0) => {}
                        (true, _) => html.leaf("dd", &[], more),
                    }
                });
            }
        });
    }

    fn over_time(&self, html: &mut Html) {
        let Report { columns, step, blocks, .. } = self.report;
        section(html, "time", &format!("Blocked per {}", step.words()), "", |html| {
            if blocks.sum() == 0 {
                let nothing = "Nothing was blocked in this time.";
                empty(html, if self.knows_decisions { nothing } else { "Decisions could not be read." });
                return;
            }
            let shown: Vec<_> = Kind::ALL.into_iter().filter(|kind| blocks.of(*kind) > 0).collect();
            let values: Vec<Vec<u64>> = columns
                .iter()
                .map(|column| shown.iter().map(|kind| column.blocks.of(*kind)).collect())
                .collect();
            let starts: Vec<_> = columns.iter().map(|column| column.start).collect();
            let Labels { short, long, anchor } = self.labels(&starts, *step);
            let title = format!("Blocked per {}", step.words());
            let description = self.most(&long);
            let classes: Vec<_> = shown.iter().map(|kind| class(*kind)).collect();
            html.element("figure", &[], |html| {
                html.element("ul", &[("class", &"legend")], |html| {
                    for kind in &shown {
                        html.element("li", &[], |html| {
                            let view: super::html::Attributes<'_> =
                                &[("viewBox", &"0 0 10 10"), ("aria-hidden", &"true")];
                            html.element("svg", view, |html| {
                                html.void(
                                    "rect",
                                    &[("class", &class(*kind)), ("width", &10), ("height", &10)],
                                );
                            });
                            html.text(kind_words(*kind));
                        });
                    }
                });
                for (name, width, height) in [("wide", 832, 250), ("narrow", 328, 230)] {
                    html.element("div", &[("class", &name)], |html| {
                        chart::columns(
                            html,
                            &Columns {
                                title: &title,
                                description: &description,
                                id: name,
                                labels: &short,
                                anchor,
                                values: &values,
                                classes: &classes,
                                width,
                                height,
                            },
                        );
                    });
                }
            });
            html.element("details", &[], |html| {
                html.leaf("summary", &[], "The same as a table");
                self.table_over_time(html, &shown, &long);
            });
        });
    }

    fn labels(&self, starts: &[Timestamp], step: Step) -> Labels {
        let (short, long) = starts.iter().map(|start| self.clock.column(*start, step)).unzip();
        // A day's first column, or an hour's.
        let first =
            |is: fn(&Clock, Timestamp) -> bool| starts.iter().position(|start| is(self.clock, *start));
        let anchor = first(Clock::is_midnight).or_else(|| first(Clock::is_full)).unwrap_or(0);
        Labels { short, long, anchor }
    }

    fn table_over_time(&self, html: &mut Html, shown: &[Kind], labels: &[String]) {
        let all = shown.len() > 1;
        let kinds = shown.iter().map(|kind| (kind_word(*kind), true));
        let titles: Vec<_> =
            std::iter::once(("From", false)).chain(kinds).chain(all.then_some(("All", true))).collect();
        table(html, "Blocked, by time", &titles, |html| {
            for (column, label) in self.report.columns.iter().zip(labels) {
                html.element("tr", &[], |html| {
                    html.leaf("th", &[("scope", &"row")], label);
                    for kind in shown {
                        number(html, column.blocks.of(*kind));
                    }
                    if all {
                        number(html, column.blocks.sum());
                    }
                });
            }
        });
    }

    /// What is to be seen in the chart.
    fn most(&self, labels: &[String]) -> String {
        let Report { columns, step, blocks, .. } = self.report;
        let Counts { addresses, accounts, devices } = blocks;
        let most = columns.iter().zip(labels).max_by_key(|(column, _)| column.blocks.sum());
        let most = most.map_or_else(String::new, |(column, label)| {
            format!(" Most in the {} from {label}: {}.", step.words(), grouped(column.blocks.sum()))
        });
        format!(
            "Stacked columns. In all, {} of addresses, {} of accounts and {} of devices.{most}",
            many(*addresses, "block", "blocks"),
            grouped(*accounts),
            grouped(*devices)
        )
    }

    fn reasons(&self, html: &mut Html) {
        let reasons = &self.report.reasons;
        if reasons.is_empty() {
            return;
        }
        section(html, "why", "Why", "By which jail, or for what, and how often.", |html| {
            let (shown, rest) = reasons.split_at(reasons.len().min(ROWS));
            let mut rows: Vec<_> = shown.iter().map(share).collect();
            if !rest.is_empty() {
                let blocks = rest.iter().map(|reason| reason.blocks).sum();
                rows.push(Share {
                    name: "(others)".to_owned(),
                    more: String::new(),
                    class: "s1",
                    count: blocks,
                });
            }
            shares(html, ["Reason", "Times"], &rows);
        });
    }

    fn dropped(&self, html: &mut Html) {
        let Some(dropped) = &self.report.dropped else { return };
        let title = format!("Packets dropped per {}", dropped.step.words());
        let since = match dropped.begun {
            Some(begun) if begun > self.report.since => {
                format!(" Recorded since {}.", self.clock.minute(begun))
            }
            _ if self.report.until.duration_since(self.report.since) > drops::KEPT => {
                format!(" Remembered for {} days.", drops::KEPT.as_hours() / 24)
            }
            _ => String::new(),
        };
        let note = match dropped.begun {
            None => String::new(),
            Some(_) => {
                format!("What the kernel kept out in silence. Each chart has a scale of its own.{since}")
            }
        };
        section(html, "dropped", &title, &note, |html| {
            let nothing = match dropped.begun {
                None => {
                    "Nothing is recorded yet: what the rules drop is counted each minute from the first time that they are applied on."
                }
                Some(_) => "No packet was dropped in this time.",
            };
            match (dropped.dropped.packets, dropped.observed.packets) {
                (0, 0) => empty(html, nothing),
                (0, _) => {}
                (..) => self.packets(html, dropped, &dropped.dropped, "dropped"),
            }
            if dropped.observed.packets > 0 {
                html.leaf("h3", &[], "What would have been dropped, had the mode not been observe");
                self.packets(html, dropped, &dropped.observed, "observed");
            }
        });
    }

    /// Small charts, one for each kind, and why.
    fn packets(&self, html: &mut Html, dropped: &Dropped, packets: &Packets, id: &str) {
        let starts: Vec<_> = packets.columns.iter().map(|column| column.start).collect();
        let labels = self.labels(&starts, dropped.step);
        let kinds = packets.kinds();
        html.element("div", &[("class", &"multiples")], |html| {
            for (kind, sum) in &kinds {
                let values = packets.columns.iter().map(|column| column.packets.get(kind).copied());
                let values: Vec<_> = values.map(|packets| vec![packets.unwrap_or(0)]).collect();
                let most = values.iter().zip(&labels.long).max_by_key(|(packets, _)| packets[0]);
                let most = most.map_or_else(String::new, |(packets, label)| {
                    format!(" Most in the {} from {label}: {}.", dropped.step.words(), grouped(packets[0]))
                });
                let name = dropper_words(*kind);
                html.element("figure", &[], |html| {
                    html.element("figcaption", &[], |html| {
                        html.text(name);
                        html.leaf("small", &[], many(*sum, "packet", "packets"));
                    });
                    chart::columns(
                        html,
                        &Columns {
                            title: &format!("{name}: packets per {}", dropped.step.words()),
                            description: &format!("Columns. In all, {}.{most}", grouped(*sum)),
                            id: &format!("{id}-{}", kind.name()),
                            labels: &labels.short,
                            anchor: labels.anchor,
                            values: &values,
                            classes: &[dropper_class(*kind)],
                            width: 400,
                            height: 150,
                        },
                    );
                });
            }
        });
        html.element("details", &[], |html| {
            html.leaf("summary", &[], "The same as a table, without those that are none");
            let titles = [("From", false), ("By what", false), ("Packets", true)];
            table(html, "Packets dropped, by time", &titles, |html| {
                for (column, label) in packets.columns.iter().zip(&labels.long) {
                    for (kind, packets) in &column.packets {
                        html.element("tr", &[], |html| {
                            html.leaf("th", &[("scope", &"row")], label);
                            html.leaf("td", &[], dropper_words(*kind));
                            number(html, *packets);
                        });
                    }
                }
            });
        });
        let (shown, rest) = packets.reasons.split_at(packets.reasons.len().min(ROWS));
        let mut rows: Vec<_> = shown
            .iter()
            .map(|reason| {
                let kind = dropper_words(reason.kind).to_owned();
                let named = !reason.name.is_empty();
                Share {
                    name: if named { reason.name.clone() } else { kind.clone() },
                    more: if named { kind } else { String::new() },
                    class: dropper_class(reason.kind),
                    count: reason.packets,
                }
            })
            .collect();
        let more: u64 = rest.iter().map(|reason| reason.packets).sum();
        if more > 0 {
            rows.push(Share { name: "(others)".to_owned(), more: String::new(), class: "s1", count: more });
        }
        shares(html, ["By what", "Packets"], &rows);
    }

    fn countries(&self, html: &mut Html) {
        let countries = &self.report.countries;
        if countries.is_empty() {
            return;
        }
        let note = "Different addresses that were blocked, by the lists of countries that this host has.";
        section(html, "where", "From where", note, |html| {
            let (known, unknown): (Vec<_>, Vec<_>) =
                countries.iter().partition(|country| country.country.is_some());
            let row = |name: &str, more: &str, count| Share {
                name: name.to_owned(),
                more: more.to_owned(),
                class: "s1",
                count,
            };
            let mut rows: Vec<_> = known
                .iter()
                .take(ROWS)
                .map(|of| {
                    let code = of.country.as_deref().unwrap_or_default();
                    country::name(code)
                        .map_or_else(|| row(code, "", of.addresses), |name| row(name, code, of.addresses))
                })
                .collect();
            let more: u64 = known.iter().skip(ROWS).map(|country| country.addresses).sum();
            if more > 0 {
                rows.push(row("(other countries)", "", more));
            }
            let elsewhere: u64 = unknown.iter().map(|country| country.addresses).sum();
            if elsewhere > 0 {
                rows.push(row("Elsewhere", "on no list of a country", elsewhere));
            }
            shares(html, ["Country", "Addresses"], &rows);
        });
    }

    fn lists(&self, html: &mut Html) {
        let lists = &self.report.lists;
        if lists.is_empty() {
            return;
        }
        let is_for_tenant = self.report.domain.is_some();
        let note = if is_for_tenant {
            "Which block lists name the addresses that were blocked."
        } else {
            "Which lists name the addresses that were blocked, and how many failures were not held against an address since it is on \
             one. What block lists keep out in silence is counted in packets, of all of them together."
        };
        section(html, "lists", "Lists", note, |html| {
            table(
                html,
                "Lists",
                &[("List", false), ("Networks", true), ("Blocked", true), ("Kept", true)],
                |html| {
                    for list in lists {
                        html.element("tr", &[], |html| {
                            html.element("th", &[("scope", &"row")], |html| {
                                html.text(&list.name);
                                html.leaf("small", &[], self.about_list(list));
                            });
                            match list.networks {
                                Some(networks) => number(html, networks),
                                None => html.leaf("td", &[("class", &"number")], "–"),
                            }
                            number(html, list.blocked);
                            match list.kind {
                                ListKind::Allow => number(html, list.kept),
                                ListKind::Block => html.leaf("td", &[("class", &"number")], "–"),
                            }
                        });
                    }
                },
            );
        });
    }

    fn about_list(&self, list: &List) -> String {
        let kind = match list.kind {
            ListKind::Block => "blocks",
            ListKind::Allow => "allows",
        };
        let changed = list.changed.map_or_else(
            || "no good copy yet".to_owned(),
            |changed| format!("changed {}", self.clock.day(changed)),
        );
        let country = list.country.clone();
        let refused = (list.refused > 0).then(|| format!("refused {}", many(list.refused, "time", "times")));
        [Some(kind.to_owned()), country, Some(changed), refused]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn exempt(&self, html: &mut Html) {
        let note = "These addresses are left alone, since phones work there, or somebody allowed them. What fails there is worth a \
                    visit: a wrong password, an old account, a phone that nobody uses.";
        let note = if self.report.exempt.is_empty() { "" } else { note };
        section(html, "exempt", "Who fails behind addresses that are left alone", note, |html| {
            if self.report.exempt.is_empty() {
                let nobody = "No account failed behind an address that is left alone.";
                empty(html, if self.knows_failures { nobody } else { "What failed could not be read." });
            }
            self.report.exempt.iter().for_each(|exempt| self.one_exempt(html, exempt));
        });
    }

    fn one_exempt(&self, html: &mut Html, exempt: &Exempt) {
        html.leaf("h3", &[], exempt.address);
        let failures = many(exempt.failures, "failure", "failures");
        html.element("p", &[("class", &"note")], |html| {
            html.text(format!("{failures}; "));
            match &exempt.standing {
                Standing::LeftAlone => html.text("left alone"),
                Standing::Registered => html.text("left alone: a phone is registered there"),
                Standing::RegisteredLately => html.text("left alone: a phone was registered there lately"),
                Standing::Allowed { list } => {
                    html.text("left alone: on the list ");
                    html.foreign(list);
                }
            }
        });
        let caption = format!("Accounts that fail at {}", exempt.address);
        table(html, &caption, &[("Account", false), ("Why", false), ("Failures", true)], |html| {
            for account in exempt.accounts.iter().take(ACCOUNTS) {
                html.element("tr", &[], |html| {
                    html.element("th", &[("scope", &"row")], |html| {
                        match &account.account {
                            Some(account) => html.foreign(account),
                            None => html.text("(others)"),
                        }
                        html.element("small", &[], |html| {
                            if let Some(agent) = &account.user_agent {
                                html.foreign(agent);
                                html.text(", ");
                            }
                            html.text(format!("last {}", self.clock.minute(account.last)));
                        });
                    });
                    html.leaf("td", &[("class", &"why")], account.why.unwrap_or("–"));
                    number(html, account.failures);
                });
            }
            let more: u64 = exempt.accounts.iter().skip(ACCOUNTS).map(|account| account.failures).sum();
            if more > 0 {
                html.element("tr", &[], |html| {
                    let rest = exempt.accounts.len() - ACCOUNTS;
                    let rest = many(rest as u64, "more account", "more accounts");
                    html.leaf("th", &[("scope", &"row")], rest);
                    html.leaf("td", &[], "");
                    number(html, more);
                });
            }
        });
    }

    fn taken_back(&self, html: &mut Html) {
        let Report { kept, reversals, latest, .. } = self.report;
        section(html, "back", "Left alone, and taken back", "", |html| {
            let mut rows: Vec<_> = kept
                .reasons
                .iter()
                .map(|(reason, times)| Share {
                    name: "Failure not held against an address".to_owned(),
                    more: why_kept(reason).to_owned(),
                    class: "s3",
                    count: *times,
                })
                .collect();
            rows.extend(reversals.iter().map(|reversed| Share {
                name: reversed.how.words().to_owned(),
                more: String::new(),
                class: "s2",
                count: reversed.times,
            }));
            if rows.is_empty() {
                let nothing = "Nobody had to be spared, and nothing was taken back.";
                empty(html, if self.knows_decisions { nothing } else { "Decisions could not be read." });
                return;
            }
            shares(html, ["What", "Times"], &rows);
            if latest.is_empty() {
                return;
            }
            html.leaf("h3", &[], "The latest that were taken back");
            table(html, "The latest that were taken back", &[("Whom", false), ("How", false)], |html| {
                for event in latest {
                    html.element("tr", &[], |html| {
                        html.element("th", &[("scope", &"row")], |html| {
                            if event.how == Reversal::CutOut {
                                html.text("list ");
                            }
                            html.foreign(&event.subject);
                            html.leaf("small", &[], self.clock.minute(event.when));
                        });
                        html.leaf("td", &[], event.how.words());
                    });
                }
            });
        });
    }

    fn about(&self, html: &mut Html) {
        let Report { observed, failures_elsewhere, .. } = self.report;
        section(html, "about", "About these figures", "", |html| {
            html.element("div", &[("class", &"about")], |html| {
                html.element("ul", &[], |html| {
                    let mut item = |text: &str| html.leaf("li", &[], text);
                    if *observed > 0 {
                        item(&format!(
                            "Not counted, since Ringfence only observed: {} that would have been made.",
                            many(*observed, "block", "blocks")
                        ));
                    }
                    if *failures_elsewhere > 0 {
                        item(&format!(
                            "{} came from more addresses than can be told apart.",
                            many(*failures_elsewhere, "failed login", "failed logins")
                        ));
                    }
                    if let Some(domain) = &self.report.domain {
                        item(&format!(
                            "Only what concerns {domain}: its accounts, and addresses from which they were tried."
                        ));
                    }
                    self.sources.iter().for_each(|source| item(source));
                    if self.report.dropped.is_some() {
                        item(
                            "Packets that lists, rate limits and restrictions drop are counted by the kernel, in whole hours, and leave no \
                             record one by one: from which country or for which list, nobody knows. What comes between the last look at \
                             the counters, each minute, and a reload of the rules is not in these figures.",
                        );
                    } else {
                        item(
                            "Packets that lists, rate limits and restrictions drop leave no record one by one, and are not in these \
                             figures.",
                        );
                    }
                    item(&format!("Times are in {}.", self.clock.zone(self.report.until)));
                });
            });
        });
    }
}

/// What stands below columns, and for those who cannot see them.
struct Labels {
    short: Vec<String>,
    long: Vec<String>,
    anchor: usize,
}

fn share(reason: &Reason) -> Share {
    let (name, more) = match (reason.kind, reason.name.as_str()) {
        (Kind::Address, jail) => (jail.to_owned(), "jail of fail2ban"),
        (_, "unknown-account") => ("Account that does not exist".to_owned(), "wherever it was tried from"),
        (_, "failing-device") => {
            ("Device that keeps failing".to_owned(), "one phone; the others at its address kept working")
        }
        (_, other) => (other.to_owned(), ""),
    };
    Share { name, more: more.to_owned(), class: class(reason.kind), count: reason.blocks }
}

fn section(html: &mut Html, id: &'static str, title: &str, note: &str, inside: impl FnOnce(&mut Html)) {
    html.element("section", &[("aria-labelledby", &id)], |html| {
        html.leaf("h2", &[("id", &id)], title);
        if !note.is_empty() {
            html.leaf("p", &[("class", &"note")], note);
        }
        inside(html);
    });
}

fn empty(html: &mut Html, text: &str) {
    html.leaf("p", &[("class", &"empty")], text);
}

fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Address => "s1",
        Kind::Account => "s2",
        Kind::Device => "s3",
    }
}

/// Of what drops packets, as a title.
fn dropper_words(kind: Dropper) -> &'static str {
    match kind {
        Dropper::Ban => "Bans by fail2ban",
        Dropper::Account => "Blocked accounts",
        Dropper::BlockList => "Block lists",
        Dropper::Limit => "Above a limit",
        Dropper::GoingOn => "Going on above a limit",
        Dropper::Scanner => "Scanners",
        Dropper::Restriction => "Ports for others only",
        Dropper::Hardening => "Impossible TCP",
    }
}

/// As the same is elsewhere on the page; what rules of our own drop has one colour.
fn dropper_class(kind: Dropper) -> &'static str {
    match kind {
        Dropper::Ban => "s1",
        Dropper::Account => "s2",
        _ => "s3",
    }
}

/// By the words of `ringfence-ignore`.
fn why_kept(reason: &str) -> &'static str {
    match reason {
        "registered" => "a phone is registered there",
        "seen-lately" => "a phone was registered there within a day",
        "allow-list" => "it is on an allow list",
        "source-unreadable" | "allow-list-unreadable" => "nobody could say who is registered",
        _ => "for another reason",
    }
}

#[cfg(test)]
mod tests;
