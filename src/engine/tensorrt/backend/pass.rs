//! One run: inputs up, the computation, outputs down.

use std::ffi::c_void;

use super::super::error::{TensorRtError, TensorRtErrorKind};
use super::super::safe::Context;
use super::cache::Lease;
use super::cuda::DeviceBuffer;
use super::graphs::{Bound, Way};
use super::held::HeldTensors;
use super::slot::Slot;
use super::stream::{Mark, Ready};
use super::{Feed, Reach, TensorRtEngine};
use crate::engine::{EngineError, EngineErrorKind as Kind, Tensor, TensorInfo};

/// What a run is given, each in the order of the inputs.
#[derive(Default)]
pub(super) struct Given<'r> {
    pub feeds: Vec<Feed<'r>>,
    /// Inputs that are on the device already, and when they are there.
    pub held: Vec<(usize, Vec<i64>, &'r DeviceBuffer)>,
    pub ready: Option<&'r Ready>,
    /// Where the plan updates caches in place.
    pub lease: Option<&'r Lease>,
}

/// What can be captured of a run, and what is held of it.
type Passed = (Option<Bound>, Option<HeldTensors>);

/// What a run is to bring.
#[derive(Clone, Copy)]
pub(super) enum Wanted<'w> {
    /// Outputs to the host.
    Fetched(&'w [usize]),
    /// Outputs that stay on the device.
    Held(&'w [usize]),
}

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

    /// One run; what it holds, where that is wanted. The stream is empty when this returns.
    pub(super) fn go(&mut self, given: &Given<'_>, wanted: Wanted<'_>) -> Result<Option<HeldTensors>, EngineError> {
        let passed = self.choose_profile(given).and_then(|()| self.pass(given, wanted));
        let (bound, held) = match passed {
            Ok(passed) => passed,
            Err(error) => {
                // What was enqueued before the failure still uses the buffers. Where waiting fails too, the device is
                // lost, and the first error says more.
                let _ = self.stream.finish();
                self.graphs.take_warm();
                return Err(error);
            }
        };
        let warm = self.graphs.take_warm();
        self.times = Some(self.stream.times().map_err(|e| self.fault(e))?);
        if let Some((bound, context)) = bound.zip(warm) {
            self.capture(bound, context);
        }
        Ok(held)
    }

    /// Everything from the first copy to the last; the stream is empty after success. Returns what can be captured,
    /// and what is held.
    fn pass(&mut self, given: &Given<'_>, wanted: Wanted<'_>) -> Result<Passed, EngineError> {
        self.stream.mark(Mark::Start).map_err(|e| self.fault(e))?;
        for (index, shape, tensor) in &given.feeds {
            self.feed(*index, shape, tensor)?;
        }
        self.take(given)?;
        let bound = self.bind(given, matches!(wanted, Wanted::Held(_)))?;
        let computed = self.compute(&bound);
        let warmed =
            computed.map_err(|error| self.fault(self.given.iter().find_map(Slot::take_error).unwrap_or(error)))?;
        let held = match wanted {
            Wanted::Fetched(wanted) => self.fetch_outputs(wanted).map(|()| None)?,
            Wanted::Held(wanted) => Some(self.hold(wanted).map_err(|e| self.fault(e))?),
        };
        let finish = self.stream.mark(Mark::Fetched).and_then(|()| self.stream.finish());
        finish.map_err(|e| self.fault(e))?;
        Ok((warmed.then_some(bound), held))
    }

    /// Puts the outputs on their way to the host, but for caches.
    fn fetch_outputs(&mut self, wanted: &[usize]) -> Result<(), EngineError> {
        for &index in wanted {
            if self.in_place.as_ref().is_some_and(|in_place| in_place.gives(index)) {
                continue;
            }
            let slot = &mut self.given[index];
            slot.fetch(&self.stream, &self.device)
                .map_err(|e| EngineError::new(Kind::Run, self.name.as_str(), e).at_tensor(&self.outputs[index].name))?;
        }
        Ok(())
    }

    /// Puts copies of outputs onto the stream that stay on the device.
    fn hold(&mut self, wanted: &[usize]) -> Result<HeldTensors, TensorRtError> {
        let mut outputs = Vec::with_capacity(wanted.len());
        for &index in wanted {
            let (info, slot) = (&self.outputs[index], &self.given[index]);
            let shape = slot.shape().iter().map(|size| usize::try_from(*size).ok()).collect();
            if let Some((element, bytes, buffer)) = slot.on_device()? {
                outputs.push((TensorInfo { shape, ..info.clone() }, element, bytes, buffer));
            }
        }
        self.pool.hold(&self.name, &outputs, (&self.stream, &self.device))
    }

    /// Takes inputs that are on the device already, once they are there.
    fn take(&mut self, given: &Given<'_>) -> Result<(), EngineError> {
        let ready = given.ready.map_or(Ok(()), |ready| self.stream.wait_for(ready));
        ready.map_err(|e| self.fault(e))?;
        for (index, shape, from) in &given.held {
            let info = &self.inputs[*index];
            let fault = |kind, e| EngineError::new(kind, self.name.as_str(), e).at_tensor(&info.name);
            self.context.set_input_shape(&info.name, shape).map_err(|e| fault(Kind::Input, e))?;
            let taken = self.fed[*index].take(shape, from, (&self.stream, &self.device));
            taken.map_err(|e| fault(Kind::Run, e))?;
        }
        Ok(())
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

    /// Sets the shapes that are not set yet, finds memory for the outputs, and says where everything is. `stays`: outputs
    /// do not go to the host.
    fn bind(&mut self, given: &Given<'_>, stays: bool) -> Result<Bound, EngineError> {
        let mut inputs = vec![(Vec::new(), 0); self.inputs.len()];
        for (index, shape) in given.shapes() {
            inputs[index] = (shape.clone(), self.fed[index].address() as usize);
        }
        let caches = self.in_place.as_ref().zip(given.lease).map(|(in_place, lease)| in_place.places(lease));
        for (input, _, shape, address) in caches.iter().flatten() {
            self.context.set_input_shape(&self.inputs[*input].name, shape).map_err(|e| self.fault(e))?;
            inputs[*input] = (shape.clone(), *address);
        }
        self.context.check_shapes().map_err(|e| EngineError::new(Kind::Input, self.name.as_str(), e))?;
        let mut outputs = vec![0; self.outputs.len()];
        for (index, address) in outputs.iter_mut().enumerate() {
            *address = self.place(index, stays).map_err(|e| self.fault(e).at_tensor(&self.outputs[index].name))?;
        }
        for (_, output, _, address) in caches.into_iter().flatten() {
            outputs[output] = address;
        }
        Ok(Bound { profile: self.profile, inputs, outputs })
    }

    /// Finds memory for an output and says where that is; 0 for those that find their own, and for caches.
    fn place(&mut self, index: usize, stays: bool) -> Result<usize, TensorRtError> {
        let (info, slot) = (&self.outputs[index], &mut self.given[index]);
        if slot.is_late() || self.in_place.as_ref().is_some_and(|in_place| in_place.gives(index)) {
            return Ok(0);
        }
        let shape = self.context.shape(&info.name)?;
        match stays {
            true => slot.fit_on_device(&shape, &self.device)?,
            false => slot.fit(&shape, &self.device)?,
        }
        Ok(slot.address() as usize)
    }

    /// Puts the computation onto the stream: by its graph where there is one. Whether a context of its own computes it,
    /// from which it can be captured after that.
    fn compute(&mut self, bound: &Bound) -> Result<bool, TensorRtError> {
        self.stream.mark(Mark::Fed)?;
        // What finds its memory while it is computed cannot be captured.
        let late = self.given.iter().any(Slot::is_late);
        let way = if late { Way::Plain } else { self.graphs.way(bound) };
        let (launched, again) = match way {
            // SAFETY: the memory is that of `bound`, which a slot or a lease holds until the stream was waited for; the
            // graph's context is changed by nobody.
            Way::Launch(graph) => unsafe { graph.launch() }.map(|()| (true, false))?,
            Way::Warm => (false, true),
            Way::Plain => (false, false),
        };
        let warmed = again && self.warm(bound).map_err(|why| self.graphs.refuse(&self.name, &why)).is_ok();
        if !launched && !warmed {
            set_addresses(&mut self.context, bound, (&self.inputs, &self.outputs))?;
            // SAFETY: the stream lives, and its CUDA context was made current. Every address leads to memory that a slot
            // or a lease holds, which fits the shapes that are set; `go` waits before anything changes.
            unsafe { self.context.enqueue(self.stream.as_ptr()) }?;
        }
        self.stream.mark(Mark::Computed)?;
        Ok(warmed)
    }

    /// Puts the computation onto the stream from a context of its own.
    fn warm(&mut self, bound: &Bound) -> Result<(), TensorRtError> {
        // SAFETY: the memory is as large as the engine says, goes after all contexts, and all that is computed in it
        // goes onto one stream.
        let context = unsafe { self.engine.context_in(self.scratch.as_ptr()) }?;
        let context = self.graphs.warm_up(context);
        if bound.profile != 0 {
            // SAFETY: the stream lives, and is that of all work of this context.
            unsafe { context.set_profile(bound.profile, self.stream.as_ptr()) }?;
        }
        for (info, (shape, _)) in self.inputs.iter().zip(&bound.inputs) {
            context.set_input_shape(&info.name, shape)?;
        }
        context.check_shapes()?;
        set_addresses(context, bound, (&self.inputs, &self.outputs))?;
        // SAFETY: the stream lives.
        if !unsafe { context.is_capturable(self.stream.as_ptr()) } {
            let why = "TensorRT says that it cannot be captured";
            return Err(TensorRtError::new(TensorRtErrorKind::Run, "the computation", why));
        }
        // SAFETY: as in `compute`.
        unsafe { context.enqueue(self.stream.as_ptr()) }
    }

    /// Captures what `context` has computed, while the stream is empty.
    fn capture(&mut self, bound: Bound, mut context: Context) {
        // SAFETY: as in `compute`; nothing is computed before the graph is launched.
        let captured = self.stream.capture(|stream| unsafe { context.enqueue(stream) });
        match captured {
            Ok(graph) => self.graphs.keep(bound, graph, context),
            Err(why) => self.graphs.refuse(&self.name, &why),
        }
    }

    /// Sets the profile for what is given beside caches that are updated in place, whose shapes are fixed.
    fn choose_profile(&mut self, given: &Given<'_>) -> Result<(), EngineError> {
        let shape = |index| {
            let fixed = self.in_place.as_ref().and_then(|in_place| in_place.shape(index));
            let found = || given.shapes().find(|(given, _)| *given == index).map(|(_, shape)| shape.clone());
            fixed.or_else(found).unwrap_or_default()
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

impl Given<'_> {
    /// The shape of each input that is given, by index.
    fn shapes(&self) -> impl Iterator<Item = (usize, &Vec<i64>)> {
        let feeds = self.feeds.iter().map(|(index, shape, _)| (*index, shape));
        feeds.chain(self.held.iter().map(|(index, shape, _)| (*index, shape)))
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
