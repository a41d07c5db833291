//! WebP's chunks, as far as they say how large the picture is and whether the file is all there.
//!
//! An extended file gives its size twice, for the canvas and for the picture on it, and a decoder makes room for the
//! picture before it holds the two against each other. So both are read here.
//! Source: RFC 9649, section 2.

use super::container::Header;
use super::{FrameError, FrameErrorKind};

/// The bytes that the file's own header claims, at most; sniffed before.
pub(super) fn extent(data: &[u8]) -> &[u8] {
    let end = le(data, 4, 4).map_or(0, |size| size as usize).saturating_add(8);
    &data[..end.min(data.len())]
}

/// Walks the chunks of a sniffed file.
///
/// # Errors
/// [`FrameErrorKind::Encoding`] for an animation; [`FrameErrorKind::Data`] where the file contradicts itself.
pub(super) fn walk(data: &[u8]) -> Result<Header, FrameError> {
    let corrupt = |what: &str| FrameError::new(FrameErrorKind::Data, what);
    let claimed = le(data, 4, 4).map_or(u64::MAX, |size| u64::from(size) + 8);
    let mut rest = extent(data).get(12..).unwrap_or_default();
    let (mut canvas, mut picture, mut first, mut whole) = (None, None, true, true);
    while let Some((head, after)) = rest.split_at_checked(8) {
        let length = le(head, 4, 4).unwrap_or(0) as usize;
        let cut = after.len() < length;
        let body = &after[..length.min(after.len())];
        match &head[..4] {
            b"VP8X" if first => canvas = extended(body)?,
            b"ANIM" | b"ANMF" => return Err(animation()),
            b"VP8 " | b"VP8L" => {
                if picture.is_some() {
                    return Err(corrupt("the file holds several pictures"));
                }
                picture = if &head[..4] == b"VP8 " { lossy(body) } else { lossless(body) };
                // What a truncated picture will be is still worth knowing: too large comes before too short.
                if picture.is_none() && !cut {
                    return Err(corrupt("the picture's header is not one"));
                }
            }
            _ => {}
        }
        (first, whole) = (false, whole && !cut);
        // Chunks begin at even places; the last one's padding may be missing.
        rest = after.get(length.saturating_add(length % 2)..).unwrap_or_default();
    }
    let complete = whole && claimed <= data.len() as u64 && picture.is_some();
    match (canvas, picture) {
        (Some(canvas), Some(picture)) if canvas != picture => Err(corrupt("canvas and picture differ in size")),
        (_, size) => Ok(Header { size: size.or(canvas), complete }),
    }
}

fn animation() -> FrameError {
    FrameError::new(FrameErrorKind::Encoding, "an animated WebP file is not one picture; send each picture as a frame")
}

/// The canvas of an extended file; `None` where its header is cut.
fn extended(body: &[u8]) -> Result<Option<(u32, u32)>, FrameError> {
    const ANIMATED: u8 = 0x02;
    if body.first().is_some_and(|flags| flags & ANIMATED != 0) {
        return Err(animation());
    }
    Ok(le(body, 4, 3).zip(le(body, 7, 3)).map(|(w, h)| (w + 1, h + 1)))
}

/// Size of a key frame. Source: RFC 6386, section 9.1.
fn lossy(body: &[u8]) -> Option<(u32, u32)> {
    let is_key = body.first()? & 1 == 0 && body.get(3..6)? == [0x9D, 0x01, 0x2A];
    is_key.then(|| Some((le(body, 6, 2)? & 0x3FFF, le(body, 8, 2)? & 0x3FFF))).flatten()
}

/// Size of a lossless picture. Source: RFC 9649, section 3.4.
fn lossless(body: &[u8]) -> Option<(u32, u32)> {
    let bits = le(body, 1, 4)?;
    (body[0] == 0x2F).then_some(((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1))
}

/// A little-endian number of `bytes` bytes at `at`.
fn le(data: &[u8], at: usize, bytes: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(bytes)?)?;
    Some(bytes.iter().rev().fold(0, |sum, b| sum << 8 | u32::from(*b)))
}
