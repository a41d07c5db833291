//! What an engine is asked, and how it takes and gives tensors: of the host's, in its caches, or held on the device.

use std::sync::Arc;

use super::cache::DeviceCache;
use super::held::{HeldTensor, HeldTensors};
use super::pass::{Given, Wanted};
use super::slot::Slot;
use super::{Feed, HeldFeed, TensorRtEngine};
use crate::engine::{Engine, EngineError, EngineErrorKind as Kind, Held, Resident, Tensor, TensorInfo, with_fetched};

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
            self.go(&Given { feeds, ..Given::default() }, Wanted::Fetched(&wanted))?;
            return wanted.into_iter().map(|index| self.read(index)).collect();
        };
        // The cache comes from outside and goes back there.
        let (given, mut feeds): (Vec<_>, Vec<_>) = feeds.into_iter().partition(|(index, ..)| in_place.takes(*index));
        let reach = in_place.reach(&feeds, &given)?;
        feeds.push(in_place.start(reach));
        if !self.graphs.are_off() {
            in_place.even_out(&mut feeds, reach);
        }
        let lease = in_place.upload(&given, reach)?;
        self.go(&Given { feeds, lease: Some(&lease), ..Given::default() }, Wanted::Fetched(&wanted))?;
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
        if !self.graphs.are_off() {
            in_place.even_out(&mut feeds, reach);
        }
        let lease = in_place.continue_lease(cache, reach)?;
        self.go(&Given { feeds, lease: Some(&lease), ..Given::default() }, Wanted::Fetched(&wanted))?;
        let pairs = Arc::clone(&cache.pairs);
        let given = wanted.into_iter().map(|index| self.read(index)).collect::<Result<_, _>>()?;
        Ok((given, Box::new(DeviceCache { pairs, lease: Some(lease) })))
    }

    fn can_hold(&self) -> bool {
        self.in_place.is_none() && !self.given.iter().any(Slot::is_late)
    }

    fn run_held(&mut self, inputs: Vec<(&str, Tensor<'_>)>, outputs: &[&str]) -> Result<Box<dyn Held>, EngineError> {
        self.times = None;
        let refuse = || EngineError::new(Kind::Input, self.name.as_str(), "the engine holds no outputs");
        if !self.can_hold() {
            return Err(refuse());
        }
        let order = self.check(&inputs, &|_| false)?;
        let wanted = self.find_outputs(outputs)?;
        let given = Given { feeds: in_order(order, inputs), ..Given::default() };
        Ok(Box::new(self.go(&given, Wanted::Held(&wanted))?.expect("is held where that is wanted")))
    }

    fn run_with(
        &mut self,
        held: &dyn Held,
        inputs: Vec<(&str, Tensor<'_>)>,
        outputs: &[&str],
    ) -> Result<Vec<Tensor<'static>>, EngineError> {
        let Some((from, here)) = self.readable(held) else {
            return self.run(with_fetched(held, inputs)?, outputs);
        };
        self.times = None;
        let order = self.check(&inputs, &|index| here.iter().any(|(given, ..)| *given == index))?;
        let wanted = self.find_outputs(outputs)?;
        let given = Given { feeds: in_order(order, inputs), held: here, ready: Some(from.ready()), lease: None };
        self.go(&given, Wanted::Fetched(&wanted))?;
        wanted.into_iter().map(|index| self.read(index)).collect()
    }
}

impl TensorRtEngine {
    /// What of `held` goes into which input, where all of it can be read as it is.
    fn readable<'h>(&self, held: &'h dyn Held) -> Option<(&'h HeldTensors, Vec<HeldFeed<'h>>)> {
        let held = held.as_any().downcast_ref::<HeldTensors>()?;
        let feed = |tensor: HeldTensor<'h>| {
            let index = self.inputs.iter().position(|info| info.name == tensor.info.name)?;
            let size = |size: &Option<usize>| i64::try_from((*size)?).ok();
            let shape = tensor.info.shape.iter().map(size).collect::<Option<_>>()?;
            (self.fed[index].element() == tensor.element).then_some((index, shape, tensor.buffer))
        };
        let feeds = held.tensors().map(feed).collect::<Option<Vec<_>>>()?;
        (self.in_place.is_none() && held.are_on(&self.device)).then_some((held, feeds))
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
