//! Text that cannot break out: whatever is not written in this program's own source is escaped.

use std::fmt::{Display, Write as _};

/// A page under construction.
///
/// Names of elements and attributes are `&'static str`; every value and every text goes through [`Escaped`]. There is no
/// way to put text from a data set or a model into it as it is.
#[derive(Debug, Default)]
pub(crate) struct Page(String);

/// Attributes of an element.
pub(crate) type Attributes<'a> = &'a [(&'static str, &'a dyn Display)];

impl Page {
    /// Markup of the program's own.
    pub(crate) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// A text.
    pub(crate) fn text(&mut self, text: impl Display) -> &mut Self {
        let _ = write!(Escaped(&mut self.0), "{text}");
        self
    }

    /// Opens an element.
    pub(crate) fn open(&mut self, name: &'static str, attributes: Attributes<'_>) -> &mut Self {
        self.raw("<").raw(name);
        for (key, value) in attributes {
            self.raw(" ").raw(key).raw("=\"").text(value).raw("\"");
        }
        self.raw(">")
    }

    /// Closes an element.
    pub(crate) fn close(&mut self, name: &'static str) -> &mut Self {
        self.raw("</").raw(name).raw(">")
    }

    /// An element with a text.
    pub(crate) fn element(&mut self, name: &'static str, attributes: Attributes<'_>, text: impl Display) -> &mut Self {
        self.open(name, attributes).text(text).close(name)
    }

    /// A row of a table: its name, then its cells.
    pub(crate) fn row(&mut self, name: &str, cells: &[String]) {
        self.raw("<tr>").element("th", &[("scope", &"row")], name);
        for cell in cells {
            self.element("td", &[], cell);
        }
        self.raw("</tr>\n");
    }

    /// A table that may be wider than its place; the first cell of a row names it.
    pub(crate) fn table<'c>(
        &mut self,
        columns: impl IntoIterator<Item = &'c str>,
        rows: impl IntoIterator<Item = Vec<String>>,
    ) {
        self.raw("<div class=\"wide\"><table><thead><tr>");
        for column in columns {
            self.element("th", &[], column);
        }
        self.raw("</tr></thead><tbody>\n");
        for row in rows {
            if let Some((first, rest)) = row.split_first() {
                self.row(first, rest);
            }
        }
        self.raw("</tbody></table></div>\n");
    }

    /// The markup.
    pub(crate) fn finish(self) -> String {
        self.0
    }
}

/// Writes with everything replaced that HTML or SVG could take for markup, in texts and in quoted attributes.
struct Escaped<'a>(&'a mut String);

impl std::fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                // Not allowed in a page, nor able to say anything in one.
                c if c.is_control() && c != '\n' && c != '\t' => self.0.push('\u{FFFD}'),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

/// Base64 with padding. Source: RFC 4648, section 4.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let group = at(0) << 16 | at(1) << 8 | at(2);
        for i in 0..4 {
            let digit = ALPHABET[(group >> (18 - 6 * i) & 63) as usize];
            out.push(if i > chunk.len() { '=' } else { char::from(digit) });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_breaks_out_of_texts_and_attributes() {
        let evil = "\"><script>alert('&')</script>\u{0}";
        let safe = "&quot;&gt;&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;\u{FFFD}";
        let mut page = Page::default();
        page.element("p", &[("title", &evil)], evil);
        assert_eq!(page.finish(), format!("<p title=\"{safe}\">{safe}</p>"));
    }

    /// The vectors of RFC 4648, section 10.
    #[test]
    fn base64_is_that_of_the_standard() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (text, code) in cases {
            assert_eq!(base64(text.as_bytes()), code, "{text}");
        }
        assert_eq!(base64(&[0xFB, 0xFF, 0xBF]), "+/+/");
    }
}
