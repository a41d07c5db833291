//! The memory of one input or output, on the device and on the host.

use std::ffi::c_void;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use super::super::error::{TensorRtError, TensorRtErrorKind as Kind};
use super::super::safe::OutputAllocator;
use super::cuda::{Device, DeviceBuffer, HostBuffer};
use super::element::Element;
use super::mapped::{Buffers, MappedBuffer};
use super::stream::Stream;
use crate::engine::{Data, Tensor};

/// Least size of a buffer, in bytes: an empty tensor has an address too.
const MIN_BYTES: usize = 256;

/// Memory on one side of the bus.
pub(super) trait Memory: Sized {
    fn make(device: &Device, bytes: usize) -> Result<Self, TensorRtError>;
}

impl Memory for DeviceBuffer {
    fn make(device: &Device, bytes: usize) -> Result<Self, TensorRtError> {
        Self::new(device, bytes)
    }
}

impl Memory for HostBuffer {
    fn make(device: &Device, bytes: usize) -> Result<Self, TensorRtError> {
        Self::new(device, bytes)
    }
}

/// A buffer that grows when it must, and forgets what is in it then.
#[derive(Debug)]
pub(super) struct Growing<B> {
    held: Option<B>,
    bytes: usize,
}

impl<B> Default for Growing<B> {
    fn default() -> Self {
        Self { held: None, bytes: 0 }
    }
}

impl<B: Memory> Growing<B> {
    /// What there is.
    pub(super) fn held(&self) -> Option<&B> {
        self.held.as_ref()
    }

    /// Makes room for `bytes`; grows by half at least, as a conversation grows by one token at a time.
    pub(super) fn fit(&mut self, bytes: usize, device: &Device) -> Result<&mut B, TensorRtError> {
        self.fit_with(bytes, |bytes| B::make(device, bytes))
    }
}

impl<B> Growing<B> {
    /// As [`fit`](Self::fit), with memory that `make` makes.
    fn fit_with(
        &mut self,
        bytes: usize,
        make: impl Fn(usize) -> Result<B, TensorRtError>,
    ) -> Result<&mut B, TensorRtError> {
        if self.held.is_none() || bytes > self.bytes {
            let wanted = bytes.max(self.bytes + self.bytes / 2).max(MIN_BYTES);
            // First the old one goes: boards have little memory.
            (self.held, self.bytes) = (None, 0);
            // Growing in advance is no reason to fail.
            let made = make(wanted).map(|made| (made, wanted));
            let (made, got) = made.or_else(|e| match wanted > bytes.max(MIN_BYTES) {
                true => make(bytes.max(MIN_BYTES)).map(|made| (made, bytes.max(MIN_BYTES))),
                false => Err(e),
            })?;
            (self.held, self.bytes) = (Some(made), got);
        }
        Ok(self.held.as_mut().expect("is there since the lines above"))
    }
}

/// What an output that is sized late was given by its allocator.
#[derive(Debug, Default)]
struct Late {
    memory: Growing<DeviceBuffer>,
    shape: Vec<i64>,
    error: Option<TensorRtError>,
}

/// Where the tensor of a slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// On the GPU.
    Device,
    /// In memory that both sides have.
    Mapped,
}

/// The memory of one input or output. Whoever calls waits for the stream before calling again.
#[derive(Debug)]
pub(super) struct Slot {
    element: Element,
    shape: Vec<i64>,
    /// Whether what passes to or from the host is mapped, and whether the host only writes it.
    maps: bool,
    written_only: bool,
    place: Place,
    device: Growing<DeviceBuffer>,
    host: Growing<HostBuffer>,
    mapped: Growing<MappedBuffer>,
    late: Option<Arc<Mutex<Late>>>,
}

impl Slot {
    pub(super) fn new(element: Element, is_input: bool, device: &Device) -> Self {
        Self {
            element,
            shape: Vec::new(),
            maps: device.buffers() == Buffers::Mapped,
            written_only: is_input,
            place: Place::Device,
            device: Growing::default(),
            host: Growing::default(),
            mapped: Growing::default(),
            late: None,
        }
    }

    /// Makes room for a tensor of `shape` that passes to or from the host.
    pub(super) fn fit(&mut self, shape: &[i64], device: &Device) -> Result<(), TensorRtError> {
        let bytes = bytes_of(shape, self.element)?;
        if self.maps {
            self.mapped.fit_with(bytes, |bytes| MappedBuffer::new(device, bytes, self.written_only))?;
            (self.place, self.shape) = (Place::Mapped, shape.to_vec());
            return Ok(());
        }
        self.host.fit(bytes, device)?;
        self.fit_on_device(shape, device)
    }

    /// Makes room for one that stays on the GPU.
    pub(super) fn fit_on_device(&mut self, shape: &[i64], device: &Device) -> Result<(), TensorRtError> {
        self.device.fit(bytes_of(shape, self.element)?, device)?;
        (self.place, self.shape) = (Place::Device, shape.to_vec());
        Ok(())
    }

    /// Puts a copy of `from`, of `shape` and this slot's elements, onto `stream`. The host's side is left out.
    pub(super) fn take(
        &mut self,
        shape: &[i64],
        from: &DeviceBuffer,
        (stream, device): (&Stream, &Device),
    ) -> Result<(), TensorRtError> {
        let bytes = bytes_of(shape, self.element)?;
        self.fit_on_device(shape, device)?;
        match &self.device.held {
            // SAFETY: whoever calls keeps `from` until the stream was waited for; a slot's memory is its own.
            Some(to) => unsafe { stream.copy(from, to, bytes) },
            None => Ok(()),
        }
    }

    /// The tensor that stays on the device: its type, its size in bytes, and where it is.
    pub(super) fn on_device(&self) -> Result<Option<(Element, usize, &DeviceBuffer)>, TensorRtError> {
        let bytes = bytes_of(&self.shape, self.element)?;
        Ok(self.device.held.as_ref().map(|held| (self.element, bytes, held)))
    }

    pub(super) fn element(&self) -> Element {
        self.element
    }

    pub(super) fn shape(&self) -> &[i64] {
        &self.shape
    }

    /// Where the tensor is on the device; null before [`fit`](Self::fit).
    pub(super) fn address(&self) -> *mut c_void {
        let (device, mapped) = (self.device.held.as_ref(), self.mapped.held.as_ref());
        let address = match self.place {
            Place::Device => device.map(DeviceBuffer::as_ptr),
            Place::Mapped => mapped.map(MappedBuffer::as_ptr),
        };
        address.unwrap_or(ptr::null_mut())
    }

    /// Writes `data`, of the shape that [`fit`](Self::fit) was told, to the host's side.
    ///
    /// # Errors
    /// As [`Element::write`].
    pub(super) fn fill(&mut self, data: &Data<'_>) -> Result<(), String> {
        let host = match self.place {
            Place::Mapped => self.mapped.held.as_mut().map(MappedBuffer::host_mut),
            Place::Device => self.host.held.as_mut(),
        };
        let host = host.expect("`fit` comes before `fill`");
        // SAFETY: the stream was waited for since the last copy, and the last computation.
        self.element.write(data, unsafe { host.bytes_mut() })
    }

    /// Puts the copy to the device onto `stream`, where one is needed.
    pub(super) fn send(&self, stream: &Stream) -> Result<(), TensorRtError> {
        if self.place == Place::Mapped {
            return Ok(());
        }
        let (Some(host), Some(device)) = (&self.host.held, &self.device.held) else { return Ok(()) };
        match bytes_of(&self.shape, self.element)? {
            0 => Ok(()),
            // SAFETY: both live in this slot, which is not touched before the stream is waited for.
            bytes => unsafe { stream.upload(host, device, bytes) },
        }
    }

    /// Puts the copy to the host onto `stream`, behind the work that computes the tensor, where one is needed.
    pub(super) fn fetch(&mut self, stream: &Stream, device: &Device) -> Result<(), TensorRtError> {
        if self.place == Place::Mapped {
            return Ok(());
        }
        let late = self.late.as_ref().map(|late| late.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(late) = &late {
            self.shape.clone_from(&late.shape);
        }
        let bytes = bytes_of(&self.shape, self.element)?;
        let host = self.host.fit(bytes, device)?;
        let from = late.as_ref().map_or(&self.device, |late| &late.memory);
        match (&from.held, bytes) {
            (Some(from), 1..) => {
                // SAFETY: both live in this slot, which is not touched before the stream is waited for.
                unsafe { stream.download(from, host, bytes) }
            }
            _ => Ok(()),
        }
    }

    /// What [`fetch`](Self::fetch) brought, once the stream was waited for.
    ///
    /// # Errors
    /// As [`Element::read`].
    pub(super) fn read(&self) -> Result<Tensor<'static>, String> {
        let bytes = bytes_of(&self.shape, self.element).map_err(|e| e.to_string())?;
        let host = match self.place {
            Place::Mapped => self.mapped.held.as_ref().map(MappedBuffer::host),
            Place::Device => self.host.held.as_ref(),
        };
        // SAFETY: the stream was waited for.
        let from = host.map_or(&[][..], |host| unsafe { host.bytes() });
        let from = from.get(..bytes).ok_or("was not fetched")?;
        let shape: Vec<_> = self.shape.iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect();
        Ok(Tensor::of(&shape, self.element.read(from)?))
    }

    /// Whether [`allocator`](Self::allocator) was called.
    pub(super) fn is_late(&self) -> bool {
        self.late.is_some()
    }

    /// Finds this output's memory while it is computed.
    pub(super) fn allocator(&mut self, device: &Device) -> Box<dyn OutputAllocator> {
        let late = Arc::clone(self.late.get_or_insert_default());
        Box::new(LateMemory { device: device.clone(), late })
    }

    /// Why the allocator had no memory, where that is why a run failed.
    pub(super) fn take_error(&self) -> Option<TensorRtError> {
        self.late.as_ref().and_then(|late| late.lock().unwrap_or_else(PoisonError::into_inner).error.take())
    }
}

struct LateMemory {
    device: Device,
    late: Arc<Mutex<Late>>,
}

// SAFETY: the address leads to at least `size` bytes of device memory, aligned to 256 bytes, the most that TensorRT asks
// for; they stay until the next run of the same output, before which the stream is waited for.
unsafe impl OutputAllocator for LateMemory {
    fn grow(&mut self, _: &str, _: *mut c_void, size: u64, align: u64, _: *mut c_void) -> *mut c_void {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(size) = usize::try_from(size) else { return ptr::null_mut() };
        if align > 256 {
            return ptr::null_mut();
        }
        match late.memory.fit(size, &self.device) {
            Ok(memory) => memory.as_ptr(),
            Err(error) => {
                late.error = Some(error);
                ptr::null_mut()
            }
        }
    }

    fn shape(&mut self, _: &str, dims: &[i64]) {
        self.late.lock().unwrap_or_else(PoisonError::into_inner).shape = dims.to_vec();
    }
}

/// Size of a tensor of `shape`, in bytes.
fn bytes_of(shape: &[i64], element: Element) -> Result<usize, TensorRtError> {
    let count = shape.iter().try_fold(1_usize, |all, size| all.checked_mul(usize::try_from(*size).ok()?));
    count.and_then(|count| count.checked_mul(element.size())).ok_or_else(|| {
        TensorRtError::new(Kind::Run, format!("a tensor of shape {shape:?}"), "its size is not known, or too large")
    })
}
