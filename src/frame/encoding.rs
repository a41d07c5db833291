//! How pixels may be written, and the names for it that cameras and ROS use.

use super::{FrameError, FrameErrorKind};

/// How a frame's pixels are written. Raw encodings carry the names of ROS `sensor_msgs/image_encodings`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// A JPEG file. What its EXIF says of the orientation is ignored: a mask is of the pixels as they were sent.
    Jpeg,
    /// A PNG file; 16-bit samples are reduced to 8, transparency is ignored, of an animation the first picture counts.
    Png,
    /// A WebP file, lossy or lossless; transparency and orientation are ignored, animations refused.
    Webp,
    /// Red, green, blue, a byte each.
    Rgb8,
    /// Blue, green, red, a byte each.
    Bgr8,
    /// Red, green, blue, alpha, a byte each; alpha is ignored.
    Rgba8,
    /// Blue, green, red, alpha, a byte each; alpha is ignored.
    Bgra8,
    /// Grey, one byte.
    Mono8,
    /// Grey, two bytes in the frame's byte order; the high byte is the 8-bit value.
    Mono16,
    /// 4:2:0, a plane of Y, then a plane of U, V pairs. Width and height must be even.
    Nv12,
    /// As [`Encoding::Nv12`] with V, U pairs.
    Nv21,
    /// 4:2:2, Y U Y V. The width must be even.
    Yuyv,
    /// 4:2:2, U Y V Y. The width must be even.
    Uyvy,
    /// A colour filter's mosaic, one byte a pixel; the missing colours are interpolated linearly. At least 2 x 2.
    Bayer8(Mosaic),
    /// As [`Encoding::Bayer8`] with two bytes a pixel, of which the high one counts.
    Bayer16(Mosaic),
}

/// The left top 2 x 2 pixels of a colour filter, row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Mosaic {
    Rggb,
    Bggr,
    Gbrg,
    Grbg,
}

impl Mosaic {
    /// Column and row, each 0 or 1, of the red pixel; the blue one is diagonal to it.
    pub(super) fn red(self) -> (usize, usize) {
        match self {
            Self::Rggb => (0, 0),
            Self::Grbg => (1, 0),
            Self::Gbrg => (0, 1),
            Self::Bggr => (1, 1),
        }
    }
}

/// Other names for encodings, as ROS and video devices have them.
const ALIASES: [(&str, Encoding); 6] = [
    ("jpg", Encoding::Jpeg),
    ("8UC1", Encoding::Mono8),
    ("yuy2", Encoding::Yuyv),
    ("yuv422_yuy2", Encoding::Yuyv),
    ("yuv422", Encoding::Uyvy),
    ("yuv", Encoding::Uyvy),
];

impl Encoding {
    /// Every encoding.
    pub const ALL: [Self; 21] = [
        Self::Jpeg,
        Self::Png,
        Self::Webp,
        Self::Rgb8,
        Self::Bgr8,
        Self::Rgba8,
        Self::Bgra8,
        Self::Mono8,
        Self::Mono16,
        Self::Nv12,
        Self::Nv21,
        Self::Yuyv,
        Self::Uyvy,
        Self::Bayer8(Mosaic::Rggb),
        Self::Bayer8(Mosaic::Bggr),
        Self::Bayer8(Mosaic::Gbrg),
        Self::Bayer8(Mosaic::Grbg),
        Self::Bayer16(Mosaic::Rggb),
        Self::Bayer16(Mosaic::Bggr),
        Self::Bayer16(Mosaic::Gbrg),
        Self::Bayer16(Mosaic::Grbg),
    ];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::Webp => "webp",
            Self::Rgb8 => "rgb8",
            Self::Bgr8 => "bgr8",
            Self::Rgba8 => "rgba8",
            Self::Bgra8 => "bgra8",
            Self::Mono8 => "mono8",
            Self::Mono16 => "mono16",
            Self::Nv12 => "nv12",
            Self::Nv21 => "nv21",
            Self::Yuyv => "yuyv",
            Self::Uyvy => "uyvy",
            Self::Bayer8(Mosaic::Rggb) => "bayer_rggb8",
            Self::Bayer8(Mosaic::Bggr) => "bayer_bggr8",
            Self::Bayer8(Mosaic::Gbrg) => "bayer_gbrg8",
            Self::Bayer8(Mosaic::Grbg) => "bayer_grbg8",
            Self::Bayer16(Mosaic::Rggb) => "bayer_rggb16",
            Self::Bayer16(Mosaic::Bggr) => "bayer_bggr16",
            Self::Bayer16(Mosaic::Gbrg) => "bayer_gbrg16",
            Self::Bayer16(Mosaic::Grbg) => "bayer_grbg16",
        }
    }

    /// Every name that [`Encoding::from_name`] takes, but for those of `sensor_msgs/CompressedImage`.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::ALL.into_iter().map(Self::name).chain(ALIASES.map(|(name, _)| name))
    }

    /// The encoding of that name, in small or capital letters: one of [`Encoding::names`], or a format of
    /// `sensor_msgs/CompressedImage` such as `"bgr8; jpeg compressed bgr8"`, which is the file that it names.
    ///
    /// # Errors
    /// [`FrameErrorKind::Encoding`] for any other name; says what to use where that is known.
    pub fn from_name(name: &str) -> Result<Self, FrameError> {
        let named = |wanted: &str| {
            let known = Self::ALL.into_iter().map(|e| (e.name(), e)).chain(ALIASES);
            known.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, e)| e)
        };
        let found = named(name).or_else(|| named(compressed(name)?).filter(|e| e.is_file()));
        found.ok_or_else(|| {
            let shown: String = name.chars().take(40).collect();
            FrameError::new(FrameErrorKind::Encoding, format!("encoding {shown:?} is {}", advice(name)))
        })
    }

    /// Whether it is a file, which knows its own size.
    pub fn is_file(self) -> bool {
        matches!(self, Self::Jpeg | Self::Png | Self::Webp)
    }
}

/// The file format in `"<encoding>; <format> compressed <encoding>"`. Source: ROS `compressed_image_transport`.
fn compressed(name: &str) -> Option<&str> {
    let mut words = name.split_once(';')?.1.split_ascii_whitespace();
    let format = words.next()?;
    (words.next()? == "compressed").then_some(format)
}

/// What to do instead.
fn advice(name: &str) -> String {
    let depth = "depth: send it as the frame's depth, uncompressed, beside a colour image (a grey one is mono16)";
    match name.to_ascii_lowercase().as_str() {
        "8uc3" => "without an order of colours: say rgb8 or bgr8".to_owned(),
        "8uc4" => "without an order of colours: say rgba8 or bgra8".to_owned(),
        "16uc1" | "32fc1" => depth.to_owned(),
        lower if lower.contains("compresseddepth") => depth.to_owned(),
        _ => format!("not one of {}", Encoding::ALL.map(Encoding::name).join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back() {
        for encoding in Encoding::ALL {
            for name in [encoding.name().to_owned(), encoding.name().to_uppercase()] {
                assert_eq!(Encoding::from_name(&name).ok(), Some(encoding), "{name}");
            }
        }
        let mut names: Vec<_> = Encoding::names().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "a name stands for one encoding");
    }

    #[test]
    fn ros_names_are_read() {
        let cases = [
            ("yuv422", Encoding::Uyvy),
            ("yuv422_yuy2", Encoding::Yuyv),
            ("8UC1", Encoding::Mono8),
            ("bgr8; jpeg compressed bgr8", Encoding::Jpeg),
            ("mono16; png compressed ", Encoding::Png),
            ("bayer_grbg16", Encoding::Bayer16(Mosaic::Grbg)),
        ];
        for (name, encoding) in cases {
            assert_eq!(Encoding::from_name(name).ok(), Some(encoding), "{name}");
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        let cases = [
            ("8UC3", "rgb8 or bgr8"),
            ("8UC4", "rgba8 or bgra8"),
            ("16UC1", "frame's depth"),
            ("32FC1", "frame's depth"),
            ("16UC1; compressedDepth png", "frame's depth"),
            ("rgb8; rgb8 compressed rgb8", "not one of"),
            ("bgr8; jpeg", "not one of"),
            ("", "not one of jpeg"),
        ];
        for (name, advice) in cases {
            let error = Encoding::from_name(name).expect_err(name);
            assert_eq!(error.kind(), FrameErrorKind::Encoding);
            assert!(error.to_string().contains(advice), "{name}: {error}");
            assert!(error.to_string().len() < 300, "{error}");
        }
    }
}
