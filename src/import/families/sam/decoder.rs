//! SAM's prompt encoder and mask decoder, as one graph; SAM 2's too.
//!
//! All four mask tokens are computed; which to take is the caller's choice. Convolutions whose kernel equals their
//! stride, transposed ones too, are products of matrices between reshapes: no image of channels is ever padded.

use super::prompts::{IMAGE_PROJECTION, Prompts};
use super::sizes::shape_of;
use super::upscaling::upscaled;
use super::{HIGH_RES, Sizes};
use crate::import::Level;
use crate::import::checkpoint::Checkpoint;
use crate::import::config::Config;
use crate::import::error::ImportError;
use crate::import::graph::{Dim, F32, Graph, I32, Value};
use crate::import::nn::{self, Activation, Attention};
use crate::import::onnx::ModelProto;
use crate::import::weights::Weights;

/// Epsilon of the normalisation after the last attention, and of all in SAM 2's blocks; PyTorch's default.
const FINAL_EPSILON: f32 = 1e-5;

/// The mask decoder as its configurations describe it.
#[derive(Debug)]
pub(super) struct Decoder {
    sizes: Sizes,
    prompts: Prompts,
    version: Version,
    layers: usize,
    heads: usize,
    intermediate: usize,
    downsample: usize,
    activation: Activation,
    epsilon: f32,
    masks: usize,
    iou_depth: usize,
    iou_hidden: usize,
}

/// SAM or SAM 2. The latter has a token for whether there is an object, before the others, sees two finer levels of the
/// image while it draws, and gives scores between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A block's two streams: prompt tokens `[B, T, C]` and image tokens `[B, h · w, C]`.
struct Streams {
    tokens: Value<F32>,
    image: Value<F32>,
}

impl Decoder {
    /// Reads a `prompt_encoder_config` and a `mask_decoder_config`.
    pub(super) fn read(
        checkpoint: &Checkpoint,
        prompt: &Config,
        mask: &Config,
        sizes: Sizes,
    ) -> Result<Self, ImportError> {
        let heads = mask.dim("num_attention_heads", 8)?;
        let downsample = mask.dim("attention_downsample_rate", 2)?;
        let inner = mask.divide("attention_downsample_rate", sizes.channels, downsample)?;
        mask.divide("num_attention_heads", inner, heads)?;
        mask.divide("hidden_size", sizes.channels, 8)?;
        let masks = mask.dim("num_multimask_outputs", 3)? + 1;
        if masks != 4 {
            return Err(mask.unsupported("num_multimask_outputs", "is not 3"));
        }
        Ok(Self {
            sizes,
            prompts: Prompts::read(checkpoint, prompt, sizes)?,
            version: Version::One,
            layers: mask.dim("num_hidden_layers", 2)?,
            heads,
            intermediate: mask.dim("mlp_dim", 2048)?,
            downsample,
            activation: Activation::read(mask, "hidden_act", "relu")?,
            epsilon: mask.epsilon("layer_norm_eps", 1e-6)?,
            masks,
            iou_depth: mask.dim("iou_head_depth", 3)?,
            iou_hidden: mask.dim("iou_head_hidden_dim", 256)?,
        })
    }

    /// SAM 2's. `transformers` lets nothing but the widths of its blocks be configured, and takes the number of layers
    /// for that of the perceptrons in them too.
    pub(super) fn read_second(
        checkpoint: &Checkpoint,
        prompt: &Config,
        mask: &Config,
        sizes: Sizes,
    ) -> Result<Self, ImportError> {
        let first = Self::read(checkpoint, prompt, mask, sizes)?;
        Ok(Self { version: Version::Two, activation: Activation::Relu, epsilon: FINAL_EPSILON, ..first })
    }

    /// The decoder in the files of SAM's authors and their followers, which all have it alike; widths that the shapes
    /// tell are read from them.
    pub(super) fn of_authors(checkpoint: &Checkpoint, config: &Config, sizes: Sizes) -> Result<Self, ImportError> {
        let part = config.part("mask_decoder_config")?;
        let mut decoder = Self::read(checkpoint, &config.part("prompt_encoder_config")?, &part, sizes)?;
        [decoder.intermediate, _] = *shape_of(checkpoint, "mask_decoder.transformer.layers.0.mlp.lin1.weight")?;
        [decoder.iou_hidden, _] = *shape_of(checkpoint, "mask_decoder.iou_prediction_head.proj_in.weight")?;
        [decoder.prompts.channels, ..] = *shape_of::<4>(checkpoint, "prompt_encoder.mask_embed.conv2.weight")?;
        config.divide("mask_input_channels", decoder.prompts.channels, 4)?;
        Ok(decoder)
    }

    /// Builds the graph `mask_decoder`.
    pub(super) fn build(&self, level: Level, weights: &mut Weights<'_>) -> Result<ModelProto, ImportError> {
        let mut graph = Graph::new("mask_decoder", level, weights);
        let g = &mut graph;
        let Sizes { grid, channels, .. } = self.sizes;
        let (batch, one, fine) = (Dim::Named("prompts"), Dim::Fixed(1), Dim::Fixed(4 * grid));
        let embedding =
            g.input::<F32>("image_embedding", &[one, Dim::Fixed(channels), Dim::Fixed(grid), Dim::Fixed(grid)]);
        let levels = self
            .version
            .is_second()
            .then(|| HIGH_RES.map(|(name, finer)| g.input::<F32>(name, &self.sizes.level(finer))));
        let coords = g.input::<F32>("point_coords", &[batch, Dim::Named("points"), Dim::Fixed(2)]);
        let labels = g.input::<I32>("point_labels", &[batch, Dim::Named("points")]);
        let mask = g.input::<F32>("mask_input", &[batch, one, fine, fine]);
        let has_mask = g.input::<F32>("has_mask_input", &[batch, one, one, one]);

        let sparse = g.scoped("points", |g| self.prompts.points(g, &coords, &labels))?;
        let dense = g.scoped("mask", |g| self.prompts.dense(g, &mask, &has_mask))?;
        let image = g.reshape(&embedding, &[1, channels as i64, -1]);
        let image = g.transpose(&image, &[0, 2, 1]);
        let image = g.add(&image, &dense);
        let tokens = self.tokens(g, &sparse, &has_mask)?;
        let streams = self.transformer(g, Streams { tokens, image })?;
        let masks = g.scoped("masks", |g| self.masks(g, &streams, levels.as_ref()))?;
        g.output("low_res_masks", &masks, &[batch, Dim::Fixed(self.masks), fine, fine]);
        let scores = g.scoped("iou", |g| self.scores(g, &streams.tokens))?;
        g.output("iou_scores", &scores, &[batch, Dim::Fixed(self.masks)]);
        Ok(graph.finish())
    }

    /// What the decoder thinks of each mask: `[B, masks]`.
    fn scores(&self, g: &mut Graph<'_, '_>, tokens: &Value<F32>) -> Result<Value<F32>, ImportError> {
        let (channels, place) = (self.sizes.channels, self.version.first_token());
        let token = g.slice(tokens, 1, place, place + 1);
        let token = g.reshape(&token, &[0, channels as i64]);
        let sizes = [channels, self.iou_hidden, self.masks];
        let scores = feed_forward(g, &token, "mask_decoder.iou_prediction_head", sizes, self.iou_depth)?;
        Ok(if self.version.is_second() { g.map("Sigmoid", &scores) } else { scores })
    }

    /// SAM 2's token for an object, the IoU token, the mask tokens, then the prompt's: `[B, 1 + masks + T, C]`, of SAM 2
    /// one more.
    fn tokens(
        &self,
        g: &mut Graph<'_, '_>,
        sparse: &Value<F32>,
        has_mask: &Value<F32>,
    ) -> Result<Value<F32>, ImportError> {
        let channels = self.sizes.channels;
        let iou = g.weight("mask_decoder.iou_token.weight", &[1, channels])?;
        let masks = g.weight("mask_decoder.mask_tokens.weight", &[self.masks, channels])?;
        let own = match self.version {
            Version::One => g.concat(&[&iou, &masks], 0),
            Version::Two => {
                let object = g.weight("mask_decoder.obj_score_token.weight", &[1, channels])?;
                g.concat(&[&object, &iou, &masks], 0)
            }
        };
        // Repeated for each prompt by adding zeros of the batch's shape; the flag is finite, so 0 times it is 0.
        let flag = g.reshape(has_mask, &[-1, 1, 1]);
        let nothing = g.scalar(0.0);
        let zeros = g.mul(&flag, &nothing);
        let own = g.add(&own, &zeros);
        Ok(g.concat(&[&own, sparse], 1))
    }

    fn transformer(&self, g: &mut Graph<'_, '_>, start: Streams) -> Result<Streams, ImportError> {
        let Sizes { grid, channels, features, .. } = self.sizes;
        let projection = g.weights_mut().read(IMAGE_PROJECTION, &[2, features])?;
        let positions = g.constant(&[grid * grid, channels], &self.sizes.positions(&projection))?;
        let prompt = start.tokens.clone();
        let mut streams = start;
        for layer in 0..self.layers {
            streams = g.scoped(&format!("layer_{layer}"), |g| self.block(g, &streams, &prompt, &positions, layer))?;
        }
        const NAME: &str = "mask_decoder.transformer";
        let query = g.add(&streams.tokens, &prompt);
        let key = g.add(&streams.image, &positions);
        let name = format!("{NAME}.final_attn_token_to_image");
        let seen = self.attention(g, [&query, &key, &streams.image], &name, self.downsample)?;
        let tokens = g.add(&streams.tokens, &seen);
        let tokens = nn::layer_norm(g, &tokens, &format!("{NAME}.layer_norm_final_attn"), channels, FINAL_EPSILON)?;
        Ok(Streams { tokens, image: streams.image })
    }

    fn block(
        &self,
        g: &mut Graph<'_, '_>,
        streams: &Streams,
        prompt: &Value<F32>,
        positions: &Value<F32>,
        layer: usize,
    ) -> Result<Streams, ImportError> {
        let name = format!("mask_decoder.transformer.layers.{layer}");
        let channels = self.sizes.channels;
        let normal = |g: &mut Graph<'_, '_>, x: &Value<F32>, which: usize| {
            nn::layer_norm(g, x, &format!("{name}.layer_norm{which}"), channels, self.epsilon)
        };
        let tokens = &streams.tokens;
        let tokens = if layer == 0 {
            // The tokens are their own positions here, and are replaced rather than added to.
            self.attention(g, [tokens; 3], &format!("{name}.self_attn"), 1)?
        } else {
            let query = g.add(tokens, prompt);
            let seen = self.attention(g, [&query, &query, tokens], &format!("{name}.self_attn"), 1)?;
            g.add(tokens, &seen)
        };
        let tokens = normal(g, &tokens, 1)?;
        let query = g.add(&tokens, prompt);
        let key = g.add(&streams.image, positions);
        let to_image = format!("{name}.cross_attn_token_to_image");
        let seen = self.attention(g, [&query, &key, &streams.image], &to_image, self.downsample)?;
        let tokens = g.add(&tokens, &seen);
        let tokens = normal(g, &tokens, 2)?;
        let inner = self.perceptron(g, &tokens, &format!("{name}.mlp"))?;
        let tokens = g.add(&tokens, &inner);
        let tokens = normal(g, &tokens, 3)?;
        let query = g.add(&tokens, prompt);
        let to_token = format!("{name}.cross_attn_image_to_token");
        let seen = self.attention(g, [&key, &query, &tokens], &to_token, self.downsample)?;
        let image = g.add(&streams.image, &seen);
        let image = normal(g, &image, 4)?;
        Ok(Streams { tokens, image })
    }

    fn perceptron(&self, g: &mut Graph<'_, '_>, x: &Value<F32>, name: &str) -> Result<Value<F32>, ImportError> {
        let (channels, wide) = (self.sizes.channels, self.intermediate);
        if self.version.is_second() {
            return feed_forward(g, x, name, [channels, wide, channels], self.layers);
        }
        let inner = nn::linear(g, x, &format!("{name}.lin1"), [channels, wide], true)?;
        let inner = self.activation.apply(g, &inner);
        nn::linear(g, &inner, &format!("{name}.lin2"), [wide, channels], true)
    }

    /// Attention of `[query, key, value]`, inside which the width is divided by `downsample`.
    fn attention(
        &self,
        g: &mut Graph<'_, '_>,
        inputs: [&Value<F32>; 3],
        name: &str,
        downsample: usize,
    ) -> Result<Value<F32>, ImportError> {
        let channels = self.sizes.channels;
        let inner = channels / downsample;
        let mut project =
            |x: &Value<F32>, which: &str| nn::linear(g, x, &format!("{name}.{which}"), [channels, inner], true);
        let query = project(inputs[0], "q_proj")?;
        let key = project(inputs[1], "k_proj")?;
        let value = project(inputs[2], "v_proj")?;
        let width = inner / self.heads;
        let context = Attention { query: &query, key: &key, value: &value, heads: self.heads, width }.build(g);
        let out = if self.version.is_second() { "o_proj" } else { "out_proj" };
        nn::linear(g, &context, &format!("{name}.{out}"), [inner, channels], true)
    }

    /// Upscaled image tokens times what each mask token has become: `[B, masks, 4h, 4w]`.
    fn masks(
        &self,
        g: &mut Graph<'_, '_>,
        streams: &Streams,
        levels: Option<&[Value<F32>; 2]>,
    ) -> Result<Value<F32>, ImportError> {
        const NAME: &str = "mask_decoder";
        let Sizes { grid, channels, .. } = self.sizes;
        let n = grid as i64;
        let pixels = upscaled(g, &streams.image, levels, self.sizes)?;
        let mut rows = Vec::with_capacity(self.masks);
        let first = self.version.first_token() + 1;
        for (mask, place) in (first..).take(self.masks).enumerate() {
            let token = g.slice(&streams.tokens, 1, place, place + 1);
            let name = format!("{NAME}.output_hypernetworks_mlps.{mask}");
            rows.push(feed_forward(g, &token, &name, [channels, channels, channels / 8], 3)?);
        }
        let rows = g.concat(&rows.iter().collect::<Vec<_>>(), 1);
        let pixels = g.transpose(&pixels, &[0, 2, 1]);
        let x = g.matmul(&rows, &pixels);
        // Pixels are still grouped: cell row and column, then the two levels of row and column inside it.
        let count = self.masks as i64;
        let x = g.reshape(&x, &[-1, count, n, n, 2, 2, 2, 2]);
        let x = g.transpose(&x, &[0, 1, 2, 4, 6, 3, 5, 7]);
        Ok(g.reshape(&x, &[-1, count, 4 * n, 4 * n]))
    }
}

impl Version {
    fn is_second(self) -> bool {
        self == Self::Two
    }

    /// Where the IoU token is; the mask tokens follow it.
    fn first_token(self) -> i64 {
        i64::from(self.is_second())
    }
}

/// `SamFeedForward`: linear layers with ReLU between them.
fn feed_forward(
    g: &mut Graph<'_, '_>,
    x: &Value<F32>,
    name: &str,
    [input, hidden, output]: [usize; 3],
    depth: usize,
) -> Result<Value<F32>, ImportError> {
    let x = nn::linear(g, x, &format!("{name}.proj_in"), [input, hidden], true)?;
    let mut x = g.map("Relu", &x);
    for layer in 0..depth.saturating_sub(2) {
        x = nn::linear(g, &x, &format!("{name}.layers.{layer}"), [hidden, hidden], true)?;
        x = g.map("Relu", &x);
    }
    nn::linear(g, &x, &format!("{name}.proj_out"), [hidden, output], true)
}
