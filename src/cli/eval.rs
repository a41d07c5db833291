//! `sam4mllm eval`: answers a split and prints the field's metrics.

use std::path::PathBuf;

use anyhow::Context;
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use indicatif::{ProgressBar, ProgressStyle};

use super::{Format, stages::StageArgs};
use crate::dataset::{Assets, SceneGenerator, Split};
use crate::eval::{Evaluator, Metrics, Options, Report};

/// Arguments of `sam4mllm eval`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Bundle folder; the same as `--bundle`.
    #[arg(value_name = "BUNDLE", conflicts_with = "bundle")]
    path: Option<PathBuf>,
    #[command(flatten)]
    stages: StageArgs,
    /// Split to answer; `test` is held out and fixed.
    #[arg(long, value_enum, default_value_t = Split::Test)]
    split: Split,
    /// Scenes of the split.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    scenes: u64,
    /// Expressions a scene.
    #[arg(long, default_value_t = 4)]
    expressions: usize,
    /// First scene.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Longest image side in pixels.
    #[arg(long, default_value_t = 320)]
    side: u32,
    /// Folder of the scenes' sprites and object table.
    #[arg(long, default_value = "engines/tabletop")]
    assets: PathBuf,
    /// Also write the report as JSON to this file.
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// How to print the report.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Runs the evaluation.
pub fn run(mut args: Args) -> anyhow::Result<()> {
    if let Some(path) = args.path.take() {
        args.stages.bundle = path;
    }
    let assets = Assets::load(&args.assets).context("load the scenes' assets")?;
    let generator = SceneGenerator::new(&assets, args.split, 0);
    let (mut grounder, mut segmenter) = args.stages.load()?;
    let options = Options { first: args.first, scenes: args.scenes, expressions: args.expressions, side: args.side };
    let bar = ProgressBar::new(args.scenes).with_style(
        ProgressStyle::with_template("{bar:40} {pos}/{len} scenes  {eta} left  {msg}").expect("the template is valid"),
    );
    let strategy = args.stages.strategy;
    let mut evaluator = Evaluator { ground: &mut grounder, segment: &mut segmenter, strategy };
    let evaluation = evaluator.run(&generator, &options, |so_far, _| {
        bar.inc(1);
        if bar.position().is_multiple_of(10) {
            let m = Metrics::of(so_far.answers.iter());
            bar.set_message(format!("gIoU {:.3}  N-acc {:.3}  T-acc {:.3}", m.giou, m.n_acc, m.t_acc));
        }
    })?;
    bar.finish_and_clear();
    let report = evaluation.report(strategy, args.scenes);
    let json = serde_json::to_string_pretty(&report)?;
    if let Some(path) = &args.output {
        std::fs::write(path, format!("{json}\n")).with_context(|| format!("write {}", path.display()))?;
    }
    match args.format {
        Format::Json => println!("{json}"),
        Format::Text => print(&report),
    }
    Ok(())
}

fn print(report: &Report) {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["", "n", "gIoU", "cIoU", "target gIoU", "P@0.5", "P@0.7", "P@0.9", "N-acc", "T-acc"]);
    for (strategy, metrics) in &report.answers {
        table.add_row(row(&format!("by {strategy}"), metrics));
    }
    table.add_row(row("box only", &report.box_only));
    for (name, metrics) in &report.by_type {
        table.add_row(row(&format!("  {name}"), metrics));
    }
    table.add_row(row("  near misses", &report.near_miss));
    println!("{table}");
    println!(
        "{} scenes, {:.2} passes a grounding ({:.2} one by one, {} of {} drafted tokens right, {} near ties), {:.1} % of confident points right, {} malformed answers",
        report.scenes,
        report.passes_per_grounding,
        report.one_by_one_per_grounding,
        report.accepted,
        report.drafted,
        report.near_ties,
        100.0 * report.point_accuracy,
        report.malformed
    );
}

/// Figures that a set of samples cannot have are left empty.
fn row(name: &str, m: &Metrics) -> Vec<String> {
    let with = |v: f64, there: bool| if there { format!("{v:.3}") } else { String::new() };
    let (targets, none) = (m.with_target > 0, m.samples > m.with_target);
    vec![
        name.to_owned(),
        m.samples.to_string(),
        with(m.giou, m.samples > 0),
        with(m.ciou, targets),
        with(m.target_giou, targets),
        with(m.p50, targets),
        with(m.p70, targets),
        with(m.p90, targets),
        with(m.n_acc, none),
        with(m.t_acc, targets),
    ]
}
