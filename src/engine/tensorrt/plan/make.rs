//! A graph to a plan in the cache.

use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

use super::super::backend::Gpu;
use super::super::error::{TensorRtError, TensorRtErrorKind as Kind};
use super::super::safe::{BuildOptions, Builder, Flavour, Library, Progress};
use super::key::PlanKey;
use super::shapes::Profile;
use super::store::{Plan, PlanStore};

/// A graph that is to become a plan.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Its name.
    pub name: &'a str,
    /// The graph, ONNX.
    pub onnx: &'a [u8],
    /// The file that it came from; weights are looked for beside it.
    pub path: &'a Path,
    /// What stands for those weights: the bundle's fingerprint.
    pub weights: &'a str,
    /// What the graph's matrix products are computed in: `fp16`.
    pub precision: &'a str,
}

/// How graphs become plans.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// What the plans are to be like.
    pub options: BuildOptions,
    device: String,
}

impl Recipe {
    /// A recipe for plans that run on compute capability `sm`, times ten, or on the GPU at hand.
    ///
    /// # Errors
    /// [`Kind::Device`] for a named capability where TensorRT builds for the GPU at hand only; [`Kind::Driver`] where
    /// that is wanted and there is none.
    pub fn new(library: &Library, sm: Option<u32>) -> Result<Self, TensorRtError> {
        let (version, mut options) = (library.version(), BuildOptions::default());
        options.sm = sm;
        let device = match (sm, version.flavour) {
            (Some(sm), Flavour::Rtx) => format!("sm{sm}"),
            (Some(sm), Flavour::Enterprise) => {
                let why = format!("{version} builds for the GPU that it runs on, and for no other");
                return Err(TensorRtError::new(Kind::Device, format!("sm{sm}"), why));
            }
            (None, _) => Gpu::current().map(|gpu| format!("sm{} {}", gpu.sm, gpu.name))?,
        };
        Ok(Self { options, device })
    }

    /// The device, as keys name it.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// The key of the plan that this recipe makes of `source`.
    pub fn key(&self, library: &Library, source: &Source<'_>, profiles: &[Profile]) -> PlanKey {
        let BuildOptions { sm: _, level, workspace_bytes, strip, stream_weights, tf32 } = self.options;
        let mut options = format!("strip={strip} stream={stream_weights} tf32={tf32}");
        // Writing to a text does not fail.
        let _ = level.map(|level| write!(options, " level={level}"));
        let _ = workspace_bytes.map(|bytes| write!(options, " workspace={bytes}"));
        for profile in profiles {
            let _ = write!(options, " [{}]", profile.to_text());
        }
        PlanKey {
            tensorrt: library.version().to_string(),
            device: self.device.clone(),
            weights: source.weights.to_owned(),
            precision: source.precision.to_owned(),
            options,
            ..PlanKey::new(source.name, source.onnx)
        }
    }
}

/// A plan, and whether it was built just now.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Made {
    /// The plan.
    pub plan: Plan,
    /// Whether it was built by this call rather than found.
    pub fresh: bool,
}

/// Gives the plan of `source` from the cache, and builds it first where it is not in it. `profiles` say how far varying
/// dimensions reach; a graph without any takes none. A second builder of the same plan, in another process too, waits
/// for the first one's and takes it.
///
/// # Errors
/// Those of the parser, the builder and the cache.
pub fn make(
    builder: &Builder,
    store: &PlanStore,
    recipe: &Recipe,
    (source, profiles): (&Source<'_>, &[Profile]),
    progress: Option<Box<dyn Progress>>,
) -> Result<Made, TensorRtError> {
    let key = recipe.key(&builder.library(), source, profiles);
    if let Some(plan) = store.find(&key) {
        return Ok(Made { plan, fresh: false });
    }
    let _lock = store.lock(&key)?;
    if let Some(plan) = store.find(&key) {
        return Ok(Made { plan, fresh: false });
    }
    let start = Instant::now();
    let mut network = builder.parse(source.name, source.onnx, Some(source.path))?;
    let mut config = builder.config(&recipe.options)?;
    let inputs = network.inputs();
    let none = [Profile::default()];
    for profile in if profiles.is_empty() { &none } else { profiles } {
        let reaches = profile.reaches(source.name, &inputs)?;
        if !reaches.is_empty() {
            config.add_profile(&reaches)?;
        }
    }
    if let Some(progress) = progress {
        config.follow(progress);
    }
    config.use_timings(&store.timings(&key));
    let plan = network.build(&mut config)?;
    let plan = store.put(&key, &plan, network.layers(), start.elapsed().as_secs_f64())?;
    if let Some(timings) = config.timings() {
        store.put_timings(&key, &timings)?;
    }
    Ok(Made { plan, fresh: true })
}
