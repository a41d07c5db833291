//! SAM's prompt encoder: points and boxes as tokens, a mask as what is added to the image's.

use super::Sizes;
use crate::import::checkpoint::Checkpoint;
use crate::import::config::Config;
use crate::import::error::ImportError;
use crate::import::graph::{F32, Graph, I32, Value};
use crate::import::nn::{self, Activation};

/// What projects image coordinates to Fourier features.
pub(super) const IMAGE_PROJECTION: &str = "shared_image_embedding.positional_embedding";
/// Off, on, and a box's two corners.
const LABELS: usize = 4;

/// The prompt encoder as its configuration describes it.
#[derive(Debug)]
pub(super) struct Prompts {
    sizes: Sizes,
    /// Channels between the convolutions over a mask.
    pub channels: usize,
    activation: Activation,
    epsilon: f32,
    /// The tensor that projects coordinates to Fourier features; older checkpoints keep it twice.
    projection: String,
    /// Whether the meanings of the labels are one table, as SAM 2 has them.
    one_table: bool,
}

impl Prompts {
    /// Reads a `prompt_encoder_config`.
    pub(super) fn read(checkpoint: &Checkpoint, config: &Config, sizes: Sizes) -> Result<Self, ImportError> {
        if config.dim("num_point_embeddings", LABELS)? != LABELS {
            return Err(config.unsupported("num_point_embeddings", "is not 4: off, on, and a box's two corners"));
        }
        let channels = config.dim("mask_input_channels", 16)?;
        config.divide("mask_input_channels", channels, 4)?;
        let own = "prompt_encoder.shared_embedding.positional_embedding";
        let projection = if checkpoint.has(own) { own } else { IMAGE_PROJECTION };
        Ok(Self {
            sizes,
            channels,
            activation: Activation::read(config, "hidden_act", "gelu")?,
            epsilon: config.epsilon("layer_norm_eps", 1e-6)?,
            projection: projection.to_owned(),
            one_table: checkpoint.has("prompt_encoder.point_embed.weight"),
        })
    }

    /// Fourier features of each point plus what its label means: `[B, T, C]`.
    pub(super) fn points(
        &self,
        g: &mut Graph<'_, '_>,
        coords: &Value<F32>,
        labels: &Value<I32>,
    ) -> Result<Value<F32>, ImportError> {
        let Sizes { side, prompt_side, channels, features, .. } = self.sizes;
        // A point stands for its pixel's centre; then 0..side becomes -1..1.
        let (scale, shift) = (2.0 / side as f32, 1.0 / prompt_side as f32 - 1.0);
        let (scale, shift) = (g.scalar(scale), g.scalar(shift));
        let x = g.mul(coords, &scale);
        let x = g.add(&x, &shift);
        let projection = g.weight(&self.projection, &[2, features])?;
        let x = g.matmul(&x, &projection);
        let turn = g.scalar(2.0 * std::f32::consts::PI);
        let x = g.mul(&x, &turn);
        let (sin, cos) = (g.map("Sin", &x), g.map("Cos", &x));
        let mut x = g.concat(&[&sin, &cos], -1);
        let labels = g.unsqueeze(labels, -1);
        let none = g.weight_as("prompt_encoder.not_a_point_embed.weight", &[1, channels], &[1, 1, channels])?;
        let padding = g.integer(-1);
        let is_padding = g.equal(&labels, &padding);
        x = g.select(&is_padding, &none, &x);
        for label in 0..LABELS as i32 {
            let meaning = self.meaning(g, label)?;
            let marked = g.add(&x, &meaning);
            let wanted = g.integer(label);
            let is_wanted = g.equal(&labels, &wanted);
            x = g.select(&is_wanted, &marked, &x);
        }
        Ok(x)
    }

    /// What a label means: `[1, 1, C]`.
    fn meaning(&self, g: &mut Graph<'_, '_>, label: i32) -> Result<Value<F32>, ImportError> {
        const NAME: &str = "prompt_encoder.point_embed";
        let channels = self.sizes.channels;
        if !self.one_table {
            return g.weight_as(&format!("{NAME}.{label}.weight"), &[1, channels], &[1, 1, channels]);
        }
        let table = g.weight_as(&format!("{NAME}.weight"), &[LABELS, channels], &[1, LABELS, channels])?;
        Ok(g.slice(&table, 1, label.into(), i64::from(label) + 1))
    }

    /// The mask prompt as image tokens, or the embedding that stands for none: `[B, h · w, C]`.
    pub(super) fn dense(
        &self,
        g: &mut Graph<'_, '_>,
        mask: &Value<F32>,
        has_mask: &Value<F32>,
    ) -> Result<Value<F32>, ImportError> {
        const NAME: &str = "prompt_encoder.mask_embed";
        let Sizes { grid, channels, .. } = self.sizes;
        let (quarter, full) = (self.channels / 4, self.channels);
        // One token a cell, of 4×4 pixels; in it 2×2 blocks of 2×2 pixels, which the first convolution reads.
        let n = grid as i64;
        let x = g.reshape(mask, &[-1, n, 2, 2, n, 2, 2]);
        let x = g.transpose(&x, &[0, 1, 4, 2, 5, 3, 6]);
        let x = g.reshape(&x, &[-1, n * n, 4, 4]);
        let x = convolve(g, &x, &format!("{NAME}.conv1"), &[quarter, 1, 2, 2])?;
        let x = nn::layer_norm(g, &x, &format!("{NAME}.layer_norm1"), quarter, self.epsilon)?;
        let x = self.activation.apply(g, &x);
        // The kernel has its channels before its pixels.
        let x = g.transpose(&x, &[0, 1, 3, 2]);
        let x = g.reshape(&x, &[0, 0, full as i64]);
        let x = convolve(g, &x, &format!("{NAME}.conv2"), &[full, quarter, 2, 2])?;
        let x = nn::layer_norm(g, &x, &format!("{NAME}.layer_norm2"), full, self.epsilon)?;
        let x = self.activation.apply(g, &x);
        let given = convolve(g, &x, &format!("{NAME}.conv3"), &[channels, full, 1, 1])?;
        let none = g.weight_as("prompt_encoder.no_mask_embed.weight", &[1, channels], &[1, 1, channels])?;
        let has = g.reshape(has_mask, &[-1, 1, 1]);
        let one = g.scalar(1.0);
        let lacks = g.sub(&one, &has);
        let (given, none) = (g.mul(&given, &has), g.mul(&none, &lacks));
        Ok(g.add(&given, &none))
    }
}

/// A convolution whose kernel covers the last dimension of `x` whole: `[.., in · kh · kw]` → `[.., out]`.
fn convolve(g: &mut Graph<'_, '_>, x: &Value<F32>, name: &str, shape: &[usize; 4]) -> Result<Value<F32>, ImportError> {
    let output = shape[0];
    let kernel = g.weight_as(&format!("{name}.weight"), shape, &[output, shape[1..].iter().product()])?;
    let y = nn::times_transposed(g, x, &kernel);
    let bias = g.weight(&format!("{name}.bias"), &[output])?;
    Ok(g.add(&y, &bias))
}
