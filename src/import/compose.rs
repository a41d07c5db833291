//! Two checkpoints into a bundle: the stock language model that answers boxes, the segmenter that cuts them out, and a
//! manifest that says how they are spoken to. Nothing is trained.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::checkpoint::Checkpoint;
use super::settle::Making;
use super::{ImportError, Level, families, outline};
use crate::engine::bundle::{
    AdapterMode, BundleError, DialectName, Filter, ImageSpec, MANIFEST, Manifest, Mllm, Sam, Sealed, link_or_copy, seal,
};

/// Longest answer of a bundle that is made here, in tokens: a dozen boxes in JSON, digit by digit.
const MAX_ANSWER_TOKENS: usize = 512;
/// What segmenters are fed where their checkpoint does not say: the channels of ImageNet.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// What a bundle is made of.
#[derive(Debug, Clone)]
pub struct Composition<'a> {
    /// A checkpoint directory of a language model.
    pub mllm: &'a Path,
    /// One of a segmenter.
    pub sam: &'a Path,
    /// How the language model is spoken to; `None`: as its class is ([`DialectName::of_class`]).
    pub dialect: Option<DialectName>,
    /// The bundle's name; not empty.
    pub name: &'a str,
    /// SPDX licence expression of the weights; not empty.
    pub licence: &'a str,
}

/// A bundle cannot be made of two checkpoints.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ComposeError {
    /// A checkpoint cannot be imported.
    #[error("import `{0}` for a bundle")]
    Checkpoint(PathBuf, #[source] ImportError),
    /// A directory holds a checkpoint, but not of the kind that belongs there.
    #[error("use `{dir}` for a bundle: {class} is no {wanted}")]
    Kind {
        /// The directory.
        dir: PathBuf,
        /// The class that is there.
        class: String,
        /// What would have to be there.
        wanted: &'static str,
    },
    /// The place for the bundle is taken, or cannot be written to.
    #[error("make a bundle")]
    Place(#[source] ImportError),
    /// A file cannot be read, linked, copied or written.
    #[error("make a bundle, at `{0}`")]
    Io(PathBuf, #[source] std::io::Error),
    /// What was made is no bundle.
    #[error("seal the bundle")]
    Bundle(#[from] BundleError),
}

/// Makes a bundle in `out`. Weights become second names of the checkpoints' own bytes where the file system is the same;
/// everything else is copied.
///
/// # Errors
/// Every [`ComposeError`].
pub fn compose(parts: &Composition<'_>, out: impl AsRef<Path>) -> Result<Sealed, ComposeError> {
    let out = out.as_ref();
    let fail = |error| ComposeError::Checkpoint(parts.mllm.to_owned(), error);
    let checkpoint = Checkpoint::open(parts.mllm).map_err(fail)?;
    let class = families::find(checkpoint.config()).map_err(fail)?.class();
    if families::is_segmenter(class) || families::is_blind(class) {
        return Err(wrong_kind(parts.mllm, class, "language model with eyes"));
    }
    let (sam_class, image) = segmenter(parts.sam)?;
    let dialect = parts.dialect.unwrap_or(DialectName::of_class(class)).words_until(end_token(parts.mllm));
    let manifest = Manifest {
        format: 1,
        name: parts.name.to_owned(),
        version: "1".to_owned(),
        licence: parts.licence.to_owned(),
        description: format!("{class} as it is, and {sam_class}"),
        mllm: Mllm {
            directory: "mllm".to_owned(),
            class: class.to_owned(),
            max_answer_tokens: MAX_ANSWER_TOKENS,
            adapter: None,
            adapter_mode: AdapterMode::default(),
            image: None,
        },
        sam: Sam { directory: "sam".to_owned(), class: sam_class, image, zoom: None },
        dialect,
        files: Default::default(),
        selftest: None,
        eval: toml::Table::new(),
    };
    write(&manifest, [parts.mllm, parts.sam], out)
}

/// The class of the segmenter in `dir`, and what its image encoder is fed.
fn segmenter(dir: &Path) -> Result<(String, ImageSpec), ComposeError> {
    let outline = outline(dir, None, Level::Portable).map_err(|e| ComposeError::Checkpoint(dir.to_owned(), e))?;
    let class = outline.class;
    let pixels = outline.graphs.iter().find(|graph| graph.name() == "image_encoder").and_then(|g| g.inputs().next());
    let side = |at: usize| pixels.as_ref().and_then(|port| port.shape.get(at)?.parse::<u32>().ok());
    let (Some(height), Some(width)) = (side(2), side(3)) else {
        return Err(wrong_kind(dir, &class, "segmenter that takes boxes"));
    };
    let settings = json(&dir.join("preprocessor_config.json"));
    let three = |key: &str, default: [f32; 3]| {
        let list: Option<Vec<f32>> =
            settings[key].as_array().map(|list| list.iter().filter_map(|v| v.as_f64().map(|v| v as f32)).collect());
        list.and_then(|list| list.try_into().ok()).unwrap_or(default)
    };
    let filter = if settings["resample"].as_u64() == Some(3) { Filter::Bicubic } else { Filter::Bilinear };
    let (mean, std) = (three("image_mean", MEAN), three("image_std", STD));
    let (fit, resampler) = (families::fit(&class), families::resampler(&class));
    Ok((class, ImageSpec { fit, width, height, filter, resampler, mean, std }))
}

fn wrong_kind(dir: &Path, class: &str, wanted: &'static str) -> ComposeError {
    ComposeError::Kind { dir: dir.to_owned(), class: class.to_owned(), wanted }
}

/// The text of the token with which the checkpoint in `dir` ends what it says, where it says so.
pub(crate) fn end_token(dir: &Path) -> Option<String> {
    let token = &json(&dir.join("tokenizer_config.json"))["eos_token"];
    // Older files keep a token with how it is matched.
    token.as_str().or_else(|| token["content"].as_str()).map(str::to_owned)
}

/// A JSON file, null where it is not there or none: what it would say is optional.
fn json(file: &Path) -> Value {
    fs::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Puts the files of both checkpoints and the manifest into `out`, and seals them.
fn write(manifest: &Manifest, from: [&Path; 2], out: &Path) -> Result<Sealed, ComposeError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |error| ComposeError::Io(path, error)
    };
    let making = Making::new(out).map_err(ComposeError::Place)?;
    for (dir, to) in from.into_iter().zip(["mllm", "sam"]) {
        let to = making.dir().join(to);
        fs::create_dir_all(&to).map_err(io(&to))?;
        for entry in fs::read_dir(dir).map_err(io(dir))? {
            let path = entry.map_err(io(dir))?.path();
            // What a hub's cache has there are links to the files.
            let real = path.canonicalize().map_err(io(&path))?;
            let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
            if hidden || !real.is_file() {
                continue;
            }
            let target = to.join(path.file_name().unwrap_or_default());
            link_or_copy(&real, &target).map_err(io(&path))?;
        }
    }
    let text = toml::to_string(manifest).expect("a manifest is TOML");
    let file = making.dir().join(MANIFEST);
    fs::write(&file, text).map_err(io(&file))?;
    let sealed = seal(making.dir())?;
    making.settle().map_err(ComposeError::Place)?;
    Ok(sealed)
}
