//! What the stages are given, and what they do with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::super::draft::{DraftJob, StageDrafts};
use super::super::frame::Kept;
use super::super::masks::{self, Failure, Job};
use super::super::stage::{Restarts, Stage};
use super::super::tracked::Tracked;
use super::super::{NodeConfig, NodeError, StageName, Stages};
use super::Event;
use crate::pipeline::{Ground, Segment, Strategy};
use crate::prompt::CountHint;

/// Starts both stages, each on a thread of its own; an answer's guess waits `draft_wait` for its masks.
///
/// # Errors
/// Where the operating system gives no thread.
pub(in super::super) fn spawn_stages(
    config: &NodeConfig,
    stages: Stages,
    draft_wait: Duration,
    events: mpsc::Sender<Event>,
) -> std::io::Result<(Stage<GroundJob>, Stage<SegmentJob>)> {
    let restarts = Restarts { most: config.stage_restarts, backoff: config.restart_backoff };
    let ground =
        move |stage: &mut (dyn Ground + 'static), job, emit: &dyn Fn(Event)| ground_frame(stage, job, draft_wait, emit);
    let ground = Stage::spawn((StageName::Ground, restarts), stages.ground, events.clone(), ground)?;
    let segment = Stage::spawn((StageName::Segment, restarts), stages.segment, events, segment_frame)?;
    Ok((ground, segment))
}

/// What the ground stage is given.
pub(in super::super) struct GroundJob {
    pub text: String,
    pub hint: CountHint,
    pub strategy: Strategy,
    pub frame: Arc<Kept>,
    /// The target's instances, to guess from.
    pub last: Vec<Arc<Tracked>>,
    /// Boxes are wanted before points are asked about.
    pub boxes: bool,
    pub deadline: Instant,
    pub span: tracing::Span,
}

/// What the segment stage is given.
pub(in super::super) enum SegmentJob {
    Frame(Box<Job>),
    Draft(Box<DraftJob>),
}

/// Does `job` on the thread that owns the grounder.
fn ground_frame(
    stage: &mut (dyn Ground + 'static),
    job: GroundJob,
    draft_wait: Duration,
    emit: &dyn Fn(Event),
) -> Event {
    let _span = job.span.enter();
    let _ground = tracing::debug_span!("ground").entered();
    let GroundJob { frame, last, deadline, boxes, .. } = &job;
    let mut drafts =
        StageDrafts { frame: frame.clone(), last, wait: draft_wait, boxes: *boxes, deadline: *deadline, emit };
    let outcome = stage
        .check(&job.text, job.hint)
        .map(|command| command.by(job.strategy))
        .and_then(|command| stage.ground_drafted(&frame.image, &command, &mut drafts, Some(*deadline)))
        .map_err(NodeError::from);
    if let Err(error) = outcome.as_ref().map(drop)
        && !error.is_refusal()
    {
        tracing::warn!(%error, "ground failed");
    }
    Event::Grounded(outcome)
}

/// Does `job` on the thread that owns the segmenter.
fn segment_frame(stage: &mut (dyn Segment + 'static), job: SegmentJob, emit: &dyn Fn(Event)) -> Event {
    let job = match job {
        SegmentJob::Frame(job) => *job,
        SegmentJob::Draft(job) => {
            job.run(stage);
            return Event::Drafted;
        }
    };
    let span = job.span.clone();
    let _span = span.enter();
    let _segment = tracing::debug_span!("segment").entered();
    let outcome = masks::run(stage, job, &|frame| emit(Event::Decoded(frame.clone())));
    if let Err(Failure::Segment(error)) = &outcome {
        tracing::warn!(%error, "segment failed");
    }
    Event::Segmented(outcome)
}
