//! SAM's prompt encoder and mask decoder, as one graph.
//!
//! All four mask tokens are computed; which to take is the caller's choice. Convolutions whose kernel equals their
//! stride, transposed ones too, are products of matrices between reshapes: no image of channels is ever padded.

use super::Sizes;
use super::sizes::shape_of;
use crate::import::Level;
use crate::import::checkpoint::Checkpoint;
use crate::import::config::Config;
use crate::import::error::ImportError;
use crate::import::graph::{Dim, F32, Graph, I32, Value};
use crate::import::nn::{self, Activation, Attention};
use crate::import::onnx::ModelProto;
use crate::import::weights::Weights;

/// Epsilon of the normalisation between the upscaling layers; not configurable in `transformers`.
const UPSCALE_EPSILON: f32 = 1e-6;
/// Epsilon of the normalisation after the last attention; PyTorch's default.
const FINAL_EPSILON: f32 = 1e-5;

/// The mask decoder as its configurations describe it.
#[derive(Debug)]
pub(super) struct Decoder {
    sizes: Sizes,
    mask_channels: usize,
    mask_activation: Activation,
    mask_epsilon: f32,
    layers: usize,
    heads: usize,
    intermediate: usize,
    downsample: usize,
    activation: Activation,
    epsilon: f32,
    masks: usize,
    iou_depth: usize,
    iou_hidden: usize,
    /// The tensor that projects coordinates to Fourier features; older checkpoints keep it twice.
    point_projection: String,
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
        let points = prompt.dim("num_point_embeddings", 4)?;
        if points != 4 {
            return Err(prompt.unsupported("num_point_embeddings", "is not 4: off, on, and a box's two corners"));
        }
        let heads = mask.dim("num_attention_heads", 8)?;
        let downsample = mask.dim("attention_downsample_rate", 2)?;
        let inner = mask.divide("attention_downsample_rate", sizes.channels, downsample)?;
        mask.divide("num_attention_heads", inner, heads)?;
        mask.divide("hidden_size", sizes.channels, 8)?;
        let mask_channels = prompt.dim("mask_input_channels", 16)?;
        prompt.divide("mask_input_channels", mask_channels, 4)?;
        let masks = mask.dim("num_multimask_outputs", 3)? + 1;
        if masks != 4 {
            return Err(mask.unsupported("num_multimask_outputs", "is not 3"));
        }
        let own = "prompt_encoder.shared_embedding.positional_embedding";
        let point_projection = if checkpoint.has(own) { own } else { IMAGE_PROJECTION };
        Ok(Self {
            sizes,
            mask_channels,
            mask_activation: Activation::read(prompt, "hidden_act", "gelu")?,
            mask_epsilon: prompt.epsilon("layer_norm_eps", 1e-6)?,
            layers: mask.dim("num_hidden_layers", 2)?,
            heads,
            intermediate: mask.dim("mlp_dim", 2048)?,
            downsample,
            activation: Activation::read(mask, "hidden_act", "relu")?,
            epsilon: mask.epsilon("layer_norm_eps", 1e-6)?,
            masks,
            iou_depth: mask.dim("iou_head_depth", 3)?,
            iou_hidden: mask.dim("iou_head_hidden_dim", 256)?,
            point_projection: point_projection.to_owned(),
        })
    }

    /// The decoder in the files of SAM's authors and their followers, which all have it alike; widths that the shapes
    /// tell are read from them.
    pub(super) fn of_authors(checkpoint: &Checkpoint, config: &Config, sizes: Sizes) -> Result<Self, ImportError> {
        let part = config.part("mask_decoder_config")?;
        let mut decoder = Self::read(checkpoint, &config.part("prompt_encoder_config")?, &part, sizes)?;
        [decoder.intermediate, _] = *shape_of(checkpoint, "mask_decoder.transformer.layers.0.mlp.lin1.weight")?;
        [decoder.iou_hidden, _] = *shape_of(checkpoint, "mask_decoder.iou_prediction_head.proj_in.weight")?;
        [decoder.mask_channels, ..] = *shape_of::<4>(checkpoint, "prompt_encoder.mask_embed.conv2.weight")?;
        config.divide("mask_input_channels", decoder.mask_channels, 4)?;
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
        let coords = g.input::<F32>("point_coords", &[batch, Dim::Named("points"), Dim::Fixed(2)]);
        let labels = g.input::<I32>("point_labels", &[batch, Dim::Named("points")]);
        let mask = g.input::<F32>("mask_input", &[batch, one, fine, fine]);
        let has_mask = g.input::<F32>("has_mask_input", &[batch, one, one, one]);

        let sparse = g.scoped("points", |g| self.points(g, &coords, &labels))?;
        let dense = g.scoped("mask", |g| self.dense(g, &mask, &has_mask))?;
        let image = g.reshape(&embedding, &[1, channels as i64, -1]);
        let image = g.transpose(&image, &[0, 2, 1]);
        let image = g.add(&image, &dense);
        let tokens = self.tokens(g, &sparse, &has_mask)?;
        let streams = self.transformer(g, Streams { tokens, image })?;
        let masks = g.scoped("masks", |g| self.masks(g, &streams))?;
        g.output("low_res_masks", &masks, &[batch, Dim::Fixed(self.masks), fine, fine]);
        let token = g.slice(&streams.tokens, 1, 0, 1);
        let token = g.reshape(&token, &[0, channels as i64]);
        let sizes = [channels, self.iou_hidden, self.masks];
        let scores =
            g.scoped("iou", |g| feed_forward(g, &token, "mask_decoder.iou_prediction_head", sizes, self.iou_depth))?;
        g.output("iou_scores", &scores, &[batch, Dim::Fixed(self.masks)]);
        Ok(graph.finish())
    }

    /// Fourier features of each point plus what its label means: `[B, T, C]`.
    fn points(
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
        let projection = g.weight(&self.point_projection, &[2, features])?;
        let x = g.matmul(&x, &projection);
        let turn = g.scalar(2.0 * std::f32::consts::PI);
        let x = g.mul(&x, &turn);
        let (sin, cos) = (g.map("Sin", &x), g.map("Cos", &x));
        let mut x = g.concat(&[&sin, &cos], -1);
        let labels = g.unsqueeze(labels, -1);
        let row = |g: &mut Graph<'_, '_>, name: String| g.weight_as(&name, &[1, channels], &[1, 1, channels]);
        let none = row(g, "prompt_encoder.not_a_point_embed.weight".into())?;
        let padding = g.integer(-1);
        let is_padding = g.equal(&labels, &padding);
        x = g.select(&is_padding, &none, &x);
        for label in 0..4 {
            let meaning = row(g, format!("prompt_encoder.point_embed.{label}.weight"))?;
            let marked = g.add(&x, &meaning);
            let wanted = g.integer(label);
            let is_wanted = g.equal(&labels, &wanted);
            x = g.select(&is_wanted, &marked, &x);
        }
        Ok(x)
    }

    /// The mask prompt as image tokens, or the embedding that stands for none: `[B, h · w, C]`.
    fn dense(
        &self,
        g: &mut Graph<'_, '_>,
        mask: &Value<F32>,
        has_mask: &Value<F32>,
    ) -> Result<Value<F32>, ImportError> {
        const NAME: &str = "prompt_encoder.mask_embed";
        let Sizes { grid, channels, .. } = self.sizes;
        let (quarter, full) = (self.mask_channels / 4, self.mask_channels);
        // One token a cell, of 4×4 pixels; in it 2×2 blocks of 2×2 pixels, which the first convolution reads.
        let n = grid as i64;
        let x = g.reshape(mask, &[-1, n, 2, 2, n, 2, 2]);
        let x = g.transpose(&x, &[0, 1, 4, 2, 5, 3, 6]);
        let x = g.reshape(&x, &[-1, n * n, 4, 4]);
        let x = convolve(g, &x, &format!("{NAME}.conv1"), &[quarter, 1, 2, 2])?;
        let x = nn::layer_norm(g, &x, &format!("{NAME}.layer_norm1"), quarter, self.mask_epsilon)?;
        let x = self.mask_activation.apply(g, &x);
        // The kernel has its channels before its pixels.
        let x = g.transpose(&x, &[0, 1, 3, 2]);
        let x = g.reshape(&x, &[0, 0, full as i64]);
        let x = convolve(g, &x, &format!("{NAME}.conv2"), &[full, quarter, 2, 2])?;
        let x = nn::layer_norm(g, &x, &format!("{NAME}.layer_norm2"), full, self.mask_epsilon)?;
        let x = self.mask_activation.apply(g, &x);
        let given = convolve(g, &x, &format!("{NAME}.conv3"), &[channels, full, 1, 1])?;
        let none = g.weight_as("prompt_encoder.no_mask_embed.weight", &[1, channels], &[1, 1, channels])?;
        let has = g.reshape(has_mask, &[-1, 1, 1]);
        let one = g.scalar(1.0);
        let lacks = g.sub(&one, &has);
        let (given, none) = (g.mul(&given, &has), g.mul(&none, &lacks));
        Ok(g.add(&given, &none))
    }

    /// The IoU token, the mask tokens, then the prompt's: `[B, 1 + masks + T, C]`.
    fn tokens(
        &self,
        g: &mut Graph<'_, '_>,
        sparse: &Value<F32>,
        has_mask: &Value<F32>,
    ) -> Result<Value<F32>, ImportError> {
        let channels = self.sizes.channels;
        let iou = g.weight("mask_decoder.iou_token.weight", &[1, channels])?;
        let masks = g.weight("mask_decoder.mask_tokens.weight", &[self.masks, channels])?;
        let own = g.concat(&[&iou, &masks], 0);
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
        let inner = nn::linear(g, &tokens, &format!("{name}.mlp.lin1"), [channels, self.intermediate], true)?;
        let inner = self.activation.apply(g, &inner);
        let inner = nn::linear(g, &inner, &format!("{name}.mlp.lin2"), [self.intermediate, channels], true)?;
        let tokens = g.add(&tokens, &inner);
        let tokens = normal(g, &tokens, 3)?;
        let query = g.add(&tokens, prompt);
        let to_token = format!("{name}.cross_attn_image_to_token");
        let seen = self.attention(g, [&key, &query, &tokens], &to_token, self.downsample)?;
        let image = g.add(&streams.image, &seen);
        let image = normal(g, &image, 4)?;
        Ok(Streams { tokens, image })
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
        nn::linear(g, &context, &format!("{name}.out_proj"), [inner, channels], true)
    }

    /// Upscaled image tokens times what each mask token has become: `[B, masks, 4h, 4w]`.
    fn masks(&self, g: &mut Graph<'_, '_>, streams: &Streams) -> Result<Value<F32>, ImportError> {
        const NAME: &str = "mask_decoder";
        let Sizes { grid, channels, .. } = self.sizes;
        let (half, quarter) = (channels / 4, channels / 8);
        let n = grid as i64;
        let x = upscale(g, &streams.image, &format!("{NAME}.upscale_conv1"), [channels, half])?;
        let x = nn::layer_norm(g, &x, &format!("{NAME}.upscale_layer_norm"), half, UPSCALE_EPSILON)?;
        let x = Activation::Gelu.apply(g, &x);
        let x = g.reshape(&x, &[-1, n * n * 4, half as i64]);
        let x = upscale(g, &x, &format!("{NAME}.upscale_conv2"), [half, quarter])?;
        let x = Activation::Gelu.apply(g, &x);
        let pixels = g.reshape(&x, &[-1, n * n * 16, quarter as i64]);
        let mut rows = Vec::with_capacity(self.masks);
        for mask in 0..self.masks {
            let token = g.slice(&streams.tokens, 1, mask as i64 + 1, mask as i64 + 2);
            let name = format!("{NAME}.output_hypernetworks_mlps.{mask}");
            rows.push(feed_forward(g, &token, &name, [channels, channels, quarter], 3)?);
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

/// What projects image coordinates to Fourier features.
const IMAGE_PROJECTION: &str = "shared_image_embedding.positional_embedding";

/// A convolution whose kernel covers the last dimension of `x` whole: `[.., in · kh · kw]` → `[.., out]`.
fn convolve(g: &mut Graph<'_, '_>, x: &Value<F32>, name: &str, shape: &[usize; 4]) -> Result<Value<F32>, ImportError> {
    let output = shape[0];
    let kernel = g.weight_as(&format!("{name}.weight"), shape, &[output, shape[1..].iter().product()])?;
    let y = nn::times_transposed(g, x, &kernel);
    let bias = g.weight(&format!("{name}.bias"), &[output])?;
    Ok(g.add(&y, &bias))
}

/// `nn.ConvTranspose2d` with kernel and stride 2 on tokens: `[B, N, in]` → `[B, N, 4, out]`, four pixels a token.
fn upscale(
    g: &mut Graph<'_, '_>,
    x: &Value<F32>,
    name: &str,
    [input, output]: [usize; 2],
) -> Result<Value<F32>, ImportError> {
    let kernel = g.weight_as(&format!("{name}.weight"), &[input, output, 2, 2], &[input, output * 4])?;
    // Channels before pixels in the kernel, after them in the tokens: turned once, as a constant.
    let kernel = g.reshape(&kernel, &[input as i64, output as i64, 4]);
    let kernel = g.transpose(&kernel, &[0, 2, 1]);
    let kernel = g.reshape(&kernel, &[input as i64, 4 * output as i64]);
    let y = g.matmul(x, &kernel);
    let y = g.reshape(&y, &[0, 0, 4, output as i64]);
    let bias = g.weight(&format!("{name}.bias"), &[output])?;
    Ok(g.add(&y, &bias))
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
