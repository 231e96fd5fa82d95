//! What a filter finds in a log: `fail2ban-regex`, run on copies in a directory of our own.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use super::jails::Filter;
use crate::evidence::visible_within;
use crate::firewall;

/// A directory for nobody but us, gone with this value.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes it in `dir`.
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        let make = || -> io::Result<PathBuf> {
            let path = dir.join(format!("ringfence-{:016x}", fastrand::u64(..)));
            // What is there already is somebody else's, and an error.
            DirBuilder::new().mode(0o700).create(&path)?;
            Ok(path)
        };
        make().map(Self).with_context(|| format!("cannot make a directory in {}", dir.display()))
    }

    /// A file in it.
    pub fn put(&self, name: &str, content: &[u8]) -> anyhow::Result<PathBuf> {
        let path = self.0.join(name);
        let write = || -> io::Result<()> {
            std::fs::create_dir_all(path.parent().unwrap_or(&self.0))?;
            std::fs::write(&path, content)
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Its name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whom a filter finds in a log, in order: addresses, or what its ids are. `name` is for files of ours alone.
pub fn found_by(
    filter: &Filter,
    name: &str,
    log: &[u8],
    scratch: &Scratch,
    time: Duration,
) -> anyhow::Result<Vec<String>> {
    // fail2ban-regex takes the directory's name for where else to look.
    let conf = scratch.put(&format!("{name}/filter.d/filter.conf"), filter.to_conf().as_bytes())?;
    let log = scratch.put(&format!("{name}/log"), log)?;
    let conf = conf.to_str().context("the directory's name is not UTF-8")?;
    found(conf, &log, time)
}

/// Whom the filter in a file finds, which may have its options behind it: `/etc/fail2ban/filter.d/x.conf[mode=y]`. An error is what
/// fail2ban-regex says of the filter, or that it was not done within `time`.
pub fn found(filter: &str, log: &Path, time: Duration) -> anyhow::Result<Vec<String>> {
    let log = log.to_str().context("the log's name is not UTF-8")?;
    // Names are not looked up: nobody else is to hear of this.
    let args = ["--usedns=no", "-o", "id", log, filter];
    let output = firewall::output("fail2ban", "fail2ban-regex", &args, "", time)?;
    let mut lines: Vec<_> = output.stdout.lines().map(str::to_owned).collect();
    // Nothing found is no success either, and then it says nothing.
    if !output.status.success() && (!lines.is_empty() || !output.stderr.trim().is_empty()) {
        let said = lines.pop().unwrap_or_else(|| output.stderr.trim().to_owned());
        bail!("{}", visible_within(said.trim_start_matches("ERROR:").trim(), 300));
    }
    Ok(lines)
}
