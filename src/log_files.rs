//! A log and its rotated files, as logrotate leaves them: `name`, `name.1`, `name.2.gz`, `name-20261120.gz`.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::time::SystemTime;

use flate2::read::MultiGzDecoder;
use jiff::Timestamp;

/// So much is read at once.
const PIECE: usize = 256 << 10;

/// The names of a log's files that were written to since then, the oldest first.
pub fn since(path: &Path, since: Timestamp) -> io::Result<Vec<String>> {
    let (Some(dir), Some(log)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut files: Vec<(SystemTime, String)> = vec![];
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        if !is_of(log, &name) {
            continue;
        }
        // One that is gone by now was rotated just then.
        if let Ok(about) = entry.metadata()
            && about.is_file()
            && Timestamp::try_from(about.modified()?).is_ok_and(|changed| changed >= since)
        {
            files.push((about.modified()?, name));
        }
    }
    files.sort();
    let mut names: Vec<_> = files.into_iter().map(|(_, name)| name).collect();
    // While it is being compressed, a file is there twice.
    let plain = names.clone();
    names.retain(|name| name.strip_suffix(".gz").is_none_or(|name| !plain.iter().any(|other| other == name)));
    Ok(names)
}

/// Whether a file is this log, or was.
fn is_of(log: &str, name: &str) -> bool {
    let Some(rest) = name.strip_prefix(log) else { return false };
    let number = rest.strip_suffix(".gz").unwrap_or(rest).strip_prefix(['.', '-']);
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    rest.is_empty() || number.is_some_and(|number| !number.is_empty() && is_number(number))
}

/// Hands over each line of a file, with its line feed if it has one; of a longer one, its first `longest` bytes. A compressed file is
/// known by its name.
pub fn each_line(file: File, name: &str, longest: usize, each: impl FnMut(&[u8])) -> io::Result<()> {
    if Path::new(name).extension().is_some_and(|end| end == "gz") {
        lines_of(BufReader::with_capacity(PIECE, MultiGzDecoder::new(file)), longest, each)
    } else {
        lines_of(BufReader::with_capacity(PIECE, file), longest, each)
    }
}

fn lines_of(mut reader: impl BufRead, longest: usize, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    // The beginning of a line that goes on in the next piece.
    let mut begun: Vec<u8> = vec![];
    loop {
        let piece = reader.fill_buf()?;
        if piece.is_empty() {
            break;
        }
        let length = piece.len();
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', piece) {
            let line = &piece[start..=end];
            start = end + 1;
            if begun.is_empty() {
                each(&line[..line.len().min(longest)]);
            } else {
                extend(&mut begun, line, longest);
                each(&begun);
                begun.clear();
            }
        }
        extend(&mut begun, &piece[start..], longest);
        reader.consume(length);
    }
    if !begun.is_empty() {
        each(&begun);
    }
    Ok(())
}

fn extend(begun: &mut Vec<u8>, piece: &[u8], longest: usize) {
    let room = longest.saturating_sub(begun.len());
    begun.extend_from_slice(&piece[..piece.len().min(room)]);
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::time::Duration;

    use super::*;

    #[test]
    fn rotated_files_are_found_the_oldest_first() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let write = |name: &str, hours: u64| {
            let file = File::create(dir.path().join(name)).unwrap();
            file.set_modified(SystemTime::from(now) - Duration::from_secs(hours * 3_600)).unwrap();
        };
        for (name, hours) in [
            ("a.log", 0),
            ("a.log.1", 1),
            ("a.log.2", 3),
            ("a.log.2.gz", 2),
            ("a.log-20261120.gz", 4),
            ("a.log-2026-11-20", 5),
            ("a.log.3.gz", 9),
            ("a.log.bak", 0),
            ("a.log.gz", 0),
            ("a.logs", 0),
            ("b.log", 0),
            ("xa.log", 0),
        ] {
            write(name, hours);
        }
        std::fs::create_dir(dir.path().join("a.log.7")).unwrap();
        let hour = jiff::SignedDuration::from_hours(1);
        let found = since(&dir.path().join("a.log"), now - hour * 8).unwrap();
        assert_eq!(found, ["a.log-2026-11-20", "a.log-20261120.gz", "a.log.2", "a.log.1", "a.log"]);
        assert_eq!(since(&dir.path().join("c.log"), now).unwrap(), [""; 0]);
        assert!(since(&dir.path().join("missing/a.log"), now).is_err());
    }

    /// Gives a byte at a time, now and then none.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
            (buffer[0], self.0) = (*first, rest);
            Ok(1)
        }
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        for (text, expected) in [
            ("", &[][..]),
            ("\n", &["\n"]),
            ("one\ntwo\n", &["one\n", "two\n"]),
            ("one\n\nhalf", &["one\n", "\n", "half"]),
            ("0123456789\nx\n", &["01234567", "x\n"]),
            ("01234567\n0123456\n", &["01234567", "0123456\n"]),
        ] {
            let read = |reader: &mut dyn Read| {
                let mut lines = vec![];
                let each = |line: &[u8]| lines.push(String::from_utf8(line.into()).unwrap());
                lines_of(BufReader::new(reader), 8, each).unwrap();
                lines
            };
            assert_eq!(read(&mut Slow(text.as_bytes())), expected);
            assert_eq!(read(&mut text.as_bytes()), expected);
        }
    }

    #[test]
    fn compressed_files_are_read_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.gz");
        for text in ["one\n", "two\n"] {
            let file = File::options().create(true).append(true).open(&path).unwrap();
            let mut file = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            file.write_all(text.as_bytes()).unwrap();
            file.finish().unwrap();
        }
        let read = || {
            let mut lines = vec![];
            let end = each_line(File::open(&path).unwrap(), "log.gz", 99, |line| {
                lines.push(String::from_utf8(line.into()).unwrap());
            });
            (lines, end.is_ok())
        };
        assert_eq!(read(), (vec!["one\n".to_owned(), "two\n".to_owned()], true));
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(std::fs::metadata(&path).unwrap().len() - 3).unwrap();
        let (lines, whole) = read();
        assert!(lines[0] == "one\n" && !whole, "{lines:?}");
    }
}
