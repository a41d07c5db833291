//! `bundle.toml`: what may stand in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::calibrate::Calibration;
use super::dialects::{Coordinates, Json, Strategy};
use super::outputs::StoredOutputs;
use super::{BundleError, BundleErrorKind, MANIFEST};

/// A whole `bundle.toml`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this file format: 1.
    pub format: u32,
    /// The bundle's name; not empty.
    pub name: String,
    /// The bundle's own version; not empty.
    pub version: String,
    /// SPDX licence expression of the weights; not empty.
    pub licence: String,
    /// What it is, for people.
    #[serde(default)]
    pub description: String,
    /// The multimodal language model.
    pub mllm: Mllm,
    /// The segmenter.
    pub sam: Sam,
    /// How the language model was taught to speak.
    pub dialect: Dialect,
    /// Every file of the bundle by its path relative to the manifest, with `/` between components.
    #[serde(default)]
    pub files: BTreeMap<String, FileEntry>,
    /// What the engines say to the self-test's input; `sam4mllm engine seal` stores it. Default: nothing, then only shape
    /// and finiteness are tested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selftest: Option<StoredOutputs>,
    /// Evaluation figures, free-form; shown, never used.
    #[serde(default)]
    pub eval: toml::Table,
}

/// The multimodal language model of a bundle.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Mllm {
    /// A Hugging Face checkpoint directory, relative to the manifest.
    pub directory: String,
    /// Its `transformers` class, e.g. `LlavaForConditionalGeneration`.
    pub class: String,
    /// Longest answer that is decoded, in tokens. Range: 1..=4096.
    pub max_answer_tokens: usize,
    /// The directory of a LoRA adapter that `peft` saved, relative to the manifest. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// What becomes of the adapter. Default: merge.
    #[serde(default)]
    pub adapter_mode: AdapterMode,
    /// What its vision tower is fed, for classes that see one square. Default: what the checkpoint's own
    /// `preprocessor_config.json` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSpec>,
}

/// What becomes of a LoRA adapter when its base is imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum AdapterMode {
    /// Added to the weights: nothing to compute more, but the changed matrices are written out as 32-bit float.
    #[default]
    Merge,
    /// Computed beside them, as two thin products: nothing is written, each tuned layer costs a little more.
    Keep,
}

/// The segmenter of a bundle.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Sam {
    /// A Hugging Face checkpoint directory, relative to the manifest.
    pub directory: String,
    /// Its `transformers` class, e.g. `SamModel`.
    pub class: String,
    /// What its image encoder is fed.
    pub image: ImageSpec,
    /// How near it looks at a boxed object. Default: it sees the whole frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zoom: Option<Zoom>,
}

/// A segmenter with few image tokens sees a small object in one or two of them. With a zoom it is shown the square around
/// a prompt's box instead of the whole frame: more of its tokens, and one pass of the image encoder for each such square.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Zoom {
    /// Side of the square, in longer sides of the box. Range: 1.0..=16.0.
    pub factor: f32,
    /// Least side of the square, in source pixels. Default: 32. Range: 1..=4096.
    #[serde(default = "Zoom::default_least_side")]
    pub least_side: u32,
}

/// How a frame becomes a model input: `u8[h, w, 3]` RGB → `f32[1, 3, height, width]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSpec {
    /// How the frame's aspect ratio is treated.
    pub fit: Fit,
    /// Width of the model input in pixels. Range: 16..=4096.
    pub width: u32,
    /// Height of the model input in pixels. Range: 16..=4096.
    pub height: u32,
    /// Resampling filter, antialiased as in PIL.
    pub filter: Filter,
    /// Whose bytes resizing gives. Default: torchvision.
    #[serde(default)]
    pub resampler: Resampler,
    /// Subtracted from each channel (R, G, B) after scaling to `0.0..=1.0`. Range: 0.0..=1.0.
    #[serde(deserialize_with = "exactly")]
    pub mean: [f32; 3],
    /// Each channel is then divided by this. Range: above 0.0, up to 10.0.
    #[serde(deserialize_with = "exactly")]
    pub std: [f32; 3],
}

/// How a frame's aspect ratio is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// Both axes are scaled to fill the input.
    Squash,
    /// The longest side is scaled to fit; right and bottom are padded with 0 after normalising.
    Letterbox,
}

/// A resampling filter, antialiased as in PIL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// Triangle of support 1.
    Bilinear,
    /// Cubic with a = -0.5, support 2.
    Bicubic,
}

/// Whose bytes resizing gives. The two are at most one level of 255 apart, in one byte of a few hundred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Resampler {
    /// Those of torch's `interpolate` with antialiasing, weights of 16 bits: `SamImageProcessor` and
    /// `Sam2ImageProcessor`, which resize with torchvision, and the recipe of `engines/train`.
    #[default]
    Torchvision,
    /// Those of Pillow, weights of 22 bits: `SamImageProcessorPil`, and the code of SAM's authors and of EfficientViT-SAM
    /// and MobileSAM. Takes a few times as long.
    Pillow,
}

/// Query templates, answer grammar and thresholds.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Dialect {
    /// What coordinates count. Default: relative.
    #[serde(default)]
    pub coordinates: Coordinates,
    /// Largest coordinate. Of relative ones, 0 and this are the image's edges; where pixels are counted, no side of the
    /// model's input may be longer. Range: 1..10^coordinate_digits.
    pub coordinate_scale: u32,
    /// Digits that a coordinate is padded to; in JSON it is not, and has at most so many. Range: 1..=5.
    pub coordinate_digits: u32,
    /// How the prompt is got where nobody asks for another strategy. Default: pqpp.
    #[serde(default)]
    pub strategy: Strategy,
    /// Whether the checkpoint's own chat template writes the conversation around what is said: then the queries are what
    /// the user says and no more, and `prefix` is not given. Default: no.
    #[serde(default)]
    pub chat: bool,
    /// What every conversation on a frame begins with; its KV cache is shared.
    #[serde(default)]
    pub prefix: String,
    /// `{hint}` where exactly one target is asked for.
    pub hint_one: String,
    /// `{hint}` where one or more are.
    pub hint_one_or_more: String,
    /// `{hint}` where nothing is known.
    pub hint_none_or_more: String,
    /// The round-1 query; holds `{command}` once and may hold `{hint}` once.
    pub proposal_query: String,
    /// Answers of round 1 are JSON. Default: boxes one behind the other, each as `box` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Json>,
    /// How a box is written: `{x1}`, `{y1}`, `{x2}`, `{y2}`, each once. With `json` only in the queries of round 2.
    #[serde(rename = "box")]
    pub bbox: String,
    /// What stands between boxes that are only counted up to the one that is meant, as in `[..], [..]` for "the second
    /// from the left": the last box is the target. Default: answers do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count_on: Option<String>,
    /// The round-1 answer where there is no such object. Not given with `json`, where it is the empty list.
    #[serde(default)]
    pub absent_answer: String,
    /// The token that ends an answer.
    pub end_of_answer: String,
    /// The round-2 query; holds `{points}` once and may hold `{box}` once.
    pub points_query: String,
    /// How a point is written: `{x}` and `{y}`, each once.
    pub point: String,
    /// Points asked about in one query. Range: 1..=64.
    pub points_per_question: usize,
    /// The answer for a point on the object.
    pub yes: String,
    /// The answer for a point off it.
    pub no: String,
    /// Whether the round-1 answer is held to what can be read: of each step the likeliest token with which it still can
    /// is said. For checkpoints that were not taught the dialect. Default: no.
    #[serde(default)]
    pub constrained: bool,
    /// Columns and rows of candidates over a proposal. Range of each: 1..=32.
    #[serde(deserialize_with = "exactly")]
    pub grid: [usize; 2],
    /// Whether candidates form that grid or the fixed pattern of 15. Default: grid.
    #[serde(default)]
    pub candidates: Layout,
    /// From probabilities to verdicts.
    pub thresholds: Thresholds,
    /// How PPG is spoken. Default: not at all, the model was not taught it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ppg: Option<Ppg>,
    /// What a confidence is worth; `sam4mllm eval --fit --write` measures it. Default: what it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
}

/// How candidates are laid over a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Columns and rows.
    #[default]
    Grid,
    /// 15 points of one fixed pattern of blue noise.
    BlueNoise,
}

/// PPG, boxes and points in one answer; everything else is as in [`Dialect`].
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Ppg {
    /// The query; holds `{command}` once and may hold `{hint}` once.
    pub query: String,
    /// How a point is written after its box: `{x}`, `{y}` and `{label}`, each once.
    pub point: String,
    /// `{label}` of a point on the object.
    pub on: String,
    /// `{label}` of a point off it.
    pub off: String,
    /// Points on the object in a group; they come first. Default: 2. Range: 1..=16.
    #[serde(default = "Ppg::default_positives")]
    pub positives: usize,
    /// Points off the object in a group. Default: 1. Range: 0..=16.
    #[serde(default = "Ppg::default_negatives")]
    pub negatives: usize,
    /// Groups of a target. Default: 1. Range: 1..=16.
    #[serde(default = "Ppg::default_groups")]
    pub groups: usize,
}

/// From probabilities to verdicts; each `0.0..=1.0`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// Found, from this probability on that the answer's first token starts a box.
    pub found: f32,
    /// Absent, from this probability on that it starts the absent answer.
    pub absent: f32,
    /// A positive point above this p(yes).
    pub positive: f32,
    /// A negative point above this p(no).
    pub negative: f32,
    /// Unsure below this predicted IoU.
    pub mask_score: f32,
    /// What "found" and "absent" take in a stream of frames. Default: no more than on one picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamThresholds>,
}

impl Thresholds {
    /// All of them, under their keys.
    pub(crate) fn by_key(&self) -> impl Iterator<Item = (&'static str, f32)> {
        let picture = [
            ("found", self.found),
            ("absent", self.absent),
            ("positive", self.positive),
            ("negative", self.negative),
            ("mask_score", self.mask_score),
        ];
        let stream = self.stream.map(|s| {
            [
                ("stream.found", s.found),
                ("stream.absent", s.absent),
                ("stream.mask_score", s.mask_score),
                ("stream.confidence", s.confidence),
                ("stream.hold", s.hold),
            ]
        });
        picture.into_iter().chain(stream.into_iter().flatten())
    }
}

/// What "found" and "absent" take in a stream of frames, where an answer holds for many of them; each `0.0..=1.0`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StreamThresholds {
    /// The probability that the last answer's first token starts a box.
    pub found: f32,
    /// The probability that the target is absent, by all looks in a row that rather said so (absent on one picture, or from 0.5
    /// on): 1 less the product of what each left open. What is followed is let go then. Default: any.
    #[serde(default)]
    pub absent: f32,
    /// SAM's predicted IoU of each mask on its frame. Default: any.
    #[serde(default)]
    pub mask_score: f32,
    /// The calibrated probability that each mask is right, from the answer and from the mask on its frame. Default: any.
    #[serde(default)]
    pub confidence: f32,
    /// What was found stays so down to this share of the least mask score and confidence, so that a mask whose score is
    /// about the least one is not found now and unsure a frame later. Default: 1.
    #[serde(default = "StreamThresholds::default_hold")]
    pub hold: f32,
}

impl StreamThresholds {
    /// No more than on one picture.
    pub const NONE: Self = Self { found: 0.0, absent: 0.0, mask_score: 0.0, confidence: 0.0, hold: 1.0 };

    fn default_hold() -> f32 {
        1.0
    }
}

/// Size and hash of one file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256, 64 lower-case hex digits.
    pub sha256: String,
}

impl Manifest {
    /// Parses and validates the text of a `bundle.toml`.
    ///
    /// # Errors
    /// [`BundleErrorKind::Parse`], [`BundleErrorKind::Invalid`] with the key, [`BundleErrorKind::Path`] with the path.
    pub fn parse(text: &str) -> Result<Self, BundleError> {
        let manifest: Self =
            toml::from_str(text).map_err(|e| BundleError::new(BundleErrorKind::Parse, MANIFEST).because(e))?;
        manifest.validate()?;
        Ok(manifest)
    }
}

impl Zoom {
    fn default_least_side() -> u32 {
        32
    }
}

impl Ppg {
    fn default_positives() -> usize {
        2
    }

    fn default_negatives() -> usize {
        1
    }

    fn default_groups() -> usize {
        1
    }
}

/// Reads an array of `N` values; the `toml` crate by itself would ignore those beyond `N`.
fn exactly<'de, D, T, const N: usize>(deserializer: D) -> Result<[T; N], D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let values = Vec::<T>::deserialize(deserializer)?;
    let found = values.len();
    values.try_into().map_err(|_| serde::de::Error::custom(format!("expected {N} values, found {found}")))
}
