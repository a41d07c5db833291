//! From a command to a grounding, from a grounding to a mask, from a mask to the next one. No tokio, no tonic.
//!
//! The two traits are the seam between the node and the models: [`Ground`] is the language model's side,
//! [`Segment`] is SAM's. Each implementation is owned by one thread.

mod best_groups;
mod colours;
mod deep_points;
mod draft;
mod evidence;
pub mod fake;
mod grounder;
mod groups;
mod segmenter;
mod tracker;
mod zoom;

pub use best_groups::{GroupSearch, GroupSearchError, TRIED_GROUPS, best_groups};
pub use draft::{Drafter, Drafting, FrameSam, NoDrafts, SamDrafts, box_prompts};
pub use grounder::Grounder;
pub use groups::segment_groups;
pub use segmenter::Segmenter;
pub use tracker::{Drift, DriftLimits, Likeness, LostReason, Track, TrackLimits};

pub use crate::model::mllm::Decoded;
pub use crate::prompt::{Strategies, Strategy, StrategyError};

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use crate::engine::EngineError;
use crate::engine::bundle::Bundle;
use crate::frame::Image;
use crate::geometry::{BBox, SourcePx};
use crate::mask::Mask;
use crate::model::ModelError;
use crate::model::stages::{LoadError, LoadOptions, Models, load_mllm, load_sam};
use crate::prompt::{AnswerError, Candidates, CountHint, LabelledPoint, MaskSigns, Prompt};

/// A bundle's two sides of the pipeline, loaded.
pub struct Stages {
    /// The language model's side.
    pub grounder: Grounder,
    /// SAM's side.
    pub segmenter: Segmenter,
    /// Where the time of loading went, by engine.
    pub timings: Vec<(&'static str, Duration)>,
}

impl Stages {
    /// Loads `bundle`; `usual` is the strategy of commands that ask for none, by default the dialect's.
    ///
    /// # Errors
    /// Every [`LoadError`].
    pub fn load(bundle: &Bundle, usual: impl Into<Option<Strategy>>, options: &LoadOptions) -> Result<Self, LoadError> {
        let Models { mllm, encoder, decoder, timings } = Models::load(bundle, options)?;
        let grounder = Grounder::new(mllm, usual)?;
        Ok(Self { grounder, segmenter: Segmenter::new(encoder, decoder, bundle.manifest().sam.zoom), timings })
    }
}

impl Grounder {
    /// Loads the language model's side of `bundle` alone; `usual` is the strategy of commands that ask for none, by default the dialect's.
    ///
    /// # Errors
    /// Every [`LoadError`].
    pub fn load(bundle: &Bundle, usual: impl Into<Option<Strategy>>, options: &LoadOptions) -> Result<Self, LoadError> {
        Ok(Self::new(load_mllm(bundle, options)?.0, usual)?)
    }
}

impl Segmenter {
    /// Loads SAM's side of `bundle` alone.
    ///
    /// # Errors
    /// [`LoadError::Import`], [`LoadError::Engine`], and [`LoadError::SelfTest`] where engines are tested.
    pub fn load(bundle: &Bundle, options: &LoadOptions) -> Result<Self, LoadError> {
        let (encoder, decoder, _) = load_sam(bundle, options)?;
        Ok(Self::new(encoder, decoder, bundle.manifest().sam.zoom))
    }
}

/// What the user said, checked: not empty, not oversized, free of control tokens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Command {
    /// The text, trimmed.
    pub text: String,
    /// How many targets it may have.
    pub hint: CountHint,
    /// The strategy to use; `None` for the usual one.
    pub strategy: Option<Strategy>,
    /// Where PQPP asks about points; `None` for the dialect's own layout.
    pub candidates: Option<Candidates>,
}

impl Command {
    /// The same command by `strategy`.
    #[must_use]
    pub fn by(self, strategy: Strategy) -> Self {
        Self { strategy: Some(strategy), ..self }
    }

    /// The same command with PQPP's points laid out as `candidates`.
    #[must_use]
    pub fn with(self, candidates: Candidates) -> Self {
        Self { candidates: Some(candidates), ..self }
    }
}

/// What the language model made of a command on one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Grounding {
    /// The verdict.
    pub outcome: Outcome,
    /// Confidence in the outcome, `0.0..=1.0`.
    pub confidence: f32,
    /// Probability that the answer's first token starts a box, `0.0..=1.0`; where only answers that can be read may be said, of
    /// those.
    pub p_found: f32,
    /// Probability that it starts the absent answer, likewise.
    pub p_absent: f32,
    /// The instances, best first; empty unless the outcome names some.
    pub instances: Vec<GroundedInstance>,
    /// The strategy that was used.
    pub strategy: Strategy,
    /// The model's first answer, verbatim.
    pub answer: String,
    /// Why that answer could not be read; then the outcome is [`Outcome::Unsure`] without instances.
    pub malformed: Option<AnswerError>,
    /// Passes through the language model that it took.
    pub passes: u32,
    /// What it would have taken without drafts, and how good the drafts were.
    pub decoded: Decoded,
    /// Where the time went, by stage name.
    pub timings: Vec<(&'static str, Duration)>,
}

/// The language model's verdict on a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The target or targets are in the frame.
    Found,
    /// There is no such thing in the frame.
    Absent,
    /// One target was asked for, several match.
    Ambiguous,
    /// The model is not sure enough either way, or its answer could not be read.
    Unsure,
}

/// One grounded instance: a proposal with its labelled points.
#[derive(Debug, Clone, PartialEq)]
pub struct GroundedInstance {
    /// The box of the first answer.
    pub proposal: BBox<SourcePx>,
    /// With PQPP the round-2 points, all of them, in the order they were asked; with PPG those of the answer, one group
    /// after the other, their p(yes) 1 or 0.
    pub points: Vec<LabelledPoint>,
    /// Points of each group, where each group is a prompt of its own; `None` where all points make one prompt.
    pub points_per_prompt: Option<NonZeroUsize>,
    /// Confidence in this instance, `0.0..=1.0`.
    pub confidence: f32,
}

/// One mask from SAM.
#[derive(Debug, Clone, PartialEq)]
pub struct Segmented {
    /// The mask in source pixels.
    pub mask: Mask,
    /// SAM's own estimate of the mask's IoU, `0.0..=1.0`.
    pub score: f32,
}

impl Segmented {
    /// What the mask tells of an instance that the language model's box `proposal` stands for.
    pub fn signs(&self, proposal: &BBox<SourcePx>) -> MaskSigns {
        MaskSigns::new(self.score, self.mask.area(), proposal.area())
    }
}

/// SAM's encoding of one frame; opaque to everyone but the [`Segment`] that made it.
pub struct Embedding {
    /// The implementation's data.
    pub data: Box<dyn std::any::Any + Send + Sync>,
}

/// A pipeline stage failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// An engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An engine's output has an unexpected shape or holds NaN.
    #[error("read output of engine `{engine}`: {what}")]
    Output {
        /// The engine.
        engine: &'static str,
        /// What is wrong.
        what: String,
    },
    /// The command cannot be asked.
    #[error("check command: {0}")]
    Command(String),
    /// The command asks for a strategy that the language model was not taught.
    #[error(transparent)]
    Strategy(#[from] StrategyError),
    /// The deadline passed before the work was done.
    #[error("meet deadline: passed {0:?} ago")]
    Deadline(Duration),
}

impl From<ModelError> for PipelineError {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Engine(error) => Self::Engine(error),
            ModelError::Output { engine, tensor, what } => Self::Output { engine, what: format!("`{tensor}` {what}") },
            ModelError::Frame(what) => Self::Output { engine: "preprocess", what },
            ModelError::Prompt(what) => Self::Output { engine: "mask_decoder", what },
            ModelError::Tokenize(what) => Self::Command(what),
            ModelError::TooLong { .. } => Self::Command(error.to_string()),
            ModelError::Strategy(error) => Self::Strategy(error),
            ModelError::Deadline(late) => Self::Deadline(late),
        }
    }
}

/// The language model's side: command + image → grounding.
pub trait Ground: Send {
    /// Checks text from outside; cheap, needs no model pass.
    ///
    /// # Errors
    /// [`PipelineError::Command`] for an empty or oversized text, or one that holds the model's control tokens.
    fn check(&self, text: &str, hint: CountHint) -> Result<Command, PipelineError>;

    /// Grounds `command` in `image`; gives up between passes once `deadline` is over.
    ///
    /// # Errors
    /// Engine failures, missed deadlines, and [`PipelineError::Strategy`]. An unreadable model answer is no error but
    /// [`Outcome::Unsure`] with [`Grounding::malformed`].
    fn ground(
        &mut self,
        image: &Image,
        command: &Command,
        deadline: Option<Instant>,
    ) -> Result<Grounding, PipelineError> {
        self.ground_drafted(image, command, &mut NoDrafts, deadline)
    }

    /// The same, where answers can be guessed from `drafter`'s masks: the grounding is the same (but for
    /// [`Decoded::near_ties`] tokens), only sooner.
    ///
    /// # Errors
    /// Those of [`Ground::ground`].
    fn ground_drafted(
        &mut self,
        image: &Image,
        command: &Command,
        drafter: &mut dyn Drafter,
        deadline: Option<Instant>,
    ) -> Result<Grounding, PipelineError>;
}

/// SAM's side: image → embedding, embedding + prompts → masks.
pub trait Segment: Send {
    /// Encodes a frame, once for all its targets; an implementation may put off what no prompt has asked for yet.
    ///
    /// # Errors
    /// Engine failures.
    fn embed(&mut self, image: &Image) -> Result<Embedding, PipelineError>;

    /// One mask for each prompt, in order; all prompts go through the mask decoder as one batch.
    ///
    /// # Errors
    /// Engine failures.
    fn segment(&mut self, embedding: &Embedding, prompts: &[Prompt]) -> Result<Vec<Segmented>, PipelineError>;
}
