//! A session's two ends: what the client sends, and what it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::allowance::Allowance;
use super::frame::Arrived;
use super::scheduler::{Event, Session};
use super::slot::{Slot, Wanted};
use super::stats::Stats;
use super::{
    DropReason, FrameIn, MAX_TARGET_ID_BYTES, NodeConfig, NodeError, NodeErrorKind, REPLY_BUFFER, Reply, TargetSpec,
};

static NEXT_SESSION: AtomicU64 = AtomicU64::new(1);

/// The node is not there any more, or about to go.
pub(super) fn gone() -> NodeError {
    NodeError::new(NodeErrorKind::Unavailable, "reach the stages: the node is shutting down")
}

pub(super) async fn open(
    config: Arc<NodeConfig>,
    events: mpsc::Sender<Event>,
    permit: OwnedSemaphorePermit,
    allowance: Arc<Allowance>,
    stats: Arc<Stats>,
) -> Result<(SessionInput, Replies), NodeError> {
    let id = NEXT_SESSION.fetch_add(1, Ordering::Relaxed);
    let slot = Arc::new(Slot::new(stats));
    let (out, replies) = mpsc::channel(REPLY_BUFFER);
    let session = Session::new(id, slot.clone(), out, (permit, allowance.clone()));
    events.send(Event::Open(Box::new(session))).await.map_err(|_| gone())?;
    let (slot_in, events_in) = (slot.clone(), events.clone());
    let input = SessionInput { config, slot: slot_in, events: events_in, targets: Vec::new(), serial: 0, allowance };
    Ok((input, Replies { slot, events, replies }))
}

/// What a client sends. Dropping it closes that side: what waits is answered, then the replies end.
pub struct SessionInput {
    config: Arc<NodeConfig>,
    slot: Arc<Slot>,
    events: mpsc::Sender<Event>,
    targets: Vec<Wanted>,
    serial: u64,
    allowance: Arc<Allowance>,
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

    /// Adds a target, or gives an existing one another command.
    ///
    /// # Errors
    /// [`NodeErrorKind::Target`] for a bad id, [`NodeErrorKind::Limit`].
    pub fn add_target(&mut self, spec: TargetSpec) -> Result<(), NodeError> {
        check_id(&spec.id)?;
        let at = self.targets.iter().position(|t| t.spec.id == spec.id);
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
        let Some(at) = self.targets.iter().position(|t| t.spec.id == id) else {
            let shown: String = id.chars().take(MAX_TARGET_ID_BYTES).collect();
            return Err(NodeError::new(NodeErrorKind::Target, format!("remove target: there is no {shown:?}")));
        };
        self.targets.remove(at);
        self.publish();
        Ok(())
    }

    fn check_number(&self, number: usize) -> Result<(), NodeError> {
        let max = self.config.max_targets;
        let what = || format!("set targets: {number} are more than {max}");
        if number > max { Err(NodeError::new(NodeErrorKind::Limit, what())) } else { Ok(()) }
    }

    /// The target that is there already, or a new one.
    fn wanted(&mut self, spec: TargetSpec) -> Wanted {
        match self.targets.iter().find(|t| *t.spec == spec) {
            Some(same) => same.clone(),
            None => {
                self.serial += 1;
                Wanted { spec: Arc::new(spec), serial: self.serial }
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
