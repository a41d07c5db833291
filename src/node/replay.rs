//! A session once more, on its own: the same requests, and the order of things as it was.
//!
//! The scheduler decides by the clock and by who is ready first; here the [`Step`]s that it took decide, and everything
//! else is the very code that a session runs. So on the same models the answers are the same, however fast they are now.
//! What failed then for reasons outside of the models (an engine, a stage, a deadline) is taken as having failed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Semaphore, mpsc};

use super::frame::{Arrived, Kept};
use super::masks::{Done, Failure, Input, Settings};
use super::scheduler::{Call, Event, GroundJob, Question, SegmentJob, Session, spawn_stages};
use super::session::{self, Replies};
use super::slot::Wanted;
use super::stage::Stage;
use super::stats::Stats;
use super::{
    Allowance, EVENT_BUFFER, FrameIn, Masks, NodeConfig, NodeError, NodeErrorKind, Reply, SessionInput, StageName,
    Stages, Step, Why,
};
use crate::pipeline::Grounding;

/// Longer than anything here takes: nothing is ever late in a replay.
const LONG: Duration = Duration::from_secs(365 * 24 * 3600);

/// What the segment stage made of the frame in work.
type Segmented = (Option<Arc<Kept>>, Result<Done, Failure>);

/// One session that is replayed.
pub struct Replay {
    config: NodeConfig,
    settings: Settings,
    ground: Stage<GroundJob>,
    segment: Stage<SegmentJob>,
    events: mpsc::Receiver<Event>,
    /// Of the ground stage, not looked at yet.
    heard: VecDeque<Event>,
    session: Session,
    replies: Replies,
    /// What the session's input says.
    inbox: mpsc::Receiver<Event>,
    input: SessionInput,
    frames: BTreeMap<u64, FrameIn>,
    targets: BTreeMap<u64, Vec<Wanted>>,
    version: u64,
    questions: BTreeMap<u64, Question>,
    /// Questions that wait for the ground stage.
    calls: VecDeque<Call>,
    asked: Option<(u64, Arc<Kept>)>,
    work: Option<Segmented>,
    next_epoch: u64,
    /// The start of the session; in the future, so that no time limit is ever over.
    start: Instant,
}

impl Replay {
    /// Builds the stages, each on a thread of its own, and waits for them. Not to be called where async code runs.
    ///
    /// # Errors
    /// [`NodeErrorKind::Stage`] where one cannot be built.
    pub fn new(config: NodeConfig, stages: Stages) -> Result<Self, NodeError> {
        let down = |what: String| NodeError::new(NodeErrorKind::Stage, format!("start the stages: {what}"));
        let settings = Settings::of(&config, &stages);
        let (sender, mut events) = mpsc::channel(EVENT_BUFFER);
        let spawned = spawn_stages(&config, stages, LONG, sender);
        let (ground, segment) = spawned.map_err(|e| down(e.to_string()))?;
        for _ in 0..2 {
            match events.blocking_recv() {
                Some(Event::StageDown(_, why)) => return Err(down(why)),
                Some(_) => {}
                None => return Err(down("their threads are gone".to_owned())),
            }
        }
        let (sessions, calls) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(config.max_calls)));
        let permit = sessions.try_acquire_owned().expect("nobody else has it");
        let (wakes, inbox) = mpsc::channel(EVENT_BUFFER);
        let (shared, for_) = (Arc::new(config.clone()), (Arc::<Allowance>::default(), None));
        let (session, input, replies) = session::new(shared, wakes, (permit, calls), for_, Arc::<Stats>::default());
        Ok(Self {
            config,
            settings,
            ground,
            segment,
            events,
            heard: VecDeque::new(),
            session,
            replies,
            inbox,
            input,
            frames: BTreeMap::new(),
            targets: BTreeMap::new(),
            version: 0,
            questions: BTreeMap::new(),
            calls: VecDeque::new(),
            asked: None,
            work: None,
            next_epoch: 0,
            start: Instant::now() + LONG,
        })
    }

    /// Has the session's clock stand at the moment that `offset` stands for.
    pub(super) fn set_clock(&mut self, offset: Duration) {
        self.session.set_clock(self.start + offset);
    }

    /// Which target the language model is to look at next, and why.
    pub(super) fn neediest(&self) -> Option<(u64, Why)> {
        self.session.neediest(&self.config)
    }

    /// The targets that were published last.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// The moment that the session's offset stands for.
    pub fn at(&self, offset: Duration) -> Instant {
        self.start + offset
    }

    /// Has `request` put into the session's input; what it makes of it waits until steps come that use it.
    pub fn take<T>(&mut self, request: impl FnOnce(&mut SessionInput) -> T) -> T {
        let taken = request(&mut self.input);
        let slot = self.session.slot();
        if let Some(frame) = slot.take_any() {
            self.frames.insert(frame.seq(), frame.into_frame());
        }
        if let Some((version, wanted)) = slot.targets_since(self.version) {
            self.version = version;
            self.targets.insert(version, wanted);
        }
        while let Ok(event) = self.inbox.try_recv() {
            if let Event::Ask(question) = event {
                self.questions.insert(question.request, *question);
            }
        }
        taken
    }

    /// Does what the scheduler did; gives what the session is told.
    ///
    /// # Errors
    /// [`NodeErrorKind::Request`] for a step that nothing before leads to: the steps are not those of the requests.
    pub fn step(&mut self, step: Step) -> Result<Vec<Reply>, NodeError> {
        match step {
            Step::Follow { version, at } => {
                let wanted = self.targets.remove(&version).ok_or_else(|| lost("targets", version))?;
                self.targets = self.targets.split_off(&version);
                self.session.follow((version, wanted), at, self.settings, &mut self.next_epoch);
            }
            Step::Begin { seq, revision, arrived } => self.begin(seq, revision, arrived)?,
            Step::Decoded => {
                let decoded = self.work.as_mut().and_then(|(decoded, _)| decoded.take());
                decoded.into_iter().for_each(|frame| self.session.decoded(frame));
            }
            Step::Segmented(masks) => {
                let (_, outcome) = self.work.take().ok_or_else(|| lost("frame in work", 0))?;
                let outcome = match masks {
                    Masks::Late => Err(Failure::Late),
                    Masks::Failed(error) => Err(Failure::Segment(error)),
                    Masks::Made | Masks::Unreadable => outcome,
                };
                self.session.segmented(outcome, &self.config);
            }
            Step::Ask { serial, why } => {
                let asked = self.session.last().zip(self.session.ask_about(serial, why, self.start));
                let (frame, (epoch, job)) = asked.ok_or_else(|| lost("target", serial))?;
                self.ground.give(job);
                self.asked = Some((epoch, frame));
            }
            Step::Guessed(answered) => self.guess(answered)?,
            Step::Proposed { answered } => self.propose(answered)?,
            Step::Grounded(outcome) => self.hear_answer(outcome)?,
            Step::Unsegmented { seq, arrived, error } => {
                let frame = self.frame(seq, arrived)?;
                self.session.answer_unsegmented(frame.meta(), &error, &self.config);
            }
            Step::GroundDown(error) => self.session.ground_is_down(&error),
            Step::Question { request } => {
                let question = self.questions.remove(&request).ok_or_else(|| lost("question", request))?;
                let frame = self.session.last().ok_or_else(|| lost("frame for the question", request))?;
                self.calls.push_back(question.about(frame));
                self.answer_questions()?;
            }
        }
        Ok(std::iter::from_fn(|| self.replies.ready()).collect())
    }

    /// Forgets the question of `request`: it was refused then.
    pub fn forget_question(&mut self, request: u64) {
        self.questions.remove(&request);
    }

    /// Does what is left when no steps come any more: questions that wait for the language model.
    ///
    /// # Errors
    /// [`NodeErrorKind::Stage`] where a stage is gone.
    pub fn finish(&mut self) -> Result<(), NodeError> {
        if self.asked.take().is_some() {
            let _ = self.grounded()?;
        }
        self.answer_questions()
    }

    /// The frame under the time of its arrival; those before it were dropped.
    fn frame(&mut self, seq: u64, arrived: Instant) -> Result<Arrived, NodeError> {
        let frame = self.frames.remove(&seq).ok_or_else(|| lost("frame", seq))?;
        self.frames = self.frames.split_off(&seq);
        Ok(Arrived::at(frame, arrived, SystemTime::now()))
    }

    /// Has the segment stage work on a frame, to the end: what it comes to is used when the steps say so.
    fn begin(&mut self, seq: u64, revision: u32, arrived: Instant) -> Result<(), NodeError> {
        let (input, meta) = if revision == 0 {
            let frame = self.frame(seq, arrived)?;
            let meta = frame.meta();
            (Input::Arrived(Box::new(frame)), meta)
        } else {
            let last = self.session.last().filter(|last| last.meta.seq == seq).ok_or_else(|| lost("frame", seq))?;
            let meta = last.meta.clone();
            (Input::Kept(last), meta)
        };
        let job = self.session.begin(input, meta, false, (self.settings, self.config.remember_lost));
        self.segment.give(SegmentJob::Frame(Box::new(job)));
        self.work = Some(self.segmented()?);
        Ok(())
    }

    /// The next event of either stage.
    fn event(&mut self) -> Result<Event, NodeError> {
        match self.events.blocking_recv() {
            Some(Event::StageDown(name, why)) => {
                Err(NodeError::new(NodeErrorKind::Stage, format!("use the {} stage: {why}", name.as_str())))
            }
            Some(event) => Ok(event),
            None => Err(session::gone()),
        }
    }

    fn segmented(&mut self) -> Result<Segmented, NodeError> {
        let mut decoded = None;
        loop {
            match self.event()? {
                Event::Decoded(frame) => decoded = Some(frame),
                Event::Segmented(outcome) => return Ok((decoded, outcome)),
                Event::StagePanicked(StageName::Segment, error) => return Ok((decoded, Err(Failure::Segment(error)))),
                event => self.heard.push_back(event),
            }
        }
    }

    /// The next thing that the ground stage says.
    fn ground_says(&mut self) -> Result<Event, NodeError> {
        loop {
            let event = self.heard.pop_front().map_or_else(|| self.event(), Ok)?;
            let told = matches!(event, Event::Draft(_) | Event::Guessed(_) | Event::Proposed(_) | Event::Grounded(_));
            if told || matches!(event, Event::StagePanicked(StageName::Ground, _)) {
                return Ok(event);
            }
        }
    }

    /// Gives the ground stage the masks that it wants, as if they had come in time.
    fn draft(&mut self, job: Box<super::draft::DraftJob>) -> Result<(), NodeError> {
        self.segment.give(SegmentJob::Draft(job));
        loop {
            match self.event()? {
                Event::Drafted | Event::StagePanicked(StageName::Segment, _) => return Ok(()),
                event => self.heard.push_back(event),
            }
        }
    }

    /// Answers the ground stage's wish for masks as it was answered then. Another model may wish for others, or none.
    fn guess(&mut self, answered: bool) -> Result<(), NodeError> {
        match self.ground_says()? {
            Event::Draft(job) if answered => self.draft(job)?,
            Event::Draft(job) => drop(job),
            event => {
                self.heard.push_front(event);
                return Ok(());
            }
        }
        match self.ground_says()? {
            Event::Guessed(_) => {}
            event => self.heard.push_front(event),
        }
        Ok(())
    }

    fn propose(&mut self, answered: bool) -> Result<(), NodeError> {
        let Some((epoch, frame)) = self.asked.clone() else { return Err(lost("grounding", 0)) };
        let boxes = loop {
            match self.ground_says()? {
                Event::Proposed(boxes) => break Some(*boxes),
                Event::Draft(job) => self.draft(job)?,
                Event::Guessed(_) => {}
                event => {
                    self.heard.push_front(event);
                    break None;
                }
            }
        };
        let meta = frame.meta.clone();
        if boxes.is_some_and(|boxes| self.session.hear_boxes(epoch, frame, boxes)) && answered {
            self.session.show_boxes(meta, &self.config);
        }
        Ok(())
    }

    /// What the ground stage's pass comes to.
    fn grounded(&mut self) -> Result<Result<Grounding, NodeError>, NodeError> {
        loop {
            match self.ground_says()? {
                Event::Grounded(outcome) => return Ok(outcome),
                Event::StagePanicked(_, error) => return Ok(Err(error)),
                Event::Draft(job) => self.draft(job)?,
                _ => {}
            }
        }
    }

    fn hear_answer(&mut self, then: Result<(), NodeError>) -> Result<(), NodeError> {
        let Some((epoch, frame)) = self.asked.take() else { return Err(lost("grounding", 0)) };
        let now = self.grounded()?;
        self.session.grounded(epoch, frame, then.and(now));
        self.answer_questions()
    }

    /// Answers the questions, where the ground stage is free.
    fn answer_questions(&mut self) -> Result<(), NodeError> {
        while self.asked.is_none()
            && let Some(mut call) = self.calls.pop_front()
        {
            self.next_epoch += 1;
            call.accept(self.next_epoch);
            let Some((_, job)) = call.ground_job(self.start) else { continue };
            self.ground.give(job);
            let outcome = self.grounded()?;
            let Some(mut call) = call.grounded(outcome, &self.config) else { continue };
            self.segment.give(SegmentJob::Frame(Box::new(call.segment_job(self.settings))));
            let (_, outcome) = self.segmented()?;
            let _ = call.segmented(outcome, &self.config);
        }
        Ok(())
    }
}

fn lost(what: &str, number: u64) -> NodeError {
    let what = format!("replay: there is no {what} {number} where the schedule has it");
    NodeError::new(NodeErrorKind::Request, what)
}
