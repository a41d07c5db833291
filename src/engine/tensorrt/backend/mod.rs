//! The GPU backend: a plan behind the [`Engine`] trait.
//!
//! Tensors come from the host and go back to it: each has a pinned and a device buffer, which are kept between runs and
//! grow when they must. All work of an engine goes onto a stream of its own, and no run returns, with an error neither,
//! before that stream is empty; so nothing that is dropped or written between runs is in use on the GPU.
//!
//! A plan that updates its cache in place is a decoder like any other from outside: it takes and gives a cache as long
//! as the conversation, and in between has room for the longest. It can also keep the cache on the device.

mod cache;
mod cuda;
mod element;
mod in_place;
mod slot;

pub use cuda::{Device, Gpu, RunTimes};

use std::sync::Arc;

use cache::{DeviceCache, Lease};
use cuda::{Mark, Stream};
pub(crate) use element::Element;
use in_place::InPlace;
use slot::Slot;

use super::error::{TensorRtError, TensorRtErrorKind};
use super::plan::Plan;
use super::safe::{self, Context, Library, Port, Runtime};
use crate::engine::{Engine, EngineError, EngineErrorKind as Kind, Resident, Tensor, TensorInfo};

/// Smallest, usual and largest shape of an input in one profile.
type Reach = [Vec<i64>; 3];

/// A plan on a GPU.
pub struct TensorRtEngine {
    name: String,
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
    /// By profile, then by input.
    profiles: Vec<Vec<Reach>>,
    /// The one that the context is set to.
    profile: usize,
    times: Option<RunTimes>,
    // In the order in which they must go: the context before the memory that it has addresses of.
    context: Context,
    fed: Vec<Slot>,
    given: Vec<Slot>,
    in_place: Option<InPlace>,
    stream: Arc<Stream>,
    device: Device,
}

/// An input that is to be sent to the device: its index, shape and elements.
type Feed<'t> = (usize, Vec<i64>, Tensor<'t>);

impl TensorRtEngine {
    /// Loads `plan`, which was found to be one for `library` and for `device`, as an engine called `name`.
    ///
    /// # Errors
    /// [`EngineErrorKind::Load`](Kind::Load) for a plan that cannot be read or that TensorRT refuses, for tensors of
    /// types that no graph of ours has, and where the device has no memory for it.
    pub fn load(name: &str, library: Library, device: &Device, plan: &Plan) -> Result<Self, EngineError> {
        let refuse = |error| EngineError::new(Kind::Load, name, error);
        device.bind().map_err(refuse)?;
        let engine = Runtime::new(library).and_then(|mut runtime| runtime.load(plan)).map_err(refuse)?;
        let (ports, context) = (engine.ports(), engine.context().map_err(refuse)?);
        let (mut fed, given): (Vec<Port>, Vec<Port>) = ports.into_iter().partition(|port| port.is_input);
        in_place::hide(&mut fed);
        let stream = Arc::new(Stream::new(device).map_err(refuse)?);
        let in_place = InPlace::find(&engine, (&fed, &given), (name, device, &stream))?;
        let profiles = (0..engine.profiles()).map(|profile| reaches(&engine, &fed, profile));
        let profiles = profiles.collect::<Option<Vec<_>>>().ok_or_else(|| {
            refuse(TensorRtError::new(TensorRtErrorKind::Plan, "the plan", "an input has no reach in a profile"))
        })?;
        let mut loaded = Self {
            name: name.to_owned(),
            inputs: infos(&fed, name)?,
            outputs: infos(&given, name)?,
            profiles,
            profile: 0,
            times: None,
            context,
            fed: slots(&fed, name)?,
            given: slots(&given, name)?,
            in_place,
            stream,
            device: device.clone(),
        };
        if let Some(in_place) = &loaded.in_place {
            in_place.show(&mut loaded.inputs, &mut loaded.outputs);
        }
        loaded.find_late_outputs().map_err(refuse)?;
        Ok(loaded)
    }

    /// What a cache of this engine's holds: its tensors in the order of the inputs, as long as the conversation.
    ///
    /// # Errors
    /// [`EngineErrorKind::Input`](Kind::Input) for another engine's, [`EngineErrorKind::Run`](Kind::Run) where the copy
    /// fails.
    pub fn fetch(&mut self, cache: &dyn Resident) -> Result<Vec<Tensor<'static>>, EngineError> {
        let own = self.in_place.as_mut().zip(cache.as_any().downcast_ref::<DeviceCache>());
        match own.filter(|(in_place, cache)| in_place.owns(cache)) {
            Some((in_place, cache)) => in_place.fetch(cache),
            None => Err(EngineError::new(Kind::Input, self.name.as_str(), "the cache is another engine's")),
        }
    }

    /// How long the parts of the last run took on the GPU; `None` before the first, and after one that failed.
    pub fn times(&self) -> Option<RunTimes> {
        self.times
    }

    /// Gives an allocator to the outputs whose size is not known by that of the inputs.
    fn find_late_outputs(&mut self) -> Result<(), TensorRtError> {
        for (input, [_, usual, _]) in self.inputs.iter().zip(self.profiles.first().into_iter().flatten()) {
            self.context.set_input_shape(&input.name, usual)?;
        }
        for (output, slot) in self.outputs.iter().zip(&mut self.given) {
            if self.context.shape(&output.name)?.contains(&-1) {
                self.context.set_allocator(&output.name, slot.allocator(&self.device))?;
            }
        }
        Ok(())
    }

    /// The inputs that are given from outside.
    fn visible(&self) -> &[TensorInfo] {
        &self.inputs[..self.inputs.len() - usize::from(self.in_place.is_some())]
    }

    /// Checks every input's name, type and rank, and that none is missing or given twice: the index of each. Those that
    /// are `kept` on the device are not given.
    fn check(&self, inputs: &[(&str, Tensor<'_>)], kept: &dyn Fn(usize) -> bool) -> Result<Vec<usize>, EngineError> {
        let mut order = Vec::with_capacity(inputs.len());
        for (name, tensor) in inputs {
            let fault = |why: String| EngineError::new(Kind::Input, self.name.as_str(), why).at_tensor(*name);
            let index = self.visible().iter().position(|info| info.name == *name);
            let index =
                index.filter(|index| !kept(*index)).ok_or_else(|| fault("the engine has no such input".into()))?;
            if order.contains(&index) {
                return Err(fault("is given twice".into()));
            }
            let info = &self.inputs[index];
            if tensor.data_type() != info.data_type {
                return Err(fault(format!("is {:?}, must be {:?}", tensor.data_type(), info.data_type)));
            }
            order.push(index);
        }
        match (0..self.visible().len()).find(|index| !kept(*index) && !order.contains(index)) {
            None => Ok(order),
            Some(index) => Err(EngineError::new(Kind::Input, self.name.as_str(), "is missing")
                .at_tensor(self.inputs[index].name.as_str())),
        }
    }

    fn find_outputs(&self, names: &[&str]) -> Result<Vec<usize>, EngineError> {
        let find = |name: &&str| {
            self.outputs.iter().position(|info| info.name == **name).ok_or_else(|| {
                EngineError::new(Kind::Input, self.name.as_str(), "the engine has no such output").at_tensor(*name)
            })
        };
        names.iter().map(find).collect()
    }

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
    fn go(&mut self, feeds: &[Feed<'_>], lease: Option<&Lease>, wanted: &[usize]) -> Result<(), EngineError> {
        let passed = self.choose_profile(feeds).and_then(|()| self.pass(feeds, lease, wanted));
        if let Err(error) = passed {
            // What was enqueued before the failure still uses the buffers. Where waiting fails too, the device is lost,
            // and the first error says more.
            let _ = self.stream.finish();
            return Err(error);
        }
        self.times = Some(self.stream.times().map_err(|e| self.fault(e))?);
        Ok(())
    }

    /// Everything from the first copy to the last; the stream is empty after success.
    fn pass(&mut self, feeds: &[Feed<'_>], lease: Option<&Lease>, wanted: &[usize]) -> Result<(), EngineError> {
        self.stream.mark(Mark::Start).map_err(|e| self.fault(e))?;
        for (index, shape, tensor) in feeds {
            self.feed(*index, shape, tensor)?;
        }
        if let (Some(in_place), Some(lease)) = (&self.in_place, lease) {
            let bound = in_place.bind(&mut self.context, lease, (&self.inputs, &self.outputs));
            bound.map_err(|e| self.fault(e))?;
        }
        self.context.check_shapes().map_err(|e| EngineError::new(Kind::Input, self.name.as_str(), e))?;
        for index in 0..self.outputs.len() {
            self.place(index).map_err(|e| self.fault(e).at_tensor(&self.outputs[index].name))?;
        }
        let mut compute = || {
            self.stream.mark(Mark::Fed)?;
            // SAFETY: the stream lives, and its CUDA context was made current. Every address leads to memory that a
            // slot holds, which fits the shapes that are set; `run` waits before anything changes.
            unsafe { self.context.enqueue(self.stream.as_ptr()) }?;
            self.stream.mark(Mark::Computed)
        };
        if let Err(error) = compute() {
            let error = self.given.iter().find_map(Slot::take_error).unwrap_or(error);
            return Err(self.fault(error));
        }
        for &index in wanted {
            if self.in_place.as_ref().is_some_and(|in_place| in_place.gives(index)) {
                continue;
            }
            let slot = &mut self.given[index];
            slot.fetch(&self.stream, &self.device)
                .map_err(|e| EngineError::new(Kind::Run, self.name.as_str(), e).at_tensor(&self.outputs[index].name))?;
        }
        let finish = self.stream.mark(Mark::Fetched).and_then(|()| self.stream.finish());
        finish.map_err(|e| self.fault(e))
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
        let mut send = || {
            slot.send(&self.stream)?;
            // SAFETY: the slot's memory fits the shape that was just set; it stays until the next run, which sets the
            // address again.
            unsafe { self.context.set_address(&info.name, slot.address()) }
        };
        send().map_err(|e| fault(Kind::Run, e.into()))
    }

    /// Finds memory for an output, but for those that find their own.
    fn place(&mut self, index: usize) -> Result<(), TensorRtError> {
        let (info, slot) = (&self.outputs[index], &mut self.given[index]);
        if slot.is_late() || self.in_place.as_ref().is_some_and(|in_place| in_place.gives(index)) {
            return Ok(());
        }
        let shape = self.context.shape(&info.name)?;
        slot.fit(&shape, &self.device)?;
        // SAFETY: the slot's memory fits the shape that the set inputs give; it stays until the next run, which sets
        // the address again.
        unsafe { self.context.set_address(&info.name, slot.address()) }
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

    /// What the last run brought of an output.
    fn read(&self, index: usize) -> Result<Tensor<'static>, EngineError> {
        self.given[index]
            .read()
            .map_err(|why| EngineError::new(Kind::Run, self.name.as_str(), why).at_tensor(&self.outputs[index].name))
    }

    fn fault(&self, error: TensorRtError) -> EngineError {
        EngineError::new(Kind::Run, self.name.as_str(), error)
    }
}

impl Engine for TensorRtEngine {
    fn name(&self) -> &str {
        &self.name
    }

    fn inputs(&self) -> &[TensorInfo] {
        self.visible()
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    fn run(&mut self, inputs: Vec<(&str, Tensor<'_>)>, outputs: &[&str]) -> Result<Vec<Tensor<'static>>, EngineError> {
        self.times = None;
        let order = self.check(&inputs, &|_| false)?;
        let wanted = self.find_outputs(outputs)?;
        let feeds = in_order(order, inputs);
        let Some(in_place) = &mut self.in_place else {
            self.go(&feeds, None, &wanted)?;
            return wanted.into_iter().map(|index| self.read(index)).collect();
        };
        // The cache comes from outside and goes back there.
        let (given, mut feeds): (Vec<_>, Vec<_>) = feeds.into_iter().partition(|(index, ..)| in_place.takes(*index));
        let reach = in_place.reach(&feeds, &given)?;
        feeds.push(in_place.start(reach));
        let lease = in_place.upload(&given, reach)?;
        self.go(&feeds, Some(&lease), &wanted)?;
        let Some(in_place) = &mut self.in_place else { unreachable!("nothing takes it away") };
        let mut cached = in_place.download(&lease, reach, &wanted)?.into_iter();
        let all = wanted.into_iter().map(|index| match self.in_place.as_ref().is_some_and(|all| all.gives(index)) {
            true => Ok(cached.next().expect("one for each that is wanted")),
            false => self.read(index),
        });
        all.collect()
    }

    fn empty_cache(&mut self) -> Option<Box<dyn Resident>> {
        let pairs = Arc::clone(self.in_place.as_ref()?.pairs());
        Some(Box::new(DeviceCache { pairs, lease: None }))
    }

    fn run_resident(
        &mut self,
        inputs: Vec<(&str, Tensor<'_>)>,
        cache: &dyn Resident,
        outputs: &[&str],
    ) -> Result<(Vec<Tensor<'static>>, Box<dyn Resident>), EngineError> {
        self.times = None;
        let refuse = |why: &str| EngineError::new(Kind::Input, self.name.as_str(), why);
        let Some(in_place) = &self.in_place else { return Err(refuse("the engine keeps no caches")) };
        let cache = cache.as_any().downcast_ref::<DeviceCache>().filter(|cache| in_place.owns(cache));
        let cache = cache.ok_or_else(|| refuse("the cache is another engine's"))?;
        let order = self.check(&inputs, &|index| in_place.takes(index))?;
        let wanted = self.find_outputs(outputs)?;
        if let Some(index) = wanted.iter().find(|index| in_place.gives(**index)) {
            return Err(refuse("stays on the device").at_tensor(&self.outputs[*index].name));
        }
        let mut feeds = in_order(order, inputs);
        let Some(in_place) = &mut self.in_place else { unreachable!("nothing takes it away") };
        let reach = in_place.reach_behind(&feeds, cache.tokens())?;
        feeds.push(in_place.start(reach));
        let lease = in_place.continue_lease(cache, reach)?;
        self.go(&feeds, Some(&lease), &wanted)?;
        let pairs = Arc::clone(&cache.pairs);
        let given = wanted.into_iter().map(|index| self.read(index)).collect::<Result<_, _>>()?;
        Ok((given, Box::new(DeviceCache { pairs, lease: Some(lease) })))
    }
}

/// The inputs in the order of the engine's.
fn in_order<'t>(order: Vec<usize>, inputs: Vec<(&str, Tensor<'t>)>) -> Vec<Feed<'t>> {
    let size = |size: &usize| i64::try_from(*size).unwrap_or(i64::MAX);
    let shape = |tensor: &Tensor<'_>| tensor.shape().iter().map(size).collect();
    let feeds = order.into_iter().zip(inputs).map(|(index, (_, tensor))| (index, shape(&tensor), tensor));
    let mut feeds: Vec<_> = feeds.collect();
    feeds.sort_by_key(|(index, ..)| *index);
    feeds
}

impl Drop for TensorRtEngine {
    fn drop(&mut self) {
        // Runs leave nothing behind, but a panic in the middle of one would.
        let _ = self.stream.finish();
    }
}

/// How far every input reaches in a profile; one whose shape is fixed, to that.
fn reaches(engine: &safe::Engine, inputs: &[Port], profile: usize) -> Option<Vec<Reach>> {
    let reach = |port: &Port| match port.dims.contains(&-1) {
        true => engine.reach(&port.name, profile),
        false => Some([(); 3].map(|()| port.dims.clone())),
    };
    inputs.iter().map(reach).collect()
}

fn element(port: &Port, engine: &str) -> Result<Element, EngineError> {
    Element::from_number(port.data_type).ok_or_else(|| {
        let why = format!("is of TensorRT's type {}, which this backend does not know", port.data_type);
        EngineError::new(Kind::Load, engine, why).at_tensor(&port.name)
    })
}

fn infos(ports: &[Port], engine: &str) -> Result<Vec<TensorInfo>, EngineError> {
    let info = |port: &Port| {
        let shape = port.dims.iter().map(|size| usize::try_from(*size).ok()).collect();
        Ok(TensorInfo { name: port.name.clone(), data_type: element(port, engine)?.data_type(), shape })
    };
    ports.iter().map(info).collect()
}

fn slots(ports: &[Port], engine: &str) -> Result<Vec<Slot>, EngineError> {
    ports.iter().map(|port| element(port, engine).map(Slot::new)).collect()
}
