//! Camera frames: encodings on the wire to plain RGB, depth images beside them, and the cameras' intrinsics.
//!
//! Pixels stay where the sender put them: nothing here turns, crops or scales a frame, whatever its EXIF says, so that
//! a mask of the decoded frame is a mask of the frame as it was sent.

mod bayer;
mod container;
mod convert;
mod decode;
mod depth;
mod encoding;
mod error;
mod layout;
mod webp;

pub use decode::{Encoded, FrameLimits, decode, decode_owned, probe};
pub use depth::{Depth, DepthEncoding, Intrinsics};
pub use encoding::{Encoding, Mosaic};
pub use error::{FrameError, FrameErrorKind};
pub use layout::Layout;

use bytes::Bytes;

use crate::geometry::{Size, SourcePx};

/// A decoded frame: `u8[height, width, 3]`, RGB, row-major, no padding. Clones share the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    size: Size<SourcePx>,
    rgb: Bytes,
}

impl Image {
    /// An image from packed RGB bytes; `None` where their number is not `3 * width * height` or the image is empty.
    pub fn from_rgb(size: Size<SourcePx>, rgb: impl Into<Bytes>) -> Option<Self> {
        let rgb = rgb.into();
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
