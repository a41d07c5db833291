//! `LlavaForConditionalGeneration` and `LlavaNextForConditionalGeneration`: a vision tower, a projector of two layers, a
//! Llama, Mistral or Qwen2.
//!
//! LLaVA-NeXT is shown several tiles of an image and ends each row of their tokens with a learned one. Its tower runs
//! once a tile; whoever runs it puts the rows together.
//!
//! Source: `transformers`, `models/llava` and `models/llava_next`; arXiv 2304.08485.

use super::llama::Llama;
use super::prefix;
use super::vit::Tower;
use crate::import::Level;
use crate::import::checkpoint::Checkpoint;
use crate::import::config::Config;
use crate::import::error::{ImportError, ImportErrorKind};
use crate::import::graph::{Dim, F32, Graph, Value};
use crate::import::nn::{self, Activation};
use crate::import::onnx::ModelProto;
use crate::import::weights::Weights;

/// Where checkpoints keep the vision tower; `transformers` has moved its parts from version to version.
const TOWERS: [&str; 4] =
    ["vision_tower.vision_model", "vision_tower", "model.vision_tower.vision_model", "model.vision_tower"];
/// Where they keep the projector.
const PROJECTORS: [&str; 2] = ["multi_modal_projector", "model.multi_modal_projector"];
/// Where they keep the text model.
const TEXTS: [&str; 2] = ["language_model.model", "model.language_model"];
/// Where they keep the head, unless it is tied to the word embeddings.
const HEADS: [&str; 2] = ["language_model.lm_head", "lm_head"];

/// Where LLaVA-NeXT keeps the token that ends a row.
const NEWLINES: [&str; 2] = ["image_newline", "model.image_newline"];

/// The same parts by all their names, as paths in an adapter may use another one than the checkpoint.
pub(super) const ALIASES: &[&[&str]] = &[&TOWERS, &PROJECTORS, &TEXTS, &HEADS];

/// Builds `vision`, `embed` and `decoder` of LLaVA.
pub(super) fn build(
    checkpoint: &Checkpoint,
    level: Level,
    weights: &mut Weights<'_>,
) -> Result<Vec<ModelProto>, ImportError> {
    build_with(checkpoint, level, weights, None)
}

/// Builds `vision`, `embed` and `decoder` of LLaVA-NeXT.
pub(super) fn build_next(
    checkpoint: &Checkpoint,
    level: Level,
    weights: &mut Weights<'_>,
) -> Result<Vec<ModelProto>, ImportError> {
    let newline = NEWLINES.iter().find(|name| checkpoint.has(name)).copied().ok_or_else(|| {
        ImportError::new(ImportErrorKind::MissingTensor, checkpoint.dir())
            .at("image_newline")
            .because(format!("under none of the known names: {}", NEWLINES.join(", ")))
    })?;
    build_with(checkpoint, level, weights, Some(newline))
}

fn build_with(
    checkpoint: &Checkpoint,
    level: Level,
    weights: &mut Weights<'_>,
    newline: Option<&str>,
) -> Result<Vec<ModelProto>, ImportError> {
    let config = checkpoint.config();
    let tower = prefix(checkpoint, &TOWERS, "embeddings.patch_embedding.weight")?;
    let tower = Tower::read(&config.part("vision_config")?, tower)?;
    let projector = prefix(checkpoint, &PROJECTORS, "linear_1.weight")?;
    let text = prefix(checkpoint, &TEXTS, "embed_tokens.weight")?;
    let head = prefix(checkpoint, &HEADS, "weight").ok();
    let tied = config.flag("tie_word_embeddings", false)?;
    let text = Llama::read(&config.part("text_config")?, text, head, tied)?;

    let mut vision = Graph::new("vision", level, weights);
    let projector = Projector { name: projector, hidden: text.hidden(), newline };
    build_vision(&mut vision, config, &tower, &projector)?;
    let vision = vision.finish();
    let [embed, decoder] = text.build(level, weights)?;
    Ok(vec![vision, embed, decoder])
}

/// What stands between the tower and the text model.
struct Projector<'a> {
    name: &'a str,
    /// Width of the text model.
    hidden: usize,
    /// The tensor that ends a row, where there is one.
    newline: Option<&'a str>,
}

fn build_vision(
    g: &mut Graph<'_, '_>,
    config: &Config,
    tower: &Tower,
    &Projector { name: projector, hidden, newline }: &Projector<'_>,
) -> Result<(), ImportError> {
    let pixels = g.input::<F32>(
        "pixel_values",
        &[Dim::Fixed(1), Dim::Fixed(tower.channels()), Dim::Fixed(tower.side()), Dim::Fixed(tower.side())],
    );
    let features = select_features(g, config, tower, &pixels)?;
    let bias = config.flag("multimodal_projector_bias", true)?;
    let activation = Activation::read(config, "projector_hidden_act", "gelu")?;
    let width = tower.hidden() * features.layers;
    let embeds = g.scoped("projector", |g| {
        let x = nn::linear(g, &features.value, &format!("{projector}.linear_1"), [width, hidden], bias)?;
        let x = activation.apply(g, &x);
        nn::linear(g, &x, &format!("{projector}.linear_2"), [hidden, hidden], bias)
    })?;
    let (embeds, tokens) = match newline {
        None => (embeds, features.tokens),
        Some(name) => {
            let newline = g.weight_as(name, &[hidden], &[1, 1, hidden])?;
            (g.concat(&[&embeds, &newline], 1), features.tokens + 1)
        }
    };
    g.output("image_embeds", &embeds, &[Dim::Fixed(1), Dim::Fixed(tokens), Dim::Fixed(hidden)]);
    Ok(())
}

/// The hidden states that the projector is given.
struct Features {
    value: Value<F32>,
    tokens: usize,
    layers: usize,
}

fn select_features(
    g: &mut Graph<'_, '_>,
    config: &Config,
    tower: &Tower,
    pixels: &Value<F32>,
) -> Result<Features, ImportError> {
    const KEY: &str = "vision_feature_layer";
    let count = tower.layers() as i64;
    let mut wanted = Vec::new();
    for layer in config.integers(KEY, &[-2])? {
        let index = if layer < 0 { count + 1 + layer } else { layer };
        if !(0..=count).contains(&index) {
            return Err(config.unsupported(KEY, format!("there is no layer {layer} among {count}")));
        }
        wanted.push(index as usize);
    }
    let last = wanted.iter().copied().max().ok_or_else(|| config.unsupported(KEY, "names no layer"))?;
    let states = tower.build(g, pixels, last)?;
    // The strategy "default" drops the first token whatever it is, as `transformers` does.
    let skip = match config.text("vision_feature_select_strategy", "default")? {
        "default" => 1,
        "full" => 0,
        other => return Err(config.unsupported("vision_feature_select_strategy", format!("`{other}` is unknown"))),
    };
    let parts: Vec<Value<F32>> = wanted
        .iter()
        .map(|&index| if skip == 0 { states[index].clone() } else { g.slice(&states[index], 1, skip, i64::MAX) })
        .collect();
    let value = match &parts[..] {
        [one] => one.clone(),
        many => g.concat(&many.iter().collect::<Vec<_>>(), -1),
    };
    Ok(Features { value, tokens: tower.tokens() - skip as usize, layers: parts.len() })
}
