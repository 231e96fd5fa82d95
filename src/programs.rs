//! Other programs: where they are, and how they are run. No shell, no environment, and none runs for long.

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

use crate::evidence::visible_within;

/// Where they may be; never `PATH`, which somebody else may have set.
const DIRS: [&str; 6] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/local/bin"];

/// Runs a program of a package to its end, which must come within `time`; what it printed.
pub(crate) fn run(
    package: &str,
    name: &str,
    args: &[&str],
    input: &str,
    time: Duration,
) -> anyhow::Result<String> {
    output(package, name, args, input, time)?.printed(name)
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

impl Output {
    /// What it printed; an error says that it failed, and what it said.
    pub(crate) fn printed(self, name: &str) -> anyhow::Result<String> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        let said: Vec<&str> = self.stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        bail!("{name} failed ({}): {}", self.status, visible_within(&said.join("; "), 300))
    }
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
    runtime.block_on(async {
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
            .map_err(|_| TimedOut { name: name.to_string(), time })?
            .with_context(|| format!("cannot run {name}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Output { status: output.status, stdout: text(&output.stdout), stderr: text(&output.stderr) })
    })
}

/// Where a program is; an error names its package.
pub(crate) fn installed(package: &str, name: &str) -> anyhow::Result<PathBuf> {
    find(name).ok_or_else(|| anyhow!("{name} is not there; install the package {package}"))
}

/// Where a program is, if it is there.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    DIRS.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file())
}

/// Does it to each in a thread of its own: a thread that starts a program has to wait until it is loaded.
pub(crate) fn in_parallel<I: Send, T: Send>(
    items: impl IntoIterator<Item = I>,
    work: impl Fn(I) -> T + Sync,
) -> Vec<T> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = items.into_iter().map(|item| scope.spawn(|| work(item))).collect();
        let join =
            |thread: ScopedJoinHandle<'_, T>| thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        threads.into_iter().map(join).collect()
    })
}
