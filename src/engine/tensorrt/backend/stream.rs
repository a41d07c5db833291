//! Streams, what is timed on them, and work that is captured from them.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::result;
use cudarc::driver::sys::{self, CUevent_flags, CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaEvent, CudaGraph, CudaStream};

use super::super::error::{TensorRtError, TensorRtErrorKind as Kind};
use super::cuda::{Device, DeviceBuffer, HostBuffer, Rows, Side, failed};

/// Where the time of a run on the GPU went, by the GPU's own clock, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct RunTimes {
    /// Inputs to the device.
    pub upload_ms: f32,
    /// The engine.
    pub compute_ms: f32,
    /// Outputs to the host.
    pub download_ms: f32,
}

/// The points of a run that are timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Start,
    Fed,
    Computed,
    Fetched,
}

/// A point of one stream that others wait for.
#[derive(Debug)]
pub(super) struct Ready(CudaEvent);

impl Ready {
    pub(super) fn new(device: &Device) -> Result<Self, TensorRtError> {
        let flags = CUevent_flags::CU_EVENT_DISABLE_TIMING;
        device.context.new_event(Some(flags)).map(Self).map_err(failed)
    }
}

/// What an engine's work goes onto, in order.
#[derive(Debug)]
pub(super) struct Stream {
    stream: Arc<CudaStream>,
    marks: [CudaEvent; 4],
}

impl Stream {
    pub(super) fn new(device: &Device) -> Result<Self, TensorRtError> {
        let stream = device.context.new_stream().map_err(failed)?;
        let mark = || device.context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).map_err(failed);
        Ok(Self { stream, marks: [mark()?, mark()?, mark()?, mark()?] })
    }

    /// The `cudaStream_t`, as long as this lives.
    pub(super) fn as_ptr(&self) -> *mut c_void {
        self.stream.cu_stream().cast()
    }

    /// Notes when the work so far is done.
    pub(super) fn mark(&self, mark: Mark) -> Result<(), TensorRtError> {
        self.marks[mark as usize].record(&self.stream).map_err(failed)
    }

    /// Lets `ready` stand for all of the work so far.
    pub(super) fn reach(&self, ready: &Ready) -> Result<(), TensorRtError> {
        ready.0.record(&self.stream).map_err(failed)
    }

    /// Has the work that follows wait for what `ready` stands for.
    pub(super) fn wait_for(&self, ready: &Ready) -> Result<(), TensorRtError> {
        self.stream.wait(&ready.0).map_err(failed)
    }

    /// Copies the first `bytes` of `from` to another place on the device.
    ///
    /// # Safety
    /// Both live until [`finish`](Self::finish) returns, and are two.
    pub(super) unsafe fn copy(
        &self,
        from: &DeviceBuffer,
        to: &DeviceBuffer,
        bytes: usize,
    ) -> Result<(), TensorRtError> {
        let rows = Rows { start: 0, pitch: bytes };
        // SAFETY: the caller's to vouch for.
        unsafe { self.copy_rows((Side::Device(from), rows), (Side::Device(to), rows), [bytes, 1]) }
    }

    /// Copies the first `bytes` of `from` to the device.
    ///
    /// # Safety
    /// Both live, and the host touches neither, until [`finish`](Self::finish) returns.
    pub(super) unsafe fn upload(
        &self,
        from: &HostBuffer,
        to: &DeviceBuffer,
        bytes: usize,
    ) -> Result<(), TensorRtError> {
        assert!(bytes <= from.bytes && bytes <= to.bytes, "a copy stays within its buffers");
        // SAFETY: there are `bytes` initialised ones.
        let from = unsafe { std::slice::from_raw_parts(from.address.as_ptr(), bytes) };
        // SAFETY: within both buffers; the rest is the caller's to vouch for.
        unsafe { result::memcpy_htod_async(to.address, from, self.stream.cu_stream()) }.map_err(failed)
    }

    /// Copies the first `bytes` of `from` to the host.
    ///
    /// # Safety
    /// As for [`upload`](Self::upload).
    pub(super) unsafe fn download(
        &self,
        from: &DeviceBuffer,
        to: &HostBuffer,
        bytes: usize,
    ) -> Result<(), TensorRtError> {
        assert!(bytes <= from.bytes && bytes <= to.bytes, "a copy stays within its buffers");
        // SAFETY: there are `bytes`, which nothing else refers to until the copy is done, says the caller.
        let to = unsafe { std::slice::from_raw_parts_mut(to.address.as_ptr(), bytes) };
        // SAFETY: within both buffers; the rest is the caller's to vouch for.
        unsafe { result::memcpy_dtoh_async(to, from.address, self.stream.cu_stream()) }.map_err(failed)
    }

    /// Writes zeros to all of `buffer`.
    ///
    /// # Safety
    /// It lives until [`finish`](Self::finish) returns.
    pub(super) unsafe fn clear(&self, buffer: &DeviceBuffer) -> Result<(), TensorRtError> {
        // SAFETY: there are as many bytes; the rest is the caller's to vouch for.
        unsafe { result::memset_d8_async(buffer.address, 0, buffer.bytes, self.stream.cu_stream()) }.map_err(failed)
    }

    /// Copies `count` rows of `width` bytes each.
    ///
    /// # Safety
    /// As for [`upload`](Self::upload); the rows of both sides do not overlap.
    pub(super) unsafe fn copy_rows(
        &self,
        (from, source): (Side<'_>, Rows),
        (to, target): (Side<'_>, Rows),
        [width, count]: [usize; 2],
    ) -> Result<(), TensorRtError> {
        if width == 0 || count == 0 {
            return Ok(());
        }
        assert!(
            source.fit(width, count, from.bytes()) && target.fit(width, count, to.bytes()),
            "a copy stays within its buffers"
        );
        let ((src_type, src_host, src_device), (dst_type, dst_host, dst_device)) = (from.place(), to.place());
        let copy = sys::CUDA_MEMCPY2D {
            srcXInBytes: source.start,
            srcY: 0,
            srcMemoryType: src_type,
            srcHost: src_host,
            srcDevice: src_device,
            srcArray: std::ptr::null_mut(),
            srcPitch: source.pitch,
            dstXInBytes: target.start,
            dstY: 0,
            dstMemoryType: dst_type,
            dstHost: dst_host,
            dstDevice: dst_device,
            dstArray: std::ptr::null_mut(),
            dstPitch: target.pitch,
            WidthInBytes: width,
            Height: count,
        };
        // SAFETY: within both buffers; the rest is the caller's to vouch for. The driver has read `copy` when it
        // returns.
        unsafe { sys::cuMemcpy2DAsync_v2(&copy, self.stream.cu_stream()) }.result().map_err(failed)
    }

    /// What `work` puts onto the stream that it is given, which then does not compute it, to be done over and over.
    ///
    /// # Errors
    /// `work`'s; [`Kind::Run`] for what the driver does not capture, or makes nothing of. The stream is as before.
    pub(super) fn capture(
        &self,
        work: impl FnOnce(*mut c_void) -> Result<(), TensorRtError>,
    ) -> Result<Graph, TensorRtError> {
        // Other threads may allocate meanwhile; this one does not.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        self.stream.begin_capture(mode).map_err(failed)?;
        let enqueued = work(self.as_ptr());
        // After a failure too: until then the stream takes no other work.
        let captured = self.stream.end_capture(CUgraphInstantiate_flags(0));
        enqueued?;
        let nothing = || TensorRtError::new(Kind::Run, "the GPU", "nothing was captured");
        captured.map_err(failed)?.map(Graph).ok_or_else(nothing)
    }

    /// Waits until all of the work is done.
    pub(super) fn finish(&self) -> Result<(), TensorRtError> {
        self.stream.synchronize().map_err(failed)
    }

    /// How long the parts of the last run took; every mark was passed.
    pub(super) fn times(&self) -> Result<RunTimes, TensorRtError> {
        Ok(RunTimes {
            upload_ms: self.between(Mark::Start, Mark::Fed)?,
            compute_ms: self.between(Mark::Fed, Mark::Computed)?,
            download_ms: self.between(Mark::Computed, Mark::Fetched)?,
        })
    }

    /// Milliseconds between two marks that were passed.
    pub(super) fn between(&self, from: Mark, to: Mark) -> Result<f32, TensorRtError> {
        let (from, to) = (&self.marks[from as usize], &self.marks[to as usize]);
        from.elapsed_ms(to).map_err(failed)
    }
}

/// Work that was captured from a stream, for that stream.
pub(super) struct Graph(CudaGraph);

// SAFETY: a graph is bound to no thread, only to one at a time, which `!Sync` keeps.
unsafe impl Send for Graph {}

impl Graph {
    /// Puts the work onto its stream.
    ///
    /// # Safety
    /// All memory that the work uses is where it was when it was captured, and stays until the stream was waited for;
    /// what was captured from is as it was.
    pub(super) unsafe fn launch(&self) -> Result<(), TensorRtError> {
        self.0.launch().map_err(failed)
    }
}
