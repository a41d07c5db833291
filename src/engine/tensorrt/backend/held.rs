//! Outputs that stay on the device for another engine there.
//!
//! They are copied out of the engine's own memory into memory that is theirs, and from there into the memory of the
//! engine that takes them: so both engines compute on the same addresses in every run, as their CUDA graphs want, and
//! an output outlives the next run. The copies stay on the device, where they cost what reading the tensors does.
//!
//! Nobody looks at the elements on the way. Whoever wants to know whether they are finite looks at what comes of them,
//! or fetches them.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use super::super::error::TensorRtError;
use super::cuda::{Device, DeviceBuffer, HostBuffer};
use super::element::Element;
use super::stream::{Ready, Stream};
use crate::engine::{EngineError, EngineErrorKind as Kind, Held, Tensor, TensorInfo};

/// Memory for outputs of one run, and when they are in it.
#[derive(Debug)]
struct Memory {
    buffers: Vec<DeviceBuffer>,
    ready: Ready,
}

/// Memories that were made; those that nobody holds any more are used again.
#[derive(Debug, Default)]
pub(super) struct HeldPool(Vec<Arc<Memory>>);

impl HeldPool {
    /// Memory for outputs of `sizes` bytes.
    fn take(&mut self, sizes: &[usize], device: &Device) -> Result<Arc<Memory>, TensorRtError> {
        let fits = |memory: &Memory| memory.buffers.iter().map(|buffer| buffer.bytes).eq(sizes.iter().copied());
        // Of other sizes nobody will want it again.
        self.0.retain(|memory| Arc::strong_count(memory) > 1 || fits(memory));
        if let Some(free) = self.0.iter().find(|memory| Arc::strong_count(memory) == 1) {
            return Ok(Arc::clone(free));
        }
        let buffers = sizes.iter().map(|bytes| DeviceBuffer::new(device, *bytes)).collect::<Result<_, _>>()?;
        self.0.push(Arc::new(Memory { buffers, ready: Ready::new(device)? }));
        Ok(Arc::clone(&self.0[self.0.len() - 1]))
    }

    /// Puts copies of `outputs`, of the elements and sizes in bytes that are said, onto `stream`.
    pub(super) fn hold(
        &mut self,
        engine: &str,
        outputs: &[(TensorInfo, Element, usize, &DeviceBuffer)],
        (stream, device): (&Stream, &Device),
    ) -> Result<HeldTensors, TensorRtError> {
        let sizes: Vec<_> = outputs.iter().map(|(_, _, bytes, _)| (*bytes).max(1)).collect();
        let memory = self.take(&sizes, device)?;
        for ((_, _, bytes, from), to) in outputs.iter().zip(&memory.buffers) {
            // SAFETY: the pool and the engine keep both until the stream was waited for; they are two.
            unsafe { stream.copy(from, to, *bytes) }?;
        }
        stream.reach(&memory.ready)?;
        let infos = outputs.iter().map(|(info, ..)| info.clone()).collect();
        let elements = outputs.iter().map(|(_, element, ..)| *element).collect();
        Ok(HeldTensors { engine: engine.to_owned(), infos, elements, memory, device: device.clone() })
    }
}

/// One tensor on its way to another engine.
pub(super) struct HeldTensor<'h> {
    pub info: &'h TensorInfo,
    pub element: Element,
    pub buffer: &'h DeviceBuffer,
}

/// Outputs of one run.
pub(super) struct HeldTensors {
    engine: String,
    infos: Vec<TensorInfo>,
    elements: Vec<Element>,
    memory: Arc<Memory>,
    device: Device,
}

impl fmt::Debug for HeldTensors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tensors of `{}` on the GPU", self.infos.len(), self.engine)
    }
}

impl HeldTensors {
    /// Each of them.
    pub(super) fn tensors(&self) -> impl Iterator<Item = HeldTensor<'_>> {
        let all = self.infos.iter().zip(&self.elements).zip(&self.memory.buffers);
        all.map(|((info, element), buffer)| HeldTensor { info, element: *element, buffer })
    }

    /// When they are there.
    pub(super) fn ready(&self) -> &Ready {
        &self.memory.ready
    }

    /// Whether an engine on `device` can read them.
    pub(super) fn are_on(&self, device: &Device) -> bool {
        self.device.context == device.context
    }

    /// Copies all of them to the host, on a stream of their own: the engine's may be at work on another thread.
    fn download(&self) -> Result<Vec<HostBuffer>, TensorRtError> {
        let stream = Stream::new(&self.device)?;
        stream.wait_for(self.ready())?;
        let mut copies = Vec::with_capacity(self.infos.len());
        let enqueued = self.memory.buffers.iter().try_for_each(|from| {
            copies.push(HostBuffer::new(&self.device, from.bytes)?);
            // SAFETY: the memory and the copies outlive the wait below.
            unsafe { stream.download(from, &copies[copies.len() - 1], from.bytes) }
        });
        let finished = stream.finish();
        enqueued.and(finished).map(|()| copies)
    }
}

impl Held for HeldTensors {
    fn infos(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn fetch(&self) -> Result<Vec<Tensor<'static>>, EngineError> {
        let fault =
            |why: Box<dyn std::error::Error + Send + Sync>| EngineError::new(Kind::Run, self.engine.as_str(), why);
        let copies = self.download().map_err(|error| fault(error.into()))?;
        let read = |((info, element), copy): ((&TensorInfo, &Element), &HostBuffer)| {
            let shape: Vec<_> = info.shape.iter().map(|size| size.unwrap_or(0)).collect();
            let bytes = shape.iter().product::<usize>() * element.size();
            // SAFETY: the stream was waited for; there are as many bytes, as the buffer was made for them.
            let data = element
                .read(&unsafe { copy.bytes() }[..bytes])
                .map_err(|why| fault(why.into()).at_tensor(&info.name))?;
            Ok(Tensor::of(&shape, data))
        };
        self.infos.iter().zip(&self.elements).zip(&copies).map(read).collect()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
