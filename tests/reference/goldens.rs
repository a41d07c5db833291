//! Imported checkpoints against `transformers`: the goldens beside this file, made by `make_goldens.py`.
//!
//! Every comparison prints max |a - b| / max |b| and must be at most 1e-3.

// A test fails by panicking, and these print what they measured.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod fronts;
mod metrics;
mod recorded;
mod segmenters;

use std::path::Path;

use recorded::{Goldens, near, reference};
use sam4mllm::engine::rten::{RtenEngine, RtenOptions};
use sam4mllm::engine::{Engine, Tensor};
use sam4mllm::import::{Adapter, AdapterMode, Level, import, import_adapted};
use tempfile::TempDir;

/// Added to the score of a position that must not be looked at.
const BLOCKED: f32 = -1e9;

impl Goldens {
    fn open(name: &'static str) -> Self {
        Self::read_from(name, name)
    }

    fn f32(&self, key: &str) -> Tensor<'static> {
        let (shape, values) = self.floats(key);
        Tensor::f32(&shape, values)
    }

    /// Compares with the golden tensor `key`.
    fn check(&self, key: &str, found: &Tensor<'_>, what: &str) {
        let wanted = self.f32(key);
        let elements = |t: &Tensor<'_>| t.shape().iter().product::<usize>();
        assert_eq!(elements(found), elements(&wanted), "{} {key}: {:?} {:?}", self.name, found.shape(), wanted.shape());
        near(&format!("{} {key} {what}", self.name), floats(found), floats(&wanted));
    }
}

fn floats<'t>(tensor: &'t Tensor<'_>) -> &'t [f32] {
    tensor.as_f32().expect("the tensor is float")
}

fn load(dir: &Path, graph: &str) -> RtenEngine {
    RtenEngine::load(dir.join(format!("{graph}.onnx")), &RtenOptions::default()).unwrap()
}

/// The graphs of a language model, and a conversation's cache.
struct Mllm {
    vision: RtenEngine,
    embed: RtenEngine,
    decoder: RtenEngine,
    layers: usize,
    heads: usize,
    width: usize,
    past: Vec<Tensor<'static>>,
    positions: usize,
    _dir: TempDir,
}

impl Mllm {
    fn import(name: &str) -> Self {
        Self::import_from(&reference("checkpoints").join(name))
    }

    fn import_from(checkpoint: &Path) -> Self {
        Self::import_adapted(checkpoint, None)
    }

    fn import_adapted(checkpoint: &Path, adapter: Option<Adapter<'_>>) -> Self {
        let dir = TempDir::new().unwrap();
        let report = import_adapted(checkpoint, adapter, dir.path(), Level::Portable).unwrap();
        println!("{report:?}");
        let decoder = load(dir.path(), "decoder");
        let past: Vec<_> = decoder.inputs().iter().filter(|info| info.name.starts_with("past_")).collect();
        let (layers, heads, width) = (past.len() / 2, past[0].shape[1].unwrap(), past[0].shape[3].unwrap());
        let (vision, embed) = (load(dir.path(), "vision"), load(dir.path(), "embed"));
        let mut mllm = Self { vision, embed, decoder, layers, heads, width, past: Vec::new(), positions: 0, _dir: dir };
        mllm.forget();
        mllm
    }

    fn forget(&mut self) {
        self.positions = 0;
        self.past = (0..2 * self.layers).map(|_| Tensor::f32(&[1, self.heads, 0, self.width], vec![])).collect();
    }

    fn see(&mut self, pixels: Tensor<'_>) -> Tensor<'static> {
        self.vision.run(vec![("pixel_values", pixels)], &["image_embeds"]).unwrap().remove(0)
    }

    fn embed(&mut self, ids: &[i32]) -> Vec<f32> {
        let ids = Tensor::i32(&[1, ids.len()], ids);
        self.embed.run(vec![("input_ids", ids)], &["inputs_embeds"]).unwrap().remove(0).into_f32().unwrap()
    }

    /// Embeds a prompt and puts the image in place of its tokens.
    fn prompt(&mut self, ids: &[i32], image: &Tensor<'_>, image_token: i32) -> Vec<f32> {
        let width = image.shape()[2];
        let mut embeds = self.embed(ids);
        let places = ids.iter().enumerate().filter(|(_, id)| **id == image_token).map(|(place, _)| place);
        for (place, row) in places.zip(floats(image).chunks(width)) {
            embeds[place * width..][..width].copy_from_slice(row);
        }
        embeds
    }

    /// One pass over `embeds`, appended to the cache; position `i` looks at what `looks(i, j)` allows, where `j`
    /// counts from the start of the cache. Gives the logits of all positions.
    fn pass(
        &mut self,
        embeds: Vec<f32>,
        position_ids: &[i32],
        looks: impl Fn(usize, usize) -> bool,
    ) -> Tensor<'static> {
        let (count, before) = (position_ids.len(), self.positions);
        let total = before + count;
        let bias: Vec<f32> = (0..count)
            .flat_map(|i| (0..total).map(move |j| (i, j)))
            .map(|(i, j)| if looks(i, j) { 0.0 } else { BLOCKED })
            .collect();
        let hidden = embeds.len() / count;
        let indices: Vec<i32> = (0..count as i32).collect();
        let names = |kind: &str| {
            let both = |i| [format!("{kind}_key.{i}"), format!("{kind}_value.{i}")];
            (0..self.layers).flat_map(both).collect::<Vec<_>>()
        };
        let (past, present) = (names("past"), names("present"));
        let mut inputs = vec![
            ("inputs_embeds", Tensor::f32(&[1, count, hidden], embeds)),
            ("position_ids", Tensor::i32(&[1, count], position_ids)),
            ("attention_bias", Tensor::f32(&[1, 1, count, total], bias)),
            ("logit_indices", Tensor::i32(&[count], indices)),
        ];
        inputs.extend(past.iter().map(String::as_str).zip(self.past.drain(..)));
        let mut outputs = vec!["logits"];
        outputs.extend(present.iter().map(String::as_str));
        let mut results = self.decoder.run(inputs, &outputs).unwrap();
        self.past = results.split_off(1);
        self.positions = total;
        results.remove(0)
    }

    /// A plain causal pass.
    fn say(&mut self, embeds: Vec<f32>, count: usize) -> Tensor<'static> {
        let before = self.positions;
        let positions: Vec<i32> = (before..before + count).map(|p| p as i32).collect();
        self.pass(embeds, &positions, |i, j| j <= before + i)
    }
}

fn check_mllm(name: &'static str) {
    const IMAGE_TOKEN: i32 = 4;
    let goldens = Goldens::open(name);
    let mut mllm = Mllm::import(name);
    let image = mllm.see(goldens.f32("pixel_values"));
    goldens.check("image_embeds", &image, "");

    let (_, ids) = goldens.integers("input_ids");
    let prompt = mllm.prompt(&ids, &image, IMAGE_TOKEN);
    let logits = mllm.say(prompt.clone(), ids.len());
    goldens.check("logits", &logits, "prefill");

    // Greedy, one token at a time on the cache.
    let (_, greedy) = goldens.integers("greedy");
    let mut last = floats(&logits)[floats(&logits).len() - logits.shape()[2]..].to_vec();
    let mut said = Vec::new();
    let mut said_logits = Vec::new();
    for _ in 0..greedy.len() {
        last[IMAGE_TOKEN as usize] = f32::NEG_INFINITY;
        let best = (0..last.len()).max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap() as i32;
        said.push(best);
        let embeds = mllm.embed(&[best]);
        last = mllm.say(embeds, 1).into_f32().unwrap();
        said_logits.extend_from_slice(&last);
    }
    assert_eq!(said, greedy, "{name}: greedy answer");
    goldens.check("greedy_logits", &Tensor::f32(&[1, greedy.len(), last.len()], said_logits.clone()), "cached");

    // The same in one pass.
    mllm.forget();
    let whole: Vec<f32> = prompt.iter().copied().chain(mllm.embed(&greedy)).collect();
    let full = mllm.say(whole, ids.len() + greedy.len());
    let tail = floats(&full).len() - said_logits.len();
    near(&format!("{name} cached decoding against a full pass"), &said_logits, &floats(&full)[tail..]);

    // Both branches behind one prompt in one pass, neither seeing the other.
    mllm.forget();
    let prefix = ids.len();
    mllm.say(prompt, prefix);
    let (shape, branches) = goldens.integers("branches");
    let (count, length) = (shape[0], shape[1]);
    let positions: Vec<i32> = (0..count * length).map(|i| (prefix + i % length) as i32).collect();
    let embeds = mllm.embed(&branches);
    let logits =
        mllm.pass(embeds, &positions, |i, j| j < prefix || ((j - prefix) / length == i / length && j - prefix <= i));
    goldens.check("branch_logits", &logits, "in one pass");
}

#[test]
fn llava_with_siglip_grouped_queries_and_a_tied_head_in_shards() {
    check_mllm("llava-siglip");
}

#[test]
fn llava_with_clip_two_feature_layers_biases_and_scaled_rotations() {
    check_mllm("llava-clip");
}

/// An adapter of `make_adapter_goldens.py`, merged and kept, against `peft`.
fn check_adapter(name: &'static str, goldens: &'static str, checkpoint: &str) {
    const IMAGE_TOKEN: i32 = 4;
    let goldens = Goldens::open(goldens);
    let (checkpoint, adapter) = (reference("checkpoints").join(checkpoint), reference("adapters").join(name));
    let logits_of = |adapter: Option<Adapter<'_>>, what: &str| {
        let mut mllm = Mllm::import_adapted(&checkpoint, adapter);
        let image = mllm.see(goldens.f32("pixel_values"));
        if adapter.is_some() {
            goldens.check("image_embeds", &image, what);
        }
        let (_, ids) = goldens.integers("input_ids");
        let prompt = mllm.prompt(&ids, &image, IMAGE_TOKEN);
        mllm.say(prompt, ids.len())
    };
    goldens.check("base_logits", &logits_of(None, ""), "without the adapter");
    let [merged, kept] = [(AdapterMode::Merge, "merged"), (AdapterMode::Keep, "kept")].map(|(mode, what)| {
        let logits = logits_of(Some(Adapter { dir: &adapter, mode }), what);
        goldens.check("logits", &logits, what);
        logits
    });
    near(&format!("{name} merged against kept"), floats(&merged), floats(&kept));
}

#[test]
fn adapter_of_the_papers_recipe_on_a_tied_checkpoint_in_shards() {
    check_adapter("plain", "adapter-plain", "llava-siglip");
}

#[test]
fn adapter_with_patterns_tower_and_head_in_half_precision_under_older_names() {
    check_adapter("patterns", "adapter-patterns", "llava-clip");
}

/// The graphs of SAM.
struct Sam {
    encoder: RtenEngine,
    decoder: RtenEngine,
    _dir: TempDir,
}

impl Sam {
    fn import() -> Self {
        let dir = TempDir::new().unwrap();
        let report = import(reference("checkpoints/sam"), dir.path(), Level::Portable).unwrap();
        println!("{report:?}");
        let (encoder, decoder) = (load(dir.path(), "image_encoder"), load(dir.path(), "mask_decoder"));
        Self { encoder, decoder, _dir: dir }
    }

    fn encode(&mut self, pixels: Tensor<'_>) -> Tensor<'static> {
        self.encode_levels(pixels, &["image_embedding"]).remove(0)
    }

    fn encode_levels(&mut self, pixels: Tensor<'_>, names: &[&str]) -> Vec<Tensor<'static>> {
        self.encoder.run(vec![("pixel_values", pixels)], names).unwrap()
    }

    /// Masks and scores of a batch of prompts: `points[b]` are (x, y, label).
    fn decode(
        &mut self,
        embedding: &Tensor<'_>,
        points: &[Vec<(f32, f32, i32)>],
        mask: Option<&[f32]>,
    ) -> Vec<Tensor<'static>> {
        self.decode_levels(vec![("image_embedding", embedding.view())], points, mask)
    }

    /// The same of an embedding, which comes first, with its finer levels.
    fn decode_levels(
        &mut self,
        mut inputs: Vec<(&str, Tensor<'_>)>,
        points: &[Vec<(f32, f32, i32)>],
        mask: Option<&[f32]>,
    ) -> Vec<Tensor<'static>> {
        let (batch, count, fine) = (points.len(), points[0].len(), 4 * inputs[0].1.shape()[2]);
        let coords: Vec<f32> = points.iter().flatten().flat_map(|&(x, y, _)| [x, y]).collect();
        let labels: Vec<i32> = points.iter().flatten().map(|&(_, _, label)| label).collect();
        let flag = if mask.is_some() { 1.0 } else { 0.0 };
        let mask = mask.map_or_else(|| vec![0.0; batch * fine * fine], <[f32]>::to_vec);
        inputs.extend([
            ("point_coords", Tensor::f32(&[batch, count, 2], coords)),
            ("point_labels", Tensor::i32(&[batch, count], labels)),
            ("mask_input", Tensor::f32(&[batch, 1, fine, fine], mask)),
            ("has_mask_input", Tensor::f32(&[batch, 1, 1, 1], vec![flag; batch])),
        ]);
        self.decoder.run(inputs, &["low_res_masks", "iou_scores"]).unwrap()
    }
}

/// Compares a decoder's outputs, `[B, 4, ..]`, with the single mask and the three of the multimask output.
fn check_masks(goldens: &Goldens, case: &str, outputs: &[Tensor<'static>]) {
    for (output, kind) in outputs.iter().zip(["masks", "scores"]) {
        let batch = output.shape()[0];
        let each: usize = output.shape()[2..].iter().product();
        let rows: Vec<&[f32]> = floats(output).chunks(each).collect();
        let select = |keep: fn(usize) -> bool| -> Vec<f32> {
            let kept = rows.iter().enumerate().filter(|(i, _)| keep(i % 4));
            kept.flat_map(|(_, row)| row.iter().copied()).collect()
        };
        let (single, multi) = (select(|i| i == 0), select(|i| i > 0));
        goldens.check(&format!("{case}.single.{kind}"), &Tensor::f32(&[batch, single.len() / batch], single), "");
        goldens.check(&format!("{case}.multi.{kind}"), &Tensor::f32(&[batch, multi.len() / batch], multi), "");
    }
}

/// The corners of box `b` as points of a prompt: x, y, label.
fn corners(boxes: &[f32], b: usize) -> Vec<(f32, f32, i32)> {
    let c = &boxes[b * 4..][..4];
    vec![(c[0], c[1], 2), (c[2], c[3], 3)]
}

/// The three points of prompt `b`.
fn given((points, labels): (&[f32], &[i32]), b: usize) -> Vec<(f32, f32, i32)> {
    let rows = points[b * 6..][..6].chunks(2);
    rows.zip(&labels[b * 3..]).map(|(p, &label)| (p[0], p[1], label)).collect()
}

#[test]
fn sam_with_every_kind_of_prompt() {
    let goldens = Goldens::open("sam");
    let mut sam = Sam::import();
    let embedding = sam.encode(goldens.f32("pixel_values"));
    goldens.check("image_embedding", &embedding, "");

    let (boxes, points, mask) = (goldens.f32("boxes"), goldens.f32("points"), goldens.f32("mask"));
    let (_, labels) = goldens.integers("labels");
    let corners = |b: usize| corners(floats(&boxes), b);
    let given = |b: usize| given((floats(&points), &labels), b);
    let padding = vec![(0.0, 0.0, -1)];

    let only_boxes = [corners(0), corners(1)];
    let both = [[given(0), corners(0)].concat(), [given(1), corners(1)].concat()];
    let only_points = [[given(0), padding.clone()].concat(), [given(1), padding].concat()];
    check_masks(&goldens, "box", &sam.decode(&embedding, &only_boxes, None));
    check_masks(&goldens, "box_points", &sam.decode(&embedding, &both, None));
    check_masks(&goldens, "points", &sam.decode(&embedding, &only_points, None));
    check_masks(&goldens, "mask", &sam.decode(&embedding, &only_boxes, Some(floats(&mask))));

    // A batch is nothing but its prompts one by one.
    let together = sam.decode(&embedding, &both, None);
    let alone = [sam.decode(&embedding, &both[..1], None), sam.decode(&embedding, &both[1..], None)];
    for (i, output) in together.iter().enumerate() {
        let joined: Vec<f32> = alone.iter().flat_map(|one| floats(&one[i]).to_vec()).collect();
        near("sam batch against one by one", floats(output), &joined);
    }
}
