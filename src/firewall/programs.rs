//! The programs of iptables: which are there, and how they are run. No shell, no environment, and none runs for long. So are others
//! of the system.

use std::ffi::OsStr;
use std::fmt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::{Saved, Table, Variant, Version, nft};
use crate::evidence::visible_within;

/// Where they may be; never `PATH`, which somebody else may have set.
const DIRS: [&str; 6] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/local/bin"];

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
        run(PACKAGE, name, &args, "", TIME).map(drop)
    }

    fn save_name(&self) -> String {
        format!("{}-save", self.name())
    }

    fn read(&self) -> anyhow::Result<Table> {
        Ok(Table { saved: self.save("filter")?, program: self.clone() })
    }

    /// A table that is there.
    fn save(&self, table: &str) -> anyhow::Result<Saved> {
        run(PACKAGE, &self.save_name(), &["-c", "-t", table], "", TIME).map(|text| Saved::parse(&text))
    }

    /// Its tables beside `filter` that packets for this host meet, where they are there: a look makes none.
    pub(super) fn read_beside(&self) -> anyhow::Result<Vec<(&'static str, Saved)>> {
        const TABLES: [&str; 2] = ["raw", "mangle"];
        let there: Vec<String> = match self.variant {
            Variant::Nft => {
                let tables = nft::tables().context("cannot list the tables of nftables")?;
                let own = tables.into_iter().filter(|table| table.family.is_of(self.version));
                own.map(|table| table.name).collect()
            }
            Variant::Legacy => {
                let file = match self.version {
                    Version::V4 => "/proc/thread-self/net/ip_tables_names",
                    Version::V6 => "/proc/thread-self/net/ip6_tables_names",
                };
                // Where the kernel has no such tables, it is not there.
                std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
            }
        };
        let tables = TABLES.into_iter().filter(|name| there.iter().any(|there| there == name));
        tables
            .map(|name| {
                let text = run(PACKAGE, &self.save_name(), &["-c", "-t", name], "", TIME)?;
                Ok((name, Saved::parse(&text)))
            })
            .collect()
    }

    fn restore(&self, text: &str) -> anyhow::Result<()> {
        let args = ["-w", LOCK_SECONDS, "--noflush", "--counters"];
        run(PACKAGE, &self.restore_name(), &args, text, TIME).map(drop)
    }

    /// The same in a network namespace of its own, which ends with it.
    pub(super) fn try_apart(&self, text: &str) -> anyhow::Result<()> {
        let path = installed(PACKAGE, &self.restore_name())?;
        let args = ["--net", "--", path.to_str().context("its path is no text")?, "--noflush"];
        run("util-linux", "unshare", &args, text, TIME).map(drop)
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
    let net = Path::new("/proc/thread-self/net");
    if !net.exists() {
        // Everything would look unused, and IPv6 switched off.
        bail!("{} is not there; is /proc mounted, and ours?", net.display());
    }
    let (mut programs, mut unused) = (vec![], vec![]);
    for (version, legacy_tables, there) in [
        (Version::V4, "ip_tables_names", true),
        (Version::V6, "ip6_tables_names", net.join("if_inet6").exists()),
    ] {
        let legacy = std::fs::read_to_string(net.join(legacy_tables))
            .is_ok_and(|names| names.lines().any(|name| name == "filter"));
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
    let list = match version {
        Version::V4 => "ip_tables_names",
        Version::V6 => "ip6_tables_names",
    };
    let legacy = std::fs::read_to_string(Path::new("/proc/thread-self/net").join(list)).unwrap_or_default();
    let nft = nft::tables().context("the tables of nftables cannot be listed")?;
    let is_there = |variant, name: &str| match variant {
        Variant::Legacy => legacy.lines().any(|there| there == name),
        Variant::Nft => nft.iter().any(|there| there.is_of(version, name)),
    };
    let both = [Variant::Legacy, Variant::Nft].into_iter();
    let all = both.flat_map(|variant| names.iter().map(move |name| (variant, *name)));
    let there = all.filter(|(variant, name)| is_there(*variant, name));
    Ok(in_parallel(there.collect::<Vec<_>>(), |(variant, name)| {
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

/// Does it to each in a thread of its own: a thread that starts a program has to wait until it is loaded.
fn in_parallel<I: Send, T: Send>(items: impl IntoIterator<Item = I>, work: impl Fn(I) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = items.into_iter().map(|item| scope.spawn(|| work(item))).collect();
        let join =
            |thread: ScopedJoinHandle<'_, T>| thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        threads.into_iter().map(join).collect()
    })
}

/// Runs a program of a package to its end, which must come within `time`; what it printed.
pub(crate) fn run(
    package: &str,
    name: &str,
    args: &[&str],
    input: &str,
    time: Duration,
) -> anyhow::Result<String> {
    let output = output(package, name, args, input, time)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said: Vec<&str> = output.stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // 4: iptables(8), a resource problem, of which the lock is one.
    let lock = output.status.code() == Some(4) && output.stderr.contains("lock");
    let hint = if lock && name.contains("tables") {
        format!("; another program may have held the lock of iptables for {LOCK_SECONDS} s")
    } else {
        String::new()
    };
    bail!("{name} failed ({}): {}{hint}", output.status, visible_within(&said.join("; "), 300))
}

/// A program took too long.
#[derive(Debug)]
pub(crate) struct TimedOut {
    name: String,
    time: Duration,
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} did not get done within {} s", self.name, self.time.as_secs())
    }
}

impl std::error::Error for TimedOut {}

/// What a program did.
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a program of a package to its end, which must come within `time`; whatever its end is.
pub(crate) fn output(
    package: &str,
    name: &str,
    args: &[&str],
    input: &str,
    time: Duration,
) -> anyhow::Result<Output> {
    output_of(&installed(package, name)?, args, &[], input, time)
}

/// The same with a program that is somewhere, and its environment.
pub(crate) fn output_of(
    path: &Path,
    args: &[&str],
    environment: &[(&str, &OsStr)],
    input: &str,
    time: Duration,
) -> anyhow::Result<Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    runtime.block_on(converse(path, &name, args, environment, input, time))
}

async fn converse(
    path: &Path,
    name: &str,
    args: &[&str],
    environment: &[(&str, &OsStr)],
    input: &str,
    time: Duration,
) -> anyhow::Result<Output> {
    let mut child = Command::new(path)
        .args(args)
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let mut stdin = child.stdin.take().expect("it was piped");
    let talk = async {
        let feed = async {
            // A program that does not want it all says why.
            let _ = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
        };
        tokio::join!(feed, child.wait_with_output()).1
    };
    let output = timeout(time, talk)
        .await
        .map_err(|_| TimedOut { name: name.to_owned(), time })?
        .with_context(|| format!("cannot run {name}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Output { status: output.status, stdout: text(&output.stdout), stderr: text(&output.stderr) })
}

/// Where a program is; an error names its package.
pub(crate) fn installed(package: &str, name: &str) -> anyhow::Result<PathBuf> {
    find(name).ok_or_else(|| anyhow!("{name} is not there; install the package {package}"))
}

/// Whether any of its programs is there.
pub(crate) fn is_installed() -> bool {
    let variants = [Variant::Legacy, Variant::Nft].into_iter();
    let mut programs =
        variants.flat_map(|variant| [Version::V4, Version::V6].map(|version| Program { version, variant }));
    programs.any(|program| find(&program.save_name()).is_some())
}

pub(super) fn find(name: &str) -> Option<PathBuf> {
    DIRS.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file())
}
