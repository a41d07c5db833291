//! A question that a stream asks once, about the newest frame it has sent.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::super::frame::{Kept, Meta};
use super::super::{FrameOptions, FrameReply, NodeError, TargetSpec};
use super::Call;

/// One question, until its frame is there; from then on it is a [`Call`].
pub struct Question {
    pub(in super::super) session: u64,
    /// The newest frame that had come when it was asked.
    pub(in super::super) after: Option<u64>,
    pub(in super::super) spec: TargetSpec,
    pub(in super::super) options: FrameOptions,
    pub(in super::super) deadline: Option<Instant>,
    pub(in super::super) answer: oneshot::Sender<Result<FrameReply, NodeError>>,
    pub(in super::super) permit: OwnedSemaphorePermit,
}

impl Question {
    pub(super) fn fail(self, error: NodeError) {
        let _ = self.answer.send(Err(error));
    }

    /// The question about `frame`, answered as the question says and not as the frame does.
    pub(super) fn about(self, frame: Arc<Kept>) -> Call {
        let meta = Meta { options: self.options, ..frame.meta.clone() };
        Call::new(frame, self.spec, self.deadline, self.answer, self.permit).answering(meta)
    }
}
