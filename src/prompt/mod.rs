//! The paper's codec: what the language model is asked, what it answers, and the prompt SAM gets from it; and the
//! way back, from a mask to what the model is taught to say.
//!
//! One checkpoint may speak two dialects: boxes with yes or no to points ([`parse_answer`], [`candidates`]), and boxes
//! with points in one answer ([`Ppg`]).

mod calibration;
mod codec;
mod command;
mod cursor;
pub(crate) mod dialect;
mod filter;
mod grammar;
mod grid;
mod json;
mod mask_points;
pub(crate) mod ppg;
mod strategy;
mod template;
mod training;

pub use calibration::MaskSigns;
pub(crate) use calibration::logit;
pub use codec::{Answer, GridLabel, GridPrompt, MAX_BOXES, parse_answer};
pub use command::{CommandError, CommandLimits, check_command};
pub use cursor::{AnswerError, AnswerErrorKind};
pub use dialect::{Dialect, Thresholds};
pub use filter::{MIN_ANSWER_MASS, PointThresholds};
pub use grammar::{Progress, progress, progress_within};
pub use grid::{BLUE_NOISE_POINTS, Candidates, candidates};
pub(crate) use json::names_target;
pub use mask_points::{EncodeError, EncodeErrorKind, MaskPoints};
pub use ppg::Ppg;
pub use strategy::{Strategies, Strategy, StrategyError};
pub use template::{DialectError, DialectErrorKind};
pub use training::{POISSON_RADIUS, draw_question, label_points, poisson_disk, question_size};

use crate::geometry::{BBox, Point, SourcePx};

/// How many targets a command may have; becomes part of the query.
///
/// Source: arXiv 2409.10542, section 3.4 (GRES).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CountHint {
    /// Exactly one.
    One,
    /// One or more.
    OneOrMore,
    /// None, one or several: nothing is known.
    #[default]
    NoneOrMore,
}

/// A point with the language model's verdict on it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelledPoint {
    /// Where.
    pub point: Point<SourcePx>,
    /// Probability of "yes, on the object", `0.0..=1.0`, from the softmax of the answering step.
    pub p_yes: f32,
    /// What SAM is told: on the object, off it, or nothing because the answer was not confident.
    pub label: PointLabel,
}

/// What SAM is told about a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PointLabel {
    /// On the object.
    On,
    /// Off the object.
    Off,
    /// Dropped: shown as evidence, not sent to SAM.
    Unsure,
}

/// What SAM is given: a box and points, in source pixels.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Prompt {
    /// The box around the object.
    pub bbox: Option<BBox<SourcePx>>,
    /// Points on (`true`) and off (`false`) the object.
    pub points: Vec<(Point<SourcePx>, bool)>,
}
