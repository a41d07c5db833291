//! What one client may ask for, over all its sessions and calls.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{NodeError, NodeErrorKind};

/// Limits on one client; 0 stands for none.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Quota {
    /// Frames a second, of all its streams and calls together. Default: 0, no limit.
    pub frames_per_s: f32,
    /// Groundings a minute. Default: 0, no limit.
    pub groundings_per_min: f32,
}

/// A bucket that fills at a constant rate.
#[derive(Debug)]
struct Bucket {
    /// Tokens a second.
    rate: f64,
    /// The most that it holds.
    depth: f64,
    level: f64,
    filled: Instant,
}

impl Bucket {
    /// `None` for a rate of 0. It holds what comes in `span`, but one at least, and begins full.
    fn new(rate: f64, span: Duration) -> Option<Self> {
        let depth = (rate * span.as_secs_f64()).max(1.0);
        (rate > 0.0).then(|| Self { rate, depth, level: depth, filled: Instant::now() })
    }

    fn fill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.level = (self.level + since * self.rate).min(self.depth);
        self.filled = now;
    }

    /// Takes one.
    ///
    /// # Errors
    /// How long it takes until there is one.
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        if let Some(wait) = self.wait(now) {
            return Err(wait);
        }
        self.level -= 1.0;
        Ok(())
    }

    /// How long it takes until there is one; `None` where there is one now.
    fn wait(&mut self, now: Instant) -> Option<Duration> {
        self.fill(now);
        (self.level < 1.0).then(|| Duration::from_secs_f64((1.0 - self.level) / self.rate))
    }
}

/// What is left of one client's quota; shared by its sessions.
#[derive(Debug, Default)]
pub struct Allowance {
    quota: Quota,
    frames: Mutex<Option<Bucket>>,
    groundings: Mutex<Option<Bucket>>,
}

impl Allowance {
    /// A whole quota: a second's frames and a minute's groundings may come at once.
    pub fn new(quota: Quota) -> Self {
        let second = Duration::from_secs(1);
        Self {
            quota,
            frames: Mutex::new(Bucket::new(quota.frames_per_s.into(), second)),
            groundings: Mutex::new(Bucket::new(f64::from(quota.groundings_per_min) / 60.0, second * 60)),
        }
    }

    /// Takes a frame.
    ///
    /// # Errors
    /// [`NodeErrorKind::Limit`] where there have been too many in the last second.
    pub fn frame(&self) -> Result<(), NodeError> {
        take(&self.frames).map_err(|wait| {
            let what = format!(
                "accept frame: {} frames a second are this client's limit, the next is taken in {} ms",
                self.quota.frames_per_s,
                wait.as_millis() + 1
            );
            NodeError::new(NodeErrorKind::Limit, what)
        })
    }

    /// Takes a grounding.
    ///
    /// # Errors
    /// [`NodeErrorKind::Limit`] where there have been too many in the last minute.
    pub fn grounding(&self) -> Result<(), NodeError> {
        take(&self.groundings).map_err(|wait| self.no_grounding(wait))
    }

    /// Why no grounding may begin now; takes none.
    pub(super) fn refuses_grounding(&self) -> Option<NodeError> {
        let mut bucket = self.groundings.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = bucket.as_mut()?.wait(Instant::now())?;
        Some(self.no_grounding(wait))
    }

    fn no_grounding(&self, wait: Duration) -> NodeError {
        let what = format!(
            "ground target: {} groundings a minute are this client's limit, the next begins in {} ms",
            self.quota.groundings_per_min,
            wait.as_millis() + 1
        );
        NodeError::new(NodeErrorKind::Limit, what)
    }
}

fn take(bucket: &Mutex<Option<Bucket>>) -> Result<(), Duration> {
    let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
    bucket.as_mut().map_or(Ok(()), |bucket| bucket.take(Instant::now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_depth_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket { rate: 10.0, depth: 10.0, level: 10.0, filled: start };
        assert_eq!((0..20).filter(|_| bucket.take(start).is_ok()).count(), 10);
        let wait = bucket.take(start).expect_err("is empty");
        assert!((wait.as_secs_f64() - 0.1).abs() < 1e-6, "{wait:?}");
        assert!(bucket.take(start + Duration::from_millis(101)).is_ok());
        // It never holds more than its depth, however long nobody came.
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..20).filter(|_| bucket.take(later).is_ok()).count(), 10);
    }

    #[test]
    fn nought_is_no_limit() {
        let allowance = Allowance::default();
        assert!((0..1000).all(|_| allowance.frame().is_ok() && allowance.grounding().is_ok()));
        assert!(allowance.refuses_grounding().is_none());
    }

    #[test]
    fn what_is_used_up_says_so() {
        let allowance = Allowance::new(Quota { frames_per_s: 0.5, groundings_per_min: 2.0 });
        assert!(allowance.frame().is_ok());
        let refused = allowance.frame().expect_err("one in two seconds");
        assert_eq!(refused.kind(), NodeErrorKind::Limit);
        assert!(refused.to_string().contains("0.5 frames a second"), "{refused}");
        assert!(allowance.grounding().is_ok() && allowance.refuses_grounding().is_none());
        assert!(allowance.grounding().is_ok() && allowance.refuses_grounding().is_some());
    }
}
