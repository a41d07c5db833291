//! MobileSAM's image encoder: TinyViT, convolutions followed by attention in windows, and SAM's neck. Depths, widths
//! and windows follow from the tensors.
//!
//! Source: arXiv 2306.14289 and 2207.10666; names of the authors' files.

use super::Sizes;
use super::convolutions::{Convolution, Picture, picture, tokens};
use super::encoder::neck;
use super::positions::Windows;
use super::sizes::{indices_after, shape_of};
use crate::import::Level;
use crate::import::checkpoint::Checkpoint;
use crate::import::config::Config;
use crate::import::error::ImportError;
use crate::import::graph::{Dim, F32, Graph, Value};
use crate::import::nn::{self, Activation};
use crate::import::onnx::ModelProto;
use crate::import::weights::Weights;

/// Of all normalisations but the neck's; PyTorch's default.
const EPSILON: f32 = 1e-5;
const NAME: &str = "image_encoder";
/// Widths of a stage before which the authors do not halve the size, by which their last one keeps it.
const KEEPS_SIZE: [usize; 3] = [320, 448, 576];

/// The image encoder as its tensors describe it.
#[derive(Debug)]
pub(super) struct TinyVit {
    /// Of the image and the embedding.
    pub sizes: Sizes,
    /// Blocks of every stage.
    depths: Vec<usize>,
}

impl TinyVit {
    /// Reads the checkpoint's names.
    pub(super) fn read(checkpoint: &Checkpoint, config: &Config, side: usize) -> Result<Self, ImportError> {
        let &[channels] = shape_of(checkpoint, "image_encoder.neck.1.weight")?;
        let stages = indices_after(checkpoint, &format!("{NAME}.layers.")).len();
        let blocks = |stage| indices_after(checkpoint, &format!("{NAME}.layers.{stage}.blocks.")).len();
        let mut grid = config.divide("image_size", side, 4)?;
        for stage in 1..stages {
            let &[width, ..] =
                shape_of::<4>(checkpoint, &format!("{NAME}.layers.{}.downsample.conv3.c.weight", stage - 1))?;
            if !KEEPS_SIZE.contains(&width) {
                grid = config.divide("image_size", grid, 2)?;
            }
        }
        Ok(Self { sizes: Sizes::of_cells(side, grid, channels), depths: (0..stages).map(blocks).collect() })
    }

    /// Builds the graph `image_encoder`.
    pub(super) fn build(&self, level: Level, weights: &mut Weights<'_>) -> Result<ModelProto, ImportError> {
        let mut graph = Graph::new("image_encoder", level, weights);
        let g = &mut graph;
        let Sizes { side, grid, channels, .. } = self.sizes;
        let value = g.input::<F32>("pixel_values", &[Dim::Fixed(1), Dim::Fixed(3), Dim::Fixed(side), Dim::Fixed(side)]);
        let mut x = g.scoped("embeddings", |g| {
            let x = Picture { value, channels: 3, side };
            let x = conv(g, &x, &format!("{NAME}.patch_embed.seq.0"), 2, true)?;
            conv(g, &x, &format!("{NAME}.patch_embed.seq.2"), 2, false)
        })?;
        for (stage, &depth) in self.depths.iter().enumerate() {
            for block in 0..depth {
                let name = format!("{NAME}.layers.{stage}.blocks.{block}");
                let scope = format!("stage_{stage}_block_{block}");
                x = g.scoped(&scope, |g| {
                    if stage == 0 { bottleneck(g, &x, &name) } else { attention_block(g, &x, &name) }
                })?;
            }
            if stage + 1 < self.depths.len() {
                x = g.scoped(&format!("merge_{stage}"), |g| {
                    merge(g, &x, &format!("{NAME}.layers.{stage}.downsample"))
                })?;
            }
        }
        let flat = tokens(g, &x);
        let embedding = g.scoped("neck", |g| neck(g, &flat, x.channels, self.sizes))?;
        let dims = [Dim::Fixed(1), Dim::Fixed(channels), Dim::Fixed(grid), Dim::Fixed(grid)];
        g.output("image_embedding", &embedding, &dims);
        Ok(graph.finish())
    }
}

/// A convolution with its normalisation; kernel and groups are as its weight's shape tells.
fn conv(g: &mut Graph<'_, '_>, x: &Picture, name: &str, stride: usize, active: bool) -> Result<Picture, ImportError> {
    let names = ["c", "bn"].map(|part| format!("{name}.{part}"));
    let mut x = Convolution::of_weight(g, x, names, EPSILON, stride)?.build(g, x)?;
    if active {
        x.value = Activation::Gelu.apply(g, &x.value);
    }
    Ok(x)
}

/// An inverted bottleneck; its activation is behind the sum.
fn bottleneck(g: &mut Graph<'_, '_>, x: &Picture, name: &str) -> Result<Picture, ImportError> {
    let inner = conv(g, x, &format!("{name}.conv1"), 1, true)?;
    let inner = conv(g, &inner, &format!("{name}.conv2"), 1, true)?;
    let inner = conv(g, &inner, &format!("{name}.conv3"), 1, false)?;
    let sum = g.add(&x.value, &inner.value);
    Ok(Picture { value: Activation::Gelu.apply(g, &sum), ..inner })
}

/// From one stage's width to the next's, and to half the size where the authors do so.
fn merge(g: &mut Graph<'_, '_>, x: &Picture, name: &str) -> Result<Picture, ImportError> {
    let x = conv(g, x, &format!("{name}.conv1"), 1, true)?;
    let stride = if KEEPS_SIZE.contains(&x.channels) { 1 } else { 2 };
    let x = conv(g, &x, &format!("{name}.conv2"), stride, true)?;
    conv(g, &x, &format!("{name}.conv3"), 1, false)
}

/// Attention in windows, a convolution over each channel, a perceptron.
fn attention_block(g: &mut Graph<'_, '_>, x: &Picture, name: &str) -> Result<Picture, ImportError> {
    let (width, side) = (x.channels, x.side);
    let flat = tokens(g, x);
    let seen = attend(g, &flat, &format!("{name}.attn"), [width, side])?;
    let flat = g.add(&flat, &seen);
    let x = picture(g, &flat, width, side);
    let x = conv(g, &x, &format!("{name}.local_conv"), 1, false)?;
    let flat = tokens(g, &x);
    let normal = nn::layer_norm(g, &flat, &format!("{name}.mlp.norm"), width, EPSILON)?;
    let &[wide, _] = shape_of(g.weights().checkpoint(), &format!("{name}.mlp.fc1.weight"))?;
    let inner = nn::linear(g, &normal, &format!("{name}.mlp.fc1"), [width, wide], true)?;
    let inner = Activation::Gelu.apply(g, &inner);
    let inner = nn::linear(g, &inner, &format!("{name}.mlp.fc2"), [wide, width], true)?;
    let flat = g.add(&flat, &inner);
    Ok(picture(g, &flat, width, side))
}

/// Attention in windows with a bias for every distance: `[1, side · side, width]` → the same.
///
/// The normalisation is inside the windows, so what fills them up at the edges takes part as its bias.
fn attend(
    g: &mut Graph<'_, '_>,
    x: &Value<F32>,
    name: &str,
    [width, side]: [usize; 2],
) -> Result<Value<F32>, ImportError> {
    let &[heads, distances] = shape_of(g.weights().checkpoint(), &format!("{name}.attention_biases"))?;
    let window = distances.isqrt();
    let windows = Windows { grid: side, side: window };
    let x = windows.cut(g, x, width);
    let normal = nn::layer_norm(g, &x, &format!("{name}.norm"), width, EPSILON)?;
    let all = nn::linear(g, &normal, &format!("{name}.qkv"), [width, 3 * width], true)?;
    let head = width / heads.max(1);
    // Query, key and value of one head stand together.
    let all = g.reshape(&all, &[0, 0, heads as i64, 3 * head as i64]);
    let parts = g.split(&all, -1, &[head; 3]);
    let query = g.transpose(&parts[0], &[0, 2, 1, 3]);
    let key = g.transpose(&parts[1], &[0, 2, 3, 1]);
    let value = g.transpose(&parts[2], &[0, 2, 1, 3]);
    let scores = nn::scaled(g, &query, &key, head);
    let bias = distance_bias(g, name, [heads, distances, window])?;
    let scores = g.add(&scores, &bias);
    let weights = g.softmax(&scores);
    let context = g.matmul(&weights, &value);
    let context = g.transpose(&context, &[0, 2, 1, 3]);
    let context = g.reshape(&context, &[0, 0, width as i64]);
    let context = nn::linear(g, &context, &format!("{name}.proj"), [width, width], true)?;
    Ok(windows.join(g, &context, width))
}

/// What is added to the score of every two cells of a window, by their distance in rows and columns: `[heads, n, n]`.
fn distance_bias(
    g: &mut Graph<'_, '_>,
    name: &str,
    [heads, distances, window]: [usize; 3],
) -> Result<Value<F32>, ImportError> {
    let table = g.weight(&format!("{name}.attention_biases"), &[heads, distances])?;
    let cells = window * window;
    let apart = |a: usize, b: usize| (a / window).abs_diff(b / window) * window + (a % window).abs_diff(b % window);
    let places: Vec<i32> = (0..cells).flat_map(|a| (0..cells).map(move |b| apart(a, b) as i32)).collect();
    let places = g.integers(&[cells, cells], &places)?;
    Ok(g.gather(&table, &places, 1))
}
