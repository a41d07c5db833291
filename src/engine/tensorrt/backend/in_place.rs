//! Which inputs and outputs of a plan are one cache, and how a cache of the host's gets into it and out again.
//!
//! The graphs' contract (`families`): `past_*` are updated from position `write_indices` on and become `present_*`; the
//! last dimension of `attention_bias` is the length of the conversation after the pass.

use std::sync::Arc;

use super::super::error::TensorRtError;
use super::super::safe::{self, Port};
use super::cache::{DeviceCache, Lease, Pair, Pairs, Pool};
use super::cuda::{Device, HostBuffer, Rows, Side};
use super::slot::Growing;
use super::stream::Stream;
use super::{Feed, element};
use crate::engine::{Data, EngineError, EngineErrorKind as Kind, Resident, Tensor, TensorInfo};

/// The input that says where a pass writes; no caller gives it.
const START: &str = "write_indices";
/// The input that tells how long the conversation is after the pass.
const BIAS: &str = "attention_bias";

/// Passes of up to so many tokens look at a multiple of so many positions.
const SHORT: usize = 32;
const STEP: usize = 64;
/// Added to the score of a position that must not be looked at: 16-bit floats hold it, and it leaves no weight.
const NEVER: f32 = -3.0e4;

/// Moves the input that no caller gives behind all others.
pub(super) fn hide(inputs: &mut Vec<Port>) {
    if let Some(index) = inputs.iter().position(|port| port.name == START) {
        let port = inputs.remove(index);
        inputs.push(port);
    }
}

/// How a pass changes a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reach {
    /// Tokens before it.
    pub past: usize,
    /// Tokens after it.
    pub total: usize,
}

/// The caches of one plan.
pub(super) struct InPlace {
    pairs: Arc<Pairs>,
    /// Indices of the two inputs that the caches depend on.
    start: usize,
    bias: usize,
    pool: Pool,
    /// What caches of the host's pass through.
    staging: Vec<Growing<HostBuffer>>,
}

impl InPlace {
    /// Finds the caches among the inputs and outputs of `engine`; `None` where it has none.
    ///
    /// # Errors
    /// [`EngineErrorKind::Load`](Kind::Load) where they are not as the graphs' contract has them.
    pub(super) fn find(
        engine: &safe::Engine,
        (fed, given): (&[Port], &[Port]),
        (name, device, stream): (&str, &Device, &Arc<Stream>),
    ) -> Result<Option<Self>, EngineError> {
        let refuse = |tensor: &str, why: &str| EngineError::new(Kind::Load, name, why.to_owned()).at_tensor(tensor);
        let position = |wanted: &str| fed.iter().position(|port| port.name == wanted);
        let (mut pairs, mut capacity) = (Vec::new(), None);
        for (output, port) in given.iter().enumerate() {
            let Some(input) = engine.alias(&port.name) else { continue };
            let input = position(&input).ok_or_else(|| refuse(&port.name, "is an input that there is not"))?;
            let sizes: Vec<_> = port.dims.iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect();
            let &[1, heads, room, width] = &sizes[..] else {
                return Err(refuse(&port.name, "is updated in place, and not of shape [1, heads, capacity, width]"));
            };
            let fits = fed[input].dims == port.dims && *capacity.get_or_insert(room) == room;
            if !fits || room == 0 || heads == 0 || width == 0 {
                return Err(refuse(&port.name, "is updated in place, and not of one shape with the others"));
            }
            let element = element(port, name)?;
            pairs.push(Pair { input, output, element, heads, row: width * element.size() });
        }
        let Some(capacity) = capacity else { return Ok(None) };
        pairs.sort_by_key(|pair| pair.input);
        let bias = position(BIAS).ok_or_else(|| refuse(BIAS, "is missing beside caches that are updated in place"))?;
        let start =
            position(START).ok_or_else(|| refuse(START, "is missing beside caches that are updated in place"))?;
        let staging = pairs.iter().map(|_| Growing::default()).collect();
        let (stream, device) = (Arc::clone(stream), device.clone());
        let pairs = Arc::new(Pairs { engine: name.to_owned(), pairs, capacity, stream, device });
        Ok(Some(Self { pairs, start, bias, pool: Pool::default(), staging }))
    }

    /// Shows the caches as long as conversations are, not as long as they may be.
    pub(super) fn show(&self, inputs: &mut [TensorInfo], outputs: &mut [TensorInfo]) {
        for pair in &self.pairs.pairs {
            inputs[pair.input].shape[2] = None;
            outputs[pair.output].shape[2] = None;
        }
    }

    pub(super) fn pairs(&self) -> &Arc<Pairs> {
        &self.pairs
    }

    /// Whether an input is a cache.
    pub(super) fn takes(&self, input: usize) -> bool {
        self.pairs.pairs.iter().any(|pair| pair.input == input)
    }

    /// Whether an output is a cache.
    pub(super) fn gives(&self, output: usize) -> bool {
        self.pairs.pairs.iter().any(|pair| pair.output == output)
    }

    /// Whether `cache` was made by this engine.
    pub(super) fn owns(&self, cache: &DeviceCache) -> bool {
        Arc::ptr_eq(&self.pairs, &cache.pairs)
    }

    /// The shape of a cache in the plan; `None` for other inputs.
    pub(super) fn shape(&self, input: usize) -> Option<Vec<i64>> {
        let pair = self.pairs.pairs.iter().find(|pair| pair.input == input)?;
        let sizes = [1, pair.heads, self.pairs.capacity, pair.row / pair.element.size()];
        Some(sizes.map(|size| i64::try_from(size).unwrap_or(i64::MAX)).to_vec())
    }

    /// What a pass does behind the caches in `given`, all of one length.
    pub(super) fn reach(&self, feeds: &[Feed<'_>], given: &[Feed<'_>]) -> Result<Reach, EngineError> {
        let fault = |tensor: String| EngineError::new(Kind::Input, self.pairs.engine.as_str(), tensor);
        let mut past = None;
        for ((_, shape, _), pair) in given.iter().zip(&self.pairs.pairs) {
            let tokens = shape.get(2).and_then(|tokens| usize::try_from(*tokens).ok()).unwrap_or(0);
            let mut wanted = self.shape(pair.input).unwrap_or_default();
            if let Some(size) = wanted.get_mut(2) {
                *size = i64::try_from(tokens).unwrap_or(i64::MAX);
            }
            if *shape != wanted || *past.get_or_insert(tokens) != tokens {
                return Err(fault(format!("a cache is {shape:?}, and not as long as the others or not {wanted:?}")));
            }
        }
        self.reach_behind(feeds, past.unwrap_or(0))
    }

    /// What a pass does behind `past` tokens.
    pub(super) fn reach_behind(&self, feeds: &[Feed<'_>], past: usize) -> Result<Reach, EngineError> {
        let bias = feeds.iter().find(|(index, ..)| *index == self.bias);
        let total = bias.and_then(|(_, shape, _)| usize::try_from(*shape.last()?).ok()).unwrap_or(0);
        if (past..=self.pairs.capacity).contains(&total) {
            return Ok(Reach { past, total });
        }
        let room = self.pairs.capacity;
        let why =
            format!("{total} positions are not within the {past} before and the {room} that the plan has room for");
        Err(EngineError::new(Kind::Input, self.pairs.engine.as_str(), why).at_tensor(BIAS))
    }

    /// Has a short pass look at more positions than there are, up to a round number of them: so that what answers one
    /// token after the other has one shape for many tokens. What lies behind the conversation counts for nothing.
    pub(super) fn even_out(&self, feeds: &mut [Feed<'_>], reach: Reach) {
        let total = reach.total.next_multiple_of(STEP).min(self.pairs.capacity);
        let new = reach.total - reach.past;
        let bias = feeds.iter_mut().find(|(index, ..)| *index == self.bias);
        let Some((_, shape, tensor)) = bias.filter(|_| new <= SHORT && total > reach.total) else { return };
        let (Some(values), Some(last)) = (tensor.as_f32(), shape.last_mut()) else { return };
        let behind = vec![NEVER; total - reach.total];
        let rows = values.chunks_exact(reach.total.max(1)).flat_map(|row| row.iter().chain(&behind).copied());
        let (rows, mut sizes) = (rows.collect::<Vec<_>>(), tensor.shape().to_vec());
        *last = i64::try_from(total).unwrap_or(i64::MAX);
        if let Some(last) = sizes.last_mut() {
            *last = total;
        }
        *tensor = Tensor::f32(&sizes, rows);
    }

    /// The input that no caller gives.
    pub(super) fn start(&self, reach: Reach) -> Feed<'static> {
        let start = i32::try_from(reach.past).unwrap_or(i32::MAX);
        (self.start, vec![1], Tensor::i32(&[1], vec![start]))
    }

    /// Memory for what comes behind `cache`.
    pub(super) fn continue_lease(&mut self, cache: &DeviceCache, reach: Reach) -> Result<Lease, EngineError> {
        let lease = self.pool.continue_lease(&self.pairs, cache, reach.total);
        lease.map_err(|error| self.fault(error))
    }

    /// Of each cache its input and output, its shape, and where it is.
    pub(super) fn places(&self, lease: &Lease) -> Vec<(usize, usize, Vec<i64>, usize)> {
        let place = |(i, pair): (usize, &Pair)| {
            let shape = self.shape(pair.input).unwrap_or_default();
            (pair.input, pair.output, shape, lease.address(i) as usize)
        };
        self.pairs.pairs.iter().enumerate().map(place).collect()
    }

    /// Memory with the caches in `given`, which are on their way there when this returns.
    pub(super) fn upload(&mut self, given: &[Feed<'_>], reach: Reach) -> Result<Lease, EngineError> {
        let lease = self.pairs.device.bind().and_then(|()| self.pool.lease(&self.pairs, reach.total));
        let lease = lease.map_err(|error| self.fault(error))?;
        for (i, (_, _, tensor)) in given.iter().enumerate() {
            if let Err(error) = self.upload_one(i, tensor.data(), (&lease, reach.past)) {
                // What was enqueued before still reads the staging and writes the memory.
                let _ = self.pairs.stream.finish();
                return Err(error);
            }
        }
        Ok(lease)
    }

    fn upload_one(&mut self, i: usize, data: &Data<'_>, (lease, past): (&Lease, usize)) -> Result<(), EngineError> {
        let pairs = Arc::clone(&self.pairs);
        let (pair, engine) = (&pairs.pairs[i], pairs.engine.as_str());
        let bytes = past * pair.row;
        let host = self.staging[i].fit(bytes * pair.heads, &pairs.device);
        let host = host.map_err(|error| EngineError::new(Kind::Run, engine, error))?;
        // SAFETY: the stream was waited for since the last copy.
        let staged = unsafe { host.bytes_mut() };
        pair.element.write(data, staged).map_err(|why| EngineError::new(Kind::Input, engine, why))?;
        let (from, to) = (Rows { start: 0, pitch: bytes }, Rows { start: 0, pitch: pairs.pitch(pair) });
        let sides = (Side::Host(host), Side::Device(lease.buffer(i)));
        // SAFETY: the staging is not touched, and the lease held, until the stream is waited for.
        let sent = unsafe { pairs.stream.copy_rows((sides.0, from), (sides.1, to), [bytes, pair.heads]) };
        sent.map_err(|error| EngineError::new(Kind::Run, engine, error))
    }

    /// The caches among `wanted`, in that order, as long as the conversation is after the pass.
    pub(super) fn download(
        &mut self,
        lease: &Lease,
        reach: Reach,
        wanted: &[usize],
    ) -> Result<Vec<Tensor<'static>>, EngineError> {
        let pairs = Arc::clone(&self.pairs);
        let find = |output: &usize| pairs.pairs.iter().position(|pair| pair.output == *output);
        let chosen: Vec<usize> = wanted.iter().filter_map(find).collect();
        let mut fetch = || {
            pairs.device.bind()?;
            for &i in &chosen {
                let pair = &pairs.pairs[i];
                let bytes = reach.total * pair.row;
                let host = self.staging[i].fit(bytes * pair.heads, &pairs.device)?;
                let (from, to) = (Rows { start: 0, pitch: pairs.pitch(pair) }, Rows { start: 0, pitch: bytes });
                let sides = (Side::Device(lease.buffer(i)), Side::Host(host));
                // SAFETY: the staging is not touched, and the lease held, until the stream is waited for below.
                unsafe { pairs.stream.copy_rows((sides.0, from), (sides.1, to), [bytes, pair.heads]) }?;
            }
            Ok(())
        };
        let fetched = fetch();
        let finished = pairs.stream.finish();
        fetched.and(finished).map_err(|error| self.fault(error))?;
        chosen.into_iter().map(|i| self.read(i, reach.total)).collect()
    }

    /// All of what `cache` holds.
    pub(super) fn fetch(&mut self, cache: &DeviceCache) -> Result<Vec<Tensor<'static>>, EngineError> {
        let Some(lease) = &cache.lease else { return Ok(Vec::new()) };
        let wanted: Vec<_> = self.pairs.pairs.iter().map(|pair| pair.output).collect();
        let tokens = cache.tokens();
        self.download(lease, Reach { past: tokens, total: tokens }, &wanted)
    }

    fn read(&self, i: usize, tokens: usize) -> Result<Tensor<'static>, EngineError> {
        let pair = &self.pairs.pairs[i];
        let fault = |why: String| EngineError::new(Kind::Run, self.pairs.engine.as_str(), why);
        let bytes = tokens * pair.row * pair.heads;
        // SAFETY: the stream was waited for.
        let from = self.staging[i].held().map_or(&[][..], |host| unsafe { host.bytes() });
        let from = from.get(..bytes).ok_or_else(|| fault("was not fetched".into()))?;
        let shape = [1, pair.heads, tokens, pair.row / pair.element.size()];
        Ok(Tensor::of(&shape, pair.element.read(from).map_err(fault)?))
    }

    fn fault(&self, error: TensorRtError) -> EngineError {
        EngineError::new(Kind::Run, self.pairs.engine.as_str(), error)
    }
}
