//! A bundle's graphs as TensorRT takes them: in the precision that is wanted, with how far their shapes reach.

use std::path::{Path, PathBuf};

use super::front::front_of;
use super::mllm::MAX_TREE_TOKENS;
use super::sam::MAX_BATCH;
use super::selftest::TOLERANCE;
use super::sight;
use super::stages::{LoadError, max_positions};
use crate::engine::bundle::Bundle;
use crate::engine::tensorrt::plan::Source;
use crate::engine::tensorrt::{Flavour, Profile, Version};
use crate::import::{Form, ImportError, fix_sizes, half_product, import_cached, take_bytes};
pub use crate::import::{Level, Precision};

/// Points of one prompt, the corners of a box among them: a grid of 7 x 7 beside a box fits.
const MAX_POINTS: u32 = 64;

/// How far outputs may be from those of 32-bit floats on the CPU, as a share of their root mean square: sums in another
/// order in 32 bits; products rounded to 11 bits of mantissa in 16, over tens of layers; the weights' own rounding below.
/// Measured on a CPU with the default bundle, `tests/reference/check_graphs.py`: 0.0007 in 16 bits, 0.008 with weights in
/// 8 and 0.11 with weights in 4. Kernels of a GPU's have not been held against it yet.
pub fn tolerance(precision: Precision) -> f32 {
    match precision {
        Precision::Fp32 => TOLERANCE,
        Precision::Int8 => 5e-2,
        Precision::Int4 => 3e-1,
        Precision::Fp16 => 2e-2,
    }
}

/// A graph, ready for a builder.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PlanGraph {
    /// Its name.
    pub name: &'static str,
    /// The file that it came from; weights lie beside it.
    pub path: PathBuf,
    /// The graph, ONNX.
    pub onnx: Vec<u8>,
    /// Which operators it is written with.
    pub level: Level,
    /// What its matrix products are computed in.
    pub precision: Precision,
    /// How far its shapes reach; none where they are fixed.
    pub profiles: Vec<Profile>,
}

impl PlanGraph {
    /// What a builder takes; `weights` stands for the weights beside the graph: the bundle's fingerprint.
    pub fn source<'a>(&'a self, weights: &'a str) -> Source<'a> {
        Source { name: self.name, onnx: &self.onnx, path: &self.path, weights, precision: self.precision.name() }
    }
}

/// The names of a bundle's graphs, in the order in which they run.
pub const GRAPHS: [&str; 5] = ["vision", "embed", "decoder", "image_encoder", "mask_decoder"];

/// How a bundle's graphs are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GraphOptions {
    /// Which operators they are written with.
    pub level: Level,
    /// What their matrix products are computed in.
    pub precision: Precision,
    /// Longest conversation in tokens. Default: as many as the checkpoint knows. Range: 2 and up.
    pub positions: Option<u32>,
}

impl GraphOptions {
    /// The highest level that TensorRT `version` takes. TensorRT has updates in place since 10.15, and the shim knows
    /// them since 10.16; TensorRT for RTX has them in every version that this program knows.
    pub fn highest_level(version: Version) -> Level {
        match (version.flavour, version.major, version.minor) {
            (Flavour::Enterprise, ..=9, _) | (Flavour::Enterprise, 10, ..=15) => Level::Portable,
            _ => Level::Fused,
        }
    }
}

/// The graphs of `bundle`, in the order of [`GRAPHS`], imported into `cache_dir` where they are not there.
///
/// # Errors
/// [`LoadError::Import`], and [`LoadError::Config`] where the checkpoint does not say how long a conversation may be,
/// or less than is wanted.
pub fn plan_graphs(bundle: &Bundle, cache_dir: &Path, options: GraphOptions) -> Result<Vec<PlanGraph>, LoadError> {
    GRAPHS.iter().map(|name| plan_graph(name, bundle, cache_dir, options)).collect()
}

/// The graph called `name`, one of [`GRAPHS`]; as [`plan_graphs`].
///
/// # Errors
/// As [`plan_graphs`].
pub fn plan_graph(
    name: &'static str,
    bundle: &Bundle,
    cache_dir: &Path,
    options: GraphOptions,
) -> Result<PlanGraph, LoadError> {
    let GraphOptions { level, precision, positions } = options;
    let positions = reach(bundle, positions)?;
    let imported = import_cached(bundle, cache_dir, Form { level, precision })?;
    if name == "decoder" {
        return decoder_graph(imported.mllm_graph(name), Form { level, precision }, positions);
    }
    let (path, profiles) = match name {
        "embed" => (imported.mllm_graph(name), vec![Profile::new([("sequence", usual(1, 64, positions))])]),
        "image_encoder" => (imported.sam_graph(name), Vec::new()),
        "mask_decoder" => {
            let reach = [("prompts", [1, 1, MAX_BATCH as u32]), ("points", [1, 28, MAX_POINTS])];
            (imported.sam_graph(name), vec![Profile::new(reach)])
        }
        name => {
            let reach = sight::reach(&bundle.mllm_dir())?;
            let profile = (!reach.is_empty()).then(|| Profile::new(reach));
            (imported.mllm_graph(name), profile.into_iter().collect())
        }
    };
    let mut onnx = std::fs::read(&path).map_err(|e| ImportError::unreadable(&path, e))?;
    if let Some(front) = front_of(name, bundle)? {
        onnx = take_bytes(&onnx, &front)?;
    }
    Ok(PlanGraph { name, path, onnx, level, precision, profiles })
}

/// The decoder in the file `path`, imported in `form`, for conversations of up to `positions` tokens.
///
/// # Errors
/// [`LoadError::Import`] for a file that is no graph.
pub fn decoder_graph(path: PathBuf, form: Form, positions: u32) -> Result<PlanGraph, LoadError> {
    let onnx = std::fs::read(&path).map_err(|e| ImportError::unreadable(&path, e))?;
    let onnx = fix_sizes(&onnx, "capacity", capacity(positions))?;
    let profiles = decoder_profiles(positions, form.level).to_vec();
    Ok(PlanGraph { name: "decoder", path, onnx, level: form.level, precision: form.precision, profiles })
}

/// One product of two matrices of `size` by `size` in 16-bit floats: how fast a GPU multiplies at best.
pub fn product_graph(size: usize) -> PlanGraph {
    let (level, precision) = (Level::Portable, Precision::Fp16);
    let path = PathBuf::from("product.onnx");
    PlanGraph { name: "product", path, onnx: half_product(size), level, precision, profiles: Vec::new() }
}

fn reach(bundle: &Bundle, wanted: Option<u32>) -> Result<u32, LoadError> {
    let known = u32::try_from(max_positions(bundle)?).unwrap_or(u32::MAX);
    match wanted {
        Some(wanted) if wanted < 2 || wanted > known => {
            let what = format!("conversations of {wanted} tokens are not within 2 to {known}");
            Err(LoadError::Config { path: bundle.mllm_dir().join("config.json"), what })
        }
        wanted => Ok(wanted.unwrap_or(known)),
    }
}

/// Many tokens at once, and one by one. `total` is the sum of the other two, at every end: TensorRT checks shapes
/// there, though no conversation is as long as both ends together. A cache that is updated in place has room for all
/// positions, and nothing in it is longer.
fn decoder_profiles(positions: u32, level: Level) -> [Profile; 2] {
    let past = usual(0, 512, positions - 1);
    let profile = |sequence: [u32; 3], past: [u32; 3], logits| match level {
        Level::Portable => {
            let total = [0, 1, 2].map(|end| sequence[end] + past[end]);
            Profile::new([("sequence", sequence), ("past", past), ("total", total), ("logits", logits)])
        }
        Level::Fused => {
            let total = usual(1, sequence[1] + past[1], capacity(positions));
            Profile::new([("sequence", sequence), ("total", total), ("logits", logits)])
        }
    };
    let pass = usual(1, 64, positions);
    [profile(pass, past, usual(1, 32, positions)), profile([1; 3], past, [1; 3])]
}

/// Positions that a cache has room for: questions in one pass take more of them than the longest conversation.
fn capacity(positions: u32) -> u32 {
    positions.saturating_add(MAX_TREE_TOKENS as u32)
}

fn usual(least: u32, usual: u32, most: u32) -> [u32; 3] {
    [least, usual.min(most), most]
}
