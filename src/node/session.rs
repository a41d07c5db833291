//! A session's two ends: what the client sends, and what it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::allowance::Allowance;
use super::frame::Arrived;
use super::scheduler::{Event, Question, Session};
use super::slot::{Slot, Wanted};
use super::stats::Stats;
use super::{
    DropReason, FrameIn, FrameOptions, FrameReply, MAX_QUESTIONS, MAX_TARGET_ID_BYTES, NodeConfig, NodeError,
    NodeErrorKind, REPLY_BUFFER, Reply, TargetSpec, Witness,
};

static NEXT_SESSION: AtomicU64 = AtomicU64::new(1);

/// The node is not there any more, or about to go.
pub(super) fn gone() -> NodeError {
    NodeError::new(NodeErrorKind::Unavailable, "reach the stages: the node is shutting down")
}

/// Who a session is for, and who watches it.
pub(super) type For = (Arc<Allowance>, Option<Arc<dyn Witness>>);

/// A session's three ends.
pub(super) fn new(
    config: Arc<NodeConfig>,
    events: mpsc::Sender<Event>,
    (permit, calls): (OwnedSemaphorePermit, Arc<Semaphore>),
    (allowance, witness): For,
    stats: Arc<Stats>,
) -> (Session, SessionInput, Replies) {
    let id = NEXT_SESSION.fetch_add(1, Ordering::Relaxed);
    let slot = Arc::new(Slot::new(stats));
    let (out, replies) = mpsc::channel(REPLY_BUFFER);
    let session = Session::new(id, slot.clone(), out, (permit, allowance.clone()), witness);
    let input = SessionInput {
        config,
        id,
        slot: slot.clone(),
        events: events.clone(),
        targets: Vec::new(),
        serial: 0,
        calls,
        allowance,
        questions: Arc::new(Semaphore::new(MAX_QUESTIONS)),
    };
    (session, input, Replies { slot, events, replies })
}

/// What a client sends. Dropping it closes that side: what waits is answered, then the replies end.
pub struct SessionInput {
    config: Arc<NodeConfig>,
    slot: Arc<Slot>,
    events: mpsc::Sender<Event>,
    id: u64,
    targets: Vec<Wanted>,
    serial: u64,
    allowance: Arc<Allowance>,
    calls: Arc<Semaphore>,
    questions: Arc<Semaphore>,
}

/// A question that will be answered.
pub struct Asked {
    outcome: oneshot::Receiver<Result<FrameReply, NodeError>>,
    _permit: OwnedSemaphorePermit,
}

impl Asked {
    /// The answer. Keep this until it is on its way: as long as it lives it counts against the session's questions.
    ///
    /// # Errors
    /// Those of [`Node::segment`](super::Node::segment); [`NodeErrorKind::Request`] where no frame came.
    pub async fn answer(&mut self) -> Result<FrameReply, NodeError> {
        (&mut self.outcome).await.map_err(|_| gone())?
    }

    /// The answer, where it is there already.
    pub fn answer_now(&mut self) -> Option<Result<FrameReply, NodeError>> {
        match self.outcome.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(gone())),
        }
    }
}

impl SessionInput {
    /// Puts the next frame in; it takes the place of one that still waits.
    ///
    /// # Errors
    /// A bad frame, by its header; [`NodeErrorKind::FrameOrder`]; [`NodeErrorKind::Unavailable`];
    /// [`NodeErrorKind::Limit`] where the client sends too many. The frame is counted as dropped.
    pub fn submit(&self, frame: FrameIn) -> Result<(), NodeError> {
        if let Err(error) = self.allowance.frame() {
            self.slot.refuse(DropReason::Quota);
            return Err(error);
        }
        let checked = frame.probe(self.config.frame);
        self.slot.offer(Arrived::now(frame), checked)?;
        self.wake();
        Ok(())
    }

    /// Counts a frame that could not even be put in.
    pub fn refuse_frame(&self) {
        self.slot.refuse(DropReason::Undecodable);
    }

    /// Replaces all targets; those that are as before keep their state.
    ///
    /// # Errors
    /// [`NodeErrorKind::Target`] for a bad id or one given twice, [`NodeErrorKind::Limit`]; then nothing changes.
    pub fn set_targets(&mut self, specs: Vec<TargetSpec>) -> Result<(), NodeError> {
        self.check_number(specs.len())?;
        for (i, spec) in specs.iter().enumerate() {
            check_id(&spec.id)?;
            if specs[..i].iter().any(|other| other.id == spec.id) {
                return Err(NodeError::new(
                    NodeErrorKind::Target,
                    format!("set targets: id {:?} comes twice", spec.id),
                ));
            }
        }
        self.targets = specs.into_iter().map(|spec| self.wanted(spec)).collect();
        self.publish();
        Ok(())
    }

    /// Asks something once, about the newest frame that came before; of no influence on any target. `request` is the
    /// number of the request that it came in, for who watches the session.
    ///
    /// # Errors
    /// What is wrong with the command; [`NodeErrorKind::Busy`] where the session has as many questions open as it may,
    /// or the node as many calls; [`NodeErrorKind::Limit`] where the client has had its groundings of this minute;
    /// [`NodeErrorKind::Unavailable`].
    pub fn ask(
        &self,
        request: u64,
        spec: TargetSpec,
        options: FrameOptions,
        deadline: Option<Instant>,
    ) -> Result<Asked, NodeError> {
        if let Err(error) = &spec.command {
            return Err(error.clone());
        }
        let busy = |what: String| NodeError::new(NodeErrorKind::Busy, what);
        let open = self.questions.clone().try_acquire_owned();
        let open = open.map_err(|_| busy(format!("ask: {MAX_QUESTIONS} questions are open already")))?;
        let permit = self.calls.clone().try_acquire_owned();
        let permit =
            permit.map_err(|_| busy(format!("ask: {} calls are in work or waiting", self.config.max_calls)))?;
        self.allowance.grounding()?;
        let (answer, outcome) = oneshot::channel();
        let after = self.slot.last_seq();
        let question = Question { session: self.id, request, after, spec, options, deadline, answer, permit };
        // Whoever closes its side now is owed the answer all the same: the session must not be over before it hears of it.
        self.slot.ask();
        let sent = self.events.try_send(Event::Ask(Box::new(question)));
        if sent.is_err() {
            self.slot.heard();
        }
        match sent {
            Ok(()) => Ok(Asked { outcome, _permit: open }),
            Err(mpsc::error::TrySendError::Full(_)) => Err(busy("ask: the scheduler is busy".to_owned())),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(gone()),
        }
    }

    /// Adds a target, or gives an existing one another command.
    ///
    /// # Errors
    /// [`NodeErrorKind::Target`] for a bad id, [`NodeErrorKind::Limit`].
    pub fn add_target(&mut self, spec: TargetSpec) -> Result<(), NodeError> {
        check_id(&spec.id)?;
        let at = self.position(&spec.id);
        self.check_number(self.targets.len() + usize::from(at.is_none()))?;
        let wanted = self.wanted(spec);
        match at {
            Some(at) => self.targets[at] = wanted,
            None => self.targets.push(wanted),
        }
        self.publish();
        Ok(())
    }

    /// Removes a target.
    ///
    /// # Errors
    /// [`NodeErrorKind::Target`] for an id that is not there.
    pub fn remove_target(&mut self, id: &str) -> Result<(), NodeError> {
        let at = self.find("remove", id)?;
        self.targets.remove(at);
        self.publish();
        Ok(())
    }

    /// Gives a target another id; nothing else changes.
    ///
    /// # Errors
    /// [`NodeErrorKind::Target`] for an id that is not there, and for a new one that is bad or another target's.
    pub fn rename_target(&mut self, id: &str, new_id: String) -> Result<(), NodeError> {
        let at = self.find("rename", id)?;
        check_id(&new_id)?;
        if self.position(&new_id).is_some_and(|other| other != at) {
            let what = format!("rename target: there is a {new_id:?} already");
            return Err(NodeError::new(NodeErrorKind::Target, what));
        }
        let spec = TargetSpec { id: new_id, ..(*self.targets[at].spec).clone() };
        self.targets[at].spec = Arc::new(spec);
        self.publish();
        Ok(())
    }

    /// Has no work done on a target, or work again.
    ///
    /// # Errors
    /// [`NodeErrorKind::Target`] for an id that is not there.
    pub fn pause_target(&mut self, id: &str, paused: bool) -> Result<(), NodeError> {
        let at = self.find(if paused { "pause" } else { "resume" }, id)?;
        self.targets[at].paused = paused;
        self.publish();
        Ok(())
    }

    /// Has a target grounded again as soon as the grounder is free, on a frame that it has not been grounded on yet.
    ///
    /// # Errors
    /// [`NodeErrorKind::Target`] for an id that is not there.
    pub fn reground_target(&mut self, id: &str) -> Result<(), NodeError> {
        let at = self.find("look again at", id)?;
        self.targets[at].looks += 1;
        self.publish();
        Ok(())
    }

    fn position(&self, id: &str) -> Option<usize> {
        self.targets.iter().position(|t| t.spec.id == id)
    }

    fn find(&self, what: &str, id: &str) -> Result<usize, NodeError> {
        self.position(id).ok_or_else(|| {
            let shown: String = id.chars().take(MAX_TARGET_ID_BYTES).collect();
            NodeError::new(NodeErrorKind::Target, format!("{what} target: there is no {shown:?}"))
        })
    }

    fn check_number(&self, number: usize) -> Result<(), NodeError> {
        let max = self.config.max_targets;
        let what = || format!("set targets: {number} are more than {max}");
        if number > max { Err(NodeError::new(NodeErrorKind::Limit, what())) } else { Ok(()) }
    }

    /// The target that is there already, perhaps with another command, or a new one.
    fn wanted(&mut self, spec: TargetSpec) -> Wanted {
        match self.targets.iter().find(|t| t.spec.id == spec.id) {
            Some(there) => {
                let commands = there.commands + u64::from(!there.spec.asks_the_same(&spec));
                Wanted { spec: Arc::new(spec), commands, ..there.clone() }
            }
            None => {
                self.serial += 1;
                Wanted { spec: Arc::new(spec), serial: self.serial, commands: 0, looks: 0, paused: false }
            }
        }
    }

    fn publish(&self) {
        self.slot.set_targets(self.targets.clone());
        self.wake();
    }

    /// A full channel is no loss: the scheduler looks at every slot after each event.
    fn wake(&self) {
        let _ = self.events.try_send(Event::Wake);
    }
}

impl Drop for SessionInput {
    fn drop(&mut self) {
        self.slot.finish();
        self.wake();
    }
}

fn check_id(id: &str) -> Result<(), NodeError> {
    if id.is_empty() || id.len() > MAX_TARGET_ID_BYTES {
        let what = format!("set targets: an id of {} bytes, expected 1 to {MAX_TARGET_ID_BYTES}", id.len());
        return Err(NodeError::new(NodeErrorKind::Target, what));
    }
    Ok(())
}

/// Why the replies ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client closed its side and everything was answered.
    Finished,
    /// The node is shutting down.
    Draining,
}

/// What a client is told. Dropping it ends the session.
pub struct Replies {
    slot: Arc<Slot>,
    events: mpsc::Sender<Event>,
    replies: mpsc::Receiver<Reply>,
}

impl Replies {
    /// The next reply, where it is there already.
    pub(super) fn ready(&mut self) -> Option<Reply> {
        self.replies.try_recv().ok()
    }

    /// The next reply, in the order of the frames; or why there is none any more.
    pub async fn recv(&mut self) -> Result<Reply, End> {
        match self.replies.recv().await {
            Some(reply) => {
                // There is room for another one.
                let _ = self.events.try_send(Event::Wake);
                Ok(reply)
            }
            None if self.slot.is_draining() => Err(End::Draining),
            None => Err(End::Finished),
        }
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        self.replies.close();
        let _ = self.events.try_send(Event::Wake);
    }
}
