//! `SamModel`: a plain ViT image encoder and the prompt-driven mask decoder.
//!
//! Source: `transformers`, `models/sam`; arXiv 2304.02643.

mod decoder;
mod encoder;

use std::f32::consts::PI;

use crate::import::Level;
use crate::import::checkpoint::Checkpoint;
use crate::import::config::Config;
use crate::import::error::ImportError;
use crate::import::onnx::ModelProto;
use crate::import::weights::Weights;

use decoder::Decoder;
use encoder::Encoder;

/// The sizes that both halves share.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    /// Width and height of the image, in pixels.
    side: usize,
    /// Width and height of the embedding, in cells.
    grid: usize,
    /// Channels of the embedding.
    channels: usize,
    /// Fourier features an axis pair: half the channels.
    features: usize,
}

/// Builds `image_encoder` and `mask_decoder`.
pub(super) fn build(
    checkpoint: &Checkpoint,
    level: Level,
    weights: &mut Weights<'_>,
) -> Result<Vec<ModelProto>, ImportError> {
    let config = checkpoint.config();
    let (vision, prompt) = (config.part("vision_config")?, config.part("prompt_encoder_config")?);
    let sizes = Sizes::read(config, &vision, &prompt)?;
    let encoder = Encoder::read(&vision, sizes)?;
    let decoder = Decoder::read(checkpoint, &prompt, &config.part("mask_decoder_config")?, sizes)?;
    Ok(vec![encoder.build(level, weights)?, decoder.build(level, weights)?])
}

impl Sizes {
    fn read(config: &Config, vision: &Config, prompt: &Config) -> Result<Self, ImportError> {
        let side = vision.square("image_size", 1024)?;
        let grid = vision.divide("patch_size", side, vision.square("patch_size", 16)?)?;
        let channels = vision.dim("output_channels", 256)?;
        let features = vision.dim("num_pos_feats", 128)?;
        let agree = |ok: bool, key: &str, why: &str| if ok { Ok(()) } else { Err(prompt.unsupported(key, why)) };
        agree(prompt.square("image_size", 1024)? == side, "image_size", "differs from vision_config.image_size")?;
        let width = prompt.dim("hidden_size", 256)?;
        agree(width == channels, "hidden_size", "differs from vision_config.output_channels")?;
        let mask = config.part("mask_decoder_config")?.dim("hidden_size", 256)?;
        agree(mask == channels, "hidden_size", "differs from mask_decoder_config.hidden_size")?;
        agree(features * 2 == channels, "hidden_size", "is not twice vision_config.num_pos_feats")?;
        Ok(Self { side, grid, channels, features })
    }

    /// The Fourier features of every cell's centre, `[grid · grid, channels]`: what tells the image's tokens where
    /// they are.
    fn positions(&self, projection: &[f32]) -> Vec<f32> {
        let mut values = Vec::with_capacity(self.grid * self.grid * self.channels);
        let centre = |index: usize| 2.0 * ((index as f32 + 0.5) / self.grid as f32) - 1.0;
        for row in 0..self.grid {
            for column in 0..self.grid {
                let (x, y) = (centre(column), centre(row));
                let angle = |i: usize| 2.0 * PI * (x * projection[i] + y * projection[self.features + i]);
                values.extend((0..self.features).map(|i| angle(i).sin()));
                values.extend((0..self.features).map(|i| angle(i).cos()));
            }
        }
        values
    }
}
