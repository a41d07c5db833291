//! The GPU by way of `cudarc`: one context, memory on both sides of the bus.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use cudarc::driver::CudaContext;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute, CUdeviceptr, CUmemorytype, CUresult};

use super::super::error::{TensorRtError, TensorRtErrorKind as Kind};
use super::mapped::Buffers;
use super::stream::{Mark, Stream};

/// A GPU, as the driver tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gpu {
    /// Compute capability times ten: 87 for Orin.
    pub sm: u32,
    /// The driver's name for it.
    pub name: String,
    /// Whether it shares its memory with the CPU.
    pub integrated: bool,
    /// Whether it can read and write memory of the host's that is mapped for it.
    pub maps: bool,
}

impl Gpu {
    /// The first GPU of the machine.
    ///
    /// # Errors
    /// [`Kind::Driver`] where there is no driver, or it knows no GPU.
    pub fn current() -> Result<Self, TensorRtError> {
        // SAFETY: opens the driver's library and closes it again, as every CUDA program does; asked first, because
        // `cudarc` panics where it is missing.
        if !unsafe { sys::is_culib_present() } {
            let why = "no CUDA driver is installed: there is no libcuda.so.1";
            return Err(TensorRtError::new(Kind::Driver, "a GPU", why));
        }
        let first = || {
            result::init()?;
            let device = result::device::get(ORDINAL)?;
            let name = result::device::get_name(device)?;
            // SAFETY: the device is the driver's.
            let part = |attribute| unsafe { result::device::get_attribute(device, attribute) }.map(i32::unsigned_abs);
            let major = part(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
            let minor = part(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
            let integrated = part(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_INTEGRATED)? != 0;
            let maps = part(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY)? != 0;
            Ok(Self { sm: major * 10 + minor, name, integrated, maps })
        };
        first().map_err(no_gpu)
    }
}

/// The number of the GPU that is used, the driver's first.
const ORDINAL: i32 = 0;

fn no_gpu(error: DriverError) -> TensorRtError {
    TensorRtError::new(Kind::Driver, "a GPU", format!("the driver answers: {}", text(error)))
}

/// The first GPU of the machine, with its primary CUDA context, which TensorRT uses too.
#[derive(Debug, Clone)]
pub struct Device {
    pub(super) context: Arc<CudaContext>,
    gpu: Gpu,
    mapped: bool,
}

impl Device {
    /// Finds the GPU; buffers are as suits it.
    ///
    /// # Errors
    /// As [`Gpu::current`]; also where the driver makes no context.
    pub fn open() -> Result<Self, TensorRtError> {
        Self::open_with(Buffers::Auto)
    }

    /// Finds the GPU, for engines whose inputs and outputs pass as `buffers` says.
    ///
    /// # Errors
    /// As [`open`](Self::open); also where the GPU cannot do that.
    pub fn open_with(buffers: Buffers) -> Result<Self, TensorRtError> {
        let gpu = Gpu::current()?;
        let mapped = buffers.are_mapped(gpu.maps, gpu.integrated)?;
        Ok(Self { context: CudaContext::new(ORDINAL as usize).map_err(no_gpu)?, gpu, mapped })
    }

    /// How inputs and outputs pass: copied or mapped.
    pub fn buffers(&self) -> Buffers {
        if self.mapped { Buffers::Mapped } else { Buffers::Copied }
    }

    /// The driver's name for it.
    pub fn name(&self) -> &str {
        &self.gpu.name
    }

    /// Compute capability times ten: 87 for Orin.
    pub fn sm(&self) -> u32 {
        self.gpu.sm
    }

    /// Device memory in bytes: what is free, and all of it.
    ///
    /// # Errors
    /// [`Kind::Run`] where the driver fails.
    pub fn memory(&self) -> Result<(u64, u64), TensorRtError> {
        let (free, total) = self.context.mem_get_info().map_err(failed)?;
        Ok((free as u64, total as u64))
    }

    /// How fast the device reads and writes its memory, in bytes a second, both together: the best of ten copies of
    /// `bytes` from one place to another.
    ///
    /// # Errors
    /// [`Kind::Memory`] where there is no room for both, [`Kind::Run`] where the driver fails.
    pub fn copy_speed(&self, bytes: usize) -> Result<f64, TensorRtError> {
        let (from, to) = (DeviceBuffer::new(self, bytes.max(1))?, DeviceBuffer::new(self, bytes.max(1))?);
        let stream = Stream::new(self)?;
        let rows = Rows { start: 0, pitch: from.bytes };
        let mut best = 0f64;
        for _ in 0..10 {
            let copied = stream.mark(Mark::Start).and_then(|()| {
                // SAFETY: both outlive the wait below, and are two.
                unsafe { stream.copy_rows((Side::Device(&from), rows), (Side::Device(&to), rows), [from.bytes, 1]) }?;
                stream.mark(Mark::Fed)
            });
            let finished = stream.finish();
            copied.and(finished)?;
            let seconds = f64::from(stream.between(Mark::Start, Mark::Fed)?) / 1e3;
            best = best.max(2.0 * from.bytes as f64 / seconds.max(1e-9));
        }
        Ok(best)
    }

    /// Makes the context current on this thread: TensorRT works in the one that is.
    pub(super) fn bind(&self) -> Result<(), TensorRtError> {
        self.context.bind_to_thread().map_err(failed)
    }

    fn no_memory(&self, bytes: usize, error: DriverError) -> TensorRtError {
        if error.0 != CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return failed(error);
        }
        let left =
            self.memory().map_or_else(|_| String::new(), |(free, total)| format!(", {free} of {total} are free"));
        let why =
            format!("no memory for {bytes} bytes{left}; build plans for fewer --positions, or stop other programs");
        TensorRtError::new(Kind::Memory, "the GPU", why)
    }
}

/// Memory of the GPU's, aligned to 256 bytes.
#[derive(Debug)]
pub(super) struct DeviceBuffer {
    device: Device,
    pub(super) address: CUdeviceptr,
    pub(super) bytes: usize,
}

impl DeviceBuffer {
    /// `bytes` of it, not initialised; at least 1.
    pub(super) fn new(device: &Device, bytes: usize) -> Result<Self, TensorRtError> {
        device.bind()?;
        // SAFETY: a context is current; the memory is freed once, in `drop`.
        let address = unsafe { result::malloc_sync(bytes) }.map_err(|error| device.no_memory(bytes, error))?;
        Ok(Self { device: device.clone(), address, bytes })
    }

    pub(super) fn as_ptr(&self) -> *mut c_void {
        self.address as *mut c_void
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        let context = &self.device.context;
        context.record_err(context.bind_to_thread());
        // SAFETY: from `malloc_sync`; whoever enqueues work with it waits for that work before.
        context.record_err(unsafe { result::free_sync(self.address) });
    }
}

/// Pinned memory of the host's, which copies to and from the GPU do not pass a second time.
#[derive(Debug)]
pub(super) struct HostBuffer {
    device: Device,
    pub(super) address: NonNull<u8>,
    pub(super) bytes: usize,
}

// SAFETY: plain memory that this alone refers to; CUDA frees it from any thread with the context current.
unsafe impl Send for HostBuffer {}

impl HostBuffer {
    /// `bytes` of it, all zero; at least 1.
    pub(super) fn new(device: &Device, bytes: usize) -> Result<Self, TensorRtError> {
        Self::with_flags(device, bytes, 0)
    }

    /// As [`new`](Self::new), with the driver's flags.
    pub(super) fn with_flags(device: &Device, bytes: usize, flags: u32) -> Result<Self, TensorRtError> {
        device.bind()?;
        // SAFETY: a context is current; the memory is freed once, in `drop`.
        let address = unsafe { result::malloc_host(bytes, flags) }.map_err(|error| device.no_memory(bytes, error))?;
        let address = NonNull::new(address.cast::<u8>()).expect("CUDA gives an address with success");
        // SAFETY: there are `bytes` there.
        unsafe { address.write_bytes(0, bytes) };
        Ok(Self { device: device.clone(), address, bytes })
    }

    /// What is in it.
    ///
    /// # Safety
    /// No enqueued work writes there.
    pub(super) unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: `bytes` initialised bytes that only work on the GPU writes without a `&mut`.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.bytes) }
    }

    /// As [`bytes`](Self::bytes), to write.
    ///
    /// # Safety
    /// No enqueued work reads or writes there.
    pub(super) unsafe fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and nobody else refers to it.
        unsafe { std::slice::from_raw_parts_mut(self.address.as_ptr(), self.bytes) }
    }
}

impl Drop for HostBuffer {
    fn drop(&mut self) {
        let context = &self.device.context;
        context.record_err(context.bind_to_thread());
        // SAFETY: from `malloc_host`; whoever enqueues work with it waits for that work before.
        context.record_err(unsafe { result::free_host(self.address.as_ptr().cast()) });
    }
}

/// Pieces of memory at equal distances, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rows {
    /// Where the first starts.
    pub start: usize,
    /// From the start of one to that of the next.
    pub pitch: usize,
}

impl Rows {
    /// Whether `count` rows of `width` bytes lie within `bytes`.
    pub(super) fn fit(self, width: usize, count: usize, bytes: usize) -> bool {
        let end = count.checked_sub(1).and_then(|last| last.checked_mul(self.pitch)).unwrap_or(0);
        let end = end.checked_add(self.start).and_then(|start| start.checked_add(width));
        width <= self.pitch && end.is_some_and(|end| end <= bytes)
    }
}

/// Memory on either side of the bus.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side<'b> {
    Host(&'b HostBuffer),
    Device(&'b DeviceBuffer),
}

impl Side<'_> {
    /// As the driver names it: of the two addresses the one that its type says counts.
    pub(super) fn place(self) -> (CUmemorytype, *mut c_void, CUdeviceptr) {
        match self {
            Self::Host(buffer) => (CUmemorytype::CU_MEMORYTYPE_HOST, buffer.address.as_ptr().cast(), 0),
            Self::Device(buffer) => (CUmemorytype::CU_MEMORYTYPE_DEVICE, std::ptr::null_mut(), buffer.address),
        }
    }

    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Host(buffer) => buffer.bytes,
            Self::Device(buffer) => buffer.bytes,
        }
    }
}

/// The driver failed at something that should work.
pub(super) fn failed(error: DriverError) -> TensorRtError {
    TensorRtError::new(Kind::Run, "the GPU", text(error))
}

/// An error as the driver words it, with its name.
fn text(error: DriverError) -> String {
    let said = error.error_string().map_or_else(|_| String::new(), |said| said.to_string_lossy().into_owned());
    format!("{said} ({:?})", error.0)
}
