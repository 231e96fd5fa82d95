//! What packaging/ringfence.toml says of each setting: its value there, and the comment above it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use ringfence::config::{Config, span_of};
use toml::Value;

use crate::roff::{bold, italic, literal, prose};

/// Settings and what they mean, in the file's order, by section; all lists are the section `[lists.NAME]`.
pub struct Settings {
    sections: Vec<(String, Vec<Setting>)>,
}

/// What one comment is about.
struct Setting {
    keys: Vec<Key>,
    comment: String,
}

struct Key {
    name: String,
    /// As it is written.
    value: String,
    is_default: bool,
}

/// The section of each list.
const LIST: &str = "lists.NAME";

/// What a list must have, to which one more key is added to see whether it says the default.
const LISTS: [&str; 2] = [
    "kind = \"block\"\nurl = \"https://lists.example.com/\"\n",
    "kind = \"allow\"\nentries = [\"203.0.113.0/24\", \"2001:db8:66::/48\"]\n",
];

impl Settings {
    pub fn parse(file: &str) -> Self {
        let mut sections: Vec<(String, Vec<Setting>)> = vec![(String::new(), vec![])];
        let mut comment: Vec<&str> = vec![];
        // Something else came in between: the comment before is not for what follows.
        let mut apart = true;
        for line in file.lines() {
            let Some(line) = line.strip_prefix("# ") else {
                comment.clear();
                apart = true;
                continue;
            };
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                let name = if name.starts_with("lists.") { LIST } else { name };
                if sections.last().is_none_or(|(section, _)| section != name) {
                    sections.push((name.to_owned(), vec![]));
                }
                comment.clear();
                apart = true;
                continue;
            }
            let is_key = |key: &str| {
                key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            };
            let Some((key, value)) = line.split_once(" = ").filter(|(key, _)| is_key(key)) else {
                comment.push(line);
                continue;
            };
            let (section, settings) = sections.last_mut().unwrap();
            if settings.iter().any(|setting| setting.named(key)) {
                comment.clear();
                continue;
            }
            let key = Key {
                name: key.to_owned(),
                value: value.to_owned(),
                is_default: is_default(section, key, value),
            };
            match settings.last_mut() {
                Some(setting) if comment.is_empty() && !apart => setting.keys.push(key),
                _ => settings.push(Setting { keys: vec![key], comment: comment.join(" ") }),
            }
            apart = false;
            comment.clear();
        }
        Self { sections }
    }

    /// Puts the settings into a page: where it has `@[SECTION]@`, then `@KEY@`, each that there is. Keys that share a comment
    /// are placed by the first.
    pub fn fill(&self, template: &str) -> String {
        let mut text = String::new();
        let mut left: BTreeMap<(&str, &str), &Setting> = self
            .sections
            .iter()
            .flat_map(|(section, settings)| {
                settings
                    .iter()
                    .map(move |setting| ((section.as_str(), setting.keys[0].name.as_str()), setting))
            })
            .collect();
        let mut section = "";
        for line in template.lines() {
            let Some(name) = line.strip_prefix('@').and_then(|line| line.strip_suffix('@')) else {
                let _ = writeln!(text, "{line}");
                continue;
            };
            if let Some(name) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
                section = name;
                let _ = writeln!(text, ".SS [{section}]");
                continue;
            }
            let setting = left
                .remove(&(section, name))
                .unwrap_or_else(|| panic!("[{section}] {name} is not, or no more, in ringfence.toml"));
            text.push_str(&setting.entry());
        }
        assert!(left.is_empty(), "the page lacks {:?}", left.keys());
        text
    }
}

impl Setting {
    fn named(&self, name: &str) -> bool {
        self.keys.iter().any(|key| key.name == name)
    }

    fn entry(&self) -> String {
        assert!(!self.comment.is_empty(), "ringfence.toml does not say what {} is", self.keys[0].name);
        let tags: Vec<_> = self.keys.iter().map(Key::tag).collect();
        let lines: String = self.keys.iter().filter_map(Key::line).collect();
        format!(".TP\n{}{lines}{}\n", tags.join(".TQ\n"), prose(&self.comment, &[]))
    }
}

impl Key {
    /// How its entry begins: with the default, or where there is none, with an example.
    fn tag(&self) -> String {
        let value = if self.is_long() { String::new() } else { format!(", {}", self.shown()) };
        format!("{} ({}{value})\n", bold(&self.name), italic(self.kind()))
    }

    /// What has no room there.
    fn line(&self) -> Option<String> {
        // It may be broken behind a slash.
        self.is_long().then(|| format!("{}\n.br\n", self.shown().replace('/', "/\\:")))
    }

    fn is_long(&self) -> bool {
        self.name.len() + self.value.len() > 45
    }

    fn shown(&self) -> String {
        let what = if self.is_default { "default" } else { "e.g." };
        format!("{what} {}", literal(&self.value))
    }

    /// What may be written there.
    fn kind(&self) -> &'static str {
        let document: toml::Table = format!("value = {}", self.value).parse().unwrap();
        match &document["value"] {
            Value::Boolean(_) => "true or false",
            Value::Integer(_) => "number",
            Value::Array(items) if items.iter().all(Value::is_str) && !items.is_empty() => "list of strings",
            Value::Array(_) => "list",
            Value::Table(_) => "table",
            Value::String(text) if span_of(text).is_some() => "time span",
            Value::String(text) if text.starts_with('/') => "path",
            Value::String(text) if text.contains("://") => "URL",
            Value::String(text) if text.ends_with('%') => "share",
            Value::String(text) if text.ends_with("iB") => "size",
            _ => "string",
        }
    }
}

/// Whether the settings are the same without it.
fn is_default(section: &str, key: &str, value: &str) -> bool {
    let parse =
        |text: &str| Config::parse(Path::new("shipped"), text.as_bytes()).map(|config| format!("{config:?}"));
    let line = format!("{key} = {value}\n");
    if section != LIST {
        let header = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
        return parse(&format!("{header}{line}")).unwrap() == parse("").unwrap();
    }
    LISTS.iter().filter(|list| !list.contains(&format!("{key} = "))).any(|list| {
        let list = format!("[lists.one]\n{list}");
        parse(&format!("{list}{line}")).is_ok_and(|with| with == parse(&list).unwrap())
    })
}

#[test]
fn the_shipped_file_has_every_setting() {
    let file = crate::read(&crate::project("packaging/ringfence.toml"));
    let settings = Settings::parse(&file);
    for (section, settings) in &settings.sections {
        let text = match section.as_str() {
            "" => "no-such-key = 1\n".to_owned(),
            LIST => format!("[lists.one]\n{}no-such-key = 1\n", LISTS[0]),
            section => format!("[{section}]\nno-such-key = 1\n"),
        };
        let error = toml::from_str::<Config>(&text).unwrap_err();
        let (_, expected) = error.message().split_once("expected").unwrap();
        let expected: Vec<_> = expected.split('`').skip(1).step_by(2).collect();
        assert!(!expected.is_empty(), "{error}");
        for key in expected {
            let is_section = file.contains(&format!("\n# [{key}]\n")) || key == "lists";
            assert!(
                is_section || settings.iter().any(|setting| setting.named(key)),
                "[{section}] lacks {key}"
            );
        }
    }
}
