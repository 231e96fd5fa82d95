//! Tables and counts as every tool shows them.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

pub(super) use crate::times::span;

/// Columns without lines between them. On a terminal, long text is wrapped in its column.
pub(super) struct Columns(Table);

impl Columns {
    /// A table with these titles; columns in `right` hold numbers.
    pub(super) fn new(titles: &[&str], right: &[usize]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(titles);
        if io::stdout().is_terminal()
            && let Some((width, _)) = terminal_size::terminal_size()
        {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width.0.max(60));
        }
        for (at, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if right.contains(&at) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self(table)
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.add_row(cells.into_iter().map(|cell| crate::evidence::visible(&cell)));
    }

    /// With a line break behind each row, and no blanks in front of it.
    pub(super) fn render(&self) -> String {
        self.0.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }
}

/// Prints a value as JSON, or the text that people read.
pub(super) fn print(json: bool, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    let text = if json { serde_json::to_string_pretty(value)? + "\n" } else { text() };
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}

/// So many of a thing, as people say it: `1 ban`, `2 bans`.
pub(super) fn counted<N: Copy + Display + PartialEq + From<u8>>(count: N, one: &str, many: &str) -> String {
    format!("{count} {}", if count == N::from(1) { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_are_harmless() {
        let mut columns = Columns::new(&["LIST", "IPV4"], &[1]);
        columns.row(["a".into(), "1".into()]);
        columns.row(["longer\u{1b}[31m".into(), "12345".into()]);
        assert_eq!(columns.render(), "LIST          IPV4\na                1\nlonger\u{fffd}[31m  12345\n");
    }
}
