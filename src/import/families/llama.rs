//! The text model of language models: `LlamaModel` with its head, grouped-query attention included.
//!
//! Source: `transformers`, `models/llama`.

use crate::import::attention::{Cache, Heads, Rotation, attend};
use crate::import::config::Config;
use crate::import::error::ImportError;
use crate::import::graph::{Dim, F32, Graph, I32, Value};
use crate::import::nn::{self, Activation};

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
    attention_bias: bool,
    mlp_bias: bool,
    frequencies: Vec<f32>,
}

impl Llama {
    /// Reads a `text_config`; tensors are under `prefix`, those of the head under `head` where it is there.
    pub(super) fn read(config: &Config, prefix: &str, head: Option<&str>, tied: bool) -> Result<Self, ImportError> {
        match config.text("model_type", "llama")? {
            "llama" => {}
            other => return Err(config.unsupported("model_type", format!("`{other}` is not llama"))),
        }
        let hidden = config.dim("hidden_size", 4096)?;
        let heads = config.dim("num_attention_heads", 32)?;
        let kv_heads = config.dim("num_key_value_heads", heads)?;
        config.divide("num_key_value_heads", heads, kv_heads)?;
        let head_width = match config.get("head_dim") {
            Some(_) => config.required_dim("head_dim")?,
            None => config.divide("num_attention_heads", hidden, heads)?,
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
            epsilon: config.epsilon("rms_norm_eps", 1e-6)?,
            attention_bias: config.flag("attention_bias", false)?,
            mlp_bias: config.flag("mlp_bias", false)?,
            frequencies: frequencies(config, head_width)?,
        })
    }

    /// Width of the hidden states.
    pub(super) fn hidden(&self) -> usize {
        self.hidden
    }

    /// Builds the graph `embed`.
    pub(super) fn build_embed(&self, g: &mut Graph<'_, '_>) -> Result<(), ImportError> {
        let ids = g.input::<I32>("input_ids", &[Dim::Fixed(1), Dim::Named("sequence")]);
        let table = g.weight(&format!("{}.embed_tokens.weight", self.prefix), &[self.vocabulary, self.hidden])?;
        let embeds = g.gather(&table, &ids, 0);
        g.output("inputs_embeds", &embeds, &[Dim::Fixed(1), Dim::Named("sequence"), Dim::Fixed(self.hidden)]);
        Ok(())
    }

    /// Builds the graph `decoder`.
    pub(super) fn build_decoder(&self, g: &mut Graph<'_, '_>) -> Result<(), ImportError> {
        g.quantise_linears();
        let (one, sequence) = (Dim::Fixed(1), Dim::Named("sequence"));
        let mut x = g.input::<F32>("inputs_embeds", &[one, sequence, Dim::Fixed(self.hidden)]);
        let positions = g.input::<I32>("position_ids", &[one, sequence]);
        let bias = g.input::<F32>("attention_bias", &[one, one, sequence, Dim::Named("total")]);
        let indices = g.input::<I32>("logit_indices", &[Dim::Named("logits")]);
        let rotation = g.scoped("rotation", |g| Rotation::new(g, &positions, &self.frequencies))?;
        let cache = Cache::new(g, &bias);
        for layer in 0..self.layers {
            x = g.scoped(&format!("layer_{layer}"), |g| {
                let x = self.attention(g, &x, layer, &rotation, (&bias, &cache))?;
                self.mlp(g, &x, layer)
            })?;
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
        rotation: &Rotation,
        (bias, cache): (&Value<F32>, &Cache),
    ) -> Result<Value<F32>, ImportError> {
        let name = format!("{}.layers.{layer}", self.prefix);
        let normal = nn::rms_norm(g, x, &format!("{name}.input_layernorm"), self.hidden, self.epsilon)?;
        let [query, key, value] = self.project(g, &normal, &name, rotation)?;
        let heads = Heads { count: self.heads, shared: self.kv_heads, width: self.head_width };
        let [key, value] = cache.append(g, layer, [&key, &value], heads);
        let context = attend(g, [&query, &key, &value], bias, heads);
        let sizes = [self.heads * self.head_width, self.hidden];
        let context = nn::linear(g, &context, &format!("{name}.self_attn.o_proj"), sizes, self.attention_bias)?;
        Ok(g.add(x, &context))
    }

    /// Queries `[1, heads, S, width]`, keys and values `[1, kv_heads, S, width]`; queries and keys are rotated.
    fn project(
        &self,
        g: &mut Graph<'_, '_>,
        x: &Value<F32>,
        name: &str,
        rotation: &Rotation,
    ) -> Result<[Value<F32>; 3], ImportError> {
        let mut project = |which: &str, heads: usize| {
            let sizes = [self.hidden, heads * self.head_width];
            let y = nn::linear(g, x, &format!("{name}.self_attn.{which}"), sizes, self.attention_bias)?;
            let y = g.reshape(&y, &[0, 0, heads as i64, self.head_width as i64]);
            Ok::<_, ImportError>(g.transpose(&y, &[0, 2, 1, 3]))
        };
        let query = project("q_proj", self.heads)?;
        let key = project("k_proj", self.kv_heads)?;
        let value = project("v_proj", self.kv_heads)?;
        let (query, key) = (rotation.apply(g, &query, self.head_width), rotation.apply(g, &key, self.head_width));
        Ok([query, key, value])
    }

    fn mlp(&self, g: &mut Graph<'_, '_>, x: &Value<F32>, layer: usize) -> Result<Value<F32>, ImportError> {
        let name = format!("{}.layers.{layer}", self.prefix);
        let normal = nn::rms_norm(g, x, &format!("{name}.post_attention_layernorm"), self.hidden, self.epsilon)?;
        let wide = [self.hidden, self.intermediate];
        let gate = nn::linear(g, &normal, &format!("{name}.mlp.gate_proj"), wide, self.mlp_bias)?;
        let up = nn::linear(g, &normal, &format!("{name}.mlp.up_proj"), wide, self.mlp_bias)?;
        let gate = self.activation.apply(g, &gate);
        let inner = g.mul(&gate, &up);
        let sizes = [self.intermediate, self.hidden];
        let inner = nn::linear(g, &inner, &format!("{name}.mlp.down_proj"), sizes, self.mlp_bias)?;
        Ok(g.add(x, &inner))
    }
}

/// The rotation's angle a position, for each pair of a head's dimensions. `rope_parameters` in 5.x; before, its parts
/// were `rope_theta` and `rope_scaling`.
fn frequencies(config: &Config, width: usize) -> Result<Vec<f32>, ImportError> {
    let parameters =
        config.part(if config.get("rope_parameters").is_some() { "rope_parameters" } else { "rope_scaling" })?;
    let theta = match parameters.get("rope_theta") {
        Some(_) => parameters.number("rope_theta", 10_000.0)?,
        None => config.number("rope_theta", 10_000.0)?,
    };
    if theta < 1.0 {
        return Err(config.unsupported("rope_theta", "is below 1"));
    }
    let base = (0..width / 2).map(|i| 1.0 / theta.powf(2.0 * i as f64 / width as f64));
    let kind = parameters.text("rope_type", parameters.text("type", "default")?)?;
    match kind {
        "default" => Ok(base.map(|f| f as f32).collect()),
        "linear" => {
            let factor = positive(&parameters, "factor")?;
            Ok(base.map(|f| (f / factor) as f32).collect())
        }
        "llama3" => {
            let factor = positive(&parameters, "factor")?;
            let low = positive(&parameters, "low_freq_factor")?;
            let high = positive(&parameters, "high_freq_factor")?;
            let context = positive(&parameters, "original_max_position_embeddings")?;
            Ok(base.map(|f| stretch(f, factor, low, high, context) as f32).collect())
        }
        other => Err(parameters.unsupported("rope_type", format!("`{other}` is none of default, linear, llama3"))),
    }
}

/// Llama 3's scaling: long waves are stretched by `factor`, short ones kept, those between interpolated.
fn stretch(frequency: f64, factor: f64, low: f64, high: f64, context: f64) -> f64 {
    let wavelength = 2.0 * std::f64::consts::PI / frequency;
    if wavelength > context / low {
        frequency / factor
    } else if wavelength < context / high {
        frequency
    } else {
        let smooth = (context / wavelength - low) / (high - low);
        (1.0 - smooth) * frequency / factor + smooth * frequency
    }
}

fn positive(config: &Config, key: &str) -> Result<f64, ImportError> {
    let value = config.number(key, 0.0)?;
    if value > 0.0 { Ok(value) } else { Err(config.unsupported(key, "must be given and positive")) }
}
