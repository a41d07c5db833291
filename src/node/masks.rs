//! The segment stage's work on one frame: decode, embed, carry groundings here, follow instances, keep ids.
//!
//! All of it runs on the thread that owns the segmenter. A grounding is about the frame that the language model saw,
//! which is an older one by now: its masks are made there, on that frame's embedding, and then followed to this frame
//! in the same batch as everything else. Prompting SAM on this frame with boxes from that one would give masks of
//! whatever has moved into the boxes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::frame::{Arrived, Fresh, Kept};
use super::identity::{Known, Lost, remember};
use super::position::Scene;
use super::state::Event;
use super::tracked::Tracked;
use super::{NodeConfig, NodeError, Origin, Stages};
use crate::engine::bundle::{Calibration, StreamThresholds};
use crate::frame::FrameLimits;
use crate::pipeline::{Embedding, GroundedInstance, Outcome, PipelineError, Segment, TrackLimits, segment_groups};
use crate::prompt::{CountHint, Prompt};

/// What is to be done with one frame.
pub(super) struct Job {
    pub input: Input,
    pub targets: Vec<Work>,
    /// Embed the frame even if nothing is to be segmented: a grounding on it is about to begin.
    pub embed: bool,
    /// The last instance id that was given out.
    pub next_id: u64,
    /// No more work is begun then.
    pub until: Option<Instant>,
    pub settings: Settings,
    pub span: tracing::Span,
}

/// What of the node's settings matters here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub frame: FrameLimits,
    pub track: TrackLimits,
    pub min_mask_score: f32,
    pub stream: StreamThresholds,
    pub calibration: Calibration,
}

impl Settings {
    pub(super) fn of(config: &NodeConfig, stages: &Stages) -> Self {
        let (min_mask_score, calibration) = (stages.min_mask_score, stages.calibration);
        // What was good enough to be grounded is good enough to be followed.
        let track = TrackLimits { min_score: config.track.min_score.min(min_mask_score), ..config.track };
        Self { frame: config.frame, track, min_mask_score, stream: stages.stream, calibration }
    }
}

pub(super) enum Input {
    /// Fresh from the camera.
    Arrived(Box<Arrived>),
    /// Decoded before.
    Kept(Arc<Kept>),
}

/// One target's part.
pub(super) struct Work {
    pub epoch: u64,
    pub hint: CountHint,
    pub tracks: Vec<Arc<Tracked>>,
    pub lost: Vec<Lost>,
    /// A grounding that has not been used yet.
    pub fresh: Option<Fresh>,
    /// That grounding and those before it leave as little doubt that there is nothing to follow as ABSENT takes.
    pub absent: bool,
}

/// What became of the frame.
pub(super) struct Done {
    pub targets: Vec<WorkDone>,
    pub next_id: u64,
    pub timings: Vec<(&'static str, Duration)>,
}

/// What became of one target.
pub(super) struct WorkDone {
    pub epoch: u64,
    pub tracks: Vec<Arc<Tracked>>,
    pub lost: Vec<Lost>,
    pub used: Option<Fresh>,
    /// What happened to its masks, where anything did.
    pub event: Option<Event>,
}

/// Why there are no new masks.
pub(super) enum Failure {
    /// The frame cannot be read.
    Frame(NodeError),
    /// The frame's budget was over before all of the work had begun.
    Late,
    /// The segmenter failed.
    Segment(NodeError),
}

impl From<PipelineError> for Failure {
    fn from(error: PipelineError) -> Self {
        Self::Segment(error.into())
    }
}

/// What SAM is asked on this frame.
struct Ask {
    target: usize,
    /// One, or one for each group of points of a grounded instance.
    prompts: Vec<Prompt>,
    kind: AskKind,
}

enum AskKind {
    /// Where an instance went.
    Follow(Arc<Tracked>),
    /// Where an instance went that was grounded on an earlier frame, since that frame.
    Carry(Arc<Tracked>),
    /// An instance that was grounded on this very frame, and the probability that it is there.
    Ground(Arc<GroundedInstance>, f32),
}

/// The instances of one target on this frame.
#[derive(Default)]
struct Found {
    followed: Vec<Arc<Tracked>>,
    lost: Vec<Arc<Tracked>>,
    grounded: Vec<Tracked>,
    grounded_lost: Vec<Tracked>,
}

impl Found {
    /// Finds out where in space the masks that were made on this frame are.
    fn locate(&mut self, scene: &Scene) {
        for tracked in self.followed.iter_mut().filter(|t| t.position.is_none()) {
            let tracked = Arc::make_mut(tracked);
            tracked.position = scene.locate(tracked.track.mask());
        }
        for tracked in &mut self.grounded {
            tracked.position = scene.locate(tracked.track.mask());
        }
    }
}

/// Does `job`; `decoded` is told of the frame as soon as its pixels are there.
pub(super) fn run(stage: &mut dyn Segment, job: Job, decoded: &dyn Fn(&Arc<Kept>)) -> Result<Done, Failure> {
    let mut timings = Vec::new();
    let frame = match job.input {
        Input::Kept(frame) => frame,
        Input::Arrived(arrived) => {
            timings.push(("wait", arrived.waited()));
            let frame = timed(&mut timings, "decode", || arrived.decode(job.settings.frame));
            Arc::new(frame.map_err(Failure::Frame)?)
        }
    };
    decoded(&frame);
    let in_time = || if job.until.is_some_and(|until| Instant::now() > until) { Err(Failure::Late) } else { Ok(()) };
    in_time()?;
    let has_masks =
        |w: &Work| !w.tracks.is_empty() || w.fresh.as_ref().is_some_and(|f| !f.grounding.instances.is_empty());
    if job.embed || job.targets.iter().any(has_masks) {
        timed(&mut timings, "embed", || embedding(stage, &frame).map(drop))?;
    }
    in_time()?;
    let mut found = timed(&mut timings, "segment", || segment(stage, &frame, &job.targets, job.settings))?;
    if let Some(scene) = &frame.scene {
        timed(&mut timings, "locate", || found.iter_mut().for_each(|f| f.locate(scene)));
    }
    let (mut next_id, now) = (job.next_id, frame.meta.arrived);
    let settle = |(work, found)| settle(work, found, now, &mut next_id);
    let targets = job.targets.into_iter().zip(found).map(settle).collect();
    Ok(Done { targets, next_id, timings })
}

fn timed<T>(timings: &mut Vec<(&'static str, Duration)>, stage: &'static str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let out = work();
    timings.push((stage, start.elapsed()));
    out
}

/// The frame's embedding, made once.
pub(super) fn embedding<'a>(stage: &mut dyn Segment, frame: &'a Kept) -> Result<&'a Embedding, PipelineError> {
    if let Some(embedding) = frame.embedding.get() {
        return Ok(embedding);
    }
    let made = stage.embed(&frame.image)?;
    Ok(frame.embedding.get_or_init(|| made))
}

/// The masks of all targets on `frame`: one batch there, and one before it for each frame that was grounded earlier.
fn segment(
    stage: &mut dyn Segment,
    frame: &Arc<Kept>,
    targets: &[Work],
    settings: Settings,
) -> Result<Vec<Found>, PipelineError> {
    let mut found: Vec<Found> = targets.iter().map(|_| Found::default()).collect();
    let mut asks = Vec::new();
    for (target, work) in targets.iter().enumerate() {
        for tracked in work.tracks.iter().filter(|t| !t.doubtful) {
            if tracked.mask_seq == frame.meta.seq {
                found[target].followed.push(tracked.clone());
            } else {
                let prompts = vec![tracked.prompt(&frame.meta)];
                asks.push(Ask { target, prompts, kind: AskKind::Follow(tracked.clone()) });
            }
        }
        match &work.fresh {
            Some(fresh) if Arc::ptr_eq(&fresh.frame, frame) => {
                asks.extend(fresh.grounding.instances.iter().map(|instance| {
                    let kind = AskKind::Ground(Arc::new(instance.clone()), fresh.grounding.p_found);
                    Ask { target, prompts: instance.prompts(), kind }
                }));
            }
            Some(fresh) => {
                // Masks that SAM doubts on their own frame are not worth following.
                let there = ground_on(stage, fresh, settings)?.into_iter().filter(|t| !t.doubtful);
                asks.extend(there.map(|tracked| Ask {
                    target,
                    prompts: vec![tracked.prompt(&frame.meta)],
                    kind: AskKind::Carry(Arc::new(tracked)),
                }));
            }
            None => {}
        }
    }
    if asks.is_empty() {
        return Ok(found);
    }
    let prompts: Vec<Vec<Prompt>> = asks.iter_mut().map(|a| std::mem::take(&mut a.prompts)).collect();
    let embedding = embedding(stage, frame)?;
    let answers = segment_groups(stage, embedding, &prompts)?;
    for (ask, answer) in asks.into_iter().zip(answers) {
        let found = &mut found[ask.target];
        match ask.kind {
            AskKind::Follow(tracked) => match tracked.follow(frame, &answer, settings) {
                Ok(next) => found.followed.push(Arc::new(next)),
                Err(reason) => {
                    tracing::debug!(instance = tracked.id, ?reason, "lost instance");
                    found.lost.push(tracked);
                }
            },
            AskKind::Carry(tracked) => match tracked.follow(frame, &answer, settings) {
                Ok(next) => found.grounded.push(next),
                Err(reason) => {
                    tracing::debug!(?reason, "lost instance since its grounding");
                    found.grounded_lost.push(Arc::unwrap_or_clone(tracked));
                }
            },
            AskKind::Ground(instance, p_found) => {
                found.grounded.extend(Tracked::ground(frame, (instance, p_found), answer, settings));
            }
        }
    }
    Ok(found)
}

/// The masks of a grounding on the frame that the language model saw.
fn ground_on(stage: &mut dyn Segment, fresh: &Fresh, settings: Settings) -> Result<Vec<Tracked>, PipelineError> {
    let instances = &fresh.grounding.instances;
    if instances.is_empty() {
        return Ok(Vec::new());
    }
    let prompts: Vec<Vec<Prompt>> = instances.iter().map(GroundedInstance::prompts).collect();
    let embedding = embedding(stage, &fresh.frame)?;
    let answers = segment_groups(stage, embedding, &prompts)?;
    let ground = |(instance, answer): (&GroundedInstance, _)| {
        let said = (Arc::new(instance.clone()), fresh.grounding.p_found);
        Tracked::ground(&fresh.frame, said, answer, settings)
    };
    Ok(instances.iter().zip(answers).filter_map(ground).collect())
}

/// Which instances a target has from here on, and under which ids.
fn settle(work: Work, found: Found, now: Instant, next_id: &mut u64) -> WorkDone {
    let Found { followed, lost, grounded, grounded_lost } = found;
    let lost_now = !lost.is_empty() || !grounded_lost.is_empty();
    let lost: Vec<Lost> = lost.into_iter().map(Lost::new).chain(work.lost).collect();
    let (tracks, mut lost, event) = match work.fresh.as_ref().map(|f| f.grounding.outcome) {
        // An answer that cannot be read, or that is not sure by itself or with those before it, takes nothing back; what it
        // does name counts.
        None | Some(Outcome::Unsure) if grounded.is_empty() && grounded_lost.is_empty() && !work.absent => {
            let event = if let Some(event) = shown(&followed, Event::Follow) {
                Some(event)
            } else if lost_now {
                Some(Event::Lose)
            } else {
                // What SAM did not believe in is not followed.
                (work.fresh.is_some() || !work.tracks.is_empty()).then_some(Event::Clear)
            };
            (followed, lost, event)
        }
        // The camera moved on too far since that frame, and what was followed all the while is still there: keep it,
        // and have the target grounded again.
        Some(_) if grounded.is_empty() && !grounded_lost.is_empty() && !followed.is_empty() => {
            let known = Known { followed: &followed, lost: &lost, hint: work.hint, now };
            let (named, rest) = known.rename(grounded_lost, next_id);
            let all = named.into_iter().map(Lost::new).chain(rest);
            let (here, lost): (Vec<_>, Vec<_>) = all.partition(|l| followed.iter().any(|t| t.id == l.tracked.id));
            let mut followed = followed;
            for tracked in &mut followed {
                // It stays where it was followed to; the look counts all the same.
                if let Some(Lost { tracked: judged, .. }) = here.iter().find(|l| l.tracked.id == tracked.id) {
                    let tracked = Arc::make_mut(tracked);
                    (tracked.standing, tracked.contested) = (judged.standing, judged.contested);
                }
            }
            let event = shown(&followed, Event::Follow);
            (followed, lost, event)
        }
        _ => {
            // In one go, so that no id is given twice.
            let number = grounded.len();
            let known = Known { followed: &followed, lost: &lost, hint: work.hint, now };
            let (mut named, rest) = known.rename([grounded, grounded_lost].concat(), next_id);
            let gone = named.split_off(number);
            let unnamed = if gone.is_empty() { Event::Clear } else { Event::Lose };
            let event = shown(&named, Event::Carry).unwrap_or(unnamed);
            let missed = rest.into_iter().map(|l| Lost { missed: true, ..l });
            (named, gone.into_iter().map(Lost::new).chain(missed).collect(), Some(event))
        }
    };
    remember(&mut lost);
    WorkDone { epoch: work.epoch, tracks, lost, used: work.fresh, event }
}

/// What it is to a target that these are shown; `else_` where none was made from the language model's own words.
fn shown(tracks: &[Arc<Tracked>], else_: Event) -> Option<Event> {
    let grounded = tracks.iter().any(|t| t.origin == Origin::Grounded);
    (!tracks.is_empty()).then_some(if grounded { Event::Ground } else { else_ })
}
