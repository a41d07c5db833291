//! Texts with named slots, compiled once and filled in one pass: a value is never read for slots again.

/// Kinds of [`DialectError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DialectErrorKind {
    /// A brace is opened and not closed, or closed and not opened.
    Brace,
    /// A slot that the text needs is not there.
    MissingSlot,
    /// A slot occurs twice.
    RepeatedSlot,
    /// A slot that the text cannot have.
    UnknownSlot,
    /// The text would not be readable in an answer.
    Unreadable,
    /// A number is out of its range.
    Range,
    /// The tokenizer does not cut the text where the codec has to cut it.
    Token,
}

/// A dialect cannot be spoken: which field, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("compile dialect, field `{field}`: {detail}")]
pub struct DialectError {
    kind: DialectErrorKind,
    field: &'static str,
    detail: String,
}

impl DialectError {
    pub(crate) fn new(kind: DialectErrorKind, field: &'static str, detail: impl Into<String>) -> Self {
        Self { kind, field, detail: detail.into() }
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> DialectErrorKind {
        self.kind
    }

    /// The field of the manifest's `[dialect]` at fault.
    pub fn field(&self) -> &'static str {
        self.field
    }
}

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Literal text, never empty.
    Text(String),
    /// The slot of this index among the slots the template was compiled for.
    Slot(usize),
}

/// A text with slots, each of which occurs at most once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    pieces: Vec<Piece>,
}

impl Template {
    /// Compiles `text`, in which each of `required` must occur exactly once as `{name}`, each of `optional` at most
    /// once. Slots are numbered in this order.
    pub(crate) fn compile(
        field: &'static str,
        text: &str,
        required: &[&str],
        optional: &[&str],
    ) -> Result<Self, DialectError> {
        let slots = [required, optional].concat();
        let error = |kind, detail: String| DialectError::new(kind, field, detail);
        let (mut pieces, mut seen, mut rest) = (Vec::new(), vec![false; slots.len()], text);
        while let Some(at) = rest.find(['{', '}']) {
            let Some(inner) = rest[at..].strip_prefix('{') else {
                return Err(error(DialectErrorKind::Brace, "closes a brace that is not open".into()));
            };
            let Some(end) = inner.find('}') else {
                return Err(error(DialectErrorKind::Brace, "leaves a brace open".into()));
            };
            let name = &inner[..end];
            let Some(slot) = slots.iter().position(|s| *s == name) else {
                return Err(error(DialectErrorKind::UnknownSlot, format!("cannot hold `{{{name}}}`")));
            };
            if std::mem::replace(&mut seen[slot], true) {
                return Err(error(DialectErrorKind::RepeatedSlot, format!("holds `{{{name}}}` twice")));
            }
            if at > 0 {
                pieces.push(Piece::Text(rest[..at].to_owned()));
            }
            pieces.push(Piece::Slot(slot));
            rest = &inner[end + 1..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        match seen[..required.len()].iter().position(|s| !s) {
            Some(slot) => Err(error(DialectErrorKind::MissingSlot, format!("lacks `{{{}}}`", slots[slot]))),
            None => Ok(Self { pieces }),
        }
    }

    /// The parts, in order.
    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The text with `values[i]` in slot `i`.
    pub(crate) fn fill(&self, values: &[&str]) -> String {
        self.pieces.iter().fold(String::new(), |mut out, piece| {
            out.push_str(match piece {
                Piece::Text(text) => text,
                Piece::Slot(slot) => values[*slot],
            });
            out
        })
    }
}

/// Whether two texts begin with the same sign, white space and case aside: the first sign decides how an answer is read.
pub(super) fn begin_alike(a: &str, b: &str) -> bool {
    let first = |text: &str| text.trim_start().chars().next();
    first(a).zip(first(b)).is_some_and(|(a, b)| a.eq_ignore_ascii_case(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_slots_in_one_pass() {
        let t = Template::compile("t", "a {x} b {y}", &["y"], &["x", "z"]).expect("valid");
        assert_eq!(t.fill(&["2", "{y}", "3"]), "a {y} b 2");
    }

    #[test]
    fn refuses_every_malformed_template() {
        let cases = [
            ("a {x", DialectErrorKind::Brace),
            ("a x}", DialectErrorKind::Brace),
            ("a", DialectErrorKind::MissingSlot),
            ("{x}{x}", DialectErrorKind::RepeatedSlot),
            ("{x}{z}", DialectErrorKind::UnknownSlot),
        ];
        for (text, kind) in cases {
            let error = Template::compile("t", text, &["x"], &[]).expect_err(text);
            assert_eq!(error.kind(), kind, "{text}");
        }
    }
}
