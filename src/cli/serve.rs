//! `sam4mllm serve`: the node on a socket.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::stages::{BackendName, Engines, StageArgs};
use crate::frame::FrameLimits;
use crate::node::{NodeConfig, Stages};
use crate::pipeline::fake::{FakeGround, FakeSegment, Script};
use crate::pipeline::{Grounder, Segmenter, Strategies};
use crate::prompt::{Calibration, Dialect};
use crate::server::{Backend, Identity, Server, ServerConfig};

/// Arguments of `sam4mllm serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    stages: StageArgs,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, env = "SAM4MLLM_LISTEN", default_value = "127.0.0.1:50051")]
    listen: SocketAddr,
    /// Write the address that was bound to this file.
    #[arg(long, value_name = "FILE")]
    address_file: Option<PathBuf>,
    /// The largest message, in MiB: a frame and its depth together.
    #[arg(long, env = "SAM4MLLM_MAX_MESSAGE_MIB", default_value_t = 32)]
    max_message_mib: u32,
    /// What a client may send ahead on one stream, in MiB (HTTP/2's window): best a little more than a frame.
    #[arg(long, env = "SAM4MLLM_WINDOW_MIB", default_value_t = 8)]
    window_mib: u32,
    /// The largest frame, in pixels.
    #[arg(long, env = "SAM4MLLM_MAX_FRAME_PIXELS", default_value_t = FrameLimits::default().max_pixels)]
    max_frame_pixels: u64,
    /// The longest side of a frame, in pixels.
    #[arg(long, env = "SAM4MLLM_MAX_FRAME_SIDE", default_value_t = FrameLimits::default().max_side)]
    max_frame_side: u32,
    /// The longest command, in bytes.
    #[arg(long, env = "SAM4MLLM_MAX_COMMAND_BYTES", default_value_t = NodeConfig::default().max_command_bytes)]
    max_command_bytes: usize,
    /// Targets of one session.
    #[arg(long, env = "SAM4MLLM_MAX_TARGETS", default_value_t = NodeConfig::default().max_targets)]
    max_targets: usize,
    /// Sessions at a time.
    #[arg(long, env = "SAM4MLLM_MAX_SESSIONS", default_value_t = NodeConfig::default().max_sessions)]
    max_sessions: usize,
    /// Unary calls in work or waiting.
    #[arg(long, env = "SAM4MLLM_MAX_CALLS", default_value_t = NodeConfig::default().max_calls)]
    max_calls: usize,
    /// Ground a target again after this many milliseconds.
    #[arg(long, env = "SAM4MLLM_REGROUND_AFTER_MS", default_value_t = 2000)]
    reground_after_ms: u64,
    /// Give one grounding up after this many milliseconds.
    #[arg(long, env = "SAM4MLLM_GROUND_TIMEOUT_MS", default_value_t = 30_000)]
    ground_timeout_ms: u64,
    /// Wait this many milliseconds for SAM's masks to guess the language model's answers from; 0 for not at all.
    #[arg(long, env = "SAM4MLLM_DRAFT_WAIT_MS", default_value_t = 100)]
    draft_wait_ms: u64,
    /// How long a shutdown may take, in seconds.
    #[arg(long, env = "SAM4MLLM_GRACE_S", default_value_t = 10)]
    grace_s: u64,
    /// How logs are written to stderr; what is logged is up to RUST_LOG (default: info).
    #[arg(long, env = "SAM4MLLM_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// The fake grounder takes this long.
    #[arg(long, hide = true, default_value_t = 0)]
    fake_ground_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Runs the subcommand.
pub fn run(args: Args) -> anyhow::Result<()> {
    let config = config(&args);
    // Before a socket or a thread exists.
    config.validate()?;
    init_logs(args.log_format);
    let backend = backend(&args)?;
    // The stages have threads of their own; these only move bytes.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(serve(args, config, backend));
    // A stage in the middle of a long pass is not waited for.
    runtime.shutdown_background();
    outcome
}

fn config(args: &Args) -> ServerConfig {
    let node = NodeConfig {
        frame: FrameLimits { max_pixels: args.max_frame_pixels, max_side: args.max_frame_side },
        reground_after: Duration::from_millis(args.reground_after_ms),
        ground_timeout: Duration::from_millis(args.ground_timeout_ms),
        draft_wait: Duration::from_millis(args.draft_wait_ms),
        max_sessions: args.max_sessions,
        max_targets: args.max_targets,
        max_calls: args.max_calls,
        max_command_bytes: args.max_command_bytes,
        ..NodeConfig::default()
    };
    ServerConfig {
        node,
        max_message_bytes: (args.max_message_mib as usize).saturating_mul(1 << 20),
        window_bytes: args.window_mib.saturating_mul(1 << 20),
        grace: Duration::from_secs(args.grace_s),
        ..ServerConfig::default()
    }
}

/// The seam between the command line and what answers: one arm for each backend.
fn backend(args: &Args) -> anyhow::Result<Backend> {
    match args.stages.backend {
        BackendName::Fake => {
            let script = Script::default();
            script.ground.set_delay(Duration::from_millis(args.fake_ground_ms));
            Ok(fake(&script, FakeGround::strategies(args.stages.strategy)?))
        }
        _ => model_backend(&args.stages),
    }
}

/// The bundle's models, each built on the thread that will own it.
pub(super) fn model_backend(args: &StageArgs) -> anyhow::Result<Backend> {
    let bundle = Arc::new(args.open()?);
    // Before a socket or a thread exists.
    let dialect = Dialect::compile(&bundle.manifest().dialect)?;
    let (strategies, calibration) = (Strategies::of(&dialect, args.strategy)?, dialect.calibration());
    let Engines { options, backend, version } = args.engines(&bundle)?;
    let manifest = bundle.manifest();
    let identity = Identity {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        fingerprint: bundle.fingerprint().to_owned(),
        backend: backend.to_owned(),
        backend_version: version,
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

fn init_logs(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Another subscriber stays: that is the caller's choice.
    let _ = match format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().try_init(),
    };
    // A panic of a stage is one line of the log like everything else.
    std::panic::set_hook(Box::new(|info| tracing::error!(panic = %info, "panicked")));
}

async fn serve(args: Args, config: ServerConfig, backend: Backend) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("bind {}", args.listen))?;
    // Before anyone can know of the node, so that no signal is missed.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let server = Server::build(config, listener, backend).await?;
    let address = server.address()?;
    tracing::info!(%address, backend = ?args.stages.backend, "listening");
    if let Some(file) = &args.address_file {
        write_address(file, address).with_context(|| format!("write {}", file.display()))?;
    }
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("got SIGTERM"),
            _ = interrupt.recv() => tracing::info!("got SIGINT"),
        }
    };
    server.run(shutdown).await?;
    tracing::info!("bye");
    Ok(())
}

/// Whole or not at all: whoever waits for the file never reads half an address.
fn write_address(file: &Path, address: SocketAddr) -> std::io::Result<()> {
    let draft = file.with_extension("part");
    std::fs::write(&draft, format!("{address}\n"))?;
    std::fs::rename(draft, file)
}
