//! Who is served next. One thread, no locks but the slots', no clock but in "how long ago": what it does depends on
//! the order of its events alone.

mod call;
mod jobs;
mod question;
mod session;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

pub(super) use call::Call;
pub(super) use question::Question;
pub(super) use session::Session;

use super::draft::DraftJob;
use super::frame::Kept;
use super::masks::{Done, Failure, Settings};
use super::stage::{Condition, Restart, Stage};
use super::stats::{GroundingEnd, Stats};
use super::target::Need;
use super::{NodeConfig, NodeError, NodeErrorKind, Readiness, StageName, Stages};
use crate::pipeline::Grounding;
pub(super) use jobs::{GroundJob, SegmentJob, spawn_stages};

/// What the scheduler hears.
pub(super) enum Event {
    /// A slot, a reader or a caller changed, or some time has passed; look.
    Wake,
    Open(Box<Session>),
    Call(Box<Call>),
    Ask(Box<Question>),
    StageUp(StageName),
    StageDown(StageName, String),
    /// The job in work is lost.
    StagePanicked(StageName, NodeError),
    /// The stage is being built anew, or about to be; says why.
    StageRestarts(StageName, Restart),
    /// The segment stage has the pixels of the frame in work.
    Decoded(Arc<Kept>),
    Segmented(Result<Done, Failure>),
    Grounded(Result<Grounding, NodeError>),
    /// The ground stage has boxes for the target that it is at, and goes on to ask about points.
    Proposed(Box<Grounding>),
    /// The ground stage wanted masks, and got them or not.
    Guessed(bool),
    /// The ground stage wants masks, and waits a little for them.
    Draft(Box<DraftJob>),
    /// The segment stage has answered that, if it could.
    Drafted,
    Drain,
}

/// Whose job it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Session(u64),
    Call(u64),
}

/// What the ground stage has in work.
struct Asked {
    owner: Owner,
    epoch: u64,
    frame: Arc<Kept>,
    since: Instant,
}

/// Everyone who wants a stage takes turns: sessions by id, and all calls together as one more participant.
const CALLS: u64 = 0;

pub(super) struct Scheduler {
    config: Arc<NodeConfig>,
    ground: Stage<GroundJob>,
    segment: Stage<SegmentJob>,
    settings: Settings,
    readiness: watch::Sender<Readiness>,
    stats: Arc<Stats>,
    sessions: BTreeMap<u64, Session>,
    calls: BTreeMap<u64, Call>,
    next_call: u64,
    next_epoch: u64,
    segmenting: Option<Owner>,
    grounding: Option<Asked>,
    /// What the ground stage waits for.
    draft: Option<Box<DraftJob>>,
    /// Who was served last, by stage.
    served: [u64; 2],
    draining: bool,
}

impl Scheduler {
    pub(super) fn spawn_stages(
        config: Arc<NodeConfig>,
        stages: Stages,
        events: &mpsc::Sender<Event>,
        (readiness, stats): (watch::Sender<Readiness>, Arc<Stats>),
    ) -> std::io::Result<Self> {
        let settings = Settings::of(&config, &stages);
        let (ground, segment) = spawn_stages(&config, stages, config.draft_wait, events.clone())?;
        Ok(Self {
            config,
            ground,
            segment,
            settings,
            readiness,
            stats,
            sessions: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_call: 0,
            next_epoch: 0,
            segmenting: None,
            grounding: None,
            draft: None,
            served: [CALLS; 2],
            draining: false,
        })
    }

    /// Serves until the node is drained and nobody is left.
    pub(super) fn run(mut self, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.blocking_recv() {
            self.handle(event);
            self.watch();
            self.sweep();
            self.give_segment();
            self.give_ground();
            self.count_waiting();
            if self.draining && self.sessions.is_empty() && self.calls.is_empty() {
                return;
            }
        }
    }

    fn count_waiting(&self) {
        let frames = self.sessions.values().filter(|s| s.slot().waits()).count();
        let calls = self.calls.values().filter(|c| c.wants_ground() || c.wants_segment()).count();
        let targets = self.sessions.values().filter(|s| s.need(&self.config).is_some()).count();
        self.stats.set_waiting([frames, calls, targets]);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wake => {}
            Event::Open(session) => {
                if self.draining {
                    session.slot().drain();
                }
                self.sessions.insert(session.id(), *session);
            }
            Event::Call(call) if self.draining => call.fail(super::session::gone()),
            Event::Call(call) => self.accept(*call),
            Event::Ask(question) => match self.sessions.get_mut(&question.session) {
                Some(session) => session.ask(*question),
                None => question.fail(super::session::gone()),
            },
            Event::StageUp(name) => self.set_condition(name, Condition::Idle),
            Event::StageDown(name, why) => {
                tracing::error!(stage = name.as_str(), why, "stage is down");
                self.set_condition(name, Condition::Down(why));
            }
            Event::StageRestarts(name, why) => {
                self.stats.count_restart(name);
                self.set_condition(name, Condition::Restarting(why));
            }
            Event::StagePanicked(StageName::Segment, error) => self.finish_segment(Err(Failure::Segment(error))),
            Event::StagePanicked(StageName::Ground, error) => self.finish_ground(Err(error)),
            Event::Decoded(frame) => {
                if let Some(Owner::Session(id)) = self.segmenting {
                    self.sessions.get_mut(&id).into_iter().for_each(|s| s.decoded(frame.clone()));
                }
            }
            Event::Segmented(outcome) => {
                self.segment.condition = Condition::Idle;
                self.finish_segment(outcome);
            }
            Event::Grounded(outcome) => {
                self.ground.condition = Condition::Idle;
                self.finish_ground(outcome);
            }
            Event::Proposed(boxes) => {
                if let Some(Asked { owner: Owner::Session(id), epoch, frame, .. }) = &self.grounding
                    && let Some(session) = self.sessions.get_mut(id)
                {
                    session.proposed(*epoch, frame.clone(), *boxes, &self.config);
                }
            }
            Event::Guessed(answered) => {
                if let Some(Asked { owner: Owner::Session(id), .. }) = &self.grounding {
                    self.sessions.get_mut(id).into_iter().for_each(|s| s.guessed(answered));
                }
            }
            Event::Draft(job) => self.draft = Some(job),
            Event::Drafted => self.segment.condition = Condition::Idle,
            Event::Drain => {
                self.draining = true;
                self.readiness.send_replace(Readiness::Draining);
                self.sessions.values().for_each(|s| s.slot().drain());
            }
        }
    }

    fn accept(&mut self, mut call: Call) {
        self.next_call += 1;
        self.next_epoch += 1;
        call.accept(self.next_epoch);
        self.calls.insert(self.next_call, call);
    }

    fn set_condition(&mut self, name: StageName, condition: Condition) {
        match name {
            StageName::Ground => self.ground.condition = condition,
            StageName::Segment => self.segment.condition = condition,
        }
        self.tell_readiness();
    }

    /// Tells the world how the stages are.
    fn tell_readiness(&self) {
        if self.draining {
            return;
        }
        if let Some(error) = self.ground_hangs().or_else(|| self.segment_hangs()) {
            self.readiness.send_replace(Readiness::Down(error.to_string()));
            return;
        }
        let next = match (&self.ground.condition, &self.segment.condition) {
            (Condition::Down(why), _) => Readiness::Down(format!("the ground stage is down: {why}")),
            (_, Condition::Down(why)) => Readiness::Down(format!("the segment stage is down: {why}")),
            // The first time it is back at once, and the node stays ready; whoever panics again may take a while.
            (Condition::Restarting(again), _) if again.waits => Readiness::Down(format!("the ground stage {again}")),
            (_, Condition::Restarting(again)) if again.waits => Readiness::Down(format!("the segment stage {again}")),
            (Condition::Building | Condition::Restarting(_), _) => return,
            (_, Condition::Building | Condition::Restarting(_)) => return,
            _ => Readiness::Ready,
        };
        self.readiness.send_replace(next);
    }

    fn ground_hangs(&self) -> Option<NodeError> {
        self.ground.hangs(self.config.stage_hang).map(|time| hung(StageName::Ground, time))
    }

    fn segment_hangs(&self) -> Option<NodeError> {
        self.segment.hangs(self.config.stage_hang).map(|time| hung(StageName::Segment, time))
    }

    /// Notices stages that hang, and those that are back.
    fn watch(&self) {
        let stages = [(StageName::Ground, self.ground_hangs()), (StageName::Segment, self.segment_hangs())];
        let mut news = false;
        for (name, error) in stages {
            if error.is_some() == self.stats.hangs(name) {
                continue;
            }
            news = true;
            self.stats.set_hangs(name, error.is_some());
            match error {
                Some(error) => tracing::error!(stage = name.as_str(), %error, "stage hangs"),
                None => tracing::warn!(stage = name.as_str(), "stage is back"),
            }
        }
        if news {
            self.tell_readiness();
        }
    }

    /// Lets go of who is gone, brings targets up to date, and answers what a dead stage cannot.
    fn sweep(&mut self) {
        let (settings, next_epoch) = (self.settings, &mut self.next_epoch);
        self.sessions.values_mut().for_each(|session| session.reconcile(settings, next_epoch));
        for call in self.sessions.values_mut().flat_map(Session::calls).collect::<Vec<_>>() {
            self.handle(Event::Call(Box::new(call)));
        }
        self.sessions.retain(|_, session| !session.is_over());
        self.calls.retain(|_, call| !call.is_abandoned());
        let late: Vec<u64> = self.calls.iter().filter(|(_, call)| call.is_late()).map(|(id, _)| *id).collect();
        late.iter().filter_map(|id| self.calls.remove(id)).for_each(|call| call.fail(Call::late()));
        if let Some(error) = self.segment.restarts(StageName::Segment).or_else(|| self.segment_hangs()) {
            self.sessions.values_mut().for_each(|s| s.answer_without_masks(&error, &self.config));
        }
        if let Some(error) = self.segment.down(StageName::Segment) {
            self.draft = None;
            self.sessions.values_mut().for_each(|s| s.answer_without_masks(&error, &self.config));
            std::mem::take(&mut self.calls).into_values().for_each(|call| call.fail(error.clone()));
        }
        if let Some(error) = self.ground.down(StageName::Ground) {
            self.sessions.values_mut().for_each(|s| s.ground_is_down(&error));
            let waiting: Vec<u64> = self.calls.iter().filter(|(_, c)| c.wants_ground()).map(|(id, _)| *id).collect();
            waiting.iter().filter_map(|id| self.calls.remove(id)).for_each(|call| call.fail(error.clone()));
        }
    }

    /// Gives the segment stage its next job, if it is idle and there is one.
    fn give_segment(&mut self) {
        // First, for it is short, there is one a grounding at most, and the ground stage does nothing else meanwhile.
        if self.segment.is_idle()
            && let Some(job) = self.draft.take().filter(|job| !job.is_late())
        {
            self.segment.give(SegmentJob::Draft(job));
        }
        while self.segment.is_idle() {
            let mut ready: Vec<u64> = self.sessions.values().filter(|s| s.is_ready()).map(Session::id).collect();
            ready.extend(self.calls.values().any(Call::wants_segment).then_some(CALLS));
            let Some(next) = in_turn(&ready, self.served[1]) else { return };
            self.served[1] = next;
            let (ground_idle, config, settings) = (self.ground.is_idle(), &self.config, self.settings);
            let taken = if next == CALLS {
                let call = self.calls.iter_mut().find(|(_, c)| c.wants_segment());
                call.map(|(id, call)| (Owner::Call(*id), call.segment_job(settings)))
            } else {
                let session = self.sessions.get_mut(&next);
                let job = session.and_then(|s| s.segment_job(settings, ground_idle, config));
                job.map(|job| (Owner::Session(next), job))
            };
            // An overdue frame gives no job; then it is the next one's turn.
            let Some((owner, job)) = taken else { continue };
            self.segmenting = Some(owner);
            self.segment.give(SegmentJob::Frame(Box::new(job)));
        }
    }

    /// Gives the ground stage its next job: what is urgent before what is routine.
    fn give_ground(&mut self) {
        if !self.ground.is_idle() {
            return;
        }
        let needs = self.sessions.values().filter_map(|s| Some((s.id(), s.need(&self.config)?)));
        // Nobody will hear of what begins for a session while the node shuts down.
        let mut needs: Vec<(u64, Need)> = if self.draining { Vec::new() } else { needs.collect() };
        needs.extend(self.calls.values().any(Call::wants_ground).then_some((CALLS, Need::Urgent)));
        let Some(most) = needs.iter().map(|(_, need)| *need).max() else { return };
        let ready: Vec<u64> = needs.iter().filter(|(_, need)| *need == most).map(|(id, _)| *id).collect();
        let Some(next) = in_turn(&ready, self.served[0]) else { return };
        self.served[0] = next;
        let deadline = Instant::now() + self.config.ground_timeout;
        let taken = if next == CALLS {
            let call = self.calls.iter_mut().find(|(_, c)| c.wants_ground());
            call.and_then(|(id, call)| Some((Owner::Call(*id), call.ground_job(deadline)?)))
        } else {
            let session = self.sessions.get_mut(&next);
            session.and_then(|s| Some((Owner::Session(next), s.ground_job(deadline, &self.config)?)))
        };
        let Some((owner, (epoch, job))) = taken else { return };
        self.grounding = Some(Asked { owner, epoch, frame: job.frame.clone(), since: Instant::now() });
        self.ground.give(job);
    }

    fn finish_segment(&mut self, outcome: Result<Done, Failure>) {
        if let Ok(done) = &outcome {
            self.stats.observe(&done.timings);
        }
        match self.segmenting.take() {
            Some(Owner::Session(id)) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.segmented(outcome, &self.config);
                }
            }
            Some(Owner::Call(id)) => {
                if let Some(call) = self.calls.remove(&id) {
                    self.calls.extend(call.segmented(outcome, &self.config).map(|call| (id, call)));
                }
            }
            None => {}
        }
    }

    fn finish_ground(&mut self, outcome: Result<Grounding, NodeError>) {
        let Some(Asked { owner, epoch, frame, since }) = self.grounding.take() else { return };
        self.stats.observe(&[("ground", since.elapsed())]);
        let end = outcome.as_ref().map_or(GroundingEnd::Failed, |g| GroundingEnd::Answered(g.outcome));
        self.stats.count_grounding(end);
        match owner {
            Owner::Session(id) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.grounded(epoch, frame, outcome);
                }
            }
            Owner::Call(id) => {
                if let Some(call) = self.calls.remove(&id) {
                    self.calls.extend(call.grounded(outcome, &self.config).map(|call| (id, call)));
                }
            }
        }
    }
}

/// The error that stands beside what a stage that hangs cannot do.
fn hung(name: StageName, time: Duration) -> NodeError {
    let what = format!("use the {} stage: it has been at one job for {} s", name.as_str(), time.as_secs());
    NodeError::new(NodeErrorKind::Stage, what)
}

/// The first of `ready` after `last`, going round.
fn in_turn(ready: &[u64], last: u64) -> Option<u64> {
    let after = ready.iter().copied().filter(|id| *id > last).min();
    after.or_else(|| ready.iter().copied().min())
}

#[cfg(test)]
mod tests {
    use super::in_turn;

    #[test]
    fn turns_go_round() {
        let mut last = 0;
        let mut served = Vec::new();
        for _ in 0..6 {
            last = in_turn(&[2, 5, 0], last).expect("someone is ready");
            served.push(last);
        }
        assert_eq!(served, [2, 5, 0, 2, 5, 0]);
        assert_eq!(in_turn(&[], 3), None);
    }
}
