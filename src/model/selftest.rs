//! The self-test: every engine runs on a fixed input, and its outputs are held against those that the bundle stores.
//!
//! A wrong file is found by its hash; what is left is arithmetic: a driver, a compiled kernel, a graph that was imported
//! otherwise, a precision that overflows. What is stored of a tensor is its shape, its root mean square and eight sums
//! of all its elements with random signs. A difference between two tensors changes each sum by about its own size
//! (Johnson and Lindenstrauss), so that the eight tell how large it is, give or take a quarter, wherever it is: no single
//! element can be wrong unseen, and none decides alone. Inputs use every path of the graphs: all kinds of prompts, a
//! second pass behind a cache, the whole vocabulary through the logits.

use std::time::{Duration, Instant};

use super::kv::{KvCache, KvLayout};
use super::mllm::MllmEngines;
use super::sam::Features;
use super::sight::{deepstack, has_axes};
use super::{ModelError, branch, exactly};
use crate::engine::bundle::{StoredOutputs, TensorPrint};
use crate::engine::{Engine, Tensor};
use crate::rng::SceneRng;

/// The largest relative difference that is taken for the same in 32-bit floats, as a share of the tensor's root mean square.
///
/// Two builds of a 32-bit float backend differ by 1e-6 to 1e-5 (other orders of summation). In two small models every matrix
/// shows whose elements change by a tenth, and every bias whose elements change by 0.1, but for those that no output depends
/// on; the least by 2.6e-3.
pub const TOLERANCE: f32 = 1e-3;
/// Sums with random signs.
const PROJECTIONS: usize = 8;
/// Token embeddings that are looked up: all of a small vocabulary, a sample of a large one (whose other rows the hashes
/// of the files vouch for, and the logits where they are tied).
const MAX_TOKENS: usize = 512;
/// Patches of a window: whole tokens whether 1, 2, 4 or 8 patches along a side become one.
const PATCHES: usize = 64;
/// Length of the conversation that the decoder is given: a pass of half of it, then one behind its cache.
const CONVERSATION: usize = 16;

/// What an engine said to its fixed input.
#[derive(Debug, Clone, PartialEq)]
pub struct Tested {
    /// The engine.
    pub engine: &'static str,
    /// The output.
    pub tensor: &'static str,
    /// What it was.
    pub print: TensorPrint,
    /// How long the engine took, together with the engine's other outputs.
    pub took: Duration,
    /// The difference from what is stored, as a share of the root mean square; `None` where nothing is.
    pub difference: Option<f32>,
}

/// An engine does not say what it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelfTestError {
    /// It failed, or its output is misshapen or not finite.
    #[error("run the self-test")]
    Model(#[from] ModelError),
    /// Its output is another.
    #[error(
        "hold engine `{engine}` against its stored output `{tensor}`: it {what}. The weights, the import or this \
         machine's arithmetic changed; where that was meant, `sam4mllm engine seal BUNDLE` stores the outputs anew"
    )]
    Differs {
        /// The engine.
        engine: &'static str,
        /// The output.
        tensor: &'static str,
        /// By how much.
        what: String,
    },
}

/// Holds what engines said against what is stored.
///
/// # Errors
/// [`SelfTestError::Differs`] for the first that differs by more than `tolerance`, a share of the tensor's root mean
/// square, or is not stored though others are.
pub fn compare(tested: &mut [Tested], stored: Option<&StoredOutputs>, tolerance: f32) -> Result<(), SelfTestError> {
    let Some(stored) = stored else { return Ok(()) };
    for Tested { engine, tensor, print, difference, .. } in tested {
        let differs = |what| SelfTestError::Differs { engine, tensor, what };
        let Some(known) = stored.get(&format!("{engine}.{tensor}")) else {
            return Err(differs("is not stored, though others are".to_owned()));
        };
        if known.shape != print.shape || known.projections.len() != print.projections.len() {
            return Err(differs(format!("has shape {:?}, stored is {:?}", print.shape, known.shape)));
        }
        let by = distance(known, print);
        *difference = Some(by);
        // NaN is no match.
        if !matches!(by.partial_cmp(&tolerance), Some(order) if order.is_le()) {
            let percent = |share: f32| share * 100.0;
            return Err(differs(format!("differs by {:.3} %, more than {:.1} %", percent(by), percent(tolerance))));
        }
    }
    Ok(())
}

/// About the root mean square of the difference of two tensors, as a share of that of the first.
fn distance(known: &TensorPrint, print: &TensorPrint) -> f32 {
    let squares = known.projections.iter().zip(&print.projections).map(|(a, b)| f64::from(a - b).powi(2));
    let rms = (squares.sum::<f64>() / known.projections.len() as f64).sqrt();
    (rms / f64::from(known.rms).max(f64::MIN_POSITIVE)) as f32
}

/// A print of the elements of `tensors`, one behind the other.
fn print(tensors: &[Tensor<'static>], engine: &'static str, tensor: &'static str) -> Result<TensorPrint, ModelError> {
    let bad = |what: String| ModelError::Output { engine, tensor, what };
    let (mut sums, mut square, mut count) = ([0f64; PROJECTIONS], 0f64, 0u64);
    for part in tensors {
        let values = part.as_f32().ok_or_else(|| bad("is not of floats".into()))?;
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(bad(format!("holds {} at element {at}", values[at])));
        }
        for value in values {
            let (value, signs) = (f64::from(*value), crate::rng::splitmix(count));
            for (k, sum) in sums.iter_mut().enumerate() {
                *sum += if signs >> (8 * k) & 1 == 1 { value } else { -value };
            }
            square += value * value;
            count += 1;
        }
    }
    let n = (count.max(1) as f64).sqrt();
    let shape = tensors.first().map(|t| t.shape().to_vec()).unwrap_or_default();
    let projections = sums.iter().map(|sum| (sum / n) as f32).collect();
    Ok(TensorPrint { shape, rms: (square.sqrt() / n) as f32, projections })
}

/// Numbers in `-1.0..1.0`, always the same.
fn pattern(count: usize, seed: u64) -> Vec<f32> {
    let mut rng = SceneRng::new(&[seed]);
    (0..count).map(|_| rng.spread(1.0)).collect()
}

/// A picture of noise for an image encoder.
fn pixels(engine: &dyn Engine, name: &'static str) -> Result<Tensor<'static>, ModelError> {
    let info = engine.inputs().iter().find(|i| i.name == "pixel_values");
    let shape: Option<Vec<usize>> = info.and_then(|i| i.shape.iter().copied().collect());
    let what = || "is missing or has no fixed size".to_owned();
    let shape = shape.ok_or_else(|| ModelError::Output { engine: name, tensor: "pixel_values", what: what() })?;
    let count = shape.iter().product();
    Ok(Tensor::f32(&shape, pattern(count, 1)))
}

/// What a language model's vision engine is fed: a picture of noise, or patches of one with what belongs to them.
fn picture(engine: &dyn Engine) -> Result<Vec<(&'static str, Tensor<'static>)>, ModelError> {
    if !engine.inputs().iter().any(|i| i.name == "patch_positions") {
        return Ok(vec![("pixel_values", pixels(engine, "vision")?)]);
    }
    let has = |name: &str| engine.inputs().iter().any(|i| i.name == name);
    let depth = engine.inputs().iter().find(|i| i.name == "pixel_values").and_then(|i| *i.shape.last()?);
    let what = || "is missing or has no fixed depth".to_owned();
    let depth = depth.ok_or_else(|| ModelError::Output { engine: "vision", tensor: "pixel_values", what: what() })?;
    let windows = if has("attention_bias") { 2 } else { 1 };
    let patches = windows * PATCHES;
    let places = (0..2 * patches as i32).map(|i| i % 7).collect::<Vec<_>>();
    let mut inputs = vec![
        ("pixel_values", Tensor::f32(&[windows, PATCHES, depth], pattern(patches * depth, 1))),
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

/// One engine's outputs under their names, and how long it took.
struct Said {
    engine: &'static str,
    since: Instant,
}

impl Said {
    fn by(engine: &'static str) -> Self {
        Self { engine, since: Instant::now() }
    }

    fn note(&self, tensor: &'static str, tensors: &[Tensor<'static>]) -> Result<Tested, ModelError> {
        let (engine, took) = (self.engine, self.since.elapsed());
        Ok(Tested { engine, tensor, print: print(tensors, engine, tensor)?, took, difference: None })
    }
}

/// Runs the language model's engines.
///
/// # Errors
/// An engine that fails, and outputs that are misshapen or not finite.
pub fn run_mllm(engines: &mut MllmEngines) -> Result<Vec<Tested>, ModelError> {
    let mut tested = Vec::new();
    let said = Said::by("vision");
    let names = deepstack(engines.vision.outputs());
    let taps: Vec<&str> = names.iter().map(String::as_str).collect();
    let wanted: Vec<&str> = std::iter::once("image_embeds").chain(taps.iter().copied()).collect();
    let mut seen = engines.vision.run(picture(&*engines.vision)?, &wanted)?;
    let taps = seen.split_off(1.min(seen.len()));
    tested.push(said.note("image_embeds", &seen)?);
    if !taps.is_empty() {
        tested.push(said.note("deepstack", &taps)?);
    }

    let vocabulary = last_dim(&*engines.decoder, "logits")?;
    let count = vocabulary.min(MAX_TOKENS);
    let ids: Vec<i32> = (0..count).map(|i| (i * vocabulary / count) as i32).collect();
    let said = Said::by("embed");
    let ids = Tensor::i32(&[1, count], ids);
    let embeds = exactly::<1>(engines.embed.run(vec![("input_ids", ids)], &["inputs_embeds"])?, "embed")?;
    tested.push(said.note("inputs_embeds", &embeds)?);

    let said = Said::by("decoder");
    let (logits, cache) = converse(&mut *engines.decoder, &embeds[0])?;
    tested.push(said.note("logits", &logits)?);
    tested.push(said.note("cache", &cache)?);
    Ok(tested)
}

/// The decoder on two halves of a conversation of the first embeddings: logits of the second, and its cache.
fn converse(
    decoder: &mut dyn Engine,
    embeds: &Tensor<'static>,
) -> Result<(Vec<Tensor<'static>>, Vec<Tensor<'static>>), ModelError> {
    let layout = KvLayout::of(decoder)?;
    let (axes, taps) = (has_axes(decoder), deepstack(decoder.inputs()));
    let (width, values) = match (embeds.shape(), embeds.as_f32()) {
        ([_, _, width], Some(values)) if *width > 0 => (*width, values),
        (shape, _) => {
            let what = format!("has shape {shape:?}");
            return Err(ModelError::Output { engine: "embed", tensor: "inputs_embeds", what });
        }
    };
    let tokens = CONVERSATION.min(values.len() / width).max(2);
    let half = tokens / 2;
    let mut cache = KvCache::empty(&layout);
    let mut outputs = Vec::new();
    for (past, new) in [(0, half), (half, tokens - half)] {
        let embeds = Tensor::f32(&[1, new, width], values[past * width..(past + new) * width].to_vec());
        let places = past as i32..(past + new) as i32;
        let positions = match axes {
            true => Tensor::i32(&[1, new, 3], places.flat_map(|at| [at, at / 2, at / 3]).collect::<Vec<_>>()),
            false => Tensor::i32(&[1, new], places.collect::<Vec<_>>()),
        };
        let mut inputs = vec![
            ("inputs_embeds", embeds),
            ("position_ids", positions),
            ("attention_bias", Tensor::f32(&[1, 1, new, past + new], branch::causal_bias(new, past))),
            ("logit_indices", Tensor::i32(&[new], (0..new as i32).collect::<Vec<_>>())),
        ];
        inputs.extend(layout.past().iter().map(String::as_str).zip(cache.tensors(&layout)));
        for (i, tap) in taps.iter().enumerate() {
            inputs.push((tap, Tensor::f32(&[1, new, width], pattern(new * width, 3 + i as u64))));
        }
        let mut wanted = vec!["logits"];
        wanted.extend(layout.present().iter().map(String::as_str));
        outputs = decoder.run(inputs, &wanted)?;
        let present = outputs.iter().skip(1).cloned();
        cache = KvCache::from_outputs(&layout, present, past + new)?;
    }
    let cache = outputs.split_off(1);
    Ok((outputs, cache))
}

fn last_dim(engine: &dyn Engine, name: &'static str) -> Result<usize, ModelError> {
    let info = engine.outputs().iter().find(|o| o.name == name);
    let size = info.and_then(|o| o.shape.last().copied().flatten()).filter(|size| *size > 0);
    let what = "is missing or has no fixed size".to_owned();
    size.ok_or(ModelError::Output { engine: "decoder", tensor: name, what })
}

/// Whether mask logits are the same however the embedding went to the decoder, give or take the last bits.
fn same(by_host: &Tensor<'_>, handed: &Tensor<'_>) -> Result<(), ModelError> {
    let (by_host, handed) = (by_host.as_f32().unwrap_or_default(), handed.as_f32().unwrap_or_default());
    let largest = by_host.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
    let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-3 * largest;
    if by_host.len() == handed.len() && by_host.iter().zip(handed).all(close) {
        return Ok(());
    }
    let what = "are others where the embedding does not pass the host".to_owned();
    Err(ModelError::Output { engine: "mask_decoder", tensor: "low_res_masks", what })
}

/// Runs SAM's engines; with the embedding by way of the host and, where it can stay where the encoder computes, without.
///
/// # Errors
/// An engine that fails, and outputs that are misshapen or not finite.
pub fn run_sam(encoder: &mut dyn Engine, decoder: &mut dyn Engine) -> Result<Vec<Tested>, ModelError> {
    let mut tested = Vec::new();
    let said = Said::by("image_encoder");
    let picture = pixels(encoder, "image_encoder")?;
    let side = picture.shape().last().copied().unwrap_or(1) as f32;
    let names = Features::names(encoder);
    let seen = encoder.run(vec![("pixel_values", picture.view())], &names)?;
    for (name, tensor) in names.iter().copied().zip(&seen) {
        tested.push(said.note(name, std::slice::from_ref(tensor))?);
    }
    let features = Features::new(seen)?;
    let [h, w] = features.grid();
    let said = Said::by("mask_decoder");
    // A box with a point on and one off; a point alone; a box with a mask: every kind of prompt that there is.
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
    let inputs = [
        ("point_coords", Tensor::f32(&[3, 4, 2], coords.concat().concat())),
        ("point_labels", Tensor::i32(&[3, 4], labels)),
        ("mask_input", Tensor::f32(&[3, 1, low_h, low_w], masks)),
        ("has_mask_input", Tensor::f32(&[3, 1, 1, 1], vec![0.0, 0.0, 1.0])),
    ];
    let views = || inputs.iter().map(|(name, tensor)| (*name, tensor.view())).collect();
    let wanted = ["low_res_masks", "iou_scores"];
    let [masks, scores] = exactly(features.decode(decoder, views(), &wanted)?, "mask_decoder")?;
    tested.push(said.note("low_res_masks", std::slice::from_ref(&masks))?);
    tested.push(said.note("iou_scores", &[scores])?);
    if encoder.can_hold() {
        let held = Features::held(encoder.run_held(vec![("pixel_values", picture)], &names)?)?;
        let [handed, _] = exactly(held.decode(decoder, views(), &wanted)?, "mask_decoder")?;
        same(&masks, &handed)?;
    }
    Ok(tested)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prints(values: &[f32]) -> TensorPrint {
        print(&[Tensor::f32(&[values.len()], values.to_vec())], "e", "t").expect("is finite")
    }

    #[test]
    fn the_difference_is_what_it_is_give_or_take() {
        let base = pattern(40_000, 7);
        let noise = pattern(40_000, 8);
        for share in [1e-4f32, 1e-2, 0.3] {
            let other: Vec<f32> = base.iter().zip(&noise).map(|(b, n)| b + share * n).collect();
            let by = distance(&prints(&base), &prints(&other));
            assert!((0.4..2.5).contains(&(by / share)), "{share}: {by}");
        }
        assert_eq!(distance(&prints(&base), &prints(&base)), 0.0);
    }

    #[test]
    fn one_element_shows() {
        let base = pattern(10_000, 9);
        let mut other = base.clone();
        other[5_000] += 1.0;
        let by = distance(&prints(&base), &prints(&other));
        // One of 10,000 that is off by the tensor's own size: a hundredth of it, by the root mean square.
        assert!((0.01..0.03).contains(&by), "{by}");
    }

    #[test]
    fn what_is_not_finite_is_an_error() {
        let tensor = Tensor::f32(&[3], vec![0.0, f32::INFINITY, 1.0]);
        let error = print(&[tensor], "vision", "image_embeds").expect_err("is not finite");
        assert!(error.to_string().contains("holds inf at element 1"), "{error}");
    }

    #[test]
    fn stored_outputs_are_needed_for_all_or_for_none() {
        let tested = |tensor| Tested {
            engine: "vision",
            tensor,
            print: prints(&pattern(100, 3)),
            took: Duration::ZERO,
            difference: None,
        };
        let mut both = [tested("a"), tested("b")];
        compare(&mut both, None, TOLERANCE).expect("nothing to hold them against");
        assert_eq!(both[0].difference, None);
        let stored = StoredOutputs::from([("vision.a".to_owned(), both[0].print.clone())]);
        let error = compare(&mut both, Some(&stored), TOLERANCE).expect_err("b is not stored");
        assert_eq!(both[0].difference, Some(0.0));
        assert!(error.to_string().contains("`b`: it is not stored"), "{error}");
    }
}
