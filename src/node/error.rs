//! What can go wrong with one item, in the node's own terms.

use crate::chain::Chain;
use crate::frame::{FrameError, FrameErrorKind};
use crate::pipeline::{PipelineError, StrategyError};

/// Kinds of [`NodeError`]; deliberately few, and each has one code on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeErrorKind {
    /// The request is empty or lacks a required part.
    Request,
    /// The frame's encoding is not supported, or its data is something else.
    FrameEncoding,
    /// The frame is larger than the limits.
    FrameTooLarge,
    /// The frame's width, height, step and length contradict each other.
    FrameLayout,
    /// The frame's data is truncated or corrupt.
    FrameData,
    /// The frame's depth image or intrinsics cannot be used.
    FrameDepth,
    /// The frame's `seq` did not increase.
    FrameOrder,
    /// The command is empty, too long, or cannot be asked.
    Command,
    /// The language model was not taught the strategy that is asked for.
    Strategy,
    /// A target id is empty, too long, given twice, or unknown.
    Target,
    /// More targets or sessions than the limits.
    Limit,
    /// Too many calls wait already.
    Busy,
    /// The deadline passed first.
    Deadline,
    /// An engine failed.
    Engine,
    /// A stage crashed or is not there.
    Stage,
    /// The node is starting or shutting down.
    Unavailable,
}

impl NodeErrorKind {
    /// Every kind.
    pub const ALL: [Self; 16] = [
        Self::Request,
        Self::FrameEncoding,
        Self::FrameTooLarge,
        Self::FrameLayout,
        Self::FrameData,
        Self::FrameDepth,
        Self::FrameOrder,
        Self::Command,
        Self::Strategy,
        Self::Target,
        Self::Limit,
        Self::Busy,
        Self::Deadline,
        Self::Engine,
        Self::Stage,
        Self::Unavailable,
    ];
}

/// One item failed; the session goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NodeError {
    kind: NodeErrorKind,
    message: String,
}

impl NodeError {
    /// An error of `kind` with a message for people.
    pub fn new(kind: NodeErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> NodeErrorKind {
        self.kind
    }

    /// Whether the grounder refuses what it is asked: it would do so again on every frame.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.kind, NodeErrorKind::Command | NodeErrorKind::Strategy)
    }
}

impl From<FrameError> for NodeError {
    fn from(error: FrameError) -> Self {
        let kind = match error.kind() {
            FrameErrorKind::Encoding => NodeErrorKind::FrameEncoding,
            FrameErrorKind::TooLarge => NodeErrorKind::FrameTooLarge,
            FrameErrorKind::Layout => NodeErrorKind::FrameLayout,
            FrameErrorKind::Data => NodeErrorKind::FrameData,
            FrameErrorKind::Depth => NodeErrorKind::FrameDepth,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<StrategyError> for NodeError {
    fn from(error: StrategyError) -> Self {
        Self::new(NodeErrorKind::Strategy, error.to_string())
    }
}

impl From<PipelineError> for NodeError {
    fn from(error: PipelineError) -> Self {
        let kind = match &error {
            PipelineError::Engine(_) | PipelineError::Output { .. } => NodeErrorKind::Engine,
            PipelineError::Command(_) => NodeErrorKind::Command,
            PipelineError::Strategy(_) => NodeErrorKind::Strategy,
            PipelineError::Deadline(_) => NodeErrorKind::Deadline,
        };
        // The whole chain: the reader of a reply cannot ask for its source.
        Self::new(kind, Chain(&error).to_string())
    }
}
