//! What a feed's body says, in each of the forms that feeds have.

use std::net::IpAddr;

use serde::Deserialize;

use super::secrets::Secrets;
use crate::address::{WIDEST_V4, WIDEST_V6};
use crate::address_set::text::{self, Line};
use crate::address_set::{AddressRange, AddressSet, Builder};
use crate::config::lists::Format;
use crate::evidence::visible_within;

/// So many examples of what is wrong are kept.
const EXAMPLES: usize = 3;

/// So many bytes of an example are kept, and so many are shown.
const KEPT: usize = 4_096;
const SHOWN: usize = 60;

/// What was read from a list.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The addresses.
    pub set: AddressSet,
    /// Lines with something in them.
    pub lines: usize,
    /// Those that cannot be read.
    pub bad: Examples,
    /// Those that were left out for being too wide.
    pub wide: Examples,
}

/// How many lines, and the first few.
#[derive(Debug, Default)]
pub struct Examples {
    /// How many.
    pub count: usize,
    first: Vec<(usize, Vec<u8>)>,
}

impl Examples {
    fn add(&mut self, line: usize, text: &[u8]) {
        self.count += 1;
        if self.first.len() < EXAMPLES {
            self.first.push((line, text[..text.len().min(KEPT)].to_vec()));
        }
    }

    /// `line 3 "10.1", line 7 "localhost", ...`
    #[must_use]
    pub fn shown(&self, secrets: &Secrets) -> String {
        let example = |(line, text): &(usize, Vec<u8>)| {
            // A server may quote what it was asked for.
            let text = secrets.hide(&String::from_utf8_lossy(text));
            format!("line {line} {:?}", visible_within(&text, SHOWN))
        };
        let mut examples: Vec<String> = self.first.iter().map(example).collect();
        if self.count > self.first.len() {
            examples.push("...".to_owned());
        }
        examples.join(", ")
    }
}

/// Whether very wide entries are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wide {
    /// They are: the administrator's own.
    Taken,
    /// They are left out, and counted.
    LeftOut,
}

/// Gathers what the lines say.
#[derive(Debug)]
pub struct Gathering {
    parsed: Parsed,
    builder: Builder,
    wide: Wide,
}

impl Gathering {
    /// Nothing yet.
    #[must_use]
    pub fn new(wide: Wide) -> Self {
        Self { parsed: Parsed::default(), builder: Builder::default(), wide }
    }

    /// A line that says `range`, and how it is written.
    pub fn range(&mut self, line: usize, range: AddressRange) {
        self.parsed.lines += 1;
        // A wider entry of a foreign list is a mistake, or an attack.
        let wide = match &range {
            AddressRange::V4(range) => range.count() > 1 << (32 - WIDEST_V4),
            AddressRange::V6(range) => range.count() > 1 << (128 - WIDEST_V6),
        };
        if wide && self.wide == Wide::LeftOut {
            self.parsed.wide.add(line, range.to_string().as_bytes());
        } else {
            self.builder.add(range);
        }
    }

    /// A line that cannot be read.
    pub fn bad(&mut self, line: usize, text: &[u8]) {
        self.parsed.lines += 1;
        self.parsed.bad.add(line, text);
    }

    /// All that was said.
    #[must_use]
    pub fn finish(mut self) -> Parsed {
        self.parsed.set = self.builder.build();
        self.parsed
    }
}

/// Reads a body. What is no list at all is an error; lines that cannot be read are counted.
pub fn parse(format: Format, body: &[u8], wide: Wide) -> anyhow::Result<Parsed> {
    let start = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    if start.is_empty() {
        anyhow::bail!("it is empty");
    }
    if start.starts_with(b"<") {
        anyhow::bail!("it is a web page (HTML), not a list");
    }
    let mut gathering = Gathering::new(wide);
    match format {
        Format::Plain | Format::Apiban => plain(body, &mut gathering),
        Format::Spamhaus => spamhaus(body, &mut gathering)?,
        Format::Dshield => dshield(body, &mut gathering),
    }
    Ok(gathering.finish())
}

fn plain(body: &[u8], gathering: &mut Gathering) {
    for (number, line) in text::lines(body) {
        match line {
            Line::Range(range) => gathering.range(number, range),
            Line::Other(text) => gathering.bad(number, text),
        }
    }
}

/// A line of Spamhaus' DROP lists; the last is about the list itself.
#[derive(Deserialize)]
struct SpamhausLine {
    cidr: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    records: Option<usize>,
}

fn spamhaus(body: &[u8], gathering: &mut Gathering) -> anyhow::Result<()> {
    let mut about_it = None;
    let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    for (number, line) in (1..).zip(lines).filter(|(_, line)| !line.is_empty()) {
        match serde_json::from_slice::<SpamhausLine>(line) {
            Ok(SpamhausLine { cidr: Some(cidr), .. }) => match cidr.parse() {
                Ok(range) => gathering.range(number, range),
                Err(_) => gathering.bad(number, cidr.as_bytes()),
            },
            Ok(about) if about.kind.as_deref() == Some("metadata") => about_it = Some(about.records),
            _ => gathering.bad(number, line),
        }
    }
    let has = gathering.parsed.lines;
    match about_it {
        // It is the last line of the feed, so that a body that was cut anywhere has none.
        None => anyhow::bail!("it is cut short: its last line, about the list itself, is missing"),
        Some(Some(records)) if records > has => {
            anyhow::bail!("it is cut short: it says it has {records} entries, and has {has}")
        }
        Some(_) => Ok(()),
    }
}

/// `start TAB end TAB prefix TAB ...`, below comments and a line of titles.
fn dshield(body: &[u8], gathering: &mut Gathering) {
    let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let has_content =
        |line: &[u8]| !line.is_empty() && !line.starts_with(b"#") && !line.starts_with(b"Start");
    for (number, line) in (1..).zip(lines).filter(|(_, line)| has_content(line)) {
        let mut columns = line.split(|byte| *byte == b'\t').map(<[u8]>::trim_ascii);
        let mut address = || -> Option<IpAddr> { std::str::from_utf8(columns.next()?).ok()?.parse().ok() };
        match address().zip(address()).and_then(|(start, end)| AddressRange::between(start, end)) {
            Some(range) => gathering.range(number, range),
            None => gathering.bad(number, line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: Format, body: &str) -> Parsed {
        parse(format, body.as_bytes(), Wide::LeftOut).unwrap()
    }

    fn networks(parsed: &Parsed) -> Vec<String> {
        parsed.set.ranges().map(|range| range.to_string()).collect()
    }

    #[test]
    fn what_cannot_be_read_is_counted_with_its_line() {
        let parsed =
            read(Format::Plain, "203.0.113.1\n10.1\n\n# x\nlocalhost\n\x1b[31m\n010.1.1.1\n203.0.113.2\n");
        assert_eq!((parsed.lines, parsed.bad.count), (6, 4));
        assert_eq!(
            parsed.bad.shown(&Secrets::default()),
            "line 2 \"10.1\", line 5 \"localhost\", line 6 \"\u{fffd}[31m\", ..."
        );
        assert_eq!(networks(&parsed), ["203.0.113.1-203.0.113.2"]);
    }

    #[test]
    fn what_is_too_wide_is_left_out() {
        let parsed = read(Format::Plain, "0.0.0.0/1\n9.0.0.0/8\n2a00::/12\n2001:db8::/32\n1.0.0.0-2.0.0.0\n");
        assert_eq!(networks(&parsed), ["9.0.0.0/8", "2001:db8::/32"]);
        assert_eq!(
            parsed.wide.shown(&Secrets::default()),
            "line 1 \"0.0.0.0/1\", line 3 \"2a00::/12\", line 5 \"1.0.0.0-2.0.0.0\""
        );
        let own = parse(Format::Plain, b"10.0.0.0/7", Wide::Taken).unwrap();
        assert_eq!(networks(&own), ["10.0.0.0/7"]);
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        for (body, error) in [
            ("", "it is empty"),
            (" \r\n\t\n", "it is empty"),
            ("\u{feff}", "it is empty"),
            ("\n<!DOCTYPE html>\n203.0.113.1", "it is a web page (HTML), not a list"),
            ("<html>", "it is a web page (HTML), not a list"),
        ] {
            assert_eq!(parse(Format::Plain, body.as_bytes(), Wide::LeftOut).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn reads_spamhaus() {
        let body = concat!(
            "{\"cidr\":\"1.10.16.0/20\",\"sblid\":\"SBL256894\",\"rir\":\"apnic\"}\n",
            "{\"cidr\":\"2001:db8::/32\",\"sblid\":\"SBL1\",\"rir\":\"ripencc\"}\n",
            "{\"cidr\":\"x\"}\nnonsense\n",
            "{\"type\":\"metadata\",\"timestamp\":1763683200,\"size\":2,\"records\":2,\"copyright\":\"(c)\"}\n"
        );
        let parsed = read(Format::Spamhaus, body);
        assert_eq!(networks(&parsed), ["1.10.16.0/20", "2001:db8::/32"]);
        assert_eq!((parsed.lines, parsed.bad.count), (4, 2));
        let nothing = read(Format::Spamhaus, "{\"type\":\"metadata\"}");
        assert!(nothing.set.is_empty() && nothing.lines == 0);
    }

    #[test]
    fn tells_when_spamhaus_is_cut_short() {
        let missing = "it is cut short: its last line, about the list itself, is missing";
        for (body, error) in [
            (
                "{\"cidr\":\"1.10.16.0/20\"}\n{\"type\":\"metadata\",\"records\":1500}",
                "it is cut short: it says it has 1500 entries, and has 1",
            ),
            ("{\"cidr\":\"1.10.16.0/20\"}\n", missing),
            ("{\"cidr\":\"1.10.16.0/20\"}\n{\"type\":\"metad", missing),
            ("{\"cidr\":\"1.10.16.0/20\"}\n{\"cid", missing),
        ] {
            let refused = parse(Format::Spamhaus, body.as_bytes(), Wide::LeftOut).unwrap_err();
            assert_eq!(refused.to_string(), error, "{body}");
        }
    }

    #[test]
    fn reads_dshield() {
        let body = "#\n# DShield.org Recommended Block List\n#\nStart\tEnd\tNetblock\tAttacks\tName\n\
                    203.0.113.0\t203.0.113.255\t24\t1911\tACME, Inc\tUS\tabuse@example.com\r\n198.51.100.0\tx\t24\n";
        let parsed = read(Format::Dshield, body);
        assert_eq!(networks(&parsed), ["203.0.113.0/24"]);
        assert_eq!(parsed.bad.count, 1);
    }
}
