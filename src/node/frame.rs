//! Frames on their way through the node.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::position::Scene;
use super::{NodeError, NodeErrorKind};
use crate::frame::{Depth, Encoded, Encoding, FrameLimits, Image, Intrinsics, Layout, decode_owned, probe};
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
    /// Where they lie.
    pub layout: Layout,
    /// The file or the rows.
    pub data: Bytes,
    /// Depth of the same pixels; takes intrinsics.
    pub depth: Option<Depth>,
    /// The camera's.
    pub intrinsics: Option<Intrinsics>,
    /// How it is to be answered.
    pub options: FrameOptions,
}

/// How a frame is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameOptions {
    /// Drop the frame where its turn comes later than this.
    pub max_wait: Option<Duration>,
    /// Begin no work on it later than this after it arrived.
    pub budget: Option<Duration>,
    /// Answer it again when a grounding finishes and no newer frame waits.
    pub revise: bool,
    /// Answer it as soon as anything is known, and again whenever more is.
    pub anytime: bool,
    /// Masks as PNG; the node only passes it on.
    pub png: bool,
    /// With evidence; the node only passes it on.
    pub evidence: bool,
}

impl FrameOptions {
    /// Whether the frame may have several answers.
    pub(super) fn repeats(&self) -> bool {
        self.revise || self.anytime
    }
}

impl FrameIn {
    /// A frame of which no more is known than its pixels.
    pub fn of_pixels(seq: u64, encoding: Encoding, layout: Layout, data: impl Into<Bytes>) -> Self {
        Self {
            seq,
            stamp_ns: 0,
            optical_frame: String::new(),
            encoding,
            layout,
            data: data.into(),
            depth: None,
            intrinsics: None,
            options: FrameOptions::default(),
        }
    }

    pub(super) fn probe(&self, limits: FrameLimits) -> Result<(), NodeError> {
        let frame = Encoded { encoding: self.encoding, layout: self.layout, data: &self.data };
        let size = probe(&frame, limits)?;
        if let Some(intrinsics) = &self.intrinsics {
            intrinsics.validate()?;
        }
        let Some(depth) = &self.depth else { return Ok(()) };
        depth.check_registered(size)?;
        if self.intrinsics.is_none() {
            let what = "use depth of frame: it comes without intrinsics; send those of the colour camera";
            return Err(NodeError::new(NodeErrorKind::FrameDepth, what));
        }
        Ok(())
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
    /// Echoed.
    pub intrinsics: Option<Intrinsics>,
    /// When it arrived.
    pub arrived: Instant,
    /// When it arrived, in the node's wall clock.
    pub received: SystemTime,
    /// How it is to be answered.
    pub options: FrameOptions,
}

impl Meta {
    /// When the frame's budget is over.
    pub(super) fn until(&self) -> Option<Instant> {
        self.options.budget.and_then(|budget| self.arrived.checked_add(budget))
    }

    /// Now, on the clock that says when it arrived: a wall clock that jumps meanwhile makes no reply older than its
    /// frame.
    pub fn now(&self) -> SystemTime {
        self.received + self.arrived.elapsed()
    }
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
        Self::at(frame, Instant::now(), SystemTime::now())
    }

    pub(super) fn at(frame: FrameIn, arrived: Instant, received: SystemTime) -> Self {
        Self { frame, arrived, received }
    }

    pub(super) fn into_frame(self) -> FrameIn {
        self.frame
    }

    pub(super) fn seq(&self) -> u64 {
        self.frame.seq
    }

    /// How long it has waited.
    pub(super) fn waited(&self) -> Duration {
        self.arrived.elapsed()
    }

    pub(super) fn overdue(&self) -> bool {
        let FrameOptions { max_wait, budget, .. } = self.frame.options;
        max_wait.into_iter().chain(budget).any(|limit| self.waited() > limit)
    }

    pub(super) fn stamp_ns(&self) -> i64 {
        self.frame.stamp_ns
    }

    pub(super) fn meta(&self) -> Meta {
        Meta {
            seq: self.frame.seq,
            stamp_ns: self.frame.stamp_ns,
            optical_frame: self.frame.optical_frame.clone(),
            intrinsics: self.frame.intrinsics,
            arrived: self.arrived,
            received: self.received,
            options: self.frame.options,
        }
    }

    /// Checks everything once more: not every frame has been in a slot.
    pub(super) fn decode(self, limits: FrameLimits) -> Result<Kept, NodeError> {
        self.frame.probe(limits)?;
        let meta = self.meta();
        let FrameIn { encoding, layout, data, depth, intrinsics, .. } = self.frame;
        let image = decode_owned(encoding, &layout, data, limits)?;
        let scene = depth.zip(intrinsics).map(|(depth, intrinsics)| Scene { depth, intrinsics });
        Ok(Kept { meta, image, scene, embedding: OnceLock::new() })
    }
}

/// A decoded frame, kept as long as a grounding may refer to it.
pub(super) struct Kept {
    pub meta: Meta,
    pub image: Image,
    /// What is known of the third dimension.
    pub scene: Option<Scene>,
    /// Filled in by the segment stage, at most once.
    pub embedding: OnceLock<Embedding>,
}

/// A grounding and the frame that the language model saw.
#[derive(Clone)]
pub(super) struct Fresh {
    pub grounding: Arc<crate::pipeline::Grounding>,
    pub frame: Arc<Kept>,
    /// It names boxes; the language model is still being asked about points.
    pub partial: bool,
}
