//! What decided a session's answers besides what its client sent: which frame was worked on when, what the language
//! model was asked and what it could guess from, in the order in which the scheduler did it.
//!
//! With the requests it is all that there is to repeat a session: nothing else of the answers hangs on a clock or on
//! who was faster, but for timings, counters and [`FrameReply::partial`](super::FrameReply).

use std::time::Instant;

use super::{NodeError, Why};

/// One thing that the scheduler did for a session.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// It took over the targets as they were after that many changes.
    Follow {
        /// Changes of the targets so far.
        version: u64,
        /// When.
        at: Instant,
    },
    /// It gave the segment stage a frame, or the last one again.
    Begin {
        /// The frame.
        seq: u64,
        /// 0, or the how manieth time it is answered again.
        revision: u32,
        /// When the frame arrived.
        arrived: Instant,
    },
    /// The frame's pixels are there.
    Decoded,
    /// What became of the frame.
    Segmented(Masks),
    /// It gave the language model a target, on the newest decoded frame.
    Ask {
        /// Which target, by the order in which they were added, from 1 on.
        serial: u64,
        /// Why.
        why: Why,
    },
    /// The language model wanted masks to guess from; whether it got them in time.
    Guessed(bool),
    /// The language model named boxes; whether the frame was answered with them at once.
    Proposed {
        /// Whether it was.
        answered: bool,
    },
    /// The language model answered, or why it did not.
    Grounded(Result<(), NodeError>),
    /// It answered a frame without the segment stage.
    Unsegmented {
        /// The frame.
        seq: u64,
        /// When the frame arrived.
        arrived: Instant,
        /// Why.
        error: NodeError,
    },
    /// It gave up all targets that the language model had not answered.
    GroundDown(NodeError),
    /// It took up the question of that request, on the newest decoded frame.
    Question {
        /// As [`SessionInput::ask`](super::SessionInput::ask) was told.
        request: u64,
    },
}

/// What became of a frame in the segment stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Masks {
    /// It was segmented.
    Made,
    /// It could not be read.
    Unreadable,
    /// Its budget was over first.
    Late,
    /// The segmenter failed.
    Failed(NodeError),
}

/// Someone who watches a session. Called on the scheduler's thread: whoever waits here holds up every session.
pub trait Witness: Send + Sync {
    /// Takes the next step.
    fn saw(&self, step: Step);
}
