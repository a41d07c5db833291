//! A configuration for files that come without one: the class and its sizes follow from names and shapes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{EFFICIENT_VIT, MOBILE, SAM};
use crate::import::checkpoint::Checkpoint;
use crate::import::config::Config;
use crate::import::error::{ImportError, ImportErrorKind as Kind};

/// The configuration of a checkpoint without `config.json`.
///
/// # Errors
/// [`Kind::Open`] where it is none of the known segmenters, [`Kind::MissingTensor`] where a part is missing.
pub(in crate::import) fn infer(checkpoint: &Checkpoint) -> Result<Config, ImportError> {
    let has = |name: &str| checkpoint.has(name);
    let config = if has("image_encoder.pos_embed") {
        sam(checkpoint)?
    } else if has("image_encoder.patch_embed.seq.0.c.weight") {
        json!({ "architectures": [MOBILE] })
    } else if has("image_encoder.backbone.input_stem.op_list.0.conv.weight") {
        // The small ones see 512 pixels, those with a fifth stage 1024.
        let deep = checkpoint.names().any(|name| name.starts_with("image_encoder.backbone.stages.4."));
        json!({ "architectures": [EFFICIENT_VIT], "image_size": if deep { 1024 } else { 512 } })
    } else {
        return Err(ImportError::new(Kind::Open, checkpoint.dir().join("config.json"))
            .because("is not there, and the tensors are not those of a segmenter that is known without it"));
    };
    let file = checkpoint.files().first().map_or(checkpoint.dir(), |file| file.path.as_path());
    Ok(Config::of(file, config))
}

/// A tensor that must be there, of that many dimensions.
pub(super) fn shape_of<'c, const N: usize>(
    checkpoint: &'c Checkpoint,
    name: &str,
) -> Result<&'c [usize; N], ImportError> {
    let located = checkpoint.find(name)?;
    located.shape.as_slice().try_into().map_err(|_| {
        ImportError::new(Kind::Shape, &checkpoint.files()[located.file].path)
            .at(name)
            .because(format!("has {} dimensions, not {N}", located.shape.len()))
    })
}

/// Indices that follow `prefix` in the names.
pub(super) fn indices_after(checkpoint: &Checkpoint, prefix: &str) -> BTreeSet<usize> {
    let index = |name: &str| name.strip_prefix(prefix)?.split('.').next()?.parse().ok();
    checkpoint.names().filter_map(index).collect()
}

/// SAM as its authors published it.
fn sam(checkpoint: &Checkpoint) -> Result<Value, ImportError> {
    let &[_, grid, _, hidden] = shape_of(checkpoint, "image_encoder.pos_embed")?;
    let &[_, channels, patch, _] = shape_of(checkpoint, "image_encoder.patch_embed.proj.weight")?;
    let &[output, ..] = shape_of::<4>(checkpoint, "image_encoder.neck.0.weight")?;
    let layers = indices_after(checkpoint, "image_encoder.blocks.").len();
    let (mut global, mut window, mut width) = (Vec::new(), 0, 64);
    for layer in 0..layers {
        let &[length, head] = shape_of(checkpoint, &format!("image_encoder.blocks.{layer}.attn.rel_pos_h"))?;
        width = head;
        if length == 2 * grid - 1 { global.push(layer) } else { window = length.div_ceil(2) }
    }
    let &[mlp, _] = shape_of(checkpoint, "image_encoder.blocks.0.mlp.lin1.weight")?;
    let &[decoder_mlp, _] = shape_of(checkpoint, "mask_decoder.transformer.layers.0.mlp.lin1.weight")?;
    let &[iou, _] = shape_of(checkpoint, "mask_decoder.iou_prediction_head.layers.0.weight")?;
    let &[mask_channels, ..] = shape_of::<4>(checkpoint, "prompt_encoder.mask_downscaling.3.weight")?;
    let side = grid * patch;
    Ok(json!({
        "architectures": [SAM],
        "vision_config": {
            "hidden_size": hidden, "num_channels": channels, "patch_size": patch, "image_size": side,
            "output_channels": output, "num_pos_feats": output / 2, "num_hidden_layers": layers,
            "num_attention_heads": hidden / width.max(1), "mlp_dim": mlp, "window_size": window,
            "global_attn_indexes": global, "use_rel_pos": true,
        },
        "prompt_encoder_config": {
            "hidden_size": output, "image_size": side, "patch_size": patch, "mask_input_channels": mask_channels,
        },
        "mask_decoder_config": { "hidden_size": output, "mlp_dim": decoder_mlp, "iou_head_hidden_dim": iou },
    }))
}
