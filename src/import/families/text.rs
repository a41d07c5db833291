//! Language models without eyes: `LlamaForCausalLM`, `MistralForCausalLM`, `Qwen2ForCausalLM`, `Qwen3ForCausalLM`.
//!
//! They ground nothing, so no bundle takes one; they are what the text models of the others are compared by, on weights
//! that were trained.
//!
//! Source: `transformers`, `models/llama`, `models/mistral`, `models/qwen2`, `models/qwen3`.

use super::llama::Llama;
use crate::import::Level;
use crate::import::checkpoint::Checkpoint;
use crate::import::error::ImportError;
use crate::import::onnx::ModelProto;
use crate::import::weights::Weights;

/// The classes.
pub(super) const CLASSES: [&str; 4] =
    ["LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"];

const TEXT: &str = "model";
const HEAD: &str = "lm_head";

/// A part has one name in all of them.
pub(super) const ALIASES: &[&[&str]] = &[&[TEXT], &[HEAD]];

/// Builds `embed` and `decoder`.
pub(super) fn build(
    checkpoint: &Checkpoint,
    level: Level,
    weights: &mut Weights<'_>,
) -> Result<Vec<ModelProto>, ImportError> {
    let head = checkpoint.has("lm_head.weight").then_some(HEAD);
    let text = Llama::read(checkpoint.config(), TEXT, head, false)?;
    Ok(text.build(level, weights)?.to_vec())
}
