//! Boxes and points to text, and the model's answer back to boxes: hostile input, read strictly, never repaired.

use super::dialect::Dialect;
use super::template::{Piece, Template};
use crate::geometry::{BBox, Grid, Point};

/// Most boxes in one answer; a model that writes more is babbling.
pub const MAX_BOXES: usize = 32;

/// What the model answered in round 1.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// At least one box, at most [`MAX_BOXES`], each with positive width and height, in the model's order.
    Boxes(Vec<BBox<Grid>>),
    /// The dialect's sentence for "there is no such object".
    Absent,
}

/// Kinds of [`AnswerError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnswerErrorKind {
    /// Nothing but white space.
    Empty,
    /// The text ends inside a box or inside the absent answer.
    Truncated,
    /// Text that neither a box nor the absent answer has at this place.
    Unexpected,
    /// Something other than the dialect's fixed number of digits where a coordinate belongs.
    NotANumber,
    /// A coordinate above the dialect's scale.
    OutOfRange,
    /// A box whose second corner lies left of or above the first.
    Inverted,
    /// A box without width or height.
    Degenerate,
    /// Text after a complete answer.
    Trailing,
    /// More than [`MAX_BOXES`] boxes.
    TooMany,
}

/// An answer that cannot be read: why, and at which byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("parse answer at byte {at}: {}", match .kind {
    AnswerErrorKind::Empty => "empty",
    AnswerErrorKind::Truncated => "truncated",
    AnswerErrorKind::Unexpected => "neither a box nor the absent answer",
    AnswerErrorKind::NotANumber => "not a coordinate",
    AnswerErrorKind::OutOfRange => "coordinate out of range",
    AnswerErrorKind::Inverted => "inverted box",
    AnswerErrorKind::Degenerate => "box without area",
    AnswerErrorKind::Trailing => "text after the answer",
    AnswerErrorKind::TooMany => "too many boxes",
})]
pub struct AnswerError {
    kind: AnswerErrorKind,
    at: usize,
}

impl AnswerError {
    /// What is wrong.
    pub fn kind(&self) -> AnswerErrorKind {
        self.kind
    }

    /// Byte offset in the answer.
    pub fn at(&self) -> usize {
        self.at
    }
}

impl Dialect {
    /// A coordinate as the model writes it: rounded, clamped to the scale, zero-padded.
    pub(crate) fn write_number(&self, value: f32) -> String {
        let value = value.round().clamp(0.0, self.scale().0 as f32) as u32;
        format!("{value:0width$}", width = self.digits())
    }

    /// A box in the model's words.
    pub fn write_box(&self, b: BBox<Grid>) -> String {
        let numbers = [b.x1, b.y1, b.x2, b.y2].map(|v| self.write_number(v));
        self.box_template().fill(&numbers.each_ref().map(String::as_str))
    }

    /// A point in the model's words.
    pub fn write_point(&self, p: Point<Grid>) -> String {
        self.point_template().fill(&[&self.write_number(p.x), &self.write_number(p.y)])
    }
}

/// Reads the model's round-1 answer, without its end-of-answer token.
///
/// White space between words, signs and numbers carries no meaning (tokenizers put it where they like), nor does
/// letter case; inside a number there is none. Nothing is guessed, completed, clamped or swapped.
///
/// # Errors
/// Every [`AnswerErrorKind`].
pub fn parse_answer(text: &str, dialect: &Dialect) -> Result<Answer, AnswerError> {
    let mut cursor = Cursor { text, at: 0 };
    cursor.skip_space();
    if cursor.rest().is_empty() {
        return Err(cursor.error(AnswerErrorKind::Empty));
    }
    if !starts_box(&cursor, dialect.box_template()) {
        cursor.literal(dialect.absent_answer())?;
        return cursor.end().map(|()| Answer::Absent);
    }
    let mut boxes = Vec::new();
    while starts_box(&cursor, dialect.box_template()) {
        if boxes.len() == MAX_BOXES {
            return Err(cursor.error(AnswerErrorKind::TooMany));
        }
        boxes.push(cursor.bbox(dialect)?);
        cursor.skip_space();
    }
    cursor.end().map(|()| Answer::Boxes(boxes))
}

/// Whether a box begins here, judged by the first sign of the template.
fn starts_box(cursor: &Cursor<'_>, template: &Template) -> bool {
    let Some(Piece::Text(opening)) = template.pieces().first() else { return false };
    match (opening.trim_start().chars().next(), cursor.rest().chars().next()) {
        (Some(a), Some(b)) => a.eq_ignore_ascii_case(&b),
        _ => false,
    }
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn error(&self, kind: AnswerErrorKind) -> AnswerError {
        AnswerError { kind, at: self.at }
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// Consumes `literal`, white space on either side aside.
    fn literal(&mut self, literal: &str) -> Result<(), AnswerError> {
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

    fn number(&mut self, dialect: &Dialect) -> Result<u32, AnswerError> {
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
        if value > dialect.scale().0 {
            return Err(self.error(AnswerErrorKind::OutOfRange));
        }
        self.at += digits;
        Ok(value)
    }

    fn bbox(&mut self, dialect: &Dialect) -> Result<BBox<Grid>, AnswerError> {
        let start = self.at;
        let mut corner = [0u32; 4];
        for piece in dialect.box_template().pieces() {
            match piece {
                Piece::Text(text) => self.literal(text)?,
                Piece::Slot(slot) => corner[*slot] = self.number(dialect)?,
            }
        }
        let [x1, y1, x2, y2] = corner;
        if x1 > x2 || y1 > y2 {
            return Err(AnswerError { kind: AnswerErrorKind::Inverted, at: start });
        }
        if x1 == x2 || y1 == y2 {
            return Err(AnswerError { kind: AnswerErrorKind::Degenerate, at: start });
        }
        Ok(BBox::new(x1 as f32, y1 as f32, x2 as f32, y2 as f32))
    }

    fn end(&mut self) -> Result<(), AnswerError> {
        self.skip_space();
        if self.rest().is_empty() { Ok(()) } else { Err(self.error(AnswerErrorKind::Trailing)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::geometry::{Size, SourcePx};
    use crate::prompt::dialect::tests::{tabletop, words};

    fn boxes(list: &[(u32, u32, u32, u32)]) -> Answer {
        Answer::Boxes(list.iter().map(|&(a, b, c, d)| BBox::new(a as f32, b as f32, c as f32, d as f32)).collect())
    }

    #[test]
    fn reads_what_the_dialect_allows() {
        let d = tabletop();
        let cases = [
            ("[281,240,863,999]", boxes(&[(281, 240, 863, 999)])),
            ("[ 281 , 240 , 863 , 999 ]", boxes(&[(281, 240, 863, 999)])),
            ("[000,000,001,001][002,003,004,005]", boxes(&[(0, 0, 1, 1), (2, 3, 4, 5)])),
            (" no such object ", Answer::Absent),
            ("No  such object", Answer::Absent),
        ];
        for (text, answer) in cases {
            assert_eq!(parse_answer(text, &d), Ok(answer), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else_with_its_place() {
        use AnswerErrorKind::*;
        let d = tabletop();
        let many = "[000,000,001,001]".repeat(MAX_BOXES + 1);
        let cases = [
            ("", Empty, 0),
            (" \n", Empty, 2),
            ("[281,240,863,9", Truncated, 14),
            ("[281,240,863,", Truncated, 13),
            ("[281,240,863,999", Truncated, 16),
            ("[", Truncated, 1),
            ("no such", Truncated, 7),
            ("no thing", Unexpected, 3),
            ("the mug is here", Unexpected, 0),
            ("[281;240,863,999]", Unexpected, 4),
            ("[281,240,863,99]", NotANumber, 13),
            ("[281,240,863,0999]", NotANumber, 13),
            ("[281,2 40,863,999]", NotANumber, 5),
            ("[-81,240,863,999]", NotANumber, 1),
            ("[２81,240,863,999]", NotANumber, 1),
            ("[<unk>,240,863,999]", NotANumber, 1),
            ("[863,240,281,999]", Inverted, 0),
            ("[281,999,863,240]", Inverted, 0),
            ("[281,240,281,999]", Degenerate, 0),
            ("[281,240,863,999] mug", Trailing, 18),
            ("[281,240,863,999]no such object", Trailing, 17),
            ("no such object [281,240,863,999]", Trailing, 15),
            ("[281,240,863,999][", Truncated, 18),
            (&many, TooMany, 17 * MAX_BOXES),
        ];
        for (text, kind, at) in cases {
            let error = parse_answer(text, &d).expect_err(text);
            assert_eq!((error.kind(), error.at()), (kind, at), "{text}");
        }
        let narrow = words(|w| w.coordinate_scale = 500);
        assert_eq!(parse_answer("[001,002,501,400]", &narrow).expect_err("501 > 500").kind(), OutOfRange);
    }

    proptest! {
        #[test]
        fn arbitrary_answers_never_panic(text in ".{0,80}") {
            let _ = parse_answer(&text, &tabletop());
        }

        #[test]
        fn answer_like_text_never_panics_and_never_yields_a_bad_box(text in "(\\[|[0-9]{1,4}|,|\\]| |no|such|é){0,24}") {
            if let Ok(Answer::Boxes(boxes)) = parse_answer(&text, &tabletop()) {
                prop_assert!(!boxes.is_empty() && boxes.len() <= MAX_BOXES);
                for b in boxes {
                    prop_assert!(b.x1 >= 0.0 && b.x1 < b.x2 && b.x2 <= 999.0);
                    prop_assert!(b.y1 >= 0.0 && b.y1 < b.y2 && b.y2 <= 999.0);
                }
            }
        }

        #[test]
        fn source_box_round_trips_within_half_a_grid_step(
            (w, h) in (32u32..4000, 32u32..4000),
            (a, b, c, d) in (0.0f32..1.0, 0.0f32..1.0, 0.0f32..1.0, 0.0f32..1.0),
        ) {
            prop_assume!((a - c).abs() > 0.002 && (b - d).abs() > 0.002);
            let dialect = tabletop();
            let size = Size::<SourcePx>::new(w, h);
            let (fw, fh) = (w as f32, h as f32);
            let bbox = BBox::<SourcePx>::new(a * fw, b * fh, c * fw, d * fh);
            let text = dialect.write_box(dialect.scale().bbox_to_grid(bbox, size));
            let Ok(Answer::Boxes(read)) = parse_answer(&text, &dialect) else { panic!("unreadable {text}") };
            let back = dialect.scale().bbox_to_source(read[0], size);
            // Half a step, and the rounding of f32.
            let (sx, sy) = (fw / 999.0 * 0.501, fh / 999.0 * 0.501);
            prop_assert!((back.x1 - bbox.x1).abs() <= sx && (back.x2 - bbox.x2).abs() <= sx);
            prop_assert!((back.y1 - bbox.y1).abs() <= sy && (back.y2 - bbox.y2).abs() <= sy);
        }
    }
}
