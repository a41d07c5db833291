//! What the node answers.

use std::sync::Arc;
use std::time::Duration;

use super::frame::Meta;
use super::position::Position;
use super::state::{Look, Phase};
use super::target::Why;
use super::tracked::Tracked;
use super::{Counters, NodeError};
use crate::geometry::{BBox, Size, SourcePx};
use crate::mask::Mask;
use crate::pipeline::{GroundedInstance, Grounding};

/// What is known of a target on a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is there.
    Found,
    /// There is no such thing.
    Absent,
    /// One was asked for, several match.
    Ambiguous,
    /// Not sure enough either way.
    Unsure,
    /// The grounder has not answered yet.
    Pending,
    /// It was there and is not followed any more; the grounder has not looked again yet.
    Lost,
    /// It could not be answered.
    Failed,
    /// The client wants no answer.
    Paused,
}

/// Where a mask comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Made on this frame from the language model's box and points.
    Grounded,
    /// Made on this frame from an earlier mask.
    Tracked,
    /// Made on an earlier frame.
    Stale,
}

/// Something that a session is told.
#[derive(Debug)]
pub enum Reply {
    /// The answer to a frame.
    Frame(Box<FrameReply>),
    /// A frame that was dropped because of what it is.
    Rejected {
        /// Its number.
        seq: u64,
        /// Why.
        error: NodeError,
    },
}

/// The answer to a frame.
#[derive(Debug)]
pub struct FrameReply {
    /// The frame.
    pub meta: Meta,
    /// Its size; `None` where it was not decoded.
    pub size: Option<Size<SourcePx>>,
    /// One for each target, in the order in which they were set.
    pub targets: Vec<TargetReply>,
    /// Where the time went, by stage name.
    pub timings: Vec<(&'static str, Duration)>,
    /// Frames so far.
    pub counters: Counters,
    /// 0, or the how manieth later answer to the same frame this is.
    pub revision: u32,
    /// More is about to be known, and the frame is answered again then if no newer one comes first.
    pub partial: bool,
}

/// The state of one target on one frame.
#[derive(Debug)]
pub struct TargetReply {
    /// Its id, chosen by the client.
    pub target_id: String,
    /// What is known.
    pub verdict: Verdict,
    /// Confidence in the verdict, `0.0..=1.0`.
    pub confidence: f32,
    /// The instances, best first when they were grounded.
    pub instances: Vec<InstanceReply>,
    /// What went wrong last.
    pub error: Option<NodeError>,
    /// The last grounding and the number of its frame.
    pub grounding: Option<(u64, Arc<Grounding>)>,
    /// What stands behind it.
    pub phase: Phase,
    /// What the language model is doing about it.
    pub look: Look,
    /// Why that looks, or looked last.
    pub why: Option<Why>,
    /// Boxes on this very frame that have no masks yet.
    pub proposals: Vec<BBox<SourcePx>>,
    /// The masks come from boxes alone; points are still being asked about.
    pub partial: bool,
}

/// One instance on one frame.
#[derive(Debug, Clone)]
pub struct InstanceReply {
    pub(super) tracked: Arc<Tracked>,
    /// Where its mask comes from.
    pub origin: Origin,
    /// From the arrival of the grounded frame to that of this one.
    pub grounded_age: Duration,
    /// From the arrival of the mask's frame to that of this one.
    pub mask_age: Duration,
}

impl InstanceReply {
    pub(super) fn new(tracked: Arc<Tracked>, frame: &Meta) -> Self {
        let age = |since| frame.arrived.saturating_duration_since(since);
        let origin = if tracked.mask_seq == frame.seq { tracked.origin } else { Origin::Stale };
        Self { origin, grounded_age: age(tracked.grounded_at), mask_age: age(tracked.mask_at), tracked }
    }

    /// Stable while the instance is followed, unique in its session.
    pub fn id(&self) -> u64 {
        self.tracked.id
    }

    /// The mask, never empty.
    pub fn mask(&self) -> &Mask {
        self.tracked.track.mask()
    }

    /// The tight box of the mask.
    pub fn bbox(&self) -> BBox<SourcePx> {
        self.tracked.bbox
    }

    /// Where the object is in the optical frame, at the time of the mask's frame; `None` where depth does not say.
    pub fn position(&self) -> Option<&Position> {
        self.tracked.position.as_ref()
    }

    /// SAM's estimate of the mask's IoU.
    pub fn mask_score(&self) -> f32 {
        self.tracked.score
    }

    /// The probability that the mask is right, `0.0..=1.0`, as far as the bundle is calibrated: what the language model's
    /// answer is worth, and what SAM says of the mask on its frame.
    pub fn confidence(&self) -> f32 {
        self.tracked.confidence
    }

    /// The frame that the mask was made on.
    pub fn mask_seq(&self) -> u64 {
        self.tracked.mask_seq
    }

    /// The frame that the language model saw.
    pub fn grounded_seq(&self) -> u64 {
        self.tracked.grounded_seq
    }

    /// What the language model said of it.
    pub fn evidence(&self) -> &GroundedInstance {
        &self.tracked.grounded
    }
}
