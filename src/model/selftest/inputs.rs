//! What engines are fed in a test: always the same numbers, which use every path of the graphs.

use crate::engine::{Engine, Tensor};
use crate::import::{PIXEL_BYTES, PIXEL_EXTENT};
use crate::model::front::Inputs;
use crate::model::sight::{deepstack, has_axes};
use crate::model::{ModelError, branch};
use crate::rng::SceneRng;

/// Patches of a window: whole tokens whether 1, 2, 4 or 8 patches along a side become one.
const PATCHES: usize = 64;

/// What helps an engine that takes floats.
const FRONTLESS: &str = "one that takes floats needs a front, as `model::on_bytes` makes it";

/// Numbers in `-1.0..1.0`, always the same.
pub(in crate::model) fn pattern(count: usize, seed: u64) -> Vec<f32> {
    let mut rng = SceneRng::new(&[seed]);
    (0..count).map(|_| rng.spread(1.0)).collect()
}

/// Bytes of noise, always the same.
fn noise(count: usize) -> Vec<u8> {
    pattern(count, 1).into_iter().map(|value| (value * 127.5 + 127.5) as u8).collect()
}

/// A picture of noise for an image encoder; where it may be padded, it is on the right.
pub(in crate::model) fn pixels(engine: &dyn Engine, name: &'static str) -> Result<Inputs, ModelError> {
    let find = |name: &str| engine.inputs().iter().find(|i| i.name == name);
    let shape: Option<Vec<usize>> = find(PIXEL_BYTES).and_then(|i| i.shape.iter().copied().collect());
    let Some([1, height, width, 3]) = shape.as_deref() else {
        let what = format!("is no input of a fixed size; {FRONTLESS}");
        return Err(ModelError::Output { engine: name, tensor: PIXEL_BYTES, what });
    };
    let bytes = Tensor::u8(&[1, *height, *width, 3], noise(height * width * 3));
    let mut inputs = vec![(PIXEL_BYTES, bytes)];
    if find(PIXEL_EXTENT).is_some() {
        let extent = vec![*height as i32, (width - width / 4) as i32];
        inputs.push((PIXEL_EXTENT, Tensor::i32(&[2], extent)));
    }
    Ok(inputs)
}

/// What a language model's vision engine is fed: a picture of noise, or patches of one with what belongs to them.
pub(super) fn picture(engine: &dyn Engine) -> Result<Inputs, ModelError> {
    if !engine.inputs().iter().any(|i| i.name == "patch_positions") {
        return pixels(engine, "vision");
    }
    let has = |name: &str| engine.inputs().iter().any(|i| i.name == name);
    let depth = engine.inputs().iter().find(|i| i.name == PIXEL_BYTES).and_then(|i| *i.shape.last()?);
    let what = || format!("is no input of a fixed depth; {FRONTLESS}");
    let depth = depth.ok_or_else(|| ModelError::Output { engine: "vision", tensor: PIXEL_BYTES, what: what() })?;
    let windows = if has("attention_bias") { 2 } else { 1 };
    let patches = windows * PATCHES;
    let places = (0..2 * patches as i32).map(|i| i % 7).collect::<Vec<_>>();
    let mut inputs = vec![
        (PIXEL_BYTES, Tensor::u8(&[windows, PATCHES, depth], noise(patches * depth))),
        ("patch_positions", Tensor::i32(&[windows, PATCHES, 2], places)),
    ];
    if has("attention_bias") {
        inputs.push(("attention_bias", Tensor::f32(&[windows, 1, 1, PATCHES], vec![0.0; patches])));
    }
    if has("position_indices") {
        let nearest = (0..4 * PATCHES as i32).map(|i| i % 4).collect::<Vec<_>>();
        inputs.push(("position_indices", Tensor::i32(&[4, PATCHES], nearest)));
        inputs.push(("position_weights", Tensor::f32(&[4, PATCHES, 1], vec![0.25; 4 * PATCHES])));
    }
    Ok(inputs)
}

/// What a decoder is fed beside its cache: `embeds`, `f32[1, S, D]`, behind `past` tokens, each seeing those before it;
/// logits of all.
pub(in crate::model) fn pass(
    decoder: &dyn Engine,
    embeds: Tensor<'static>,
    past: usize,
) -> Vec<(String, Tensor<'static>)> {
    let (new, width) = (embeds.shape()[1], embeds.shape()[2]);
    let places = past as i32..(past + new) as i32;
    let positions = match has_axes(decoder) {
        true => Tensor::i32(&[1, new, 3], places.flat_map(|at| [at, at / 2, at / 3]).collect::<Vec<_>>()),
        false => Tensor::i32(&[1, new], places.collect::<Vec<_>>()),
    };
    let bias = Tensor::f32(&[1, 1, new, past + new], branch::causal_bias(new, past));
    let mut inputs = vec![
        ("inputs_embeds".to_owned(), embeds),
        ("position_ids".to_owned(), positions),
        ("attention_bias".to_owned(), bias),
        ("logit_indices".to_owned(), Tensor::i32(&[new], (0..new as i32).collect::<Vec<_>>())),
    ];
    for (i, tap) in deepstack(decoder.inputs()).into_iter().enumerate() {
        inputs.push((tap, Tensor::f32(&[1, new, width], pattern(new * width, 3 + i as u64))));
    }
    inputs
}

/// Prompts of every kind for a mask decoder whose embedding has `h` by `w` cells, in a picture of `side` pixels: a box
/// with a point on and one off; a point alone; a box with a mask.
pub(in crate::model) fn prompts(side: f32, [h, w]: [usize; 2]) -> [(&'static str, Tensor<'static>); 4] {
    let (low_h, low_w) = (4 * h, 4 * w);
    let at = |x: f32, y: f32| [x * side, y * side];
    let coords = [
        [at(0.3, 0.4), at(0.7, 0.2), at(0.1, 0.2), at(0.6, 0.8)],
        [at(0.5, 0.5), at(0.0, 0.0), at(0.0, 0.0), at(0.0, 0.0)],
        [at(0.2, 0.1), at(0.9, 0.7), at(0.0, 0.0), at(0.0, 0.0)],
    ];
    let labels = vec![1, 0, 2, 3, 1, -1, -1, -1, 2, 3, -1, -1];
    let mut masks = vec![0.0; 3 * low_h * low_w];
    masks[2 * low_h * low_w..].copy_from_slice(&pattern(low_h * low_w, 2));
    [
        ("point_coords", Tensor::f32(&[3, 4, 2], coords.concat().concat())),
        ("point_labels", Tensor::i32(&[3, 4], labels)),
        ("mask_input", Tensor::f32(&[3, 1, low_h, low_w], masks)),
        ("has_mask_input", Tensor::f32(&[3, 1, 1, 1], vec![0.0, 0.0, 1.0])),
    ]
}
