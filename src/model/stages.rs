//! From a bundle to loaded models: the only place that knows which file is which engine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::chat::Chat;
use super::front::{front_of, on_bytes};
#[cfg(feature = "tensorrt")]
use super::gpu::PlanLoader;
use super::mllm::{Mllm, MllmEngines, MllmLimits};
#[cfg(feature = "tensorrt")]
use super::plans::tolerance;
use super::sam::{SamDecoder, SamEncoder};
use super::selftest::{self, SelfTestError, Tested};
use super::speech::{Speech, read_tokenizer, token_text};
use super::stops::stop_tokens;
use super::{ModelError, Timings, sight};
use crate::engine::bundle::Bundle;
#[cfg(feature = "tensorrt")]
use crate::engine::paired::{Notes, Paired};
use crate::engine::rten::{RtenEngine, RtenOptions};
use crate::engine::{Engine, EngineError};
use crate::import::{ImportError, Imported, Level, default_cache_dir, import_cached};
use crate::prompt::{CommandLimits, Dialect, DialectError, StrategyError};

/// Longest JSON file of a checkpoint that is read, in bytes; as an import's.
const MAX_JSON_BYTES: u64 = 4 << 20;

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
    /// Whether every engine is tested when it is loaded. Default: no.
    pub self_test: SelfTest,
    /// Where the graphs run on a GPU instead: what makes their engines. Default: nothing.
    #[cfg(feature = "tensorrt")]
    pub gpu: Option<PlanLoader>,
    /// Run on the CPU too, give the CPU's answers, and note here how far the GPU's are off. Default: nothing.
    #[cfg(feature = "tensorrt")]
    pub paired: Option<Notes>,
}

/// Whether engines are tested when they are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SelfTest {
    /// No.
    #[default]
    Skip,
    /// Each runs once on a fixed input, and its outputs are held against those that the bundle stores.
    Run,
}

impl LoadOptions {
    /// Where imported graphs are kept.
    pub fn cache_dir(&self) -> PathBuf {
        self.cache_dir.clone().unwrap_or_else(default_cache_dir)
    }

    /// How far an engine's outputs may be from those of 32-bit floats, as a share of their root mean square.
    pub fn tolerance(&self) -> f32 {
        #[cfg(feature = "tensorrt")]
        if let Some(gpu) = &self.gpu {
            return tolerance(gpu.precision());
        }
        selftest::TOLERANCE
    }
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
    /// The bundle's language model was not taught the strategy that is to be the usual one.
    #[error(transparent)]
    Strategy(#[from] StrategyError),
    /// The checkpoint's configuration cannot be read.
    #[error("read `{path}`: {what}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// An engine does not say what the bundle stores.
    #[error(transparent)]
    SelfTest(#[from] SelfTestError),
    /// The GPU, its libraries or a plan.
    #[cfg(feature = "tensorrt")]
    #[error(transparent)]
    TensorRt(#[from] crate::engine::tensorrt::TensorRtError),
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
        let (mllm, mut timings) = load_mllm(bundle, options)?;
        let (encoder, decoder, more) = load_sam(bundle, options)?;
        timings.0.extend(more.0);
        Ok(Self { mllm, encoder, decoder, timings: timings.0 })
    }
}

/// Loads the language model of `bundle` alone, and says where the time went.
///
/// # Errors
/// Every [`LoadError`].
pub fn load_mllm(bundle: &Bundle, options: &LoadOptions) -> Result<(Mllm, Timings), LoadError> {
    let manifest = bundle.manifest();
    let mut timings = Timings::default();
    let imported = timings.time("import", || import_cached(bundle, options.cache_dir(), Level::Portable))?;
    let mut engines = mllm_engines(&imported, bundle, options, &mut timings)?;
    if options.self_test == SelfTest::Run {
        timings.time("self_test", || {
            selftest::run_mllm(&mut engines).map_err(SelfTestError::from).and_then(|t| judge(t, bundle, options))
        })?;
    }
    let (speech, config) = timings.time("tokenizer", || {
        let dir = bundle.mllm_dir();
        let config = Config::read(&dir.join("config.json"))?;
        let tokenizer = read_tokenizer(&dir.join("tokenizer.json"))?;
        let dialect = match manifest.dialect.chat {
            false => Dialect::compile(&manifest.dialect)?,
            true => {
                let image = token_text(&tokenizer, config.image_token)?;
                Dialect::compile(&Chat::open(&dir)?.around(&manifest.dialect, &image)?)?
            }
        };
        let speech = Speech::new(tokenizer, dialect, config.image_token)?;
        let speech = speech.with_limits(options.limits).with_stops(&stop_tokens(&dir)?);
        Ok::<_, LoadError>((speech, config))
    })?;
    let limits = MllmLimits { max_answer_tokens: manifest.mllm.max_answer_tokens, max_positions: config.max_positions };
    let sight = sight::open(&bundle.mllm_dir(), manifest.mllm.image.as_ref(), &*engines.vision)?;
    Ok((Mllm::new(engines, sight, speech, limits)?, timings))
}

/// Loads SAM of `bundle` alone, and says where the time went.
///
/// # Errors
/// [`LoadError::Import`], [`LoadError::Engine`], and [`LoadError::SelfTest`] where engines are tested.
pub fn load_sam(bundle: &Bundle, options: &LoadOptions) -> Result<(SamEncoder, SamDecoder, Timings), LoadError> {
    let mut timings = Timings::default();
    let imported = timings.time("import", || import_cached(bundle, options.cache_dir(), Level::Portable))?;
    let [mut encoder, mut decoder] = sam_engines(&imported, bundle, options, &mut timings)?;
    if options.self_test == SelfTest::Run {
        let mut run = || selftest::run_sam(&mut *encoder, &mut *decoder).map_err(SelfTestError::from);
        timings.time("self_test", || run().and_then(|tested| judge(tested, bundle, options)))?;
    }
    Ok((SamEncoder::new(encoder, &bundle.manifest().sam.image), SamDecoder::new(decoder), timings))
}

/// Holds what engines said against what the bundle stores, and logs it.
fn judge(mut tested: Vec<Tested>, bundle: &Bundle, options: &LoadOptions) -> Result<Vec<Tested>, SelfTestError> {
    let stored = bundle.manifest().selftest.as_ref();
    selftest::compare(&mut tested, stored, options.tolerance())?;
    for Tested { engine, tensor, took, difference, .. } in &tested {
        tracing::debug!(engine, tensor, ?took, ?difference, "self-test");
    }
    let mut engines: Vec<&str> = tested.iter().map(|t| t.engine).collect();
    engines.dedup();
    match tested.iter().filter_map(|t| t.difference).reduce(f32::max) {
        Some(difference) => tracing::info!(?engines, difference, "self-test passed"),
        None => tracing::warn!(
            ?engines,
            "self-test: outputs are finite and of the right shape; the bundle stores none to hold them against \
             (`sam4mllm engine seal` does)"
        ),
    }
    Ok(tested)
}

/// Runs every engine of `bundle` on the self-test's input; what they say is held against nothing.
///
/// # Errors
/// Every [`LoadError`] but [`SelfTestError::Differs`].
pub fn run_self_test(bundle: &Bundle, options: &LoadOptions) -> Result<Vec<Tested>, LoadError> {
    let imported = import_cached(bundle, options.cache_dir(), Level::Portable)?;
    let mut timings = Timings::default();
    let mut engines = mllm_engines(&imported, bundle, options, &mut timings)?;
    let mut tested = selftest::run_mllm(&mut engines)?;
    // One model at a time, for memory.
    drop(engines);
    let [mut encoder, mut decoder] = sam_engines(&imported, bundle, options, &mut timings)?;
    tested.extend(selftest::run_sam(&mut *encoder, &mut *decoder)?);
    Ok(tested)
}

fn mllm_engines(
    imported: &Imported,
    bundle: &Bundle,
    options: &LoadOptions,
    timings: &mut Timings,
) -> Result<MllmEngines, LoadError> {
    let path = |name: &str| imported.mllm_graph(name);
    let mut load = |name| timings.time(name, || load_engine(name, path(name), &options.mllm, (bundle, options)));
    Ok(MllmEngines { vision: load("vision")?, embed: load("embed")?, decoder: load("decoder")? })
}

/// SAM's image encoder and mask decoder.
fn sam_engines(
    imported: &Imported,
    bundle: &Bundle,
    options: &LoadOptions,
    timings: &mut Timings,
) -> Result<[Box<dyn Engine>; 2], LoadError> {
    let path = |name: &str| imported.sam_graph(name);
    let mut load = |name| timings.time(name, || load_engine(name, path(name), &options.sam, (bundle, options)));
    Ok([load("image_encoder")?, load("mask_decoder")?])
}

/// One graph of `bundle`, which lies at `path`, on the backend that `options` choose.
#[cfg_attr(not(feature = "tensorrt"), allow(unused_variables))]
fn load_engine(
    name: &'static str,
    path: PathBuf,
    rten: &RtenOptions,
    (bundle, options): (&Bundle, &LoadOptions),
) -> Result<Box<dyn Engine>, LoadError> {
    let front = front_of(name, bundle)?;
    let on_host = |engine: Box<dyn Engine>| match &front {
        Some(front) => on_bytes(engine, front),
        None => engine,
    };
    #[cfg(feature = "tensorrt")]
    if let Some(gpu) = &options.gpu {
        let tested = Box::new(gpu.load(name, bundle, &options.cache_dir())?);
        let Some(notes) = &options.paired else { return Ok(tested) };
        let reference = on_host(Box::new(RtenEngine::load(path, rten)?));
        return Ok(Box::new(Paired::new(reference, tested, notes.clone())));
    }
    Ok(on_host(Box::new(RtenEngine::load(path, rten)?)))
}

/// Longest conversation that a bundle's language model knows, in tokens.
#[cfg(feature = "tensorrt")]
pub(crate) fn max_positions(bundle: &Bundle) -> Result<usize, LoadError> {
    Config::read(&bundle.mllm_dir().join("config.json")).map(|config| config.max_positions)
}

/// What the graphs do not say about a language model.
struct Config {
    /// The token that stands for the image.
    image_token: u32,
    /// Longest conversation in tokens.
    max_positions: usize,
}

/// A JSON file of a checkpoint.
///
/// # Errors
/// [`LoadError::Config`] where it cannot be read, is longer than [`MAX_JSON_BYTES`] or no JSON.
pub(super) fn read_json(path: &Path) -> Result<serde_json::Value, LoadError> {
    let read = || {
        let bytes = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
        if bytes > MAX_JSON_BYTES {
            return Err(format!("{bytes} bytes are more than {MAX_JSON_BYTES}"));
        }
        let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
        serde_json::from_str(&text).map_err(|e| e.to_string())
    };
    read().map_err(|what| LoadError::Config { path: path.to_owned(), what })
}

impl Config {
    fn read(path: &Path) -> Result<Self, LoadError> {
        let error = |what: String| LoadError::Config { path: path.to_owned(), what };
        let config = read_json(path)?;
        // `transformers` has written both names.
        let image_token = ["image_token_index", "image_token_id"].into_iter().find_map(|key| config[key].as_u64());
        let image_token = image_token.and_then(|id| u32::try_from(id).ok());
        Ok(Self {
            image_token: image_token.ok_or_else(|| error("has no `image_token_index`".into()))?,
            max_positions: max_positions_of(&config)
                .and_then(|p| usize::try_from(p).ok())
                .ok_or_else(|| error("has no `text_config.max_position_embeddings`".into()))?,
        })
    }
}

/// Longest conversation that the text model of a `config.json` knows. Where it would see no further back than a window,
/// that is the longest: within it the window changes nothing.
pub(super) fn max_positions_of(config: &serde_json::Value) -> Option<u64> {
    // Older Qwen-VL have the text model's keys beside `vision_config`.
    let text = if config["text_config"].is_object() { &config["text_config"] } else { config };
    let kind = text["model_type"].as_str().unwrap_or("llama");
    let positions = match text.get("max_position_embeddings") {
        Some(positions) => positions.as_u64()?,
        // What `transformers` takes where a file is silent.
        None => match kind {
            "llama" => 2048,
            "mistral" => 131_072,
            "qwen2" | "qwen3" | "qwen2_5_vl" | "qwen2_5_vl_text" => 32_768,
            "qwen3_vl_text" => 128_000,
            _ => return None,
        },
    };
    let window = match (kind, text.get("sliding_window")) {
        ("mistral", None) => Some(4096),
        ("mistral", Some(window)) => window.as_u64(),
        (_, Some(window)) if text["use_sliding_window"].as_bool() == Some(true) => window.as_u64(),
        _ => None,
    };
    Some(window.map_or(positions, |window| positions.min(window)))
}
