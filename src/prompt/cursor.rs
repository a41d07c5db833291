//! Reading what the language model wrote, sign by sign: hostile input, read strictly, never repaired.
//!
//! White space between words, signs and numbers carries no meaning (tokenizers put it where they like), nor does
//! letter case; inside a number there is none. Nothing is guessed, completed, clamped or swapped.

use super::dialect::Dialect;
use super::template::{Piece, Template, begin_alike};
use crate::geometry::{BBox, Grid};

/// Kinds of [`AnswerError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnswerErrorKind {
    /// Nothing but white space.
    Empty,
    /// The text ends inside a target or inside the absent answer.
    Truncated,
    /// The answer did not end by itself, but was cut off at the longest that is decoded.
    Endless,
    /// Text that no answer has at this place.
    Unexpected,
    /// Something other than the dialect's fixed number of digits where a coordinate belongs.
    NotANumber,
    /// A coordinate above the dialect's scale.
    OutOfRange,
    /// A box whose second corner lies left of or above the first.
    Inverted,
    /// A box without width or height.
    Degenerate,
    /// Something other than the label that a point has at this place of its group.
    Label,
    /// A point that is on its target and outside the target's box.
    OutsideBox,
    /// A target that has a point and no box.
    NoBox,
    /// A text, a list or a run of white space that is longer than any answer needs.
    TooLong,
    /// Text after a complete answer.
    Trailing,
    /// More than [`super::MAX_BOXES`] boxes.
    TooMany,
}

/// An answer that cannot be read: why, and at which byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("parse answer at byte {at}: {}", match .kind {
    AnswerErrorKind::Empty => "empty",
    AnswerErrorKind::Truncated => "truncated",
    AnswerErrorKind::Endless => "longer than what is decoded",
    AnswerErrorKind::Unexpected => "text that no answer has here",
    AnswerErrorKind::NotANumber => "not a coordinate",
    AnswerErrorKind::OutOfRange => "coordinate out of range",
    AnswerErrorKind::Inverted => "inverted box",
    AnswerErrorKind::Degenerate => "box without area",
    AnswerErrorKind::Label => "not the label that belongs here",
    AnswerErrorKind::OutsideBox => "point on the target, outside its box",
    AnswerErrorKind::NoBox => "target with a point and no box",
    AnswerErrorKind::TooLong => "longer than any answer needs",
    AnswerErrorKind::Trailing => "text after the answer",
    AnswerErrorKind::TooMany => "too many boxes",
})]
pub struct AnswerError {
    kind: AnswerErrorKind,
    at: usize,
}

impl AnswerError {
    pub(super) fn new(kind: AnswerErrorKind, at: usize) -> Self {
        Self { kind, at }
    }

    /// The error of an answer of `bytes` bytes that was cut off there.
    pub(crate) fn endless(bytes: usize) -> Self {
        Self { kind: AnswerErrorKind::Endless, at: bytes }
    }

    /// What is wrong.
    pub fn kind(&self) -> AnswerErrorKind {
        self.kind
    }

    /// Byte offset in the answer.
    pub fn at(&self) -> usize {
        self.at
    }
}

/// The box of x1, y1, x2, y2, which begins at byte `at`: with positive width and height.
pub(super) fn checked_box([x1, y1, x2, y2]: [u32; 4], at: usize) -> Result<BBox<Grid>, AnswerError> {
    if x1 > x2 || y1 > y2 {
        return Err(AnswerError { kind: AnswerErrorKind::Inverted, at });
    }
    if x1 == x2 || y1 == y2 {
        return Err(AnswerError { kind: AnswerErrorKind::Degenerate, at });
    }
    Ok(BBox::new(x1 as f32, y1 as f32, x2 as f32, y2 as f32))
}

/// A place in an answer.
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(super) fn error(&self, kind: AnswerErrorKind) -> AnswerError {
        self.error_at(kind, self.at)
    }

    pub(super) fn error_at(&self, kind: AnswerErrorKind, at: usize) -> AnswerError {
        AnswerError { kind, at }
    }

    pub(super) fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// Consumes `literal`, white space on either side aside.
    pub(super) fn literal(&mut self, literal: &str) -> Result<(), AnswerError> {
        for expected in literal.chars().filter(|c| !c.is_whitespace()) {
            self.skip_space();
            match self.rest().chars().next() {
                Some(c) if c.eq_ignore_ascii_case(&expected) => self.at += c.len_utf8(),
                Some(_) => return Err(self.error(AnswerErrorKind::Unexpected)),
                None => return Err(self.error(AnswerErrorKind::Truncated)),
            }
        }
        Ok(())
    }

    /// Whether what begins with `template` begins here, judged by the first sign alone.
    pub(super) fn starts(&self, template: &Template) -> bool {
        matches!(template.pieces().first(), Some(Piece::Text(opening)) if self.begins(opening))
    }

    /// Whether `text` begins here, judged by the first sign alone.
    pub(super) fn begins(&self, text: &str) -> bool {
        begin_alike(text, self.rest())
    }

    /// The coordinate of slot `slot` of x, y, x, y, in `0..=` the scale of its axis.
    pub(super) fn number(&mut self, slot: usize, dialect: &Dialect) -> Result<u32, AnswerError> {
        self.skip_space();
        let rest = self.rest();
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if digits < dialect.digits() && digits == rest.len() {
            return Err(AnswerError { kind: AnswerErrorKind::Truncated, at: self.text.len() });
        }
        if digits != dialect.digits() {
            return Err(self.error(AnswerErrorKind::NotANumber));
        }
        // A dialect has at most six digits, so this cannot overflow.
        let value = rest[..digits].bytes().fold(0, |v, b| v * 10 + u32::from(b - b'0'));
        if value > dialect.scale().of_slot(slot) {
            return Err(self.error(AnswerErrorKind::OutOfRange));
        }
        self.at += digits;
        Ok(value)
    }

    /// A box with positive width and height.
    pub(super) fn bbox(&mut self, dialect: &Dialect) -> Result<BBox<Grid>, AnswerError> {
        let start = self.at;
        let mut corner = [0u32; 4];
        for piece in dialect.box_template().pieces() {
            match piece {
                Piece::Text(text) => self.literal(text)?,
                Piece::Slot(slot) => corner[*slot] = self.number(*slot, dialect)?,
            }
        }
        checked_box(corner, start)
    }

    /// Nothing but white space from here on.
    pub(super) fn end(&mut self) -> Result<(), AnswerError> {
        self.skip_space();
        if self.rest().is_empty() { Ok(()) } else { Err(self.error(AnswerErrorKind::Trailing)) }
    }
}
