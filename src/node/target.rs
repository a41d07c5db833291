//! What the node knows of one target, and what it says about it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::frame::{Fresh, Kept, Meta};
use super::identity::{Lost, forget};
use super::masks::{Work, WorkDone};
use super::slot::Wanted;
use super::state::{Event, Look, Phase, State};
use super::tracked::Tracked;
use super::{InstanceReply, NodeConfig, NodeError, TargetReply, TargetSpec, Verdict};
use crate::pipeline::{Grounding, Outcome};

/// Why the language model looks at a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// It never has, or not under this command, or not since a pause.
    New,
    /// The client asks for it.
    Request,
    /// Something was lost.
    Lost,
    /// Something that is followed has drifted from what was grounded.
    Drift,
    /// Something is missing that was there a short while ago, and was not there at the last look.
    Missing,
    /// It is neither sure enough to be called found nor to be called absent, since a short while ago.
    Unsure,
    /// Something was named instead of something known, or came back small, and not by enough looks yet: another one is to name
    /// it, too.
    Confirm,
    /// The last look is long ago.
    Budget,
}

/// How badly a target wants the grounder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// It is time to look again.
    Routine,
    /// Nothing can be said of it, or what is said may be wrong.
    Urgent,
}

impl From<Why> for Need {
    fn from(why: Why) -> Self {
        match why {
            Why::New | Why::Request | Why::Lost | Why::Drift => Self::Urgent,
            Why::Missing | Why::Unsure | Why::Confirm | Why::Budget => Self::Routine,
        }
    }
}

/// A grounding in use.
struct Said {
    /// The frame that the language model saw.
    seq: u64,
    grounding: Arc<Grounding>,
    partial: bool,
}

impl From<Fresh> for Said {
    /// The frame itself is let go: it is megabytes.
    fn from(fresh: Fresh) -> Self {
        Self { seq: fresh.frame.meta.seq, grounding: fresh.grounding, partial: fresh.partial }
    }
}

/// One target of a session.
pub(super) struct Target {
    pub spec: Arc<TargetSpec>,
    /// The [`Wanted`] it comes from.
    pub serial: u64,
    /// Unique in the node; results of another epoch are of a target or a command that is no more.
    pub epoch: u64,
    /// Of [`Wanted`], as far as they are followed.
    commands: u64,
    looks: u64,
    state: State,
    /// The client has asked for a look that has not begun.
    requested: bool,
    /// Why the language model looks, or looked last.
    why: Option<Why>,
    /// The last grounding in use.
    grounding: Option<Said>,
    /// What all looks in a row that rather said "absent" leave open, `0.0..=1.0`; 1 where the last one did not.
    doubt: f32,
    /// The most that they may leave open; 1 where what is absent on one picture is absent here.
    most_doubt: f32,
    fresh: Option<Fresh>,
    tracks: Vec<Arc<Tracked>>,
    lost: Vec<Lost>,
    /// Since which frame's arrival it has been unsure.
    unsure: Option<Instant>,
    /// The frame that was asked about last, and when it arrived.
    asked: Option<(u64, Instant)>,
    /// When the last answer came.
    answered: Option<Instant>,
    ground_error: Option<NodeError>,
}

impl Target {
    /// A target that nobody has looked at; `absent` is what it takes to say that it is absent
    /// ([`StreamThresholds::absent`](crate::engine::bundle::StreamThresholds::absent)).
    pub(super) fn new(wanted: &Wanted, epoch: u64, absent: f32) -> Self {
        let mut target = Self {
            spec: wanted.spec.clone(),
            serial: wanted.serial,
            epoch,
            commands: wanted.commands,
            looks: wanted.looks,
            state: State::NEW,
            requested: false,
            why: None,
            grounding: None,
            doubt: 1.0,
            most_doubt: 1.0 - absent,
            fresh: None,
            tracks: Vec::new(),
            lost: Vec::new(),
            unsure: None,
            asked: None,
            answered: None,
            ground_error: None,
        };
        target.begin(wanted.paused);
        target
    }

    /// What a new command means at once.
    fn begin(&mut self, paused: bool) {
        if paused {
            self.step(Event::Pause);
        } else if self.spec.command.is_err() {
            self.step(Event::Fail);
        }
    }

    /// Moves on; what the table of [`State`] does not know is a defect of the node and changes nothing.
    fn step(&mut self, event: Event) {
        match self.state.after(event) {
            Some(next) => self.state = next,
            None => {
                #[cfg(test)]
                panic!("{event:?} in {:?}", self.state);
                #[cfg(not(test))]
                tracing::error!(target = self.spec.id, ?event, state = ?self.state, "this cannot happen");
            }
        }
    }

    /// Brings it to what the client wants: another name, another command, a pause, a look.
    pub(super) fn update(&mut self, wanted: Wanted, now: Instant, next_epoch: &mut u64) {
        let retargeted = wanted.commands != self.commands;
        (self.spec, self.commands) = (wanted.spec, wanted.commands);
        if retargeted {
            self.start_afresh(next_epoch);
            self.lost.iter_mut().for_each(|l| l.own = false);
            self.step(Event::Retarget);
            self.begin(self.is_paused());
        }
        if wanted.paused != self.is_paused() {
            self.start_afresh(next_epoch);
            if wanted.paused {
                self.step(Event::Pause);
            } else {
                self.step(Event::Resume);
                // Nobody looked for it meanwhile.
                self.lost.iter_mut().for_each(|l| l.since = now);
                self.begin(false);
            }
        }
        self.requested |= wanted.looks != self.looks;
        self.looks = wanted.looks;
    }

    /// Forgets what was said; what was seen is remembered for its ids.
    fn start_afresh(&mut self, next_epoch: &mut u64) {
        *next_epoch += 1;
        self.epoch = *next_epoch;
        self.lost.extend(self.tracks.drain(..).map(Lost::new));
        (self.grounding, self.fresh, self.asked, self.answered) = (None, None, None, None);
        (self.ground_error, self.why, self.requested, self.unsure) = (None, None, false, None);
        self.doubt = 1.0;
    }

    pub(super) fn is_paused(&self) -> bool {
        self.state.phase == Phase::Paused
    }

    /// Why it should be grounded `now`, on the frame `seq`.
    pub(super) fn due(&self, seq: u64, now: Instant, config: &NodeConfig) -> Option<Why> {
        let hopeless = self.ground_error.as_ref().is_some_and(NodeError::is_refusal);
        if self.spec.command.is_err() || hopeless || self.is_paused() || self.state.look != Look::Idle {
            return None;
        }
        let Some(answered) = self.answered else { return Some(Why::New) };
        // The same pixels give the same answer.
        if self.asked.is_some_and(|(asked, _)| asked == seq) {
            return None;
        }
        if self.requested {
            return Some(Why::Request);
        }
        let age = now.saturating_duration_since(answered);
        let soon = || {
            if self.state.phase == Phase::Lost || self.lost.iter().any(|l| l.own && !l.missed) {
                Some(Why::Lost)
            } else if self.tracks.iter().any(|t| t.track.drift().is_some()) {
                Some(Why::Drift)
            } else if self.tracks.iter().any(|t| t.contested && !t.doubtful) {
                Some(Why::Confirm)
            } else if self.lost.iter().any(|l| l.own) {
                Some(Why::Missing)
            } else {
                let lately = |since| now.saturating_duration_since(since) <= config.remember_lost;
                self.unsure.is_some_and(lately).then_some(Why::Unsure)
            }
        };
        let soon = (age >= config.reground_lost_after).then(soon).flatten();
        let budget = self.spec.reground_after.unwrap_or(config.reground_after);
        soon.or_else(|| (age >= budget).then_some(Why::Budget))
    }

    /// The grounder was given it, on `frame`.
    pub(super) fn ask(&mut self, frame: &Meta, why: Why) {
        self.step(Event::Ask);
        self.asked = Some((frame.seq, frame.arrived));
        self.why = Some(why);
        self.requested = false;
    }

    /// The grounder's boxes on `frame`, before it is asked about points. They are of use where nothing is followed: a
    /// mask from a box alone is no better than one that is followed.
    pub(super) fn hear_boxes(&mut self, frame: Arc<Kept>, boxes: Grounding) -> bool {
        let use_ = !self.state.phase.follows() && self.state.look == Look::Asked;
        if use_ {
            self.step(Event::Propose);
            self.fresh = Some(Fresh { grounding: Arc::new(boxes), frame, partial: true });
        }
        use_
    }

    /// The grounder's answer about `frame`, which comes `now`.
    pub(super) fn hear(&mut self, frame: Arc<Kept>, answer: Result<Grounding, NodeError>, now: Instant) {
        self.answered = Some(now);
        match answer {
            Ok(grounding) => {
                self.step(Event::Answer);
                self.fresh = Some(Fresh { grounding: Arc::new(grounding), frame, partial: false });
            }
            Err(error) => {
                self.step(Event::Fail);
                (self.fresh, self.ground_error) = (None, Some(error));
            }
        }
    }

    /// Its instances where they were seen last, but for those that SAM does not believe in.
    pub(super) fn followed(&self) -> Vec<Arc<Tracked>> {
        self.tracks.iter().filter(|t| !t.doubtful).cloned().collect()
    }

    /// When the grounder answered last.
    pub(super) fn answered(&self) -> Option<Instant> {
        self.answered
    }

    /// The grounder will not answer any more; says whether that is news.
    pub(super) fn give_up(&mut self, error: &NodeError) -> bool {
        let news = self.ground_error.is_none() && !self.is_paused();
        if news {
            self.step(Event::Fail);
            self.ground_error = Some(error.clone());
        }
        news
    }

    /// Takes an answer that names no instances.
    pub(super) fn use_without_masks(&mut self) {
        if let Some(fresh) = self.fresh.take() {
            self.step(Event::Use);
            self.step(Event::Clear);
            self.put_to_use(fresh);
            self.note_unsure();
        }
    }

    /// The segment stage's part of a frame; instances that nobody has seen for `remember` are forgotten, where the
    /// language model is not about to name them.
    pub(super) fn work(&mut self, frame: &Meta, remember: Duration) -> Work {
        let asked = self.asked.filter(|_| self.state.look != Look::Idle).map_or(frame.arrived, |(_, at)| at);
        forget(&mut self.lost, asked.min(frame.arrived), remember);
        let absent = |f: &Fresh| self.is_absent(self.doubt_after(&f.grounding), Some(f.grounding.outcome));
        Work {
            epoch: self.epoch,
            hint: self.spec.hint,
            tracks: self.tracks.clone(),
            lost: self.lost.clone(),
            absent: self.fresh.as_ref().is_some_and(absent),
            fresh: self.fresh.clone(),
        }
    }

    /// Takes what became of it.
    pub(super) fn take(&mut self, done: WorkDone) {
        (self.tracks, self.lost) = (done.tracks, done.lost);
        if let Some(event) = done.event {
            self.step(event);
        }
        if let Some(used) = done.used {
            self.used(used);
        }
        self.note_unsure();
    }

    /// Remembers since when it has been unsure.
    fn note_unsure(&mut self) {
        let seen = self.tracks.iter().map(|t| t.mask_at).max().or(self.asked.map(|(_, at)| at));
        let unsure = seen.filter(|_| self.verdict() == Verdict::Unsure);
        self.unsure = unsure.map(|at| self.unsure.unwrap_or(at));
    }

    /// Masks were made from an answer.
    fn used(&mut self, used: Fresh) {
        // A newer answer may have come meanwhile.
        if self.fresh.as_ref().is_some_and(|f| Arc::ptr_eq(&f.grounding, &used.grounding)) {
            self.step(Event::Use);
            self.fresh = None;
        }
        self.put_to_use(used);
    }

    /// What went wrong before is over once a whole answer is in use.
    fn put_to_use(&mut self, used: Fresh) {
        if !used.partial {
            self.ground_error = None;
        }
        self.doubt = self.doubt_after(&used.grounding);
        if used.grounding.leans_absent() {
            let seen = used.frame.meta.arrived;
            self.lost.iter_mut().for_each(|l| l.missed |= l.own && l.since <= seen);
        }
        self.grounding = Some(used.into());
    }

    /// What `said` and the looks before it leave open.
    fn doubt_after(&self, said: &Grounding) -> f32 {
        if said.leans_absent() { self.doubt * (1.0 - said.p_absent) } else { 1.0 }
    }

    /// A frame has no new masks.
    pub(super) fn miss(&mut self) {
        self.step(Event::Miss);
    }

    /// Whether more is about to be known of the frame.
    pub(super) fn is_under_way(&self, frame: &Meta, now: Instant, config: &NodeConfig) -> bool {
        self.state.look != Look::Idle || self.due(frame.seq, now, config).is_some()
    }

    /// What is said about it on a frame; `failed` is why that frame has no new masks.
    pub(super) fn reply(&self, frame: &Meta, failed: Option<&NodeError>, config: &NodeConfig) -> TargetReply {
        let mut instances: Vec<_> = self.tracks.iter().map(|t| InstanceReply::new(t.clone(), frame)).collect();
        let stale = instances.iter().any(|i| i.mask_age > config.stale_limit && i.mask_seq() != frame.seq);
        let mut verdict = self.verdict();
        // Without new masks the last ones hold for a short while, and an answer that needs masks cannot be given.
        let unusable = self.fresh.is_some() && self.grounding.is_none();
        if failed.is_some() && (stale || unusable) && verdict != Verdict::Paused {
            verdict = Verdict::Failed;
            instances.clear();
        }
        let confidence = match verdict {
            Verdict::Pending | Verdict::Lost | Verdict::Failed | Verdict::Paused => 0.0,
            Verdict::Absent if self.most_doubt < 1.0 => 1.0 - self.doubt,
            Verdict::Found | Verdict::Absent | Verdict::Ambiguous | Verdict::Unsure => {
                self.grounding.as_ref().map_or(0.0, |g| g.grounding.confidence)
            }
        };
        let failed = failed.filter(|_| !self.is_paused());
        let error = self.spec.command.as_ref().err().or(failed).or(self.ground_error.as_ref()).cloned();
        // Boxes of another frame would be nothing that can be pointed at here.
        let boxes = self.fresh.as_ref().filter(|f| f.partial && f.frame.meta.seq == frame.seq);
        let proposals = boxes.map(|f| f.grounding.instances.iter().map(|i| i.proposal).collect());
        TargetReply {
            target_id: self.spec.id.clone(),
            verdict,
            confidence,
            instances,
            error,
            grounding: self.grounding.as_ref().map(|g| (g.seq, g.grounding.clone())),
            phase: self.state.phase,
            look: self.state.look,
            why: self.why,
            proposals: proposals.unwrap_or_default(),
            partial: self.grounding.as_ref().is_some_and(|g| g.partial),
        }
    }

    /// Whether looks that leave `doubt`, the `last` one among them, are enough to say that it is absent: one alone, where no more
    /// is asked for, or several that were less sure each.
    fn is_absent(&self, doubt: f32, last: Option<Outcome>) -> bool {
        doubt <= self.most_doubt && (self.most_doubt < 1.0 || last == Some(Outcome::Absent))
    }

    fn verdict(&self) -> Verdict {
        let outcome = self.grounding.as_ref().map(|g| g.grounding.outcome);
        let mut believed = self.tracks.iter().filter(|t| !t.doubtful).peekable();
        // A mask of several that may be wrong makes them all something not to be acted upon.
        let sure = believed.peek().is_some() && believed.all(|t| t.sure && !t.contested);
        match self.state.phase {
            Phase::Pending => Verdict::Pending,
            Phase::Paused => Verdict::Paused,
            Phase::Failed => Verdict::Failed,
            Phase::Lost => Verdict::Lost,
            Phase::Vacant if self.is_absent(self.doubt, outcome) => Verdict::Absent,
            Phase::Vacant => Verdict::Unsure,
            Phase::Grounded | Phase::Tracked | Phase::Stale => match outcome {
                Some(Outcome::Found) if sure => Verdict::Found,
                Some(Outcome::Ambiguous) if sure => Verdict::Ambiguous,
                _ => Verdict::Unsure,
            },
        }
    }
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
