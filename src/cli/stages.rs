//! Opening a bundle from the command line: the arguments that every command with models shares.

use std::path::PathBuf;

use anyhow::Context;

use crate::engine::bundle::{Bundle, Verify};
use crate::engine::rten::{self, RtenOptions};
use crate::import::{Level, import_cached};
use crate::model::stages::LoadOptions;
use crate::pipeline::{Drafting, Stages, Strategy};

/// What runs a bundle's models.
#[cfg(feature = "tensorrt")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum EngineName {
    /// The CPU.
    #[default]
    Rten,
    /// An NVIDIA GPU.
    #[value(name = "tensorrt")]
    TensorRt,
}

/// How a bundle's engines are loaded, and what answers say of it.
#[derive(Debug)]
pub struct Engines {
    /// For [`Stages::load`] and its like.
    pub options: LoadOptions,
    /// The backend's name.
    pub backend: &'static str,
    /// Its version.
    pub version: String,
}

/// Which bundle, and how its engines run.
#[derive(Debug, Clone, clap::Args)]
pub struct StageArgs {
    /// What runs the models.
    #[cfg(feature = "tensorrt")]
    #[arg(long, env = "SAM4MLLM_BACKEND", value_enum, default_value_t = EngineName::Rten)]
    pub backend: EngineName,
    #[cfg(feature = "tensorrt")]
    #[command(flatten)]
    pub gpu: super::gpu::GpuArgs,
    /// Bundle folder.
    #[arg(long, env = "SAM4MLLM_BUNDLE", default_value = "engines/tabletop")]
    pub bundle: PathBuf,
    /// How the prompt is got from the language model; by default as the bundle says.
    #[arg(long, env = "SAM4MLLM_STRATEGY", value_enum)]
    pub strategy: Option<Strategy>,
    /// What the language model's answers are guessed from, to be checked in fewer passes; they are the same with any.
    #[arg(long, env = "SAM4MLLM_DRAFT", value_enum, default_value_t = Drafting::Masks)]
    pub draft: Drafting,
    /// Threads an engine; by default one a core.
    #[arg(long, env = "SAM4MLLM_THREADS")]
    pub threads: Option<usize>,
    /// Where imported graphs are kept; by default in the user's cache folder.
    #[arg(long, env = "SAM4MLLM_CACHE")]
    pub cache_dir: Option<PathBuf>,
}

impl StageArgs {
    /// Opens the bundle, every file checked.
    pub fn open(&self) -> anyhow::Result<Bundle> {
        Bundle::open(&self.bundle, Verify::Hashes).with_context(|| format!("open bundle {}", self.bundle.display()))
    }

    /// How the engines are loaded.
    pub fn engines(&self, bundle: &Bundle) -> anyhow::Result<Engines> {
        let engine = match self.threads {
            Some(threads) => RtenOptions::default().threads(threads),
            None => RtenOptions::default(),
        };
        let (cache_dir, mllm) = (self.cache_dir.clone(), engine.clone());
        let options = LoadOptions { cache_dir, mllm, sam: engine, ..LoadOptions::default() };
        let on_cpu = Engines { options, backend: "rten", version: rten::VERSION.to_owned() };
        // Once, before two stages would do it side by side.
        import_cached(bundle, on_cpu.options.cache_dir(), Level::Portable)
            .context("import the bundle's checkpoints")?;
        #[cfg(feature = "tensorrt")]
        if self.backend == EngineName::TensorRt {
            return self.gpu.engines(bundle, on_cpu);
        }
        Ok(on_cpu)
    }

    /// Loads both sides of the pipeline of an opened bundle.
    pub fn load(&self, bundle: &Bundle) -> anyhow::Result<Stages> {
        let options = self.engines(bundle)?.options;
        let mut stages = Stages::load(bundle, self.strategy, &options).context("load the bundle's models")?;
        stages.grounder.set_drafting(self.draft);
        Ok(stages)
    }
}
