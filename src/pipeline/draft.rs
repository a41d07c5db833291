//! Where the language model's answers can be guessed from before it gives them.
//!
//! A guess costs nothing but its own making: the model checks it in the pass that it takes anyway, and says what it would
//! have said without it.

use crate::frame::Image;
use crate::geometry::{BBox, SourcePx};
use crate::mask::Mask;
use crate::prompt::Prompt;

use super::{Embedding, Grounding, PipelineError, Segment, Segmented};

/// What answers are guessed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Drafting {
    /// Nothing is guessed: one token a pass.
    None,
    /// Words and signs that are the same in every answer.
    Words,
    /// Those; boxes and labels from where the target was last; labels from SAM's mask of the box alone.
    #[default]
    #[value(name = "sam")]
    #[serde(rename = "sam")]
    Masks,
}

impl Drafting {
    /// As flags and files call it.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Words => "words",
            Self::Masks => "sam",
        }
    }
}

/// Masks that a grounding is guessed from: SAM's side, as the language model's side sees it.
pub trait Drafter {
    /// The masks that the target had last, each of an instance of its own; empty where it has never been found.
    fn last(&self) -> Vec<&Mask>;

    /// The boxes that the model is likely to name: where nothing has moved those that it named last, else those of the
    /// last masks.
    fn said(&self) -> Vec<BBox<SourcePx>> {
        self.last().into_iter().filter_map(Mask::bbox).collect()
    }

    /// SAM's mask for each of `boxes` of the frame that is grounded, prompted with the box alone; `None` where there is
    /// no SAM, or where it has no time.
    fn masks(&mut self, boxes: &[BBox<SourcePx>]) -> Option<Vec<Mask>>;

    /// Whether boxes are wanted as soon as the first question is answered, where a second one follows.
    fn wants_proposals(&self) -> bool {
        false
    }

    /// Takes them: what would be the whole answer by [`Strategy::Box`](super::Strategy::Box).
    fn proposed(&mut self, _: Grounding) {}
}

/// No masks at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoDrafts;

impl Drafter for NoDrafts {
    fn last(&self) -> Vec<&Mask> {
        Vec::new()
    }

    fn masks(&mut self, _: &[BBox<SourcePx>]) -> Option<Vec<Mask>> {
        None
    }
}

/// Masks by a SAM that is at hand.
pub struct SamDrafts<'a, F> {
    last: &'a [Mask],
    sam: F,
}

impl<'a, F> SamDrafts<'a, F>
where
    F: FnMut(&[Prompt]) -> Result<Vec<Segmented>, PipelineError>,
{
    /// The masks that the target had `last`, and those that `sam` gives, one for each prompt.
    pub fn new(last: &'a [Mask], sam: F) -> Self {
        Self { last, sam }
    }
}

impl<F> Drafter for SamDrafts<'_, F>
where
    F: FnMut(&[Prompt]) -> Result<Vec<Segmented>, PipelineError>,
{
    fn last(&self) -> Vec<&Mask> {
        self.last.iter().collect()
    }

    fn masks(&mut self, boxes: &[BBox<SourcePx>]) -> Option<Vec<Mask>> {
        match (self.sam)(&box_prompts(boxes)) {
            Ok(masks) => Some(masks.into_iter().map(|m| m.mask).collect()),
            Err(error) => {
                // Whoever needs SAM's masks for more than a guess will meet the error again.
                tracing::debug!(%error, "no masks to draft from");
                None
            }
        }
    }
}

/// SAM and one frame, which is embedded once, when that is needed.
pub struct FrameSam<'a> {
    stage: &'a mut dyn Segment,
    frame: &'a Image,
    embedding: Option<Embedding>,
}

impl<'a> FrameSam<'a> {
    /// `stage` on `frame`, which it has not seen yet.
    pub fn new(stage: &'a mut dyn Segment, frame: &'a Image) -> Self {
        Self { stage, frame, embedding: None }
    }

    /// The stage, and the frame's embedding.
    ///
    /// # Errors
    /// Engine failures.
    pub fn ready(&mut self) -> Result<(&mut dyn Segment, &Embedding), PipelineError> {
        let embedding = match self.embedding.take() {
            Some(embedding) => embedding,
            None => self.stage.embed(self.frame)?,
        };
        Ok((&mut *self.stage, self.embedding.insert(embedding)))
    }

    /// One mask for each prompt.
    ///
    /// # Errors
    /// Engine failures.
    pub fn segment(&mut self, prompts: &[Prompt]) -> Result<Vec<Segmented>, PipelineError> {
        let (stage, embedding) = self.ready()?;
        stage.segment(embedding, prompts)
    }
}

/// Each box as a prompt of its own, without points.
pub fn box_prompts(boxes: &[BBox<SourcePx>]) -> Vec<Prompt> {
    boxes.iter().map(|b| Prompt { bbox: Some(*b), points: Vec::new() }).collect()
}
