//! A bundle's graphs as TensorRT takes them: in the precision that is wanted, with how far their shapes reach.

use std::path::{Path, PathBuf};

use super::sam::MAX_BATCH;
use super::selftest::TOLERANCE;
use super::stages::{LoadError, max_positions};
use crate::engine::bundle::Bundle;
use crate::engine::tensorrt::Profile;
use crate::engine::tensorrt::plan::Source;
use crate::import::{ImportError, Level, halve_products, import_cached};

/// Points of one prompt, the corners of a box among them: a grid of 7 x 7 beside a box fits.
const MAX_POINTS: u32 = 64;

/// What matrix products are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Precision {
    /// 32-bit floats throughout.
    Fp32,
    /// 16-bit floats in products and convolutions, 32-bit ones elsewhere.
    #[default]
    Fp16,
}

impl Precision {
    /// Its name, as arguments and keys have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
        }
    }
}

/// How far outputs may be from those of 32-bit floats on the CPU, as a share of their root mean square: sums in another
/// order in 32 bits; products rounded to 11 bits of mantissa in 16, over tens of layers. The second is set from the
/// format and not yet held against a GPU.
pub fn tolerance(precision: Precision) -> f32 {
    match precision {
        Precision::Fp32 => TOLERANCE,
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

/// The graphs of `bundle`, in the order of [`GRAPHS`], imported into `cache_dir` where they are not there.
/// Conversations reach up to `positions` tokens, by default as many as the checkpoint knows. Range: 2 and up.
///
/// # Errors
/// [`LoadError::Import`], and [`LoadError::Config`] where the checkpoint does not say how long a conversation may be,
/// or less than `positions`.
pub fn plan_graphs(
    bundle: &Bundle,
    cache_dir: &Path,
    precision: Precision,
    positions: Option<u32>,
) -> Result<Vec<PlanGraph>, LoadError> {
    GRAPHS.iter().map(|name| plan_graph(name, bundle, cache_dir, precision, positions)).collect()
}

/// The graph called `name`, one of [`GRAPHS`]; as [`plan_graphs`].
///
/// # Errors
/// As [`plan_graphs`].
pub fn plan_graph(
    name: &'static str,
    bundle: &Bundle,
    cache_dir: &Path,
    precision: Precision,
    positions: Option<u32>,
) -> Result<PlanGraph, LoadError> {
    let positions = reach(bundle, positions)?;
    let imported = import_cached(bundle, cache_dir, Level::Portable)?;
    let (path, profiles) = match name {
        "embed" => (imported.mllm_graph(name), vec![Profile::new([("sequence", usual(1, 64, positions))])]),
        "decoder" => (imported.mllm_graph(name), decoder_profiles(positions).to_vec()),
        "image_encoder" => (imported.sam_graph(name), Vec::new()),
        "mask_decoder" => {
            let reach = [("prompts", [1, 1, MAX_BATCH as u32]), ("points", [1, 28, MAX_POINTS])];
            (imported.sam_graph(name), vec![Profile::new(reach)])
        }
        name => (imported.mllm_graph(name), Vec::new()),
    };
    let onnx = std::fs::read(&path).map_err(|e| ImportError::unreadable(&path, e))?;
    let onnx = match precision {
        Precision::Fp32 => onnx,
        Precision::Fp16 => halve_products(&onnx)?,
    };
    Ok(PlanGraph { name, path, onnx, precision, profiles })
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
/// there, though no conversation is as long as both ends together.
fn decoder_profiles(positions: u32) -> [Profile; 2] {
    let past = usual(0, 512, positions - 1);
    let profile = |sequence: [u32; 3], past: [u32; 3], logits| {
        let total = [0, 1, 2].map(|end| sequence[end] + past[end]);
        Profile::new([("sequence", sequence), ("past", past), ("total", total), ("logits", logits)])
    };
    let pass = usual(1, 64, positions);
    [profile(pass, past, usual(1, 32, positions)), profile([1; 3], past, [1; 3])]
}

fn usual(least: u32, usual: u32, most: u32) -> [u32; 3] {
    [least, usual.min(most), most]
}
