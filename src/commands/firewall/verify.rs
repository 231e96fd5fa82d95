//! `ringfence-firewall verify`: what was confirmed is there, in its order, and works.

use serde::Serialize;

use super::undo::Undo;
use super::wanted::Wanted;
use super::{Call, complain, confirmed, probe};
use crate::commands::screen::print;
use crate::exit::Exit;
use crate::firewall::{Firewall, Version};

/// The command line of `verify`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print it as JSON
    #[arg(long)]
    json: bool,

    /// Try it too: the same rules, in a network namespace of its own, get packets of all kinds. Nothing
    /// of this host's network is touched; its own rules are left out of it
    #[arg(long)]
    probe: bool,
}

/// One thing that should be so.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Check {
    pub(super) what: String,
    pub(super) holds: bool,
    /// What is wrong, and what to do.
    pub(super) detail: String,
}

pub(super) fn run(call: &Call, args: &Args) -> anyhow::Result<Exit> {
    let waits = Undo::read(call)?.is_some();
    let config = match confirmed::read(call)? {
        Some(config) if !waits => config,
        _ if waits => call.config.clone(),
        _ => {
            complain("nothing was confirmed; see ringfence-firewall plan");
            return Ok(Exit::No);
        }
    };
    let there = Firewall::read()?;
    let wanted = Wanted::new(&config, &there, call.now)?;
    let changes = there.plan(|version| wanted.layout(version));
    let differs =
        |version: Version| changes.iter().any(|(program, _)| program.starts_with(version.program()));
    let mut checks: Vec<Check> = [(Version::V4, "IPv4"), (Version::V6, "IPv6")]
        .into_iter()
        .map(|(version, name)| Check {
            what: format!("the rules of {name}, and their jump directly behind the bans"),
            holds: !differs(version),
            detail: "they are not as they were confirmed; run ringfence-firewall restore".to_owned(),
        })
        .collect();
    checks.push(match wanted.missing_sets() {
        Ok(missing) => Check {
            what: "the sets that they name".to_owned(),
            holds: missing.is_empty(),
            detail: format!("not there: {}; run ringfence-firewall restore", missing.join(", ")),
        },
        Err(error) => {
            Check { what: "the sets that they name".to_owned(), holds: false, detail: format!("{error:#}") }
        }
    });
    let open = wanted.unrestricted();
    checks.push(Check {
        what: "the ports that are restricted".to_owned(),
        holds: open.is_empty(),
        detail: open.join("; "),
    });
    if args.probe {
        checks.extend(probe::checks(&config, &there, &wanted)?);
    }
    let all = checks.iter().all(|check| check.holds);
    print(args.json, &checks, || {
        let line = |Check { what, holds, detail }: &Check| {
            if *holds { format!("ok      {what}\n") } else { format!("wrong   {what}: {detail}\n") }
        };
        checks.iter().map(line).collect()
    })?;
    Ok(if all { Exit::Yes } else { Exit::No })
}
