//! `sam4mllm engine check`: the GPU's engines held against the CPU's, tensor by tensor, on a rendered clip; and what stays
//! on the GPU against what passes the host.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

use super::bench::{Times as StageTimes, first_mask, tracked_frame};
use super::picture::camera_jpeg;
use super::stages::{EngineName, StageArgs};
use super::{Format, quantile};
use crate::dataset::{Assets, Clip, ClipOptions, Split};
use crate::engine::bundle::Bundle;
use crate::engine::paired::Notes;
use crate::model::gpu::PlanLoader;
use crate::model::handover;
use crate::pipeline::{Ground, Stages};
use crate::prompt::CountHint;

/// Arguments of `sam4mllm engine check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    stages: StageArgs,
    /// Frames of the clip; on each, every command is grounded once and one target is tracked.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    frames: u32,
    /// Commands of the clip.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    commands: u32,
    /// Folder of the scenes' sprites and object table.
    #[arg(long, default_value = "engines/tabletop")]
    assets: PathBuf,
    /// How to print the figures.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// One output of an engine.
#[derive(Debug, Serialize)]
struct Row {
    engine: String,
    tensor: String,
    calls: u32,
    /// Root mean square of the difference as a share of the reference's; none where it could not be taken.
    difference: Option<f32>,
    fault: Option<String>,
    passed: bool,
}

/// Milliseconds of one engine, copies to the GPU and back included.
#[derive(Debug, Serialize)]
struct Speed {
    engine: String,
    calls: usize,
    /// p50, p95, p99.
    cpu: [f64; 3],
    gpu: [f64; 3],
}

#[derive(Debug, Serialize)]
struct Report {
    bundle: String,
    fingerprint: String,
    tensorrt: String,
    gpu: String,
    sm: u32,
    /// How inputs and outputs pass: copied or mapped.
    buffers: &'static str,
    /// Bytes of the GPU's memory in use while all engines are loaded, those of other programs included.
    memory_used: u64,
    memory: u64,
    tolerance: f32,
    outputs: Vec<Row>,
    engines: Vec<Speed>,
}

/// Runs the check: what is printed, and whether every output is within the tolerance.
pub fn run(args: &Args) -> anyhow::Result<(String, bool)> {
    let stages = StageArgs { backend: EngineName::TensorRt, ..args.stages.clone() };
    let bundle = stages.open()?;
    let mut options = stages.engines(&bundle)?.options;
    let Some(gpu) = options.gpu.clone() else { bail!("there is nothing to hold the CPU against: no GPU") };
    let notes = Notes::default();
    options.paired = Some(notes.clone());
    let tolerance = options.tolerance();
    let mut loaded = Stages::load(&bundle, stages.strategy, &options).context("load the bundle's models")?;
    loaded.grounder.set_drafting(stages.draft);
    walk(args, &mut loaded)?;
    let (free, memory) = gpu.device().memory()?;
    // One set of engines at a time, for memory.
    drop(loaded);
    hand_over(&gpu, &bundle, &options.cache_dir(), &notes);
    let report = Report {
        bundle: bundle.manifest().name.clone(),
        fingerprint: bundle.fingerprint().to_owned(),
        tensorrt: format!("{}, {}", gpu.version(), gpu.precision().name()),
        gpu: gpu.device().name().to_owned(),
        sm: gpu.device().sm(),
        buffers: gpu.device().buffers().name(),
        memory_used: memory.saturating_sub(free),
        memory,
        tolerance,
        outputs: rows(&notes, tolerance),
        engines: speeds(&notes),
    };
    let passed = report.outputs.iter().all(|row| row.passed);
    let text = match args.format {
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&report)?),
        Format::Text => text(&report),
    };
    Ok((text, passed))
}

/// Holds what stays on the GPU against what passes the host. What keeps one from that, as NaN does, is a fault among the
/// others: it must not hide in which output it began.
fn hand_over(gpu: &PlanLoader, bundle: &Bundle, cache: &Path, notes: &Notes) {
    let load = |name| gpu.load(name, bundle, cache);
    let conversation = || -> anyhow::Result<()> { Ok(handover::check_conversation(&mut load("decoder")?, notes)?) };
    let embedding = || -> anyhow::Result<()> {
        Ok(handover::check_embedding(&mut load("image_encoder")?, &mut load("mask_decoder")?, notes)?)
    };
    for (way, outcome) in [(handover::CONVERSATION, conversation()), (handover::EMBEDDING, embedding())] {
        if let Err(error) = outcome {
            notes.fault(way, "*", format!("{error:#}"));
        }
    }
}

/// Grounds and tracks through the clip; the CPU's answers decide what comes next.
fn walk(args: &Args, stages: &mut Stages) -> anyhow::Result<()> {
    let assets = Assets::load(&args.assets).context("load the scenes' assets")?;
    let options = ClipOptions { seed: 1, frames: args.frames as usize, size: (640, 480), split: Split::Val };
    let clip = Clip::new(&assets, options);
    let expressions: Vec<_> = clip.commands().into_iter().take(args.commands as usize).collect();
    let mut times = StageTimes::default();
    for index in 0..clip.frames() {
        let scene = clip.frame(index);
        let jpeg = camera_jpeg(&scene)?;
        for expression in &expressions {
            let command = stages.grounder.check(&expression.text, CountHint::NoneOrMore)?;
            first_mask(stages, &jpeg, &command, &mut times)?;
        }
        let first = expressions.first().context("the clip has no command")?;
        tracked_frame(stages, &jpeg, scene.mask_of(&first.targets), &mut times)?;
    }
    Ok(())
}

fn rows(notes: &Notes, tolerance: f32) -> Vec<Row> {
    let row = |parity: crate::engine::paired::Parity| Row {
        passed: parity.fault.is_none() && parity.difference <= tolerance,
        difference: parity.difference.is_finite().then_some(parity.difference),
        engine: parity.engine,
        tensor: parity.tensor,
        calls: parity.calls,
        fault: parity.fault,
    };
    notes.parities().into_iter().map(row).collect()
}

fn speeds(notes: &Notes) -> Vec<Speed> {
    let of = |mut ms: Vec<f64>| {
        ms.sort_by(f64::total_cmp);
        [0.5, 0.95, 0.99].map(|q| quantile(&ms, q).unwrap_or(f64::NAN))
    };
    let speed = |times: crate::engine::paired::Times| Speed {
        engine: times.engine,
        calls: times.tested_ms.len(),
        cpu: of(times.reference_ms),
        gpu: of(times.tested_ms),
    };
    notes.times().into_iter().map(speed).collect()
}

fn text(report: &Report) -> String {
    let mut outputs = Table::new();
    outputs.load_style(UTF8_FULL_CONDENSED).set_header(["engine", "output", "calls", "difference", ""]);
    for row in &report.outputs {
        let difference = match (&row.fault, row.difference) {
            (Some(fault), _) => fault.clone(),
            (None, Some(difference)) => format!("{difference:.1e}"),
            (None, None) => "not finite".to_owned(),
        };
        let verdict = if row.passed { "ok" } else { "FAULT" };
        outputs.add_row([&row.engine, &row.tensor, &row.calls.to_string(), &difference, verdict]);
    }
    let mut engines = Table::new();
    engines.load_style(UTF8_FULL_CONDENSED).set_header(["engine", "calls", "CPU p50/p95/p99 ms", "GPU p50/p95/p99 ms"]);
    for speed in &report.engines {
        let ms = |all: [f64; 3]| all.map(|ms| format!("{ms:.2}")).join(" / ");
        engines.add_row([speed.engine.clone(), speed.calls.to_string(), ms(speed.cpu), ms(speed.gpu)]);
    }
    let (mib, Report { gpu, sm, buffers, tensorrt, tolerance, .. }) = (|bytes: u64| bytes >> 20, report);
    format!(
        "{} {} on {gpu} (sm{sm}, buffers {buffers}), {tensorrt}\n{outputs}\ndifferences: share of the root mean square, at most \
         {tolerance:.0e}\n{engines}\nGPU memory in use: {} of {} MiB\n",
        report.bundle,
        report.fingerprint,
        mib(report.memory_used),
        mib(report.memory),
    )
}
