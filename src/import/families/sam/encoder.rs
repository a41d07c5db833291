//! SAM's image encoder: a ViT with absolute and relative positions whose layers look at windows or at everything, and
//! a neck of two convolutions.

use super::Sizes;
use super::positions::{KeyMarks, Relative, Windows};
use crate::import::Level;
use crate::import::config::Config;
use crate::import::error::ImportError;
use crate::import::graph::{Dim, F32, Graph, Value};
use crate::import::nn::{self, Activation, Attention};
use crate::import::onnx::ModelProto;
use crate::import::weights::Weights;

/// Epsilon of the neck's normalisations; not configurable in `transformers`.
const NECK_EPSILON: f32 = 1e-6;

/// The image encoder as its configuration describes it.
#[derive(Debug)]
pub(super) struct Encoder {
    sizes: Sizes,
    image_channels: usize,
    patch: usize,
    hidden: usize,
    intermediate: usize,
    /// Of each layer the side of its windows in cells; none where every cell sees every other.
    windows: Vec<Option<usize>>,
    relative_positions: bool,
    heads: usize,
    head_width: usize,
    activation: Activation,
    epsilon: f32,
    qkv_bias: bool,
    absolute_positions: bool,
}

impl Encoder {
    /// Reads a `vision_config`.
    pub(super) fn read(config: &Config, sizes: Sizes) -> Result<Self, ImportError> {
        let layers = config.dim("num_hidden_layers", 12)?;
        let windows = match config.integers("window_size", &[14])?[..] {
            [0] => None,
            [n] if (1..=4096).contains(&n) => Some(n as usize),
            _ => return Err(config.wrong("window_size", "is not in 0..=4096")),
        };
        let global = config.integers("global_attn_indexes", &[2, 5, 8, 11])?;
        let window_of = |layer| windows.filter(|_| !global.contains(&(layer as i64)));
        let hidden = config.dim("hidden_size", 768)?;
        let heads = config.dim("num_attention_heads", 12)?;
        let ratio = config.number("mlp_ratio", 4.0)?;
        Ok(Self {
            sizes,
            image_channels: config.dim("num_channels", 3)?,
            patch: config.square("patch_size", 16)?,
            hidden,
            intermediate: config.dim("mlp_dim", (hidden as f64 * ratio) as usize)?,
            windows: (0..layers).map(window_of).collect(),
            relative_positions: config.flag("use_rel_pos", true)?,
            heads,
            head_width: config.divide("num_attention_heads", hidden, heads)?,
            activation: Activation::read(config, "hidden_act", "gelu")?,
            epsilon: config.epsilon("layer_norm_eps", 1e-6)?,
            qkv_bias: config.flag("qkv_bias", true)?,
            absolute_positions: config.flag("use_abs_pos", true)?,
        })
    }

    /// Builds the graph `image_encoder`.
    pub(super) fn build(&self, level: Level, weights: &mut Weights<'_>) -> Result<ModelProto, ImportError> {
        let mut graph = Graph::new("image_encoder", level, weights);
        let g = &mut graph;
        let Sizes { side, grid, channels, .. } = self.sizes;
        let pixels = g.input::<F32>(
            "pixel_values",
            &[Dim::Fixed(1), Dim::Fixed(self.image_channels), Dim::Fixed(side), Dim::Fixed(side)],
        );
        let mut x = g.scoped("embeddings", |g| self.embeddings(g, &pixels))?;
        let mut marks = KeyMarks::default();
        for layer in 0..self.windows.len() {
            x = g.scoped(&format!("layer_{layer}"), |g| self.layer(g, &x, layer, &mut marks))?;
        }
        let embedding = g.scoped("neck", |g| neck(g, &x, self.hidden, self.sizes))?;
        g.output(
            "image_embedding",
            &embedding,
            &[Dim::Fixed(1), Dim::Fixed(channels), Dim::Fixed(grid), Dim::Fixed(grid)],
        );
        Ok(graph.finish())
    }

    fn embeddings(&self, g: &mut Graph<'_, '_>, pixels: &Value<F32>) -> Result<Value<F32>, ImportError> {
        const NAME: &str = "vision_encoder.patch_embed.projection";
        let Sizes { side, grid, .. } = self.sizes;
        let x = nn::patches(g, pixels, NAME, [self.image_channels, side, self.patch, self.hidden])?;
        let bias = g.weight(&format!("{NAME}.bias"), &[self.hidden])?;
        let x = g.add(&x, &bias);
        if !self.absolute_positions {
            return Ok(x);
        }
        let shape = [1, grid, grid, self.hidden];
        let positions = g.weight_as("vision_encoder.pos_embed", &shape, &[grid * grid, self.hidden])?;
        Ok(g.add(&x, &positions))
    }

    fn layer(
        &self,
        g: &mut Graph<'_, '_>,
        x: &Value<F32>,
        layer: usize,
        marks: &mut KeyMarks,
    ) -> Result<Value<F32>, ImportError> {
        let name = format!("vision_encoder.layers.{layer}");
        let (hidden, grid) = (self.hidden, self.sizes.grid);
        let normal = nn::layer_norm(g, x, &format!("{name}.layer_norm1"), hidden, self.epsilon)?;
        let windows = self.windows[layer].map(|side| Windows { grid, side });
        let normal = windows.map_or_else(|| normal.clone(), |windows| windows.cut(g, &normal, hidden));
        let all = nn::linear(g, &normal, &format!("{name}.attn.qkv"), [hidden, 3 * hidden], self.qkv_bias)?;
        let parts = g.split(&all, -1, &[hidden; 3]);
        let attention =
            Attention { query: &parts[0], key: &parts[1], value: &parts[2], heads: self.heads, width: self.head_width };
        let context = if self.relative_positions {
            let side = self.windows[layer].unwrap_or(grid);
            let count = windows.map_or(1, |windows| windows.count());
            Relative { attention, side, count }.build(g, &format!("{name}.attn"), marks)?
        } else {
            attention.build(g)
        };
        let context = nn::linear(g, &context, &format!("{name}.attn.proj"), [hidden, hidden], true)?;
        let context = windows.map_or_else(|| context.clone(), |windows| windows.join(g, &context, hidden));
        let x = g.add(x, &context);
        let normal = nn::layer_norm(g, &x, &format!("{name}.layer_norm2"), hidden, self.epsilon)?;
        let inner = nn::linear(g, &normal, &format!("{name}.mlp.lin1"), [hidden, self.intermediate], true)?;
        let inner = self.activation.apply(g, &inner);
        let inner = nn::linear(g, &inner, &format!("{name}.mlp.lin2"), [self.intermediate, hidden], true)?;
        Ok(g.add(&x, &inner))
    }
}

/// `[1, grid · grid, hidden]` → `[1, channels, grid, grid]`. The first convolution has a 1×1 kernel: a product of
/// matrices while the channels are still last.
pub(super) fn neck(
    g: &mut Graph<'_, '_>,
    x: &Value<F32>,
    hidden: usize,
    Sizes { grid, channels, .. }: Sizes,
) -> Result<Value<F32>, ImportError> {
    const NAME: &str = "vision_encoder.neck";
    let image = [1, channels as i64, grid as i64, grid as i64];
    let kernel = g.weight_as(&format!("{NAME}.conv1.weight"), &[channels, hidden, 1, 1], &[channels, hidden])?;
    let x = nn::times_transposed(g, x, &kernel);
    let x = nn::layer_norm(g, &x, &format!("{NAME}.layer_norm1"), channels, NECK_EPSILON)?;
    let x = g.transpose(&x, &[0, 2, 1]);
    let x = g.reshape(&x, &image);
    let kernel = g.weight(&format!("{NAME}.conv2.weight"), &[channels, channels, 3, 3])?;
    let x = g.conv(&x, &kernel, 1);
    let x = g.reshape(&x, &[1, channels as i64, -1]);
    let x = g.transpose(&x, &[0, 2, 1]);
    let x = nn::layer_norm(g, &x, &format!("{NAME}.layer_norm2"), channels, NECK_EPSILON)?;
    let x = g.transpose(&x, &[0, 2, 1]);
    Ok(g.reshape(&x, &image))
}
