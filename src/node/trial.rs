//! A session on a clock of its own: the node's code frame by frame, as fast as the machine is, and the same every time.
//!
//! The segment stage is done with each frame before the next one comes, and a grounding takes a fixed time of that clock,
//! so that what is measured here hangs on the models and the rules alone, and not on how fast they run.

use std::time::Duration;

use super::{
    FrameIn, FrameReply, Masks, NodeConfig, NodeError, NodeErrorKind, Replay, Reply, SessionInput, Stages, Step,
};

/// One session.
pub struct Trial {
    replay: Replay,
    grounding: Duration,
    /// When the language model was asked what it is at.
    asked: Option<Duration>,
    /// Of the targets that the session follows.
    version: u64,
}

impl Trial {
    /// Builds the stages, and waits for them; each grounding is to take `grounding`. Not to be called where async code
    /// runs.
    ///
    /// # Errors
    /// [`NodeErrorKind::Stage`] where one cannot be built.
    pub fn new(config: NodeConfig, stages: Stages, grounding: Duration) -> Result<Self, NodeError> {
        Ok(Self { replay: Replay::new(config, stages)?, grounding, asked: None, version: 0 })
    }

    /// Changes targets.
    pub fn input<T>(&mut self, request: impl FnOnce(&mut SessionInput) -> T) -> T {
        self.replay.take(request)
    }

    /// Answers the frame that comes at that time from the start; times only grow.
    ///
    /// # Errors
    /// A bad frame; [`NodeErrorKind::Stage`] where a stage is gone.
    pub fn frame(&mut self, frame: FrameIn, at: Duration) -> Result<FrameReply, NodeError> {
        let (seq, arrived) = (frame.seq, self.replay.at(at));
        self.replay.set_clock(at);
        self.replay.take(|input| input.submit(frame))?;
        if self.asked.is_some_and(|asked| at >= asked + self.grounding) {
            self.asked = None;
            self.replay.step(Step::Grounded(Ok(())))?;
        }
        if self.replay.version() != self.version {
            self.version = self.replay.version();
            self.replay.step(Step::Follow { version: self.version, at: arrived })?;
        }
        self.replay.step(Step::Begin { seq, revision: 0, arrived })?;
        self.replay.step(Step::Decoded)?;
        let told = self.replay.step(Step::Segmented(Masks::Made))?;
        if self.asked.is_none()
            && let Some((serial, why)) = self.replay.neediest()
        {
            self.replay.step(Step::Ask { serial, why })?;
            self.asked = Some(at);
        }
        match told.into_iter().next() {
            Some(Reply::Frame(reply)) => Ok(*reply),
            Some(Reply::Rejected { error, .. }) => Err(error),
            None => Err(NodeError::new(NodeErrorKind::Stage, format!("answer frame {seq}: nothing was said"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::bundle::{Calibration, StreamThresholds};
    use crate::frame::{Encoding, Layout};
    use crate::node::{Manner, Phrasing, Stages, Verdict};
    use crate::pipeline::Strategy;
    use crate::pipeline::fake::{FakeGround, FakeSegment, Script};

    const SIDE: u32 = 64;

    /// Grey, with a red square so far from the left.
    fn frame(seq: u64, left: Option<u32>) -> FrameIn {
        let red = |x: u32, y: u32| left.is_some_and(|l| (l..l + 16).contains(&x)) && (20..36).contains(&y);
        let pixels = (0..SIDE * SIDE).flat_map(|i| if red(i % SIDE, i / SIDE) { [210, 20, 20] } else { [120; 3] });
        FrameIn::of_pixels(seq, Encoding::Rgb8, Layout::packed(SIDE, SIDE), pixels.collect::<Vec<_>>())
    }

    /// What is said of a red square that is there, goes away and comes back, ten frames a second.
    fn told() -> Vec<(Verdict, usize)> {
        let script = Script::default();
        let (ground, segment) = (script.ground.clone(), script.segment);
        let stages = Stages {
            ground: Box::new(move || Ok(Box::new(FakeGround::new(ground.clone())))),
            segment: Box::new(move || Ok(Box::new(FakeSegment::new(segment.clone())))),
            strategies: FakeGround::strategies(Strategy::Box).expect("is known"),
            min_mask_score: 0.4,
            stream: StreamThresholds::NONE,
            calibration: Calibration::IDENTITY,
        };
        let config = NodeConfig::default();
        let phrasing = Phrasing::new(&config, stages.strategies);
        let mut trial = Trial::new(config, stages, Duration::from_millis(150)).expect("starts");
        let target = phrasing.target("t".into(), "red", Manner::default());
        trial.input(|input| input.set_targets(vec![target])).expect("one target");
        let show = |seq: u64| {
            let left = (!(10..20).contains(&seq)).then_some(8 + seq as u32);
            let reply = trial.frame(frame(seq, left), Duration::from_millis(100 * seq)).expect("answers");
            (reply.targets[0].verdict, reply.targets[0].instances.len())
        };
        (1..40).map(show).collect()
    }

    #[test]
    fn time_is_that_of_the_frames_and_every_run_says_the_same() {
        let said = told();
        // Asked on the first frame, answered 150 ms later: on the third.
        assert_eq!(said[..3], [(Verdict::Pending, 0), (Verdict::Pending, 0), (Verdict::Found, 1)]);
        assert!(said[2..9].iter().all(|s| *s == (Verdict::Found, 1)), "{said:?}");
        assert!(said[9..19].iter().all(|s| s.1 == 0), "{said:?}");
        assert!(said[18].0 == Verdict::Absent && said[25..].iter().all(|s| *s == (Verdict::Found, 1)), "{said:?}");
        assert_eq!(told(), said);
    }
}
