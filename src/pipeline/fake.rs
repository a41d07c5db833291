//! Stages without models: they really look at the frame, for colours.
//!
//! The grounder finds the command's colour word as connected regions, by every strategy but PPG, which it was not taught;
//! the segmenter returns the region under the prompt. Both are deterministic. They serve tests of everything around the models and `serve --backend fake`.
//! A [`Script`] holds stages up, makes them fail or makes them panic.

mod colour;
mod script;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use colour::Colour;
pub use script::{Gate, Play, Script};

use super::grounder::guess::labels;
use super::{
    Command, Decoded, Drafter, Embedding, Ground, GroundedInstance, Grounding, Outcome, PipelineError, Segment,
    Segmented, Strategies, Strategy, StrategyError,
};
use crate::engine::{EngineError, EngineErrorKind};
use crate::frame::Image;
use crate::geometry::{BBox, Point, SourcePx};
use crate::mask::Mask;
use crate::prompt::{CommandLimits, CountHint, LabelledPoint, PointThresholds, Prompt, check_command};
use colour::Regions;

/// Regions smaller than this share of the frame are noise.
const MIN_SHARE: f32 = 0.0005;
/// Regions smaller than this are noise too, in pixels.
const MIN_PIXELS: u64 = 16;
/// A command has at most that many instances.
const MAX_INSTANCES: usize = 16;
/// What the fake model says of points on and off its region.
const P_YES: (f32, f32) = (0.97, 0.02);

/// Grounds colour words.
pub struct FakeGround {
    play: Arc<Play>,
}

impl FakeGround {
    /// A grounder that follows `play`.
    pub fn new(play: Arc<Play>) -> Self {
        Self { play }
    }

    /// The strategies that it knows: all but PPG.
    ///
    /// # Errors
    /// Where `usual` is none of them.
    pub fn strategies(usual: Strategy) -> Result<Strategies, StrategyError> {
        Strategies::new(usual, false)
    }
}

impl Ground for FakeGround {
    fn check(&self, text: &str, hint: CountHint) -> Result<Command, PipelineError> {
        let control = ["<image>".to_owned(), "<user>".to_owned(), "<assistant>".to_owned()];
        check_command(text, CommandLimits::default(), &control)
            .map(|text| Command { text: text.to_owned(), hint, strategy: None, candidates: None })
            .map_err(|e| PipelineError::Command(e.to_string()))
    }

    fn ground_drafted(
        &mut self,
        image: &Image,
        command: &Command,
        drafter: &mut dyn Drafter,
        deadline: Option<Instant>,
    ) -> Result<Grounding, PipelineError> {
        let start = Instant::now();
        let strategy = Self::strategies(Strategy::default())?.choose(command.strategy)?;
        self.play.enact("fake_mllm", deadline)?;
        let grounding = |outcome, instances, answer: &str| Grounding {
            outcome,
            confidence: if outcome == Outcome::Unsure { 0.0 } else { 0.9 },
            p_found: if outcome == Outcome::Found { 0.9 } else { 0.05 },
            p_absent: if outcome == Outcome::Absent { 0.9 } else { 0.05 },
            instances,
            strategy,
            answer: answer.to_owned(),
            malformed: None,
            passes: 2,
            decoded: Decoded::default(),
            timings: vec![("ground", start.elapsed())],
        };
        let mut instances = match Colour::in_text(&command.text) {
            Some(colour) => instances(image, colour),
            None => return Ok(grounding(Outcome::Unsure, Vec::new(), "i only know colours")),
        };
        if strategy == Strategy::Box {
            instances.iter_mut().for_each(|i| i.points.clear());
        }
        let answer = instances.iter().map(|i| {
            let b = i.proposal;
            format!("[{:.0},{:.0},{:.0},{:.0}]", b.x1, b.y1, b.x2, b.y2)
        });
        let answer: String = answer.collect();
        let (outcome, answer) = match (instances.len(), command.hint) {
            (0, _) => (Outcome::Absent, "no such object"),
            (1, _) | (_, CountHint::OneOrMore | CountHint::NoneOrMore) => (Outcome::Found, &*answer),
            (_, CountHint::One) => (Outcome::Ambiguous, &*answer),
        };
        if strategy == Strategy::Pqpp && !instances.is_empty() {
            if drafter.wants_proposals() {
                let mut boxes = instances.clone();
                boxes.iter_mut().for_each(|i| i.points.clear());
                drafter.proposed(Grounding { strategy: Strategy::Box, ..grounding(outcome, boxes, answer) });
            }
            self.play.points.pass();
        }
        let decoded = decoded(&instances, drafter);
        Ok(Grounding { decoded, ..grounding(outcome, instances, answer) })
    }
}

/// The regions of `colour`, largest first, each with a grid of labelled points.
fn instances(image: &Image, colour: Colour) -> Vec<GroundedInstance> {
    let least = MIN_PIXELS.max((image.size().pixels() as f32 * MIN_SHARE) as u64);
    let mut found: Vec<Mask> = Regions::of(image).all(colour);
    found.retain(|m| m.area() >= least);
    found.sort_by_key(|m| std::cmp::Reverse(m.area()));
    found.truncate(MAX_INSTANCES);
    let thresholds = PointThresholds { positive: 0.75, negative: 0.9 };
    let instance = |mask: &Mask| {
        let proposal = mask.bbox()?;
        let points = grid(proposal).into_iter().map(|point| {
            let p_yes = if mask.at(point) { P_YES.0 } else { P_YES.1 };
            LabelledPoint { point, p_yes, label: thresholds.label(p_yes, 1.0 - p_yes).1 }
        });
        Some(GroundedInstance { proposal, points: points.collect(), points_per_prompt: None, confidence: 0.9 })
    };
    found.iter().filter_map(instance).collect()
}

/// What it would have taken to say the points' labels, guessed as the real model's are.
fn decoded(instances: &[GroundedInstance], drafter: &mut dyn Drafter) -> Decoded {
    let asked: Vec<&GroundedInstance> = instances.iter().filter(|i| !i.points.is_empty()).collect();
    let boxes: Vec<_> = asked.iter().map(|i| i.proposal).collect();
    let points: Vec<Vec<_>> = asked.iter().map(|i| i.points.iter().map(|p| p.point).collect()).collect();
    let guesses = if asked.is_empty() { Vec::new() } else { labels(drafter, &boxes, &points) };
    let said = asked.iter().flat_map(|i| i.points.iter().map(|p| p.p_yes > 0.5));
    let right = guesses.iter().flatten().zip(said).filter(|(guess, said)| **guess == *said).count();
    let drafted = guesses.iter().map(Vec::len).sum::<usize>() as u32;
    Decoded { one_by_one: 2 + drafted, drafted, accepted: right as u32, near_ties: 0 }
}

/// The centres of 5 × 5 cells over a box, row by row.
fn grid(b: BBox<SourcePx>) -> Vec<Point<SourcePx>> {
    let at = |start: f32, side: f32, i: usize| start + side * (i as f32 + 0.5) / 5.0;
    (0..25).map(|i| Point::new(at(b.x1, b.width(), i % 5), at(b.y1, b.height(), i / 5))).collect()
}

/// Segments the region of one colour under its prompt.
pub struct FakeSegment {
    play: Arc<Play>,
}

impl FakeSegment {
    /// A segmenter that follows `play`.
    pub fn new(play: Arc<Play>) -> Self {
        Self { play }
    }
}

impl Segment for FakeSegment {
    fn embed(&mut self, image: &Image) -> Result<Embedding, PipelineError> {
        self.play.enact("fake_sam", None)?;
        Ok(Embedding { data: Box::new(Regions::of(image)) })
    }

    fn segment(&mut self, embedding: &Embedding, prompts: &[Prompt]) -> Result<Vec<Segmented>, PipelineError> {
        let Some(regions) = embedding.data.downcast_ref::<Regions>() else {
            let what = "is the embedding of another segmenter".to_owned();
            return Err(PipelineError::Output { engine: "fake_sam", what });
        };
        Ok(prompts.iter().map(|p| region_under(regions, p, self.play.score())).collect())
    }
}

/// The region under the first positive point that has one inside the box, else under the box's centre; empty and with
/// score 0 where there is only background.
fn region_under(regions: &Regions, prompt: &Prompt, score: f32) -> Segmented {
    let inside = |p: &Point<SourcePx>| prompt.bbox.is_none_or(|b| b.contains(*p));
    let points = prompt.points.iter().filter(|(_, on)| *on).map(|(p, _)| *p).filter(inside);
    let centre = prompt.bbox.map(|b| b.centre());
    match points.chain(centre).find_map(|p| regions.at(p)) {
        Some(mask) => Segmented { mask, score },
        None => Segmented { mask: Mask::empty(regions.size()), score: 0.0 },
    }
}

fn failure(engine: &'static str) -> PipelineError {
    EngineError::new(EngineErrorKind::Run, engine, "the script says so").into()
}

fn late(deadline: Instant) -> Option<Duration> {
    Instant::now().checked_duration_since(deadline)
}

#[cfg(test)]
mod tests;
