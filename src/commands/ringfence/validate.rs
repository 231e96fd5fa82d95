//! `ringfence validate`: the settings, and what is installed of fail2ban's files, each filter on its samples.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::bail;
use serde::Serialize;

use crate::commands::screen::{Columns, counted, print};
use crate::config::{self, Config};
use crate::evidence::visible;
use crate::exit::Exit;
use crate::fail2ban::regex::{self, Scratch};
use crate::fail2ban::{CONFIG, jails, shipped};
use crate::programs;
use crate::state_file;

/// fail2ban takes no longer for a filter's samples, or for its configuration.
const TIME: Duration = Duration::from_mins(1);

/// No file of fail2ban's is longer.
const LONGEST: u64 = 1 << 20;

/// What brings files back that somebody removed; the package manager leaves them out otherwise.
const REINSTALL: &str =
    "to have it again: apt-get install --reinstall -o Dpkg::Options::=--force-confmiss ringfence";

/// So many filters are tried at once.
const AT_ONCE: usize = 2;

/// The command line of `validate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where fail2ban's files are
    #[arg(long, value_name = "DIR", default_value = CONFIG)]
    fail2ban: PathBuf,

    /// Print JSON: a list of all that was looked at
    #[arg(long)]
    json: bool,
}

/// What came of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Ok,
    /// It is not the file of this version, which may be somebody's wish.
    Changed,
    /// It is not there, which may be somebody's wish, too.
    Missing,
    Wrong,
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Changed => "changed",
            Self::Missing => "missing",
            Self::Wrong => "wrong",
        }
    }
}

/// Something that was looked at.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Check {
    verdict: Verdict,
    /// A file, or a filter with its options.
    what: String,
    /// What is so.
    text: String,
}

impl Check {
    fn new(verdict: Verdict, what: impl Into<String>, text: impl AsRef<str>) -> Self {
        Self { verdict, what: visible(&what.into()), text: visible(text.as_ref()) }
    }
}

pub(super) fn run(settings: Option<&Path>, args: &Args) -> anyhow::Result<Exit> {
    let dir = &args.fail2ban;
    if !dir.is_dir() {
        bail!("{} is no directory; --fail2ban names the one with fail2ban's files", dir.display());
    }
    let mut checks = vec![of_settings(settings)];
    checks.extend(of_files(dir));
    checks.extend(of_filters(dir)?);
    checks.push(of_configuration(dir));
    let wrong = checks.iter().any(|check| check.verdict == Verdict::Wrong);
    print(args.json, &checks, || render(&checks))?;
    Ok(if wrong { Exit::No } else { Exit::Yes })
}

fn of_settings(path: Option<&Path>) -> Check {
    let file = path.unwrap_or(Path::new(config::DEFAULT_PATH));
    let what = file.display().to_string();
    match Config::load(path) {
        Ok(_) if !file.exists() => {
            Check::new(Verdict::Ok, what, "not there: all settings are at their defaults")
        }
        Ok(_) => Check::new(Verdict::Ok, what, "the settings are right"),
        Err(error) => {
            let text = error.to_string();
            // The file is named already.
            let text = text
                .strip_prefix(&what)
                .map_or(text.as_str(), |rest| rest.trim_start_matches(':').trim_start());
            let text = if text.starts_with(|c: char| c.is_ascii_digit()) {
                format!("line {text}")
            } else {
                text.to_owned()
            };
            Check::new(Verdict::Wrong, what, text)
        }
    }
}

/// Our files; one line for all of them where none is there.
fn of_files(dir: &Path) -> Vec<Check> {
    let mut checks: Vec<_> = shipped::FILES.iter().flat_map(|file| of_file(dir, file)).collect();
    if checks.iter().all(|check| check.verdict == Verdict::Missing) {
        let text = format!("none of Ringfence's files is there; {REINSTALL}");
        checks = vec![Check::new(Verdict::Wrong, dir.display().to_string(), text)];
    }
    checks
}

/// A file of ours: whether it is there, as it was shipped, and no section sets an option twice, nor in its `.local`.
fn of_file(dir: &Path, file: &shipped::File) -> Vec<Check> {
    let path = dir.join(file.name);
    let text = match state_file::read_regular(&path, LONGEST) {
        Ok(content) => String::from_utf8_lossy(&content).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return vec![Check::new(Verdict::Missing, file.name, format!("it is not there; {REINSTALL}"))];
        }
        Err(error) => {
            return vec![Check::new(Verdict::Wrong, file.name, format!("it cannot be read: {error}"))];
        }
    };
    let mut checks = vec![];
    let local = path.with_extension("local");
    let name = Path::new(file.name).with_extension("local").display().to_string();
    match state_file::read_regular(&local, LONGEST) {
        Ok(content) => {
            let twice = twice(&String::from_utf8_lossy(&content));
            checks.push(match twice.first() {
                None => Check::new(Verdict::Changed, name, "it changes settings of the file of this version"),
                Some(twice) => Check::new(Verdict::Wrong, name, twice),
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => checks.push(Check::new(Verdict::Wrong, name, format!("it cannot be read: {error}"))),
    }
    let twice = twice(&text);
    checks.insert(
        0,
        match twice.first() {
            Some(twice) => Check::new(Verdict::Wrong, file.name, twice),
            None if text == file.text => Check::new(Verdict::Ok, file.name, "as shipped"),
            None => Check::new(
                Verdict::Changed,
                file.name,
                format!(
                    "it is not that of version {}; changes belong into {}",
                    env!("CARGO_PKG_VERSION"),
                    local.display()
                ),
            ),
        },
    );
    checks
}

/// What is set more than once in a section: fail2ban refuses a file with that, and in jail.d all of its configuration.
fn twice(text: &str) -> Vec<String> {
    let (mut section, mut seen, mut found) = (String::new(), BTreeSet::new(), vec![]);
    for (at, line) in text.lines().enumerate() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            name.clone_into(&mut section);
        } else if !line.starts_with([' ', '\t', '#', ';'])
            && let Some(end) = line.find(['=', ':'])
        {
            let key = line[..end].trim().to_ascii_lowercase();
            if !seen.insert((section.clone(), key.clone())) {
                found.push(format!("line {}: [{section}] sets {key} a second time", at + 1));
            }
        }
    }
    found
}

/// Each filter with each of its options.
fn of_filters(dir: &Path) -> anyhow::Result<Vec<Check>> {
    if let Err(error) = programs::installed("fail2ban", "fail2ban-regex") {
        return Ok(vec![Check::new(Verdict::Wrong, "filters", format!("not tried: {error:#}"))]);
    }
    let scratch = Scratch::of_process(&std::env::temp_dir())?;
    let there = shipped::filters().filter(|filter| conf(dir, filter).is_file());
    let tasks: Vec<_> = there
        .flat_map(|filter| shipped::samples(filter).into_iter().map(move |samples| (filter, samples)))
        .collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = vec![];
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some((filter, samples)) = tasks.get(at) else { return done };
            done.push((at, of_filter(dir, filter, samples, &scratch, at)));
        }
    };
    let mut checks: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    checks.sort_by_key(|(at, _)| *at);
    Ok(checks.into_iter().map(|(_, check)| check).collect())
}

fn conf(dir: &Path, filter: &str) -> PathBuf {
    dir.join("filter.d").join(format!("{filter}.conf"))
}

fn of_filter(
    dir: &Path,
    filter: &str,
    samples: &shipped::Samples,
    scratch: &Scratch,
    number: usize,
) -> Check {
    let what = format!("{filter}{}", samples.options);
    let found = || -> anyhow::Result<Vec<String>> {
        let log = scratch.put(&format!("{number}.log"), &samples.log)?;
        let filter = format!("{}{}", std::path::absolute(conf(dir, filter))?.display(), samples.options);
        regex::found(&filter, &log, TIME)
    };
    let found: Vec<_> = match found() {
        Ok(found) => found.iter().map(|whom| shipped::same(whom)).collect(),
        Err(error) => return Check::new(Verdict::Wrong, what, format!("{error:#}")),
    };
    let expected = &samples.guilty;
    let differing = found.iter().zip(expected).find(|(found, expected)| found != expected);
    if found.len() != expected.len() {
        let text = format!("{} in its samples, not {}", counted_failures(found.len()), expected.len());
        return Check::new(Verdict::Wrong, what, text);
    }
    match differing {
        Some((found, expected)) => {
            Check::new(Verdict::Wrong, what, format!("it finds {found}, not {expected}"))
        }
        None => Check::new(Verdict::Ok, what, format!("{} in its samples", counted_failures(found.len()))),
    }
}

fn counted_failures(count: usize) -> String {
    counted(u64::try_from(count).unwrap_or(u64::MAX), "failure", "failures")
}

/// Whether fail2ban understands all of it: its own files, and who enables which jail.
fn of_configuration(dir: &Path) -> Check {
    let what = dir.display().to_string();
    if !dir.join("jail.conf").is_file() {
        return Check::new(
            Verdict::Ok,
            what,
            "no jail.conf: the files of Ringfence alone, which fail2ban cannot start",
        );
    }
    match jails::read(dir, TIME) {
        Ok(jails) => {
            let count = counted(u64::try_from(jails.len()).unwrap_or(u64::MAX), "jail is", "jails are");
            Check::new(Verdict::Ok, what, format!("fail2ban understands it; {count} enabled"))
        }
        Err(error) => Check::new(Verdict::Wrong, what, format!("fail2ban refuses it: {error:#}")),
    }
}

fn render(checks: &[Check]) -> String {
    let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    let mut text = match count(Verdict::Wrong) {
        0 => "All is right".to_owned(),
        wrong => counted(u64::try_from(wrong).unwrap_or(u64::MAX), "thing is wrong", "things are wrong"),
    };
    match count(Verdict::Changed) {
        0 => {}
        1 => text += ", and 1 file was changed",
        changed => drop(write!(text, ", and {changed} files were changed")),
    }
    match count(Verdict::Missing) {
        0 => {}
        1 => text += ", and 1 file is missing",
        missing => drop(write!(text, ", and {missing} files are missing")),
    }
    text += ".\n\n";
    let mut columns = Columns::new(&["VERDICT", "WHAT", ""], &[]);
    let order = [Verdict::Wrong, Verdict::Missing, Verdict::Changed, Verdict::Ok];
    for verdict in order {
        for Check { what, text, .. } in checks.iter().filter(|check| check.verdict == verdict) {
            columns.row([verdict.word().to_owned(), what.clone(), text.clone()]);
        }
    }
    text + &columns.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_count_once_in_each_section() {
        let text = "[a]\nx = 1\ny = 1\n    x = 2\n# y = 3\n[b]\nX = 1\n[a]\nx: 4\n";
        assert_eq!(twice(text), ["line 9: [a] sets x a second time"]);
        assert!(shipped::FILES.iter().all(|file| twice(file.text).is_empty()));
    }
}
