//! A bundle's engines on a GPU: its plans from the cache, built into it first where they are not there.

use std::path::Path;

use super::plans::{GRAPHS, GraphOptions, PlanGraph, Precision, plan_graph};
use super::stages::LoadError;
use crate::engine::bundle::Bundle;
use crate::engine::tensorrt::plan::{Recipe, make};
use crate::engine::tensorrt::{
    Builder, Device, Flavour, Library, Plan, PlanStore, TensorRtEngine, TensorRtError, Version,
};

/// Makes engines of a bundle's graphs on the GPU of this machine.
#[derive(Debug, Clone)]
pub struct PlanLoader {
    library: Library,
    device: Device,
    /// Plans of any are taken; those that are missing are built with the first.
    recipes: Vec<Recipe>,
    graphs: GraphOptions,
}

impl PlanLoader {
    /// Finds the libraries, then the GPU. Conversations reach up to `positions` tokens, by default as many as the
    /// checkpoint knows.
    ///
    /// # Errors
    /// Those of [`Library::find`] and [`Device::open`].
    pub fn find(precision: Precision, positions: Option<u32>) -> Result<Self, TensorRtError> {
        let library = Library::find()?;
        let device = Device::open()?;
        let current = Recipe::new(&library, None)?;
        // Plans that another machine built for this one's kind come first.
        let recipes = match library.version().flavour {
            Flavour::Rtx => vec![Recipe::new(&library, Some(device.sm()))?, current],
            Flavour::Enterprise => vec![current],
        };
        let graphs = GraphOptions { level: GraphOptions::highest_level(library.version()), precision, positions };
        Ok(Self { library, device, recipes, graphs })
    }

    /// The libraries' version.
    pub fn version(&self) -> Version {
        self.library.version()
    }

    /// What matrix products are computed in.
    pub fn precision(&self) -> Precision {
        self.graphs.precision
    }

    /// The GPU.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Builds the plans that the cache lacks, one after the other, as the builder measures how fast the GPU is.
    ///
    /// # Errors
    /// [`LoadError::Import`] and [`LoadError::TensorRt`].
    pub fn prepare(&self, bundle: &Bundle, cache_dir: &Path) -> Result<(), LoadError> {
        GRAPHS.iter().try_for_each(|name| self.plan(name, bundle, cache_dir).map(drop))
    }

    /// The engine of one of [`GRAPHS`].
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare), and [`LoadError::Engine`] for a plan that does not load.
    pub fn load(&self, name: &'static str, bundle: &Bundle, cache_dir: &Path) -> Result<TensorRtEngine, LoadError> {
        let plan = self.plan(name, bundle, cache_dir)?;
        Ok(TensorRtEngine::load(name, self.library, &self.device, &plan)?)
    }

    /// The plan of one of [`GRAPHS`].
    fn plan(&self, name: &'static str, bundle: &Bundle, cache_dir: &Path) -> Result<Plan, LoadError> {
        let graph = plan_graph(name, bundle, cache_dir, self.graphs)?;
        let (store, source) = (PlanStore::open(cache_dir.join("plans"))?, graph.source(bundle.fingerprint()));
        let PlanGraph { profiles, .. } = &graph;
        let key = |recipe: &Recipe| recipe.key(&self.library, &source, profiles);
        if let Some(plan) = self.recipes.iter().find_map(|recipe| store.find(&key(recipe))) {
            return Ok(plan);
        }
        tracing::info!(graph = name, precision = self.precision().name(), "building the plan, which takes a while");
        let (builder, recipe) = (Builder::new(self.library)?, &self.recipes[0]);
        Ok(make(&builder, &store, recipe, (&source, profiles), None)?.plan)
    }
}
