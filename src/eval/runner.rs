//! Answers every sample of a source by every variant.

use std::time::{Duration, Instant};

use super::EvalError;
use super::metrics::Score;
use super::record::{Answer, Instance, Record, TargetFacts};
use super::source::{Picture, Sample, Source};
use super::variant::Variant;
use crate::engine::bundle::Calibration;
use crate::frame::Image;
use crate::mask::Mask;
use crate::pipeline::{
    Command, Embedding, Ground, GroundedInstance, Grounding, Outcome, PipelineError, SamDrafts, Segment, Segmented,
    segment_groups,
};
use crate::prompt::PointLabel;

/// A sample's place: picture and sample in it.
pub type Place = (u64, usize);

/// What was answered to a sample, with the time of each grounding.
pub struct Answered {
    /// To be kept.
    pub record: Record,
    /// One a variant that asked the language model.
    pub grounding: Vec<Duration>,
}

/// An answer with everything that a picture of it shows.
pub struct Shown {
    /// What the language model said.
    pub grounding: Grounding,
    /// One mask an instance.
    pub masks: Vec<Segmented>,
}

/// A pipeline under evaluation.
pub struct Evaluator<'a> {
    /// The language model's side.
    pub ground: &'a mut dyn Ground,
    /// SAM's side.
    pub segment: &'a mut dyn Segment,
    /// What is compared.
    pub variants: &'a [Variant],
    /// How a mask's score and the language model's confidence become one.
    pub calibration: Calibration,
}

impl Evaluator<'_> {
    /// Answers every sample from `from` on and hands it to `each`, in order.
    ///
    /// # Errors
    /// Engine failures, pictures that cannot be used, and whatever `each` returns. A bad answer is a bad score, never
    /// an error.
    pub fn run(
        &mut self,
        source: &dyn Source,
        from: Place,
        each: &mut dyn FnMut(Answered) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        for index in from.0..source.pictures() {
            let picture = source.picture(index)?;
            let first = if index == from.0 { from.1 } else { 0 };
            if first >= picture.samples.len() {
                continue;
            }
            let embedding = self.segment.embed(&picture.image)?;
            for (i, sample) in picture.samples.iter().enumerate().skip(first) {
                each(self.answer_all(&picture.image, &embedding, sample, (index, i))?)?;
            }
        }
        Ok(())
    }

    fn answer_all(
        &mut self,
        image: &Image,
        embedding: &Embedding,
        sample: &Sample,
        (picture, index): Place,
    ) -> Result<Answered, EvalError> {
        let truth = sample.truth();
        let (mut answers, mut grounding) = (Vec::new(), Vec::new());
        for &variant in self.variants {
            let start = Instant::now();
            let answer = match command(self.ground, sample, variant)? {
                None => Answer::refused(Score::new(truth.as_ref(), None, sample.ignored.as_ref())),
                Some(command) => {
                    let mut drafts = SamDrafts::new(&[], |prompts| self.segment.segment(embedding, prompts));
                    let said = self.ground.ground_drafted(image, &command, &mut drafts, None)?;
                    grounding.push(start.elapsed());
                    let masks = self.masks(embedding, &said)?;
                    self.score(sample, truth.as_ref(), &said, &masks)
                }
            };
            answers.push(answer);
        }
        let record = Record {
            picture,
            sample: index,
            id: sample.id.clone(),
            expression: sample.expression.clone(),
            kind: sample.kind.clone(),
            near_miss: sample.near_miss,
            target: TargetFacts::of(sample),
            answers,
        };
        Ok(Answered { record, grounding })
    }

    /// Answers one sample again, for a picture of it; `None` where its command is refused.
    ///
    /// # Errors
    /// As [`Evaluator::run`].
    pub fn show(&mut self, picture: &Picture, sample: &Sample, variant: Variant) -> Result<Option<Shown>, EvalError> {
        let Some(command) = command(self.ground, sample, variant)? else { return Ok(None) };
        let grounding = self.ground.ground(&picture.image, &command, None)?;
        let embedding = self.segment.embed(&picture.image)?;
        let masks = self.masks(&embedding, &grounding)?;
        Ok(Some(Shown { grounding, masks }))
    }

    fn masks(&mut self, embedding: &Embedding, said: &Grounding) -> Result<Vec<Segmented>, PipelineError> {
        if !names_targets(said) {
            return Ok(Vec::new());
        }
        let prompts: Vec<_> = said.instances.iter().map(GroundedInstance::prompts).collect();
        segment_groups(self.segment, embedding, &prompts)
    }

    fn score(&self, sample: &Sample, truth: Option<&Mask>, said: &Grounding, masks: &[Segmented]) -> Answer {
        let instance = |(instance, m): (&GroundedInstance, &Segmented)| {
            let score = if m.score.is_finite() { m.score } else { 0.0 };
            let signs = m.signs(&instance.proposal);
            Instance {
                language: instance.confidence,
                score,
                fill: signs.fill,
                confidence: self.calibration.with_mask(instance.confidence, signs),
                iou: sample.targets.iter().map(|t| overlap(t, &m.mask, sample)).fold(0.0, f64::max),
            }
        };
        Answer {
            verdict: said.outcome.into(),
            confidence: said.confidence,
            malformed: said.malformed.map(|e| e.to_string()),
            passes: said.passes,
            one_by_one: said.decoded.one_by_one,
            near_ties: said.decoded.near_ties,
            points: truth.map_or([0, 0], |t| count_points(said, t)),
            score: Score::new(truth, union(masks).as_ref(), sample.ignored.as_ref()),
            instances: said.instances.iter().zip(masks).map(instance).collect(),
        }
    }
}

/// `sample` as a command to be answered by `variant`; `None` where it holds a word that the model does not know.
pub(super) fn command(
    ground: &dyn Ground,
    sample: &Sample,
    variant: Variant,
) -> Result<Option<Command>, PipelineError> {
    match ground.check(&sample.expression, sample.hint) {
        Ok(command) => Ok(Some(variant.of(command))),
        Err(PipelineError::Command(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the outcome comes with masks, as a robot would get them.
pub(super) fn names_targets(said: &Grounding) -> bool {
    matches!(said.outcome, Outcome::Found | Outcome::Ambiguous) && !said.instances.is_empty()
}

/// All masks together; `None` where there are none.
pub(super) fn union(masks: &[Segmented]) -> Option<Mask> {
    let (first, rest) = masks.split_first()?;
    let mut all = first.mask.clone();
    rest.iter().for_each(|m| all.union_with(&m.mask));
    Some(all)
}

fn overlap(target: &Mask, answer: &Mask, sample: &Sample) -> f64 {
    Score::new(Some(target), Some(answer), sample.ignored.as_ref()).iou()
}

/// The confident points of instances whose box lies mostly on the target: those that are right, and all.
fn count_points(said: &Grounding, truth: &Mask) -> [u64; 2] {
    let mut count = [0, 0];
    for instance in &said.instances {
        if !truth.bbox().is_some_and(|b| b.iou(&instance.proposal) >= 0.5) {
            continue;
        }
        for p in instance.points.iter().filter(|p| p.label != PointLabel::Unsure) {
            count[1] += 1;
            count[0] += u64::from(truth.at(p.point) == (p.label == PointLabel::On));
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::SourceError;
    use super::super::record::Verdict;
    use super::*;
    use crate::engine::bundle::MaskCalibration;
    use crate::geometry::Size;
    use crate::pipeline::Strategy;
    use crate::pipeline::fake::{FakeGround, FakeSegment, Script};
    use crate::prompt::CountHint;

    const SIZE: (u32, u32) = (64, 48);

    fn red(x: u32, y: u32) -> bool {
        (10..30).contains(&x) && (10..40).contains(&y)
    }

    /// Pictures of a red box on grey.
    struct RedBoxes;

    impl RedBoxes {
        fn sample(expression: &str, there: bool) -> Sample {
            let mask = Mask::from_fn(Size::new(SIZE.0, SIZE.1), red);
            Sample {
                id: expression.to_owned(),
                expression: expression.to_owned(),
                kind: "name".to_owned(),
                near_miss: false,
                hint: CountHint::NoneOrMore,
                targets: there.then_some(mask).into_iter().collect(),
                hidden: None,
                ignored: None,
            }
        }
    }

    impl Source for RedBoxes {
        fn pictures(&self) -> u64 {
            2
        }

        fn describe(&self) -> Value {
            json!({ "data": "red boxes" })
        }

        fn picture(&self, _: u64) -> Result<Picture, SourceError> {
            let pixel = |i: u32| if red(i % SIZE.0, i / SIZE.0) { [220, 20, 20] } else { [128, 128, 128] };
            let rgb: Vec<u8> = (0..SIZE.0 * SIZE.1).flat_map(pixel).collect();
            let image = Image::from_rgb(Size::new(SIZE.0, SIZE.1), rgb).expect("fills its size");
            let samples = [("the red box", true), ("the blue box", false), ("the <user> box", true)];
            Ok(Picture { image, samples: samples.map(|(text, there)| Self::sample(text, there)).to_vec() })
        }
    }

    fn records(from: Place, variants: &[Variant]) -> Vec<Record> {
        let script = Script::default();
        let mut ground = FakeGround::new(script.ground.clone());
        let mut segment = FakeSegment::new(script.segment);
        let mask = Some(MaskCalibration { language: 0.0, score: 1.0, fill: 0.0, bias: 0.0 });
        let calibration = Calibration { mask, ..Calibration::IDENTITY };
        let mut evaluator = Evaluator { ground: &mut ground, segment: &mut segment, variants, calibration };
        let mut records = Vec::new();
        let mut each = |answered: Answered| {
            records.push(answered.record);
            Ok(())
        };
        evaluator.run(&RedBoxes, from, &mut each).expect("answers");
        records
    }

    #[test]
    fn answers_are_held_against_the_truth() {
        let variants = [Strategy::Box, Strategy::Pqpp].map(Variant::plain);
        let all = records((0, 0), &variants);
        assert_eq!(
            all.iter().map(|r| (r.picture, r.sample)).collect::<Vec<_>>(),
            [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
        );
        let [found, absent, refused] = &all[..3] else { panic!("three a picture") };
        assert_eq!(found.answers.len(), 2);
        for answer in &found.answers {
            assert_eq!((answer.verdict, answer.score.iou()), (Verdict::Found, 1.0));
            let [instance] = answer.instances[..] else { panic!("one red box") };
            // The fake's words say 0.9 and its masks 0.95; the calibration here heeds the mask alone.
            assert_eq!((instance.language, instance.score, instance.iou), (0.9, 0.95, 1.0));
            assert!((instance.confidence - 0.95).abs() < 1e-6 && instance.is_right());
        }
        assert_eq!((found.answers[0].points, found.answers[1].points), ([0, 0], [25, 25]));
        assert_eq!(found.target.map(|t| (t.count, t.fill)), Some((1, 1.0)));
        assert_eq!(
            (absent.answers[0].verdict, absent.answers[0].score.iou(), absent.target),
            (Verdict::Absent, 1.0, None)
        );
        let refused = &refused.answers[1];
        assert_eq!((refused.verdict, refused.score.iou(), refused.passes), (Verdict::Refused, 0.0, 0));
    }

    #[test]
    fn going_on_gives_what_a_whole_run_gives() {
        let variants = [Variant::plain(Strategy::Pqpp)];
        let all = records((0, 0), &variants);
        for (i, r) in all.iter().enumerate() {
            assert_eq!(records((r.picture, r.sample + 1), &variants), all[i + 1..], "after {i}");
        }
    }
}
