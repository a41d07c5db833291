//! The seam between the settings and what answers: one arm for each backend.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use super::super::stages::StageArgs;
use crate::import::{Level, import_cached};
use crate::model::stages::SelfTest;
use crate::node::Stages;
use crate::pipeline::fake::{FakeGround, FakeSegment, Script};
use crate::pipeline::{Grounder, Segmenter, Strategies};
use crate::prompt::{Calibration, Dialect};
use crate::server::settings::{BackendName, Settings};
use crate::server::{Backend, Identity};

/// What of the settings is about the models.
pub(super) fn stage_args(settings: &Settings) -> StageArgs {
    StageArgs {
        bundle: settings.bundle.clone(),
        strategy: settings.strategy,
        draft: settings.draft,
        threads: settings.threads,
        cache_dir: settings.cache_dir.clone(),
    }
}

pub(super) fn backend(settings: &Settings, fake_ground_ms: u64) -> anyhow::Result<Backend> {
    match settings.backend {
        BackendName::Rten => {
            let test = if settings.self_test { SelfTest::Run } else { SelfTest::Skip };
            tested_backend(&stage_args(settings), test)
        }
        BackendName::Fake => {
            let script = Script::default();
            script.ground.set_delay(Duration::from_millis(fake_ground_ms));
            Ok(fake(&script, FakeGround::strategies(settings.strategy)?))
        }
    }
}

/// The bundle's models on the CPU, each built on the thread that will own it.
pub(in super::super) fn rten_backend(args: &StageArgs) -> anyhow::Result<Backend> {
    tested_backend(args, SelfTest::Run)
}

fn tested_backend(args: &StageArgs, self_test: SelfTest) -> anyhow::Result<Backend> {
    let bundle = Arc::new(args.open()?);
    let mut options = args.options();
    options.self_test = self_test;
    // Before a socket or a thread exists.
    let dialect = Dialect::compile(&bundle.manifest().dialect)?;
    let (strategies, calibration) = (Strategies::of(&dialect, args.strategy)?, dialect.calibration());
    // Once, before the two factories would do it side by side.
    import_cached(&bundle, options.cache_dir(), Level::Portable).context("import the bundle's checkpoints")?;
    let manifest = bundle.manifest();
    let identity = Identity {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        fingerprint: bundle.fingerprint().to_owned(),
        backend: "rten".to_owned(),
        backend_version: crate::engine::rten::VERSION.to_owned(),
    };
    let min_mask_score = manifest.dialect.thresholds.mask_score;
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
            calibration: Calibration::IDENTITY,
        },
    }
}
