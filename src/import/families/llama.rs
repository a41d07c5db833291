//! The text model of language models: `LlamaModel` with its head, and the models that are Llamas but for a detail:
//! Mistral, Qwen2, Qwen3, and those of Qwen2.5-VL and Qwen3-VL.
//!
//! Source: `transformers`, `models/llama`, `models/mistral`, `models/qwen2`, `models/qwen3`, `models/qwen2_5_vl`,
//! `models/qwen3_vl`.

use super::rope::{Axes, Rope};
use crate::import::Level;
use crate::import::attention::{Cache, Heads, Rotary, attend};
use crate::import::config::Config;
use crate::import::error::ImportError;
use crate::import::graph::{Dim, F32, Graph, I32, Value};
use crate::import::nn::{self, Activation};
use crate::import::onnx::ModelProto;
use crate::import::weights::Weights;

/// A text model as its configuration describes it.
#[derive(Debug)]
pub(super) struct Llama {
    prefix: String,
    /// Name of the head; the word embeddings' where they are tied.
    head: String,
    vocabulary: usize,
    hidden: usize,
    intermediate: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_width: usize,
    activation: Activation,
    epsilon: f32,
    /// Whether queries, keys and values have a bias.
    attention_bias: bool,
    /// Whether the projection behind the attention has one.
    output_bias: bool,
    mlp_bias: bool,
    /// Whether the heads of queries and keys are normalised.
    head_norm: bool,
    rope: Rope,
    /// Layers whose output gets something added, from the first on.
    deepstack: usize,
}

/// What the kinds of text model differ in; where a configuration may be silent, its default.
struct Kind {
    kv_heads: Option<usize>,
    head_width: Option<usize>,
    epsilon: f64,
    theta: f64,
    axes: Axes,
    /// `None`: as `attention_bias` says, the output's too.
    attention_bias: Option<bool>,
    head_norm: bool,
}

impl Kind {
    fn read(config: &Config) -> Result<Self, ImportError> {
        let llama = Self {
            kv_heads: None,
            head_width: None,
            epsilon: 1e-6,
            theta: 10_000.0,
            axes: Axes::One,
            attention_bias: None,
            head_norm: false,
        };
        match config.text("model_type", "llama")? {
            "llama" => Ok(llama),
            "mistral" => Ok(Self { kv_heads: Some(8), attention_bias: Some(false), ..llama }),
            "qwen2" => Ok(Self { kv_heads: Some(32), attention_bias: Some(true), ..llama }),
            "qwen3" => Ok(Self { kv_heads: Some(32), head_width: Some(128), head_norm: true, ..llama }),
            // The second is what older checkpoints, whose text model has no part of its own, call the whole.
            "qwen2_5_vl_text" | "qwen2_5_vl" => Ok(Self {
                kv_heads: Some(8),
                epsilon: 1e-5,
                theta: 1e6,
                axes: Axes::Sections,
                attention_bias: Some(true),
                ..llama
            }),
            "qwen3_vl_text" => Ok(Self {
                kv_heads: Some(32),
                head_width: Some(128),
                theta: 5e5,
                axes: Axes::Interleaved,
                head_norm: true,
                ..llama
            }),
            other => {
                let known = "llama, mistral, qwen2, qwen3, qwen2_5_vl_text, qwen3_vl_text";
                Err(config.unsupported("model_type", format!("`{other}` is none of {known}")))
            }
        }
    }
}

impl Llama {
    /// Reads a `text_config`; tensors are under `prefix`, those of the head under `head` where it is there.
    pub(super) fn read(config: &Config, prefix: &str, head: Option<&str>, tied: bool) -> Result<Self, ImportError> {
        let kind = Kind::read(config)?;
        let hidden = config.dim("hidden_size", 4096)?;
        let heads = config.dim("num_attention_heads", 32)?;
        let kv_heads = config.dim("num_key_value_heads", kind.kv_heads.unwrap_or(heads))?;
        config.divide("num_key_value_heads", heads, kv_heads)?;
        let head_width = match (config.get("head_dim"), kind.head_width) {
            (Some(_), _) => config.required_dim("head_dim")?,
            (None, Some(width)) => width,
            (None, None) => config.divide("num_attention_heads", hidden, heads)?,
        };
        config.divide("head_dim", head_width, 2)?;
        let tied = tied || config.flag("tie_word_embeddings", false)?;
        let head = match head {
            Some(head) if !tied => head.to_owned(),
            None if !tied => return Err(config.unsupported("tie_word_embeddings", "is false, yet there is no lm_head")),
            _ => format!("{prefix}.embed_tokens"),
        };
        Ok(Self {
            prefix: prefix.to_owned(),
            head,
            vocabulary: config.dim("vocab_size", 32000)?,
            hidden,
            intermediate: config.dim("intermediate_size", 11008)?,
            layers: config.dim("num_hidden_layers", 32)?,
            heads,
            kv_heads,
            head_width,
            activation: Activation::read(config, "hidden_act", "silu")?,
            epsilon: config.epsilon("rms_norm_eps", kind.epsilon)?,
            attention_bias: kind.attention_bias.map_or_else(|| config.flag("attention_bias", false), Ok)?,
            output_bias: kind.attention_bias.map_or_else(|| config.flag("attention_bias", false), |_| Ok(false))?,
            mlp_bias: config.flag("mlp_bias", false)?,
            head_norm: kind.head_norm,
            rope: Rope::read(config, head_width, kind.theta, kind.axes)?,
            deepstack: 0,
        })
    }

    /// The same with something added to the output of each of the first `layers` layers: `deepstack.{i}`.
    ///
    /// Source: arXiv 2406.04334.
    pub(super) fn with_deepstack(mut self, layers: usize) -> Self {
        self.deepstack = layers.min(self.layers);
        self
    }

    /// Width of the hidden states.
    pub(super) fn hidden(&self) -> usize {
        self.hidden
    }

    /// Builds the graphs `embed` and `decoder`.
    pub(super) fn build(&self, level: Level, weights: &mut Weights<'_>) -> Result<[ModelProto; 2], ImportError> {
        let mut embed = Graph::new("embed", level, weights);
        self.build_embed(&mut embed)?;
        let embed = embed.finish();
        let mut decoder = Graph::new("decoder", level, weights);
        self.build_decoder(&mut decoder)?;
        Ok([embed, decoder.finish()])
    }

    fn build_embed(&self, g: &mut Graph<'_, '_>) -> Result<(), ImportError> {
        let ids = g.input::<I32>("input_ids", &[Dim::Fixed(1), Dim::Named("sequence")]);
        let table = g.weight(&format!("{}.embed_tokens.weight", self.prefix), &[self.vocabulary, self.hidden])?;
        let embeds = g.gather(&table, &ids, 0);
        g.output("inputs_embeds", &embeds, &[Dim::Fixed(1), Dim::Named("sequence"), Dim::Fixed(self.hidden)]);
        Ok(())
    }

    fn build_decoder(&self, g: &mut Graph<'_, '_>) -> Result<(), ImportError> {
        g.quantise_linears();
        let (one, sequence) = (Dim::Fixed(1), Dim::Named("sequence"));
        let mut x = g.input::<F32>("inputs_embeds", &[one, sequence, Dim::Fixed(self.hidden)]);
        let places: &[Dim] = if self.rope.has_axes() { &[one, sequence, Dim::Fixed(3)] } else { &[one, sequence] };
        let positions = g.input::<I32>("position_ids", places);
        let bias = g.input::<F32>("attention_bias", &[one, one, sequence, Dim::Named("total")]);
        let indices = g.input::<I32>("logit_indices", &[Dim::Named("logits")]);
        let rotary = g.scoped("rotation", |g| Rotary::new(g, &positions, self.rope.turns()))?;
        let cache = Cache::new(g, &bias);
        for layer in 0..self.layers {
            x = g.scoped(&format!("layer_{layer}"), |g| {
                let x = self.attention(g, &x, layer, &rotary, (&bias, &cache))?;
                self.mlp(g, &x, layer)
            })?;
            if layer < self.deepstack {
                let more = g.input::<F32>(&format!("deepstack.{layer}"), &[one, sequence, Dim::Fixed(self.hidden)]);
                x = g.add(&x, &more);
            }
        }
        // Only the positions of interest reach the final normalisation and the head, which is wide.
        let x = g.gather(&x, &indices, 1);
        let x = nn::rms_norm(g, &x, &format!("{}.norm", self.prefix), self.hidden, self.epsilon)?;
        let head = g.weight(&format!("{}.weight", self.head), &[self.vocabulary, self.hidden])?;
        let logits = nn::times_transposed(g, &x, &head);
        let logits = nn::add_side_path(g, &x, logits, &self.head, [self.hidden, self.vocabulary])?;
        g.output("logits", &logits, &[one, Dim::Named("logits"), Dim::Fixed(self.vocabulary)]);
        Ok(())
    }

    fn attention(
        &self,
        g: &mut Graph<'_, '_>,
        x: &Value<F32>,
        layer: usize,
        rotary: &Rotary,
        (bias, cache): (&Value<F32>, &Cache),
    ) -> Result<Value<F32>, ImportError> {
        let name = format!("{}.layers.{layer}", self.prefix);
        let normal = nn::rms_norm(g, x, &format!("{name}.input_layernorm"), self.hidden, self.epsilon)?;
        let [query, key, value] = self.project(g, &normal, &name, rotary)?;
        let heads = Heads { count: self.heads, shared: self.kv_heads, width: self.head_width };
        let [key, value] = cache.append(g, layer, [&key, &value], heads);
        let context = attend(g, [&query, &key, &value], bias, heads);
        let sizes = [self.heads * self.head_width, self.hidden];
        let context = nn::linear(g, &context, &format!("{name}.self_attn.o_proj"), sizes, self.output_bias)?;
        Ok(g.add(x, &context))
    }

    /// Queries `[1, heads, S, width]`, keys and values `[1, kv_heads, S, width]`; queries and keys are rotated.
    fn project(
        &self,
        g: &mut Graph<'_, '_>,
        x: &Value<F32>,
        name: &str,
        rotary: &Rotary,
    ) -> Result<[Value<F32>; 3], ImportError> {
        let mut project = |which: &str, heads: usize, norm: Option<&str>| {
            let sizes = [self.hidden, heads * self.head_width];
            let y = nn::linear(g, x, &format!("{name}.self_attn.{which}"), sizes, self.attention_bias)?;
            let mut y = g.reshape(&y, &[0, 0, heads as i64, self.head_width as i64]);
            if let Some(norm) = norm.filter(|_| self.head_norm) {
                y = nn::rms_norm(g, &y, &format!("{name}.self_attn.{norm}"), self.head_width, self.epsilon)?;
            }
            Ok::<_, ImportError>(g.transpose(&y, &[0, 2, 1, 3]))
        };
        let query = project("q_proj", self.heads, Some("q_norm"))?;
        let key = project("k_proj", self.kv_heads, Some("k_norm"))?;
        let value = project("v_proj", self.kv_heads, None)?;
        let (query, key) = (rotary.apply(g, &query, self.head_width), rotary.apply(g, &key, self.head_width));
        Ok([query, key, value])
    }

    fn mlp(&self, g: &mut Graph<'_, '_>, x: &Value<F32>, layer: usize) -> Result<Value<F32>, ImportError> {
        let name = format!("{}.layers.{layer}", self.prefix);
        let normal = nn::rms_norm(g, x, &format!("{name}.post_attention_layernorm"), self.hidden, self.epsilon)?;
        let wide = [self.hidden, self.intermediate];
        let inner = nn::gated_mlp(g, &normal, &format!("{name}.mlp"), (wide, self.mlp_bias), self.activation)?;
        Ok(g.add(x, &inner))
    }
}
