//! HTML in the making, which is XML as well: what is open is closed, and foreign text gets in as text only.

use std::fmt::{Display, Write as _};

use quick_xml::escape::escape;

/// A page, or a piece of one.
#[derive(Debug, Default)]
pub(super) struct Html(String);

/// Attributes of an element. Their names are ours, their values may be anybody's.
pub(super) type Attributes<'a> = &'a [(&'static str, &'a dyn Display)];

impl Html {
    /// An element with something in it.
    pub(super) fn element(
        &mut self,
        name: &'static str,
        attributes: Attributes<'_>,
        inside: impl FnOnce(&mut Self),
    ) {
        self.tag(name, attributes, ">");
        inside(self);
        let _ = write!(self.0, "</{name}>");
    }

    /// An element with nothing but text in it.
    pub(super) fn leaf(&mut self, name: &'static str, attributes: Attributes<'_>, text: impl Display) {
        self.element(name, attributes, |html| html.text(text));
    }

    /// An element that has nothing in it.
    pub(super) fn void(&mut self, name: &'static str, attributes: Attributes<'_>) {
        self.tag(name, attributes, "/>");
    }

    /// Text, whoever wrote it.
    pub(super) fn text(&mut self, text: impl Display) {
        self.0.push_str(&escape(text.to_string()));
    }

    /// Foreign text that does not turn the direction of what is around it.
    pub(super) fn foreign(&mut self, text: impl Display) {
        self.element("bdi", &[], |html| {
            for (at, piece) in text.to_string().split('@').enumerate() {
                if at > 0 {
                    // Where it is broken, if it must be.
                    html.void("wbr", &[]);
                    html.text('@');
                }
                html.text(piece);
            }
        });
    }

    /// Our style, as its hash knows it.
    pub(super) fn style(&mut self, css: &'static str) {
        let _ = write!(self.0, "<style>{css}</style>");
    }

    /// The whole page.
    pub(super) fn into_page(self) -> String {
        format!("<!DOCTYPE html>\n{}\n", self.0)
    }

    fn tag(&mut self, name: &'static str, attributes: Attributes<'_>, end: &str) {
        let _ = write!(self.0, "<{name}");
        for (name, value) in attributes {
            let _ = write!(self.0, " {name}=\"{}\"", escape(value.to_string()));
        }
        self.0.push_str(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_text() {
        for (text, escaped) in [
            ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
            ("\"onload=\"x", "&quot;onload=&quot;x"),
            ("' onclick='", "&apos; onclick=&apos;"),
            ("]]> &lt; -->", "]]&gt; &amp;lt; --&gt;"),
            ("Müller", "Müller"),
        ] {
            let mut html = Html::default();
            html.element("p", &[("title", &text)], |html| {
                html.text(text);
                html.foreign(text);
                html.void("br", &[]);
            });
            assert_eq!(html.0, format!("<p title=\"{escaped}\">{escaped}<bdi>{escaped}</bdi><br/></p>"));
        }
    }
}
