//! `LlavaForConditionalGeneration`: a vision tower, a projector of two layers, a Llama.
//!
//! Source: `transformers`, `models/llava`; arXiv 2304.08485.

use super::llama::Llama;
use super::vit::Tower;
use crate::import::Level;
use crate::import::checkpoint::Checkpoint;
use crate::import::config::Config;
use crate::import::error::{ImportError, ImportErrorKind};
use crate::import::graph::{Dim, F32, Graph, Value};
use crate::import::nn::{self, Activation};
use crate::import::onnx::ModelProto;
use crate::import::weights::Weights;

/// Where a checkpoint keeps its three parts; the layout has changed over the versions of `transformers`.
struct Prefixes {
    tower: &'static str,
    projector: &'static str,
    text: &'static str,
    head: &'static str,
}

const LAYOUTS: [Prefixes; 4] = [
    // Written by save_pretrained of 4.x and 5.x.
    Prefixes {
        tower: "vision_tower.vision_model",
        projector: "multi_modal_projector",
        text: "language_model.model",
        head: "language_model.lm_head",
    },
    // The module tree from 4.52 on.
    Prefixes {
        tower: "model.vision_tower.vision_model",
        projector: "model.multi_modal_projector",
        text: "model.language_model",
        head: "lm_head",
    },
    // The module tree of 5.x, where towers have no inner model.
    Prefixes {
        tower: "model.vision_tower",
        projector: "model.multi_modal_projector",
        text: "model.language_model",
        head: "lm_head",
    },
    // The same with towers of their own layout and a text model of the old one.
    Prefixes {
        tower: "vision_tower",
        projector: "multi_modal_projector",
        text: "language_model.model",
        head: "language_model.lm_head",
    },
];

/// Builds `vision`, `embed` and `decoder`.
pub(super) fn build(
    checkpoint: &Checkpoint,
    level: Level,
    weights: &mut Weights<'_>,
) -> Result<Vec<ModelProto>, ImportError> {
    let config = checkpoint.config();
    let prefixes = layout(checkpoint)?;
    let tower = Tower::read(&config.part("vision_config")?, prefixes.tower)?;
    let tied = config.flag("tie_word_embeddings", false)?;
    let head = checkpoint.has(&format!("{}.weight", prefixes.head)).then_some(prefixes.head);
    let text = Llama::read(&config.part("text_config")?, prefixes.text, head, tied)?;

    let mut vision = Graph::new("vision", level, weights);
    build_vision(&mut vision, config, &tower, prefixes.projector, text.hidden())?;
    let vision = vision.finish();
    let mut embed = Graph::new("embed", level, weights);
    text.build_embed(&mut embed)?;
    let embed = embed.finish();
    let mut decoder = Graph::new("decoder", level, weights);
    text.build_decoder(&mut decoder)?;
    Ok(vec![vision, embed, decoder.finish()])
}

/// Finds the layout whose first tensors are there.
fn layout(checkpoint: &Checkpoint) -> Result<&'static Prefixes, ImportError> {
    let fits = |p: &&Prefixes| {
        checkpoint.has(&format!("{}.embeddings.patch_embedding.weight", p.tower))
            && checkpoint.has(&format!("{}.embed_tokens.weight", p.text))
    };
    LAYOUTS.iter().find(fits).ok_or_else(|| {
        ImportError::new(ImportErrorKind::MissingTensor, checkpoint.config().file())
            .at("embeddings.patch_embedding.weight")
            .because("no known prefixes lead to a vision tower and a text model")
    })
}

fn build_vision(
    g: &mut Graph<'_, '_>,
    config: &Config,
    tower: &Tower,
    projector: &str,
    hidden: usize,
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
    g.output("image_embeds", &embeds, &[Dim::Fixed(1), Dim::Fixed(features.tokens), Dim::Fixed(hidden)]);
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
