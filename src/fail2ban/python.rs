//! Values as Python prints them: lists, strings, numbers, `True`, `False`, `None`.

use std::iter::Peekable;
use std::str::Chars;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    List(Vec<Value>),
    Text(String),
    /// A number, or a name like `True`, as it is printed.
    Bare(String),
}

/// Lists in lists go no deeper.
const DEEPEST: usize = 16;

impl Value {
    /// The values in a list; of anything else none.
    pub(super) fn items(&self) -> &[Self] {
        if let Self::List(items) = self { items } else { &[] }
    }

    /// The text of it; of a list none.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Text(text) | Self::Bare(text) => text.clone(),
            Self::List(_) => String::new(),
        }
    }
}

/// Reads one value; `None` if it is none, or something is behind it.
pub(super) fn parse(text: &str) -> Option<Value> {
    let mut rest = text.trim().chars().peekable();
    let value = value(&mut rest, 0)?;
    rest.next().is_none().then_some(value)
}

fn value(rest: &mut Peekable<Chars<'_>>, depth: usize) -> Option<Value> {
    let first = *rest.peek()?;
    let end = match first {
        '[' => ']',
        '(' => ')',
        '\'' | '"' => return string(rest).map(Value::Text),
        _ => {
            let mut bare = String::new();
            while let Some(c) = rest.next_if(|c| c.is_ascii_alphanumeric() || "+-._".contains(*c)) {
                bare.push(c);
            }
            return (!bare.is_empty()).then_some(Value::Bare(bare));
        }
    };
    if depth == DEEPEST {
        return None;
    }
    rest.next();
    let mut items = vec![];
    loop {
        while rest.next_if(|c| matches!(c, ' ' | ',')).is_some() {}
        if rest.next_if_eq(&end).is_some() {
            return Some(Value::List(items));
        }
        items.push(value(rest, depth + 1)?);
    }
}

fn string(rest: &mut Peekable<Chars<'_>>) -> Option<String> {
    let quote = rest.next()?;
    let mut text = String::new();
    loop {
        match rest.next()? {
            c if c == quote => return Some(text),
            '\\' => text.push(match rest.next()? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                'x' => by_number(rest, 2)?,
                'u' => by_number(rest, 4)?,
                'U' => by_number(rest, 8)?,
                c => c,
            }),
            c => text.push(c),
        }
    }
}

fn by_number(rest: &mut Peekable<Chars<'_>>, digits: usize) -> Option<char> {
    let hex: String = rest.by_ref().take(digits).collect();
    char::from_u32(u32::from_str_radix(&hex, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_values() {
        let text = |text: &str| Value::Text(text.to_owned());
        let bare = |text: &str| Value::Bare(text.to_owned());
        for (written, read) in [
            (r"'a\\d\n\x41\u00e9\''", text("a\\d\nA\u{e9}'")),
            ("\"it's\"", text("it's")),
            (
                "['a', 1, -1.5, True, []]",
                Value::List(vec![text("a"), bare("1"), bare("-1.5"), bare("True"), Value::List(vec![])]),
            ),
            ("('a',)", Value::List(vec![text("a")])),
        ] {
            assert_eq!(parse(written), Some(read), "{written}");
        }
        let deep = "[".repeat(40) + &"]".repeat(40);
        for wrong in ["", "['a'", "'a", "['a'] x", "{}", r"'\x4'", &deep] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
