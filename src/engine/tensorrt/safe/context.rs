//! Shapes and addresses in, work on a stream out.

use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::super::error::{TensorRtError, TensorRtErrorKind as Kind};
use super::super::result::{self, Refused, c_text, made};
use super::super::sys;
use super::runtime::HeldEngine;

/// Finds device memory for outputs whose size is known only once they are computed.
///
/// # Safety
/// The address that [`grow`](Self::grow) returns is null or leads to at least `size` bytes of device memory, aligned to
/// `align`, that stay valid until the work that was enqueued with them is done.
pub unsafe trait OutputAllocator: Send {
    /// Memory for output `name`; null refuses. `held` is what the last call for it returned; `stream` is the one that
    /// the work runs on.
    fn grow(&mut self, name: &str, held: *mut c_void, size: u64, align: u64, stream: *mut c_void) -> *mut c_void;

    /// The output's shape is known.
    fn shape(&mut self, name: &str, dims: &[i64]);
}

/// What a context holds for an allocator: at a fixed address, as TensorRT has it.
struct Allocation {
    raw: NonNull<sys::Allocator>,
    /// From `Box::into_raw`: only TensorRT's calls and `Drop` use it.
    user: NonNull<Box<dyn OutputAllocator>>,
}

/// One computation at a time with an engine, which it keeps alive.
pub struct Context {
    raw: NonNull<sys::Context>,
    engine: Arc<HeldEngine>,
    allocations: Vec<Allocation>,
}

// SAFETY: a context is bound to no thread, only to one at a time, which `!Sync` keeps; allocators are `Send`.
unsafe impl Send for Context {}

impl Context {
    /// A context that computes in `bytes` bytes at `memory`; null: in memory of its own.
    ///
    /// # Safety
    /// As of [`Engine::context_in`](super::Engine::context_in), but for null.
    pub(super) unsafe fn new(engine: &Arc<HeldEngine>, memory: *mut c_void, bytes: u64) -> Result<Self, TensorRtError> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        // SAFETY: the engine lives, and the context keeps it alive; the memory is the caller's to vouch for.
        let raw = made(unsafe { sys::trt_context_new(engine.raw.as_ptr(), engine.kernels, memory, bytes) });
        let raw = raw.map_err(|Refused| engine.runtime.error("a context"))?;
        Ok(Self { raw, engine: Arc::clone(engine), allocations: Vec::new() })
    }

    /// Chooses an optimisation profile for what follows.
    ///
    /// # Safety
    /// `stream` is a living `cudaStream_t` of the context's device.
    ///
    /// # Errors
    /// [`Kind::Run`] for a profile that the engine does not have.
    pub unsafe fn set_profile(&mut self, profile: usize, stream: *mut c_void) -> Result<(), TensorRtError> {
        let number = i32::try_from(profile).unwrap_or(i32::MAX);
        // SAFETY: the context lives, and is used by this thread alone; the stream is the caller's to vouch for.
        result::done(unsafe { sys::trt_context_profile(self.raw.as_ptr(), number, stream) })
            .map_err(|Refused| self.engine.runtime.error(format!("profile {profile}")))
    }

    /// Sets an input's shape; it must lie within the profile's reach.
    ///
    /// # Errors
    /// [`Kind::Run`] for an unknown input, a rank above 8, and a shape out of reach.
    pub fn set_input_shape(&mut self, input: &str, dims: &[i64]) -> Result<(), TensorRtError> {
        let name = self.name(input)?;
        if dims.len() > sys::MAX_DIMS {
            return Err(TensorRtError::new(Kind::Run, format!("input `{input}`"), "its rank is above 8"));
        }
        let rank = dims.len() as i32;
        // SAFETY: the context lives, and is used by this thread alone; there are `rank` dimensions.
        result::done(unsafe { sys::trt_context_set_shape(self.raw.as_ptr(), name.as_ptr(), dims.as_ptr(), rank) })
            .map_err(|Refused| self.engine.runtime.error(format!("input `{input}` of shape {dims:?}")))
    }

    /// A tensor's shape under the input shapes that are set; -1 where it is known only once it is computed.
    ///
    /// # Errors
    /// [`Kind::Run`] for an unknown tensor.
    pub fn shape(&self, tensor: &str) -> Result<Vec<i64>, TensorRtError> {
        let (name, mut dims) = (self.name(tensor)?, [0; sys::MAX_DIMS]);
        // SAFETY: the context lives; there is room for the most dimensions.
        let rank = unsafe { sys::trt_context_shape(self.raw.as_ptr(), name.as_ptr(), dims.as_mut_ptr()) };
        let shape = result::dims(&dims, rank).map(<[i64]>::to_vec);
        shape.ok_or_else(|| self.engine.runtime.error(format!("tensor `{tensor}`")))
    }

    /// Whether the shapes that are set are all that is needed, and agree with each other.
    ///
    /// # Errors
    /// [`Kind::Shapes`] with the name of an input whose shape is missing, [`Kind::Run`] where inputs do not agree.
    pub fn check_shapes(&mut self) -> Result<(), TensorRtError> {
        let mut name = ptr::null();
        // SAFETY: the context lives; there is room for one name, which lives as long as the engine.
        let count = unsafe { sys::trt_context_unknown(self.raw.as_ptr(), &mut name) };
        match count {
            0 => Ok(()),
            1.. => {
                // SAFETY: as above.
                let name = unsafe { result::text(name) };
                Err(TensorRtError::new(Kind::Shapes, format!("input `{name}`"), "nobody set its shape"))
            }
            _ => Err(self.engine.runtime.error("these input shapes together")),
        }
    }

    /// Sets where a tensor is, or goes.
    ///
    /// # Safety
    /// `address` leads to device memory for the whole tensor, in every shape that is enqueued with it, aligned to 256
    /// bytes; it stays valid, and nothing else writes there, until that work is done or another address is set.
    ///
    /// # Errors
    /// [`Kind::Run`] for an unknown tensor.
    pub unsafe fn set_address(&mut self, tensor: &str, address: *mut c_void) -> Result<(), TensorRtError> {
        let name = self.name(tensor)?;
        // SAFETY: the context lives, and is used by this thread alone; the address is the caller's to vouch for.
        result::done(unsafe { sys::trt_context_set_address(self.raw.as_ptr(), name.as_ptr(), address) })
            .map_err(|Refused| self.engine.runtime.error(format!("address of `{tensor}`")))
    }

    /// Has `allocator` find the memory for an output; it is kept as long as the context.
    ///
    /// # Errors
    /// [`Kind::Run`] for an unknown output.
    pub fn set_allocator(&mut self, output: &str, allocator: Box<dyn OutputAllocator>) -> Result<(), TensorRtError> {
        let name = self.name(output)?;
        let user = NonNull::from(Box::leak(Box::new(allocator)));
        // SAFETY: `user` is kept as long as the allocator.
        let raw = NonNull::new(unsafe { sys::trt_allocator_new(grow, notify, user.as_ptr().cast()) });
        let raw = raw.expect("there is memory for an allocator");
        self.allocations.push(Allocation { raw, user });
        // SAFETY: the context lives, and is used by this thread alone; the allocator is kept until it is gone.
        result::done(unsafe { sys::trt_context_allocator(self.raw.as_ptr(), name.as_ptr(), raw.as_ptr()) })
            .map_err(|Refused| self.engine.runtime.error(format!("allocator of `{output}`")))
    }

    /// Whether [`enqueue`](Self::enqueue) with what is set can be captured as a CUDA graph, as far as TensorRT tells.
    ///
    /// # Safety
    /// `stream` is a living `cudaStream_t` of the context's device.
    pub unsafe fn is_capturable(&self, stream: *mut c_void) -> bool {
        // SAFETY: the context lives; the stream is the caller's to vouch for.
        unsafe { sys::trt_context_capturable(self.raw.as_ptr(), stream) }
    }

    /// Puts the computation on `stream` and returns before it is done.
    ///
    /// # Safety
    /// `stream` is a living `cudaStream_t` of the context's device, whose CUDA context is current. Nothing of this
    /// context is changed or dropped until the work is done. Every address is as [`set_address`](Self::set_address)
    /// demands.
    ///
    /// # Errors
    /// [`Kind::Run`] where a shape or an address is missing, or a kernel cannot be started.
    pub unsafe fn enqueue(&mut self, stream: *mut c_void) -> Result<(), TensorRtError> {
        // SAFETY: the context lives, and is used by this thread alone; stream and addresses are the caller's to vouch
        // for.
        result::done(unsafe { sys::trt_context_enqueue(self.raw.as_ptr(), stream) })
            .map_err(|Refused| self.engine.runtime.error("the engine"))
    }

    fn name(&self, tensor: &str) -> Result<std::ffi::CString, TensorRtError> {
        let refuse = |Refused| TensorRtError::new(Kind::Run, format!("tensor `{tensor}`"), "its name has a zero byte");
        c_text(tensor).map_err(refuse)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context goes before its allocators, which it refers to, and the engine, which it holds.
        unsafe { sys::trt_context_free(self.raw.as_ptr()) };
        for Allocation { raw, user } in self.allocations.drain(..) {
            // SAFETY: both are this context's alone; `user` came from a box.
            unsafe {
                sys::trt_allocator_free(raw.as_ptr());
                drop(Box::from_raw(user.as_ptr()));
            }
        }
    }
}

extern "C" fn grow(
    user: *mut c_void,
    name: *const c_char,
    held: *mut c_void,
    size: u64,
    align: u64,
    stream: *mut c_void,
) -> *mut c_void {
    // SAFETY: `user` is the allocator that the context keeps; TensorRT calls from the thread that enqueues, and Rust
    // has no reference to it meanwhile. The name lives during the call.
    let (allocator, name) = unsafe { (&mut *user.cast::<Box<dyn OutputAllocator>>(), result::text(name)) };
    // A panic must not leave through C++; the output is refused instead.
    catch_unwind(AssertUnwindSafe(|| allocator.grow(&name, held, size, align, stream))).unwrap_or(ptr::null_mut())
}

extern "C" fn notify(user: *mut c_void, name: *const c_char, dims: *const i64, rank: i32) {
    // SAFETY: as in `grow`; there are `rank` dimensions.
    let (allocator, name) = unsafe { (&mut *user.cast::<Box<dyn OutputAllocator>>(), result::text(name)) };
    let rank = usize::try_from(rank).unwrap_or(0);
    let dims = match rank {
        0 => &[][..],
        // SAFETY: as above.
        rank => unsafe { std::slice::from_raw_parts(dims, rank) },
    };
    let told = catch_unwind(AssertUnwindSafe(|| allocator.shape(&name, dims)));
    if told.is_err() {
        tracing::error!(target: "tensorrt", output = name, "an output allocator panicked");
    }
}
