//! A language model for tests: attention reduced to "which tokens do you see, in which order", answers by a script.
//!
//! It keeps a real cache and obeys bias and positions; it panics where a place does not see one unbroken
//! conversation, so a wrong mask or position cannot go unnoticed.

use std::sync::{Arc, Mutex};

use super::mllm::{Mllm, MllmEngines, MllmLimits};
use super::sight;
use super::speech::{Speech, read_tokenizer};
use crate::engine::bundle::{self, Filter, Fit, ImageSpec, Resampler};
use crate::engine::{Data, DataType, Engine, EngineError, Tensor, TensorInfo};
use crate::frame::Image;
use crate::geometry::Size;
use crate::prompt::dialect::tests::tabletop_words;
use crate::prompt::{Dialect, DialectError};

/// Image tokens of a frame.
pub(crate) const IMAGE_TOKENS: usize = 4;
/// What an image token of a frame looks like to the script: this plus the frame's first red byte.
pub(crate) const IMAGE_BASE: u32 = 1_000_000;

/// From the visible conversation to logits over the vocabulary.
pub(crate) type Script = Box<dyn FnMut(&[u32]) -> Vec<f32> + Send>;

/// Calls of the engines so far: vision, decoder.
pub(crate) type Calls = Arc<Mutex<(usize, usize)>>;

struct Toy<F> {
    name: &'static str,
    inputs: Vec<TensorInfo>,
    run: F,
}

impl<F> Engine for Toy<F>
where
    F: FnMut(Vec<(&str, Tensor<'_>)>, &[&str]) -> Vec<Tensor<'static>> + Send,
{
    fn name(&self) -> &str {
        self.name
    }
    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }
    fn outputs(&self) -> &[TensorInfo] {
        &[]
    }
    fn run(&mut self, inputs: Vec<(&str, Tensor<'_>)>, wanted: &[&str]) -> Result<Vec<Tensor<'static>>, EngineError> {
        Ok((self.run)(inputs, wanted))
    }
}

fn take<'a>(inputs: &'a [(&str, Tensor<'_>)], name: &str) -> &'a Tensor<'a> {
    &inputs.iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("{name} is fed")).1
}

fn ints<'a>(t: &'a Tensor<'_>) -> &'a [i32] {
    match t.data() {
        Data::I32(v) => v,
        Data::F32(_) | Data::U8(_) => panic!("integers are fed"),
    }
}

fn decoder(mut script: Script, calls: Calls) -> impl FnMut(Vec<(&str, Tensor<'_>)>, &[&str]) -> Vec<Tensor<'static>> {
    move |inputs, wanted| {
        calls.lock().expect("not poisoned").1 += 1;
        let embeds = take(&inputs, "inputs_embeds");
        let (new, past) = (embeds.shape()[1], take(&inputs, "past_key.0").shape()[2]);
        // Two heads of size one: the key's first head is the token, the value's first head its position.
        let [old_tokens, old_places] =
            ["past_key.0", "past_value.0"].map(|n| take(&inputs, n).as_f32().expect("floats")[..past].to_vec());
        let tokens: Vec<f32> =
            old_tokens.into_iter().chain(embeds.as_f32().expect("floats").iter().step_by(2).copied()).collect();
        let places: Vec<f32> =
            old_places.into_iter().chain(ints(take(&inputs, "position_ids")).iter().map(|p| *p as f32)).collect();
        let bias = take(&inputs, "attention_bias");
        assert_eq!(bias.shape(), [1, 1, new, past + new]);
        let bias = bias.as_f32().expect("floats");
        let seen = |row: usize| -> Vec<u32> {
            let row = &bias[row * (past + new)..][..past + new];
            let mut seen: Vec<(f32, f32)> =
                (0..row.len()).filter(|i| row[*i] == 0.0).map(|i| (places[i], tokens[i])).collect();
            seen.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(
                seen.iter().enumerate().all(|(i, (place, _))| *place == i as f32),
                "unbroken conversation: {seen:?}"
            );
            seen.into_iter().map(|(_, token)| token as u32).collect()
        };
        let indices = ints(take(&inputs, "logit_indices")).to_vec();
        let present = |first: &[f32]| {
            let second = vec![0.0; first.len()];
            Tensor::f32(&[1, 2, past + new, 1], [first, &second].concat())
        };
        let mut give = |name: &str| match name {
            "logits" => {
                let rows: Vec<Vec<f32>> = indices.iter().map(|i| script(&seen(*i as usize))).collect();
                Tensor::f32(&[1, rows.len(), rows[0].len()], rows.concat())
            }
            "present_key.0" => present(&tokens),
            "present_value.0" => present(&places),
            _ => panic!("{name} is no output"),
        };
        wanted.iter().map(|name| give(name)).collect()
    }
}

/// The words of the toy's vocabulary after its special tokens and numbers.
const WORDS: &str =
    "find exactly one or more none : the red green mug all cups which points are on ? [ ] , ( ) 1 0 no such object yes";

/// `tokenizer.json` of the tabletop kind: words, signs, numbers of three digits.
pub(crate) fn tokenizer_json() -> String {
    let special = ["<pad>", "<unk>", "<s>", "</s>", "<image>", "<user>", "<assistant>"];
    let numbers: Vec<String> = (0..1000).map(|n| format!("{n:03}")).collect();
    let words = special.into_iter().chain(numbers.iter().map(String::as_str)).chain(WORDS.split(' '));
    let vocab: serde_json::Map<_, _> = words.enumerate().map(|(i, w)| (w.to_owned(), i.into())).collect();
    let added: Vec<_> = special
        .iter()
        .enumerate()
        .map(|(id, content)| {
            serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"}, {"type": "Punctuation", "behavior": "Isolated"}]},
        "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}
    })
    .to_string()
}

/// The token that stands for `text`.
pub(crate) fn token(speech: &Speech, text: &str) -> u32 {
    let says = |token: &u32| speech.text(&[*token]).expect("is text") == text;
    (0..vocabulary() as u32).find(says).expect("is in the vocabulary")
}

/// Tokens in the toy's vocabulary.
pub(crate) fn vocabulary() -> usize {
    7 + 1000 + WORDS.split(' ').count()
}

pub(crate) fn speech(change: impl FnOnce(&mut bundle::Dialect)) -> Speech {
    try_speech(change).expect("fits the tokenizer")
}

pub(crate) fn try_speech(change: impl FnOnce(&mut bundle::Dialect)) -> Result<Speech, DialectError> {
    let mut words = tabletop_words();
    change(&mut words);
    speech_of(&tokenizer_json(), &words)
}

/// The same with a tokenizer of its own.
pub(crate) fn speech_of(tokenizer_json: &str, words: &bundle::Dialect) -> Result<Speech, DialectError> {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("tokenizer.json");
    std::fs::write(&file, tokenizer_json).expect("writable");
    Speech::new(read_tokenizer(&file)?, Dialect::compile(words).expect("valid"), 4)
}

/// The toy with a script for its answers, which are cut off after 24 tokens.
pub(crate) fn mllm(speech: Speech, script: Script) -> (Mllm, Calls) {
    mllm_of(speech, script, 24)
}

/// The toy with a script for its answers and their longest length in tokens.
pub(crate) fn mllm_of(speech: Speech, script: Script, max_answer_tokens: usize) -> (Mllm, Calls) {
    let calls = Calls::default();
    let cache = |name: &str| TensorInfo {
        name: name.into(),
        data_type: DataType::F32,
        shape: vec![Some(1), Some(2), None, Some(1)],
    };
    let embeds =
        TensorInfo { name: "inputs_embeds".into(), data_type: DataType::F32, shape: vec![Some(1), None, Some(2)] };
    let counted = calls.clone();
    let vision = move |inputs: Vec<(&str, Tensor<'_>)>, _: &[&str]| {
        counted.lock().expect("not poisoned").0 += 1;
        let red = (inputs[0].1.as_f32().expect("floats")[0] * 255.0).round();
        vec![Tensor::f32(&[1, IMAGE_TOKENS, 2], [IMAGE_BASE as f32 + red, 0.0].repeat(IMAGE_TOKENS))]
    };
    let embed = |inputs: Vec<(&str, Tensor<'_>)>, _: &[&str]| {
        let ids = ints(&inputs[0].1);
        vec![Tensor::f32(&[1, ids.len(), 2], ids.iter().flat_map(|id| [*id as f32, 0.0]).collect::<Vec<_>>())]
    };
    let engines = MllmEngines {
        vision: Box::new(Toy { name: "vision", inputs: vec![], run: vision }),
        embed: Box::new(Toy { name: "embed", inputs: vec![], run: embed }),
        decoder: Box::new(Toy {
            name: "decoder",
            inputs: vec![embeds, cache("past_key.0"), cache("past_value.0")],
            run: decoder(script, calls.clone()),
        }),
    };
    let spec = ImageSpec {
        fit: Fit::Squash,
        width: 16,
        height: 16,
        filter: Filter::Bilinear,
        resampler: Resampler::Torchvision,
        mean: [0.0; 3],
        std: [1.0; 3],
    };
    let limits = MllmLimits { max_answer_tokens, max_positions: 4096 };
    (Mllm::new(engines, sight::square(&spec), speech, limits).expect("has a cache"), calls)
}

/// A frame of one colour.
pub(crate) fn frame(red: u8) -> Image {
    Image::from_rgb(Size::new(32, 24), [red, 0, 0].repeat(32 * 24)).expect("sizes match")
}

/// Logits that hang on every token of the conversation and on nothing else.
pub(crate) fn hashed(seen: &[u32]) -> Vec<f32> {
    let mut state = seen
        .iter()
        .fold(0x9E37_79B9_7F4A_7C15u64, |h, t| (h ^ u64::from(*t)).wrapping_mul(0x0100_0000_01B3).rotate_left(23));
    (0..vocabulary())
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u32 << 22) as f32
        })
        .collect()
}
