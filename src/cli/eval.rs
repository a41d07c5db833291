//! `sam4mllm eval`: answers a split by one strategy or several, and says how good the answers are; fits what a
//! confidence is worth, and sweeps thresholds.

mod clips;
mod data;
mod tables;
mod tune;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{Format, stages::StageArgs};
use crate::engine::bundle::Bundle;
use crate::eval::html::{Card, render};
use crate::eval::{
    Answered, BundleInfo, EvalError, Evaluator, Header, Journal, Metrics, Record, Report, Source, Variant, exhibits,
};
use crate::pipeline::{Grounder, Segmenter, Stages, Strategy};
use data::DataArgs;

/// Arguments of `sam4mllm eval`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Bundle folder; the same as `--bundle`.
    #[arg(value_name = "BUNDLE", conflicts_with = "bundle")]
    path: Option<PathBuf>,
    #[command(flatten)]
    stages: StageArgs,
    #[command(flatten)]
    data: DataArgs,
    /// What to compare over the same weights: box, ppg, pqpp, pqpp-5x5, pqpp-blue-noise. Default: box and --strategy.
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["ablation", "fit", "sweep"])]
    variants: Vec<Variant>,
    /// Compare the paper's: box, ppg where the bundle knows it, pqpp with 3x3, 5x5 and 15 blue-noise points.
    #[arg(long, conflicts_with_all = ["fit", "sweep"])]
    ablation: bool,
    /// Follow objects through so many clips of 10 s instead, in which something happens to them; clip --first is the first.
    #[arg(long, conflicts_with_all = ["variants", "ablation", "fit", "sweep"], value_parser = clap::value_parser!(u64).range(1..=10_000))]
    clips: Option<u64>,
    /// Bins of equal width for the expected calibration error.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(2..=100))]
    bins: u64,
    /// Also write the report as JSON to this file; the records and the timings lie beside it.
    #[arg(long, short, conflicts_with_all = ["fit", "sweep"])]
    output: Option<PathBuf>,
    /// Also write the report as one self-contained page to this file.
    #[arg(long, conflicts_with_all = ["fit", "sweep"])]
    html: Option<PathBuf>,
    /// Pictures of successes in the page, and as many of failures.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(0..=500))]
    exhibits: u64,
    /// Go on where a run with the same options was cut off.
    #[arg(long)]
    resume: bool,
    /// Fit what a confidence is worth, on the val split.
    #[arg(long, conflicts_with = "sweep")]
    fit: bool,
    /// Store what was fitted in the bundle's manifest.
    #[arg(long, requires = "fit")]
    write: bool,
    /// Try thresholds, on the val split.
    #[arg(long)]
    sweep: bool,
    /// Least N-acc of the thresholds that --sweep may recommend.
    #[arg(long, default_value_t = 0.93, requires = "sweep", value_parser = parse_rate)]
    min_n_acc: f64,
    /// How to print the report.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|v| (0.0..=1.0).contains(v)).ok_or_else(|| "a rate of 0 to 1 is expected".to_owned())
}

/// What answers.
struct Subject {
    bundle: Bundle,
    grounder: Grounder,
    segmenter: Segmenter,
}

/// Runs the evaluation.
pub fn run(mut args: Args) -> anyhow::Result<()> {
    if let Some(path) = args.path.take() {
        args.stages.bundle = path;
    }
    if let Some(clips) = args.clips {
        return clips::run(&args, clips);
    }
    let source = args.data.open(args.fit || args.sweep)?;
    let mut subject = Subject::load(&args.stages)?;
    if args.fit {
        return tune::fit(&args, &mut subject, &*source);
    }
    if args.sweep {
        return tune::sweep(&args, &mut subject, &*source);
    }
    let variants = args.variants(&subject)?;
    let (records, grounding) = args.answer(&mut subject, &variants, &*source)?;
    let manifest = subject.bundle.manifest();
    let (name, version) = (manifest.name.clone(), manifest.version.clone());
    let bundle = BundleInfo { name, version, fingerprint: subject.bundle.fingerprint().to_owned() };
    let report = Report::of(bundle, source.describe(), &variants, &records, args.bins as usize);
    let json = serde_json::to_string_pretty(&report)?;
    if let Some(path) = &args.output {
        write(path, format!("{json}\n").as_bytes())?;
    }
    if let Some(path) = args.output.as_ref().or(args.html.as_ref()) {
        write(&path.with_extension("timings.json"), format!("{:#}\n", tables::timings(&grounding)).as_bytes())?;
    }
    if let Some(path) = &args.html {
        let cards = args.cards(&mut subject, &variants, (&*source, &records))?;
        write(path, render(&report, &cards).as_bytes())?;
    }
    match args.format {
        Format::Json => println!("{json}"),
        Format::Text => print!("{}", tables::report(&report, &grounding)),
    }
    Ok(())
}

impl Subject {
    fn load(args: &StageArgs) -> anyhow::Result<Self> {
        let bundle = args.open()?;
        let Stages { grounder, segmenter, .. } = args.load(&bundle)?;
        Ok(Self { bundle, grounder, segmenter })
    }

    fn evaluator<'a>(&'a mut self, variants: &'a [Variant]) -> Evaluator<'a> {
        let calibration = self.grounder.calibration();
        Evaluator { ground: &mut self.grounder, segment: &mut self.segmenter, variants, calibration }
    }
}

impl Args {
    /// What is compared; every strategy is one that the bundle knows.
    fn variants(&self, subject: &Subject) -> anyhow::Result<Vec<Variant>> {
        let strategies = subject.grounder.strategies();
        let mut variants = match (self.ablation, &self.variants[..]) {
            (true, _) => Variant::ablation(&strategies),
            (false, []) => [Strategy::Box, strategies.usual()].map(Variant::plain).to_vec(),
            (false, chosen) => chosen.to_vec(),
        };
        for variant in &variants {
            strategies.choose(Some(variant.strategy))?;
        }
        let mut seen = std::collections::HashSet::new();
        variants.retain(|v| seen.insert(*v));
        Ok(variants)
    }

    /// All records, and how long each grounding took that was not there before.
    fn answer(
        &self,
        subject: &mut Subject,
        variants: &[Variant],
        source: &dyn Source,
    ) -> anyhow::Result<(Vec<Record>, Vec<Duration>)> {
        let names: Vec<String> = variants.iter().map(Variant::to_string).collect();
        let header = Header::new(subject.bundle.fingerprint(), names, source.describe());
        let mut journal = match self.output.as_ref().or(self.html.as_ref()).map(|p| p.with_extension("records.jsonl")) {
            None => {
                ensure!(!self.resume, "resume a run: --output or --html is needed, beside which its records lie");
                None
            }
            Some(path) if self.resume => Some(Journal::resume(&path, &header)?),
            Some(path) => Some(Journal::create(&path, &header)?),
        };
        let from = journal.as_ref().map_or((0, 0), Journal::next);
        let bar = progress_bar(source.pictures());
        bar.set_position(from.0);
        let (mut grounding, mut unkept, mut scores) = (Vec::new(), Vec::new(), Vec::new());
        let mut each = |answered: Answered| -> Result<(), EvalError> {
            let Answered { record, grounding: times } = answered;
            grounding.extend(times);
            bar.set_position(record.picture + 1);
            scores.extend(record.answers.last().map(|a| a.score));
            if scores.len().is_multiple_of(40) {
                let m = Metrics::of(scores.iter().copied());
                bar.set_message(format!("gIoU {:.3}  N-acc {:.3}  T-acc {:.3}", m.giou, m.n_acc, m.t_acc));
            }
            match &mut journal {
                Some(journal) => journal.push(&record)?,
                None => unkept.push(record),
            }
            Ok(())
        };
        subject.evaluator(variants).run(source, from, &mut each)?;
        bar.finish_and_clear();
        let records = journal.map_or(unkept, |j| j.records().to_vec());
        if records.is_empty() {
            bail!("answer expressions: the source has none");
        }
        Ok((records, grounding))
    }

    /// Pictures of the last variant's successes and failures.
    fn cards(
        &self,
        subject: &mut Subject,
        variants: &[Variant],
        (source, records): (&dyn Source, &[Record]),
    ) -> anyhow::Result<Vec<Card>> {
        let Some((last, variant)) = variants.len().checked_sub(1).map(|i| (i, variants[i])) else {
            return Ok(Vec::new());
        };
        let mut evaluator = subject.evaluator(variants);
        let mut cards = Vec::new();
        for exhibit in exhibits(records, last, self.exhibits as usize) {
            let record = &records[exhibit.record];
            let picture = source.picture(record.picture)?;
            let Some(sample) = picture.samples.get(record.sample) else { continue };
            let Some(shown) = evaluator.show(&picture, sample, variant)? else { continue };
            cards.extend(Card::new((exhibit, record), last, (&picture, sample), &shown));
        }
        Ok(cards)
    }
}

fn progress_bar(pictures: u64) -> ProgressBar {
    ProgressBar::new(pictures).with_style(
        ProgressStyle::with_template("{bar:40} {pos}/{len} pictures  {eta} left  {msg}")
            .expect("the template is valid"),
    )
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

/// A JSON number, or null where there is none.
fn number(value: Option<f64>) -> serde_json::Value {
    value.map_or(serde_json::Value::Null, |v| json!(v))
}
