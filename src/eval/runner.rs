//! Runs a pipeline over a split and sums up, for a strategy and for its box alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::metrics::{Metrics, Sample};
use crate::dataset::{Expression, ExpressionType, Scene, SceneGenerator, SceneOptions};
use crate::frame::Image;
use crate::mask::Mask;
use crate::pipeline::{
    Decoded, Embedding, Ground, Grounding, Outcome, PipelineError, SamDrafts, Segment, Strategy, segment_groups,
};
use crate::prompt::{CountHint, PointLabel, Prompt};

/// What to evaluate on.
#[derive(Debug, Clone)]
pub struct Options {
    /// First scene of the split. Default: 0.
    pub first: u64,
    /// Scenes. Default: 500.
    pub scenes: u64,
    /// Expressions a scene. Default: 4.
    pub expressions: usize,
    /// Longest image side in pixels. Default: 320.
    pub side: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { first: 0, scenes: 500, expressions: 4, side: 320 }
    }
}

/// Everything that was measured.
#[derive(Debug, Clone, Default)]
pub struct Evaluation {
    /// One sample an expression, by the strategy.
    pub answers: Vec<Sample>,
    /// The same answers with SAM prompted by the proposal alone.
    pub box_only: Vec<Sample>,
    /// How often each outcome was given, by expression type.
    pub outcomes: BTreeMap<(ExpressionType, &'static str), usize>,
    /// Answers that could not be read; each is an unsure outcome too.
    pub malformed: usize,
    /// Time of each grounding.
    pub grounding: Vec<Duration>,
    /// Passes through the language model, over all groundings.
    pub passes: u64,
    /// What they would have been one token at a time, and how good the drafts were.
    pub decoded: Decoded,
    /// Labelled points that agree with the truth, and all of them: for instances on the right object.
    pub points: (u64, u64),
}

/// The figures, ready to be printed or written.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Scenes and expressions answered.
    pub scenes: u64,
    /// The strategy, by its word, with its figures.
    #[serde(flatten)]
    pub answers: BTreeMap<&'static str, Metrics>,
    /// Box alone.
    pub box_only: Metrics,
    /// The strategy's figures by expression type.
    pub by_type: BTreeMap<&'static str, Metrics>,
    /// No-target expressions that are almost right.
    pub near_miss: Metrics,
    /// How often each outcome was given: `type/outcome`.
    pub outcomes: BTreeMap<String, usize>,
    /// Answers that could not be read.
    pub malformed: usize,
    /// Passes through the language model a grounding.
    pub passes_per_grounding: f64,
    /// What it would have been one token at a time.
    pub one_by_one_per_grounding: f64,
    /// Tokens that were drafted.
    pub drafted: u32,
    /// Drafted tokens that the language model would have said itself.
    pub accepted: u32,
    /// Tokens that could be others without drafts.
    pub near_ties: u32,
    /// Share of labelled points that are right, where the box is on the right object.
    pub point_accuracy: f64,
}

/// A pipeline under evaluation.
pub struct Evaluator<'a> {
    /// The language model's side.
    pub ground: &'a mut dyn Ground,
    /// SAM's side.
    pub segment: &'a mut dyn Segment,
    /// How the prompt is got from the language model.
    pub strategy: Strategy,
}

impl Evaluator<'_> {
    /// Answers every expression of the chosen scenes; `progress` is called after each scene.
    ///
    /// # Errors
    /// Engine failures. A bad answer is a bad score, never an error.
    pub fn run(
        &mut self,
        generator: &SceneGenerator,
        options: &Options,
        mut progress: impl FnMut(&Evaluation, &Scene),
    ) -> Result<Evaluation, PipelineError> {
        let mut evaluation = Evaluation::default();
        let look = SceneOptions { longest_side: options.side, ..SceneOptions::default() };
        for index in options.first..options.first + options.scenes {
            let scene = generator.scene(index, &look);
            let image = Image::from_rgb(scene.size, scene.rgb.clone()).expect("a scene fills its size");
            let embedding = self.segment.embed(&image)?;
            for expression in scene.expressions(options.expressions) {
                self.answer(&scene, &image, &embedding, &expression, &mut evaluation)?;
            }
            progress(&evaluation, &scene);
        }
        Ok(evaluation)
    }

    fn answer(
        &mut self,
        scene: &Scene,
        image: &Image,
        embedding: &Embedding,
        expression: &Expression,
        evaluation: &mut Evaluation,
    ) -> Result<(), PipelineError> {
        let truth = (!expression.targets.is_empty()).then(|| scene.mask_of(&expression.targets));
        let sample = |m: Option<&Mask>| Sample::new(expression.kind, expression.near_miss, truth.as_ref(), m);
        let command = match self.ground.check(&expression.text, CountHint::NoneOrMore) {
            Ok(command) => command.by(self.strategy),
            // A word that the model does not know: the robot is told so, and gets no mask.
            Err(PipelineError::Command(_)) => {
                *evaluation.outcomes.entry((expression.kind, "refused")).or_default() += 1;
                evaluation.answers.push(sample(None));
                evaluation.box_only.push(sample(None));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let start = Instant::now();
        let mut drafts = SamDrafts::new(&[], |prompts| self.segment.segment(embedding, prompts));
        let grounding = self.ground.ground_drafted(image, &command, &mut drafts, None)?;
        evaluation.grounding.push(start.elapsed());
        evaluation.passes += u64::from(grounding.passes);
        evaluation.decoded += grounding.decoded;
        *evaluation.outcomes.entry((expression.kind, word(grounding.outcome))).or_default() += 1;
        evaluation.malformed += usize::from(grounding.malformed.is_some());

        if let Some(truth) = &truth {
            count_points(&grounding, truth, &mut evaluation.points);
        }
        let with_points = self.mask(embedding, &grounding, true)?;
        let box_only = self.mask(embedding, &grounding, false)?;
        evaluation.answers.push(sample(with_points.as_ref()));
        evaluation.box_only.push(sample(box_only.as_ref()));
        Ok(())
    }

    /// The union of the masks of all instances, as a robot would get them; `None` where the outcome holds none.
    fn mask(&mut self, embedding: &Embedding, g: &Grounding, points: bool) -> Result<Option<Mask>, PipelineError> {
        if !matches!(g.outcome, Outcome::Found | Outcome::Ambiguous) || g.instances.is_empty() {
            return Ok(None);
        }
        let prompts: Vec<Vec<Prompt>> = g
            .instances
            .iter()
            .map(|i| match points {
                true => i.prompts(),
                false => vec![Prompt { bbox: Some(i.proposal), points: Vec::new() }],
            })
            .collect();
        let mut masks = segment_groups(self.segment, embedding, &prompts)?.into_iter().map(|s| s.mask);
        let Some(mut all) = masks.next() else { return Ok(None) };
        masks.for_each(|m| all.union_with(&m));
        Ok(Some(all))
    }
}

/// Counts the confident points of instances whose box lies mostly on the target.
fn count_points(grounding: &Grounding, truth: &Mask, (right, all): &mut (u64, u64)) {
    for instance in &grounding.instances {
        if !truth.bbox().is_some_and(|b| b.iou(&instance.proposal) >= 0.5) {
            continue;
        }
        for p in instance.points.iter().filter(|p| p.label != PointLabel::Unsure) {
            *all += 1;
            *right += u64::from(truth.at(p.point) == (p.label == PointLabel::On));
        }
    }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Found => "found",
        Outcome::Absent => "absent",
        Outcome::Ambiguous => "ambiguous",
        Outcome::Unsure => "unsure",
    }
}

impl Evaluation {
    /// The figures over everything that was answered so far by `strategy`, `scenes` scenes.
    pub fn report(&self, strategy: Strategy, scenes: u64) -> Report {
        let of_type = |t: ExpressionType| Metrics::of(self.answers.iter().filter(move |s| s.kind == t));
        let groundings = self.grounding.len().max(1) as f64;
        Report {
            scenes,
            answers: BTreeMap::from([(strategy.word(), Metrics::of(self.answers.iter()))]),
            box_only: Metrics::of(self.box_only.iter()),
            by_type: ExpressionType::ALL.into_iter().map(|t| (t.word(), of_type(t))).collect(),
            near_miss: Metrics::of(self.answers.iter().filter(|s| s.near_miss)),
            outcomes: self.outcomes.iter().map(|((t, o), n)| (format!("{}/{o}", t.word()), *n)).collect(),
            malformed: self.malformed,
            passes_per_grounding: self.passes as f64 / groundings,
            one_by_one_per_grounding: f64::from(self.decoded.one_by_one) / groundings,
            drafted: self.decoded.drafted,
            accepted: self.decoded.accepted,
            near_ties: self.decoded.near_ties,
            point_accuracy: self.points.0 as f64 / self.points.1.max(1) as f64,
        }
    }
}
