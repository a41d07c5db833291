//! Wire encodings to [`Image`]. Everything that can be checked without decoding is checked first.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use image::{DynamicImage, ImageDecoder, codecs};

use super::bayer::demosaic;
use super::container::{sniff, walk_jpeg, walk_png};
use super::convert::{Matrix, Samples, grey_row, packed_row, yuv_row};
use super::layout::{Plane, Planes, planes};
use super::{Encoding, FrameError, FrameErrorKind, Image, Layout, webp};
use crate::geometry::{Size, SourcePx};

/// A frame as it was sent.
#[derive(Debug, Clone, Copy)]
pub struct Encoded<'a> {
    /// How the pixels are written.
    pub encoding: Encoding,
    /// Where they lie; of a file only width and height count.
    pub layout: Layout,
    /// The file or the rows.
    pub data: &'a [u8],
}

impl<'a> Encoded<'a> {
    /// A file of whatever size it is; `None` where the data is none of the kinds that are known.
    pub fn sniffed(data: &'a [u8]) -> Option<Self> {
        Some(Self { encoding: sniff(data)?, layout: Layout::default(), data })
    }
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
/// Every [`FrameErrorKind`] but [`FrameErrorKind::Depth`]. A file that passes may still turn out corrupt in [`decode`];
/// a raw frame does not.
pub fn probe(frame: &Encoded<'_>, limits: FrameLimits) -> Result<Size<SourcePx>, FrameError> {
    if frame.encoding.is_file() {
        return probe_file(frame, limits);
    }
    let size = accept(frame.layout.width, frame.layout.height, limits)?;
    planes(frame.encoding, &frame.layout, frame.data.len())?;
    Ok(size)
}

/// Decodes a frame to RGB; [`probe`] comes first.
///
/// # Errors
/// As for [`probe`].
pub fn decode(frame: &Encoded<'_>, limits: FrameLimits) -> Result<Image, FrameError> {
    let size = probe(frame, limits)?;
    let rgb = if frame.encoding.is_file() { decode_file(frame, size, limits)? } else { decode_rows(frame, size)? };
    image(size, rgb)
}

/// As [`decode`], of data that is not needed any more: packed `rgb8` becomes the image without a copy.
///
/// # Errors
/// As for [`probe`].
pub fn decode_owned(
    encoding: Encoding,
    layout: &Layout,
    data: Bytes,
    limits: FrameLimits,
) -> Result<Image, FrameError> {
    let frame = Encoded { encoding, layout: *layout, data: &data };
    if encoding == Encoding::Rgb8 {
        let size = probe(&frame, limits)?;
        if planes(encoding, layout, data.len())?.first.is_packed() {
            return image(size, data);
        }
    }
    decode(&frame, limits)
}

fn image(size: Size<SourcePx>, rgb: impl Into<Bytes>) -> Result<Image, FrameError> {
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
    let found = sniff(frame.data);
    if found != Some(named) {
        let found = found.map_or("neither JPEG, PNG nor WebP", Encoding::name);
        let what = format!("the encoding is {:?}, the data is {found}", named.name());
        return Err(FrameError::new(FrameErrorKind::Encoding, what));
    }
    let header = match named {
        Encoding::Png => walk_png(frame.data),
        Encoding::Webp => webp::walk(frame.data)?,
        _ => walk_jpeg(frame.data),
    };
    let (width, height) =
        header.size.ok_or_else(|| FrameError::new(FrameErrorKind::Data, "the file ends before its header does"))?;
    let size = accept(width, height, limits)?;
    let Layout { width: said_width, height: said_height, .. } = frame.layout;
    let differs = |said: u32, is: u32| said != 0 && said != is;
    if differs(said_width, width) || differs(said_height, height) {
        let what = format!(
            "the frame says {said_width}x{said_height}, its file {width}x{height}; leave width and height 0 for files"
        );
        return Err(FrameError::new(FrameErrorKind::Layout, what));
    }
    if !header.complete {
        return Err(FrameError::new(FrameErrorKind::Data, "the file is truncated"));
    }
    Ok(size)
}

fn decode_file(frame: &Encoded<'_>, size: Size<SourcePx>, limits: FrameLimits) -> Result<Vec<u8>, FrameError> {
    let corrupt = |what: String| FrameError::new(FrameErrorKind::Data, what);
    // The decoders are other people's code on outside bytes: a panic there is a bad frame, not a broken node.
    let decoded = catch_unwind(AssertUnwindSafe(|| -> image::ImageResult<DynamicImage> {
        let limits = decoder_limits(limits);
        let data = Cursor::new(frame.data);
        match frame.encoding {
            Encoding::Png => {
                let mut decoder = codecs::png::PngDecoder::with_limits(data, limits.clone())?;
                decoder.set_limits(limits)?;
                DynamicImage::from_decoder(decoder)
            }
            Encoding::Webp => {
                // Behind its own end a decoder might find what was not walked.
                let mut decoder = codecs::webp::WebPDecoder::new(Cursor::new(webp::extent(frame.data)))?;
                decoder.set_limits(limits)?;
                DynamicImage::from_decoder(decoder)
            }
            _ => {
                let mut decoder = codecs::jpeg::JpegDecoder::new(data)?;
                decoder.set_limits(limits)?;
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

/// Converts a raw frame row by row.
fn decode_rows(frame: &Encoded<'_>, size: Size<SourcePx>) -> Result<Vec<u8>, FrameError> {
    let (data, layout) = (frame.data, &frame.layout);
    let Planes { first, chroma } = planes(frame.encoding, layout, data.len())?;
    let (width, high) = (size.width as usize, usize::from(!layout.big_endian));
    let matrix = Matrix::of(layout.full_range);
    let mut rgb = vec![0; size.pixels() * 3];
    let mut rows = |convert: &dyn Fn(&[u8], &mut [u8])| {
        first.lines(data).zip(rgb.chunks_exact_mut(3 * width)).for_each(|(row, out)| convert(row, out));
    };
    match frame.encoding {
        // The caller goes another way with files.
        Encoding::Jpeg | Encoding::Png | Encoding::Webp => {}
        Encoding::Rgb8 => rows(&|row, out| out.copy_from_slice(row)),
        Encoding::Bgr8 => rows(&|row, out| packed_row::<3>(row, [2, 1, 0], out)),
        Encoding::Rgba8 => rows(&|row, out| packed_row::<4>(row, [0, 1, 2], out)),
        Encoding::Bgra8 => rows(&|row, out| packed_row::<4>(row, [2, 1, 0], out)),
        Encoding::Mono8 => rows(&|row, out| grey_row::<1>(row, 0, out)),
        Encoding::Mono16 => rows(&|row, out| grey_row::<2>(row, high, out)),
        Encoding::Yuyv => {
            rows(&|row, out| yuv_row(matrix, Samples::Interleaved { row, y: [0, 2], u: 1, v: 3 }, out));
        }
        Encoding::Uyvy => {
            rows(&|row, out| yuv_row(matrix, Samples::Interleaved { row, y: [1, 3], u: 0, v: 2 }, out));
        }
        Encoding::Nv12 | Encoding::Nv21 => {
            let (u, v) = if frame.encoding == Encoding::Nv12 { (0, 1) } else { (1, 0) };
            let chroma = chroma.map(|plane| plane.lines(data)).into_iter().flatten();
            let pairs = first.lines(data).zip(chroma.flat_map(|row| [row, row]));
            for ((luma, chroma), out) in pairs.zip(rgb.chunks_exact_mut(3 * width)) {
                yuv_row(matrix, Samples::Planar { luma, chroma, u, v }, out);
            }
        }
        Encoding::Bayer8(mosaic) => demosaic(mosaic, &grey(&first, data, 1, 0), width, &mut rgb),
        Encoding::Bayer16(mosaic) => demosaic(mosaic, &grey(&first, data, 2, high), width, &mut rgb),
    }
    Ok(rgb)
}

/// A plane without padding, one byte of each sample.
fn grey(plane: &Plane, data: &[u8], sample_bytes: usize, at: usize) -> Vec<u8> {
    plane.lines(data).flat_map(|row| row.chunks_exact(sample_bytes).map(move |sample| sample[at])).collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
