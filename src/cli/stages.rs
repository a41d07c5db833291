//! Opening a bundle from the command line: the arguments that every command with models shares.

use std::path::PathBuf;

use anyhow::Context;

use crate::engine::bundle::{Bundle, Verify};
use crate::engine::rten::RtenOptions;
use crate::model::stages::LoadOptions;
use crate::pipeline::{Drafting, Stages, Strategy};

/// Which bundle, and how its engines run.
#[derive(Debug, Clone, clap::Args)]
pub struct StageArgs {
    /// Bundle folder.
    #[arg(long, env = "SAM4MLLM_BUNDLE", default_value = "engines/tabletop")]
    pub bundle: PathBuf,
    /// How the prompt is got from the language model.
    #[arg(long, env = "SAM4MLLM_STRATEGY", value_enum, default_value_t = Strategy::Pqpp)]
    pub strategy: Strategy,
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
    pub fn options(&self) -> LoadOptions {
        let engine = match self.threads {
            Some(threads) => RtenOptions::default().threads(threads),
            None => RtenOptions::default(),
        };
        LoadOptions { cache_dir: self.cache_dir.clone(), mllm: engine.clone(), sam: engine, ..LoadOptions::default() }
    }

    /// Loads both sides of the pipeline of an opened bundle.
    pub fn load(&self, bundle: &Bundle) -> anyhow::Result<Stages> {
        let mut stages = Stages::load(bundle, self.strategy, &self.options()).context("load the bundle's models")?;
        stages.grounder.set_drafting(self.draft);
        Ok(stages)
    }
}
