//! `Qwen2_5_VLForConditionalGeneration` and `Qwen3VLForConditionalGeneration`: a tower that takes images of any size,
//! a Qwen whose positions have three axes.
//!
//! Source: `transformers`, `models/qwen2_5_vl` and `models/qwen3_vl`; arXiv 2502.13923.

use super::llama::Llama;
use super::prefix;
use super::qwen_vision::QwenTower;
use crate::import::Level;
use crate::import::checkpoint::Checkpoint;
use crate::import::error::ImportError;
use crate::import::graph::Graph;
use crate::import::onnx::ModelProto;
use crate::import::weights::Weights;

/// Where checkpoints keep the vision tower.
const TOWERS: [&str; 2] = ["model.visual", "visual"];
/// Where they keep the text model.
const TEXTS: [&str; 3] = ["model.language_model", "language_model.model", "model"];
/// Where they keep the head, unless it is tied to the word embeddings.
const HEADS: [&str; 2] = ["lm_head", "language_model.lm_head"];

/// The same parts by all their names, as paths in an adapter may use another one than the checkpoint.
pub(super) const ALIASES: &[&[&str]] = &[&TOWERS, &TEXTS, &HEADS];

/// Builds `vision`, `embed` and `decoder` of Qwen2.5-VL.
pub(super) fn build_2_5(
    checkpoint: &Checkpoint,
    level: Level,
    weights: &mut Weights<'_>,
) -> Result<Vec<ModelProto>, ImportError> {
    let tower = prefix(checkpoint, &TOWERS, "patch_embed.proj.weight")?;
    let tower = QwenTower::windowed(&checkpoint.config().part("vision_config")?, tower)?;
    build(checkpoint, level, weights, &tower)
}

/// Builds `vision`, `embed` and `decoder` of Qwen3-VL.
pub(super) fn build_3(
    checkpoint: &Checkpoint,
    level: Level,
    weights: &mut Weights<'_>,
) -> Result<Vec<ModelProto>, ImportError> {
    let tower = prefix(checkpoint, &TOWERS, "patch_embed.proj.weight")?;
    let tower = QwenTower::stacked(&checkpoint.config().part("vision_config")?, tower)?;
    build(checkpoint, level, weights, &tower)
}

fn build(
    checkpoint: &Checkpoint,
    level: Level,
    weights: &mut Weights<'_>,
    tower: &QwenTower,
) -> Result<Vec<ModelProto>, ImportError> {
    let config = checkpoint.config();
    // Before 4.52 the text model's keys stood beside `vision_config`.
    let text = if config.get("text_config").is_some() { config.part("text_config")? } else { config.clone() };
    let name = prefix(checkpoint, &TEXTS, "embed_tokens.weight")?;
    let head = prefix(checkpoint, &HEADS, "weight").ok();
    let text = Llama::read(&text, name, head, config.flag("tie_word_embeddings", false)?)?;
    if text.hidden() != tower.out() {
        let why = format!("is {}, the text model is {} wide", tower.out(), text.hidden());
        return Err(config.unsupported("vision_config.out_hidden_size", why));
    }
    let text = text.with_deepstack(tower.taps());

    let mut vision = Graph::new("vision", level, weights);
    tower.build(&mut vision)?;
    let vision = vision.finish();
    let [embed, decoder] = text.build(level, weights)?;
    Ok(vec![vision, embed, decoder])
}
