//! A bundle's graphs as TensorRT takes them: in the precision that is wanted, with how far their shapes reach.

use std::path::{Path, PathBuf};

use super::stages::{LoadError, max_positions};
use crate::engine::bundle::Bundle;
use crate::engine::tensorrt::Profile;
use crate::import::{ImportError, Level, halve_products, import_cached};

/// Prompts of one pass of the mask decoder, as `sam` sends them.
const MAX_PROMPTS: u32 = 16;

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
    /// How far its shapes reach; none where they are fixed.
    pub profiles: Vec<Profile>,
}

/// The graphs of `bundle`, in the order in which they run, imported into `cache_dir` where they are not there.
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
    let positions = reach(bundle, positions)?;
    let imported = import_cached(bundle, cache_dir, Level::Portable)?;
    let graph = |name, path: PathBuf, profiles| {
        let onnx = std::fs::read(&path).map_err(|e| ImportError::unreadable(&path, e))?;
        let onnx = match precision {
            Precision::Fp32 => onnx,
            Precision::Fp16 => halve_products(&onnx)?,
        };
        Ok::<_, ImportError>(PlanGraph { name, path, onnx, profiles })
    };
    let (mllm, sam) = (|name: &str| imported.mllm_graph(name), |name: &str| imported.sam_graph(name));
    Ok(vec![
        graph("vision", mllm("vision"), Vec::new())?,
        graph("embed", mllm("embed"), vec![Profile::new([("sequence", usual(1, 64, positions))])])?,
        graph("decoder", mllm("decoder"), decoder_profiles(positions).to_vec())?,
        graph("image_encoder", sam("image_encoder"), Vec::new())?,
        graph(
            "mask_decoder",
            sam("mask_decoder"),
            vec![Profile::new([("prompts", [1, 1, MAX_PROMPTS]), ("points", [1, 28, MAX_POINTS])])],
        )?,
    ])
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
