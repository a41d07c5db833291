//! The names that the tensors have in the files of SAM's authors, and in those of its descendants.
//!
//! Source: `segment_anything`; the parts are those of `transformers`' `SamModel` under other names.

use crate::import::checkpoint::Checkpoint;

/// A part's name in `transformers` and in the authors' files; what follows is the same.
const PARTS: [(&str, &str); 24] = [
    ("shared_image_embedding.positional_embedding", "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    ("vision_encoder.patch_embed.projection.", "image_encoder.patch_embed.proj."),
    ("vision_encoder.neck.conv1.", "image_encoder.neck.0."),
    ("vision_encoder.neck.layer_norm1.", "image_encoder.neck.1."),
    ("vision_encoder.neck.conv2.", "image_encoder.neck.2."),
    ("vision_encoder.neck.layer_norm2.", "image_encoder.neck.3."),
    ("vision_encoder.layers.", "image_encoder.blocks."),
    ("vision_encoder.", "image_encoder."),
    ("prompt_encoder.point_embed.", "prompt_encoder.point_embeddings."),
    ("prompt_encoder.mask_embed.conv1.", "prompt_encoder.mask_downscaling.0."),
    ("prompt_encoder.mask_embed.layer_norm1.", "prompt_encoder.mask_downscaling.1."),
    ("prompt_encoder.mask_embed.conv2.", "prompt_encoder.mask_downscaling.3."),
    ("prompt_encoder.mask_embed.layer_norm2.", "prompt_encoder.mask_downscaling.4."),
    ("prompt_encoder.mask_embed.conv3.", "prompt_encoder.mask_downscaling.6."),
    ("mask_decoder.upscale_conv1.", "mask_decoder.output_upscaling.0."),
    ("mask_decoder.upscale_layer_norm.", "mask_decoder.output_upscaling.1."),
    ("mask_decoder.upscale_conv2.", "mask_decoder.output_upscaling.3."),
    ("mask_decoder.transformer.layer_norm_final_attn.", "mask_decoder.transformer.norm_final_attn."),
    // A layer's parts, wherever it is.
    (".layer_norm1.", ".norm1."),
    (".layer_norm2.", ".norm2."),
    (".layer_norm3.", ".norm3."),
    (".layer_norm4.", ".norm4."),
    (".proj_in.", ".layers.0."),
    (".proj_out.", ".layers.2."),
];

/// How many of [`PARTS`] are beginnings of names.
const BEGINNINGS: usize = 18;

/// What the files of the authors call the tensor `name`; for a checkpoint that uses their names.
pub(in crate::import) fn spelling(checkpoint: &Checkpoint) -> Option<fn(&str) -> String> {
    checkpoint.names().any(|name| name.starts_with("image_encoder.")).then_some(authors_name as fn(&str) -> String)
}

fn authors_name(name: &str) -> String {
    let start =
        PARTS[..BEGINNINGS].iter().find_map(|(ours, theirs)| Some(format!("{theirs}{}", name.strip_prefix(ours)?)));
    let mut name = start.unwrap_or_else(|| name.to_owned());
    // Perceptrons of three layers count them; those of `transformers` name the first and the last.
    if (name.contains("_mlps.") || name.contains("prediction_head.")) && name.contains(".layers.0.") {
        return name.replace(".layers.0.", ".layers.1.");
    }
    if name.starts_with("mask_decoder.") || name.starts_with("image_encoder.") {
        for (ours, theirs) in &PARTS[BEGINNINGS..] {
            name = name.replace(ours, theirs);
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::authors_name;

    #[test]
    fn parts_keep_what_follows() {
        for (ours, theirs) in [
            ("vision_encoder.layers.3.layer_norm2.bias", "image_encoder.blocks.3.norm2.bias"),
            ("vision_encoder.layers.3.attn.rel_pos_h", "image_encoder.blocks.3.attn.rel_pos_h"),
            ("vision_encoder.pos_embed", "image_encoder.pos_embed"),
            ("mask_decoder.transformer.layers.1.layer_norm4.weight", "mask_decoder.transformer.layers.1.norm4.weight"),
            ("mask_decoder.iou_prediction_head.proj_in.bias", "mask_decoder.iou_prediction_head.layers.0.bias"),
            ("mask_decoder.iou_prediction_head.layers.0.bias", "mask_decoder.iou_prediction_head.layers.1.bias"),
            (
                "mask_decoder.output_hypernetworks_mlps.2.proj_out.weight",
                "mask_decoder.output_hypernetworks_mlps.2.layers.2.weight",
            ),
            ("prompt_encoder.not_a_point_embed.weight", "prompt_encoder.not_a_point_embed.weight"),
        ] {
            assert_eq!(authors_name(ours), theirs);
        }
    }
}
