//! One clear line about what is wrong with the settings: file, line, key, and the way out.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::Utf8Error;

/// What is wrong with the settings, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    file: PathBuf,
    line: Option<usize>,
    message: String,
}

impl ConfigError {
    pub(super) fn unreadable(file: &Path, error: &io::Error) -> Self {
        let message = match error.kind() {
            io::ErrorKind::NotFound => {
                "it does not exist; create it, or leave out --config and RINGFENCE_CONFIG".into()
            }
            io::ErrorKind::PermissionDenied => "permission denied; run as root, or make it readable".into(),
            io::ErrorKind::IsADirectory => "it is a directory; name the settings file in it".into(),
            _ => error.to_string(),
        };
        Self { file: file.to_owned(), line: None, message: format!("cannot read the settings: {message}") }
    }

    pub(super) fn about(file: &Path, message: &str) -> Self {
        Self { file: file.to_owned(), line: None, message: message.to_owned() }
    }

    pub(super) fn encoding(file: &Path, content: &[u8], error: Utf8Error) -> Self {
        let message = "not UTF-8; save the file in that encoding".to_owned();
        Self { file: file.to_owned(), line: Some(line_of(content, error.valid_up_to())), message }
    }

    pub(super) fn content(file: &Path, text: &str, error: &toml::de::Error) -> Self {
        let line = error.span().map(|span| line_of(text.as_bytes(), span.start));
        let key = error.span().and_then(|span| key_at(text, span.start));
        let message = error.message().trim();
        let message =
            if key.is_some_and(|key| SECRET.contains(&key)) { without_value(message) } else { message };
        let message = match unknown_key(message) {
            Some(message) => message,
            // The key is worth a word where the text goes wrong in a value.
            None => match key {
                Some(key) if !message.contains(key) => format!("{key}: {message}"),
                None => match error.span().and_then(|span| section_at(text, span.start)) {
                    Some(section) => format!("{section}: {message}"),
                    None => message.to_owned(),
                },
                Some(_) => message.to_owned(),
            },
        };
        Self { file: file.to_owned(), line, message }
    }
}

/// Settings whose values may be secret, or have a secret in them.
const SECRET: [&str; 4] = ["postgres", "event-socket", "url", "key"];

/// serde's "invalid type: ..., expected ..." without the value that it shows.
fn without_value(message: &str) -> &str {
    match message.rfind("expected ") {
        Some(at) if message.starts_with("invalid ") => &message[at..],
        _ => message,
    }
}

fn line_of(content: &[u8], offset: usize) -> usize {
    content[..offset.min(content.len())].split(|byte| *byte == b'\n').count()
}

/// The key of the line that `offset` is in, if the line is `key = value` and `offset` is in its value.
fn key_at(text: &str, offset: usize) -> Option<&str> {
    let start = text.get(..offset)?.rfind('\n').map_or(0, |at| at + 1);
    let (key, _) = text.get(start..offset)?.split_once('=')?;
    Some(key.trim())
}

/// The section that begins on the line that `offset` is in.
fn section_at(text: &str, offset: usize) -> Option<&str> {
    let start = text.get(..offset)?.rfind('\n').map_or(0, |at| at + 1);
    let line = text.get(start..)?.lines().next()?.trim();
    line.strip_prefix('[')?.split(']').next()
}

/// Rewrites serde's "unknown field `x`, expected one of `a`, `b`" into our words, with the nearest key.
fn unknown_key(message: &str) -> Option<String> {
    let rest = message.strip_prefix("unknown field ")?;
    let mut names = rest.split('`').skip(1).step_by(2);
    let wrong = names.next()?;
    let known: Vec<&str> = names.collect();
    let nearest = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .min()
        .filter(|(distance, name)| *distance <= 2.max(name.len() / 3));
    Some(match nearest {
        Some((_, name)) => format!("unknown key `{wrong}`; did you mean `{name}`?"),
        None => format!("unknown key `{wrong}`; known here: {}", known.join(", ")),
    })
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ConfigError {}
