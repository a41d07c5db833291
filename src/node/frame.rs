//! Frames on their way through the node.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use super::NodeError;
use crate::frame::{Encoded, Encoding, FrameLimits, Image, decode, probe};
use crate::pipeline::Embedding;

/// A frame as it was sent.
#[derive(Debug, Clone)]
pub struct FrameIn {
    /// Number in its session, strictly increasing.
    pub seq: u64,
    /// Capture time, nanoseconds in the robot's clock; echoed.
    pub stamp_ns: i64,
    /// The camera's optical frame; echoed.
    pub optical_frame: String,
    /// How the pixels are written.
    pub encoding: Encoding,
    /// Columns; 0 for files.
    pub width: u32,
    /// Rows; 0 for files.
    pub height: u32,
    /// Bytes from row to row; 0 for packed rows.
    pub step: u32,
    /// The file or the rows.
    pub data: Vec<u8>,
    /// How it is to be answered.
    pub options: FrameOptions,
}

/// How a frame is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameOptions {
    /// Drop the frame where its turn comes later than this.
    pub max_wait: Option<Duration>,
    /// Answer it again when a grounding finishes and no newer frame waits.
    pub revise: bool,
    /// Masks as PNG; the node only passes it on.
    pub png: bool,
    /// With evidence; the node only passes it on.
    pub evidence: bool,
}

impl FrameIn {
    fn encoded(&self) -> Encoded<'_> {
        let Self { encoding, width, height, step, .. } = *self;
        Encoded { encoding, width, height, step, data: &self.data }
    }

    pub(super) fn probe(&self, limits: FrameLimits) -> Result<(), NodeError> {
        Ok(probe(&self.encoded(), limits).map(drop)?)
    }
}

/// What is known of a frame besides its pixels.
#[derive(Debug, Clone)]
pub struct Meta {
    /// Echoed.
    pub seq: u64,
    /// Echoed.
    pub stamp_ns: i64,
    /// Echoed.
    pub optical_frame: String,
    /// When it arrived.
    pub arrived: Instant,
    /// When it arrived, in the node's wall clock.
    pub received: SystemTime,
    /// How it is to be answered.
    pub options: FrameOptions,
}

/// A frame that waits for its turn.
#[derive(Debug)]
pub(super) struct Arrived {
    frame: FrameIn,
    arrived: Instant,
    received: SystemTime,
}

impl Arrived {
    pub(super) fn now(frame: FrameIn) -> Self {
        Self { frame, arrived: Instant::now(), received: SystemTime::now() }
    }

    pub(super) fn seq(&self) -> u64 {
        self.frame.seq
    }

    /// How long it has waited.
    pub(super) fn waited(&self) -> Duration {
        self.arrived.elapsed()
    }

    pub(super) fn overdue(&self) -> bool {
        self.frame.options.max_wait.is_some_and(|limit| self.waited() > limit)
    }

    pub(super) fn meta(&self) -> Meta {
        Meta {
            seq: self.frame.seq,
            stamp_ns: self.frame.stamp_ns,
            optical_frame: self.frame.optical_frame.clone(),
            arrived: self.arrived,
            received: self.received,
            options: self.frame.options,
        }
    }

    pub(super) fn decode(&self, limits: FrameLimits) -> Result<Kept, NodeError> {
        let image = decode(&self.frame.encoded(), limits)?;
        Ok(Kept { meta: self.meta(), image, embedding: OnceLock::new() })
    }
}

/// A decoded frame, kept as long as a grounding may refer to it.
pub(super) struct Kept {
    pub meta: Meta,
    pub image: Image,
    /// Filled in by the segment stage, at most once.
    pub embedding: OnceLock<Embedding>,
}

/// A grounding and the frame that the language model saw.
#[derive(Clone)]
pub(super) struct Fresh {
    pub grounding: Arc<crate::pipeline::Grounding>,
    pub frame: Arc<Kept>,
}
