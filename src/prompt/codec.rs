//! Boxes and points to text, and the model's round-1 answer back to boxes.

use super::Prompt;
use super::cursor::{AnswerError, AnswerErrorKind, Cursor};
use super::dialect::Dialect;
use crate::geometry::{BBox, Grid, GridScale, Point, Size, SourcePx};

/// Most boxes in one answer; a model that writes more is babbling.
pub const MAX_BOXES: usize = 32;

/// A point of the grid, and whether it is on the target.
pub type GridLabel = (Point<Grid>, bool);

/// A target in the model's coordinates: what SAM is prompted with, before it becomes pixels or text.
///
/// Source: arXiv 2409.10542, section 3.2 (Prompt_B and Prompt_P).
#[derive(Debug, Clone, PartialEq)]
pub struct GridPrompt {
    /// The box, with positive width and height.
    pub bbox: BBox<Grid>,
    /// Groups of points in the box; each is a prompt of its own, with the box. Empty where the box is all.
    pub groups: Vec<Vec<GridLabel>>,
}

/// What the model answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// At least one target, at most [`MAX_BOXES`], in the model's order.
    Targets(Vec<GridPrompt>),
    /// The dialect's sentence for "there is no such object".
    Absent,
}

impl GridPrompt {
    /// What SAM is given for it on a frame of `size`: the box with each group, or alone where there are no groups.
    pub fn prompts(&self, scale: GridScale, size: Size<SourcePx>) -> Vec<Prompt> {
        let bbox = Some(scale.bbox_to_source(self.bbox, size));
        let point = |(p, on): &GridLabel| (scale.to_source(*p, size), *on);
        let prompt = |group: &Vec<GridLabel>| Prompt { bbox, points: group.iter().map(point).collect() };
        match &self.groups[..] {
            [] => vec![Prompt { bbox, points: Vec::new() }],
            groups => groups.iter().map(prompt).collect(),
        }
    }
}

impl Dialect {
    /// The coordinate in slot `slot` of x, y, x, y as the model writes it: rounded, clamped to the scale, and zero-padded
    /// but in JSON.
    pub(crate) fn write_number(&self, slot: usize, value: f32) -> String {
        let value = value.round().clamp(0.0, self.scale().of_slot(slot) as f32) as u32;
        let width = if self.json().is_some() { 1 } else { self.digits() };
        format!("{value:0width$}")
    }

    /// The coordinates of a box as the model writes them.
    pub(super) fn write_corners(&self, b: BBox<Grid>) -> [String; 4] {
        let corners = [b.x1, b.y1, b.x2, b.y2];
        std::array::from_fn(|slot| self.write_number(slot, corners[slot]))
    }

    /// A box in the model's words.
    pub fn write_box(&self, b: BBox<Grid>) -> String {
        self.box_template().fill(&self.write_corners(b).each_ref().map(String::as_str))
    }

    /// A round-1 answer that names `targets` by their boxes; in JSON under the label `label`, with their points. Without
    /// any it is the absent answer.
    pub fn write_answer(&self, targets: &[GridPrompt], label: &str) -> String {
        match self.json() {
            Some(json) => json.write(targets, label, self),
            None if targets.is_empty() => self.absent_answer().to_owned(),
            None => targets.iter().map(|target| self.write_box(target.bbox)).collect(),
        }
    }

    /// A point in the model's words.
    pub fn write_point(&self, p: Point<Grid>) -> String {
        self.point_template().fill(&[&self.write_number(0, p.x), &self.write_number(1, p.y)])
    }
}

/// Reads the model's round-1 answer, without its end-of-answer token: boxes, in JSON also with points on the target, or the
/// absent answer. Where boxes are counted up to the target only the last of them is one.
///
/// # Errors
/// Every [`AnswerErrorKind`] but `Label`, which takes points off a target, and `Endless`.
pub fn parse_answer(text: &str, dialect: &Dialect) -> Result<Answer, AnswerError> {
    if dialect.json().is_some() {
        return super::json::parse(text, dialect);
    }
    read_answer(text, dialect, |cursor| {
        let target = |cursor: &mut Cursor<'_>| Ok(GridPrompt { bbox: cursor.bbox(dialect)?, groups: Vec::new() });
        let mut targets = read_targets(cursor, dialect, target)?;
        if let (Some(sign), [counted]) = (dialect.count_on(), &mut targets[..]) {
            counted.bbox = read_counted(cursor, counted.bbox, sign, dialect)?;
        }
        Ok(targets)
    })
}

/// Reads the absent answer, or `targets` up to the end of the text, which begin with a box.
pub(super) fn read_answer(
    text: &str,
    dialect: &Dialect,
    targets: impl FnOnce(&mut Cursor<'_>) -> Result<Vec<GridPrompt>, AnswerError>,
) -> Result<Answer, AnswerError> {
    let mut cursor = Cursor::new(text);
    cursor.skip_space();
    if cursor.rest().is_empty() {
        return Err(cursor.error(AnswerErrorKind::Empty));
    }
    if !cursor.starts(dialect.box_template()) {
        cursor.literal(dialect.absent_answer())?;
        return cursor.end().map(|()| Answer::Absent);
    }
    let targets = targets(&mut cursor)?;
    cursor.end().map(|()| Answer::Targets(targets))
}

/// Reads targets, each of which begins with a box, as long as there are any.
pub(super) fn read_targets(
    cursor: &mut Cursor<'_>,
    dialect: &Dialect,
    target: impl Fn(&mut Cursor<'_>) -> Result<GridPrompt, AnswerError>,
) -> Result<Vec<GridPrompt>, AnswerError> {
    let mut targets = Vec::new();
    while cursor.starts(dialect.box_template()) {
        if targets.len() == MAX_BOXES {
            return Err(cursor.error(AnswerErrorKind::TooMany));
        }
        targets.push(target(cursor)?);
        cursor.skip_space();
    }
    Ok(targets)
}

/// Goes on counting from the box `last`, as long as `sign` stands between boxes: the last one, which is meant.
fn read_counted(
    cursor: &mut Cursor<'_>,
    mut last: BBox<Grid>,
    sign: &str,
    dialect: &Dialect,
) -> Result<BBox<Grid>, AnswerError> {
    let mut counted = 1;
    while cursor.begins(sign) {
        if counted == MAX_BOXES {
            return Err(cursor.error(AnswerErrorKind::TooMany));
        }
        cursor.literal(sign)?;
        last = cursor.bbox(dialect)?;
        cursor.skip_space();
        counted += 1;
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::prompt::dialect::tests::{tabletop, words};

    fn boxes(list: &[(u32, u32, u32, u32)]) -> Answer {
        let bbox = |&(a, b, c, d): &(u32, u32, u32, u32)| BBox::new(a as f32, b as f32, c as f32, d as f32);
        Answer::Targets(list.iter().map(|b| GridPrompt { bbox: bbox(b), groups: Vec::new() }).collect())
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

    #[test]
    fn of_boxes_that_are_counted_the_last_is_meant() {
        let counting = words(|w| w.count_on = Some(", ".into()));
        let [a, b, c] = ["[000,000,001,001]", "[002,003,004,005]", "[281,240,863,999]"];
        for text in [format!("{a},{b},{c}"), format!(" {a} , {b} ,{c} "), c.to_owned()] {
            assert_eq!(parse_answer(&text, &counting), Ok(boxes(&[(281, 240, 863, 999)])), "{text}");
        }
        assert_eq!(parse_answer(&format!("{a}{b}"), &counting), Ok(boxes(&[(0, 0, 1, 1), (2, 3, 4, 5)])));
        use AnswerErrorKind::*;
        let many = [a; MAX_BOXES + 1].join(",");
        let cases = [
            (format!("{a},"), Truncated, 18),
            (format!("{a},,{b}"), Unexpected, 18),
            (format!("{a},no such object"), Unexpected, 18),
            // One that is counted is one: several cannot be.
            (format!("{a},{b}{c}"), Trailing, 35),
            (format!("{a}{b},{c}"), Trailing, 34),
            (many.clone(), TooMany, 18 * MAX_BOXES - 1),
        ];
        for (text, kind, at) in cases {
            let error = parse_answer(&text, &counting).expect_err(&text);
            assert_eq!((error.kind(), error.at()), (kind, at), "{text}");
        }
        assert_eq!(parse_answer(&format!("{a},{b}"), &tabletop()).expect_err("does not count").kind(), Trailing);
    }

    #[test]
    fn a_target_is_one_prompt_a_group() {
        let size = Size::new(1998, 999);
        let label = |x: f32, y: f32, on| (Point::new(x, y), on);
        let mut target = GridPrompt { bbox: BBox::new(10.0, 20.0, 30.0, 40.0), groups: Vec::new() };
        let bbox = Some(BBox::new(20.0, 20.0, 60.0, 40.0));
        assert_eq!(target.prompts(GridScale::square(999), size), [Prompt { bbox, points: Vec::new() }]);
        target.groups = vec![vec![label(11.0, 21.0, true), label(12.0, 22.0, false)], vec![label(13.0, 23.0, true)]];
        let points = [
            vec![(Point::new(22.0, 21.0), true), (Point::new(24.0, 22.0), false)],
            vec![(Point::new(26.0, 23.0), true)],
        ];
        assert_eq!(target.prompts(GridScale::square(999), size), points.map(|points| Prompt { bbox, points }));
    }

    proptest! {
        #[test]
        fn arbitrary_answers_never_panic(text in ".{0,80}") {
            let _ = parse_answer(&text, &tabletop());
        }

        #[test]
        fn answer_like_text_never_panics_and_never_yields_a_bad_box(text in "(\\[|[0-9]{1,4}|,|\\]| |no|such|é){0,24}") {
            if let Ok(Answer::Targets(boxes)) = parse_answer(&text, &tabletop()) {
                prop_assert!(!boxes.is_empty() && boxes.len() <= MAX_BOXES);
                for GridPrompt { bbox: b, .. } in boxes {
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
            let Ok(Answer::Targets(read)) = parse_answer(&text, &dialect) else { panic!("unreadable {text}") };
            let back = dialect.scale().bbox_to_source(read[0].bbox, size);
            // Half a step, and the rounding of f32.
            let (sx, sy) = (fw / 999.0 * 0.501, fh / 999.0 * 0.501);
            prop_assert!((back.x1 - bbox.x1).abs() <= sx && (back.x2 - bbox.x2).abs() <= sx);
            prop_assert!((back.y1 - bbox.y1).abs() <= sy && (back.y2 - bbox.y2).abs() <= sy);
        }
    }
}
