//! What a camera says of its pixels: encoding, depth, intrinsics.

use super::wire;
use crate::frame::{Depth, DepthEncoding, Encoding, Intrinsics, Layout, Mosaic};
use crate::node::{NodeError, NodeErrorKind};

/// The most coefficients of a lens's distortion; ROS's largest model has 14.
const MAX_DISTORTION: usize = 16;

/// The encoding by name, by number, or by both.
pub(in super::super) fn encoding(name: &str, id: i32) -> Result<Encoding, NodeError> {
    let refuse = |what: String| Err(NodeError::new(NodeErrorKind::FrameEncoding, format!("recognise frame: {what}")));
    let Ok(id) = wire::Encoding::try_from(id) else {
        return refuse(format!("encoding_id {id} is unknown"));
    };
    match (encoding_of(id), name) {
        (None, name) => Ok(Encoding::from_name(name)?),
        (Some(encoding), "") => Ok(encoding),
        (Some(encoding), name) if Encoding::from_name(name)? == encoding => Ok(encoding),
        (Some(encoding), name) => {
            let shown: String = name.chars().take(32).collect();
            refuse(format!("encoding is {shown:?}, encoding_id {:?}; set one of them", encoding.name()))
        }
    }
}

fn encoding_of(id: wire::Encoding) -> Option<Encoding> {
    Some(match id {
        wire::Encoding::Unspecified => return None,
        wire::Encoding::Jpeg => Encoding::Jpeg,
        wire::Encoding::Png => Encoding::Png,
        wire::Encoding::Webp => Encoding::Webp,
        wire::Encoding::Rgb8 => Encoding::Rgb8,
        wire::Encoding::Bgr8 => Encoding::Bgr8,
        wire::Encoding::Rgba8 => Encoding::Rgba8,
        wire::Encoding::Bgra8 => Encoding::Bgra8,
        wire::Encoding::Mono8 => Encoding::Mono8,
        wire::Encoding::Mono16 => Encoding::Mono16,
        wire::Encoding::Nv12 => Encoding::Nv12,
        wire::Encoding::Nv21 => Encoding::Nv21,
        wire::Encoding::Yuyv => Encoding::Yuyv,
        wire::Encoding::Uyvy => Encoding::Uyvy,
        wire::Encoding::BayerRggb8 => Encoding::Bayer8(Mosaic::Rggb),
        wire::Encoding::BayerBggr8 => Encoding::Bayer8(Mosaic::Bggr),
        wire::Encoding::BayerGbrg8 => Encoding::Bayer8(Mosaic::Gbrg),
        wire::Encoding::BayerGrbg8 => Encoding::Bayer8(Mosaic::Grbg),
        wire::Encoding::BayerRggb16 => Encoding::Bayer16(Mosaic::Rggb),
        wire::Encoding::BayerBggr16 => Encoding::Bayer16(Mosaic::Bggr),
        wire::Encoding::BayerGbrg16 => Encoding::Bayer16(Mosaic::Gbrg),
        wire::Encoding::BayerGrbg16 => Encoding::Bayer16(Mosaic::Grbg),
    })
}

pub(super) fn depth(depth: wire::Depth) -> Result<Depth, NodeError> {
    let layout =
        Layout { step: depth.step, big_endian: depth.is_bigendian, ..Layout::packed(depth.width, depth.height) };
    Ok(Depth::new(DepthEncoding::from_name(&depth.encoding)?, &layout, depth.data)?)
}

pub(super) fn intrinsics(intrinsics: &wire::Intrinsics) -> Result<Intrinsics, NodeError> {
    let wire::Intrinsics { fx, fy, cx, cy, ref distortion } = *intrinsics;
    if distortion.len() > MAX_DISTORTION || !distortion.iter().all(|d| d.is_finite()) {
        let what =
            format!("use depth of frame: {} distortion coefficients, expected at most 16 numbers", distortion.len());
        return Err(NodeError::new(NodeErrorKind::FrameDepth, what));
    }
    // The rest is checked with the frame.
    Ok(Intrinsics { fx, fy, cx, cy, distorted: distortion.iter().any(|d| *d != 0.0) })
}

/// As sent, but for the distortion's numbers, which mean nothing here.
pub(super) fn echo(intrinsics: &Intrinsics) -> wire::Intrinsics {
    let Intrinsics { fx, fy, cx, cy, .. } = *intrinsics;
    wire::Intrinsics { fx, fy, cx, cy, distortion: Vec::new() }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_encoding_has_a_number() {
        let ids = (1..100).filter_map(|id| wire::Encoding::try_from(id).ok());
        let of_ids: Vec<Encoding> = ids.map(|id| encoding_of(id).expect("is specified")).collect();
        assert_eq!(of_ids.len(), Encoding::ALL.len());
        assert_eq!(of_ids.iter().collect::<HashSet<_>>(), Encoding::ALL.iter().collect());
        for encoding in of_ids {
            let id = (0..100).find(|id| wire::Encoding::try_from(*id).is_ok_and(|e| encoding_of(e) == Some(encoding)));
            let id = id.expect("was found above");
            // The wire's name is the encoding's.
            let name = wire::Encoding::try_from(id).expect("is known").as_str_name();
            assert_eq!(name.strip_prefix("ENCODING_").map(str::to_lowercase).as_deref(), Some(encoding.name()));
            for name in ["", encoding.name()] {
                assert_eq!(super::encoding(name, id).ok(), Some(encoding));
            }
            assert_eq!(super::encoding(encoding.name(), 0).ok(), Some(encoding));
            let other = if encoding == Encoding::Jpeg { "png" } else { "jpeg" };
            let error = super::encoding(other, id).expect_err("contradicts itself");
            assert_eq!(error.kind(), NodeErrorKind::FrameEncoding);
        }
        assert!(super::encoding("", 99).is_err() && super::encoding("", 0).is_err());
    }
}
