//! Samples of log lines, in the format of fail2ban's own test.

use std::collections::BTreeSet;

use serde_json::Value;

use super::data;

/// A filter's samples that are read with the same options.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// What stands behind the filter's name: `[mode=strict]`, or nothing.
    pub options: String,
    /// The lines of the log, each with its line break.
    pub lines: Vec<Vec<u8>>,
    /// Those that complete a failure, by their index.
    completing: Vec<usize>,
    /// Whom they name: addresses, or accounts.
    pub guilty: BTreeSet<String>,
}

/// A filter's samples, by its options. The default ones are the first.
pub fn samples(filter: &str) -> Vec<Samples> {
    let text =
        std::fs::read(data("samples").join(filter)).unwrap_or_else(|error| panic!("{filter}: {error}"));
    let mut all = vec![Samples::default()];
    let (mut prefix, mut guilty) = (String::new(), None);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let comment = |key: &str| -> Option<Value> {
            let json = line.strip_prefix(format!("# {key}:").as_bytes())?;
            Some(serde_json::from_slice(json).unwrap_or_else(|error| panic!("{filter}: {error}")))
        };
        if let Some(options) = comment("filterOptions") {
            options["test.prefix-line"].as_str().unwrap_or_default().clone_into(&mut prefix);
            let options = written(&options);
            // The last one is who goes on.
            let at = all.iter().position(|samples| samples.options == options);
            let samples = at.map_or_else(|| Samples { options, ..Samples::default() }, |at| all.remove(at));
            all.push(samples);
        } else if let Some(comment) = comment("failJSON") {
            let whom = comment.get("fid").unwrap_or(&comment["host"]);
            guilty = (comment["match"] == true).then(|| whom.as_str().unwrap().to_owned());
        } else if !line.starts_with(b"#") && line.len() > 1 {
            let samples = all.last_mut().unwrap();
            if let Some(guilty) = guilty.take() {
                samples.completing.push(samples.lines.len());
                samples.guilty.insert(guilty);
            }
            samples.lines.push([prefix.as_bytes(), line].concat());
        }
    }
    all.retain(|samples| !samples.lines.is_empty());
    all
}

/// Options as `fail2ban-regex` takes them. Those of the test itself, `test.prefix-line` and its like, are not the filter's.
fn written(options: &Value) -> String {
    let options = options.as_object().expect("one set of options").iter();
    let options = options.filter(|(key, _)| !key.starts_with("test."));
    let options: Vec<_> = options.map(|(key, value)| format!("{key}={}", value.as_str().unwrap())).collect();
    if options.is_empty() { String::new() } else { format!("[{}]", options.join(",")) }
}

/// What is repeated in a hostile line: all that our expressions look for, and the text around it.
const JUNK: [&str; 16] = [
    "x",
    " ",
    "[",
    ":",
    "] from ip 198.51.100.11 ",
    "' for [101@a] from ",
    "\", \"",
    "\\\"",
    "@a.example.com",
    "=198.51.100.11 ",
    "\n [",
    "' in your directory and add a user with the id=\"",
    "\" attribute\\nand you must configure your device to use the proper domain in its ",
    "\",SessionID=\"",
    "\",LocalAddress=\"IPV4/UDP/198.51.100.1/5060",
    "\",Challenge=\"",
];

impl Samples {
    /// Failures with a lot of each junk, so many bytes: where text of the client's may start, in the line that completes a failure and
    /// in the one before.
    pub fn hostile(&self, length: usize) -> Vec<Vec<u8>> {
        const ENOUGH: usize = 2;
        let mut entries = vec![];
        for completing in self.completing.iter().take(ENOUGH) {
            for at in completing.saturating_sub(1)..=*completing {
                let (line, behind) = (&self.lines[at], self.lines[at + 1..=*completing].concat());
                for place in openings(line) {
                    let (head, tail) = line.split_at(place);
                    for junk in JUNK {
                        let junk = junk.repeat(length / junk.len());
                        entries.push([head, junk.as_bytes(), tail, &behind].concat());
                        // What does not match in the end is tried in every way before.
                        entries.push([head, junk.as_bytes(), b"\n"].concat());
                    }
                }
            }
        }
        entries
    }
}

/// Behind brackets and the quotes that open something, or the middle of a line that has none.
fn openings(line: &[u8]) -> Vec<usize> {
    const ENOUGH: usize = 6;
    let opens = |pair: &[u8]| pair[1] == b'[' || (b"'\"".contains(&pair[1]) && b" =([,:".contains(&pair[0]));
    let pairs = line.windows(2).enumerate();
    let mut places: Vec<_> = pairs.filter(|(_, pair)| opens(pair)).map(|(at, _)| at + 2).collect();
    if places.is_empty() {
        places.push(line.len() / 2);
    }
    // The last ones: the first are those of the log itself.
    places.split_off(places.len().saturating_sub(ENOUGH))
}
