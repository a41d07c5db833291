//! `sam4mllm engine bench`: how long a command and a tracked frame take, on frames of a rendered clip.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

use super::picture::camera_jpeg;
use super::stages::StageArgs;
use super::{Format, quantile};
use crate::dataset::{Assets, Clip, ClipOptions, Split};
use crate::frame::{Encoded, Encoding, FrameLimits, Image, Layout, decode};
use crate::mask::{Mask, Rle};
use crate::memory;
use crate::pipeline::{
    Command, Decoded, Drafting, FrameSam, Ground, Grounding, SamDrafts, Segment, Stages, Strategy, Track, TrackLimits,
    segment_groups,
};
use crate::prompt::{CountHint, Prompt};

/// Arguments of `sam4mllm engine bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    stages: StageArgs,
    /// Counted runs.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    runs: u32,
    /// Runs before them that are not counted.
    #[arg(long, default_value_t = 5)]
    warmup: u32,
    /// Folder of the scenes' sprites and object table.
    #[arg(long, default_value = "engines/tabletop")]
    assets: PathBuf,
    /// Also write the first frame to this JPEG file, so that another program can be timed on it.
    #[arg(long)]
    frame: Option<PathBuf>,
    /// How to print the figures.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
struct Quantiles {
    p50: f64,
    p95: f64,
    p99: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    bundle: String,
    fingerprint: String,
    device: String,
    cores: usize,
    command: String,
    strategy: Strategy,
    runs: u32,
    warmup: u32,
    /// Opening the bundle, all hashes checked, until both sides can answer.
    start_ms: f64,
    /// Peak resident memory in MiB.
    rss_mib: f64,
    /// Language-model passes of the first grounding of a command, on average.
    passes: f64,
    /// The same frames grounded in turns, from what answers are drafted.
    drafts: Vec<DraftReport>,
    /// By stage.
    ms: Vec<(&'static str, Quantiles)>,
}

/// Groundings of a command whose target was found on the frame before; averages.
#[derive(Debug, Clone, Serialize)]
struct DraftReport {
    draft: &'static str,
    passes: f64,
    /// Passes one token at a time.
    one_by_one: f64,
    drafted: f64,
    accepted: f64,
    near_ties: f64,
    #[serde(skip)]
    sums: (u32, Decoded),
}

impl DraftReport {
    fn new(draft: &'static str) -> Self {
        let sums = (0, Decoded::default());
        Self { draft, passes: 0.0, one_by_one: 0.0, drafted: 0.0, accepted: 0.0, near_ties: 0.0, sums }
    }

    fn add(&mut self, grounding: &Grounding) {
        self.sums.0 += grounding.passes;
        self.sums.1 += grounding.decoded;
    }

    fn over(self, groundings: usize) -> Self {
        let mean = |sum: u32| f64::from(sum) / groundings as f64;
        let (passes, decoded) = self.sums;
        Self {
            passes: mean(passes),
            one_by_one: mean(decoded.one_by_one),
            drafted: mean(decoded.drafted),
            accepted: mean(decoded.accepted),
            near_ties: mean(decoded.near_ties),
            ..self
        }
    }
}

/// Times of one stage in each run.
#[derive(Default)]
pub(super) struct Times(Vec<(&'static str, Vec<Duration>)>);

impl Times {
    fn add(&mut self, stage: &'static str, time: Duration) {
        match self.0.iter_mut().find(|(name, _)| *name == stage) {
            Some((_, times)) => times.push(time),
            None => self.0.push((stage, vec![time])),
        }
    }

    fn time<T>(&mut self, stage: &'static str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let value = work();
        self.add(stage, start.elapsed());
        value
    }

    fn quantiles(self, warmup: usize) -> Vec<(&'static str, Quantiles)> {
        let of = |times: Vec<Duration>| {
            let mut ms: Vec<f64> = times.iter().skip(warmup).map(|t| t.as_secs_f64() * 1e3).collect();
            ms.sort_by(f64::total_cmp);
            let at = |q: f64| quantile(&ms, q).unwrap_or(f64::NAN);
            Quantiles { p50: at(0.5), p95: at(0.95), p99: at(0.99) }
        };
        self.0.into_iter().map(|(name, times)| (name, of(times))).collect()
    }
}

/// Runs the benchmark.
pub fn run(args: &Args) -> anyhow::Result<String> {
    let start = Instant::now();
    let bundle = args.stages.open()?;
    let mut stages = args.stages.load(&bundle)?;
    let start_ms = start.elapsed().as_secs_f64() * 1e3;

    let assets = Assets::load(&args.assets).context("load the scenes' assets")?;
    let total = (args.runs + args.warmup) as usize;
    let options = ClipOptions { seed: 1, frames: total, size: (640, 480), split: Split::Val };
    let clip = Clip::new(&assets, options);
    let expression = clip.commands().into_iter().next().context("the clip has no command")?;
    let command = stages.grounder.check(&expression.text, CountHint::NoneOrMore)?;
    let mut times = Times::default();
    let (mut passes, mut last) = (0, Vec::new());
    let mut drafts = DRAFTS.map(|(draft, ..)| DraftReport::new(draft));
    // Every grounding is timed as the first one of its frame.
    stages.grounder.mllm_mut().set_prefix_reuse(false);
    for i in 0..total {
        let scene = clip.frame(i);
        let jpeg = camera_jpeg(&scene)?;
        if let (0, Some(path)) = (i, &args.frame) {
            std::fs::write(path, &jpeg).with_context(|| format!("write {}", path.display()))?;
        }
        stages.grounder.set_drafting(args.stages.draft);
        let (first, masks) = first_mask(&mut stages, &jpeg, &command, &mut times)?;
        passes += first.passes;
        again(&mut stages, &jpeg, (&command, &last), &mut drafts, &mut times)?;
        last = masks;
        let truth = scene.mask_of(&expression.targets);
        tracked_frame(&mut stages, &jpeg, truth, &mut times)?;
    }
    let report = Report {
        bundle: bundle.manifest().name.clone(),
        fingerprint: bundle.fingerprint().to_owned(),
        device: cpu(),
        cores: std::thread::available_parallelism()?.get(),
        command: command.text,
        strategy: stages.grounder.strategies().usual(),
        runs: args.runs,
        warmup: args.warmup,
        start_ms,
        rss_mib: memory::peak_bytes().map_or(f64::NAN, |bytes| bytes as f64 / f64::from(1 << 20)),
        passes: f64::from(passes) / total as f64,
        drafts: drafts.map(|d| d.over(total)).to_vec(),
        ms: times.quantiles(args.warmup as usize),
    };
    Ok(match args.format {
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&report)?),
        Format::Text => text(&report),
    })
}

/// What answers are drafted from: its name, as the pipeline knows it, and the row of the table.
const DRAFTS: [(&str, Drafting, &str); 3] = [
    ("none", Drafting::None, "ground again, nothing drafted"),
    ("words", Drafting::Words, "ground again, words drafted"),
    ("sam", Drafting::Masks, "ground again, drafted from masks"),
];

/// A new command on a new frame: JPEG in, run-length encoded mask out. Returns the grounding and its masks.
pub(super) fn first_mask(
    stages: &mut Stages,
    jpeg: &[u8],
    command: &Command,
    times: &mut Times,
) -> anyhow::Result<(Grounding, Vec<Mask>)> {
    let start = Instant::now();
    let image = times.time("decode jpeg", || frame(jpeg))?;
    let mut sam = FrameSam::new(&mut stages.segmenter, &image);
    let mut drafts = SamDrafts::new(&[], |prompts| sam.segment(prompts));
    let grounding = times.time("ground", || stages.grounder.ground_drafted(&image, command, &mut drafts, None))?;
    times.time("embed", || sam.ready().map(drop))?;
    let (segmenter, embedding) = sam.ready()?;
    // Where nothing was found, the middle of the frame stands for the box: what is timed is the work, not the answer.
    let whole = Prompt { bbox: Some(crate::geometry::BBox::new(160.0, 120.0, 480.0, 360.0)), points: Vec::new() };
    let mut groups: Vec<Vec<Prompt>> = grounding.instances.iter().map(|i| i.prompts()).collect();
    if groups.is_empty() {
        groups.push(vec![whole]);
    }
    let masks = times.time("mask", || segment_groups(segmenter, embedding, &groups))?;
    times.time("encode rle", || masks.iter().map(|m| Rle::encode(&m.mask).to_coco_string().len()).sum::<usize>());
    times.add("command to first mask", start.elapsed());
    let masks = masks.into_iter().take(grounding.instances.len()).map(|m| m.mask).collect();
    Ok((grounding, masks))
}

/// A command whose target had the masks `last` on the frame before, grounded once by each kind of draft.
fn again(
    stages: &mut Stages,
    jpeg: &[u8],
    (command, last): (&Command, &[Mask]),
    reports: &mut [DraftReport; 3],
    times: &mut Times,
) -> anyhow::Result<()> {
    let image = frame(jpeg)?;
    for ((_, draft, row), report) in DRAFTS.into_iter().zip(reports) {
        stages.grounder.set_drafting(draft);
        // The node embeds the frame beside the grounding.
        let mut sam = FrameSam::new(&mut stages.segmenter, &image);
        sam.ready()?;
        let mut drafts = SamDrafts::new(last, |prompts| sam.segment(prompts));
        let grounding = times.time(row, || stages.grounder.ground_drafted(&image, command, &mut drafts, None))?;
        report.add(&grounding);
    }
    Ok(())
}

/// One more frame of an instance that is known: JPEG in, run-length encoded mask out.
pub(super) fn tracked_frame(stages: &mut Stages, jpeg: &[u8], last: Mask, times: &mut Times) -> anyhow::Result<()> {
    let start = Instant::now();
    let image = frame(jpeg)?;
    let mut track = Track::start(&image, last, TrackLimits::default()).context("the target is hidden")?;
    let embedding = stages.segmenter.embed(&image)?;
    let masks = stages.segmenter.segment(&embedding, &[track.prompt(true)])?;
    if let Some(answer) = masks.first() {
        // Lost or not takes the same time.
        let _ = track.update(&image, answer, true);
        std::hint::black_box(Rle::encode(&answer.mask).to_coco_string());
    }
    times.add("tracked frame", start.elapsed());
    Ok(())
}

fn frame(jpeg: &[u8]) -> anyhow::Result<Image> {
    let encoded = Encoded { encoding: Encoding::Jpeg, layout: Layout::default(), data: jpeg };
    Ok(decode(&encoded, FrameLimits::default())?)
}

/// The processor's name, where the system tells.
pub(super) fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':').map(|(_, n)| n.trim()));
    name.unwrap_or(std::env::consts::ARCH).to_owned()
}

fn text(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["", "p50 ms", "p95 ms", "p99 ms"]);
    for (stage, q) in &report.ms {
        let ms = |v: f64| format!("{v:.1}");
        table.add_row([(*stage).to_owned(), ms(q.p50), ms(q.p95), ms(q.p99)]);
    }
    let drafts = report.drafts.iter().map(|d| {
        let DraftReport { draft, passes, one_by_one, drafted, accepted, near_ties, .. } = d;
        format!(
            "draft {draft}: {passes:.1} passes a grounding, {one_by_one:.1} one by one; {accepted:.1} of {drafted:.1} \
             tokens right, {near_ties:.2} near ties\n"
        )
    });
    let drafts: String = drafts.collect();
    format!(
        "{table}\n{drafts}{} {} on {}, {} cores; 640x480 JPEG, n = {}, warm-up {}\ncommand: {:?} by {}, {:.1} passes a grounding\n\
         start to ready {:.0} ms, peak memory {:.0} MiB\n",
        report.bundle,
        report.fingerprint,
        report.device,
        report.cores,
        report.runs,
        report.warmup,
        report.command,
        report.strategy.word(),
        report.passes,
        report.start_ms,
        report.rss_mib,
    )
}
