//! Computations that come again and again, captured as CUDA graphs.
//!
//! A computation of the same shapes on the same memory is the same work. When it comes for the second time it is put
//! onto the stream from a context of its own, and once that is done captured from there; from then on the graph is
//! launched. TensorRT wants both: work that it has enqueued before with these shapes, as it puts off what a change of
//! shapes needs, and a context that nobody changes as long as its graph lives. All contexts of an engine compute in the
//! same memory, one at a time.
//!
//! A graph whose memory has moved is not found again, and the first to go.
//!
//! What could not be captured is enqueued. Its engine captures nothing for some passes, and after the next failure for
//! twice as many, until something is captured: so a driver that had no memory for a moment costs a while without new graphs
//! and no more, and one that never captures costs a context, which each attempt makes, ever more seldom.

use std::sync::atomic::{AtomicU64, Ordering};

use super::super::error::TensorRtError;
use super::super::safe::Context;
use super::stream::Graph;

/// Most graphs that an engine keeps: the context of each takes memory of the host's.
const MAX_KEPT: usize = 8;
/// Computations that came once and are remembered.
const MAX_SEEN: usize = 16;

/// Passes of an engine before it captures anything anew, the first time that it could not, and at most.
const FIRST_WAIT: u32 = 32;
const MAX_WAIT: u32 = 1 << 16;

/// Captures that failed, of all engines of this process.
static FAILED: AtomicU64 = AtomicU64::new(0);

/// How often a computation could not be captured as a CUDA graph since this process began.
pub fn failed_captures() -> u64 {
    FAILED.load(Ordering::Relaxed)
}

/// All that a computation depends on but its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bound {
    pub profile: usize,
    /// By input: its shape, and where it is on the device.
    pub inputs: Vec<(Vec<i64>, usize)>,
    /// Where each output goes.
    pub outputs: Vec<usize>,
}

struct Kept {
    bound: Bound,
    // In the order in which they must go.
    graph: Graph,
    _context: Context,
}

/// How a computation is to be put onto the stream.
pub(super) enum Way<'g> {
    /// From the engine's usual context.
    Plain,
    /// From a context of its own, to be captured after that.
    Warm,
    /// By its graph.
    Launch(&'g Graph),
}

/// The graphs of an engine.
#[derive(Default)]
pub(super) struct Graphs {
    off: bool,
    /// What was used last is last.
    kept: Vec<Kept>,
    seen: Vec<Bound>,
    /// Passes until something may be captured, and how many they were after the last failure; 0 where there was none since
    /// something was captured.
    left: u32,
    wait: u32,
    /// Whether it was said that something could not be captured.
    told: bool,
    /// What computes on the stream to be captured after that; it must not go before the stream was waited for.
    warm: Option<Context>,
}

impl Graphs {
    /// Forgets all graphs, and keeps none from now on where `off`.
    pub(super) fn set_off(&mut self, off: bool) {
        *self = Self { off, told: self.told, warm: self.warm.take(), ..Self::default() };
    }

    /// Holds `context` for as long as its work may be on the stream.
    pub(super) fn warm_up(&mut self, context: Context) -> &mut Context {
        self.warm.insert(context)
    }

    /// The context of which that was said last, once the stream was waited for.
    pub(super) fn take_warm(&mut self) -> Option<Context> {
        self.warm.take()
    }

    pub(super) fn are_off(&self) -> bool {
        self.off
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.kept.len()
    }

    /// How `bound` is to be computed, which is remembered.
    pub(super) fn way(&mut self, bound: &Bound) -> Way<'_> {
        if self.off {
            return Way::Plain;
        }
        let rests = self.left > 0;
        self.left = self.left.saturating_sub(1);
        if let Some(found) = self.kept.iter().position(|kept| kept.bound == *bound) {
            self.kept[found..].rotate_left(1);
            return Way::Launch(&self.kept[self.kept.len() - 1].graph);
        }
        if self.seen.contains(bound) {
            return if rests { Way::Plain } else { Way::Warm };
        }
        if self.seen.len() >= MAX_SEEN {
            self.seen.remove(0);
        }
        self.seen.push(bound.clone());
        Way::Plain
    }

    /// Keeps what was captured of `bound`, from `context`.
    pub(super) fn keep(&mut self, bound: Bound, graph: Graph, context: Context) {
        if self.kept.len() >= MAX_KEPT {
            self.kept.remove(0);
        }
        self.seen.retain(|seen| *seen != bound);
        (self.left, self.wait) = (0, 0);
        self.kept.push(Kept { bound, graph, _context: context });
    }

    /// Captures nothing for a while, as something could not be, and says why the first time.
    pub(super) fn refuse(&mut self, engine: &str, why: &TensorRtError) {
        FAILED.fetch_add(1, Ordering::Relaxed);
        let wait = self.wait.saturating_mul(2).clamp(FIRST_WAIT, MAX_WAIT);
        (self.left, self.wait) = (wait, wait);
        match std::mem::replace(&mut self.told, true) {
            false => tracing::warn!(engine, %why, passes = wait, "no CUDA graph for now: passes are enqueued anew"),
            true => tracing::debug!(engine, %why, passes = wait, "again no CUDA graph"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tensorrt::error::TensorRtErrorKind;

    fn bound(profile: usize) -> Bound {
        Bound { profile, inputs: Vec::new(), outputs: Vec::new() }
    }

    /// How many passes of `bound` are enqueued before one is to be captured.
    fn passes(graphs: &mut Graphs, bound: &Bound) -> u32 {
        (0..=MAX_WAIT + 1).take_while(|_| !matches!(graphs.way(bound), Way::Warm)).count() as u32
    }

    #[test]
    fn what_is_refused_waits_twice_as_long_each_time() {
        let why = TensorRtError::new(TensorRtErrorKind::Run, "the GPU", "no memory");
        let (mut graphs, before) = (Graphs::default(), failed_captures());
        assert_eq!(passes(&mut graphs, &bound(0)), 1, "it has to come twice");
        let mut waits = Vec::new();
        for _ in 0..14 {
            graphs.refuse("graph", &why);
            waits.push(passes(&mut graphs, &bound(0)));
        }
        let doubled: Vec<_> = (0..14).map(|i| (FIRST_WAIT << i).min(MAX_WAIT)).collect();
        assert_eq!(waits, doubled);
        assert!(failed_captures() - before >= 14);
    }

    /// However many computations there are, they wait together: no more contexts are made in vain than for one.
    #[test]
    fn one_wait_is_for_all_computations() {
        let why = TensorRtError::new(TensorRtErrorKind::Run, "the GPU", "no memory");
        let mut graphs = Graphs::default();
        let mut tries = 0;
        // Ten computations in turn, which are all remembered, and those of ever other shapes, each twice, which are not.
        for pass in 0..10_000 {
            let bound = if pass % 2 == 0 { bound(pass / 2 % 10) } else { bound(10 + pass / 4) };
            if matches!(graphs.way(&bound), Way::Warm) {
                graphs.refuse("graph", &why);
                tries += 1;
            }
        }
        // 32 passes after the first, then 64, and so on to 4096 are 8160.
        assert_eq!(tries, 9);
    }
}
