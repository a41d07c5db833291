//! The ground stage's question to the segment stage: masks to guess answers from.
//!
//! The ground thread waits for the answer, but never without an end and never for something that waits for it: the
//! scheduler only passes the question on, the segment stage takes it between two frames, and whoever drops it answers
//! it. Where no answer comes in time the grounding goes on without. One question at most is open, for there is one
//! ground thread.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::frame::Kept;
use super::masks;
use super::scheduler::Event;
use super::tracked::Tracked;
use crate::geometry::{BBox, SourcePx};
use crate::mask::Mask;
use crate::pipeline::{Drafter, Grounding, Segment, box_prompts};

/// Boxes whose masks are wanted.
pub(super) struct DraftJob {
    frame: Arc<Kept>,
    boxes: Vec<BBox<SourcePx>>,
    /// Nobody waits for the answer any longer.
    until: Instant,
    answer: SyncSender<Vec<Mask>>,
}

impl DraftJob {
    pub(super) fn is_late(&self) -> bool {
        Instant::now() > self.until
    }

    /// Makes the masks on the frame's embedding, which the grounding's own masks will use too.
    pub(super) fn run(self, stage: &mut dyn Segment) {
        let masks = masks::embedding(stage, &self.frame).and_then(|e| stage.segment(e, &box_prompts(&self.boxes)));
        match masks {
            Ok(masks) => drop(self.answer.try_send(masks.into_iter().map(|m| m.mask).collect())),
            Err(error) => tracing::debug!(%error, "no masks to draft from"),
        }
    }
}

/// The segment stage, as the ground stage sees it.
pub(super) struct StageDrafts<'a> {
    pub frame: Arc<Kept>,
    /// The target's instances, followed to a frame shortly before.
    pub last: &'a [Arc<Tracked>],
    /// How long an answer is waited for.
    pub wait: Duration,
    /// Boxes are wanted before points are asked about.
    pub boxes: bool,
    pub deadline: Instant,
    pub emit: &'a dyn Fn(Event),
}

impl Drafter for StageDrafts<'_> {
    fn last(&self) -> Vec<&Mask> {
        let masks = self.last.iter().map(|t| t.track.mask());
        masks.filter(|m| m.size() == self.frame.image.size()).collect()
    }

    /// Word for word, for a model says of the same place the same again, but seldom the mask's own edges.
    fn said(&self) -> Vec<BBox<SourcePx>> {
        self.last.iter().map(|t| t.grounded.proposal).collect()
    }

    fn masks(&mut self, boxes: &[BBox<SourcePx>]) -> Option<Vec<Mask>> {
        let now = Instant::now();
        let until = now.checked_add(self.wait).map_or(self.deadline, |until| until.min(self.deadline));
        let wait = until.checked_duration_since(now).filter(|wait| !wait.is_zero())?;
        let (answer, answered) = sync_channel(1);
        let job = DraftJob { frame: self.frame.clone(), boxes: boxes.to_vec(), until, answer };
        (self.emit)(Event::Draft(Box::new(job)));
        answered.recv_timeout(wait).ok()
    }

    fn wants_proposals(&self) -> bool {
        self.boxes
    }

    fn proposed(&mut self, boxes: Grounding) {
        (self.emit)(Event::Proposed(Box::new(boxes)));
    }
}
