//! Wire encodings to [`Image`]. Everything that can be checked without decoding is checked first.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::{DynamicImage, ImageDecoder, codecs};

use super::container::{png_complete, png_size, sniff, walk_jpeg};
use super::{FrameError, FrameErrorKind, Image};
use crate::geometry::{Size, SourcePx};

/// How a frame's pixels are written. Raw encodings carry the names of ROS `sensor_msgs/image_encodings`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// A JPEG file.
    Jpeg,
    /// A PNG file; 16-bit samples are reduced to 8, transparency is ignored.
    Png,
    /// Red, green, blue, a byte each.
    Rgb8,
    /// Blue, green, red, a byte each.
    Bgr8,
    /// Grey, one byte.
    Mono8,
}

impl Encoding {
    /// Every encoding.
    pub const ALL: [Self; 5] = [Self::Jpeg, Self::Png, Self::Rgb8, Self::Bgr8, Self::Mono8];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::Rgb8 => "rgb8",
            Self::Bgr8 => "bgr8",
            Self::Mono8 => "mono8",
        }
    }

    /// The encoding of that name.
    ///
    /// # Errors
    /// [`FrameErrorKind::Encoding`] for any other name.
    pub fn from_name(name: &str) -> Result<Self, FrameError> {
        Self::ALL.into_iter().find(|e| e.name() == name).ok_or_else(|| {
            let shown: String = name.chars().take(32).collect();
            let known = Self::ALL.map(Self::name).join(", ");
            FrameError::new(FrameErrorKind::Encoding, format!("encoding {shown:?} is not one of {known}"))
        })
    }

    /// Bytes per pixel of a raw encoding; `None` for files.
    pub fn pixel_bytes(self) -> Option<u32> {
        match self {
            Self::Jpeg | Self::Png => None,
            Self::Rgb8 | Self::Bgr8 => Some(3),
            Self::Mono8 => Some(1),
        }
    }
}

/// A frame as it was sent.
#[derive(Debug, Clone, Copy)]
pub struct Encoded<'a> {
    /// How the pixels are written.
    pub encoding: Encoding,
    /// Columns; 0 in a file's case where the sender leaves it to the file.
    pub width: u32,
    /// Rows; likewise.
    pub height: u32,
    /// Bytes from one row to the next for raw encodings; 0 for packed rows. Ignored for files.
    pub step: u32,
    /// The file or the rows.
    pub data: &'a [u8],
}

/// The largest frames that are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// Pixels. Default: 32 * 2^20. At least 1.
    pub max_pixels: u64,
    /// Columns and rows, each. Default: 16384. At least 1.
    pub max_side: u32,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self { max_pixels: 32 << 20, max_side: 16384 }
    }
}

/// Checks a frame without decoding it, and tells its size. Reads headers and markers only.
///
/// # Errors
/// Every [`FrameErrorKind`]. A frame that passes may still turn out corrupt in [`decode`].
pub fn probe(frame: &Encoded<'_>, limits: FrameLimits) -> Result<Size<SourcePx>, FrameError> {
    match frame.encoding {
        Encoding::Jpeg | Encoding::Png => probe_file(frame, limits),
        Encoding::Rgb8 | Encoding::Bgr8 | Encoding::Mono8 => {
            let size = accept(frame.width, frame.height, limits)?;
            rows(frame)?;
            Ok(size)
        }
    }
}

/// Decodes a frame to RGB; [`probe`] comes first.
///
/// # Errors
/// Every [`FrameErrorKind`].
pub fn decode(frame: &Encoded<'_>, limits: FrameLimits) -> Result<Image, FrameError> {
    let size = probe(frame, limits)?;
    let rgb = match frame.encoding {
        Encoding::Jpeg | Encoding::Png => decode_file(frame, size, limits)?,
        Encoding::Rgb8 => raw(frame, |p, out| out.extend_from_slice(p))?,
        Encoding::Bgr8 => {
            raw(frame, |row, out| row.chunks_exact(3).for_each(|p| out.extend_from_slice(&[p[2], p[1], p[0]])))?
        }
        Encoding::Mono8 => raw(frame, |row, out| row.iter().for_each(|&v| out.extend_from_slice(&[v; 3])))?,
    };
    Image::from_rgb(size, rgb)
        .ok_or_else(|| FrameError::new(FrameErrorKind::Data, "the number of pixels is not what the header says"))
}

fn accept(width: u32, height: u32, limits: FrameLimits) -> Result<Size<SourcePx>, FrameError> {
    if width == 0 || height == 0 {
        return Err(FrameError::new(FrameErrorKind::Layout, format!("a size of {width}x{height} is empty")));
    }
    let pixels = u64::from(width) * u64::from(height);
    if pixels > limits.max_pixels || width.max(height) > limits.max_side {
        let what = format!(
            "{width}x{height} is larger than {} pixels or {} pixels a side",
            limits.max_pixels, limits.max_side
        );
        return Err(FrameError::new(FrameErrorKind::TooLarge, what));
    }
    Ok(Size::new(width, height))
}

fn probe_file(frame: &Encoded<'_>, limits: FrameLimits) -> Result<Size<SourcePx>, FrameError> {
    let named = frame.encoding;
    if sniff(frame.data) != Some(named) {
        let found = sniff(frame.data).map_or("neither a JPEG nor a PNG file", |e| match e {
            Encoding::Png => "a PNG file",
            _ => "a JPEG file",
        });
        let what = format!("the encoding is {:?}, the data is {found}", named.name());
        return Err(FrameError::new(FrameErrorKind::Encoding, what));
    }
    let (size, complete) = match named {
        Encoding::Png => (png_size(frame.data), png_complete(frame.data)),
        _ => {
            let jpeg = walk_jpeg(frame.data);
            (jpeg.size, jpeg.complete)
        }
    };
    let (width, height) =
        size.ok_or_else(|| FrameError::new(FrameErrorKind::Data, "the file ends before its header does"))?;
    let size = accept(width, height, limits)?;
    let differs = |said: u32, is: u32| said != 0 && said != is;
    if differs(frame.width, width) || differs(frame.height, height) {
        let what = format!("the frame says {}x{}, its file {width}x{height}", frame.width, frame.height);
        return Err(FrameError::new(FrameErrorKind::Layout, what));
    }
    if !complete {
        return Err(FrameError::new(FrameErrorKind::Data, "the file is truncated"));
    }
    Ok(size)
}

fn decode_file(frame: &Encoded<'_>, size: Size<SourcePx>, limits: FrameLimits) -> Result<Vec<u8>, FrameError> {
    let corrupt = |what: String| FrameError::new(FrameErrorKind::Data, what);
    // The decoders are other people's code on outside bytes: a panic there is a bad frame, not a broken node.
    let decoded = catch_unwind(AssertUnwindSafe(|| -> image::ImageResult<DynamicImage> {
        let data = Cursor::new(frame.data);
        match frame.encoding {
            Encoding::Png => {
                let mut decoder = codecs::png::PngDecoder::with_limits(data, decoder_limits(limits))?;
                decoder.set_limits(decoder_limits(limits))?;
                DynamicImage::from_decoder(decoder)
            }
            _ => {
                let mut decoder = codecs::jpeg::JpegDecoder::new(data)?;
                decoder.set_limits(decoder_limits(limits))?;
                DynamicImage::from_decoder(decoder)
            }
        }
    }));
    let image = match decoded {
        Ok(Ok(image)) => image.into_rgb8(),
        Ok(Err(error)) => return Err(corrupt(error.to_string())),
        Err(_) => return Err(corrupt("the decoder gave up".to_owned())),
    };
    if (image.width(), image.height()) != (size.width, size.height) {
        return Err(corrupt("the number of pixels is not what the header says".to_owned()));
    }
    Ok(image.into_raw())
}

fn decoder_limits(limits: FrameLimits) -> image::Limits {
    let mut out = image::Limits::default();
    (out.max_image_width, out.max_image_height) = (Some(limits.max_side), Some(limits.max_side));
    // Up to four 16-bit samples a pixel, twice over, and something for tables.
    out.max_alloc = Some(limits.max_pixels.saturating_mul(16).saturating_add(1 << 20));
    out
}

/// Row length and step of a raw frame, in bytes, once both fit its data.
fn rows(frame: &Encoded<'_>) -> Result<(usize, usize), FrameError> {
    let layout = |what: String| FrameError::new(FrameErrorKind::Layout, what);
    let pixel = u64::from(frame.encoding.pixel_bytes().unwrap_or(1));
    let (row, height) = (u64::from(frame.width) * pixel, u64::from(frame.height));
    let step = if frame.step == 0 { row } else { u64::from(frame.step) };
    if step < row {
        return Err(layout(format!("a step of {step} bytes is smaller than a row of {row}")));
    }
    let (full, least) = (step * height, step * (height - 1) + row);
    let length = frame.data.len() as u64;
    if length != full && length != least {
        return Err(layout(format!("{length} bytes of data, expected {full}")));
    }
    let fits = |v: u64| usize::try_from(v).map_err(|_| layout(format!("a row of {v} bytes")));
    Ok((fits(row)?, fits(step)?))
}

fn raw(frame: &Encoded<'_>, convert: impl Fn(&[u8], &mut Vec<u8>)) -> Result<Vec<u8>, FrameError> {
    let (row, step) = rows(frame)?;
    let mut rgb = Vec::with_capacity(frame.width as usize * frame.height as usize * 3);
    for line in frame.data.chunks(step).take(frame.height as usize) {
        convert(&line[..row], &mut rgb);
    }
    Ok(rgb)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
