//! SAM 2's image encoder, Hiera: a transformer in stages, whose layers look at windows or at everything. Where a stage
//! begins, each square of neighbouring queries becomes one, by its largest values.
//!
//! Source: `transformers`, `Sam2HieraDetModel`; arXiv 2306.00989 and 2408.00714.

use super::convolutions::{Picture, tokens, upsample};
use super::positions::Windows;
use crate::import::config::Config;
use crate::import::error::ImportError;
use crate::import::graph::{F32, Graph, Value};
use crate::import::nn::{self, Activation, Attention};

const NAME: &str = "vision_encoder.backbone";
/// Most stages that are believed.
const MOST_STAGES: usize = 16;
/// Most layers of a stage that are believed.
const MOST_LAYERS: i64 = 1 << 10;
/// Largest width, and most heads and cells of a window, that are believed.
const MOST: i64 = 1 << 16;

/// The backbone as its configuration describes it.
#[derive(Debug)]
pub(super) struct Hiera {
    /// Width and height of the image, in pixels.
    pub side: usize,
    /// Channels of the image.
    pub image_channels: usize,
    patch: Patch,
    hidden: usize,
    /// Width and height of the learned positions that are stretched over the whole grid, in cells.
    background: usize,
    /// Of those that repeat.
    window: usize,
    blocks: Vec<Block>,
    activation: Activation,
    epsilon: f32,
}

/// The convolution that makes the first cells, which overlap.
#[derive(Debug)]
struct Patch {
    kernel: usize,
    stride: usize,
    padding: usize,
}

/// A layer: what it takes and what it gives.
#[derive(Debug, Clone, Copy)]
struct Block {
    /// Width and height of what it takes, in cells.
    grid: usize,
    /// How many cells of a side become one.
    pool: usize,
    input: usize,
    output: usize,
    heads: usize,
    inner: usize,
    /// Side of its windows in cells, before they are pooled; none where every cell sees every other.
    window: Option<usize>,
    /// Whether it is the last of its stage.
    ends: bool,
}

/// What a stage gives: tokens, `[1, grid · grid, width]`.
pub(super) struct Stage {
    /// The tokens.
    pub tokens: Value<F32>,
    /// Width and height, in cells.
    pub grid: usize,
    /// Width of a token.
    pub width: usize,
}

impl Hiera {
    /// Reads a `backbone_config`.
    pub(super) fn read(config: &Config) -> Result<Self, ImportError> {
        let kind = config.text("model_type", "sam2_hiera_det_model")?;
        if kind != "sam2_hiera_det_model" {
            return Err(config.unsupported("model_type", format!("`{kind}` is not sam2_hiera_det_model")));
        }
        let side = config.square("image_size", 1024)?;
        let patch = Patch {
            kernel: config.square("patch_kernel_size", 7)?,
            stride: config.square("patch_stride", 4)?,
            padding: config.square("patch_padding", 3)?,
        };
        let padded = side + 2 * patch.padding;
        if padded < patch.kernel {
            return Err(config.wrong("patch_kernel_size", "is larger than the image"));
        }
        let grid = (padded - patch.kernel) / patch.stride + 1;
        let stages = Stages::read(config)?;
        let hidden = config.dim("hidden_size", 96)?;
        if hidden != stages.widths[0] {
            return Err(config.wrong("hidden_size", "is not the first of embed_dim_per_stage"));
        }
        let window = stages.windows[0];
        config.divide("window_size_per_stage", grid, window)?;
        Ok(Self {
            side,
            image_channels: config.dim("num_channels", 3)?,
            patch,
            hidden,
            background: config.square("window_positional_embedding_background_size", 7)?,
            window,
            blocks: stages.blocks(config, grid)?,
            activation: Activation::read(config, "hidden_act", "gelu")?,
            epsilon: config.epsilon("layer_norm_eps", 1e-6)?,
        })
    }

    /// Width and height of each stage's result in cells, and its channels.
    pub(super) fn stages(&self) -> Vec<[usize; 2]> {
        self.blocks.iter().filter(|block| block.ends).map(|block| [block.grid / block.pool, block.output]).collect()
    }

    /// Builds every stage over an image `[1, channels, side, side]`.
    pub(super) fn build(&self, g: &mut Graph<'_, '_>, pixels: &Value<F32>) -> Result<Vec<Stage>, ImportError> {
        let mut x = g.scoped("embeddings", |g| self.embeddings(g, pixels))?;
        let mut stages = Vec::new();
        for (layer, block) in self.blocks.iter().enumerate() {
            x =
                g.scoped(&format!("layer_{layer}"), |g| self.layer(g, &x, &format!("{NAME}.blocks.{layer}"), *block))?;
            if block.ends {
                stages.push(Stage { tokens: x.clone(), grid: block.grid / block.pool, width: block.output });
            }
        }
        Ok(stages)
    }

    /// Patches, with positions of the whole grid and of a window, which repeats over it.
    fn embeddings(&self, g: &mut Graph<'_, '_>, pixels: &Value<F32>) -> Result<Value<F32>, ImportError> {
        let Self { hidden, background, window, ref patch, .. } = *self;
        let name = format!("{NAME}.patch_embed.projection");
        let shape = [hidden, self.image_channels, patch.kernel, patch.kernel];
        let (kernel, bias) =
            (g.weight(&format!("{name}.weight"), &shape)?, g.weight(&format!("{name}.bias"), &[hidden])?);
        let value = g.conv_of(pixels, [&kernel, &bias], [patch.stride, patch.padding, 1]);
        let grid = self.blocks[0].grid;
        let x = tokens(g, &Picture { value, channels: hidden, side: grid });

        let value = g.weight(&format!("{NAME}.pos_embed"), &[1, hidden, background, background])?;
        let whole = upsample(g, &Picture { value, channels: hidden, side: background }, grid)?;
        let (across, cells) = ((grid / window) as i64, window as i64);
        let whole = g.reshape(&whole.value, &[1, hidden as i64, across, cells, across, cells]);
        let shape = [1, hidden, window, window];
        let repeated = g.weight_as(&format!("{NAME}.pos_embed_window"), &shape, &[1, hidden, 1, window, 1, window])?;
        let value = g.add(&whole, &repeated);
        let positions = tokens(g, &Picture { value, channels: hidden, side: grid });
        Ok(g.add(&x, &positions))
    }

    fn layer(
        &self,
        g: &mut Graph<'_, '_>,
        x: &Value<F32>,
        name: &str,
        block: Block,
    ) -> Result<Value<F32>, ImportError> {
        let Block { grid, pool, input, output, inner, .. } = block;
        let normal = nn::layer_norm(g, x, &format!("{name}.layer_norm1"), input, self.epsilon)?;
        let kept = if input == output {
            x.clone()
        } else {
            let kept = nn::linear(g, &normal, &format!("{name}.proj"), [input, output], true)?;
            pooled(g, &kept, [grid, pool, output])
        };
        let seen = attend(g, &normal, &format!("{name}.attn"), block)?;
        let x = g.add(&kept, &seen);
        let normal = nn::layer_norm(g, &x, &format!("{name}.layer_norm2"), output, self.epsilon)?;
        let y = nn::linear(g, &normal, &format!("{name}.mlp.proj_in"), [output, inner], true)?;
        let y = self.activation.apply(g, &y);
        let y = nn::linear(g, &y, &format!("{name}.mlp.proj_out"), [inner, output], true)?;
        Ok(g.add(&x, &y))
    }
}

/// Attention in windows: `[1, grid · grid, input]` → `[1, (grid / pool)², output]`.
fn attend(g: &mut Graph<'_, '_>, x: &Value<F32>, name: &str, block: Block) -> Result<Value<F32>, ImportError> {
    let Block { grid, pool, input, output, heads, window, .. } = block;
    let x = window.map_or_else(|| x.clone(), |side| Windows { grid, side }.cut(g, x, input));
    let all = nn::linear(g, &x, &format!("{name}.qkv"), [input, 3 * output], true)?;
    let parts = g.split(&all, -1, &[output; 3]);
    let query = pooled(g, &parts[0], [window.unwrap_or(grid), pool, output]);
    let attention = Attention { query: &query, key: &parts[1], value: &parts[2], heads, width: output / heads };
    let context = attention.build(g);
    let context = nn::linear(g, &context, &format!("{name}.proj"), [output, output], true)?;
    let joined = |side| Windows { grid: grid / pool, side: side / pool };
    Ok(window.map_or_else(|| context.clone(), |side| joined(side).join(g, &context, output)))
}

/// Of every square of `pool` by `pool` cells the largest values: `[B, side · side, width]` → `[B, (side / pool)², width]`.
fn pooled(g: &mut Graph<'_, '_>, x: &Value<F32>, [side, pool, width]: [usize; 3]) -> Value<F32> {
    if pool == 1 {
        return x.clone();
    }
    let (few, pool, width) = ((side / pool) as i64, pool as i64, width as i64);
    let largest = |g: &mut Graph<'_, '_>, x: &Value<F32>, axis: i64| {
        let parts: Vec<_> = (0..pool).map(|at| g.slice(x, axis, at, at + 1)).collect();
        let rest = parts[1..].iter();
        rest.fold(parts[0].clone(), |largest, part| g.max(&largest, part))
    };
    let x = g.reshape(x, &[-1, few, pool, few * pool * width]);
    let x = largest(g, &x, 2);
    let x = g.reshape(&x, &[-1, few * few, pool, width]);
    let x = largest(g, &x, 2);
    g.reshape(&x, &[-1, few * few, width])
}

/// What a configuration says of each stage.
struct Stages {
    depths: Vec<usize>,
    widths: Vec<usize>,
    heads: Vec<usize>,
    windows: Vec<usize>,
}

impl Stages {
    fn read(config: &Config) -> Result<Self, ImportError> {
        let of_each = |key: &str, most: i64, default: [i64; 4]| -> Result<Vec<usize>, ImportError> {
            let values = config.integers(key, &default)?;
            match values.iter().all(|n| (1..=most).contains(n)) && (1..=MOST_STAGES).contains(&values.len()) {
                true => Ok(values.iter().map(|n| *n as usize).collect()),
                false => Err(config.wrong(key, format!("is not up to {MOST_STAGES} numbers in 1..={most}"))),
            }
        };
        let stages = Self {
            depths: of_each("blocks_per_stage", MOST_LAYERS, [1, 2, 7, 2])?,
            widths: of_each("embed_dim_per_stage", MOST, [96, 192, 384, 768])?,
            heads: of_each("num_attention_heads_per_stage", MOST, [1, 2, 4, 8])?,
            windows: of_each("window_size_per_stage", MOST, [8, 4, 14, 7])?,
        };
        for (key, values) in [
            ("embed_dim_per_stage", &stages.widths),
            ("num_attention_heads_per_stage", &stages.heads),
            ("window_size_per_stage", &stages.windows),
        ] {
            if values.len() != stages.depths.len() {
                return Err(config.wrong(key, "has not one number for each of blocks_per_stage"));
            }
        }
        Ok(stages)
    }

    /// The layers over a grid of `grid` cells a side.
    fn blocks(&self, config: &Config, mut grid: usize) -> Result<Vec<Block>, ImportError> {
        let (stride, pools) = (config.square("query_stride", 2)?, config.dim("num_query_pool_stages", 3)?);
        let global = config.integers("global_attention_blocks", &[5, 7, 9])?;
        let ratio = config.number("mlp_ratio", 4.0)?;
        let mut blocks = Vec::new();
        for (stage, &depth) in self.depths.iter().enumerate() {
            let (output, heads) = (self.widths[stage], self.heads[stage]);
            config.divide("num_attention_heads_per_stage", output, heads)?;
            let inner = (output as f64 * ratio) as usize;
            for index in 0..depth {
                // The first of a stage still takes what the stage before gives, in its windows.
                let before = if index == 0 { stage.saturating_sub(1) } else { stage };
                let pool = if before < stage && stage <= pools { stride } else { 1 };
                let own = (!global.contains(&(blocks.len() as i64))).then_some(self.windows[before]);
                let block = Block {
                    grid,
                    pool,
                    input: self.widths[before],
                    output,
                    heads,
                    inner,
                    window: own,
                    ends: index + 1 == depth,
                };
                block.check(config)?;
                grid /= pool;
                blocks.push(block);
            }
        }
        Ok(blocks)
    }
}

impl Block {
    /// Refuses what its class computes otherwise or not at all.
    fn check(&self, config: &Config) -> Result<(), ImportError> {
        if !(1..=MOST as usize).contains(&self.inner) {
            return Err(config.wrong("mlp_ratio", format!("gives perceptrons that are not 1..={MOST} wide")));
        }
        if self.window.is_some_and(|window| window > self.grid) {
            return Err(config.unsupported("window_size_per_stage", "has a window that is larger than what it cuts"));
        }
        if self.pool == 1 {
            return Ok(());
        }
        if self.input == self.output {
            return Err(
                config.unsupported("embed_dim_per_stage", "has a stage that pools and is as wide as the one before")
            );
        }
        let Some(window) = self.window else {
            return Err(config.unsupported("global_attention_blocks", "has a layer that pools"));
        };
        config.divide("query_stride", self.grid, self.pool)?;
        config.divide("query_stride", window, self.pool).map(drop)
    }
}
