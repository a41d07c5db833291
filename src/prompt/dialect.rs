//! How one language model was taught to speak: the manifest's `[dialect]`, compiled and checked once.

use super::CountHint;
use super::filter::PointThresholds;
use super::grid::Candidates;
use super::json::JsonWords;
use super::ppg::{Ppg, PpgWords};
use super::template::{DialectError, DialectErrorKind, Piece, Template, begin_alike};
use crate::engine::bundle::{self, Calibration, Coordinates, Strategy, StreamThresholds};
use crate::geometry::{GridScale, ModelPx, Size};

/// Most digits of a coordinate: up to here every grid value is exact in `f32`.
const MAX_DIGITS: usize = 6;
/// Most candidates a box.
const MAX_CANDIDATES: usize = 1024;

/// Probabilities from which a verdict is given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// p(the first answer token starts a box) from which on the target is found, `0.0..=1.0`.
    pub found: f32,
    /// p(the first answer token starts the absent answer) from which on the target is absent, `0.0..=1.0`.
    pub absent: f32,
    /// When a round-2 answer is believed.
    pub point: PointThresholds,
    /// SAM's predicted IoU below which a mask is not believed, `0.0..=1.0`.
    pub mask_score: f32,
    /// What is asked of a target in a stream besides.
    pub stream: StreamThresholds,
}

/// A compiled dialect: every template has the slots it needs, every number is in range.
#[derive(Debug, Clone, PartialEq)]
pub struct Dialect {
    /// Of the frame that is looked at, where pixels are counted.
    scale: GridScale,
    coordinates: Coordinates,
    /// Most steps of an axis.
    most: u32,
    digits: usize,
    strategy: Strategy,
    json: Option<JsonWords>,
    prefix: String,
    hints: [String; 3],
    proposal_query: Template,
    bbox: Template,
    count_on: Option<String>,
    absent_answer: String,
    end_of_answer: String,
    points_query: Template,
    point: Template,
    points_per_question: usize,
    yes: String,
    no: String,
    candidates: Candidates,
    thresholds: Thresholds,
    calibration: Calibration,
    constrained: bool,
    ppg: Option<PpgWords>,
}

impl Dialect {
    /// Compiles the manifest's words.
    ///
    /// # Errors
    /// Every [`DialectErrorKind`] but `Token`, which takes a tokenizer.
    pub fn compile(words: &bundle::Dialect) -> Result<Self, DialectError> {
        let bbox = Template::compile("box", &words.bbox, &["x1", "y1", "x2", "y2"], &[])?;
        let point = Template::compile("point", &words.point, &["x", "y"], &[])?;
        check_numbers_apart("box", &bbox)?;
        check_numbers_apart("point", &point)?;
        check_texts(words)?;
        let (scale, digits) = scale_and_digits(words)?;
        let json = words.json.clone().map(JsonWords::new);
        let dialect = Self {
            scale,
            coordinates: words.coordinates,
            most: words.coordinate_scale,
            digits,
            strategy: words.strategy,
            prefix: words.prefix.clone(),
            hints: [&words.hint_one, &words.hint_one_or_more, &words.hint_none_or_more].map(String::clone),
            proposal_query: Template::compile("proposal_query", &words.proposal_query, &["command"], &["hint"])?,
            bbox,
            count_on: words.count_on.clone(),
            absent_answer: json.as_ref().map_or_else(|| words.absent_answer.clone(), JsonWords::absent),
            json,
            end_of_answer: words.end_of_answer.clone(),
            points_query: Template::compile("points_query", &words.points_query, &["points"], &["box"])?,
            point,
            points_per_question: points_per_question(words)?,
            yes: words.yes.clone(),
            no: words.no.clone(),
            candidates: candidates(words)?,
            thresholds: thresholds(words)?,
            calibration: calibration(words)?,
            constrained: words.constrained,
            ppg: words.ppg.as_ref().map(PpgWords::compile).transpose()?,
        };
        dialect.check_no_box_begins_like("absent_answer", &dialect.absent_answer)?;
        dialect.count_on.iter().try_for_each(|sign| dialect.check_no_box_begins_like("count_on", sign))?;
        Ok(dialect)
    }

    /// Grid steps along each axis. Where pixels are counted, those of the model's input that [`Dialect::fit`] was told of
    /// last; until then as many as there may be.
    pub fn scale(&self) -> GridScale {
        self.scale
    }

    /// Whether coordinates are pixels of the model's input, so that [`Dialect::fit`] must be told its size.
    pub fn counts_pixels(&self) -> bool {
        self.coordinates == Coordinates::Pixels
    }

    /// From now on it is spoken about a frame that is resized to `input`; of no effect where no pixels are counted.
    ///
    /// # Errors
    /// [`DialectErrorKind::Range`] where a side is longer than the dialect can say.
    pub fn fit(&mut self, input: Size<ModelPx>) -> Result<(), DialectError> {
        if !self.counts_pixels() {
            return Ok(());
        }
        let (scale, sides) = (GridScale::pixels(input), 1..=self.most);
        if !sides.contains(&scale.x) || !sides.contains(&scale.y) {
            let detail = format!("an input of {} x {} is not within 1..={}", scale.x, scale.y, self.most);
            return Err(DialectError::new(DialectErrorKind::Range, "coordinate_scale", detail));
        }
        self.scale = scale;
        Ok(())
    }

    /// How the prompt is got where nobody asks for another strategy.
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// How answers are written in JSON; `None` where they are not.
    pub(super) fn json(&self) -> Option<&JsonWords> {
        self.json.as_ref()
    }

    /// Whether answers of round 1 are JSON.
    pub fn is_json(&self) -> bool {
        self.json.is_some()
    }

    /// Digits of every coordinate.
    pub fn digits(&self) -> usize {
        self.digits
    }

    /// What every conversation begins with, image token included.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The round-1 query for a command.
    pub fn proposal_query(&self, hint: CountHint, command: &str) -> String {
        self.proposal_query.fill(&[command, self.hint(hint)])
    }

    /// The words of a hint.
    pub(super) fn hint(&self, hint: CountHint) -> &str {
        match hint {
            CountHint::One => &self.hints[0],
            CountHint::OneOrMore => &self.hints[1],
            CountHint::NoneOrMore => &self.hints[2],
        }
    }

    /// The round-2 query for a box and points, both already in the model's words.
    pub fn points_query(&self, bbox: &str, points: &str) -> String {
        self.points_query.fill(&[points, bbox])
    }

    /// The answer for "there is no such object".
    pub fn absent_answer(&self) -> &str {
        &self.absent_answer
    }

    /// What stands between boxes that are counted up to the target; `None` where answers do not count.
    pub fn count_on(&self) -> Option<&str> {
        self.count_on.as_deref()
    }

    /// The token that ends an answer.
    pub fn end_of_answer(&self) -> &str {
        &self.end_of_answer
    }

    /// Points in one round-2 question, at least 1.
    pub fn points_per_question(&self) -> usize {
        self.points_per_question
    }

    /// The answer for a point on the object.
    pub fn yes(&self) -> &str {
        &self.yes
    }

    /// The answer for a point off the object.
    pub fn no(&self) -> &str {
        &self.no
    }

    /// How candidates are laid over a proposal.
    pub fn candidates(&self) -> Candidates {
        self.candidates
    }

    /// From which probabilities on a verdict is given.
    pub fn thresholds(&self) -> Thresholds {
        self.thresholds
    }

    /// What a confidence is worth.
    pub fn calibration(&self) -> Calibration {
        self.calibration
    }

    /// Whether round-1 answers are held to what can be read while they are decoded.
    pub fn is_constrained(&self) -> bool {
        self.constrained
    }

    /// How PPG is spoken; `None` where the model was not taught it.
    pub fn ppg(&self) -> Option<Ppg<'_>> {
        self.ppg.as_ref().map(|words| Ppg::new(self, words))
    }

    pub(crate) fn box_template(&self) -> &Template {
        &self.bbox
    }

    pub(crate) fn point_template(&self) -> &Template {
        &self.point
    }

    /// The first sign of `text` decides how what follows is read, so it must not be that of a box.
    fn check_no_box_begins_like(&self, field: &'static str, text: &str) -> Result<(), DialectError> {
        if self.json.is_some() {
            return Ok(());
        }
        let Some(Piece::Text(opening)) = self.bbox.pieces().first() else { return Ok(()) };
        if begin_alike(opening, text) {
            return Err(DialectError::new(DialectErrorKind::Unreadable, field, "begins like a box"));
        }
        Ok(())
    }
}

fn scale_and_digits(words: &bundle::Dialect) -> Result<(GridScale, usize), DialectError> {
    let range = |field, detail: String| DialectError::new(DialectErrorKind::Range, field, detail);
    let digits = words.coordinate_digits as usize;
    if !(1..=MAX_DIGITS).contains(&digits) {
        return Err(range("coordinate_digits", format!("{digits} is not in 1..={MAX_DIGITS}")));
    }
    let most = 10u32.pow(digits as u32) - 1;
    if !(1..=most).contains(&words.coordinate_scale) {
        return Err(range("coordinate_scale", format!("{} is not in 1..={most}", words.coordinate_scale)));
    }
    Ok((GridScale::square(words.coordinate_scale), digits))
}

fn candidates(words: &bundle::Dialect) -> Result<Candidates, DialectError> {
    let [columns, rows] = words.grid;
    match columns.checked_mul(rows) {
        Some(1..=MAX_CANDIDATES) => Ok(match words.candidates {
            bundle::Layout::Grid => Candidates::Grid { columns, rows },
            bundle::Layout::BlueNoise => Candidates::BlueNoise,
        }),
        _ => {
            let detail = format!("{columns} x {rows} candidates are not in 1..={MAX_CANDIDATES}");
            Err(DialectError::new(DialectErrorKind::Range, "grid", detail))
        }
    }
}

fn points_per_question(words: &bundle::Dialect) -> Result<usize, DialectError> {
    match words.points_per_question {
        n @ 1..=MAX_CANDIDATES => Ok(n),
        n => {
            let detail = format!("{n} is not in 1..={MAX_CANDIDATES}");
            Err(DialectError::new(DialectErrorKind::Range, "points_per_question", detail))
        }
    }
}

fn thresholds(words: &bundle::Dialect) -> Result<Thresholds, DialectError> {
    let t = &words.thresholds;
    for (field, value) in t.by_key() {
        if !(0.0..=1.0).contains(&value) {
            let detail = format!("{value} is not a probability");
            return Err(DialectError::new(DialectErrorKind::Range, field, detail));
        }
    }
    let point = PointThresholds { positive: t.positive, negative: t.negative };
    if !point.is_consistent() {
        let detail = format!("{} and negative {} overlap", t.positive, t.negative);
        return Err(DialectError::new(DialectErrorKind::Range, "positive", detail));
    }
    let stream = t.stream.unwrap_or(StreamThresholds::NONE);
    Ok(Thresholds { found: t.found, absent: t.absent, point, mask_score: t.mask_score, stream })
}

fn calibration(words: &bundle::Dialect) -> Result<Calibration, DialectError> {
    let calibration = words.calibration.unwrap_or(Calibration::IDENTITY);
    let range = |e: bundle::BundleError| DialectError::new(DialectErrorKind::Range, "calibration", e.to_string());
    calibration.validate().map_err(range)?;
    Ok(calibration)
}

/// Texts that must say something, and must say different things.
fn check_texts(words: &bundle::Dialect) -> Result<(), DialectError> {
    let texts = [
        // With `chat` the template says it.
        ("prefix", &words.prefix, !words.chat),
        // In JSON it is the empty list.
        ("absent_answer", &words.absent_answer, words.json.is_none()),
        ("end_of_answer", &words.end_of_answer, true),
        ("yes", &words.yes, true),
        ("no", &words.no, true),
    ];
    let no_sign = |sign: &String| sign.trim().is_empty() || sign.contains(|c: char| c.is_ascii_digit());
    if words.count_on.as_ref().is_some_and(no_sign) {
        return Err(DialectError::new(DialectErrorKind::Unreadable, "count_on", "is empty or has a digit"));
    }
    if let Some((field, ..)) = texts.iter().find(|(_, text, needed)| *needed && text.trim().is_empty()) {
        return Err(DialectError::new(DialectErrorKind::Unreadable, field, "is empty"));
    }
    if words.yes.trim().eq_ignore_ascii_case(words.no.trim()) {
        return Err(DialectError::new(DialectErrorKind::Unreadable, "no", "equals `yes`"));
    }
    Ok(())
}

/// Numbers of a fixed width stay apart only where a sign that is no digit stands between them, and a list of
/// boxes only where each begins and ends with one.
pub(super) fn check_numbers_apart(field: &'static str, template: &Template) -> Result<(), DialectError> {
    let mut need_text = true;
    for piece in template.pieces() {
        match piece {
            Piece::Slot(_) if need_text => {
                return Err(DialectError::new(
                    DialectErrorKind::Unreadable,
                    field,
                    "has a number without a sign before it",
                ));
            }
            Piece::Slot(_) => need_text = true,
            Piece::Text(text) if text.trim().is_empty() => {}
            Piece::Text(text) if text.contains(|c: char| c.is_ascii_digit()) => {
                return Err(DialectError::new(DialectErrorKind::Unreadable, field, "has a digit among its signs"));
            }
            Piece::Text(_) => need_text = false,
        }
    }
    if need_text {
        return Err(DialectError::new(DialectErrorKind::Unreadable, field, "ends with a number"));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The words of the tabletop bundle.
    pub(crate) fn tabletop_words() -> bundle::Dialect {
        toml::from_str(
            r#"
            coordinate_scale = 999
            coordinate_digits = 3
            prefix = "<s><image>"
            hint_one = "exactly one"
            hint_one_or_more = "one or more"
            hint_none_or_more = "none or more"
            proposal_query = "<user> find {hint}: {command} <assistant>"
            box = "[{x1},{y1},{x2},{y2}]"
            absent_answer = "no such object"
            end_of_answer = "</s>"
            points_query = "<user> which points are on {box}? {points} <assistant>"
            point = "[{x},{y}]"
            points_per_question = 1
            yes = "yes"
            no = "no"
            grid = [5, 5]
            [thresholds]
            found = 0.5
            absent = 0.5
            positive = 0.75
            negative = 0.9
            mask_score = 0.4
            "#,
        )
        .expect("valid words")
    }

    pub(crate) fn words(change: impl FnOnce(&mut bundle::Dialect)) -> Dialect {
        let mut words = tabletop_words();
        change(&mut words);
        Dialect::compile(&words).expect("valid dialect")
    }

    pub(crate) fn tabletop() -> Dialect {
        words(|_| ())
    }

    #[test]
    fn queries_are_filled_in_one_pass() {
        let d = tabletop();
        assert_eq!(
            d.proposal_query(CountHint::One, "the {hint} mug"),
            "<user> find exactly one: the {hint} mug <assistant>"
        );
        assert_eq!(
            d.points_query("[001,002,003,004]", "[005,006]"),
            "<user> which points are on [001,002,003,004]? [005,006] <assistant>"
        );
    }

    #[test]
    fn refuses_dialects_that_cannot_be_spoken() {
        use DialectErrorKind::*;
        type Change = fn(&mut bundle::Dialect);
        fn calibration(temperature: f32, bias: f32) -> bundle::Calibration {
            bundle::Calibration { temperature, bias, mask: None }
        }
        let cases: [(Change, DialectErrorKind, &str); 26] = [
            (|w| w.coordinate_digits = 0, Range, "coordinate_digits"),
            (|w| w.coordinate_digits = 7, Range, "coordinate_digits"),
            (|w| w.coordinate_scale = 1000, Range, "coordinate_scale"),
            (|w| w.coordinate_scale = 0, Range, "coordinate_scale"),
            (|w| w.bbox = "[{x1},{y1},{x2}]".into(), MissingSlot, "box"),
            (|w| w.bbox = "[{x1},{y1},{x2}{y2}]".into(), Unreadable, "box"),
            (|w| w.bbox = "[{x1},{y1},{x2} {y2}]".into(), Unreadable, "box"),
            (|w| w.bbox = "{x1},{y1},{x2},{y2}]".into(), Unreadable, "box"),
            (|w| w.bbox = "[{x1},{y1},{x2},{y2}".into(), Unreadable, "box"),
            (|w| w.bbox = "[0{x1},{y1},{x2},{y2}]".into(), Unreadable, "box"),
            (|w| w.point = "[{x},{z}]".into(), UnknownSlot, "point"),
            (|w| w.proposal_query = "find {hint}".into(), MissingSlot, "proposal_query"),
            (|w| w.points_query = "{box} {points} {points}".into(), RepeatedSlot, "points_query"),
            (|w| w.absent_answer = "[none]".into(), Unreadable, "absent_answer"),
            (|w| w.absent_answer = " ".into(), Unreadable, "absent_answer"),
            (|w| w.count_on = Some("[".into()), Unreadable, "count_on"),
            (|w| w.count_on = Some(" ".into()), Unreadable, "count_on"),
            (|w| w.count_on = Some("1".into()), Unreadable, "count_on"),
            (|w| w.no = "Yes".into(), Unreadable, "no"),
            (|w| w.grid = [0, 5], Range, "grid"),
            (|w| w.grid = [usize::MAX, 5], Range, "grid"),
            (|w| w.points_per_question = 0, Range, "points_per_question"),
            (|w| w.thresholds.found = f32::NAN, Range, "found"),
            (|w| w.thresholds.negative = 0.1, Range, "positive"),
            (|w| w.calibration = Some(calibration(0.0, 0.0)), Range, "calibration"),
            (|w| w.calibration = Some(calibration(1.0, f32::NAN)), Range, "calibration"),
        ];
        for (i, (change, kind, field)) in cases.into_iter().enumerate() {
            let mut words = tabletop_words();
            change(&mut words);
            let error = Dialect::compile(&words).expect_err(field);
            assert_eq!((error.kind(), error.field()), (kind, field), "case {i}: {error}");
        }
    }
}
