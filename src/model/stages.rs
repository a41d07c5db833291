//! From a bundle to loaded models: the only place that knows which file is which engine.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::ModelError;
use super::mllm::{Mllm, MllmEngines, MllmLimits};
use super::sam::{SamDecoder, SamEncoder};
use super::speech::Speech;
use crate::engine::bundle::Bundle;
use crate::engine::rten::{RtenEngine, RtenOptions};
use crate::engine::{Engine, EngineError};
use crate::import::{ImportError, Level, default_cache_dir, import_cached};
use crate::prompt::{CommandLimits, Dialect, DialectError};

/// How a bundle's models are loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Where imported graphs are kept. Default: [`default_cache_dir`].
    pub cache_dir: Option<PathBuf>,
    /// The language model's engines. Default: that of [`RtenOptions`].
    pub mllm: RtenOptions,
    /// SAM's engines. Default: that of [`RtenOptions`].
    pub sam: RtenOptions,
    /// Limits on commands.
    pub limits: CommandLimits,
}

/// A bundle's models cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A checkpoint cannot be imported.
    #[error("import bundle")]
    Import(#[from] ImportError),
    /// An engine cannot be loaded.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The dialect does not fit itself or the tokenizer.
    #[error(transparent)]
    Dialect(#[from] DialectError),
    /// The checkpoint's configuration cannot be read.
    #[error("read `{path}`: {what}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// An engine is not what the model needs.
    #[error("fit engines together")]
    Model(#[from] ModelError),
}

/// A bundle's models.
pub struct Models {
    /// The language model.
    pub mllm: Mllm,
    /// SAM's image encoder.
    pub encoder: SamEncoder,
    /// SAM's mask decoder.
    pub decoder: SamDecoder,
    /// Where the time went: `import`, then each engine and the tokenizer, by name.
    pub timings: Vec<(&'static str, Duration)>,
}

impl Models {
    /// Loads the models of `bundle`, importing its checkpoints first where the cache lacks them.
    ///
    /// # Errors
    /// Every [`LoadError`].
    pub fn load(bundle: &Bundle, options: &LoadOptions) -> Result<Self, LoadError> {
        let manifest = bundle.manifest();
        let mut timings = super::Timings::default();
        let cache_dir = options.cache_dir.clone().unwrap_or_else(default_cache_dir);
        let imported = timings.time("import", || import_cached(bundle, cache_dir, Level::Portable))?;
        let mut load = |name: &'static str, path: PathBuf, options: &RtenOptions| {
            timings.time(name, || RtenEngine::load(path, options)).map(|e| Box::new(e) as Box<dyn Engine>)
        };
        let engines = MllmEngines {
            vision: load("vision", imported.mllm_graph("vision"), &options.mllm)?,
            embed: load("embed", imported.mllm_graph("embed"), &options.mllm)?,
            decoder: load("decoder", imported.mllm_graph("decoder"), &options.mllm)?,
        };
        let encoder = load("image_encoder", imported.sam_graph("image_encoder"), &options.sam)?;
        let decoder = load("mask_decoder", imported.sam_graph("mask_decoder"), &options.sam)?;
        let start = Instant::now();
        let dir = bundle.mllm_dir();
        let config = Config::read(&dir.join("config.json"))?;
        let dialect = Dialect::compile(&manifest.dialect)?;
        let speech = Speech::new(&dir.join("tokenizer.json"), dialect, config.image_token)?.with_limits(options.limits);
        timings.0.push(("tokenizer", start.elapsed()));
        let limits =
            MllmLimits { max_answer_tokens: manifest.mllm.max_answer_tokens, max_positions: config.max_positions };
        Ok(Self {
            mllm: Mllm::new(engines, &manifest.mllm.image, speech, limits)?,
            encoder: SamEncoder::new(encoder, &manifest.sam.image),
            decoder: SamDecoder::new(decoder),
            timings: timings.0,
        })
    }
}

/// What the graphs do not say about a language model.
struct Config {
    /// The token that stands for the image.
    image_token: u32,
    /// Longest conversation in tokens.
    max_positions: usize,
}

impl Config {
    fn read(path: &Path) -> Result<Self, LoadError> {
        let error = |what: String| LoadError::Config { path: path.to_owned(), what };
        let text = std::fs::read_to_string(path).map_err(|e| error(e.to_string()))?;
        let config: serde_json::Value = serde_json::from_str(&text).map_err(|e| error(e.to_string()))?;
        // `transformers` has written both names.
        let image_token = ["image_token_index", "image_token_id"].into_iter().find_map(|key| config[key].as_u64());
        let image_token = image_token.and_then(|id| u32::try_from(id).ok());
        let positions = config["text_config"]["max_position_embeddings"].as_u64();
        Ok(Self {
            image_token: image_token.ok_or_else(|| error("has no `image_token_index`".into()))?,
            max_positions: positions
                .and_then(|p| usize::try_from(p).ok())
                .ok_or_else(|| error("has no `text_config.max_position_embeddings`".into()))?,
        })
    }
}
