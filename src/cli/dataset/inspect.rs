//! `sam4mllm dataset inspect`: what is in a data set, and what of it may be trained on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::dataset::readers::{self, Dropped, Files, HeldOut, Record, Source, SourceSplit, SourceSummary};

/// Arguments of `sam4mllm dataset inspect`.
#[derive(Debug, clap::Args)]
pub(super) struct InspectArgs {
    /// The file of records, such as `refs(unc).p`, `grefs(unc).json` or LLaVA's list; ReasonSeg: the folder of a split.
    records: PathBuf,
    /// Which data set it is.
    #[arg(long, value_enum)]
    format: Source,
    /// COCO's annotations. Default: instances.json beside the records.
    #[arg(long)]
    instances: Option<PathBuf>,
    /// Folder of the pictures. Default: that of the records.
    #[arg(long)]
    images: Option<PathBuf>,
    /// Split of a data set whose records do not say it.
    #[arg(long, value_enum)]
    split: Option<SourceSplit>,
    /// Another data set whose held-out pictures may not be trained on; may be given more than once.
    #[arg(long, value_name = "FORMAT=RECORDS", value_parser = parse_held_out)]
    held_out: Vec<(Source, PathBuf)>,
    /// Also open every picture and hold its size against the data set's.
    #[arg(long)]
    check_images: bool,
    /// Also rasterise every mask, one at a time.
    #[arg(long)]
    check_masks: bool,
    /// Print one JSON object for programs.
    #[arg(long)]
    json: bool,
}

fn parse_held_out(text: &str) -> Result<(Source, PathBuf), String> {
    let (format, path) = text.split_once('=').ok_or("a format and a path are expected, as in refcoco=refs(unc).p")?;
    Ok((<Source as clap::ValueEnum>::from_str(format, false)?, path.into()))
}

#[derive(Serialize)]
struct Report {
    splits: BTreeMap<&'static str, SourceSummary>,
    all: SourceSummary,
    held_out_images: usize,
    dropped: Dropped,
    without_picture: usize,
    empty_masks: Option<usize>,
}

/// Runs the subcommand.
pub(super) fn run(args: InspectArgs) -> anyhow::Result<()> {
    let spinner = ProgressBar::new_spinner().with_message("reading");
    spinner.enable_steady_tick(Duration::from_millis(100));
    let mut held_out = HeldOut::default();
    for (source, records) in args.held_out {
        let files = Files { records, instances: None, images: None, split: None };
        held_out.add(&readers::read(source, &files)?.records);
    }
    let files = Files { records: args.records, instances: args.instances, images: args.images, split: args.split };
    let mut collection = readers::read(args.format, &files)?;
    spinner.finish_and_clear();
    held_out.add(&collection.records);
    let dropped = held_out.drop_from(&mut collection.records);
    if args.check_images {
        check_images(&collection.records)?;
    }
    let report = Report {
        splits: by_split(&collection.records),
        all: SourceSummary::of(&collection.records),
        held_out_images: held_out.len(),
        dropped,
        without_picture: collection.without_picture,
        empty_masks: args.check_masks.then(|| empty_masks(&collection.records)),
    };
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print(&report),
    }
    Ok(())
}

fn by_split(records: &[Record]) -> BTreeMap<&'static str, SourceSummary> {
    let of = |split| SourceSummary::of(records.iter().filter(move |r| r.split == split));
    let splits = SourceSplit::ALL.into_iter().map(|split| (split.word(), of(split)));
    splits.filter(|(_, summary)| summary.records > 0).collect()
}

fn check_images(records: &[Record]) -> anyhow::Result<()> {
    let bar = super::progress_bar(records.len() as u64);
    for record in records {
        record.image.check().with_context(|| format!("check the picture of {}", record.name))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Number of targets without a single pixel.
fn empty_masks(records: &[Record]) -> usize {
    let bar = super::progress_bar(records.len() as u64);
    let mut empty = 0;
    for record in records {
        let targets = record.referring().into_iter().flat_map(|r| &r.targets);
        empty += targets.filter(|target| target.mask().area() == 0).count();
        bar.inc(1);
    }
    bar.finish_and_clear();
    empty
}

fn print(report: &Report) {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header([
        "split",
        "images",
        "records",
        "expressions",
        "targets per expression",
        "no target",
        "turns",
        "dropped for leakage",
    ]);
    for (word, summary) in &report.splits {
        let dropped = if *word == SourceSplit::Train.word() { report.dropped.records } else { 0 };
        table.add_row(row(word, summary, dropped));
    }
    table.add_row(row("all", &report.all, report.dropped.records));
    println!("{table}");
    let Dropped { records, expressions, images } = report.dropped;
    println!(
        "{} images held out; {records} training records dropped with {expressions} expressions of {images} images",
        report.held_out_images
    );
    if report.without_picture > 0 {
        println!("{} conversations without a picture left out", report.without_picture);
    }
    if let Some(empty) = report.empty_masks {
        println!("{empty} targets have an empty mask");
    }
}

/// Figures that a split cannot have are left empty.
fn row(name: &str, s: &SourceSummary, dropped: usize) -> Vec<String> {
    let share = |part: usize| part as f64 / s.expressions as f64;
    let referring = s.expressions > 0;
    let filled = |there: bool, text: String| if there { text } else { String::new() };
    vec![
        name.to_owned(),
        s.images.to_string(),
        s.records.to_string(),
        filled(referring, s.expressions.to_string()),
        filled(referring, format!("{:.2}", share(s.targets))),
        filled(referring, format!("{:.1} %", 100.0 * share(s.no_target))),
        filled(s.turns > 0, s.turns.to_string()),
        dropped.to_string(),
    ]
}
