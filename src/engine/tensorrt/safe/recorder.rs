//! What TensorRT reports about an object, kept for the error that is returned.

use std::ptr::NonNull;

use super::super::error::{TensorRtError, TensorRtErrorKind as Kind};
use super::super::{result, sys};

/// An error recorder; whoever holds the object that reports to it holds it longer than that object.
#[derive(Debug)]
pub(super) struct Recorder(NonNull<sys::Recorder>);

// SAFETY: every function of the shim's recorder takes its lock first; TensorRT demands the same of every recorder.
unsafe impl Send for Recorder {}
// SAFETY: as for `Send`.
unsafe impl Sync for Recorder {}

impl Recorder {
    pub(super) fn new() -> Self {
        // SAFETY: no condition.
        Self(NonNull::new(unsafe { sys::trt_recorder_new() }).expect("there is memory for a recorder"))
    }

    pub(super) fn as_ptr(&self) -> *mut sys::Recorder {
        self.0.as_ptr()
    }

    /// An error of `kind` about `subject`, with all that was reported since the last one.
    pub(super) fn error(&self, kind: Kind, subject: impl Into<String>) -> TensorRtError {
        // SAFETY: the recorder lives as long as `self`.
        let said = unsafe { result::recorded(self.0) };
        let said = said.into_iter().map(|(code, text)| format!("{text} (code {code})")).collect::<Vec<_>>();
        let why = if said.is_empty() { "TensorRT gives no reason".to_owned() } else { said.join("; ") };
        TensorRtError::new(kind, subject, why)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // SAFETY: nothing reports any more: the reporting object is gone before its recorder.
        unsafe { sys::trt_recorder_free(self.0.as_ptr()) };
    }
}
