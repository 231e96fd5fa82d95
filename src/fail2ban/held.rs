//! What fail2ban itself bans, as `fail2ban-client banned` says.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::iter::Peekable;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::str::Chars;
use std::time::Duration;

use anyhow::Context;

use crate::evidence::visible_within;
use crate::programs;

/// The ids that each jail bans now, by its name; `None` where fail2ban does not run. An error says that it does not answer within
/// `time`.
///
/// Never from one of its actions: it answers nobody while one of them runs.
pub fn held(socket: &Path, time: Duration) -> anyhow::Result<Option<BTreeMap<String, BTreeSet<String>>>> {
    if let Err(error) = UnixStream::connect(socket)
        && matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
    {
        return Ok(None);
    }
    let socket = socket.to_str().context("the path of fail2ban's socket is no text")?;
    let said = programs::run("fail2ban", "fail2ban-client", &["-s", socket, "banned"], "", time)?;
    parse(&said)
        .map(Some)
        .with_context(|| format!("fail2ban-client banned says {:?}", visible_within(&said, 60)))
}

/// Reads a list of dictionaries of lists of texts, as Python prints it.
fn parse(text: &str) -> Option<BTreeMap<String, BTreeSet<String>>> {
    let mut rest = text.trim().chars().peekable();
    let mut jails = BTreeMap::new();
    let list = list(&mut rest, |rest| {
        take(rest, '{')?;
        let name = quoted(rest)?;
        take(rest, ':')?;
        let mut ids = BTreeSet::new();
        self::list(rest, |rest| {
            ids.insert(quoted(rest)?);
            Some(())
        })?;
        take(rest, '}')?;
        jails.insert(name, ids);
        Some(())
    });
    list.filter(|()| rest.next().is_none()).map(|()| jails)
}

type Rest<'a> = Peekable<Chars<'a>>;

/// `[`, as many as there are with commas between them, and `]`.
fn list(rest: &mut Rest<'_>, mut one: impl FnMut(&mut Rest<'_>) -> Option<()>) -> Option<()> {
    take(rest, '[')?;
    while rest.next_if_eq(&']').is_none() {
        one(rest)?;
        if rest.next_if_eq(&',').is_some() {
            blanks(rest);
        } else if rest.peek() != Some(&']') {
            return None;
        }
    }
    Some(())
}

fn take(rest: &mut Rest<'_>, wanted: char) -> Option<()> {
    rest.next_if_eq(&wanted)?;
    blanks(rest);
    Some(())
}

fn blanks(rest: &mut Rest<'_>) {
    while rest.next_if_eq(&' ').is_some() {}
}

/// A text in single or double quotes. Of its escapes only those are undone that stand for one character; an id with another is no
/// address.
fn quoted(rest: &mut Rest<'_>) -> Option<String> {
    let quote = rest.next_if(|c| matches!(c, '\'' | '"'))?;
    let mut text = String::new();
    loop {
        match rest.next()? {
            '\\' => text.push(rest.next()?),
            c if c == quote => break,
            c => text.push(c),
        }
    }
    blanks(rest);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_python_prints() {
        let held = parse(
            "[{'sshd': ['192.0.2.1', '2001:db8::1']}, {'sip': []}, {\"o'neil\": [\"a'b@d\", 'x\\'\"\\\\y']}]\n",
        );
        let ids = |ids: &[&str]| ids.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let expected = [
            ("sshd", ids(&["192.0.2.1", "2001:db8::1"])),
            ("sip", ids(&[])),
            ("o'neil", ids(&["a'b@d", "x'\"\\y"])),
        ];
        assert_eq!(held.unwrap(), expected.map(|(jail, ids)| (jail.to_owned(), ids)).into());
        assert_eq!(parse("[]").unwrap(), BTreeMap::new());
        for wrong in [
            "",
            "[",
            "[{'sshd': ['1'}]",
            "[{'sshd': ['1']}] x",
            "[{'sshd': 1}]",
            "Sorry",
            "[{'a': ['1' '2']}]",
            "['",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
