//! All sources at once, with a bar for each on a terminal.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinSet;

use super::carriers::Remembered;
use crate::config::lists::{List, ListName, Source};
use crate::feeds::copy::Copy;
use crate::feeds::fetch::{Fetched, Run, fetch};
use crate::feeds::web::{Client, Fault};
use crate::postgres::Target;

/// A list whose turn it is.
pub(super) struct Order {
    pub(super) name: ListName,
    pub(super) list: List,
    pub(super) old: Option<Arc<Copy>>,
}

/// What holds for all of them.
#[derive(Clone, Copy)]
pub(super) struct Round {
    /// Seconds since 1970.
    pub(super) now: i64,
    pub(super) force: bool,
}

/// What came back.
#[derive(Default)]
pub(super) struct Answers {
    pub(super) lists: Vec<(ListName, Result<Fetched, Fault>)>,
    /// Anew, where the carriers were asked for and found.
    pub(super) remembered: Option<Remembered>,
}

/// Asks all sources at the same time.
pub(super) fn ask(
    orders: Vec<Order>,
    mut carriers: Option<anyhow::Result<Target>>,
    remembered: &Remembered,
    round: Round,
) -> anyhow::Result<Answers> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no asynchronous runtime")?;
    let foreign = orders.iter().any(|order| order.list.is_foreign());
    let client = if foreign { Client::new().map(Some) } else { Ok(None) };
    let bars = bars();
    let answers = runtime.block_on(async {
        let mut answers = Answers::default();
        let mut tasks = JoinSet::new();
        let mut ask_carriers = None;
        for Order { name, list, old } in orders {
            if matches!(list.source, Source::Carriers) {
                ask_carriers = carriers.take().map(|target| (name, old, target));
                continue;
            }
            let client = match &client {
                Ok(client) => client.clone(),
                Err(error) if list.is_foreign() => {
                    answers.lists.push((name, Err(Fault::lasting(format!("{error:#}")))));
                    continue;
                }
                Err(_) => None,
            };
            let bar = bar(&bars, &name, list.is_foreign());
            tasks.spawn(async move {
                let answer = one(&list, old.as_deref(), client.as_ref(), round, &bar).await;
                bar.finish_and_clear();
                (name, answer)
            });
        }
        if let Some((name, old, target)) = ask_carriers {
            let answer = remembered.ask(target, old.as_deref(), round.now, round.force).await;
            let answer = answer.map(|(fetched, remembered)| {
                answers.remembered = Some(remembered);
                fetched
            });
            answers.lists.push((name, answer));
        }
        answers.lists.extend(tasks.join_all().await);
        answers
    });
    // A name that is still being looked up must not be waited for.
    runtime.shutdown_background();
    Ok(answers)
}

async fn one(
    list: &List,
    old: Option<&Copy>,
    client: Option<&Client>,
    round: Round,
    bar: &ProgressBar,
) -> Result<Fetched, Fault> {
    let progress = |received, total: Option<u64>| {
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_position(received);
    };
    let now = u32::try_from(round.now).unwrap_or(0);
    fetch(list, old, Run { client, now, force: round.force, progress: &progress }).await
}

fn bars() -> MultiProgress {
    let quiet = !io::stderr().is_terminal();
    MultiProgress::with_draw_target(if quiet {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    })
}

fn bar(bars: &MultiProgress, name: &ListName, foreign: bool) -> ProgressBar {
    if !foreign {
        return ProgressBar::hidden();
    }
    let bar = bars.add(ProgressBar::no_length());
    let style = ProgressStyle::with_template("{prefix:16} {bytes:>10} {wide_bar:.dim} {elapsed:>4}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(name.to_string());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
