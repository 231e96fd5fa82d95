//! Tables of the page.

use super::chart;
use super::html::Html;
use super::words::grouped;

/// A row with a bar.
pub(super) struct Share {
    pub(super) name: String,
    pub(super) more: String,
    pub(super) class: &'static str,
    pub(super) count: u64,
}

/// A table of rows with bars, each as long as its count is of the largest.
pub(super) fn shares(html: &mut Html, [what, count]: [&str; 2], rows: &[Share]) {
    let longest = rows.iter().map(|row| row.count).max().unwrap_or(0);
    html.element("table", &[], |html| {
        html.element("thead", &[], |html| {
            html.element("tr", &[], |html| {
                head(html, what, false);
                html.leaf("td", &[("class", &"share")], "");
                head(html, count, true);
            });
        });
        html.element("tbody", &[], |html| {
            for row in rows {
                html.element("tr", &[], |html| {
                    html.element("th", &[("scope", &"row")], |html| {
                        html.foreign(&row.name);
                        if !row.more.is_empty() {
                            html.leaf("small", &[], &row.more);
                        }
                    });
                    html.element("td", &[("class", &"share")], |html| {
                        chart::bar(html, row.class, row.count, longest);
                    });
                    number(html, row.count);
                });
            }
        });
    });
}

/// A table with titles; those of columns of numbers are marked.
pub(super) fn table(html: &mut Html, name: &str, titles: &[(&str, bool)], rows: impl FnOnce(&mut Html)) {
    html.element("table", &[("aria-label", &name)], |html| {
        html.element("thead", &[], |html| {
            html.element("tr", &[], |html| {
                for (title, is_number) in titles {
                    head(html, title, *is_number);
                }
            });
        });
        html.element("tbody", &[], rows);
    });
}

fn head(html: &mut Html, title: &str, is_number: bool) {
    if is_number {
        html.leaf("th", &[("scope", &"col"), ("class", &"number")], title);
    } else {
        html.leaf("th", &[("scope", &"col")], title);
    }
}

pub(super) fn number(html: &mut Html, number: u64) {
    html.leaf("td", &[("class", &"number")], grouped(number));
}
