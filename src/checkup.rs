//! Whether a host is as it should be: one file per subject, and what each finds is a [`Finding`].
//!
//! Nothing is changed, and nothing waits for long. The files of the host are below a [`Root`].

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::evidence::visible;
use crate::state_file;

pub mod asterisk;
pub mod boot;
pub mod clock;
pub mod disk;
pub mod fail2ban;
pub mod features;
pub mod filters;
pub mod freeswitch;
pub mod ignore;
pub mod journal;
pub mod kernel;
pub mod registrations;
pub mod remembered;
pub mod secrets;
pub mod selinux;
pub mod syslog;
pub mod units;

/// No file of settings is longer.
const LONGEST: u64 = 4 << 20;

/// What a finding is about, in the order in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// Ringfence's own settings, and their secrets.
    Settings,
    /// The daemon.
    Fail2ban,
    /// One of its jails.
    Jail,
    /// `ringfence-ignore`.
    Ignore,
    /// Who is registered, and where that is read.
    Registrations,
    /// FreeSWITCH's own settings.
    #[serde(rename = "freeswitch")]
    FreeSwitch,
    /// Asterisk's.
    Asterisk,
    /// What the kernel can do.
    Kernel,
    /// The rules of the host, and ours among them.
    Firewall,
    /// What the next boot brings.
    Boot,
    /// What runs every minute.
    Timers,
    /// Logs that pass through syslog.
    Syslog,
    /// What `SELinux` forbids.
    Selinux,
    /// What time it is.
    Clock,
    /// Room for what we write.
    Disk,
}

impl Subject {
    /// As in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Fail2ban => "fail2ban",
            Self::Jail => "jail",
            Self::Ignore => "ignore",
            Self::Registrations => "registrations",
            Self::FreeSwitch => "freeswitch",
            Self::Asterisk => "asterisk",
            Self::Kernel => "kernel",
            Self::Firewall => "firewall",
            Self::Boot => "boot",
            Self::Timers => "timers",
            Self::Syslog => "syslog",
            Self::Selinux => "selinux",
            Self::Clock => "clock",
            Self::Disk => "disk",
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Somebody should do something.
    NeedsDoing,
    /// Nobody knows.
    NotChecked,
    /// It is as it should be.
    Fine,
}

impl Verdict {
    /// For people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::NeedsDoing => "needs doing",
            Self::NotChecked => "not checked",
            Self::Fine => "fine",
        }
    }
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// What came of it.
    pub verdict: Verdict,
    /// What it is about.
    pub subject: Subject,
    /// A word for this check.
    pub check: &'static str,
    /// Which jail, file, directory or unit; empty where there is one of it alone.
    pub about: String,
    /// What is so, for people.
    pub what: String,
    /// The command or the setting that mends it. Empty where all is fine, and only there.
    pub remedy: String,
}

impl Finding {
    /// All is as it should be.
    #[must_use]
    pub fn fine(subject: Subject, check: &'static str, what: impl AsRef<str>) -> Self {
        Self { verdict: Verdict::Fine, ..Self::needs(subject, check, what, "") }
    }

    /// Somebody should do this.
    #[must_use]
    pub fn needs(
        subject: Subject,
        check: &'static str,
        what: impl AsRef<str>,
        remedy: impl AsRef<str>,
    ) -> Self {
        let (what, remedy) = (visible(what.as_ref()), visible(remedy.as_ref()));
        Self { verdict: Verdict::NeedsDoing, subject, check, about: String::new(), what, remedy }
    }

    /// It could not be found out, and this helps.
    #[must_use]
    pub fn unknown(
        subject: Subject,
        check: &'static str,
        what: impl AsRef<str>,
        remedy: impl AsRef<str>,
    ) -> Self {
        Self { verdict: Verdict::NotChecked, ..Self::needs(subject, check, what, remedy) }
    }

    /// With the name of what it is about.
    #[must_use]
    pub fn about(self, name: impl AsRef<str>) -> Self {
        Self { about: visible(name.as_ref()), ..self }
    }
}

/// Where the files of a host begin.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    /// This host's, or those of one that is mounted there.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }

    /// A file of the host, by its name there.
    #[must_use]
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A text file, whatever its encoding; `None` if it is not there.
    fn text(&self, path: &str) -> io::Result<Option<String>> {
        text(&self.at(path))
    }

    /// The files of these directories with this ending, by name; a directory that is not there has none.
    fn files(&self, dirs: &[&str], ending: &str) -> io::Result<Vec<PathBuf>> {
        let mut files = vec![];
        for dir in dirs {
            match std::fs::read_dir(self.at(dir)) {
                Ok(entries) => {
                    for entry in entries {
                        files.extend(Some(entry?.path()).filter(|path| {
                            path.file_name()
                                .is_some_and(|name| name.as_encoded_bytes().ends_with(ending.as_bytes()))
                        }));
                    }
                }
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(error),
            }
        }
        files.sort();
        Ok(files)
    }
}

impl Default for Root {
    fn default() -> Self {
        Self::new("/")
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn text(path: &Path) -> io::Result<Option<String>> {
    match state_file::read_regular(path, LONGEST) {
        Ok(content) => Ok(Some(String::from_utf8_lossy(&content).into_owned())),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is said of a file that cannot be read.
fn unreadable(subject: Subject, check: &'static str, path: &Path, error: &io::Error) -> Finding {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => "Run ringfence doctor as root.".to_owned(),
        _ => format!("See what it is: ls -l {}", path.display()),
    };
    let name = path.display().to_string();
    Finding::unknown(subject, check, format!("{name} cannot be read: {error}."), remedy).about(name)
}

/// The findings of a check that may fail as a whole, with `path` to name.
fn or_unreadable(
    subject: Subject,
    check: &'static str,
    path: &Path,
    found: io::Result<Vec<Finding>>,
) -> Vec<Finding> {
    found.unwrap_or_else(|error| vec![unreadable(subject, check, path, &error)])
}

/// So many of a thing.
fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod host {
    //! A host made of a few files.

    use super::Root;

    /// Files by their names on the host.
    pub(super) fn with(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        for (name, content) in files {
            let path = root.at(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        (dir, root)
    }
}
