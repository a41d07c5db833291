//! The scheduler's side of a session.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::super::frame::{Kept, Meta};
use super::super::masks::{Done, Failure, Input, Job, Settings};
use super::super::slot::Slot;
use super::super::target::{Need, Target};
use super::super::{
    Allowance, DropReason, FrameReply, NodeConfig, NodeError, NodeErrorKind, Reply, TargetSpec, Verdict,
};
use super::{Call, GroundJob, Question};
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
    /// Questions that wait for the frame they are about.
    questions: Vec<Question>,
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
            questions: Vec::new(),
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
        self.out.is_closed() || (ending && self.in_work.is_none() && !self.slot.waits() && self.questions.is_empty())
    }

    /// Brings the targets to what the client wants; those that are as before keep their state.
    pub(super) fn reconcile(&mut self, next_epoch: &mut u64) {
        let Some((version, wanted)) = self.slot.targets_since(self.version) else { return };
        self.version = version;
        let mut old = std::mem::take(&mut self.targets);
        self.targets = wanted
            .into_iter()
            .map(|w| match old.iter().position(|t| t.serial == w.serial) {
                Some(at) => {
                    let mut target = old.swap_remove(at);
                    target.update(w, next_epoch);
                    target
                }
                None => {
                    *next_epoch += 1;
                    Target::new(&w, *next_epoch)
                }
            })
            .collect();
    }

    /// Takes a question.
    pub(super) fn ask(&mut self, question: Question) {
        self.questions.push(question);
    }

    /// Calls for the questions whose frame is there: the newest that had come when they were asked, or the last before
    /// it where that one was dropped.
    pub(super) fn calls(&mut self) -> Vec<Call> {
        if self.slot.is_draining() {
            self.questions.drain(..).for_each(|q| q.fail(super::super::session::gone()));
        }
        let nothing_comes = self.in_work.is_none() && !self.slot.waits();
        let Some(frame) = self.last.clone() else {
            if nothing_comes && self.slot.is_finished() {
                let what = "ask: the stream ended before there was a frame to look at";
                let error = NodeError::new(NodeErrorKind::Request, what);
                self.questions.drain(..).for_each(|q| q.fail(error.clone()));
            }
            return Vec::new();
        };
        let seq = frame.meta.seq;
        let ready = |q: &mut Question| nothing_comes || q.after.is_none_or(|after| seq >= after);
        self.questions.extract_if(.., ready).map(|q| q.about(frame.clone())).collect()
    }

    /// Whether there is work for the segment stage, and room for its reply.
    pub(super) fn is_ready(&self) -> bool {
        self.in_work.is_none() && (self.slot.waits() || self.can_revise()) && self.out.capacity() > 0
    }

    fn can_revise(&self) -> bool {
        let in_time = |last: &Arc<Kept>| last.meta.until().is_none_or(|until| Instant::now() <= until);
        self.revise && self.last.as_ref().is_some_and(in_time) && !self.slot.is_draining()
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
        let embed = ground_idle && self.targets.iter().any(|t| t.due(meta.seq, config).is_some());
        let span = tracing::info_span!(parent: &self.span, "frame", seq = meta.seq);
        let working = self.targets.iter_mut().filter(|t| !t.is_paused());
        let targets = working.map(|t| t.work(&meta, config.remember_lost)).collect();
        let until = meta.until();
        self.in_work = Some(InWork { meta, revision: self.revision });
        Some(Job { input, targets, embed, next_id: self.next_id, until, settings, span })
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
            // Later answers to an answered frame are nobody's loss.
            Err(Failure::Late) if revision > 0 => {}
            Err(Failure::Late) => self.slot.count_dropped(DropReason::Deadline),
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
        if failed.is_some() {
            self.targets.iter_mut().for_each(Target::miss);
        }
        let size = self.last.as_ref().filter(|k| k.meta.seq == meta.seq).map(|k| k.image.size());
        let mut targets: Vec<_> = self.targets.iter().map(|t| t.reply(&meta, failed, config)).collect();
        if let Some(refused) = self.allowance.refuses_grounding() {
            let unasked = targets.iter_mut().filter(|t| matches!(t.verdict, Verdict::Pending | Verdict::Lost));
            unasked.filter(|t| t.error.is_none()).for_each(|t| t.error = Some(refused.clone()));
        }
        let counters = self.slot.counters();
        let partial = meta.options.repeats() && self.targets.iter().any(|t| t.is_under_way(&meta, config));
        let reply = FrameReply { meta, size, targets, timings, counters, revision, partial };
        self.tell(Reply::Frame(Box::new(reply)));
    }

    /// There was room when the job was given; without it the reader is gone.
    fn tell(&self, reply: Reply) {
        let _ = self.out.try_send(reply);
    }

    /// How badly its neediest target wants the grounder.
    pub(super) fn need(&self, config: &NodeConfig) -> Option<Need> {
        let seq = self.last.as_ref()?.meta.seq;
        let need = self.targets.iter().filter_map(|t| t.due(seq, config)).map(Need::from).max()?;
        self.allowance.refuses_grounding().is_none().then_some(need)
    }

    /// Its neediest target, on the newest frame; the one that has waited longest among equals.
    pub(super) fn ground_job(&mut self, deadline: Instant, config: &NodeConfig) -> Option<(u64, GroundJob)> {
        let frame = self.last.clone()?;
        let seq = frame.meta.seq;
        let most = self.need(config)?;
        let due = self.targets.iter_mut().filter_map(|t| t.due(seq, config).map(|why| (t, why)));
        let needy = due.filter(|(_, why)| Need::from(*why) == most);
        let (target, why) = needy.min_by_key(|(t, _)| t.answered())?;
        let text = target.spec.command.clone().ok()?;
        self.allowance.grounding().ok()?;
        target.ask(&frame.meta, why);
        let span = tracing::info_span!(parent: &self.span, "frame", seq, target = target.spec.id);
        let TargetSpec { hint, strategy, .. } = *target.spec;
        let last = target.followed();
        let boxes = frame.meta.options.anytime;
        Some((target.epoch, GroundJob { text, hint, strategy, frame, last, boxes, deadline, span }))
    }

    /// Takes the grounder's boxes on `frame`, and shows them at once where nothing else comes first.
    pub(super) fn proposed(&mut self, epoch: u64, frame: Arc<Kept>, boxes: Grounding, config: &NodeConfig) {
        let Some(target) = self.targets.iter_mut().find(|t| t.epoch == epoch) else { return };
        if !target.hear_boxes(frame.clone(), boxes) {
            return;
        }
        self.revise = self.last.as_ref().is_some_and(|last| last.meta.options.repeats());
        let is_newest = self.last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &frame));
        if is_newest && self.is_ready() && self.can_revise() && !self.slot.waits() {
            self.revision += 1;
            self.answer(frame.meta.clone(), self.revision, None, Vec::new(), config);
        }
    }

    /// Takes the grounder's answer about `frame`.
    pub(super) fn grounded(&mut self, epoch: u64, frame: Arc<Kept>, outcome: Result<Grounding, NodeError>) {
        let Some(target) = self.targets.iter_mut().find(|t| t.epoch == epoch) else { return };
        target.hear(frame, outcome);
        self.revise = self.last.as_ref().is_some_and(|last| last.meta.options.repeats());
    }

    /// What waits for the grounder will not be grounded.
    pub(super) fn ground_is_down(&mut self, error: &NodeError) {
        self.targets.iter_mut().for_each(|t| t.give_up(error));
    }
}
