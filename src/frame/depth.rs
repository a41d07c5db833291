//! A depth image that is registered to its colour image: the same size, pixel for pixel, seen from the same lens.

use bytes::Bytes;

use super::{FrameError, FrameErrorKind, Layout};
use crate::geometry::{Size, SourcePx};

/// How depth is written. The names are those of ROS `sensor_msgs/image_encodings`; the units those of REP 118.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DepthEncoding {
    /// `16UC1`: unsigned 16-bit millimetres.
    Millimetres,
    /// `32FC1`: 32-bit float metres.
    Metres,
}

impl DepthEncoding {
    /// Every encoding.
    pub const ALL: [Self; 2] = [Self::Millimetres, Self::Metres];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Millimetres => "16UC1",
            Self::Metres => "32FC1",
        }
    }

    /// The encoding of that name; `mono16` stands for `16UC1`, as it does in ROS's depth pipelines.
    ///
    /// # Errors
    /// [`FrameErrorKind::Depth`] for any other name.
    pub fn from_name(name: &str) -> Result<Self, FrameError> {
        match name {
            "16UC1" | "mono16" => Ok(Self::Millimetres),
            "32FC1" => Ok(Self::Metres),
            _ => {
                let shown: String = name.chars().take(32).collect();
                refuse(format!("encoding {shown:?} is neither 16UC1 (millimetres) nor 32FC1 (metres)"))
            }
        }
    }

    fn sample_bytes(self) -> usize {
        match self {
            Self::Millimetres => 2,
            Self::Metres => 4,
        }
    }
}

/// What lies farther is no measurement, in metres.
const FARTHEST: f32 = 1000.0;

fn refuse<T>(what: String) -> Result<T, FrameError> {
    Err(FrameError::new(FrameErrorKind::Depth, what))
}

/// A depth image as it was sent; values are read where they are needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Depth {
    size: Size<SourcePx>,
    encoding: DepthEncoding,
    step: usize,
    big_endian: bool,
    data: Bytes,
}

impl Depth {
    /// A depth image; of the layout, size, step and byte order count.
    ///
    /// # Errors
    /// [`FrameErrorKind::Depth`] where size, step and length of the data contradict each other.
    pub fn new(encoding: DepthEncoding, layout: &Layout, data: impl Into<Bytes>) -> Result<Self, FrameError> {
        let (Layout { width, height, step, big_endian, .. }, data) = (*layout, data.into());
        if width == 0 || height == 0 {
            return refuse(format!("a size of {width}x{height} is empty"));
        }
        let row = u64::from(width) * encoding.sample_bytes() as u64;
        let step = if step == 0 { row } else { u64::from(step) };
        if step < row {
            return refuse(format!("a step of {step} bytes is smaller than a row of {row}; leave it 0 where packed"));
        }
        let full = step.saturating_mul(height.into());
        let least = step.saturating_mul(u64::from(height) - 1).saturating_add(row);
        let length = data.len() as u64;
        if length != full && length != least {
            return refuse(format!("{length} bytes of data, expected {full}: {height} rows of {row} every {step}"));
        }
        let step = usize::try_from(step).unwrap_or(data.len());
        Ok(Self { size: Size::new(width, height), encoding, step, big_endian, data })
    }

    /// Size in source pixels.
    pub fn size(&self) -> Size<SourcePx> {
        self.size
    }

    /// Checks that it lies pixel for pixel on a colour image of `size`.
    ///
    /// # Errors
    /// [`FrameErrorKind::Depth`].
    pub fn check_registered(&self, size: Size<SourcePx>) -> Result<(), FrameError> {
        if self.size == size {
            return Ok(());
        }
        let (depth, colour) = (self.size, size);
        refuse(format!(
            "depth is {}x{}, colour {}x{}: register depth to the colour camera",
            depth.width, depth.height, colour.width, colour.height
        ))
    }

    /// Metres along the optical axis at column `x` of row `y`; `None` where nothing was measured (zero, negative, NaN,
    /// infinite, or farther than a kilometre) and outside the image.
    pub fn metres(&self, x: u32, y: u32) -> Option<f32> {
        if x >= self.size.width || y >= self.size.height {
            return None;
        }
        let bytes = self.encoding.sample_bytes();
        let sample = self.data.get(y as usize * self.step + x as usize * bytes..)?.get(..bytes)?;
        let metres = match (self.encoding, sample) {
            (DepthEncoding::Millimetres, &[a, b]) => {
                let mm = if self.big_endian { u16::from_be_bytes([a, b]) } else { u16::from_le_bytes([a, b]) };
                f32::from(mm) * 1e-3
            }
            (DepthEncoding::Metres, &[a, b, c, d]) => {
                let bytes = [a, b, c, d];
                if self.big_endian { f32::from_be_bytes(bytes) } else { f32::from_le_bytes(bytes) }
            }
            _ => return None,
        };
        // NaN is in no range.
        (metres > 0.0 && metres <= FARTHEST).then_some(metres)
    }
}

/// A pinhole camera, in pixels of the frame. As in ROS `sensor_msgs/CameraInfo`, the centre of the left top pixel is
/// (0, 0) here, while boxes and points elsewhere have it at (0.5, 0.5).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Intrinsics {
    /// Horizontal focal length.
    pub fx: f64,
    /// Vertical focal length.
    pub fy: f64,
    /// Column of the principal point.
    pub cx: f64,
    /// Row of the principal point.
    pub cy: f64,
    /// Whether the sender's lens distorts. That is not corrected: positions are as good as the pinhole is.
    pub distorted: bool,
}

impl Intrinsics {
    /// Checks that the numbers are those of a camera.
    ///
    /// # Errors
    /// [`FrameErrorKind::Depth`] for focal lengths outside `1..=1e6` pixels, a principal point beyond 1e6 pixels, and
    /// what is not finite.
    pub fn validate(&self) -> Result<(), FrameError> {
        let Self { fx, fy, cx, cy, .. } = *self;
        let focal = |f: f64| (1.0..=1e6).contains(&f);
        let centre = |c: f64| c.abs() <= 1e6;
        if focal(fx) && focal(fy) && centre(cx) && centre(cy) {
            return Ok(());
        }
        refuse(format!("intrinsics fx {fx}, fy {fy}, cx {cx}, cy {cy}: no camera, in pixels (CameraInfo's K)"))
    }

    /// Metres in the optical frame (x right, y down, z forward) of what is `z` metres deep at column `x` of row `y`.
    pub fn point(&self, x: u32, y: u32, z: f32) -> [f64; 3] {
        let z = f64::from(z);
        [(f64::from(x) - self.cx) * z / self.fx, (f64::from(y) - self.cy) * z / self.fy, z]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout(width: u32, height: u32, step: u32, big_endian: bool) -> Layout {
        Layout { width, height, step, big_endian, ..Layout::default() }
    }

    #[test]
    fn both_encodings_and_byte_orders_are_read() {
        let mm = [1u16, 2500, 0, 65535, 1000, 7];
        let metres = [0.5f32, f32::NAN, f32::INFINITY, -1.0, 0.0, 1000.5];
        for big in [false, true] {
            for pad in [0u32, 3] {
                let rows = |samples: Vec<Vec<u8>>| -> Vec<u8> {
                    samples.chunks(3).flat_map(|row| [row.concat(), vec![0xAB; pad as usize]].concat()).collect()
                };
                let data =
                    rows(mm.iter().map(|v| if big { v.to_be_bytes() } else { v.to_le_bytes() }.to_vec()).collect());
                let depth = Depth::new(DepthEncoding::Millimetres, &layout(3, 2, 6 + pad, big), data).expect("is one");
                let read: Vec<_> = (0..6).map(|i| depth.metres(i % 3, i / 3)).collect();
                assert_eq!(read, [Some(0.001), Some(2.5), None, Some(65.535), Some(1.0), Some(0.007)]);
                let floats = metres.iter().map(|v| if big { v.to_be_bytes() } else { v.to_le_bytes() }.to_vec());
                let data = rows(floats.collect());
                let depth = Depth::new(DepthEncoding::Metres, &layout(3, 2, 12 + pad, big), data).expect("is one");
                let read: Vec<_> = (0..6).map(|i| depth.metres(i % 3, i / 3)).collect();
                assert_eq!(read, [Some(0.5), None, None, None, None, None]);
                assert_eq!((depth.metres(3, 0), depth.metres(0, 2)), (None, None));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let cases = [
            (layout(0, 2, 0, false), 0, "is empty"),
            (layout(2, 0, 0, false), 0, "is empty"),
            (layout(3, 2, 5, false), 12, "leave it 0"),
            (layout(3, 2, 0, false), 11, "expected 12"),
            (layout(3, 2, 8, false), 15, "expected 16"),
            (layout(u32::MAX, u32::MAX, u32::MAX, false), 12, "smaller than a row"),
            (layout(1, u32::MAX, u32::MAX, false), 12, "expected"),
        ];
        for (layout, length, what) in cases {
            let error = Depth::new(DepthEncoding::Millimetres, &layout, vec![0; length]).expect_err(what);
            assert_eq!(error.kind(), FrameErrorKind::Depth);
            assert!(error.to_string().contains(what), "{error}");
        }
        assert!(DepthEncoding::from_name("rgb8").is_err_and(|e| e.to_string().contains("16UC1")));
        let good = Intrinsics { fx: 500.0, fy: 500.0, cx: 320.0, cy: 240.0, distorted: false };
        assert_eq!(good.validate(), Ok(()));
        for bad in [f64::NAN, 0.0, -500.0, f64::INFINITY, 1e-300] {
            assert!(Intrinsics { fx: bad, ..good }.validate().is_err(), "{bad}");
            assert!(Intrinsics { fy: bad, ..good }.validate().is_err(), "{bad}");
        }
        assert!(Intrinsics { cx: f64::NAN, ..good }.validate().is_err());
        assert!(Intrinsics { cy: f64::NEG_INFINITY, ..good }.validate().is_err());
    }

    proptest! {
        #[test]
        fn what_is_accepted_can_be_read_everywhere(
            float: bool, width in 0u32..9, height in 0u32..9, step in 0u32..40, big: bool, extra in -9i64..9,
        ) {
            let encoding = if float { DepthEncoding::Metres } else { DepthEncoding::Millimetres };
            let row = i64::from(width) * encoding.sample_bytes() as i64;
            let stride = if step == 0 { row } else { i64::from(step) };
            let length = (stride * i64::from(height) + extra).max(0) as usize;
            if let Ok(depth) = Depth::new(encoding, &layout(width, height, step, big), vec![1; length]) {
                prop_assert!(extra == 0 || extra == row - stride);
                for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
                    // 0x0101 millimetres is one; 0x01010101 as a float is a tiny positive number.
                    prop_assert!(depth.metres(x, y).is_some());
                }
            } else {
                prop_assert!(width == 0 || height == 0 || stride < row || extra != 0);
            }
        }
    }
}
