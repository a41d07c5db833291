//! EfficientViT-SAM's image encoder: convolutions, then attention that is linear in the number of cells, and a neck
//! over the last three stages. Depths, widths and kinds of blocks follow from the tensors.
//!
//! Source: arXiv 2402.05008 and 2205.14756; names of the authors' files.

use super::convolutions::{Convolution, Picture, channel_norm, upsample};
use super::sizes::{indices_after, shape_of};
use crate::import::Level;
use crate::import::checkpoint::Checkpoint;
use crate::import::config::Config;
use crate::import::error::ImportError;
use crate::import::graph::{Dim, F32, Graph, Value};
use crate::import::nn::Activation;
use crate::import::onnx::ModelProto;
use crate::import::weights::Weights;

/// Of all normalisations, as the authors set it for their segmenters.
const EPSILON: f32 = 1e-6;
/// Keeps a quotient finite where no key answers.
const NO_ANSWER: f32 = 1e-15;
const BACKBONE: &str = "image_encoder.backbone";
const NECK: &str = "image_encoder.neck";

/// The image encoder as its tensors describe it.
#[derive(Debug)]
pub(super) struct EfficientVit {
    side: usize,
    /// Width and height of the embedding, in cells.
    pub grid: usize,
    /// Channels of the embedding.
    pub channels: usize,
    /// Blocks of the stem and of every stage.
    depths: Vec<usize>,
    /// Stages that the neck looks at, the last first.
    taps: usize,
    neck: usize,
}

impl EfficientVit {
    /// Reads the checkpoint's names.
    pub(super) fn read(checkpoint: &Checkpoint, config: &Config, side: usize) -> Result<Self, ImportError> {
        let grid = config.dim("embedding_size", 64)?;
        let &[channels] = shape_of(checkpoint, "image_encoder.norm.weight")?;
        let depth_of = |prefix: &str| indices_after(checkpoint, &format!("{prefix}.op_list.")).len();
        let stages = indices_after(checkpoint, &format!("{BACKBONE}.stages.")).len();
        let mut depths = vec![depth_of(&format!("{BACKBONE}.input_stem"))];
        depths.extend((0..stages).map(|stage| depth_of(&format!("{BACKBONE}.stages.{stage}"))));
        let taps = indices_after(checkpoint, &format!("{NECK}.input_ops.")).len();
        checkpoint.find(&format!("{NECK}.input_ops.0.op_list.0.conv.weight"))?;
        if taps > stages {
            return Err(config.wrong("architectures", "has a neck over more stages than there are"));
        }
        config.divide("image_size", side, 1 << (stages + 1))?;
        Ok(Self { side, grid, channels, depths, taps, neck: depth_of(&format!("{NECK}.middle")) })
    }

    /// Builds the graph `image_encoder`.
    pub(super) fn build(&self, level: Level, weights: &mut Weights<'_>) -> Result<ModelProto, ImportError> {
        let mut graph = Graph::new("image_encoder", level, weights);
        let g = &mut graph;
        let Self { side, grid, .. } = *self;
        let value = g.input::<F32>("pixel_values", &[Dim::Fixed(1), Dim::Fixed(3), Dim::Fixed(side), Dim::Fixed(side)]);
        let mut x = Picture { value, channels: 3, side };
        let mut stages = Vec::new();
        for (index, &depth) in self.depths.iter().enumerate() {
            let (scope, name) = match index {
                0 => ("stem".to_owned(), format!("{BACKBONE}.input_stem")),
                _ => (format!("stage_{index}"), format!("{BACKBONE}.stages.{}", index - 1)),
            };
            x = g.scoped(&scope, |g| stage(g, x.clone(), &name, depth, index == 0))?;
            stages.push(x.clone());
        }
        let x = g.scoped("neck", |g| self.neck(g, &stages))?;
        let embedding = channel_norm(g, &x, "image_encoder.norm", EPSILON)?;
        let dims = [Dim::Fixed(1), Dim::Fixed(self.channels), Dim::Fixed(grid), Dim::Fixed(grid)];
        g.output("image_embedding", &embedding.value, &dims);
        Ok(graph.finish())
    }

    fn neck(&self, g: &mut Graph<'_, '_>, stages: &[Picture]) -> Result<Picture, ImportError> {
        let mut sum: Option<Picture> = None;
        for (tap, stage) in stages.iter().rev().take(self.taps).enumerate() {
            let x = conv(g, stage, &format!("{NECK}.input_ops.{tap}.op_list.0"), 1, false)?;
            let x = upsample(g, &x, self.grid)?;
            sum = Some(match sum {
                None => x,
                Some(sum) => Picture { value: g.add(&sum.value, &x.value), ..x },
            });
        }
        let mut x = sum.expect("a neck has at least one input");
        for block in 0..self.neck {
            x = residual(g, &x, &format!("{NECK}.middle.op_list.{block}"))?;
        }
        conv(g, &x, &format!("{NECK}.output_ops.0.op_list.0"), 1, false)
    }
}

/// The stem or a stage: what halves the size, then blocks that keep it.
fn stage(g: &mut Graph<'_, '_>, x: Picture, name: &str, depth: usize, stem: bool) -> Result<Picture, ImportError> {
    let first = format!("{name}.op_list.0");
    let mut x = if stem { conv(g, &x, &first, 2, true)? } else { block(g, &x, &format!("{first}.main"), 2)? };
    for index in 1..depth {
        let name = format!("{name}.op_list.{index}");
        let attends = g.weights().checkpoint().has(&format!("{name}.context_module.main.qkv.conv.weight"));
        x = if attends {
            let seen = linear_attention(g, &x, &format!("{name}.context_module.main"))?;
            let x = Picture { value: g.add(&x.value, &seen.value), ..seen };
            residual(g, &x, &format!("{name}.local_module"))?
        } else {
            residual(g, &x, &name)?
        };
    }
    Ok(x)
}

fn residual(g: &mut Graph<'_, '_>, x: &Picture, name: &str) -> Result<Picture, ImportError> {
    let inner = block(g, x, &format!("{name}.main"), 1)?;
    Ok(Picture { value: g.add(&x.value, &inner.value), ..inner })
}

/// One of the three kinds of convolutional blocks: plain, inverted bottleneck, and that with its first two convolutions
/// in one. The last convolution has no activation, the one in the middle or else the first has the stride.
fn block(g: &mut Graph<'_, '_>, x: &Picture, name: &str, stride: usize) -> Result<Picture, ImportError> {
    let has = |g: &Graph<'_, '_>, part: &str| g.weights().checkpoint().has(&format!("{name}.{part}.conv.weight"));
    if has(g, "conv1") {
        let x = conv(g, x, &format!("{name}.conv1"), stride, true)?;
        return conv(g, &x, &format!("{name}.conv2"), 1, false);
    }
    let x = if has(g, "spatial_conv") {
        conv(g, x, &format!("{name}.spatial_conv"), stride, true)?
    } else {
        let x = conv(g, x, &format!("{name}.inverted_conv"), 1, true)?;
        conv(g, &x, &format!("{name}.depth_conv"), stride, true)?
    };
    conv(g, &x, &format!("{name}.point_conv"), 1, false)
}

/// A convolution of the kernel and the groups that its weight's shape tells, with what stands behind it.
fn conv(g: &mut Graph<'_, '_>, x: &Picture, name: &str, stride: usize, active: bool) -> Result<Picture, ImportError> {
    let names = ["conv", "norm"].map(|part| format!("{name}.{part}"));
    let mut x = Convolution::of_weight(g, x, names, EPSILON, stride)?.build(g, x)?;
    if active {
        x.value = Activation::GeluTanh.apply(g, &x.value);
    }
    Ok(x)
}

/// Attention with ReLU in place of softmax: keys meet values before queries, so the cost is linear in the number of
/// cells. Beside the projections themselves their sums over neighbourhoods attend, in heads of their own.
fn linear_attention(g: &mut Graph<'_, '_>, x: &Picture, name: &str) -> Result<Picture, ImportError> {
    let qkv = conv(g, x, &format!("{name}.qkv"), 1, false)?;
    let scales = indices_after(g.weights().checkpoint(), &format!("{name}.aggreg.")).len();
    let &[_, dim, _, _] = shape_of(g.weights().checkpoint(), &format!("{name}.aggreg.0.1.weight"))?;
    let plain = |part: String, kernel: usize, groups: usize| Convolution {
        name: part,
        norm: None,
        epsilon: EPSILON,
        kernel,
        stride: 1,
        output: qkv.channels,
        groups,
    };
    let mut all = vec![qkv.value.clone()];
    for scale in 0..scales {
        let around = format!("{name}.aggreg.{scale}.0");
        let &[_, _, kernel, _] = shape_of(g.weights().checkpoint(), &format!("{around}.weight"))?;
        let near = plain(around, kernel, qkv.channels).build(g, &qkv)?;
        let groups = qkv.channels / dim.max(1);
        all.push(plain(format!("{name}.aggreg.{scale}.1"), 1, groups).build(g, &near)?.value);
    }
    let all = g.concat(&all.iter().collect::<Vec<_>>(), 1);
    let channels = (1 + scales) * qkv.channels;
    let value = attend(g, &all, [channels / (3 * dim).max(1), dim, x.side]);
    conv(g, &Picture { value, channels: channels / 3, side: x.side }, &format!("{name}.proj"), 1, false)
}

/// `[1, heads · 3 · dim, side, side]` → `[1, heads · dim, side, side]`.
fn attend(g: &mut Graph<'_, '_>, all: &Value<F32>, [heads, dim, side]: [usize; 3]) -> Value<F32> {
    let (wide, cells, n) = (heads as i64, (side * side) as i64, dim as i64);
    let all = g.reshape(all, &[1, wide, 3 * n, cells]);
    let parts = g.split(&all, 2, &[dim; 3]);
    let (query, key) = (g.map("Relu", &parts[0]), g.map("Relu", &parts[1]));
    // A row of ones behind the values sums up the weights.
    let one = g.scalar(1.0);
    let ones = g.expand(&one, &[1, heads, 1, side * side]);
    let value = g.concat(&[&parts[2], &ones], 2);
    let key = g.transpose(&key, &[0, 1, 3, 2]);
    let met = g.matmul(&value, &key);
    let seen = g.matmul(&met, &query);
    let (sum, weight) = (g.slice(&seen, 2, 0, n), g.slice(&seen, 2, n, n + 1));
    let least = g.scalar(NO_ANSWER);
    let weight = g.add(&weight, &least);
    let inverse = g.map("Reciprocal", &weight);
    let mean = g.mul(&sum, &inverse);
    g.reshape(&mean, &[1, wide * n, side as i64, side as i64])
}
