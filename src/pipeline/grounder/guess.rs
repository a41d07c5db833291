//! What the model is likely to say: the boxes of an answer as they were last, its labels from masks.

use super::super::Drafter;
use crate::geometry::{BBox, Grid, Point, SourcePx};
use crate::mask::Mask;
use crate::model::speech::Opening;

/// A last mask whose box overlaps a proposal by this much shows the same instance.
const SAME_PLACE_IOU: f32 = 0.5;

/// Guesses a first answer from its fixed words and from where the targets were last.
pub(super) struct AnswerGuess<'a> {
    opening: &'a Opening,
    /// The token of every grid value.
    numbers: &'a [u32],
    /// `[x1, y1, x2, y2]` in grid values, from left to right: the order in which the model was taught to name targets.
    boxes: Vec<[usize; 4]>,
}

impl<'a> AnswerGuess<'a> {
    /// `last` are the boxes that the answer may name again; without `numbers` it is of no use.
    pub(super) fn new(opening: &'a Opening, numbers: Option<&'a [u32]>, last: &[BBox<Grid>]) -> Self {
        let numbers = numbers.unwrap_or_default();
        let mut last = last.to_vec();
        last.sort_by(|a, b| a.centre().x.total_cmp(&b.centre().x));
        let value = |v: f32| (v.round().max(0.0) as usize).min(numbers.len().saturating_sub(1));
        let boxes = last.iter().map(|b| [b.x1, b.y1, b.x2, b.y2].map(value)).collect();
        Self { opening, numbers, boxes }
    }

    /// What is likely to follow `answer`.
    pub(super) fn next(&self, answer: &[u32]) -> Vec<u32> {
        let frame = self.opening.frame();
        let names_boxes = answer.first().is_none_or(|first| *first == self.opening.box_start());
        if frame.is_empty() || self.numbers.is_empty() || !names_boxes {
            return self.opening.likely(answer);
        }
        let (said, answer) = (answer.len(), self.opening.uncounted(answer));
        let counts = answer.len() < said;
        let (target, at) = (answer.len() / frame.len(), answer.len() % frame.len());
        let begun = &answer[answer.len() - at..];
        let said = frame.iter().zip(begun).filter(|(fixed, _)| fixed.is_none()).map(|(_, token)| token);
        let said: Option<Vec<usize>> = said.map(|t| self.numbers.iter().position(|n| n == t)).collect();
        let Some(bbox) = said.and_then(|said| self.place(target, &said)) else { return self.opening.likely(answer) };
        let mut guess = self.target(bbox);
        // An answer that is cut short inside a target, as with points whose places nobody can guess, ends there.
        // So does one that counts: a single target is meant.
        if guess.len() == frame.len() && !counts {
            guess.extend(self.boxes.iter().skip(target + 1).flat_map(|bbox| self.target(*bbox)));
        }
        guess.split_off(at.min(guess.len()))
    }

    /// Where target number `target` of the answer is, the first of whose numbers are `said`; `None` once a number is not as
    /// it was, for whoever has moved has mostly moved on all sides.
    fn place(&self, target: usize, said: &[usize]) -> Option<[usize; 4]> {
        match said.is_empty() {
            true => self.boxes.get(target).copied(),
            false => self.boxes.iter().copied().find(|b| b.starts_with(said)),
        }
    }

    /// A target as it is written, up to the first number that is not of its box.
    fn target(&self, bbox: [usize; 4]) -> Vec<u32> {
        let mut numbers = bbox.iter().map(|v| self.numbers[*v]);
        self.opening.frame().iter().map_while(|fixed| fixed.or_else(|| numbers.next())).collect()
    }
}

/// For each of `boxes`, what the model is likely to say of its `points`: by the last mask where there is one in that
/// place, else by SAM's mask of the box alone, else as if the instance were an ellipse.
pub(in crate::pipeline) fn labels(
    drafter: &mut dyn Drafter,
    boxes: &[BBox<SourcePx>],
    points: &[Vec<Point<SourcePx>>],
) -> Vec<Vec<bool>> {
    let mut guesses: Vec<Option<Vec<bool>>> = {
        let last: Vec<_> = drafter.last().into_iter().filter_map(|mask| Some((mask, mask.bbox()?))).collect();
        boxes.iter().zip(points).map(|(bbox, points)| by_last(&last, *bbox, points)).collect()
    };
    let open: Vec<usize> = (0..boxes.len()).filter(|i| guesses[*i].is_none()).collect();
    let asked: Vec<_> = open.iter().map(|i| boxes[*i]).collect();
    let masks = if asked.is_empty() { None } else { drafter.masks(&asked) };
    for (i, mask) in open.into_iter().zip(masks.into_iter().flatten()) {
        guesses[i] = Some(points[i].iter().map(|p| mask.at(*p)).collect());
    }
    let by_ellipse = |i: usize| points[i].iter().map(|p| in_ellipse(boxes[i], *p)).collect();
    guesses.into_iter().enumerate().map(|(i, guess)| guess.unwrap_or_else(|| by_ellipse(i))).collect()
}

/// Reads the last mask that is in the place of `bbox`, as if it had moved and grown into it.
fn by_last(last: &[(&Mask, BBox<SourcePx>)], bbox: BBox<SourcePx>, points: &[Point<SourcePx>]) -> Option<Vec<bool>> {
    let best = last.iter().max_by(|a, b| a.1.iou(&bbox).total_cmp(&b.1.iou(&bbox)))?;
    let (mask, was) = best;
    if was.iou(&bbox) < SAME_PLACE_IOU {
        return None;
    }
    let moved = |v: f32, from: f32, side: f32, to: f32, new_side: f32| to + (v - from) / side * new_side;
    let back = |p: &Point<SourcePx>| {
        Point::new(
            moved(p.x, bbox.x1, bbox.width(), was.x1, was.width()),
            moved(p.y, bbox.y1, bbox.height(), was.y1, was.height()),
        )
    };
    Some(points.iter().map(|p| mask.at(back(p))).collect())
}

/// Whether `p` is in the ellipse that fills `bbox`.
fn in_ellipse(bbox: BBox<SourcePx>, p: Point<SourcePx>) -> bool {
    let centre = bbox.centre();
    let (x, y) = ((p.x - centre.x) / bbox.width(), (p.y - centre.y) / bbox.height());
    x * x + y * y <= 0.25
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Size;
    use crate::model::toy::speech;
    use crate::pipeline::{NoDrafts, SamDrafts, Segmented};
    use crate::prompt::Strategy;

    fn bbox(x1: f32, y1: f32, x2: f32, y2: f32) -> BBox<Grid> {
        BBox::new(x1, y1, x2, y2)
    }

    #[test]
    fn an_answer_is_guessed_from_where_the_targets_were() {
        let speech = speech(|_| ());
        let opening = speech.opening(Strategy::Pqpp).expect("is taught");
        let last = [bbox(500.0, 200.0, 900.0, 400.0), bbox(100.0, 200.0, 300.0, 400.0)];
        let guess = AnswerGuess::new(opening, speech.numbers(), &last);
        let text = |answer: &[u32]| speech.text(&guess.next(answer)).expect("is text").replace(' ', "");
        let n = |v: usize| speech.numbers().expect("are tokens")[v];
        let (open, comma) = (opening.box_start(), opening.frame()[2].expect("is a comma"));
        assert_eq!(text(&[]), "[100,200,300,400][500,200,900,400]");
        assert_eq!(text(&[open, n(100)]), ",200,300,400][500,200,900,400]");
        // What was said shows which of the two is meant, or that neither is where it was.
        assert_eq!(text(&[open, n(500), comma, n(200)]), ",900,400][500,200,900,400]");
        assert_eq!(text(&[open, n(101)]), ",");
        assert_eq!(text(&[open, n(100), comma, n(201)]), ",");
        assert_eq!(text(&opening.absent()[..1]), "suchobject");
        let all = guess.next(&[]);
        assert_eq!(guess.next(&all), opening.likely(&all), "nothing is known of a third target");
        // Words where numbers belong.
        assert_eq!(guess.next(&[open, comma]), opening.likely(&[open, comma]));
    }

    #[test]
    fn what_was_counted_is_not_the_target() {
        let speech = speech(|w| w.count_on = Some(",".into()));
        let opening = speech.opening(Strategy::Pqpp).expect("is taught");
        let guess = AnswerGuess::new(opening, speech.numbers(), &[bbox(100.0, 200.0, 300.0, 400.0)]);
        let frame = opening.frame();
        let n = |v: usize| speech.numbers().expect("are tokens")[v];
        let mut numbers = [1, 2, 3, 4].map(n).into_iter();
        let counted: Vec<u32> = frame.iter().map(|t| t.or_else(|| numbers.next()).expect("four numbers")).collect();
        let comma = frame[2].expect("is a comma");
        let second = [&counted[..], &[comma]].concat();
        assert_eq!(guess.next(&second), guess.next(&[]));
        assert_eq!(guess.next(&[&second[..], &guess.next(&[])[..2]].concat()), guess.next(&guess.next(&[])[..2]));
        assert_eq!(opening.likely(&second), opening.likely(&[]));
        let without = AnswerGuess::new(opening, speech.numbers(), &[]);
        assert_eq!(without.next(&[&second[..], &counted[..2]].concat()), [comma]);
    }

    #[test]
    fn without_a_last_place_only_words_are_guessed() {
        let speech = speech(|_| ());
        let opening = speech.opening(Strategy::Pqpp).expect("is taught");
        let whole = AnswerGuess::new(opening, speech.numbers(), &[bbox(1.0, 2.0, 3.0, 4.0)]).next(&[]);
        for guess in [
            AnswerGuess::new(opening, speech.numbers(), &[]),
            AnswerGuess::new(opening, None, &[bbox(1.0, 2.0, 3.0, 4.0)]),
        ] {
            for said in 0..whole.len() {
                assert_eq!(guess.next(&whole[..said]), opening.likely(&whole[..said]));
            }
        }
    }

    const SIZE: Size<SourcePx> = Size::new(100, 100);

    /// The left half of a box is on.
    fn left_of(x: u32) -> Mask {
        Mask::from_fn(SIZE, |column, row| (20..x).contains(&column) && (20..60).contains(&row))
    }

    #[test]
    fn labels_are_guessed_from_the_nearest_thing_there_is() {
        let boxes = [BBox::new(24.0, 20.0, 44.0, 60.0), BBox::new(60.0, 60.0, 100.0, 100.0)];
        let points = [
            vec![Point::new(25.0, 21.0), Point::new(43.0, 59.0)],
            vec![Point::new(61.0, 61.0), Point::new(80.0, 80.0)],
        ];
        // Two pixels of the corner box, and the whole of it.
        let corner = Mask::from_fn(SIZE, |x, y| x < 62 && y < 62);
        let last = [left_of(40)];
        let mut asked = Vec::new();
        let sam = |prompts: &[crate::prompt::Prompt]| {
            asked.extend(prompts.iter().map(|p| (p.bbox, p.points.len())));
            Ok(prompts.iter().map(|_| Segmented { mask: corner.clone(), score: 0.9 }).collect())
        };
        let guesses = labels(&mut SamDrafts::new(&last, sam), &boxes, &points);
        // The last mask fills its box, so it fills the box that it moved into.
        assert_eq!(guesses, [[true, true], [true, false]]);
        assert_eq!(asked, [(Some(boxes[1]), 0)], "SAM is asked about what was not there before, without points");
        assert_eq!(labels(&mut NoDrafts, &boxes, &points), [[false, false], [false, true]]);
    }

    #[test]
    fn a_drafter_that_fails_or_answers_nonsense_is_no_harm() {
        let boxes = [BBox::new(0.0, 0.0, 50.0, 50.0), BBox::new(50.0, 50.0, 50.0, 50.0)];
        let points = [vec![Point::new(25.0, 25.0)], vec![Point::new(50.0, 50.0)]];
        type Answer = fn() -> Result<Vec<Segmented>, crate::pipeline::PipelineError>;
        let answers: [Answer; 3] = [
            || Ok(Vec::new()),
            || Ok(vec![Segmented { mask: Mask::empty(Size::new(1, 1)), score: f32::NAN }; 5]),
            || Err(crate::pipeline::PipelineError::Command("no".into())),
        ];
        for answer in answers {
            let guesses = labels(&mut SamDrafts::new(&[Mask::empty(SIZE)], |_| answer()), &boxes, &points);
            assert_eq!(guesses.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
        }
    }
}
