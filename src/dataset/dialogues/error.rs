//! Why dialogues cannot be written.

use std::path::{Path, PathBuf};

use super::super::DatasetError;
use super::super::readers::ReadError;
use crate::pipeline::{PipelineError, StrategyError};

/// Dialogues cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialogueError {
    /// A data set cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The scenes' assets cannot be read.
    #[error("load the scenes' assets")]
    Assets(#[from] DatasetError),
    /// The dialect and the tokenizer do not fit.
    #[error("word dialogues: {0}")]
    Wording(String),
    /// Something is taught that the dialect has no words for.
    #[error(transparent)]
    Strategy(#[from] StrategyError),
    /// PPG takes SAM, one for each thread.
    #[error("search PPG's groups: {found} segmenters are loaded for {threads} threads")]
    Segmenters {
        /// Segmenters that there are.
        found: usize,
        /// Threads that there are.
        threads: usize,
    },
    /// A source has nothing to teach.
    #[error("draw from source `{0}`: it has no record of its split that does not leak")]
    Empty(String),
    /// Scenes never end, and nothing else says when to stop.
    #[error("end the dialogues: scenes have no end, give a number of dialogues")]
    Endless,
    /// A long stretch of records gave nothing.
    #[error("make a dialogue: none came of {tried} packs in a row, {example}")]
    Fruitless {
        /// Packs in a row.
        tried: u64,
        /// What was dropped, and why.
        example: String,
    },
    /// A picture is missing, damaged or of another size than its data set says.
    #[error("open picture of `{record}`, `{}`: {what}", path.display())]
    Picture {
        /// The record, as its data set names it.
        record: String,
        /// The picture.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// SAM failed.
    #[error("search PPG's groups")]
    Segment(#[source] PipelineError),
    /// A file cannot be written.
    #[error("write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl DialogueError {
    pub(super) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}
