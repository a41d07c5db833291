//! Computations that come again and again, captured as CUDA graphs.
//!
//! A computation of the same shapes on the same memory is the same work. When it comes for the second time it is put
//! onto the stream from a context of its own, and once that is done captured from there; from then on the graph is
//! launched. TensorRT wants both: work that it has enqueued before with these shapes, as it puts off what a change of
//! shapes needs, and a context that nobody changes as long as its graph lives. All contexts of an engine compute in the
//! same memory, one at a time.
//!
//! A graph whose memory has moved is not found again, and the first to go.

use super::super::error::TensorRtError;
use super::super::safe::Context;
use super::stream::Graph;

/// Most graphs that an engine keeps: the context of each takes memory of the host's.
const MAX_KEPT: usize = 8;
/// Computations that came once and are remembered.
const MAX_SEEN: usize = 16;

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
    /// What computes on the stream to be captured after that; it must not go before the stream was waited for.
    warm: Option<Context>,
}

impl Graphs {
    /// Forgets all graphs, and keeps none from now on where `off`.
    pub(super) fn set_off(&mut self, off: bool) {
        *self = Self { off, warm: self.warm.take(), ..Self::default() };
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
        if let Some(found) = self.kept.iter().position(|kept| kept.bound == *bound) {
            self.kept[found..].rotate_left(1);
            return Way::Launch(&self.kept[self.kept.len() - 1].graph);
        }
        if self.seen.contains(bound) {
            return Way::Warm;
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
        self.kept.push(Kept { bound, graph, _context: context });
    }

    /// Captures nothing any more, and says why.
    pub(super) fn give_up(&mut self, engine: &str, why: &TensorRtError) {
        tracing::warn!(engine, %why, "no CUDA graphs: each pass is enqueued anew");
        self.set_off(true);
    }
}
