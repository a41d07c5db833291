//! `sam4mllm replay`: a recorded stream once more, and what has changed.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::ValueEnum;
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde_json::json;

use super::{Format, serve};
use crate::pipeline::{Drafting, Strategy};
use crate::server::settings::{BackendName, Settings};
use crate::server::{Change, Recording, Report, replay, wire};

/// Changes that are shown one by one as text; JSON has them all.
const SHOWN: usize = 40;

/// Arguments of `sam4mllm replay`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A recording made by `serve --record`.
    file: PathBuf,
    /// Bundle folder.
    #[arg(long, env = "SAM4MLLM_BUNDLE", default_value = "engines/tabletop")]
    bundle: PathBuf,
    /// What runs the models; by default what did when it was recorded.
    #[arg(long)]
    backend: Option<BackendName>,
    /// What the language model's answers are guessed from; by default what they were when it was recorded. The words
    /// are the same with any, probabilities may differ in their last bit.
    #[arg(long)]
    draft: Option<Drafting>,
    /// Threads an engine; by default one a core.
    #[arg(long, env = "SAM4MLLM_THREADS")]
    threads: Option<usize>,
    /// Where imported graphs are kept; by default in the user's cache folder.
    #[arg(long, env = "SAM4MLLM_CACHE")]
    cache_dir: Option<PathBuf>,
    #[command(flatten)]
    machine: serve::Machine,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Runs the subcommand. Fails where the same build and bundle answer otherwise than then, and where the recording cannot
/// be read to its end.
pub fn run(args: Args) -> anyhow::Result<()> {
    let place = || args.file.display().to_string();
    let recording = Recording::open(&args.file).with_context(place)?;
    let strategy = Strategy::from_str(recording.says("strategy"), false).map_err(anyhow::Error::msg);
    let drafted = Drafting::from_str(recording.says("draft"), false).map_err(anyhow::Error::msg);
    let was_fake = recording.provenance().engine == "fake";
    let settings = Settings {
        backend: args.backend.unwrap_or(if was_fake { BackendName::Fake } else { BackendName::Rten }),
        bundle: args.bundle,
        strategy: Some(strategy.context("read the recording's strategy")?),
        draft: match args.draft {
            Some(draft) => draft,
            None => drafted.context("read the recording's draft")?,
        },
        threads: args.threads,
        cache_dir: args.cache_dir,
        ..Settings::default()
    };
    let report = replay(recording, serve::backend(&settings, &args.machine)?).with_context(place)?;
    match args.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&to_json(&report))?),
        Format::Text => print(&report),
    }
    if let Some(damage) = report.damage {
        return Err(damage).with_context(place);
    }
    let changed = report.changes.len();
    if let Some(first) = report.changes.first()
        && report.same_provenance()
    {
        bail!("{changed} changes on the same build and bundle; the first: {}", line(first));
    }
    Ok(())
}

fn line(change: &Change) -> String {
    let target = if change.target.is_empty() { String::new() } else { format!(", target {:?}", change.target) };
    format!("{}{target}: {}", change.place, change.what)
}

fn made_by(p: &wire::Provenance) -> String {
    let short: String = p.bundle_fingerprint.chars().take(12).collect();
    let (name, version) = (&p.bundle_name, &p.bundle_version);
    format!("{name} {version} {short} on {} {}, node {}", p.engine, p.engine_version, p.node_version)
}

fn number(value: Option<f32>) -> String {
    value.map_or_else(String::new, |v| format!("{v:.3}"))
}

fn print(report: &Report) {
    println!("recorded: {}", made_by(&report.recorded));
    println!("replayed: {}", made_by(&report.replayed));
    println!("{} of {} replies are the same, byte for byte", report.identical, report.replies);
    if !report.changes.is_empty() {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED).set_header([
            "reply",
            "target",
            "verdict",
            "mask IoU",
            "first difference",
        ]);
        for change in report.changes.iter().take(SHOWN) {
            let verdict = change.verdicts.as_ref().map_or_else(String::new, |(was, is)| format!("{was} -> {is}"));
            let Change { place, target, iou, what, .. } = change;
            table.add_row([place.clone(), target.clone(), verdict, number(*iou), what.clone()]);
        }
        println!("{table}");
        if report.changes.len() > SHOWN {
            println!("... and {} more; --format json has them all", report.changes.len() - SHOWN);
        }
    }
    let mut table = Table::new();
    let head = ["target", "replies", "changed", "verdict changes", "mean mask IoU", "min mask IoU"];
    table.load_style(UTF8_FULL_CONDENSED).set_header(head);
    for (id, target) in &report.targets {
        let counts = [target.replies, target.changed, target.verdict_changes].map(|n| n.to_string());
        let ious = [target.mean_iou(), target.min_iou].map(number);
        table.add_row([vec![id.clone()], counts.to_vec(), ious.to_vec()].concat());
    }
    println!("{table}");
}

fn to_json(report: &Report) -> serde_json::Value {
    let change = |c: &Change| {
        let verdicts = c.verdicts.as_ref().map(|(was, is)| json!({ "recorded": was, "replayed": is }));
        json!({ "reply": c.place, "target": c.target, "verdict": verdicts, "mask_iou": c.iou, "difference": c.what })
    };
    let targets: serde_json::Map<_, _> = report
        .targets
        .iter()
        .map(|(id, t)| {
            let value = json!({
                "replies": t.replies,
                "changed": t.changed,
                "verdict_changes": t.verdict_changes,
                "mean_mask_iou": t.mean_iou(),
                "min_mask_iou": t.min_iou,
            });
            (id.clone(), value)
        })
        .collect();
    json!({
        "recorded": made_by(&report.recorded),
        "replayed": made_by(&report.replayed),
        "replies": report.replies,
        "identical": report.identical,
        "changes": report.changes.iter().map(change).collect::<Vec<_>>(),
        "targets": targets,
        "damage": report.damage.as_ref().map(ToString::to_string),
    })
}
