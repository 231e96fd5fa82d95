//! `ringfence-events tail`: the end of the log, for people.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use super::complain;
use crate::commands::screen::counted;
use crate::config::Config;
use crate::events::line::{Account, Entry, Field, Line, MAX_LINE};
use crate::events::log;
use crate::exit::Exit;

/// The log is looked at so often while it is followed.
const LOOK: Duration = Duration::from_millis(250);

/// So much is read at once from the end.
const PIECE: u64 = 64 << 10;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Go on with what comes, also after a rotation
    #[arg(long, short)]
    follow: bool,

    /// So many lines of what is there
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10)]
    lines: usize,

    /// Print JSON, an object a line
    ///
    /// Nothing is encoded. A value that is not known is null; `cut` has the keys whose values are cut.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(config: &Config, args: &Args) -> anyhow::Result<Exit> {
    let path = config.events_path();
    let mut reader = Reader::open(&path, args.lines).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "; it is there once ringfence-events run has run",
            _ => "",
        };
        anyhow::Error::new(error).context(format!("cannot read {}{hint}", path.display()))
    })?;
    let mut view = View::new(args.json);
    loop {
        reader.read(|lines| view.show(lines))?;
        if view.passed_over > 0 {
            let lines = counted(std::mem::take(&mut view.passed_over), "line is", "lines are");
            complain(&format!("{lines} none of the log's format, and passed over"));
        }
        if !args.follow {
            return Ok(Exit::Yes);
        }
        std::thread::sleep(LOOK);
    }
}

/// Reads whole lines of a file that grows, and is replaced now and then.
pub(in crate::commands) struct Reader {
    path: PathBuf,
    open: fn(&Path) -> io::Result<File>,
    /// So many bytes of a line are kept, and one more.
    longest: usize,
    file: BufReader<File>,
    inode: u64,
    /// Where reading goes on.
    position: u64,
    /// A line that has no end yet.
    part: Vec<u8>,
}

impl Reader {
    /// Opens the log of ringfence-events so many lines before its end.
    pub(in crate::commands) fn open(path: &Path, lines: usize) -> io::Result<Self> {
        Self::open_by(log::open, MAX_LINE, path, lines)
    }

    /// The same of another file, which is opened so.
    pub(in crate::commands) fn open_by(
        open: fn(&Path) -> io::Result<File>,
        longest: usize,
        path: &Path,
        lines: usize,
    ) -> io::Result<Self> {
        let mut file = open(path)?;
        let position = start_of_last(&file, lines)?;
        file.seek(SeekFrom::Start(position))?;
        let inode = file.metadata()?.ino();
        let (path, file) = (path.to_owned(), BufReader::new(file));
        Ok(Self { path, open, longest, file, inode, position, part: vec![] })
    }

    /// Hands over the lines that have come, some at a time; of a file that was replaced, first what is left of it.
    pub(in crate::commands) fn read(
        &mut self,
        mut each: impl FnMut(Vec<Vec<u8>>) -> io::Result<()>,
    ) -> io::Result<()> {
        let replaced = std::fs::metadata(&self.path).is_ok_and(|named| named.ino() != self.inode);
        if self.file.get_ref().metadata()?.len() < self.position {
            self.file.seek(SeekFrom::Start(0))?;
            (self.position, self.part) = (0, vec![]);
        }
        self.rest(&mut each)?;
        if replaced && let Ok(file) = (self.open)(&self.path) {
            self.inode = file.metadata()?.ino();
            (self.file, self.position, self.part) = (BufReader::new(file), 0, vec![]);
            self.rest(&mut each)?;
        }
        Ok(())
    }

    fn rest(&mut self, each: &mut impl FnMut(Vec<Vec<u8>>) -> io::Result<()>) -> io::Result<()> {
        loop {
            let piece = self.file.fill_buf()?;
            let length = piece.len();
            if length == 0 {
                return Ok(());
            }
            let mut lines = vec![];
            for part in piece.split_inclusive(|byte| *byte == b'\n') {
                // Of a line without end, more than the longest is not needed to see that it is none.
                let room = (self.longest + 1).saturating_sub(self.part.len());
                self.part.extend_from_slice(&part[..part.len().min(room)]);
                if part.ends_with(b"\n") {
                    self.part.pop_if(|byte| *byte == b'\n');
                    lines.push(std::mem::take(&mut self.part));
                }
            }
            self.file.consume(length);
            self.position += length as u64;
            each(lines)?;
        }
    }
}

/// Where the last so many lines begin.
fn start_of_last(file: &File, lines: usize) -> io::Result<u64> {
    let mut start = file.metadata()?.len();
    let mut left = lines;
    // The line feed at the end is that of the last line.
    let mut last = start.saturating_sub(1);
    if lines == 0 {
        return Ok(start);
    }
    let mut piece = vec![];
    while start > 0 {
        let from = start.saturating_sub(PIECE);
        piece.resize(usize::try_from(start - from).unwrap_or(0), 0);
        file.read_exact_at(&mut piece, from)?;
        for at in memchr::memrchr_iter(b'\n', &piece) {
            let at = from + at as u64;
            if at < last {
                left -= 1;
                if left == 0 {
                    return Ok(at + 1);
                }
                last = at;
            }
        }
        start = from;
    }
    Ok(0)
}

/// How lines are shown.
struct View {
    json: bool,
    color: bool,
    zone: TimeZone,
    passed_over: u64,
}

impl View {
    fn new(json: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let color = !plain && io::stdout().is_terminal();
        Self { json, color, zone: TimeZone::system(), passed_over: 0 }
    }

    fn show(&mut self, lines: Vec<Vec<u8>>) -> io::Result<()> {
        let mut text = String::new();
        for line in lines {
            if line.len() < MAX_LINE
                && let Ok(line) = Line::parse(&line)
            {
                text += &if self.json { json(&line) } else { self.row(&line) };
                text.push('\n');
            } else {
                self.passed_over += 1;
            }
        }
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    fn row(&self, line: &Line) -> String {
        let time = line.time.get().to_zoned(self.zone.clone()).strftime("%F %T%.3f").to_string();
        let kind = line.entry.kind();
        let (paint, end) = match kind {
            _ if !self.color => ("", ""),
            "success" => ("\x1b[32m", "\x1b[0m"),
            "unregister" | "expire" => ("\x1b[2m", "\x1b[0m"),
            "failure" | "excused" => ("\x1b[31m", "\x1b[0m"),
            _ => ("\x1b[1;31m", "\x1b[0m"),
        };
        let [mut address, mut account] = ["-", "-"].map(str::to_owned);
        line.entry.each(|key, field| match key {
            "address" => address = field.readable(),
            "account" => account = field.readable(),
            _ => {}
        });
        let what = what(&line.entry);
        let row = format!("{time}  {paint}{kind:<14}{end}  {address:<15}  {account:<28}  {what}");
        row.trim_end().to_owned()
    }
}

/// All that stands in no column, in words.
fn what(entry: &Entry) -> String {
    let mut words = vec![];
    entry.each(|key, field| {
        let value = field.readable();
        words.extend(match (key, value.as_str()) {
            ("address" | "account" | "id", _) | (_, "-") => None,
            ("method", method) => Some(method.to_owned()),
            ("known", "yes") => Some("the account exists".to_owned()),
            ("known", "no") => Some("no such account".to_owned()),
            ("known", _) => Some("account not checked".to_owned()),
            ("claimed", account) => Some(format!("claims to be {account}")),
            ("expires", seconds) => Some(format!("for {seconds} s")),
            ("rate", rate) => Some(format!("{rate} requests a second")),
            ("accounts", count) => Some(format!("{count} accounts within 10 minutes")),
            ("sources", count) => Some(format!("{count} known sources within a minute")),
            (key, value) => Some(format!("{key} {value}")),
        });
    });
    words.join(", ")
}

/// An object with the line's keys; what is not known is null, and `cut` has the keys whose values were too long.
fn json(line: &Line) -> String {
    let mut object = Map::new();
    let mut cut = vec![];
    object.insert("time".to_owned(), line.time.to_string().into());
    object.insert("kind".to_owned(), line.entry.kind().into());
    line.entry.each(|key, field| {
        let value = match field {
            Field::Address(None) | Field::Number(None) | Field::Text { bytes: [], .. } => Value::Null,
            Field::Number(Some(number)) => number.into(),
            Field::Text { bytes, .. } => text(bytes).into(),
            Field::Account(Account { user, domain }) => {
                format!("{}@{}", text(user.bytes()), text(domain.bytes())).into()
            }
            other => other.to_string().into(),
        };
        let is_cut = match field {
            Field::Text { cut, .. } => cut,
            Field::Account(account) => account.user.is_cut() || account.domain.is_cut(),
            _ => false,
        };
        if is_cut {
            cut.push(key);
        }
        object.insert(key.to_owned(), value);
    });
    if !cut.is_empty() {
        object.insert("cut".to_owned(), cut.into());
    }
    Value::Object(object).to_string()
}

/// Bytes, as far as they are text.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_file;

    const LINES: &str = "\
2026-11-20T13:31:24.944Z v1 failure address=203.0.113.66 method=INVITE account=102@a.example.com claimed=101@a.example.com known=yes id=102@a.example.com,203.0.113.66 profile=internal agent=Lab%1B%5B31m
2026-11-20T13:31:25.000Z v1 success address=198.51.100.11 account=101@a.example.com expires=300 profile=internal agent=-
2026-11-20T13:31:26.000Z v1 alarm address=- sources=6
";

    #[test]
    fn people_read_what_happened() {
        let view = View { json: false, color: false, zone: TimeZone::UTC, passed_over: 0 };
        let rows: Vec<_> =
            LINES.lines().map(|line| view.row(&Line::parse(line.as_bytes()).unwrap())).collect();
        assert_eq!(
            rows,
            [
                "2026-11-20 13:31:24.944  failure         203.0.113.66     102@a.example.com             \
                 INVITE, claims to be 101@a.example.com, the account exists, profile internal, agent Lab\u{fffd}[31m",
                "2026-11-20 13:31:25.000  success         198.51.100.11    101@a.example.com             \
                 for 300 s, profile internal",
                "2026-11-20 13:31:26.000  alarm           -                -                             \
                 6 known sources within a minute",
            ]
        );
        let line = Line::parse(LINES.lines().nth(1).unwrap().as_bytes()).unwrap();
        let object: Value = serde_json::from_str(&json(&line)).unwrap();
        assert_eq!(
            (&object["expires"], &object["agent"], &object["kind"]),
            (&300.into(), &Value::Null, &"success".into())
        );
        let odd = format!(
            "2026-11-20T13:31:25.000Z v1 success address=2001:db8::1 account=%2D@- expires=- profile=%2D agent={}~",
            "x".repeat(128)
        );
        let line = Line::parse(odd.as_bytes()).unwrap();
        let object: Value = serde_json::from_str(&json(&line)).unwrap();
        assert_eq!(
            (&object["account"], &object["profile"], &object["expires"]),
            (&"-@".into(), &"-".into(), &Value::Null)
        );
        assert_eq!((&object["agent"], &object["cut"]), (&"x".repeat(128).into(), &vec!["agent"].into()));
        assert!(view.row(&line).ends_with("x\u{2026}"), "{}", view.row(&line));
    }

    /// In a directory of its own, as the service has one.
    fn private(dir: &tempfile::TempDir) -> PathBuf {
        state_file::make_dir(&dir.path().join("events"), 0o750).unwrap();
        dir.path().join("events/log")
    }

    fn gather(all: &mut Vec<Vec<u8>>) -> impl FnMut(Vec<Vec<u8>>) -> io::Result<()> {
        |lines| {
            all.extend(lines);
            Ok(())
        }
    }

    #[test]
    fn the_last_lines_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = private(&dir);
        let text = (0..30_000).fold(String::new(), |text, number| text + &number.to_string() + "\n");
        for (end, whole) in [("", 30_000), ("half", 30_000)] {
            std::fs::write(&path, text.clone() + end).unwrap();
            for lines in [0, 1, 2, 10_000, 20_000, 29_999, 30_000, 40_000] {
                let mut found = vec![];
                let mut reader = Reader::open(&path, lines).unwrap();
                reader.read(&mut gather(&mut found)).unwrap();
                let expected =
                    lines.min(whole).saturating_sub(usize::from(!end.is_empty() && lines <= whole));
                assert_eq!(found.len(), expected, "{lines} {end}");
            }
        }
    }

    #[test]
    fn a_rotation_is_survived() {
        let dir = tempfile::tempdir().unwrap();
        let path = private(&dir);
        let append = |text: &str| {
            let mut file = state_file::open_for_append(&path, 0o600).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        append("1\n2\n");
        let mut reader = Reader::open(&path, 1).unwrap();
        let mut read = || {
            let mut found = vec![];
            reader.read(&mut gather(&mut found)).unwrap();
            found.into_iter().map(|line| String::from_utf8(line).unwrap()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(read(), "2");
        append("3\nha");
        assert_eq!(read(), "3");
        append("lf\n4\n");
        std::fs::rename(&path, path.with_extension("1")).unwrap();
        assert_eq!(read(), "half 4");
        append("5\n");
        assert_eq!(read(), "5");
        std::fs::write(&path, "6\n7\n").unwrap();
        std::fs::write(&path, "8\n").unwrap();
        assert_eq!(read(), "", "as long as before: nothing can be told");
        std::fs::write(&path, "").unwrap();
        assert_eq!(read(), "");
        append("9\n");
        assert_eq!(read(), "9");
    }
}
