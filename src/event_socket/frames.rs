//! What an event socket sends, frame by frame, from bytes in pieces of any size.

use std::fmt;
use std::num::ParseIntError;

use memchr::memchr_iter;

/// No header is longer, its empty line included.
pub const MAX_HEADER: usize = 16 << 10;

/// So much of what is no header at all is shown.
const SHOWN: usize = 40;

/// Header lines, and the bytes that they announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// `Content-Type`, as in `command/reply`, `text/event-json`.
    pub content_type: String,
    /// `Reply-Text`; empty where there is none.
    pub reply: String,
    /// As many bytes as `Content-Length` says; none without it.
    pub body: Vec<u8>,
}

/// Why bytes are no frame. There is no way to go on after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAFrame {
    /// [`MAX_HEADER`] bytes without an empty line.
    EndlessHeader,
    /// No `Content-Type` in a header that begins like this.
    NoContentType(String),
    /// A `Content-Length` that cannot be read.
    Length(ParseIntError),
    /// More bytes than there may be.
    TooLong {
        /// As announced.
        length: usize,
        /// As allowed.
        limit: usize,
    },
}

/// Cuts a stream into frames. Costs a constant number of copies of each byte, and holds one frame besides what was last
/// pushed; so take all frames before the next piece.
#[derive(Debug)]
pub struct Frames {
    limit: usize,
    /// Received.
    buffer: Vec<u8>,
    /// So many of them are used.
    start: usize,
    /// No header ends before this one.
    searched: usize,
    /// The header whose body is still to come.
    head: Option<Head>,
}

#[derive(Clone, Debug)]
struct Head {
    content_type: String,
    reply: String,
    length: usize,
}

impl Frames {
    /// Allows bodies of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, buffer: Vec::new(), start: 0, searched: 0, head: None }
    }

    /// Adds what was received.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > self.buffer.len() / 2 {
            self.buffer.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, or none before more is received.
    #[expect(clippy::should_implement_trait, reason = "it ends for now, not for good")]
    pub fn next(&mut self) -> Result<Option<Frame>, NotAFrame> {
        let Some(head) = self.head()? else { return Ok(None) };
        let left = self.buffer.len() - self.start;
        if left < head.length {
            self.buffer.reserve_exact(head.length - left);
            self.head = Some(head);
            return Ok(None);
        }
        let body = self.body(head.length);
        Ok(Some(Frame { content_type: head.content_type, reply: head.reply, body }))
    }

    fn head(&mut self) -> Result<Option<Head>, NotAFrame> {
        if let Some(head) = self.head.take() {
            return Ok(Some(head));
        }
        let Some(end) = self.header_end() else {
            let endless = self.buffer.len() - self.start > MAX_HEADER;
            return if endless { Err(NotAFrame::EndlessHeader) } else { Ok(None) };
        };
        if end - self.start > MAX_HEADER {
            return Err(NotAFrame::EndlessHeader);
        }
        let head = Head::parse(&self.buffer[self.start..end], self.limit)?;
        (self.start, self.searched) = (end, end);
        Ok(Some(head))
    }

    /// Where the empty line ends.
    fn header_end(&mut self) -> Option<usize> {
        let tail = &self.buffer[self.searched..];
        for at in memchr_iter(b'\n', tail) {
            match &tail[at + 1..] {
                [b'\n', ..] => return Some(self.searched + at + 2),
                [b'\r', b'\n', ..] => return Some(self.searched + at + 3),
                [] | [b'\r'] => {
                    self.searched += at;
                    return None;
                }
                _ => {}
            }
        }
        self.searched = self.buffer.len();
        None
    }

    /// Takes `length` bytes, which are there.
    fn body(&mut self, length: usize) -> Vec<u8> {
        let end = self.start + length;
        // Many small frames are copied out; one large one takes the buffer with it.
        let body = if length > self.buffer.len() / 2 {
            let rest = self.buffer.split_off(end);
            let mut body = std::mem::replace(&mut self.buffer, rest);
            body.drain(..self.start);
            self.start = 0;
            body
        } else {
            let body = self.buffer[self.start..end].to_vec();
            self.start = end;
            body
        };
        self.searched = self.start;
        body
    }
}

impl Head {
    fn parse(header: &[u8], limit: usize) -> Result<Self, NotAFrame> {
        let header = String::from_utf8_lossy(header);
        let (mut content_type, mut reply, mut length) = (None, None, None);
        for (key, value) in header.lines().filter_map(|line| line.split_once(':')) {
            let field = match key {
                key if key.eq_ignore_ascii_case("Content-Type") => &mut content_type,
                key if key.eq_ignore_ascii_case("Content-Length") => &mut length,
                key if key.eq_ignore_ascii_case("Reply-Text") => &mut reply,
                _ => continue,
            };
            field.get_or_insert(value.trim());
        }
        let Some(content_type) = content_type else {
            return Err(NotAFrame::NoContentType(header.chars().take(SHOWN).collect()));
        };
        let length = length.map_or(Ok(0), str::parse).map_err(NotAFrame::Length)?;
        if length > limit {
            return Err(NotAFrame::TooLong { length, limit });
        }
        Ok(Self {
            content_type: content_type.to_owned(),
            reply: reply.unwrap_or_default().to_owned(),
            length,
        })
    }
}

impl fmt::Display for NotAFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EndlessHeader => {
                write!(f, "not an event socket: no end of its header in {MAX_HEADER} bytes")
            }
            Self::NoContentType(says) => write!(f, "not an event socket: it says {says:?}"),
            Self::Length(_) => f.write_str("its Content-Length is no number"),
            Self::TooLong { length, limit } => {
                write!(f, "it announces {length} bytes; at most {limit} are read")
            }
        }
    }
}

impl std::error::Error for NotAFrame {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Length(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event_socket::recorded;

    const LIMIT: usize = 1 << 20;

    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<NotAFrame>) {
        let (mut decoder, mut frames) = (Frames::new(LIMIT), vec![]);
        for piece in pieces {
            decoder.push(piece);
            loop {
                match decoder.next() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
        }
        (frames, None)
    }

    fn frame(content_type: &str, reply: &str, body: &str) -> Frame {
        Frame { content_type: content_type.into(), reply: reply.into(), body: body.into() }
    }

    #[test]
    fn recordings_are_the_same_however_they_are_cut() {
        for (name, stream) in recorded::streams() {
            let (frames, error) = decode([stream.as_slice()]);
            assert_eq!(error, None, "{name}");
            assert_eq!(frames[0], frame("auth/request", "", ""), "{name}");
            let announced = String::from_utf8_lossy(&stream).matches("Content-Type: ").count();
            assert_eq!(frames.len(), announced, "{name}");
            assert_eq!(decode(stream.chunks(1)), (frames.clone(), None), "{name}");
            for at in 0..stream.len() {
                let (one, other) = stream.split_at(at);
                assert_eq!(decode([one, other]).0, frames, "{name} at {at}");
            }
        }
    }

    #[test]
    fn reads_what_others_would_write() {
        for (stream, expected) in [
            ("Content-Type: a/b\r\n\r\n", vec![frame("a/b", "", "")]),
            ("content-type:a/b\ncontent-length: 2\n\n\n\n", vec![frame("a/b", "", "\n\n")]),
            ("\nReply-Text: +OK: 1 \nContent-Type: a/b\n\r\n", vec![frame("a/b", "+OK: 1", "")]),
            ("Content-Type: a/b\nContent-Type: c/d\nContent-Length: 0\n\n", vec![frame("a/b", "", "")]),
            (
                "Content-Length: 3\nContent-Type: a\n\nxyzContent-Type: b\n\nContent-Type: c\n",
                vec![frame("a", "", "xyz"), frame("b", "", "")],
            ),
        ] {
            assert_eq!(decode([stream.as_bytes()]), (expected.clone(), None), "{stream:?}");
            assert_eq!(decode(stream.as_bytes().chunks(1)), (expected, None), "{stream:?}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let endless = "Content-Type: a/b\n".to_owned() + &"x".repeat(MAX_HEADER);
        let ends_late = endless.clone() + "\n\n";
        let long = format!("Content-Type: a/b\nContent-Length: {}\n\n", LIMIT + 1);
        for (stream, says) in [
            (endless.as_str(), "not an event socket: no end of its header in 16384 bytes"),
            (ends_late.as_str(), "not an event socket: no end of its header in 16384 bytes"),
            ("\n\n", "not an event socket: it says \"\\n\\n\""),
            ("SSH-2.0-OpenSSH_9.2\r\n\n\n", "not an event socket: it says \"SSH-2.0-OpenSSH_9.2\\r\\n\\n\""),
            ("Content-Length: 4\n\n", "not an event socket: it says \"Content-Length: 4\\n\\n\""),
            (long.as_str(), "it announces 1048577 bytes; at most 1048576 are read"),
            ("Content-Type: a\nContent-Length: -1\n\n", "its Content-Length is no number"),
            ("Content-Type: a\nContent-Length:\n\n", "its Content-Length is no number"),
            ("Content-Type: a\nContent-Length: 99999999999999999999\n\n", "its Content-Length is no number"),
        ] {
            for stream in [vec![stream.as_bytes()], stream.as_bytes().chunks(1).collect()] {
                let (frames, error) = decode(stream);
                assert_eq!((frames.len(), error.unwrap().to_string().as_str()), (0, says));
            }
        }
    }

    #[test]
    fn an_error_stays() {
        let mut decoder = Frames::new(LIMIT);
        decoder.push(b"x\n\n");
        let error = decoder.next().unwrap_err();
        decoder.push(b"Content-Type: a\n\n");
        assert_eq!(decoder.next(), Err(error));
    }

    #[test]
    fn holds_no_more_than_it_needs() {
        let mut decoder = Frames::new(LIMIT);
        let event = format!("Content-Length: 900\nContent-Type: text/event-json\n\n{}", "x".repeat(900));
        let piece = event.repeat(7);
        for _ in 0..1_000 {
            decoder.push(&piece.as_bytes()[..6_000]);
            while decoder.next().unwrap().is_some() {}
            decoder.push(&piece.as_bytes()[6_000..]);
            while decoder.next().unwrap().is_some() {}
        }
        assert!(decoder.buffer.capacity() < 4 * piece.len(), "{}", decoder.buffer.capacity());
    }

    fn written(frame: &Frame) -> Vec<u8> {
        let reply =
            if frame.reply.is_empty() { String::new() } else { format!("Reply-Text: {}\n", frame.reply) };
        let head =
            format!("Content-Type: {}\n{reply}Content-Length: {}\n\n", frame.content_type, frame.body.len());
        [head.as_bytes(), &frame.body].concat()
    }

    prop_compose! {
        fn any_frame()(content_type in "[a-z/-]{1,20}", reply in "([+-][A-Z ]{0,10}[A-Z])?", body: Vec<u8>) -> Frame {
            Frame { content_type, reply, body }
        }
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(
            frames in proptest::collection::vec(any_frame(), 0..20),
            sizes in proptest::collection::vec(1usize..200, 1..200),
        ) {
            let stream: Vec<u8> = frames.iter().flat_map(written).collect();
            let (mut rest, mut pieces) = (stream.as_slice(), vec![]);
            for size in sizes {
                let (piece, more) = rest.split_at(size.min(rest.len()));
                pieces.push(piece);
                rest = more;
            }
            pieces.push(rest);
            prop_assert_eq!(decode(pieces), (frames, None));
        }

        #[test]
        fn garbage_is_the_same_however_it_is_cut(stream in "(Content-(Type|Length): ?[0-9a-z]{0,3}|\r|\n|\n\n|x){0,40}") {
            prop_assert_eq!(decode([stream.as_bytes()]), decode(stream.as_bytes().chunks(1)));
        }
    }
}
