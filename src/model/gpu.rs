//! A bundle's engines on a GPU: its plans from the cache, built into it first where they are not there.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::plans::{GRAPHS, GraphOptions, Precision, plan_graph};
use super::stages::LoadError;
use crate::chain::Chain;
use crate::engine::EngineError;
use crate::engine::bundle::Bundle;
use crate::engine::tensorrt::plan::{Recipe, make};
use crate::engine::tensorrt::{
    Buffers, Builder, Device, Flavour, Library, Plan, PlanStore, TensorRtEngine, TensorRtError, TensorRtErrorKind,
    Version,
};

/// Makes engines of a bundle's graphs on the GPU of this machine.
#[derive(Debug, Clone)]
pub struct PlanLoader {
    library: Library,
    device: Device,
    /// Plans of any are taken; those that are missing are built with the first.
    recipes: Vec<Recipe>,
    graphs: GraphOptions,
    cuda_graphs: bool,
    /// Plans that were found or built, by bundle and graph, so that a graph is read and hashed once.
    found: Arc<Mutex<HashMap<(String, &'static str), Plan>>>,
}

impl PlanLoader {
    /// Finds the libraries, then the GPU. Conversations reach up to `positions` tokens, by default as many as the
    /// checkpoint knows.
    ///
    /// # Errors
    /// Those of [`Library::find`] and [`Device::open_with`].
    pub fn find(precision: Precision, positions: Option<u32>, buffers: Buffers) -> Result<Self, TensorRtError> {
        let library = Library::find()?;
        let device = Device::open_with(buffers)?;
        let current = Recipe::new(&library, None)?;
        // Plans that another machine built for this one's kind come first.
        let recipes = match library.version().flavour {
            Flavour::Rtx => vec![Recipe::new(&library, Some(device.sm()))?, current],
            Flavour::Enterprise => vec![current],
        };
        let graphs = GraphOptions { level: GraphOptions::highest_level(library.version()), precision, positions };
        Ok(Self { library, device, recipes, graphs, cuda_graphs: true, found: Arc::default() })
    }

    /// Whether engines capture what comes again as CUDA graphs; they do unless this says otherwise.
    #[must_use]
    pub fn with_cuda_graphs(self, cuda_graphs: bool) -> Self {
        Self { cuda_graphs, ..self }
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
        let loaded = self.engine(name, &plan);
        let Err(error) = loaded else { return Ok(loaded?) };
        if !is_broken(&error) {
            return Err(error.into());
        }
        // What does not have its record's hash is found out now, when it is read for the first time.
        tracing::warn!(error = %Chain(&error), "plan is built again");
        self.found().remove(&key_of(name, bundle));
        let plan = self.build(name, bundle, cache_dir)?;
        Ok(self.engine(name, &plan)?)
    }

    fn engine(&self, name: &str, plan: &Plan) -> Result<TensorRtEngine, EngineError> {
        let mut engine = TensorRtEngine::load(name, self.library, &self.device, plan)?;
        engine.set_cuda_graphs(self.cuda_graphs);
        Ok(engine)
    }

    /// The plan of one of [`GRAPHS`], as it was found before.
    fn plan(&self, name: &'static str, bundle: &Bundle, cache_dir: &Path) -> Result<Plan, LoadError> {
        if let Some(plan) = self.found().get(&key_of(name, bundle)) {
            return Ok(plan.clone());
        }
        let graph = plan_graph(name, bundle, cache_dir, self.graphs)?;
        let (store, source) = (PlanStore::open(cache_dir.join("plans"))?, graph.source(bundle.fingerprint()));
        let key = |recipe: &Recipe| recipe.key(&self.library, &source, &graph.profiles);
        let plan = match self.recipes.iter().find_map(|recipe| store.look(&key(recipe))) {
            Some(plan) => plan,
            None => self.build(name, bundle, cache_dir)?,
        };
        self.found().insert(key_of(name, bundle), plan.clone());
        Ok(plan)
    }

    /// Builds the plan of one of [`GRAPHS`], unless a whole one is there by now.
    fn build(&self, name: &'static str, bundle: &Bundle, cache_dir: &Path) -> Result<Plan, LoadError> {
        let graph = plan_graph(name, bundle, cache_dir, self.graphs)?;
        let (store, source) = (PlanStore::open(cache_dir.join("plans"))?, graph.source(bundle.fingerprint()));
        tracing::info!(graph = name, precision = self.precision().name(), "building the plan, which takes a while");
        let (builder, recipe) = (Builder::new(self.library)?, &self.recipes[0]);
        Ok(make(&builder, &store, recipe, (&source, &graph.profiles), None)?.plan)
    }

    fn found(&self) -> MutexGuard<'_, HashMap<(String, &'static str), Plan>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key_of(name: &'static str, bundle: &Bundle) -> (String, &'static str) {
    (bundle.fingerprint().to_owned(), name)
}

/// Whether an engine does not load because its plan's bytes are not those that were written.
fn is_broken(error: &EngineError) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<TensorRtError>());
    source.is_some_and(|source| source.kind() == TensorRtErrorKind::Plan)
}
