//! The programs of iptables: which are there, which tables they have, and how those are read and changed.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};

use super::{Saved, Table, Variant, Version, nft};
use crate::programs::{self, find, in_parallel, installed};

/// Where the kernel says which tables there are: those of our network namespace.
const NET: &str = "/proc/thread-self/net";

/// Where they come from.
const PACKAGE: &str = "iptables";

/// Another program may hold the lock of iptables for so many seconds.
const LOCK_SECONDS: &str = "5";

/// No program runs longer, the lock included.
const TIME: Duration = Duration::from_secs(15);

/// One of the four kinds of iptables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) version: Version,
    pub(super) variant: Variant,
}

impl Program {
    /// What changes a single rule.
    pub(super) fn name(&self) -> String {
        format!("{}-{}", self.version.program(), self.variant)
    }

    pub(super) fn restore_name(&self) -> String {
        format!("{}-restore", self.name())
    }

    /// Runs a program of iptables with these arguments, behind its own name, once it has its lock.
    pub(super) fn delete(command: &[String]) -> anyhow::Result<()> {
        let (name, args) = command.split_first().context("no program")?;
        let lock = ["-w", LOCK_SECONDS];
        let args: Vec<&str> = lock.into_iter().chain(args.iter().map(String::as_str)).collect();
        run(name, &args, "").map(drop)
    }

    fn save_name(&self) -> String {
        format!("{}-save", self.name())
    }

    fn read(&self) -> anyhow::Result<Table> {
        Ok(Table { saved: self.save("filter")?, program: self.clone() })
    }

    /// A table that is there.
    fn save(&self, table: &str) -> anyhow::Result<Saved> {
        run(&self.save_name(), &["-c", "-t", table], "").map(|text| Saved::parse(&text))
    }

    /// Its tables beside `filter` that packets for this host meet, where they are there: a look makes none.
    pub(super) fn read_beside(&self) -> anyhow::Result<Vec<(&'static str, Saved)>> {
        const TABLES: [&str; 2] = ["raw", "mangle"];
        let there = tables(self.version, self.variant)?;
        let tables = TABLES.into_iter().filter(|name| there.iter().any(|there| there == name));
        tables.map(|name| Ok((name, self.save(name)?))).collect()
    }

    fn restore(&self, text: &str) -> anyhow::Result<()> {
        let args = ["-w", LOCK_SECONDS, "--noflush", "--counters"];
        run(&self.restore_name(), &args, text).map(drop)
    }

    /// The same in a network namespace of its own, which ends with it.
    pub(super) fn try_apart(&self, text: &str) -> anyhow::Result<()> {
        let path = installed(PACKAGE, &self.restore_name())?;
        let args = ["--net", "--", path.to_str().context("its path is no text")?, "--noflush"];
        programs::run("util-linux", "unshare", &args, text, TIME).map(drop)
    }
}

/// Runs one of its programs to its end; what it printed.
fn run(name: &str, args: &[&str], input: &str) -> anyhow::Result<String> {
    let output = programs::output(PACKAGE, name, args, input, TIME)?;
    // 4: iptables(8), a resource problem, of which the lock is one.
    let is_locked = output.status.code() == Some(4) && output.stderr.contains("lock");
    output.printed(name).map_err(|error| {
        if is_locked {
            anyhow!("{error}; another program may have held the lock of iptables for {LOCK_SECONDS} s")
        } else {
            error
        }
    })
}

/// The names of the tables that are there. A look at one that is not would make it.
fn tables(version: Version, variant: Variant) -> anyhow::Result<Vec<String>> {
    match variant {
        Variant::Nft => {
            let tables = nft::tables().context("cannot list the tables of nftables")?;
            let own = tables.into_iter().filter(|table| table.family.is_of(version));
            Ok(own.map(|table| table.name).collect())
        }
        Variant::Legacy => {
            let file = match version {
                Version::V4 => "ip_tables_names",
                Version::V6 => "ip6_tables_names",
            };
            // Where the kernel has no such tables, it is not there.
            let names = std::fs::read_to_string(Path::new(NET).join(file)).unwrap_or_default();
            Ok(names.lines().map(str::to_owned).collect())
        }
    }
}

/// Which of the two has rules where nothing tells: what is called `iptables` on this host.
pub(super) fn usual() -> Variant {
    let named = find("iptables").and_then(|path| path.canonicalize().ok());
    let legacy = named.as_deref().and_then(Path::to_str).is_some_and(|path| path.contains("legacy"));
    if legacy { Variant::Legacy } else { Variant::Nft }
}

/// The table `filter` of every kind that is in use. Others are left alone: a look would make them.
pub(super) fn read_all() -> anyhow::Result<All> {
    let net = Path::new(NET);
    if !net.exists() {
        // Everything would look unused, and IPv6 switched off.
        bail!("{} is not there; is /proc mounted, and ours?", net.display());
    }
    let (mut programs, mut unused) = (vec![], vec![]);
    for (version, there) in [(Version::V4, true), (Version::V6, net.join("if_inet6").exists())] {
        let legacy = tables(version, Variant::Legacy)?.iter().any(|name| name == "filter");
        let nft = || nft::has_filter(version).unwrap_or(true);
        for (variant, in_use) in [(Variant::Legacy, legacy), (Variant::Nft, there && nft())] {
            let program = Program { version, variant };
            let installed = find(&program.save_name()).is_some();
            match in_use {
                // Rules that cannot be read are an error, if they turn out to be the host's.
                true if there && (installed || variant == Variant::Legacy) => programs.push(program),
                false if there && installed => unused.push(program),
                _ => {}
            }
        }
    }
    if programs.is_empty() && unused.is_empty() {
        bail!("iptables is not there; install the package iptables");
    }
    let reads = in_parallel(programs, |program| program.read().map_err(|error| (program, error)));
    let mut all = All { unused, ..All::default() };
    for read in reads {
        match read {
            Ok(table) => all.tables.push(table),
            Err(failure) => all.failures.push(failure),
        }
    }
    Ok(all)
}

/// A table of iptables that is there beside `filter`.
#[derive(Debug)]
pub(super) struct Other {
    pub(super) program: Program,
    pub(super) name: &'static str,
    /// An error says why it cannot be read.
    pub(super) saved: Result<Saved, anyhow::Error>,
}

impl Other {
    /// The same with other rules.
    pub(super) fn map(&self, change: impl Fn(&Saved) -> Saved) -> Self {
        let saved = self.saved.as_ref().map(change).map_err(|error| anyhow!("{error:#}"));
        Self { program: self.program.clone(), name: self.name, saved }
    }
}

/// Those of these names that are in use; others are left alone, as a look would make them.
pub(super) fn read_others(version: Version, names: &[&'static str]) -> anyhow::Result<Vec<Other>> {
    let mut there = vec![];
    for variant in [Variant::Legacy, Variant::Nft] {
        let tables = tables(version, variant)?;
        let wanted = names.iter().filter(|name| tables.iter().any(|table| table == *name));
        there.extend(wanted.map(|name| (variant, *name)));
    }
    Ok(in_parallel(there, |(variant, name)| {
        let program = Program { version, variant };
        let saved = program.save(name);
        Other { program, name, saved }
    }))
}

/// What could be read, and what could not.
#[derive(Debug, Default)]
pub(super) struct All {
    pub(super) tables: Vec<Table>,
    pub(super) failures: Vec<(Program, anyhow::Error)>,
    /// Those that have no table yet.
    pub(super) unused: Vec<Program>,
}

/// All of them at once; each is one transaction.
pub(super) fn restore_all(changes: &[(Program, String)]) -> anyhow::Result<()> {
    let done = in_parallel(changes, |(program, text)| program.restore(text));
    done.into_iter().collect::<anyhow::Result<()>>().context("cannot change the rules of this host")
}

/// Whether any of its programs is there.
pub(crate) fn is_installed() -> bool {
    let variants = [Variant::Legacy, Variant::Nft].into_iter();
    let mut programs =
        variants.flat_map(|variant| [Version::V4, Version::V6].map(|version| Program { version, variant }));
    programs.any(|program| find(&program.save_name()).is_some())
}
