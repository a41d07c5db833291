//! Pictures as the command line takes them: files, and what a camera driver wrote to disk.

use std::path::Path;

use anyhow::Context;

use crate::dataset::{Scene, encode_jpeg};
use crate::frame::{Encoded, Encoding, FrameLimits, Image, Layout, decode};

/// How the bytes of a picture that is no file are to be read.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Raw pictures")]
pub struct PictureArgs {
    /// The picture is no file but raw bytes: rgb8, bgr8, rgba8, bgra8, mono8, mono16, nv12, nv21, yuyv, uyvy,
    /// bayer_rggb8 and so on, or another name that ROS has for one of them.
    #[arg(long, value_name = "ENCODING", value_parser = raw_encoding, requires = "size")]
    raw: Option<Encoding>,
    /// Its width and height.
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = size, requires = "raw")]
    size: Option<[u32; 2]>,
    /// Bytes from one row to the next; 0 for packed rows.
    #[arg(long, default_value_t = 0, requires = "raw")]
    step: u32,
    /// Where the chroma plane of nv12 begins, in bytes; 0 for right behind the luma.
    #[arg(long, default_value_t = 0, requires = "raw")]
    chroma_offset: u32,
    /// Bytes from one row of that plane to the next; 0 for the step.
    #[arg(long, default_value_t = 0, requires = "raw")]
    chroma_step: u32,
    /// 16-bit samples have the high byte first.
    #[arg(long, requires = "raw")]
    big_endian: bool,
    /// YUV uses all of 0 to 255.
    #[arg(long, requires = "raw")]
    full_range: bool,
}

fn raw_encoding(name: &str) -> Result<Encoding, String> {
    let encoding = Encoding::from_name(name).map_err(|e| e.to_string())?;
    if encoding.is_file() {
        Err("files say themselves what they are; leave --raw out".to_owned())
    } else {
        Ok(encoding)
    }
}

/// Width and height, as in `1920x1080`.
pub fn size(text: &str) -> Result<[u32; 2], String> {
    let sides = text.split_once('x').and_then(|(w, h)| Some([w.parse().ok()?, h.parse().ok()?]));
    sides.ok_or_else(|| "expected WIDTHxHEIGHT, as in 1920x1080".to_owned())
}

impl PictureArgs {
    /// Reads and decodes the picture at `path`.
    pub fn read(&self, path: &Path) -> anyhow::Result<Image> {
        let data = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let frame = match (self.raw, self.size) {
            (Some(encoding), Some([width, height])) => {
                let Self { step, chroma_offset, chroma_step, big_endian, full_range, .. } = *self;
                let layout = Layout { width, height, step, big_endian, full_range, chroma_offset, chroma_step };
                Encoded { encoding, layout, data: &data }
            }
            _ => Encoded::sniffed(&data).with_context(|| {
                format!("{} is neither JPEG, PNG nor WebP; say --raw and --size where it is raw", path.display())
            })?,
        };
        decode(&frame, FrameLimits::default()).with_context(|| format!("decode {}", path.display()))
    }
}

/// A camera's quality.
const JPEG_QUALITY: u8 = 90;

/// A scene as a camera sends it.
pub fn camera_jpeg(scene: &Scene) -> anyhow::Result<Vec<u8>> {
    let (width, height) = (scene.size.width as usize, scene.size.height as usize);
    encode_jpeg(&scene.rgb, width, height, JPEG_QUALITY).context("encode frame: a side does not fit 16 bits")
}

/// Which of `count` pictures comes after `shown` others where they are shown forth and back without end: a jump from the
/// last to the first would be another scene to a tracker.
pub fn there_and_back(shown: u64, count: usize) -> usize {
    let turn = 2 * count.saturating_sub(1);
    let at = (shown % turn.max(1) as u64) as usize;
    at.min(turn - at)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        picture: PictureArgs,
    }

    fn parse(arguments: &[&str]) -> Result<PictureArgs, clap::Error> {
        Line::try_parse_from([&["test"], arguments].concat()).map(|line| line.picture)
    }

    #[test]
    fn a_camera_dump_is_read_as_it_is_described() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("frame.yuv");
        let data = [16u8, 235, 0, 0, 235, 16, 0, 0, 128, 128, 0, 0];
        std::fs::write(&path, data).expect("writes");
        let nv12 = parse(&["--raw", "nv12", "--size", "2x2", "--step", "4"]).expect("is one");
        let image = nv12.read(&path).expect("decodes");
        let expected = [0, 255, 255, 0].map(|v| [v; 3]).concat();
        assert_eq!(image.rgb(), expected);
        let grey = parse(&["--raw", "mono16", "--size", "2x3", "--big-endian"]).expect("is one");
        assert_eq!(grey.read(&path).expect("decodes").rgb()[..6], [16, 16, 16, 0, 0, 0]);
        let error = parse(&[]).expect("is one").read(&path).expect_err("is no file");
        assert!(format!("{error:#}").contains("--raw"), "{error:#}");
        let error = parse(&["--raw", "rgb8", "--size", "2x3"]).expect("is one").read(&path).expect_err("is too short");
        assert!(format!("{error:#}").contains("expected 18"), "{error:#}");
    }

    #[test]
    fn pictures_are_shown_forth_and_back() {
        let shown = |count| (0..7).map(|n| there_and_back(n, count)).collect::<Vec<_>>();
        assert_eq!(shown(3), [0, 1, 2, 1, 0, 1, 2]);
        assert_eq!((shown(2), shown(1)), (vec![0, 1, 0, 1, 0, 1, 0], vec![0; 7]));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let cases: [&[&str]; 6] = [
            &["--raw", "nv12"],
            &["--size", "2x2"],
            &["--step", "2"],
            &["--raw", "jpeg", "--size", "2x2"],
            &["--raw", "rgb9", "--size", "2x2"],
            &["--raw", "rgb8", "--size", "2by2"],
        ];
        for arguments in cases {
            assert!(parse(arguments).is_err(), "{arguments:?}");
        }
    }
}
