//! The vision towers of Qwen2.5-VL and Qwen3-VL: patches of an image of any size.
//!
//! Patches come in windows of equal length: Qwen2.5-VL attends within them in most layers, and those at the edge are
//! filled up, which a bias hides from every other patch; Qwen3-VL has one window. Within a window the patches that are
//! merged into one token stand together.
//!
//! Source: `transformers`, `models/qwen2_5_vl` and `models/qwen3_vl`; arXiv 2502.13923.

use crate::import::config::Config;
use crate::import::error::ImportError;
use crate::import::graph::{Dim, F32, Graph, I32, Value};
use crate::import::nn::{self, Activation, Rotation};

/// Base of the rotation's wavelengths.
const THETA: f64 = 10_000.0;
/// Of every normalisation in the towers.
const EPSILON: f32 = 1e-6;

/// What the two kinds differ in.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// Windows, root mean square norms, a gated MLP.
    Windowed {
        /// Layers that attend across windows.
        full: Vec<usize>,
    },
    /// Learned positions, layer norms, features from several layers.
    Stacked {
        /// Side of the square of learned positions.
        grid: usize,
        /// Layers whose output goes to the text model too.
        taps: Vec<usize>,
    },
}

/// A vision tower as its configuration describes it.
#[derive(Debug)]
pub(super) struct QwenTower {
    kind: Kind,
    prefix: String,
    hidden: usize,
    intermediate: usize,
    layers: usize,
    heads: usize,
    channels: usize,
    patch: usize,
    frames: usize,
    merge: usize,
    out: usize,
    activation: Activation,
}

/// What every layer needs besides its input.
struct Surroundings {
    /// Within windows.
    rotation: Rotation,
    /// Which patches are none, `[windows, 1, 1, T]`; only where there are windows.
    bias: Option<Value<F32>>,
    /// The same for all windows as one.
    across: Rotation,
    across_bias: Option<Value<F32>>,
}

impl QwenTower {
    /// The tower of Qwen2.5-VL; tensors are under `prefix`.
    pub(super) fn windowed(config: &Config, prefix: &str) -> Result<Self, ImportError> {
        let full = indices(config, "fullatt_block_indexes", &[7, 15, 23, 31])?;
        let patch = config.square("patch_size", 14)?;
        let (window, merge) = (config.dim("window_size", 112)?, config.dim("spatial_merge_size", 2)?);
        if window / merge / patch == 0 {
            return Err(config.unsupported("window_size", "holds no merged patch"));
        }
        Self::read(config, prefix, Kind::Windowed { full }, ("silu", patch, 32))
    }

    /// The tower of Qwen3-VL; tensors are under `prefix`.
    pub(super) fn stacked(config: &Config, prefix: &str) -> Result<Self, ImportError> {
        let taps = indices(config, "deepstack_visual_indexes", &[8, 16, 24])?;
        let positions = config.dim("num_position_embeddings", 2304)?;
        let grid = positions.isqrt();
        if grid * grid != positions {
            return Err(config.unsupported("num_position_embeddings", format!("{positions} is no square")));
        }
        let patch = config.square("patch_size", 16)?;
        Self::read(config, prefix, Kind::Stacked { grid, taps }, ("gelu_pytorch_tanh", patch, 27))
    }

    fn read(
        config: &Config,
        prefix: &str,
        kind: Kind,
        (activation, patch, depth): (&str, usize, usize),
    ) -> Result<Self, ImportError> {
        let hidden = config.required_dim("hidden_size")?;
        let heads = config.dim("num_heads", 16)?;
        config.divide("num_heads", hidden, heads)?;
        config.divide("num_heads", hidden / heads, 4)?;
        let layers = config.dim("depth", depth)?;
        let (Kind::Windowed { full: named } | Kind::Stacked { taps: named, .. }) = &kind;
        if let Some(layer) = named.iter().find(|layer| **layer >= layers) {
            return Err(config.unsupported("depth", format!("there is no layer {layer} among {layers}")));
        }
        Ok(Self {
            prefix: prefix.to_owned(),
            hidden,
            intermediate: config.required_dim("intermediate_size")?,
            layers,
            heads,
            channels: config.dim("in_channels", 3)?,
            patch,
            frames: config.square("temporal_patch_size", 2)?,
            merge: config.dim("spatial_merge_size", 2)?,
            out: config.required_dim("out_hidden_size")?,
            activation: Activation::read(config, "hidden_act", activation)?,
            kind,
        })
    }

    /// Width of the tokens that it gives.
    pub(super) fn out(&self) -> usize {
        self.out
    }

    /// How many layers' features go to the text model besides the last one's.
    pub(super) fn taps(&self) -> usize {
        if let Kind::Stacked { taps, .. } = &self.kind { taps.len() } else { 0 }
    }

    /// Builds the graph `vision`.
    pub(super) fn build(&self, g: &mut Graph<'_, '_>) -> Result<(), ImportError> {
        let depth = self.channels * self.patch * self.patch;
        let windows = if self.is_windowed() { Dim::Named("windows") } else { Dim::Fixed(1) };
        let patches = Dim::Named("patches");
        let pixels = g.input::<F32>("pixel_values", &[windows, patches, Dim::Fixed(depth)]);
        let positions = g.input::<I32>("patch_positions", &[windows, patches, Dim::Fixed(2)]);
        let bias = self
            .is_windowed()
            .then(|| g.input::<F32>("attention_bias", &[windows, Dim::Fixed(1), Dim::Fixed(1), patches]));
        let around = g.scoped("rotation", |g| self.surroundings(g, &positions, bias))?;
        let mut x = g.scoped("embeddings", |g| self.embeddings(g, &pixels))?;
        let tokens = [Dim::Fixed(1), Dim::Named("tokens"), Dim::Fixed(self.out)];
        for layer in 0..self.layers {
            x = g.scoped(&format!("layer_{layer}"), |g| self.layer(g, &x, layer, &around))?;
            let Kind::Stacked { taps, .. } = &self.kind else { continue };
            if let Some(i) = taps.iter().position(|tap| *tap == layer) {
                let features = g.scoped(&format!("deepstack_{i}"), |g| self.merge_stacked(g, &x, Some(i)))?;
                g.output(&format!("deepstack.{i}"), &features, &tokens);
            }
        }
        let embeds = g.scoped("merger", |g| match &self.kind {
            Kind::Windowed { .. } => self.merge_windowed(g, &x),
            Kind::Stacked { .. } => self.merge_stacked(g, &x, None),
        })?;
        g.output("image_embeds", &embeds, &tokens);
        Ok(())
    }

    fn is_windowed(&self) -> bool {
        matches!(self.kind, Kind::Windowed { .. })
    }

    fn width(&self) -> usize {
        self.hidden / self.heads
    }

    /// Rows turn the first quarter of a head's dimensions, columns the second; the other half is their partner.
    fn surroundings(
        &self,
        g: &mut Graph<'_, '_>,
        positions: &Value<I32>,
        bias: Option<Value<F32>>,
    ) -> Result<Surroundings, ImportError> {
        let (width, quarter) = (self.width(), self.width() / 4);
        let own = |i: usize| THETA.powf(2.0 * i as f64 / (width / 2) as f64).recip() as f32;
        let frequencies: Vec<f32> = (0..quarter).map(own).collect();
        let frequencies = g.constant(&[quarter], &frequencies)?;
        let positions = g.cast::<I32, F32>(positions);
        let parts = g.split(&positions, -1, &[1, 1]);
        let (rows, columns) = (g.mul(&parts[0], &frequencies), g.mul(&parts[1], &frequencies));
        let angles = g.concat(&[&rows, &columns], -1);
        let angles = g.unsqueeze(&angles, 1);
        let rotation = Rotation { cos: g.map("Cos", &angles), sin: g.map("Sin", &angles) };
        let whole = [1, 1, -1, 2 * quarter as i64];
        let across = match self.kind {
            Kind::Windowed { .. } => {
                Rotation { cos: g.reshape(&rotation.cos, &whole), sin: g.reshape(&rotation.sin, &whole) }
            }
            Kind::Stacked { .. } => Rotation { cos: rotation.cos.clone(), sin: rotation.sin.clone() },
        };
        let across_bias = bias.as_ref().map(|bias| g.reshape(bias, &[1, 1, 1, -1]));
        Ok(Surroundings { rotation, bias, across, across_bias })
    }

    /// An image is a film of equal frames to the tower: the kernels of its frames are added up.
    fn embeddings(&self, g: &mut Graph<'_, '_>, pixels: &Value<F32>) -> Result<Value<F32>, ImportError> {
        let name = format!("{}.patch_embed.proj", self.prefix);
        let (area, depth) = (self.patch * self.patch, self.channels * self.patch * self.patch);
        let shape = [self.hidden, self.channels, self.frames, self.patch, self.patch];
        let kernel =
            g.weight_as(&format!("{name}.weight"), &shape, &[self.hidden, self.channels, self.frames, area])?;
        let mut sum = g.slice(&kernel, 2, 0, 1);
        for frame in 1..self.frames as i64 {
            let next = g.slice(&kernel, 2, frame, frame + 1);
            sum = g.add(&sum, &next);
        }
        let kernel = g.reshape(&sum, &[self.hidden as i64, depth as i64]);
        let x = nn::times_transposed(g, pixels, &kernel);
        let Kind::Stacked { grid, .. } = self.kind else { return Ok(x) };
        let bias = g.weight(&format!("{name}.bias"), &[self.hidden])?;
        let x = g.add(&x, &bias);
        let positions = self.learned_positions(g, grid)?;
        Ok(g.add(&x, &positions))
    }

    /// Positions between those that were learned: the four nearest, weighed.
    fn learned_positions(&self, g: &mut Graph<'_, '_>, grid: usize) -> Result<Value<F32>, ImportError> {
        let four = [Dim::Fixed(4), Dim::Named("patches")];
        let nearest = g.input::<I32>("position_indices", &four);
        let shares = g.input::<F32>("position_weights", &[four[0], four[1], Dim::Fixed(1)]);
        let table = g.weight(&format!("{}.pos_embed.weight", self.prefix), &[grid * grid, self.hidden])?;
        let found = g.gather(&table, &nearest, 0);
        let found = g.mul(&found, &shares);
        let parts = g.split(&found, 0, &[1; 4]);
        let (a, b) = (g.add(&parts[0], &parts[1]), g.add(&parts[2], &parts[3]));
        Ok(g.add(&a, &b))
    }

    fn norm(&self, g: &mut Graph<'_, '_>, x: &Value<F32>, name: &str, width: usize) -> Result<Value<F32>, ImportError> {
        match self.kind {
            Kind::Windowed { .. } => nn::rms_norm(g, x, name, width, EPSILON),
            Kind::Stacked { .. } => nn::layer_norm(g, x, name, width, EPSILON),
        }
    }

    fn layer(
        &self,
        g: &mut Graph<'_, '_>,
        x: &Value<F32>,
        layer: usize,
        around: &Surroundings,
    ) -> Result<Value<F32>, ImportError> {
        let name = format!("{}.blocks.{layer}", self.prefix);
        let normal = self.norm(g, x, &format!("{name}.norm1"), self.hidden)?;
        let context = self.attention(g, &normal, &name, layer, around)?;
        let x = g.add(x, &context);
        let normal = self.norm(g, &x, &format!("{name}.norm2"), self.hidden)?;
        let (wide, narrow) = ([self.hidden, self.intermediate], [self.intermediate, self.hidden]);
        let inner = match self.kind {
            Kind::Windowed { .. } => nn::gated_mlp(g, &normal, &format!("{name}.mlp"), (wide, true), self.activation)?,
            Kind::Stacked { .. } => {
                let inner = nn::linear(g, &normal, &format!("{name}.mlp.linear_fc1"), wide, true)?;
                let inner = self.activation.apply(g, &inner);
                nn::linear(g, &inner, &format!("{name}.mlp.linear_fc2"), narrow, true)?
            }
        };
        Ok(g.add(&x, &inner))
    }

    /// Attention within the windows `[windows, T, hidden]`, or across all of them.
    fn attention(
        &self,
        g: &mut Graph<'_, '_>,
        x: &Value<F32>,
        name: &str,
        layer: usize,
        around: &Surroundings,
    ) -> Result<Value<F32>, ImportError> {
        let within = matches!(&self.kind, Kind::Windowed { full } if !full.contains(&layer));
        let (rotation, bias) = match within {
            true => (&around.rotation, &around.bias),
            false => (&around.across, &around.across_bias),
        };
        let split = [if within { 0 } else { 1 }, -1, self.heads as i64, self.width() as i64];
        let all = nn::linear(g, x, &format!("{name}.attn.qkv"), [self.hidden, 3 * self.hidden], true)?;
        let parts = g.split(&all, -1, &[self.hidden; 3]);
        let heads: Vec<Value<F32>> = parts
            .iter()
            .map(|part| {
                let part = g.reshape(part, &split);
                g.transpose(&part, &[0, 2, 1, 3])
            })
            .collect();
        let (query, key) =
            (nn::rotate(g, &heads[0], rotation, self.width()), nn::rotate(g, &heads[1], rotation, self.width()));
        let key = g.transpose(&key, &[0, 1, 3, 2]);
        let mut scores = nn::scaled(g, &query, &key, self.width());
        if let Some(bias) = bias {
            scores = g.add(&scores, bias);
        }
        let weights = g.softmax(&scores);
        let context = g.matmul(&weights, &heads[2]);
        let context = g.transpose(&context, &[0, 2, 1, 3]);
        let context = g.reshape(&context, &[0, 0, self.hidden as i64]);
        let mut context = nn::linear(g, &context, &format!("{name}.attn.proj"), [self.hidden, self.hidden], true)?;
        if self.is_windowed() && !within {
            // Back into windows, whose number and length the input tells.
            context = g.reshape_like(&context, x);
        }
        Ok(context)
    }

    fn merge_windowed(&self, g: &mut Graph<'_, '_>, x: &Value<F32>) -> Result<Value<F32>, ImportError> {
        let (name, wide) = (format!("{}.merger", self.prefix), self.hidden * self.merge * self.merge);
        let x = self.norm(g, x, &format!("{name}.ln_q"), self.hidden)?;
        let x = g.reshape(&x, &[1, -1, wide as i64]);
        let x = nn::linear(g, &x, &format!("{name}.mlp.0"), [wide, wide], true)?;
        let x = Activation::Gelu.apply(g, &x);
        nn::linear(g, &x, &format!("{name}.mlp.2"), [wide, self.out], true)
    }

    /// The last merger normalises patches, those of `tap` what they merge.
    fn merge_stacked(
        &self,
        g: &mut Graph<'_, '_>,
        x: &Value<F32>,
        tap: Option<usize>,
    ) -> Result<Value<F32>, ImportError> {
        let wide = self.hidden * self.merge * self.merge;
        let merged = [1, -1, wide as i64];
        let (name, x) = match tap {
            Some(i) => {
                let name = format!("{}.deepstack_merger_list.{i}", self.prefix);
                let x = g.reshape(x, &merged);
                let x = self.norm(g, &x, &format!("{name}.norm"), wide)?;
                (name, x)
            }
            None => {
                let name = format!("{}.merger", self.prefix);
                let x = self.norm(g, x, &format!("{name}.norm"), self.hidden)?;
                (name, g.reshape(&x, &merged))
            }
        };
        let x = nn::linear(g, &x, &format!("{name}.linear_fc1"), [wide, wide], true)?;
        let x = Activation::Gelu.apply(g, &x);
        nn::linear(g, &x, &format!("{name}.linear_fc2"), [wide, self.out], true)
    }
}

/// Numbers of layers.
fn indices(config: &Config, key: &str, default: &[i64]) -> Result<Vec<usize>, ImportError> {
    let layers = config.integers(key, default)?;
    layers.into_iter().map(|i| usize::try_from(i).map_err(|_| config.wrong(key, "names a layer below 0"))).collect()
}
