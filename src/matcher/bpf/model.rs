//! What the kernel program reads in a message, written once more: a test says that both agree.

/// So much of the content is read, in bytes.
pub(super) const TEXT: usize = 2048;

/// After so many newlines, commas, quotes and backslashes nobody reads on.
const MARKS: usize = 256;

/// User and domain as they are looked up, in order; `cut`: the text goes on where nobody sees it.
pub(super) fn accounts(content: &[u8], cut: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    let text = &content[..content.len().min(TEXT)];
    let mut reader = Reader { text, cut: cut || text.len() < content.len(), marks: 0, accounts: vec![] };
    // There is no more to it where reading ends.
    let _ = reader.message();
    reader.accounts
}

/// What comes to an end with `None`: nothing more is read.
struct Reader<'a> {
    text: &'a [u8],
    cut: bool,
    marks: usize,
    accounts: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Where to go on.
enum Next {
    /// In the header.
    Here(usize),
    /// It is over, and here the next line begins.
    Line(usize),
}

use Next::{Here, Line};

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

impl Reader<'_> {
    /// Behind the end, there are newlines for ever.
    fn byte(&self, at: usize) -> u8 {
        self.text.get(at).copied().unwrap_or(b'\n')
    }

    fn is_over(&self, at: usize) -> bool {
        at >= self.text.len()
    }

    fn find(&self, from: usize, wanted: impl Fn(u8) -> bool) -> usize {
        let rest = self.text.get(from..).unwrap_or_default();
        rest.iter().position(|byte| wanted(*byte)).map_or(self.text.len().max(from), |at| from + at)
    }

    fn begins(&self, at: usize, word: &str) -> bool {
        word.bytes().enumerate().all(|(index, byte)| self.byte(at + index).eq_ignore_ascii_case(&byte))
    }

    fn mark(&mut self) -> Option<()> {
        self.marks += 1;
        (self.marks <= MARKS).then_some(())
    }

    fn message(&mut self) -> Option<()> {
        let mut at = 0;
        loop {
            let length = self.empty_line(at)?;
            if length == 0 {
                break;
            }
            self.mark()?;
            at += length;
        }
        if self.is_over(at) {
            return None;
        }
        let is_request = self.byte(at).is_ascii_alphabetic() && !self.begins(at, "sip/");
        if !is_request {
            return None;
        }
        let challenged = self.is_challenged(at);
        at = self.next_line(at)?;
        let (mut credentials, mut from) = (false, None);
        loop {
            if self.is_over(at) {
                if self.cut {
                    return None;
                }
                break;
            }
            if self.empty_line(at)? > 0 {
                break;
            }
            at = match self.header(at) {
                Some((name, value)) if name == "authorization" || name == "proxy-authorization" => {
                    credentials = true;
                    self.credentials(value)?
                }
                Some((name, value)) if name == "from" || name == "f" => {
                    from.get_or_insert(value);
                    self.next_line(value)?
                }
                _ => self.next_line(at)?,
            };
        }
        match from {
            Some(from) if challenged && !credentials => self.from(from),
            _ => None,
        }
    }

    /// Whether a server challenges everybody who sends a request of this method, and believes no From.
    fn is_challenged(&self, at: usize) -> bool {
        let end = self.find(at, |byte| is_blank(byte) || byte == b'\n');
        is_blank(self.byte(end)) && matches!(&self.text[at..end], b"REGISTER" | b"SUBSCRIBE" | b"PUBLISH")
    }

    /// How long the empty line is; 0 if there is none.
    fn empty_line(&self, at: usize) -> Option<usize> {
        if self.is_over(at) {
            return Some(0);
        }
        match (self.byte(at), self.byte(at + 1)) {
            (b'\n', _) => Some(1),
            // Nobody knows what follows.
            (b'\r', b'\n') if self.cut && self.is_over(at + 1) => None,
            (b'\r', b'\n') => Some(2),
            _ => Some(0),
        }
    }

    fn next_line(&mut self, at: usize) -> Option<usize> {
        let newline = self.find(at, |byte| byte == b'\n');
        self.mark()?;
        Some(newline + 1)
    }

    /// The name of a header in lower case, and where its value begins.
    fn header(&self, at: usize) -> Option<(String, usize)> {
        let end = self.find(at, |byte| matches!(byte, b':' | b'\n'));
        if self.byte(end) != b':' {
            return None;
        }
        let mut name = &self.text[at..end];
        while let [rest @ .., b' ' | b'\t'] = name {
            name = rest;
        }
        Some((String::from_utf8_lossy(name).to_ascii_lowercase(), end + 1))
    }

    /// Passes a newline within a header.
    fn newline(&mut self, at: usize) -> Option<Next> {
        self.mark()?;
        Some(if is_blank(self.byte(at + 1)) { Here(at + 1) } else { Line(at + 1) })
    }

    fn blanks(&mut self, mut at: usize) -> Option<Next> {
        loop {
            at = match self.byte(at) {
                b' ' | b'\t' | b'\r' => at + 1,
                b'\n' => match self.newline(at)? {
                    Here(next) => next,
                    line @ Line(_) => return Some(line),
                },
                _ => return Some(Here(at)),
            }
        }
    }

    /// The next line, behind the value of a header with credentials.
    fn credentials(&mut self, at: usize) -> Option<usize> {
        let at = match self.blanks(at)? {
            Here(at) => at,
            Line(at) => return Some(at),
        };
        let behind = self.byte(at + 6);
        if !self.begins(at, "digest") || !(is_blank(behind) || matches!(behind, b'\r' | b'\n')) {
            return self.next_line(at);
        }
        let mut found: [Option<Vec<u8>>; 2] = [None, None];
        let mut at = at + 6;
        loop {
            at = match self.parameter(at, &mut found)? {
                Here(at) => at,
                Line(at) => return Some(at),
            };
            if let [Some(user), Some(domain)] = &mut found {
                let account = (std::mem::take(user), std::mem::take(domain));
                self.look_up(account);
                return self.next_line(at);
            }
        }
    }

    /// If both parts have a length that one may have.
    fn look_up(&mut self, (user, domain): (Vec<u8>, Vec<u8>)) {
        if (1..=128).contains(&user.len()) && (1..=253).contains(&domain.len()) {
            self.accounts.push((user, domain.to_ascii_lowercase()));
        }
    }

    /// Passes a parameter, or the comma before one.
    fn parameter(&mut self, at: usize, found: &mut [Option<Vec<u8>>; 2]) -> Option<Next> {
        const NAMES: [&str; 2] = ["username", "realm"];
        let at = match self.blanks(at)? {
            Here(at) => at,
            line @ Line(_) => return Some(line),
        };
        if self.byte(at) == b',' {
            self.mark()?;
            return Some(Here(at + 1));
        }
        let Some(part) =
            [0, 1].into_iter().find(|part| found[*part].is_none() && self.begins(at, NAMES[*part]))
        else {
            return self.other(at);
        };
        let at = match self.blanks(at + NAMES[part].len())? {
            Here(at) => at,
            line @ Line(_) => return Some(line),
        };
        if self.byte(at) != b'=' {
            return self.other(at);
        }
        let at = match self.blanks(at + 1)? {
            Here(at) => at,
            line @ Line(_) => return Some(line),
        };
        if self.byte(at) != b'"' {
            let end = self.find(at, |byte| byte <= b' ' || byte == b',');
            if self.is_over(end) && self.cut {
                return None;
            }
            found[part] = Some(self.text[at..end].to_vec());
            return if found.iter().all(Option::is_some) { Some(Here(end)) } else { self.other(end) };
        }
        self.mark()?;
        let end = self.find(at + 1, |byte| matches!(byte, b'"' | b'\\' | b'\n'));
        if self.byte(end) == b'"' {
            found[part] = Some(self.text[at + 1..end].to_vec());
            self.mark()?;
            let end = end + 1;
            return if found.iter().all(Option::is_some) { Some(Here(end)) } else { self.other(end) };
        }
        // No account has that in its name.
        found[part] = Some(vec![]);
        self.mark()?;
        if found.iter().all(Option::is_some) { Some(Here(end)) } else { self.quoted(end) }
    }

    /// Passes the rest of a parameter that is of no interest.
    fn other(&mut self, mut at: usize) -> Option<Next> {
        loop {
            at = self.find(at, |byte| matches!(byte, b'"' | b',' | b'\n'));
            match self.byte(at) {
                b'\n' => match self.newline(at)? {
                    Here(next) => at = next,
                    line @ Line(_) => return Some(line),
                },
                mark => {
                    self.mark()?;
                    return if mark == b'"' { self.quoted(at + 1) } else { Some(Here(at + 1)) };
                }
            }
        }
    }

    /// The same, in quotes.
    fn quoted(&mut self, at: usize) -> Option<Next> {
        match self.quotes(at)? {
            Here(at) => self.other(at),
            line @ Line(_) => Some(line),
        }
    }

    /// What is behind the closing quotes.
    fn quotes(&mut self, mut at: usize) -> Option<Next> {
        loop {
            at = self.find(at, |byte| matches!(byte, b'"' | b'\\' | b'\n'));
            match self.byte(at) {
                b'"' => {
                    self.mark()?;
                    return Some(Here(at + 1));
                }
                b'\\' => {
                    self.mark()?;
                    at += if self.byte(at + 1) == b'\n' { 1 } else { 2 };
                }
                _ => match self.newline(at)? {
                    Here(next) => at = next,
                    line @ Line(_) => return Some(line),
                },
            }
        }
    }

    /// Looks for the address in brackets, or takes what the header begins with.
    fn from(&mut self, from: usize) -> Option<()> {
        let mut at = from;
        loop {
            at = self.find(at, |byte| matches!(byte, b'"' | b'<' | b'\n'));
            let next = match self.byte(at) {
                b'<' => {
                    self.mark()?;
                    return self.address(at + 1);
                }
                b'"' => {
                    self.mark()?;
                    self.quotes(at + 1)?
                }
                _ => self.newline(at)?,
            };
            match next {
                Here(next) => at = next,
                Line(_) => return self.address(from),
            }
        }
    }

    fn address(&mut self, at: usize) -> Option<()> {
        let at = self.blanks_of_from(at)?;
        let scheme = ["sip:", "sips:"].into_iter().find(|scheme| self.begins(at, scheme))?;
        let user = at + scheme.len();
        let user_end = self.find(user, |byte| matches!(byte, b'@' | b':' | b'>' | b'\n'));
        // Behind a colon, there is a password.
        let at = match self.byte(user_end) {
            b':' => self.find(user_end, |byte| matches!(byte, b'@' | b'>' | b'\n')),
            _ => user_end,
        };
        if self.byte(at) != b'@' {
            return None;
        }
        let domain = at + 1;
        let domain_end = if self.byte(domain) == b'[' {
            let end = self.find(domain, |byte| matches!(byte, b']' | b'>' | b'\n'));
            end + usize::from(self.byte(end) == b']')
        } else {
            self.find(domain, |byte| byte <= b' ' || b",:;>?".contains(&byte))
        };
        let user = &self.text[user..user_end];
        if user.len() <= 3 * 128 {
            self.look_up((decoded(user), self.text[domain..domain_end].to_vec()));
        }
        None
    }

    /// Where the header ends, nothing is behind.
    fn blanks_of_from(&mut self, mut at: usize) -> Option<usize> {
        loop {
            at = match self.byte(at) {
                b' ' | b'\t' | b'\r' => at + 1,
                b'\n' if is_blank(self.byte(at + 1)) => {
                    self.mark()?;
                    at + 1
                }
                b'\n' => return None,
                _ => return Some(at),
            }
        }
    }
}

/// Without percent-escapes. What is none is as it is.
fn decoded(user: &[u8]) -> Vec<u8> {
    percent_encoding::percent_decode(user).collect()
}
