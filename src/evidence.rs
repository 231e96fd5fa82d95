//! The journal of decisions: one JSON line each in `decisions.jsonl`, and now and then one to syslog.
//!
//! The same decision about the same subject is one line a minute, with a count. The file is renamed to
//! `decisions.jsonl.1` when it reaches its size, so that the two together stay bounded. Writing never
//! waits: where the shared memory of the last minute is busy for long, the line is written uncounted.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::{Timestamp, Unit};
use serde::{Deserialize, Serialize};

use crate::config::Mode;
use crate::state_file;

pub mod past;
mod recent;
mod syslog;

use recent::{Ear, Recent, Turn};

/// One file of the journal is renamed at this size.
const MAX_LENGTH: u64 = 16 << 20;

/// Subjects and details are cut to this many bytes; they may be an attacker's text.
const MAX_TEXT: usize = 200;

/// A decision about a subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The tool that decided.
    pub tool: String,
    /// An address or an account.
    pub subject: String,
    /// `keep`, `ban`, ... as the tool says it.
    pub decision: String,
    /// Why, as a word that can be searched for.
    pub reason: String,
    /// Where the knowledge came from.
    pub source: String,
    /// `observe` where the decision took no effect, else absent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mode: String,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

#[derive(Serialize)]
struct Line<'a> {
    when: Timestamp,
    #[serde(flatten)]
    decision: &'a Decision,
    /// So many decisions since the last such line.
    count: u32,
}

/// Where evidence goes.
#[derive(Clone, Debug)]
pub struct Journal {
    log_dir: PathBuf,
    run_dir: PathBuf,
    syslog: PathBuf,
}

impl Journal {
    /// A journal in these directories that also speaks to the syslog socket.
    #[must_use]
    pub fn new(log_dir: &Path, run_dir: &Path, syslog: &Path) -> Self {
        Self { log_dir: log_dir.to_owned(), run_dir: run_dir.to_owned(), syslog: syslog.to_owned() }
    }

    /// Records one decision.
    ///
    /// An error says that its line could not be written; the decision stands all the same.
    pub fn record(&self, decision: &Decision, now: Timestamp) -> io::Result<()> {
        let decision =
            Decision { subject: cut(&decision.subject), detail: cut(&decision.detail), ..decision.clone() };
        let recent = Recent::open(&self.run_dir);
        let written = self.write_line(&decision, recent.as_ref().ok(), now);
        // Without a memory there is no rate to keep: the journal has the line, syslog is spared.
        if let Ok(recent) = &recent {
            self.tell_syslog(&decision, recent, now);
            if let Err(error) = &written {
                self.tell_syslog(&self.unwritable(&decision, error), recent, now);
            }
        }
        written
    }

    fn write_line(&self, decision: &Decision, recent: Option<&Recent>, now: Timestamp) -> io::Result<()> {
        let mut lines = Vec::new();
        let mut push = |when, decision: &Decision, count| -> io::Result<()> {
            serde_json::to_writer(&mut lines, &Line { when: rounded(when), decision, count })?;
            lines.push(b'\n');
            Ok(())
        };
        match recent.map_or(Turn::first(), |recent| recent.take(Ear::Journal, decision, now)) {
            Turn::Counted => return Ok(()),
            Turn::Due { count, displaced } => {
                if let Some(displaced) = displaced {
                    push(displaced.since, &displaced.decision, displaced.count)?;
                }
                push(now, decision, count)?;
            }
        }
        self.append(&lines)
    }

    /// Appends whole lines in one write.
    fn append(&self, lines: &[u8]) -> io::Result<()> {
        state_file::make_dir(&self.log_dir, 0o750)?;
        let path = self.log_dir.join("decisions.jsonl");
        let mut file = state_file::open_for_append(&path, 0o640)?;
        let about = file.metadata()?;
        if about.size() > 0 && about.size() + lines.len() as u64 > MAX_LENGTH {
            // One process renames; who finds that it was done goes on in the new file.
            let ours = state_file::try_lock(&file)?;
            if ours && std::fs::metadata(&path).is_ok_and(|there| there.ino() == about.ino()) {
                std::fs::rename(&path, self.log_dir.join("decisions.jsonl.1"))?;
            }
            file = state_file::open_for_append(&path, 0o640)?;
        }
        file.write_all(lines)
    }

    /// At most one line a minute for each kind of decision, with the latest subject.
    fn tell_syslog(&self, decision: &Decision, recent: &Recent, now: Timestamp) {
        let kind = Decision {
            subject: String::new(),
            source: String::new(),
            detail: String::new(),
            ..decision.clone()
        };
        if let Turn::Due { count, .. } = recent.take(Ear::Syslog, &kind, now) {
            let more = if count > 1 {
                format!(" ({count} of this kind since the last such line)")
            } else {
                String::new()
            };
            let detail = if decision.detail.is_empty() { "" } else { ": " };
            let Decision { decision: verdict, subject, reason, detail: why, .. } = decision;
            let text = format!("{verdict} {subject}, {reason}{detail}{why}{more}");
            syslog::send(&self.syslog, &decision.tool, decision.severity(), &text);
        }
    }

    fn unwritable(&self, decision: &Decision, error: &io::Error) -> Decision {
        Decision {
            tool: decision.tool.clone(),
            subject: self.log_dir.join("decisions.jsonl").display().to_string(),
            decision: "cannot write".into(),
            reason: "evidence-lost".into(),
            source: String::new(),
            mode: String::new(),
            detail: error.to_string(),
        }
    }
}

impl Decision {
    /// What `tool` decided about `subject`, why as a word, and where the knowledge came from.
    #[must_use]
    pub fn new(tool: &str, subject: &str, decision: &str, reason: &str, source: &str) -> Self {
        Self {
            tool: tool.to_owned(),
            subject: subject.to_owned(),
            decision: decision.to_owned(),
            reason: reason.to_owned(),
            source: source.to_owned(),
            mode: String::new(),
            detail: String::new(),
        }
    }

    /// Whether it took effect.
    #[must_use]
    pub fn in_mode(self, mode: Mode) -> Self {
        let mode = match mode {
            Mode::Enforce => "",
            Mode::Observe => "observe",
        };
        Self { mode: mode.to_owned(), ..self }
    }

    /// Why, for people.
    #[must_use]
    pub fn with_detail(self, detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..self }
    }

    fn severity(&self) -> syslog::Severity {
        match self.reason.as_str() {
            "source-unreadable"
            | "list-refused"
            | "lists-refused"
            | "lists-noted"
            | "phones-unknown"
            | "config-broken"
            | "allow-list-unreadable"
            | "account-unverified"
            | "exemption-unknown"
            | "registrations-unreadable"
            | "alarm"
            | "flood"
            | "made-way"
            | "blocks-unchecked"
            | "call-failed"
            | "rules-repaired"
            | "matcher-fault"
            | "ports-open"
            | "not-confirmed"
            | "apply-died"
            | "apply-hung"
            | "apply-failed"
            | "never-confirmed"
            | "ledger-lost"
            | "allowed-lost"
            | "protected-unknown"
            | "evidence-lost" => syslog::Severity::Warning,
            _ => syslog::Severity::Info,
        }
    }
}

/// Whole milliseconds: no reader wants more.
fn rounded(now: Timestamp) -> Timestamp {
    now.round(Unit::Millisecond).unwrap_or(now)
}

/// Foreign text with its control characters made visible: it can neither steer a terminal, nor end a line, nor turn its
/// direction.
#[must_use]
pub fn visible(text: &str) -> String {
    let steers = |c: char| {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        turns || c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
    };
    text.chars().map(|c| if steers(c) { '\u{fffd}' } else { c }).collect()
}

/// [`visible`] text of at most `limit` bytes of the original, with `…` where more was there.
#[must_use]
pub fn visible_within(text: &str, limit: usize) -> String {
    let end = text.floor_char_boundary(limit);
    let mut cut = visible(&text[..end]);
    if end < text.len() {
        cut.push('…');
    }
    cut
}

/// At most [`MAX_TEXT`] bytes, with control characters made visible: safe for a terminal and a line.
fn cut(text: &str) -> String {
    visible_within(text, MAX_TEXT)
}

#[cfg(test)]
mod tests;
