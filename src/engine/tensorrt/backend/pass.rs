//! One run: inputs up, the computation, outputs down.

use std::ffi::c_void;

use super::super::error::{TensorRtError, TensorRtErrorKind};
use super::super::safe::Context;
use super::cache::Lease;
use super::graphs::{Bound, Way};
use super::slot::Slot;
use super::stream::Mark;
use super::{Feed, Reach, TensorRtEngine};
use crate::engine::{EngineError, EngineErrorKind as Kind, Tensor, TensorInfo};

impl TensorRtEngine {
    /// The profile that takes these shapes, by input, and reaches least beyond them: kernels were chosen for its sizes.
    fn profile_for(&self, shapes: &[Vec<i64>]) -> Result<usize, EngineError> {
        let takes = |reach: &Reach, shape: &Vec<i64>| {
            let [least, _, most] = reach;
            let within = |((size, least), most): ((&i64, &i64), &i64)| (least..=most).contains(&size);
            shape.len() == least.len() && shape.iter().zip(least).zip(most).all(within)
        };
        let volume = |reaches: &Vec<Reach>| -> i64 {
            reaches.iter().map(|[_, _, most]| most.iter().fold(1, |all: i64, size| all.saturating_mul(*size))).sum()
        };
        let all = self.profiles.iter().enumerate();
        let fit = all.filter(|(_, reaches)| reaches.iter().zip(shapes).all(|(reach, shape)| takes(reach, shape)));
        if let Some((profile, _)) = fit.min_by_key(|(_, reaches)| volume(reaches)) {
            return Ok(profile);
        }
        let nowhere = |index: &usize| !self.profiles.iter().any(|reaches| takes(&reaches[*index], &shapes[*index]));
        let fault = |why: String| EngineError::new(Kind::Input, self.name.as_str(), why);
        let Some(index) = (0..shapes.len()).find(nowhere) else {
            return Err(fault(format!("no profile of the plan takes {shapes:?} together")));
        };
        let reach = |reaches: &Vec<Reach>| format!("from {:?} to {:?}", reaches[index][0], reaches[index][2]);
        let reaches = self.profiles.iter().map(reach).collect::<Vec<_>>().join(", or ");
        Err(fault(format!("is {:?}, the plan reaches {reaches}", shapes[index])).at_tensor(&self.inputs[index].name))
    }

    /// Runs with `feeds` in the order of the inputs and, where the plan updates caches in place, with those in `lease`.
    /// The stream is empty when this returns.
    pub(super) fn go(
        &mut self,
        feeds: &[Feed<'_>],
        lease: Option<&Lease>,
        wanted: &[usize],
    ) -> Result<(), EngineError> {
        let passed = self.choose_profile(feeds).and_then(|()| self.pass(feeds, lease, wanted));
        let warm = match passed {
            Ok(warm) => warm,
            Err(error) => {
                // What was enqueued before the failure still uses the buffers. Where waiting fails too, the device is
                // lost, and the first error says more.
                let _ = self.stream.finish();
                return Err(error);
            }
        };
        self.times = Some(self.stream.times().map_err(|e| self.fault(e))?);
        if let Some((bound, context)) = warm {
            self.capture(bound, context);
        }
        Ok(())
    }

    /// Everything from the first copy to the last; the stream is empty after success. Returns what can be captured.
    fn pass(
        &mut self,
        feeds: &[Feed<'_>],
        lease: Option<&Lease>,
        wanted: &[usize],
    ) -> Result<Option<(Bound, Context)>, EngineError> {
        self.stream.mark(Mark::Start).map_err(|e| self.fault(e))?;
        for (index, shape, tensor) in feeds {
            self.feed(*index, shape, tensor)?;
        }
        let bound = self.bind(feeds, lease)?;
        let computed = self.compute(&bound);
        let warm =
            computed.map_err(|error| self.fault(self.given.iter().find_map(Slot::take_error).unwrap_or(error)))?;
        for &index in wanted {
            if self.in_place.as_ref().is_some_and(|in_place| in_place.gives(index)) {
                continue;
            }
            let slot = &mut self.given[index];
            slot.fetch(&self.stream, &self.device)
                .map_err(|e| EngineError::new(Kind::Run, self.name.as_str(), e).at_tensor(&self.outputs[index].name))?;
        }
        let finish = self.stream.mark(Mark::Fetched).and_then(|()| self.stream.finish());
        finish.map_err(|e| self.fault(e))?;
        Ok(warm.map(|context| (bound, context)))
    }

    /// Sends an input to the device.
    fn feed(&mut self, index: usize, shape: &[i64], tensor: &Tensor<'_>) -> Result<(), EngineError> {
        let (info, slot) = (&self.inputs[index], &mut self.fed[index]);
        let fault = |kind, why: Box<dyn std::error::Error + Send + Sync>| {
            EngineError::new(kind, self.name.as_str(), why).at_tensor(&info.name)
        };
        self.context.set_input_shape(&info.name, shape).map_err(|e| fault(Kind::Input, e.into()))?;
        slot.fit(shape, &self.device).map_err(|e| fault(Kind::Run, e.into()))?;
        slot.fill(tensor.data()).map_err(|why| fault(Kind::Input, why.into()))?;
        slot.send(&self.stream).map_err(|e| fault(Kind::Run, e.into()))
    }

    /// Sets the shapes that are not set yet, finds memory for the outputs, and says where everything is.
    fn bind(&mut self, feeds: &[Feed<'_>], lease: Option<&Lease>) -> Result<Bound, EngineError> {
        let mut inputs = vec![(Vec::new(), 0); self.inputs.len()];
        for (index, shape, _) in feeds {
            inputs[*index] = (shape.clone(), self.fed[*index].address() as usize);
        }
        let caches = self.in_place.as_ref().zip(lease).map(|(in_place, lease)| in_place.places(lease));
        for (input, _, shape, address) in caches.iter().flatten() {
            self.context.set_input_shape(&self.inputs[*input].name, shape).map_err(|e| self.fault(e))?;
            inputs[*input] = (shape.clone(), *address);
        }
        self.context.check_shapes().map_err(|e| EngineError::new(Kind::Input, self.name.as_str(), e))?;
        let mut outputs = vec![0; self.outputs.len()];
        for (index, address) in outputs.iter_mut().enumerate() {
            *address = self.place(index).map_err(|e| self.fault(e).at_tensor(&self.outputs[index].name))?;
        }
        for (_, output, _, address) in caches.into_iter().flatten() {
            outputs[output] = address;
        }
        Ok(Bound { profile: self.profile, inputs, outputs })
    }

    /// Finds memory for an output and says where that is; 0 for those that find their own, and for caches.
    fn place(&mut self, index: usize) -> Result<usize, TensorRtError> {
        let (info, slot) = (&self.outputs[index], &mut self.given[index]);
        if slot.is_late() || self.in_place.as_ref().is_some_and(|in_place| in_place.gives(index)) {
            return Ok(0);
        }
        slot.fit(&self.context.shape(&info.name)?, &self.device)?;
        Ok(slot.address() as usize)
    }

    /// Puts the computation onto the stream: by its graph where there is one. Returns a context that is new and has
    /// just computed it, for its capture.
    fn compute(&mut self, bound: &Bound) -> Result<Option<Context>, TensorRtError> {
        self.stream.mark(Mark::Fed)?;
        // What finds its memory while it is computed cannot be captured.
        let late = self.given.iter().any(Slot::is_late);
        let way = if late { Way::Plain } else { self.graphs.way(bound) };
        let warmed = match way {
            // SAFETY: the memory is that of `bound`, which a slot or a lease holds until the stream was waited for; the
            // graph's context is changed by nobody.
            Way::Launch(graph) => {
                return unsafe { graph.launch() }.and_then(|()| self.stream.mark(Mark::Computed)).map(|()| None);
            }
            Way::Warm => self.warm(bound).map_err(|why| self.graphs.give_up(&self.name, &why)).ok(),
            Way::Plain => None,
        };
        if warmed.is_none() {
            set_addresses(&mut self.context, bound, (&self.inputs, &self.outputs))?;
            // SAFETY: the stream lives, and its CUDA context was made current. Every address leads to memory that a slot
            // or a lease holds, which fits the shapes that are set; `go` waits before anything changes.
            unsafe { self.context.enqueue(self.stream.as_ptr()) }?;
        }
        self.stream.mark(Mark::Computed)?;
        Ok(warmed)
    }

    /// Puts the computation onto the stream from a context of its own.
    fn warm(&self, bound: &Bound) -> Result<Context, TensorRtError> {
        // SAFETY: the memory is as large as the engine says, goes after all contexts, and all that is computed in it
        // goes onto one stream.
        let mut context = unsafe { self.engine.context_in(self.scratch.as_ptr()) }?;
        if bound.profile != 0 {
            // SAFETY: the stream lives, and is that of all work of this context.
            unsafe { context.set_profile(bound.profile, self.stream.as_ptr()) }?;
        }
        for (info, (shape, _)) in self.inputs.iter().zip(&bound.inputs) {
            context.set_input_shape(&info.name, shape)?;
        }
        context.check_shapes()?;
        set_addresses(&mut context, bound, (&self.inputs, &self.outputs))?;
        // SAFETY: the stream lives.
        if !unsafe { context.is_capturable(self.stream.as_ptr()) } {
            let why = "TensorRT says that it cannot be captured";
            return Err(TensorRtError::new(TensorRtErrorKind::Run, "the computation", why));
        }
        // SAFETY: as in `compute`.
        unsafe { context.enqueue(self.stream.as_ptr()) }?;
        Ok(context)
    }

    /// Captures what `context` has computed, while the stream is empty.
    fn capture(&mut self, bound: Bound, mut context: Context) {
        // SAFETY: as in `compute`; nothing is computed before the graph is launched.
        let captured = self.stream.capture(|stream| unsafe { context.enqueue(stream) });
        match captured {
            Ok(graph) => self.graphs.keep(bound, graph, context),
            Err(why) => self.graphs.give_up(&self.name, &why),
        }
    }

    /// Sets the profile for `feeds` beside caches that are updated in place, whose shapes are fixed.
    fn choose_profile(&mut self, feeds: &[Feed<'_>]) -> Result<(), EngineError> {
        let mut given = feeds.iter().map(|(_, shape, _)| shape.clone());
        let shape = |index| {
            let fixed = self.in_place.as_ref().and_then(|in_place| in_place.shape(index));
            fixed.or_else(|| given.next()).unwrap_or_default()
        };
        let shapes: Vec<_> = (0..self.inputs.len()).map(shape).collect();
        let profile = self.profile_for(&shapes)?;
        self.device.bind().map_err(|e| self.fault(e))?;
        if profile != self.profile {
            // SAFETY: the stream lives, and is that of all work of this context.
            unsafe { self.context.set_profile(profile, self.stream.as_ptr()) }.map_err(|e| self.fault(e))?;
            self.profile = profile;
        }
        Ok(())
    }
}

/// Tells `context` where everything is, but for what finds its own memory.
fn set_addresses(
    context: &mut Context,
    bound: &Bound,
    (inputs, outputs): (&[TensorInfo], &[TensorInfo]),
) -> Result<(), TensorRtError> {
    let inputs = inputs.iter().zip(bound.inputs.iter().map(|(_, address)| *address));
    let placed = inputs.chain(outputs.iter().zip(bound.outputs.iter().copied()));
    for (info, address) in placed.filter(|(_, address)| *address != 0) {
        // SAFETY: slots and leases gave memory that fits the shapes of `bound`; it stays until the stream was waited
        // for, and whoever computes after that sets addresses again. That a cache's input and output are one is what
        // its plan asks for.
        unsafe { context.set_address(&info.name, address as *mut c_void) }?;
    }
    Ok(())
}
