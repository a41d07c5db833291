//! A command to a grounding: the first question gives targets or says that there is nothing, and where the strategy is
//! PQPP a second one asks about points of each box.

pub(super) mod guess;
mod judge;

use std::num::NonZeroUsize;
use std::time::Instant;

use super::evidence::Evidence;
use super::{Command, Decoded, Drafter, Drafting, Ground, GroundedInstance, Grounding, Outcome, PipelineError};
use crate::engine::bundle::Calibration;
use crate::frame::Image;
use crate::geometry::{BBox, Grid, Point, Size, SourcePx};
use crate::model::mllm::{Decoding, Generated, Mllm, Question, argmax};
use crate::model::{KvCache, ModelError, Timings};
use crate::prompt::{
    Answer, AnswerError, Candidates, CountHint, Dialect, GridLabel, LabelledPoint, PointLabel, Strategies, Strategy,
    StrategyError, Thresholds, parse_answer,
};
use guess::AnswerGuess;
use judge::{First, Proposal, Proposals, Verdict, judge};

/// Numbers of a box.
const BOX_COORDINATES: usize = 4;

/// The language model's side of the pipeline.
///
/// The confidence of an instance is the product of the probability that its box was started, the probability of the
/// box's least certain edge (give or take 2.5 % of the image side) and, with PQPP, the highest p(yes) among its points:
/// whether the target is there, where it is, and whether a second look agrees; where boxes are counted up to it, of all of
/// them, and that the count ends there; then calibrated as the bundle says
/// ([`Calibration::language`]). Thresholds are held against the probabilities of the answer itself, which no calibration
/// changes: a verdict is due before there is a box, let alone a mask.
/// The confidence of an outcome is p(found) for [`Outcome::Found`], p(absent) for [`Outcome::Absent`], the lowest
/// confidence among the rivals for [`Outcome::Ambiguous`], and for [`Outcome::Unsure`] the larger of p(found) and
/// p(absent), or 0 where the answer could not be read.
pub struct Grounder {
    mllm: Mllm,
    strategies: Strategies,
    thresholds: Thresholds,
    calibration: Calibration,
    drafting: Drafting,
}

/// One grounding in work.
struct Work<'a> {
    command: &'a Command,
    strategy: Strategy,
    candidates: Candidates,
    size: Size<SourcePx>,
    drafter: &'a mut dyn Drafter,
    deadline: Option<Instant>,
}

impl Grounder {
    /// A grounder around a language model, with the thresholds of its dialect; `usual` is the strategy of commands that
    /// ask for none, by default the dialect's.
    ///
    /// # Errors
    /// Where the model was not taught `usual`.
    pub fn new(mllm: Mllm, usual: impl Into<Option<Strategy>>) -> Result<Self, StrategyError> {
        let dialect = mllm.speech().dialect();
        let (thresholds, strategies) = (dialect.thresholds(), Strategies::of(dialect, usual)?);
        let calibration = dialect.calibration();
        Ok(Self { mllm, strategies, thresholds, calibration, drafting: Drafting::default() })
    }

    /// What answers are guessed from; [`Drafting::Masks`] by default.
    pub fn set_drafting(&mut self, drafting: Drafting) {
        self.drafting = drafting;
    }

    /// The strategies that it can use.
    pub fn strategies(&self) -> Strategies {
        self.strategies
    }

    /// From which probabilities on it gives verdicts and labels.
    pub fn thresholds(&self) -> Thresholds {
        self.thresholds
    }

    /// What its confidences are worth, with a mask and without.
    pub fn calibration(&self) -> Calibration {
        self.calibration
    }

    /// From now on verdicts and labels are given by `thresholds` instead of the dialect's.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.thresholds = thresholds;
    }

    /// From now on confidences are calibrated by `calibration` instead of the dialect's.
    pub fn set_calibration(&mut self, calibration: Calibration) {
        self.calibration = calibration;
    }

    /// The language model.
    pub fn mllm_mut(&mut self) -> &mut Mllm {
        &mut self.mllm
    }

    /// The first question: the decoded answer and what it says.
    fn propose(&mut self, cache: &KvCache, work: &mut Work<'_>) -> Result<(Generated, String, Proposals), ModelError> {
        let Work { command, strategy, size, ref drafter, deadline, .. } = *work;
        let speech = self.mllm.speech();
        let query = speech.query(strategy, command.hint, &command.text)?;
        let opening = speech.opening(strategy)?.clone();
        let (numbers, scale) = (speech.numbers().map(<[u32]>::to_vec), speech.dialect().scale());
        let last = if self.drafting == Drafting::Masks { drafter.said() } else { Vec::new() };
        let last: Vec<BBox<Grid>> = last.into_iter().map(|b| scale.bbox_to_grid(b, size)).collect();
        let guess = AnswerGuess::new(&opening, numbers.as_deref(), &last);
        let guesses = self.drafting != Drafting::None;
        let constrained = speech.dialect().is_constrained() && strategy != Strategy::Ppg;
        let mut evidence = Evidence::new(numbers.as_deref(), scale, opening.count_on());
        let thresholds = self.thresholds;
        let mut first = First::default();
        let decoding = Decoding {
            first: &mut |p| {
                let [found, absent] = opening.chances(p);
                first = First::read([found.0, absent.0], constrained, thresholds);
                match first.verdict {
                    Some(Verdict::Found) => found.1,
                    Some(Verdict::Absent) => absent.1,
                    None => argmax(p),
                }
            },
            draft: &|answer| if guesses { guess.next(answer) } else { Vec::new() },
            constrained,
            observe: &mut |p, token| evidence.note(p, token),
        };
        let generated = self.mllm.generate(cache, &query, decoding, deadline)?;
        let text = self.mllm.speech().answer(strategy, &generated.tokens)?;
        let (answer, coordinates) = read(self.mllm.speech().dialect(), strategy, &text, generated.stopped);
        let proposals = judge(answer, first, command.hint, &evidence, coordinates);
        Ok((generated, text, proposals))
    }

    /// PQPP's second round: the labelled points of each box.
    fn verify(
        &mut self,
        generated: &Generated,
        proposals: &[Proposal],
        work: &mut Work<'_>,
    ) -> Result<Vec<Vec<LabelledPoint>>, ModelError> {
        let speech = self.mllm.speech();
        let dialect = speech.dialect();
        let (scale, size) = (dialect.scale(), work.size);
        let points: Vec<Vec<Point<Grid>>> =
            proposals.iter().map(|p| work.candidates.over(p.target.bbox, scale)).collect();
        let group = dialect.points_per_question();
        // A question about one point has nothing to draft: its answer is read in the pass that asks it.
        let mut drafts = match self.drafting {
            Drafting::Masks if group > 1 => self.draft_labels(proposals, &points, work),
            Drafting::None | Drafting::Words | Drafting::Masks => vec![Vec::new(); points.len()],
        };
        let mut questions = Vec::new();
        for ((proposal, points), draft) in proposals.iter().zip(&points).zip(&mut drafts) {
            for group in points.chunks(group) {
                let tokens = speech.points_query(proposal.target.bbox, group)?;
                let draft = draft.drain(..group.len().min(draft.len())).collect();
                questions.push(Question { tokens, answers: group.len(), draft });
            }
        }
        // However the answer ended, the conversation goes on with the token that the dialect ends it with.
        let pending = [speech.end()];
        let answers = self.mllm.ask(&generated.cache, &pending, &questions, work.deadline)?;
        let mut answers = answers.into_iter().flatten();
        let label = |point: &Point<Grid>, (yes, no): (f32, f32)| {
            let (p_yes, label) = self.thresholds.point.label(yes, no);
            LabelledPoint { point: scale.to_source(*point, size), p_yes, label }
        };
        Ok(points.iter().map(|points| points.iter().zip(&mut answers).map(|(p, a)| label(p, a)).collect()).collect())
    }

    /// What the model is likely to say of each point.
    fn draft_labels(&self, proposals: &[Proposal], points: &[Vec<Point<Grid>>], work: &mut Work<'_>) -> Vec<Vec<bool>> {
        let (scale, size) = (self.mllm.speech().dialect().scale(), work.size);
        let boxes: Vec<_> = proposals.iter().map(|p| scale.bbox_to_source(p.target.bbox, size)).collect();
        let points: Vec<Vec<_>> =
            points.iter().map(|points| points.iter().map(|p| scale.to_source(*p, size)).collect()).collect();
        guess::labels(work.drafter, &boxes, &points)
    }

    /// The points that PPG's answer itself gave for each target; nobody was asked how sure they are.
    fn said_points(&self, proposals: &[Proposal], size: Size<SourcePx>) -> Vec<Vec<LabelledPoint>> {
        let scale = self.mllm.speech().dialect().scale();
        let label = |(p, on): &GridLabel| {
            let (p_yes, label) = if *on { (1.0, PointLabel::On) } else { (0.0, PointLabel::Off) };
            LabelledPoint { point: scale.to_source(*p, size), p_yes, label }
        };
        proposals.iter().map(|p| p.target.groups.iter().flatten().map(label).collect()).collect()
    }

    /// The instances of an answer, best first.
    fn instances(
        &self,
        proposals: Vec<Proposal>,
        points: Vec<Vec<LabelledPoint>>,
        size: Size<SourcePx>,
    ) -> Vec<GroundedInstance> {
        let scale = self.mllm.speech().dialect().scale();
        let instance = |(proposal, points): (Proposal, Vec<LabelledPoint>)| GroundedInstance {
            proposal: scale.bbox_to_source(proposal.target.bbox, size),
            confidence: self
                .calibration
                .language(proposal.confidence * points.iter().map(|p| p.p_yes).reduce(f32::max).unwrap_or(1.0)),
            points_per_prompt: proposal.target.groups.first().and_then(|group| NonZeroUsize::new(group.len())),
            points,
        };
        let mut instances: Vec<_> = proposals.into_iter().zip(points).map(instance).collect();
        instances.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        instances
    }
}

impl Ground for Grounder {
    fn check(&self, text: &str, hint: CountHint) -> Result<Command, PipelineError> {
        let text = self.mllm.speech().check(text).map_err(|e| PipelineError::Command(e.to_string()))?;
        Ok(Command { text, hint, strategy: None, candidates: None })
    }

    fn ground_drafted(
        &mut self,
        image: &Image,
        command: &Command,
        drafter: &mut dyn Drafter,
        deadline: Option<Instant>,
    ) -> Result<Grounding, PipelineError> {
        let strategy = self.strategies.choose(command.strategy)?;
        let candidates = command.candidates.unwrap_or(self.mllm.speech().dialect().candidates());
        // A command can be made without a check, and unchecked text could speak for the assistant.
        let command = &self.check(&command.text, command.hint)?;
        let mut timings = Timings::default();
        self.mllm.take_passes();
        self.mllm.take_decoded();
        let cache = self.mllm.prefix(image, deadline, &mut timings)?;
        let mut work = Work { command, strategy, candidates, size: image.size(), drafter, deadline };
        let (generated, answer, proposals) = timings.time("proposal", || self.propose(&cache, &mut work))?;
        let Proposals { outcome, confidence, found, first: [p_found, p_absent], malformed } = proposals;
        let size = image.size();
        let mut grounding = Grounding {
            outcome,
            confidence,
            p_found,
            p_absent,
            instances: Vec::new(),
            strategy,
            answer,
            malformed,
            passes: 0,
            decoded: Decoded::default(),
            timings: Vec::new(),
        };
        let points = match strategy {
            Strategy::Pqpp if !found.is_empty() => {
                if work.drafter.wants_proposals() {
                    let instances = self.instances(found.clone(), self.said_points(&found, size), size);
                    let (passes, decoded, timings) = (self.mllm.passes(), self.mllm.decoded(), timings.0.clone());
                    let first = Grounding { strategy: Strategy::Box, passes, decoded, timings, ..grounding.clone() };
                    work.drafter.proposed(first.with(instances));
                }
                timings.time("points", || self.verify(&generated, &found, &mut work))?
            }
            Strategy::Box | Strategy::Ppg | Strategy::Pqpp => self.said_points(&found, size),
        };
        (grounding.passes, grounding.decoded) = (self.mllm.take_passes(), self.mllm.take_decoded());
        grounding.timings = timings.0;
        Ok(grounding.with(self.instances(found, points, size)))
    }
}

impl Grounding {
    /// Whether it says that there is no such thing, or rather that than anything else: a readable answer that names nothing.
    pub fn leans_absent(&self) -> bool {
        let nothing = self.instances.is_empty() && self.malformed.is_none();
        self.outcome == Outcome::Absent || nothing && self.p_absent > 0.5
    }

    /// The same verdict on `instances`, best first; of rivals the least certain says how sure one can be.
    fn with(self, instances: Vec<GroundedInstance>) -> Self {
        let confidence = match self.outcome {
            Outcome::Ambiguous => instances.last().map_or(0.0, |i| i.confidence),
            Outcome::Found | Outcome::Absent | Outcome::Unsure => self.confidence,
        };
        Self { confidence, instances, ..self }
    }
}

/// The first answer as `strategy` reads it, and how many numbers each of its targets has.
fn read(dialect: &Dialect, strategy: Strategy, text: &str, stopped: bool) -> (Result<Answer, AnswerError>, usize) {
    let (answer, coordinates) = match (strategy, dialect.ppg()) {
        (Strategy::Ppg, Some(ppg)) => {
            let points = ppg.groups() * (ppg.positives() + ppg.negatives());
            (ppg.parse(text), BOX_COORDINATES + 2 * points)
        }
        (Strategy::Box | Strategy::Ppg | Strategy::Pqpp, _) => (parse_answer(text, dialect), BOX_COORDINATES),
    };
    // What was cut off may look complete and is not what the model meant to say.
    (if stopped { answer } else { Err(AnswerError::endless(text.len())) }, coordinates)
}

#[cfg(test)]
mod ppg_tests;
#[cfg(test)]
mod tests;
