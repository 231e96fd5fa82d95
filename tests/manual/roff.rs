//! Text as roff writes it: man(7).

/// A source line is broken behind so many bytes, where it may be.
const WIDTH: usize = 120;

/// Names are not hyphenated, and lines not stretched: both make them hard to copy.
pub const COPIABLE: &str = ".nh\n.ad l\n";

/// Text where each character stands for itself, to be copied from the page as it is.
pub fn literal(text: &str) -> String {
    let mut roff = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => roff.push_str("\\e"),
            '-' => roff.push_str("\\-"),
            '\'' => roff.push_str("\\(aq"),
            '`' => roff.push_str("\\(ga"),
            '^' => roff.push_str("\\(ha"),
            '~' => roff.push_str("\\(ti"),
            c => roff.push(c),
        }
    }
    roff
}

/// In bold: what is typed as it is.
pub fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", literal(text))
}

/// In italics: what something else is put in place of.
pub fn italic(text: &str) -> String {
    format!("\\fI{}\\fR", literal(text))
}

/// A sentence of the help, or of a comment, with a full stop.
///
/// Bold are what is in backticks, options, and names of manual pages; the names of `values` are in italics.
pub fn prose(text: &str, values: &[String]) -> String {
    let mut roff = String::new();
    for (index, part) in text.split('`').enumerate() {
        if index % 2 == 1 {
            roff.push_str(&bold(part));
        } else {
            let words: Vec<_> = part.split(' ').map(|word| marked(word, values)).collect();
            roff.push_str(&words.join(" "));
        }
    }
    if !roff.ends_with(['.', ':', '!', '?']) && !roff.ends_with(".)") {
        roff.push('.');
    }
    filled(&roff)
}

/// A word with the marks that it needs.
fn marked(word: &str, values: &[String]) -> String {
    if word == "-" {
        return "\\(en".to_owned();
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let open = word.len() - word.trim_start_matches(['(', '"', '[']).len();
    let (before, rest) = word.split_at(open);
    let (inner, after) = rest.split_at(rest.trim_end_matches([',', ';', ':', '.', ')', ']', '"', '?']).len());
    if let Some((name, section)) = inner.split_once('(')
        && section.len() == 1
        && section.bytes().all(|byte| byte.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(is_name)
    {
        return format!("{}{}({section}{}", plain(before), bold(name), plain(after));
    }
    let is_option =
        inner.strip_prefix("--").is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()));
    if is_option {
        let end = inner.find(|c: char| !is_name(c)).unwrap_or(inner.len());
        return format!("{}{}{}{}", plain(before), bold(&inner[..end]), plain(&inner[end..]), plain(after));
    }
    if values.iter().any(|value| value == inner) {
        return format!("{}{}{}", plain(before), italic(inner), plain(after));
    }
    plain(word)
}

/// Running text: as [`literal`], but an apostrophe is one.
fn plain(text: &str) -> String {
    literal(text).replace("\\(aq", "'")
}

/// Text in lines of the usual length, none of which is taken for a request.
fn filled(text: &str) -> String {
    let mut lines: Vec<String> = vec![];
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    for line in &mut lines {
        if line.starts_with(['.', '\'']) {
            line.insert_str(0, "\\&");
        }
    }
    lines.join("\n")
}

#[test]
fn what_is_typed_is_bold_and_can_be_copied() {
    let values = ["TIME".to_owned()];
    for (text, roff) in [
        ("Take it back unless `confirm` comes", "Take it back unless \\fBconfirm\\fR comes."),
        ("With --probe, as (see tc-bpf(8))", "With \\fB\\-\\-probe\\fR, as (see \\fBtc\\-bpf\\fR(8))."),
        ("For TIME; one's", "For \\fITIME\\fR; one's."),
        (".prom is its end\\", "\\&.prom is its end\\e."),
    ] {
        assert_eq!(prose(text, &values), roff);
    }
}
