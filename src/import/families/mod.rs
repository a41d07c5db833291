//! Model families: each knows the graphs of one `transformers` class.
//!
//! The graphs' names and those of their inputs and outputs are a contract with the rooms that run them; every family
//! of one kind (language models with images, segmenters with prompts) writes the same.
//!
//! Language models ([`llava`], [`qwen_vl`]; those without eyes have no `vision`, and are imported by themselves alone); S
//! positions, P cached ones, L of interest:
//!
//! | graph | takes | gives |
//! |---|---|---|
//! | `vision` | `pixel_values` f32\[1, 3, H, W\] | `image_embeds` f32\[1, N, D\]; of LLaVA-NeXT the last of them is the token that ends a row |
//! | `embed` | `input_ids` i32\[1, S\] | `inputs_embeds` f32\[1, S, D\] |
//! | `decoder` | `inputs_embeds` f32\[1, S, D\], `position_ids` i32\[1, S\], `attention_bias` f32\[1, 1, S, P+S\] (added to the scores: 0, or a large negative number where a position must not look), `logit_indices` i32\[L\], `past_key.{i}`, `past_value.{i}` f32\[1, KV, P, d\] | `logits` f32\[1, L, V\], `present_key.{i}`, `present_value.{i}` f32\[1, KV, P+S, d\] |
//!
//! Qwen-VL is shown patches of an image of any size, in W windows of T, one window in Qwen3-VL; C · p · p values each,
//! those that become one token side by side:
//!
//! | graph | takes | gives |
//! |---|---|---|
//! | `vision` | `pixel_values` f32\[W, T, C · p · p\], `patch_positions` i32\[W, T, 2\] (row, column); of Qwen2.5-VL `attention_bias` f32\[W, 1, 1, T\] (large and negative where a window is filled up); of Qwen3-VL `position_indices` i32\[4, T\] and `position_weights` f32\[4, T, 1\] (the learned positions around each patch) | `image_embeds`, of Qwen3-VL also `deepstack.{i}`, f32\[1, N, D\] |
//! | `decoder` | as above; `position_ids` i32\[1, S, 3\] (time, row, column); of Qwen3-VL `deepstack.{i}` f32\[1, S, D\], zero but for the image's tokens | as above |
//!
//! Segmenters ([`SamModel`, `EfficientViTSam`, `MobileSam`, `Sam2Model`, `Sam2VideoModel`](sam)); B prompts of T points:
//!
//! | graph | takes | gives |
//! |---|---|---|
//! | `image_encoder` | `pixel_values` f32\[1, 3, H, W\] | `image_embedding` f32\[1, C, h, w\]; of SAM 2 also `high_res_features_0` f32\[1, C/8, 4h, 4w\] and `high_res_features_1` f32\[1, C/4, 2h, 2w\] |
//! | `mask_decoder` | all of those, `point_coords` f32\[B, T, 2\] (x, y in pixels of the model's input), `point_labels` i32\[B, T\] (1 on, 0 off, 2 and 3 a box's corners, -1 not a point), `mask_input` f32\[B, 1, 4h, 4w\], `has_mask_input` f32\[B, 1, 1, 1\] | `low_res_masks` f32\[B, 4, 4h, 4w\], `iou_scores` f32\[B, 4\]: the single mask first, then the three of the multimask output |
//!
//! Where `pixel_values` is, a graph for TensorRT has a [front](super::take_bytes) instead, one for all of them:
//! `pixel_bytes` u8\[1, H, W, 3\], or u8\[W, T, C · p · p\], and where frames are padded `pixel_extent` i32\[2\] (rows and
//! columns that are the frame's).

pub mod llava;
pub mod qwen_vl;
pub mod sam;

mod llama;
mod qwen_vision;
mod rope;
mod text;
mod vit;

use super::Level;
use super::checkpoint::Checkpoint;
use super::config::Config;
use super::error::{ImportError, ImportErrorKind};
use super::onnx::ModelProto;
use super::weights::Weights;
use crate::engine::bundle::{Fit, Resampler};

type Build = fn(&Checkpoint, Level, &mut Weights<'_>) -> Result<Vec<ModelProto>, ImportError>;

/// A model family.
pub(crate) struct Family {
    class: &'static str,
    /// Names that the same part of the model has in one version of `transformers` or another.
    aliases: &'static [&'static [&'static str]],
    build: Build,
}

/// Every family there is.
const FAMILIES: [Family; 13] = [
    Family { class: "LlavaForConditionalGeneration", aliases: llava::ALIASES, build: llava::build },
    Family { class: "LlavaNextForConditionalGeneration", aliases: llava::ALIASES, build: llava::build_next },
    Family { class: "Qwen2_5_VLForConditionalGeneration", aliases: qwen_vl::ALIASES, build: qwen_vl::build_2_5 },
    Family { class: "Qwen3VLForConditionalGeneration", aliases: qwen_vl::ALIASES, build: qwen_vl::build_3 },
    Family { class: sam::SAM, aliases: &[], build: sam::build },
    Family { class: sam::EFFICIENT_VIT, aliases: &[], build: sam::build_efficient_vit },
    Family { class: sam::MOBILE, aliases: &[], build: sam::build_mobile },
    Family { class: sam::SAM_2, aliases: &[], build: sam::build_second },
    Family { class: sam::SAM_2_VIDEO, aliases: &[], build: sam::build_second },
    blind(text::CLASSES[0]),
    blind(text::CLASSES[1]),
    blind(text::CLASSES[2]),
    blind(text::CLASSES[3]),
];

/// A language model without eyes.
const fn blind(class: &'static str) -> Family {
    Family { class, aliases: text::ALIASES, build: text::build }
}

impl Family {
    /// The `transformers` class.
    pub(crate) fn class(&self) -> &'static str {
        self.class
    }

    /// Names that the same part of the model has in one version of `transformers` or another.
    pub(crate) fn aliases(&self) -> &'static [&'static [&'static str]] {
        self.aliases
    }

    /// What the checkpoint calls the tensors that the class calls otherwise, where it does.
    pub(crate) fn spelling(&self, checkpoint: &Checkpoint) -> Option<fn(&str) -> String> {
        sam::RESPELT.contains(&self.class).then(|| sam::spelling(checkpoint)).flatten()
    }

    /// Builds the class's graphs for one checkpoint.
    pub(crate) fn build(
        &self,
        checkpoint: &Checkpoint,
        level: Level,
        weights: &mut Weights<'_>,
    ) -> Result<Vec<ModelProto>, ImportError> {
        (self.build)(checkpoint, level, weights)
    }
}

/// The one of `prefixes` under which `tensor` is.
fn prefix(checkpoint: &Checkpoint, prefixes: &[&'static str], tensor: &str) -> Result<&'static str, ImportError> {
    prefixes.iter().find(|prefix| checkpoint.has(&format!("{prefix}.{tensor}"))).copied().ok_or_else(|| {
        ImportError::new(ImportErrorKind::MissingTensor, checkpoint.dir())
            .at(tensor)
            .because(format!("under none of the known prefixes: {}", prefixes.join(", ")))
    })
}

/// The classes that can be imported.
pub fn classes() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|family| family.class)
}

/// Whether a class is one of a language model without eyes, which is good for no bundle.
pub(crate) fn is_blind(class: &str) -> bool {
    text::CLASSES.contains(&class)
}

/// Whether a class is one of a segmenter.
pub(crate) fn is_segmenter(class: &str) -> bool {
    sam::CLASSES.contains(&class)
}

/// Whose bytes a segmenter's frames are resized to: its own processor's in `transformers`, else those of its authors' code.
pub(crate) fn resampler(class: &str) -> Resampler {
    if [sam::EFFICIENT_VIT, sam::MOBILE].contains(&class) { Resampler::Pillow } else { Resampler::Torchvision }
}

/// How a segmenter's frames are brought to the size of its input.
pub(crate) fn fit(class: &str) -> Fit {
    if [sam::SAM_2, sam::SAM_2_VIDEO].contains(&class) { Fit::Squash } else { Fit::Letterbox }
}

/// The family of a checkpoint.
pub(crate) fn find(config: &Config) -> Result<&'static Family, ImportError> {
    let class = config.class()?;
    if config.get("quantization_config").is_some() {
        return Err(config.unsupported("quantization_config", "quantised checkpoints cannot be read"));
    }
    FAMILIES.iter().find(|family| family.class == class).ok_or_else(|| {
        let known: Vec<&str> = classes().collect();
        ImportError::new(ImportErrorKind::UnknownClass, config.file())
            .at(class)
            .because(format!("classes that can be imported: {}", known.join(", ")))
    })
}
