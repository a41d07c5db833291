//! `eval --clips`: how well objects are followed.

use std::path::Path;

use anyhow::{Context, bail};
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::{Args, write};
use crate::cli::Format;
use crate::cli::serve::model_backend;
use crate::dataset::readers::SourceSplit;
use crate::dataset::{Assets, ClipOptions, Split, Story, StoryClip};
use crate::eval::html::{base64, document};
use crate::eval::tracking::{Figures, Followed, Pace, follow};
use crate::node::NodeConfig;

const SECONDS: u32 = 10;
/// What a grounding takes on the clips' clock: rather more than on two idle cores.
const PACE: Pace = Pace { fps: 10, grounding_ms: 100 };
const SIZE: (u32, u32) = (640, 480);
/// Clips whose pictures are in the page: those that were followed worst.
const SHOWN: usize = 12;

/// What a run is about: one that goes on must be about the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Header {
    bundle: String,
    fingerprint: String,
    split: String,
    first: u64,
    clips: u64,
    seconds: u32,
    pace: Pace,
    size: (u32, u32),
}

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    header: Header,
    all: Figures,
    by_story: Vec<(&'static str, Figures)>,
    clips: Vec<Followed>,
}

/// Runs the clips; with `--output`, what is done is kept beside it, for `--resume`.
pub(super) fn run(args: &Args, clips: u64) -> anyhow::Result<()> {
    let (split, first, folder) = args.data.clips()?;
    let assets = Assets::load(folder).context("load the scenes' assets")?;
    let bundle = args.stages.open()?;
    let header = Header {
        bundle: format!("{} {}", bundle.manifest().name, bundle.manifest().version),
        fingerprint: bundle.fingerprint().to_owned(),
        split: split.to_string(),
        first,
        clips,
        seconds: SECONDS,
        pace: PACE,
        size: SIZE,
    };
    let kept = args.output.as_ref().map(|path| path.with_extension("clips.jsonl"));
    let mut done = match &kept {
        Some(path) if args.resume => resume(path, &header)?,
        _ => Vec::new(),
    };
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} frames  {eta} left  {msg}").context("make a bar")?;
    let per_clip = PACE.frames(SECONDS);
    let bar = ProgressBar::new(clips * per_clip as u64).with_style(style);
    bar.set_position((done.len() * per_clip) as u64);
    for seed in first + done.len() as u64..first + clips {
        let story = Story::ALL[seed as usize % Story::ALL.len()];
        let options = ClipOptions { seed, frames: per_clip, size: SIZE, split };
        let told =
            StoryClip::new(&assets, &options, story).with_context(|| format!("draw clip {seed}: no layout fits"))?;
        let stages = model_backend(&args.stages)?.stages;
        done.push(follow(&told, seed, (NodeConfig::default(), stages), PACE, || bar.inc(1))?);
        if let Some(path) = &kept {
            keep(path, &header, &done)?;
        }
        let Figures { mean_iou, switches: [a, b], found_without, .. } = Figures::of(done.iter());
        bar.set_message(format!("IoU {mean_iou:.3}  {} switches  {:.1} % found without", a + b, 100.0 * found_without));
    }
    bar.finish_and_clear();
    let of = |story: Story| (story.word(), Figures::of(done.iter().filter(move |c| c.story == story)));
    let by_story = Story::ALL.into_iter().map(of).collect();
    let report = Report { header, all: Figures::of(done.iter()), by_story, clips: done };
    let json = serde_json::to_string(&report)? + "\n";
    if let Some(path) = &args.output {
        write(path, json.as_bytes())?;
    }
    if let Some(path) = &args.html {
        write(path, page(&report).as_bytes())?;
    }
    match args.format {
        Format::Json => print!("{json}"),
        Format::Text => print!("{}", text(&report)),
    }
    Ok(())
}

/// The clips of a run that was cut off.
fn resume(path: &Path, header: &Header) -> anyhow::Result<Vec<Followed>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let mut lines = text.lines();
    let of: Header = serde_json::from_str(lines.next().unwrap_or_default()).context("read what the run was about")?;
    anyhow::ensure!(of == *header, "resume a run: {} is of other clips or another bundle", path.display());
    // The last line may be half a one.
    Ok(lines.map_while(|line| serde_json::from_str(line).ok()).collect())
}

/// Whole or not at all.
fn keep(path: &Path, header: &Header, done: &[Followed]) -> anyhow::Result<()> {
    let mut text = serde_json::to_string(header)? + "\n";
    for clip in done {
        text += &(serde_json::to_string(clip)? + "\n");
    }
    let draft = path.with_extension("part");
    write(&draft, text.as_bytes())?;
    std::fs::rename(&draft, path).with_context(|| format!("write {}", path.display()))
}

const COLUMNS: [&str; 10] = [
    "story",
    "clips",
    "frames with it",
    "mean IoU",
    "switches, tracked",
    "grounded elsewhere",
    "frames without",
    "found, %",
    "absent, %",
    "absent with it, %",
];

fn cells(story: &str, f: &Figures) -> Vec<String> {
    vec![
        story.to_owned(),
        f.clips.to_string(),
        f.seen.to_string(),
        format!("{:.3}", f.mean_iou),
        f.switches[0].to_string(),
        f.switches[1].to_string(),
        f.without.to_string(),
        format!("{:.2}", 100.0 * f.found_without),
        format!("{:.1}", 100.0 * f.absent_without),
        format!("{:.2}", 100.0 * f.absent_with),
    ]
}

impl Report {
    fn rows(&self) -> impl Iterator<Item = Vec<String>> {
        let stories = self.by_story.iter().map(|(name, figures)| cells(name, figures));
        stories.chain([cells("all", &self.all)])
    }

    fn about(&self) -> String {
        let Header { bundle, fingerprint, split, first, clips, seconds, pace, size } = &self.header;
        format!(
            "{bundle} {fingerprint}; clips {first} to {} of {split}, {seconds} s each at {} frames a second, {}x{} JPEG; a \
             grounding takes {} ms of the clips' clock",
            first + clips - 1,
            pace.fps,
            size.0,
            size.1,
            pace.grounding_ms
        )
    }
}

fn text(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(COLUMNS).add_rows(report.rows());
    format!("{table}\n{}\n", report.about())
}

fn page(report: &Report) -> String {
    document("sam4mllm eval --clips", |page| {
        page.element("p", &[], report.about()).raw("\n");
        page.table(COLUMNS, report.rows());
        page.element("h2", &[], "Worst first: the mask, and the box of what is seen of the object")
            .raw("\n<div class=\"grid\">\n");
        let mut worst: Vec<&Followed> = report.clips.iter().collect();
        worst.sort_by(|a, b| a.mean_iou().unwrap_or(1.0).total_cmp(&b.mean_iou().unwrap_or(1.0)));
        for clip in worst.into_iter().take(SHOWN) {
            page.raw("<section class=\"card\">").element("h3", &[], &clip.command).raw("<div class=\"pair\">");
            for (frame, jpeg) in &clip.pictures {
                let (data, alt) = (format!("data:image/jpeg;base64,{}", base64(jpeg)), format!("frame {frame}"));
                page.open("img", &[("src", &data), ("alt", &alt), ("loading", &"lazy")]);
            }
            let facts = format!(
                "clip {}, {}: mean IoU {:.3}, {} switches, {} groundings",
                clip.seed,
                clip.story.word(),
                clip.mean_iou().unwrap_or(0.0),
                clip.switches.len(),
                clip.groundings
            );
            page.raw("</div>").element("p", &[], facts).raw("</section>\n");
        }
        page.raw("</div>\n");
    })
}

/// The split of rendered scenes.
///
/// # Errors
/// For one that only data sets have.
pub(super) fn split(split: Option<SourceSplit>) -> anyhow::Result<Split> {
    match split {
        Some(SourceSplit::Val) => Ok(Split::Val),
        Some(SourceSplit::Train) => Ok(Split::Train),
        Some(SourceSplit::Test) | None => Ok(Split::Test),
        Some(SourceSplit::TestA | SourceSplit::TestB) => bail!("clips are of train, val or test"),
    }
}
