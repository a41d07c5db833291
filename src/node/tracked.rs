//! One instance as the node follows it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Origin;
use super::frame::{Kept, Meta};
use super::identity::Standing;
use super::masks::Settings;
use super::position::Position;
use crate::engine::bundle::StreamThresholds;
use crate::geometry::{BBox, SourcePx};
use crate::pipeline::{GroundedInstance, LostReason, Segmented, Track};
use crate::prompt::{MaskSigns, Prompt};

/// For how long an object is about where its mask is, in about that shape.
const RECENT: Duration = Duration::from_millis(250);

/// An instance with its mask on one frame.
#[derive(Debug, Clone)]
pub(super) struct Tracked {
    /// Unique in its session; 0 until it has one.
    pub id: u64,
    pub track: Track,
    pub bbox: BBox<SourcePx>,
    /// Of the mask, on its own frame.
    pub position: Option<Position>,
    pub score: f32,
    /// The largest area it has been seen with, in pixels.
    pub largest: f32,
    pub origin: Origin,
    /// SAM does not believe in the mask: it is shown, and not followed.
    pub doubtful: bool,
    /// The probability that the mask is right: what the answer is worth, and what SAM says of this mask.
    pub confidence: f32,
    /// Sure enough, both of the answer and of this mask, to be called found; or it was, and still holds.
    pub sure: bool,
    /// Sure enough to stay so where it was found.
    pub holds: bool,
    /// It was named while something else that was known was not, or came back small, and not often enough since.
    pub contested: bool,
    /// How often it was named.
    pub standing: Standing,
    /// The probability of the answer that it is there.
    pub p_found: f32,
    /// How the first mask filled the box that it was drawn for; that box says nothing of later ones.
    pub fill: f32,
    pub mask_seq: u64,
    pub mask_at: Instant,
    pub grounded: Arc<GroundedInstance>,
    pub grounded_seq: u64,
    pub grounded_at: Instant,
}

impl Tracked {
    /// From what SAM made of a grounded instance on its own frame; `None` for an empty mask.
    pub(super) fn ground(
        frame: &Kept,
        (grounded, p_found): (Arc<GroundedInstance>, f32),
        answer: Segmented,
        settings: Settings,
    ) -> Option<Self> {
        let (bbox, score) = (answer.mask.bbox()?, answer.score);
        // Now that there is a mask, it has a say in how sure one can be of the instance.
        let signs = answer.signs(&grounded.proposal);
        let confidence = settings.calibration.with_mask(grounded.confidence, signs);
        // NaN is doubtful.
        let doubtful = !matches!(score.partial_cmp(&settings.min_mask_score), Some(o) if o.is_ge());
        let Meta { seq, arrived, .. } = frame.meta;
        let track = Track::start(&frame.image, answer.mask, settings.track)?.scored(score);
        let (sure, holds) = reached([p_found, score, confidence], settings.stream);
        Some(Self {
            id: 0,
            largest: track.area(),
            track,
            bbox,
            position: None,
            score,
            origin: Origin::Grounded,
            doubtful,
            confidence,
            sure,
            holds,
            contested: false,
            standing: Standing::new(seq),
            p_found,
            fill: signs.fill,
            mask_seq: seq,
            mask_at: arrived,
            grounded,
            grounded_seq: seq,
            grounded_at: arrived,
        })
    }

    /// What SAM is asked about it on a later frame.
    pub(super) fn prompt(&self, frame: &Meta) -> Prompt {
        self.track.prompt(self.is_recent(frame))
    }

    fn is_recent(&self, frame: &Meta) -> bool {
        frame.arrived.saturating_duration_since(self.mask_at) <= RECENT
    }

    /// The same instance on a later frame.
    ///
    /// # Errors
    /// Why SAM's answer is not believed.
    pub(super) fn follow(&self, frame: &Kept, answer: &Segmented, settings: Settings) -> Result<Self, LostReason> {
        let mut next = self.clone();
        next.track.update(&frame.image, answer, self.is_recent(&frame.meta))?;
        next.largest = next.largest.max(next.track.area());
        next.bbox = answer.mask.bbox().ok_or(LostReason::Empty)?;
        // The next frame's depth says.
        next.position = None;
        (next.score, next.origin) = (answer.score, Origin::Tracked);
        let signs = MaskSigns { score: answer.score, fill: self.fill };
        next.confidence = settings.calibration.with_mask(self.grounded.confidence, signs);
        // What has drifted may be on its way to something else.
        let (enough, holds) = match next.track.drift() {
            None => reached([self.p_found, answer.score, next.confidence], settings.stream),
            Some(_) => (false, false),
        };
        (next.sure, next.holds) = (enough || self.sure && holds, holds);
        (next.mask_seq, next.mask_at) = (frame.meta.seq, frame.meta.arrived);
        Ok(next)
    }
}

/// Whether that is enough to be sure, and whether it is to stay so; NaN is neither.
fn reached([p_found, score, confidence]: [f32; 3], least: StreamThresholds) -> (bool, bool) {
    let from = |share: f32| {
        p_found >= least.found && score >= share * least.mask_score && confidence >= share * least.confidence
    };
    (from(1.0), from(least.hold))
}
