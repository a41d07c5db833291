//! What the node knows of one target, and what it says about it.

use std::sync::Arc;
use std::time::Instant;

use super::frame::{Fresh, Kept, Meta};
use super::masks::{Work, WorkDone};
use super::tracked::Tracked;
use super::{InstanceReply, NodeConfig, NodeError, TargetReply, TargetSpec, Verdict};
use crate::pipeline::{Grounding, Outcome};

/// How badly a target wants the grounder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// It is time to look again.
    Routine,
    /// It has never been grounded, or something was lost.
    Urgent,
}

/// One target of a session.
pub(super) struct Target {
    pub spec: Arc<TargetSpec>,
    /// The [`super::slot::Wanted`] it comes from.
    pub serial: u64,
    /// Unique in the node; results of another epoch are of a target that is no more.
    pub epoch: u64,
    /// The last grounding in use, and the number of its frame.
    grounding: Option<(u64, Arc<Grounding>)>,
    fresh: Option<Fresh>,
    tracks: Vec<Arc<Tracked>>,
    lost: Vec<Arc<Tracked>>,
    /// The grounder is at it.
    asked: bool,
    /// The frame that was asked about last.
    asked_seq: Option<u64>,
    /// When the last answer came.
    answered: Option<Instant>,
    ground_error: Option<NodeError>,
}

impl Target {
    pub(super) fn new(spec: Arc<TargetSpec>, serial: u64, epoch: u64) -> Self {
        Self {
            spec,
            serial,
            epoch,
            grounding: None,
            fresh: None,
            tracks: Vec::new(),
            lost: Vec::new(),
            asked: false,
            asked_seq: None,
            answered: None,
            ground_error: None,
        }
    }

    /// Whether it should be grounded on the frame `seq`.
    pub(super) fn need(&self, seq: u64, config: &NodeConfig) -> Option<Need> {
        let hopeless = self.ground_error.as_ref().is_some_and(NodeError::is_refusal);
        if self.spec.command.is_err() || hopeless || self.asked || self.fresh.is_some() {
            return None;
        }
        let Some(answered) = self.answered else { return Some(Need::Urgent) };
        // The same pixels give the same answer.
        if self.asked_seq == Some(seq) {
            return None;
        }
        let age = answered.elapsed();
        if !self.lost.is_empty() && age >= config.reground_lost_after {
            return Some(Need::Urgent);
        }
        (age >= config.reground_after).then_some(Need::Routine)
    }

    /// The grounder was given it, on the frame `seq`.
    pub(super) fn ask(&mut self, seq: u64) {
        self.asked = true;
        self.asked_seq = Some(seq);
    }

    /// The grounder's answer about `frame`.
    pub(super) fn hear(&mut self, frame: Arc<Kept>, answer: Result<Grounding, NodeError>) {
        self.asked = false;
        self.answered = Some(Instant::now());
        match answer {
            Ok(grounding) => {
                self.ground_error = None;
                self.fresh = Some(Fresh { grounding: Arc::new(grounding), frame });
            }
            Err(error) => self.ground_error = Some(error),
        }
    }

    /// Its instances where they were seen last, but for those that SAM does not believe in.
    pub(super) fn followed(&self) -> Vec<Arc<Tracked>> {
        self.tracks.iter().filter(|t| !t.doubtful).cloned().collect()
    }

    /// When the grounder answered last.
    pub(super) fn answered(&self) -> Option<Instant> {
        self.answered
    }

    /// The grounder will not answer any more.
    pub(super) fn give_up(&mut self, error: &NodeError) {
        if self.ground_error.is_none() {
            self.ground_error = Some(error.clone());
        }
    }

    /// Takes an answer that names no instances.
    pub(super) fn use_without_masks(&mut self) {
        if let Some(fresh) = self.fresh.take() {
            self.grounding = Some((fresh.frame.meta.seq, fresh.grounding));
        }
    }

    /// The segment stage's part of a frame.
    pub(super) fn work(&self) -> Work {
        Work {
            epoch: self.epoch,
            hint: self.spec.hint,
            tracks: self.tracks.clone(),
            lost: self.lost.clone(),
            fresh: self.fresh.clone(),
        }
    }

    /// Takes what became of it.
    pub(super) fn take(&mut self, done: WorkDone) {
        (self.tracks, self.lost) = (done.tracks, done.lost);
        let Some(used) = done.used else { return };
        self.grounding = Some((used.frame.meta.seq, used.grounding.clone()));
        // A newer answer may have come meanwhile.
        if self.fresh.as_ref().is_some_and(|f| Arc::ptr_eq(&f.grounding, &used.grounding)) {
            self.fresh = None;
        }
    }

    /// What is said about it on a frame; `failed` is why that frame has no new masks.
    pub(super) fn reply(&self, frame: &Meta, failed: Option<&NodeError>, config: &NodeConfig) -> TargetReply {
        let mut instances: Vec<_> = self.tracks.iter().map(|t| InstanceReply::new(t.clone(), frame)).collect();
        let stale = instances.iter().any(|i| i.mask_age > config.stale_limit && i.mask_seq() != frame.seq);
        let mut verdict = self.verdict();
        // Without new masks the last ones hold for a short while, and an answer that needs masks cannot be given.
        let unusable = self.fresh.is_some() && self.grounding.is_none();
        if failed.is_some() && (stale || unusable) {
            verdict = Verdict::Failed;
            instances.clear();
        }
        let confidence = match verdict {
            Verdict::Pending | Verdict::Lost | Verdict::Failed => 0.0,
            Verdict::Found | Verdict::Absent | Verdict::Ambiguous | Verdict::Unsure => {
                self.grounding.as_ref().map_or(0.0, |(_, g)| g.confidence)
            }
        };
        let error = self.spec.command.as_ref().err().or(failed).or(self.ground_error.as_ref()).cloned();
        TargetReply {
            target_id: self.spec.id.clone(),
            verdict,
            confidence,
            instances,
            error,
            grounding: self.grounding.clone(),
        }
    }

    fn verdict(&self) -> Verdict {
        if self.spec.command.is_err() {
            return Verdict::Failed;
        }
        let Some((_, grounding)) = &self.grounding else {
            return if self.ground_error.is_some() { Verdict::Failed } else { Verdict::Pending };
        };
        let believed = self.tracks.iter().any(|t| !t.doubtful);
        match grounding.outcome {
            // "Absent" and "unsure" are about a moment; without word from the grounder they do not stay true.
            Outcome::Absent | Outcome::Unsure if self.ground_error.is_some() => Verdict::Failed,
            Outcome::Absent => Verdict::Absent,
            Outcome::Unsure => Verdict::Unsure,
            Outcome::Found | Outcome::Ambiguous if self.tracks.is_empty() && !self.lost.is_empty() => Verdict::Lost,
            Outcome::Found | Outcome::Ambiguous if !believed => Verdict::Unsure,
            Outcome::Found => Verdict::Found,
            Outcome::Ambiguous => Verdict::Ambiguous,
        }
    }
}
