//! What the cameras send: a few pictures, drawn once, shown forth and back without end.

use std::path::Path;

use anyhow::{Context, ensure};

use crate::cli::picture::{camera_jpeg, there_and_back};
use crate::client::{file_frame, raw_frame};
use crate::dataset::{Assets, Clip, ClipOptions, Split, encode_jpeg};
use crate::server::settings::BackendName;
use crate::server::wire;

/// Pictures of a loop.
const PICTURES: usize = 24;
/// Of a camera's JPEG.
const QUALITY: u8 = 90;

/// How frames are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Sent {
    /// As JPEG.
    Jpeg,
    /// As raw `rgb8`.
    Rgb8,
}

/// A loop of frames, and what there is to ask about them.
#[derive(Debug, Clone)]
pub struct Footage {
    frames: Vec<wire::Frame>,
    /// Commands; the first are about what is there.
    pub commands: Vec<String>,
}

impl Sent {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Rgb8 => "raw rgb8",
        }
    }
}

impl Footage {
    /// Pictures that `backend` can answer commands about.
    pub fn new(backend: BackendName, assets: &Path, size: (u32, u32), sent: Sent) -> anyhow::Result<Self> {
        if backend == BackendName::Fake {
            return Self::colours(size, sent);
        }
        let assets = Assets::load(assets).context("load the scenes' assets")?;
        let clip = Clip::new(&assets, ClipOptions { seed: 1, frames: 10 * PICTURES, size, split: Split::Val });
        let commands: Vec<String> = clip.commands().into_iter().map(|c| c.text).collect();
        ensure!(commands.len() >= 3, "draw footage: the clip has only {} commands", commands.len());
        let frame = |i: usize| {
            let scene = clip.frame(i);
            Ok(match sent {
                Sent::Jpeg => file_frame("jpeg", camera_jpeg(&scene)?),
                Sent::Rgb8 => raw_frame("rgb8", size.0, size.1, size.0 * 3, scene.rgb),
            })
        };
        let frames: anyhow::Result<Vec<_>> = (0..PICTURES).map(frame).collect();
        Ok(Self { frames: frames?, commands })
    }

    /// A red and a blue disc that move over grey noise.
    fn colours(size: (u32, u32), sent: Sent) -> anyhow::Result<Self> {
        let frame = |i: usize| {
            let rgb = discs(size, i);
            Ok(match sent {
                Sent::Jpeg => {
                    let file = encode_jpeg(&rgb, size.0 as usize, size.1 as usize, QUALITY);
                    file_frame("jpeg", file.context("encode footage")?)
                }
                Sent::Rgb8 => raw_frame("rgb8", size.0, size.1, size.0 * 3, rgb),
            })
        };
        let frames: anyhow::Result<Vec<_>> = (0..PICTURES).map(frame).collect();
        Ok(Self { frames: frames?, commands: ["red", "blue", "yellow", "green"].map(str::to_owned).to_vec() })
    }

    /// The frame that a camera sends after `sent` others.
    pub fn frame(&self, sent: u64) -> wire::Frame {
        self.frames[there_and_back(sent, self.frames.len())].clone()
    }
}

fn discs((width, height): (u32, u32), step: usize) -> Vec<u8> {
    let (w, h) = (width as f32, height as f32);
    let (radius, along) = (0.12 * h, 0.3 + 0.3 * step as f32 / PICTURES as f32);
    let discs = [(along * w, 0.35 * h, [205, 30, 35]), ((1.0 - along) * w, 0.7 * h, [30, 60, 200])];
    let mut rgb = Vec::with_capacity(width as usize * height as usize * 3);
    for y in 0..height {
        for x in 0..width {
            let inside = |(cx, cy, _): &&(f32, f32, [u8; 3])| (x as f32 - cx).hypot(y as f32 - cy) < radius;
            // Grain, so that a JPEG of it is not smaller than a camera's.
            let grain = 110 + (x.wrapping_mul(2_654_435_761).wrapping_add(y.wrapping_mul(40_503)) >> 27) as u8;
            rgb.extend(discs.iter().find(inside).map_or([grain; 3], |(_, _, colour)| *colour));
        }
    }
    rgb
}
