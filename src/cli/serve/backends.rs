//! The seam between the settings and what answers: one arm for each backend.

use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "tensorrt")]
use super::super::gpu::GpuArgs;
#[cfg(feature = "tensorrt")]
use super::super::stages::EngineName;
use super::super::stages::{Engines, StageArgs};
use crate::engine::bundle::{Calibration, StreamThresholds};
use crate::model::stages::SelfTest;
use crate::node::Stages;
use crate::pipeline::fake::{FakeGround, FakeSegment, Script};
use crate::pipeline::{Grounder, Segmenter, Strategies};
use crate::prompt::{Dialect, Thresholds};
use crate::server::settings::{BackendName, Settings};
use crate::server::{Backend, Identity};

/// How engines run on this machine, beyond the settings.
#[derive(Debug, Clone, clap::Args)]
pub struct Machine {
    #[cfg(feature = "tensorrt")]
    #[command(flatten)]
    gpu: GpuArgs,
}

/// What of the settings and flags is about the models.
pub(super) fn stage_args(settings: &Settings, machine: &Machine) -> StageArgs {
    // Only a GPU has anything to say.
    #[cfg(not(feature = "tensorrt"))]
    let Machine {} = machine;
    StageArgs {
        #[cfg(feature = "tensorrt")]
        backend: match settings.backend {
            BackendName::TensorRt => EngineName::TensorRt,
            BackendName::Rten | BackendName::Fake => EngineName::Rten,
        },
        #[cfg(feature = "tensorrt")]
        gpu: machine.gpu.clone(),
        bundle: settings.bundle.clone(),
        strategy: settings.strategy,
        draft: settings.draft,
        threads: settings.threads,
        cache_dir: settings.cache_dir.clone(),
    }
}

/// What answers under these settings; the fake grounder takes `fake_ground` for each command.
pub(super) fn backend(settings: &Settings, machine: &Machine, fake_ground: Duration) -> anyhow::Result<Backend> {
    if settings.backend == BackendName::Fake {
        let script = Script::default();
        script.ground.set_delay(fake_ground);
        return Ok(fake(&script, FakeGround::strategies(settings.strategy.unwrap_or_default())?));
    }
    let test = if settings.self_test { SelfTest::Run } else { SelfTest::Skip };
    tested_backend(&stage_args(settings, machine), test)
}

/// The bundle's models, each built on the thread that will own it.
pub(in super::super) fn model_backend(args: &StageArgs) -> anyhow::Result<Backend> {
    tested_backend(args, SelfTest::Run)
}

fn tested_backend(args: &StageArgs, self_test: SelfTest) -> anyhow::Result<Backend> {
    let bundle = Arc::new(args.open()?);
    // Before a socket or a thread exists.
    let dialect = Dialect::compile(&bundle.manifest().dialect)?;
    let (strategies, calibration) = (Strategies::of(&dialect, args.strategy)?, dialect.calibration());
    let Engines { mut options, backend, version } = args.engines(&bundle)?;
    options.self_test = self_test;
    let manifest = bundle.manifest();
    let identity = Identity {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        fingerprint: bundle.fingerprint().to_owned(),
        backend: backend.to_owned(),
        backend_version: version,
    };
    let Thresholds { mask_score: min_mask_score, stream, .. } = dialect.thresholds();
    let (usual, drafting) = (args.strategy, args.draft);
    let (ground, segment) = ((bundle.clone(), options.clone()), (bundle, options));
    Ok(Backend {
        identity,
        stages: Stages {
            ground: Box::new(move || {
                let mut grounder = Grounder::load(&ground.0, usual, &ground.1)?;
                grounder.set_drafting(drafting);
                Ok(Box::new(grounder))
            }),
            segment: Box::new(move || Ok(Box::new(Segmenter::load(&segment.0, &segment.1)?))),
            strategies,
            min_mask_score,
            stream,
            calibration,
        },
    })
}

fn fake(script: &Script, strategies: Strategies) -> Backend {
    let (ground, segment) = (script.ground.clone(), script.segment.clone());
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Backend {
        identity: Identity {
            name: "colours".to_owned(),
            version: version.clone(),
            fingerprint: String::new(),
            backend: "fake".to_owned(),
            backend_version: version,
        },
        stages: Stages {
            ground: Box::new(move || Ok(Box::new(FakeGround::new(ground.clone())))),
            segment: Box::new(move || Ok(Box::new(FakeSegment::new(segment.clone())))),
            strategies,
            min_mask_score: 0.4,
            stream: StreamThresholds::NONE,
            calibration: Calibration::IDENTITY,
        },
    }
}
