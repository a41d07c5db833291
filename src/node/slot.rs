//! Where a session's input waits: one frame, the newest, and the targets as they should be.
//!
//! A slot rather than a queue: there is nothing to fill up, and what is taken out is never older than need be.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::frame::Arrived;
use super::stats::Stats;
use super::{NodeError, NodeErrorKind, TargetSpec};

/// Why a frame gets no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// A newer frame came before its turn.
    Superseded,
    /// It could not be decoded.
    Undecodable,
    /// Its turn came too late.
    Deadline,
    /// Its `seq` did not increase.
    OutOfOrder,
    /// The node was shutting down.
    Draining,
    /// The client has had more than its quota.
    Quota,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::Superseded, Self::Undecodable, Self::Deadline, Self::OutOfOrder, Self::Draining, Self::Quota];
}

/// Frames of a session so far: `received = answered + waiting + dropped`, whenever a reply is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Frames that came in.
    pub received: u64,
    /// Frames that were answered.
    pub answered: u64,
    /// Frames in the slot, 0 or 1.
    pub waiting: u64,
    /// Frames whose capture stamp was before that of the frame before them.
    pub stamps_back: u64,
    dropped: [u64; DropReason::ALL.len()],
}

impl Counters {
    /// Frames dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }
}

/// A target as it should be.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub spec: Arc<TargetSpec>,
    /// Which target it is, whatever it is called and whatever is meant by it.
    pub serial: u64,
    /// Grows with every new command.
    pub commands: u64,
    /// Grows with every look that the client asks for.
    pub looks: u64,
    /// No work is to be done on it.
    pub paused: bool,
}

#[derive(Debug, Default)]
struct State {
    waiting: Option<Arrived>,
    last_seq: Option<u64>,
    last_stamp_ns: Option<i64>,
    counters: Counters,
    targets: Vec<Wanted>,
    /// Grows with every change of `targets`.
    version: u64,
    /// Questions that the scheduler has not heard of yet.
    asked: u64,
    /// The client has closed its side.
    finished: bool,
    draining: bool,
    /// The node's, which count with the session's own.
    stats: Arc<Stats>,
}

/// One session's input.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<State>);

impl Slot {
    /// An empty one, whose frames `stats` counts too.
    pub(super) fn new(stats: Arc<Stats>) -> Self {
        Self(Mutex::new(State { stats, ..State::default() }))
    }

    /// No code panics with the lock held that could leave the counts half-changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a frame in, in place of the one that waits; `checked` is what reading its header said.
    pub(super) fn offer(&self, frame: Arrived, checked: Result<(), NodeError>) -> Result<(), NodeError> {
        let mut state = self.lock();
        state.receive_one();
        if state.draining {
            state.drop_one(DropReason::Draining);
            return Err(NodeError::new(NodeErrorKind::Unavailable, "accept frame: the node is shutting down"));
        }
        if let Some(last) = state.last_seq.filter(|last| frame.seq() <= *last) {
            state.drop_one(DropReason::OutOfOrder);
            let what = format!("accept frame: seq {} does not follow {last}", frame.seq());
            return Err(NodeError::new(NodeErrorKind::FrameOrder, what));
        }
        state.last_seq = Some(frame.seq());
        if let Err(error) = checked {
            state.drop_one(DropReason::Undecodable);
            return Err(error);
        }
        // Counted and no more: the stamp is the client's, and nothing here depends on it.
        let stamp_ns = frame.stamp_ns();
        let back = state.last_stamp_ns.replace(stamp_ns).is_some_and(|last| stamp_ns < last);
        state.counters.stamps_back += u64::from(back);
        if let Some(old) = state.waiting.replace(frame) {
            // Whoever took it out now would find it too late all the same.
            state.drop_one(if old.overdue() { DropReason::Deadline } else { DropReason::Superseded });
        }
        Ok(())
    }

    /// Counts a frame that is not even looked at.
    pub(super) fn refuse(&self, reason: DropReason) {
        let mut state = self.lock();
        state.receive_one();
        state.drop_one(reason);
    }

    /// Takes the frame whose turn it is, unless it is overdue.
    pub(super) fn take(&self) -> Option<Arrived> {
        let mut state = self.lock();
        let frame = state.waiting.take()?;
        if frame.overdue() {
            state.drop_one(DropReason::Deadline);
            return None;
        }
        Some(frame)
    }

    /// Takes the frame that waits, however long it has.
    pub(super) fn take_any(&self) -> Option<Arrived> {
        self.lock().waiting.take()
    }

    /// The number of the newest frame that came in order.
    pub(super) fn last_seq(&self) -> Option<u64> {
        self.lock().last_seq
    }

    pub(super) fn waits(&self) -> bool {
        self.lock().waiting.is_some()
    }

    pub(super) fn count_dropped(&self, reason: DropReason) {
        self.lock().drop_one(reason);
    }

    pub(super) fn count_answered(&self) {
        let mut state = self.lock();
        state.counters.answered += 1;
        state.stats.count_answered();
    }

    pub(super) fn counters(&self) -> Counters {
        let state = self.lock();
        Counters { waiting: u64::from(state.waiting.is_some()), ..state.counters }
    }

    pub(super) fn set_targets(&self, targets: Vec<Wanted>) {
        let mut state = self.lock();
        state.targets = targets;
        state.version += 1;
    }

    /// The targets, where they changed since `version`.
    pub(super) fn targets_since(&self, version: u64) -> Option<(u64, Vec<Wanted>)> {
        let state = self.lock();
        (state.version != version).then(|| (state.version, state.targets.clone()))
    }

    /// A question is on its way to the scheduler.
    pub(super) fn ask(&self) {
        self.lock().asked += 1;
    }

    /// It has arrived, or never will.
    pub(super) fn heard(&self) {
        let mut state = self.lock();
        state.asked = state.asked.saturating_sub(1);
    }

    pub(super) fn is_asked(&self) -> bool {
        self.lock().asked > 0
    }

    pub(super) fn finish(&self) {
        self.lock().finished = true;
    }

    pub(super) fn is_finished(&self) -> bool {
        self.lock().finished
    }

    pub(super) fn drain(&self) {
        let mut state = self.lock();
        if !state.finished && !state.draining {
            state.draining = true;
        }
        if state.waiting.take().is_some() {
            state.drop_one(DropReason::Draining);
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.lock().draining
    }
}

impl State {
    fn receive_one(&mut self) {
        self.counters.received += 1;
        self.stats.count_received();
    }

    fn drop_one(&mut self, reason: DropReason) {
        self.counters.dropped[reason as usize] += 1;
        self.stats.count_dropped(reason);
    }
}
