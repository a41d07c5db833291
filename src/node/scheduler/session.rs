//! The scheduler's side of a session.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::super::frame::{Kept, Meta};
use super::super::masks::{Done, Failure, Input, Job, Settings};
use super::super::slot::Slot;
use super::super::target::{Need, Target};
use super::super::{Allowance, DropReason, FrameReply, NodeConfig, NodeError, Reply, TargetSpec, Verdict};
use super::GroundJob;
use crate::pipeline::Grounding;

/// One session.
pub struct Session {
    id: u64,
    slot: Arc<Slot>,
    out: mpsc::Sender<Reply>,
    targets: Vec<Target>,
    /// Of the slot's targets that `targets` follows.
    version: u64,
    /// The newest frame that was decoded.
    last: Option<Arc<Kept>>,
    /// Answers to that frame so far, less one.
    revision: u32,
    /// That frame should be answered again.
    revise: bool,
    in_work: Option<InWork>,
    next_id: u64,
    span: tracing::Span,
    _permit: OwnedSemaphorePermit,
    allowance: Arc<Allowance>,
}

struct InWork {
    meta: Meta,
    revision: u32,
}

impl Session {
    pub(in super::super) fn new(
        id: u64,
        slot: Arc<Slot>,
        out: mpsc::Sender<Reply>,
        (permit, allowance): (OwnedSemaphorePermit, Arc<Allowance>),
    ) -> Self {
        Self {
            id,
            slot,
            out,
            targets: Vec::new(),
            version: 0,
            last: None,
            revision: 0,
            revise: false,
            in_work: None,
            next_id: 0,
            span: tracing::info_span!("session", session_id = id),
            _permit: permit,
            allowance,
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Whether nobody reads any more, or everything is answered and nothing can follow.
    pub(super) fn is_over(&self) -> bool {
        let ending = self.slot.is_finished() || self.slot.is_draining();
        self.out.is_closed() || (ending && self.in_work.is_none() && !self.slot.waits())
    }

    /// Brings the targets to what the client wants; those that are as before keep their state.
    pub(super) fn reconcile(&mut self, next_epoch: &mut u64) {
        let Some((version, wanted)) = self.slot.targets_since(self.version) else { return };
        self.version = version;
        let mut old = std::mem::take(&mut self.targets);
        self.targets = wanted
            .into_iter()
            .map(|w| match old.iter().position(|t| t.serial == w.serial) {
                Some(at) => old.swap_remove(at),
                None => {
                    *next_epoch += 1;
                    Target::new(w.spec, w.serial, *next_epoch)
                }
            })
            .collect();
    }

    /// Whether there is work for the segment stage, and room for its reply.
    pub(super) fn is_ready(&self) -> bool {
        self.in_work.is_none() && (self.slot.waits() || self.can_revise()) && self.out.capacity() > 0
    }

    fn can_revise(&self) -> bool {
        self.revise && self.last.is_some() && !self.slot.is_draining()
    }

    /// The newest frame with everything that is to be done on it; `None` where it is overdue.
    pub(super) fn segment_job(&mut self, settings: Settings, ground_idle: bool, config: &NodeConfig) -> Option<Job> {
        let (input, meta) = if self.slot.waits() {
            let arrived = self.slot.take()?;
            let meta = arrived.meta();
            self.revision = 0;
            (Input::Arrived(Box::new(arrived)), meta)
        } else {
            let last = self.last.clone()?;
            let meta = last.meta.clone();
            self.revision += 1;
            (Input::Kept(last), meta)
        };
        self.revise = false;
        // The grounder will begin with this frame as soon as it is decoded.
        let embed = ground_idle && self.targets.iter().any(|t| t.need(meta.seq, config).is_some());
        let span = tracing::info_span!(parent: &self.span, "frame", seq = meta.seq);
        self.in_work = Some(InWork { meta, revision: self.revision });
        let targets = self.targets.iter().map(Target::work).collect();
        Some(Job { input, targets, embed, next_id: self.next_id, settings, span })
    }

    pub(super) fn decoded(&mut self, frame: Arc<Kept>) {
        self.last = Some(frame);
    }

    /// Takes what became of the frame in work, and answers it.
    pub(super) fn segmented(&mut self, outcome: Result<Done, Failure>, config: &NodeConfig) {
        let Some(InWork { meta, revision }) = self.in_work.take() else { return };
        match outcome {
            Ok(done) => {
                self.next_id = done.next_id;
                for work in done.targets {
                    if let Some(target) = self.targets.iter_mut().find(|t| t.epoch == work.epoch) {
                        target.take(work);
                    }
                }
                self.answer(meta, revision, None, done.timings, config);
            }
            Err(Failure::Frame(error)) => {
                self.slot.count_dropped(DropReason::Undecodable);
                self.tell(Reply::Rejected { seq: meta.seq, error });
            }
            Err(Failure::Segment(error)) => self.answer(meta, revision, Some(&error), Vec::new(), config),
        }
    }

    /// Answers the waiting frame with what is known anyway, for the segment stage is down.
    pub(super) fn answer_without_masks(&mut self, error: &NodeError, config: &NodeConfig) {
        if self.in_work.is_some() || self.out.capacity() == 0 {
            return;
        }
        if let Some(frame) = self.slot.take() {
            self.answer(frame.meta(), 0, Some(error), Vec::new(), config);
        }
    }

    fn answer(
        &mut self,
        meta: Meta,
        revision: u32,
        failed: Option<&NodeError>,
        timings: Vec<(&'static str, Duration)>,
        config: &NodeConfig,
    ) {
        if revision == 0 {
            self.slot.count_answered();
        }
        let size = self.last.as_ref().filter(|k| k.meta.seq == meta.seq).map(|k| k.image.size());
        let mut targets: Vec<_> = self.targets.iter().map(|t| t.reply(&meta, failed, config)).collect();
        if let Some(refused) = self.allowance.refuses_grounding() {
            let unasked = targets.iter_mut().filter(|t| matches!(t.verdict, Verdict::Pending | Verdict::Lost));
            unasked.filter(|t| t.error.is_none()).for_each(|t| t.error = Some(refused.clone()));
        }
        let counters = self.slot.counters();
        let reply = FrameReply { meta, size, targets, timings, counters, revision };
        self.tell(Reply::Frame(Box::new(reply)));
    }

    /// There was room when the job was given; without it the reader is gone.
    fn tell(&self, reply: Reply) {
        let _ = self.out.try_send(reply);
    }

    /// How badly its neediest target wants the grounder.
    pub(super) fn need(&self, config: &NodeConfig) -> Option<Need> {
        let seq = self.last.as_ref()?.meta.seq;
        let need = self.targets.iter().filter_map(|t| t.need(seq, config)).max()?;
        self.allowance.refuses_grounding().is_none().then_some(need)
    }

    /// Its neediest target, on the newest frame; the one that has waited longest among equals.
    pub(super) fn ground_job(&mut self, deadline: Instant, config: &NodeConfig) -> Option<(u64, GroundJob)> {
        let frame = self.last.clone()?;
        let seq = frame.meta.seq;
        let most = self.need(config)?;
        let needy = self.targets.iter_mut().filter(|t| t.need(seq, config) == Some(most));
        let target = needy.min_by_key(|t| t.answered())?;
        let text = target.spec.command.clone().ok()?;
        self.allowance.grounding().ok()?;
        target.ask(seq);
        let span = tracing::info_span!(parent: &self.span, "frame", seq, target = target.spec.id);
        let TargetSpec { hint, strategy, .. } = *target.spec;
        let last = target.followed();
        Some((target.epoch, GroundJob { text, hint, strategy, frame, last, deadline, span }))
    }

    /// Takes the grounder's answer about `frame`.
    pub(super) fn grounded(&mut self, epoch: u64, frame: Arc<Kept>, outcome: Result<Grounding, NodeError>) {
        let Some(target) = self.targets.iter_mut().find(|t| t.epoch == epoch) else { return };
        target.hear(frame, outcome);
        self.revise = self.last.as_ref().is_some_and(|last| last.meta.options.revise);
    }

    /// What waits for the grounder will not be grounded.
    pub(super) fn ground_is_down(&mut self, error: &NodeError) {
        self.targets.iter_mut().for_each(|t| t.give_up(error));
    }
}
