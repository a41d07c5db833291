//! Plans to engines.

use std::cell::Cell;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::super::error::{TensorRtError, TensorRtErrorKind as Kind};
use super::super::result::{self, Refused, c_path, c_text, made};
use super::super::sys;
use super::context::Context;
use super::library::Library;
use super::recorder::Recorder;
use crate::engine::tensorrt::plan::Plan;

/// Loads plans. Needs a driver and a GPU.
#[derive(Debug)]
pub struct Runtime {
    held: Arc<HeldRuntime>,
    /// Used by one thread at a time.
    not_sync: PhantomData<Cell<()>>,
}

#[derive(Debug)]
pub(super) struct HeldRuntime {
    raw: NonNull<sys::Runtime>,
    library: Library,
    recorder: Recorder,
}

// SAFETY: a runtime is bound to no thread. It is called through `Runtime` alone, which is not `Sync`; those who share
// this only keep it alive and read the recorder, which is `Sync`.
unsafe impl Send for HeldRuntime {}
// SAFETY: as for `Send`.
unsafe impl Sync for HeldRuntime {}

impl HeldRuntime {
    pub(super) fn error(&self, subject: impl Into<String>) -> TensorRtError {
        self.recorder.error(Kind::Run, subject)
    }
}

impl Drop for HeldRuntime {
    fn drop(&mut self) {
        // SAFETY: every engine holds its runtime, so none is left.
        unsafe { sys::trt_runtime_free(self.raw.as_ptr()) };
    }
}

impl Runtime {
    /// A runtime of the libraries.
    ///
    /// # Errors
    /// [`Kind::Run`] where TensorRT makes none, as without a driver.
    pub fn new(library: Library) -> Result<Self, TensorRtError> {
        let recorder = Recorder::new();
        // SAFETY: the table holds a function of the libraries, whose version `Library` has checked; the recorder goes
        // after the runtime.
        let raw = made(unsafe { sys::trt_runtime_new(library.as_ptr(), recorder.as_ptr()) })
            .map_err(|Refused| recorder.error(Kind::Run, "a runtime"))?;
        Ok(Self { held: Arc::new(HeldRuntime { raw, library, recorder }), not_sync: PhantomData })
    }

    /// Loads a plan, which [`Plan`] has found to be one for these libraries and this GPU.
    ///
    /// # Errors
    /// [`Kind::Plan`] for a file that is not as it was written, [`Kind::Run`] for what TensorRT refuses.
    pub fn load(&mut self, plan: &Plan) -> Result<Engine, TensorRtError> {
        let bytes = plan.read()?;
        // SAFETY: the runtime lives, and is used by this thread alone; the bytes outlive the call and are those that
        // this program wrote, which their hash shows: TensorRT does not defend itself against others.
        let raw = made(unsafe { sys::trt_engine_new(self.held.raw.as_ptr(), bytes.as_ptr(), bytes.len()) });
        let raw = raw.map_err(|Refused| self.held.error(format!("plan `{}`", plan.path().display())))?;
        // SAFETY: the engine lives, and is used by this thread alone.
        let kernels = unsafe { sys::trt_kernels_new(raw.as_ptr()) };
        let held = Arc::new(HeldEngine { raw, kernels, runtime: Arc::clone(&self.held) });
        Ok(Engine { held, not_sync: PhantomData })
    }
}

/// An input or output of an [`Engine`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Whether it is an input.
    pub is_input: bool,
    /// TensorRT's number for the element type: 0 f32, 1 f16, 3 i32, 4 bool, 8 i64.
    pub data_type: i32,
    /// Its dimensions, outermost first; -1 where they vary.
    pub dims: Vec<i64>,
}

/// A loaded plan. Contexts compute with it.
#[derive(Debug)]
pub struct Engine {
    held: Arc<HeldEngine>,
    /// Used by one thread at a time.
    not_sync: PhantomData<Cell<()>>,
}

#[derive(Debug)]
pub(super) struct HeldEngine {
    pub(super) raw: NonNull<sys::Engine>,
    /// What its contexts share; null where that is nothing.
    pub(super) kernels: *mut sys::Kernels,
    pub(super) runtime: Arc<HeldRuntime>,
}

// SAFETY: an engine is bound to no thread. It is called through `Engine` alone, which is not `Sync`; contexts keep it
// alive, and may compute side by side on different threads.
unsafe impl Send for HeldEngine {}
// SAFETY: as for `Send`.
unsafe impl Sync for HeldEngine {}

impl Drop for HeldEngine {
    fn drop(&mut self) {
        // SAFETY: every context holds its engine, so none is left, and nobody uses what they shared.
        unsafe {
            sys::trt_kernels_free(self.kernels);
            sys::trt_engine_free(self.raw.as_ptr());
        }
    }
}

impl Engine {
    /// What it takes and gives.
    pub fn ports(&self) -> Vec<Port> {
        // SAFETY: the engine lives.
        let count = unsafe { sys::trt_engine_tensors(self.held.raw.as_ptr()) };
        let port = |index| {
            let mut tensor = sys::Tensor { data_type: 0, mode: 0, rank: 0, dims: [0; sys::MAX_DIMS] };
            // SAFETY: the engine lives, and so does the name.
            let name = unsafe { sys::trt_engine_tensor(self.held.raw.as_ptr(), index, &mut tensor) };
            let dims = result::dims(&tensor.dims, tensor.rank).filter(|_| !name.is_null())?.to_vec();
            // SAFETY: as above.
            let name = unsafe { result::text(name) };
            Some(Port { name, is_input: tensor.mode == 1, data_type: tensor.data_type, dims })
        };
        (0..count).filter_map(port).collect()
    }

    /// The input whose memory `output` has to have, as it is updated in place; `None` where it has its own.
    pub fn alias(&self, output: &str) -> Option<String> {
        let name = c_text(output).ok()?;
        // SAFETY: the engine and the name live; the answer is null or a name that lives as long as the engine.
        let input = unsafe { result::text(sys::trt_engine_alias(self.held.raw.as_ptr(), name.as_ptr())) };
        (!input.is_empty()).then_some(input)
    }

    /// Number of layers after fusion.
    pub fn layers(&self) -> usize {
        // SAFETY: the engine lives.
        usize::try_from(unsafe { sys::trt_engine_layers(self.held.raw.as_ptr()) }).unwrap_or(0)
    }

    /// Device memory that a context needs beside the weights, in bytes.
    pub fn context_bytes(&self) -> u64 {
        // SAFETY: the engine lives.
        u64::try_from(unsafe { sys::trt_engine_memory(self.held.raw.as_ptr()) }).unwrap_or(0)
    }

    /// Number of optimisation profiles.
    pub fn profiles(&self) -> usize {
        // SAFETY: the engine lives.
        usize::try_from(unsafe { sys::trt_engine_profiles(self.held.raw.as_ptr()) }).unwrap_or(0)
    }

    /// How far `input` reaches in a profile: the smallest, usual and largest shape; `None` where there is no such
    /// input or profile.
    pub fn reach(&self, input: &str, profile: usize) -> Option<[Vec<i64>; 3]> {
        let (name, profile) = (c_text(input).ok()?, i32::try_from(profile).ok()?);
        let shape = |which| {
            let mut dims = [0; sys::MAX_DIMS];
            // SAFETY: the engine and the name live; there is room for the most dimensions.
            let rank = unsafe {
                sys::trt_engine_profile(self.held.raw.as_ptr(), name.as_ptr(), profile, which, dims.as_mut_ptr())
            };
            result::dims(&dims, rank).map(<[i64]>::to_vec)
        };
        Some([shape(0)?, shape(1)?, shape(2)?])
    }

    /// The layers with their types, shapes and kernels: JSON of TensorRT's inspector.
    ///
    /// # Errors
    /// [`Kind::Run`] where there is no inspector.
    pub fn describe(&self) -> Result<String, TensorRtError> {
        // SAFETY: the engine lives, and is used by this thread alone.
        unsafe { result::describe(self.held.raw) }.map_err(|Refused| self.held.runtime.error("the inspector"))
    }

    /// Bytes of weights that may stay in host memory; 0 for plans that were not built so.
    pub fn streamable_bytes(&self) -> u64 {
        // SAFETY: the engine lives.
        u64::try_from(unsafe { sys::trt_engine_streamable(self.held.raw.as_ptr()) }).unwrap_or(0)
    }

    /// Sets how many bytes of the streamable weights are kept on the device.
    ///
    /// # Errors
    /// [`Kind::Run`] while there are contexts, and where TensorRT refuses.
    pub fn keep_on_device(&mut self, bytes: u64) -> Result<(), TensorRtError> {
        let raw = self.alone("the weights' budget")?;
        // SAFETY: the engine lives, and nothing else uses it.
        result::done(unsafe { sys::trt_engine_budget(raw.as_ptr(), i64::try_from(bytes).unwrap_or(i64::MAX)) })
            .map_err(|Refused| self.held.runtime.error("the weights' budget"))
    }

    /// Puts the weights of `onnx`, the graph that the plan was built from, into the engine of a stripped plan.
    ///
    /// # Errors
    /// [`Kind::Run`] while there are contexts, and where TensorRT refuses.
    pub fn refit(&mut self, onnx: &[u8], path: &Path) -> Result<(), TensorRtError> {
        let raw = self.alone("the refit")?;
        let c_path = c_path(path).map_err(|Refused| TensorRtError::new(Kind::Run, "the refit", "a zero byte"))?;
        let library = self.held.runtime.library.as_ptr();
        // SAFETY: the engine lives, and nothing else uses it; bytes and path outlive the call.
        let fitted =
            unsafe { sys::trt_engine_refit(library, raw.as_ptr(), onnx.as_ptr(), onnx.len(), c_path.as_ptr()) };
        result::done(fitted).map_err(|Refused| self.held.runtime.error("the refit"))
    }

    /// A context to compute with.
    ///
    /// # Errors
    /// [`Kind::Run`] where the device has no memory for it.
    pub fn context(&self) -> Result<Context, TensorRtError> {
        // SAFETY: null stands for memory of the context's own.
        unsafe { Context::new(&self.held, ptr::null_mut(), 0) }
    }

    /// A context to compute with in `memory`, which it may share with others.
    ///
    /// # Safety
    /// `memory` leads to [`context_bytes`](Self::context_bytes) bytes of device memory, aligned to 256 bytes, that stay
    /// valid as long as the context; of all contexts in it, one computes at a time.
    ///
    /// # Errors
    /// [`Kind::Run`] where TensorRT refuses.
    pub unsafe fn context_in(&self, memory: *mut c_void) -> Result<Context, TensorRtError> {
        // SAFETY: the caller's to vouch for.
        unsafe { Context::new(&self.held, memory, self.context_bytes()) }
    }

    /// The engine, where nobody computes with it.
    fn alone(&mut self, subject: &str) -> Result<NonNull<sys::Engine>, TensorRtError> {
        let held = Arc::get_mut(&mut self.held);
        held.map(|held| held.raw).ok_or_else(|| TensorRtError::new(Kind::Run, subject, "there are contexts still"))
    }
}
