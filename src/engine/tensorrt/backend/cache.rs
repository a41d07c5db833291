//! Caches that a plan updates in place, and the conversations that share them.
//!
//! The memory of a cache has room for `capacity` positions; a conversation is the first few of them. What continues a
//! conversation writes behind it, into the same memory where no other conversation that lives reaches further, and
//! into a copy otherwise. So a frame's prefix and the answers behind it, one after the other, have one memory.

use std::any::Any;
use std::ffi::c_void;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::error::TensorRtError;
use super::cuda::{Device, DeviceBuffer, Rows, Side};
use super::element::Element;
use super::stream::Stream;
use crate::engine::{EngineError, EngineErrorKind as Kind, Resident};

/// One input that is updated in place, and the output that has its memory: `[1, heads, capacity, width]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    /// The input, among the engine's.
    pub input: usize,
    /// The output, among the engine's.
    pub output: usize,
    /// Type of its elements.
    pub element: Element,
    /// How many heads there are.
    pub heads: usize,
    /// Bytes of one position of a head.
    pub row: usize,
}

/// All of an engine's.
#[derive(Debug)]
pub(super) struct Pairs {
    /// Name of the engine, for errors.
    pub engine: String,
    /// In the order of the inputs.
    pub pairs: Vec<Pair>,
    /// Positions that there is room for.
    pub capacity: usize,
    /// What all work goes onto.
    pub stream: Arc<Stream>,
    pub device: Device,
}

impl Pairs {
    /// From one head of a cache to the next, in bytes.
    pub(super) fn pitch(&self, pair: &Pair) -> usize {
        self.capacity * pair.row
    }

    fn new_memory(&self) -> Result<Memory, TensorRtError> {
        let make = |pair: &Pair| DeviceBuffer::new(&self.device, (pair.heads * self.pitch(pair)).max(1));
        let buffers = self.pairs.iter().map(make).collect::<Result<Vec<_>, _>>()?;
        // Passes may look at what is not written yet, with a weight of zero: times NaN that would count.
        // SAFETY: the buffers outlive the wait below.
        let cleared = buffers.iter().try_for_each(|buffer| unsafe { self.stream.clear(buffer) });
        let finished = self.stream.finish();
        cleared.and(finished)?;
        Ok(Memory { buffers, lengths: Mutex::default() })
    }
}

/// One memory for each pair, and how far the conversations that live in them reach.
#[derive(Debug)]
struct Memory {
    buffers: Vec<DeviceBuffer>,
    lengths: Mutex<Vec<usize>>,
}

impl Memory {
    fn lengths(&self) -> MutexGuard<'_, Vec<usize>> {
        self.lengths.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A conversation's share of a memory: nobody else writes to its first `tokens` positions.
#[derive(Debug)]
pub(super) struct Lease {
    memory: Arc<Memory>,
    tokens: usize,
}

impl Lease {
    fn new(memory: Arc<Memory>, tokens: usize) -> Self {
        memory.lengths().push(tokens);
        Self { memory, tokens }
    }

    /// The same memory up to `tokens`, where nobody but this reaches beyond `base`.
    fn extend(&self, base: usize, tokens: usize) -> Option<Self> {
        let mut lengths = self.memory.lengths();
        // This conversation's own length is one of them, and does not count.
        let own = lengths.iter().position(|length| *length == self.tokens)?;
        let free = lengths.iter().enumerate().all(|(i, length)| i == own || *length <= base);
        free.then(|| {
            lengths.push(tokens);
            Self { memory: Arc::clone(&self.memory), tokens }
        })
    }

    fn set(&mut self, tokens: usize) {
        let mut lengths = self.memory.lengths();
        if let Some(own) = lengths.iter_mut().find(|length| **length == self.tokens) {
            *own = tokens;
        }
        self.tokens = tokens;
    }

    /// Where the cache of a pair is on the device.
    pub(super) fn address(&self, pair: usize) -> *mut c_void {
        self.memory.buffers[pair].as_ptr()
    }

    /// The memory of a pair.
    pub(super) fn buffer(&self, pair: usize) -> &DeviceBuffer {
        &self.memory.buffers[pair]
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut lengths = self.memory.lengths();
        if let Some(own) = lengths.iter().position(|length| *length == self.tokens) {
            lengths.swap_remove(own);
        }
    }
}

/// Memories that were made; those that no conversation has any more are used again.
#[derive(Debug, Default)]
pub(super) struct Pool(Vec<Arc<Memory>>);

impl Pool {
    /// Memory for a conversation of `tokens`, with nothing in it.
    pub(super) fn lease(&mut self, pairs: &Pairs, tokens: usize) -> Result<Lease, TensorRtError> {
        let memory = match self.0.iter().find(|memory| Arc::strong_count(memory) == 1) {
            Some(free) => Arc::clone(free),
            None => {
                self.0.push(Arc::new(pairs.new_memory()?));
                Arc::clone(&self.0[self.0.len() - 1])
            }
        };
        Ok(Lease::new(memory, tokens))
    }

    /// Memory for `cache` and more, up to `tokens`: its own where that is free behind it, otherwise a copy.
    pub(super) fn continue_lease(
        &mut self,
        pairs: &Pairs,
        cache: &DeviceCache,
        tokens: usize,
    ) -> Result<Lease, TensorRtError> {
        let Some(held) = &cache.lease else { return self.lease(pairs, tokens) };
        if let Some(lease) = held.extend(held.tokens, tokens) {
            return Ok(lease);
        }
        let lease = self.lease(pairs, tokens)?;
        copy(pairs, held, &lease, held.tokens)?;
        Ok(lease)
    }
}

/// Copies the first `tokens` positions.
fn copy(pairs: &Pairs, from: &Lease, to: &Lease, tokens: usize) -> Result<(), TensorRtError> {
    pairs.device.bind()?;
    let enqueued = pairs.pairs.iter().enumerate().try_for_each(|(i, pair)| {
        let rows = Rows { start: 0, pitch: pairs.pitch(pair) };
        let (from, to) = (Side::Device(from.buffer(i)), Side::Device(to.buffer(i)));
        // SAFETY: both leases outlive the wait below; the memories are two.
        unsafe { pairs.stream.copy_rows((from, rows), (to, rows), [tokens * pair.row, pair.heads]) }
    });
    let finished = pairs.stream.finish();
    enqueued.and(finished)
}

/// A conversation in an engine's memory; without any before its first token.
pub(super) struct DeviceCache {
    pub pairs: Arc<Pairs>,
    pub lease: Option<Lease>,
}

impl fmt::Debug for DeviceCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tokens of {} on the GPU", self.tokens(), self.pairs.capacity)
    }
}

impl DeviceCache {
    /// Moves the tokens numbered `kept` behind the first `base` ones together. The caller alone reaches beyond `base`.
    fn gather(&self, lease: &Lease, base: usize, kept: &[usize]) -> Result<(), TensorRtError> {
        let pairs = &*self.pairs;
        pairs.device.bind()?;
        let enqueued = pairs.pairs.iter().enumerate().try_for_each(|(i, pair)| {
            let pitch = pairs.pitch(pair);
            kept.iter().enumerate().filter(|(to, from)| to != *from).try_for_each(|(to, from)| {
                let [from, to] = [from, &to].map(|at| Rows { start: (base + at) * pair.row, pitch });
                let side = Side::Device(lease.buffer(i));
                // SAFETY: the lease outlives the wait below; one position and another do not overlap. Every position
                // moves towards the front, in order, so none is overwritten before it has moved.
                unsafe { pairs.stream.copy_rows((side, from), (side, to), [pair.row, pair.heads]) }
            })
        });
        let finished = pairs.stream.finish();
        enqueued.and(finished)
    }
}

impl Resident for DeviceCache {
    fn tokens(&self) -> usize {
        self.lease.as_ref().map_or(0, |lease| lease.tokens)
    }

    fn truncate(&mut self, tokens: usize) {
        if let Some(lease) = self.lease.as_mut().filter(|lease| tokens < lease.tokens) {
            lease.set(tokens);
        }
    }

    fn keep(&mut self, base: usize, kept: &[usize]) -> Result<(), EngineError> {
        let tokens = base + kept.len();
        let Some(lease) = self.lease.as_ref().filter(|lease| tokens < lease.tokens) else { return Ok(()) };
        let fault = |error| EngineError::new(Kind::Run, self.pairs.engine.as_str(), error);
        if let Some(last) = kept.last().filter(|last| base + **last >= lease.tokens) {
            let why = format!("token {last} behind {base} is not among {}", lease.tokens);
            return Err(EngineError::new(Kind::Input, self.pairs.engine.as_str(), why));
        }
        // Another conversation that reaches beyond `base` would see its tokens move.
        let moved = match lease.extend(base, lease.tokens) {
            Some(own) => own,
            None => {
                let memory = Arc::new(self.pairs.new_memory().map_err(fault)?);
                let own = Lease::new(memory, lease.tokens);
                copy(&self.pairs, lease, &own, lease.tokens).map_err(fault)?;
                own
            }
        };
        self.gather(&moved, base, kept).map_err(fault)?;
        self.lease = Some(moved);
        self.truncate(tokens);
        Ok(())
    }

    fn share(&self) -> Box<dyn Resident> {
        let share = |lease: &Lease| Lease::new(Arc::clone(&lease.memory), lease.tokens);
        Box::new(Self { pairs: Arc::clone(&self.pairs), lease: self.lease.as_ref().map(share) })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
