//! The GPU backend: a plan behind the [`Engine`] trait.
//!
//! Tensors come from the host and go back to it: each has a pinned and a device buffer, or one that both sides have
//! ([`Buffers`]), which are kept between runs and grow when they must. All work of an engine goes onto a stream of its own, and no run returns, with an error neither,
//! before that stream is empty; so nothing that is dropped or written between runs is in use on the GPU. What is
//! computed over and over with the same shapes is captured as a CUDA graph.
//!
//! A plan that updates its cache in place is a decoder like any other from outside: it takes and gives a cache as long
//! as the conversation, and in between has room for the longest. It can also keep the cache on the device.

mod cache;
mod cuda;
mod element;
mod engine;
mod graphs;
mod held;
mod in_place;
mod mapped;
mod pass;
mod slot;
mod stream;

pub use cuda::{Device, Gpu};
pub use graphs::failed_captures;
pub use mapped::Buffers;
pub use stream::RunTimes;

use std::sync::Arc;

use cache::DeviceCache;
use cuda::DeviceBuffer;
pub(crate) use element::Element;
use graphs::Graphs;
use held::HeldPool;
use in_place::InPlace;
use slot::Slot;
use stream::Stream;

use super::error::{TensorRtError, TensorRtErrorKind};
use super::plan::Plan;
use super::safe::{self, Context, Library, Port, Runtime};
use crate::engine::{EngineError, EngineErrorKind as Kind, Resident, Tensor, TensorInfo};

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
    // In the order in which they must go: the contexts before the memory that they have addresses of.
    graphs: Graphs,
    context: Context,
    engine: safe::Engine,
    /// What every context computes in.
    scratch: DeviceBuffer,
    fed: Vec<Slot>,
    given: Vec<Slot>,
    pool: HeldPool,
    in_place: Option<InPlace>,
    stream: Arc<Stream>,
    device: Device,
}

/// An input that is to be sent to the device: its index, shape and elements.
type Feed<'t> = (usize, Vec<i64>, Tensor<'t>);

/// An input that is on the device already.
type HeldFeed<'h> = (usize, Vec<i64>, &'h DeviceBuffer);

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
        let ports = engine.ports();
        let scratch = usize::try_from(engine.context_bytes()).unwrap_or(usize::MAX).max(1);
        let scratch = DeviceBuffer::new(device, scratch).map_err(refuse)?;
        // SAFETY: the memory is as large as the engine says, goes after all contexts, and all that is computed in it
        // goes onto one stream.
        let context = unsafe { engine.context_in(scratch.as_ptr()) }.map_err(refuse)?;
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
            graphs: Graphs::default(),
            context,
            engine,
            scratch,
            fed: slots(&fed, name, device)?,
            given: slots(&given, name, device)?,
            pool: HeldPool::default(),
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

    /// Whether computations that come again are captured as CUDA graphs, as they are unless this says otherwise.
    pub fn set_cuda_graphs(&mut self, on: bool) {
        self.graphs.set_off(!on);
    }

    /// How many computations are captured as CUDA graphs by now.
    pub fn cuda_graphs(&self) -> usize {
        self.graphs.count()
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

fn slots(ports: &[Port], engine: &str, device: &Device) -> Result<Vec<Slot>, EngineError> {
    ports.iter().map(|port| element(port, engine).map(|element| Slot::new(element, port.is_input, device))).collect()
}
