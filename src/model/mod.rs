//! The two models around their engines: tensor names, pre- and post-processing, caches.

mod branch;
mod chat;
pub mod footprint;
pub(crate) mod front;
#[cfg(feature = "tensorrt")]
pub mod gpu;
#[cfg(feature = "tensorrt")]
pub mod handover;
mod kv;
pub mod mllm;
#[cfg(feature = "tensorrt")]
pub mod plans;
pub mod preprocess;
mod resample;
pub mod sam;
pub mod selftest;
pub mod sight;
pub mod speech;
pub mod stages;
mod stops;
#[cfg(test)]
pub(crate) mod toy;
pub mod upsample;

pub use front::on_bytes;
pub use kv::KvCache;

use std::time::{Duration, Instant};

use crate::engine::{EngineError, Tensor};
use crate::prompt::StrategyError;

/// A model failed on one frame or one query.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// An engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An engine's output has an unexpected shape or type, or holds NaN.
    #[error("read output `{tensor}` of engine `{engine}`: {what}")]
    Output {
        /// The engine.
        engine: &'static str,
        /// The output.
        tensor: &'static str,
        /// What is wrong.
        what: String,
    },
    /// The frame cannot be resized.
    #[error("resize frame: {0}")]
    Frame(String),
    /// A prompt that SAM cannot be given.
    #[error("check prompt: {0}")]
    Prompt(String),
    /// The tokenizer cannot express a text, or tokens make no text.
    #[error("tokenize: {0}")]
    Tokenize(String),
    /// The conversation does not fit the model.
    #[error("fit conversation of {tokens} tokens into {limit}")]
    TooLong {
        /// Its length in tokens.
        tokens: usize,
        /// What fits.
        limit: usize,
    },
    /// The model was not taught the strategy.
    #[error(transparent)]
    Strategy(#[from] StrategyError),
    /// The deadline passed before the work was done.
    #[error("meet deadline: passed {0:?} ago")]
    Deadline(Duration),
}

/// Where the time went, by stage name, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timings(pub Vec<(&'static str, Duration)>);

impl Timings {
    /// Runs `work` and notes how long it took.
    pub fn time<T>(&mut self, stage: &'static str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.0.push((stage, start.elapsed()));
        result
    }
}

/// Fails once `deadline` is over; called between passes, for an engine cannot be interrupted.
///
/// # Errors
/// [`ModelError::Deadline`].
pub(crate) fn check_deadline(deadline: Option<Instant>) -> Result<(), ModelError> {
    match deadline {
        Some(at) if Instant::now() > at => Err(ModelError::Deadline(at.elapsed())),
        _ => Ok(()),
    }
}

/// The elements of an output of exactly `shape`, none of them NaN.
///
/// # Errors
/// [`ModelError::Output`].
pub(crate) fn take_f32(
    output: Tensor<'static>,
    shape: &[usize],
    engine: &'static str,
    tensor: &'static str,
) -> Result<Vec<f32>, ModelError> {
    let error = |what: String| ModelError::Output { engine, tensor, what };
    if output.shape() != shape {
        return Err(error(format!("has shape {:?}, expected {shape:?}", output.shape())));
    }
    let values = output.into_f32().ok_or_else(|| error("is not of floats".into()))?;
    match values.iter().position(|v| v.is_nan()) {
        Some(at) => Err(error(format!("holds NaN at element {at}"))),
        None => Ok(values),
    }
}

/// Exactly `N` outputs.
///
/// # Errors
/// [`ModelError::Output`].
pub(crate) fn exactly<const N: usize>(
    outputs: Vec<Tensor<'static>>,
    engine: &'static str,
) -> Result<[Tensor<'static>; N], ModelError> {
    let count = outputs.len();
    outputs.try_into().map_err(|_| ModelError::Output {
        engine,
        tensor: "*",
        what: format!("gave {count} outputs, expected {N}"),
    })
}
