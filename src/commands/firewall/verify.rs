//! `ringfence-firewall verify`: what was confirmed is there, in its order, and works.

use serde::Serialize;

use super::undo::Undo;
use super::wanted::Wanted;
use super::{Call, complain, confirmed, probe};
use crate::commands::pause;
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
    ///
    /// Two namespaces, joined by a cable, end with it: packets are sent to the rules, with addresses of documentation on the
    /// lists, and what arrives is compared with what should. It needs ip(8), unshare(1) and the right to make namespaces, which
    /// a container may lack.
    #[arg(long)]
    probe: bool,
}

/// One thing that should be so.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::commands) struct Check {
    pub(in crate::commands) what: String,
    /// If it is not: why, and what to do.
    pub(in crate::commands) wrong: Option<String>,
}

impl Check {
    /// `wrong` is what is to be said if it does not hold.
    pub(super) fn new(what: impl Into<String>, holds: bool, wrong: impl Into<String>) -> Self {
        Self { what: what.into(), wrong: (!holds).then(|| wrong.into()) }
    }

    pub(super) fn is_wrong(&self) -> bool {
        self.wrong.is_some()
    }
}

pub(super) fn run(call: &Call, args: &Args) -> anyhow::Result<Exit> {
    let Some(checks) = checks(call, args.probe)? else {
        complain("nothing was confirmed; see ringfence-firewall plan");
        return Ok(Exit::No);
    };
    let all = !checks.iter().any(Check::is_wrong);
    print(args.json, &checks, || {
        let line = |Check { what, wrong }: &Check| match wrong {
            None => format!("ok      {what}\n"),
            Some(wrong) => format!("wrong   {what}: {wrong}\n"),
        };
        checks.iter().map(line).collect()
    })?;
    Ok(if all { Exit::Yes } else { Exit::No })
}

/// `None` where nothing was applied.
pub(super) fn checks(call: &Call, probe: bool) -> anyhow::Result<Option<Vec<Check>>> {
    let applied = match Undo::read(call)? {
        Some(undo) => Some(undo.config(call)?),
        None => confirmed::read(call)?,
    };
    let Some(config) = applied else { return Ok(None) };
    let there = Firewall::read()?;
    let wanted = Wanted::new(&config, &there, call.now)?;
    let changes = there.plan(pause::look(&call.config), |version| wanted.layout(version));
    let differs =
        |version: Version| changes.iter().any(|(program, _)| program.starts_with(version.program()));
    let mut checks = vec![];
    for (version, name) in [(Version::V4, "IPv4"), (Version::V6, "IPv6")] {
        checks.push(Check::new(
            format!("the rules of {name}, and their jump directly behind the bans"),
            !differs(version),
            "they are not as they were applied; run ringfence-firewall restore",
        ));
    }
    let missing = wanted.missing_sets()?;
    checks.push(Check::new(
        "the sets that they name",
        missing.is_empty(),
        format!("not there: {}; run ringfence-firewall restore", missing.join(", ")),
    ));
    let open = wanted.unrestricted();
    checks.push(Check::new("the ports that are restricted", open.is_empty(), open.join("; ")));
    if let Some(paused) = pause::words(&call.config) {
        checks.push(Check::new(paused, true, ""));
    }
    if probe {
        checks.extend(probe::checks(&config, &there, &wanted)?);
    }
    Ok(Some(checks))
}
