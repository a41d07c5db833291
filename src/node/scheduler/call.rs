//! The scheduler's side of a unary call: one frame, one command, both stages one after the other.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::super::frame::{Kept, Meta};
use super::super::masks::{Done, Failure, Input, Job, Settings};
use super::super::slot::Wanted;
use super::super::target::Target;
use super::super::{Counters, FrameReply, NodeConfig, NodeError, NodeErrorKind, TargetSpec, Why};
use super::GroundJob;
use crate::engine::bundle::StreamThresholds;
use crate::pipeline::Grounding;

/// One call.
pub struct Call {
    frame: Arc<Kept>,
    /// Of the answer.
    meta: Meta,
    target: Target,
    deadline: Option<Instant>,
    answer: oneshot::Sender<Result<FrameReply, NodeError>>,
    /// Between the stages: the frame is still to be embedded, or being embedded, beside the grounder.
    embed: Embed,
    step: Step,
    timings: Vec<(&'static str, std::time::Duration)>,
    span: tracing::Span,
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    WaitGround,
    Grounding,
    WaitSegment,
    Segmenting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Embed {
    Due,
    InWork,
    Done,
}

impl Call {
    pub(in super::super) fn new(
        frame: Arc<Kept>,
        spec: TargetSpec,
        deadline: Option<Instant>,
        answer: oneshot::Sender<Result<FrameReply, NodeError>>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let span = tracing::info_span!("call", seq = frame.meta.seq);
        let wanted = Wanted { spec: Arc::new(spec), serial: 0, commands: 0, looks: 0, paused: false };
        let target = Target::new(&wanted, 0, StreamThresholds::NONE.absent);
        Self {
            meta: frame.meta.clone(),
            frame,
            target,
            deadline,
            answer,
            embed: Embed::Due,
            step: Step::WaitGround,
            timings: Vec::new(),
            span,
            _permit: permit,
        }
    }

    /// The same call, answered under `meta`.
    pub(super) fn answering(self, meta: Meta) -> Self {
        Self { meta, ..self }
    }

    /// Time that was spent on the call before.
    pub(in super::super) fn with_timing(mut self, stage: &'static str, time: std::time::Duration) -> Self {
        self.timings.push((stage, time));
        self
    }

    pub(in super::super) fn accept(&mut self, epoch: u64) {
        self.target.epoch = epoch;
    }

    /// Whether nobody waits for it any more; what is in work is waited for.
    pub(super) fn is_abandoned(&self) -> bool {
        self.answer.is_closed() && self.step != Step::Grounding && !self.in_segment_stage()
    }

    /// Whether its time is over while it waits for a stage: no more work is spent on it.
    pub(super) fn is_late(&self) -> bool {
        let waits = matches!(self.step, Step::WaitGround | Step::WaitSegment) && self.embed != Embed::InWork;
        waits && self.deadline.is_some_and(|deadline| Instant::now() > deadline)
    }

    /// The error of a call whose time is over.
    pub(super) fn late() -> NodeError {
        NodeError::new(NodeErrorKind::Deadline, "meet deadline: it passed while the call waited for its turn")
    }

    fn in_segment_stage(&self) -> bool {
        self.step == Step::Segmenting || self.embed == Embed::InWork
    }

    pub(super) fn fail(self, error: NodeError) {
        let _ = self.answer.send(Err(error));
    }

    pub(super) fn wants_ground(&self) -> bool {
        self.step == Step::WaitGround
    }

    pub(in super::super) fn ground_job(&mut self, latest: Instant) -> Option<(u64, GroundJob)> {
        let text = self.target.spec.command.clone().ok()?;
        self.step = Step::Grounding;
        self.target.ask(&self.frame.meta, Why::New);
        let deadline = self.deadline.map_or(latest, |d| d.min(latest));
        let TargetSpec { hint, strategy, .. } = *self.target.spec;
        let (frame, span) = (self.frame.clone(), self.span.clone());
        let (last, boxes) = (Vec::new(), false);
        Some((self.target.epoch, GroundJob { text, hint, strategy, frame, last, boxes, deadline, span }))
    }

    /// The grounder's answer; the call goes on where it has instances.
    pub(in super::super) fn grounded(
        mut self,
        outcome: Result<Grounding, NodeError>,
        config: &NodeConfig,
    ) -> Option<Self> {
        match outcome {
            Err(error) => {
                self.fail(error);
                None
            }
            Ok(grounding) => {
                self.timings.extend(grounding.timings.iter().copied());
                let has_masks = !grounding.instances.is_empty();
                self.target.hear(self.frame.clone(), Ok(grounding), Instant::now());
                if has_masks {
                    self.step = Step::WaitSegment;
                    return Some(self);
                }
                self.target.use_without_masks();
                self.reply(config);
                None
            }
        }
    }

    pub(super) fn wants_segment(&self) -> bool {
        let embed = self.embed == Embed::Due && self.step == Step::Grounding;
        embed || (self.step == Step::WaitSegment && self.embed != Embed::InWork)
    }

    /// The embedding while the grounder thinks, or the masks.
    pub(in super::super) fn segment_job(&mut self, settings: Settings) -> Job {
        // One answer about one frame: nothing of it is followed.
        let settings = Settings { stream: StreamThresholds::NONE, ..settings };
        let targets = if self.step == Step::WaitSegment {
            self.step = Step::Segmenting;
            self.embed = Embed::Done;
            vec![self.target.work(&self.frame.meta, std::time::Duration::ZERO)]
        } else {
            self.embed = Embed::InWork;
            Vec::new()
        };
        Job {
            input: Input::Kept(self.frame.clone()),
            targets,
            embed: true,
            next_id: 0,
            until: self.deadline,
            settings,
            span: self.span.clone(),
        }
    }

    /// What became of the job; the call goes on where that was only the embedding.
    pub(in super::super) fn segmented(mut self, outcome: Result<Done, Failure>, config: &NodeConfig) -> Option<Self> {
        let done = match outcome {
            Ok(done) => done,
            Err(Failure::Frame(error) | Failure::Segment(error)) => {
                self.fail(error);
                return None;
            }
            Err(Failure::Late) => {
                self.fail(Self::late());
                return None;
            }
        };
        self.timings.extend(done.timings);
        if self.step != Step::Segmenting {
            self.embed = Embed::Done;
            return Some(self);
        }
        done.targets.into_iter().for_each(|work| self.target.take(work));
        self.reply(config);
        None
    }

    fn reply(self, config: &NodeConfig) {
        let meta = self.meta;
        let target = self.target.reply(&meta, None, config);
        let reply = FrameReply {
            meta,
            size: Some(self.frame.image.size()),
            targets: vec![target],
            timings: self.timings,
            counters: Counters::default(),
            revision: 0,
            partial: false,
        };
        let _ = self.answer.send(Ok(reply));
    }
}
