//! The shim's functions with `Result` for null and false, and Rust's texts and bytes for C's.
//!
//! Every function is `unsafe` for one reason: the pointers it is given must be those of living objects that no other
//! thread uses. `safe` keeps that.

#![allow(clippy::missing_safety_doc)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;
use std::ptr::{self, NonNull};

use super::sys;

/// TensorRT answered null or false; what it said about it is in the recorder and the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

/// A pointer that is there, or [`Refused`].
pub fn made<T>(pointer: *mut T) -> Result<NonNull<T>, Refused> {
    NonNull::new(pointer).ok_or(Refused)
}

/// True, or [`Refused`].
pub fn done(answer: bool) -> Result<(), Refused> {
    answer.then_some(()).ok_or(Refused)
}

/// A text of TensorRT's; empty for null.
pub unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: TensorRT's texts end with a zero and live at least as long as this call.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

/// A name or a path for TensorRT; one with a zero byte in it is refused.
pub fn c_text(text: impl Into<Vec<u8>>) -> Result<CString, Refused> {
    CString::new(text).map_err(|_| Refused)
}

/// As [`c_text`], of a path.
pub fn c_path(path: &Path) -> Result<CString, Refused> {
    c_text(path.as_os_str().as_encoded_bytes())
}

/// A buffer that the shim writes a message into.
pub struct Message([u8; 512]);

impl Message {
    /// An empty one.
    pub fn new() -> Self {
        Self([0; 512])
    }

    /// Where to write.
    pub fn as_mut_ptr(&mut self) -> *mut c_char {
        self.0.as_mut_ptr().cast()
    }

    /// How much there is room for, with the zero.
    pub fn room(&self) -> usize {
        self.0.len()
    }

    /// What was written.
    pub fn to_text(&self) -> String {
        CStr::from_bytes_until_nul(&self.0).map_or_else(|_| String::new(), |text| text.to_string_lossy().into_owned())
    }
}

/// Opens the libraries in `directory`, or where the system looks for them; the message says what is missing.
pub fn open(directory: Option<&Path>) -> Result<NonNull<sys::Library>, String> {
    let mut message = Message::new();
    let directory = directory.map(c_path).transpose().map_err(|Refused| "its folder has a zero byte".to_owned())?;
    let directory = directory.as_ref().map_or(ptr::null(), |directory| directory.as_ptr());
    // SAFETY: the texts outlive the call, and the message has the room that is told. Loading a library runs its
    // initialisers; that they are TensorRT's is what its user vouches for by installing it.
    let library = unsafe { sys::trt_open(directory, message.as_mut_ptr(), message.room()) };
    made(library).map_err(|Refused| message.to_text())
}

/// Takes what a recorder holds: codes and texts.
pub unsafe fn recorded(recorder: NonNull<sys::Recorder>) -> Vec<(i32, String)> {
    extern "C" fn push(user: *mut c_void, code: i32, said: *const c_char) {
        // SAFETY: `user` is the vector below, which nothing else touches during the call; `said` is a living text.
        unsafe { (*user.cast::<Vec<(i32, String)>>()).push((code, text(said))) }
    }
    let mut errors: Vec<(i32, String)> = Vec::new();
    // SAFETY: the recorder lives, says the caller; `push` is called only before this returns.
    unsafe { sys::trt_recorder_take(recorder.as_ptr(), push, (&raw mut errors).cast()) };
    errors
}

/// The engine's layers as the inspector tells them: JSON.
pub unsafe fn describe(engine: NonNull<sys::Engine>) -> Result<String, Refused> {
    extern "C" fn keep(user: *mut c_void, said: *const c_char) {
        // SAFETY: `user` is the text below, which nothing else touches during the call; `said` is a living text.
        unsafe { *user.cast::<String>() = text(said) }
    }
    let mut json = String::new();
    // SAFETY: the engine lives, says the caller; `keep` is called only before this returns.
    done(unsafe { sys::trt_engine_describe(engine.as_ptr(), keep, (&raw mut json).cast()) })?;
    Ok(json)
}

/// The bytes of a block of memory, for as long as the block lives.
pub unsafe fn bytes<'m>(memory: NonNull<sys::Memory>) -> &'m [u8] {
    // SAFETY: the block lives for `'m`, says the caller.
    let (data, size) = unsafe { (sys::trt_memory_data(memory.as_ptr()), sys::trt_memory_size(memory.as_ptr())) };
    if data.is_null() || size == 0 {
        return &[];
    }
    // SAFETY: an `IHostMemory` has `size` initialised bytes at `data`, which nobody writes while it lives.
    unsafe { std::slice::from_raw_parts(data, size) }
}

/// The used part of a tensor's dimensions; `None` for a rank that is out of range, as an unknown tensor has.
pub fn dims(dims: &[i64; sys::MAX_DIMS], rank: i32) -> Option<&[i64]> {
    usize::try_from(rank).ok().and_then(|rank| dims.get(..rank))
}
