//! What a node has done so far, in numbers: for whoever watches over it.
//!
//! Everything only grows, but for what is said to be now. Labels are few and known beforehand: reasons, verdicts,
//! stages; never ids, which a client could make without end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{DropReason, StageName};
use crate::pipeline::Outcome;

/// Upper bounds of a [`Histogram`]'s buckets, in seconds; one more takes what is above them.
pub const BUCKETS_S: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// How often something took how long.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Histogram {
    /// How many lie in each bucket, not below it as well; the last is beyond all bounds.
    pub buckets: [u64; BUCKETS_S.len() + 1],
    /// The sum of all, in seconds.
    pub sum_s: f64,
}

impl Histogram {
    fn observe(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        self.buckets[BUCKETS_S.partition_point(|bound| *bound < seconds)] += 1;
        self.sum_s += seconds;
    }
}

/// What became of a grounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroundingEnd {
    /// The language model answered.
    Answered(Outcome),
    /// It failed, or its time was over.
    Failed,
}

impl GroundingEnd {
    /// Every end.
    pub const ALL: [Self; 5] = [
        Self::Answered(Outcome::Found),
        Self::Answered(Outcome::Absent),
        Self::Answered(Outcome::Ambiguous),
        Self::Answered(Outcome::Unsure),
        Self::Failed,
    ];

    fn index(self) -> usize {
        match self {
            Self::Answered(Outcome::Found) => 0,
            Self::Answered(Outcome::Absent) => 1,
            Self::Answered(Outcome::Ambiguous) => 2,
            Self::Answered(Outcome::Unsure) => 3,
            Self::Failed => 4,
        }
    }
}

/// A node's numbers; shared by all who count.
#[derive(Debug, Default)]
pub struct Stats {
    received: AtomicU64,
    answered: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
    groundings: [AtomicU64; GroundingEnd::ALL.len()],
    restarts: [AtomicU64; 2],
    hung: [AtomicBool; 2],
    waiting: [AtomicU64; 3],
    /// By stage, as replies name them: the names are written in the code.
    stages: Mutex<BTreeMap<&'static str, Histogram>>,
}

impl Stats {
    /// Frames that came in on streams.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Frames of streams that were answered.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Frames of streams that were dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize].load(Ordering::Relaxed)
    }

    /// Groundings that came to `end`.
    pub fn groundings(&self, end: GroundingEnd) -> u64 {
        self.groundings[end.index()].load(Ordering::Relaxed)
    }

    /// How often a stage panicked and was built anew, or could not be.
    pub fn restarts(&self, stage: StageName) -> u64 {
        self.restarts[stage as usize].load(Ordering::Relaxed)
    }

    /// Whether a stage hangs now.
    pub fn hangs(&self, stage: StageName) -> bool {
        self.hung[stage as usize].load(Ordering::Relaxed)
    }

    /// Now: frames in slots, calls that wait for a stage, targets that want the grounder.
    pub fn waiting(&self) -> [u64; 3] {
        [0, 1, 2].map(|i| self.waiting[i].load(Ordering::Relaxed))
    }

    /// How long each stage took, by its name.
    pub fn stages(&self) -> BTreeMap<&'static str, Histogram> {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn count_received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_dropped(&self, reason: DropReason) {
        self.dropped[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_grounding(&self, end: GroundingEnd) {
        self.groundings[end.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_restart(&self, stage: StageName) {
        self.restarts[stage as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_hangs(&self, stage: StageName, hangs: bool) {
        self.hung[stage as usize].store(hangs, Ordering::Relaxed);
    }

    pub(super) fn set_waiting(&self, waiting: [usize; 3]) {
        for (now, count) in self.waiting.iter().zip(waiting) {
            now.store(count as u64, Ordering::Relaxed);
        }
    }

    pub(super) fn observe(&self, timings: &[(&'static str, Duration)]) {
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        for (stage, time) in timings {
            stages.entry(stage).or_default().observe(*time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_the_bucket_of_their_bound() {
        let mut histogram = Histogram::default();
        for ms in [1, 2, 30_000, 30_001] {
            histogram.observe(Duration::from_millis(ms));
        }
        assert_eq!((histogram.buckets[0], histogram.buckets[1]), (1, 1));
        assert_eq!((histogram.buckets[BUCKETS_S.len() - 1], histogram.buckets[BUCKETS_S.len()]), (1, 1));
        assert!((histogram.sum_s - 60.004).abs() < 1e-9);
    }

    #[test]
    fn every_end_has_a_place_of_its_own() {
        let places: std::collections::HashSet<_> = GroundingEnd::ALL.into_iter().map(GroundingEnd::index).collect();
        assert_eq!(places.len(), GroundingEnd::ALL.len());
    }
}
