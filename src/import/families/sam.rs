//! Segmenters with SAM's mask decoder: `SamModel` with its ViT, `EfficientViTSam` and `MobileSam` with theirs, and the part
//! of SAM 2 that looks at single images, alone as `Sam2Model` or inside `Sam2VideoModel`.
//!
//! `EfficientViTSam` and `MobileSam` are no classes of `transformers`; they are read from their authors' files, with or without a
//! `config.json` beside them that says `{"architectures": ["MobileSam"], "image_size": 1024}`.
//!
//! Source: `transformers`, `models/sam`, `sam2` and `sam2_video`; arXiv 2304.02643, 2402.05008, 2306.14289, 2207.10666,
//! 2408.00714.

mod authors;
mod convolutions;
mod decoder;
mod efficient_vit;
mod encoder;
mod hiera;
mod positions;
mod prompts;
mod pyramid;
pub(in crate::import) mod sizes;
mod tiny_vit;
mod upscaling;

use std::f32::consts::PI;

use crate::import::Level;
use crate::import::checkpoint::Checkpoint;
use crate::import::config::Config;
use crate::import::error::ImportError;
use crate::import::graph::Dim;
use crate::import::onnx::ModelProto;
use crate::import::weights::Weights;

pub(super) use authors::spelling;
use decoder::Decoder;
use efficient_vit::EfficientVit;
use encoder::Encoder;
use pyramid::Pyramid;
use tiny_vit::TinyVit;

/// SAM itself.
pub(super) const SAM: &str = "SamModel";
/// EfficientViT-SAM, L0 to XL1.
pub(super) const EFFICIENT_VIT: &str = "EfficientViTSam";
/// MobileSAM.
pub(super) const MOBILE: &str = "MobileSam";
/// SAM 2 for images.
pub(super) const SAM_2: &str = "Sam2Model";
/// SAM 2 for videos; of it what `Sam2Model` has is imported.
pub(super) const SAM_2_VIDEO: &str = "Sam2VideoModel";
/// All of them.
pub(super) const CLASSES: [&str; 5] = [SAM, EFFICIENT_VIT, MOBILE, SAM_2, SAM_2_VIDEO];
/// Those that their authors' files have under other names.
pub(super) const RESPELT: [&str; 3] = [SAM, EFFICIENT_VIT, MOBILE];

/// Most cells along a side of the embedding: of each a few hundred numbers are written down, and 4096 pixels have these.
const MOST_CELLS: usize = 256;

/// The finer levels that SAM 2's mask decoder takes beside the embedding: names, and how many of their cells are along
/// one of the embedding's.
const HIGH_RES: [(&str, usize); 2] = [("high_res_features_0", 4), ("high_res_features_1", 2)];

/// The sizes that both halves share.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    /// Width and height of the image, in pixels.
    side: usize,
    /// The same as the prompts were taught: a prompt's half pixel is one of these.
    prompt_side: usize,
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
    weights.expect_all_but(is_spare);
    let encoder = Encoder::read(&vision, sizes)?;
    let decoder = Decoder::read(checkpoint, &prompt, &config.part("mask_decoder_config")?, sizes)?;
    Ok(vec![encoder.build(level, weights)?, decoder.build(level, weights)?])
}

/// Builds `image_encoder` and `mask_decoder` of an EfficientViT-SAM.
pub(super) fn build_efficient_vit(
    checkpoint: &Checkpoint,
    level: Level,
    weights: &mut Weights<'_>,
) -> Result<Vec<ModelProto>, ImportError> {
    let config = checkpoint.config();
    let side = config.square("image_size", 1024)?;
    weights.expect_all_but(is_spare);
    let encoder = EfficientVit::read(checkpoint, config, side)?;
    let sizes = Sizes {
        // Prompts are in pixels of an input of 16 to a cell, whatever the encoder itself sees.
        prompt_side: 16 * encoder.grid,
        ..Sizes::of_cells(side, encoder.grid, encoder.channels)
    };
    let decoder = Decoder::of_authors(checkpoint, config, sizes)?;
    Ok(vec![encoder.build(level, weights)?, decoder.build(level, weights)?])
}

/// Builds `image_encoder` and `mask_decoder` of a MobileSAM.
pub(super) fn build_mobile(
    checkpoint: &Checkpoint,
    level: Level,
    weights: &mut Weights<'_>,
) -> Result<Vec<ModelProto>, ImportError> {
    let config = checkpoint.config();
    let side = config.square("image_size", 1024)?;
    weights.expect_all_but(is_spare);
    let encoder = TinyVit::read(checkpoint, config, side)?;
    let decoder = Decoder::of_authors(checkpoint, config, encoder.sizes)?;
    Ok(vec![encoder.build(level, weights)?, decoder.build(level, weights)?])
}

/// Builds `image_encoder` and `mask_decoder` of a SAM 2.
pub(super) fn build_second(
    checkpoint: &Checkpoint,
    level: Level,
    weights: &mut Weights<'_>,
) -> Result<Vec<ModelProto>, ImportError> {
    let config = checkpoint.config();
    let (prompt, mask) = (config.part("prompt_encoder_config")?, config.part("mask_decoder_config")?);
    let encoder = Pyramid::read(&config.part("vision_config")?)?;
    encoder.sizes.agree(&prompt, &mask)?;
    weights.expect_all_but(is_spare_second);
    let decoder = Decoder::read_second(checkpoint, &prompt, &mask, encoder.sizes)?;
    Ok(vec![encoder.build(level, weights)?, decoder.build(level, weights)?])
}

/// What SAM 2 remembers videos with, and its judgement of whether there is an object, which its masks do not depend on.
fn is_spare_second(name: &str) -> bool {
    const PARTS: [&str; 8] = [
        "memory_",
        "mask_downsample",
        "object_pointer_proj",
        "temporal_positional_encoding_projection_layer",
        "no_memory_positional_encoding",
        "no_object_pointer",
        "occlusion_spatial_embedding_parameter",
        "mask_decoder.pred_obj_score_head.",
    ];
    PARTS.iter().any(|part| name.starts_with(part))
}

/// Tensors that a checkpoint may have and no graph needs: a second copy, counters, the classifier of the pretraining.
fn is_spare(name: &str) -> bool {
    name == "prompt_encoder.shared_embedding.positional_embedding"
        || name.ends_with(".num_batches_tracked")
        || name.ends_with(".attention_bias_idxs")
        || ["image_encoder.norm_head.", "image_encoder.head."].iter().any(|prefix| name.starts_with(prefix))
        || ["pixel_mean", "pixel_std"].contains(&name)
}

impl Sizes {
    fn read(config: &Config, vision: &Config, prompt: &Config) -> Result<Self, ImportError> {
        let side = vision.square("image_size", 1024)?;
        let grid = vision.divide("patch_size", side, vision.square("patch_size", 16)?)?;
        let channels = vision.dim("output_channels", 256)?;
        let sizes = Self::of_cells(side, grid, channels);
        sizes.agree(prompt, &config.part("mask_decoder_config")?)?;
        match vision.dim("num_pos_feats", 128)? * 2 == channels {
            true => Ok(sizes),
            false => Err(prompt.unsupported("hidden_size", "is not twice vision_config.num_pos_feats")),
        }
    }

    /// Refuses prompts and masks of other sizes than the image's.
    fn agree(&self, prompt: &Config, mask: &Config) -> Result<(), ImportError> {
        let agree = |ok: bool, key: &str, why: &str| if ok { Ok(()) } else { Err(prompt.unsupported(key, why)) };
        let side = prompt.square("image_size", 1024)?;
        agree(side == self.side, "image_size", "is not that of the vision encoder")?;
        let grid = side / prompt.square("patch_size", 16)?;
        agree(grid <= MOST_CELLS, "image_size", "has more than 256 cells along a side")?;
        agree(grid == self.grid, "patch_size", "does not cut the image into the cells of its embedding")?;
        agree(prompt.dim("hidden_size", 256)? == self.channels, "hidden_size", "is not the width of the embedding")?;
        let mask = mask.dim("hidden_size", 256)?;
        agree(mask == self.channels, "hidden_size", "differs from mask_decoder_config.hidden_size")
    }

    /// Channels of a level with `finer` cells along one of the embedding's.
    fn width(&self, finer: usize) -> usize {
        self.channels / (2 * finer)
    }

    /// Such a level as an input.
    fn level(&self, finer: usize) -> [Dim; 4] {
        [1, self.width(finer), finer * self.grid, finer * self.grid].map(Dim::Fixed)
    }

    /// Of an embedding with so many cells along its side; a channel is a cosine or a sine of one of the features.
    fn of_cells(side: usize, grid: usize, channels: usize) -> Self {
        Self { side, prompt_side: side, grid, channels, features: channels / 2 }
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
