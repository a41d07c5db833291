//! PPG, prompt-point generation: one answer holds the box of each target and groups of points on and off it.
//!
//! Source: arXiv 2409.10542, section 3 (PPG).

use super::CountHint;
use super::codec::{Answer, GridLabel, GridPrompt, read_answer, read_targets};
use super::cursor::{AnswerError, AnswerErrorKind, Cursor};
use super::dialect::{Dialect, check_numbers_apart};
use super::template::{DialectError, DialectErrorKind, Piece, Template};
use crate::engine::bundle;
use crate::geometry::{BBox, Grid, Point};

/// Most points of one label in a group, and most groups of a target.
const MAX_COUNT: usize = 16;
/// The slot of the label among those of a point; before it come x and y.
const LABEL: usize = 2;

/// The manifest's `[dialect.ppg]`, compiled.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PpgWords {
    query: Template,
    point: Template,
    on: String,
    off: String,
    positives: usize,
    negatives: usize,
    groups: usize,
}

impl PpgWords {
    /// # Errors
    /// Every [`DialectErrorKind`] but `Token`.
    pub(super) fn compile(words: &bundle::Ppg) -> Result<Self, DialectError> {
        let point = Template::compile("ppg.point", &words.point, &["x", "y", "label"], &[])?;
        check_numbers_apart("ppg.point", &point)?;
        let unreadable = |field, detail| Err(DialectError::new(DialectErrorKind::Unreadable, field, detail));
        let [on, off] = [&words.on, &words.off].map(|text| text.split_whitespace().collect::<String>());
        if on.is_empty() {
            return unreadable("ppg.on", "is empty");
        }
        if off.is_empty() || on.eq_ignore_ascii_case(&off) {
            return unreadable("ppg.off", "is empty or equals `on`");
        }
        let counts = [
            ("ppg.positives", words.positives, 1),
            ("ppg.negatives", words.negatives, 0),
            ("ppg.groups", words.groups, 1),
        ];
        if let Some((field, n, least)) = counts.into_iter().find(|(_, n, least)| !(*least..=MAX_COUNT).contains(n)) {
            let detail = format!("{n} is not in {least}..={MAX_COUNT}");
            return Err(DialectError::new(DialectErrorKind::Range, field, detail));
        }
        Ok(Self {
            query: Template::compile("ppg.query", &words.query, &["command"], &["hint"])?,
            point,
            on: words.on.clone(),
            off: words.off.clone(),
            positives: words.positives,
            negatives: words.negatives,
            groups: words.groups,
        })
    }
}

/// How a language model speaks PPG. Boxes, numbers, hints and the absent answer are those of its [`Dialect`].
#[derive(Debug, Clone, Copy)]
pub struct Ppg<'a> {
    dialect: &'a Dialect,
    words: &'a PpgWords,
}

impl<'a> Ppg<'a> {
    pub(super) fn new(dialect: &'a Dialect, words: &'a PpgWords) -> Self {
        Self { dialect, words }
    }

    /// The dialect that it is part of.
    pub fn dialect(&self) -> &'a Dialect {
        self.dialect
    }

    /// Points on the target in each group, `1..=16`. Source: the paper's n1, 2.
    pub fn positives(&self) -> usize {
        self.words.positives
    }

    /// Points off the target in each group, `0..=16`; they come last. Source: the paper's n2, 1.
    pub fn negatives(&self) -> usize {
        self.words.negatives
    }

    /// Groups of each target, `1..=16`. Source: the paper's k, 1.
    pub fn groups(&self) -> usize {
        self.words.groups
    }

    /// The query for a command.
    pub fn query(&self, hint: CountHint, command: &str) -> String {
        self.words.query.fill(&[command, self.dialect.hint(hint)])
    }

    /// `targets` in the model's words; without any, the absent answer.
    ///
    /// # Errors
    /// Why [`Ppg::parse`] could not read it: groups of other sizes, points on a target but outside its box, a box without area.
    pub fn write(&self, targets: &[GridPrompt]) -> Result<String, AnswerError> {
        let target = |t: &GridPrompt| {
            let points = t.groups.iter().flatten().map(|p| self.write_point(*p));
            std::iter::once(self.dialect.write_box(t.bbox)).chain(points).collect::<String>()
        };
        let text = match targets {
            [] => self.dialect.absent_answer().to_owned(),
            _ => targets.iter().map(target).collect(),
        };
        self.parse(&text).map(|_| text)
    }

    fn write_point(&self, (p, on): GridLabel) -> String {
        let label = if on { &self.words.on } else { &self.words.off };
        self.words.point.fill(&[&self.dialect.write_number(0, p.x), &self.dialect.write_number(1, p.y), label])
    }

    /// Reads the model's answer, without its end-of-answer token.
    ///
    /// Each target is a box and exactly [`Ppg::groups`] groups; in each group the points on the target come first.
    ///
    /// # Errors
    /// Every [`AnswerErrorKind`] but `Endless`.
    pub fn parse(&self, text: &str) -> Result<Answer, AnswerError> {
        let target = |cursor: &mut Cursor<'_>| {
            let bbox = cursor.bbox(self.dialect)?;
            let groups = (0..self.words.groups).map(|_| self.group(cursor, bbox)).collect::<Result<_, _>>()?;
            Ok(GridPrompt { bbox, groups })
        };
        read_answer(text, self.dialect, |cursor| read_targets(cursor, self.dialect, target))
    }

    fn group(&self, cursor: &mut Cursor<'_>, bbox: BBox<Grid>) -> Result<Vec<GridLabel>, AnswerError> {
        let total = self.words.positives + self.words.negatives;
        (0..total).map(|i| self.point(cursor, bbox, i < self.words.positives)).collect()
    }

    /// A point that is labelled as it has to be at its place: one on the target lies in `bbox`, or the answer contradicts
    /// itself; one off the target does not have to.
    fn point(&self, cursor: &mut Cursor<'_>, bbox: BBox<Grid>, on: bool) -> Result<GridLabel, AnswerError> {
        cursor.skip_space();
        let start = cursor.at();
        let mut xy = [0u32; 2];
        for piece in self.words.point.pieces() {
            match piece {
                Piece::Text(text) => cursor.literal(text)?,
                Piece::Slot(LABEL) => self.label(cursor, on)?,
                Piece::Slot(axis) => xy[*axis] = cursor.number(*axis, self.dialect)?,
            }
        }
        let point = Point::new(xy[0] as f32, xy[1] as f32);
        if on && !bbox.contains(point) {
            return Err(cursor.error_at(AnswerErrorKind::OutsideBox, start));
        }
        Ok((point, on))
    }

    fn label(&self, cursor: &mut Cursor<'_>, on: bool) -> Result<(), AnswerError> {
        cursor.skip_space();
        let start = cursor.at();
        let text = if on { &self.words.on } else { &self.words.off };
        cursor.literal(text).map_err(|error| match error.kind() {
            AnswerErrorKind::Unexpected => cursor.error_at(AnswerErrorKind::Label, start),
            _ => error,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
