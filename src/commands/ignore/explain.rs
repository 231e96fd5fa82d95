//! How the answer came about, for people.

use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;

use super::{Args, Because, Settings, Verdict};
use crate::allow;
use crate::config::{self, Config, Mode};
use crate::evidence::visible;
use crate::exemption::Exemption;
use crate::registrations::discovery::{self, Discovery};
use crate::registrations::{Answer, Standing, Via};

/// Rows of "name  value", the values aligned.
#[derive(Default)]
struct Rows(String);

impl Rows {
    fn row(&mut self, name: &str, value: impl std::fmt::Display) {
        for (number, line) in value.to_string().lines().enumerate() {
            let name = if number == 0 { name } else { "" };
            let _ = writeln!(self.0, "{name:<10} {}", visible(line));
        }
    }
}

pub(super) fn render(
    args: &Args,
    settings: &Settings,
    verdict: &Verdict,
    took: Duration,
    now: Timestamp,
) -> String {
    let mut rows = Rows::default();
    rows.row("address", verdict.subject.chars().take(100).collect::<String>());
    rows.row("answer", answer(verdict));
    rows.row("because", because(verdict, &settings.config, now));
    rows.row("settings", origin(args, settings));
    if let Some(answer) = &verdict.answer {
        source(&mut rows, answer, &settings.config);
    }
    rows.row("took", format!("{:.1} ms", took.as_secs_f64() * 1000.0));
    rows.0
}

fn answer(verdict: &Verdict) -> String {
    let word = if verdict.keep { "keep" } else { "may be banned" };
    let code = verdict.exit().code();
    match verdict.mode {
        Mode::Enforce => format!("{word} (exit {code})"),
        Mode::Observe => {
            format!("{word}, but mode is \"observe\": fail2ban bans as without Ringfence (exit {code})")
        }
    }
}

fn because(verdict: &Verdict, config: &Config, now: Timestamp) -> String {
    let on_error = if verdict.keep { "on-error is \"keep\"" } else { "on-error is \"ban\"" };
    match &verdict.because {
        Because::NoAddress => "it is not one IPv4 or IPv6 address".to_owned(),
        Because::ConfigBroken => format!("the settings cannot be used, and {on_error}"),
        Because::Found(Exemption::Allowed { list }) => format!("it is on the allow list {list}"),
        Because::Found(Exemption::AllowListUnreadable(allow::Unreadable { path, error })) => {
            format!("the allow lists in {} cannot be read ({error}), and {on_error}", path.display())
        }
        Because::Found(Exemption::Standing(Standing::Registered { until })) => {
            let left = i64::from(*until) - now.as_second();
            format!("it has a live registration, for {} more", ago(left))
        }
        Because::Found(Exemption::Standing(Standing::NotRegistered)) => {
            "no live registration comes from it, and no allow list has it".to_owned()
        }
        Because::Found(Exemption::Standing(Standing::SeenLately { at })) => {
            let stale_ok = config.registrations.stale_ok;
            format!(
                "the source cannot be read; it was seen registered {} ago, and stale-ok is {stale_ok}",
                ago(now.as_second() - at)
            )
        }
        Because::Found(Exemption::Standing(Standing::Unknown)) => {
            format!("the source cannot be read, it was not seen registered lately, and {on_error}")
        }
    }
}

fn origin(args: &Args, settings: &Settings) -> String {
    match (&settings.broken, &args.config) {
        (Some(error), _) => error.to_string(),
        (None, Some(path)) => path.display().to_string(),
        (None, None) if std::path::Path::new(config::DEFAULT_PATH).exists() => {
            config::DEFAULT_PATH.to_owned()
        }
        (None, None) => format!("defaults ({} is not there)", config::DEFAULT_PATH),
    }
}

fn source(rows: &mut Rows, answer: &Answer, config: &Config) {
    let found = answer.discovery.clone().map_or_else(|| discovery::discover(&config.registrations), Ok);
    let is_found = found.is_ok();
    match found {
        Ok(Discovery { source, clues }) => {
            rows.row("source", source);
            rows.row("chosen", clues.join("\n"));
        }
        // Why not is the failure below, where there is one.
        Err(_) if answer.failure.is_some() => rows.row("source", "none found"),
        Err(error) => rows.row("source", format!("{error:#}")),
    }
    match &answer.via {
        Via::Snapshot { age, addresses } | Via::Events { age, addresses } => {
            let (row, who) = match &answer.via {
                Via::Events { .. } => ("told", "by ringfence-events".to_owned()),
                _ => ("asked", format!("for all calls of {}", config.registrations.cache)),
            };
            rows.row(row, format!("{:.1} s ago, {who}", age.as_secs_f64()));
            rows.row(
                "read",
                format!(
                    "{addresses} address{} with live registrations",
                    if *addresses == 1 { "" } else { "es" }
                ),
            );
        }
        Via::Memory if !is_found => {}
        Via::Memory if answer.discovery.is_none() => {
            rows.row("asked", "not now: it failed less than 10 s ago, or another call is asking");
        }
        Via::Source | Via::Memory => rows.row("asked", "now"),
    }
    if !answer.notes.is_empty() {
        rows.row("read", answer.notes.join("\n"));
    }
    if let Some(failure) = &answer.failure {
        rows.row("failure", failure);
    }
}

/// Seconds as people say them: `57m 3s`.
fn ago(seconds: i64) -> String {
    let span = jiff::SignedDuration::from_secs(seconds);
    format!("{span:#}")
}
