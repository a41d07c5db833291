//! What the model is taught to answer: boxes and points of an expression's targets, in each strategy's words.
//!
//! Source: arXiv 2409.10542, section 3.

use std::collections::HashMap;

use super::subject::{Said, Subject};
use super::tally::Reason;
use super::{DialogueError, DialogueOptions, Exchange, Wording};
use crate::geometry::{BBox, Grid};
use crate::mask::Mask;
use crate::pipeline::{Embedding, GroupSearchError, PipelineError, Segment, best_groups};
use crate::prompt::{
    CountHint, EncodeErrorKind, GridLabel, GridPrompt, MAX_BOXES, Strategy, draw_question, label_points, poisson_disk,
};
use crate::rng::SceneRng;

/// How often the hint is the one that tells nothing, where another would be true as well: it is what a robot mostly
/// gives.
const UNTOLD: f32 = 0.5;

/// One thing said of a picture, as dialogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lesson {
    pub exchanges: Vec<Exchange>,
    pub expression: bool,
    /// Whether the first answer of an expression names boxes.
    pub found: bool,
    /// Points answered with yes and with no.
    pub points: [u64; 2],
}

/// Why there is no lesson: it is left out, or all stops.
pub(super) enum Failed {
    Left(Reason),
    Stopped(DialogueError),
}

impl From<Reason> for Failed {
    fn from(reason: Reason) -> Self {
        Self::Left(reason)
    }
}

/// SAM with the picture of one subject, which it looks at once at most, and what it found for each mask.
pub(super) struct Sam<'a> {
    stage: Option<&'a mut (dyn Segment + 'static)>,
    embedding: Option<Embedding>,
    found: HashMap<usize, Result<GridPrompt, Reason>>,
}

/// Teaches what is said of one subject.
pub(super) struct Teacher<'a> {
    pub wording: &'a Wording,
    pub options: &'a DialogueOptions,
    pub subject: &'a Subject,
    /// PPG's groups are drawn from it.
    pub seed: u64,
    pub sam: Sam<'a>,
}

impl<'a> Sam<'a> {
    pub(super) fn new(stage: Option<&'a mut (dyn Segment + 'static)>) -> Self {
        Self { stage, embedding: None, found: HashMap::new() }
    }
}

impl Teacher<'_> {
    /// One lesson; the same one from the same seed.
    ///
    /// # Errors
    /// [`Failed`].
    pub(super) fn lesson(&mut self, said: &Said, seed: u64) -> Result<Lesson, Failed> {
        match said {
            Said::Turns(exchanges) => {
                let mut texts = exchanges.iter().flat_map(|e| [&e.user, &e.assistant]);
                texts.try_for_each(|text| self.wording.check_turn(text))?;
                Ok(Lesson { exchanges: exchanges.clone(), expression: false, found: false, points: [0; 2] })
            }
            Said::Expression { text, targets, ignored } => {
                let text = self.wording.check_expression(text)?;
                self.referring(text, targets, *ignored, &mut SceneRng::new(&[seed]))
            }
        }
    }

    fn referring(
        &mut self,
        text: &str,
        targets: &[usize],
        ignored: Option<usize>,
        rng: &mut SceneRng,
    ) -> Result<Lesson, Failed> {
        if targets.len() > MAX_BOXES {
            return Err(Reason::TooManyTargets.into());
        }
        let boxes = self.boxes(targets)?;
        let (hint, strategy) = (hint(targets.len(), rng), *rng.pick(&self.options.strategies));
        let (dialect, wording) = (self.wording.dialect(), self.wording);
        let mut lesson = Lesson { exchanges: Vec::new(), expression: true, found: !boxes.is_empty(), points: [0; 2] };
        if strategy == Strategy::Ppg {
            let ppg = dialect.ppg().expect("PPG was checked when the options were");
            let prompts = boxes.iter().map(|(m, _)| self.groups(*m)).collect::<Result<Vec<_>, _>>()?;
            let answer = ppg.write(&prompts).map_err(|e| Failed::Stopped(DialogueError::Wording(e.to_string())))?;
            lesson.exchanges.push(wording.exchange(&ppg.query(hint, text), answer));
            return Ok(lesson);
        }
        let answer = match boxes.is_empty() {
            true => dialect.absent_answer().to_owned(),
            false => boxes.iter().map(|(_, b)| dialect.write_box(*b)).collect(),
        };
        lesson.exchanges.push(wording.exchange(&dialect.proposal_query(hint, text), answer));
        if strategy == Strategy::Pqpp {
            for (mask, bbox) in some_of(&boxes, self.options.questions, rng) {
                self.question(mask, bbox, ignored, rng.bits(), &mut lesson);
            }
        }
        Ok(lesson)
    }

    /// Masks with their boxes on the grid, from left to right.
    fn boxes(&self, targets: &[usize]) -> Result<Vec<(usize, BBox<Grid>)>, Reason> {
        let scale = self.wording.dialect().scale();
        let mut boxes = Vec::with_capacity(targets.len());
        for &target in targets {
            let mask = &self.subject.masks[target];
            let bbox = scale.bbox_to_grid(mask.bbox().ok_or(Reason::EmptyMask)?, mask.size());
            if bbox.area() <= 0.0 {
                return Err(Reason::TooSmall);
            }
            boxes.push((target, bbox));
        }
        boxes.sort_by(|(_, a), (_, b)| (a.x1 + a.x2).total_cmp(&(b.x1 + b.x2)).then(a.y1.total_cmp(&b.y1)));
        Ok(boxes)
    }

    /// PQPP's second round for one target.
    fn question(&self, mask: usize, bbox: BBox<Grid>, ignored: Option<usize>, seed: u64, lesson: &mut Lesson) {
        let dialect = self.wording.dialect();
        let (scale, masks) = (dialect.scale(), &self.subject.masks);
        let mut points = label_points(&poisson_disk(bbox, seed), &masks[mask], scale);
        if let Some(ignored) = ignored.map(|i| &masks[i]) {
            let counts = |(p, _): &GridLabel| !ignored.at(scale.to_source(*p, ignored.size()));
            points.retain(counts);
        }
        let drawn = draw_question(&points, seed);
        for points in drawn.chunks(dialect.points_per_question()) {
            let query = self.wording.points_query(bbox, points);
            lesson.exchanges.push(self.wording.exchange(&query, self.wording.points_answer(points)));
            let yes = points.iter().filter(|(_, on)| *on).count();
            lesson.points[0] += yes as u64;
            lesson.points[1] += (points.len() - yes) as u64;
        }
    }

    /// PPG's groups of a mask: of many those that SAM makes most of.
    fn groups(&mut self, mask: usize) -> Result<GridPrompt, Failed> {
        if let Some(found) = self.sam.found.get(&mask) {
            return found.clone().map_err(Failed::Left);
        }
        let found = self.search(mask, &self.subject.masks[mask]);
        let found = match found {
            Err(Failed::Stopped(error)) => return Err(Failed::Stopped(error)),
            Err(Failed::Left(reason)) => Err(reason),
            Ok(prompt) => Ok(prompt),
        };
        self.sam.found.insert(mask, found.clone());
        found.map_err(Failed::Left)
    }

    fn search(&mut self, index: usize, mask: &Mask) -> Result<GridPrompt, Failed> {
        let stage = self.sam.stage.as_deref_mut().expect("there is a segmenter for each thread, which was checked");
        let stopped = |e: PipelineError| Failed::Stopped(DialogueError::Segment(e));
        if self.sam.embedding.is_none() {
            let image = self.subject.picture.pixels();
            let image = image.map_err(|what| Failed::Stopped(self.subject.damaged(what)))?;
            if image.size() != mask.size() {
                return Err(Failed::Stopped(self.subject.damaged("its pixels are not of its size".to_owned())));
            }
            self.sam.embedding = Some(stage.embed(&image).map_err(stopped)?);
        }
        let embedding = self.sam.embedding.as_ref().expect("it was just made");
        let ppg = self.wording.dialect().ppg().expect("PPG was checked when the options were");
        let mut search = self.options.search;
        search.seed = SceneRng::new(&[self.seed, index as u64]).bits();
        best_groups(stage, embedding, mask, ppg, search).map_err(|e| match e {
            GroupSearchError::Segment(e) => stopped(e),
            GroupSearchError::Poor { .. } => Reason::PoorGroups.into(),
            GroupSearchError::Encode(e) => match e.kind() {
                EncodeErrorKind::Empty => Reason::EmptyMask.into(),
                EncodeErrorKind::Degenerate => Reason::TooSmall.into(),
                EncodeErrorKind::Positives | EncodeErrorKind::Negatives => Reason::FewPoints.into(),
            },
        })
    }
}

/// A hint that is true of `targets`.
fn hint(targets: usize, rng: &mut SceneRng) -> CountHint {
    match targets {
        0 => CountHint::NoneOrMore,
        _ if rng.chance(UNTOLD) => CountHint::NoneOrMore,
        1 => *rng.pick(&[CountHint::One, CountHint::OneOrMore]),
        _ => CountHint::OneOrMore,
    }
}

/// Up to `most` different elements, in their order.
fn some_of<T: Copy>(items: &[T], most: usize, rng: &mut SceneRng) -> Vec<T> {
    let mut indices: Vec<usize> = (0..items.len()).collect();
    rng.shuffle(&mut indices);
    indices.truncate(most);
    indices.sort_unstable();
    indices.into_iter().map(|i| items[i]).collect()
}
