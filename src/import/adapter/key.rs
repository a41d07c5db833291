//! The names of tensors in an adapter's file.

use crate::import::error::ImportErrorKind as Kind;

/// What `peft` puts before the path of every module.
const PREFIX: &str = "base_model.model.";

/// The meaning of a tensor's name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// Of a half the module's path, of a whole tensor its own.
    pub path: String,
    /// What the tensor is.
    pub part: Part,
}

/// What a tensor of an adapter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// A of a pair.
    A,
    /// B of a pair.
    B,
    /// The weights of a module that was trained whole.
    Whole,
}

impl Key {
    /// Reads `base_model.model.<path>.lora_A.weight` and its like, with or without the adapter's name in it.
    pub(super) fn parse(name: &str) -> Result<Self, (Kind, String)> {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            return Err((Kind::AdapterTarget, format!("does not start with `{PREFIX}`, as what peft saves does")));
        };
        for (suffix, part) in [
            (".lora_A.weight", Part::A),
            (".lora_A.default.weight", Part::A),
            (".lora_B.weight", Part::B),
            (".lora_B.default.weight", Part::B),
        ] {
            if let Some(module) = rest.strip_suffix(suffix) {
                if module.ends_with("embed_tokens") {
                    return Err((Kind::Unsupported, "LoRA of embeddings cannot be imported".into()));
                }
                return Ok(Self { path: module.to_owned(), part });
            }
        }
        for (word, what) in [
            ("lora_embedding_", "LoRA of embeddings"),
            ("lora_magnitude_vector", "DoRA"),
            ("lora_B.bias", "LoRA with a bias"),
            ("lora_B.default.bias", "LoRA with a bias"),
            ("lora_", "this kind of LoRA"),
            ("trainable_tokens", "the training of single tokens"),
        ] {
            if rest.contains(word) {
                return Err((Kind::Unsupported, format!("{what} cannot be imported; merge it with peft first")));
            }
        }
        let mut path = rest.to_owned();
        for wrapper in [".modules_to_save.default.", ".modules_to_save.", ".base_layer."] {
            path = path.replacen(wrapper, ".", 1);
        }
        Ok(Self { path, part: Part::Whole })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_layout_and_what_is_refused() {
        let good = [
            ("base_model.model.model.layers.0.q_proj.lora_A.weight", "model.layers.0.q_proj", Part::A),
            ("base_model.model.layers.0.q_proj.lora_B.default.weight", "layers.0.q_proj", Part::B),
            ("base_model.model.model.projector.linear_1.bias", "model.projector.linear_1.bias", Part::Whole),
            ("base_model.model.projector.modules_to_save.linear_1.weight", "projector.linear_1.weight", Part::Whole),
            ("base_model.model.lm_head.modules_to_save.default.weight", "lm_head.weight", Part::Whole),
            ("base_model.model.lm_head.base_layer.weight", "lm_head.weight", Part::Whole),
        ];
        for (name, path, part) in good {
            assert_eq!(Key::parse(name).unwrap(), Key { path: path.into(), part }, "{name}");
        }
        let bad = [
            ("model.layers.0.q_proj.lora_A.weight", Kind::AdapterTarget, "base_model.model."),
            ("base_model.model.model.embed_tokens.lora_embedding_A", Kind::Unsupported, "embeddings"),
            ("base_model.model.model.embed_tokens.lora_A.weight", Kind::Unsupported, "embeddings"),
            ("base_model.model.q_proj.lora_magnitude_vector.weight", Kind::Unsupported, "DoRA"),
            ("base_model.model.q_proj.lora_B.bias", Kind::Unsupported, "bias"),
            ("base_model.model.q_proj.lora_C.weight", Kind::Unsupported, "this kind"),
        ];
        for (name, kind, word) in bad {
            let (found, why) = Key::parse(name).unwrap_err();
            assert!(found == kind && why.contains(word), "{name}: {found:?} {why}");
        }
    }
}
