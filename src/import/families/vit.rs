//! The vision towers of language models: `SiglipVisionModel` and `CLIPVisionModel`.
//!
//! Source: `transformers`, `models/siglip` and `models/clip`.

use crate::import::config::Config;
use crate::import::error::ImportError;
use crate::import::graph::{F32, Graph, Value};
use crate::import::nn::{self, Activation, Attention};

/// What the two kinds differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Patches only, with a bias.
    Siglip,
    /// A class token before the patches, and a normalisation before the first layer.
    Clip,
}

/// A vision tower as its configuration describes it.
#[derive(Debug)]
pub(super) struct Tower {
    kind: Kind,
    prefix: String,
    hidden: usize,
    intermediate: usize,
    layers: usize,
    heads: usize,
    head_width: usize,
    channels: usize,
    side: usize,
    patch: usize,
    activation: Activation,
    epsilon: f32,
}

impl Tower {
    /// Reads a `vision_config`; tensors are under `prefix`.
    pub(super) fn read(config: &Config, prefix: &str) -> Result<Self, ImportError> {
        let kind = match config.text("model_type", "clip_vision_model")? {
            "siglip_vision_model" => Kind::Siglip,
            "clip_vision_model" => Kind::Clip,
            other => {
                let why = format!("`{other}` is neither siglip_vision_model nor clip_vision_model");
                return Err(config.unsupported("model_type", why));
            }
        };
        let (activation, epsilon) = match kind {
            Kind::Siglip => ("gelu_pytorch_tanh", 1e-6),
            Kind::Clip => ("quick_gelu", 1e-5),
        };
        let hidden = config.required_dim("hidden_size")?;
        let heads = config.dim("num_attention_heads", 12)?;
        let side = config.square("image_size", 224)?;
        let patch = config.square("patch_size", if kind == Kind::Clip { 32 } else { 16 })?;
        config.divide("patch_size", side, patch)?;
        Ok(Self {
            kind,
            prefix: prefix.to_owned(),
            hidden,
            intermediate: config.dim("intermediate_size", 3072)?,
            layers: config.dim("num_hidden_layers", 12)?,
            heads,
            head_width: config.divide("num_attention_heads", hidden, heads)?,
            channels: config.dim("num_channels", 3)?,
            side,
            patch,
            activation: Activation::read(config, "hidden_act", activation)?,
            epsilon: config.epsilon("layer_norm_eps", epsilon)?,
        })
    }

    /// Width of the hidden states.
    pub(super) fn hidden(&self) -> usize {
        self.hidden
    }

    /// Number of transformer layers.
    pub(super) fn layers(&self) -> usize {
        self.layers
    }

    /// Channels of the image.
    pub(super) fn channels(&self) -> usize {
        self.channels
    }

    /// Width and height of the image, in pixels.
    pub(super) fn side(&self) -> usize {
        self.side
    }

    /// Number of tokens, with the class token where there is one.
    pub(super) fn tokens(&self) -> usize {
        (self.side / self.patch).pow(2) + usize::from(self.kind == Kind::Clip)
    }

    /// Builds the embeddings and the first `last` layers; gives the hidden states, `last + 1` of them. The
    /// normalisation after the last layer belongs to the pooled output and to none of these.
    pub(super) fn build(
        &self,
        g: &mut Graph<'_, '_>,
        pixels: &Value<F32>,
        last: usize,
    ) -> Result<Vec<Value<F32>>, ImportError> {
        let mut states = vec![g.scoped("embeddings", |g| self.embeddings(g, pixels))?];
        for layer in 0..last {
            let state = g.scoped(&format!("layer_{layer}"), |g| self.layer(g, &states[layer], layer))?;
            states.push(state);
        }
        Ok(states)
    }

    fn embeddings(&self, g: &mut Graph<'_, '_>, pixels: &Value<F32>) -> Result<Value<F32>, ImportError> {
        let name = format!("{}.embeddings", self.prefix);
        let sizes = [self.channels, self.side, self.patch, self.hidden];
        let mut x = nn::patches(g, pixels, &format!("{name}.patch_embedding"), sizes)?;
        if self.kind == Kind::Siglip {
            let bias = g.weight(&format!("{name}.patch_embedding.bias"), &[self.hidden])?;
            x = g.add(&x, &bias);
        } else {
            let class = g.weight_as(&format!("{name}.class_embedding"), &[self.hidden], &[1, 1, self.hidden])?;
            x = g.concat(&[&class, &x], 1);
        }
        let positions = g.weight(&format!("{name}.position_embedding.weight"), &[self.tokens(), self.hidden])?;
        let x = g.add(&x, &positions);
        match self.kind {
            Kind::Siglip => Ok(x),
            // `transformers` spells it so.
            Kind::Clip => nn::layer_norm(g, &x, &format!("{}.pre_layrnorm", self.prefix), self.hidden, self.epsilon),
        }
    }

    fn layer(&self, g: &mut Graph<'_, '_>, x: &Value<F32>, layer: usize) -> Result<Value<F32>, ImportError> {
        let name = format!("{}.encoder.layers.{layer}", self.prefix);
        let normal = nn::layer_norm(g, x, &format!("{name}.layer_norm1"), self.hidden, self.epsilon)?;
        let square = [self.hidden, self.hidden];
        let mut project = |which: &str| nn::linear(g, &normal, &format!("{name}.self_attn.{which}"), square, true);
        let (query, key, value) = (project("q_proj")?, project("k_proj")?, project("v_proj")?);
        let attention =
            Attention { query: &query, key: &key, value: &value, heads: self.heads, width: self.head_width };
        let context = attention.build(g);
        let context = nn::linear(g, &context, &format!("{name}.self_attn.out_proj"), square, true)?;
        let x = g.add(x, &context);
        let normal = nn::layer_norm(g, &x, &format!("{name}.layer_norm2"), self.hidden, self.epsilon)?;
        let inner = nn::linear(g, &normal, &format!("{name}.mlp.fc1"), [self.hidden, self.intermediate], true)?;
        let inner = self.activation.apply(g, &inner);
        let inner = nn::linear(g, &inner, &format!("{name}.mlp.fc2"), [self.intermediate, self.hidden], true)?;
        Ok(g.add(&x, &inner))
    }
}
