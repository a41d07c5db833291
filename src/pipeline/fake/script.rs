//! Slow, failing and crashing stages, on demand.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::super::PipelineError;
use super::{failure, late};

/// A barrier that holds a stage up until it is opened.
#[derive(Debug, Default)]
pub struct Gate {
    shut: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    /// From now on whoever comes waits.
    pub fn shut(&self) {
        *self.shut.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Lets everyone pass.
    pub fn open(&self) {
        *self.shut.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.changed.notify_all();
    }

    pub(super) fn pass(&self) {
        let shut = self.shut.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(shut, |shut| *shut).unwrap_or_else(PoisonError::into_inner));
    }
}

/// What one stage does besides its work. Open, fast and faultless by default.
#[derive(Debug, Default)]
pub struct Play {
    /// Holds each pass up.
    pub gate: Gate,
    /// Holds the grounder up between its boxes and its points.
    pub points: Gate,
    delay_ms: AtomicU64,
    failures: AtomicU64,
    panics: AtomicU64,
    begun: AtomicU64,
    /// Off a mask's score, in hundredths.
    doubts: AtomicU64,
}

impl Play {
    /// Each pass takes this much longer.
    pub fn set_delay(&self, delay: Duration) {
        self.delay_ms.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The next `count` passes fail.
    pub fn fail(&self, count: u64) {
        self.failures.store(count, Ordering::SeqCst);
    }

    /// The next `count` passes panic.
    pub fn panic(&self, count: u64) {
        self.panics.store(count, Ordering::SeqCst);
    }

    /// Whether the segmenter gives its masks hardly any score.
    pub fn doubt(&self, doubts: bool) {
        self.doubts.store(if doubts { 85 } else { 0 }, Ordering::SeqCst);
    }

    /// From now on masks have `percent` less score.
    pub fn waver(&self, percent: u8) {
        self.doubts.store(percent.into(), Ordering::SeqCst);
    }

    /// The score of a mask.
    pub(super) fn score(&self) -> f32 {
        0.95 - self.doubts.load(Ordering::SeqCst) as f32 / 100.0
    }

    /// Passes that have begun, those behind a shut gate included.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    /// One pass.
    pub(super) fn enact(&self, engine: &'static str, deadline: Option<Instant>) -> Result<(), PipelineError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.gate.pass();
        let delay = self.delay_ms.load(Ordering::Relaxed);
        if delay > 0 {
            std::thread::sleep(Duration::from_millis(delay));
        }
        if let Some(late) = deadline.and_then(late) {
            return Err(PipelineError::Deadline(late));
        }
        if take(&self.panics) {
            panic!("the script says so");
        }
        if take(&self.failures) {
            return Err(failure(engine));
        }
        Ok(())
    }
}

fn take(count: &AtomicU64) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

/// What both stages do besides their work.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// The grounder's part.
    pub ground: Arc<Play>,
    /// The segmenter's part; it is played once per embedding.
    pub segment: Arc<Play>,
}
