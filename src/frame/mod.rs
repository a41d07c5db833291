//! Camera frames: encodings on the wire to plain RGB.

mod container;
mod decode;
mod error;

pub use decode::{Encoded, Encoding, FrameLimits, decode, probe};
pub use error::{FrameError, FrameErrorKind};

use crate::geometry::{Size, SourcePx};

/// A decoded frame: `u8[height, width, 3]`, RGB, row-major, no padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    size: Size<SourcePx>,
    rgb: Vec<u8>,
}

impl Image {
    /// An image from packed RGB bytes; `None` where their number is not `3 * width * height` or the image is empty.
    pub fn from_rgb(size: Size<SourcePx>, rgb: Vec<u8>) -> Option<Self> {
        (size.pixels() > 0 && rgb.len() == size.pixels() * 3).then_some(Self { size, rgb })
    }

    /// Size in source pixels.
    pub fn size(&self) -> Size<SourcePx> {
        self.size
    }

    /// The bytes, `[height, width, 3]`.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }
}
