//! PQPP end to end: round 1 proposes boxes or says that there is nothing, round 2 asks about points of each box.

use std::time::Instant;

use super::evidence::Evidence;
use super::{Command, Ground, GroundedInstance, Grounding, Outcome, PipelineError};
use crate::frame::Image;
use crate::geometry::{BBox, Grid, Point, Size, SourcePx};
use crate::model::mllm::{Decoding, Generated, Mllm, Question, argmax};
use crate::model::{ModelError, Timings};
use crate::prompt::{Answer, CountHint, LabelledPoint, PointLabel, Thresholds, candidates, parse_answer};

/// Boxes of one answer that overlap more than this are the same target said twice.
const SAME_TARGET_IOU: f32 = 0.7;

/// How much of the method is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Strategy {
    /// Round 1 alone: SAM gets the box.
    Box,
    /// Both rounds: SAM gets the box and the points that the model is sure of.
    ///
    /// Source: arXiv 2409.10542, section 3.3.
    #[default]
    Pqpp,
}

/// The language model's side of the pipeline.
///
/// The confidence of an instance is the product of the probability that its box was started, the probability of the
/// box's least certain edge (give or take 2.5 % of the image side) and, with points, the highest p(yes) among them:
/// whether the target is there, where it is, and whether a second look agrees.
/// The confidence of an outcome is p(found) for [`Outcome::Found`], p(absent) for [`Outcome::Absent`], the lowest
/// confidence among the rivals for [`Outcome::Ambiguous`], and for [`Outcome::Unsure`] the larger of p(found) and
/// p(absent), or 0 where the answer could not be read.
pub struct Grounder {
    mllm: Mllm,
    strategy: Strategy,
    thresholds: Thresholds,
}

/// Round 1, read.
struct Proposals {
    outcome: Outcome,
    confidence: f32,
    boxes: Vec<(BBox<Grid>, f32)>,
}

impl Grounder {
    /// A grounder around a language model, with the thresholds of its dialect.
    pub fn new(mllm: Mllm, strategy: Strategy) -> Self {
        let thresholds = mllm.speech().dialect().thresholds();
        Self { mllm, strategy, thresholds }
    }

    /// Another strategy from now on.
    pub fn set_strategy(&mut self, strategy: Strategy) {
        self.strategy = strategy;
    }

    /// The language model.
    pub fn mllm_mut(&mut self) -> &mut Mllm {
        &mut self.mllm
    }

    /// Round 1: the decoded answer and what it says.
    fn propose(
        &mut self,
        cache: &crate::model::KvCache,
        command: &Command,
        deadline: Option<Instant>,
    ) -> Result<(Generated, String, Proposals), ModelError> {
        let speech = self.mllm.speech();
        let query = speech.proposal_query(command.hint, &command.text)?;
        let (box_start, absent) = (speech.box_start(), speech.absent().to_vec());
        let numbers = speech.numbers().map(<[u32]>::to_vec);
        let mut evidence = Evidence::new(numbers.as_deref(), speech.dialect().scale());
        let thresholds = self.thresholds;
        let mut first = First::default();
        let decoding = Decoding {
            first: &mut |p| {
                first = First::read(p, box_start, absent[0], thresholds);
                match first.verdict {
                    Some(Verdict::Found) => box_start,
                    Some(Verdict::Absent) => absent[0],
                    None => argmax(p),
                }
            },
            draft: &absent,
            observe: &mut |p, token| evidence.note(p, token),
        };
        let generated = self.mllm.generate(cache, &query, decoding, deadline)?;
        let text = self.mllm.speech().text(&generated.tokens)?;
        let answer = if generated.stopped { parse_answer(&text, self.mllm.speech().dialect()).ok() } else { None };
        let proposals = judge(answer, first, command.hint, &evidence);
        Ok((generated, text, proposals))
    }

    /// Round 2: the labelled points of each box.
    fn verify(
        &mut self,
        generated: &Generated,
        boxes: &[(BBox<Grid>, f32)],
        size: Size<SourcePx>,
        deadline: Option<Instant>,
    ) -> Result<Vec<Vec<LabelledPoint>>, ModelError> {
        let speech = self.mllm.speech();
        let dialect = speech.dialect();
        let ([columns, rows], scale) = (dialect.grid(), dialect.scale());
        let points: Vec<Vec<Point<Grid>>> =
            boxes.iter().map(|(bbox, _)| candidates(*bbox, columns, rows, scale)).collect();
        let mut questions = Vec::new();
        for ((bbox, _), points) in boxes.iter().zip(&points) {
            for group in points.chunks(dialect.points_per_question()) {
                questions.push(Question { tokens: speech.points_query(*bbox, group)?, answers: group.len() });
            }
        }
        // However the answer ended, the conversation goes on with the token that the dialect ends it with.
        let pending = [speech.end()];
        let answers = self.mllm.ask(&generated.cache, &pending, &questions, deadline)?;
        let mut answers = answers.into_iter().flatten();
        let label = |point: &Point<Grid>, (yes, no): (f32, f32)| {
            let (p_yes, label) = self.thresholds.point.label(yes, no);
            LabelledPoint { point: scale.to_source(*point, size), p_yes, label }
        };
        Ok(points.iter().map(|points| points.iter().zip(&mut answers).map(|(p, a)| label(p, a)).collect()).collect())
    }
}

impl Ground for Grounder {
    fn check(&self, text: &str, hint: CountHint) -> Result<Command, PipelineError> {
        let text = self.mllm.speech().check(text).map_err(|e| PipelineError::Command(e.to_string()))?;
        Ok(Command { text, hint })
    }

    fn ground(
        &mut self,
        image: &Image,
        command: &Command,
        deadline: Option<Instant>,
    ) -> Result<Grounding, PipelineError> {
        // A command can be made without a check, and unchecked text could speak for the assistant.
        let command = self.check(&command.text, command.hint)?;
        let mut timings = Timings::default();
        self.mllm.take_passes();
        let cache = self.mllm.prefix(image, deadline, &mut timings)?;
        let (generated, answer, proposals) = timings.time("proposal", || self.propose(&cache, &command, deadline))?;
        let scale = self.mllm.speech().dialect().scale();
        let points = if self.strategy == Strategy::Pqpp && !proposals.boxes.is_empty() {
            timings.time("points", || self.verify(&generated, &proposals.boxes, image.size(), deadline))?
        } else {
            vec![Vec::new(); proposals.boxes.len()]
        };
        let instance = |((bbox, confidence), points): ((BBox<Grid>, f32), Vec<LabelledPoint>)| GroundedInstance {
            proposal: scale.bbox_to_source(bbox, image.size()),
            confidence: confidence * points.iter().map(|p| p.p_yes).reduce(f32::max).unwrap_or(1.0),
            points,
        };
        let mut instances: Vec<_> = proposals.boxes.into_iter().zip(points).map(instance).collect();
        instances.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        let confidence = match proposals.outcome {
            Outcome::Ambiguous => instances.last().map_or(0.0, |i| i.confidence),
            _ => proposals.confidence,
        };
        let passes = self.mllm.take_passes();
        Ok(Grounding { outcome: proposals.outcome, confidence, instances, answer, passes, timings: timings.0 })
    }
}

/// What the first token of the answer decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Found,
    Absent,
}

/// The probabilities of the answer's first token.
#[derive(Debug, Clone, Copy, Default)]
struct First {
    p_found: f32,
    p_absent: f32,
    verdict: Option<Verdict>,
}

impl First {
    fn read(p: &[f32], box_start: u32, absent: u32, thresholds: Thresholds) -> Self {
        let of = |token: u32| p.get(token as usize).copied().unwrap_or(0.0);
        let (p_found, p_absent) = (of(box_start), of(absent));
        // With low thresholds both may be reached; then the more likely one holds.
        let verdict = match (p_found >= thresholds.found, p_absent >= thresholds.absent) {
            (true, true) if p_found < p_absent => Some(Verdict::Absent),
            (true, _) => Some(Verdict::Found),
            (false, true) => Some(Verdict::Absent),
            (false, false) => None,
        };
        Self { p_found, p_absent, verdict }
    }
}

/// The outcome of round 1; `answer` is `None` where it could not be read.
fn judge(answer: Option<Answer>, first: First, hint: CountHint, evidence: &Evidence<'_>) -> Proposals {
    let nothing = |outcome, confidence| Proposals { outcome, confidence, boxes: Vec::new() };
    match (answer, first.verdict) {
        (None, _) => nothing(Outcome::Unsure, 0.0),
        (Some(Answer::Absent), Some(Verdict::Absent)) => nothing(Outcome::Absent, first.p_absent),
        (Some(Answer::Targets(targets)), Some(Verdict::Found)) => {
            let confidences = evidence.boxes(targets.len(), first.p_found);
            let boxes = merge(targets.into_iter().map(|t| t.bbox).zip(confidences));
            let several = boxes.len() > 1 && hint == CountHint::One;
            let outcome = if several { Outcome::Ambiguous } else { Outcome::Found };
            Proposals { outcome, confidence: first.p_found, boxes }
        }
        (Some(_), _) => nothing(Outcome::Unsure, first.p_found.max(first.p_absent)),
    }
}

/// Boxes that are the same target said twice become the more certain one of them.
fn merge(boxes: impl Iterator<Item = (BBox<Grid>, f32)>) -> Vec<(BBox<Grid>, f32)> {
    let mut kept: Vec<(BBox<Grid>, f32)> = Vec::new();
    for (bbox, confidence) in boxes {
        match kept.iter_mut().find(|(k, _)| k.iou(&bbox) > SAME_TARGET_IOU) {
            Some(same) if same.1 < confidence => *same = (bbox, confidence),
            Some(_) => {}
            None => kept.push((bbox, confidence)),
        }
    }
    kept
}

impl GroundedInstance {
    /// What SAM is given for this instance: the box and the points whose label is sure.
    pub fn prompt(&self) -> crate::prompt::Prompt {
        let told = |p: &LabelledPoint| match p.label {
            PointLabel::On => Some((p.point, true)),
            PointLabel::Off => Some((p.point, false)),
            PointLabel::Unsure => None,
        };
        crate::prompt::Prompt { bbox: Some(self.proposal), points: self.points.iter().filter_map(told).collect() }
    }
}

#[cfg(test)]
mod tests;
