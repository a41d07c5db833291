//! `sam4mllm engine build`: a bundle's graphs to TensorRT plans.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, bail};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use super::Format;
use crate::engine::bundle::{Bundle, Verify};
use crate::engine::tensorrt::plan::{Made, Recipe, make};
use crate::engine::tensorrt::{Builder, Library, Phase, PlanStore, Progress, TensorRtErrorKind};
use crate::import::{Level, default_cache_dir};
use crate::model::plans::{GraphOptions, PlanGraph, Precision, plan_graphs};

/// Arguments of `sam4mllm engine build`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A bundle.
    bundle: PathBuf,
    /// What the plans are for: `current`, the GPU of this machine, or with TensorRT for RTX a compute capability such
    /// as `sm86`, which needs no GPU.
    #[arg(long, default_value = "current")]
    device: Device,
    /// What matrix products are computed in; all else stays in 32 bits.
    #[arg(long, value_enum, default_value_t = Precision::Fp16)]
    precision: Precision,
    /// Which operators the graphs are written with. Default: the most that this TensorRT takes.
    #[arg(long, value_enum)]
    level: Option<Level>,
    /// Longest conversation in tokens; less needs less memory. Default: what the checkpoint knows.
    #[arg(long)]
    positions: Option<u32>,
    /// Folder for graphs and plans. Default: the cache that a node looks into.
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Leave the weights out of the plans, to be put in again from the bundle when a plan is loaded. Needs a GPU.
    #[arg(long)]
    strip: bool,
    /// Make plans whose weights may stay in host memory, for boards with little of their own.
    #[arg(long)]
    stream_weights: bool,
    /// Threads of a build.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// How to print the table.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// What plans are for; `None` is the GPU of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Device(pub(super) Option<u32>);

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "current" {
            return Ok(Self(None));
        }
        let number = text.strip_prefix("sm").and_then(|number| number.parse().ok());
        number
            .filter(|number| (10..1000).contains(number))
            .map(|number| Self(Some(number)))
            .ok_or_else(|| "must be `current`, or `sm` and the compute capability without its dot: `sm86`".to_owned())
    }
}

/// One row of the table.
#[derive(Debug, Serialize)]
struct Row {
    graph: String,
    layers: usize,
    seconds: f64,
    bytes: u64,
    built: bool,
    plan: PathBuf,
}

impl Row {
    fn new(made: &Made) -> Self {
        let record = made.plan.record();
        Self {
            graph: record.key.graph.clone(),
            layers: record.layers,
            seconds: record.seconds,
            bytes: record.bytes,
            built: made.fresh,
            plan: made.plan.path().to_owned(),
        }
    }
}

/// What has to be said while plans are built or loaded: that a build waits for another, that a plan in the cache is unfit. TensorRT's own log
/// is left out, as errors tell what it reported; `RUST_LOG=tensorrt=debug` shows it.
pub(super) fn init_logs() {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,sam4mllm=info,tensorrt=off"));
    // One that is there already is as good.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<String> {
    init_logs();
    let bundle = Bundle::open(&args.bundle, Verify::Hashes)?;
    let library = Library::find()?;
    let mut recipe = match Recipe::new(&library, args.device.0) {
        Err(error) if error.kind() == TensorRtErrorKind::Driver => {
            bail!("{error}; without one, name what the plans are for, as in --device sm86")
        }
        recipe => recipe?,
    };
    (recipe.options.strip, recipe.options.stream_weights) = (args.strip, args.stream_weights);
    let cache = args.cache.clone().unwrap_or_else(default_cache_dir);
    let level = args.level.unwrap_or(GraphOptions::highest_level(library.version()));
    let options = GraphOptions { level, precision: args.precision, positions: args.positions };
    let graphs = plan_graphs(&bundle, &cache, options)?;
    let store = PlanStore::open(cache.join("plans"))?;
    let mut builder = Builder::new(library)?;
    builder.set_threads(args.threads)?;
    let mut rows = Vec::new();
    for graph in &graphs {
        let PlanGraph { name, profiles, .. } = graph;
        let (source, bar) = (graph.source(bundle.fingerprint()), Box::new(Bar::new(name)));
        let made = make(&builder, &store, &recipe, (&source, profiles), Some(bar))?;
        rows.push(Row::new(&made));
    }
    let header = format!("{}, {}, {}, {}", library.version(), recipe.device(), level.name(), args.precision.name());
    match args.format {
        Format::Text => Ok(format!("{header}\n{}\n", table(&rows))),
        Format::Json => Ok(serde_json::to_string_pretty(&rows).context("write rows")? + "\n"),
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(["graph", "layers", "seconds", "MiB", "", "plan"]);
    for row in rows {
        let file = row.plan.file_name().unwrap_or_default().to_string_lossy().into_owned();
        table.add_row([
            row.graph.clone(),
            row.layers.to_string(),
            format!("{:.1}", row.seconds),
            format!("{:.1}", row.bytes as f64 / f64::from(1 << 20)),
            (if row.built { "built" } else { "found" }).to_owned(),
            file,
        ]);
    }
    table
}

/// Shows the outermost phase of one build as a bar, and the phase that is at work as its message.
struct Bar {
    graph: String,
    bar: ProgressBar,
    outermost: Mutex<Option<String>>,
}

impl Bar {
    fn new(graph: &str) -> Self {
        let style = ProgressStyle::with_template("{prefix:14} {bar:40} {pos}/{len} {elapsed}  {msg}");
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let bar = bar.with_style(style.expect("the template is constant")).with_prefix(graph.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { graph: graph.to_owned(), bar, outermost: Mutex::new(None) }
    }
}

impl Progress for Bar {
    fn report(&self, phase: Phase<'_>) -> bool {
        tracing::trace!(graph = self.graph, ?phase, "build");
        let mut outermost = self.outermost.lock().unwrap_or_else(|broken| broken.into_inner());
        match phase {
            Phase::Start { name, parent, steps } => {
                if parent.is_none() {
                    *outermost = Some(name.to_owned());
                    self.bar.set_length(steps.into());
                    self.bar.set_position(0);
                }
                self.bar.set_message(name.to_owned());
            }
            Phase::Step { name, step } if outermost.as_deref() == Some(name) => {
                self.bar.set_position(u64::from(step) + 1);
            }
            Phase::Step { .. } | Phase::End { .. } => {}
        }
        true
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
