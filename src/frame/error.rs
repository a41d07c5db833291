//! Why a frame could not be read.

/// Kinds of [`FrameError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FrameErrorKind {
    /// The encoding is not supported, or the data is something else than it says.
    Encoding,
    /// More pixels or a longer side than the limits allow.
    TooLarge,
    /// Width, height, step and length of the data contradict each other.
    Layout,
    /// The data is truncated or corrupt.
    Data,
    /// The depth image beside the frame, or the camera's intrinsics, cannot be used.
    Depth,
}

/// A frame could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} frame: {what}", match .kind {
    FrameErrorKind::Encoding => "recognise",
    FrameErrorKind::TooLarge => "accept",
    FrameErrorKind::Layout => "lay out",
    FrameErrorKind::Data => "decode",
    FrameErrorKind::Depth => "use depth of",
})]
pub struct FrameError {
    kind: FrameErrorKind,
    what: String,
}

impl FrameError {
    pub(super) fn new(kind: FrameErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into() }
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> FrameErrorKind {
        self.kind
    }
}
