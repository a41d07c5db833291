//! The scheduler's side of a session.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::super::frame::{Kept, Meta};
use super::super::masks::{Done, Failure, Input, Job, Settings};
use super::super::slot::{Slot, Wanted};
use super::super::target::{Need, Target};
use super::super::{
    Allowance, DropReason, FrameReply, Masks, NodeConfig, NodeError, NodeErrorKind, Reply, Step, TargetSpec, Verdict,
    Why, Witness,
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
    witness: Option<Arc<dyn Witness>>,
    /// What the clock says; `None` for the machine's own.
    clock: Option<Instant>,
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
        witness: Option<Arc<dyn Witness>>,
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
            witness,
            clock: None,
        }
    }

    fn saw(&self, step: impl FnOnce() -> Step) {
        if let Some(witness) = &self.witness {
            witness.saw(step());
        }
    }

    /// Has the clock stand at `now`.
    pub(in super::super) fn set_clock(&mut self, now: Instant) {
        self.clock = Some(now);
    }

    fn now(&self) -> Instant {
        self.clock.unwrap_or_else(Instant::now)
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(in super::super) fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Whether nobody reads any more, or everything is answered and nothing can follow.
    pub(super) fn is_over(&self) -> bool {
        let ending = self.slot.is_finished() || self.slot.is_draining();
        let asked = self.slot.is_asked() || !self.questions.is_empty();
        self.out.is_closed() || (ending && self.in_work.is_none() && !self.slot.waits() && !asked)
    }

    /// Brings the targets to what the client wants; those that are as before keep their state.
    pub(super) fn reconcile(&mut self, settings: Settings, next_epoch: &mut u64) {
        let Some((version, wanted)) = self.slot.targets_since(self.version) else { return };
        self.follow((version, wanted), Instant::now(), settings, next_epoch);
    }

    /// Brings the targets to `wanted`.
    pub(in super::super) fn follow(
        &mut self,
        wanted: (u64, Vec<Wanted>),
        now: Instant,
        settings: Settings,
        next_epoch: &mut u64,
    ) {
        let (version, wanted) = wanted;
        self.saw(|| Step::Follow { version, at: now });
        self.version = version;
        let mut old = std::mem::take(&mut self.targets);
        self.targets = wanted
            .into_iter()
            .map(|w| match old.iter().position(|t| t.serial == w.serial) {
                Some(at) => {
                    let mut target = old.swap_remove(at);
                    target.update(w, now, next_epoch);
                    target
                }
                None => {
                    *next_epoch += 1;
                    Target::new(&w, *next_epoch, settings.stream.absent)
                }
            })
            .collect();
    }

    /// Takes a question.
    pub(super) fn ask(&mut self, question: Question) {
        self.slot.heard();
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
        let ready: Vec<Question> = self.questions.extract_if(.., ready).collect();
        ready.iter().for_each(|q| self.saw(|| Step::Question { request: q.request }));
        ready.into_iter().map(|q| q.about(frame.clone())).collect()
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
            (Input::Arrived(Box::new(arrived)), meta)
        } else {
            let last = self.last.clone()?;
            let meta = last.meta.clone();
            (Input::Kept(last), meta)
        };
        // The grounder will begin with this frame as soon as it is decoded.
        let now = self.now();
        let embed = ground_idle && self.targets.iter().any(|t| t.due(meta.seq, now, config).is_some());
        Some(self.begin(input, meta, embed, (settings, config.remember_lost)))
    }

    /// The frame with everything that is to be done on it; the last one again where it was kept.
    pub(in super::super) fn begin(
        &mut self,
        input: Input,
        meta: Meta,
        embed: bool,
        (settings, remember): (Settings, Duration),
    ) -> Job {
        self.revision = if matches!(input, Input::Arrived(_)) { 0 } else { self.revision + 1 };
        self.revise = false;
        let (seq, revision, arrived) = (meta.seq, self.revision, meta.arrived);
        self.saw(|| Step::Begin { seq, revision, arrived });
        let span = tracing::info_span!(parent: &self.span, "frame", seq = meta.seq);
        let working = self.targets.iter_mut().filter(|t| !t.is_paused());
        let targets = working.map(|t| t.work(&meta, remember)).collect();
        let until = meta.until();
        self.in_work = Some(InWork { meta, revision: self.revision });
        Job { input, targets, embed, next_id: self.next_id, until, settings, span }
    }

    pub(in super::super) fn decoded(&mut self, frame: Arc<Kept>) {
        self.saw(|| Step::Decoded);
        self.last = Some(frame);
    }

    /// Takes what became of the frame in work, and answers it.
    pub(in super::super) fn segmented(&mut self, outcome: Result<Done, Failure>, config: &NodeConfig) {
        let Some(InWork { meta, revision }) = self.in_work.take() else { return };
        self.saw(|| {
            Step::Segmented(match &outcome {
                Ok(_) => Masks::Made,
                Err(Failure::Frame(_)) => Masks::Unreadable,
                Err(Failure::Late) => Masks::Late,
                Err(Failure::Segment(error)) => Masks::Failed(error.clone()),
            })
        });
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
            self.answer_unsegmented(frame.meta(), error, config);
        }
    }

    /// Answers a frame that is not even decoded.
    pub(in super::super) fn answer_unsegmented(&mut self, meta: Meta, error: &NodeError, config: &NodeConfig) {
        let (seq, arrived) = (meta.seq, meta.arrived);
        self.saw(|| Step::Unsegmented { seq, arrived, error: error.clone() });
        self.answer(meta, 0, Some(error), Vec::new(), config);
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
        let now = self.now();
        let partial = meta.options.repeats() && self.targets.iter().any(|t| t.is_under_way(&meta, now, config));
        let reply = FrameReply { meta, size, targets, timings, counters, revision, partial };
        self.tell(Reply::Frame(Box::new(reply)));
    }

    /// There was room when the job was given; without it the reader is gone.
    fn tell(&self, reply: Reply) {
        let _ = self.out.try_send(reply);
    }

    /// How badly its neediest target wants the grounder.
    pub(super) fn need(&self, config: &NodeConfig) -> Option<Need> {
        let (seq, now) = (self.last.as_ref()?.meta.seq, self.now());
        let need = self.targets.iter().filter_map(|t| t.due(seq, now, config)).map(Need::from).max()?;
        self.allowance.refuses_grounding().is_none().then_some(need)
    }

    /// Its neediest target, on the newest frame; the one that has waited longest among equals.
    pub(super) fn ground_job(&mut self, deadline: Instant, config: &NodeConfig) -> Option<(u64, GroundJob)> {
        let (serial, why) = self.neediest(config)?;
        self.allowance.grounding().ok()?;
        self.ask_about(serial, why, deadline)
    }

    /// The serial of that target, and why it is to be looked at.
    pub(in super::super) fn neediest(&self, config: &NodeConfig) -> Option<(u64, Why)> {
        let (seq, now) = (self.last.as_ref()?.meta.seq, self.now());
        let most = self.need(config)?;
        let due = self.targets.iter().filter_map(|t| t.due(seq, now, config).map(|why| (t, why)));
        let needy = due.filter(|(_, why)| Need::from(*why) == most);
        let (target, why) = needy.min_by_key(|(t, _)| t.answered())?;
        target.spec.command.as_ref().ok()?;
        Some((target.serial, why))
    }

    /// The target, on the newest frame.
    pub(in super::super) fn ask_about(&mut self, serial: u64, why: Why, deadline: Instant) -> Option<(u64, GroundJob)> {
        let frame = self.last.clone()?;
        let seq = frame.meta.seq;
        self.saw(|| Step::Ask { serial, why });
        let target = self.targets.iter_mut().find(|t| t.serial == serial)?;
        let text = target.spec.command.clone().ok()?;
        target.ask(&frame.meta, why);
        let span = tracing::info_span!(parent: &self.span, "frame", seq, target = target.spec.id);
        let TargetSpec { hint, strategy, .. } = *target.spec;
        let last = target.followed();
        let boxes = frame.meta.options.anytime;
        Some((target.epoch, GroundJob { text, hint, strategy, frame, last, boxes, deadline, span }))
    }

    /// The grounder wanted masks, and got them or not.
    pub(super) fn guessed(&mut self, answered: bool) {
        self.saw(|| Step::Guessed(answered));
    }

    /// Takes the grounder's boxes on `frame`, and shows them at once where nothing else comes first.
    pub(super) fn proposed(&mut self, epoch: u64, frame: Arc<Kept>, boxes: Grounding, config: &NodeConfig) {
        let meta = frame.meta.clone();
        let is_newest = self.last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &frame));
        let heard = self.hear_boxes(epoch, frame, boxes);
        let answered = heard && is_newest && self.is_ready() && self.can_revise() && !self.slot.waits();
        self.saw(|| Step::Proposed { answered });
        if answered {
            self.show_boxes(meta, config);
        }
    }

    /// Takes the grounder's boxes on `frame`; says whether they are of use.
    pub(in super::super) fn hear_boxes(&mut self, epoch: u64, frame: Arc<Kept>, boxes: Grounding) -> bool {
        let target = self.targets.iter_mut().find(|t| t.epoch == epoch);
        let heard = target.is_some_and(|target| target.hear_boxes(frame, boxes));
        if heard {
            self.revise = self.last.as_ref().is_some_and(|last| last.meta.options.repeats());
        }
        heard
    }

    /// Answers the newest frame again, with boxes.
    pub(in super::super) fn show_boxes(&mut self, meta: Meta, config: &NodeConfig) {
        self.revision += 1;
        self.answer(meta, self.revision, None, Vec::new(), config);
    }

    /// Takes the grounder's answer about `frame`.
    pub(in super::super) fn grounded(&mut self, epoch: u64, frame: Arc<Kept>, outcome: Result<Grounding, NodeError>) {
        self.saw(|| Step::Grounded(outcome.as_ref().map(drop).map_err(NodeError::clone)));
        let now = self.now();
        let Some(target) = self.targets.iter_mut().find(|t| t.epoch == epoch) else { return };
        target.hear(frame, outcome, now);
        self.revise = self.last.as_ref().is_some_and(|last| last.meta.options.repeats());
    }

    /// What waits for the grounder will not be grounded.
    pub(in super::super) fn ground_is_down(&mut self, error: &NodeError) {
        let news = self.targets.iter_mut().filter_map(|t| t.give_up(error).then_some(())).count();
        if news > 0 {
            self.saw(|| Step::GroundDown(error.clone()));
        }
    }

    /// The newest frame that was decoded.
    pub(in super::super) fn last(&self) -> Option<Arc<Kept>> {
        self.last.clone()
    }
}
