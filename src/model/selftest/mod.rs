//! The self-test: every engine runs on a fixed input, and its outputs are held against those that the bundle stores.
//!
//! A wrong file is found by its hash; what is left is arithmetic: a driver, a compiled kernel, a graph that was imported
//! otherwise, a precision that overflows. What is stored of a tensor is its shape, its root mean square and eight sums
//! of all its elements with random signs. A difference between two tensors changes each sum by about its own size
//! (Johnson and Lindenstrauss), so that the eight tell how large it is, give or take a quarter, wherever it is: no single
//! element can be wrong unseen, and none decides alone. Inputs use every path of the graphs: all kinds of prompts, a
//! second pass behind a cache, the whole vocabulary through the logits.

pub(super) mod inputs;

use std::time::{Duration, Instant};

use super::kv::{KvCache, KvLayout};
use super::mllm::MllmEngines;
use super::sam::Features;
use super::sight::deepstack;
use super::{ModelError, exactly};
use crate::engine::bundle::{StoredOutputs, TensorPrint};
use crate::engine::{Engine, Tensor};

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
        "hold engine `{engine}` against its stored output `{tensor}`: it {what}. The weights, the import, the \
         test's input or this machine's arithmetic changed; where that was meant, `sam4mllm engine seal BUNDLE` stores the outputs anew"
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

/// Runs the language model's engines; that of vision takes bytes, as [`on_bytes`](super::on_bytes) has it do.
///
/// # Errors
/// An engine that fails, and outputs that are misshapen or not finite.
pub fn run_mllm(engines: &mut MllmEngines) -> Result<Vec<Tested>, ModelError> {
    let mut tested = Vec::new();
    let said = Said::by("vision");
    let names = deepstack(engines.vision.outputs());
    let taps: Vec<&str> = names.iter().map(String::as_str).collect();
    let wanted: Vec<&str> = std::iter::once("image_embeds").chain(taps.iter().copied()).collect();
    let mut seen = engines.vision.run(inputs::picture(&*engines.vision)?, &wanted)?;
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
        let given = inputs::pass(decoder, embeds, past);
        let mut inputs: Vec<_> = given.iter().map(|(name, tensor)| (name.as_str(), tensor.view())).collect();
        inputs.extend(layout.past().iter().map(String::as_str).zip(cache.tensors(&layout)));
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

/// Runs SAM's engines; with the embedding by way of the host and, where it can stay where the encoder computes, without. The
/// encoder takes bytes, as [`on_bytes`](super::on_bytes) has it do.
///
/// # Errors
/// An engine that fails, and outputs that are misshapen or not finite.
pub fn run_sam(encoder: &mut dyn Engine, decoder: &mut dyn Engine) -> Result<Vec<Tested>, ModelError> {
    let mut tested = Vec::new();
    let said = Said::by("image_encoder");
    let picture = inputs::pixels(encoder, "image_encoder")?;
    let side = picture[0].1.shape()[2] as f32;
    let names = Features::names(encoder);
    let seen = encoder.run(picture.clone(), &names)?;
    for (name, tensor) in names.iter().copied().zip(&seen) {
        tested.push(said.note(name, std::slice::from_ref(tensor))?);
    }
    let features = Features::new(seen)?;
    let [h, w] = features.grid();
    let said = Said::by("mask_decoder");
    let inputs = inputs::prompts(side, [h, w]);
    let views = || inputs.iter().map(|(name, tensor)| (*name, tensor.view())).collect();
    let wanted = ["low_res_masks", "iou_scores"];
    let [masks, scores] = exactly(features.decode(decoder, views(), &wanted)?, "mask_decoder")?;
    tested.push(said.note("low_res_masks", std::slice::from_ref(&masks))?);
    tested.push(said.note("iou_scores", &[scores])?);
    if encoder.can_hold() {
        let held = Features::held(encoder.run_held(picture, &names)?)?;
        let [handed, _] = exactly(held.decode(decoder, views(), &wanted)?, "mask_decoder")?;
        same(&masks, &handed)?;
    }
    Ok(tested)
}

#[cfg(test)]
mod tests {
    use super::inputs::pattern;
    use super::*;
    use crate::engine::fake::FakeEngine;

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
    fn an_engine_that_takes_floats_is_told_to_need_a_front() {
        let engine = |name| FakeEngine::new(name, |_, _| Ok(Vec::new()));
        let error = run_sam(&mut engine("image_encoder"), &mut engine("mask_decoder")).expect_err("takes no bytes");
        assert!(error.to_string().contains("needs a front, as `model::on_bytes` makes it"), "{error}");
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
